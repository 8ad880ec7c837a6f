/* The selftest of ops: what must fail does. */
#include "graph/selftest.h"
#include "toolbox.h"

static bool never(const struct node *node) {
    (void)node;
    return false;
}

static void nothing(const struct op_run *run) { (void)run; }

/* Runs the cases of one op with one kernel; the number of failed checks. */
static int failures(struct kernel kernel, int *passed) {
    const struct kernel file[] = {kernel, {.op = NULL}};
    const struct kernel *const files[] = {file, NULL};
    const struct backend backend = {.name = "test", .files = files, .runs = true};
    struct selftest test = {.ops = ops_table(), .backend = &backend};
    struct cb_err err = {0};
    CHECK_OK(pool_create(&test.pool, 1, &err));
    CHECK_OK(selftest_op(&test, op_find(ops_table(), kernel.op), &err));
    pool_destroy(&test.pool);
    if (passed) *passed = test.n_passed;
    return test.n_failed;
}

TEST(selftest, a_kernel_that_accepts_no_case_fails) {
    int with, without;
    CHECK(failures((struct kernel){.op = "add", .name = "none", .accepts = never, .run = nothing}, &with) == 1, "wanted one failure");
    CHECK(failures((struct kernel){.op = "add", .name = "foreign", .cpu = 1u << 31, .run = nothing}, &without) == 0, "wanted none");
    CHECK(with == without, "%d checks with a kernel that never ran, %d without", with, without);
}

TEST(selftest, a_wrong_kernel_fails) {
    CHECK(failures((struct kernel){.op = "add", .name = "idle", .run = nothing}, NULL) > 0, "add: nothing was noticed");
    CHECK(failures((struct kernel){.op = "batch_norm", .name = "idle", .run = nothing}, NULL) > 0, "batch_norm: nothing was noticed");
}

/* Right between two buffers, wrong where the output is the input. */
static void square_late(const struct op_run *run) {
    const int64_t n = type_elements(&run->node->out[0]->type);
    const float *x = run->in[0];
    float *y = run->out[0];
    for (int64_t i = 0; i < n; i++) y[i] = 0;
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * x[i];
}

static bool f32_only(const struct node *node) { return node->out[0]->type.dtype == CB_DTYPE_F32; }

TEST(selftest, a_kernel_that_is_wrong_in_place_fails) {
    int passed;
    const int failed = failures((struct kernel){.op = "square", .name = "late", .accepts = f32_only, .run = square_late}, &passed);
    CHECK(failed > 0 && passed > failed, "%d failed, %d passed", failed, passed);
}
