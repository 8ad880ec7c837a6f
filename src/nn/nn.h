/* A model being built into a graph: layers add nodes, record named sites, and let a hook change what a site gives.
   Shapes: B batch, T time, C channels, H heads, D head size, V vocabulary. */
#ifndef NN_NN_H
#define NN_NN_H
#include "graph/ir.h"

struct nn;

enum nn_kind {
    NN_LINEAR,
    NN_HEAD,
    NN_EMBEDDING,
    NN_NORM,
    NN_HIDDEN,
    NN_KEYS,
    NN_VALUES,
    NN_JOIN /* nn_join */,
    NN_EMBEDDED /* nn_embedded */,
    NN_INPUTS /* nn_inputs */,
    NN_KIND_COUNT
};
/* "linear", "head", ...; static storage. */
const char *nn_kind_name(enum nn_kind kind);

/* A named part of a fused projection's outputs: q is [begin, end). */
struct nn_slice {
    const char *name;
    int64_t begin, end;
};
#define NN_MAX_SLICES 4

/* A place that a module may change. name: the module path as in the Hugging Face checkpoint, "transformer.h.0.attn.c_attn". */
struct nn_site {
    const char *name;
    enum nn_kind kind;
    const char *role;  // what a linear layer or a join is in its block: see nn_linear, nn_join and nn_attention; NULL: nothing named
    int layer;  // -1: outside the layers
    int depth;  // the layer counted through all stacks
    int64_t in, out;  // features; embeddings: rows of the table, channels
    bool weight_is_in_out;  // Conv1D of GPT-2
    const char *weight, *bias;  // parameter names; NULL: none
    bool reads_tokens;  // an embedding of the tokens
    double rows_scale;  // of such: by what the embedding's own module multiplies its rows in other libraries; 0: 1
    bool some_rows;  // an expert's: of x and y only the rows of nn->group are its own, see nn_product
    int n_slices;
    struct nn_slice slice[NN_MAX_SLICES];
};

/* One layer of a head that a module brings: y = act(W x + b) of drop(x), or a layer norm. Names are of parameters. */
struct nn_head_layer {
    const char *name, *weight, *bias;  // bias NULL: none
    const char *activation;  // NULL: none
    int64_t in, out;
    double dropout, eps;  // eps > 0: a norm
};
/* A head in place of the model's own, by the words of the adapters library. */
struct nn_head {
    const char
        *type;  // "classification", "multilabel_classification", "tagging", "question_answering", "multiple_choice", "causal_lm", ...
    int64_t n_labels;  // of all types but language models and spans: labels or choices; the vocabulary of language models
    bool use_pooler;  // the first row as the model's own pooler gives it
    bool shifts_labels;  // row t learns label t + 1
    int n;
    const struct nn_head_layer *layer;
};

/* Rows of the batch that have a head of their own. */
struct nn_head_part {
    const char *name;  // of the module that they go through
    const struct nn_head *head;  // NULL: the model's own
    int64_t rows;
};

struct nn_join;
struct nn_prefixed;
/* What a module does to a model while it is built. All functions are nullable. */
struct nn_hook {
    void *user;
    /* Called for each linear layer and head with its input; returns the new input, or x. */
    struct cb_tensor *(*input)(void *user, struct nn *nn, const char *site, struct cb_tensor *x);
    /* Called once a site with its input x and output y (embeddings: x holds ids); returns the new y, or y itself to leave it. */
    struct cb_tensor *(*site)(void *user, struct nn *nn, const struct nn_site *site, struct cb_tensor *x, struct cb_tensor *y);
    /* Called for each parameter that a site reads: field is "weight" or "bias", p the model's own leaf. Returns what to use in its place, or p. */
    struct cb_tensor *(*param)(void *user, struct nn *nn, const char *site, const char *field, struct cb_tensor *p);
    /* Called where y joins the residual stream; returns the new stream, norm included, or NULL for nn_join_plain. */
    struct cb_tensor *(*join)(void *user, struct nn *nn, const struct nn_site *site, const struct nn_join *join, struct cb_tensor *y);
    /* Virtual tokens: n_rows rows before the embeddings of the tokens, (n_rows,channels) or (B,n_rows,channels). */
    struct cb_tensor *(*rows)(void *user, struct nn *nn, const struct nn_site *site);
    int64_t n_rows;
    /* n_late more come after the embeddings with their positions and norm, where nn_inputs stands, before row rows_at: positions leave them out. */
    int64_t n_late, rows_at;
    bool late_see_padding;  // the first n_late rows see padding too
    /* Prefixes: rows (1 or B,n,heads,head_dim) before the keys or values of a site, which every query sees; NULL: none. n_past: positions that they
       count as, at which the tokens (of an encoder-decoder the decoder's) then begin. */
    struct cb_tensor *(*before)(void *user, struct nn *nn, const struct nn_site *site, const struct nn_prefixed *attention);
    int64_t n_past;
    /* What is added to the scores of a prefix's keys, (1 or B,1,1,n); NULL: nothing. */
    struct cb_tensor *(*hidden)(void *user, struct nn *nn, const struct nn_site *site, const struct nn_prefixed *attention);
    /* In training: a model's loss with what modules add to it. */
    struct cb_tensor *(*loss)(void *user, struct nn *nn, struct cb_tensor *loss);
    const struct nn_head *head;  // NULL: the model's own
    /* Heads of parts of a batch of so many rows, one after the other; returns their number. 0: `head` serves all rows. */
    int (*heads)(void *user, struct nn *nn, int64_t batch, const struct nn_head_part **parts);
    /* The body is built twice: what is made of the first one's last hidden states x, which nn->survey then is. */
    struct cb_tensor *(*survey)(void *user, struct nn *nn, struct cb_tensor *x);
    bool reads_padding;  // rows of padding count in what it does: they see the keys before them, as in Transformers
};

