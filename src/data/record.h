/* Records: objects that hold something to learn from, in the shapes that data sets come in; told by their keys and checked in full. */
#ifndef DATA_RECORD_H
#define DATA_RECORD_H
#include "base/json.h"

/* What a record is. All records of a file have one shape. */
enum record_shape {
    RECORD_TEXT,  // text
    RECORD_PROMPT,  // prompt, completion
    RECORD_MESSAGES,  // messages: a list of {role, content}; or prompt and completion that are such lists
    RECORD_ALPACA,  // instruction, output (or response), input where there is one
    RECORD_SHAREGPT,  // conversations: a list of {from, value}
    RECORD_IDS,  // input_ids (or ids), labels of the same length where there are any
    RECORD_LABEL,  // text, label: an integer, float or string, the same kind throughout
    RECORD_TAGS,  // tokens: a list of words, and a list of tags of the same length
    RECORD_QUESTION,  // context, question, answers: an object of lists text and answer_start (in characters), or a list of such pairs; none: no answer
    RECORD_CHOICE,  // text, question or sent1 (or several of them), choices: a list of texts, label: the number of the right one, from 0
    RECORD_PIXELS,  // pixels: rows of numbers (of channels), and a label where there is one
    RECORD_SHAPES,
};
#define RECORD_CHOICES_MOST 1024  // of a question; answers too
/* The keys in words: "text", "prompt and completion", ... */
const char *record_shape_text(enum record_shape shape);
/* Whether a key belongs to a shape; others are left out. */
bool record_uses(enum record_shape shape, const char *key);

/* Strings may hold NUL. text: of RECORD_TEXT and RECORD_LABEL, or the completion of RECORD_PROMPT; NULL for other shapes. */
struct record {
    enum record_shape shape;
    int64_t line;  // or row, from 1
    const char *unit;  // what line counts: "line", "record", "row", "entry"
    bool is_answered;  // of shapes with turns: an assistant speaks
    const char *prompt, *text;
    size_t n_prompt, n_text;
    const json_t *object;  // the whole record
};

/* The tags of RECORD_TAGS: tags, or ner_tags as many data sets call them; borrowed, NULL where there are none. *key: which. */
const json_t *record_tags(const json_t *object, const char **key);
/* The keys of an object in words, the first of many; returns text. */
#define RECORD_KEYS 400
const char *record_keys(const json_t *object, char text[RECORD_KEYS]);
/* The shape that the keys tell; CB_E_FORMAT names those that were found. */
enum cb_status record_shape_find(enum record_shape *shape, const json_t *object, const char *where, struct cb_err *err);

/* What the records of one file so far agreed on. Zero-initialise. */
struct record_checker {
    int64_t n, first_line;
    enum record_shape shape;
    json_type label;
};
/* Finds the shape of record->object (line is set) and checks it in full; anything malformed is CB_E_FORMAT, "WHERE: KEY: found X; wanted Y". */
enum cb_status record_check(struct record_checker *checker, struct record *record, const char *where, struct cb_err *err);

/* The conversation that a record is: a list of {role, content}, of shapes with turns, and of a prompt with its completion. *messages: owned by caller,
   json_decref. *tools: nullable, owned likewise. A shape without turns is CB_E_UNSUPPORTED. */
enum cb_status record_messages(json_t **messages, json_t **tools, const struct record *record, const char *where, struct cb_err *err);
#endif
