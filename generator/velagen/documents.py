"""Files that people name: read within bounds, and YAML with the place of every value in it."""

from __future__ import annotations

import math
import os
import select
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from velagen.errors import Place, Problem, VelagenError, pointer

#: Larger than every CRD of KServe in one file; an etcd object may have 1.5 MB.
MOST_BYTES = 32 << 20
#: Seconds in which something must come out of a pipe.
PATIENCE = 30.0
#: More places than any application has: where aliases multiply (the "billion laughs" file), reading stops here.
_MOST_PLACES = 200_000
_MOST_PROBLEMS = 100
#: Deeper than any object of Kubernetes; shallow enough for Python's own recursion.
MOST_LEVELS = 100
#: A whole number of more digits is beyond every float, and so beyond JSON as Go reads it.
MOST_DIGITS = 308


def read_text(path: Path, shown: str | None = None, *, most: int = MOST_BYTES) -> str:
    """The text of a file that somebody named.

    In: the file; the name under which problems speak of it; the most bytes. A pipe is read to its end, as in
    ``velagen check <(helm template .)``. Raises VelagenError with a sentence: not there, a folder or a device, too
    large, not UTF-8, a pipe into which nobody writes.
    """
    content = read_bytes(path, shown, most=most)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VelagenError(Problem("can't be read: it is not UTF-8 text", Place(shown or str(path)))) from error


def read_bytes(path: Path, shown: str | None = None, *, most: int = MOST_BYTES) -> bytes:
    """As `read_text`, the bytes."""
    place = Place(shown or str(path))
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
            raise VelagenError(Problem(f"can't be read: it is {_kind(kind)}, not a file", place))
        # Opening a pipe must not wait for somebody who writes into it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:  # noqa: PTH123  # flags
            content = _drained(file.fileno(), most, place) if stat.S_ISFIFO(kind) else file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise VelagenError(Problem(f"can't be read: {reason}", place)) from error
    content = content or b""
    if len(content) > most:
        raise VelagenError(Problem(f"can't be read: it has more than {most >> 20} MiB", place))
    return content


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "a device"
    return "a socket" if stat.S_ISSOCK(mode) else "something special"


def _drained(descriptor: int, most: int, place: Place) -> bytes:
    """All of a pipe."""
    parts: list[bytes] = []
    size = 0
    last = time.monotonic()
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while size <= most:
        if not waiting.poll(max(0.0, PATIENCE - (time.monotonic() - last)) * 1000):
            raise VelagenError(Problem(f"can't be read: nothing came out of this pipe in {PATIENCE:.0f} s", place))
        part = os.read(descriptor, 1 << 20)
        if not part:
            break
        last = time.monotonic()
        parts.append(part)
        size += len(part)
    return b"".join(parts)


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
    the file can't be read, is not YAML, has a key twice in one map, or holds what JSON has no word for.
    """
    shown = name or str(path)
    return parse_documents(read_text(path, shown), shown)


def parse_documents(text: str, name: str) -> list[Document]:
    """As `read_documents`, from a text."""
    try:
        _bounded(text, name)
        loader = _Loader(text)
        try:
            return list(_documents(loader, name))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
        raise VelagenError(Problem(f"invalid YAML: {error.problem or error.context}", place)) from error
    except yaml.YAMLError as error:
        raise VelagenError(Problem(f"invalid YAML: {str(error).splitlines()[0]}", Place(name))) from error


def locate(file: Path, at: str) -> Place:
    """The place of a JSON pointer in a file of one document; without a line where that can't be told."""
    try:
        documents = read_documents(file)
    except VelagenError:
        documents = []
    return documents[0].place(at) if documents else Place(str(file), pointer=at or None)


