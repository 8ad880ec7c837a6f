/* Sites and hooks, the two ways through attention, the loss without logits, packed documents and rotary frequencies. */
#include "nn/nn.h"

#include "../harness.h"
#include "../models/graph_runner.h"
#include "models/model.h"
#include "nn/rope.h"
#include "ops/ops.h"

struct tiny {
    struct store *store;
    struct model *model;
};

static enum cb_status tiny_open(struct tiny *t, const char *family, const char *changes, struct cb_err *err) {
    json_t *config;
    TRY(store_create(&t->store, err));
    TRY(model_default_config(&config, model_family(family), changes ? changes : model_family(family)->tiny, err));
    enum cb_status status = model_from_config(&t->model, config, family, err);
    json_decref(config);
    TRY(status);
    return model_init_weights(t->model, t->store, 3, err);
}

static void tiny_close(struct tiny *t) {
    model_destroy(&t->model);
    store_destroy(&t->store);
}

/* Builds, plans, fills ids and labels by a rule, sets seed, runs. */
static enum cb_status tiny_run(const struct tiny *t, struct runner *r, const struct nn_hook *hook, bool train, struct model_io io,
                               struct cb_err *err) {
    TRY(runner_create(r, err));
    struct nn nn = nn_make(r->g);
    nn.train = train;
    if (hook) nn.hook = *hook;
    TRY(model_build(t->model, &nn, &io, err));
    TRY(runner_plan(r, t->store, err));
    int32_t *ids = runner_data(r, "input_ids"), *labels = runner_data(r, "labels");
    for (int64_t i = 0; i < runner_elements(r, "input_ids"); i++) ids[i] = (int32_t)((i * 11 + 5) % t->model->vocab);
    for (int64_t i = 0; labels && i < runner_elements(r, "labels"); i++) labels[i] = (int32_t)((i * 3 + 1) % t->model->vocab);
    if (runner_data(r, "seed")) *(int64_t *)runner_data(r, "seed") = 42;
    if (runner_data(r, "segments"))
        for (int64_t i = 0; i < runner_elements(r, "segments"); i++) ((int32_t *)runner_data(r, "segments"))[i] = (int32_t)(i % 8 / 5);
    if (runner_data(r, "position_ids"))
        for (int64_t i = 0; i < runner_elements(r, "position_ids"); i++)
            ((int32_t *)runner_data(r, "position_ids"))[i] = (int32_t)(i % 8 < 5 ? i % 8 : i % 8 - 5);
    return runner_run(r, err);
}

/* Counts its calls; doubles the output of one site. */
struct counter {
    int sites, params;
    const char *doubled;
};
static struct cb_tensor *count_site(void *user, struct nn *nn, const struct nn_site *site, struct cb_tensor *x, struct cb_tensor *y) {
    struct counter *c = user;
    (void)x;
    c->sites++;
    return c->doubled && strcmp(site->name, c->doubled) == 0 ? op_scale(nn->g, y, 2, 0) : y;
}
static struct cb_tensor *count_param(void *user, struct nn *nn, const char *site, const char *field, struct cb_tensor *p) {
    (void)nn;
    struct counter *c = user;
    c->params += *site && (strcmp(field, "weight") == 0 || strcmp(field, "bias") == 0);
    return p;
}

