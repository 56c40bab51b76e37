#!/usr/bin/env python3
"""Habits of docs/CONTRIBUTING.md, enforced: one line per breach, exit code 1 when there is any.

Usage: tidy.py SOURCE_DIR [BUILD_DIR]     (with a build folder: every source and every test must be in the build)
"""

import json
import pathlib
import re
import subprocess
import sys

FILE_LINES = 500
FUNCTION_LINES = 70
COLUMNS = 120
BANNED_NAMES = re.compile(r"(^|[_/.-])(util|utils|helper|helpers|misc|data2)([_/.-]|$)|(?<!checkpoint)_manager\.(h|cc)$")
BANNED_WORDS = [
    (re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))"), "an open end without an issue number"),
    (re.compile(r"\bsleep_for\b|\babsl::SleepFor\b|\busleep\("), "a sleep (wait for an event with a deadline)"),
    (re.compile(r"\bDISABLED_"), "a disabled test"),
    (re.compile(r"\busing namespace std\b"), "using namespace std"),
]
# A sleep is right only where waiting for time itself is the point; each place with its reason.
SLEEP_ALLOWED = {("common/service/disk_space.cc", 52): "a sample every 15 seconds, on a thread that does nothing else"}
TORCH_INCLUDE = re.compile(r'#include\s+[<"](torch|ATen|c10)/')
WIRE_INCLUDE = re.compile(r'#include\s+[<"]((grpc|grpcpp|google/protobuf)/|.*\.pb\.h)')
SPDLOG_INCLUDE = re.compile(r'#include\s+[<"](spdlog|fmt)/')
TORCH_FREE = ("server/", "client/", "worker/agent/", "common/service/", "common/athanor/base/", "common/athanor/config/")


def tracked(root):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True)
    return sorted(f for f in out.stdout.splitlines() if (root / f).is_file())


def function_lengths(lines):
    """Bodies that open in column 0 or one level in and close with a lone brace: clang-format makes this reliable."""
    start = None
    indent = ""
    for number, line in enumerate(lines, 1):
        if start is None:
            match = re.match(r"^( {0,2})[^\s#/].*\)[^;]*\{$", line)
            if match and not re.match(r"^\s*(namespace|class|struct|enum|union|if|for|while|switch|extern)\b", line):
                start, indent = number, match.group(1)
        elif line.rstrip() in (indent + "}", indent + "};"):
            yield start, number - start + 1
            start = None


def check_source(path, text, problems):
    lines = text.splitlines()
    if len(lines) > FILE_LINES:
        problems.append(f"{path}: {len(lines)} lines (at most {FILE_LINES})")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS and "http" not in line and 'R"' not in line:
            problems.append(f"{path}:{number}: {len(line)} columns (at most {COLUMNS})")
        for pattern, what in BANNED_WORDS:
            if pattern.search(line) and (path, number) not in SLEEP_ALLOWED:
                problems.append(f"{path}:{number}: {what}")
    for start, length in function_lengths(lines):
        if length > FUNCTION_LINES:
            problems.append(f"{path}:{start}: function of {length} lines (at most {FUNCTION_LINES})")
    torch, wire = TORCH_INCLUDE.search(text), WIRE_INCLUDE.search(text)
    if torch and wire:
        problems.append(f"{path}: LibTorch and protobuf/gRPC headers in one file")
    if torch and SPDLOG_INCLUDE.search(text):
        problems.append(f"{path}: LibTorch and spdlog/fmt headers in one file")
    if torch and path.startswith(TORCH_FREE):
        problems.append(f"{path}: LibTorch in a torch-free folder")
    if path.startswith("server/core/") and (wire or re.search(r'#include\s+"(server/(?!core/)|common/service/|spdlog)', text)):
        problems.append(f"{path}: the core is pure: no protobuf, gRPC, log or other server folders")
    if path.startswith("server/core/") and re.search(r"absl::Now\(|std::chrono::\w+_clock|\brand\(|std::random_device", text):
        problems.append(f"{path}: the core takes time and seeds from its events only")
    if path.startswith("common/athanor/") and re.search(r'#include\s+"(server|worker|client|common/service)/', text):
        problems.append(f"{path}: the library must not know the service")
    if path.endswith(".h") and "#pragma once" not in text:
        problems.append(f"{path}: no #pragma once")


def check_tests_mirrored(files, problems):
    for path in files:
        match = re.match(r"tests/unit/(.*)_test\.cc$", path)
        if match:
            folder = match.group(1).rsplit("/", 1)[0]
            source = "common/athanor/" + folder[len("common/"):] if folder.startswith("common/") else folder
            if not any(f.startswith((source + "/", folder + "/")) for f in files if not f.startswith("tests/")):
                problems.append(f"{path}: tests a folder that does not exist ({source})")


def check_in_build(root, build, files, problems):
    commands = json.loads((build / "compile_commands.json").read_text())
    built = {str(pathlib.Path(c["file"]).resolve()) for c in commands}
    text = "\n".join((root / f).read_text(errors="replace") for f in files if f.endswith("CMakeLists.txt"))
    for path in files:
        if path.endswith(".cc") and str((root / path).resolve()) not in built:
            optional = path.startswith(("bench/", "tests/fuzz/", "tests/package/"))
            if not (optional and pathlib.Path(path).name in text):
                problems.append(f"{path}: in no target of the build")


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    build = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
    problems = []
    files = tracked(root)
    for path in files:
        if BANNED_NAMES.search(path) and "checkpoint_manager" not in path:
            problems.append(f"{path}: a banned name")
        if path.endswith((".cc", ".h")):
            check_source(path, (root / path).read_text(errors="replace"), problems)
    check_tests_mirrored(files, problems)
    if build is not None:
        check_in_build(root, build, files, problems)
    for problem in problems:
        print(problem)
    print(f"tidy: {len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
