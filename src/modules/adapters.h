/* What the tuners of the adapters library (Pfeiffer et al. 2020; Poth et al. 2023) share: keys of its files, which layers are meant, projections. */
#ifndef MODULES_ADAPTERS_H
#define MODULES_ADAPTERS_H
#include "modules/tuner.h"

/* Options of a spec that each of them has: its name in the file, a head. */
extern const struct tuner_option adapters_options[];

/* "<place>.<container>.<the module's label>.<suffix>", in the module's arena. NULL: no memory, told. */
const char *adapters_key(struct module *module, const char *place, const char *container, const char *suffix, struct cb_err *err);
/* A parameter of the site under a key, NULL being a failure that was told; *at: its number among the site's own, for tuner_leaf. Nullable: at. */
enum cb_status adapters_add(struct module *module, struct tuner_site *site, const char *key, int rank, const int64_t *dim,
                            enum tuner_init init, double spread, enum tuner_role role, int *at, struct cb_err *err);

/* Layers that a configuration leaves out. */
struct adapters_layers {
    int64_t out[256];
    int n;
};
enum cb_status adapters_layers_parse(struct adapters_layers *layers, const json_t *method, const char *where, struct cb_err *err);
bool adapters_layers_take(const struct adapters_layers *layers, const struct nn_site *site);

/* Whether the library has a form of its own for models of this type; it gives others hooks, which do a little more. */
bool adapters_is_native(const char *model_type);

/* An activation by the library's names: Transformers' and "leakyrelu". */
bool adapters_is_activation(const char *name);
struct cb_tensor *adapters_activation(struct nn *nn, const char *name, struct cb_tensor *x);
/* Mean over time of sigmoid(w x + b): (B,1,n) of x (B,T,C), w (n,C), b (n). */
struct cb_tensor *adapters_gate(struct nn *nn, struct cb_tensor *x, struct cb_tensor *w, struct cb_tensor *b);

/* adapters_phm.c: parametrised hypercomplex multiplication (Zhang et al. 2021; Compacter, Mahabadi et al. 2021): W = sum_i kron(rule_i, W_i). */
struct phm {
    bool on;  // phm_layer
    int64_t dim, rank;
    bool shares_rule, factors_rule, learns_rule, factors_w, shares_w, has_bias;
    bool is_uniform;  // phm_c_init
    double range;  // phm_init_range
};
enum cb_status phm_parse(struct phm *phm, const json_t *method, const char *where, struct cb_err *err);

/* A projection from in to out features: a linear layer or a phm one. */
struct projection {
    int64_t in, out;
    int weight, bias;  // numbers among the site's parameters; bias -1: none
    int rule;  // phm: its first
};
/* path: "<place>...adapter_down.0"; position: "down" or "up", of weights that all layers share. */
enum cb_status projection_declare(struct module *module, struct tuner_site *site, struct projection *projection, const struct phm *phm,
                                  const char *path, const char *position, const char *base, enum tuner_init init, double spread,
                                  struct cb_err *err);
struct cb_tensor *projection_apply(const struct module *module, const struct tuner_site *site, const struct projection *projection,
                                   const struct phm *phm, struct nn *nn, struct cb_tensor *x);

/* adapters_inverse.c: an invertible map of the embeddings (NICE, Dinh et al. 2015): y1 = x1 + F(x2), y2 = x2 + G(y1). */
enum cb_status inverse_declare(struct module *module, struct tuner_site *site, const char *activation, double reduction,
                               struct cb_err *err);
struct cb_tensor *inverse_apply(const struct module *module, const struct tuner_site *site, struct nn *nn, const char *activation,
                                struct cb_tensor *x, struct cb_tensor *scale, bool is_back);
#endif
