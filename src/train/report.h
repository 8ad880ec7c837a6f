/* Inside the room: pieces of a report (escaped output, curves) and the TensorBoard event file. */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H
#include "io/file.h"

/* Text on its way into a file; the first failure sticks. */
struct page {
    struct io_writer *writer;
    enum cb_status status;
    struct cb_err *err;
};
/* Formats at most 1000 bytes. */
void page_put(struct page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Text as it is. */
void page_raw(struct page *page, const char *text);
/* Text with HTML's signs escaped and control characters replaced. */
void page_text(struct page *page, const char *text);

#define CURVE_POINTS 1024

/* A curve of any length in fixed memory: when the points are full, neighbours become their mean and each later point stands for twice as many
   values. Zero-initialise. */
struct curve {
    double x[CURVE_POINTS], y[CURVE_POINTS];  // means
    int n;
    int64_t stride;  // values a point; 0: no value yet
    int64_t gathered;  // values in the point that is being made, at n
    double last;  // the newest value
};
/* Values that are not finite, or absurd (1e30), are passed over. */
void curve_add(struct curve *curve, double x, double y);
/* Exponential mean over about a fortieth of the curve, without the pull of its start. smooth: CURVE_POINTS values. */
void curve_smooth(const struct curve *curve, double *smooth);
/* Points that can be drawn, the unfinished last one included. */
int curve_count(const struct curve *curve);

/* One line of a chart. */
struct chart_line {
    const struct curve *curve;
    const double *y;  // instead of the curve's; NULL
    const char *label, *style;  // style: a class of the page's CSS
    bool dots;
};
/* An SVG element of width 100%: axes, ticks, a legend where there is more than one line. from_zero: the vertical axis begins at 0. */
void svg_chart(struct page *page, const char *title, const struct chart_line *lines, int n_lines, bool from_zero);

/* A drawing of its own, with its styles and the name of its horizontal axis: the text of an .svg file. */
void svg_alone(struct page *page, const char *title, const char *x_label, const struct chart_line *lines, int n_lines);

/* Report of a run's folder; title and options (JSON text, nullable) are escaped. */
enum cb_status report_write(const char *folder, const char *title, const char *options, struct cb_err *err);

struct events;
/* FOLDER/events.out.tfevents.<seconds>.<host>, always a new file. first_step > 1: TensorBoard drops what older files have from there on. Owned by
   caller, free with events_close. */
enum cb_status events_open(struct events **events, const char *folder, int64_t first_step, struct cb_err *err);
void events_close(struct events **events);
/* Scalars of one step, as one event; those that are not finite are left out. At most 8. */
enum cb_status events_scalars(struct events *events, int64_t step, const char *const *tags, const double *values, int n,
                              struct cb_err *err);
#endif
