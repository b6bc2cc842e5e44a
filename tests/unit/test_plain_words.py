"""No sentence that a user sees is phrased as by a translator."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
#: What English would say otherwise: "is not supported by", "has no", "invalid YAML", "does not exist", "correct".
AWKWARD = re.compile(r"\b(is|are) (no |none (of|that)\b)|\bto be had\b|\bno YAML\b|\bno Python\b|\bmend(s|ed|ing)?\b")
#: "there is no ...", "where there are no ...": plain English.
PLAIN = re.compile(r"\b[Tt]here (is|are) no ")


def _awkward(text: str) -> bool:
    return bool(AWKWARD.search(PLAIN.sub("", " ".join(text.split()))))


def _sentences(path: Path) -> Iterator[tuple[int, str]]:
    """The text constants of a module with their lines: all but docstrings, which users see of commands alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        command = path.parent.name == "cli" or path.name == "command.py"
        shown = command and isinstance(node, ast.FunctionDef) and node.decorator_list
        if node.body and isinstance(node.body[0], ast.Expr) and not shown:
            hidden.add(node.body[0].value)
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in values]
                hidden.update(part for part in values if isinstance(part, ast.Constant))
                yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in hidden:
            yield node.lineno, node.value


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from (value,) if key in {"title", "description"} and isinstance(value, str) else _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def test_sentences_in_code_are_plain_english() -> None:
    paths = [*(ROOT / "generator/velagen").rglob("*.py"), *(ROOT / "definitions").rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted(paths)
        for line, text in sorted(_sentences(path))
        if _awkward(text)
    ]
    assert not found, "\n".join(found)


def test_titles_and_descriptions_of_schemas_are_plain_english() -> None:
    found = [
        f"{path.name}: {text}"
        for path in sorted((ROOT / "schemas").glob("*.json"))
        for text in _texts(yaml.safe_load(path.read_text(encoding="utf-8")))
        if _awkward(text)
    ]
    assert not found, "\n".join(found)


def test_the_words_are_found() -> None:
    assert _awkward("x is no property that is known here")
    assert _awkward("no YAML: line 3")
    assert _awkward("release not to be had")
    assert not _awkward("there is no folder x")
    assert not _awkward("this is not known")
