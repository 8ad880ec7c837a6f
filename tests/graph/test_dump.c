/* Text dumps of graphs and plans, as goldens. */
#include "toolbox.h"

TEST(dump, a_graph_reads_as_text) {
    struct cb_graph *g;
    struct cb_err err = {0};
    char *text;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    const char *scope = graph_push(g, "layer.%d", 3);
    struct cb_tensor *x = graph_input(g, "x", f32_type(2, 2, 3)), *w = graph_param(g, "w", f32_type(2, 4, 3));
    struct cb_tensor *y = op_softmax(g, op_matmul(g, x, w, false, true), -1);
    graph_pop(g, scope);
    graph_output(g, y, "y");
    CHECK_OK(graph_dump(g, &text, &err));
    static const char want[] =
        "%0 f32[2,3] = input() name=x  # layer.3\n"
        "%1 f32[4,3] = param() name=w  # layer.3\n"
        "%2 f32[2,4] = matmul(%0, %1, -, -) trans_a=0 trans_b=1  # layer.3\n"
        "%3 f32[2,4] = softmax(%2) axis=1  # layer.3\n"
        "output y = %3\n";
    CHECK(strcmp(text, want) == 0, "dump is\n%s", text);
    free(text);
    graph_destroy(&g);
}