struct nn {
    struct cb_graph *g;
    struct nn_hook hook;
    const char *model_type, *model_class;  // of config.json: "bert", "BertForMaskedLM"; NULL: unknown
    const char *prefix;  // of the body's sites: "bert."
    const char *file_prefix;  // that they have in the model's files, "" where the body stands alone; NULL: prefix
    int64_t width;  // of the residual stream
    int64_t n_layer, n_head, n_kv_head;  // of two stacks the decoder's
    const char *task;  // of the model's head, as PEFT names it: "CAUSAL_LM"; NULL: PEFT has none for it (masked language models)
    double head_dropout, norm_eps;  // of a head that a module brings, where it does not say
    struct cb_tensor *start;  // i32 (B): positions before these rows; NULL: no cache is read
    struct cb_tensor *mask;  // i32 (B,T): 1 token, 0 padding; NULL: all are tokens, or a cache is read
    /* Type that a weight is stored in; NULL: f32. */
    enum cb_dtype (*param_dtype)(void *user, const char *name);
    /* Whether a linear layer's weight is stored as its transpose; NULL: none is. */
    bool (*param_turned)(void *user, const char *name);
    void *dtype_user;
    const struct cb_tensor *token_ids;  // the ids of the tokens, after those of n_rows virtual ones; NULL: none yet
    int64_t n_rows, n_late;  // all; those of nn_inputs among them
    double rows_scale;  // see nn_site
    bool train;  // dropout is on
    struct cb_tensor *seed;  // i64 (1), made at its first use: input "seed"
    struct cb_tensor *survey;  // see hook.survey; NULL: none, or not yet
    int layer;  // of the sites now being made; -1 outside
    int layers_before;  // in the stacks before: of a decoder, the encoder's
    struct cb_tensor *group_ends;  // of op_group_rows, while sites of experts are made; else NULL
    int64_t group;  // the expert's number
    const struct nn_site **sites;  // in order of building, in the graph's arena
    int n_sites, sites_size;
    int *site_slots;  // of a hash table over the names, 2 * sites_size of them: number of a site + 1; 0: empty
    uint64_t n_dropouts;  // keys of the dropouts so far
    struct nn_memo *memo;  // of nn_keep, the last first
};

