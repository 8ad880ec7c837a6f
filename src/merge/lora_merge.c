/* Merging LoRA modules: the method by its name, the modules, the configuration of the result. */
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "merge/lora_private.h"
#include "merge/models.h"

static enum cb_status out_of_memory(struct cb_err *err) { FAIL(err, CB_E_MEMORY, "merge: out of memory"); }

/* ---- which method */

static enum cb_status find_convention(struct lora_merging *m, struct cb_err *err) {
    static const char *const names[] = {"exact", "peft", "mergekit"};
    const json_t *value = json_object_get(m->recipe->parameters, "convention");
    char text[JSON_TEXT];
    if (!value) return CB_OK;
    for (int i = 0; i < 3; i++)
        if (json_is_string(value) && !strcmp(json_string_value(value), names[i])) {
            m->convention = (enum lora_convention)i;
            return CB_OK;
        }
    FAIL(err, CB_E_USAGE, "%s: parameters: convention: found %s; wanted exact, peft or mergekit", m->recipe->name, json_text(value, text));
}

/* A name of PEFT's: NAME on the factors, NAME_svd on the changes; cat and svd are sums. */
static bool peft_method(struct lora_merging *m, const char *name) {
    const size_t n = strlen(name);
    const bool svd = !strcmp(name, "svd") || (n > 4 && !strcmp(name + n - 4, "_svd"));
    char stem[64];
    snprintf(stem, sizeof stem, "%.*s", (int)(svd && n > 4 ? n - 4 : n), name);
    if (!strcmp(stem, "cat") || !strcmp(stem, "svd")) snprintf(stem, sizeof stem, "linear");
    for (int i = 0; lora_method_at(i); i++) {
        if (strcmp(lora_method_at(i)->name, stem)) continue;
        const bool is_sum = !strcmp(stem, "linear");
        m->method = *lora_method_at(i);
        m->mode = !strcmp(name, "cat")         ? LORA_JOIN
                  : svd                        ? LORA_CHANGES
                  : m->convention == LORA_PEFT ? LORA_FACTORS
                  : is_sum                     ? LORA_JOIN
                                               : LORA_CHANGES;
        return true;
    }
    return false;
}

/* A method of the models' registry, with the options that a decomposition has. */
static enum cb_status model_method(struct lora_merging *m, const char *name, struct cb_err *err) {
    const struct merge_method *found = merge_method_find(name);
    int n = 0;
    if (!found) FAIL(err, CB_E_NAME, "%s: merge_method '%.60s': unknown; `cambium list merges` shows them", m->recipe->name, name);
    if (found->reads_base || found->statistic || found->base == MERGE_BASE_FIRST)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: works on whole models; wanted a method for modules", m->recipe->name, name);
    m->method = *found;
    m->mode = LORA_CHANGES;
    while (n < MERGE_MAX_OPTIONS && m->method.options[n].name) n++;
    const struct merge_method *like = lora_method_at(0);
    for (const char *const *more = (const char *const[]){"rank", "clamp", NULL}; *more && n < MERGE_MAX_OPTIONS; more++)
        m->method.options[n++] = like->options[merge_option_index(like, *more)];
    return CB_OK;
}

static bool option_known(const char *name) {
    for (int i = 0; lora_method_at(i); i++)
        if (merge_option_index(lora_method_at(i), name) >= 0) return true;
    return !strcmp(name, "convention") || merge_option_known(name);
}

static enum cb_status find_method(struct lora_merging *m, struct cb_err *err) {
    const struct merge_recipe *r = m->recipe;
    TRY(find_convention(m, err));
    if (r->is_sliced) FAIL(err, CB_E_UNSUPPORTED, "%s: slices of modules; wanted models", r->name);
    if (m->convention == LORA_MERGEKIT || !peft_method(m, r->method)) TRY(model_method(m, r->method, err));
    // the convention is read here, so it is no stranger
    json_t *rest = r->parameters ? json_copy((json_t *)r->parameters) : NULL;
    struct merge_recipe checked = *r;
    if (rest) json_object_del(rest, "convention");
    checked.parameters = rest;
    enum cb_status status = merge_recipe_check(&checked, m->method.options, option_known, m->run->warn, m->run->user, err);
    json_decref(rest);
    return status;
}

/* ---- the modules */

/* A module whose change is scale B A, or can be made so: of a base that its start has changed, sums of B A mean something else. */
static enum cb_status settle_start(struct lora_merging *m, struct lora *l, struct cb_err *err) {
    const char *word = json_string_value(json_object_get(l->config, "init_lora_weights")), *path = l->path, *name = l->name, *plain;
    if (l->start == LORA_UNKNOWN_START)
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: init_lora_weights: found %.60s: what it did to the base is not known; wanted the module as plain LoRA", path,
             word ? word : "no word");
    if (l->start == LORA_TOOK_PART) {
        if (!m->run->make_plain)
            FAIL(err, CB_E_UNSUPPORTED,
                 "%s: init_lora_weights: found %s: its start took a part of the base's weights; wanted --base MODEL, or the module as "
                 "plain LoRA "
                 "(cambium convert MODULE DIR --model MODEL)",
                 path, word);
        TRY(m->run->make_plain(m->run->context, path, &plain, err));
        lora_close(l);
        TRY(lora_open(l, plain, m->arena, err));
        l->path = path;
        l->name = name;
    }
    return CB_OK;
}

