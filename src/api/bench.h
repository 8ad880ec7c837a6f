/* What the benches share: this machine's measured peaks, and the parts that live in other files. */
#ifndef API_BENCH_H
#define API_BENCH_H
#include "api/engine.h"

/* Fused multiply-adds on all threads from registers, in GFLOP/s; the better of several short runs. */
double bench_peak_gflops(struct cb_engine *engine);
/* A buffer larger than the caches, in GB/s; a copy counts both ways. 0: no memory for it. */
enum bench_move { BENCH_READ, BENCH_WRITE, BENCH_COPY };
double bench_memory_gb_per_s(struct pool *pool, enum bench_move move);
/* Rows of result; gflops and read_gb_per_s are set before. Nullable: op. */
enum cb_status bench_ops(struct cb_engine *engine, const char *op, struct cb_bench_result *result, struct cb_err *err);
/* Vocabulary size of a model folder. */
enum cb_status bench_vocab(const char *model, int64_t *vocab, struct cb_err *err);
enum cb_status bench_generate(struct cb_engine *engine, const struct cb_bench_options *options, struct cb_bench_result *result,
                              struct cb_err *err);
#endif
