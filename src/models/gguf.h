/* Models and GGUF files: what ggml's architectures are called, how their keys make a config.json and their tensors the weights of a family, and back. */
#ifndef MODELS_GGUF_H
#define MODELS_GGUF_H
#include "io/gguf.h"
#include "models/model.h"

/* An option of config.json and its key, whose name follows "<architecture>.". */
struct gguf_option {
    const char *key, *option;
    enum gguf_type type;  // U32, F32 or BOOL
    bool required;
    double min, max;
    size_t field;  // int64_t of struct model that has the value where config.json is silent; 0: none
    double usual;  // of an absent key, where this is to stand in config.json; 0: left out; negative: of an absent option, times the width
    bool computed;  // read as the others; written, where field is not 0, from this field (int64_t or double) of struct decoder
};

/* A tensor: '#' is the number of the layer; ".weight" or ".bias" follows. */
struct gguf_name {
    const char *file, *name;  // in the file, in the checkpoint
    size_t heads;  // int64_t of struct model: rows of this many heads lie in adjacent pairs, in the checkpoint in halves; 0: as they are
    bool turned;  // the checkpoint has the transpose (Conv1D)
    float plus;  // the file holds the weight plus this
    bool plain;  // stays f32 in every file
    bool experts;  // the checkpoint has a matrix an expert ('#' a second time), the file those of a layer behind one another
    bool flat;  // the checkpoint's single row is a vector in the file
};

struct gguf_arch {
    const char *name;  // general.architecture
    const char *config;  // what else config.json says, as JSON: architectures, model_type, and options that the format cannot change
    const struct gguf_option *options;  // ended by a NULL key
    const struct gguf_name *names;  // ended by a NULL file
    const char *biases[2][2];  // options that are true where a tensor is there: {"attention_bias", "blk.0.attn_q.bias"}; NULL: none
    const char *family;  // of ours that it is written from; NULL: the same name
    int64_t windows;  // layers that see a sliding window of keys: 0 none, 1 all, n all but each n-th
    int64_t
        wide_layers;  // scores are scaled by query_pre_attn_scalar: a head's size; of a model of so many layers the width's share of a head. 0: by a head's size
    bool rope;  // positions turn: rope.* keys, a family of models/decoder.h
    bool partial;  // only part of a head may
    bool experts;  // every layer is a mixture of experts
    bool normalised;  // the weights of the chosen experts sum to one
    bool divisors;  // its readers look for rope_freqs.weight, divisors of frequencies for all texts (Llama 3)
    bool long_factors;  // divisors of frequencies for short and for long texts (LongRoPE)
    bool head;  // output.weight, or a tied head
    bool repeats_head;  // a tied head is written too: older readers want it
    const char *left_out[5];  // beginnings of weights that files never hold: heads of architectures that are bodies; NULL-ended
};
/* By general.architecture; NULL where unknown. Models with and without experts may share a name: those without, or as the file says. */
const struct gguf_arch *gguf_arch_find(const char *name);
enum cb_status gguf_arch_of_file(const struct gguf_arch **arch, struct gguf *gguf, struct cb_err *err);
/* By a model's family; NULL where there is none. */
const struct gguf_arch *gguf_arch_of(const struct model *model);
/* Names of all, for messages. */
const char *gguf_arch_names(char text[200]);

/* gguf_arch.c: the row of a tensor of the file and its checkpoint name, in name; NULL where there is none. */
const struct gguf_name *gguf_name_of_file(const struct gguf_arch *arch, const char *file, char name[256]);
/* The row of a weight, its name in the file and which expert's part of it it is; prefix: of the family, which names may lack. Nullable: expert. */
const struct gguf_name *gguf_name_of_weight(const struct gguf_arch *arch, const char *weight, const char *prefix, char file[256],
                                            int64_t *expert);

/* Heads whose rows lie in pairs in the file; 0: they do not. */
int64_t gguf_name_heads(const struct gguf_name *row, const struct model *model);
/* Rows as the checkpoint has them from rows as the file has them, and back: row (h, 2 j + s) of the file is row (h, s, j) of the checkpoint, pairs of a head are
   adjacent there, halves apart here. Whole rows move, in any type. */
void gguf_unpair_rows(void *out, const void *in, int64_t rows, int64_t heads, size_t row_bytes);
void gguf_pair_rows(void *out, const void *in, int64_t rows, int64_t heads, size_t row_bytes);

