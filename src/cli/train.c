/* What pretrain, finetune and plan share: the option tables and the call. */
#include "cli/train.h"

#include "base/err.h"

#define AT(field) offsetof(struct train_options, api.field)
#define SHARED                                                                                                                             \
    {"out", OPTION_TEXT, AT(out), "DIR", "folder to write (required): the result and run/"},                                               \
        {"valid", OPTION_LIST, offsetof(struct train_options, valid), "FILE", "validation data"},                                          \
        {"valid-share", OPTION_NUMBER, AT(valid_share), "X", "share of the data held out where --valid is not given"},                     \
        {"steps", OPTION_POSITIVE, AT(steps), "N", "optimiser steps"}, {"tokens", OPTION_POSITIVE, AT(tokens), "N", "or tokens"},          \
        {"epochs", OPTION_POSITIVE, AT(epochs), "N", "or passes over the data (default 1)"},                                               \
        {"batch", OPTION_POSITIVE, AT(batch), "N", "sequences a micro-batch (default 8)"},                                                 \
        {"seq", OPTION_POSITIVE, AT(seq), "N", "tokens a sequence (default: the context, at most 1024)"},                                  \
        {"accumulate", OPTION_POSITIVE, AT(accumulate), "N", "micro-batches a step (default 1)"},                                          \
        {"optimizer", OPTION_TEXT, AT(optimizer), "SPEC", "adamw (default), sgd:momentum=0.9, ... (`list optimizers`)"},                   \
        {"lr", OPTION_ABOVE_ZERO, AT(lr), "X", "peak learning rate (default 1e-3; full and last:N 1e-4)"},                                 \
        {"teacher", OPTION_TEXT, AT(teacher), "MODEL", "distillation: a frozen model whose distribution is learnt too"},                   \
        {"distill", OPTION_ABOVE_ZERO, AT(distill), "X", "the teacher's share of the loss (default 0.5)"},                                 \
        {"temperature", OPTION_ABOVE_ZERO, AT(temperature), "T", "both distributions are softened by T (default 1)"},                      \
        {"lr-scale", OPTION_LIST, offsetof(struct train_options, lr_scale), "PATTERN=X",                                                   \
         "parameters of these names learn at X times the rate"},                                                                           \
        {"unfreeze", OPTION_COUNT, AT(unfreeze), "N", "gradual unfreezing: the layer before learns N steps later"},                        \
        {"min-lr", OPTION_OR_NONE, AT(min_lr), "X", "rate at the end of the schedule (default: a tenth of --lr)"},                         \
        {"schedule", OPTION_TEXT, AT(schedule), "NAME", "cosine (default), linear, constant, wsd"},                                        \
        {"warmup", OPTION_COUNT_OR_NONE, AT(warmup), "N", "steps of linear warm-up (default: 2% of the steps, at most 200; 0: none)"},     \
        {"weight-decay", OPTION_OR_NONE, AT(weight_decay), "X", "on matrices only (default 0.1, modules 0; 0: none)"},                     \
        {"clip", OPTION_OR_NONE, AT(clip), "X", "largest gradient norm (default 1; 0: none)"},                                             \
        {"eval-every", OPTION_COUNT, AT(eval_every), "N",                                                                                  \
         "steps between validations (of a tenth of the data where --valid is not given)"},                                                 \
        {"save-every", OPTION_COUNT, AT(save_every), "N", "steps between checkpoints (default: a tenth of the run)"},                      \
        {"sample-every", OPTION_COUNT, AT(sample_every), "N", "steps between samples of text"},                                            \
        {"keep", OPTION_POSITIVE, AT(keep), "N", "newest checkpoints kept (default 2)"},                                                   \
        {"patience", OPTION_COUNT, AT(patience), "N", "stop after N validations without a better loss, keep the best"},                    \
        {"task", OPTION_TEXT, AT(task), "NAME",                                                                                            \
         "text, chat: learn what the assistant says, mlm: hidden tokens, span-corruption: T5's spans (default: by model and data); "       \
         "classify, regress, tag, qa, choice: labelled examples"},                                                                         \
        {"stride", OPTION_POSITIVE, AT(stride), "N", "of qa: tokens between windows of a long context (default: two thirds of one)"},      \
        {"mask", OPTION_TEXT, AT(mask), "KIND", "what mlm hides: whole-word (default), token, span"},                                      \
        {"mask-rate", OPTION_ABOVE_ZERO, AT(mask_rate), "X", "share of the tokens that is hidden (default 0.15)"},                         \
        {"precision", OPTION_TEXT, AT(precision), "NAME", "f32 (default)"},                                                                \
        {"invalid", OPTION_TEXT, AT(invalid), "HOW", "invalid UTF-8: fail (default), replace, skip"},                                      \
        {"column", OPTION_LIST, offsetof(struct train_options, column), "KEY=COLUMN", "of tables: text=review takes the column review"},   \
        {"format", OPTION_TEXT, AT(format), "NAME", "of the files named: text, jsonl, json, csv, parquet, conll, idx (default: by name)"}, \
        {"separator", OPTION_TEXT, AT(separator), "C", "of CSV columns (default: by the first line)"},                                     \
        {"quote", OPTION_TEXT, AT(quote), "C|none", "around cells of CSV (default: \")"},                                                  \
        {"resume", OPTION_FLAG, AT(resume), NULL, "go on from the newest checkpoint in DIR/run"},                                          \
        {"no-pack", OPTION_FLAG, AT(no_pack), NULL, "one document a sequence, padded"},                                                    \
        {"stop-after", OPTION_COUNT, AT(stop_after), "N", "save and stop after this step, as if interrupted"},                             \
        {"dump", OPTION_FLAG, AT(dump), NULL, "with plan: every step and kernel"}, {                                                       \
        NULL, OPTION_FLAG, 0, NULL, NULL                                                                                                   \
    }

