/* Reading and writing LoRA folders in PEFT's layout, as pairs of factors by site. */
#include "merge/lora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "base/pattern.h"
#include "io/file.h"

#define CONFIG_LIMIT ((size_t)1 << 24)
#define PREFIX "base_model.model."

bool lora_is_folder(const char *path) {
    char *file = io_path_join(path, "adapter_config.json");
    const bool found = file && io_is_file(file);
    free(file);
    return found;
}

/* What a word of init_lora_weights does to the base, as PEFT has them; a trailing * stands for any ending. */
static enum lora_start start_of(const json_t *config) {
    static const struct {
        const char *word;
        enum lora_start start;
    } rows[] = {{"gaussian", LORA_KEPT_BASE},      {"orthogonal", LORA_KEPT_BASE}, {"eva", LORA_KEPT_BASE},   {"mica", LORA_KEPT_BASE},
                {"default", LORA_KEPT_BASE},       {"pissa", LORA_TOOK_PART},      {"olora", LORA_TOOK_PART}, {"corda", LORA_TOOK_PART},
                {"pissa_niter_*", LORA_TOOK_PART}, {"loftq", LORA_QUANTISED_BASE}};
    const json_t *value = json_object_get(config, "init_lora_weights");
    const char *word = json_string_value(value);
    if (!value || json_is_null(value) || json_is_boolean(value)) return LORA_KEPT_BASE;
    for (size_t i = 0; word && i < sizeof rows / sizeof *rows; i++) {
        const size_t n = strcspn(rows[i].word, "*");
        if (!strncmp(word, rows[i].word, n) && (rows[i].word[n] || !word[n])) return rows[i].start;
    }
    return LORA_UNKNOWN_START;
}

/* Options of PEFT under which A and B alone are not the change: on is refused by name. */
static enum cb_status refuse_options(const json_t *config, const char *path, struct cb_err *err) {
    static const char *const keys[] = {"layer_replication",  // modules of repeated layers
                                       "use_qalora",  // A reads means of groups of features
                                       "alora_invocation_tokens",  // only from these tokens on
                                       "target_parameters",  // factors of parameters, experts among them, of other shapes
                                       "trainable_token_indices",  // rows of embeddings in place of the base's
                                       "use_bdlora",
                                       "arrow_config",
                                       "kasa_config",
                                       "velora_config",
                                       "monteclora_config"};
    char text[JSON_TEXT];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        const bool is_empty = (json_is_array(value) && !json_array_size(value)) || (json_is_object(value) && !json_object_size(value));
        if (!value || json_is_null(value) || json_is_false(value) || is_empty) continue;
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %s: such modules cannot be merged; wanted null", path, keys[i], json_text(value, text));
    }
    return CB_OK;
}

static enum cb_status read_config(struct lora *l, struct arena *arena, struct cb_err *err) {
    char *text;
    size_t n;
    const char *path = arena_printf(arena, "%s/adapter_config.json", l->path);
    const char *place = arena_printf(arena, "%s/adapter_config.json: rank_pattern", l->path), *key, *kind = NULL, *bias = "none";
    const json_t *ranks = NULL;
    json_t *value;
    if (!path || !place) FAIL(err, CB_E_MEMORY, "%s: out of memory", l->path);
    TRY(io_read_file(&text, &n, path, CONFIG_LIMIT, err));
    enum cb_status status = json_parse_config(&l->config, text, n, path, err);
    free(text);
    TRY(status);
    TRY(json_get_str(&kind, l->config, path, "peft_type", true, err));
    if (strcmp(kind, "LORA")) FAIL(err, CB_E_UNSUPPORTED, "%s: peft_type: found %.60s; wanted LORA", path, kind);
    l->r = 8;
    l->alpha = 8;
    l->start = start_of(l->config);
    TRY(json_get_int(&l->r, l->config, path, "r", 1, 1 << 20, false, err));
    l->most = l->r;
    TRY(json_get_object(&ranks, l->config, path, "rank_pattern", false, err));
    json_object_foreach((json_t *)ranks, key, value) {
        int64_t rank;
        TRY(json_get_int(&rank, ranks, place, key, 1, 1 << 20, true, err));
        if (rank > l->most) l->most = rank;
    }
    TRY(json_get_float(&l->alpha, l->config, path, "lora_alpha", -1e12, 1e12, false, err));
    TRY(json_get_bool(&l->rslora, l->config, path, "use_rslora", false, err));
    TRY(json_get_bool(&l->dora, l->config, path, "use_dora", false, err));
    TRY(json_get_bool(&l->has_bias, l->config, path, "lora_bias", false, err));
    TRY(json_get_bool(&l->fan_in_fan_out, l->config, path, "fan_in_fan_out", false, err));
    TRY(json_get_str(&bias, l->config, path, "bias", false, err));
    return refuse_options(l->config, path, err);
}

