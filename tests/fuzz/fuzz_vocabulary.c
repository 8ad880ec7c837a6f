/* Fuzz target: bytes as a tokenizer's file of any format (SentencePiece, tiktoken, vocab.txt); what loads is used on text, good and broken, and
   written as a tokenizer.json, which must load. The first byte chooses what tokenizer_config.json says. */
#include "text/formats.h"
#include "tokenizer_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const configs[] = {
        NULL, "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}",
        "{\"tokenizer_class\":\"T5Tokenizer\",\"eos_token\":\"</"
        "s>\",\"added_tokens_decoder\":{\"3\":{\"content\":\"ab\",\"special\":true}}}",
        "{\"do_lower_case\":false,\"strip_accents\":true,\"unk_token\":\"[UNK]\"}"};
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    if (!size) return 0;
    const char *text = configs[data[0] % 4], *bytes = (const char *)data + 1;
    json_t *config = text ? json_loads(text, 0, NULL) : NULL;
    struct text_file file = {bytes, size - 1, "input", NULL, config};
    enum cb_status status = tokenizer_load_file(&t, &file, &err);
    json_decref(config);
    if (status) return 0;
    use_text(t, "Hello \xc3\xa9 ab  abab<s>\xe2\x96\x81\xe4\xbd\xa0 12", 27, ENCODE_SPECIALS | ENCODE_CODE_POINTS);
    use_text(t,
             "a\xff"
             "b\xe4\xbd \xc3",
             7, ENCODE_OFFSETS);
    use_text(t, bytes, size - 1 < 400 ? size - 1 : 400, ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_LIMITS);
    use_again(&t);
    return 0;
}
