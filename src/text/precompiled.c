/* SentencePiece's compiled character map: a double-array trie (Aoe, 1989) of source strings, and their replacements. */
#include "text/base64.h"
#include "text/normalise.h"
#include "text/unicode.h"
#include "text/utf8.h"

struct charsmap {
    const uint32_t *unit;  // the trie
    size_t n_units;
    const char *text;  // replacements, each ended by NUL
    size_t n_text;
};

enum cb_status charsmap_parse(struct tokenizer *t, struct charsmap **out, const unsigned char *bytes, size_t n, const char *where,
                              struct cb_err *err) {
    struct charsmap *map = *out = arena_alloc(t->arena, sizeof *map);
    if (!map) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    if (!n) return CB_OK;
    uint32_t trie = n >= 4 ? bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24 : 0;
    if (n < 4 || trie > n - 4 || trie % 4)
        FAIL(err, CB_E_FORMAT, "%s: precompiled_charsmap: a trie of %u bytes in %zu; it must fit", where, trie, n);
    uint32_t *unit = arena_array(t->arena, trie / 4 + 1, 4);
    if (!unit) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    for (size_t i = 0; i < trie / 4; i++) {
        const unsigned char *b = bytes + 4 + i * 4;
        unit[i] = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    }
    *map = (struct charsmap){unit, trie / 4, (const char *)bytes + 4 + trie, n - 4 - trie};
    size_t good = utf8_check(map->text, map->n_text);
    if (good < map->n_text || (map->n_text && map->text[map->n_text - 1]))
        FAIL(err, CB_E_FORMAT, "%s: precompiled_charsmap: replacements that are not UTF-8 text ended by NUL", where);
    return CB_OK;
}

static enum cb_status precompiled_read(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err) {
    (void)json;
    const struct part_text *text = &part->text[0];
    unsigned char *bytes = arena_alloc(t->arena, text->n + 64);
    if (!bytes) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    int64_t n = base64_decode(bytes, text->text, text->n);
    if (n < 0) FAIL(err, CB_E_FORMAT, "%s: precompiled_charsmap: found text that is not base64", where);
    struct charsmap *map = NULL;
    TRY(charsmap_parse(t, &map, bytes, (size_t)n, where, err));
    part->data = map;
    return CB_OK;
}

static size_t unit_offset(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & 512) >> 6); }

/* The replacement of the first n bytes or of the shortest prefix that has one; NULL where none does. */
static const char *map_find(const struct charsmap *map, const char *text, size_t n) {
    if (!map->n_units) return NULL;
    size_t at = unit_offset(map->unit[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (!c || at >= map->n_units) return NULL;
        uint32_t unit = map->unit[at];
        if ((unit & 0x800000ffu) != c) return NULL;
        at ^= unit_offset(unit);
        if (unit >> 8 & 1) {
            uint32_t value = at < map->n_units ? map->unit[at] & 0x7fffffffu : UINT32_MAX;
            return value < map->n_text ? map->text + value : NULL;
        }
    }
    return NULL;
}

const char *charsmap_longest(const struct charsmap *map, const char *text, size_t n, size_t *length) {
    const char *found = NULL;
    *length = 0;
    if (!map || !map->n_units) return NULL;
    size_t at = unit_offset(map->unit[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (!c || at >= map->n_units || (map->unit[at] & 0x800000ffu) != c) break;
        uint32_t unit = map->unit[at];
        at ^= unit_offset(unit);
        uint32_t value = unit >> 8 & 1 && at < map->n_units ? map->unit[at] & 0x7fffffffu : UINT32_MAX;
        if (value < map->n_text && !utf8_is_tail(map->text[value])) found = map->text + value, *length = i + 1;
    }
    return found;
}

/* Replaces a stretch of old characters: those past its count are inserted, those that it lacks are dropped with the character before. (At the very
   start nothing is there to drop them with: ranges then run behind, in the reference too.) */
static enum cb_status replace(struct rewrite *r, const char *with, size_t old, struct cb_err *err) {
    size_t n_with = strlen(with), k = 0;
    for (size_t i = 0, length; i < n_with; i += length, k++) {
        uint32_t cp = 0;
        length = (size_t)utf8_decode(with + i, n_with - i, &cp);
        if (!length) length = 1;
        TRY(rewrite_emit(r, cp, k >= old, err));
    }
    for (; k < old && r->out->n && r->at < r->in->n; k++) rewrite_skip(r, (size_t)utf8_length(r->in->text[r->at]));
    return CB_OK;
}

static enum cb_status precompiled(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    const struct charsmap *map = part->data;
    if (!map->n_units) return CB_OK;
    struct piece in = *piece;
    struct rewrite r = rewrite_begin(out, &in, e->tracking);
    for (size_t at = 0, length; at < in.n; at += length) {
        length = unicode_grapheme(in.text + at, in.n - at);
        // a short grapheme may be replaced whole, else each of its characters
        const char *whole = length < 6 ? map_find(map, in.text + at, length) : NULL;
        if (whole) {
            TRY(replace(&r, whole, utf8_count(in.text + at, length), err));
            continue;
        }
        for (size_t i = 0, n; i < length; i += n) {
            uint32_t cp = 0;
            n = (size_t)utf8_decode(in.text + at + i, length - i, &cp);
            if (!n) n = 1;
            const char *one = map_find(map, in.text + at + i, n);
            TRY(one ? replace(&r, one, 1, err) : rewrite_emit(&r, cp, 0, err));
        }
    }
    *piece = rewrite_end(&r);
    return CB_OK;
}

const struct part_kind precompiled_kind = {.type = "Precompiled",
                                           .field = {{"precompiled_charsmap", FIELD_TEXT, 0, .required = true}},
                                           .read = precompiled_read,
                                           .normalise = precompiled};
