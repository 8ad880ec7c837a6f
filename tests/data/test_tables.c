/* Tables as records: CSV, CoNLL, Parquet; columns by name, shapes, what is left out, conversations learnt where the assistant speaks. */

#include "../harness.h"
#include "data/corpus.h"
#include "data/records.h"
#include "data/source.h"
#include "files.h"

static struct cb_err err;

// All rows of a file as compact JSON, one after another.
static enum cb_status rows_of(char *out, size_t size, const char *path, const struct records_options *o) {
    struct records *r;
    const struct record *record;
    size_t used = 0;
    *out = 0;
    TRY(records_open(&r, path, NULL, o, &err));
    enum cb_status status;
    while ((status = records_next(r, &record, &err)) == CB_OK && record) {
        char *text = json_dumps(record->object, JSON_COMPACT);
        used += (size_t)snprintf(out + used, size - used, "%s", text);
        free(text);
        CHECK(used < size);
    }
    records_close(&r);
    return status;
}

static enum cb_status rows_in(char *out, size_t size, const char *name, const char *text, const struct records_options *o) {
    char *path = file_make(name, text, strlen(text));
    enum cb_status status = rows_of(out, size, path, o);
    free(path);
    return status;
}

TEST(data_tables, csv) {
    char out[2000];
    CHECK_OK(rows_in(out, sizeof out, "a.csv", "text,label\n\"a, \"\"b\"\"\r\nc\",1\nd\"e,\"2\"\n\n f ,\n", NULL));
    CHECK(
        !strcmp(out,
                "{\"text\":\"a, \\\"b\\\"\\r\\nc\",\"label\":\"1\"}{\"text\":\"d\\\"e\",\"label\":\"2\"}{\"text\":\" f \",\"label\":\"\"}"),
        "%s", out);
    // the name of the folder says nothing
    CHECK_OK(rows_in(out, sizeof out, "b.tsv/a.csv", "text,label\na,b\n", NULL));
    CHECK(!strcmp(out, "{\"text\":\"a\",\"label\":\"b\"}"), "%s", out);
    CHECK_OK(rows_in(out, sizeof out, "a.tsv", "\xef\xbb\xbfid\ttext\n1\ta,b\n2\tc", NULL));
    CHECK(!strcmp(out, "{\"id\":\"1\",\"text\":\"a,b\"}{\"id\":\"2\",\"text\":\"c\"}"), "%s", out);
    CHECK_OK(rows_in(out, sizeof out, "a.csv", "prompt;completion\na,b;c\n", NULL));
    CHECK(!strcmp(out, "{\"prompt\":\"a,b\",\"completion\":\"c\"}"), "%s", out);
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text,b\nx\n", NULL), CB_E_FORMAT, "line 2: found 1 cells; wanted 2");
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text\n\"x\ny\n", NULL), CB_E_FORMAT, "line 2: found a quote that is never closed");
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text,text\nx,y\n", NULL), CB_E_FORMAT, "'text' twice");
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text,b\n\"abc\" more,1\n", NULL), CB_E_FORMAT,
                "line 2: found ' ' after a closing quote (the row begins on line 2)");
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "id,review,stars\n1,x,5\n", NULL), CB_E_FORMAT,
                "line 1: found \"id\", \"review\", \"stars\"; wanted text");
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "review,id\nx,1\n", NULL), CB_E_FORMAT, "--column");
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text\n\xff\n", NULL), CB_E_FORMAT, "not UTF-8");
}

// Data sets that know no quotes: a quote is text, one that opens a row is refused unless that is said.
TEST(data_tables, quotes) {
    char out[2000];
    static const char stray[] = "text\tlabel\n\"So it begins\t0\n\"And ends\t1\n";
    CHECK_FAILS(rows_in(out, sizeof out, "a.tsv", stray, NULL), CB_E_FORMAT,
                "line 3: found 'A' after a closing quote (the row begins on line 2); wanted the end of the cell, a quote within quotes "
                "twice, or --quote none");
    struct records_options o = {.quote = "none"};
    CHECK_OK(rows_in(out, sizeof out, "a.tsv", stray, &o));
    CHECK(!strcmp(out, "{\"text\":\"\\\"So it begins\",\"label\":\"0\"}{\"text\":\"\\\"And ends\",\"label\":\"1\"}"), "%s", out);
    o.quote = "'";
    CHECK_OK(rows_in(out, sizeof out, "a.csv", "text\n'a,''b'\n\"c\"\n", &o));
    CHECK(!strcmp(out, "{\"text\":\"a,'b\"}{\"text\":\"\\\"c\\\"\"}"), "%s", out);
    o.separator = "'";
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text\na\n", &o), CB_E_USAGE, "--quote ': found it between the columns too");
    o.quote = "no";
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text\na\n", &o), CB_E_USAGE, "--quote no: wanted one character or none");
}

