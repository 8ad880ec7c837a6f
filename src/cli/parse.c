/* Parsing, --config files and help, all from the option tables. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"

#define COMMON(field) offsetof(struct cli, field)
static const struct option common[] = {
    {"threads", OPTION_COUNT, COMMON(threads), "N", "threads (default: all cores)"},
    {"device", OPTION_TEXT, COMMON(device), "NAME", "cpu or null (plans only)"},
    {"seed", OPTION_COUNT, COMMON(seed), "N", "seed of everything random"},
    {"json", OPTION_FLAG, COMMON(json), NULL, "the result as one JSON object on standard output"},
    {"quiet", OPTION_FLAG, COMMON(quiet), NULL, "no progress"},
    {"config", OPTION_TEXT, COMMON(config), "FILE", "options as a JSON object; the command line wins"},
    {"force", OPTION_FLAG, COMMON(force), NULL,
     "put modules on a base that they were not trained on; go on with a run at other rates; write GGUF without a window that it has no key "
     "for"},
    {"memory", OPTION_SIZE, COMMON(memory), "SIZE", "refuse a plan that needs more, e.g. 4GiB"},
    {"deterministic", OPTION_FLAG, COMMON(deterministic), NULL, "bit-equal for any thread count (always so on the CPU)"},
    {"cpu-mask", OPTION_TEXT, COMMON(cpu_mask), "NAME", "use no newer instructions: scalar, avx2, avx512, amx"},
    {"kernel", OPTION_TEXT, COMMON(kernels), "OP=NAME", "force kernels, e.g. matmul=ref"},
    {"module", OPTION_EACH, COMMON(module), "NAME=PATH", "a name for --modules expressions; may be given again"},
    {"field", OPTION_EACH, COMMON(field), "FIELD=VALUE", "what all rows are, for route(by=FIELD; ...) and hypernetworks in --modules"},
    {"help", OPTION_FLAG, COMMON(help), NULL, "this help"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};

static int distance(const char *a, const char *b) {
    int row[64], n = (int)strlen(b);
    if (n > 60) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int up = row[j], best = corner + (a[i - 1] != b[j - 1]);
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            corner = up;
            row[j] = best;
        }
    }
    return row[n];
}

const char *cli_nearest(const char *name, const char *const *names, int n) {
    const char *best = NULL;
    int least = (int)strlen(name) / 2 + 1;
    if (strlen(name) > 60) return NULL;
    for (int i = 0; i < n; i++)
        if (distance(name, names[i]) < least) least = distance(name, names[i]), best = names[i];
    return best;
}

static const struct option *option_find(const struct option *table, const char *name, size_t n) {
    for (; table && table->name; table++)
        if (strlen(table->name) == n && memcmp(table->name, name, n) == 0) return table;
    return NULL;
}

/* A number with a suffix of powers of 1000 (k M G; of bytes kB KB MB GB) or 1024 (KiB MiB GiB). */
static bool parse_number(const char *text, bool size, double *value) {
    static const struct {
        const char *suffix;
        double factor;
    } suffixes[] = {{"", 1},     {"k", 1e3},  {"K", 1e3},  {"M", 1e6}, {"G", 1e9}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824.0},
                    {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KB", 1e3}};
    char *end;
    errno = 0;
    *value = strtod(text, &end);
    if (end == text || errno == ERANGE || !isfinite(*value)) return false;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (strcmp(end, suffixes[i].suffix) == 0 && (size || i < 5)) {
            *value *= suffixes[i].factor;
            return true;
        }
    return false;
}

static enum cb_status set_value(const struct option *o, void *base, const char *text, struct cb_err *err) {
    char *p = (char *)base + o->offset;
    double value = 0;
    switch (o->kind) {
        case OPTION_FLAG: *(bool *)p = true; return CB_OK;
        case OPTION_TEXT:
            if (!*text && strcmp(o->name, "out") == 0) FAIL(err, CB_E_USAGE, "--out: found an empty name; wanted what to write");
            *(const char **)p = text;
            return CB_OK;
        case OPTION_NUMBER:
        case OPTION_ABOVE_ZERO:
        case OPTION_OR_NONE:
            if (!parse_number(text, false, &value)) FAIL(err, CB_E_USAGE, "--%s '%s': not a number", o->name, text);
            if (o->kind == OPTION_ABOVE_ZERO && value <= 0) FAIL(err, CB_E_USAGE, "--%s %s: wanted a number above 0", o->name, text);
            if (o->kind == OPTION_OR_NONE && value < 0) FAIL(err, CB_E_USAGE, "--%s %s: wanted 0 (none) or more", o->name, text);
            *(double *)p = o->kind == OPTION_OR_NONE && value == 0 ? -1 : value;
            return CB_OK;
        case OPTION_COUNT:
        case OPTION_POSITIVE:
        case OPTION_COUNT_OR_NONE:
        case OPTION_SIZE:
            if (!parse_number(text, o->kind == OPTION_SIZE, &value) || value != floor(value) || fabs(value) > 9e15)
                FAIL(err, CB_E_USAGE, "--%s '%s': not a whole number%s", o->name, text,
                     o->kind == OPTION_SIZE ? " of bytes (KB, MB, GB or KiB, MiB, GiB may follow)" : " (k, M, G may follow)");
            if (o->kind == OPTION_POSITIVE && value < 1) FAIL(err, CB_E_USAGE, "--%s %s: wanted 1 or more", o->name, text);
            if (o->kind == OPTION_SIZE && value < 0) FAIL(err, CB_E_USAGE, "--%s %s: wanted 0 or more bytes", o->name, text);
            if (o->kind == OPTION_COUNT_OR_NONE && value < 0) FAIL(err, CB_E_USAGE, "--%s %s: wanted 0 (none) or more", o->name, text);
            *(int64_t *)p = o->kind == OPTION_COUNT_OR_NONE && value == 0 ? -1 : (int64_t)value;
            return CB_OK;
        case OPTION_EACH:
        case OPTION_LIST: {
            struct text_list *list = (void *)p;
            const char **more = realloc(list->item, ((size_t)list->n + 1) * sizeof *more);
            if (!more) FAIL(err, CB_E_MEMORY, "out of memory");
            list->item = more;
            list->item[list->n++] = text;
            return CB_OK;
        }
    }
    return CB_OK;
}

static enum cb_status unknown_option(const struct command *command, const char *name, struct cb_err *err) {
    const char *names[128];
    int n = 0;
    for (const struct option *o = common; o->name && n < 128; o++) names[n++] = o->name;
    for (const struct option *o = command->options; o && o->name && n < 128; o++) names[n++] = o->name;
    const char *near = cli_nearest(name, names, n);
    FAIL(err, CB_E_USAGE, "%s: no option --%s%s%s%s", command->name, name, near ? "; did you mean --" : "; `cambium ",
         near ? near : command->name, near ? "?" : " --help` lists them");
}

/* A text that lives until the command ends. Takes ownership, also of what cannot be kept. */
static enum cb_status keep_text(struct text_list *kept, char *text, struct cb_err *err) {
    const char **more = text ? realloc(kept->item, ((size_t)kept->n + 1) * sizeof *more) : NULL;
    if (!more) {
        free(text);
        FAIL(err, CB_E_MEMORY, "out of memory");
    }
    kept->item = more;
    kept->item[kept->n++] = text;
    return CB_OK;
}

/* One option of a --config file; options borrow the texts that `kept` holds. */
static enum cb_status set_json(struct text_list *kept, const struct option *o, void *base, const json_t *value, struct cb_err *err) {
    if (o->kind == OPTION_FLAG && !json_is_boolean(value) && !json_is_null(value))
        FAIL(err, CB_E_USAGE, "--%s: found a value; wanted true or false", o->name);
    size_t i = 0;
    do {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        if (!item || json_is_false(item) || json_is_null(item)) continue;
        char *text = json_is_string(item) ? strdup(json_string_value(item)) : json_dumps(item, JSON_ENCODE_ANY);
        TRY(keep_text(kept, text, err));
        TRY(set_value(o, base, text, err));
    } while (json_is_array(value) && ++i < json_array_size(value));
    return CB_OK;
}

/* Options of a --config file (or of a run.json) that the command line did not set. seen: names set there. */
static enum cb_status apply_config(struct cli *cli, const struct command *command, void *options, const char *const *seen, int n_seen,
                                   struct cb_err *err) {
    json_error_t e;
    json_t *root = json_load_file(cli->config, JSON_REJECT_DUPLICATES, &e), *value;
    const char *key;
    if (!root && e.line < 0) FAIL(err, CB_E_IO, "%s: cannot be read: %s", cli->config, strerror(errno));
    if (!root) FAIL(err, CB_E_FORMAT, "%s: line %d: %s; wanted JSON", cli->config, e.line, e.text);
    json_t *all = json_is_object(json_object_get(root, "options")) ? json_object_get(root, "options") : root;
    enum cb_status status = json_is_object(root) ? CB_OK
                                                 : err_set(err, CB_E_FORMAT, __FILE__, __LINE__,
                                                           "%s: found something else; wanted a JSON object of options", cli->config);
    json_object_foreach(all, key, value) {
        bool given = false;
        for (int i = 0; i < n_seen; i++) given |= strcmp(seen[i], key) == 0;
        if (given || status != CB_OK) continue;
        const struct option *o = option_find(common, key, strlen(key));
        void *base = o ? (void *)cli : options;
        if (!o) o = option_find(command->options, key, strlen(key));
        if (!o) {
            status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "%s: '%s' is no option of %s", cli->config, key, command->name);
            break;
        }
        status = set_json(&cli->config_texts, o, base, value, err);
        if (status != CB_OK) err_prefix(err, "%s", cli->config);
    }
    json_decref(root);
    return status;
}

