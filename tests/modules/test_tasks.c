/* Rows that name their tasks: modules of several tasks beside the libraries, and numbers that are none. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cambium/cambium.h"
#include "io/file.h"
#include "module_case.h"

/* Gradients of two tasks' modules that share A and B in the library: there the sum of what each of ours has. */
TEST(tasks, gradients) {
    static const char shared_name[] = ".shared_parameters.a,b.", rows[] = "{\"task_ids\": 1}\n{\"task_ids\": 0}\n{\"task_ids\": 1}\n";
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    struct cb_engine *engine;
    struct cb_forward_result result;
    struct tensors *golden, *have;
    char folder[400], input[500], base[500], temporary[128], out[200], path[200], name[2][300];
    snprintf(folder, sizeof folder, "%s/fixtures/modules/compose_multitask_mtl_lora_bert", shared);
    snprintf(input, sizeof input, "%s/golden.safetensors", folder);
    snprintf(base, sizeof base, "%s/fixtures/modules/base_bert", shared);
    CHECK(temporary_folder(temporary, "tasks"));
    snprintf(out, sizeof out, "%s/out.safetensors", temporary);
    snprintf(path, sizeof path, "%s/rows.jsonl", temporary);
    CHECK_OK(io_write_file(path, rows, strlen(rows), &err));
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 2}, &err));
    struct cb_forward_options o = {.model = base, .modules = folder, .input = input, .output = out, .rows = path, .grad = true};
    CHECK_OK(cb_forward(engine, &o, &result, &err));
    CHECK_OK(tensors_open(&golden, input, &err));
    CHECK_OK(tensors_open(&have, out, &err));
    const struct tensor *loss = tensors_find(golden, "loss");
    CHECK(loss && fabs(result.loss - (double)*(const float *)tensor_data(loss)) < 1e-5, "loss %g", result.loss);
    int compared = 0;
    for (int i = 0; i < tensors_count(golden); i++) {
        const struct tensor *want = tensors_at(golden, i), *t[2];
        const char *at = strstr(want->name, shared_name);
        if (strncmp(want->name, "grad.", 5) != 0) continue;
        for (int k = 0; k < 2; k++) {
            if (at)
                snprintf(name[k], sizeof name[k], "%.*s.loras.%c.%s", (int)(at - want->name), want->name, 'a' + k,
                         at + sizeof shared_name - 1);
            else
                snprintf(name[k], sizeof name[k], "%s", want->name);
            t[k] = tensors_find(have, name[k]);
            CHECK(t[k] && type_equal(&t[k]->type, &want->type), "%s is missing", name[k]);
        }
        if (!t[0] || !t[1]) continue;
        double error = 0, norm = 0;
        for (int64_t k = 0; k < type_elements(&want->type); k++) {
            const double x = (double)((const float *)tensor_data(t[0]))[k], y = (double)((const float *)tensor_data(t[1]))[k];
            const double z = (double)((const float *)tensor_data(want))[k];
            error += pow((at ? x + y : x) - z, 2);
            norm += z * z;
        }
        CHECK(sqrt(error) <= 1e-4 * sqrt(norm), "%s: %g of %g", want->name, sqrt(error), sqrt(norm));
        compared++;
    }
    CHECK(compared == 24, "%d gradients", compared);
    tensors_destroy(&golden);
    tensors_destroy(&have);
    cb_free(result.shapes);
    cb_engine_destroy(&engine);
}

/* A task that the module does not know is refused before anything runs. */
TEST(tasks, out_of_range) {
    static const int64_t wrong[] = {3, -1, INT64_C(1) << 40};
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    struct cb_engine *engine;
    struct tensors *golden;
    char folder[400], base[500], path[500], temporary[128], in[200], out[200];
    snprintf(folder, sizeof folder, "%s/fixtures/modules/poly_llama", shared);
    snprintf(base, sizeof base, "%s/fixtures/modules/base_llama", shared);
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    CHECK(temporary_folder(temporary, "tasks"));
    snprintf(in, sizeof in, "%s/in.safetensors", temporary);
    snprintf(out, sizeof out, "%s/out.safetensors", temporary);
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 1}, &err));
    CHECK_OK(tensors_open(&golden, path, &err));
    const struct tensor *ids = tensors_find(golden, "input_ids");
    for (int i = 0; i < 4; i++) {
        int64_t task[3] = {2, 0, i < 3 ? wrong[i] : 1};
        struct cb_forward_result result = {0};
        struct cb_forward_options o = {.model = base, .modules = folder, .input = in, .output = out};
        const struct tensor_item items[2] = {{.name = "input_ids", .type = ids->type, .data = tensor_data(ids)},
                                             {.name = "task_ids", .type = type_make(CB_DTYPE_I64, 1, (int64_t[]){3}), .data = task}};
        CHECK_OK(tensors_write(in, items, 2, NULL, NULL, NULL, &err));
        if (i < 3)
            CHECK_FAILS(cb_forward(engine, &o, &result, &err), CB_E_ARGUMENT, "wanted 0 to 2");
        else
            CHECK_OK(cb_forward(engine, &o, &result, &err));
        cb_free(result.shapes);
        memset(&err, 0, sizeof err);
    }
    tensors_destroy(&golden);
    cb_engine_destroy(&engine);
}
