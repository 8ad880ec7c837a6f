/* Lists the files of text inputs. Private to this room. */
#ifndef DATA_WALK_H
#define DATA_WALK_H
#include "data/source.h"

struct walk {
    struct source_file *file;
    int64_t n, capacity;
};
/* Adds a file, or all files of a folder, sorted by name, subfolders in their place. Nothing hidden; links are followed, but not into a folder that holds
   them. */
enum cb_status walk_add(struct walk *walk, const char *path, struct cb_err *err);
void walk_deinit(struct walk *walk);
#endif
