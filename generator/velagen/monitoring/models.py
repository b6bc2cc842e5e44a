"""What is known of each model now: from the cluster what should be, from Prometheus what is.

A version of a model is an InferenceService. What nobody knows is None, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from velagen.errors import Problem, VelagenError, did_you_mean
from velagen.kubernetes.objects import KubernetesObject
from velagen.monitoring.cluster import Cluster
from velagen.monitoring.prometheus import Prometheus, PrometheusError, Sample, quoted
from velagen.monitoring.scrape import LABEL_APP, LABEL_COMPONENT, LABEL_SERVICE
from velagen.monitoring.sources import Route
from velagen.monitoring.traffic import Share, revisions, shares

#: Who is believed where several count one request: nearest to the client first. A gateway sees what a client sees, and
#: tells errors and percentiles whatever serves; the server is asked where nobody stands before it.
NEAREST_FIRST: Final[tuple[Route, ...]] = ("envoy", "istio", "knative", "server")
#: Records that one request makes with each route (velagen.monitoring.rules) -> field of Model.
_BY_ROUTE: Final = {
    "model:requests:rate1m": "requests",
    "model:errors:ratio5m": "errors",
    "model:latency_seconds:p50": "p50",
    "model:latency_seconds:p99": "p99",
    "model:latency_seconds:mean": "mean",
    "model:inflight": "inflight",
    "model:waiting": "waiting",
}
#: Those of the server alone know who waits: another route's row takes them from there.
_OF_SERVER: Final = ("inflight", "waiting")
_GPU: Final = "model:gpu_utilization:avg"
_INFO: Final = "model:info"
#: Of the trait slo, by component: what is promised, and what is left of the budget.
_OBJECTIVE: Final = "model:slo_objective:ratio"
LEFT: Final = "model:slo_budget_left:ratio"
#: Seconds after which figures are called old: Prometheus evaluates rules every minute, or more often.
OLD: Final = 90.0
#: Above this ratio of what another route counts, one is told of it.
_MUCH_MORE: Final = 1.5


@dataclass(frozen=True)
class Firing:
    """An alert that fires."""

    name: str
    severity: str


@dataclass(frozen=True)
class Objective:
    """What the trait slo promises."""

    #: Per cent of requests that succeed.
    availability: float | None = None
    latency_milliseconds: float | None = None
    #: Per cent of requests that are answered within the latency.
    percentile: float | None = None
    window: str | None = None

    def __bool__(self) -> bool:
        return self.availability is not None or self.latency_milliseconds is not None


@dataclass(frozen=True, eq=False)
class Model:
    """One version of a model."""

    namespace: str
    #: The InferenceService's name.
    version: str
    app: str | None = None
    component: str | None = None
    #: KServe's condition Ready.
    ready: bool = False
    share: Share = field(default_factory=Share)
    #: Knative's, with their shares in per cent.
    revisions: Mapping[str, float] = field(default_factory=dict)
    #: Predictor pods; None where no Deployment is seen.
    replicas_ready: int | None = None
    replicas_wanted: int | None = None
    #: Who counted, and who else counts.
    route: Route | None = None
    routes: tuple[Route, ...] = ()
    #: A second.
    requests: float | None = None
    #: 0 to 1.
    errors: float | None = None
    #: Seconds.
    p50: float | None = None
    p99: float | None = None
    mean: float | None = None
    inflight: float | None = None
    waiting: float | None = None
    #: 0 to 1.
    gpu: float | None = None
    objective: Objective = field(default_factory=Objective)
    #: By what is promised (availability, latency), 0 to 1; below 0 where more was spent than there was.
    budgets: Mapping[str, float] = field(default_factory=dict)
    alerts: tuple[Firing, ...] = ()
    #: Seconds since the figures were computed; None where there are none.
    age: float | None = None

    @property
    def budget_left(self) -> float | None:
        """Of the budget of which least is left."""
        return min(self.budgets.values(), default=None)

    @property
    def old(self) -> bool:
        """Whether its figures are of a while ago."""
        return self.age is not None and self.age > OLD


@dataclass(frozen=True)
class View:
    """All that is shown at one time."""

    models: tuple[Model, ...]
    #: What is not seen, and why.
    problems: tuple[Problem, ...] = ()
    #: Prometheus' address.
    prometheus: str = ""
    #: Seconds since 1970.
    at: float = 0.0


@dataclass(frozen=True)
class Wanted:
    """Which models, and by whose count."""

    #: None for all of them.
    namespace: str | None
    app: str | None = None
    route: Route | None = None


def look(cluster: Cluster, prometheus: Prometheus, wanted: Wanted) -> View:
    """Look once. Raises VelagenError where the cluster can't be asked, or does not have the application.

    A Prometheus that does not answer is a problem of the view: what the cluster knows is shown without it.
    """
    models, problems = of_cluster(cluster, wanted)
    prometheus.warnings.clear()
    try:
        models, found = measured(models, prometheus, wanted)
        problems += found
    except VelagenError as error:
        unreachable = isinstance(error, PrometheusError) and error.kind == "unreachable"
        hint = "--prometheus URL names another one" if unreachable else ""
        problems += [replace(one, hint=one.hint or hint) for one in error.problems]
    problems += [Problem(f"Prometheus warns: {one}", severity="warning") for one in prometheus.warnings]
    return View(models, tuple(problems), prometheus.address, time.time())


# ---------------------------------------------------------------- the cluster


def of_cluster(cluster: Cluster, wanted: Wanted) -> tuple[tuple[Model, ...], list[Problem]]:
    """The versions that the cluster has, without figures; and what could not be seen.

    Raises VelagenError where InferenceServices can't be listed, or an application was named that is not there.
    """
    scope = wanted.namespace
    problems: list[Problem] = []

    def seen(group: str, plural: str, **parameters: str) -> list[KubernetesObject]:
        """What helps, and is missed where a person has no right to it."""
        try:
            return cluster.list(group, plural, scope, **parameters)
        except VelagenError as error:
            problems.append(Problem(f"no {plural}: {error.problems[0].message}", severity="warning"))
            return []

    services = cluster.list("serving.kserve.io/v1beta1", "inferenceservices", scope)
    candidates = _candidates(services)
    applications = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one
        for one in seen("core.oam.dev/v1beta1", "applications")
    }
    if wanted.app:
        _check_app(wanted, services, applications)
    deployments = seen("apps/v1", "deployments", labelSelector=LABEL_SERVICE)
    routes = [
        *seen("gateway.networking.k8s.io/v1", "httproutes"),
        *seen("networking.istio.io/v1beta1", "virtualservices"),
    ]
    by_namespace: dict[str, list[KubernetesObject]] = {}
    for service in services:
        by_namespace.setdefault(service["metadata"]["namespace"], []).append(service)
    models = []
    for namespace, its in by_namespace.items():
        split = shares(
            [one["metadata"]["name"] for one in its],
            [one for one in routes if one["metadata"]["namespace"] == namespace],
        )
        for service in its:
            model = _of_service(service, applications)
            ready, aimed = _replicas(deployments, namespace, model.version)
            beside = [one for one in its if _whose(one) == _whose(service) and one is not service]
            # No route names a rollout's new version before its first step.
            alone = all((namespace, one["metadata"]["name"]) in candidates for one in beside)
            other = 0.0 if (namespace, model.version) in candidates else 100.0 if alone else None
            share = split.get(model.version) or Share(other)
            models.append(replace(model, replicas_ready=ready, replicas_wanted=aimed, share=share))
    kept = [one for one in models if wanted.app in (None, one.app)]
    kept.sort(key=_order)
    return tuple(kept), problems


def _order(model: Model) -> tuple[str, str, str, bool, str]:
    """Versions of a component side by side, the one with the component's name first: others are compared to it."""
    return (
        model.namespace,
        model.app or "",
        model.component or "",
        model.version != model.component,
        model.version,
    )


