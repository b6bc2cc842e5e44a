"""What a check of rollout-model asks Prometheus, by Prometheus' own promtool over the recording rules; its verdicts."""

from __future__ import annotations

import importlib
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.promtool import expect, holds, of_pod, series

from velagen.monitoring.rules import recording_rules, revision_rules, rules_file
from velagen.rollout.verdict import FALSE_ALARMS, counted, evidence_of, judge, worse
from velagen.template.evaluate import evaluate

ROOT = Path(__file__).parents[2]
ANALYSIS: dict[str, Any] = {
    "minimumRequests": 50,
    "successRatio": 0.99,
    "latency": {"percentile": "p99", "milliseconds": 300, "timesStable": 1.5},
    "relative": {"falseAlarms": 0.01, "successMargin": 0.005},
    "queries": [{"name": "up", "query": 'sum(up{version="VERSION",namespace="NAMESPACE"})', "atLeast": 1}],
}


def worked_out(monkeypatch: pytest.MonkeyPatch, what: str, seen: dict[str, Any], analysis: dict[str, Any]) -> Any:
    """A value of the analysis, for the component m in the namespace team; *seen* are the step's reads by group."""
    monkeypatch.syspath_prepend(str(ROOT / "definitions"))
    for name in [one for one in sys.modules if one.startswith(("rollout_model", "_rollout", "_routes"))]:
        sys.modules.pop(name)
    module = importlib.import_module("_rollout_analysis")
    parameter = {"component": "m", "tidy": False, "analysis": analysis}
    given = {"parameter": parameter, "context": {"namespace": "team"}, "seen": {}, "objects": {}, **seen}
    return evaluate(getattr(module, what), given)


def question(monkeypatch: pytest.MonkeyPatch, *, seen: dict[str, Any] | None = None, **analysis: Any) -> str:
    """The query of a check."""
    return str(worked_out(monkeypatch, "question", seen or {}, {**ANALYSIS, **analysis}))


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


def sample(name: str, value: float, version: str = "") -> tuple[dict[str, str], float]:
    return {"rollout": name, **({"route": "server", "version": version} if version else {})}, value


def counts(version: str, *, failed: int, every: int, slower: int, slowest: int) -> list[tuple[dict[str, str], float]]:
    """What is counted of a version by its server."""
    numbers = {"all": every, "failed": failed, "timed": every, "slower": slower, "slowest": slowest}
    return [sample(name, value, version) for name, value in numbers.items()]


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
        # Of both together 60 % are answered within 200 ms, and all within 500.
        *counts("m", failed=0, every=600, slower=0, slowest=0),
        *counts("m-canary", failed=20, every=400, slower=400, slowest=0),
    )
    holds(
        tmp_path, rules_file(recording_rules()), {"interval": "15s", "input_series": both, "promql_expr_test": [seen]}
    )


#: What a run sees of a model in knative mode, whose revision 2 is being looked at.
SPLIT: dict[str, Any] = {
    "seen": {"state": {"$returns": {"value": {"data": {"before": "m-predictor-00001"}}}}},
    "objects": {
        "components": {"$returns": {"value": {"m": {"properties": {"deploymentMode": "knative"}}}}},
        "live": {
            "$returns": {
                "value": {
                    "status": {
                        "components": {
                            "predictor": {
                                "latestCreatedRevision": "m-predictor-00002",
                                "latestReadyRevision": "m-predictor-00002",
                                "latestRolledoutRevision": "m-predictor-00001",
                            }
                        }
                    }
                }
            }
        },
    },
}