TEST(nn, every_site_once) {
    struct cb_err err = {0};
    struct tiny t;
    struct runner r;
    struct counter c = {0};
    const struct nn_hook hook = {.user = &c, .site = count_site, .param = count_param};
    CHECK_OK(tiny_open(&t, "gpt2", NULL, &err));
    CHECK_OK(tiny_run(&t, &r, &hook, false, (struct model_io){.batch = 1, .tokens = 4, .want_logits = true, .want_loss = true}, &err));
    // two embeddings, what they give, ln_f, head; a layer: 2 norms, 4 linears, keys, values, hidden
    CHECK(c.sites == 5 + 2 * 9, "%d sites", c.sites);
    CHECK(c.params == 2 + 2 + 1 + 2 * 12, "%d parameters", c.params);
    runner_destroy(&r);
    // names, slices and layers
    struct cb_graph *g;
    CHECK_OK(graph_create(&g, ops_table(), &err));
    struct nn nn = nn_make(g);
    CHECK_OK(model_build(t.model, &nn, &(struct model_io){.batch = 1, .tokens = 2, .want_logits = true}, &err));
    const struct nn_site *s = nn_find_site(&nn, "transformer.h.1.attn.c_attn");
    CHECK(s && s->kind == NN_LINEAR && s->layer == 1 && s->in == 24 && s->out == 72 && s->weight_is_in_out && s->n_slices == 3);
    CHECK(strcmp(s->slice[1].name, "k") == 0 && s->slice[1].begin == 24 && s->slice[1].end == 48);
    CHECK(strcmp(s->bias, "transformer.h.1.attn.c_attn.bias") == 0);
    s = nn_find_site(&nn, "transformer.h.1.attention_adapters");
    CHECK(s && s->kind == NN_JOIN && strcmp(s->role, "attention") == 0 && s->out == 24);
    s = nn_find_site(&nn, "lm_head");
    CHECK(s && s->kind == NN_HEAD && s->layer == -1 && strcmp(s->weight, "transformer.wte.weight") == 0 && !s->bias);
    CHECK(!nn_find_site(&nn, "nosuch"));
    graph_destroy(&g);
    tiny_close(&t);
}

/* Products of a graph by whether they give one row of each sequence. */
static int products(const struct cb_graph *g, bool of_one_row) {
    unsigned char *read = calloc((size_t)g->n_tensors, 1);
    int n = 0;
    for (int i = 0; i < g->n_outputs; i++) read[g->outputs[i].tensor->id] = 1;
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        const struct node *node = g->nodes[i];
        if (!read[node->out[0]->id]) continue;
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k]) read[node->in[k]->id] = 1;
        const struct cb_type *y = &node->out[0]->type;
        if (strcmp(node->op->name, "matmul") == 0) n += of_one_row == (y->rank == 3 && y->dim[1] == 1);
    }
    free(read);
    return n;
}