def _check_app(wanted: Wanted, services: Iterable[KubernetesObject], applications: Iterable[tuple[str, str]]) -> None:
    names = {_whose(one)[0] for one in services} - {None}
    there = {name for _, name in applications}
    where = f"namespace {wanted.namespace}" if wanted.namespace else "any namespace"
    if wanted.app in names:
        return
    if wanted.app in there:
        raise VelagenError(
            Problem(
                f"application {wanted.app} in {where} has no model (InferenceService)",
                hint=f"vela status {wanted.app} says how far it is",
            )
        )
    near = did_you_mean(wanted.app or "", [str(name) for name in names | there])
    raise VelagenError(
        Problem(f"there is no application {wanted.app} in {where}", hint=near or "another namespace is named with -n")
    )


def _of_service(service: KubernetesObject, applications: Mapping[tuple[str, str], KubernetesObject]) -> Model:
    metadata = service["metadata"]
    app, component = _whose(service)
    application = applications.get((metadata["namespace"], app or ""))
    conditions = (service.get("status") or {}).get("conditions") or ()
    return Model(
        metadata["namespace"],
        metadata["name"],
        app,
        component,
        ready=any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions),
        revisions=revisions(service),
        objective=objective(application, component),
    )


def _candidates(services: Iterable[KubernetesObject]) -> set[tuple[str, str]]:
    """The new versions of rollouts, by namespace and name.

    The step rollout-model brings a version in as a component NAME-canary: its component is called NAME from here on.
    """
    found: set[tuple[str, str]] = set()
    known = {(one["metadata"]["namespace"], *_whose(one)) for one in services}
    for one in services:
        app, component = _whose(one)
        stable = (component or "").removesuffix("-canary")
        if app and stable != component and (one["metadata"]["namespace"], app, stable) in known:
            one["metadata"]["labels"][LABEL_COMPONENT] = stable
            found.add((one["metadata"]["namespace"], one["metadata"]["name"]))
    return found


