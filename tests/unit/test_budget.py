from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests import budget

from velagen.lab.images import recipes

ROOT = Path(__file__).parents[2]


class Item:
    nodeid = "tests/e2e/kind/test_kind_x.py::test_it"

    def __init__(self, **markers: pytest.Mark) -> None:
        self.markers = markers

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self.markers.get(name)


@pytest.fixture(autouse=True)
def no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(budget.UNTIL, raising=False)
    # What is left out here for the sake of a test is no news of the run that it is part of.
    monkeypatch.delenv(budget.UNCHECKED, raising=False)


def until(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setenv(budget.UNTIL, str(time.time() + seconds + budget.RESERVE))


def report(node: str, reason: str) -> pytest.TestReport:
    skipped = ("conftest.py", 1, f"Skipped: {reason}")
    return pytest.TestReport(node, ("", 0, ""), {}, outcome="skipped", longrepr=skipped, when="setup")


def test_without_a_bound_nothing_is_left_out() -> None:
    budget.leave_out_if_late(Item(), before=1e9)  # type: ignore[arg-type]
    assert budget.say_last([]) == ""


def test_a_test_that_fits_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    until(monkeypatch, 100)
    budget.leave_out_if_late(Item(kind=pytest.mark.kind.mark), before=30)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("item", "before"),
    [
        (Item(kind=pytest.mark.kind.mark), 50),  # 60 s of its own are too many beside 50 s of set-up
        (Item(seconds=pytest.mark.seconds(120).mark), 0),
    ],
)
def test_one_that_does_not_is_skipped_and_said(monkeypatch: pytest.MonkeyPatch, item: Item, before: float) -> None:
    until(monkeypatch, 100)
    with pytest.raises(pytest.skip.Exception, match="left out") as skipped:
        budget.leave_out_if_late(item, before)  # type: ignore[arg-type]
    left_out = report(item.nodeid, str(skipped.value))
    assert budget.say_last([left_out, report("a.py::b", "no engine")]) == "unchecked for want of time: test_kind_x: it"


def test_each_promise_is_named_once_and_for_all_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collected = tmp_path / "unchecked"
    monkeypatch.setenv(budget.UNCHECKED, str(collected))
    late = "left out: it needs about 9 s, and 3 s of the run's time are left"
    first = [report(f"tests/test_a.py::test_every_example_runs[{name}]", late) for name in ("iris", "bert")]
    assert budget.say_last([*first, report("tests/test_a.py::test_it_scales", late)]) == (
        "unchecked for want of time: test_a: every example runs (2); it scales"
    )
    budget.say_last([report("tests/test_b.py::Cases::test_no_request_fails", late)])
    assert collected.read_text() == "test_a: every example runs (2); it scales\ntest_b: no request fails\n"


@pytest.mark.parametrize("workers", [[], ["--numprocesses=1"]])
def test_the_last_line_of_a_run_names_them(workers: list[str]) -> None:
    """Also where the tests run in processes of their own, as those on kind clusters do."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, "tests/unit/test_turns.py"]
    over = {**os.environ, budget.UNTIL: "1", budget.UNCHECKED: ""}
    done = subprocess.run(command, cwd=ROOT, env=over, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1].startswith("unchecked for want of time: test_turns: "), done.stdout


def test_what_is_not_there_costs_what_its_build_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    # Contour's row says five minutes, KServe's controller and the rest what theirs say; an image of Python packages
    # takes longer than one of a single binary.
    alone = budget.missing(["contour"])
    assert alone > 5 * 60
    assert budget.missing(["contour", "python"]) > alone + 100
    assert budget.missing(list(recipes().images)) > 30 * 60
