/* A whole file in memory, read-only: mapped, or read to the heap where that is not possible; reference counted. */
#ifndef IO_MAP_H
#define IO_MAP_H
#include "base/err.h"

struct map;

/* One reference, release with map_release. The file must not shrink while it is mapped. */
enum cb_status map_open(struct map **map, const char *path, struct cb_err *err);
/* A copy of bytes under a name, for tests and for files made in memory. */
enum cb_status map_copy(struct map **map, const void *bytes, size_t n, const char *name, struct cb_err *err);
/* n bytes of 0 on the heap, at *bytes, which the caller may fill until others hold a reference. */
enum cb_status map_create(struct map **map, unsigned char **bytes, size_t n, const char *name, struct cb_err *err);
/* Another reference; returns map. Any thread. */
struct map *map_retain(struct map *map);
/* Gives up one reference and nulls *map. Nullable: *map. Any thread. */
void map_release(struct map **map);

const unsigned char *map_data(const struct map *map);
size_t map_size(const struct map *map);
/* Bytes [begin, begin + n) from `data`, which lies in the map, are not needed soon: their pages count no longer as this process's memory. They stay readable. */
void map_forget(const struct map *map, const void *data, size_t begin, size_t n);
const char *map_name(const struct map *map);  // the path, as it was given
#endif
