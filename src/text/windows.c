/* Truncation of one or two sequences into windows that overlap, the post-processor on each, and padding, as tokenizer.json describes them. */
#include "text/windows.h"

/* Windows of one input. */
#define WINDOWS_LIMIT (1 << 20)

void token_list_deinit(struct token_list *list) {
    free(list->token);
    *list = (struct token_list){0};
}

void token_windows_deinit(struct token_windows *windows) {
    for (size_t i = 0; i < windows->capacity; i++) token_list_deinit(&windows->list[i]);
    free(windows->list);
    *windows = (struct token_windows){0};
}

enum cb_status windows_reserve(struct token_windows *windows, size_t n, struct cb_err *err) {
    size_t before = windows->capacity;
    TRY(buffer_grow((void **)&windows->list, &windows->capacity, n, sizeof *windows->list, err));
    if (windows->capacity > before) memset(windows->list + before, 0, (windows->capacity - before) * sizeof *windows->list);
    return CB_OK;
}

/* ---- truncation */

/* How many tokens each sequence keeps of n[0] and n[1], of which there is room for max. */
static enum cb_status kept_find(const struct truncation *limit, size_t kept[2], const size_t n[2], int n_sequences, size_t max,
                                struct cb_err *err) {
    kept[0] = n[0], kept[1] = n[1];
    if (n[0] + n[1] <= max) return CB_OK;
    if (limit->strategy) {
        // one side alone gives way
        int which = limit->strategy - 1;
        size_t excess = n[0] + n[1] - max;
        if (which >= n_sequences) FAIL(err, CB_E_ARGUMENT, "truncation: strategy OnlySecond; there is one sequence");
        if (max && n[which] <= excess)
            FAIL(err, CB_E_LIMIT, "truncation: sequence %d has %zu tokens; %zu must go to reach max_length %lld", which, n[which], excess,
                 (long long)limit->max_length);
        kept[which] = max ? n[which] - excess : 0;
        if (!max) kept[1 - which] = 0;
        return CB_OK;
    }
    // longest first: the shorter side keeps up to half
    bool swap = n[0] > n[1];
    size_t low = swap ? n[1] : n[0], high = low > max ? low : (low > max - low ? low : max - low);
    if (n_sequences == 1) low = 0, high = max, swap = true;
    if (low + high > max) low = max / 2, high = low + max % 2;
    kept[0] = swap ? high : low;
    if (n_sequences == 2) kept[1] = swap ? low : high;
    return CB_OK;
}

/* The windows of one sequence: of n tokens size at a time. */
struct cut {
    size_t n, size, step, n_windows;
    bool left;
};

static enum cb_status cut_begin(struct cut *cut, const struct truncation *limit, size_t n, size_t kept, bool wanted, struct cb_err *err) {
    size_t stride = (size_t)limit->stride;
    *cut = (struct cut){n, kept, kept, 1, limit->left};
    if (kept >= n || !wanted) return CB_OK;
    if (!kept) return cut->n_windows = 2, CB_OK;  // nothing, then all
    if (stride >= kept) FAIL(err, CB_E_LIMIT, "truncation: stride %zu; less than the %zu tokens of a window are wanted", stride, kept);
    cut->step = kept - stride;
    cut->n_windows = 1 + (n - kept + cut->step - 1) / cut->step;
    return CB_OK;
}

static void window_range(const struct cut *cut, size_t index, size_t *from, size_t *to) {
    *from = 0, *to = cut->n;
    if (cut->size >= cut->n || (!cut->size && index)) return;
    size_t skip = index * cut->step, size = cut->n - skip < cut->size ? cut->n - skip : cut->size;
    *from = cut->left ? cut->n - skip - size : skip;
    *to = *from + size;
}

/* Copies the ranges of both sequences (the tokens of the first come first). */
static enum cb_status window_copy(struct token_list *out, const struct token_list *in, const struct cut cut[2], const size_t index[2],
                                  struct cb_err *err) {
    out->n = 0;
    for (int k = 0; k < 2; k++) {
        size_t from, to, base = k ? cut[0].n : 0;
        window_range(&cut[k], index[k], &from, &to);
        TRY(buffer_grow((void **)&out->token, &out->capacity, out->n + (to - from), sizeof *out->token, err));
        if (to > from) memcpy(out->token + out->n, in->token + base + from, (to - from) * sizeof *out->token);
        out->n += to - from;
    }
    return CB_OK;
}

/* list[0] becomes the first window, those after it follow: all of the sequence that will lie first with all of the other, the former's first window
   last. */
