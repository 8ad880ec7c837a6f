/* What every Cambium header needs: status codes, the error record and the number types. */
#ifndef CAMBIUM_BASE_H
#define CAMBIUM_BASE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every status once: X(name, number, text). Numbers are stable. */
#define CB_STATUS_LIST(X)                                           \
    X(CB_OK, 0, "done")                                             \
    X(CB_E_MEMORY, -1, "out of memory")                             \
    X(CB_E_IO, -2, "file or device failure")                        \
    X(CB_E_FORMAT, -3, "malformed file or text")                    \
    X(CB_E_SHAPE, -4, "shapes do not fit")                          \
    X(CB_E_DTYPE, -5, "number type does not fit")                   \
    X(CB_E_NAME, -6, "unknown or duplicate name")                   \
    X(CB_E_ARGUMENT, -7, "argument out of range")                   \
    X(CB_E_UNSUPPORTED, -8, "not possible with this kind of thing") \
    X(CB_E_LIMIT, -9, "over a limit that was set")                  \
    X(CB_E_NUMERIC, -10, "not a finite number")                     \
    X(CB_E_STOPPED, -11, "stopped on request")                      \
    X(CB_E_USAGE, -12, "used wrongly")

enum cb_status {
#define CB_X(name, number, text) name = number,
    CB_STATUS_LIST(CB_X)
#undef CB_X
};

/* The first failure of a call chain. Zero-initialise before use; reuse after clearing `code`. */
struct cb_err {
    enum cb_status code;
    int line;
    const char *file; /* source file; static storage */
    char message[1000]; /* "NAME: what was found; what was wanted" */
};

/* Text of a status, static storage. */
const char *cb_status_text(enum cb_status status);

/* Number types: X(NAME, name, elements per block, bytes per block). ggml's block types keep ggml's layout. */
#define CB_DTYPE_LIST(X)           \
    X(F32, "f32", 1, 4)            \
    X(F16, "f16", 1, 2)            \
    X(BF16, "bf16", 1, 2)          \
    X(F64, "f64", 1, 8)            \
    X(I8, "i8", 1, 1)              \
    X(U8, "u8", 1, 1)              \
    X(I16, "i16", 1, 2)            \
    X(U16, "u16", 1, 2)            \
    X(I32, "i32", 1, 4)            \
    X(U32, "u32", 1, 4)            \
    X(I64, "i64", 1, 8)            \
    X(U64, "u64", 1, 8)            \
    X(BOOL, "bool", 1, 1)          \
    X(F8_E4M3, "f8_e4m3", 1, 1)    \
    X(F8_E5M2, "f8_e5m2", 1, 1)    \
    X(Q8_0, "q8_0", 32, 34)        \
    X(Q4_0, "q4_0", 32, 18)        \
    X(Q4_K, "q4_k", 256, 144)      \
    X(Q4_1, "q4_1", 32, 20)        \
    X(Q5_0, "q5_0", 32, 22)        \
    X(Q5_1, "q5_1", 32, 24)        \
    X(Q8_1, "q8_1", 32, 36)        \
    X(Q1_0, "q1_0", 128, 18)       \
    X(Q2_K, "q2_k", 256, 84)       \
    X(Q3_K, "q3_k", 256, 110)      \
    X(Q5_K, "q5_k", 256, 176)      \
    X(Q6_K, "q6_k", 256, 210)      \
    X(Q8_K, "q8_k", 256, 292)      \
    X(IQ1_S, "iq1_s", 256, 50)     \
    X(IQ1_M, "iq1_m", 256, 56)     \
    X(IQ2_XXS, "iq2_xxs", 256, 66) \
    X(IQ2_XS, "iq2_xs", 256, 74)   \
    X(IQ2_S, "iq2_s", 256, 82)     \
    X(IQ3_XXS, "iq3_xxs", 256, 98) \
    X(IQ3_S, "iq3_s", 256, 110)    \
    X(IQ4_NL, "iq4_nl", 32, 18)    \
    X(IQ4_XS, "iq4_xs", 256, 136)  \
    X(TQ1_0, "tq1_0", 256, 54)     \
    X(TQ2_0, "tq2_0", 256, 66)     \
    X(MXFP4, "mxfp4", 32, 17)      \
    X(NVFP4, "nvfp4", 64, 36)

enum cb_dtype {
#define CB_X(NAME, name, block, bytes) CB_DTYPE_##NAME,
    CB_DTYPE_LIST(CB_X)
#undef CB_X
        CB_DTYPE_COUNT
};

#define CB_MAX_RANK 6

/* Type of a tensor: row-major, dim[rank-1] is contiguous. */
struct cb_type {
    enum cb_dtype dtype;
    int rank;
    int64_t dim[CB_MAX_RANK];
};

#ifdef __cplusplus
}
#endif
#endif
