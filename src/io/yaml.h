/* YAML texts as JSON values: what recipes are written in. */
#ifndef IO_YAML_H
#define IO_YAML_H
#include "base/json.h"

/* Parses one document of n bytes. Plain scalars become null, booleans (true, false, yes, no, on, off), integers, floats (YAML 1.1 core types; a number such
   as 1e-5 without a point too) or strings; quoted ones are strings. Aliases are copied and "<<" merges mappings. Refused: several documents, duplicate or
   non-scalar keys, tags other than the core ones, nesting over 64, more than 100000 values after copying aliases. name: says in messages where the text is
   from. *out: owned by caller, free with json_decref; NULL on failure. */
enum cb_status yaml_parse(json_t **out, const char *bytes, size_t n, const char *name, struct cb_err *err);
#endif
