/* TSV-M against what it must give: one model itself, orthogonal changes their sum, two directions at an angle by hand, the largest values alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "merge/merge.h"

enum { ROWS = 12, COLS = 8, N = ROWS * COLS };

/* Merges n changes of a matrix (rows,cols) of zeros, each with its weight. */
static void merge(const char *name, int64_t rows, int64_t cols, int n, float *const *x, const double *weight, double lambda, float *out) {
    struct cb_err err = {0};
    const struct merge_method *m = merge_method_find("tsv");
    struct merge_input in[3], base = {.model = "base", .data = calloc((size_t)(rows * cols), sizeof(float)), .dtype = CB_DTYPE_F32};
    double shared[MERGE_MAX_OPTIONS] = {0}, own[3][MERGE_MAX_OPTIONS] = {{0}};
    shared[merge_option_index(m, "lambda")] = lambda;
    for (int k = 0; k < n; k++) {
        in[k] = (struct merge_input){.model = "m", .data = x[k], .dtype = CB_DTYPE_F32};
        own[k][merge_option_index(m, "weight")] = weight ? weight[k] : 1;
    }
    struct merge_job job = {.method = m, .name = name, .n_models = n, .model = in, .base = &base, .shared = shared};
    job.own = (const double(*)[MERGE_MAX_OPTIONS])own;
    job.type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){rows, cols});
    CHECK_OK(pool_create(&job.pool, 2, &err));
    CHECK_OK(merge_begin(&job, &err));
    CHECK_OK(merge_read(&job, 0, rows * cols, out, &err));
    merge_end(&job);
    pool_destroy(&job.pool);
    free((void *)base.data);
}

static double gap(const float *a, const float *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

static void fill(float *x, int seed) {
    for (int i = 0; i < N; i++) x[i] = (float)sin(1.7 * i * (seed + 1) + 0.3 * i * i);
}

/* x += s u v', the vectors being unit ones in the plane of two axes: cos a of axis i, sin a of axis j. */
static void add_pair(float *x, double s, int i, int j, double a, int p, int q, double b) {
    const double u[2] = {cos(a), sin(a)}, v[2] = {cos(b), sin(b)};
    const int row[2] = {i, j}, col[2] = {p, q};
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 2; c++) x[row[r] * COLS + col[c]] += (float)(s * u[r] * v[c]);
}

TEST(merge_tsv, one_model_is_itself) {
    float x[N], out[N];
    fill(x, 1);
    merge("layer.weight", ROWS, COLS, 1, (float *[]){x}, NULL, 1, out);
    CHECK(gap(x, out, N) < 1e-6, "off by %g", gap(x, out, N));
    // a weight and lambda scale it
    for (int i = 0; i < N; i++) x[i] *= -0.75f;
    merge("layer.weight", ROWS, COLS, 1, (float *[]){x}, (const double[]){-2}, 0.5, out);
    for (int i = 0; i < N; i++) out[i] = -out[i];
    CHECK(gap(x, out, N) < 1e-6, "with weights off by %g", gap(x, out, N));
}

TEST(merge_tsv, the_order_of_models_and_of_sides_does_not_matter) {
    float x[3][N], turned[3][N], out[N], other[N], back[N];
    for (int k = 0; k < 3; k++) fill(x[k], k);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < N; i++) turned[k][i % COLS * ROWS + i / COLS] = x[k][i];
    merge("layer.weight", ROWS, COLS, 3, (float *[]){x[0], x[1], x[2]}, (const double[]){1, 0.5, 2}, 1, out);
    merge("layer.weight", ROWS, COLS, 3, (float *[]){x[2], x[0], x[1]}, (const double[]){2, 1, 0.5}, 1, other);
    CHECK(gap(out, other, N) < 1e-5, "order: %g", gap(out, other, N));
    merge("layer.weight", COLS, ROWS, 3, (float *[]){turned[0], turned[1], turned[2]}, (const double[]){1, 0.5, 2}, 1, other);
    for (int i = 0; i < N; i++) back[i] = other[i % COLS * ROWS + i / COLS];
    CHECK(gap(out, back, N) < 1e-5, "sides: %g", gap(out, back, N));
    float sum[N];
    for (int i = 0; i < N; i++) sum[i] = x[0][i] + 0.5f * x[1][i] + 2 * x[2][i];
    CHECK(gap(out, sum, N) > 0.1, "it is the plain sum");
}

