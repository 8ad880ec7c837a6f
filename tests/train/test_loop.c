/* Schedules, options, checkpoints and the loop: what is written is read back, damage is noticed, N + N steps are 2 N steps. */
#include <dirent.h>

#include "../harness.h"
#include "io/file.h"
#include "net.h"
#include "train/ckpt.h"
#include "train/loop.h"
#include "train/metrics.h"

static struct trainer_options tiny_options(const char *spec, struct cb_err *err) {
    struct trainer_options o = {.sched = {.kind = SCHED_COSINE, .lr = 0.02, .min_lr = 0.002, .warmup = 3, .steps = 20},
                                .weight_decay = 0.1,
                                .clip = 1,
                                .accumulate = 1};
    opt_parse(spec, &o.opt, o.option, err);
    return o;
}

static bool is_near(double a, double b) { return fabs(a - b) <= 1e-12 * (1 + fabs(b)); }

TEST(train, schedules) {
    struct sched s = {.kind = SCHED_CONSTANT, .lr = 2, .min_lr = 0.5, .warmup = 4, .steps = 24, .decay_share = 0.25};
    for (int kind = SCHED_CONSTANT; kind <= SCHED_WSD; kind++) {
        s.kind = (enum sched_kind)kind;
        CHECK(is_near(sched_rate(&s, 0), 0.5) && is_near(sched_rate(&s, 3), 2) && is_near(sched_rate(&s, 4), 2), "%s: warm-up",
              sched_name(s.kind));
        CHECK(is_near(sched_rate(&s, 100), kind == SCHED_CONSTANT ? 2 : 0.5), "%s: end", sched_name(s.kind));
    }
    s.kind = SCHED_LINEAR;
    CHECK(is_near(sched_rate(&s, 9), 0.5 + 1.5 * 0.75));
    s.kind = SCHED_COSINE;
    CHECK(is_near(sched_rate(&s, 14), 1.25) && is_near(sched_rate(&s, 9), 0.5 + 0.75 * (1 + sqrt(0.5))));
    s.kind = SCHED_WSD;
    CHECK(is_near(sched_rate(&s, 18), 2) && is_near(sched_rate(&s, 19), 2) && is_near(sched_rate(&s, 21), 0.5 + 1.5 * 0.6));
    s.warmup = 0;
    CHECK(is_near(sched_rate(&s, 0), 2));
    struct cb_err err = {0};
    enum sched_kind kind;
    CHECK_OK(sched_parse("wsd", &kind, &err));
    CHECK_FAILS(sched_parse("steps", &kind, &err), CB_E_USAGE, "cosine");
}

TEST(train, optimizer_options) {
    const struct optimizer *opt;
    double option[OPT_MAX_OPTIONS];
    struct cb_err err = {0};
    CHECK_OK(opt_parse("adamw:beta2=0.98,eps=1e-6", &opt, option, &err));
    CHECK(option[opt_option_index(opt, "beta1")] == 0.9 && option[opt_option_index(opt, "beta2")] == 0.98);
    CHECK_FAILS(opt_parse("adamw:beta3=1", &opt, option, &err), CB_E_USAGE, "beta3");
    CHECK_FAILS(opt_parse("adamw:beta1=2", &opt, option, &err), CB_E_USAGE, "from 0");
    CHECK_FAILS(opt_parse("adamw:eps", &opt, option, &err), CB_E_USAGE, "name=value");
    CHECK_FAILS(opt_parse("adamw:eps=nan", &opt, option, &err), CB_E_USAGE, "number");
    CHECK_FAILS(opt_parse("newton", &opt, option, &err), CB_E_USAGE, "newton");
    for (int i = 0; opt_at(i); i++) CHECK(opt_find(opt_at(i)->name) == opt_at(i) && *opt_at(i)->doc, "%s", opt_at(i)->name);
}

/* Whether two trainers hold the same bits. */
static bool is_same(struct net *a, struct net *b) {
    struct store *sa = trainer_states(a->trainer), *sb = trainer_states(b->trainer);
    if (trainer_steps(a->trainer) != trainer_steps(b->trainer) || store_count(sa) != store_count(sb)) return false;
    for (int i = 0; i < a->n_params; i++)
        if (memcmp(a->params[i].value->data, b->params[i].value->data, (size_t)a->params[i].value->bytes) != 0) return false;
    for (int i = 0; i < store_count(sa); i++) {
        struct store_entry *e = store_at(sa, i), *f = store_find(sb, e->name);
        if (strncmp(e->name, "grad.", 5) != 0 && (!f || memcmp(e->data, f->data, (size_t)e->bytes) != 0)) return false;
    }
    return true;
}

