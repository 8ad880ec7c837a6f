#!/bin/sh
# Checks every #include of src against tools/layers.txt: edges, the order of the rooms, and that includes are written from src.
set -eu
find src -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' \) | LC_ALL=C sort | xargs awk '
BEGIN {
    file = "tools/layers.txt"
    while ((getline line < file) > 0) {
        if (line ~ /^#/ || line == "") continue
        room = line; sub(/:.*/, "", room); sub(/^[^:]*:/, "", line)
        n = split(line, to, " ")
        for (i = 1; i <= n; i++) {
            above = to[i]; if (above ~ /\.h$/) sub(/\/[^\/]*$/, "", above)
            if (!(above in known)) { print file ": " room " names " to[i] ", which does not stand above it"; bad++ }
            may[room, to[i]] = 1
        }
        known[room] = 1
    }
}
FNR == 1 { room = FILENAME; sub(/^src\//, "", room); sub(/\/[^\/]*$/, "", room)
    if (!(room in known)) { print FILENAME ": room " room " is not in tools/layers.txt"; bad++ } }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    path = $0; sub(/^[^"]*"/, "", path); sub(/".*/, "", path)
    target = path
    if (path ~ /(^|\/)\.\.?\// || !sub(/\/[^\/]*$/, "", target)) {
        print FILENAME ":" FNR ": include \"" path "\" is not written from src"; bad++; next
    }
    if (target != room && !((room, target) in may) && !((room, path) in may)) {
        print FILENAME ":" FNR ": " room " may not include " path; bad++
    }
}
/^[ \t]*#[ \t]*include[ \t]*<cambium\// && !/<cambium\/base\.h>/ && !((room, "cambium") in may) {
    print FILENAME ":" FNR ": " room " may include no public header but base.h"; bad++
}
END { exit bad > 0 }'
