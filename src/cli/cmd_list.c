/* cambium list: the registries. */
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"

struct list_options {
    bool markdown;
};
static const struct option options[] = {{"markdown", OPTION_FLAG, offsetof(struct list_options, markdown), NULL, "as a document"},
                                        {NULL, OPTION_FLAG, 0, NULL, NULL}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    const struct list_options *o = parsed;
    char *text = NULL;
    TRY(cb_list(args[0], n_args > 1 ? args[1] : NULL, cli->json ? "json" : o->markdown ? "markdown" : "text", &text, err));
    fputs(text, stdout);
    if (*text && text[strlen(text) - 1] != '\n') putchar('\n');
    cb_free(text);
    return CB_OK;
}

const struct command command_list = {.name = "list",
                                     .usage = "ops|kernels|models|tuners|optimizers|... [NAME]",
                                     .summary = "what there is, one line each; with NAME all about one",
                                     .options = options,
                                     .bytes = sizeof(struct list_options),
                                     .min_args = 1,
                                     .max_args = 2,
                                     .run = run};
