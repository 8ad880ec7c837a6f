/* Attention by blocks with a running softmax (Dao et al. 2022, FlashAttention): what forward, decode and gradient share.
   Queries lie across the lanes: scores S (keys, queries) = K Q', so maxima and sums need no work across lanes. */
#ifndef BACKEND_CPU_ATTENTION_BODY_H
#define BACKEND_CPU_ATTENTION_BODY_H
#include "backend/cpu/mini.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"
#include "graph/op.h"

#define ATT_QUERIES 64 /* queries of a tile */
#define ATT_KEYS 64 /* keys of a block */
#define ATT_VECTORS (ATT_QUERIES / SIMD_LANES)
#define ATT_BLOCK (ATT_KEYS * ATT_QUERIES)

/* A node's shapes, attributes and data. q (B,Tq,H,D), k and v (B,Tk,Hkv,D), each alone or as heads of one input. */
struct attention {
    const float *q, *k, *v, *bias;
    int64_t q_row, kv_row; /* floats from one token to the next */
    const int32_t *q_segment, *k_segment, *start;
    int64_t n_batch, tq, tk, h, hkv, d;
    int64_t bias_step[4]; /* over b, h, query, key; 0 where broadcast */
    int64_t window; /* 0: none */
    float scale, softcap; /* softcap 0: none */
    bool causal;
    int64_t n_blocks; /* of queries */
    float *work;
    int64_t work_floats; /* of one thread */
};

/* Queries [q0, q0+rows) of a head against keys [j0, j0+keys). */
struct attention_block {
    int64_t index, batch, head, kv_head;
    int64_t q0, rows, vectors, position; /* position: of query q0 among the keys */
    int64_t j0, keys;
    int64_t limit[ATT_VECTORS]; /* keys that each vector of queries can see by the causal rule; never falls */
    const float *bias; /* (keys, queries), or NULL */
    const float *key_bias; /* of key j at key_bias[j * bias_step[3]], the same for all queries; or NULL */
};

static inline const void *attention_in(const struct op_run *run, int i) { return i < run->node->n_in ? run->in[i] : NULL; }

/* Floats of a whole number of vectors, so that scratch areas stay aligned. */
static inline int64_t attention_round(int64_t n) { return (n + 15) / 16 * 16; }

/* kv_heads 0: k and v are inputs. */
static inline void attention_shape(struct attention *p, const struct node *node, int64_t kv_heads) {
    const struct cb_type *q = &node->in[0]->type, *k = kv_heads ? q : &node->in[1]->type;
    p->n_batch = q->dim[0], p->tq = q->dim[1], p->h = q->dim[2] - 2 * kv_heads, p->d = q->dim[3];
    p->tk = k->dim[1], p->hkv = kv_heads ? kv_heads : k->dim[2];
    p->q_row = q->dim[2] * p->d, p->kv_row = k->dim[2] * p->d;
    p->n_blocks = tile_count(p->tq, ATT_QUERIES);
}

static inline struct attention attention_open(const struct op_run *run, bool causal, double scale, int64_t window, double softcap,
                                              int64_t kv_heads, int64_t work_floats) {
    struct attention p = {.q = run->in[0], .k = run->in[1], .v = run->in[2], .bias = attention_in(run, 3)};
    attention_shape(&p, run->node, kv_heads);
    if (kv_heads) p.k = p.q + p.h * p.d, p.v = p.k + p.hkv * p.d;
    p.q_segment = attention_in(run, 4), p.k_segment = attention_in(run, 5), p.start = attention_in(run, 6);
    p.causal = causal, p.softcap = (float)softcap, p.window = tile_min(window, 1 << 30);
    p.scale = (float)(scale != 0 ? scale : 1 / sqrt((double)p.d));
    p.work = run->work, p.work_floats = work_floats;
    // strides of the bias, aligned from the right, for (B,H,Tq,Tk)
    if (p.bias) {
        const struct cb_type *t = &run->node->in[3]->type;
        int64_t step = 1;
        for (int i = t->rank - 1; i >= 0; i--) {
            p.bias_step[4 - t->rank + i] = t->dim[i] == 1 ? 0 : step;
            step *= t->dim[i];
        }
    }
    return p;
}

