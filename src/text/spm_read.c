/* SentencePiece's .model files: the fields of sentencepiece_model.proto that encoding and decoding need, in protobuf's wire format. */
#include "text/spm.h"

/* ---- the wire format: a key (number << 3 | type) and a value */

enum wire_type { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 5 };
struct wire {
    const unsigned char *at, *end;
    const char *name;
};
struct wire_field {
    uint64_t number, value;  // value: of varints and fixed numbers
    enum wire_type type;
    struct wire bytes;
};

static enum cb_status varint_read(struct wire *w, uint64_t *out, struct cb_err *err) {
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end) FAIL(err, CB_E_FORMAT, "%s: the file ends within a number", w->name);
        unsigned char b = *w->at++;
        *out |= (uint64_t)(b & 127) << shift;
        if (b < 128) return CB_OK;
    }
    FAIL(err, CB_E_FORMAT, "%s: a number of over ten bytes; this is no SentencePiece model", w->name);
}

static enum cb_status fixed_read(struct wire *w, uint64_t *out, size_t n, struct cb_err *err) {
    if ((size_t)(w->end - w->at) < n) FAIL(err, CB_E_FORMAT, "%s: the file ends within a number", w->name);
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)*w->at++ << 8 * i;
    return CB_OK;
}

static enum cb_status field_read(struct wire *w, struct wire_field *f, struct cb_err *err) {
    uint64_t key, n;
    TRY(varint_read(w, &key, err));
    *f = (struct wire_field){.number = key >> 3, .type = (enum wire_type)(key & 7)};
    if (!f->number) FAIL(err, CB_E_FORMAT, "%s: a field numbered 0; this is no SentencePiece model", w->name);
    if (f->type == WIRE_VARINT) return varint_read(w, &f->value, err);
    if (f->type == WIRE_64 || f->type == WIRE_32) return fixed_read(w, &f->value, f->type == WIRE_64 ? 8 : 4, err);
    if (f->type != WIRE_BYTES) FAIL(err, CB_E_FORMAT, "%s: a field of wire type %d; this is no SentencePiece model", w->name, (int)f->type);
    TRY(varint_read(w, &n, err));
    if (n > (uint64_t)(w->end - w->at))
        FAIL(err, CB_E_FORMAT, "%s: field %llu has %llu bytes; %zu are left", w->name, (unsigned long long)f->number, (unsigned long long)n,
             (size_t)(w->end - w->at));
    f->bytes = (struct wire){w->at, w->at + n, w->name};
    w->at += n;
    return CB_OK;
}

/* A field must have its type. */
static enum cb_status field_check(const struct wire_field *f, enum wire_type wanted, const struct wire *w, struct cb_err *err) {
    if (f->type != wanted)
        FAIL(err, CB_E_FORMAT, "%s: field %llu has wire type %d; %d is wanted", w->name, (unsigned long long)f->number, (int)f->type,
             (int)wanted);
    return CB_OK;
}

/* ---- the messages */

struct pieces {
    struct text_view *piece;
    float *score;
    int32_t *type;
    size_t n, capacity[3];
    uint64_t model_type;
};

/* SentencePiece: 1 piece, 2 score, 3 type. */
static enum cb_status piece_read(struct pieces *p, struct wire w, struct cb_err *err) {
    if (p->n >= 1 << 24) FAIL(err, CB_E_LIMIT, "%s: over 2^24 pieces", w.name);
    TRY(buffer_grow((void **)&p->piece, &p->capacity[0], p->n + 1, sizeof *p->piece, err));
    TRY(buffer_grow((void **)&p->score, &p->capacity[1], p->n + 1, sizeof *p->score, err));
    TRY(buffer_grow((void **)&p->type, &p->capacity[2], p->n + 1, sizeof *p->type, err));
    struct wire_field f;
    struct text_view *piece = &p->piece[p->n];
    *piece = (struct text_view){"", 0};
    p->score[p->n] = 0, p->type[p->n] = PIECE_NORMAL;
    while (w.at < w.end) {
        TRY(field_read(&w, &f, err));
        if (f.number == 1) {
            TRY(field_check(&f, WIRE_BYTES, &w, err));
            *piece = (struct text_view){(const char *)f.bytes.at, (size_t)(f.bytes.end - f.bytes.at)};
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            TRY(field_check(&f, WIRE_32, &w, err));
            memcpy(&p->score[p->n], &bits, sizeof bits);
        } else if (f.number == 3) {
            TRY(field_check(&f, WIRE_VARINT, &w, err));
            p->type[p->n] = f.value > PIECE_BYTE ? 0 : (int32_t)f.value;
        }
    }
    p->n++;
    return CB_OK;
}

