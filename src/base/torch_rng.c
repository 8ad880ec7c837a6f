/* PyTorch's CPU generator: MT19937 (Matsumoto and Nishimura 1998) and the distributions of ATen. */
#include "base/torch_rng.h"

#include <math.h>

#define N 624
#define M 397
#define TWO_PI 6.283185307179586476925286766559

struct torch_rng torch_rng_make(uint64_t seed) {
    struct torch_rng rng = {.next = N};
    rng.state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++) rng.state[i] = UINT32_C(1812433253) * (rng.state[i - 1] ^ (rng.state[i - 1] >> 30)) + i;
    return rng;
}

static void twist(struct torch_rng *rng) {
    uint32_t *s = rng->state;
    for (int i = 0; i < N; i++) {
        uint32_t y = (s[i] & UINT32_C(0x80000000)) | (s[(i + 1) % N] & UINT32_C(0x7fffffff));
        s[i] = s[(i + M) % N] ^ (y >> 1) ^ (y & 1 ? UINT32_C(0x9908b0df) : 0);
    }
    rng->next = 0;
}

uint32_t torch_rng_u32(struct torch_rng *rng) {
    if (rng->next == N) twist(rng);
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= (y << 7) & UINT32_C(0x9d2c5680);
    y ^= (y << 15) & UINT32_C(0xefc60000);
    return y ^ (y >> 18);
}

/* Uniform in [0, 1): 24 bits of one word, or 53 of two. */
static float uniform_f32(struct torch_rng *rng) { return (float)(torch_rng_u32(rng) & 0xffffff) * 0x1p-24f; }
static double uniform_f64(struct torch_rng *rng) {
    uint64_t high = torch_rng_u32(rng), low = torch_rng_u32(rng);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

void torch_rng_uniform(struct torch_rng *rng, float *out, int64_t n, float low, float high) {
    const float width = high - low;
    for (int64_t i = 0; i < n; i++) out[i] = fmaf(uniform_f32(rng), width, low);
}

/* Sixteen uniforms become normals: the first eight give radii, the others angles. */
static void normal_16(float *x) {
    for (int i = 0; i < 8; i++) {
        double radius = sqrt(-2 * log(1 - (double)x[i])), angle = TWO_PI * (double)x[i + 8];
        x[i] = (float)(radius * cos(angle));
        x[i + 8] = (float)(radius * sin(angle));
    }
}

/* One normal; every second one is the other of the pair before. */
static double normal_one(struct torch_rng *rng) {
    if (rng->has_kept) {
        rng->has_kept = false;
        return rng->kept;
    }
    double angle = TWO_PI * uniform_f64(rng), radius = sqrt(-2 * log1p(-uniform_f64(rng)));
    rng->kept = radius * sin(angle);
    rng->has_kept = true;
    return radius * cos(angle);
}

/* Short tensors are drawn one by one; in others the last sixteen are drawn anew where they do not end on a sixteen. */
void torch_rng_normal(struct torch_rng *rng, float *out, int64_t n) {
    if (n < 16) {
        for (int64_t i = 0; i < n; i++) out[i] = (float)normal_one(rng);
        return;
    }
    for (int64_t i = 0; i < n; i++) out[i] = uniform_f32(rng);
    for (int64_t i = 0; i + 16 <= n; i += 16) normal_16(out + i);
    if (n % 16 == 0) return;
    for (int64_t i = n - 16; i < n; i++) out[i] = uniform_f32(rng);
    normal_16(out + n - 16);
}

void torch_rng_permutation(struct torch_rng *rng, int32_t *work, int64_t n, int64_t k) {
    for (int64_t i = 0; i < n; i++) work[i] = (int32_t)i;
    // large ones take 64 bits a step
    const bool is_long = n >= (int64_t)(UINT32_MAX / 20);
    for (int64_t i = 0; i < k && i + 1 < n; i++) {
        uint64_t word = torch_rng_u32(rng);
        if (is_long) word = word << 32 | torch_rng_u32(rng);
        int64_t j = i + (int64_t)(word % (uint64_t)(n - i));
        int32_t kept = work[i];
        work[i] = work[j];
        work[j] = kept;
    }
}
