/* The descriptor of a kind of module, and what it sees of a module. One file tuner_<name>.c defines `tuner_<name>`. */
#ifndef MODULES_TUNER_H
#define MODULES_TUNER_H
#include "base/pattern.h"
#include "base/table.h"
#include "modules/module.h"

enum tuner_fresh { TUNER_IS_BASE, TUNER_NEAR_BASE, TUNER_NOT_BASE };
enum tuner_init {
    TUNER_ZEROS,
    TUNER_UNIFORM /* in +-spread */,
    TUNER_NORMAL /* deviation spread */,
    TUNER_TRUNCATED /* normal, redrawn outside two deviations */,
    TUNER_CONSTANT /* spread */,
    TUNER_COPY /* of the entry `source` */
};
enum tuner_kind {
    TUNER_INT,
    TUNER_FLOAT,
    TUNER_REAL /* a float in the file even where it is whole */,
    TUNER_BOOL,
    TUNER_STR,
    TUNER_STRS /* a+b+c; a pattern stays one string */,
    TUNER_INTS,
    TUNER_TEXT /* all that is left of the spec */,
    TUNER_SCALAR /* a number (as TUNER_REAL), true, false, none or a word */,
    TUNER_MAP /* 16, or by name: 0:8+default:16 */
};

/* A key of a spec text, and the key of adapter_config.json that it sets. */
struct tuner_option {
    const char *name, *key;  // NULL ends the list
    enum tuner_kind kind;
    const char *doc;
};

/* What becomes of a parameter. */
enum tuner_role {
    TUNER_TRAINED,
    TUNER_FROZEN /* kept in the file, never trained */,
    TUNER_DERIVED /* never in a file: made by its fill, when fresh and when read */,
    TUNER_INNER /* trained, never in a file: a fresh module's part of what `make` gives, or what `before_save` puts into others */,
    TUNER_MADE /* in the file: what `make` gives, brought up to date by module_settle */
};

struct tuner_param;
/* The fresh value of a parameter, or a derived one's: data holds its elements in its type. */
typedef enum cb_status tuner_fill(const struct module *module, const struct tuner_param *param, struct store *store, uint64_t seed,
                                  void *data, struct cb_err *err);

/* One parameter of a module. */
struct tuner_param {
    struct module_param public;
    enum tuner_init init;
    double spread;
    const char *source;  // the model's weight that it copies and stands for; NULL: none
    enum tuner_role role;
    tuner_fill *fill;  // in place of init; NULL: none
    int site;  // the first that asked for it; -1: none
    bool of_head;  // it lies in the head's file (adapters library)
};

/* A site that the tuner changes, and the numbers of its parameters: its own, and such as it shares with others. */
#define TUNER_MAX_PARAMS 64
struct tuner_site {
    struct nn_site site;
    int param[TUNER_MAX_PARAMS], n_params;
    bool shared;  // another site reads the same weight
    bool is_tied;  // another site reads the same weight and changes it for both
    double scale;  // the tuner's own factor, e.g. alpha / r
    int64_t rank;
    const void *own;  // what the tuner keeps of the site, in the module's arena
};

/* A parameter that stands for the model's own at one site (modules_to_save, biases). */
struct tuner_swap {
    const char *site, *field;  // "weight" or "bias"
    int param;
    bool shared;
    bool is_tied;  // the copy of another site that reads the same weight
};

/* Rows of a table that new ones stand for, at a site that reads it. */
struct tuner_rows {
    const char *site, *weight;
    int64_t table, width;  // the table is (table,width)
    const int64_t *index;  // of the rows, n of them
    const json_t *indices;  // the list they come from
    int n;
    int delta, place, mask;  // parameters: the rows (n,width); of each row of the table its number among them, and whether it is one
    bool is_tied;  // another site's are meant, of the same table
};

/* Which modules a configuration means; the key semantics of PEFT. */
struct tuner_targets {
    bool all_linear;
    bool is_implied;  // none are named: the tuner says which
    const json_t *names;  // list of exact names or endings after a dot; NULL: pattern
    const struct pattern *pattern;
    const json_t *exclude_names;
    const struct pattern *exclude_pattern;
    const struct pattern *layers;  // NULL: all
    bool by_layer;  // layers_to_transform without a pattern: by the site's own layer
    int64_t layer[256];
    int n_layers;
    const json_t *save;  // modules_to_save; NULL: none
};

/* Another key of the file for a parameter: libraries write shared tensors under every name. */
struct tuner_alias {
    const char *key;
    int param;
    bool turned;  // a matrix, there with its axes changed
    bool is_idle;  // a file may hold other numbers there, which act nowhere
};

