/* Labelled examples: records read, labels numbered, texts and words encoded; then batches. */
#include "data/labelled.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/permute.h"

/* One example: its tokens lie in [begin, begin + n) of the lists of all. */
struct example {
    int64_t begin;
    int32_t n, label, set;
    float value;
};

/* A field of the records beside what is learnt: the values found, and each example's number among them, -1: none. */
struct field {
    char *name;
    struct labels values;
    int32_t *number;
    bool is_left_out;  // too many values: names of examples, free text
};
enum { FIELDS_MOST = 64, FIELD_VALUES_MOST = 256 };

struct labelled {
    enum labelled_kind kind;
    struct field field[FIELDS_MOST];
    int n_fields;
    struct labels labels;
    struct example *example;
    int32_t *ids, *types, *tags;  // of all tokens; tags of LABELLED_TAGS alone
    int64_t n_tokens, tokens_size, examples_size;
    struct labelled_info info;
};

/* ---- names of labels */
void labels_deinit(struct labels *labels) {
    for (int i = 0; i < labels->n; i++) free(labels->name[i]);
    free(labels->name);
    table_deinit(&labels->index);
    *labels = (struct labels){0};
}

int labels_find(const struct labels *labels, const char *name) { return (int)table_get(&labels->index, name, strlen(name)); }

enum cb_status labels_add(struct labels *labels, const char *name, struct cb_err *err) {
    enum { MOST = 1 << 16 };
    if (labels->n == MOST) FAIL(err, CB_E_LIMIT, "labels: more than %d different ones; are they numbers (--task regress)?", MOST);
    if (labels->n == labels->size) {
        int size = labels->size ? 2 * labels->size : 16;
        char **grown = realloc(labels->name, (size_t)size * sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "labels: out of memory");
        labels->name = grown;
        labels->size = size;
    }
    char *own = strdup(name);
    if (!own) FAIL(err, CB_E_MEMORY, "labels: out of memory");
    const int number = labels->n++;
    labels->name[number] = own;
    return labels_find(labels, own) < 0 ? table_put(&labels->index, own, strlen(own), number, err) : CB_OK;
}

/* Whole numbers by value, before words by their bytes. */
static int compare_names(const void *a, const void *b) {
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    char *x_end, *y_end;
    long long i = strtoll(x, &x_end, 10), k = strtoll(y, &y_end, 10);
    bool x_whole = *x && !*x_end, y_whole = *y && !*y_end;
    if (x_whole && y_whole) return (i > k) - (i < k);
    return x_whole != y_whole ? (x_whole ? -1 : 1) : strcmp(x, y);
}

/* ---- reading */
struct build {
    struct labelled *out;
    const struct labelled_options *o;
    struct encoder *encoder;
    struct token_list list;
    struct token_windows windows;
    int set;  // of the file that is being read
    struct labels seen;  // labels in the order of their first sight; examples hold these numbers until the end
};

