/* Opens and reads token shards; splits off a share. */
#include "data/corpus.h"

#include <stdlib.h>
#include <string.h>

#include "data/corpus_private.h"
#include "data/shard.h"
#include "io/map.h"

struct corpus {
    struct map *map;  // one of these two holds the bytes
    unsigned char *heap;
    const unsigned char *tokens;
    uint32_t token_bytes;
    const struct shard_document *documents;
    const struct shard_mark *marks;
    const struct shard_range *ranges;
    const char *description;
    int64_t n_ranges, n_description;
    struct corpus_info info;
};

void corpus_destroy(struct corpus **corpus) {
    struct corpus *c = corpus ? *corpus : NULL;
    if (!c) return;
    map_release(&c->map);
    free(c->heap);
    free(c);
    *corpus = NULL;
}

// ---- reading the layout

// A section of n items at *at, which moves to the next; NULL where the file does not hold it.
static const void *section(const unsigned char *data, size_t size, size_t *at, int64_t n, size_t bytes) {
    if (n < 0 || *at > size || (uint64_t)n > (size - *at) / bytes) return NULL;
    const void *found = data + *at;
    *at += (size_t)n * bytes;
    *at += (8 - *at % 8) % 8;
    return found;
}

static enum cb_status tables_check(const struct corpus *c, const char *name, struct cb_err *err) {
    const struct shard_document *d = c->documents;
    int64_t n = c->info.documents;
    bool good = d[0].start == 0 && d[n].start == c->info.tokens && d[0].before.bytes >= 0 && d[0].before.words >= 0;
    for (int64_t i = 0; i < n && good; i++)
        good = d[i].start < d[i + 1].start && d[i].before.bytes <= d[i + 1].before.bytes && d[i].before.words <= d[i + 1].before.words;
    if (!good) FAIL(err, CB_E_FORMAT, "%s: the table of documents is damaged; wanted rising starts", name);
    int64_t end = 0;
    for (int64_t i = 0; i < c->n_ranges; i++) {
        if (c->ranges[i].begin < end || c->ranges[i].end <= c->ranges[i].begin || c->ranges[i].end > c->info.tokens)
            FAIL(err, CB_E_FORMAT, "%s: range %lld of what is not learnt is damaged; wanted rising ranges of tokens", name, (long long)i);
        end = c->ranges[i].end;
    }
    return CB_OK;
}

static enum cb_status layout_read(struct corpus *c, const unsigned char *data, size_t size, const char *name, struct cb_err *err) {
    struct shard_head head;
    struct shard_foot foot;
    if (size < sizeof head + sizeof foot || memcmp(data, SHARD_MAGIC, 8))
        FAIL(err, CB_E_FORMAT, "%s: found no token shard; wanted the magic number %s", name, SHARD_MAGIC);
    memcpy(&head, data, sizeof head);
    memcpy(&foot, data + size - sizeof foot, sizeof foot);
    if (head.version != SHARD_VERSION)
        FAIL(err, CB_E_FORMAT, "%s: found version %u; wanted %d", name, (unsigned)head.version, SHARD_VERSION);
    if ((head.token_bytes != 2 && head.token_bytes != 4) || head.vocab < 1 || head.vocab > (int64_t)INT32_MAX + 1)
        FAIL(err, CB_E_FORMAT, "%s: found tokens of %u bytes over a vocabulary of %lld; wanted 2 or 4 bytes", name,
             (unsigned)head.token_bytes, (long long)head.vocab);
    if (memcmp(foot.magic, SHARD_END, 8) || foot.tokens < 1 || foot.documents < 1 || foot.documents > foot.tokens)
        FAIL(err, CB_E_FORMAT, "%s: the token shard has no end; it was cut or damaged", name);
    size_t at = sizeof head, held = size - sizeof foot;
    c->tokens = section(data, held, &at, foot.tokens, head.token_bytes);
    c->documents = section(data, held, &at, foot.documents + 1, sizeof *c->documents);
    c->marks = section(data, held, &at, foot.tokens / SHARD_MARK + (foot.tokens % SHARD_MARK != 0), sizeof *c->marks);
    c->ranges = section(data, held, &at, foot.ranges, sizeof *c->ranges);
    c->description = section(data, held, &at, foot.description_bytes, 1);
    if (!c->tokens || !c->documents || !c->marks || !c->ranges || !c->description || at != held)
        FAIL(err, CB_E_FORMAT, "%s: found %zu bytes, which %lld tokens in %lld documents do not fill; wanted a whole token shard", name,
             size, (long long)foot.tokens, (long long)foot.documents);
    c->token_bytes = head.token_bytes;
    c->n_ranges = foot.ranges;
    c->n_description = foot.description_bytes;
    struct shard_mark total = c->documents[foot.documents].before;
    c->info = (struct corpus_info){.tokens = foot.tokens, .documents = foot.documents, .vocab = head.vocab, .learnt = foot.tokens};
    c->info.bytes = total.bytes, c->info.words = total.words, c->info.text_bytes = foot.text_bytes;
    TRY(tables_check(c, name, err));
    for (int64_t i = 0; i < c->n_ranges; i++) c->info.learnt -= c->ranges[i].end - c->ranges[i].begin;
    return CB_OK;
}