const struct option pretrain_options[] = {{"text", OPTION_LIST, offsetof(struct train_options, text), "FILE", "training text (required)"},
                                          SHARED};
const struct option finetune_options[] = {
    {"data", OPTION_LIST, offsetof(struct train_options, text), "FILE", "training data (required)"},
    {"text", OPTION_LIST, offsetof(struct train_options, text), "FILE", "the same as --data"},
    {"tuner", OPTION_TEXT, AT(tuner), "SPEC", "lora:r=8,alpha=16,targets=q_proj+v_proj, full, last:2, head, match:PATTERN (required)"},
    {"modules", OPTION_TEXT, AT(modules), "EXPR", "frozen modules on the model meanwhile"},
    {"dataset", OPTION_LIST, offsetof(struct train_options, dataset), "NAME=FILE",
     "several tasks at once, in place of --data; --valid takes NAME=FILE too"},
    {"sampling", OPTION_TEXT, AT(sampling), "HOW",
     "rows of a --dataset: by size (default), equal, temperature:T (size to the power of 1/T)"},
    {"new-head", OPTION_FLAG, AT(new_head), NULL, "labels and their head are the data's, also where the model has some"},
    {"adapter-drop", OPTION_COUNT, AT(adapter_drop), "N", "AdapterDrop: each batch leaves the module out of the first 0 to N layers"},
    {"module-per-dataset", OPTION_FLAG, AT(module_per_set), NULL,
     "a module for each --dataset, in DIR/NAME; DIR is all of them by task_ids"},
    {"chat-template", OPTION_TEXT, AT(chat_template), "FILE|NAME", "instead of the model's own; chatml, llama3, ..."},
    SHARED};

#define R(field) offsetof(struct cb_train_result, field)
static const struct field train_fields[] = {{"steps", FIELD_INT, R(steps)},
                                            {"tokens", FIELD_INT, R(tokens)},
                                            {"loss", FIELD_NUMBER, R(loss)},
                                            {"valid_loss", FIELD_NUMBER, R(valid_loss)},
                                            {"best_valid_loss", FIELD_NUMBER, R(best_valid_loss)},
                                            {"tokens_per_s", FIELD_NUMBER, R(tokens_per_s)},
                                            {"seconds", FIELD_NUMBER, R(seconds)},
                                            {"peak_bytes", FIELD_BYTES, R(peak_bytes)},
                                            {"planned_bytes", FIELD_BYTES, R(planned_bytes)},
                                            {"trainable", FIELD_INT, R(trainable)},
                                            {"total", FIELD_INT, R(total)},
                                            {NULL, FIELD_INT, 0}};

/* `plan`: the bytes by kind as a nested object. */
static void print_plan(const struct cli *cli, const struct cb_train_result *r) {
    if (cli->json) {
        printf(
            "{\"planned_bytes\": %lld, \"by_kind\": {\"weights\": %lld, \"gradients\": %lld, \"optimizer\": %lld, \"activations\": %lld}, "
            "\"flops\": %.6g, \"trainable\": %lld, \"total\": %lld}\n",
            (long long)r->planned_bytes, (long long)r->weights_bytes, (long long)r->gradients_bytes, (long long)r->optimizer_bytes,
            (long long)r->activations_bytes, r->flops, (long long)r->trainable, (long long)r->total);
        return;
    }
    static const struct field fields[] = {{"planned_bytes", FIELD_BYTES, R(planned_bytes)},
                                          {"weights", FIELD_BYTES, R(weights_bytes)},
                                          {"gradients", FIELD_BYTES, R(gradients_bytes)},
                                          {"optimizer", FIELD_BYTES, R(optimizer_bytes)},
                                          {"activations", FIELD_BYTES, R(activations_bytes)},
                                          {"flops", FIELD_NUMBER, R(flops)},
                                          {"trainable", FIELD_INT, R(trainable)},
                                          {"total", FIELD_INT, R(total)},
                                          {NULL, FIELD_INT, 0}};
    cli_print(cli, fields, r);
}

enum cb_status cli_train(struct cli *cli, struct train_options *o, const char *model, struct cb_err *err) {
    struct cb_train_result result = {0};
    struct cb_engine *engine;
    o->api.model = model;
    o->api.plan_only = cli->plan_only;
    o->api.text = o->text.item;
    o->api.n_text = o->text.n;
    o->api.sets = o->dataset.item;
    o->api.n_sets = o->dataset.n;
    o->api.columns = o->column.item;
    o->api.n_columns = o->column.n;
    o->api.lr_scales = o->lr_scale.item;
    o->api.n_lr_scales = o->lr_scale.n;
    o->api.valid = o->valid.item;
    o->api.n_valid = o->valid.n;
    o->api.run_json = cli->run_json;
    if (!o->api.plan_only && !o->api.out) FAIL(err, CB_E_USAGE, "%s: --out DIR is missing", cli->command->name);
    if (!o->api.plan_only && !o->text.n && !o->dataset.n) FAIL(err, CB_E_USAGE, "%s: training data is missing", cli->command->name);
    TRY(cli_engine(cli, !o->api.plan_only, &engine, err));
    enum cb_status status = cb_train(engine, &o->api, &result, err);
    cli_end_line(cli);
    if (result.dump) fputs(result.dump, cli->json ? stderr : stdout);
    if (status == CB_OK || status == CB_E_STOPPED) {
        if (o->api.plan_only)
            print_plan(cli, &result);
        else
            cli_print(cli, train_fields, &result);
    }
    cb_free(result.dump);
    cb_engine_destroy(&engine);
    return status;
}
