/* Lion: the sign of an interpolated momentum (Chen et al., NeurIPS 2023), decoupled weight decay. */
#include "base/cpuid.h"
#include "train/opt.h"

enum { BETA1, BETA2 };

static int n_states(const double *option) {
    (void)option;
    return 1;
}

CPU_CLONES static void update_range(float *p, const float *g, float *m, int64_t n, float beta1, float beta2, float lr, float keep,
                                    float scale) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * scale, c = beta1 * m[i] + (1 - beta1) * d;
        float sign = (float)((c > 0) - (c < 0));
        p[i] = p[i] * keep - lr * sign;
        m[i] = beta2 * m[i] + (1 - beta2) * d;
    }
}

static void update(const struct opt_range *r) {
    int64_t b = r->begin;
    update_range(r->param + b, r->grad + b, r->state[0] + b, r->end - b, (float)r->option[BETA1], (float)r->option[BETA2], (float)r->lr,
                 (float)(1 - r->lr * r->weight_decay), (float)r->grad_scale);
}

const struct optimizer optimizer_lion = {
    .name = "lion",
    .doc = "p = p (1 - lr wd) - lr sign(beta1 m + (1 - beta1) g), m = beta2 m + (1 - beta2) g (Chen et al., 2023).",
    .options = {{"beta1", 0.9, 0, 1}, {"beta2", 0.99, 0, 1}, {NULL, 0, 0, 0}},
    .n_states = n_states,
    .state_names = {"exp_avg"},
    .update = update,
};
