/* ggml's IQ types: values from small code books (iq_grids.h) with signs apart, or from 16 uneven levels (IQ4). Layouts: ggml-common.h. Only IQ4_NL has an
   encoder: the others want a search over their books. */
#include <math.h>
#include <string.h>

#include "base/iq_grids.h"
#include "base/quant.h"

enum { SUPER = 256 };

/* ---- code books */

static const int8_t levels_iq2[4] = {8, 25, 43, 0};  // 8 of 2 bits a code
static const int8_t levels_iq3_xxs[8] = {4, 12, 20, 28, 36, 44, 52, 62};  // 4 of 4 bits a code
static const int8_t levels_iq3_s[8] = {1, 3, 5, 7, 9, 11, 13, 15};

/* 7 bits name 8 signs: the number of minus signs is even. */
static unsigned even_signs(unsigned seven) {
    unsigned parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 1) << 7;
}

/* 8 values of a 2-bit code, or of two 4-bit codes; bit i of signs is the sign of value i. */
static void put_pairs(float *out, float d, uint16_t code, unsigned signs) {
    for (int i = 0; i < 8; i++) {
        float x = d * (float)levels_iq2[code >> 2 * i & 3];
        out[i] = signs >> i & 1 ? -x : x;
    }
}
static void put_nibbles(float *out, float d, const int8_t *levels, uint16_t first, uint16_t second, unsigned signs) {
    for (int i = 0; i < 8; i++) {
        float x = d * (float)levels[(i < 4 ? first >> 4 * i : second >> 4 * (i - 4)) & 7];
        out[i] = signs >> i & 1 ? -x : x;
    }
}
static float quarter(float d, unsigned scale) { return d * (0.5f + (float)scale) * 0.25f; }

/* IQ2_XXS: scale; per 32 values four bytes of codes and a word of four 7-bit signs under a 4-bit scale. */
void quant_iq2_xxs_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 66)
        for (int j = 0; j < 8; j++, out += 32) {
            const uint8_t *q = p + 2 + 8 * j;
            uint32_t word = quant_u32(q + 4);
            float d = quarter(quant_half(p), word >> 28);
            for (int k = 0; k < 4; k++) put_pairs(out + 8 * k, d, grid_iq2_xxs[q[k]], even_signs(word >> 7 * k & 127));
        }
}

/* IQ2_XS: scale, 32 words of a 9-bit code and 7-bit signs, 16 scales of 4 bits. */
void quant_iq2_xs_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 74)
        for (int k = 0; k < 32; k++, out += 8) {
            unsigned word = quant_u16(p + 2 + 2 * k);
            float d = quarter(quant_half(p), p[66 + k / 4] >> k % 4 / 2 * 4 & 15);
            put_pairs(out, d, grid_iq2_xs[word & 511], even_signs(word >> 9));
        }
}

/* IQ2_S: scale, 32 bytes of codes, 32 bytes of signs, 8 bytes of the codes' two top bits, 16 scales of 4 bits. */
void quant_iq2_s_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 82)
        for (int k = 0; k < 32; k++, out += 8) {
            unsigned code = p[2 + k] | (p[66 + k / 4] >> k % 4 * 2 & 3u) << 8;
            float d = quarter(quant_half(p), p[74 + k / 4] >> k % 4 / 2 * 4 & 15);
            put_pairs(out, d, grid_iq2_s[code], p[34 + k]);
        }
}

/* IQ3_XXS: scale, 64 bytes of codes, 8 words of four 7-bit signs under a 4-bit scale. */
void quant_iq3_xxs_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 98)
        for (int k = 0; k < 32; k++, out += 8) {
            uint32_t word = quant_u32(p + 66 + k / 4 * 4);
            const uint8_t *q = p + 2 + 2 * k;
            float d = quant_half(p) * (0.5f + (float)(word >> 28)) * 0.5f;
            put_nibbles(out, d, levels_iq3_xxs, grid_iq3_xxs[q[0]], grid_iq3_xxs[q[1]], even_signs(word >> k % 4 * 7 & 127));
        }
}

/* IQ3_S: scale, 64 bytes of codes, 8 bytes of their ninth bits, 32 bytes of signs, 8 scales of 4 bits. */
void quant_iq3_s_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 110)
        for (int k = 0; k < 32; k++, out += 8) {
            const uint8_t *q = p + 2 + 2 * k;
            unsigned high = p[66 + k / 4] >> k % 4 * 2;
            float d = quant_half(p) * (float)(1 + 2 * (p[106 + k / 8] >> k % 8 / 4 * 4 & 15));
            put_nibbles(out, d, levels_iq3_s, grid_iq3_s[q[0] | (high & 1) << 8], grid_iq3_s[q[1] | (high & 2) << 7], p[74 + k]);
        }
}

