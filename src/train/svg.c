/* Curves of bounded size and their charts as SVG, styled by the classes of the page around them. */
#include <math.h>
#include <stdio.h>

#include "train/report.h"

/* Size of a drawing and of the margins around its field. */
enum { WIDTH = 720, HEIGHT = 300, LEFT = 66, RIGHT = 16, TOP = 14, BOTTOM = 34 };

/* Neighbours become one; the count is even. */
static void halve(struct curve *c) {
    for (int i = 0; i < c->n / 2; i++) {
        c->x[i] = (c->x[2 * i] + c->x[2 * i + 1]) / 2;
        c->y[i] = (c->y[2 * i] + c->y[2 * i + 1]) / 2;
    }
    c->n /= 2;
    c->stride *= 2;
}

void curve_add(struct curve *c, double x, double y) {
    if (!(fabs(x) < 1e30 && fabs(y) < 1e30)) return;
    if (!c->stride) c->stride = 1;
    if (!c->gathered) c->x[c->n] = c->y[c->n] = 0;
    c->gathered++;
    c->x[c->n] += (x - c->x[c->n]) / (double)c->gathered;
    c->y[c->n] += (y - c->y[c->n]) / (double)c->gathered;
    c->last = y;
    if (c->gathered < c->stride) return;
    c->gathered = 0;
    if (++c->n == CURVE_POINTS) halve(c);
}

int curve_count(const struct curve *c) { return c->n + (c->gathered > 0); }

void curve_smooth(const struct curve *c, double *smooth) {
    int n = curve_count(c);
    double fresh = 2.0 / (n / 40.0 + 1), sum = 0, weight = 0;
    if (fresh > 1) fresh = 1;
    for (int i = 0; i < n; i++) {
        sum += fresh * (c->y[i] - sum);
        weight += fresh * (1 - weight);
        smooth[i] = sum / weight;
    }
}

/* An axis: the range that is drawn and the distance of its ticks (1, 2 or 5 times a power of ten). */
struct axis {
    double low, high, tick;
};

static struct axis axis_make(double low, double high, int ticks, bool whole) {
    double size = fmax(fabs(low), fabs(high));
    if (!(high - low > size * 1e-6)) {
        double pad = whole ? fmax(1, size * 1e-6) : size > 0 ? size * 0.1 : 1;
        low -= pad;
        high += pad;
    }
    double rough = (high - low) / ticks, power = pow(10, floor(log10(rough))), lead = rough / power;
    double tick = power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
    if (whole && tick < 1) tick = 1;
    return (struct axis){low, high, tick};
}

/* Widens a range to what the lines hold. */
static void lines_range(const struct chart_line *lines, int n_lines, bool vertical, double *low, double *high) {
    *low = INFINITY;
    *high = -INFINITY;
    for (int k = 0; k < n_lines; k++) {
        const struct curve *c = lines[k].curve;
        const double *v = !vertical ? c->x : lines[k].y ? lines[k].y : c->y;
        for (int i = 0; i < curve_count(c); i++) {
            *low = fmin(*low, v[i]);
            *high = fmax(*high, v[i]);
        }
    }
}

static double place_x(const struct axis *a, double x) { return LEFT + (x - a->low) / (a->high - a->low) * (WIDTH - LEFT - RIGHT); }

static double place_y(const struct axis *a, double y) {
    return HEIGHT - BOTTOM - (y - a->low) / (a->high - a->low) * (HEIGHT - TOP - BOTTOM);
}

/* A tick's number: k and M for thousands and millions, as many digits as its neighbours need. */
static void tick_text(char text[32], double v, double tick) {
    double size = fmax(fabs(v), tick);
    if (fabs(v) < tick * 1e-6) v = 0;
    double unit = size >= 1e6 ? 1e6 : size >= 1e4 ? 1e3 : 1;
    const char *suffix = v == 0 ? "" : unit == 1e6 ? "M" : unit == 1e3 ? "k" : "";
    int digits = (int)ceil(-log10(tick / unit) - 1e-9);
    if (digits > 4)
        snprintf(text, 32, v == 0 ? "0" : "%.1e", v);
    else
        snprintf(text, 32, "%.*f%s", digits > 0 ? digits : 0, v / unit, suffix);
}

