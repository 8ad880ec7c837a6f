/* cb_list: the registries as text, JSON or a document. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "backend/cpu/cpu.h"
#include "base/json.h"
#include "merge/lora.h"
#include "models/model.h"
#include "modules/tuner.h"
#include "ops/ops.h"
#include "train/opt.h"

/* One entry: name, one sentence, and all about it as a JSON object. */
struct entry {
    const char *name, *doc;
    json_t *more;
};

struct listing {
    struct entry *entries;
    int n, size;
    bool failed;
};

static void add(struct listing *l, const char *name, const char *doc, json_t *more) {
    if (l->n == l->size) {
        int size = l->size ? 2 * l->size : 64;
        struct entry *bigger = realloc(l->entries, (size_t)size * sizeof *bigger);
        if (!bigger) {
            l->failed = true;
            json_decref(more);
            return;
        }
        l->entries = bigger;
        l->size = size;
    }
    l->entries[l->n++] = (struct entry){name, doc, more};
}

static json_t *strings(const char *const *list) {
    json_t *array = json_array();
    for (; list && *list; list++) json_array_append_new(array, json_string(*list));
    return array;
}

static const char *attr_kind_name(enum attr_kind kind) {
    static const char *const names[] = {"bool", "int", "float", "ints", "str", "ptr"};
    return names[kind];
}

static json_t *op_kernels(const char *op) {
    json_t *array = json_array();
    for (int f = 0; backend_cpu.files[f]; f++)
        for (const struct kernel *k = backend_cpu.files[f]; k->op; k++)
            if (strcmp(k->op, op) == 0) json_array_append_new(array, json_string(k->name));
    return array;
}

static void list_ops(struct listing *l) {
    const struct op_table *table = ops_table();
    for (int f = 0; table->files[f]; f++)
        for (int i = 0; table->files[f][i]; i++) {
            const struct op *op = table->files[f][i];
            json_t *more = json_object(), *attrs = json_object();
            for (const struct attr_field *a = op->attrs; a && a->name; a++)
                json_object_set_new(attrs, a->name, json_string(attr_kind_name(a->kind)));
            json_object_set_new(more, "inputs", strings(op->in_names));
            json_object_set_new(more, "outputs", strings(op->out_names));
            json_object_set_new(more, "attributes", attrs);
            json_object_set_new(more, "differentiable", json_boolean(op->grad || op->expand));
            json_object_set_new(more, "kernels", op_kernels(op->name));
            add(l, op->name, op->doc, more);
        }
}

static void list_kernels(struct listing *l) {
    for (int f = 0; backend_cpu.files[f]; f++)
        for (const struct kernel *k = backend_cpu.files[f]; k->op; k++) {
            json_t *more = json_object();
            json_object_set_new(more, "kernel", json_string(k->name));
            json_object_set_new(more, "priority", json_integer(k->priority));
            add(l, k->op, k->name, more);
        }
}

static void list_models(struct listing *l) {
    int n;
    const struct family *const *all = model_families(&n);
    for (int i = 0; i < n; i++) {
        json_t *more = json_object();
        json_object_set_new(more, "model_types", strings(all[i]->model_types));
        json_t *classes = json_array();
        char name[MODEL_CLASS_NAME];
        const struct model_class *class;
        for (int k = 0; (class = model_class_at(all[i], k)); k++)
            if (model_class_name(name, all[i], class)) json_array_append_new(classes, json_string(name));
        json_object_set_new(more, "architectures", classes);
        add(l, all[i]->name, all[i]->doc, more);
    }
}

static void list_tuners(struct listing *l) {
    int n;
    const struct tuner *const *all = tuners(&n);
    for (int i = 0; i < n; i++) {
        json_t *more = json_object(), *options = json_object();
        for (const struct tuner_option *o = all[i]->options; o && o->name; o++) json_object_set_new(options, o->name, json_string(o->doc));
        if (all[i]->peft_type) json_object_set_new(more, "peft_type", json_string(all[i]->peft_type));
        json_object_set_new(more, "options", options);
        json_object_set_new(more, "scaling", json_string(all[i]->scaling));
        json_object_set_new(more, "folds", json_boolean(all[i]->weight || all[i]->bias));
        add(l, all[i]->name, all[i]->doc, more);
        for (const struct tuner_preset *p = all[i]->presets; p && p->name; p++) {
            more = json_object();
            json_object_set_new(more, "tuner", json_string(all[i]->name));
            json_object_set_new(more, "sets", json_string(p->config));
            add(l, p->name, p->doc, more);
        }
    }
}

static void list_optimizers(struct listing *l) {
    for (int i = 0; opt_at(i); i++) {
        const struct optimizer *opt = opt_at(i);
        json_t *more = json_object(), *options = json_object();
        for (int k = 0; k < OPT_MAX_OPTIONS && opt->options[k].name; k++)
            json_object_set_new(options, opt->options[k].name, json_real(opt->options[k].value));
        json_object_set_new(more, "options", options);
        add(l, opt->name, opt->doc, more);
    }
}

