/* Scales of least weighted squared error for a few values that are held as small integers: a search over candidates, each refined by least squares. */
#ifndef BASE_QUANT_FIT_H
#define BASE_QUANT_FIT_H

/* Scale s of x[i] = s * level, levels -half to half - 1; of either sign, 0 where all are 0. n <= 32. */
float quant_fit_signed(const float *x, int n, int half);
/* Scale s >= 0 and *low >= 0 of x[i] = s * level - low, levels 0 to top. n <= 32. */
float quant_fit_offset(const float *x, int n, int top, float *low);
#endif
