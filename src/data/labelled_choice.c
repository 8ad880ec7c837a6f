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
    int64_t keep[2];
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
        labelled_rooms(keep, &b->list, b->o->seq, true);
        if (status == CB_OK) status = labelled_row_add(b, keep, NULL, (int32_t)right, 0, err);
    }
    free(text);
    l->info.cut += is_cut;
    l->info.has_pairs = true;
    if ((int64_t)n > l->info.rows) l->info.rows = (int64_t)n;
    return status;
}
