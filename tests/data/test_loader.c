/* Batches: exact resume, each window once an epoch, labels at borders and under masks, rows, validation, splitting. */
#include "data/loader.h"

#include "../harness.h"
#include "data/permute.h"

static struct cb_err err;

// n tokens 0, 1, 2, ... as documents of these lengths (the last one takes what is left).
static struct corpus *count_up(int64_t n, const int64_t *length, int n_documents, const int64_t *unlearnt) {
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    struct corpus *c;
    CHECK_OK(corpus_from_ids(&c, ids, length, unlearnt, n_documents, n, 10 * n, &err));
    free(ids);
    return c;
}
static struct corpus *one_document(int64_t n) { return count_up(n, &n, 1, NULL); }

TEST(data_loader, permutation_is_a_bijection) {
    for (uint64_t n = 1; n < 300; n += n < 20 ? 1 : 37) {
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            unsigned char seen[300] = {0};
            for (uint64_t i = 0; i < n; i++) {
                uint64_t to = permute(i, n, 7, epoch);
                CHECK(to < n && !seen[to]++, "n %d: %d goes to %d", (int)n, (int)i, (int)to);
            }
        }
    }
    int same = 0;
    for (uint64_t i = 0; i < 1000; i++) same += permute(i, 1000, 7, 0) == permute(i, 1000, 7, 1);
    CHECK(same < 20, "%d places are the same in two epochs", same);
    CHECK(permute(5, (uint64_t)1 << 62, 1, 1) < (uint64_t)1 << 62);
}

TEST(data_loader, epochs_cover_and_resume) {
    enum { N = 1003, T = 16, B = 5 };
    struct corpus *c = one_document(N);
    struct loader *l, *again;
    struct loader_options o = {.batch = B, .seq = T, .seed = 3};
    CHECK_OK(loader_create(&l, c, &o, &err));
    CHECK_OK(loader_create(&again, c, &o, &err));
    int64_t windows = loader_windows(l), batches = loader_batches(l, 3);
    CHECK(windows == N / T && batches == (3 * windows + B - 1) / B);
    int32_t ids[B * T], labels[B * T], ids2[B * T], labels2[B * T];
    int seen[3][N] = {{0}};
    for (int64_t i = 0; i < batches; i++) {
        CHECK_OK(loader_batch(l, i, ids, labels, NULL, NULL, &err));
        for (int64_t k = 0; k < B * T; k++) {
            int64_t epoch = (i * B + k / T) / windows;
            if (epoch < 3) seen[epoch][ids[k]]++;
            int32_t want = ids[k] == N - 1 ? LOADER_IGNORE : ids[k] + 1;
            CHECK(labels[k] == want, "batch %d: id %d, label %d", (int)i, ids[k], labels[k]);
        }
    }
    // batches in another order, from another loader, are the same
    for (int64_t i = batches; i--;) {
        CHECK_OK(loader_batch(again, i, ids2, labels2, NULL, NULL, &err));
        CHECK_OK(loader_batch(l, i, ids, labels, NULL, NULL, &err));
        CHECK(!memcmp(ids, ids2, sizeof ids) && !memcmp(labels, labels2, sizeof labels));
    }
    // each epoch: every token at most once, all but the rest of N / T; epochs begin at different tokens
    for (int e = 0; e < 3; e++) {
        int total = 0;
        for (int i = 0; i < N; i++) {
            CHECK(seen[e][i] <= 1, "epoch %d: token %d comes %d times", e, i, seen[e][i]);
            total += seen[e][i];
        }
        CHECK(total == windows * T);
    }
    CHECK(memcmp(seen[0], seen[1], sizeof seen[0]) != 0);
    o.seed = 4;
    loader_destroy(&again);
    CHECK_OK(loader_create(&again, c, &o, &err));
    CHECK_OK(loader_batch(again, 0, ids2, labels2, NULL, NULL, &err));
    CHECK_OK(loader_batch(l, 0, ids, labels, NULL, NULL, &err));
    CHECK(memcmp(ids, ids2, sizeof ids) != 0);
    loader_destroy(&again);
    loader_destroy(&l);
    corpus_destroy(&c);
}

