/* A batch of sequences with a module each beside the same batch with one LoRA for all: gpt2-124m, weights drawn, whole sequences and one token each with
   a cache; and the largest difference between a row's logits and those of its module alone. Arguments: threads (all), sequences (64), tokens (64),
   repetitions (3). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "graph/plan.h"
#include "models/model.h"
#include "modules/expression.h"
#include "modules/module.h"
#include "ops/ops.h"

enum { MOST = 512 };
static const char *const kinds[] = {"lora:r=8,alpha=16", "ia3", "seq_bn:reduction_factor=16", "ad_prefix:n=8,flat=true"};

/* A model with modules: the first is LoRA for all, then one a sequence, kind after kind. */
struct crowd {
    struct store *store;
    struct model *model;
    struct module *module[MOST + 1];
    struct arena *arena;
    int64_t n, tokens;
    struct pool *pool;
    int threads;
};

struct pass {
    struct cb_graph *g;
    struct plan *plan;
    void **own;  // caches
    int n_own;
    double best;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum cb_status crowd_open(struct crowd *c, struct cb_err *err) {
    json_t *config;
    struct cb_graph *g;
    TRY(store_create(&c->store, err));
    TRY(pool_create(&c->pool, c->threads, err));
    TRY(model_default_config(&config, model_family("gpt2"), NULL, err));
    enum cb_status status = model_from_config(&c->model, config, "gpt2", err);
    json_decref(config);
    TRY(status);
    TRY(model_init_weights(c->model, c->store, 1, err));
    TRY(graph_create(&g, ops_table(), err));
    struct nn sites = nn_make(g);
    struct model_io io = {.batch = 1, .tokens = 2, .want_logits = true};
    TRY(model_build(c->model, &sites, &io, err));
    for (int64_t i = 0; i <= c->n; i++) {
        char name[24];
        snprintf(name, sizeof name, "m%lld", (long long)i);
        TRY(module_create(&c->module[i], c->store, kinds[i ? (i - 1) * 4 / c->n : 0], name, NULL, (uint64_t)i, &sites, err));
    }
    graph_destroy(&g);
    // off their fresh states, in which many change nothing
    uint32_t state = 1;
    for (int i = 0; i < store_count(c->store); i++) {
        struct store_entry *entry = store_at(c->store, i);
        for (int64_t k = 0; entry->trainable && strchr(entry->name, '/') && k < type_elements(&entry->type); k++) {
            state = state * 1664525 + 1013904223;
            ((float *)entry->data)[k] += 0.05f * ((float)(state >> 8) * 0x1p-23f - 1);
        }
    }
    return CB_OK;
}

static void leaves_number(struct expression *e) {
    if (!e->block) e->module = atoi(e->path + 1);
    for (int i = 0; i < e->n; i++) leaves_number(e->child[i]);
}

/* Parameters of the store, caches of the pass, inputs 0. */
static enum cb_status bind(struct crowd *c, struct pass *p, struct cb_err *err) {
    const int n = plan_n_slots(p->plan);
    if (!(p->own = calloc((size_t)n + 1, sizeof *p->own))) FAIL(err, CB_E_MEMORY, "no memory");
    for (int i = 0; i < n; i++) {
        const struct plan_slot *slot = plan_slot(p->plan, i);
        const size_t bytes = ((size_t)type_bytes(&slot->type) + 63) / 64 * 64;
        if (slot->is_input && plan_data(p->plan, i)) memset(plan_data(p->plan, i), 0, (size_t)type_bytes(&slot->type));
        if (!slot->is_param) continue;
        const struct store_entry *entry = store_find(c->store, slot->name);
        void *data = entry ? entry->data : aligned_alloc(64, bytes);
        if (!data) FAIL(err, CB_E_MEMORY, "%s: no memory", slot->name);
        if (!entry) memset(p->own[p->n_own++] = data, 0, bytes);
        plan_bind(p->plan, i, data);
    }
    return CB_OK;
}

static void pass_close(struct pass *p) {
    plan_destroy(&p->plan);
    graph_destroy(&p->g);
    for (int i = 0; i < p->n_own; i++) free(p->own[i]);
    free(p->own);
}

/* Token t of sequence i. */
static int32_t token_of(int64_t i, int64_t t) { return (int32_t)((i * 7919 + t * 104729 + 12345) % 50257); }

/* Sequences [first, first + batch). tokens 1: with a cache, which holds c->tokens rows already. */
static enum cb_status pass_open(struct crowd *c, struct pass *p, const char *text, int64_t first, int64_t batch, int64_t tokens,
                                struct cb_err *err) {
    struct expression *e;
    TRY(expression_parse(&e, c->arena, text, "bench", err));
    leaves_number(e);
    struct module_list list = {
        .modules = (const struct module *const *)c->module, .n = (int)c->n + 1, .expression = e, .n_composed = (int)c->n + 1};
    struct model_io io = {
        .batch = batch, .tokens = tokens, .want_logits = true, .last_only = true, .cache = tokens == 1 ? c->tokens + 64 : 0};
    TRY(graph_create(&p->g, ops_table(), err));
    struct nn nn = nn_make(p->g);
    nn.hook = module_hook(&list);
    TRY(model_build(c->model, &nn, &io, err));
    struct plan_options options = {.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = c->threads};
    TRY(plan_create(&p->plan, p->g, &options, err));
    TRY(bind(c, p, err));
    int start = plan_find(p->plan, "start"), ids = plan_find(p->plan, "input_ids");
    for (int64_t i = 0; start >= 0 && i < batch; i++) ((int32_t *)plan_data(p->plan, start))[i] = (int32_t)c->tokens;
    for (int64_t i = 0; i < batch * tokens; i++) ((int32_t *)plan_data(p->plan, ids))[i] = token_of(first + i / tokens, i % tokens);
    p->best = 1e30;
    return CB_OK;
}

static enum cb_status pass_time(struct crowd *c, struct pass *p, struct cb_err *err) {
    const double begin = now();
    TRY(plan_run(p->plan, c->pool, err));
    const double s = now() - begin;
    if (s < p->best) p->best = s;
    return CB_OK;
}

/* Largest |a - b| / (1 + |b|) between each row's logits and what its module alone gives for that sequence. */
static enum cb_status difference(struct crowd *c, const struct pass *many, int64_t tokens, double *worst, struct cb_err *err) {
    const int slot = plan_find(many->plan, "logits");
    const int64_t width = type_elements(&plan_slot(many->plan, slot)->type) / c->n;
    const float *all = plan_data(many->plan, slot);
    enum cb_status status = CB_OK;
    *worst = 0;
    for (int64_t i = 0; i < c->n && status == CB_OK; i++) {
        struct pass single = {0};
        char text[24];
        snprintf(text, sizeof text, "m%lld", (long long)i + 1);
        status = pass_open(c, &single, text, i, 1, tokens, err);
        if (status == CB_OK) status = plan_run(single.plan, c->pool, err);
        const float *own = status == CB_OK ? plan_data(single.plan, plan_find(single.plan, "logits")) : NULL;
        for (int64_t k = 0; own && k < width; k++) {
            const double d = fabs((double)all[i * width + k] - (double)own[k]) / (1 + fabs((double)own[k]));
            if (!(d <= *worst)) *worst = d;
        }
        pass_close(&single);
    }
    return status;
}

static enum cb_status compare(struct crowd *c, const char *what, int64_t tokens, int repetitions, struct cb_err *err) {
    struct pass one = {0}, many = {0};
    char *text = calloc(1, (size_t)(16 * c->n + 64)), *to = text;
    if (!text) FAIL(err, CB_E_MEMORY, "no memory");
    to += sprintf(to, "batch(");
    for (int64_t i = 1; i <= c->n; i++) to += sprintf(to, "%sm%lld", i > 1 ? ", " : "", (long long)i);
    for (int64_t i = 1; i <= c->n; i++) to += sprintf(to, "%s1", i > 1 ? ", " : "; ");
    sprintf(to, ")");
    double worst = 0;
    enum cb_status status = pass_open(c, &one, "m0", 0, c->n, tokens, err);
    if (status == CB_OK) status = pass_open(c, &many, text, 0, c->n, tokens, err);
    // in turn: what else runs on the machine meets both
    for (int i = 0; status == CB_OK && i < repetitions; i++) {
        status = pass_time(c, &one, err);
        if (status == CB_OK) status = pass_time(c, &many, err);
    }
    if (status == CB_OK) status = difference(c, &many, tokens, &worst, err);
    if (status == CB_OK)
        printf("%-22s one LoRA %8.1f ms   %lld modules of 4 kinds %8.1f ms   %.2f times   logits %.1e from the single runs\n", what,
               1e3 * one.best, (long long)c->n, 1e3 * many.best, many.best / one.best, worst);
    pass_close(&one);
    pass_close(&many);
    free(text);
    return status;
}

int main(int argc, char **argv) {
    struct cb_err err = {0};
    struct crowd c = {.arena = arena_create(), .threads = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN)};
    c.n = argc > 2 ? atoi(argv[2]) : 64;
    c.tokens = argc > 3 ? atoi(argv[3]) : 64;
    const int repetitions = argc > 4 ? atoi(argv[4]) : 3;
    if (c.n < 4 || c.n > MOST || c.tokens < 2) return 2;
    enum cb_status status = crowd_open(&c, &err);
    if (status == CB_OK) status = compare(&c, "whole sequences", c.tokens, repetitions, &err);
    if (status == CB_OK) status = compare(&c, "one token, cached", 1, 5 * repetitions, &err);
    if (status != CB_OK) fprintf(stderr, "bench_modules: %s\n", err.message);
    for (int64_t i = 0; i <= c.n; i++) module_destroy(&c.module[i]);
    model_destroy(&c.model);
    store_destroy(&c.store);
    pool_destroy(&c.pool);
    arena_destroy(&c.arena);
    return status != CB_OK;
}
