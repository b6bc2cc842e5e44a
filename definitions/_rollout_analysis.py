"""What a check of the step rollout-model asks Prometheus, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Callable

from _prometheus import vector
from _rollout_refusals import queries
from _rollout_seen import (
    answer,
    candidate_is_ready,
    candidate_name,
    candidate_object,
    is_kserve,
    namespace,
    rules,
    stable_version,
    trouble,
)
from _rollout_state import before_check, is_due
from _rollout_webhooks import broken_webhooks, silent_webhooks

from velagen import (
    cases,
    choose,
    concat,
    each,
    first_given,
    given,
    if_else,
    join,
    length,
    let,
    replace_text,
    when,
)
from velagen import parameter as p
from velagen.rollout import transitions, verdict
from velagen.template.expression import Expression, Literal, Reference, Value

WINDOW_SECONDS = 300
#: Who counts, in the order in which they are believed: what stands in front of both versions sees all failures.
ROUTES = (let(if_else(is_kserve, "knative", "envoy")), "istio", "server")
#: What records of versions are called, and of revisions.
RECORDS = let(if_else(is_kserve, "revision", "model"))


def of_version(name: Value) -> Value:
    """The labels by which a version's records are known."""
    return f'namespace="{namespace}",version="{name}"'


OF_CANDIDATE, OF_STABLE = let(of_version(candidate_name)), let(of_version(stable_version))
OF_BOTH = let(f'namespace="{namespace}",version=~"{stable_version}|{candidate_name}"')


def record(name: str, of: Value, route: Value) -> Value:
    """A record of one version, by one that counts (docs/monitoring.md)."""
    return f'{RECORDS}:{name}{{{of},route="{route}"}}'


def first_of(query: Callable[[Value], Value]) -> Expression:
    """The first query that has an answer, without labels; one for each that counts."""
    return join([each(list(ROUTES), lambda route: f"max({query(route)})")], " or ")


percentile = p.analysis.latency.percentile
tail = let(choose(percentile, {"p95": 0.95, "p99": 0.99}, default=0.5))
is_relative = p.analysis.relative.falseAlarms > 0


def latency(of: Value, route: Value) -> Value:
    """The percentile, in seconds."""
    return record(f"latency_seconds:{percentile}", of, route)


def mean(of: Value, route: Value) -> Value:
    """The mean, in seconds."""
    return record("latency_seconds:mean", of, route)


COUNTED = first_of(lambda route: record("requests:increase5m", OF_CANDIDATE, route))
#: By the rules of an earlier release.
COUNTED_BY_RATE = first_of(
    lambda route: f"avg_over_time({record('requests:rate1m', OF_CANDIDATE, route)}[5m]) * {WINDOW_SECONDS}"
)
#: Windows of five minutes speak long after the last scrape, and a version whose metrics vanish would pass its checks.
REQUESTS = f"({COUNTED} or {COUNTED_BY_RATE}) and on () count({RECORDS}:requests:rate1m{{{OF_CANDIDATE}}})"
SUCCESS = first_of(lambda route: f"1 - {record('errors:ratio5m', OF_CANDIDATE, route)}")
LATENCY = first_of(lambda route: f"1000 * {latency(OF_CANDIDATE, route)}")


def beside_stable(of: Callable[[Value, Value], Value]) -> Expression:
    """Like with like: both versions by the same counter."""
    return first_of(lambda route: f"max({of(OF_CANDIDATE, route)}) / max({of(OF_STABLE, route)})")


#: Where one has no percentile by the mean.
BESIDE_STABLE = f"{beside_stable(latency)} or {beside_stable(mean)}"


BUCKETS = let(f"{RECORDS}:latency_seconds_bucket:increase5m")


def per_version(query: Value) -> Value:
    """A count of each version by each that counts it."""
    return f"max by (route, version) ({query})"


def slower(pick: Value, comparison: str) -> Value:
    """Each version's requests above a bucket's bound: the last, or the first, with so many of all requests below it."""
    every = per_version(f'{BUCKETS}{{{OF_BOTH},le="+Inf"}}')
    part = f'on (route) group_left () ({tail} * sum by (route) ({BUCKETS}{{{OF_BOTH},le="+Inf"}}))'
    at = f'{pick} by (route) (1, sum by (route, le) ({BUCKETS}{{{OF_BOTH},le!="+Inf"}}) {comparison} {part})'
    return f"{every} - {per_version(f'{BUCKETS}{{{OF_BOTH}}} and on (route, le) {at}')}"


