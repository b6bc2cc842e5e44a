"""The generated definitions are read by people: a line is long for its words alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DEFINITIONS = sorted(Path("addon/kfserving/definitions").glob("*.cue"))
LONGEST = 160
#: What else than words such a line may hold: the field or condition that they belong to, and some holes.
REST = 100


def without_words(line: str) -> str:
    """*line* without comments, and without the text of its strings and patterns; what stands in holes stays."""
    line = re.sub(r'#"(?:(?!"#).)*"#', '""', line.strip())
    if line.startswith("//"):
        return ""
    found: list[str] = []
    # For each open string or hole: how many parentheses are open in the hole, None in a string.
    inside: list[int | None] = [0]
    at = 0
    while at < len(line):
        two, one, depth = line[at : at + 2], line[at], inside[-1]
        if depth is None:
            if two == "\\(":
                inside.append(0)
            elif one == '"':
                inside.pop()
                found.append(one)
            at += 2 if one == "\\" else 1
            continue
        if one == '"':
            inside.append(None)
        elif one == "(":
            inside[-1] = depth + 1
        elif one == ")" and depth == 0 and len(inside) > 1:
            inside.pop()
        elif one == ")":
            inside[-1] = depth - 1
        if inside[-1] is not None or one == '"':
            found.append(one)
        at += 1
    return "".join(found)


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_no_line_is_long_but_for_its_words(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    long = {number: line for number, line in enumerate(lines, start=1) if len(line) > LONGEST}
    assert {number: line for number, line in long.items() if len(without_words(line)) > REST} == {}


def test_words_are_told_from_what_is_computed() -> None:
    assert without_words('\t"a \\(x + (y)) b": "\\(f("c")) d",') == '"x + (y)": "f("")",'
    assert without_words('// "a"') == ""
    assert without_words('if a =~ #"x"y"# {"b"}') == 'if a =~ "" {""}'
