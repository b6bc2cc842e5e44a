"""Recording rules, written from the table of sources: one vocabulary whatever serves a model and whoever counts.

Each record of a model has the labels of :data:`KEY`; those of requests have ``route`` too, which says who counted. A
percentile is recorded from histograms alone, a mean is called a mean, and a ratio without requests has no value.
Records that begin with ``cluster:`` are of all GPUs, whoever holds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import yaml

from velagen.monitoring.scrape import SLOWEST
from velagen.monitoring.sources import (
    ENVOY_CLUSTER,
    GPU,
    MIB,
    NAMED,
    NAMINGS,
    REVISION_OF_POD,
    REVISION_OF_WORKLOAD,
    SOURCES,
    Histogram,
    Mean,
    Route,
    Series,
    Source,
)

#: Whose a series is. The label version is the InferenceService's name (see `velagen.monitoring.scrape`).
KEY: Final = ("app", "component", "namespace", "version")
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
ROUTES: Final[tuple[Route, ...]] = ("server", "knative", "envoy", "istio")
#: A transformer that KServe's own server runs counts what it asks of the predictor: the model is the predictor.
_MODEL: Final = 'component!="",part="predictor"'
_CLUSTER: Final = "|".join(one.expression for one in NAMINGS)
#: NAMESPACE/NAME by the groups of each naming: of those that do not fit they are empty.
_WHOSE_CLUSTER: Final = "/".join("".join(f"${{{2 * n + part}}}" for n in range(len(NAMINGS))) for part in (1, 2))
#: Sources whose series know namespace and version alone, as they are not the pods' own.
OF_OTHERS: Final = frozenset(("envoy", *NAMED))
INFO: Final = "model:info"
#: Whose a cluster of Envoy is, by its name: namespace and version.
CLUSTERS: Final = "model:envoy_cluster:info"
#: How a counter's growth in a second is told, from its selector and the window.
Growth = Callable[[str, str], str]
#: Of the windows in which growth is counted.
SECONDS: Final = {"1m": 60, "5m": 300}
_BUCKETS: Final = "model:latency_seconds_bucket:increase5m"
#: Who tells Knative's revisions apart, and what is recorded of them: what a check of the step rollout-model looks at.
_ROUTES_OF_REVISIONS: Final[tuple[Route, ...]] = ("server", "knative", "istio")
_OF_REVISIONS: Final = frozenset(
    (
        "model:requests:rate1m",
        "model:requests:increase5m",
        "model:errors:ratio5m",
        "model:errors:increase5m",
        _BUCKETS,
        *(f"model:latency_seconds:{name}" for name in (*PERCENTILES, "mean")),
    )
)
#: A GPU that a pod holds.
_HELD: Final = '{pod!=""}'


@dataclass(frozen=True)
class Rule:
    """A recording rule."""

    record: str
    expr: str
    #: What it says, with its unit, and which sources do not give it; a comment in the file.
    about: str
    labels: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {"record": self.record, "expr": self.expr, **({"labels": self.labels} if self.labels else {})}


@dataclass(frozen=True)
class Alert:
    """An alerting rule, with its page in docs/runbooks."""

    name: str
    expr: str
    #: How long it must hold before it rings, as Prometheus writes durations.
    lasting: str
    severity: Literal["critical", "warning", "info"]
    #: One line to be read at night, with the labels of the alert.
    summary: str
    #: Beside severity, which the alert always has.
    labels: dict[str, str] = field(default_factory=dict)
    #: How long it goes on ringing when it no longer holds: what breaks again and again rings once.
    keeps: str = ""

    @property
    def runbook(self) -> str:
        """The page's file name: ModelNotReady -> model-not-ready.md."""
        return re.sub("(?<!^)([A-Z])", r"-\1", self.name).lower() + ".md"

    @property
    def about(self) -> str:
        """The comment in the file."""
        return f"docs/runbooks/{self.runbook}"

    def content(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasting,
            **({"keep_firing_for": self.keeps} if self.keeps else {}),
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {"summary": self.summary, "runbook": self.about},
        }


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other, so a later one may read an earlier one."""

    name: str
    rules: tuple[Rule | Alert, ...]
    #: How often, as Prometheus writes durations; where it is empty, as often as Prometheus is told for all.
    interval: str = ""

    def content(self) -> dict[str, Any]:
        """As Prometheus reads it, and the Prometheus operator."""
        rules = [rule.content() for rule in self.rules]
        return {"name": self.name, **({"interval": self.interval} if self.interval else {}), "rules": rules}


def recording_rules() -> tuple[Group, ...]:
    """All of them, by route, after what tells whose a series is."""
    return (_of_pods(), *(_of_route(route) for route in ROUTES), _of_gpus())


def revision_rules() -> tuple[Group, ...]:
    """The same of Knative's revisions, where a pod is of one: their label version is the revision's name."""
    return tuple(
        Group(
            f"revision-{route}",
            tuple(
                replace(
                    rule,
                    record=_of_revision(rule.record),
                    expr=rule.expr.replace(_BUCKETS, _of_revision(_BUCKETS)),
                    about=f"Of a revision: {rule.about[0].lower()}{rule.about[1:]}",
                )
                for rule in _of_route(route, by_revision=True).rules
                if isinstance(rule, Rule) and rule.record in _OF_REVISIONS
            ),
        )
        for route in _ROUTES_OF_REVISIONS
    )


def _of_revision(record: str) -> str:
    return record.replace("model:", "revision:", 1)


def cluster_names(record: str = CLUSTERS) -> Rule:
    """What tells whose Envoy's clusters are; it stands before all rules of its group that read *record*.

    Prometheus compiles an expression of label_replace at each evaluation, and reads each series by it: here that is one
    series a cluster, once in a turn. A cluster that is gone is known for as long as a window may hold its requests.
    """
    envoy = SOURCES["envoy"]
    names = "|".join(one.name for one in (*envoy.requests, *((envoy.inflight,) if envoy.inflight else ())))
    expr = f'group by ({ENVOY_CLUSTER}) (last_over_time({{__name__=~"{names}"}}[5m]))'
    for label, expression, target, part in (
        (ENVOY_CLUSTER, _CLUSTER, "version", _WHOSE_CLUSTER),
        ("version", "(.*)/.*", "namespace", "$1"),
        ("version", ".*/(.*)", "version", "$1"),
    ):
        expr = f'label_replace({expr}, "{target}", "{part}", "{label}", "{expression}")'
    # A cluster without a version does not belong to a model. A matcher on the name would cost more than all else here.
    expr = f"{expr} unless on (version) vector(1)"
    return Rule(record, expr, "1 for each cluster of Envoy that is a model's, with its namespace and version.")


def rules_file(groups: Iterable[Group]) -> str:
    """The groups as a rule file of Prometheus, each rule under a comment that says what it means."""
    lines = ["# Written by velagen metrics rules from the table of sources (docs/monitoring.md).", "groups:"]
    for group in groups:
        lines += [f"- name: {group.name}", *([f"  interval: {group.interval}"] if group.interval else []), "  rules:"]
        for rule in group.rules:
            lines += [f"  # {rule.about}"]
            text = yaml.safe_dump([rule.content()], sort_keys=False, width=10_000)
            lines += [f"  {line}" for line in text.splitlines()]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- groups


def _of_pods() -> Group:
    up = 'up{component!=""}'
    return Group(
        "model-pods",
        (
            Rule(INFO, f"max by ({_by()}) ({up} * 0 + 1)", "1 for each version that has pods to scrape."),
            Rule("model:replicas", f"sum by ({_by()}) (up{{{_MODEL}}})", "Predictor pods whose metrics answer."),
        ),
    )


def _of_route(route: Route, *, by_revision: bool = False) -> Group:
    """One rule a record: a pod may give the series of two sources, and the first that answers is taken."""
    sources = [replace(source, by_revision=by_revision) for source in SOURCES.values() if source.route == route]
    if by_revision:  # a gateway knows no revision
        sources = [source for source in sources if source.name not in OF_OTHERS or source.name == "istio"]
    # The recorded buckets do not say whose they are: they are read again where one source alone has them.
    of_record = len([source for source in sources if source.histogram]) == 1
    percentiles = [
        (f"model:latency_seconds:{name}", f"Seconds within which {share:.0%} of requests are answered, over 5 minutes.",
         lambda source, share=share: source.histogram and (
             _recorded_percentile if of_record else _percentile)(source, source.histogram, share))
        for name, share in PERCENTILES.items()
    ]  # fmt: skip
    first_token = [
        (f"model:first_token_seconds:{name}", f"Seconds within which {share:.0%} see the first token, over 5 minutes.",
         lambda source, share=share: source.first_token and _percentile(source, source.first_token, share))
        for name, share in PERCENTILES.items()
    ]  # fmt: skip
    wanted: list[tuple[str, str, Callable[[Source], str | None]]] = [
        ("model:requests:rate1m", "Requests a second, over one minute.", lambda s: _rate(s, s.requests, "1m")),
        ("model:errors:rate1m", "Requests a second that failed by the server's fault.", _errors_rate),
        ("model:errors:ratio5m", "Share of requests that failed, 0 to 1, over 5 minutes.", _errors_ratio),
        ("model:requests:increase5m", "Requests over 5 minutes, in number.",
         lambda s: _own(s, f"{summed(s, s.requests, '5m', growth_of(s))} * {SECONDS['5m']}")),
        ("model:errors:increase5m", "Those of them that failed, in number.",
         lambda s: _own(s, f"{_failed(s)} * {SECONDS['5m']}") if s.errors else None),
        (_BUCKETS, "Requests over 5 minutes that were answered within le, in the unit of its source.", _buckets),
        *percentiles,
        ("model:latency_seconds:mean", "Mean seconds a request, over 5 minutes: a mean and no percentile.",
         lambda s: _mean(s, s.mean)),
        ("model:inflight", "Requests in the system: a gauge where there is one, else Little's law over one minute.",
         _inflight),
        ("model:waiting", "Requests that wait for their turn.", lambda s: _gauge(s, s.waiting)),
        ("model:queue_seconds:mean", "Mean seconds that a request waited, over 5 minutes.",
         lambda s: _mean(s, s.queue)),
        ("model:batch_size:mean", "Mean number of inferences an execution, over 5 minutes.", _batch),
        ("model:tokens:rate1m", "Generated tokens a second.", _tokens),
        *first_token,
    ]  # fmt: skip
    rules = []
    for record, about, of in wanted:
        given = [(source, expr) for source in sources if (expr := of(source))]
        if not given:
            continue
        without = ", ".join(source.title for source in sources if source not in [one for one, _ in given])
        partly = "".join(
            f" {source.title}: of {source.histogram.only}."
            for source, _ in given
            if source.histogram and source.histogram.only and record.startswith("model:latency_seconds:p")
        )
        said = about + partly + (f" Not given by {without}." if without else "")
        exprs = [f"({expr})" if len(given) > 1 else expr for _, expr in given]
        if record == _BUCKETS:  # buckets of two sources would make one histogram
            exprs = [_without(expr, exprs[:number]) for number, expr in enumerate(exprs)]
        expr = " or ".join(exprs)
        rules.append(Rule(record, expr, said, {"route": route}))
    first = (cluster_names(),) if route == "envoy" else ()
    return Group(f"model-{route}", (*first, *rules))


def _of_gpus() -> Group:
    """The exporter names the pod that holds a GPU; whose pod that is, its own scrape says."""
    whose = f'max by ({_by("pod")}) (up{{component!=""}} * 0 + 1)'
    joined = "on (namespace, pod) group_left (app, component, version)"
    # Several pods or MIG devices of one GPU are as many series with its UUID.
    each = f"count by (UUID) ({_gpus()})"
    total, free = "cluster:gpus:total", "cluster:gpus:free"
    return Group(
        "model-gpus",
        (
            Rule(
                "model:gpu_utilization:avg",
                f"avg by ({_by()}) (({GPU.utilization} / 100 or {GPU.engine}) * {joined} {whose})",
                "Mean use of the GPUs that its pods hold, 0 to 1; of a shared one, all that use it together.",
            ),
            Rule(
                "model:gpu_memory_bytes:sum",
                f"sum by ({_by()}) ({GPU.memory_used} * {MIB} * {joined} {whose})",
                "Memory used on the GPUs that its pods hold, in bytes; of a shared one, all that use it together.",
            ),
            Rule(
                "model:gpus",
                f"sum by ({_by()}) (({_gpus(_HELD)} * 0 + 1) / on (UUID) group_left () {each} * {joined} {whose})",
                "GPUs that its pods hold; of a shared one an equal part.",
            ),
            Rule(total, f"count({each})", "GPUs that an exporter tells of."),
            Rule(
                free,
                f"count({each} unless on (UUID) count by (UUID) ({_gpus(_HELD)})) or {total} * 0",
                "GPUs that no pod holds.",
            ),
        ),
    )


# ---------------------------------------------------------------- expressions


def _gpus(where: str = "") -> str:
    """A series for each GPU, or for each pod or MIG device of it."""
    return f"({GPU.utilization}{where} or {GPU.engine}{where})"


def _by(*more: str) -> str:
    return ", ".join((*KEY, *more))


def _own(source: Source, expr: str) -> str:
    """The expression with all labels of KEY: a gateway's series know namespace and version alone."""
    if source.name not in OF_OTHERS or source.by_revision:
        return expr
    return f"({expr}) * on (namespace, version) group_left (app, component) {INFO}"


