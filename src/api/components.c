/* What modules that begin by data are told of the inputs of their sites over some batches: principal components by incremental decompositions (Ross et al.
   2008), as EVA (Paischer et al. 2024) begins, rows of tokens that are padding or are not learnt left out; second moments, as CorDA (Yang et al. 2024). */
#include "api/components.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "ops/ops.h"

enum { MOST_BATCHES = 64, MOST_INPUTS = 1024, SEQUENCES = 256 };
#define MOMENTS_BYTES ((int64_t)256 << 20)  // of one round of the batches; what does not fit has another

/* What is known of one input, that several sites may share. */
struct input {
    struct cb_tensor *x;
    int64_t width, k, seen;
    double *mean, *s, *v;  // components: (width); (k); (k,width), v empty before the first batch
    bool is_steady;
    double *moments;  // (width,width), their sum; NULL: not in this round
};

struct capture {
    struct nn_hook inner;
    const struct module *module;
    struct input input[MOST_INPUTS];
    int of_site[MOST_INPUTS], n;  // the input of each of the module's sites, -1: none
    bool is_full;
    bool takes_moments;
    int first, end;  // inputs of this round
    int64_t bytes;
};

/* How many components a site wants; of moments 1. */
static int64_t wanted(const struct capture *c, int site) {
    return c->takes_moments ? module_wants_moments(c->module, site) : module_components(c->module, site);
}

/* X'X over the batch, each sequence of X divided by the size of its largest value; padding counts as zeros. (width,width) */
static struct cb_tensor *moments_make(struct cb_graph *g, struct cb_tensor *x) {
    const struct cb_tensor *ids = graph_find_leaf(g, "input_ids");
    struct cb_tensor *mask = graph_find_leaf(g, "attention_mask");
    const int64_t width = x->type.dim[x->type.rank - 1], rows = type_elements(&x->type) / (width ? width : 1), axes[2] = {1, 2};
    const int64_t batch = ids ? ids->type.dim[0] : 0, each = batch ? rows / batch : 0;
    if (!each || rows % batch)
        return graph_fail(g, CB_E_UNSUPPORTED, "components: an input of %lld rows; wanted some a sequence", (long long)rows);
    struct cb_tensor *zero = graph_const_f32(g, 0), *high;
    if (x->type.dtype != CB_DTYPE_F32) x = op_cast(g, x, CB_DTYPE_F32);
    high = x = op_reshape(g, x, 3, (const int64_t[]){batch, each, width});
    if (mask && mask->type.rank == 2 && mask->type.dim[0] == batch && mask->type.dim[1] == each) {
        const int32_t none = 0;
        struct cb_tensor *is = op_compare(g, "ne", mask, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &none));
        is = op_reshape(g, is, 3, (const int64_t[]){batch, each, 1});
        high = op_where(g, is, x, graph_const_f32(g, -INFINITY));
        x = op_where(g, is, x, zero);
    }
    high = op_unary(g, "abs", op_reduce(g, "max", high, 2, axes, true));
    x = op_div(g, x, op_where(g, op_compare(g, "eq", high, zero), graph_const_f32(g, 1), high));
    x = op_reshape(g, x, 2, (const int64_t[]){rows, width});
    return op_matmul(g, x, x, true, false);
}

/* A new input's place; its output. */
static void input_open(struct capture *c, struct nn *nn, int at, struct cb_tensor *x) {
    const int64_t width = x->type.dim[x->type.rank - 1], bytes = 12 * width * width;
    c->input[at] = (struct input){.x = x, .width = width};
    if (!c->takes_moments) {
        graph_output(nn->g, x, nn_name(nn, "given.%d", at));
        return;
    }
    // those of this round lie one after the other; the first always fits
    if (at < c->first || at != c->end || (at > c->first && c->bytes + bytes > MOMENTS_BYTES)) return;
    c->end = at + 1;
    c->bytes += bytes;
    graph_output(nn->g, moments_make(nn->g, x), nn_name(nn, "given.%d", at));
}

/* Records what a site is given. */
static struct cb_tensor *capture_input(void *user, struct nn *nn, const char *name, struct cb_tensor *x) {
    struct capture *c = user;
    struct nn_hook outer = nn->hook;
    for (int i = 0; i < module_n_sites(c->module) && !graph_is_bad(nn->g, x); i++) {
        const int64_t k = wanted(c, i);
        if (k < 1 || strcmp(module_site_name(c->module, i), name) != 0) continue;
        int at = 0;
        while (at < c->n && c->input[at].x != x) at++;
        if (at == MOST_INPUTS || i >= MOST_INPUTS) {
            c->is_full = true;
            break;
        }
        if (at == c->n) input_open(c, nn, c->n++, x);
        if (k > c->input[at].k) c->input[at].k = k;
        c->of_site[i] = at;
    }
    nn->hook = c->inner;
    if (c->inner.input) x = c->inner.input(c->inner.user, nn, name, x);
    nn->hook = outer;
    return x;
}

