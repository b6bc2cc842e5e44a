"""Reads a package's files within bounds: nothing outside of it, no devices, no text that grows without end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from velagen.errors import Place, Problem, VelagenError

#: Bytes of a text that is read whole, and of a JSON file, which lists every tensor of a model.
MOST_TEXT: Final = 8 * 1024 * 1024
MOST_JSON: Final = 64 * 1024 * 1024
LINK_TO_FOLDER: Final = "a link to a folder"
#: Folders within folders, and YAML within YAML. A package and its MLmodel have three or four.
_DEEPEST: Final = 64
#: Values of a YAML document, each counted as often as its aliases repeat it.
_MOST_VALUES: Final = 500_000
_SHOWN: Final = 80


@dataclass(frozen=True)
class Entry:
    """Something in a package."""

    path: Path
    #: With ``/``, relative to the package.
    name: str
    #: A regular file that lies in the package, if need be behind a link.
    is_file: bool
    is_folder: bool
    #: What is wrong with it: a link that leads nowhere, round in a circle or out of the package, or no file at all.
    wrong: str = ""


def entries(directory: Path) -> Iterator[Entry]:
    """Everything in ``directory``, folders before what is in them, sorted; links to folders are not followed.

    VelagenError when folders are nested too deep.
    """
    waiting = [(directory, "", 0)]
    while waiting:
        folder, prefix, depth = waiting.pop()
        if depth > _DEEPEST:
            raise VelagenError(Problem(f"folders nested more than {_DEEPEST} deep", Place(str(directory))))
        below = []
        for path in sorted(folder.iterdir()):
            name = f"{prefix}{path.name}"
            is_folder = path.is_dir() and not path.is_symlink()
            wrong = stray_link(path, directory)
            is_file = not wrong and not is_folder and path.is_file()
            if not wrong and not is_folder and not is_file:
                wrong = LINK_TO_FOLDER if path.is_dir() else "not a file (a socket, pipe or device)"
            yield Entry(path, name, is_file, is_folder, wrong)
            if is_folder:
                below.append((path, f"{name}/", depth + 1))
        waiting += reversed(below)


def stray_link(path: Path, top: Path) -> str:
    """What is wrong with a link at ``path``: it leads out of ``top``, to nothing, or round in a circle.

    Empty where nothing is wrong, or it is not a link.
    """
    if not path.is_symlink():
        return ""
    try:
        goal = path.resolve(strict=True)
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there"
    except (OSError, RuntimeError):  # a RuntimeError is Python 3.11's word for a loop
        return "a link that leads round in a circle"
    return "" if goal.is_relative_to(top.resolve()) else f"a link out of the package, to {goal}"


def inside(directory: Path, relative: str) -> Path | None:
    """The file or folder that ``relative`` names in ``directory``; None when there is none, or it lies elsewhere."""
    path = PurePosixPath(relative)
    if not relative or path.is_absolute() or ".." in path.parts or "\0" in relative:
        return None
    try:
        goal = (directory / path).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return goal if goal.is_relative_to(directory.resolve()) else None


def read_bytes(directory: Path, relative: str, most: int = MOST_TEXT) -> bytes | None:
    """The content of a regular file in the package; None when there is none; VelagenError when it is too large."""
    path = inside(directory, relative)
    if path is None or not path.is_file():
        return None
    place = Place(f"{directory}/{relative}")
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise VelagenError(Problem(f"can't be read: {error.strerror}", place)) from error
    if len(data) > most:
        raise VelagenError(Problem(f"larger than {most} bytes", place))
    return data


def read_yaml(directory: Path, relative: str) -> Any:
    """The document in a YAML file of the package; None when there is no such file, or it is empty.

    VelagenError, with the line where there is one, when it is invalid, nested too deep, or grows by its aliases.
    """
    data = read_bytes(directory, relative)
    if data is None:
        return None
    file = f"{directory}/{relative}"
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _bound(yaml.parse(data, Loader=loader), file)
        return yaml.load(data, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise VelagenError(Problem("invalid YAML", Place(file, None if line is None else line + 1))) from error
    except (ValueError, OverflowError, RecursionError) as error:  # numbers and dates that Python does not take
        raise VelagenError(Problem(f"invalid YAML: {short(error)}", Place(file))) from error


def _bound(events: Iterator[Any], file: str) -> None:
    """VelagenError when a document is too deep, or too large once its aliases are put in."""
    sizes: dict[str, int] = {}
    open_nodes: list[list[Any]] = [[None, 0]]
    for event in events:
        place = Place(file, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise VelagenError(Problem(f"the alias {short(event.anchor)} refers to what it is in", place))
            open_nodes[-1][1] += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            open_nodes[-1][1] += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            if event.anchor:
                sizes.pop(event.anchor, None)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            open_nodes[-1][1] += size
            if anchor:
                sizes[anchor] = size
        if len(open_nodes) > _DEEPEST:
            raise VelagenError(Problem(f"nested more than {_DEEPEST} deep", place))
        if open_nodes[-1][1] > _MOST_VALUES:
            raise VelagenError(Problem(f"more than {_MOST_VALUES} values, with what its aliases repeat", place))


def read_json(directory: Path, relative: str) -> Any:
    """The document in a JSON file of the package; None when there is no such file; VelagenError when it is invalid."""
    data = read_bytes(directory, relative, MOST_JSON)
    if data is None:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise VelagenError(Problem("invalid JSON", Place(f"{directory}/{relative}", line))) from error


def short(value: object) -> str:
    """A value as part of a sentence: quoted if it is text, without control characters, and not long."""
    text = repr(value) if isinstance(value, str) else str(value)
    text = os.fsencode(text).decode("utf-8", "backslashreplace") if isinstance(value, str) else text
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
