/* Attention, backward: the weights are computed again from the log-sum-exp of the forward pass (Dao 2023, FlashAttention-2).
   A tile is one key head of one batch entry with all query heads that share it, so dk and dv have one writer. */
#ifndef BACKEND_CPU_ATTENTION_GRAD_BODY_H
#define BACKEND_CPU_ATTENTION_GRAD_BODY_H
#include "backend/cpu/attention_body.h"

#define ATT_LSE_MOST 1e4f  // beyond it f32 has no digits for the logarithm of a sum beside the largest score

struct attention_backward {
    struct attention a;
    const float *y, *lse, *dy;
    float *dq, *dk, *dv;  // laid out as q, k and v
};

/* Areas of one thread. Turned: (D, queries); plain: (queries, D in whole vectors); blocks: (keys, queries). */
struct attention_scratch {
    float *qt, *dyt, *dqt, *q, *dy, *p, *ds, *bias;
    int64_t wide;
};

static struct attention_scratch attention_scratch(float *at, int64_t d) {
    struct attention_scratch s = {.wide = attention_round(d)};
    int64_t turned = d * ATT_QUERIES, plain = s.wide * ATT_QUERIES;
    s.qt = at, s.dyt = s.qt + turned, s.dqt = s.dyt + turned;
    s.q = s.dqt + turned, s.dy = s.q + plain;
    s.p = s.dy + plain, s.ds = s.p + ATT_BLOCK, s.bias = s.ds + ATT_BLOCK;
    return s;
}
static int64_t attention_grad_floats(const struct node *node) {
    struct attention p;
    attention_shape(&p, node, ((const struct attr_attention_grad *)node->attrs)->kv_heads);
    return 3 * p.d * ATT_QUERIES + 2 * attention_round(p.d) * ATT_QUERIES + 3 * ATT_BLOCK;
}
static size_t attention_grad_workspace(const struct node *node, int n_threads) {
    return (size_t)n_threads * (size_t)attention_grad_floats(node) * sizeof(float);
}

/* Copies rows of D floats, times scale, into rows of whole vectors filled up with zeros. */
static void attention_rows(float *out, int64_t wide, const float *in, int64_t in_step, int64_t rows, int64_t d, float scale) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < wide; i += SIMD_LANES) {
            int n = (int)tile_max(0, tile_min(SIMD_LANES, d - i));
            vf_store(out + r * wide + i,
                     vf_set(scale) * (n == SIMD_LANES ? vf_load(in + r * in_step + i) : vf_load_n(in + r * in_step + i, n)));
        }
    }
}

/* Scores in p become weights P = share exp(S - lse); dP in ds becomes dS = P (dP - delta), with the softcap's slope. */
SIMD_INLINE void weights_vector(const struct attention *p, const struct attention_block *k, const struct attention_mask *m, int64_t v,
                                float *s, float *ds, vf lse, vf share, vf delta, const bool plain) {
    s += v * SIMD_LANES, ds += v * SIMD_LANES;
    for (int64_t j = 0; j < k->limit[v]; j++) {
        vf slope = vf_set(1.0f), x = vf_load(s + j * ATT_QUERIES);
        if (!plain) x = attention_score(p, k, m, v, j, x, &slope);
        x = share * vf_exp(x - lse);
        vf g = x * (vf_load(ds + j * ATT_QUERIES) - delta);
        vf_store(s + j * ATT_QUERIES, x);
        vf_store(ds + j * ATT_QUERIES, plain ? g : g * slope);
    }
}

/* out rows (keys, D) += weights (keys, queries) rows (queries, D), for the pairs within the limits. */
static void attention_spread(const struct attention_block *k, int64_t d, const float *weights, const float *rows, int64_t wide, float *out,
                             int64_t out_step, struct mini_ahead *ahead) {
    struct mini p = {.a_row = ATT_QUERIES, .a_column = 1, .b_row = wide, .c_row = out_step, .n = d, .add = true, .ahead = ahead};
    int64_t j = 0;
    for (int64_t v = 0; v < k->vectors; j = k->limit[v], v++) {
        // these keys are seen from vector v on
        if (k->limit[v] == j) continue;
        p.a = weights + j * ATT_QUERIES + v * SIMD_LANES, p.b = rows + v * SIMD_LANES * wide, p.c = out + j * out_step;
        p.m = k->limit[v] - j, p.k = k->rows - v * SIMD_LANES;
        mini_run(&p);
    }
}

