/* AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019); option amsgrad (Reddi et al., ICLR 2018). */
#include <math.h>

#include "base/cpuid.h"
#include "train/opt.h"

enum { BETA1, BETA2, EPS, AMSGRAD };

static int n_states(const double *option) { return option[AMSGRAD] != 0 ? 3 : 2; }

/* Factors of one step, folded so that the loop has one division and one root an element. */
struct factors {
    float beta1, beta2, new1, new2, step_size, root_scale, eps, keep, grad_scale;
};

CPU_CLONES static void update_plain(float *p, const float *g, float *m, float *v, int64_t n, struct factors f) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * f.grad_scale;
        m[i] = f.beta1 * m[i] + f.new1 * d;
        v[i] = f.beta2 * v[i] + f.new2 * d * d;
        p[i] = p[i] * f.keep - f.step_size * m[i] / (sqrtf(v[i]) * f.root_scale + f.eps);
    }
}

CPU_CLONES static void update_amsgrad(float *p, const float *g, float *m, float *v, float *top, int64_t n, struct factors f) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * f.grad_scale;
        m[i] = f.beta1 * m[i] + f.new1 * d;
        v[i] = f.beta2 * v[i] + f.new2 * d * d;
        top[i] = top[i] > v[i] ? top[i] : v[i];
        p[i] = p[i] * f.keep - f.step_size * m[i] / (sqrtf(top[i]) * f.root_scale + f.eps);
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
                        .keep = (float)(1 - r->lr * r->weight_decay),
                        .grad_scale = (float)r->grad_scale};
    int64_t b = r->begin, n = r->end - b;
    if (o[AMSGRAD] != 0)
        update_amsgrad(r->param + b, r->grad + b, r->state[0] + b, r->state[1] + b, r->state[2] + b, n, f);
    else
        update_plain(r->param + b, r->grad + b, r->state[0] + b, r->state[1] + b, n, f);
}

const struct optimizer optimizer_adamw = {
    .name = "adamw",
    .doc = "p = p (1 - lr wd) - lr m^ / (sqrt(v^) + eps): Adam with decoupled weight decay (Loshchilov and Hutter, 2019).",
    .options = {{"beta1", 0.9, 0, 0.999999}, {"beta2", 0.95, 0, 0.99999999}, {"eps", 1e-8, 0, 1}, {"amsgrad", 0, 0, 1}, {NULL, 0, 0, 0}},
    .n_states = n_states,
    .state_names = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    .update = update,
};
