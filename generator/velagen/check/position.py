"""YAML files with the place of every value in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from velagen.check.structural import pointer
from velagen.errors import Place, Problem, VelagenError

#: More places than any application has: where aliases multiply (the "billion laughs" file), reading stops here.
_MOST_PLACES = 200_000


class _Loader(yaml.CSafeLoader):
    """As Kubernetes reads YAML: a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's own form
        first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class Document:
    """One document of a YAML (or JSON) file."""

    #: As the person gave it.
    file: str
    value: Any
    #: JSON pointer -> line and column (1-based) of the value; of a map's entry, of its key.
    marks: dict[str, tuple[int, int]]

    def place(self, at: str = "") -> Place:
        """Where a JSON pointer leads; of a place that is missing, the nearest one around it that is there."""
        spot: str = at
        while spot and spot not in self.marks:
            spot = spot.rpartition("/")[0]
        line, column = self.marks.get(spot, (None, None))
        return Place(self.file, line, column, at or None)


def read_documents(path: Path, name: str | None = None) -> list[Document]:
    """The documents of a YAML file; empty ones are left out.

    In: the file, and the name under which problems speak of it. Raises VelagenError with file, line and column where
    the file can't be read, is no YAML, or has a key twice in one map.
    """
    shown = name or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise VelagenError(Problem(f"can't be read: {reason}", Place(shown))) from error
    return parse_documents(text, shown)


def parse_documents(text: str, name: str) -> list[Document]:
    """As `read_documents`, from a text."""
    loader = _Loader(text)
    try:
        found = list(_documents(loader, name))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
        raise VelagenError(Problem(f"no YAML: {error.problem or error.context}", place)) from error
    except yaml.YAMLError as error:
        raise VelagenError(Problem(f"no YAML: {str(error).splitlines()[0]}", Place(name))) from error
    finally:
        loader.dispose()
    return found


def locate(file: Path, at: str) -> Place:
    """The place of a JSON pointer in a file of one document; without a line where that can't be told."""
    try:
        documents = read_documents(file)
    except VelagenError:
        documents = []
    return documents[0].place(at) if documents else Place(str(file), pointer=at or None)


def _documents(loader: _Loader, name: str) -> Iterator[Document]:
    problems: list[Problem] = []
    while loader.check_node():
        node = loader.get_node()
        if node is None:
            continue
        marks: dict[str, tuple[int, int]] = {}
        _mark(node, (), marks, name, problems, frozenset())
        if problems:
            raise VelagenError(problems)
        value = _string_keys(loader.construct_document(node))
        if value is not None:
            yield Document(name, value, marks)


def _string_keys(value: Any) -> Any:
    """JSON's keys are strings; YAML's ``8080: http`` is one too by the time Kubernetes sees it."""
    if isinstance(value, dict):
        return {_key(key): _string_keys(item) for key, item in value.items()}
    return [_string_keys(item) for item in value] if isinstance(value, list) else value


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _mark(
    node: yaml.Node,
    path: tuple[str | int, ...],
    marks: dict[str, tuple[int, int]],
    name: str,
    problems: list[Problem],
    above: frozenset[int],
) -> None:
    """Note the places below a node. An alias leads to the node it names; one inside itself is not followed."""
    here = pointer(path)
    spot = (node.start_mark.line + 1, node.start_mark.column + 1)
    marks.setdefault(here, spot)
    if id(node) in above:
        problems.append(Problem("an alias stands inside what it names", Place(name, *spot, here)))
        return
    if len(marks) > _MOST_PLACES:
        if not problems:
            problems.append(Problem("this file grows beyond reason: its aliases multiply", Place(name, *spot)))
        return
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _mark(item, (*path, number), marks, name, problems, above)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            word = str(key.value)
            spot = (key.start_mark.line + 1, key.start_mark.column + 1)
            if word in seen and key.tag != "tag:yaml.org,2002:merge":
                # The API server's decoder refuses it; most parsers take the last one in silence.
                problems.append(Problem(f"{word} stands twice here", Place(name, *spot, pointer((*path, word)))))
            seen.add(word)
            marks.setdefault(pointer((*path, word)), spot)
            _mark(value, (*path, word), marks, name, problems, above)
