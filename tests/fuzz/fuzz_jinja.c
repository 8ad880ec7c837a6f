/* Fuzz target: any bytes as a chat template, and, behind a line of the variables' JSON, as a template with them; what renders is valid UTF-8 with spans inside. */
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void render(const char *source, size_t n, const json_t *variables) {
    struct cb_err err = {0};
    struct jinja *jinja;
    struct jinja_output out = {0};
    struct jinja_options o = {.max_work = 3000000, .max_bytes = (size_t)32 << 20, .max_output = 1 << 20};
    enum cb_status status = jinja_parse(&jinja, source, n, "fuzz", &err);
    if (status == CB_OK) status = jinja_render(&out, jinja, variables, &o, &err);
    if (status != CB_OK && (!err.code || !err.message[0])) __builtin_trap();
    if (status == CB_OK && utf8_check(out.text, out.n) != out.n) __builtin_trap();
    for (size_t i = 0; i < out.n_spans; i++)
        if (out.span[i].begin > out.span[i].end || out.span[i].end > out.n) __builtin_trap();
    jinja_output_deinit(&out);
    jinja_destroy(&jinja);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    static const char usual[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\" Sei kurz \\u00df \"},{\"role\":\"user\",\"content\":\"a,b "
        "c\"},{\"role\":\"assistant\",\"content\":null,"
        "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1.5,\"y\":[true,null]}}}]}],\"tools\":[],\"add_generation_"
        "prompt\":true,\"x\":-7,\"bos_token\":\"<s>\"}";
    const char *text = (const char *)bytes, *line = n ? memchr(text, '\n', n) : NULL;
    json_t *own = NULL, *variables = json_loads(usual, 0, NULL);
    if (line && text[0] == '{') own = json_loadb(text, (size_t)(line - text), 0, NULL);
    if (json_is_object(own))
        render(line + 1, n - (size_t)(line + 1 - text), own);
    else
        render(text, n, variables);
    json_decref(own);
    json_decref(variables);
    return 0;
}
