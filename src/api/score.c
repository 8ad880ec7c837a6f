/* Validation and evaluation: every batch of a loader through a plan without gradients. */
#include "api/score.h"

#include <stdlib.h>
#include <string.h>

#define VALID_KEY ((uint64_t)1 << 62)  // masks of validation are not those of training

enum cb_status score_mask(struct mask **mask, const struct model *model, const struct tokenizer *tokenizer, const char *kind, double rate,
                          uint64_t seed, struct cb_err *err) {
    struct mask_options o = {.rate = rate != 0 ? rate : 0.15, .seed = seed};
    *mask = NULL;
    if (!mask_kind_by_name(&o.kind, kind)) FAIL(err, CB_E_USAGE, "--mask %s: wanted whole-word, token or span", kind);
    if (!(o.rate > 0 && o.rate < 1)) FAIL(err, CB_E_USAGE, "--mask-rate %g: wanted a number above 0 and below 1", rate);
    if (!model->class->head->masks && (kind || (rate != 0 && !model->class->head->shifts_labels)))
        FAIL(err, CB_E_USAGE, "--mask, --mask-rate: %s hides no tokens; wanted a masked language model", model->class->name);
    return model->class->head->masks && tokenizer ? mask_create(mask, tokenizer, &o, err) : CB_OK;
}

static bool corrupts(const char *task) { return task && strcmp(task, "span-corruption") == 0; }

enum cb_status score_corrupt(struct corrupt **corrupt, const struct model *model, const struct tokenizer *tokenizer, const char *task,
                             double rate, uint64_t seed, struct cb_err *err) {
    struct corrupt_options o = {.rate = rate != 0 ? rate : 0.15, .seed = seed, .eos = model->n_eos ? (int32_t)model->eos[0] : -1};
    *corrupt = NULL;
    if (model->class->head->shifts_labels && rate != 0 && !corrupts(task))
        FAIL(err, CB_E_USAGE, "--mask-rate: %s hides no tokens; wanted --task span-corruption with it", model->class->name);
    o.pad = model->pad >= 0 && model->pad < model->vocab ? (int32_t)model->pad : 0;
    return corrupts(task) && tokenizer ? corrupt_create(corrupt, tokenizer, &o, err) : CB_OK;
}

enum cb_status score_check_task(const struct model *model, const char *task, struct cb_err *err) {
    bool masks = model->class->head->masks, has_source = model->class->head->shifts_labels;
    if (!task || strcmp(task, masks ? "mlm" : "text") == 0 || (!masks && strcmp(task, "chat") == 0)) return CB_OK;
    if (has_source && corrupts(task)) return CB_OK;
    FAIL(err, CB_E_USAGE, "--task %s: %s learns %s", task, model->class->name,
         masks        ? "mlm"
         : has_source ? "text, chat or span-corruption"
                      : "text or chat");
}

int32_t *score_segments(struct pass *pass) {
    int32_t *segments = pass_data(pass, "segments");
    return segments ? segments : pass_data(pass, "attention_mask");
}

void score_prepare(const struct mask *mask, const struct corrupt *corrupt, uint64_t key, int64_t batch, int64_t seq, int32_t *ids,
                   int32_t *labels, int32_t *segments) {
    if (mask) mask_apply(mask, key, batch, seq, ids, labels, segments);
    if (corrupt) corrupt_apply(corrupt, key, batch, seq, ids, labels, segments);
}

void score_pairs(struct loader_options *o, const struct model *model) {
    o->no_pack = o->pairs = true;
    o->eos = model->n_eos ? (int32_t)model->eos[0] : -1;
    o->pad = model->pad >= 0 && model->pad < model->vocab ? (int32_t)model->pad : 0;
}

void score_tell_lost(struct cb_engine *engine, const struct loader *loader, const char *of) {
    const struct loader_options *o = loader_options(loader);
    const struct loader_info *i = loader_info(loader);
    const struct {
        int64_t n, tokens;
        const char *what;
    } cut[] = {{i->cut_documents, i->cut_tokens, o->pairs ? "sources" : "documents"}, {i->cut_targets, i->cut_target_tokens, "targets"}};
    for (int k = 0; k < 2; k++)
        if (cut[k].n)
            engine_warn(engine, "%s%lld %s are longer than --seq %lld: %lld tokens are cut off", of, (long long)cut[k].n, cut[k].what,
                        (long long)o->seq, (long long)cut[k].tokens);
    if (i->blank_rows)
        engine_warn(engine, "%s%lld of %lld %s have nothing to learn within --seq %lld", of, (long long)i->blank_rows,
                    (long long)loader_windows(loader), o->no_pack ? "examples" : "windows", (long long)o->seq);
}

