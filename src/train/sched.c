/* Constant, linear, cosine (Loshchilov and Hutter, 2017) and warm-up-stable-decay schedules. */
#include "train/sched.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {"constant", "linear", "cosine", "wsd"};

enum cb_status sched_parse(const char *name, enum sched_kind *kind, struct cb_err *err) {
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *kind = (enum sched_kind)i;
            return CB_OK;
        }
    FAIL(err, CB_E_USAGE, "schedule '%s': unknown; wanted constant, linear, cosine or wsd", name);
}

const char *sched_name(enum sched_kind kind) { return names[kind]; }

double sched_rate(const struct sched *s, int64_t step) {
    if (step < s->warmup) return s->lr * (double)(step + 1) / (double)s->warmup;
    int64_t span = s->steps - s->warmup;
    double done = span > 0 ? (double)(step - s->warmup) / (double)span : 1;
    if (done > 1) done = 1;
    switch (s->kind) {
        case SCHED_CONSTANT: return s->lr;
        case SCHED_LINEAR: return s->min_lr + (s->lr - s->min_lr) * (1 - done);
        case SCHED_COSINE: return s->min_lr + (s->lr - s->min_lr) * 0.5 * (1 + cos(3.14159265358979323846 * done));
        case SCHED_WSD: return done < 1 - s->decay_share ? s->lr : s->min_lr + (s->lr - s->min_lr) * (1 - done) / s->decay_share;
    }
    return s->lr;
}
