/* A conversation on a terminal, or line by line. */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H
#include "cli/cli.h"

/* Talks until standard input ends. system: nullable. With a terminal: /reset forgets, /exit ends, Ctrl-C stops an answer. Else one message a line, or a whole
   JSON list of messages (or object with them), of which the last is answered. */
enum cb_status cli_chat(struct cli *cli, struct cb_generate_options *options, const char *system, struct cb_err *err);
#endif
