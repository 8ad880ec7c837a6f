/* GGUF files by the public calls: outside models and adapters against their golden numbers, conversions there and back, merging, broken files. */
#include <cambium/cambium.h>
#include <dirent.h>

#include "../harness.h"
#include "io/file.h"
#include "io/gguf.h"

static struct cb_err err;

/* A folder and an engine. */
struct place {
    char root[128];
    struct cb_engine *engine;
};
static void place_open(struct place *p) {
    struct cb_engine_options options = {.threads = 2};
    temporary_folder(p->root, "gguf");
    CHECK_OK(cb_engine_create(&p->engine, &options, &err));
}
static void place_close(struct place *p) { cb_engine_destroy(&p->engine); }
static const char *at(const struct place *p, const char *name) {
    static char path[64][160];
    static int next;
    char *text = path[next++ % 64];
    snprintf(text, sizeof path[0], "%s/%s", p->root, name);
    return text;
}

static const char *models_dir(char path[1200]) {
    const char *shared = shared_dir();
    if (!shared) return NULL;
    snprintf(path, 1200, "%s/fixtures/gguf/models", shared);
    return path;
}

/* Largest |got - want|, relative to the largest |want|. */
static double gap(const struct place *p, const struct tensors *golden, const char *want_name, const char *model, const char *modules) {
    const struct tensor *ids, *want, *got;
    struct tensors *out;
    CHECK_OK(tensors_need(&ids, golden, "ids", &err));
    CHECK_OK(tensors_need(&want, golden, want_name, &err));
    struct tensor_item item = {.name = "input_ids", .type = type_make(CB_DTYPE_I32, 2, (int64_t[]){1, type_elements(&ids->type)})};
    item.data = tensor_data(ids);
    CHECK_OK(tensors_write(at(p, "in.safetensors"), &item, 1, NULL, NULL, NULL, &err));
    struct cb_forward_options o = {
        .model = model, .modules = modules, .input = at(p, "in.safetensors"), .output = at(p, "out.safetensors")};
    struct cb_forward_result r;
    CHECK_OK(cb_forward(p->engine, &o, &r, &err));
    cb_free(r.shapes);
    CHECK_OK(tensors_open(&out, at(p, "out.safetensors"), &err));
    CHECK_OK(tensors_need(&got, out, strcmp(want_name, "hidden") ? "logits" : "last_hidden_state", &err));
    const double *a = tensor_data(want);
    const float *b = tensor_data(got);
    double worst = 0, largest = 0;
    CHECK(type_elements(&got->type) == type_elements(&want->type), "%s: another number of values", model);
    for (int64_t i = 0; i < type_elements(&want->type); i++)
        worst = fmax(worst, fabs(a[i] - (double)b[i])), largest = fmax(largest, fabs(a[i]));
    tensors_destroy(&out);
    return worst / largest;
}

static struct tensors *golden_open(const char *folder, const char *name) {
    char path[1600];
    struct tensors *golden;
    snprintf(path, sizeof path, "%s/%.*s.golden.safetensors", folder, (int)(strlen(name) - 5), name);
    CHECK_OK(tensors_open(&golden, path, &err));
    return golden;
}

TEST(gguf_models, golden_outputs) {
    char folder[1200], path[1600];
    struct place p;
    int n = 0;
    if (!models_dir(folder)) return;
    place_open(&p);
    DIR *dir = opendir(folder);
    CHECK(dir != NULL, "%s: cannot be opened", folder);
    for (const struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "tiny_", 5) != 0 || !gguf_is_path(e->d_name)) continue;
        struct tensors *golden = golden_open(folder, e->d_name);
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        double miss = gap(&p, golden, tensors_find(golden, "logits") ? "logits" : "hidden", path, NULL);
        CHECK(miss < 3e-6, "%s: %g of the largest value", e->d_name, miss);
        tensors_destroy(&golden);
        n++;
    }
    closedir(dir);
    CHECK(n > 0, "%s: no models", folder);
    place_close(&p);
}

