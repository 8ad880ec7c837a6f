/* cambium forward: one pass on given tensors. */
#include "base/err.h"
#include "cli/cli.h"

#define AT(field) offsetof(struct cb_forward_options, field)
static const struct option options[] = {
    {"input", OPTION_TEXT, AT(input), "FILE", "safetensors with input_ids, attention_mask, labels, ... as Transformers names them"},
    {"output", OPTION_TEXT, AT(output), "FILE", "safetensors to write: logits, loss, ..."},
    {"modules", OPTION_TEXT, AT(modules), "EXPR", "modules to put on the model"},
    {"rows", OPTION_TEXT, AT(rows), "FILE", "JSON lines, the fields of each row: for route(by=FIELD; ...) and hypernetworks in --modules"},
    {"hidden", OPTION_FLAG, AT(hidden), NULL, "also hidden.N and final"},
    {"grad", OPTION_FLAG, AT(grad), NULL, "also grad.<parameter> of the loss (with modules: of their tensors)"},
    {"train-mode", OPTION_FLAG, AT(train_mode), NULL, "with dropout, as in training"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct cb_forward_options *o = parsed;
    struct cb_forward_result result = {0};
    struct cb_engine *engine;
    (void)n_args;
    o->model = args[0];
    if (!o->input || !o->output) FAIL(err, CB_E_USAGE, "forward: --input FILE and --output FILE are wanted");
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_forward(engine, o, &result, err);
    if (status == CB_OK) puts(result.shapes);
    cb_free(result.shapes);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_forward = {.name = "forward",
                                        .usage = "MODEL --input F.safetensors --output G.safetensors",
                                        .summary = "one pass on given tensors: logits, loss, hidden states, gradients",
                                        .options = options,
                                        .bytes = sizeof(struct cb_forward_options),
                                        .min_args = 1,
                                        .max_args = 1,
                                        .run = run};
