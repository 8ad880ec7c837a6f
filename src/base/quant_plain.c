/* ggml's simple block types: one f16 scale, perhaps an f16 minimum or sum, and 32 levels of 4, 5 or 8 bits; or 128 signs. Layouts: ggml-common.h. */
#include <math.h>
#include <string.h>

#include "base/quant.h"

/* Levels of 4 bits: byte i holds values i (low half) and i + 16 (high half); the fifth bits of q5 lie in a word of 32. */
static int nibble(const uint8_t *q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }
static void nibble_put(uint8_t *q, int i, int level) {
    if (i < 16)
        q[i] = (uint8_t)(level & 15);
    else
        q[i - 16] = (uint8_t)(q[i - 16] | (level & 15) << 4);
}
static int fifth(const uint8_t *high, int i) { return (high[i / 8] >> i % 8 & 1) << 4; }
static void fifth_put(uint8_t *high, int i, int level) { high[i / 8] = (uint8_t)(high[i / 8] | (level >> 4) << i % 8); }

/* Q8_0: scale, 32 signed bytes. */
void quant_q8_0_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 34, out += 32) {
        float d = quant_half(p);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)p[2 + i];
    }
}
void quant_q8_0_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 34, in += 32) {
        float largest = 0;
        for (int i = 0; i < 32; i++) largest = fabsf(in[i]) > largest ? fabsf(in[i]) : largest;
        float d = largest / 127.0f, inverse = quant_inverse(d);
        quant_put_half(p, d);
        for (int i = 0; i < 32; i++) {
            float q = roundf(in[i] * inverse);  // |q| <= 127 but for infinities, NaN and the tiniest scales
            p[2 + i] = (uint8_t)(int8_t)(q >= -127 ? q <= 127 ? q : 127 : q < 0 ? -127 : 0);
        }
    }
}

/* Q8_1: scale, the sum of the values, 32 signed bytes. A partner of products; files seldom hold it. */
void quant_q8_1_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 36, out += 32) {
        float d = quant_half(p);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)p[4 + i];
    }
}

/* Q4_0: scale, 32 levels of 4 bits around 8. The value of largest magnitude is level 0 exactly, so one sign reaches further. */
void quant_q4_0_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 18, out += 32) {
        float d = quant_half(p);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((p[2 + i] & 15) - 8);
            out[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}
void quant_q4_0_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 18, in += 32) {
        float d = quant_extreme(in, 32) / -8.0f, inverse = quant_inverse(d);
        quant_put_half(p, d);
        for (int i = 0; i < 32; i++) nibble_put(p + 2, i, quant_level(in[i] * inverse + 8.5f, 0, 15));
    }
}

/* Q5_0: scale, fifth bits, 4-bit parts; levels around 16. */
void quant_q5_0_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 22, out += 32) {
        float d = quant_half(p);
        for (int i = 0; i < 32; i++) out[i] = d * (float)((nibble(p + 6, i) | fifth(p + 2, i)) - 16);
    }
}
void quant_q5_0_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 22, in += 32) {
        float d = quant_extreme(in, 32) / -16.0f, inverse = quant_inverse(d);
        memset(p, 0, 22);
        quant_put_half(p, d);
        for (int i = 0; i < 32; i++) {
            int level = quant_level(in[i] * inverse + 16.5f, 0, 31);
            nibble_put(p + 6, i, level);
            fifth_put(p + 2, i, level);
        }
    }
}

/* Scale and minimum of values that are spread over levels 0 to top. */
static float spread(const float *in, int top, float *low) {
    float high = in[0];
    *low = in[0];
    for (int i = 1; i < 32; i++) {
        if (in[i] > high) high = in[i];
        if (in[i] < *low) *low = in[i];
    }
    return (high - *low) / (float)top;
}

/* Q4_1: scale, minimum, 32 levels of 4 bits. */
void quant_q4_1_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 20, out += 32) {
        float d = quant_half(p), low = quant_half(p + 2);
        for (int i = 0; i < 32; i++) out[i] = d * (float)nibble(p + 4, i) + low;
    }
}
void quant_q4_1_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 20, in += 32) {
        float low, d = spread(in, 15, &low), inverse = quant_inverse(d);
        quant_put_half(p, d);
        quant_put_half(p + 2, low);
        for (int i = 0; i < 32; i++) nibble_put(p + 4, i, quant_level((in[i] - low) * inverse + 0.5f, 0, 15));
    }
}

/* Q5_1: scale, minimum, fifth bits, 4-bit parts. */
void quant_q5_1_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 24, out += 32) {
        float d = quant_half(p), low = quant_half(p + 2);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(nibble(p + 8, i) | fifth(p + 4, i)) + low;
    }
}
void quant_q5_1_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 24, in += 32) {
        float low, d = spread(in, 31, &low), inverse = quant_inverse(d);
        memset(p, 0, 24);
        quant_put_half(p, d);
        quant_put_half(p + 2, low);
        for (int i = 0; i < 32; i++) {
            int level = quant_level((in[i] - low) * inverse + 0.5f, 0, 31);
            nibble_put(p + 8, i, level);
            fifth_put(p + 4, i, level);
        }
    }
}

/* Q1_0: scale, 128 signs: bit 1 is +d, 0 is -d. The scale of least error is the mean magnitude. */
void quant_q1_0_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 128, p += 18, out += 128) {
        float d = quant_half(p);
        for (int i = 0; i < 128; i++) out[i] = p[2 + i / 8] >> i % 8 & 1 ? d : -d;
    }
}
void quant_q1_0_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 128, p += 18, in += 128) {
        double sum = 0;
        memset(p, 0, 18);
        for (int i = 0; i < 128; i++) {
            sum += fabs((double)in[i]);
            p[2 + i / 8] = (uint8_t)(p[2 + i / 8] | (in[i] >= 0) << i % 8);
        }
        quant_put_half(p, (float)(sum / 128));
    }
}
