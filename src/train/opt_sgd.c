/* Stochastic gradient descent with momentum, dampening and Nesterov's form (Sutskever et al., ICML 2013), as PyTorch defines them. */
#include "base/cpuid.h"
#include "train/opt.h"

enum { MOMENTUM, DAMPENING, NESTEROV };

static int n_states(const double *option) { return option[MOMENTUM] != 0; }

CPU_CLONES static void update_plain(float *p, const float *g, int64_t n, float lr, float decay, float scale) {
    for (int64_t i = 0; i < n; i++) p[i] -= lr * (g[i] * scale + decay * p[i]);
}

struct factors {
    float lr, decay, scale, momentum, fresh, ahead;
};

/* b = momentum b + fresh d; p -= lr (ahead b + rest d), where Nesterov's form looks ahead by one step of momentum. */
CPU_CLONES static void update_momentum(float *p, const float *g, float *b, int64_t n, struct factors f) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * f.scale + f.decay * p[i];
        b[i] = f.momentum * b[i] + f.fresh * d;
        p[i] -= f.lr * (f.ahead != 0 ? d + f.ahead * b[i] : b[i]);
    }
}

static void update(const struct opt_range *r) {
    const double *o = r->option;
    int64_t b = r->begin, n = r->end - b;
    if (o[MOMENTUM] == 0) {
        update_plain(r->param + b, r->grad + b, n, (float)r->lr, (float)r->weight_decay, (float)r->grad_scale);
        return;
    }
    // the first step starts the buffer with the whole gradient
    struct factors f = {.lr = (float)r->lr,
                        .decay = (float)r->weight_decay,
                        .scale = (float)r->grad_scale,
                        .momentum = (float)o[MOMENTUM],
                        .fresh = r->step == 1 ? 1.0f : (float)(1 - o[DAMPENING]),
                        .ahead = o[NESTEROV] != 0 ? (float)o[MOMENTUM] : 0};
    update_momentum(r->param + b, r->grad + b, r->state[0] + b, n, f);
}

const struct optimizer optimizer_sgd = {
    .name = "sgd",
    .doc = "p = p - lr b, b = momentum b + (1 - dampening) (g + wd p); Nesterov's form with nesterov=1 (Sutskever et al., 2013).",
    .options = {{"momentum", 0, 0, 0.999999}, {"dampening", 0, 0, 1}, {"nesterov", 0, 0, 1}, {NULL, 0, 0, 0}},
    .n_states = n_states,
    .state_names = {"momentum_buffer"},
    .update = update,
};
