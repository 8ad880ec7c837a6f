/* A small classifier: four measurements of a flower to one of three species, trained while the program runs.
   mlp            trains on flowers that it draws itself and prints the share it gets right
   mlp --bench    times training steps and runs of small networks (--json: one JSON object a line; --profile: by op; --threads N) */
#include "example.h"

enum { MEASURES = 4, SPECIES = 3, BATCH = 32 };

/* x (batch, width[0]) through linear layers with tanh between them; the last width is the number of classes. */
static struct cb_function *perceptron(struct cb_engine *engine, int64_t batch, const int64_t *width, int n_widths) {
    struct cb_err err = {0};
    struct cb_function *f;
    char name[16];
    check(cb_function_create(&f, engine, &err), &err);
    struct cb_tensor *x = cb_input(f, "x", CB_DTYPE_F32, 2, (int64_t[]){batch, width[0]});
    struct cb_tensor *labels = cb_input(f, "labels", CB_DTYPE_I32, 1, &batch);
    for (int i = 1; i < n_widths; i++) {
        snprintf(name, sizeof name, "layer%d", i);
        x = cb_linear(f, name, x, width[i]);
        if (i < n_widths - 1) x = cb_unary(f, "tanh", x);
    }
    cb_output(f, "scores", x);
    cb_loss(f, cb_cross_entropy(f, x, labels));
    // every mistake above is reported here
    check(cb_function_compile(f, &(struct cb_compile_options){.optimizer = "adam", .lr = 1e-3}, &err), &err);
    return f;
}

/* One flower: its species' usual measurements, and some variation. */
static int32_t draw_flower(float *measure) {
    static const float usual[SPECIES][MEASURES] = {{5.0f, 3.4f, 1.5f, 0.2f}, {5.9f, 2.8f, 4.3f, 1.3f}, {6.6f, 3.0f, 5.6f, 2.0f}};
    int32_t species = rand() % SPECIES;
    for (int i = 0; i < MEASURES; i++) measure[i] = usual[species][i] + 0.3f * normal();
    return species;
}

/* Draws a batch into the function's own memory. */
static void draw_batch(struct cb_function *f) {
    float *x = cb_floats(f, "x");
    int32_t *labels = cb_data(f, "labels");
    for (int i = 0; i < BATCH; i++) labels[i] = draw_flower(x + i * MEASURES);
}

static int count_right(struct cb_function *f) {
    const float *scores = cb_floats(f, "scores");
    const int32_t *labels = cb_data(f, "labels");
    int right = 0;
    for (int i = 0; i < BATCH; i++, scores += SPECIES) {
        int best = 0;
        for (int k = 1; k < SPECIES; k++)
            if (scores[k] > scores[best]) best = k;
        right += best == labels[i];
    }
    return right;
}

static void learn(struct cb_engine *engine) {
    struct cb_err err = {0};
    struct cb_function *f = perceptron(engine, BATCH, (int64_t[]){MEASURES, 8, SPECIES}, 3);
    cb_function_set_lr(f, 0.02);
    double loss = 0;
    int right = 0, batches = 50;
    for (int step = 0; step < 500; step++) {
        draw_batch(f);
        check(cb_function_train(f, &loss, &err), &err);
        if (step % 100 == 99) printf("step %d: loss %.3f\n", step + 1, loss);
    }
    for (int i = 0; i < batches; i++) {
        draw_batch(f);
        check(cb_function_run(f, &err), &err);
        right += count_right(f);
    }
    printf("right: %.1f%% of %d new flowers\n", 100.0 * right / (batches * BATCH), batches * BATCH);
    cb_function_destroy(&f);
}

static void bench_one(struct cb_engine *engine, const char *name, int64_t batch, const int64_t *width, int n, bool json, bool profile) {
    struct cb_function *f = perceptron(engine, batch, width, 3);
    float *x = cb_floats(f, "x");
    int32_t *labels = cb_data(f, "labels");
    for (int64_t i = 0; i < batch * width[0]; i++) x[i] = normal();
    for (int64_t i = 0; i < batch; i++) labels[i] = (int32_t)(rand() % width[2]);
    bench(f, name, n, json, profile);
    cb_function_destroy(&f);
}

int main(int argc, char **argv) {
    struct cb_engine *engine = make_engine(argc, argv);
    bool json = has_flag(argc, argv, "--json"), profile = has_flag(argc, argv, "--profile");
    if (has_flag(argc, argv, "--bench")) {
        bench_one(engine, "mlp-4-8-3 batch 1", 1, (int64_t[]){4, 8, 3}, 2000, json, profile);
        bench_one(engine, "mlp-4-8-3 batch 32", 32, (int64_t[]){4, 8, 3}, 2000, json, profile);
        bench_one(engine, "mlp-784-128-10 batch 64", 64, (int64_t[]){784, 128, 10}, 500, json, profile);
    } else {
        learn(engine);
    }
    cb_engine_destroy(&engine);
    return 0;
}
