/* Cambium: pretrain a model once, graft small trained modules onto it, use both. The stable interface: opaque handles, option structs.
   Every option struct is zero-initialised by the caller; zero (NULL, false) means the documented default. Strings are UTF-8. Paths and strings in
   options are borrowed for the call. Functions return CB_OK or the code of the first failure, described in *err. */
#ifndef CAMBIUM_CAMBIUM_H
#define CAMBIUM_CAMBIUM_H
#include <cambium/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- engine: threads, device, kernels. One per process is usual; calls on one engine must not overlap. */
struct cb_engine;

/* What a long call tells its caller, for a progress line. Unknown numbers are negative. */
struct cb_progress {
    const char *verb; /* "train", "tokenize", ... */
    int64_t done, total; /* steps, bytes or tests */
    double seconds, seconds_left;
    double rate; /* per second, in `unit`s */
    const char *unit; /* "tokens", "MB", ... */
    double loss, valid_loss, lr;
    const char *text; /* a line for people (a sample, a note); NULL: none */
};

struct cb_engine_options {
    int threads; /* 0: all cores */
    const char *device; /* "cpu" (default), "null" (plans only) */
    const char *cpu_mask; /* "scalar", "avx2", "avx512", "all" (default) */
    const char *kernels; /* "matmul=ref,softmax=avx2"; NULL: the best */
    int64_t memory_limit; /* bytes a call may plan for; 0: none */
    uint64_t seed; /* of everything random; 0 counts as 0 */
    bool force; /* modules are put on bases that they were not trained on, runs go on at other rates, each with a warning */
    bool deterministic; /* results are always bit-equal for any thread count; kept for the command line */
    /* Nullable. progress returns false to ask for a stop: training saves a checkpoint and returns CB_E_STOPPED. */
    bool (*progress)(void *user, const struct cb_progress *progress);
    void (*warn)(void *user, const char *line); /* Nullable. One line, without newline. */
    void *user;
};

/* Nullable: options. Owned by caller, free with cb_engine_destroy. */
enum cb_status cb_engine_create(struct cb_engine **engine, const struct cb_engine_options *options, struct cb_err *err);
void cb_engine_destroy(struct cb_engine **engine);
int cb_engine_threads(const struct cb_engine *engine);
const char *cb_version(void);
/* Frees text that a call returned. Nullable: text. */
void cb_free(void *text);

/* ---- tokenizers */
struct cb_tokenizer;
/* A model's folder (tokenizer.json, vocab.json with merges.txt, a SentencePiece model, vocab.txt or a tiktoken file, with tokenizer_config.json) or one of
   these files; or a .gguf file. Owned by caller, free with cb_tokenizer_destroy. */
enum cb_status cb_tokenizer_load(struct cb_tokenizer **tokenizer, const char *path, struct cb_err *err);
/* pattern: how the text of a tiktoken file is cut: a name (cl100k, o200k, gpt2, qwen2, llama3, ...) or a regular expression; NULL: as the files say. */
enum cb_status cb_tokenizer_load_pattern(struct cb_tokenizer **tokenizer, const char *path, const char *pattern, struct cb_err *err);
/* Writes tokenizer.json into a folder, which is made where it is not there. Nullable: run_json (written beside it). */
enum cb_status cb_tokenizer_save(const struct cb_tokenizer *tokenizer, const char *folder, const char *run_json, struct cb_err *err);
void cb_tokenizer_destroy(struct cb_tokenizer **tokenizer);
int64_t cb_tokenizer_vocab(const struct cb_tokenizer *tokenizer);

struct cb_encoding {
    int32_t *ids;
    char **tokens;
    int64_t *offsets; /* 2 per id: begin and end in code points of the text; NULL unless asked for */
    int64_t n;
    int32_t *types; /* 1 for what belongs to the second text of a pair */
    unsigned char *attention; /* 0 for padding */
    int64_t input; /* which one of a batch */
};
enum cb_status cb_tokenizer_encode(const struct cb_tokenizer *tokenizer, const char *text, size_t bytes, bool no_special, bool offsets,
                                   struct cb_encoding *encoding, struct cb_err *err);