static void steps(struct net *net, int n) {
    struct cb_err err = {0};
    struct train_result r;
    for (int i = 0; i < n; i++) CHECK_OK(trainer_step(net->trainer, net_tiny_batch, net, &r, &err));
}

static void count_warning(void *user, const char *line) {
    CHECK(strstr(line, "ckpt-"), "%s", line);
    (*(int *)user)++;
}

static void flip(const char *folder, int64_t step, long at) {
    char path[300];
    snprintf(path, sizeof path, "%s/ckpt-%010lld.safetensors", folder, (long long)step);
    FILE *f = fopen(path, "r+b");
    CHECK(f, "%s", path);
    fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
    int c = fgetc(f);
    fseek(f, -1, SEEK_CUR);
    fputc(c ^ 1, f);
    fclose(f);
}

/* Every optimiser of the registry: 7 steps, a checkpoint, and 7 more by another trainer are 14 steps, states too. */
TEST(train, every_optimizer_goes_on_from_a_checkpoint) {
    for (int i = 0; opt_at(i); i++) {
        struct cb_err err = {0};
        char folder[128], *path = NULL;
        struct net all = {0}, half = {0}, rest = {0};
        struct trainer_options o = tiny_options(opt_at(i)->name, &err);
        json_t *state = json_pack("{s:s}", "note", "x");
        int warnings = 0;
        CHECK(temporary_folder(folder, "opt"));
        CHECK_OK(net_tiny(&all, 1, &o, &err));
        CHECK_OK(net_tiny(&half, 1, &o, &err));
        CHECK_OK(net_tiny(&rest, 2, &o, &err));
        steps(&all, 14), steps(&half, 7);
        CHECK_OK(ckpt_save(half.trainer, folder, state, &err));
        CHECK_OK(ckpt_newest(folder, &path, count_warning, &warnings, &err));
        CHECK_OK(ckpt_load(rest.trainer, path, NULL, &err));
        steps(&rest, 7);
        CHECK(is_same(&all, &rest), "%s: 7 steps, a checkpoint and 7 more are not 14 steps", opt_at(i)->name);
        free(path);
        json_decref(state);
        net_close(&all), net_close(&half), net_close(&rest);
    }
}

TEST(train, checkpoints) {
    struct cb_err err = {0};
    char folder[128], file[300], *path;
    int warnings = 0;
    struct net a = {0}, b = {0};
    struct trainer_options o = tiny_options("adafactor:beta1=0.5", &err);
    CHECK(temporary_folder(folder, "ckpt"));
    CHECK_OK(net_tiny(&a, 1, &o, &err));
    CHECK_OK(net_tiny(&b, 2, &o, &err));
    CHECK_OK(ckpt_newest(folder, &path, count_warning, &warnings, &err));
    CHECK(!path, "a checkpoint in an empty folder");
    json_t *state = json_pack("{s:s}", "note", "x"), *back = NULL;
    for (int i = 0; i < 3; i++) {
        steps(&a, 1);
        CHECK_OK(ckpt_save(a.trainer, folder, state, &err));
    }
    CHECK_OK(ckpt_newest(folder, &path, count_warning, &warnings, &err));
    CHECK(path && strstr(path, "ckpt-0000000003.") && warnings == 0, "%s", path ? path : "none");
    CHECK_OK(ckpt_load(b.trainer, path, &back, &err));
    CHECK(is_same(&a, &b) && json_equal(state, back), "a checkpoint came back changed");
    free(path);
    // one bit anywhere: data at the end, the header at the beginning
    flip(folder, 3, -1);
    flip(folder, 2, 60);
    CHECK_OK(ckpt_newest(folder, &path, count_warning, &warnings, &err));
    CHECK(path && strstr(path, "ckpt-0000000001.") && warnings == 2, "%s, %d warnings", path ? path : "none", warnings);
    free(path);
    flip(folder, 3, -1);
    // anywhere in the file
    struct stat info;
    snprintf(file, sizeof file, "%s/ckpt-0000000003.safetensors", folder);
    CHECK(stat(file, &info) == 0, "%s", file);
    for (long at = 1; at < info.st_size; at += info.st_size / 150) {
        flip(folder, 3, at);
        CHECK(ckpt_load(b.trainer, file, NULL, &err) != CB_OK, "byte %ld of %ld", at, (long)info.st_size);
        memset(&err, 0, sizeof err);
        flip(folder, 3, at);
    }
    ckpt_prune(folder, 1, 1);  // later steps are not its own
    CHECK_OK(ckpt_check(file, &err));
    ckpt_prune(folder, 3, 1);
    CHECK_OK(ckpt_newest(folder, &path, count_warning, &warnings, &err));
    CHECK(path && strstr(path, "ckpt-0000000003."), "%s", path ? path : "none");
    struct net c = {0};
    o = tiny_options("sgd:momentum=0.9", &err);
    CHECK_OK(net_tiny(&c, 1, &o, &err));
    CHECK_FAILS(ckpt_load(c.trainer, path, NULL, &err), CB_E_NAME, "momentum");
    free(path);
    json_decref(state);
    json_decref(back);
    net_close(&a);
    net_close(&b);
    net_close(&c);
}

