"""Shares of requests are what happened, also where a series, a pod or a gateway is younger than the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.promtool import OWNER, expect, holds, of_pod, series

from velagen.monitoring.objectives import Objective, objective_rules, of_component
from velagen.monitoring.rules import CLUSTERS, INFO, Group, Rule, recording_rules, rules_file

SHARE = "model:errors:ratio5m"
OBJECTIVES = (
    Objective("shop", "m", "team", "availability", "envoy", "90", "30d"),
    Objective("shop", "m", "team", "latency", "envoy", "90", "30d", "250", "250"),
)


def share_of(*routes: str) -> str:
    """The rules of a share alone: promtool takes its time for each."""
    groups = [group for group in recording_rules() if group.name in {"model-pods", *(f"model-{one}" for one in routes)}]
    needed = {SHARE, INFO, CLUSTERS}
    return rules_file(
        Group(one.name, tuple(rule for rule in one.rules if isinstance(rule, Rule) and rule.record in needed))
        for one in groups
    )


def envoy(name: str, values: str, pod: str = "envoy-1", **labels: str) -> dict[str, str]:
    """A series of the gateway, of the model's Service."""
    of_service = {"envoy_cluster_name": "team_m-predictor_80"} if name != "up" else {}
    return series(name, values, namespace="gateways", pod=pod, job="gateways", instance=pod, **of_service, **labels)


def asked(values: str, pod: str = "envoy-1") -> dict[str, str]:
    return envoy("envoy_cluster_upstream_rq_completed", values, pod)


def failed(values: str, pod: str = "envoy-1") -> dict[str, str]:
    return envoy("envoy_cluster_upstream_rq_xx", values, pod, envoy_response_code_class="5")


def success(values: str) -> dict[str, str]:
    return of_pod("model_infer_request_success_total", values, job="pods")


def failure(values: str) -> dict[str, str]:
    return of_pod("model_infer_request_failure_total", values, job="pods")


POD, GATEWAY = of_pod("up", "1x60", job="pods"), envoy("up", "1x60")


def is_share(route: str, *expected: tuple[str, float]) -> list[dict[str, Any]]:
    """The share of errors at some times."""
    return [expect(SHARE, at, ({**OWNER, "route": route}, value)) for at, value in expected]


def case(*inputs: dict[str, str], tests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"interval": "15s", "input_series": list(inputs), "promql_expr_test": tests}


def test_the_share_of_errors_behind_a_gateway_is_what_was_asked(tmp_path: Path) -> None:
    """150 requests of which 30 fail, a share of 0.2, whatever else is the case."""
    burst = case(
        POD, GATEWAY,
        # The failures' series begins with the first of them, all of them between two looks.
        asked("0x20 150x40"), failed("_x21 30x40"),
        # As long as the window holds them, whole, and not at its edge alone.
        tests=is_share("envoy", ("5m15s", 0.2), ("6m", 0.2), ("10m", 0.2)),
    )  # fmt: skip
    spread = case(
        POD, GATEWAY,
        asked("50x20 50+15x10 200x30"), failed("_x22 3+3x9 30x30"),
        tests=is_share("envoy", ("7m30s", 0.2), ("9m", 0.2)),
    )  # fmt: skip
    new_model = case(
        of_pod("up", "_x20 1x40", job="pods"), GATEWAY,
        asked("_x20 100 150x40"), failed("_x21 30x40"),
        tests=is_share("envoy", ("5m30s", 0.2), ("7m", 0.2)),
    )  # fmt: skip
    new_gateway = case(
        POD, envoy("up", "_x20 1x40"),
        asked("_x20 0 150x40"), failed("_x21 30x40"),
        tests=is_share("envoy", ("5m30s", 0.2), ("7m", 0.2)),
    )  # fmt: skip
    new_prometheus = case(
        # What an old gateway has counted is of no window.
        POD, GATEWAY,
        asked("9000x4 9150x50"), failed("60x4 90x50"),
        tests=[expect(SHARE, "1m"), *is_share("envoy", ("1m15s", 0.2), ("4m", 0.2))],
    )  # fmt: skip
    gap = case(
        # Nothing is scraped for two minutes, in which the failures begin.
        POD, envoy("up", "1x20 0x7 1x40"),
        asked("50x20 stale _x7 150x2 200x40"), failed("_x29 20x2 30x42"),
        tests=is_share("envoy", ("7m30s", 0.2), ("9m", 0.2)),
    )  # fmt: skip
    two = case(
        POD, GATEWAY, envoy("up", "_x20 1x40", "envoy-2"),
        asked("50x22 150x40"), failed("_x23 20x40"),
        asked("_x20 0 0 50x40", "envoy-2"), failed("_x22 10x40", "envoy-2"),
        tests=is_share("envoy", ("6m", 0.2), ("9m", 0.2)),
    )  # fmt: skip
    holds(tmp_path, share_of("envoy"), burst, spread, new_model, new_gateway, new_prometheus, gap, two)


