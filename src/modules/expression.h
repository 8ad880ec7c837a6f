/* Expressions over modules: "stack(ru, 0.5*qa)", read from text or from an adapter_setup.json into a tree whose leaves are folders. */
#ifndef MODULES_EXPRESSION_H
#define MODULES_EXPRESSION_H
#include "base/arena.h"
#include "base/json.h"

struct block;

enum { EXPRESSION_DEPTH = 24, EXPRESSION_NODES = 4096, BLOCK_MAX_OPTIONS = 4 };

/* A module, or a block of them. Everything lies in the arena that it was read into. */
struct expression {
    const struct block *block;  // NULL: a module, or with path NULL the base, which changes nothing
    const char *path;  // of a module's folder or file
    const char *head;  // a folder of a head that the module is to bring; NULL: its own, if any
    const char *name;  // of a module, for what it gives: "logits.<name>"
    int own;  // the same of the block's own parameters
    int module;  // a number that the caller gives to a module; -1: none yet
    double weight;  // what a block is weighed with, or its parent weighs it with; 1 where nothing stood before it
    double scale;  // of a module at run time
    int n;
    struct expression **child;
    const char *folder;  // of the block's own parameters; NULL: none
    const char *field;  // by which rows are routed, and each child's value of it; NULL: not by a field
    const char **value;
    int n_numbers;
    int64_t *number;  // after the ';'
    double option[BLOCK_MAX_OPTIONS];  // the block's options, in the order of its list
    const char **fields;  // of the whole: FIELD and VALUE in turn, n_fields pairs, of what all rows have
    int n_fields;
    bool is_library;  // as the adapters library reads it: an average is divided by the number of children once more
    bool keeps_weights;  // avg: the weights are not made to sum to 1
};

/* Reads text: an expression, which may be preceded by lines NAME=EXPRESSION whose names it, and they, may use, and lines @FIELD=VALUE of what all rows
   have: what routes by such a field becomes the value's module. what: says in messages where the text is from. Folders that hold an adapter_setup.json become what that says. */
enum cb_status expression_parse(struct expression **out, struct arena *arena, const char *text, const char *what, struct cb_err *err);
/* Whether it is a module, or a sum of modules and sums: then its modules can be folded into the weights one after the other. */
bool expression_is_sum(const struct expression *e);

/* setup.c: the tree of FOLDER/adapter_setup.json (Poth et al. 2023, the adapters library's save_adapter_setup), its modules being folders beside it. A head
   in a folder of its own goes with the first module. Nullable: *heads, the folders of prediction heads, NULL-ended. */
enum cb_status setup_read(struct expression **out, const char *const **heads, struct arena *arena, const char *folder, struct cb_err *err);
bool setup_is_folder(const char *folder);
/* Writes FOLDER/adapter_setup.json: modules by their names, which are those of the folders beside it. */
enum cb_status setup_write(const struct expression *e, const char *const *heads, const char *folder, struct cb_err *err);

/* Name of the input, i32 a row, that holds the number of the child which a choosing block takes: "task_ids", or "route.<field>:<value>,..." with the
   number of the value; others: none. In arena; NULL where memory is short. */
const char *expression_input(const struct expression *e, struct arena *arena);
/* The block of a name of the language, or of its type in adapter_setup.json; NULL where unknown. */
const struct block *block_find(const char *name, size_t n);
const struct block *block_of_type(const char *type);
/* Numbers and children against each other, once they are read. where: for messages. */
enum cb_status block_check(struct expression *e, const char *where, struct cb_err *err);

/* How a block is written, and what it does (compose.c). */
struct compose;
struct compose_join;
struct cb_tensor;
struct block_option {
    const char *name;
    double value, low, high;  // value: where it is not given
    bool is_whole;
};
struct block {
    const char *name, *type;  // in the language; in adapter_setup.json, NULL: none
    const char *syntax, *doc;
    bool takes_folder;  // a folder stands first, before a ';'
    bool takes_field;  // by=FIELD stands there, and children are VALUE=...
    bool takes_numbers;  // whole numbers after a last ';'
    bool takes_options;  // KEY=VALUE there
    const struct block_option *options;  // KEY=NUMBER there, ended by a NULL name; NULL: none
    bool weighs;  // weights before children are the block's own
    bool by_rows;  // each child has rows of the batch of its own
    bool replicates;  // every row of the input is given to each child
    bool chooses;  // by a number that each row has in an input
    bool adds;  // its children act in place, one after the other, and pass weights on
    bool brings_head;  // its own weights do: children come without theirs
    bool drops;  // its children are not in the first layers, as many as its number says
    bool is_lone;  // where one child alone has a site it acts in place
    /* Checks and completes the numbers; NULL: nothing to do. */
    enum cb_status (*check)(struct expression *e, const char *where, struct cb_err *err);
    /* What becomes of y; x: the site's input. */
    struct cb_tensor *(*apply)(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y);
    /* The same where an output joins the residual stream; NULL: it has no meaning there. */
    void (*flow)(struct compose_join *j, const struct expression *e);
};
const struct block *blocks(int *n);
#endif
