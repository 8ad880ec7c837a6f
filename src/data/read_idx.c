/* Images and labels as idx files (yann.lecun.com/exdb/mnist): two zeros, the kind of number, how many axes, their lengths, then the numbers, all big-endian.
   Each entry of the first axis is a record: pixels of an image, with its label where the file of labels lies beside. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "io/file.h"

#define MAX_AXES 4
#define MAX_PIXELS ((int64_t)1 << 22)

/* One open file. */
struct idx {
    struct stream *stream;  // borrowed
    const char *name;  // of the stream, for messages
    const struct number *number;
    int n_axes;
    int64_t axis[MAX_AXES], size;  // size: numbers of one entry
    unsigned char *entry;
};
struct pair {
    struct idx values, labels;  // labels.stream: NULL where there are none
    struct stream *labels_stream;
    char *labels_path;
    json_t *record;
};

/* ---- numbers */
static json_t *integer(const unsigned char *p, int n, bool is_signed) {
    uint32_t value = 0;
    for (int i = 0; i < n; i++) value = value << 8 | p[i];
    if (is_signed && p[0] & 0x80) return json_integer((json_int_t)value - ((json_int_t)1 << (8 * n)));
    return json_integer(value);
}
static json_t *u8(const unsigned char *p) { return integer(p, 1, false); }
static json_t *i8(const unsigned char *p) { return integer(p, 1, true); }
static json_t *i16(const unsigned char *p) { return integer(p, 2, true); }
static json_t *i32(const unsigned char *p) { return integer(p, 4, true); }
static json_t *f32(const unsigned char *p) {
    const uint32_t bits = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    float value;
    memcpy(&value, &bits, sizeof value);
    return json_real((double)value);  // NULL where it is no number
}
static json_t *f64(const unsigned char *p) {
    uint64_t bits = 0;
    double value;
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
    memcpy(&value, &bits, sizeof value);
    return json_real(value);
}
static const struct number {
    unsigned char code;
    int bytes;
    json_t *(*read)(const unsigned char *p);
} numbers[] = {{0x08, 1, u8}, {0x09, 1, i8}, {0x0b, 2, i16}, {0x0c, 4, i32}, {0x0d, 4, f32}, {0x0e, 8, f64}};

/* ---- files */
/* n bytes, or none at the end; *is_end nullable where the end is no place for one. */
static enum cb_status read_whole(struct idx *f, unsigned char *out, size_t n, bool *is_end, struct cb_err *err) {
    size_t used = 0, got = 1;
    while (used < n && got) {
        TRY(stream_read(f->stream, out + used, n - used, &got, err));
        used += got;
    }
    if (is_end) *is_end = !used;
    if (used < n && (used || !is_end))
        FAIL(err, CB_E_FORMAT, "%s: found %zu bytes where %zu were to follow; is the file whole?", f->name, used, n);
    return CB_OK;
}

static enum cb_status idx_start(struct idx *f, struct stream *stream, const char *path, struct cb_err *err) {
    unsigned char head[4], length[4];
    f->name = path;
    f->stream = stream;
    TRY(read_whole(f, head, sizeof head, NULL, err));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].code == head[2]) f->number = &numbers[i];
    if (head[0] || head[1] || !f->number || !head[3] || head[3] > MAX_AXES)
        FAIL(err, CB_E_FORMAT, "%s: begins with %02x %02x %02x %02x; wanted 00 00, a kind of number (08 to 0e) and 1 to %d axes", path,
             head[0], head[1], head[2], head[3], MAX_AXES);
    f->n_axes = head[3];
    f->size = 1;
    for (int i = 0; i < f->n_axes; i++) {
        TRY(read_whole(f, length, sizeof length, NULL, err));
        f->axis[i] = (int64_t)length[0] << 24 | length[1] << 16 | length[2] << 8 | length[3];
        if (i && (f->axis[i] < 1 || f->axis[i] > MAX_PIXELS / f->size))
            FAIL(err, CB_E_LIMIT, "%s: axis %d of %lld; wanted entries of 1 to %lld numbers", path, i, (long long)f->axis[i],
                 (long long)MAX_PIXELS);
        if (i) f->size *= f->axis[i];
    }
    f->entry = malloc((size_t)f->size * (size_t)f->number->bytes);
    if (!f->entry) FAIL(err, CB_E_MEMORY, "%s: out of memory for %lld numbers", path, (long long)f->size);
    return CB_OK;
}

