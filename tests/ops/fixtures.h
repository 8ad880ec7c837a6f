/* Op fixtures: a file's case as a graph of ours. Each adaptor reads PyTorch's attributes and builds the same function. */
#ifndef TESTS_OPS_FIXTURES_H
#define TESTS_OPS_FIXTURES_H
#include <jansson.h>

#include "graph/plan.h"
#include "io/safetensors.h"

#define FIXTURE_MAX 16
struct fixture {
    const char *name;  // of the file, for messages
    const struct tensors *file;
    json_t *about;  // the metadata `case`
    struct cb_graph *g;
    struct {
        const char *name;
        struct cb_tensor *tensor;
    } in[FIXTURE_MAX], out[FIXTURE_MAX];
    int n_in, n_out;
};

/* Builds the case in f->g and declares its outputs with fixture_out. */
struct fixture_adaptor {
    const char *op;  // NULL ends the list
    void (*build)(struct fixture *f);
};
extern const struct fixture_adaptor fixtures_a[], fixtures_b[];

/* An input as a graph input: f32, bool where the case says so, i32 for i64. NULL where the case has none of the name. */
struct cb_tensor *fixture_in(const struct fixture *f, const char *name);
/* Declares an output under its name in the file; "" for the only one. */
void fixture_out(struct fixture *f, const char *name, struct cb_tensor *t);
/* Attributes, or the given value where absent. "inf" reads as infinity. */
double fixture_float(const struct fixture *f, const char *name, double otherwise);
int64_t fixture_int(const struct fixture *f, const char *name, int64_t otherwise);
bool fixture_bool(const struct fixture *f, const char *name, bool otherwise);
const char *fixture_str(const struct fixture *f, const char *name, const char *otherwise);
/* One integer or a list of them into out[FIXTURE_MAX]; their count, 0 where absent. */
int fixture_ints(const struct fixture *f, const char *name, int64_t *out);

/* The op that a file is of, into op[bytes]. */
bool fixture_op(const char *path, char *op, size_t bytes);
/* Builds, runs with ref kernels and compares outputs and gradients. Returns true where all agree; else text says what does not. */
bool fixture_check(const char *path, const char *name, char text[1200]);
/* The adaptor of an op; NULL where there is none. */
const struct fixture_adaptor *fixture_adaptor_of(const char *op);
#endif