/* ---- the loop */
struct looped {
    struct net net;
    struct metrics *metrics;
    int64_t stop_at, save_every;
};

static enum cb_status loop_batch(void *user, int64_t index, struct cb_err *err) {
    return net_tiny_batch(&((struct looped *)user)->net, index, err);
}
static enum cb_status loop_validate(void *user, double *loss, struct cb_err *err) {
    (void)err;
    struct looped *l = user;
    *loss = fabs((double)trainer_steps(l->net.trainer) - 9) + 1;  // best at the ninth step
    return CB_OK;
}
static enum cb_status loop_step(void *user, const struct loop_event *e, struct cb_err *err) {
    return metrics_step(((struct looped *)user)->metrics, e, err);
}
static enum cb_status loop_sample(void *user, int64_t step, struct cb_err *err) {
    return metrics_sample(((struct looped *)user)->metrics, step, "a \"b\" <c>\n\xFF", err);
}
static bool loop_go_on(void *user, const struct loop_event *e) { return e->step != ((struct looped *)user)->stop_at; }
static void loop_warn(void *user, const char *line) { (void)user, (void)line; }
static double loop_now(void) { return 0; }

static struct loop_outcome run_loop(struct looped *l, const char *folder, int64_t from, int64_t n, int64_t patience) {
    struct cb_err err = {0};
    struct trainer_options o = tiny_options("adamw:amsgrad=1", &err);
    CHECK_OK(net_tiny(&l->net, 5, &o, &err));
    CHECK_OK(metrics_open(&l->metrics, folder, from, &err));
    struct loop_options lo = {.steps = n,
                              .eval_every = 3,
                              .save_every = l->save_every ? l->save_every : 4,
                              .sample_every = 5,
                              .keep = 2,
                              .patience = patience,
                              .folder = folder,
                              .now = loop_now};
    struct loop_callbacks lc = {l, loop_batch, loop_validate, loop_step, loop_sample, loop_go_on, loop_warn};
    struct loop_outcome outcome;
    char *newest;
    CHECK_OK(ckpt_newest(folder, &newest, NULL, NULL, &err));
    CHECK_OK(loop_run(l->net.trainer, &lo, &lc, newest, &outcome, &err));
    free(newest);
    CHECK_OK(metrics_report(l->metrics, "a <title>", "{\"x\":[1,\"<i>\"]}", &err));
    metrics_close(&l->metrics);
    return outcome;
}

static char *read_text(const char *folder, const char *name) {
    struct cb_err err = {0};
    char path[300], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(io_read_file(&text, &n, path, 1 << 24, &err));
    return text;
}