/* TrainerSpec: 3 model_type, 24 treat_whitespace_as_suffix, 35 byte_fallback, 44 unk_surface. */
static enum cb_status trainer_read(struct spm_model *m, struct pieces *p, struct wire w, struct cb_err *err) {
    struct wire_field f;
    while (w.at < w.end) {
        TRY(field_read(&w, &f, err));
        if (f.number == 3 || f.number == 24 || f.number == 35) TRY(field_check(&f, WIRE_VARINT, &w, err));
        if (f.number == 44) TRY(field_check(&f, WIRE_BYTES, &w, err));
        if (f.number == 3) p->model_type = f.value;
        if (f.number == 24) m->prefix_at_end = f.value;
        if (f.number == 35) m->byte_fallback = f.value;
        if (f.number == 44) m->unk_surface = (struct text_view){(const char *)f.bytes.at, (size_t)(f.bytes.end - f.bytes.at)};
    }
    return CB_OK;
}

/* NormalizerSpec: 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces. */
static enum cb_status normalizer_read(struct tokenizer *t, struct spm_model *m, struct wire w, struct cb_err *err) {
    struct wire_field f;
    while (w.at < w.end) {
        TRY(field_read(&w, &f, err));
        if (f.number >= 3 && f.number <= 5) TRY(field_check(&f, WIRE_VARINT, &w, err));
        if (f.number == 2) {
            TRY(field_check(&f, WIRE_BYTES, &w, err));
            m->n_charsmap = (size_t)(f.bytes.end - f.bytes.at);
            unsigned char *copy = arena_alloc(t->arena, m->n_charsmap + 1);
            if (!copy) FAIL(err, CB_E_MEMORY, "%s: no memory for %zu bytes", w.name, m->n_charsmap);
            memcpy(copy, f.bytes.at, m->n_charsmap);
            m->charsmap = copy;
        }
        if (f.number == 3) m->dummy_prefix = f.value;
        if (f.number == 4) m->squeeze_spaces = f.value;
        if (f.number == 5) m->escape_spaces = f.value;
    }
    return CB_OK;
}

/* ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec. */
static enum cb_status model_read(struct tokenizer *t, struct spm_model *m, struct pieces *p, struct wire w, struct cb_err *err) {
    struct wire_field f;
    while (w.at < w.end) {
        TRY(field_read(&w, &f, err));
        if (f.number > 3) continue;
        TRY(field_check(&f, WIRE_BYTES, &w, err));
        if (f.number == 1) TRY(piece_read(p, f.bytes, err));
        if (f.number == 2) TRY(trainer_read(m, p, f.bytes, err));
        if (f.number == 3) TRY(normalizer_read(t, m, f.bytes, err));
    }
    return CB_OK;
}

enum cb_status spm_read(struct tokenizer *t, const char *bytes, size_t n, bool find_specials, const struct spm_ids *ids, const char *name,
                        struct cb_err *err) {
    static const char *const kinds[] = {"none", "unigram", "bpe", "word", "char"};
    enum { UNIGRAM = 1, BPE, WORD, CHAR };
    struct spm_model m = SPM_PRESET;
    struct pieces p = {.model_type = UNIGRAM};
    struct wire w = {(const unsigned char *)bytes, (const unsigned char *)bytes + n, name};
    enum cb_status status = model_read(t, &m, &p, w, err);
    if (!status && (p.model_type < UNIGRAM || p.model_type > CHAR || p.model_type == WORD))
        status = err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__, "%s: model_type %llu (%s); unigram, bpe or char is wanted", name,
                         (unsigned long long)p.model_type, p.model_type <= CHAR ? kinds[p.model_type] : "not known");
    m.n = (int32_t)p.n, m.piece = p.piece, m.score = p.score, m.type = p.type;
    m.unigram = p.model_type == UNIGRAM, m.has_merges = p.model_type == BPE, m.find_specials = find_specials;
    if (!status && ids) status = spm_renumber(&m, t, ids, name, err);
    if (!status) status = spm_set(t, &m, name, err);
    free(p.piece), free(p.score), free(p.type);
    return status;
}
