/* JSON over jansson: strict parsing of hostile text, typed getters with precise errors, and a stable writer. */
#ifndef BASE_JSON_H
#define BASE_JSON_H
#include <jansson.h>

#include "base/err.h"

/* Parses exactly one value of n bytes of UTF-8. Refused: duplicate keys, NaN and infinities, text after the value, nesting over 2048, integers over
   64 bits, lone surrogates. NUL is allowed inside strings (not keys). name: says in messages where the text is from. *out: owned by caller, free with
   json_decref; NULL on failure. */
enum cb_status json_parse(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err);
/* As json_parse, and the value must be an object. */
enum cb_status json_parse_object(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err);

/* As json_parse_object, and integers over 64 bits become floats: Transformers writes 10^30 for a length without bound. */
enum cb_status json_parse_config(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err);

/* Typed getters. An absent or null key is CB_E_FORMAT if required; otherwise *out keeps the value that it has (preset the default). A value of another
   type or outside [min, max] is CB_E_FORMAT, "NAME: key: found X; wanted Y". object: a JSON object. */
enum cb_status json_get_int(int64_t *out, const json_t *object, const char *name, const char *key, int64_t min, int64_t max, bool required,
                            struct cb_err *err);
/* Integers serve as floats too. */
enum cb_status json_get_float(double *out, const json_t *object, const char *name, const char *key, double min, double max, bool required,
                              struct cb_err *err);
enum cb_status json_get_bool(bool *out, const json_t *object, const char *name, const char *key, bool required, struct cb_err *err);
/* *out: borrowed from object; holds no NUL. */
enum cb_status json_get_str(const char **out, const json_t *object, const char *name, const char *key, bool required, struct cb_err *err);
/* One integer or a list of at most max_n of them into out; their count into *n (0 where absent). */
enum cb_status json_get_ints(int64_t *out, int *n, int max_n, const json_t *object, const char *name, const char *key, int64_t min,
                             int64_t max, bool required, struct cb_err *err);
/* An object or list under key: *out borrowed from object, unchanged where absent. */
enum cb_status json_get_object(const json_t **out, const json_t *object, const char *name, const char *key, bool required,
                               struct cb_err *err);
enum cb_status json_get_array(const json_t **out, const json_t *object, const char *name, const char *key, bool required,
                              struct cb_err *err);

/* A short text of any value for messages: `8.0`, `"gelu"`, `a list of 3`; returns text. Nullable: value ("nothing"). */
#define JSON_TEXT 80
const char *json_text(const json_t *value, char text[JSON_TEXT]);

/* The value as text: keys in insertion order, floats in the fewest digits that read back equal, UTF-8 unescaped. indent 0: one line without spaces.
   *out: NUL-terminated, owned by caller, free with free(). */
enum cb_status json_dump(char **out, const json_t *value, int indent, struct cb_err *err);
#endif
