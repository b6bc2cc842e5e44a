"""The simulation of benchmarks/autoscale: its service, its autoscalers, and that a seed gives the same again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from benchmarks.autoscale.__main__ import ALL, Row, on_front, table, verdict
from benchmarks.autoscale.loads import LOADS
from benchmarks.autoscale.model import CAPACITY, Kpa, Outcome, Scaler, article, cpu, fixed, littles_law, run, slo


def test_a_load_below_the_capacity_is_answered_in_time() -> None:
    found = run([2.5 * CAPACITY] * 300, fixed(4))
    # Two of the four pods start first.
    assert found.lost == 0
    assert 0 < found.seconds_over < 120
    assert found.pods == [4] * 300


def test_more_than_clients_wait_for_is_lost_and_nothing_else_is() -> None:
    found = run([3 * CAPACITY] * 100, fixed(2))
    # One pod's worth waits each second, until there is what two pods answer in ten.
    assert found.lost == pytest.approx(100 * CAPACITY - 10 * 2 * CAPACITY)


@pytest.mark.parametrize(
    ("make", "pods"),
    [
        # 320 a second: 32 in the system, of which a pod is planned with 3.2.
        (littles_law, 10),
        (slo, 10),
        (lambda: article(25.6), 10),
        (lambda: article(200), 2),
        (cpu, 12),
        (Kpa, 12),
    ],
)
def test_each_settles_where_its_formula_says(make: Callable[[], Scaler], pods: int) -> None:
    climb = [min(320.0, 40 + second / 4) for second in range(4000)]
    settled = run(climb, make()).pods[-1]
    # Kubernetes leaves alone what is within a tenth.
    assert abs(settled - pods) <= max(1, pods * 0.1)


def test_pods_that_stay_do_not_flap_and_those_that_swing_do() -> None:
    assert run([70.0] * 2000, littles_law()).flaps == 0
    swings = ([80.0] * 400 + [400.0] * 100) * 4
    assert run(swings, littles_law()).flaps > 0


def test_the_loads_are_the_same_for_a_seed() -> None:
    for make in LOADS.values():
        assert make(5)[:600] == make(5)[:600]
        assert make(5)[:600] != make(6)[:600]


def test_the_front_holds_what_no_other_beats() -> None:
    def row(name: str, over: int, hours: float, flaps: int = 0) -> Row:
        return Row(name, {"a": Outcome(over, hours, flaps)})

    rows = [row("few", 9, 1), row("many", 1, 9), row("worse", 9, 9), row("calm", 9, 2, -1)]
    assert [one.name for one in rows if on_front(one, rows, ("seconds_over", "replica_hours"))] == ["few", "many"]
    assert [one.name for one in rows if on_front(one, rows, ALL)] == ["few", "many", "calm"]


def test_the_page_has_a_line_for_each_policy() -> None:
    outcome = {load: Outcome(1, 2.0, 3, 4.0) for load in LOADS}
    rows = [Row(name, outcome) for name in ("littles-law (default)", "other")]
    assert "| other | 4 | 8.0 | 12 | 16 | yes | yes |" in table(rows)
    assert "- other: +0 seconds over the objective" in verdict(rows)