/* What LoftQ left of the base is the same for all modules that quantise it alike in one step: later steps depend on A and B. */
static enum cb_status check_quantised(const struct lora_merging *m, struct cb_err *err) {
    const struct lora *first = &m->lora[0];
    const json_t *want = json_object_get(first->config, "loftq_config");
    for (int i = 0; i < m->n; i++) {
        const struct lora *l = &m->lora[i];
        const json_t *have = json_object_get(l->config, "loftq_config"), *steps = json_object_get(have, "loftq_iter");
        if (l->start != LORA_QUANTISED_BASE && first->start != LORA_QUANTISED_BASE) continue;
        if (l->start == first->start && (have == want || (have && want && json_equal((json_t *)have, (json_t *)want))) &&
            (!steps || json_integer_value(steps) == 1))
            continue;
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: init_lora_weights loftq: A and B are a change of what quantising left of the base; wanted modules of one loftq_config "
             "with "
             "loftq_iter 1, as %s",
             l->path, first->path);
    }
    return CB_OK;
}

static enum cb_status open_all(struct lora_merging *m, struct cb_err *err) {
    const struct merge_slice *s = &m->recipe->slices[0];
    if (s->n_sources > MERGE_MAX_MODELS) FAIL(err, CB_E_LIMIT, "%s: more than %d modules", m->recipe->name, MERGE_MAX_MODELS);
    for (int i = 0; i < s->n_sources; i++) {
        const char *path = s->sources[i].model, *slash = strrchr(m->recipe->name, '/');
        char *beside =
            slash && *path != '/' ? arena_printf(m->arena, "%.*s/%s", (int)(slash - m->recipe->name), m->recipe->name, path) : NULL;
        if (!io_is_folder(path) && beside && io_is_folder(beside)) path = beside;
        TRY(lora_open(&m->lora[m->n++], path, m->arena, err));
        TRY(settle_start(m, &m->lora[i], err));
        const struct lora *l = &m->lora[i], *first = &m->lora[0];
        if (l->fan_in_fan_out != first->fan_in_fan_out)
            FAIL(err, CB_E_FORMAT, "%s: fan_in_fan_out is not that of %s; wanted modules of one base", l->path, first->path);
        const char *base = json_string_value(json_object_get(l->config, "base_model_name_or_path"));
        const char *want = json_string_value(json_object_get(first->config, "base_model_name_or_path"));
        char line[400];
        if (base && want && strcmp(base, want) && m->run->warn) {
            snprintf(line, sizeof line, "%.100s: made on %.100s, %.80s on %.100s", l->path, base, first->path, want);
            m->run->warn(m->run->user, line);
        }
    }
    return check_quantised(m, err);
}

/* Copies of a model's own tensors: from one module, or the same in all that have them. */
static enum cb_status keep_whole(struct lora_merging *m, struct cb_err *err) {
    int total = 0;
    for (int i = 0; i < m->n; i++) total += m->lora[i].n_whole;
    if (!(m->whole = arena_array(m->arena, (size_t)total + 1, sizeof *m->whole))) return out_of_memory(err);
    for (int i = 0; i < m->n; i++)
        for (int k = 0; k < m->lora[i].n_whole; k++) {
            const struct tensor *t = m->lora[i].whole[k];
            int at = 0;
            while (at < m->n_whole && strcmp(m->whole[at].name, t->name)) at++;
            if (at == m->n_whole) {
                m->whole[m->n_whole++] = (struct tensor_item){.name = t->name, .type = t->type, .data = tensor_data(t)};
            } else if (!type_equal(&m->whole[at].type, &t->type) || memcmp(m->whole[at].data, tensor_data(t), (size_t)t->bytes)) {
                FAIL(err, CB_E_UNSUPPORTED, "%s: %s: trained whole, and otherwise by another module; wanted pairs of factors alone",
                     m->lora[i].path, t->name);
            }
        }
    return CB_OK;
}

/* ---- the configuration */

