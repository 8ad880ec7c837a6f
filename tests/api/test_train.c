/* cb_train by its public face: a resumed run is the same run or is refused, wrong counts are refused before anything is written, plans hold validation. */
#include <cambium/cambium.h>

#include "../harness.h"
#include "io/file.h"

/* A folder with a text, another text, a tokenizer and a small model. */
struct place {
    char root[128], text[160], other[160], tokens[160], model[160];
    struct cb_engine *engine;
};

static void write_lines(const char *path, int n) {
    FILE *f = fopen(path, "w");
    CHECK(f, "%s", path);
    for (int i = 0; i < n; i++) fprintf(f, "line %d of a text that goes on: %d and %d.\n", i, i * 7919 % 1000, i * 7013 % 997);
    fclose(f);
}

static void place_open(struct place *p) {
    struct cb_err err = {0};
    temporary_folder(p->root, "train");
    snprintf(p->text, sizeof p->text, "%s/text.txt", p->root);
    snprintf(p->other, sizeof p->other, "%s/other.txt", p->root);
    snprintf(p->tokens, sizeof p->tokens, "%s/tokens", p->root);
    snprintf(p->model, sizeof p->model, "%s/model", p->root);
    write_lines(p->text, 200);
    write_lines(p->other, 190);
    struct cb_engine_options eo = {.threads = 1};
    CHECK_OK(cb_engine_create(&p->engine, &eo, &err));
    const char *text = p->text;
    struct cb_tokenizer_train_options to = {.text = &text, .n_text = 1, .out = p->tokens, .vocab = 280};
    struct cb_tokenizer_train_result tr;
    CHECK_OK(cb_tokenizer_train(p->engine, &to, &tr, &err));
    struct cb_init_options io = {
        .out = p->model, .family = "gpt2", .set = "n_embd=16,n_layer=1,n_head=2,n_positions=32", .tokenizer = p->tokens};
    struct cb_init_result ir;
    CHECK_OK(cb_init(p->engine, &io, &ir, &err));
}

static void place_close(struct place *p) { cb_engine_destroy(&p->engine); }

static const char *at(const struct place *p, const char *name) {
    static char path[4][200];
    static int next;
    char *text = path[next++ % 4];
    snprintf(text, sizeof path[0], "%s/%s", p->root, name);
    return text;
}

/* The smallest useful options; out within the place. */
static struct cb_train_options options(const struct place *p, const char *const *text, const char *out) {
    return (struct cb_train_options){.model = p->model,
                                     .out = out,
                                     .text = text,
                                     .n_text = 1,
                                     .steps = 8,
                                     .batch = 2,
                                     .seq = 16,
                                     .eval_every = 4,
                                     .save_every = 2,
                                     .run_json = "{\"x\":1}"};
}

static enum cb_status train(const struct place *p, const struct cb_train_options *o, struct cb_train_result *r, struct cb_err *err) {
    *err = (struct cb_err){0};
    return cb_train(p->engine, o, r, err);
}

/* Warnings that were given. */
struct told {
    int blank, sources, targets;
};
static void tell(void *user, const char *line) {
    struct told *t = user;
    t->blank += strstr(line, "nothing to learn within --seq 16") != NULL;
    t->sources += strstr(line, "sources are longer than --seq 16") != NULL;
    t->targets += strstr(line, "targets are longer than --seq 16") != NULL;
}

