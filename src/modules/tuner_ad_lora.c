/* LoRA (Hu et al. 2021) and VeRA (Kopiczko et al. 2023) as the adapters library has them: on queries, keys, values or the feed-forward layer, VeRA with whole
   matrices in place of its vectors. */
#include <string.h>

#include "modules/adapters_lora.h"

static bool owns(const json_t *method) {
    const char *mode = json_string_value(json_object_get(method, "composition_mode"));
    return (!mode || strcmp(mode, "scale") != 0) && !json_is_true(json_object_get(method, "use_dora"));
}

static const struct tuner_preset presets[] = {
    {"ad_vera", "VeRA of the adapters library: factors shared by all layers and frozen.",
     "{\"init_weights\":\"vera\",\"vera_b\":0.0,\"vera_d\":0.1}"},
    {0},
};
static const char *const cases[] = {"ad_lora:r=2,alpha=4,intermediate_lora=true,output_lora=true", "ad_lora:r=3,attn_matrices=k+v", NULL};

const struct tuner tuner_ad_lora = {
    .name = "ad_lora",
    .doc = "LoRA of the adapters library: a trained product of two thin matrices beside queries, keys, values or the feed-forward layer.",
    .architecture = "lora",
    .owns = owns,
    .presets = presets,
    .options = ad_lora_options,
    .defaults = AD_LORA_DEFAULTS,
    .options_bytes = sizeof(struct ad_lora),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change B A x, beside alpha / r",
    .cases = cases,
    .parse = ad_lora_parse,
    .match = ad_lora_match,
    .implied = ad_lora_implied,
    .declare = ad_lora_declare,
    .delta = ad_lora_delta,
    .weight = ad_lora_weight,
    .refuses_fold = ad_lora_refuses_fold,
};