TEST(data_tables, tags_by_their_usual_name) {
    char out[400];
    struct records_options o = {0};
    CHECK_OK(rows_in(out, sizeof out, "a.jsonl", "{\"id\":1,\"tokens\":[\"A\",\"b\"],\"ner_tags\":[3,0]}", &o));
    CHECK_FAILS(rows_in(out, sizeof out, "a.jsonl", "{\"tokens\":[\"A\",\"b\"],\"ner_tags\":[3]}", &o), CB_E_FORMAT,
                "ner_tags: found a list of 1; wanted a list with a tag for each word");
    CHECK_FAILS(rows_in(out, sizeof out, "a.jsonl", "{\"tokens\":[\"A\",\"b\"],\"tags\":[\"x\",null]}", &o), CB_E_FORMAT,
                "tags: found null; wanted words or numbers");
    CHECK_FAILS(rows_in(out, sizeof out, "a.jsonl", "{\"tokens\":[\"A\"],\"pos\":[3]}", &o), CB_E_FORMAT,
                "found \"tokens\", \"pos\"; wanted text, prompt");
}

// Columns that say nothing of what their bytes are: text where they are UTF-8; what is no text stops only who asks for it.
TEST(data_tables, parquet_of_plain_bytes) {
    char out[400];
    static const char *const review[] = {"text=review"}, *const image[] = {"text=image"};
    struct records_options o = {.columns = review, .n_columns = 1};
    CHECK_OK(rows_of(out, sizeof out, "tests/golden/data/bytes.parquet", &o));
    CHECK(!strcmp(out, "{\"text\":\"good\",\"image\":null}{\"text\":\"caf\xc3\xa9\",\"image\":null}"), "%s", out);
    o.columns = image;
    CHECK_FAILS(rows_of(out, sizeof out, "tests/golden/data/bytes.parquet", &o), CB_E_FORMAT,
                "row 1: column image: found bytes (BYTE_ARRAY) that are not UTF-8; wanted text");
}

TEST(data_tables, columns_by_name) {
    char out[2000];
    static const char *const columns[] = {"prompt=question", "completion=text"};
    struct records_options o = {.columns = columns, .n_columns = 2};
    CHECK_OK(rows_in(out, sizeof out, "a.csv", "question,text,prompt\nq,a,old\n", &o));
    CHECK(!strcmp(out, "{\"prompt\":\"q\",\"completion\":\"a\"}"), "%s", out);
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "text\nx\n", &o), CB_E_FORMAT,
                "line 1: --column prompt=question: there is no column of this name; found \"text\"");
    static const char *const wrong[] = {"text"};
    CHECK_FAILS(records_check_columns(wrong, 1, &err), CB_E_USAGE, "KEY=COLUMN");
    // a list of messages as text, as some sets have it
    CHECK_OK(rows_in(out, sizeof out, "a.csv", "messages\n\"[{\"\"role\"\":\"\"assistant\"\",\"\"content\"\":\"\"x\"\"}]\"\n", NULL));
    CHECK(!strcmp(out, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}"), "%s", out);
}

