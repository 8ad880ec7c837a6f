/* Sessions: however tokens are cut into pushes, the logits are those of one whole pass. */
#include "run/session.h"

#include "../harness.h"
#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "ops/ops.h"

struct setting {
    struct model *model;
    struct store *store;
    struct pool *pool;
    struct session_options o;
    int32_t ids[64];
};

/* changes: JSON object over the family's tiny configuration. */
static void setting_open(struct setting *t, const char *family, const char *changes, int64_t prompt, int64_t context) {
    struct cb_err err = {0};
    json_t *config;
    json_t *more = json_loads(changes, 0, NULL);
    *t = (struct setting){0};
    CHECK_OK(pool_create(&t->pool, 2, &err));
    CHECK_OK(store_create(&t->store, &err));
    CHECK_OK(model_default_config(&config, model_family(family), model_family(family)->tiny, &err));
    json_object_update(config, more);
    CHECK_OK(model_from_config(&t->model, config, family, &err));
    json_decref(config);
    json_decref(more);
    CHECK_OK(model_init_weights(t->model, t->store, 5, &err));
    t->o = (struct session_options){.model = t->model,
                                    .store = t->store,
                                    .ops = ops_table(),
                                    .plan = {.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = 2},
                                    .pool = t->pool,
                                    .prompt = prompt,
                                    .context = context,
                                    .total = context};
    for (int i = 0; i < 64; i++) t->ids[i] = (int32_t)((i * 13 + i * i + 7) % t->model->vocab);
}

static void setting_close(struct setting *t) {
    model_destroy(&t->model);
    store_destroy(&t->store);
    pool_destroy(&t->pool);
}

/* Logits after ids [begin, end), read at once by a fresh session. */
static void logits_fresh(struct setting *t, int64_t begin, int64_t end, float *out) {
    struct cb_err err = {0};
    struct session *s;
    const float *logits;
    struct session_options o = t->o;
    o.prompt = end - begin;
    o.context = o.total = end - begin + 1;
    CHECK_OK(session_create(&s, &o, &err));
    CHECK_OK(session_push(s, t->ids + begin, end - begin, &logits, &err));
    memcpy(out, logits, (size_t)t->model->vocab * sizeof *out);
    session_destroy(&s);
}

static void check_same(const struct setting *t, const float *have, const float *want, int64_t at) {
    for (int64_t i = 0; i < t->model->vocab; i++)
        CHECK(fabsf(have[i] - want[i]) < 2e-5f * (1 + fabsf(want[i])), "after %lld tokens, logit %lld: %g, wanted %g", (long long)at,
              (long long)i, (double)have[i], (double)want[i]);
}

static void check_pushes(const char *family, const char *changes) {
    const int64_t cuts[][8] = {{9, 1, 1, 1, 1, 9, 10}, {1, 1, 1, 1, 20, 3}, {32}, {2, 17, 1, 12}, {31, 1}};
    struct setting t;
    struct cb_err err = {0};
    float want[128];
    setting_open(&t, family, changes, 9, 40);
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        struct session *s;
        const float *logits;
        int64_t at = 0;
        CHECK_OK(session_create(&s, &t.o, &err));
        for (int k = 0; k < 8 && cuts[c][k]; k++) {
            CHECK_OK(session_push(s, t.ids + at, cuts[c][k], &logits, &err));
            at += cuts[c][k];
            logits_fresh(&t, 0, at, want);
            check_same(&t, logits, want, at);
        }
        CHECK(session_length(s) == at && !session_has_forgotten(s), "length %lld", (long long)session_length(s));
        session_reset(s);
        CHECK_OK(session_push(s, t.ids, 9, &logits, &err));
        logits_fresh(&t, 0, 9, want);
        check_same(&t, logits, want, 9);
        session_destroy(&s);
    }
    setting_close(&t);
}

/* An encoder-decoder reads its source once, shorter than its room or not; the decoder's tokens one by one, or several at once. */
static void check_source(const char *family) {
    struct setting t;
    struct cb_err err = {0};
    struct session *s, *other;
    const float *one = NULL, *all;
    setting_open(&t, family, "{}", 9, 20);
    struct session_options o = t.o;
    o.prompt = 7;
    CHECK_OK(session_create(&s, &t.o, &err));
    CHECK_OK(session_create(&other, &o, &err));
    CHECK_FAILS(session_push(other, t.ids, 8, &one, &err), CB_E_ARGUMENT, "source");
    for (int round = 0; round < 2; round++) {
        CHECK_OK(session_push(s, t.ids, 7, &one, &err));
        for (int i = 0; i < 5; i++) CHECK_OK(session_push(s, t.ids + 20 + i, 1, &one, &err));
        CHECK_OK(session_push(other, t.ids, 7, &all, &err));
        CHECK_OK(session_push(other, t.ids + 20, 5, &all, &err));
        check_same(&t, one, all, 5);
        CHECK(session_length(s) == 6);
        session_reset(s);
        session_reset(other);
    }
    session_destroy(&s);
    session_destroy(&other);
    setting_close(&t);
}

