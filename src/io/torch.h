/* Files of torch.save: a pickle that builds a dictionary of tensors, and their numbers; members of a zip archive, or (before PyTorch 1.6) one after another. */
#ifndef IO_TORCH_H
#define IO_TORCH_H
#include "io/safetensors.h"

/* Whether the bytes begin as such a file does. */
bool torch_is_file(const struct map *map);
/* The tensors of a state dictionary, over the map; those that lie there unaligned or not row by row are copied. Of pickles only what such a dictionary is
   made of is understood; nothing is ever called. */
enum cb_status torch_read(struct tensors **tensors, struct map *map, struct cb_err *err);
#endif
