/* Recipes: YAML within limits, keys, filters and gradients, what is refused. */
#include "harness.h"
#include "io/yaml.h"
#include "merge/fixtures.h"

static enum cb_status parse(const char *text, json_t **out, struct cb_err *err) { return yaml_parse(out, text, strlen(text), "text", err); }

TEST(merge_recipe, yaml_becomes_json) {
    struct cb_err err = {0};
    json_t *got;
    char *text;
    static const char yaml[] =
        "a: 1\nb: -2.5\nc: 1e-5\nd: true\ne: no\nf: ~\ng: 'true'\nh: \"1\"\ni: [1, x, {k: v}]\nj: &anchor {p: 1}\nk: *anchor\nl: {<<: "
        "*anchor, q: 2}\n"
        "m: 0x10\nn: 1.2.3\no: nan\np: |\n  two\n  lines\nq: !!int 4\n";
    CHECK_OK(parse(yaml, &got, &err));
    CHECK_OK(json_dump(&text, got, 0, &err));
    static const char want[] =
        "{\"a\":1,\"b\":-2.5,\"c\":1e-05,\"d\":true,\"e\":false,\"f\":null,\"g\":\"true\",\"h\":\"1\",\"i\":[1,\"x\",{\"k\":\"v\"}],"
        "\"j\":{\"p\":1},\"k\":{\"p\":1},\"l\":{\"q\":2,\"p\":1},\"m\":\"0x10\",\"n\":\"1.2.3\",\"o\":\"nan\",\"p\":\"two\\nlines\\n\","
        "\"q\":4}";
    json_t *wanted = json_loads(want, 0, NULL);
    CHECK(wanted && json_equal(got, wanted), "%s", text);
    json_decref(wanted);
    json_decref(got);
    free(text);
}

TEST(merge_recipe, hostile_yaml_is_refused) {
    struct cb_err err = {0};
    json_t *got;
    char deep[400] = "";
    for (int i = 0; i < 100; i++) strcat(deep, "[");
    CHECK_FAILS(parse(deep, &got, &err), CB_E_LIMIT, "nested too deep");
    CHECK_FAILS(parse("a: 1\na: 2\n", &got, &err), CB_E_FORMAT, "found twice");
    CHECK_FAILS(parse("? [1]\n: 2\n", &got, &err), CB_E_FORMAT, "key");
    CHECK_FAILS(parse("a: !!python/object 1\n", &got, &err), CB_E_FORMAT, "python");
    CHECK_FAILS(parse("--- 1\n--- 2\n", &got, &err), CB_E_LIMIT, "several documents");
    CHECK_FAILS(parse("a: [1, 2\n", &got, &err), CB_E_FORMAT, "line");
    CHECK_FAILS(parse("", &got, &err), CB_E_FORMAT, "nothing");
    CHECK_FAILS(parse("a: *b\n", &got, &err), CB_E_FORMAT, "alias");
    CHECK_FAILS(parse("a: &a [*a]\n", &got, &err), CB_E_FORMAT, "deep");
    CHECK_FAILS(parse("<<: 3\n", &got, &err), CB_E_FORMAT, "mapping");
    CHECK_FAILS(yaml_parse(&got, "a\0b", 3, "text", &err), CB_E_FORMAT, "");
    CHECK_FAILS(yaml_parse(&got, "a: \xff\xfe\n", 6, "text", &err), CB_E_FORMAT, "");
    // nine levels of ten aliases each are a thousand million values
    char bomb[2000] = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 9; i++) {
        char line[200];
        snprintf(line, sizeof line, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1,
                 i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
        strcat(bomb, line);
    }
    CHECK_FAILS(parse(bomb, &got, &err), CB_E_FORMAT, "too many values");
    // a long text, copied often
    char *big = malloc(1200000);
    int n = sprintf(big, "a: &a '%01000000d'\nb: [", 0);
    for (int i = 0; i < 200; i++) n += sprintf(big + n, "*a, ");
    sprintf(big + n, "1]\n");
    CHECK_FAILS(parse(big, &got, &err), CB_E_FORMAT, "too much text");
    free(big);
}

/* The value of option `weight` of the first source for a tensor at t. */
static enum cb_status weight_of(const char *yaml, const char *tensor, double t, double *value, struct cb_err *err) {
    json_t *root = NULL;
    struct merge_recipe *r = NULL;
    TRY(parse(yaml, &root, err));
    enum cb_status status = merge_recipe_create(&r, root, "recipe", err);
    const struct merge_option *o = &merge_method_find("linear")->options[0];
    if (status == CB_OK) status = merge_recipe_value(r, &r->slices[0], &r->slices[0].sources[0], o, tensor, t, value, err);
    merge_recipe_destroy(&r);
    json_decref(root);
    return status;
}

static double weight(const char *setting, const char *tensor, double t) {
    struct cb_err err = {0};
    char yaml[600];
    double value = NAN;
    snprintf(yaml, sizeof yaml, "merge_method: linear\nmodels: [{model: a, parameters: {weight: %s}}]\nparameters: {weight: 9}\n", setting);
    CHECK_OK(weight_of(yaml, tensor, t, &value, &err));
    return value;
}

