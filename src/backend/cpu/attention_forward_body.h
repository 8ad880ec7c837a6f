/* Attention, forward: tiles of 64 queries of one head, or, for few queries against many keys, one key head at the speed of memory. */
#ifndef BACKEND_CPU_ATTENTION_FORWARD_BODY_H
#define BACKEND_CPU_ATTENTION_FORWARD_BODY_H
#include "backend/cpu/attention_body.h"

#define ATT_FEW 8 /* up to this many queries the decode path is faster */

/* ---- tiles of queries */

/* Raw scores of vector v become weights exp(score - top); top and sum move on, alpha: what earlier sums are worth now. */
SIMD_INLINE void softmax_vector(const struct attention *p, const struct attention_block *k, const struct attention_mask *m, int64_t v,
                                float *s, float *top_at, float *sum_at, float *alpha_at, const bool plain) {
    int64_t n = k->limit[v];
    vf old = vf_load(top_at), top = old, sum = vf_zero(), slope;
    s += v * SIMD_LANES;
    for (int64_t j = 0; j < n; j++) {
        vf x = vf_load(s + j * ATT_QUERIES);
        if (!plain) {
            x = attention_score(p, k, m, v, j, x, &slope);
            vf_store(s + j * ATT_QUERIES, x);
        }
        top = vf_max(x, top);
    }
    // a query that has seen nothing yet has top = -infinity
    vf from = vf_select(vf_eq(top, vf_set(-INFINITY)), vf_zero(), top);
    for (int64_t j = 0; j < n; j++) {
        vf x = vf_exp(vf_load(s + j * ATT_QUERIES) - from);
        vf_store(s + j * ATT_QUERIES, x);
        sum += x;
    }
    vf alpha = vf_exp(old - from);
    vf_store(top_at, top), vf_store(alpha_at, alpha);
    vf_store(sum_at, vf_fma(vf_load(sum_at), alpha, sum));
}

static void softmax_block(const struct attention *p, const struct attention_block *k, float *s, float *top, float *sum, float *alpha) {
    for (int64_t v = 0; v < k->vectors; v++) {
        if (!k->limit[v]) continue;
        struct attention_mask m = attention_mask(p, k, v);
        int64_t at = v * SIMD_LANES;
        if (m.plain)
            softmax_vector(p, k, &m, v, s, top + at, sum + at, alpha + at, true);
        else
            softmax_vector(p, k, &m, v, s, top + at, sum + at, alpha + at, false);
    }
}

static int64_t kv_heads_of(const struct node *node) { return ((const struct attr_attention *)node->attrs)->kv_heads; }

static int64_t attention_tile_floats(const struct node *node) {
    struct attention p;
    attention_shape(&p, node, kv_heads_of(node));
    return 2 * p.d * ATT_QUERIES + 2 * ATT_BLOCK;
}

struct attention_forward {
    struct attention a;
    float *y, *lse; /* (B,Tq,H,D), (B,H,Tq) */
};

/* What is wanted while a block is worked on: its results' place and what the block after it begins with. */
static struct mini_ahead attention_ahead(const struct attention_forward *f, const struct attention_block *k) {
    const struct attention *p = &f->a;
    struct mini_ahead ahead = {.floats = p->d};
    attention_want_queries(p, k, &ahead, f->y, p->h * p->d);
    if (k->index + 1 == p->n_batch * p->h * p->n_blocks) return ahead;
    struct attention_block next = attention_queries(p, k->index + 1);
    attention_want_queries(p, &next, &ahead, p->q, p->q_row);
    attention_want_keys(p, &next, &ahead, p->k);
    attention_want_keys(p, &next, &ahead, p->v);
    return ahead;
}

