/* Merging one site of LoRA modules: by concatenation (exact), on the changes themselves with a decomposition to a rank, or on each factor as PEFT
   does. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "merge/lora_private.h"
#include "merge/models.h"

/* What one site's merge is given: the modules that change it. */
struct lora_here {
    const struct lora_pair *pair[MERGE_MAX_MODELS];
    const char *name[MERGE_MAX_MODELS];
    double own[MERGE_MAX_MODELS][MERGE_MAX_OPTIONS], shared[MERGE_MAX_OPTIONS];
    double weight[MERGE_MAX_MODELS];
    int n;
    int64_t rank;  // as asked for; 0: not
    double clamp;
};

static enum cb_status out_of_memory(struct cb_err *err) { FAIL(err, CB_E_MEMORY, "merge: out of memory"); }

/* The modules at a site, and their options there. */
static enum cb_status gather(struct lora_merging *m, const char *site, struct lora_here *h, struct cb_err *err) {
    const struct merge_slice *slice = &m->recipe->slices[0];
    size_t begin, end;
    const int64_t layer = merge_layer_of(site, &begin, &end);
    const double t = layer < 0 ? 0 : m->n_layers < 2 ? 1 : (double)layer / (double)(m->n_layers - 1);
    *h = (struct lora_here){0};
    for (int k = 0; k < MERGE_MAX_OPTIONS && m->method.options[k].name; k++)
        if (!m->method.options[k].per_model)
            TRY(merge_recipe_value(m->recipe, slice, NULL, &m->method.options[k], site, t, &h->shared[k], err));
    for (int i = 0; i < m->n; i++) {
        const struct lora_pair *p = lora_find(&m->lora[i], site);
        if (!p) continue;
        if (h->n && (p->in != h->pair[0]->in || p->out != h->pair[0]->out || p->embedding != h->pair[0]->embedding))
            FAIL(err, CB_E_SHAPE, "%s: %s: found %lld by %lld; wanted %lld by %lld as of the first module there", m->lora[i].path, site,
                 (long long)p->out, (long long)p->in, (long long)h->pair[0]->out, (long long)h->pair[0]->in);
        for (int k = 0; k < MERGE_MAX_OPTIONS && m->method.options[k].name; k++)
            if (m->method.options[k].per_model)
                TRY(merge_recipe_value(m->recipe, slice, &slice->sources[i], &m->method.options[k], site, t, &h->own[h->n][k], err));
        const int weight = merge_option_index(&m->method, "weight");
        h->weight[h->n] = weight < 0 ? 1 : h->own[h->n][weight];
        h->name[h->n] = m->lora[i].name;
        h->pair[h->n++] = p;
    }
    const int rank = merge_option_index(&m->method, "rank"), clamp = merge_option_index(&m->method, "clamp");
    h->rank = rank < 0 ? 0 : (int64_t)h->shared[rank];
    h->clamp = clamp < 0 ? 0 : h->shared[clamp];
    return CB_OK;
}

static struct lora_out *site_out(struct lora_merging *m, const struct lora_here *h, const char *site, int64_t rank) {
    struct lora_out *o = &m->out[m->n_out];
    *o = (struct lora_out){.site = site, .rank = rank, .in = h->pair[0]->in, .out = h->pair[0]->out, .embedding = h->pair[0]->embedding};
    o->a = arena_array(m->arena, (size_t)(rank * o->in), sizeof *o->a);
    o->b = arena_array(m->arena, (size_t)(rank * o->out), sizeof *o->b);
    if (!o->a || !o->b) return NULL;
    m->n_out++;
    return o;
}

/* ---- concatenation: sum w s B A = [B1 B2 ...] [w1 s1 A1; w2 s2 A2; ...] */

