/* What run a checkpoint is of: the options, data and frozen weights that later steps depend on, compared before a run goes on. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/train.h"
#include "base/hash.h"
#include "train/ckpt.h"

#define BLOCK 4096

static void put(struct run *r, const char *key, json_t *value) {
    if (json_object_set_new(r->identity, key, value)) r->is_identity_short = true;
}

/* Of several data sets by name. */
static void put_of_set(struct run *r, const struct data_set *set, const char *what, json_t *value) {
    char key[120];
    snprintf(key, sizeof key, "%s%s%s", what, set->name ? " of " : "", set->name ? set->name : "");
    put(r, key, value);
}

/* The optimiser and each of its options as they are in force. */
static void put_optimizer(struct run *r, const struct trainer_options *t) {
    char key[64];
    put(r, "--optimizer", json_string(t->opt->name));
    for (int i = 0; i < OPT_MAX_OPTIONS && t->opt->options[i].name; i++) {
        snprintf(key, sizeof key, "--optimizer %s", t->opt->options[i].name);
        put(r, key, json_real(t->option[i]));
    }
}

/* A corpus by its contents, so that files may be moved: counts and a hash of all ids. */
static enum cb_status corpus_text(const struct corpus *corpus, json_t **text, struct cb_err *err) {
    int32_t ids[BLOCK];
    const struct corpus_info *info = corpus_info(corpus);
    uint64_t h = HASH_START;
    for (int64_t at = 0; at < info->tokens; at += BLOCK) {
        int64_t n = info->tokens - at < BLOCK ? info->tokens - at : BLOCK;
        TRY(corpus_read(corpus, ids, at, n, err));
        for (int64_t i = 0; i < n; i++) h = (h ^ (uint32_t)ids[i]) * 0x9E3779B185EBCA87ull, h ^= h >> 29;
    }
    char learnt[60] = "";
    if (info->learnt < info->tokens) snprintf(learnt, sizeof learnt, ", %" PRId64 " of them learnt", info->learnt);
    *text = json_sprintf("%" PRId64 " tokens in %" PRId64 " documents, hash %016" PRIx64 "%s", info->tokens, info->documents, h, learnt);
    return CB_OK;
}

static bool is_trained(const struct training *t, const struct store_entry *entry) {
    for (int i = 0; i < t->n_params; i++)
        if (t->params[i].value == entry) return true;
    return false;
}

/* Weights that no checkpoint holds: names, sizes, and the first and last bytes of each. */
static json_t *frozen_text(const struct training *t) {
    uint64_t h = HASH_START;
    int n = 0;
    for (int i = 0; i < store_count(t->instance.store); i++) {
        const struct store_entry *entry = store_at(t->instance.store, i);
        if (is_trained(t, entry) || !entry->data) continue;
        size_t bytes = (size_t)entry->bytes, part = bytes < BLOCK ? bytes : BLOCK;
        h = hash_bytes(h, entry->name, strlen(entry->name));
        h = hash_bytes(h, &entry->bytes, sizeof entry->bytes);
        h = hash_bytes(h, entry->data, part);
        h = hash_bytes(h, (const char *)entry->data + bytes - part, part);
        n++;
    }
    return json_sprintf("%d tensors, hash %016" PRIx64, n, h);
}

/* What a run may be forced to go on with otherwise: rates, of which a loss that is not finite asks for others. */
static bool may_change(const char *key) {
    static const char *const keys[] = {"--lr", "--min-lr", "--warmup", "--clip", NULL};
    int i = 0;
    while (keys[i] && strcmp(keys[i], key) != 0) i++;
    return keys[i] != NULL;
}

