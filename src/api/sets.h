/* Several data sets, each a task: their files, draws of rows from them, and the graph's inputs that say which one a row is of. */
#ifndef API_SETS_H
#define API_SETS_H
#include "api/instance.h"
#include "cambium/cambium.h"
#include "data/labelled.h"
#include "data/loader.h"
#include "data/mixture.h"

#define SETS_FIELD "task"  // what a row's set is called where modules ask for a field

/* One data set; of a run on plain data the only one. */
struct data_set {
    char *name;  // NULL: plain data
    const char **text, **valid;  // files, borrowed from the options
    int n_text, n_valid;
    struct corpus *corpus, *valid_corpus;  // the same where a share is held out
    struct loader *loader, *valid_loader;  // valid_loader NULL: none
};
struct data_sets {
    struct data_set *set;
    const char **names;  // of several; n of them
    int n;
    bool is_named;
    double exponent;  // of sizes, in draws
    struct mixture *mixture;  // NULL: rows of the one set in its own order
};
/* From text, valid, sets and sampling of the options. Free with sets_close, also after a failure. */
enum cb_status sets_parse(struct data_sets *sets, const struct cb_train_options *options, struct cb_err *err);
void sets_close(struct data_sets *sets);
/* All files one after the other, and the number of each one's set: lists of n, owned by caller, free(). */
enum cb_status sets_paths(const struct data_sets *sets, bool valid, const char ***paths, int **number, int *n, struct cb_err *err);
/* Rows that training goes through in one epoch; examples: of a labelled task; NULL: the loaders'. */
int64_t sets_rows(const struct data_sets *sets, const struct labelled *examples);
/* Begins to draw, where there are several sets. */
enum cb_status sets_mix(struct data_sets *sets, const struct labelled *examples, uint64_t seed, struct cb_err *err);

/* The inputs of a pass that want the sets of its rows: "task_ids", and fields of that name. Zero-initialise; free with set_inputs_close, also after a failure.
   has_fields: what modules depend on is told by the rows' own records. */
struct set_inputs {
    int32_t *set;  // (batch): to be filled, then set_inputs_fill
    int64_t batch;
    struct {
        int32_t *to;
        int32_t *number;  // of each set
    } input[8];
    int n;
};
enum cb_status set_inputs_open(struct set_inputs *inputs, struct pass *pass, const struct instance *instance, const struct data_sets *sets,
                               int64_t batch, bool has_fields, struct cb_err *err);
void set_inputs_fill(const struct set_inputs *inputs);
/* All rows of one set. */
void set_inputs_all(const struct set_inputs *inputs, int set);
void set_inputs_close(struct set_inputs *inputs);
#endif
