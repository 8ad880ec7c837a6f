/* Modules that begin by what their sites are given: principal components (EVA), second moments (CorDA). */
#ifndef API_COMPONENTS_H
#define API_COMPONENTS_H
#include "api/training.h"

/* Runs batches through the model until the components stay as they are, or for second moments 256 sequences, and gives them to the module being trained;
   nothing where it wants none. next and user: as the trainer's; the batches go into the training pass. is_resumed: only what no checkpoint holds, the part
   that CorDA takes off the weight, is made again. */
enum cb_status components_run(struct training *training, train_batch_fn *next, void *user, bool is_resumed, struct cb_err *err);
#endif
