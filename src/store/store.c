/* Named buffers with a type and a place, on the heap or over mapped files. */
#include "store/store.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/table.h"
#include "io/map.h"

#define BIG_BYTES ((int64_t)2 << 20)  // from here on whole pages from the system, huge ones if it has them

// An entry and what it owns; the public part comes first.
struct slot {
    struct store_entry entry;
    struct map *map;  // STORE_MAP
    char name[];
};

struct store {
    struct table by_name;  // to the slot's address
    struct slot **slots;  // in order of addition
    int n_slots, room;
    int64_t bytes[2];
};

static struct slot *slot_of(const struct store_entry *entry) { return (struct slot *)(uintptr_t)entry; }

enum cb_status store_create(struct store **store, struct cb_err *err) {
    *store = calloc(1, sizeof **store);
    if (!*store) FAIL(err, CB_E_MEMORY, "store: out of memory");
    return CB_OK;
}

// ---- memory of heap entries: zeroed, and at least one byte

static size_t heap_size(int64_t bytes) {
    return bytes >= BIG_BYTES ? ((size_t)bytes + 4095) & ~(size_t)4095 : ((size_t)bytes + 64) & ~(size_t)63;
}

static void *heap_take(int64_t bytes) {
    size_t size = heap_size(bytes);
    if (bytes < BIG_BYTES) {
        void *data = aligned_alloc(64, size);
        return data ? memset(data, 0, size) : NULL;
    }
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(data, size, MADV_HUGEPAGE);
#endif
    return data;
}

static void heap_give(void *data, int64_t bytes) {
    if (bytes >= BIG_BYTES)
        munmap(data, heap_size(bytes));
    else
        free(data);
}

static void slot_data_free(struct slot *slot) {
    if (slot->entry.place == STORE_HEAP && slot->entry.data) heap_give(slot->entry.data, slot->entry.bytes);
    map_release(&slot->map);
    slot->entry.data = NULL;
}

void store_destroy(struct store **store) {
    struct store *s = store ? *store : NULL;
    if (!s) return;
    for (int i = 0; i < s->n_slots; i++) {
        slot_data_free(s->slots[i]);
        free(s->slots[i]);
    }
    table_deinit(&s->by_name);
    free(s->slots);
    free(s);
    *store = NULL;
}

// ---- adding

static enum cb_status slot_make(struct slot **out, const struct store *store, const char *name, struct cb_type type, struct cb_err *err) {
    TRY(type_check(&type, name, err));
    if (store_find(store, name)) FAIL(err, CB_E_NAME, "%s: the store has a parameter of this name; wanted a new one", name);
    size_t n = strlen(name);
    *out = calloc(1, sizeof **out + n + 1);
    if (!*out) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    memcpy((*out)->name, name, n);
    (*out)->entry = (struct store_entry){.name = (*out)->name, .type = type, .bytes = type_bytes(&type)};
    return CB_OK;
}

// Takes ownership of slot on success.
static enum cb_status slot_insert(struct store *store, struct slot *slot, struct cb_err *err) {
    if (store->n_slots == store->room) {
        int room = store->room ? store->room * 2 : 64;
        struct slot **slots = realloc(store->slots, (size_t)room * sizeof *slots);
        if (!slots) FAIL(err, CB_E_MEMORY, "%s: out of memory", slot->name);
        store->slots = slots;
        store->room = room;
    }
    TRY(table_put(&store->by_name, slot->name, strlen(slot->name), (int64_t)(intptr_t)slot, err));
    store->slots[store->n_slots++] = slot;
    store->bytes[slot->entry.place] += slot->entry.bytes;
    return CB_OK;
}

static enum cb_status slot_heap(struct slot *slot, struct cb_err *err) {
    slot->entry.place = STORE_HEAP;
    slot->entry.data = heap_take(slot->entry.bytes);
    if (!slot->entry.data) FAIL(err, CB_E_MEMORY, "%s: out of memory for %lld bytes", slot->name, (long long)slot->entry.bytes);
    return CB_OK;
}

static enum cb_status slot_finish(struct store *store, struct slot *slot, enum cb_status status, struct store_entry **entry,
                                  struct cb_err *err) {
    if (status == CB_OK) status = slot_insert(store, slot, err);
    if (status != CB_OK) {
        slot_data_free(slot);
        free(slot);
        return status;
    }
    if (entry) *entry = &slot->entry;
    return CB_OK;
}

enum cb_status store_add(struct store *store, const char *name, struct cb_type type, struct store_entry **entry, struct cb_err *err) {
    struct slot *slot = NULL;
    TRY(slot_make(&slot, store, name, type, err));
    return slot_finish(store, slot, slot_heap(slot, err), entry, err);
}

enum cb_status store_add_map(struct store *store, const char *name, struct cb_type type, struct map *map, int64_t offset,
                             struct store_entry **entry, struct cb_err *err) {
    struct slot *slot = NULL;
    TRY(slot_make(&slot, store, name, type, err));
    enum cb_status status = CB_OK;
    int64_t bytes = slot->entry.bytes, size = (int64_t)map_size(map);
    if (offset < 0 || offset > size || bytes > size - offset) {
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: %lld bytes from %lld of %s; it has %lld", name, (long long)bytes,
                         (long long)offset, map_name(map), (long long)size);
        return slot_finish(store, slot, status, entry, err);
    }
    const unsigned char *data = map_data(map) + offset;
    const struct dtype *d = dtype_of(type.dtype);
    uintptr_t align = d->is_quantised ? 2 : (uintptr_t)d->block_bytes;
    if ((uintptr_t)data % align) {
        status = slot_heap(slot, err);
        if (status == CB_OK) memcpy(slot->entry.data, data, (size_t)bytes);
    } else {
        slot->entry.place = STORE_MAP;
        slot->entry.data = (void *)(uintptr_t)data;
        slot->map = map_retain(map);
    }
    return slot_finish(store, slot, status, entry, err);
}

