/* Stores as the memory of a plan's params. */
#include <string.h>

#include "graph/plan.h"
#include "store/store.h"

enum cb_dtype store_dtype(void *store, const char *name) {
    const struct store_entry *entry = store_find(store, name);
    return entry ? entry->type.dtype : CB_DTYPE_F32;
}

bool store_turned(void *store, const char *name) {
    const struct store_entry *entry = store_find(store, name);
    return entry && entry->turned;
}

enum cb_status store_bind(const struct store *store, struct store *cache, bool all, struct plan *plan, struct cb_err *err) {
    for (int i = 0; i < plan_n_slots(plan); i++) {
        const struct plan_slot *slot = plan_slot(plan, i);
        if (!slot->is_param) continue;
        struct store_entry *entry = store_find(store, slot->name);
        if (!entry && cache) entry = store_find(cache, slot->name);
        if (!entry && cache && strncmp(slot->name, "cache.", 6) == 0) TRY(store_add(cache, slot->name, slot->type, &entry, err));
        if (!entry && all) FAIL(err, CB_E_NAME, "%s: not among the weights; the model wants it", slot->name);
        if (!entry) continue;
        if (!type_equal(&entry->type, &slot->type)) {
            char have[TYPE_TEXT], want[TYPE_TEXT];
            FAIL(err, CB_E_SHAPE, "%s: %s in the store; the graph wants %s", slot->name, type_text(&entry->type, have),
                 type_text(&slot->type, want));
        }
        plan_bind(plan, i, entry->data);
    }
    return CB_OK;
}