TEST(data_loader, borders_and_masks) {
    enum { N = 60, T = 20 };
    // documents [0,7) [7,8) [8,30) [30,60); tokens 8..12 and 30..31 are not learnt
    static const int64_t length[] = {7, 1, 22, 30}, unlearnt[] = {0, 0, 5, 2};
    struct corpus *c = count_up(N, length, 4, unlearnt);
    CHECK(corpus_info(c)->learnt == N - 7 && corpus_info(c)->documents == 4);
    for (int segmented = 0; segmented < 2; segmented++) {
        struct loader *l;
        struct loader_options o = {.batch = 1, .seq = T, .seed = 1, .segments = segmented};
        CHECK_OK(loader_create(&l, c, &o, &err));
        int32_t ids[T], labels[T], segments[T], positions[T];
        for (int64_t i = 0; i < 30; i++) {
            CHECK_OK(loader_batch(l, i, ids, labels, segments, positions, &err));
            CHECK(segments[0] == 0 && positions[0] == 0);
            for (int t = 0; t < T; t++) {
                int target = ids[t] + 1;
                bool border = target == 7 || target == 8 || target == 30,
                     masked = (target >= 8 && target < 13) || target == 30 || target == 31;
                bool learnt = target < N && !masked && !(segmented && border);
                CHECK(labels[t] == (learnt ? target : LOADER_IGNORE), "id %d: label %d", ids[t], labels[t]);
                bool begins = ids[t] == 0 || ids[t] == 7 || ids[t] == 8 || ids[t] == 30;
                if (t) CHECK(segments[t] == segments[t - 1] + begins && positions[t] == (begins ? 0 : positions[t - 1] + 1));
            }
        }
        loader_destroy(&l);
    }
    corpus_destroy(&c);
}

TEST(data_loader, one_document_a_row) {
    enum { T = 8 };
    static const int64_t length[] = {3, 9, 12, 1}, unlearnt[] = {0, 0, 10, 0};
    struct corpus *c = count_up(25, length, 4, unlearnt);
    struct loader *l;
    struct loader_options o = {.batch = 2, .seq = T, .no_pack = true, .pad = 24};
    CHECK_OK(loader_create(&l, c, &o, &err));
    const struct loader_info *info = loader_info(l);
    CHECK(loader_windows(l) == 4 && info->cut_documents == 1 && info->cut_tokens == 3 && info->blank_rows == 2);
    int32_t ids[2 * T], labels[2 * T], segments[2 * T], positions[2 * T];
    int seen = 0;
    for (int64_t i = 0; i < 2; i++) {
        CHECK_OK(loader_batch(l, i, ids, labels, segments, positions, &err));
        for (int b = 0; b < 2; b++) {
            const int32_t *id = ids + b * T, *label = labels + b * T;
            int n = id[0] == 0 ? 3 : id[0] == 24 ? 1 : T;
            seen += id[0];
            for (int t = 0; t < T; t++) {
                CHECK(segments[b * T + t] == (t < n ? 0 : -1) && positions[b * T + t] == (t < n ? t : 0));
                CHECK(id[t] == (t < n ? id[0] + t : 24));
                int target = id[t] + 1;
                bool learnt = t < n && target != 3 && target != 12 && target != 25 && !(target >= 12 && target < 22);
                CHECK(label[t] == (learnt ? target : LOADER_IGNORE), "row of %d: label %d is %d", id[0], t, label[t]);
            }
        }
    }
    CHECK(seen == 0 + 3 + 12 + 24);
    loader_destroy(&l);
    // prompts that fill every row leave nothing
    static const int64_t all[] = {3, 9, 12, 1};
    struct corpus *blank = count_up(25, length, 4, all);
    CHECK_FAILS(loader_create(&l, blank, &o, &err), CB_E_ARGUMENT, "nothing to learn");
    corpus_destroy(&blank);
    corpus_destroy(&c);
}

