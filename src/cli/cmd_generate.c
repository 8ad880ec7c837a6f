/* cambium generate: continues a prompt, answers a conversation, talks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/chat.h"

struct generate_options {
    struct cb_generate_options api;
    const char *ids, *messages, *system;
    struct text_list stop;
    bool stream, chat;
};

#define AT(field) offsetof(struct generate_options, api.field)
static const struct option options[] = {
    {"prompt", OPTION_TEXT, AT(prompt), "TEXT", "what to continue (default: standard input)"},
    {"ids", OPTION_TEXT, offsetof(struct generate_options, ids), "1,2,3", "or token ids"},
    {"messages", OPTION_TEXT, offsetof(struct generate_options, messages), "FILE.json",
     "or a conversation: a list of {role, content}, or an object with messages and tools"},
    {"chat", OPTION_FLAG, offsetof(struct generate_options, chat), NULL, "talk: messages from standard input"},
    {"system", OPTION_TEXT, offsetof(struct generate_options, system), "TEXT", "of --chat: the system's message"},
    {"chat-template", OPTION_TEXT, AT(chat_template), "FILE|NAME", "instead of the model's own; chatml, llama3, ..."},
    {"max-new", OPTION_POSITIVE, AT(max_new), "N", "new tokens at most (default 128)"},
    {"temperature", OPTION_ABOVE_ZERO, AT(temperature), "X", "what logits are divided by (default 1); for greedy decoding give --greedy"},
    {"top-k", OPTION_COUNT_OR_NONE, AT(top_k), "N", "only the N likeliest (default 0: all)"},
    {"top-p", OPTION_ABOVE_ZERO, AT(top_p), "X", "the likeliest that together reach X (default 1: all)"},
    {"min-p", OPTION_OR_NONE, AT(min_p), "X", "at least X times the likeliest (default 0: any)"},
    {"repeat-penalty", OPTION_ABOVE_ZERO, AT(repeat_penalty), "X", "above 1: against repetition (default 1: none)"},
    {"stop", OPTION_LIST, offsetof(struct generate_options, stop), "TEXT", "texts that end it"},
    {"greedy", OPTION_FLAG, AT(greedy), NULL, "always the likeliest"},
    {"ignore-eos", OPTION_FLAG, AT(ignore_eos), NULL, "go on past the end-of-text token"},
    {"context", OPTION_COUNT, AT(context), "N", "positions kept in the cache"},
    {"modules", OPTION_TEXT, AT(modules), "EXPR", "modules to put on the model"},
    {"stream", OPTION_FLAG, offsetof(struct generate_options, stream), NULL, "print text as it comes"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};

/* "1,2,3" into ids. Owned by caller. */
static enum cb_status parse_ids(const char *text, int32_t **ids, int64_t *n, struct cb_err *err) {
    size_t size = 1;
    for (const char *p = text; *p; p++) size += *p == ',';
    if (!(*ids = malloc(size * sizeof **ids))) FAIL(err, CB_E_MEMORY, "out of memory");
    *n = 0;
    for (const char *p = text; *p;) {
        char *end;
        long id = strtol(p, &end, 10);
        if (end == p || id < 0 || id > INT32_MAX || (*end && *end != ','))
            FAIL(err, CB_E_USAGE, "--ids '%s': wanted numbers with commas between", text);
        (*ids)[(*n)++] = (int32_t)id;
        p = *end ? end + 1 : end;
    }
    return CB_OK;
}

/* All of a file. Owned by caller. */
static enum cb_status read_all(char **text, FILE *file, struct cb_err *err) {
    size_t n = 0, size = 4096;
    char *p = malloc(size), *more;
    for (size_t got; p && (got = fread(p + n, 1, size - n - 1, file)) > 0;) {
        n += got;
        if (size - n > 1) continue;
        if (!(more = realloc(p, size *= 2))) free(p);
        p = more;
    }
    if (!p) FAIL(err, CB_E_MEMORY, "out of memory");
    p[n] = 0;
    *text = p;
    return CB_OK;
}

static enum cb_status read_messages(char **text, const char *path, struct cb_err *err) {
    if (!strcmp(path, "-")) return read_all(text, stdin, err);
    FILE *file = fopen(path, "rb");
    if (!file) FAIL(err, CB_E_IO, "%s: %s", path, strerror(errno));
    enum cb_status status = read_all(text, file, err);
    fclose(file);
    return status;
}

