/* Ids to text: the tokens' texts go through the decoder, which may join and rewrite them. */
#include "text/normalise.h"
#include "text/parts.h"
#include "text/unicode.h"
#include "text/utf8.h"

/* Decoders write the new list into spare, item by item, and then swap. */
static enum cb_status item_open(struct decode_list *list, size_t index, struct cb_err *err) {
    TRY(buffer_reserve(&list->spare, 1, err));
    list->item[index].begin = list->spare.n;
    return CB_OK;
}
static void item_close(struct decode_list *list, size_t index) { list->item[index].end = list->spare.n; }
static void list_swap(struct decode_list *list, size_t n) {
    struct buffer old = list->text;
    list->text = list->spare, list->spare = old;
    list->spare.n = 0, list->n = n;
}

/* Rewrites each item by fn, which appends to spare. */
static enum cb_status each_item(const struct part *part, struct decode_list *list,
                                enum cb_status (*fn)(const struct part *part, struct decode_list *list, size_t index, const char *text,
                                                     size_t n, struct cb_err *err),
                                struct cb_err *err) {
    for (size_t i = 0; i < list->n; i++) {
        struct decode_item old = list->item[i];
        TRY(item_open(list, i, err));
        TRY(fn(part, list, i, list->text.data + old.begin, old.end - old.begin, err));
        item_close(list, i);
    }
    list_swap(list, list->n);
    return CB_OK;
}

/* Appends text with every needle replaced. */
static enum cb_status put_replaced(struct buffer *out, const char *text, size_t n, const char *needle, const char *with,
                                   struct cb_err *err) {
    size_t n_needle = strlen(needle);
    for (const char *hit; n_needle && (hit = memmem(text, n, needle, n_needle));) {
        TRY(buffer_append(out, text, (size_t)(hit - text), err));
        TRY(buffer_append(out, with, strlen(with), err));
        n -= (size_t)(hit - text) + n_needle, text = hit + n_needle;
    }
    return buffer_append(out, text, n, err);
}

/* ---- ByteLevel: the characters of all tokens back to bytes, broken ones repaired */

static enum cb_status bytelevel(const struct part *part, struct decode_list *list, struct cb_err *err) {
    (void)part;
    struct buffer *out = &list->spare;
    for (size_t i = 0; i < list->n; i++) {
        const char *text = list->text.data + list->item[i].begin;
        size_t n = list->item[i].end - list->item[i].begin, before = out->n, length;
        TRY(buffer_reserve(out, n, err));
        for (size_t at = 0; at < n; at += length) {
            uint32_t cp = 0;
            length = (size_t)utf8_decode(text + at, n - at, &cp);
            int byte = length ? char_to_byte(cp) : -1;
            if (byte < 0) {
                // not a byte-level token: it stands for itself
                memcpy(out->data + before, text, n);
                out->n = before + n;
                break;
            }
            out->data[out->n++] = (char)byte;
        }
    }
    TRY(buffer_grow((void **)&list->item, &list->capacity, 1, sizeof *list->item, err));
    list->text.n = 0;
    TRY(buffer_reserve(&list->text, out->n * 3, err));
    if (out->n) list->text.n = utf8_repair(list->text.data, out->data, out->n);
    list->item[0] = (struct decode_item){0, list->text.n, -1};
    list->spare.n = 0, list->n = 1;
    return CB_OK;
}
static const struct part_kind bytelevel_kind = {.type = "ByteLevel",
                                                .field = {{"add_prefix_space", FIELD_FLAG, 0, .preset = 1},
                                                          {"trim_offsets", FIELD_FLAG, 1, .preset = 1},
                                                          {"use_regex", FIELD_FLAG, 2, .preset = 1}},
                                                .decode = bytelevel};

/* ---- one token at a time */

