/* Post-processors: what is put around the tokens of one or two sequences. */
#include "text/parts.h"
#include "text/unicode.h"
#include "text/utf8.h"

/* ---- building the new list */

static enum cb_status put_special(struct token_list *out, int32_t id, int32_t type, struct cb_err *err) {
    TRY(buffer_grow((void **)&out->token, &out->capacity, out->n + 1, sizeof *out->token, err));
    out->token[out->n++] = (struct token){.id = id, .word = -1, .type = type, .special = true, .attention = true, .sequence = -1};
    return CB_OK;
}

/* Copies the tokens of a sequence; type < 0 leaves theirs. */
static enum cb_status put_sequence(struct token_list *out, const struct token_list *in, int sequence, int32_t type, struct cb_err *err) {
    TRY(buffer_grow((void **)&out->token, &out->capacity, out->n + in->n + 1, sizeof *out->token, err));
    for (size_t i = 0; i < in->n; i++) {
        if (in->token[i].sequence != sequence) continue;
        out->token[out->n] = in->token[i];
        if (type >= 0) out->token[out->n].type = type;
        out->n++;
    }
    return CB_OK;
}

static void list_take(struct token_list *list, struct token_list *new) {
    token_list_deinit(list);
    *list = *new;
}

/* ---- ByteLevel: white space at the edges of tokens does not count as their text */

static bool is_edge_space(uint32_t cp) { return cp == byte_to_char(' ') || unicode_is_space(cp); }

static void count_spaces(const char *text, size_t n, uint32_t *leading, uint32_t *trailing) {
    uint32_t cp = 0;
    *leading = *trailing = 0;
    bool front = true;
    for (size_t at = 0, length; at < n; at += length) {
        length = (size_t)utf8_decode(text + at, n - at, &cp);
        if (!length) length = 1;
        bool space = is_edge_space(cp);
        front = front && space;
        *leading += front;
        *trailing = space ? *trailing + 1 : 0;
    }
}

static void trim_offsets(const struct encoder *e, struct token_list *list, bool prefix_space) {
    size_t seen[2] = {0, 0};
    for (size_t i = 0; i < list->n; i++) {
        struct token *token = &list->token[i];
        bool first = token->sequence >= 0 && !seen[token->sequence]++;
        uint32_t leading, trailing;
        size_t n;
        const char *text = encoder_text(e, token, &n);
        if (!text) continue;
        count_spaces(text, n, &leading, &trailing);
        if (leading == 1 && (first || !token->begin) && prefix_space) leading = 0;  // the one that was put there
        token->begin = token->begin + leading < token->end ? token->begin + leading : token->end;
        if (trailing && token->end >= trailing) token->end = token->end - trailing > token->begin ? token->end - trailing : token->begin;
    }
}

static enum cb_status bytelevel(const struct part *part, struct encoder *e, struct token_list *list, int n_sequences, bool specials,
                                struct cb_err *err) {
    (void)n_sequences, (void)specials, (void)err;
    if (part->flag[1]) trim_offsets(e, list, part->flag[0]);
    return CB_OK;
}
static const struct part_kind bytelevel_kind = {.type = "ByteLevel",
                                                .field = {{"add_prefix_space", FIELD_FLAG, 0, .preset = 1},
                                                          {"trim_offsets", FIELD_FLAG, 1, .preset = 1},
                                                          {"use_regex", FIELD_FLAG, 2, .preset = 1}},
                                                .process = bytelevel};

/* ---- BERT and RoBERTa: slot 0 is sep, slot 1 cls */

static enum cb_status bert(const struct part *part, struct encoder *e, struct token_list *list, int n_sequences, bool specials,
                           struct cb_err *err) {
    (void)e;
    if (!specials) return CB_OK;
    int32_t sep = (int32_t)part->number[0], cls = (int32_t)part->number[1];
    struct token_list out = {0};
    enum cb_status status = put_special(&out, cls, 0, err);
    if (!status) status = put_sequence(&out, list, 0, 0, err);
    if (!status) status = put_special(&out, sep, 0, err);
    if (!status && n_sequences == 2) status = put_sequence(&out, list, 1, 1, err);
    if (!status && n_sequences == 2) status = put_special(&out, sep, 1, err);
    if (!status) return list_take(list, &out), CB_OK;
    token_list_deinit(&out);
    return status;
}
static const struct part_kind bert_kind = {.type = "BertProcessing",
                                           .field = {{"sep", FIELD_TOKEN, 0, .required = true}, {"cls", FIELD_TOKEN, 1, .required = true}},
                                           .process = bert};

