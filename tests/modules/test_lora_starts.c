/* Starts of LoRA that are made of more than the weight: what quantising it loses (LoftQ), second moments of its inputs (CorDA). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "module_case.h"
#include "modules/lora.h"

/* A module's part at its first site: the weight, its shift, s B A; (out,in) each, owned by caller. */
struct part {
    float *w;
    const float *shift;
    double *change;
    int64_t in, out;
};

static enum cb_status part_open(struct part *p, const struct base *b, const struct module *m, struct cb_err *err) {
    const struct tuner_site *site = &m->sites[0];
    const struct lora_site *own = site->own;
    const float *a = lora_values(m, site->param[0], b->store), *up = lora_values(m, site->param[1], b->store);
    *p = (struct part){.in = site->site.in, .out = site->site.out};
    p->shift = own->shift < 0 ? NULL : lora_values(m, site->param[own->shift], b->store);
    TRY(tuner_base_weight(&p->w, site, b->store, err));
    p->change = calloc((size_t)(p->in * p->out), sizeof *p->change);
    if (!p->change) FAIL(err, CB_E_MEMORY, "no memory");
    for (int64_t i = 0; i < p->in * p->out; i++)
        for (int64_t k = 0; k < site->rank; k++)
            p->change[i] += site->scale * (double)up[i / p->in * site->rank + k] * (double)a[k * p->in + i % p->in];
    return CB_OK;
}

/* Norms of what quantising loses, and of what is still lost with the module. */
static double lost(const struct part *p) {
    double sum = 0;
    for (int64_t i = 0; i < p->in * p->out; i++) sum += (double)p->shift[i] * (double)p->shift[i];
    return sqrt(sum);
}
static double still_lost(const struct part *p) {
    double sum = 0;
    for (int64_t i = 0; i < p->in * p->out; i++) sum += pow((double)p->shift[i] + p->change[i], 2);
    return sqrt(sum);
}

static void part_close(struct part *p) { free(p->w), free(p->change); }

static struct part part_make(struct base *b, struct module **m, const char *spec) {
    struct part p = {0};
    struct cb_err err = {0};
    CHECK_OK(module_create(m, b->store, spec, "m", NULL, 3, &b->sites, &err));
    if (*m) CHECK_OK(part_open(&p, b, *m, &err));
    return p;
}

static void module_drop(struct base *b, struct module **m, struct part *p) {
    part_close(p);
    if (*m) module_remove(*m, b->store);
    module_destroy(m);
}

/* NF4 as Dettmers et al. 2023, appendix E, print it. */
static const float nf4[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};

TEST(lora_starts, loftq_quantises_as_nf4) {
    struct cb_err err = {0};
    struct base b;
    struct module *m = NULL;
    CHECK_OK(base_fresh(&b, "llama", &err));
    struct part p = part_make(&b, &m, "lora:r=2,alpha=2,targets=down_proj,init=loftq");
    const int64_t n = p.in * p.out;
    CHECK(p.shift);
    for (int64_t begin = 0; p.shift && begin < n; begin += 64) {
        const int64_t end = begin + 64 < n ? begin + 64 : n;
        float most = 0;
        for (int64_t i = begin; i < end; i++) most = fmaxf(most, fabsf(p.w[i]));
        for (int64_t i = begin; i < end; i++) {
            float best = INFINITY;
            for (int k = 0; k < 16; k++)
                if (fabsf(most * nf4[k] - p.w[i]) < fabsf(best)) best = most * nf4[k] - p.w[i];
            CHECK(fabsf(best - p.shift[i]) < 1e-6f * most, "%lld: %g, wanted %g", (long long)i, (double)p.shift[i], (double)best);
        }
    }
    module_drop(&b, &m, &p);
    base_close(&b);
}

TEST(lora_starts, loftq_gives_back_what_is_lost) {
    struct cb_err err = {0};
    struct base b;
    struct module *m = NULL;
    static const char *const specs[] = {"bits=2", "bits=4", "bits=8", "blocks=q4_0", "blocks=q4_k", "blocks=q8_0"};
    int n_typed;
    CHECK_OK(base_typed(&b, "llama", CB_DTYPE_Q6_K, &n_typed, &err));
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        char spec[200];
        double before[2], after[2];
        for (int k = 0; k < 2; k++) {
            snprintf(spec, sizeof spec, "lora:r=8,alpha=4,targets=up_proj,init=loftq,iterations=%d,%s", k ? 5 : 1, specs[i]);
            struct part p = part_make(&b, &m, spec);
            CHECK(p.shift, "%s", spec);
            if (!p.shift) return;
            before[k] = lost(&p);
            after[k] = still_lost(&p);
            CHECK(before[k] > 0 && after[k] < 0.99 * before[k], "%s: %g of %g", spec, after[k], before[k]);
            module_drop(&b, &m, &p);
        }
        // with four levels alone the turns need not help
        CHECK(strcmp(specs[i], "bits=2") == 0 || after[1] < after[0] * 1.001, "%s: %g after five turns, %g after one", specs[i], after[1],
              after[0]);
    }
    base_close(&b);
}

