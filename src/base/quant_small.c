/* ggml's block types of three levels (TQ1_0, TQ2_0) and of 4-bit floats (MXFP4 of the OCP microscaling specification 1.0, NVFP4). */
#include <math.h>
#include <string.h>

#include "base/quant.h"

/* ---- three levels: -d, 0, +d */

static void ternary(int8_t *levels, float *scale, const float *in) {
    float d = fabsf(quant_extreme(in, 256)), inverse = quant_inverse(d);
    *scale = d;
    for (int i = 0; i < 256; i++) levels[i] = (int8_t)quant_round(in[i] * inverse, -1, 1);
}

/* TQ2_0: 64 bytes of four 2-bit levels, 32 apart, then the scale. */
void quant_tq2_0_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 256, p += 66, out += 256) {
        float d = quant_half(p + 64);
        for (int i = 0; i < 256; i++) out[i] = d * (float)((p[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1);
    }
}
void quant_tq2_0_encode(void *out, const float *in, int64_t n) {
    int8_t levels[256];
    for (uint8_t *p = out; n > 0; n -= 256, p += 66, in += 256) {
        float d;
        ternary(levels, &d, in);
        memset(p, 0, 64);
        for (int i = 0; i < 256; i++) {
            uint8_t *byte = p + i / 128 * 32 + i % 32;
            *byte = (uint8_t)(*byte | (levels[i] + 1) << i % 128 / 32 * 2);
        }
        quant_put_half(p + 64, d);
    }
}

/* TQ1_0: bytes of five levels in base 3 (32 apart in the first 160 values, 16 apart in the next 80), 4 bytes of four levels 4 apart, then the scale.
   A byte holds ceil(number * 256 / 243), so that a digit is the top of (byte * 3^k mod 256) * 3. */
struct ternary_part {
    int first, bytes, digits;  // values from `first`, interleaved `bytes` apart
};
static const struct ternary_part ternary_parts[3] = {{0, 32, 5}, {160, 16, 5}, {240, 4, 4}};

void quant_tq1_0_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 256, p += 54, out += 256) {
        float d = quant_half(p + 52);
        const uint8_t *q = p;
        for (int part = 0; part < 3; q += ternary_parts[part++].bytes) {
            const struct ternary_part *t = &ternary_parts[part];
            for (int b = 0; b < t->bytes; b++) {
                unsigned rest = q[b];
                for (int k = 0; k < t->digits; k++, rest = rest * 3 & 255)
                    out[t->first + k * t->bytes + b] = d * (float)((int)(rest * 3 >> 8) - 1);
            }
        }
    }
}
void quant_tq1_0_encode(void *out, const float *in, int64_t n) {
    int8_t levels[256];
    for (uint8_t *p = out; n > 0; n -= 256, p += 54, in += 256) {
        float d;
        ternary(levels, &d, in);
        uint8_t *q = p;
        for (int part = 0; part < 3; q += ternary_parts[part++].bytes) {
            const struct ternary_part *t = &ternary_parts[part];
            for (int b = 0; b < t->bytes; b++) {
                unsigned number = 0;
                for (int k = 0; k < 5; k++) number = number * 3 + (k < t->digits ? (unsigned)(levels[t->first + k * t->bytes + b] + 1) : 0);
                q[b] = (uint8_t)((number * 256 + 242) / 243);
            }
        }
        quant_put_half(p + 52, d);
    }
}

/* ---- floats of 4 bits (E2M1), doubled; scales are halved in turn */

static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Half of 2^(e - 127). */
static float e8m0_half(uint8_t e) { return ldexpf(1.0f, (int)e - 128); }

/* MXFP4: an exponent, 16 bytes as in Q4_0. */
void quant_mxfp4_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 17, out += 32) {
        float d = e8m0_half(p[0]);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)e2m1_doubled[p[1 + i] & 15];
            out[i + 16] = d * (float)e2m1_doubled[p[1 + i] >> 4];
        }
    }
}

static int e2m1_nearest(float x, float d) {
    int best = 0;
    float least = INFINITY;
    for (int k = 0; k < 16; k++) {
        float miss = fabsf(d * (float)e2m1_doubled[k] - x);
        if (miss < least) least = miss, best = k;
    }
    return best;
}
void quant_mxfp4_encode(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 17, in += 32) {
        float largest = fabsf(quant_extreme(in, 32));
        // the largest value falls into the top octave, whose exponent is 2
        p[0] = (uint8_t)(largest > 0 ? quant_level(floorf(log2f(largest)) - 2 + 127, 0, 254) : 0);
        float d = e8m0_half(p[0]);
        for (int i = 0; i < 16; i++) p[1 + i] = (uint8_t)(e2m1_nearest(in[i], d) | e2m1_nearest(in[i + 16], d) << 4);
    }
}

/* Half of an unsigned E4M3 scale; 0x7f is 0, not NaN. */
static float ue4m3_half(uint8_t x) {
    int exponent = x >> 3 & 15, mantissa = x & 7;
    if (x == 0x7f) return 0;
    return exponent ? ldexpf((float)(8 + mantissa), exponent - 11) : ldexpf((float)mantissa, -10);
}

/* NVFP4: 4 scales of 16 values each, then 4 times 8 bytes: value i low, i + 8 high. */
void quant_nvfp4_decode(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 64, p += 36)
        for (int s = 0; s < 4; s++, out += 16) {
            float d = ue4m3_half(p[s]);
            for (int i = 0; i < 8; i++) {
                out[i] = d * (float)e2m1_doubled[p[4 + s * 8 + i] & 15];
                out[i + 8] = d * (float)e2m1_doubled[p[4 + s * 8 + i] >> 4];
            }
        }
}
