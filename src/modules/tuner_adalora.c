/* AdaLoRA (Zhang et al. 2023): the change is B diag(E) A, alpha / (init_r + 1e-5) times; while training goes on, the least important of all triplets
   (a column of B, an entry of E, a row of A) are set to 0 until target_r a module are left. A penalty keeps the rows of A and the columns of B orthonormal.
   A file holds the triplets that are left; its rank_pattern says which of init_r they were. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules/tuner.h"
#include "ops/ops.h"

struct adalora_options {
    int64_t target_r, init_r, tinit, tfinal, delta_t, total;  // total: 0 where it is not known yet
    double alpha, dropout, beta1, beta2, orthogonal;
    const json_t *pattern;  // lists of truth values by "<module>.lora_E"; NULL: nothing was pruned
};

static enum cb_status pattern_parse(struct module *m, struct adalora_options *o, const char *where, struct cb_err *err) {
    TRY(json_get_object(&o->pattern, m->config, where, "rank_pattern", false, err));
    const char *key;
    json_t *list;
    if (!o->pattern || !json_object_size(o->pattern)) {
        o->pattern = NULL;
        return CB_OK;
    }
    json_object_foreach((json_t *)o->pattern, key, list) {
        bool ok = json_is_array(list) && json_array_size(list) == (size_t)o->init_r;
        for (size_t i = 0; ok && i < json_array_size(list); i++) ok = json_is_boolean(json_array_get(list, i));
        if (!ok)
            FAIL(err, CB_E_FORMAT, "%s: rank_pattern: %.60s: wanted a list of init_r, %lld, truth values", where, key,
                 (long long)o->init_r);
    }
    return CB_OK;
}

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct adalora_options *o = (struct adalora_options *)m->options;
    static const char *const flags[] = {"use_dora", "use_qalora", "use_bdlora", "lora_bias", "use_rslora"};
    const json_t *c = m->config;
    *o = (struct adalora_options){.target_r = 8, .init_r = 12, .delta_t = 1, .alpha = 8, .beta1 = 0.85, .beta2 = 0.85, .orthogonal = 0.5};
    TRY(json_get_int(&o->target_r, c, where, "target_r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->init_r, c, where, "init_r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->tinit, c, where, "tinit", 0, INT64_C(1) << 40, false, err));
    TRY(json_get_int(&o->tfinal, c, where, "tfinal", 0, INT64_C(1) << 40, false, err));
    TRY(json_get_int(&o->delta_t, c, where, "deltaT", 1, INT64_C(1) << 40, false, err));
    TRY(json_get_int(&o->total, c, where, "total_step", 1, INT64_C(1) << 40, false, err));
    TRY(json_get_float(&o->alpha, c, where, "lora_alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, c, where, "lora_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->beta1, c, where, "beta1", 1e-6, 0.999999, false, err));
    TRY(json_get_float(&o->beta2, c, where, "beta2", 1e-6, 0.999999, false, err));
    TRY(json_get_float(&o->orthogonal, c, where, "orth_reg_weight", 0, 1e6, false, err));
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on = false;
        TRY(json_get_bool(&on, c, where, flags[i], false, err));
        if (on) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found true; this tuner has it off only", where, flags[i]);
    }
    return pattern_parse(m, o, where, err);
}

static bool match(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD; }

/* The truth values of a site; NULL: all. */
static const json_t *pattern_of(const struct module *m, const struct tuner_site *site) {
    const struct adalora_options *o = m->options;
    char key[400];
    snprintf(key, sizeof key, "%.380s.lora_E", site->site.name);
    return o->pattern ? json_object_get(o->pattern, key) : NULL;
}

