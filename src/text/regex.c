/* Oniguruma behind one file. */
#include "text/regex.h"

#include <oniguruma.h>
#include <stdlib.h>
#include <string.h>

/* Backtracking steps of one search before it is given up. */
#define RETRY_LIMIT 2000000ul
#define PATTERN_LIMIT 65536

struct regex {
    regex_t *compiled;
    char shown[80];  // for messages
};

enum cb_status regex_create(struct regex **regex, const char *pattern, size_t n, const char *where, struct cb_err *err) {
    *regex = NULL;
    if (n > PATTERN_LIMIT) FAIL(err, CB_E_LIMIT, "%s: pattern of %zu bytes; at most %d are taken", where, n, PATTERN_LIMIT);
    struct regex *r = calloc(1, sizeof *r);
    if (!r) FAIL(err, CB_E_MEMORY, "%s: no memory for a pattern", where);
    size_t shown = n < sizeof r->shown - 4 ? n : sizeof r->shown - 4;
    memcpy(r->shown, pattern, shown);
    if (shown < n) memcpy(r->shown + shown, "...", 3);
    OnigErrorInfo info;
    const OnigUChar *s = (const OnigUChar *)pattern;
    int status = onig_new(&r->compiled, s, s + n, ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_RUBY, &info);
    if (status != ONIG_NORMAL) {
        OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
        onig_error_code_to_str(text, status, &info);
        err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: pattern %s: %s; a regular expression is wanted", where, r->shown,
                (const char *)text);
        free(r);
        return CB_E_FORMAT;
    }
    *regex = r;
    return CB_OK;
}

void regex_destroy(struct regex **regex) {
    if (!regex || !*regex) return;
    onig_free((*regex)->compiled);
    free(*regex);
    *regex = NULL;
}

struct regex_scratch {
    OnigMatchParam *param;
    OnigRegion *region;
};

void regex_scratch_destroy(struct regex_scratch **scratch) {
    if (!scratch || !*scratch) return;
    if ((*scratch)->param) onig_free_match_param((*scratch)->param);
    if ((*scratch)->region) onig_region_free((*scratch)->region, 1);
    free(*scratch);
    *scratch = NULL;
}

static enum cb_status scratch_create(struct regex_scratch **scratch, struct cb_err *err) {
    struct regex_scratch *s = *scratch = calloc(1, sizeof *s);
    if (s) s->param = onig_new_match_param(), s->region = onig_region_new();
    if (s && s->param && s->region) return CB_OK;
    regex_scratch_destroy(scratch);
    FAIL(err, CB_E_MEMORY, "pattern: no memory to match");
}

enum cb_status regex_find(const struct regex *regex, int64_t *begin, int64_t *end, struct regex_scratch **scratch, const char *text,
                          size_t n, size_t from, struct cb_err *err) {
    *begin = *end = -1;
    if (!*scratch) TRY(scratch_create(scratch, err));
    OnigMatchParam *param = (*scratch)->param;
    onig_initialize_match_param(param);
    onig_set_retry_limit_in_match_of_match_param(param, RETRY_LIMIT);
    onig_set_retry_limit_in_search_of_match_param(param, RETRY_LIMIT);
    const OnigUChar *s = (const OnigUChar *)text;
    int at = onig_search_with_param(regex->compiled, s, s + n, s + from, s + n, (*scratch)->region, ONIG_OPTION_NONE, param);
    if (at >= 0) *begin = (*scratch)->region->beg[0], *end = (*scratch)->region->end[0];
    if (at >= 0 || at == ONIG_MISMATCH) return CB_OK;
    OnigUChar message[ONIG_MAX_ERROR_MESSAGE_LEN];
    onig_error_code_to_str(message, at);
    FAIL(err, CB_E_LIMIT, "pattern %s: matching %zu bytes of text was given up: %s", regex->shown, n, (const char *)message);
}

int regex_property(const char *name) {
    OnigEncoding encoding = ONIG_ENCODING_UTF8;
    OnigUChar *s = (OnigUChar *)(uintptr_t)name;
    return ONIGENC_PROPERTY_NAME_TO_CTYPE(encoding, s, s + strlen(name));
}

bool regex_has_property(int property, uint32_t cp) { return ONIGENC_IS_CODE_CTYPE(ONIG_ENCODING_UTF8, cp, (unsigned)property) != 0; }
