/* Allocations of the library's own objects, counted, and one of them failing on demand (linked with --wrap). */
#ifndef TESTS_OOM_WRAP_H
#define TESTS_OOM_WRAP_H
#include <stdbool.h>
#include <stddef.h>

/* From now on the k-th allocation fails (1 is the next); 0: none does. */
void wrap_fail_at(long k);
/* Allocations since wrap_fail_at. */
long wrap_count(void);
/* Blocks that are allocated now. */
long wrap_live(void);
/* Where the failed allocation was asked for: return addresses, innermost first; their number. */
int wrap_site(void *address[12]);
/* Prints the sites of blocks made since the call of wrap_fail_at that are still allocated. */
void wrap_print_live(void);
#endif
