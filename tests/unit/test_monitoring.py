"""The table of sources and its recording rules, evaluated by Prometheus' own promtool on series as the servers give."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.promtool import OWNER, expect, holds, of_pod, run, series

from velagen.cli import main
from velagen.gpusim import metrics as gpusim_metrics
from velagen.gpusim import names as gpusim_names
from velagen.lab.kind.prometheus import configuration
from velagen.monitoring.objects import all_groups
from velagen.monitoring.rules import ROUTES, Rule, recording_rules, rules_file
from velagen.monitoring.scrape import LABELS, scrape_config
from velagen.monitoring.sources import BUSY, CLUSTER, CONTOUR, ENVOY_CLUSTER, GPU, NAMED, NAMINGS, SOURCES
from velagen.tools import tool

ROOT = Path(__file__).parents[2]
RULES = rules_file(all_groups())
#: Those of the pods and of each route, as promtool takes its time for each rule.
BY_ROUTE = {
    route: rules_file(group for group in recording_rules() if group.name in {"model-pods", f"model-{route}"})
    for route in ROUTES
}
RECORDS = [rule for group in recording_rules() for rule in group.rules if isinstance(rule, Rule)]


def got(name: str, at: str, *samples: tuple[dict[str, str], float]) -> dict[str, Any]:
    return expect(name, at, *samples)


def of(route: str, value: float, **labels: str) -> tuple[dict[str, str], float]:
    return {**OWNER, **labels, "route": route}, value


def case(*inputs: dict[str, str], tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Series and what is to come of them; a pod is scraped, unless the case says itself what is."""
    scraped = [] if any(one["series"].startswith("up{") for one in inputs) else [of_pod("up", "1x40")]
    return {"interval": "15s", "input_series": [*inputs, *scraped], "promql_expr_test": tests}


def buckets(name: str, per_look: dict[str, int], make: Any = of_pod, **labels: str) -> list[dict[str, str]]:
    """A histogram whose buckets grow by so much at each look."""
    return [make(f"{name}_bucket", f"0+{step}x40", le=le, **labels) for le, step in per_look.items()]


def buckets_of(pod: str, life: str, **labels: str) -> list[dict[str, str]]:
    """A histogram of a pod that lives for a while."""
    return [
        of_pod(f"{name}_bucket", life.format(f"0+{step}"), pod, le=le, path="/v2/models/{m}/infer", **labels)
        for name in ("rest_server_request_duration_seconds",)
        for le, step in (("0.1", 10), ("+Inf", 30))
    ]


def of_any(value: float) -> dict[str, Any]:
    """A sample without labels."""
    return {"labels": "{}", "value": value}


# ---------------------------------------------------------------- the table