struct module {
    const struct tuner *tuner;
    const char *name;
    struct arena *arena;
    json_t *config;  // the file
    const json_t *method;  // what the tuner's options are read from: config, or the object "config" in it (adapters library)
    const char *label;  // the module's name within keys (adapters library); NULL: none
    const struct nn_head *head;  // that it brings; NULL: none
    bool reads_padding;  // it averages over time, rows of padding too
    const char *prefix, *model_type, *model_class;  // of the model: see struct nn; NULL: not resolved yet
    const char *file_prefix;  // that keys of the file have in place of prefix; NULL: prefix
    int64_t width;
    enum tuner_fresh fresh;  // as the tuner says, unless its options differ
    struct tuner_alias *aliases;
    int n_aliases, aliases_size;
    const void *options;  // struct <tuner>_options
    const struct tuner_numbers *numbers;  // all of its options', the last first
    bool is_additive, is_low_rank;  // as the tuner says, unless its options take that back
    const struct tensors *file;  // while parameters are declared for a file that is being read: what it holds; else NULL
    const struct nn *nn;  // while the sites are matched
    struct tuner_targets targets;
    struct tuner_site *sites;
    struct table by_site, by_key;  // numbers of the sites by name, of the parameters by key
    struct tuner_param *params;
    struct tuner_swap *swaps;
    struct pattern **patterns;  // all that were compiled
    struct tuner_rows *new_rows;
    int n_sites, n_params, n_swaps, n_new_rows, n_patterns;
    int sites_size, params_size, swaps_size, new_rows_size, patterns_size;
    const char *rows_alone;  // a table whose rows change at some of the sites that read it; NULL: none
    const char *scale_name;  // of the scale's entry
    const char *warning;
    bool drops;  // in training it is left out of the first layers, as many as an input says
    bool is_fresh;  // made from a spec, not read from a file
    int64_t n_rows, n_past;  // virtual tokens; positions that its prefixes count as
    int64_t n_late, rows_at;  // virtual tokens that come after the embeddings, before row rows_at
    bool late_see_padding;  // see struct nn_hook
    const char *init_text;  // a fresh module wants the ids of this text; NULL: none
    const int32_t *init_ids;
    int64_t n_init_ids;
    struct module_field *fields;  // of rows, on which it depends
    int n_fields;
};

/* What modules hand on where an output joins the residual stream. */
struct tuner_flow {
    const struct nn_join *join;
    struct cb_tensor *output;  // of the block's part
    struct cb_tensor *hidden;  // its form so far
    struct cb_tensor *residual;  // what the next module adds itself to
    struct cb_tensor *up;  // what the last module added
};
/* What a tuner does there: each module in turn enters and changes, then the last one leaves. */
struct tuner_join {
    void (*enter)(const struct module *module, const struct tuner_site *site, struct nn *nn, struct tuner_flow *flow);
    void (*change)(const struct module *module, const struct tuner_site *site, struct nn *nn, struct tuner_flow *flow,
                   struct cb_tensor *scale);
    /* The new residual stream. */
    struct cb_tensor *(*leave)(const struct module *module, const struct tuner_site *site, struct nn *nn, const struct tuner_flow *flow);
};

/* Modules of one kind at a site, each for some sequences of a batch. */
struct tuner_group {
    int n;
    const struct module *const *module;  // the i-th; NULL: none of this kind, whose sequences stay as they are
    const struct tuner_site *const *site;
    struct cb_tensor *index;  // i32 (B): which module a sequence has; outside [0,n): none
    struct cb_tensor *slot;  // the same, n where there is none
    struct cb_tensor *scales;  // f32 (n+1,1): their run-time scales; 0 where there is none
};

/* A name for some options of a tuner. */
struct tuner_preset {
    const char *name, *doc, *config;  // config: what differs from the defaults, as JSON; name NULL ends the list
};

/* How a tuner acts on a site. It needs name, doc, options, defaults, cases, match, declare, and input, delta, weight, rows or copies (tuner_add_copy);
   the rest is nullable. scale: rank 0, the run-time scale.
   weight and bias are the definition where there is one: folding evaluates them, and where there is no delta they stand for the model's own while a
   graph is built. delta is then the cheaper form of the same. */