TEST(gguf_models, golden_adapters) {
    static const char *const names[] = {"lora_r4.gguf", "lora_r8_f16_qv.gguf", "lora_r3_noalpha.gguf"};
    static const struct {
        const char *key, *scale;
    } scales[] = {{"logits_scale_0", "0*"}, {"logits_scale_0.5", "0.5*"}, {"logits_scale_1", ""}};
    char folder[1200], base[1600], modules[1700], again[1700];
    struct place p;
    if (!models_dir(folder)) return;
    place_open(&p);
    snprintf(base, sizeof base, "%s/tiny_llama_f32.gguf", folder);
    for (size_t i = 0; i < 3; i++) {
        struct tensors *golden = golden_open(folder, names[i]);
        // to PEFT and back: the same effect
        snprintf(modules, sizeof modules, "%s/%s", folder, names[i]);
        struct cb_convert_options o = {.in = modules, .out = at(&p, "peft"), .model = base}, back = {.in = at(&p, "peft"), .model = base};
        struct cb_convert_result r;
        back.out = at(&p, names[i]);
        CHECK_OK(cb_convert(p.engine, &o, &r, &err));
        CHECK_OK(cb_convert(p.engine, &back, &r, &err));
        for (int s = 0; s < 3; s++) {
            snprintf(modules, sizeof modules, "%s%s/%s", scales[s].scale, folder, names[i]);
            snprintf(again, sizeof again, "%s%s", scales[s].scale, back.out);
            double miss = gap(&p, golden, scales[s].key, base, modules), miss_again = gap(&p, golden, scales[s].key, base, again);
            CHECK(miss < 3e-6 && miss_again < 3e-6, "%s, %s: %g and %g of the largest value", names[i], scales[s].key, miss, miss_again);
        }
        tensors_destroy(&golden);
    }
    place_close(&p);
}

/* Same names, types, shapes and bytes. */
static void check_same(const char *a, const char *b) {
    struct gguf *x, *y;
    CHECK_OK(gguf_open(&x, a, &err));
    CHECK_OK(gguf_open(&y, b, &err));
    CHECK(tensors_count(gguf_tensors(x)) == tensors_count(gguf_tensors(y)), "%s, %s: other numbers of tensors", a, b);
    for (int i = 0; i < tensors_count(gguf_tensors(x)); i++) {
        const struct tensor *s = tensors_at(gguf_tensors(x), i), *t;
        CHECK_OK(tensors_need(&t, gguf_tensors(y), s->name, &err));
        CHECK(type_equal(&s->type, &t->type) && !memcmp(tensor_data(s), tensor_data(t), (size_t)s->bytes), "%s and %s: %s differs", a, b,
              s->name);
    }
    gguf_destroy(&x);
    gguf_destroy(&y);
}

