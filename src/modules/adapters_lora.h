/* LoRA and its kin as the adapters library computes them (configuration architecture "lora"): what the tuners ad_lora, ad_dora and ad_ia3 share. */
#ifndef MODULES_ADAPTERS_LORA_H
#define MODULES_ADAPTERS_LORA_H
#include "modules/adapters.h"

/* The keys of LoRAConfig. */
struct ad_lora {
    bool selfattn, intermediate, output, attn[3];  // attn: queries, keys, values
    int64_t r;
    double alpha, dropout;
    bool use_gating, use_dora, scales;  // scales: (IA)3
    bool is_vera;
    double vera_d, vera_b;
    enum tuner_init a_init, b_init;
    double spread;  // of normal ones
    bool is_kaiming;  // of uniform ones: in sqrt(6 / fan in), not 1 / sqrt(fan in)
    struct adapters_layers layers;
    // MTL-LoRA
    int64_t n_up;  // up-projections, which each task weighs; 0: one, as it is
    double sharpness;  // that these weights are divided by
    bool has_matrix;  // a task's own (r,r) between down and up, not a diagonal
};

/* Parts of a fused projection's outputs that are changed; of another site one. */
#define AD_LORA_PARTS 3
struct ad_lora_place {
    int a, b, d, vera_b, m, gate, task, weights;  // numbers of parameters among the site's own; -1: none
    int n;
    int64_t begin[AD_LORA_PARTS], size[AD_LORA_PARTS], width;  // width: of all that are changed
    bool is_part;  // not the whole output
};

enum cb_status ad_lora_parse(struct module *module, const char *where, struct cb_err *err);
bool ad_lora_match(const struct nn_site *site);
bool ad_lora_implied(const struct module *module, const struct nn_site *site);
enum cb_status ad_lora_declare(struct module *module, struct tuner_site *site, struct cb_err *err);
const char *ad_lora_refuses_fold(const struct module *module);
/* What is added to the site's output, of x, at the run-time scale: (...,out), or without `whole` the changed parts side by side. */
struct cb_tensor *ad_lora_added(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                struct cb_tensor *scale);
/* The product B A (out,in), without alpha / r and scale. */
struct cb_tensor *ad_lora_product(const struct module *module, const struct tuner_site *site, struct nn *nn);
/* Changed parts (...,width) side by side in a tensor (...,out), `fill` elsewhere. */
struct cb_tensor *ad_lora_spread(const struct tuner_site *site, struct nn *nn, struct cb_tensor *parts, int axis, float fill);
/* Mean gates of the changed parts, (B,1,width); NULL: none. */
struct cb_tensor *ad_lora_gates(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x);
/* For descriptors: the output and the weight with what is added. */
struct cb_tensor *ad_lora_delta(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                struct cb_tensor *y, struct cb_tensor *scale);
struct cb_tensor *ad_lora_weight(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                 struct cb_tensor *scale);
extern const struct tuner_option ad_lora_options[];
#define AD_LORA_RANK \
    {"r", "r", TUNER_INT, "rank"}, { "alpha", "alpha", TUNER_INT, "the change is scaled by alpha / r" }
#define AD_LORA_PLACES                                                                                          \
    {"attn_matrices", "attn_matrices", TUNER_STRS, "q, k, v joined by +: of self-attention"},                   \
        {"selfattn_lora", "selfattn_lora", TUNER_BOOL, "in attention"},                                         \
        {"intermediate_lora", "intermediate_lora", TUNER_BOOL, "in the feed-forward layer's first projection"}, \
        {"output_lora", "output_lora", TUNER_BOOL, "in its second one"},                                        \
        {"leave_out", "leave_out", TUNER_INTS, "layers without it, joined by +"},                               \
        {"dropout", "dropout", TUNER_REAL, "of the input, in training"},                                        \
        {"use_gating", "use_gating", TUNER_BOOL, "a learned gate in place of alpha / r"}, {                     \
        "init_weights", "init_weights", TUNER_STR, "lora, bert, ia3 or vera"                                    \
    }
#define AD_LORA_DEFAULTS                                                                                                                  \
    "{\"alpha\":8,\"architecture\":\"lora\",\"attn_matrices\":[\"q\",\"v\"],\"composition_mode\":\"add\",\"dropout\":0.0,\"dtype\":null," \
    "\"init_weights\":\"lora\",\"init_weights_seed\":null,\"intermediate_lora\":false,\"leave_out\":[],\"output_lora\":false,\"r\":8,"    \
    "\"selfattn_lora\":true,\"use_dora\":false,\"use_gating\":false,\"vera_b\":null,\"vera_d\":null}"
#endif
