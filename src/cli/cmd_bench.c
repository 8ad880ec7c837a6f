/* cambium bench: speed beside this machine's measured peak. */
#include "base/err.h"
#include "cli/cli.h"

#define AT(field) offsetof(struct cb_bench_options, field)
static const struct option options[] = {{"batch", OPTION_POSITIVE, AT(batch), "N", "sequences (default 4)"},
                                        {"seq", OPTION_POSITIVE, AT(seq), "N", "tokens of each (default 256)"},
                                        {"steps", OPTION_POSITIVE, AT(steps), "N", "training steps (default 8)"},
                                        {"tuner", OPTION_TEXT, AT(tuner), "SPEC", "train a module, e.g. lora:r=8,alpha=16"},
                                        {"input", OPTION_TEXT, AT(input), "FILE", "safetensors with input_ids (default: random)"},
                                        {"lr", OPTION_ABOVE_ZERO, AT(lr), "X", "learning rate (default 3e-4)"},
                                        {"prompt", OPTION_POSITIVE, AT(prompt), "N", "prompt tokens (default 128)"},
                                        {"new", OPTION_POSITIVE, AT(new_tokens), "N", "new tokens (default 64)"},
                                        {"profile", OPTION_FLAG, AT(profile), NULL, "time by op, on standard error"},
                                        {NULL, OPTION_FLAG, 0, NULL, NULL}};
#define R(field) offsetof(struct cb_bench_result, field)
static const struct field train_fields[] = {{"tokens_per_s", FIELD_NUMBER, R(tokens_per_s)},
                                            {"best_tokens_per_s", FIELD_NUMBER, R(best_tokens_per_s)},
                                            {"step_ms", FIELD_NUMBER, R(step_ms)},
                                            {"peak_mib", FIELD_NUMBER, R(peak_mib)},
                                            {"planned_mib", FIELD_NUMBER, R(planned_mib)},
                                            {"gflops", FIELD_NUMBER, R(gflops)},
                                            {"fraction_of_peak", FIELD_NUMBER, R(fraction_of_peak)},
                                            {"trainable", FIELD_INT, R(trainable)},
                                            {NULL, FIELD_INT, 0}};
static const struct field generate_fields[] = {{"prefill_tokens_per_s", FIELD_NUMBER, R(prefill_tokens_per_s)},
                                               {"decode_tokens_per_s", FIELD_NUMBER, R(decode_tokens_per_s)},
                                               {"read_gb_per_s", FIELD_NUMBER, R(read_gb_per_s)},
                                               {"peak_mib", FIELD_NUMBER, R(peak_mib)},
                                               {"planned_mib", FIELD_NUMBER, R(planned_mib)},
                                               {NULL, FIELD_INT, 0}};
static const struct field machine_fields[] = {{"gflops", FIELD_NUMBER, R(gflops)},
                                              {"read_gb_per_s", FIELD_NUMBER, R(read_gb_per_s)},
                                              {"write_gb_per_s", FIELD_NUMBER, R(write_gb_per_s)},
                                              {"copy_gb_per_s", FIELD_NUMBER, R(copy_gb_per_s)},
                                              {"read_gb_per_s_1", FIELD_NUMBER, R(read_gb_per_s_1)},
                                              {"write_gb_per_s_1", FIELD_NUMBER, R(write_gb_per_s_1)},
                                              {"copy_gb_per_s_1", FIELD_NUMBER, R(copy_gb_per_s_1)},
                                              {NULL, FIELD_INT, 0}};

/* One line a kernel, under the machine's peaks. */
static void print_ops(const struct cli *cli, const struct cb_bench_result *r) {
    if (cli->json)
        printf("{\"gflops\": %.9g, \"read_gb_per_s\": %.9g, \"ops\": [", r->gflops, r->read_gb_per_s);
    else
        printf("peaks: %.5g GFLOP/s, reading %.5g GB/s\n%-16s %-8s %10s %8s %9s %5s  %s\n", r->gflops, r->read_gb_per_s, "op", "kernel",
               "us", "GB/s", "GFLOP/s", "roof", "shape");
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct cb_bench_row *row = &r->rows[i];
        if (cli->json)
            printf(
                "%s{\"op\": \"%s\", \"kernel\": \"%s\", \"shape\": \"%s\", \"us\": %.6g, \"gb_per_s\": %.6g, \"gflops\": %.6g, "
                "\"fraction_of_roof\": %.6g}",
                i ? ", " : "", row->op, row->kernel, row->shape, row->us, row->gb_per_s, row->gflops, row->fraction_of_roof);
        else
            printf("%-16s %-8s %10.1f %8.1f %9.1f %4.0f%%  %s\n", row->op, row->kernel, row->us, row->gb_per_s, row->gflops,
                   100 * row->fraction_of_roof, row->shape);
    }
    if (cli->json) puts("]}");
}

/* The fields, and for training the loss of every step. */
static void print(struct cli *cli, const struct cb_bench_options *o, const struct cb_bench_result *r) {
    bool train = o->what[0] == 't', generate = o->what[0] == 'g';
    if (o->what[0] == 'o') {
        print_ops(cli, r);
        return;
    }
    if (!cli->json || !train) {
        cli_print(cli, train ? train_fields : generate ? generate_fields : machine_fields, r);
        return;
    }
    fputs("{\"losses\": [", stdout);
    for (int64_t i = 0; i < r->n_losses; i++) printf("%s%.6g", i ? ", " : "", r->losses[i]);
    fputs("]", stdout);
    for (const struct field *f = train_fields; f->name; f++) {
        const char *p = (const char *)r + f->offset;
        if (f->kind == FIELD_INT)
            printf(", \"%s\": %lld", f->name, (long long)*(const int64_t *)p);
        else
            printf(", \"%s\": %.9g", f->name, *(const double *)p);
    }
    puts("}");
}

static enum cb_status run(struct cli *cli, void *parsed, char **args, int n_args, struct cb_err *err) {
    struct cb_bench_options *o = parsed;
    struct cb_bench_result result = {0};
    struct cb_engine *engine;
    o->what = args[0];
    *(o->what[0] == 'o' ? &o->op : &o->model) = n_args > 1 ? args[1] : NULL;
    TRY(cli_engine(cli, false, &engine, err));
    enum cb_status status = cb_bench(engine, o, &result, err);
    cli_end_line(cli);
    if (result.profile) fputs(result.profile, stderr);
    if (status == CB_OK) print(cli, o, &result);
    cb_free(result.profile);
    cb_free(result.losses);
    cb_free(result.rows);
    cb_engine_destroy(&engine);
    return status;
}

const struct command command_bench = {.name = "bench",
                                      .usage = "train MODEL | generate MODEL | ops [OP] | memory",
                                      .summary = "speed beside this machine's measured peak",
                                      .options = options,
                                      .bytes = sizeof(struct cb_bench_options),
                                      .min_args = 1,
                                      .max_args = 2,
                                      .run = run};
