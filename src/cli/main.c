/* The command `cambium`: finds the verb, parses by its table, runs it, turns its status into an exit status. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"

#define COMMAND(name) extern const struct command command_##name;
#include "gen/commands.inc"
#undef COMMAND

static const struct command *const commands[] = {
#define COMMAND(name) &command_##name,
#include "gen/commands.inc"
#undef COMMAND
    NULL};

const struct command *const *cli_commands(void) { return commands; }

static void overview(FILE *f) {
    fputs("usage: cambium VERB [arguments] [--options]\n\nverbs:\n", f);
    for (int i = 0; commands[i]; i++) fprintf(f, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n`cambium VERB --help` tells all about one.\n", f);
}

static const struct command *find(const char *name) {
    for (int i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

/* An error is one line. */
static int failed(struct cli *cli, const struct cb_err *err, enum cb_status status) {
    cli_end_line(cli);
    char line[sizeof err->message];
    snprintf(line, sizeof line, "%s", err->message[0] ? err->message : cb_status_text(status));
    for (char *p = line; *p; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';
    fprintf(stderr, "cambium: %s\n", line);
    if (status == CB_E_STOPPED) return 130;
    return status == CB_E_USAGE ? 2 : 1;
}

static int run(const struct command *command, bool plan_only, int argc, char **argv) {
    struct cli cli = {.command = command, .plan_only = plan_only};
    struct cb_err err = {0};
    void *options = calloc(1, command->bytes + 1);
    char **args = calloc((size_t)argc + 1, sizeof *args);
    int n_args = 0, exit_status = 0;
    enum cb_status status = options && args ? cli_parse(&cli, command, options, argv, argc, args, &n_args, &err) : CB_E_MEMORY;
    if (status == CB_OK && cli.help) {
        cli_help(stdout, command);
    } else {
        char *json = status == CB_OK ? cli_options_json(&cli, command, options, args, n_args) : NULL;
        cli.run_json = json;
        if (status == CB_OK) status = command->run(&cli, options, args, n_args, &err);
        cli_end_line(&cli);
        free(json);
        if (status != CB_OK) exit_status = failed(&cli, &err, status);
    }
    if (fflush(stdout) || ferror(stdout)) {
        fputs("cambium: standard output: cannot be written\n", stderr);
        exit_status = exit_status ? exit_status : 1;
    }
    for (const struct option *o = command->options; o && o->name && options; o++) {
        struct text_list *list = o->kind == OPTION_LIST ? (void *)((char *)options + o->offset) : NULL;
        if (!list) continue;
        free(list->item);
        *list = (struct text_list){0};  // two options may fill one list
    }
    for (int i = 0; i < cli.config_texts.n; i++) free((char *)cli.config_texts.item[i]);
    free(cli.config_texts.item);
    free(cli.module.item);
    free(cli.field.item);
    free(options);
    free(args);
    return exit_status;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        overview(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        const struct command *about = argc > 2 ? find(argv[2]) : NULL;
        if (about)
            cli_help(stdout, about);
        else
            overview(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        printf("cambium %s\n", cb_version());
        return 0;
    }
    const struct command *command = find(argv[1]), *inner = command && command->is_prefix && argc > 2 ? find(argv[2]) : NULL;
    if (inner && inner->can_plan) return run(inner, true, argc - 3, argv + 3);
    if (inner) return run(command, false, 1, argv + 2);  // says what can be planned
    if (command) return run(command, false, argc - 2, argv + 2);
    const char *names[64];
    int n = 0;
    for (; commands[n] && n < 64; n++) names[n] = commands[n]->name;
    const char *near = cli_nearest(argv[1], names, n);
    if (near)
        fprintf(stderr, "cambium: no verb '%s'; did you mean '%s'?\n", argv[1], near);
    else
        fprintf(stderr, "cambium: no verb '%s'; `cambium --help` lists them\n", argv[1]);
    return 2;
}
