"""An application file against the catalog: its shape, the names in it, the properties of each part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from velagen.definition.catalog import WORDS, Catalog, Kind, Known
from velagen.documents import Document
from velagen.errors import Problem, did_you_mean, pointer
from velagen.schema import validate
from velagen.schema.view import SchemaView

#: Source: kubevela pkg/appfile/appfile.go (the label app.oam.dev/appRevision); 1.10 takes longer names and fails later.
_LONGEST_APPLICATION = 63 - len("-v1")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Part:
    """A component, trait, policy or workflow step within an application."""

    kind: Kind
    path: _Path
    content: dict[str, Any]

    @property
    def type(self) -> str:
        """The definition it names; empty where it names none."""
        found = self.content.get("type")
        return found if isinstance(found, str) else ""

    @property
    def name(self) -> str:
        """Its own name; empty if it has none, or if the name is not text."""
        found = self.content.get("name")
        return found if isinstance(found, str) else ""


def is_application(document: Document) -> bool:
    """Whether a document says that it is an Application."""
    return isinstance(document.value, dict) and document.value.get("kind") == "Application"


def check_application(document: Document, catalog: Catalog) -> list[Problem]:
    """What is wrong in an application, as far as it can be told without rendering it; each with its place."""
    found = [*_shape(document, catalog), *_names(document)]
    for part in parts(document.value):
        found += _part(part, document, catalog)
    for component in parts(document.value, "component"):
        found += _traits(component, document, catalog)
        found += _not_for_it(component, document, catalog)
    return list(dict.fromkeys(found))


def misplaced_traits(document: Document, catalog: Catalog) -> dict[str, Problem]:
    """The traits at a component they don't apply to, by their JSON pointer.

    A trait may say so itself when it is rendered, and in words of its own: those go first.
    """
    found = {}
    for component in parts(document.value, "component"):
        workload = catalog.find("component", component.type)
        for part in _traits_of(component):
            known = catalog.find("trait", part.type)
            if known is None:
                continue
            at = document.place(pointer((*part.path, "type")))
            if workload is not None and not _applies(known, workload) and known.name not in workload.instead_of:
                found[pointer(part.path)] = Problem(
                    f"the trait {known.name} does not apply to a {component.type}",
                    at,
                    f"it applies to {', '.join(known.applies_to)}; {component.type} makes {workload.workload}",
                )
    return found


def check_other(document: Document, catalog: Catalog) -> list[Problem]:
    """What is wrong in an object that is not an application."""
    return [_placed(problem, document) for problem in catalog.objects.check(document.value)]


def parts(application: Any, only: Kind | None = None) -> Iterator[Part]:
    """The parts of an application that name a definition, in the order of the file; what is malformed is left out."""
    spec = application.get("spec") if isinstance(application, dict) else None
    if not isinstance(spec, dict):
        return
    found: list[Part] = []
    for path, component in _maps(spec.get("components"), ("spec", "components")):
        found.append(Part("component", path, component))
        found += [Part("trait", *one) for one in _maps(component.get("traits"), (*path, "traits"))]
    found += [Part("policy", *one) for one in _maps(spec.get("policies"), ("spec", "policies"))]
    workflow = spec.get("workflow")
    steps = workflow.get("steps") if isinstance(workflow, dict) else None
    for path, step in _maps(steps, ("spec", "workflow", "steps")):
        found.append(Part("workflow-step", path, step))
        found += [Part("workflow-step", *one) for one in _maps(step.get("subSteps"), (*path, "subSteps"))]
    yield from (part for part in found if only is None or part.kind == only)


def _maps(value: Any, path: _Path) -> Iterator[tuple[_Path, dict[str, Any]]]:
    for number, one in enumerate(value if isinstance(value, list) else []):
        if isinstance(one, dict):
            yield (*path, number), one


def _shape(document: Document, catalog: Catalog) -> Iterator[Problem]:
    for problem in catalog.objects.check(document.value):
        yield _placed(problem, document)
    spec = document.value.get("spec")
    if isinstance(spec, dict) and spec.get("components") == []:
        yield Problem("the application has no components", document.place("/spec/components"))


def _names(document: Document) -> Iterator[Problem]:
    metadata = document.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(name, str) and len(name) > _LONGEST_APPLICATION:
        yield Problem(
            f"the application's name may have at most {_LONGEST_APPLICATION} characters, and has {len(name)}",
            document.place("/metadata/name"),
            "KubeVela labels every object with NAME-v1, and Kubernetes takes labels of 63 characters at most",
        )
    first: dict[tuple[str, str], str] = {}
    steps = {part.name for part in parts(document.value, "workflow-step")}
    for part in parts(document.value):
        name = part.name
        if part.kind == "trait" or not isinstance(part.content.get("name"), str):
            continue
        at = pointer((*part.path, "name"))
        word = "step" if part.kind == "workflow-step" else part.kind
        if part.kind == "component" and (len(name) > 63 or not _NAME.fullmatch(name)):
            yield Problem(
                f'"{name}" is not a name Kubernetes takes',
                document.place(at),
                "at most 63 lower case letters, digits and '-', beginning and ending with a letter or digit",
            )
        if (word, name) in first:
            yield Problem(f"two of the {word}s are named {name}", document.place(at), f"the other: {first[word, name]}")
        place = document.place(at)
        first.setdefault((word, name), f"line {place.line}")
        needed = part.content.get("dependsOn")
        known = steps if part.kind == "workflow-step" else {one.name for one in parts(document.value)}
        for number, other in enumerate(needed if isinstance(needed, list) else []):
            if isinstance(other, str) and other not in known:
                yield Problem(
                    f"there is no {word} named {other}",
                    document.place(pointer((*part.path, "dependsOn", number))),
                    did_you_mean(other, known),
                )


def _part(part: Part, document: Document, catalog: Catalog) -> Iterator[Problem]:
    if not part.type:
        # The shape says it where there is none; a policy without a type passes the CRD's schema.
        return
    known = catalog.find(part.kind, part.type)
    if known is None:
        yield _unknown(part, document, catalog)
        return
    properties = part.content.get("properties")
    if known.schema is None or not (properties is None or isinstance(properties, dict)):
        return
    for problem in validate(known.schema, properties or {}):
        below = problem.place.pointer or ""
        at = pointer((*part.path, "properties")) + below
        hint = problem.hint or instead(known.schema.document, below)
        yield replace(problem, place=document.place(at), hint=hint)


def instead(document: Mapping[str, Any], at: str) -> str:
    """For a property the schema doesn't have, what to write: by its ``x-instead``, or the one that is spelt alike."""
    view = SchemaView(document)
    schema: Mapping[str, Any] = view.root
    *above, last = [step.replace("~1", "/").replace("~0", "~") for step in at.split("/")[1:]] or [""]
    for step in above:
        if step.isdecimal() and "items" in schema:
            schema = view.plain(schema["items"])
        else:
            schema = next((one.schema for one in view.properties(schema) if one.name == step), {})
    instead = schema.get("x-instead")
    if isinstance(instead, dict) and isinstance(instead.get(last), str):
        return f"write {instead[last]}"
    known = [one.name for one in view.properties(schema)]
    return "" if last in known or not last else did_you_mean(last, known)


