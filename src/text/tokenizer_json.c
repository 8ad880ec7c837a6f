/* tokenizer.json (Hugging Face tokenizers, version 1.0) read and written. */
#include <stdio.h>

#include "text/parts.h"
#include "text/utf8.h"

static const struct model_kind *const model_kinds[] = {&bpe_model, &wordpiece_model, &wordlevel_model, &unigram_model};

/* ---- vocabularies */

/* {"text": id} as entries. */
static enum cb_status entries_read(struct json_scan *out, const json_t *json, struct cb_err *err) {
    char shown[JSON_TEXT];
    const char *text;
    const json_t *value;
    if (!json_is_object(json)) FAIL(err, CB_E_FORMAT, "model: vocab: found %s; an object is wanted", json_text(json, shown));
    json_object_foreach((json_t *)(uintptr_t)json, text, value) {
        struct scanned_token token = {text, (uint32_t)strlen(text), json_is_integer(value) ? json_integer_value(value) : -1, 0};
        if (token.id < 0)
            FAIL(err, CB_E_FORMAT, "model: vocab: \"%.60s\" has id %s; a whole number from 0 is wanted", text, json_text(value, shown));
        TRY(buffer_grow((void **)&out->token, &out->token_capacity, out->n_tokens + 1, sizeof token, err));
        out->token[out->n_tokens++] = token;
    }
    return CB_OK;
}

static enum cb_status entries_add(struct tokenizer *t, const struct json_scan *in, struct cb_err *err) {
    size_t n = in->n_tokens;
    int64_t greatest = -1, most = (int64_t)n + (1 << 20);
    if (n > 1 << 24) FAIL(err, CB_E_LIMIT, "model: vocab: %zu tokens; at most 2^24 are taken", n);
    for (size_t i = 0; i < n; i++) {
        if (in->token[i].id < 0 || in->token[i].id >= most)
            FAIL(err, CB_E_FORMAT, "model: vocab: \"%.60s\" has id %lld; a whole number from 0 to %lld is wanted", in->token[i].text,
                 (long long)in->token[i].id, (long long)most - 1);
        if (in->token[i].id > greatest) greatest = in->token[i].id;
    }
    TRY(vocab_init(&t->vocab, t->arena, (int32_t)n, (int32_t)(greatest + 1), err));
    for (size_t i = 0; i < n; i++) {
        const struct scanned_token *token = &in->token[i];
        // scanned texts lie in the arena already
        TRY(in == t->scan ? vocab_put(&t->vocab, (int32_t)token->id, token->text, token->n, "vocab", err)
                          : vocab_add(&t->vocab, t->arena, (int32_t)token->id, token->text, token->n, "vocab", err));
    }
    return CB_OK;
}

enum cb_status vocab_read(struct tokenizer *t, const json_t *json, struct cb_err *err) {
    if (t->scan && t->scan->is_pairs) FAIL(err, CB_E_FORMAT, "model: vocab: found a list; an object is wanted");
    if (t->scan) return entries_add(t, t->scan, err);
    struct json_scan own = {0};
    enum cb_status status = entries_read(&own, json, err);
    if (!status) status = entries_add(t, &own, err);
    json_scan_deinit(&own);
    return status;
}

enum cb_status vocab_write(const struct tokenizer *t, json_t *json, struct cb_err *err) {
    json_t *vocab = json_object();
    int bad = json_object_set_new(json, "vocab", vocab);
    for (int32_t id = 0; id < t->vocab.size && !bad; id++)
        if (t->vocab.token[id].text)
            bad = json_object_setn_new_nocheck(vocab, t->vocab.token[id].text, t->vocab.token[id].n, json_integer(id));
    if (bad) FAIL(err, CB_E_MEMORY, "model: no memory to write the vocabulary");
    return CB_OK;
}

/* ---- the model */

/* Old files have no type: what the keys look like tells it. */
static const struct model_kind *model_guess(const json_t *json) {
    if (json_object_get(json, "merges")) return &bpe_model;
    if (json_is_array(json_object_get(json, "vocab"))) return &unigram_model;
    return json_object_get(json, "continuing_subword_prefix") ? &wordpiece_model : &wordlevel_model;
}

