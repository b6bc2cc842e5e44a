"""What is known of a project from an earlier check, kept by content: the same files get the same answer at once."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import velagen
from velagen.errors import Place, Problem
from velagen.kubevela import VERSIONS
from velagen.project import Project
from velagen.tools import cache_dir

if TYPE_CHECKING:
    from velagen.check.catalog import Known

#: Raise it where what is kept changes its form.
_FORM = 2
#: Folders of a project that an addon has copies of.
_COPIED = ("resources", "config-templates", "views")
#: Answers of a kind that are kept; beyond, the oldest go.
_MOST = 60
_OURS = re.compile(r"(addon|definitions|verdict|cue)-[0-9a-f]{32}\.json")
#: How the name of a file begins that is being written, and seconds after which nobody writes it any more.
_PART = ".writing-"
_ABANDONED = 3600.0


@dataclass(frozen=True)
class Kept:
    """The answers about one project as its files are now, for the KubeVelas that are asked."""

    project: Project
    versions: tuple[str, ...]

    def definitions(self) -> list[Known] | None:
        """The project's definitions as an application's author meets them; None where they must be built first."""
        # A build only asks for files.
        from velagen.check.catalog import Known
        from velagen.schema.model import parse_schema

        entry = self._entry()
        if entry is None:
            return None
        return [
            Known(
                one["kind"],
                one["name"],
                parse_schema(one["schema"]["document"], origin=one["schema"]["origin"]),
                one["workload"],
                tuple(one["applies_to"]),
                tuple(one["conflicts_with"]),
                one["instead_of"],
                one["cue"],
                own=True,
            )
            for one in entry["definitions"]
        ]

    def _entry(self) -> dict[str, Any] | None:
        """What is kept of the definitions, if no module of others that they import has changed since."""
        found = _read(self._file("definitions", self._sources))
        if not isinstance(found, dict) or found["loaded"] != _states(found["loaded"]):
            return None
        return found

    def keep_definitions(self, known: Iterable[Known], loaded: Iterable[str] = ()) -> None:
        """Keep what was built; *loaded* are the files of modules that came with it, from wherever they are."""
        found = [
            {
                "kind": one.kind,
                "name": one.name,
                "schema": {"document": one.schema.document, "origin": one.schema.origin} if one.schema else None,
                "workload": one.workload,
                "applies_to": one.applies_to,
                "conflicts_with": one.conflicts_with,
                "instead_of": dict(one.instead_of),
                "cue": one.cue,
            }
            for one in known
        ]
        if all(one["schema"] for one in found):
            _write(self._file("definitions", self._sources), {"definitions": found, "loaded": _states(loaded)})

    def addon(self) -> tuple[dict[str, bytes], list[Problem]] | None:
        """The addon's files and the warnings of their build; None where it must be built first."""
        found = _read(self._file("addon", self._built_from))
        if not isinstance(found, dict) or found["loaded"] != _states(found["loaded"]):
            return None
        files = {path: base64.b64decode(content) for path, content in found["files"].items()}
        return files, list(map(_problem, found["warnings"]))

    def keep_addon(self, files: Mapping[str, bytes], warnings: Iterable[Problem], loaded: Iterable[str]) -> None:
        """Keep what was built; *loaded* as for the definitions."""
        contents = {path: base64.b64encode(content).decode() for path, content in files.items()}
        kept = {"files": contents, "warnings": [asdict(one) for one in warnings], "loaded": _states(loaded)}
        _write(self._file("addon", self._built_from), kept)

    def verdict(self) -> list[Problem] | None:
        """What was said of the addon; None where nobody looked yet."""
        found = _read(self._file("verdict", self._all))
        if not isinstance(found, list):
            return None
        return list(map(_problem, found))

    def keep_verdict(self, problems: Iterable[Problem]) -> None:
        """Keep what was said, unless there is an error: its reason may lie outside the files (time)."""
        found = list(problems)
        if not any(one.severity == "error" for one in found):
            _write(self._file("verdict", self._all), [asdict(one) for one in found])

    @cached_property
    def _sources(self) -> str:
        """Everything that the definitions come from: the project's files, and velagen itself."""
        root = self.project.root
        named = ["metadata.yaml", "definitions", "schemas", "crds"]
        return _digest([_own_state(), str(root), *_contents(root, named)])

    @cached_property
    def _built_from(self) -> str:
        """Everything that an addon is made of."""
        return _digest([self._sources, *_contents(self.project.root, _COPIED)])

    @cached_property
    def _all(self) -> str:
        root = self.project.root
        named = ["addon", *_COPIED, "README.md"]
        entry = self._entry()
        loaded = sorted(entry["loaded"].items()) if entry else []
        return _digest([self._sources, *map(str, loaded), *self.versions, *_contents(root, named)])

    @staticmethod
    def _file(what: str, key: str) -> Path:
        return cache_dir() / "checked" / f"{what}-{key}.json"


def _problem(kept: Mapping[str, Any]) -> Problem:
    return Problem(kept["message"], Place(**kept["place"]), kept["hint"], kept["severity"])


def holds(text: str) -> bool:
    """Whether a text of CUE was found to be right by the CUE of each KubeVela before."""
    return _read(_of_cue(text)) is True


def keep(text: str) -> None:
    """Keep that a text of CUE is right."""
    _write(_of_cue(text), True)


def _of_cue(text: str) -> Path:
    return cache_dir() / "checked" / f"cue-{_digest([*VERSIONS, text])}.json"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([str(_FORM), *parts]).encode()).hexdigest()[:32]


def _states(files: Iterable[str]) -> dict[str, str]:
    """Size and time of files that are no part of a project; nothing of one that is gone."""
    found = {}
    for file in sorted(files):
        with suppress(OSError):
            state = Path(file).stat()
            found[file] = f"{state.st_size}:{state.st_mtime_ns}"
    return found


def _own_state() -> str:
    """velagen's own files by size and time: they change under the hands of who works on it only."""
    root = Path(velagen.__file__).parent
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            if not name.endswith(".pyc"):
                state = (Path(folder) / name).stat()
                found.append(f"{folder}/{name}:{state.st_size}:{state.st_mtime_ns}")
    return _digest(sorted(found))


def _contents(root: Path, names: Iterable[str]) -> Iterator[str]:
    """Path and digest of every file under *names*."""
    for name in names:
        place = root / name
        files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"{file.relative_to(root)}:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _read(file: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads(file.read_bytes())
    return None


def _write(file: Path, value: object) -> None:
    """Keep a value, and drop the oldest of those that were kept here. A cache that can't be written is ignored."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=_PART)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(value, stream)
            Path(name).replace(file)
        finally:
            Path(name).unlink(missing_ok=True)  # a full disk must not fill further
        there = list(file.parent.iterdir())
        for part in there:
            if part.name.startswith(_PART) and part.stat().st_mtime < time.time() - _ABANDONED:
                part.unlink(missing_ok=True)  # its writer was killed
        what = file.name.partition("-")[0]
        kept = [one for one in there if (ours := _OURS.fullmatch(one.name)) and ours[1] == what]
        for old in sorted(kept, key=lambda one: one.stat().st_mtime_ns)[:-_MOST]:
            old.unlink(missing_ok=True)
