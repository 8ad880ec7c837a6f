/* A batch through two plans: the step of one plan for the whole, whatever labels each half has, and the same bits with any number of threads. */
#include "../harness.h"
#include "net.h"

enum { ROWS = 8, HALF = ROWS / 2, WIDTH = 6, STEPS = 6 };

/* One trainer on all rows, and one whose halves have `learnt` rows with a label each. */
struct both {
    struct net whole, first, second;
    int learnt[2];
};

static int64_t labels(void *user, struct plan *plan) {
    const int slot = plan_find(plan, "y");
    const int32_t *y = plan_data(plan, slot);
    int64_t n = 0;
    (void)user;
    for (int64_t i = 0; i < type_elements(&plan_slot(plan, slot)->type); i++) n += y[i] != -100;
    return n;
}

static enum cb_status fill_whole(void *user, int64_t index, struct cb_err *err) {
    struct both *b = user;
    TRY(net_tiny_batch(&b->whole, index, err));
    int32_t *y = runner_data(&b->whole.r, "y");
    for (int i = 0; i < ROWS; i++)
        if (i % HALF >= b->learnt[i / HALF]) y[i] = -100;
    return CB_OK;
}

/* The same rows, after fill_whole. */
static enum cb_status fill_halves(void *user, int64_t index, struct cb_err *err) {
    struct both *b = user;
    struct net *const half[] = {&b->first, &b->second};
    TRY(fill_whole(b, index, err));
    for (int i = 0; i < 2; i++) {
        memcpy(runner_data(&half[i]->r, "x"), (float *)runner_data(&b->whole.r, "x") + i * HALF * WIDTH, HALF * WIDTH * sizeof(float));
        memcpy(runner_data(&half[i]->r, "y"), (int32_t *)runner_data(&b->whole.r, "y") + i * HALF, HALF * sizeof(int32_t));
    }
    return CB_OK;
}

/* Trains both; the parameters of the halves' trainer go to out. */
static void train(int first, int second, int n_threads, float *out) {
    struct both b = {.learnt = {first, second}};
    struct cb_err err = {0};
    struct trainer_options o = {
        .sched = {.kind = SCHED_CONSTANT, .lr = 0.02, .steps = STEPS}, .clip = 1, .accumulate = 1, .labels = labels};
    opt_parse("sgd:momentum=0.9", &o.opt, o.option, &err);
    CHECK_OK(net_tiny_of(&b.whole, 3, ROWS, &o, &err));
    CHECK_OK(net_tiny_of(&b.second, 3, HALF, &o, &err));
    CHECK_OK(net_tiny_of(&b.first, 3, HALF, &o, &err));
    // a trainer for both plans, on a pool of so many threads
    trainer_destroy(&b.first.trainer);
    struct pool *pool;
    CHECK_OK(pool_create(&pool, n_threads, &err));
    o.twin = b.second.r.plan;
    CHECK_OK(trainer_create(&b.first.trainer, b.first.r.plan, b.first.params, b.first.n_params, &o, pool, &err));
    for (int step = 0; step < STEPS; step++) {
        struct train_result whole, halves;
        CHECK_OK(trainer_step(b.whole.trainer, fill_whole, &b, &whole, &err));
        CHECK_OK(trainer_step(b.first.trainer, fill_halves, &b, &halves, &err));
        if (first + second == 0)
            CHECK(isnan(whole.loss) && isnan(halves.loss) && halves.grad_norm == 0);
        else
            CHECK(fabs(whole.loss - halves.loss) <= 1e-6 * whole.loss && fabs(whole.grad_norm - halves.grad_norm) <= 1e-5 * whole.grad_norm,
                  "loss %.9g, wanted %.9g; norm %.9g, wanted %.9g", halves.loss, whole.loss, halves.grad_norm, whole.grad_norm);
    }
    for (int i = 0; i < b.whole.n_params; i++) {
        const float *x = b.first.params[i].value->data, *y = b.whole.params[i].value->data;
        for (int64_t k = 0; k < type_elements(&b.whole.params[i].value->type); k++) {
            CHECK(fabsf(x[k] - y[k]) <= 1e-6f, "%s[%d] is %.9g, wanted %.9g", b.whole.params[i].value->name, (int)k, (double)x[k],
                  (double)y[k]);
            *out++ = x[k];
        }
    }
    net_close(&b.first);
    net_close(&b.second);
    net_close(&b.whole);
    pool_destroy(&pool);
}

TEST(train, halves_make_the_whole_step) {
    static const int learnt[][2] = {{4, 4}, {4, 1}, {2, 3}, {0, 4}, {3, 0}, {0, 0}};
    for (size_t i = 0; i < sizeof learnt / sizeof *learnt; i++) {
        float out[3][256] = {{0}};
        for (int n = 1; n <= 3; n++) {
            train(learnt[i][0], learnt[i][1], n, out[n - 1]);
            CHECK(memcmp(out[0], out[n - 1], sizeof out[0]) == 0, "%d threads give other bits", n);
        }
    }
}