def test_no_other_module_holds_a_metrics_name() -> None:
    names = {*GPU.names, *CLUSTER.names, *(name for source in SOURCES.values() for name in source.names)}
    # Also without a histogram's suffix.
    names |= {re.sub("_(sum|count|bucket|total)$", "", name) for name in names}
    # Nor one of a gateway's or a mesh's labels.
    names |= {ENVOY_CLUSTER, *(label for one in NAMED.values() for label in (one.namespace, one.name))}
    table = ROOT / "generator/velagen/monitoring/sources.py"
    # It is installed without the rest of velagen; the next test but one holds its names against the table.
    simulator = ROOT / "generator/velagen/gpusim/names.py"
    held = {
        str(path.relative_to(ROOT)): found
        for folder in ("generator", "definitions", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path not in (table, simulator) and (found := in_file(path, names))
    }
    assert held == {}
    assert in_file(table, {"nv_inference_count"})


def in_file(path: Path, names: set[str]) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return sorted(name for name in names if name in text)


def test_each_source_says_where_its_facts_are_from_and_what_it_measures() -> None:
    for source in SOURCES.values():
        assert source.fact
        assert source.requests
        # Each has a time of some kind, by which autoscale's concurrency and the mean are told.
        assert source.mean, source.name
    assert {source.route for source in SOURCES.values()} == set(ROUTES)
    assert {name for name, source in SOURCES.items() if source.histogram is None} == {"triton", "torchserve"}


def test_the_simulator_gives_what_the_table_calls_it() -> None:
    assert set(gpusim_metrics._HELP) == GPU.names
    assert gpusim_names.BUSY == BUSY
    assert BUSY["nv_inference_compute_infer_duration_us"] == 1e-6


# ---------------------------------------------------------------- the rules


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(CliRunner().invoke(main, ["metrics", "rules"]).output, encoding="utf-8")
    assert (tmp_path / "rules.yaml").read_text(encoding="utf-8") == RULES
    assert "SUCCESS: " in run("check", "rules", tmp_path / "rules.yaml")


def test_percentiles_come_from_histograms_and_a_source_without_one_says_so() -> None:
    for rule in RECORDS:
        if re.fullmatch(r"model:\w+:p[0-9]+", rule.record):
            assert "histogram_quantile(" in rule.expr
            for source in SOURCES.values():
                if source.route == rule.labels["route"] and source.histogram is None:
                    assert source.mean
                    assert source.mean.total not in rule.expr
                    assert source.title in rule.about.partition("Not given by")[2]
                    assert f"# {rule.about}\n" in RULES


def test_no_two_rules_write_the_same_series() -> None:
    written = [(rule.record, *rule.labels.items()) for rule in RECORDS]
    assert len(written) == len(set(written))


def test_what_servers_give_becomes_one_vocabulary(tmp_path: Path) -> None:
    """Each case a server: 2 pods or 1, some errors, absent series of errors, no traffic, all failing."""
    triton = case(
        of_pod("nv_inference_request_success", "0+30x40", model="a", exported_version="1"),
        of_pod("nv_inference_request_success", "0+60x40", "m-predictor-2", model="a", exported_version="1"),
        of_pod("nv_inference_request_failure", "0+10x40", model="a", reason="BACKEND"),
        of_pod("nv_inference_request_failure", "0+20x40", model="a", reason="CANCELED"),
        # 90 requests of 20 ms at each look.
        of_pod("nv_inference_request_duration_us", "0+1800000x40", model="a"),
        of_pod("nv_inference_queue_duration_us", "0+450000x40", model="a"),
        of_pod("nv_inference_count", "0+240x40", model="a"),
        of_pod("nv_inference_exec_count", "0+60x40", model="a"),
        of_pod("nv_inference_pending_request_count", "3x40", model="a"),
        of_pod("up", "1x40"),
        of_pod("up", "0x40", "m-predictor-2"),
        tests=[
            got("model:requests:rate1m", "6m", of("server", 8)),
            # Over a closed window all requests: 8 a second for five minutes.
            got("avg_over_time(model:requests:rate1m[5m]) * 300", "6m", of("server", 2400)),
            got("model:errors:ratio5m", "6m", of("server", 0.083)),
            got("model:latency_seconds:mean", "6m", of("server", 0.02)),
            got("model:inflight", "6m", of("server", 0.12)),
            got("model:queue_seconds:mean", "6m", of("server", 0.005)),
            got("model:batch_size:mean", "6m", of("server", 4)),
            got("model:waiting", "6m", of("server", 3)),
            got("model:replicas", "6m", (OWNER, 1)),
            got("model:latency_seconds:p99", "6m"),
        ],
    )
    mlserver = case(
        of_pod("model_infer_request_success_total", "0+45x40", model="a"),
        of_pod("model_infer_request_duration_sum", "0+9x40", model="a"),
        of_pod("model_infer_request_duration_count", "0+45x40", model="a"),
        *buckets(
            "rest_server_request_duration_seconds",
            {"0.1": 0, "0.2": 45, "+Inf": 45},
            path="/v2/models/{model_name}/infer",
        ),
        # What else is asked of the server is not a request of the model.
        *buckets("rest_server_request_duration_seconds", {"0.1": 900, "0.2": 900, "+Inf": 900}, path="/v2/models/a"),
        tests=[
            got("model:requests:rate1m", "6m", of("server", 3)),
            # No failure yet: their series is absent, and that is not an error.
            got("model:errors:ratio5m", "6m", of("server", 0)),
            got("model:latency_seconds:p50", "6m", of("server", 0.15)),
            got("model:latency_seconds:mean", "6m", of("server", 0.2)),
        ],
    )
    failing = case(
        of_pod("model_infer_request_failure_total", "0+15x40", model="a"),
        tests=[
            got("model:requests:rate1m", "6m", of("server", 1)),
            got("model:errors:ratio5m", "6m", of("server", 1)),
        ],
    )
    idle = case(
        of_pod("model_infer_request_success_total", "7x40", model="a"),
        *buckets("request_predict_seconds", {"0.1": 0, "+Inf": 0}),
        of_pod("request_predict_seconds_sum", "0x40"),
        of_pod("request_predict_seconds_count", "0x40"),
        tests=[
            got("model:requests:rate1m", "6m", of("server", 0)),
            # Nothing asked: no share, no percentile and no mean, rather than a zero.
            got("model:errors:ratio5m", "6m"),
            got("model:latency_seconds:p99", "6m"),
            got("model:latency_seconds:mean", "6m"),
        ],
    )
    kserve = case(
        *buckets("request_predict_seconds", {"0.25": 8, "0.5": 15, "+Inf": 15}),
        of_pod("request_predict_seconds_sum", "0+3x40"),
        of_pod("request_predict_seconds_count", "0+15x40"),
        # A transformer of KServe's own counts too, what it asks of the predictor.
        of_pod("request_predict_seconds_count", "0+15x40", "m-transformer-1", part="transformer"),
        tests=[
            got("model:requests:rate1m", "6m", of("server", 1)),
            got("model:latency_seconds:p50", "6m", of("server", 0.234)),
            got("model:errors:ratio5m", "6m"),
        ],
    )
    hugging_face = case(
        *buckets("vllm:e2e_request_latency_seconds", {"1": 0, "2": 30, "+Inf": 30}),
        *buckets("vllm:time_to_first_token_seconds", {"0.1": 15, "0.2": 30, "+Inf": 30}),
        *buckets("request_predict_seconds", {"0.25": 30, "+Inf": 30}),
        of_pod("vllm:request_success_total", "0+30x40", finished_reason="stop"),
        of_pod("request_predict_seconds_count", "0+30x40"),
        of_pod("vllm:generation_tokens_total", "0+1500x40"),
        of_pod("vllm:num_requests_running", "5x40"),
        of_pod("vllm:num_requests_waiting", "2x40"),
        tests=[
            # Both servers' series are there: counted once, by vLLM.
            got("model:requests:rate1m", "6m", of("server", 2)),
            got("model:latency_seconds:p50", "6m", of("server", 1.5)),
            got("model:first_token_seconds:p50", "6m", of("server", 0.1)),
            got("model:tokens:rate1m", "6m", of("server", 100)),
            got("model:inflight", "6m", of("server", 5)),
            got("model:waiting", "6m", of("server", 2)),
        ],
    )
    torchserve = case(
        of_pod("ts_inference_requests_total", "0+15x40"),
        of_pod("ts_inference_latency_microseconds", "0+750000x40"),
        of_pod("ts_queue_latency_microseconds", "0+150000x40"),
        tests=[
            got("model:requests:rate1m", "6m", of("server", 1)),
            got("model:latency_seconds:mean", "6m", of("server", 0.05)),
            got("model:queue_seconds:mean", "6m", of("server", 0.01)),
        ],
    )
    tensorflow = case(
        of_pod(":tensorflow:serving:request_count", "0+30x40", status="OK"),
        of_pod(":tensorflow:serving:request_count", "0+10x40", status="INTERNAL"),
        *buckets(":tensorflow:serving:request_latency", {"1000": 0, "3000": 40, "+Inf": 40}),
        tests=[
            got("model:errors:ratio5m", "6m", of("server", 0.25)),
            got("model:latency_seconds:p50", "6m", of("server", 0.002)),
        ],
    )
    holds(tmp_path, BY_ROUTE["server"], triton, mlserver, failing, idle, kserve, hugging_face, torchserve, tensorflow)


def test_several_candidates_behind_one_route_are_told_apart(tmp_path: Path) -> None:
    versions = {"m": 14, "m-canary-b": 2, "m-canary-c": 4}

    def counted(route: str) -> list[tuple[dict[str, str], float]]:
        return [of(route, requests, version=name) for name, requests in versions.items()]

    up = [of_pod("up", "1x40", f"{name}-predictor-1", version=name) for name in versions]
    by_gateway = case(
        *up,
        *(
            series(
                "envoy_cluster_upstream_rq_completed",
                f"0+{15 * requests}x40",
                envoy_cluster_name=f"team_{name}-predictor_80",
                namespace="projectcontour",
                pod="envoy-1",
            )
            for name, requests in versions.items()
        ),
        tests=[got("model:requests:rate1m", "6m", *counted("envoy"))],
    )
    by_mesh = case(
        *up,
        *(
            series(
                "istio_requests_total",
                f"0+{15 * requests}x40",
                reporter="destination",
                destination_workload=f"{name}-predictor",
                destination_workload_namespace="team",
                response_code="200",
            )
            for name, requests in versions.items()
        ),
        tests=[got("model:requests:rate1m", "6m", *counted("istio"))],
    )
    by_server = case(
        *up,
        *(
            of_pod("nv_inference_request_success", f"0+{15 * requests}x40", f"{name}-predictor-1", version=name)
            for name, requests in versions.items()
        ),
        tests=[got("model:requests:rate1m", "6m", *counted("server"))],
    )
    holds(tmp_path, BY_ROUTE["envoy"], by_gateway)
    holds(tmp_path, BY_ROUTE["istio"], by_mesh)
    holds(tmp_path, BY_ROUTE["server"], by_server)


def test_two_versions_behind_one_route_are_told_apart(tmp_path: Path) -> None:
    gateway = {"namespace": "projectcontour", "pod": "envoy-1"}
    stable, new = "team_m-predictor_80", "team_m-canary-predictor_80"

    def envoy(name: str, values: str, cluster: str, **labels: str) -> dict[str, str]:
        return series(name, values, envoy_cluster_name=cluster, **gateway, **labels)

    def canary(name: str, values: str, **labels: str) -> dict[str, str]:
        return of_pod(name, values, "m-canary-predictor-1", version="m-canary", **labels)

    by_gateway = case(
        of_pod("up", "1x40"),
        canary("up", "1x40"),
        envoy("envoy_cluster_upstream_rq_completed", "0+135x40", stable),
        envoy("envoy_cluster_upstream_rq_completed", "0+15x40", new),
        envoy("envoy_cluster_upstream_rq_xx", "0+6x40", new, envoy_response_code_class="5"),
        envoy("envoy_cluster_upstream_rq_xx", "0+9x40", new, envoy_response_code_class="2"),
        envoy("envoy_cluster_upstream_rq_time_bucket", "0+0x40", new, le="100"),
        envoy("envoy_cluster_upstream_rq_time_bucket", "0+15x40", new, le="250"),
        envoy("envoy_cluster_upstream_rq_time_bucket", "0+15x40", new, le="+Inf"),
        # Another team's model of the same name, whose pods nobody scrapes, and what is not a model.
        envoy("envoy_cluster_upstream_rq_completed", "0+600x40", "other_m-predictor_80"),
        envoy("envoy_cluster_upstream_rq_completed", "0+600x40", "team_m_80"),
        tests=[
            got("model:requests:rate1m", "6m", of("envoy", 9), of("envoy", 1, version="m-canary")),
            got("model:errors:ratio5m", "6m", of("envoy", 0), of("envoy", 0.4, version="m-canary")),
            got("model:latency_seconds:p50", "6m", of("envoy", 0.175, version="m-canary")),
            got("model:info", "6m", (OWNER, 1), ({**OWNER, "version": "m-canary"}, 1)),
        ],
    )

    def mesh(values: str, workload: str, code: str, **labels: str) -> dict[str, str]:
        where = {"destination_workload": workload, "destination_workload_namespace": "team", "response_code": code}
        return series("istio_requests_total", values, reporter="destination", **where, **labels)

    by_mesh = case(
        of_pod("up", "1x40"),
        canary("up", "1x40"),
        mesh("0+30x40", "m-predictor", "200"),
        mesh("0+10x40", "m-canary-predictor", "200"),
        mesh("0+5x40", "m-canary-predictor", "503"),
        mesh("0+30x40", "m-transformer", "200"),
        tests=[
            got("model:requests:rate1m", "6m", of("istio", 2), of("istio", 1, version="m-canary")),
            got("model:errors:ratio5m", "6m", of("istio", 0), of("istio", 0.333, version="m-canary")),
        ],
    )
    by_server = case(
        of_pod("up", "1x40"),
        canary("up", "1x40"),
        of_pod("nv_inference_request_success", "0+30x40"),
        canary("nv_inference_request_success", "0+15x40"),
        tests=[got("model:requests:rate1m", "6m", of("server", 2), of("server", 1, version="m-canary"))],
    )
    knative = case(
        of_pod("kn_serving_invocation_duration_seconds_count", "0+30x40", http_response_status_code="200"),
        of_pod("kn_serving_invocation_duration_seconds_count", "0+10x40", http_response_status_code="500"),
        *buckets("kn_serving_invocation_duration_seconds", {"0.1": 0, "0.25": 40, "+Inf": 40}),
        tests=[
            got("model:errors:ratio5m", "6m", of("knative", 0.25)),
            got("model:latency_seconds:p50", "6m", of("knative", 0.175)),
        ],
    )
    holds(tmp_path, BY_ROUTE["envoy"], by_gateway)
    holds(tmp_path, BY_ROUTE["istio"], by_mesh)
    holds(tmp_path, BY_ROUTE["server"], by_server)
    holds(tmp_path, BY_ROUTE["knative"], knative)


#: By who names them, what Envoy's clusters of the model m in the namespace team are called.
CLUSTERS = {
    "Contour": ["team_m-predictor_80", "team_m-transformer_80"],
    "Envoy Gateway with mergeBackends": ["service/team/m-predictor/80", "service/team/m-predictor/8081/http2"],
    "Envoy Gateway with clusterStatName: %BACKEND_REFS%": ["team/m-predictor"],
    "Envoy Gateway": ["httproute/team/m/rule/0", "httproute/team/m-predictor/rule/1", "grpcroute/team/m/rule/0"],
}
#: What is no model's, or is of two versions together, and must not count for the model m.
OTHERS = (
    "team_m_80",
    "other_m-predictor_80",
    "team/m-predictor|team/m-canary-predictor",
    "httproute/team/m-canary-route/rule/0",
    "httproute/team/m/rule/0/backend/1",
    "httproute/other/m/rule/0",
    "service/team/m/80",
    "outbound|80||m-predictor.team.svc.cluster.local",
    "m-predictor",
)


def test_a_gateways_names_are_the_models(tmp_path: Path) -> None:
    assert list(CLUSTERS) == [one.title for one in NAMINGS]
    assert CONTOUR.of("team", "m-predictor", "80", "m") in CLUSTERS["Contour"]

    def envoy(name: str, values: str, cluster: str, **labels: str) -> dict[str, str]:
        return series(name, values, envoy_cluster_name=cluster, namespace="gateways", pod="envoy-1", **labels)

    def asked(clusters: Iterable[str], values: str) -> list[dict[str, str]]:
        return [envoy("envoy_cluster_upstream_rq_completed", values, one) for one in clusters]

    cases = [
        case(
            of_pod("up", "1x40"),
            *asked(clusters, "0+30x40"),
            *asked(OTHERS, "0+600x40"),
            envoy("envoy_cluster_upstream_rq_xx", "0+15x40", clusters[0], envoy_response_code_class="5"),
            tests=[
                got("model:requests:rate1m", "6m", of("envoy", 2 * len(clusters))),
                got("model:errors:ratio5m", "6m", of("envoy", round(0.5 / len(clusters), 3))),
            ],
        )
        for clusters in CLUSTERS.values()
    ]
    holds(tmp_path, BY_ROUTE["envoy"], *cases)


def test_a_gateways_names_are_read_once_a_turn() -> None:
    """Prometheus compiles a rule's expressions at each evaluation, and this one takes it milliseconds as a matcher."""
    names = "|".join(one.expression for one in NAMINGS)
    made = {}
    for group in all_groups():
        reading = [rule.record for rule in group.rules if isinstance(rule, Rule) and names in rule.expr]
        if reading:
            (made[group.name],) = reading
    assert made == {"model-envoy": "model:envoy_cluster:info", "model-slo": "model:slo_envoy_cluster:info"}
    for group in all_groups():
        # A later rule of its own group reads it, and no other group, whose turn may come before.
        readers = [number for number, rule in enumerate(group.rules) if "envoy_cluster:info" in rule.expr]
        own = made.get(group.name, "")
        assert all(own and f" {own}" in group.rules[number].expr for number in readers)
        assert bool(readers) == bool(own)
        records = [rule.record for rule in group.rules if isinstance(rule, Rule)]
        assert not own or records.index(own) < min(readers)
    envoy = [rule.expr for group in all_groups() for rule in group.rules if "envoy_cluster_name=~" in rule.expr]
    assert envoy == []


def test_istios_gateway_counts_where_pods_have_no_sidecar(tmp_path: Path) -> None:
    """A model with a sidecar is counted there alone, and by nobody a second time."""

    def reported(reporter: str, name: str, values: str, code: str = "200") -> dict[str, str]:
        where = {"destination_service_name": f"{name}-predictor", "destination_service_namespace": "team"}
        workload = {"destination_workload": f"{name}-predictor", "destination_workload_namespace": "team"}
        return series(
            "istio_requests_total", values, reporter=reporter, response_code=code, namespace="gateways", **where,
            **(workload if reporter == "destination" else {"destination_workload": "unknown"}),
        )  # fmt: skip

    inputs = (
        of_pod("up", "1x40"),
        of_pod("up", "1x40", "m-canary-predictor-1", version="m-canary"),
        reported("source", "m", "0+30x40"),
        reported("source", "m", "0+10x40", "503"),
        reported("source", "m-canary", "0+15x40"),
        reported("destination", "m-canary", "0+15x40"),
        reported("source", "no-model", "0+15x40"),
    )
    tests = [
        got("model:requests:rate1m", "6m", of("istio", 2.667), of("istio", 1, version="m-canary")),
        got("model:errors:ratio5m", "6m", of("istio", 0.25), of("istio", 0, version="m-canary")),
    ]
    holds(tmp_path, BY_ROUTE["istio"], case(*inputs, tests=tests))


def test_what_callers_write_is_in_no_record(tmp_path: Path) -> None:
    """Paths, codes, users, the server's own names: of these there is no end, and of records one a version and route."""
    where = {
        "envoy": {"envoy_cluster_name": "team_m-predictor_80"},
        "istio": {"destination_workload": "m-predictor", "destination_workload_namespace": "team"},
        "istio-gateway": {"destination_service_name": "m-predictor", "destination_service_namespace": "team"},
    }
    for route, rules in BY_ROUTE.items():
        inputs = [of_pod("up", "1x40")]
        for source in (one for one in SOURCES.values() if one.route == route):
            histograms = [one.name for one in (source.histogram, source.first_token) if one]
            names = {*source.names, *(f"{name}_count" for name in histograms)} - set(histograms)
            reporter = "source" if source.name == "istio-gateway" else "destination"
            for turn in range(4):
                free = {
                    "path": f"/v2/models/m{turn}/infer",
                    **dict.fromkeys(("user", "model", "exported_version", "reason", "instance"), f"u{turn}"),
                    **dict.fromkeys(("http_response_status_code", "response_code", "status"), f"50{turn}"),
                    "envoy_response_code_class": "5",
                    "reporter": reporter,
                    **where.get(source.name, {}),
                }
                inputs += [of_pod(name, "0+30x40", f"p{turn}", **free) for name in sorted(names)]
                inputs += [
                    of_pod(f"{name}_bucket", "0+30x40", f"p{turn}", le=le, **free)
                    for name in histograms
                    for le in ("0.1", "+Inf")
                ]
        of_all = '{__name__=~"model:.+"}'
        names_alone = f"count by (__name__, le) ({of_all})"
        tests: list[dict[str, Any]] = [
            {"expr": f"{names_alone} > 1", "eval_time": at, "exp_samples": []} for at in ("1m", "8m")
        ]
        tests += [
            got(f"model:requests:rate1m > bool 0 and on () ({names_alone})", "8m", of(route, 1)),
            # Two buckets of one source, and no others.
            {"expr": 'count({__name__=~"model:.+",le!=""}) > 2', "eval_time": "8m", "exp_samples": []},
        ]
        holds(tmp_path, rules, case(*inputs, tests=tests))


def test_a_pod_that_is_gone_leaves_no_ghost(tmp_path: Path) -> None:
    gone = case(
        of_pod("up", "1x8 stale"),
        of_pod("vllm:num_requests_running", "5x8 stale"),
        tests=[
            got("model:replicas", "2m", (OWNER, 1)),
            got("model:inflight", "2m", of("server", 5)),
            *(got(name, "3m") for name in ("model:replicas", "model:inflight", "model:info")),
        ],
    )
    holds(tmp_path, BY_ROUTE["server"], gone)


def test_pods_come_and_go_and_the_number_of_series_stays(tmp_path: Path) -> None:
    """Twelve pods of two versions, one after the other: what is recorded is by version, now and over all the time."""
    inputs = []
    for version in ("m", "m-canary"):
        for turn in range(6):
            pod = f"{version}-predictor-{turn}"
            life = f"_x{turn * 8} {{}}x8 stale".removeprefix("_x0 ")
            whose = {"version": version, "instance": f"10.0.0.{turn}:8002"}
            inputs += [
                of_pod("up", life.format("1"), pod, **whose),
                *(
                    of_pod(name, life.format("0+30"), pod, model="a", exported_version="1", **whose)
                    for name in sorted(SOURCES["triton"].names)
                ),
                *buckets_of(pod, life, **whose),
                series(GPU.utilization, life.format("50"), namespace="team", pod=pod, UUID=f"GPU-{turn}"),
                series(GPU.memory_used, life.format("9"), namespace="team", pod=pod, UUID=f"GPU-{turn}"),
            ]
        cluster = f"team_{version}-predictor_80"
        inputs += [
            series(name, "0+30x60", envoy_cluster_name=cluster, pod=f"envoy-{pod}")
            for name in sorted(one for one in SOURCES["envoy"].names if one != "envoy_cluster_upstream_rq_time")
            for pod in ("a", "b")
        ]
    recorded = '{__name__=~"model:.+",__name__!~"model:slo.+"}'
    ever = f"last_over_time({recorded}[1h])"
    # Of a histogram as many as its source has buckets.
    now = f'count by (__name__) ({recorded} unless {{le!=""}})'
    labels = ", ".join(("__name__", *OWNER, "route", "le"))
    churned = case(
        *inputs,
        tests=[
            # Of each record two, one a version, for each route that gives it.
            *({"expr": f"{now} > 4", "eval_time": at, "exp_samples": []} for at in ("1m", "6m", "11m")),
            {"expr": 'count({__name__="model:requests:rate1m"})', "eval_time": "11m", "exp_samples": [of_any(4)]},
            {"expr": 'count({__name__="model:replicas"})', "eval_time": "11m", "exp_samples": [of_any(2)]},
            # Over all the time no more than at one moment.
            {"expr": f"count({ever}) - count({recorded})", "eval_time": "11m", "exp_samples": [of_any(0)]},
            {
                "expr": f"count({ever}) - count(count by ({labels}) ({ever}))",
                "eval_time": "11m",
                "exp_samples": [of_any(0)],
            },
        ],
    )
    holds(tmp_path, RULES, churned)


def test_a_gpus_use_is_the_models_that_holds_it(tmp_path: Path) -> None:
    def gpu(name: str, value: str, pod: str, uuid: str) -> dict[str, str]:
        return series(name, f"{value}x40", namespace="team", pod=pod, UUID=uuid, container="kserve-container")

    used = case(
        of_pod("up", "1x40"),
        of_pod("up", "1x40", "m-predictor-2"),
        gpu(GPU.utilization, "50", "m-predictor-1", "GPU-1"),
        gpu(GPU.engine, "0.5", "m-predictor-1", "GPU-1"),
        # In MIG mode there is the engine alone.
        gpu(GPU.engine, "1", "m-predictor-2", "MIG-2"),
        gpu(GPU.memory_used, "1024", "m-predictor-1", "GPU-1"),
        gpu(GPU.utilization, "90", "training-0", "GPU-3"),
        tests=[
            got("model:gpu_utilization:avg", "5m", (OWNER, 0.75)),
            got("model:gpu_memory_bytes:sum", "5m", (OWNER, 1024**3)),
            got("model:gpus", "5m", (OWNER, 2)),
            got("cluster:gpus:total", "5m", ({}, 3)),
            # All are held by somebody: none is free, which is a number as well.
            got("cluster:gpus:free", "5m", ({}, 0)),
        ],
    )
    other = {"app": "shop", "component": "n", "namespace": "team", "version": "n"}
    shared = case(
        of_pod("up", "1x40"),
        of_pod("up", "1x40", "n-predictor-1", component="n", version="n"),
        gpu(GPU.utilization, "50", "m-predictor-1", "GPU-1"),
        gpu(GPU.utilization, "50", "n-predictor-1", "GPU-1"),
        # Half of a GPU in MIG mode: the other half is nobody's.
        series(GPU.engine, "1x40", namespace="team", pod="n-predictor-1", UUID="GPU-2", GPU_I_ID="1"),
        series(GPU.engine, "0x40", UUID="GPU-2", GPU_I_ID="2"),
        series(GPU.utilization, "0x40", UUID="GPU-3"),
        tests=[
            got("model:gpus", "5m", (OWNER, 0.5), (other, 1)),
            got("cluster:gpus:total", "5m", ({}, 3)),
            got("cluster:gpus:free", "5m", ({}, 1)),
        ],
    )
    holds(tmp_path, RULES, used, shared)


# ---------------------------------------------------------------- scraping


@pytest.mark.slow
def test_promtool_takes_the_scrape_configuration(tmp_path: Path) -> None:
    """By our own build: a distribution's promtool may come without the discovery of Kubernetes."""
    import subprocess

    printed = CliRunner().invoke(main, ["metrics", "scrape-config", "--exporters"]).output
    for name, text in {"plain": printed, "lab": yaml.safe_dump(configuration())}.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [tool("promtool"), "check", "config", "--syntax-only", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def relabeled(labels: dict[str, str], steps: list[dict[str, Any]]) -> dict[str, str] | None:
    """What Prometheus makes of a target's labels (docs: relabel_config), for the actions that are used here."""
    labels = dict(labels)
    for step in steps:
        action = step.get("action", "replace")
        if action == "labeldrop":
            labels = {name: value for name, value in labels.items() if not re.fullmatch(step["regex"], name)}
            continue
        value = ";".join(labels.get(name, "") for name in step["source_labels"])
        found = re.fullmatch(step.get("regex", "(.*)"), value)
        if action in ("keep", "drop"):
            if (found is None) == (action == "keep"):
                return None
        elif found:
            labels[step["target_label"]] = found.expand(re.sub(r"\$(\d)", r"\\\1", step.get("replacement", "$1")))
    return {name: value for name, value in labels.items() if not name.startswith("__meta")}


def test_series_carry_app_component_and_version() -> None:
    meta = "__meta_kubernetes_pod"
    pod = {
        "__meta_kubernetes_namespace": "team",
        f"{meta}_name": "m-canary-predictor-1",
        f"{meta}_ip": "10.0.0.7",
        f"{meta}_phase": "Running",
        f"{meta}_annotation_prometheus_io_scrape": "true",
        f"{meta}_annotation_prometheus_io_port": "8002",
        f"{meta}_annotation_prometheus_io_path": "/metrics",
        f"{meta}_label_app_oam_dev_name": "shop",
        f"{meta}_label_app_oam_dev_component": "m",
        f"{meta}_label_serving_kserve_io_inferenceservice": "m-canary",
        f"{meta}_label_component": "predictor",
    }
    (config, _) = scrape_config()
    expected = {
        "app": "shop",
        "component": "m",
        "version": "m-canary",
        "part": "predictor",
        "namespace": "team",
        "pod": "m-canary-predictor-1",
        "__address__": "10.0.0.7:8002",
        "__metrics_path__": "/metrics",
    }
    assert relabeled(pod, config["relabel_configs"]) == expected
    lab = configuration()["scrape_configs"][0]["relabel_configs"]
    assert relabeled(pod, lab) == expected
    other = {name: value for name, value in pod.items() if "inferenceservice" not in name}
    assert relabeled(other, config["relabel_configs"]) is None
    kept = relabeled(other, lab)
    assert kept is not None
    assert not set(LABELS.values()) & set(kept), "the label component is a common one"


def test_gateways_are_found_where_they_are_annotated_and_nothing_else_is() -> None:
    meta = "__meta_kubernetes_pod"
    envoy = {
        "__meta_kubernetes_namespace": "projectcontour",
        f"{meta}_name": "envoy-1",
        f"{meta}_ip": "10.0.0.8",
        f"{meta}_phase": "Running",
        f"{meta}_container_name": "envoy",
        f"{meta}_annotation_prometheus_io_scrape": "true",
        f"{meta}_annotation_prometheus_io_port": "8002",
        f"{meta}_annotation_prometheus_io_path": "/stats/prometheus",
    }
    (_, config) = scrape_config()
    steps = config["relabel_configs"]
    assert relabeled(envoy, steps) == {
        "namespace": "projectcontour",
        "pod": "envoy-1",
        "__address__": "10.0.0.8:8002",
        "__metrics_path__": "/stats/prometheus",
    }
    assert relabeled({**envoy, f"{meta}_container_name": "shutdown-manager"}, steps) is None
    assert relabeled({**envoy, f"{meta}_annotation_prometheus_io_scrape": "false"}, steps) is None
    istio = {**envoy, f"{meta}_container_name": "istio-proxy"}
    by_gateway_api = {**istio, f"{meta}_label_gateway_networking_k8s_io_gateway_name": "models"}
    # A sidecar is of the pod of which it is asked.
    assert relabeled(istio, steps) is None
    assert relabeled({**istio, f"{meta}_label_istio": "other"}, steps) is None
    for gateway in (by_gateway_api, {**istio, f"{meta}_label_istio": "ingressgateway"}):
        assert (relabeled(gateway, steps) or {})["__address__"] == "10.0.0.8:8002"
    assert relabeled({**by_gateway_api, f"{meta}_container_name": "other"}, steps) is None


@pytest.mark.parametrize(
    ("job", "labels", "port", "other_port"),
    [
        ("gpus", {"app_kubernetes_io_name": "dcgm-exporter"}, "9400", "8080"),
        ("gpus", {"app": "nvidia-dcgm-exporter"}, "9400", ""),
        ("cluster-state", {"app_kubernetes_io_name": "kube-state-metrics"}, "8080", "8081"),
    ],
)
def test_exporters_are_found_where_they_are_asked_for(
    job: str, labels: dict[str, str], port: str, other_port: str
) -> None:
    meta = "__meta_kubernetes_pod"
    pod = {
        "__address__": f"10.0.0.9:{port}",
        "__meta_kubernetes_namespace": "system",
        f"{meta}_phase": "Running",
        f"{meta}_container_port_number": port,
        **{f"{meta}_label_{name}": value for name, value in labels.items()},
    }
    assert {one["job_name"] for one in scrape_config()} == {"models", "gateways"}
    for entry in scrape_config(with_exporters=True)[2:]:
        steps = entry["relabel_configs"]
        found = {"__address__": f"10.0.0.9:{port}"} if entry["job_name"] == job else None
        assert relabeled(pod, steps) == found
        # A series is the pod's that it tells of, and not the exporter's.
        assert entry["honor_labels"]
        assert relabeled({**pod, f"{meta}_container_port_number": other_port}, steps) is None
        assert relabeled({**pod, f"{meta}_phase": "Succeeded"}, steps) is None


def test_each_label_is_on_what_the_addon_makes() -> None:
    """KServe copies an InferenceService's labels to its pods; these two have the application's and the component's."""
    golden = yaml.safe_load_all((ROOT / "tests/unit/golden/canary-gateway.yaml").read_text(encoding="utf-8"))
    made = [one["metadata"] for one in golden if one["kind"] == "InferenceService"]
    assert len(made) == 2
    assert len({one["labels"]["app.oam.dev/component"] for one in made}) == 1
    assert len({one["labels"]["app.oam.dev/name"] for one in made}) == 1
    assert len({one["name"] for one in made}) == 2


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ("30s", "a scrape interval of 30s is too long for rates over one minute: write 15s or less"),
        ("1m", "a scrape interval of 1m is too long"),
        ("15", "'15' is not a duration of Prometheus: write 15s"),
        ("0s", "'0s' is not a duration"),
        ("", "'' is not a duration"),
    ],
)
def test_an_interval_that_the_windows_do_not_bear_is_refused(interval: str, said: str) -> None:
    result = CliRunner().invoke(main, ["metrics", "scrape-config", "--interval", interval])
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_the_documents_table_is_the_tables() -> None:
    text = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    for source in SOURCES.values():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {source.title} |")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == source.route
        assert cells[2] == ("yes" if source.errors else "no")
        assert cells[3] == (
            f"percentiles{f' ({source.histogram.only})' if source.histogram.only else ''}, mean"
            if source.histogram
            else "mean only"
        )
        assert cells[4] == source.note
    for rule in RECORDS:
        assert f"`{re.sub('p50|p95|p99', 'p50', rule.record)}" in text