static enum cb_status roberta(const struct part *part, struct encoder *e, struct token_list *list, int n_sequences, bool specials,
                              struct cb_err *err) {
    if (part->flag[2]) trim_offsets(e, list, part->flag[3]);
    for (size_t i = 0; i < list->n; i++) list->token[i].type = 0;
    if (!specials) return CB_OK;
    int32_t sep = (int32_t)part->number[0], cls = (int32_t)part->number[1];
    struct token_list out = {0};
    enum cb_status status = put_special(&out, cls, 0, err);
    if (!status) status = put_sequence(&out, list, 0, 0, err);
    if (!status) status = put_special(&out, sep, 0, err);
    if (!status && n_sequences == 2) status = put_special(&out, sep, 0, err);
    if (!status && n_sequences == 2) status = put_sequence(&out, list, 1, 0, err);
    if (!status && n_sequences == 2) status = put_special(&out, sep, 0, err);
    if (!status) return list_take(list, &out), CB_OK;
    token_list_deinit(&out);
    return status;
}
static const struct part_kind roberta_kind = {.type = "RobertaProcessing",
                                              .field = {{"sep", FIELD_TOKEN, 0, .required = true},
                                                        {"cls", FIELD_TOKEN, 1, .required = true},
                                                        {"trim_offsets", FIELD_FLAG, 2, .preset = 1},
                                                        {"add_prefix_space", FIELD_FLAG, 3, .preset = 1}},
                                              .process = roberta};

/* ---- TemplateProcessing */

struct template_piece {
    int sequence;  // 0, 1; -1 for a special
    int special;
    int32_t type;
};
struct template_special {
    struct part_text name;
    int32_t *id;
    struct part_text *token;
    size_t n;
};
struct template_data {
    struct template_piece *side[2];  // single, pair
    size_t n[2];
    struct template_special *special;
    size_t n_specials;
};

static enum cb_status text_copy(struct tokenizer *t, struct part_text *out, const char *text, size_t n, struct cb_err *err) {
    *out = (struct part_text){arena_strndup(t->arena, text, n), n};
    if (!out->text) FAIL(err, CB_E_MEMORY, "post_processor: no memory");
    return CB_OK;
}

static enum cb_status special_read(struct tokenizer *t, struct template_special *s, const char *name, const json_t *json, const char *where,
                                   struct cb_err *err) {
    char shown[JSON_TEXT];
    const json_t *ids = json_object_get(json, "ids"), *tokens = json_object_get(json, "tokens");
    if (!json_is_array(ids) || !json_is_array(tokens) || json_array_size(ids) != json_array_size(tokens))
        FAIL(err, CB_E_FORMAT, "%s: special_tokens %.60s: found %s; ids and tokens of one length are wanted", where, name,
             json_text(json, shown));
    s->n = json_array_size(ids);
    TRY(text_copy(t, &s->name, name, strlen(name), err));
    s->id = arena_array(t->arena, s->n + 1, sizeof *s->id);
    s->token = arena_array(t->arena, s->n + 1, sizeof *s->token);
    if (!s->id || !s->token) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    for (size_t i = 0; i < s->n; i++) {
        const json_t *id = json_array_get(ids, i), *token = json_array_get(tokens, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX || !json_is_string(token))
            FAIL(err, CB_E_FORMAT, "%s: special_tokens %.60s: found %s; an id and a token are wanted", where, name, json_text(id, shown));
        s->id[i] = (int32_t)json_integer_value(id);
        TRY(text_copy(t, &s->token[i], json_string_value(token), json_string_length(token), err));
    }
    return CB_OK;
}

static enum cb_status piece_read(const struct template_data *data, struct template_piece *out, const json_t *json, const char *where,
                                 const char *side, struct cb_err *err) {
    char shown[JSON_TEXT];
    const json_t *sequence = json_object_get(json, "Sequence"), *special = json_object_get(json, "SpecialToken"),
                 *body = sequence ? sequence : special;
    const char *id = NULL;
    int64_t type = 0;
    if (!json_is_object(body))
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; Sequence or SpecialToken is wanted", where, side, json_text(json, shown));
    TRY(json_get_str(&id, body, where, "id", true, err));
    TRY(json_get_int(&type, body, where, "type_id", 0, INT32_MAX, false, err));
    out->type = (int32_t)type, out->sequence = -1;
    if (sequence) {
        if (strcmp(id, "A") && strcmp(id, "B")) FAIL(err, CB_E_FORMAT, "%s: %s: Sequence \"%.40s\"; A or B is wanted", where, side, id);
        out->sequence = id[0] - 'A';
        return CB_OK;
    }
    for (size_t i = 0; i < data->n_specials; i++)
        if (!strcmp(data->special[i].name.text, id)) return out->special = (int)i, CB_OK;
    FAIL(err, CB_E_FORMAT, "%s: %s: SpecialToken \"%.60s\" is not in special_tokens", where, side, id);
}

