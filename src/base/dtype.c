/* The table of number types and the plain loops that convert each to and from f32. */
#include "base/dtype.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/quant.h"

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
#define Q8_0_KIND BLOCKS(q8_0)
#define Q4_0_KIND BLOCKS(q4_0)
#define Q4_K_KIND BLOCKS(q4_k)
#define Q4_1_KIND BLOCKS(q4_1)
#define Q5_0_KIND BLOCKS(q5_0)
#define Q5_1_KIND BLOCKS(q5_1)
#define Q8_1_KIND BLOCKS_READ(q8_1)
#define Q1_0_KIND BLOCKS(q1_0)
#define Q2_K_KIND BLOCKS(q2_k)
#define Q3_K_KIND BLOCKS(q3_k)
#define Q5_K_KIND BLOCKS(q5_k)
#define Q6_K_KIND BLOCKS(q6_k)
#define Q8_K_KIND BLOCKS_READ(q8_k)
#define IQ1_S_KIND BLOCKS_READ(iq1_s)
#define IQ1_M_KIND BLOCKS_READ(iq1_m)
#define IQ2_XXS_KIND BLOCKS_READ(iq2_xxs)
#define IQ2_XS_KIND BLOCKS_READ(iq2_xs)
#define IQ2_S_KIND BLOCKS_READ(iq2_s)
#define IQ3_XXS_KIND BLOCKS_READ(iq3_xxs)
#define IQ3_S_KIND BLOCKS_READ(iq3_s)
#define IQ4_NL_KIND BLOCKS(iq4_nl)
#define IQ4_XS_KIND BLOCKS_READ(iq4_xs)
#define TQ1_0_KIND BLOCKS(tq1_0)
#define TQ2_0_KIND BLOCKS(tq2_0)
#define MXFP4_KIND BLOCKS(mxfp4)
#define NVFP4_KIND BLOCKS_READ(nvfp4)
#define BLOCKS(name) .is_quantised = true, .to_f32 = quant_##name##_decode, .from_f32 = quant_##name##_encode
#define BLOCKS_READ(name) .is_quantised = true, .to_f32 = quant_##name##_decode
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
