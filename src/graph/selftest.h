/* An op's own cases as tests: every kernel against ref or expansion, gradients against finite differences, second derivatives. */
#ifndef GRAPH_SELFTEST_H
#define GRAPH_SELFTEST_H
#include "graph/plan.h"

struct selftest {
    const struct op_table *ops;
    const struct backend *backend;
    uint32_t cpu_mask;
    struct pool *pool;
    /* Called for each failed check, with one line of text. Nullable. */
    void (*report)(void *context, const char *line);
    void *context;
    int n_passed, n_failed;  // checks, added to
};

/* Runs all cases of one op. Only a failure of the machinery itself (memory) is an error; failed checks are counted. */
enum cb_status selftest_op(struct selftest *test, const struct op *op, struct cb_err *err);
#endif
