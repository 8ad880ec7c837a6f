/* Stop strings across pieces: what is handed out is exactly the text before the first stop, as early as it is certain. */
#include "run/stop.h"

#include "../harness.h"
#include "base/rng.h"

/* Feeds pieces; what came out is joined in out. */
static void feed(struct stopper *s, const char *const *pieces, char *out) {
    struct cb_err err = {0};
    const char *text;
    size_t n;
    *out = 0;
    for (; *pieces; pieces++) {
        CHECK_OK(stopper_add(s, *pieces, strlen(*pieces), &text, &n, &err));
        strncat(out, text, n);
    }
}

static void finish(struct stopper *s, char *out) {
    const char *text;
    size_t n;
    stopper_finish(s, &text, &n);
    strncat(out, text, n);
}

TEST(stop, held_back_while_uncertain) {
    const char *const stops[] = {"</end>", "STOP"};
    struct stopper s = {.stop = stops, .n_stop = 2};
    char out[100];
    feed(&s, (const char *const[]){"one <", "/e", NULL}, out);
    CHECK(strcmp(out, "one ") == 0 && !s.is_stopped, "'%s'", out);
    feed(&s, (const char *const[]){"x ST", NULL}, out);
    CHECK(strcmp(out, "</ex ") == 0, "'%s'", out);
    feed(&s, (const char *const[]){"OP more", "never", NULL}, out);
    CHECK(*out == 0 && s.is_stopped && strcmp(s.text, "one </ex ") == 0, "'%s', text '%s'", out, s.text);
    stopper_deinit(&s);
}

TEST(stop, self_overlap_and_the_end) {
    const char *const stops[] = {"aab"};
    struct stopper s = {.stop = stops, .n_stop = 1};
    char out[100];
    feed(&s, (const char *const[]){"a", "a", "a", "b", NULL}, out);
    CHECK(strcmp(out, "a") == 0 && s.is_stopped, "'%s'", out);
    stopper_deinit(&s);
    s = (struct stopper){.stop = stops, .n_stop = 1};
    feed(&s, (const char *const[]){"xaa", NULL}, out);
    finish(&s, out);
    CHECK(strcmp(out, "xaa") == 0 && !s.is_stopped, "'%s'", out);
    stopper_deinit(&s);
}

TEST(stop, none_and_empty_ones_hold_nothing) {
    const char *const stops[] = {""};
    struct stopper s = {.stop = stops, .n_stop = 1}, none = {0};
    char out[100];
    feed(&s, (const char *const[]){"all", "", " of it", NULL}, out);
    CHECK(strcmp(out, "all of it") == 0, "'%s'", out);
    feed(&none, (const char *const[]){"all", NULL}, out);
    CHECK(strcmp(out, "all") == 0, "'%s'", out);
    stopper_deinit(&s);
    stopper_deinit(&none);
}

TEST(stop, any_cutting_gives_the_same_text) {
    // none within another: the first to begin is the first to end
    const char *const stops[] = {"abab", "bb", "cabc"};
    struct rng rng = rng_make(1, 2);
    for (int round = 0; round < 3000; round++) {
        char text[25] = "", out[100] = "", want[25];
        size_t n = 1 + rng_below(&rng, 24), first = n;
        for (size_t i = 0; i < n; i++) text[i] = (char)('a' + rng_below(&rng, 3));
        for (int k = 0; k < 3; k++) {
            const char *at = strstr(text, stops[k]);
            if (at && (size_t)(at - text) < first) first = (size_t)(at - text);
        }
        snprintf(want, sizeof want, "%.*s", (int)first, text);
        struct stopper s = {.stop = stops, .n_stop = 3};
        struct cb_err err = {0};
        for (size_t at = 0, step; at < n && !s.is_stopped; at += step) {
            const char *piece;
            size_t n_piece;
            step = round % 2 ? 1 : 1 + rng_below(&rng, n - at);
            CHECK_OK(stopper_add(&s, text + at, step, &piece, &n_piece, &err));
            strncat(out, piece, n_piece);
        }
        if (!s.is_stopped) finish(&s, out);
        CHECK(strcmp(out, want) == 0, "'%s' gave '%s', wanted '%s'", text, out, want);
        bool is_found = first < n;
        CHECK(s.is_stopped == is_found, "'%s': stopped %d", text, s.is_stopped);
        stopper_deinit(&s);
    }
}
