"""The pure parts of benchmarks/rollout/faults.py and kills.py: what is counted, and what is said of it."""

from __future__ import annotations

import json
import time

import pytest
from benchmarks.kind import Load, Seen
from benchmarks.rollout import faults, kills
from benchmarks.rollout.live import QUICK, SETTINGS, settings_for
from click.testing import CliRunner


def answered(version: int, at: float, took: float = 0.1) -> Seen:
    return Seen(at, took, 200, json.dumps({"outputs": [{"data": [version]}]}))


def counted(seen: list[Seen], fault: str = "error", way: str = "vela", how: str = "") -> faults.Outcome:
    return faults.outcome(fault, way, Load(seen), 10.0, 130.0, (how, 60.0, "why"), 1.0)


def good(start: int, end: int, version: int = 1) -> list[Seen]:
    return [answered(version, at) for at in range(start, end)]


def test_what_is_before_the_change_is_not_counted() -> None:
    found = counted([Seen(5, 1, 503, ""), *good(6, 140)])
    assert (found.requests, found.lost, found.first) == (120, 0, None)
    assert faults.cell(found) == "none; version 1 serves"


@pytest.mark.parametrize(
    "lost",
    [Seen(20, 10, 0, "timeout"), Seen(20, 0.1, 503, "no"), Seen(20, 0.1, 200, "<html>")],
    ids=lambda one: one.text,
)
def test_what_has_no_answer_is_lost(lost: Seen) -> None:
    found = counted([*good(0, 20), lost, *good(21, 140, 2)])
    assert (found.requests, found.lost, found.wrong, found.lasts) == (120, 1, 0, False)
    assert faults.cell(found) == "1 lost; over within 0 s; version 2 serves"


def test_an_answer_of_no_version_is_wrong() -> None:
    found = counted([*good(0, 30), *good(30, 50, 13), *good(50, 140)], "wrong", "step", "taken back")
    assert (found.lost, found.wrong, found.first, found.last) == (0, 20, 20, 39)
    assert faults.cell(found) == "20 wrong; over within 19 s; taken back after 60 s"


def test_what_goes_on_is_not_over_by_itself() -> None:
    found = counted([*good(0, 30), *(Seen(at, 0.1, 500, "") for at in range(30, 140))])
    assert found.lasts
    assert faults.cell(found) == "100 lost; not over by itself"


def test_a_slow_answer_counts_where_slowness_is_the_fault() -> None:
    seen = [*good(0, 30), answered(2, 30, 3.0), *good(31, 140)]
    assert counted(seen).first is None
    found = counted(seen, "slow")
    assert (found.late, found.first) == (1, 20)
    assert faults.cell(found) == "1 later than 1 s; over within 0 s; version 1 serves"


def test_a_table_has_the_faults_that_were_measured_in_all_ways() -> None:
    seen = good(0, 140)
    outcomes = [counted(seen, "load", way, "taken back") for way in faults.WAYS]
    said = faults.text([*outcomes, counted(seen, "slow", "vela")], 1.0)
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert (
        rows[0] == "| the new version | requests each | `rollout-model` | `vela up` without the step | KServe alone |"
    )
    assert rows[2:] == [
        "| does not load | 120 | none; taken back after 60 s | none; version 1 serves | none; version 1 serves |"
    ]


def test_more_connections_than_were_seen_to_end_dockers_proxy_are_refused() -> None:
    done = CliRunner().invoke(faults.main, ["--at-once", "2", "--rate", "10"])
    assert done.exit_code == 2
    assert "Docker's proxy before the gateway may end: take less of one of them." in " ".join(done.output.split())
    assert len(faults.WAYS) * faults.connections(10) <= faults.CONNECTIONS


def test_settings_name_the_namespace_and_leave_the_table_alone() -> None:
    hook = settings_for("wrong", "here")["analysis"]["webhooks"][0]
    assert hook["url"] == "http://judge.here.svc:8080"
    assert "SPACE" in json.dumps(SETTINGS["wrong"])
    assert settings_for("good", "here") == {}
    assert settings_for("wrong", "here")["analysis"]["minimumRequests"] == QUICK["analysis"]["minimumRequests"]


def test_a_state_with_a_failed_check_is_a_place_of_its_own() -> None:
    assert kills.place({"phase": "step", "failed": 0}) == "step"
    assert kills.place({"phase": "step", "failed": 1}) == "a failed check"
    assert kills.place({"phase": "failed", "failed": 1}) == "failed"
    assert kills.place({}) == ""


class Fake:
    """A rollout that is where the test says."""

    lab = None

    def __init__(self) -> None:
        self.data = {"revision": "good-v2"}
        self.state: dict[str, object] = {"phase": "prepare"}


def test_it_is_killed_once_in_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        ready = False

        def list(self, *_: object, **__: object) -> list[object]:
            return [{"status": {"conditions": [{"type": "Ready", "status": str(self.ready)}]}}]

    class TheLab:
        api = Api()

    ended: list[object] = []
    rollout = Fake()
    rollout.lab = TheLab()  # type: ignore[assignment]  # as much of it as is asked for
    monkeypatch.setattr(kills, "kill_vela_core", ended.append)
    killer = kills.Killer(rollout, "good-v2")  # type: ignore[arg-type]
    killer.look()
    killer.look()
    assert list(killer.killed) == ["prepare"]
    assert killer.away == {}
    TheLab.api.ready = True
    rollout.state = {"phase": "warm"}
    rollout.data = {"revision": "good-v1"}
    killer.look()
    assert list(killer.killed) == list(killer.away) == ["prepare"]
    rollout.data = {"revision": "good-v2"}
    killer.look()
    rollout.state = {"phase": "done"}
    killer.look()
    assert list(killer.killed) == ["prepare", "warm"]
    assert len(ended) == 2


def test_kills_in_words() -> None:
    rollout = Fake()
    killer = kills.Killer(rollout, "good-v2", time.perf_counter(), {"prepare": 2.2, "warm": 40.0}, {"prepare": 31.4})  # type: ignore[arg-type]
    load = Load([answered(1, 0), answered(2, 1), answered(2, 2)])
    said = kills.text({"good": kills.Run(killer, load, 90.0, "done", "", (0, False))})
    assert "| prepare | 2 (31) |\n| warm | 40 |" in said
    assert (
        "- good: done after 90 s; 0 of 3 requests failed, 1 answered by version 1, 2 answered by version 2; at the end "
        "the candidate has 0 % and is gone." in said
    )