/* A folder between two files changes nothing; what is quantised here equals what the format's own library made. */
TEST(gguf_models, conversions) {
    static const char *const archs[] = {"llama", "qwen2", "gpt2", "bert"}, *const types[] = {"f32", "f16", "bf16", "q8_0"};
    char folder[1200], from[1600], like[1600];
    struct place p;
    struct cb_convert_result r;
    if (!models_dir(folder)) return;
    place_open(&p);
    for (int a = 0; a < 4; a++) {
        snprintf(from, sizeof from, "%s/tiny_%s_f32.gguf", folder, archs[a]);
        struct cb_convert_options there = {.in = from, .out = at(&p, archs[a])},
                                  back = {.in = at(&p, archs[a]), .out = at(&p, "back.gguf")};
        CHECK_OK(cb_convert(p.engine, &there, &r, &err));
        CHECK(r.max_error == 0 && r.files == 1 && r.bytes > 0);
        CHECK_OK(cb_convert(p.engine, &back, &r, &err));
        check_same(from, back.out);
        for (int t = 0; t < 4; t++) {
            struct cb_convert_options to = {.in = at(&p, archs[a]), .out = at(&p, "type.gguf"), .quantize = types[t]};
            snprintf(like, sizeof like, "%s/tiny_%s_%s.gguf", folder, archs[a], types[t]);
            CHECK_OK(cb_convert(p.engine, &to, &r, &err));
            check_same(like, to.out);
            CHECK((r.max_error > 0) == (t > 0), "%s: largest change %g", like, r.max_error);
        }
        // the vocabulary too: ids of a text
        struct cb_tokenizer *x, *y;
        struct cb_encoding e, f;
        CHECK_OK(cb_tokenizer_load(&x, from, &err));
        CHECK_OK(cb_tokenizer_load(&y, back.out, &err));
        CHECK_OK(cb_tokenizer_encode(x, "the world, \xc3\xa9 and 12", strlen("the world, \xc3\xa9 and 12"), true, false, &e, &err));
        CHECK_OK(cb_tokenizer_encode(y, "the world, \xc3\xa9 and 12", strlen("the world, \xc3\xa9 and 12"), true, false, &f, &err));
        CHECK(e.n == f.n && e.n > 3 && !memcmp(e.ids, f.ids, (size_t)e.n * sizeof *e.ids), "%s: other ids", archs[a]);
        cb_encoding_free(&e);
        cb_encoding_free(&f);
        cb_tokenizer_destroy(&x);
        cb_tokenizer_destroy(&y);
    }
    place_close(&p);
}

TEST(gguf_models, every_recipe_and_its_refusals) {
    static const char *const types[] = {"q4_0",   "q4_1", "q5_0",   "q5_1", "q8_0",   "q2_k",  "q3_k",  "q4_k",
                                        "q4_k_m", "q5_k", "q5_k_m", "q6_k", "iq4_nl", "mxfp4", "tq1_0", "tq2_0"};
    struct place p;
    struct cb_init_result ir;
    struct cb_convert_result r;
    place_open(&p);
    struct cb_init_options io = {.out = at(&p, "model"), .family = "llama"};
    io.set = "hidden_size=256,intermediate_size=512,num_hidden_layers=1,num_attention_heads=4,num_key_value_heads=2,vocab_size=300";
    CHECK_OK(cb_init(p.engine, &io, &ir, &err));
    double last = 0;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct cb_convert_options o = {.in = at(&p, "model"), .out = at(&p, "q.gguf"), .quantize = types[t]},
                                  back = {.in = at(&p, "q.gguf")};
        back.out = at(&p, "back");
        CHECK_OK(cb_convert(p.engine, &o, &r, &err));
        CHECK(r.max_error > 0 && r.max_error < 0.1 && r.bytes < ir.parameters * 4 / 3, "%s: %g, %lld bytes", types[t], r.max_error,
              (long long)r.bytes);
        last = r.max_error;
        // the folder has what the blocks say: made into the same type it is the same file
        CHECK_OK(cb_convert(p.engine, &back, &r, &err));
        CHECK(r.max_error == 0);
    }
    CHECK(last > 0.005);
    struct cb_convert_options o = {.in = at(&p, "model"), .out = at(&p, "x.gguf"), .quantize = "q9"};
    CHECK_FAILS(cb_convert(p.engine, &o, &r, &err), CB_E_USAGE, "q4_k");
    o.out = at(&p, "folder");
    o.quantize = "q8_0";
    CHECK_FAILS(cb_convert(p.engine, &o, &r, &err), CB_E_USAGE, "gguf");
    o.quantize = NULL;
    o.model = at(&p, "model");
    CHECK_FAILS(cb_convert(p.engine, &o, &r, &err), CB_E_USAGE, "adapter");
    place_close(&p);
}

