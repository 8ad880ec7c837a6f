/* Draws of data sets by size or by temperature (Devlin et al. 2019 on languages; Raffel et al. 2020, section 3.5.2). */
#include "data/mixture.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

struct mixture {
    int n;
    uint64_t seed;
    int64_t next;  // the row that is drawn next
    double *edge;  // upper ends of the sets' parts of [0, 1)
    int64_t *count;  // rows of each set before `next`
};

enum cb_status mixture_create(struct mixture **mixture, const int64_t *size, int n, double exponent, uint64_t seed, struct cb_err *err) {
    *mixture = NULL;
    double sum = 0, largest = 0;
    if (n < 1 || !(exponent >= 0 && exponent <= 1000))
        FAIL(err, CB_E_ARGUMENT, "mixture: found %d sets and exponent %g; wanted one or more, and a number from 0 to 1000", n, exponent);
    for (int i = 0; i < n; i++) {
        if (size[i] < 1) FAIL(err, CB_E_ARGUMENT, "mixture: set %d has %lld rows; wanted one or more", i, (long long)size[i]);
        largest = fmax(largest, (double)size[i]);
    }
    struct mixture *m = calloc(1, sizeof *m);
    if (m) m->edge = calloc((size_t)n, sizeof *m->edge);
    if (m) m->count = calloc((size_t)n, sizeof *m->count);
    if (!m || !m->edge || !m->count) {
        mixture_destroy(&m);
        FAIL(err, CB_E_MEMORY, "mixture: out of memory");
    }
    m->n = n;
    m->seed = seed ^ rng_hash("mixture");
    // sizes over the largest: no power overflows
    for (int i = 0; i < n; i++) m->edge[i] = sum += pow((double)size[i] / largest, exponent);
    for (int i = 0; i < n; i++) m->edge[i] /= sum;
    *mixture = m;
    return CB_OK;
}

void mixture_destroy(struct mixture **mixture) {
    if (!*mixture) return;
    free((*mixture)->edge);
    free((*mixture)->count);
    free(*mixture);
    *mixture = NULL;
}

double mixture_share(const struct mixture *m, int set) { return m->edge[set] - (set ? m->edge[set - 1] : 0); }

void mixture_row(struct mixture *m, int64_t row, int *set, int64_t *index) {
    if (row < m->next) {
        m->next = 0;
        for (int i = 0; i < m->n; i++) m->count[i] = 0;
    }
    for (; m->next <= row; m->next++) {
        struct rng rng = rng_make(m->seed, (uint64_t)m->next);
        const double u = rng_f64(&rng);
        for (*set = 0; *set < m->n - 1 && u >= m->edge[*set];) ++*set;
        *index = m->count[*set]++;
    }
}