TEST(data_tables, conll) {
    char out[3000];
    CHECK_OK(rows_in(out, sizeof out, "a.conll", "-DOCSTART- O\n\nSao NC B-LOC\nPaulo VMI I-LOC\n\n( Fpa O\n", NULL));
    CHECK(!strcmp(out,
                  "{\"tokens\":[\"Sao\",\"Paulo\"],\"column_2\":[\"NC\",\"VMI\"],\"tags\":[\"B-LOC\",\"I-LOC\"],\"text\":\"Sao Paulo\"}"
                  "{\"tokens\":[\"(\"],\"column_2\":[\"Fpa\"],\"tags\":[\"O\"],\"text\":\"(\"}"),
          "%s", out);
    CHECK_OK(rows_in(
        out, sizeof out, "a.conllu",
        "# text = "
        "don't\n1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n1\tdo\tdo\tAUX\t_\t_\t0\troot\t_\t_\n2\tn't\tnot\tPART\t_\t_\t1\tadvmod\t_\t_\n",
        NULL));
    CHECK(strstr(out, "\"text\":\"don't\"") && strstr(out, "\"tokens\":[\"do\",\"n't\"]") && strstr(out, "\"tags\":[\"AUX\",\"PART\"]"),
          "%s", out);
    CHECK_FAILS(rows_in(out, sizeof out, "a.conll", "a b c\nd e\n", NULL), CB_E_FORMAT, "line 2: found 2 columns; wanted 3");
    // a byte order mark is no part of the first word; files of two bytes a character are named
    CHECK_OK(rows_in(out, sizeof out, "a.conll", "\xef\xbb\xbfSao B-LOC\n", NULL));
    CHECK(strstr(out, "\"tokens\":[\"Sao\"]"), "%s", out);
    CHECK_FAILS(rows_in(out, sizeof out, "a.conll", "\xff\xfeS", NULL), CB_E_FORMAT, "found UTF-16");
    CHECK_FAILS(rows_in(out, sizeof out, "a.csv", "\xff\xfet,\n", NULL), CB_E_FORMAT, "found UTF-16");
}

TEST(data_tables, outside_treebanks) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600];
    struct records *r;
    const struct record *record;
    int64_t n = 0, words = 0;
    snprintf(path, sizeof path, "%s/data/ud_english_ewt/en_ewt-ud-dev.conllu.zst", shared);
    CHECK_OK(records_open(&r, path, NULL, NULL, &err));
    for (;; n++) {
        CHECK_OK(records_next(r, &record, &err));
        if (!record) break;
        words += (int64_t)json_array_size(json_object_get(record->object, "tokens"));
        CHECK(record->shape == RECORD_TAGS && record->text);
    }
    records_close(&r);
    CHECK(n == 2001 && words > 25000, "%lld sentences of %lld words", (long long)n, (long long)words);
}

TEST(data_tables, parquet) {
    static const char *const files[] = {"plain", "snappy_dictionary", "gzip_v2", "zstd_delta", "lz4"};
    static const char want[] =
        "{\"text\":\"first\",\"label\":1,\"score\":0.5,\"flag\":true,\"list\":[1,2],\"about\":{\"x\":1,\"y\":\"a\"}}"
        "{\"text\":\"Привет\",\"label\":3,\"score\":-2.25,\"flag\":null,\"list\":null,\"about\":{\"x\":null,\"y\":\"b\"}}";
    for (int i = 0; i < 5; i++) {
        char path[100], out[3000];
        snprintf(path, sizeof path, "tests/golden/data/%s.parquet", files[i]);
        // the fourth row has no label, which the shape of text and label refuses
        CHECK_FAILS(rows_of(out, sizeof out, path, NULL), CB_E_FORMAT, "row 4: label: found null");
        CHECK(!strncmp(out, want, strlen(want)), "%s: %s", files[i], out);
        static const char *const columns[] = {"text=text", "kind=label"};
        struct records_options o = {.columns = columns, .n_columns = 2};
        CHECK_OK(rows_of(out, sizeof out, path, &o));
        CHECK(strstr(out, "{\"text\":\"prefix two\",\"kind\":6,\"score\":4.0,\"flag\":false,\"list\":[5],\"about\":{\"x\":6,\"y\":\"c\"}}"),
              "%s: %s", files[i], out);
    }
}

TEST(data_tables, times_of_96_bits) {
    char out[600];
    CHECK_OK(rows_of(out, sizeof out, "tests/golden/data/int96.parquet", NULL));
    CHECK(!strcmp(out,
                  "{\"text\":\"a\",\"time\":0}{\"text\":\"b\",\"time\":1700000000123456789}{\"text\":\"c\",\"time\":null}"
                  "{\"text\":\"d\",\"time\":-1}"),
          "%s", out);
}

