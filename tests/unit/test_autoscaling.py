"""What the trait autoscale asks of Prometheus: promtool's answers beside the formulas that the simulator calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.promtool import holds, series

from velagen import autoscaling
from velagen.monitoring.sources import GPU, SOURCES

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "definitions"))
import _autoscale_queries as queries  # noqa: E402  # found by the line above

#: A look each 15 s for ten minutes.
LOOKS = 40


def grows(name: str, per_second: float, **labels: str) -> dict[str, str]:
    return series(name, f"0+{per_second * 15:g}x{LOOKS}", **labels)


def stays(name: str, value: float, **labels: str) -> dict[str, str]:
    return series(name, f"{value:g}x{LOOKS}", **labels)


def of_golden(example: str, output: str = "ScaledObject") -> list[dict[str, Any]]:
    """The triggers of the last ScaledObject of an example, as KubeVela rendered them."""
    found = yaml.safe_load_all((ROOT / "tests/unit/golden" / f"{example}.yaml").read_text(encoding="utf-8"))
    *_, last = [one for one in found if one["kind"] == output]
    triggers: list[dict[str, Any]] = last["spec"]["triggers"]
    return triggers


def asks(query: str, *values: float, at: str = "5m") -> dict[str, Any]:
    expected = [{"labels": "{}", "value": value} for value in values]
    return {"expr": f"round({query}, 0.001)", "eval_time": at, "exp_samples": expected}


def case(inputs: list[dict[str, str]], *tests: dict[str, Any]) -> dict[str, Any]:
    return {"interval": "15s", "input_series": inputs, "promql_expr_test": list(tests)}


EMPTY = yaml.safe_dump({"groups": []})

#: As the servers and the gateway give them: two pods with 10 requests a second of 0.25 s each, and another model's.
POD = {"namespace": "default", "pod": "m-predictor-a"}
PODS = [POD, {**POD, "pod": "m-predictor-b"}, {**POD, "pod": "other-predictor-c"}]
ISTIO = {"reporter": "destination", "destination_workload": "m-predictor", "destination_workload_namespace": "default"}
EVERY = {
    "istio": [{**ISTIO, "pod": "a"}, {**ISTIO, "pod": "b"}, {**ISTIO, "reporter": "source"}],
    "envoy": [
        {"envoy_cluster_name": "default_m-predictor_80", "pod": "e1"},
        {"envoy_cluster_name": "default_m-predictor_80", "pod": "e2"},
        {"envoy_cluster_name": "default_n-predictor_80"},
    ],
    **dict.fromkeys(queries.OF_SERVERS, PODS),
}


def exposition(source: str, labels: dict[str, str]) -> list[dict[str, str]]:
    """One pod's series: 10 requests a second of 0.25 s, 3 in work and 2 that wait, its cache half full."""
    one = SOURCES[source]
    found = {(one.answered.name, 10.0)}
    if one.mean:
        found |= {(one.mean.count, 10.0), (one.mean.total, 2.5 * one.mean.per_second)}
    made = [grows(name, rate, **labels) for name, rate in sorted(found)]
    if one.histogram:
        scale = one.histogram.per_second
        # All between 0.2 and 0.3 s: the middle of the bucket is the 50th percentile.
        made += [
            grows(f"{one.histogram.name}_bucket", rate, **labels, le=f"{bound * scale:g}" if bound else "+Inf")
            for bound, rate in ((0.2, 0.0), (0.3, 10.0), (0.0, 10.0))
        ]
    if one.inflight:
        made.append(stays(one.inflight.name, 3, **labels))
    if one.waiting:
        made.append(stays(one.waiting.name, 2, **labels))
    if one.cache:
        made.append(stays(one.cache.name, 0.5, **labels))
    return made


def filled(query: str, source: str) -> str:
    """A table's query with what KubeVela puts into its places for a model m."""
    own = {
        "istio": 'destination_workload="m-predictor",destination_workload_namespace="default"',
        "envoy": 'envoy_cluster_name="default_m-predictor_80"',
    }.get(source, 'namespace="default",pod=~"m-predictor-.*"')
    return query.replace(queries.LABELS, own).replace(queries.WINDOW, "1m").replace(queries.PERCENTILE, "0.5")