static enum cb_status join(struct lora_merging *m, const struct lora_here *h, const char *site, int64_t room, struct cb_err *err) {
    int64_t rank = 0, at = 0;
    for (int k = 0; k < h->n; k++) rank += h->pair[k]->rank;
    struct lora_out *o = site_out(m, h, site, rank > room ? rank : room);
    float *b = malloc((size_t)(h->pair[0]->out * rank) * sizeof *b + 1);
    if (!o || !b) {
        free(b);
        return out_of_memory(err);
    }
    for (int k = 0; k < h->n; k++) {
        const struct lora_pair *p = h->pair[k];
        const float factor = (float)(h->weight[k] * p->scale);
        float *a = o->a + at * o->in;
        tensor_read_f32(a, p->a);
        for (int64_t i = 0; i < p->rank * p->in; i++) a[i] *= factor;
        tensor_read_f32(b, p->b);
        for (int64_t i = 0; i < p->out; i++) memcpy(o->b + i * o->rank + at, b + i * p->rank, (size_t)p->rank * sizeof *b);
        at += p->rank;
    }
    free(b);
    return CB_OK;
}

/* ---- decomposition */

/* q-quantile of all values, straight lines between neighbours; both factors are cut off at +- that. */
static enum cb_status cut_off(struct lora_out *o, double q, struct cb_err *err) {
    const int64_t na = o->rank * o->in, nb = o->rank * o->out, n = na + nb;
    float *all = malloc((size_t)n * sizeof *all + 1);
    if (!all) return out_of_memory(err);
    memcpy(all, o->b, (size_t)nb * sizeof *all);
    memcpy(all + nb, o->a, (size_t)na * sizeof *all);
    // insertion by halves is enough: factors are small
    for (int64_t gap = n / 2; gap > 0; gap /= 2)
        for (int64_t i = gap; i < n; i++)
            for (int64_t j = i - gap; j >= 0 && all[j] > all[j + gap]; j -= gap) {
                const float swap = all[j];
                all[j] = all[j + gap];
                all[j + gap] = swap;
            }
    const double at = q * (double)(n - 1);
    const int64_t low = (int64_t)at, high = low + 1 < n ? low + 1 : low;
    const float most = (float)((double)all[low] + (at - (double)low) * ((double)all[high] - (double)all[low]));
    free(all);
    for (int64_t i = 0; i < na; i++) o->a[i] = fminf(fmaxf(o->a[i], -most), most);
    for (int64_t i = 0; i < nb; i++) o->b[i] = fminf(fmaxf(o->b[i], -most), most);
    return CB_OK;
}

/* B = U diag(S), A = V' of the first `rank` singular values; u has `stride` columns. */
static enum cb_status split(struct lora_out *o, const double *u, const double *s, const double *vt, int64_t stride, double clamp,
                            struct cb_err *err) {
    for (int64_t i = 0; i < o->out; i++)
        for (int64_t j = 0; j < o->rank; j++) o->b[i * o->rank + j] = (float)(u[i * stride + j] * s[j]);
    for (int64_t i = 0; i < o->rank * o->in; i++) o->a[i] = (float)vt[i];
    return clamp > 0 ? cut_off(o, clamp, err) : CB_OK;
}

/* Largest difference of B A from the change that was wanted. */
static double gap_of(const struct lora_out *o, const float *wanted) {
    double worst = 0;
    for (int64_t i = 0; i < o->out; i++)
        for (int64_t j = 0; j < o->in; j++) {
            double sum = 0;
            for (int64_t k = 0; k < o->rank; k++) sum += (double)o->b[i * o->rank + k] * (double)o->a[k * o->in + j];
            worst = fmax(worst, fabs(sum - (double)wanted[i * o->in + j]));
        }
    return worst;
}

/* Of a decomposition: as asked for, else the largest of the modules at any site, patterns too, as in PEFT. */
static int64_t rank_of(const struct lora_merging *m, const struct lora_here *h) {
    int64_t rank = h->rank, most = h->pair[0]->in < h->pair[0]->out ? h->pair[0]->in : h->pair[0]->out;
    for (int i = 0; i < m->n && !h->rank; i++)
        if (m->lora[i].most > rank) rank = m->lora[i].most;
    return rank < most ? rank : most;
}

/* A change (out,in) as factors. */
static enum cb_status decompose(struct lora_merging *m, const struct lora_here *h, const char *site, const float *change,
                                struct cb_err *err) {
    const int64_t out = h->pair[0]->out, in = h->pair[0]->in, k = out < in ? out : in;
    double *a = malloc((size_t)(out * in + out * k + k + k * in) * sizeof *a), *u = a + out * in, *s = u + out * k, *vt = s + k;
    struct lora_out *o = a ? site_out(m, h, site, rank_of(m, h)) : NULL;
    if (!o) {
        free(a);
        return out_of_memory(err);
    }
    for (int64_t i = 0; i < out * in; i++) a[i] = (double)change[i];
    enum cb_status status = lapack_svd(a, out, in, u, s, vt, site, err);
    if (status == CB_OK) status = split(o, u, s, vt, k, h->clamp, err);
    if (status == CB_OK) m->report->max_error = fmax(m->report->max_error, gap_of(o, change));
    free(a);
    return status;
}

