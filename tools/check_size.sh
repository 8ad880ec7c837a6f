#!/bin/sh
# Sizes: a file of more than 600 lines or a function of more than 60 is told, one of more than 800 or 120 refused unless tools/size_exceptions.txt
# names it. An exception is refused where the thing has shrunk below it: the list may only shrink.
set -eu
find src include tests bench examples -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' \) 2>/dev/null | LC_ALL=C sort | xargs awk '
BEGIN {
    file = "tools/size_exceptions.txt"
    while ((getline line < file) > 0) if (line !~ /^#/ && split(line, part, " ") == 2) allowed[part[1]] = part[2] + 0
}
function judge(what, where, lines, warn, refuse) {
    if (what in allowed) {
        if (lines > allowed[what]) { print where ": " lines " lines; its exception says " allowed[what]; bad++ }
        else if (lines < allowed[what]) { print where ": " lines " lines; lower its exception of " allowed[what]; bad++ }
        delete allowed[what]
    } else if (lines > refuse) { print where ": " lines " lines; at most " refuse; bad++ }
    else if (lines > warn) { print "warning: " where ": " lines " lines; " warn " are aimed at"; warned++ }
}
function close_file() { if (name != "" && !generated) judge(name, name, count, 600, 800) }
FNR == 1 { close_file(); name = FILENAME; generated = /[Gg]enerated/; start = 0; head = "" }
{ count = FNR }
/^#/ || /\\$/ { next }
# A definition starts at the left margin and opens its brace at the end of that line or of a continuation.
!start && /^[A-Za-z_]/ { head = $0; first = FNR }
!start && head != "" && first != FNR && /^[ \t]/ { head = head $0 }
!start && head != "" && /;[ \t]*$/ { head = "" }
!start && head != "" && /\{$/ {
    if (head ~ /\)[ \t]*\{$/ && head !~ /=/) {
        start = first; title = head; sub(/\(.*/, "", title)
        if (title == "TEST") { title = head; sub(/^TEST\(/, "", title); sub(/\).*/, "", title); gsub(/, */, ".", title) }
        sub(/.*[ *]/, "", title)
    }
    head = ""
}
start && /^\}/ { if (!generated) judge(name ":" title, name ":" start ": " title, FNR - start + 1, 60, 120); start = 0 }
END {
    close_file()
    for (what in allowed) { print "tools/size_exceptions.txt: " what " is not there any more"; bad++ }
    if (warned) print warned " warnings of size"
    exit bad > 0
}'
