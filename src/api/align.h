/* Permutation alignment: hidden units and attention heads of a model in the order of another's. */
#ifndef API_ALIGN_H
#define API_ALIGN_H
#include "api/engine.h"
#include "merge/models.h"

/* How the tensors of one model are to be read. */
struct aligned;

/* Finds, layer by layer, the order of `model`'s hidden units of feed-forward blocks and of its attention heads (groups of heads that share keys) that fits
   `reference` best: the assignment of largest sum of products of their weights (weight matching of Git re-basin, Ainsworth et al. 2023). That the model computes the same
   in the new order is checked on a probe; orders of heads that change it (biases by position that differ between heads) are dropped, with a warning. Owned by
   caller, free with align_destroy. */
enum cb_status align_models(struct aligned **aligned, struct cb_engine *engine, const char *reference, const char *model,
                            struct cb_err *err);
void align_destroy(struct aligned **aligned);
/* Sets the rows and columns of a tensor of the model; name: as in its file or in the model. */
void align_input(const struct aligned *aligned, const char *name, struct merge_input *in);
/* Units and heads that changed places. */
int64_t align_moved(const struct aligned *aligned);
#endif
