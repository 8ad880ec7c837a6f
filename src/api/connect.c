/* cb_connect: the loss of a text along the straight line between two models (linear mode connectivity, Frankle et al. 2020). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/score.h"
#include "io/file.h"
#include "text/tokenizer.h"
#include "train/report.h"

struct connection {
    const struct cb_connect_options *o;
    struct instance a, b, between;  // the ends as they are stored; what is measured
    struct tokenizer *tokenizer;
    struct corpus *corpus;
    struct loader *loader;
    struct score score;
    struct mask *mask;
};

static void warn(void *user, const char *line) { engine_warn(user, "%s", line); }

/* Both models hold the same weights in the same shapes. */
static enum cb_status check_ends(const struct connection *c, struct cb_err *err) {
    char text[2][TYPE_TEXT];
    for (int i = 0; i < c->a.model->n_weights; i++) {
        const struct model_weight *w = &c->a.model->weights[i], *other = model_find_weight(c->b.model, w->name);
        if (!other) FAIL(err, CB_E_SHAPE, "%s: no weight %s; wanted a model as %s", c->o->b, w->name, c->o->a);
        if (!type_equal(&w->type, &other->type))
            FAIL(err, CB_E_SHAPE, "%s: %s: found %s; wanted %s as in %s", c->o->b, w->name, type_text(&other->type, text[0]),
                 type_text(&w->type, text[1]), c->o->a);
    }
    return CB_OK;
}

struct blend {
    float *out;
    const struct store_entry *a, *b;
    double t;
    int64_t n;
};

enum { TILE = 1 << 14 };

static void blend_tile(void *context, int64_t i, int thread) {
    const struct blend *blend = context;
    float x[TILE];
    const int64_t first = i * TILE, n = blend->n - first < TILE ? blend->n - first : TILE;
    const struct dtype *da = dtype_of(blend->a->type.dtype), *db = dtype_of(blend->b->type.dtype);
    float *out = blend->out + first;
    (void)thread;
    da->to_f32(out, (const char *)blend->a->data + first / da->block * da->block_bytes, n);
    db->to_f32(x, (const char *)blend->b->data + first / db->block * db->block_bytes, n);
    // the ends are the models themselves, bit for bit
    for (int64_t k = 0; k < n && blend->t > 0; k++)
        out[k] = blend->t >= 1 ? x[k] : (float)((1 - blend->t) * (double)out[k] + blend->t * (double)x[k]);
}

static enum cb_status move_to(struct connection *c, double t, struct cb_err *err) {
    for (int i = 0; i < c->a.model->n_weights; i++) {
        const char *name = c->a.model->weights[i].name;
        const struct store_entry *to = store_find(c->between.store, name);
        struct blend b = {to ? to->data : NULL, store_find(c->a.store, name), store_find(c->b.store, name), t, 0};
        if (!to || !b.a || !b.b) continue;  // a tied head is its embedding
        if (b.a->turned || b.b->turned || to->type.dtype != CB_DTYPE_F32)
            FAIL(err, CB_E_UNSUPPORTED, "%s: stored in a form that cannot be mixed", name);
        b.n = type_elements(&to->type);
        pool_run(c->a.engine->pool, (b.n + TILE - 1) / TILE, blend_tile, &b);
    }
    return CB_OK;
}

static enum cb_status load_text(struct connection *c, struct cb_err *err) {
    struct cb_engine *engine = c->a.engine;
    const struct model *m = c->a.model;
    TRY(files_load_tokenizer(&c->tokenizer, c->o->a, err));
    TRY(score_mask(&c->mask, m, c->tokenizer, NULL, 0, engine->options.seed, err));
    struct corpus_options co = {
        .bos = c->mask ? tokenizer_bos(c->tokenizer) : -1, .eos = tokenizer_eos(c->tokenizer), .user = engine, .warn = warn};
    co.apart = m->class->head->shifts_labels;
    TRY(corpus_load(&c->corpus, c->o->text, c->o->n_text, c->tokenizer, NULL, &co, NULL, err));
    TRY(score_check_pairs(m, c->corpus, err));
    const int64_t context = m->max_positions > 0 && m->max_positions < 1024 ? m->max_positions : 1024;
    struct loader_options lo = {.batch = c->o->batch ? c->o->batch : 8,
                                .seq = c->o->seq ? c->o->seq : context,
                                .segments = c->mask || corpus_info(c->corpus)->documents > 1,
                                .evaluation = true};
    if (m->class->head->shifts_labels) score_pairs(&lo, m);
    TRY(loader_create(&c->loader, c->corpus, &lo, err));
    score_tell_lost(engine, c->loader, "");
    TRY(score_open(&c->score, &c->between, &lo, NULL, err));
    c->score.loader = c->loader;
    c->score.mask = c->mask;
    return CB_OK;
}

