#!/usr/bin/env bash
# Formats every C++ source with clang-format, or with --check only names those that are not formatted.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(command -v clang-format-19 || command -v clang-format) || { echo "format: clang-format-19 is missing (make setup)" >&2; exit 1; }
mapfile -t files < <(git ls-files -co --exclude-standard -- '*.cc' '*.h')
if [ "${1:-}" = --check ]; then
  "$tool" --dry-run --Werror "${files[@]}"
else
  "$tool" -i "${files[@]}"
fi
