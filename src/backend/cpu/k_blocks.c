/* Products with block types for any processor. */
#include <string.h>

#include "base/dtype.h"

enum { VL = 4, ISA = 0 };
typedef struct {
    float v[VL];
} vf;
typedef struct {
    int v[VL];
} vi;

#define EACH(expression)                              \
    vf y;                                             \
    for (int i = 0; i < VL; i++) y.v[i] = expression; \
    return y
static inline vf vf_set1(float x) { EACH(x); }
static inline vf vf_zero(void) { return vf_set1(0); }
static inline vf vf_load(const float *p) { EACH(p[i]); }
static inline void vf_store(float *p, vf x) {
    for (int i = 0; i < VL; i++) p[i] = x.v[i];
}
static inline vf vf_sub(vf a, vf b) { EACH(a.v[i] - b.v[i]); }
static inline vf vf_add(vf a, vf b) { EACH(a.v[i] + b.v[i]); }
static inline vf vf_mul(vf a, vf b) { EACH(a.v[i] * b.v[i]); }
static inline vf vf_fma(vf a, vf b, vf c) { EACH(a.v[i] * b.v[i] + c.v[i]); }
static inline float vf_sum(vf x) { return (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]); }
static inline float vf_half(uint16_t bits) { return f16_to_f32(bits); }
static inline void vf_halves(float out[16], const uint16_t bits[16]) {
    for (int i = 0; i < 16; i++) out[i] = f16_to_f32(bits[i]);
}
static inline vi vi_u8(const void *p) {
    vi y;
    for (int i = 0; i < VL; i++) y.v[i] = ((const uint8_t *)p)[i];
    return y;
}
static inline vf vf_i8(const void *p) { EACH((float)((const int8_t *)p)[i]); }
static inline vf vf_low(vi x) { EACH((float)(x.v[i] & 15)); }
static inline vf vf_high(vi x) { EACH((float)(x.v[i] >> 4)); }
static inline vf vf_byte(vi x, int b) { EACH((float)((unsigned)x.v[i] >> 8 * b & 255)); }
static inline vf vf_spread(const float *p) { return vf_set1(*p); }
static inline void vf_pairs(float out[16], const void *two_halves, const uint64_t bytes[2]) {
    uint16_t half[2];
    memcpy(half, two_halves, sizeof half);
    for (int i = 0; i < 16; i += VL) vf_store(out + i, vf_mul(vf_set1(vf_half(half[i / 8])), vf_i8((const char *)bytes + i)));
}

#define EACH_INTEGER(expression)                             \
    vi y;                                                    \
    for (int i = 0; i < VL; i++) y.v[i] = (int)(expression); \
    return y
static inline vi vi_set1(int x) { EACH_INTEGER(x); }
static inline vi vi_words(const void *p) {
    vi y;
    memcpy(&y, p, sizeof y);
    return y;
}
static inline vi vi_and(vi a, vi b) { EACH_INTEGER(a.v[i] & b.v[i]); }
static inline vi vi_left(vi x, int n) { EACH_INTEGER((unsigned)x.v[i] << n); }
static inline vi vi_right(vi x, int n) { EACH_INTEGER((unsigned)x.v[i] >> n); }
static inline vi vi_pick(vi mask, vi a, vi b) { EACH_INTEGER((mask.v[i] & a.v[i]) | (~mask.v[i] & b.v[i])); }
/* A row of 32 levels is two vectors. */
static inline vi vi_upper(const void *p, int v) { return vi_right(vi_words((const char *)p + v % 2 * 16), v / 2 * 2); }

#include "backend/cpu/blocks_body.h"

const struct kernel kernel_file_blocks[] = {{"matmul", "blocks", 0, 15, accepts, workspace, run}, {0}};
