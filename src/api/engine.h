/* The engine: what every public call is given. Shared by the files of this room only. */
#ifndef API_ENGINE_H
#define API_ENGINE_H
#include <cambium/cambium.h>

#include "graph/plan.h"

struct cb_engine {
    struct cb_engine_options options;  // strings are owned
    struct pool *pool;
    uint32_t cpu_mask;
    struct backend backend;
    double start_s;  // monotonic clock when it was created
    int64_t base_bytes;  // resident then: code, libraries, tables
};

/* Options of a plan on this engine; memory_limit is what is left of the engine's after `held` bytes (weights, gradients, states). */
struct plan_options engine_plan_options(const struct cb_engine *engine, int64_t held);
/* Refuses a device that runs nothing. */
enum cb_status engine_check_runs(const struct cb_engine *engine, struct cb_err *err);
/* CB_E_LIMIT where `held` bytes alone pass the engine's memory limit. what: of which kinds they are. */
enum cb_status engine_check_held(const struct cb_engine *engine, int64_t held, const char *what, struct cb_err *err);
/* One warning line for people. Nullable: engine->options.warn. */
void engine_warn(const struct cb_engine *engine, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* false: the caller asks for a stop. */
bool engine_progress(const struct cb_engine *engine, const struct cb_progress *progress);
double engine_now(void);  // seconds, monotonic
/* What this process holds before weights and plans. */
int64_t engine_base_bytes(const struct cb_engine *engine);
/* Resident peak of this process in bytes. */
int64_t engine_peak_bytes(void);
/* Resident bytes of this process now. */
int64_t engine_resident_bytes(void);
#endif
