/* cambium convert: models and adapters between formats and number types. */
#include "base/err.h"
#include "cli/cli.h"

#define AT(field) offsetof(struct cb_convert_options, field)
static const struct option options[] = {
    {"quantize", OPTION_TEXT, AT(quantize), "TYPE", "number type: f32, f16, bf16; in .gguf files q8_0, q4_k, ... too (default: as stored)"},
    {"split", OPTION_SIZE, AT(split_bytes), "SIZE", "largest file, e.g. 2GiB (default: one file)"},
    {"model", OPTION_TEXT, AT(model), "BASE", "the model that an adapter is for"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};
#define R(field) offsetof(struct cb_convert_result, field)
static const struct field fields[] = {{"bytes", FIELD_BYTES, R(bytes)},         {"tensors", FIELD_INT, R(tensors)},
                                      {"files", FIELD_INT, R(files)},           {"max_error", FIELD_NUMBER, R(max_error)},
                                      {"other_type", FIELD_INT, R(other_type)}, {NULL, FIELD_INT, 0}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct cb_convert_options *o = parsed;
    struct cb_convert_result result = {0};
    struct cb_engine *engine;
    (void)n_args;
    o->in = args[0];
    o->out = args[1];
    o->run_json = cli->run_json;
    o->fields = cli->field.item;
    o->n_fields = cli->field.n;
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_convert(engine, o, &result, err);
    if (status == CB_OK) cli_print(cli, fields, &result);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_convert = {
    .name = "convert",
    .usage = "IN OUT [--quantize TYPE] [--split SIZE]",
    .summary = "between model folders, .gguf files and adapters, and between number types",
    .more =
        "OUT ends in .gguf, or is a folder. Quantised: q8_0 q6_k q5_k q5_k_m q5_0 q5_1 q4_k q4_k_m q4_0 q4_1 q3_k q2_k "
        "iq4_nl mxfp4 tq1_0 tq2_0. With --field FIELD=VALUE a hypernetwork becomes the plain adapter that it makes for that value.",
    .takes_fields = true,
    .options = options,
    .bytes = sizeof(struct cb_convert_options),
    .min_args = 2,
    .max_args = 2,
    .run = run};
