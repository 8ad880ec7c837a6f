/* Prompts and completions parted: source, mask and target of each row. */
#include "data/pair.h"

#include <string.h>

#include "../harness.h"

TEST(pair, rows_are_parted) {
    enum { T = 6, X = -100, EOS = 9, PAD = 0 };
    // prompt 1 2, completion 3 4 9; nothing that is learnt; a prompt that fills the row; padding alone; a target without a source of its own
    int32_t ids[5][T] = {
        {1, 2, 3, 4, EOS, PAD}, {5, 6, PAD, PAD, PAD, PAD}, {1, 2, 3, 4, 5, 6}, {PAD, PAD, PAD, PAD, PAD, PAD}, {7, 8, EOS, 0, 0, 0}};
    int32_t labels[5][T] = {{X, 3, 4, EOS, X, X}, {X, X, X, X, X, X}, {X, X, X, X, X, X}, {X, X, X, X, X, X}, {8, EOS, X, X, X, X}};
    int32_t mask[5][T] = {{0, 0, 0, 0, 0, -1}, {0, 0, -1, -1, -1, -1}, {0, 0, 0, 0, 0, 0}, {-1, -1, -1, -1, -1, -1}, {0, 0, 0, -1, -1, -1}};
    const int32_t want_ids[5][T] = {
        {1, 2, EOS, 0, 0, 0}, {5, 6, EOS, 0, 0, 0}, {1, 2, 3, 4, 5, 6}, {0, 0, 0, 0, 0, 0}, {7, EOS, 0, 0, 0, 0}};
    const int32_t want_labels[5][T] = {
        {3, 4, EOS, X, X, X}, {X, X, X, X, X, X}, {X, X, X, X, X, X}, {X, X, X, X, X, X}, {8, EOS, X, X, X, X}};
    const int32_t want_mask[5][T] = {{1, 1, 1, 0, 0, 0}, {1, 1, 1, 0, 0, 0}, {1, 1, 1, 1, 1, 1}, {1, 0, 0, 0, 0, 0}, {1, 1, 0, 0, 0, 0}};
    pair_split(5, T, *ids, *labels, *mask, EOS, PAD);
    for (int b = 0; b < 5; b++) {
        CHECK(memcmp(ids[b], want_ids[b], sizeof ids[b]) == 0, "row %d: source", b);
        CHECK(memcmp(labels[b], want_labels[b], sizeof labels[b]) == 0, "row %d: target", b);
        CHECK(memcmp(mask[b], want_mask[b], sizeof mask[b]) == 0, "row %d: mask", b);
    }
    // without a token that ends text
    int32_t plain[4] = {1, 2, 3, 0}, label[4] = {X, 3, X, X}, seen[4] = {0, 0, 0, -1};
    pair_split(1, 4, plain, label, seen, -1, 0);
    CHECK(plain[0] == 1 && plain[1] == 2 && plain[2] == 0 && label[0] == 3 && label[1] == X && seen[1] == 1 && seen[2] == 0);
}
