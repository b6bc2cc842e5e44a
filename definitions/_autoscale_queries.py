"""What the trait autoscale asks of Prometheus: a query for each metric and source, and what one pod is worth in it.

Sources: metric names and units, velagen/monitoring/sources.py; the policies' numbers, velagen/autoscaling.py; KEDA
pkg/scalers/prometheus_scaler.go (the answer must be one number; NaN passes for one) and cpu_memory_scaler.go.
"""

from __future__ import annotations

from typing import Any

from velagen import (
    Expression,
    Reference,
    Value,
    cases,
    choose,
    comment,
    context,
    each,
    first_given,
    if_else,
    let,
    missing,
    one_of,
    replace_text,
)
from velagen import parameter as p
from velagen.autoscaling import ARTICLE_FACTOR, SLO_MOST, UTILIZATION
from velagen.monitoring.sources import CONTOUR, ENVOY_CLUSTER, GPU, MILLISECONDS, NAMED, SOURCES, Series, Source

workload = let(f"{context.name}-{p.part}")

#: What a trigger may hold beside the metric, and what stands for "not given", which the schema lets nobody write: CUE
#: 0.14 as KubeVela 1.11 calls it stumbles over a field that is asked for where it may be absent.
NOT_GIVEN: dict[str, Value] = {
    "target": 0,
    "targetLatencyMilliseconds": 0,
    "concurrencyPerReplica": 0,
    "utilization": 0,
    "query": "",
    "percentile": 0,
    "envoyCluster": "",
    "activation": -1,
}


def _asked(one: Any, at: Value, *, is_first: bool) -> dict[str, Value]:
    """A trigger, with all that it has from the trait, and where it is written."""
    bare = (one.metric == "concurrency") & missing(one.target)
    law = if_else(bare & (p.engine == "keda") if is_first else bare, "littles-law", "target")
    return {
        "at": at,
        "metric": one.metric,
        "policy": first_given(one.policy, law),
        "source": one.source if is_first else first_given(one.source, p.source),
        "window": one.window if is_first else first_given(one.window, p.window),
        "aggregation": one.aggregation if is_first else first_given(one.aggregation, "per-replica"),
        **{name: first_given(getattr(one, name), absent) for name, absent in NOT_GIVEN.items()},
    }


def is_given(one: Reference, name: str) -> Expression:
    """Whether the user wrote it in this trigger."""
    found: Expression = getattr(one, name) != NOT_GIVEN[name]
    return found


asked = let(
    comment(
        "What the pods follow: the trait's own metric first.",
        [
            _asked(p, "", is_first=True),
            each(first_given(p.triggers, []), lambda index, one: _asked(one, f"triggers[{index}]: ", is_first=False)),
        ],
    )
)

# One source's answers ---------------------------------------------------------------------------------------------

#: Those that stand at the pod's own server, whose series bear the labels of the pod.
OF_SERVERS = tuple(name for name, source in SOURCES.items() if source.route == "server")
READ = [SOURCES[name] for name in ("istio", "envoy", *OF_SERVERS)]
#: Places in a query that is the same for all models.
LABELS, WINDOW, PERCENTILE = "<labels>", "<window>", "<percentile>"


def selector(where: str) -> str:
    """What is asked for of this model alone."""
    return f"{{{where},{LABELS}}}" if where else f"{{{LABELS}}}"


def per_second(series: str, where: str) -> str:
    """The growth of a counter in a second, over all pods."""
    return f"sum(rate({series}{selector(where)}[{WINDOW}]))"


def level(series: Series) -> str:
    """A gauge over all pods, as it was on average."""
    return f"sum(avg_over_time({series.name}{selector(series.where)}[{WINDOW}]))"


def began_before(series: str, where: str) -> str:
    """An answer where a counter was looked at before the window too.

    Else the window is not full: Prometheus was away, or has lost what it knew. A rate is then too low, by half at its
    second look (Prometheus promql/functions.go, extrapolatedRate), and would take pods away under full load once
    Kubernetes has forgotten what it wanted before.
    """
    return f"count(count_over_time({series}{selector(where)}[{WINDOW}] offset {WINDOW}))"


def stalled(source: Source) -> str:
    """Excludes an answer where requests were counted and not one of their times.

    A proxy short of processor time adds to its histograms late (Envoy merges them at its own pace; its counters go on).
    No growth of the times would mean nobody in the system, and pods would go under full load.
    """
    mean, answered = source.mean, source.answered
    if not mean or (mean.count, mean.where) == (answered.name, answered.where):
        return ""
    return f" unless ({per_second(mean.count, mean.where)} == 0 and {per_second(answered.name, answered.where)} > 0)"


def requests(source: Source) -> str:
    """Answered requests in a second."""
    return per_second(source.answered.name, source.answered.where)


def counts_itself(source: Source) -> bool:
    """Whether a server says how many requests it has, as those of LLMs do: theirs may last longer than the window."""
    return bool(source.tokens and source.inflight and source.waiting)


def concurrency(source: Source) -> str:
    """Requests in the system. Little's law: arrival rate times mean time = the growth of the sum of all times.

    A server of an LLM counts those that it has: a request's time is known at its end only.
    """
    if counts_itself(source):
        assert source.inflight
        assert source.waiting
        return f"{level(source.inflight)} + {level(source.waiting)}"
    assert source.mean
    total = per_second(source.mean.total, source.mean.where)
    return total if source.mean.per_second == 1 else f"{total} / {source.mean.per_second}"