/* A (r,in) and B (out,r) with deviation 0.02, E (r,1) zeros. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct adalora_options *o = m->options;
    const json_t *kept = pattern_of(m, site);
    int64_t r = kept ? 0 : o->init_r;
    for (size_t i = 0; i < json_array_size(kept); i++) r += json_is_true(json_array_get(kept, i));
    const int64_t a[2] = {r, site->site.in}, b[2] = {site->site.out, r}, e[2] = {r, 1};
    site->rank = r;
    site->scale = (o->alpha > 0 ? o->alpha : (double)o->init_r) / ((double)o->init_r + 1e-5);
    TRY(tuner_add_param(m, site, "lora_A", 2, a, TUNER_NORMAL, 0.02, err));
    TRY(tuner_add_param(m, site, "lora_B", 2, b, TUNER_NORMAL, 0.02, err));
    return tuner_add_param(m, site, "lora_E", 2, e, TUNER_ZEROS, 0, err);
}

/* scale alpha / (init_r + 1e-5) E: (r) */
static struct cb_tensor *middle(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale) {
    struct cb_tensor *e = op_reshape(nn->g, tuner_leaf(m, site, 2, nn), 1, &site->rank);
    return op_mul(nn->g, op_scale(nn->g, e, site->scale, 0), scale);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct adalora_options *o = m->options;
    if (!site->rank) return y;
    struct cb_tensor *low = nn_product(nn, nn_dropout(nn, x, o->dropout), tuner_leaf(m, site, 0, nn), NULL);
    return nn_product(nn, op_mul(nn->g, low, middle(m, site, nn, scale)), tuner_leaf(m, site, 1, nn), y);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    if (!site->rank) return w;
    struct cb_tensor *b = op_mul(nn->g, tuner_leaf(m, site, 1, nn), middle(m, site, nn, scale));
    return op_add(nn->g, w, op_matmul(nn->g, b, tuner_leaf(m, site, 0, nn), false, false));
}

/* ---- training */
/* |P P^T - I| by its squares, P the rows of A or the columns of B. */
static struct cb_tensor *distance(struct cb_graph *g, struct cb_tensor *p, bool columns) {
    if (graph_is_bad(g, p)) return p;
    const int64_t r = p->type.dim[columns ? 1 : 0], square[2] = {r, r};
    struct cb_tensor *unit = op_tril(g, op_expand(g, graph_const_f32(g, 1), 2, square), 0, false);
    unit = op_tril(g, unit, 0, true);
    struct cb_tensor *d = op_sub(g, op_matmul(g, p, p, columns, !columns), unit);
    return op_norm_p(g, op_reshape(g, d, 1, (const int64_t[]){r * r}), 2, 0, NULL, false);
}

static struct cb_tensor *penalty(const struct module *m, struct nn *nn) {
    const struct adalora_options *o = m->options;
    struct cb_tensor *sum = NULL;
    int n = 0;
    for (int i = 0; i < m->n_sites; i++)
        for (int k = 0; k < 2; k++, n++) {
            if (!m->sites[i].rank) continue;
            struct cb_tensor *one = distance(nn->g, tuner_leaf(m, &m->sites[i], k, nn), k == 1);
            sum = sum ? op_add(nn->g, sum, one) : one;
        }
    return sum && o->orthogonal > 0 ? op_scale(nn->g, sum, o->orthogonal / n, 0) : NULL;
}

static struct store_entry *named(const struct store *store, const char *kind, const char *name) {
    char text[600];
    snprintf(text, sizeof text, "%s.%.560s", kind, name);
    return store_find(store, text);
}

/* Smoothed importances and their spread of every number, and which triplets are kept. */
static enum cb_status train_begin(struct module *m, struct store *states, int64_t steps, struct cb_err *err) {
    struct adalora_options *o = (struct adalora_options *)m->options;
    static const char *const kinds[] = {"importance", "spread", "kept"};
    if (!o->total) {
        o->total = steps;
        if (json_object_set_new(m->config, "total_step", json_integer(steps)) != 0) FAIL(err, CB_E_MEMORY, "%s: no memory", m->name);
    }
    if (o->tinit >= o->total - o->tfinal)
        FAIL(err, CB_E_USAGE, "%s: tinit %lld, tfinal %lld, total_step %lld: no step is left in which ranks are given away", m->name,
             (long long)o->tinit, (long long)o->tfinal, (long long)o->total);
    for (int i = 0; i < m->n_sites; i++)
        for (int k = 0; k < 3; k++) {
            const struct module_param *p = &m->params[m->sites[i].param[k]].public;
            for (int s = 0; s < (k == 2 ? 3 : 2); s++) {
                char name[600];
                struct store_entry *entry;
                snprintf(name, sizeof name, "%s.%.560s", kinds[s], p->name);
                TRY(store_add(states, name, p->type, &entry, err));
                for (int64_t j = 0; s == 2 && j < type_elements(&p->type); j++) ((float *)entry->data)[j] = 1;
            }
        }
    return CB_OK;
}

