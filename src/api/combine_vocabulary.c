/* The tokens of a merge: whose they are, whether the models agree on them, and rows by token where they do not (mergekit's tokenizer_source). */
#include <stdlib.h>
#include <string.h>

#include "api/combine.h"
#include "api/files.h"
#include "base/name.h"
#include "base/table.h"
#include "io/file.h"
#include "text/tokenizer.h"

#define TOKENIZER_LIMIT ((size_t)1 << 30)

/* ---- comparing */

/* Whether two folders have the same tokenizer.json, byte for byte: the usual case, without reading what they mean. */
static bool same_file(const char *a, const char *b) {
    struct cb_err ignored = {0};
    char *path[2] = {io_path_join(a, "tokenizer.json"), io_path_join(b, "tokenizer.json")}, *bytes[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    bool same = path[0] && path[1] && io_is_file(path[0]) && io_is_file(path[1]);
    for (int i = 0; i < 2 && same; i++) same = io_read_file(&bytes[i], &n[i], path[i], TOKENIZER_LIMIT, &ignored) == CB_OK;
    same = same && n[0] == n[1] && !memcmp(bytes[0], bytes[1], n[0]);
    for (int i = 0; i < 2; i++) {
        free(path[i]);
        free(bytes[i]);
    }
    return same;
}

/* The first id that is another token in y than in x; -1: none. One may have more of them. */
static int32_t first_difference(const struct tokenizer *x, const struct tokenizer *y) {
    const int32_t nx = tokenizer_size(x), ny = tokenizer_size(y);
    for (int32_t i = 0; i < nx && i < ny; i++) {
        size_t n, m;
        const char *s = tokenizer_token(x, i, &n), *t = tokenizer_token(y, i, &m);
        if ((s || t) && !(s && t && n == m && !memcmp(s, t, n))) return i;
    }
    return -1;
}

/* A token for a message. */
static const char *token_text(char out[64], const struct tokenizer *t, int32_t id) {
    size_t n = 0;
    const char *text = tokenizer_token(t, id, &n);
    snprintf(out, 64, "%.*s", (int)(n < 60 ? n : 60), text ? text : "");
    return out;
}

/* Each id must be the same token in both. */
static enum cb_status compare(struct cb_engine *engine, const char *a, const char *b, struct cb_err *err) {
    struct tokenizer *x = NULL, *y = NULL;
    char text[2][64];
    enum cb_status status = files_load_tokenizer(&x, a, err);
    if (status == CB_OK) status = files_load_tokenizer(&y, b, err);
    const int32_t id = status == CB_OK ? first_difference(x, y) : -1;
    if (id >= 0)
        status = err_set(err, CB_E_SHAPE, __FILE__, __LINE__,
                         "%s: token %d is '%s', in %s it is '%s'; wanted models of one vocabulary, or tokenizer_source (--tokenizer union)",
                         b, (int)id, token_text(text[0], y, id), a, token_text(text[1], x, id));
    if (status == CB_OK && tokenizer_size(x) != tokenizer_size(y))
        engine_warn(engine, "%s: %d tokens, %s has %d: those of %s are kept", b, (int)tokenizer_size(y), a, (int)tokenizer_size(x), a);
    tokenizer_destroy(&x);
    tokenizer_destroy(&y);
    return status;
}

enum cb_status combine_check_vocabulary(struct combine_vocabulary *v, const struct merge_plan *plan, struct cb_err *err) {
    if (!v->folder) v->folder = plan->models[plan->donor].path;
    for (int i = 0; i < plan->n_models && !plan->vocabulary && files_have_tokenizer(v->folder); i++) {
        const char *other = plan->models[i].path;
        if (!strcmp(other, v->folder) || !files_have_tokenizer(other) || same_file(v->folder, other)) continue;
        TRY(compare(v->engine, v->folder, other, err));
    }
    return CB_OK;
}

/* ---- bringing together */

/* The tokens of the result by their texts, and each model's own. */
struct gathering {
    struct combine_vocabulary *v;
    struct merge_plan *plan;
    struct tokenizer *tokenizer[MERGE_MAX_MODELS + 2], *result;
    struct table ids;
    int64_t n;
};

static enum cb_status no_memory(struct cb_err *err) { FAIL(err, CB_E_MEMORY, "merge: out of memory for tokens"); }

/* tokenizer.json of a model, as a tree. */
static enum cb_status read_json(json_t **json, const struct tokenizer *t, const char *name, struct cb_err *err) {
    char *text;
    size_t n;
    TRY(tokenizer_to_json(t, &text, &n, err));
    enum cb_status status = json_parse_object(json, text, n, name, err);
    free(text);
    return status;
}

/* Every text of a tokenizer that is not yet known gets the next id, in the order of its own. */
static enum cb_status add_texts(struct gathering *g, const struct tokenizer *t, struct cb_err *err) {
    for (int32_t i = 0; i < tokenizer_size(t); i++) {
        size_t n;
        const char *text = tokenizer_token(t, i, &n);
        if (text && table_get(&g->ids, text, n) < 0) TRY(table_put(&g->ids, text, n, g->n++, err));
    }
    return CB_OK;
}

static const json_t *find_added(const json_t *json, const char *text) {
    const json_t *list = json_object_get(json, "added_tokens");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *content = json_string_value(json_object_get(json_array_get(list, i), "content"));
        if (content && !strcmp(content, text)) return json_array_get(list, i);
    }
    return NULL;
}