static enum cb_status model_read(struct tokenizer *t, const json_t *json, const char *name, struct cb_err *err) {
    char shown[JSON_TEXT];
    if (!json_is_object(json)) FAIL(err, CB_E_FORMAT, "%s: model: found %s; an object is wanted", name, json_text(json, shown));
    const json_t *type = json_object_get(json, "type");
    if (!type) t->model = model_guess(json);
    for (size_t i = 0; json_is_string(type) && i < sizeof model_kinds / sizeof *model_kinds; i++)
        if (!strcmp(model_kinds[i]->type, json_string_value(type))) t->model = model_kinds[i];
    if (!t->model)
        FAIL(err, CB_E_UNSUPPORTED, "%s: model: type %s is not known; BPE, WordPiece, WordLevel or Unigram is wanted", name,
             json_text(type, shown));
    enum cb_status status = t->model->read(t, json, err);
    if (status) return err_prefix(err, "%s", name);
    return CB_OK;
}

/* ---- added tokens, truncation, padding */

static enum cb_status added_read(struct tokenizer *t, const json_t *json, const char *name, struct cb_err *err) {
    char shown[JSON_TEXT];
    const json_t *value;
    size_t i;
    if (!json || json_is_null(json)) return CB_OK;
    if (!json_is_array(json)) FAIL(err, CB_E_FORMAT, "%s: added_tokens: found %s; a list is wanted", name, json_text(json, shown));
    if (json_array_size(json) > 1 << 16)
        FAIL(err, CB_E_LIMIT, "%s: added_tokens: %zu; at most 65536 are taken", name, json_array_size(json));
    json_array_foreach(json, i, value) {
        const json_t *content = json_object_get(value, "content");
        if (!json_is_object(value) || !json_is_string(content))
            FAIL(err, CB_E_FORMAT, "%s: added_tokens: entry %zu: content: found %s; text is wanted", name, i, json_text(content, shown));
        struct added_token token = {.text = json_string_value(content), .n = json_string_length(content)};
        int64_t id = 0;
        char place[120];
        snprintf(place, sizeof place, "added_tokens \"%.60s\"", token.text);
        TRY(json_get_int(&id, value, place, "id", 0, INT32_MAX - 1, true, err));
        TRY(json_get_bool(&token.single_word, value, place, "single_word", false, err));
        TRY(json_get_bool(&token.lstrip, value, place, "lstrip", false, err));
        TRY(json_get_bool(&token.rstrip, value, place, "rstrip", false, err));
        TRY(json_get_bool(&token.special, value, place, "special", false, err));
        token.normalized = !token.special;
        TRY(json_get_bool(&token.normalized, value, place, "normalized", false, err));
        token.id = (int32_t)id;
        TRY(tokenizer_add(t, &token, name, err));
    }
    return CB_OK;
}

static const char *const strategies[] = {"LongestFirst", "OnlyFirst", "OnlySecond"};

static enum cb_status direction_read(bool *left, const json_t *json, const char *place, struct cb_err *err) {
    const char *direction = "Right";
    TRY(json_get_str(&direction, json, place, "direction", false, err));
    if (strcmp(direction, "Left") && strcmp(direction, "Right"))
        FAIL(err, CB_E_FORMAT, "%s: direction: found \"%.60s\"; Left or Right is wanted", place, direction);
    *left = !strcmp(direction, "Left");
    return CB_OK;
}

static enum cb_status truncation_read(struct tokenizer *t, const json_t *json, const char *name, struct cb_err *err) {
    struct truncation *out = &t->truncation;
    const char *strategy = strategies[0];
    if (!json || json_is_null(json)) return CB_OK;
    if (!json_is_object(json)) FAIL(err, CB_E_FORMAT, "%s: truncation: an object is wanted", name);
    TRY(json_get_int(&out->max_length, json, "truncation", "max_length", 0, INT32_MAX, true, err));
    TRY(json_get_int(&out->stride, json, "truncation", "stride", 0, INT32_MAX, false, err));
    TRY(json_get_str(&strategy, json, "truncation", "strategy", false, err));
    TRY(direction_read(&out->left, json, "truncation", err));
    for (out->strategy = 0; out->strategy < 3 && strcmp(strategy, strategies[out->strategy]);) out->strategy++;
    if (out->strategy == 3)
        FAIL(err, CB_E_FORMAT, "%s: truncation: strategy: found \"%.60s\"; LongestFirst, OnlyFirst or OnlySecond is wanted", name,
             strategy);
    out->on = true;
    return CB_OK;
}

