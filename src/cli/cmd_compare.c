/* cambium compare: several tuners on one task at equal budgets. */
#include <math.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"

struct arguments {
    struct cb_compare_options api;
    struct text_list tuner, data, valid, test, column;
};

#define AT(field) offsetof(struct arguments, api.field)
#define LIST(field) offsetof(struct arguments, field)
static const struct option options[] = {
    {"tuner", OPTION_LIST, LIST(tuner), "SPEC",
     "one to compare (give it several times): full, last:2, head, lora:r=8; SPEC@RATE for its own rate"},
    {"task", OPTION_TEXT, AT(task), "NAME", "classify, regress, tag, qa, choice, text or chat (required)"},
    {"new-head", OPTION_FLAG, AT(new_head), NULL, "labels and their head are the data's, also where the model has some"},
    {"data", OPTION_LIST, LIST(data), "FILE", "labelled examples, or texts, to learn (required)"},
    {"valid", OPTION_LIST, LIST(valid), "FILE", "examples to choose by (required)"},
    {"test", OPTION_LIST, LIST(test), "FILE", "examples that nothing is chosen by"},
    {"out", OPTION_TEXT, AT(out), "DIR", "folder to write (required): a folder a run, compare.json, compare.md, compare.svg"},
    {"steps", OPTION_POSITIVE, AT(steps), "N", "optimiser steps a run"},
    {"seconds", OPTION_ABOVE_ZERO, AT(seconds), "X", "or training time a run, by the time of five steps"},
    {"seeds", OPTION_POSITIVE, AT(seeds), "N", "runs a tuner, --seed and the next ones (default 1)"},
    {"batch", OPTION_POSITIVE, AT(batch), "N", "examples a step (default 8)"},
    {"seq", OPTION_POSITIVE, AT(seq), "N", "tokens an example (default: the longest)"},
    {"stride", OPTION_POSITIVE, AT(stride), "N", "of qa: tokens between windows of a long context (default: two thirds of one)"},
    {"lr", OPTION_ABOVE_ZERO, AT(lr), "X", "learning rate of tuners without one of their own"},
    {"metric", OPTION_TEXT, AT(metric), "NAME",
     "accuracy (default), f1 (default of tags and answers), exact_match, mcc, pearson (default of numbers), spearman, "
     "loss (default of text); of text perplexity and bits_per_byte too"},
    {"column", OPTION_LIST, LIST(column), "KEY=COLUMN", "of tables: text=sentence label=gold text_b=second"},
    {"format", OPTION_TEXT, AT(format), "NAME", "of the files: jsonl, json, csv, parquet, conll, text (default: by name)"},
    {"separator", OPTION_TEXT, AT(separator), "C", "of CSV columns (default: by the first line)"},
    {"quote", OPTION_TEXT, AT(quote), "C|none", "around cells of CSV (default: \")"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};

static void number(const char *name, double value, const char *end) {
    if (isfinite(value))
        printf("\"%s\": %.6g%s", name, value, end);
    else
        printf("\"%s\": null%s", name, end);
}

static void print_json(const struct cb_compare_result *r) {
    printf("{\"rows\": [");
    for (int i = 0; i < r->n_rows; i++) {
        const struct cb_compare_row *row = &r->rows[i];
        printf("%s{\"tuner\": ", i ? ", " : "");
        cli_json_text(stdout, row->tuner);
        printf(", \"seeds\": %lld, \"steps\": %lld, ", (long long)row->seeds, (long long)row->mean.steps);
        number("valid", row->mean.valid, ", ");
        number("test", row->mean.test, ", ");
        number("error", row->error, ", ");
        number("step_ms", row->mean.step_ms, ", ");
        number("seconds", row->mean.seconds, ", ");
        printf("\"trainable\": %lld, \"total\": %lld, \"planned_bytes\": %lld, \"file_bytes\": %lld}", (long long)row->mean.trainable,
               (long long)row->mean.total, (long long)row->mean.planned_bytes, (long long)row->mean.file_bytes);
    }
    printf("]}\n");
}

/* A measure in its column; one that was not taken is a dash. */
static void cell(double value, int width) {
    if (isnan(value))
        printf(" %*s", width, "-");
    else
        printf(" %*.4f", width, value);
}

static void print_table(const struct cb_compare_result *r) {
    printf("%-36s %8s %8s %7s %9s %8s %9s %8s\n", "tuner", "valid", "test", "+-", "trained", "step ms", "MiB", "file kB");
    for (int i = 0; i < r->n_rows; i++) {
        const struct cb_compare_run *m = &r->rows[i].mean;
        printf("%-36s", r->rows[i].tuner);
        cell(m->valid, 8);
        cell(m->test, 8);
        cell(r->rows[i].error, 7);
        printf(" %8.3f%% %8.1f %9.1f %8.1f\n", 100.0 * (double)m->trainable / (double)m->total, m->step_ms,
               (double)m->planned_bytes / 1048576, (double)m->file_bytes / 1000);
    }
}

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct arguments *a = parsed;
    struct cb_compare_result result = {0};
    struct cb_engine *engine;
    (void)n_args;
    a->api.model = args[0];
    a->api.tuners = a->tuner.item;
    a->api.n_tuners = a->tuner.n;
    a->api.text = a->data.item;
    a->api.n_text = a->data.n;
    a->api.valid = a->valid.item;
    a->api.n_valid = a->valid.n;
    a->api.test = a->test.item;
    a->api.n_test = a->test.n;
    a->api.columns = a->column.item;
    a->api.n_columns = a->column.n;
    a->api.run_json = cli->run_json;
    TRY(cli_engine(cli, true, &engine, err));
    enum cb_status status = cb_compare(engine, &a->api, &result, err);
    cli_end_line(cli);
    if (status == CB_OK) (cli->json ? print_json : print_table)(&result);
    cb_free(result.rows);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_compare = {.name = "compare",
                                        .usage = "MODEL --task NAME --data D --valid V --tuner SPEC... --out DIR",
                                        .summary = "trains several tuners on one task at equal budgets: a table and a plot",
                                        .options = options,
                                        .bytes = sizeof(struct arguments),
                                        .min_args = 1,
                                        .max_args = 1,
                                        .run = run};
