/* BERT's vocab.txt, and what stands around a WordPiece vocabulary (Devlin et al., NAACL 2019). */
#include "text/config.h"
#include "text/formats.h"
#include "text/utf8.h"

enum cb_status vocab_txt_read(struct tokenizer *t, const char *bytes, size_t n, const json_t *config, const char *name,
                              struct cb_err *err) {
    size_t good = utf8_check(bytes, n), n_line;
    const char *line;
    int32_t id = 0;
    if (good < n) FAIL(err, CB_E_FORMAT, "%s: byte 0x%02x at %zu is not UTF-8", name, (unsigned char)bytes[good], good);
    if (memchr(bytes, 0, n)) FAIL(err, CB_E_FORMAT, "%s: holds a NUL; text is wanted", name);
    for (size_t at = 0; line_next(bytes, n, &at, &line, &n_line); id++)
        if (id >= 1 << 24) FAIL(err, CB_E_LIMIT, "%s: over 2^24 tokens", name);
    if (!id) FAIL(err, CB_E_FORMAT, "%s: found no tokens; one a line is wanted", name);
    TRY(vocab_init(&t->vocab, t->arena, id, id, err));
    id = 0;
    for (size_t at = 0; line_next(bytes, n, &at, &line, &n_line); id++)
        TRY(vocab_add_last(&t->vocab, t->arena, id, line, n_line, name, err));
    return bert_set(t, config, name, err);
}

static bool is_special(const char *text, size_t n) { return n > 2 && text[0] == '[' && text[n - 1] == ']'; }

/* A vocabulary without upper case is one of lower-cased text. */
static bool is_lower(const struct vocab *vocab) {
    for (int32_t id = 0; id < vocab->size; id++) {
        const struct vocab_token *token = vocab_at(vocab, id);
        if (!token || is_special(token->text, token->n)) continue;
        for (size_t i = 0; i < token->n; i++)
            if (token->text[i] >= 'A' && token->text[i] <= 'Z') return false;
    }
    return true;
}

static const char *known(const struct tokenizer *t, const json_t *config, const char *key, const char *preset) {
    struct text_view text = config_text(config, key);
    const char *token = text.text ? text.text : preset;
    return vocab_find(&t->vocab, token, strlen(token)) < 0 ? NULL : token;
}

enum cb_status bert_set(struct tokenizer *t, const json_t *config, const char *name, struct cb_err *err) {
    static const char *const specials[][2] = {
        {"pad_token", "[PAD]"}, {"unk_token", "[UNK]"}, {"cls_token", "[CLS]"}, {"sep_token", "[SEP]"}, {"mask_token", "[MASK]"}};
    bool lower = config_flag(config, "do_lower_case", is_lower(&t->vocab));
    const json_t *accents = json_object_get(config, "strip_accents");
    const char *unk = known(t, config, "unk_token", "[UNK]");
    if (!unk) FAIL(err, CB_E_FORMAT, "%s: the unknown token %s is not in the vocabulary", name, specials[1][1]);
    TRY(wordpiece_set(t, unk, "##", err));
    json_t *normalizer = json_pack("{sssbsbsOsb}", "type", "BertNormalizer", "clean_text", 1, "handle_chinese_chars",
                                   config_flag(config, "tokenize_chinese_chars", true), "strip_accents", accents ? accents : json_null(),
                                   "lowercase", lower);
    if (!normalizer) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    enum cb_status status = part_read(t, &t->part[ROLE_NORMALIZER], ROLE_NORMALIZER, normalizer, name, 0, err);
    json_decref(normalizer);
    if (status) return status;
    t->part[ROLE_PRE_TOKENIZER] = part_make(t, ROLE_PRE_TOKENIZER, "BertPreTokenizer");
    struct part *decoder = t->part[ROLE_DECODER] = part_make(t, ROLE_DECODER, "WordPiece");
    if (!t->part[ROLE_PRE_TOKENIZER] || !decoder) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    decoder->text[0] = (struct part_text){"##", 2};
    TRY(config_added(t, config, name, err));
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        const char *text = known(t, config, specials[i][0], specials[i][1]);
        struct added_token token = {text, text ? strlen(text) : 0, text ? tokenizer_id(t, text) : -1, .special = true};
        bool has = !text;
        for (int k = 0; k < t->n_added; k++) has = has || t->added[k].id == token.id;
        if (!has) TRY(tokenizer_add(t, &token, name, err));
    }
    const char *cls = known(t, config, "cls_token", "[CLS]"), *sep = known(t, config, "sep_token", "[SEP]");
    return cls && sep ? template_set(t, cls, sep, true, name, err) : CB_OK;
}