static enum cb_status template_read(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err) {
    static const char *const side[2] = {"single", "pair"};
    struct template_data *data = part->data = arena_alloc(t->arena, sizeof *data);
    const json_t *specials = NULL, *value;
    const char *name;
    TRY(json_get_object(&specials, json, where, "special_tokens", true, err));
    size_t n = json_object_size(specials);
    if (!data || !(data->special = arena_array(t->arena, n + 1, sizeof *data->special))) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    json_object_foreach((json_t *)(uintptr_t)specials, name, value)
        TRY(special_read(t, &data->special[data->n_specials++], name, value, where, err));
    for (int k = 0; k < 2; k++) {
        const json_t *list = NULL;
        bool has[2] = {false, false};
        TRY(json_get_array(&list, json, where, side[k], true, err));
        n = json_array_size(list);
        if (!(data->side[k] = arena_array(t->arena, n + 1, sizeof *data->side[k]))) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
        for (size_t i = 0; i < n; i++) {
            struct template_piece *p = &data->side[k][data->n[k]++];
            TRY(piece_read(data, p, json_array_get(list, i), where, side[k], err));
            if (p->sequence >= 0) has[p->sequence] = true;
        }
        if (k == 1 && (!has[0] || !has[1]))
            FAIL(err, CB_E_FORMAT, "%s: pair: a template without %s; A and B are wanted", where, has[0] ? "B" : "A");
        if (k == 0 && has[1]) FAIL(err, CB_E_FORMAT, "%s: single: a template with B; A alone is wanted", where);
    }
    return CB_OK;
}

static json_t *side_write(const struct template_data *data, int side) {
    json_t *list = json_array();
    for (size_t i = 0; i < data->n[side]; i++) {
        const struct template_piece *p = &data->side[side][i];
        const char *id = p->sequence == 0 ? "A" : p->sequence == 1 ? "B" : data->special[p->special].name.text;
        if (json_array_append_new(
                list, json_pack("{s{sssi}}", p->sequence < 0 ? "SpecialToken" : "Sequence", "id", id, "type_id", (int)p->type))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static enum cb_status template_write(const struct part *part, json_t *json, struct cb_err *err) {
    const struct template_data *data = part->data;
    json_t *specials = json_object();
    int bad = json_object_set_new(json, "single", side_write(data, 0));
    bad |= json_object_set_new(json, "pair", side_write(data, 1));
    bad |= json_object_set_new(json, "special_tokens", specials);
    for (size_t i = 0; i < data->n_specials && !bad; i++) {
        const struct template_special *s = &data->special[i];
        json_t *one = json_pack("{sss[]s[]}", "id", s->name.text, "ids", "tokens");
        bad |= json_object_set_new(specials, s->name.text, one);
        for (size_t k = 0; k < s->n && !bad; k++) {
            bad |= json_array_append_new(json_object_get(one, "ids"), json_integer(s->id[k]));
            bad |= json_array_append_new(json_object_get(one, "tokens"), json_stringn(s->token[k].text, s->token[k].n));
        }
    }
    if (bad) FAIL(err, CB_E_MEMORY, "post_processor: no memory to write it");
    return CB_OK;
}

static enum cb_status template_fill(const struct template_data *data, int side, struct token_list *out, const struct token_list *in,
                                    bool specials, struct cb_err *err) {
    for (size_t i = 0; i < data->n[side]; i++) {
        const struct template_piece *p = &data->side[side][i];
        if (p->sequence >= 0) TRY(put_sequence(out, in, p->sequence, p->type, err));
        const struct template_special *s = p->sequence < 0 && specials ? &data->special[p->special] : NULL;
        for (size_t k = 0; s && k < s->n; k++) TRY(put_special(out, s->id[k], p->type, err));
    }
    return CB_OK;
}

static enum cb_status template(const struct part *part, struct encoder *e, struct token_list *list, int n_sequences, bool specials,
                               struct cb_err *err) {
    (void)e; struct token_list out = {0}; enum cb_status status = template_fill(part->data, n_sequences - 1, &out, list, specials, err);
    if (!status) return list_take(list, &out), CB_OK;
    token_list_deinit(&out);
    return status;
}
static const struct part_kind template_kind = {
    .type = "TemplateProcessing", .read = template_read, .write = template_write, .process = template};

static enum cb_status sequence(const struct part *part, struct encoder *e, struct token_list *list, int n_sequences, bool specials,
                               struct cb_err *err) {
    for (int i = 0; i < part->n_parts; i++) TRY(part->part[i]->kind->process(part->part[i], e, list, n_sequences, specials, err));
    return CB_OK;
}
static const struct part_kind sequence_kind = {
    .type = "Sequence", .field = {{"processors", FIELD_PARTS, 0, .required = true}}, .process = sequence};

const struct part_kind *const post_processor_kinds[] = {&bert_kind, &bytelevel_kind, &roberta_kind, &sequence_kind, &template_kind, NULL};
