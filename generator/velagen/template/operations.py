"""What KubeVela's workflow engine can do in a step: its operations, their ``$params`` and ``$returns``.

``operations.json`` is written by :func:`read_operations` from KubeVela's own CUE files (kubevela/workflow
pkg/providers/*/*.cue, kubevela pkg/workflow/providers/*/*.cue) of each version that is supported; a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velagen.template.types import UNKNOWN, Answer, Fields, JsonType, Member, ObjectType, Observed, Type

if TYPE_CHECKING:
    from velagen.oracle import Oracle

DATA = Path(__file__).with_name("operations.json")

#: Operations that are there and do not do what they say, with what to write instead.
TRAPS: Mapping[tuple[str, str], str] = {
    (
        "vela/http",
        f"#HTTP{method.capitalize()}",
    ): f'sends GET, since its method does not reach $params: write "#HTTPDo" with "method": "{method}"'
    for method in ("GET", "POST", "PUT", "DELETE")
} | {
    (
        "vela/oam",
        "#ApplyApplicationInParallel",
    ): 'is made of others and takes no $params: write "#LoadComponetsInOrder" and "#ApplyComponent"',
    (
        "vela/query",
        "#GetApplicationTree",
    ): 'takes no $params, so no application reaches it: write "#ListAppliedResources"',
}


#: Fields without which an operation never does what it is for, though they have a default.
_NEEDED: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("vela/builtin", "#ConditionalWait"): {"continue": "without it the step waits for ever"},
}


def needed(package: str, name: str) -> Mapping[str, str]:
    """The fields of ``$params`` that must be written though the operation has a default, with the reason."""
    return _NEEDED.get((package, name), {})


@dataclass(frozen=True)
class Operation:
    """One operation; a schema is None where the operation takes, or gives, nothing."""

    do: str
    provider: str
    params: Mapping[str, Any] | None
    returns: Mapping[str, Any] | None
    #: The versions of KubeVela that have it.
    versions: tuple[str, ...]

    def result(self, seen: Type = UNKNOWN) -> Type:
        """What a field with this operation is; *seen* is the object that it reads or applies, where that is known."""
        members = {}
        if self.params is not None:
            members["$params"] = Member(ObjectType(self.params), present=True)
        if self.returns is not None:
            found = Observed(ObjectType(_as_filled(self.returns)))
            known = {name: make(seen) for name, make in _SEEN_IN.items() if seen.known and found.declared(name)}
            members["$returns"] = Member(Answer(found, known) if known else found, present=False)
        return Fields(members)


def _listed(seen: Type) -> Type:
    """What the API server answers to a list. Source: k8s.io/apimachinery, unstructured.UnstructuredList."""
    members = {name: Member(UNKNOWN, present=True) for name in ("apiVersion", "kind", "metadata")}
    return Fields({**members, "items": Member(JsonType("array", items=seen), present=True)})


#: Where in an answer what an operation is about is found again: kubevela/workflow pkg/providers/kube/kube.cue.
_SEEN_IN: Mapping[str, Callable[[Type], Type]] = {
    "value": lambda seen: seen,
    "result": lambda seen: seen,
    "values": _listed,
}


def _as_filled(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """*schema* without the ``...`` behind fields that are declared.

    The engine fills an answer from a Go struct, and there is no more in it than that has (ResponseVars in
    kubevela/workflow pkg/providers/http/http.go; ServiceEndpoint in kubevela pkg/utils/types/ql_type.go).
    """
    found = dict(schema)
    if found.get("properties") and found.get("additionalProperties") == {}:
        del found["additionalProperties"]
    if "properties" in found:
        found["properties"] = {name: _as_filled(one) for name, one in found["properties"].items()}
    if isinstance(found.get("items"), Mapping):
        found["items"] = _as_filled(found["items"])
    return found


@cache
def operations() -> dict[str, dict[str, Operation]]:
    """All operations, by package (``vela/kube``) and name (``#Apply``)."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    return {
        package: {
            name: Operation(one["do"], one["provider"], one["params"], one["returns"], tuple(one["versions"]))
            for name, one in named.items()
        }
        for package, named in data["operations"].items()
    }


