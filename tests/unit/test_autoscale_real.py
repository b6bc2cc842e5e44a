"""The simulator of benchmarks/autoscale beside runs on a kind cluster."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click
import pytest
from benchmarks.autoscale.real import (
    KEPT,
    MODEL_SECONDS,
    STEPS,
    TRAIT,
    apart,
    lags,
    main,
    of_the_record,
    of_the_records,
    others,
    setting,
    simulated,
    table,
    verdict,
)
from benchmarks.page import ROOT
from click.testing import CliRunner

from velagen.scaling.record import Record, Span

PAGE = (ROOT / "docs" / "autoscale.md").read_text(encoding="utf-8")
LOAD = [8] * 60 + [28] * 90
RUN = Record(
    at=0.0,
    trait=TRAIT,
    spans=(Span(8, 0, 60), Span(28, 60, 150)),
    sent=LOAD,
    failed=[0] * len(LOAD),
    milliseconds=[25.0] * len(LOAD),
    asked=((0.0, 2),),
    ready=((0.0, 2),),
    pod_seconds=(10.0, 12.0),
    model_seconds=0.02,
)


def made() -> Record:
    """The run with the pods of the simulator, where Kubernetes looks 3 s after each quarter of a minute."""
    one = simulated(TRAIT, LOAD, setting(TRAIT, 0.02, 25.0, 11.0))[3]

    def changes(numbers: list[int]) -> tuple[tuple[float, int], ...]:
        before = [0, *numbers]
        return tuple((float(at), now) for at, now in enumerate(numbers) if now != before[at])

    return replace(RUN, asked=changes(one.pods), ready=changes(one.ready))


def test_the_simulator_is_set_as_the_run_was() -> None:
    found = setting(TRAIT, 0.02, 25.0, 11.0)
    assert (found.service_seconds, found.start_seconds, found.capacity) == (0.025, 11.0, 50.0)
    assert (found.least, found.most, found.window_seconds, found.scale_down_seconds) == (2, 6, 30, 30)


def test_the_runs_are_those_that_the_page_tells() -> None:
    rows = re.findall(
        r"^\| (\d+) requests a second, formula \d+ \| ([\d, ]+); (?:ready )?after (\d+) s \|$", PAGE, re.M
    )
    told = [(int(rate), tuple(map(int, pods.split(", "))), float(took)) for rate, pods, took in rows]
    assert told == [(step.rate, step.pods, step.took[0]) for step in STEPS]
    assert f"first two rows after {STEPS[0].took[1]} and {STEPS[1].took[1]} s" in PAGE
    # The test's own model and trait.
    kind = ROOT / "tests" / "e2e" / "kind"
    assert f"time.sleep({MODEL_SECONDS})" in (kind / "serving.py").read_text()
    assert "QUIET, PLATEAUS = 4.0, (28.0, 48.0)" in (kind / "test_kind_autoscale.py").read_text()


def test_the_page_has_the_error_as_it_is() -> None:
    found = lags()
    assert table(found) in PAGE
    assert verdict(found) in PAGE
    # What the page's head says of it.
    apart_by = sorted(map(int, re.findall(r"(\d+) s (?:apart|with)", verdict(found))))
    assert len(apart_by) == 3
    assert f"the same pods at each step, {apart_by[0]} to {apart_by[-1]} s apart on average" in PAGE


def test_the_page_has_the_recorded_run_as_it_is() -> None:
    found = apart(Record.of(KEPT.read_text(encoding="utf-8")))
    assert of_the_record(found) in PAGE
    # Of three pods, a fifth of one: the page says that the simulator may be believed in this.
    assert found.ready.high < 0.3
    late = sorted(round(abs(took - lag.mean)) for _, took, lag in found.lags)
    assert f"and {late[0]} to {late[-1]} s where a pod's start was measured" in PAGE


def test_the_page_has_the_recorded_policies_as_they_are() -> None:
    found = others()
    assert of_the_records(found) in PAGE
    # Of three pods on average a quarter of one, with each second's time of a request as it was.
    assert found["littles-law"].asked.mean < 0.25
    assert found["littles-law"].ready.mean < 0.25


def test_the_time_of_a_request_as_it_was_measured_is_what_is_counted() -> None:
    """Twice as long from a second on is twice as much in the system, and as many pods."""
    law = {**TRAIT, "policy": "littles-law", "utilization": 0.5}
    slow = replace(RUN, trait=law, milliseconds=[50.0] * 60 + [50.0, None] * 15 + [100.0] * 60)
    times = apart(slow, measured=True)
    assert times.asked.mean > apart(slow).asked.mean


def test_a_run_as_the_simulator_makes_it_is_not_apart_from_one_of_its_own(tmp_path: Path) -> None:
    found = apart(made())
    assert found.asked.low == found.ready.low == 0
    ((rate, took, lag),) = found.lags
    assert rate == 28
    assert lag.low <= took <= lag.high
    # Kubernetes looks each 15 s.
    assert lag.high - lag.low <= 15
    file = tmp_path / "run.json"
    file.write_text(made().text())
    said = CliRunner().invoke(main, [str(file)]).output
    assert f"28 requests a second: settled after {took:.0f} s, simulator {lag} s" in said


def test_a_pod_more_than_there_was_is_seen() -> None:
    more = apart(replace(made(), ready=((0.0, 2), (75.0, 4))))
    assert more.ready.mean > 0.5
    assert more.asked.mean < 0.5
    assert more.lags[0][1] == 15


def test_a_record_without_what_the_simulator_is_set_by_is_refused() -> None:
    for lacking in (RUN, replace(RUN, pod_seconds=()), replace(RUN, milliseconds=[None] * len(LOAD))):
        with pytest.raises(click.ClickException, match="the record has no time"):
            apart(replace(lacking, model_seconds=0.0))
