/* A folder's tokenizer as the keys tokenizer.* of a GGUF file (ggml's docs/gguf.md; convert_hf_to_gguf.py says what each model wants). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/convert.h"
#include "api/files.h"
#include "base/arena.h"
#include "io/file.h"
#include "text/patterns.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5, BYTE = 6 };
enum { TEMPLATE_LIMIT = 16 << 20 };

/* The vocabulary on its way: one row an id of the model. */
struct vocabulary {
    struct gguf_builder *keys;
    struct cb_engine *engine;
    const char *folder;
    struct tokenizer *tokenizer;
    json_t *json;  // its tokenizer.json
    struct arena *arena;
    int64_t n;
    const char **text;
    size_t *length;
    float *score;
    int32_t *type;
};

static const char *kind_of(const json_t *part) {
    const char *kind = json_string_value(json_object_get(part, "type"));
    return kind ? kind : "";
}

/* The first part of that type in a part or a sequence of parts; NULL: none. */
static const json_t *part_find(const json_t *part, const char *kind) {
    static const char *const lists[] = {"normalizers", "pretokenizers", "decoders", NULL};
    if (!strcmp(kind_of(part), kind)) return part;
    for (const char *const *list = lists; *list; list++) {
        const json_t *items = json_object_get(part, *list);
        for (size_t i = 0; i < json_array_size(items); i++) {
            const json_t *found = part_find(json_array_get(items, i), kind);
            if (found) return found;
        }
    }
    return NULL;
}

/* ---- rows */

static enum cb_status rows_fill(struct vocabulary *v, struct cb_err *err) {
    size_t n = (size_t)v->n;
    v->text = arena_array(v->arena, n, sizeof *v->text);
    v->length = arena_array(v->arena, n, sizeof *v->length);
    v->score = arena_array(v->arena, n, sizeof *v->score);
    v->type = arena_array(v->arena, n, sizeof *v->type);
    if (!v->text || !v->length || !v->score || !v->type) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory for %zu tokens", n);
    for (int64_t i = 0; i < v->n; i++) {
        v->text[i] = tokenizer_token(v->tokenizer, (int32_t)i, &v->length[i]);
        v->type[i] = NORMAL;
        if (v->text[i]) continue;
        // rows of the model that no token has
        if (!(v->text[i] = arena_printf(v->arena, "[PAD%lld]", (long long)i))) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
        v->length[i] = strlen(v->text[i]);
        v->type[i] = UNUSED;
    }
    const json_t *added = json_object_get(v->json, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        json_int_t id = json_integer_value(json_object_get(token, "id"));
        if (id >= 0 && id < v->n) v->type[id] = json_is_true(json_object_get(token, "special")) ? CONTROL : USER;
    }
    return CB_OK;
}

static void put_rows(struct vocabulary *v, const char *model, const char *pre, bool scores) {
    gguf_put_str(v->keys, "tokenizer.ggml.model", model);
    gguf_put_str(v->keys, "tokenizer.ggml.pre", pre);
    gguf_put_strings(v->keys, "tokenizer.ggml.tokens", v->text, v->length, v->n);
    if (scores) gguf_put_array(v->keys, "tokenizer.ggml.scores", GGUF_F32, v->score, v->n);
    gguf_put_array(v->keys, "tokenizer.ggml.token_type", GGUF_I32, v->type, v->n);
}

/* A merge's two halves: "a b" or ["a", "b"]. */
static bool merge_halves(const json_t *merge, const char **a, size_t *n_a, const char **b, size_t *n_b) {
    if (json_is_array(merge)) {
        const json_t *first = json_array_get(merge, 0), *second = json_array_get(merge, 1);
        *a = json_string_value(first), *b = json_string_value(second);
        *n_a = json_string_length(first), *n_b = json_string_length(second);
        return *a && *b;
    }
    const char *text = json_string_value(merge), *space = text && *text ? strchr(text + 1, ' ') : NULL;
    if (!space) return false;
    *a = text, *n_a = (size_t)(space - text), *b = space + 1, *n_b = strlen(space + 1);
    return true;
}

/* ---- byte-level BPE */