static enum cb_status corpus_make(struct corpus **out, struct map *map, unsigned char *heap, size_t n, struct cb_err *err) {
    *out = NULL;
    struct corpus *c = calloc(1, sizeof *c);
    if (!c) {
        map_release(&map);
        free(heap);
        FAIL(err, CB_E_MEMORY, "corpus: out of memory");
    }
    c->map = map;
    c->heap = heap;
    enum cb_status status = layout_read(c, map ? map_data(map) : heap, n, map ? map_name(map) : "corpus", err);
    if (status != CB_OK)
        corpus_destroy(&c);
    else
        *out = c;
    return status;
}

enum cb_status corpus_adopt(struct corpus **corpus, unsigned char *bytes, size_t n, struct cb_err *err) {
    return corpus_make(corpus, NULL, bytes, n, err);
}

enum cb_status corpus_open(struct corpus **corpus, const char *path, struct cb_err *err) {
    struct map *map;
    *corpus = NULL;
    TRY(map_open(&map, path, err));
    return corpus_make(corpus, map, NULL, map_size(map), err);
}

enum cb_status corpus_from_ids(struct corpus **corpus, const int32_t *ids, const int64_t *length, const int64_t *unlearnt,
                               int64_t n_documents, int64_t vocab, int64_t bytes, struct cb_err *err) {
    struct shard_writer *w;
    int64_t total = 0, at = 0;
    *corpus = NULL;
    for (int64_t i = 0; i < n_documents; i++) total += length[i];
    TRY(shard_begin(&w, NULL, vocab, err));
    enum cb_status status = CB_OK;
    for (int64_t i = 0; i < n_documents && status == CB_OK; i++) {
        shard_document(w);
        for (int64_t k = 0; k < length[i] && status == CB_OK; k++, at++) {
            int64_t before = (int64_t)((double)bytes * (double)at / (double)total);
            status = shard_token(w, ids[at], (struct shard_mark){before, before}, err);
            if (status == CB_OK && unlearnt && k + 1 == unlearnt[i]) status = shard_unlearnt(w, at - k, err);
        }
    }
    unsigned char *made = NULL;
    size_t n = 0;
    if (status == CB_OK) status = shard_end(&w, (struct shard_mark){bytes, bytes}, bytes, "", 0, &made, &n, err);
    shard_abort(&w);
    return status == CB_OK ? corpus_adopt(corpus, made, n, err) : status;
}

// ---- reading

const struct corpus_info *corpus_info(const struct corpus *corpus) { return &corpus->info; }
const char *corpus_description(const struct corpus *corpus, size_t *n) {
    *n = (size_t)corpus->n_description;
    return corpus->description;
}

