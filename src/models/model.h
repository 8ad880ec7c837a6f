/* Models: an immutable description (family, options, weights by name) that is read from and written to the Hugging Face layout and built into graphs.
   Shapes: B batch, T time, C channels, V vocabulary. */
#ifndef MODELS_MODEL_H
#define MODELS_MODEL_H
#include "base/json.h"
#include "nn/nn.h"
#include "store/store.h"

struct model;
struct model_io;
struct model_leaves;

enum model_init { MODEL_NORMAL, MODEL_ZEROS, MODEL_ONES };

/* One weight: its name in the checkpoint, shape, fresh state and whether weight decay is for it. */
struct model_weight {
    const char *name;
    struct cb_type type;  // f32
    enum model_init init;
    double std;  // of MODEL_NORMAL
    bool decay;
    bool is_buffer;  // kept and written, never trained; zeros where a file lacks it
    bool is_optional;  // a file holds all of these or none; none: the model goes on without them
    const char *file_name;  // that it has in files; NULL: name
};

/* The last part of a model: from the features of its class to outputs and a loss (heads.c, or a family's own file). */
struct model_head {
    const char *name;  // "causal_lm": what `cambium list models` says
    const char *const *labels;  // inputs that a loss wants, NULL-ended
    const char *task;  // task_type of an adapter_config.json that PEFT reads with it; NULL: PEFT has no class for it
    bool generates;  // rows give the next token
    bool learns_text;  // labels (B,T), one a token
    bool masks;  // it learns tokens that are hidden from it
    bool shifts_labels;  // an encoder-decoder's decoder reads the labels, shifted by one, where it is given no ids
    bool reads_padding;  // its softmax runs over the rows of padding too: they see the keys before them, as in Transformers
    bool has_labels;  // n_labels is read from id2label or num_labels
    /* Adds its weights. Nullable: none but the linear layer's (model_head_weights). */
    enum cb_status (*weights)(struct model *model, struct cb_err *err);
    /* Adds what io wants: outputs, io->logits, io->loss. x: the features. */
    void (*build)(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x);
};

/* A class as "architectures" names it: a body, what it makes of its last states, and a head. Families list rows of their own and shared ones. */
struct model_class {
    const char *name;  // what follows the family's title, "ForSequenceClassification"; in struct model the whole name
    const struct model_head *head;
    const char *linear;  // the head's linear layer, "classifier"; language models: NULL is lm_head
    const char *bias;  // name of that layer's bias, NULL: "<linear>.bias", "": none
    const char *prefix;  // that the body's weights have in its files in place of the family's; NULL: the family's
    /* Between body and head; both nullable. weights may set model->n_features, which is n_embd. */
    enum cb_status (*weights)(struct model *model, struct cb_err *err);
    struct cb_tensor *(*features)(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                  struct cb_tensor *x);
};

/* A model family; the registry lists the files model_<name>.c, each of which defines `model_<name>`. */
struct family {
    const char *name;  // "gpt2": also model_type of what is written
    const char *doc;  // one sentence
    const char *const *model_types;  // of config.json; NULL-ended
    const char *title;  // that the names of its classes begin with, "Bert"
    const struct model_class *const *classes;  // the first is meant where a file names none; NULL-ended
    const char *prefix;  // of the body's weights, "transformer."; may be absent in files
    const char *const
        *ignored;  // what files hold besides and may be left out: endings of names (".attn.bias"), or beginnings ("pooler."); NULL-ended
    /* The first row as the body's pooler gives it, (B,C); NULL: it has none. */
    struct cb_tensor *(*pooler)(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                struct cb_tensor *x);
    bool bidirectional;  // rows see the rows after them: padding hides keys alone, not queries
    bool encoder_decoder;  // the body reads decoder_ids beside ids
    /* Ids (B,Td) of a decoder that is to give labels (B,Td), in which -100 has become padding. NULL: decoder_start, then all but the last. */
    struct cb_tensor *(*shift)(const struct model *model, struct cb_graph *g, struct cb_tensor *labels);
    const char *defaults;  // config.json of a new model, as JSON text
    const char *tiny;  // a small one for the generic tests
    size_t options_bytes;  // of model->options
    /* Reads model->config into model->options and the common fields; every number is bounded here. name: of the file, for messages. */
    enum cb_status (*parse)(struct model *model, const char *name, struct cb_err *err);
    /* Lists the body's weights through model_add_weight. */
    enum cb_status (*weights)(struct model *model, struct cb_err *err);
    /* Adds the body: returns the final hidden states (B,T,C). */
    struct cb_tensor *(*body)(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves);
};
/* All families in the order of their names; *n their count. */
const struct family *const *model_families(int *n);
/* By name or model_type; NULL where unknown. */
const struct family *model_family(const char *name);

