/* Decompositions of dense matrices through LAPACK, in f64, row-major. */
#ifndef BASE_LAPACK_H
#define BASE_LAPACK_H
#include "base/err.h"

/* Thin singular value decomposition a = u diag(s) vt, k = min(m, n), s falling: u(m,k), s(k), vt(k,n). a(m,n) is overwritten. name: for messages. */
enum cb_status lapack_svd(double *a, int64_t m, int64_t n, double *u, double *s, double *vt, const char *name, struct cb_err *err);
/* The first r of them alone, r from 1 to k: u(m,r), s(r), vt(r,n). The space of the vectors is that of eigenvectors of the smaller of a a' and a' a, off by
   values up to sqrt(eps) s(1), less than f32 tells; within it all is exact. a stays as it is. */
enum cb_status lapack_svd_first(const double *a, int64_t m, int64_t n, int64_t r, double *u, double *s, double *vt, const char *name,
                                struct cb_err *err);
/* All of a product b a with b(m,r), a(r,n), r at most m and n, in time linear in m and n: u(m,r), s(r), vt(r,n). b and a are overwritten. */
enum cb_status lapack_svd_product(double *b, double *a, int64_t m, int64_t r, int64_t n, double *u, double *s, double *vt, const char *name,
                                  struct cb_err *err);
/* b = q r: q(m,r) with orthonormal columns takes the place of b(m,r), r at most m; the triangle goes to upper(r,r). Nullable: upper. */
enum cb_status lapack_orthonormal(double *b, double *upper, int64_t m, int64_t r, const char *name, struct cb_err *err);
/* Solves a x = b for symmetric positive definite a(n,n), b(n,m); x takes b's place and a is overwritten. A matrix that is not positive definite is
   CB_E_NUMERIC. */
enum cb_status lapack_solve_spd(double *a, double *b, int64_t n, int64_t m, const char *name, struct cb_err *err);
#endif