void cb_encoding_free(struct cb_encoding *encoding);
struct cb_text {
    const char *text;
    size_t bytes;
};
/* A text; or, is_words, a text as words that were cut elsewhere. Nullable: pair (the second text). */
struct cb_encode_input {
    const struct cb_text *text, *pair;
    int64_t n_text, n_pair; /* 1, unless they are words */
    bool is_words;
};
struct cb_encode_options {
    bool no_special, offsets; /* offsets: for words, those in each of them */
    bool overflow; /* of a text that is too long for the tokenizer's own limit, all windows */
};
struct cb_encodings {
    struct cb_encoding *encoding; /* the windows of the first input, then those of the next */
    int64_t n;
};
/* A batch: padded to one length where the tokenizer's file says so. Free with cb_encodings_free. */
enum cb_status cb_tokenizer_encode_batch(const struct cb_tokenizer *tokenizer, const struct cb_encode_input *inputs, int64_t n,
                                         const struct cb_encode_options *options, struct cb_encodings *encodings, struct cb_err *err);
void cb_encodings_free(struct cb_encodings *encodings);
/* *text: NUL-terminated, *bytes long. Owned by caller, free with cb_free. */
enum cb_status cb_tokenizer_decode(const struct cb_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool skip_special, char **text,
                                   size_t *bytes, struct cb_err *err);

struct cb_tokenizer_train_options {
    const char *const *text; /* files and folders, "-" for standard input */
    int n_text;
    const char *out; /* folder */
    const char *kind; /* "bpe" (default), "bpe-fallback", "wordpiece", "unigram", "char", "byte" */
    int64_t vocab; /* 8192 */
    /* "a,b". Of bpe, char and byte they follow <|endoftext|>; bpe-fallback and unigram: instead of <unk>,<s>,</s>; wordpiece: instead of
       [PAD],[UNK],[CLS],[SEP],[MASK] */
    const char *special;
    const char *invalid; /* invalid UTF-8: "fail" (default), "replace", "skip" */
    const char *run_json; /* written as run.json beside the result; NULL: none */
    int64_t min_frequency; /* merges: how often a pair must be seen; 2 */
    int64_t limit_alphabet; /* merges: so many different characters, the most frequent ones; 0: all */
    int64_t max_token_length; /* merges: below so many characters, 0: any; unigram: at most so many, 16 */
    const char *pattern; /* bpe: how text is cut, as of cb_tokenizer_load_pattern; gpt2 */
    bool cased, keep_accents; /* wordpiece: do not lower case; do not strip accents */
};
struct cb_tokenizer_train_result {
    int64_t vocab, bytes, tokens;
    double bytes_per_token;
};
enum cb_status cb_tokenizer_train(struct cb_engine *engine, const struct cb_tokenizer_train_options *options,
                                  struct cb_tokenizer_train_result *result, struct cb_err *err);

/* ---- models */
struct cb_init_options {
    const char *out, *family; /* "gpt2", "llama" */
    const char *set; /* "n_embd=384,n_layer=6": keys of config.json */
    const char *from; /* a config.json to start from */
    const char *tokenizer; /* folder or file: copied, and its vocabulary size taken */
    const char *dtype; /* "f32" (default), "f16", "bf16" */
    const char *run_json;
};
struct cb_init_result {
    int64_t parameters;
};
enum cb_status cb_init(struct cb_engine *engine, const struct cb_init_options *options, struct cb_init_result *result, struct cb_err *err);

