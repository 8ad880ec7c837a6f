/* Labelled examples: records read, labels numbered, texts and words encoded; then batches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "data/labelled_private.h"
#include "data/permute.h"

static bool is_whole(const char *text, long long *number) {
    char *end;
    *number = strtoll(text, &end, 10);
    return *text && !*end;
}

/* Whole numbers by value, before words by their bytes. */
static int compare_names(const void *a, const void *b) {
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    long long i, k;
    bool x_whole = is_whole(x, &i), y_whole = is_whole(y, &k);
    if (x_whole && y_whole) return (i > k) - (i < k);
    return x_whole != y_whole ? (x_whole ? -1 : 1) : strcmp(x, y);
}

/* ---- reading */
enum cb_status labelled_grow(struct labelled *l, int64_t tokens, struct cb_err *err) {
    if (l->n_rows == l->examples_size) {
        int64_t size = l->examples_size ? 2 * l->examples_size : 256;
        struct example *grown = realloc(l->example, (size_t)size * sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
        l->example = grown;
        for (int i = 0; i < l->n_fields; i++) {
            int32_t *number = realloc(l->field[i].number, (size_t)size * sizeof *number);
            if (!number) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
            l->field[i].number = number;
        }
        l->examples_size = size;
    }
    if (l->n_tokens + tokens <= l->tokens_size) return CB_OK;
    int64_t size = l->tokens_size ? l->tokens_size : 4096;
    while (size < l->n_tokens + tokens) size *= 2;
    void **lists[] = {(void **)&l->ids, (void **)&l->types, (void **)&l->tags, (void **)&l->from, (void **)&l->to};
    for (int i = 0; i < (l->kind == LABELLED_SPAN ? 5 : 3); i++) {
        void *grown = realloc(*lists[i], (size_t)size * sizeof(int32_t));
        if (!grown) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
        *lists[i] = grown;
    }
    l->tokens_size = size;
    return CB_OK;
}

/* Whether a whole number in the data can only be a label's number: no label of the known set is called so. */
static bool are_words(const struct labels *known) {
    long long number;
    bool are = known && known->n;
    for (int i = 0; known && i < known->n; i++) are &= !is_whole(known->name[i], &number);
    return are;
}

/* The number of a label by its text, or by itself; a known set takes no others. */
static enum cb_status number_of(struct build *b, const char *name, const char *where, const char *key, int32_t *number,
                                struct cb_err *err) {
    const struct labels *labels = b->o->known ? b->o->known : &b->seen;
    *number = labels_find(labels, name);
    if (*number >= 0) return CB_OK;
    long long id = -1;
    if (b->takes_numbers && is_whole(name, &id)) {
        if (id < 0 || id >= labels->n)
            FAIL(err, CB_E_FORMAT, "%s: %s: found %.80s; wanted a number from 0 to %d, or one of the model's labels (%.60s, ...)", where,
                 key, name, labels->n - 1, labels->name[0]);
        *number = (int32_t)id;
        return CB_OK;
    }
    if (b->o->known)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %.80s; wanted one of the model's %d labels (%.60s, ...)", where, key, name, labels->n,
             labels->n ? labels->name[0] : "none");
    *number = b->seen.n;
    return labels_add(&b->seen, name, err);
}

void labelled_rooms(int64_t keep[2], const struct token_list *list, int64_t seq, bool first_gives_way) {
    int64_t n[2] = {0, 0}, around = 0;
    for (size_t i = 0; i < list->n; i++) {
        const int sequence = list->token[i].sequence;
        if (sequence == 0 || sequence == 1)
            n[sequence]++;
        else
            around++;
    }
    const int64_t room = seq > around ? seq - around : 0, half = room / 2;
    keep[0] = n[0];
    keep[1] = n[1];
    if (n[0] + n[1] <= room) return;
    const bool is_second_short = first_gives_way || n[1] <= half;
    if (is_second_short)
        keep[1] = n[1] < room ? n[1] : room;
    else
        keep[1] = n[0] < room - half ? room - n[0] : half;
    keep[0] = room - keep[1];
}

