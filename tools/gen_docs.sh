#!/bin/sh
# Writes docs/ops.md from the program itself: gen_docs.sh COMMAND.
set -eu
command=$1
mkdir -p docs
"$command" list ops --markdown >docs/ops.md.new
mv docs/ops.md.new docs/ops.md