TEST(train, resumed_run_equals_one_run) {
    char one[128], two[128];
    struct looped a = {.stop_at = -1}, b = {.stop_at = 10}, c = {.stop_at = -1};
    CHECK(temporary_folder(one, "one") && temporary_folder(two, "two"));
    struct loop_outcome all = run_loop(&a, one, 0, 20, 0), half = run_loop(&b, two, 0, 20, 0);
    CHECK(half.is_stopped && half.last.step == 10, "stopped at %lld", (long long)half.last.step);
    // lines of steps beyond the checkpoint, and a torn one, as a killed process leaves them
    char path[300];
    snprintf(path, sizeof path, "%s/metrics.jsonl", two);
    FILE *f = fopen(path, "a");
    fputs("{\"step\":11,\"loss\":1}\n{\"step\":1", f);
    fclose(f);
    struct loop_outcome rest = run_loop(&c, two, 10, 20, 0);
    CHECK(is_same(&a.net, &c.net), "10 + 10 steps differ from 20");
    CHECK(all.last.best_step == 9 && rest.last.best_step == 9 && rest.has_best && rest.last.best_loss == all.last.best_loss);
    char *x = read_text(one, "metrics.jsonl"), *y = read_text(two, "metrics.jsonl");
    CHECK(strcmp(x, y) == 0, "metrics differ:\n%s%s", x, y);
    int lines = 0;
    for (const char *p = x; *p; p++) lines += *p == '\n';
    CHECK(lines == 20, "%d lines", lines);
    free(x);
    free(y);
    x = read_text(one, "samples.jsonl"), y = read_text(two, "samples.jsonl");
    CHECK(strcmp(x, y) == 0 && strstr(x, "\\u000a\xEF\xBF\xBD\"}"), "samples: %s%s", x, y);
    free(x);
    free(y);
    x = read_text(two, "report.html");
    CHECK(strstr(x, "a &lt;title&gt;") && strstr(x, "&lt;c&gt;") && !strstr(x, "<i>") && !strstr(x, "://"), "report");
    CHECK(strstr(x, "<polyline class=\"a\"") && !strstr(x, "nan") && !strstr(x, "inf,"), "curves");
    free(x);
    net_close(&a.net);
    net_close(&b.net);
    net_close(&c.net);
}

/* Damaged checkpoints of later steps must not push out what is saved now. */
TEST(train, saved_checkpoint_stays) {
    char folder[128], path[300];
    struct looped a = {.stop_at = 12}, b = {.stop_at = -1};
    CHECK(temporary_folder(folder, "stays"));
    struct cb_err err = {0};
    struct loop_outcome half = run_loop(&a, folder, 0, 20, 0);
    CHECK(half.last.step == 12, "step %lld", (long long)half.last.step);
    for (int64_t step = 15; step <= 16; step++) {
        trainer_set_steps(a.net.trainer, step);
        json_t *state = json_object();
        CHECK_OK(ckpt_save(a.net.trainer, folder, state, &err));
        json_decref(state);
        flip(folder, step, -1);
    }
    snprintf(path, sizeof path, "%s/ckpt-0000000016.safetensors", folder);
    CHECK_FAILS(ckpt_check(path, &err), CB_E_FORMAT, "checksum");
    memset(&err, 0, sizeof err);
    b.stop_at = 13;
    b.save_every = 1;
    struct loop_outcome next = run_loop(&b, folder, 12, 20, 0);
    CHECK(next.last.step == 13, "step %lld", (long long)next.last.step);
    char *newest;
    int warnings = 0;
    CHECK_OK(ckpt_newest(folder, &newest, count_warning, &warnings, &err));
    CHECK(newest && strstr(newest, "ckpt-0000000013.") && warnings == 0, "%s, %d warnings", newest ? newest : "none", warnings);
    free(newest);
    snprintf(path, sizeof path, "%s/ckpt-0000000016.safetensors.damaged", folder);
    CHECK(io_is_file(path), "the damaged file is not put aside");
    snprintf(path, sizeof path, "%s/ckpt-0000000012.safetensors", folder);
    CHECK(io_is_file(path), "the one before is gone");
    net_close(&a.net);
    net_close(&b.net);
}

static enum cb_status loop_validate_nan(void *user, double *loss, struct cb_err *err) {
    (void)user, (void)err;
    *loss = NAN;
    return CB_OK;
}

/* A network whose micro-batches in `blank` (bits) have no label: their loss is NaN. */
struct blanked {
    struct net net;
    unsigned blank;
};

