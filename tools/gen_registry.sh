#!/bin/sh
# Writes a registry list from file names: gen_registry.sh MACRO PREFIX FILE...  gives one "MACRO(name)" line a file, sorted.
set -eu
macro=$1 prefix=$2
shift 2
for f in "$@"; do basename "$f" .c | sed "s/^$prefix//"; done | LC_ALL=C sort | sed "s/.*/$macro(&)/"