def test_a_gateways_cluster_counts_from_its_first_look_to_its_last(tmp_path: Path) -> None:
    """What tells whose a cluster is must be no younger than its requests, and as old as the window holds them."""
    pods = (POD, GATEWAY, envoy("up", "1x60", "envoy-2"))
    new = case(
        # Nothing is known of the cluster before the look in which two Envoys have answered for it, some with errors.
        *pods,
        asked("_x21 100x40"), failed("_x21 30x40"), asked("_x21 50x40", "envoy-2"),
        tests=[expect(SHARE, "5m"), *is_share("envoy", ("5m15s", 0.2), ("9m", 0.2))],
    )  # fmt: skip
    at_one = case(
        # One of two Envoys goes.
        *pods,
        asked("50x20 120x40"), failed("0x20 30x40"), asked("50x20 80x2 stale", "envoy-2"),
        tests=is_share("envoy", ("5m15s", 0.3), ("8m", 0.3)),
    )  # fmt: skip
    gone = case(
        *pods,
        asked("50x20 150x2 stale"), failed("0x20 20x2 stale"),
        tests=[*is_share("envoy", ("5m45s", 0.2), ("9m", 0.2)), expect(SHARE, "11m")],
    )  # fmt: skip
    holds(tmp_path, share_of("envoy"), new, at_one, gone)


def test_the_share_of_errors_of_a_young_pod_is_what_was_asked(tmp_path: Path) -> None:
    """Counters of the outcome are there from the first such outcome."""
    young = case(
        of_pod("up", "_x20 1x40", job="pods"),
        success("_x21 40 80 120x40"), failure("_x23 30x40"),
        tests=is_share("server", ("6m", 0.2), ("9m", 0.2)),
    )  # fmt: skip
    restarted = case(
        # Before it 100 requests, since 50; Prometheus tells both to within what it guesses of the ends.
        POD,
        success("80x20 140x8 0+10x4 40x40"), failure("20x20 40x8 _x1 0 5 10x40"),
        tests=[expect(f"abs({SHARE} - 0.23) < bool 0.04", "9m", ({**OWNER, "route": "server"}, 1))],
    )  # fmt: skip
    idle = case(POD, success("80x60"), failure("20x60"), tests=[expect(SHARE, "9m")])
    holds(tmp_path, share_of("server"), young, restarted, idle)


def test_an_objectives_requests_are_counted_once_each(tmp_path: Path) -> None:
    """A burst between two looks, some of it failed and some slow, before which there was no such series."""
    whose = {"app": "shop", "component": "m", "namespace": "team"}
    groups = (
        next(group for group in recording_rules() if group.name == "model-pods"),
        of_component(**whose, objectives=OBJECTIVES),
        *(
            Group(one.name, tuple(rule for rule in one.rules if rule_of_envoy(rule)), one.interval)
            for one in objective_rules()
            if one.name != "model-slo-days"
        ),
    )

    def in_time(le: str, values: str) -> dict[str, str]:
        return envoy("envoy_cluster_upstream_rq_time_bucket", values, le=le)

    counted = [
        expect(
            f"sum_over_time(model:slo_{what}:rate1m[10m]) * 30",
            "9m",
            *(({**whose, "route": "envoy", "slo": one.slo}, found) for one in OBJECTIVES),
        )
        for what, found in (("requests", 150), ("bad", 30))
    ]
    rest = (failed("_x22 30x60"), in_time("250", "_x22 120x60"), in_time("+Inf", "_x22 140x60"))
    known = case(POD, GATEWAY, asked("0x21 150x60"), *rest, tests=counted)
    # The gateway had not heard of the model before.
    new = case(POD, GATEWAY, asked("_x22 150x60"), *rest, tests=counted)
    holds(tmp_path, rules_file(groups), known, new, every="30s")


def rule_of_envoy(rule: Any) -> bool:
    return isinstance(rule, Rule) and rule.labels.get("route") in {None, "envoy"}
