/* Weight matching: assignments of hidden units and heads, one layer at a time, checked on a probe. */
#include "api/align.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/instance.h"
#include "base/arena.h"
#include "base/rng.h"

enum { MAX_UNITS = 16384, PROBE_TOKENS = 12 };

/* One tensor in its new order: rows, or columns, of its matrix; a vector has columns alone. */
struct order {
    const char *name;
    int32_t *rows, *cols;  // one of them
    int64_t n;
    bool of_heads;
};

struct aligned {
    struct arena *arena;
    struct order *orders;
    int n_orders, room;
    int64_t moved_units, moved_heads;
    bool no_heads;
};

/* A part of a weight that is cut into blocks of `width` units: they lie along its outputs, or along its inputs. */
struct part {
    const struct nn_site *site;
    bool outputs;
    int64_t begin;  // first unit along that side
};

struct group {
    struct part part[4];
    int n_parts;
    int64_t n, width[4];  // blocks, and units of each in every part
};

struct alignment {
    struct aligned *out;
    struct instance reference, model;
};

static enum cb_status out_of_memory(struct cb_err *err) { FAIL(err, CB_E_MEMORY, "align: out of memory"); }

/* ---- what belongs together */

static const struct nn_site *find_role(const struct nn *nn, int layer, const char *role) {
    const struct nn_site *found = NULL;
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *s = nn->sites[i];
        if (s->kind != NN_LINEAR || s->layer != layer || !s->role || strcmp(s->role, role) || s->some_rows) continue;
        if (found) return NULL;  // two stacks, or experts: which belong together is not told
        found = s;
    }
    return found;
}

static void add_part(struct group *g, const struct nn_site *site, bool outputs, int64_t begin, int64_t width) {
    g->width[g->n_parts] = width;
    g->part[g->n_parts++] = (struct part){site, outputs, begin};
}

/* Units of a feed-forward block: outputs of up (and gate), inputs of down. */
static bool feed_forward(const struct nn *nn, int layer, struct group *g) {
    const struct nn_site *up = find_role(nn, layer, "up"), *gate = find_role(nn, layer, "gate"), *down = find_role(nn, layer, "down");
    const struct nn_site *both = find_role(nn, layer, "gate_up");
    *g = (struct group){0};
    if (!down || (!up && !both)) return false;
    g->n = down->in;
    if (both) {
        if (both->out != 2 * g->n) return false;
        add_part(g, both, true, 0, 1);
        add_part(g, both, true, g->n, 1);
    } else {
        if (up->out != g->n || (gate && gate->out != g->n)) return false;
        add_part(g, up, true, 0, 1);
        if (gate) add_part(g, gate, true, 0, 1);
    }
    add_part(g, down, false, 0, 1);
    return g->n > 1 && g->n <= MAX_UNITS;
}

/* Groups of heads that share their keys: outputs of q, k and v, inputs of o. */
static bool heads(const struct model *m, const struct nn *nn, int layer, struct group *g) {
    const struct nn_site *part[3] = {find_role(nn, layer, "q"), find_role(nn, layer, "k"), find_role(nn, layer, "v")};
    const struct nn_site *o = find_role(nn, layer, "o"), *fused = find_role(nn, layer, "qkv");
    const int64_t d = m->head_dim, q = m->n_head * d, kv = m->n_kv_head * d;
    *g = (struct group){0};
    if (!o || o->in != q || m->n_kv_head < 2 || m->n_head % m->n_kv_head) return false;
    g->n = m->n_kv_head;
    for (int i = 0; i < 3; i++) {
        const int64_t out = i ? kv : q;
        if (fused) {
            if (fused->n_slices != 3 || fused->slice[i].end - fused->slice[i].begin != out) return false;
            add_part(g, fused, true, fused->slice[i].begin, out / g->n);
        } else {
            if (!part[i] || part[i]->out != out) return false;
            add_part(g, part[i], true, 0, out / g->n);
        }
    }
    add_part(g, o, false, 0, q / g->n);
    return true;
}

/* ---- how much two models' blocks are alike */

struct alike {
    const float *a, *b;  // f32 weights
    bool along_rows;  // units are rows; else columns
    int64_t rows, cols, begin, width, n;
    double *score;  // (n,n), added to
};

