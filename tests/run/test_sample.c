/* Samplers against plain definitions: which tokens may come, how often, and that draws repeat. */
#include "run/sample.h"

#include "../harness.h"

enum { V = 12 };

static const float logits[V] = {0.5f, -1, 2, 1.5f, 2, -3, 0, 1, -0.5f, 0.25f, -2, 0.75f};

/* How often each token comes in n draws. */
static void count_draws(const struct sample_options *o, int n, double *share) {
    struct cb_err err = {0};
    struct sampler *s;
    memset(share, 0, V * sizeof *share);
    CHECK_OK(sampler_create(&s, V, o, &err));
    for (int i = 0; i < n; i++) {
        int32_t id;
        CHECK_OK(sampler_pick(s, logits, i, &id, &err));
        CHECK(id >= 0 && id < V, "id %d", id);
        share[id] += 1.0 / n;
    }
    sampler_destroy(&s);
}

/* Probabilities by the definitions, sorted by hand: temperature, top-k, top-p, min-p. */
static void expect_shares(const struct sample_options *o, double *p) {
    int rank[V], k = o->top_k && o->top_k < V ? (int)o->top_k : V, kept = 0;
    double total = 0, sum = 0, left = 0;
    for (int i = 0; i < V; i++) rank[i] = i;
    for (int i = 0; i < V; i++)
        for (int j = i + 1; j < V; j++)
            if (logits[rank[j]] > logits[rank[i]] || (logits[rank[j]] == logits[rank[i]] && rank[j] < rank[i])) {
                int swap = rank[i];
                rank[i] = rank[j];
                rank[j] = swap;
            }
    memset(p, 0, V * sizeof *p);
    for (int i = 0; i < V; i++) p[rank[i]] = exp(logits[rank[i]] / (o->temperature > 0 ? o->temperature : 1));
    for (int i = 0; i < k; i++) total += p[rank[i]];
    while (kept < k && (o->top_p == 0 || sum < o->top_p * total) && p[rank[kept]] >= o->min_p * p[rank[0]]) sum += p[rank[kept++]];
    for (int i = kept; i < V; i++) p[rank[i]] = 0;
    for (int i = 0; i < V; i++) left += p[i];
    for (int i = 0; i < V; i++) p[i] /= left;
}

TEST(sample, shares_follow_the_definitions) {
    const struct sample_options cases[] = {
        {0},
        {.temperature = 0.5},
        {.temperature = 3},
        {.top_k = 4},
        {.top_k = 1},
        {.top_k = 50},
        {.top_p = 0.7},
        {.top_p = 1e-6},
        {.min_p = 0.3},
        {.min_p = 1},
        {.temperature = 1.5, .top_k = 7, .top_p = 0.8, .min_p = 0.25},
        {.top_k = 5, .top_p = 0.5, .seed = 9},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double have[V], want[V];
        const int n = 20000;
        count_draws(&cases[c], n, have);
        expect_shares(&cases[c], want);
        for (int i = 0; i < V; i++) {
            double spread = 5 * sqrt(want[i] * (1 - want[i]) / n);
            CHECK((want[i] > 0 || have[i] == 0) && fabs(have[i] - want[i]) <= spread + 1e-9, "case %zu, token %d: %g, wanted %g", c, i,
                  have[i], want[i]);
        }
    }
}

TEST(sample, draws_repeat_by_seed_and_position) {
    struct cb_err err = {0};
    struct sampler *a, *b, *c;
    CHECK_OK(sampler_create(&a, V, &(struct sample_options){.seed = 3}, &err));
    CHECK_OK(sampler_create(&b, V, &(struct sample_options){.seed = 3}, &err));
    CHECK_OK(sampler_create(&c, V, &(struct sample_options){.seed = 4}, &err));
    int others = 0;
    for (int i = 99; i >= 0; i--) {  // any order
        int32_t x, y, z;
        CHECK_OK(sampler_pick(a, logits, i, &x, &err));
        CHECK_OK(sampler_pick(b, logits, i, &y, &err));
        CHECK_OK(sampler_pick(c, logits, i, &z, &err));
        CHECK(x == y, "position %d: %d and %d", i, x, y);
        others += x != z;
    }
    CHECK(others > 20, "another seed changed %d of 100 draws", others);
    sampler_destroy(&a);
    sampler_destroy(&b);
    sampler_destroy(&c);
}

TEST(sample, penalty_divides_positive_and_multiplies_negative) {
    struct cb_err err = {0};
    struct sampler *s;
    int32_t id;
    const float few[3] = {2, 1.5f, -1}, low[3] = {-1, -1.5f, -9};
    CHECK_OK(sampler_create(&s, 3, &(struct sample_options){.greedy = true, .repeat_penalty = 1.6}, &err));
    CHECK_OK(sampler_pick(s, few, 0, &id, &err));
    CHECK(id == 0, "%d before anything was seen", id);
    sampler_see(s, 0);
    CHECK_OK(sampler_pick(s, few, 1, &id, &err));
    CHECK(id == 1, "%d: 2 / 1.6 is below 1.5", id);
    CHECK_OK(sampler_pick(s, low, 2, &id, &err));
    CHECK(id == 1, "%d: -1 * 1.6 is below -1.5", id);
    sampler_destroy(&s);
}