def latency(source: Source) -> str:
    """Milliseconds within which the given part of the requests is answered; without a histogram, their mean.

    Without requests these are 0/0, not a number, which KEDA would take for one: the comparison drops it, and no answer
    keeps the pods as they are.
    """
    if source.name not in MEANS:
        assert source.histogram
        buckets = f"{source.histogram.name}_bucket{selector(source.histogram.where)}"
        found = f"histogram_quantile({PERCENTILE}, sum by (le) (rate({buckets}[{WINDOW}])))"
        return f"{_milliseconds(found, source.histogram.per_second)} >= 0"
    assert source.mean
    total, count = (per_second(name, source.mean.where) for name in (source.mean.total, source.mean.count))
    return f"{_milliseconds(f'{total} / {count}', source.mean.per_second)} >= 0"


def _milliseconds(of: str, per_second: int) -> str:
    if per_second == MILLISECONDS:
        return of
    return f"{of} * {MILLISECONDS}" if per_second == 1 else f"{of} / {per_second // MILLISECONDS}"


#: Sources that give a mean: they have no histogram, or one that does not see all of the traffic.
MEANS = tuple(source.name for source in READ if not source.histogram or source.histogram.only)
QPS = {source.name: requests(source) for source in READ}
CONCURRENCY = {source.name: concurrency(source) for source in READ}
LATENCY = {source.name: latency(source) for source in READ}
#: What must have an answer too where the rate of requests, or the number in the system, is read.
FULL_QPS = {source.name: f" and {began_before(source.answered.name, source.answered.where)}" for source in READ}
FULL_CONCURRENCY = {
    source.name: f" and {began_before(source.mean.total, source.mean.where)}{stalled(source)}"
    for source in READ
    if source.mean and not counts_itself(source)
}
QUEUE = {source.name: level(source.waiting) for source in READ if source.waiting}
CACHE = {source.name: f"{level(source.cache)} * 100" for source in READ if source.cache}
#: Per cent of all GPUs of the model's pods; in MIG mode, where that is absent, of their parts.
GPUS = f"{level(Series(GPU.utilization))} or {level(Series(GPU.engine))} * 100"

#: Where envoyCluster is not given: a definition knows neither the gateway's controller nor how that is configured.
CONTOUR_CLUSTER = CONTOUR.of(f"{context.namespace}", f"{workload}", "80", f"{context.name}")
own_pods = f'namespace="{context.namespace}",pod=~"{workload}-.*"'
LABELS_OF_SOURCE = {
    "istio": f'{NAMED["istio"].name}="{workload}",{NAMED["istio"].namespace}="{context.namespace}"',
    **dict.fromkeys(OF_SERVERS, own_pods),
}


def query(one: Reference) -> Expression:
    """The PromQL of a trigger."""
    envoy = if_else(is_given(one, "envoyCluster"), one.envoyCluster, CONTOUR_CLUSTER)
    labels = cases(
        (one.metric == "gpu", own_pods),
        (one.source == "envoy", f'{ENVOY_CLUSTER}="{envoy}"'),
        otherwise=choose(one.source, LABELS_OF_SOURCE, ""),
    )
    target = one.targetLatencyMilliseconds
    in_system, took = choose(one.source, CONCURRENCY, ""), choose(one.source, LATENCY, "")
    full_qps, full = choose(one.source, FULL_QPS, ""), choose(one.source, FULL_CONCURRENCY, "")
    measured: Expression = cases(
        (one.policy == "article", f"{choose(one.source, QPS, '')} * {ARTICLE_FACTOR} / {target}{full_qps}"),
        (one.policy == "slo", f"({in_system}) * (clamp(({took}) / {target}, 1, {SLO_MOST}) or vector(1)){full}"),
        (one.metric == "qps", f"{choose(one.source, QPS, '')}{full_qps}"),
        (one.metric == "latency", took),
        (one.metric == "queue", choose(one.source, QUEUE, "")),
        (one.metric == "kv-cache", choose(one.source, CACHE, "")),
        (one.metric == "gpu", GPUS),
        otherwise=f"{in_system}{full}",
    )
    percentile = if_else(is_given(one, "percentile"), one.percentile, 0.95)
    for place, value in ((LABELS, labels), (WINDOW, one.window), (PERCENTILE, f"{percentile}")):
        measured = replace_text(measured, place, value)
    # Of a query of the user's own, not a number is dropped as well.
    return if_else(one.metric == "custom", f"({one.query}) > -1000000000", measured)


def pods_worth(one: Reference) -> Expression:
    """What one pod bears of the query's number, as text."""
    at_once = if_else(is_given(one, "concurrencyPerReplica"), one.concurrencyPerReplica, 1)
    capacity = at_once * if_else(is_given(one, "utilization"), one.utilization, UTILIZATION)
    return cases(
        (one.policy == "article", "1"),
        (one_of(one.policy, "littles-law", "slo"), f"{capacity}"),
        otherwise=f"{one.target}",
    )


def metric_type(one: Reference) -> Expression:
    """AverageValue: the pods share the metric, ceil(metric / threshold) of them are wanted.

    Value: the metric is what it is whatever their number, and their number is changed by its ratio to the threshold.
    """
    is_total = ((one.metric == "latency") & (one.policy != "slo")) | (
        (one.metric == "custom") & (one.aggregation == "total")
    )
    return if_else(is_total, "Value", "AverageValue")
