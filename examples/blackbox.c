/* A learned part inside an ordinary program: nobody says what that part should return, only what the whole program should.

   A haulier's quote adds up an order's lines by weight class, looks a zone up in a table, rounds to 5 cents and never falls below a floor: plain C
   with branches, tables and rounding. Two numbers in it, the margin and the handling fee, used to be constants. Here they come from a small function
   of the order, declared by its parameters and body, and trained in place from orders whose right final price is known.

   The program around the function has no derivative that anybody wrote down, and needs none: its slope in those two numbers is measured by calling
   it a few times more. The engine carries the slope on into every parameter of the function.

   blackbox            trains, prints how far the quotes are off before and after, and goes on to quote */
#include <math.h>

#include "example.h"

enum { LINES = 3, FEATURES = 4, ADJUSTED = 2 };

struct order {
    double weight[LINES]; /* kg a line, 0: none */
    int zone; /* 0 to 3 */
    bool is_fragile;
};

/* ---- the program: what was there before, with two numbers that are not constants any more */
static double quote(const struct order *order, double margin, double handling) {
    static const double zone_rate[4] = {1.0, 1.15, 1.4, 1.9};
    double cost = 0;
    for (int i = 0; i < LINES; i++) {
        double w = order->weight[i];
        if (w > 0) cost += w < 5 ? 6 : w < 20 ? 11 : 11 + 0.4 * (w - 20);
    }
    double price = cost * zone_rate[order->zone] * (1 + margin) + handling;
    if (price < 9) price = 9;
    return round(price * 20) / 20;
}

/* ---- the learned part: (weight, lines, zone, fragile) to (margin, handling) */
struct adjuster {
    struct cb_function *f;
    float *features, *adjusted, *slope; /* the function's own memory */
};

static struct adjuster adjuster_create(struct cb_engine *engine) {
    struct cb_err err = {0};
    struct adjuster a = {0};
    check(cb_function_create(&a.f, engine, &err), &err);
    struct cb_tensor *x = cb_input(a.f, "features", CB_DTYPE_F32, 2, (int64_t[]){1, FEATURES});
    struct cb_tensor *slope = cb_input(a.f, "slope", CB_DTYPE_F32, 2, (int64_t[]){1, ADJUSTED});
    struct cb_tensor *h = cb_unary(a.f, "tanh", cb_linear(a.f, "hidden", x, 16));
    struct cb_tensor *y = cb_linear(a.f, "out", h, ADJUSTED);
    cb_output(a.f, "adjusted", y);
    // the derivative of this sum in y is the slope: so the program's slope reaches the parameters
    cb_loss(a.f, cb_unary(a.f, "sum", cb_binary(a.f, "mul", y, slope)));
    check(cb_function_compile(a.f, &(struct cb_compile_options){.lr = 0.003}, &err), &err);
    a.features = cb_floats(a.f, "features");
    a.adjusted = cb_floats(a.f, "adjusted");
    a.slope = cb_floats(a.f, "slope");
    return a;
}

static void describe(const struct order *order, float *feature) {
    double weight = 0;
    int lines = 0;
    for (int i = 0; i < LINES; i++) weight += order->weight[i], lines += order->weight[i] > 0;
    feature[0] = (float)weight / 50;
    feature[1] = (float)lines / LINES;
    feature[2] = (float)order->zone / 3;
    feature[3] = order->is_fragile;
}

/* The whole program: an order in, a price out. A run takes less than a microsecond. */
static double price(struct adjuster *a, const struct order *order) {
    struct cb_err err = {0};
    describe(order, a->features);
    check(cb_function_run(a->f, &err), &err);
    return quote(order, (double)a->adjusted[0], 10 * (double)a->adjusted[1]);
}

/* One example: moves the function so that the program's price comes nearer to the wanted one. Returns the error before. */
static double learn(struct adjuster *a, const struct order *order, double wanted) {
    struct cb_err err = {0};
    double off = price(a, order) - wanted;
    // slope of off^2 / 200 in both numbers, over steps that are wider than the rounding
    for (int i = 0; i < ADJUSTED; i++) {
        double step = 0.05, at[2][ADJUSTED];
        for (int side = 0; side < 2; side++)
            for (int k = 0; k < ADJUSTED; k++) at[side][k] = (double)a->adjusted[k] + (k == i ? (side ? step : -step) : 0);
        double rise = quote(order, at[1][0], 10 * at[1][1]) - quote(order, at[0][0], 10 * at[0][1]);
        a->slope[i] = (float)(off / 100 * rise / (2 * step));
    }
    check(cb_function_train(a->f, NULL, &err), &err);
    return off;
}

/* ---- examples: orders, and what an experienced clerk charged (his rule is known to nobody else) */
static struct order draw_order(void) {
    struct order o = {.zone = rand() % 4, .is_fragile = rand() % 4 == 0};
    int lines = 1 + rand() % LINES;
    for (int i = 0; i < lines; i++) o.weight[i] = 1 + 40 * (double)uniform();
    return o;
}

static double clerk(const struct order *o) {
    double weight = o->weight[0] + o->weight[1] + o->weight[2];
    double margin = (o->is_fragile ? 0.35 : 0.2) - 0.1 * (weight > 60) + 0.05 * (o->zone == 3);
    return quote(o, margin, o->is_fragile ? 7.5 : 2.5);
}

/* Mean difference to the clerk's prices over fresh orders. */
static double mean_off(struct adjuster *a) {
    double sum = 0;
    int n = 2000;
    for (int i = 0; i < n; i++) {
        struct order o = draw_order();
        sum += fabs(price(a, &o) - clerk(&o));
    }
    return sum / n;
}

int main(void) {
    struct cb_err err = {0};
    struct cb_engine *engine;
    check(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 1}, &err), &err);
    struct adjuster a = adjuster_create(engine);
    double before = mean_off(&a), begin = now_us();
    int examples = 40000;
    for (int i = 0; i < examples; i++) {
        if (i == examples / 2) cb_function_set_lr(a.f, 0.0005);
        struct order o = draw_order();
        learn(&a, &o, clerk(&o));
    }
    double each = (now_us() - begin) / examples, after = mean_off(&a);
    printf("mean difference to the right price: %.2f before, %.2f after %d examples (%.1f us each)\n", before, after, examples, each);
    // and the program goes on with its day
    for (int i = 0; i < 3; i++) {
        struct order o = draw_order();
        printf("quote: %6.2f   clerk: %6.2f\n", price(&a, &o), clerk(&o));
    }
    bool is_learned = after < before / 4;
    cb_function_destroy(&a.f);
    cb_engine_destroy(&engine);
    return is_learned ? 0 : 1;
}
