/* Strict JSON parsing over jansson and typed getters for configuration files. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Copies at most size - 1 bytes of text, control characters as '?', cut at a whole UTF-8 character.
static void text_clean(char *out, size_t size, const char *text, size_t n) {
    bool cut = n > size - 1;
    if (cut) n = size - 4;
    while (cut && n && ((unsigned char)text[n] & 0xc0) == 0x80) n--;
    for (size_t i = 0; i < n; i++) out[i] = (unsigned char)text[i] < 32 || text[i] == 127 ? '?' : text[i];
    out[n] = 0;
    if (cut) memcpy(out + n, "...", 4);
}

// The raw text of the string token that ends at byte `end`: the key jansson has just read.
static void key_before(char *out, size_t size, const char *bytes, size_t n, int end) {
    size_t e = end > 0 && (size_t)end <= n ? (size_t)end : 0;
    while (e && bytes[e - 1] != '"') e--;
    if (e) e--;
    size_t b = e;
    while (b) {
        size_t slashes = 0;
        if (bytes[b - 1] == '"') {
            while (slashes < b - 1 && bytes[b - 2 - slashes] == '\\') slashes++;
            if (slashes % 2 == 0) break;
        }
        b--;
    }
    text_clean(out, size, bytes + b, e - b);
}

// The last key before byte `at`: the one whose value the parser was in.
static bool key_around(char *out, size_t size, const char *bytes, size_t n, int at) {
    size_t e = at > 0 && (size_t)at <= n ? (size_t)at : 0;
    while (e > 1 && !(bytes[e - 1] == ':' && bytes[e - 2] == '"')) e--;
    if (e <= 1) return false;
    key_before(out, size, bytes, n, (int)e - 1);
    return true;
}

enum cb_status json_parse(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err) {
    *out = NULL;
    if (n == 0) FAIL(err, CB_E_FORMAT, "%s: 0 bytes; wanted JSON", name);
    json_error_t e;
    *out = json_loadb(bytes, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (*out) return CB_OK;
    char text[400];
    switch (json_error_code(&e)) {
        case json_error_out_of_memory: FAIL(err, CB_E_MEMORY, "%s: out of memory reading %zu bytes of JSON", name, n);
        case json_error_invalid_utf8:
            FAIL(err, CB_E_FORMAT, "%s: JSON line %d: a byte at %d is not UTF-8; wanted UTF-8 text", name, e.line, e.position);
        case json_error_duplicate_key:
            key_before(text, sizeof text, bytes, n, e.position);
            FAIL(err, CB_E_FORMAT, "%s: JSON line %d column %d: duplicate key '%s'; wanted each key once", name, e.line, e.column, text);
        case json_error_stack_overflow: FAIL(err, CB_E_FORMAT, "%s: JSON nested over its depth limit of 2048", name);
        default: break;
    }
    text_clean(text, sizeof text, e.text, strlen(e.text));
    char key[200];
    if (json_error_code(&e) == json_error_numeric_overflow && key_around(key, sizeof key, bytes, n, e.position))
        FAIL(err, CB_E_FORMAT, "%s: JSON line %d column %d: %s: %s; wanted a number of 64 bits", name, e.line, e.column, key, text);
    const char *surrogate = strstr(text, "invalid Unicode") ? " (half of a surrogate pair)" : "";
    FAIL(err, CB_E_FORMAT, "%s: JSON line %d column %d: %s%s", name, e.line, e.column, text, surrogate);
}

// Writes the integer that ends before byte `end` as a float of as many bytes: the last digits give way to the point and the exponent.
static bool integer_to_float(char *bytes, size_t n, int end) {
    size_t e = end > 0 && (size_t)end <= n ? (size_t)end : 0;
    while (e && (bytes[e - 1] < '0' || bytes[e - 1] > '9')) e--;
    size_t b = e;
    while (b && bytes[b - 1] >= '0' && bytes[b - 1] <= '9') b--;
    char exponent[24];
    const size_t digits = e - b, k = (size_t)snprintf(exponent, sizeof exponent, "e%zu", digits - 1);
    if (digits < 19 || digits > 300) return false;
    memmove(bytes + b + 2, bytes + b + 1, digits - 2 - k);
    bytes[b + 1] = '.';
    memcpy(bytes + e - k, exponent, k);
    return true;
}

enum cb_status json_parse_config(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err) {
    enum { MOST = 16 };  // such numbers in one file
    json_error_t e;
    *out = NULL;
    char *copy = malloc(n ? n : 1);
    if (!copy) FAIL(err, CB_E_MEMORY, "%s: out of memory reading %zu bytes of JSON", name, n);
    memcpy(copy, bytes, n);
    for (int i = 0; i < MOST; i++) {
        json_t *whole = json_loadb(copy, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
        json_decref(whole);
        if (whole || json_error_code(&e) != json_error_numeric_overflow || !integer_to_float(copy, n, e.position)) break;
    }
    enum cb_status status = json_parse_object(out, copy, n, name, err);
    free(copy);
    return status;
}

enum cb_status json_parse_object(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err) {
    TRY(json_parse(out, bytes, n, name, err));
    if (json_is_object(*out)) return CB_OK;
    char text[JSON_TEXT];
    json_text(*out, text);
    json_decref(*out);
    *out = NULL;
    FAIL(err, CB_E_FORMAT, "%s: found %s; wanted a JSON object", name, text);
}

// The fewest digits that read back equal; always recognisable as a float.
static void real_text(char *out, size_t size, double x) {
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, x);
        if (strtod(out, NULL) == x) break;
    }
    if (!strpbrk(out, ".en") && strlen(out) + 3 <= size) strcat(out, ".0");
}

const char *json_text(const json_t *value, char text[JSON_TEXT]) {
    char part[JSON_TEXT - 4];
    if (!value) return strcpy(text, "nothing");
    switch (json_typeof(value)) {
        case JSON_OBJECT: snprintf(text, JSON_TEXT, "an object of %zu keys", json_object_size(value)); break;
        case JSON_ARRAY: snprintf(text, JSON_TEXT, "a list of %zu", json_array_size(value)); break;
        case JSON_STRING:
            text_clean(part, sizeof part, json_string_value(value), json_string_length(value));
            snprintf(text, JSON_TEXT, "\"%s\"", part);
            break;
        case JSON_INTEGER: snprintf(text, JSON_TEXT, "%lld", (long long)json_integer_value(value)); break;
        case JSON_REAL: real_text(text, JSON_TEXT, json_real_value(value)); break;
        case JSON_TRUE: strcpy(text, "true"); break;
        case JSON_FALSE: strcpy(text, "false"); break;
        case JSON_NULL: strcpy(text, "null"); break;
    }
    return text;
}

// The value under key, NULL where absent or null; that fails if required.
static enum cb_status value_get(const json_t **out, const json_t *object, const char *name, const char *key, bool required,
                                const char *wanted, struct cb_err *err) {
    *out = json_object_get(object, key);
    char text[JSON_TEXT];
    if (required && (!*out || json_is_null(*out)))
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted %s", name, key, json_text(*out, text), wanted);
    if (json_is_null(*out)) *out = NULL;
    return CB_OK;
}

static enum cb_status value_refuse(const json_t *value, const char *name, const char *key, const char *wanted, struct cb_err *err) {
    char text[JSON_TEXT];
    FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted %s", name, key, json_text(value, text), wanted);
}

static void int_wanted(char wanted[JSON_TEXT], int64_t min, int64_t max) {
    if (max == INT64_MAX && min == INT64_MIN)
        snprintf(wanted, JSON_TEXT, "an integer");
    else if (max == INT64_MAX)
        snprintf(wanted, JSON_TEXT, "an integer of at least %lld", (long long)min);
    else
        snprintf(wanted, JSON_TEXT, "an integer in [%lld, %lld]", (long long)min, (long long)max);
}

static bool int_fits(const json_t *value, int64_t min, int64_t max) {
    return json_is_integer(value) && json_integer_value(value) >= min && json_integer_value(value) <= max;
}

enum cb_status json_get_int(int64_t *out, const json_t *object, const char *name, const char *key, int64_t min, int64_t max, bool required,
                            struct cb_err *err) {
    const json_t *value;
    char wanted[JSON_TEXT];
    int_wanted(wanted, min, max);
    TRY(value_get(&value, object, name, key, required, wanted, err));
    if (!value) return CB_OK;
    if (!int_fits(value, min, max)) return value_refuse(value, name, key, wanted, err);
    *out = json_integer_value(value);
    return CB_OK;
}

enum cb_status json_get_float(double *out, const json_t *object, const char *name, const char *key, double min, double max, bool required,
                              struct cb_err *err) {
    const json_t *value;
    char wanted[JSON_TEXT];
    if (isinf(min) && isinf(max))
        snprintf(wanted, sizeof wanted, "a number");
    else if (isinf(max))
        snprintf(wanted, sizeof wanted, "a number of at least %g", min);
    else
        snprintf(wanted, sizeof wanted, "a number in [%g, %g]", min, max);
    TRY(value_get(&value, object, name, key, required, wanted, err));
    if (!value) return CB_OK;
    double x = json_number_value(value);
    if (!json_is_number(value) || !(x >= min && x <= max)) return value_refuse(value, name, key, wanted, err);
    *out = x;
    return CB_OK;
}

enum cb_status json_get_bool(bool *out, const json_t *object, const char *name, const char *key, bool required, struct cb_err *err) {
    const json_t *value;
    TRY(value_get(&value, object, name, key, required, "true or false", err));
    if (!value) return CB_OK;
    if (!json_is_boolean(value)) return value_refuse(value, name, key, "true or false", err);
    *out = json_is_true(value);
    return CB_OK;
}

enum cb_status json_get_str(const char **out, const json_t *object, const char *name, const char *key, bool required, struct cb_err *err) {
    const json_t *value;
    TRY(value_get(&value, object, name, key, required, "a string", err));
    if (!value) return CB_OK;
    if (!json_is_string(value)) return value_refuse(value, name, key, "a string", err);
    if (strlen(json_string_value(value)) != json_string_length(value)) return value_refuse(value, name, key, "a string without NUL", err);
    *out = json_string_value(value);
    return CB_OK;
}

enum cb_status json_get_ints(int64_t *out, int *n, int max_n, const json_t *object, const char *name, const char *key, int64_t min,
                             int64_t max, bool required, struct cb_err *err) {
    const json_t *value;
    char one[JSON_TEXT], wanted[JSON_TEXT + 60];
    *n = 0;
    int_wanted(one, min, max);
    snprintf(wanted, sizeof wanted, "%s, or a list of at most %d of them", one, max_n);
    TRY(value_get(&value, object, name, key, required, wanted, err));
    if (!value) return CB_OK;
    if (!json_is_array(value)) {
        if (max_n < 1 || !int_fits(value, min, max)) return value_refuse(value, name, key, wanted, err);
        out[0] = json_integer_value(value);
        *n = 1;
        return CB_OK;
    }
    size_t count = json_array_size(value);
    if (count > (size_t)max_n) return value_refuse(value, name, key, wanted, err);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(value, i);
        if (!int_fits(item, min, max)) return value_refuse(item, name, key, wanted, err);
        out[i] = json_integer_value(item);
    }
    *n = (int)count;
    return CB_OK;
}

enum cb_status json_get_object(const json_t **out, const json_t *object, const char *name, const char *key, bool required,
                               struct cb_err *err) {
    const json_t *value;
    TRY(value_get(&value, object, name, key, required, "an object", err));
    if (!value) return CB_OK;
    if (!json_is_object(value)) return value_refuse(value, name, key, "an object", err);
    *out = value;
    return CB_OK;
}

enum cb_status json_get_array(const json_t **out, const json_t *object, const char *name, const char *key, bool required,
                              struct cb_err *err) {
    const json_t *value;
    TRY(value_get(&value, object, name, key, required, "a list", err));
    if (!value) return CB_OK;
    if (!json_is_array(value)) return value_refuse(value, name, key, "a list", err);
    *out = value;
    return CB_OK;
}

// ---- writer: a growing text; `failed` sticks

struct text {
    char *data;
    size_t used, size;
    bool failed;
};

static void put(struct text *t, const char *bytes, size_t n) {
    if (t->failed) return;
    if (n >= t->size - t->used) {
        size_t size = t->size * 2 > t->used + n + 1 ? t->size * 2 : t->used + n + 1;
        char *data = realloc(t->data, size);
        if (!data) {
            t->failed = true;
            return;
        }
        t->data = data;
        t->size = size;
    }
    memcpy(t->data + t->used, bytes, n);
    t->used += n;
    t->data[t->used] = 0;
}

static void put_string(struct text *t, const char *s, size_t n) {
    put(t, "\"", 1);
    for (size_t i = 0, run = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)s[i] : 0;
        if (i < n && c >= 32 && c != '"' && c != '\\') continue;
        put(t, s + run, i - run);
        run = i + 1;
        if (i == n) break;
        const char *at = strchr("\"\"\\\\\nn\tt\rr\bb\ff", c);
        char escape[8];
        if (c && at)
            snprintf(escape, sizeof escape, "\\%c", c == '"' || c == '\\' ? c : at[1]);
        else
            snprintf(escape, sizeof escape, "\\u%04x", c);
        put(t, escape, strlen(escape));
    }
    put(t, "\"", 1);
}

static void put_line(struct text *t, int indent, int depth) {
    if (!indent) return;
    put(t, "\n", 1);
    for (int i = 0; i < indent * depth; i++) put(t, " ", 1);
}

static void put_value(struct text *t, const json_t *value, int indent, int depth) {
    char number[64];
    const char *key;
    json_t *item;
    size_t i;
    bool first = true;
    switch (json_typeof(value)) {
        case JSON_OBJECT:
            put(t, "{", 1);
            json_object_foreach((json_t *)value, key, item) {
                if (!first) put(t, ",", 1);
                first = false;
                put_line(t, indent, depth + 1);
                put_string(t, key, strlen(key));
                put(t, ": ", indent ? 2 : 1);
                put_value(t, item, indent, depth + 1);
            }
            if (!first) put_line(t, indent, depth);
            put(t, "}", 1);
            break;
        case JSON_ARRAY:
            put(t, "[", 1);
            json_array_foreach(value, i, item) {
                if (i) put(t, ",", 1);
                put_line(t, indent, depth + 1);
                put_value(t, item, indent, depth + 1);
            }
            if (i) put_line(t, indent, depth);
            put(t, "]", 1);
            break;
        case JSON_STRING: put_string(t, json_string_value(value), json_string_length(value)); break;
        case JSON_REAL:
            real_text(number, sizeof number, json_real_value(value));
            put(t, number, strlen(number));
            break;
        default: put(t, json_text(value, (char[JSON_TEXT]){0}), strlen(json_text(value, (char[JSON_TEXT]){0})));
    }
}

enum cb_status json_dump(char **out, const json_t *value, int indent, struct cb_err *err) {
    *out = NULL;
    if (!value) FAIL(err, CB_E_ARGUMENT, "json: found no value to write; wanted one");
    struct text t = {malloc(256), 0, 256, false};
    if (t.data)
        put_value(&t, value, indent, 0);
    else
        t.failed = true;
    if (t.failed) {
        free(t.data);
        FAIL(err, CB_E_MEMORY, "json: out of memory after %zu bytes of text", t.used);
    }
    *out = t.data;
    return CB_OK;
}
