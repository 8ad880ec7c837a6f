/* cb_bench: training steps, generation and the machine itself, timed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/bench.h"
#include "api/training.h"
#include "base/rng.h"
#include "io/safetensors.h"

/* The batch that every step repeats. */
struct repeated {
    struct training *training;
    const int32_t *ids;
    int64_t n;
};

static enum cb_status fill_batch(void *user, int64_t index, struct cb_err *err) {
    struct repeated *r = user;
    (void)index, (void)err;
    memcpy(pass_data(&r->training->pass, "input_ids"), r->ids, (size_t)r->n * sizeof *r->ids);
    memcpy(pass_data(&r->training->pass, "labels"), r->ids, (size_t)r->n * sizeof *r->ids);
    return CB_OK;
}

/* ids (B,T) from a file, which then says B and T, or random ones. Owned by caller. */
static enum cb_status make_ids(const struct cb_bench_options *o, uint64_t seed, int64_t vocab, int64_t *batch, int64_t *seq, int32_t **ids,
                               struct cb_err *err) {
    struct tensors *file = NULL;
    const struct tensor *given = NULL;
    if (o->input) {
        TRY(tensors_open(&file, o->input, err));
        enum cb_status status = tensors_need(&given, file, "input_ids", err);
        if (status == CB_OK && (given->type.rank != 2 || (given->type.dtype != CB_DTYPE_I64 && given->type.dtype != CB_DTYPE_I32)))
            status = err_set(err, CB_E_SHAPE, __FILE__, __LINE__, "%s: input_ids; wanted i64 or i32 of (batch, sequence)", o->input);
        if (status != CB_OK) {
            tensors_destroy(&file);
            return status;
        }
        *batch = given->type.dim[0];
        *seq = given->type.dim[1];
    }
    int64_t n = *batch * *seq;
    struct rng rng = rng_make(seed, rng_hash("bench"));
    *ids = malloc((size_t)n * sizeof **ids + 1);
    enum cb_status status = *ids ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "bench: out of memory");
    for (int64_t i = 0; i < n && status == CB_OK; i++) {
        double id = given ? ref_get(given->type.dtype, tensor_data(given), i) : (double)rng_below(&rng, (uint64_t)vocab);
        if (id < 0 || id >= (double)vocab)
            status =
                err_set(err, CB_E_ARGUMENT, __FILE__, __LINE__, "%s: id %.0f; the vocabulary has %lld", o->input, id, (long long)vocab);
        (*ids)[i] = (int32_t)id;
    }
    tensors_destroy(&file);
    return status;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static enum cb_status run_steps(struct training *t, const int32_t *ids, int64_t n, int64_t steps, struct cb_bench_result *r,
                                struct cb_err *err) {
    struct repeated batch = {t, ids, n};
    double *times = calloc((size_t)steps + 1, sizeof *times);
    r->losses = calloc((size_t)steps + 1, sizeof *r->losses);
    enum cb_status status = times && r->losses ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "bench: out of memory");
    for (int64_t i = 0; i < steps && status == CB_OK; i++) {
        struct train_result result;
        double begin = engine_now();
        status = trainer_step(t->trainer, fill_batch, &batch, &result, err);
        times[i] = engine_now() - begin;
        r->losses[i] = result.loss;
        r->n_losses = i + 1;
    }
    // the first two steps touch memory for the first time
    int64_t skip = steps > 2 ? 2 : 0, warm = steps - skip;
    qsort(times + skip, (size_t)warm, sizeof *times, by_value);
    double median = warm ? times[skip + warm / 2] : 0, best = warm ? times[skip] : 0;
    if (warm && warm % 2 == 0) median = (median + times[skip + warm / 2 - 1]) / 2;
    free(times);
    TRY(status);
    r->tokens_per_s = (double)n / median;
    r->best_tokens_per_s = (double)n / best;
    r->step_ms = median * 1e3;
    r->gflops = training_flops(t) / best / 1e9;
    return CB_OK;
}