/* connect.json and connect.svg. */
static enum cb_status write_files(const struct connection *c, const struct cb_connect_result *r, struct cb_err *err) {
    const char *folder = c->o->out;
    if (!folder) return CB_OK;
    struct curve *curve = calloc(1, sizeof *curve);
    json_t *root = json_object(), *points = json_array();
    char *text = NULL, *path = io_path_join(folder, "connect.svg");
    if (!curve || !root || !points || !path) FAIL(err, CB_E_MEMORY, "connect: out of memory");
    for (int i = 0; i < CB_CONNECT_POINTS; i++) {
        curve_add(curve, r->at[i], r->loss[i]);
        json_array_append_new(points, json_pack("{s:f, s:f}", "at", r->at[i], "loss", isfinite(r->loss[i]) ? r->loss[i] : 1e30));
    }
    json_object_set_new(root, "points", points);
    json_object_set_new(root, "barrier", json_real(isfinite(r->barrier) ? r->barrier : 1e30));
    enum cb_status status = io_mkdirs(folder, err);
    if (status == CB_OK) status = json_dump(&text, root, 2, err);
    if (status == CB_OK) status = files_write_text(folder, "connect.json", text, err);
    struct page page = {.err = err};
    if (status == CB_OK) status = io_writer_open(&page.writer, path, err);
    if (status == CB_OK) {
        const struct chart_line line = {.curve = curve, .label = "loss", .style = "a", .dots = true};
        svg_alone(&page, "loss between two models", "weight of the second model", &line, 1);
        status = page.status == CB_OK ? io_writer_commit(&page.writer, err) : page.status;
    }
    io_writer_abort(&page.writer);
    if (status == CB_OK) status = files_write_text(folder, "run.json", c->o->run_json, err);
    json_decref(root);
    free(text);
    free(path);
    free(curve);
    return status;
}

static enum cb_status run(struct connection *c, struct cb_engine *engine, struct cb_connect_result *r, struct cb_err *err) {
    const int last = CB_CONNECT_POINTS - 1;
    TRY(engine_check_runs(engine, err));
    TRY(instance_open(&c->a, engine, c->o->a, NULL, err));
    TRY(instance_open(&c->b, engine, c->o->b, NULL, err));
    TRY(check_ends(c, err));
    TRY(instance_open(&c->between, engine, c->o->a, NULL, err));
    TRY(instance_f32(&c->between, true, err));
    TRY(load_text(c, err));
    for (int i = 0; i <= last; i++) {
        int64_t tokens;
        r->at[i] = (double)i / last;
        TRY(move_to(c, r->at[i], err));
        TRY(score_run(&c->score, &r->loss[i], &tokens, err));
        struct cb_progress p = {
            .verb = "connect", .done = i + 1, .total = last + 1, .seconds = -1, .seconds_left = -1, .rate = -1, .loss = r->loss[i]};
        p.valid_loss = p.lr = -1;
        if (!engine_progress(engine, &p)) FAIL(err, CB_E_STOPPED, "connect: stopped on request");
    }
    for (int i = 0; i <= last; i++) r->barrier = fmax(r->barrier, r->loss[i] - ((1 - r->at[i]) * r->loss[0] + r->at[i] * r->loss[last]));
    return write_files(c, r, err);
}

enum cb_status cb_connect(struct cb_engine *engine, const struct cb_connect_options *options, struct cb_connect_result *result,
                          struct cb_err *err) {
    struct connection c = {.o = options};
    *result = (struct cb_connect_result){0};
    enum cb_status status = run(&c, engine, result, err);
    score_close(&c.score);
    loader_destroy(&c.loader);
    corpus_destroy(&c.corpus);
    mask_destroy(&c.mask);
    tokenizer_destroy(&c.tokenizer);
    instance_close(&c.between);
    instance_close(&c.b);
    instance_close(&c.a);
    return status;
}
