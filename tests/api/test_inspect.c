/* cb_inspect on data and vocabularies: kinds, columns, lengths; what is broken is told, and refused with check. */
#include <cambium/cambium.h>

#include "../data/files.h"
#include "../harness.h"
#include "io/file.h"
#include "io/safetensors.h"

static struct cb_err err;

// What inspect says of a file with these bytes, as JSON; NULL where it fails (err says why). free() it.
static char *inspected(const char *name, const char *bytes, bool check) {
    char *path = file_make(name, bytes, strlen(bytes)), *text = NULL;
    memset(&err, 0, sizeof err);
    cb_inspect(path, NULL, check, false, true, &text, &err);
    free(path);
    return text;
}

TEST(inspect, data_and_vocabularies) {
    static const struct {
        const char *name, *bytes, *words[4];
    } cases[] = {
        {"a.csv",
         "text,stars\nab,5\nc,4\n",
         {"\"format\":\"csv\",\"records\":2,", "{\"name\":\"text\",\"kind\":\"text\",\"first_length\":2}",
          "2 records of text, 3 characters"}},
        // a table without a column that has a known name is whole
        {"a.tsv",
         "id\treview\n1\tgood\n",
         {"\"format\":\"csv\",\"records\":1,", "\"name\":\"review\"", "\"note\":", "found \\\"id\\\", \\\"review\\\""}},
        {"a.jsonl",
         "{\"text\":\"a\",\"n\":1,\"x\":null}\n{\"text\":\"b\",\"n\":0.5,\"x\":[1,2]}\n",
         {"{\"name\":\"n\",\"kind\":\"number\"}", "{\"name\":\"x\",\"kind\":\"list\",\"first_length\":2}", "\"shape\":\"text\""}},
        {"a.json", "[{\"instruction\":\"a\",\"output\":\"b\"}]", {"\"format\":\"json\"", "1 record of instruction and output"}},
        {"a.conll", "A B\nC D\n", {"\"format\":\"conll\"", "\"name\":\"tokens\",\"kind\":\"list\",\"first_length\":2"}},
        {"a.txt", "ab\n<|endoftext|>\nc", {"\"kind\":\"text\",\"documents\":2,\"bytes\":4,\"characters\":4,\"first_length\":3"}},
        {"vocab.txt",
         "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n",
         {"\"kind\":\"tokenizer\"", "\"vocab\":6", "\"first_pieces\":[\"[PAD]\",\"[UNK]\""}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = inspected(cases[i].name, cases[i].bytes, true);
        CHECK(text, "%s: %s", cases[i].name, err.message);
        for (int w = 0; w < 4 && cases[i].words[w]; w++) CHECK(strstr(text, cases[i].words[w]), "%s lacks %s", text, cases[i].words[w]);
        free(text);
    }
    char *text = NULL;
    memset(&err, 0, sizeof err);
    CHECK_OK(cb_inspect("tests/golden/data/plain.parquet", NULL, true, false, true, &text, &err));
    CHECK(strstr(text, "\"records\":6") && strstr(text, "{\"name\":\"score\",\"kind\":\"number\"}"), "%s", text);
    free(text);
}

/* A folder is a tokenizer's by any file that one is loaded from, under the names that few models use too. */
TEST(inspect, folders_of_vocabularies) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char bytes[256 * 10 + 1] = "";
    size_t used = 0;
    for (int i = 0; i < 256; i++)  // each byte is a token, in base64 with its rank
        used += (size_t)snprintf(bytes + used, sizeof bytes - used, "%c%c== %d\n", digits[i >> 2], digits[(i & 3) << 4], i);
    const char *const files[][3] = {{"qwen.tiktoken", bytes, "256"}, {"vocab.txt", "[UNK]\na\n", "2"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *folder = folder_make(), *path = file_put(folder, files[i][0], files[i][1], strlen(files[i][1])), *text = NULL;
        memset(&err, 0, sizeof err);
        CHECK_OK(cb_inspect(folder, NULL, true, false, true, &text, &err));
        char want[60];
        snprintf(want, sizeof want, "\"kind\":\"tokenizer\",\"vocab\":%s,", files[i][2]);
        CHECK(strstr(text, want), "%s: %s", files[i][0], text);
        free(text);
        free(path);
        free(folder);
    }
}

/* Weights without what they are weights of are shown, and refused with check. */
TEST(inspect, weights_alone) {
    static const char *const files[][3] = {{"model.safetensors", "\"kind\":\"weights\"", "weights without config.json"},
                                           {"adapter_model.bin", "\"kind\":\"adapter weights\"", "without adapter_config.json"}};
    static const float zero = 0;
    for (int i = 0; i < 2; i++) {
        char *folder = folder_make(), *path = io_path_join(folder, files[i][0]), *text = NULL;
        const struct tensor_item item = {"w", {CB_DTYPE_F32, 1, {1}}, &zero, NULL};
        memset(&err, 0, sizeof err);
        CHECK_OK(tensors_write(path, &item, 1, NULL, NULL, NULL, &err));
        CHECK_OK(cb_inspect(folder, NULL, false, false, true, &text, &err));
        CHECK(strstr(text, files[i][1]) && strstr(text, "\"tensors\":1") && strstr(text, files[i][2]), "%s", text);
        free(text);
        CHECK_FAILS(cb_inspect(folder, NULL, true, false, true, &text, &err), CB_E_IO, files[i][2]);
        free(path);
        free(folder);
    }
}

TEST(inspect, broken_data) {
    static const struct {
        const char *name, *bytes, *words;
    } cases[] = {
        {"a.csv", "text,b\n\"x\"y,1\n", "after a closing quote"},
        {"a.json", "[{\"text\":\"a\"}", "found the end of the file"},
        {"a.jsonl", "{\"text\":\"a\"}\n{\"text\":", "line 2"},
        {"a.txt", "a\xff", "byte 0xff"},
        {"a.parquet", "PAR1", "Parquet"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = inspected(cases[i].name, cases[i].bytes, true);
        CHECK(!text && strstr(err.message, cases[i].words), "%s: %s", cases[i].name, err.message);
        text = inspected(cases[i].name, cases[i].bytes, false);
        CHECK(text && strstr(text, "\"problem\":") && strstr(text, cases[i].words), "%s: %s", cases[i].name, text ? text : "");
        free(text);
    }
}