static enum cb_status bench_train(struct cb_engine *engine, const struct cb_bench_options *o, struct cb_bench_result *r,
                                  struct cb_err *err) {
    int64_t batch = o->batch ? o->batch : 4, seq = o->seq ? o->seq : 256, steps = o->steps ? o->steps : 8, vocab;
    struct training t = {0};
    int32_t *ids = NULL;
    TRY(bench_vocab(o->model, &vocab, err));
    enum cb_status status = make_ids(o, engine->options.seed, vocab, &batch, &seq, &ids, err);
    struct training_options to = {.model = o->model, .tuner = o->tuner, .batch = batch, .seq = seq};
    if (status == CB_OK) status = opt_parse("adamw:beta1=0.9,beta2=0.95", &to.trainer.opt, to.trainer.option, err);
    to.trainer.sched = (struct sched){.kind = SCHED_CONSTANT, .lr = o->lr > 0 ? o->lr : 3e-4, .steps = steps};
    to.trainer.weight_decay = 0.1;
    to.trainer.clip = 1;
    to.trainer.accumulate = 1;
    if (status == CB_OK) status = training_parse(o->tuner, &to.what, err);
    if (status == CB_OK) status = training_open(&t, engine, &to, err);
    if (status == CB_OK) status = training_plan(&t, &to, err);
    if (status == CB_OK) status = engine_check_runs(engine, err);
    if (status == CB_OK && o->profile) plan_profile(t.pass.plan, true);
    if (status == CB_OK) status = run_steps(&t, ids, batch * seq, steps, r, err);
    if (status == CB_OK && o->profile) status = plan_profile_report(t.pass.plan, &r->profile, err);
    r->trainable = t.trainable;
    r->planned_mib = (double)t.planned_bytes / 1048576;
    r->peak_mib = (double)engine_peak_bytes() / 1048576;
    if (status == CB_OK) r->fraction_of_peak = r->gflops / bench_peak_gflops(engine);
    training_close(&t);
    free(ids);
    return status;
}

static enum cb_status bench_memory(struct cb_engine *engine, struct cb_bench_result *r, struct cb_err *err) {
    struct pool *one;
    TRY(pool_create(&one, 1, err));
    r->write_gb_per_s = bench_memory_gb_per_s(engine->pool, BENCH_WRITE);
    r->copy_gb_per_s = bench_memory_gb_per_s(engine->pool, BENCH_COPY);
    r->read_gb_per_s_1 = bench_memory_gb_per_s(one, BENCH_READ);
    r->write_gb_per_s_1 = bench_memory_gb_per_s(one, BENCH_WRITE);
    r->copy_gb_per_s_1 = bench_memory_gb_per_s(one, BENCH_COPY);
    pool_destroy(&one);
    return CB_OK;
}

enum cb_status cb_bench(struct cb_engine *engine, const struct cb_bench_options *o, struct cb_bench_result *result, struct cb_err *err) {
    *result = (struct cb_bench_result){0};
    bool train = strcmp(o->what, "train") == 0, generate = strcmp(o->what, "generate") == 0;
    if ((train || generate) && !o->model) FAIL(err, CB_E_USAGE, "bench %s: the model is missing", o->what);
    if (train) return bench_train(engine, o, result, err);
    if (generate) return bench_generate(engine, o, result, err);
    bool ops = strcmp(o->what, "ops") == 0;
    if (ops || strcmp(o->what, "memory") == 0) {
        result->gflops = bench_peak_gflops(engine);
        result->read_gb_per_s = bench_memory_gb_per_s(engine->pool, BENCH_READ);
        return ops ? bench_ops(engine, o->op, result, err) : bench_memory(engine, result, err);
    }
    FAIL(err, CB_E_USAGE, "bench: no '%s'; wanted train, generate, ops or memory", o->what);
}
