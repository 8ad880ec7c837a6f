/* Every op file of the outside fixtures that has an adaptor: outputs and gradients with ref kernels against PyTorch's. */
#include <dirent.h>

#include "harness.h"
#include "ops/fixtures.h"

/* Files that an adaptor covers; may only grow. */
#define FILES_COVERED 298

TEST(op_fixtures, agree) {
    const char *shared = shared_dir();
    char folder[1024], path[1400], text[1200];
    if (!shared) return;
    snprintf(folder, sizeof folder, "%s/fixtures/models/ops", shared);
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, NULL, alphasort), n_files = 0, n_covered = 0, n_wrong = 0;
    CHECK(n > 0, "%s: cannot be read", folder);
    for (int i = 0; i < n; i++) {
        char *name = entries[i]->d_name, *end = strstr(name, ".safetensors"), op[300] = "";
        if (end) {
            *end = '\0';
            n_files++;
            snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
            if (fixture_op(path, op, sizeof op) && fixture_adaptor_of(op)) {
                n_covered++;
                if (!fixture_check(path, name, text)) {
                    n_wrong++;
                    fprintf(stderr, "%s\n", text);
                }
            } else {
                fprintf(stderr, "not covered: %s\n", name);
            }
        }
        free(entries[i]);
    }
    free(entries);
    fprintf(stderr, "op fixtures: %d of %d files covered, %d wrong\n", n_covered, n_files, n_wrong);
    CHECK(n_files > 0, "no op files in %s", folder);
    CHECK(n_wrong == 0, "%d of %d files disagree", n_wrong, n_covered);
    CHECK(n_covered >= FILES_COVERED, "%d files covered; %d were reached before", n_covered, FILES_COVERED);
}
