/* The table of Transformers' classes whose files say less than a tokenizer.json does, and what a row adds to them. */
#include "text/layouts.h"

#include <stdio.h>

#include "text/config.h"

/* Special tokens as fairseq has them (Ott et al., NAACL 2019), and as BERT has them. */
#define FAIRSEQ_ENDS "\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"unk_token\":\"<unk>\",\"pad_token\":\"<pad>\",\"sep_token\":\"</s>\""
#define FAIRSEQ_SPECIALS FAIRSEQ_ENDS ",\"cls_token\":\"<s>\",\"mask_token\":{\"content\":\"<mask>\",\"lstrip\":true}"
#define BERT_SPECIALS                                                                                  \
    "\"bos_token\":\"[CLS]\",\"eos_token\":\"[SEP]\",\"cls_token\":\"[CLS]\",\"sep_token\":\"[SEP]\"," \
    "\"mask_token\":{\"content\":\"[MASK]\",\"lstrip\":true}"
#define MBART_CODES                                                                                                                  \
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX ro_RO ru_RU " \
    "si_LK tr_TR vi_VN zh_CN"
#define FAIRSEQ_FIRST "<s> <pad> </s> <unk>"

static const struct layout layouts[] = {
    {.classes = "Roberta Bart Longformer LED Mvp",
     .models = "roberta bart longformer led mvp",
     .preset = "{" FAIRSEQ_SPECIALS "}",
     .single = "cls A sep",
     .pair = "cls A sep sep B sep"},
    {.classes = "XLMRoberta",
     .models = "xlm-roberta xlm-roberta-xl",
     .file = "sentencepiece.bpe.model",
     .preset = "{" FAIRSEQ_SPECIALS "}",
     .single = "cls A sep",
     .pair = "cls A sep sep B sep",
     .first = FAIRSEQ_FIRST,
     .n_skipped = 3},
    {.classes = "Camembert",
     .models = "camembert",
     .file = "sentencepiece.bpe.model",
     .preset = "{" FAIRSEQ_SPECIALS "}",
     .single = "cls A sep",
     .pair = "cls A sep sep B sep",
     .first = "<s>NOTUSED <pad> </s>NOTUSED <unk> <unk>NOTUSED",
     .n_skipped = 1},
    {.classes = "Albert",
     .models = "albert",
     .file = "spiece.model",
     .preset = "{" BERT_SPECIALS ",\"unk_token\":\"<unk>\",\"pad_token\":\"<pad>\",\"do_lower_case\":true,\"remove_space\":true,"
               "\"keep_accents\":false,\"plain_quotes\":true}",
     .single = "cls A sep",
     .pair = "cls A sep B1 sep1",
     .rare_commas = true},
    {.classes = "DebertaV2",
     .models = "deberta-v2",
     .file = "spm.model",
     .preset = "{" BERT_SPECIALS ",\"unk_token\":\"[UNK]\",\"pad_token\":\"[PAD]\",\"do_lower_case\":false}",
     .single = "cls A sep",
     .pair = "cls A sep B1 sep1"},
    {.classes = "MBart",
     .file = "sentencepiece.bpe.model",
     .preset = "{" FAIRSEQ_SPECIALS ",\"src_lang\":\"en_XX\"}",
     .single = "A eos src",
     .pair = "A B eos src",
     .first = FAIRSEQ_FIRST,
     .n_skipped = 3,
     .codes = MBART_CODES},
    {.classes = "MBart50",
     .models = "mbart",  // mBART and mBART-50 have one model_type
     .file = "sentencepiece.bpe.model",
     .preset = "{" FAIRSEQ_SPECIALS ",\"src_lang\":\"en_XX\"}",
     .single = "src A eos",
     .pair = "src A B eos",
     .first = FAIRSEQ_FIRST,
     .n_skipped = 3,
     .codes = MBART_CODES " af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE "
                          "ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"},
    {.classes = "Nllb",
     .file = "sentencepiece.bpe.model",
     .preset = "{" FAIRSEQ_SPECIALS ",\"src_lang\":\"eng_Latn\"}",
     .single = "src A eos",
     .pair = "src A B eos",
     .first = FAIRSEQ_FIRST,
     .n_skipped = 3},
    {.classes = "M2M100",
     .models = "m2m_100",
     .file = "sentencepiece.bpe.model",
     .has_vocab = true,
     .preset = "{" FAIRSEQ_ENDS ",\"src_lang\":\"en\"}",
     .single = "src A eos",
     .pair = "src A B eos",
     .codes =
         "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy id ig ilo is "
         "it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su "
         "sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu",
     .code_begin = "__",
     .code_end = "__"},
    {.classes = "Marian",
     .models = "marian",
     .file = "source.spm",
     .has_vocab = true,
     .preset = "{\"eos_token\":\"</s>\",\"unk_token\":\"<unk>\",\"pad_token\":\"<pad>\"}",
     .single = "A eos",
     .pair = "A B eos"},
};
enum { N_LAYOUTS = sizeof layouts / sizeof *layouts };