@cache
def versions() -> tuple[str, ...]:
    """The versions of KubeVela that were read."""
    return tuple(json.loads(DATA.read_text(encoding="utf-8"))["versions"])


# ---------------------------------------------------------------- from KubeVela's files


def read_operations(oracle: Oracle, sources: Mapping[str, tuple[Path, Path]]) -> dict[str, Any]:
    """What operations.json holds, from the folders of kubevela/workflow and kubevela of each version.

    Raises ValueError where two versions differ in more than that one has an operation which the other lacks.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for version, (workflow, kubevela) in sources.items():
        files = [*workflow.glob("pkg/providers/*/*.cue"), *kubevela.glob("pkg/workflow/providers/*/*.cue")]
        # KubeVela's own config stands in for the engine's.
        for package, text in sorted({file.parent.name: file.read_text(encoding="utf-8") for file in files}.items()):
            for name in re.findall(r"^(#\w+):", text, re.MULTILINE):
                one = _read(oracle, text, name)
                if one is None:
                    continue
                known = found.setdefault(f"vela/{package}", {}).setdefault(name, {**one, "versions": []})
                if {**known, "versions": []} != {**one, "versions": []}:
                    raise ValueError(f"{package}.{name} of KubeVela {version} differs from that of {known['versions']}")
                known["versions"].append(version)
    return {"versions": list(sources), "operations": found}


def _read(oracle: Oracle, text: str, name: str) -> dict[str, Any] | None:
    body = text[text.index(f"\n{name}:") if not text.startswith(f"{name}:") else 0 :]
    body = re.split(r"\n(?=#\w+:)", body.lstrip("\n"))[0]
    labels = {word: re.search(rf'#{word}:\s*"([^"]+)"', body) for word in ("do", "provider")}
    if name not in {trap for _, trap in TRAPS} and not all(labels.values()):
        return None
    answer = oracle.openapi(f"{text}\nparameter: {name}")
    do, provider = labels["do"], labels["provider"]
    schemas: dict[str, Any] = {}
    for word in ("params", "returns"):
        # What KubeVela's conversion can't say (a list of just one item) is taken to be anything.
        unknown: dict[str, Any] | None = {} if f"${word}" in body else None
        schemas[word] = _bare(answer.result.get("properties", {}).get(f"${word}")) if answer.ok else unknown
    return {"do": do[1] if do else "", "provider": provider[1] if provider else "", **schemas}


def written(data: Mapping[str, Any]) -> str:
    """*data* as it lies in the file: an operation a line."""
    packages = []
    for package, named in data["operations"].items():
        lines = ",\n".join(f"   {json.dumps(name)}: {json.dumps(one)}" for name, one in named.items())
        packages.append(f"  {json.dumps(package)}: {{\n{lines}\n  }}")
    inside = ",\n".join(packages)
    return f'{{\n "versions": {json.dumps(data["versions"])},\n "operations": {{\n{inside}\n }}\n}}\n'


def _bare(schema: Any) -> Any:
    """*schema* without what is for people."""
    if isinstance(schema, dict):
        named = {
            key: {name: _bare(one) for name, one in value.items()} if key == "properties" else _bare(value)
            for key, value in schema.items()
            if key not in {"title", "description"} or not isinstance(value, str)
        }
        return dict(sorted(named.items()))
    return list(map(_bare, schema)) if isinstance(schema, list) else schema


def names_in(schema: Mapping[str, Any]) -> Iterator[str]:
    """The fields that must be written: required, and without a default, of which the conversion drops null."""
    for name in schema.get("required", ()):
        field = schema.get("properties", {}).get(name, {})
        if "default" not in field and not field.get("nullable"):
            yield name
