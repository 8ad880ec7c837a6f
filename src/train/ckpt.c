/* Writing, finding and reading checkpoints. */
#include "train/ckpt.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "io/file.h"
#include "io/safetensors.h"

#define FORMAT "cambium-checkpoint-1"

/* 64-bit checksum of a tensor: multiply and rotate over eight-byte words in four lanes, so that it runs at memory speed. */
static uint64_t checksum(const void *data, int64_t bytes) {
    static const uint64_t prime = 0x9E3779B185EBCA87ull;
    uint64_t lane[4] = {1, 2, 3, 4}, word[4];
    const unsigned char *p = data;
    int64_t i = 0;
    for (; i + 32 <= bytes; i += 32) {
        memcpy(word, p + i, 32);
        for (int k = 0; k < 4; k++) {
            lane[k] = (lane[k] ^ word[k]) * prime;
            lane[k] ^= lane[k] >> 29;
        }
    }
    uint64_t h = (uint64_t)bytes;
    for (; i < bytes; i++) h = (h ^ p[i]) * prime;
    for (int k = 0; k < 4; k++) {
        h = (h ^ lane[k]) * prime;
        h ^= h >> 32;
    }
    return h;
}

/* One checksum for the metadata. */
static uint64_t checksum_texts(const char *step, const char *state, const char *names) {
    uint64_t sum[3] = {checksum(step, (int64_t)strlen(step)), checksum(state, (int64_t)strlen(state)),
                       checksum(names, (int64_t)strlen(names))};
    return checksum(sum, sizeof sum);
}

/* The items of a checkpoint in a list: parameters, states unless params_only, checksums (the metadata's at their end) last. */
struct items {
    struct arena *arena;
    struct tensor_item *item;
    uint64_t *sum;
    int n;
};

static enum cb_status items_add(struct items *list, const char *prefix, const struct store_entry *entry, json_t *names,
                                struct cb_err *err) {
    char *name = arena_printf(list->arena, "%s%s", prefix, entry->name);
    if (!name || json_array_append_new(names, json_string(name))) FAIL(err, CB_E_MEMORY, "checkpoint: out of memory");
    list->item[list->n] = (struct tensor_item){.name = name, .type = entry->type, .data = entry->data};
    list->sum[list->n++] = checksum(entry->data, entry->bytes);
    return CB_OK;
}

static enum cb_status items_make(struct items *list, struct trainer *t, bool params_only, json_t *names, struct cb_err *err) {
    int n_params;
    const struct train_param *params = trainer_params(t, &n_params);
    struct store *states = trainer_states(t);
    size_t room = (size_t)n_params + (size_t)store_count(states) + 2;
    list->item = arena_array(list->arena, room, sizeof *list->item);
    list->sum = arena_array(list->arena, room, sizeof *list->sum);
    if (!list->item || !list->sum) FAIL(err, CB_E_MEMORY, "checkpoint: out of memory");
    for (int i = 0; i < n_params; i++) TRY(items_add(list, "param.", params[i].value, names, err));
    for (int i = 0; i < store_count(states) && !params_only; i++) {
        const struct store_entry *entry = store_at(states, i);
        if (strncmp(entry->name, "grad.", 5) != 0) TRY(items_add(list, "", entry, names, err));
    }
    list->item[list->n] =
        (struct tensor_item){.name = "checksum", .type = type_make(CB_DTYPE_U64, 1, (int64_t[]){list->n + 1}), .data = list->sum};
    list->n++;
    return CB_OK;
}

static enum cb_status save(struct trainer *t, const char *folder, const char *file, bool params_only, const json_t *state,
                           struct cb_err *err) {
    struct items list = {.arena = arena_create()};
    json_t *names = json_array(), *metadata = json_object();
    char *path = io_path_join(folder, file), *text = NULL, *name_text = NULL, step[32];
    enum cb_status status = CB_E_MEMORY;
    snprintf(step, sizeof step, "%" PRId64, trainer_steps(t));
    if (list.arena && path) status = items_make(&list, t, params_only, names, err);
    if (status == CB_OK && (!(text = json_dumps(state, JSON_COMPACT)) || !(name_text = json_dumps(names, JSON_COMPACT))))
        status = CB_E_MEMORY;
    if (status == CB_OK) {
        list.sum[list.n - 1] = checksum_texts(step, text, name_text);
        json_object_set_new(metadata, "format", json_string(FORMAT));
        json_object_set_new(metadata, "step", json_string(step));
        json_object_set_new(metadata, "state", json_string(text));
        json_object_set_new(metadata, "tensors", json_string(name_text));
        status = tensors_write(path, list.item, list.n, metadata, NULL, NULL, err);
    }
    if (status == CB_E_MEMORY) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "checkpoint: out of memory");
    arena_destroy(&list.arena);
    json_decref(names);
    json_decref(metadata);
    free(path);
    free(text);
    free(name_text);
    return status;
}

