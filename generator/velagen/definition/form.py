"""Is a definition of the right form.

Names are ones that Kubernetes takes, a Workload stands where one is asked for, and constants where KubeVela reads
constants. The template compiler checks what stands in its bodies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from velagen.definition.model import DEFINITION_TYPES, AddonTemplate, Definition, Status, Workload
from velagen.errors import Place, Problem
from velagen.template.body import Refusal
from velagen.template.expression import is_constant, readable

#: A definition's name is a label's value and part of other names. Source: kubevela pkg/oam/labels.go
#: (trait.oam.dev/type), pkg/controller/utils/capability.go (ConfigMaps called component-schema-NAME).
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 63
#: Source: kubevela pkg/oam/util/helper.go and apis/core.oam.dev/v1beta1/trait_definition_types.go, StageType.
_STAGES = ("", "PreDispatch", "DefaultDispatch", "PostDispatch")
_WORKLOAD = 'Workload("apps/v1", "Deployment")'

#: A check gives what it finds wrong, as the end of a sentence that begins with the field's name.
_Check = Callable[[Any], Iterator[str]]


def check_form(definition: Definition | AddonTemplate) -> list[Problem]:
    """Everything that is wrong with the form of *definition*; nothing else can be said of it until that is right."""
    place = Place(definition.place.file, definition.place.line, definition.place.column)
    word = type(definition).__name__
    problems = []
    for one in fields(definition):
        check = _CHECKS.get(one.name)
        if check is not None:
            value = getattr(definition, one.name)
            problems += [Problem(f"{one.name}= of {word} {readable(what)}", place) for what in check(value)]
    return problems


def check_name(definition: Definition, builtin: Callable[[], frozenset[tuple[str, str]]]) -> list[Problem]:
    """What is wrong with the name; *builtin* gives kinds and names of KubeVela's own definitions."""
    kind, name = DEFINITION_TYPES[type(definition)], definition.name
    place = Place(definition.place.file, definition.place.line, definition.place.column)
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        return [
            Problem(
                f"name={name!r} is not a name that Kubernetes takes: small letters, digits and -, at most "
                f"{_LONGEST_NAME} characters",
                place,
            )
        ]
    if not definition.replaces_builtin and (kind, name) in builtin():
        return [
            Problem(
                f"KubeVela has a {kind} called {name!r} of its own, which this one would replace for every application",
                place,
                "choose another name, or say that it is meant: replaces_builtin=True",
            )
        ]
    return []


# ---------------------------------------------------------------- what each field takes


def _is(value: object) -> str:
    return f"not {'None' if value is None else type(value).__name__}"


def _text(value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"takes a text, {_is(value)}"
    elif not is_constant(value):
        yield f"is the same for every application, so it takes no expression: {value}"


def _filled(value: Any) -> Iterator[str]:
    yield from _text(value)
    if isinstance(value, str) and not value.strip():
        yield "is empty"


def _texts(value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"takes a dict of texts, {_is(value)}"
        return
    for key, item in value.items():
        for what in (*_text(key), *_text(item)):
            yield f"[{key!r}] {what}" if isinstance(key, str) and is_constant(key) else what


def _list_of(check: _Check, what: str) -> _Check:
    def checked(value: Any) -> Iterator[str]:
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
            yield f"takes a list of {what}, {_is(value)}"
            return
        for number, item in enumerate(value):
            yield from (f"[{number}] {one}" for one in check(item))

    return checked


def _workload(value: Any) -> Iterator[str]:
    if not isinstance(value, Workload):
        yield f"takes {_WORKLOAD}, {_is(value)}"
        return
    for name in ("api_version", "kind", "plural"):
        yield from (f"{what} ({name} of the Workload)" for what in _text(getattr(value, name)))


def _workloads(value: Any) -> Iterator[str]:
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], Workload):
        yield from _list_of(_workload, "workloads")(value)
    elif value is not None:
        yield from _workload(value)


def _refusal(value: Any) -> Iterator[str]:
    if not isinstance(value, Refusal):
        yield f'takes refuse(condition, "sentence"), {_is(value)}'


def _mapping(value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"takes a dict, {_is(value)}"


def _perhaps(check: _Check) -> _Check:
    return lambda value: iter(()) if value is None else check(value)


def _flag(value: Any) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"takes True or False, {_is(value)}"


def _status(value: Any) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, Status):
        yield f"takes Status(…), {_is(value)}"
        return
    if not isinstance(value.details, Mapping):
        yield f"takes a dict as details, {_is(value.details)}"
        return
    for name in value.details:
        yield from (f"has a detail whose name {what}" for what in _text(name))


def _stage(value: Any) -> Iterator[str]:
    yield from _text(value)
    if isinstance(value, str) and is_constant(value) and value not in _STAGES:
        yield f"takes one of {', '.join(_STAGES[1:])}, not {value!r}"


_CHECKS: dict[str, _Check] = {
    "name": _filled,
    "description": _filled,
    "labels": _texts,
    "annotations": _texts,
    "replaces_builtin": _flag,
    "workload": _workload,
    "outputs": _mapping,
    "checks": _list_of(_refusal, "refusals"),
    "status": _status,
    "child_resource_kinds": _list_of(_texts, "dicts"),
    "pod_spec_path": _text,
    "instead_of": _texts,
    "patches": _workloads,
    "patch": _perhaps(_mapping),
    "patch_outputs": _perhaps(_mapping),
    "applies_to": _list_of(_text, "texts"),
    "conflicts_with": _list_of(_text, "texts"),
    "pod_disruptive": _flag,
    "manage_workload": _flag,
    "workload_ref_path": _text,
    "stage": _stage,
    "manage_health_check": _flag,
    "body": _mapping,
    "category": _text,
}
