"""Objectives of the trait slo: what they are counted from, how fast error budgets burn, and what is left of them.

The method is that of Google's Site Reliability Workbook, chapter 5, "Alerting on SLOs", its sixth alert: the share of
bad requests, divided by the share that the objective allows, is the burn rate; an alert rings where it is high over a
long window and over a short one, so that it rings soon and ends soon.

Who computes what: a component's own rules (:meth:`Objective.rules`) say the objective, and what is left of its budget
over its own window. All else is the same for all, and is computed for all at once (:func:`objective_rules`) from the
table of sources, with the objective's own series as the list of whom to compute it for. Long windows are not read from
the servers' series, nor at each look: requests are counted in parts of five minutes, which are added up.

The functions write text: of a definition's references as well as of plain values, so the trait's rules are these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from velagen.monitoring.rules import (
    INFO,
    OF_OTHERS,
    ROUTES,
    Alert,
    Group,
    Growth,
    Rule,
    between,
    cluster_names,
    growth_of,
    key_of,
    rate,
    selected,
    summed,
)
from velagen.monitoring.sources import MILLISECONDS, SOURCES, Histogram, Route, Series, Source

Slo = Literal["availability", "latency"]
SLOS: Final[tuple[Slo, ...]] = ("availability", "latency")
#: Whose an objective is. A component's versions share its budget.
OWNER: Final = ("app", "component", "namespace")
#: What tells one objective from all others.
KEY: Final = (*OWNER, "slo", "route")

#: 0 to 1; of latency the share of requests that are faster than the labels ``milliseconds`` and ``le`` say, the second
#: being the bucket's bound in the source's own unit.
OBJECTIVE: Final = "model:slo_objective:ratio"
REQUESTS: Final = "model:slo_requests"
BAD: Final = "model:slo_bad"
#: ``model:slo_burn:rate1h``: 1 is the rate at which the budget lasts just for its window.
BURN: Final = "model:slo_burn:rate"
#: The share of good requests over the objective's window, and the share of the budget that is left: 1 is all of it, 0
#: is none, and below 0 more is spent than there was.
ACHIEVED: Final = "model:slo_achieved:ratio"
LEFT: Final = "model:slo_budget_left:ratio"
_VERSION: Final = "model:slo_version"
#: The group's own, as groups have no order: requests to a cluster that is new must count at once.
_CLUSTERS: Final = "model:slo_envoy_cluster:info"

#: (burn rate, long window, short window) of the workbook's table 5-8: the first two wake somebody, the others can wait.
FAST: Final = ((14.4, "1h", "5m"), (6, "6h", "30m"))
SLOW: Final = ((3, "1d", "2h"), (1, "3d", "6h"))
#: Windows that are added up from the rates of a minute, and those from whole parts of five minutes. Longer rates would
#: be too slow: what happens now must count in full at once.
_SHORT: Final = ("5m", "30m", "1h", "2h", "6h")
_LONG: Final = ("1d", "3d")
#: A part, and the same in seconds.
_PARTS: Final = "5m"
_PART: Final = 300
#: How often rules are computed. What others read at once must be younger than five minutes, Prometheus' look-back.
_OFTEN: Final = "30s"
_SELDOM: Final = "2m"
_WHOSE: Final = "{{ $labels.namespace }}/{{ $labels.component }}"
#: For how long a version whose pods are gone is still known to be its component's.
_REMEMBERED: Final = "1d"


@dataclass(frozen=True)
class Objective:
    """One objective of a component; each value is text, or a definition's reference in an f-string."""

    app: str
    component: str
    namespace: str
    slo: Slo
    #: Who counts: a route of the table of sources.
    route: str
    #: Per cent of the requests that must be good.
    percent: str
    #: Over how long, as Prometheus writes durations.
    window: str
    #: Of latency: the threshold, and the same as the bound of a bucket of the source's histogram.
    milliseconds: str = ""
    bound: str = ""

    def rules(self) -> tuple[Rule, ...]:
        """What is computed for this objective alone."""
        key = {name: getattr(self, name) for name in KEY}
        own = ",".join(f'{name}="{value}"' for name, value in key.items())
        faster = {"le": self.bound, "milliseconds": self.milliseconds} if self.slo == "latency" else {}
        bad, requests = (f"sum_over_time({name}:increase{_PARTS}{{{own}}}[{self.window}])" for name in (BAD, REQUESTS))
        return (
            Rule(
                OBJECTIVE,
                f"vector({self.percent} / 100)",
                "The share of requests that must be good.",
                {**key, "window": self.window, **faster},
            ),
            Rule(ACHIEVED, f"1 - {bad} / ({requests} > 0)", "The share that was good over the window.", key),
            Rule(
                LEFT,
                f"1 - (1 - {ACHIEVED}{{{own}}}) / (1 - {self.percent} / 100)",
                "The share of the error budget that is left.",
                key,
            ),
        )


