/* Differentiable functions in a C program: values by hand, layers, modes, states, files, mistakes, and no allocation in a step. */
#include <cambium/graph.h>
#include <malloc.h>
#include <unistd.h>

#include "harness.h"
#include "train/opt.h"

static struct cb_err err;

static struct cb_engine *make_engine(void) {
    struct cb_engine *engine;
    memset(&err, 0, sizeof err);
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 2, .seed = 7}, &err));
    return engine;
}
static struct cb_function *make_function(struct cb_engine *engine) {
    struct cb_function *f;
    CHECK_OK(cb_function_create(&f, engine, &err));
    return f;
}

/* y = w x + b, loss (y - target)^2, w = 1, b = 0. */
static struct cb_function *line(struct cb_engine *engine, const char *optimizer, double clip, double decay) {
    struct cb_function *f = make_function(engine);
    struct cb_tensor *x = cb_input(f, "x", CB_DTYPE_F32, 0, NULL), *target = cb_input(f, "target", CB_DTYPE_F32, 0, NULL);
    struct cb_tensor *w = cb_parameter(f, "w", "ones", 0, NULL), *b = cb_parameter(f, "b", "zeros", 0, NULL);
    struct cb_tensor *y = cb_binary(f, "add", cb_binary(f, "mul", w, x), b);
    cb_output(f, "y", y);
    cb_loss(f, cb_squared_error(f, y, target));
    struct cb_compile_options o = {.optimizer = optimizer, .lr = 0.1, .clip = clip, .weight_decay = decay};
    CHECK_OK(cb_function_compile(f, &o, &err));
    return f;
}

TEST(function, step_by_hand) {
    struct cb_engine *engine = make_engine();
    struct cb_function *f = line(engine, "sgd", 0, 0);
    *cb_floats(f, "x") = 3;
    *cb_floats(f, "target") = 1;
    double loss = 0;
    CHECK_OK(cb_function_run(f, &err));
    CHECK(*cb_floats(f, "y") == 3);
    // dl/dy = 2 (3 - 1) = 4: w = 1 - 0.1 * 4 * 3, b = 0 - 0.1 * 4
    CHECK_OK(cb_function_train(f, &loss, &err));
    CHECK(loss == 4, "loss %g", loss);
    CHECK(fabsf(*cb_floats(f, "w") + 0.2f) < 1e-6f && fabsf(*cb_floats(f, "b") + 0.4f) < 1e-6f, "w %g", (double)*cb_floats(f, "w"));
    CHECK(*cb_floats(f, "x") == 3 && *cb_floats(f, "y") == 3, "a training step wrote into an input or an output");
    cb_function_destroy(&f);

    // the gradient (12, 4) clipped to norm 1
    f = line(engine, "sgd", 1, 0);
    *cb_floats(f, "x") = 3;
    *cb_floats(f, "target") = 1;
    CHECK_OK(cb_function_train(f, NULL, &err));
    CHECK(fabs((double)*cb_floats(f, "w") - (1 - 0.1 * 12 / sqrt(160))) < 1e-6);
    cb_function_destroy(&f);

    // Adam's first step is lr in the direction of the gradient; the new rate counts
    f = line(engine, "adam", 0, 0);
    *cb_floats(f, "x") = 3;
    *cb_floats(f, "target") = 1;
    cb_function_set_lr(f, 0.25);
    CHECK_OK(cb_function_train(f, NULL, &err));
    CHECK(fabsf(*cb_floats(f, "w") - 0.75f) < 1e-6f && fabsf(*cb_floats(f, "b") + 0.25f) < 1e-6f);
    cb_function_destroy(&f);
    cb_engine_destroy(&engine);
}

/* d sqrt(0) is infinite while the loss is finite: the step is refused, with and without clipping. */
TEST(function, gradients_are_checked) {
    struct cb_engine *engine = make_engine();
    for (int clip = 0; clip < 2; clip++) {
        struct cb_function *f = make_function(engine);
        struct cb_tensor *w = cb_parameter(f, "w", "zeros", 0, NULL), *v = cb_parameter(f, "v", "ones", 0, NULL);
        cb_loss(f, cb_binary(f, "add", cb_unary(f, "sqrt", w), v));
        struct cb_compile_options o = {.optimizer = "sgd", .lr = 0.1, .clip = clip};
        CHECK_OK(cb_function_compile(f, &o, &err));
        double loss = 0;
        CHECK_FAILS(cb_function_train(f, &loss, &err), CB_E_NUMERIC, "gradient");
        CHECK(loss == 1 && *cb_floats(f, "w") == 0 && *cb_floats(f, "v") == 1, "v %g", (double)*cb_floats(f, "v"));
        cb_function_destroy(&f);
    }
    cb_engine_destroy(&engine);
}