struct tuner {
    const char *name, *doc;
    const char *peft_type;  // NULL: of the adapters library
    const char *architecture;  // of the adapters library's configuration, "" for null
    /* Whether a configuration of this architecture is this tuner's. NULL: each is. */
    bool (*owns)(const json_t *method);
    const struct tuner_preset *presets;
    const struct tuner_option *options;
    /* A complete adapter_config.json as PEFT writes it, every known key in it; of the adapters library, the object "config". */
    const char *defaults;
    size_t options_bytes;  // of module->options; 0: it has none
    enum tuner_fresh fresh;
    bool takes_experts;  // input and delta change the rows of an expert's site alone (nn_product); else weight serves such sites
    /* What weight and bias add does not depend on what they change: folding can be undone; scale 0 is the base bit for bit, up to rounding where
       tuner_is_by_weight and the base's weight is in blocks. */
    bool is_additive;
    bool is_low_rank;  // site->rank is that of a product of a matrix (rank,in) and one (out,rank)
    const char *scaling;  // what the run-time scale multiplies
    const char *prefix;  // of the keys of the file; NULL: "base_model.model."
    const char *const *cases;  // specs for the generic tests, NULL-ended: each on every family, the first in every type too
    /* Reads the tuner's own keys of module->method into module->options, zeroed bytes that it alone may write, by a cast. Those of targets, layers and
       copies are read after it by others. where: the file, for messages. */
    enum cb_status (*parse)(struct module *module, const char *where, struct cb_err *err);
    /* Whether a site of this kind can be changed. */
    bool (*match)(const struct nn_site *site);
    /* Which sites are meant where the configuration has no target_modules. NULL: it must have some. */
    bool (*implied)(const struct module *module, const struct nn_site *site);
    /* Adds parameters that belong to no site, before the sites. NULL: none. */
    enum cb_status (*declare_shared)(struct module *module, const struct nn *sites, struct cb_err *err);
    /* Adds the site's parameters through tuner_add_param and tuner_add; sets site->scale. */
    enum cb_status (*declare)(struct module *module, struct tuner_site *site, struct cb_err *err);
    /* The same for a head that shares the table of another of the module's sites and is to have its change; a file says so by a key of the head with
       this suffix. NULL: it cannot. */
    const char *tied_key;
    enum cb_status (*declare_tied)(struct module *module, struct tuner_site *site, const struct tuner_site *table, struct cb_err *err);
    /* The site's input x in its new form. Not for embeddings and norms. */
    struct cb_tensor *(*input)(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *scale);
    /* The new output of the site. */
    struct cb_tensor *(*delta)(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale);
    /* input and delta for several modules at once, x and y being (B,T,channels) of a linear layer; groups: whether this module's part at a site can be
       computed so. NULL: none can. */
    bool (*groups)(const struct module *module, const struct tuner_site *site);
    struct cb_tensor *(*grouped_input)(const struct tuner_group *group, struct nn *nn, struct cb_tensor *x);
    struct cb_tensor *(*grouped)(const struct tuner_group *group, struct nn *nn, struct cb_tensor *x, struct cb_tensor *y);
    /* The new weight of w, f32: (out,in) of linear layers however they are stored, (rows,channels) of embeddings, (C) of norms. */
    struct cb_tensor *(*weight)(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale);
    /* The new bias of b, f32 (out). Not called where the layer has none: a tuner that adds to it then says so in refuses_fold. */
    struct cb_tensor *(*bias)(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale);
    /* The value of a fresh site's TUNER_MADE parameter. */
    struct cb_tensor *(*make)(const struct module *module, const struct tuner_site *site, struct nn *nn);
    /* Rows of the module's virtual tokens, (n_rows,channels) or (B,n_rows,channels), at an embedding of tokens. */
    struct cb_tensor *(*rows)(const struct module *module, const struct tuner_site *site, struct nn *nn);
    /* Rows (1 or B,n,heads,head_dim) before a site's keys or values. */
    struct cb_tensor *(*before)(const struct module *module, const struct tuner_site *site, struct nn *nn,
                                const struct nn_prefixed *attention);
    /* Whether weight and bias serve this site in place of input and delta. NULL: these do, where there are any. */
    bool (*by_weight)(const struct module *module, const struct tuner_site *site);
    /* The model runs twice: what is made of the last hidden states x of the first time, nn->survey in the second. */
    struct cb_tensor *(*survey)(const struct module *module, struct nn *nn, struct cb_tensor *x);
    /* Whether modules of several tasks that are trained together have one parameter in common. NULL: none. */
    bool (*shares)(const struct module *module, const struct tuner_param *param);
    /* How many tasks a row's number in the input task_ids may name: 0 to one less. NULL: the input is not read. */
    int64_t (*tasks)(const struct module *module);
    /* Whether what a file gave for frozen parameters can be used (indices that lie in range). NULL: always. */
    enum cb_status (*check)(const struct module *module, const struct store *store, struct cb_err *err);
    /* Brings parameters that the file holds for others up to date. NULL: none are. */
    enum cb_status (*before_save)(const struct module *module, const struct store *store, struct cb_err *err);
    /* A key that a file may hold though it is no parameter: a copy of another. NULL: none. */
    bool (*is_copy)(const struct module *module, const char *key);
    const struct tuner_join *join;
    /* How many principal components of a site's inputs a fresh module begins with. NULL: none. */
    int64_t (*components)(const struct module *module, const struct tuner_site *site);
    /* Takes them, (components,in), the largest first. */
    enum cb_status (*take_components)(const struct module *module, const struct tuner_site *site, struct store *store, const double *rows,
                                      struct cb_err *err);
    /* Whether a fresh module begins with the second moments of a site's inputs (NULL: none does), and that it takes them, (in,in), which it overwrites. */
    bool (*wants_moments)(const struct module *module, const struct tuner_site *site);
    enum cb_status (*take_moments)(const struct module *module, const struct tuner_site *site, struct store *store, double *moments,
                                   struct cb_err *err);
    /* In training, a scalar that is added to the loss; it may return NULL. NULL: none. */
    struct cb_tensor *(*penalty)(const struct module *module, struct nn *nn);
    /* Before the first of `steps` training steps: adds what it keeps between steps to states, where the optimiser's are, so that checkpoints hold it. */
    enum cb_status (*train_begin)(struct module *module, struct store *states, int64_t steps, struct cb_err *err);
    /* Bytes of what train_begin adds. NULL: none. */
    int64_t (*train_bytes)(const struct module *module);
    /* After step number `step`, from 0: states holds "grad.<name>" too. */
    enum cb_status (*train_step)(const struct module *module, struct store *store, struct store *states, int64_t step, struct cb_err *err);
    /* Frees what the tuner keeps outside the arena. */
    void (*release)(struct module *module);
    /* The file of a module that is saved otherwise than it is trained: its configuration and its tensors, by their keys. *config: NULL to save it as it
       is. NULL: always as it is. */
    enum cb_status (*convert)(const struct module *module, const struct store *store, json_t **config, struct store *tensors,
                              struct cb_err *err);
    /* A module with fields: the configuration of the plain one that it is for their values (*config: a new reference), and the value of a parameter of that
       one, in its shape. NULL: it is plain itself. */
    enum cb_status (*plain_config)(const struct module *module, json_t **config, struct cb_err *err);
    struct cb_tensor *(*plain_value)(const struct module *module, const struct module *plain, int param, struct nn *nn);
    /* A kind that belongs to a block of expressions: what the configuration of a fresh module says of fresh->block. NULL: the kind stands by itself. */
    enum cb_status (*of_block)(json_t *config, const struct module_fresh *fresh, const struct nn *sites, struct cb_err *err);
    /* Writes a folder of the kind's own. NULL: as the library of its configuration does. */
    enum cb_status (*save)(const struct module *module, const struct store *store, const char *folder, struct cb_err *err);
    /* Why this module cannot be folded though it has weight or bias; NULL: it can. Nor can it then stand before a module that changes weights. */
    const char *(*refuses_fold)(const struct module *module);
};

