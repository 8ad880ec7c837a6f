/* cambium tokenizer train|encode|decode. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"

struct tokenizer_options {
    struct cb_tokenizer_train_options train;
    const char *text, *file, *ids;
    bool offsets, no_special, skip_special;
};
#define AT(field) offsetof(struct tokenizer_options, field)
static const struct option options[] = {
    {"out", OPTION_TEXT, AT(train.out), "DIR", "train: folder for tokenizer.json (required)"},
    {"kind", OPTION_TEXT, AT(train.kind), "NAME", "train: bpe (default), char, byte, ..."},
    {"vocab", OPTION_POSITIVE, AT(train.vocab), "N", "train: size of the vocabulary (default 8192)"},
    {"special", OPTION_TEXT, AT(train.special), "a,b", "train: special tokens beside <|endoftext|>"},
    {"invalid", OPTION_TEXT, AT(train.invalid), "HOW", "train: invalid UTF-8: fail (default), replace, skip"},
    {"text", OPTION_TEXT, AT(text), "TEXT", "encode: the text"},
    {"ids", OPTION_TEXT, AT(ids), "1,2,3", "decode: the ids"},
    {"file", OPTION_TEXT, AT(file), "FILE", "or a file; F.jsonl: one {\"text\"} or {\"ids\"} a line, one result a line"},
    {"offsets", OPTION_FLAG, AT(offsets), NULL, "encode: begin and end of each token in code points"},
    {"no-special", OPTION_FLAG, AT(no_special), NULL, "encode: add no special tokens"},
    {"skip-special", OPTION_FLAG, AT(skip_special), NULL, "decode: leave special tokens out"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};

#define R(field) offsetof(struct cb_tokenizer_train_result, field)
static const struct field fields[] = {{"vocab", FIELD_INT, R(vocab)},
                                      {"bytes", FIELD_INT, R(bytes)},
                                      {"tokens", FIELD_INT, R(tokens)},
                                      {"bytes_per_token", FIELD_NUMBER, R(bytes_per_token)},
                                      {NULL, FIELD_INT, 0}};

static enum cb_status train(struct cli *cli, struct tokenizer_options *o, char **args, int n_args, struct cb_err *err) {
    struct cb_tokenizer_train_result result = {0};
    struct cb_engine *engine;
    if (!o->train.out || n_args < 2) FAIL(err, CB_E_USAGE, "tokenizer train: usage: cambium tokenizer train TEXT... --out DIR");
    o->train.text = (const char *const *)args + 1;
    o->train.n_text = n_args - 1;
    o->train.run_json = cli->run_json;
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_tokenizer_train(engine, &o->train, &result, err);
    cli_end_line(cli);
    if (status == CB_OK) cli_print(cli, fields, &result);
    cb_engine_destroy(&engine);
    return status;
}

static void print_encoding(const struct cli *cli, const struct cb_encoding *e) {
    json_t *root = json_object(), *ids = json_array(), *tokens = json_array(), *offsets = json_array();
    for (int64_t i = 0; i < e->n; i++) {
        if (!cli->json) printf("%s%d", i ? " " : "", e->ids[i]);
        json_array_append_new(ids, json_integer(e->ids[i]));
        json_array_append_new(tokens, json_string(e->tokens[i]));
        if (e->offsets)
            json_array_append_new(offsets, json_pack("[I,I]", (json_int_t)e->offsets[2 * i], (json_int_t)e->offsets[2 * i + 1]));
    }
    json_object_set_new(root, "ids", ids);
    json_object_set_new(root, "tokens", tokens);
    if (e->offsets)
        json_object_set_new(root, "offsets", offsets);
    else
        json_decref(offsets);
    if (cli->json) json_dumpf(root, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(root);
}

static enum cb_status encode(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t, const char *text, size_t n,
                             struct cb_err *err) {
    struct cb_encoding e = {0};
    TRY(cb_tokenizer_encode(t, text, n, o->no_special, o->offsets, &e, err));
    print_encoding(cli, &e);
    cb_encoding_free(&e);
    return CB_OK;
}

static enum cb_status decode(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t, const json_t *list,
                             struct cb_err *err) {
    size_t n = json_array_size(list), bytes;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    char *text = NULL;
    if (!ids) FAIL(err, CB_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        ids[i] = id < INT32_MIN || id > INT32_MAX || !json_is_integer(json_array_get(list, i)) ? -1 : (int32_t)id;
    }
    enum cb_status status = cb_tokenizer_decode(t, ids, (int64_t)n, o->skip_special, &text, &bytes, err);
    free(ids);
    TRY(status);
    json_t *root = json_object();
    json_object_set_new(root, "text", json_stringn_nocheck(text, bytes));
    if (cli->json)
        json_dumpf(root, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    else
        fwrite(text, 1, bytes, stdout);
    putchar('\n');
    json_decref(root);
    cb_free(text);
    return CB_OK;
}

/* One line of JSON: {"text"} or {"ids"}. */
static enum cb_status one_line(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t, bool is_encode,
                               const char *line, size_t n, int64_t number, struct cb_err *err) {
    json_error_t e;
    json_t *root = json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e),
           *item = json_object_get(root, is_encode ? "text" : "ids");
    enum cb_status status;
    if (!root)
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: line %lld: %s; wanted JSON", o->file, (long long)number, e.text);
    else if (!(is_encode ? json_is_string(item) : json_is_array(item)))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: line %lld: no \"%s\"", o->file, (long long)number,
                         is_encode ? "text" : "ids");
    else if (is_encode)
        status = encode(cli, o, t, json_string_value(item), json_string_length(item), err);
    else
        status = decode(cli, o, t, item, err);
    json_decref(root);
    return status;
}

