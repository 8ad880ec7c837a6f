/* Builders of ops: readable refusals, text attributes, short cuts, random draws, indices out of range. */
#include "graph/plan.h"
#include "harness.h"
#include "ops/ops.h"

static struct cb_type matrix(int64_t rows, int64_t columns) { return type_make(CB_DTYPE_F32, 2, (int64_t[]){rows, columns}); }

/* Runs g with ref kernels after filling its inputs a (0, 1, 2, ...), index and seed; returns the sum of output "y" and copies it. */
static enum cb_status run(struct cb_graph *g, struct cb_tensor *y, const int32_t *index, int64_t seed, double *out, struct cb_err *err) {
    struct plan_options options = {.n_threads = 1};
    struct plan *plan = NULL;
    struct pool *pool = NULL;
    graph_output(g, y, "y");
    TRY(graph_check(g, err));
    TRY(plan_create(&plan, g, &options, err));
    TRY(pool_create(&pool, 1, err));
    for (int s = 0; s < plan_n_slots(plan); s++) {
        const struct plan_slot *slot = plan_slot(plan, s);
        if (!slot->is_input) continue;
        for (int64_t i = 0; i < type_elements(&slot->type); i++)
            ref_set(slot->type.dtype, plan_data(plan, s), i,
                    !strcmp(slot->name, "index")  ? index[i]
                    : !strcmp(slot->name, "seed") ? (double)seed
                                                  : (double)i);
    }
    enum cb_status status = plan_run(plan, pool, err);
    int slot = plan_find(plan, "y");
    for (int64_t i = 0; status == CB_OK && i < type_elements(&y->type); i++) out[i] = ref_get(y->type.dtype, plan_data(plan, slot), i);
    plan_destroy(&plan);
    pool_destroy(&pool);
    return status;
}