static void alike_row(void *context, int64_t i, int thread) {
    const struct alike *s = context;
    const int64_t depth = s->along_rows ? s->cols : s->rows;
    (void)thread;
    for (int64_t j = 0; j < s->n; j++) {
        double sum = 0;
        for (int64_t u = 0; u < s->width; u++) {
            const int64_t x = s->begin + i * s->width + u, y = s->begin + j * s->width + u;
            if (s->along_rows) {
                const float *p = s->a + x * s->cols, *q = s->b + y * s->cols;
                float part = 0;
                for (int64_t k = 0; k < depth; k++) part += p[k] * q[k];
                sum += (double)part;
            } else {
                for (int64_t k = 0; k < depth; k++) sum += (double)s->a[k * s->cols + x] * (double)s->b[k * s->cols + y];
            }
        }
        s->score[i * s->n + j] += sum;
    }
}

/* Largest sum of scores over all assignments (Kuhn 1955, Munkres 1957; shortest augmenting paths): column[i] goes with row i. */
static enum cb_status assign(const double *score, int64_t n, int32_t *column, struct cb_err *err) {
    double *u = calloc((size_t)(3 * n + 3), sizeof *u), *v = u + n + 1, *least = v + n + 1;
    int64_t *row = calloc((size_t)(2 * n + 2), sizeof *row), *way = row + n + 1;
    bool *used = malloc((size_t)n + 1);
    if (!u || !row || !used) {
        free(u);
        free(row);
        free(used);
        return out_of_memory(err);
    }
    for (int64_t i = 1; i <= n; i++) {
        int64_t j0 = 0;
        row[0] = i;
        for (int64_t j = 0; j <= n; j++) least[j] = INFINITY;
        memset(used, 0, (size_t)n + 1);
        do {
            used[j0] = true;
            const int64_t i0 = row[j0];
            int64_t j1 = 0;
            double delta = INFINITY;
            for (int64_t j = 1; j <= n; j++) {
                if (used[j]) continue;
                const double cost = -score[(i0 - 1) * n + j - 1] - u[i0] - v[j];
                if (cost < least[j]) least[j] = cost, way[j] = j0;
                if (least[j] < delta || !j1) delta = least[j], j1 = j;
            }
            for (int64_t j = 0; j <= n; j++) {
                if (used[j])
                    u[row[j]] += delta, v[j] -= delta;
                else
                    least[j] -= delta;
            }
            j0 = j1;
        } while (row[j0]);
        do {
            const int64_t j1 = way[j0];
            row[j0] = row[j1];
            j0 = j1;
        } while (j0);
    }
    for (int64_t j = 1; j <= n; j++) column[row[j] - 1] = (int32_t)(j - 1);
    free(u);
    free(row);
    free(used);
    return CB_OK;
}

/* ---- orders of tensors */

/* The order of a whole side of `size` units in which the part's blocks stand as assigned; one tensor's parts add up. */
static enum cb_status place(struct aligned *a, const char *name, bool rows, int64_t size, const struct group *g, int part,
                            const int32_t *column, bool of_heads, struct cb_err *err) {
    struct order *o = NULL;
    for (int i = 0; i < a->n_orders && !o; i++)
        if (!strcmp(a->orders[i].name, name)) o = &a->orders[i];
    if (!o) {
        if (a->n_orders == a->room) {
            a->room = a->room ? 2 * a->room : 64;
            struct order *more = realloc(a->orders, (size_t)a->room * sizeof *more);
            if (!more) return out_of_memory(err);
            a->orders = more;
        }
        o = &a->orders[a->n_orders];
        *o = (struct order){.name = arena_strdup(a->arena, name), .n = size, .of_heads = of_heads};
        int32_t *index = arena_array(a->arena, (size_t)size, sizeof *index);
        if (!o->name || !index) return out_of_memory(err);
        for (int64_t i = 0; i < size; i++) index[i] = (int32_t)i;
        *(rows ? &o->rows : &o->cols) = index;
        a->n_orders++;
    }
    int32_t *index = rows ? o->rows : o->cols;
    const int64_t width = g->width[part], begin = g->part[part].begin;
    for (int64_t i = 0; i < g->n; i++)
        for (int64_t u = 0; u < width; u++) index[begin + i * width + u] = (int32_t)(begin + column[i] * width + u);
    return CB_OK;
}

