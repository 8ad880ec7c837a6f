/* The table of number types and the plain loops that convert each to and from f32. */
#include "base/dtype.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

// ---- scalars (IEEE 754 binary16; bfloat16)

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    // subnormal: 0.5 has an ulp of 2^-24, so the mantissa under it is the value itself
    uint32_t small = bits_of(float_of(0x3f000000u + magnitude) - 0.5f);
    uint32_t normal = (magnitude << 13) + (112u << 23);
    if (magnitude >= 0x7c00u) normal |= 0x7f800000u;
    return float_of(sign | (magnitude < 0x400u ? small : normal));
}

uint16_t f16_from_f32(float f) {
    uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000u, u = bits & 0x7fffffffu;
    uint32_t small = bits_of(float_of(u < 0x38800000u ? u : 0) + 0.5f) - 0x3f000000u;
    uint32_t normal = (u + 0xfffu + (u >> 13 & 1) - (112u << 23)) >> 13;
    uint32_t h = u < 0x38800000u ? small : normal;
    if (u >= 0x47800000u) h = 0x7c00u;
    if (u > 0x7f800000u) h = 0x7e00u | (u >> 13 & 0x3ffu);
    return (uint16_t)(sign | h);
}

uint16_t bf16_from_f32(float f) {
    uint32_t u = bits_of(f);
    uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : rounded);
}

// OCP 8-bit floating point, E4M3: bias 7, no infinity, all ones is NaN.
static float f8_e4m3_to_f32(uint8_t b) {
    int exponent = b >> 3 & 15, mantissa = b & 7;
    float x = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : (float)mantissa * 0x1p-9f;
    if ((b & 0x7f) == 0x7f) x = NAN;
    return b & 0x80 ? -x : x;
}

// ---- arrays; `in` and `out` may be unaligned

#define TO_F32(name, ctype, expression)                                      \
    static void name##_to_f32_array(float *out, const void *in, int64_t n) { \
        const char *p = in;                                                  \
        for (int64_t i = 0; i < n; i++) {                                    \
            ctype x;                                                         \
            memcpy(&x, p + i * (int64_t)sizeof x, sizeof x);                 \
            out[i] = (expression);                                           \
        }                                                                    \
    }
#define FROM_F32(name, ctype, expression)                                      \
    static void name##_from_f32_array(void *out, const float *in, int64_t n) { \
        char *p = out;                                                         \
        for (int64_t i = 0; i < n; i++) {                                      \
            float x = in[i];                                                   \
            ctype y = (expression);                                            \
            memcpy(p + i * (int64_t)sizeof y, &y, sizeof y);                   \
        }                                                                      \
    }
// Towards zero as a C cast, saturating; NaN gives 0. `end` is the first float above the range.
#define TO_INTEGER(ctype, min, max, end) (x >= (end) ? (max) : x <= (float)(min) ? (min) : x == x ? (ctype)x : 0)

TO_F32(f16, uint16_t, f16_to_f32(x))
FROM_F32(f16, uint16_t, f16_from_f32(x))
TO_F32(bf16, uint16_t, bf16_to_f32(x))
FROM_F32(bf16, uint16_t, bf16_from_f32(x))
TO_F32(f64, double, (float)x)
FROM_F32(f64, double, (double)x)
TO_F32(i8, int8_t, (float)x)
FROM_F32(i8, int8_t, TO_INTEGER(int8_t, INT8_MIN, INT8_MAX, 0x1p7f))
TO_F32(u8, uint8_t, (float)x)
FROM_F32(u8, uint8_t, TO_INTEGER(uint8_t, 0, UINT8_MAX, 0x1p8f))
TO_F32(i16, int16_t, (float)x)
FROM_F32(i16, int16_t, TO_INTEGER(int16_t, INT16_MIN, INT16_MAX, 0x1p15f))
TO_F32(u16, uint16_t, (float)x)
FROM_F32(u16, uint16_t, TO_INTEGER(uint16_t, 0, UINT16_MAX, 0x1p16f))
TO_F32(i32, int32_t, (float)x)
FROM_F32(i32, int32_t, TO_INTEGER(int32_t, INT32_MIN, INT32_MAX, 0x1p31f))
TO_F32(u32, uint32_t, (float)x)
FROM_F32(u32, uint32_t, TO_INTEGER(uint32_t, 0, UINT32_MAX, 0x1p32f))
TO_F32(i64, int64_t, (float)x)
FROM_F32(i64, int64_t, TO_INTEGER(int64_t, INT64_MIN, INT64_MAX, 0x1p63f))
TO_F32(u64, uint64_t, (float)x)
FROM_F32(u64, uint64_t, TO_INTEGER(uint64_t, 0, UINT64_MAX, 0x1p64f))
TO_F32(bool, uint8_t, x ? 1.0f : 0.0f)
FROM_F32(bool, uint8_t, x != 0.0f)
TO_F32(f8_e4m3, uint8_t, f8_e4m3_to_f32(x))
TO_F32(f8_e5m2, uint8_t, f16_to_f32((uint16_t)(x << 8)))

