"""What a workflow step of the project says of an application before it asks the cluster anything.

``vela dry-run`` renders no steps. So a step's template is evaluated with its properties and the application's
components, as :func:`velagen.operation` ``#LoadComponets`` would give them, and with the application itself where it is
read; a list has an answer with nothing in it, and no other operation is answered but those that only compute. A
``#Fail`` that is reached so is certain, and its message is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from velagen.check.apps import Part, parts
from velagen.definition.catalog import Catalog, Known
from velagen.documents import Document
from velagen.errors import Problem, pointer
from velagen.kubevela import RELEASES
from velagen.oracle import Oracle, not_here

_IMPORT: Final = re.compile(r'^\s*(?:import\s+)?"vela/(\w+)"\n', re.MULTILINE)
_BODY: Final = re.compile(r"^template: \{\n(.*)^\}", re.MULTILINE | re.DOTALL)
_FIELD: Final = re.compile(r"(\w+): ")
#: In place of KubeVela's packages: what an operation gives without a cluster.
_STAND_INS: Final[Mapping[str, str]] = {
    "oam.#LoadComponets": "{$returns: value: _components, ...}",
    "kube.#Read": '{$params: {...}, if $params.value.kind == "Application" {$returns: value: _application}, ...}',
    "util.#ConvertString": '{$params: bt: bytes, $returns: str: "\\($params.bt)", ...}',
    "builtin.#Fail": "{$fails: true, ...}",
}
_UNANSWERED: Final = "{$returns?: {...}, ...}"
#: The end of a list that is written out (velagen.template.operations). It is answered, and nothing is in it: else what
#: a step looks at once it knows the time would not be looked at here.
_LIST: Final = re.compile(r'(#do: +"list"\n.*?\$returns)\?: \{\.\.\.\}', re.DOTALL)


def check_steps(document: Document, catalog: Catalog, kubevela: str | None = None) -> list[Problem]:
    """The steps that refuse the application, each with its place; *kubevela* is the version whose CUE evaluates them.

    Steps whose properties are wrong by their schema say so elsewhere, and nothing here.
    """
    found = [
        (part, known)
        for part in parts(document.value, "workflow-step")
        if (known := catalog.find("workflow-step", part.type)) is not None and known.own and known.cue
    ]
    if not found:
        return []
    version = next((one.cue for one in RELEASES if one.version == kubevela), RELEASES[0].cue)
    if (warning := not_here(version)) is not None:
        return [warning]
    with Oracle(version) as oracle:
        return [
            Problem(message, document.place(pointer((*part.path, "properties"))))
            for part, known in found
            for message in dict.fromkeys(_refusals(oracle, part, known, document.value))
        ]


def _refusals(oracle: Oracle, part: Part, known: Known, application: Mapping[str, Any]) -> Iterator[str]:
    text = _offline(known.cue or "")
    if text is None:
        return
    given = {
        "parameter": part.content.get("properties") or {},
        "_components": {one.name: one.content for one in parts(application, "component")},
        "_application": application,
        "context": {
            "name": "app",
            "appName": "app",
            "namespace": "default",
            "appRevision": "app-v1",
            "stepName": part.name,
            "stepSessionID": "none",
        },
    }
    extra = "\n".join(f"{name}: {json.dumps(value)}" for name, value in given.items())
    for field in _fields_that_fail(text):
        answer = oracle.eval(text, field, extra=f"\n{extra}")
        if answer.ok:
            yield from _failing(answer.result)


def _offline(text: str) -> str | None:
    """A definition's template without KubeVela's packages; None where it uses none."""
    packages, body = _IMPORT.findall(text), _BODY.search(text)
    if not packages or body is None:
        return None
    named = re.compile(rf"\b(?:{'|'.join(packages)})\.#\w+")
    inside = named.sub(lambda name: f"({_STAND_INS.get(name[0], _UNANSWERED)})", body[1])
    inside = _LIST.sub(r"\1: {}", inside)
    head = _IMPORT.sub("", text[: text.index(")\n") + 2]) if re.search(r"^import \(", text, re.MULTILINE) else ""
    return f"{head}\n{inside}\n_components: {{...}}\n_application: {{...}}\n"


def _fields_that_fail(text: str) -> Iterator[str]:
    """The fields of a template, those of its blocks too, below which a ``#Fail`` stands."""
    lines = text.splitlines(keepends=True)
    tabs = [len(line) - len(line.lstrip("\t")) for line in lines]
    around: list[str] = []
    for number, line in enumerate(lines):
        if not tabs[number]:
            continue
        around[tabs[number] - 1 :] = [line.strip()]
        if (field := _FIELD.match(line.strip())) and all(one.startswith("if ") for one in around[:-1]):
            end = next((at for at in range(number + 1, len(lines)) if tabs[at] <= tabs[number]), len(lines))
            if any("$fails" in one for one in lines[number:end]):
                yield field[1]


def _failing(value: Any) -> Iterator[str]:
    """The messages of all operations below *value* that fail."""
    if isinstance(value, dict):
        if value.get("$fails") is True:
            yield str(value.get("$params", {}).get("message", ""))
        for one in value.values():
            yield from _failing(one)