/* A builder over g, which it borrows; no hook, f32 parameters, no dropout. */
struct nn nn_make(struct cb_graph *g);
/* "a.b" from a format, in the graph's arena; "" and a sticky failure where memory is short. */
const char *nn_name(struct nn *nn, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The parameter leaf of a name, in the type that param_dtype says. */
struct cb_tensor *nn_param(struct nn *nn, const char *name, int rank, const int64_t *dim);
/* As nn_param for a field of a site, through the hook; plain_f32: cast to f32 if it is stored otherwise. */
struct cb_tensor *nn_site_param(struct nn *nn, const char *site, const char *field, const char *name, int rank, const int64_t *dim,
                                bool plain_f32);
/* Records a copy of site, once; the record. NULL: memory is short, the failure sticks to the graph. */
const struct nn_site *nn_record(struct nn *nn, const struct nn_site *site);
/* Records the site and passes y through the hook. */
struct cb_tensor *nn_site(struct nn *nn, const struct nn_site *site, struct cb_tensor *x, struct cb_tensor *y);
/* Keeps a tensor that hooks made under a name, which must outlive the graph, and gives it back; nn_kept finds it, NULL: none. */
struct cb_tensor *nn_keep(struct nn *nn, const char *name, struct cb_tensor *x);
struct cb_tensor *nn_kept(const struct nn *nn, const char *name);
/* NULL where there is none. */
const struct nn_site *nn_find_site(const struct nn *nn, const char *name);

/* layers.c */
struct nn_linear {
    const char *name;
    enum nn_kind kind;  // NN_LINEAR or NN_HEAD
    int64_t in, out;
    bool weight_is_in_out, bias;
    const char *role;  // "q", "k", "v", "o", "up", "gate", "down"; "qkv" and "gate_up" where they are one; NULL: nothing of these
    const char *weight;  // NULL: "<name>.weight"; else the tied parameter
    double softcap;  // of what it gives (heads), after the hook; 0: none
    const char *bias_name;  // NULL: "<name>.bias"
    int n_slices;
    struct nn_slice slice[NN_MAX_SLICES];
};
/* y (...,out) of x (...,in). */
struct cb_tensor *nn_linear(struct nn *nn, struct cb_tensor *x, const struct nn_linear *linear);
/* acc + x (...,in) times a weight (out,in), for changes of a site's output; acc nullable: 0. Where the site has some rows only, the others keep acc. */
struct cb_tensor *nn_product(struct nn *nn, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *acc);
/* ids i32 (...) -> f32 (...,channels). */
struct cb_tensor *nn_embedding(struct nn *nn, struct cb_tensor *ids, const char *name, int64_t rows, int64_t channels);
/* The row of padding_idx learns nothing; negative: none. */
struct cb_tensor *nn_embedding_padded(struct nn *nn, struct cb_tensor *ids, const char *name, int64_t rows, int64_t channels,
                                      int64_t padding_idx);
struct cb_tensor *nn_layer_norm(struct nn *nn, struct cb_tensor *x, const char *name, double eps);
struct cb_tensor *nn_layer_norm_unbiased(struct nn *nn, struct cb_tensor *x, const char *name, double eps);
struct cb_tensor *nn_rms_norm(struct nn *nn, struct cb_tensor *x, const char *name, double eps);
/* By offset + weight. */
struct cb_tensor *nn_rms_norm_offset(struct nn *nn, struct cb_tensor *x, const char *name, double eps, double offset);
/* What the embeddings give, a site of kind NN_INPUTS: late virtual tokens join it. */
struct cb_tensor *nn_inputs(struct nn *nn, struct cb_tensor *x, const char *name);
/* The residual stream between blocks, a site of kind NN_HIDDEN. */
struct cb_tensor *nn_hidden(struct nn *nn, struct cb_tensor *x, const char *name);
/* What the blocks are given, a site of kind NN_EMBEDDED. */
struct cb_tensor *nn_embedded(struct nn *nn, struct cb_tensor *x, const char *name);
/* Where the output y (B,T,C) of a part of a block joins the residual stream: norm(residual + y). A site of kind NN_JOIN. */
struct nn_join {
    const char *name;  // where the adapters library keeps what it adds there: "transformer.h.0.attention_adapters"
    const char *role;  // "attention", "cross_attention", "feed_forward"
    struct cb_tensor *residual;
    const char *norm;  // a layer norm after the sum; NULL: none
    bool norm_has_no_weights;
    double eps;
};
struct cb_tensor *nn_join(struct nn *nn, struct cb_tensor *y, const struct nn_join *join);
/* The same without a hook; and its norm alone: x where there is none. */
struct cb_tensor *nn_join_plain(struct nn *nn, struct cb_tensor *y, const struct nn_join *join);
struct cb_tensor *nn_join_norm(struct nn *nn, struct cb_tensor *x, const struct nn_join *join);
/* Dropout where nn->train and rate > 0; keyed by the order of the calls. */
struct cb_tensor *nn_dropout(struct nn *nn, struct cb_tensor *x, double rate);
/* Input "seed", made at its first use. */
struct cb_tensor *nn_seed(struct nn *nn);
/* Whether `name` is an activation of Transformers ("gelu_new", "silu", ...). */
bool nn_is_activation(const char *name);
struct cb_tensor *nn_activation(struct nn *nn, const char *name, struct cb_tensor *x);
/* cap tanh(x / cap); cap 0: x. */
struct cb_tensor *nn_softcap(struct nn *nn, struct cb_tensor *x, double cap);
/* Mean cross-entropy of a head over rows x (N,C), labels i32 (N), -100 ignored. The logits are never held, unless a hook changes the head. */
struct cb_tensor *nn_head_loss(struct nn *nn, struct cb_tensor *x, const struct nn_linear *head, struct cb_tensor *labels);

/* attention.c */
struct nn_attention {
    const char *name;  // path of the attention block
    const char *role;  // whose attention in a model of two stacks: "encoder", "decoder", "cross"; NULL: of one
    struct cb_tensor *input;  // (B,T,C) that the queries are made of; nn_heads sets it
    double scale;  // of q.k; 0: 1/sqrt(D)
    double softcap;  // 0: none; else scores are softcap tanh(score / softcap)
    int64_t window;  // 0: none
    bool bidirectional;  // queries see the keys after them too
    struct cb_tensor *bias;  // f32, broadcast to (B,H,Tq,Tk), added to the scores, 0 for a prefix that it has no columns for; NULL: none
    struct cb_tensor *q_segment, *k_segment;  // i32 (B,T) and (B,Tk): visible where equal; NULL: all
    int64_t cache;  // capacity of the key-value cache; 0: none
    struct cb_tensor *start;  // i32 (B): rows already in the cache; with cache only
    double dropout;  // of the attention weights, in training
};
/* What a prefix is for. */
struct nn_prefixed {
    struct cb_tensor *input;  // (B,T,C) that the queries are made of; NULL: unknown
    int64_t heads, head_dim;  // of keys and values
    bool is_cached;  // the pass holds a part of the sequence
};
struct nn_prefix {
    struct cb_tensor *k, *v;  // (B,n,Hkv,D)
    struct cb_tensor *hidden;  // f32 over their scores, added to these; NULL: none
    int64_t n;  // 0: there is none
};
struct nn_attention;
/* The sites of keys and values (B,Tk,Hkv,D): their new forms, and what a hook puts before them. false: the graph has failed. */
bool nn_prefix(struct nn *nn, struct cb_tensor **k, struct cb_tensor **v, const struct nn_attention *options, struct nn_prefix *prefix);
/* score (B,H,Tq,Tk) where a query sees a key by their segments, as in op_attention, else -1e30. */
struct cb_tensor *nn_hide(struct nn *nn, struct cb_tensor *score, struct cb_tensor *q_segment, struct cb_tensor *k_segment);
/* Attention: y (B,T,H,D) of q (B,T,H,D), k and v (B,Tk,Hkv,D); causal unless bidirectional. With a cache, params and outputs "cache.<layer>.k" and ".v" (B,cache,Hkv,D)
   are written at start and read; a prefix stands before what start counts, in rows more. */
struct cb_tensor *nn_attention(struct nn *nn, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                               const struct nn_attention *options);
/* Queries, keys and values (B,T,H,D) of a projection x (B,T,H 3 D) that holds them head by head. */
void nn_split_heads(struct nn *nn, struct cb_tensor *x, int64_t heads, struct cb_tensor *qkv[3]);

/* rows.c: chosen rows (B,C) of x (B,T,C); rows: i32 (B), their numbers among all B T. What made x row by row is built again for them alone: of a last
   layer behind its attention nothing else is then computed, unless something else reads it. */
struct cb_tensor *nn_rows(struct nn *nn, struct cb_tensor *x, struct cb_tensor *rows);

/* moe.c: a mixture of experts (Shazeer et al. 2017), each a gated MLP; a token goes to the top_k experts that its router scores highest. */
struct nn_moe {
    const char *name;  // path of the block
    const char *gate, *up, *down;  // an expert's projections; the router is "<name>.gate", expert e "<name>.experts.<e>"
    int64_t channels, inner, n_experts, top_k;
    bool normalised;  // the chosen experts' weights are made to sum to 1
    const char *activation;
    double jitter;  // in training the input is multiplied by 1 - jitter to 1 + jitter; 0: not
};
struct nn_moe_routes {
    struct cb_tensor *logits, *weights;  // f32 (N,n_experts), N rows; weights: their softmax
    struct cb_tensor *chosen;  // i32 (N,top_k)
};
/* y (...,C) of x (...,C). routes: nullable. */
struct cb_tensor *nn_moe(struct nn *nn, struct cb_tensor *x, const struct nn_moe *moe, struct nn_moe_routes *routes);
#endif
