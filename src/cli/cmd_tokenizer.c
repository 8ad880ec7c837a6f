/* cambium tokenizer train|encode|decode|convert. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/name.h"
#include "cli/cli.h"

struct tokenizer_options {
    struct cb_tokenizer_train_options train;
    const char *text, *file, *ids, *pattern;
    bool offsets, no_special, skip_special, overflow;
};
#define AT(field) offsetof(struct tokenizer_options, field)
static const struct option options[] = {
    {"out", OPTION_TEXT, AT(train.out), "DIR", "train, convert: folder for tokenizer.json (required)"},
    {"kind", OPTION_TEXT, AT(train.kind), "NAME", "train: bpe (default), bpe-fallback, wordpiece, unigram, char, byte"},
    {"vocab", OPTION_POSITIVE, AT(train.vocab), "N", "train: size of the vocabulary (default 8192)"},
    {"special", OPTION_TEXT, AT(train.special), "a,b", "train: special tokens (bpe, char, byte: beside <|endoftext|>)"},
    {"min-frequency", OPTION_POSITIVE, AT(train.min_frequency), "N", "train: a pair seen less often is not merged (default 2)"},
    {"limit-alphabet", OPTION_POSITIVE, AT(train.limit_alphabet), "N", "train: at most so many different characters"},
    {"max-token-length", OPTION_POSITIVE, AT(train.max_token_length), "N",
     "train: tokens of fewer characters (unigram: at most N, default 16)"},
    {"cased", OPTION_FLAG, AT(train.cased), NULL, "train: wordpiece that keeps upper case"},
    {"keep-accents", OPTION_FLAG, AT(train.keep_accents), NULL, "train: wordpiece that keeps accents"},
    {"invalid", OPTION_TEXT, AT(train.invalid), "HOW", "train: invalid UTF-8: fail (default), replace, skip"},
    {"pattern", OPTION_TEXT, AT(pattern), "P",
     "bpe, tiktoken files: how text is cut: gpt2, cl100k, o200k, qwen2, ... or a regular expression"},
    {"text", OPTION_TEXT, AT(text), "TEXT", "encode: the text"},
    {"ids", OPTION_TEXT, AT(ids), "1,2,3", "decode: the ids"},
    {"file", OPTION_TEXT, AT(file), "FILE",
     "or a file; F.jsonl: one {\"text\"} (or pair, pretokenized, batch) or {\"ids\"} a line, one result a line"},
    {"offsets", OPTION_FLAG, AT(offsets), NULL, "encode: begin and end of each token in code points"},
    {"overflow", OPTION_FLAG, AT(overflow), NULL, "encode: what is cut off at the tokenizer's own limit, in further windows"},
    {"no-special", OPTION_FLAG, AT(no_special), NULL, "encode: add no special tokens"},
    {"skip-special", OPTION_FLAG, AT(skip_special), NULL, "decode: leave special tokens out"},
    {NULL, OPTION_FLAG, 0, NULL, NULL}};

#define R(field) offsetof(struct cb_tokenizer_train_result, field)
static const struct field fields[] = {{"vocab", FIELD_INT, R(vocab)},
                                      {"bytes", FIELD_INT, R(bytes)},
                                      {"tokens", FIELD_INT, R(tokens)},
                                      {"bytes_per_token", FIELD_NUMBER, R(bytes_per_token)},
                                      {NULL, FIELD_INT, 0}};

static const struct field converted[] = {{"vocab", FIELD_INT, R(vocab)}, {NULL, FIELD_INT, 0}};

static enum cb_status train(struct cli *cli, struct tokenizer_options *o, char **args, int n_args, struct cb_err *err) {
    struct cb_tokenizer_train_result result = {0};
    struct cb_engine *engine;
    if (!o->train.out || n_args < 2) FAIL(err, CB_E_USAGE, "tokenizer train: usage: cambium tokenizer train TEXT... --out DIR");
    o->train.text = (const char *const *)args + 1;
    o->train.n_text = n_args - 1;
    o->train.run_json = cli->run_json, o->train.pattern = o->pattern;
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_tokenizer_train(engine, &o->train, &result, err);
    cli_end_line(cli);
    if (status == CB_OK) cli_print(cli, fields, &result);
    cb_engine_destroy(&engine);
    return status;
}

/* {"ids", "tokens"} and, where they say something, offsets, types and attention. */
static json_t *encoding_json(const struct cb_encoding *e) {
    json_t *root = json_object(), *ids = json_array(), *tokens = json_array(), *offsets = json_array(), *types = json_array(),
           *attention = json_array();
    bool has_types = false, has_padding = false;
    for (int64_t i = 0; i < e->n; i++) {
        json_array_append_new(ids, json_integer(e->ids[i]));
        json_array_append_new(tokens, json_string(e->tokens[i]));
        json_array_append_new(types, json_integer(e->types[i]));
        json_array_append_new(attention, json_integer(e->attention[i]));
        has_types = has_types || e->types[i], has_padding = has_padding || !e->attention[i];
        if (e->offsets)
            json_array_append_new(offsets, json_pack("[I,I]", (json_int_t)e->offsets[2 * i], (json_int_t)e->offsets[2 * i + 1]));
    }
    json_object_set_new(root, "ids", ids);
    json_object_set_new(root, "tokens", tokens);
    if (e->offsets) json_object_set(root, "offsets", offsets);
    if (has_types) json_object_set(root, "types", types);
    if (has_padding) json_object_set(root, "attention", attention);
    json_decref(offsets), json_decref(types), json_decref(attention);
    return root;
}

