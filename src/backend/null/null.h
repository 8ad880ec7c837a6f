/* The null backend: plans and counts, no arithmetic. */
#ifndef BACKEND_NULL_NULL_H
#define BACKEND_NULL_NULL_H
#include "graph/backend.h"

/* Plans made with it hold no memory and refuse to run. Its kernels are those of `like`, so that workspaces are counted as they will be. */
struct backend backend_null(const struct backend *like);
#endif