/* ---- training: pretrain (tuner NULL) and finetune */
struct cb_train_options {
    const char *model, *out;
    const char *const *text; /* training data */
    int n_text;
    const char *const *valid; /* validation data; 0: the last part of the training data where eval_every is set */
    int n_valid;
    /* Several data sets, each a task, in place of text: "NAME=FILE", a name may come again; then valid is so too. Rows are drawn: "size" (default) in
       proportion to the sets' rows, "equal", "temperature:T" to rows^(1/T). Their numbers, in the order of the names, go into the graph's input task_ids. */
    const char *const *sets;
    int n_sets;
    const char *sampling;
    int64_t adapter_drop; /* AdapterDrop: in each batch the module is left out of the first 0 to this many layers, drawn anew; 0: never */
    bool module_per_set; /* OUT/NAME: a module for each set's rows, and OUT/adapter_setup.json, which is all of them (MultiTask) */
    const char *tuner; /* "lora:r=8,alpha=16", "full", "last:2", "head", "match:PATTERN" over names of weights; NULL: pretrain */
    const char *const *lr_scales; /* "PATTERN=X": parameters whose names match learn at X times the rate; the last that matches counts */
    int n_lr_scales;
    int64_t unfreeze; /* gradual unfreezing: steps until the layer before learns too; 0: all learn at once */
    const char *modules; /* modules that are on the model, frozen, while training */
    /* "classify", "regress", "tag", "qa", "choice": labelled examples, with a head of their own; "text", or "chat": conversations, of which the
       assistant's part is learnt; "mlm": hidden tokens; "span-corruption": of encoder-decoders with sentinels, spans of plain text; NULL: by the model and
       the data */
    const char *task;
    bool new_head; /* of labelled tasks: the labels are the data's and their head begins anew, also where the model has one */
    const char *teacher; /* a model whose distribution is learnt beside the labels; NULL: none. Of text and of labelled tasks */
    double distill, temperature; /* the teacher's share of the loss (0: 0.5), what both logits are divided by (0: 1) */
    const char *mask; /* of mlm: "whole-word" (default), "token", "span" */
    double mask_rate; /* of mlm and span-corruption: share of the tokens; 0: 0.15 */
    const char *chat_template; /* a file, a template of the model by name, or "chatml", "llama3", ...; NULL: the model's own */
    const char *const *columns; /* of tables: "text=review" takes the column review as the text */
    int n_columns;
    const char *separator; /* of CSV; NULL: by name and first line */
    const char *quote; /* of CSV: a character or "none"; NULL: the double quote */
    const char *format; /* of the files named: "text", "jsonl", "json", "csv", "parquet", "conll", ...; NULL: by their names */
    int64_t steps, tokens, epochs; /* how long; one of them */
    int64_t batch, seq, accumulate; /* 8, the model's context at most 1024, 1 */
    int64_t stride; /* of "qa": tokens between the windows of a long context; 0: two thirds of a window */
    const char *optimizer; /* "adamw" (default), "sgd:momentum=0.9", ... */
    double lr, min_lr; /* 0: the optimiser's usual */
    const char *schedule; /* "cosine" (default) */
    int64_t warmup; /* steps; negative: none; 0: 2% of the steps, at most 200 */
    double weight_decay; /* negative: none; 0: 0.1 for full training, 0 for modules */
    double clip; /* negative: none; 0: 1 */
    double valid_share; /* share of the training data held out where valid is not given */
    int64_t eval_every, save_every, keep, sample_every;
    int64_t patience; /* evaluations without a better loss before stopping; 0: never */
    const char *precision; /* "f32" */
    const char *invalid;
    bool resume, no_pack;
    int64_t stop_after; /* stop (with a checkpoint) after this step, as if interrupted; 0: run to the end */
    bool plan_only; /* compute planned bytes and flops, run nothing */
    bool dump; /* result->dump: the steps of the plan */
    const char *run_json;
};
struct cb_train_result {
    int64_t steps, tokens;
    double loss, valid_loss, best_valid_loss; /* NaN where there was no validation */
    double tokens_per_s, seconds;
    int64_t peak_bytes, planned_bytes;
    int64_t weights_bytes, gradients_bytes, optimizer_bytes, activations_bytes;
    int64_t trainable, total;
    double flops; /* of one step */
    char *dump; /* owned by caller, free with cb_free; NULL unless asked for */
};
enum cb_status cb_train(struct cb_engine *engine, const struct cb_train_options *options, struct cb_train_result *result,
                        struct cb_err *err);

/* ---- evaluation: likelihood of text */
struct cb_eval_options {
    const char *model, *modules;
    const char *const *text;
    int n_text;
    int64_t seq, stride, batch; /* the model's context; seq (of "qa", as in training); 8 */
    const char *invalid;
    const char *task, *chat_template; /* as of training; of conversations what the assistant says is scored */
    const char *mask; /* of masked language models, as of training; the loss is that of the hidden tokens */
    double mask_rate;
    const char *const *columns;
    int n_columns;
    const char *separator, *quote, *format;
    int64_t answer_tokens; /* of "qa": the most that an answer may have; 0: 30 */
    /* of labelled tasks: a file for the guesses. Of "qa" SQuAD's {"id": "answer"}, else {"label": ...} or {"tags": [...]}, one a line */
    const char *submission;
};
struct cb_eval_result {
    int64_t tokens, bytes, words;
    double loss, perplexity, bits_per_byte, word_perplexity, seconds;
};
enum cb_status cb_eval_text(struct cb_engine *engine, const struct cb_eval_options *options, struct cb_eval_result *result,
                            struct cb_err *err);

