/* Builders of convolution, pooling and resizing; images are (N,C,H,W), sequences (N,C,W). Failures are sticky in g. */
#ifndef OPS_VISION_H
#define OPS_VISION_H
#include "graph/op.h"

/* Zeros stand for PyTorch's defaults: stride and dilation 1, no padding, 1 group. Height first; 1-d ops read entry 1 alone. */
struct conv_options {
    int64_t stride[2], padding[2], dilation[2], groups;
    int64_t output_padding[2]; /* transposed only */
};
/* weight (O, C/groups, KH, KW), bias (O) nullable. */
struct cb_tensor *op_conv2d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                            const struct conv_options *options);
struct cb_tensor *op_conv1d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                            const struct conv_options *options);
/* weight (C, O/groups, KH, KW). */
struct cb_tensor *op_conv_transpose2d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                      const struct conv_options *options);
struct cb_tensor *op_conv_transpose1d(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                      const struct conv_options *options);

/* stride 0: the kernel's size. output not 0: adaptive pooling to that size, the rest unused. dilation for max alone. */
struct pool_options {
    int64_t kernel[2], stride[2], padding[2], dilation[2], output[2];
    bool ceil_mode, exclude_pad;
};
struct cb_tensor *op_max_pool2d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *options);
struct cb_tensor *op_avg_pool2d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *options);
struct cb_tensor *op_max_pool1d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *options);
struct cb_tensor *op_avg_pool1d(struct cb_graph *g, struct cb_tensor *x, const struct pool_options *options);

/* mode: nearest, bilinear or bicubic. scale: output per input, used where size[0] is 0 (output: floor of the product); else 0. */
struct cb_tensor *op_interpolate2d(struct cb_graph *g, struct cb_tensor *x, const int64_t size[2], const double scale[2], const char *mode,
                                   bool align_corners);
#endif
