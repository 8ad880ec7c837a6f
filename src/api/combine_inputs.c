/* Alignment and statistics of the models that are merged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/combine.h"
#include "api/measure.h"
#include "io/file.h"

enum { SAMPLES = 64 };

static void set_order(void *context, int model, const char *tensor, struct merge_input *in) {
    const struct combine_inputs *c = context;
    if (c->aligned[model]) align_input(c->aligned[model], tensor, in);
}

static enum cb_status align_all(struct combine_inputs *c, struct cb_engine *engine, const struct merge_plan *plan, struct cb_err *err) {
    if (plan->recipe->is_sliced) FAIL(err, CB_E_UNSUPPORTED, "%s: --align wants whole models; found slices", plan->recipe->name);
    for (int i = 0; i < plan->n_models; i++) {
        if (i == plan->donor) continue;
        TRY(align_models(&c->aligned[i], engine, plan->models[plan->donor].path, plan->models[i].path, err));
        char line[300];
        snprintf(line, sizeof line, "%.200s: %lld units and heads change places", plan->models[i].path,
                 (long long)align_moved(c->aligned[i]));
        struct cb_progress p = {.verb = "align", .done = i + 1, .total = plan->n_models, .seconds = -1, .seconds_left = -1, .text = line};
        p.loss = p.valid_loss = p.rate = -1;
        engine_progress(engine, &p);
    }
    c->alignment = (struct merge_alignment){set_order, c};
    return CB_OK;
}

/* The weight of a file's name: files of the bare body lack the first part. */
static const struct tensor *find_measured(const struct tensors *t, const char *name) {
    const struct tensor *found = tensors_find(t, name);
    const size_t n = strlen(name);
    for (int i = 0; i < tensors_count(t) && !found; i++) {
        const char *other = tensors_at(t, i)->name, *dot = strchr(other, '.');
        if (dot && strlen(dot + 1) == n && !strcmp(dot + 1, name)) found = tensors_at(t, i);
    }
    return found;
}

static enum cb_status find_statistic(void *context, int model, const char *tensor, const struct tensor **found, bool *in_out,
                                     struct cb_err *err) {
    const struct combine_inputs *c = context;
    const struct merge_method *m = c->plan->method;
    *found = find_measured(c->measured[model], tensor);
    if (!*found && m->statistic_in_tiles)
        FAIL(err, CB_E_NAME, "%s: %s: nothing measured of it; wanted its %s", c->plan->models[model].path, tensor, m->statistic);
    for (int i = 0; *found && i < c->sites.sites.n_sites; i++) {
        const struct nn_site *s = c->sites.sites.sites[i];
        if (s->weight && !strcmp(s->weight, (*found)->name)) *in_out = s->weight_is_in_out;
    }
    return CB_OK;
}

static enum cb_status measure_all(struct combine_inputs *c, struct cb_engine *engine, const struct cb_combine_options *o,
                                  const struct merge_plan *plan, struct cb_err *err) {
    const char *kind = plan->method->statistic;
    if (!o->n_text) FAIL(err, CB_E_USAGE, "%s: measures each model on text; wanted --text FILE", plan->method->name);
    if (o->align)
        FAIL(err, CB_E_UNSUPPORTED, "%s: with --align; wanted one of them (align first, then merge the result)", plan->method->name);
    const bool is_file = gguf_is_path(o->out);
    if (!is_file) TRY(io_mkdirs(o->out, err));
    TRY(instance_open(&c->sites, engine, plan->models[plan->donor].path, NULL, err));
    TRY(instance_sites(&c->sites, err));
    struct measure_options mo = {.text = o->text, .n_text = o->n_text, .samples = o->samples ? o->samples : SAMPLES};
    mo.gram = !plan->method->statistic_in_tiles;
    for (int i = 0; i < plan->n_models; i++) {
        char path[4200];
        // mapped, so the name may go at once
        snprintf(path, sizeof path, "%.4000s%c%s-%d.safetensors", o->out, is_file ? '.' : '/', kind, i);
        enum cb_status status = measure_model(engine, plan->models[i].path, &mo, path, err);
        if (status == CB_OK) status = tensors_open(&c->measured[i], path, err);
        unlink(path);
        TRY(status);
    }
    c->statistics = (struct merge_statistics){find_statistic, c};
    return CB_OK;
}

enum cb_status combine_inputs_open(struct combine_inputs *c, struct cb_engine *engine, const struct cb_combine_options *options,
                                   const struct merge_plan *plan, struct cb_err *err) {
    *c = (struct combine_inputs){.plan = plan};
    if (plan->method->statistic) TRY(measure_all(c, engine, options, plan, err));
    return options->align ? align_all(c, engine, plan, err) : CB_OK;
}

void combine_inputs_close(struct combine_inputs *c) {
    for (int i = 0; c->plan && i < c->plan->n_models; i++) {
        align_destroy(&c->aligned[i]);
        tensors_destroy(&c->measured[i]);
    }
    if (c->sites.engine) instance_close(&c->sites);
}

const struct merge_alignment *combine_alignment(const struct combine_inputs *c) { return c->alignment.set ? &c->alignment : NULL; }
const struct merge_statistics *combine_statistics(const struct combine_inputs *c) { return c->statistics.find ? &c->statistics : NULL; }
