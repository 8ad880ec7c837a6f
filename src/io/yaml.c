/* YAML over libyaml: its document tree becomes JSON, within limits of depth and size. */
#include "io/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 64, MAX_VALUES = 100000, MAX_BYTES = 1 << 24 /* of the text, and of all its values with copies */ };

struct yaml {
    yaml_document_t document;
    const char *name;
    int n_values;
    size_t n_bytes;  // of texts
};

static enum cb_status value_of(json_t **out, struct yaml *y, int index, int depth, struct cb_err *err);

static enum cb_status refuse(const struct yaml *y, const yaml_node_t *node, const char *found, const char *wanted, struct cb_err *err) {
    FAIL(err, CB_E_FORMAT, "%s: line %zu: found %s; wanted %s", y->name, node->start_mark.line + 1, found, wanted);
}

/* A plain word that has a meaning of its own; NULL: none. */
static json_t *word_value(const char *s) {
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (!strcmp(s, yes[i])) return json_true();
        if (!strcmp(s, no[i])) return json_false();
    }
    if (!*s || !strcmp(s, "~") || !strcmp(s, "null") || !strcmp(s, "Null") || !strcmp(s, "NULL")) return json_null();
    return NULL;
}

/* Digits, one sign, a point and an exponent: what strtod is asked about (it knows "nan", "infinity" and hexadecimal floats too). */
static bool looks_numeric(const char *s) {
    bool digit = false;
    for (const char *p = s; *p; p++) {
        if (*p >= '0' && *p <= '9')
            digit = true;
        else if (!strchr("+-.eE", *p) || (!digit && (*p == 'e' || *p == 'E')))
            return false;
    }
    return digit;
}

static json_t *plain_value(const char *s) {
    char *end;
    json_t *word = word_value(s);
    if (word) return word;
    if (!looks_numeric(s)) return json_string(s);
    errno = 0;
    long long whole = strtoll(s, &end, 10);
    if (!*end && !errno) return json_integer(whole);
    double real = strtod(s, &end);
    return !*end && isfinite(real) ? json_real(real) : json_string(s);
}

static enum cb_status scalar_value(json_t **out, struct yaml *y, const yaml_node_t *node, struct cb_err *err) {
    const char *s = (const char *)node->data.scalar.value, *tag = (const char *)node->tag;
    if (strlen(s) != node->data.scalar.length) return refuse(y, node, "a NUL", "text without it", err);
    y->n_bytes += node->data.scalar.length;
    if (y->n_bytes > MAX_BYTES) return refuse(y, node, "too much text", "at most 16 MiB, copies by aliases counted", err);
    bool is_text = node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (tag && strcmp(tag, YAML_STR_TAG)) {
        static const char *const core[] = {YAML_NULL_TAG, YAML_BOOL_TAG, YAML_INT_TAG, YAML_FLOAT_TAG};
        bool known = false;
        for (size_t i = 0; i < sizeof core / sizeof *core; i++) known |= !strcmp(tag, core[i]);
        if (!known) return refuse(y, node, tag, "a value without a tag", err);
        is_text = false;
    }
    *out = is_text ? json_string(s) : plain_value(s);
    if (!*out) return refuse(y, node, "bytes that are no text", "UTF-8", err);
    return CB_OK;
}

static enum cb_status list_value(json_t **out, struct yaml *y, const yaml_node_t *node, int depth, struct cb_err *err) {
    if (!(*out = json_array())) FAIL(err, CB_E_MEMORY, "%s: out of memory", y->name);
    for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        json_t *item = NULL;
        TRY(value_of(&item, y, *i, depth, err));
        if (json_array_append_new(*out, item)) FAIL(err, CB_E_MEMORY, "%s: out of memory", y->name);
    }
    return CB_OK;
}

/* "<<: {...}" or "<<: [{...}, ...]": keys that the mapping has not itself. */
static enum cb_status merge_key(json_t *into, const struct yaml *y, const yaml_node_t *node, json_t *from, struct cb_err *err) {
    size_t n = json_is_array(from) ? json_array_size(from) : 1;
    for (size_t i = 0; i < n; i++) {
        json_t *one = json_is_array(from) ? json_array_get(from, i) : from;
        if (!json_is_object(one)) return refuse(y, node, "<< of something else", "<< of a mapping", err);
        json_object_update_missing(into, one);
    }
    return CB_OK;
}