static void f32_to_f32_array(float *out, const void *in, int64_t n) { memcpy(out, in, (size_t)n * 4); }
static void f32_from_f32_array(void *out, const float *in, int64_t n) { memcpy(out, in, (size_t)n * 4); }

// ---- ggml's blocks

static float block_scale(const uint8_t *p) { return f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }
static void block_scale_put(uint8_t *p, float d) {
    uint16_t h = f16_from_f32(d);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

// Q8_0: f16 scale, 32 signed bytes.
static void q8_0_to_f32_array(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 34, out += 32) {
        float d = block_scale(p);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)p[2 + i];
    }
}
static void q8_0_from_f32_array(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 34, in += 32) {
        float largest = 0;
        for (int i = 0; i < 32; i++) largest = fabsf(in[i]) > largest ? fabsf(in[i]) : largest;
        float d = largest / 127.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
        block_scale_put(p, d);
        for (int i = 0; i < 32; i++) {
            float q = roundf(in[i] * inverse);  // |q| <= 127 but for infinities, NaN and the tiniest scales
            p[2 + i] = (uint8_t)(int8_t)(q >= -127 ? q <= 127 ? q : 127 : q < 0 ? -127 : 0);
        }
    }
}

// Q4_0: f16 scale, 16 bytes; byte i holds values i (low) and i + 16 (high), offset 8.
static void q4_0_to_f32_array(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 32, p += 18, out += 32) {
        float d = block_scale(p);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((p[2 + i] & 15) - 8);
            out[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}
static int q4_0_level(float x) {
    x += 8.5f;
    return x >= 0 ? x < 15 ? (int)x : 15 : 0;
}
static void q4_0_from_f32_array(void *out, const float *in, int64_t n) {
    for (uint8_t *p = out; n > 0; n -= 32, p += 18, in += 32) {
        float extreme = 0;  // the first value of largest magnitude maps to -8 exactly
        for (int i = 0; i < 32; i++) extreme = fabsf(in[i]) > fabsf(extreme) ? in[i] : extreme;
        float d = extreme / -8.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
        block_scale_put(p, d);
        for (int i = 0; i < 16; i++) p[2 + i] = (uint8_t)(q4_0_level(in[i] * inverse) | q4_0_level(in[i + 16] * inverse) << 4);
    }
}

// Q4_K: f16 scale and f16 minimum over 8 sub-blocks of 32, whose 6-bit scales and minimums are packed into 12 bytes.
static void q4_k_to_f32_array(float *out, const void *in, int64_t n) {
    for (const uint8_t *p = in; n > 0; n -= 256, p += 144) {
        float d = block_scale(p), d_min = block_scale(p + 2);
        const uint8_t *packed = p + 4, *q = p + 16;
        for (int j = 0; j < 8; j++, out += 32) {
            int scale = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
            int low = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4;
            float a = d * (float)scale, b = d_min * (float)low;
            const uint8_t *bytes = q + j / 2 * 32;
            for (int i = 0; i < 32; i++) out[i] = a * (float)(j & 1 ? bytes[i] >> 4 : bytes[i] & 15) - b;
        }
    }
}

// ---- the table

#define F8_E4M3_KIND .is_float = true, .to_f32 = f8_e4m3_to_f32_array
#define F8_E5M2_KIND .is_float = true, .to_f32 = f8_e5m2_to_f32_array
#define F32_KIND .is_float = true, BOTH(f32)
#define F16_KIND .is_float = true, BOTH(f16)
#define BF16_KIND .is_float = true, BOTH(bf16)
#define F64_KIND .is_float = true, BOTH(f64)
#define I8_KIND BOTH(i8)
#define U8_KIND BOTH(u8)
#define I16_KIND BOTH(i16)
#define U16_KIND BOTH(u16)
#define I32_KIND BOTH(i32)
#define U32_KIND BOTH(u32)
#define I64_KIND BOTH(i64)
#define U64_KIND BOTH(u64)
#define BOOL_KIND BOTH(bool)
#define Q8_0_KIND .is_quantised = true, BOTH(q8_0)
#define Q4_0_KIND .is_quantised = true, BOTH(q4_0)
#define Q4_K_KIND .is_quantised = true, .to_f32 = q4_k_to_f32_array
#define BOTH(name) .to_f32 = name##_to_f32_array, .from_f32 = name##_from_f32_array

static const struct dtype dtypes[CB_DTYPE_COUNT] = {
#define CB_X(NAME, text, elements, bytes) [CB_DTYPE_##NAME] = {.name = text, .block = elements, .block_bytes = bytes, NAME##_KIND},
    CB_DTYPE_LIST(CB_X)
#undef CB_X
};

const struct dtype *dtype_of(enum cb_dtype dtype) { return &dtypes[dtype]; }

enum cb_dtype dtype_by_name(const char *name) {
    int i = 0;
    while (i < CB_DTYPE_COUNT && strcmp(dtypes[i].name, name)) i++;
    return (enum cb_dtype)i;
}

bool dtype_convert(void *out, enum cb_dtype to, const void *in, enum cb_dtype from, int64_t n) {
    const struct dtype *a = &dtypes[from], *b = &dtypes[to];
    float piece[2048];
    if (to == from) {
        memcpy(out, in, (size_t)(n / a->block * a->block_bytes));
        return true;
    }
    if (!b->from_f32) return false;
    if (to == CB_DTYPE_F32) {
        a->to_f32(out, in, n);
        return true;
    }
    // pieces are a multiple of every block
    const char *source = in;
    char *target = out;
    for (int64_t first = 0; first < n; first += 2048) {
        int64_t count = n - first < 2048 ? n - first : 2048;
        a->to_f32(piece, source + first / a->block * a->block_bytes, count);
        b->from_f32(target + first / b->block * b->block_bytes, piece, count);
    }
    return true;
}

// ---- types

int64_t type_elements(const struct cb_type *type) {
    int64_t n = 1;
    for (int i = 0; i < type->rank; i++) n *= type->dim[i];
    return n;
}

int64_t type_bytes(const struct cb_type *type) {
    const struct dtype *d = &dtypes[type->dtype];
    return type_elements(type) / d->block * d->block_bytes;
}

bool type_equal(const struct cb_type *a, const struct cb_type *b) {
    if (a->dtype != b->dtype || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

const char *type_text(const struct cb_type *type, char text[TYPE_TEXT]) {
    int known = type->dtype < CB_DTYPE_COUNT;
    int n = snprintf(text, TYPE_TEXT, "%s[", known ? dtypes[type->dtype].name : "?");
    for (int i = 0; i < type->rank && i < CB_MAX_RANK && n < TYPE_TEXT; i++)
        n += snprintf(text + n, (size_t)(TYPE_TEXT - n), "%s%lld", i ? "," : "", (long long)type->dim[i]);
    if (n < TYPE_TEXT - 1) strcpy(text + n, "]");
    return text;
}

enum cb_status type_check(const struct cb_type *type, const char *name, struct cb_err *err) {
    char text[TYPE_TEXT];
    if ((unsigned)type->dtype >= CB_DTYPE_COUNT)
        FAIL(err, CB_E_DTYPE, "%s: number type %d; wanted one below %d", name, (int)type->dtype, CB_DTYPE_COUNT);
    if (type->rank < 0 || type->rank > CB_MAX_RANK) FAIL(err, CB_E_SHAPE, "%s: rank %d; wanted 0 to %d", name, type->rank, CB_MAX_RANK);
    const struct dtype *d = &dtypes[type->dtype];
    int64_t n = 1;
    for (int i = 0; i < type->rank; i++) {
        if (type->dim[i] < 0) FAIL(err, CB_E_SHAPE, "%s: dimension %d of %s is negative", name, i, type_text(type, text));
        // the product of the other dimensions is bounded even where one is 0
        if (type->dim[i] && n > ((int64_t)1 << 58) / type->dim[i])
            FAIL(err, CB_E_SHAPE, "%s: %s is too large, its size overflows", name, type_text(type, text));
        n *= type->dim[i] ? type->dim[i] : 1;
    }
    if (d->block > 1 && (type->rank < 1 || type->dim[type->rank - 1] % d->block))
        FAIL(err, CB_E_SHAPE, "%s: %s; wanted a last dimension that is a multiple of %d", name, type_text(type, text), d->block);
    return CB_OK;
}

struct cb_type type_make(enum cb_dtype dtype, int rank, const int64_t *dim) {
    struct cb_type type = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank && i < CB_MAX_RANK; i++) type.dim[i] = dim[i];
    return type;
}
