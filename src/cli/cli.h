/* The command line's frame: one table per verb both parses its options and prints its help. */
#ifndef CLI_CLI_H
#define CLI_CLI_H
#include <cambium/cambium.h>
#include <stdio.h>

enum option_kind {
    OPTION_FLAG,  // bool
    OPTION_COUNT,  // int64_t, k M G
    OPTION_POSITIVE,  // the same, from 1 on
    OPTION_COUNT_OR_NONE,  // the same; 0 means none and is kept as -1: in the library 0 is the default
    OPTION_SIZE,  // int64_t bytes from 0 on, KiB MiB GiB
    OPTION_NUMBER,  // double
    OPTION_ABOVE_ZERO,  // double above 0
    OPTION_OR_NONE,  // double; 0 means none and is kept as -1
    OPTION_TEXT,  // const char *
    OPTION_LIST,  // struct text_list: everything up to the next option
    OPTION_EACH,  // struct text_list: one value, and may be given again
};

struct text_list {
    const char **item;
    int n;
};

struct option {
    const char *name;  // NULL ends the table
    enum option_kind kind;
    size_t offset;
    const char *value;  // how help shows the value: "N", "FILE"; NULL for a flag
    const char *help;
};

/* What every verb has, and the state of this run. */
struct cli {
    int64_t threads, seed, memory;
    const char *device, *cpu_mask, *kernels, *config;
    bool json, force, quiet, deterministic, help;
    bool plan_only;  // under the verb `plan`
    // set while running
    const struct command *command;
    struct text_list module, field;  // NAME=PATH and FIELD=VALUE, for --modules
    struct text_list config_texts;  // values of --config and of --module and --field, which options borrow
    bool is_terminal, stop_asked, line_open;
    double last_line_s;
    const char *run_json;  // options in force
};

struct command {
    const char *name, *usage, *summary;  // usage: after "cambium NAME"
    const char *more;  // further help text; NULL: none
    const struct option *options;
    size_t bytes;  // of the struct that options point into
    int min_args, max_args;
    bool can_plan;  // runs under `plan` with cli->plan_only
    bool takes_fields;  // reads cli->field itself, where it has no --modules
    bool is_prefix;  // stands before another verb: `plan`
    /* args: what is not an option. Returns the status; a failure's message is in err. */
    enum cb_status (*run)(struct cli *cli, void *options, char **args, int n_args, struct cb_err *err);
};

/* All verbs, NULL-ended. */
const struct command *const *cli_commands(void);

/* parse.c */
enum cb_status cli_parse(struct cli *cli, const struct command *command, void *options, char **argv, int argc, char **args, int *n_args,
                         struct cb_err *err);
/* The options in force as JSON. Owned by caller, free(). */
char *cli_options_json(const struct cli *cli, const struct command *command, const void *options, char **args, int n_args);
void cli_help(FILE *f, const struct command *command);
/* The nearest of the names by edit distance, NULL where none is near. */
const char *cli_nearest(const char *name, const char *const *names, int n);

/* output.c: one JSON object on standard output, or lines for people. */
enum field_kind { FIELD_INT, FIELD_NUMBER, FIELD_TEXT, FIELD_BYTES };
struct field {
    const char *name;  // NULL ends
    enum field_kind kind;
    size_t offset;
};
void cli_print(const struct cli *cli, const struct field *fields, const void *result);
void cli_json_text(FILE *f, const char *text);

/* engine.c: an engine with this command line's options, progress on standard error. train: Ctrl-C asks for a checkpoint first. */
enum cb_status cli_engine(struct cli *cli, bool train, struct cb_engine **engine, struct cb_err *err);
/* Ends a progress line that is open on a terminal. */
void cli_end_line(struct cli *cli);
#endif