def _whose(service: KubernetesObject) -> tuple[str | None, str | None]:
    """Application and component; of one that KubeVela did not make neither is known, and it is itself alone."""
    labels = service["metadata"].get("labels") or {}
    return labels.get(LABEL_APP), labels.get(LABEL_COMPONENT) or service["metadata"]["name"]


def objective(application: KubernetesObject | None, component: str | None) -> Objective:
    """What the trait slo of a component promises."""
    for one in ((application or {}).get("spec") or {}).get("components") or ():
        for trait in (one.get("traits") or ()) if one.get("name") == component else ():
            if trait.get("type") == "slo":
                given = trait.get("properties") or {}
                return Objective(
                    given.get("availability"),
                    given.get("latencyMilliseconds"),
                    given.get("percentile"),
                    given.get("window"),
                )
    return Objective()


def _replicas(deployments: Iterable[KubernetesObject], namespace: str, version: str) -> tuple[int | None, int | None]:
    """Pods of a version's predictor, ready and wanted; Knative has a Deployment for each revision."""
    mine = [
        one
        for one in deployments
        if one["metadata"]["namespace"] == namespace
        and one["metadata"]["labels"].get(LABEL_SERVICE) == version
        and one["metadata"]["labels"].get("component", "predictor") == "predictor"
    ]
    if not mine:
        return None, None
    ready = sum((one.get("status") or {}).get("readyReplicas") or 0 for one in mine)
    return ready, sum(one["spec"].get("replicas", 1) for one in mine)


# ---------------------------------------------------------------- Prometheus


def measured(
    models: Iterable[Model], prometheus: Prometheus, wanted: Wanted
) -> tuple[tuple[Model, ...], list[Problem]]:
    """The models with their figures; and what should be there and is not. Raises PrometheusError."""
    scope = f"namespace={quoted(wanted.namespace)}" if wanted.namespace else ""
    names = "|".join((*_BY_ROUTE, _GPU))
    values = _by_version(prometheus.instant(f'{{__name__=~"{names}",{scope}}}'))
    ages = _by_version(prometheus.instant(f"time() - timestamp({_INFO}{{{scope}}})"))
    firing = _by_version(prometheus.instant(f'ALERTS{{alertstate="firing",{scope}}}'))
    promised = _by_component(prometheus.instant(f'{{__name__=~"{_OBJECTIVE}|{LEFT}",{scope}}}'))
    models = list(models)
    done = []
    more: dict[str, None] = {}
    seen: set[tuple[str, str]] = set()
    for model in models:
        key, whole = (model.namespace, model.version), (model.namespace, model.component or "")
        counts = _routes(models, model, values)
        slo = promised.get(whole, [])
        asked = wanted.route or _counted_by(slo, counts)
        if found := _counts_more(model, counts, asked):
            more[found] = None
        # What rings for a component as a whole is told once, at its first version.
        its = [*firing.get(key, ()), *(firing.get((model.namespace, ""), ()) if whole not in seen else ())]
        seen.add(whole)
        alerts = {
            (one.labels["alertname"], one.labels.get("severity", "")): None
            for one in its
            if one.labels.get("component", model.component) == model.component
        }
        done.append(
            replace(
                _promised(_with_figures(model, values.get(key, []), counts, asked), slo),
                alerts=tuple(Firing(*one) for one in sorted(alerts)),
                age=max((one.value for one in ages.get(key, ())), default=None),
            )
        )
    problems = [Problem(one, severity="warning") for one in more]
    return tuple(done), [*problems, *_missing(done, values, prometheus)]


def _routes(
    models: Iterable[Model], model: Model, values: Mapping[tuple[str, str], list[Sample]]
) -> dict[Route, float]:
    """Who counts requests of any version of the component, and how many a second: one count compares all versions."""
    together: dict[Route, float] = {}
    by_name: dict[str | None, Route] = {route: route for route in NEAREST_FIRST}
    for other in models:
        if (other.namespace, other.app, other.component) != (model.namespace, model.app, model.component):
            continue
        for one in values.get((other.namespace, other.version), ()):
            route = by_name.get(one.labels.get("route"))
            if one.labels["__name__"] == "model:requests:rate1m" and route:
                together[route] = together.get(route, 0.0) + one.value
    return together


