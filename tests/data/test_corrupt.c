/* Span corruption: source and target together give the text back, shares and lengths are the paper's, every cut is as likely, the same for the same key. */
#include "data/corrupt.h"

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

/* A tokenizer with n sentinels. */
static struct tokenizer *train(int n) {
    static char names[40][20];
    const char *text = "abc def ghi jkl", *specials[42] = {"<pad>", "</s>"};
    for (int i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "<extra_id_%d>", i);
        specials[2 + i] = names[i];
    }
    struct train_options o = {.kind = "byte", .vocab = 258 + n, .specials = specials, .n_specials = 2 + n};
    struct cb_err err = {0};
    struct tokenizer *t;
    CHECK_OK(tokenizer_train(&t, &o, text_once, &text, NULL, NULL, &err));
    return t;
}

enum { B = 40, T = 128, EOS = 5000, PAD = 5001 };

/* Rows of numbers that rise from 1000: every token tells its place. Ends of documents stand in each, the last are padded. */
static int fill(int32_t *ids, int32_t *mask, int b) {
    int n = 0, length = b < B - 3 ? T : b - (B - 3);  // the last three rows have 0, 1 and 2 tokens
    for (int t = 0; t < T; t++) {
        bool is_end = length == T && t % 50 == 49;
        ids[t] = t >= length ? PAD : is_end ? EOS : 1000 + n;
        mask[t] = t >= length ? -1 : t / 50;
        n += t < length && !is_end;
    }
    return n;
}

/* The text out of a row's source and target; returns the spans. */
static int rebuild(const struct tokenizer *t, const int32_t *ids, const int32_t *mask, const int32_t *labels, int64_t room, int n) {
    int spans = 0, at = 0;
    int64_t target = 0;
    for (int i = 0; i < T && mask[i]; i++) {
        char name[32];
        snprintf(name, sizeof name, "<extra_id_%d>", spans);
        if (ids[i] == EOS) {
            CHECK(i + 1 == T || !mask[i + 1], "the end stands at %d", i);
        } else if (ids[i] >= 1000) {
            CHECK(ids[i] == 1000 + at++, "token %d at %d of the source", ids[i], i);
        } else {
            CHECK(ids[i] == tokenizer_id(t, name) && labels[target] == ids[i], "sentinel %d of span %d", ids[i], spans);
            for (target++; target < room && labels[target] >= 1000 && labels[target] != EOS; target++)
                CHECK(labels[target] == 1000 + at++, "token %d of the target", labels[target]);
            spans++;
        }
    }
    CHECK(at == n, "%d of %d tokens", at, n);
    CHECK(spans == 0 || (target < room && labels[target++] == EOS), "the target has no end");
    for (; target < room; target++) CHECK(labels[target] == -100);
    for (int i = 0; i < T; i++) CHECK(mask[i] == 1 || (mask[i] == 0 && ids[i] == PAD));
    return spans;
}

