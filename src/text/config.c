/* tokenizer_config.json: special tokens, and what is put around a text. */
#include "text/config.h"

#include <stdio.h>

bool config_flag(const json_t *config, const char *key, bool preset) {
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : preset;
}

struct text_view config_item(const json_t *value) {
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_is_string(value) ? (struct text_view){json_string_value(value), json_string_length(value)} : (struct text_view){NULL, 0};
}

struct text_view config_text(const json_t *config, const char *key) {
    return config_item(json_object_get(config, key));
}

void config_ends(struct tokenizer *t, const json_t *config) {
    struct text_view bos = config_text(config, "bos_token"), eos = config_text(config, "eos_token");
    if (bos.text) t->bos = tokenizer_id(t, bos.text);
    if (eos.text) t->eos = tokenizer_id(t, eos.text);
}

static struct added_token *added_by_id(struct tokenizer *t, int32_t id) {
    for (int i = 0; i < t->n_added; i++)
        if (t->added[i].id == id) return &t->added[i];
    return NULL;
}

/* An entry of added_tokens_decoder; one that is there already takes its flags. */
static enum cb_status entry_add(struct tokenizer *t, int32_t id, const json_t *json, const char *name, struct cb_err *err) {
    struct text_view content = config_text(json, "content");
    const struct vocab_token *known = id < tokenizer_n_shown(t) ? vocab_at(&t->vocab, id) : NULL;
    struct added_token token = {content.text,
                                content.n,
                                id,
                                config_flag(json, "single_word", false),
                                config_flag(json, "lstrip", false),
                                config_flag(json, "rstrip", false),
                                config_flag(json, "normalized", false),
                                config_flag(json, "special", false),
                                false},
                       *old = added_by_id(t, id);
    if (!content.n) FAIL(err, CB_E_FORMAT, "%s: added_tokens_decoder: id %d: content: found no text", name, (int)id);
    if (!old || old->n != content.n || memcmp(old->text, content.text, content.n)) {
        // an entry may also name a piece that the vocabulary has under another text: its own stays
        return known && (known->n != content.n || memcmp(known->text, content.text, content.n)) ? CB_OK
                                                                                                : tokenizer_add(t, &token, name, err);
    }
    token.text = old->text;
    *old = token;
    return CB_OK;
}

struct entry {
    int32_t id;
    const json_t *json;
};
static int by_id(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* added_tokens_decoder: {"32000": {"content", flags}}, in order of ids. */
static enum cb_status entries_add(struct tokenizer *t, const json_t *list, const char *name, struct cb_err *err) {
    size_t n = json_object_size(list), i = 0;
    const char *key;
    const json_t *value;
    if (n > 1 << 16) FAIL(err, CB_E_LIMIT, "%s: added_tokens_decoder: %zu entries; at most 65536 are taken", name, n);
    struct entry *entry = calloc(n + 1, sizeof *entry);
    if (!entry) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    enum cb_status status = CB_OK;
    json_object_foreach((json_t *)(uintptr_t)list, key, value) {
        char *end;
        long id = strtol(key, &end, 10);
        if (*end || end == key || id < 0 || id > INT32_MAX - 1)
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: added_tokens_decoder: \"%.40s\"; an id is wanted", name, key);
        entry[i++] = (struct entry){(int32_t)id, value};
        if (status) break;
    }
    if (!status) qsort(entry, n, sizeof *entry, by_id);
    for (i = 0; i < n && !status; i++) status = entry_add(t, entry[i].id, entry[i].json, name, err);
    free(entry);
    return status;
}

/* ---- specials */
const char *const config_special_keys[] = {"bos_token", "eos_token", "unk_token",  "sep_token",
                                           "pad_token", "cls_token", "mask_token", NULL};

enum cb_status config_put(struct tokenizer *t, struct added_token token, const char *name, struct cb_err *err) {
    if (!token.n) return CB_OK;
    int32_t known = tokenizer_id(t, token.text), next = tokenizer_n_shown(t);
    for (int i = 0; i < t->n_added; i++) {
        if (t->added[i].id == known) return CB_OK;
        if (t->added[i].id >= next) next = t->added[i].id + 1;
    }
    token.id = known < 0 ? next : known;
    return tokenizer_add(t, &token, name, err);
}

/* A special as it is told: a text or an object. */
static struct added_token special_of(const json_t *value) {
    const struct text_view text = config_item(value);
    struct added_token token = {text.text, text.n, 0, .special = true};
    token.lstrip = config_flag(value, "lstrip", false);
    token.rstrip = config_flag(value, "rstrip", false);
    token.single_word = config_flag(value, "single_word", false);
    return token;
}

