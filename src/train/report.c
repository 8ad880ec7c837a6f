/* report.html: one file without outside references, made from metrics.jsonl, samples.jsonl and the options of a run. */
#include "train/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "io/stream.h"

#define MAX_LINE (1 << 20)
#define MAX_SAMPLES 24

/* What the table and the charts need of a run; a fixed size for any number of steps. */
struct figures {
    struct curve loss, valid, lr, norm, speed;
    double smooth[CURVE_POINTS];
    double best, seconds;
    double slowness;  // sum of 1 / speed: steps have the same number of tokens, so the run's speed is the harmonic mean
    int64_t n_speeds;
    int64_t step, best_step;
    json_t *samples[MAX_SAMPLES];  // the newest, in a ring
    int64_t n_samples;
};

void page_put(struct page *page, const char *format, ...) {
    if (page->status != CB_OK) return;
    char text[1001];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    page->status = io_writer_write(page->writer, text, n < 0 ? 0 : n > 1000 ? 1000 : (size_t)n, page->err);
}

void page_raw(struct page *page, const char *text) {
    if (page->status == CB_OK) page->status = io_writer_write(page->writer, text, strlen(text), page->err);
}

void page_text(struct page *page, const char *text) {
    while (*text && page->status == CB_OK) {
        size_t n = 0;
        while ((unsigned char)text[n] >= 0x20 && !strchr("<>&\"'\x7f", text[n])) n++;
        if (n) page->status = io_writer_write(page->writer, text, n, page->err);
        text += n;
        if (!*text) break;
        switch (*text) {
            case '<': page_put(page, "&lt;"); break;
            case '>': page_put(page, "&gt;"); break;
            case '&': page_put(page, "&amp;"); break;
            case '"': page_put(page, "&quot;"); break;
            case '\'': page_put(page, "&#39;"); break;
            case '\n': page_put(page, "\n"); break;
            case '\t': page_put(page, "\t"); break;
            default: page_put(page, "\xEF\xBF\xBD");
        }
        text++;
    }
}