static enum cb_status cut_all(struct token_windows *out, const struct token_list *all, const struct cut cut[2], int first,
                              struct cb_err *err) {
    size_t a = cut[first].n_windows, b = cut[!first].n_windows, index[2] = {0, 0};
    if (a > WINDOWS_LIMIT / b) FAIL(err, CB_E_LIMIT, "truncation: %zu times %zu windows; at most %d are made", a, b, WINDOWS_LIMIT);
    TRY(windows_reserve(out, a * b, err));
    out->n = 0;
    TRY(window_copy(&out->list[out->n++], all, cut, index, err));
    for (size_t i = 1; i <= a; i++) {
        for (size_t k = i == a; k < b; k++) {
            index[first] = i % a, index[!first] = k;
            TRY(window_copy(&out->list[out->n++], all, cut, index, err));
        }
    }
    return CB_OK;
}

/* How many tokens the post-processor will add, and which sequence it puts first: found by letting it work on one token of each. */
static enum cb_status post_probe(struct encoder *e, int n_sequences, unsigned flags, size_t *n_added, int *first, struct cb_err *err) {
    const struct part *post = e->t->part[ROLE_POST_PROCESSOR];
    struct token_list list = {0};
    if (!post) return CB_OK;
    TRY(buffer_grow((void **)&list.token, &list.capacity, 2, sizeof *list.token, err));
    for (int i = 0; i < n_sequences; i++) list.token[list.n++] = (struct token){.sequence = (int8_t)i};
    enum cb_status status = post->kind->process(post, e, &list, n_sequences, flags & ENCODE_SPECIALS, err);
    for (size_t i = list.n; i-- > 0;) {
        if (list.token[i].sequence < 0)
            ++*n_added;
        else
            *first = list.token[i].sequence;
    }
    token_list_deinit(&list);
    return status;
}

static enum cb_status truncate_all(struct encoder *e, struct token_windows *out, int n_sequences, unsigned flags, struct cb_err *err) {
    const struct truncation *limit = &e->t->truncation;
    size_t n_added = 0, n[2] = {0, 0}, kept[2];
    int first = 0;
    TRY(post_probe(e, n_sequences, flags, &n_added, &first, err));
    size_t max = (size_t)limit->max_length > n_added ? (size_t)limit->max_length - n_added : 0;
    for (size_t i = 0; i < out->list[0].n; i++) n[out->list[0].token[i].sequence == 1]++;
    TRY(kept_find(limit, kept, n, n_sequences, max, err));
    if (kept[0] == n[0] && kept[1] == n[1]) return CB_OK;
    struct cut cut[2];
    for (int k = 0; k < 2; k++) TRY(cut_begin(&cut[k], limit, n[k], kept[k], flags & ENCODE_WINDOWS, err));
    struct token_list all = out->list[0];
    out->list[0] = (struct token_list){0};
    enum cb_status status = cut_all(out, &all, cut, first, err);
    token_list_deinit(&all);
    return status;
}

/* ---- padding */

static enum cb_status pad_to(const struct padding *padding, struct token_list *list, size_t want, struct cb_err *err) {
    if (want <= list->n) return CB_OK;
    size_t more = want - list->n;
    TRY(buffer_grow((void **)&list->token, &list->capacity, want, sizeof *list->token, err));
    if (padding->left) memmove(list->token + more, list->token, list->n * sizeof *list->token);
    for (size_t i = 0; i < more; i++)
        list->token[padding->left ? i : list->n + i] =
            (struct token){.id = (int32_t)padding->id, .word = -1, .type = (int32_t)padding->type, .special = true, .sequence = -1};
    list->n = want;
    return CB_OK;
}

enum cb_status tokenizer_pad(const struct tokenizer *tokenizer, struct token_windows *windows, size_t n, struct cb_err *err) {
    const struct padding *padding = &tokenizer->padding;
    size_t want = padding->fixed >= 0 ? (size_t)padding->fixed : 0, multiple = (size_t)padding->multiple;
    if (!padding->on) return CB_OK;
    for (size_t i = 0; i < n && padding->fixed < 0; i++)
        if (windows[i].n && windows[i].list[0].n > want) want = windows[i].list[0].n;
    if (multiple && want % multiple) want += multiple - want % multiple;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < windows[i].n; k++) TRY(pad_to(padding, &windows[i].list[k], want, err));
    return CB_OK;
}

/* ---- the whole */

enum cb_status windows_finish(struct encoder *e, struct token_windows *out, int n_sequences, unsigned flags, struct cb_err *err) {
    const struct part *post = e->t->part[ROLE_POST_PROCESSOR];
    if ((flags & ENCODE_LIMITS) && e->t->truncation.on) TRY(truncate_all(e, out, n_sequences, flags, err));
    for (size_t i = 0; i < out->n && post; i++) TRY(post->kind->process(post, e, &out->list[i], n_sequences, flags & ENCODE_SPECIALS, err));
    return flags & ENCODE_LIMITS ? tokenizer_pad(e->t, out, 1, err) : CB_OK;
}
