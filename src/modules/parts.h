/* Pieces that several tuners' descriptors and definitions are made of. */
#ifndef MODULES_PARTS_H
#define MODULES_PARTS_H
#include "modules/tuner.h"

/* Options that every tuner on parameters has. */
#define PARTS_TARGETS                                                                                                                      \
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"}, { \
        "save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"                                                 \
    }
#define PARTS_EXCLUDE \
    { "exclude", "exclude_modules", TUNER_STRS, "modules that are left alone" }
#define PARTS_LAYERS \
    { "layers", "layers_to_transform", TUNER_INTS, "numbers of layers joined by +" }
#define PARTS_RANKS \
    { "ranks", "rank_pattern", TUNER_MAP, "other ranks by the ends or patterns of names: Wqkv:8+Wo:4" }
#define PARTS_ALPHAS \
    { "alphas", "alpha_pattern", TUNER_MAP, "other alphas in the same way" }
#define PARTS_BIAS(name) \
    { "bias", "bias", TUNER_STR, "biases that are trained too: none, " name "_only, all" }

/* The keys of adapter_config.json that all of PEFT's tuners write, and two more that many do. */
#define PARTS_JSON                                                                                                              \
    "\"auto_mapping\":null,\"base_model_name_or_path\":null,\"inference_mode\":true,\"modules_to_save\":null,\"peft_version\":" \
    "\"0.21.2\",\"revision\":null,\"target_modules\":\"all-linear\",\"task_type\":null"
#define PARTS_JSON_LAYERS "\"layers_pattern\":null,\"layers_to_transform\":null"

/* For cases: a linear layer of plain width in each block of every family. */
#define PARTS_QUERIES "targets=.*(q|query|q_proj|c_attn|query_key_value|qkv_proj|q_lin|query_proj|Wqkv)"

/* match of tuners that change linear layers and heads. */
bool parts_is_linear(const struct nn_site *site);
/* The largest widths of the sites that a configuration means; 0 where there are none. */
enum cb_status parts_largest(const struct module *module, const struct nn *nn, int64_t *out, int64_t *in, struct cb_err *err);
/* f32 (n), in training 0 with probability rate and else 1; NULL where nothing is dropped. */
struct cb_tensor *parts_mask(struct nn *nn, int64_t n, double rate);
/* The unit matrix (n,n). */
struct cb_tensor *parts_identity(struct cb_graph *g, int64_t n);
/* x (...,in) times each of the blocks r (D,b,b), D b = in: its runs of b features, each by its own block; by the one block where D is 1. turned: by
   the blocks' transposes. */
struct cb_tensor *parts_by_blocks(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *r, bool turned);
/* Blocks r, of which each is the unit matrix with probability rate in training. */
struct cb_tensor *parts_drop_blocks(struct nn *nn, struct cb_tensor *r, double rate);
/* 1 + scale (x - 1): factors that the run-time scale brings to 1. */
struct cb_tensor *parts_scaled_factor(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *scale);
/* Every value of a parameter of indices in the store lies in [0, size); else an error that names it. */
enum cb_status parts_check_range(const struct module *module, const struct store *store, int param, int64_t begin, int64_t end,
                                 int64_t size, struct cb_err *err);
#endif
