/* A session: one sequence of tokens under a model, with the keys and values of what was read kept in a cache. */
#ifndef RUN_SESSION_H
#define RUN_SESSION_H
#include "graph/plan.h"
#include "models/model.h"
#include "store/store.h"

struct session;

struct session_options {
    const struct model *model;
    const struct store *store;  // weights in the types they are stored in, and modules' parameters
    struct nn_hook hook;  // modules; zero: none
    const struct op_table *ops;
    struct plan_options plan;  // memory_limit: what is left for cache and plans together; 0: none
    struct pool *pool;
    int64_t prompt;  // tokens that session_push will be given at once, at most
    int64_t
        context;  // positions: at least prompt + 1 (of an encoder-decoder, the decoder's alone: 3 or more). Past them the older half is forgotten
    int64_t total;  // tokens that will be read in all; more than context: stretches are made small enough to read half a context again
    bool plan_only;  // nothing is allocated for a run
};

struct session_memory {
    int64_t cache, activations;  // bytes
};

/* Builds the plans: one for a stretch of the prompt, one for a token. A model without a language head, or learned positions below context, are refused;
   over the memory limit is CB_E_LIMIT. Everything in options is borrowed for the session's life. Owned by caller, free with session_destroy. */
enum cb_status session_create(struct session **session, const struct session_options *options, struct cb_err *err);
void session_destroy(struct session **session);

/* An encoder-decoder's first tokens are its source; its decoder then begins as the model says, and what follows is its own.
   Reads n > 0 more tokens (each in the vocabulary: CB_E_ARGUMENT). *logits: (V) after the last of them, borrowed until the next call. */
enum cb_status session_push(struct session *session, const int32_t *ids, int64_t n, const float **logits, struct cb_err *err);
/* Forgets everything. */
void session_reset(struct session *session);
/* Tokens read and not forgotten. */
int64_t session_length(const struct session *session);
/* Whether tokens were forgotten because the context was full. */
bool session_has_forgotten(const struct session *session);
struct session_memory session_memory(const struct session *session);
/* Time by op of single tokens: switch on, and the report. *text: owned by caller, free(). */
void session_profile(struct session *session, bool on);
enum cb_status session_profile_report(const struct session *session, char **text, struct cb_err *err);
#endif
