#!/bin/sh
# Reads the object files: no writable data outside functions (tables that only need relocation are constant), and exit or abort called by the
# command's main alone: check_globals.sh BUILD.
set -eu
build=$1
find "$build/src" "$build/gen" -name '*.o' | LC_ALL=C sort >"$build/objects.txt"
[ -s "$build/objects.txt" ] || { echo "check_globals: $build holds no object files"; exit 1; }
bad=0
while read -r object; do
    source=${object#"$build"/}
    source=${source%.o}.c
    # objects of files that are gone
    case $source in gen/*) ;; *) [ -f "$source" ] || continue ;; esac
    # columns: value, flags, section, size, name; .data.rel.ro holds constant tables with addresses
    found=$(objdump -t "$object" | awk '/\.data\.rel\.ro/ {next} / O (\.data|\.bss)/ || / \.t(data|bss)\t/ && !/ d / || /\*COM\*/ {print $NF}')
    for name in $found; do
        echo "$source: '$name' is writable data outside a function; keep state in a struct that the caller owns"
        bad=1
    done
    [ "$source" != src/cli/main.c ] || continue
    for name in $(nm -u "$object" | awk '$2 ~ /^(exit|abort|_exit|_Exit|quick_exit)$/ {print $2}'); do
        echo "$source: calls $name; return a status"
        bad=1
    done
done <"$build/objects.txt"
exit $bad
