/* cambium finetune: trains a module, all weights or the last layers. */
#include "base/err.h"
#include "cli/train.h"

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct train_options *o = parsed;
    (void)n_args;
    if (!o->api.tuner) FAIL(err, CB_E_USAGE, "finetune: --tuner SPEC is missing (lora:r=8,alpha=16, full, last:2, ...)");
    return cli_train(cli, o, args[0], err);
}

const struct command command_finetune = {.name = "finetune",
                                         .usage = "MODEL --tuner SPEC --data D... --out DIR",
                                         .summary = "trains a module (adapter folder), or full or last:N (model folder)",
                                         .options = finetune_options,
                                         .bytes = sizeof(struct train_options),
                                         .min_args = 1,
                                         .max_args = 1,
                                         .can_plan = true,
                                         .run = run};
