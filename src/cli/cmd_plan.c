/* cambium plan VERB ...: the bytes and flops of another verb, without running it. main hands such a line to that verb; what gets here is wrong. */
#include "base/err.h"
#include "cli/cli.h"

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    (void)cli, (void)parsed;
    FAIL(err, CB_E_USAGE, "plan: no plan for '%s'; wanted pretrain, finetune or generate", n_args ? args[0] : "");
}

const struct command command_plan = {.name = "plan",
                                     .usage = "pretrain|finetune|generate MODEL [options of that verb]",
                                     .summary = "exact bytes of weights, gradients, optimiser, activations, cache; runs nothing",
                                     .more = "Options are those of the verb that is planned; --dump prints the steps and kernels.",
                                     .max_args = 4096,
                                     .is_prefix = true,
                                     .run = run};