def _bounded(text: str, name: str) -> None:
    """Refuse what the reader itself would not survive: it goes down by recursion, and ends with the process."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_LEVELS or count > 4 * _MOST_PLACES:
            what = f"nested more than {MOST_LEVELS} levels deep" if depth > MOST_LEVELS else "too large to be read"
            raise VelagenError(Problem(f"this is {what}", _at(event, name)))
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MOST_DIGITS and event.implicit[0]:
            digits = event.value.lstrip("+-").replace("_", "")
            if digits[:1].isdecimal() and all(char in "0123456789abcdefABCDEFxob.:" for char in digits):
                problem = f"a number of {len(digits)} digits is more than JSON can carry"
                hint = "put it in quotes if it is text"
                raise VelagenError(Problem(problem, _at(event, name), hint))


def _at(event: yaml.Event, name: str) -> Place:
    mark = event.start_mark
    return Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)


def _documents(loader: _Loader, name: str) -> Iterator[Document]:
    while loader.check_node():
        node = loader.get_node()
        if node is None:
            continue
        places = _Places(name)
        places.note(node)
        if not places.problems:
            document = Document(name, None, places.marks)
            try:
                constructed = loader.construct_document(node)
            except yaml.YAMLError:
                raise
            except Exception as error:  # the constructors of tags raise what they like: `!!bool x`, `!!timestamp 0`
                raise VelagenError(
                    Problem(f"invalid YAML: a value does not fit its tag: {error}", Place(name))
                ) from error
            value = _as_json(constructed, (), document, places.problems)
        if places.problems:
            raise VelagenError(places.problems)
        if value is not None:
            yield Document(name, value, places.marks)


def _as_json(value: Any, path: tuple[str | int, ...], document: Document, problems: list[Problem]) -> Any:
    """What JSON holds of it; YAML's ``8080: http`` has a string for its key by the time Kubernetes sees it."""
    match value:
        case dict():
            return {_key(key): _as_json(item, (*path, _key(key)), document, problems) for key, item in value.items()}
        case list():
            return [_as_json(item, (*path, number), document, problems) for number, item in enumerate(value)]
        case float() if not math.isfinite(value):
            problems.append(Problem(f"{value} is not a number that JSON has", document.place(pointer(path))))
        case str() if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            problems.append(Problem("a lone surrogate (half a character) in a string", document.place(pointer(path))))
        case None | bool() | int() | float() | str():
            return value
        case _:
            reason = f"a {type(value).__name__} is nothing that JSON has"
            problems.append(Problem(reason, document.place(pointer(path)), "leave out the !! tag"))
    return None


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


@dataclass
class _Places:
    """Notes where each value of a document stands."""

    name: str
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    #: What has been walked, in nodes and in characters of pointers: the same node comes again by each of its aliases.
    nodes: int = 0
    characters: int = 0
    #: The nodes that the one being walked stands in.
    above: set[int] = field(default_factory=set)

    def note(self, node: yaml.Node, here: str = "", level: int = 0) -> None:
        """Note the places below a node at the pointer *here*.

        An alias leads to the node it names; one inside itself is not followed.
        """
        mark = node.start_mark
        spot = (mark.line + 1, mark.column + 1)
        self.marks.setdefault(here, spot)
        self.nodes += 1
        self.characters += len(here)
        if id(node) in self.above:
            self.problems.append(Problem("an alias stands inside what it names", Place(self.name, *spot, here)))
            return
        if self.nodes > _MOST_PLACES or self.characters > 100 * _MOST_PLACES or level > 2 * MOST_LEVELS:
            if not self.problems:
                reason = "this file grows beyond reason: its aliases multiply, or it is too large"
                self.problems.append(Problem(reason, Place(self.name, *spot)))
            return
        self.above.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.note(item, f"{here}/{number}", level + 1)
                if len(self.problems) > _MOST_PROBLEMS or self.nodes > _MOST_PLACES:
                    break
        elif isinstance(node, yaml.MappingNode):
            self._note_entries(node, here, level)
        self.above.discard(id(node))

    def _note_entries(self, node: yaml.MappingNode, here: str, level: int) -> None:
        seen: set[str] = set()
        for key, value in node.value:
            word = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            spot = (key.start_mark.line + 1, key.start_mark.column + 1)
            at = here + pointer([word])
            if word in seen and key.tag != "tag:yaml.org,2002:merge":
                # The API server's decoder refuses it; most parsers take the last one in silence.
                self.problems.append(Problem(f"{_short(word)} stands twice here", Place(self.name, *spot, at)))
            seen.add(word)
            self.marks.setdefault(at, spot)
            self.note(value, at, level + 1)
            if len(self.problems) > _MOST_PROBLEMS or self.nodes > _MOST_PLACES:
                break


def _short(word: str) -> str:
    return word if len(word) <= 60 else word[:57] + "..."