/* What the labels of a sequence are: classes, numbers, or several classes at once. */
enum model_problem { MODEL_PROBLEM_BY_LABELS, MODEL_REGRESSION, MODEL_SINGLE_LABEL, MODEL_MULTI_LABEL };
#define MODEL_MAX_EOS 16
#define MODEL_CLASS_NAME 128

struct model {
    const struct family *family;
    const void *options;  // struct <family>_options
    json_t *config;  // all of config.json, unknown keys included
    json_t *generation;  // generation_config.json; NULL: none
    struct arena *arena;
    const struct model_class *class;  // with its whole name
    int64_t n_labels;  // heads with labels
    enum model_problem problem;
    int64_t n_features;  // that the head takes
    bool head_has_no_bias;  // whatever its class says
    int64_t n_layer, n_embd, n_head, n_kv_head, head_dim, vocab, max_positions;
    int64_t position_offset;  // of explicit position_ids: they begin here (RoBERTa)
    int64_t n_types;  // of token_type_ids; 0: none
    int64_t eos[MODEL_MAX_EOS];
    int n_eos;
    int64_t bos, pad;  // -1: none
    int64_t decoder_start, forced_bos;  // what a decoder begins with, and its first token; -1: none
    bool tied;  // the head is the embedding
    bool learned_positions;  // max_positions is a bound
    const char *embedding;  // name of the embedding's weight
    const char *logits_bias;  // a stored buffer (1,V) added to the logits; NULL: none
    double init_std;
    double rows_scale;  // by what the embedding's own module multiplies its rows, which virtual tokens are not; 0: 1
    double logit_softcap;  // of a language head: logits are softcap tanh(logit / softcap); 0: none
    // Positions up to which cached decoding equals whole passes; beyond it a graph per length is wanted (dynamic rope), or, with exact_again (LongRoPE), a
    // cache of more positions that everything is read into again.
    int64_t exact_cache;
    bool exact_again;
    struct model_weight *weights;
    const struct model_weight **by_name;  // sorted
    int n_weights, weights_size;
    struct model_alias {
        const char *alias, *name;
    } * aliases;  // other names that files have for a shared weight
    int n_aliases, aliases_size;
    const char *repeated;  // an entry that is written beside the weights, a tied head under its own name; NULL: none
};

/* From a config.json object, to which a reference is taken. name: for messages. Owned by caller, free with model_destroy. */
enum cb_status model_from_config(struct model **model, json_t *config, const char *name, struct cb_err *err);
/* From a config.json file: checks everything that can be checked without the weights. */
enum cb_status model_check_config(struct model **model, const char *path, struct cb_err *err);
void model_destroy(struct model **model);
/* The defaults of a family with changes "n_embd=384,n_layer=6" (values are JSON, else text; unknown keys are CB_E_NAME). Nullable: changes.
   *config: owned by caller, free with json_decref. */
enum cb_status model_default_config(json_t **config, const struct family *family, const char *changes, struct cb_err *err);

/* heads.c: the family's classes, then, of one whose rows see those before them, heads that others have and it has not; NULL after the last. */
const struct model_class *model_class_at(const struct family *family, int i);
/* Whether a class is of the name ("ForQuestionAnswering"), alone or behind the family's own words. */
bool model_class_is(const struct model_class *class, const char *name);
/* "BertForMaskedLM"; false where that is too long. */
bool model_class_name(char name[MODEL_CLASS_NAME], const struct family *family, const struct model_class *class);

/* NULL where there is none. */
const struct model_weight *model_find_weight(const struct model *model, const char *name);
/* Number of parameters; a tied one counts once. */
int64_t model_parameters(const struct model *model);
/* For families: one more row of the table, its name from a format. */
enum cb_status model_add_weight(struct model *model, struct cb_err *err, enum model_init init, double std, int rank, const int64_t *dim,
                                const char *format, ...) __attribute__((format(printf, 7, 8)));
/* Weight (out,in) and bias of "<path>.<name>"; path may be "". */
enum cb_status model_add_linear(struct model *model, int64_t in, int64_t out, bool bias, const char *path, const char *name,
                                struct cb_err *err);
