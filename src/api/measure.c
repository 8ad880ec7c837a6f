/* Measuring a model on a text, row by row. */
#include "api/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/score.h"
#include "base/arena.h"
#include "ops/ops.h"
#include "text/tokenizer.h"

/* Tokens of a row. */
enum { ROW = 256 };

/* An output of the plan and where its values add up. */
struct sum {
    const char *name;  // in the file
    char *output;  // in the plan
    struct cb_type type;
    float *total;
};

struct measure {
    struct cb_engine *engine;
    const struct measure_options *o;
    const char *path;
    struct instance instance;
    struct tokenizer *tokenizer;
    struct corpus *corpus;
    struct loader *loader;
    struct mask *mask;
    struct pass pass;
    struct arena *arena;
    struct sum *sums;
    int n_sums, room;
    const struct cb_tensor **seen;  // inputs whose Gram matrix is made, of the sum of the same number
    bool is_open;
};

static void warn(void *user, const char *line) { engine_warn(user, "%s", line); }

static enum cb_status out_of_memory(struct cb_err *err) { FAIL(err, CB_E_MEMORY, "measure: out of memory"); }

static enum cb_status load_text(struct measure *m, struct cb_err *err) {
    const struct model *model = m->instance.model;
    TRY(files_load_tokenizer(&m->tokenizer, m->path, err));
    TRY(score_mask(&m->mask, model, m->tokenizer, NULL, 0, m->engine->options.seed, err));
    struct corpus_options co = {.bos = m->mask ? tokenizer_bos(m->tokenizer) : -1, .eos = tokenizer_eos(m->tokenizer)};
    co.user = m->engine;
    co.warn = warn;
    if (model->class->head->shifts_labels || !model->class->head->learns_text)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s learns no plain text; wanted a language model", m->path, model->class->name);
    TRY(corpus_load(&m->corpus, m->o->text, m->o->n_text, m->tokenizer, NULL, &co, NULL, err));
    struct loader_options lo = {.batch = 1, .seq = ROW, .segments = true, .evaluation = true};
    if (model->max_positions > 0 && model->max_positions < ROW) lo.seq = model->max_positions;
    return loader_create(&m->loader, m->corpus, &lo, err);
}

static struct sum *add_sum(struct measure *m, const char *name, const struct cb_type *type) {
    if (m->n_sums == m->room) {
        const int room = m->room ? 2 * m->room : 128;
        struct sum *sums = realloc(m->sums, (size_t)room * sizeof *sums);
        if (sums) m->sums = sums;
        const struct cb_tensor **seen = realloc(m->seen, (size_t)room * sizeof *seen);
        if (seen) m->seen = seen;
        if (!sums || !seen) return NULL;
        m->room = room;
    }
    struct sum *s = &m->sums[m->n_sums];
    *s = (struct sum){.name = arena_strdup(m->arena, name), .output = arena_printf(m->arena, "measured.%d", m->n_sums), .type = *type};
    m->seen[m->n_sums] = NULL;
    if (!s->name || !s->output) return NULL;
    m->n_sums++;
    return s;
}

/* x'x of a linear layer's rows; layers that read the same x share it. */
static struct cb_tensor *hook_site(void *user, struct nn *nn, const struct nn_site *site, struct cb_tensor *x, struct cb_tensor *y) {
    struct measure *m = user;
    struct cb_graph *g = nn->g;
    const int64_t in = site->in, rows = in > 0 && x ? type_elements(&x->type) / in : 0;
    if (site->kind != NN_LINEAR || site->some_rows || !site->weight || !x || rows < 1 || type_elements(&x->type) != rows * in) return y;
    const struct cb_type type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){in, in});
    for (int i = 0; i < m->n_sums; i++)
        if (m->seen[i] == x) {
            const char *output = m->sums[i].output;
            struct sum *s = add_sum(m, site->weight, &type);
            if (!s) graph_fail(g, CB_E_MEMORY, "measure: out of memory");
            if (s) s->output = (char *)output;
            return y;
        }
    struct sum *s = add_sum(m, site->weight, &type);
    if (!s) {
        graph_fail(g, CB_E_MEMORY, "measure: out of memory");
        return y;
    }
    m->seen[m->n_sums - 1] = x;
    struct cb_tensor *flat = op_reshape(g, x, 2, (const int64_t[]){rows, in});
    graph_output(g, op_matmul(g, flat, flat, true, false), s->output);
    return y;
}

/* Gradients of the row's loss by every weight. */
static enum cb_status add_gradients(struct measure *m, struct cb_tensor *loss, struct cb_err *err) {
    struct cb_graph *g = m->pass.graph;
    const struct model *model = m->instance.model;
    struct cb_tensor **wrt = arena_array(m->arena, (size_t)model->n_weights + 1, sizeof *wrt);
    struct cb_tensor **grad = arena_array(m->arena, (size_t)model->n_weights + 1, sizeof *grad);
    int n = 0;
    if (!wrt || !grad) return out_of_memory(err);
    for (int i = 0; i < model->n_weights; i++) {
        const struct model_weight *w = &model->weights[i];
        if (w->is_buffer || !(wrt[n] = graph_find_leaf(g, w->name))) continue;
        if (!add_sum(m, w->name, &w->type)) return out_of_memory(err);
        n++;
    }
    graph_grad(g, loss, NULL, n, wrt, NULL, grad);
    for (int i = 0; i < n && !g->err.code; i++)
        if (grad[i]) graph_output(g, grad[i], m->sums[i].output);
    if (g->err.code) FAIL(err, g->err.code, "%s", g->err.message);
    return CB_OK;
}