def test_each_source_has_an_answer_of_this_model_alone(tmp_path: Path) -> None:
    cases = []
    for source, labels in EVERY.items():
        in_system = 10.0 if source == "vllm" else 5.0  # the server counts those it has: 2 * (3 + 2)
        tests = [
            asks(filled(queries.QPS[source], source), 20),
            asks(filled(queries.CONCURRENCY[source], source), in_system),
            asks(filled(queries.LATENCY[source], source), 250),
        ]
        if source in queries.QUEUE:
            tests.append(asks(filled(queries.QUEUE[source], source), 4))
        if source in queries.CACHE:
            tests.append(asks(filled(queries.CACHE[source], source), 100))
        cases.append(case([one for each in labels for one in exposition(source, each)], *tests))
    holds(tmp_path, EMPTY, *cases)


def test_without_a_series_or_requests_there_is_no_answer(tmp_path: Path) -> None:
    everything = [
        filled(table[source], source)
        for table in (queries.QPS, queries.CONCURRENCY, queries.LATENCY, queries.QUEUE, queries.CACHE)
        for source in table
    ]
    idle = [
        one | {"values": f"7x{LOOKS}"}
        for source in EVERY
        if source != "vllm"
        for one in exposition(source, EVERY[source][0])
    ]
    holds(
        tmp_path,
        EMPTY,
        case([stays("up", 1)], *(asks(query) for query in everything)),
        # 0/0 is no number, which KEDA would take for one.
        case(idle, *(asks(filled(queries.LATENCY[source], source)) for source in EVERY if source != "vllm")),
    )


def test_after_an_outage_there_is_no_answer_until_the_window_is_full(tmp_path: Path) -> None:
    """A rate over half a window is half of it: after a long outage pods would go under full load."""
    cases = []
    for example, name, labels, right in (
        ("autoscale-article", "istio_requests_total", {"destination_workload": "sentiment-article-predictor"}, 4.0),
        (
            "autoscale-transformer",
            "istio_request_duration_milliseconds_sum",
            {"destination_workload": "autoscale-transformer-transformer"},
            0.1,
        ),
    ):
        query = of_golden(example)[0]["metadata"]["query"]
        alone = query.partition(" and ")[0]
        # 100 in a second; Prometheus is away for five minutes, and may have lost all that it knew.
        for before in ("0+1500x9 _x20", "_x30"):
            cases.append(
                case(
                    [series(name, f"{before} 45000+1500x20", **{**ISTIO, **labels})],
                    asks(f"{query} or vector(-1)", -1, at="7m45s"),
                    asks(f"({alone}) < bool {0.7 * right}", 1, at="7m45s"),
                    asks(f"{query} or vector(-1)", -1, at="8m15s"),
                    asks(query, right, at="8m45s"),
                    asks(query, right, at="10m"),
                )
            )
    holds(tmp_path, EMPTY, *cases)


def test_requests_whose_times_are_not_counted_are_no_answer_and_no_requests_are(tmp_path: Path) -> None:
    """Seen on Envoy: short of processor time its histograms stood still for half a minute, and its counters did not."""
    query = of_golden("autoscale-slo")[0]["metadata"]["query"]
    envoy = {"envoy_cluster_name": "default_autoscale-slo-predictor_80"}
    times = "envoy_cluster_upstream_rq_time"

    def counted(total: str, count: str, completed: str) -> list[dict[str, str]]:
        series_of = (
            (f"{times}_sum", total),
            (f"{times}_count", count),
            ("envoy_cluster_upstream_rq_completed", completed),
        )
        return [series(name, values, **envoy) for name, values in series_of]

    grow, stand = "0+15000x20", "300000x20"
    holds(
        tmp_path,
        EMPTY,
        case(counted(f"{grow} {stand}", "0+300x20 6000x20", "0+300x40"), asks(query, 1, at="5m"), asks(query, at="8m")),
        case(counted(f"{grow} {stand}", "0+300x20 6000x20", "0+300x20 6000x20"), asks(query, 0, at="8m")),
    )