/* All tuners in the order of their names; *n their count. */
const struct tuner *const *tuners(int *n);
/* By name or peft_type; NULL where unknown. */
const struct tuner *tuner_find(const char *name);
/* By the name of a preset; NULL where unknown. */
const struct tuner *tuner_find_preset(const char *name, const struct tuner_preset **preset);
/* By a configuration of the adapters library; NULL where unknown. */
const struct tuner *tuner_find_method(const json_t *method);

/* For tuners: one more trained parameter of the site, named "base_model.model.<site>.<suffix>" in the file. */
enum cb_status tuner_add_param(struct module *module, struct tuner_site *site, const char *suffix, int rank, const int64_t *dim,
                               enum tuner_init init, double spread, struct cb_err *err);
/* For tuners: a parameter under the whole key of its file (rest.public.key), once: a key that is there already gives that one again. Nullable: site, to
   whose parameters it is added; number. */
enum cb_status tuner_add(struct module *module, struct tuner_site *site, struct tuner_param rest, int *number, struct cb_err *err);
/* For tuners: a trained copy, under the key of <suffix>, that stands for a site's own weight or bias ("weight", "bias"). shared: another site reads it. */
enum cb_status tuner_add_copy(struct module *module, const struct nn_site *site, bool shared, const char *field, const char *suffix,
                              struct cb_err *err);
