/* Names of labels: numbers in the order of their coming, the first of two that are alike, thousands of them. */
#include "data/labelled.h"
#include "harness.h"

TEST(labelled, names) {
    struct cb_err err = {0};
    struct labels labels = {0};
    char name[32];
    CHECK(labels_find(&labels, "a") == -1);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "label %d", i % 4000);
        CHECK_OK(labels_add(&labels, name, &err));
    }
    CHECK(labels.n == 5000);
    for (int i = 0; i < 4000; i++) {
        snprintf(name, sizeof name, "label %d", i);
        CHECK(labels_find(&labels, name) == i && strcmp(labels.name[i], name) == 0, "%s", name);
    }
    CHECK(labels_find(&labels, "label 4000") == -1 && labels_find(&labels, "") == -1);
    labels_deinit(&labels);
    CHECK(labels.n == 0 && labels_find(&labels, "label 0") == -1);
}
