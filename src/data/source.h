/* Text inputs: files, folders and standard input, plain text or records (data/reader.h), .gz or .zst, as documents in pieces of bounded size. */
#ifndef DATA_SOURCE_H
#define DATA_SOURCE_H
#include "base/err.h"
#include "data/records.h"
#include "text/chat.h"

struct source_options {
    enum data_invalid invalid;
    size_t piece_bytes;  // the longest piece of plain text, at least 16; 0: 1 MiB. Records are never cut.
    struct records_options records;  // columns and separator; invalid is the one above
    const struct chat *chat;  // makes text of conversations; nullable
    bool needs_chat;  // conversations without a template are refused; else their messages follow one another as plain lines
    bool takes_ids;  // records of input_ids are pieces; else they are refused, being no text
    bool is_chat;  // prompts with completions are conversations too, and text is none
    void *user;
    void (*warn)(void *user, const char *line);  // nullable
    void (*note)(void *user, const char *line);  // nullable: what was found in files of records, and left out
};

/* A stretch of a document. */
struct source_piece {
    const char *file;
    const char *text;  // n bytes of UTF-8, may hold NUL. Of a record with a prompt: its completion
    size_t n;
    const char *prompt;  // not learnt; NULL where there is none
    size_t n_prompt;
    const struct jinja_span *learnt;  // of a conversation: bytes of text that are learnt, n_learnt of them; NULL: all
    size_t n_learnt;
    // of a record that is tokenised: ids of at least 0, and as many labels, -100 not learnt; its text is NULL. Nullable: labels
    const json_t *ids, *labels;
    bool begins, ends;  // the document; a piece that does not end one is cut after a line where there is one
    int64_t line;  // of a record, else 0
    const char *unit;  // what line counts
};

struct source_file {
    char *path;  // "-": standard input
    const struct reader_kind *reader;  // of records; NULL: text
    bool is_listed;  // found in a folder, not named itself
    bool is_regular;
    int64_t bytes, mtime_ns;  // 0 unless regular
};

struct source;

/* Lists the inputs in the order given, folders sorted by name; names that begin with a dot are passed over. A path that is absent is
   CB_E_IO. Owned by caller, free with source_close. */
enum cb_status source_open(struct source **source, const char *const *paths, int n_paths, const struct source_options *options,
                           struct cb_err *err);
void source_close(struct source **source);
/* The next piece, borrowed until the next call; *piece NULL at the end. A named file without text, and inputs without any, are CB_E_FORMAT. In folders,
   files that are not text are left out, with one warning at the end. */
enum cb_status source_next(struct source *source, const struct source_piece **piece, struct cb_err *err);

/* What was listed, before anything is left out. */
const struct source_file *source_files(const struct source *source, int64_t *n);
/* Bytes on disk of all files, and of those that were read: for progress. */
int64_t source_bytes(const struct source *source);
int64_t source_bytes_done(const struct source *source);
#endif
