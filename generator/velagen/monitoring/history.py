"""What is known of an application's models over a while: the records over time, and what happened meanwhile.

Its versions are all that the records know of that time: one that is gone by now was there.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import re
import sys
import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, Final

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.monitoring.cluster import Cluster, ClusterError
from velagen.monitoring.models import LEFT, NEAREST_FIRST, OLD, Model, Wanted, measured, nearest, of_cluster
from velagen.monitoring.prometheus import Labels, Line, Prometheus, quoted
from velagen.monitoring.scrape import LABEL_APP
from velagen.monitoring.sources import Route

Values = Sequence[float | None]

#: Seconds between two points; of these the first that gives no more than so many points.
_STEPS: Final = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_MOST_POINTS: Final = 150
_MINUTE: Final = 60
#: From this step on a point stands for all of its step, not for its end alone: records look back five minutes at most.
WHOLE_STEP: Final = 120
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
#: Two looks a minute apart are not a report; what is older than a year is not kept.
_SHORTEST: Final = 300
_LONGEST: Final = 366 * 86_400
#: Record -> over a step that is longer than the record looks back: its mean, or for a percentile its highest.
_RECORDS: Final = {
    "model:requests:rate1m": "avg",
    "model:errors:rate1m": "avg",
    "model:errors:ratio5m": "avg",
    "model:latency_seconds:p50": "avg",
    "model:latency_seconds:p99": "max",
    "model:latency_seconds:mean": "avg",
    "model:inflight": "avg",
    "model:waiting": "avg",
    "model:replicas": "min",
    "model:gpu_utilization:avg": "avg",
}
#: What is told of all of the while in one figure -> its record, and its query: {0} is the application's record, {1} the
#: while and {2} a step in it, in seconds; {3} is the record while it is fresh. Rates are added up step by step, so a
#: version counts while it was there.
_FIGURES: Final = {
    "requests": ("model:requests:rate1m", "sum_over_time(({3})[{1}s:{2}s]) * {2}"),
    "errors": ("model:errors:rate1m", "sum_over_time(({3})[{1}s:{2}s]) * {2}"),
    "p50 median": ("model:latency_seconds:p50", "quantile_over_time(0.5, {0}[{1}s])"),
    "p99 median": ("model:latency_seconds:p99", "quantile_over_time(0.5, {0}[{1}s])"),
    "p99 highest": ("model:latency_seconds:p99", "max_over_time({0}[{1}s])"),
    "mean median": ("model:latency_seconds:mean", "quantile_over_time(0.5, {0}[{1}s])"),
    "mean highest": ("model:latency_seconds:mean", "max_over_time({0}[{1}s])"),
    "replicas least": ("model:replicas", "min_over_time({0}[{1}s])"),
    "replicas most": ("model:replicas", "max_over_time({0}[{1}s])"),
}
_COUNTS: Final = ("requests", "errors")
#: Unpacked; etcd takes no object of more than 1.5 MB, packed.
_MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Period:
    """A while, looked at every *step* seconds; times in seconds since 1970."""

    start: float
    end: float
    step: float

    def holds(self, at: float) -> bool:
        """Whether something happened in it; what happened since its last look did, too."""
        return self.start <= at <= self.end + self.step

    @classmethod
    def until(cls, end: float, length: float) -> Period:
        """The *length* seconds before *end*, or up to a step more; *end* is rounded down, to a minute at most."""
        step = next((one for one in _STEPS if length / one <= _MOST_POINTS), math.ceil(length / _MOST_POINTS))
        whole = min(step, _MINUTE)
        last = math.floor(end / whole) * whole
        return cls(last - math.ceil(length / step) * step, last, step)


@dataclass(frozen=True)
class Event:
    """Something that Kubernetes or KubeVela says of one of the application's objects."""

    at: float
    whose: str
    reason: str
    message: str
    warning: bool
    count: int = 1


@dataclass(frozen=True)
class Published:
    """A revision of the application, with the shares of each component's new versions in per cent, by their names.

    The shares are None where the revision can't be read.
    """

    at: float
    name: str
    weights: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Rang:
    """An alert, while it fired."""

    name: str
    severity: str
    whose: str
    start: float
    end: float


