/* Prompts and completions parted: source, mask and target of each row, each cut by itself. */
#include "data/pair.h"

#include <string.h>

#include "../harness.h"
#include "data/loader.h"

enum { EOS = 9, PAD = 0, X = LOADER_IGNORE };

TEST(pair, rows_are_parted_and_cut_apart) {
    enum { T = 4, N = 7 };
    // a pair; a source that fills the row with its eos; a long source; a source ended already and a long target; no target; no source; both too long
    static const int32_t tokens[] = {1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2, 3, 4, 5, 6, 9, 1, 9, 3,
                                     4, 5, 6, 7, 9, 5, 6, 4, 5, 9, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2};
    static const int64_t length[N] = {5, 5, 7, 8, 2, 3, 10}, unlearnt[N] = {2, 3, 5, 2, 2, 0, 5};
    static const int32_t ids[N][T] = {{1, 2, 9, 0}, {1, 2, 3, 9}, {1, 2, 3, 9}, {1, 9, 0, 0}, {5, 6, 9, 0}, {9, 0, 0, 0}, {1, 2, 3, 9}};
    static const int32_t labels[N][T] = {{3, 4, 9, X}, {5, 9, X, X}, {6, 9, X, X}, {3, 4, 5, 9}, {X, X, X, X}, {4, 5, 9, X}, {6, 7, 8, 1}};
    static const int n_mask[N] = {3, 4, 4, 2, 3, 1, 4};
    static const struct pair_cut lost[N] = {{0, 0}, {0, 0}, {2, 0}, {0, 2}, {0, 0}, {0, 0}, {2, 1}};
    struct cb_err err = {0};
    struct corpus *c;
    CHECK_OK(corpus_from_ids(&c, tokens, length, unlearnt, N, 10, 100, &err));
    for (int i = 0; i < N; i++) {
        int32_t id[T], label[T], mask[T];
        struct pair_cut cut, alone;
        const int64_t begin = corpus_document_start(c, i), end = corpus_document_start(c, i + 1);
        const struct pair_options o = {.seq = T, .eos = EOS, .pad = PAD};
        CHECK_OK(pair_row(c, &o, begin, end, id, label, mask, &cut, &err));
        CHECK_OK(pair_row(c, &o, begin, end, NULL, NULL, NULL, &alone, &err));
        CHECK(!memcmp(id, ids[i], sizeof id), "row %d: source %d %d %d %d", i, id[0], id[1], id[2], id[3]);
        CHECK(!memcmp(label, labels[i], sizeof label), "row %d: target %d %d %d %d", i, label[0], label[1], label[2], label[3]);
        for (int t = 0; t < T; t++) CHECK(mask[t] == (t < n_mask[i]), "row %d: mask %d", i, t);
        CHECK(cut.source == lost[i].source && cut.target == lost[i].target, "row %d: %d and %d cut", i, (int)cut.source, (int)cut.target);
        CHECK(alone.source == cut.source && alone.target == cut.target);
    }
    // the same by the loader
    struct loader *l;
    const struct loader_options lo = {.batch = N, .seq = T, .evaluation = true, .no_pack = true, .pairs = true, .eos = EOS, .pad = PAD};
    int32_t id[N][T], label[N][T], mask[N][T];
    CHECK_OK(loader_create(&l, c, &lo, &err));
    CHECK_OK(loader_valid(l, 0, *id, *label, *mask, NULL, &err));
    CHECK(!memcmp(id, ids, sizeof id) && !memcmp(label, labels, sizeof label));
    const struct loader_info *info = loader_info(l);
    CHECK(info->cut_documents == 2 && info->cut_tokens == 4 && info->cut_targets == 2 && info->cut_target_tokens == 3);
    CHECK(info->blank_rows == 1, "%d without a target", (int)info->blank_rows);
    loader_destroy(&l);
    corpus_destroy(&c);
}

TEST(pair, without_a_token_that_ends_text) {
    static const int32_t tokens[] = {1, 2, 3, 4};
    static const int64_t length[] = {3, 1}, unlearnt[] = {2, 0};
    struct cb_err err = {0};
    struct corpus *c;
    int32_t id[4], label[4], mask[4];
    const struct pair_options o = {.seq = 4, .eos = -1, .pad = PAD};
    CHECK_OK(corpus_from_ids(&c, tokens, length, unlearnt, 2, 10, 100, &err));
    CHECK_OK(pair_row(c, &o, 0, 3, id, label, mask, NULL, &err));
    CHECK(id[0] == 1 && id[1] == 2 && id[2] == PAD && label[0] == 3 && label[1] == X && mask[1] == 1 && mask[2] == 0);
    // a source without tokens sees its first place
    CHECK_OK(pair_row(c, &o, 3, 4, id, label, mask, NULL, &err));
    CHECK(id[0] == PAD && mask[0] == 1 && mask[1] == 0 && label[0] == 4 && label[1] == X);
    corpus_destroy(&c);
}