static void attention_tile(void *context, int64_t index, int thread) {
    const struct attention_forward *f = context;
    const struct attention *p = &f->a;
    struct attention_block k = attention_queries(p, index);
    int64_t row = p->h * p->d, kv_row = p->kv_row, first_token = k.batch * p->tq + k.q0;
    float *qt = p->work + thread * p->work_floats, *ot = qt + p->d * ATT_QUERIES, *s = ot + p->d * ATT_QUERIES, *bias = s + ATT_BLOCK;
    float top[ATT_QUERIES], sum[ATT_QUERIES], alpha[ATT_QUERIES];
    struct mini_ahead ahead = attention_ahead(f, &k);
    int64_t begin, end;

    simd_turn(qt, ATT_QUERIES, p->q + first_token * p->q_row + k.head * p->d, p->q_row, k.rows, p->d, p->scale, true);
    memset(ot, 0, (size_t)(p->d * ATT_QUERIES) * sizeof *ot);
    for (int i = 0; i < ATT_QUERIES; i++) top[i] = -INFINITY, sum[i] = 0;

    // the running softmax over blocks of keys
    attention_range(p, k.position, k.position + k.rows - 1, &begin, &end);
    for (int64_t j0 = begin; j0 < end; j0 += ATT_KEYS) {
        int64_t key = (k.batch * p->tk + j0) * kv_row + k.kv_head * p->d;
        attention_keys(p, &k, j0, end, bias);
        attention_product(&k, p->d, p->k + key, kv_row, qt, s, &ahead);
        softmax_block(p, &k, s, top, sum, alpha);
        attention_collect(&k, p->d, p->v + key, kv_row, s, ot, alpha, &ahead);
    }

    // y = O / sum, turned back to rows; lse = top + log(sum)
    for (int64_t v = 0; v < k.vectors; v++) {
        vf total = vf_load(sum + v * SIMD_LANES), seen = vf_set(1.0f) / total;
        seen = vf_select(vf_eq(total, vf_zero()), vf_zero(), seen);
        vf_store(alpha + v * SIMD_LANES, vf_load(top + v * SIMD_LANES) + vf_log(total));
        for (int64_t d = 0; d < p->d; d++) {
            float *at = ot + d * ATT_QUERIES + v * SIMD_LANES;
            vf_store(at, vf_load(at) * seen);
        }
    }
    simd_turn(f->y + first_token * row + k.head * p->d, row, ot, ATT_QUERIES, p->d, k.rows, 1, false);
    if (f->lse) memcpy(f->lse + (k.batch * p->h + k.head) * p->tq + k.q0, alpha, (size_t)k.rows * sizeof *alpha);
}

/* ---- few queries: lanes lie across keys for the scores and across D for the values; every cached row is read once */

static int64_t decode_floats(const struct node *node) {
    struct attention p;
    attention_shape(&p, node, kv_heads_of(node));
    return p.h / p.hkv * p.tq * (attention_round(p.d) + 32) + ATT_KEYS;
}

/* out[j] = q . k[j] for n <= ATT_KEYS keys; out is filled up to whole vectors. */
static inline void decode_dots(const float *q, const float *k, int64_t k_row, int64_t d, int64_t n, float scale, float *out) {
    for (int64_t j = 0; j < n; j += SIMD_LANES) {
        const float *row[SIMD_LANES];
        vf acc[SIMD_LANES];
        for (int l = 0; l < SIMD_LANES; l++) row[l] = k + tile_min(j + l, n - 1) * k_row;
        SIMD_UNROLL
        for (int l = 0; l < SIMD_LANES; l++) acc[l] = vf_zero();
        int64_t i = 0;
        for (; i + SIMD_LANES <= d; i += SIMD_LANES) {
            vf x = vf_load(q + i);
            SIMD_UNROLL
            for (int l = 0; l < SIMD_LANES; l++) acc[l] = vf_fma(x, vf_load(row[l] + i), acc[l]);
        }
        if (i < d) {
            vf x = vf_load_n(q + i, (int)(d - i));
            SIMD_UNROLL
            for (int l = 0; l < SIMD_LANES; l++) acc[l] = vf_fma(x, vf_load_n(row[l] + i, (int)(d - i)), acc[l]);
        }
        vf_store(out + j, vf_sum_each(acc) * vf_set(scale));
    }
}

/* Softcap, bias and masks on the scores of one query at `position`; lanes past n become -infinity. Returns the largest. */
static inline float decode_scores(const struct attention *p, const float *bias, const int32_t *segment, int32_t q_segment, int64_t position,
                                  int64_t n, float *s) {
    vf top = vf_set(-INFINITY), none = vf_set(-INFINITY);
    for (int64_t j = 0; j < n; j += SIMD_LANES) {
        int here = (int)tile_min(SIMD_LANES, n - j);
        vf x = vf_load(s + j);
        vi key = vi_iota() + vi_set((int32_t)j);
        if (p->softcap != 0) x = vf_set(p->softcap) * vf_tanh(x * vf_set(1 / p->softcap));
        if (bias) x += p->bias_step[3] ? vf_load_n(bias + j, here) : vf_set(*bias);
        if (p->causal) x = vf_select(vi_lt(vi_set((int32_t)position), key), none, x);
        if (p->window) x = vf_select(vi_lt(vi_set((int32_t)(position - p->window)), key), x, none);
        if (segment) {
            int32_t of[SIMD_LANES] = {0};
            memcpy(of, segment + j, (size_t)here * sizeof *of);
            vf hidden = vf_select(vi_eq(vi_load(of), vi_set(ATTENTION_EVERYONE)), x, none);
            x = vf_select(vi_eq(vi_load(of), vi_set(q_segment)), x, hidden);
        }
        x = vf_select(vi_lt(key, vi_set((int32_t)n)), x, none);
        vf_store(s + j, x);
        top = vf_max(x, top);
    }
    return vf_hmax(top);
}

