/* Merge methods: what a method says about itself, and what it is given of one tensor. A method is one file, merge_<name>.c.
   Notation: n models with values x_k (of theta_k, or, where there is a base theta_0, tau_k = theta_k - theta_0), of one tensor. */
#ifndef MERGE_MERGE_H
#define MERGE_MERGE_H
#include <math.h>

#include "base/arena.h"
#include "base/dtype.h"
#include "base/pool.h"
#include "io/map.h"

#define MERGE_MAX_MODELS 64
#define MERGE_MAX_OPTIONS 10

/* A named number of a recipe's `parameters`. */
struct merge_option {
    const char *name, *doc;  // a NULL name ends the list
    double value, min, max;  // default (NAN: it must be given) and what is allowed, both ends included
    bool per_model;  // each model has its own
    const char *const *words;  // the values 0, 1, ... by name, NULL-ended; NULL: a number
};

/* What a base model is to a method. */
enum merge_base {
    MERGE_BASE_NONE,  // a model like the others, where it is listed
    MERGE_BASE_FIRST,  // wanted, and the first of the models
    MERGE_BASE_OPTIONAL,  // where there is one, x are differences from it
    MERGE_BASE_WANTED,  // x are differences from it
};

/* What stands in for rows that a model has not: n of their values from the first on. A vector's rows are its numbers. */
struct merge_absent {
    void (*read)(const struct merge_absent *absent, int64_t row, int64_t first, int64_t n, float *out);
};

/* Values of one model: a tensor of its file, or numbers in memory. */
struct merge_input {
    const char *model;  // for messages, and the name of its masks
    const void *data;
    enum cb_dtype dtype;
    const struct map *map;  // that data lies in; NULL: memory
    const int32_t *rows,
        *cols;  // row r of the input is row rows[r] of data, column c is column cols[c]; NULL: as they lie. cols: no blocks
    const struct merge_absent *absent;  // rows (of a vector: columns) whose number is negative; NULL: there are none
    int64_t n;  // elements of data, where rows are taken from a tensor of another height; 0: the job's
};

/* Masks of random methods that were drawn elsewhere, n bytes each (1: kept). NULL: drawn here, by seed, tensor and model. */
struct merge_masks {
    const unsigned char *(*find)(void *context, const char *model, const char *tensor, int64_t n);
    void *context;
};

/* One tensor of the result. The first part is set by the caller; zero the rest. */
struct merge_job {
    const struct merge_method *method;
    const char *name;
    struct cb_type type;  // of the result
    int n_models;  // without the base
    const struct merge_input *model;
    const struct merge_input *base;  // NULL: none
    const struct merge_input *statistic;  // of each model (a model without has no data); NULL: none
    bool in_out;  // the tensor is a weight that is stored (in,out), where a statistic tells its layout
    const double *shared;  // options in the descriptor's order
    const double (*own)[MERGE_MAX_OPTIONS];  // each model's
    uint64_t seed;
    const struct merge_masks *masks;  // NULL: drawn here
    struct pool *pool;
    // set by merge_begin
    int64_t n, rows, cols;  // cols: the last axis; rows: all the others (a vector is one row)
    struct arena *arena;  // of the job
    void *state;  // the method's own, made by its prepare
    bool by_row;  // set by prepare: tiles are whole rows
    int n_spare;  // set by prepare: buffers of a tile's size that apply is given
    struct merge_work *work;
    int64_t conflicts, shared_elements;  // elements where values of both signs meet; where two or more are not 0
};

/* A part of a tensor, for one thread: values of each model, which may be overwritten. */
struct merge_tile {
    int64_t first, n;
    float *const *x;  // [n_models]
    const float *base;  // NULL: none; x are differences from it
    float *const *statistic;  // [n_models]; NULL: none
    float *spare;  // n_spare buffers, `room` apart
    int64_t room;
};