/* ---- evaluation: a labelled task. options->task: "classify", "regress", "tag", "qa" or "choice"; text: records with labels. The labels are those of the
   model, or of the labels.json beside a module, else those of the data. Measures that a task does not have are NaN. */
struct cb_task_result {
    int64_t n; /* examples; of "qa", questions */
    double loss, accuracy, f1, exact_match, mcc, pearson, spearman,
        seconds; /* f1: the mean over classes; of tags, of whole entities; of answers, of words */
};
/* Whether a task of this name learns from labelled examples. Nullable: task. */
bool cb_task_is_labelled(const char *task);
enum cb_status cb_eval_task(struct cb_engine *engine, const struct cb_eval_options *options, struct cb_task_result *result,
                            struct cb_err *err);

/* ---- comparison: several tuners on one task, each with the same budget and seeds. Writes a folder a run, compare.json, compare.md and
   compare.svg; runs that are finished already are read, so that a comparison that was stopped goes on. */
struct cb_compare_options {
    const char *model, *out, *task;
    const char *const *tuners; /* "full", "last:2", "head", "lora:r=8", ...; "SPEC@RATE" for a learning rate of its own */
    int n_tuners;
    /* labelled examples, or texts or conversations (tasks "text" and "chat"); test: nullable */
    const char *const *text, *const *valid, *const *test;
    int n_text, n_valid, n_test;
    int64_t steps, seeds, batch, seq, stride; /* steps a run; 1; 8; the longest example; as in training */
    double seconds; /* in place of steps: as many as fit, by the time of five */
    double lr; /* 0: the tuner's usual */
    bool new_head; /* as of training */
    /* "accuracy", "f1", "exact_match", "mcc", "pearson", "spearman", "loss"; NULL: accuracy, of tags and answers f1, of numbers pearson. Of text "loss" (NULL),
       "perplexity", "bits_per_byte" */
    const char *metric;
    const char *const *columns;
    int n_columns;
    const char *separator, *quote, *format;
    const char *run_json;
};
struct cb_compare_run {
    double valid, test; /* the measure; NaN without test data */
    double seconds, step_ms;
    int64_t steps, trainable, total, planned_bytes, file_bytes;
};
struct cb_compare_row {
    const char *tuner; /* borrowed from the options */
    int64_t seeds;
    double error; /* standard error of test (else valid) over the seeds; NaN for one */
    struct cb_compare_run mean;
};
struct cb_compare_result {
    struct cb_compare_row *rows; /* owned by caller, free with cb_free */
    int n_rows;
};
enum cb_status cb_compare(struct cb_engine *engine, const struct cb_compare_options *options, struct cb_compare_result *result,
                          struct cb_err *err);

/* ---- generation */
struct cb_generate_options {
    const char *model, *modules;
    const char *prompt; /* text; or ids; or messages */
    const int32_t *ids;
    int64_t n_ids;
    const char *messages; /* JSON: a list of {role, content}, or an object with messages and maybe tools; the model answers the last */
    const char *messages_name; /* a file's, for what is said of messages that are none; NULL: "conversation" */
    const char *chat_template; /* as of training */
    /* 0: as the model's generation_config.json says, else 128; 1, 1, 0, 1; all. min_p and top_k -1: off. One of the three and top_k set: not greedy. */
    int64_t max_new;
    double temperature, top_p, min_p, repeat_penalty;
    int64_t top_k;
    bool greedy, ignore_eos;
    const char *const *stop; /* strings that end the text */
    int n_stop;
    int64_t context; /* positions of the cache; 0: as many as needed */
    /* Each finished piece of text (valid UTF-8) and its last id, or NULL and an id without tokenizer. Returns false to stop. Nullable. */
    bool (*piece)(void *user, const char *text, int32_t id);
    void *user;
    bool plan_only;
};
struct cb_generate_result {
    char *text; /* free with cb_free; NULL without a tokenizer */
    int32_t *ids; /* the new ids; free with cb_free */
    int64_t n_ids, prompt_tokens;
    double prefill_tokens_per_s, decode_tokens_per_s, first_token_s;
    int64_t planned_bytes, weights_bytes, cache_bytes, activations_bytes;
    const char *stopped_by; /* "length", "eos", "stop", "caller" */
};
enum cb_status cb_generate(struct cb_engine *engine, const struct cb_generate_options *options, struct cb_generate_result *result,
                           struct cb_err *err);

