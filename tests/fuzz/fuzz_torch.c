/* Fuzz target: any bytes as a file of torch.save; what is accepted is read to its last byte. */
#include <stdlib.h>

#include "io/torch.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct cb_err err = {0};
    struct map *map;
    struct tensors *tensors;
    if (map_copy(&map, bytes, n, "input", &err)) return 0;
    if (torch_read(&tensors, map, &err) == CB_OK) {
        for (int i = 0; i < tensors_count(tensors); i++) {
            const struct tensor *t = tensors_at(tensors, i);
            float *values = malloc((size_t)type_elements(&t->type) * sizeof *values + 1);
            if (values) tensor_read_f32(values, t);
            free(values);
        }
        tensors_destroy(&tensors);
    }
    map_release(&map);
    return 0;
}