/* gguf_config.c: the config.json that the keys amount to, everything checked and told by the file's own names. *config: owned by caller. */
enum cb_status gguf_config(json_t **config, const struct gguf_arch *arch, struct gguf *gguf, struct cb_err *err);
/* rope_parameters, or their part for layers without windows, or rope_scaling; NULL where there are none. */
const json_t *gguf_scaling(const struct model *model);
/* The narrowest window of keys that readers of an architecture without windows (Mistral's "llama") do not keep to; 0: none, or none that a text of the
   model's length would notice. */
int64_t gguf_lost_window(const struct gguf_arch *arch, const struct model *model);
/* The keys of a model: general.* and those of its architecture. */
enum cb_status gguf_put_config(struct gguf_builder *b, const struct gguf_arch *arch, const struct model *model, const char *title,
                               struct cb_err *err);

/* gguf_save.c. How a file of a kind of number is made: the type of its matrices, of the head, and of the tensors that matter more. */
struct gguf_recipe {
    const char *name;  // "q4_k_m"
    enum cb_dtype dtype, head, better;
    int file_type;  // general.file_type of ggml
};
/* NULL where unknown. */
const struct gguf_recipe *gguf_recipe_find(const char *name);
const char *gguf_recipe_names(char text[300]);

/* One weight of model->weights: where its values are, and the type in which the file gets it. An entry without data is asked of gguf_target's values. */
struct gguf_part {
    const struct store_entry *entry;  // NULL: left out of the file
    enum cb_dtype dtype;
    bool is_other;  // rows that no block of the recipe's type fits: another type
};
/* Values that are made when they are written: n elements of a weight from the first on, in its checkpoint's order. Calls go forward through a weight. */
struct gguf_values {
    enum cb_status (*read)(void *context, const char *weight, int64_t first, int64_t n, float *out, struct cb_err *err);
    void *context;
};
/* The types by a recipe; NULL: as stored (vectors: f32). Rows that no block fits get the nearest type that does. parts[i].entry: set;
   NULL afterwards where the file has no place for the weight (gguf_arch.left_out). */
enum cb_status gguf_choose(struct gguf_part *parts, const struct gguf_arch *arch, const struct model *model,
                           const struct gguf_recipe *recipe, struct cb_err *err);
/* general.file_type: of the recipe, else of the type that most numbers have. */
int gguf_file_type(const struct gguf_part *parts, const struct model *model, const struct gguf_recipe *recipe);
struct gguf_saved {
    int64_t bytes;  // of the tensors
    double max_error;  // largest change of a number
    double error_squares, value_squares;  // sums of the squares of these changes, and of the numbers
    int n_tensors, n_files;
    int n_other;  // tensors whose rows no block of the wanted type fits
};
struct pool;
struct gguf_target {
    const char *path;
    int64_t max_bytes;  // of a part; 0: one file
    struct pool *pool;  // NULL: none
    const struct gguf_values *values;  // NULL: every entry has data
};
/* Writes the model under the names and in the layout of its architecture; what is not changed in type keeps its bytes. */
enum cb_status gguf_save(const struct gguf_target *target, const struct gguf_builder *keys, const struct gguf_arch *arch,
                         const struct model *model, const struct gguf_part *parts, struct gguf_saved *saved, struct cb_err *err);

/* gguf_load.c: where a weight of a model lies in a file. */
struct gguf_place {
    const struct model_weight *weight;
    const struct gguf_name *row;
    const struct tensor *tensor;
    int64_t expert;  // whose part of the tensor
};
/* One place a weight. Missing, unexpected and wrong-shaped tensors are one CB_E_FORMAT that lists them by the file's names. */
enum cb_status gguf_find_places(struct gguf_place *places, const struct gguf_arch *arch, const struct model *model,
                                const struct tensors *tensors, struct cb_err *err);
/* Offset in the map of a weight's bytes. */
int64_t gguf_place_offset(const struct gguf_place *place);
/* Whether the bytes there are the weight's values in its checkpoint's order; else gguf_place_read brings them into it, as f32. */
bool gguf_place_is_plain(const struct gguf_place *place, const struct model *model);
void gguf_place_read(float *out, const struct gguf_place *place, const struct model *model);
/* model_load of a .gguf file. Blocks stay as they are stored, mapped; rows of permuted heads are copied in their type, vectors that are changed are f32.
   Missing, unexpected and wrong-shaped tensors are one CB_E_FORMAT that lists them by the file's names. */
enum cb_status gguf_load_model(struct model **model, struct store *store, const char *path, struct cb_err *err);
/* Whether an open file claims to hold a model, rather than some tensors or keys. */
bool gguf_has_model(const struct gguf *gguf, const char *arch);
/* The same from an open file; nullable: store (checks alone). */
enum cb_status gguf_model(struct model **model, struct store *store, struct gguf *gguf, struct cb_err *err);
#endif