enum cb_status store_add_alias(struct store *store, const char *name, const char *of, struct cb_err *err) {
    const struct store_entry *from = store_find(store, of);
    struct slot *slot = NULL;
    if (!from) FAIL(err, CB_E_NAME, "%s: not in the store", of);
    TRY(slot_make(&slot, store, name, from->type, err));
    enum cb_status status = CB_OK;
    slot->entry.turned = from->turned;
    if (from->place == STORE_MAP) {
        slot->entry.place = STORE_MAP;
        slot->entry.data = from->data;
        slot->map = map_retain(slot_of(from)->map);
    } else {
        status = slot_heap(slot, err);
        if (status == CB_OK) memcpy(slot->entry.data, from->data, (size_t)from->bytes);
    }
    return slot_finish(store, slot, status, NULL, err);
}

// ---- looking up and removing

struct store_entry *store_find(const struct store *store, const char *name) {
    int64_t value = table_get(&store->by_name, name, strlen(name));
    return value == -1 ? NULL : &((struct slot *)(intptr_t)value)->entry;
}

void store_remove(struct store *store, const char *name) {
    struct store_entry *entry = store_find(store, name);
    if (!entry) return;
    struct slot *slot = slot_of(entry);
    int i = 0;
    while (store->slots[i] != slot) i++;
    memmove(store->slots + i, store->slots + i + 1, (size_t)(store->n_slots - i - 1) * sizeof *store->slots);
    store->n_slots--;
    store->bytes[entry->place] -= entry->bytes;
    table_remove(&store->by_name, slot->name, strlen(slot->name));
    slot_data_free(slot);
    free(slot);
}

int store_count(const struct store *store) { return store->n_slots; }
struct store_entry *store_at(const struct store *store, int i) {
    return &store->slots[i]->entry;
}
int64_t store_bytes(const struct store *store, enum store_place place) { return store->bytes[place]; }

// ---- converting

/* The transpose of a matrix, converted; to: a plain type. A row at a time is read as f32. */
static enum cb_status turn(void *out, enum cb_dtype to, const struct store_entry *entry, struct cb_err *err) {
    const int64_t rows = entry->type.dim[0], columns = entry->type.dim[1];
    const struct dtype *from = dtype_of(entry->type.dtype), *kind = dtype_of(to);
    if (kind->is_quantised) FAIL(err, CB_E_DTYPE, "%s: cannot be turned in %s; wanted a plain type", entry->name, kind->name);
    float *row = malloc((size_t)columns * sizeof *row);
    if (!row) FAIL(err, CB_E_MEMORY, "%s: out of memory for a row of %lld", entry->name, (long long)columns);
    for (int64_t r = 0; r < rows; r++) {
        from->to_f32(row, (const char *)entry->data + r * (entry->bytes / rows), columns);
        for (int64_t c = 0; c < columns; c++) kind->from_f32((char *)out + (c * rows + r) * kind->block_bytes, row + c, 1);
    }
    free(row);
    return CB_OK;
}

enum cb_status store_make(struct store *store, struct store_entry *entry, enum cb_dtype dtype, bool writable, struct cb_err *err) {
    char text[TYPE_TEXT];
    struct slot *slot = slot_of(entry);
    struct cb_type type = entry->type;
    if (type.dtype == dtype && (!writable || (entry->place == STORE_HEAP && !entry->turned))) return CB_OK;
    type.dtype = dtype;
    if (entry->turned) type.dim[0] = entry->type.dim[1], type.dim[1] = entry->type.dim[0];
    TRY(type_check(&type, entry->name, err));
    const struct dtype *from = dtype_of(entry->type.dtype), *to = dtype_of(dtype);
    bool number = (from->is_float || from->is_quantised) && (to->is_float || to->is_quantised) && to->from_f32;
    // whole numbers would lose digits on the way through f32
    if (entry->type.dtype != dtype && !number)
        FAIL(err, CB_E_DTYPE, "%s: cannot make %s of %s; wanted floating-point types", entry->name, to->name,
             type_text(&entry->type, text));
    int64_t bytes = type_bytes(&type);
    void *data = heap_take(bytes);
    if (!data) FAIL(err, CB_E_MEMORY, "%s: out of memory for %lld bytes", entry->name, (long long)bytes);
    enum cb_status status = entry->turned ? turn(data, dtype, entry, err) : CB_OK;
    if (status != CB_OK) {
        heap_give(data, bytes);
        return status;
    }
    if (!entry->turned) dtype_convert(data, dtype, entry->data, entry->type.dtype, type_elements(&type));
    entry->turned = false;
    store->bytes[entry->place] -= entry->bytes;
    slot_data_free(slot);
    entry->type = type;
    entry->data = data;
    entry->bytes = bytes;
    entry->place = STORE_HEAP;
    store->bytes[STORE_HEAP] += bytes;
    return CB_OK;
}