/* Of the last layer nothing but keys, values and queries is computed for rows that nobody reads. */
TEST(nn, chosen_rows) {
    static const struct {
        const char *family;
        int one_row, whole;  // products; the head is one of the whole: it gives (B,V)
    } cases[] = {{"gpt2", 3, 1 + 5}, {"llama", 4, 3 + 7 + 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_err err = {0};
        struct tiny t;
        struct runner all, last;
        CHECK_OK(tiny_open(&t, cases[i].family, NULL, &err));
        CHECK_OK(tiny_run(&t, &all, NULL, false, (struct model_io){.batch = 2, .tokens = 8, .want_logits = true}, &err));
        CHECK_OK(
            tiny_run(&t, &last, NULL, false, (struct model_io){.batch = 2, .tokens = 8, .want_logits = true, .last_only = true}, &err));
        int32_t *row = runner_data(&last, "last");
        row[0] = 2, row[1] = 7;
        CHECK_OK(runner_run(&last, &err));
        const int64_t v = t.model->vocab;
        const float *want = runner_data(&all, "logits"), *have = runner_data(&last, "logits");
        double worst = 0;
        for (int64_t b = 0; b < 2; b++)
            for (int64_t k = 0; k < v; k++) worst = fmax(worst, fabs(have[b * v + k] - want[(b * 8 + row[b]) * v + k]));
        CHECK(worst < 1e-5, "%s: %g", cases[i].family, worst);
        CHECK(products(last.g, true) == cases[i].one_row && products(last.g, false) == cases[i].whole, "%s: %d of one row, %d",
              cases[i].family, products(last.g, true), products(last.g, false));
        CHECK(products(all.g, true) == 0);
        runner_destroy(&all);
        runner_destroy(&last);
        tiny_close(&t);
    }
}

TEST(nn, loss_without_logits) {
    struct cb_err err = {0};
    struct tiny t;
    CHECK_OK(tiny_open(&t, "llama", NULL, &err));
    struct counter c = {.doubled = "lm_head"};
    const struct nn_hook hook = {.user = &c, .site = count_site};
    for (int changed = 0; changed < 2; changed++) {
        float loss[2];
        for (int logits = 0; logits < 2; logits++) {
            struct runner r;
            CHECK_OK(tiny_run(&t, &r, changed ? &hook : NULL, false,
                              (struct model_io){.batch = 2, .tokens = 5, .want_loss = true, .want_logits = logits}, &err));
            loss[logits] = *(float *)runner_data(&r, "loss");
            runner_destroy(&r);
        }
        CHECK(fabsf(loss[0] - loss[1]) < 1e-5f && loss[0] > 3, "loss %g alone, %g beside logits", loss[0], loss[1]);
    }
    tiny_close(&t);
}

TEST(nn, dropped_attention_is_attention) {
    struct cb_err err = {0};
    for (int family = 0; family < 2; family++) {
        struct tiny t;
        const char *changes = family
                                  ? "hidden_size=24,intermediate_size=44,num_attention_heads=4,num_key_value_heads=2,num_hidden_layers=2,"
                                    "vocab_size=71,attention_dropout=1e-12"
                                  : "n_embd=24,n_head=3,n_layer=2,n_positions=40,vocab_size=67,attn_pdrop=1e-12,embd_pdrop=0,resid_pdrop=0";
        CHECK_OK(tiny_open(&t, family ? "llama" : "gpt2", changes, &err));
        struct runner a, b;
        const struct model_io io = {.batch = 2, .tokens = 8, .want_logits = true, .segments = true};
        CHECK_OK(tiny_run(&t, &a, NULL, false, io, &err));
        CHECK_OK(tiny_run(&t, &b, NULL, true, io, &err));
        double e = worst_error(runner_data(&b, "logits"), runner_data(&a, "logits"), runner_elements(&a, "logits"));
        CHECK(e < 1e-5 && runner_data(&b, "seed"), "the long way differs by %g", e);
        runner_destroy(&a);
        runner_destroy(&b);
        tiny_close(&t);
    }
}

TEST(nn, dropout_in_training_only) {
    struct cb_err err = {0};
    struct tiny t;
    CHECK_OK(tiny_open(&t, "gpt2",
                       "n_embd=24,n_head=3,n_layer=2,n_positions=40,vocab_size=67,embd_pdrop=0.1,attn_pdrop=0.1,resid_pdrop=0.1", &err));
    struct runner r[3];
    const struct model_io io = {.batch = 2, .tokens = 8, .want_logits = true};
    for (int i = 0; i < 3; i++) CHECK_OK(tiny_run(&t, &r[i], NULL, i > 0, io, &err));
    int64_t n = runner_elements(&r[0], "logits");
    CHECK(!runner_data(&r[0], "seed"));
    CHECK(worst_error(runner_data(&r[1], "logits"), runner_data(&r[0], "logits"), n) > 1e-3);
    CHECK(worst_error(runner_data(&r[1], "logits"), runner_data(&r[2], "logits"), n) == 0, "one seed, two draws");
    for (int i = 0; i < 3; i++) runner_destroy(&r[i]);
    tiny_close(&t);
}

/* Rows of 8: documents of 5 and 3 tokens, packed, give what they give alone. */
TEST(nn, packed_documents) {
    struct cb_err err = {0};
    struct tiny t;
    CHECK_OK(tiny_open(&t, "llama", NULL, &err));
    struct runner packed, alone;
    CHECK_OK(tiny_run(&t, &packed, NULL, false,
                      (struct model_io){.batch = 1, .tokens = 8, .want_logits = true, .segments = true, .position_ids = true}, &err));
    CHECK_OK(tiny_run(&t, &alone, NULL, false, (struct model_io){.batch = 1, .tokens = 3, .want_logits = true}, &err));
    memcpy(runner_data(&alone, "input_ids"), (int32_t *)runner_data(&packed, "input_ids") + 5, 3 * sizeof(int32_t));
    CHECK_OK(runner_run(&alone, &err));
    double e = worst_error((float *)runner_data(&packed, "logits") + 5 * 71, runner_data(&alone, "logits"), 3 * 71);
    CHECK(e < 1e-5, "second document: error %g", e);
    runner_destroy(&packed);
    runner_destroy(&alone);
    tiny_close(&t);
}

TEST(nn, refusals) {
    struct cb_err err = {0};
    struct tiny t;
    struct runner r;
    CHECK_OK(tiny_open(&t, "gpt2", NULL, &err));
    const struct {
        struct model_io io;
        enum cb_status code;
        const char *words;
    } rows[] = {
        {{.batch = 0, .tokens = 4, .want_logits = true}, CB_E_SHAPE, "batch 0"},
        {{.batch = 1, .tokens = 41, .want_logits = true}, CB_E_LIMIT, "41 positions"},
        {{.batch = 1, .tokens = 4, .want_logits = true, .cache = 3}, CB_E_SHAPE, "cache of 3"},
        {{.batch = 1, .tokens = 1, .want_loss = true}, CB_E_SHAPE, "loss of 1 token"},
        {{.batch = 1, .tokens = 4, .want_loss = true, .cache = 8}, CB_E_ARGUMENT, "without a cache"},
        {{.batch = 1, .tokens = 4, .want_logits = true, .segments = true, .attention_mask = true}, CB_E_ARGUMENT, "segments"},
    };
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        CHECK_FAILS(tiny_run(&t, &r, NULL, false, rows[i].io, &err), rows[i].code, rows[i].words);
        runner_destroy(&r);
    }
    tiny_close(&t);
}

