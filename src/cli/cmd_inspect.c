/* cambium inspect: what a file or folder is. */
#include "base/err.h"
#include "cli/cli.h"

struct inspect_options {
    const char *model;
    bool check, tensors;
};
#define AT(field) offsetof(struct inspect_options, field)
static const struct option options[] = {{"model", OPTION_TEXT, AT(model), "BASE", "the base that an adapter should fit"},
                                        {"check", OPTION_FLAG, AT(check), NULL, "refuse a broken one: exit status 1 and one line"},
                                        {"tensors", OPTION_FLAG, AT(tensors), NULL, "every tensor with type and shape"},
                                        {NULL, OPTION_FLAG, 0, NULL, NULL}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct inspect_options *o = parsed;
    char *text = NULL;
    (void)n_args;
    TRY(cb_inspect(args[0], o->model, o->check, o->tensors, cli->json, &text, err));
    puts(text);
    cb_free(text);
    return CB_OK;
}

const struct command command_inspect = {.name = "inspect",
                                        .usage = "PATH [--check] [--tensors] [--model BASE]",
                                        .summary = "what a file or folder is: tensors, types, keys, problems",
                                        .options = options,
                                        .bytes = sizeof(struct inspect_options),
                                        .min_args = 1,
                                        .max_args = 1,
                                        .run = run};