enum cb_status score_check_pairs(const struct model *model, const struct corpus *corpus, struct cb_err *err) {
    const struct corpus_info *info = corpus_info(corpus);
    if (!model->class->head->shifts_labels || info->learnt < info->tokens) return CB_OK;
    FAIL(err, CB_E_ARGUMENT,
         "%s: text of which all is learnt; wanted records of prompt and completion for its source and its target, or "
         "--task span-corruption",
         model->class->name);
}

enum cb_status score_open(struct score *s, struct instance *instance, const struct loader_options *o, const struct corrupt *corrupt,
                          struct cb_err *err) {
    struct nn nn;
    const bool pairs = instance->model->class->head->shifts_labels;
    struct model_io io = {.batch = o->batch,
                          .tokens = o->seq,
                          .want_loss = true,
                          .head_loss_only = true,
                          .labels_shifted = true,
                          .segments = (o->segments || o->no_pack) && !pairs,
                          .position_ids = (o->segments || o->no_pack) && !pairs,
                          .attention_mask = pairs,
                          .decoder_tokens = corrupt ? corrupt_target(corrupt, o->seq) : 0};
    *s = (struct score){.instance = instance, .corrupt = corrupt};
    const struct model_class *class = instance->model->class;
    if (!class->head->learns_text && !pairs)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s scores no text; wanted a language model", instance->path, class->name);
    s->is_open = true;
    if (corrupt && !(s->spare = calloc((size_t)(o->batch * o->seq), sizeof *s->spare))) FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    TRY(pass_begin(&s->pass, instance, &nn, err));
    TRY(model_build(instance->model, &nn, &io, err));
    return pass_plan(&s->pass, instance, false, engine_base_bytes(instance->engine) + instance_weight_bytes(instance), err);
}

void score_close(struct score *s) {
    if (s->is_open) pass_end(&s->pass);
    s->is_open = false;
    free(s->spare);
    s->spare = NULL;
}

int64_t score_bytes(const struct score *s) { return plan_memory(s->pass.plan).inside; }

enum cb_status score_run(struct score *s, double *loss, int64_t *tokens, struct cb_err *err) {
    const struct loader_options *o = loader_options(s->loader);
    int32_t *ids = pass_data(&s->pass, "input_ids"), *labels = pass_data(&s->pass, "labels");
    int32_t *segments = score_segments(&s->pass), *positions = pass_data(&s->pass, "position_ids");
    const float *mean = pass_data(&s->pass, "loss");
    const int64_t target = s->corrupt ? corrupt_target(s->corrupt, o->seq) : o->seq;
    double total = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < loader_valid_batches(s->loader); i++) {
        TRY(loader_valid(s->loader, i, ids, s->spare ? s->spare : labels, segments, positions, err));
        score_prepare(s->mask, s->corrupt, VALID_KEY + (uint64_t)i, o->batch, o->seq, ids, labels, segments);
        int64_t learnt = 0;
        for (int64_t k = 0; k < o->batch * target; k++) learnt += labels[k] != LOADER_IGNORE;
        if (!learnt) continue;
        TRY(plan_run(s->pass.plan, s->instance->engine->pool, err));
        total += (double)*mean * (double)learnt;
        count += learnt;
        struct cb_progress p = {.verb = "eval",
                                .done = i + 1,
                                .total = loader_valid_batches(s->loader),
                                .seconds_left = -1,
                                .loss = total / (double)count,
                                .valid_loss = -1};
        if (!engine_progress(s->instance->engine, &p)) FAIL(err, CB_E_STOPPED, "evaluation: stopped");
    }
    if (!count) FAIL(err, CB_E_ARGUMENT, "evaluation: no tokens to score");
    *loss = total / (double)count;
    if (tokens) *tokens = count;
    return CB_OK;
}
