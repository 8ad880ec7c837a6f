/* Which parameters learn how fast, and from when on: rates by name, and layers unfrozen one after another. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/training.h"
#include "base/pattern.h"

/* "PATTERN=X": parameters whose whole names match learn at X times the schedule's rate. */
static enum cb_status scale_apply(struct training *t, const char *text, struct cb_err *err) {
    const char *equals = strrchr(text, '=');
    char *end = NULL, *name = equals ? strndup(text, (size_t)(equals - text)) : NULL;
    double scale = equals ? strtod(equals + 1, &end) : 0;
    struct pattern *pattern = NULL;
    int n = 0;
    if (!equals || end == equals + 1 || *end || !(scale >= 0) || isinf(scale)) {
        free(name);
        FAIL(err, CB_E_USAGE, "--lr-scale %s: wanted PATTERN=X with X from 0", text);
    }
    if (!name) FAIL(err, CB_E_MEMORY, "training: out of memory");
    enum cb_status status = pattern_create(&pattern, name, "--lr-scale", err);
    for (int i = 0; status == CB_OK && i < t->n_params; i++) {
        bool matches = false;
        status = pattern_matches(pattern, t->params[i].value->name, &matches, err);
        if (matches) t->params[i].lr_scale = scale;
        n += matches;
    }
    pattern_destroy(&pattern);
    if (status == CB_OK && !n)
        status = err_set(err, CB_E_NAME, __FILE__, __LINE__,
                         "--lr-scale %s: no trained parameter has such a name; wanted a regular expression for whole names (%s, ...)", name,
                         t->n_params ? t->params[0].value->name : "none is trained");
    free(name);
    return status;
}

/* Gradual unfreezing (Howard and Ruder 2018, ULMFiT): what is above the layers and the last layer learn at once, each layer before `every` steps after
   the one that follows it, what is before all layers last. */
static void unfreeze(struct training *t, int64_t every) {
    const int64_t layers = training_layers(t->instance.model);
    for (int i = 0; i < t->n_params; i++) {
        const char *name = t->params[i].value->name;
        int64_t layer = training_layer_of(name);
        if (layer >= 0)
            t->params[i].from_step = (layers - 1 - (layer < layers ? layer : layers - 1)) * every;
        else if (training_is_before_layers(t->instance.model, name))
            t->params[i].from_step = layers * every;
    }
}

enum cb_status training_groups(struct training *t, const struct training_options *o, struct cb_err *err) {
    for (int i = 0; i < o->n_lr_scales; i++) TRY(scale_apply(t, o->lr_scales[i], err));
    if (o->unfreeze > 0) unfreeze(t, o->unfreeze);
    return CB_OK;
}
