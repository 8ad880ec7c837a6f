/* Learning-rate schedules with linear warm-up. */
#ifndef TRAIN_SCHED_H
#define TRAIN_SCHED_H
#include "base/err.h"

enum sched_kind { SCHED_CONSTANT, SCHED_LINEAR, SCHED_COSINE, SCHED_WSD };

struct sched {
    enum sched_kind kind;
    double lr, min_lr;  // peak and floor
    int64_t warmup;  // steps from 0 to the peak
    int64_t steps;  // where the floor is reached
    double decay_share;  // WSD: the last share of the steps decays linearly (Hu et al., 2024)
};

enum cb_status sched_parse(const char *name, enum sched_kind *kind, struct cb_err *err);
const char *sched_name(enum sched_kind kind);
/* Rate of a step, 0 for the first. */
double sched_rate(const struct sched *s, int64_t step);
#endif