static void list_merge(struct listing *l, const struct merge_method *m, const char *what) {
    static const char *const bases[] = {"none", "one of two", "optional", "wanted"};
    json_t *more = json_object(), *options = json_object();
    for (int k = 0; k < MERGE_MAX_OPTIONS && m->options[k].name; k++)
        json_object_set_new(options, m->options[k].name, json_string(m->options[k].doc));
    json_object_set_new(more, "of", json_string(what));
    json_object_set_new(more, "options", options);
    json_object_set_new(more, "base_model", json_string(bases[m->base]));
    json_object_set_new(more, "random", json_boolean(m->random));
    add(l, m->name, m->doc, more);
}

static void list_merges(struct listing *l) {
    for (int i = 0; merge_method_at(i); i++) list_merge(l, merge_method_at(i), "models, and changes of modules (convention: mergekit)");
}

/* Those of modules, by the names that PEFT has for them. */
static void list_module_merges(struct listing *l) {
    for (int i = 0; lora_method_at(i); i++) list_merge(l, lora_method_at(i), "modules");
}

static void list_dtypes(struct listing *l) {
    for (int i = 0; i < CB_DTYPE_COUNT; i++) {
        const struct dtype *d = dtype_of((enum cb_dtype)i);
        json_t *more = json_object();
        json_object_set_new(more, "elements_per_block", json_integer(d->block));
        json_object_set_new(more, "bytes_per_block", json_integer(d->block_bytes));
        add(l, d->name, d->is_quantised ? "blocks of quantised values" : d->is_float ? "floating point" : "integers", more);
    }
}

static const struct {
    const char *kind;
    void (*list)(struct listing *l);
} kinds[] = {{"ops", list_ops},
             {"kernels", list_kernels},
             {"models", list_models},
             {"tuners", list_tuners},
             {"optimizers", list_optimizers},
             {"dtypes", list_dtypes},
             {"merges", list_merges},
             {"module-merges", list_module_merges}};

static void print_value(FILE *f, const char *key, const json_t *value) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(10));
    fprintf(f, "  %-16s %s\n", key, text ? text : "");
    free(text);
}

/* One line of a document; what is empty is left out. */
static void print_item(FILE *f, const char *key, const json_t *value) {
    const char *name;
    json_t *part;
    size_t i;
    if ((json_is_array(value) && !json_array_size(value)) || (json_is_object(value) && !json_object_size(value))) return;
    fprintf(f, "- %s: ", key);
    if (json_is_array(value)) {
        json_array_foreach(value, i, part) fprintf(f, "%s`%s`", i ? ", " : "", json_string_value(part));
    } else if (json_is_object(value)) {
        bool first = true;
        json_object_foreach((json_t *)value, name, part) {
            char *text = json_is_string(part) ? NULL : json_dumps(part, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
            fprintf(f, "%s`%s` (%s)", first ? "" : ", ", name, text ? text : json_is_string(part) ? json_string_value(part) : "");
            free(text);
            first = false;
        }
    } else if (json_is_boolean(value)) {
        fputs(json_is_true(value) ? "yes" : "no", f);
    } else {
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
        fputs(text ? text : json_is_string(value) ? json_string_value(value) : "", f);
        free(text);
    }
    fputc('\n', f);
}

static void print_entry(FILE *f, const struct entry *e, const char *format, bool all, bool first) {
    const char *key;
    json_t *value;
    if (strcmp(format, "json") == 0) {
        json_object_set_new(e->more, "name", json_string(e->name));
        json_object_set_new(e->more, "doc", json_string(e->doc));
        char *text = json_dumps(e->more, JSON_COMPACT | JSON_REAL_PRECISION(10));
        fprintf(f, "%s%s", first ? "" : ", ", text ? text : "{}");
        free(text);
    } else if (strcmp(format, "markdown") == 0) {
        fprintf(f, "## %s\n%s\n\n", e->name, e->doc);
        json_object_foreach(e->more, key, value) print_item(f, key, value);
        fputc('\n', f);
    } else {
        fprintf(f, "%-24s %s\n", e->name, e->doc);
        if (all) json_object_foreach(e->more, key, value) print_value(f, key, value);
    }
}

enum cb_status cb_list(const char *kind, const char *name, const char *format, char **text, struct cb_err *err) {
    struct listing l = {0};
    size_t n;
    *text = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].kind, kind) == 0) kinds[i].list(&l);
    if (!l.n)
        FAIL(err, CB_E_USAGE, "list: no '%s'; wanted ops, kernels, models, tuners, optimizers, merges, module-merges or dtypes", kind);
    FILE *f = open_memstream(text, &n);
    bool json = strcmp(format, "json") == 0, found = false;
    if (f && json) fprintf(f, "{\"%s\": [", kind);
    if (f && strcmp(format, "markdown") == 0) fprintf(f, "# %s\n\nGenerated by `cambium list %s --markdown`.\n\n", kind, kind);
    for (int i = 0; i < l.n && f; i++) {
        if (name && strcmp(name, l.entries[i].name) != 0) continue;
        print_entry(f, &l.entries[i], format, name != NULL, !found);
        found = true;
    }
    if (f && json) fputs("]}", f);
    for (int i = 0; i < l.n; i++) json_decref(l.entries[i].more);
    free(l.entries);
    if (!f || fclose(f) || l.failed) FAIL(err, CB_E_MEMORY, "list: out of memory");
    if (!found) {
        free(*text);
        *text = NULL;
        FAIL(err, CB_E_NAME, "list %s: no '%s'", kind, name);
    }
    return CB_OK;
}
