/* Questions with choices: each choice is a row behind the question, and one of them is right. */
#include <stdlib.h>
#include <string.h>

#include "data/labelled_private.h"

/* What the choices follow: text, question, sent1, those that the record has with a space between them. *out: owned by caller, free(). */
static enum cb_status question_text(char **out, size_t *n, const struct record *r, const char *where, struct cb_err *err) {
    static const char *const keys[] = {"text", "question", "sent1"};
    size_t size = 1;
    for (size_t i = 0; i < 3; i++) size += json_string_length(json_object_get(r->object, keys[i])) + 1;
    *n = 0;
    if (!(*out = malloc(size))) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    for (size_t i = 0; i < 3; i++) {
        const json_t *text = json_object_get(r->object, keys[i]);
        if (!json_is_string(text)) continue;
        if (*n) (*out)[(*n)++] = ' ';
        memcpy(*out + *n, json_string_value(text), json_string_length(text));
        *n += json_string_length(text);
    }
    return CB_OK;
}

/* How many tokens of each sequence stay: the question gives way before its choice does. */
static void rooms(int64_t keep[2], const struct token_list *list, int64_t seq) {
    int64_t around = 0;
    keep[0] = keep[1] = 0;
    for (size_t i = 0; i < list->n; i++) {
        const int sequence = list->token[i].sequence;
        if (sequence == 0 || sequence == 1)
            keep[sequence]++;
        else
            around++;
    }
    const int64_t room = seq > around ? seq - around : 0;
    if (keep[0] + keep[1] <= room) return;
    if (keep[1] > room) keep[1] = room;
    keep[0] = room - keep[1];
}

static enum cb_status row_add(struct build *b, int32_t label, struct cb_err *err) {
    struct labelled *l = b->out;
    const int64_t n = (int64_t)b->list.n < b->o->seq ? (int64_t)b->list.n : b->o->seq;
    int64_t keep[2], seen[2] = {0, 0};
    TRY(labelled_grow(l, n, err));
    rooms(keep, &b->list, b->o->seq);
    struct example e = {.begin = l->n_tokens, .label = label, .set = b->set};
    for (size_t i = 0; i < b->list.n && e.n < n; i++) {
        const struct token *t = &b->list.token[i];
        if ((t->sequence == 0 || t->sequence == 1) && seen[t->sequence]++ >= keep[t->sequence]) continue;
        l->ids[l->n_tokens] = t->id;
        l->types[l->n_tokens] = t->type;
        l->tags[l->n_tokens++] = LABELLED_IGNORE;
        e.n++;
    }
    l->example[l->n_rows++] = e;
    if (e.n > l->info.longest) l->info.longest = e.n;
    return CB_OK;
}

static enum cb_status item_add(struct labelled *l, struct cb_err *err) {
    if (l->info.n == l->items_size) {
        const int64_t size = l->items_size ? 2 * l->items_size : 256;
        int64_t *grown = realloc(l->item, (size_t)size * sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
        l->item = grown;
        l->items_size = size;
    }
    l->item[l->info.n++] = l->n_rows;
    return CB_OK;
}

enum cb_status labelled_add_choice(struct build *b, const struct record *r, const char *where, struct cb_err *err) {
    const json_t *choices = json_object_get(r->object, "choices"), *label = json_object_get(r->object, "label");
    const size_t n = json_array_size(choices);
    const int64_t right = json_is_string(label) ? strtoll(json_string_value(label), NULL, 10) : json_integer_value(label);
    struct labelled *l = b->out;
    bool is_cut = false;
    char *text;
    size_t n_text;
    TRY(question_text(&text, &n_text, r, where, err));
    enum cb_status status = item_add(l, err);
    for (size_t i = 0; status == CB_OK && i < n; i++) {
        const json_t *choice = json_array_get(choices, i);
        status = encoder_encode_pair(b->encoder, &b->list, text, n_text, json_string_value(choice), json_string_length(choice),
                                     ENCODE_SPECIALS, err);
        if (status == CB_OK && !b->list.n)
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: choices[%zu]: found nothing that has tokens; wanted some text",
                             where, i);
        is_cut |= (int64_t)b->list.n > b->o->seq;
        if (status == CB_OK) status = row_add(b, (int32_t)right, err);
    }
    free(text);
    l->info.cut += is_cut;
    l->info.has_pairs = true;
    if ((int64_t)n > l->info.rows) l->info.rows = (int64_t)n;
    return status;
}