def named(name: Value, query: Value) -> Value:
    """A query whose answer is known by the label rollout among others."""
    return f'label_replace({query}, "rollout", "{name}", "", "")'


def rounded(query: Value, to: str) -> Value:
    """A number that can be read in a reason."""
    return f"round({query}, {to})"


def of_user(query: Expression) -> Expression:
    """The user's query with the versions in it."""
    text = replace_text(replace_text(query, "VERSION", candidate_name), "STABLE", stable_version)
    return replace_text(text, "NAMESPACE", namespace)


#: What is left of the objectives of both versions.
BUDGET = f'min(model:slo_budget_left:ratio{{namespace="{namespace}",component=~"{p.component}|{candidate_object}"}})'
alerts = first_given(p.analysis.alerts, [])


def ringing(alert: Reference) -> Value:
    """How many alerts of this name ring; Prometheus has no series of those that don't."""
    labels = of_user(first_given(alert.selector, 'namespace="NAMESPACE",version="VERSION"'))
    return f'count(ALERTS{{alertname="{alert.name}",alertstate="firing",{labels}}}) or vector(0)'


bounded = p.analysis.latency
#: One question for all that a check looks at: it is answered as a whole or not at all.
question = let(
    join(
        [
            named("requests", rounded(REQUESTS, "1")),
            when(p.analysis.successRatio > 0, named("success ratio", rounded(SUCCESS, "0.000001"))),
            when(given(bounded.milliseconds), named("latency", rounded(LATENCY, "0.1"))),
            when(bounded.timesStable > 0, named("beside stable", rounded(BESIDE_STABLE, "0.001"))),
            when(given(p.analysis.budgetLeft), named("budget", rounded(BUDGET, "0.0001"))),
            each(alerts, lambda one: named(f"alert {one.name}", f"({ringing(one)})")),
            each(queries, lambda one: named(f"query {one.name}", f"({of_user(one.query)})")),
            when(
                is_relative & (p.analysis.successRatio > 0),
                join(
                    [
                        named("all", rounded(per_version(f"{RECORDS}:requests:increase5m{{{OF_BOTH}}}"), "1")),
                        named("failed", rounded(per_version(f"{RECORDS}:errors:increase5m{{{OF_BOTH}}}"), "1")),
                    ],
                    " or ",
                ),
            ),
            when(
                is_relative & (bounded.timesStable > 0),
                join(
                    [
                        named("timed", rounded(per_version(f'{BUCKETS}{{{OF_BOTH},le="+Inf"}}'), "1")),
                        named("slower", rounded(slower("topk", "<"), "1")),
                        named("slowest", rounded(slower("bottomk", ">="), "1")),
                    ],
                    " or ",
                ),
            ),
        ],
        " or ",
    )
)
asked = answer("ask", "query")
has_answer, results = vector(first_given(asked.statusCode, 0), let(first_given(asked.body, "")))


def measured(name: Value) -> Expression:
    """What was measured, as text; empty where there is nothing, or more than one number."""
    found = [
        each(
            results,
            lambda one: first_given(one.value[1], ""),
            where=lambda one: first_given(one.metric.rollout, "") == name,
        )
    ]
    return join(found, " and ")


def count(name: Value, of: Value, route: Value) -> Expression:
    """A count of one version by one that counts, as text."""
    found = [
        each(
            results,
            lambda one: first_given(one.value[1], ""),
            where=lambda one: (
                (first_given(one.metric.rollout, "") == name)
                & (first_given(one.metric.version, "") == of)
                & (first_given(one.metric.route, "") == route)
            ),
        )
    ]
    return join(found, " and ")


