/* Fuzz target: bytes as a tokenizer's file of any format (SentencePiece, tiktoken, vocab.txt); what loads is used on text, good and broken, and
   written as a tokenizer.json, which must load. The first byte chooses what tokenizer_config.json says. */
#include <stdlib.h>
#include <string.h>

#include "text/formats.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct tokenizer *t, const char *text, size_t n, unsigned flags) {
    struct cb_err err = {0};
    struct token_list list = {0};
    char *out = NULL;
    size_t n_out;
    if (!tokenizer_encode(t, &list, text, n, flags, &err)) {
        int32_t *ids = malloc((list.n + 1) * sizeof *ids);
        for (size_t i = 0; ids && i < list.n; i++) {
            ids[i] = list.token[i].id;
            if (list.token[i].end > n || list.token[i].id < 0 || list.token[i].id >= tokenizer_size(t)) abort();
        }
        if (ids && !tokenizer_decode(t, &out, &n_out, ids, list.n, false, &err) && utf8_check(out, n_out) < n_out) abort();
        struct text_stream *stream = NULL;
        const char *piece;
        if (ids && !text_stream_create(&stream, t, true, &err))
            for (size_t i = 0; i < list.n; i++)
                if (!text_stream_push(stream, ids[i], &piece, &n_out, &err) && utf8_check(piece, n_out) < n_out) abort();
        text_stream_destroy(&stream);
        free(ids);
        free(out);
    }
    token_list_deinit(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const configs[] = {
        NULL, "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}",
        "{\"tokenizer_class\":\"T5Tokenizer\",\"eos_token\":\"</"
        "s>\",\"added_tokens_decoder\":{\"3\":{\"content\":\"ab\",\"special\":true}}}",
        "{\"do_lower_case\":false,\"strip_accents\":true,\"unk_token\":\"[UNK]\"}"};
    struct tokenizer *t = NULL, *again = NULL;
    struct cb_err err = {0};
    if (!size) return 0;
    const char *text = configs[data[0] % 4], *bytes = (const char *)data + 1;
    json_t *config = text ? json_loads(text, 0, NULL) : NULL;
    struct text_file file = {bytes, size - 1, "input", NULL, config};
    enum cb_status status = tokenizer_load_file(&t, &file, &err);
    json_decref(config);
    if (status) return 0;
    use(t, "Hello \xc3\xa9 ab  abab<s>\xe2\x96\x81\xe4\xbd\xa0 12", 27, ENCODE_SPECIALS | ENCODE_CODE_POINTS);
    use(t,
        "a\xff"
        "b\xe4\xbd \xc3",
        7, ENCODE_OFFSETS);
    use(t, bytes, size - 1 < 400 ? size - 1 : 400, ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_LIMITS);
    char *json = NULL;
    size_t n;
    if (!tokenizer_to_json(t, &json, &n, &err) && tokenizer_load_bytes(&again, json, n, "again", &err)) abort();
    if (again) use(again, "Hello \xc3\xa9 ab  abab<s>", 19, 0);
    free(json);
    tokenizer_destroy(&again);
    tokenizer_destroy(&t);
    return 0;
}
