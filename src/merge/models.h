/* The models of a recipe, opened, and what of them makes each tensor of the result. */
#ifndef MERGE_MODELS_H
#define MERGE_MODELS_H
#include "base/table.h"
#include "io/safetensors.h"
#include "merge/recipe.h"

/* One tensor of a model, named and shaped as a checkpoint of its family has it. */
struct merge_tensor {
    const char *name;
    struct cb_type type;
    const struct tensor *stored;
    int64_t offset;  // of its bytes in the map
    const void *place;  // its values lie otherwise than the shape says: what the format's read wants; NULL: as they should
};

/* One model: a folder, or a file of another format. */
struct merge_model {
    const char *path, *written;  // where it was found; as the recipe has it
    struct tensors *tensors;  // of a folder; NULL: of another format
    const struct merge_tensor *tensor;
    int n_tensors;
    struct table by_name;
    json_t *config;  // config.json
    const char *config_path;
    void *file;  // the format's own
    int64_t vocab;  // vocab_size; 0: none
    const char *prefix;  // that names of this model have more than those of the first ("transformer."); "": none
    bool lacks_prefix;  // or less
    int64_t n_layers;  // 0: no numbered layers
    bool tied;  // tie_word_embeddings
};

/* The tokens of a result whose models number them differently: for each its row in every model, and what stands in for those that a model has not. */
struct merge_vocabulary {
    int64_t n;  // rows of the result
    const int32_t *row[MERGE_MAX_MODELS + 2];  // [model][token]; -1: it has none
    const int32_t *source;  // [token]: whose row models without one take: a model's number, or one of these
};
enum { MERGE_MEAN_ROW = -1, MERGE_ZERO_ROW = -2 };

struct merge_plan;
/* Models in files of another format, and results in one: what their maker knows of them. */
struct merge_format {
    bool (*is_model)(const char *path);
    /* Sets tensor, n_tensors, config and config_path of a model, and whatever else it needs in file. What is made lives in arena, or goes with close. */
    enum cb_status (*open)(struct merge_model *model, struct arena *arena, struct cb_err *err);
    void (*close)(struct merge_model *model);
    /* A whole tensor that has a place, in its checkpoint's order. */
    void (*read)(const struct merge_model *model, const struct merge_tensor *tensor, float *out);
    /* Whether a model of one model_type may be one of the other: formats that have one name for several. */
    bool (*same_kind)(const char *model_type, const char *other);
    /* Called when all models are open: sets plan->vocabulary where their tokens are to be brought together. */
    enum cb_status (*vocabulary)(void *context, struct merge_plan *plan, struct cb_err *err);
    void *context;  // of vocabulary
    bool chooses_types;  // the result is no folder: whoever writes it chooses number types
};

/* What one tensor of the result is made of. */
struct merge_output {
    const char *name;
    struct cb_type type;  // as it will be stored
    enum cb_dtype stored;  // as the base (or the first model) has it
    const struct merge_slice *slice;
    double t;  // its layer's place in the slice; 0 outside the layers, as in mergekit
    const char **own;  // its name in each source, which the filters of the source's options go by
    const struct merge_tensor **tensor;  // of each source of the slice, the base behind them where it is not among them
    int64_t layer;  // of the result, -1: none
    const struct merge_tensor *
        *rows_of;  // [models]: a tensor of rows of tokens, as each model has it (NULL: it has none); NULL: no such tensor
};

struct merge_plan {
    const struct merge_recipe *recipe;
    const struct merge_method *method;
    const struct merge_format *format;  // NULL: folders alone
    struct merge_model models[MERGE_MAX_MODELS + 2];
    int n_models;
    int donor;  // the base, or the first model: whose configuration and tokenizer the result has
    const struct merge_vocabulary *vocabulary;  // NULL: all models have the same
    struct merge_output *outputs;
    int n_outputs, room;
    int64_t n_layers;  // of the result
    struct arena *arena;
};

/* Opens every model of a recipe and lists the tensors of the result. Models of different shapes, missing tensors and unknown number types are refused. recipe
   method and format are borrowed. Free with merge_plan_close, also after a failure. Nullable: format. */
enum cb_status merge_plan_open(struct merge_plan *plan, const struct merge_recipe *recipe, const struct merge_method *method,
                               const struct merge_format *format, struct cb_err *err);
void merge_plan_close(struct merge_plan *plan);
/* Number of a recipe's model among those opened; -1 where it is not. Nullable: written. */
int merge_plan_model(const struct merge_plan *plan, const char *written);
/* Number of the model that a slice's differences are taken from, or that comes first; -1: none. */
int merge_plan_base(const struct merge_plan *plan, const struct merge_slice *slice);
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
    double error_squares, value_squares;  // sums of the squares of these changes, and of the values
    double identity;  // largest change where every model is the first one
    int64_t conflicts, shared_elements;  // elements where differences of both signs meet, of those where several are not 0
    bool has_conflicts;  // the method works on differences
};
/* The values of a result, tensor by tensor, for whoever writes it in a format of its own. Every option is checked first. plan, run and report are borrowed; report
   is filled on the way. Owned by caller, free with merge_reader_destroy. */
struct merge_reader;
enum cb_status merge_reader_create(struct merge_reader **reader, const struct merge_plan *plan, const struct merge_run *run,
                                   struct merge_report *report, struct cb_err *err);
void merge_reader_destroy(struct merge_reader **reader);
/* Elements [first, first + n) of a tensor of floating point. Calls go forward through a tensor. */
enum cb_status merge_reader_read(struct merge_reader *reader, const struct merge_output *output, int64_t first, int64_t n, float *out,
                                 struct cb_err *err);
/* Merges tensor by tensor into FOLDER/model.safetensors or its shards, each of which appears whole. */
enum cb_status merge_write(const struct merge_plan *plan, const struct merge_run *run, const char *folder, struct merge_report *report,
                           struct cb_err *err);
#endif
