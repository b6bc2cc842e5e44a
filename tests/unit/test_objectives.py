"""Objectives: what is counted for them, what is left of their budgets, and their alerts, by Prometheus' promtool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.promtool import OWNER as TARGET
from tests.unit.promtool import expect, holds, of_pod, run, selector, series

from velagen.monitoring.objectives import (
    Objective,
    Slo,
    bounds,
    objective_rules,
    of_component,
)
from velagen.monitoring.objects import all_groups
from velagen.monitoring.rules import Group, recording_rules, rules_file
from velagen.monitoring.sources import SOURCES

Input = dict[str, str]
OWNER = {key: TARGET[key] for key in ("app", "component", "namespace")}


def objective(slo: Slo, percent: str, route: str = "envoy", bound: str = "", window: str = "30d") -> Objective:
    return Objective(**OWNER, slo=slo, route=route, percent=percent, window=window, milliseconds=bound, bound=bound)


def own(*objectives: Objective) -> Group:
    return of_component(**OWNER, objectives=objectives)


AVAILABILITY = objective("availability", "99.9")
LATENCY = objective("latency", "99", bound="250")


def rules(*objectives: Objective) -> str:
    """All rules that have to do with these objectives: promtool takes its time for each."""
    routes = {one.route for one in objectives}
    counting, *others = objective_rules()
    kept = tuple(rule for rule in counting.rules if rule.labels.get("route") in {None, *routes})
    (pods,) = (group for group in recording_rules() if group.name == "model-pods")
    return rules_file((pods, own(*objectives), replace(counting, rules=kept), *others))


def of(slo: Slo, value: float, route: str = "envoy") -> tuple[dict[str, str], float]:
    return {**OWNER, "route": route, "slo": slo}, value


def envoy(name: str, values: str, version: str = "m", **labels: str) -> Input:
    gateway = {"namespace": "projectcontour", "pod": "envoy-1"}
    return series(name, values, envoy_cluster_name=f"team_{version}-predictor_80", **gateway, **labels)


def asked(values: str, version: str = "m") -> Input:
    return envoy("envoy_cluster_upstream_rq_completed", values, version)


def failed(values: str, version: str = "m") -> Input:
    return envoy("envoy_cluster_upstream_rq_xx", values, version, envoy_response_code_class="5")


def fast(values: str, le: str = "250") -> Input:
    return envoy("envoy_cluster_upstream_rq_time_bucket", values, le=le)


def case(*inputs: Input, tests: list[dict[str, Any]], every: str = "30s") -> dict[str, Any]:
    return {"interval": every, "input_series": list(inputs), "promql_expr_test": tests}


def rings(at: str, *alerts: tuple[str, Slo], leaving_out: str = "") -> dict[str, Any]:
    """These alerts and no other are firing at a time."""
    firing = f'ALERTS{{alertstate="firing",alertname!="{leaving_out}"}}'
    return {
        "expr": f"count by (alertname, namespace, component, slo) ({firing})",
        "eval_time": at,
        "exp_samples": [
            {"labels": selector({"alertname": name, "namespace": "team", "component": "m", "slo": slo}), "value": 1}
            for name, slo in alerts
        ],
    }


PODS = of_pod("up", "1x4000")


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules_file((*all_groups(), own(AVAILABILITY, LATENCY))), encoding="utf-8")
    assert "SUCCESS: " in run("check", "rules", tmp_path / "rules.yaml")


def test_what_is_counted_for_an_objective(tmp_path: Path) -> None:
    both = case(
        PODS,
        of_pod("up", "1x80", "m-canary-predictor-1", version="m-canary"),
        # Both versions share the component's budget.
        asked("0+270x80"),
        asked("0+30x80", "m-canary"),
        failed("0+3x80", "m-canary"),
        # Another component of the namespace, without an objective.
        of_pod("up", "1x80", "m-two-predictor-1", component="m-two", version="m-two"),
        asked("0+300x80", "m-two"),
        failed("0+300x80", "m-two"),
        fast("0+297x80"),
        fast("0+300x80", "500"),
        tests=[
            expect("model:slo_requests:rate1m", "20m", of("availability", 10), of("latency", 10)),
            expect("model:slo_bad:rate1m", "20m", of("availability", 0.1), of("latency", 0.1)),
            # 1 % failed, and 0.1 % may; 1 % was slow, and 1 % may be.
            expect("model:slo_burn:rate1h", "20m", of("availability", 10), of("latency", 1)),
            expect("model:slo_achieved:ratio", "20m", of("availability", 0.99), of("latency", 0.99)),
            expect("model:slo_budget_left:ratio", "20m", of("availability", -9), of("latency", 0)),
            expect("max by (slo, window, milliseconds) (model:slo_objective:ratio)", "20m",
                   ({"slo": "availability", "window": "30d"}, 0.999),
                   ({"milliseconds": "250", "slo": "latency", "window": "30d"}, 0.99)),
        ],
    )  # fmt: skip
    idle = case(
        PODS,
        asked("0x80"),
        tests=[
            # Nothing asked: neither a rate at which the budget burns nor a budget, rather than a full one.
            expect("model:slo_requests:rate1m", "20m", of("availability", 0), of("latency", 0)),
            expect("model:slo_burn:rate5m", "20m"),
            expect("model:slo_budget_left:ratio", "20m"),
        ],
    )
    other_bounds = case(
        PODS,
        asked("0+30x80"),
        # The gateway's buckets were changed: nobody knows how many were faster, and that is not none.
        fast("0+30x80", "200"),
        tests=[expect("model:slo_bad:rate1m", "20m", of("availability", 0))],
    )
    third_prometheus = case(
        PODS,
        asked("0+30x80"),
        fast("0+30x80", "250.0"),
        tests=[expect("model:slo_bad:rate1m", "20m", of("availability", 0), of("latency", 0))],
    )
    holds(tmp_path, rules(AVAILABILITY, LATENCY), both, idle, other_bounds, third_prometheus, every="1m")


def test_requests_that_find_no_pod_count_while_nothing_is_known_of_pods(tmp_path: Path) -> None:
    """Pods that wait for a node are not targets: a gateway's 503 must not be lost with them."""
    tests = [
        expect("model:slo_bad:rate1m", "30m", of("availability", 1)),
        expect("model:slo_burn:rate5m", "30m", of("availability", 1000)),
    ]
    gone = case(of_pod("up", "1x18 stale"), asked("0+30x80"), failed("0x20 30+30x60"), tests=tests)
    never = case(asked("0+30x80"), failed("0+30x80"), tests=tests)
    canary = case(
        PODS,
        of_pod("up", "1x18 stale", "m-canary-predictor-1", version="m-canary"),
        asked("0+270x80"),
        asked("0+30x80", "m-canary"),
        failed("0x20 30+30x60", "m-canary"),
        tests=[expect("model:slo_burn:rate5m", "30m", of("availability", 100))],
    )
    holds(tmp_path, rules(AVAILABILITY), gone, never, canary, every="1m")