TEST(function, every_optimizer_lowers_the_loss) {
    struct cb_engine *engine = make_engine();
    for (int i = 0; i == 0 || opt_at(i - 1); i++) {
        const char *spec = i ? opt_at(i - 1)->name : "sgd:momentum=0.5";
        struct cb_function *f = line(engine, spec, 0, 0);
        double first = 0, last = 0;
        *cb_floats(f, "x") = 0.5f;
        *cb_floats(f, "target") = 3;
        cb_function_set_lr(f, 0.02);
        CHECK_OK(cb_function_train(f, &first, &err));
        for (int k = 0; k < 200; k++) CHECK_OK(cb_function_train(f, &last, &err));
        CHECK(last < first * 0.7, "%s: loss %g, then %g", spec, first, last);
        cb_function_destroy(&f);
    }
    cb_engine_destroy(&engine);
}

/* Two layers that learn exclusive or. */
static struct cb_function *xor_function(struct cb_engine *engine) {
    struct cb_function *f = make_function(engine);
    struct cb_tensor *x = cb_input(f, "x", CB_DTYPE_F32, 2, (int64_t[]){4, 2});
    struct cb_tensor *labels = cb_input(f, "labels", CB_DTYPE_I32, 1, (int64_t[]){4});
    struct cb_tensor *y = cb_linear(f, "b", cb_unary(f, "tanh", cb_linear(f, "a", x, 8)), 2);
    cb_output(f, "scores", y);
    cb_loss(f, cb_cross_entropy(f, y, labels));
    CHECK_OK(cb_function_compile(f, &(struct cb_compile_options){.lr = 0.05}, &err));
    const float points[8] = {0, 0, 0, 1, 1, 0, 1, 1};
    memcpy(cb_floats(f, "x"), points, sizeof points);
    memcpy(cb_data(f, "labels"), (const int32_t[]){0, 1, 1, 0}, 16);
    return f;
}

TEST(function, learns_and_keeps) {
    struct cb_engine *engine = make_engine();
    struct cb_function *f = xor_function(engine), *g = xor_function(engine);
    double loss = 1;
    char folder[128], path[160];
    CHECK(memcmp(cb_floats(f, "a.weight"), cb_floats(g, "a.weight"), 64) == 0, "the same seed gives the same parameters");
    for (int i = 0; i < 300; i++) CHECK_OK(cb_function_train(f, &loss, &err));
    CHECK(loss < 0.02, "loss %g", loss);
    CHECK_OK(cb_function_run(f, &err));
    const float *s = cb_floats(f, "scores");
    CHECK(s[0] > s[1] && s[2] < s[3] && s[4] < s[5] && s[6] > s[7]);

    // saved and loaded: the same scores
    snprintf(path, sizeof path, "%s/function", temporary_folder(folder, "function"));
    CHECK_OK(cb_function_save(f, path, &err));
    CHECK_OK(cb_function_load(g, path, &err));
    CHECK_OK(cb_function_run(g, &err));
    CHECK(memcmp(s, cb_floats(g, "scores"), 32) == 0);

    // another function's file is refused, and changes nothing
    struct cb_function *other = line(engine, "sgd", 0, 0);
    CHECK_FAILS(cb_function_load(other, path, &err), CB_E_NAME, "no tensor w");
    CHECK(*cb_floats(other, "w") == 1);
    CHECK_OK(cb_function_save(other, path, &err));
    CHECK_FAILS(cb_function_load(f, path, &err), CB_E_NAME, "a.weight");
    unlink(path);
    CHECK_FAILS(cb_function_load(f, path, &err), CB_E_IO, path);
    cb_function_destroy(&other);
    cb_function_destroy(&f);
    cb_function_destroy(&g);
    cb_engine_destroy(&engine);
}

TEST(function, allocates_nothing_in_a_step) {
    struct cb_engine *engine = make_engine();
    struct cb_function *f = xor_function(engine);
    CHECK_OK(cb_function_train(f, NULL, &err));
    CHECK_OK(cb_function_run(f, &err));
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 100; i++) {
        if (cb_function_train(f, NULL, &err) != CB_OK || cb_function_run(f, &err) != CB_OK) break;
    }
    struct mallinfo2 after = mallinfo2();
    CHECK(err.code == CB_OK);
    CHECK(before.uordblks == after.uordblks && before.hblks == after.hblks, "%zu bytes, then %zu", before.uordblks, after.uordblks);
    cb_function_destroy(&f);
    cb_engine_destroy(&engine);
}