/* --module NAME=PATH, --field FIELD=VALUE: lines before the expression of --modules, as the library takes them. */
static enum cb_status join_modules(struct cli *cli, const struct command *command, void *options, struct cb_err *err) {
    const struct option *o = option_find(command->options, "modules", strlen("modules"));
    const char **expression = o ? (const char **)((char *)options + o->offset) : NULL;
    if (!o && command->takes_fields && !cli->module.n) return CB_OK;
    if (!o || !*expression) FAIL(err, CB_E_USAGE, "%s: --module and --field are for names and fields in --modules EXPR", command->name);
    struct text_list *const lists[] = {&cli->module, &cli->field};
    size_t bytes = strlen(*expression) + 1;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < lists[k]->n; i++) bytes += strlen(lists[k]->item[i]) + 2;
    char *text = malloc(bytes), *to = text;
    for (int k = 0; text && k < 2; k++)
        for (int i = 0; i < lists[k]->n; i++) to += sprintf(to, "%s%s\n", k ? "@" : "", lists[k]->item[i]);
    if (text) strcpy(to, *expression);
    TRY(keep_text(&cli->config_texts, text, err));
    *expression = text;
    cli->module.n = cli->field.n = 0;
    return CB_OK;
}

enum cb_status cli_parse(struct cli *cli, const struct command *command, void *options, char **argv, int argc, char **args, int *n_args,
                         struct cb_err *err) {
    const char *seen[256];
    char help_word[] = "--help";
    int n_seen = 0;
    *n_args = 0;
    const struct option *list = NULL;  // an open list takes further words
    for (int i = 0; i < argc; i++) {
        char *word = argv[i];
        if (strcmp(word, "-h") == 0) word = help_word;
        if (word[0] != '-' || word[1] == 0 || (word[1] != '-' && list == NULL && strchr("0123456789.", word[1]))) {
            if (list)
                TRY(set_value(list, options, argv[i], err));
            else
                args[(*n_args)++] = argv[i];
            continue;
        }
        if (word[1] != '-') FAIL(err, CB_E_USAGE, "%s: option '%s'; options are long: --name", command->name, word);
        list = NULL;
        if (word[2] == 0) {  // "--": the rest are arguments
            while (++i < argc) args[(*n_args)++] = argv[i];
            break;
        }
        const char *name = word + 2, *equals = strchr(name, '=');
        size_t n = equals ? (size_t)(equals - name) : strlen(name);
        const struct option *o = option_find(common, name, n);
        void *base = o ? (void *)cli : options;
        if (!o) o = option_find(command->options, name, n);
        if (!o) return unknown_option(command, name, err);
        if (n_seen < 256) seen[n_seen++] = o->name;
        if (o->kind == OPTION_FLAG) {
            if (equals) FAIL(err, CB_E_USAGE, "--%s takes no value", o->name);
            TRY(set_value(o, base, NULL, err));
        } else if (o->kind == OPTION_LIST && !equals) {
            list = o;
            if (i + 1 >= argc) FAIL(err, CB_E_USAGE, "--%s: found no value; wanted %s", o->name, o->value);
            TRY(set_value(o, base, argv[++i], err));
        } else {
            if (!equals && i + 1 >= argc) FAIL(err, CB_E_USAGE, "--%s: found no value; wanted %s", o->name, o->value);
            TRY(set_value(o, base, equals ? equals + 1 : argv[++i], err));
        }
    }
    if (cli->config && !cli->help) TRY(apply_config(cli, command, options, seen, n_seen, err));
    if (cli->help) return CB_OK;
    if (cli->module.n || cli->field.n) TRY(join_modules(cli, command, options, err));
    if (*n_args < command->min_args || *n_args > command->max_args)
        FAIL(err, CB_E_USAGE, "%s: %d arguments; usage: cambium %s %s", command->name, *n_args, command->name, command->usage);
    return CB_OK;
}

