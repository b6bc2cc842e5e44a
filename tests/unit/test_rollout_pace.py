"""When runs of a waiting step come: the engine's own back-off, and what the step says."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from velagen.rollout import pace

#: Seconds between two renewals of the API server's lease, the step's clock.
RENEWED = 10


def gap(same: int) -> int:
    """Seconds until the next run, after so many that said the same. Source: see velagen.rollout.pace."""
    return min(pace.LONGEST, max(1, int(0.05 * 2**same)))


def wait(says: Callable[[float], object], until: Callable[[float, float], bool], offset: float) -> tuple[float, int]:
    """Seconds until a run sees that *until* holds of the time and of the clock, and how many runs there were."""
    now, same, runs, last = 0.0, 1, 0, says(0)
    while True:
        now += gap(same)
        runs += 1
        clock = max(0.0, (now + offset) // RENEWED * RENEWED - offset)
        if until(now, clock):
            return now, runs
        text = says(clock)
        last, same = text, (same + 1 if text == last else 1)


def offsets() -> list[float]:
    pick = random.Random(1)
    return [pick.uniform(0, RENEWED) for _ in range(500)]


@pytest.mark.parametrize(
    ("interval", "latest", "a_minute"), [(10, 16, 29), (30, 21, 19), (60, 17, 15), (120, 33, 9), (300, 33, 5)]
)
def test_a_check_is_made_soon_after_its_interval(interval: int, latest: float, a_minute: float) -> None:
    found = [
        wait(lambda clock: pace.near(clock, interval), lambda _, clock: clock >= interval, offset)
        for offset in offsets()
    ]
    assert max(now for now, _ in found) - interval <= latest
    assert 60 * sum(runs for _, runs in found) / sum(now for now, _ in found) <= a_minute


@pytest.mark.parametrize("seconds", [20, 200, 1_800])
def test_a_long_wait_costs_few_runs_and_its_end_is_seen_within_a_minute(seconds: int) -> None:
    for offset in offsets():
        now, runs = wait(pace.said, lambda now, _: now >= seconds, offset)
        assert now - seconds <= pace.LONGEST
        assert runs <= 10 + 8 * sum(seconds >= one for one in pace.SPANS) + seconds / 40


def test_spans() -> None:
    assert [pace.said(one) for one in (0, 29.9, 30, 59, 60, 119, 120, 1_800, 10_000)] == [
        0, 0, 30, 30, 60, 60, 120, 960, 1920,
    ]  # fmt: skip
