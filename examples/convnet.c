/* Reading handwritten digits with a convolutional network.
   convnet FOLDER     trains on MNIST's files in FOLDER (train-images-idx3-ubyte, ..., as they are or with .gz) and tests on its test set
   convnet            the same on digits that it draws itself
   convnet --bench    times its training step and run (--json, --profile, --threads N) */
#include <zlib.h>

#include "example.h"

enum { BATCH = 64, SIDE = 28, PIXELS = SIDE * SIDE, DIGITS = 10 };

/* Two blocks of convolution, batch norm, relu and pooling; then one linear layer. */
static struct cb_tensor *block(struct cb_function *f, int number, struct cb_tensor *x, int64_t channels) {
    char conv[16], norm[16];
    snprintf(conv, sizeof conv, "conv%d", number);
    snprintf(norm, sizeof norm, "norm%d", number);
    x = cb_conv2d(f, conv, x, channels, 3, 1);
    x = cb_unary(f, "relu", cb_batch_norm(f, norm, x));
    return cb_max_pool2d(f, x, 2);
}

static struct cb_function *network(struct cb_engine *engine) {
    struct cb_err err = {0};
    struct cb_function *f;
    check(cb_function_create(&f, engine, &err), &err);
    struct cb_tensor *x = cb_input(f, "images", CB_DTYPE_F32, 4, (int64_t[]){BATCH, 1, SIDE, SIDE});
    struct cb_tensor *labels = cb_input(f, "labels", CB_DTYPE_I32, 1, (int64_t[]){BATCH});
    x = block(f, 1, x, 16);
    x = block(f, 2, x, 32);
    x = cb_reshape(f, x, 2, (int64_t[]){BATCH, -1});
    x = cb_linear(f, "head", x, DIGITS);
    cb_output(f, "scores", x);
    cb_loss(f, cb_cross_entropy(f, x, labels));
    check(cb_function_compile(f, &(struct cb_compile_options){.lr = 1e-3}, &err), &err);
    return f;
}

/* Images of one byte a pixel and their labels. */
struct digits {
    int n;
    unsigned char *pixel, *label;
};

/* ---- MNIST's idx format: big-endian magic, one count for each dimension, bytes (LeCun et al., 1998) */
static unsigned char *read_idx(const char *folder, const char *name, int rank, int *n) {
    char path[1024];
    unsigned char head[16];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    gzFile file = gzopen(path, "rb");  // reads plain files too
    if (!file) {
        snprintf(path, sizeof path, "%s/%s.gz", folder, name);
        file = gzopen(path, "rb");
    }
    size_t item = rank == 3 ? PIXELS : 1;
    int head_bytes = 4 + 4 * rank;
    bool good = file && gzread(file, head, (unsigned)head_bytes) == head_bytes && head[2] == 8 && head[3] == rank;
    long count = good ? (long)head[4] << 24 | head[5] << 16 | head[6] << 8 | head[7] : 0;
    if (good && rank == 3) good = head[11] == SIDE && head[15] == SIDE;
    good = good && count > 0 && count <= 1000000;
    unsigned char *data = good ? malloc((size_t)count * item) : NULL;
    good = data && gzread(file, data, (unsigned)((size_t)count * item)) == (int)((size_t)count * item);
    if (file) gzclose(file);
    if (!good) {
        fprintf(stderr, "error: %s: cannot be read as an idx file of digits\n", path);
        exit(1);
    }
    *n = (int)count;
    return data;
}

static struct digits read_digits(const char *folder, const char *images, const char *labels) {
    struct digits d;
    int n_labels;
    d.pixel = read_idx(folder, images, 3, &d.n);
    d.label = read_idx(folder, labels, 1, &n_labels);
    if (n_labels < d.n) d.n = n_labels;
    return d;
}

