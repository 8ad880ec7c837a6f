/* Writes token shards: tokens as they come, the small sections at the end. */
#include "data/shard.h"

#include <stdlib.h>
#include <string.h>

#include "io/file.h"

struct list {
    char *item;
    size_t n, capacity;  // bytes
};

struct shard_writer {
    struct io_writer *file;  // NULL: in memory
    struct list memory, documents, marks, ranges;
    int64_t vocab, n_tokens;
    size_t written;
    uint32_t token_bytes;
    bool begins;  // the next token begins a document
};

static enum cb_status list_add(struct list *l, const void *bytes, size_t n, struct cb_err *err) {
    if (n > l->capacity - l->n) {
        size_t capacity = l->capacity ? l->capacity : 4096;
        while (capacity - l->n < n && capacity <= SIZE_MAX / 4) capacity *= 2;
        char *more = realloc(l->item, capacity);
        if (!more || capacity - l->n < n) {
            if (more) l->item = more;
            FAIL(err, CB_E_MEMORY, "corpus: out of memory for %zu bytes", capacity);
        }
        l->item = more;
        l->capacity = capacity;
    }
    if (n) memcpy(l->item + l->n, bytes, n);
    l->n += n;
    return CB_OK;
}

static enum cb_status put(struct shard_writer *w, const void *bytes, size_t n, struct cb_err *err) {
    if (!n) return CB_OK;
    w->written += n;
    return w->file ? io_writer_write(w->file, bytes, n, err) : list_add(&w->memory, bytes, n, err);
}

// A section, filled up to a multiple of 8.
static enum cb_status put_section(struct shard_writer *w, const void *bytes, size_t n, struct cb_err *err) {
    static const char zeros[8] = {0};
    TRY(put(w, bytes, n, err));
    return put(w, zeros, (8 - w->written % 8) % 8, err);
}

enum cb_status shard_begin(struct shard_writer **out, const char *path, int64_t vocab, struct cb_err *err) {
    *out = NULL;
    struct shard_writer *w = calloc(1, sizeof *w);
    if (!w) FAIL(err, CB_E_MEMORY, "corpus: out of memory");
    w->vocab = vocab;
    w->token_bytes = vocab <= 65536 ? 2 : 4;
    w->begins = true;
    struct shard_head head = {.version = SHARD_VERSION, .token_bytes = w->token_bytes, .vocab = vocab};
    memcpy(head.magic, SHARD_MAGIC, sizeof head.magic);
    enum cb_status status = path ? io_writer_open(&w->file, path, err) : CB_OK;
    if (status == CB_OK) status = put(w, &head, sizeof head, err);
    if (status != CB_OK)
        shard_abort(&w);
    else
        *out = w;
    return status;
}

void shard_abort(struct shard_writer **writer) {
    struct shard_writer *w = writer ? *writer : NULL;
    if (!w) return;
    io_writer_abort(&w->file);
    free(w->memory.item);
    free(w->documents.item);
    free(w->marks.item);
    free(w->ranges.item);
    free(w);
    *writer = NULL;
}

void shard_document(struct shard_writer *writer) { writer->begins = true; }
int64_t shard_tokens(const struct shard_writer *writer) { return writer->n_tokens; }

enum cb_status shard_token(struct shard_writer *w, int32_t id, struct shard_mark before, struct cb_err *err) {
    if (id < 0 || id >= w->vocab)
        FAIL(err, CB_E_ARGUMENT, "corpus: found token id %d; wanted one in [0, %lld)", (int)id, (long long)w->vocab);
    if (w->begins) TRY(list_add(&w->documents, &(struct shard_document){w->n_tokens, before}, sizeof(struct shard_document), err));
    w->begins = false;
    if (w->n_tokens++ % SHARD_MARK == 0) TRY(list_add(&w->marks, &before, sizeof before, err));
    uint32_t wide = (uint32_t)id;
    uint16_t narrow = (uint16_t)id;
    return w->token_bytes == 2 ? put(w, &narrow, 2, err) : put(w, &wide, 4, err);
}

enum cb_status shard_unlearnt(struct shard_writer *w, int64_t begin, struct cb_err *err) {
    if (begin >= w->n_tokens) return CB_OK;
    return list_add(&w->ranges, &(struct shard_range){begin, w->n_tokens}, sizeof(struct shard_range), err);
}

static enum cb_status sections_put(struct shard_writer *w, struct shard_mark totals, int64_t text_bytes, const char *description, size_t n,
                                   struct cb_err *err) {
    struct shard_foot foot = {.tokens = w->n_tokens, .text_bytes = text_bytes, .description_bytes = (int64_t)n};
    foot.documents = (int64_t)(w->documents.n / sizeof(struct shard_document));
    foot.ranges = (int64_t)(w->ranges.n / sizeof(struct shard_range));
    memcpy(foot.magic, SHARD_END, sizeof foot.magic);
    TRY(list_add(&w->documents, &(struct shard_document){w->n_tokens, totals}, sizeof(struct shard_document), err));
    TRY(put_section(w, NULL, 0, err));
    TRY(put_section(w, w->documents.item, w->documents.n, err));
    TRY(put_section(w, w->marks.item, w->marks.n, err));
    TRY(put_section(w, w->ranges.item, w->ranges.n, err));
    TRY(put_section(w, description, n, err));
    return put(w, &foot, sizeof foot, err);
}

enum cb_status shard_end(struct shard_writer **writer, struct shard_mark totals, int64_t text_bytes, const char *description, size_t n,
                         unsigned char **bytes, size_t *n_bytes, struct cb_err *err) {
    struct shard_writer *w = *writer;
    *bytes = NULL;
    *n_bytes = 0;
    enum cb_status status = sections_put(w, totals, text_bytes, description, n, err);
    if (status == CB_OK && w->file) status = io_writer_commit(&w->file, err);
    if (status == CB_OK && w->memory.n) {
        *bytes = (unsigned char *)w->memory.item;
        *n_bytes = w->memory.n;
        w->memory.item = NULL;
    }
    shard_abort(writer);
    return status;
}
