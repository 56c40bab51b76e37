#!/usr/bin/env bash
# Runs clang-tidy with the checks of .clang-tidy. Usage: lint.sh BUILD [FILE...]; without files: every torch-free source of
# the product (files that include LibTorch take minutes each: name them to check them).
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
shift
tool=$(command -v clang-tidy-19 || command -v clang-tidy) || { echo "lint: clang-tidy-19 is missing (make setup)" >&2; exit 1; }
files=("$@")
if [ ${#files[@]} = 0 ]; then
  mapfile -t files < <(git ls-files -- 'common/athanor/base/*.cc' 'common/athanor/config/*.cc' 'common/service/*.cc' \
    'server/*.cc' 'client/*.cc' 'worker/agent/*.cc')
fi
# The precompiled header is GCC's; clang reads the text of the header instead.
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "${JOBS:-$(nproc)}" \
  "$tool" -p "$build" --quiet --extra-arg=-Wno-ignored-gch --extra-arg=-Wno-unknown-warning-option 2>&1 | grep -vE '^[0-9]+ warnings generated' || [ "${PIPESTATUS[1]}" = 0 ]
echo "lint: ${#files[@]} files clean"