/* The table of a configuration for a length; json: what stands in config.json. */
static enum cb_status frequencies(struct rope *rope, float *f, const char *json, int64_t max_positions, int64_t length,
                                  struct cb_err *err) {
    json_t *config;
    TRY(json_parse_object(&config, json, strlen(json), "t", err));
    struct rope_source source = {.config = config, .name = "t", .head_dim = 16, .max_positions = max_positions};
    enum cb_status status = rope_parse(rope, &source, err);
    if (status == CB_OK) rope_frequencies(rope, length, f);
    json_decref(config);
    return status;
}

/* Against the definitions, at pairs where the rules are exact. */
TEST(nn, rope_frequencies) {
    struct cb_err err = {0};
    struct rope rope;
    float plain[8], f[8];
    CHECK_OK(frequencies(&rope, plain, "{\"rope_theta\":10000.0}", 64, 64, &err));
    CHECK_OK(frequencies(&rope, f, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}", 64, 64, &err));
    CHECK(plain[0] == 1 && fabs(plain[4] - 0.01) < 1e-8 && fabs(f[4] - 0.0025) < 1e-9);
    // dynamic: unchanged up to the length it was trained for
    const char *dynamic = "{\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":4.0}}";
    CHECK_OK(frequencies(&rope, f, dynamic, 64, 64, &err));
    CHECK(memcmp(f, plain, sizeof f) == 0 && rope.exact_positions == 64);
    CHECK_OK(frequencies(&rope, f, dynamic, 64, 128, &err));
    CHECK(f[0] == 1 && fabs(f[7] * (float)pow(5, 1) / plain[7] - 1) < 1e-5, "slowest %g of %g", f[7], plain[7]);
    // yarn: the fastest pair is kept, the slowest divided
    CHECK_OK(frequencies(&rope, f,
                         "{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":64,"
                         "\"rope_theta\":10000.0}}",
                         256, 64, &err));
    CHECK(f[0] == 1 && fabs(f[7] * 4 / plain[7] - 1) < 1e-5);
    CHECK(fabs(rope.attention_factor - (0.1 * log(4) + 1)) < 1e-12 && rope.exact_positions == INT64_MAX);
}