/* o (D) = alpha o + sum_j w[j] v[j]. */
static inline void decode_values(float *o, float alpha, const float *w, const float *v, int64_t v_row, int64_t d, int64_t n) {
    int64_t i = 0;
    for (; i + 4 * SIMD_LANES <= d; i += 4 * SIMD_LANES) {
        vf acc[4];
        SIMD_UNROLL
        for (int l = 0; l < 4; l++) acc[l] = vf_load(o + i + l * SIMD_LANES) * vf_set(alpha);
        for (int64_t j = 0; j < n; j++) {
            vf x = vf_set(w[j]);
            SIMD_UNROLL
            for (int l = 0; l < 4; l++) acc[l] = vf_fma(x, vf_load(v + j * v_row + i + l * SIMD_LANES), acc[l]);
        }
        SIMD_UNROLL
        for (int l = 0; l < 4; l++) vf_store(o + i + l * SIMD_LANES, acc[l]);
    }
    for (; i < d; i += SIMD_LANES) {
        int here = (int)tile_min(SIMD_LANES, d - i);
        vf acc = vf_load(o + i) * vf_set(alpha);
        for (int64_t j = 0; j < n; j++) acc = vf_fma(vf_set(w[j]), vf_load_n(v + j * v_row + i, here), acc);
        vf_store(o + i, acc);
    }
}

static void decode_tile(void *context, int64_t index, int thread) {
    const struct attention_forward *f = context;
    const struct attention *p = &f->a;
    int64_t batch = index / p->hkv, kv_head = index % p->hkv, group = p->h / p->hkv, rows = group * p->tq;
    int64_t wide = attention_round(p->d), kv_row = p->kv_row, position = attention_position(p, batch), begin, end;
    float *s = p->work + thread * p->work_floats, *top = s + ATT_KEYS, *sum = top + attention_round(rows), *o = sum + attention_round(rows);
    memset(o, 0, (size_t)(rows * wide) * sizeof *o);
    for (int64_t r = 0; r < rows; r++) top[r] = -INFINITY, sum[r] = 0;

    attention_range(p, position, position + p->tq - 1, &begin, &end);
    for (int64_t j0 = begin; j0 < end; j0 += ATT_KEYS) {
        int64_t n = tile_min(ATT_KEYS, end - j0), key = (batch * p->tk + j0) * kv_row + kv_head * p->d;
        const int32_t *segment = p->q_segment && p->k_segment ? p->k_segment + batch * p->tk + j0 : NULL;
        for (int64_t r = 0; r < rows; r++) {
            int64_t t = r / group, head = kv_head * group + r % group;
            const int64_t *step = p->bias_step;
            const float *bias = p->bias ? p->bias + batch * step[0] + head * step[1] + t * step[2] + j0 * step[3] : NULL;
            decode_dots(p->q + (batch * p->tq + t) * p->q_row + head * p->d, p->k + key, kv_row, p->d, n, p->scale, s);
            float best = decode_scores(p, bias, segment, segment ? p->q_segment[batch * p->tq + t] : 0, position + t - j0, n, s);
            float now = best > top[r] ? best : top[r], from = now == -INFINITY ? 0 : now;
            float alpha = expf(top[r] - from);
            vf total = vf_zero();
            for (int64_t j = 0; j < n; j += SIMD_LANES) {
                vf x = vf_exp(vf_load(s + j) - vf_set(from));
                vf_store(s + j, x);
                total += x;
            }
            top[r] = now, sum[r] = sum[r] * alpha + vf_sum(total);
            decode_values(o + r * wide, alpha, s, p->v + key, kv_row, p->d, n);
        }
    }

    for (int64_t r = 0; r < rows; r++) {
        int64_t t = r / group, head = kv_head * group + r % group;
        float *y = f->y + ((batch * p->tq + t) * p->h + head) * p->d, by = sum[r] == 0 ? 0 : 1 / sum[r];
        for (int64_t i = 0; i < p->d; i++) y[i] = o[r * wide + i] * by;
        if (f->lse) f->lse[(batch * p->h + head) * p->tq + t] = top[r] + logf(sum[r]);
    }
}

static size_t attention_workspace(const struct node *node, int n_threads) {
    bool few = node->in[0]->type.dim[1] <= ATT_FEW;
    return (size_t)n_threads * (size_t)attention_round(few ? decode_floats(node) : attention_tile_floats(node)) * sizeof(float);
}

static void attention_run(const struct op_run *run) {
    const struct attr_attention *attrs = run->node->attrs;
    bool few = run->node->in[0]->type.dim[1] <= ATT_FEW;
    int64_t floats = attention_round(few ? decode_floats(run->node) : attention_tile_floats(run->node));
    struct attention_forward f = {
        .a = attention_open(run, attrs->causal, attrs->scale, attrs->window, attrs->softcap, attrs->kv_heads, floats), .y = run->out[0]};
    if (run->node->n_out > 1) f.lse = run->out[1];
    int64_t work = f.a.n_batch * f.a.h * f.a.tq * (f.a.tk + 1) * f.a.d / 8;
    if (few)
        tile_run(run->pool, work, f.a.n_batch * f.a.hkv, decode_tile, &f);
    else
        tile_run(run->pool, work, f.a.n_batch * f.a.h * f.a.n_blocks, attention_tile, &f);
}
#endif
