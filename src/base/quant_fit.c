/* The search for scales of small integers: candidates around the one that just reaches the extreme value; given the levels that a candidate rounds
   to, the best scale is a weighted least-squares solution. Large values weigh more, since what they miss is seen more. */
#include "base/quant_fit.h"

#include <math.h>

#include "base/quant.h"

enum { MOST = 32, TRIES = 10 };

float quant_fit_signed(const float *x, int n, int half) {
    float extreme = quant_extreme(x, n), best = 0;
    double best_gain = 0;
    if (!(fabsf(extreme) > 0) || isinf(extreme)) return 0;
    // the extreme lands at -half, or up to one level beside it
    for (int t = -TRIES; t <= TRIES; t++) {
        float to_level = -((float)half + 0.1f * (float)t) / extreme;
        double xq = 0, qq = 0;
        if (!isfinite(to_level)) continue;
        for (int i = 0; i < n; i++) {
            double level = quant_round(x[i] * to_level, -half, half - 1), weight = (double)x[i] * x[i];
            xq += weight * x[i] * level;
            qq += weight * level * level;
        }
        // of s = xq / qq: the error is a constant less xq^2 / qq
        if (qq > 0 && xq * xq > best_gain * qq) {
            best_gain = xq * xq / qq;
            best = (float)(xq / qq);
        }
    }
    return best;
}

/* Weighted error of scale and low with the levels that they round to; the least-squares scale and low for these levels into *next. */
struct line {
    double scale, low;
};
static double line_try(const float *x, const double *weight, int n, int top, struct line line, struct line *next) {
    double w = 0, wx = 0, wq = 0, wxq = 0, wqq = 0, error = 0;
    float to_level = quant_inverse((float)line.scale);
    for (int i = 0; i < n; i++) {
        double level = quant_round((float)((x[i] + line.low) * to_level), 0, top), miss = line.scale * level - line.low - x[i];
        error += weight[i] * miss * miss;
        w += weight[i];
        wx += weight[i] * x[i];
        wq += weight[i] * level;
        wxq += weight[i] * x[i] * level;
        wqq += weight[i] * level * level;
    }
    double determinant = w * wqq - wq * wq;
    *next = line;
    if (determinant > 0) {
        next->scale = (w * wxq - wx * wq) / determinant;
        next->low = (wq * next->scale - wx) / w;
        // a minimum above 0 cannot be held
        if (next->low < 0) next->low = 0, next->scale = wqq > 0 ? wxq / wqq : 0;
        if (next->scale < 0) *next = line;
    }
    return error;
}

float quant_fit_offset(const float *x, int n, int top, float *low) {
    double weight[MOST], squares = 0, best_error = INFINITY;
    float least = 0, high = 0;
    struct line best = {0}, next;
    for (int i = 0; i < n; i++) {
        if (x[i] < least) least = x[i];
        if (x[i] > high) high = x[i];
        squares += (double)x[i] * x[i];
    }
    *low = -least;
    if (!(high > least) || !isfinite(high - least)) return 0;
    const double usual = sqrt(squares / n);
    for (int i = 0; i < n; i++) weight[i] = usual + fabs((double)x[i]);
    for (int t = -TRIES; t <= TRIES; t++) {
        struct line line = {((double)high - least) / (top + 0.1 * t), -(double)least};
        // twice: the levels of a better line may be better still
        for (int round = 0; round < 3; round++, line = next) {
            double error = line_try(x, weight, n, top, line, &next);
            if (error < best_error) best_error = error, best = line;
        }
    }
    *low = (float)best.low;
    return (float)best.scale;
}
