/* Adagrad (Duchi, Hazan and Singer, JMLR 2011) with PyTorch's rate decay and initial accumulator. */
#include <math.h>

#include "base/cpuid.h"
#include "train/opt.h"

enum { EPS, LR_DECAY, INITIAL };

static int n_states(const double *option) {
    (void)option;
    return 1;
}

static double state_start(const double *option, int state) {
    (void)state;
    return option[INITIAL];
}

CPU_CLONES static void update_range(float *p, const float *g, float *s, int64_t n, float lr, float decay, float scale, float eps) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * scale + decay * p[i];
        s[i] += d * d;
        p[i] -= lr * d / (sqrtf(s[i]) + eps);
    }
}

static void update(const struct opt_range *r) {
    const double *o = r->option;
    int64_t b = r->begin;
    double lr = r->lr / (1 + (double)(r->step - 1) * o[LR_DECAY]);
    update_range(r->param + b, r->grad + b, r->state[0] + b, r->end - b, (float)lr, (float)r->weight_decay, (float)r->grad_scale,
                 (float)o[EPS]);
}

const struct optimizer optimizer_adagrad = {
    .name = "adagrad",
    .doc = "p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(sum g^2) + eps) (Duchi, Hazan and Singer, 2011).",
    .options = {{"eps", 1e-10, 0, 1}, {"lr_decay", 0, 0, 1e9}, {"initial", 0, 0, 1e9}, {NULL, 0, 0, 0}},
    .n_states = n_states,
    .state_names = {"sum"},
    .state_start = state_start,
    .update = update,
};