/* Name of a step's checkpoint. */
static void file_name(char file[64], int64_t step) { snprintf(file, 64, "ckpt-%010" PRId64 ".safetensors", step); }

enum cb_status ckpt_save(struct trainer *trainer, const char *folder, const json_t *state, struct cb_err *err) {
    char file[64];
    file_name(file, trainer_steps(trainer));
    return save(trainer, folder, file, false, state, err);
}

enum cb_status ckpt_save_best(struct trainer *trainer, const char *folder, const json_t *state, struct cb_err *err) {
    return save(trainer, folder, "best.safetensors", true, state, err);
}

/* Opens a checkpoint and compares every checksum. */
static enum cb_status open_whole(struct tensors **tensors, const char *path, struct cb_err *err) {
    TRY(tensors_open(tensors, path, err));
    const struct tensor *sums = tensors_find(*tensors, "checksum");
    const char *text = tensors_metadata(*tensors, "tensors"), *step = tensors_metadata(*tensors, "step"),
               *state = tensors_metadata(*tensors, "state"), *format = tensors_metadata(*tensors, "format");
    json_t *names = text && step && state && format && strcmp(format, FORMAT) == 0 ? json_loads(text, 0, NULL) : NULL;
    enum cb_status status = CB_OK;
    if (!sums || !json_is_array(names) || sums->type.dtype != CB_DTYPE_U64 || sums->bytes != (int64_t)json_array_size(names) * 8 + 8)
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: not a checkpoint of Cambium", path);
    uint64_t want;
    if (status == CB_OK) {
        memcpy(&want, (const char *)tensor_data(sums) + json_array_size(names) * 8, 8);
        if (checksum_texts(step, state, text) != want)
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: checksum of the metadata differs; the file is damaged", path);
    }
    for (size_t i = 0; status == CB_OK && i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        const struct tensor *tensor = name ? tensors_find(*tensors, name) : NULL;
        memcpy(&want, (const char *)tensor_data(sums) + i * 8, 8);
        if (!tensor || checksum(tensor_data(tensor), tensor->bytes) != want)
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: tensor %s: checksum differs; the file is damaged", path,
                             name ? name : "?");
    }
    json_decref(names);
    if (status != CB_OK) tensors_destroy(tensors);
    return status;
}

static int by_name_down(const void *a, const void *b) { return strcmp(*(char *const *)b, *(char *const *)a); }

static void free_files(char **files, int n) {
    for (int i = 0; i < n; i++) free(files[i]);
    free(files);
}

/* Names of the checkpoints, newest first. Owned by caller. */
static enum cb_status list_files(const char *folder, char ***files, int *n, struct cb_err *err) {
    DIR *dir = opendir(folder);
    *files = NULL;
    *n = 0;
    if (!dir) return CB_OK;
    int size = 0;
    enum cb_status status = CB_OK;
    for (struct dirent *e; status == CB_OK && (e = readdir(dir));) {
        size_t length = strlen(e->d_name);
        if (strncmp(e->d_name, "ckpt-", 5) != 0 || length < 17 || strcmp(e->d_name + length - 12, ".safetensors") != 0) continue;
        if (*n == size) {
            char **more = realloc(*files, (size_t)(size = size ? 2 * size : 16) * sizeof **files);
            if (more) *files = more;
            if (!more) status = CB_E_MEMORY;
        }
        if (status == CB_OK && !((*files)[*n] = strdup(e->d_name))) status = CB_E_MEMORY;
        if (status == CB_OK) (*n)++;
    }
    closedir(dir);
    if (status != CB_OK) {
        free_files(*files, *n);
        *files = NULL;
        *n = 0;
        FAIL(err, CB_E_MEMORY, "%s: out of memory", folder);
    }
    if (*n) qsort(*files, (size_t)*n, sizeof **files, by_name_down);
    return CB_OK;
}

enum cb_status ckpt_newest(const char *folder, char **path, void (*warn)(void *user, const char *line), void *user, struct cb_err *err) {
    char **files;
    int n;
    *path = NULL;
    TRY(list_files(folder, &files, &n, err));
    enum cb_status status = CB_OK;
    for (int i = 0; i < n && !*path && status == CB_OK; i++) {
        struct tensors *tensors = NULL;
        struct cb_err local = {0};
        if (!(*path = io_path_join(folder, files[i]))) {
            status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "checkpoint: out of memory");
        } else if (open_whole(&tensors, *path, &local) != CB_OK) {
            if (local.code == CB_E_MEMORY) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s", local.message);
            if (warn) warn(user, local.message);
            free(*path);
            *path = NULL;
        }
        tensors_destroy(&tensors);
    }
    free_files(files, n);
    return status;
}

