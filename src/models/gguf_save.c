/* Writing a model as a GGUF file: names, layout and number types of the file, tensors made a piece at a time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/pool.h"
#include "models/decoder.h"
#include "models/gguf.h"
#include "nn/rope.h"

enum { NAME = 256, TILES = 64 };

/* ---- types */

#define SAME(name, NAME_, number) \
    { name, CB_DTYPE_##NAME_, CB_DTYPE_##NAME_, CB_DTYPE_##NAME_, number }
static const struct gguf_recipe recipes[] = {
    SAME("f32", F32, 0),
    SAME("f16", F16, 1),
    SAME("bf16", BF16, 32),
    SAME("q8_0", Q8_0, 7),
    {"q4_0", CB_DTYPE_Q4_0, CB_DTYPE_Q6_K, CB_DTYPE_Q4_0, 2},
    {"q4_1", CB_DTYPE_Q4_1, CB_DTYPE_Q6_K, CB_DTYPE_Q4_1, 3},
    {"q5_0", CB_DTYPE_Q5_0, CB_DTYPE_Q6_K, CB_DTYPE_Q5_0, 8},
    {"q5_1", CB_DTYPE_Q5_1, CB_DTYPE_Q6_K, CB_DTYPE_Q5_1, 9},
    {"q2_k", CB_DTYPE_Q2_K, CB_DTYPE_Q6_K, CB_DTYPE_Q3_K, 10},
    {"q3_k", CB_DTYPE_Q3_K, CB_DTYPE_Q6_K, CB_DTYPE_Q3_K, 11},
    {"q4_k", CB_DTYPE_Q4_K, CB_DTYPE_Q6_K, CB_DTYPE_Q4_K, 14},
    {"q4_k_m", CB_DTYPE_Q4_K, CB_DTYPE_Q6_K, CB_DTYPE_Q6_K, 15},
    {"q5_k", CB_DTYPE_Q5_K, CB_DTYPE_Q6_K, CB_DTYPE_Q5_K, 16},
    {"q5_k_m", CB_DTYPE_Q5_K, CB_DTYPE_Q6_K, CB_DTYPE_Q6_K, 17},
    SAME("q6_k", Q6_K, 18),
    {"iq4_nl", CB_DTYPE_IQ4_NL, CB_DTYPE_Q6_K, CB_DTYPE_IQ4_NL, 25},
    {"tq1_0", CB_DTYPE_TQ1_0, CB_DTYPE_Q6_K, CB_DTYPE_TQ1_0, 36},
    {"tq2_0", CB_DTYPE_TQ2_0, CB_DTYPE_Q6_K, CB_DTYPE_TQ2_0, 37},
    {"mxfp4", CB_DTYPE_MXFP4, CB_DTYPE_Q8_0, CB_DTYPE_MXFP4, 38},
};
enum { N_RECIPES = sizeof recipes / sizeof *recipes };

const struct gguf_recipe *gguf_recipe_find(const char *name) {
    for (int i = 0; i < N_RECIPES; i++)
        if (!strcmp(recipes[i].name, name)) return &recipes[i];
    return NULL;
}
const char *gguf_recipe_names(char text[300]) {
    size_t n = 0;
    for (int i = 0; i < N_RECIPES; i++) n += (size_t)snprintf(text + n, 300 - n, "%s%s", i ? ", " : "", recipes[i].name);
    return text;
}

/* What stands in for a type of long blocks where rows are no multiple of them. */
static const struct {
    enum cb_dtype from, to;
} shorter[] = {{CB_DTYPE_Q2_K, CB_DTYPE_IQ4_NL}, {CB_DTYPE_Q3_K, CB_DTYPE_IQ4_NL}, {CB_DTYPE_Q4_K, CB_DTYPE_Q5_0},
               {CB_DTYPE_Q5_K, CB_DTYPE_Q5_1},   {CB_DTYPE_Q6_K, CB_DTYPE_Q8_0},   {CB_DTYPE_TQ1_0, CB_DTYPE_IQ4_NL},
               {CB_DTYPE_TQ2_0, CB_DTYPE_IQ4_NL}};

static enum cb_dtype fitting(enum cb_dtype dtype, int64_t columns) {
    for (size_t i = 0; i < sizeof shorter / sizeof *shorter; i++)
        if (shorter[i].from == dtype && columns % dtype_of(dtype)->block) dtype = shorter[i].to;
    return columns % dtype_of(dtype)->block ? CB_DTYPE_F16 : dtype;
}

/* The shape of a weight in the file. */
static struct cb_type file_type(const struct gguf_name *row, const struct model_weight *w) {
    struct cb_type type = w->type;
    if (row->turned && type.rank == 2) type.dim[0] = w->type.dim[1], type.dim[1] = w->type.dim[0];
    if (row->flat) type = type_make(type.dtype, 1, &w->type.dim[1]);
    return type;
}

static enum cb_status name_find(const struct gguf_name **row, char file[NAME], const struct gguf_arch *arch, const struct model *m,
                                const char *weight, int64_t *expert, struct cb_err *err) {
    *row = gguf_name_of_weight(arch, weight, m->family->prefix, file, expert);
    if (!*row)
        FAIL(err, CB_E_UNSUPPORTED, "%s: GGUF has no name for it in %s; wanted a model whose weights it can hold", weight, arch->name);
    return CB_OK;
}

static bool is_left_out(const struct gguf_arch *arch, const char *weight) {
    for (const char *const *begin = arch->left_out; *begin; begin++)
        if (!strncmp(weight, *begin, strlen(*begin))) return true;
    return false;
}

enum cb_status gguf_choose(struct gguf_part *parts, const struct gguf_arch *arch, const struct model *m, const struct gguf_recipe *recipe,
                           struct cb_err *err) {
    char file[NAME];
    for (int i = 0; i < m->n_weights; i++) {
        const struct gguf_name *row;
        const struct model_weight *w = &m->weights[i];
        const bool may_go = w->is_optional || is_left_out(arch, w->name);
        if (may_go && !gguf_name_of_weight(arch, w->name, m->family->prefix, file, NULL)) {
            parts[i].entry = NULL;
            continue;
        }
        TRY(name_find(&row, file, arch, m, w->name, NULL, err));
        enum cb_dtype stored = parts[i].entry->type.dtype;
        if (w->type.rank < 2 || row->plain || gguf_dtype_number(stored) < 0)
            parts[i].dtype = CB_DTYPE_F32;
        else if (!recipe)
            parts[i].dtype = stored;
        else {
            bool head = !strcmp(row->file, "output") || (m->tied && !strcmp(row->file, "token_embd"));
            bool better = strstr(row->file, ".attn_v") || strstr(row->file, ".ffn_down");
            enum cb_dtype dtype = head ? recipe->head : better ? recipe->better : recipe->dtype;
            parts[i].dtype = fitting(dtype, file_type(row, w).dim[1]);
            parts[i].is_other = parts[i].dtype != dtype;
        }
    }
    return CB_OK;
}

int gguf_file_type(const struct gguf_part *parts, const struct model *model, const struct gguf_recipe *recipe) {
    int64_t count[CB_DTYPE_COUNT] = {0};
    int most = CB_DTYPE_F32;
    for (int i = 0; i < model->n_weights; i++)
        if (parts[i].entry) count[parts[i].dtype] += type_elements(&model->weights[i].type);
    for (int i = 0; i < CB_DTYPE_COUNT; i++)
        if (count[i] > count[most]) most = i;
    for (int i = 0; i < N_RECIPES && !recipe; i++)
        if ((int)recipes[i].dtype == most) recipe = &recipes[i];
    return recipe ? recipe->file_type : 0;
}

/* ---- pieces */

/* One tensor on its way into the file. */
struct source {
    const struct gguf_name *row;
    const struct store_entry *entry;
    const char *weight;
    int64_t heads, rows, columns;  // of the file; heads: rows are put in pairs
    bool across;  // the file's rows are the entry's columns
    const struct store_entry **experts;  // of a tensor of experts: each one's; else NULL
    int64_t expert_rows;
    bool mixed;  // their types differ
};

struct saving {
    const struct gguf_target *target;
    float *piece, *whole;
    const struct store_entry *held;  // whose values are in whole, in their checkpoint's order
    struct gguf_saved *saved;
};

/* The entry's row of the file's row r. */
static int64_t row_of(const struct source *s, int64_t r) {
    if (!s->heads) return r;
    const int64_t size = s->rows / s->heads, at = r % size;
    return r - at + at % 2 * (size / 2) + at / 2;
}

/* The entry that has the file's row *r, which becomes the entry's row. */
static const struct store_entry *entry_of(const struct source *s, int64_t *r) {
    const int64_t at = *r;
    *r = s->experts ? at % s->expert_rows : row_of(s, at);
    return s->experts ? s->experts[at / s->expert_rows] : s->entry;
}

/* A weight whose values are made for it, whole: its rows or columns go into the file in another order. */
static enum cb_status hold(struct saving *saving, const struct source *s, const struct store_entry *entry, struct cb_err *err) {
    const int64_t n = s->rows * s->columns;
    if (saving->held == entry) return CB_OK;
    free(saving->whole);
    saving->held = NULL;
    if (!(saving->whole = malloc((size_t)n * sizeof *saving->whole))) FAIL(err, CB_E_MEMORY, "%s: no memory to turn it", entry->name);
    TRY(saving->target->values->read(saving->target->values->context, entry->name, 0, n, saving->whole, err));
    saving->held = entry;
    return CB_OK;
}

/* n values of the file's row r from column c, as f32. */
static enum cb_status read_part(struct saving *saving, const struct source *s, float *out, int64_t r, int64_t c, int64_t n,
                                struct cb_err *err) {
    int64_t row = r;
    const struct store_entry *entry = entry_of(s, &row);
    const struct gguf_values *values = saving->target->values;
    const bool is_made = !entry->data, is_held = is_made && (s->across || s->heads);
    if (is_held) TRY(hold(saving, s, entry, err));
    const struct dtype *kind = dtype_of(is_held ? CB_DTYPE_F32 : entry->type.dtype);
    const char *data = is_held ? (const char *)saving->whole : entry->data;
    if (is_made && !is_held) {
        TRY(values->read(values->context, entry->name, row * s->columns + c, n, out, err));
    } else if (s->across) {
        for (int64_t i = 0; i < n; i++) kind->to_f32(out + i, data + ((c + i) * s->rows + r) * kind->block_bytes, 1);
    } else {
        kind->to_f32(out, data + (row * s->columns + c) / kind->block * kind->block_bytes, n);
    }
    for (int64_t i = 0; s->row->plus != 0 && i < n; i++) out[i] += s->row->plus;
    return CB_OK;
}

/* Encodes a piece in tiles, and measures what that changes. */
struct encoding {
    const float *in;
    char *out;
    const struct dtype *kind;
    int64_t n, step;
    double error[TILES], error_squares[TILES], value_squares[TILES];
};

static void encode_tile(void *context, int64_t tile, int thread) {
    (void)thread;
    struct encoding *e = context;
    float back[1024];
    const int64_t begin = tile * e->step, end = begin + e->step < e->n ? begin + e->step : e->n;
    for (int64_t i = begin; i < end; i += 1024) {
        const int64_t n = end - i < 1024 ? end - i : 1024;
        char *out = e->out + i / e->kind->block * e->kind->block_bytes;
        e->kind->from_f32(out, e->in + i, n);
        e->kind->to_f32(back, out, n);
        for (int64_t k = 0; k < n; k++) {
            const double value = (double)e->in[i + k], error = fabs((double)back[k] - value);
            e->error[tile] = fmax(e->error[tile], error);
            e->error_squares[tile] += error * error;
            e->value_squares[tile] += value * value;
        }
    }
}

static enum cb_status fill(void *context, void *out, const struct tensor_item *item, int64_t first, int64_t n, struct cb_err *err) {
    struct saving *saving = context;
    const struct source *s = item->source;
    const struct dtype *kind = dtype_of(item->type.dtype);
    const bool keeps = s->entry->data && item->type.dtype == s->entry->type.dtype && !s->mixed && !s->across && s->row->plus == 0;
    if (!keeps && !kind->from_f32) FAIL(err, CB_E_DTYPE, "%s: %s has no encoder; wanted a type that has one", item->name, kind->name);
    for (int64_t i = first; i < first + n;) {
        const int64_t r = i / s->columns, c = i % s->columns, left = first + n - i, count = left < s->columns - c ? left : s->columns - c;
        int64_t row = r;
        const struct store_entry *entry = entry_of(s, &row);
        const int64_t at = row * s->columns + c;
        if (keeps)
            memcpy((char *)out + (i - first) / kind->block * kind->block_bytes,
                   (const char *)entry->data + at / kind->block * kind->block_bytes, (size_t)(count / kind->block * kind->block_bytes));
        else
            TRY(read_part(saving, s, saving->piece + (i - first), r, c, count, err));
        i += count;
    }
    if (keeps) return CB_OK;
    struct encoding e = {.in = saving->piece, .out = out, .kind = kind, .n = n};
    e.step = (n / TILES / 1024 + 1) * 1024;
    const int64_t tiles = (n + e.step - 1) / e.step;
    if (saving->target->pool)
        pool_run(saving->target->pool, tiles, encode_tile, &e);
    else
        for (int64_t t = 0; t < tiles; t++) encode_tile(&e, t, 0);
    for (int t = 0; t < TILES; t++) {
        saving->saved->max_error = fmax(saving->saved->max_error, e.error[t]);
        // what is written as it is does not count
        if (item->type.dtype == CB_DTYPE_F32) continue;
        saving->saved->error_squares += e.error_squares[t];
        saving->saved->value_squares += e.value_squares[t];
    }
    return CB_OK;
}

/* ---- the file */

/* Divisors of the frequencies of rotary positions as a tensor, where the rule has no key of its own (llama3); NULL: none are wanted. Rules that depend on the
   length cannot be said. */
static enum cb_status divisors_make(float **out, const struct gguf_arch *arch, const struct model *m, struct arena *arena,
                                    struct cb_err *err) {
    const json_t *o = gguf_scaling(m);
    const char *kind = json_string_value(json_object_get(o, "rope_type"));
    if (!kind) kind = json_string_value(json_object_get(o, "type"));
    *out = NULL;
    if (!kind || (strcmp(kind, "llama3") != 0 && strcmp(kind, "longrope") != 0)) return CB_OK;
    if (!arch->divisors)
        FAIL(err, CB_E_UNSUPPORTED, "rope_type %s: readers of %s look for no rope_freqs.weight; wanted default, linear or yarn", kind,
             arch->name);
    struct rope rope;
    const int64_t n = m->head_dim / 2;
    const struct rope_source source = {
        .config = m->config, .name = "config.json", .head_dim = m->head_dim, .max_positions = m->max_positions};
    TRY(rope_parse(&rope, &source, err));
    float *once = arena_array(arena, (size_t)n, sizeof *once), *late = arena_array(arena, (size_t)n, sizeof *late);
    if (!once || !late) FAIL(err, CB_E_MEMORY, "rope: out of memory");
    rope_frequencies(&rope, 1, once);
    rope_frequencies(&rope, 2 * m->max_positions, late);
    if (rope.dim != m->head_dim || rope.attention_factor != 1 || memcmp(once, late, (size_t)n * sizeof *once) != 0)
        FAIL(err, CB_E_UNSUPPORTED, "rope_type %s: frequencies that change with the length, or a scale of attention, have no place in GGUF",
             kind);
    for (int64_t i = 0; i < n; i++) once[i] = (float)(pow(rope.theta, -(double)i / (double)n) / (double)once[i]);
    *out = once;
    return CB_OK;
}

/* LongRoPE's divisors for short and long texts, two more tensors. */
static enum cb_status long_factors_add(struct tensor_item *items, int *n, const struct model *m, struct arena *arena, struct cb_err *err) {
    const struct rope *rope = &decoder_options(m)->rope[0];
    const json_t *const list[2] = {rope->short_factor, rope->long_factor};
    static const char *const name[2] = {"rope_factors_short.weight", "rope_factors_long.weight"};
    const int64_t count = rope->dim / 2;
    for (int k = 0; k < 2; k++) {
        float *value = arena_array(arena, (size_t)count, sizeof *value);
        if (!value) FAIL(err, CB_E_MEMORY, "rope: out of memory");
        for (int64_t i = 0; i < count; i++) value[i] = (float)json_number_value(json_array_get(list[k], (size_t)i));
        items[(*n)++] = (struct tensor_item){.name = name[k], .type = type_make(CB_DTYPE_F32, 1, &count), .data = value};
    }
    return CB_OK;
}

/* An expert's matrix goes into the tensor of its layer, which the first of them has begun: among the last items. *is_new: it is one of its own. */
static enum cb_status expert_add(struct tensor_item *items, struct source *sources, int n, const struct gguf_arch *arch,
                                 const struct model *m, const struct model_weight *w, const struct gguf_part *part, bool *is_new,
                                 struct cb_err *err) {
    char file[NAME];
    const struct gguf_name *row;
    int64_t expert = 0;
    TRY(name_find(&row, file, arch, m, w->name, &expert, err));
    *is_new = !row->experts || expert == 0;
    if (*is_new) return CB_OK;
    for (int i = n - 1; i >= 0; i--) {
        if (strcmp(items[i].name, file) != 0) continue;
        sources[i].experts[expert] = part->entry;
        sources[i].mixed |= part->entry->type.dtype != sources[i].entry->type.dtype;
        return CB_OK;
    }
    FAIL(err, CB_E_NAME, "%s: comes before the first expert of its layer", w->name);
}

static enum cb_status item_make(struct tensor_item *item, struct source *s, struct arena *arena, const struct gguf_arch *arch,
                                const struct model *m, const struct model_weight *w, const struct gguf_part *part, struct cb_err *err) {
    char file[NAME];
    TRY(name_find(&s->row, file, arch, m, w->name, NULL, err));
    struct cb_type type = file_type(s->row, w);
    s->entry = part->entry;
    s->weight = w->name;
    s->heads = gguf_name_heads(s->row, m);
    s->columns = type.dim[type.rank - 1];
    s->rows = type_elements(&type) / s->columns;
    // a vector of heads is a column of numbers
    if (s->heads && type.rank == 1) s->rows = s->columns, s->columns = 1;
    s->across = s->row->turned && type.rank == 2 && !part->entry->turned;
    if (s->row->experts) {
        const int64_t n = decoder_options(m)->experts.n;
        s->expert_rows = s->rows;
        s->rows *= n;
        s->experts = arena_array(arena, (size_t)n, sizeof *s->experts);
        if (!s->experts) FAIL(err, CB_E_MEMORY, "%s: out of memory", w->name);
        s->experts[0] = part->entry;
        type = type_make(type.dtype, 3, (int64_t[]){n, s->expert_rows, s->columns});
    }
    item->name = arena_strdup(arena, file);
    item->type = type;
    item->type.dtype = part->dtype;
    item->source = s;
    if (!item->name) FAIL(err, CB_E_MEMORY, "%s: out of memory", w->name);
    if (part->dtype == part->entry->type.dtype && !s->experts && !s->heads && !s->across && s->row->plus == 0)
        item->data = part->entry->data;
    return CB_OK;
}

static enum cb_status save(struct saving *saving, const struct gguf_builder *keys, const struct gguf_arch *arch, const struct model *m,
                           const struct gguf_part *parts, struct arena *arena, struct cb_err *err) {
    const char *path = saving->target->path;
    struct gguf_saved *saved = saving->saved;
    struct tensor_item *items = arena_array(arena, (size_t)m->n_weights + 3, sizeof *items);
    struct source *sources = arena_array(arena, (size_t)m->n_weights + 1, sizeof *sources);
    saving->piece = malloc(sizeof(float) << 18);
    if (!items || !sources || !saving->piece) FAIL(err, CB_E_MEMORY, "%s: out of memory for %d tensors", path, m->n_weights);
    int n = 0;
    struct tensor_item *embedding = NULL;
    for (int i = 0; i < m->n_weights; i++) {
        bool is_new;
        if (!parts[i].entry) continue;
        TRY(expert_add(items, sources, n, arch, m, &m->weights[i], &parts[i], &is_new, err));
        if (!is_new) continue;
        TRY(item_make(&items[n], &sources[n], arena, arch, m, &m->weights[i], &parts[i], err));
        if (!strcmp(m->weights[i].name, m->embedding)) embedding = &items[n];
        n++;
    }
    if (m->tied && arch->repeats_head && embedding) {
        items[n] = *embedding;
        items[n++].name = "output.weight";
    }
    float *divisors = NULL;
    const bool has_factors = arch->long_factors && decoder_options(m)->rope[0].long_factor;
    if (has_factors) TRY(long_factors_add(items, &n, m, arena, err));
    if (arch->rope && !has_factors) TRY(divisors_make(&divisors, arch, m, arena, err));
    if (divisors)
        items[n++] = (struct tensor_item){
            .name = "rope_freqs.weight", .type = type_make(CB_DTYPE_F32, 1, (int64_t[]){m->head_dim / 2}), .data = divisors};
    for (int i = 0; i < n; i++) saved->bytes += type_bytes(&items[i].type);
    TRY(gguf_write_split(path, keys, items, n, saving->target->max_bytes, fill, saving, &saved->n_files, err));
    saved->n_tensors = n;
    return CB_OK;
}

enum cb_status gguf_save(const struct gguf_target *target, const struct gguf_builder *keys, const struct gguf_arch *arch,
                         const struct model *m, const struct gguf_part *parts, struct gguf_saved *saved, struct cb_err *err) {
    struct saving saving = {.target = target, .saved = saved};
    struct arena *arena = arena_create();
    *saved = (struct gguf_saved){0};
    if (!arena) FAIL(err, CB_E_MEMORY, "%s: out of memory", target->path);
    enum cb_status status = save(&saving, keys, arch, m, parts, arena, err);
    free(saving.piece);
    free(saving.whole);
    arena_destroy(&arena);
    return status;
}
