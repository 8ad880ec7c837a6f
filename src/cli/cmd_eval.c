/* cambium eval: likelihood of text. */
#include "base/err.h"
#include "cli/cli.h"

struct eval_options {
    struct cb_eval_options api;
    struct text_list text, column;
};
#define AT(field) offsetof(struct eval_options, api.field)
static const struct option options[] = {
    {"text", OPTION_LIST, offsetof(struct eval_options, text), "FILE", "text to score (required)"},
    {"data", OPTION_LIST, offsetof(struct eval_options, text), "FILE", "the same; labelled examples of a --task"},
    {"modules", OPTION_TEXT, AT(modules), "EXPR", "modules to put on the model"},
    {"seq", OPTION_POSITIVE, AT(seq), "N", "window in tokens (default: the model's context)"},
    {"stride", OPTION_POSITIVE, AT(stride), "N", "step between windows (default: seq; of qa two thirds of a window)"},
    {"batch", OPTION_POSITIVE, AT(batch), "N", "windows at a time (default 8)"},
    {"invalid", OPTION_TEXT, AT(invalid), "HOW", "invalid UTF-8: fail (default), replace, skip"},
    {"task", OPTION_TEXT, AT(task), "NAME",
     "text, chat, mlm, span-corruption (default: by the model and the data); classify, regress, tag, qa, choice: labelled examples"},
    {"answer-tokens", OPTION_POSITIVE, AT(answer_tokens), "N", "of qa: the longest answer (default 30)"},
    {"submission", OPTION_TEXT, AT(submission), "FILE", "writes the guesses of a labelled task: of qa as SQuAD's script reads them"},
    {"mask", OPTION_TEXT, AT(mask), "KIND", "what mlm hides: whole-word (default), token, span"},
    {"mask-rate", OPTION_ABOVE_ZERO, AT(mask_rate), "X", "share of the tokens that is hidden (default 0.15)"},
    {"chat-template", OPTION_TEXT, AT(chat_template), "FILE|NAME", "instead of the model's own; chatml, llama3, ..."},
    {"column", OPTION_LIST, offsetof(struct eval_options, column), "KEY=COLUMN", "of tables: text=review"},
    {"format", OPTION_TEXT, AT(format), "NAME", "of the files: text, jsonl, json, csv, parquet, conll, idx (default: by name)"},
    {"separator", OPTION_TEXT, AT(separator), "C", "of CSV columns (default: by the first line)"},
    {"quote", OPTION_TEXT, AT(quote), "C|none", "around cells of CSV (default: \")"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};
#define R(field) offsetof(struct cb_eval_result, field)
static const struct field fields[] = {{"tokens", FIELD_INT, R(tokens)},
                                      {"bytes", FIELD_INT, R(bytes)},
                                      {"loss", FIELD_NUMBER, R(loss)},
                                      {"perplexity", FIELD_NUMBER, R(perplexity)},
                                      {"bits_per_byte", FIELD_NUMBER, R(bits_per_byte)},
                                      {"word_perplexity", FIELD_NUMBER, R(word_perplexity)},
                                      {"seconds", FIELD_NUMBER, R(seconds)},
                                      {NULL, FIELD_INT, 0}};

#define T(field) offsetof(struct cb_task_result, field)
static const struct field task_fields[] = {{"n", FIELD_INT, T(n)},
                                           {"loss", FIELD_NUMBER, T(loss)},
                                           {"accuracy", FIELD_NUMBER, T(accuracy)},
                                           {"f1", FIELD_NUMBER, T(f1)},
                                           {"exact_match", FIELD_NUMBER, T(exact_match)},
                                           {"mcc", FIELD_NUMBER, T(mcc)},
                                           {"pearson", FIELD_NUMBER, T(pearson)},
                                           {"spearman", FIELD_NUMBER, T(spearman)},
                                           {"seconds", FIELD_NUMBER, T(seconds)},
                                           {NULL, FIELD_INT, 0}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct eval_options *o = parsed;
    struct cb_eval_result result = {0};
    struct cb_engine *engine;
    (void)n_args;
    if (!o->text.n) FAIL(err, CB_E_USAGE, "eval: --text FILE... (or --data) is missing");
    o->api.model = args[0];
    o->api.text = o->text.item;
    o->api.n_text = o->text.n;
    o->api.columns = o->column.item;
    o->api.n_columns = o->column.n;
    TRY(cli_engine(cli, false, &engine, err));
    const bool labelled = cb_task_is_labelled(o->api.task);
    struct cb_task_result scored;
    enum cb_status status = labelled ? cb_eval_task(engine, &o->api, &scored, err) : cb_eval_text(engine, &o->api, &result, err);
    cli_end_line(cli);
    if (status == CB_OK && labelled)
        cli_print(cli, task_fields, &scored);
    else if (status == CB_OK)
        cli_print(cli, fields, &result);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_eval = {.name = "eval",
                                     .usage = "MODEL --text T... [--modules EXPR] | MODEL --task NAME --data D",
                                     .summary = "likelihood of text, or how well a labelled task is done",
                                     .options = options,
                                     .bytes = sizeof(struct eval_options),
                                     .min_args = 1,
                                     .max_args = 1,
                                     .run = run};
