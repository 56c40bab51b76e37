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
SLEEP_ALLOWED = {("common/service/disk_space.cc", 52): "a sample every 15 seconds, on a thread that does nothing else",
                 ("common/athanor/checkpoint/store/await_object.cc", 31): "a file system tells nobody that it has changed"}
TORCH_INCLUDE = re.compile(r'#include\s+[<"](torch|ATen|c10)/')
WIRE_INCLUDE = re.compile(r'#include\s+[<"]((grpc|grpcpp|google/protobuf)/|.*\.pb\.h)')
SPDLOG_INCLUDE = re.compile(r'#include\s+[<"](spdlog|fmt)/')
TORCH_FREE = ("server/", "client/", "worker/agent/", "common/service/", "common/athanor/base/", "common/athanor/config/")


def tracked(root):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True)
    return sorted(f for f in out.stdout.splitlines() if (root / f).is_file())


def function_lengths(lines):
    """Bodies that open in column 0 or one level in and close with a lone brace: clang-format makes this reliable. What stands over
    several lines before the brace (parameters, a constructor's initializers) counts."""
    head = start = None  # where a signature, a body begins
    indent = ""
    for number, line in enumerate(lines, 1):
        if start is not None:
            if line.rstrip() in (indent + "}", indent + "};"):
                yield start, number - start + 1
                start = None
            continue
        if head is not None and line.startswith(indent + "  ") and not line.rstrip().endswith(";"):
            if line.rstrip().endswith("{"):
                start, head = head, None
            continue
        head = None
        match = re.match(r"^( {0,2})[^\s#/].*\(", line)
        if match and not re.match(r"^\s*(namespace|class|struct|enum|union|if|for|while|switch|extern|return|static_assert|INSTANTIATE_TEST_SUITE_P)\b", line):
            indent = match.group(1)
            if re.search(r"\)[^;]*\{$", line):
                start = number
            elif not line.rstrip().endswith((";", "}")):
                head = number


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
    if (path.startswith("common/athanor/checkpoint/") and not path.startswith("common/athanor/checkpoint/store/")
            and re.search(r'#include\s+(<fstream>|"athanor/(base/file_system|io/mapped_file)\.h")', text)):
        problems.append(f"{path}: reaches files by itself (the bytes of checkpoints are reached through CheckpointStore)")
    if path.startswith("common/athanor/") and re.search(r'#include\s+"(server|worker|client|common/service)/', text):
        problems.append(f"{path}: the library must not know the service")
    if path.endswith(".h") and "#pragma once" not in text:
        problems.append(f"{path}: no #pragma once")


def commands_of(text, name):
    """Arguments of each call of the CMake function `name`, by keyword; the words before the first keyword under ""."""
    for call in re.findall(rf"^\s*{name}\(([^)]*)\)", re.sub(r"#.*", "", text), re.M):
        arguments, keyword = {"": []}, ""
        for word in call.split():
            if word in ("EXECUTABLE", "SHARED", "TORCH", "SOURCES", "HEADERS", "DEPS", "EXTERNAL", "LABELS", "TIMEOUT"):
                keyword = word
                arguments.setdefault(keyword, [])
            else:
                arguments[keyword].append(word)
        yield arguments


def modules(root, files):
    """The module of each source and header: where CMake lists it, else that of the source it belongs to or of its only neighbour."""
    of = {}
    for path in files:
        if not path.endswith("CMakeLists.txt") or path.startswith("tests/"):
            continue
        folder = path.rpartition("/")[0]
        calls = list(commands_of((root / path).read_text(), "athanor_module"))
        for call in calls:
            for name in call.get("SOURCES", []) + call.get("HEADERS", []):
                of[f"{folder}/{name}"] = call[""][0]
        if folder == "common/athanor/task":
            of.update({f: "athanor_task" for f in files if f.startswith(folder + "/")})  # its headers alone; worker/tasks has the rest
        headers = [f for f in files if f.startswith(folder + "/") and f.endswith(".h") and f not in of]
        for header in headers:
            nearest = max((c for c in files if c.endswith("CMakeLists.txt") and header.startswith(c.rpartition("/")[0] + "/")), key=len)
            if nearest != path:
                continue
            here = header.rpartition("/")[0]
            beside = {of[f] for f in files if f.rpartition("/")[0] == here and f in of}
            names = beside if len(beside) == 1 else {call[""][0] for call in calls if "EXECUTABLE" not in call}
            if header[:-2] + ".cc" in of:
                of[header] = of[header[:-2] + ".cc"]
            elif len(names) == 1:
                of[header] = names.pop()
    return of


def check_includes(root, files, problems):
    """What a file includes belongs to its module, or to one that cmake/Layers.cmake allows that, directly or through others."""
    rows = dict(re.findall(r'set\(_layer_(\S+)\s+"([^"]*)"\)', (root / "cmake/Layers.cmake").read_text()))
    reach = {}
    for name in rows:  # rows stand in order: those allowed come first
        direct = [one for one in rows[name].split(";") if one]
        reach[name] = set(direct).union(*(reach.get(one, set()) for one in direct))
    of = modules(root, files)
    for path, module in sorted(of.items()):
        if module not in rows or not (root / path).is_file():
            continue
        for number, line in enumerate((root / path).read_text(errors="replace").splitlines(), 1):
            match = re.match(r'#include\s+[<"]((?:athanor|server|client|worker|common)/[^">]+)[">]', line)
            if not match:
                continue
            included = match.group(1)
            proto = included.endswith(".pb.h")
            target = "athanor_proto" if proto else of.get(f"common/{included}", of.get(included))
            if target is None:
                problems.append(f"{path}:{number}: {included} belongs to no module")
            elif target != module and target not in reach[module]:
                problems.append(f"{path}:{number}: {included} is of {target}, which cmake/Layers.cmake does not allow {module}")


def check_tests_mirrored(root, files, problems):
    """A unit test is named after a source of the folder that it mirrors, or begins with a comment that says what it is about."""
    sources = {}
    for path in files:
        if path.endswith((".h", ".cc")) and not path.startswith("tests/"):
            folder, _, name = path.rpartition("/")
            while folder:
                sources.setdefault(folder, set()).add(name.rpartition(".")[0])
                folder = folder.rpartition("/")[0]
    for path in files:
        match = re.match(r"tests/unit/(.*)/(\w+)_test\.cc$", path)
        if not match:
            continue
        folder, subject = match.groups()
        if folder.startswith("common/") and folder not in sources:
            folder = "common/athanor/" + folder[len("common/"):]
        if folder not in sources:
            problems.append(f"{path}: tests a folder that does not exist ({folder})")
        elif subject not in sources[folder] and not (root / path).read_text().startswith("//"):
            problems.append(f"{path}: no source of {folder} is called {subject}, and no comment on top says what is tested")


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
    check_tests_mirrored(root, files, problems)
    check_includes(root, files, problems)
    if build is not None:
        check_in_build(root, build, files, problems)
    for problem in problems:
        print(problem)
    print(f"tidy: {len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
