/* cb_selftest: every op's cases on this machine. */
#include <string.h>

#include "api/engine.h"
#include "graph/selftest.h"
#include "ops/ops.h"

static void report(void *context, const char *line) { engine_warn(context, "%s", line); }

enum cb_status cb_selftest(struct cb_engine *engine, const char *op, struct cb_selftest_result *result, struct cb_err *err) {
    const struct op_table *table = ops_table();
    struct selftest test = {
        .ops = table, .backend = &engine->backend, .cpu_mask = engine->cpu_mask, .pool = engine->pool, .report = report, .context = engine};
    int64_t total = 0, done = 0;
    double begin = engine_now();
    TRY(engine_check_runs(engine, err));
    if (op && !op_find(table, op)) FAIL(err, CB_E_NAME, "selftest: no op '%s'; `cambium list ops` shows them", op);
    for (int f = 0; table->files[f]; f++)
        for (int i = 0; table->files[f][i]; i++) total++;
    *result = (struct cb_selftest_result){0};
    for (int f = 0; table->files[f]; f++)
        for (int i = 0; table->files[f][i]; i++, done++) {
            const struct op *o = table->files[f][i];
            if (op && strcmp(o->name, op) != 0) continue;
            TRY(selftest_op(&test, o, err));
            result->ops++;
            struct cb_progress p = {.verb = "selftest",
                                    .done = done + 1,
                                    .total = total,
                                    .seconds = engine_now() - begin,
                                    .seconds_left = -1,
                                    .loss = -1,
                                    .valid_loss = -1,
                                    .unit = "ops"};
            if (!engine_progress(engine, &p)) FAIL(err, CB_E_STOPPED, "selftest: stopped after op %s", o->name);
        }
    result->passed = test.n_passed;
    result->failed = test.n_failed;
    return CB_OK;
}
