/* Modules that begin as principal components of what their sites are given (EVA). */
#ifndef API_COMPONENTS_H
#define API_COMPONENTS_H
#include "api/training.h"

/* Runs batches through the model until the components stay as they are, and gives them to the module being trained; nothing where it wants none. next and
   user: as the trainer's; the batches go into the training pass. */
enum cb_status components_run(struct training *training, train_batch_fn *next, void *user, struct cb_err *err);
#endif
