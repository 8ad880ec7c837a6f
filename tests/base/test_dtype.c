/* Number types: every 16-bit value, rounding of ties, integers at their ends, blocks by hand, and refused types. */
#include "base/dtype.h"

#include "../harness.h"

static struct cb_err err;

TEST(dtype, f16_every_value) {
    for (uint32_t h = 0; h < 65536; h++) {
        int exponent = h >> 10 & 31, mantissa = h & 1023;
        double want = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        if (exponent == 31) want = mantissa ? NAN : INFINITY;
        if (h & 0x8000) want = -want;
        float got = f16_to_f32((uint16_t)h);
        CHECK(isnan(want) ? isnan(got) : (double)got == want && !!signbit(got) == (int)(h >> 15), "0x%04x", h);
        uint16_t back = f16_from_f32(got);
        CHECK(isnan(want) ? (back & 0x7e00) == 0x7e00 : back == h, "0x%04x gives 0x%04x", h, back);
    }
}

// Between neighbours: the nearer one, ties to even; past the largest: infinity from the tie on.
TEST(dtype, f16_rounding) {
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = f16_to_f32((uint16_t)h), b = f16_to_f32((uint16_t)(h + 1)), middle = (a + b) / 2;
        CHECK(f16_from_f32(middle) == (h & 1 ? h + 1 : h), "tie after 0x%04x", h);
        CHECK(f16_from_f32(nextafterf(middle, a)) == h && f16_from_f32(nextafterf(middle, b)) == h + 1, "beside the tie after 0x%04x", h);
        CHECK(f16_from_f32(-nextafterf(middle, b)) == (h + 1 + 0x8000), "negative after 0x%04x", h);
    }
    CHECK(f16_from_f32(65519.996f) == 0x7bff && f16_from_f32(65520.0f) == 0x7c00 && f16_from_f32(3e38f) == 0x7c00);
    CHECK(f16_from_f32(0x1p-26f) == 0 && f16_from_f32(-0.0f) == 0x8000);
}

TEST(dtype, bf16_rounding) {
    for (uint32_t b = 0; b < 0x7f7f; b++) {
        float x = bf16_to_f32((uint16_t)b);
        union {
            uint32_t u;
            float f;
        } tie = {b << 16 | 0x8000};
        CHECK(bf16_from_f32(x) == b);
        CHECK(bf16_from_f32(tie.f) == (b & 1 ? b + 1 : b), "tie after 0x%04x", b);
        tie.u--;
        CHECK(bf16_from_f32(tie.f) == b);
    }
    CHECK(isnan(bf16_to_f32(bf16_from_f32(NAN))) && bf16_from_f32(INFINITY) == 0x7f80 && bf16_from_f32(3.4e38f) == 0x7f80);
}

TEST(dtype, f8) {
    static const struct {
        uint8_t byte;
        float e4m3, e5m2;
    } cases[] = {{0x00, 0, 0},   {0x01, 0x1p-9f, 0x1p-16f}, {0x08, 0x1p-6f, 0x1p-13f}, {0x38, 1, 0.5f}, {0x3c, 1.5f, 1},
                 {0xc4, -3, -4}, {0x7e, 448, NAN},          {0x7b, 352, 57344}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float a, b;
        dtype_of(CB_DTYPE_F8_E4M3)->to_f32(&a, &cases[i].byte, 1);
        dtype_of(CB_DTYPE_F8_E5M2)->to_f32(&b, &cases[i].byte, 1);
        CHECK(a == cases[i].e4m3, "e4m3 0x%02x gives %g", cases[i].byte, a);
        CHECK(b == cases[i].e5m2 || (isnan(b) && isnan(cases[i].e5m2)), "e5m2 0x%02x gives %g", cases[i].byte, b);
    }
    uint8_t none = 0x7f;
    float x;
    dtype_of(CB_DTYPE_F8_E4M3)->to_f32(&x, &none, 1);
    CHECK(isnan(x));
}

