#!/bin/sh
# Installs the Debian packages that are missing: setup.sh build|test|lint|all [--optional]. Does nothing (and needs no network) when all is there.
set -eu
stage=${1:-all}
missing='' why=''

# need PACKAGE REASON: called where a probe has failed.
need() { missing="$missing $1" why="$why
  $1: $2"; }
has_command() { command -v "$1" >/dev/null 2>&1; }
# has_header HEADER: the compiler finds it.
# $compile may be several words: a launcher (ccache), the compiler, its options.
has_header() { echo "#include <$1>" | $compile -E - >/dev/null 2>&1; }
compile=${CC:-cc}
cc=${compile%% *}

# ---- what each stage needs
has_command make || need make "reads the Makefile"
if ! has_command "$cc"; then
    case "$cc" in clang*) need clang "the C compiler that was asked for" ;; *) need gcc "the C compiler" ;; esac
    has_command gcc && cc=gcc compile=gcc
fi
if has_command "$cc"; then
    has_header stdio.h || need libc6-dev "headers of the C library"
fi
library() {
    if ! has_command "$cc" || ! has_header "$1"; then need "$2" "$3"; fi
}
library jansson.h libjansson-dev "reads and writes JSON"
library yaml.h libyaml-dev "reads recipes of merges"
library lapacke.h liblapacke-dev "singular values and linear equations of large matrices"
library zlib.h zlib1g-dev "reads .gz texts"
library zstd.h libzstd-dev "reads .zst texts"
library oniguruma.h libonig-dev "patterns of tokenizer.json"
library utf8proc.h libutf8proc-dev "Unicode normalisation and classes"
if [ "$stage" != build ]; then
    library criterion/criterion.h libcriterion-dev "runs the tests"
    has_command pkg-config || need pkg-config "checks the installed library as a program would find it"
fi
# The second compiler, the formatter and the shell checker are used where they are; CI asks for them.
if [ "$stage" = all ] || [ "${2:-}" = --optional ]; then
    has_command clang || need clang "second compiler, fuzzing"
    # clang only recommends its runtime of sanitizers and fuzzing, by its own version
    if ! echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | clang -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null; then
        version=$({ clang -dumpversion || apt-cache depends clang; } 2>/dev/null | sed -n 's/^.*Depends: clang-\([0-9]*\)$/\1/p; s/^\([0-9]*\)\..*/\1/p' | head -n 1)
        need "libclang-rt-${version:-14}-dev" "clang's runtime of sanitizers and fuzzing"
    fi
    has_command clang-format || need clang-format "checks the layout of the code"
    has_command shellcheck || need shellcheck "checks the scripts"
    has_command g++ || has_command clang++ || need g++ "checks that public headers serve C++"
fi
[ -n "$missing" ] || exit 0

# ---- say it, then do it
echo "Missing packages, to be installed with apt-get:$why" >&2
if ! has_command apt-get; then
    echo "setup: no apt-get here; install what corresponds to:$missing" >&2
    exit 1
fi
as_root=''
if [ "$(id -u)" != 0 ]; then
    has_command sudo || { echo "setup: not root and no sudo; as root: apt-get install$missing" >&2; exit 1; }
    as_root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$as_root apt-get install -y --no-install-recommends $missing >&2 || {
    $as_root apt-get update >&2
    $as_root apt-get install -y --no-install-recommends $missing >&2
}