static int64_t train_bytes(const struct module *m) {
    int64_t n = 0;
    for (int i = 0; i < m->n_sites; i++)
        for (int k = 0; k < 3; k++) n += (k == 2 ? 3 : 2) * type_bytes(&m->params[m->sites[i].param[k]].public.type);
    return n;
}

/* The importance |p grad| of every number, smoothed, and how far it strays. */
static void importance_update(const struct module *m, const struct store *store, struct store *states) {
    const struct adalora_options *o = m->options;
    const float beta1 = (float)o->beta1, beta2 = (float)o->beta2;
    for (int i = 0; i < m->n_sites; i++)
        for (int k = 0; k < 3; k++) {
            const struct module_param *param = &m->params[m->sites[i].param[k]].public;
            const struct store_entry *value = store_find(store, param->name), *gradient = named(states, "grad", param->name);
            if (!gradient) continue;
            const float *p = value->data, *g = gradient->data;
            float *mean = named(states, "importance", param->name)->data, *spread = named(states, "spread", param->name)->data;
            for (int64_t j = 0; j < type_elements(&param->type); j++) {
                const float now = fabsf(p[j] * g[j]);
                mean[j] = beta1 * mean[j] + (1 - beta1) * now;
                spread[j] = beta2 * spread[j] + (1 - beta2) * fabsf(now - mean[j]);
            }
        }
}

/* Mean of importance times spread over one triplet's part of a parameter: n numbers from first, stride apart. */
static double part_score(const struct store *states, const struct module_param *p, int64_t first, int64_t stride, int64_t n) {
    const float *mean = named(states, "importance", p->name)->data, *spread = named(states, "spread", p->name)->data;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)mean[first + i * stride] * (double)spread[first + i * stride];
    return sum / (double)n;
}

static double triplet_score(const struct module *m, const struct tuner_site *site, const struct store *states, int64_t k) {
    const struct module_param *a = &m->params[site->param[0]].public, *b = &m->params[site->param[1]].public,
                              *e = &m->params[site->param[2]].public;
    return part_score(states, e, k, 1, 1) + part_score(states, a, k * site->site.in, 1, site->site.in) +
           part_score(states, b, k, site->rank, site->site.out);
}

