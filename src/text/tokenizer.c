/* The tokenizer as an object: parts and model put together, the vocabulary with its added tokens. */
#include "text/added.h"
#include "text/parts.h"

enum cb_status tokenizer_create(struct tokenizer **tokenizer, struct cb_err *err) {
    struct tokenizer *t = *tokenizer = calloc(1, sizeof *t);
    if (t) t->arena = arena_create(), t->bos = t->eos = -1;
    if (t && t->arena) return CB_OK;
    tokenizer_destroy(tokenizer);
    FAIL(err, CB_E_MEMORY, "tokenizer: no memory");
}

void tokenizer_destroy(struct tokenizer **tokenizer) {
    struct tokenizer *t = tokenizer ? *tokenizer : NULL;
    if (!t) return;
    for (size_t i = 0; i < t->n_regex; i++) regex_destroy(&t->regex[i]);
    free(t->regex);
    free(t->added);
    arena_destroy(&t->arena);
    free(t);
    *tokenizer = NULL;
}

enum cb_status tokenizer_keep_regex(struct tokenizer *t, struct regex *regex, struct cb_err *err) {
    enum cb_status status = buffer_grow((void **)&t->regex, &t->regex_capacity, t->n_regex + 1, sizeof(struct regex *), err);
    if (status)
        regex_destroy(&regex);
    else
        t->regex[t->n_regex++] = regex;
    return status;
}

enum cb_status bytelevel_parts(struct tokenizer *t, bool words, struct cb_err *err) {
    struct part *pre = t->part[ROLE_PRE_TOKENIZER] = part_make(t, ROLE_PRE_TOKENIZER, "ByteLevel");
    t->part[ROLE_DECODER] = part_make(t, ROLE_DECODER, "ByteLevel");
    if (!pre || !t->part[ROLE_DECODER]) FAIL(err, CB_E_MEMORY, "tokenizer: no memory");
    pre->flag[0] = false, pre->flag[2] = words;
    return CB_OK;
}

/* ---- added tokens */

enum cb_status tokenizer_add(struct tokenizer *t, const struct added_token *token, const char *name, struct cb_err *err) {
    int32_t known = vocab_find(&t->vocab, token->text, token->n), next = tokenizer_n_shown(t);
    const struct vocab_token *taken = token->id < next ? vocab_at(&t->vocab, token->id) : NULL;
    if (known >= next) known = -1;
    for (int i = 0; i < t->n_added; i++) {
        const struct added_token *a = &t->added[i];
        if (a->id >= next) next = a->id + 1;
        if (a->id == token->id || (a->n == token->n && !memcmp(a->text, token->text, a->n)))
            FAIL(err, CB_E_FORMAT, "%s: added_tokens: \"%.60s\" has id %d, \"%.60s\" has %d; one content an id", name, a->text, (int)a->id,
                 token->text, (int)token->id);
    }
    if (known != token->id && taken)
        FAIL(err, CB_E_FORMAT, "%s: added_tokens: \"%.60s\" has id %d, which is \"%.60s\" in the vocabulary", name, token->text,
             (int)token->id, taken->text);
    if (known >= 0 && known != token->id)
        FAIL(err, CB_E_FORMAT, "%s: added_tokens: \"%.60s\" has id %d; its id in the vocabulary is %d", name, token->text, (int)token->id,
             (int)known);
    if (token->id > next)
        FAIL(err, CB_E_FORMAT, "%s: added_tokens: \"%.60s\" has id %d; at most the next one, %d, is wanted", name, token->text,
             (int)token->id, (int)next);
    struct added_token *grown = realloc(t->added, ((size_t)t->n_added + 1) * sizeof *grown);
    if (!grown) FAIL(err, CB_E_MEMORY, "%s: no memory for added tokens", name);
    t->added = grown;
    grown[t->n_added] = *token;
    grown[t->n_added].text = arena_strndup(t->arena, token->text, token->n);
    if (!grown[t->n_added++].text) FAIL(err, CB_E_MEMORY, "%s: no memory for added tokens", name);
    return CB_OK;
}

