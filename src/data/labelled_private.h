/* Within the files of labelled examples: how they lie in memory, and what their kinds are made of. */
#ifndef DATA_LABELLED_PRIVATE_H
#define DATA_LABELLED_PRIVATE_H
#include "data/labelled.h"

/* A row of a batch: its tokens lie in [begin, begin + n) of the lists of all. */
struct example {
    int64_t begin;
    int32_t n, label, set;  // label: of spans the first token of the answer
    float value;
    // of spans: the last token of the answer, the row's question, and which of its tokens are of the context
    int32_t end, context_begin, context_end;
    int64_t question;
};

/* A field of the records beside what is learnt: the values found, and each row's number among them, -1: none. */
struct field {
    char *name;
    struct labels values;
    int32_t *number;
    bool is_left_out;  // too many values: names of examples, free text
};
enum { FIELDS_MOST = 64, FIELD_VALUES_MOST = 256 };

struct labelled {
    enum labelled_kind kind;
    struct field field[FIELDS_MOST];
    int n_fields;
    struct labels labels;
    struct example *example;
    int64_t n_rows, examples_size;
    int32_t *ids, *types, *tags;  // of all tokens; tags of LABELLED_TAGS alone
    uint32_t *from, *to;  // of LABELLED_SPAN: the bytes of the context that a token is of; else NULL
    int64_t n_tokens, tokens_size;
    int64_t *item, items_size;  // of LABELLED_CHOICE: the first row of each example; else NULL, and rows are examples
    struct labelled_question *question;  // of LABELLED_SPAN
    int64_t questions_size;
    struct labelled_info info;
};

struct build {
    struct labelled *out;
    const struct labelled_options *o;
    struct encoder *encoder;
    struct token_list list;
    struct token_windows windows;
    int set;  // of the file that is being read
    bool takes_numbers;  // whole numbers are numbers of the known tags, which are words
    struct labels seen;  // labels in the order of their first sight; examples hold these numbers until the end
};

/* Room for a further row of so many tokens. */
enum cb_status labelled_grow(struct labelled *labelled, int64_t tokens, struct cb_err *err);
/* How many tokens of each sequence a row of seq has room for beside the post-processor's. What is too long loses its end: the longer of a pair until both are as
   long, or the first while there is any of it. */
void labelled_rooms(int64_t keep[2], const struct token_list *list, int64_t seq, bool first_gives_way);
/* A row of the encoder's tokens, of sequence i the first keep[i]. Nullable: tags, one a token. */
enum cb_status labelled_row_add(struct build *b, const int64_t keep[2], const int32_t *tags, int32_t label, float value,
                                struct cb_err *err);
/* Strings of a record that are not learnt become fields of the last n rows. */
enum cb_status labelled_fields_keep(struct labelled *labelled, const struct record *record, int64_t n, struct cb_err *err);

/* labelled_span.c, labelled_choice.c: the rows of a record. */
enum cb_status labelled_add_span(struct build *b, const struct record *r, const char *where, struct cb_err *err);
enum cb_status labelled_add_choice(struct build *b, const struct record *r, const char *where, struct cb_err *err);
#endif
