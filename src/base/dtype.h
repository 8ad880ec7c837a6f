/* The table of number types: sizes and conversion to and from f32. */
#ifndef BASE_DTYPE_H
#define BASE_DTYPE_H
#include "base/err.h"

struct dtype {
    const char *name;
    int block;  // elements per block; 1 for plain types
    int block_bytes;
    bool is_float;  // plain floating point (f32, f16, bf16, f64, f8)
    bool is_quantised;  // block type
    void (*to_f32)(float *out, const void *in, int64_t n);  // n a multiple of block; any type
    void (*from_f32)(void *out, const float *in, int64_t n);  // NULL where no encoder exists
};

const struct dtype *dtype_of(enum cb_dtype dtype);
/* n elements of one type to another through f32 (equal types: a copy); n a multiple of both blocks. False where the target has no encoder. */
bool dtype_convert(void *out, enum cb_dtype to, const void *in, enum cb_dtype from, int64_t n);
/* CB_DTYPE_COUNT where no type has the name (any case is NOT folded: "f32"). */
enum cb_dtype dtype_by_name(const char *name);

/* Elements of a type; 1 for rank 0. Types in graphs never overflow: checked when made. */
int64_t type_elements(const struct cb_type *type);
/* Bytes of a contiguous tensor (block types: last dimension a multiple of the block). */
int64_t type_bytes(const struct cb_type *type);
bool type_equal(const struct cb_type *a, const struct cb_type *b);
/* Checks rank, non-negative dimensions, block fit and that the bytes stay below 2^62. */
enum cb_status type_check(const struct cb_type *type, const char *name, struct cb_err *err);
/* "f32[2,3]" into text; returns text. */
#define TYPE_TEXT 96
const char *type_text(const struct cb_type *type, char text[TYPE_TEXT]);
struct cb_type type_make(enum cb_dtype dtype, int rank, const int64_t *dim);

/* Scalar conversions, round to nearest even. */
float f16_to_f32(uint16_t h);
uint16_t f16_from_f32(float f);
static inline float bf16_to_f32(uint16_t b) {
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)b << 16};
    return x.f;
}
uint16_t bf16_from_f32(float f);
#endif