static enum cb_status grow(struct labelled *l, int64_t tokens, struct cb_err *err) {
    if (l->info.n == l->examples_size) {
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
    int32_t **lists[3] = {&l->ids, &l->types, &l->tags};
    for (int i = 0; i < 3; i++) {
        int32_t *grown = realloc(*lists[i], (size_t)size * sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
        *lists[i] = grown;
    }
    l->tokens_size = size;
    return CB_OK;
}

/* The number of a label by its text; a known set takes no others. */
static enum cb_status number_of(struct build *b, const char *name, const char *where, const char *key, int32_t *number,
                                struct cb_err *err) {
    const struct labels *labels = b->o->known ? b->o->known : &b->seen;
    *number = labels_find(labels, name);
    if (*number >= 0) return CB_OK;
    if (b->o->known)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %.80s; wanted one of the model's %d labels (%.60s, ...)", where, key, name, labels->n,
             labels->n ? labels->name[0] : "none");
    *number = b->seen.n;
    return labels_add(&b->seen, name, err);
}

/* Keeps the encoder's tokens; each token's tag is given, or the label of the example. */
static enum cb_status example_add(struct build *b, const int32_t *tags, int32_t label, float value, struct cb_err *err) {
    struct labelled *l = b->out;
    int64_t n = (int64_t)b->list.n, keep = n < b->o->seq ? n : b->o->seq;
    TRY(grow(l, keep, err));
    for (int64_t i = 0; i < keep; i++) {
        // what is cut off is the text's end: the specials at the end stay
        int64_t from = i;
        if (keep < n && i == keep - 1 && b->list.token[n - 1].special) from = n - 1;
        l->ids[l->n_tokens + i] = b->list.token[from].id;
        l->types[l->n_tokens + i] = b->list.token[from].type;
        l->tags[l->n_tokens + i] = tags ? tags[from] : LABELLED_IGNORE;
    }
    l->example[l->info.n++] = (struct example){l->n_tokens, (int32_t)keep, label, b->set, value};
    l->n_tokens += keep;
    l->info.cut += keep < n;
    if (keep > l->info.longest) l->info.longest = keep;
    return CB_OK;
}

/* A field that is seen for the first time: no example before had it. NULL: no memory. */
static struct field *field_add(struct labelled *l, const char *name) {
    struct field *f = &l->field[l->n_fields];
    *f = (struct field){.name = strdup(name), .number = malloc((size_t)l->examples_size * sizeof *f->number)};
    l->n_fields++;
    if (!f->name || !f->number) return NULL;
    for (int64_t i = 0; i < l->info.n; i++) f->number[i] = -1;
    return f;
}

/* Strings of the last example's record that are not learnt. */
static enum cb_status fields_keep(struct labelled *l, const struct record *r, struct cb_err *err) {
    const char *key;
    json_t *value;
    const int64_t at = l->info.n - 1;
    for (int i = 0; i < l->n_fields; i++) l->field[i].number[at] = -1;
    json_object_foreach((json_t *)r->object, key, value) {
        struct field *f = NULL;
        if (!json_is_string(value) || record_uses(r->shape, key)) continue;
        for (int i = 0; i < l->n_fields && !f; i++)
            if (strcmp(l->field[i].name, key) == 0) f = &l->field[i];
        if (!f && l->n_fields == FIELDS_MOST) continue;
        if (!f && !(f = field_add(l, key))) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
        int number = f->is_left_out ? -1 : labels_find(&f->values, json_string_value(value));
        f->is_left_out |= number < 0 && f->values.n == FIELD_VALUES_MOST;
        if (f->is_left_out) continue;
        if (number < 0) {
            number = f->values.n;
            TRY(labels_add(&f->values, json_string_value(value), err));
        }
        f->number[at] = number;
    }
    return CB_OK;
}

enum cb_status labelled_field(int32_t **numbers, const struct labelled *l, const char *field, const char *const *names, int n,
                              struct cb_err *err) {
    const struct field *f = NULL;
    int32_t map[FIELD_VALUES_MOST];
    *numbers = NULL;
    for (int i = 0; i < l->n_fields && !f; i++)
        if (strcmp(l->field[i].name, field) == 0) f = &l->field[i];
    if (!f) FAIL(err, CB_E_FORMAT, "data: found no example with a string %s; wanted one in each", field);
    if (f->is_left_out) FAIL(err, CB_E_LIMIT, "data: %s: found more than %d values; wanted a field of few", field, FIELD_VALUES_MOST);
    for (int i = 0; i < f->values.n; i++) {
        map[i] = -1;
        for (int k = 0; k < n; k++)
            if (strcmp(f->values.name[i], names[k]) == 0) map[i] = k;
    }
    if (!(*numbers = malloc((size_t)l->info.n * sizeof **numbers + 1))) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
    for (int64_t i = 0; i < l->info.n; i++) {
        const int32_t number = f->number[i];
        if (number >= 0 && map[number] >= 0) {
            (*numbers)[i] = map[number];
            continue;
        }
        free(*numbers);
        *numbers = NULL;
        FAIL(err, CB_E_FORMAT, "data: example %lld: %s: found %.60s; wanted one of %d values (%.60s, ...)", (long long)i + 1, field,
             number < 0 ? "nothing" : f->values.name[number], n, n ? names[0] : "none");
    }
    return CB_OK;
}

/* A label as text: strings as they are, numbers as JSON has them. */
static enum cb_status label_text(const json_t *label, char text[JSON_TEXT]) {
    if (json_is_string(label))
        snprintf(text, JSON_TEXT, "%s", json_string_value(label));
    else
        json_text(label, text);
    return CB_OK;
}

static enum cb_status add_sequence(struct build *b, const struct record *r, const char *where, struct cb_err *err) {
    const json_t *label = json_object_get(r->object, "label"), *second = json_object_get(r->object, "text_b");
    char text[JSON_TEXT], *end;
    int32_t number = 0;
    double value = 0;
    if (second && !json_is_string(second)) FAIL(err, CB_E_FORMAT, "%s: text_b: found %s; wanted a string", where, json_text(second, text));
    label_text(label, text);
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
    const json_t *words = json_object_get(r->object, "tokens"), *tags = json_object_get(r->object, "tags");
    const size_t n = json_array_size(words);
    struct text_view *view = calloc(n + 1, sizeof *view);
    int32_t *number = calloc(n + 1, sizeof *number), *of_token = NULL;
    enum cb_status status = view && number ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "labelled data: out of memory");
    for (size_t i = 0; status == CB_OK && i < n; i++) {
        char text[JSON_TEXT];
        const json_t *word = json_array_get(words, i);
        view[i] = (struct text_view){json_string_value(word), json_string_length(word)};
        label_text(json_array_get(tags, i), text);
        status = number_of(b, text, where, "tags", &number[i], err);
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
    struct records *records;
    const struct record *r;
    char where[600];
    int64_t n = b->out->info.n;
    TRY(records_open(&records, path, NULL, &b->o->records, err));
    enum cb_status status = records_next(records, &r, err);
    const enum record_shape wanted = b->o->kind == LABELLED_TAGS ? RECORD_TAGS : RECORD_LABEL;
    for (; status == CB_OK && r; status = status == CB_OK ? records_next(records, &r, err) : status) {
        snprintf(where, sizeof where, "%.500s: line %lld", path, (long long)r->line);
        if (r->shape != wanted)
            status =
                err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: found a record of %s; wanted %s (--column KEY=COLUMN names columns)",
                        where, record_shape_text(r->shape), record_shape_text(wanted));
        else
            status = wanted == RECORD_TAGS ? add_words(b, r, where, err) : add_sequence(b, r, where, err);
        // one without tokens is none
        if (status == CB_OK && b->out->info.n > n) status = fields_keep(b->out, r, err);
        n = b->out->info.n;
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
    for (int64_t i = 0; i < l->info.n && l->kind == LABELLED_CLASS; i++)
        l->example[i].label = labels_find(&l->labels, b->seen.name[l->example[i].label]);
    for (int64_t i = 0; i < l->n_tokens && l->kind == LABELLED_TAGS; i++)
        if (l->tags[i] >= 0) l->tags[i] = labels_find(&l->labels, b->seen.name[l->tags[i]]);
    return CB_OK;
}

static void hash_all(struct labelled *l) {
    uint64_t h = 0xCBF29CE484222325ull;
    for (int64_t i = 0; i < l->n_tokens; i++)
        h = (h ^ (uint32_t)l->ids[i] ^ (uint64_t)(uint32_t)l->tags[i] << 32) * 0x100000001B3ull, h ^= h >> 29;
    for (int64_t i = 0; i < l->info.n; i++) {
        uint32_t bits;
        memcpy(&bits, &l->example[i].value, sizeof bits);
        h = (h ^ (uint32_t)l->example[i].label ^ (uint64_t)bits << 32 ^ (uint64_t)l->example[i].n) * 0x100000001B3ull, h ^= h >> 29;
    }
    for (int k = 0; k < l->n_fields; k++)
        for (int64_t i = 0; i < l->info.n && !l->field[k].is_left_out; i++)
            h = (h ^ (uint32_t)l->field[k].number[i]) * 0x100000001B3ull, h ^= h >> 29;
    l->info.hash = h;
}

enum cb_status labelled_load(struct labelled **labelled, const char *const *paths, int n, const struct tokenizer *tokenizer,
                             const struct labelled_options *o, struct cb_err *err) {
    struct labelled *l = calloc(1, sizeof *l);
    struct build b = {.out = l, .o = o};
    *labelled = NULL;
    if (!l) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
    l->kind = o->kind;
    enum cb_status status = encoder_create(&b.encoder, tokenizer, err);
    for (int i = 0; status == CB_OK && i < n; i++) {
        b.set = o->sets ? o->sets[i] : 0;
        status = read_file(&b, paths[i], err);
    }
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
    free(l);
}

const struct labelled_info *labelled_info(const struct labelled *l) { return &l->info; }
const struct labels *labelled_labels(const struct labelled *l) { return &l->labels; }

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
    if (to->sets) to->sets[row] = e ? e->set : 0;
}

