/* Parts of the encoder-style blocks that many families share: multi-head attention with its projections, and the feed-forward layer. */
#ifndef NN_BLOCK_H
#define NN_BLOCK_H
#include "nn/nn.h"

/* Multi-head attention (Vaswani et al. 2017) with four projections, from `width` features to heads * head_dim and back. */
struct nn_heads {
    const char *path;  // of the block that the names below start from; "": none
    const char *q, *k, *v, *out;  // names of the projections
    int64_t width, heads, head_dim;
    bool no_bias, k_without_bias;
};
/* One projection of x (B,T,width) into heads: (B,T,H,D). */
struct cb_tensor *nn_heads_project(struct nn *nn, struct cb_tensor *x, const struct nn_heads *h, const char *name, bool bias);
/* y (B,T,width) of x (B,T,width). k, v: (B,Tk,H,D) from elsewhere (cross-attention), or both NULL: made of x. */
struct cb_tensor *nn_heads(struct nn *nn, struct cb_tensor *x, struct cb_tensor *k, struct cb_tensor *v, const struct nn_heads *h,
                           const struct nn_attention *attention);

/* Keys and values (B,Tk,H,D) of cross-attention: made of memory (B,Tk,C); with capacity they are also written to cache.<layer>.cross_k and .cross_v
   (B,capacity,H,D). With memory NULL they are read from these caches. */
void nn_heads_memory(struct nn *nn, struct cb_tensor *memory, const struct nn_heads *h, int64_t batch, int64_t capacity,
                     struct cb_tensor **k, struct cb_tensor **v);
/* The same from given heads q (B,T,H,D), k and v. */
struct cb_tensor *nn_heads_join(struct nn *nn, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v, const struct nn_heads *h,
                                const struct nn_attention *attention);

/* down(act(up x)), or gated (Shazeer 2020): down(act(gate x) * up x). */
struct nn_feed_forward {
    const char *path, *up, *down;
    const char *gate;  // NULL: none
    int64_t width, inner;
    const char *activation;
    bool no_bias;
    double dropout;  // between the two
};
struct cb_tensor *nn_feed_forward(struct nn *nn, struct cb_tensor *x, const struct nn_feed_forward *f);
#endif
