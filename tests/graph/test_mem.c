/* The memory planner: nothing that lives together overlaps, and the total is near the least possible. */
#include "base/rng.h"
#include "graph/mem.h"
#include "harness.h"

static bool overlap(const struct mem_buffer *a, const struct mem_buffer *b) {
    bool in_time = a->first <= b->last && b->first <= a->last;
    bool in_space = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
    return in_time && in_space;
}

TEST(mem, live_buffers_never_overlap) {
    enum { N = 300 };
    static struct mem_buffer b[N];
    struct rng rng = rng_make(1, 2);
    for (int round = 0; round < 20; round++) {
        struct cb_err err = {0};
        int64_t total, live[64] = {0}, peak = 0;
        for (int i = 0; i < N; i++) {
            int first = (int)rng_below(&rng, 60), length = (int)rng_below(&rng, 5);
            b[i] = (struct mem_buffer){
                .bytes = 1 + (int64_t)rng_below(&rng, 10000), .first = first, .last = first + length > 63 ? 63 : first + length};
            for (int t = b[i].first; t <= b[i].last; t++) live[t] += (b[i].bytes + 63) & ~(int64_t)63;
        }
        CHECK_OK(mem_place(b, N, &total, &err));
        for (int t = 0; t < 64; t++) peak = live[t] > peak ? live[t] : peak;
        for (int i = 0; i < N; i++) {
            CHECK(b[i].offset >= 0 && b[i].offset % 64 == 0 && b[i].offset + b[i].bytes <= total, "buffer %d at %lld", i,
                  (long long)b[i].offset);
            for (int j = 0; j < i; j++) CHECK(!overlap(&b[i], &b[j]), "buffers %d and %d overlap", i, j);
        }
        CHECK(total >= peak && total < peak * 3 / 2, "total %lld for a peak of %lld", (long long)total, (long long)peak);
    }
}

TEST(mem, a_chain_of_two_uses_two_places) {
    struct mem_buffer b[6];
    struct cb_err err = {0};
    int64_t total;
    for (int i = 0; i < 6; i++) b[i] = (struct mem_buffer){.bytes = 640, .first = i, .last = i + 1};
    CHECK_OK(mem_place(b, 6, &total, &err));
    CHECK(total == 1280, "total %lld", (long long)total);
}
