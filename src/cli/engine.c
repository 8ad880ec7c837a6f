/* The engine of this command line: progress, warnings and Ctrl-C. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void cli_end_line(struct cli *cli) {
    if (cli->line_open) fputc('\n', stderr);
    cli->line_open = false;
}

static void warn(void *user, const char *line) {
    struct cli *cli = user;
    cli_end_line(cli);
    fprintf(stderr, "warning: %s\n", line);
}

/* "1:02:03" or "2:03". */
static void print_time(char *text, size_t n, double seconds) {
    long s = seconds > 0 && seconds < 1e8 ? lround(seconds) : 0;
    if (s >= 3600)
        snprintf(text, n, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, n, "%ld:%02ld", s / 60, s % 60);
}

static void print_progress(struct cli *cli, const struct cb_progress *p) {
    char line[400], left[32];
    int n = snprintf(line, sizeof line, "%s %lld", p->verb, (long long)p->done);
    if (p->total > 0) n += snprintf(line + n, sizeof line - (size_t)n, "/%lld", (long long)p->total);
    if (cli->is_terminal && p->total > 0) {  // a bar of 20 cells
        int full = (int)(20 * p->done / p->total);
        n += snprintf(line + n, sizeof line - (size_t)n, " [%.*s%.*s]", full, "####################", 20 - full, "....................");
    }
    if (p->loss >= 0 || isnan(p->loss)) n += snprintf(line + n, sizeof line - (size_t)n, "  loss %.4f", p->loss);
    if (p->valid_loss >= 0) n += snprintf(line + n, sizeof line - (size_t)n, "  valid %.4f", p->valid_loss);
    if (p->rate > 0)
        n += snprintf(line + n, sizeof line - (size_t)n, "  %.*f %s/s", p->rate < 100 ? 1 : 0, p->rate, p->unit ? p->unit : "");
    if (p->seconds_left >= 0) {
        print_time(left, sizeof left, p->seconds_left);
        snprintf(line + n, sizeof line - (size_t)n, "  %s left", left);
    }
    if (cli->is_terminal) {
        struct winsize w;
        int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col - 1 : 100;
        fprintf(stderr, "\r\033[K%.*s", width, line);
        cli->line_open = true;
    } else {
        fprintf(stderr, "%s\n", line);
    }
}

/* A Ctrl-C that waits: the first asks for a stop, from then on the usual one ends the process. */
static void poll_interrupt(struct cli *cli) {
    sigset_t set;
    struct timespec zero = {0, 0};
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (cli->stop_asked || sigtimedwait(&set, NULL, &zero) < 0) return;
    cli->stop_asked = true;
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    cli_end_line(cli);
    fputs("stopping: saving a checkpoint (interrupt again to stop at once)\n", stderr);
}

static bool progress(void *user, const struct cb_progress *p) {
    struct cli *cli = user;
    double now = now_s(), every = cli->is_terminal ? 0.2 : 10;
    poll_interrupt(cli);
    if (p->text && !cli->quiet) {
        cli_end_line(cli);
        fprintf(stderr, "%s\n", p->text);
    }
    if (!cli->quiet && !p->text && (now - cli->last_line_s >= every || (p->total > 0 && p->done >= p->total))) {
        print_progress(cli, p);
        cli->last_line_s = now;
    }
    return !cli->stop_asked;
}

enum cb_status cli_engine(struct cli *cli, bool train, struct cb_engine **engine, struct cb_err *err) {
    if (train) {  // the pool's threads inherit the mask
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
    }
    cli->is_terminal = isatty(STDERR_FILENO);
    cli->last_line_s = now_s() - 8;
    struct cb_engine_options o = {.threads = cli->threads > INT32_MAX ? INT32_MAX : (int)cli->threads,
                                  .device = cli->device,
                                  .cpu_mask = cli->cpu_mask,
                                  .kernels = cli->kernels,
                                  .memory_limit = cli->memory,
                                  .force = cli->force,
                                  .seed = (uint64_t)cli->seed,
                                  .deterministic = cli->deterministic,
                                  .progress = progress,
                                  .warn = warn,
                                  .user = cli};
    return cb_engine_create(engine, &o, err);
}
