/* Checkpoints: one safetensors file holds everything that going on needs; written atomically, checksummed, the newest good one is found by looking. */
#ifndef TRAIN_CKPT_H
#define TRAIN_CKPT_H
#include "base/json.h"
#include "train/trainer.h"

/* FOLDER/ckpt-<step>.safetensors with the trained parameters ("param.<name>"), the optimiser states, one 64-bit checksum a tensor and one of the
   metadata (tensor "checksum", in the order of metadata "tensors") and `state`, a JSON object of the caller's (not NULL), in the metadata. */
enum cb_status ckpt_save(struct trainer *trainer, const char *folder, const json_t *state, struct cb_err *err);
/* The same under another name in the folder ("best.safetensors"), parameters only. */
enum cb_status ckpt_save_best(struct trainer *trainer, const char *folder, const json_t *state, struct cb_err *err);

/* The newest checkpoint of the folder that is whole: *path owned by caller, free with free(); NULL where there is none. Damaged ones are passed over, and
   reported through warn (nullable). */
enum cb_status ckpt_newest(const char *folder, char **path, void (*warn)(void *user, const char *line), void *user, struct cb_err *err);
/* Restores parameters, states and the step; *state (nullable): owned by caller, free with json_decref. Names and shapes must agree. */
enum cb_status ckpt_load(struct trainer *trainer, const char *path, json_t **state, struct cb_err *err);
/* Parameters only (from a checkpoint or a best.safetensors). */
enum cb_status ckpt_load_params(struct trainer *trainer, const char *path, struct cb_err *err);
/* Compares every checksum of one file. */
enum cb_status ckpt_check(const char *path, struct cb_err *err);
/* The `state` it was saved with: *state owned by caller, free with json_decref. Checksums are not compared. */
enum cb_status ckpt_state(const char *path, json_t **state, struct cb_err *err);
/* After the checkpoint of `step` was written: removes all of earlier steps but the `keep` - 1 newest. */
void ckpt_prune(const char *folder, int64_t step, int keep);
/* Before a run goes on from `step` (0: from the start): checkpoints of later steps, which were passed over, become NAME.damaged. */
enum cb_status ckpt_retire(const char *folder, int64_t step, struct cb_err *err);
#endif
