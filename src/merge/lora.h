/* LoRA folders: read as pairs of factors by site, merged with one another, and made from a model that was trained whole. */
#ifndef MERGE_LORA_H
#define MERGE_LORA_H
#include "base/pattern.h"
#include "io/safetensors.h"
#include "merge/recipe.h"

/* The change at one site: scale B A, (out,in). An embedding's A is (r,vocabulary), its B (width,r). */
struct lora_pair {
    const char *site;  // "model.layers.0.self_attn.q_proj"
    const struct tensor *a, *b, *bias, *magnitude;  // bias of B, DoRA's magnitudes; NULL: none
    int64_t rank, in, out;
    double scale;
    bool embedding;
};

/* What a module's start (init_lora_weights) did to the base that A and B were trained on. */
enum lora_start {
    LORA_KEPT_BASE,  // nothing: the change is scale B A
    LORA_TOOK_PART,  // took the start's product off (PiSSA, OLoRA, CorDA): the change is scale (B A - B0 A0)
    LORA_QUANTISED_BASE,  // LoftQ: scale B A is a change of what quantising left of the base
    LORA_UNKNOWN_START,
};

struct lora {
    const char *path, *name;  // name: the last part of the path
    enum lora_start start;
    struct tensors *tensors;
    json_t *config;
    struct lora_pair *pairs;
    int n_pairs, n_whole;  // n_whole: tensors that are copies of a model's own (modules_to_save, biases)
    const struct tensor **whole;
    int64_t r;  // as configured
    int64_t most;  // that, or the largest of rank_pattern: what PEFT makes room for
    double alpha;
    bool rslora, dora, has_bias, fan_in_fan_out;
};

bool lora_is_folder(const char *path);
/* Reads adapter_config.json and adapter_model.safetensors of a LoRA; other kinds are refused. Names live in arena. Free with lora_close, also after a failure. */
enum cb_status lora_open(struct lora *lora, const char *path, struct arena *arena, struct cb_err *err);
void lora_close(struct lora *lora);
/* NULL where the module does not change the site. */
const struct lora_pair *lora_find(const struct lora *lora, const char *site);

/* ---- a module that is being made */
struct lora_out {
    const char *site;
    float *a, *b, *bias;  // (rank,in), (out,rank), (out); bias may be NULL
    float *magnitude;  // (out); NULL: none
    int64_t rank, in, out;
    bool embedding;
};
/* Writes FOLDER/adapter_model.safetensors and adapter_config.json: config with r the largest rank, patterns for the others, scale 1 everywhere. whole: tensors
   that are stored as they are. alpha_is_rank false: the configuration keeps what it says of ranks and scale. */
enum cb_status lora_write(const char *folder, const struct lora_out *sites, int n_sites, const struct tensor_item *whole, int n_whole,
                          json_t *config, bool alpha_is_rank, struct cb_err *err);

/* ---- merging */
/* How the result is read: `exact` is the weighted sum of what the modules do; `peft` what add_weighted_adapter of PEFT 0.21 makes, with its traps; `mergekit` the
   models' methods of the registry on the modules' changes. */
enum lora_convention { LORA_EXACT, LORA_PEFT, LORA_MERGEKIT };
struct lora_run {
    struct pool *pool;
    uint64_t seed;
    const struct merge_masks *masks;
    const struct tensors *base;  // the model's weights, for DoRA; NULL: none
    /* A folder with a module whose start took a part of the base, as plain LoRA; *plain lives as long as the run. NULL: such modules are refused. */
    enum cb_status (*make_plain)(void *context, const char *folder, const char **plain, struct cb_err *err);
    void *context;  // of make_plain
    void (*warn)(void *user, const char *line);  // NULL: none
    void *user;
};
struct lora_report {
    int64_t sites, parameters, rank;  // rank: the largest
    double max_error;  // largest difference of the result's change from the merged one that was wanted, of any weight
};
/* Merges the modules of a recipe (`models` are LoRA folders) into a folder. */
enum cb_status lora_merge(const struct merge_recipe *recipe, const struct lora_run *run, const char *folder, struct lora_report *report,
                          struct cb_err *err);
/* i-th method of modules that the models' registry has not, or has otherwise; NULL past the end. */
const struct merge_method *lora_method_at(int i);

/* ---- extraction: a LoRA that does what a whole fine-tuning did */
struct lora_site {
    const char *name;
    bool in_out;  // the weight is stored (in,out)
    bool embedding;
};
struct lora_extract {
    const char *base_path;  // of base_model_name_or_path
    const char *task;  // task_type of the base's head; NULL: none
    const struct tensors *base, *tuned;
    const struct lora_site *sites;  // what may become factors
    int n_sites;
    int64_t rank;
    double epsilon;  // singular values up to this are dropped
    const struct pattern *exclude;  // sites that are left out; NULL: none
    bool embeddings;  // embeddings and head become factors too
    bool skip_whole;  // what cannot be factored is left out, not stored whole
    const char *vocabulary_head;  // name of the head's site; NULL: none
};
struct lora_extracted {
    int64_t sites, whole, parameters, rank;
    double max_error, kept;  // largest difference of a weight; share of the squared change that is kept
};
enum cb_status lora_extract(const struct lora_extract *options, const char *folder, struct lora_extracted *result, struct cb_err *err);
#endif
