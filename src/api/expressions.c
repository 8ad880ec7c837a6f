/* Module expressions: a folder, WEIGHT*folder, sum(a, WEIGHT*b, ...). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "api/instance.h"

static const char *skip_space(const char *p) {
    while (isspace((unsigned char)*p)) p++;
    return p;
}

/* One term, of n bytes: an optional weight before '*', then a folder. */
static enum cb_status add_term(struct instance *in, const char *term, size_t n, struct cb_err *err) {
    char *end, *folder;
    term = skip_space(term);
    double weight = strtod(term, &end);
    const char *star = skip_space(end);
    bool weighted = end != term && *star == '*';
    const char *begin = weighted ? skip_space(star + 1) : term, *stop = term + n;
    while (stop > begin && isspace((unsigned char)stop[-1])) stop--;
    if (stop <= begin) FAIL(err, CB_E_USAGE, "--modules '%.*s': no folder", (int)n, term);
    if (!(folder = strndup(begin, (size_t)(stop - begin)))) FAIL(err, CB_E_MEMORY, "modules: out of memory");
    enum cb_status status = instance_load_module(in, folder, weighted ? weight : 1, err);
    free(folder);
    return status;
}

enum cb_status instance_add_modules(struct instance *in, const char *expression, struct cb_err *err) {
    const char *p = skip_space(expression);
    size_t word = 0;
    while (isalpha((unsigned char)p[word])) word++;
    if (p[word] != '(') return add_term(in, p, strlen(p), err);
    const char *close = strrchr(p, ')');
    if (!close || *skip_space(close + 1)) FAIL(err, CB_E_USAGE, "--modules '%s': no closing parenthesis at its end", expression);
    if (word != 3 || strncmp(p, "sum", 3) != 0)
        FAIL(err, CB_E_UNSUPPORTED, "--modules '%s': no combination '%.*s'; wanted a folder, WEIGHT*folder or sum(...)", expression,
             (int)word, p);
    for (p += word + 1; p <= close;) {
        size_t n = strcspn(p, ",");
        if (p + n > close) n = (size_t)(close - p);
        if (memchr(p, '(', n))
            FAIL(err, CB_E_UNSUPPORTED, "--modules '%s': nested combinations; wanted folders inside sum(...)", expression);
        TRY(add_term(in, p, n, err));
        p += n + 1;
    }
    return CB_OK;
}
