/* (made next) */
#include "api/convert.h"
enum cb_status gguf_put_vocabulary(struct gguf_builder *keys, const char *folder, const struct model *model, struct cb_engine *engine,
                                   struct cb_err *err) {
    (void)keys;
    (void)folder;
    (void)model;
    (void)engine;
    (void)err;
    return CB_OK;
}