/* Targets: the union of lists; where the modules choose their sites otherwise, every site by its whole name. */
static enum cb_status merge_targets(const struct lora_merging *m, json_t *config, struct cb_err *err) {
    static const char *const choosers[] = {"layers_to_transform", "layers_pattern", "exclude_modules", NULL};
    bool by_list = true;
    for (int i = 0; i < m->n; i++) {
        by_list &= json_is_array(json_object_get(m->lora[i].config, "target_modules")) != 0;
        for (int k = 0; choosers[k]; k++) {
            const json_t *v = json_object_get(m->lora[i].config, choosers[k]);
            by_list &= !v || json_is_null(v) || (json_is_array(v) && !json_array_size(v));
        }
    }
    json_t *seen = json_object(), *list = json_array(), *item;
    const char *key;
    size_t i;
    bool ok = seen && list;
    for (int k = 0; k < m->n && by_list && ok; k++)
        json_array_foreach(json_object_get(m->lora[k].config, "target_modules"), i, item) if (json_is_string(item))
            json_object_set(seen, json_string_value(item), json_null());
    for (int k = 0; k < m->n_out && !by_list && ok; k++) json_object_set(seen, m->out[k].site, json_null());
    json_object_foreach(seen, key, item) ok = ok && !json_array_append_new(list, json_string(key));
    for (int k = 0; choosers[k] && !by_list; k++) ok = ok && !json_object_set_new(config, choosers[k], json_null());
    ok = ok && !json_object_set(config, "target_modules", list);
    json_decref(seen);
    json_decref(list);
    if (!ok) return out_of_memory(err);
    return CB_OK;
}

static enum cb_status write_result(struct lora_merging *m, const char *folder, struct cb_err *err) {
    json_t *config = json_deep_copy(m->lora[0].config);
    bool has_bias = false, ok = config != NULL;
    for (int i = 0; i < m->n_out; i++) has_bias |= m->out[i].bias != NULL;
    enum cb_status status = ok ? merge_targets(m, config, err) : out_of_memory(err);
    if (status == CB_OK && m->convention != LORA_PEFT)
        ok = !json_object_set_new(config, "use_rslora", json_false()) && !json_object_set_new(config, "use_dora", json_false());
    // the result is no start of its own; a base that was quantised stays so
    if (status == CB_OK && m->lora[0].start != LORA_QUANTISED_BASE && json_is_string(json_object_get(config, "init_lora_weights")))
        ok = ok && !json_object_set_new(config, "init_lora_weights", json_true());
    if (status == CB_OK && has_bias) ok = ok && !json_object_set_new(config, "lora_bias", json_true());
    if (status == CB_OK && !ok) status = out_of_memory(err);
    if (status == CB_OK) status = lora_write(folder, m->out, m->n_out, m->whole, m->n_whole, config, true, err);
    json_decref(config);
    return status;
}

/* ---- all of it */

static enum cb_status check_ranks(const struct lora_merging *m, struct cb_err *err) {
    for (int i = 1; i < m->n && m->mode == LORA_FACTORS; i++)
        if (m->lora[i].most != m->lora[0].most)
            FAIL(err, CB_E_SHAPE, "%s: its rank is %lld, %s has %lld; PEFT's %s wants one rank (convention: exact takes any)",
                 m->lora[i].path, (long long)m->lora[i].most, m->lora[0].path, (long long)m->lora[0].most, m->recipe->method);
    return CB_OK;
}

static enum cb_status merge_all(struct lora_merging *m, const char *folder, struct cb_err *err) {
    int total = 0;
    TRY(find_method(m, err));
    TRY(open_all(m, err));
    TRY(check_ranks(m, err));
    TRY(keep_whole(m, err));
    for (int i = 0; i < m->n; i++) {
        total += m->lora[i].n_pairs;
        for (int k = 0; k < m->lora[i].n_pairs; k++) {
            size_t begin, end;
            const int64_t layer = merge_layer_of(m->lora[i].pairs[k].site, &begin, &end);
            if (layer >= m->n_layers) m->n_layers = layer + 1;
        }
    }
    if (!(m->out = arena_array(m->arena, (size_t)total + 1, sizeof *m->out))) return out_of_memory(err);
    // each site once, where the first module that has it stands
    for (int i = 0; i < m->n; i++)
        for (int k = 0; k < m->lora[i].n_pairs; k++) {
            const char *site = m->lora[i].pairs[k].site;
            bool earlier = false;
            for (int j = 0; j < i && !earlier; j++) earlier = lora_find(&m->lora[j], site) != NULL;
            if (!earlier) TRY(lora_merge_site(m, site, err));
        }
    m->report->sites = m->n_out;
    return write_result(m, folder, err);
}

enum cb_status lora_merge(const struct merge_recipe *recipe, const struct lora_run *run, const char *folder, struct lora_report *report,
                          struct cb_err *err) {
    struct lora_merging *m = calloc(1, sizeof *m);
    *report = (struct lora_report){0};
    if (m) *m = (struct lora_merging){.recipe = recipe, .run = run, .report = report, .arena = arena_create()};
    enum cb_status status = m && m->arena ? merge_all(m, folder, err) : out_of_memory(err);
    for (int i = 0; m && i < m->n; i++) lora_close(&m->lora[i]);
    if (m) arena_destroy(&m->arena);
    free(m);
    return status;
}