static enum cb_status padding_read(struct tokenizer *t, const json_t *json, const char *name, struct cb_err *err) {
    struct padding *out = &t->padding;
    char shown[JSON_TEXT];
    if (!json || json_is_null(json)) return CB_OK;
    if (!json_is_object(json)) FAIL(err, CB_E_FORMAT, "%s: padding: an object is wanted", name);
    const json_t *strategy = json_object_get(json, "strategy");
    const char *token = "[PAD]";
    out->fixed = -1;
    if (json_is_object(strategy))
        TRY(json_get_int(&out->fixed, strategy, "padding: strategy", "Fixed", 0, 1 << 24, true, err));
    else if (!json_is_string(strategy) || strcmp(json_string_value(strategy), "BatchLongest"))
        FAIL(err, CB_E_FORMAT, "%s: padding: strategy: found %s; \"BatchLongest\" or {\"Fixed\": length} is wanted", name,
             json_text(strategy, shown));
    TRY(direction_read(&out->left, json, "padding", err));
    TRY(json_get_int(&out->multiple, json, "padding", "pad_to_multiple_of", 0, 1 << 24, false, err));
    TRY(json_get_int(&out->id, json, "padding", "pad_id", 0, INT32_MAX, false, err));
    TRY(json_get_int(&out->type, json, "padding", "pad_type_id", 0, INT32_MAX, false, err));
    TRY(json_get_str(&token, json, "padding", "pad_token", false, err));
    if (!(out->token = arena_strdup(t->arena, token))) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    out->on = true;
    return CB_OK;
}

/* ---- the whole file */

static enum cb_status keys_check(const json_t *json, const char *name, struct cb_err *err) {
    static const char *const known[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model"};
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)(uintptr_t)json, key, value) {
        bool found = json_is_null(value);
        for (size_t i = 0; i < sizeof known / sizeof *known && !found; i++) found = !strcmp(key, known[i]);
        if (!found) FAIL(err, CB_E_FORMAT, "%s: %.60s: an unknown key; version 1.0 has none of that name", name, key);
    }
    const char *version = "1.0";
    TRY(json_get_str(&version, json, name, "version", false, err));
    if (strcmp(version, "1.0")) FAIL(err, CB_E_UNSUPPORTED, "%s: version: found \"%.40s\"; \"1.0\" is wanted", name, version);
    return CB_OK;
}

static const char *const role_keys[ROLE_COUNT] = {"normalizer", "pre_tokenizer", "post_processor", "decoder"};

static enum cb_status tokenizer_read(struct tokenizer *t, const json_t *json, const char *name, struct cb_err *err) {
    TRY(keys_check(json, name, err));
    TRY(model_read(t, json_object_get(json, "model"), name, err));
    for (int role = 0; role < ROLE_COUNT; role++) {
        const json_t *part = json_object_get(json, role_keys[role]);
        if (part_read(t, &t->part[role], (enum part_role)role, part, role_keys[role], 0, err)) return err_prefix(err, "%s", name);
    }
    TRY(added_read(t, json_object_get(json, "added_tokens"), name, err));
    TRY(truncation_read(t, json_object_get(json, "truncation"), name, err));
    TRY(padding_read(t, json_object_get(json, "padding"), name, err));
    return tokenizer_finish(t, name, err);
}

void message_clean(struct cb_err *err) {
    if (!err) return;
    size_t n = strlen(err->message);
    for (size_t at = 0; at < n; at++) {
        at += utf8_check(err->message + at, n - at);
        if (at < n) err->message[at] = '?';
    }
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)err->message[i] < 32 || err->message[i] == 127) err->message[i] = '?';
}