static enum cb_status put_added(json_t *json, const json_t *token, int64_t id, struct cb_err *err) {
    json_t *copy = json_deep_copy(token), *list = json_object_get(json, "added_tokens");
    if (!json_is_array(list) && !json_object_set_new(json, "added_tokens", json_array())) list = json_object_get(json, "added_tokens");
    if (!copy || json_object_set_new(copy, "id", json_integer(id)) || json_array_append_new(list, copy)) return no_memory(err);
    return CB_OK;
}

/* What another tokenizer has beyond the first one's: its words into the vocabulary, its added tokens among the added ones. Merges stay the first one's, as in mergekit. */
static enum cb_status add_tokens(struct gathering *g, json_t *json, const struct tokenizer *t, const char *name, int64_t first,
                                 struct cb_err *err) {
    json_t *own = NULL, *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    TRY(read_json(&own, t, name, err));
    enum cb_status status = CB_OK;
    for (int32_t i = 0; i < tokenizer_size(t) && status == CB_OK; i++) {
        size_t n;
        const char *text = tokenizer_token(t, i, &n);
        if (!text || strlen(text) != n) continue;
        const int64_t id = table_get(&g->ids, text, n);
        const json_t *added = find_added(own, text);
        if (added && !find_added(json, text)) {
            status = put_added(json, added, id, err);
        } else if (!added && id >= first && json_is_object(vocab)) {
            if (json_object_setn_new_nocheck(vocab, text, n, json_integer(id))) status = no_memory(err);
        } else if (!added && id >= first && !find_added(json, text)) {
            // a list of pieces counts its ids: what comes behind its added tokens is added too
            json_t *token = json_pack("{s:s%, s:b, s:b, s:b, s:b, s:b}", "content", text, n, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                      "normalized", 0, "special", 0);
            status = token ? put_added(json, token, id, err) : no_memory(err);
            json_decref(token);
        }
    }
    json_decref(own);
    return status;
}

