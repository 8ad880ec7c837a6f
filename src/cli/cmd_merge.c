/* cambium merge: folds modules into weights, combines models or modules, extracts a LoRA, draws the loss between two models. */
#include "base/err.h"
#include "cli/cli.h"

struct arguments {
    struct cb_merge_options fold;  // whose out and shard_bytes serve all
    const char *recipe, *method, *base, *extract, *tokenizer;
    struct text_list set, text;
    int64_t samples, seq, batch;
    bool align, connect;
};

#define AT(field) offsetof(struct arguments, field)
static const struct option options[] = {
    {"modules", OPTION_TEXT, AT(fold.modules), "EXPR", "modules to fold into MODEL"},
    {"recipe", OPTION_TEXT, AT(recipe), "FILE", "a recipe in mergekit's form (YAML), of model folders or of LoRA folders"},
    {"method", OPTION_TEXT, AT(method), "NAME",
     "instead of a recipe: how the models (or LoRA folders) that are named are merged; `list merges`"},
    {"base", OPTION_TEXT, AT(base), "MODEL", "what differences are taken from; of --extract: the model before training"},
    {"set", OPTION_LIST, AT(set), "KEY=VALUE", "change the recipe: parameters.t=0.3 models.0.parameters.weight=0.7 dtype=bfloat16"},
    {"extract", OPTION_TEXT, AT(extract), "SPEC", "a LoRA that does what the training of MODEL did: r=16,exclude=mlp,embeddings=true"},
    {"connect", OPTION_FLAG, AT(connect), NULL, "loss of --text at 11 points between two models"},
    {"tokenizer", OPTION_TEXT, AT(tokenizer), "NAME",
     "union, base, or one of the models: whose tokens the result has where the models number them differently"},
    {"align", OPTION_FLAG, AT(align), NULL, "first put hidden units and heads of the models in the order of the first one"},
    {"text", OPTION_LIST, AT(text), "FILE", "texts for --connect, and for methods that measure models (fisher, regmean)"},
    {"samples", OPTION_POSITIVE, AT(samples), "N", "rows of --text that models are measured on (default 64)"},
    {"seq", OPTION_POSITIVE, AT(seq), "N", "tokens a row of --connect (default: the model's context, at most 1024)"},
    {"batch", OPTION_POSITIVE, AT(batch), "N", "rows at once of --connect (default 8)"},
    {"out", OPTION_TEXT, AT(fold.out), "DIR", "model folder, or .gguf file of a model, or module folder to write"},
    {"dtype", OPTION_TEXT, AT(fold.dtype), "NAME", "number type of the result (default: as stored, or as the recipe says)"},
    {"quantize", OPTION_TEXT, AT(fold.dtype), "NAME", "the same, as of convert: the kind of a .gguf file, q8_0, q4_k_m, ..."},
    {"split", OPTION_SIZE, AT(fold.shard_bytes), "SIZE", "largest shard, e.g. 2GiB (default: one file; recipes: 5 GB)"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};

#define R(field) offsetof(struct cb_merge_result, field)
static const struct field fold_fields[] = {{"max_error", FIELD_NUMBER, R(max_error)},
                                           {"identity", FIELD_NUMBER, R(identity)},
                                           {"changed", FIELD_INT, R(changed)},
                                           {NULL, FIELD_INT, 0}};
#define C(field) offsetof(struct cb_combine_result, field)
static const struct field combine_fields[] = {{"max_error", FIELD_NUMBER, C(max_error)},
                                              {"relative_error", FIELD_NUMBER, C(relative_error)},
                                              {"identity", FIELD_NUMBER, C(identity)},
                                              {"sign_conflicts", FIELD_NUMBER, C(sign_conflicts)},
                                              {"tensors", FIELD_INT, C(tensors)},
                                              {"parameters", FIELD_INT, C(parameters)},
                                              {"layers", FIELD_INT, C(layers)},
                                              {"rank", FIELD_INT, C(rank)},
                                              {"bytes", FIELD_BYTES, C(bytes)},
                                              {"peak_bytes", FIELD_BYTES, C(peak_bytes)},
                                              {NULL, FIELD_INT, 0}};
#define X(field) offsetof(struct cb_extract_result, field)
static const struct field extract_fields[] = {{"sites", FIELD_INT, X(sites)},
                                              {"whole", FIELD_INT, X(whole)},
                                              {"parameters", FIELD_INT, X(parameters)},
                                              {"rank", FIELD_INT, X(rank)},
                                              {"max_error", FIELD_NUMBER, X(max_error)},
                                              {"kept", FIELD_NUMBER, X(kept)},
                                              {NULL, FIELD_INT, 0}};

/* What one way of merging does with the arguments. */
typedef enum cb_status action(struct cli *cli, struct cb_engine *engine, struct arguments *a, char **args, int n_args, struct cb_err *err);

static enum cb_status fold(struct cli *cli, struct cb_engine *engine, struct arguments *a, char **args, int n_args, struct cb_err *err) {
    struct cb_merge_result result = {0};
    if (!a->fold.modules || !a->fold.out || n_args != 1)
        FAIL(err, CB_E_USAGE, "merge: wanted MODEL --modules EXPR --out DIR, or --recipe, --method, --extract or --connect");
    a->fold.model = args[0];
    a->fold.run_json = cli->run_json;
    TRY(cb_merge(engine, &a->fold, &result, err));
    cli_print(cli, fold_fields, &result);
    return CB_OK;
}

static enum cb_status combine(struct cli *cli, struct cb_engine *engine, struct arguments *a, char **args, int n_args, struct cb_err *err) {
    struct cb_combine_result result = {0};
    struct cb_combine_options o = {.recipe = a->recipe,
                                   .method = a->method,
                                   .models = (const char *const *)args,
                                   .n_models = n_args,
                                   .base = a->base,
                                   .set = a->set.item,
                                   .n_set = a->set.n,
                                   .dtype = a->fold.dtype,
                                   .tokenizer = a->tokenizer,
                                   .out = a->fold.out,
                                   .shard_bytes = a->fold.shard_bytes,
                                   .align = a->align,
                                   .text = a->text.item,
                                   .n_text = a->text.n,
                                   .samples = a->samples,
                                   .run_json = cli->run_json};
    TRY(cb_combine(engine, &o, &result, err));
    cli_print(cli, combine_fields, &result);
    return CB_OK;
}

static enum cb_status extract(struct cli *cli, struct cb_engine *engine, struct arguments *a, char **args, int n_args, struct cb_err *err) {
    struct cb_extract_result result = {0};
    if (n_args != 1) FAIL(err, CB_E_USAGE, "merge --extract: %d models; wanted --base BASE TUNED", n_args);
    struct cb_extract_options o = {.base = a->base, .tuned = args[0], .out = a->fold.out, .spec = a->extract, .run_json = cli->run_json};
    TRY(cb_extract(engine, &o, &result, err));
    cli_print(cli, extract_fields, &result);
    return CB_OK;
}

static enum cb_status connect(struct cli *cli, struct cb_engine *engine, struct arguments *a, char **args, int n_args, struct cb_err *err) {
    struct cb_connect_result r = {0};
    if (n_args != 2 || !a->text.n) FAIL(err, CB_E_USAGE, "merge --connect: wanted two models and --text FILE");
    struct cb_connect_options o = {.a = args[0],
                                   .b = args[1],
                                   .text = a->text.item,
                                   .n_text = a->text.n,
                                   .seq = a->seq,
                                   .batch = a->batch,
                                   .out = a->fold.out,
                                   .run_json = cli->run_json};
    TRY(cb_connect(engine, &o, &r, err));
    if (cli->json) printf("{\"points\": [");
    for (int i = 0; i < CB_CONNECT_POINTS; i++)
        if (cli->json)
            printf("%s{\"at\": %.2f, \"loss\": %.9g}", i ? ", " : "", r.at[i], r.loss[i]);
        else
            printf("%-24.2f %.5g\n", r.at[i], r.loss[i]);
    printf(cli->json ? "], \"barrier\": %.9g}\n" : "barrier                  %.5g\n", r.barrier);
    return CB_OK;
}

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct arguments *a = parsed;
    struct cb_engine *engine;
    const bool combines = a->recipe || a->method;
    if (combines + (a->extract != NULL) + a->connect + (a->fold.modules != NULL) > 1)
        FAIL(err, CB_E_USAGE, "merge: found several of --modules, --recipe, --method, --extract and --connect; wanted one");
    TRY(cli_engine(cli, false, &engine, err));
    action *act = combines ? combine : a->extract ? extract : a->connect ? connect : fold;
    enum cb_status status = act(cli, engine, a, args, n_args, err);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_merge = {
    .name = "merge",
    .usage =
        "MODEL --modules EXPR --out DIR | --recipe FILE --out DIR | --method NAME MODEL... --out DIR | --extract SPEC --base BASE TUNED "
        "--out DIR | --connect A B --text FILE",
    .summary = "folds modules into the weights, combines models or modules; says how exact that was",
    .options = options,
    .bytes = sizeof(struct arguments),
    .min_args = 0,
    .max_args = 65,
    .run = run};
