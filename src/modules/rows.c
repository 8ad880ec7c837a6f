/* Token rows: some rows of a table of embeddings are trained, as new rows that stand for the table's own at every site that reads it. The definition
   is PEFT's trainable tokens: E[index] = delta; a head that shares the table has them too. */
#include <stdlib.h>
#include <string.h>

#include "modules/private.h"
#include "ops/ops.h"

/* ---- declaring */
static const struct tuner_rows *rows_of(const struct module *m, const struct tuner_param *param) {
    const int number = (int)(param - m->params);
    for (int i = 0; i < m->n_new_rows; i++)
        if (m->new_rows[i].delta == number || m->new_rows[i].place == number || m->new_rows[i].mask == number) return &m->new_rows[i];
    return NULL;
}

static const struct tuner_rows *rows_at(const struct module *m, const char *site) {
    for (int i = 0; i < m->n_new_rows; i++)
        if (strcmp(m->new_rows[i].site, site) == 0) return &m->new_rows[i];
    return NULL;
}

bool tuner_has_rows(const struct module *m, const char *site) { return rows_at(m, site) != NULL; }

/* The rows as the table has them. */
static enum cb_status fill_delta(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                 struct cb_err *err) {
    const struct tuner_rows *rows = rows_of(m, param);
    const struct store_entry *entry = rows ? store_find(store, rows->weight) : NULL;
    (void)seed;
    if (!entry) FAIL(err, CB_E_NAME, "%s: its table is not in the store", param->public.key);
    const int64_t width = param->public.type.dim[1], bytes = entry->bytes / rows->table;
    for (int i = 0; i < rows->n && !entry->turned; i++)
        dtype_of(entry->type.dtype)->to_f32((float *)data + i * width, (const char *)entry->data + rows->index[i] * bytes, width);
    if (entry->turned) FAIL(err, CB_E_UNSUPPORTED, "%s: its table is held turned", param->public.key);
    return CB_OK;
}

/* Of each row of the table, its number among the new ones; 0 where it is none of them. */
static enum cb_status fill_place(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                 struct cb_err *err) {
    const struct tuner_rows *rows = rows_of(m, param);
    (void)store, (void)seed, (void)err;
    memset(data, 0, (size_t)rows->table * sizeof(int32_t));
    for (int i = 0; i < rows->n; i++) ((int32_t *)data)[rows->index[i]] = i;
    return CB_OK;
}

/* 1 where a row of the table is new. */
static enum cb_status fill_mask(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                struct cb_err *err) {
    const struct tuner_rows *rows = rows_of(m, param);
    (void)store, (void)seed, (void)err;
    memset(data, 0, (size_t)rows->table * sizeof(float));
    for (int i = 0; i < rows->n; i++) ((float *)data)[rows->index[i]] = 1;
    return CB_OK;
}