/* A sum of products is decomposed without forming it, where its rank is small. */
static enum cb_status decompose_sum(struct lora_merging *m, const struct lora_here *h, const char *site, struct cb_err *err) {
    TRY(join(m, h, site, 0, err));
    struct lora_out joined = m->out[--m->n_out];
    const int64_t out = joined.out, in = joined.in, r = joined.rank, rank = rank_of(m, h);
    double *b = malloc((size_t)(2 * (out + in) * r + r) * sizeof *b), *a = b + out * r, *u = a + r * in, *vt = u + out * r,
           *s = vt + r * in;
    struct lora_out *o = b ? site_out(m, h, site, rank < r ? rank : r) : NULL;
    if (!o) {
        free(b);
        return out_of_memory(err);
    }
    for (int64_t i = 0; i < out * r; i++) b[i] = (double)joined.b[i];
    for (int64_t i = 0; i < r * in; i++) a[i] = (double)joined.a[i];
    enum cb_status status = lapack_svd_product(b, a, out, r, in, u, s, vt, site, err);
    if (status == CB_OK) status = split(o, u, s, vt, r, h->clamp, err);
    // no weight is further off than the first singular value that was dropped
    if (status == CB_OK && o->rank < r) m->report->max_error = fmax(m->report->max_error, s[o->rank]);
    free(b);
    return status;
}

/* ---- methods on changes and on factors */

/* Runs the method over inputs of one shape into out. */
static enum cb_status run_method(const struct lora_merging *m, const struct lora_here *h, const char *name,
                                 const struct merge_input *inputs, const struct cb_type *type, float *out, struct cb_err *err) {
    struct merge_job job = {.method = &m->method,
                            .name = name,
                            .type = *type,
                            .n_models = h->n,
                            .model = inputs,
                            .shared = h->shared,
                            .own = (const double(*)[MERGE_MAX_OPTIONS])h->own,
                            .seed = m->run->seed,
                            .masks = m->run->masks,
                            .pool = m->run->pool};
    enum cb_status status = merge_begin(&job, err);
    if (status == CB_OK) status = merge_read(&job, 0, type_elements(type), out, err);
    merge_end(&job);
    return status;
}

/* W' - W of DoRA: W' = magnitude (W + s B A) / its row norms. */
static enum cb_status dora_change(const struct lora_merging *m, const struct lora_pair *p, float *change, struct cb_err *err) {
    char name[1024];
    const struct tensor *w;
    if (!m->run->base) FAIL(err, CB_E_USAGE, "%s: DoRA: what it changes depends on the base's weights; wanted base_model", p->site);
    snprintf(name, sizeof name, "%s.weight", p->site);
    TRY(tensors_need(&w, m->run->base, name, err));
    const bool turned = m->lora[0].fan_in_fan_out;
    if (w->type.rank != 2 || w->type.dim[turned] != p->out || w->type.dim[!turned] != p->in)
        FAIL(err, CB_E_SHAPE, "%s: the base's weight is of another shape than the module's", name);
    const int64_t n = p->out * p->in;
    float *base = malloc((size_t)(n + p->out) * sizeof *base), *magnitude = base + n;
    if (!base) return out_of_memory(err);
    tensor_read_f32(base, w);
    tensor_read_f32(magnitude, p->magnitude);
    for (int64_t i = 0; i < p->out; i++) {
        double norm = 0;
        for (int64_t j = 0; j < p->in; j++) {
            const double old = (double)base[turned ? j * p->out + i : i * p->in + j], x = old + (double)change[i * p->in + j];
            norm += x * x;
        }
        const double factor = norm > 0 ? (double)magnitude[i] / sqrt(norm) : 0;
        for (int64_t j = 0; j < p->in; j++) {
            const double old = (double)base[turned ? j * p->out + i : i * p->in + j];
            change[i * p->in + j] = (float)(factor * (old + (double)change[i * p->in + j]) - old);
        }
    }
    free(base);
    return CB_OK;
}

