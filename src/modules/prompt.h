/* What the tuners of virtual tokens and prefixes share: PEFT's options of their sizes, and a table that an encoder makes. */
#ifndef MODULES_PROMPT_H
#define MODULES_PROMPT_H
#include "modules/tuner.h"

#define PROMPT_TABLE "prompt_embeddings"  // key of the table in the file; ADePT's file has others beside it

/* Options begin with it. Sizes that a file leaves open are 0 until the sites are known. */
struct prompt {
    int64_t n;  // virtual tokens
    int64_t channels, layers, heads;  // of a token; of the model
    int64_t stacks;  // num_transformer_submodules: a table holds n rows for each, of which the first n act
    enum { PROMPT_OF_NORMAL, PROMPT_OF_VOCABULARY, PROMPT_OF_TEXT } from;  // what fresh rows are
    double rows_scale;  // of the embedding's rows; 0: 1
};

enum cb_status prompt_parse(struct module *module, const char *where, struct cb_err *err);
/* Which rows of the embedding, if any, fresh rows begin as: prompt_tuning_init and its text. */
enum cb_status prompt_parse_init(struct module *module, const char *where, struct cb_err *err);
/* Settles the sizes by the embedding that reads the tokens, as tuners of rows beside it do. */
enum cb_status prompt_declare_shared(struct module *module, const struct nn *sites, struct cb_err *err);
/* Settles the sizes by the sites, of which a token is `channels` wide; a fresh module's are set in its configuration as PEFT sets them. */
enum cb_status prompt_settle(struct module *module, const struct nn *sites, int64_t channels, int64_t heads, struct cb_err *err);
/* The width of an encoder: the channels, where it is 0. */
enum cb_status prompt_settle_hidden(struct module *module, int64_t *hidden, struct cb_err *err);
/* The table (rows, channels) of the file as a parameter: trained, unless an encoder of a fresh module makes it (is_made). */
enum cb_status prompt_add_table(struct module *module, struct tuner_site *site, int64_t rows, int64_t channels, bool is_made,
                                struct tuner_param rest, struct cb_err *err);
/* The same with n rows for each stack, beginning as prompt_parse_init found. */
enum cb_status prompt_add_rows(struct module *module, struct tuner_site *site, struct cb_err *err);
/* A parameter of an encoder, "prompt_encoder.<name>": trained, never in a file. */
enum cb_status prompt_add_inner(struct module *module, struct tuner_site *site, const char *name, int rank, const int64_t *dim,
                                enum tuner_init init, double spread, struct cb_err *err);
/* x (rows,in) through the linear layer whose weight and bias are the site's parameters i and i + 1. */
struct cb_tensor *prompt_linear(const struct module *module, const struct tuner_site *site, int i, struct nn *nn, struct cb_tensor *x);
/* Its two parameters, in the uniform fresh state of PyTorch's linear layers. */
enum cb_status prompt_add_linear(struct module *module, struct tuner_site *site, const char *name, int64_t in, int64_t out,
                                 enum tuner_init init, struct cb_err *err);

/* Rows of an embedding as a parameter's fresh value: of the module's text, cut or repeated, or of tokens drawn; times scale (0: 1). */
enum cb_status prompt_fill(const struct module *module, const struct tuner_param *param, const struct nn_site *table, bool by_text,
                           double scale, struct store *store, uint64_t seed, float *to, struct cb_err *err);

/* Options and keys of adapter_config.json that all of them have. */
#define PROMPT_SAVE \
    { "save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies" }
#define PROMPT_INIT \
    { "init", "prompt_tuning_init", TUNER_STR, "RANDOM, SAMPLE_VOCAB (embeddings of tokens drawn) or TEXT (of those of text)" }
#define PROMPT_TEXT \
    { "text", "prompt_tuning_init_text", TUNER_TEXT, "what the prompt begins as, with init=TEXT; the last option, commas are its own" }
#define PROMPT_JSON                                                                                                   \
    "\"auto_mapping\":null,\"base_model_name_or_path\":null,\"inference_mode\":true,\"modules_to_save\":null,"        \
    "\"num_attention_heads\":null,\"num_layers\":null,\"num_transformer_submodules\":null,\"num_virtual_tokens\":20," \
    "\"peft_version\":\"0.21.2\",\"revision\":null,\"task_type\":null,\"token_dim\":null"

/* For descriptors: the tokens' embedding; why a module stays beside the weights. */
bool prompt_match(const struct nn_site *site);
bool prompt_implied(const struct module *module, const struct nn_site *site);
const char *prompt_refuses_fold(const struct module *module);
/* The first n rows of the table that `make` gives, or that a file gave. */
struct cb_tensor *prompt_rows(const struct module *module, const struct tuner_site *site, struct nn *nn);
#endif