static void print_ids(const struct cb_encoding *e) {
    for (int64_t i = 0; i < e->n; i++) printf("%s%d", i ? " " : "", e->ids[i]);
    putchar('\n');
}

/* One line for all inputs: the first window of each, the others under its "overflow"; of a batch they are listed under "encodings". */
static enum cb_status encode(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t,
                             const struct cb_encode_input *inputs, int64_t n, bool is_batch, struct cb_err *err) {
    struct cb_encodings e;
    const struct cb_encode_options how = {o->no_special, o->offsets, o->overflow};
    TRY(cb_tokenizer_encode_batch(t, inputs, n, &how, &e, err));
    json_t *list = json_array(), *last = NULL;
    for (int64_t i = 0; i < e.n; i++) {
        if (!cli->json) print_ids(&e.encoding[i]);
        json_t *one = encoding_json(&e.encoding[i]);
        if (!i || e.encoding[i].input != e.encoding[i - 1].input) {
            json_array_append_new(list, last = one);
            continue;
        }
        if (!json_object_get(last, "overflow")) json_object_set_new(last, "overflow", json_array());
        json_array_append_new(json_object_get(last, "overflow"), one);
    }
    json_t *root = is_batch ? json_pack("{sO}", "encodings", list) : json_incref(json_array_get(list, 0));
    if (cli->json) {
        json_dumpf(root, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
        putchar('\n');
    }
    json_decref(root);
    json_decref(list);
    cb_encodings_free(&e);
    return CB_OK;
}

static enum cb_status encode_text(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t, const char *text,
                                  size_t n, struct cb_err *err) {
    const struct cb_text one = {text, n};
    const struct cb_encode_input input = {.text = &one, .n_text = 1};
    return encode(cli, o, t, &input, 1, false, err);
}

/* What a line of JSON may hold instead of "text": lists of texts. */
static const struct form {
    const char *key;
    bool is_pair, is_words, is_batch;
} forms[] = {
    {"text", false, false, false}, {"pair", true, false, false}, {"pretokenized", false, true, false}, {"batch", false, false, true}};

/* The texts of a list are one input of words, a pair, or an input each. */
static enum cb_status encode_list(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t, const struct form *form,
                                  const json_t *list, struct cb_err *err) {
    size_t n = json_array_size(list);
    if (form->is_pair && n != 2) FAIL(err, CB_E_FORMAT, "\"pair\": found %zu texts; two are wanted", n);
    struct cb_text *text = calloc(n + 2, sizeof *text);
    struct cb_encode_input *input = calloc(n + 1, sizeof *input);
    enum cb_status status = text && input ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "out of memory");
    for (size_t i = 0; i < n && status == CB_OK; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item))
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "\"%s\": entry %zu is no text", form->key, i);
        else
            text[i] = (struct cb_text){json_string_value(item), json_string_length(item)};
        if (input && text) input[i] = (struct cb_encode_input){.text = &text[i], .n_text = 1};
    }
    if (input && text && form->is_pair) input[0] = (struct cb_encode_input){.text = text, .pair = text + 1, .n_text = 1, .n_pair = 1};
    if (input && text && form->is_words) input[0] = (struct cb_encode_input){.text = text, .n_text = (int64_t)n, .is_words = true};
    if (status == CB_OK) status = encode(cli, o, t, input, form->is_batch ? (int64_t)n : 1, form->is_batch, err);
    free(text);
    free(input);
    return status;
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

