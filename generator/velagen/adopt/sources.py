"""The InferenceServices of files and of a cluster, each with the objects that belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from velagen.documents import Document, read_documents
from velagen.errors import Place, Problem, VelagenError
from velagen.kserve.cut import PARTS

_GROUP: Final = "serving.kserve.io/"
#: Kinds that may belong to an InferenceService, with what a cluster is asked for them.
_BESIDE: Final = {
    "ScaledObject": ("keda.sh", "v1alpha1", "scaledobjects"),
    "HTTPRoute": ("gateway.networking.k8s.io", "v1", "httproutes"),
}
_NOT_FOUND: Final = 404


@dataclass
class Found:
    """An InferenceService, where it comes from, and what belongs to it."""

    origin: str
    service: dict[str, Any]
    beside: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Sources:
    """All that was read."""

    found: list[Found]
    #: Objects that do not belong to a model: ``Secret storage-config``.
    others: list[str]


def of_files(files: Sequence[Path]) -> Sources:
    """The InferenceServices of YAML and JSON files; a List is its items.

    Raises VelagenError with all that is wrong in any of them.
    """
    problems: list[Problem] = []
    objects: list[tuple[str, Document, dict[str, Any]]] = []
    for file in files:
        try:
            for document in read_documents(file):
                objects += [(str(file), document, one) for one in _items(document.value)]
        except VelagenError as error:
            problems += error.problems
    for _, document, one in objects:
        problem = _problem(one)
        if problem:
            problems.append(Problem(problem, document.place()))
    if problems:
        raise VelagenError(problems)
    return _matched([(origin, one) for origin, _, one in objects])


def of_cluster(namespace: str, names: Sequence[str] = ()) -> Sources:
    """Those of a namespace of the cluster that the kubeconfig names; with *names* those alone.

    Raises VelagenError if no cluster is reachable, or a named InferenceService does not exist.
    """
    from kubernetes import client, config

    try:
        config.load_kube_config()
    except config.ConfigException as error:
        raise VelagenError(Problem(f"no cluster to read from: {error}", hint="KUBECONFIG says which")) from error
    api = client.CustomObjectsApi()

    def listed(group: str, version: str, plural: str) -> list[dict[str, Any]]:
        try:
            answer = api.list_namespaced_custom_object(group, version, namespace, plural)
        except client.ApiException as error:
            if error.status == _NOT_FOUND and group != "serving.kserve.io":
                return []
            raise VelagenError(Problem(f"the cluster has no {plural} for us: {error.reason}")) from error
        items: list[dict[str, Any]] = answer["items"]
        return items

    services = listed("serving.kserve.io", "v1beta1", "inferenceservices")
    there = {str(one["metadata"]["name"]) for one in services}
    missing = [name for name in names if name not in there]
    if missing:
        listing = f"there is: {', '.join(sorted(there))}" if there else "there is none"
        raise VelagenError(
            Problem(f"there is no InferenceService {name} in the namespace {namespace}", hint=listing)
            for name in missing
        )
    wanted = [one for one in services if not names or one["metadata"]["name"] in names]
    # Those that a controller made are made again by it: KServe's own, and its route.
    beside = [
        {"kind": kind, "apiVersion": f"{group}/{version}", **one}
        for kind, (group, version, plural) in _BESIDE.items()
        for one in listed(group, version, plural)
        if not (one.get("metadata") or {}).get("ownerReferences")
    ]
    kind = {"apiVersion": f"{_GROUP}v1beta1", "kind": "InferenceService"}
    everything = [(f"namespace {namespace}", {**kind, **one}) for one in wanted]
    return _matched([*everything, *((f"namespace {namespace}", one) for one in beside)], all_wanted=False)


def _items(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, dict):
        return []
    items = value.get("items")
    if isinstance(items, list) and str(value.get("kind", "")).endswith("List"):
        return [one for item in items for one in _items(item)]
    return [value]


def _problem(thing: dict[str, Any]) -> str:
    """Why an InferenceService can't be read; empty where it can, and for other kinds."""
    if thing.get("kind") != "InferenceService" or not str(thing.get("apiVersion", "")).startswith(_GROUP):
        return ""
    metadata, spec = thing.get("metadata"), thing.get("spec")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        return "this InferenceService has no metadata.name"
    if thing["apiVersion"] != f"{_GROUP}v1beta1":
        return f"{thing['apiVersion']} is not read, only {_GROUP}v1beta1"
    if not isinstance(spec, dict) or not isinstance(spec.get("predictor"), dict):
        return "this InferenceService has no spec.predictor"
    return ""


def _matched(objects: Iterable[tuple[str, dict[str, Any]]], *, all_wanted: bool = True) -> Sources:
    listed = list(objects)
    found = [
        Found(origin, one)
        for origin, one in listed
        if one.get("kind") == "InferenceService" and str(one.get("apiVersion", "")).startswith(_GROUP)
    ]
    others = []
    taken = {id(one.service) for one in found}
    for _, one in listed:
        if id(one) in taken:
            continue
        owner = next((service for service in found if _belongs(one, service.service)), None)
        if owner is not None:
            owner.beside.append(one)
        elif all_wanted:
            others.append(f"{one.get('kind', 'something')} {(one.get('metadata') or {}).get('name', '')}".strip())
    return Sources(found, others)


def _belongs(thing: dict[str, Any], service: dict[str, Any]) -> bool:
    """Whether a ScaledObject scales a part of a service, or a route leads to nothing but it."""
    own, its = thing.get("metadata") or {}, service.get("metadata") or {}
    if own.get("namespace", its.get("namespace")) != its.get("namespace", own.get("namespace")):
        return False
    name = str(its.get("name", ""))
    names = {name, *(f"{name}-{part}" for part in PARTS)}
    spec = thing.get("spec") or {}
    if thing.get("kind") == "ScaledObject":
        return (spec.get("scaleTargetRef") or {}).get("name") in names
    if thing.get("kind") == "HTTPRoute":
        backends = [ref.get("name") for rule in spec.get("rules") or () for ref in rule.get("backendRefs") or ()]
        return bool(backends) and names.issuperset(backends)
    return False


def nothing_there(files: Sequence[Path]) -> Problem:
    """For files in which there is no InferenceService."""
    return Problem("there is no InferenceService here", Place(", ".join(map(str, files)) or None))