static bool same_file(const char *a, const char *b) {
    struct cb_err err = {0};
    char *x, *y;
    size_t n, m;
    CHECK_OK(io_read_file(&x, &n, a, 1 << 24, &err));
    CHECK_OK(io_read_file(&y, &m, b, 1 << 24, &err));
    bool same = n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

TEST(api, resumed_training_is_the_same_run) {
    struct place p;
    struct cb_err err;
    struct cb_train_result r;
    place_open(&p);
    const char *text = p.text, *other = p.other;
    char one[160], two[160];
    snprintf(one, sizeof one, "%s/one", p.root);
    snprintf(two, sizeof two, "%s/two", p.root);
    struct cb_train_options o = options(&p, &text, one);
    CHECK_OK(train(&p, &o, &r, &err));
    o.out = two;
    o.stop_after = 4;
    CHECK(train(&p, &o, &r, &err) == CB_E_STOPPED, "%s", err.message);
    CHECK(io_is_file(at(&p, "two/run/run.json")), "no run.json of a run that is not at its end");
    o.stop_after = 0;
    o.resume = true;
    // each difference is refused by its name
    for (int i = 0; i < 9; i++) {
        struct cb_train_options q = o;
        const char *name = NULL;
        if (i == 0) name = "--batch", q.batch = 3;
        if (i == 1) name = "--seq", q.seq = 8;
        if (i == 2) name = "--accumulate", q.accumulate = 2;
        if (i == 3) name = "--lr", q.lr = 0.5;
        if (i == 4) name = "--optimizer beta2", q.optimizer = "adamw:beta2=0.9";
        if (i == 5) name = "--schedule", q.schedule = "linear";
        if (i == 6) name = "--tuner", q.tuner = "full", q.lr = 1e-3;
        if (i == 7) name = "training data", q.text = &other;
        if (i == 8) name = "end of the training part", q.valid_share = 0.3;
        CHECK(train(&p, &q, &r, &err) == CB_E_ARGUMENT && strstr(err.message, name) && strstr(err.message, "ckpt-0000000004"), "%s: %s",
              name, err.message);
        if (i < 7) CHECK(same_file(at(&p, "one/run/train.tokens"), at(&p, "two/run/train.tokens")), "%s: data replaced", name);
    }
    // what a killed writer left goes, the rest of the run comes
    FILE *f = fopen(at(&p, "two/run/.cambium-0123456789abcdef.tmp"), "w");
    CHECK(f, "temporary");
    fclose(f);
    CHECK_OK(train(&p, &o, &r, &err));
    CHECK(r.steps == 8 && same_file(at(&p, "one/model.safetensors"), at(&p, "two/model.safetensors")), "4 + 4 steps differ from 8");
    CHECK(!io_is_file(at(&p, "two/run/.cambium-0123456789abcdef.tmp")), "a temporary is left");
    o.steps = 10;  // longer is allowed
    CHECK_OK(train(&p, &o, &r, &err));
    CHECK(r.steps == 10, "%lld steps", (long long)r.steps);
    // another rate is, where it is forced
    struct place forced = p;
    const struct cb_engine_options force = {.threads = 1, .force = true};
    CHECK_OK(cb_engine_create(&forced.engine, &force, &err));
    o.steps = 12;
    o.lr = 1e-4;
    CHECK_FAILS(train(&p, &o, &r, &err), CB_E_ARGUMENT, "--lr");
    CHECK_OK(train(&forced, &o, &r, &err));
    CHECK(r.steps == 12, "%lld steps", (long long)r.steps);
    cb_engine_destroy(&forced.engine);
    char *found;
    CHECK_OK(cb_inspect(at(&p, "two/run/ckpt-0000000010.safetensors"), NULL, true, false, false, &found, &err));
    CHECK(strstr(found, "checkpoint"), "%s", found);
    cb_free(found);
    place_close(&p);
}

/* Masked tokens: the same run after a stop, scored by the masked loss; what does not fit the model is refused. */
TEST(api, masked_language_models_are_pretrained) {
    struct place p;
    struct cb_err err = {0};
    struct cb_train_result r, whole;
    place_open(&p);
    const char *text = p.text;
    struct cb_tokenizer_train_options to = {
        .text = &text, .n_text = 1, .out = at(&p, "words"), .kind = "wordpiece", .vocab = 120, .special = "[PAD],[UNK],[CLS],[SEP],[MASK]"};
    struct cb_tokenizer_train_result tr;
    CHECK_OK(cb_tokenizer_train(p.engine, &to, &tr, &err));
    struct cb_init_options io = {.out = at(&p, "bert"), .family = "bert", .tokenizer = at(&p, "words")};
    io.set = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=24,max_position_embeddings=40";
    struct cb_init_result ir;
    CHECK_OK(cb_init(p.engine, &io, &ir, &err));
    char one[160], two[160];
    snprintf(one, sizeof one, "%s/mlm_one", p.root);
    snprintf(two, sizeof two, "%s/mlm_two", p.root);
    struct cb_train_options o = options(&p, &text, one);
    o.model = at(&p, "bert");
    o.mask = "span";
    o.lr = 1e-2;
    CHECK_OK(train(&p, &o, &whole, &err));
    CHECK(whole.steps == 8 && whole.loss > 0 && whole.valid_loss > 0 && whole.valid_loss < 5.2, "loss %g, %g", whole.loss,
          whole.valid_loss);
    o.out = two;
    o.stop_after = 4;
    CHECK(train(&p, &o, &r, &err) == CB_E_STOPPED, "%s", err.message);
    o.stop_after = 0;
    o.resume = true;
    o.mask = "token";
    CHECK(train(&p, &o, &r, &err) == CB_E_ARGUMENT && strstr(err.message, "--mask"), "%s", err.message);
    o.mask = "span";
    CHECK_OK(train(&p, &o, &r, &err));
    CHECK(r.loss == whole.loss && same_file(at(&p, "mlm_one/model.safetensors"), at(&p, "mlm_two/model.safetensors")),
          "4 + 4 steps differ from 8");
    struct cb_eval_options eo = {.model = one, .text = &text, .n_text = 1, .seq = 32};
    struct cb_eval_result er, again;
    CHECK_OK(cb_eval_text(p.engine, &eo, &er, &err));
    CHECK_OK(cb_eval_text(p.engine, &eo, &again, &err));
    CHECK(er.loss == again.loss && er.loss > 0 && er.tokens > 100 && er.bits_per_byte != er.bits_per_byte, "loss %g", er.loss);
    // what is not for this model
    o = options(&p, &text, at(&p, "none"));
    o.model = at(&p, "bert");
    o.task = "text";
    CHECK(train(&p, &o, &r, &err) == CB_E_USAGE && strstr(err.message, "learns mlm"), "%s", err.message);
    o = options(&p, &text, at(&p, "none"));
    o.mask = "token";
    CHECK(train(&p, &o, &r, &err) == CB_E_USAGE && strstr(err.message, "hides no tokens"), "%s", err.message);
    o.mask = NULL;
    o.task = "mlm";
    CHECK(train(&p, &o, &r, &err) == CB_E_USAGE && strstr(err.message, "learns text"), "%s", err.message);
    place_close(&p);
}

/* Prompts of which some fill the whole row: what cannot be learnt is passed over and told once, in rows and in windows, by a module and whole. */
TEST(api, prompts_longer_than_the_row_are_passed_over) {
    struct place p;
    struct told told = {0};
    struct cb_err err = {0};
    struct cb_train_result r;
    place_open(&p);
    cb_engine_destroy(&p.engine);
    const struct cb_engine_options eo = {.threads = 1, .user = &told, .warn = tell};
    CHECK_OK(cb_engine_create(&p.engine, &eo, &err));
    char kept[160];
    snprintf(kept, sizeof kept, "%s", at(&p, "long.jsonl"));
    const char *records = kept;
    FILE *f = fopen(records, "w");
    CHECK(f, "%s", records);
    for (int i = 0; i < 12; i++)
        fprintf(f, "{\"prompt\":\"%s\",\"completion\":\"text %d\"}\n", i % 4 ? "line" : "2871 9836 4021 5577 1093 6648 7712 0349 2871 9836",
                i);
    fclose(f);
    for (int i = 0; i < 8; i++) {
        struct cb_train_options o = options(&p, &records, at(&p, (const char *[]){"a", "b", "c", "d", "e", "f", "g", "h"}[i]));
        o.tuner = i & 1 ? "full" : "lora:r=2";
        o.no_pack = i & 2;
        o.accumulate = i & 4 ? 4 : 1;
        o.batch = 1;
        o.eval_every = 0;
        o.steps = 0;
        o.epochs = 2;
        told = (struct told){0};
        CHECK_OK(train(&p, &o, &r, &err));
        CHECK(isfinite(r.loss) && r.loss >= 0, "%d: loss %g", i, r.loss);
        CHECK(told.blank == 1, "%d: told %d times", i, told.blank);
    }
    place_close(&p);
}

/* An encoder-decoder learns completions of prompts, whole and by a module, and is scored by them; text alone is refused. */
TEST(api, encoder_decoders_learn_completions) {
    struct place p;
    struct cb_err err = {0};
    struct cb_train_result r;
    place_open(&p);
    const char *text = p.text, *records = at(&p, "pairs.jsonl");
    FILE *f = fopen(records, "w");
    CHECK(f, "%s", records);
    for (int i = 0; i < 60; i++) fprintf(f, "{\"prompt\":\"line %d\",\"completion\":\"of a text %d\"}\n", i, i % 7);
    fclose(f);
    char kept[160], model[160];
    snprintf(kept, sizeof kept, "%s", records);
    snprintf(model, sizeof model, "%s/t5", p.root);
    records = kept;
    struct cb_init_options io = {.out = model, .family = "t5", .tokenizer = p.tokens};
    io.set = "d_model=16,d_kv=8,d_ff=24,num_heads=2,num_layers=1,num_decoder_layers=1,pad_token_id=0,decoder_start_token_id=0";
    struct cb_init_result ir;
    CHECK_OK(cb_init(p.engine, &io, &ir, &err));
    struct cb_train_options o = options(&p, &records, at(&p, "seq"));
    o.model = model;
    o.tuner = "full";
    o.steps = 30;
    o.lr = 1e-2;
    CHECK_OK(train(&p, &o, &r, &err));
    CHECK(r.steps == 30 && r.loss > 0 && r.loss < 4.5 && r.valid_loss > 0, "loss %g, %g", r.loss, r.valid_loss);
    o.out = at(&p, "seq_lora");
    o.tuner = "lora:r=2";
    CHECK_OK(train(&p, &o, &r, &err));
    struct cb_eval_options eo = {.model = at(&p, "seq"), .text = &records, .n_text = 1, .seq = 16};
    struct cb_eval_result er;
    CHECK_OK(cb_eval_text(p.engine, &eo, &er, &err));
    CHECK(er.loss > 0 && er.loss < 4.5 && er.tokens >= 120, "loss %g of %lld", er.loss, (long long)er.tokens);
    // source and target are cut apart, in training, validation and evaluation, and it is said
    f = fopen(records, "w");
    CHECK(f, "%s", records);
    for (int i = 0; i < 6; i++)
        fprintf(f, "{\"prompt\":\"%s\",\"completion\":\"%s\"}\n", i % 2 ? "2871 9836 4021 5577 1093 6648 7712" : "line",
                i % 3 ? "x" : "1093 6648 7712 0349 2871 9836 4021");
    fclose(f);
    struct told told = {0};
    const struct cb_engine_options heard = {.threads = 1, .user = &told, .warn = tell};
    cb_engine_destroy(&p.engine);
    CHECK_OK(cb_engine_create(&p.engine, &heard, &err));
    CHECK_OK(cb_eval_text(p.engine, &eo, &er, &err));
    CHECK(er.tokens == 4 * 2 + 2 * 16 && isnan(er.bits_per_byte), "%lld tokens", (long long)er.tokens);
    CHECK(told.sources == 1 && told.targets == 1 && told.blank == 0, "%d, %d", told.sources, told.targets);
    o.out = at(&p, "seq_cut");
    o.valid = &records;
    o.n_valid = 1;
    CHECK_OK(train(&p, &o, &r, &err));
    CHECK(told.sources == 3 && told.targets == 3 && told.blank == 0, "%d, %d", told.sources, told.targets);
    o = options(&p, &text, at(&p, "none"));
    o.model = model;
    CHECK(train(&p, &o, &r, &err) == CB_E_ARGUMENT && strstr(err.message, "prompt and completion"), "%s", err.message);
    place_close(&p);
}

/* Spans of plain text: the same run after a stop, scored by what stood in the spans; what it is not for is refused. */
TEST(api, encoder_decoders_learn_corrupted_spans) {
    struct place p;
    struct cb_err err = {0};
    struct cb_train_result r, whole;
    place_open(&p);
    const char *text = p.text;
    char one[160], two[160], model[160];
    snprintf(one, sizeof one, "%s/span_one", p.root);
    snprintf(two, sizeof two, "%s/span_two", p.root);
    snprintf(model, sizeof model, "%s/t5", p.root);
    struct cb_tokenizer_train_options to = {.text = &text, .n_text = 1, .out = at(&p, "sentinels"), .kind = "byte", .vocab = 262};
    to.special = "<pad>,</s>,<extra_id_0>,<extra_id_1>,<extra_id_2>,<extra_id_3>";
    struct cb_tokenizer_train_result tr;
    CHECK_OK(cb_tokenizer_train(p.engine, &to, &tr, &err));
    struct cb_init_options io = {.out = model, .family = "t5", .tokenizer = at(&p, "sentinels")};
    io.set =
        "d_model=16,d_kv=8,d_ff=24,num_heads=2,num_layers=1,num_decoder_layers=1,pad_token_id=0,decoder_start_token_id=0,eos_token_id=1";
    struct cb_init_result ir;
    CHECK_OK(cb_init(p.engine, &io, &ir, &err));
    struct cb_train_options o = options(&p, &text, one);
    o.model = model;
    o.task = "span-corruption";
    o.mask_rate = 0.3;
    o.seq = 24;
    o.lr = 1e-2;
    CHECK_OK(train(&p, &o, &whole, &err));
    CHECK(whole.steps == 8 && whole.loss > 0 && whole.valid_loss > 0 && whole.valid_loss < 6, "loss %g, %g", whole.loss, whole.valid_loss);
    o.out = two;
    o.stop_after = 4;
    CHECK(train(&p, &o, &r, &err) == CB_E_STOPPED, "%s", err.message);
    o.stop_after = 0;
    o.resume = true;
    o.mask_rate = 0;
    CHECK(train(&p, &o, &r, &err) == CB_E_ARGUMENT && strstr(err.message, "--mask-rate"), "%s", err.message);
    o.mask_rate = 0.3;
    CHECK_OK(train(&p, &o, &r, &err));
    CHECK(r.loss == whole.loss && same_file(at(&p, "span_one/model.safetensors"), at(&p, "span_two/model.safetensors")),
          "4 + 4 steps differ from 8");
    struct cb_eval_options eo = {.model = one, .text = &text, .n_text = 1, .seq = 24, .task = "span-corruption"};
    struct cb_eval_result er, again;
    CHECK_OK(cb_eval_text(p.engine, &eo, &er, &err));
    CHECK_OK(cb_eval_text(p.engine, &eo, &again, &err));
    CHECK(er.loss == again.loss && er.loss > 0 && er.tokens > 100 && er.bits_per_byte != er.bits_per_byte, "loss %g", er.loss);
    // what is not for this task
    o = options(&p, &text, at(&p, "none"));
    o.model = model;
    o.mask_rate = 0.3;
    CHECK(train(&p, &o, &r, &err) == CB_E_USAGE && strstr(err.message, "span-corruption"), "%s", err.message);
    o.task = "span-corruption";
    o.mask = "span";
    CHECK(train(&p, &o, &r, &err) == CB_E_USAGE && strstr(err.message, "hides no tokens"), "%s", err.message);
    o.mask = NULL;
    o.model = p.model;
    CHECK(train(&p, &o, &r, &err) == CB_E_USAGE && strstr(err.message, "learns text"), "%s", err.message);
    place_close(&p);
}

TEST(api, training_refuses_wrong_counts) {
    struct place p;
    struct cb_err err;
    struct cb_train_result r;
    place_open(&p);
    const char *text = p.text;
    for (int i = 0; i < 9; i++) {
        struct cb_train_options o = options(&p, &text, at(&p, "out"));
        const char *name = NULL;
        if (i == 0) name = "--accumulate", o.accumulate = (int64_t)1 << 33;
        if (i == 1) name = "--keep", o.keep = ((int64_t)1 << 32) + 1;
        if (i == 2) name = "--keep", o.keep = -1;
        if (i == 3) name = "--eval-every", o.eval_every = -1;
        if (i == 4) name = "--save-every", o.save_every = -1;
        if (i == 5) name = "--patience", o.patience = -1;
        if (i == 6) name = "--batch", o.batch = (int64_t)1 << 30;
        if (i == 7) name = "2^63", o.steps = INT64_MAX;
        if (i == 8) name = "--lr", o.lr = NAN;
        CHECK(train(&p, &o, &r, &err) == CB_E_USAGE && strstr(err.message, name), "%s: %s", name, err.message);
        CHECK(!io_is_folder(at(&p, "out")), "%s: a folder was made", name);
    }
    place_close(&p);
}

TEST(api, training_that_overflows_saves_nothing) {
    struct place p;
    struct cb_err err;
    struct cb_train_result r;
    place_open(&p);
    const char *text = p.text;
    struct cb_train_options o = options(&p, &text, at(&p, "out"));
    o.lr = 1e38;
    o.clip = -1;
    o.steps = 1;
    o.eval_every = 0;
    CHECK(train(&p, &o, &r, &err) == CB_E_NUMERIC && strstr(err.message, "step 1"), "%s", err.message);
    CHECK(!io_is_file(at(&p, "out/model.safetensors")) && !io_is_file(at(&p, "out/run/ckpt-0000000001.safetensors")), "saved");
    place_close(&p);
}

TEST(api, plans_hold_validation) {
    struct place p;
    struct cb_err err;
    struct cb_train_result with, without, run;
    place_open(&p);
    const char *text = p.text;
    struct cb_train_options o = options(&p, &text, at(&p, "out"));
    o.plan_only = true;
    CHECK_OK(train(&p, &o, &with, &err));
    o.eval_every = 0;
    CHECK_OK(train(&p, &o, &without, &err));
    CHECK(with.planned_bytes > without.planned_bytes, "%lld, %lld", (long long)with.planned_bytes, (long long)without.planned_bytes);
    o.n_text = 0;  // the shape alone
    o.eval_every = 4;
    struct cb_train_result shape;
    CHECK_OK(train(&p, &o, &shape, &err));
    CHECK(shape.planned_bytes == with.planned_bytes, "%lld, %lld", (long long)shape.planned_bytes, (long long)with.planned_bytes);
    o = options(&p, &text, at(&p, "out"));
    CHECK_OK(train(&p, &o, &run, &err));
    CHECK(run.planned_bytes == with.planned_bytes, "%lld, %lld", (long long)run.planned_bytes, (long long)with.planned_bytes);
    place_close(&p);
}