static char *read_all(const char *path, size_t *n) {
    FILE *f = path ? fopen(path, "rb") : stdin;
    size_t size = 1 << 16;
    char *p = f ? malloc(size) : NULL, *more;
    *n = 0;
    for (size_t got; p && (got = fread(p + *n, 1, size - *n, f)) > 0;) {
        *n += got;
        if (*n < size) continue;
        if (!(more = realloc(p, size *= 2))) free(p);
        p = more;
    }
    if (f && f != stdin) fclose(f);
    if (p) p[*n] = 0;
    return p;
}

/* Ids that a person gave. Lines of a .jsonl file are read as the reference library does: unknown ids give no text. */
static enum cb_status check_ids(const json_t *list, const struct cb_tokenizer *t, const char *where, struct cb_err *err) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (id < 0 || id >= cb_tokenizer_vocab(t))
            FAIL(err, CB_E_ARGUMENT, "%s: id %lld at position %lld; wanted ids below %lld", where, (long long)id, (long long)i,
                 (long long)cb_tokenizer_vocab(t));
    }
    return CB_OK;
}

static enum cb_status from_file(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t, bool is_encode,
                                struct cb_err *err) {
    size_t n, length = o->file ? strlen(o->file) : 0;
    char *bytes = read_all(o->file, &n);
    if (!bytes) FAIL(err, CB_E_IO, "%s: cannot be read", o->file ? o->file : "standard input");
    enum cb_status status = CB_OK;
    if (length > 6 && strcmp(o->file + length - 6, ".jsonl") == 0) {
        int64_t number = 1;
        for (char *p = bytes, *end; p < bytes + n && status == CB_OK; p = end + 1, number++) {
            end = memchr(p, '\n', (size_t)(bytes + n - p));
            if (!end) end = bytes + n;
            if (end > p) status = one_line(cli, o, t, is_encode, p, (size_t)(end - p), number, err);
        }
    } else if (is_encode) {
        status = encode(cli, o, t, bytes, n, err);
    } else {
        json_t *list = json_array();
        for (char *p = bytes, *end; p < bytes + n; p = end) {  // any text with numbers in it
            while (p < bytes + n && (*p < '0' || *p > '9')) p++;
            if (p == bytes + n) break;
            json_array_append_new(list, json_integer(strtoll(p, &end, 10)));
        }
        status = check_ids(list, t, o->file ? o->file : "standard input", err);
        if (status == CB_OK) status = decode(cli, o, t, list, err);
        json_decref(list);
    }
    free(bytes);
    return status;
}

static enum cb_status use(struct cli *cli, struct tokenizer_options *o, bool is_encode, const char *path, struct cb_err *err) {
    struct cb_tokenizer *t;
    enum cb_status status;
    TRY(cb_tokenizer_load(&t, path, err));
    if (is_encode && o->text) {
        status = encode(cli, o, t, o->text, strlen(o->text), err);
    } else if (!is_encode && o->ids) {
        json_t *list = json_array();
        status = CB_OK;
        for (const char *p = o->ids; *p && status == CB_OK;) {
            char *end;
            json_array_append_new(list, json_integer(strtoll(p, &end, 10)));
            if (end == p || (*end && *end != ',' && *end != ' '))
                status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "--ids '%s': wanted numbers with commas between", o->ids);
            p = *end ? end + 1 : end;
        }
        if (status == CB_OK) status = check_ids(list, t, "--ids", err);
        if (status == CB_OK) status = decode(cli, o, t, list, err);
        json_decref(list);
    } else {
        status = from_file(cli, o, t, is_encode, err);
    }
    cb_tokenizer_destroy(&t);
    return status;
}

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct tokenizer_options *o = parsed;
    if (strcmp(args[0], "train") == 0) return train(cli, o, args, n_args, err);
    bool is_encode = strcmp(args[0], "encode") == 0;
    if (!is_encode && strcmp(args[0], "decode") != 0) FAIL(err, CB_E_USAGE, "tokenizer: no '%s'; wanted train, encode or decode", args[0]);
    if (n_args != 2) FAIL(err, CB_E_USAGE, "tokenizer %s: usage: cambium tokenizer %s MODEL [--text S | --file F]", args[0], args[0]);
    return use(cli, o, is_encode, args[1], err);
}

const struct command command_tokenizer = {.name = "tokenizer",
                                          .usage = "train TEXT... --out DIR | encode MODEL | decode MODEL",
                                          .summary = "trains a tokenizer; text to ids and back",
                                          .options = options,
                                          .bytes = sizeof(struct tokenizer_options),
                                          .min_args = 1,
                                          .max_args = 4096,
                                          .run = run};