/* DoRA's magnitudes are norms of what is trained: Q + s B A. */
TEST(lora_starts, loftq_with_dora) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    CHECK_OK(base_fresh(&b, "llama", &err));
    struct part p = part_make(&b, &m, "lora:r=2,alpha=4,init=loftq,bits=2,dora=true,targets=v_proj");
    const struct lora_site *own = m->sites[0].own;
    const float *magnitude = lora_values(m, m->sites[0].param[own->magnitude], b.store);
    for (int64_t i = 0; i < p.out; i++) {
        double sum = 0;
        for (int64_t k = i * p.in; k < (i + 1) * p.in; k++) sum += pow((double)p.w[k] + (double)p.shift[k] + p.change[k], 2);
        CHECK(fabs(sqrt(sum) - (double)magnitude[i]) < 1e-5 * (1 + sqrt(sum)), "row %d", (int)i);
    }
    module_drop(&b, &m, &p);
    base_close(&b);
}

/* PEFT leaves alpha / r in: its product is r / alpha of ours. */
TEST(lora_starts, loftq_readings) {
    struct cb_err err = {0};
    struct base b;
    struct module *m[2] = {NULL, NULL};
    CHECK_OK(base_fresh(&b, "llama", &err));
    struct part ours = part_make(&b, &m[0], "lora:r=2,alpha=6,targets=q_proj,init=loftq");
    CHECK_OK(module_create(&m[1], b.store, "lora:r=2,alpha=6,targets=q_proj,init=loftq,reading=peft", "peft", NULL, 3, &b.sites, &err));
    struct part peft;
    CHECK_OK(part_open(&peft, &b, m[1], &err));
    for (int64_t i = 0; i < ours.in * ours.out; i++)
        CHECK(fabs(3 * ours.change[i] - peft.change[i]) < 1e-6, "%g, %g", ours.change[i], peft.change[i]);
    module_drop(&b, &m[0], &ours);
    module_drop(&b, &m[1], &peft);
    base_close(&b);
}

/* A base that is stored in the blocks is quantised already: nothing is shifted, and LoRA begins as it does. */
TEST(lora_starts, loftq_of_stored_blocks) {
    struct cb_err err = {0};
    struct base b;
    struct module *m = NULL;
    int n_typed;
    CHECK_OK(base_typed(&b, "llama", CB_DTYPE_Q8_0, &n_typed, &err));
    b.sites.param_dtype = store_dtype;
    b.sites.dtype_user = b.store;
    struct part p = part_make(&b, &m, "lora:r=2,init=loftq,blocks=q8_0");
    CHECK(!p.shift);
    for (int64_t i = 0; i < p.in * p.out; i++) CHECK(p.change[i] == 0);
    module_drop(&b, &m, &p);
    base_close(&b);
}

TEST(lora_starts, loftq_refusals) {
    static const struct {
        const char *spec, *words;
        enum cb_status code;
    } rows[] = {
        {"lora:init=loftq,bits=3", "2, 4 or 8", CB_E_FORMAT},
        {"lora:init=loftq,bits=16", "loftq_bits", CB_E_FORMAT},
        {"lora:init=loftq,iterations=0", "loftq_iter", CB_E_FORMAT},
        {"lora:init=loftq,blocks=f16", "block type", CB_E_FORMAT},
        {"lora:init=loftq,blocks=iq2_xs", "block type", CB_E_FORMAT},
        {"lora:init=loftq,blocks=q4_0", "blocks of 32", CB_E_SHAPE},
        {"lora:init=loftq,reading=ours", "paper or peft", CB_E_FORMAT},
        {"lora:init=loftq,lora_bias=true", "lora_bias", CB_E_UNSUPPORTED},
        {"lora:init=loftq,targets=embed_tokens", "embeddings", CB_E_UNSUPPORTED},
        {"lora:init=corda,corda=both", "ipm or kpm", CB_E_FORMAT},
        {"lora:r=20,init=loftq", "rank 20", CB_E_SHAPE},
        {"lora:init=loftq,alpha=0", "lora_alpha", CB_E_FORMAT},
    };
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    CHECK_OK(base_fresh(&b, "llama", &err));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_FAILS(module_create(&m, b.store, rows[i].spec, "m", NULL, 1, &b.sites, &err), rows[i].code, rows[i].words);
    base_close(&b);
}

/* ---- CorDA */
/* Second moments of inputs that mostly lie along some directions, (n,n). */
static double *moments_make(int64_t n) {
    double *c = calloc((size_t)(n * n), sizeof *c);
    for (int64_t i = 0; c && i < n; i++)
        for (int64_t k = 0; k < n; k++) c[i * n + k] = (i == k) * (1 + (double)(i % 5)) + 0.3 * cos((double)i) * cos((double)k);
    return c;
}