enum cb_status labelled_row_add(struct build *b, const int64_t keep[2], const int32_t *tags, int32_t label, float value,
                                struct cb_err *err) {
    struct labelled *l = b->out;
    const int64_t most = (int64_t)b->list.n < b->o->seq ? (int64_t)b->list.n : b->o->seq;
    int64_t seen[2] = {0, 0};
    TRY(labelled_grow(l, most, err));
    struct example e = {.begin = l->n_tokens, .label = label, .set = b->set, .value = value};
    for (size_t i = 0; i < b->list.n && e.n < most; i++) {
        const struct token *t = &b->list.token[i];
        if ((t->sequence == 0 || t->sequence == 1) && seen[t->sequence]++ >= keep[t->sequence]) continue;
        l->ids[l->n_tokens] = t->id;
        l->types[l->n_tokens] = t->type;
        l->tags[l->n_tokens++] = tags ? tags[i] : LABELLED_IGNORE;
        e.n++;
    }
    l->example[l->n_rows++] = e;
    if (e.n > l->info.longest) l->info.longest = e.n;
    return CB_OK;
}

/* The encoder's tokens; each token's tag is given, or the label of the example. */
static enum cb_status example_add(struct build *b, const int32_t *tags, int32_t label, float value, struct cb_err *err) {
    int64_t keep[2];
    labelled_rooms(keep, &b->list, b->o->seq, false);
    b->out->info.cut += (int64_t)b->list.n > b->o->seq;
    return labelled_row_add(b, keep, tags, label, value, err);
}

/* A label as text: strings as they are, numbers as JSON has them. */
static const char *label_text(const json_t *label, char text[JSON_TEXT]) {
    return json_is_string(label) ? json_string_value(label) : json_text(label, text);
}

static enum cb_status add_sequence(struct build *b, const struct record *r, const char *where, struct cb_err *err) {
    const json_t *label = json_object_get(r->object, "label"), *second = json_object_get(r->object, "text_b");
    char found[JSON_TEXT], *end;
    int32_t number = 0;
    double value = 0;
    if (second && !json_is_string(second)) FAIL(err, CB_E_FORMAT, "%s: text_b: found %s; wanted a string", where, json_text(second, found));
    const char *text = label_text(label, found);
    if (b->o->kind == LABELLED_NUMBER) {
        value = json_is_string(label) ? strtod(text, &end) : json_number_value(label);
        if (!isfinite(value) || (json_is_string(label) && (end == text || *end)))
            FAIL(err, CB_E_FORMAT, "%s: label: found %.80s; wanted a number", where, text);
    } else {
        TRY(number_of(b, text, where, "label", &number, err));
    }
    b->out->info.has_pairs |= second != NULL;
    if (second)
        TRY(encoder_encode_pair(b->encoder, &b->list, r->text, r->n_text, json_string_value(second), json_string_length(second),
                                ENCODE_SPECIALS, err));
    else
        TRY(encoder_encode(b->encoder, &b->list, r->text, r->n_text, ENCODE_SPECIALS, err));
    if (!b->list.n) FAIL(err, CB_E_FORMAT, "%s: text: found nothing that has tokens; wanted some text", where);
    return example_add(b, NULL, number, (float)value, err);
}

