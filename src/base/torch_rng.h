/* PyTorch's CPU generator, so that parts a file leaves out are drawn again from its seed: MT19937 and the draws that torch.rand, randn, randperm and
   uniform_ make of it. */
#ifndef BASE_TORCH_RNG_H
#define BASE_TORCH_RNG_H
#include <stdbool.h>
#include <stdint.h>

struct torch_rng {
    uint32_t state[624];
    int next;
    double kept;  // the second of a pair of normals
    bool has_kept;
};

/* The seed of a generator that nobody seeded. */
#define TORCH_DEFAULT_SEED UINT64_C(67280421310721)

/* torch.Generator().manual_seed(seed): its low 32 bits count. */
struct torch_rng torch_rng_make(uint64_t seed);
uint32_t torch_rng_u32(struct torch_rng *rng);
/* tensor.uniform_(low, high) of n floats. */
void torch_rng_uniform(struct torch_rng *rng, float *out, int64_t n, float low, float high);
/* torch.randn(n) in f32. */
void torch_rng_normal(struct torch_rng *rng, float *out, int64_t n);
/* The first k numbers of torch.randperm(n), n below 2^31. work: n numbers, whose first k are the result. */
void torch_rng_permutation(struct torch_rng *rng, int32_t *work, int64_t n, int64_t k);
#endif