/* alpha_pattern: the first key that is the end of the site's name. */
static enum cb_status alpha_of(const struct lora *l, const char *site, double *alpha, struct cb_err *err) {
    const json_t *patterns = json_object_get(l->config, "alpha_pattern");
    const char *key;
    json_t *value;
    *alpha = l->alpha;
    json_object_foreach((json_t *)patterns, key, value) {
        struct pattern *p;
        bool matches;
        char text[4200];
        if (snprintf(text, sizeof text, "(?:.*\\.)?(?:%s)", key) >= (int)sizeof text || !json_is_number(value))
            FAIL(err, CB_E_FORMAT, "%s: alpha_pattern: '%.60s': wanted a pattern and a number", l->path, key);
        TRY(pattern_create(&p, text, l->path, err));
        enum cb_status status = pattern_matches(p, site, &matches, err);
        pattern_destroy(&p);
        TRY(status);
        if (!matches) continue;
        *alpha = json_number_value(value);
        return CB_OK;
    }
    return CB_OK;
}

/* The pair that a key of the file begins ("...lora_A.weight"); found: whether it is one. */
static enum cb_status read_pair(struct lora *l, const struct tensor *a, struct arena *arena, bool *found, struct cb_err *err) {
    const bool linear = name_ends(a->name, ".lora_A.weight"), embedding = name_ends(a->name, ".lora_embedding_A");
    *found = (linear || embedding) && !strncmp(a->name, PREFIX, strlen(PREFIX));
    if (!*found) return CB_OK;
    const size_t stem = strlen(a->name) - strlen(linear ? ".lora_A.weight" : ".lora_embedding_A");
    struct lora_pair *p = &l->pairs[l->n_pairs++];
    *p = (struct lora_pair){.a = a, .embedding = embedding};
    p->site = arena_strndup(arena, a->name + strlen(PREFIX), stem - strlen(PREFIX));
    const char *b = arena_printf(arena, "%.*s.%s", (int)stem, a->name, linear ? "lora_B.weight" : "lora_embedding_B");
    const char *bias = arena_printf(arena, "%.*s.lora_B.bias", (int)stem, a->name);
    const char *magnitude = arena_printf(arena, "%.*s.lora_magnitude_vector", (int)stem, a->name);
    if (!p->site || !b || !bias || !magnitude) FAIL(err, CB_E_MEMORY, "%s: out of memory", l->path);
    TRY(tensors_need(&p->b, l->tensors, b, err));
    p->bias = tensors_find(l->tensors, bias);
    p->magnitude = tensors_find(l->tensors, magnitude);
    const struct cb_type *ta = &a->type, *tb = &p->b->type;
    char text[2][TYPE_TEXT];
    if (ta->rank != 2 || tb->rank != 2 || ta->dim[0] != tb->dim[1] || ta->dim[0] < 1 || ta->dim[1] < 1 || tb->dim[0] < 1 ||
        !dtype_of(ta->dtype)->is_float || !dtype_of(tb->dtype)->is_float)
        FAIL(err, CB_E_SHAPE, "%s: %s: found %s and %s; wanted (r,in) and (out,r)", l->path, p->site, type_text(ta, text[0]),
             type_text(tb, text[1]));
    p->rank = ta->dim[0];
    p->in = ta->dim[1];
    p->out = tb->dim[0];
    const struct tensor *vectors[] = {p->bias, p->magnitude};
    for (int i = 0; i < 2; i++)
        if (vectors[i] && (type_elements(&vectors[i]->type) != p->out || !dtype_of(vectors[i]->type.dtype)->is_float))
            FAIL(err, CB_E_SHAPE, "%s: %s: found %s; wanted %lld numbers", l->path, vectors[i]->name, type_text(&vectors[i]->type, text[0]),
                 (long long)p->out);
    if (l->dora != (p->magnitude != NULL))
        FAIL(err, CB_E_FORMAT, "%s: %s: use_dora is %s and the magnitudes are %s", l->path, p->site, l->dora ? "true" : "false",
             p->magnitude ? "there" : "absent");
    double alpha;
    TRY(alpha_of(l, p->site, &alpha, err));
    p->scale = alpha / (l->rslora ? sqrt((double)p->rank) : (double)p->rank);
    return CB_OK;
}

static enum cb_status read_pairs(struct lora *l, struct arena *arena, struct cb_err *err) {
    static const char *const parts[] = {".lora_B.weight", ".lora_embedding_B", ".lora_B.bias", ".lora_magnitude_vector"};
    const size_t n = (size_t)tensors_count(l->tensors);
    l->pairs = arena_array(arena, n + 1, sizeof *l->pairs);
    l->whole = arena_array(arena, n + 1, sizeof *l->whole);
    if (!l->pairs || !l->whole) FAIL(err, CB_E_MEMORY, "%s: out of memory", l->path);
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = tensors_at(l->tensors, (int)i);
        bool found, part = false;
        TRY(read_pair(l, t, arena, &found, err));
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) part |= name_ends(t->name, parts[k]);
        if (!found && !part) l->whole[l->n_whole++] = t;
    }
    if (!l->n_pairs) FAIL(err, CB_E_FORMAT, "%s: no lora_A among %zu tensors; wanted a LoRA", l->path, n);
    return CB_OK;
}