static enum cb_status add_words(struct build *b, const struct record *r, const char *where, struct cb_err *err) {
    const char *key;
    const json_t *words = json_object_get(r->object, "tokens"), *tags = record_tags(r->object, &key);
    const size_t n = json_array_size(words);
    struct text_view *view = calloc(n + 1, sizeof *view);
    int32_t *number = calloc(n + 1, sizeof *number), *of_token = NULL;
    enum cb_status status = view && number ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "labelled data: out of memory");
    for (size_t i = 0; status == CB_OK && i < n; i++) {
        char text[JSON_TEXT];
        const json_t *word = json_array_get(words, i);
        view[i] = (struct text_view){json_string_value(word), json_string_length(word)};
        status = number_of(b, label_text(json_array_get(tags, i), text), where, key, &number[i], err);
    }
    struct encode_input input = {.text = {view}, .n_texts = {n}, .n_sequences = 1, .is_words = true};
    if (status == CB_OK) status = encoder_encode_input(b->encoder, &b->windows, &input, ENCODE_SPECIALS, err);
    const struct token_list *list = status == CB_OK ? &b->windows.list[0] : NULL;
    if (list && !(of_token = malloc((list->n + 1) * sizeof *of_token)))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "labelled data: out of memory");
    // the first token of a word has its tag
    for (size_t i = 0; status == CB_OK && i < list->n; i++) {
        int32_t word = list->token[i].special ? -1 : list->token[i].word,
                before = i && !list->token[i - 1].special ? list->token[i - 1].word : -1;
        of_token[i] = word >= 0 && (size_t)word < n && word != before ? number[word] : LABELLED_IGNORE;
    }
    if (status == CB_OK) {
        struct token_list kept = b->list;
        b->list = *list;
        status = b->list.n ? example_add(b, of_token, 0, 0, err) : CB_OK;
        b->list = kept;
    }
    free(view);
    free(number);
    free(of_token);
    return status;
}

static enum cb_status read_file(struct build *b, const char *path, struct cb_err *err) {
    static const struct {
        enum record_shape shape;
        enum cb_status (*add)(struct build *b, const struct record *r, const char *where, struct cb_err *err);
        const char *json;  // format of files that are called .json; NULL: JSON Lines
    } kinds[] = {[LABELLED_CLASS] = {RECORD_LABEL, add_sequence, NULL},
                 [LABELLED_NUMBER] = {RECORD_LABEL, add_sequence, NULL},
                 [LABELLED_TAGS] = {RECORD_TAGS, add_words, NULL},
                 [LABELLED_SPAN] = {RECORD_QUESTION, labelled_add_span, "squad"},
                 [LABELLED_CHOICE] = {RECORD_CHOICE, labelled_add_choice, NULL}};
    struct records *records;
    const struct reader_kind *format = NULL;
    const struct record *r;
    char where[600];
    int64_t n = b->out->n_rows;
    const char *named = b->o->records.format ? b->o->records.format : reader_is_called(path, ".json") ? kinds[b->o->kind].json : NULL;
    if (named) TRY(reader_by_format(&format, named, err));
    // a list of records is called .json too
    if (format && !b->o->records.format && !reader_fits(format, path)) format = NULL;
    TRY(records_open(&records, path, format, &b->o->records, err));
    enum cb_status status = records_next(records, &r, err);
    const enum record_shape wanted = kinds[b->o->kind].shape;
    for (; status == CB_OK && r; status = status == CB_OK ? records_next(records, &r, err) : status) {
        snprintf(where, sizeof where, "%.500s: %s %lld", path, r->unit, (long long)r->line);
        if (r->shape != wanted)
            status =
                err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: found a record of %s; wanted %s (--column KEY=COLUMN names columns)",
                        where, record_shape_text(r->shape), record_shape_text(wanted));
        else
            status = kinds[b->o->kind].add(b, r, where, err);
        // one without tokens is none
        if (status == CB_OK && b->out->n_rows > n) status = labelled_fields_keep(b->out, r, b->out->n_rows - n, err);
        n = b->out->n_rows;
        if (status != CB_OK) break;
    }
    records_close(&records);
    return status;
}

/* Labels get their numbers by the order of their names. */
static enum cb_status labels_settle(struct build *b, struct cb_err *err) {
    struct labelled *l = b->out;
    const struct labels *from = b->o->known ? b->o->known : &b->seen;
    l->labels.pad = b->o->pad;
    if (!from->n) return CB_OK;
    char **order = malloc((size_t)from->n * sizeof *order);
    if (!order) FAIL(err, CB_E_MEMORY, "labels: out of memory");
    memcpy(order, from->name, (size_t)from->n * sizeof *order);
    if (!b->o->known) qsort(order, (size_t)from->n, sizeof *order, compare_names);
    enum cb_status status = CB_OK;
    for (int i = 0; status == CB_OK && i < from->n; i++) status = labels_add(&l->labels, order[i], err);
    free(order);
    if (status != CB_OK || b->o->known) return status;
    for (int64_t i = 0; i < l->n_rows && l->kind == LABELLED_CLASS; i++)
        l->example[i].label = labels_find(&l->labels, b->seen.name[l->example[i].label]);
    for (int64_t i = 0; i < l->n_tokens && l->kind == LABELLED_TAGS; i++)
        if (l->tags[i] >= 0) l->tags[i] = labels_find(&l->labels, b->seen.name[l->tags[i]]);
    return CB_OK;
}

