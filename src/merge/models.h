/* The models of a recipe, opened, and what of them makes each tensor of the result. */
#ifndef MERGE_MODELS_H
#define MERGE_MODELS_H
#include "io/safetensors.h"
#include "merge/recipe.h"

/* One model folder. */
struct merge_model {
    const char *path, *written;  // where it was found; as the recipe has it
    struct tensors *tensors;
    json_t *config;  // config.json
    const char *config_path;
    const char *prefix;  // that names of this model have more than those of the first ("transformer."); "": none
    bool lacks_prefix;  // or less
    int64_t n_layers;  // 0: no numbered layers
    bool tied;  // tie_word_embeddings
};

/* What one tensor of the result is made of. */
struct merge_output {
    const char *name;
    struct cb_type type;  // as it will be stored
    const struct merge_slice *slice;
    double t;  // its layer's place in the slice
    const struct tensor **tensor;  // of each source of the slice, the base behind them where it is not among them
    int64_t layer;  // of the result, -1: none
};

struct merge_plan {
    const struct merge_recipe *recipe;
    const struct merge_method *method;
    struct merge_model models[MERGE_MAX_MODELS + 2];
    int n_models;
    int donor;  // the base, or the first model: whose configuration and tokenizer the result has
    int base;  // -1: none
    struct merge_output *outputs;
    int n_outputs, room;
    int64_t n_layers;  // of the result
    struct arena *arena;
};

/* Opens every model of a recipe and lists the tensors of the result. Models of different shapes, missing tensors and unknown number types are refused. recipe
   and method are borrowed. Free with merge_plan_close, also after a failure. */
enum cb_status merge_plan_open(struct merge_plan *plan, const struct merge_recipe *recipe, const struct merge_method *method,
                               struct cb_err *err);
void merge_plan_close(struct merge_plan *plan);
/* Number of a recipe's model among those opened; -1 where it is not. Nullable: written. */
int merge_plan_model(const struct merge_plan *plan, const char *written);
/* The configuration of the result. *config: owned by caller, free with json_decref. */
enum cb_status merge_plan_config(const struct merge_plan *plan, json_t **config, struct cb_err *err);
/* A number type by a recipe's name ("bfloat16") or ours ("bf16"); refused where files cannot have it. */
enum cb_status merge_dtype(enum cb_dtype *dtype, const char *name, const char *where, struct cb_err *err);

/* Where a name has its layer's number: the number, and the text before and after it; -1: none. */
int64_t merge_layer_of(const char *name, size_t *begin, size_t *end);
/* Whether a tensor holds rows of tokens (embeddings of words, or the head). */
bool merge_is_vocabulary(const char *name);

/* ---- run.c */
/* Rows and columns of a model's tensor, read in another order; sets in->rows and in->cols. */
struct merge_alignment {
    void (*set)(void *context, int model, const char *tensor, struct merge_input *in);
    void *context;
};
/* The statistic of a model's tensor: *found NULL where it has none. *in_out: whether a weight is stored (in,out). */
struct merge_statistics {
    enum cb_status (*find)(void *context, int model, const char *tensor, const struct tensor **found, bool *in_out, struct cb_err *err);
    void *context;
};

struct merge_run {
    struct pool *pool;
    uint64_t seed;
    const struct merge_masks *masks;  // NULL: drawn here
    const struct merge_alignment *alignment;  // NULL: as they lie
    const struct merge_statistics *statistics;  // NULL: none
    bool (*progress)(void *user, int64_t done, int64_t total);  // bytes; false asks for a stop; NULL: none
    void *user;
    int64_t shard_bytes;  // largest shard
};
struct merge_report {
    int64_t tensors, parameters, bytes;
    double max_error;  // largest change by the number type of the result
    double identity;  // largest change where every model is the first one
    int64_t conflicts, shared_elements;  // elements where differences of both signs meet, of those where several are not 0
    bool has_conflicts;  // the method works on differences
};
/* Merges tensor by tensor into FOLDER/model.safetensors or its shards, each of which appears whole. */
enum cb_status merge_write(const struct merge_plan *plan, const struct merge_run *run, const char *folder, struct merge_report *report,
                           struct cb_err *err);
#endif