/* What a file has no place for goes by with a word: heads of bodies, a window where that is asked for, rows that no block fits. */
TEST(gguf_models, what_is_left_out) {
    struct place p;
    struct cb_init_result ir;
    struct cb_convert_result r;
    struct cb_engine_options options = {.threads = 1, .force = true};
    struct cb_engine *forced;
    place_open(&p);
    CHECK_OK(cb_engine_create(&forced, &options, &err));
    struct cb_init_options io = {.out = at(&p, "bert"), .family = "bert"};
    io.set = "hidden_size=48,intermediate_size=64,num_hidden_layers=1,num_attention_heads=4,vocab_size=300,max_position_embeddings=64";
    struct cb_convert_options o = {.in = io.out, .out = at(&p, "bert.gguf")};
    CHECK_OK(cb_init(p.engine, &io, &ir, &err));
    CHECK_OK(cb_convert(p.engine, &o, &r, &err));
    CHECK(r.other_type == 0 && r.tensors == 5 + 16, "%lld tensors", (long long)r.tensors);
    o.quantize = "q8_0";  // only rows of 64 are whole blocks
    CHECK_OK(cb_convert(p.engine, &o, &r, &err));
    CHECK(r.other_type > 3 && r.other_type < r.tensors, "%lld of another type", (long long)r.other_type);
    io.out = o.in = at(&p, "mistral");
    io.family = "mistral";
    io.set =
        "hidden_size=64,intermediate_size=96,num_hidden_layers=1,num_attention_heads=4,num_key_value_heads=2,vocab_size=300,"
        "max_position_embeddings=64,sliding_window=63";
    o.quantize = NULL;
    CHECK_OK(cb_init(p.engine, &io, &ir, &err));
    CHECK_FAILS(cb_convert(p.engine, &o, &r, &err), CB_E_UNSUPPORTED, "--force");
    CHECK_OK(cb_convert(forced, &o, &r, &err));
    cb_engine_destroy(&forced);
    place_close(&p);
}

/* Adapters with more than pairs of factors are refused by what the file cannot hold; nothing is dropped. */
TEST(gguf_models, adapters_that_are_more_than_pairs) {
    static const char *const cases[][2] = {{"lora_llama_rslora", NULL},
                                           {"lora_llama_tokens", "trainable_tokens"},
                                           {"lora_llama_dora", "magnitude"},
                                           {"lora_llama_embed", "embedding"},
                                           {"lora_llama_layer_replication", "layer_replication"}};
    const char *shared = shared_dir();
    char base[1200], module[1200];
    struct place p;
    if (!shared) return;
    place_open(&p);
    snprintf(base, sizeof base, "%s/fixtures/modules/base_llama", shared);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_convert_result r;
        snprintf(module, sizeof module, "%s/fixtures/modules/%s", shared, cases[i][0]);
        struct cb_convert_options o = {.in = module, .out = at(&p, "adapter.gguf"), .model = base};
        if (cases[i][1])
            CHECK_FAILS(cb_convert(p.engine, &o, &r, &err), CB_E_UNSUPPORTED, cases[i][1]);
        else
            CHECK_OK(cb_convert(p.engine, &o, &r, &err));
    }
    place_close(&p);
}

/* Whether two folders hold the same weights. */
static bool same_weights(const char *a, const char *b) {
    char *text[2] = {NULL, NULL}, path[1700];
    size_t n[2] = {0, 1};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/model.safetensors", i ? b : a);
        CHECK_OK(io_read_file(&text[i], &n[i], path, 1 << 26, &err));
    }
    bool same = n[0] == n[1] && memcmp(text[0], text[1], n[0]) == 0;
    free(text[0]);
    free(text[1]);
    return same;
}

