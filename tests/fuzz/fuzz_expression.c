/* Fuzz target: any bytes as an expression over modules or, where they begin with a brace, as an adapter_setup.json, and as the spec of a fresh module;
   what is accepted is a tree of whole nodes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "modules/expression.h"
#include "modules/module.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Every node has a meaning; the number of them. */
static int walk(const struct expression *e, struct arena *arena, int depth) {
    int nodes = 1;
    if (depth > EXPRESSION_DEPTH || e->n < 0 || !isfinite(e->weight) || (!e->block && e->n)) __builtin_trap();
    if (e->block && e->block->chooses && !expression_input(e, arena)) __builtin_trap();
    if (e->block && e->block->by_rows && e->n_numbers && e->n_numbers != e->n) __builtin_trap();
    for (int i = 0; i < e->n; i++) {
        if (!e->child[i] || (e->field && !e->value[i])) __builtin_trap();
        nodes += walk(e->child[i], arena, depth + 1);
    }
    return nodes;
}

static char folder[] = "/tmp/fuzz_expression_XXXXXX";

static void folder_remove(void) {
    char path[sizeof folder + 30];
    snprintf(path, sizeof path, "%s/adapter_setup.json", folder);
    unlink(path);
    rmdir(folder);
}

/* The folder that holds the adapter_setup.json of the run. */
static const char *setup_folder(const char *text, size_t n) {
    static bool is_made;
    char path[sizeof folder + 30];
    if (!is_made && (!mkdtemp(folder) || atexit(folder_remove) != 0)) abort();
    is_made = true;
    snprintf(path, sizeof path, "%s/adapter_setup.json", folder);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, n, f) != n || fclose(f) != 0) abort();
    return folder;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct cb_err err = {0};
    struct arena *arena = arena_create();
    struct expression *e = NULL;
    const char *const *heads = NULL;
    char *text = malloc(n + 1);
    int64_t positions = 0;
    if (!text || !arena) abort();
    if (n) memcpy(text, bytes, n);
    text[n] = 0;
    const bool is_setup = *text == '{';
    const enum cb_status status =
        is_setup ? setup_read(&e, &heads, arena, setup_folder(text, n), &err) : expression_parse(&e, arena, text, "input", &err);
    if (status == CB_OK) {
        if (walk(e, arena, 0) > EXPRESSION_NODES + 1) __builtin_trap();
        expression_is_sum(e);
    } else if (!err.message[0]) {
        __builtin_trap();  // every refusal says why
    }
    err = (struct cb_err){0};
    if (!is_setup && module_spec_positions(text, &positions, &err) == CB_OK && positions < 0) __builtin_trap();
    arena_destroy(&arena);
    free(text);
    return 0;
}
