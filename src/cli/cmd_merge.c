/* cambium merge: folds modules into the weights. */
#include "base/err.h"
#include "cli/cli.h"

#define AT(field) offsetof(struct cb_merge_options, field)
static const struct option options[] = {{"modules", OPTION_TEXT, AT(modules), "EXPR", "modules to fold in (required)"},
                                        {"out", OPTION_TEXT, AT(out), "DIR", "model folder, or .gguf file, to write (required)"},
                                        {"dtype", OPTION_TEXT, AT(dtype), "NAME", "number type of the result (default: as stored)"},
                                        {"split", OPTION_SIZE, AT(shard_bytes), "SIZE", "largest shard, e.g. 2GiB (default: one file)"},
                                        {NULL, OPTION_FLAG, 0, NULL, NULL}};
#define R(field) offsetof(struct cb_merge_result, field)
static const struct field fields[] = {{"max_error", FIELD_NUMBER, R(max_error)},
                                      {"identity", FIELD_NUMBER, R(identity)},
                                      {"changed", FIELD_INT, R(changed)},
                                      {NULL, FIELD_INT, 0}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct cb_merge_options *o = parsed;
    struct cb_merge_result result = {0};
    struct cb_engine *engine;
    (void)n_args;
    o->model = args[0];
    o->run_json = cli->run_json;
    if (!o->modules || !o->out) FAIL(err, CB_E_USAGE, "merge: --modules EXPR and --out DIR are wanted");
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_merge(engine, o, &result, err);
    if (status == CB_OK) cli_print(cli, fields, &result);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_merge = {.name = "merge",
                                      .usage = "MODEL --modules EXPR --out DIR",
                                      .summary = "folds modules into the weights and says how exact that was",
                                      .options = options,
                                      .bytes = sizeof(struct cb_merge_options),
                                      .min_args = 1,
                                      .max_args = 1,
                                      .run = run};