def nearest(counts: Mapping[Route, float]) -> Route | None:
    """Of those who count the one to believe: the nearest to the client that sees any request, else the nearest."""
    there = [route for route in NEAREST_FIRST if route in counts]
    return next((route for route in there if counts[route] > 0), there[0] if there else None)


def _counted_by(slo: Iterable[Sample], counts: Mapping[Route, float]) -> Route | None:
    """Who counts for the component's objective: what is shown beside it is counted alike."""
    routes = {one.labels.get("route") for one in slo}
    return next((route for route in NEAREST_FIRST if route in routes and route in counts), None)


def _promised(model: Model, slo: Iterable[Sample]) -> Model:
    """The objective as Prometheus computes it, and what is left of its budgets."""
    found = model.objective
    budgets: dict[str, float] = {}
    for one in slo:
        kind, labels = one.labels.get("slo", ""), one.labels
        if labels["__name__"] == LEFT:
            budgets[kind] = min(one.value, budgets.get(kind, one.value))
        elif kind == "availability":
            found = replace(found, availability=round(100 * one.value, 6), window=labels.get("window"))
        elif kind == "latency" and labels.get("milliseconds", "").replace(".", "", 1).isdigit():
            found = replace(
                found,
                latency_milliseconds=float(labels["milliseconds"]),
                percentile=round(100 * one.value, 6),
                window=labels.get("window"),
            )
    return replace(model, objective=found, budgets=budgets)


def _counts_more(model: Model, counts: Mapping[Route, float], asked: Route | None) -> str:
    """Where most requests go past the one who is believed: who saw them."""
    route = asked or nearest(counts)
    most = max(counts, key=lambda one: counts[one], default=None)
    if route is None or most is None or counts[most] < 1 or counts[most] <= _MUCH_MORE * counts.get(route, 0.0):
        return ""
    seen = f"{counts[route]:.3g}" if route in counts else "none"
    return (
        f"{model.component}: {route} counts {seen} requests a second, {most} {counts[most]:.3g}: "
        f"--route {most} shows those"
    )


def _with_figures(model: Model, samples: Iterable[Sample], counts: Mapping[Route, float], asked: Route | None) -> Model:
    route = asked or nearest(counts)
    figures: dict[str, float] = {}
    for one in samples:
        name = _BY_ROUTE.get(one.labels["__name__"], "gpu")
        of_server = name in _OF_SERVER and one.labels.get("route") == "server"
        if name == "gpu" or one.labels.get("route") == route:
            figures[name] = one.value
        elif of_server:
            figures.setdefault(name, one.value)
    routes = tuple(one for one in NEAREST_FIRST if one in counts)
    # mypy takes any figure for a value of any field; they are called as those fields are that hold numbers.
    return replace(model, route=route if route in counts else None, routes=routes, **figures)  # type: ignore[arg-type]


def _missing(models: list[Model], values: Mapping[Any, Any], prometheus: Prometheus) -> list[Problem]:
    """Why figures are not there."""
    unseen = [one for one in models if one.route is None and (one.namespace, one.version) not in values]
    if not unseen:
        return []
    if len(unseen) == len(models) and not prometheus.instant(f"count({_INFO})"):
        rules = prometheus.instant("count(up)")
        return [
            Problem(
                f"Prometheus at {prometheus.address} has no series of models"
                + ("" if rules else ", nor of anything else"),
                hint="it needs the rules of `velagen metrics rules` and the targets of `velagen metrics scrape-config`",
                severity="warning",
            )
        ]
    names = ", ".join(f"{one.namespace}/{one.version}" for one in unseen[:5]) + ", ..." * (len(unseen) > 5)
    return [Problem(f"Prometheus knows nothing of {names}: are its pods scraped?", severity="warning")]


def _by_component(samples: Iterable[Sample]) -> dict[tuple[str, str], list[Sample]]:
    found: dict[tuple[str, str], list[Sample]] = {}
    for one in samples:
        found.setdefault((one.labels.get("namespace", ""), one.labels.get("component", "")), []).append(one)
    return found


def _by_version(samples: Iterable[Sample]) -> dict[tuple[str, str], list[Sample]]:
    found: dict[tuple[str, str], list[Sample]] = {}
    for one in samples:
        found.setdefault((one.labels.get("namespace", ""), one.labels.get("version", "")), []).append(one)
    return found