/* Convolution, batch norm, pooling, linear, over two pictures of 7 x 5. */
static struct cb_function *image_function(struct cb_engine *engine, const char *optimizer) {
    struct cb_function *f = make_function(engine);
    struct cb_tensor *x = cb_input(f, "x", CB_DTYPE_F32, 4, (int64_t[]){2, 1, 7, 5});
    struct cb_tensor *y = cb_batch_norm(f, "norm", cb_conv2d(f, "conv", x, 3, 3, 1));
    y = cb_max_pool2d(f, cb_unary(f, "relu", y), 2);
    y = cb_linear(f, "head", cb_reshape(f, y, 2, (int64_t[]){2, -1}), 2);
    cb_output(f, "y", y);
    cb_loss(f, cb_unary(f, "mean", cb_unary(f, "square", y)));
    CHECK_OK(cb_function_compile(f, &(struct cb_compile_options){.optimizer = optimizer, .lr = 1e-2}, &err));
    for (int i = 0; i < 70; i++) cb_floats(f, "x")[i] = (float)(i * i % 7) - 2;
    return f;
}

TEST(function, images_use_batch_statistics_in_training_alone) {
    struct cb_engine *engine = make_engine();
    struct cb_function *f = image_function(engine, "adam");
    CHECK(cb_floats(f, "norm.running_mean")[0] == 0 && cb_floats(f, "norm.running_var")[2] == 1);
    CHECK_OK(cb_function_run(f, &err));
    CHECK(cb_floats(f, "norm.running_mean")[0] == 0, "a run moved the running mean");
    double first, last = 0;
    CHECK_OK(cb_function_train(f, &first, &err));
    CHECK(cb_floats(f, "norm.running_mean")[0] != 0 && cb_floats(f, "norm.running_var")[2] != 1);
    for (int i = 0; i < 100; i++) CHECK_OK(cb_function_train(f, &last, &err));
    CHECK(last < first, "loss %g, then %g", first, last);
    cb_function_destroy(&f);
    cb_engine_destroy(&engine);
}

/* Kernels of batch norm and pooling against their references, through ten training steps and a run. (Not with Adam: before batch norm a bias has
   a gradient of rounding errors alone, which Adam would make large.) */
TEST(function, image_kernels_equal_references) {
    const char *const masks[] = {"all", "avx2", "scalar"}, *const names[] = {"norm.running_mean", "norm.running_var", "head.weight", "y"};
    for (int m = 0; m < 3; m++) {
        struct cb_engine *fast, *slow;
        struct cb_engine_options options = {.threads = 2, .cpu_mask = masks[m]};
        CHECK_OK(cb_engine_create(&fast, &options, &err));
        options.kernels = "batch_norm=ref,batch_norm_grad=ref,max_pool2d=ref,max_pool2d_grad=ref,sum=ref";
        CHECK_OK(cb_engine_create(&slow, &options, &err));
        struct cb_function *f = image_function(fast, "sgd"), *g = image_function(slow, "sgd");
        for (int i = 0; i < 10; i++) {
            CHECK_OK(cb_function_train(f, NULL, &err));
            CHECK_OK(cb_function_train(g, NULL, &err));
        }
        CHECK_OK(cb_function_run(f, &err));
        CHECK_OK(cb_function_run(g, &err));
        for (int k = 0; k < 4; k++)
            for (int64_t i = 0, n = cb_data_bytes(f, names[k], NULL) / 4; i < n; i++) {
                double a = (double)cb_floats(f, names[k])[i], b = (double)cb_floats(g, names[k])[i];
                CHECK(fabs(a - b) < 1e-4 * (1 + fabs(b)), "%s, %s[%d]: %g; wanted %g", masks[m], names[k], (int)i, a, b);
            }
        cb_function_destroy(&f);
        cb_function_destroy(&g);
        cb_engine_destroy(&fast);
        cb_engine_destroy(&slow);
    }
}

