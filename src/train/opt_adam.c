/* Adam (Kingma and Ba, ICLR 2015): weight decay, if any, is added to the gradient. */
#include <math.h>

#include "base/cpuid.h"
#include "train/opt.h"

enum { BETA1, BETA2, EPS };

static int n_states(const double *option) {
    (void)option;
    return 2;
}

struct factors {
    float beta1, beta2, new1, new2, step_size, root_scale, eps, decay, grad_scale;
};

CPU_CLONES static void update_range(float *p, const float *g, float *m, float *v, int64_t n, struct factors f) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * f.grad_scale + f.decay * p[i];
        m[i] = f.beta1 * m[i] + f.new1 * d;
        v[i] = f.beta2 * v[i] + f.new2 * d * d;
        p[i] -= f.step_size * m[i] / (sqrtf(v[i]) * f.root_scale + f.eps);
    }
}

static void update(const struct opt_range *r) {
    const double *o = r->option;
    double t = (double)r->step;
    struct factors f = {.beta1 = (float)o[BETA1],
                        .beta2 = (float)o[BETA2],
                        .new1 = (float)(1 - o[BETA1]),
                        .new2 = (float)(1 - o[BETA2]),
                        .step_size = (float)(r->lr / (1 - pow(o[BETA1], t))),
                        .root_scale = (float)(1 / sqrt(1 - pow(o[BETA2], t))),
                        .eps = (float)o[EPS],
                        .decay = (float)r->weight_decay,
                        .grad_scale = (float)r->grad_scale};
    int64_t b = r->begin;
    update_range(r->param + b, r->grad + b, r->state[0] + b, r->state[1] + b, r->end - b, f);
}

const struct optimizer optimizer_adam = {
    .name = "adam",
    .doc = "p = p - lr m^ / (sqrt(v^) + eps), decay added to the gradient (Kingma and Ba, 2015).",
    .options = {{"beta1", 0.9, 0, 0.999999}, {"beta2", 0.999, 0, 0.99999999}, {"eps", 1e-8, 0, 1}, {NULL, 0, 0, 0}},
    .n_states = n_states,
    .state_names = {"exp_avg", "exp_avg_sq"},
    .update = update,
};
