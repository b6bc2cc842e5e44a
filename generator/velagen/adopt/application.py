"""An Application for an InferenceService: the component, a trait for what has no property, and a proof by rendering.

What the properties do not reach is not guessed: KubeVela renders them, and what comes back otherwise than it was goes
into a trait json-merge-patch, field by field. So nothing is dropped, and a property that is added to the component's
schema and to the table takes its field over from the trait.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from velagen.adopt.compare import ABSENT, Difference, Path, added, differences, normal
from velagen.adopt.convert import Draft, Mode, drafted
from velagen.adopt.table import OTHER_TOOLS
from velagen.errors import Problem

#: Renders an Application: the objects, or the problems that KubeVela, or the schema, has with it.
Renderer = Callable[[dict[str, Any]], "list[dict[str, Any]] | list[Problem]"]
SERVICE: Final = ("serving.kserve.io/v1beta1", "InferenceService")
_COMPONENT: Final = "kfserving"
#: Properties whose values the component itself may refuse, because it sets the same thing: they go into the trait.
_MAY_BE_REFUSED: Final = (
    "args",
    "env",
    "resources",
    "batcher",
    "modelFormat",
    "containerConcurrency",
    "runAsUser",
    "logger",
    "pod",
    "transformer",
    "explainer",
)
_REPLICAS: Final = ("minReplicas", "maxReplicas")
#: What the trait autoscale writes.
_SCALING: Final = (*_REPLICAS, "scaleMetric", "scaleTarget")
#: Without these the component is nothing.
_NEEDED: Final = frozenset(("runtime", "servingRuntime", "modelUri", "image"))


@dataclass
class Adopted:
    """What became of one InferenceService."""

    service: dict[str, Any]
    application: dict[str, Any]
    #: For a reader of the Application, one line each.
    notes: list[str] = field(default_factory=list)
    #: The paths that the trait carries.
    patched: list[str] = field(default_factory=list)
    #: What the component adds.
    added: list[str] = field(default_factory=list)
    #: Whether it is a component kfserving, and not the object as it is.
    is_model: bool = True

    @property
    def name(self) -> str:
        """Of the InferenceService."""
        return str((self.service.get("metadata") or {}).get("name", ""))


def adopted(
    service: dict[str, Any],
    render: Renderer,
    known: Iterable[str],
    *,
    beside: Iterable[dict[str, Any]] = (),
    default_mode: Mode = "standard",
    exact: bool = False,
    keep_pods: bool = False,
) -> Adopted:
    """The Application for an InferenceService.

    In: the object; what renders; the component's properties, dotted; objects that belong to it (a ScaledObject, an
    HTTPRoute); the mode where the object does not say it. With *exact* the trait takes away what the component adds, so
    that the object does not change at all; with *keep_pods* all of it but labels and annotations, which pods that run
    can get. Raises VelagenError where KubeVela can't be asked.
    """
    metadata = service.get("metadata") or {}
    result = Adopted(service, {}, _left_out(service))
    draft = drafted(service, frozenset(known), default_mode)
    traits: list[dict[str, Any]] = []
    if not draft.impossible:
        traits = _proven(service, draft, render, result, exact=exact, keep_pods=keep_pods)
    if draft.impossible:
        result.is_model = False
        result.notes.append(f"as it is: {draft.impossible}")
        component = {"name": metadata.get("name"), "type": "k8s-objects", "properties": {"objects": [_bare(service)]}}
    else:
        result.notes += draft.notes
        component = _component(service, draft.properties, traits)
    components = [component]
    for one in beside:
        other = f"{component['name']}-{str(one.get('kind', '')).lower()}"
        result.notes.append(
            f"{one.get('kind')} {(one.get('metadata') or {}).get('name')}: a component of its own, as it is"
        )
        components.append({"name": other, "type": "k8s-objects", "properties": {"objects": [_bare(one)]}})
    result.application = _application(service, components)
    return result


def check(result: Adopted, render: Renderer) -> list[Difference] | list[Problem]:
    """Render an Application once more: where what comes back is not what was there. Empty where it is equal."""
    back = render(result.application)
    services = _services(back)
    if services is None:
        return [one for one in back if isinstance(one, Problem)]
    return differences(result.service, services)


def _proven(
    service: dict[str, Any], draft: Draft, render: Renderer, result: Adopted, *, exact: bool, keep_pods: bool
) -> list[dict[str, Any]]:
    """The traits that the properties need so that the object comes back; marks the draft where nothing helps."""
    properties = draft.properties
    reserve = [one for one in _MAY_BE_REFUSED if one in properties]
    while True:
        back = render(_application(service, [_component(service, properties, [])]))
        found = _services(back)
        if found is not None:
            break
        problems = [one for one in back if isinstance(one, Problem)]
        blamed = _blamed(problems, properties) or reserve[:1]
        if not blamed:
            draft.impossible = f"the component does not take it: {problems[0].message if problems else 'no reason'}"
            return []
        for one in blamed:
            properties.pop(one, None)
            if one in reserve:
                reserve.remove(one)
    traits, found = _autoscaled(service, draft, render, found)
    remaining = differences(service, found, strict=exact)
    if keep_pods and not exact:
        strictly = differences(service, found, strict=True)
        taken = [one for one in strictly if one not in remaining and not _is_metadata(one.path)]
        remaining += taken
        if any(one.wanted is ABSENT for one in taken):
            result.notes.append(
                "--keep-pods: the trait's nulls take away what the component would add to containers, which would "
                "replace the pods; take them out at the next change that does so anyway"
            )
    elif properties.get("runtime", "other") in ("pytorch", "other") and not exact:
        # Asked of a name, or on a path, of which nothing is known here.
        remaining += [
            one
            for one in differences(service, found, strict=True)
            if one.path[:4] == ("spec", "predictor", "model", "readinessProbe") and one not in remaining
        ]
    result.added = [] if exact else added(service, found)
    if keep_pods:
        result.added = [one for one in result.added if one.startswith(("*.annotations.", "*.labels."))]
    if not remaining:
        return traits
    wanted = normal(service)
    patch = _patch(remaining, wanted, found)
    result.patched = list(dict.fromkeys(".".join(_up_to_list(one.path, wanted, found)[0]) for one in remaining))
    return [*traits, {"type": "json-merge-patch", "properties": patch}]


def _autoscaled(
    service: dict[str, Any], draft: Draft, render: Renderer, found: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The trait autoscale with what is rendered then, where it brings the fields back; else none, with what was found.

    The replicas are its own then, and leave the properties.
    """
    if not draft.autoscale:
        return [], found
    traits = [{"type": "autoscale", "properties": draft.autoscale}]
    properties = {key: value for key, value in draft.properties.items() if key not in _REPLICAS}
    scaled = _services(render(_application(service, [_component(service, properties, traits)])))
    if scaled is None or any(one.path[-1] in _SCALING for one in differences(service, scaled)):
        return [], found
    draft.properties = properties
    return traits, scaled