/* The name under which readers know how the text is cut; NULL where none fits. */
static const char *pre_name(const json_t *json) {
    static const char *const names[] = {
        "gpt-2",      "llama-bpe", "qwen2",    "gpt-4o", "tekken",       "smollm",    "dbrx",   "deepseek-coder", "deepseek-v3",
        "falcon",     "bloom",     "viking",   "qwen35", "deepseek-llm", "glm4",      "jais-2", "bailingmoe",     "seed-coder",
        "exaone-moe", "minicpm5",  "tiny_aya", "laguna", "ufakzeka",     "chameleon", NULL};
    const json_t *pre = json_object_get(json, "pre_tokenizer"), *list = json_object_get(pre, "pretokenizers");
    const char *cut[8] = {0};
    int n = 0;
    const bool ignore = json_is_true(json_object_get(json_object_get(json, "model"), "ignore_merges"));
    for (size_t i = 0; i < (list ? json_array_size(list) : 1) && n < 7; i++) {
        const json_t *part = list ? json_array_get(list, i) : pre;
        if (!strcmp(kind_of(part), "Split")) cut[n++] = json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
        if (!strcmp(kind_of(part), "Digits") && json_is_true(json_object_get(part, "individual_digits"))) cut[n++] = "\\p{N}";
        if (!strcmp(kind_of(part), "ByteLevel") && !json_is_false(json_object_get(part, "use_regex")))
            cut[n++] = text_pattern_find("gpt-2")->regex[0];
    }
    // the one that agrees on merges too comes first
    for (int any = 0; any < 2; any++)
        for (const char *const *name = names; *name; name++) {
            const struct text_pattern *p = text_pattern_find(*name);
            if (!p || (!any && p->ignore_merges != ignore)) continue;
            int i = 0;
            while (i < 6 && p->regex[i] && cut[i] && !strcmp(p->regex[i], cut[i])) i++;
            if (i == n && n > 0 && (i == 6 || !p->regex[i])) return *name;
        }
    return NULL;
}

static enum cb_status put_byte_level(struct vocabulary *v, struct cb_err *err) {
    const char *pre = pre_name(v->json);
    const json_t *merges = json_object_get(json_object_get(v->json, "model"), "merges");
    const size_t n = json_array_size(merges);
    const char **line = arena_array(v->arena, n, sizeof *line);
    size_t *length = arena_array(v->arena, n, sizeof *length);
    if (!line || !length) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory for %zu merges", n);
    if (!pre)
        engine_warn(v->engine, "%s: how the tokenizer cuts text has no name in GGUF; readers will take the nearest, \"gpt-2\"", v->folder);
    for (size_t i = 0; i < n; i++) {
        const char *a, *b;
        size_t n_a, n_b;
        if (!merge_halves(json_array_get(merges, i), &a, &n_a, &b, &n_b)) FAIL(err, CB_E_FORMAT, "%s: merge %zu is no pair", v->folder, i);
        if (!(line[i] = arena_printf(v->arena, "%.*s %.*s", (int)n_a, a, (int)n_b, b))) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
        length[i] = n_a + 1 + n_b;
    }
    put_rows(v, "gpt2", pre ? pre : "gpt-2", false);
    gguf_put_strings(v->keys, "tokenizer.ggml.merges", line, length, (int64_t)n);
    return CB_OK;
}

/* ---- SentencePiece */

static bool is_byte_token(const char *text, size_t n) {
    return n == 6 && !memcmp(text, "<0x", 3) && strspn(text + 3, "0123456789ABCDEF") >= 2 && text[5] == '>';
}

static void mark_pieces(struct vocabulary *v) {
    const json_t *unk = json_object_get(json_object_get(v->json, "model"), "unk_token");
    int32_t id = unk && json_is_string(unk) ? tokenizer_id(v->tokenizer, json_string_value(unk)) : -1;
    if (id < 0) id = (int32_t)json_integer_value(json_object_get(json_object_get(v->json, "model"), "unk_id"));
    for (int64_t i = 0; i < v->n; i++)
        if (v->type[i] == NORMAL && is_byte_token(v->text[i], v->length[i])) v->type[i] = BYTE;
    if (id >= 0 && id < v->n && (v->type[id] == CONTROL || v->type[id] == NORMAL)) v->type[id] = UNKNOWN;
}

static bool has_space_prefix(const json_t *json) {
    const json_t *pre = part_find(json_object_get(json, "pre_tokenizer"), "Metaspace");
    const char *scheme = json_string_value(json_object_get(pre, "prepend_scheme"));
    if (pre) return scheme ? strcmp(scheme, "never") != 0 : !json_is_false(json_object_get(pre, "add_prefix_space"));
    return part_find(json_object_get(json, "normalizer"), "Prepend") != NULL;
}

