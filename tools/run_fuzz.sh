#!/bin/sh
# Drives libFuzzer targets one after another over their corpus: run_fuzz.sh SECONDS NAME...; findings stay in $BUILD/findings.
set -eu
seconds=$1
shift
mkdir -p "$BUILD/findings"
for name in "$@"; do
    mkdir -p "$BUILD/corpus/$name"
    kept="tests/fuzz/corpus/$name"
    [ -d "$kept" ] || kept=''
    echo "== fuzz $name for $seconds s"
    "$BUILD/fuzz/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$BUILD/findings/$name-" "$BUILD/corpus/$name" ${kept:+"$kept"}
done