// Every plain type holds these; integers saturate, cut towards zero and read NaN as 0.
TEST(dtype, plain_types_round_trip) {
    const float in[] = {0, 1, 5, 100, 1, 0}, ends[] = {1e30f, -1e30f, NAN, 2.9f, -2.9f};
    for (int t = 0; t < CB_DTYPE_COUNT; t++) {
        const struct dtype *d = dtype_of((enum cb_dtype)t);
        CHECK(dtype_by_name(d->name) == (enum cb_dtype)t);
        if (d->is_quantised || !d->from_f32 || t == CB_DTYPE_BOOL) continue;
        char bytes[64];
        float out[6];
        d->from_f32(bytes + 1, in, 6);  // unaligned on purpose
        d->to_f32(out, bytes + 1, 6);
        CHECK(!memcmp(in, out, sizeof in), "%s", d->name);
        if (d->is_float) continue;
        d->from_f32(bytes, ends, 5);
        d->to_f32(out, bytes, 5);
        CHECK(out[0] >= 127 && out[1] <= 0 && out[2] == 0 && out[3] == 2 && (out[4] == -2 || out[4] == 0), "%s", d->name);
    }
    int64_t big;
    dtype_of(CB_DTYPE_I64)->from_f32(&big, ends, 1);
    CHECK(big == INT64_MAX);
    CHECK(dtype_by_name("F32") == CB_DTYPE_COUNT);
}

TEST(dtype, blocks) {
    float in[32], out[32];
    for (int i = 0; i < 32; i++) in[i] = (float)(i - 16) * 0.5f;
    unsigned char q8[34], q4[18];
    dtype_of(CB_DTYPE_Q8_0)->from_f32(q8, in, 32);
    dtype_of(CB_DTYPE_Q8_0)->to_f32(out, q8, 32);
    for (int i = 0; i < 32; i++) CHECK(fabsf(in[i] - out[i]) <= 8.0f / 127 * 0.51f, "q8_0 %d: %g for %g", i, out[i], in[i]);
    dtype_of(CB_DTYPE_Q4_0)->from_f32(q4, in, 32);
    dtype_of(CB_DTYPE_Q4_0)->to_f32(out, q4, 32);
    CHECK(out[0] == -8.0f && q4[2] == (0 | 8 << 4));
    for (int i = 0; i < 32; i++) CHECK(fabsf(in[i] - out[i]) <= 0.51f, "q4_0 %d: %g for %g", i, out[i], in[i]);
    // nothing but zeros, infinities and NaN must not trap
    for (int i = 0; i < 32; i++) in[i] = i % 3 ? NAN : i % 2 ? INFINITY : 0;
    dtype_of(CB_DTYPE_Q8_0)->from_f32(q8, in, 32);
    dtype_of(CB_DTYPE_Q4_0)->from_f32(q4, in, 32);
    CHECK(type_bytes(&(struct cb_type){CB_DTYPE_Q4_K, 2, {3, 512}}) == 3 * 2 * 144);
}

TEST(dtype, type_check) {
    char text[TYPE_TEXT];
    CHECK(!strcmp(type_text(&(struct cb_type){CB_DTYPE_F32, 2, {2, 3}}, text), "f32[2,3]"));
    CHECK(!strcmp(type_text(&(struct cb_type){CB_DTYPE_I64, 0, {0}}, text), "i64[]"));
    CHECK_OK(type_check(&(struct cb_type){CB_DTYPE_F32, 2, {0, 3}}, "a", &err));
    CHECK_FAILS(type_check(&(struct cb_type){CB_DTYPE_F32, 1, {-1}}, "a", &err), CB_E_SHAPE, "negative");
    CHECK_FAILS(type_check(&(struct cb_type){CB_DTYPE_F32, 3, {0, (int64_t)1 << 62, 8}}, "a", &err), CB_E_SHAPE, "overflow");
    CHECK_FAILS(type_check(&(struct cb_type){CB_DTYPE_F32, 9, {0}}, "a", &err), CB_E_SHAPE, "rank 9");
    CHECK_FAILS(type_check(&(struct cb_type){CB_DTYPE_Q8_0, 2, {32, 3}}, "a", &err), CB_E_SHAPE, "multiple of 32");
    CHECK_FAILS(type_check(&(struct cb_type){(enum cb_dtype)77, 0, {0}}, "a", &err), CB_E_DTYPE, "77");
    struct cb_type a = type_make(CB_DTYPE_F32, 2, (int64_t[]){2, 3}), b = a;
    CHECK(type_equal(&a, &b) && type_elements(&a) == 6 && type_bytes(&a) == 24);
    b.dim[1] = 4;
    CHECK(!type_equal(&a, &b));
}
