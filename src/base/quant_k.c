/* ggml's K types: super-blocks of 256 values, whose sub-blocks have scales (and minimums) of a few bits under one f16 scale (and minimum).
   Layouts: ggml-common.h. Encoders look for the least weighted squared error (quant_fit.h). */
#include <math.h>
#include <string.h>

#include "base/quant.h"
#include "base/quant_fit.h"

enum { SUPER = 256 };

/* ---- 8 scales and 8 minimums of 6 bits in 12 bytes: the first four of each whole, the top bits above them belong to the last four */

static void pairs_unpack(const uint8_t *packed, int *scale, int *low) {
    for (int j = 0; j < 4; j++) {
        scale[j] = packed[j] & 63;
        low[j] = packed[j + 4] & 63;
        scale[j + 4] = (packed[j + 8] & 15) | packed[j] >> 6 << 4;
        low[j + 4] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
}
static void pairs_pack(uint8_t *packed, const int *scale, const int *low) {
    for (int j = 0; j < 4; j++) {
        packed[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        packed[j + 4] = (uint8_t)(low[j] | low[j + 4] >> 4 << 6);
        packed[j + 8] = (uint8_t)((scale[j + 4] & 15) | (low[j + 4] & 15) << 4);
    }
}

/* ---- types with minimums: x = scale * level - minimum */

/* A super-block's fit: sub-blocks of `size`, levels 0 to top, scales and minimums as integers 0 to most under d and d_low. */
struct offsets {
    float d, d_low;
    int scale[16], low[16];
    uint8_t level[SUPER];
};

static void offsets_fit(struct offsets *o, const float *x, int size, int top, int most) {
    float scale[16], low[16], largest = 0, lowest = 0;
    const int n = SUPER / size;
    for (int j = 0; j < n; j++) {
        scale[j] = quant_fit_offset(x + j * size, size, top, &low[j]);
        if (scale[j] > largest) largest = scale[j];
        if (low[j] > lowest) lowest = low[j];
    }
    // scales as the file holds them, then the levels that suit these
    o->d = f16_to_f32(f16_from_f32(largest / (float)most));
    o->d_low = f16_to_f32(f16_from_f32(lowest / (float)most));
    float inverse = quant_inverse(o->d), inverse_low = quant_inverse(o->d_low);
    for (int j = 0; j < n; j++) {
        o->scale[j] = quant_round(scale[j] * inverse, 0, most);
        o->low[j] = quant_round(low[j] * inverse_low, 0, most);
        float a = o->d * (float)o->scale[j], b = o->d_low * (float)o->low[j], to_level = quant_inverse(a);
        for (int i = 0; i < size; i++) o->level[j * size + i] = (uint8_t)quant_round((x[j * size + i] + b) * to_level, 0, top);
    }
}

/* Q2_K: 16 bytes of scale (low half) and minimum; 64 bytes of four 2-bit levels, 32 apart; scale, minimum. */
void quant_q2_k_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 84) {
        float d = quant_half(p + 80), d_low = quant_half(p + 82);
        for (int j = 0; j < 16; j++, out += 16) {
            float a = d * (float)(p[j] & 15), b = d_low * (float)(p[j] >> 4);
            const uint8_t *q = p + 16 + j / 8 * 32 + j % 2 * 16;
            const int shift = j % 8 / 2 * 2;
            for (int i = 0; i < 16; i++) out[i] = a * (float)(q[i] >> shift & 3) - b;
        }
    }
}
void quant_q2_k_encode(void *out, const float *in, int64_t n) {
    struct offsets o;
    for (uint8_t *p = out; n > 0; n -= SUPER, p += 84, in += SUPER) {
        offsets_fit(&o, in, 16, 3, 15);
        memset(p, 0, 84);
        for (int j = 0; j < 16; j++) p[j] = (uint8_t)(o.scale[j] | o.low[j] << 4);
        for (int i = 0; i < SUPER; i++) {
            uint8_t *byte = p + 16 + i / 128 * 32 + i % 32;
            *byte = (uint8_t)(*byte | o.level[i] << i % 128 / 32 * 2);
        }
        quant_put_half(p + 80, o.d);
        quant_put_half(p + 82, o.d_low);
    }
}