static enum cb_status mapping_value(json_t **out, struct yaml *y, const yaml_node_t *node, int depth, struct cb_err *err) {
    json_t *merged = json_array();
    if (!(*out = json_object()) || !merged) {
        json_decref(merged);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", y->name);
    }
    enum cb_status status = CB_OK;
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top && status == CB_OK; p++) {
        const yaml_node_t *key = yaml_document_get_node(&y->document, p->key);
        json_t *value = NULL;
        if (!key || key->type != YAML_SCALAR_NODE || strlen((const char *)key->data.scalar.value) != key->data.scalar.length)
            status = refuse(y, node, "a key that is no text", "keys of text", err);
        if (status == CB_OK) status = value_of(&value, y, p->value, depth, err);
        const char *name = status == CB_OK ? (const char *)key->data.scalar.value : "";
        if (status != CB_OK) {
            json_decref(value);
        } else if (!strcmp(name, "<<")) {
            status = json_array_append_new(merged, value) ? CB_E_MEMORY : CB_OK;
        } else if (json_object_get(*out, name)) {
            json_decref(value);
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: line %zu: %.200s: found twice; wanted each key once", y->name,
                             key->start_mark.line + 1, name);
        } else if (json_object_set_new(*out, name, value)) {
            status = refuse(y, key, "a key that is no text", "UTF-8", err);
        }
    }
    for (size_t i = 0; i < json_array_size(merged) && status == CB_OK; i++)
        status = merge_key(*out, y, node, json_array_get(merged, i), err);
    json_decref(merged);
    return status;
}

/* On failure *out may hold a part, which the caller frees. */
static enum cb_status value_of(json_t **out, struct yaml *y, int index, int depth, struct cb_err *err) {
    const yaml_node_t *node = yaml_document_get_node(&y->document, index);
    *out = NULL;
    if (!node) FAIL(err, CB_E_FORMAT, "%s: found no value; wanted one", y->name);
    if (depth > MAX_DEPTH) return refuse(y, node, "values nested too deep", "at most 64 levels", err);
    // an alias is the same node again: what it costs is counted each time
    if (++y->n_values > MAX_VALUES) return refuse(y, node, "too many values", "at most 100000, copies by aliases counted", err);
    enum cb_status status;
    if (node->type == YAML_SCALAR_NODE)
        status = scalar_value(out, y, node, err);
    else if (node->type == YAML_SEQUENCE_NODE)
        status = list_value(out, y, node, depth + 1, err);
    else
        status = mapping_value(out, y, node, depth + 1, err);
    if (status != CB_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return status;
}

/* How deep the events of a text go, before libyaml makes a tree of it: one text of brackets must not take much memory. */
static enum cb_status check_events(const char *bytes, size_t n, const char *name, struct cb_err *err) {
    yaml_parser_t parser;
    yaml_event_t event;
    int depth = 0, n_values = 0, n_documents = 0;
    if (!yaml_parser_initialize(&parser)) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, n);
    enum cb_status status = CB_OK;
    for (bool done = false; !done && status == CB_OK;) {
        if (!yaml_parser_parse(&parser, &event)) {
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: line %zu: %s; wanted YAML", name, parser.problem_mark.line + 1,
                             parser.problem ? parser.problem : "cannot be read");
            break;
        }
        depth += event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT;
        depth -= event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT;
        n_values += event.type == YAML_SCALAR_EVENT || event.type == YAML_ALIAS_EVENT;
        n_documents += event.type == YAML_DOCUMENT_START_EVENT;
        done = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (depth > MAX_DEPTH || n_values > MAX_VALUES || n_documents > 1)
            status =
                err_set(err, CB_E_LIMIT, __FILE__, __LINE__, "%s: found %s; wanted one document of at most %d levels and %d values", name,
                        n_documents > 1     ? "several documents"
                        : depth > MAX_DEPTH ? "values nested too deep"
                                            : "too many values",
                        MAX_DEPTH, MAX_VALUES);
    }
    yaml_parser_delete(&parser);
    return status;
}

enum cb_status yaml_parse(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err) {
    struct yaml y = {.name = name};
    yaml_parser_t parser;
    *out = NULL;
    if (n > MAX_BYTES) FAIL(err, CB_E_LIMIT, "%s: %zu bytes of YAML; wanted at most %d", name, n, MAX_BYTES);
    TRY(check_events(bytes, n, name, err));
    if (!yaml_parser_initialize(&parser)) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, n);
    if (!yaml_parser_load(&parser, &y.document)) {
        enum cb_status failed = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: line %zu: %s; wanted YAML", name,
                                        parser.problem_mark.line + 1, parser.problem ? parser.problem : "cannot be read");
        yaml_parser_delete(&parser);
        return failed;
    }
    enum cb_status status = yaml_document_get_root_node(&y.document)
                                ? value_of(out, &y, 1, 0, err)
                                : err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: found nothing; wanted YAML", name);
    yaml_document_delete(&y.document);
    yaml_parser_delete(&parser);
    return status;
}