/* A bias that hides every key of a query by a number as large as -1e30 leaves no place in lse for the logarithm: there the weights are summed again. */
static void attention_shares(const struct attention_backward *f, const struct attention_scratch *s, struct attention_block *k,
                             int64_t begin, int64_t end, const float *lse, float *share) {
    const struct attention *p = &f->a;
    bool any = false;
    for (int64_t i = 0; i < ATT_QUERIES; i++) {
        share[i] = 1;
        any |= fabsf(lse[i]) > ATT_LSE_MOST;
    }
    if (!any) return;
    float sum[ATT_QUERIES] = {0};
    for (int64_t j0 = begin; j0 < end; j0 += ATT_KEYS) {
        int64_t key = (k->batch * p->tk + j0) * p->kv_row + k->kv_head * p->d;
        attention_keys(p, k, j0, end, s->bias);
        attention_product(k, p->d, p->k + key, p->kv_row, s->qt, s->p, &(struct mini_ahead){0});
        for (int64_t v = 0; v < k->vectors; v++) {
            struct attention_mask m = attention_mask(p, k, v);
            vf l = vf_load(lse + v * SIMD_LANES), total = vf_load(sum + v * SIMD_LANES), slope;
            for (int64_t j = 0; j < k->limit[v]; j++)
                total += vf_exp(attention_score(p, k, &m, v, j, vf_load(s->p + j * ATT_QUERIES + v * SIMD_LANES), &slope) - l);
            vf_store(sum + v * SIMD_LANES, total);
        }
    }
    for (int64_t i = 0; i < k->rows; i++)
        if (fabsf(lse[i]) > ATT_LSE_MOST && sum[i] > 0) share[i] = 1 / sum[i];
}

/* What is wanted while a block is worked on: the place of dq and what the block after it begins with. */
static struct mini_ahead attention_grad_ahead(const struct attention_backward *f, const struct attention_block *k) {
    const struct attention *p = &f->a;
    struct mini_ahead ahead = {.floats = p->d};
    attention_want_queries(p, k, &ahead, f->dq, p->q_row);
    if (k->index + 1 == p->n_batch * p->h * p->n_blocks) return ahead;
    struct attention_block next = attention_queries(p, k->index + 1);
    attention_want_queries(p, &next, &ahead, p->q, p->q_row);
    attention_want_queries(p, &next, &ahead, f->y, p->h * p->d);
    attention_want_queries(p, &next, &ahead, f->dy, p->h * p->d);
    const float *keys[] = {p->k, p->v, f->dk, f->dv};
    for (int i = 0; i < 4; i++) attention_want_keys(p, &next, &ahead, keys[i]);
    return ahead;
}

/* Zeros in dk and dv of a key head from key *done up to `end`: not before they are needed, by when they have been asked for. */
static void attention_zero(const struct attention_backward *f, int64_t batch, int64_t kv_head, int64_t *done, int64_t end) {
    const struct attention *p = &f->a;
    for (; *done < end; ++*done) {
        int64_t at = (batch * p->tk + *done) * p->kv_row + kv_head * p->d;
        memset(f->dk + at, 0, (size_t)p->d * sizeof(float));
        memset(f->dv + at, 0, (size_t)p->d * sizeof(float));
    }
}

