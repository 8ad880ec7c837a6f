/* Losses made of other ops, in PyTorch's definitions. reduction: "mean", "sum" or "none". Failures are sticky in g. */
#ifndef OPS_LOSSES_H
#define OPS_LOSSES_H
#include "graph/op.h"

/* x summed up as the reduction says. */
struct cb_tensor *loss_reduce(struct cb_graph *g, struct cb_tensor *x, const char *reduction);
struct cb_tensor *loss_mse(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, const char *reduction);
struct cb_tensor *loss_l1(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, const char *reduction);
struct cb_tensor *loss_smooth_l1(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, double beta, const char *reduction);
struct cb_tensor *loss_huber(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, double delta, const char *reduction);
/* weight and pos_weight broadcast to x; nullable. */
struct cb_tensor *loss_bce_with_logits(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, struct cb_tensor *weight,
                                       struct cb_tensor *pos_weight, const char *reduction);
/* logp (N,V), target i32 (N), weight (V) nullable. */
struct cb_tensor *loss_nll(struct cb_graph *g, struct cb_tensor *logp, struct cb_tensor *target, struct cb_tensor *weight,
                           int64_t ignore_index, const char *reduction);
/* x holds log-probabilities; "batchmean" divides the sum by the rows. */
struct cb_tensor *loss_kl_div(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, bool log_target, const char *reduction);
/* a, b (N,C), target (N) of 1 and -1. */
struct cb_tensor *loss_cosine_embedding(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *target,
                                        double margin, const char *reduction);
/* (N,C) each, Euclidean distances; swap: the nearer of anchor and positive to the negative counts. */
struct cb_tensor *loss_triplet(struct cb_graph *g, struct cb_tensor *anchor, struct cb_tensor *positive, struct cb_tensor *negative,
                               double margin, bool swap, const char *reduction);
struct cb_tensor *loss_margin_ranking(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, struct cb_tensor *target, double margin,
                                      const char *reduction);
struct cb_tensor *loss_hinge_embedding(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *target, double margin,
                                       const char *reduction);
/* a, b (N,C): row i of a belongs to row i of b; symmetric, as CLIP has it. */
struct cb_tensor *loss_info_nce(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, double temperature);
/* op_ctc.c: logp (T,N,C), targets i32 (N,S), lengths i32 (N). "mean" divides each loss by its target length first. zero_infinity: a target that
   does not fit its input gives 0. */
struct cb_tensor *loss_ctc(struct cb_graph *g, struct cb_tensor *logp, struct cb_tensor *targets, struct cb_tensor *input_lengths,
                           struct cb_tensor *target_lengths, int64_t blank, bool zero_infinity, const char *reduction);
#endif
