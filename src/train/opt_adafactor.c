/* Adafactor (Shazeer and Stern, ICML 2018): the second moments of a matrix are kept as one factor a row and one a column. */
#include <math.h>

#include "base/cpuid.h"
#include "train/opt.h"

enum { EPS1, EPS2, CLIP, DECAY_RATE, BETA1, SCALE_PARAMETER, RELATIVE_STEP, WARMUP_INIT };
enum { ROW, COLUMN, MOMENT };  // ROW holds the whole second moment where there is no matrix

/* The last two axes as matrices; a vector is one row that is not factored. */
struct matrices {
    int64_t n, rows, columns;
    bool is_factored;
};

static struct matrices matrices_of(const struct cb_type *type) {
    struct matrices m = {.n = 1, .rows = 1, .columns = type->rank ? type->dim[type->rank - 1] : 1, .is_factored = type->rank >= 2};
    if (m.is_factored) m.rows = type->dim[type->rank - 2];
    for (int i = 0; i < type->rank - 2; i++) m.n *= type->dim[i];
    return m;
}

static int n_states(const double *option) { return option[BETA1] > 0 ? 3 : 2; }

static bool state_type(const struct cb_type *param, int state, struct cb_type *type) {
    *type = *param;
    if (state == MOMENT || (param->rank < 2 && state == ROW)) return true;
    if (param->rank < 2) return false;
    type->rank--;
    if (state == COLUMN) type->dim[type->rank - 1] = param->dim[param->rank - 1];
    return true;
}

/* One step on one matrix: gradient factor, decays, the mean of its row factors. */
struct pass {
    struct matrices m;
    float *p, *row, *column, *moment;
    const float *g;
    float grad_scale, keep2, fresh2, eps, row_mean, step, beta1, keep;
};

/* Row sums of g^2 + eps; columns gather their means. */
CPU_CLONES static float gather_row(const float *g, float *column, int64_t n, float scale, float eps, float share) {
    float lane[16] = {0}, total = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) {
            float d = g[i + k] * scale, square = d * d + eps;
            lane[k] += square;
            column[i + k] += share * square;
        }
    for (; i < n; i++) {
        float d = g[i] * scale, square = d * d + eps;
        total += square;
        column[i] += share * square;
    }
    for (int k = 0; k < 16; k++) total += lane[k];
    return total;
}

static void gather(struct pass *a) {
    double sum = 0;
    for (int64_t j = 0; j < a->m.columns; j++) a->column[j] *= a->keep2;
    for (int64_t i = 0; i < a->m.rows; i++) {
        float total = gather_row(a->g + i * a->m.columns, a->column, a->m.columns, a->grad_scale, a->eps, a->fresh2 / (float)a->m.rows);
        a->row[i] = a->keep2 * a->row[i] + a->fresh2 * total / (float)a->m.columns;
        sum += (double)a->row[i];
    }
    a->row_mean = (float)(sum / (double)a->m.rows);
}

static void gather_vector(const struct pass *a) {
    for (int64_t j = 0; j < a->m.columns; j++) {
        float d = a->g[j] * a->grad_scale;
        a->row[j] = a->keep2 * a->row[j] + a->fresh2 * (d * d + a->eps);
    }
}

/* The update before its clipping; second is the second moment of its column, factor 1/sqrt of its row's share. */
static inline float raw(float g, float grad_scale, float factor, float second) { return g * grad_scale * factor / sqrtf(second); }

static float row_factor(const struct pass *a, int64_t i) { return a->m.is_factored ? 1 / sqrtf(a->row[i] / a->row_mean) : 1; }

CPU_CLONES static double row_squares(const float *g, const float *second, int64_t n, float grad_scale, float factor) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        float u = raw(g[i], grad_scale, factor, second[i]);
        total += (double)(u * u);
    }
    return total;
}