/* |(s B A - W) x|^2 over inputs of the moments: trace of D C D'. */
static double output_error(const struct part *p, const double *c) {
    double sum = 0;
    for (int64_t o = 0; o < p->out; o++)
        for (int64_t i = 0; i < p->in; i++)
            for (int64_t k = 0; k < p->in; k++)
                sum += (p->change[o * p->in + i] - (double)p->w[o * p->in + i]) * c[i * p->in + k] *
                       (p->change[o * p->in + k] - (double)p->w[o * p->in + k]);
    return sum;
}

/* ipm takes what counts most for the inputs into A and B, more than PiSSA; kpm what counts least. The module stays the base. */
TEST(lora_starts, corda_takes_by_inputs) {
    static const char *const specs[] = {"lora:r=4,alpha=8,targets=q_proj,init=corda", "lora:r=4,alpha=8,targets=q_proj,init=pissa",
                                        "lora:r=4,alpha=8,targets=q_proj,init=corda,corda=kpm"};
    struct cb_err err = {0};
    struct base b;
    double error[3];
    CHECK_OK(base_fresh(&b, "llama", &err));
    for (int i = 0; i < 3; i++) {
        struct module *m = NULL;
        struct part p;
        CHECK_OK(module_create(&m, b.store, specs[i], "m", NULL, 3, &b.sites, &err));
        const int64_t n = m->sites[0].site.in;
        double *c = moments_make(n), *kept = moments_make(n);
        CHECK(module_wants_moments(m, 0) == (i != 1));
        if (i != 1) CHECK_OK(module_take_moments(m, 0, b.store, c, &err));
        CHECK_OK(part_open(&p, &b, m, &err));
        error[i] = output_error(&p, kept);
        // what goes into A and B is taken off the weight
        const struct tuner_site *site = &m->sites[0];
        const int a0 = ((const struct lora_site *)site->own)->a0;
        for (int k = 0; k < 2; k++)
            CHECK(memcmp(lora_values(m, site->param[k], b.store), lora_values(m, site->param[a0 + k], b.store),
                         (size_t)(4 * (k ? site->site.out : n)) * sizeof(float)) == 0);
        free(c), free(kept);
        module_drop(&b, &m, &p);
    }
    CHECK(error[0] < error[1] && error[1] < error[2], "ipm %g, pissa %g, kpm %g", error[0], error[1], error[2]);
    base_close(&b);
}

/* Of equal moments in all directions, and undamped ones but for a factor, CorDA's parts are PiSSA's. */
TEST(lora_starts, corda_of_white_inputs_is_pissa) {
    struct cb_err err = {0};
    struct base b;
    struct module *m = NULL, *other = NULL;
    struct part p, q;
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK_OK(module_create(&m, b.store, "lora:r=3,alpha=6,targets=down_proj,init=corda", "m", NULL, 3, &b.sites, &err));
    CHECK_OK(module_create(&other, b.store, "lora:r=3,alpha=6,targets=down_proj,init=pissa", "other", NULL, 3, &b.sites, &err));
    const int64_t n = m->sites[0].site.in;
    double *c = calloc((size_t)(n * n), sizeof *c);
    for (int64_t i = 0; i < n; i++) c[i * n + i] = 7;
    CHECK_OK(module_take_moments(m, 0, b.store, c, &err));
    CHECK_OK(part_open(&p, &b, m, &err));
    CHECK_OK(part_open(&q, &b, other, &err));
    for (int64_t i = 0; i < p.in * p.out; i++) CHECK(fabs(p.change[i] - q.change[i]) < 1e-6, "%g, %g", p.change[i], q.change[i]);
    // and of nothing at all none can be made
    memset(c, 0, (size_t)(n * n) * sizeof *c);
    CHECK_FAILS(module_take_moments(m, 0, b.store, c, &err), CB_E_NUMERIC, "moments");
    free(c);
    module_drop(&b, &other, &q);
    module_drop(&b, &m, &p);
    base_close(&b);
}

/* Inputs without a direction in some of their width: damping gives what can be inverted. */
TEST(lora_starts, corda_of_few_inputs) {
    struct cb_err err = {0};
    struct base b;
    struct module *m = NULL;
    struct part p;
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK_OK(module_create(&m, b.store, "lora:r=2,targets=q_proj,init=corda", "m", NULL, 3, &b.sites, &err));
    const int64_t n = m->sites[0].site.in;
    double *c = calloc((size_t)(n * n), sizeof *c);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < n; k++) c[i * n + k] = sin((double)i) * sin((double)k);
    CHECK_OK(module_take_moments(m, 0, b.store, c, &err));
    CHECK_OK(part_open(&p, &b, m, &err));
    double most = 0;
    for (int64_t i = 0; i < p.in * p.out; i++) most = fmax(most, fabs(p.change[i]));
    CHECK(isfinite(most) && most > 0, "%g", most);
    free(c);
    module_drop(&b, &m, &p);
    base_close(&b);
}
