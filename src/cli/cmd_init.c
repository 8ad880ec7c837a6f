/* cambium init: a model folder with fresh weights. */
#include "base/err.h"
#include "cli/cli.h"

#define AT(field) offsetof(struct cb_init_options, field)
static const struct option options[] = {{"out", OPTION_TEXT, AT(out), "DIR", "folder to write (required)"},
                                        {"family", OPTION_TEXT, AT(family), "NAME", "gpt2, llama, ... (`cambium list models`)"},
                                        {"set", OPTION_TEXT, AT(set), "K=V,...", "keys of config.json, e.g. n_embd=384,n_layer=6"},
                                        {"from", OPTION_TEXT, AT(from), "FILE", "a config.json to start from"},
                                        {"tokenizer", OPTION_TEXT, AT(tokenizer), "DIR", "tokenizer to copy; its vocabulary size is taken"},
                                        {"dtype", OPTION_TEXT, AT(dtype), "NAME", "f32 (default), f16, bf16"},
                                        {NULL, OPTION_FLAG, 0, NULL, NULL}};
static const struct field fields[] = {{"parameters", FIELD_INT, offsetof(struct cb_init_result, parameters)}, {NULL, FIELD_INT, 0}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct cb_init_options *o = parsed;
    struct cb_init_result result = {0};
    struct cb_engine *engine;
    (void)args, (void)n_args;
    if (!o->out) FAIL(err, CB_E_USAGE, "init: --out DIR is missing");
    if (!o->family && !o->from) FAIL(err, CB_E_USAGE, "init: --family NAME or --from config.json is missing");
    o->run_json = cli->run_json;
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_init(engine, o, &result, err);
    if (status == CB_OK) cli_print(cli, fields, &result);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_init = {.name = "init",
                                     .usage = "--out DIR --family NAME [--set K=V,...] [--tokenizer DIR]",
                                     .summary = "a model folder with fresh weights",
                                     .options = options,
                                     .bytes = sizeof(struct cb_init_options),
                                     .max_args = 0,
                                     .run = run};