/* A model kept loaded between answers; what a prompt has in common with what was read last is not read again. options: model, modules, chat_template and
   context, copied. Owned by caller, free with cb_generator_close, before the engine. */
struct cb_generator;
enum cb_status cb_generator_open(struct cb_generator **generator, struct cb_engine *engine, const struct cb_generate_options *options,
                                 struct cb_err *err);
/* As cb_generate; model, modules, chat_template and context of options are passed over. */
enum cb_status cb_generator_answer(struct cb_generator *generator, const struct cb_generate_options *options,
                                   struct cb_generate_result *result, struct cb_err *err);
void cb_generator_close(struct cb_generator **generator);

/* ---- one pass on given tensors */
struct cb_forward_options {
    const char *model, *modules, *input, *output; /* input, output: safetensors files */
    const char *rows; /* JSON lines, one object a row: the fields that route(by=FIELD; ...) asks for; NULL: none */
    bool hidden, grad, train_mode;
};
struct cb_forward_result {
    char *shapes; /* JSON object name -> shape; free with cb_free */
    double loss; /* NaN without labels */
};
enum cb_status cb_forward(struct cb_engine *engine, const struct cb_forward_options *options, struct cb_forward_result *result,
                          struct cb_err *err);

/* ---- merging modules into weights */
struct cb_merge_options {
    const char *model, *modules, *out;
    const char *dtype; /* NULL: as stored; "q4_k", ... where out ends in .gguf */
    int64_t shard_bytes; /* 0: one file */
    const char *run_json;
};
struct cb_merge_result {
    double max_error; /* largest |attached - merged| of the logits of a probe, merged as the file holds it */
    double identity; /* largest change of a weight when folding is undone */
    int64_t changed; /* weights that changed */
};
enum cb_status cb_merge(struct cb_engine *engine, const struct cb_merge_options *options, struct cb_merge_result *result,
                        struct cb_err *err);

/* ---- merging models, or modules, with one another */
struct cb_combine_options {
    const char *recipe; /* a YAML file in mergekit's form, of model folders or of LoRA folders; NULL: method, models and base */
    const char *method; /* "linear", "ties", ... as cb_list("merges") has them */
    const char *const *models; /* folders, or .gguf files of models */
    int n_models;
    const char *base; /* what differences are taken from; nullable where the method needs none */
    const char *const *set; /* changes of the recipe: "parameters.t=0.3", "models.0.parameters.weight=[0, 1]" */
    int n_set;
    const char *dtype; /* of the result; NULL: as the recipe says */
    const char *tokenizer; /* "union", "base" or a model's path: whose tokens the result has, rows by token; NULL: as the recipe says */
    const char *out;
    int64_t shard_bytes; /* largest file; 0: 5 GB */
    bool align; /* hidden units and heads of every model are put in the order that fits the first model best */
    const char *const *text; /* what Fisher information and Gram matrices are measured on, for the methods that want them */
    int n_text;
    int64_t samples; /* rows of that text at most; 0: 64 */
    const char *run_json;
};
struct cb_combine_result {
    int64_t tensors, parameters, bytes, layers; /* of modules: sites, parameters, bytes, 0 */
    int64_t rank; /* of modules: the largest; of models 0 */
    double max_error; /* largest change by the number type; of modules: of a weight's change, by what a lower rank leaves out */
    double relative_error; /* of models: root mean square of the changes by the number type, over that of the values that changed type */
    double identity; /* largest change where every model is the first; NaN for modules */
    double sign_conflicts; /* share of the elements changed by several models where their signs differ; NaN without a base */
    int64_t peak_bytes; /* of this process */
};
enum cb_status cb_combine(struct cb_engine *engine, const struct cb_combine_options *options, struct cb_combine_result *result,
                          struct cb_err *err);

/* A LoRA that does what a whole fine-tuning did, by singular values. */
struct cb_extract_options {
    const char *base, *tuned, *out;
    /* "r=16,epsilon=0.01,exclude=mlp,embeddings=true,skip_whole=true": rank; singular values up to epsilon are dropped; sites whose names hold the pattern
       are left out; embeddings and head as factors too; what has no factors (norms) is left out instead of stored whole */
    const char *spec;
    const char *run_json;
};
struct cb_extract_result {
    int64_t sites, whole, parameters, rank; /* whole: tensors that are stored as they are */
    double max_error; /* bound of a weight's difference */
    double kept; /* share of the squared change that is kept */
};
enum cb_status cb_extract(struct cb_engine *engine, const struct cb_extract_options *options, struct cb_extract_result *result,
                          struct cb_err *err);