static enum cb_status align_group(struct alignment *al, const struct group *g, bool of_heads, struct cb_err *err) {
    double *score = calloc((size_t)(g->n * g->n), sizeof *score);
    int32_t *column = malloc((size_t)g->n * sizeof *column);
    enum cb_status status = score && column ? CB_OK : out_of_memory(err);
    for (int p = 0; p < g->n_parts && status == CB_OK; p++) {
        const struct nn_site *s = g->part[p].site;
        const struct store_entry *x = store_find(al->reference.store, s->weight), *y = store_find(al->model.store, s->weight);
        if (!x || !y || x->type.rank != 2 || !type_equal(&x->type, &y->type)) {
            status = err_set(err, CB_E_SHAPE, __FILE__, __LINE__, "align: %s: the models differ in shape", s->weight);
            break;
        }
        struct alike alike = {x->data,        y->data,        g->part[p].outputs != s->weight_is_in_out,
                              x->type.dim[0], x->type.dim[1], g->part[p].begin,
                              g->width[p],    g->n,           score};
        pool_run(al->model.engine->pool, g->n, alike_row, &alike);
    }
    if (status == CB_OK) status = assign(score, g->n, column, err);
    int64_t moved = 0;
    for (int64_t i = 0; i < g->n && status == CB_OK; i++) moved += column[i] != i;
    for (int p = 0; p < g->n_parts && moved && status == CB_OK; p++) {
        const struct nn_site *s = g->part[p].site;
        const bool outputs = g->part[p].outputs;
        status = place(al->out, s->weight, outputs != s->weight_is_in_out, outputs ? s->out : s->in, g, p, column, of_heads, err);
        if (status == CB_OK && outputs && s->bias) status = place(al->out, s->bias, false, s->out, g, p, column, of_heads, err);
    }
    *(of_heads ? &al->out->moved_heads : &al->out->moved_units) += moved;
    free(score);
    free(column);
    return status;
}

/* ---- the check: the model computes the same */

static enum cb_status probe(struct instance *in, float **out, int64_t *n, struct cb_err *err) {
    struct pass pass;
    struct nn nn;
    struct rng rng = rng_make(3, rng_hash("align"));
    struct model_io io = {.batch = 2, .tokens = PROBE_TOKENS, .want_logits = true};
    if (in->model->learned_positions && in->model->max_positions < io.tokens) io.tokens = in->model->max_positions;
    *out = NULL;
    enum cb_status status = pass_begin(&pass, in, &nn, err);
    if (status == CB_OK) status = model_build(in->model, &nn, &io, err);
    if (status == CB_OK) status = pass_plan(&pass, in, false, instance_held_bytes(in), err);
    for (int r = 0; r < io.n_ranges && status == CB_OK; r++) {
        const int slot = plan_find(pass.plan, io.ranges[r].name);
        int32_t *to = slot < 0 ? NULL : plan_data(pass.plan, slot);
        for (int64_t i = 0; to && i < type_elements(&plan_slot(pass.plan, slot)->type); i++)
            to[i] = (int32_t)(io.ranges[r].low + (int64_t)rng_below(&rng, (uint64_t)(io.ranges[r].high - io.ranges[r].low)));
    }
    if (status == CB_OK) status = plan_run(pass.plan, in->engine->pool, err);
    const int slot = status == CB_OK ? plan_find(pass.plan, "logits") : -1;
    if (slot >= 0) {
        *n = type_elements(&plan_slot(pass.plan, slot)->type);
        if ((*out = malloc((size_t)*n * sizeof **out + 1)))
            memcpy(*out, plan_data(pass.plan, slot), (size_t)*n * sizeof **out);
        else
            status = out_of_memory(err);
    } else if (status == CB_OK) {
        status = err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__, "align: %s has no logits to check it by", in->path);
    }
    pass_end(&pass);
    return status;
}

/* The model's weights in the new order, in place. */
static enum cb_status reorder(struct alignment *al, struct cb_err *err) {
    for (int i = 0; i < al->out->n_orders; i++) {
        struct store_entry *e = store_find(al->model.store, al->out->orders[i].name);
        if (!e) continue;
        struct merge_input in = {.dtype = CB_DTYPE_F32};
        const int64_t n = type_elements(&e->type), cols = e->type.dim[e->type.rank - 1];
        float *copy = malloc((size_t)n * sizeof *copy);
        if (!copy) return out_of_memory(err);
        memcpy(copy, e->data, (size_t)n * sizeof *copy);
        in.data = copy;
        align_input(al->out, e->name, &in);
        merge_input_read(&in, cols, 0, n, e->data);
        free(copy);
    }
    return CB_OK;
}