/* For tuners: one more key of parameter `number`; of the matrix with its axes changed. */
enum cb_status tuner_add_alias(struct module *module, const char *key, int number, struct cb_err *err);
enum cb_status tuner_add_turned(struct module *module, const char *key, int number, struct cb_err *err);
/* For tuners: trained rows, under the key of <suffix>, that stand for some of a site's table; indices: a JSON list of their numbers. */
enum cb_status tuner_add_rows(struct module *module, const struct nn_site *site, const json_t *indices, const char *suffix,
                              const char *where, struct cb_err *err);
/* The table of the model's words; NULL: it has none. */
const struct nn_site *tuner_word_table(const struct nn *nn);
/* LoRA's trainable_token_indices: a list for the words' table, or an object of lists by the names of tables. */
enum cb_status tuner_token_rows(struct module *module, const struct nn *sites, const json_t *value, const char *where, struct cb_err *err);
/* The same rows at another site that reads the table, if there are any. */
enum cb_status tuner_tie_rows(struct module *module, const struct nn_site *site, struct cb_err *err);
/* Whether weight and bias act at one of the module's sites, in place of input and delta: the base's weight is then computed with as f32. */
bool tuner_is_by_weight(const struct module *module, const struct tuner_site *site);
/* The bias that a site adds, after all copies and definitions; NULL: none. */
struct cb_tensor *tuner_bias(const struct tuner_site *site, struct nn *nn);
/* "base_model.model.<site>.<suffix>", in the module's arena. */
const char *tuner_key(struct module *module, const struct tuner_site *site, const char *suffix, struct cb_err *err);
/* The site's weight in the store as f32, (out,in) of linear layers, else as it is stored. *weight: owned by caller, free(). */
enum cb_status tuner_base_weight(float **weight, const struct tuner_site *site, const struct store *store, struct cb_err *err);
/* The graph's leaf of the site's i-th parameter, in the order in which declare added them. */
struct cb_tensor *tuner_leaf(const struct module *module, const struct tuner_site *site, int i, struct nn *nn);
/* Its value: the leaf, or what `make` gives where that is its role, once a graph. */
struct cb_tensor *tuner_value(const struct module *module, const struct tuner_site *site, int i, struct nn *nn);
/* The site's own weight before any module, as `weight` has it. */
struct cb_tensor *tuner_base(const struct tuner_site *site, struct nn *nn);
/* A pattern that lives as long as the module. */
enum cb_status tuner_pattern(struct module *module, const struct pattern **pattern, const char *text, const char *where,
                             struct cb_err *err);

/* fields.c: reads lists of "FIELD=VALUE": all values that are known, and those that hold where none is told, into module->fields. */
#define TUNER_MAX_FIELDS 16
enum cb_status tuner_fields_parse(struct module *module, const char *where, const char *key, const char *default_key, struct cb_err *err);
/* Numbers of the i-th field's values: i32 (1) where all rows have one, else an input, i32 (B). */
struct cb_tensor *tuner_field_rows(const struct module *module, int i, struct nn *nn);

/* targets.c: reads target_modules, exclude_modules, layers_*, modules_to_save into module->targets. */
enum cb_status tuner_targets_parse(struct module *module, const char *where, struct cb_err *err);
enum cb_status tuner_targets_match(const struct module *module, const struct nn_site *site, bool *matches, struct cb_err *err);
/* The same by what is asked for alone, whether or not the tuner can change such a site. */
enum cb_status tuner_targets_name(const struct module *module, const struct nn_site *site, bool *matches, struct cb_err *err);
/* Whether a site is, or lies in, one of modules_to_save. */
bool tuner_targets_save(const struct tuner_targets *targets, const char *site);
/* Numbers for some sites, by patterns of their names: "layers.1.q_proj": 4. */
struct tuner_numbers {
    const json_t *object;  // NULL: none
    const struct pattern *const *keys;  // keys[i] belongs to the i-th key
    const char *name;  // the object's in the configuration
    const struct tuner_numbers *next;  // of the module
};
/* Reads such an object; its numbers lie in [low, high]. */
enum cb_status tuner_numbers_parse(struct module *module, struct tuner_numbers *numbers, const char *where, const char *key, double low,
                                   double high, bool whole, struct cb_err *err);
/* The number of the first key that fits the end of name; *value stays as it is where none fits. */
enum cb_status tuner_number(double *value, const struct tuner_numbers *numbers, const char *name, struct cb_err *err);
/* CB_E_NAME for a key that fits none of the module's sites: a name mistyped. */
enum cb_status tuner_numbers_check(const struct module *module, const char *where, struct cb_err *err);
#define TUNER_RANK_LIMIT 65536
#endif
