/* PyTorch's generator: numbers that torch itself gives for these seeds. */
#include "../harness.h"
#include "base/torch_rng.h"

#include <math.h>

/* The C++ standard names the ten thousandth word of seed 5489. */
TEST(torch_rng, words) {
    struct torch_rng rng = torch_rng_make(5489);
    uint32_t word = 0;
    for (int i = 0; i < 10000; i++) word = torch_rng_u32(&rng);
    CHECK(word == UINT32_C(4123659995), "%u", word);
}

TEST(torch_rng, uniform) {
    static const float wanted[] = {0x1.e11f1p-3f, -0x1.9e809p-4f, 0x1.6fd53p-2f, 0x1.6d74a4p-2f, -0x1.1368ap-4f, 0x1.00203p-3f};
    struct torch_rng rng = torch_rng_make(7);
    float x[6];
    torch_rng_uniform(&rng, x, 6, -0.3f, 0.7f);
    for (int i = 0; i < 6; i++) CHECK(x[i] == wanted[i], "%d: %a, wanted %a", i, (double)x[i], (double)wanted[i]);
}

/* Up to the last bits: torch takes its logarithms and angles in f32. */
TEST(torch_rng, normal) {
    static const float some[] = {-0x1.2ca2e8p-3f, 0x1.92811cp-1f, 0x1.e4c5cep-1f, -0x1.1d45a6p+0f, 0x1.b0d7ap+0f};
    static const float more[] = {-0x1.a3e8acp-1f, 0x1.952056p-2f,  0x1.cc3dbcp-1f,  -0x1.636e7p+0f,  -0x1.560202p-3f, 0x1.906bd4p-1f,
                                 0x1.0a02f6p+0f,  -0x1.72f312p-1f, -0x1.b2a426p-1f, -0x1.3788bp+0f,  -0x1.4bdd4ap-4f, 0x1.5c8a4ap+0f,
                                 -0x1.4d9f9cp+0f, 0x1.5923bap-1f,  -0x1.52c6cap+0f, -0x1.5c19d2p+0f, -0x1.bbc05p-1f,  -0x1.20c57cp-1f,
                                 -0x1.073a2ap+1f, -0x1.6d48acp-2f, 0x1.1877f6p+0f};
    float x[21];
    struct torch_rng rng = torch_rng_make(7);
    torch_rng_normal(&rng, x, 5);
    for (int i = 0; i < 5; i++) CHECK(fabsf(x[i] - some[i]) <= 1e-6f, "%d: %a, wanted %a", i, (double)x[i], (double)some[i]);
    rng = torch_rng_make(7);
    torch_rng_normal(&rng, x, 21);
    for (int i = 0; i < 21; i++) CHECK(fabsf(x[i] - more[i]) <= 1e-6f, "%d: %a, wanted %a", i, (double)x[i], (double)more[i]);
}

TEST(torch_rng, permutation) {
    static const int32_t wanted[2][12] = {{3, 4, 0, 5, 7, 9, 11, 6, 8, 1, 10, 2}, {6, 5, 9, 10, 2, 3, 8, 11, 7, 0, 1, 4}};
    static const uint64_t seeds[3] = {7, TORCH_DEFAULT_SEED, 7 + (UINT64_C(5) << 32)};
    for (int s = 0; s < 3; s++) {
        struct torch_rng rng = torch_rng_make(seeds[s]);
        int32_t x[12];
        torch_rng_permutation(&rng, x, 12, s == 2 ? 4 : 12);
        for (int i = 0; i < (s == 2 ? 4 : 12); i++)
            CHECK(x[i] == wanted[s % 2][i], "seed %d, %d: %d, wanted %d", s, i, x[i], wanted[s % 2][i]);
    }
}