enum cb_status lora_open(struct lora *l, const char *path, struct arena *arena, struct cb_err *err) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    *l = (struct lora){.path = path};
    char *trimmed = arena_strndup(arena, path, n);
    if (!trimmed) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    l->name = strrchr(trimmed, '/') ? strrchr(trimmed, '/') + 1 : trimmed;
    if (!lora_is_folder(path)) FAIL(err, CB_E_IO, "%s: no adapter_config.json; wanted a LoRA folder", path);
    TRY(read_config(l, arena, err));
    TRY(tensors_open_adapter(&l->tensors, path, err));
    return read_pairs(l, arena, err);
}

void lora_close(struct lora *l) {
    tensors_destroy(&l->tensors);
    json_decref(l->config);
    l->config = NULL;
}

const struct lora_pair *lora_find(const struct lora *l, const char *site) {
    for (int i = 0; i < l->n_pairs; i++)
        if (!strcmp(l->pairs[i].site, site)) return &l->pairs[i];
    return NULL;
}

/* ---- writing */

static enum cb_status add_item(struct tensor_item *items, int *n, struct arena *arena, const char *site, const char *part, int64_t rows,
                               int64_t cols, const float *data, struct cb_err *err) {
    struct tensor_item *item = &items[(*n)++];
    item->name = arena_printf(arena, PREFIX "%s.%s", site, part);
    item->type = rows ? type_make(CB_DTYPE_F32, 2, (const int64_t[]){rows, cols}) : type_make(CB_DTYPE_F32, 1, &cols);
    item->data = data;
    if (!item->name) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    return CB_OK;
}

/* r and lora_alpha of the largest rank; sites of others by name, so that the scale is 1 everywhere. */
static enum cb_status set_ranks(json_t *config, const struct lora_out *sites, int n_sites, struct cb_err *err) {
    int64_t most = 0;
    json_t *ranks = json_object();
    for (int i = 0; i < n_sites; i++)
        if (sites[i].rank > most) most = sites[i].rank;
    bool ok = ranks != NULL;
    for (int i = 0; i < n_sites && ok; i++)
        if (sites[i].rank != most) ok = !json_object_set_new(ranks, sites[i].site, json_integer(sites[i].rank));
    ok = ok && !json_object_set_new(config, "r", json_integer(most)) && !json_object_set_new(config, "lora_alpha", json_integer(most)) &&
         !json_object_set(config, "rank_pattern", ranks) && !json_object_set_new(config, "alpha_pattern", json_deep_copy(ranks));
    json_decref(ranks);
    if (!ok) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    return CB_OK;
}

static enum cb_status write_all(struct arena *arena, const char *folder, const struct lora_out *sites, int n_sites,
                                const struct tensor_item *whole, int n_whole, json_t *config, struct cb_err *err) {
    struct tensor_item *items = arena_array(arena, (size_t)n_sites * 4 + (size_t)n_whole + 1, sizeof *items);
    const char *path = arena_printf(arena, "%s/adapter_model.safetensors", folder);
    const char *config_path = arena_printf(arena, "%s/adapter_config.json", folder);
    int n = 0;
    if (!items || !path || !config_path) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    for (int i = 0; i < n_sites; i++) {
        const struct lora_out *s = &sites[i];
        TRY(add_item(items, &n, arena, s->site, s->embedding ? "lora_embedding_A" : "lora_A.weight", s->rank, s->in, s->a, err));
        TRY(add_item(items, &n, arena, s->site, s->embedding ? "lora_embedding_B" : "lora_B.weight", s->out, s->rank, s->b, err));
        if (s->bias) TRY(add_item(items, &n, arena, s->site, "lora_B.bias", 0, s->out, s->bias, err));
        if (s->magnitude) TRY(add_item(items, &n, arena, s->site, "lora_magnitude_vector", 0, s->out, s->magnitude, err));
    }
    for (int i = 0; i < n_whole; i++) items[n++] = whole[i];
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    char *text = NULL;
    TRY(io_mkdirs(folder, err));
    enum cb_status status = tensors_write(path, items, n, metadata, NULL, NULL, err);
    json_decref(metadata);
    if (status == CB_OK) status = json_dump(&text, config, 2, err);
    if (status == CB_OK) status = io_write_file(config_path, text, strlen(text), err);
    free(text);
    return status;
}

enum cb_status lora_write(const char *folder, const struct lora_out *sites, int n_sites, const struct tensor_item *whole, int n_whole,
                          json_t *config, bool alpha_is_rank, struct cb_err *err) {
    struct arena *arena = arena_create();
    if (!arena) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    enum cb_status status = alpha_is_rank ? set_ranks(config, sites, n_sites, err) : CB_OK;
    if (status == CB_OK) status = write_all(arena, folder, sites, n_sites, whole, n_whole, config, err);
    arena_destroy(&arena);
    return status;
}