/* One block of queries of one head: adds to dk and dv of its key head, in which *zeroed keys are set, writes dq. */
static void attention_grad_queries(const struct attention_backward *f, const struct attention_scratch *s, struct attention_block *k,
                                   int64_t *zeroed) {
    const struct attention *p = &f->a;
    int64_t row = p->h * p->d, kv_row = p->kv_row, begin, end;
    int64_t first = (k->batch * p->tq + k->q0) * row + k->head * p->d, q_first = (k->batch * p->tq + k->q0) * p->q_row + k->head * p->d;
    float lse[ATT_QUERIES] = {0}, delta[ATT_QUERIES] = {0}, share[ATT_QUERIES];
    struct mini_ahead ahead = attention_grad_ahead(f, k);
    simd_turn(s->qt, ATT_QUERIES, p->q + q_first, p->q_row, k->rows, p->d, p->scale, true);
    simd_turn(s->dyt, ATT_QUERIES, f->dy + first, row, k->rows, p->d, 1, true);
    attention_rows(s->q, s->wide, p->q + q_first, p->q_row, k->rows, p->d, p->scale);
    attention_rows(s->dy, s->wide, f->dy + first, row, k->rows, p->d, 1);
    memset(s->dqt, 0, (size_t)(p->d * ATT_QUERIES) * sizeof(float));

    // delta = sum_d y dy; a query that saw nothing has lse = -infinity and only scores of -infinity
    for (int64_t i = 0; i < k->rows; i++) {
        float x = f->lse[(k->batch * p->h + k->head) * p->tq + k->q0 + i];
        lse[i] = x == -INFINITY ? 0 : x;
        delta[i] = row_dot(f->y + first + i * row, f->dy + first + i * row, p->d);
    }

    attention_range(p, k->position, k->position + k->rows - 1, &begin, &end);
    attention_shares(f, s, k, begin, end, lse, share);
    attention_zero(f, k->batch, k->kv_head, zeroed, end);
    for (int64_t j0 = begin; j0 < end; j0 += ATT_KEYS) {
        int64_t key = (k->batch * p->tk + j0) * kv_row + k->kv_head * p->d;
        attention_keys(p, k, j0, end, s->bias);
        attention_product(k, p->d, p->k + key, kv_row, s->qt, s->p, &ahead);
        attention_product(k, p->d, p->v + key, kv_row, s->dyt, s->ds, &ahead);
        for (int64_t v = 0; v < k->vectors; v++) {
            struct attention_mask m = attention_mask(p, k, v);
            vf l = vf_load(lse + v * SIMD_LANES), n = vf_load(share + v * SIMD_LANES), t = vf_load(delta + v * SIMD_LANES);
            if (m.plain)
                weights_vector(p, k, &m, v, s->p, s->ds, l, n, t, true);
            else
                weights_vector(p, k, &m, v, s->p, s->ds, l, n, t, false);
        }
        attention_spread(k, p->d, s->p, s->dy, s->wide, f->dv + key, kv_row, &ahead);
        attention_spread(k, p->d, s->ds, s->q, s->wide, f->dk + key, kv_row, &ahead);
        attention_collect(k, p->d, p->k + key, kv_row, s->ds, s->dqt, NULL, &ahead);
    }
    simd_turn(f->dq + q_first, p->q_row, s->dqt, ATT_QUERIES, p->d, k->rows, p->scale, false);
}

static void attention_grad_tile(void *context, int64_t index, int thread) {
    const struct attention_backward *f = context;
    const struct attention *p = &f->a;
    struct attention_scratch s = attention_scratch(p->work + thread * p->work_floats, p->d);
    int64_t group = p->h / p->hkv, blocks = group * p->n_blocks, zeroed = 0;
    for (int64_t i = 0; i < blocks; i++) {
        struct attention_block k = attention_queries(p, index * blocks + i);
        attention_grad_queries(f, &s, &k, &zeroed);
    }
    attention_zero(f, index / p->hkv, index % p->hkv, &zeroed, p->tk);
}

/* No gradient of the bias wanted. */
static bool attention_grad_accepts(const struct node *node) {
    return attention_accepts(node) && !((const struct attr_attention_grad *)node->attrs)->want_bias;
}

static void attention_grad_run(const struct op_run *run) {
    const struct attr_attention_grad *attrs = run->node->attrs;
    struct attention_backward f = {.y = run->in[7], .lse = run->in[8], .dy = run->in[9]};
    f.a =
        attention_open(run, attrs->causal, attrs->scale, attrs->window, attrs->softcap, attrs->kv_heads, attention_grad_floats(run->node));
    f.dq = run->out[0];
    f.dk = attrs->kv_heads ? f.dq + f.a.h * f.a.d : run->out[1];
    f.dv = attrs->kv_heads ? f.dk + f.a.hkv * f.a.d : run->out[2];
    int64_t work = f.a.n_batch * f.a.h * f.a.tq * (f.a.tk + 1) * f.a.d / 4;
    tile_run(run->pool, work, f.a.n_batch * f.a.hkv, attention_grad_tile, &f);
}
#endif