static int compare_indices(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A list of different rows of a table. */
static enum cb_status indices_read(struct module *m, struct tuner_rows *rows, const json_t *list, const char *where, struct cb_err *err) {
    char text[JSON_TEXT];
    size_t n = json_array_size(list);
    if (!json_is_array(list) || !n || n > (size_t)rows->table)
        FAIL(err, CB_E_FORMAT, "%s: found %s; wanted a list of 1 to %lld row numbers", where, json_text(list, text),
             (long long)rows->table);
    int64_t *index = arena_array(m->arena, 2 * n, sizeof *index);
    if (!index) FAIL(err, CB_E_MEMORY, "%s: no memory for %zu rows", where, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        index[i] = index[n + i] = json_is_integer(value) ? json_integer_value(value) : -1;
        if (index[i] < 0 || index[i] >= rows->table)
            FAIL(err, CB_E_FORMAT, "%s: found %s; wanted a row from 0 to %lld", where, json_text(value, text), (long long)rows->table - 1);
    }
    qsort(index + n, n, sizeof *index, compare_indices);
    for (size_t i = 1; i < n; i++)
        if (index[n + i] == index[n + i - 1]) FAIL(err, CB_E_FORMAT, "%s: row %lld stands twice", where, (long long)index[n + i]);
    rows->index = index;
    rows->indices = list;
    rows->n = (int)n;
    return CB_OK;
}

/* A head's product with the new rows alone may be summed in another order than that with the whole table: a fresh module is then the base up to rounding. */
static enum cb_status rows_add(struct module *m, const struct nn_site *site, struct tuner_rows rows, struct cb_err *err) {
    if (site->kind != NN_EMBEDDING && m->fresh == TUNER_IS_BASE) m->fresh = TUNER_NEAR_BASE;
    struct tuner_rows *grown = module_grow(m, m->new_rows, m->n_new_rows, &m->new_rows_size, sizeof *grown);
    if (!grown) FAIL(err, CB_E_MEMORY, "%s: no memory for rows", m->name);
    m->new_rows = grown;
    m->new_rows[m->n_new_rows++] = rows;
    return CB_OK;
}

static bool is_table(const struct nn_site *site) {
    return site->weight && (site->kind == NN_EMBEDDING || site->kind == NN_HEAD || site->kind == NN_LINEAR);
}

enum cb_status tuner_add_rows(struct module *m, const struct nn_site *site, const json_t *indices, const char *suffix, const char *where,
                              struct cb_err *err) {
    const struct tuner_site place = {.site = *site};
    const bool is_embedding = site->kind == NN_EMBEDDING;
    struct tuner_rows rows = {.table = is_embedding ? site->in : site->out, .width = is_embedding ? site->out : site->in};
    if (!is_table(site) || site->weight_is_in_out) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: it has no table of rows", where, site->name);
    TRY(indices_read(m, &rows, indices, where, err));
    rows.weight = arena_strdup(m->arena, site->weight);
    const int64_t dim[2] = {rows.n, rows.width}, flat[2] = {rows.table, 1};
    struct tuner_param delta = {.public = {.key = tuner_key(m, &place, suffix, err), .type = type_make(CB_DTYPE_F32, 2, dim)}};
    struct tuner_param position = {.public = {.key = tuner_key(m, &place, "token_place", err), .type = type_make(CB_DTYPE_I32, 1, flat)}};
    struct tuner_param mask = {.public = {.key = tuner_key(m, &place, "token_mask", err), .type = type_make(CB_DTYPE_F32, 2, flat)}};
    position.role = mask.role = TUNER_DERIVED;
    delta.fill = fill_delta;
    position.fill = fill_place;
    mask.fill = fill_mask;
    if (!rows.weight) FAIL(err, CB_E_MEMORY, "%s: no memory for rows", where);
    TRY(tuner_add(m, NULL, delta, &rows.delta, err));
    TRY(tuner_add(m, NULL, position, &rows.place, err));
    TRY(tuner_add(m, NULL, mask, &rows.mask, err));
    rows.site = arena_strdup(m->arena, site->name);
    if (!rows.site) FAIL(err, CB_E_MEMORY, "%s: no memory for rows", where);
    return rows_add(m, site, rows, err);
}

enum cb_status tuner_tie_rows(struct module *m, const struct nn_site *site, struct cb_err *err) {
    for (int i = 0; i < m->n_new_rows; i++) {
        if (strcmp(m->new_rows[i].weight, site->weight) != 0 || strcmp(m->new_rows[i].site, site->name) == 0) continue;
        struct tuner_rows rows = m->new_rows[i];
        rows.site = arena_strdup(m->arena, site->name);
        rows.is_tied = true;
        if (!rows.site) FAIL(err, CB_E_MEMORY, "%s: no memory for rows", m->name);
        return rows_add(m, site, rows, err);
    }
    return CB_OK;
}

/* The first table of the model: its words. */
const struct nn_site *tuner_word_table(const struct nn *nn) {
    for (int i = 0; i < nn->n_sites; i++)
        if (nn->sites[i]->kind == NN_EMBEDDING) return nn->sites[i];
    return NULL;
}

/* Rows for the sites that a name means; where the table has such rows already these are meant. */
static enum cb_status named_rows(struct module *m, const struct nn *nn, const char *name, const json_t *indices, bool of_embeddings,
                                 const char *where, struct cb_err *err) {
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *site = nn->sites[i];
        if (!is_table(site) || (site->kind == NN_EMBEDDING) != of_embeddings || !targets_ends_in(site->name, name)) continue;
        bool is_known = false;
        for (int k = 0; k < m->n_new_rows; k++)
            is_known |= strcmp(m->new_rows[k].weight, site->weight) == 0 && json_equal(m->new_rows[k].indices, indices);
        if (!is_known) TRY(tuner_add_rows(m, site, indices, "token_adapter.trainable_tokens_delta", where, err));
    }
    return CB_OK;
}

/* Whether an embedding that reads the weight has new rows. */
static bool is_looked_up(const struct module *m, const struct nn *nn, const char *weight) {
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *site = nn->sites[i];
        if (site->kind == NN_EMBEDDING && site->weight && strcmp(site->weight, weight) == 0 && tuner_has_rows(m, site->name)) return true;
    }
    return false;
}

static bool has_table(const struct nn *nn, const char *name) {
    for (int i = 0; i < nn->n_sites; i++)
        if (is_table(nn->sites[i]) && targets_ends_in(nn->sites[i]->name, name)) return true;
    return false;
}

