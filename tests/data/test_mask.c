/* Masks: shares, whole words, specials left alone, the same for the same key. */
#include "data/mask.h"

#include <ctype.h>
#include <stdlib.h>

#include "../harness.h"

static bool text_once(void *context, const char **text, size_t *n) {
    const char **left = context;
    if (!*left) return false;
    *text = *left;
    *n = strlen(*left);
    *left = NULL;
    return true;
}

static const char sentence[] =
    "unbelievable stories of wonderful engines, remarkable boats and unforgettable harbours; believe the wonders";

static struct tokenizer *train(const char *kind, const char *mask_token) {
    const char *text = sentence, *specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", mask_token};
    struct train_options o = {.kind = kind, .vocab = strcmp(kind, "bpe") == 0 ? 290 : 60, .specials = specials, .n_specials = 5};
    struct cb_err err = {0};
    struct tokenizer *t;
    CHECK_OK(tokenizer_train(&t, &o, text_once, &text, NULL, NULL, &err));
    return t;
}

enum { ROWS = 400, SEQ = 250, N = ROWS * SEQ };

/* The sentence again and again, now and then a special token, cut into rows. */
static void fill(const struct tokenizer *t, int32_t *ids) {
    struct cb_err err = {0};
    struct token_list list = {0};
    CHECK_OK(tokenizer_encode(t, &list, sentence, strlen(sentence), 0, &err));
    CHECK(list.n > 10);
    int32_t between = tokenizer_id(t, "[SEP]");
    for (int i = 0; i < N; i++) {
        size_t at = (size_t)i % (9 * list.n + 1);
        ids[i] = at == 9 * list.n ? between : list.token[at % list.n].id;
    }
    token_list_deinit(&list);
}

struct counts {
    int hidden, masked, kept, other, runs, plain;
};

static struct counts count(const struct tokenizer *t, const int32_t *before, const int32_t *ids, const int32_t *labels) {
    struct counts c = {0};
    int32_t mask = tokenizer_id(t, "[MASK]");
    for (int i = 0; i < N; i++) {
        c.plain += !tokenizer_is_special(t, before[i]);
        if (labels[i] == -100) {
            CHECK(ids[i] == before[i], "place %d was changed without a label", i);
            continue;
        }
        CHECK(labels[i] == before[i] && !tokenizer_is_special(t, before[i]), "place %d: label %d of %d", i, labels[i], before[i]);
        CHECK(ids[i] == mask || !tokenizer_is_special(t, ids[i]), "place %d became %d", i, ids[i]);
        c.hidden++;
        c.masked += ids[i] == mask;
        c.kept += ids[i] == before[i];
        c.other += ids[i] != mask && ids[i] != before[i];
        c.runs += i % SEQ == 0 || labels[i - 1] == -100;
    }
    return c;
}

static bool near(double have, double want, double by) { return have > want - by && have < want + by; }

TEST(mask, shares_and_repeats) {
    static const char *const kinds[] = {"token", "whole-word", "span"};
    struct cb_err err = {0};
    struct tokenizer *t = train("wordpiece", "[MASK]");
    int32_t *before = malloc(N * sizeof *before), *ids = malloc(N * sizeof *ids), *labels = malloc(N * sizeof *labels);
    int32_t *again = malloc(N * sizeof *again), *labels_again = malloc(N * sizeof *labels_again);
    CHECK(before && ids && labels && again && labels_again);
    double length[3];
    for (int k = 0; k < 3; k++) {
        struct mask_options o = {.rate = 0.15, .seed = 5};
        struct mask *m;
        CHECK(mask_kind_by_name(&o.kind, kinds[k]) && strcmp(mask_kind_name(o.kind), kinds[k]) == 0);
        CHECK_OK(mask_create(&m, t, &o, &err));
        fill(t, before);
        memcpy(ids, before, N * sizeof *ids);
        mask_apply(m, 7, ROWS, SEQ, ids, labels, NULL);
        struct counts c = count(t, before, ids, labels);
        CHECK(near((double)c.hidden / c.plain, 0.15, k == 2 ? 0.03 : 0.02), "%s: %d of %d hidden", kinds[k], c.hidden, c.plain);
        CHECK(near((double)c.masked / c.hidden, 0.8, 0.06), "%s: %d of %d masked", kinds[k], c.masked, c.hidden);
        CHECK(near((double)c.kept / c.hidden, 0.1, 0.05), "%s: %d of %d kept", kinds[k], c.kept, c.hidden);
        CHECK(near((double)c.other / c.hidden, 0.1, 0.05), "%s: %d of %d drawn", kinds[k], c.other, c.hidden);
        length[k] = (double)c.hidden / c.runs;
        // the same for the same key, another for another
        memcpy(again, before, N * sizeof *again);
        mask_apply(m, 7, ROWS, SEQ, again, labels_again, NULL);
        CHECK(memcmp(ids, again, N * sizeof *ids) == 0 && memcmp(labels, labels_again, N * sizeof *ids) == 0);
        memcpy(again, before, N * sizeof *again);
        mask_apply(m, 8, ROWS, SEQ, again, labels_again, NULL);
        CHECK(memcmp(labels, labels_again, N * sizeof *ids) != 0);
        mask_destroy(&m);
    }
    CHECK(length[0] < length[1] && length[1] < length[2], "lengths %g, %g, %g", length[0], length[1], length[2]);
    free(before), free(ids), free(labels), free(again), free(labels_again);
    tokenizer_destroy(&t);
}

