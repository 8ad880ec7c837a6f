/* Linear cross-entropy over several chunks of rows against a double loop, for every kernel set and 1 to 3 threads. */
#include "backend/cpu/tile.h"
#include "base/cpuid.h"
#include "base/rng.h"
#include "gen/attrs.h"
#include "harness.h"

extern const struct kernel kernel_file_linear_cross_entropy[], kernel_file_linear_cross_entropy_avx2[],
    kernel_file_linear_cross_entropy_avx512[], kernel_file_linear_cross_entropy_amx[];

enum { N = 1501, C = 19, V = 70, THREADS = 3 };  // more rows than one chunk holds

struct problem {
    float x[N * C], weight[V * C], bias[V], start[V * C];
    int32_t labels[N];
    int count;  // of labels that are not ignored
    double loss, dx[N * C], dweight[V * C], dbias[V];
};
struct result {
    float loss, count, dx[N * C], dweight[V * C], dbias[V];
};

static struct cb_tensor tensor(enum cb_dtype dtype, int rank, int64_t a, int64_t b) {
    return (struct cb_tensor){.type = {.dtype = dtype, .rank = rank, .dim = {a, b}}};
}

static void fill(float *p, int n, struct rng *rng) {
    for (int i = 0; i < n; i++) p[i] = (float)rng_normal(rng);
}

/* Which rows have a label. */
static bool all_rows(int i) { return i >= 0; }
static bool most_rows(int i) { return i % 7 != 3; }
static bool few_rows(int i) { return i % 90 == 89; }
static bool last_rows(int i) { return i >= N - 1200; }  // two chunks
static bool one_row(int i) { return i == N / 2; }
enum { RULES = 5 };
static bool (*const labelled[RULES])(int i) = {all_rows, most_rows, few_rows, last_rows, one_row};

/* Sums in double; weight (V,C), or (C,V) where in_out; mean over rows that count, gradients times 2. */
static void solve(struct problem *p, bool in_out, bool (*has_label)(int i)) {
    struct rng rng = rng_make(3, in_out);
    fill(p->x, N * C, &rng), fill(p->weight, V * C, &rng), fill(p->bias, V, &rng), fill(p->start, V * C, &rng);
    p->count = 0;
    for (int i = 0; i < N; i++) {
        p->labels[i] = has_label(i) ? (int32_t)rng_below(&rng, V) : -100;
        p->count += p->labels[i] >= 0;
    }
    p->loss = 0;
    memset(p->dx, 0, sizeof p->dx), memset(p->dbias, 0, sizeof p->dbias);
    for (int i = 0; i < V * C; i++) p->dweight[i] = (double)p->start[i];
    for (int i = 0; i < N; i++) {
        double logit[V], max = -INFINITY, sum = 0;
        if (p->labels[i] < 0) continue;
        for (int v = 0; v < V; v++) {
            logit[v] = (double)p->bias[v];
            for (int c = 0; c < C; c++) logit[v] += (double)p->x[i * C + c] * (double)p->weight[in_out ? c * V + v : v * C + c];
            max = fmax(max, logit[v]);
        }
        for (int v = 0; v < V; v++) sum += exp(logit[v] - max);
        p->loss += (log(sum) + max - logit[p->labels[i]]) / p->count;
        for (int v = 0; v < V; v++) {
            const double d = 2 * (exp(logit[v] - max) / sum - (v == p->labels[i])) / p->count;
            p->dbias[v] += d;
            for (int c = 0; c < C; c++) {
                const int w = in_out ? c * V + v : v * C + c;
                p->dx[i * C + c] += d * (double)p->weight[w];
                p->dweight[w] += d * (double)p->x[i * C + c];
            }
        }
    }
}