/* BPE with byte fallback: the order of merges as falling scores of what they make. */
static enum cb_status put_pieces(struct vocabulary *v, struct cb_err *err) {
    const json_t *merges = json_object_get(json_object_get(v->json, "model"), "merges");
    char joined[4096];
    mark_pieces(v);
    for (int64_t i = 0; i < v->n; i++) v->score[i] = v->type[i] == NORMAL ? -1e6f : 0;
    for (size_t i = json_array_size(merges); i-- > 0;) {
        const char *a, *b;
        size_t n_a, n_b;
        if (!merge_halves(json_array_get(merges, i), &a, &n_a, &b, &n_b) || n_a + n_b >= sizeof joined)
            FAIL(err, CB_E_FORMAT, "%s: merge %zu is no pair of usual length", v->folder, i);
        snprintf(joined, sizeof joined, "%.*s%.*s", (int)n_a, a, (int)n_b, b);
        int32_t id = tokenizer_id(v->tokenizer, joined);
        if (id >= 0 && id < v->n && v->type[id] == NORMAL) v->score[id] = -(float)i;
    }
    put_rows(v, "llama", "default", true);
    gguf_put_bool(v->keys, "tokenizer.ggml.add_space_prefix", has_space_prefix(v->json));
    return CB_OK;
}

static enum cb_status put_unigram(struct vocabulary *v, struct cb_err *err) {
    (void)err;
    const json_t *pieces = json_object_get(json_object_get(v->json, "model"), "vocab");
    mark_pieces(v);
    for (size_t i = 0; i < json_array_size(pieces) && (int64_t)i < v->n; i++)
        v->score[i] = (float)json_number_value(json_array_get(json_array_get(pieces, i), 1));
    put_rows(v, "t5", "default", true);
    gguf_put_bool(v->keys, "tokenizer.ggml.add_space_prefix", has_space_prefix(v->json));
    return CB_OK;
}

/* ---- WordPiece: words begin with U+2581, what goes on has no ## */
static bool is_bracketed(const char *text, size_t n) { return n > 2 && text[0] == '[' && text[n - 1] == ']'; }

static enum cb_status put_words(struct vocabulary *v, struct cb_err *err) {
    const json_t *unk = json_object_get(json_object_get(v->json, "model"), "unk_token");
    int32_t id = json_is_string(unk) ? tokenizer_id(v->tokenizer, json_string_value(unk)) : -1;
    if (id >= 0 && id < v->n) v->type[id] = UNKNOWN;
    for (int64_t i = 0; i < v->n; i++) {
        if (v->type[i] != NORMAL || is_bracketed(v->text[i], v->length[i])) continue;
        const bool goes_on = v->length[i] > 2 && !memcmp(v->text[i], "##", 2);
        if (!goes_on && !(v->text[i] = arena_printf(v->arena, "\xe2\x96\x81%.*s", (int)v->length[i], v->text[i])))
            FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
        if (goes_on) v->text[i] += 2, v->length[i] -= 2;
        if (!goes_on) v->length[i] += 3;
    }
    put_rows(v, "bert", "default", false);
    gguf_put_int(v->keys, "tokenizer.ggml.token_type_count", GGUF_U32, 2);
    return CB_OK;
}

/* ---- what stands around texts */

static void put_id(struct vocabulary *v, const char *key, int64_t id) {
    if (id >= 0 && id < v->n) gguf_put_int(v->keys, key, GGUF_U32, id);
}

static enum cb_status put_ends(struct vocabulary *v, const struct model *m, bool is_words, struct cb_err *err) {
    struct token_list list = {0};
    const int64_t bos = is_words ? tokenizer_id(v->tokenizer, "[CLS]") : m->bos >= 0 ? m->bos : tokenizer_bos(v->tokenizer);
    const int64_t eos = is_words ? tokenizer_id(v->tokenizer, "[SEP]") : m->n_eos ? m->eos[0] : tokenizer_eos(v->tokenizer);
    put_id(v, "tokenizer.ggml.bos_token_id", bos);
    put_id(v, is_words ? "tokenizer.ggml.seperator_token_id" : "tokenizer.ggml.eos_token_id", eos);
    if (is_words) put_id(v, "tokenizer.ggml.cls_token_id", bos);
    put_id(v, "tokenizer.ggml.mask_token_id", tokenizer_id(v->tokenizer, "[MASK]"));
    put_id(v, "tokenizer.ggml.padding_token_id", m->pad >= 0 ? m->pad : tokenizer_id(v->tokenizer, "[PAD]"));
    const json_t *unk = json_object_get(json_object_get(v->json, "model"), "unk_token");
    if (json_is_string(unk)) put_id(v, "tokenizer.ggml.unknown_token_id", tokenizer_id(v->tokenizer, json_string_value(unk)));
    // whether they are put there, seen on a text
    enum cb_status status = tokenizer_encode(v->tokenizer, &list, "a", 1, ENCODE_SPECIALS, err);
    if (status == CB_OK && !is_words) {
        gguf_put_bool(v->keys, "tokenizer.ggml.add_bos_token", list.n > 1 && list.token[0].id == bos);
        gguf_put_bool(v->keys, "tokenizer.ggml.add_eos_token", list.n > 1 && list.token[list.n - 1].id == eos);
    }
    token_list_deinit(&list);
    return status;
}

