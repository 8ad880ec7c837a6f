/* Block types against the outside vectors, bit by bit, and their encoders' errors. */
#include <dirent.h>
#include <strings.h>

#include "../harness.h"
#include "base/rng.h"
#include "io/safetensors.h"

static struct cb_err err;

static const struct tensor *need(const struct tensors *t, const char *name) {
    const struct tensor *tensor = NULL;
    CHECK_OK(tensors_need(&tensor, t, name, &err));
    return tensor;
}

/* Equal bits, or both NaN. */
static void check_floats(const char *type, const char *what, const float *got, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        CHECK(!memcmp(got + i, want + i, 4) || (isnan(got[i]) && isnan(want[i])), "%s %s %lld: %a, wanted %a", type, what, (long long)i,
              got[i], want[i]);
}

static void check_decode(const struct dtype *d, const struct tensors *t, const char *blocks, const char *values) {
    const struct tensor *in = need(t, blocks), *want = need(t, values);
    int64_t n = type_elements(&want->type);
    CHECK(in->bytes / d->block_bytes * d->block == n && n > 0, "%s: %lld bytes for %lld values", d->name, (long long)in->bytes,
          (long long)n);
    float *out = malloc((size_t)n * sizeof *out);
    d->to_f32(out, tensor_data(in), n);
    check_floats(d->name, values, out, tensor_data(want), n);
    free(out);
}

static void check_encode(const struct dtype *d, const struct tensors *t) {
    const struct tensor *in = need(t, "input"), *want = need(t, "quantized");
    int64_t n = type_elements(&in->type), row = in->type.dim[in->type.rank - 1];
    CHECK(d->from_f32 != NULL, "%s has no encoder", d->name);
    unsigned char *out = malloc((size_t)want->bytes);
    const unsigned char *bytes = tensor_data(want);
    d->from_f32(out, tensor_data(in), n);
    float *back = malloc((size_t)n * sizeof *back), *wanted = malloc((size_t)n * sizeof *wanted);
    d->to_f32(back, out, n);
    d->to_f32(wanted, bytes, n);
    for (int64_t i = 0; i < want->bytes; i++) {
        int64_t at = i / d->block_bytes * d->block;
        bool nan = d->block == 1 && isnan(back[at]) && isnan(wanted[at]);
        CHECK(out[i] == bytes[i] || nan, "%s row %lld, block at %lld, byte %lld: %02x, wanted %02x", d->name, (long long)(at / row),
              (long long)(at % row), (long long)(i % d->block_bytes), out[i], bytes[i]);
    }
    free(back);
    free(wanted);
    free(out);
}

TEST(quant, outside_vectors) {
    const char *shared = shared_dir();
    if (!shared) return;
    char folder[1000], path[1400], name[64];
    snprintf(folder, sizeof folder, "%s/fixtures/gguf/vectors", shared);
    DIR *dir = opendir(folder);
    CHECK(dir != NULL, "%s: cannot be opened", folder);
    int n_types = 0, n_encoded = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "vec_", 4) != 0) continue;
        snprintf(name, sizeof name, "%s", e->d_name + 4);
        *strchr(name, '.') = 0;
        for (char *p = name; *p; p++) *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        enum cb_dtype dtype = dtype_by_name(name);
        CHECK(dtype != CB_DTYPE_COUNT, "%s: no such type", name);
        struct tensors *t;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        CHECK_OK(tensors_open(&t, path, &err));
        check_decode(dtype_of(dtype), t, "random_blocks", "random_values");
        n_types++;
        if (tensors_find(t, "quantized")) {
            check_decode(dtype_of(dtype), t, "quantized", "dequantized");
            check_encode(dtype_of(dtype), t);
            n_encoded++;
        }
        tensors_destroy(&t);
    }
    closedir(dir);
    CHECK(n_types > 0 && n_encoded > 0, "%d types, %d with encoders", n_types, n_encoded);
}

/* Relative root mean square error of values drawn like weights: bounds a little above what the type's bits allow. */
TEST(quant, encoders_keep_what_their_bits_allow) {
    static const struct {
        enum cb_dtype dtype;
        double most;
    } cases[] = {{CB_DTYPE_Q8_0, 0.007}, {CB_DTYPE_Q6_K, 0.02},  {CB_DTYPE_Q5_K, 0.04}, {CB_DTYPE_Q5_0, 0.05},   {CB_DTYPE_Q5_1, 0.05},
                 {CB_DTYPE_Q4_K, 0.08},  {CB_DTYPE_Q4_0, 0.10},  {CB_DTYPE_Q4_1, 0.09}, {CB_DTYPE_IQ4_NL, 0.09}, {CB_DTYPE_Q3_K, 0.17},
                 {CB_DTYPE_Q2_K, 0.33},  {CB_DTYPE_MXFP4, 0.14}, {CB_DTYPE_Q1_0, 0.62}};
    enum { N = 64 * 256 };
    static float in[N], out[N];
    static unsigned char blocks[N * 4];
    struct rng rng = rng_make(3, 1);
    for (int i = 0; i < N; i++) {
        double sum = -6;
        for (int k = 0; k < 12; k++) sum += (double)rng_below(&rng, 1 << 20) / (1 << 20);
        in[i] = (float)(0.02 * sum);
    }
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct dtype *d = dtype_of(cases[c].dtype);
        double miss = 0, all = 0;
        d->from_f32(blocks, in, N);
        d->to_f32(out, blocks, N);
        for (int i = 0; i < N; i++) miss += pow((double)out[i] - in[i], 2), all += pow(in[i], 2);
        double error = sqrt(miss / all);
        CHECK(error < cases[c].most && error > cases[c].most / 3, "%s: error %g, wanted below %g", d->name, error, cases[c].most);
    }
}

/* Constants, zeros, one value alone, infinities and NaN: no trap, and what can be held exactly is. */
TEST(quant, encoders_take_any_values) {
    static float in[256], out[256];
    static unsigned char blocks[2048];
    const float odd[] = {0, -0.0f, 1, -1, 3e38f, -3e38f, 1e-42f, INFINITY, -INFINITY, NAN};
    for (int t = 0; t < CB_DTYPE_COUNT; t++) {
        const struct dtype *d = dtype_of((enum cb_dtype)t);
        if (!d->is_quantised || !d->from_f32) continue;
        for (int i = 0; i < 256; i++) in[i] = 0;
        d->from_f32(blocks, in, 256);
        d->to_f32(out, blocks, 256);
        for (int i = 0; i < 256; i++) CHECK(out[i] == 0, "%s: zero gives %g", d->name, out[i]);
        for (size_t a = 0; a < sizeof odd / sizeof *odd; a++)
            for (int every = 1; every <= 256; every *= 7) {
                for (int i = 0; i < 256; i++) in[i] = i % every ? (float)i : odd[a];
                d->from_f32(blocks, in, 256);
                d->to_f32(out, blocks, 256);
            }
    }
}