def test_gpus_are_read_whole_or_in_mig_mode_in_parts(tmp_path: Path) -> None:
    query = filled(queries.GPUS, "triton")
    holds(
        tmp_path,
        EMPTY,
        case([stays(GPU.utilization, 60, **pod) for pod in PODS], asks(query, 120)),
        case([stays(GPU.engine, 0.25, **pod) for pod in PODS], asks(query, 50)),
    )


def test_the_rendered_queries_are_the_formulas(tmp_path: Path) -> None:
    """Of the examples, with the thresholds that KEDA divides by."""
    (article,) = of_golden("autoscale-article")
    (law,) = of_golden("autoscale-transformer")
    (slo,) = of_golden("autoscale-slo")
    (custom,) = of_golden("autoscale-custom")
    istio = {**ISTIO, "destination_workload": "sentiment-article-predictor"}
    transformer = {**ISTIO, "destination_workload": "autoscale-transformer-transformer"}
    envoy = {"envoy_cluster_name": "default_autoscale-slo-predictor_80"}

    def pods(trigger: dict[str, Any]) -> str:
        return f"({trigger['metadata']['query']}) / {trigger['metadata']['threshold']}"

    def slow(milliseconds: float) -> list[dict[str, str]]:
        """Four requests in the system, and a 95th percentile of *milliseconds* at the end of a bucket."""
        bounds = {f"{milliseconds * 2:g}": 20, f"{milliseconds:g}": 19, f"{milliseconds / 2:g}": 0, "+Inf": 20}
        time = "envoy_cluster_upstream_rq_time"
        buckets = [grows(f"{time}_bucket", rate, **envoy, le=bound) for bound, rate in bounds.items()]
        return [grows(f"{time}_sum", 4000, **envoy), *buckets]

    def of_slo(latency: float | None) -> float:
        return round(autoscaling.slo(4, latency, 200), 3)

    holds(
        tmp_path,
        EMPTY,
        case([grows("istio_requests_total", 100, **istio)], asks(pods(article), autoscaling.article(100, 20))),
        case(
            [grows("istio_request_duration_milliseconds_sum", 4000, **transformer)],
            asks(pods(law), autoscaling.littles_law(4)),
        ),
        case(slow(100), asks(pods(slo), of_slo(100))),
        case(slow(300), asks(pods(slo), of_slo(300))),
        case(slow(2000), asks(pods(slo), of_slo(2000))),
        # The times are there and the percentile is not.
        case(slow(300)[:1], asks(pods(slo), of_slo(None))),
        case(slow(300)[1:], asks(pods(slo))),
        # Not a number is no answer.
        case([series("up", "1x40")], asks(custom["metadata"]["query"].replace("vector(0)", "(vector(0)/0)"))),
    )
    assert of_slo(100) == autoscaling.littles_law(4)
    assert of_slo(2000) == 2 * autoscaling.littles_law(4)


def test_every_trigger_of_prometheus_takes_no_answer_for_an_error() -> None:
    llm, schedule = of_golden("autoscale-llm"), of_golden("autoscale-schedule")
    assert {one["metadata"]["ignoreNullValues"] for one in llm} == {"false"}
    assert [one["metricType"] for one in llm] == ["AverageValue"] * 3
    assert [one["type"] for one in schedule] == ["cron"]


@pytest.mark.parametrize(
    ("pods", "running", "wanted"),
    [(4.0, 4, 4), (4.3, 4, 4), (4.5, 4, 5), (3.7, 4, 4), (3.5, 4, 4), (3.0, 4, 3), (0.2, 3, 1), (2.5, 0, 3)],
)
def test_kubernetes_rounds_up_and_tolerates_a_tenth(pods: float, running: int, wanted: int) -> None:
    assert autoscaling.wanted(pods, running) == wanted