/* 8 values of IQ1: three levels, all shifted by an eighth to one side. */
static void put_shifted(float *out, float d, uint16_t code, bool down) {
    for (int i = 0; i < 8; i++) out[i] = d * ((float)((code >> 2 * i & 3) - 1) + (down ? -0.125f : 0.125f));
}

/* IQ1_S: scale, 32 bytes of codes, 8 words: four times 3 top bits of a code, a 3-bit scale, the side. */
void quant_iq1_s_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 50)
        for (int k = 0; k < 32; k++, out += 8) {
            unsigned word = quant_u16(p + 34 + k / 4 * 2);
            float d = quant_half(p) * (float)(2 * (word >> 12 & 7) + 1);
            put_shifted(out, d, grid_iq1_s[p[2 + k] | (word >> k % 4 * 3 & 7) << 8], word >> 15);
        }
}

/* IQ1_M: 32 bytes of codes, 16 bytes of two halves (3 top bits of a code, the side), 4 words of four 3-bit scales under a quarter of the f16 scale. */
void quant_iq1_m_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 56) {
        unsigned half = 0;
        for (int j = 0; j < 4; j++) half |= (unsigned)(quant_u16(p + 48 + 2 * j) >> 12) << 4 * j;
        float scale = f16_to_f32((uint16_t)half);
        for (int k = 0; k < 32; k++, out += 8) {
            unsigned high = p[32 + k / 2] >> k % 2 * 4;
            float d = scale * (float)(2 * (quant_u16(p + 48 + k / 8 * 2) >> k % 8 / 2 * 3 & 7) + 1);
            put_shifted(out, d, grid_iq1_s[p[k] | (high & 7) << 8], high & 8);
        }
    }
}

/* ---- 16 uneven levels */

static const int8_t levels_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* IQ4_NL: scale, 16 bytes as in Q4_0. */
void quant_iq4_nl_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 18, out += 32) {
        float d = quant_half(p);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)levels_iq4[p[2 + i] & 15];
            out[i + 16] = d * (float)levels_iq4[p[2 + i] >> 4];
        }
    }
}

static int iq4_nearest(float x) {
    int k = 0;
    while (k < 15 && x * 2 > (float)(levels_iq4[k] + levels_iq4[k + 1])) k++;
    return k;
}
/* The extreme value goes to either end of the levels, or near it; the best scale for the levels is a least-squares solution. */
static float iq4_fit(const float *x) {
    float extreme = quant_extreme(x, 32), best = 0;
    double best_gain = 0;
    for (int t = -8; t <= 8 && extreme != 0; t++)
        for (int end = 0; end < 16; end += 15) {
            float to_level = ((float)levels_iq4[end] * (1 + 0.02f * (float)t)) / extreme;
            double xq = 0, qq = 0;
            if (!isfinite(to_level)) continue;
            for (int i = 0; i < 32; i++) {
                double level = levels_iq4[iq4_nearest(x[i] * to_level)], weight = (double)x[i] * x[i];
                xq += weight * x[i] * level;
                qq += weight * level * level;
            }
            if (qq > 0 && xq * xq > best_gain * qq) best_gain = xq * xq / qq, best = (float)(xq / qq);
        }
    return best;
}
void quant_iq4_nl_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 18, in += 32) {
        quant_put_half(p, iq4_fit(in));
        float inverse = quant_inverse(quant_half(p));
        for (int i = 0; i < 16; i++) p[2 + i] = (uint8_t)(iq4_nearest(in[i] * inverse) | iq4_nearest(in[i + 16] * inverse) << 4);
    }
}

/* IQ4_XS: scale, a word of two top bits of 8 scales, their low halves in 4 bytes (6 bits around 32), 8 times 16 bytes as in Q4_0. */
void quant_iq4_xs_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 136)
        for (int j = 0; j < 8; j++, out += 32) {
            int scale = (p[4 + j / 2] >> j % 2 * 4 & 15) | (quant_u16(p + 2) >> 2 * j & 3) << 4;
            float d = quant_half(p) * (float)(scale - 32);
            const uint8_t *q = p + 8 + 16 * j;
            for (int i = 0; i < 16; i++) {
                out[i] = d * (float)levels_iq4[q[i] & 15];
                out[i + 16] = d * (float)levels_iq4[q[i] >> 4];
            }
        }
}
