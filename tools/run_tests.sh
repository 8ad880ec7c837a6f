#!/bin/sh
# Runs the built tests from the project's root and ends with "tests: N passed, M failed": run_tests.sh [SUITES], a pattern for the plain runner.
set -u
log=$BUILD/test.log
passed=0 failed=0
: >"$log"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}" TSAN_OPTIONS="${TSAN_OPTIONS:-exitcode=66}"

# ---- the test program: its own count, and one failure more where it ended in any other way
if [ -n "${PLAIN:-}" ]; then
    set -- "$BUILD/test" "$@"
else
    set -- "$BUILD/test" "-j${TEST_JOBS:-2}" --short-filename
fi
{ "$@" 2>&1; echo "exit status $?" >"$BUILD/test.status"; } | tee -a "$log"
line=$(grep 'Synthesis: Tested: ' "$log" | tail -n 1)
number() { echo "$line" | sed -n "s/.*$1: \([0-9]*\).*/\1/p"; }
if [ -n "$line" ]; then
    passed=$(number Passing)
    failed=$(($(number Tested) - passed))
    [ "$(cat "$BUILD/test.status")" = "exit status 0" ] || [ "$failed" -gt 0 ] || failed=1
    [ "$(number Tested)" -gt 0 ] || { echo "no test was found"; failed=1; }
else
    echo "the test program ended without a summary: $(cat "$BUILD/test.status")"
    failed=1
fi
# What a sanitizer wrote without failing its test (leaks at exit).
reports=$(grep -c '^SUMMARY: [A-Za-z]*Sanitizer' "$log")
[ "$reports" = 0 ] || { echo "$reports sanitizer reports, see $log"; failed=$((failed + reports)); }

# ---- parts that are programs and scripts of their own
part() {
    echo "== $1"
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $*"; fi
}
if [ -z "${PLAIN:-}" ]; then
    for program in "$BUILD"/replay/*; do
        [ -x "$program" ] || continue
        name=$(basename "$program")
        [ -f "tests/fuzz/fuzz_$name.c" ] && part "replay of fuzz corpus: $name" tools/run_replay.sh "$program" "$name"
    done
    for script in tests/*/test_*.sh; do
        [ -f "$script" ] || continue
        # The installed library is checked once, without sanitizers.
        case "$script" in tests/install/*) [ -z "${SANITIZE:-}" ] || continue ;; esac
        CAMBIUM=$BUILD/cambium part "$script" sh "$script"
    done
fi
echo "tests: $passed passed, $failed failed"
[ "$failed" = 0 ]