/* ---- digits drawn as seven segments, somewhere in the picture, with noise */
static void draw_digit(unsigned char *pixel, int digit) {
    // bits: top, upper left, upper right, middle, lower left, lower right, bottom
    static const unsigned char segments[DIGITS] = {0x77, 0x24, 0x5d, 0x6d, 0x2e, 0x6b, 0x7b, 0x25, 0x7f, 0x6f};
    static const int box[7][4] = {{0, 0, 9, 2}, {0, 0, 2, 9}, {7, 0, 9, 9}, {0, 7, 9, 9}, {0, 7, 2, 16}, {7, 7, 9, 16}, {0, 14, 9, 16}};
    int left = 2 + rand() % 14, top = 2 + rand() % 8;
    for (int i = 0; i < PIXELS; i++) pixel[i] = (unsigned char)(rand() % 60);
    for (int s = 0; s < 7; s++)
        for (int y = box[s][1]; segments[digit] >> s & 1 && y < box[s][3]; y++)
            for (int x = box[s][0]; x < box[s][2]; x++) pixel[(top + y) * SIDE + left + x] = (unsigned char)(150 + rand() % 106);
}

static struct digits draw_digits(int n) {
    struct digits d = {n, malloc((size_t)n * PIXELS), malloc((size_t)n)};
    if (!d.pixel || !d.label) exit(1);
    for (int i = 0; i < n; i++) {
        d.label[i] = (unsigned char)(rand() % DIGITS);
        draw_digit(d.pixel + (size_t)i * PIXELS, d.label[i]);
    }
    return d;
}

static void free_digits(struct digits *d) {
    free(d->pixel);
    free(d->label);
}

/* ---- training and testing */
static void fill(struct cb_function *f, const struct digits *d, int slot, int i) {
    float *image = cb_floats(f, "images") + (size_t)slot * PIXELS;
    const unsigned char *pixel = d->pixel + (size_t)i * PIXELS;
    for (int k = 0; k < PIXELS; k++) image[k] = (float)pixel[k] / 255.0f;
    ((int32_t *)cb_data(f, "labels"))[slot] = d->label[i] < DIGITS ? d->label[i] : -100;  // -100: does not count
}

static void train(struct cb_function *f, const struct digits *d) {
    struct cb_err err = {0};
    double loss = 0, sum = 0;
    int steps = d->n / BATCH;
    for (int step = 1; step <= steps; step++) {
        for (int i = 0; i < BATCH; i++) fill(f, d, i, rand() % d->n);
        check(cb_function_train(f, &loss, &err), &err);
        sum += loss;
        if (step % (steps / 4 ? steps / 4 : 1)) continue;
        printf("step %d of %d: mean loss %.3f\n", step, steps, sum / (steps / 4 ? steps / 4 : 1));
        sum = 0;
    }
}

static double share_right(struct cb_function *f, const struct digits *d) {
    struct cb_err err = {0};
    int right = 0, n = d->n / BATCH * BATCH;
    for (int first = 0; first < n; first += BATCH) {
        for (int i = 0; i < BATCH; i++) fill(f, d, i, first + i);
        check(cb_function_run(f, &err), &err);
        const float *scores = cb_floats(f, "scores");
        for (int i = 0; i < BATCH; i++, scores += DIGITS) {
            int best = 0;
            for (int k = 1; k < DIGITS; k++)
                if (scores[k] > scores[best]) best = k;
            right += best == d->label[first + i];
        }
    }
    return n ? (double)right / n : 0;
}

int main(int argc, char **argv) {
    struct cb_engine *engine = make_engine(argc, argv);
    struct cb_function *f = network(engine);
    if (has_flag(argc, argv, "--bench")) {
        struct digits d = draw_digits(BATCH);
        for (int i = 0; i < BATCH; i++) fill(f, &d, i, i);
        bench(f, "cnn-mnist batch 64", 30, has_flag(argc, argv, "--json"), has_flag(argc, argv, "--profile"));
        free_digits(&d);
    } else {
        const char *folder = argc > 1 && argv[1][0] != '-' ? argv[1] : NULL;
        struct digits data = folder ? read_digits(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte") : draw_digits(12800);
        struct digits test = folder ? read_digits(folder, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte") : draw_digits(2560);
        train(f, &data);
        printf("right: %.2f%% of %d digits that it has not seen\n", 100 * share_right(f, &test), test.n / BATCH * BATCH);
        free_digits(&data);
        free_digits(&test);
    }
    cb_function_destroy(&f);
    cb_engine_destroy(&engine);
    return 0;
}
