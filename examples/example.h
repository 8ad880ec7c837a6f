/* What the examples share: leaving with a message, random numbers, and the timing of --bench. */
#ifndef EXAMPLES_EXAMPLE_H
#define EXAMPLES_EXAMPLE_H
#include <cambium/graph.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Leaves the program where a call failed. */
static inline void check(enum cb_status status, const struct cb_err *err) {
    if (status == CB_OK) return;
    fprintf(stderr, "error: %s (%s)\n", err->message, cb_status_text(status));
    exit(1);
}

/* Uniform in [0, 1), and normal enough for an example: the sum of 12 uniforms. */
static inline float uniform(void) { return (float)rand() / ((float)RAND_MAX + 1); }
static inline float normal(void) {
    float sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform();
    return sum;
}

static inline bool has_flag(int argc, char **argv, const char *flag) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], flag) == 0) return true;
    return false;
}

/* An engine on all cores, or on --threads N. */
static inline struct cb_engine *make_engine(int argc, char **argv) {
    struct cb_err err = {0};
    struct cb_engine_options options = {0};
    struct cb_engine *engine;
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--threads") == 0) options.threads = atoi(argv[i + 1]);
    check(cb_engine_create(&engine, &options, &err), &err);
    return engine;
}

static inline double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static inline int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median time of n training steps, and of n runs, after 20 warm-up steps; one line, as JSON or for people. */
static inline void bench(struct cb_function *f, const char *name, int n, bool json, bool profile) {
    struct cb_err err = {0};
    double *t = malloc((size_t)n * sizeof *t), median[2];
    if (!t) exit(1);
    for (int i = 0; i < 20; i++) check(cb_function_train(f, NULL, &err), &err);
    cb_function_profile(f, profile);
    for (int mode = 0; mode < 2; mode++) {
        for (int i = 0; i < n; i++) {
            double begin = now_us();
            check(mode == 0 ? cb_function_train(f, NULL, &err) : cb_function_run(f, &err), &err);
            t[i] = now_us() - begin;
        }
        qsort(t, (size_t)n, sizeof *t, compare_doubles);
        median[mode] = n % 2 ? t[n / 2] : (t[n / 2 - 1] + t[n / 2]) / 2;
    }
    free(t);
    printf(json ? "{\"case\": \"%s\", \"step_us\": %.2f, \"forward_us\": %.2f}\n" : "%-26s %10.2f us a training step %10.2f us a run\n",
           name, median[0], median[1]);
    if (!profile) return;
    char *text;
    check(cb_function_profile_report(f, &text, &err), &err);
    fputs(text, stdout);
    cb_free(text);
}
#endif
