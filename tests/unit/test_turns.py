"""Turns at a cluster: threads stand for the processes that share it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.turns import SEATS, Turns


def used(folder: Path, plan: list[tuple[str, bool]], log: Callable[[str], None]) -> None:
    turns = Turns(folder)
    for name, alone in plan:
        with turns.use(alone=alone):
            log(f"+{name}")
            time.sleep(0.05)
            log(f"-{name}")


def test_two_at_once_but_for_the_one_that_is_alone(tmp_path: Path) -> None:
    lines: list[str] = []
    first = [("a", False)] * 8
    # The other one never pauses, and still the test that is alone gets its turn.
    second = [("b", False), ("ALONE", True), ("b", False)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda plan: used(tmp_path, plan, lines.append), (first, second)))
    at = lines.index("+ALONE")
    assert lines[at + 1] == "-ALONE"
    assert lines[:at].count("+a") == lines[:at].count("-a")
    assert lines[:at].count("+a") < 8
    together = any({one, other} == {"+a", "+b"} for one, other in itertools.pairwise(lines))
    assert together, lines


def test_one_more_than_there_are_seats_waits(tmp_path: Path) -> None:
    seated = [Turns(tmp_path) for _ in range(SEATS)]
    for turns in seated:
        turns.take_seat()
    late = threading.Thread(target=Turns(tmp_path).take_seat, daemon=True)
    late.start()
    late.join(0.5)
    assert late.is_alive()
    seated[0]._seats[0].release()
    late.join(5)
    assert not late.is_alive()