static void validation_check(const struct corpus *c, int64_t first, int64_t last, int seq, int stride) {
    enum { B = 3 };
    struct loader *l;
    struct loader_options o = {.batch = B, .seq = seq, .stride = stride, .first = first, .last = last, .evaluation = true};
    CHECK_OK(loader_create(&l, c, &o, &err));
    int32_t *all = malloc((size_t)(4 * B * seq) * sizeof *all), *ids = all, *labels = ids + B * seq, *segments = labels + B * seq;
    int64_t seen[200] = {0};
    for (int64_t i = 0; i < loader_valid_batches(l); i++) {
        CHECK_OK(loader_valid(l, i, ids, labels, segments, segments + B * seq, &err));
        for (int k = 0; k < B * seq; k++) {
            if (labels[k] == LOADER_IGNORE) continue;
            CHECK(segments[k] >= 0 && labels[k] == ids[k] + 1);
            int64_t context = k % seq + 1, have = labels[k] - first;
            CHECK(context >= (have < seq - stride + 1 ? have : seq - stride + 1), "token %d is scored after %d", labels[k], (int)context);
            seen[labels[k]]++;
        }
    }
    for (int64_t i = 0; i < 200; i++)
        CHECK(seen[i] == (i > first && i < last), "seq %d, stride %d: token %d: %d", seq, stride, (int)i, (int)seen[i]);
    CHECK_FAILS(loader_valid(l, loader_valid_batches(l), ids, labels, NULL, NULL, &err), CB_E_ARGUMENT, "validation batch");
    CHECK_FAILS(loader_batch(l, 0, ids, labels, NULL, NULL, &err), CB_E_ARGUMENT, "evaluation");
    loader_destroy(&l);
    free(all);
}

TEST(data_loader, validation_scores_each_token_once) {
    struct corpus *c = one_document(200);
    static const int sizes[][2] = {{16, 16}, {16, 4}, {16, 1}, {7, 5}, {199, 199}, {200, 50}, {500, 500}, {1, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) validation_check(c, 0, 200, sizes[i][0], sizes[i][1]);
    validation_check(c, 150, 200, 16, 4);
    validation_check(c, 10, 27, 16, 16);
    corpus_destroy(&c);
}

TEST(data_loader, refusals) {
    struct corpus *c = one_document(10);
    struct loader *l;
    CHECK_FAILS(loader_create(&l, c, &(struct loader_options){.batch = 1, .seq = 10}, &err), CB_E_ARGUMENT, "found 10 tokens");
    CHECK_FAILS(loader_create(&l, c, &(struct loader_options){.batch = 1, .seq = 10}, &err), CB_E_ARGUMENT, "--seq 9");
    CHECK_FAILS(loader_create(&l, c, &(struct loader_options){.batch = 0, .seq = 4}, &err), CB_E_ARGUMENT, "batch 0");
    CHECK_FAILS(loader_create(&l, c, &(struct loader_options){.batch = 1, .seq = 4, .stride = 5}, &err), CB_E_ARGUMENT, "stride 5");
    CHECK_FAILS(loader_create(&l, c, &(struct loader_options){.batch = 1, .seq = 4, .last = 11}, &err), CB_E_ARGUMENT, "tokens 0 to 11");
    CHECK_OK(loader_create(&l, c, &(struct loader_options){.batch = 1, .seq = 9}, &err));
    int32_t row[9];
    CHECK_FAILS(loader_batch(l, -1, row, row, NULL, NULL, &err), CB_E_ARGUMENT, "batch -1");
    loader_destroy(&l);
    corpus_destroy(&c);
}

TEST(data_loader, split_prefers_borders) {
    static const int64_t length[] = {4000, 4600, 1400};
    struct corpus *c = count_up(10000, length, 3, NULL), *single = one_document(10000);
    int64_t cut, bytes, words;
    CHECK_OK(corpus_split(c, 0.15, &cut, &err));
    CHECK(cut == 8600);
    CHECK_OK(corpus_split(single, 0.15, &cut, &err));
    CHECK(cut == 8192);
    corpus_count(single, cut, 10000, &bytes, &words);
    CHECK(bytes == 10 * (10000 - 8192));
    CHECK_OK(corpus_split(single, 0.01, &cut, &err));
    CHECK(cut == 9900);
    CHECK_FAILS(corpus_split(c, 1.5, &cut, &err), CB_E_ARGUMENT, "1.5");
    CHECK_FAILS(corpus_split(c, 0.00001, &cut, &err), CB_E_ARGUMENT, "more text");
    corpus_destroy(&single);
    corpus_destroy(&c);
}
