/* The CPU backend: its list of kernels. */
#ifndef BACKEND_CPU_CPU_H
#define BACKEND_CPU_CPU_H
#include "graph/backend.h"

extern const struct backend backend_cpu;
#endif
