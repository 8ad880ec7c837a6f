/* LAPACK through its C interface. */
#include "base/lapack.h"

#include <lapacke.h>
#include <stdlib.h>
#include <string.h>

static enum cb_status judge(lapack_int info, const char *what, const char *name, struct cb_err *err) {
    if (info == LAPACK_WORK_MEMORY_ERROR || info == LAPACK_TRANSPOSE_MEMORY_ERROR)
        FAIL(err, CB_E_MEMORY, "%s: no memory for %s", name, what);
    if (info) FAIL(err, CB_E_NUMERIC, "%s: %s failed (%d)", name, what, (int)info);
    return CB_OK;
}

static enum cb_status check_sides(int64_t m, int64_t n, const char *name, struct cb_err *err) {
    if (m < 1 || n < 1 || m > INT32_MAX || n > INT32_MAX)
        FAIL(err, CB_E_SHAPE, "%s: a matrix of %lld by %lld; wanted sides from 1 on", name, (long long)m, (long long)n);
    return CB_OK;
}

enum cb_status lapack_svd(double *a, int64_t m, int64_t n, double *u, double *s, double *vt, const char *name, struct cb_err *err) {
    const lapack_int k = (lapack_int)(m < n ? m : n);
    TRY(check_sides(m, n, name, err));
    // a row-major matrix is its transpose by columns: a' = v s u', so u and vt change places and nothing is copied
    return judge(LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', (lapack_int)n, (lapack_int)m, a, (lapack_int)n, s, vt, (lapack_int)n, u, k),
                 "singular values", name, err);
}

enum cb_status lapack_orthonormal(double *b, double *upper, int64_t m, int64_t r, const char *name, struct cb_err *err) {
    TRY(check_sides(m, r, name, err));
    if (r > m) FAIL(err, CB_E_SHAPE, "%s: %lld orthonormal columns of %lld rows", name, (long long)r, (long long)m);
    double *tau = malloc((size_t)r * sizeof *tau);
    if (!tau) FAIL(err, CB_E_MEMORY, "%s: no memory to decompose it", name);
    lapack_int info = LAPACKE_dgeqrf(LAPACK_ROW_MAJOR, (lapack_int)m, (lapack_int)r, b, (lapack_int)r, tau);
    for (int64_t i = 0; upper && i < r && !info; i++)
        for (int64_t j = 0; j < r; j++) upper[i * r + j] = j < i ? 0 : b[i * r + j];
    if (!info) info = LAPACKE_dorgqr(LAPACK_ROW_MAJOR, (lapack_int)m, (lapack_int)r, (lapack_int)r, b, (lapack_int)r, tau);
    free(tau);
    return judge(info, "orthogonal factors", name, err);
}

/* c(m,n) = a(m,k) b(k,n), b read by columns where transposed (b is (n,k)). */
static void multiply(double *c, const double *a, const double *b, int64_t m, int64_t k, int64_t n, bool transposed) {
    memset(c, 0, (size_t)(m * n) * sizeof *c);
    for (int64_t i = 0; i < m; i++)
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < n; j++) c[i * n + j] += a[i * k + p] * (transposed ? b[j * k + p] : b[p * n + j]);
}

/* b = qb rb, a' = qa ra: b a = qb (rb ra') qa', and the middle is small. work: at(n,r), two triangles, the middle, its u, vt. */
static enum cb_status product(double *b, double *a, int64_t m, int64_t r, int64_t n, double *u, double *s, double *vt, double *work,
                              const char *name, struct cb_err *err) {
    double *at = work, *rb = at + n * r, *ra = rb + r * r, *middle = ra + r * r, *mu = middle + r * r, *mvt = mu + r * r;
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = 0; j < n; j++) at[j * r + i] = a[i * n + j];
    TRY(lapack_orthonormal(b, rb, m, r, name, err));
    TRY(lapack_orthonormal(at, ra, n, r, name, err));
    multiply(middle, rb, ra, r, r, r, true);
    TRY(lapack_svd(middle, r, r, mu, s, mvt, name, err));
    multiply(u, b, mu, m, r, r, false);
    multiply(vt, mvt, at, r, r, n, true);
    return CB_OK;
}

