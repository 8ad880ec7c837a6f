#!/bin/sh
# All checks of the text and of the object files, one after another; names what failed. Environment: BUILD, CC.
set -u
failed=''
check() {
    name=$1
    shift
    "$@" || failed="$failed $name"
}
format() { git ls-files --cached --others --exclude-standard '*.c' '*.h' | while read -r f; do [ -f "$f" ] && echo "$f"; done | xargs clang-format --dry-run -Werror; }
check layers tools/check_layers.sh
check size tools/check_size.sh
check globals tools/check_globals.sh "$BUILD"
check headers tools/check_headers.sh "$BUILD"
check text tools/check_text.sh
if command -v clang-format >/dev/null 2>&1; then check format format; else echo "no clang-format: the layout was not checked"; fi
if command -v shellcheck >/dev/null 2>&1; then
    # shellcheck disable=SC2046
    check shell shellcheck -S warning $(find tools tests .ci -name '*.sh' -o -path '.ci/run')
fi
[ -z "$failed" ] || { echo "lint: failed:$failed"; exit 1; }
echo "lint: all checks hold"
