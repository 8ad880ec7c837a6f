/* What the tests of merging share: recipes with the fixtures' paths, golden tensors, models made for a test. */
#ifndef TESTS_MERGE_FIXTURES_H
#define TESTS_MERGE_FIXTURES_H
#include "base/json.h"
#include "io/safetensors.h"
#include "merge/models.h"

/* FOLDER/NAME in static storage, eight at a time. */
const char *path_of(const char *folder, const char *name);
/* The fixtures' folder of modules; NULL where it is absent. */
const char *modules_dir(void);
/* A JSON or YAML file; NULL where it cannot be read. */
json_t *json_of(const char *path);
json_t *yaml_of(const char *path);
/* Puts folder before every path of a model in a recipe. */
void root_models(json_t *recipe, const char *folder);
/* Largest difference of two sets of tensors, or -1 where names or shapes differ (what is printed). */
double tensors_gap(const char *a, const char *b);
/* FOLDER/config.json and FOLDER/model.safetensors of a llama-like toy: n_layers layers, width, vocabulary; values from seed. */
void make_model(const char *folder, int n_layers, int width, int vocab, unsigned seed, const char *dtype);
/* Parses a recipe's text and merges into folder with `threads` threads. */
enum cb_status merge_text(const char *text, const char *folder, int threads, struct merge_report *report, struct cb_err *err);
enum cb_status merge_json(json_t *root, const char *folder, int threads, const struct merge_masks *masks, struct merge_report *report,
                          struct cb_err *err);
#endif
