/* Products with block types for AVX-512 with the tile unit. */
#include "backend/cpu/blocks_avx512.h"
#include "backend/cpu/blocks_body.h"

const struct kernel kernel_file_blocks_amx[] = {{"matmul", "blocks_amx", ISA, 36, accepts, workspace, run}, {0}};