enum cb_status tuner_token_rows(struct module *m, const struct nn *nn, const json_t *value, const char *where, struct cb_err *err) {
    const struct nn_site *words = tuner_word_table(nn);
    const char *name;
    json_t *indices;
    if (json_is_object(value)) {
        // embeddings first, whatever the order of the names: their rows are a tied head's too
        for (int of_embeddings = 1; of_embeddings >= 0; of_embeddings--)
            json_object_foreach((json_t *)value, name, indices) TRY(named_rows(m, nn, name, indices, of_embeddings, where, err));
        json_object_foreach((json_t *)value, name, indices) if (!has_table(nn, name))
            FAIL(err, CB_E_NAME, "%s: trainable_token_indices: %.60s: no table of the model has such a name", where, name);
    } else {
        if (!words) FAIL(err, CB_E_UNSUPPORTED, "%s: trainable_token_indices: the model has no embeddings", where);
        TRY(tuner_add_rows(m, words, value, "token_adapter.trainable_tokens_delta", where, err));
    }
    // a head has the rows of the table that it shares; rows of the head alone stay there, as PEFT has them attached
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *site = nn->sites[i];
        if (is_table(site) && !tuner_has_rows(m, site->name) && is_looked_up(m, nn, site->weight)) TRY(tuner_tie_rows(m, site, err));
    }
    for (int i = 0; i < m->n_new_rows; i++)
        if (tuner_targets_save(&m->targets, m->new_rows[i].site))
            FAIL(err, CB_E_FORMAT, "%s: %s: found in modules_to_save and in trainable_token_indices; wanted one of them", where,
                 m->new_rows[i].site);
    return CB_OK;
}

/* ---- at work */
static struct cb_tensor *leaf(const struct module *m, int number, struct nn *nn) {
    return graph_param(nn->g, m->params[number].public.name, m->params[number].public.type);
}

/* keep y where mask is 0, else what stands for it: both exactly. */
static struct cb_tensor *choose(struct cb_graph *g, struct cb_tensor *mask, struct cb_tensor *y, struct cb_tensor *other) {
    return op_add(g, op_mul(g, y, op_scale(g, mask, -1, 1)), op_mul(g, other, mask));
}

struct cb_tensor *tuner_rows_apply(const struct module *m, struct nn *nn, const struct nn_site *site, struct cb_tensor *x,
                                   struct cb_tensor *y) {
    const struct tuner_rows *rows = rows_at(m, site->name);
    struct cb_graph *g = nn->g;
    if (!rows || graph_is_bad(g, x) || graph_is_bad(g, y)) return y;
    struct cb_tensor *delta = leaf(m, rows->delta, nn), *place = leaf(m, rows->place, nn), *mask = leaf(m, rows->mask, nn);
    if (site->kind == NN_EMBEDDING) {
        struct cb_tensor *flat = op_reshape(g, x, 1, (const int64_t[]){-1});
        struct cb_tensor *number = op_reshape(g, op_index_select(g, place, flat, 0), x->type.rank, x->type.dim);
        return choose(g, op_embedding(g, mask, x), y, op_embedding(g, delta, number));
    }
    // a head: the new rows' products, each at its place in the vocabulary
    struct cb_tensor *other = op_index_select(g, op_linear(g, x, delta, NULL, false), place, -1);
    if (site->bias) other = op_add(g, other, nn_site_param(nn, site->name, "bias", site->bias, 1, &rows->table, true));
    return choose(g, op_reshape(g, mask, 1, &rows->table), y, other);
}

enum cb_status tuner_rows_fold(const struct module *m, struct store *store, struct cb_err *err) {
    for (int i = 0; i < m->n_new_rows; i++) {
        const struct tuner_rows *rows = &m->new_rows[i];
        if (rows->is_tied) continue;
        struct store_entry *own = store_find(store, m->params[rows->delta].public.name), *table = store_find(store, rows->weight);
        if (!own || !table) FAIL(err, CB_E_NAME, "%s: %s: not in the store", m->name, rows->weight);
        TRY(store_make(store, table, CB_DTYPE_F32, true, err));
        for (int r = 0; r < rows->n; r++) {
            float *a = (float *)own->data + r * rows->width, *b = (float *)table->data + rows->index[r] * rows->width;
            for (int64_t k = 0; k < rows->width; k++) {
                float kept = a[k];
                a[k] = b[k];
                b[k] = kept;
            }
        }
    }
    return CB_OK;
}

const char *tuner_rows_alone(const struct module *m, const struct nn *nn) {
    for (int i = 0; i < m->n_new_rows; i++)
        for (int s = 0; s < nn->n_sites; s++) {
            bool has = !nn->sites[s]->weight || strcmp(nn->sites[s]->weight, m->new_rows[i].weight) != 0;
            for (int k = 0; k < m->n_new_rows && !has; k++)
                has = strcmp(m->new_rows[k].site, nn->sites[s]->name) == 0 && m->new_rows[k].delta == m->new_rows[i].delta;
            if (!has) return m->new_rows[i].weight;
        }
    return NULL;
}