/* Images of every kind of number, their labels beside them; what is cut, too long or of another size is refused. */
TEST(data_tables, idx) {
    static const char image[] = "\0\0\x08\3\0\0\0\2\0\0\0\2\0\0\0\3\0\1\2\3\4\xff\x10\x11\x12\x13\x14\x15";
    static const char label[] = "\0\0\x08\1\0\0\0\2\7\x09", short_labels[] = "\0\0\x08\1\0\0\0\1\7";
    char out[1000], beside[300];
    char *path = file_make("t-images-idx3-ubyte", image, sizeof image - 1);
    CHECK_OK(rows_of(out, sizeof out, path, NULL));
    CHECK(!strcmp(out, "{\"pixels\":[[0,1,2],[3,4,255]]}{\"pixels\":[[16,17,18],[19,20,21]]}"), "%s", out);
    // the labels
    snprintf(beside, sizeof beside, "%.*st-labels-idx1-ubyte", (int)(strstr(path, "t-images") - path), path);
    FILE *f = fopen(beside, "wb");
    CHECK(f && fwrite(label, 1, sizeof label - 1, f) == sizeof label - 1);
    fclose(f);
    CHECK_OK(rows_of(out, sizeof out, path, NULL));
    CHECK(!strcmp(out, "{\"pixels\":[[0,1,2],[3,4,255]],\"label\":7}{\"pixels\":[[16,17,18],[19,20,21]],\"label\":9}"), "%s", out);
    f = fopen(beside, "wb");
    CHECK(f && fwrite(short_labels, 1, sizeof short_labels - 1, f) == sizeof short_labels - 1);
    fclose(f);
    CHECK_FAILS(rows_of(out, sizeof out, path, NULL), CB_E_FORMAT, "one label for each of the 2 images");
    CHECK_FAILS(rows_of(out, sizeof out, beside, NULL), CB_E_UNSUPPORTED, "labels alone");
    remove(beside);
    free(path);
    // other numbers
    static const struct {
        const char *bytes;
        size_t n;
        const char *want;
    } kinds[] = {
        {"\0\0\x09\2\0\0\0\1\0\0\0\2\xff\x7f", 14, "wanted rows of numbers"},  // a row is no image
        {"\0\0\x09\3\0\0\0\1\0\0\0\1\0\0\0\2\xff\x7f", 18, "{\"pixels\":[[-1,127]]}"},
        {"\0\0\x0b\3\0\0\0\1\0\0\0\1\0\0\0\1\x80\1", 18, "{\"pixels\":[[-32767]]}"},
        {"\0\0\x0c\3\0\0\0\1\0\0\0\1\0\0\0\1\xff\xff\xff\xfe", 20, "{\"pixels\":[[-2]]}"},
        {"\0\0\x0d\3\0\0\0\1\0\0\0\1\0\0\0\1\xbf\0\0\0", 20, "{\"pixels\":[[-0.5]]}"},
        {"\0\0\x0e\3\0\0\0\1\0\0\0\1\0\0\0\1\x40\x02\0\0\0\0\0\0", 24, "{\"pixels\":[[2.25]]}"},
        {"\0\0\x0d\3\0\0\0\1\0\0\0\1\0\0\0\1\x7f\xc0\0\0", 20, "no number"},
        {"\0\0\x0a\3\0\0\0\1", 8, "wanted 00 00"},
        {"\0\0\x08\3\0\0\0\1\0\0\0\1\xff\xff\xff\xff\1", 17, "wanted entries of"},
        {"\0\0\x08\3\0\0\0\2\0\0\0\1\0\0\0\1\1", 17, "is the file whole"},
        {"\0\0\x08\3\0\0\0\1\0\0\0\1\0\0\0\1\1\1", 18, "bytes after the 1 entries"},
        {"\0\0\x08", 3, "is the file whole"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        memset(&err, 0, sizeof err);
        path = file_make("t.idx3", kinds[i].bytes, kinds[i].n);
        enum cb_status status = rows_of(out, sizeof out, path, NULL);
        CHECK(status == CB_OK ? !strcmp(out, kinds[i].want) : strstr(err.message, kinds[i].want) != NULL, "%zu: %s %s", i, out,
              err.message);
        free(path);
    }
    memset(&err, 0, sizeof err);
}

TEST(data_tables, outside_images) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600];
    struct records *r;
    const struct record *record;
    int64_t n = 0, counts[10] = {0};
    snprintf(path, sizeof path, "%s/data/images_mnist/t10k-images-idx3-ubyte.gz", shared);
    CHECK_OK(records_open(&r, path, NULL, NULL, &err));
    for (;; n++) {
        CHECK_OK(records_next(r, &record, &err));
        if (!record) break;
        const json_int_t label = json_integer_value(json_object_get(record->object, "label"));
        CHECK(record->shape == RECORD_PIXELS && json_array_size(json_object_get(record->object, "pixels")) == 28 && label >= 0 &&
              label < 10);
        counts[label]++;
    }
    records_close(&r);
    CHECK(n == 10000 && counts[0] == 980 && counts[7] == 1028, "%lld images", (long long)n);
}

