#!/usr/bin/env bash
# Runs the tests of a build folder and ends with one line: "N passed, N failed, N skipped".
# Usage: run_tests.sh BUILD [ctest arguments]
set -uo pipefail
build=$1
shift
log="$build/tests.log"
ctest --test-dir "$build" --output-on-failure --no-tests=error -j "${TEST_JOBS:-2}" "$@" 2>&1 | tee "$log" | grep -vE '^ +Start +[0-9]+:'
code=${PIPESTATUS[0]}
passed=$(grep -cE '^ *[0-9]+/[0-9]+ Test .* Passed ' "$log")
skipped=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*(Skipped|Not Run)' "$log")
failed=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*' "$log")
failed=$((failed - skipped))
printf '\n'
[ "$code" = 0 ] || [ "$failed" != 0 ] || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
exit "$code"
