/* Every optimiser of the registry, told from its descriptor alone: it is sound, it descends, its bits do not depend on threads, frozen data stay. */
#include "harness.h"
#include "train/opt.h"

#define ROWS 300
#define COLUMNS 450 /* more than two tiles */
#define N (ROWS * COLUMNS)

/* One parameter with its states, pulled towards `goal`. */
struct run {
    struct cb_type type;
    float *param, *grad, *goal, *state[OPT_MAX_STATES];
};

static float *floats(int64_t n, float value) {
    float *p = malloc((size_t)n * sizeof *p);
    for (int64_t i = 0; p && i < n; i++) p[i] = value;
    CHECK(p, "no memory");
    return p;
}

static void run_create(struct run *r, const struct optimizer *opt, const double *option) {
    *r = (struct run){.type = type_make(CB_DTYPE_F32, 2, (int64_t[]){ROWS, COLUMNS})};
    r->param = floats(N, 0), r->grad = floats(N, 0), r->goal = floats(N, 0);
    for (int64_t i = 0; i < N; i++) {
        r->param[i] = (float)(i % 97) * 0.02f - 1;
        r->goal[i] = (float)(i % 31) * 0.05f - 0.7f;
    }
    for (int k = 0; k < opt->n_states(option); k++) {
        struct cb_type type;
        if (opt_state_type(opt, &r->type, k, &type))
            r->state[k] = floats(type_elements(&type), opt->state_start ? (float)opt->state_start(option, k) : 0);
    }
}

static void run_destroy(struct run *r) {
    free(r->param), free(r->grad), free(r->goal);
    for (int k = 0; k < OPT_MAX_STATES; k++) free(r->state[k]);
}

static double distance(const struct run *r) {
    double sum = 0;
    for (int64_t i = 0; i < N; i++) sum += pow((double)r->param[i] - (double)r->goal[i], 2);
    return sum / N;
}

/* Steps of the gradient of |param - goal|^2 / 2, handed over with half its size and a scale of two. */
static void run_steps(struct run *r, const struct optimizer *opt, const double *option, double lr, int steps, int threads) {
    struct cb_err err = {0};
    struct pool *pool = NULL;
    CHECK_OK(pool_create(&pool, threads, &err));
    for (int s = 1; s <= steps; s++) {
        for (int64_t i = 0; i < N; i++) r->grad[i] = 0.5f * (r->param[i] - r->goal[i]);
        struct opt_range range = {.param = r->param, .grad = r->grad, .step = s, .lr = lr, .grad_scale = 2, .option = option};
        memcpy(range.state, r->state, sizeof range.state);
        opt_apply(opt, &range, &r->type, pool);
    }
    pool_destroy(&pool);
}

/* Names, texts, defaults in their ranges, names for all states. */
TEST(train, optimizer_descriptors) {
    struct cb_err err = {0};
    double option[OPT_MAX_OPTIONS];
    const struct optimizer *opt, *found;
    for (int i = 0; (opt = opt_at(i)); i++) {
        CHECK(opt->name && opt->doc && *opt->doc && opt_find(opt->name) == opt,
              "optimiser %d (%s): wanted a name that no other has, and a doc", i, opt->name ? opt->name : "no name");
        CHECK(opt->n_states && !opt->update != !opt->update_tensor, "%s: wanted n_states, and one of update and update_tensor", opt->name);
        CHECK_OK(opt_parse(opt->name, &found, option, &err));
        for (int k = 0; k < OPT_MAX_OPTIONS && opt->options[k].name; k++)
            CHECK(option[k] >= opt->options[k].min && option[k] <= opt->options[k].max, "%s: default of %s", opt->name,
                  opt->options[k].name);
        int n = opt->n_states(option);
        CHECK(n >= 0 && n <= OPT_MAX_STATES, "%s: %d states", opt->name, n);
        for (int k = 0; k < n; k++) {
            CHECK(opt->state_names[k] && *opt->state_names[k], "%s: state %d has no name", opt->name, k);
            for (int j = 0; j < k; j++)
                CHECK(strcmp(opt->state_names[j], opt->state_names[k]) != 0, "%s: two states of one name", opt->name);
        }
    }
}

TEST(train, optimizers_descend) {
    struct cb_err err = {0};
    double option[OPT_MAX_OPTIONS];
    const struct optimizer *opt;
    for (int i = 0; opt_at(i); i++) {
        struct run one, three;
        CHECK_OK(opt_parse(opt_at(i)->name, &opt, option, &err));
        run_create(&one, opt, option), run_create(&three, opt, option);
        double before = distance(&one);
        run_steps(&one, opt, option, 0.02, 25, 1), run_steps(&three, opt, option, 0.02, 25, 3);
        CHECK(distance(&one) < 0.8 * before, "%s: %g after %g", opt->name, distance(&one), before);
        CHECK(!memcmp(one.param, three.param, N * sizeof(float)), "%s: three threads give other bits than one", opt->name);
        run_destroy(&one), run_destroy(&three);
    }
}

/* lr 0 changes no parameter. */
TEST(train, optimizers_stand_still) {
    struct cb_err err = {0};
    double option[OPT_MAX_OPTIONS];
    const struct optimizer *opt;
    for (int i = 0; opt_at(i); i++) {
        struct run r;
        CHECK_OK(opt_parse(opt_at(i)->name, &opt, option, &err));
        run_create(&r, opt, option);
        double before = distance(&r);
        run_steps(&r, opt, option, 0, 3, 1);
        CHECK(distance(&r) == before, "%s: lr 0 moved a parameter", opt->name);
        run_destroy(&r);
    }
}