def key_of(source: Source, *more: str) -> str:
    """The labels that a source's series have: a gateway's know namespace and version alone."""
    return ", ".join(("namespace", "version", *more)) if source.name in OF_OTHERS else _by(*more)


def rate(counter: str, window: str) -> str:
    """A counter's growth in a second as Prometheus guesses it: what it saw, extended to the window's ends.

    Two counters of the same requests differ by some per cent in this, the more the younger they are, and what a series
    begins with is not seen. Source: promql/functions.go, extrapolatedRate.
    """
    return f"rate({counter}[{window}])"


def counted(counter: str, window: str) -> str:
    """A counter's growth in a second: what it has now less what it had, and nothing that is guessed.

    It had nothing where it is new on a target that was scraped without it. On a target that is new itself it had what
    it was first seen with. Where it began anew meanwhile, or no target is known, :func:`rate` tells.
    """
    last, least = (f"{name}_over_time({counter}[{window}])" for name in ("last", "min"))
    # From a look before the window: what is new in the window's first look must not pass for older.
    longer = f"{SECONDS[window] + SLOWEST:g}s"
    scrapes = f"max by (job, instance) (sum_over_time(up[{longer}]))"
    always = f"count_over_time({counter}[{longer}]) >= bool on (job, instance) group_left () {scrapes}"
    grown = f"({last} - ({counter} offset {window} or {least} * ({always}))) / {SECONDS[window]}"
    return f"({grown} unless resets({counter}[{window}]) > 0 or {rate(counter, window)})"