TEST(merge_recipe, options_by_filter_and_gradient) {
    CHECK(weight("0.25", "x", 0) == 0.25 && weight("true", "x", 0) == 1, "plain values");
    // evenly over the layers, straight lines between
    CHECK(weight("[0, 1]", "x", 0.25) == 0.25 && weight("[0, 1, 0]", "x", 0.75) == 0.5 && weight("[4]", "x", 0.5) == 4, "gradients");
    CHECK(weight("[0, 1, 5]", "x", 1) == 5 && weight("[0, 1, 5]", "x", 0) == 0, "their ends");
    CHECK(weight("[true, false]", "x", 0.9) == 1 && weight("[true, false]", "x", 1) == 0, "true and false have nothing between them");
    static const char filters[] = "[{filter: self_attn, value: [0, 1]}, {filter: mlp, value: 0.5}, {value: 3}]";
    CHECK(weight(filters, "model.layers.0.self_attn.q_proj.weight", 0.5) == 0.5, "a gradient under a filter");
    CHECK(weight(filters, "model.layers.0.mlp.up_proj.weight", 0.5) == 0.5 && weight(filters, "model.norm.weight", 1) == 3, "filters");
    CHECK(weight("[{filter: mlp, value: 2}, {filter: '*', value: 4}]", "norm", 0) == 4, "the filter that fits all");
    // as text, which mergekit reads by the option
    CHECK(weight("'0.25'", "x", 0) == 0.25 && weight("'1e-3'", "x", 0) == 1e-3 && weight("'True'", "x", 0) == 1, "text");
    CHECK(weight("['0', '1']", "x", 0.25) == 0.25 && weight("{value: '0.5'}", "x", 0) == 0.5, "gradients and conditions of text");
    // a condition that says nothing of the tensor leaves it to the recipe
    CHECK(weight("[{filter: mlp, value: 2}]", "norm", 0) == 9 && weight("{filter: mlp, value: 2}", "mlp", 0) == 2, "what is left open");
}

TEST(merge_recipe, what_is_wrong_is_named) {
    struct cb_err err = {0};
    double v;
    static const struct {
        const char *yaml, *words;
        enum cb_status status;
    } cases[] = {
        {"merge_method: linear\n", "one of models and slices", CB_E_FORMAT},
        {"models: [{model: a}]\n", "merge_method", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a}]\nslices: []\n", "both", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a}]\nmethod: x\n", "unknown key 'method'", CB_E_NAME},
        {"merge_method: linear\nmodels: [{model: a, wieght: 1}]\n", "unknown key 'wieght'", CB_E_NAME},
        {"merge_method: linear\nmodels: [{parameters: {}}]\n", "path of a model", CB_E_FORMAT},
        {"merge_method: linear\nmodels: []\n", "list of 1 to", CB_E_FORMAT},
        {"merge_method: linear\nmodels: a\n", "list of 1 to", CB_E_FORMAT},
        {"merge_method: linear\nmodules: {text: {}}\n", "modules", CB_E_UNSUPPORTED},
        {"merge_method: linear\nslices: [{sources: [{model: a}]}]\n", "layer_range", CB_E_FORMAT},
        {"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [3, 3]}]}]\n", "layer_range", CB_E_FORMAT},
        {"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, -1]}]}]\n", "layer_range", CB_E_FORMAT},
        {"merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 3]}]}]\n",
         "found 3 layers", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: heavy}}]\n", "wanted a number", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: [1, x]}}]\n", "wanted a number", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: '1 kg'}}]\n", "found \"1 kg\"", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: ''}}]\n", "wanted a number", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: 'inf'}}]\n", "wanted a number", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: [{filter: x}]}}]\n", "wanted a number", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: []}}]\n", "wanted a number", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: [{value: [{value: 1}]}]}}]\n", "wanted a number", CB_E_FORMAT},
        {"merge_method: linear\nmodels: [{model: a, parameters: {weight: 1e30}}]\n", "wanted -1e+09 to 1e+09", CB_E_USAGE},
        {"merge_method: linear\nmodels: [{model: a}]\n", "no weight", CB_E_USAGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_FAILS(weight_of(cases[i].yaml, "x", 0, &v, &err), cases[i].status, cases[i].words);
}

TEST(merge_recipe, places_are_set_by_path) {
    struct cb_err err = {0};
    json_t *root;
    CHECK_OK(parse("merge_method: linear\nmodels: [{model: a}, {model: b}]\n", &root, &err));
    CHECK_OK(merge_recipe_set(root, "models.1.parameters.weight=[0, 1]", &err));
    CHECK_OK(merge_recipe_set(root, "parameters.normalize=false", &err));
    CHECK_OK(merge_recipe_set(root, "models.0.model=c", &err));
    json_t *want = json_loads(
        "{\"merge_method\": \"linear\", \"models\": [{\"model\": \"c\"}, {\"model\": \"b\", \"parameters\": {\"weight\": [0, 1]}}],"
        " \"parameters\": {\"normalize\": false}}",
        0, NULL);
    CHECK(want && json_equal(root, want), "what was set");
    CHECK_FAILS(merge_recipe_set(root, "models.7.model=c", &err), CB_E_USAGE, "no such place");
    CHECK_FAILS(merge_recipe_set(root, "models.x=c", &err), CB_E_USAGE, "no such place");
    CHECK_FAILS(merge_recipe_set(root, "merge_method.x=c", &err), CB_E_USAGE, "no such place");
    CHECK_FAILS(merge_recipe_set(root, "nothing", &err), CB_E_USAGE, "PATH=VALUE");
    CHECK_FAILS(merge_recipe_set(root, "=1", &err), CB_E_USAGE, "PATH=VALUE");
    CHECK_FAILS(merge_recipe_set(root, "a=[", &err), CB_E_FORMAT, "line");
    json_decref(want);
    json_decref(root);
}
