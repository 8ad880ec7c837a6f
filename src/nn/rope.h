/* Rotary positions: the frequencies of each scaling rule that checkpoints name. */
#ifndef NN_ROPE_H
#define NN_ROPE_H
#include "base/json.h"
#include "nn/nn.h"

struct rope_rule;

struct rope {
    const struct rope_rule *rule;
    int64_t dim;  // features that turn, even
    double theta, factor;
    int64_t max_positions, original_positions;
    double low_freq_factor, high_freq_factor;  // llama3
    double beta_fast, beta_slow;  // yarn
    bool truncate;  // yarn
    const json_t *short_factor, *long_factor;  // longrope: dim/2 numbers each, borrowed from the configuration
    double attention_factor;  // on cos and sin; 1 but for yarn and longrope
    int64_t exact_positions;  // the table is one for all lengths up to this
    bool exact_again;  // and one for all beyond it
};

/* What a family's config.json leaves open. */
struct rope_source {
    const json_t *config;
    const char *name;  // of the file, for messages
    int64_t head_dim, max_positions;
    double theta;  // where no rope_theta is given; 0: 10000
    double partial;  // share of a head that turns, where no partial_rotary_factor is given; 0: 1
    int64_t
        original_positions;  // of longrope, where no original_max_position_embeddings is given; 0: max_positions, and a factor is wanted
    const char *part;  // "sliding_attention": its object within rope_parameters; NULL: "full_attention"
    bool own_keys;  // theta and partial have been read from keys of the family's own, only rope_parameters overrides them
    bool old_yarn;  // "type": "yarn" means longrope (first Phi-3 files)
};

/* Reads rope_theta and rope_scaling (Transformers 4) or rope_parameters (5) of a config.json, which must outlive the rope. */
enum cb_status rope_parse(struct rope *rope, const struct rope_source *source, struct cb_err *err);
/* inv_freq: dim/2 values for a sequence of `length` positions (only dynamic and longrope depend on it). */
void rope_frequencies(const struct rope *rope, int64_t length, float *inv_freq);
/* The same as a constant in the graph. */
struct cb_tensor *rope_tensor(struct cb_graph *g, const struct rope *rope, int64_t length);
/* YaRN's bounds of turns, and its scale of attention, 0.1 m ln(factor) + 1, where nothing else is given (m: 1). */
enum { ROPE_YARN_FAST = 32, ROPE_YARN_SLOW = 1 };
double rope_yarn_attention(double factor, double m);
#endif