/* Loss along the straight line between two models: where it has no hill, they can be averaged. */
#define CB_CONNECT_POINTS 11
struct cb_connect_options {
    const char *a, *b;
    const char *const *text;
    int n_text;
    int64_t seq, batch; /* as of cb_eval_text */
    const char *out; /* folder for connect.json and connect.svg; nullable */
    const char *run_json;
};
struct cb_connect_result {
    double at[CB_CONNECT_POINTS], loss[CB_CONNECT_POINTS]; /* weight of b, loss of the text there */
    double barrier; /* largest loss above the line between the ends' losses; 0: none */
};
enum cb_status cb_connect(struct cb_engine *engine, const struct cb_connect_options *options, struct cb_connect_result *result,
                          struct cb_err *err);

/* ---- between formats and number types */
struct cb_convert_options {
    const char *
        in; /* a model folder, a .gguf file (of a model or an adapter), an adapter folder, or several: a folder with adapter_setup.json, an expression */
    const char *out; /* a path that ends in .gguf, or a folder */
    const char *quantize; /* "q8_0", "q4_k", "f16", ...; folders: f32, f16, bf16. NULL: as stored (blocks become f32 in folders) */
    const char *model; /* what an adapter is for */
    const char *const *fields; /* "task=a", n_fields of them: the plain adapter that a hypernetwork makes for these; NULL: as it is */
    int n_fields;
    int64_t split_bytes; /* tensors of one file; 0: one file */
    const char *run_json;
};
struct cb_convert_result {
    int64_t bytes; /* of the tensors written */
    int64_t tensors, files;
    double max_error; /* largest change of a number */
    int64_t other_type; /* tensors whose rows no block of the asked type fits: they have the nearest type that does */
};
enum cb_status cb_convert(struct cb_engine *engine, const struct cb_convert_options *options, struct cb_convert_result *result,
                          struct cb_err *err);

/* ---- what things are */
/* Describes a file or folder. text: for people, or with json one JSON object; owned by caller, free with cb_free. check: any problem is an error.
   model: base for adapters; nullable. */
enum cb_status cb_inspect(const char *path, const char *model, bool check, bool tensors, bool json, char **text, struct cb_err *err);
/* kind: "ops", "models", "tuners", "optimizers", "kernels", ...; name: one entry or NULL; format: "text", "json", "markdown". */
enum cb_status cb_list(const char *kind, const char *name, const char *format, char **text, struct cb_err *err);

/* ---- this machine */
struct cb_selftest_result {
    int64_t passed, failed, ops;
};
/* op: one op, or NULL for all. Failures go to the engine's warn, a line each. */
enum cb_status cb_selftest(struct cb_engine *engine, const char *op, struct cb_selftest_result *result, struct cb_err *err);

struct cb_bench_options {
    const char *what; /* "train", "generate", "ops", "memory" */
    const char *model, *tuner, *input;
    const char *op; /* of "ops": this one alone; nullable */
    int64_t batch, seq, steps, prompt, new_tokens;
    double lr;
    bool profile; /* result->profile: time by op */
};
/* One kernel on one shape. Bytes: inputs and outputs, once each; gflops: 0 where the op's work is not arithmetic. */
struct cb_bench_row {
    char op[40], kernel[16], shape[120];
    double us, gb_per_s, gflops;
    double fraction_of_roof; /* of the nearer measured peak; past 1 where the data stay in the caches */
};
struct cb_bench_result {
    double tokens_per_s, best_tokens_per_s, step_ms, peak_mib, planned_mib, gflops, fraction_of_peak;
    double prefill_tokens_per_s, decode_tokens_per_s;
    double read_gb_per_s, write_gb_per_s, copy_gb_per_s; /* of memory, all threads; a copy counts both ways */
    double read_gb_per_s_1, write_gb_per_s_1, copy_gb_per_s_1; /* one thread */
    struct cb_bench_row *rows; /* of "ops"; free with cb_free */
    int64_t n_rows;
    double *losses; /* free with cb_free */
    int64_t n_losses, trainable;
    char *profile; /* free with cb_free */
};
enum cb_status cb_bench(struct cb_engine *engine, const struct cb_bench_options *options, struct cb_bench_result *result,
                        struct cb_err *err);

#ifdef __cplusplus
}
#endif
#endif
