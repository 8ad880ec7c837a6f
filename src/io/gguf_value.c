/* Values of GGUF keys: typed, with bounds, and as JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf_private.h"

static bool is_integer(enum gguf_type type) {
    return type != GGUF_F32 && type != GGUF_F64 && type != GGUF_STR && type != GGUF_BOOL && type != GGUF_ARRAY;
}
static bool is_signed(enum gguf_type type) { return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64; }

/* Element i of an integer type; those past 2^63 - 1 are held there. */
static int64_t integer_at(const struct gguf_key *key, int64_t i) {
    const int bytes = gguf_type_bytes(key->type);
    uint64_t word = gguf_word(key->data + i * bytes, bytes);
    if (is_signed(key->type) && bytes < 8 && word >> (8 * bytes - 1)) word |= ~(uint64_t)0 << 8 * bytes;
    if (!is_signed(key->type) && word > INT64_MAX) return INT64_MAX;
    return (int64_t)word;
}

/* The shortest decimal that reads back as the same f32, as a double. */
static double shortest(float x) {
    char text[40];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) return strtod(text, NULL);
    }
    return (double)x;
}

double gguf_number(const struct gguf_key *key, int64_t i) {
    const int bytes = gguf_type_bytes(key->type);
    uint64_t word = gguf_word(key->data + i * bytes, bytes);
    if (key->type == GGUF_F32) {
        uint32_t bits = (uint32_t)word;
        float x;
        memcpy(&x, &bits, sizeof x);
        return isfinite(x) ? shortest(x) : (double)x;
    }
    if (key->type == GGUF_F64) {
        double x;
        memcpy(&x, &word, sizeof x);
        return x;
    }
    return is_integer(key->type) ? (double)integer_at(key, i) : (double)word;
}

const char *gguf_next_string(const struct gguf_key *key, size_t *at, size_t *n) {
    const unsigned char *p = key->data + *at;
    *n = (size_t)gguf_word(p, 8);
    *at += 8 + *n;
    return (const char *)p + 8;
}

/* ---- getters */

static const char *kind_of(const struct gguf_key *key, char text[40]) {
    snprintf(text, 40, "%s%s", key->is_array ? "an array of " : "", gguf_type_name(key->type));
    return text;
}

static enum cb_status find(const struct gguf_key **out, const struct gguf *g, const char *name, bool required, struct cb_err *err) {
    *out = gguf_find(g, name);
    if (!*out && required) FAIL(err, CB_E_FORMAT, "%s: %s: no such key; it is wanted", gguf_name(g), name);
    return CB_OK;
}

enum cb_status gguf_get_int(int64_t *out, const struct gguf *g, const char *name, int64_t min, int64_t max, bool required,
                            struct cb_err *err) {
    const struct gguf_key *key;
    char kind[40];
    TRY(find(&key, g, name, required, err));
    if (!key) return CB_OK;
    if (key->is_array || !is_integer(key->type))
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted an integer", gguf_name(g), name, kind_of(key, kind));
    int64_t value = integer_at(key, 0);
    if (value < min || value > max)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %lld; wanted %lld to %lld", gguf_name(g), name, (long long)value, (long long)min,
             (long long)max);
    *out = value;
    return CB_OK;
}

enum cb_status gguf_get_float(double *out, const struct gguf *g, const char *name, double min, double max, bool required,
                              struct cb_err *err) {
    const struct gguf_key *key;
    char kind[40];
    TRY(find(&key, g, name, required, err));
    if (!key) return CB_OK;
    if (key->is_array || key->type == GGUF_STR || key->type == GGUF_BOOL)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted a number", gguf_name(g), name, kind_of(key, kind));
    double value = gguf_number(key, 0);
    if (!(value >= min && value <= max)) FAIL(err, CB_E_FORMAT, "%s: %s: found %g; wanted %g to %g", gguf_name(g), name, value, min, max);
    *out = value;
    return CB_OK;
}

enum cb_status gguf_get_bool(bool *out, const struct gguf *g, const char *name, bool required, struct cb_err *err) {
    const struct gguf_key *key;
    char kind[40];
    TRY(find(&key, g, name, required, err));
    if (!key) return CB_OK;
    if (key->is_array || key->type != GGUF_BOOL)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted a bool", gguf_name(g), name, kind_of(key, kind));
    *out = key->data[0];
    return CB_OK;
}

enum cb_status gguf_get_str(const char **out, struct gguf *g, const char *name, bool required, struct cb_err *err) {
    const struct gguf_key *key;
    char kind[40];
    size_t at = 0, n;
    TRY(find(&key, g, name, required, err));
    if (!key) return CB_OK;
    if (key->is_array || key->type != GGUF_STR)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted a text", gguf_name(g), name, kind_of(key, kind));
    const char *text = gguf_next_string(key, &at, &n);
    if (memchr(text, 0, n)) FAIL(err, CB_E_FORMAT, "%s: %s: a NUL inside the text", gguf_name(g), name);
    if (!(*out = arena_strndup(g->arena, text, n))) FAIL(err, CB_E_MEMORY, "%s: out of memory", gguf_name(g));
    return CB_OK;
}

enum cb_status gguf_get_array(const struct gguf_key **out, const struct gguf *g, const char *name, enum gguf_type type, bool required,
                              struct cb_err *err) {
    const struct gguf_key *key;
    char kind[40];
    *out = NULL;
    TRY(find(&key, g, name, required, err));
    if (!key) return CB_OK;
    if (!key->is_array || (key->type != type && key->n > 0))
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted an array of %s", gguf_name(g), name, kind_of(key, kind), gguf_type_name(type));
    *out = key;
    return CB_OK;
}

/* ---- as JSON */

static json_t *string_json(const char *text, size_t n) {
    json_t *value = json_stringn(text, n);
    return value ? value : json_string("(not UTF-8)");
}

static json_t *number_json(const struct gguf_key *key, int64_t i) {
    char text[40];
    if (key->type == GGUF_BOOL) return json_boolean(key->data[i]);
    if (key->type == GGUF_F32 || key->type == GGUF_F64) {
        double x = gguf_number(key, i);
        snprintf(text, sizeof text, "%g", x);
        return isfinite(x) ? json_real(x) : json_string(text);
    }
    uint64_t word = key->type == GGUF_U64 ? gguf_word(key->data + 8 * i, 8) : 0;
    snprintf(text, sizeof text, "%llu", (unsigned long long)word);
    return word > INT64_MAX ? json_string(text) : json_integer(integer_at(key, i));
}

json_t *gguf_json(const struct gguf_key *key, int64_t most) {
    size_t at = 0, n;
    if (!key->is_array) {
        if (key->type != GGUF_STR) return number_json(key, 0);
        const char *text = gguf_next_string(key, &at, &n);
        return string_json(text, n);
    }
    if (most >= 0 && key->n > most) return json_pack("{s:s,s:I}", "type", gguf_type_name(key->type), "length", (json_int_t)key->n);
    json_t *list = json_array();
    for (int64_t i = 0; list && i < key->n; i++) {
        if (key->type == GGUF_STR) {
            const char *text = gguf_next_string(key, &at, &n);
            json_array_append_new(list, string_json(text, n));
        } else {
            json_array_append_new(list, number_json(key, i));
        }
    }
    return list;
}
