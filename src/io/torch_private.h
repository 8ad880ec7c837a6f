/* What the files of torch.save are made of: a pickle's values, and the members of a zip archive. */
#ifndef IO_TORCH_PRIVATE_H
#define IO_TORCH_PRIVATE_H
#include "base/arena.h"
#include "io/torch.h"

/* torch_pickle.c */
enum kind { NOTHING, NUMBER, TEXT, TUPLE, DICTIONARY, NAME, STORAGE, TENSOR, MARK };

struct value {
    enum kind kind;
    int64_t number;  // NUMBER; STORAGE: its elements
    const char *text;  // TEXT, NAME ("torch.FloatStorage"), STORAGE (the member's name)
    struct value **item;  // TUPLE (or list); DICTIONARY: keys and values by turns
    int n, room;
    struct cb_type type;  // STORAGE: of its elements; TENSOR
    const struct value *storage;  // TENSOR
    int64_t offset;  // TENSOR: its first element
    const struct value *strides;  // TENSOR: of its axes, in elements; NULL: rows lie one after another
};
/* Runs the pickle at *at up to its end, which *at then is. Values are in the arena. */
enum cb_status pickle_run(struct value **root, struct arena *arena, const char *where, const unsigned char **at, const unsigned char *end,
                          struct cb_err *err);

/* torch_zip.c: where the members of an archive lie. */
struct zip_member {
    const char *name;  // borrowed
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