static const char *const cleanups[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                          {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                          {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

/* English spaces before punctuation go away; the text is the end of spare, from byte from on. */
static enum cb_status cleanup(struct decode_list *list, size_t from, size_t first, size_t last, struct cb_err *err) {
    struct buffer copy = {0};
    enum cb_status status = CB_OK;
    for (size_t i = first; i < last && !status; i++) {
        copy.n = 0;
        status = buffer_append(&copy, list->spare.data + from, list->spare.n - from, err);
        list->spare.n = from;
        if (!status) status = put_replaced(&list->spare, copy.data, copy.n, cleanups[i][0], cleanups[i][1], err);
    }
    free(copy.data);
    return status;
}

static enum cb_status wordpiece_item(const struct part *part, struct decode_list *list, size_t i, const char *text, size_t n,
                                     struct cb_err *err) {
    const struct part_text *prefix = &part->text[0];
    size_t from = list->spare.n;
    bool goes_on = n >= prefix->n && prefix->n && !memcmp(text, prefix->text, prefix->n);
    if (i && goes_on)
        TRY(buffer_append(&list->spare, text + prefix->n, n - prefix->n, err));
    else {
        if (i) TRY(buffer_append(&list->spare, " ", 1, err));
        TRY(buffer_append(&list->spare, text, n, err));
    }
    return part->flag[1] ? cleanup(list, from, 0, sizeof cleanups / sizeof *cleanups, err) : CB_OK;
}
static enum cb_status wordpiece(const struct part *part, struct decode_list *list, struct cb_err *err) {
    return each_item(part, list, wordpiece_item, err);
}
static const struct part_kind wordpiece_kind = {
    .type = "WordPiece",
    .field = {{"prefix", FIELD_TEXT, 0, .required = true}, {"cleanup", FIELD_FLAG, 1, .preset = 1}},
    .decode = wordpiece};

static enum cb_status metaspace_item(const struct part *part, struct decode_list *list, size_t i, const char *text, size_t n,
                                     struct cb_err *err) {
    const struct part_text *sign = &part->text[0];
    // in the first token the sign is what was put before all, not a space
    return put_replaced(&list->spare, text, n, sign->text, i || part->number[1] == 2 ? " " : "", err);
}
static enum cb_status metaspace(const struct part *part, struct decode_list *list, struct cb_err *err) {
    return each_item(part, list, metaspace_item, err);
}
static enum cb_status metaspace_read(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err) {
    (void)t;
    bool prefix = true;
    TRY(json_get_bool(&prefix, json, where, "add_prefix_space", false, err));
    if (!json_object_get(json, "prepend_scheme") && !prefix) part->number[1] = 2;
    return CB_OK;
}
static const char *const scheme_names[] = {"always", "first", "never", NULL};
static const struct part_kind metaspace_kind = {.type = "Metaspace",
                                                .field = {{"replacement", FIELD_CHAR, 0, .required = true},
                                                          {"prepend_scheme", FIELD_CHOICE, 1, .choice = scheme_names},
                                                          {"split", FIELD_FLAG, 0, .preset = 1}},
                                                .read = metaspace_read,
                                                .decode = metaspace};

static enum cb_status bpe_item(const struct part *part, struct decode_list *list, size_t i, const char *text, size_t n,
                               struct cb_err *err) {
    return put_replaced(&list->spare, text, n, part->text[0].text, i + 1 == list->n ? "" : " ", err);
}
static enum cb_status bpe(const struct part *part, struct decode_list *list, struct cb_err *err) {
    return each_item(part, list, bpe_item, err);
}
static const struct part_kind bpe_kind = {.type = "BPEDecoder", .field = {{"suffix", FIELD_TEXT, 0, .required = true}}, .decode = bpe};

static enum cb_status strip_item(const struct part *part, struct decode_list *list, size_t i, const char *text, size_t n,
                                 struct cb_err *err) {
    (void)i;
    const struct part_text *c = &part->text[0];
    for (int64_t k = 0; k < part->number[1] && n >= c->n && !memcmp(text, c->text, c->n); k++) text += c->n, n -= c->n;
    for (int64_t k = 0; k < part->number[2] && n >= c->n && !memcmp(text + n - c->n, c->text, c->n); k++) n -= c->n;
    return buffer_append(&list->spare, text, n, err);
}
static enum cb_status strip(const struct part *part, struct decode_list *list, struct cb_err *err) {
    return each_item(part, list, strip_item, err);
}
static const struct part_kind strip_kind = {.type = "Strip",
                                            .field = {{"content", FIELD_CHAR, 0, .required = true},
                                                      {"start", FIELD_COUNT, 1, .required = true},
                                                      {"stop", FIELD_COUNT, 2, .required = true}},
                                            .decode = strip};

static enum cb_status replace_item(const struct part *part, struct decode_list *list, size_t i, const char *text, size_t n,
                                   struct cb_err *err) {
    (void)i;
    struct track out = {0};
    struct regex_scratch *scratch = NULL;
    struct piece in = {text, n, NULL, 0, 0};
    struct rewrite r = rewrite_begin(&out, &in, false);
    enum cb_status status = pattern_replace(part, &scratch, &r, err);
    if (!status) status = buffer_append(&list->spare, out.text ? out.text : "", out.n, err);
    regex_scratch_destroy(&scratch);
    free(out.text);
    return status;
}
static enum cb_status replace(const struct part *part, struct decode_list *list, struct cb_err *err) {
    return each_item(part, list, replace_item, err);
}
static const struct part_kind replace_kind = {
    .type = "Replace",
    .field = {{"pattern", FIELD_PATTERN, 0, .required = true}, {"content", FIELD_TEXT, 1, .required = true}},
    .decode = replace};

/* ---- tokens joined */

enum cb_status decode_all(struct decode_list *list, struct cb_err *err) {
    TRY(buffer_reserve(&list->spare, 0, err));
    TRY(buffer_grow((void **)&list->item, &list->capacity, 1, sizeof *list->item, err));
    list->item[0] = (struct decode_item){0, list->spare.n, -1};
    list_swap(list, 1);
    return CB_OK;
}

static enum cb_status fuse(const struct part *part, struct decode_list *list, struct cb_err *err) {
    (void)part;
    struct buffer *out = &list->spare;
    for (size_t i = 0; i < list->n; i++)
        TRY(buffer_append(out, list->text.data + list->item[i].begin, list->item[i].end - list->item[i].begin, err));
    return decode_all(list, err);
}
static const struct part_kind fuse_kind = {.type = "Fuse", .decode = fuse};

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int byte_token(const char *text, size_t n) {
    if (n != 6 || memcmp(text, "<0x", 3) || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Runs of byte tokens become their text; in a broken run every byte is U+FFFD. */
static enum cb_status byte_fallback(const struct part *part, struct decode_list *list, struct cb_err *err) {
    (void)part;
    struct buffer *out = &list->spare;
    size_t kept = 0;
    for (size_t i = 0; i < list->n;) {
        size_t from = out->n, run = 0;
        for (; i + run < list->n; run++) {
            struct decode_item item = list->item[i + run];
            int byte = byte_token(list->text.data + item.begin, item.end - item.begin);
            if (byte < 0) break;
            char c = (char)byte;
            TRY(buffer_append(out, &c, 1, err));
        }
        if (!run) {
            TRY(buffer_append(out, list->text.data + list->item[i].begin, list->item[i].end - list->item[i].begin, err));
            i++;
        } else {
            i += run;
            if (utf8_check(out->data + from, run) < run) {
                out->n = from;
                for (size_t k = 0; k < run; k++) TRY(buffer_append(out, "\xef\xbf\xbd", 3, err));
            }
        }
        list->item[kept++] = (struct decode_item){from, out->n, -1};
    }
    TRY(buffer_reserve(out, 0, err));
    list_swap(list, kept);
    return CB_OK;
}
static const struct part_kind byte_fallback_kind = {.type = "ByteFallback", .decode = byte_fallback};

/* CTC (Graves et al., 2006): repeats fall together, the blank vanishes. */
static enum cb_status ctc(const struct part *part, struct decode_list *list, struct cb_err *err) {
    size_t kept = 0;
    struct decode_item last = {0, 0, -1};
    for (size_t i = 0; i < list->n; i++) {
        struct decode_item item = list->item[i];
        const char *text = list->text.data + item.begin;
        size_t n = item.end - item.begin;
        if (i && last.end - last.begin == n && !memcmp(list->text.data + last.begin, text, n)) continue;
        last = item;
        struct buffer cut = {0};
        size_t from = list->spare.n;
        enum cb_status status = put_replaced(&cut, text, n, part->text[0].text, "", err);
        if (!status) status = buffer_append(&list->spare, cut.data, cut.n, err);
        if (!status && part->flag[0]) {
            status = cleanup(list, from, 0, sizeof cleanups / sizeof *cleanups, err);
            cut.n = 0;
            if (!status) status = buffer_append(&cut, list->spare.data + from, list->spare.n - from, err);
            list->spare.n = from;
            if (!status) status = put_replaced(&list->spare, cut.data, cut.n, part->text[1].text, " ", err);
        }
        free(cut.data);
        if (status) return status;
        if (list->spare.n > from) list->item[kept++] = (struct decode_item){from, list->spare.n, -1};
    }
    TRY(buffer_reserve(&list->spare, 0, err));
    list_swap(list, kept);
    return CB_OK;
}
static const struct part_kind ctc_kind = {.type = "CTC",
                                          .field = {{"pad_token", FIELD_TEXT, 0, .required = true},
                                                    {"word_delimiter_token", FIELD_TEXT, 1, .required = true},
                                                    {"cleanup", FIELD_FLAG, 0, .preset = 1}},
                                          .decode = ctc};

static enum cb_status sequence(const struct part *part, struct decode_list *list, struct cb_err *err) {
    for (int i = 0; i < part->n_parts; i++) TRY(part->part[i]->kind->decode(part->part[i], list, err));
    return CB_OK;
}
static const struct part_kind sequence_kind = {
    .type = "Sequence", .field = {{"decoders", FIELD_PARTS, 0, .required = true}}, .decode = sequence};

const struct part_kind *const decoder_kinds[] = {
    &bpe_kind,     &byte_fallback_kind, &bytelevel_kind, &ctc_kind,       &fuse_kind, &metaspace_kind,
    &replace_kind, &sequence_kind,      &strip_kind,     &wordpiece_kind, NULL};

/* ---- the whole */

static void list_free(struct decode_list *list) { free(list->text.data), free(list->spare.data), free(list->item); }

static enum cb_status list_fill(const struct tokenizer *t, struct decode_list *list, const int32_t *ids, size_t n_ids, bool skip_special,
                                struct cb_err *err) {
    for (size_t i = 0; i < n_ids; i++) {
        size_t n;
        const char *text = tokenizer_token(t, ids[i], &n);
        if (!text || (skip_special && tokenizer_is_special(t, ids[i]))) continue;
        TRY(buffer_grow((void **)&list->item, &list->capacity, list->n + 1, sizeof *list->item, err));
        list->item[list->n++] = (struct decode_item){list->text.n, list->text.n + n, ids[i]};
        TRY(buffer_append(&list->text, text, n, err));
    }
    return buffer_reserve(&list->text, 0, err);
}

/* Without a decoder the tokens stand apart. */
static enum cb_status list_join(const struct tokenizer *t, struct decode_list *list, struct buffer *out, struct cb_err *err) {
    for (size_t i = 0; i < list->n; i++) {
        if (i && !t->part[ROLE_DECODER]) TRY(buffer_append(out, " ", 1, err));
        TRY(buffer_append(out, list->text.data + list->item[i].begin, list->item[i].end - list->item[i].begin, err));
    }
    TRY(buffer_reserve(out, 0, err));
    out->data[out->n] = 0;
    return CB_OK;
}

enum cb_status tokenizer_decode(const struct tokenizer *tokenizer, char **text, size_t *n, const int32_t *ids, size_t n_ids,
                                bool skip_special, struct cb_err *err) {
    *text = NULL, *n = 0;
    struct decode_list list = {0};
    struct buffer out = {0};
    const struct part *decoder = tokenizer->part[ROLE_DECODER];
    enum cb_status status = list_fill(tokenizer, &list, ids, n_ids, skip_special, err);
    if (!status && decoder && list.n) status = decoder->kind->decode(decoder, &list, err);
    if (!status) status = list_join(tokenizer, &list, &out, err);
    list_free(&list);
    if (status) {
        free(out.data);
        return status;
    }
    *text = out.data, *n = out.n;
    return CB_OK;
}
