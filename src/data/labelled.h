/* Examples with labels, tokenised once and held in memory: texts (or pairs of texts) of a class or a number each, words of a tag each, questions whose
   answers are spans of a context, and questions with choices. */
#ifndef DATA_LABELLED_H
#define DATA_LABELLED_H
#include "base/table.h"
#include "data/records.h"
#include "text/tokenizer.h"

#define LABELLED_IGNORE (-100)  // a row or token without a label

enum labelled_kind { LABELLED_CLASS, LABELLED_NUMBER, LABELLED_TAGS, LABELLED_SPAN, LABELLED_CHOICE };

/* Names of classes or tags, in the order of their numbers. */
struct labels {
    char **name;
    int n, size;
    struct table index;  // from a name to its first number
    int64_t pad;  // the id that rows are padded with; 0 where nobody said
};
void labels_deinit(struct labels *labels);
/* -1 where there is none. */
int labels_find(const struct labels *labels, const char *name);
enum cb_status labels_add(struct labels *labels, const char *name, struct cb_err *err);

struct labelled_options {
    enum labelled_kind kind;
    struct records_options records;
    /* The model's own, of which each label must be one; a tag may be its number, where none is called by a number. Nullable: those found, in the order of
       their names or numbers. */
    const struct labels *known;
    int64_t seq;  // longer examples are cut to it
    int64_t stride;  // of LABELLED_SPAN: tokens between the windows of a longer context; 0: two thirds of a window
    int64_t pad;  // of the labels to be
    const int *sets;  // the data set of each path, from 0, not falling; NULL: all are of one
};

struct labelled;

/* Files of records of text (and text_b) with label, of tokens with tags, of context, question and answers, or of a question with choices. CB_E_FORMAT names file, line and key. Owned by caller, free with
   labelled_destroy. */
enum cb_status labelled_load(struct labelled **labelled, const char *const *paths, int n_paths, const struct tokenizer *tokenizer,
                             const struct labelled_options *options, struct cb_err *err);
void labelled_destroy(struct labelled **labelled);

struct labelled_info {
    int64_t n, longest, cut;  // examples, tokens of the longest after cutting, how many were cut
    int64_t rows;  // of a batch that an example takes: of LABELLED_CHOICE as many as the most choices, else 1
    int64_t questions, unanswered,
        lost;  // of LABELLED_SPAN, whose examples are windows: those without an answer, with none whole in any window
    bool has_pairs;
    uint64_t hash;  // of all ids and labels
};
const struct labelled_info *labelled_info(const struct labelled *labelled);
/* Examples of one data set. */
int64_t labelled_set_size(const struct labelled *labelled, int set);
/* Borrowed; empty where the labels are numbers. */
const struct labels *labelled_labels(const struct labelled *labelled);

/* Numbers among n names of the value that each row has of a field, a further string of its record; owned by caller, free(). An example with another
   value, or none, is CB_E_FORMAT. */
enum cb_status labelled_field(int32_t **numbers, const struct labelled *labelled, const char *field, const char *const *names, int n,
                              struct cb_err *err);

/* A question about a context. */
struct labelled_question {
    json_t *context, *answers, *id;  // a string; a list of strings, empty where there is no answer; NULL: none. Of the examples
};
/* Of a row of LABELLED_SPAN, a window of its context; rows of a question follow one another. Borrowed. */
const struct labelled_question *labelled_question(const struct labelled *labelled, int64_t row);
/* The bytes of the context that token t of a row is of; false where it is of something else. */
bool labelled_bytes(const struct labelled *labelled, int64_t row, int64_t t, uint32_t *begin, uint32_t *end);

#define LABELLED_FIELDS 16
/* Where a batch of B examples, in B times info.rows rows, goes, row-major; nullable: types, and those of labels that the kind does not have. */
struct labelled_batch {
    int64_t batch, seq;
    int32_t *ids, *mask, *types;  // (B rows,T)
    int32_t *labels;  // (B) of classes and choices, (B,T) of tags: the first token of each word has its tag
    float *values;  // (B) of numbers
    int32_t *start, *end;  // (B) of spans: the first and last token of the answer, 0 where the row has none
    int32_t *choices;  // (B,rows) of choices: whether there is one
    int32_t *sets;  // (B rows): the data set of each row; nullable
    int32_t pad;
    int32_t *field[LABELLED_FIELDS];  // (B rows), n_fields of them: the rows' numbers by `number`, 0 in rows of padding
    int32_t *number[LABELLED_FIELDS];  // of every row, by labelled_field
    int n_fields;
};
/* Rows [first, first + B) of an epoch after another, each in an order of its own; a pure function of seed and index. Nullable: rows, the number of the
   example in each row. */
void labelled_fill(const struct labelled *labelled, const struct labelled_batch *to, uint64_t seed, int64_t index);
/* Example `row` of a batch: what labelled_fill would give row `index` of a run on one data set alone. */
void labelled_fill_row(const struct labelled *labelled, const struct labelled_batch *to, int64_t row, int set, uint64_t seed,
                       int64_t index);
/* The same in order, from example `first` on; rows after the end are padding without labels. */
void labelled_fill_from(const struct labelled *labelled, const struct labelled_batch *to, int64_t first);
#endif