@dataclass(frozen=True)
class History:
    """All that a page is made of."""

    app: str
    namespace: str
    period: Period
    times: tuple[float, ...]
    #: As the cluster has them now.
    models: tuple[Model, ...]
    #: Record -> (component, version, route) -> values at the times. Without a route it is empty.
    records: Mapping[str, Mapping[tuple[str, str, str], Values]]
    #: A name of _FIGURES -> (component, version, route) -> a figure of all of the while.
    figures: Mapping[str, Mapping[tuple[str, str, str], float]]
    #: Component -> what is promised -> values at the times.
    budgets: Mapping[str, Mapping[str, Values]]
    alerts: tuple[Rang, ...]
    events: tuple[Event, ...]
    revisions: tuple[Published, ...]
    #: Chosen by the reader; else that of :func:`nearest`.
    route: Route | None
    prometheus: str
    problems: tuple[Problem, ...] = ()

    @property
    def components(self) -> list[str]:
        """Their names, in order."""
        known = {one.component or one.version for one in self.models}
        return sorted(known | {key[0] for lines in self.records.values() for key in lines})

    def versions(self, component: str) -> list[str]:
        """A component's versions of that time, the one with its name first."""
        found = {one.version for one in self.models if one.component == component}
        found |= {key[1] for lines in self.records.values() for key in lines if key[0] == component}
        return sorted(found, key=lambda name: (name != component, name))

    def route_of(self, component: str) -> Route | None:
        """Whose count is shown for a component."""
        sums: dict[Route, float] = {}
        for (its, _, by), count in self.figures["requests"].items():
            for route in NEAREST_FIRST:
                if its == component and by == route:
                    sums[route] = sums.get(route, 0.0) + count
        return self.route or nearest(sums)

    @property
    def published(self) -> list[Published]:
        """The revisions of that time, without those before it."""
        return [one for one in self.revisions if self.period.holds(one.at)]

    def written(self, component: str, name: str) -> Values:
        """The share that the application's revisions gave a version; None before the first that is kept."""
        told = [(one.weights or {}).get(component, {}) for one in self.revisions]
        if not any(told) or name not in (component, *chain.from_iterable(told)):
            return (None,) * len(self.times)
        values: list[float | None] = []
        for at in self.times:
            last = next((one.weights for one in reversed(self.revisions) if one.at <= at), None)
            if last is None:
                values.append(None)
                continue
            new = last.get(component, {})
            values.append((100 - sum(new.values()) if name == component else new.get(name, 0.0)) / 100)
        return values

    def of(self, record: str, component: str, name: str, route: str | None) -> Values:
        """A record's values for one version; gaps alone where nobody gives them."""
        lines = self.records[record]
        nothing = (None,) * len(self.times)
        return lines.get((component, name, route or ""), nothing)


