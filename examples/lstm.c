/* A recurrent tagger: how many brackets are open at each character of a text? It sees one character at a time and has to remember.
   lstm            trains on texts that it draws itself and prints the share of right tags
   lstm --bench    times its training step and run (--json, --profile, --threads N) */
#include "example.h"

enum { ROWS = 16, LENGTH = 32, CHARACTERS = 128, WIDTH = 32, HIDDEN = 64, TAGS = 10 };

/* Embedding, LSTM, linear: scores of every tag at every character, (ROWS * LENGTH, TAGS). */
static struct cb_function *tagger(struct cb_engine *engine, double lr) {
    struct cb_err err = {0};
    struct cb_function *f;
    check(cb_function_create(&f, engine, &err), &err);
    struct cb_tensor *text = cb_input(f, "text", CB_DTYPE_I32, 2, (int64_t[]){ROWS, LENGTH});
    struct cb_tensor *tags = cb_input(f, "tags", CB_DTYPE_I32, 1, (int64_t[]){ROWS * LENGTH});
    struct cb_tensor *x = cb_embedding(f, "embedding", text, CHARACTERS, WIDTH);
    x = cb_lstm(f, "lstm", x, HIDDEN);
    x = cb_reshape(f, x, 2, (int64_t[]){ROWS * LENGTH, HIDDEN});
    x = cb_linear(f, "head", x, TAGS);
    cb_output(f, "scores", x);
    cb_loss(f, cb_cross_entropy(f, x, tags));
    check(cb_function_compile(f, &(struct cb_compile_options){.lr = lr}, &err), &err);
    return f;
}

/* Texts of letters and brackets, and their depths. */
static void draw_texts(struct cb_function *f) {
    int32_t *text = cb_data(f, "text"), *tags = cb_data(f, "tags");
    for (int row = 0; row < ROWS; row++)
        for (int i = 0, depth = 0; i < LENGTH; i++) {
            float u = uniform();
            int32_t c = 'a' + rand() % 26;
            if (u < 0.3f && depth < TAGS - 1) c = '(', depth++;
            if (u > 0.75f && depth > 0) c = ')', depth--;
            *text++ = c;
            *tags++ = depth;
        }
}

static int count_right(struct cb_function *f) {
    const float *scores = cb_floats(f, "scores");
    const int32_t *tags = cb_data(f, "tags");
    int right = 0;
    for (int i = 0; i < ROWS * LENGTH; i++, scores += TAGS) {
        int best = 0;
        for (int k = 1; k < TAGS; k++)
            if (scores[k] > scores[best]) best = k;
        right += best == tags[i];
    }
    return right;
}

int main(int argc, char **argv) {
    struct cb_err err = {0};
    struct cb_engine *engine = make_engine(argc, argv);
    bool is_bench = has_flag(argc, argv, "--bench");
    struct cb_function *f = tagger(engine, is_bench ? 1e-3 : 5e-3);
    draw_texts(f);
    if (is_bench) {
        bench(f, "lstm-tagger batch 16 x 32", 100, has_flag(argc, argv, "--json"), has_flag(argc, argv, "--profile"));
    } else {
        double loss = 0;
        for (int step = 1; step <= 600; step++) {
            draw_texts(f);
            check(cb_function_train(f, &loss, &err), &err);
            if (step % 100 == 0) printf("step %d: loss %.3f\n", step, loss);
        }
        draw_texts(f);
        check(cb_function_run(f, &err), &err);
        printf("right: %.1f%% of the tags of new texts\n", 100.0 * count_right(f) / (ROWS * LENGTH));
    }
    cb_function_destroy(&f);
    cb_engine_destroy(&engine);
    return 0;
}