static inline int64_t attention_position(const struct attention *p, int64_t batch) {
    int64_t start = p->start ? p->start[batch] : 0;
    return tile_max(-(1 << 30), tile_min(start, 1 << 30));
}

/* Block `index` of (batch, head, block of queries). */
static inline struct attention_block attention_queries(const struct attention *p, int64_t index) {
    int64_t row = index / p->n_blocks;
    struct attention_block k = {.index = index, .batch = row / p->h, .head = row % p->h, .q0 = index % p->n_blocks * ATT_QUERIES};
    k.kv_head = k.head / (p->h / p->hkv);
    k.rows = tile_min(ATT_QUERIES, p->tq - k.q0);
    k.vectors = tile_count(k.rows, SIMD_LANES);
    k.position = attention_position(p, k.batch) + k.q0;
    return k;
}

/* Wants a block's queries, or the keys at their positions, of x, as that lies in q or k. */
static inline void attention_want_queries(const struct attention *p, const struct attention_block *k, struct mini_ahead *ahead,
                                          const float *x, int64_t row) {
    const float *at = x + (k->batch * p->tq + k->q0) * row + k->head * p->d;
    ahead->set[ahead->n_sets++] = (struct mini_rows){at, row, k->rows};
}
static inline void attention_want_keys(const struct attention *p, const struct attention_block *k, struct mini_ahead *ahead,
                                       const float *x) {
    int64_t j0 = tile_max(0, k->position), keys = tile_min(ATT_KEYS, p->tk - j0);
    if (keys <= 0) return;
    const float *at = x + (k->batch * p->tk + j0) * p->kv_row + k->kv_head * p->d;
    ahead->set[ahead->n_sets++] = (struct mini_rows){at, p->kv_row, keys};
}

/* Keys that queries at positions [first, last] can see: [*begin, *end). */
static inline void attention_range(const struct attention *p, int64_t first, int64_t last, int64_t *begin, int64_t *end) {
    *begin = p->window ? tile_min(p->tk, tile_max(0, first - p->window + 1)) : 0;
    *end = p->causal ? tile_max(0, tile_min(p->tk, last + 1)) : p->tk;
}

/* Moves the block to keys from j0 on; end: first key that no query sees. bias: room for one block. */
static inline void attention_keys(const struct attention *p, struct attention_block *k, int64_t j0, int64_t end, float *bias) {
    k->j0 = j0, k->keys = tile_min(ATT_KEYS, end - j0);
    for (int64_t v = 0; v < k->vectors; v++) {
        int64_t last = k->position + tile_min(k->rows, (v + 1) * SIMD_LANES) - 1;
        k->limit[v] = p->causal ? tile_max(0, tile_min(k->keys, last + 1 - j0)) : k->keys;
    }
    if (!p->bias) return;
    const int64_t *step = p->bias_step;
    const float *from = p->bias + k->batch * step[0] + k->head * step[1] + k->q0 * step[2] + j0 * step[3];
    if (!step[2]) {
        k->key_bias = from;
        return;
    }
    // one of each query is turned once per block
    k->bias = bias;
    if (step[3]) {
        simd_turn(bias, ATT_QUERIES, from, step[2], k->rows, k->keys, 1, true);
        return;
    }
    for (int64_t j = 0; j < k->keys; j++)
        for (int64_t i = 0; i < ATT_QUERIES; i++) bias[j * ATT_QUERIES + i] = i < k->rows ? from[i * step[2]] : 0;
}

/* What turns a raw score into the one that softmax sees, for one vector of queries. */
struct attention_mask {
    vi position; /* of the queries, relative to key j0 */
    vi segment;
    const int32_t *k_segment;
    bool causal, window, plain; /* plain: neither mask, bias nor softcap applies */
};

static inline struct attention_mask attention_mask(const struct attention *p, const struct attention_block *k, int64_t v) {
    int64_t first = k->position + v * SIMD_LANES - k->j0, last = first + SIMD_LANES - 1;
    struct attention_mask m = {.position = vi_iota() + vi_set((int32_t)first)};
    m.causal = p->causal && first < k->keys - 1;
    m.window = p->window && last >= p->window;
    if (p->q_segment && p->k_segment) {
        int32_t segment[SIMD_LANES] = {0};
        for (int64_t i = 0; i < SIMD_LANES && v * SIMD_LANES + i < k->rows; i++)
            segment[i] = p->q_segment[k->batch * p->tq + k->q0 + v * SIMD_LANES + i];
        m.segment = vi_load(segment);
        m.k_segment = p->k_segment + k->batch * p->tk + k->j0;
    }
    m.plain = !m.causal && !m.window && !m.k_segment && !p->bias && p->softcap == 0;
    return m;
}