/* The other hooks, which get the module list as before. */
static struct cb_tensor *capture_site(void *user, struct nn *nn, const struct nn_site *site, struct cb_tensor *x, struct cb_tensor *y) {
    const struct capture *c = user;
    return c->inner.site ? c->inner.site(c->inner.user, nn, site, x, y) : y;
}

static struct cb_tensor *capture_param(void *user, struct nn *nn, const char *site, const char *field, struct cb_tensor *p) {
    const struct capture *c = user;
    return c->inner.param ? c->inner.param(c->inner.user, nn, site, field, p) : p;
}

static struct cb_tensor *capture_join(void *user, struct nn *nn, const struct nn_site *site, const struct nn_join *join,
                                      struct cb_tensor *y) {
    const struct capture *c = user;
    return c->inner.join ? c->inner.join(c->inner.user, nn, site, join, y) : NULL;
}

/* The graph of the training pass without its end, all inputs of sites being outputs. */
static enum cb_status capture_plan(struct capture *c, struct pass *pass, struct training *t, int64_t batch, int64_t seq,
                                   struct cb_err *err) {
    struct nn nn;
    struct model_io io = {.batch = batch, .tokens = seq};
    io.segments = pass_data(&t->pass, "segments") != NULL;
    io.position_ids = pass_data(&t->pass, "position_ids") != NULL;
    io.attention_mask = pass_data(&t->pass, "attention_mask") != NULL;
    TRY(pass_begin(pass, &t->instance, &nn, err));
    if (nn.hook.rows || nn.hook.before)
        FAIL(err, CB_E_UNSUPPORTED, "components: other modules on the model bring rows of their own; wanted none of these");
    c->inner = nn.hook;
    nn.hook = (struct nn_hook){
        .user = c, .input = capture_input, .site = capture_site, .param = capture_param, .join = capture_join, .head = c->inner.head};
    TRY(model_build(t->instance.model, &nn, &io, err));
    if (!c->n || c->is_full) FAIL(err, CB_E_UNSUPPORTED, "components: %d inputs of layers; wanted 1 to %d", c->n, MOST_INPUTS);
    return pass_plan(pass, &t->instance, false, instance_weight_bytes(&t->instance), err);
}

/* Whether a row of the input counts: a token that is no padding, and is learnt. */
static bool row_counts(struct pass *pass, int64_t row, int64_t rows) {
    static const char *const names[] = {"labels", "attention_mask"};
    for (int i = 0; i < 2; i++) {
        const int slot = plan_find(pass->plan, names[i]);
        if (slot < 0 || type_elements(&plan_slot(pass->plan, slot)->type) != rows) continue;
        const int32_t value = ((const int32_t *)plan_data(pass->plan, slot))[row];
        if (i ? value == 0 : value == -100) return false;
    }
    return true;
}

/* The rows that count, less their mean; below the components so far times their values, above the shift of the mean. Returns the count. */
static int64_t rows_take(struct input *in, struct pass *given, const float *x, int64_t rows, double *a, double *mean) {
    const int64_t w = in->width, before = in->v ? in->k : 0;
    int64_t n = 0;
    memset(mean, 0, (size_t)w * sizeof *mean);
    for (int64_t r = 0; r < rows; r++) {
        if (!row_counts(given, r, rows)) continue;
        for (int64_t i = 0; i < w; i++) mean[i] += a[(before + n) * w + i] = (double)x[r * w + i];
        n++;
    }
    for (int64_t i = 0; i < w && n; i++) mean[i] /= (double)n;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < w; i++) a[(before + r) * w + i] -= mean[i];
    for (int64_t j = 0; j < before; j++)
        for (int64_t i = 0; i < w; i++) a[j * w + i] = in->s[j] * in->v[j * w + i];
    const double factor = sqrt((double)in->seen * (double)n / (double)(in->seen + n > 0 ? in->seen + n : 1));
    for (int64_t i = 0; i < w && before; i++) a[(before + n) * w + i] = factor * (in->mean[i] - mean[i]);
    return n;
}

