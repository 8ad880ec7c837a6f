/* Components of tokenizer.json read and written by the field tables of their kinds. */
#include <stdio.h>

#include "text/parts.h"
#include "text/utf8.h"

#define PART_DEPTH 32

static const char *const role_names[ROLE_COUNT] = {"normalizer", "pre_tokenizer", "post_processor", "decoder"};

static const struct part_kind *kind_find(enum part_role role, const char *type) {
    const struct part_kind *const *const registry[ROLE_COUNT] = {normalizer_kinds, pre_tokenizer_kinds, post_processor_kinds,
                                                                 decoder_kinds};
    for (const struct part_kind *const *kind = registry[role]; *kind; kind++)
        if (!strcmp((*kind)->type, type)) return *kind;
    return NULL;
}

static struct part *part_new(struct tokenizer *t, const struct part_kind *kind) {
    struct part *part = arena_alloc(t->arena, sizeof *part);
    if (!part) return NULL;
    part->kind = kind;
    for (const struct part_field *f = kind->field; f < kind->field + PART_FIELDS && f->type; f++) {
        if (f->type == FIELD_FLAG) part->flag[f->slot] = (uint8_t)f->preset;
        if (f->type == FIELD_COUNT || f->type == FIELD_CHOICE) part->number[f->slot] = f->preset;
    }
    return part;
}

struct part *part_make(struct tokenizer *t, enum part_role role, const char *type) {
    return part_new(t, kind_find(role, type));
}

static enum cb_status text_keep(struct tokenizer *t, struct part_text *out, const json_t *json, const char *where, struct cb_err *err) {
    out->n = json_string_length(json);
    out->text = arena_strndup(t->arena, json_string_value(json), out->n);
    if (!out->text) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    return CB_OK;
}

static enum cb_status pattern_read(struct tokenizer *t, struct part *part, int slot, const json_t *json, const char *where,
                                   struct cb_err *err) {
    char shown[JSON_TEXT];
    const json_t *string = json_object_get(json, "String"), *regex = json_object_get(json, "Regex");
    if (json_object_size(json) != 1 || !json_is_string(string ? string : regex))
        FAIL(err, CB_E_FORMAT, "%s: pattern: found %s; {\"String\": text} or {\"Regex\": text} is wanted", where, json_text(json, shown));
    TRY(text_keep(t, &part->text[slot], string ? string : regex, where, err));
    if (string) return CB_OK;
    TRY(regex_create(&part->regex, part->text[slot].text, part->text[slot].n, where, err));
    return tokenizer_keep_regex(t, part->regex, err);
}

static enum cb_status choice_read(struct part *part, const struct part_field *f, const json_t *value, const char *where,
                                  struct cb_err *err) {
    char shown[JSON_TEXT];
    for (int i = 0; json_is_string(value) && f->choice[i]; i++)
        if (!strcmp(f->choice[i], json_string_value(value))) return part->number[f->slot] = i, CB_OK;
    FAIL(err, CB_E_FORMAT, "%s: %s: found %s; \"%s\", \"%s\" or the like is wanted", where, f->key, json_text(value, shown), f->choice[0],
         f->choice[1]);
}

/* ["text", id] */
static enum cb_status token_read(struct tokenizer *t, struct part *part, const struct part_field *f, const json_t *value, const char *where,
                                 struct cb_err *err) {
    char shown[JSON_TEXT];
    const json_t *text = json_array_get(value, 0), *id = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_string(text) || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) > INT32_MAX)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; [token, id] is wanted", where, f->key, json_text(value, shown));
    part->number[f->slot] = json_integer_value(id);
    return text_keep(t, &part->text[f->slot], text, where, err);
}

static enum cb_status parts_read(struct tokenizer *t, struct part *part, const struct part_field *f, const json_t *value,
                                 enum part_role role, const char *where, int depth, struct cb_err *err) {
    char shown[JSON_TEXT];
    if (!json_is_array(value)) FAIL(err, CB_E_FORMAT, "%s: %s: found %s; a list is wanted", where, f->key, json_text(value, shown));
    size_t n = json_array_size(value);
    part->part = arena_array(t->arena, n + 1, sizeof(struct part *));
    if (!part->part) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    for (size_t i = 0; i < n; i++) {
        TRY(part_read(t, &part->part[i], role, json_array_get(value, i), where, depth + 1, err));
        if (!part->part[i]) FAIL(err, CB_E_FORMAT, "%s: %s: entry %zu is null; a component is wanted", where, f->key, i);
        part->n_parts++;
    }
    return CB_OK;
}