def test_each_source_that_can_is_counted(tmp_path: Path) -> None:
    def buckets(name: str, le: str, in_time: int, all_of: int, **labels: str) -> list[Input]:
        return [
            of_pod(f"{name}_bucket", f"0+{in_time / 2}x80", le=le, **labels),
            of_pod(f"{name}_count", f"0+{all_of / 2}x80", **labels),
        ]

    def seconds(bound: str) -> Objective:
        return objective("latency", "99", "server", bound)

    inputs = {
        "triton": [
            of_pod("nv_inference_request_success", "0+27x80"),
            of_pod("nv_inference_request_failure", "0+3x80", reason="BACKEND"),
        ],
        "mlserver": [
            of_pod("model_infer_request_success_total", "0+27x80"),
            of_pod("model_infer_request_failure_total", "0+3x80"),
            *buckets("rest_server_request_duration_seconds", "0.5", 45, 60, path="/v2/models/m/infer"),
        ],
        "kserve": buckets("request_predict_seconds", "0.5", 45, 60),
        "vllm": buckets("vllm:e2e_request_latency_seconds", "0.5", 45, 60),
    }
    text = rules(objective("availability", "99", "server"), seconds("0.5"))
    available, slow = of("availability", 10, "server"), of("latency", 25, "server")
    wanted = {"triton": [available], "mlserver": [available, slow], "kserve": [slow], "vllm": [slow]}
    cases = [case(*inputs[name], tests=[expect("model:slo_burn:rate5m", "20m", *wanted[name])]) for name in wanted]
    holds(tmp_path, text, *cases, every="1m")


