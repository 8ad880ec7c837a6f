/* Reinforced agent merging: what its two methods share. */
#ifndef MERGE_RAM_H
#define MERGE_RAM_H
#include "merge/merge.h"

enum cb_status ram_prepare(struct merge_job *job, struct cb_err *err);
void ram_apply(const struct merge_job *job, const struct merge_tile *tile, float *out);
#endif