static void help_table(FILE *f, const struct option *o) {
    for (; o && o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s %s%s", o->name, o->value ? o->value : "", o->kind == OPTION_LIST ? "..." : "");
        fprintf(f, "  %-28s %s\n", left, o->help);
    }
}

void cli_help(FILE *f, const struct command *command) {
    fprintf(f, "usage: cambium %s %s\n%s\n", command->name, command->usage, command->summary);
    if (command->more) fprintf(f, "%s\n", command->more);
    if (command->options && command->options->name) fprintf(f, "\noptions:\n");
    help_table(f, command->options);
    fprintf(f, "\neverywhere:\n");
    help_table(f, common);
}

static void json_option(json_t *root, const struct option *o, const void *base) {
    const char *p = (const char *)base + o->offset;
    const struct text_list *list = (const void *)p;
    json_t *array;
    double value;
    int64_t count;
    switch (o->kind) {
        case OPTION_FLAG:
            if (*(const bool *)p) json_object_set_new(root, o->name, json_true());
            break;
        case OPTION_TEXT:
            if (*(const char *const *)p) json_object_set_new(root, o->name, json_string(*(const char *const *)p));
            break;
        case OPTION_NUMBER:
        case OPTION_ABOVE_ZERO:
        case OPTION_OR_NONE:
            value = *(const double *)p;
            if (value != 0) json_object_set_new(root, o->name, json_real(o->kind == OPTION_OR_NONE && value < 0 ? 0 : value));
            break;
        case OPTION_COUNT:
        case OPTION_POSITIVE:
        case OPTION_COUNT_OR_NONE:
        case OPTION_SIZE:
            count = *(const int64_t *)p;
            if (count) json_object_set_new(root, o->name, json_integer(o->kind == OPTION_COUNT_OR_NONE && count < 0 ? 0 : count));
            break;
        case OPTION_EACH:
        case OPTION_LIST:
            if (!list->n) break;
            array = json_array();
            for (int i = 0; i < list->n; i++) json_array_append_new(array, json_string(list->item[i]));
            json_object_set_new(root, o->name, array);
            break;
    }
}

char *cli_options_json(const struct cli *cli, const struct command *command, const void *options, char **args, int n_args) {
    json_t *root = json_object(), *arguments = json_array(), *all = json_object();
    for (int i = 0; i < n_args; i++) json_array_append_new(arguments, json_string(args[i]));
    for (const struct option *o = command->options; o && o->name; o++) {
        bool told = false;  // a second name of an earlier option
        for (const struct option *p = command->options; p < o; p++) told |= p->offset == o->offset;
        if (!told) json_option(all, o, options);
    }
    for (const struct option *o = common; o->name; o++)
        if (strcmp(o->name, "config") != 0) json_option(all, o, cli);
    json_object_set_new(root, "cambium", json_string(cb_version()));
    json_object_set_new(root, "verb", json_string(command->name));
    json_object_set_new(root, "arguments", arguments);
    json_object_set_new(root, "options", all);
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}