CPU_CLONES static void row_update(float *p, const float *g, const float *second, float *moment, int64_t n, float grad_scale, float factor,
                                  const struct pass *a) {
    for (int64_t i = 0; i < n; i++) {
        float u = a->step * raw(g[i], grad_scale, factor, second[i]);
        if (moment) u = moment[i] = a->beta1 * moment[i] + (1 - a->beta1) * u;
        p[i] = p[i] * a->keep - u;
    }
}

static double squares(const float *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += (double)x[i] * x[i];
    return total;
}

/* The matrix that pass k of the tensor works on. */
static struct pass matrix_at(const struct pass *a, int64_t k) {
    struct pass b = *a;
    int64_t at = k * a->m.rows * a->m.columns;
    b.p += at;
    b.g += at;
    if (b.moment) b.moment += at;
    if (a->m.is_factored) {
        b.row += k * a->m.rows;
        b.column += k * a->m.columns;
        double sum = 0;
        for (int64_t i = 0; i < a->m.rows; i++) sum += (double)b.row[i];
        b.row_mean = (float)(sum / (double)a->m.rows);
    } else {
        b.column = b.row;
    }
    return b;
}

static void update_tensor(const struct opt_range *r, const struct cb_type *type) {
    const double *o = r->option;
    double t = (double)r->step, beta2 = 1 - pow(t, o[DECAY_RATE]), lr = r->lr, total = 0;
    struct pass a = {.m = matrices_of(type),
                     .p = r->param,
                     .g = r->grad,
                     .row = r->state[ROW],
                     .column = r->state[COLUMN],
                     .moment = r->state[MOMENT],
                     .grad_scale = (float)r->grad_scale,
                     .keep2 = (float)beta2,
                     .fresh2 = (float)(1 - beta2),
                     .eps = (float)o[EPS1],
                     .beta1 = (float)o[BETA1]};
    int64_t elements = a.m.n * a.m.rows * a.m.columns;
    if (elements == 0) return;
    if (o[RELATIVE_STEP] != 0) lr = fmin(o[WARMUP_INIT] != 0 ? 1e-6 * t : 1e-2, 1 / sqrt(t));
    if (o[SCALE_PARAMETER] != 0) lr *= fmax(o[EPS2], sqrt(squares(r->param, elements) / (double)elements));
    for (int64_t k = 0; k < a.m.n; k++) {
        struct pass b = matrix_at(&a, k);
        if (a.m.is_factored)
            gather(&b);
        else
            gather_vector(&b);
        for (int64_t i = 0; i < a.m.rows; i++)
            total += row_squares(b.g + i * a.m.columns, b.column, a.m.columns, a.grad_scale, row_factor(&b, i));
    }
    a.step = (float)(lr / fmax(1, sqrt(total / (double)elements) / o[CLIP]));
    a.keep = (float)(1 - r->weight_decay * lr);
    for (int64_t k = 0; k < a.m.n; k++) {
        struct pass b = matrix_at(&a, k);
        for (int64_t i = 0; i < a.m.rows; i++) {
            int64_t at = i * a.m.columns;
            row_update(b.p + at, b.g + at, b.column, b.moment ? b.moment + at : NULL, a.m.columns, a.grad_scale, row_factor(&b, i), &a);
        }
    }
}

const struct optimizer optimizer_adafactor = {
    .name = "adafactor",
    .doc = "p = p (1 - lr wd) - lr u / max(1, rms(u) / clip), u = g / sqrt(row x column factors of g^2) (Shazeer and Stern, 2018).",
    .options = {{"eps1", 1e-30, 0, 1},
                {"eps2", 1e-3, 0, 1},
                {"clip", 1, 1e-6, 1e6},
                {"decay_rate", -0.8, -10, 0},
                {"beta1", 0, 0, 0.999999},
                {"scale_parameter", 0, 0, 1},
                {"relative_step", 0, 0, 1},
                {"warmup_init", 0, 0, 1},
                {NULL, 0, 0, 0}},
    .n_states = n_states,
    .state_names = {"exp_avg_sq_row", "exp_avg_sq_col", "exp_avg"},
    .state_type = state_type,
    .update_tensor = update_tensor,
};