static enum cb_status blanked_batch(void *user, int64_t index, struct cb_err *err) {
    struct blanked *b = user;
    TRY(net_tiny_batch(&b->net, index, err));
    int32_t *y = runner_data(&b->net.r, "y");
    for (int i = 0; i < 8 && b->blank >> index & 1; i++) y[i] = -100;
    return CB_OK;
}

static int64_t blanked_labels(void *user, struct plan *plan) {
    (void)plan;
    return *(int32_t *)runner_data(&((struct blanked *)user)->net.r, "y") != -100;
}

/* What has no label counts nothing, in the loss or in the gradients; a step without any changes nothing and goes on. */
TEST(train, batches_without_labels) {
    struct cb_err err = {0};
    struct blanked b[2] = {{.blank = 1u << 1}, {.blank = 1u << 1 | 1u << 2 | 1u << 3}};
    struct train_result r[2];
    float before[13 * 6];
    for (int i = 0; i < 2; i++) {
        struct trainer_options o = tiny_options("adamw", &err);
        o.accumulate = i + 1;
        o.labels = blanked_labels;
        o.user = &b[i];
        CHECK_OK(net_tiny(&b[i].net, 5, &o, &err));
        CHECK_OK(trainer_step(b[i].net.trainer, blanked_batch, &b[i], &r[i], &err));
    }
    // one of two micro-batches learns: the step is that of it alone
    CHECK(r[0].loss > 0 && r[0].loss == r[1].loss && fabs(r[0].grad_norm - r[1].grad_norm) < 1e-6, "%g, %g", r[0].loss, r[1].loss);
    const float *x = b[0].net.params[0].value->data, *y = b[1].net.params[0].value->data;
    for (int k = 0; k < 13 * 6; k++) CHECK(fabsf(x[k] - y[k]) < 1e-5f, "weight %d: %g, %g", k, (double)x[k], (double)y[k]);
    for (int i = 0; i < 2; i++) {
        const struct store_entry *w = b[i].net.params[0].value;
        memcpy(before, w->data, sizeof before);
        CHECK_OK(trainer_step(b[i].net.trainer, blanked_batch, &b[i], &r[i], &err));
        CHECK(isnan(r[i].loss) && r[i].grad_norm == 0 && !memcmp(before, w->data, sizeof before), "loss %g, norm %g", r[i].loss,
              r[i].grad_norm);
        CHECK_OK(trainer_step(b[i].net.trainer, blanked_batch, &b[i], &r[i], &err));
        CHECK(r[i].loss > 0 && memcmp(before, w->data, sizeof before) && trainer_steps(b[i].net.trainer) == 3, "loss %g", r[i].loss);
        net_close(&b[i].net);
    }
}

static enum cb_status blanked_step(void *user, const struct loop_event *e, struct cb_err *err) {
    (void)user, (void)err;
    CHECK(isnan(e->result.loss) == (e->step == 3) && e->loss > 0, "step %lld: %g, %g", (long long)e->step, e->result.loss, e->loss);
    return CB_OK;
}
static bool blanked_go_on(void *user, const struct loop_event *e) { return user && e; }

/* A run that ends with a step without labels reports the last loss that it knows, also after it was resumed there. */
TEST(train, last_step_without_labels) {
    char folder[128];
    struct cb_err err = {0};
    struct blanked b = {.blank = 1u << 2};
    struct trainer_options o = tiny_options("adamw", &err);
    struct loop_outcome outcome, again;
    struct loop_options lo = {.steps = 3, .keep = 2, .now = loop_now};
    struct loop_callbacks lc = {.user = &b, .batch = blanked_batch, .step = blanked_step, .go_on = blanked_go_on, .warn = loop_warn};
    o.labels = blanked_labels;
    o.user = &b;
    lo.folder = temporary_folder(folder, "blank");
    CHECK_OK(net_tiny(&b.net, 5, &o, &err));
    CHECK_OK(loop_run(b.net.trainer, &lo, &lc, NULL, &outcome, &err));
    CHECK(isfinite(outcome.last.loss) && outcome.last.loss > 0 && outcome.last.step == 3, "%g", outcome.last.loss);
    char path[200];
    snprintf(path, sizeof path, "%s/ckpt-0000000003.safetensors", folder);
    CHECK_OK(loop_run(b.net.trainer, &lo, &lc, path, &again, &err));
    CHECK(again.last.loss == outcome.last.loss, "%g, %g", again.last.loss, outcome.last.loss);
    net_close(&b.net);
}

