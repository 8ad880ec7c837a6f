#!/bin/sh
# Installs into an empty folder, compares the manual page with the command, builds a small program against the library through pkg-config (shared and static),
# runs it, and uninstalls without a trace.
set -eu
: "${BUILD:=build}" "${CC:=cc}" "${MAKE:=make}"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
$MAKE --no-print-directory BUILD="$BUILD" DESTDIR="$dir/root" PREFIX=/opt/cambium install >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }

# The manual page names every verb of the command, and every option that goes with all of them.
: "${CAMBIUM:=$BUILD/cambium}"
"$CAMBIUM" --help >"$dir/help"
verbs=$(sed -n 's/^  \([a-z]*\) .*/\1/p' "$dir/help")
"$CAMBIUM" inspect --help >"$dir/help"
options=$(sed -n '/^everywhere:/,$s/^  --\([a-z-]*\) .*/\1/p' "$dir/help")
if [ -z "$verbs" ] || [ -z "$options" ]; then echo "--help lists no verbs or no options"; exit 1; fi
sed 's/\\//g' docs/cambium.1 >"$dir/page"
for verb in $verbs; do
    grep -qE "^\.B[IR]? \"?$verb( |\\\"|\$)" "$dir/page" || { echo "docs/cambium.1 does not name the verb $verb"; exit 1; }
done
for option in $options; do
    grep -qE "^\.BI? --$option( |\$)" "$dir/page" || { echo "docs/cambium.1 does not name --$option"; exit 1; }
done

cat >"$dir/hello.c" <<'C'
#include <cambium/cambium.h>
#include <stdio.h>
int main(void) {
    struct cb_err err = {0};
    struct cb_engine *engine = NULL;
    if (cb_engine_create(&engine, NULL, &err) != CB_OK) return fprintf(stderr, "%s\n", err.message), 1;
    cb_engine_destroy(&engine);
    printf("%s\n", cb_status_text(CB_OK));
    return engine != NULL;
}
C
export PKG_CONFIG_PATH="$dir/root/opt/cambium/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$dir/root"
# shellcheck disable=SC2046
$CC -std=c11 -Wall -Wextra -Werror $(pkg-config --cflags cambium) "$dir/hello.c" $(pkg-config --libs cambium) -o "$dir/hello"
[ "$(LD_LIBRARY_PATH="$dir/root/opt/cambium/lib" "$dir/hello")" = "done" ]
# The system's own libraries are not below the root, so only this library's flags get the prefix.
libs=$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --static --libs-only-l cambium | sed 's/-lcambium//')
# shellcheck disable=SC2046,SC2086
$CC -std=c11 -Wall -Wextra -Werror $(pkg-config --cflags cambium) "$dir/hello.c" "$dir/root/opt/cambium/lib/libcambium.a" $libs -o "$dir/hello_static"
[ "$("$dir/hello_static")" = "done" ]

# Both libraries show cb_* and nothing else.
for lib in "nm -D --defined-only $dir/root/opt/cambium/lib/libcambium.so" "nm -g --defined-only $dir/root/opt/cambium/lib/libcambium.a"; do
    names=$($lib | awk 'NF == 3 {print $3}')
    [ -n "$names" ] || { echo "$lib: no names"; exit 1; }
    others=$(echo "$names" | grep -v '^cb_' | head -n 5) || true
    [ -z "$others" ] || { echo "$lib: shows $others"; exit 1; }
done
readelf -d "$dir/root/opt/cambium/lib/libcambium.so" | grep -q 'SONAME.*libcambium\.so\.[0-9]*\]'

$MAKE --no-print-directory BUILD="$BUILD" DESTDIR="$dir/root" PREFIX=/opt/cambium uninstall >"$dir/log" 2>&1
left=$(find "$dir/root" ! -type d)
[ -z "$left" ] || { echo "uninstall left $left"; exit 1; }