TEST(session, pushes_equal_whole_passes) {
    int n, checked = 0;
    const struct family *const *families = model_families(&n);
    for (int i = 0; i < n; i++) {
        if (!families[i]->classes[0]->head->generates) continue;
        if (families[i]->encoder_decoder) {
            check_source(families[i]->name);
            continue;
        }
        check_pushes(families[i]->name, "{}");
        checked++;
    }
    CHECK(checked >= 2, "%d families", checked);
}
// one table up to 12 positions, another beyond: everything is read again once
TEST(session, pushes_equal_whole_passes_long_rope) {
    check_pushes("llama",
                 "{\"max_position_embeddings\":48,\"original_max_position_embeddings\":12,\"rope_scaling\":{\"rope_type\":\"longrope\","
                 "\"short_factor\":[1.0,1.1,1.3],\"long_factor\":[1.0,2.0,4.0]}}");
}
// positions 12 and on depend on the length: the cache may not be used for them
TEST(session, pushes_equal_whole_passes_dynamic_rope) {
    check_pushes("llama", "{\"max_position_embeddings\":12,\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}}");
}

TEST(session, forgets_the_older_half) {
    struct setting t;
    struct cb_err err = {0};
    struct session *s;
    const float *logits;
    float want[128];
    setting_open(&t, "gpt2", "{}", 11, 16);
    t.o.total = 60;
    CHECK_OK(session_create(&s, &t.o, &err));
    CHECK_OK(session_push(s, t.ids, 11, &logits, &err));
    for (int64_t i = 11; i < 16; i++) CHECK_OK(session_push(s, t.ids + i, 1, &logits, &err));
    CHECK(!session_has_forgotten(s), "16 of 16 positions");
    CHECK_OK(session_push(s, t.ids + 16, 1, &logits, &err));
    CHECK(session_has_forgotten(s) && session_length(s) == 9, "length %lld", (long long)session_length(s));
    logits_fresh(&t, 8, 17, want);
    check_same(&t, logits, want, 17);
    // a push that wants more room than half
    CHECK_OK(session_push(s, t.ids + 17, 12, &logits, &err));
    CHECK(session_length(s) == 16, "length %lld", (long long)session_length(s));
    logits_fresh(&t, 13, 29, want);
    check_same(&t, logits, want, 29);
    session_destroy(&s);
    setting_close(&t);
}

TEST(session, memory_is_what_is_planned_and_limited) {
    struct setting t;
    struct cb_err err = {0};
    struct session *s;
    setting_open(&t, "gpt2", "{}", 9, 40);
    t.o.plan_only = true;
    CHECK_OK(session_create(&s, &t.o, &err));
    struct session_memory m = session_memory(s);
    const float *logits;
    CHECK(m.cache == 40 * t.model->n_layer * 2 * t.model->n_embd * 4, "cache %lld", (long long)m.cache);
    CHECK_FAILS(session_push(s, t.ids, 1, &logits, &err), CB_E_UNSUPPORTED, "planned only");
    session_destroy(&s);
    t.o.plan.memory_limit = m.cache / 2;
    CHECK_FAILS(session_create(&s, &t.o, &err), CB_E_LIMIT, "cache");
    t.o.plan.memory_limit = m.cache + m.activations / 2;
    CHECK_FAILS(session_create(&s, &t.o, &err), CB_E_LIMIT, "limit");
    t.o.plan_only = false;
    t.o.plan.memory_limit = m.cache + m.activations + 40 * (int64_t)sizeof(int32_t);
    CHECK_OK(session_create(&s, &t.o, &err));
    session_destroy(&s);
    setting_close(&t);
}

TEST(session, refusals) {
    struct setting t;
    struct cb_err err = {0};
    struct session *s;
    const float *logits;
    setting_open(&t, "gpt2", "{}", 3, 10);
    CHECK_OK(session_create(&s, &t.o, &err));
    int32_t bad[2] = {1, (int32_t)t.model->vocab};
    CHECK_FAILS(session_push(s, bad, 2, &logits, &err), CB_E_ARGUMENT, "token 1");
    CHECK_FAILS(session_push(s, t.ids, 11, &logits, &err), CB_E_ARGUMENT, "11 tokens");
    CHECK_FAILS(session_push(s, t.ids, 0, &logits, &err), CB_E_ARGUMENT, "0 tokens");
    session_destroy(&s);
    t.o.context = t.model->max_positions + 1;
    CHECK_FAILS(session_create(&s, &t.o, &err), CB_E_LIMIT, "learned");
    t.o.context = 3;
    CHECK_FAILS(session_create(&s, &t.o, &err), CB_E_ARGUMENT, "room");
    store_remove(t.store, t.model->embedding);
    t.o.context = 10;
    CHECK_FAILS(session_create(&s, &t.o, &err), CB_E_NAME, "not among the weights");
    setting_close(&t);
}