TEST(function, states_and_dropout) {
    struct cb_engine *engine = make_engine();
    struct cb_function *f = make_function(engine);
    struct cb_tensor *x = cb_input(f, "x", CB_DTYPE_F32, 1, (int64_t[]){1000});
    struct cb_tensor *count = cb_state(f, "count", 5, 0, NULL), *w = cb_parameter(f, "w", "ones", 0, NULL);
    cb_state_update(f, count, cb_binary(f, "add", count, cb_constant(f, 1)));
    struct cb_tensor *dropped = cb_dropout(f, x, 0.5), *scaled = cb_binary(f, "mul", w, dropped);
    cb_output(f, "y", scaled);
    cb_loss(f, cb_by_mode(f, cb_unary(f, "mean", scaled), cb_constant(f, 0)));
    CHECK_OK(cb_function_compile(f, NULL, &err));
    for (int i = 0; i < 1000; i++) cb_floats(f, "x")[i] = 1;
    double a = 0, b = 0;
    CHECK_OK(cb_function_run(f, &err));
    for (int i = 0; i < 1000; i++) CHECK(cb_floats(f, "y")[i] == 1, "a run drops nothing");
    CHECK_OK(cb_function_train(f, &a, &err));
    cb_floats(f, "w")[0] = 1;
    CHECK_OK(cb_function_train(f, &b, &err));
    CHECK(*cb_floats(f, "count") == 8, "count %g", (double)*cb_floats(f, "count"));
    CHECK(a > 0.8 && a < 1.2 && b > 0.8 && b < 1.2 && a != b, "losses %g and %g; about 1, by other draws", a, b);
    cb_function_destroy(&f);
    cb_engine_destroy(&engine);
}

/* Adds something wrong to a function; compiling must name it. */
#define REFUSES(code, word, ...)                                                    \
    do {                                                                            \
        struct cb_function *f = make_function(engine);                              \
        struct cb_tensor *x = cb_input(f, "x", CB_DTYPE_F32, 2, (int64_t[]){2, 3}); \
        (void)x;                                                                    \
        __VA_ARGS__;                                                                \
        CHECK_FAILS(cb_function_compile(f, NULL, &err), code, word);                \
        CHECK(!cb_data(f, "x"));                                                    \
        CHECK_FAILS(cb_function_run(f, &err), CB_E_USAGE, "not compiled");          \
        cb_function_destroy(&f);                                                    \
    } while (0)

TEST(function, mistakes_are_named) {
    struct cb_engine *engine = make_engine();
    REFUSES(CB_E_USAGE, "neither output nor loss", );
    REFUSES(CB_E_NAME, "tanhh", cb_output(f, "y", cb_unary(f, "tanhh", x)));
    REFUSES(CB_E_SHAPE, "matmul", cb_output(f, "y", cb_matmul(f, x, x)));
    REFUSES(CB_E_NAME, "named twice", cb_output(f, "x", x));
    REFUSES(CB_E_NAME, "cambium.", cb_output(f, "cambium.loss", x));
    REFUSES(CB_E_SHAPE, "cb_loss", cb_loss(f, cb_unary(f, "tanh", x)));
    REFUSES(CB_E_USAGE, "no parameter", cb_loss(f, cb_unary(f, "sum", x)));
    REFUSES(CB_E_SHAPE, "rank 9", cb_output(f, "y", cb_parameter(f, "w", NULL, 9, NULL)));
    REFUSES(CB_E_SHAPE, "conv", cb_output(f, "y", cb_conv2d(f, "conv", x, 2, 3, 1)));
    REFUSES(CB_E_ARGUMENT, "'gauss:1'", cb_output(f, "y", cb_parameter(f, "w", "gauss:1", 1, (int64_t[]){2})));
    REFUSES(CB_E_ARGUMENT, "fan_in at rank 1", cb_output(f, "y", cb_parameter(f, "w", "fan_in", 1, (int64_t[]){2})));
    REFUSES(CB_E_SHAPE, "cb_state_update", cb_state_update(f, x, x));

    struct cb_function *f = line(engine, "sgd", 0, 0), *g = make_function(engine);
    CHECK(!cb_data(f, "nothing") && cb_data_bytes(f, "nothing", NULL) < 0 && cb_data_bytes(f, "w", NULL) == 4);
    struct cb_tensor *foreign = cb_input(f, "late", CB_DTYPE_F32, 0, NULL);
    CHECK(!cb_data(f, "late"));
    cb_output(g, "y", cb_unary(g, "tanh", foreign));
    CHECK_FAILS(cb_function_compile(g, NULL, &err), CB_E_USAGE, "another function");
    *cb_floats(f, "x") = INFINITY;
    CHECK_FAILS(cb_function_train(f, NULL, &err), CB_E_NUMERIC, "step 1");
    CHECK(*cb_floats(f, "w") == 1, "a loss that is not finite changed a parameter");
    cb_function_destroy(&f);
    cb_function_destroy(&g);
    cb_engine_destroy(&engine);
}
