/* Recurrent layers over whole sequences, with PyTorch's gate order. Failures are sticky in g. */
#ifndef OPS_RECURRENT_H
#define OPS_RECURRENT_H
#include "graph/op.h"

/* Weights of one layer in one direction: w_ih (4H,I), w_hh (4H,H), biases (4H), both or none; 3H for gru. */
struct recurrent_weights {
    struct cb_tensor *w_ih, *w_hh, *b_ih, *b_hh;
};
/* y (B,T,H or 2H), and the last states h and c (layers * directions, B, H); c is NULL for gru. */
struct recurrent_result {
    struct cb_tensor *y, *h, *c;
};
/* x (B,T,I), or (T,B,I) with time_first. weights: one for each layer and direction, layer by layer, forward first. h0, c0: (layers * directions,
   B, H), NULL: zeros. kind: "lstm" or "gru". */
struct recurrent_result op_recurrent(struct cb_graph *g, const char *kind, struct cb_tensor *x, int n_layers, bool bidirectional,
                                     bool time_first, const struct recurrent_weights *weights, struct cb_tensor *h0, struct cb_tensor *c0);
#endif
