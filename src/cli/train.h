/* Options that pretrain, finetune and plan share. */
#ifndef CLI_TRAIN_H
#define CLI_TRAIN_H
#include "cli/cli.h"

struct train_options {
    struct cb_train_options api;
    struct text_list text, valid, dataset, column, lr_scale;
};
extern const struct option pretrain_options[], finetune_options[];
/* Fills api from the arguments, runs it and prints the result. */
enum cb_status cli_train(struct cli *cli, struct train_options *options, const char *model, struct cb_err *err);
#endif