/* The union: the donor's tokens under their ids, then what the others have beyond them. */
static enum cb_status make_union(struct gathering *g, struct cb_err *err) {
    const struct merge_plan *plan = g->plan;
    json_t *json = NULL;
    TRY(read_json(&json, g->tokenizer[plan->donor], plan->models[plan->donor].path, err));
    g->n = tokenizer_size(g->tokenizer[plan->donor]);
    enum cb_status status = CB_OK;
    for (int i = 0; i < plan->n_models && status == CB_OK; i++) {
        const int64_t first = g->n;
        if (i == plan->donor) continue;
        status = add_texts(g, g->tokenizer[i], err);
        if (status == CB_OK) status = add_tokens(g, json, g->tokenizer[i], plan->models[i].path, first, err);
    }
    if (status == CB_OK) status = json_dump(&g->v->json, json, 2, err);
    if (status == CB_OK) status = tokenizer_load_bytes(&g->result, g->v->json, strlen(g->v->json), "union of tokenizers", err);
    json_decref(json);
    return status;
}

/* Texts of the result by id, from its tokenizer. */
static enum cb_status put_result(struct gathering *g, const struct tokenizer *t, struct cb_err *err) {
    table_deinit(&g->ids);
    g->ids = (struct table){0};
    g->n = tokenizer_size(t);
    for (int32_t i = 0; i < tokenizer_size(t); i++) {
        size_t n;
        const char *text = tokenizer_token(t, i, &n);
        if (text && table_get(&g->ids, text, n) < 0) TRY(table_put(&g->ids, text, n, i, err));
    }
    return CB_OK;
}

/* Each model's row of each token, and what stands in where it has none (mergekit's PermutedEmbeddings): the only one's, the base's, else the mean. */
static enum cb_status map_rows(struct gathering *g, struct cb_err *err) {
    const struct merge_plan *plan = g->plan;
    struct merge_vocabulary *v = arena_alloc(plan->arena, sizeof *v);
    int32_t *source = arena_array(plan->arena, (size_t)g->n + 1, sizeof *source);
    if (!v || !source) return no_memory(err);
    *v = (struct merge_vocabulary){.n = g->n, .source = source};
    for (int64_t i = 0; i < g->n; i++) source[i] = MERGE_ZERO_ROW;
    for (int k = 0; k < plan->n_models; k++) {
        int32_t *row = arena_array(plan->arena, (size_t)g->n + 1, sizeof *row);
        if (!row) return no_memory(err);
        for (int64_t i = 0; i < g->n; i++) row[i] = -1;
        for (int32_t i = 0; i < tokenizer_size(g->tokenizer[k]) && i < plan->models[k].vocab; i++) {
            size_t n;
            const char *text = tokenizer_token(g->tokenizer[k], i, &n);
            const int64_t id = text ? table_get(&g->ids, text, n) : -1;
            if (id < 0 || row[id] >= 0) continue;
            row[id] = i;
            source[id] = source[id] == MERGE_ZERO_ROW ? k : MERGE_MEAN_ROW;
        }
        v->row[k] = row;
    }
    for (int64_t i = 0; i < g->n && plan->recipe->base; i++)
        if (source[i] == MERGE_MEAN_ROW && v->row[plan->donor][i] >= 0) source[i] = plan->donor;
    int64_t nobody = 0;
    for (int64_t i = 0; i < g->n; i++) nobody += source[i] == MERGE_ZERO_ROW;
    if (nobody) engine_warn(g->v->engine, "tokenizer_source: %lld ids have no row in any model: theirs are zero", (long long)nobody);
    g->plan->vocabulary = v;
    return CB_OK;
}

/* Whether every model has the same rows for the same ids. */
static bool agree(const struct gathering *g, const struct tokenizer *result) {
    for (int i = 0; i < g->plan->n_models; i++)
        if (g->plan->models[i].vocab != g->plan->models[0].vocab || (g->tokenizer[i] && first_difference(result, g->tokenizer[i]) >= 0))
            return false;
    return true;
}

