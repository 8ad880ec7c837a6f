#!/bin/sh
# Feeds a fuzz target every file of its corpus, and itself as one more: run_replay.sh PROGRAM NAME.
set -eu
program=$1 name=$2
set -- "tests/fuzz/fuzz_$name.c"
for f in "tests/fuzz/corpus/$name"/*; do
    [ -f "$f" ] && set -- "$@" "$f"
done
exec "$program" "$@"
