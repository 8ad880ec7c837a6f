/* What the benches share: this machine's measured peaks, and the parts that live in other files. */
#ifndef API_BENCH_H
#define API_BENCH_H
#include "api/engine.h"

/* Fused multiply-adds on all threads from registers, in GFLOP/s; the better of several short runs. */
double bench_peak_gflops(struct cb_engine *engine);
/* Reading a buffer larger than the caches on all threads, in GB/s. */
double bench_read_gb_per_s(struct cb_engine *engine);
/* Vocabulary size of a model folder. */
enum cb_status bench_vocab(const char *model, int64_t *vocab, struct cb_err *err);
enum cb_status bench_generate(struct cb_engine *engine, const struct cb_bench_options *options, struct cb_bench_result *result,
                              struct cb_err *err);
#endif
