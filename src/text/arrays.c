/* Tokenizers from plain arrays, as GGUF files hold vocabularies. */
#include "text/bpe.h"
#include "text/config.h"
#include "text/formats.h"
#include "text/patterns.h"
#include "text/spm.h"
#include "text/utf8.h"

static bool flag_or(enum array_flag flag, bool preset) { return flag ? flag == ARRAY_TRUE : preset; }
static int32_t type_of(const struct tokenizer_arrays *a, int32_t id) { return a->type ? a->type[id] : PIECE_NORMAL; }

static enum cb_status arrays_check(const struct tokenizer_arrays *a, const char *name, struct cb_err *err) {
    const int32_t *const ids[] = {a->bos, a->eos, a->unk, a->pad, a->sep, a->cls, a->mask};
    static const char *const names[] = {"bos", "eos", "unknown", "padding", "separator", "cls", "mask"};
    if (a->n_tokens < 1 || a->n_tokens > 1 << 24) FAIL(err, CB_E_FORMAT, "%s: %d tokens; 1 to 2^24 are wanted", name, (int)a->n_tokens);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i] && (*ids[i] < 0 || *ids[i] >= a->n_tokens))
            FAIL(err, CB_E_FORMAT, "%s: the %s token has id %d of %d tokens", name, names[i], (int)*ids[i], (int)a->n_tokens);
    for (int32_t i = 0; i < a->n_tokens; i++) {
        size_t good = utf8_check(a->token[i].text, a->token[i].n);
        if (good < a->token[i].n) FAIL(err, CB_E_FORMAT, "%s: token %d is not UTF-8", name, (int)i);
        if (memchr(a->token[i].text, 0, a->token[i].n)) FAIL(err, CB_E_FORMAT, "%s: token %d holds a NUL", name, (int)i);
    }
    return CB_OK;
}

/* Control, unknown and user-defined tokens are found in text. */
static enum cb_status specials_set(struct tokenizer *t, const struct tokenizer_arrays *a, const char *name, struct cb_err *err) {
    for (int32_t id = 0; id < a->n_tokens; id++) {
        int32_t type = type_of(a, id);
        const struct vocab_token *token = vocab_at(&t->vocab, id);
        if ((type != PIECE_UNKNOWN && type != PIECE_CONTROL && type != PIECE_USER) || !token) continue;
        if (vocab_find(&t->vocab, token->text, token->n) != id) continue;  // a later one has the same text
        if (t->n_added >= 1 << 16) FAIL(err, CB_E_LIMIT, "%s: over 65536 control and user-defined tokens", name);
        struct added_token added = {token->text, token->n, id, .special = type != PIECE_USER};
        TRY(tokenizer_add(t, &added, name, err));
    }
    return CB_OK;
}

static enum cb_status vocab_set(struct tokenizer *t, const struct tokenizer_arrays *a, const char *name, struct cb_err *err) {
    TRY(vocab_init(&t->vocab, t->arena, a->n_tokens, a->n_tokens, err));
    for (int32_t id = 0; id < a->n_tokens; id++)
        if (a->token[id].n) TRY(vocab_add_last(&t->vocab, t->arena, id, a->token[id].text, a->token[id].n, name, err));
    return CB_OK;
}

/* The text of an id's token if it is put around texts. */
static const char *text_if(const struct tokenizer *t, const int32_t *id, bool wanted) {
    const struct vocab_token *token = wanted && id ? vocab_at(&t->vocab, *id) : NULL;  // the tokenizer's size is not known yet
    return token ? token->text : NULL;
}

/* ---- one function a model */

static enum cb_status spm_arrays(struct tokenizer *t, const struct tokenizer_arrays *a, bool is_unigram, const char *name,
                                 struct cb_err *err) {
    struct spm_model m = SPM_PRESET;
    m.n = a->n_tokens, m.piece = a->token, m.score = a->score, m.type = a->type;
    m.unigram = is_unigram, m.byte_fallback = false, m.find_specials = true;
    for (int32_t id = 0; id < a->n_tokens && !m.byte_fallback; id++) m.byte_fallback = type_of(a, id) == PIECE_BYTE;
    m.dummy_prefix = flag_or(a->add_space_prefix, true);
    m.squeeze_spaces = flag_or(a->remove_extra_whitespaces, is_unigram);
    m.charsmap = a->charsmap, m.n_charsmap = a->n_charsmap;
    if (a->n_charsmap) {
        unsigned char *copy = arena_alloc(t->arena, a->n_charsmap);
        if (!copy) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
        memcpy(copy, a->charsmap, a->n_charsmap);
        m.charsmap = copy;
    }
    TRY(spm_set(t, &m, name, err));
    return template_set(t, text_if(t, a->bos, flag_or(a->add_bos, !is_unigram)), text_if(t, a->eos, flag_or(a->add_eos, is_unigram)), false,
                        name, err);
}
static enum cb_status llama_set(struct tokenizer *t, const struct tokenizer_arrays *a, const char *name, struct cb_err *err) {
    return spm_arrays(t, a, false, name, err);
}
static enum cb_status t5_set(struct tokenizer *t, const struct tokenizer_arrays *a, const char *name, struct cb_err *err) {
    return spm_arrays(t, a, true, name, err);
}

