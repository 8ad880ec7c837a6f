/* cb_eval_text: likelihood of text under a model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/chat.h"
#include "api/files.h"
#include "api/score.h"
#include "text/tokenizer.h"

/* One call. */
struct evaluation {
    const struct cb_eval_options *o;
    struct instance instance;
    struct tokenizer *tokenizer;
    struct chat *chat;
    struct corpus *corpus;
    struct loader *loader;
    struct score score;
    struct mask *mask;  // NULL: every token is scored
    struct corrupt *corrupt;  // NULL: no spans are
};

static void warn(void *user, const char *line) { engine_warn(user, "%s", line); }

static void note(void *user, const char *line) {
    struct cb_progress p = {.verb = "data", .seconds = -1, .seconds_left = -1, .loss = -1, .valid_loss = -1, .text = line};
    engine_progress(user, &p);
}

static enum cb_status load_text(struct evaluation *e, struct cb_err *err) {
    enum data_invalid invalid;
    struct cb_engine *engine = e->instance.engine;
    TRY(data_invalid_by_name(&invalid, e->o->invalid, err));
    TRY(files_load_tokenizer(&e->tokenizer, e->o->model, err));
    int64_t size = tokenizer_size(e->tokenizer), vocab = e->instance.model->vocab;
    if (size > vocab)
        FAIL(err, CB_E_ARGUMENT, "%s: the tokenizer has %lld ids, the model's vocab_size is %lld", e->o->model, (long long)size,
             (long long)vocab);
    TRY(score_mask(&e->mask, e->instance.model, e->tokenizer, e->o->mask, e->o->mask_rate, engine->options.seed, err));
    TRY(score_corrupt(&e->corrupt, e->instance.model, e->tokenizer, e->o->task, e->o->mask_rate, engine->options.seed, err));
    const int32_t bos = e->mask ? tokenizer_bos(e->tokenizer) : -1;
    struct corpus_options co = {.bos = bos, .eos = tokenizer_eos(e->tokenizer), .invalid = invalid, .user = engine, .warn = warn};
    bool is_chat = e->o->task && !strcmp(e->o->task, "chat");
    TRY(score_check_task(e->instance.model, e->o->task, err));
    TRY(records_check_columns(e->o->columns, e->o->n_columns, err));
    TRY(is_chat ? chat_need(&e->chat, e->o->model, e->tokenizer, e->o->chat_template, err)
                : chat_open(&e->chat, e->o->model, e->tokenizer, e->o->chat_template, err));
    co.note = note;
    co.chat = e->chat;
    co.is_chat = is_chat;
    co.records = RECORDS_OPTIONS(e->o);
    co.apart = e->instance.model->class->head->shifts_labels && !e->corrupt;
    return corpus_load(&e->corpus, e->o->text, e->o->n_text, e->tokenizer, NULL, &co, NULL, err);
}

static enum cb_status run(struct evaluation *e, struct cb_engine *engine, struct cb_eval_result *r, struct cb_err *err) {
    const struct cb_eval_options *o = e->o;
    double begin = engine_now();
    TRY(engine_check_runs(engine, err));
    TRY(instance_open(&e->instance, engine, o->model, o->modules, err));
    TRY(load_text(e, err));
    int64_t context = (e->instance.model->max_positions > 0 ? e->instance.model->max_positions : 1024) - instance_positions(&e->instance);
    struct loader_options lo = {.batch = o->batch ? o->batch : 8,
                                .seq = o->seq           ? o->seq
                                       : context < 1024 ? context
                                                        : 1024,
                                .stride = o->stride,
                                .segments = e->mask || corpus_info(e->corpus)->documents > 1,
                                .evaluation = true};
    if (lo.batch < 1 || lo.seq < 1 || lo.stride < 0 || lo.stride > lo.seq)
        FAIL(err, CB_E_USAGE, "eval: --batch and --seq want 1 or more, --stride at most --seq");
    if (!e->corrupt) TRY(score_check_pairs(e->instance.model, e->corpus, err));
    if (e->instance.model->class->head->shifts_labels && !e->corrupt) score_pairs(&lo, e->instance.model);
    TRY(loader_create(&e->loader, e->corpus, &lo, err));
    score_tell_lost(engine, e->loader, "");
    TRY(score_open(&e->score, &e->instance, &lo, e->corrupt, err));
    e->score.loader = e->loader;
    e->score.mask = e->mask;
    TRY(score_run(&e->score, &r->loss, &r->tokens, err));
    if (r->tokens && !isfinite(r->loss))
        FAIL(err, CB_E_NUMERIC,
             "%s: the loss is %g; wanted a finite one (a weight of the model or of its modules is not finite, or too large)", o->model,
             r->loss);
    const struct corpus_info *info = corpus_info(e->corpus);
    r->bytes = info->learnt < info->tokens ? info->bytes : info->text_bytes;
    r->words = info->words;
    r->perplexity = exp(r->loss);
    r->seconds = engine_now() - begin;
    // every token after the first is scored, the end of text that each document got among them; the loss of hidden ones, or without those cut
    // off, says nothing of all the bytes
    double nats = e->mask || e->corrupt || loader_info(e->loader)->cut_targets ? NAN : r->loss * (double)r->tokens;
    r->bits_per_byte = nats / log(2) / (double)r->bytes;
    r->word_perplexity = r->words ? exp(nats / (double)r->words) : NAN;
    return CB_OK;
}

enum cb_status cb_eval_text(struct cb_engine *engine, const struct cb_eval_options *options, struct cb_eval_result *result,
                            struct cb_err *err) {
    struct evaluation e = {.o = options};
    *result = (struct cb_eval_result){0};
    enum cb_status status = run(&e, engine, result, err);
    score_close(&e.score);
    loader_destroy(&e.loader);
    corpus_destroy(&e.corpus);
    mask_destroy(&e.mask);
    corrupt_destroy(&e.corrupt);
    chat_destroy(&e.chat);
    tokenizer_destroy(&e.tokenizer);
    instance_close(&e.instance);
    return status;
}