/* Runs the two kernels of one file. */
static void run_kernels(const struct kernel *kernel, const struct problem *p, bool in_out, struct pool *pool, struct result *r) {
    const struct attr_linear_cross_entropy attrs = {.weight_is_in_out = in_out};
    const struct attr_linear_cross_entropy_grad back_attrs = {.weight_is_in_out = in_out};
    struct cb_tensor x = tensor(CB_DTYPE_F32, 2, N, C), weight = tensor(CB_DTYPE_F32, 2, in_out ? C : V, in_out ? V : C),
                     labels = tensor(CB_DTYPE_I32, 1, N, 0), bias = tensor(CB_DTYPE_F32, 1, V, 0), one = tensor(CB_DTYPE_F32, 0, 0, 0);
    struct cb_tensor *in[] = {&x, &weight, &labels, &bias}, *out[] = {&one, &one};
    struct cb_tensor *back_in[] = {&x, &weight, &labels, &one, &bias, &weight}, *back_out[] = {&one, &x, &weight, &bias};
    const struct node forward = {.attrs = &attrs, .in = in, .out = out, .n_in = 4, .n_out = 2};
    const struct node backward = {.attrs = &back_attrs, .in = back_in, .out = back_out, .n_in = 6, .n_out = 4};
    CHECK(kernel[0].accepts(&forward) && kernel[1].accepts(&backward));
    const int n = pool_threads(pool);
    const size_t bytes = tile_max((int64_t)kernel[0].workspace(&forward, n), (int64_t)kernel[1].workspace(&backward, n));
    void *work = aligned_alloc(64, (bytes + 127) / 64 * 64);
    CHECK(work != NULL);
    const float dloss = 2;
    memcpy(r->dweight, p->start, sizeof r->dweight);
    const struct op_run f = {.node = &forward,
                             .in = (const void *[]){p->x, p->weight, p->labels, p->bias},
                             .out = (void *[]){&r->loss, &r->count},
                             .work = work,
                             .pool = pool};
    kernel[0].run(&f);
    const float forward_loss = r->loss;
    const struct op_run b = {.node = &backward,
                             .in = (const void *[]){p->x, p->weight, p->labels, &dloss, p->bias, r->dweight},
                             .out = (void *[]){&r->loss, r->dx, r->dweight, r->dbias},
                             .work = work,
                             .pool = pool};
    kernel[1].run(&b);
    CHECK(fabsf(forward_loss - r->loss) <= 1e-6f * r->loss, "forward %.9g, backward %.9g", (double)forward_loss, (double)r->loss);
    free(work);
}

static void compare(const char *what, const float *found, const double *wanted, int n, double tolerance) {
    for (int i = 0; i < n; i++)
        CHECK(fabs((double)found[i] - wanted[i]) <= tolerance, "%s[%d] is %.9g, wanted %.9g", what, i, (double)found[i], wanted[i]);
}

TEST(linear_cross_entropy, chunks_against_doubles_for_any_threads) {
    const struct kernel *const files[] = {kernel_file_linear_cross_entropy, kernel_file_linear_cross_entropy_avx2,
                                          kernel_file_linear_cross_entropy_avx512, kernel_file_linear_cross_entropy_amx};
    struct problem *p = malloc(sizeof *p);
    struct result *r = calloc(THREADS, sizeof *r);
    CHECK(p && r);
    for (int rule = 0; rule < 2 * RULES; rule++) {
        const bool in_out = rule % 2;
        solve(p, in_out, labelled[rule / 2]);
        for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
            if (files[f]->cpu & ~cpu_features()) continue;
            for (int t = 0; t < THREADS; t++) {
                struct pool *pool = NULL;
                struct cb_err err = {0};
                CHECK_OK(pool_create(&pool, t + 1, &err));
                memset(&r[t], 0, sizeof r[t]);
                run_kernels(files[f], p, in_out, pool, &r[t]);
                pool_destroy(&pool);
                CHECK(memcmp(&r[t], &r[0], sizeof r[0]) == 0, "%s: %d threads give other bits", files[f]->name, t + 1);
            }
            const double scale = (double)N / p->count;
            CHECK((int)r->count == p->count);
            compare("loss", &r->loss, &p->loss, 1, 2e-6 * p->loss);
            compare("dx", r->dx, p->dx, N * C, 1e-7 * scale);
            compare("dweight", r->dweight, p->dweight, V * C, 2e-6 * fmax(1, scale / 10));
            compare("dbias", r->dbias, p->dbias, V, 2e-6 * fmax(1, scale / 10));
        }
    }
    free(p);
    free(r);
}
