/* Batches prepared ahead are those of the loader, in order, out of order and after failures. */
#include "data/prefetch.h"

#include "../harness.h"

static struct cb_err err;

enum { N = 5000, B = 4, T = 32 };

static struct corpus *corpus_make(void) {
    static int32_t ids[N];
    int64_t length[50];
    for (int i = 0; i < N; i++) ids[i] = i * 7 % 1000;
    for (int i = 0; i < 50; i++) length[i] = N / 50;
    struct corpus *c;
    CHECK_OK(corpus_from_ids(&c, ids, length, NULL, 50, 1000, N, &err));
    return c;
}

TEST(data_prefetch, equals_the_loader) {
    struct corpus *c = corpus_make();
    struct loader *l;
    struct prefetch *p;
    CHECK_OK(loader_create(&l, c, &(struct loader_options){.batch = B, .seq = T, .seed = 9, .segments = true}, &err));
    CHECK_OK(prefetch_create(&p, l, 0, true, true, &err));
    int32_t want[4][B * T], got[4][B * T];
    static const int64_t jumps[] = {0, 1, 2, 7, 7, 3, 4, 1000, 1001};
    for (int64_t i = 0; i < 200; i++) {
        int64_t index = i < 9 ? jumps[i] : i;
        CHECK_OK(loader_batch(l, index, want[0], want[1], want[2], want[3], &err));
        CHECK_OK(prefetch_batch(p, index, got[0], got[1], got[2], got[3], &err));
        CHECK(!memcmp(want, got, sizeof want), "batch %d", (int)index);
        if (i % 50) continue;
        CHECK_FAILS(prefetch_batch(p, -5, got[0], got[1], got[2], got[3], &err), CB_E_ARGUMENT, "batch -5");
    }
    prefetch_destroy(&p);
    CHECK(!p);
    // ended while it works, and without the optional parts
    CHECK_OK(prefetch_create(&p, l, 3, false, false, &err));
    CHECK_FAILS(prefetch_batch(p, 3, got[0], got[1], got[2], NULL, &err), CB_E_ARGUMENT, "segments");
    prefetch_destroy(&p);
    loader_destroy(&l);
    corpus_destroy(&c);
}