/* Logits (48,300) of one row of ids; owned by caller. */
static float *logits_of(const struct place *p, const char *model) {
    int32_t ids[48];
    for (int i = 0; i < 48; i++) ids[i] = (i * 37 + 5) % 300;
    struct tensor_item item = {.name = "input_ids", .type = type_make(CB_DTYPE_I32, 2, (int64_t[]){1, 48}), .data = ids};
    struct cb_forward_options o = {.model = model, .input = at(p, "in.safetensors"), .output = at(p, "out.safetensors")};
    struct cb_forward_result r;
    struct tensors *out;
    const struct tensor *got;
    CHECK_OK(tensors_write(o.input, &item, 1, NULL, NULL, NULL, &err));
    CHECK_OK(cb_forward(p->engine, &o, &r, &err));
    cb_free(r.shapes);
    CHECK_OK(tensors_open(&out, o.output, &err));
    CHECK_OK(tensors_need(&got, out, "logits", &err));
    float *copy = malloc((size_t)got->bytes);
    CHECK(copy && type_elements(&got->type) == 48 * 300);
    memcpy(copy, tensor_data(got), (size_t)got->bytes);
    tensors_destroy(&out);
    return copy;
}

/* Every family that a file can hold goes there and back; an option that readers would take to be another is refused by its name. */
TEST(gguf_models, families_and_what_has_no_key) {
#define SIZES "hidden_size=64,intermediate_size=96,num_attention_heads=4,num_key_value_heads=2,vocab_size=300,max_position_embeddings=64"
    static const struct {
        const char *family, *set, *refused;  // refused: the word of the message; NULL: written
    } cases[] = {
        {"mistral", SIZES ",num_hidden_layers=2,sliding_window=null", NULL},
        {"mistral", SIZES ",num_hidden_layers=2,sliding_window=5", "window of 5"},
        {"mistral", SIZES ",num_hidden_layers=2,sliding_window=64", NULL},
        {"gemma2", SIZES ",num_hidden_layers=2,head_dim=8,query_pre_attn_scalar=8,sliding_window=5", NULL},
        {"gemma2", SIZES ",num_hidden_layers=46,head_dim=8,query_pre_attn_scalar=16,sliding_window=5", NULL},
        {"gemma2", SIZES ",num_hidden_layers=2,head_dim=8,query_pre_attn_scalar=9,sliding_window=5", "query_pre_attn_scalar"},
        {"gemma2", SIZES ",num_hidden_layers=2,head_dim=8,query_pre_attn_scalar=8,attn_logit_softcapping=null", "attn_logit_softcapping"},
        {"gemma3_text", SIZES ",num_hidden_layers=7,head_dim=8,query_pre_attn_scalar=8,sliding_window=5", NULL},
        {"gemma3_text", SIZES ",num_hidden_layers=7,head_dim=8,query_pre_attn_scalar=8,sliding_window=5,sliding_window_pattern=3",
         "window"},
        {"gemma3_text", SIZES ",num_hidden_layers=7,head_dim=8,query_pre_attn_scalar=8,rope_local_base_freq=500", "rope_local_base_freq"},
        {"phi3", SIZES ",num_hidden_layers=2,sliding_window=null", NULL},
        {"phi3", SIZES ",num_hidden_layers=2,sliding_window=7,partial_rotary_factor=0.5", NULL},
        {"phi3",
         SIZES ",num_hidden_layers=2,original_max_position_embeddings=32,partial_rotary_factor=0.25,rope_scaling={\"type\":\"longrope\","
               "\"short_factor\":[1,2],\"long_factor\":[3,4.5]}",
         NULL},
        {"qwen2",
         SIZES ",num_hidden_layers=2,rope_scaling={\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":16,"
               "\"beta_fast\":8.0,\"beta_slow\":0.5,\"attention_factor\":0.7}",
         NULL},
        {"llama", SIZES ",num_hidden_layers=2,rope_scaling={\"rope_type\":\"yarn\",\"factor\":2.0,\"mscale\":1.0,\"mscale_all_dim\":0.7}",
         NULL},
        {"qwen3", SIZES ",num_hidden_layers=2,rope_scaling={\"rope_type\":\"yarn\",\"factor\":1.0,\"attention_factor\":1.5}", NULL},
        {"qwen3", SIZES ",num_hidden_layers=2,rope_scaling={\"rope_type\":\"yarn\",\"factor\":2.0,\"truncate\":false}", "truncate"},
        {"qwen3",
         SIZES
         ",num_hidden_layers=2,rope_scaling={\"rope_type\":\"llama3\",\"factor\":2.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
         "\"original_max_position_embeddings\":16}",
         "rope_freqs"},
        {"qwen2_moe",
         SIZES ",num_hidden_layers=2,num_experts=3,num_experts_per_tok=2,moe_intermediate_size=32,shared_expert_intermediate_size=24,"
               "norm_topk_prob=false,tie_word_embeddings=true",
         NULL},
        {"mixtral", SIZES ",num_hidden_layers=2,num_local_experts=5,num_experts_per_tok=2,sliding_window=null", NULL},
        {"qwen2_moe",
         SIZES ",num_hidden_layers=2,num_experts=3,num_experts_per_tok=2,moe_intermediate_size=32,shared_expert_intermediate_size=24,"
               "norm_topk_prob=false",
         NULL},
        {"qwen3_moe",
         SIZES ",num_hidden_layers=2,head_dim=16,num_experts=4,num_experts_per_tok=3,moe_intermediate_size=32,norm_topk_prob=true", NULL},
        {"qwen3_moe", SIZES ",num_hidden_layers=2,num_experts=4,num_experts_per_tok=3,moe_intermediate_size=32,norm_topk_prob=false",
         "norm_topk_prob"},
        {"qwen3_moe",
         SIZES
         ",num_hidden_layers=3,num_experts=4,num_experts_per_tok=3,moe_intermediate_size=32,norm_topk_prob=true,decoder_sparse_step=2",
         "mlp.gate_proj"},
        {"bert",
         "architectures=[BertModel],hidden_size=32,intermediate_size=48,num_attention_heads=2,num_hidden_layers=1,hidden_act=gelu_new",
         "hidden_act: found \"gelu_new\"; GGUF has no key for it, readers of bert take \"gelu\""},
        {"bert",
         "architectures=[BertModel],hidden_size=32,intermediate_size=48,num_attention_heads=2,num_hidden_layers=1,"
         "position_embedding_type=relative_key",
         "distance_embedding"},
    };
#undef SIZES
    struct place p;
    place_open(&p);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_init_result ir;
        struct cb_convert_result r;
        struct cb_init_options io = {.out = at(&p, "family"), .family = cases[i].family, .set = cases[i].set};
        struct cb_convert_options there = {.in = at(&p, "family"), .out = at(&p, "family.gguf")},
                                  back = {.in = at(&p, "family.gguf"), .out = at(&p, "again")};
        CHECK_OK(cb_init(p.engine, &io, &ir, &err));
        if (cases[i].refused) {
            CHECK_FAILS(cb_convert(p.engine, &there, &r, &err), CB_E_UNSUPPORTED, cases[i].refused);
            continue;
        }
        CHECK_OK(cb_convert(p.engine, &there, &r, &err));
        CHECK(r.max_error == 0);
        CHECK_OK(cb_convert(p.engine, &back, &r, &err));
        CHECK(same_weights(at(&p, "family"), at(&p, "again")), "%s: %s: other weights", cases[i].family, cases[i].set);
        // the description too: the folder, the file and the folder again compute the same, beyond every window and length of positions
        float *logits[3] = {logits_of(&p, there.in), logits_of(&p, there.out), logits_of(&p, back.out)};
        for (int k = 1; k < 3; k++)
            for (int j = 0; j < 48 * 300; j++)
                CHECK(fabsf(logits[k][j] - logits[0][j]) < 1e-5F, "%s: %s: logit %d: %g, %g", cases[i].family, cases[i].set, j,
                      (double)logits[k][j], (double)logits[0][j]);
        for (int k = 0; k < 3; k++) free(logits[k]);
    }
    place_close(&p);
}

