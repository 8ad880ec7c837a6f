/* The CPU backend: kernels of every k_*.c file, listed by the build. */
#include "backend/cpu/cpu.h"

#define KERNEL_FILE(name) extern const struct kernel kernel_file_##name[];
#include "gen/cpu_kernels.inc"
#undef KERNEL_FILE

static const struct kernel *const files[] = {
#define KERNEL_FILE(name) kernel_file_##name,
#include "gen/cpu_kernels.inc"
#undef KERNEL_FILE
    NULL};

const struct backend backend_cpu = {.name = "cpu", .files = files, .runs = true};
