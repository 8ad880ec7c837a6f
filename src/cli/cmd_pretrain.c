/* cambium pretrain: trains all weights. */
#include "cli/train.h"

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    (void)n_args;
    return cli_train(cli, parsed, args[0], err);
}

const struct command command_pretrain = {.name = "pretrain",
                                         .usage = "MODEL --text T... --out DIR",
                                         .summary = "trains all weights on text; DIR is a model folder plus run/",
                                         .options = pretrain_options,
                                         .bytes = sizeof(struct train_options),
                                         .min_args = 1,
                                         .max_args = 1,
                                         .can_plan = true,
                                         .run = run};