TEST(sample, ngrams_do_not_repeat) {
    struct cb_err err = {0};
    struct sampler *s;
    int32_t id;
    static const int32_t text[] = {4, 3, 2, 4, 3};
    // the likeliest are 2, 4, 3, 7, 11: after 3, and after 4 3, a 2 may not follow again; n = 1 leaves out all that was seen
    static const struct {
        int64_t n;
        int32_t want, then;
    } rows[] = {{0, 2, 2}, {1, 7, 11}, {2, 4, 2}, {3, 4, 2}, {4, 2, 2}, {7, 2, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct sample_options o = {.greedy = true, .no_repeat_ngram = rows[i].n, .most_seen = 9};
        CHECK_OK(sampler_create(&s, V, &o, &err));
        CHECK_OK(sampler_pick(s, logits, 0, &id, &err));
        CHECK(id == 2, "%d of nothing seen", id);
        for (size_t k = 0; k < sizeof text / sizeof *text; k++) sampler_see(s, text[k]);
        CHECK_OK(sampler_pick(s, logits, 8, &id, &err));
        CHECK(id == rows[i].want, "n %lld: %d", (long long)rows[i].n, id);
        sampler_see(s, id);
        CHECK_OK(sampler_pick(s, logits, 9, &id, &err));
        CHECK(id == rows[i].then, "n %lld: then %d", (long long)rows[i].n, id);
        sampler_destroy(&s);
    }
    CHECK_FAILS(sampler_create(&s, V, &(struct sample_options){.no_repeat_ngram = -1}, &err), CB_E_USAGE, "no_repeat_ngram");
}

TEST(sample, greedy_takes_the_first_of_equals_and_top_k_leaves_it) {
    struct cb_err err = {0};
    struct sampler *s;
    int32_t id;
    CHECK_OK(sampler_create(&s, V, &(struct sample_options){.greedy = true, .top_k = 3}, &err));
    CHECK_OK(sampler_pick(s, logits, 0, &id, &err));
    CHECK(id == 2, "%d", id);
    sampler_destroy(&s);
}

TEST(sample, greedy_among_many) {
    enum { MANY = 9001 };
    struct cb_err err = {0};
    struct sampler *s;
    int32_t id;
    float *x = malloc(MANY * sizeof *x);
    CHECK_OK(sampler_create(&s, MANY, &(struct sample_options){.greedy = true}, &err));
    // peaks on both sides of where pieces and vectors end; equals after them
    static const int32_t peaks[] = {0, 15, 16, 4095, 4096, 8191, 8192, 8991, 8992, 9000};
    for (size_t p = 0; p < sizeof peaks / sizeof *peaks; p++) {
        for (int i = 0; i < MANY; i++) x[i] = -1 - (float)(i * 7919 % 1000);
        for (int i = peaks[p]; i < MANY; i += 500) x[i] = -0.5f;
        CHECK_OK(sampler_pick(s, x, 0, &id, &err));
        CHECK(id == peaks[p], "%d; %d wanted", id, peaks[p]);
        x[peaks[p]] = NAN;
        CHECK_FAILS(sampler_pick(s, x, 0, &id, &err), CB_E_NUMERIC, "not a number");
    }
    sampler_destroy(&s);
    free(x);
}

TEST(sample, refuses_bad_options_and_logits) {
    struct cb_err err = {0};
    struct sampler *s;
    int32_t id;
    CHECK_FAILS(sampler_create(&s, V, &(struct sample_options){.temperature = -1}, &err), CB_E_USAGE, "--temperature -1");
    CHECK_FAILS(sampler_create(&s, V, &(struct sample_options){.top_p = 1.5}, &err), CB_E_USAGE, "--top-p");
    CHECK_FAILS(sampler_create(&s, V, &(struct sample_options){.min_p = NAN}, &err), CB_E_USAGE, "--min-p");
    CHECK_FAILS(sampler_create(&s, V, &(struct sample_options){.top_k = -2}, &err), CB_E_USAGE, "--top-k");
    CHECK_FAILS(sampler_create(&s, V, &(struct sample_options){.repeat_penalty = -2}, &err), CB_E_USAGE, "--repeat-penalty");
    CHECK_OK(sampler_create(&s, 2, &(struct sample_options){.top_k = 1}, &err));
    CHECK_FAILS(sampler_pick(s, (const float[]){1, NAN}, 0, &id, &err), CB_E_NUMERIC, "token 1");
    CHECK_FAILS(sampler_pick(s, (const float[]){-INFINITY, -INFINITY}, 0, &id, &err), CB_E_NUMERIC, "largest");
    CHECK_OK(sampler_pick(s, (const float[]){-INFINITY, -5}, 0, &id, &err));
    CHECK(id == 1, "%d", id);
    sampler_destroy(&s);
}