/* Copies one tensor into an entry. */
static enum cb_status restore(const struct tensors *tensors, const char *prefix, struct store_entry *entry, struct cb_err *err) {
    char name[600], have[TYPE_TEXT], want[TYPE_TEXT];
    snprintf(name, sizeof name, "%s%s", prefix, entry->name);
    const struct tensor *tensor;
    TRY(tensors_need(&tensor, tensors, name, err));
    if (!type_equal(&tensor->type, &entry->type))
        FAIL(err, CB_E_SHAPE, "%s: %s is %s; this run has %s", tensors_name(tensors), name, type_text(&tensor->type, have),
             type_text(&entry->type, want));
    memcpy(entry->data, tensor_data(tensor), (size_t)tensor->bytes);
    return CB_OK;
}

static enum cb_status restore_all(struct trainer *t, const struct tensors *tensors, bool params_only, struct cb_err *err) {
    int n_params;
    const struct train_param *params = trainer_params(t, &n_params);
    for (int i = 0; i < n_params; i++) TRY(restore(tensors, "param.", params[i].value, err));
    for (int i = 0; i < store_count(trainer_states(t)) && !params_only; i++) {
        struct store_entry *entry = store_at(trainer_states(t), i);
        if (strncmp(entry->name, "grad.", 5) != 0) TRY(restore(tensors, "", entry, err));
    }
    return CB_OK;
}

enum cb_status ckpt_check(const char *path, struct cb_err *err) {
    struct tensors *tensors;
    TRY(open_whole(&tensors, path, err));
    tensors_destroy(&tensors);
    return CB_OK;
}

enum cb_status ckpt_state(const char *path, json_t **state, struct cb_err *err) {
    struct tensors *tensors;
    *state = NULL;
    TRY(tensors_open(&tensors, path, err));
    const char *text = tensors_metadata(tensors, "state");
    enum cb_status status = text ? json_parse_object(state, text, strlen(text), path, err)
                                 : err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: no state in its metadata", path);
    tensors_destroy(&tensors);
    return status;
}

enum cb_status ckpt_load(struct trainer *trainer, const char *path, json_t **state, struct cb_err *err) {
    struct tensors *tensors;
    TRY(open_whole(&tensors, path, err));
    enum cb_status status = restore_all(trainer, tensors, false, err);
    const char *step = tensors_metadata(tensors, "step"), *text = tensors_metadata(tensors, "state");
    json_t *parsed = text ? json_loads(text, 0, NULL) : NULL;
    if (status == CB_OK && (!step || !parsed))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: no step or state in its metadata", path);
    if (status == CB_OK) trainer_set_steps(trainer, strtoll(step, NULL, 10));
    if (status == CB_OK && state) *state = json_incref(parsed);
    json_decref(parsed);
    tensors_destroy(&tensors);
    return status;
}

enum cb_status ckpt_load_params(struct trainer *trainer, const char *path, struct cb_err *err) {
    struct tensors *tensors;
    TRY(open_whole(&tensors, path, err));
    enum cb_status status = restore_all(trainer, tensors, true, err);
    tensors_destroy(&tensors);
    return status;
}

void ckpt_prune(const char *folder, int64_t step, int keep) {
    char **files, last[64];
    int n, kept = 0;
    if (list_files(folder, &files, &n, NULL) != CB_OK) return;
    file_name(last, step);
    // files of later steps are no part of this run's past, whatever they are: they neither count nor go
    for (int i = 0; i < n; i++) {
        if (strcmp(files[i], last) > 0 || ++kept <= keep) continue;
        char *path = io_path_join(folder, files[i]);
        if (path) unlink(path);
        free(path);
    }
    free_files(files, n);
}

enum cb_status ckpt_retire(const char *folder, int64_t step, struct cb_err *err) {
    char **files, last[64];
    int n;
    TRY(list_files(folder, &files, &n, err));
    file_name(last, step);
    enum cb_status status = CB_OK;
    for (int i = 0; i < n && status == CB_OK && strcmp(files[i], last) > 0; i++) {
        char to[300];
        snprintf(to, sizeof to, "%.280s.damaged", files[i]);
        char *from_path = io_path_join(folder, files[i]), *to_path = io_path_join(folder, to);
        if (!from_path || !to_path)
            status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "checkpoint: out of memory");
        else if (rename(from_path, to_path))
            status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: cannot rename to %s: %s", from_path, to, strerror(errno));
        free(from_path);
        free(to_path);
    }
    free_files(files, n);
    return status;
}