/* Score of key j (from j0) for vector v. *slope: derivative of the softcap (multiplied in). */
SIMD_INLINE vf attention_score(const struct attention *p, const struct attention_block *k, const struct attention_mask *m, int64_t v,
                               int64_t j, vf s, vf *slope) {
    if (p->softcap != 0) {
        vf t = vf_tanh(s * vf_set(1 / p->softcap));
        *slope = vf_set(1.0f) - t * t;
        s = t * vf_set(p->softcap);
    }
    if (k->bias) s += vf_load(k->bias + j * ATT_QUERIES + v * SIMD_LANES);
    if (k->key_bias) s += vf_set(k->key_bias[j * p->bias_step[3]]);
    if (m->causal) s = vf_select(vi_lt(m->position, vi_set((int32_t)j)), vf_set(-INFINITY), s);
    if (m->window) s = vf_select(vi_lt(m->position, vi_set((int32_t)(j + p->window))), s, vf_set(-INFINITY));
    if (m->k_segment && m->k_segment[j] != ATTENTION_EVERYONE)
        s = vf_select(vi_eq(m->segment, vi_set(m->k_segment[j])), s, vf_set(-INFINITY));
    return s;
}

/* out (keys, queries) = rows (keys, D) turned (D, queries), for the pairs within the limits. */
static inline void attention_product(const struct attention_block *k, int64_t d, const float *rows, int64_t row_step, const float *turned,
                                     float *out, struct mini_ahead *ahead) {
    struct mini p = {.a = rows, .a_row = row_step, .a_column = 1, .b_row = ATT_QUERIES, .c_row = ATT_QUERIES, .k = d, .ahead = ahead};
    int64_t j = 0;
    for (int64_t v = 0; v < k->vectors; j = k->limit[v], v++) {
        // these keys are seen from vector v on
        if (k->limit[v] == j) continue;
        p.a = rows + j * row_step, p.b = turned + v * SIMD_LANES, p.c = out + j * ATT_QUERIES + v * SIMD_LANES;
        p.m = k->limit[v] - j, p.n = (k->vectors - v) * SIMD_LANES;
        mini_run(&p);
    }
}

/* out (D, queries) = alpha out + rows' (D, keys) weights (keys, queries). alpha nullable: 1. */
static inline void attention_collect(const struct attention_block *k, int64_t d, const float *rows, int64_t row_step, const float *weights,
                                     float *out, const float *alpha, struct mini_ahead *ahead) {
    struct mini p = {.a = rows, .a_row = 1, .a_column = row_step, .b_row = ATT_QUERIES, .c_row = ATT_QUERIES, .m = d, .add = true};
    p.ahead = ahead;
    bool whole = k->limit[0] == k->keys;
    for (int64_t v = 0; v < k->vectors; v += whole ? k->vectors : 1) {
        if (!k->limit[v]) continue;
        p.b = weights + v * SIMD_LANES, p.c = out + v * SIMD_LANES, p.alpha = alpha ? alpha + v * SIMD_LANES : NULL;
        p.k = k->limit[v], p.n = (whole ? k->vectors : 1) * SIMD_LANES;
        mini_run(&p);
    }
}

/* Types as expected, values as wide as keys. */
static bool attention_accepts(const struct node *node) {
    const struct cb_type *k = &node->in[node->in[1] ? 1 : 0]->type, *v = &node->in[node->in[2] ? 2 : 0]->type;
    for (int i = 0; i < node->n_in; i++) {
        bool whole = i == 4 || i == 5 || i == 6;
        if (node->in[i] && node->in[i]->type.dtype != (whole ? CB_DTYPE_I32 : CB_DTYPE_F32)) return false;
    }
    return k->dim[3] == v->dim[3] && k->dim[3] > 0 && k->dim[2] > 0;
}
#endif