static int compare_scores(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Keeps the triplets above the score of the least important ones, of which `gone` are more than there is room for. */
static enum cb_status allocate(const struct module *m, struct store *states, int64_t all, int64_t gone, struct cb_err *err) {
    if (gone < 1) return CB_OK;
    double *score = malloc((size_t)all * sizeof *score), *sorted = malloc((size_t)all * sizeof *sorted);
    int64_t n = 0;
    for (int i = 0; score && sorted && i < m->n_sites; i++)
        for (int64_t k = 0; k < m->sites[i].rank; k++, n++) score[n] = sorted[n] = triplet_score(m, &m->sites[i], states, k);
    if (score && sorted) qsort(sorted, (size_t)n, sizeof *sorted, compare_scores);
    const double least = score && sorted ? sorted[(gone < n ? gone : n) - 1] : 0;
    n = 0;
    for (int i = 0; score && sorted && i < m->n_sites; i++) {
        float *kept = named(states, "kept", m->params[m->sites[i].param[2]].public.name)->data;
        for (int64_t k = 0; k < m->sites[i].rank; k++, n++) kept[k] = score[n] > least;
    }
    const bool ok = score && sorted;
    free(score);
    free(sorted);
    if (!ok) FAIL(err, CB_E_MEMORY, "%s: no memory for %lld scores", m->name, (long long)all);
    return CB_OK;
}

/* What is not kept is 0. */
static void mask(const struct module *m, struct store *store, const struct store *states) {
    for (int i = 0; i < m->n_sites; i++) {
        const char *name = m->params[m->sites[i].param[2]].public.name;
        float *e = store_find(store, name)->data;
        const float *kept = named(states, "kept", name)->data;
        for (int64_t k = 0; k < m->sites[i].rank; k++)
            if (kept[k] == 0) e[k] = 0;
    }
}

/* After step number `step`: the budget falls from init_r to target_r a module between tinit and total_step - tfinal, as (1 - progress)^3. */
static enum cb_status train_step(const struct module *m, struct store *store, struct store *states, int64_t step, struct cb_err *err) {
    const struct adalora_options *o = m->options;
    const int64_t end = o->total - o->tfinal, target = o->target_r * m->n_sites;
    int64_t all = 0;
    for (int i = 0; i < m->n_sites; i++) all += m->sites[i].rank;
    if (step < end) importance_update(m, store, states);
    if (step > end) {
        mask(m, store, states);
        return CB_OK;
    }
    if (step != end && (step <= o->tinit || step % o->delta_t)) return CB_OK;
    const double left = 1 - (double)(step - o->tinit) / (double)(end - o->tinit);
    const int64_t budget = (int64_t)((double)(all - target) * left * left * left + (double)target);
    TRY(allocate(m, states, all, all - budget, err));
    mask(m, store, states);
    return CB_OK;
}

/* ---- the file: triplets whose E is 0 are left out, if others have grown */
static const float *values_of(const struct module *m, const struct tuner_site *site, int k, const struct store *store) {
    return store_find(store, m->params[site->param[k]].public.name)->data;
}

/* The site's list of init_r truth values, of which those pruned before stay false. */
static json_t *kept_list(const struct module *m, const struct tuner_site *site, const struct store *store) {
    const struct adalora_options *o = m->options;
    const json_t *before = pattern_of(m, site);
    const float *e = values_of(m, site, 2, store);
    json_t *list = json_array();
    int64_t k = 0;
    for (int64_t i = 0; list && i < o->init_r; i++) {
        bool kept = !before || json_is_true(json_array_get(before, (size_t)i));
        if (kept) kept = e[k++] != 0;
        if (json_array_append_new(list, json_boolean(kept)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* Rows (A, E) or columns (B) of the triplets that are left. */
static enum cb_status part_save(const struct module *m, const struct tuner_site *site, int k, const struct store *store,
                                struct store *tensors, struct cb_err *err) {
    const struct module_param *p = &m->params[site->param[k]].public;
    const float *from = values_of(m, site, k, store), *e = values_of(m, site, 2, store);
    const int64_t r = site->rank, n = type_elements(&p->type) / (r ? r : 1);
    struct cb_type type = p->type;
    struct store_entry *entry;
    int64_t left = 0, at = 0;
    for (int64_t i = 0; i < r; i++) left += e[i] != 0;
    type.dim[k == 1 ? 1 : 0] = left;
    TRY(store_add(tensors, p->key, type, &entry, err));
    for (int64_t i = 0; i < r; i++) {
        if (e[i] == 0) continue;
        for (int64_t j = 0; j < n; j++) ((float *)entry->data)[k == 1 ? j * left + at : at * n + j] = from[k == 1 ? j * r + i : i * n + j];
        at++;
    }
    return CB_OK;
}

static enum cb_status convert(const struct module *m, const struct store *store, json_t **config, struct store *tensors,
                              struct cb_err *err) {
    bool any = false, zero = false;
    *config = NULL;
    for (int i = 0; i < m->n_sites; i++) {
        const float *e = values_of(m, &m->sites[i], 2, store);
        for (int64_t k = 0; k < m->sites[i].rank; k++) *(e[k] != 0 ? &any : &zero) = true;
    }
    if (!any || !zero) return CB_OK;
    for (int i = 0; i < m->n_params; i++) {
        const struct tuner_param *p = &m->params[i];
        struct store_entry *entry;
        if (p->site >= 0 || !p->public.is_stored) continue;
        TRY(store_add(tensors, p->public.key, p->public.type, &entry, err));
        memcpy(entry->data, store_find(store, p->public.name)->data, (size_t)entry->bytes);
    }
    json_t *copy = json_deep_copy(m->config), *pattern = json_object();
    enum cb_status status = CB_OK;
    bool ok = copy && pattern;
    for (int i = 0; ok && status == CB_OK && i < m->n_sites; i++) {
        char key[400];
        snprintf(key, sizeof key, "%.380s.lora_E", m->sites[i].site.name);
        ok = json_object_set_new(pattern, key, kept_list(m, &m->sites[i], store)) == 0;
        for (int k = 0; ok && status == CB_OK && k < 3; k++) status = part_save(m, &m->sites[i], k, store, tensors, err);
    }
    ok = ok && json_object_set(copy, "rank_pattern", pattern) == 0;
    json_decref(pattern);
    if (!ok) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a configuration", m->name);
    if (!ok || status != CB_OK) {
        json_decref(copy);
        return ok ? status : CB_E_MEMORY;
    }
    *config = copy;
    return CB_OK;
}

static const struct tuner_option options[] = {
    {"r", "init_r", TUNER_INT, "rank at the start"},
    {"target", "target_r", TUNER_INT, "rank a module that is left in the end, in the mean"},
    {"alpha", "lora_alpha", TUNER_FLOAT, "the change is scaled by alpha / r"},
    {"tinit", "tinit", TUNER_INT, "steps before ranks are given away"},
    {"tfinal", "tfinal", TUNER_INT, "steps after that"},
    {"every", "deltaT", TUNER_INT, "steps from one giving away to the next"},
    {"total", "total_step", TUNER_INT, "all steps; without: those of the run"},
    {"orthogonal", "orth_reg_weight", TUNER_FLOAT, "weight of the penalty that keeps A and B orthonormal"},
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"},
    {"exclude", "exclude_modules", TUNER_STRS, "modules that are left alone"},
    {"layers", "layers_to_transform", TUNER_INTS, "numbers of layers joined by +"},
    {"dropout", "lora_dropout", TUNER_FLOAT, "of the input, in training"},
    {"bias", "bias", TUNER_STR, "biases that are trained too: none, adalora_only, all"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"adalora:r=3,target=2,alpha=4", NULL};

const struct tuner tuner_adalora = {
    .name = "adalora",
    .doc = "AdaLoRA: LoRA as B diag(E) A, whose ranks are shared out over the modules by importance while it trains.",
    .peft_type = "ADALORA",
    .options = options,
    .defaults =
        "{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,\"auto_mapping\":null,"
        "\"base_model_name_or_path\":null,\"beta1\":0.85,\"beta2\":0.85,\"bias\":\"none\",\"corda_config\":null,\"deltaT\":1,"
        "\"ensure_weight_tying\":false,\"eva_config\":null,\"exclude_modules\":null,\"fan_in_fan_out\":false,\"inference_mode\":true,"
        "\"init_lora_weights\":true,\"init_r\":12,\"kasa_config\":null,\"layer_replication\":null,\"layers_pattern\":null,"
        "\"layers_to_transform\":null,\"loftq_config\":{},\"lora_alpha\":8,\"lora_bias\":false,\"lora_dropout\":0.0,"
        "\"lora_ga_config\":null,\"megatron_config\":null,\"megatron_core\":\"megatron.core\",\"modules_to_save\":null,"
        "\"monteclora_config\":null,\"orth_reg_weight\":0.5,\"peft_type\":\"ADALORA\",\"peft_version\":\"0.21.2\","
        "\"qalora_group_size\":16,\"r\":8,\"rank_pattern\":null,\"revision\":null,\"target_modules\":\"all-linear\","
        "\"target_parameters\":null,\"target_r\":8,\"task_type\":null,\"tfinal\":0,\"tinit\":0,\"total_step\":null,"
        "\"trainable_token_indices\":null,\"use_bdlora\":null,\"use_dora\":false,\"use_qalora\":false,\"use_rslora\":false,"
        "\"velora_config\":null}",
    .options_bytes = sizeof(struct adalora_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change B diag(E) A, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare = declare,
    .delta = delta,
    .weight = weight,
    .penalty = penalty,
    .train_begin = train_begin,
    .train_bytes = train_bytes,
    .train_step = train_step,
    .convert = convert,
};
