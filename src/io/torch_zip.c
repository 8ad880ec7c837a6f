/* The directory of a zip archive (PKWARE's APPNOTE 6.3: end record, its 64-bit form, central headers, local headers) whose members are stored. */
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "base/table.h"
#include "io/torch_private.h"

#define END_BYTES 22
#define CENTRAL_BYTES 46
#define LOCAL_BYTES 30
#define MEMBERS_MAX (1 << 22)

struct zip {
    struct arena *arena;
    struct zip_member *members;
    int n;
    struct table by_name;
};

/* A little-endian number of n bytes. */
static uint64_t number(const unsigned char *p, int n) {
    uint64_t x = 0;
    while (n-- > 0) x = x << 8 | p[n];
    return x;
}

/* Where the central directory lies and how many members it has. */
struct directory {
    uint64_t n, bytes, offset;
};

static enum cb_status directory_find(struct directory *d, const struct map *map, struct cb_err *err) {
    const unsigned char *data = map_data(map);
    const size_t size = map_size(map), furthest = END_BYTES + 0xffff;
    size_t at = size >= END_BYTES ? size - END_BYTES : 0;
    // the end record is followed by a comment at most
    while (size >= END_BYTES && memcmp(data + at, "PK\5\6", 4) != 0 && at > 0 && size - at < furthest) at--;
    if (size < END_BYTES || memcmp(data + at, "PK\5\6", 4) != 0) FAIL(err, CB_E_FORMAT, "%s: no end of a zip directory", map_name(map));
    *d = (struct directory){number(data + at + 10, 2), number(data + at + 12, 4), number(data + at + 16, 4)};
    if (at >= 20 && memcmp(data + at - 20, "PK\6\7", 4) == 0) {
        uint64_t wide = number(data + at - 12, 8);
        if (size < 56 || wide > size - 56 || memcmp(data + wide, "PK\6\6", 4) != 0)
            FAIL(err, CB_E_FORMAT, "%s: its 64-bit end of directory is not where it should be", map_name(map));
        *d = (struct directory){number(data + wide + 32, 8), number(data + wide + 40, 8), number(data + wide + 48, 8)};
    }
    if (d->offset > size || d->bytes > size - d->offset || d->n > d->bytes / CENTRAL_BYTES || d->n > MEMBERS_MAX)
        FAIL(err, CB_E_FORMAT, "%s: a directory of %llu members in %llu bytes from %llu; the file has %zu", map_name(map),
             (unsigned long long)d->n, (unsigned long long)d->bytes, (unsigned long long)d->offset, size);
    return CB_OK;
}

/* Sizes and offset of a central header that are 0xffffffff stand in its extra field 1. */
static void wide_read(const unsigned char *extra, size_t n, uint64_t *bytes, uint64_t *packed, uint64_t *offset) {
    uint64_t *const value[3] = {bytes, packed, offset};
    for (size_t at = 0; at + 4 <= n;) {
        const size_t length = (size_t)number(extra + at + 2, 2);
        if (length > n - at - 4) return;
        size_t from = at + 4;
        for (int i = 0; number(extra + at, 2) == 1 && i < 3; i++) {
            if (*value[i] != 0xffffffff || from + 8 > at + 4 + length) continue;
            *value[i] = number(extra + from, 8);
            from += 8;
        }
        at += 4 + length;
    }
}

/* The next central header, at *at. */
static enum cb_status member_read(struct zip *z, size_t *at, size_t end, const struct map *map, struct cb_err *err) {
    const unsigned char *data = map_data(map), *head = data + *at;
    const size_t size = map_size(map);
    if (end - *at < CENTRAL_BYTES || memcmp(head, "PK\1\2", 4) != 0)
        FAIL(err, CB_E_FORMAT, "%s: no header of member %d in the directory", map_name(map), z->n);
    const size_t name = (size_t)number(head + 28, 2), extra = (size_t)number(head + 30, 2), comment = (size_t)number(head + 32, 2);
    uint64_t packed = number(head + 20, 4), bytes = number(head + 24, 4), offset = number(head + 42, 4);
    if (name + extra + comment > end - *at - CENTRAL_BYTES)
        FAIL(err, CB_E_FORMAT, "%s: the header of member %d passes the directory's end", map_name(map), z->n);
    wide_read(head + CENTRAL_BYTES + name, extra, &bytes, &packed, &offset);
    const char *text = arena_strndup(z->arena, (const char *)head + CENTRAL_BYTES, name);
    if (!text) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", map_name(map));
    if (number(head + 10, 2) != 0 || number(head + 8, 2) & 1 || packed != bytes)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: compressed or encrypted; wanted it stored, as torch.save does", map_name(map), text);
    if (size < LOCAL_BYTES || offset > size - LOCAL_BYTES || memcmp(data + offset, "PK\3\4", 4) != 0)
        FAIL(err, CB_E_FORMAT, "%s: %s: no member at %llu", map_name(map), text, (unsigned long long)offset);
    const uint64_t begin = offset + LOCAL_BYTES + number(data + offset + 26, 2) + number(data + offset + 28, 2);
    if (begin > size || bytes > size - begin)
        FAIL(err, CB_E_FORMAT, "%s: %s: %llu bytes from %llu; the file has %zu", map_name(map), text, (unsigned long long)bytes,
             (unsigned long long)begin, size);
    z->members[z->n] = (struct zip_member){text, (int64_t)begin, (int64_t)bytes};
    TRY(table_put(&z->by_name, text, strlen(text), z->n++, err));
    *at += CENTRAL_BYTES + name + extra + comment;
    return CB_OK;
}

static enum cb_status members_read(struct zip *z, const struct map *map, struct cb_err *err) {
    struct directory d = {0};
    TRY(directory_find(&d, map, err));
    z->members = arena_array(z->arena, d.n + 1, sizeof *z->members);
    if (!z->members) FAIL(err, CB_E_MEMORY, "%s: no memory for %llu members", map_name(map), (unsigned long long)d.n);
    size_t at = d.offset;
    for (uint64_t i = 0; i < d.n; i++) TRY(member_read(z, &at, d.offset + d.bytes, map, err));
    return CB_OK;
}

enum cb_status zip_open(struct zip **zip, struct map *map, struct cb_err *err) {
    struct arena *arena = arena_create();
    struct zip *z = *zip = arena ? arena_alloc(arena, sizeof *z) : NULL;
    if (!z) {
        arena_destroy(&arena);
        FAIL(err, CB_E_MEMORY, "%s: no memory for an archive", map_name(map));
    }
    z->arena = arena;
    enum cb_status status = members_read(z, map, err);
    if (status != CB_OK) zip_destroy(zip);
    return status;
}

void zip_destroy(struct zip **zip) {
    if (!*zip) return;
    struct arena *arena = (*zip)->arena;
    table_deinit(&(*zip)->by_name);
    *zip = NULL;
    arena_destroy(&arena);
}

const struct zip_member *zip_find(const struct zip *zip, const char *name) {
    int64_t i = table_get(&zip->by_name, name, strlen(name));
    return i < 0 ? NULL : &zip->members[i];
}

const struct zip_member *zip_find_end(const struct zip *zip, const char *end) {
    for (int i = 0; i < zip->n; i++)
        if (name_ends(zip->members[i].name, end)) return &zip->members[i];
    return NULL;
}