def of_revision(number: int, found: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same series, of a pod of Knative's."""
    pod = f'pod="m-predictor-0000{number}-deployment-5b6-x{number}"'
    return [{**one, "series": re.sub('pod="[^"]*"', pod, one["series"])} for one in found]


def test_two_revisions_of_one_model_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(monkeypatch, seen=SPLIT, queries=[])
    both = [*of_revision(1, mlserver("m", 30, 0, 0.15)), *of_revision(2, mlserver("m", 19, 1, 0.4))]
    old, new = "m-predictor-00001", "m-predictor-00002"
    seen = expect(
        asked,
        "10m",
        sample("requests", 400),
        sample("success ratio", 0.95),
        sample("latency", 497),
        sample("beside stable", 2.497),
        *counts(old, failed=0, every=600, slower=0, slowest=0),
        *counts(new, failed=20, every=400, slower=400, slowest=0),
    )
    group = {"interval": "15s", "input_series": both, "promql_expr_test": [seen]}
    holds(tmp_path, rules_file((*recording_rules(), *revision_rules())), group)


@pytest.mark.parametrize(("mode", "ready"), [("knative", True), ("standard", False)])
def test_a_revision_is_ready_while_the_ingress_takes_in_its_share(
    monkeypatch: pytest.MonkeyPatch, mode: str, ready: bool
) -> None:
    """As seen on Knative: for seconds after each change of the shares the model is not Ready."""
    told = {"Ready": "Unknown", "PredictorReady": "Unknown", "PredictorConfigurationReady": "True"}
    found = {"status": {"conditions": [{"type": name, "status": said} for name, said in told.items()]}}
    components = {"m": {"name": "m", "properties": {"deploymentMode": mode}}}
    seen = {
        "components": {"$returns": {"value": components}},
        "candidate": {"$returns": {"value": found}},
    }
    assert worked_out(monkeypatch, "candidate_is_ready", {"objects": seen}, ANALYSIS) is ready


def test_without_requests_or_without_the_stable_version_there_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = question(monkeypatch, queries=[])
    idle = mlserver("m-canary", 0, 0, 0.1)
    alone = mlserver("m-canary", 20, 0, 0.15)
    rules = rules_file(recording_rules())
    seen_alone = [sample("requests", 400), sample("success ratio", 1), sample("latency", 199)]
    seen_alone += counts("m-canary", failed=0, every=400, slower=400, slowest=0)
    seen_idle = [sample(name, 0, "m-canary") for name in ("all", "failed", "timed", "slowest")]
    holds(
        tmp_path,
        rules,
        {
            "interval": "15s",
            "input_series": idle,
            "promql_expr_test": [expect(asked, "10m", sample("requests", 0), *seen_idle)],
        },
        {"interval": "15s", "input_series": alone, "promql_expr_test": [expect(asked, "10m", *seen_alone)]},
        {"interval": "15s", "input_series": [series("up", "1x60")], "promql_expr_test": [expect(asked, "10m")]},
    )


def test_a_version_whose_metrics_vanish_has_no_number_of_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The windows of five minutes go on for minutes, and checks would pass on them."""
    gone = mlserver("m-canary", 20, 0, 0.15)
    for one in gone:
        one["values"] = one["values"].replace("x60", "x20") + " stale"
    still_said = [sample("success ratio", 1), sample("latency", 199)]
    # What counts failures is not extrapolated, what tells times is (velagen.monitoring.rules).
    still_said += [sample("all", 280, "m-canary"), sample("failed", 0, "m-canary")]
    still_said += [sample(name, 290, "m-canary") for name in ("timed", "slower")] + [sample("slowest", 0, "m-canary")]
    seen = expect(question(monkeypatch, queries=[]), "6m30s", *still_said)
    group = {"interval": "15s", "input_series": gone, "promql_expr_test": [seen]}
    holds(tmp_path, rules_file(recording_rules()), group)


def test_budgets_and_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [{"name": "Drift"}, {"name": "Late", "selector": 'service=~"VERSION|STABLE"'}, {"name": "Unknown"}]
    off: dict[str, Any] = {"successRatio": 0, "latency": {"percentile": "p99", "timesStable": 0}, "queries": []}
    asked = question(monkeypatch, **off, budgetLeft=0.1, alerts=chosen)
    left = {"namespace": "team", "slo": "availability", "route": "envoy"}
    ring = {"alertstate": "firing", "namespace": "team"}
    given = [
        series("model:slo_budget_left:ratio", "0.5x60", component="m", **left),
        series("model:slo_budget_left:ratio", "0.04x60", component="m-canary", **left),
        series("model:slo_budget_left:ratio", "-3x60", component="n", **left),
        series("ALERTS", "1x60", alertname="Drift", version="n", **ring),
        series("ALERTS", "1x60", alertname="Drift", version="m-canary", **{**ring, "alertstate": "pending"}),
        series("ALERTS", "1x60", alertname="Late", service="m-canary", **ring),
    ]
    seen = expect(
        asked,
        "10m",
        sample("budget", 0.04),
        *(sample(f"alert {one}", n) for one, n in (("Drift", 0), ("Late", 1))),
        sample("alert Unknown", 0),
    )
    holds(
        tmp_path, rules_file(recording_rules()), {"interval": "15s", "input_series": given, "promql_expr_test": [seen]}
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
    measured = [{**bound, "value": value, "unsure": False} for bound, value in zip(BOUNDS, values, strict=True)]
    assert judge(measured, requests, 50) == (verdict, why)


@pytest.mark.parametrize(
    ("failures", "unsure", "verdict", "why"),
    [
        # As bad as the stable version, or too few to say.
        ((50, 500, 450, 4_500), True, "inconclusive", "success ratio 0.9 < 0.99, which chance or the stable version's"),
        ((1, 60, 0, 540), True, "inconclusive", "success ratio 0.9 < 0.99, which chance or the stable version's"),
        ((50, 500, 2, 4_500), False, "bad", "success ratio 0.9 < 0.99, 50 of 500 requests failed, and 2 of 4500 of"),
        # Without the stable version's numbers the bound alone counts.
        ((50, 500, 0, 0), False, "bad", "success ratio 0.9 < 0.99"),
    ],
)
def test_what_chance_or_the_stable_version_explains_is_no_failure(
    failures: tuple[int, int, int, int], unsure: bool, verdict: str, why: str
) -> None:
    pair = dict(zip(("bad", "all", "stableBad", "stableAll"), map(str, failures), strict=True))
    enough = evidence_of(45, 0.01)
    assert (counted(pair) and not worse(pair, enough, 0)) is unsure
    bounds = [{**BOUNDS[0], "value": "0.9", "unsure": unsure}]
    said, words = judge(bounds, "500", 50, pair, enough=enough, beyond=0.005)
    assert said == verdict
    assert words.startswith(why)


def test_more_failures_than_the_stable_version_fail_a_check_inside_the_bound() -> None:
    pair = {"bad": "80", "all": "10000", "stableBad": "10", "stableAll": "10000"}
    good = [{**BOUNDS[0], "value": "0.992"}]
    enough = evidence_of(45, 0.01)
    assert judge(good, "10000", 50, pair, enough=enough, beyond=0.005)[0] == "bad"
    assert judge(good, "10000", 50, pair, enough=enough, beyond=0.01) == ("good", "")


@pytest.mark.parametrize("rate", [0.2, 0.01, 0.001])
@pytest.mark.parametrize(("mine", "theirs"), [(20, 180), (50, 450), (300, 700), (600, 400), (200, 2_800)])
def test_two_equal_versions_seldom_differ(mine: int, theirs: int, rate: float) -> None:
    """The chance of a false alarm, added up exactly over all ways in which the bad requests can fall to the two."""
    enough = evidence_of(1, 0.01)
    bad = max(2, round((mine + theirs) * rate))
    ways = math.comb(mine + theirs, bad)
    alarms = sum(
        math.comb(mine, k) * math.comb(theirs, bad - k)
        for k in range(max(0, bad - theirs), min(bad, mine) + 1)
        if worse({"bad": str(k), "all": str(mine), "stableBad": str(bad - k), "stableAll": str(theirs)}, enough, 0)
    )
    assert alarms * 100 <= ways


@pytest.mark.parametrize("looks", [1, 2, 3, 45, 64, 65, 4_000])
@pytest.mark.parametrize("rate", FALSE_ALARMS)
def test_the_evidence_covers_all_looks(looks: int, rate: float) -> None:
    needed = math.log(looks / rate)
    assert needed - 1e-9 <= evidence_of(looks, rate) <= needed + math.log(2) + 1e-9
