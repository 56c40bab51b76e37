#!/usr/bin/env python3
"""Shows Doxygen our plain comments: `// ...` before a declaration, after one, and at the head of a file.

Usage: doxygen_filter.py HEADER      (the INPUT_FILTER of docs/Doxyfile)
"""

import pathlib
import re
import sys

COMMENT = re.compile(r"^(\s*)//(?!/)( ?)(.*)$")
TRAILING = re.compile(r"^(.*[;,({].*?)\s//\s(.*)$")


def escaped(text):
    # Prose, but for what is quoted in backticks: no commands, no HTML.
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([\\@<>#%])", r"\\\1", parts[i]).replace('"', '\\"')
    return "`".join(parts)


def main():
    lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
    if sys.argv[1].endswith(".md"):  # links into the same page are GitHub's
        print("\n".join(re.sub(r"\[([^\]]*)\]\(#[^)]*\)", r"\1", line) for line in lines))
        return
    in_head = True
    for number, line in enumerate(lines):
        comment = COMMENT.match(line)
        if comment:
            indent, _, text = comment.groups()
            is_code = text.startswith("  ")
            body = "    " + text if is_code else escaped(text)
            if number == 0:
                print(f"/// @file {pathlib.PurePath(sys.argv[1]).name}")
            print(f"{indent}/// {body}".rstrip())
            continue
        if line.strip():
            in_head = False
        trailing = TRAILING.match(line)
        if trailing and '"' not in line and not in_head:
            print(f"{trailing.group(1)} ///< {escaped(trailing.group(2))}")
        else:
            print(line)


if __name__ == "__main__":
    main()
