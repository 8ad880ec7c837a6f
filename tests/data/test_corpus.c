/* The tokenised corpus: ids, masks, counts, reuse, damaged files, real text. */
#include "data/corpus.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "../harness.h"
#include "data/loader.h"
#include "files.h"
#include "io/file.h"

static struct cb_err err;
static const struct corpus_options no_specials = {.bos = -1, .eos = -1};

static bool text_once(void *context, const char **text, size_t *n) {
    const char **left = context;
    *text = *left;
    *n = *left ? strlen(*left) : 0;
    *left = NULL;
    return *text != NULL;
}
static struct tokenizer *train(const char *kind, int32_t vocab, const char *text) {
    static const char *const specials[] = {"<|endoftext|>"};
    struct train_options o = {.kind = kind, .vocab = vocab, .specials = specials, .n_specials = 1};
    struct tokenizer *t;
    CHECK_OK(tokenizer_train(&t, &o, text_once, &text, NULL, NULL, &err));
    return t;
}
static struct corpus *load_file(const char *name, const char *text, const struct tokenizer *t, const struct corpus_options *o) {
    char *path = file_make(name, text, strlen(text));
    const char *paths[] = {path};
    struct corpus *c;
    CHECK_OK(corpus_load(&c, paths, 1, t, NULL, o, NULL, &err));
    free(path);
    return c;
}
static void ids_are_text(const struct corpus *c, const struct tokenizer *t, const char *want) {
    int64_t n = corpus_info(c)->tokens;
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    char *text;
    size_t length;
    CHECK_OK(corpus_read(c, ids, 0, n, &err));
    CHECK_OK(tokenizer_decode(t, &text, &length, ids, (size_t)n, false, &err));
    CHECK(length == strlen(want) && !memcmp(text, want, length), "%s", text);
    free(text);
    free(ids);
}

TEST(data_corpus, documents_counts_and_ends) {
    struct tokenizer *t = train("bpe", 300, "the cat sat on the mat the cat sat on the mat");
    int32_t eos = tokenizer_id(t, "<|endoftext|>");
    CHECK(eos >= 0);
    struct corpus *c =
        load_file("a.txt", "the cat\n<|endoftext|>\nsat  on\n the \xd0\xb6", t, &(struct corpus_options){.bos = -1, .eos = eos});
    ids_are_text(c, t, "the cat\n<|endoftext|>sat  on\n the \xd0\xb6<|endoftext|>");
    const struct corpus_info *info = corpus_info(c);
    CHECK(info->documents == 2 && info->bytes == 23 && info->words == 6 && info->text_bytes == 23 && info->learnt == info->tokens,
          "%d documents, %d bytes, %d words", (int)info->documents, (int)info->bytes, (int)info->words);
    int64_t border = corpus_document_start(c, 1), bytes, words;
    CHECK(corpus_document_at(c, border) == 1 && corpus_document_at(c, border - 1) == 0 && corpus_document_start(c, 2) == info->tokens);
    corpus_count(c, border, info->tokens, &bytes, &words);
    CHECK(bytes == 15 && words == 4, "%d bytes, %d words", (int)bytes, (int)words);
    corpus_destroy(&c);
    c = load_file("a.txt", "cat", t, &(struct corpus_options){.bos = eos, .eos = -1});
    ids_are_text(c, t, "<|endoftext|>cat");
    corpus_destroy(&c);
    tokenizer_destroy(&t);
}