/* Every token of a word is hidden or none: words by the offsets in the text. */
static void check_words(const char *kind) {
    struct cb_err err = {0};
    struct tokenizer *t = train(kind, "[MASK]");
    struct token_list list = {0};
    struct mask *m;
    struct mask_options o = {.kind = MASK_WORD, .rate = 0.5, .seed = 1};
    CHECK_OK(mask_create(&m, t, &o, &err));
    CHECK_OK(tokenizer_encode(t, &list, sentence, strlen(sentence), ENCODE_OFFSETS, &err));
    int n = (int)list.n, several = 0;
    int32_t ids[512], labels[512];
    CHECK(n > 20 && n < 512);
    for (uint64_t key = 0; key < 20; key++) {
        for (int i = 0; i < n; i++) ids[i] = list.token[i].id;
        mask_apply(m, key, 1, n, ids, labels, NULL);
        for (int i = 1; i < n; i++) {
            // letters on both sides of the border: one word
            const char *border = sentence + list.token[i].begin;
            bool joins = isalpha((unsigned char)border[-1]) && isalpha((unsigned char)*border);
            several += joins;
            CHECK(!joins || (labels[i] == -100) == (labels[i - 1] == -100), "%s: token %d at byte %u is parted from its word", kind, i,
                  list.token[i].begin);
        }
    }
    CHECK(several > 100, "%s: only %d tokens go on within a word", kind, several);
    token_list_deinit(&list);
    mask_destroy(&m);
    tokenizer_destroy(&t);
}

TEST(mask, whole_words) {
    check_words("wordpiece");
    check_words("bpe");
    check_words("char");
}

TEST(mask, padding_and_small_batches) {
    struct cb_err err = {0};
    struct tokenizer *t = train("wordpiece", "[MASK]");
    struct mask *m;
    struct mask_options o = {.kind = MASK_TOKEN, .rate = 1e-9, .seed = 1};
    CHECK_OK(mask_create(&m, t, &o, &err));
    int32_t ids[8], labels[8], segments[8] = {0, 0, 1, 1, -1, -1, -1, -1};
    for (uint64_t key = 0; key < 50; key++) {
        for (int i = 0; i < 8; i++) ids[i] = 10 + i;
        mask_apply(m, key, 2, 4, ids, labels, segments);
        int hidden = 0;
        for (int i = 0; i < 8; i++) {
            hidden += labels[i] != -100;
            CHECK(i < 4 || (labels[i] == -100 && ids[i] == 10 + i), "padding %d was chosen", i);
        }
        CHECK(hidden == 1, "%d tokens of a batch are hidden; one at least, and hardly more", hidden);
    }
    // nothing that could be chosen
    for (int i = 0; i < 8; i++) ids[i] = i % 4;
    mask_apply(m, 1, 2, 4, ids, labels, NULL);
    for (int i = 0; i < 8; i++) CHECK(labels[i] == -100 && ids[i] == i % 4);
    mask_destroy(&m);
    o.rate = 1;
    CHECK_FAILS(mask_create(&m, t, &o, &err), CB_E_USAGE, "--mask-rate");
    tokenizer_destroy(&t);
    t = train("wordpiece", "[HIDE]");
    o.rate = 0.15;
    CHECK_FAILS(mask_create(&m, t, &o, &err), CB_E_ARGUMENT, "[MASK]");
    tokenizer_destroy(&t);
    enum mask_kind kind;
    CHECK(!mask_kind_by_name(&kind, "words") && mask_kind_by_name(&kind, NULL) && kind == MASK_WORD);
}