/* Ids of all tokens, and the needles that are found before and after normalising. */
static enum cb_status added_index(struct tokenizer *t, struct cb_err *err) {
    t->size = tokenizer_n_shown(t);
    for (int i = 0; i < t->n_added; i++)
        if (t->added[i].id >= t->size) t->size = t->added[i].id + 1;
    t->added_of = arena_array(t->arena, (size_t)t->size + 1, sizeof *t->added_of);
    t->raw_set.needle = arena_array(t->arena, (size_t)t->n_added + 1, sizeof *t->raw_set.needle);
    t->normal_set.needle = arena_array(t->arena, (size_t)t->n_added + 1, sizeof *t->normal_set.needle);
    if (!t->added_of || !t->raw_set.needle || !t->normal_set.needle) FAIL(err, CB_E_MEMORY, "tokenizer: no memory for added tokens");
    struct encoder *e;
    t->raw_set.n = t->normal_set.n = 0;  // training finishes twice
    TRY(encoder_create(&e, t, err));
    enum cb_status status = CB_OK;
    for (int i = 0; i < t->n_added && !status; i++) {
        struct added_token *a = &t->added[i];
        t->added_of[a->id] = i + 1;
        if (a->hidden) continue;
        struct added_needle needle = {a->text, a->n, i};
        if (!a->normalized) {
            if (needle.n) t->raw_set.needle[t->raw_set.n++] = needle;
            continue;
        }
        // looked for in normalised text, so it is normalised too
        char *normal = NULL;
        status = encoder_normalise(e, &normal, &needle.n, a->text, a->n, err);
        if (!status && !(needle.text = arena_strndup(t->arena, normal, needle.n)))
            status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "tokenizer: no memory");
        free(normal);
        if (!status && needle.n) t->normal_set.needle[t->normal_set.n++] = needle;
    }
    encoder_destroy(&e);
    added_set_index(&t->raw_set);
    added_set_index(&t->normal_set);
    return status;
}

/* ---- sequences become flat lists */

static int count_flat(const struct part *part) {
    int n = 0;
    if (!part) return 0;
    if (part->kind->normalise || part->kind->split) return 1;
    for (int i = 0; i < part->n_parts; i++) n += count_flat(part->part[i]);
    return n;
}

static const struct part **put_flat(const struct part **out, const struct part *part) {
    if (!part) return out;
    if (part->kind->normalise || part->kind->split) {
        *out = part;
        return out + 1;
    }
    for (int i = 0; i < part->n_parts; i++) out = put_flat(out, part->part[i]);
    return out;
}

enum cb_status tokenizer_finish(struct tokenizer *t, const char *name, struct cb_err *err) {
    const struct part *normalizer = t->part[ROLE_NORMALIZER], *pre = t->part[ROLE_PRE_TOKENIZER];
    t->n_normalisers = count_flat(normalizer), t->n_stages = count_flat(pre);
    t->normaliser = arena_array(t->arena, (size_t)t->n_normalisers + 1, sizeof *t->normaliser);
    t->stage = arena_array(t->arena, (size_t)t->n_stages + 1, sizeof *t->stage);
    if (!t->normaliser || !t->stage) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    put_flat(t->normaliser, normalizer);
    put_flat(t->stage, pre);
    // the model may map bytes itself where ByteLevel comes last, and once
    int n_byte_stages = 0;
    for (int i = 0; i < t->n_stages; i++) {
        n_byte_stages += !strcmp(t->stage[i]->kind->type, "ByteLevel");
        t->always_track = t->always_track || (!strcmp(t->stage[i]->kind->type, "Metaspace") && t->n_normalisers + i > 0);
    }
    bool last = t->n_stages && !strcmp(t->stage[t->n_stages - 1]->kind->type, "ByteLevel");
    t->raw_bytes = t->raw_bytes && last && n_byte_stages == 1;
    return added_index(t, err);
}

/* ---- the vocabulary */

int32_t tokenizer_size(const struct tokenizer *tokenizer) { return tokenizer->size; }

const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *n) {
    if (n) *n = 0;
    if (id < 0 || id >= tokenizer->size) return NULL;
    if (tokenizer->added_of[id]) {
        const struct added_token *a = &tokenizer->added[tokenizer->added_of[id] - 1];
        if (n) *n = a->n;
        return a->text;
    }
    const struct vocab_token *token = vocab_at(&tokenizer->vocab, id);
    if (token && n) *n = token->n;
    return token ? token->text : NULL;
}

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token) {
    size_t n = strlen(token);
    for (int i = 0; i < tokenizer->n_added; i++)
        if (tokenizer->added[i].n == n && !memcmp(tokenizer->added[i].text, token, n)) return tokenizer->added[i].id;
    int32_t id = vocab_find(&tokenizer->vocab, token, n);
    return id < tokenizer_n_shown(tokenizer) ? id : -1;
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->size && tokenizer->added_of[id] && tokenizer->added[tokenizer->added_of[id] - 1].special;
}

static int32_t first_of(const struct tokenizer *t, const char *const *names) {
    int32_t id = -1;
    for (; *names && id < 0; names++) id = tokenizer_id(t, *names);
    return id;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer) {
    if (tokenizer->bos >= 0) return tokenizer->bos;
    static const char *const names[] = {"<|begin_of_text|>", "<s>", "<bos>", "[CLS]", "<|endoftext|>", NULL};
    return first_of(tokenizer, names);
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer) {
    if (tokenizer->eos >= 0) return tokenizer->eos;
    static const char *const names[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]", NULL};
    return first_of(tokenizer, names);
}