/* One batch's part: the decomposition of what rows_take gives; steady once every component keeps its direction. */
static enum cb_status input_update(struct input *in, struct pass *given, const float *x, int64_t rows, struct cb_err *err) {
    const int64_t w = in->width, before = in->v ? in->k : 0, room = rows + before + 1, most = room < w ? room : w;
    double *a = calloc((size_t)(room * w), sizeof *a), *u = malloc((size_t)(room * most) * sizeof *u),
           *s = malloc((size_t)most * sizeof *s);
    double *vt = malloc((size_t)(most * w) * sizeof *vt), *mean = malloc((size_t)w * sizeof *mean);
    enum cb_status status = a && u && s && vt && mean ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "components: out of memory");
    int64_t n = status == CB_OK ? rows_take(in, given, x, rows, a, mean) : 0;
    const int64_t all = before + n + (before > 0);
    const bool enough = n >= in->k && in->k <= w;
    if (status == CB_OK && enough) status = lapack_svd(a, all, w, u, s, vt, "components", err);
    if (status == CB_OK && enough && !in->v) {
        in->v = calloc((size_t)(in->k * w), sizeof *in->v);
        in->s = calloc((size_t)in->k, sizeof *in->s);
        in->mean = calloc((size_t)w, sizeof *in->mean);
        if (!in->v || !in->s || !in->mean) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "components: out of memory");
    }
    if (status == CB_OK && enough) {
        in->is_steady = before > 0;
        for (int64_t j = 0; j < in->k; j++) {
            double dot = 0;
            for (int64_t i = 0; i < w; i++) dot += in->v[j * w + i] * vt[j * w + i];
            in->is_steady &= fabs(dot) >= 0.99;
        }
        memcpy(in->v, vt, (size_t)(in->k * w) * sizeof *vt);
        memcpy(in->s, s, (size_t)in->k * sizeof *s);
        for (int64_t i = 0; i < w; i++) in->mean[i] = ((double)in->seen * in->mean[i] + (double)n * mean[i]) / (double)(in->seen + n);
        in->seen += n;
    }
    free(a), free(u), free(s), free(vt), free(mean);
    return status;
}

/* A batch from the training pass into the other one. */
static void inputs_copy(struct pass *to, struct pass *from) {
    for (int i = 0; i < plan_n_slots(to->plan); i++) {
        const struct plan_slot *slot = plan_slot(to->plan, i);
        const int other = slot->is_param || slot->is_output ? -1 : plan_find(from->plan, slot->name);
        if (other >= 0 && type_equal(&slot->type, &plan_slot(from->plan, other)->type))
            memcpy(plan_data(to->plan, i), plan_data(from->plan, other), (size_t)type_bytes(&slot->type));
    }
}

static enum cb_status batches_run(struct capture *c, struct pass *pass, struct training *t, train_batch_fn *next, void *user,
                                  struct cb_err *err) {
    bool steady = false;
    for (int64_t b = 0; b < MOST_BATCHES && !steady; b++) {
        TRY(next(user, b, err));
        inputs_copy(pass, &t->pass);
        TRY(plan_run(pass->plan, t->instance.engine->pool, err));
        steady = true;
        for (int i = 0; i < c->n; i++) {
            char name[32];
            struct input *in = &c->input[i];
            snprintf(name, sizeof name, "given.%d", i);
            const int slot = plan_find(pass->plan, name);
            const int64_t rows = type_elements(&plan_slot(pass->plan, slot)->type) / in->width;
            if (!in->is_steady) TRY(input_update(in, &t->pass, plan_data(pass->plan, slot), rows, err));
            steady &= in->is_steady;
        }
    }
    return CB_OK;
}

/* Each component with its largest entry positive. */
static enum cb_status components_give(const struct capture *c, struct training *t, struct cb_err *err) {
    for (int i = 0; i < module_n_sites(t->module); i++) {
        const int64_t k = module_components(t->module, i);
        const struct input *in = i < MOST_INPUTS && c->of_site[i] >= 0 ? &c->input[c->of_site[i]] : NULL;
        if (k < 1 || !in) continue;
        if (!in->v)
            FAIL(err, CB_E_ARGUMENT, "%s: batches of fewer than %lld tokens; wanted as many as components", module_site_name(t->module, i),
                 (long long)in->k);
        for (int64_t j = 0; j < k; j++) {
            double *row = in->v + j * in->width, most = 0;
            for (int64_t x = 0; x < in->width; x++)
                if (fabs(row[x]) > fabs(most)) most = row[x];
            for (int64_t x = 0; x < in->width && most < 0; x++) row[x] = -row[x];
        }
        TRY(module_take_components(t->module, i, t->instance.store, in->v, err));
    }
    return CB_OK;
}

