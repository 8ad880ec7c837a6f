/* Jinja templates as chat models ship them: parsed once, rendered within bounds of work, memory, depth and output.
   The dialect is that of Transformers: a sandbox, trim_blocks, lstrip_blocks, break and continue, {% generation %}, raise_exception, strftime_now. */
#ifndef TEXT_JINJA_H
#define TEXT_JINJA_H
#include <time.h>

#include "base/json.h"

struct jinja;  // a parsed template; immutable, any number of threads may render it

/* source: n bytes of UTF-8. name: for messages. CB_E_FORMAT is "NAME: line N: TemplateSyntaxError: ...". Owned by caller, free with jinja_destroy. */
enum cb_status jinja_parse(struct jinja **jinja, const char *source, size_t n, const char *name, struct cb_err *err);
void jinja_destroy(struct jinja **jinja);
/* Whether it holds a {% generation %} block. */
bool jinja_marks_generation(const struct jinja *jinja);

struct jinja_options {
    const struct tm *now;  // what strftime_now reads; NULL: the local time
    uint64_t max_work;  // steps of evaluation and bytes touched; 0: 1e9
    size_t max_bytes;  // of values held; 0: 256 MiB
    size_t max_output;  // 0: 64 MiB
};
/* Bytes [begin, end) of the text. */
struct jinja_span {
    size_t begin, end;
};
struct jinja_output {
    char *text;  // n bytes of UTF-8 and a NUL
    size_t n;
    struct jinja_span *span;  // of {% generation %} blocks, in the order they ended
    size_t n_spans, capacity;
};
void jinja_output_deinit(struct jinja_output *output);

/* variables: an object; its keys are the template's names, in the order of the text. What the template does wrong is CB_E_FORMAT, "NAME: line N: KIND: ...",
   where KIND is Python's (UndefinedError, TypeError, TemplateError of raise_exception, ...); over a bound: CB_E_LIMIT. Replaces *out (zero-initialise it
   first), free with jinja_output_deinit. Nullable: options. */
enum cb_status jinja_render(struct jinja_output *out, const struct jinja *jinja, const json_t *variables,
                            const struct jinja_options *options, struct cb_err *err);
#endif