def between(counter: str, window: str) -> str:
    """The same for less work, for the many series of a histogram: nothing where the target itself is new.

    Where it began anew meanwhile it is what it has counted since.
    """
    before = f"{counter} offset {window}"
    born = f"{counter} and on (job, instance) (up offset {window} == 1)"
    return f"(({counter} - {before} >= 0 or {born}) / {SECONDS[window]})"


def present(counter: str, window: str) -> str:
    """Nothing, as a number, for each counter that there is."""
    return f"last_over_time({counter}[{window}]) * 0"


def growth_of(source: Source) -> Growth:
    """How growth of a source's counters is told, where one is divided by another."""
    return counted if source.born_late else rate


def selected(
    source: Source, name: str, where: str, window: str = "", growth: Growth = rate, clusters: str = CLUSTERS
) -> str:
    """A series of models alone, under the labels of :func:`key_of`; with a window its growth in a second.

    *clusters* is the record of :func:`cluster_names` that the same group makes, or its expression in parentheses.
    """
    named = NAMED.get(source.name)
    if named and source.by_revision:
        named = REVISION_OF_WORKLOAD
    parts = [where] if where else []
    if named:
        parts += [f'{named.namespace}=~"(.+)"', f'{named.name}=~"{named.expression}"']
    elif source.name != "envoy":
        parts.append(_MODEL)
        if source.by_revision:
            parts.append('pod=~".+-deployment-.+"')
    expr = f"{name}{{{','.join(parts)}}}" if parts else name
    if window:
        expr = growth(expr, window)
    if named:
        expr = f'label_replace({expr}, "namespace", "$1", "{named.namespace}", "(.+)")'
        return f'label_replace({expr}, "version", "$1", "{named.name}", "{named.expression}")'
    if source.by_revision:
        return f'label_replace({expr}, "version", "$1", "pod", "{REVISION_OF_POD}")'
    if source.name == "envoy":
        return f"{expr} * on ({ENVOY_CLUSTER}) group_left (namespace, version) {clusters}"
    return expr


