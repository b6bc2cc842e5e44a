"""Schemas as they lie in files: JSON or YAML, in one file or in several, alone or inside an OpenAPI file or a CRD."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from velagen.documents import MOST_DIGITS, parse_documents, read_text
from velagen.errors import Place, Problem, VelagenError, did_you_mean, pointer
from velagen.schema.keywords import ASSERTIONS, KNOWN
from velagen.schema.model import Schema, parse_schema

#: Files of one folder that are looked into for an `$id`.
_MOST_FILES = 1_000
#: Other schemas that one schema may bring along.
_MOST_OTHERS = 2_000
_SUFFIXES = {".json", ".yaml", ".yml"}


def load_schema(path: Path, *, others: Iterable[Path] = (), at: str = "") -> Schema:
    """The schema in the file *path*: JSON, or YAML where its name ends with ``.yaml`` or ``.yml``.

    What it refers to in other files is brought into it, under ``$defs``: files beside it and below, and those of
    *others* (files and folders), by path or by ``$id``. *at* is the JSON pointer of a schema inside a larger document,
    such as ``/components/schemas/Pet`` of an OpenAPI file.
    Raises VelagenError with file, line and pointer: not readable, not JSON, not a schema, a reference to nowhere.
    """
    origin = str(path)
    whole = _read(path)
    openapi = _speaks_openapi(whole)
    if at:
        document = _within(whole, at, origin)
    else:
        document = whole
        _refuse_other_kinds(whole, origin)
    bundle = _Bundle(path, whole, at, tuple(others))
    return parse_schema(bundle.of(document), origin=origin, openapi=openapi)


# ---------------------------------------------------------------- one file


def _read(path: Path) -> Any:
    text = read_text(path)
    origin = str(path)
    if path.suffix in {".yaml", ".yml"}:
        documents = parse_documents(text, origin)
        if len(documents) != 1:
            reason = f"a schema is one document, these are {len(documents)}"
            raise VelagenError(Problem(reason, Place(file=origin), "put it into a file of its own"))
        return documents[0].value
    try:
        return json.loads(
            text, parse_constant=_non_finite, parse_float=_float, parse_int=_integer, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        place = Place(file=origin, line=error.lineno, column=error.colno)
        raise VelagenError(Problem(f"not JSON: {error.msg}", place)) from error
    except RecursionError as error:
        raise VelagenError(Problem("nested too deeply to be read", Place(file=origin))) from error
    except ValueError as error:
        raise VelagenError(Problem(f"not JSON: {error}", Place(file=origin))) from error


def _non_finite(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:60]} is too large a number")
    return value


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is more than JSON can carry")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name[:200]!r} stands twice in one object")
            seen.add(name)
    return out


# ---------------------------------------------------------------- what it is


def _speaks_openapi(whole: Any) -> bool:
    """Whether the schemas in a document are OpenAPI 3.0's, as those of a CRD are; 3.1 speaks JSON Schema 2020-12."""
    if not isinstance(whole, dict):
        return False
    version = str(whole.get("openapi", whole.get("swagger", "")))
    return version.startswith(("3.0", "2.")) or whole.get("kind") == "CustomResourceDefinition"


def _refuse_other_kinds(whole: Any, origin: str) -> None:
    """Refuse what is not a schema though it could be read as one that allows everything."""
    if not isinstance(whole, dict) or not whole:
        return
    what = ""
    if isinstance(whole.get("openapi"), str) or isinstance(whole.get("swagger"), str):
        what = "an OpenAPI document"
    elif isinstance(whole.get("apiVersion"), str) and isinstance(whole.get("kind"), str):
        what = f"a Kubernetes object of kind {whole['kind'][:60]}"
    elif set(whole) <= {"definitions", "$defs", "$schema", "$id", "id", "title", "description", "$comment"} and (
        "definitions" in whole or "$defs" in whole
    ):
        what = "a collection of schemas whose root says nothing"
    elif not set(whole) & set(ASSERTIONS) and any(name not in KNOWN and name[:2] != "x-" for name in whole):
        near = [hint for hint in (did_you_mean(name, KNOWN, cutoff=0.75) for name in list(whole)[:20]) if hint]
        hint = near[0] if near else 'is it a values file? A schema of it begins {"type": "object", "properties": ...}'
        reason = "this is not a JSON Schema: none of its keywords allows or forbids anything"
        raise VelagenError(Problem(reason, Place(file=origin, pointer=""), hint))
    if what:
        found = list(_inside(whole))
        hint = "name the schema in it with --at, such as --at " + " or ".join(found[:4]) if found else ""
        raise VelagenError(Problem(f"this is {what}, not a JSON Schema", Place(file=origin, pointer=""), hint))