enum cb_status config_added(struct tokenizer *t, const json_t *config, const char *name, struct cb_err *err) {
    const json_t *list = json_object_get(config, "added_tokens_decoder"), *more = json_object_get(config, "additional_special_tokens"),
                 *item;
    size_t i;
    if (json_is_object(list)) TRY(entries_add(t, list, name, err));
    // those of the vocabulary first: they take no new ids
    for (int is_new = 0; is_new < 2; is_new++)
        for (const char *const *key = config_special_keys; *key; key++) {
            const struct added_token token = special_of(json_object_get(config, *key));
            const int32_t id = token.n ? vocab_find(&t->vocab, token.text, token.n) : -1;
            struct added_token *old = id < 0 ? NULL : added_by_id(t, id);
            if (old) old->special = true, old->hidden = false;
            if (!old && token.n && (id < 0 || id >= tokenizer_n_shown(t)) == is_new) TRY(config_put(t, token, name, err));
        }
    if (json_array_size(more) > 1 << 16) FAIL(err, CB_E_LIMIT, "%s: additional_special_tokens: over 65536", name);
    json_array_foreach(more, i, item) {
        TRY(config_put(t, special_of(item), name, err));
        const char *text = config_item(item).text;
        for (int k = 0; text && k < t->n_added; k++)
            if (!strcmp(t->added[k].text, text)) t->added[k].hidden = false;
    }
    config_ends(t, config);
    return CB_OK;
}

/* ---- templates */

static int piece_put(json_t *side, const char *kind, const char *id, int type) {
    return id ? json_array_append_new(side, json_pack("{s{sssi}}", kind, "id", id, "type_id", type)) : 0;
}

static int special_put(struct tokenizer *t, json_t *specials, const char *text) {
    if (!text) return 0;
    return json_object_set_new(specials, text, json_pack("{sss[i]s[s]}", "id", text, "ids", (int)tokenizer_id(t, text), "tokens", text));
}

enum cb_status template_set(struct tokenizer *t, const char *first, const char *last, bool is_bert, const char *name, struct cb_err *err) {
    if (!first && !last) return CB_OK;
    json_t *json = json_pack("{sss[]s[]s{}}", "type", "TemplateProcessing", "single", "pair", "special_tokens");
    json_t *single = json_object_get(json, "single"), *pair = json_object_get(json, "pair"),
           *specials = json_object_get(json, "special_tokens");
    int second = 1, bad = !json;
    bad |= piece_put(single, "SpecialToken", first, 0) | piece_put(single, "Sequence", "A", 0) | piece_put(single, "SpecialToken", last, 0);
    bad |= piece_put(pair, "SpecialToken", first, 0) | piece_put(pair, "Sequence", "A", 0) | piece_put(pair, "SpecialToken", last, 0);
    bad |= piece_put(pair, "SpecialToken", is_bert ? NULL : first, second) | piece_put(pair, "Sequence", "B", second) |
           piece_put(pair, "SpecialToken", last, second);
    bad |= special_put(t, specials, first) | special_put(t, specials, last);
    enum cb_status status = bad ? err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", name)
                                : part_read(t, &t->part[ROLE_POST_PROCESSOR], ROLE_POST_PROCESSOR, json, name, 0, err);
    json_decref(json);
    return status;
}

bool config_word(const char **list, struct text_view *word) {
    if (!*list) return false;
    *list += strspn(*list, " ");
    *word = (struct text_view){*list, strcspn(*list, " ")};
    *list += word->n;
    return word->n > 0;
}

/* One side's words. */
static enum cb_status words_put(struct tokenizer *t, json_t *side, json_t *specials, const char *words, const json_t *config,
                                const char *source, const char *name, struct cb_err *err) {
    int bad = !side || !specials;
    for (struct text_view word; config_word(&words, &word);) {
        const size_t length = word.n - (word.text[word.n - 1] == '1');
        const int type = length < word.n;
        char key[40];
        snprintf(key, sizeof key, "%.*s_token", (int)length, word.text);
        if (length == 1) {
            bad |= piece_put(side, "Sequence", *word.text == 'A' ? "A" : "B", type);
        } else {
            const char *text = !strcmp(key, "src_token") ? source : config_text(config, key).text;
            if (!text || tokenizer_id(t, text) < 0)
                FAIL(err, CB_E_FORMAT, "%s: \"%.60s\" (%s) stands around texts; it is not in the vocabulary", name, text ? text : "", key);
            bad |= piece_put(side, "SpecialToken", text, type) | special_put(t, specials, text);
        }
    }
    if (bad) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    return CB_OK;
}

enum cb_status template_words(struct tokenizer *t, const char *single, const char *pair, const json_t *config, const char *source,
                              const char *name, struct cb_err *err) {
    json_t *json = json_pack("{sss[]s[]s{}}", "type", "TemplateProcessing", "single", "pair", "special_tokens");
    json_t *specials = json_object_get(json, "special_tokens");
    enum cb_status status = words_put(t, json_object_get(json, "single"), specials, single, config, source, name, err);
    if (!status) status = words_put(t, json_object_get(json, "pair"), specials, pair, config, source, name, err);
    if (!status) status = part_read(t, &t->part[ROLE_POST_PROCESSOR], ROLE_POST_PROCESSOR, json, name, 0, err);
    json_decref(json);
    return status;
}
