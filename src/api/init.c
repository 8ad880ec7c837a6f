/* cb_init: a model folder with fresh weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "io/file.h"
#include "models/model.h"
#include "text/tokenizer.h"

/* The configuration: a family's defaults or a given file, with changes, and the tokenizer's vocabulary. */
static enum cb_status make_config(const struct cb_init_options *o, json_t **config, struct cb_err *err) {
    const struct family *family = o->family ? model_family(o->family) : NULL;
    if (o->family && !family) FAIL(err, CB_E_USAGE, "--family %s: unknown; `cambium list models` shows them", o->family);
    if (o->from) {
        struct model *model;
        TRY(model_check_config(&model, o->from, err));
        if (family && family != model->family) {
            enum cb_status status =
                err_set(err, CB_E_USAGE, __FILE__, __LINE__, "--family %s: %s is of family %s", o->family, o->from, model->family->name);
            model_destroy(&model);
            return status;
        }
        *config = json_deep_copy(model->config);
        model_destroy(&model);
        if (!*config) FAIL(err, CB_E_MEMORY, "init: out of memory");
        if (o->set) FAIL(err, CB_E_USAGE, "init: --set goes with --family; edit %s instead", o->from);
        return CB_OK;
    }
    if (!family) FAIL(err, CB_E_USAGE, "init: --family NAME or --from config.json is missing");
    return model_default_config(config, family, o->set, err);
}

/* -1 where there is none. */
static int64_t config_id(const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static enum cb_status take_tokenizer(const struct cb_init_options *o, json_t *config, struct cb_err *err) {
    struct tokenizer *t;
    if (!o->tokenizer) return CB_OK;
    TRY(files_load_tokenizer(&t, o->tokenizer, err));
    static const char *const pads[] = {"[PAD]", "<pad>", "<|pad|>", "<PAD>"};
    int64_t size = tokenizer_size(t), eos = tokenizer_eos(t), bos = tokenizer_bos(t), pad = -1;
    for (int i = 0; i < 4 && pad < 0; i++) pad = tokenizer_id(t, pads[i]);
    tokenizer_destroy(&t);
    const json_t *old = json_object_get(config, "vocab_size");
    bool asked = o->from || (o->set && strstr(o->set, "vocab_size="));
    if (asked && json_integer_value(old) < size)
        FAIL(err, CB_E_ARGUMENT, "vocab_size %lld: the tokenizer %s has %lld ids; wanted as many or more",
             (long long)json_integer_value(old), o->tokenizer, (long long)size);
    if (!asked) json_object_set_new(config, "vocab_size", json_integer(size));
    // padding, and what a decoder begins with, are the tokenizer's own
    const int64_t old_pad = config_id(config, "pad_token_id"), old_eos = config_id(config, "eos_token_id");
    const int64_t old_start = config_id(config, "decoder_start_token_id");
    if (pad >= 0 && json_object_get(config, "pad_token_id")) json_object_set_new(config, "pad_token_id", json_integer(pad));
    if (old_start >= 0 && old_start == old_pad && pad >= 0)
        json_object_set_new(config, "decoder_start_token_id", json_integer(pad));
    else if (old_start >= 0 && old_start == old_eos && eos >= 0)
        json_object_set_new(config, "decoder_start_token_id", json_integer(eos));
    json_object_set_new(config, "eos_token_id", eos >= 0 ? json_integer(eos) : json_null());
    json_object_set_new(config, "bos_token_id", bos >= 0 ? json_integer(bos) : eos >= 0 ? json_integer(eos) : json_null());
    return CB_OK;
}

/* A folder's tokenizer as JSON; NULL where it has none that can be written so. Free with free(). */
static char *tokenizer_text(const char *folder) {
    struct tokenizer *t = NULL;
    struct cb_err ignored = {0};
    char *text = NULL;
    size_t n;
    if (files_load_tokenizer(&t, folder, &ignored) == CB_OK) tokenizer_to_json(t, &text, &n, &ignored);
    tokenizer_destroy(&t);
    return text;
}

/* Copies the tokenizer. Files without a tokenizer.json may mean another one beside this config.json: then it is written out. */
static enum cb_status copy_tokenizer(const char *from, const char *out, struct cb_err *err) {
    TRY(files_copy_tokenizer(from, out, err));
    char *own = tokenizer_text(from), *copied = tokenizer_text(out);
    const bool is_other = own && (!copied || strcmp(own, copied) != 0);
    const enum cb_status status = is_other ? files_write_text(out, "tokenizer.json", own, err) : CB_OK;
    free(own);
    free(copied);
    return status;
}

static enum cb_status write_model(struct cb_engine *engine, const struct cb_init_options *o, json_t *config, struct cb_init_result *result,
                                  struct cb_err *err) {
    struct model *model = NULL;
    struct store *store = NULL;
    enum cb_dtype dtype = dtype_by_name(o->dtype ? o->dtype : "f32");
    if (dtype != CB_DTYPE_F32 && dtype != CB_DTYPE_F16 && dtype != CB_DTYPE_BF16)
        FAIL(err, CB_E_USAGE, "--dtype %s: wanted f32, f16 or bf16", o->dtype);
    TRY(model_from_config(&model, config, o->from ? o->from : "config.json", err));
    result->parameters = model_parameters(model);
    enum cb_status status = store_create(&store, err);
    if (status == CB_OK && engine->options.memory_limit && result->parameters * 4 > engine->options.memory_limit)
        status = err_set(err, CB_E_LIMIT, __FILE__, __LINE__, "init: %lld bytes of weights; --memory allows %lld",
                         (long long)result->parameters * 4, (long long)engine->options.memory_limit);
    if (status == CB_OK) status = model_init_weights(model, store, engine->options.seed, err);
    if (status == CB_OK) status = io_mkdirs(o->out, err);
    if (status == CB_OK) status = model_save(model, store, o->out, 0, dtype, err);
    if (status == CB_OK && o->tokenizer) status = copy_tokenizer(o->tokenizer, o->out, err);
    if (status == CB_OK) status = files_write_text(o->out, "run.json", o->run_json, err);
    store_destroy(&store);
    model_destroy(&model);
    return status;
}

enum cb_status cb_init(struct cb_engine *engine, const struct cb_init_options *options, struct cb_init_result *result, struct cb_err *err) {
    json_t *config = NULL;
    *result = (struct cb_init_result){0};
    TRY(make_config(options, &config, err));
    enum cb_status status = take_tokenizer(options, config, err);
    if (status == CB_OK) status = write_model(engine, options, config, result, err);
    json_decref(config);
    return status;
}