/* "train-images-idx3-ubyte.gz" -> "train-labels-idx1-ubyte.gz", packed or not; NULL where there is no such file. */
static enum cb_status labels_find(char **out, const char *path, struct cb_err *err) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *word = strstr(base, "images"), *kind = strstr(base, "idx3");
    *out = NULL;
    if (!word || !kind || kind < word) return CB_OK;
    const size_t n = strlen(path) + 8;
    char *text = malloc(n);
    if (!text) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    const char *end = kind + 4;
    const int length = (int)reader_plain_length(path) - (int)(end - path);
    static const char *const tries[] = {"", ".gz", ".zst"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, n, "%.*slabels%.*sidx1%.*s%s", (int)(word - path), path, (int)(kind - word - 6), word + 6, length, end, tries[i]);
        if (!io_is_file(text)) continue;
        *out = text;
        return CB_OK;
    }
    free(text);
    return CB_OK;
}

static enum cb_status idx_open(struct reader *r, struct cb_err *err) {
    struct pair *p = r->state;
    r->unit = "entry";
    TRY(idx_start(&p->values, r->stream, r->path, err));
    if (p->values.n_axes == 1)
        FAIL(err, CB_E_UNSUPPORTED, "%s: found labels alone; wanted the file of images, beside which they are found", r->path);
    TRY(labels_find(&p->labels_path, r->path, err));
    if (!p->labels_path) return CB_OK;
    TRY(stream_open(&p->labels_stream, p->labels_path, err));
    TRY(idx_start(&p->labels, p->labels_stream, p->labels_path, err));
    if (p->labels.n_axes != 1 || p->labels.axis[0] != p->values.axis[0])
        FAIL(err, CB_E_FORMAT, "%s: %lld entries of %d axes; wanted one label for each of the %lld images beside it", p->labels_path,
             (long long)p->labels.axis[0], p->labels.n_axes, (long long)p->values.axis[0]);
    return CB_OK;
}

static void idx_close(struct reader *r) {
    struct pair *p = r->state;
    stream_close(&p->labels_stream);
    free(p->values.entry);
    free(p->labels.entry);
    json_decref(p->record);
    free(p->labels_path);
}

/* Numbers from *at on as lists within lists, one a further axis. */
static json_t *numbers_list(const struct idx *f, int axis, const unsigned char **at) {
    if (axis >= f->n_axes || axis >= (int)(sizeof f->axis / sizeof *f->axis)) {
        json_t *value = f->number->read(*at);
        *at += f->number->bytes;
        return value;
    }
    json_t *list = json_array();
    for (int64_t i = 0; list && i < f->axis[axis]; i++)
        if (json_array_append_new(list, numbers_list(f, axis + 1, at))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static enum cb_status put_entry(struct pair *p, struct idx *f, const char *key, int64_t row, struct cb_err *err) {
    const unsigned char *at = f->entry;
    TRY(read_whole(f, f->entry, (size_t)f->size * (size_t)f->number->bytes, NULL, err));
    json_t *value = numbers_list(f, 1, &at);
    if (!value || json_object_set_new(p->record, key, value))
        FAIL(err, CB_E_FORMAT, "%s: entry %lld: a value that is no number, or no memory", f->name, (long long)row);
    return CB_OK;
}

static enum cb_status idx_next(struct reader *r, json_t **object, struct cb_err *err) {
    struct pair *p = r->state;
    struct idx *f = &p->values;
    *object = NULL;
    if (r->line == f->axis[0]) {
        unsigned char more;
        bool is_end;
        TRY(read_whole(f, &more, 1, &is_end, err));
        if (!is_end) FAIL(err, CB_E_FORMAT, "%s: found bytes after the %lld entries of its head", r->path, (long long)f->axis[0]);
        return CB_OK;
    }
    json_decref(p->record);
    if (!(p->record = json_object())) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    TRY(put_entry(p, f, "pixels", r->line, err));
    if (p->labels.stream) TRY(put_entry(p, &p->labels, "label", r->line, err));
    r->line++;
    r->bytes += f->size * f->number->bytes;
    *object = p->record;
    return CB_OK;
}

static const char *const extensions[] = {"-ubyte", ".idx", ".idx1", ".idx3", NULL};
const struct reader_kind read_idx = {.name = "idx",
                                     .doc = "images and their labels, pixels as numbers (the files of MNIST)",
                                     .extensions = extensions,
                                     .streams = true,
                                     .state_bytes = sizeof(struct pair),
                                     .open = idx_open,
                                     .close = idx_close,
                                     .next = idx_next};