static enum cb_status bytes_read(struct tokenizer *t, const char *bytes, size_t n, struct json_scan *scan, const char *name,
                                 struct cb_err *err) {
    bool found;
    json_t *json = NULL;
    TRY(json_scan(scan, &found, t->arena, bytes, n, err));
    TRY(found ? json_parse_object(&json, scan->rest, scan->n_rest, name, err) : json_parse_object(&json, bytes, n, name, err));
    if (found) t->scan = scan;
    enum cb_status status = tokenizer_read(t, json, name, err);
    t->scan = NULL;
    json_decref(json);
    return status;
}

enum cb_status tokenizer_load_bytes(struct tokenizer **tokenizer, const char *bytes, size_t n, const char *name, struct cb_err *err) {
    *tokenizer = NULL;
    size_t good = utf8_check(bytes, n);
    if (good < n) FAIL(err, CB_E_FORMAT, "%s: byte 0x%02x at %zu is not UTF-8", name, (unsigned char)bytes[good], good);
    struct json_scan scan = {0};
    enum cb_status status = tokenizer_create(tokenizer, err);
    if (!status) status = bytes_read(*tokenizer, bytes, n, &scan, name, err);
    json_scan_deinit(&scan);
    if (status) tokenizer_destroy(tokenizer), message_clean(err);
    return status;
}

/* ---- writing */

static json_t *added_write(const struct tokenizer *t) {
    json_t *list = json_array();
    for (int32_t id = 0; id < t->size && list; id++) {
        const struct added_token *a = t->added_of[id] ? &t->added[t->added_of[id] - 1] : NULL;
        if (!a) continue;
        json_t *one = json_pack("{sisssbsbsbsbsb}", "id", (int)a->id, "content", "", "single_word", a->single_word, "lstrip", a->lstrip,
                                "rstrip", a->rstrip, "normalized", a->normalized && !t->n_late, "special", a->special);
        if (!one || json_object_set_new(one, "content", json_stringn(a->text, a->n)) || json_array_append_new(list, one)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *truncation_write(const struct truncation *in) {
    if (!in->on) return json_null();
    return json_pack("{sssIsssI}", "direction", in->left ? "Left" : "Right", "max_length", (json_int_t)in->max_length, "strategy",
                     strategies[in->strategy], "stride", (json_int_t)in->stride);
}

static json_t *padding_write(const struct padding *in) {
    if (!in->on) return json_null();
    json_t *strategy = in->fixed < 0 ? json_string("BatchLongest") : json_pack("{sI}", "Fixed", (json_int_t)in->fixed);
    return json_pack("{sossso?sIsIss}", "strategy", strategy, "direction", in->left ? "Left" : "Right", "pad_to_multiple_of",
                     in->multiple ? json_integer(in->multiple) : NULL, "pad_id", (json_int_t)in->id, "pad_type_id", (json_int_t)in->type,
                     "pad_token", in->token);
}

enum cb_status tokenizer_to_json(const struct tokenizer *tokenizer, char **bytes, size_t *n, struct cb_err *err) {
    const struct tokenizer *t = tokenizer;
    *bytes = NULL, *n = 0;
    if (t->n_shown && t->n_shown < t->vocab.size && t->model != &unigram_model)
        FAIL(err, CB_E_UNSUPPORTED, "tokenizer: %d pieces of its model have no id; a tokenizer.json cannot say that of BPE",
             (int)(t->vocab.size - t->n_shown));
    json_t *json = json_object(), *model = json_object();
    enum cb_status status = CB_OK;
    int bad = json_object_set_new(json, "version", json_string("1.0"));
    bad |= json_object_set_new(json, "truncation", truncation_write(&t->truncation));
    bad |= json_object_set_new(json, "padding", padding_write(&t->padding));
    bad |= json_object_set_new(json, "added_tokens", added_write(t));
    for (int role = 0; role < ROLE_COUNT && !status; role++) {
        json_t *part = NULL;
        status = part_write(t->part[role], &part, err);
        if (!status) bad |= json_object_set_new(json, role_keys[role], part);
    }
    bad |= json_object_set_new(model, "type", json_string(t->model->type));
    if (!status) status = t->model->write(t, model, err);
    bad |= json_object_set(json, "model", model);
    if (!status && bad) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "tokenizer: no memory to write it");
    if (!status) status = json_dump(bytes, json, 2, err);
    if (!status) *n = strlen(*bytes);
    json_decref(model);
    json_decref(json);
    return status;
}