/* ---- which row */

/* Whether a list between spaces has the word of n bytes. */
static bool has_word(const char *list, const char *word, size_t n) {
    for (struct text_view one; config_word(&list, &one);)
        if (one.n == n && !memcmp(one.text, word, n)) return true;
    return false;
}

const struct layout *layout_find(const json_t *config, const json_t *model, bool (*has)(const char *folder, const char *file),
                                 const char *folder, bool *is_named) {
    const char *name = config_text(config, "tokenizer_class").text;
    if (!name) name = config_text(model, "tokenizer_class").text;
    const char *ending = name ? strstr(name, "Tokenizer") : NULL, *type = config_text(model, "model_type").text;
    *is_named = name;
    for (size_t i = 0; i < N_LAYOUTS; i++)
        if (name ? ending && has_word(layouts[i].classes, name, (size_t)(ending - name))
                 : type && has_word(layouts[i].models, type, strlen(type)))
            return &layouts[i];
    if (name) return NULL;
    // the first row with its files; vocab.json and merges.txt are GPT-2's too, spiece.model T5's
    for (size_t pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < N_LAYOUTS; i++)
            if (layouts[i].file && strcmp(layouts[i].file, "spiece.model") != 0 && layouts[i].has_vocab == !pass &&
                has(folder, layouts[i].file) && (pass || has(folder, "vocab.json")))
                return &layouts[i];
    return NULL;
}

json_t *layout_config(const struct layout *layout, const json_t *config) {
    json_t *out = json_loads(layout->preset, 0, NULL), *value;
    const char *key;
    int bad = !out;
    json_object_foreach((json_t *)(uintptr_t)config, key, value) if (!json_is_null(value)) bad |= json_object_set(out, key, value);
    if (!bad) return out;
    json_decref(out);
    return NULL;
}

/* ---- tokens after the pieces */

/* The token of a language; false where it does not fit. */
static bool code_token(const struct layout *layout, struct text_view code, char *out, size_t size) {
    const char *begin = layout->code_begin ? layout->code_begin : "", *end = layout->code_end ? layout->code_end : "";
    int length = snprintf(out, size, "%s%.*s%s", begin, (int)(code.n < size ? code.n : size), code.text, end);
    return length > 0 && (size_t)length < size;
}

/* Whether added_tokens_decoder has a text. */
static bool is_told(const json_t *config, const char *text) {
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, value) {
        const char *content = config_item(value).text;
        if (content && !strcmp(content, text)) return true;
    }
    return false;
}

/* What a class itself has after the pieces, unless added_tokens_decoder says where: languages, and of fairseq's the mask. */
static enum cb_status own_put(struct tokenizer *t, const struct layout *layout, const json_t *config, const char *name,
                              struct cb_err *err) {
    char text[32];
    const char *codes = layout->codes;
    // M2M100 finds them in no text
    for (struct text_view code; config_word(&codes, &code);)
        if (code_token(layout, code, text, sizeof text) && !is_told(config, text))
            TRY(config_put(t, (struct added_token){text, strlen(text), 0, .special = true, .hidden = layout->code_begin}, name, err));
    const struct text_view mask = config_text(config, "mask_token");
    if (!layout->first || !mask.n || is_told(config, mask.text)) return CB_OK;
    const bool lstrip = config_flag(json_object_get(config, "mask_token"), "lstrip", false);
    return config_put(t, (struct added_token){mask.text, mask.n, 0, .lstrip = lstrip, .special = true}, name, err);
}

enum cb_status layout_finish(struct tokenizer *t, const struct layout *layout, const json_t *config, const char *name, struct cb_err *err) {
    char source[64] = "";
    TRY(own_put(t, layout, config, name, err));
    TRY(config_added(t, config, name, err));
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, value) {
        struct text_view text = config_text(value, "content");
        if (text.n && tokenizer_id(t, text.text) != strtol(key, NULL, 10))
            FAIL(err, CB_E_UNSUPPORTED, "%s: added_tokens_decoder: \"%.60s\" has id %.20s, which a piece of the model has", name, text.text,
                 key);
    }
    struct text_view code = config_text(config, "src_lang");
    bool legacy = config_flag(config, "legacy_behaviour", false);  // NLLB's first files
    if (code.text && !code_token(layout, code, source, sizeof source))
        FAIL(err, CB_E_FORMAT, "%s: src_lang: \"%.60s\"; a language's code is wanted", name, code.text);
    return template_words(t, legacy ? "A eos src" : layout->single, legacy ? "A B eos src" : layout->pair, config, source, name, err);
}

