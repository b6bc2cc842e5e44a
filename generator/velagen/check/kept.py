"""What is known of a project from an earlier check, kept by content: the same files get the same answer at once."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import velagen
from velagen.answers import answer_file, digest, read, write
from velagen.errors import Place, Problem
from velagen.project import Project

if TYPE_CHECKING:
    from velagen.definition.catalog import Known

#: Folders of a project that an addon has copies of.
_COPIED = ("resources", "config-templates", "views")


@dataclass(frozen=True)
class Kept:
    """The answers about one project as its files are now, for the KubeVelas that are asked."""

    project: Project
    versions: tuple[str, ...]

    def definitions(self) -> list[Known] | None:
        """The project's definitions as an application's author meets them; None where they must be built first."""
        # A build only asks for files.
        from velagen.definition.catalog import Known
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
        found = read(answer_file("definitions", self._sources))
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
            write(answer_file("definitions", self._sources), {"definitions": found, "loaded": _states(loaded)})

    def addon(self) -> tuple[dict[str, bytes], list[Problem]] | None:
        """The addon's files and the warnings of their build; None where it must be built first."""
        found = read(answer_file("addon", self._built_from))
        if not isinstance(found, dict) or found["loaded"] != _states(found["loaded"]):
            return None
        files = {path: base64.b64decode(content) for path, content in found["files"].items()}
        return files, list(map(_problem, found["warnings"]))

    def keep_addon(self, files: Mapping[str, bytes], warnings: Iterable[Problem], loaded: Iterable[str]) -> None:
        """Keep what was built; *loaded* as for the definitions."""
        contents = {path: base64.b64encode(content).decode() for path, content in files.items()}
        kept = {"files": contents, "warnings": [asdict(one) for one in warnings], "loaded": _states(loaded)}
        write(answer_file("addon", self._built_from), kept)

    def verdict(self) -> list[Problem] | None:
        """What was said of the addon; None where nobody looked yet."""
        found = read(answer_file("verdict", self._all))
        if not isinstance(found, list):
            return None
        return list(map(_problem, found))

    def keep_verdict(self, problems: Iterable[Problem]) -> None:
        """Keep what was said, unless there is an error: its reason may lie outside the files (time)."""
        found = list(problems)
        if not any(one.severity == "error" for one in found):
            write(answer_file("verdict", self._all), [asdict(one) for one in found])

    @cached_property
    def _sources(self) -> str:
        """Everything that the definitions come from: the project's files, and velagen itself."""
        root = self.project.root
        named = ["metadata.yaml", "definitions", "schemas", "crds"]
        return digest([_own_state(), str(root), *_contents(root, named)])

    @cached_property
    def _built_from(self) -> str:
        """Everything that an addon is made of."""
        return digest([self._sources, *_contents(self.project.root, _COPIED)])

    @cached_property
    def _all(self) -> str:
        root = self.project.root
        named = ["addon", *_COPIED, "README.md"]
        entry = self._entry()
        loaded = sorted(entry["loaded"].items()) if entry else []
        return digest([self._sources, *map(str, loaded), *self.versions, *_contents(root, named)])


def _problem(kept: Mapping[str, Any]) -> Problem:
    return Problem(kept["message"], Place(**kept["place"]), kept["hint"], kept["severity"])


def _states(files: Iterable[str]) -> dict[str, str]:
    """Size and time of files that are not part of a project; nothing of one that is gone."""
    found = {}
    for file in sorted(files):
        with suppress(OSError):
            state = Path(file).stat()
            found[file] = f"{state.st_size}:{state.st_mtime_ns}"
    return found


def _own_state() -> str:
    """Velagen's own files by size and time: they change under the hands of who works on it only."""
    root = Path(velagen.__file__).parent
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            if not name.endswith(".pyc"):
                state = (Path(folder) / name).stat()
                found.append(f"{folder}/{name}:{state.st_size}:{state.st_mtime_ns}")
    return digest(sorted(found))


def _contents(root: Path, names: Iterable[str]) -> Iterator[str]:
    """Path and digest of every file under *names*."""
    for name in names:
        place = root / name
        files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"{file.relative_to(root)}:{hashlib.sha256(file.read_bytes()).hexdigest()}"
