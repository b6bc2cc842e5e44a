"""The runs of benchmarks.autoscale.policies: what they ask for is what the formulas say, and their table tells it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks.autoscale.model import Second, percentile
from benchmarks.autoscale.policies import (
    AT_ONCE,
    LAW,
    MOST,
    PART,
    RUNS_OF,
    SLO,
    Answers,
    application,
    at,
    by_answers,
    clock,
    full_minute,
    holds,
    number,
    page,
    several,
    table,
)
from jsonschema import Draft202012Validator

from velagen import autoscaling
from velagen.monitoring.sources import SOURCES
from velagen.scaling.record import Record, Span, formula, rows

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "pods"), [("littles-law", [2, 3, 5, 2]), ("crowd", [2, 3, 2])])
def test_the_pods_of_littles_law_are_the_same_on_a_busy_machine(name: str, pods: list[int]) -> None:
    run = RUNS_OF[name]
    trait = run.trait("space", 0)
    for more in (0, 100):
        took = 1000 * run.model_seconds + more
        assert [formula(trait, plateau.rate, took) for plateau in run.plateaus] == pods


def test_the_pods_to_be_of_an_objective_are_those_by_the_gateways_buckets() -> None:
    histogram = SOURCES["envoy"].histogram
    assert histogram is not None
    run = RUNS_OF["slo"]
    took = 1000 * run.model_seconds + 5
    late = percentile([Second(8, took, 0, 0)], 0.95, histogram.bounds)
    assert late == pytest.approx(975)
    for plateau in run.plateaus:
        pods = autoscaling.slo(plateau.rate * took / 1000, late, SLO["targetLatencyMilliseconds"], AT_ONCE, PART)
        assert max(2, math.ceil(pods)) == plateau.pods


def test_a_percentile_is_exact_or_as_a_histogram_tells_it() -> None:
    of = [Second(1, float(took), 0, 0) for took in range(1, 101)]
    assert percentile(of, 0.95) == 95
    assert percentile(of, 0.95, (50, 100)) == 95
    assert percentile(of, 0.5, (10, 100)) == pytest.approx(10 + 90 * 40 / 90)
    # Beyond the last bound there is no more than that it was beyond.
    assert percentile(of, 0.95, (10, 50)) == 50
    assert percentile([Second(0, 1, 0, 0)], 0.95, (10,)) is None


def test_no_run_is_longer_than_eleven_minutes() -> None:
    for run in RUNS_OF.values():
        assert all(one.least <= one.longest for one in run.plateaus), run.name
        assert sum(one.longest for one in run.plateaus) <= 660, run.name


def test_the_clocks_times_are_full_minutes_ahead() -> None:
    now = 1_800_000_010.0
    assert full_minute(now) == 1_800_000_060.0 - 1_800_000_060.0 % 60
    assert at(1_800_000_000.0) == "0 8 * * *"
    (time,) = several("space", now)["schedule"]
    assert time == {"start": at(full_minute(now + 150)), "end": at(full_minute(now + 150) + 60), "replicas": MOST}
    first, second = clock("space", now)["schedule"]
    # It is on already, ends within two minutes, and is off for two.
    assert first["start"] == at(now - 600)
    assert (first["end"], second["start"]) == (at(full_minute(now + 40)), at(full_minute(now + 40) + 120))


def test_every_trait_is_one_that_the_schema_takes() -> None:
    schema = json.loads((ROOT / "schemas" / "autoscale.json").read_text(encoding="utf-8"))
    for run in RUNS_OF.values():
        trait = run.trait("space", 0.0)
        assert list(Draft202012Validator(schema).iter_errors(trait)) == [], run.name
        assert application(run, trait)["spec"]["components"][0]["traits"][0]["properties"] == trait


@pytest.mark.parametrize(("quantity", "value"), [("3", 3), ("2800m", 2.8), ("12k", 12_000), ("250u", 0.00025)])
def test_a_quantity_is_read(quantity: str, value: float) -> None:
    assert number(quantity) == pytest.approx(value)


class Kubernetes:
    """An autoscaler of four metrics: shared by the pods, not shared, without an answer, and the CPU."""

    running = 3

    def get(self, *asked: str) -> dict[str, Any]:
        assert asked == ("autoscaling/v2", "HorizontalPodAutoscaler", "keda-hpa-waits-autoscale", "space")

        def metric(name: str, what: str, numbers: dict[str, Any]) -> dict[str, Any]:
            return {"type": "External", "external": {"metric": {"name": name}, what: numbers}}

        def cpu(what: str, share: int) -> dict[str, Any]:
            return {"type": "Resource", "resource": {"name": "cpu", what: {"averageUtilization": share}}}

        spec = [
            metric("s0", "target", {"type": "AverageValue", "averageValue": "400m"}),
            metric("s1", "target", {"type": "Value", "value": "10"}),
            metric("s2", "target", {"type": "AverageValue", "averageValue": "1"}),
            cpu("target", 70),
        ]
        spec[3]["resource"]["target"]["type"] = "Utilization"
        had = [
            metric("s0", "current", {"averageValue": "348m"}),
            metric("s1", "current", {"value": "15"}),
            {"type": ""},
        ]
        return {
            "spec": {"metrics": spec},
            "status": {"currentReplicas": self.running, "currentMetrics": [*had, cpu("current", 35)]},
        }


def test_kubernetes_numbers_are_pods_before_rounding() -> None:
    kubernetes = Kubernetes()
    answers = Answers(kubernetes, "space")  # type: ignore[arg-type]  # as much of it as is asked for
    for seconds in (0.0, 3.0, 5.0):
        answers.look(seconds)
    assert answers.seen == [(0.0, (2.61, 4.5, None, 1.5)), (5.0, (2.61, 4.5, None, 1.5))]
    # Without a pod it does not count.
    kubernetes.running = 0
    answers.look(10.0)
    assert answers.seen[-1] == (10.0, (None, None, None, None))


def record(*answers: tuple[float, tuple[float | None, ...]]) -> Record:
    return Record(
        at=0.0,
        trait=LAW,
        spans=(Span(8, 0, 40, 2), Span(28, 40, 80, 3, "more")),
        sent=[8] * 40 + [28] * 40,
        failed=[0] * 79 + [3],
        milliseconds=[40.0] * 80,
        asked=((0.0, 2), (60.0, 3)),
        ready=((0.0, 2), (70.0, 3)),
        answers=answers,
    )


def test_the_table_says_what_was_asked_for_and_whether_it_was_right() -> None:
    right = record((35.0, (0.7,)), (78.0, (2.6, 1.0)))
    first, second = right.spans
    assert (by_answers(right, first), by_answers(right, second)) == (0.7, 2.6)
    text = table({"law": right})
    assert "| law | 8 | 0.70 | 2 | 2 | 2 | 0 s | 0 of 320 |" in text
    assert "|  | 28: more | 2.60 | 3 | 2, 3 | 3 | 30 s | 3 of 1120 |" in text
    said = page({"law": right})
    assert "2 of 2 plateaus ended with the pods that they were to have." in said
    assert "In 2 Kubernetes had a number of each trigger, and left the pods as they were by the greatest in 2." in said
    assert "in 2. 1,440 requests, 3 not answered." in said


def test_pods_that_kedas_numbers_would_change_are_told() -> None:
    wrong = record((35.0, (0.7,)), (78.0, (4.6,)))
    row = rows(wrong)[1]
    assert not holds(wrong, wrong.spans[1], row)
    assert "not in law at 28" in page({"law": wrong})
    # Within a tenth of three they are left alone.
    near = record((78.0, (3.2,)))
    assert holds(near, near.spans[1], rows(near)[1])
    # Without an answer of each there is no number to hold them against.
    none = record((78.0, (4.6, None)))
    assert by_answers(none, none.spans[1]) is None
    assert holds(none, none.spans[1], row)