def _unknown(part: Part, document: Document, catalog: Catalog) -> Problem:
    place = document.place(pointer((*part.path, "type")))
    other = catalog.elsewhere(part.kind, part.type)
    if other:
        hint = f"{part.type} is a {' and a '.join(WORDS[one].removesuffix(' type') for one in other)}"
    else:
        own = [one.name for one in catalog.known.values() if one.own and one.kind == part.kind]
        near = did_you_mean(part.type, catalog.names(part.kind))
        hint = near or (f"known here: {', '.join(sorted(own))}" if own else "")
    return Problem(f"there is no {WORDS[part.kind]} {part.type}", place, hint)


def _traits(component: Part, document: Document, catalog: Catalog) -> Iterator[Problem]:
    traits = [(part, catalog.find("trait", part.type)) for part in _traits_of(component)]
    for number, (part, known) in enumerate(traits):
        if known is None:
            continue
        at = document.place(pointer((*part.path, "type")))
        for before, earlier in traits[:number]:
            if earlier is None:
                continue
            if earlier.name == known.name:
                # KubeVela's own traits are often meant to be repeated (sidecar, storage).
                once = _once_per(known)
                if known.own and (not once or _value(part, known, once) == _value(before, known, once)):
                    each = f" for each {once}" if once else ""
                    yield Problem(
                        f"the trait {known.name} stands twice at this component: write one {known.name}{each}", at
                    )
            elif _conflict(known, earlier) or _conflict(earlier, known):
                yield Problem(f"the traits {earlier.name} and {known.name} can't stand at the same component", at)


def _once_per(known: Known) -> str:
    """The property for each of whose values the trait may stand once at a component, by the schema's ``x-once-per``."""
    return str(known.schema.document.get("x-once-per", "")) if known.schema is not None else ""


def _value(part: Part, known: Known, name: str) -> Any:
    """What is written of a property, or its default."""
    schema = known.schema.document if known.schema is not None else {}
    properties = part.content.get("properties")
    written = properties.get(name) if isinstance(properties, dict) else None
    return schema.get("properties", {}).get(name, {}).get("default") if written is None else written


def _not_for_it(component: Part, document: Document, catalog: Catalog) -> Iterator[Problem]:
    """Traits of which the component's definition says what to write instead; KubeVela takes many in silence."""
    workload = catalog.find("component", component.type)
    for part in _traits_of(component):
        if workload is not None and part.type in workload.instead_of:
            yield Problem(
                f"the trait {part.type} is not for a {component.type}",
                document.place(pointer((*part.path, "type"))),
                workload.instead_of[part.type],
            )


def _traits_of(component: Part) -> Iterator[Part]:
    for path, content in _maps(component.content.get("traits"), (*component.path, "traits")):
        yield Part("trait", path, content)


def _applies(trait: Known, component: Known) -> bool:
    """Source of the forms: kubevela apis/core.oam.dev/v1beta1/core_types.go (AppliesToWorkloads)."""
    if not trait.applies_to or component.workload in {"", "autodetects.core.oam.dev"}:
        return True
    return any(_fits(rule, component.workload, component.name) for rule in trait.applies_to)


def _conflict(trait: Known, other: Known) -> bool:
    return any(_fits(rule, other.name, other.name) for rule in trait.conflicts_with)


def _fits(rule: str, name: str, definition: str) -> bool:
    if rule.startswith("labelSelector:"):
        return rule.startswith("*")
    return rule in {"*", name, definition} or (rule.startswith("*.") and name.endswith(rule[1:]))


def _placed(problem: Problem, document: Document) -> Problem:
    return replace(problem, place=document.place(problem.place.pointer or ""))
