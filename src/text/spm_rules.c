/* SentencePiece's normaliser and decoder (normalizer.cc and sentencepiece_processor.cc of google/sentencepiece tell the rules). */
#include "text/added.h"
#include "text/base64.h"
#include "text/normalise.h"
#include "text/spm.h"
#include "text/utf8.h"

#define SIGN "\xe2\x96\x81"

/* ---- the normaliser */

/* What the text at a byte begins with, normalised; *used: bytes that it stands for. User-defined symbols stay, the longest mapped string is replaced,
   a byte that is not UTF-8 becomes U+FFFD. */
static struct part_text next_part(const struct spm_rules *rules, const char *text, size_t n, size_t *used) {
    const struct added_needle *user = rules->user.n ? added_find(&rules->user, text, n, 0) : NULL;
    uint32_t cp = 0;
    if (user) return *used = user->n, (struct part_text){text, user->n};
    const char *mapped = charsmap_longest(rules->map, text, n, used);
    if (mapped) return (struct part_text){mapped, strlen(mapped)};
    *used = (size_t)utf8_decode(text, n, &cp);
    if (*used) return (struct part_text){text, *used};
    *used = 1;
    return (struct part_text){"\xef\xbf\xbd", 3};
}

static struct part_text sign_of(const struct spm_rules *rules) {
    return rules->escape_spaces ? (struct part_text){SIGN, 3} : (struct part_text){" ", 1};
}

/* Writes a part, its spaces as signs, with the range of the used source bytes. */
static enum cb_status put_part(const struct spm_rules *rules, struct rewrite *r, struct part_text part, size_t used, struct cb_err *err) {
    struct part_text sign = sign_of(rules);
    for (size_t at = 0, length; at < part.n; at += length) {
        bool space = part.text[at] == ' ';
        length = space ? 1 : (size_t)utf8_length(part.text[at]);
        TRY(rewrite_span(r, space ? sign.text : part.text + at, space ? sign.n : length, used, err));
    }
    rewrite_skip(r, used);
    return CB_OK;
}

static enum cb_status normalise(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    const struct spm_rules *rules = part->data;
    struct piece in = *piece;
    struct part_text sign = sign_of(rules);
    struct rewrite r = rewrite_begin(out, &in, e->tracking);
    size_t used;
    // spaces at the front
    for (; rules->squeeze_spaces && r.at < in.n; rewrite_skip(&r, used)) {
        struct part_text p = next_part(rules, in.text + r.at, in.n - r.at, &used);
        if (p.n != 1 || p.text[0] != ' ') break;
    }
    bool is_empty = r.at == in.n, after_space = rules->squeeze_spaces;
    if (!is_empty && rules->dummy_prefix && !rules->prefix_at_end) {
        next_part(rules, in.text + r.at, in.n - r.at, &used);
        TRY(rewrite_span(&r, sign.text, sign.n, used, err));
    }
    while (r.at < in.n) {
        struct part_text p = next_part(rules, in.text + r.at, in.n - r.at, &used);
        while (after_space && p.n && p.text[0] == ' ') p.text++, p.n--;
        if (p.n) after_space = rules->squeeze_spaces && p.text[p.n - 1] == ' ';
        TRY(put_part(rules, &r, p, used, err));
    }
    // and at the end
    while (rules->squeeze_spaces && out->n >= sign.n && !memcmp(out->text + out->n - sign.n, sign.text, sign.n)) out->n -= sign.n;
    if (!is_empty && rules->dummy_prefix && rules->prefix_at_end) TRY(rewrite_span(&r, sign.text, sign.n, 0, err));
    *piece = rewrite_end(&r);
    return CB_OK;
}

/* ---- the decoder */

/* Where specials are found in text, they are texts when decoded, too. */
static uint8_t type_of(const struct spm_rules *rules, int32_t id) {
    uint8_t type = id < rules->n_types ? rules->type[id] : PIECE_USER;
    return rules->shows_specials && (type == PIECE_CONTROL || type == PIECE_UNKNOWN) ? PIECE_USER : type;
}

static void put_bytes(struct buffer *out, size_t from) {
    // one U+FFFD for each byte that is not part of a character; the run's bytes lie at the end of out, which has room for three of each
    size_t n = out->n - from;
    char *run = out->data + from + 2 * n;
    memmove(run, out->data + from, n);
    out->n = from;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t cp = 0;
        length = (size_t)utf8_decode(run + at, n - at, &cp);
        memmove(out->data + out->n, length ? run + at : "\xef\xbf\xbd", length ? length : 3);
        out->n += length ? length : 3;
        if (!length) length = 1;
    }
}

static enum cb_status put_signs(struct buffer *out, const char *text, size_t n, struct cb_err *err) {
    for (const char *hit; (hit = memmem(text, n, SIGN, 3)); n -= (size_t)(hit - text) + 3, text = hit + 3) {
        TRY(buffer_append(out, text, (size_t)(hit - text), err));
        TRY(buffer_append(out, " ", 1, err));
    }
    return buffer_append(out, text, n, err);
}