static void hash_all(struct labelled *l) {
    uint64_t h = HASH_START;
    for (int64_t i = 0; i < l->n_tokens; i++) h = hash_word(h, (uint32_t)l->ids[i] ^ (uint64_t)(uint32_t)l->tags[i] << 32);
    for (int64_t i = 0; i < l->n_rows; i++) {
        uint32_t bits;
        memcpy(&bits, &l->example[i].value, sizeof bits);
        if (l->kind == LABELLED_SPAN) bits ^= (uint32_t)l->example[i].end;
        h = hash_word(h, (uint32_t)l->example[i].label ^ (uint64_t)bits << 32 ^ (uint64_t)l->example[i].n);
    }
    for (int k = 0; k < l->n_fields; k++)
        for (int64_t i = 0; i < l->n_rows && !l->field[k].is_left_out; i++) h = hash_word(h, (uint32_t)l->field[k].number[i]);
    l->info.hash = h;
}

enum cb_status labelled_load(struct labelled **labelled, const char *const *paths, int n, const struct tokenizer *tokenizer,
                             const struct labelled_options *o, struct cb_err *err) {
    struct labelled *l = calloc(1, sizeof *l);
    struct build b = {.out = l, .o = o, .takes_numbers = o->kind == LABELLED_TAGS && are_words(o->known)};
    *labelled = NULL;
    if (!l) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
    l->kind = o->kind;
    enum cb_status status = encoder_create(&b.encoder, tokenizer, err);
    for (int i = 0; status == CB_OK && i < n; i++) {
        b.set = o->sets ? o->sets[i] : 0;
        status = read_file(&b, paths[i], err);
    }
    l->info.n = l->item ? l->info.n : l->n_rows;
    l->info.rows = l->info.rows > 1 ? l->info.rows : 1;
    if (status == CB_OK && !l->info.n) status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: no examples", n ? paths[0] : "data");
    if (status == CB_OK) status = labels_settle(&b, err);
    if (status == CB_OK) hash_all(l);
    encoder_destroy(&b.encoder);
    token_list_deinit(&b.list);
    token_windows_deinit(&b.windows);
    labels_deinit(&b.seen);
    if (status != CB_OK) labelled_destroy(&l);
    *labelled = l;
    return status;
}

void labelled_destroy(struct labelled **labelled) {
    struct labelled *l = *labelled;
    *labelled = NULL;
    if (!l) return;
    labels_deinit(&l->labels);
    for (int i = 0; i < l->n_fields; i++) {
        labels_deinit(&l->field[i].values);
        free(l->field[i].name);
        free(l->field[i].number);
    }
    free(l->example);
    free(l->ids);
    free(l->types);
    free(l->tags);
    free(l->from);
    free(l->to);
    free(l->item);
    for (int64_t i = 0; i < l->info.questions; i++) {
        json_decref(l->question[i].context);
        json_decref(l->question[i].answers);
        json_decref(l->question[i].id);
    }
    free(l->question);
    free(l);
}

const struct labelled_info *labelled_info(const struct labelled *l) { return &l->info; }
const struct labels *labelled_labels(const struct labelled *l) { return &l->labels; }
const struct labelled_question *labelled_question(const struct labelled *l, int64_t row) { return &l->question[l->example[row].question]; }