struct merge_method {
    const char *name, *doc;  // doc: formula and source
    struct merge_option options[MERGE_MAX_OPTIONS];
    enum merge_base base;
    int min_models, max_models;  // needed, MERGE_MAX_MODELS for any number; without a base; a FIRST base counts
    bool random;
    bool reads_base;  // apply reads tile->base: differences alone are not enough
    const char
        *statistic;  // what each model brings besides: "fisher" (a number an element), "gram" (in,in) of a layer's inputs; NULL: nothing
    bool statistic_in_tiles;  // it has the tensor's shape, and tiles bring it
    const void *kind;  // constants of methods that share their mathematics
    /* Passes over the values, coefficients, thresholds. Nullable. */
    enum cb_status (*prepare)(struct merge_job *job, struct cb_err *err);
    /* Needed. Writes the result of a tile, less the base, to out[n]. Any thread, tiles in any order. */
    void (*apply)(const struct merge_job *job, const struct merge_tile *tile, float *out);
};

/* i-th of all in the order of their names, NULL past the end. */
const struct merge_method *merge_method_at(int i);
/* NULL where unknown. */
const struct merge_method *merge_method_find(const char *name);
/* Index of an option, -1 where the method has none of that name. */
int merge_option_index(const struct merge_method *method, const char *name);
/* An option of the whole merge (model -1) or of a model; otherwise where the method has none of that name. */
double merge_value(const struct merge_job *job, int model, const char *name, double otherwise);

/* ---- running one tensor (tensor.c) */
/* Checks the job, makes its buffers and runs the method's prepare. merge_end in any case. */
enum cb_status merge_begin(struct merge_job *job, struct cb_err *err);
/* Elements [first, first + n) of the result as f32. Calls go forward; the values of a call stay the same for any number of threads. */
enum cb_status merge_read(struct merge_job *job, int64_t first, int64_t n, float *out, struct cb_err *err);
/* Frees the buffers; pages of maps that were read are given back. */
void merge_end(struct merge_job *job);

/* Gives the pages of all inputs back to the system: for a prepare that reads them by itself. */
void merge_forget(const struct merge_job *job);
/* n elements of an input from `first` on as f32. cols: of the tensor. */
void merge_input_read(const struct merge_input *input, int64_t cols, int64_t first, int64_t n, float *out);

/* For prepare: fn over every tile; sums (n_sums doubles a tile, zeroed) are added up in the order of the tiles. */
typedef void merge_pass_fn(const struct merge_job *job, const struct merge_tile *tile, void *context, double *sums);
enum cb_status merge_pass(struct merge_job *job, merge_pass_fn *fn, void *context, int n_sums, double *sums, struct cb_err *err);
/* Dot products of all pairs of models: gram[i * n_models + j]. */
enum cb_status merge_gram(struct merge_job *job, double *gram, struct cb_err *err);

/* A place in the order of n keys >= 0, ascending; of equal keys the later element comes first. */
struct merge_cut {
    uint32_t bits;  // of the key
    int64_t index;
};
/* Keys of a tile, none negative, to key[n]. */
typedef void merge_key_fn(const struct merge_job *job, const struct merge_tile *tile, void *context, float *key);
/* The place of rank (0: the smallest; n: above all). */
enum cb_status merge_select(struct merge_job *job, merge_key_fn *fn, void *context, int64_t rank, struct merge_cut *cut,
                            struct cb_err *err);
static inline bool merge_above(const struct merge_cut *cut, float key, int64_t index) {
    union {
        float f;
        uint32_t u;
    } k = {key};
    return k.u > cut->bits || (k.u == cut->bits && index <= cut->index);
}

/* ---- whole matrices (matrix.c), for methods that need a tensor at once: one in f64 at a time */
/* factor times a model's values x, all rows cols of them, to out. */
enum cb_status merge_whole(struct merge_job *job, int model, double factor, double *out, struct cb_err *err);
/* out(m,n) += factor left(m,k) right(k,n), rows over the pool. turned: left is (k,m). */
void merge_product(struct pool *pool, double *out, const double *left, bool turned, const double *right, int64_t m, int64_t k, int64_t n,
                   double factor);