/* Q4_K: scale, minimum, 12 bytes of pairs, 128 bytes of two 4-bit levels, 32 apart. */
void quant_q4_k_decode(float *out, const void *in, int64_t n) {
    int scale[8], low[8];
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 144) {
        float d = quant_half(p), d_low = quant_half(p + 2);
        pairs_unpack(p + 4, scale, low);
        for (int j = 0; j < 8; j++, out += 32) {
            float a = d * (float)scale[j], b = d_low * (float)low[j];
            const uint8_t *q = p + 16 + j / 2 * 32;
            const int shift = j % 2 * 4;
            for (int i = 0; i < 32; i++) out[i] = a * (float)(q[i] >> shift & 15) - b;
        }
    }
}
void quant_q4_k_encode(void *out, const float *in, int64_t n) {
    struct offsets o;
    for (uint8_t *p = out; n > 0; n -= SUPER, p += 144, in += SUPER) {
        offsets_fit(&o, in, 32, 15, 63);
        quant_put_half(p, o.d);
        quant_put_half(p + 2, o.d_low);
        pairs_pack(p + 4, o.scale, o.low);
        for (int i = 0; i < 128; i++) p[16 + i] = (uint8_t)(o.level[i / 32 * 64 + i % 32] | o.level[i / 32 * 64 + 32 + i % 32] << 4);
    }
}

/* Q5_K: as Q4_K, with 32 bytes of fifth bits before the 4-bit parts: bit j of byte i is of value 32 j + i. */
void quant_q5_k_decode(float *out, const void *in, int64_t n) {
    int scale[8], low[8];
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 176) {
        float d = quant_half(p), d_low = quant_half(p + 2);
        pairs_unpack(p + 4, scale, low);
        for (int j = 0; j < 8; j++, out += 32) {
            float a = d * (float)scale[j], b = d_low * (float)low[j];
            const uint8_t *high = p + 16, *q = p + 48 + j / 2 * 32;
            const int shift = j % 2 * 4;
            for (int i = 0; i < 32; i++) out[i] = a * (float)((q[i] >> shift & 15) | (high[i] >> j & 1) << 4) - b;
        }
    }
}
void quant_q5_k_encode(void *out, const float *in, int64_t n) {
    struct offsets o;
    for (uint8_t *p = out; n > 0; n -= SUPER, p += 176, in += SUPER) {
        offsets_fit(&o, in, 32, 31, 63);
        memset(p, 0, 176);
        quant_put_half(p, o.d);
        quant_put_half(p + 2, o.d_low);
        pairs_pack(p + 4, o.scale, o.low);
        for (int i = 0; i < SUPER; i++) {
            uint8_t *high = p + 16 + i % 32, *q = p + 48 + i / 64 * 32 + i % 32;
            *high = (uint8_t)(*high | o.level[i] >> 4 << i / 32);
            *q = (uint8_t)(*q | (o.level[i] & 15) << i % 64 / 32 * 4);
        }
    }
}

/* ---- types around zero: x = scale * level, sub-blocks of 16 */

/* Levels -half to half - 1; scales as integers -most to most - 1 under d. */
struct signs {
    float d;
    int scale[16];
    int8_t level[SUPER];
};

static void signs_fit(struct signs *s, const float *x, int half, int most) {
    float scale[16];
    for (int j = 0; j < 16; j++) scale[j] = quant_fit_signed(x + j * 16, 16, half);
    // the largest scale is -most exactly: the side that reaches further
    s->d = f16_to_f32(f16_from_f32(quant_extreme(scale, 16) / -(float)most));
    float inverse = quant_inverse(s->d);
    for (int j = 0; j < 16; j++) {
        s->scale[j] = quant_round(scale[j] * inverse, -most, most - 1);
        float to_level = quant_inverse(s->d * (float)s->scale[j]);
        for (int i = 0; i < 16; i++) s->level[j * 16 + i] = (int8_t)quant_round(x[j * 16 + i] * to_level, -half, half - 1);
    }
}