TEST(gguf_models, parts_and_merging) {
    char folder[1200], from[1600], lora[1600];
    struct place p;
    struct cb_convert_result r;
    if (!models_dir(folder)) return;
    place_open(&p);
    snprintf(from, sizeof from, "%s/tiny_llama_q8_0.gguf", folder);
    snprintf(lora, sizeof lora, "%s/lora_r8_f16_qv.gguf", folder);
    struct cb_convert_options split = {.in = from, .out = at(&p, "s.gguf"), .split_bytes = 40000};
    CHECK_OK(cb_convert(p.engine, &split, &r, &err));
    CHECK(r.files == 3 && r.max_error == 0, "%lld files", (long long)r.files);
    check_same(from, at(&p, "s-00002-of-00003.gguf"));
    // merging keeps the bytes of what the module leaves alone
    struct cb_merge_options o = {.model = from, .modules = lora, .out = at(&p, "m.gguf")};
    struct cb_merge_result m;
    CHECK_OK(cb_merge(p.engine, &o, &m, &err));
    CHECK(m.changed == 4 && m.max_error > 0 && m.max_error < 1 && m.identity < 1e-5, "%lld changed, %g", (long long)m.changed, m.max_error);
    struct gguf *a, *b;
    CHECK_OK(gguf_open(&a, from, &err));
    CHECK_OK(gguf_open(&b, o.out, &err));
    int same = 0;
    for (int i = 0; i < tensors_count(gguf_tensors(a)); i++) {
        const struct tensor *s = tensors_at(gguf_tensors(a), i), *t;
        CHECK_OK(tensors_need(&t, gguf_tensors(b), s->name, &err));
        CHECK(type_equal(&s->type, &t->type), "%s: another type", s->name);
        same += !memcmp(tensor_data(s), tensor_data(t), (size_t)s->bytes);
    }
    CHECK(same == tensors_count(gguf_tensors(a)) - 4, "%d tensors are as they were", same);
    gguf_destroy(&a);
    gguf_destroy(&b);
    place_close(&p);
}