#: How often a component's own rules are computed.
INTERVAL: Final = _SELDOM


def of_component(app: str, component: str, namespace: str, objectives: Sequence[Objective]) -> Group:
    """The group of a component's own rules; no other group of Prometheus' is called like it."""
    labels = {"app": app, "component": component, "namespace": namespace}
    own = ",".join(f'{name}="{value}"' for name, value in labels.items())
    not_measured = Alert(
        "ModelObjectiveNotMeasured",
        f"{OBJECTIVE}{{{own}}} unless on ({', '.join(KEY)}) {BAD}:rate1m{{{own}}}",
        "30m",
        "warning",
        f"Nothing is known of the {{{{ $labels.slo }}}} of the model {_WHOSE}: its objective can't ring",
        labels,
    )
    rules = tuple(rule for one in objectives for rule in one.rules())
    return Group(f"slo-{namespace}-{component}", (*rules, not_measured), interval=INTERVAL)


def objective_rules() -> tuple[Group, ...]:
    """What is computed for all objectives, and the alerts, each in the group that computes what it reads.

    That an objective is not measured a component's own rules tell.
    """
    return (
        Group(
            "model-slo",
            (
                _versions(),
                cluster_names(_CLUSTERS),
                *(rule for route in ROUTES for rule in (*_availability(route), *_latency(route))),
                *(_burn(window, *_added(f"{{}}:rate1m[{window}]")) for window in _SHORT),
                Alert(
                    "ModelBudgetBurnsFast",
                    _any(FAST, "availability"),
                    "0s",
                    "critical",
                    f"So many requests of the model {_WHOSE} fail that its error budget is gone in days",
                ),
                Alert(
                    "ModelLatencyOverObjective",
                    _any(FAST, "latency"),
                    "0s",
                    "critical",
                    f"So many requests of the model {_WHOSE} are slow that its latency objective is missed",
                ),
            ),
            interval=_OFTEN,
        ),
        Group(
            "model-slo-parts",
            tuple(
                Rule(
                    f"{name}:increase{_PARTS}",
                    f"avg_over_time({name}:rate1m[{_PARTS}]) * {_PART}",
                    f"{what} of the last five minutes, in number.",
                )
                for name, what in ((REQUESTS, "Requests"), (BAD, "Bad requests"))
            ),
            interval=_PARTS,
        ),
        Group(
            "model-slo-days",
            (
                *(_burn(window, *_added(f"{{}}:increase{_PARTS}[{window}]")) for window in _LONG),
                Alert(
                    "ModelBudgetBurnsSlowly",
                    _any(SLOW),
                    "0s",
                    "warning",
                    f"The {{{{ $labels.slo }}}} of the model {_WHOSE} is too low for its budget to last",
                ),
                Alert(
                    "ModelBudgetExhausted",
                    f"{LEFT} <= 0",
                    "0s",
                    "warning",
                    f"The error budget of the {{{{ $labels.slo }}}} of the model {_WHOSE} is spent",
                ),
            ),
            interval=_SELDOM,
        ),
    )


def bounds(source: Source) -> dict[str, str]:
    """The thresholds at which a source can count faster requests: milliseconds, and the same as its label le."""
    if source.histogram is None:
        return {}
    unit = MILLISECONDS / source.histogram.per_second
    return {_text(bound * unit): _text(bound) for bound in source.histogram.bounds}


def _text(number: float) -> str:
    """A number without needless digits, as CUE writes it and Prometheus: 250, 2.5."""
    rounded = round(number, 6)
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)


# ---------------------------------------------------------------- whose


def _versions() -> Rule:
    """Whose a version is: its pods say it, or, where none runs, the objective and what was known a while ago.

    A gateway knows versions alone, and counts the requests that no pod answers.
    """
    objective = f"max by ({', '.join(OWNER)}) ({OBJECTIVE})"
    own_name = f'label_replace({objective}, "version", "$1", "component", "(.+)")'
    pods, before = INFO, f"max by ({', '.join((*OWNER, 'version'))}) (last_over_time({INFO}[{_REMEMBERED}]))"
    known = " or on (namespace, version) ".join((pods, f"{own_name} * 0 + 1", before))
    return Rule(
        _VERSION,
        f"topk by (namespace, version) (1, {known}) and on ({', '.join(OWNER)}) {objective}",
        "1 for each version of a component that has an objective, its pods gone or not.",
    )


