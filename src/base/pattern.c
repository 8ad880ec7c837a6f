/* Whole-name patterns over Oniguruma. */
#include "base/pattern.h"

#include <oniguruma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Backtracking steps of one match before it is given up. */
#define RETRY_LIMIT 1000000ul
#define TEXT_LIMIT 4096

struct pattern {
    regex_t *compiled;
    char shown[64];  // for messages
};

static enum cb_status compile(regex_t **compiled, const char *text, const char *shown, const char *where, struct cb_err *err) {
    OnigErrorInfo info;
    const OnigUChar *s = (const OnigUChar *)text;
    int status = onig_new(compiled, s, s + strlen(text), ONIG_OPTION_CAPTURE_GROUP, ONIG_ENCODING_UTF8, ONIG_SYNTAX_PERL_NG, &info);
    if (status == ONIG_NORMAL) return CB_OK;
    OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN];
    onig_error_code_to_str(reason, status, &info);
    FAIL(err, CB_E_FORMAT, "%s: pattern %s: %s; a regular expression is wanted", where, shown, (const char *)reason);
}

enum cb_status pattern_create(struct pattern **pattern, const char *text, const char *where, struct cb_err *err) {
    *pattern = NULL;
    size_t n = strlen(text);
    if (n > TEXT_LIMIT) FAIL(err, CB_E_LIMIT, "%s: pattern of %zu bytes; at most %d are taken", where, n, TEXT_LIMIT);
    struct pattern *p = calloc(1, sizeof *p);
    char *whole = malloc(n + 16);
    enum cb_status status = CB_OK;
    if (!p || !whole) {
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a pattern", where);
    } else {
        snprintf(p->shown, sizeof p->shown, "%.60s", text);
        // alone first: "a)(b" is no pattern, though it would be one inside the group
        status = compile(&p->compiled, text, p->shown, where, err);
        if (status == CB_OK) {
            onig_free(p->compiled);
            snprintf(whole, n + 16, "\\A(?:%s)\\z", text);
            status = compile(&p->compiled, whole, p->shown, where, err);
        }
    }
    free(whole);
    if (status == CB_OK)
        *pattern = p;
    else
        free(p);
    return status;
}

void pattern_destroy(struct pattern **pattern) {
    if (!pattern || !*pattern) return;
    onig_free((*pattern)->compiled);
    free(*pattern);
    *pattern = NULL;
}

enum cb_status pattern_matches(const struct pattern *pattern, const char *name, bool *matches, struct cb_err *err) {
    *matches = false;
    OnigMatchParam *param = onig_new_match_param();
    if (!param) FAIL(err, CB_E_MEMORY, "pattern %s: no memory to match", pattern->shown);
    onig_initialize_match_param(param);
    onig_set_retry_limit_in_match_of_match_param(param, RETRY_LIMIT);
    const OnigUChar *s = (const OnigUChar *)name, *end = s + strlen(name);
    int at = onig_match_with_param(pattern->compiled, s, end, s, NULL, ONIG_OPTION_NONE, param);
    onig_free_match_param(param);
    *matches = at >= 0;
    if (at >= 0 || at == ONIG_MISMATCH) return CB_OK;
    OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN];
    onig_error_code_to_str(reason, at);
    FAIL(err, CB_E_LIMIT, "pattern %s: matching %.80s was given up: %s", pattern->shown, name, (const char *)reason);
}