/* ---- shared mathematics (combine.c) */
enum merge_axis { MERGE_WHOLE, MERGE_ROWS, MERGE_COLUMNS };
/* What methods whose result is sum_k c_k x_k differ in; `kind` of such a method. */
struct merge_combination {
    /* Coefficients from the dot products (NULL where `gram` is false). Returns NULL, or what is wrong. */
    const char *(*coefficients)(const struct merge_job *job, const double *gram, double *c);
    bool gram;
    enum merge_axis (*axis)(const struct merge_job *job);  // over what dot products are taken; NULL: the whole tensor
};
enum cb_status merge_combine_prepare(struct merge_job *job, struct cb_err *err);
void merge_combine_apply(const struct merge_job *job, const struct merge_tile *tile, float *out);

/* ---- shared mathematics (family.c): keep some of tau, rescale, weigh, elect signs, add, normalise, times lambda */
enum merge_keep { MERGE_KEEP_ALL, MERGE_KEEP_LARGEST, MERGE_KEEP_RANDOM, MERGE_KEEP_MIDDLE, MERGE_KEEP_RANKED };
/* Values of the option rescale, as its words. */
enum merge_rescale { MERGE_RESCALE_NONE, MERGE_RESCALE_TRUE, MERGE_RESCALE_DENSITY, MERGE_RESCALE_L1 };
enum merge_sign { MERGE_SIGN_NONE, MERGE_SIGN_WEIGHTED, MERGE_SIGN_PLAIN, MERGE_SIGN_COUNT };
struct merge_family {
    enum merge_keep keep;
    enum merge_sign sign;
    bool divide_by_count;  // normalise by how many agree, not by their weights
    bool may_keep_none;  // the largest floor(density n), not at least one of them
};
/* Of its methods' descriptors, all but name, doc and options. */
#define MERGE_FAMILY(keep_, sign_)                                              \
    .base = MERGE_BASE_WANTED, .min_models = 1, .max_models = MERGE_MAX_MODELS, \
    .kind = &(const struct merge_family){.keep = (keep_), .sign = (sign_)}, .prepare = merge_family_prepare, .apply = merge_family_apply
/* Rows of its option table; v: the default. */
extern const char *const merge_rescale_words[];
#define MERGE_WEIGHT \
    { "weight", "factor of the model", NAN, -1e9, 1e9, true, NULL }
#define MERGE_DENSITY \
    { "density", "share of tau that is kept; 1: all", 1, 0, 1, true, NULL }
#define MERGE_EPSILON \
    { "epsilon", "how far the chance to stay moves with the rank", 0.15, 0, 0.5, true, NULL }
#define MERGE_GAMMA \
    { "gamma", "share of the largest that is dropped", 0.01, 0, 1, true, NULL }
#define MERGE_NORMALIZE(v) \
    { "normalize", "divide by the sum of the weights that took part", v, 0, 1, false, NULL }
#define MERGE_RESCALE(v)                                                                                                                   \
    {                                                                                                                                      \
        "rescale", "what is kept gets the old L1 norm (true, l1), is divided by the density (density), or stays as it is", v, 0, 3, false, \
            merge_rescale_words                                                                                                            \
    }
#define MERGE_LAMBDA \
    { "lambda", "factor of the merged tau", 1, -1e9, 1e9, false, NULL }
#define MERGE_INT8 \
    { "int8_mask", "accepted and without effect: masks take no memory here", 0, 0, 1, false, NULL }
enum cb_status merge_family_prepare(struct merge_job *job, struct cb_err *err);
void merge_family_apply(const struct merge_job *job, const struct merge_tile *tile, float *out);
#endif