/* Weight and bias (n) of a norm. */
enum cb_status model_add_norm(struct model *model, int64_t n, bool bias, const char *path, const char *name, struct cb_err *err);
/* A row of the table that holds no parameter. */
enum cb_status model_add_buffer(struct model *model, struct cb_err *err, int rank, const int64_t *dim, const char *name);
/* The last n rows become optional; whoever knows that there are none leaves them out, before anything reads the table. */
void model_make_optional(struct model *model, int n);
void model_drop_optional(struct model *model);
enum cb_status model_add_alias(struct model *model, const char *alias, const char *name, struct cb_err *err);
/* The name in this model of a tensor of a file ("h.0.ln_1.weight" -> "transformer.h.0.ln_1.weight"); NULL: none of its weights. *ignored: whether it may
   be left out: a buffer, another head's weight, or (with a name) an alias of a weight that stands for it only where that is missing. */
const char *model_weight_name(const struct model *model, const char *name, bool *ignored);

/* load.c: reads config.json, generation_config.json and the weights of a folder; the entries, mapped, get the weights' names. Missing, unexpected and
   wrong-shaped tensors are one CB_E_FORMAT that lists them. */
enum cb_status model_load(struct model **model, struct store *store, const char *folder, struct cb_err *err);

/* replicate.c: n layers, layer i with the weights of layer source[i], in place of the model's own; *model is another one then, its entries in the store
   have the new names. A layer that stands several times becomes as many copies once it is changed. */
enum cb_status model_replicate(struct model **model, struct store *store, const int *source, int n, struct cb_err *err);
/* made, of another configuration, in the model's place, with what was read beside that. Takes ownership. */
void model_replace(struct model **model, struct model *made);
/* untie.c: a head that shares the embedding's table gets its own, a copy; *model is another one then. Nothing where it shares none. */
enum cb_status model_untie(struct model **model, struct store *store, struct cb_err *err);

/* The head that is wanted where the file's class is the one wanted. */
enum model_head_wanted {
    MODEL_HEAD_FILE,  // the file's, whose labels must be the same
    MODEL_HEAD_FITTING,  // the file's where its labels are the same, else a fresh one
    MODEL_HEAD_FRESH,
};
/* Another head than the file's own. */
struct model_as {
    enum model_head_wanted head;
    const char *class;  // "ForSequenceClassification"
    const char *const *labels;  // their names; n_labels of them
    int n_labels;
    enum model_problem problem;  // of sequences
    int64_t pad;  // pad_token_id where the file has none; -1: none
    uint64_t seed;
};
/* As model_load, as the family's class of that name. Where that is the file's own and its head is wanted, the head is read as well. Otherwise weights that the
   file's class lacks, or whose shape the labels or the class decide, are fresh, f32, and their entries are marked trainable; those of its own head are left
   out. */
enum cb_status model_load_as(struct model **model, struct store *store, const char *folder, const struct model_as *as, struct cb_err *err);
/* Adds one weight as f32, filled from (seed, name) by its init. */
enum cb_status model_init_weight(const struct model_weight *weight, struct store *store, uint64_t seed, struct cb_err *err);

/* The description alone, of a folder or a .gguf file. */
enum cb_status model_describe(struct model **model, const char *path, struct cb_err *err);

/* The name under which a weight is written: a body alone lacks its prefix. Borrowed from both. */
const char *model_file_name(const struct model *model, const char *weight);

/* save.c: config.json, generation_config.json where there is one, and model.safetensors (or shards of at most shard_bytes; 0: one file) as Transformers
   writes them: a tied head is left out. dtype: CB_DTYPE_COUNT keeps the entries' types. Loading and saving again gives the same bytes. */
enum cb_status model_save(const struct model *model, const struct store *store, const char *folder, int64_t shard_bytes,
                          enum cb_dtype dtype, struct cb_err *err);

/* Adds every weight as f32, filled from (seed, name) by its init. */
enum cb_status model_init_weights(const struct model *model, struct store *store, uint64_t seed, struct cb_err *err);

/* What an input of indices may hold: [low, high), and -100 where ignore. */
struct model_range {
    const char *name;
    int64_t low, high;
    bool ignore;
};
#define MODEL_MAX_RANGES 16

/* What a graph of the model takes and gives. Leaves are named as in Transformers, but i32: input_ids (B,T), attention_mask (B,T), position_ids (B,T),
   labels as the head wants them. */