/* The outside list of broken and odd files: `inspect` with check, and words that its message must hold ("a|b": either). */
static bool has_words(const char *message, char *words) {
    for (char *word = strtok(words, ";"); word; word = strtok(NULL, ";")) {
        bool found = false;
        for (char *one = word; one && !found;) {
            char *bar = strchr(one, '|');
            if (bar) *bar = 0;
            found = strcasestr(message, one) != NULL;
            one = bar ? bar + 1 : NULL;
        }
        if (!found) return false;
    }
    return true;
}

TEST(gguf_models, broken_files) {
    char path[1600], line[2000];
    const char *shared = shared_dir();
    int n = 0;
    if (!shared) return;
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/EXPECTED.tsv", shared);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL, "%s", path);
    while (fgets(line, sizeof line, f)) {
        char *name = strchr(line, '\t'), *expect = name ? strchr(name + 1, '\t') : NULL, *words = expect ? strchr(expect + 1, '\t') : NULL;
        if (!words || strncmp(line, "gguf\t", 5) != 0) continue;
        *name++ = *expect++ = *words++ = 0;
        char *end = strchr(words, '\t'), *text = NULL;
        if (end) *end = 0;
        snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/gguf/%s", shared, name);
        memset(&err, 0, sizeof err);
        enum cb_status status = cb_inspect(path, NULL, true, false, true, &text, &err);
        CHECK((status == CB_OK) == !strcmp(expect, "accept"), "%s: status %d (%s)", name, status, err.message);
        if (status != CB_OK) CHECK(has_words(err.message + strlen(path), words), "%s: %s", name, err.message);
        cb_free(text);
        n++;
    }
    fclose(f);
    CHECK(n > 0, "no files");
}
