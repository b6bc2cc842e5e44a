"""What the step check-slo makes of what stands at Prometheus' address, by the CUE of both KubeVelas.

With the engine, which does what the step then asks of it: tests/e2e/test_slo.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from velagen.errors import Place
from velagen.oracle import Oracle

ROOT = Path(__file__).parents[2]
#: Of KubeVela's packages what a step is written with.
PROVIDERS = "http: #HTTPDo: {...}\nbuiltin: {#Fail: {...}, #ConditionalWait: {...}, #Message: {...}}\n"
NOT_PROMETHEUS = "http://p:9090 does not answer as Prometheus does (status {})"
UNKNOWN = "Prometheus knows no objective of m in team: it needs the trait slo, and Prometheus its rules"
UNCOUNTED = "nothing is counted yet for the availability of m"


def sample(record: str, value: Any, **labels: str) -> dict[str, Any]:
    metric = {"__name__": f"model:slo_{record}:ratio", "slo": "availability", "window": "30d", **labels}
    return {"metric": metric, "value": [1764330000.1, value]}


def vector(*samples: Any, kind: str = "vector") -> str:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": list(samples)}})


def left(value: Any) -> str:
    return vector(sample("objective", "0.999"), sample("achieved", value), sample("budget_left", value))


def step(version: Any, answer: dict[str, Any], **parameter: Any) -> dict[str, Any]:
    """What the step asks of the engine."""
    text = (ROOT / "addon/kfserving/definitions/check-slo.cue").read_text(encoding="utf-8")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith('\t"vela/'))
    parameter = {"component": "m", "prometheus": "http://p:9090", **parameter}
    given = (
        'context: {name: "budget", namespace: "team"}\n'
        f"template: {{parameter: {json.dumps(parameter)}, ask: {json.dumps(answer)}}}"
    )
    asked = "asked: {stop: template.stop, wait: template.wait, tell: template.tell}"
    with Oracle(version) as oracle:
        verdict = oracle.eval(text, "asked", f"{PROVIDERS}{given}\n{asked}\n")
        found: dict[str, Any] = verdict.answered("check-slo", Place()).result
    return found


@pytest.mark.parametrize("version", ["0.9.2", "0.14.1"])
@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (500, vector(), NOT_PROMETHEUS.format(500)),
        (500, left("0.9"), NOT_PROMETHEUS.format(500)),
        (302, "", NOT_PROMETHEUS.format(302)),
        (200, "", NOT_PROMETHEUS.format(200)),
        (200, "<p>Log in", NOT_PROMETHEUS.format(200)),
        (200, left("0.9")[:-9], NOT_PROMETHEUS.format(200)),
        (200, left("0.9") + left("0.9"), NOT_PROMETHEUS.format(200)),
        (200, '{"status":"success"}', NOT_PROMETHEUS.format(200)),
        (200, '{"status":"success","data":null}', NOT_PROMETHEUS.format(200)),
        (200, '{"status":"success","data":{"resultType":"vector","result":null}}', NOT_PROMETHEUS.format(200)),
        (200, '{"status":"error","errorType":"timeout","error":"query timed out"}', NOT_PROMETHEUS.format(200)),
        (200, vector({"metric": {}, "values": [[1, "1"]]}, kind="matrix"), NOT_PROMETHEUS.format(200)),
        (200, vector(7), NOT_PROMETHEUS.format(200)),
        (200, left(0.9), NOT_PROMETHEUS.format(200)),
        (200, "[1]", NOT_PROMETHEUS.format(200)),
        (200, vector(), UNKNOWN),
        (200, vector(sample("budget_left", "0.9")), UNKNOWN),
        (200, vector(sample("objective", "0.999")), UNCOUNTED),
        # What is promised is promised, also where its number is none.
        (200, vector(sample("objective", "NaN"), sample("objective", "0.9", slo="latency"),
                     sample("budget_left", "1", slo="latency")), UNCOUNTED),
        *((200, left(text), UNCOUNTED) for text in ("NaN", "+Inf", "-Inf", "Infinity", "", "0x10", "1_000", "1.")),
    ],
)  # fmt: skip
def test_what_is_no_number_of_prometheus_never_passes(status: int, body: str, why: str, version: Any) -> None:
    answer = {"$returns": {"statusCode": status, "body": body}}
    failing = step(version, answer)
    assert failing["stop"]["fail"]["$params"]["message"] == f"no error budget is known: {why}"
    assert failing["wait"]["$params"]["continue"] is False
    # What somebody wanted to pass says so.
    passing = step(version, answer, onNoData="pass")
    assert passing["stop"] == {}
    assert passing["wait"]["$params"]["continue"] is True
    assert passing["tell"]["$params"]["message"] == f"went on although no error budget is known: {why}"


@pytest.mark.parametrize("version", ["0.9.2", "0.14.1"])
def test_numbers_pass_or_fail(version: Any) -> None:
    for text, goes_on in (("0.5", True), ("1", True), ("1e-05", False), ("-3.2", False)):
        found = step(version, {"$returns": {"statusCode": 200, "body": left(text)}})
        assert found["wait"]["$params"]["continue"] is goes_on
        assert ("fail" in found["stop"]) is not goes_on
    # Not asked yet: it waits, whatever is wanted without data.
    for wanted in ("fail", "wait", "pass"):
        found = step(version, {}, onNoData=wanted)
        assert (found["stop"], found["wait"]["$params"]["continue"]) == ({}, False)
