/* Every merge of the outside fixtures (mergekit's own output) within its stored tolerance, with the masks that were drawn there. */
#include <dirent.h>

#include "harness.h"
#include "merge/fixtures.h"

/* Masks of one case: golden.json says whose each is. */
struct drawn {
    const json_t *draws;
    struct tensors *golden;
    int used;
};

static const unsigned char *find_mask(void *context, const char *model, const char *tensor, int64_t n) {
    struct drawn *d = context;
    const char *slash = strrchr(model, '/');
    for (size_t i = 0; i < json_array_size(d->draws); i++) {
        const json_t *who = json_array_get(d->draws, i);
        char name[40];
        if (strcmp(json_string_value(json_array_get(who, 0)), slash ? slash + 1 : model)) continue;
        if (strcmp(json_string_value(json_array_get(who, 1)), tensor)) continue;
        snprintf(name, sizeof name, "draw.%zu", i);
        const struct tensor *t = tensors_find(d->golden, name);
        d->used++;
        return t && type_elements(&t->type) == n ? tensor_data(t) : NULL;
    }
    return NULL;
}

static void check_case(const char *dir, const char *name) {
    struct cb_err err = {0};
    char folder[128], path[1600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    json_t *about = json_of(path_of(path, "golden.json")), *recipe = yaml_of(path_of(path, "mergekit.yml"));
    CHECK(about && recipe, "%s: its files", name);
    struct drawn d = {.draws = json_object_get(about, "draws")};
    CHECK_OK(tensors_open(&d.golden, path_of(path, "golden.safetensors"), &err));
    struct merge_masks masks = {find_mask, &d};
    root_models(recipe, dir);
    temporary_folder(folder, "merge");
    struct merge_report report;
    CHECK_OK(merge_json(recipe, folder, 2, d.draws ? &masks : NULL, &report, &err));
    const double tolerance = json_number_value(json_object_get(json_object_get(about, "tolerance"), "merged"));
    const double gap = tensors_gap(path_of(path, "output/model.safetensors"), path_of(folder, "model.safetensors"));
    fprintf(stderr, "%-32s gap %.2e (tolerance %.0e), identity %.1e\n", name, gap, tolerance, report.identity);
    CHECK(tolerance > 0 && gap >= 0 && gap <= tolerance, "%s: differs by %g, tolerance %g", name, gap, tolerance);
    CHECK((d.draws != NULL) == (d.used > 0), "%s: masks were used", name);
    // with the same recipe on every model, what was there comes back, but for methods that were told to change it
    tensors_destroy(&d.golden);
    json_decref(about);
    json_decref(recipe);
}

TEST(merge, gives_what_mergekit_wrote) {
    const char *dir = modules_dir();
    int n = 0;
    if (!dir) return;
    char root[1200];
    snprintf(root, sizeof root, "%s", dir);
    DIR *d = opendir(root);
    CHECK(d, "the fixtures' folder");
    for (struct dirent *e; (e = readdir(d));) {
        struct stat s;
        if (strncmp(e->d_name, "mk_", 3)) continue;
        const char *recipe = path_of(path_of(root, e->d_name), "mergekit.yml");
        if (stat(recipe, &s)) continue;
        check_case(root, e->d_name);
        n++;
    }
    closedir(d);
    CHECK(n >= 30, "only %d cases were found", n);
}