def test_alerts_that_wake_somebody_fire_and_resolve(tmp_path: Path) -> None:
    quiet = {"failing": failed("0x300"), "slow": fast("0+300x300")}

    def seen(*tests: dict[str, Any], **instead: Input) -> dict[str, Any]:
        return case(PODS, asked("0+300x300"), *(quiet | instead).values(), tests=list(tests))

    def wakes(at: str, *alerts: tuple[str, Slo]) -> dict[str, Any]:
        # Where nothing older is known, days look as these hours do.
        return rings(at, *alerts, leaving_out="ModelBudgetBurnsSlowly")

    burning: tuple[str, Slo] = ("ModelBudgetBurnsFast", "availability")
    slow: tuple[str, Slo] = ("ModelLatencyOverObjective", "latency")
    spent: tuple[str, Slo] = ("ModelBudgetExhausted", "availability")
    cases = [
        # All requests fail for five minutes after an hour: it rings at once, and ends with the short windows.
        seen(
            rings("60m"),
            wakes("62m", burning),
            wakes("64m", burning, spent),
            wakes("100m", spent),
            failing=failed("0x120 300+300x9 3000x160"),
        ),
        # 1 % failing burns ten times too fast: the pair of six hours rings.
        seen(wakes("30m", burning, spent), failing=failed("0+3x300")),
        # 0.05 % is half of what may fail.
        seen(rings("70m"), failing=failed("0+0.15x300")),
        # Half of them slow for half an hour.
        seen(
            rings("60m"),
            wakes("80m", slow, ("ModelBudgetExhausted", "latency")),
            wakes("130m", ("ModelBudgetExhausted", "latency")),
            slow=fast("0+300x120 36150+150x59 45300+300x100"),
        ),
        # 5 % slow where 1 % may be: five times too fast is for nobody's night.
        seen(wakes("50m", ("ModelBudgetExhausted", "latency")), slow=fast("0+285x300")),
        # A gateway without buckets of this bound, before anybody asked.
        case(PODS, asked("0x300"), tests=[rings("28m"), rings("40m", ("ModelObjectiveNotMeasured", "latency"))]),
    ]
    holds(tmp_path, rules(AVAILABILITY, LATENCY), *cases, every="2m")


def test_alerts_that_can_wait_and_a_spent_budget(tmp_path: Path) -> None:
    """From what is recorded of hours: days are long."""
    labels = {**OWNER, "slo": "availability", "route": "envoy"}

    def hours(bad: str, rate: str) -> list[Input]:
        return [
            series("model:slo_requests:increase5m", "1000x120", **labels),
            series("model:slo_bad:increase5m", bad, **labels),
            series("model:slo_bad:rate1m", "0x120", **labels),
            *(series(f"model:slo_burn:rate{window}", rate, **labels) for window in ("2h", "6h")),
        ]

    slowly: tuple[str, Slo] = ("ModelBudgetBurnsSlowly", "availability")
    spent: tuple[str, Slo] = ("ModelBudgetExhausted", "availability")
    cases = [
        # 2 in 1000 instead of 1 from the second day to the third, then none: it rings over three days, and ends.
        case(
            *hours("0x24 2x47 0x48", "0x24 2x47 0x48"),
            tests=[
                rings("24h"),
                rings("3d", slowly, spent),
                rings("76h", spent),
                expect("model:slo_burn:rate3d", "3d", of("availability", 1.333)),
                expect("model:slo_achieved:ratio", "3d", of("availability", 0.999)),
            ],
            every="1h",
        ),
        # Four times too fast for a day.
        case(*hours("0x71 4x24", "0x71 4x24"), tests=[rings("94h", slowly)], every="1h"),
        # Half of what may fail: half of the budget is left.
        case(
            *hours("0.5x120", "0.5x120"),
            tests=[rings("95h"), expect("model:slo_budget_left:ratio", "95h", of("availability", 0.5))],
            every="1h",
        ),
    ]
    days = [one for one in objective_rules() if one.name == "model-slo-days"]
    holds(tmp_path, rules_file((own(AVAILABILITY), *days)), *cases, every="1h")


def test_a_changed_objective_is_one_objective(tmp_path: Path) -> None:
    """While Prometheus still sees the old one beside it, the rules of all other models must not fail."""
    labels = {**OWNER, "slo": "availability", "route": "envoy"}
    twice = case(
        PODS,
        asked("0+30x80"),
        failed("0+3x80"),
        series("model:slo_objective:ratio", "0.99x80", **labels, window="28d"),
        tests=[expect("model:slo_burn:rate5m", "20m", of("availability", 100))],
    )
    holds(tmp_path, rules(AVAILABILITY), twice, every="1m")


@pytest.mark.parametrize(
    ("source", "milliseconds", "bound"),
    [("envoy", "250", "250"), ("kserve", "7500", "7.5"), ("vllm", "300", "0.3"), ("knative", "5", "0.005")],
)
def test_a_bound_in_milliseconds_and_in_the_sources_unit(source: str, milliseconds: str, bound: str) -> None:
    assert bounds(SOURCES[source])[milliseconds] == bound
    assert bounds(SOURCES["triton"]) == {}
