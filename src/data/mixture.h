/* Which of several data sets each row of a run is of: drawn anew for every row, a pure function of seed and row. */
#ifndef DATA_MIXTURE_H
#define DATA_MIXTURE_H
#include <stdint.h>

#include "base/err.h"

#define MIXTURE_EQUAL 0.0  // the exponent of equal shares

struct mixture;

/* Set i is drawn with a share of size[i]^exponent: 1 in proportion to sizes, 1 / T by temperature T. Sizes and n at least 1. Owned by caller, free with
   mixture_destroy. */
enum cb_status mixture_create(struct mixture **mixture, const int64_t *size, int n, double exponent, uint64_t seed, struct cb_err *err);
void mixture_destroy(struct mixture **mixture);
double mixture_share(const struct mixture *mixture, int set);
/* The set of row `row` >= 0, and how many rows before it were of that set. Rows in order cost one draw each; going back costs all draws before. */
void mixture_row(struct mixture *mixture, int64_t row, int *set, int64_t *index);
#endif