struct product {
    const float *a, *b;
    float *out;
    int64_t rank, in;
    double scale;
};

static void product_row(void *context, int64_t i, int thread) {
    const struct product *p = context;
    (void)thread;
    for (int64_t j = 0; j < p->in; j++) {
        double sum = 0;
        for (int64_t k = 0; k < p->rank; k++) sum += (double)p->b[i * p->rank + k] * (double)p->a[k * p->in + j];
        p->out[i * p->in + j] = (float)(p->scale * sum);
    }
}

/* A module's change (out,in): scale B A, or what DoRA makes of it. */
static enum cb_status change_of(const struct lora_merging *m, const struct lora_pair *p, float *change, struct cb_err *err) {
    float *a = malloc((size_t)(p->rank * (p->in + p->out)) * sizeof *a), *b = a + p->rank * p->in;
    if (!a) return out_of_memory(err);
    tensor_read_f32(a, p->a);
    tensor_read_f32(b, p->b);
    pool_run(m->run->pool, p->out, product_row, &(struct product){a, b, change, p->rank, p->in, p->scale});
    free(a);
    return p->magnitude && m->convention != LORA_PEFT ? dora_change(m, p, change, err) : CB_OK;
}

static enum cb_status merge_changes(struct lora_merging *m, const struct lora_here *h, const char *site, struct cb_err *err) {
    const int64_t out = h->pair[0]->out, in = h->pair[0]->in, n = out * in;
    const struct cb_type type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){out, in});
    struct merge_input inputs[MERGE_MAX_MODELS];
    float *all = malloc((size_t)(n * (h->n + 1)) * sizeof *all);
    if (!all) return out_of_memory(err);
    enum cb_status status = CB_OK;
    for (int k = 0; k < h->n && status == CB_OK; k++) {
        inputs[k] = (struct merge_input){.model = h->name[k], .data = all + n * (k + 1), .dtype = CB_DTYPE_F32};
        status = change_of(m, h->pair[k], all + n * (k + 1), err);
    }
    if (status == CB_OK) status = run_method(m, h, site, inputs, &type, all, err);
    if (status == CB_OK) status = decompose(m, h, site, all, err);
    free(all);
    return status;
}

/* PEFT: each factor by itself, with weights sqrt|w s|; the sign goes with A. */
static enum cb_status merge_factors(struct lora_merging *m, struct lora_here *h, const char *site, struct cb_err *err) {
    const int weight = merge_option_index(&m->method, "weight");
    struct lora_out *o = site_out(m, h, site, h->pair[0]->rank);
    if (!o) return out_of_memory(err);
    for (int part = 0; part < 2; part++) {
        struct merge_input inputs[MERGE_MAX_MODELS];
        char name[1024];
        snprintf(name, sizeof name, "%s.%c", site, part ? 'B' : 'A');
        for (int k = 0; k < h->n; k++) {
            const struct lora_pair *p = h->pair[k];
            const struct tensor *t = part ? p->b : p->a;
            const double w = h->weight[k] * p->scale;
            inputs[k] = (struct merge_input){.model = h->name[k], .data = tensor_data(t), .dtype = t->type.dtype, .map = t->map};
            h->own[k][weight] = sqrt(fabs(w)) * (w < 0 && !part ? -1 : 1);
            if (p->rank != o->rank)
                FAIL(err, CB_E_SHAPE, "%s: %s: rank %lld; wanted %lld as of the others (or convention: exact)", h->name[k], site,
                     (long long)p->rank, (long long)o->rank);
        }
        TRY(run_method(m, h, name, inputs, part ? &h->pair[0]->b->type : &h->pair[0]->a->type, part ? o->b : o->a, err));
    }
    return CB_OK;
}

/* ---- one site */