/* LongRoPE: one list of factors up to the original length, another beyond; the original length in either form of config.json. */
TEST(nn, rope_long) {
    struct cb_err err = {0};
    struct rope rope;
    float plain[8], f[8];
    CHECK_OK(frequencies(&rope, plain, "{}", 64, 64, &err));
    static const char *const forms[] = {
        "{\"original_max_position_embeddings\":32,\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1,1,1,1,1,1,1,2],"
        "\"long_factor\":[1,2,3,4,5,6,7,8]}}",
        "{\"rope_parameters\":{\"rope_type\":\"longrope\",\"original_max_position_embeddings\":32,"
        "\"short_factor\":[1,1,1,1,1,1,1,2],\"long_factor\":[1,2,3,4,5,6,7,8]}}"};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(frequencies(&rope, f, forms[i], 128, 32, &err));
        CHECK(f[6] == plain[6] && fabs(f[7] * 2 / plain[7] - 1) < 1e-6 && rope.exact_positions == 32);
        CHECK_OK(frequencies(&rope, f, forms[i], 128, 33, &err));
        for (int k = 0; k < 8; k++) CHECK(fabs(f[k] * (float)(k + 1) / plain[k] - 1) < 1e-6);
        CHECK(fabs(rope.attention_factor - sqrt(1 + log(4) / log(32))) < 1e-12);
    }
    // without an original length the factor is wanted; lists of another length and other things than numbers are refused
    static const struct {
        const char *json, *words;
    } bad[] = {
        {"{\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1,1,1,1,1],\"long_factor\":[1,1,1,1,1,1,1,1]}}", "factor"},
        {"{\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]}}", "short_factor: found 1 numbers; wanted 8"},
        {"{\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1,1,1,1,0]}}", "short_factor[7]: found 0"},
        {"{\"rope_scaling\":{\"type\":\"ntk\"}}", "rope_type: found ntk"},
        {"{\"partial_rotary_factor\":0.2}", "head_dim: found 16"},
    };
    for (int i = 0; i < (int)(sizeof bad / sizeof *bad); i++)
        CHECK_FAILS(frequencies(&rope, f, bad[i].json, 64, 64, &err), i < 3 || i == 4 ? CB_E_FORMAT : CB_E_UNSUPPORTED, bad[i].words);
}

/* Every activation of Transformers that has no weights, over large and small x. */
TEST(nn, activations) {
    struct cb_err err = {0};
    struct tensors *golden;
    struct store *store;
    struct runner r;
    CHECK_OK(store_create(&store, &err));
    CHECK_OK(tensors_open(&golden, "tests/golden/models/activations.safetensors", &err));
    CHECK_OK(runner_create(&r, &err));
    struct nn nn = nn_make(r.g);
    const struct tensor *x = tensors_find(golden, "x");
    struct cb_tensor *in = graph_input(r.g, "x", x->type);
    for (int i = 0; i < tensors_count(golden); i++) {
        const char *name = tensors_at(golden, i)->name;
        if (strncmp(name, "y.", 2) == 0) graph_output(r.g, nn_activation(&nn, name + 2, in), name);
    }
    CHECK_OK(runner_plan(&r, store, &err));
    CHECK_OK(runner_fill(&r, "x", x, &err));
    CHECK_OK(runner_run(&r, &err));
    int n = 0;
    for (int i = 0; i < tensors_count(golden); i++) {
        const struct tensor *want = tensors_at(golden, i);
        if (strncmp(want->name, "y.", 2) != 0) continue;
        const double worst = worst_error(runner_data(&r, want->name), tensor_data(want), type_elements(&want->type));
        CHECK(worst < 1e-6, "%s: %g", want->name, worst);
        n++;
    }
    CHECK(n == 20, "%d activations", n);
    CHECK(!nn_is_activation("prelu") && !nn_is_activation("xielu"));
    runner_destroy(&r);
    tensors_destroy(&golden);
    store_destroy(&store);
}
