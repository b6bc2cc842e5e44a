from __future__ import annotations

import time

import pytest
from tests import budget

from velagen.lab.images import recipes


class Item:
    nodeid = "tests/e2e/kind/test_kind_x.py::test_it"

    def __init__(self, **markers: pytest.Mark) -> None:
        self.markers = markers

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self.markers.get(name)


@pytest.fixture(autouse=True)
def no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(budget.UNTIL, raising=False)


def until(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setenv(budget.UNTIL, str(time.time() + seconds + budget.RESERVE))


def report(node: str, reason: str) -> pytest.TestReport:
    skipped = ("conftest.py", 1, f"Skipped: {reason}")
    return pytest.TestReport(node, ("", 0, ""), {}, outcome="skipped", longrepr=skipped, when="setup")


def test_without_a_bound_nothing_is_left_out() -> None:
    budget.leave_out_if_late(Item(), before=1e9)  # type: ignore[arg-type]
    assert budget.report([]) == []


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
    assert budget.report([report(item.nodeid, str(skipped.value)), report("a.py::b", "no engine")]) == [
        "1 tests were left out for want of time (counted as skipped):",
        "     1 of test_kind_x.py",
    ]


def test_what_is_not_there_costs_what_its_build_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    # Contour's row says five minutes, KServe's controller and the rest what theirs say; an image of Python packages
    # takes longer than one of a single binary.
    alone = budget.missing(["contour"])
    assert alone > 5 * 60
    assert budget.missing(["contour", "python"]) > alone + 100
    assert budget.missing(list(recipes().images)) > 30 * 60
