/* Products with block types for AVX-512. */
#include "backend/cpu/blocks_avx512.h"
#include "backend/cpu/blocks_body.h"

const struct kernel kernel_file_blocks_avx512[] = {{"matmul", "blocks_avx512", ISA, 35, accepts, workspace, run}, {0}};
