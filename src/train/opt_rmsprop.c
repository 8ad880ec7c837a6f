/* RMSprop (Tieleman and Hinton, 2012), centred (Graves, 2013) and with momentum, as PyTorch defines it. */
#include <math.h>

#include "base/cpuid.h"
#include "train/opt.h"

enum { ALPHA, EPS, MOMENTUM, CENTERED };

static int n_states(const double *option) {
    (void)option;
    return 3;
}

struct factors {
    float alpha, fresh, eps, momentum, lr, decay, scale;
    bool centred;
};

CPU_CLONES static void update_range(float *p, const float *g, float *v, float *b, float *mean, int64_t n, struct factors f) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * f.scale + f.decay * p[i], square = f.alpha * v[i] + f.fresh * d * d;
        v[i] = square;
        if (f.centred) {
            mean[i] = f.alpha * mean[i] + f.fresh * d;
            square -= mean[i] * mean[i];
        }
        b[i] = f.momentum * b[i] + d / (sqrtf(square) + f.eps);
        p[i] -= f.lr * b[i];
    }
}

static void update(const struct opt_range *r) {
    const double *o = r->option;
    struct factors f = {.alpha = (float)o[ALPHA],
                        .fresh = (float)(1 - o[ALPHA]),
                        .eps = (float)o[EPS],
                        .momentum = (float)o[MOMENTUM],
                        .lr = (float)r->lr,
                        .decay = (float)r->weight_decay,
                        .scale = (float)r->grad_scale,
                        .centred = o[CENTERED] != 0};
    int64_t b = r->begin;
    update_range(r->param + b, r->grad + b, r->state[0] + b, r->state[1] + b, r->state[2] + b, r->end - b, f);
}

const struct optimizer optimizer_rmsprop = {
    .name = "rmsprop",
    .doc = "p = p - lr b, b = momentum b + g / (sqrt(v - mean^2 if centered) + eps) (Tieleman and Hinton, 2012; Graves, 2013).",
    .options = {{"alpha", 0.99, 0, 0.99999999}, {"eps", 1e-8, 0, 1}, {"momentum", 0, 0, 0.999999}, {"centered", 0, 0, 1}, {NULL, 0, 0, 0}},
    .n_states = n_states,
    .state_names = {"square_avg", "momentum_buffer", "grad_avg"},
    .update = update,
};
