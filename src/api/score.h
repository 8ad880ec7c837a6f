/* Likelihood of a loader's tokens under an instance, batch by batch. */
#ifndef API_SCORE_H
#define API_SCORE_H
#include "api/instance.h"
#include "data/loader.h"

struct score {
    struct instance *instance;
    const struct loader *loader;  // borrowed
    struct pass pass;
    bool is_open;
};

/* Builds the plan for batches of a loader's options; weights are the instance's own, so that later training shows. Set score->loader before score_run.
   Free with score_close. */
enum cb_status score_open(struct score *score, struct instance *instance, const struct loader_options *options, struct cb_err *err);
void score_close(struct score *score);
/* Mean loss over all learnt tokens, and their number. Nullable: tokens. */
enum cb_status score_run(struct score *score, double *loss, int64_t *tokens, struct cb_err *err);
int64_t score_bytes(const struct score *score);
#endif