/* ---- second moments */
static enum cb_status moments_add(struct capture *c, struct pass *pass, struct training *t, int64_t batch, train_batch_fn *next, void *user,
                                  struct cb_err *err) {
    for (int i = c->first; i < c->end; i++)
        if (!(c->input[i].moments = calloc((size_t)(c->input[i].width * c->input[i].width), sizeof(double))))
            FAIL(err, CB_E_MEMORY, "components: out of memory");
    for (int64_t b = 0; b * batch < SEQUENCES; b++) {
        TRY(next(user, b, err));
        inputs_copy(pass, &t->pass);
        TRY(plan_run(pass->plan, t->instance.engine->pool, err));
        for (int i = c->first; i < c->end; i++) {
            char name[32];
            struct input *in = &c->input[i];
            snprintf(name, sizeof name, "given.%d", i);
            const float *given = plan_data(pass->plan, plan_find(pass->plan, name));
            for (int64_t k = 0; k < in->width * in->width; k++) in->moments[k] += (double)given[k];
            in->seen += batch;
        }
    }
    return CB_OK;
}

/* Each site gets a mean of its own, which it overwrites. */
static enum cb_status moments_give(const struct capture *c, struct training *t, struct cb_err *err) {
    for (int i = 0; i < module_n_sites(t->module) && i < MOST_INPUTS; i++) {
        const struct input *in = c->of_site[i] >= 0 ? &c->input[c->of_site[i]] : NULL;
        if (!in || !in->moments) continue;
        const int64_t n = in->width * in->width;
        double *mean = malloc((size_t)n * sizeof *mean);
        if (!mean) FAIL(err, CB_E_MEMORY, "components: out of memory");
        for (int64_t k = 0; k < n; k++) mean[k] = in->moments[k] / (double)in->seen;
        enum cb_status status = module_take_moments(t->module, i, t->instance.store, mean, err);
        free(mean);
        TRY(status);
    }
    return CB_OK;
}

/* Rounds of the same batches until every input has had its own. */
static enum cb_status moments_run(struct capture *c, struct training *t, const struct cb_type *ids, train_batch_fn *next, void *user,
                                  struct cb_err *err) {
    enum cb_status status = CB_OK;
    do {
        struct pass pass = {0};
        c->first = c->end;
        c->n = 0;
        c->bytes = 0;
        status = capture_plan(c, &pass, t, ids->dim[0], ids->dim[1], err);
        if (status == CB_OK) status = moments_add(c, &pass, t, ids->dim[0], next, user, err);
        if (status == CB_OK) status = moments_give(c, t, err);
        pass_end(&pass);
        for (int i = c->first; i < c->end; i++) free(c->input[i].moments);
    } while (status == CB_OK && c->end < c->n);
    return status;
}

static enum cb_status components_find(struct capture *c, struct training *t, const struct cb_type *ids, train_batch_fn *next, void *user,
                                      struct cb_err *err) {
    struct pass pass = {0};
    enum cb_status status = capture_plan(c, &pass, t, ids->dim[0], ids->dim[1], err);
    if (status == CB_OK) status = batches_run(c, &pass, t, next, user, err);
    if (status == CB_OK) status = components_give(c, t, err);
    pass_end(&pass);
    for (int i = 0; i < c->n; i++) free(c->input[i].mean), free(c->input[i].s), free(c->input[i].v);
    return status;
}

enum cb_status components_run(struct training *t, train_batch_fn *next, void *user, bool is_resumed, struct cb_err *err) {
    bool has_components = false, has_moments = false;
    for (int i = 0; t->module && i < module_n_sites(t->module); i++) {
        has_components |= !is_resumed && module_components(t->module, i) > 0;
        has_moments |= module_wants_moments(t->module, i);
    }
    if (!has_components && !has_moments) return CB_OK;
    if (t->n_modules > 1) FAIL(err, CB_E_UNSUPPORTED, "components: inputs of one module are taken; here are %d", t->n_modules);
    const int slot = plan_find(t->pass.plan, "input_ids");
    if (t->instance.model->family->encoder_decoder || slot < 0)
        FAIL(err, CB_E_UNSUPPORTED, "components: inputs of an encoder-decoder's layers are not taken; wanted another init");
    const struct cb_type ids = plan_slot(t->pass.plan, slot)->type;
    struct capture *c = calloc(1, sizeof *c);
    if (!c) FAIL(err, CB_E_MEMORY, "components: out of memory");
    c->module = t->module;
    c->takes_moments = has_moments;
    for (int i = 0; i < MOST_INPUTS; i++) c->of_site[i] = -1;
    enum cb_status status = has_moments ? moments_run(c, t, &ids, next, user, err) : components_find(c, t, &ids, next, user, err);
    free(c);
    return status;
}
