/* metrics.jsonl and samples.jsonl: a line a step, appended; a run that goes on drops the lines of steps that it will do again. */
#include "train/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/stream.h"
#include "train/report.h"

#define MAX_LINE (1 << 20)
#define MAX_SAMPLE 100000

struct metrics {
    char *folder;
    FILE *steps, *samples;
    struct events *events;
};

/* The step of a line, -1 where it is no whole line of ours (the process was killed while it wrote). */
static int64_t line_step(const char *line, size_t n) {
    json_t *value;
    int64_t step = -1;
    if (json_parse_object(&value, line, n, "line", NULL) != CB_OK) return -1;
    if (json_get_int(&step, value, "line", "step", 0, INT64_MAX, true, NULL) != CB_OK) step = -1;
    json_decref(value);
    return step;
}

/* Copies the lines of steps up to last. */
static enum cb_status keep_lines(struct stream *from, struct io_writer *to, int64_t last, struct cb_err *err) {
    for (;;) {
        char *line;
        size_t n;
        TRY(stream_line(from, &line, &n, MAX_LINE, err));
        if (!line) return CB_OK;
        int64_t step = line_step(line, n);
        if (step < 0 || step > last) continue;
        TRY(io_writer_write(to, line, n, err));
        TRY(io_writer_write(to, "\n", 1, err));
    }
}

/* The file with its lines of steps up to last alone, opened for appending. */
static enum cb_status open_lines(FILE **file, const char *folder, const char *name, int64_t last, struct cb_err *err) {
    char *path = io_path_join(folder, name);
    if (!path) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    struct stream *from = NULL;
    struct io_writer *to = NULL;
    enum cb_status status = CB_OK;
    if (io_is_file(path)) {
        if (last > 0) status = stream_open(&from, path, err);
        if (status == CB_OK) status = io_writer_open(&to, path, err);
        if (status == CB_OK && from) status = keep_lines(from, to, last, err);
        if (status == CB_OK) status = io_writer_commit(&to, err);
        io_writer_abort(&to);
        stream_close(&from);
    }
    if (status == CB_OK && !(*file = fopen(path, "ae")))
        status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: cannot open: %s", path, strerror(errno));
    free(path);
    return status;
}

enum cb_status metrics_open(struct metrics **metrics, const char *folder, int64_t steps_done, struct cb_err *err) {
    *metrics = NULL;
    struct metrics *m = calloc(1, sizeof *m);
    if (!m || !(m->folder = strdup(folder))) {
        free(m);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", folder);
    }
    enum cb_status status = io_mkdirs(folder, err);
    if (status == CB_OK) status = open_lines(&m->steps, folder, "metrics.jsonl", steps_done, err);
    if (status == CB_OK) status = open_lines(&m->samples, folder, "samples.jsonl", steps_done, err);
    if (status == CB_OK) status = events_open(&m->events, folder, steps_done + 1, err);
    if (status != CB_OK) {
        metrics_close(&m);
        return status;
    }
    *metrics = m;
    return CB_OK;
}

void metrics_close(struct metrics **metrics) {
    struct metrics *m = *metrics;
    if (!m) return;
    if (m->steps) fclose(m->steps);
    if (m->samples) fclose(m->samples);
    events_close(&m->events);
    free(m->folder);
    free(m);
    *metrics = NULL;
}

/* Ends a line: everything before it is in the system's hands when this returns. */
static enum cb_status end_line(struct metrics *m, FILE *file, const char *name, struct cb_err *err) {
    if (fputs("}\n", file) == EOF || fflush(file) != 0 || ferror(file))
        FAIL(err, CB_E_IO, "%s/%s: cannot write: %s", m->folder, name, strerror(errno));
    return CB_OK;
}

/* ,"key":value; null stands for what is no number. */
static void put_number(FILE *file, const char *key, const char *format, double value) {
    fprintf(file, ",\"%s\":", key);
    if (isfinite(value))
        fprintf(file, format, value);
    else
        fputs("null", file);
}

enum cb_status metrics_step(struct metrics *m, const struct loop_event *e, struct cb_err *err) {
    static const char *const tags[] = {"loss", "lr", "grad_norm", "tokens_per_s", "valid_loss"};
    fprintf(m->steps, "{\"step\":%" PRId64, e->step);
    put_number(m->steps, "loss", "%.9g", e->result.loss);
    put_number(m->steps, "grad_norm", "%.9g", e->result.grad_norm);
    put_number(m->steps, "lr", "%.9g", e->result.lr);
    if (e->is_evaluated) put_number(m->steps, "valid_loss", "%.9g", e->valid_loss);
    put_number(m->steps, "tokens_per_s", "%.1f", e->tokens_per_s);
    put_number(m->steps, "seconds", "%.3f", e->seconds);
    TRY(end_line(m, m->steps, "metrics.jsonl", err));
    double values[] = {e->result.loss, e->result.lr, e->result.grad_norm, e->tokens_per_s, e->is_evaluated ? e->valid_loss : NAN};
    return events_scalars(m->events, e->step, tags, values, 5, err);
}

/* Length of the UTF-8 character at p (RFC 3629); 0 where the bytes are none. */
static size_t character(const unsigned char *p) {
    size_t n = *p < 0x80 ? 1 : *p >= 0xC2 && *p < 0xE0 ? 2 : *p >= 0xE0 && *p < 0xF0 ? 3 : *p >= 0xF0 && *p < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F) || (*p == 0xF0 && p[1] < 0x90) || (*p == 0xF4 && p[1] > 0x8F)) return 0;
    return n;
}

enum cb_status metrics_sample(struct metrics *m, int64_t step, const char *text, struct cb_err *err) {
    fprintf(m->samples, "{\"step\":%" PRId64 ",\"text\":\"", step);
    const unsigned char *begin = (const unsigned char *)text;
    for (const unsigned char *p = begin; *p && p - begin < MAX_SAMPLE;) {
        size_t n = character(p);
        if (*p == '"' || *p == '\\')
            fprintf(m->samples, "\\%c", *p);
        else if (*p < 0x20)
            fprintf(m->samples, "\\u%04x", *p);
        else if (n)
            fwrite(p, 1, n, m->samples);
        else
            fputs("\xEF\xBF\xBD", m->samples);  // a token may end within a character
        p += n ? n : 1;
    }
    fputc('"', m->samples);
    return end_line(m, m->samples, "samples.jsonl", err);
}

enum cb_status metrics_report(struct metrics *m, const char *title, const char *options, struct cb_err *err) {
    return report_write(m->folder, title, options, err);
}