static enum cb_status gpt2_set(struct tokenizer *t, const struct tokenizer_arrays *a, const char *name, struct cb_err *err) {
    const char *pre = a->pre ? a->pre : "gpt-2";
    const struct text_pattern *pattern = text_pattern_find(pre);
    if (!pattern) FAIL(err, CB_E_UNSUPPORTED, "%s: tokenizer.ggml.pre: \"%.60s\" is not known", name, pre);
    TRY(vocab_set(t, a, name, err));
    int32_t(*pair)[2] = malloc(((size_t)a->n_merges + 1) * sizeof *pair);
    enum cb_status status = pair ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", name);
    for (int32_t i = 0; i < a->n_merges && !status; i++) status = merge_parse(t, pair[i], a->merge[i].text, a->merge[i].n, (size_t)i, err);
    if (!status) status = bpe_set(t, (const int32_t(*)[2])pair, a->n_merges, err);
    free(pair);
    if (status) return err_prefix(err, "%s", name);
    ((struct bpe *)t->model_data)->ignore_merges = pattern->ignore_merges;
    TRY(text_pattern_parts(t, pattern->regex, name, err));
    TRY(specials_set(t, a, name, err));
    return template_set(t, text_if(t, a->bos, flag_or(a->add_bos, pattern->add_bos)), text_if(t, a->eos, flag_or(a->add_eos, false)), false,
                        name, err);
}

/* GGUF writes a word as U+2581 and the word, and what goes on without ##; specials stand as they are. */
static enum cb_status bert_token(const struct tokenizer_arrays *a, int32_t id, struct buffer *text, struct cb_err *err) {
    struct text_view v = a->token[id];
    text->n = 0;
    int32_t type = type_of(a, id);
    bool plain = type != PIECE_CONTROL && type != PIECE_UNKNOWN && type != PIECE_USER;
    if (plain && v.n > 2 && v.text[0] == '[' && v.text[v.n - 1] == ']') plain = false;
    if (plain && v.n >= 3 && !memcmp(v.text, "\xe2\x96\x81", 3))
        v.text += 3, v.n -= 3;
    else if (plain)
        TRY(buffer_append(text, "##", 2, err));
    return buffer_append(text, v.text, v.n, err);
}

static enum cb_status bert_arrays_set(struct tokenizer *t, const struct tokenizer_arrays *a, const char *name, struct cb_err *err) {
    struct buffer text = {0};
    bool is_phantom = false;  // or plain BERT texts
    for (int32_t id = 0; id < a->n_tokens && !is_phantom; id++)
        is_phantom = a->token[id].n > 3 && !memcmp(a->token[id].text, "\xe2\x96\x81", 3);
    TRY(vocab_init(&t->vocab, t->arena, a->n_tokens, a->n_tokens, err));
    enum cb_status status = CB_OK;
    for (int32_t id = 0; id < a->n_tokens && !status; id++) {
        text.n = 0;
        status = is_phantom ? bert_token(a, id, &text, err) : buffer_append(&text, a->token[id].text, a->token[id].n, err);
        if (!status && text.n) status = vocab_add_last(&t->vocab, t->arena, id, text.data, text.n, name, err);
    }
    free(text.data);
    return status ? status : bert_set(t, NULL, name, err);
}

enum cb_status tokenizer_from_arrays(struct tokenizer **tokenizer, const struct tokenizer_arrays *arrays, const char *name,
                                     struct cb_err *err) {
    static const struct {
        const char *name;
        enum cb_status (*set)(struct tokenizer *t, const struct tokenizer_arrays *a, const char *name, struct cb_err *err);
    } models[] = {{"llama", llama_set}, {"gpt2", gpt2_set}, {"bert", bert_arrays_set}, {"t5", t5_set}};
    *tokenizer = NULL;
    const char *model = arrays->model ? arrays->model : "none";
    size_t which = 0;
    while (which < 4 && strcmp(models[which].name, model) != 0) which++;
    if (which == 4) FAIL(err, CB_E_UNSUPPORTED, "%s: tokenizer.ggml.model: \"%.60s\"; llama, gpt2, bert or t5 is wanted", name, model);
    TRY(arrays_check(arrays, name, err));
    enum cb_status status = tokenizer_create(tokenizer, err);
    if (!status) status = models[which].set(*tokenizer, arrays, name, err);
    if (!status && arrays->bos) (*tokenizer)->bos = *arrays->bos;
    if (!status && arrays->eos) (*tokenizer)->eos = *arrays->eos;
    if (!status) status = tokenizer_finish(*tokenizer, name, err);
    if (status) tokenizer_destroy(tokenizer), message_clean(err);
    return status;
}