/* One refusal: the graph holds the code, and the message names what was found. */
#define REFUSED(build, wanted_code, word)                                                                     \
    do {                                                                                                      \
        struct cb_graph *g = NULL;                                                                            \
        CHECK_OK(graph_create(&g, ops_table(), &err));                                                        \
        struct cb_tensor *a = graph_input(g, "a", matrix(2, 3)), *b = graph_input(g, "b", matrix(4, 3));      \
        (void)a, (void)b;                                                                                     \
        CHECK(graph_is_bad(g, (build)), "%s was not refused", #build);                                        \
        CHECK(g->err.code == (wanted_code), "%s: code %d (%s)", #build, (int)g->err.code, g->err.message);    \
        CHECK(strstr(g->err.message, (word)), "%s: message '%s' lacks '%s'", #build, g->err.message, (word)); \
        graph_destroy(&g);                                                                                    \
    } while (0)

TEST(op_builders, refuse) {
    struct cb_err err = {0};
    const struct cb_type flags = type_make(CB_DTYPE_BOOL, 2, (int64_t[]){2, 3}), whole = type_make(CB_DTYPE_I32, 2, (int64_t[]){2, 3});
    REFUSED(op_add(g, a, b), CB_E_SHAPE, "f32[4,3]");
    REFUSED(op_add(g, a, graph_input(g, "i", whole)), CB_E_DTYPE, "i32");
    REFUSED(op_unary(g, "exp", graph_input(g, "i", whole)), CB_E_DTYPE, "f32 or f64");
    REFUSED(op_unary(g, "add", a), CB_E_NAME, "add");
    REFUSED(op_compare(g, "like", a, a), CB_E_NAME, "like");
    REFUSED(op_where(g, a, a, a), CB_E_DTYPE, "bool");
    REFUSED(op_sum(g, a, 1, (int64_t[]){2}, false), CB_E_SHAPE, "axis 2");
    REFUSED(op_sum(g, a, 2, (int64_t[]){1, -1}, false), CB_E_SHAPE, "twice");
    REFUSED(op_reduce(g, "median", a, 0, NULL, false), CB_E_NAME, "median");
    REFUSED(op_norm_p(g, a, 0, 0, NULL, false), CB_E_ARGUMENT, "p is 0");
    REFUSED(op_reduce(g, "max", op_slice(g, a, 1, 0, 0, 1), 1, (int64_t[]){1}, false), CB_E_SHAPE, "no elements");
    REFUSED(op_reshape(g, a, 2, (int64_t[]){4, -1}), CB_E_SHAPE, "-1");
    REFUSED(op_reshape(g, a, 2, (int64_t[]){INT64_C(1) << 40, INT64_C(1) << 40}), CB_E_SHAPE, "too many");
    REFUSED(op_reshape(g, a, 1, (int64_t[]){7}), CB_E_SHAPE, "f32[7]");
    REFUSED(op_permute(g, a, 2, (int64_t[]){0, 0}), CB_E_SHAPE, "twice");
    REFUSED(op_expand(g, a, 2, (int64_t[]){2, 4}), CB_E_SHAPE, "f32[2,4]");
    REFUSED(op_slice(g, a, 1, 0, 3, 0), CB_E_SHAPE, "step");
    REFUSED(op_concat(g, 2, (struct cb_tensor *[]){a, b}, 1), CB_E_SHAPE, "part 1");
    REFUSED(op_split(g, a, 1, 2, (int64_t[]){1, 1}), CB_E_SHAPE, "3 wanted");
    REFUSED(op_pad(g, a, "reflect", 0, 2, (int64_t[]){3, 0}), CB_E_SHAPE, "at most 2");
    REFUSED(op_pad(g, a, "wrap", 0, 2, (int64_t[]){1, 0}), CB_E_NAME, "wrap");
    REFUSED(op_gather(g, a, a, 0), CB_E_DTYPE, "i32 or i64");
    REFUSED(op_topk(g, a, 4, 1, true), CB_E_SHAPE, "k 4");
    REFUSED(op_softmax(g, a, 2), CB_E_SHAPE, "axis 2");
    REFUSED(op_layer_norm(g, a, graph_input(g, "w", type_make(CB_DTYPE_F32, 1, (int64_t[]){2})), NULL, 1e-5), CB_E_SHAPE, "weight");
    REFUSED(op_group_norm(g, a, NULL, NULL, 2, 1e-5), CB_E_SHAPE, "3 channels");
    REFUSED(op_batch_norm(g, a, NULL, NULL, b, b, true, 0.1, 1e-5), CB_E_SHAPE, "running_mean");
    REFUSED(op_dropout(g, a, b, 0.5, 1), CB_E_DTYPE, "seed");
    REFUSED(op_masked_fill(g, op_slice(g, a, 0, 0, 1, 1), graph_input(g, "m", flags), 0), CB_E_SHAPE, "mask");
    REFUSED(op_apply(g, "sine", NULL, 1, &a), CB_E_NAME, "sine");
    REFUSED(op_apply(g, "softmax", "axes=1", 1, &a), CB_E_NAME, "axes");
    REFUSED(op_apply(g, "softmax", "axis=one", 1, &a), CB_E_ARGUMENT, "one");
    REFUSED(op_apply(g, "sum", "axes=0:x", 1, &a), CB_E_ARGUMENT, "0:x");
    REFUSED(op_apply(g, "add", NULL, 1, &a), CB_E_ARGUMENT, "missing");
}

TEST(op_builders, text_attributes) {
    struct cb_err err = {0};
    struct cb_graph *g = NULL;
    double out[8];
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *a = graph_input(g, "a", matrix(2, 3));
    struct cb_tensor *all = op_apply(g, "sum", "keep=true", 1, &a), *last = op_apply(g, "sum", "axes=-1", 1, &a);
    CHECK(!graph_is_bad(g, all) && all->type.rank == 2 && all->type.dim[1] == 1, "sum over all axes: %s", g->err.message);
    CHECK_OK(run(g, op_apply(g, "scale", "factor=2,add=0.5", 1, &last), NULL, 0, out, &err));
    CHECK(out[0] == 6.5 && out[1] == 24.5, "%g %g", out[0], out[1]);
    graph_destroy(&g);
}

/* What costs nothing makes no node, or only a view. */
TEST(op_builders, short_cuts) {
    struct cb_err err = {0};
    struct cb_graph *g = NULL;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *a = graph_input(g, "a", type_make(CB_DTYPE_F32, 3, (int64_t[]){2, 1, 3}));
    CHECK(op_reshape(g, a, 3, (int64_t[]){2, -1, 3}) == a && op_scale(g, a, 1, 0) == a && op_cast(g, a, CB_DTYPE_F32) == a,
          "same tensor wanted");
    CHECK(op_slice(g, a, 2, 0, 99, 1) == a && op_sum_to(g, a, &a->type) == a && op_dropout(g, a, a, 0, 1) == a, "same tensor wanted");
    CHECK(op_transpose(g, a, 0, 1)->node->op->traits & OP_VIEW, "moving an axis of size one is a view");
    CHECK(!(op_transpose(g, a, 0, 2)->node->op->traits & OP_VIEW), "moving bytes is not");
    CHECK(g->err.code == CB_OK, "%s", g->err.message);
    graph_destroy(&g);
}

TEST(op_builders, long_concat) {
    struct cb_err err = {0};
    struct cb_graph *g = NULL;
    struct cb_tensor *part[100];
    double out[600];
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct cb_tensor *a = graph_input(g, "a", matrix(2, 3));
    for (int i = 0; i < 100; i++) part[i] = op_scale(g, a, 1, i);
    struct cb_tensor *y = op_concat(g, 100, part, 0);
    CHECK_OK(run(g, y, NULL, 0, out, &err));
    for (int i = 0; i < 600; i++) CHECK(out[i] == i / 6 + i % 6, "element %d is %g", i, out[i]);
    graph_destroy(&g);
}

/* An index outside the axis reads NaN and adds nothing. */
TEST(op_builders, index_outside) {
    struct cb_err err = {0};
    const int32_t index[] = {1, -1, 3, INT32_MAX};
    const struct cb_type four = type_make(CB_DTYPE_I32, 1, (int64_t[]){4});
    double out[12];
    for (int k = 0; k < 2; k++) {
        struct cb_graph *g = NULL;
        CHECK_OK(graph_create(&g, ops_table(), &err));
        struct cb_tensor *a = graph_input(g, "a", matrix(3, 1)), *i = graph_input(g, "index", four);
        struct cb_tensor *rows = graph_input(g, "rows", matrix(4, 1));
        CHECK_OK(run(g, k ? op_index_add(g, NULL, &a->type, i, rows, 0) : op_index_select(g, a, i, 0), index, 0, out, &err));
        if (k)
            CHECK(out[0] == 0 && out[1] == 0 && out[2] == 0, "index_add wrote %g %g %g", out[0], out[1], out[2]);
        else
            CHECK(out[0] == 1 && isnan(out[1]) && isnan(out[2]) && isnan(out[3]), "index_select read %g %g %g %g", out[0], out[1], out[2],
                  out[3]);
        graph_destroy(&g);
    }
}

#define N_DRAWS 4001
/* Draws of one kind for a seed and key. */
static enum cb_status draw(const char *kind, int64_t seed, uint64_t key, double *out, struct cb_err *err) {
    struct cb_graph *g = NULL;
    TRY(graph_create(&g, ops_table(), err));
    struct cb_tensor *s = graph_input(g, "seed", type_make(CB_DTYPE_I64, 1, (int64_t[]){1}));
    struct cb_type type = type_make(CB_DTYPE_F32, 1, (int64_t[]){N_DRAWS});
    struct cb_tensor *x = !strcmp(kind, "dropout") ? op_dropout(g, op_expand(g, graph_const_f32(g, 1), 1, type.dim), s, 0.25, key)
                                                   : op_random(g, kind, s, type, key);
    enum cb_status status = run(g, x, NULL, seed, out, err);
    graph_destroy(&g);
    return status;
}

TEST(op_builders, random_draws) {
    static double x[N_DRAWS], again[N_DRAWS];
    static const struct {
        const char *kind;
        double mean, variance;
    } wanted[] = {{"uniform", 0.5, 1 / 12.0}, {"normal", 0, 1}, {"dropout", 1, 1 / 0.75 - 1}};
    struct cb_err err = {0};
    for (int k = 0; k < 3; k++) {
        double mean = 0, variance = 0;
        int n_same = 0;
        CHECK_OK(draw(wanted[k].kind, 7, 3, x, &err));
        CHECK_OK(draw(wanted[k].kind, 7, 3, again, &err));
        CHECK(!memcmp(x, again, sizeof x), "%s: the same seed and key drew differently", wanted[k].kind);
        for (int i = 0; i < N_DRAWS; i++) mean += x[i] / N_DRAWS;
        for (int i = 0; i < N_DRAWS; i++) variance += (x[i] - mean) * (x[i] - mean) / N_DRAWS;
        // five standard errors of the mean, about as many of the variance
        double error = 5 * sqrt(wanted[k].variance / N_DRAWS);
        CHECK(fabs(mean - wanted[k].mean) < error && fabs(variance - wanted[k].variance) < 3 * error, "%s: mean %g, variance %g",
              wanted[k].kind, mean, variance);
        for (int other = 0; other < 2; other++) {
            CHECK_OK(draw(wanted[k].kind, 7 + other, 4 - other, again, &err));
            n_same = 0;
            for (int i = 0; i < N_DRAWS; i++) n_same += x[i] == again[i];
            CHECK(n_same < N_DRAWS * 0.7, "%s: another %s drew %d equal values", wanted[k].kind, other ? "seed" : "key", n_same);
        }
    }
}