/* What is not finite is never saved, nor the best. */
TEST(train, not_finite_is_not_saved) {
    char folder[128], *newest;
    CHECK(temporary_folder(folder, "nan"));
    for (int round = 0; round < 2; round++) {
        struct cb_err err = {0};
        struct looped l = {.stop_at = -1};
        struct trainer_options o = tiny_options("sgd", &err);
        o.sched.lr = round == 0 ? 1e300 : 0.01;
        o.clip = 0;
        o.sched.warmup = 0;
        CHECK_OK(net_tiny(&l.net, 5, &o, &err));
        CHECK_OK(metrics_open(&l.metrics, folder, 0, &err));
        struct loop_options lo = {.steps = 1, .eval_every = 1, .keep = 2, .folder = folder, .now = loop_now};
        struct loop_callbacks lc = {&l, loop_batch, round == 0 ? NULL : loop_validate_nan, loop_step, NULL, loop_go_on, loop_warn};
        struct loop_outcome outcome;
        CHECK(loop_run(l.net.trainer, &lo, &lc, NULL, &outcome, &err) == CB_E_NUMERIC, "%s", err.message);
        CHECK(strstr(err.message, "step 1") && strstr(err.message, round == 0 ? "not finite" : "validation loss"), "%s", err.message);
        CHECK(!outcome.has_best && strstr(err.message, "no checkpoint yet"), "%s", err.message);
        memset(&err, 0, sizeof err);
        CHECK_OK(ckpt_newest(folder, &newest, NULL, NULL, &err));
        CHECK(!newest, "%s was saved", newest);
        metrics_close(&l.metrics);
        net_close(&l.net);
    }
}

TEST(train, patience_stops_early) {
    char folder[128];
    struct looped l = {.stop_at = -1};
    CHECK(temporary_folder(folder, "early"));
    struct loop_outcome outcome = run_loop(&l, folder, 0, 40, 2);
    CHECK(outcome.is_early && outcome.last.step == 15 && outcome.last.best_step == 9, "step %lld", (long long)outcome.last.step);
    struct cb_err err = {0};
    char path[300];
    snprintf(path, sizeof path, "%s/best.safetensors", folder);
    CHECK_OK(ckpt_load_params(l.net.trainer, path, &err));
    net_close(&l.net);
    // resumed, it has nothing left to do
    outcome = run_loop(&l, folder, 15, 40, 2);
    CHECK(outcome.is_early && outcome.last.step == 15 && outcome.has_best, "step %lld", (long long)outcome.last.step);
    net_close(&l.net);
}

/* Event files: frames whose lengths and checksums add up, a first event that names the version. */
TEST(train, event_file) {
    char folder[128];
    struct metrics *m;
    struct cb_err err = {0};
    CHECK(temporary_folder(folder, "events"));
    for (int i = 0; i < 2; i++) {  // within one second: two files
        CHECK_OK(metrics_open(&m, folder, i, &err));
        struct loop_event e = {.step = i + 1, .result = {1.5, NAN, 0.1}};
        CHECK_OK(metrics_step(m, &e, &err));
        metrics_close(&m);
    }
    DIR *dir = opendir(folder);
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "events.out.tfevents.", 20) != 0) continue;
        n++;
        char path[600];
        size_t size;
        char *bytes;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        CHECK_OK(io_read_file(&bytes, &size, path, 1 << 20, &err));
        size_t at = 0;
        int events = 0;
        for (uint64_t length; at + 16 <= size; at += 16 + (size_t)length) {
            memcpy(&length, bytes + at, 8);
            CHECK(length < size, "a frame of %llu bytes", (unsigned long long)length);
            // wall time, step 0 and 13 bytes of field 3: the frame has a known first checksum
            if (events == 0)
                CHECK(
                    length == 26 && memcmp(bytes + at + 8, "\x12\x9B\xD8\x2D", 4) == 0 && memcmp(bytes + at + 25, "brain.Event:2", 13) == 0,
                    "version");
            events++;
        }
        CHECK(at == size && (events == 2 || events == 3), "%d events, %zu of %zu bytes", events, at, size);
        free(bytes);
    }
    closedir(dir);
    CHECK(n == 2, "%d event files", n);
}