def _is_metadata(path: Path) -> bool:
    """Whether a path is of the labels or annotations of an InferenceService, or of a part's pods."""
    return path[0] == "metadata" or path[2:3] in (("labels",), ("annotations",))


def _blamed(problems: list[Problem], properties: Mapping[str, Any]) -> list[str]:
    """The properties that problems point at, without those the component can't do without."""
    found = []
    for one in problems:
        _, is_there, below = (one.place.pointer or "").partition("/properties/")
        name = below.split("/")[0]
        if is_there and name in properties and name not in _NEEDED:
            found.append(name)
    return list(dict.fromkeys(found))


def _patch(remaining: list[Difference], wanted: dict[str, Any], got: dict[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7396) that takes one object to the other; a list is replaced whole."""
    patch: dict[str, Any] = {}
    for one in remaining:
        path, value = _up_to_list(one.path, wanted, got)
        here = patch
        for part in path[:-1]:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                break
        if isinstance(here, dict):
            here[path[-1]] = None if value is ABSENT else copy.deepcopy(value)
    return patch


def _up_to_list(path: Path, wanted: Any, got: Any) -> tuple[Path, Any]:
    """The path down to the first list on it, or to where the object has nothing any more, and what it has there."""
    for depth, part in enumerate(path):
        wanted = wanted.get(part, ABSENT)
        got = got.get(part, ABSENT) if isinstance(got, dict) else ABSENT
        if wanted is ABSENT or not isinstance(wanted, dict) or isinstance(got, list) or depth == len(path) - 1:
            return path[: depth + 1], wanted
    return path, wanted


def _services(back: Iterable[Any]) -> dict[str, Any] | None:
    """The InferenceService among rendered objects; None where there are problems in their place."""
    for one in back:
        if isinstance(one, dict) and one.get("kind") == SERVICE[1]:
            return one
    return None


def _component(service: dict[str, Any], properties: dict[str, Any], traits: list[dict[str, Any]]) -> dict[str, Any]:
    name = (service.get("metadata") or {}).get("name")
    made = {"name": name, "type": _COMPONENT, "properties": properties}
    return {**made, "traits": traits} if traits else made


def _application(service: dict[str, Any], components: list[dict[str, Any]]) -> dict[str, Any]:
    metadata = service.get("metadata") or {}
    own = {"name": metadata.get("name")}
    if metadata.get("namespace"):
        own["namespace"] = metadata["namespace"]
    kinds = sorted({_kind_of(one) for one in components})
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": own,
        "spec": {
            "components": components,
            # Without it KubeVela refuses an object that is there and is nobody's.
            "policies": [
                {
                    "name": "take-over",
                    "type": "take-over",
                    "properties": {"rules": [{"selector": {"resourceTypes": kinds}}]},
                }
            ],
        },
    }


def _kind_of(component: dict[str, Any]) -> str:
    objects = component["properties"].get("objects")
    return str(objects[0].get("kind", "")) if objects else SERVICE[1]


def _bare(thing: dict[str, Any]) -> dict[str, Any]:
    """An object as a person would write it: without what the cluster put there."""
    metadata = {
        key: value
        for key, value in (thing.get("metadata") or {}).items()
        if key in ("name", "namespace", "labels", "annotations")
    }
    for kind in ("labels", "annotations"):
        kept = {key: one for key, one in (metadata.get(kind) or {}).items() if not key.startswith(OTHER_TOOLS)}
        if kept:
            metadata[kind] = kept
        else:
            metadata.pop(kind, None)
    return {**{key: value for key, value in thing.items() if key not in ("metadata", "status")}, "metadata": metadata}


def _left_out(service: dict[str, Any]) -> list[str]:
    """What is not carried over, and why."""
    metadata = service.get("metadata") or {}
    notes = []
    for kind in ("labels", "annotations"):
        others = sorted(key for key in (metadata.get(kind) or {}) if key.startswith(OTHER_TOOLS))
        if others:
            notes.append(f"left out, since the tools that wrote them would apply it too: {', '.join(others)}")
    if metadata.get("ownerReferences"):
        owners = ", ".join(f"{one.get('kind')} {one.get('name')}" for one in metadata["ownerReferences"])
        notes.append(f"left out: it belongs to {owners}, which makes it again and deletes it")
    if metadata.get("finalizers"):
        notes.append(f"left out: finalizers {', '.join(map(str, metadata['finalizers']))}, which controllers set")
    return notes