static enum cb_status field_read(struct tokenizer *t, struct part *part, const struct part_field *f, const json_t *json,
                                 enum part_role role, const char *where, int depth, struct cb_err *err) {
    const json_t *value = json_object_get(json, f->key);
    char shown[JSON_TEXT];
    if (!value || json_is_null(value)) {
        if (f->required) FAIL(err, CB_E_FORMAT, "%s: %s: found %s; it is wanted", where, f->key, value ? "null" : "nothing");
        return CB_OK;
    }
    uint32_t cp = 0;
    switch (f->type) {
        case FIELD_END: return CB_OK;
        case FIELD_FLAG:
            if (!json_is_boolean(value))
                FAIL(err, CB_E_FORMAT, "%s: %s: found %s; true or false is wanted", where, f->key, json_text(value, shown));
            part->flag[f->slot] = json_is_true(value);
            return CB_OK;
        case FIELD_TEXT:
            if (!json_is_string(value)) FAIL(err, CB_E_FORMAT, "%s: %s: found %s; text is wanted", where, f->key, json_text(value, shown));
            return text_keep(t, &part->text[f->slot], value, where, err);
        case FIELD_CHAR:
            if (!json_is_string(value) || !json_string_length(value) ||
                (size_t)utf8_decode(json_string_value(value), json_string_length(value), &cp) != json_string_length(value))
                FAIL(err, CB_E_FORMAT, "%s: %s: found %s; one character is wanted", where, f->key, json_text(value, shown));
            part->number[f->slot] = cp;
            return text_keep(t, &part->text[f->slot], value, where, err);
        case FIELD_COUNT: return json_get_int(&part->number[f->slot], json, where, f->key, 0, 1 << 30, true, err);
        case FIELD_CHOICE: return choice_read(part, f, value, where, err);
        case FIELD_PATTERN: return pattern_read(t, part, f->slot, value, where, err);
        case FIELD_TOKEN: return token_read(t, part, f, value, where, err);
        case FIELD_PARTS: return parts_read(t, part, f, value, role, where, depth, err);
    }
    return CB_OK;
}

enum cb_status part_read(struct tokenizer *t, struct part **out, enum part_role role, const json_t *json, const char *where, int depth,
                         struct cb_err *err) {
    char shown[JSON_TEXT], place[160];
    *out = NULL;
    if (!json || json_is_null(json)) return CB_OK;
    if (depth > PART_DEPTH) FAIL(err, CB_E_LIMIT, "%s: %s nested to a depth over %d", where, role_names[role], PART_DEPTH);
    const json_t *type = json_object_get(json, "type");
    if (!json_is_string(type))
        FAIL(err, CB_E_FORMAT, "%s: %s: type: found %s; a name is wanted", where, role_names[role], json_text(type, shown));
    const struct part_kind *kind = kind_find(role, json_string_value(type));
    if (!kind) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: type \"%.60s\" is not known", where, role_names[role], json_string_value(type));
    struct part *part = part_new(t, kind);
    if (!part) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    snprintf(place, sizeof place, "%s %s", role_names[role], kind->type);
    for (const struct part_field *f = kind->field; f < kind->field + PART_FIELDS && f->type; f++)
        TRY(field_read(t, part, f, json, role, place, depth, err));
    if (kind->read) TRY(kind->read(t, part, json, place, err));
    *out = part;
    return CB_OK;
}

static json_t *parts_write(const struct part *part, struct cb_err *err) {
    json_t *list = json_array();
    for (int i = 0; i < part->n_parts && list; i++) {
        json_t *one = NULL;
        if (part_write(part->part[i], &one, err) || json_array_append_new(list, one)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *field_write(const struct part *part, const struct part_field *f, struct cb_err *err) {
    const struct part_text *text = &part->text[f->slot];
    switch (f->type) {
        case FIELD_FLAG: return part->flag[f->slot] > 1 ? json_null() : json_boolean(part->flag[f->slot]);
        case FIELD_TEXT:
        case FIELD_CHAR: return json_stringn(text->text ? text->text : "", text->n);
        case FIELD_COUNT: return json_integer(part->number[f->slot]);
        case FIELD_CHOICE: return json_string(f->choice[part->number[f->slot]]);
        case FIELD_PATTERN: return json_pack("{ss%}", part->regex ? "Regex" : "String", text->text, text->n);
        case FIELD_TOKEN: return json_pack("[s%I]", text->text, text->n, (json_int_t)part->number[f->slot]);
        case FIELD_PARTS: return parts_write(part, err);
        case FIELD_END: break;
    }
    return NULL;
}

enum cb_status part_write(const struct part *part, json_t **json, struct cb_err *err) {
    *json = part ? json_object() : json_null();
    if (!part) return CB_OK;
    int bad = json_object_set_new(*json, "type", json_string(part->kind->type));
    for (const struct part_field *f = part->kind->field; f < part->kind->field + PART_FIELDS && f->type; f++)
        bad |= json_object_set_new(*json, f->key, field_write(part, f, err));
    enum cb_status status = bad ? err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to write it", part->kind->type) : CB_OK;
    if (!status && part->kind->write) status = part->kind->write(part, *json, err);
    if (status) json_decref(*json), *json = NULL;
    return status;
}
