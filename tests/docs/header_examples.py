"""The example blocks of headers (indented lines of the comment on top), as a program to be compiled.

    header_examples.py --program FILE.cc [--torch]

Each becomes a function that begins with what its frame in frames/headers.txt declares: the variables that the example
uses. `...` stands for what a reader fills in. "first N" in a frame: what follows the first N lines is no code. A header of FOLDERS whose block is no code says so in its frame. With
--torch: the headers of TORCH_FOLDERS, which lie above LibTorch, with frames/torch_headers.txt.
"""

import argparse
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRAMES = pathlib.Path(__file__).resolve().parent / "frames"
FOLDERS = ("client/", "common/athanor/base/", "common/athanor/config/", "common/athanor/contract/", "common/service/", "server/core/",
           "worker/agent/")
TORCH_FOLDERS = tuple(f"common/athanor/{name}/" for name in ("checkpoint", "data", "exchange", "io", "metrics", "nested", "optim", "parallel", "runner",
                                                             "task", "tools", "torch")) + ("worker/tasks/", "worker/trainer/")
NAMESPACES = {"worker/agent/": "athanor::agent", "server/core/": "athanor::core"}


def headers(folders):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.h"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in listed.stdout.split() if name.startswith(folders) and (ROOT / name).is_file())


def examples(folders):
    """(header, line, text) of each header with such a block."""
    for header in headers(folders):
        comment = (ROOT / header).read_text().split("#pragma once")[0].splitlines()
        lines = [(number, line[5:]) for number, line in enumerate(comment, 1) if line.startswith("//   ")]
        if any("(" in text or ";" in text for _, text in lines):
            yield header, lines[0][0], [text for _, text in lines]


def frames(path):
    found = {}
    for block in re.split(r"^\[", path.read_text(), flags=re.M)[1:]:
        header, _, text = block.partition("]\n")
        found[header] = text.strip()
    return found


def filled(line):
    if re.fullmatch(r"\s*(\.\.\.|…)( .*)?(//.*)?", line):
        return ""
    line = re.sub(r"\{ ?(\.\.\.|…) ?\}", "{}", line)
    line = re.sub(r"\.\.\. [\w ]+ \.\.\.", "", line.replace("while (...)", "while (true)").replace(") ...;", ") {}"))
    line = re.sub(r"= \.\.\.", "= {}", line.replace("... <<", "std::cerr <<"))
    return re.sub(r" \.\.\.(\s*//.*)?$", " {}", line)


def ended(lines):
    """An expression that stands alone, `Call(a)`, becomes a statement."""
    for text, following in zip(lines, [*lines[1:], ""]):
        code = re.sub(r"\s+//.*$", "", text)
        alone = len(following) - len(following.lstrip()) <= len(text) - len(text.lstrip())
        if alone and re.search(r"[\w)]$", code) and not re.match(r"\s*(if|for|while|using|[A-Z_]{2,}\()", code):
            text = text.replace(code, code + ";", 1)
        yield text


def program(folders, path):
    known, functions = frames(path), []
    includes = ["#include <iostream>", '#include "absl/strings/str_cat.h"', '#include "athanor/base/status_macros.h"']
    for number, (header, line, lines) in enumerate(examples(folders)):
        if header not in known:
            raise SystemExit(f"{header}: its example has no frame in {path.relative_to(ROOT)}")
        frame = known.pop(header)
        if frame.startswith("none:"):
            continue
        first = re.match(r"first (\d+)\n?", frame)
        if first:
            lines, frame = lines[:int(first.group(1))], frame[first.end():]
        scope = re.match(r"scope (\d+)\n?", frame)
        outside = int(scope.group(1)) if scope else 0
        frame = frame[scope.end():] if scope else frame
        includes += [f'#include "{header.removeprefix("common/") if "athanor/" in header else header}"']
        includes += re.findall(r"^#include .*$", frame, re.M)
        frame = re.sub(r"^#include .*\n?", "", frame, flags=re.M)
        beside = re.findall(r"^outside (.*)$", frame, re.M)
        frame = re.sub(r"^outside .*\n?", "", frame, flags=re.M)
        space = next((space for folder, space in NAMESPACES.items() if header.startswith(folder)), "athanor")
        body = list(ended([filled(text) for text in lines]))
        kind, end = ("void", "") if frame.startswith("void") else ("absl::Status", "return absl::OkStatus();")
        frame = frame.removeprefix("void")
        functions.append("\n".join([
            f"namespace {space} {{", f'#line {line} "{header}"', *body[:outside], *beside, f"{kind} Example{number}() {{", frame,
            f'#line {line + outside} "{header}"', *body[outside:], end, "}", f"}}  // namespace {space}", ""]))
    if known:
        raise SystemExit(f"frames of headers that have no example: {', '.join(known)}")
    return "\n".join(sorted(dict.fromkeys(includes))) + "\n\n" + "\n".join(functions) + "\nint main() {}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--torch", action="store_true")
    arguments = parser.parse_args()
    path = arguments.program
    text = program(TORCH_FOLDERS, FRAMES / "torch_headers.txt") if arguments.torch else program(FOLDERS, FRAMES / "headers.txt")
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