#: What is bad, of which requests, and who counts.
COMPARED = [
    {"bad": bad, "all": every, "route": route}
    for bad, every in {"failed": "all", "slower": "timed", "slowest": "timed"}.items()
    for route in ROUTES
]
pairs = let(
    [
        each(
            COMPARED,
            lambda what: {
                "of": what.bad,
                "bad": count(what.bad, candidate_name, what.route),
                "all": count(what["all"], candidate_name, what.route),
                "stableBad": count(what.bad, stable_version, what.route),
                "stableAll": count(what["all"], stable_version, what.route),
            },
        )
    ]
)
amounts = let(
    [
        each(
            pairs,
            lambda pair: {"of": pair.of, "words": verdict.failures_in_words(pair), **verdict.numbers(pair)},
            where=verdict.is_counted,
        )
    ]
)
looks = let(length(rules.steps) * rules.checks * verdict.LOOKS_OF_A_CHECK)
evidence = let(verdict.enough_evidence(looks, p.analysis.relative.falseAlarms))
differences = let(
    [
        each(
            amounts,
            lambda one: {
                "of": one.of,
                "words": one.words,
                "beyondChance": verdict.is_beyond_chance(verdict.counts(one), evidence),
                "beyondMargin": verdict.is_beyond_margin(verdict.counts(one), p.analysis.relative.successMargin),
            },
        )
    ]
)


def difference(name: str) -> Expression:
    """Both versions' by each that counts both: the first is believed."""
    return Literal([each(differences, lambda one: one, where=lambda one: one.of == name)])


failed, slower_ones, slowest_ones = let(difference("failed")), let(difference("slower")), let(difference("slowest"))
#: What breaks a bound and is not more than chance, or than the stable version's own, says nothing.
fails_by_chance = let(is_relative & ~first_given(failed[0].beyondChance, True))
slow_by_chance = let(
    is_relative
    & (given(slower_ones[0]) | given(slowest_ones[0]))
    & ~first_given(slower_ones[0].beyondChance, False)
    & ~first_given(slowest_ones[0].beyondChance, False)
)


def bound(
    name: Value, value: Value, limit: Value, *, unit: str = "", at_most: bool, unsure: Value = False
) -> dict[str, Value]:
    """See velagen.rollout.verdict."""
    return {"name": name, "value": value, "unit": unit, "limit": limit, "atMost": at_most, "unsure": unsure}


bounds = let(
    [
        when(
            p.analysis.successRatio > 0,
            bound(
                "success ratio",
                measured("success ratio"),
                p.analysis.successRatio,
                at_most=False,
                unsure=fails_by_chance,
            ),
        ),
        when(
            given(bounded.milliseconds),
            bound(f"latency ({percentile})", measured("latency"), bounded.milliseconds, unit=" ms", at_most=True),
        ),
        when(
            bounded.timesStable > 0,
            bound(
                f"latency ({percentile})",
                measured("beside stable"),
                bounded.timesStable,
                unit=f" times {stable_version}'s",
                at_most=True,
                unsure=slow_by_chance,
            ),
        ),
        when(
            given(p.analysis.budgetLeft),
            bound("error budget left", measured("budget"), p.analysis.budgetLeft, at_most=False),
        ),
        each(alerts, lambda one: bound(f"alert {one.name}", measured(f"alert {one.name}"), 0, at_most=True)),
        each(
            queries,
            lambda one: bound(one.name, measured(f"query {one.name}"), one.atLeast, at_most=False),
            where=lambda one: given(one.atLeast),
        ),
        each(
            queries,
            lambda one: bound(one.name, measured(f"query {one.name}"), one.atMost, at_most=True),
            where=lambda one: given(one.atMost),
        ),
    ]
)
requests_seen = let(measured("requests"))
more_failures: Value = [
    each(
        failed,
        lambda _, one: one.words,
        where=lambda number, one: (number == 0) & is_relative & one.beyondChance & one.beyondMargin,
    )
]
broken = let(concat(verdict.broken(bounds), more_failures, broken_webhooks))
unmeasured = let(concat(verdict.unmeasured(bounds), silent_webhooks))
judged = (broken, unmeasured, requests_seen, p.analysis.minimumRequests)
check = let(
    cases(
        (~is_due, "none"),
        (~candidate_is_ready, "bad"),
        (~has_answer, "inconclusive"),
        otherwise=verdict.verdict(*judged),
    )
)
why = let(
    cases(
        (~is_due, ""),
        (~candidate_is_ready, f"{candidate_name} was not ready{trouble}"),
        (~has_answer, f"Prometheus answered {first_given(asked.statusCode, 0)}, and no numbers"),
        otherwise=verdict.reason(*judged),
    )
)
seen_now = let(
    {
        **{name: before_check[name] for name in transitions.unseen() if name not in ("check", "why")},
        "check": check,
        "why": why,
    }
)
