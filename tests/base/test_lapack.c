/* The first singular values and vectors alone beside the whole decomposition. */
#include <math.h>
#include <string.h>

#include "base/lapack.h"
#include "base/rng.h"
#include "harness.h"

enum { SHORT = 9, LONG = 14, FIRST = 4 };

/* Values fall by `fall` each; tall or wide. The rank-r part is compared: signs of vectors are anybody's. */
static void check_first(int64_t m, int64_t n, double fall, uint64_t seed) {
    struct cb_err err = {0};
    double a[LONG * SHORT], kept[LONG * SHORT], u[LONG * SHORT], s[SHORT], vt[LONG * SHORT], fu[LONG * FIRST], fs[FIRST], fvt[FIRST * LONG];
    struct rng rng = rng_make(seed, 0);
    for (int i = 0; i < m * n; i++) a[i] = rng_normal(&rng);
    CHECK_OK(lapack_svd(a, m, n, u, s, vt, "a", &err));
    for (int64_t i = 0; i < m * n; i++) {
        a[i] = 0;
        for (int k = 0; k < SHORT; k++) a[i] += u[i / n * SHORT + k] * pow(fall, k) * vt[k * n + i % n];
    }
    memcpy(kept, a, sizeof a);
    CHECK_OK(lapack_svd_first(a, m, n, FIRST, fu, fs, fvt, "a", &err));
    CHECK(memcmp(kept, a, sizeof(double) * (size_t)(m * n)) == 0, "the matrix has changed");
    for (int k = 0; k < FIRST; k++)
        CHECK(fabs(fs[k] / pow(fall, k) - 1) < 1e-12, "value %d is %.17g; wanted %.17g", k, fs[k], pow(fall, k));
    for (int64_t i = 0; i < m * n; i++) {
        double first = 0, wanted = 0;
        for (int k = 0; k < FIRST; k++) {
            first += fu[i / n * FIRST + k] * fs[k] * fvt[k * n + i % n];
            wanted += u[i / n * SHORT + k] * pow(fall, k) * vt[k * n + i % n];
        }
        CHECK(fabs(first - wanted) < 1e-9, "element %d is %.12g; wanted %.12g", (int)i, first, wanted);
    }
}

TEST(lapack, first_singular_values) {
    for (uint64_t seed = 0; seed < 3; seed++) {
        check_first(LONG, SHORT, 0.8, seed);
        check_first(SHORT, LONG, 0.8, seed);
        check_first(SHORT, LONG, 0.05, seed);
        check_first(SHORT, SHORT, 0.05, seed);
    }
}

TEST(lapack, first_of_zeros_and_of_too_many) {
    struct cb_err err = {0};
    double a[2 * 3] = {0}, u[4], s[2], vt[6];
    CHECK_OK(lapack_svd_first(a, 2, 3, 2, u, s, vt, "a", &err));
    CHECK(s[0] == 0 && s[1] == 0 && fabs(vt[0] * vt[0] + vt[1] * vt[1] + vt[2] * vt[2] - 1) < 1e-12, "values %g and %g", s[0], s[1]);
    CHECK_FAILS(lapack_svd_first(a, 2, 3, 3, u, s, vt, "a", &err), CB_E_SHAPE, "2 by 3");
    a[1] = NAN;
    CHECK_FAILS(lapack_svd_first(a, 2, 3, 1, u, s, vt, "a", &err), CB_E_NUMERIC, "a: ");
}