struct model_io {
    int64_t batch, tokens;  // B, T
    bool want_logits, want_loss;  // outputs "logits" and "loss"
    bool want_hidden;  // outputs "hidden.0" .. "hidden.N", "final"
    bool attention_mask;  // input: 1 token, 0 padding; with a cache (B,cache), over all positions
    bool token_types;  // input token_type_ids; else all are 0
    bool position_ids;  // input; else 0,1,2,... (with a cache: from start)
    bool segments;  // input "segments" (B,T): packed documents see themselves only; without a cache
    bool labels_shifted;  // causal models: labels[t] is the target of row t; else, as in Transformers, of row t-1
    bool float_labels;  // of a sequence: (B,labels) probabilities where the configuration leaves the problem open
    int64_t choices;  // rows of the batch that are one question's candidates; 0: 1
    bool choice_mask;  // input choice_mask (B / choices,choices): 1 a candidate, 0 a row that is none
    bool last_only;  // logits (B,V) of one row each, chosen by input "last" (B): the token's number
    int64_t cache;  // capacity of the key-value cache; 0: none. Adds input "start" (B), params and outputs cache.<layer>.k and .v
    /* Virtual tokens of a hook stand before the T tokens: outputs have n + T rows, labels and answers are those of the tokens. With a cache they are n of
       its rows, which start counts: one graph, at start 0, writes them before its tokens; in those that go on from there no_rows leaves them out. */
    bool no_rows;
    /* Encoder-decoders: ids of the decoder (B,Td) are input decoder_input_ids, or made of labels or input_ids. Outputs "encoder.hidden.N",
       "decoder.hidden.N" and "encoder_last_hidden_state". */
    int64_t decoder_tokens;  // Td; 0: T
    bool decoder_ids;  // input decoder_input_ids; set by model_build where it is wanted
    bool decoder_mask;  // input decoder_attention_mask (B,Td)
    /* Generation reads the source once: with memory, the room for it in caches cache.<layer>.cross_k and .cross_v, and decoder_tokens 0 a graph
       reads input_ids and writes them; with decoder_tokens and cache too it continues, attention_mask (B,memory) saying what of the caches is read. */
    int64_t memory;
    struct cb_tensor *logits, *loss;  // made by model_build; NULL where not wanted
    /* While a part of the batch has its head made: its first row of all_rows, and what its outputs' names end in. all_rows 0: batch is all. */
    int64_t first_row, all_rows;
    const char *part;
    bool has_parts;  // set by model_build: outputs are named by parts
    struct cb_tensor *extra_loss;  // a body's own, added to the head's; NULL: none
    bool head_loss_only;  // extra_loss is left out: evaluation
    struct model_range ranges[MODEL_MAX_RANGES];  // of the graph's inputs, made by model_build
    int n_ranges;
};

/* The inputs of a body, made by model_build. */
struct model_leaves {
    struct cb_tensor *ids, *positions;  // (B,T); (B,T) or (T). T counts virtual tokens too, whose ids mean nothing but are not padding
    struct cb_tensor *mask;  // (B,T): 1 token, 0 padding; NULL: all tokens, or a cache
    struct cb_tensor *sight;  // f32 (B,1,T,T), 0 or -1e30: what rows see, where segments cannot say it; NULL: by segments
    struct cb_tensor *types;  // (B,T) or, all 0, (1,T)
    struct cb_tensor *q_segment, *k_segment;  // NULL: one
    struct cb_tensor *start;  // with a cache only
    int64_t past;  // positions before the first row: those of prefixes
    int64_t length;  // positions that may occur: past and T, or the cache's capacity
    // of encoder-decoders; those above are the encoder's, but start
    struct cb_tensor *decoder_ids, *decoder_positions;  // NULL: the encoder alone
    struct cb_tensor *decoder_q_segment, *decoder_k_segment;
    struct cb_tensor *memory_q_segment, *memory_k_segment;
    int64_t decoder_past, decoder_length;
};
/* build.c: adds the whole model and its outputs to nn->g; failures are sticky in the graph and returned. */
enum cb_status model_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_err *err);
/* An output of a head: "<name>", of a part of the batch "<name>.<part>". */
void model_head_output(struct nn *nn, const struct model_io *io, struct cb_tensor *y, const char *name);
/* A head's input of the batch's rows, of which a part has its own. */
struct cb_tensor *model_rows_input(struct nn *nn, const struct model_io *io, const char *name, struct cb_type type);
/* An i32 input whose values are to be in [low, high). */
struct cb_tensor *model_input(struct nn *nn, struct model_io *io, const char *name, int rank, const int64_t *dim, int64_t low, int64_t high,
                              bool ignore);
