/* generate --chat: messages from standard input, answers streamed; the conversation is kept as JSON and given whole each time. */
#include "cli/chat.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

/* The messages so far: text of a JSON list without its last bracket. */
struct talk {
    struct cli *cli;
    const char *system;
    char *json;
    size_t n;
    bool is_terminal, stopped;
};

static enum cb_status add(struct talk *t, const char *role, const char *content, struct cb_err *err) {
    char *text = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&text, &n);
    if (!file) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    fprintf(file, "%s%s{\"role\": \"%s\", \"content\": ", t->n ? t->json : "[", t->n > 1 ? ", " : "", role);
    cli_json_text(file, content);
    fputc('}', file);
    if (fclose(file) || !text) {
        free(text);
        FAIL(err, CB_E_MEMORY, "chat: out of memory");
    }
    free(t->json);
    t->json = text;
    t->n = n;
    return CB_OK;
}

static enum cb_status begin(struct talk *t, struct cb_err *err) {
    free(t->json);
    t->json = NULL;
    t->n = 0;
    return t->system ? add(t, "system", t->system, err) : CB_OK;
}

/* Ctrl-C waits while an answer is made, and ends it. */
static bool interrupted(void) {
    sigset_t set;
    struct timespec zero = {0, 0};
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    return sigtimedwait(&set, NULL, &zero) == SIGINT;
}
static void interrupt_mask(int how) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(how, &set, NULL);
}

static bool print_piece(void *user, const char *text, int32_t id) {
    struct talk *t = user;
    (void)id;
    if (text && !t->cli->json) fputs(text, stdout), fflush(stdout);
    t->stopped = t->is_terminal && interrupted();
    return !t->stopped;
}

/* Answers a conversation; *text: owned by caller, cb_free. */
static enum cb_status answer(struct talk *t, struct cb_generator *g, struct cb_generate_options *o, const char *json, char **text,
                             struct cb_err *err) {
    struct cb_generate_result r = {0};
    o->messages = json;
    o->piece = print_piece;
    o->user = t;
    TRY(cb_generator_answer(g, o, &r, err));
    if (t->cli->json) {
        fputs("{\"role\": \"assistant\", \"content\": ", stdout);
        cli_json_text(stdout, r.text ? r.text : "");
        printf(", \"prompt_tokens\": %lld, \"new_tokens\": %lld, \"stopped_by\": \"%s\"}", (long long)r.prompt_tokens, (long long)r.n_ids,
               r.stopped_by);
    }
    puts(t->stopped ? " ..." : "");
    fflush(stdout);
    *text = r.text;
    cb_free(r.ids);
    return CB_OK;
}

static enum cb_status say(struct talk *t, struct cb_generator *g, struct cb_generate_options *o, const char *message, struct cb_err *err) {
    char *json, *text = NULL;
    TRY(add(t, "user", message, err));
    if (asprintf(&json, "%s]", t->json) < 0) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    enum cb_status status = answer(t, g, o, json, &text, err);
    free(json);
    if (status == CB_OK) status = add(t, "assistant", text ? text : "", err);
    cb_free(text);
    return status;
}

/* All that is left of standard input behind a first line. Owned by caller. */
static enum cb_status read_rest(char **text, const char *first, struct cb_err *err) {
    size_t n = 0;
    char bytes[4096];
    FILE *file = open_memstream(text, &n);
    if (!file) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    fputs(first, file);
    for (size_t got; (got = fread(bytes, 1, sizeof bytes, stdin)) > 0;) fwrite(bytes, 1, got, file);
    if (fclose(file)) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    return CB_OK;
}

static bool is_conversation(const char *line) {
    line += strspn(line, " \t\r\n");
    return (*line == '[' && strchr(line, '{')) || (*line == '[' && !line[1 + strspn(line + 1, " \t\r\n")]) ||
           (*line == '{' && strstr(line, "\"messages\"")) || (*line == '{' && !line[1 + strspn(line + 1, " \t\r\n")]);
}

static enum cb_status talk_on(struct talk *t, struct cb_generator *g, struct cb_generate_options *o, struct cb_err *err) {
    char *line = NULL;
    size_t size = 0;
    enum cb_status status = begin(t, err);
    for (int64_t n_lines = 0; status == CB_OK; n_lines++) {
        if (t->is_terminal) fputs("> ", stdout), fflush(stdout);
        interrupt_mask(SIG_UNBLOCK);
        ssize_t n = getline(&line, &size, stdin);
        interrupt_mask(SIG_BLOCK);
        if (n < 0) break;
        if (!t->is_terminal && !n_lines && is_conversation(line)) {
            char *all = NULL, *text = NULL;
            status = read_rest(&all, line, err);
            if (status == CB_OK) status = answer(t, g, o, all, &text, err);
            cb_free(text);
            free(all);
            break;
        }
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
        if (!n) continue;
        if (t->is_terminal && (!strcmp(line, "/exit") || !strcmp(line, "/quit"))) break;
        if (!strcmp(line, "/reset"))
            status = begin(t, err);
        else
            status = say(t, g, o, line, err);
    }
    if (t->is_terminal) putchar('\n');
    free(line);
    return status;
}

enum cb_status cli_chat(struct cli *cli, struct cb_generate_options *options, const char *system, struct cb_err *err) {
    struct talk t = {.cli = cli, .system = system, .is_terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    struct cb_generator *g = NULL;
    struct cb_engine *engine;
    TRY(cli_engine(cli, true, &engine, err));
    enum cb_status status = cb_generator_open(&g, engine, options, err);
    if (status == CB_OK && t.is_terminal && !cli->quiet)
        fputs("/reset begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer\n", stderr);
    if (status == CB_OK) status = talk_on(&t, g, options, err);
    interrupt_mask(SIG_UNBLOCK);
    free(t.json);
    cb_generator_close(&g);
    cb_engine_destroy(&engine);
    return status;
}