TEST(merge_tsv, each_keeps_its_share_and_orthogonal_changes_add_up) {
    float x[2][N] = {{0}}, want[N] = {0}, out[N];
    // of 8 directions each model keeps 4; the second has two, orthogonal to the first's
    for (int i = 0; i < 6; i++) {
        x[0][i * COLS + i] = (float)(6 - i);
        if (i < 4) want[i * COLS + i] = (float)(6 - i);
    }
    for (int i = 6; i < 8; i++) want[(i + 3) * COLS + i] = x[1][(i + 3) * COLS + i] = 0.5f * (float)i;
    merge("layer.weight", ROWS, COLS, 2, (float *[]){x[0], x[1]}, NULL, 1, out);
    CHECK(gap(want, out, N) < 1e-6, "off by %g", gap(want, out, N));
    // a model with itself: the directions are the same, its larger half stays
    for (int i = 6; i < 8; i++) want[(i + 3) * COLS + i] = 0;
    merge("layer.weight", ROWS, COLS, 2, (float *[]){x[0], x[0]}, NULL, 1, out);
    CHECK(gap(want, out, N) < 1e-6, "twice the same: off by %g", gap(want, out, N));
    // without any change there is none
    memset(x, 0, sizeof x);
    merge("layer.weight", ROWS, COLS, 2, (float *[]){x[0], x[1]}, NULL, 1, out);
    CHECK(gap(x[0], out, N) == 0, "zeros give %g", gap(x[0], out, N));
}

/* Two unit vectors at an angle c apart become (t + d) / 2 and (t - d) / 2, t and d their sum and difference made unit and times sqrt 2. */
TEST(merge_tsv, two_directions_at_an_angle_by_hand) {
    float x[2][N] = {{0}}, want[N] = {0}, out[N];
    // u1 is axis 2, u2 at 50 degrees from it towards axis 9; v1 axis 0, v2 at 70 degrees towards axis 5
    const double degree = acos(-1) / 180, u = 50 * degree, v = 70 * degree;
    add_pair(x[0], 3, 2, 9, 0, 0, 5, 0);
    add_pair(x[1], 2, 2, 9, u, 0, 5, v);
    merge("layer.weight", ROWS, COLS, 2, (float *[]){x[0], x[1]}, NULL, 1, out);
    // made orthogonal, both are as far from the middle: at 45 degrees on either side
    add_pair(want, 3, 2, 9, u / 2 - 45 * degree, 0, 5, v / 2 - 45 * degree);
    add_pair(want, 2, 2, 9, u / 2 + 45 * degree, 0, 5, v / 2 + 45 * degree);
    CHECK(gap(want, out, N) < 1e-6, "off by %g", gap(want, out, N));
}

TEST(merge_tsv, tables_of_words_are_averaged_and_more_models_than_directions_merge) {
    float x[3][N], out[N], want[N];
    for (int k = 0; k < 3; k++) fill(x[k], k);
    for (int i = 0; i < N; i++) want[i] = (x[0][i] + x[1][i] + x[2][i]) / 3;
    merge("model.embed_tokens.weight", ROWS, COLS, 3, (float *[]){x[0], x[1], x[2]}, NULL, 1, out);
    CHECK(gap(want, out, N) < 1e-6, "off by %g", gap(want, out, N));
    // two rows, three models, one direction each: what comes out is finite, and no longer than all of them together
    merge("layer.weight", 2, N / 2, 3, (float *[]){x[0], x[1], x[2]}, NULL, 1, out);
    double length = 0, most = 0;
    for (int i = 0; i < N; i++) length += (double)out[i] * (double)out[i];
    for (int k = 0; k < 3; k++) {
        double own = 0;
        for (int i = 0; i < N; i++) own += (double)x[k][i] * (double)x[k][i];
        most += sqrt(own);
    }
    CHECK(length > 0 && sqrt(length) <= most, "length %g of at most %g", sqrt(length), most);
}