/* One line of JSON: {"text"}, {"pair"}, {"pretokenized"} or {"batch"}; or {"ids"}. What fails names the line, and those after it are not read. */
static enum cb_status one_line(struct cli *cli, const struct tokenizer_options *o, const struct cb_tokenizer *t, bool is_encode,
                               const char *line, size_t n, int64_t number, struct cb_err *err) {
    json_error_t e;
    json_t *root = json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e), *item = json_object_get(root, "ids");
    const struct form *form = NULL;
    for (size_t i = 0; i < sizeof forms / sizeof *forms && is_encode && !form; i++) {
        item = json_object_get(root, forms[i].key);
        if (i ? json_is_array(item) : json_is_string(item)) form = &forms[i];
    }
    enum cb_status status;
    if (!root)
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s; wanted JSON", e.text);
    else if (is_encode ? !form : !json_is_array(item))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "no \"%s\"", is_encode ? "text" : "ids");
    else if (is_encode && json_is_string(item))
        status = encode_text(cli, o, t, json_string_value(item), json_string_length(item), err);
    else
        status = is_encode ? encode_list(cli, o, t, form, item, err) : decode(cli, o, t, item, err);
    json_decref(root);
    return status == CB_OK ? status : err_prefix(err, "%s: line %lld", o->file, (long long)number);
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
    size_t n;
    char *bytes = read_all(o->file, &n);
    if (!bytes) FAIL(err, CB_E_IO, "%s: cannot be read", o->file ? o->file : "standard input");
    enum cb_status status = CB_OK;
    if (o->file && name_ends(o->file, ".jsonl")) {
        int64_t number = 1;
        for (char *p = bytes, *end; p < bytes + n && status == CB_OK; p = end + 1, number++) {
            end = memchr(p, '\n', (size_t)(bytes + n - p));
            if (!end) end = bytes + n;
            if (end > p) status = one_line(cli, o, t, is_encode, p, (size_t)(end - p), number, err);
        }
    } else if (is_encode) {
        status = encode_text(cli, o, t, bytes, n, err);
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
    TRY(cb_tokenizer_load_pattern(&t, path, o->pattern, err));
    if (is_encode && o->text) {
        status = encode_text(cli, o, t, o->text, strlen(o->text), err);
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

static enum cb_status convert(struct cli *cli, const struct tokenizer_options *o, const char *path, struct cb_err *err) {
    struct cb_tokenizer *t;
    struct cb_tokenizer_train_result result = {0};
    if (!o->train.out) FAIL(err, CB_E_USAGE, "tokenizer convert: usage: cambium tokenizer convert MODEL --out DIR");
    TRY(cb_tokenizer_load_pattern(&t, path, o->pattern, err));
    result.vocab = cb_tokenizer_vocab(t);
    enum cb_status status = cb_tokenizer_save(t, o->train.out, cli->run_json, err);
    if (status == CB_OK) cli_print(cli, converted, &result);
    cb_tokenizer_destroy(&t);
    return status;
}

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct tokenizer_options *o = parsed;
    if (strcmp(args[0], "train") == 0) return train(cli, o, args, n_args, err);
    bool is_encode = strcmp(args[0], "encode") == 0, is_convert = strcmp(args[0], "convert") == 0;
    if (!is_encode && !is_convert && strcmp(args[0], "decode") != 0)
        FAIL(err, CB_E_USAGE, "tokenizer: no '%s'; wanted train, encode, decode or convert", args[0]);
    if (n_args != 2) FAIL(err, CB_E_USAGE, "tokenizer %s: usage: cambium tokenizer %s MODEL [--text S | --file F]", args[0], args[0]);
    return is_convert ? convert(cli, o, args[1], err) : use(cli, o, is_encode, args[1], err);
}

const struct command command_tokenizer = {.name = "tokenizer",
                                          .usage = "train TEXT... --out DIR | encode MODEL | decode MODEL | convert MODEL --out DIR",
                                          .summary = "trains a tokenizer; text to ids and back; any tokenizer file as tokenizer.json",
                                          .options = options,
                                          .bytes = sizeof(struct tokenizer_options),
                                          .min_args = 1,
                                          .max_args = 4096,
                                          .run = run};
