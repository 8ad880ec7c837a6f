/* Shares of data sets, rows that can be asked for in any order. */
#include <math.h>

#include "../harness.h"
#include "data/mixture.h"

TEST(mixture, shares_follow_sizes_and_temperature) {
    static const int64_t size[] = {10, 90, 900};
    static const struct {
        double exponent, share[3];
    } rows[] = {{1, {0.01, 0.09, 0.9}}, {MIXTURE_EQUAL, {1 / 3.0, 1 / 3.0, 1 / 3.0}}, {0.5, {0.0741, 0.2224, 0.7034}}};
    enum { ROWS = 20000 };
    for (int i = 0; i < 3; i++) {
        struct cb_err err = {0};
        struct mixture *m;
        int64_t count[3] = {0};
        CHECK_OK(mixture_create(&m, size, 3, rows[i].exponent, 7, &err));
        for (int64_t r = 0; r < ROWS; r++) {
            int set = -1;
            int64_t index = -1;
            mixture_row(m, r, &set, &index);
            CHECK(set >= 0 && set < 3 && index == count[set], "row %lld: set %d, index %lld", (long long)r, set, (long long)index);
            count[set]++;
        }
        for (int k = 0; k < 3; k++) {
            const double p = rows[i].share[k], deviation = sqrt(p * (1 - p) / ROWS);
            CHECK(fabs(mixture_share(m, k) - p) < 1e-3, "share %g, wanted %g", mixture_share(m, k), p);
            CHECK(fabs((double)count[k] / ROWS - p) < 5 * deviation + 1e-3, "%lld of %d, wanted %g", (long long)count[k], ROWS, p);
        }
        mixture_destroy(&m);
    }
}

TEST(mixture, a_row_is_the_same_whatever_came_before) {
    static const int64_t size[] = {5, 20};
    struct cb_err err = {0};
    struct mixture *m, *other;
    int set[3], sets[200];
    int64_t index[3], indices[200];
    CHECK_OK(mixture_create(&m, size, 2, 1, 3, &err));
    CHECK_OK(mixture_create(&other, size, 2, 1, 3, &err));
    for (int r = 0; r < 200; r++) mixture_row(m, r, &sets[r], &indices[r]);
    static const int64_t asked[] = {150, 3, 199};
    for (int i = 0; i < 3; i++) {
        mixture_row(other, asked[i], &set[i], &index[i]);
        CHECK(set[i] == sets[asked[i]] && index[i] == indices[asked[i]], "row %lld", (long long)asked[i]);
    }
    mixture_destroy(&m);
    mixture_destroy(&other);
}

TEST(mixture, wrong_sizes_are_refused) {
    static const int64_t none[] = {4, 0};
    struct cb_err err = {0};
    struct mixture *m;
    CHECK_FAILS(mixture_create(&m, none, 2, 1, 0, &err), CB_E_ARGUMENT, "set 1 has 0 rows");
    CHECK_FAILS(mixture_create(&m, none, 0, 1, 0, &err), CB_E_ARGUMENT, "0 sets");
    CHECK_FAILS(mixture_create(&m, none, 1, NAN, 0, &err), CB_E_ARGUMENT, "exponent");
    CHECK(!m, "a mixture was made");
}
