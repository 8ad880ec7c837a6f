#!/bin/sh
# For scripts to read: the command, a folder of its own with a text and a tokenizer, and how calls are told that should have worked; $failed at the end.
# shellcheck disable=SC2034
set -eu
: "${BUILD:=build}"
cambium=$(realpath "${CAMBIUM:-$BUILD/cambium}")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir"
failed=0
say() {
    echo "FAILED: $*"
    failed=1
}
right() { "$cambium" "$@" >out 2>err </dev/null || say "cambium $*: $(cat err)"; }

i=0
while [ $i -lt 300 ]; do echo "the quick brown fox jumps over the lazy dog $i"; i=$((i + 1)); done >text
right tokenizer train text --vocab 300 --out tok
