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
    {"modules", OPTION_TEXT, AT(modules), "EXPR", "modules to put on the model"},
    {"seq", OPTION_POSITIVE, AT(seq), "N", "window in tokens (default: the model's context)"},
    {"stride", OPTION_POSITIVE, AT(stride), "N", "step between windows (default: seq)"},
    {"batch", OPTION_POSITIVE, AT(batch), "N", "windows at a time (default 8)"},
    {"invalid", OPTION_TEXT, AT(invalid), "HOW", "invalid UTF-8: fail (default), replace, skip"},
    {"task", OPTION_TEXT, AT(task), "NAME", "text, chat, mlm or span-corruption (default: by the model and the data)"},
    {"mask", OPTION_TEXT, AT(mask), "KIND", "what mlm hides: whole-word (default), token, span"},
    {"mask-rate", OPTION_ABOVE_ZERO, AT(mask_rate), "X", "share of the tokens that is hidden (default 0.15)"},
    {"chat-template", OPTION_TEXT, AT(chat_template), "FILE|NAME", "instead of the model's own; chatml, llama3, ..."},
    {"column", OPTION_LIST, offsetof(struct eval_options, column), "KEY=COLUMN", "of tables: text=review"},
    {"format", OPTION_TEXT, AT(format), "NAME", "of the files: text, jsonl, csv, parquet, conll, idx (default: by name)"},
    {"separator", OPTION_TEXT, AT(separator), "C", "of CSV columns (default: by the first line)"},
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

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct eval_options *o = parsed;
    struct cb_eval_result result = {0};
    struct cb_engine *engine;
    (void)n_args;
    if (!o->text.n) FAIL(err, CB_E_USAGE, "eval: --text FILE... is missing");
    o->api.model = args[0];
    o->api.text = o->text.item;
    o->api.n_text = o->text.n;
    o->api.columns = o->column.item;
    o->api.n_columns = o->column.n;
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_eval_text(engine, &o->api, &result, err);
    cli_end_line(cli);
    if (status == CB_OK) cli_print(cli, fields, &result);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_eval = {.name = "eval",
                                     .usage = "MODEL --text T... [--modules EXPR]",
                                     .summary = "likelihood of text: loss, perplexity, bits per byte",
                                     .options = options,
                                     .bytes = sizeof(struct eval_options),
                                     .min_args = 1,
                                     .max_args = 1,
                                     .run = run};
