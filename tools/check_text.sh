#!/bin/sh
# Small rules of the text: names, first lines, the rooms' pages, no file twice, nothing unfinished, no path of one machine.
set -u
bad=0
tell() { [ -z "$2" ] || { printf '%s:\n%s\n' "$1" "$2"; bad=1; }; }
code=$(find src include tests bench examples -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' \) 2>/dev/null | LC_ALL=C sort)

tell "name that says nothing" "$(echo "$code" | grep -E '(^|[/_])(utils?|helpers?|misc|common)\.[ch]$')"
tell "first line is no comment of purpose" "$(for f in $code; do head -n 1 "$f" | grep -qE '^(//|/\*) *[A-Za-z0-9`*_]' || echo "$f"; done)"
# shellcheck disable=SC2086
tell "the same file twice" "$(md5sum $code | sort | uniq -D -w 32)"
tell "room without a README.md" "$(for d in $(find src -name '*.c' -exec dirname {} \; | sort -u); do [ -f "$d/README.md" ] || echo "$d"; done)"
tell "README.md of more than 40 lines" "$(find src -name README.md -exec awk 'END { if (NR > 40) print FILENAME }' {} \;)"
# The patterns are broken up so that they do not find themselves.
tell "unfinished by its own words" "$(grep -nIiwE 'TO''DO|FIX''ME|X''XX|not imple''mented|unimple''mented|st''ub|place''holder|for n''ow' -r src include tests tools bench examples 2>/dev/null)"
tell "path of one machine" "$(git ls-files 2>/dev/null | grep -v '^LICENSE$' | xargs grep -nIE '(^|[^a-zA-Z])/(work|ro''ot|home/[a-z]+)/' 2>/dev/null)"
tell "tests use the words of tests/harness.h" "$(grep -nE '\bcr_[a-z]+\(|\bTest\(' -r tests --include='*.c' | head)"
tell "environment read outside api" "$(grep -nE '\b(secure_)?getenv\(' -r src | grep -v '^src/api/')"
tell "typedef with _t" "$(grep -nE '^typedef .*_t;' -r src include)"
exit $bad
