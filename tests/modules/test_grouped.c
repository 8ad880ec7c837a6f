/* Many modules in one batch: every row gives what it gives alone with its module, whatever the others are, by numbers at run time too; gradients. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "module_case.h"
#include "modules/expression.h"
#include "ops/ops.h"

enum { MODULES = 8, TOKENS = 9 };
static const char *const specs[] = {"lora:r=4,alpha=8", "ia3", "seq_bn:reduction_factor=4", "ad_prefix:n=3",
                                    "lora:r=4,alpha=3", "ia3", "lora:r=2,alpha=8",          "ad_prefix:n=5"};

struct crowd {
    struct base b;
    struct module *module[MODULES];
    struct arena *arena;
    int32_t ids[MODULES * TOKENS];
};

static enum cb_status crowd_open(struct crowd *c, const char *family, struct cb_err *err) {
    *c = (struct crowd){.arena = arena_create()};
    TRY(base_fresh(&c->b, family, err));
    struct rng rng = rng_make(5, 6);
    for (int i = 0; i < MODULES; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        TRY(module_create(&c->module[i], c->b.store, specs[i], name, NULL, 3 + (uint64_t)i, &c->b.sites, err));
        for (int k = 0; k < module_n_params(c->module[i]); k++) {
            struct store_entry *entry = store_find(c->b.store, module_param(c->module[i], k)->name);
            for (int64_t n = 0; entry && entry->trainable && n < type_elements(&entry->type); n++)
                ((float *)entry->data)[n] += (float)(0.2 * rng_normal(&rng));
        }
    }
    for (int i = 0; i < MODULES * TOKENS; i++) c->ids[i] = (int32_t)rng_below(&rng, (uint64_t)c->b.model->vocab);
    return CB_OK;
}

static void crowd_close(struct crowd *c) {
    for (int i = 0; i < MODULES; i++) module_destroy(&c->module[i]);
    base_close(&c->b);
    arena_destroy(&c->arena);
}

/* Leaves "m<i>" become the i-th module. */
static void leaves_number(struct expression *e) {
    if (!e->block && e->path) e->module = e->path[1] - '0';
    for (int i = 0; i < e->n; i++) leaves_number(e->child[i]);
}

/* Logits of rows by an expression; of: a module whose gradients are wanted. */
static enum cb_status crowd_run(struct crowd *c, struct runner *r, const char *text, int64_t rows, const int32_t *ids, const int32_t *tasks,
                                const struct module *of, struct cb_err *err) {
    struct expression *e;
    TRY(expression_parse(&e, c->arena, text, "test", err));
    leaves_number(e);
    struct module_list list = {.modules = (const struct module *const *)c->module, .n = MODULES, .expression = e, .n_composed = MODULES};
    const struct model_io io = {.batch = rows, .tokens = TOKENS, .want_logits = true, .want_loss = of != NULL};
    TRY(with_modules(&c->b, r, &list, of, &io, err));
    memcpy(runner_data(r, "input_ids"), ids, (size_t)(rows * TOKENS) * sizeof *ids);
    if (of) memcpy(runner_data(r, "labels"), ids, (size_t)(rows * TOKENS) * sizeof *ids);
    if (tasks) memcpy(runner_data(r, "task_ids"), tasks, (size_t)rows * sizeof *tasks);
    return runner_run(r, err);
}

/* Each row beside the same row alone; row i has module order[i]. */
static void rows_compare(struct crowd *c, struct runner *all, const int32_t *order, const char *what) {
    struct cb_err err = {0};
    for (int i = 0; i < MODULES; i++) {
        struct runner one = {0};
        char text[16];
        snprintf(text, sizeof text, order[i] >= 0 && order[i] < MODULES ? "m%d" : "base", order[i]);
        CHECK_OK(crowd_run(c, &one, text, 1, c->ids + i * TOKENS, NULL, NULL, &err));
        const int64_t n = runner_elements(&one, "logits");
        const double e = worst_error((const float *)runner_data(all, "logits") + i * n, runner_data(&one, "logits"), n);
        CHECK(e < 2e-5, "%s: row %d, module %d: error %g", what, i, order[i], e);
        runner_destroy(&one);
    }
}

static void family_check(const char *family) {
    static const int32_t in_order[MODULES] = {0, 1, 2, 3, 4, 5, 6, 7}, mixed[MODULES] = {6, 0, -1, 5, 3, 2, 99, 4};
    struct cb_err err = {0};
    struct crowd c;
    struct runner r = {0};
    CHECK_OK(crowd_open(&c, family, &err));
    CHECK_OK(crowd_run(&c, &r, "batch(m0, m1, m2, m3, m4, m5, m6, m7; 1, 1, 1, 1, 1, 1, 1, 1)", MODULES, c.ids, NULL, NULL, &err));
    rows_compare(&c, &r, in_order, "batch");
    // a product for each of the two ranks of LoRA at a site, not one a module
    int n_products = 0, n_sites = module_n_sites(c.module[0]);
    for (int i = 0; i < r.g->n_nodes; i++) n_products += strcmp(r.g->nodes[i]->op->name, "indexed_linear") == 0;
    CHECK(n_products == 4 * n_sites, "%d products at %d sites", n_products, n_sites);
    runner_destroy(&r);
    CHECK_OK(crowd_run(&c, &r, "multitask(m0, m1, m2, m3, m4, m5, m6, m7)", MODULES, c.ids, mixed, NULL, &err));
    rows_compare(&c, &r, mixed, "multitask");
    runner_destroy(&r);
    crowd_close(&c);
}

TEST(grouped, gpt2) { family_check("gpt2"); }
TEST(grouped, llama) { family_check("llama"); }

/* Gradients through the shared products are those of the rows alone. */
TEST(grouped, gradients) {
    struct cb_err err = {0};
    struct crowd c;
    struct runner all = {0}, alone = {0};
    CHECK_OK(crowd_open(&c, "gpt2", &err));
    // twice the row alone is half of a batch of two
    CHECK_OK(crowd_run(&c, &all, "batch(m0, m4; 1, 1)", 2, c.ids, NULL, c.module[0], &err));
    CHECK_OK(crowd_run(&c, &alone, "m0", 1, c.ids, NULL, c.module[0], &err));
    for (int i = 0; i < module_n_params(c.module[0]); i++) {
        char name[300];
        snprintf(name, sizeof name, "grad.%s", module_param(c.module[0], i)->key);
        float *a = runner_data(&all, name);
        const float *b = runner_data(&alone, name);
        CHECK(a && b, "%s: no gradient", name);
        if (!a || !b) continue;
        for (int64_t k = 0; k < runner_elements(&all, name); k++) a[k] *= 2;
        const double e = relative_norm(a, b, runner_elements(&all, name));
        CHECK(e < 1e-4, "%s: error %g", name, e);
    }
    runner_destroy(&all);
    runner_destroy(&alone);
    crowd_close(&c);
}
