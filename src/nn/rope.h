/* Rotary positions: the frequencies of each scaling rule that checkpoints name. */
#ifndef NN_ROPE_H
#define NN_ROPE_H
#include "base/json.h"
#include "nn/nn.h"

enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN, ROPE_LLAMA3 };

struct rope {
    enum rope_kind kind;
    int64_t dim;  // features that turn, even
    double theta, factor;
    int64_t max_positions, original_positions;
    double low_freq_factor, high_freq_factor;  // llama3
    double beta_fast, beta_slow;  // yarn
    double attention_factor;  // on cos and sin; 1 but for yarn
    bool truncate;  // yarn
};

/* Reads rope_theta and rope_scaling, or rope_parameters, of a config.json. name: of the file, for messages. */
enum cb_status rope_parse(struct rope *rope, const json_t *config, const char *name, int64_t dim, int64_t max_positions,
                          struct cb_err *err);
/* inv_freq: dim/2 values for a sequence of `length` positions (only dynamic depends on it). */
void rope_frequencies(const struct rope *rope, int64_t length, float *inv_freq);
/* The same as a constant in the graph. */
struct cb_tensor *rope_tensor(struct cb_graph *g, const struct rope *rope, int64_t length);
#endif