enum cb_status lapack_svd_product(double *b, double *a, int64_t m, int64_t r, int64_t n, double *u, double *s, double *vt, const char *name,
                                  struct cb_err *err) {
    TRY(check_sides(m, r, name, err));
    TRY(check_sides(r, n, name, err));
    if (r > m || r > n)
        FAIL(err, CB_E_SHAPE, "%s: rank %lld of a product of %lld by %lld; wanted at most its sides", name, (long long)r, (long long)m,
             (long long)n);
    double *work = malloc((size_t)(n * r + 5 * r * r) * sizeof *work);
    if (!work) FAIL(err, CB_E_MEMORY, "%s: no memory to decompose it", name);
    enum cb_status status = product(b, a, m, r, n, u, s, vt, work, name, err);
    free(work);
    return status;
}

/* b(n,m) = a(m,n)'. */
static void transpose(double *b, const double *a, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) b[j * m + i] = a[i * n + j];
}

/* The lower triangle of g(n,n) = a' a, four rows at a time. */
static void gram(double *g, const double *a, int64_t m, int64_t n) {
    memset(g, 0, (size_t)(n * n) * sizeof *g);
    for (int64_t i = 0; i < n; i += 4) {
        const int64_t end = n - i < 4 ? n : i + 4;
        for (int64_t p = 0; p < m; p++)
            for (int64_t k = i; k < end; k++)
                for (int64_t j = 0; j < end; j++) g[k * n + j] += a[p * n + k] * a[p * n + j];
    }
}

/* Of a(m,n), n at most m: eigenvectors of a' a span the space of the vectors sought, in which a is small and decomposed by itself (Rayleigh and Ritz).
   work: a' a, its eigenvalues, its eigenvectors (r,n) and (n,r), their product with a (m,r). */
static enum cb_status svd_first(const double *a, int64_t m, int64_t n, int64_t r, double *u, double *s, double *vt, double *work,
                                lapack_int *support, const char *name, struct cb_err *err) {
    double *g = work, *values = g + n * n, *rows = values + n, *columns = rows + r * n, *low = columns + r * n;
    const lapack_int side = (lapack_int)n;
    lapack_int found;
    gram(g, a, m, n);
    // the lower triangle of a row-major matrix is the upper one by columns; each eigenvector is a row
    TRY(judge(LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'U', side, g, side, 0, 0, side - (lapack_int)r + 1, side, 0, &found, values, rows,
                             side, support),
              "singular values", name, err));
    transpose(columns, rows, r, n);
    multiply(low, a, columns, m, n, r, false);
    return lapack_svd_product(low, rows, m, r, n, u, s, vt, name, err);
}

enum cb_status lapack_svd_first(const double *a, int64_t m, int64_t n, int64_t r, double *u, double *s, double *vt, const char *name,
                                struct cb_err *err) {
    const int64_t longer = m > n ? m : n, k = m < n ? m : n;
    const bool is_wide = m < n;
    TRY(check_sides(m, n, name, err));
    if (r < 1 || r > k)
        FAIL(err, CB_E_SHAPE, "%s: %lld singular values of a matrix of %lld by %lld; wanted 1 to its shorter side", name, (long long)r,
             (long long)m, (long long)n);
    double *work = malloc((size_t)(k * k + k + 2 * r * k + longer * r) * sizeof *work), *tall = NULL, *left = NULL;
    lapack_int *support = malloc(2 * (size_t)k * sizeof *support);
    if (is_wide) tall = calloc((size_t)(m * n), sizeof *tall), left = malloc((size_t)(longer * r + r * k) * sizeof *left);
    enum cb_status status = CB_OK;
    if (!work || !support || (is_wide && (!tall || !left)))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to decompose it", name);
    else if (!is_wide)
        status = svd_first(a, m, n, r, u, s, vt, work, support, name, err);
    else {
        // a' = v s u'
        transpose(tall, a, m, n);
        status = svd_first(tall, n, m, r, left, s, left + longer * r, work, support, name, err);
        transpose(vt, left, n, r);
        transpose(u, left + longer * r, r, m);
    }
    free(work), free(support), free(tall), free(left);
    return status;
}

enum cb_status lapack_solve_spd(double *a, double *b, int64_t n, int64_t m, const char *name, struct cb_err *err) {
    TRY(check_sides(n, m, name, err));
    return judge(LAPACKE_dposv(LAPACK_ROW_MAJOR, 'U', (lapack_int)n, (lapack_int)m, a, (lapack_int)n, b, (lapack_int)m),
                 "a linear equation", name, err);
}