/* Q3_K: 32 bytes of third bits (set: the level is not lowered by 4), 64 bytes of four 2-bit parts, 12 bytes of 16 scales of 6 bits around 32, scale. */
static int q3_scale(const uint8_t *packed, int j) {
    int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    return (low | (packed[8 + j % 4] >> j / 4 * 2 & 3) << 4) - 32;
}
void quant_q3_k_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 110) {
        float d = quant_half(p + 108);
        for (int j = 0; j < 16; j++, out += 16) {
            float a = d * (float)q3_scale(p + 96, j);
            const uint8_t *high = p + j % 2 * 16, *q = p + 32 + j / 8 * 32 + j % 2 * 16;
            const int shift = j % 8 / 2 * 2, bit = j / 2;
            for (int i = 0; i < 16; i++) out[i] = a * (float)((q[i] >> shift & 3) - (high[i] >> bit & 1 ? 0 : 4));
        }
    }
}
void quant_q3_k_encode(void *out, const float *in, int64_t n) {
    struct signs s;
    for (uint8_t *p = out; n > 0; n -= SUPER, p += 110, in += SUPER) {
        signs_fit(&s, in, 4, 32);
        memset(p, 0, 110);
        for (int j = 0; j < 16; j++) {
            int scale = s.scale[j] + 32;
            p[96 + j % 8] = (uint8_t)(p[96 + j % 8] | (scale & 15) << j / 8 * 4);
            p[104 + j % 4] = (uint8_t)(p[104 + j % 4] | scale >> 4 << j / 4 * 2);
        }
        for (int i = 0; i < SUPER; i++) {
            int level = s.level[i] + 4;
            uint8_t *high = p + i % 32, *q = p + 32 + i / 128 * 32 + i % 32;
            *high = (uint8_t)(*high | level >> 2 << i / 32);
            *q = (uint8_t)(*q | (level & 3) << i % 128 / 32 * 2);
        }
        quant_put_half(p + 108, s.d);
    }
}

/* Q6_K: 128 bytes of two 4-bit parts 64 apart, 64 bytes of four 2-bit parts 32 apart, 16 signed scales, scale; levels around 32. */
void quant_q6_k_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 210) {
        float d = quant_half(p + 208);
        for (int j = 0; j < 16; j++, out += 16) {
            float a = d * (float)(int8_t)p[192 + j];
            const uint8_t *q = p + j / 8 * 64 + j % 4 * 16, *high = p + 128 + j / 8 * 32 + j % 2 * 16;
            const int shift = j % 8 / 4 * 4, high_shift = j % 8 / 2 * 2;
            for (int i = 0; i < 16; i++) out[i] = a * (float)(((q[i] >> shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
        }
    }
}
void quant_q6_k_encode(void *out, const float *in, int64_t n) {
    struct signs s;
    for (uint8_t *p = out; n > 0; n -= SUPER, p += 210, in += SUPER) {
        signs_fit(&s, in, 32, 128);
        memset(p, 0, 210);
        for (int i = 0; i < SUPER; i++) {
            int level = s.level[i] + 32;
            uint8_t *q = p + i / 128 * 64 + i % 64, *high = p + 128 + i / 128 * 32 + i % 32;
            *q = (uint8_t)(*q | (level & 15) << i % 128 / 64 * 4);
            *high = (uint8_t)(*high | level >> 4 << i % 128 / 32 * 2);
        }
        for (int j = 0; j < 16; j++) p[192 + j] = (uint8_t)(int8_t)s.scale[j];
        quant_put_half(p + 208, s.d);
    }
}

/* Q8_K: f32 scale, 256 signed bytes, sums of 16. A partner of products; files seldom hold it. */
void quant_q8_k_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= SUPER, p += 292, out += SUPER) {
        float d;
        memcpy(&d, p, 4);
        for (int i = 0; i < SUPER; i++) out[i] = d * (float)(int8_t)p[4 + i];
    }
}