def _inside(whole: Mapping[str, Any]) -> Iterator[str]:
    """Where schemas usually lie in a larger document."""
    spec = whole.get("spec")
    versions = spec.get("versions") if isinstance(spec, dict) else None
    for number, version in enumerate(versions if isinstance(versions, list) else []):
        if isinstance(version, dict) and isinstance(version.get("schema"), dict):
            yield pointer(["spec", "versions", number, "schema", "openAPIV3Schema"])
    for path in (("components", "schemas"), ("definitions",), ("$defs",)):
        found: Any = whole
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        for name in found if isinstance(found, dict) else ():
            yield pointer([*path, name])


def _within(whole: Any, at: str, origin: str) -> Any:
    """What stands at the JSON pointer *at*. Raises VelagenError with the nearest place that is there."""
    if not at.startswith("/"):
        raise VelagenError(Problem(f"{at!r} is not a JSON pointer", Place(file=origin), "it begins with /, as in /a/b"))
    found = whole
    here = ""
    for step in (part.replace("~1", "/").replace("~0", "~") for part in at[1:].split("/")):
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdecimal() and len(step) < 7 and int(step) < len(found):
            found = found[int(step)]
        else:
            known = [str(name) for name in found] if isinstance(found, dict) else []
            hint = did_you_mean(step, known) or (f"known there: {', '.join(known[:12])}" if known else "")
            raise VelagenError(Problem(f"there is no {step!r}", Place(file=origin, pointer=here), hint))
        here += pointer([step])
    return found


# ---------------------------------------------------------------- several files