bool labelled_bytes(const struct labelled *l, int64_t row, int64_t t, uint32_t *begin, uint32_t *end) {
    const struct example *e = &l->example[row];
    if (t < e->context_begin || t >= e->context_end) return false;
    *begin = l->from[e->begin + t];
    *end = l->to[e->begin + t];
    return true;
}

/* ---- batches */
/* Row of a batch from an example; NULL: padding. */
static void row_fill(const struct labelled *l, const struct labelled_batch *to, int64_t row, const struct example *e) {
    const int64_t at = row * to->seq, n = !e ? 0 : e->n < to->seq ? e->n : to->seq;
    for (int64_t i = 0; i < to->seq; i++) {
        bool is_token = i < n;
        to->ids[at + i] = is_token ? l->ids[e->begin + i] : to->pad;
        to->mask[at + i] = is_token || (i == 0 && !e);  // a row sees something always
        if (to->types) to->types[at + i] = is_token ? l->types[e->begin + i] : 0;
        if (l->kind == LABELLED_TAGS) to->labels[at + i] = is_token ? l->tags[e->begin + i] : LABELLED_IGNORE;
    }
    for (int k = 0; k < to->n_fields; k++) to->field[k][row] = e ? to->number[k][e - l->example] : 0;
    if (l->kind == LABELLED_CLASS) to->labels[row] = e ? e->label : LABELLED_IGNORE;
    if (l->kind == LABELLED_NUMBER) to->values[row] = e ? e->value : 0;
    // places behind the row are learnt by nothing
    if (to->start) to->start[row] = e ? e->label : (int32_t)to->seq;
    if (to->end) to->end[row] = e ? e->end : (int32_t)to->seq;
    if (to->choices) to->choices[row] = e != NULL;
    if (to->sets) to->sets[row] = e ? e->set : 0;
}

/* The rows of an example at its place in a batch; negative: padding. */
static void item_fill(const struct labelled *l, const struct labelled_batch *to, int64_t place, int64_t item) {
    const int64_t rows = l->info.rows, first = l->item && item >= 0 ? l->item[item] : item;
    const int64_t n = item < 0 ? 0 : !l->item ? 1 : (item + 1 < l->info.n ? l->item[item + 1] : l->n_rows) - first;
    for (int64_t i = 0; i < rows; i++) row_fill(l, to, place * rows + i, i < n ? &l->example[first + i] : NULL);
    if (l->kind != LABELLED_CHOICE) return;
    to->labels[place] = n ? l->example[first].label : LABELLED_IGNORE;
    if (!n) to->choices[place * rows] = 1;
    // what stands in for choices that there are none of belongs to the example's set
    for (int64_t i = n; to->sets && n && i < rows; i++) to->sets[place * rows + i] = l->example[first].set;
}

/* The first example whose set is not below: they do not fall. */
static int64_t set_begin(const struct labelled *l, int set) {
    int64_t low = 0, high = l->info.n;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (l->example[l->item ? l->item[middle] : middle].set < set)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int64_t labelled_set_size(const struct labelled *l, int set) { return set_begin(l, set + 1) - set_begin(l, set); }

void labelled_fill_row(const struct labelled *l, const struct labelled_batch *to, int64_t place, int set, uint64_t seed, int64_t index) {
    const int64_t first = set_begin(l, set);
    const uint64_t n = (uint64_t)(set_begin(l, set + 1) - first), at = (uint64_t)index;
    item_fill(l, to, place, first + (int64_t)permute(at % n, n, seed ^ (uint64_t)set, at / n));
}

void labelled_fill(const struct labelled *l, const struct labelled_batch *to, uint64_t seed, int64_t index) {
    for (int64_t place = 0; place < to->batch; place++) {
        uint64_t at = (uint64_t)(index * to->batch + place), n = (uint64_t)l->info.n;
        item_fill(l, to, place, (int64_t)permute(at % n, n, seed, at / n));
    }
}

void labelled_fill_from(const struct labelled *l, const struct labelled_batch *to, int64_t first) {
    for (int64_t place = 0; place < to->batch; place++) item_fill(l, to, place, first + place < l->info.n ? first + place : -1);
}
