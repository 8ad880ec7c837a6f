/* The builder's core: parameter leaves, the list of sites and the hook. */
#include "nn/nn.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "ops/ops.h"

struct nn nn_make(struct cb_graph *g) {
    return (struct nn){.g = g, .layer = -1};
}

const char *nn_kind_name(enum nn_kind kind) {
    static const char *const names[NN_KIND_COUNT] = {"linear", "head",   "embedding", "norm",     "hidden",
                                                     "keys",   "values", "join",      "embedded", "inputs"};
    return (unsigned)kind < NN_KIND_COUNT ? names[kind] : "unknown";
}

const char *nn_name(struct nn *nn, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text) {
        graph_fail(nn->g, CB_E_LIMIT, "%.60s...: a name of %d bytes; at most %zu are taken", text, n, sizeof text - 1);
        return "";
    }
    const char *copy = arena_strdup(nn->g->arena, text);
    if (!copy) graph_fail(nn->g, CB_E_MEMORY, "%s: no memory for a name", text);
    return copy ? copy : "";
}

struct cb_tensor *nn_param(struct nn *nn, const char *name, int rank, const int64_t *dim) {
    enum cb_dtype dtype = nn->param_dtype ? nn->param_dtype(nn->dtype_user, name) : CB_DTYPE_F32;
    return graph_param(nn->g, name, type_make(dtype, rank, dim));
}

struct cb_tensor *nn_site_param(struct nn *nn, const char *site, const char *field, const char *name, int rank, const int64_t *dim,
                                bool plain_f32) {
    struct cb_tensor *p = nn_param(nn, name, rank, dim);
    if (nn->hook.param && !graph_is_bad(nn->g, p)) p = nn->hook.param(nn->hook.user, nn, site, field, p);
    return plain_f32 && p->type.dtype != CB_DTYPE_F32 ? op_cast(nn->g, p, CB_DTYPE_F32) : p;
}

/* Where a name is in the table of sites, or would be. */
static int *site_slot(const struct nn *nn, const char *name) {
    const uint64_t hash = hash_bytes(HASH_START, name, strlen(name));
    size_t mask = 2 * (size_t)nn->sites_size - 1, i = (hash ^ hash >> 32) & mask;
    while (nn->site_slots[i] && strcmp(nn->sites[nn->site_slots[i] - 1]->name, name) != 0) i = (i + 1) & mask;
    return &nn->site_slots[i];
}

/* Room for one more site; sizes are powers of 2. */
static bool sites_grow(struct nn *nn) {
    if (nn->n_sites < nn->sites_size) return true;
    int size = nn->sites_size ? 2 * nn->sites_size : 64;
    const struct nn_site **grown = arena_array(nn->g->arena, (size_t)size, sizeof *grown);
    int *slots = arena_array(nn->g->arena, 2 * (size_t)size, sizeof *slots);
    if (!grown || !slots) return false;
    if (nn->n_sites) memcpy(grown, nn->sites, (size_t)nn->n_sites * sizeof *grown);
    nn->sites = grown;
    nn->sites_size = size;
    nn->site_slots = slots;
    for (int i = 0; i < nn->n_sites; i++) *site_slot(nn, grown[i]->name) = i + 1;
    return true;
}

const struct nn_site *nn_record(struct nn *nn, const struct nn_site *site) {
    // a layer that is used again has its record already
    const struct nn_site *old = nn_find_site(nn, site->name);
    if (old) return old;
    struct nn_site *copy = arena_alloc(nn->g->arena, sizeof *copy);
    if (!copy || !sites_grow(nn)) {
        graph_fail(nn->g, CB_E_MEMORY, "%s: no memory for a site", site->name);
        return NULL;
    }
    *copy = *site;
    copy->layer = nn->layer;
    copy->depth = nn->layer < 0 ? -1 : nn->layer + nn->layers_before;
    *site_slot(nn, copy->name) = nn->n_sites + 1;
    nn->sites[nn->n_sites++] = copy;
    return copy;
}

struct cb_tensor *nn_site(struct nn *nn, const struct nn_site *site, struct cb_tensor *x, struct cb_tensor *y) {
    if (graph_is_bad(nn->g, y)) return y;
    const struct nn_site *own = nn_record(nn, site);
    if (!own) return &nn->g->bad_tensor;
    return nn->hook.site ? nn->hook.site(nn->hook.user, nn, own, x, y) : y;
}

const struct nn_site *nn_find_site(const struct nn *nn, const char *name) {
    int found = nn->sites_size ? *site_slot(nn, name) : 0;
    return found ? nn->sites[found - 1] : NULL;
}

struct nn_memo {
    const char *name;
    struct cb_tensor *x;
    struct nn_memo *next;
};

struct cb_tensor *nn_keep(struct nn *nn, const char *name, struct cb_tensor *x) {
    struct nn_memo *memo = arena_alloc(nn->g->arena, sizeof *memo);
    if (!memo) return graph_fail(nn->g, CB_E_MEMORY, "%s: no memory to keep it", name);
    *memo = (struct nn_memo){name, x, nn->memo};
    nn->memo = memo;
    return x;
}

struct cb_tensor *nn_kept(const struct nn *nn, const char *name) {
    const struct nn_memo *memo = nn->memo;
    while (memo && strcmp(memo->name, name) != 0) memo = memo->next;
    return memo ? memo->x : NULL;
}