TEST(data_tables, damaged_parquet_is_refused) {
    FILE *f = fopen("tests/golden/data/snappy_dictionary.parquet", "rb");
    CHECK(f);
    unsigned char bytes[8192], broken[8192];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    int refused = 0;
    for (size_t i = 0; i < n; i += 3) {
        char out[20000];
        memcpy(broken, bytes, n);
        broken[i] ^= 0x55;
        char *path = file_make("a.parquet", broken, n);
        memset(&err, 0, sizeof err);
        refused += rows_of(out, sizeof out, path, NULL) != CB_OK;
        free(path);
    }
    CHECK(refused > (int)n / 6, "%d of %zu", refused, n / 3);
    char out[200], *path = file_make("a.parquet", bytes, n / 2);
    CHECK_FAILS(rows_of(out, sizeof out, path, NULL), CB_E_FORMAT, "cut or damaged");
    free(path);
}

// What a corpus learns of documents: its tokens, those that are not learnt in brackets.
static void learnt_text(char *out, size_t size, const struct corpus *c, const struct tokenizer *t) {
    int32_t ids[2000], labels[2000];
    int64_t n = corpus_info(c)->tokens;
    size_t used = 0;
    CHECK(n < 2000);
    CHECK_OK(corpus_read(c, ids, 0, n, &err));
    memset(labels, 0, sizeof labels);
    corpus_unlearn(c, labels, 0, n);
    for (int64_t i = 0; i < n; i++) {
        if (labels[i] == -100) continue;
        char *text;
        size_t length;
        CHECK_OK(tokenizer_decode(t, &text, &length, &ids[i], 1, false, &err));
        used += (size_t)snprintf(out + used, size - used, "%s", text);
        free(text);
    }
}

static bool next_line(void *context, const char **text, size_t *n) {
    int *left = context;
    *text = "abcdefghijklmnopqrstuvwxyz ABC <|>_/.\n", *n = strlen(*text);
    return (*left)-- > 0;
}

TEST(data_tables, conversations_are_learnt_where_the_assistant_speaks) {
    struct tokenizer *t = NULL;
    struct chat *chat = NULL;
    struct corpus *c = NULL;
    int left = 1;
    char out[1000];
    struct train_options o = {.kind = "byte", .vocab = 256};
    CHECK_OK(tokenizer_train(&t, &o, next_line, &left, NULL, NULL, &err));
    CHECK_OK(chat_create(&chat, chat_builtin("chatml"), strlen(chat_builtin("chatml")), "chatml", NULL, &err));
    static const char *const lines[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"one\"},{\"role\":\"user\",\"content\":"
        "\"r\"},{\"role\":\"assistant\",\"content\":\"two\"}]}\n",
        "{\"instruction\":\"i\",\"input\":\"j\",\"output\":\"one\"}\n{\"instruction\":\"i\",\"output\":\"two\"}\n",
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"one\"},{\"from\":\"human\",\"value\":\"q\"}"
        ",{\"from\":\"gpt\",\"value\":\"two\"}]}\n",
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"completion\":[{\"role\":\"assistant\",\"content\":\"one\"}]}\n"
        "{\"messages\":[{\"role\":\"assistant\",\"content\":\"two\"}]}\n",
        "{\"prompt\":\"q\",\"completion\":\"one\"}\n{\"prompt\":\"q\",\"completion\":\"two\"}\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *path = file_make("a.jsonl", lines[i], strlen(lines[i]));
        struct corpus_options co = {.bos = -1, .eos = -1, .chat = chat, .is_chat = true};
        CHECK_OK(corpus_load(&c, (const char *const[]){path}, 1, t, NULL, &co, NULL, &err));
        learnt_text(out, sizeof out, c, t);
        CHECK(!strcmp(out, "one<|im_end|>two<|im_end|>"), "%zu: %s", i, out);
        CHECK(corpus_info(c)->bytes == 26, "%lld", (long long)corpus_info(c)->bytes);
        corpus_destroy(&c);
        free(path);
    }
    chat_destroy(&chat);
    tokenizer_destroy(&t);
}