static double number(const json_t *line, const char *key) {
    const json_t *v = json_object_get(line, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static enum cb_status take_step(struct figures *f, json_t *line, struct cb_err *err) {
    (void)err;
    double step = number(line, "step"), valid = number(line, "valid_loss");
    curve_add(&f->loss, step, number(line, "loss"));
    curve_add(&f->valid, step, valid);
    curve_add(&f->lr, step, number(line, "lr"));
    curve_add(&f->norm, step, number(line, "grad_norm"));
    double speed = number(line, "tokens_per_s");
    curve_add(&f->speed, step, speed);
    if (speed > 0) {
        f->slowness += 1 / speed;
        f->n_speeds++;
    }
    f->step = json_integer_value(json_object_get(line, "step"));
    // seconds count from the start of a process: a run that went on begins again
    double seconds = number(line, "seconds");
    if (isfinite(seconds)) f->seconds = seconds;
    if (isfinite(valid) && !(valid >= f->best)) {
        f->best = valid;
        f->best_step = f->step;
    }
    json_decref(line);
    return CB_OK;
}

static enum cb_status take_sample(struct figures *f, json_t *line, struct cb_err *err) {
    (void)err;
    json_t **place = &f->samples[f->n_samples++ % MAX_SAMPLES];
    json_decref(*place);
    *place = line;
    return CB_OK;
}

/* Gives each object of a file to take, which owns it from then on; a file that is not there has none. */
static enum cb_status read_lines(struct figures *f, const char *folder, const char *name,
                                 enum cb_status (*take)(struct figures *f, json_t *line, struct cb_err *err), struct cb_err *err) {
    char *path = io_path_join(folder, name), *line;
    if (!path) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    struct stream *stream = NULL;
    enum cb_status status = io_is_file(path) ? stream_open(&stream, path, err) : CB_OK;
    free(path);
    while (status == CB_OK && stream) {
        size_t n;
        json_t *object;
        status = stream_line(stream, &line, &n, MAX_LINE, err);
        if (status != CB_OK || !line) break;
        if (json_parse_object(&object, line, n, name, NULL) == CB_OK) status = take(f, object, err);
    }
    stream_close(&stream);
    return status;
}

static const char *const style =
    ":root{--ink:#1d232b;--soft:#667080;--rule:#dfe3e8;--paper:#fff;--card:#f7f8fa;--a:#2563c9;--b:#d9622b;--c:#2b8a5a;"
    "color-scheme:light dark}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e3e7ec;--soft:#98a2b0;--rule:#343b45;--paper:#15181d;--card:#1d2127;--a:#6ea5ff;"
    "--b:#ff9a66;--c:#5cc793}}\n"
    "body{margin:0 auto;max-width:1180px;padding:28px 20px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:24px;margin:0 0 18px;overflow-wrap:anywhere}h2{font-size:18px;margin:32px 0 12px}\n"
    "table{border-collapse:collapse;margin-bottom:22px}\n"
    "td{padding:4px 28px 4px 0;border-bottom:1px solid var(--rule)}td+td{font-variant-numeric:tabular-nums}\n"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px}\n"
    "figure{margin:0;padding:12px 14px;background:var(--card);border:1px solid var(--rule);border-radius:8px}\n"
    "figcaption{font-weight:600;margin-bottom:4px}svg{display:block;width:100%;height:auto}\n"
    "svg text{font-size:12px;fill:var(--soft)}.end{text-anchor:end}.mid{text-anchor:middle}\n"
    "polyline,line{fill:none;stroke-linejoin:round}.grid{stroke:var(--rule)}.axis{stroke:var(--soft)}\n"
    ".a,.b,.c{stroke-width:1.8}.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}\n"
    ".faint{stroke:var(--a);stroke-opacity:.3;stroke-width:1.1}circle.a{fill:var(--a)}circle.b{fill:var(--b)}circle.c{fill:var(--c)}\n"
    "pre{margin:0 0 12px;padding:12px 14px;background:var(--card);border:1px solid var(--rule);border-radius:8px;white-space:pre-wrap;"
    "overflow-wrap:anywhere;font:13px/1.45 ui-monospace,monospace}.step{color:var(--soft);margin:0 0 4px}\n";

static void put_head(struct page *page, const char *title) {
    page_put(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page_put(page, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    page_text(page, title);
    page_raw(page, "</title>\n<style>\n");
    page_raw(page, style);
    page_raw(page, "</style>\n</head>\n<body>\n<h1>");
    page_text(page, title);
    page_put(page, "</h1>\n");
}

static void put_row(struct page *page, const char *name, const char *format, double value) {
    if (!isfinite(value)) return;
    page_put(page, "<tr><td>%s</td><td>", name);
    char text[64];
    snprintf(text, sizeof text, format, value);
    page_put(page, "%s</td></tr>\n", text);
}

static double last(const struct curve *c) { return curve_count(c) ? c->last : NAN; }

static void put_table(struct page *page, const struct figures *f) {
    int n = curve_count(&f->loss);
    page_put(page, "<table>\n");
    put_row(page, "steps", "%.0f", (double)f->step);
    put_row(page, "training loss, smoothed", "%.4f", n ? f->smooth[n - 1] : NAN);
    put_row(page, "training loss, last step", "%.4f", last(&f->loss));
    put_row(page, "validation loss, last", "%.4f", last(&f->valid));
    put_row(page, "validation loss, best", "%.4f", f->best);
    if (isfinite(f->best)) put_row(page, "step of the best", "%.0f", (double)f->best_step);
    put_row(page, "perplexity at the best", "%.3f", f->best < 100 ? exp(f->best) : NAN);
    put_row(page, "gradient norm, last step", "%.4g", last(&f->norm));
    put_row(page, "rate, last step", "%.4g", last(&f->lr));
    put_row(page, "tokens/s, mean", "%.0f", f->n_speeds ? (double)f->n_speeds / f->slowness : NAN);
    put_row(page, "seconds of training since it was last started", "%.1f", n ? f->seconds : NAN);
    page_put(page, "</table>\n");
}

static void put_charts(struct page *page, const struct figures *f) {
    const struct chart_line loss[] = {{.curve = &f->loss, .label = "training", .style = "faint"},
                                      {.curve = &f->loss, .y = f->smooth, .label = "smoothed", .style = "a"},
                                      {.curve = &f->valid, .label = "validation", .style = "b", .dots = true}};
    const struct chart_line lr[] = {{.curve = &f->lr, .label = "rate", .style = "c"}};
    const struct chart_line norm[] = {{.curve = &f->norm, .label = "norm", .style = "a"}};
    const struct chart_line speed[] = {{.curve = &f->speed, .label = "tokens/s", .style = "b"}};
    page_put(page, "<div class=\"charts\">\n");
    svg_chart(page, "Loss", loss, 3, false);
    svg_chart(page, "Learning rate", lr, 1, true);
    svg_chart(page, "Gradient norm before clipping", norm, 1, true);
    svg_chart(page, "Tokens per second", speed, 1, true);
    page_put(page, "</div>\n");
}

static void put_samples(struct page *page, const struct figures *f) {
    if (!f->n_samples) return;
    page_put(page, "<h2>Samples</h2>\n");
    int64_t first = f->n_samples > MAX_SAMPLES ? f->n_samples - MAX_SAMPLES : 0;
    for (int64_t i = first; i < f->n_samples; i++) {
        const json_t *sample = f->samples[i % MAX_SAMPLES];
        const char *text = json_string_value(json_object_get(sample, "text"));
        page_put(page, "<p class=\"step\">step %lld</p><pre>", (long long)json_integer_value(json_object_get(sample, "step")));
        page_text(page, text ? text : "");
        page_put(page, "</pre>\n");
    }
}

/* Options indented; text that is no JSON is shown as it is. */
static void put_options(struct page *page, const char *options) {
    if (!options) return;
    json_t *value = NULL;
    char *pretty = NULL;
    if (json_parse(&value, options, strlen(options), "options", NULL) == CB_OK && json_dump(&pretty, value, 2, NULL) != CB_OK)
        pretty = NULL;
    page_put(page, "<h2>Options</h2>\n<pre>");
    page_text(page, pretty ? pretty : options);
    page_put(page, "</pre>\n");
    free(pretty);
    json_decref(value);
}

static enum cb_status write_page(struct figures *f, const char *path, const char *title, const char *options, struct cb_err *err) {
    struct page page = {.err = err};
    TRY(io_writer_open(&page.writer, path, err));
    curve_smooth(&f->loss, f->smooth);
    put_head(&page, title);
    put_table(&page, f);
    put_charts(&page, f);
    put_samples(&page, f);
    put_options(&page, options);
    page_put(&page, "</body>\n</html>\n");
    if (page.status == CB_OK) return io_writer_commit(&page.writer, err);
    io_writer_abort(&page.writer);
    return page.status;
}

enum cb_status report_write(const char *folder, const char *title, const char *options, struct cb_err *err) {
    struct figures *f = calloc(1, sizeof *f);
    char *path = io_path_join(folder, "report.html");
    enum cb_status status = f && path ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", folder);
    if (f) f->best = NAN;
    if (status == CB_OK) status = read_lines(f, folder, "metrics.jsonl", take_step, err);
    if (status == CB_OK) status = read_lines(f, folder, "samples.jsonl", take_sample, err);
    if (status == CB_OK) status = write_page(f, path, title, options, err);
    for (int i = 0; f && i < MAX_SAMPLES; i++) json_decref(f->samples[i]);
    free(f);
    free(path);
    return status;
}
