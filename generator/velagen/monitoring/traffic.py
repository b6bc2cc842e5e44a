"""Which share of a model's requests goes to each of its versions, as the objects on the cluster say.

Sources: Gateway API v1 HTTPRoute (weight: 1 where none is given; no request where all are 0), Istio VirtualService,
KServe v0.20.0 InferenceService (status.components.predictor.traffic, of Knative).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from velagen.kubernetes.objects import KubernetesObject

#: Of what KServe calls its Services: NAME-predictor, and NAME-transformer where requests come in there.
_ENTRIES: Final = ("-predictor", "-transformer")


@dataclass(frozen=True)
class Share:
    """What a version gets."""

    #: Per cent; None where no object says.
    weight: float | None = None
    #: It gets copies of requests, whose answers nobody sees.
    mirrored: bool = False


def shares(versions: Iterable[str], routes: Iterable[KubernetesObject]) -> dict[str, Share]:
    """What each version gets, by the routes of a namespace.

    Args:
        versions: names of InferenceServices.
        routes: HTTPRoutes and VirtualServices.

    Only a rule that names two of the versions splits traffic: KServe makes a route for each InferenceService, too.
    """
    known = {name + entry: name for name in versions for entry in ("", *_ENTRIES)}
    found: dict[str, Share] = {}
    for route in routes:
        for backends, mirrors in _rules(route):
            total = sum(weight for _, weight in backends)
            mine: dict[str, float] = {}
            for name, weight in backends:
                if name in known:
                    mine[known[name]] = mine.get(known[name], 0) + weight
            copies = {known[name] for name in mirrors if name in known} - set(mine)
            if len(mine) + len(copies) < 2:  # two of them
                continue
            for version, weight in mine.items():
                found.setdefault(version, Share(100 * weight / total if total else 0.0))
            for version in copies:
                found.setdefault(version, Share(0.0, mirrored=True))
    return found


def revisions(service: KubernetesObject) -> dict[str, float]:
    """Knative's revisions of an InferenceService with their shares in per cent; none where Knative is not used."""
    traffic = _at(service, "status", "components", "predictor", "traffic") or ()
    found: dict[str, float] = {}
    for one in traffic:
        if percent := one.get("percent"):
            found[str(one.get("revisionName", ""))] = found.get(str(one.get("revisionName", "")), 0) + percent
    return found


def _rules(route: KubernetesObject) -> Iterator[tuple[list[tuple[str, float]], list[str]]]:
    """Each rule: names of Services with their weights, and the names that get copies."""
    spec = route.get("spec") or {}
    for rule in spec.get("rules") or ():
        backends = [(str(ref.get("name")), float(ref.get("weight", 1))) for ref in rule.get("backendRefs") or ()]
        mirrors = [_at(one, "requestMirror", "backendRef", "name") for one in rule.get("filters") or ()]
        yield backends, [str(name) for name in mirrors if name]
    for rule in spec.get("http") or ():
        targets = rule.get("route") or ()
        alone = 100.0 if len(targets) == 1 else 0.0
        destinations = [(_service(one.get("destination")), float(one.get("weight", alone))) for one in targets]
        copies = [rule.get("mirror"), *(one.get("destination") for one in rule.get("mirrors") or ())]
        yield destinations, [_service(one) for one in copies if one]


def _service(destination: KubernetesObject | None) -> str:
    """NAME of NAME.NAMESPACE.svc.cluster.local."""
    return str((destination or {}).get("host", "")).partition(".")[0]


def _at(thing: Any, *path: str) -> Any:
    for key in path:
        thing = thing.get(key) if isinstance(thing, Mapping) else None
    return thing
