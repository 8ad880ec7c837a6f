/* A trie of byte strings in memory of the caller's. */
#ifndef TEXT_TRIE_H
#define TEXT_TRIE_H
#include <stddef.h>
#include <stdint.h>

struct trie_node {
    int32_t child, next;  // first child, next sibling; 0: none
    int32_t id;  // of the string that ends here, -1: none
    unsigned char byte;
};
/* Zero-initialise, then give node room for one more than all bytes of all strings. Node 0 is the root, whose children are in a table. */
struct trie {
    struct trie_node *node;
    int32_t n_nodes;
    int32_t root[256];
};

/* The child of a node by a byte; 0: none. */
static inline int32_t trie_child(const struct trie *trie, int32_t at, unsigned char byte) {
    if (!at) return trie->root[byte];
    int32_t child = trie->node[at].child;
    while (child && trie->node[child].byte != byte) child = trie->node[child].next;
    return child;
}

static inline void trie_add(struct trie *trie, const char *text, size_t n, int32_t id) {
    int32_t at = 0;
    if (!trie->n_nodes) trie->n_nodes = 1;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text[i];
        int32_t child = trie_child(trie, at, byte);
        if (!child) {
            child = trie->n_nodes++;
            trie->node[child] = (struct trie_node){.id = -1, .byte = byte};
            if (!at)
                trie->root[byte] = child;
            else
                trie->node[child].next = trie->node[at].child, trie->node[at].child = child;
        }
        at = child;
    }
    if (at) trie->node[at].id = id;
}
#endif