/* The first example whose set is not below: they do not fall. */
static int64_t set_begin(const struct labelled *l, int set) {
    int64_t low = 0, high = l->info.n;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (l->example[middle].set < set)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int64_t labelled_set_size(const struct labelled *l, int set) { return set_begin(l, set + 1) - set_begin(l, set); }

void labelled_fill_row(const struct labelled *l, const struct labelled_batch *to, int64_t row, int set, uint64_t seed, int64_t index) {
    const int64_t first = set_begin(l, set);
    const uint64_t n = (uint64_t)(set_begin(l, set + 1) - first), at = (uint64_t)index;
    row_fill(l, to, row, &l->example[first + (int64_t)permute(at % n, n, seed ^ (uint64_t)set, at / n)]);
}

void labelled_fill(const struct labelled *l, const struct labelled_batch *to, uint64_t seed, int64_t index) {
    for (int64_t row = 0; row < to->batch; row++) {
        uint64_t at = (uint64_t)(index * to->batch + row), n = (uint64_t)l->info.n;
        row_fill(l, to, row, &l->example[permute(at % n, n, seed, at / n)]);
    }
}

void labelled_fill_from(const struct labelled *l, const struct labelled_batch *to, int64_t first) {
    for (int64_t row = 0; row < to->batch; row++) row_fill(l, to, row, first + row < l->info.n ? &l->example[first + row] : NULL);
}
