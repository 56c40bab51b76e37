"""The fenced blocks of README.md and docs/**/*.md, each with what a test does with it.

Directly above a fence, a comment says how its block is tried:

    <!-- test: program NAME -->     C++: compiled inside tests/docs/frames/NAME.cc.in and run as the test docs.NAME
    <!-- test: cluster A=b ... -->  shell: its `athanor` lines run against a small cluster, A replaced by b
    <!-- test: daemons -->          shell: all of a page together, on this machine; the daemons that it starts find each other
    <!-- test: config -->           the command line's configuration file
    <!-- test: job -->              a job file: checked by `athanor job submit --dry-run`
    <!-- test: package -->          CMake: the project of tests/package/consumer holds these lines
    <!-- test: none: REASON -->     not run, for that reason

A fence without a comment is allowed for the language `text` alone (pictures, layouts of folders).

`snippets.py --programs FOLDER` writes the C++ programs.
"""

import argparse
import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRAMES = pathlib.Path(__file__).resolve().parent / "frames"
FENCE = re.compile(r"(?:^<!-- test: (?P<test>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
LANGUAGES = {"program": "cpp", "cluster": "sh", "daemons": "sh", "config": "yaml", "job": "yaml", "package": "cmake"}


class Snippet(NamedTuple):
    place: str  # "docs/cli.md:12"
    language: str
    text: str
    test: str  # first word of the comment, "" without one
    arguments: str


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets():
    for page in pages():
        text = page.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("text"))
            test, _, arguments = (match["test"] or "").partition(" ")
            yield Snippet(f"{page.relative_to(ROOT)}:{line}", match["language"], match["text"], test.rstrip(":"), arguments)


def write_programs(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for snippet in snippets():
        if snippet.test != "program":
            continue
        frame = (FRAMES / f"{snippet.arguments}.cc.in").read_text()
        includes = "".join(re.findall(r"^#include .*\n", snippet.text, re.M))
        body = re.sub(r"^#include .*\n", "", snippet.text, flags=re.M)
        program = frame.replace("// INCLUDES\n", includes).replace("// SNIPPET\n", f'#line 1 "{snippet.place}"\n{body}')
        path = folder / f"{snippet.arguments}.cc"
        if not path.exists() or path.read_text() != program:
            path.write_text(program)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    write_programs(parser.parse_args().programs)