TEST(corrupt, source_and_target_are_the_text) {
    struct tokenizer *t = train(40);
    struct cb_err err = {0};
    static int32_t ids[B * T], mask[B * T], again[B * T], labels[B * (T + 1)], other[B * (T + 1)];
    static const double rates[] = {0.15, 0.5, 0.02, 0.9, 0.999};
    for (size_t k = 0; k < sizeof rates / sizeof *rates; k++) {
        struct corrupt_options o = {.rate = rates[k], .seed = 11, .eos = EOS, .pad = PAD};
        struct corrupt *c;
        int n[B], hidden = 0, all = 0;
        CHECK_OK(corrupt_create(&c, t, &o, &err));
        const int64_t room = corrupt_target(c, T);
        CHECK(room > 1 && room <= T + 1);
        for (int b = 0; b < B; b++) n[b] = fill(ids + b * T, mask + b * T, b);
        corrupt_apply(c, 3, B, T, ids, labels, mask);
        for (int b = 0; b < B; b++) {
            int spans = rebuild(t, ids + b * T, mask + b * T, labels + b * room, room, n[b]), taken = 0;
            CHECK((spans > 0) == (n[b] >= 2), "%d spans of %d tokens", spans, n[b]);
            for (int64_t i = 0; i < room; i++) taken += labels[b * room + i] >= 1000 && labels[b * room + i] < EOS;
            if (n[b] < 100) continue;
            hidden += taken, all += n[b];
            if (rates[k] == 0.15) CHECK(taken == 19 && spans == 6, "%d tokens in %d spans of %d", taken, spans, n[b]);
        }
        CHECK(rates[k] == 0.999 || fabs((double)hidden / all - rates[k]) < 0.005, "share %g of %g", (double)hidden / all, rates[k]);
        // the same again, and another for another key
        for (int b = 0; b < B; b++) fill(again + b * T, mask + b * T, b);
        corrupt_apply(c, 3, B, T, again, other, mask);
        CHECK(!memcmp(ids, again, sizeof ids) && !memcmp(labels, other, (size_t)(B * room) * sizeof *labels));
        for (int b = 0; b < B; b++) fill(again + b * T, mask + b * T, b);
        corrupt_apply(c, 4, B, T, again, other, mask);
        // one span alone lies at the end, as in the paper's own code
        CHECK(rates[k] == 0.02 || rates[k] == 0.999 || memcmp(labels, other, (size_t)(B * room) * sizeof *labels) != 0);
        corrupt_destroy(&c);
    }
    tokenizer_destroy(&t);
}

/* Rows of 10 tokens at a share of a half: 5 hidden in 2 spans, so the first span has 1 to 4 tokens and the first piece kept too, each as often. */
TEST(corrupt, cuts_are_uniform) {
    struct tokenizer *t = train(8);
    struct cb_err err = {0};
    struct corrupt_options o = {.rate = 0.5, .seed = 5, .eos = -1, .pad = PAD};
    struct corrupt *c;
    int first_kept[5] = {0}, first_hidden[5] = {0};
    CHECK_OK(corrupt_create(&c, t, &o, &err));
    const int64_t room = corrupt_target(c, 10);
    for (int r = 0; r < 8000; r++) {
        int32_t ids[10], mask[10] = {0}, labels[20];
        for (int i = 0; i < 10; i++) ids[i] = 1000 + i;
        corrupt_apply(c, (uint64_t)r, 1, 10, ids, labels, mask);
        int kept = 0, hidden = 1;
        while (ids[kept] >= 1000) kept++;
        while (hidden < room && labels[hidden] >= 1000) hidden++;
        CHECK(kept >= 1 && kept <= 4 && hidden >= 2 && hidden <= 5, "%d kept, %d hidden", kept, hidden - 1);
        first_kept[kept]++, first_hidden[hidden - 1]++;
    }
    for (int i = 1; i < 5; i++)
        CHECK(abs(first_kept[i] - 2000) < 200 && abs(first_hidden[i] - 2000) < 200, "%d: %d and %d of 8000", i, first_kept[i],
              first_hidden[i]);
    corrupt_destroy(&c);
    tokenizer_destroy(&t);
}

/* As many spans as there are sentinels; none at all is refused. */
TEST(corrupt, few_sentinels) {
    struct tokenizer *t = train(2), *none = train(0);
    struct cb_err err = {0};
    struct corrupt_options o = {.rate = 0.3, .seed = 5, .eos = EOS, .pad = PAD};
    struct corrupt *c;
    int32_t ids[T], mask[T], labels[T];
    CHECK_FAILS(corrupt_create(&c, none, &o, &err), CB_E_ARGUMENT, "<extra_id_0>");
    CHECK_OK(corrupt_create(&c, t, &o, &err));
    int n = fill(ids, mask, 0);
    corrupt_apply(c, 0, 1, T, ids, labels, mask);
    CHECK(rebuild(t, ids, mask, labels, corrupt_target(c, T), n) == 2);
    corrupt_destroy(&c);
    o.rate = 1;
    CHECK_FAILS(corrupt_create(&c, t, &o, &err), CB_E_USAGE, "--mask-rate 1");
    tokenizer_destroy(&t);
    tokenizer_destroy(&none);
}