/* The first difference to the checkpoint's is refused; another length only changes the schedule, and is told as rates are that are forced. */
static enum cb_status compare(struct run *r, struct cb_err *err) {
    json_t *state, *mine;
    const char *key;
    char had[JSON_TEXT], have[JSON_TEXT];
    if (r->is_identity_short) FAIL(err, CB_E_MEMORY, "training: out of memory");
    if (!r->resume_path) return CB_OK;
    TRY(ckpt_state(r->resume_path, &state, err));
    const json_t *found = json_object_get(state, "run");
    enum cb_status status = CB_OK;
    if (!json_is_object(found))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: does not say what run it is of; wanted a checkpoint of this version",
                         r->resume_path);
    size_t n = 0;
    json_object_foreach(r->identity, key, mine) {
        const json_t *other = json_object_get(found, key);
        if (n++ < r->n_compared || status != CB_OK || json_equal(mine, other)) continue;
        json_text(mine, have);
        json_text(other, had);
        if (strcmp(key, "--steps") == 0)
            engine_warn(r->engine, "--steps: the run was of %s, is now of %s: the learning rate follows the new length from here on", had,
                        have);
        else if (may_change(key) && r->engine->options.force)
            engine_warn(r->engine, "%s: was %s until here, is now %s", key, had, have);
        else
            status = err_set(err, CB_E_ARGUMENT, __FILE__, __LINE__, "--resume: %s: found %s; wanted %s, as %s has it%s", key, have, had,
                             r->resume_path, may_change(key) ? " (--force goes on with the new one)" : "");
    }
    r->n_compared = n;
    json_decref(state);
    return status;
}

enum cb_status run_identity_options(struct run *r, const struct trainer_options *t, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    if (!(r->identity = json_object())) FAIL(err, CB_E_MEMORY, "training: out of memory");
    put(r, "--tuner", o->tuner ? json_string(o->tuner) : json_string("none"));
    put(r, "--seed", json_integer((json_int_t)r->engine->options.seed));
    put(r, "--batch", json_integer(r->batch));
    put(r, "--seq", json_integer(r->seq));
    put(r, "--accumulate", json_integer(r->accumulate));
    put_optimizer(r, t);
    put(r, "--schedule", json_string(sched_name(t->sched.kind)));
    put(r, "--lr", json_real(t->sched.lr));
    put(r, "--min-lr", json_real(t->sched.min_lr));
    put(r, "--warmup", json_integer(o->warmup));
    put(r, "--weight-decay", json_real(t->weight_decay));
    put(r, "--clip", json_real(t->clip));
    for (int i = 0; i < o->n_lr_scales; i++) {
        char key[40];
        snprintf(key, sizeof key, "--lr-scale %d", i + 1);
        put(r, key, json_string(o->lr_scales[i]));
    }
    if (o->teacher) {
        put(r, "--teacher", json_string(o->teacher));
        put(r, "--distill", json_real(o->distill));
        put(r, "--temperature", json_real(o->temperature));
    }
    if (o->n_sets) put(r, "--sampling", json_string(o->sampling ? o->sampling : "size"));
    if (o->n_sets) put(r, "--module-per-dataset", json_boolean(o->module_per_set));
    if (o->new_head) put(r, "--new-head", json_true());
    if (o->adapter_drop) put(r, "--adapter-drop", json_integer(o->adapter_drop));
    if (o->unfreeze) put(r, "--unfreeze", json_integer(o->unfreeze));
    put(r, "--no-pack", json_boolean(o->no_pack));
    return compare(r, err);
}

enum cb_status run_identity_data(struct run *r, struct cb_err *err) {
    json_t *text;
    put(r, "--steps", json_integer(r->steps));
    if (r->task) {
        const struct labelled_info *info = labelled_info(r->data.examples);
        put(r, "--task", json_string(r->task->name));
        put(r, "training data", json_sprintf("%" PRId64 " examples, hash %016" PRIx64, info->n, info->hash));
        for (int i = 0; i < r->data.sets.n && r->data.sets.is_named; i++)
            put_of_set(r, &r->data.sets.set[i], "examples", json_integer(labelled_set_size(r->data.examples, i)));
        put(r, "frozen weights", frozen_text(&r->training));
        return compare(r, err);
    }
    for (int i = 0; i < r->data.sets.n; i++) {
        const struct data_set *set = &r->data.sets.set[i];
        TRY(corpus_text(set->corpus, &text, err));
        put_of_set(r, set, "training data", text);
        put_of_set(r, set, "end of the training part", json_integer(loader_options(set->loader)->last));
        if (!set->valid_corpus) continue;
        TRY(corpus_text(set->valid_corpus, &text, err));
        put_of_set(r, set, "validation data", text);
    }
    if (r->data.corrupt) put(r, "--task", json_string(r->o->task));
    if (r->data.mask || r->data.corrupt) {
        if (r->data.mask) put(r, "--mask", json_string(r->o->mask ? r->o->mask : "whole-word"));
        put(r, "--mask-rate", json_real(r->o->mask_rate != 0 ? r->o->mask_rate : 0.15));
    }
    put(r, "frozen weights", frozen_text(&r->training));
    return compare(r, err);
}