static void draw_axes(struct page *page, const struct axis *x, const struct axis *y, const char *x_label) {
    char text[32];
    for (double v = ceil(y->low / y->tick - 1e-9) * y->tick; v <= y->high + y->tick * 1e-9; v += y->tick) {
        double at = place_y(y, v);
        tick_text(text, v, y->tick);
        page_put(page, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, WIDTH - RIGHT, at, at);
        page_put(page, "<text class=\"end\" x=\"%d\" y=\"%.1f\">%s</text>\n", LEFT - 8, at + 4, text);
    }
    for (double v = ceil(x->low / x->tick - 1e-9) * x->tick; v <= x->high + x->tick * 1e-9; v += x->tick) {
        double at = place_x(x, v);
        tick_text(text, v, x->tick);
        page_put(page, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", at, at, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 4);
        page_put(page, "<text class=\"mid\" x=\"%.1f\" y=\"%d\">%s</text>\n", at, HEIGHT - BOTTOM + 17, text);
    }
    page_put(page, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>", LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM);
    page_put(page, "<text class=\"mid\" x=\"%d\" y=\"%d\">%s</text>\n", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 2, x_label);
}

static void draw_line(struct page *page, const struct chart_line *line, const struct axis *x, const struct axis *y) {
    const struct curve *c = line->curve;
    const double *v = line->y ? line->y : c->y;
    int n = curve_count(c);
    page_put(page, "<polyline class=\"%s\" points=\"", line->style);
    for (int i = 0; i < n; i++) page_put(page, "%s%.1f,%.1f", i ? " " : "", place_x(x, c->x[i]), place_y(y, v[i]));
    page_put(page, "\"/>\n");
    for (int i = 0; i < n && ((line->dots && n <= 100) || n == 1); i++)
        page_put(page, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>", line->style, place_x(x, c->x[i]), place_y(y, v[i]));
}

/* The name of a line of one point beside it. */
static void draw_name(struct page *page, const struct chart_line *line, const struct axis *x, const struct axis *y) {
    const double at = place_x(x, line->curve->x[0]);
    page_put(page, "<text%s x=\"%.1f\" y=\"%.1f\">", at > WIDTH * 0.7 ? " class=\"end\"" : "", at + (at > WIDTH * 0.7 ? -6 : 6),
             place_y(y, line->curve->y[0]) + 4);
    page_text(page, line->label);
    page_put(page, "</text>\n");
}

/* Samples of the lines with their names, from the right of the top. */
static void draw_legend(struct page *page, const struct chart_line *lines, int n_lines) {
    int at = WIDTH - RIGHT - 150;
    for (int k = n_lines - 1; k >= 0; k--) {
        if (curve_count(lines[k].curve) < 2) continue;
        page_put(page, "<line class=\"%s\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>", lines[k].style, at, at + 22, TOP + 8, TOP + 8);
        page_put(page, "<text x=\"%d\" y=\"%d\">%s</text>\n", at + 28, TOP + 12, lines[k].label);
        at -= 150;
    }
}

/* The styles that a drawing outside a page needs. */
static const char *const alone_style =
    "<style>text{font:12px sans-serif}.end{text-anchor:end}.mid{text-anchor:middle}.grid{stroke:#ddd}.axis{stroke:#888}"
    "polyline{fill:none;stroke-width:2}.a{stroke:#2b6cb0;fill:none}.b{stroke:#c05621}circle.a{fill:#2b6cb0}</style>\n";

/* The drawing of lines whose horizontal range is [low, high]. */
static void draw(struct page *page, const char *title, const char *x_label, const struct chart_line *lines, int n_lines, bool from_zero,
                 bool alone, double low, double high) {
    struct axis x = axis_make(low, high, 9, !alone);
    lines_range(lines, n_lines, true, &low, &high);
    double pad = (high - low) * 0.06;
    struct axis y = from_zero && low >= 0 ? axis_make(0, high * 1.06, 5, false) : axis_make(low - pad, high + pad, 5, false);
    page_put(page, "<svg%s viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", alone ? " xmlns=\"http://www.w3.org/2000/svg\"" : "",
             WIDTH, HEIGHT, title);
    if (alone) page_raw(page, alone_style);
    draw_axes(page, &x, &y, x_label);
    for (int k = 0; k < n_lines; k++)
        if (curve_count(lines[k].curve)) draw_line(page, &lines[k], &x, &y);
    for (int k = 0; k < n_lines && n_lines > 1; k++)
        if (curve_count(lines[k].curve) == 1) draw_name(page, &lines[k], &x, &y);
    if (n_lines > 1) draw_legend(page, lines, n_lines);
    page_put(page, "</svg>");
}

void svg_alone(struct page *page, const char *title, const char *x_label, const struct chart_line *lines, int n_lines) {
    double low, high;
    lines_range(lines, n_lines, false, &low, &high);
    if (high >= low) draw(page, title, x_label, lines, n_lines, false, true, low, high);
    page_raw(page, "\n");
}

void svg_chart(struct page *page, const char *title, const struct chart_line *lines, int n_lines, bool from_zero) {
    double low, high;
    lines_range(lines, n_lines, false, &low, &high);
    page_put(page, "<figure><figcaption>%s</figcaption>\n", title);
    if (high >= low)
        draw(page, title, "step", lines, n_lines, from_zero, false, low, high);
    else
        page_put(page, "<p>no values</p>");
    page_put(page, "</figure>\n");
}