/* Biases of B: exact: the weighted sum; PEFT leaves zeros. */
static enum cb_status merge_bias(struct lora_merging *m, const struct lora_here *h, struct lora_out *o, struct cb_err *err) {
    bool any = false;
    for (int k = 0; k < h->n; k++) any |= h->pair[k]->bias != NULL;
    if (!any) return CB_OK;
    float *b = arena_array(m->arena, (size_t)o->out, sizeof *b);
    if (!b || !(o->bias = arena_array(m->arena, (size_t)o->out, sizeof *b))) return out_of_memory(err);
    for (int k = 0; k < h->n && m->convention != LORA_PEFT; k++) {
        if (!h->pair[k]->bias) continue;
        tensor_read_f32(b, h->pair[k]->bias);
        for (int64_t i = 0; i < o->out; i++) o->bias[i] += (float)(h->weight[k] * h->pair[k]->scale) * b[i];
    }
    return CB_OK;
}

/* PEFT makes the magnitudes anew: row norms of the plain base. */
static enum cb_status peft_magnitude(struct lora_merging *m, const struct lora_here *h, struct lora_out *o, struct cb_err *err) {
    float *zero = calloc((size_t)(o->out * o->in), sizeof *zero);
    char name[1024];
    const struct tensor *w = NULL;
    snprintf(name, sizeof name, "%s.weight", o->site);
    o->magnitude = arena_array(m->arena, (size_t)o->out, sizeof *o->magnitude);
    enum cb_status status = zero && o->magnitude ? CB_OK : out_of_memory(err);
    if (status == CB_OK && !m->run->base)
        status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "%s: DoRA: its magnitudes are norms of the base's weights; wanted base_model",
                         o->site);
    if (status == CB_OK) status = tensors_need(&w, m->run->base, name, err);
    if (status == CB_OK && type_elements(&w->type) != o->out * o->in)
        status = err_set(err, CB_E_SHAPE, __FILE__, __LINE__, "%s: the base's weight is of another shape than the module's", name);
    if (status == CB_OK) {
        tensor_read_f32(zero, w);
        for (int64_t i = 0; i < o->out; i++) {
            double norm = 0;
            for (int64_t j = 0; j < o->in; j++) {
                const double x = (double)zero[m->lora[0].fan_in_fan_out ? j * o->out + i : i * o->in + j];
                norm += x * x;
            }
            o->magnitude[i] = (float)sqrt(norm);
        }
    }
    (void)h;
    free(zero);
    return status;
}

static enum cb_status check_finite(const struct lora_out *o, struct cb_err *err) {
    bool finite = true;
    for (int64_t i = 0; i < o->rank * o->in; i++) finite &= isfinite(o->a[i]) != 0;
    for (int64_t i = 0; i < o->rank * o->out; i++) finite &= isfinite(o->b[i]) != 0;
    if (!finite) FAIL(err, CB_E_NUMERIC, "%s: a factor is not finite; wanted modules of finite values", o->site);
    return CB_OK;
}

enum cb_status lora_merge_site(struct lora_merging *m, const char *site, struct cb_err *err) {
    struct lora_here h;
    TRY(gather(m, site, &h, err));
    int64_t rank = 0, padded = 0;
    bool dora = false;
    for (int k = 0; k < h.n; k++) {
        rank += h.pair[k]->rank;
        dora |= h.pair[k]->magnitude != NULL;
    }
    for (int i = 0; i < m->n && m->convention == LORA_PEFT; i++) padded += m->lora[i].most;
    const int64_t side = h.pair[0]->in < h.pair[0]->out ? h.pair[0]->in : h.pair[0]->out;
    const bool is_sum = m->method.kind == lora_method_at(0)->kind && !(dora && m->convention != LORA_PEFT);
    if (m->mode == LORA_FACTORS)
        TRY(merge_factors(m, &h, site, err));
    else if (is_sum && m->mode == LORA_JOIN && (!h.rank || rank <= h.rank))
        TRY(join(m, &h, site, padded, err));
    else if (is_sum && rank <= side && m->convention != LORA_PEFT)  // PEFT keeps the rank it was asked for, zeros included
        TRY(decompose_sum(m, &h, site, err));
    else
        TRY(merge_changes(m, &h, site, err));
    struct lora_out *o = &m->out[m->n_out - 1];
    TRY(check_finite(o, err));
    if (dora && m->convention == LORA_PEFT) TRY(peft_magnitude(m, &h, o, err));
    if (o->rank > m->report->rank) m->report->rank = o->rank;
    m->report->parameters += o->rank * (o->in + o->out);
    return merge_bias(m, &h, o, err);
}
