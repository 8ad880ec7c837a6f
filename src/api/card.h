/* The card of a module's folder: what it is, on which base, of what data, how it went; and whether a base is the one it was trained on. */
#ifndef API_CARD_H
#define API_CARD_H
#include "api/instance.h"
#include "base/json.h"

/* What a base is, apart from where it lies: the names and shapes of its weights, and samples of their values, read as f32. */
struct base_print {
    uint64_t shapes, values;
    bool is_quantised;
};
struct base_print base_print(const struct instance *instance);

/* Writes FOLDER/card.json. data, metrics: objects, taken over; nullable. modules: those that were on the base meanwhile; nullable. */
enum cb_status card_write(const struct instance *instance, const char *folder, const struct module *module, json_t *data, json_t *metrics,
                          const char *modules, const char *options, struct cb_err *err);
/* A folder with a card of another base is refused, with what differs, unless the engine is forced; a base in blocks is told only. */
enum cb_status card_check(const struct instance *instance, const char *folder, struct cb_err *err);
#endif
