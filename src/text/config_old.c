/* What Transformers wrote beside a vocabulary before tokenizer_config.json had added_tokens_decoder: special_tokens_map.json and added_tokens.json. */
#include <stdio.h>

#include "text/config.h"

/* {text: entry} of the special tokens. Owned by caller; NULL when out of memory. */
static json_t *specials_index(const json_t *config) {
    json_t *out = json_object(), *item;
    size_t i;
    int bad = !out;
    json_array_foreach(json_object_get(config, "additional_special_tokens"), i, item) {
        const char *text = config_item(item).text;
        bad |= text && json_object_set(out, text, item);
    }
    for (const char *const *key = config_special_keys; *key; key++) {
        const char *text = config_text(config, *key).text;
        bad |= text && json_object_set(out, text, json_object_get(config, *key));
    }
    if (!bad) return out;
    json_decref(out);
    return NULL;
}

/* Keys of the map win; lists of additional tokens are joined. */
static int map_over(json_t *config, const json_t *map) {
    static const char list_key[] = "additional_special_tokens";
    const char *key;
    json_t *value;
    int bad = 0;
    json_object_foreach((json_t *)(uintptr_t)map, key, value) {
        if (strcmp(key, list_key) != 0 || !json_is_array(value)) {
            bad |= json_object_set(config, key, value);
            continue;
        }
        const json_t *own = json_object_get(config, list_key);
        json_t *list = json_is_array(own) ? json_copy((json_t *)(uintptr_t)own) : json_array();
        bad |= json_array_extend(list, value);
        bad |= json_object_set_new(config, list_key, list);
    }
    return bad;
}

/* {text: id} as added_tokens_decoder: those that are special as these are told, the others after normalising. */
static enum cb_status decoder_make(json_t *config, const json_t *added, const char *name, struct cb_err *err) {
    json_t *decoder = json_object(), *specials = specials_index(config), *value;
    const char *text;
    int bad = !decoder || !specials;
    json_object_foreach((json_t *)(uintptr_t)added, text, value) {
        char key[24];
        const json_t *special = json_object_get(specials, text);
        if (!json_is_integer(value)) {
            char found[JSON_TEXT];
            json_decref(decoder), json_decref(specials);
            FAIL(err, CB_E_FORMAT, "%s: added_tokens.json: \"%.60s\": found %s; wanted an id", name, text, json_text(value, found));
        }
        snprintf(key, sizeof key, "%lld", (long long)json_integer_value(value));
        bad |= json_object_set_new(decoder, key,
                                   json_pack("{sssbsbsbsbsb}", "content", text, "special", special != NULL, "normalized", !special,
                                             "single_word", config_flag(special, "single_word", false), "lstrip",
                                             config_flag(special, "lstrip", false), "rstrip", config_flag(special, "rstrip", false)));
    }
    bad |= json_object_set_new(config, "added_tokens_decoder", decoder);
    json_decref(specials);
    if (bad) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    return CB_OK;
}

enum cb_status config_with_old(json_t **out, const json_t *config, const json_t *map, const json_t *added, const char *name,
                               struct cb_err *err) {
    *out = config ? json_copy((json_t *)(uintptr_t)config) : json_object();
    if (*out && json_object_get(*out, "added_tokens_decoder")) return CB_OK;
    enum cb_status status = CB_OK;
    if (!*out || map_over(*out, map)) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", name);
    if (status == CB_OK && added) status = decoder_make(*out, added, name, err);
    if (status == CB_OK) return CB_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}