def summed(
    source: Source, series: Sequence[Series], window: str = "", growth: Growth = rate, clusters: str = CLUSTERS
) -> str:
    """Several series added up; one that is absent counts as nothing as long as another is there."""
    each = [selected(source, one.name, one.where, window, growth, clusters) for one in series]
    if len(each) > 1:
        # Set operators take series of equal labels for the same one.
        each = [f'label_replace({one}, "addend", "{number}", "", "")' for number, one in enumerate(each)]
    return f"sum by ({key_of(source)}) ({' or '.join(each)})"


def _rate(source: Source, series: Sequence[Series], window: str) -> str:
    return _own(source, summed(source, series, window))


def _errors_rate(source: Source) -> str | None:
    """None where there are requests and the series of errors is absent."""
    if not source.errors:
        return None
    return _own(source, f"({summed(source, source.errors, '1m')} or {summed(source, source.requests, '1m')} * 0)")


def _errors_ratio(source: Source) -> str | None:
    if not source.errors:
        return None
    # A counter that began anew is told by rate, and the other of the two may not be.
    share = f"{_failed(source)} / ({summed(source, source.requests, '5m', growth_of(source))} > 0)"
    return _own(source, f"clamp_max({share}, 1)")


def _failed(source: Source) -> str:
    """Errors a second over five minutes; none where there are requests and the series of errors is absent."""
    errors = summed(source, source.errors, "5m", growth_of(source))
    return f"({errors} or {summed(source, source.requests, '5m', present)})"


