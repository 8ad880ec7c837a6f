/* What LoRA's tuner and its initialisations share. */
#ifndef MODULES_LORA_H
#define MODULES_LORA_H
#include "modules/tuner.h"

/* A word of init_lora_weights. */
struct lora_init {
    const char *name;  // a trailing * stands for any number
    enum tuner_fresh fresh;
    bool is_residual;  // the start's product is taken off the weight: the change is B A - B0 A0
    bool keeps_b;  // B is never trained
    bool of_inputs;  // A begins as principal components of the inputs
    bool of_moments;  // A and B are made of the weight and the second moments of its inputs
    bool is_quantised;  // the weight is quantised, A and B begin as a part of what that loses
    tuner_fill *a, *b;  // NULL: uniform, zeros
};

/* loftq_config. */
struct lora_loftq {
    int64_t bits, iterations;
    enum cb_dtype dtype;  // a block type in place of normal floats of `bits`; CB_DTYPE_COUNT: none
    bool is_peft;  // A and B begin without the factor alpha / r taken out
};

struct lora_options {
    int64_t r;
    double alpha, dropout;
    bool rslora, dora, bias;
    const struct lora_init *init;
    int iterations;  // of a randomised decomposition; 0: exact
    struct lora_loftq loftq;
    bool keeps_knowledge;  // corda_config: kpm, not ipm
    struct tuner_numbers ranks, alphas;
    const json_t *tokens;  // trainable_token_indices; NULL: none
};

/* The word's, NULL where it is unknown. *number: what stands for its *. */
const struct lora_init *lora_init_find(const char *word, int *number);
/* A list of the words, for messages. */
const char *lora_init_names(char text[300]);
/* A0 and B0 of a residual start: A and B as they are made, again where the file does not have them. */
enum cb_status lora_fill_a0(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err);
enum cb_status lora_fill_b0(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err);
/* DoRA's magnitudes: the norms of the weight's rows, of a table's columns. */
enum cb_status lora_fill_magnitude(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                   struct cb_err *err);
/* struct tuner's convert: a residual start becomes plain LoRA of twice the rank, [A; A0] and [B, -B0], for the model as it was. */
enum cb_status lora_convert(const struct module *m, const struct store *store, json_t **config, struct store *tensors, struct cb_err *err);

/* What a site has beside A and B: numbers of its parameters, -1: none. */
struct lora_site {
    int bias, magnitude, a0;  // b0 follows a0
    int shift;  // what quantising does to the weight (out,in)
    bool is_tied;  // a head with the A (r,rows) and B (channels,r) of the table that it shares
};
/* Whether it is y = W x + s B A x and no more. */
static inline bool lora_site_is_plain(const struct lora_site *s) {
    return s->bias < 0 && s->magnitude < 0 && s->a0 < 0 && s->shift < 0 && !s->is_tied;
}

/* Matrices in f64, row-major: zeros, owned by caller, free(); a product c (m,n) = a (m,k) b (k,n), turned: a is (k,m). */
double *lora_matrix(int64_t rows, int64_t columns, struct cb_err *err);
void lora_product(double *c, const double *a, const double *b, int64_t m, int64_t k, int64_t n, bool turned);
/* A site's weight (out,in), which has at least r rows and columns. w: owned by caller, free(). */
struct lora_weight {
    double *w;
    int64_t in, out, r;
};
enum cb_status lora_weight_open(struct lora_weight *b, const struct module *m, const struct tuner_param *param, const struct store *store,
                                struct cb_err *err);
/* Values of the module's parameter of that number; NULL: none in the store. */
const float *lora_values(const struct module *m, int number, const struct store *store);

/* lora_corda.c: reads and writes corda_config; A and B, and what they take off the weight, of the second moments c (in,in) of a site's inputs, which is
   overwritten. */
enum cb_status lora_corda_parse(struct module *m, struct lora_options *o, const char *where, struct cb_err *err);
enum cb_status lora_corda_config(struct module *m, struct cb_err *err);
enum cb_status lora_take_moments(const struct module *m, const struct tuner_site *site, struct store *store, double *c, struct cb_err *err);
/* lora_loftq.c: reads loftq_config; refuses a file's that is of another kind; whether a site's weight is to be quantised, and is not stored so already;
   the shift, A and B of a fresh site. */
enum cb_status lora_loftq_parse(struct module *m, struct lora_options *o, const char *where, struct cb_err *err);
enum cb_status lora_loftq_check(const struct module *m, const struct lora_options *o, struct cb_err *err);
bool lora_loftq_wanted(const struct module *m, const struct tuner_site *site);
enum cb_status lora_fill_shift(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                               struct cb_err *err);
enum cb_status lora_loftq_a(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err);
enum cb_status lora_loftq_b(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err);
#endif