TEST(data_corpus, only_completions_are_learnt) {
    // a merge reaches over the border: the prompt keeps the tokens that it has alone
    struct tokenizer *t = train("bpe", 260, "ab ab ab ab ab");
    int32_t eos = tokenizer_id(t, "<|endoftext|>"), ab = tokenizer_id(t, "ab");
    CHECK(ab >= 0);
    struct corpus *c = load_file("a.jsonl",
                                 "{\"prompt\":\"xa\",\"completion\":\"b y\"}\n{\"prompt\":\"ab\",\"completion\":\"ab\"}\n"
                                 "{\"prompt\":\"\",\"completion\":\"z\"}\n",
                                 t, &(struct corpus_options){.bos = -1, .eos = eos});
    ids_are_text(c, t, "xab y<|endoftext|>abab<|endoftext|>z<|endoftext|>");
    const struct corpus_info *info = corpus_info(c);
    static const bool learnt[] = {false, false, true, true, true, true, false, true, true, true, true};
    int32_t label[16] = {0};
    CHECK(info->tokens == 11 && info->documents == 3 && info->learnt == 8, "%d tokens", (int)info->tokens);
    CHECK(info->bytes == 6 && info->words == 4 && info->text_bytes == 10, "%d bytes, %d words", (int)info->bytes, (int)info->words);
    corpus_unlearn(c, label, 0, 11);
    for (int i = 0; i < 11; i++) CHECK((label[i] != LOADER_IGNORE) == learnt[i], "token %d", i);
    // the loader: labels are the next tokens, prompts and borders left out
    struct loader *l;
    CHECK_OK(loader_create(&l, c, &(struct loader_options){.batch = 3, .seq = 6, .no_pack = true}, &err));
    int32_t ids[18], labels[18];
    CHECK_OK(loader_batch(l, 0, ids, labels, NULL, NULL, &err));
    int n = 0;
    for (int k = 0; k < 18; k++) {
        if (labels[k] == LOADER_IGNORE) continue;
        CHECK(k % 6 < 5 && labels[k] == ids[k + 1]);
        n++;
    }
    CHECK(n == 4 + 2 + 1, "%d labels", n);
    loader_destroy(&l);
    corpus_destroy(&c);
    tokenizer_destroy(&t);
}

TEST(data_corpus, tokenised_records_are_taken_as_they_are) {
    struct tokenizer *t = train("bpe", 260, "ab ab ab ab ab");
    const struct corpus_options o = {.bos = -1, .eos = tokenizer_id(t, "<|endoftext|>")};
    const int32_t x = tokenizer_id(t, "x"), y = tokenizer_id(t, "y"), ab = tokenizer_id(t, "ab"), size = tokenizer_size(t);
    char text[400];
    snprintf(text, sizeof text,
             "{\"input_ids\":[%d,%d,%d,%d],\"labels\":[-100,%d,-100,%d],\"attention_mask\":[1,1,1,1]}\n{\"input_ids\":[%d,%d]}\n", x, y, ab,
             y, y, y, ab, ab);
    struct corpus *c = load_file("ids.jsonl", text, t, &o);
    ids_are_text(c, t, "xyabyabab");
    static const bool learnt[] = {false, true, false, true, true, true};
    const struct corpus_info *info = corpus_info(c);
    int32_t label[6] = {0};
    corpus_unlearn(c, label, 0, 6);
    for (int i = 0; i < 6; i++) CHECK((label[i] != LOADER_IGNORE) == learnt[i], "token %d", i);
    CHECK(info->documents == 2 && info->learnt == 4 && info->bytes == 6, "%d learnt, %d bytes", (int)info->learnt, (int)info->bytes);
    corpus_destroy(&c);
    // ids and labels that cannot be; an encoder-decoder wants a source
    const struct {
        const char *format, *want;
        bool apart;
    } bad[] = {{"{\"input_ids\":[1,%d]}\n", "line 1: ids[1]: found", false},
               {"{\"input_ids\":[1,2],\"labels\":[1,%d]}\n", "line 1: labels[1]: found", false},
               {"[{\"ids\":[1,%d]}]\n", "record 1: ids[1]: found", false},
               {"{\"input_ids\":[1,2],\"x\":%d}\n", "not text", true}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, bad[i].format, size);
        char *path = file_make(text[0] == '[' ? "bad.json" : "bad.jsonl", text, strlen(text));
        const char *paths[] = {path};
        struct corpus_options some = o;
        some.apart = bad[i].apart;
        err = (struct cb_err){0};
        CHECK(corpus_load(&c, paths, 1, t, NULL, &some, NULL, &err) != CB_OK && strstr(err.message, bad[i].want), "%s", err.message);
        err = (struct cb_err){0};
        free(path);
    }
    tokenizer_destroy(&t);
}

struct watch {
    int64_t last, total;
    int n;
    bool stop;
};
static bool watch_progress(void *user, int64_t done, int64_t total) {
    struct watch *w = user;
    CHECK(done >= w->last && done <= total);
    w->last = done, w->total = total;
    w->n++;
    return !w->stop;
}