/* ---- SentencePiece */

/* What a class does to a text before the model's own normaliser, as components of tokenizer.json. */
static json_t *before_json(const json_t *config) {
    json_t *list = json_array();
    int bad = !list;
    if (config_flag(config, "remove_space", false)) {
        bad |= json_array_append_new(list, json_pack("{sss{ss}ss}", "type", "Replace", "pattern", "Regex", "\\s+", "content", " "));
    }
    if (config_flag(config, "plain_quotes", false)) {
        bad |= json_array_append_new(list, json_pack("{sss{ss}ss}", "type", "Replace", "pattern", "String", "``", "content", "\""));
        bad |= json_array_append_new(list, json_pack("{sss{ss}ss}", "type", "Replace", "pattern", "String", "''", "content", "\""));
    }
    if (!config_flag(config, "keep_accents", true)) {
        bad |= json_array_append_new(list, json_pack("{ss}", "type", "NFKD"));
        bad |= json_array_append_new(list, json_pack("{ss}", "type", "StripAccents"));
    }
    if (config_flag(config, "do_lower_case", false)) bad |= json_array_append_new(list, json_pack("{ss}", "type", "Lowercase"));
    // the model's own normaliser takes the last one's place
    if (json_array_size(list)) bad |= json_array_append_new(list, json_pack("{ss}", "type", "Lowercase"));
    json_t *out = bad ? NULL : json_pack("{sssO}", "type", "Sequence", "normalizers", list);
    json_decref(list);
    return out;
}

static enum cb_status before_set(struct tokenizer *t, const json_t *config, const char *name, struct cb_err *err) {
    struct part *own = t->part[ROLE_NORMALIZER], *sequence = NULL;
    json_t *json = before_json(config);
    if (!json) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    enum cb_status status = CB_OK;
    if (json_array_size(json_object_get(json, "normalizers"))) {
        status = part_read(t, &sequence, ROLE_NORMALIZER, json, name, 0, err);
        if (!status) sequence->part[sequence->n_parts - 1] = own, t->part[ROLE_NORMALIZER] = sequence, t->broken = BROKEN_REFUSED;
    }
    json_decref(json);
    return status;
}

/* {text: id} of the tokens that have ids of their own, whatever pieces of these texts have; -1: after the pieces. */
static json_t *claims_json(const struct layout *layout, const json_t *config) {
    json_t *out = json_object(), *value;
    const json_t *told = json_object_get(config, "added_tokens_decoder");
    const char *key, *first = layout->first;
    json_int_t id = 0;
    int bad = !out;
    for (struct text_view text; config_word(&first, &text);) bad |= json_object_setn_new(out, text.text, text.n, json_integer(id++));
    struct text_view mask = config_text(config, "mask_token");
    if (mask.n && layout->first) bad |= json_object_set_new(out, mask.text, json_integer(-1));
    json_object_foreach((json_t *)(uintptr_t)told, key, value) {
        struct text_view text = config_text(value, "content");
        if (text.n && layout->first) bad |= json_object_set_new(out, text.text, json_integer(strtol(key, NULL, 10)));
    }
    if (!bad) return out;
    json_decref(out);
    return NULL;
}

/* Languages have the ids after those of vocab.json. */
static int codes_into(json_t *vocab, const struct layout *layout) {
    char text[32];
    const char *codes = layout->codes;
    int bad = 0;
    for (struct text_view code; config_word(&codes, &code);)
        if (code_token(layout, code, text, sizeof text) && !json_object_get(vocab, text))
            bad |= json_object_set_new(vocab, text, json_integer((json_int_t)json_object_size(vocab)));
    return bad;
}

enum cb_status layout_spm_read(struct tokenizer *t, const struct layout *layout, const struct text_view *file, json_t *vocab,
                               const json_t *config, const char *name, struct cb_err *err) {
    static const char *const unknown[] = {"split_by_punct", "separate_vocabs"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (config_flag(config, unknown[i], false))
            FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found true; wanted false, the other is not known here", name, unknown[i]);
    json_t *claims = claims_json(layout, config);
    if (claims && vocab && codes_into(vocab, layout)) json_decref(claims), claims = NULL;
    if (!claims) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    const struct text_view unk = config_text(config, "unk_token");
    struct spm_ids ids = {layout->first, layout->n_skipped, claims, vocab, unk, layout->rare_commas};
    enum cb_status status = spm_read(t, file->text, file->n, true, &ids, name, err);
    json_decref(claims);
    TRY(status);
    TRY(before_set(t, config, name, err));
    t->n_late = 1;
    return layout_finish(t, layout, config, name, err);
}
