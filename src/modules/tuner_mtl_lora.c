/* MTL-LoRA (Yang et al. 2024) of the adapters library: LoRA for several tasks, a module a task. Each has its own matrix L between down and up and its own
   weights w of several up-projections: y = W x + b + (alpha / r) sum_i softmax(w / sharpness)_i B_i L' A x. In multitask(...) each row has its task's; the
   library lets tasks share A and B, and writes them into every task's file. */
#include <string.h>

#include "modules/adapters_lora.h"

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct ad_lora *o = (struct ad_lora *)m->options;
    const char *matrix = "singular_values";
    TRY(ad_lora_parse(m, where, err));
    o->n_up = 1;
    o->sharpness = 0.05;
    TRY(json_get_int(&o->n_up, m->method, where, "n_up_projection", 1, 1 << 16, false, err));
    TRY(json_get_float(&o->sharpness, m->method, where, "weights_sharpness", 1e-6, 1e6, false, err));
    TRY(json_get_str(&matrix, m->method, where, "task_specific_matrix_type", false, err));
    o->has_matrix = strcmp(matrix, "linear") == 0;
    if (!o->has_matrix && strcmp(matrix, "singular_values") != 0)
        FAIL(err, CB_E_FORMAT, "%s: task_specific_matrix_type: found %.60s; wanted singular_values or linear", where, matrix);
    if (o->scales || o->use_dora || o->is_vera)
        FAIL(err, CB_E_UNSUPPORTED, "%s: composition_mode scale, use_dora, vera_b or vera_d in mtl_lora; wanted none of them", where);
    // every start but BERT's has B 0
    if (o->b_init != TUNER_NORMAL) o->b_init = TUNER_ZEROS;
    m->fresh = o->b_init == TUNER_NORMAL ? TUNER_NOT_BASE : TUNER_IS_BASE;
    return CB_OK;
}

/* A and B: of all tasks that are trained together. */
static bool shares(const struct module *m, const struct tuner_param *param) {
    const size_t n = strlen(param->public.key);
    (void)m;
    return n > 7 && (strcmp(param->public.key + n - 7, ".lora_A") == 0 || strcmp(param->public.key + n - 7, ".lora_B") == 0);
}

static const struct tuner_option options[] = {
    AD_LORA_RANK,
    {"ups", "n_up_projection", TUNER_INT, "up-projections, which each task weighs"},
    {"matrix", "task_specific_matrix_type", TUNER_STR, "a task's own between down and up: singular_values (a diagonal) or linear"},
    {"sharpness", "weights_sharpness", TUNER_REAL, "of the softmax over the up-projections: what its weights are divided by"},
    AD_LORA_PLACES,
    {0},
};
static const char *const cases[] = {"mtl_lora:r=2,alpha=4,ups=3,intermediate_lora=true,output_lora=true",
                                    "mtl_lora:r=3,ups=2,attn_matrices=q+k+v,matrix=linear,sharpness=0.5", NULL};

const struct tuner tuner_mtl_lora = {
    .name = "mtl_lora",
    .doc = "MTL-LoRA: LoRA with a matrix of its own for each task and several up-projections that it weighs.",
    .architecture = "mtl_lora",
    .options = options,
    .defaults =
        "{\"alpha\":8,\"architecture\":\"mtl_lora\",\"attn_matrices\":[\"q\",\"v\"],\"composition_mode\":\"add\",\"dropout\":0.0,"
        "\"dtype\":null,\"init_weights\":\"lora\",\"init_weights_seed\":null,\"intermediate_lora\":false,\"leave_out\":[],"
        "\"n_up_projection\":1,\"output_lora\":false,\"r\":8,\"selfattn_lora\":true,"
        "\"task_specific_matrix_type\":\"singular_values\",\"use_dora\":false,\"use_gating\":false,\"vera_b\":null,\"vera_d\":null,"
        "\"weights_sharpness\":0.05}",
    .options_bytes = sizeof(struct ad_lora),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = ad_lora_match,
    .implied = ad_lora_implied,
    .declare = ad_lora_declare,
    .delta = ad_lora_delta,
    .weight = ad_lora_weight,
    .refuses_fold = ad_lora_refuses_fold,
    .shares = shares,
};