TEST(data_corpus, reused_until_something_changes) {
    struct tokenizer *t = train("byte", 257, "x"), *other = train("bpe", 270, "the the the");
    char *folder = folder_make(), *text = file_put(folder, "in/a.txt", "some text", 9), *out = io_path_join(folder, "tokens.bin");
    char *in = io_path_join(folder, "in");
    const char *paths[] = {in};
    struct corpus_options o = no_specials;
    bool reused;
    CHECK_OK(corpus_build(paths, 1, t, out, &o, &reused, &err));
    CHECK(!reused);
    CHECK_OK(corpus_build(paths, 1, t, out, &o, &reused, &err));
    CHECK(reused);
    CHECK_OK(corpus_build(paths, 1, other, out, &o, &reused, &err));
    CHECK(!reused, "another tokenizer");
    o.eos = 0;
    CHECK_OK(corpus_build(paths, 1, other, out, &o, &reused, &err));
    CHECK(!reused, "other options");
    struct timespec times[2] = {{1000, 0}, {1000, 0}};
    CHECK(utimensat(AT_FDCWD, text, times, 0) == 0);
    CHECK_OK(corpus_build(paths, 1, other, out, &o, &reused, &err));
    CHECK(!reused, "another time");
    free(file_put(folder, "in/b.txt", "more", 4));
    CHECK_OK(corpus_build(paths, 1, other, out, &o, &reused, &err));
    CHECK(!reused, "one file more");
    CHECK_OK(corpus_build(paths, 1, other, out, &o, &reused, &err));
    CHECK(reused);
    // stopped, or failed: the older file stays
    struct watch w = {.stop = true};
    o.user = &w, o.progress = watch_progress, o.eos = -1;
    CHECK_FAILS(corpus_build(paths, 1, t, out, &o, &reused, &err), CB_E_STOPPED, "request");
    CHECK(w.n == 1 && w.last == 13 && w.total == 13);
    o.eos = 257;
    CHECK_FAILS(corpus_build(paths, 1, t, out, &o, &reused, &err), CB_E_ARGUMENT, "eos 257");
    o.eos = 0, o.progress = NULL;
    CHECK_OK(corpus_build(paths, 1, other, out, &o, &reused, &err));
    CHECK(reused);
    free(folder);
    free(text), free(out), free(in);
    tokenizer_destroy(&other);
    tokenizer_destroy(&t);
}

TEST(data_corpus, damaged_files_are_refused) {
    struct tokenizer *t = train("byte", 257, "x");
    char *folder = folder_make(), *text = file_put(folder, "a.jsonl", "{\"prompt\":\"ab\",\"completion\":\"cd\"}\n", 34);
    char *out = io_path_join(folder, "tokens.bin"), *bytes;
    const char *paths[] = {text};
    size_t n;
    CHECK_OK(corpus_build(paths, 1, t, out, &no_specials, NULL, &err));
    CHECK_OK(io_read_file(&bytes, &n, out, 1 << 20, &err));
    struct corpus *c;
    CHECK_OK(corpus_open(&c, out, &err));
    corpus_destroy(&c);
    for (size_t cut = 0; cut < n; cut += 7) {
        free(file_put(folder, "cut.bin", bytes, cut));
        char *path = io_path_join(folder, "cut.bin");
        CHECK_FAILS(corpus_open(&c, path, &err), CB_E_FORMAT, "cut.bin");
        free(path);
    }
    // each byte inverted in turn: refused, or every read still stays inside and ids below the vocabulary
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (char)~bytes[i];
        char *path = file_put(folder, "bad.bin", bytes, n);
        bytes[i] = (char)~bytes[i];
        int32_t ids[4], label[4] = {0};
        if (corpus_open(&c, path, &err) == CB_OK) {
            CHECK(corpus_info(c)->tokens == 4);
            if (corpus_read(c, ids, 0, 4, &err) == CB_OK)
                for (int k = 0; k < 4; k++) CHECK(ids[k] >= 0 && ids[k] < corpus_info(c)->vocab);
            corpus_unlearn(c, label, 0, 4);
            corpus_destroy(&c);
        }
        memset(&err, 0, sizeof err);
        free(path);
    }
    free(bytes), free(text), free(out);
    free(folder);
    tokenizer_destroy(&t);
}