/* Whose tokenizer the recipe names; of a union that needs no work, the largest. */
static enum cb_status gather(struct gathering *g, const char *source, struct cb_err *err) {
    struct merge_plan *plan = g->plan;
    struct combine_vocabulary *v = g->v;
    const bool is_union = !strcmp(source, "union"), is_base = !strcmp(source, "base");
    if (is_base && !plan->recipe->base)
        FAIL(err, CB_E_USAGE, "%s: tokenizer_source: base, and no base_model; wanted one", plan->recipe->name);
    int number = is_union || is_base ? plan->donor : merge_plan_model(plan, source);
    v->folder = number < 0 ? source : plan->models[number].path;
    if (!is_union && !is_base && !files_have_tokenizer(v->folder))
        FAIL(err, CB_E_IO, "%s: tokenizer_source %s: no tokenizer there", plan->recipe->name, source);
    int n_known = 0;
    for (int i = 0; i < plan->n_models; i++) {
        if (!files_have_tokenizer(plan->models[i].path)) continue;
        TRY(files_load_tokenizer(&g->tokenizer[i], plan->models[i].path, err));
        n_known++;
        if (is_union && (number < 0 || !g->tokenizer[number] || tokenizer_size(g->tokenizer[i]) > tokenizer_size(g->tokenizer[number])))
            number = i;
    }
    if (number < 0) TRY(files_load_tokenizer(&g->result, source, err));
    const struct tokenizer *result = number < 0 ? g->result : g->tokenizer[number];
    if (!n_known || !result || agree(g, result)) {
        if (number >= 0) v->folder = plan->models[number].path;
        return CB_OK;
    }
    for (int i = 0; i < plan->n_models; i++)
        if (!g->tokenizer[i])
            FAIL(err, CB_E_IO, "%s: no tokenizer; tokenizer_source %s wants one of every model, whose tokens differ", plan->models[i].path,
                 source);
    if (is_union) {
        TRY(put_result(g, g->tokenizer[plan->donor], err));
        TRY(make_union(g, err));
        v->folder = plan->models[plan->donor].path;
        result = g->result;
    }
    TRY(put_result(g, result, err));
    return map_rows(g, err);
}

enum cb_status combine_find_vocabulary(void *context, struct merge_plan *plan, struct cb_err *err) {
    struct gathering g = {.v = context, .plan = plan};
    const char *source = plan->recipe->tokenizer_source;
    enum cb_status status = source ? gather(&g, source, err) : CB_OK;
    table_deinit(&g.ids);
    for (int i = 0; i < plan->n_models; i++) tokenizer_destroy(&g.tokenizer[i]);
    tokenizer_destroy(&g.result);
    return status;
}

/* ---- what names tokens by their numbers */

static json_t *moved(const json_t *value, const struct merge_plan *plan) {
    const int32_t *row = plan->vocabulary->row[plan->donor];
    const json_int_t id = json_integer_value(value);
    for (int64_t i = 0; i < plan->vocabulary->n; i++)
        if (row[i] == id) return json_integer(i);
    return json_null();
}

enum cb_status combine_move_tokens(json_t *config, const struct merge_plan *plan, struct cb_err *err) {
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(config, next, key, value) {
        if (!plan->vocabulary || !name_ends(key, "token_id")) continue;
        json_t *to = NULL;
        if (json_is_integer(value)) to = moved(value, plan);
        if (json_is_array(value)) {
            to = json_array();
            for (size_t i = 0; to && i < json_array_size(value); i++) {
                json_t *one = moved(json_array_get(value, i), plan);
                if (json_is_integer(one)) json_array_append(to, one);
                json_decref(one);
            }
        }
        if (to && json_object_set_new(config, key, to)) return no_memory(err);
    }
    return CB_OK;
}

enum cb_status combine_write_vocabulary(const struct combine_vocabulary *v, const char *folder, struct cb_err *err) {
    if (!v->json) return files_copy_tokenizer(v->folder, folder, err);
    TRY(files_copy_settings(v->folder, folder, err));
    return files_write_text(folder, "tokenizer.json", v->json, err);
}