/* The bytes of one token, as they stand in the middle of a text. */
static enum cb_status token_bytes(const struct part *part, int32_t id, const char *text, size_t n, struct buffer *out, struct cb_err *err) {
    const struct spm_rules *rules = part->data;
    int byte = byte_token(text, n);
    uint8_t type = type_of(rules, id);
    char c = (char)byte;
    if (type == PIECE_CONTROL) return CB_OK;
    if (type == PIECE_UNKNOWN) return buffer_append(out, rules->unk_surface.text, rules->unk_surface.n, err);
    if (type == PIECE_BYTE && byte >= 0) return buffer_append(out, &c, 1, err);
    return put_signs(out, text, n, err);
}

static enum cb_status decode(const struct part *part, struct decode_list *list, struct cb_err *err) {
    const struct spm_rules *rules = part->data;
    struct buffer *out = &list->spare;
    bool at_begin = true, was_sign = false;
    for (size_t i = 0; i < list->n; i++) {
        struct decode_item item = list->item[i];
        const char *text = list->text.data + item.begin;
        size_t n = item.end - item.begin, run = 0, from = out->n;
        for (; i + run < list->n && type_of(rules, list->item[i + run].id) == PIECE_BYTE; run++) {
            struct decode_item *b = &list->item[i + run];
            TRY(token_bytes(part, b->id, list->text.data + b->begin, b->end - b->begin, out, err));
        }
        if (run) {
            TRY(buffer_reserve(out, 2 * (out->n - from), err));
            put_bytes(out, from);
            i += run - 1;
            continue;
        }
        // the sign before all was put there, or stands for spaces that are not kept
        if (was_sign || out->n) at_begin = false;
        was_sign = false;
        bool plain = type_of(rules, item.id) != PIECE_CONTROL && type_of(rules, item.id) != PIECE_UNKNOWN;
        if (plain && at_begin && (rules->dummy_prefix || rules->squeeze_spaces) && n >= 3 && !memcmp(text, SIGN, 3))
            text += 3, n -= 3, was_sign = !rules->squeeze_spaces;
        TRY(token_bytes(part, item.id, text, n, out, err));
    }
    return decode_all(list, err);
}

/* ---- as components of tokenizer.json */

static json_t *replace_json(const char *kind, const char *pattern, const char *with) {
    return json_pack("{sss{ss}ss}", "type", "Replace", "pattern", kind, pattern, "content", with);
}

/* Takes list over. */
static enum cb_status set_sequence(json_t *json, const char *key, json_t *list, int bad, struct cb_err *err) {
    bad |= json_object_set_new(json, "type", json_string("Sequence"));
    bad |= json_object_set_new(json, key, list);
    if (bad) FAIL(err, CB_E_MEMORY, "tokenizer: no memory to write it");
    return CB_OK;
}

static enum cb_status normalizer_write(const struct part *part, json_t *json, struct cb_err *err) {
    const struct spm_rules *rules = part->data;
    json_t *list = json_array();
    int bad = !list;
    if (rules->n_charsmap) {
        char *text = malloc((rules->n_charsmap + 2) / 3 * 4 + 1);
        if (text) base64_encode(text, rules->charsmap, rules->n_charsmap);
        bad |= !text || json_array_append_new(list, json_pack("{ssss}", "type", "Precompiled", "precompiled_charsmap", text));
        free(text);
    }
    if (rules->squeeze_spaces) {
        bad |= json_array_append_new(list, replace_json("Regex", "\\A +|[ " SIGN "]+\\z", ""));
        bad |= json_array_append_new(list, replace_json("Regex", " {2,}", " "));
    }
    if (rules->dummy_prefix)
        bad |= json_array_append_new(
            list, rules->prefix_at_end ? replace_json("Regex", "(?<=.)\\z", " ") : json_pack("{ssss}", "type", "Prepend", "prepend", " "));
    if (rules->escape_spaces) bad |= json_array_append_new(list, replace_json("String", " ", SIGN));
    return set_sequence(json, "normalizers", list, bad, err);
}

static enum cb_status decoder_write(const struct part *part, json_t *json, struct cb_err *err) {
    const struct spm_rules *rules = part->data;
    json_t *list = json_array();
    int bad = json_array_append_new(list, replace_json("String", SIGN, " "));
    if (rules->byte_fallback) bad |= json_array_append_new(list, json_pack("{ss}", "type", "ByteFallback"));
    bad |= json_array_append_new(list, json_pack("{ss}", "type", "Fuse"));
    if ((rules->dummy_prefix && !rules->prefix_at_end) || rules->squeeze_spaces)
        bad |= json_array_append_new(list, json_pack("{sssssisi}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return set_sequence(json, "decoders", list, bad, err);
}

const struct part_kind spm_normalizer_kind = {.type = "SentencePiece", .normalise = normalise, .write = normalizer_write};
const struct part_kind spm_decoder_kind = {.type = "SentencePiece", .decode = decode, .token = token_bytes, .write = decoder_write};