/* chat_template.jinja, or "chat_template" of tokenizer_config.json: a text, or a list of which the one named default counts. */
static enum cb_status put_template(struct vocabulary *v, struct cb_err *err) {
    char *path = io_path_join(v->folder, "chat_template.jinja"), *config = io_path_join(v->folder, "tokenizer_config.json"), *text = NULL;
    size_t n;
    json_t *json = NULL;
    enum cb_status status = path && config ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "tokenizer: out of memory");
    const char *template = NULL;
    if (status == CB_OK && io_is_file(path)) {
        status = io_read_file(&text, &n, path, TEMPLATE_LIMIT, err);
        template = text;
    } else if (status == CB_OK && io_is_file(config)) {
        status = io_read_file(&text, &n, config, TEMPLATE_LIMIT, err);
        if (status == CB_OK) status = json_parse_config(&json, text, n, config, err);
        const json_t *value = json_object_get(json, "chat_template");
        template = json_string_value(value);
        for (size_t i = 0; !template && i < json_array_size(value); i++) {
            const json_t *one = json_array_get(value, i);
            const char *name = json_string_value(json_object_get(one, "name"));
            if (name && !strcmp(name, "default")) template = json_string_value(json_object_get(one, "template"));
        }
    }
    if (status == CB_OK && template) gguf_put_str(v->keys, "tokenizer.chat_template", template);
    json_decref(json);
    free(text);
    free(path);
    free(config);
    return status;
}

/* ---- all of it */

static enum cb_status put_all(struct vocabulary *v, const struct model *m, struct cb_err *err) {
    const json_t *model = json_object_get(v->json, "model");
    const bool is_bytes = part_find(json_object_get(v->json, "decoder"), "ByteLevel") != NULL;
    static const struct {
        const char *type;
        bool bytes;
        enum cb_status (*put)(struct vocabulary *v, struct cb_err *err);
    } kinds[] = {
        {"BPE", true, put_byte_level}, {"BPE", false, put_pieces}, {"Unigram", false, put_unigram}, {"WordPiece", false, put_words}};
    size_t k = 0;
    while (k < 4 && (strcmp(kind_of(model), kinds[k].type) != 0 || kinds[k].bytes != is_bytes)) k++;
    if (k == 4)
        FAIL(err, CB_E_UNSUPPORTED, "%s: a tokenizer of model %s has no form in GGUF; wanted BPE, Unigram or WordPiece", v->folder,
             kind_of(model));
    TRY(rows_fill(v, err));
    TRY(kinds[k].put(v, err));
    TRY(put_ends(v, m, kinds[k].put == put_words, err));
    return put_template(v, err);
}

enum cb_status gguf_put_vocabulary(struct gguf_builder *keys, const char *folder, const struct model *model, struct cb_engine *engine,
                                   struct cb_err *err) {
    struct vocabulary v = {.keys = keys, .engine = engine, .folder = folder, .n = model->vocab};
    char *text = NULL;
    size_t n;
    if (!files_have_tokenizer(folder)) return CB_OK;
    enum cb_status status = files_load_tokenizer(&v.tokenizer, folder, err);
    if (status == CB_OK && tokenizer_size(v.tokenizer) > v.n)
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: the tokenizer has %d ids, the model's vocab_size is %lld", folder,
                         tokenizer_size(v.tokenizer), (long long)v.n);
    if (status == CB_OK && !(v.arena = arena_create())) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "tokenizer: out of memory");
    if (status == CB_OK) status = tokenizer_to_json(v.tokenizer, &text, &n, err);
    if (status == CB_OK) status = json_parse_object(&v.json, text, n, folder, err);
    if (status == CB_OK) status = put_all(&v, model, err);
    json_decref(v.json);
    free(text);
    arena_destroy(&v.arena);
    tokenizer_destroy(&v.tokenizer);
    return status;
}
