/* Prompt tuning as the adapters library has it (Lester et al. 2021): trained rows beside what the embeddings give, positions and norm included, before the
   tokens or after the first: positions leave them out. */
#include <string.h>

#include "modules/adapters.h"
#include "modules/prompt.h"
#include "ops/ops.h"

struct ad_prompt {
    int64_t n;
    const char *text;
    bool from_text;
    struct nn_site table;  // of the tokens' embedding
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct ad_prompt *o = (struct ad_prompt *)m->options;
    const char *init = "random_uniform", *combine = "prefix";
    TRY(json_get_int(&o->n, m->method, where, "prompt_length", 1, 1 << 20, true, err));
    TRY(json_get_str(&init, m->method, where, "prompt_init", false, err));
    TRY(json_get_str(&o->text, m->method, where, "prompt_init_text", false, err));
    TRY(json_get_str(&combine, m->method, where, "combine", false, err));
    o->from_text = strcmp(init, "from_string") == 0;
    if (!o->from_text && strcmp(init, "random_uniform") != 0)
        FAIL(err, CB_E_FORMAT, "%s: prompt_init: found %.60s; wanted random_uniform or from_string", where, init);
    if (o->from_text && (!o->text || !*o->text))
        FAIL(err, CB_E_FORMAT, "%s: prompt_init_text: found none; wanted the text that the prompt begins as", where);
    m->rows_at = strcmp(combine, "prefix_after_bos") == 0;
    if (!m->rows_at && strcmp(combine, "prefix") != 0)
        FAIL(err, CB_E_FORMAT, "%s: combine: found %.60s; wanted prefix or prefix_after_bos", where, combine);
    m->n_late = o->n;
    m->init_text = o->from_text ? o->text : NULL;
    return CB_OK;
}

static bool match(const struct nn_site *site) { return site->kind == NN_INPUTS; }

static bool implied(const struct module *m, const struct nn_site *site) {
    (void)m;
    return match(site);
}

static enum cb_status declare_shared(struct module *m, const struct nn *sites, struct cb_err *err) {
    struct ad_prompt *o = (struct ad_prompt *)m->options;
    (void)err;
    // the library's masks for PyTorch's fused attention hide nothing from the first n rows; ELECTRA has no such attention
    m->late_see_padding = !sites->model_type || strcmp(sites->model_type, "electra") != 0;
    for (int i = 0; i < sites->n_sites; i++)
        if (sites->sites[i]->reads_tokens) o->table = *sites->sites[i];
    return CB_OK;
}

static enum cb_status fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *to,
                           struct cb_err *err) {
    const struct ad_prompt *o = m->options;
    return prompt_fill(m, p, &o->table, true, 0, store, seed, to, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct ad_prompt *o = m->options;
    struct tuner_param rest = {.init = TUNER_UNIFORM, .spread = 0.5, .fill = o->from_text ? fill : NULL};
    rest.public.key = arena_printf(m->arena, "%s.prompt_tunings.%s.prompt_embedding.weight", site->site.name, m->label);
    rest.public.type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){o->n, site->site.out});
    if (!rest.public.key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    if (o->from_text && o->table.out != site->site.out)
        FAIL(err, CB_E_SHAPE, "%s: prompt_init: embeddings of %lld features for rows of %lld", m->name, (long long)o->table.out,
             (long long)site->site.out);
    return tuner_add(m, site, rest, NULL, err);
}

static struct cb_tensor *rows(const struct module *m, const struct tuner_site *site, struct nn *nn) { return tuner_leaf(m, site, 0, nn); }

static const struct tuner_option options[] = {
    {"n", "prompt_length", TUNER_INT, "virtual tokens"},
    {"combine", "combine", TUNER_STR, "prefix, or prefix_after_bos: after the first token"},
    {"init", "prompt_init", TUNER_STR, "random_uniform or from_string"},
    {"text", "prompt_init_text", TUNER_TEXT, "what the prompt begins as, with init=from_string; the last option, commas are its own"},
    {0},
};
static const char *const cases[] = {"ad_prompt:n=3", "ad_prompt:n=2,combine=prefix_after_bos", NULL};

const struct tuner tuner_ad_prompt = {
    .name = "ad_prompt",
    .doc = "Prompt tuning of the adapters library: trained rows beside the finished embeddings of an encoder; positions stay.",
    .architecture = "prompt_tuning",
    .options = options,
    .defaults =
        "{\"architecture\":\"prompt_tuning\",\"combine\":\"prefix\",\"init_weights_seed\":null,"
        "\"prompt_init\":\"random_uniform\",\"prompt_init_text\":null,\"prompt_length\":10}",
    .options_bytes = sizeof(struct ad_prompt),
    .fresh = TUNER_NOT_BASE,
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .rows = rows,
    .refuses_fold = prompt_refuses_fold,
};
