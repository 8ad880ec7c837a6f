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
    tuner_fill *a, *b;  // NULL: uniform, zeros
};

struct lora_options {
    int64_t r;
    double alpha, dropout;
    bool rslora, dora, bias;
    const struct lora_init *init;
    int iterations;  // of a randomised decomposition; 0: exact
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
};
#endif
