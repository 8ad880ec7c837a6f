/* cambium selftest: every op on this machine. */
#include "base/err.h"
#include "cli/cli.h"

#define R(field) offsetof(struct cb_selftest_result, field)
static const struct field fields[] = {
    {"ops", FIELD_INT, R(ops)}, {"passed", FIELD_INT, R(passed)}, {"failed", FIELD_INT, R(failed)}, {NULL, FIELD_INT, 0}};

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct cb_selftest_result result = {0};
    struct cb_engine *engine;
    (void)parsed;
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_selftest(engine, n_args ? args[0] : NULL, &result, err);
    cb_engine_destroy(&engine);
    TRY(status);
    cli_end_line(cli);
    cli_print(cli, fields, &result);
    if (result.failed)
        FAIL(err, CB_E_NUMERIC, "selftest: %lld of %lld checks failed", (long long)result.failed,
             (long long)(result.passed + result.failed));
    return CB_OK;
}

const struct command command_selftest = {.name = "selftest",
                                         .usage = "[OP]",
                                         .summary = "kernels against the reference, gradients against finite differences, on this machine",
                                         .max_args = 1,
                                         .run = run};