/* Labels of so many rows, virtual tokens among them: (B,rows) of -100 for these, then input "labels" in [0, high) or -100. */
struct cb_tensor *model_labels(struct nn *nn, struct model_io *io, int64_t rows, int64_t high);
/* Rows of tokens at (B) among all rows. */
struct cb_tensor *model_token_places(struct nn *nn, struct cb_tensor *at);
/* x (B,n + T,...) without the rows of virtual tokens. */
struct cb_tensor *model_token_rows(struct nn *nn, struct cb_tensor *x);
/* i32 (n): begin, begin + step, ... */
struct cb_tensor *model_counting(struct cb_graph *g, int64_t n, int64_t begin, int64_t step);
/* Hidden states of a stack, "encoder." or "decoder.": as model_hidden below. */
struct cb_tensor *model_hidden_of(struct nn *nn, const struct model_io *io, const char *stack, struct cb_tensor *x, int n,
                                  const char *site);
/* Marks hidden.0 as an output where wanted, and as the site "<prefix>invertible_adapters" of what the blocks are given. */
struct cb_tensor *model_embedded(struct nn *nn, const struct model_io *io, struct cb_tensor *x);
/* x + y as an nn_join of block: y is its "attention", "cross_attention" or "feed_forward". */
struct cb_tensor *model_join(struct nn *nn, struct cb_tensor *x, struct cb_tensor *y, const char *block, const char *role);
/* "<block>.attention_adapters", "<block>.output_adapters", ...: a join's name where the library has none of its own. */
const char *model_join_name(struct nn *nn, const char *block, const char *role);
/* Marks hidden.<n> as an output where wanted, and as a hidden site of the given name; returns the state to go on with. */
struct cb_tensor *model_hidden(struct nn *nn, const struct model_io *io, struct cb_tensor *x, int n, const char *site);

/* heads.c: those that families share. x is (B,T,C) unless said otherwise. */
extern const struct model_head model_head_causal_lm;  // lm_head, tied where the model is; the next token
extern const struct model_head model_head_masked_lm;  // the same weights, each row's own token
extern const struct model_head model_head_seq2seq;  // of a decoder's rows (B,Td,C), each its own token
extern const struct model_head model_head_sequence;  // (B,C): regression, one label of many, several labels
extern const struct model_head model_head_tokens;  // a label a token
extern const struct model_head model_head_span;  // start_logits, end_logits
extern const struct model_head model_head_states;  // the last states themselves
extern const struct model_head model_head_choice;  // (B,C): one of io->choices neighbouring rows
/* Losses of logits; what labels are is in the heads of the same names. */
void model_sequence_loss(struct nn *nn, struct model_io *io, int64_t n_labels, enum model_problem problem);
void model_tokens_loss(struct nn *nn, struct model_io *io, int64_t n_labels, struct cb_tensor *mask);  // nullable: mask
void model_span_outputs(struct nn *nn, struct model_io *io, struct cb_tensor *scores);  // (B,T,2)
void model_choice_outputs(struct nn *nn, struct model_io *io, struct cb_tensor *scores, int64_t choices);  // (B,1)
void model_vocabulary_loss(struct nn *nn, struct model_io *io, int64_t vocab, int64_t shift);  // row t learns label t + shift
/* Row last[b] of x (B,T,C), last being an input (B): (B,C). */
struct cb_tensor *model_rows_pick(struct nn *nn, struct model_io *io, struct cb_tensor *x);
/* head_given.c: nn->hook.head in place of the class's own; x: the last states. */
void model_head_given(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                      struct cb_tensor *x);
/* Weight and bias of the class's linear layer, from n_features to out. */
enum cb_status model_head_weights(struct model *model, int64_t out, struct cb_err *err);
struct nn_linear model_head_linear(const struct model *model, int64_t out);
/* Features for model_class: the last row that is not padding (without a pad id the last; nothing but padding: the first), as decoders' classifiers read it: (B,C). */
struct cb_tensor *model_features_last(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                      struct cb_tensor *x);
/* The first row: (B,C). */
struct cb_tensor *model_features_first(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                       struct cb_tensor *x);

/* Rows that many families list as they are. */
extern const struct model_class model_class_causal_lm;  // ForCausalLM: lm_head without bias
extern const struct model_class model_class_last;  // ForSequenceClassification: score over the last row that is no padding
extern const struct model_class model_class_tokens, model_class_scores;  // ForTokenClassification: classifier, score
extern const struct model_class model_class_span;  // ForQuestionAnswering: qa_outputs
extern const struct model_class model_class_span_old;  // the same, its body "transformer."
extern const struct model_class model_class_states;  // Model: the body alone
#endif