/* Whether logits in the new order are those of before, up to rounding. */
static enum cb_status same_function(struct alignment *al, const float *before, int64_t n, bool *same, struct cb_err *err) {
    float *after;
    int64_t m = 0;
    double worst = 0, size = 0;
    TRY(probe(&al->model, &after, &m, err));
    for (int64_t i = 0; i < n && m == n; i++) {
        worst = fmax(worst, fabs((double)before[i] - (double)after[i]));
        size = fmax(size, fabs((double)before[i]));
    }
    free(after);
    *same = m == n && worst <= 1e-3 * fmax(size, 1);
    return CB_OK;
}

static enum cb_status check(struct alignment *al, const char *path, struct cb_err *err) {
    float *before;
    int64_t n;
    bool same = false;
    if (!al->out->n_orders) return CB_OK;
    TRY(probe(&al->model, &before, &n, err));
    enum cb_status status = reorder(al, err);
    if (status == CB_OK) status = same_function(al, before, n, &same, err);
    if (status == CB_OK && !same && al->out->moved_heads) {
        engine_warn(al->model.engine, "%s: attention differs between heads by more than their weights: heads stay where they are", path);
        al->out->no_heads = true;
        al->out->moved_heads = 0;
        instance_close(&al->model);
        status = instance_open(&al->model, al->reference.engine, path, NULL, err);
        if (status == CB_OK) status = instance_f32(&al->model, true, err);
        if (status == CB_OK) status = reorder(al, err);
        if (status == CB_OK) status = same_function(al, before, n, &same, err);
    }
    free(before);
    TRY(status);
    if (!same) FAIL(err, CB_E_UNSUPPORTED, "%s: its hidden units cannot change places without changing what it computes", path);
    return CB_OK;
}

/* ---- all layers */

static enum cb_status align(struct alignment *al, struct cb_engine *engine, const char *reference, const char *path, struct cb_err *err) {
    struct group g;
    if (!al->out || !(al->out->arena = arena_create())) return out_of_memory(err);
    TRY(instance_open(&al->reference, engine, reference, NULL, err));
    TRY(instance_open(&al->model, engine, path, NULL, err));
    TRY(instance_f32(&al->reference, true, err));
    TRY(instance_f32(&al->model, true, err));
    TRY(instance_sites(&al->reference, err));
    const struct nn *nn = &al->reference.sites;
    int last = -1;
    for (int i = 0; i < nn->n_sites; i++)
        if (nn->sites[i]->layer > last) last = nn->sites[i]->layer;
    for (int layer = 0; layer <= last; layer++) {
        if (feed_forward(nn, layer, &g)) TRY(align_group(al, &g, false, err));
        if (heads(al->reference.model, nn, layer, &g)) TRY(align_group(al, &g, true, err));
    }
    return check(al, path, err);
}

enum cb_status align_models(struct aligned **aligned, struct cb_engine *engine, const char *reference, const char *model,
                            struct cb_err *err) {
    struct alignment al = {.out = calloc(1, sizeof(struct aligned))};
    enum cb_status status = align(&al, engine, reference, model, err);
    instance_close(&al.reference);
    instance_close(&al.model);
    if (status != CB_OK) align_destroy(&al.out);
    *aligned = al.out;
    return status;
}

void align_destroy(struct aligned **aligned) {
    struct aligned *a = aligned ? *aligned : NULL;
    if (!a) return;
    arena_destroy(&a->arena);
    free(a->orders);
    free(a);
    *aligned = NULL;
}

void align_input(const struct aligned *a, const char *name, struct merge_input *in) {
    const size_t n = strlen(name);
    for (int i = 0; i < a->n_orders; i++) {
        const struct order *o = &a->orders[i];
        const size_t m = strlen(o->name);
        // files of a bare body lack the first part of every name
        const bool is_it =
            m >= n && !strcmp(o->name + m - n, name) && (m == n || (o->name[m - n - 1] == '.' && !memchr(o->name, '.', m - n - 1)));
        if (!is_it || (o->of_heads && a->no_heads)) continue;
        in->rows = o->rows;
        in->cols = o->cols;
        return;
    }
}

int64_t align_moved(const struct aligned *a) { return a->moved_units + a->moved_heads; }
