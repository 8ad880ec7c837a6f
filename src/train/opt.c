/* The list of optimisers, their options as text, and the tiled update. */
#include "train/opt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpuid.h"
#include "base/subnormal.h"

#define OPTIMIZER(name) extern const struct optimizer optimizer_##name;
#include "gen/optimizers.inc"
#undef OPTIMIZER

static const struct optimizer *const all[] = {
#define OPTIMIZER(name) &optimizer_##name,
#include "gen/optimizers.inc"
#undef OPTIMIZER
    NULL};

const struct optimizer *opt_at(int i) { return all[i]; }

const struct optimizer *opt_find(const char *name) {
    for (int i = 0; all[i]; i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    return NULL;
}

int opt_option_index(const struct optimizer *opt, const char *name) {
    for (int i = 0; i < OPT_MAX_OPTIONS && opt->options[i].name; i++)
        if (strcmp(opt->options[i].name, name) == 0) return i;
    return -1;
}

/* One "key=value" of a spec. */
static enum cb_status parse_option(const struct optimizer *opt, const char *text, size_t n, double *option, struct cb_err *err) {
    char key[64];
    const char *equals = memchr(text, '=', n);
    size_t length = equals ? (size_t)(equals - text) : n;
    if (!equals || length >= sizeof key) FAIL(err, CB_E_USAGE, "optimizer %s: option '%.*s'; wanted name=value", opt->name, (int)n, text);
    memcpy(key, text, length);
    key[length] = 0;
    int i = opt_option_index(opt, key);
    if (i < 0) FAIL(err, CB_E_USAGE, "optimizer %s: no option '%s'; `cambium list optimizers %s` shows them", opt->name, key, opt->name);
    char *end;
    double value = strtod(equals + 1, &end);
    const struct opt_option *o = &opt->options[i];
    if (end != text + n || !(value >= o->min && value <= o->max))
        FAIL(err, CB_E_USAGE, "optimizer %s: %s is '%.*s'; wanted a number from %g to %g", opt->name, key, (int)(text + n - equals - 1),
             equals + 1, o->min, o->max);
    option[i] = value;
    return CB_OK;
}

enum cb_status opt_parse(const char *spec, const struct optimizer **opt, double option[OPT_MAX_OPTIONS], struct cb_err *err) {
    char name[64];
    size_t n = strcspn(spec, ":");
    if (n >= sizeof name) FAIL(err, CB_E_USAGE, "optimizer '%s': unknown", spec);
    memcpy(name, spec, n);
    name[n] = 0;
    if (!(*opt = opt_find(name))) FAIL(err, CB_E_USAGE, "optimizer '%s': unknown; `cambium list optimizers` shows them", name);
    for (int i = 0; i < OPT_MAX_OPTIONS; i++) option[i] = (*opt)->options[i].name ? (*opt)->options[i].value : 0;
    for (const char *p = spec + n; *p;) {
        size_t length = strcspn(++p, ",");
        TRY(parse_option(*opt, p, length, option, err));
        p += length;
    }
    return CB_OK;
}

enum { TILE = 1 << 16 };

struct apply {
    const struct optimizer *opt;
    const struct opt_range *range;
    int64_t n;
};

static void apply_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct apply *a = context;
    struct opt_range r = *a->range;
    r.begin = i * TILE;
    r.end = r.begin + TILE < a->n ? r.begin + TILE : a->n;
    a->opt->update(&r);
}

bool opt_state_type(const struct optimizer *opt, const struct cb_type *param, int state, struct cb_type *type) {
    *type = *param;
    return opt->state_type ? opt->state_type(param, state, type) : true;
}

void opt_apply(const struct optimizer *opt, const struct opt_range *range, const struct cb_type *type, struct pool *pool) {
    int64_t n = type_elements(type);
    struct apply a = {opt, range, n};
    const uint32_t subnormals = subnormal_flush();  // the moments of what is rarely met fade away
    if (opt->update_tensor) {
        struct opt_range whole = *range;
        whole.begin = 0;
        whole.end = n;
        opt->update_tensor(&whole, type);
    } else {
        pool_run(pool, (n + TILE - 1) / TILE, apply_tile, &a);
    }
    subnormal_set(subnormals);
}

int64_t opt_partials(int64_t n) { return (n + TILE - 1) / TILE; }

/* Eight running sums in f32 over short runs, gathered in f64. */
CPU_CLONES static double sum_squares(const float *x, int64_t n) {
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += 1024) {
        float lane[16] = {0};
        int64_t end = begin + 1024 < n ? begin + 1024 : n, i = begin;
        for (; i + 16 <= end; i += 16)
            for (int k = 0; k < 16; k++) lane[k] += x[i + k] * x[i + k];
        for (; i < end; i++) lane[0] += x[i] * x[i];
        double part = 0;
        for (int k = 0; k < 16; k++) part += (double)lane[k];
        total += part;
    }
    return total;
}

struct squares {
    const float *x;
    double *partial;
    int64_t n;
};

static void squares_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct squares *s = context;
    int64_t begin = i * TILE;
    s->partial[i] = sum_squares(s->x + begin, s->n - begin < TILE ? s->n - begin : TILE);
}

double opt_sum_squares(const float *x, int64_t n, struct pool *pool, double *partial) {
    struct squares s = {x, partial, n};
    int64_t tiles = opt_partials(n);
    pool_run(pool, tiles, squares_tile, &s);
    double total = 0;
    for (int64_t i = 0; i < tiles; i++) total += partial[i];
    return total;
}