TEST(data_corpus, failures_name_the_record) {
    struct tokenizer *t = train("byte", 257, "x");
    char *path = file_make("a.jsonl", "{\"text\":\"a\"}\n{\"text\":3}\n", 24), *out = io_path_join(path, "../no/tokens.bin");
    const char *paths[] = {path};
    struct corpus *c;
    CHECK_FAILS(corpus_load(&c, paths, 1, t, NULL, &no_specials, NULL, &err), CB_E_FORMAT, "a.jsonl: line 2: text: found 3");
    CHECK(!c);
    CHECK_FAILS(corpus_load(&c, paths, 0, t, NULL, &no_specials, NULL, &err), CB_E_ARGUMENT, "no inputs");
    CHECK_FAILS(corpus_load(&c, paths, 1, t, out, &no_specials, NULL, &err), CB_E_IO, "tokens.bin");
    free(out);
    free(path);
    tokenizer_destroy(&t);
}

TEST(data_corpus, shakespeare) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[900];
    snprintf(path, sizeof path, "%s/data/text_shakespeare/input.txt", shared);
    struct tokenizer *t = train("byte", 257, "x");
    const char *paths[] = {path};
    struct corpus *whole, *pieces;
    struct corpus_options o = no_specials;
    CHECK_OK(corpus_load(&whole, paths, 1, t, NULL, &o, NULL, &err));
    const struct corpus_info *info = corpus_info(whole);
    CHECK(info->tokens == 1115394 && info->bytes == 1115394 && info->documents == 1 && info->words == 202651, "%d tokens, %d words",
          (int)info->tokens, (int)info->words);
    // small pieces: one document still, the same tokens
    o.piece_bytes = 4096;
    CHECK_OK(corpus_load(&pieces, paths, 1, t, NULL, &o, NULL, &err));
    CHECK(corpus_info(pieces)->documents == 1 && corpus_info(pieces)->words == info->words && corpus_info(pieces)->tokens == info->tokens);
    int32_t a[1000], b[1000];
    int64_t cut, bytes, words;
    for (int64_t at = 0; at + 1000 <= info->tokens; at += 1000) {
        CHECK_OK(corpus_read(whole, a, at, 1000, &err));
        CHECK_OK(corpus_read(pieces, b, at, 1000, &err));
        CHECK(!memcmp(a, b, sizeof a), "tokens after %d", (int)at);
    }
    CHECK_OK(corpus_split(whole, 0.1, &cut, &err));
    corpus_count(whole, cut, info->tokens, &bytes, &words);
    CHECK(bytes == info->tokens - cut && cut > 0.88 * 1115394 && cut < 0.92 * 1115394);
    corpus_destroy(&pieces);
    corpus_destroy(&whole);
    tokenizer_destroy(&t);
}

TEST(data_corpus, pieces_do_not_change_the_tokens) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[900], folder[900];
    snprintf(path, sizeof path, "%s/data/text_shakespeare/input.txt", shared);
    snprintf(folder, sizeof folder, "%s/data/tokenizers_gpt2", shared);
    struct tokenizer *t;
    CHECK_OK(tokenizer_load(&t, folder, &err));
    const char *paths[] = {path};
    struct corpus *whole, *pieces;
    struct corpus_options o = {.bos = -1, .eos = tokenizer_eos(t)};
    CHECK_OK(corpus_load(&whole, paths, 1, t, NULL, &o, NULL, &err));
    o.piece_bytes = 20000;
    CHECK_OK(corpus_load(&pieces, paths, 1, t, NULL, &o, NULL, &err));
    int64_t n = corpus_info(whole)->tokens;
    CHECK(n == 338026 && corpus_info(pieces)->tokens == n, "%d and %d tokens", (int)n, (int)corpus_info(pieces)->tokens);
    int32_t *ids = malloc(2 * (size_t)n * sizeof *ids);
    CHECK_OK(corpus_read(whole, ids, 0, n, &err));
    CHECK_OK(corpus_read(pieces, ids + n, 0, n, &err));
    CHECK(!memcmp(ids, ids + n, (size_t)n * sizeof *ids));
    free(ids);
    corpus_destroy(&pieces);
    corpus_destroy(&whole);
    tokenizer_destroy(&t);
}