def _wanted(slo: Slo, route: Route, *more: str) -> str:
    """The objectives that this route counts for; never two of one key, even while one is changed."""
    return f'max by ({", ".join((*OWNER, *more))}) ({OBJECTIVE}{{slo="{slo}",route="{route}"}})'


def _owned(source: Source, expr: str, *more: str) -> str:
    """The sum over a component's versions."""
    if source.name in OF_OTHERS:
        expr = f"{expr} * on (namespace, version) group_left (app, component) {_VERSION}"
    return f"sum by ({', '.join((*OWNER, *more))}) ({expr})"


# ---------------------------------------------------------------- what is counted


def _availability(route: Route) -> tuple[Rule, ...]:
    sources = [one for one in SOURCES.values() if one.route == route and one.errors]

    def all_of(series: Callable[[Source], Sequence[Series]]) -> str:
        return _first(_owned(one, summed(one, series(one), "1m", growth_of(one), _CLUSTERS)) for one in sources)

    whose = ", ".join(OWNER)
    wanted = f"and on ({whose}) {_wanted('availability', route)}"
    labels = {"slo": "availability", "route": route}
    requests = f"{REQUESTS}:rate1m"
    counted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return (
        Rule(
            requests,
            f"({all_of(lambda one: one.requests)}) {wanted}",
            "Requests a second that count for the objective, over one minute.",
            labels,
        ),
        Rule(
            f"{BAD}:rate1m",
            # Just where requests are known, as both are averaged over what is known.
            f"({all_of(lambda one: one.errors)}) {wanted} or sum by ({whose}) ({requests}{{{counted}}}) * 0",
            "Requests a second that failed, over one minute.",
            labels,
        ),
    )


def _latency(route: Route) -> tuple[Rule, ...]:
    """Requests, and those of them that are not in the bucket which the objective's label le names."""
    found = [(one, one.histogram) for one in SOURCES.values() if one.route == route and one.histogram]
    sources = [(one, histogram) for one, histogram in found if histogram.bounds]
    asked = _first(
        _owned(one, summed(one, histogram.requests, "1m", _pace(histogram), _CLUSTERS)) for one, histogram in sources
    )
    in_buckets = _first(_owned(one, _buckets(one, histogram), "le") for one, histogram in sources)
    bound = f"on ({', '.join((*OWNER, 'le'))}) group_left () ({_wanted('latency', route, 'le')} * 0 + 1)"
    # Prometheus 3 writes 250.0 where 2 wrote 250.
    in_time = f'sum by ({", ".join(OWNER)}) (label_replace({in_buckets}, "le", "$1", "le", "(.+)[.]0") * {bound})'
    labels = {"slo": "latency", "route": route}
    requests = f"{REQUESTS}:rate1m"
    counted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return (
        Rule(
            requests,
            f"({asked}) and on ({', '.join(OWNER)}) {_wanted('latency', route)}",
            "Requests a second that count for the objective, over one minute.",
            labels,
        ),
        Rule(
            f"{BAD}:rate1m",
            f"clamp_min({requests}{{{counted}}} - on ({', '.join(OWNER)}) {in_time}, 0)",
            "Requests a second that were slower than the objective says, over one minute.",
            labels,
        ),
    )


def _pace(histogram: Histogram) -> Growth:
    """How growth is told: a histogram's own count is born with its buckets, and another counter may be older."""
    return between if histogram.asked else rate


def _buckets(source: Source, histogram: Histogram) -> str:
    buckets = selected(source, f"{histogram.name}_bucket", histogram.where, "1m", _pace(histogram), _CLUSTERS)
    return f"sum by ({key_of(source, 'le')}) ({buckets})"


def _first(expressions: Iterable[str]) -> str:
    """The first that has an answer, for each component."""
    return " or ".join(f"({one})" for one in expressions)


# ---------------------------------------------------------------- how fast it burns


def _added(series: str) -> tuple[str, str]:
    """The sums of bad and of all requests over the samples of *series*, whose name is to be put in."""
    return f"sum_over_time({series.format(BAD)})", f"sum_over_time({series.format(REQUESTS)})"


def _burn(window: str, bad: str, requests: str) -> Rule:
    key = ", ".join(KEY)
    return Rule(
        f"{BURN}{window}",
        f"{bad} / ({requests} > 0) / on ({key}) (1 - max by ({key}) ({OBJECTIVE}))",
        f"How many times faster than it may the error budget was spent, over {window}.",
    )


def _any(pairs: Sequence[tuple[float, str, str]], slo: Slo | None = None) -> str:
    which = f'{{slo="{slo}"}}' if slo else ""
    return " or ".join(
        f"({BURN}{long}{which} > {rate} and {BURN}{short}{which} > {rate})" for rate, long, short in pairs
    )
