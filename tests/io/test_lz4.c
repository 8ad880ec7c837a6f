/* LZ4 blocks: literals, overlapping copies, long lengths, Hadoop's frames, and what is damaged. */
#include "../harness.h"
#include "io/lz4.h"

TEST(lz4, blocks) {
    struct cb_err err = {0};
    unsigned char out[400];
    // "abcd", then a copy of 8 from 2 back, then "z"
    static const unsigned char block[] = {0x44, 'a', 'b', 'c', 'd', 2, 0, 0x10, 'z'};
    CHECK_OK(lz4_unpack(out, 13, block, sizeof block, "block", &err));
    CHECK(!memcmp(out, "abcdcdcdcdcdz", 13));
    // lengths of 15 and more: 300 literals would be 15 + 255 + 30; here a copy of 15 + 4 + 255 + 7 from 1 back
    static const unsigned char longer[] = {0x1f, 'x', 1, 0, 255, 7, 0};
    CHECK_OK(lz4_unpack(out, 282, longer, sizeof longer, "block", &err));
    for (int i = 0; i < 282; i++) CHECK(out[i] == 'x');
    CHECK_FAILS(lz4_unpack(out, 281, longer, sizeof longer, "block", &err), CB_E_FORMAT, "LZ4");
    CHECK_FAILS(lz4_unpack(out, 12, block, sizeof block, "block", &err), CB_E_FORMAT, "LZ4");
    // each byte changed, each length cut: never beyond the ends
    for (size_t i = 0; i < sizeof block; i++)
        for (int bit = 0; bit < 8; bit++) {
            unsigned char broken[sizeof block];
            memcpy(broken, block, sizeof block);
            broken[i] ^= (unsigned char)(1 << bit);
            struct cb_err quiet = {0};
            lz4_unpack(out, 13, broken, sizeof broken, "block", &quiet);
            lz4_unpack(out, 13, broken, i, "block", &quiet);
        }
    static const unsigned char before[] = {0x04, 1, 0};
    CHECK_FAILS(lz4_unpack(out, 8, before, sizeof before, "block", &err), CB_E_FORMAT, "LZ4");
}

TEST(lz4, frames) {
    struct cb_err err = {0};
    unsigned char out[40];
    static const unsigned char two[] = {0, 0,    0,   13, 0, 0, 0, 9, 0x44, 'a', 'b', 'c',  'd', 2,
                                        0, 0x10, 'z', 0,  0, 0, 2, 0, 0,    0,   3,   0x20, 'h', 'i'};
    CHECK_OK(lz4_unpack_framed(out, 15, two, sizeof two, "block", &err));
    CHECK(!memcmp(out, "abcdcdcdcdcdzhi", 15));
    CHECK_OK(lz4_unpack_framed(out, 13, two + 8, 9, "block", &err));
    CHECK_FAILS(lz4_unpack_framed(out, 15, two, sizeof two - 1, "block", &err), CB_E_FORMAT, "LZ4");
    CHECK_FAILS(lz4_unpack_framed(out, 16, two, sizeof two, "block", &err), CB_E_FORMAT, "LZ4");
}
