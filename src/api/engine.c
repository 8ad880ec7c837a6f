/* Creating engines: threads, processor features, backend. The only reader of the environment. */
#include "api/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "backend/null/null.h"
#include "base/cpuid.h"
#include "ops/ops.h"

const char *cb_version(void) { return CB_VERSION; }

void cb_free(void *text) { free(text); }

int cb_engine_threads(const struct cb_engine *engine) { return pool_threads(engine->pool); }

static enum cb_status copy_text(const char **to, const char *text, struct cb_err *err) {
    if (text && !(*to = strdup(text))) FAIL(err, CB_E_MEMORY, "engine: out of memory");
    return CB_OK;
}

/* Whether the backend has such a kernel of an op; shown: the names of those that it has. */
static bool has_kernel(const struct backend *backend, const char *op, const char *name, char *shown, size_t size) {
    size_t used = (size_t)snprintf(shown, size, "ref");
    bool found = strcmp(name, "ref") == 0;
    for (int f = 0; backend->files[f]; f++)
        for (const struct kernel *k = backend->files[f]; k->op; k++) {
            if (strcmp(k->op, op) != 0) continue;
            found |= strcmp(k->name, name) == 0;
            if (used + strlen(k->name) + 3 < size) used += (size_t)snprintf(shown + used, size - used, ", %s", k->name);
        }
    return found;
}

/* "op=kernel,op=kernel": each op and each kernel is there. Whether it accepts a node is seen when one is chosen. */
static enum cb_status check_kernels(const struct backend *backend, const char *list, struct cb_err *err) {
    char item[128], shown[400];
    for (const char *p = list; p && *p;) {
        size_t n = strcspn(p, ",");
        snprintf(item, sizeof item, "%.*s", (int)(n < sizeof item ? n : sizeof item - 1), p);
        char *name = strchr(item, '=');
        if (!name) FAIL(err, CB_E_USAGE, "--kernel %s: wanted OP=NAME,...", list);
        *name++ = 0;
        if (!op_find(ops_table(), item)) FAIL(err, CB_E_USAGE, "--kernel %s: no op '%s'; `cambium list ops` shows them", list, item);
        if (!has_kernel(backend, item, name, shown, sizeof shown))
            FAIL(err, CB_E_USAGE, "--kernel %s: %s has no kernel '%s'; wanted one of %s", list, item, name, shown);
        p += n + (p[n] == ',');
    }
    return CB_OK;
}

static enum cb_status engine_fill(struct cb_engine *e, const struct cb_engine_options *o, struct cb_err *err) {
    e->options = *o;
    e->options.kernels = e->options.device = e->options.cpu_mask = NULL;
    TRY(copy_text(&e->options.kernels, o->kernels, err));
    TRY(copy_text(&e->options.device, o->device ? o->device : "cpu", err));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = o->threads > 0 ? o->threads : cores > 0 ? (int)cores : 1;
    if (o->threads < 0 || threads > 1024) FAIL(err, CB_E_USAGE, "--threads %d: out of range; wanted 1 to 1024", o->threads);
    int64_t mask = cpu_mask_by_name(o->cpu_mask ? o->cpu_mask : "all");
    if (mask < 0) FAIL(err, CB_E_USAGE, "--cpu-mask %s: unknown; wanted scalar, avx2, avx512, amx or all", o->cpu_mask);
    e->cpu_mask = cpu_features() & (uint32_t)mask;
    if (strcmp(e->options.device, "cpu") == 0)
        e->backend = backend_cpu;
    else if (strcmp(e->options.device, "null") == 0)
        e->backend = backend_null(&backend_cpu);
    else
        FAIL(err, CB_E_USAGE, "--device %s: not in this build; wanted cpu or null", e->options.device);
    TRY(check_kernels(&e->backend, o->kernels, err));
    e->start_s = engine_now();
    TRY(pool_create(&e->pool, threads, err));
    e->base_bytes = engine_resident_bytes();
    return CB_OK;
}

enum cb_status cb_engine_create(struct cb_engine **engine, const struct cb_engine_options *options, struct cb_err *err) {
    struct cb_engine_options none = {0};
    *engine = NULL;
    struct cb_engine *e = calloc(1, sizeof *e);
    if (!e) FAIL(err, CB_E_MEMORY, "engine: out of memory");
    enum cb_status status = engine_fill(e, options ? options : &none, err);
    if (status != CB_OK) cb_engine_destroy(&e);
    *engine = e;
    return status;
}

void cb_engine_destroy(struct cb_engine **engine) {
    if (!engine || !*engine) return;
    pool_destroy(&(*engine)->pool);
    free((void *)(*engine)->options.kernels);
    free((void *)(*engine)->options.device);
    free(*engine);
    *engine = NULL;
}

struct plan_options engine_plan_options(const struct cb_engine *engine, int64_t held) {
    int64_t limit = engine->options.memory_limit;
    return (struct plan_options){.backend = &engine->backend,
                                 .cpu_mask = engine->cpu_mask,
                                 .n_threads = pool_threads(engine->pool),
                                 .kernels = engine->options.kernels,
                                 .memory_limit = limit ? (limit > held ? limit - held : 1) : 0};
}

enum cb_status engine_check_runs(const struct cb_engine *engine, struct cb_err *err) {
    if (!engine->backend.runs)
        FAIL(err, CB_E_UNSUPPORTED, "--device %s: runs nothing; wanted another (plan says what a run would need)", engine->options.device);
    return CB_OK;
}

enum cb_status engine_check_held(const struct cb_engine *engine, int64_t held, const char *what, struct cb_err *err) {
    int64_t limit = engine->options.memory_limit;
    if (limit && held >= limit)
        FAIL(err, CB_E_LIMIT, "--memory %lld: %s alone take %lld bytes; wanted more than that", (long long)limit, what, (long long)held);
    return CB_OK;
}

void engine_warn(const struct cb_engine *engine, const char *format, ...) {
    if (!engine || !engine->options.warn) return;
    char line[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    engine->options.warn(engine->options.user, line);
}

bool engine_progress(const struct cb_engine *engine, const struct cb_progress *progress) {
    return !engine->options.progress || engine->options.progress(engine->options.user, progress);
}

int64_t engine_base_bytes(const struct cb_engine *engine) { return engine->base_bytes; }

double engine_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int64_t engine_peak_bytes(void) {
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) ? 0 : (int64_t)use.ru_maxrss * 1024;
}

int64_t engine_resident_bytes(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    long long total = 0, resident = 0;
    if (!f) return 0;
    if (fscanf(f, "%lld %lld", &total, &resident) != 2) resident = 0;
    fclose(f);
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}