def period(since: str, now: float | None = None) -> Period:
    """The while from *since* ago (``90m``, ``1h``, ``2d``) until now. Raises VelagenError for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", since.strip())
    if found is None:
        raise VelagenError(Problem(f"--since {since!r} is not a duration", hint="write 30m, 1h or 2d"))
    length = int(found[1]) * _UNITS[found[2]]
    if length < _SHORTEST:
        raise VelagenError(
            Problem(f"--since {since} is too short: records look back five minutes", hint="write 15m or more")
        )
    if length > _LONGEST:
        raise VelagenError(
            Problem(f"--since {since} is longer than a year", hint="write 30d, or what Prometheus keeps")
        )
    return Period.until(time.time() if now is None else now, length)


def gather(cluster: Cluster, prometheus: Prometheus, wanted: Wanted, when: Period) -> History:
    """All that is known of an application over a while.

    Raises VelagenError where the cluster or Prometheus can't be asked, or nobody knows the application.
    """
    assert wanted.app
    assert wanted.namespace
    scope = f"namespace={quoted(wanted.namespace)}"
    own = f"{scope},app={quoted(wanted.app)}"
    lines = {name: _over(prometheus, name, own, how, when) for name, how in _RECORDS.items()}
    numbers = {name: _figure(prometheus, record, own, query, when) for name, (record, query) in _FIGURES.items()}
    known = {labels.get("component", "") for found in lines.values() for labels in (one.labels for one in found)}
    records = {name: _by_key(found, known) for name, found in lines.items()}
    figures = {name: _merged(name, found, known) for name, found in numbers.items()}
    try:
        models, problems = of_cluster(cluster, wanted)
    except VelagenError as error:
        if not any(records.values()):
            raise
        # It was there at that time; that it is gone by now, or that nobody knows, is said on the page.
        gone = f"application {wanted.app} is not on the cluster any more"
        said = error.problems[0].message if isinstance(error, ClusterError) else gone
        models, problems = (), [Problem(said, severity="warning")]
    models, more = measured(models, prometheus, wanted)
    problems += more
    left = prometheus.range(f"{LEFT}{{{own}}}", when.start, when.end, when.step)
    budgets: dict[str, dict[str, Values]] = {}
    for line in left.lines:
        budgets.setdefault(line.labels.get("component", ""), {})[line.labels.get("slo", "")] = line.values
    history = History(
        wanted.app,
        wanted.namespace,
        when,
        left.times,
        models,
        records,
        figures,
        budgets,
        (),
        (),
        _revisions(cluster, wanted, problems),
        wanted.route,
        prometheus.address,
    )
    versions = {name for component in history.components for name in history.versions(component)}
    warned = [Problem(f"Prometheus warns: {one}", severity="warning") for one in prometheus.warnings]
    return replace(
        history,
        alerts=_alerts(prometheus, scope, when, versions, {*history.components, *versions}),
        events=events_of(cluster, wanted, when, versions, problems),
        problems=(*problems, *warned),
    )


# ---------------------------------------------------------------- asking


def _over(prometheus: Prometheus, record: str, own: str, how: str, when: Period) -> tuple[Line, ...]:
    selector = f"{record}{{{own}}}"
    query = f"{how}_over_time({selector}[{when.step:.0f}s])"
    if when.step < WHOLE_STEP:
        query = _fresh(selector)
    return prometheus.range(query, when.start, when.end, when.step).lines


def _fresh(selector: str) -> str:
    """The series while it is computed; Prometheus takes the last value for that of the five minutes after it, too."""
    return f"{selector} unless (time() - timestamp({selector}) > {OLD:.0f})"


def _figure(prometheus: Prometheus, record: str, own: str, query: str, when: Period) -> list[tuple[Labels, float]]:
    selector = f"{record}{{{own}}}"
    step = f"{min(when.step, _MINUTE):.0f}"
    asked = query.format(selector, f"{when.end - when.start:.0f}", step, _fresh(selector))
    return [(one.labels, one.value) for one in prometheus.instant(asked, when.end)]


def _key(labels: Labels, known: Collection[str]) -> tuple[str, str, str]:
    """Whose a series is: the step rollout-model brings a version of the component NAME in as NAME-canary."""
    component = labels.get("component", "")
    stable = component.removesuffix("-canary")
    return stable if stable in known else component, labels.get("version", ""), labels.get("route", "")


def _by_key(lines: Iterable[Line], known: Collection[str]) -> dict[tuple[str, str, str], Values]:
    """A version may have been the trait canary's and a rollout's, one after the other: what either says of a time."""
    found: dict[tuple[str, str, str], Values] = {}
    for line in lines:
        key = _key(line.labels, known)
        before = found.get(key, line.values)
        found[key] = [one if one is not None else other for one, other in zip(line.values, before, strict=True)]
    return found


def _merged(
    name: str, figures: Iterable[tuple[Labels, float]], known: Collection[str]
) -> dict[tuple[str, str, str], float]:
    """The same of a figure: numbers of requests are added up, of all else the higher stays."""
    found: dict[tuple[str, str, str], float] = {}
    for labels, value in figures:
        key = _key(labels, known)
        other = found.get(key)
        both = (value,) if other is None else (value, other)
        found[key] = sum(both) if name in _COUNTS else max(both)
    return found


def _alerts(
    prometheus: Prometheus, scope: str, when: Period, versions: set[str], components: set[str]
) -> tuple[Rang, ...]:
    series = f'ALERTS{{alertstate="firing",{scope}}}'
    # Of a long step all of it, not its end alone.
    whole = when.step >= WHOLE_STEP
    series = f"max_over_time({series}[{when.step:.0f}s])" if whole else series
    query = f"max by (alertname, severity, version, component) ({series})"
    found: list[Rang] = []
    lines = prometheus.range(query, when.start, when.end, when.step)
    for line in lines.lines:
        labels = line.labels
        whose = labels.get("version") or labels.get("component", "")
        if whose not in (versions if labels.get("version") else components):
            continue
        there = [place for place, value in enumerate(line.values) if value is not None]
        for first, last in _stretches(there):
            start = lines.times[first] - (when.step if whole else 0)
            found.append(Rang(labels["alertname"], labels.get("severity", ""), whose, start, lines.times[last]))
    return tuple(sorted(found, key=lambda one: (one.start, one.name)))


def _stretches(places: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place - 1:
            found[-1] = (found[-1][0], place)
        else:
            found.append((place, place))
    return found


def _revisions(cluster: Cluster, wanted: Wanted, problems: list[Problem]) -> tuple[Published, ...]:
    """KubeVela keeps the last ten revisions of an application (vela-core --application-revision-limit)."""
    try:
        things = cluster.list(
            "core.oam.dev/v1beta1", "applicationrevisions", wanted.namespace, labelSelector=f"{LABEL_APP}={wanted.app}"
        )
    except VelagenError as error:
        problems.append(Problem(f"no revisions: {error.problems[0].message}", severity="warning"))
        return ()
    found = []
    for thing in things:
        metadata = thing["metadata"]
        found.append(Published(_time(metadata["creationTimestamp"]), metadata["name"], _weights(thing)))
    return tuple(sorted(found, key=lambda one: one.at))


def _weights(revision: KubernetesObject) -> dict[str, dict[str, float]] | None:
    """Weights of the trait canary, by component and version; None where no application can be read."""
    try:
        application = _unpacked(revision["spec"])["application"]
    except (zlib.error, ValueError, KeyError, TypeError):
        return None
    weights: dict[str, dict[str, float]] = {}
    for component in (application.get("spec") or {}).get("components") or ():
        name = str(component.get("name"))
        for trait in component.get("traits") or ():
            if trait.get("type") != "canary":
                continue
            given = trait.get("properties") or {}
            candidates = given.get("candidates") or [given]
            found = {
                "-".join([name, "canary", *filter(None, [one.get("name")])]): float(one["weight"])
                for one in candidates
                if isinstance(one.get("weight"), int | float)
            }
            if found:
                weights[name] = found
    return weights


def _unpacked(spec: KubernetesObject) -> KubernetesObject:
    """What a revision holds, which KubeVela packs (github.com/kubevela/pkg util/compression: gzip or zstd in base64).

    zlib.error, ValueError or KeyError where it can't be read.
    """
    packed = spec.get("compression") or {}
    match packed.get("type") or "uncompressed":
        case "uncompressed":
            return spec
        case "gzip":
            text = zlib.decompressobj(wbits=31).decompress(base64.b64decode(packed["data"]), _MOST_BYTES)
        case "zstd":
            text = _zstd(base64.b64decode(packed["data"]))
        case other:
            raise ValueError(f"compression {other}")
    found: KubernetesObject = json.loads(text)
    return found


def _zstd(data: bytes) -> bytes:
    # The standard library's from Python 3.14 on.
    zstd: Any = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    try:
        unpacked: bytes = zstd.ZstdDecompressor().decompress(data, max_length=_MOST_BYTES)
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error
    return unpacked


def events_of(
    cluster: Cluster, wanted: Wanted, when: Period, versions: set[str], problems: list[Problem]
) -> tuple[Event, ...]:
    """What Kubernetes and KubeVela said of an application and its versions; that they can't be read is a problem."""
    try:
        things = cluster.list("v1", "events", wanted.namespace)
        others = {
            one["metadata"]["name"]
            for one in cluster.list("serving.kserve.io/v1beta1", "inferenceservices", wanted.namespace)
        }
    except VelagenError as error:
        problems.append(Problem(f"no events: {error.problems[0].message}", severity="warning"))
        return ()
    found = []
    for thing in things:
        about = thing.get("involvedObject") or {}
        kind, name = str(about.get("kind", "")), str(about.get("name", ""))
        stamp = (
            thing.get("lastTimestamp") or (thing.get("series") or {}).get("lastObservedTime") or thing.get("eventTime")
        )
        if not stamp or not (
            name == wanted.app if kind == "Application" else _owner(name, others | versions) in versions
        ):
            continue
        at = _time(stamp)
        if when.holds(at):
            count = int(thing.get("count") or (thing.get("series") or {}).get("count") or 1)
            message = str(thing.get("message") or "").strip()
            found.append(
                Event(
                    at, f"{kind} {name}", str(thing.get("reason") or ""), message, thing.get("type") == "Warning", count
                )
            )
    return tuple(sorted(found, key=lambda one: one.at))


def _owner(name: str, services: Iterable[str]) -> str:
    """The InferenceService of which an object is called: KServe's objects begin with its name."""
    return max((one for one in services if name == one or name.startswith(f"{one}-")), key=len, default="")


def _time(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
