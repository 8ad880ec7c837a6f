/* Philox against the known answers of its authors' library, and the stream's distributions; the processor's mask. */
#include "base/rng.h"

#include "../harness.h"
#include "base/cpuid.h"

TEST(rng, philox_known_answers) {
    static const struct {
        uint64_t key, low, high;
        uint32_t word[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rng_block got = rng_philox(cases[i].key, cases[i].low, cases[i].high);
        CHECK(!memcmp(got.word, cases[i].word, sizeof got.word), "case %d: %08x", (int)i, got.word[0]);
    }
}

TEST(rng, stream_repeats_and_differs) {
    struct rng a = rng_make(1, 2), b = rng_make(1, 2), c = rng_make(1, 3);
    int same = 0;
    for (int i = 0; i < 1000; i++) {
        uint32_t x = rng_u32(&a);
        CHECK(x == rng_u32(&b));
        same += x == rng_u32(&c);
    }
    CHECK(same < 3);
}

TEST(rng, distributions) {
    struct rng rng = rng_make(7, 0);
    double sum = 0, square = 0, uniform = 0;
    int n = 200000, count[6] = {0};
    for (int i = 0; i < n; i++) {
        double x = rng_normal(&rng), u = rng_f64(&rng);
        CHECK(isfinite(x) && u >= 0 && u < 1);
        sum += x, square += x * x, uniform += u;
        uint64_t face = rng_below(&rng, 6);
        CHECK(face < 6);
        count[face]++;
    }
    CHECK(fabs(sum / n) < 0.01 && fabs(square / n - 1) < 0.02 && fabs(uniform / n - 0.5) < 0.005);
    for (int i = 0; i < 6; i++) CHECK(abs(count[i] - n / 6) < 1000, "face %d: %d", i, count[i]);
    CHECK(rng_below(&rng, 1) == 0);
    CHECK(rng_uniform(UINT32_MAX) < 1.0f && rng_uniform(0) == 0.0f);
}

TEST(rng, hash) { CHECK(rng_hash("") == 0xcbf29ce484222325u && rng_hash("a") == 0xaf63dc4c8601ec8cu); }

TEST(cpuid, masks) {
    CHECK(cpu_mask_by_name("scalar") == 0 && cpu_mask_by_name("avx2") == CPU_AVX2 && cpu_mask_by_name("sse9") == -1);
    CHECK((cpu_mask_by_name("avx512") & CPU_AVX2) && !(cpu_mask_by_name("avx512") & CPU_AMX) && cpu_mask_by_name("all") == UINT32_MAX);
    CHECK((cpu_mask_by_name("amx") & CPU_AVX512) && (cpu_mask_by_name("amx") & CPU_AMX));
#if defined(__x86_64__)
    // the compiler's own reading of the same leaves
    __builtin_cpu_init();
    CHECK(!!(cpu_features() & CPU_AVX2) == (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
    CHECK(!!(cpu_features() & CPU_AVX512) ==
          (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")));
#endif
}