static enum cb_status build(struct measure *m, struct cb_err *err) {
    const struct loader_options *lo = loader_options(m->loader);
    struct nn nn;
    struct model_io io = {.batch = 1,
                          .tokens = lo->seq,
                          .want_loss = true,
                          .head_loss_only = true,
                          .labels_shifted = true,
                          .segments = true,
                          .position_ids = true};
    TRY(instance_f32(&m->instance, !m->o->gram, err));
    m->is_open = true;
    TRY(pass_begin(&m->pass, &m->instance, &nn, err));
    if (m->o->gram) nn.hook = (struct nn_hook){.user = m, .site = hook_site};
    TRY(model_build(m->instance.model, &nn, &io, err));
    if (!m->o->gram) TRY(add_gradients(m, io.loss, err));
    for (int i = 0; i < m->n_sums; i++) {
        m->sums[i].total = calloc((size_t)type_elements(&m->sums[i].type) + 1, sizeof(float));
        if (!m->sums[i].total) return out_of_memory(err);
    }
    return pass_plan(&m->pass, &m->instance, false, instance_held_bytes(&m->instance), err);
}

struct addition {
    float *total;
    const float *value;
    int64_t n;
    bool square;
};

enum { TILE = 1 << 15 };

static void add_tile(void *context, int64_t i, int thread) {
    const struct addition *a = context;
    const int64_t first = i * TILE, n = a->n - first < TILE ? a->n - first : TILE;
    float *total = a->total + first;
    const float *x = a->value + first;
    (void)thread;
    for (int64_t k = 0; k < n; k++) total[k] += a->square ? x[k] * x[k] : x[k];
}

static enum cb_status run_rows(struct measure *m, int64_t *rows, struct cb_err *err) {
    const struct loader_options *lo = loader_options(m->loader);
    int32_t *ids = pass_data(&m->pass, "input_ids"), *labels = pass_data(&m->pass, "labels");
    int32_t *segments = score_segments(&m->pass), *positions = pass_data(&m->pass, "position_ids");
    const int64_t most = loader_valid_batches(m->loader);
    *rows = 0;
    for (int64_t r = 0; r < most && *rows < m->o->samples; r++) {
        int64_t learnt = 0;
        TRY(loader_valid(m->loader, r, ids, labels, segments, positions, err));
        // rows that are padded say less and would count as much
        for (int64_t i = 0; i < lo->seq; i++) learnt += labels[i] != LOADER_IGNORE;
        if (!learnt || (learnt < lo->seq / 2 && r > 0)) continue;
        score_prepare(m->mask, NULL, (uint64_t)r, 1, lo->seq, ids, labels, segments);
        TRY(plan_run(m->pass.plan, m->engine->pool, err));
        for (int i = 0; i < m->n_sums; i++) {
            const float *value = pass_data(&m->pass, m->sums[i].output);
            const int64_t n = type_elements(&m->sums[i].type);
            if (value)
                pool_run(m->engine->pool, (n + TILE - 1) / TILE, add_tile, &(struct addition){m->sums[i].total, value, n, !m->o->gram});
        }
        ++*rows;
        struct cb_progress p = {.verb = "measure", .done = *rows, .total = m->o->samples < most ? m->o->samples : most, .seconds_left = -1};
        p.loss = p.valid_loss = p.rate = -1;
        if (!engine_progress(m->engine, &p)) FAIL(err, CB_E_STOPPED, "measure: stopped on request");
    }
    if (!*rows) FAIL(err, CB_E_ARGUMENT, "measure: no row of text that %s could learn from", m->path);
    return CB_OK;
}

static enum cb_status write_sums(const struct measure *m, int64_t rows, const char *path, struct cb_err *err) {
    struct tensor_item *items = arena_array(m->arena, (size_t)m->n_sums + 1, sizeof *items);
    if (!items) return out_of_memory(err);
    for (int i = 0; i < m->n_sums; i++) {
        const struct sum *s = &m->sums[i];
        const int64_t n = type_elements(&s->type);
        for (int64_t k = 0; k < n; k++) {
            s->total[k] /= (float)rows;
            if (!isfinite(s->total[k]))
                FAIL(err, CB_E_NUMERIC, "%s: %s: found a value that is not finite; wanted finite ones", m->path, s->name);
        }
        items[i] = (struct tensor_item){.name = s->name, .type = s->type, .data = s->total};
    }
    return tensors_write(path, items, m->n_sums, NULL, NULL, NULL, err);
}

static enum cb_status measure(struct measure *m, const char *out, struct cb_err *err) {
    int64_t rows;
    if (!(m->arena = arena_create())) return out_of_memory(err);
    TRY(instance_open(&m->instance, m->engine, m->path, NULL, err));
    TRY(load_text(m, err));
    TRY(build(m, err));
    TRY(run_rows(m, &rows, err));
    return write_sums(m, rows, out, err);
}

enum cb_status measure_model(struct cb_engine *engine, const char *model, const struct measure_options *options, const char *path,
                             struct cb_err *err) {
    struct measure m = {.engine = engine, .o = options, .path = model};
    enum cb_status status = measure(&m, path, err);
    for (int i = 0; i < m.n_sums; i++) free(m.sums[i].total);
    free(m.sums);
    free(m.seen);
    if (m.is_open) pass_end(&m.pass);
    loader_destroy(&m.loader);
    corpus_destroy(&m.corpus);
    mask_destroy(&m.mask);
    tokenizer_destroy(&m.tokenizer);
    instance_close(&m.instance);
    arena_destroy(&m.arena);
    return status;
}
