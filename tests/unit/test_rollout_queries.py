"""What a check of rollout-model asks Prometheus, by Prometheus' own promtool over the recording rules; its verdicts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.promtool import expect, holds, of_pod, series

from velagen.monitoring.rules import recording_rules, rules_file
from velagen.rollout.verdict import judge
from velagen.template.evaluate import evaluate

ROOT = Path(__file__).parents[2]
ANALYSIS: dict[str, Any] = {
    "minimumRequests": 50,
    "successRatio": 0.99,
    "latency": {"percentile": "p99", "milliseconds": 300, "timesStable": 1.5},
    "queries": [{"name": "up", "query": 'sum(up{version="VERSION",namespace="NAMESPACE"})', "atLeast": 1}],
}


def question(monkeypatch: pytest.MonkeyPatch, **analysis: Any) -> str:
    """The query of a check, for the component m in the namespace team."""
    monkeypatch.syspath_prepend(str(ROOT / "definitions"))
    for name in [one for one in sys.modules if one.startswith(("rollout_model", "_rollout", "_routes"))]:
        sys.modules.pop(name)
    module = importlib.import_module("_rollout_analysis")
    given = {"parameter": {"component": "m", "analysis": {**ANALYSIS, **analysis}}, "context": {"namespace": "team"}}
    return str(evaluate(module.question, given))


def mlserver(version: str, good: int, bad: int, seconds: float) -> list[dict[str, str]]:
    """A pod of MLServer that answers so many requests in 15 s, each within *seconds*."""
    pod = {"pod": f"{version}-predictor-1", "version": version}
    every = good + bad
    found = [
        of_pod("up", "1x60", **pod),
        of_pod("model_infer_request_success_total", f"0+{good}x60", **pod),
        of_pod("model_infer_request_failure_total", f"0+{bad}x60", **pod),
    ]
    for bound in ("0.1", "0.2", "0.5", "+Inf"):
        inside = every if float(bound.replace("+Inf", "inf")) >= seconds else 0
        labels = {"path": "/v2/models/m/infer", "le": bound}
        found.append(of_pod("rest_server_request_duration_seconds_bucket", f"0+{inside}x60", **pod, **labels))
    return found


def sample(name: str, value: float) -> tuple[dict[str, str], float]:
    return {"rollout": name}, value


def test_one_query_answers_all_that_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(monkeypatch)
    both = [*mlserver("m", 30, 0, 0.15), *mlserver("m-canary", 19, 1, 0.4)]
    seen = expect(
        asked,
        "10m",
        sample("requests", 400),
        sample("success ratio", 0.95),
        sample("latency", 497),
        sample("beside stable", 2.497),
        sample("query up", 1),
    )
    holds(
        tmp_path, rules_file(recording_rules()), {"interval": "15s", "input_series": both, "promql_expr_test": [seen]}
    )


def test_without_requests_or_without_the_stable_version_there_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = question(monkeypatch, queries=[])
    idle = mlserver("m-canary", 0, 0, 0.1)
    alone = mlserver("m-canary", 20, 0, 0.15)
    rules = rules_file(recording_rules())
    seen_alone = [sample("requests", 400), sample("success ratio", 1), sample("latency", 199)]
    holds(
        tmp_path,
        rules,
        {
            "interval": "15s",
            "input_series": idle,
            "promql_expr_test": [expect(asked, "10m", sample("requests", 0))],
        },
        {"interval": "15s", "input_series": alone, "promql_expr_test": [expect(asked, "10m", *seen_alone)]},
        {"interval": "15s", "input_series": [series("up", "1x60")], "promql_expr_test": [expect(asked, "10m")]},
    )


BOUNDS = [
    {"name": "success ratio", "value": "1", "unit": "", "limit": 0.99, "atMost": False},
    {"name": "latency (p99)", "value": "250.5", "unit": " ms", "limit": 300, "atMost": True},
]


@pytest.mark.parametrize(
    ("values", "requests", "verdict", "why"),
    [
        (("1", "250.5"), "100", "good", ""),
        (("0.99", "300"), "50", "good", ""),
        (("0.98", "412.3"), "100", "bad", "success ratio 0.98 < 0.99, latency (p99) 412.3 ms > 300 ms"),
        # One that is broken is broken, whatever else is not known.
        (("0.98", ""), "100", "bad", "success ratio 0.98 < 0.99"),
        (("1", ""), "100", "inconclusive", "latency (p99) has no value"),
        (("NaN", "250"), "100", "inconclusive", "success ratio has no value"),
        (("+Inf", "250"), "100", "inconclusive", "success ratio has no value"),
        (("1", "1 and 2"), "100", "inconclusive", "latency (p99) has no value"),
        (("0.1", "900"), "49", "inconclusive", "49 of the 50 requests that a check needs"),
        (("1", "250"), "", "inconclusive", "the number of requests is not known"),
        (("1", "1e-3"), "5e+02", "good", ""),
    ],
)
def test_verdicts(values: tuple[str, str], requests: str, verdict: str, why: str) -> None:
    measured = [{**bound, "value": value} for bound, value in zip(BOUNDS, values, strict=True)]
    assert judge(measured, requests, 50) == (verdict, why)
