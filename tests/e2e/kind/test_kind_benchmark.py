"""The benchmarks, for a few seconds each: both sides come up, answer alike, and give figures that make ratios."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from benchmarks.serving import __main__ as serving
from benchmarks.serving import report
from benchmarks.serving.sides import TOLERANCE
from benchmarks.startup import __main__ as startup
from benchmarks.startup.moments import PHASES, phases
from click.testing import CliRunner

from velagen.lab.kind import KindLab

pytestmark = [pytest.mark.slow]


@pytest.fixture(autouse=True)
def addon(kind_lab: KindLab) -> None:
    found = kind_lab.api.get("core.oam.dev/v1beta1", "ComponentDefinition", "kfserving", "vela-system")
    assert found is not None, "the addon is not enabled"


@pytest.mark.alone
@pytest.mark.seconds(110)
def test_flask_and_the_addon_are_compared(kind_lab: KindLab, tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("server and client need a core each")
    arguments = ["--lab", str(kind_lab.folder), "--quick", "--model", "matrix", "--out", str(tmp_path)]
    if "VELAGEN_TEST_KIND" in os.environ:
        arguments.append("--no-pin")  # others may be using it
    done = CliRunner().invoke(serving.main, [*arguments, "--share", "0.5"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "results.json").read_text())
    model = results["models"]["matrix"]
    # It stops where they differ; that it compared them is in the results.
    assert model["difference"] < TOLERANCE
    runs = model["runs"]
    assert {(run["side"], run["share"]) for run in runs} == {
        (side, share) for side in report.SIDES for share in (None, 0.5)
    }
    for measure in report.MEASURES:
        for share in (None, 0.5):
            found = report.ratio(runs, measure, share)
            assert found is not None, (measure, share, runs)
            assert 0 < found.median < math.inf
    assert not any(run["failures"] for run in runs)
    # The side under test worked, the other one didn't; and the processor time read is not more than there is.
    for run in runs:
        assert 0.05 * run["seconds"] < run["used"]["side"] < 1.1 * run["seconds"]
        assert run["used"]["idle"] < 0.2 * run["seconds"]
    (full,) = [run["batch"] for run in runs if run["side"] == "addon" and run["share"] is None]
    assert full > 2
    # One call for eight requests costs this model far less than eight.
    alone = model["batches"]["ONNX Runtime"]
    assert alone["8"] < 0.7 * alone["1"]
    assert "| closed loop: requests a second |" in done.output
    assert os.sched_getaffinity(0) == cores
    assert not kind_lab.api.list("v1", "Pod", "benchmark-serving")


@pytest.mark.alone
@pytest.mark.seconds(110)
def test_a_start_is_timed_by_phase_in_both_ways(kind_lab: KindLab, tmp_path: Path) -> None:
    arguments = ["--lab", str(kind_lab.folder), "--quick", "--out", str(tmp_path)]
    done = CliRunner().invoke(startup.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "results.json").read_text())
    assert found.keys() == set(startup.WAYS)
    for way, (moments,) in found.items():
        wanted = set(PHASES) - ({"admitted"} if way == "kubectl apply" else set())
        assert phases(moments).keys() == wanted
        assert 0 < moments["created"] < moments["ready"] <= moments["answered"] < startup.PATIENCE
    assert "| **in all** |" in done.output
    assert not kind_lab.api.list("v1", "Pod", "benchmark-startup")
