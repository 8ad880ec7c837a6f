/* Files of torch.save: a zip archive whose members are stored as they are, one of them a pickle that builds a dictionary of tensors. */
#ifndef IO_TORCH_H
#define IO_TORCH_H
#include "io/safetensors.h"

/* Whether the bytes begin as a zip archive does. */
bool torch_is_archive(const struct map *map);
/* The tensors of a state dictionary, over the map. Of pickles only what such a dictionary is made of is understood; nothing is ever called. */
enum cb_status torch_read(struct tensors **tensors, struct map *map, struct cb_err *err);

/* torch_zip.c: where the members of an archive lie. */
struct zip_member {
    const char *name;  // in the archive's arena
    int64_t offset, bytes;
};
struct zip;
enum cb_status zip_open(struct zip **zip, struct map *map, struct cb_err *err);
void zip_destroy(struct zip **zip);
/* NULL where there is none. */
const struct zip_member *zip_find(const struct zip *zip, const char *name);
/* The first whose name ends so; NULL: none. */
const struct zip_member *zip_find_end(const struct zip *zip, const char *end);
#endif