def _buckets(source: Source) -> str | None:
    if source.histogram is None:
        return None
    buckets = selected(source, f"{source.histogram.name}_bucket", source.histogram.where, "5m")
    return _own(source, f"sum by ({key_of(source, 'le')}) ({buckets}) * {SECONDS['5m']}")


def _without(expr: str, others: Sequence[str]) -> str:
    """Those of versions that none of the *others* tell of."""
    return f"({expr}{''.join(f' unless on ({_by()}) {one}' for one in others)})" if others else expr


def _percentile(source: Source, histogram: Histogram, share: float) -> str:
    buckets = selected(source, f"{histogram.name}_bucket", histogram.where, "5m")
    expr = f"histogram_quantile({share}, sum by ({key_of(source, 'le')}) ({buckets}))"
    # Without requests it is not a number, which the comparison drops.
    return _own(source, (f"{expr} / {histogram.per_second}" if histogram.per_second != 1 else expr) + " >= 0")


def _recorded_percentile(source: Source, histogram: Histogram, share: float) -> str:
    """The same of what the route's rule of buckets has just recorded, under the labels of KEY."""
    expr = f'histogram_quantile({share}, {_BUCKETS}{{route="{source.route}"}})'
    return (f"{expr} / {histogram.per_second}" if histogram.per_second != 1 else expr) + " >= 0"


def _mean(source: Source, mean: Mean | None) -> str | None:
    if mean is None:
        return None
    total, count = (summed(source, [Series(name, mean.where)], "5m") for name in (mean.total, mean.count))
    return _own(source, f"{total} / ({count} > 0)" + (f" / {mean.per_second}" if mean.per_second != 1 else ""))


def _gauge(source: Source, series: Series | None) -> str | None:
    return _own(source, summed(source, [series])) if series else None


def _tokens(source: Source) -> str | None:
    return _rate(source, [source.tokens], "1m") if source.tokens else None


def _inflight(source: Source) -> str | None:
    if source.inflight:
        return _gauge(source, source.inflight)
    if source.mean is None:
        return None
    total = summed(source, [Series(source.mean.total, source.mean.where)], "1m")
    return _own(source, f"{total} / {source.mean.per_second}" if source.mean.per_second != 1 else total)


def _batch(source: Source) -> str | None:
    if source.batch is None:
        return None
    inferences, executions = (summed(source, [one], "5m") for one in source.batch)
    return _own(source, f"{inferences} / ({executions} > 0)")