static bool print_piece(void *user, const char *text, int32_t id) {
    const struct cli *cli = user;
    if (cli->json) {
        printf("{\"id\": %d, \"text\": ", id);
        if (text)
            cli_json_text(stdout, text);
        else
            fputs("null", stdout);
        puts("}");
    } else if (text) {
        fputs(text, stdout);
    } else {
        printf("%d ", id);
    }
    return fflush(stdout) == 0;
}

static void print_json(const struct cb_generate_result *r) {
    fputs("{\"text\": ", stdout);
    if (r->text)
        cli_json_text(stdout, r->text);
    else
        fputs("null", stdout);
    fputs(", \"ids\": [", stdout);
    for (int64_t i = 0; i < r->n_ids; i++) printf("%s%d", i ? ", " : "", r->ids[i]);
    printf(
        "], \"prompt_tokens\": %lld, \"prefill_tokens_per_s\": %.6g, \"decode_tokens_per_s\": %.6g, \"first_token_s\": %.6g, "
        "\"stopped_by\": \"%s\"}\n",
        (long long)r->prompt_tokens, r->prefill_tokens_per_s, r->decode_tokens_per_s, r->first_token_s, r->stopped_by ? r->stopped_by : "");
}

static void print_plan(const struct cli *cli, const struct cb_generate_result *r) {
    const char *format = cli->json ? "{\"planned_bytes\": %lld, \"by_kind\": {\"weights\": %lld, \"cache\": %lld, \"activations\": %lld}}\n"
                                   : "planned_bytes %lld\nweights %lld\ncache %lld\nactivations %lld\n";
    printf(format, (long long)r->planned_bytes, (long long)r->weights_bytes, (long long)r->cache_bytes, (long long)r->activations_bytes);
}

static enum cb_status run_generate(struct cli *cli, struct generate_options *o, const char *model, struct cb_err *err) {
    struct cb_generate_result r = {0};
    struct cb_engine *engine = NULL;
    char *input = NULL;
    int32_t *ids = NULL;
    o->api.plan_only = cli->plan_only;
    bool stream = o->stream || (!cli->json && !o->api.plan_only);
    o->api.model = model;
    o->api.stop = o->stop.item;
    o->api.n_stop = o->stop.n;
    o->api.piece = stream ? print_piece : NULL;
    o->api.user = cli;
    enum cb_status status = CB_OK;
    if ((o->ids != NULL) + (o->api.prompt != NULL) + (o->messages != NULL) + o->chat > 1)
        FAIL(err, CB_E_USAGE, "generate: --prompt, --ids, --messages, --chat: wanted one of them");
    if (o->system && !o->chat) FAIL(err, CB_E_USAGE, "generate: --system goes with --chat");
    if (o->chat && !o->api.plan_only) return cli_chat(cli, &o->api, o->system, err);
    if (o->ids)
        status = parse_ids(o->ids, &ids, &o->api.n_ids, err);
    else if (o->messages)
        status = read_messages(&input, o->messages, err);
    else if (!o->api.prompt && !o->api.plan_only)
        status = read_all(&input, stdin, err);
    o->api.ids = ids;
    if (o->messages && strcmp(o->messages, "-") != 0) o->api.messages_name = o->messages;
    if (o->messages)
        o->api.messages = input;
    else if (input)
        o->api.prompt = input;
    if (status == CB_OK) status = cli_engine(cli, false, &engine, err);
    if (status == CB_OK) status = cb_generate(engine, &o->api, &r, err);
    if (status == CB_OK) {
        if (o->api.plan_only)
            print_plan(cli, &r);
        else if (!stream)
            print_json(&r);
        else if (!cli->json)
            putchar('\n');
    }
    cb_free(r.text);
    cb_free(r.ids);
    cb_engine_destroy(&engine);
    free(input);
    free(ids);
    return status;
}

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    (void)n_args;
    return run_generate(cli, parsed, args[0], err);
}

const struct command command_generate = {.name = "generate",
                                         .usage = "MODEL [--prompt TEXT | --ids 1,2,3 | --messages FILE | --chat]",
                                         .summary = "continues a prompt, answers a conversation",
                                         .more =
                                             "Of --max-new, the sampling options and --greedy: what is not given is as the model's "
                                             "generation_config.json says; where that says nothing, the defaults below hold.",
                                         .options = options,
                                         .bytes = sizeof(struct generate_options),
                                         .min_args = 1,
                                         .max_args = 1,
                                         .can_plan = true,
                                         .run = run};
