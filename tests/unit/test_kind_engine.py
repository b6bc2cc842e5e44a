"""What an engine is started with, and what is put back when it goes; test_kind_engine_users has who is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from velagen.errors import VelagenError
from velagen.lab.kind import machine
from velagen.lab.kind.engine import Engine, cannot_start, command, find
from velagen.lab.kind.machine import undo
from velagen.lab.process import Process
from velagen.tools.report import Reporter

GOOD = {"uid": 0, "daemon": "/usr/sbin/dockerd", "firewall": True, "platform": "linux-amd64"}


def test_a_debian_root_can_start_one() -> None:
    assert cannot_start((), **GOOD) == []  # type: ignore[arg-type]


def test_a_missing_capability_that_the_wrapper_handles_is_no_reason() -> None:
    assert cannot_start(("SYS_RESOURCE",), **GOOD) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"uid": 1000}, "needs root"),
        ({"daemon": None}, "dockerd is not installed"),
        ({"firewall": False}, "iptables is not installed"),
        ({"platform": "darwin-arm64"}, "Linux only"),
    ],
)
def test_each_reason_is_named(change: dict[str, object], reason: str) -> None:
    (said,) = cannot_start((), **{**GOOD, **change})  # type: ignore[arg-type]
    assert reason in said


def test_a_capability_the_daemon_needs_is_named() -> None:
    (said,) = cannot_start(("SYS_ADMIN", "SYS_RESOURCE"), **GOOD)  # type: ignore[arg-type]
    assert "CAP_SYS_ADMIN" in said
    assert "SYS_RESOURCE" not in said


def test_nothing_to_start_and_nothing_that_runs_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "SBIN", "")
    with pytest.raises(VelagenError, match=r"dockerd is not installed.*docker client(.|\n)*apt-get install docker\.io"):
        find(Reporter(), tmp_path / "state.json")


def test_an_engine_of_ours_keeps_everything_in_its_folder(tmp_path: Path) -> None:
    line = command("dockerd", tmp_path, None)
    paths = [
        value for option in line[1:] for value in [option.partition("=")[2].removeprefix("unix://")] if "/" in value
    ]
    assert paths
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)
    assert not any("runtime" in option for option in line)


def test_the_wrapper_becomes_the_runtime(tmp_path: Path) -> None:
    line = command("dockerd", tmp_path, Path("/x/runc-wrap"))
    assert "--add-runtime=velagen=/x/runc-wrap" in line
    assert "--default-runtime=velagen" in line


def test_an_engine_survives_being_written_down() -> None:
    given = Engine("unix:///x", Process("dockerd", ["dockerd"], pid=7, identity="b/1"), "/x", "m", {"ip_forward": "0"})
    assert Engine.from_data(given.as_data()) == given
    assert Engine.from_data(Engine().as_data()) == Engine()


def test_the_environment_points_every_client_at_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    assert "DOCKER_CONTEXT" not in Engine("unix:///x").environment()
    assert Engine("unix:///x").environment()["DOCKER_HOST"] == "unix:///x"
    assert Engine().environment()["DOCKER_CONTEXT"] == "elsewhere"


BEFORE = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-N MINE\n-A FORWARD -j MINE\n"


def test_nothing_to_undo_where_nothing_changed() -> None:
    assert undo(BEFORE, BEFORE) == []


def test_dockers_chains_rules_and_policy_are_taken_back() -> None:
    after = (
        "-P INPUT ACCEPT\n-P FORWARD DROP\n-N MINE\n-N DOCKER\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n"
        "-A FORWARD -j MINE\n-A DOCKER -j RETURN\n-A FORWARD -o br-1 -j DOCKER\n"
    )
    assert undo(BEFORE, after) == [
        ["-D", "FORWARD", "-j", "DOCKER-USER"],
        ["-D", "FORWARD", "-o", "br-1", "-j", "DOCKER"],
        ["-F", "DOCKER"],
        ["-F", "DOCKER-USER"],
        ["-X", "DOCKER"],
        ["-X", "DOCKER-USER"],
        ["-P", "FORWARD", "ACCEPT"],
    ]


def test_the_chains_of_another_engine_stay() -> None:
    before = BEFORE + "-N DOCKER\n-A FORWARD -j DOCKER\n"
    assert undo(before, before + "-A INPUT -j MINE\n") == []


def test_only_interfaces_that_docker_names_are_taken_away() -> None:
    before = {"lo", "eth0", "veth0000001"}
    now = before | {"veth12c1b82", "br-e6e1b6c68bb9", "veth12345678", "cni0", "br-lan"}
    assert machine.left_behind(before, now) == ["br-e6e1b6c68bb9", "veth12c1b82"]