enum cb_status corpus_read(const struct corpus *c, int32_t *out, int64_t first, int64_t n, struct cb_err *err) {
    if (first < 0 || n < 0 || first > c->info.tokens - n)
        FAIL(err, CB_E_ARGUMENT, "corpus: tokens %lld and %lld more; wanted a range of %lld", (long long)first, (long long)n,
             (long long)c->info.tokens);
    uint32_t most = 0;
    if (c->token_bytes == 2) {
        const uint16_t *in = (const uint16_t *)(const void *)c->tokens + first;
        for (int64_t i = 0; i < n; i++) out[i] = in[i], most = in[i] > most ? in[i] : most;
    } else {
        const uint32_t *in = (const uint32_t *)(const void *)c->tokens + first;
        for (int64_t i = 0; i < n; i++) out[i] = (int32_t)in[i], most = in[i] > most ? in[i] : most;
    }
    if (most >= (uint64_t)c->info.vocab)
        FAIL(err, CB_E_FORMAT, "%s: found token id %u after token %lld; wanted one below %lld: the file is damaged",
             c->map ? map_name(c->map) : "corpus", (unsigned)most, (long long)first, (long long)c->info.vocab);
    return CB_OK;
}

int64_t corpus_document_at(const struct corpus *c, int64_t position) {
    int64_t low = 0, high = c->info.documents;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (c->documents[middle].start <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}
int64_t corpus_document_start(const struct corpus *c, int64_t i) { return c->documents[i].start; }

void corpus_unlearn(const struct corpus *c, int32_t *label, int64_t first, int64_t n) {
    int64_t low = 0, high = c->n_ranges;
    // the first range that ends after `first`
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (c->ranges[middle].end > first)
            high = middle;
        else
            low = middle + 1;
    }
    for (; low < c->n_ranges && c->ranges[low].begin < first + n; low++) {
        int64_t from = c->ranges[low].begin > first ? c->ranges[low].begin : first;
        int64_t to = c->ranges[low].end < first + n ? c->ranges[low].end : first + n;
        for (int64_t i = from; i < to; i++) label[i - first] = -100;
    }
}

// Bytes and words before a position, from the nearest entry at or before it.
static struct shard_mark mark_before(const struct corpus *c, int64_t position) {
    if (position >= c->info.tokens) return c->documents[c->info.documents].before;
    struct shard_mark mark = c->marks[position / SHARD_MARK];
    const struct shard_document *d = &c->documents[corpus_document_at(c, position)];
    return d->start > position / SHARD_MARK * SHARD_MARK ? d->before : mark;
}

void corpus_count(const struct corpus *c, int64_t first, int64_t last, int64_t *bytes, int64_t *words) {
    struct shard_mark a = mark_before(c, first), b = mark_before(c, last);
    *bytes = b.bytes - a.bytes;
    *words = b.words - a.words;
}

enum cb_status corpus_split(const struct corpus *c, double share, int64_t *cut, struct cb_err *err) {
    int64_t n = c->info.tokens;
    if (!(share > 0 && share < 1)) FAIL(err, CB_E_ARGUMENT, "validation share: found %g; wanted a number between 0 and 1", share);
    int64_t held = (int64_t)((double)n * share + 0.5), exact = n - held;
    if (exact < 2 || held < 2)
        FAIL(err, CB_E_ARGUMENT, "validation share: %g of %lld tokens leaves %lld and %lld; wanted more text", share, (long long)n,
             (long long)exact, (long long)held);
    int64_t document = corpus_document_at(c, exact), before = c->documents[document].start, after = c->documents[document + 1].start;
    int64_t border = exact - before <= after - exact ? before : after, far = border < exact ? exact - border : border - exact;
    int64_t mark = (exact + SHARD_MARK / 2) / SHARD_MARK * SHARD_MARK, mark_far = mark < exact ? exact - mark : mark - exact;
    *cut = far <= held / 4 && border > 0 && border < n ? border : mark_far <= held / 4 && mark > 0 && mark < n ? mark : exact;
    return CB_OK;
}