@dataclass
class _Bundle:
    """Brings into one document what it refers to elsewhere, each target once, under ``$defs``."""

    path: Path
    whole: Any
    at: str
    others: tuple[Path, ...]
    #: File and fragment -> name under ``$defs``, and what stands there.
    names: dict[tuple[Path, str], str] = field(default_factory=dict)
    defs: dict[str, Any] = field(default_factory=dict)
    files: dict[Path, Any] = field(default_factory=dict)
    ids: dict[str, Path] | None = None
    #: The names of the schemas that stand inside the document itself.
    embedded: set[str] = field(default_factory=set)

    def of(self, document: Any) -> Any:
        """*document* itself where it refers to nothing outside, else a copy with all of it inside."""
        here = self.path.resolve()
        self.files[here] = self.whole
        root = _id_of(self.whole)
        self.embedded = {name for one in _ids(self.whole) for name in (one, urljoin(root, one))}
        if not any(self._leads_out(one) for one in _references(document)):
            return document
        # Inside a larger document its own `#/...` leads out of the schema, too.
        copy = self._rewritten(document, here, root, keep=not self.at)
        held = copy.get("$defs", {})
        return {**copy, "$defs": {**held, **self.defs}}

    def _leads_out(self, reference: str) -> bool:
        return bool(self.at) or not (reference.startswith("#") or self._is_embedded(reference, _id_of(self.whole)))

    def _is_embedded(self, reference: str, base: str) -> bool:
        address = reference.partition("#")[0]
        return bool({address, urljoin(base, address)} & self.embedded)

    def _rewritten(self, value: Any, file: Path, base: str, *, keep: bool) -> Any:
        """A copy of *value*, which stands in *file*, with its references turned to ``$defs``."""
        if isinstance(value, list):
            return [self._rewritten(item, file, base, keep=keep) for item in value]
        if not isinstance(value, dict):
            return value
        out = {
            name: item if name in _DATA else self._rewritten(item, file, base, keep=keep)
            for name, item in value.items()
        }
        reference = value.get("$ref")
        inside = keep and isinstance(reference, str) and (reference[:1] == "#" or self._is_embedded(reference, base))
        if isinstance(reference, str) and not inside:
            try:
                out["$ref"] = "#/$defs" + pointer([self._name(reference, file, base)])
            except _Nowhere as error:
                if reference.startswith(("http:", "https:")) or not str(error):
                    return out  # a meta-schema, or told by the reader of the schema, with its pointer
                raise VelagenError(
                    Problem(f"$ref {reference!r} leads nowhere: {error}", Place(file=str(file)), _HINT)
                ) from error
        return out

    def _name(self, reference: str, file: Path, base: str) -> str:
        address, _, fragment = reference.partition("#")
        target = self._file(address, file, base) if address else file
        fragment = unquote(fragment)
        key = (target, fragment)
        if key not in self.names:
            if len(self.names) > _MOST_OTHERS:
                raise VelagenError(Problem("the schema refers to too many others", Place(file=str(self.path)), _HINT))
            whole = self._contents(target)
            found: Any = whole
            if fragment.startswith("/"):
                try:
                    found = _within(whole, fragment, str(target))
                except VelagenError as error:
                    raise _Nowhere(str(error.problems[0])) from error
            elif fragment:
                raise _Nowhere(f"of another file a JSON pointer is followed, not the anchor {fragment}")
            name = "".join(part for part in (target.name if target != self.path.resolve() else "", fragment) if part)
            name = name.strip("/") or "root"
            while name in self.defs or (isinstance(self.whole, dict) and name in self.whole.get("$defs", {})):
                name += "_"
            self.names[key] = name
            self.defs[name] = True  # its place, for what refers back to it
            copy = self._rewritten(found, target, _id_of(whole), keep=False)
            if isinstance(copy, dict):
                # Its own name would set another base for what stands in it.
                copy = {word: item for word, item in copy.items() if word not in ("$id", "id", "$schema")}
            self.defs[name] = copy
        return self.names[key]

    def _file(self, address: str, file: Path, base: str) -> Path:
        if base or urlsplit(address).scheme:
            known = self._by_id().get(urljoin(base, address).rstrip("#"))
            if known is not None:
                return known
        if urlsplit(address).scheme not in ("", "file"):
            raise _Nowhere
        named = (file.parent / unquote(urlsplit(address).path)).resolve()
        folders = [self.path.resolve().parent, *(one.resolve() for one in self.others)]
        if not named.exists():
            raise _Nowhere(f"there is no file {named.name} beside it")
        if not any(named == folder or folder in named.parents for folder in folders):
            raise _Nowhere(f"{named} lies outside the schema's folder")
        return named

    def _contents(self, file: Path) -> Any:
        if file not in self.files:
            self.files[file] = _read(file)
        return self.files[file]

    def _by_id(self) -> dict[str, Path]:
        if self.ids is None:
            self.ids = {}
            for place in (self.path.resolve().parent, *self.others):
                listed = (
                    sorted(place.rglob("*")) if place in self.others and place.is_dir() else sorted(place.glob("*"))
                )
                for file in ([place] if place.is_file() else listed)[:_MOST_FILES]:
                    if file.suffix in _SUFFIXES and file.is_file():
                        try:
                            name = _id_of(self._contents(file.resolve()))
                        except VelagenError:
                            continue  # it is not asked for, or is missed by its name
                        if name:
                            self.ids.setdefault(name.rstrip("#"), file.resolve())
        return self.ids


class _Nowhere(Exception):  # noqa: N818  # caught in this file
    """Raised for a reference that no file answers; empty where the schema's reader has better words."""


#: What holds values, and not schemas.
_DATA = frozenset(["const", "enum", "default", "examples", "example"])
_HINT = "put the file beside the schema, or name it with --refs"


def _id_of(document: Any) -> str:
    found = (document.get("$id") or document.get("id")) if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""


def _ids(document: Any) -> Iterator[str]:
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if _id_of(value):
                yield _id_of(value)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _references(document: Any) -> Iterator[str]:
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            stack.extend(item for name, item in value.items() if name not in _DATA)
        elif isinstance(value, list):
            stack.extend(value)
