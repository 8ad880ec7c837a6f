/* The card of a module's folder: what it is, on which base, of what data, how it went; and whether a base is the one it was trained on. */
#ifndef API_CARD_H
#define API_CARD_H
#include "api/instance.h"
#include "base/json.h"

/* Writes FOLDER/card.json. data, metrics: objects, taken over; nullable. modules: those that were on the base meanwhile; nullable. */
enum cb_status card_write(const struct instance *instance, const char *folder, const struct module *module, json_t *data, json_t *metrics,
                          const char *modules, const char *options, struct cb_err *err);
/* A folder with a card of another base is refused, with what differs, unless the engine is forced; a base whose number type differs is
   taken and told where a sample of its weights is near enough that rounding explains the rest. */
enum cb_status card_check(const struct instance *instance, const char *folder, struct cb_err *err);
#endif
