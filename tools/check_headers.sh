#!/bin/sh
# Every header compiles alone as C11, the public ones as C++ too: check_headers.sh BUILD. *_body.h are templates, included with their macros set.
set -u
build=$1
cc=${CC:-cc}
cxx=''
for c in c++ g++ clang++; do command -v "$c" >/dev/null 2>&1 && cxx=$c && break; done
[ -n "$cxx" ] || echo "no C++ compiler: public headers were checked as C only"
bad=0
for header in include/cambium/*.h $(find src -name '*.h' ! -name '*_body.h' | LC_ALL=C sort) tests/harness.h; do
    isa=''
    case $header in
        *_avx512.h | *_x86.h) isa='-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c' ;;
        *_avx2.h) isa='-mavx2 -mfma -mf16c' ;;
        *_neon.h) continue ;;
    esac
    # shellcheck disable=SC2086
    echo "#include \"$header\"" | $cc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla -Werror $isa -I. -Iinclude -Isrc \
        -I"$build" -Itests -fsyntax-only -x c - || { echo "$header: does not compile alone"; bad=1; }
    case $header in
        include/*)
            [ -z "$cxx" ] || echo "#include \"$header\"" | $cxx -Wall -Wextra -Werror -I. -Iinclude -fsyntax-only -x c++ - ||
                { echo "$header: does not compile as C++"; bad=1; }
            ;;
    esac
done
exit $bad
