"""Who is in the engine that labs share, and when it ends: real processes, files and locks.

Docker alone is played: `docker` and `dockerd` are small programs that talk over the engine's socket, and `iptables`
keeps its rules in a file, so that no test touches this machine's firewall.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from velagen.errors import VelagenError
from velagen.lab import wait_until
from velagen.lab.kind import KindLab, KindOptions, engine
from velagen.lab.kind import machine as machines
from velagen.lab.kind.engine import Engine, find
from velagen.lab.kind.state import KindState
from velagen.lab.process import marked, stop
from velagen.tools.report import Reporter

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

#: Answers one line for each connection: its id, which outlives it as Docker's does, then the containers.
DOCKERD = """
import os, pathlib, socket, subprocess, sys
options = dict(option.partition("=")[::2] for option in sys.argv[1:])
data = pathlib.Path(options["--data-root"])
data.mkdir(exist_ok=True)
where = options["--host"].removeprefix("unix://")
if os.path.exists(where):
    os.unlink(where)
pathlib.Path(options["--pidfile"]).write_text(str(os.getpid()))
if not (data / "id").exists():
    (data / "id").write_text(str(os.getpid()))
for arguments in (["-N", "DOCKER"], ["-A", "FORWARD", "-j", "DOCKER"], ["-P", "FORWARD", "DROP"]):
    subprocess.run(["iptables", "--wait", "-t", "filter", *arguments], check=True)
with socket.socket(socket.AF_UNIX) as server:
    server.bind(where)
    server.listen()
    while True:
        client, _ = server.accept()
        with client:
            containers = data / "containers"
            left = containers.read_text() if containers.exists() else ""
            client.sendall(f"{(data / 'id').read_text()}\\n{left}".encode())
"""
DOCKER = """
import os, socket, sys
where = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(where or "/nowhere")
except OSError as error:
    sys.exit(f"Cannot connect to the Docker daemon: {error}")
id_, *left = client.makefile().read().splitlines()
print(id_ if sys.argv[1] in ("info", "version") else "\\n".join(left) if sys.argv[1] == "ps" else "")
"""
IPTABLES = """
import pathlib, sys
rules = pathlib.Path(sys.argv[0]).with_name("rules")
lines = rules.read_text().splitlines()
_, _, table, verb, *rest = sys.argv[1:]
text = " ".join(rest)
if table != "filter":
    lines = []
elif verb == "-S":
    print("\\n".join(lines))
elif verb in ("-N", "-A") and f"{verb} {text}" not in lines:
    lines.append(f"{verb} {text}")
elif verb == "-D":
    lines.remove(f"-A {text}")
elif verb in ("-F", "-X"):
    lines = [line for line in lines if line.split()[:2] != [{"-F": "-A", "-X": "-N"}[verb], text]]
elif verb == "-P":
    lines = [f"-P {text}" if line.startswith(f"-P {rest[0]} ") else line for line in lines]
if table == "filter":
    rules.write_text("".join(f"{line}\\n" for line in lines))
"""
RULES = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-N MINE\n-A FORWARD -j MINE\n"


@dataclass
class Machine:
    """A machine with Docker's programs, and the labs on it."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def rules(self) -> str:
        return (self.folder / "bin" / "rules").read_text()

    def record(self) -> dict[str, object]:
        return json.loads((self.folder / "cache" / "docker.json").read_text())  # type: ignore[no-any-return]

    def lab(self, name: str) -> Path:
        """The state file of a lab, which is not written yet."""
        (self.folder / name).mkdir()
        return self.folder / name / "state.json"

    def starting(self, name: str) -> tuple[subprocess.Popen[str], Path]:
        """A lab that another process starts: it has the engine, and has written nothing down."""
        state = self.lab(name)
        code = f"""
            import sys
            from pathlib import Path
            from velagen.lab.kind import engine, machine
            from velagen.tools.report import Reporter
            machine.daemons = lambda: []
            machine._FORWARD = Path("/nowhere")
            machine._LINKS = Path("/nowhere")
            print(engine.find(Reporter(), Path({str(state)!r})).host, flush=True)
            sys.stdin.read()
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process, state


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vel-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def machine(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    bin_ = short / "bin"
    bin_.mkdir()
    (bin_ / "rules").write_text(RULES)
    for name, text in (("dockerd", DOCKERD), ("docker", DOCKER), ("iptables", IPTABLES)):
        (bin_ / name).write_text(f"#!{sys.executable} -S\n{text}")
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setenv("VELAGEN_CACHE", str(short / "cache"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    # Engines of others on this machine do not concern these tests, and its network stays as it is.
    monkeypatch.setattr(machines, "daemons", list)
    monkeypatch.setattr(machines, "_FORWARD", short / "nowhere")
    monkeypatch.setattr(machines, "_LINKS", short / "nowhere")
    monkeypatch.setattr(engine, "cannot_start", lambda *_, **__: [])
    monkeypatch.setattr(engine, "lacking", tuple)
    monkeypatch.setattr(engine, "check_disk", lambda *_: None)
    place = Machine(short)
    marks = set()
    real = Engine._spawn

    def spawn(one: Engine) -> None:
        marks.add(one.mark)
        real(one)

    monkeypatch.setattr(Engine, "_spawn", spawn)
    yield place
    for process in place.started:
        process.kill()
        process.communicate()
    for mark in marks:
        stop(marked(mark), patience=0)


def test_an_engine_that_runs_is_taken_and_never_ended(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    own = machine.folder / "own"
    own.mkdir()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{own}/docker.sock")
    process = subprocess.Popen(engine.command(str(machine.folder / "bin" / "dockerd"), own, None), text=True)
    machine.started.append(process)
    wait_until(Engine().answers, what="the machine's own engine", timeout=20)
    state = machine.lab("a")
    found = find(Reporter(), state)
    assert not found.ours
    assert found.host == f"unix://{own}/docker.sock", "when it is taken down, DOCKER_HOST may name another"
    assert not (machine.folder / "cache").exists(), "it is nobody's to write down"
    found.release(state)
    found.revive()
    assert process.poll() is None


def test_a_lab_is_not_forgotten_while_its_engine_is_away(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    there, elsewhere = f"unix://{machine.folder}/away.sock", f"unix://{machine.folder}/other.sock"
    lab = KindLab("unit", folder=machine.folder / "lab", options=KindOptions(layers=()))
    lab._claim()
    KindState("velagen-unit", KindOptions(layers=()), Engine(there), {}, ready=True).write(lab.folder / "state.json")
    monkeypatch.setenv("DOCKER_HOST", elsewhere)
    with pytest.raises(
        VelagenError, match=f"engine at {there} does not answer, and kind cluster velagen-unit is in it"
    ):
        lab.down()
    assert lab.cluster == "velagen-unit"
    assert lab.folder.is_dir()


def test_a_second_daemon_is_never_started(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{machine.folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("VELAGEN_CACHE", str(machine.folder / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{machine.folder}/none.sock")
    own = machine.folder / "own"
    own.mkdir()
    process = subprocess.Popen(engine.command(str(machine.folder / "bin" / "dockerd"), own, None), text=True)
    machine.started.append(process)
    wait_until((own / "docker.sock").exists, what="a daemon nobody named", timeout=20)
    with pytest.raises(VelagenError, match=r"dockerd runs already \(pid \d+\) on a socket that DOCKER_HOST"):
        find(Reporter(), machine.lab("a"))


def alive(found: Engine) -> bool:
    return found.process is not None and found.process.alive


def test_the_last_lab_ends_the_engine_and_puts_the_firewall_back(machine: Machine) -> None:
    first, second = machine.lab("a"), machine.lab("b")
    found = find(Reporter(), first)
    first.touch()
    assert "DOCKER" in machine.rules()
    shared = find(Reporter(), second)
    assert shared == found
    second.touch()
    found.release(first)
    assert alive(found)
    assert shared.answers()
    shared.release(second)
    assert not alive(found)
    assert machine.rules() == RULES
    assert sorted(path.name for path in (machine.folder / "cache").iterdir()) == [".docker.lock"]


def test_an_engine_that_another_lab_is_starting_on_stays(machine: Machine) -> None:
    first = machine.lab("a")
    found = find(Reporter(), first)
    first.touch()
    starter, _ = machine.starting("b")
    assert starter.stdout is not None
    assert starter.stdout.readline().strip() == found.host
    found.release(first)
    assert alive(found), "another lab's process was about to make its cluster there"
    # It is killed before it could write anything down: it counts no more, and holds the engine up for nobody.
    starter.kill()
    starter.wait()
    third = machine.lab("c")
    find(Reporter(), third).release(third)
    assert not alive(found)
    assert machine.rules() == RULES


def test_two_that_start_at_once_get_one_engine(machine: Machine) -> None:
    found = find(Reporter(), machine.lab("z"))
    starters = [machine.starting(name)[0] for name in "abc"]
    hosts = {starter.stdout.readline().strip() for starter in starters if starter.stdout}
    assert hosts == {found.host}
    assert len(machine.record()["users"]) == 4  # type: ignore[arg-type]


def test_a_container_of_anybody_keeps_the_engine(machine: Machine) -> None:
    state = machine.lab("a")
    found = find(Reporter(), state)
    containers = Path(str(found.folder)) / "data" / "containers"
    containers.write_text("4f2a\n")
    found.release(state)
    assert alive(found)
    containers.unlink()
    other = machine.lab("b")
    find(Reporter(), other).release(other)
    assert not alive(found)


def test_a_lab_that_starts_after_the_engine_was_killed_goes_on_with_it(machine: Machine) -> None:
    first, second = machine.lab("a"), machine.lab("b")
    found = find(Reporter(), first)
    first.touch()
    assert found.process is not None
    assert found.process.pid is not None
    (Path(str(found.folder)) / "data" / "containers").write_text("4f2a\n")
    os.kill(found.process.pid, signal.SIGKILL)
    wait_until(lambda: not alive(found), what="the engine's end", timeout=10)
    again = find(Reporter(), second)
    second.touch()
    assert again.answers()
    assert (again.mark, again.folder, again.before) == (found.mark, found.folder, found.before)
    assert again.run("ps", "--all", "--quiet").stdout == "4f2a\n", "what was in it is there again"
    # The first lab has the killed process written down, and still ends nothing that the second one is in.
    found.release(first)
    assert alive(again)
    (Path(str(again.folder)) / "data" / "containers").unlink()
    again.release(second)
    assert not alive(again)
    assert machine.rules() == RULES, "as it was before the first, not as the killed one left it"


def test_an_engine_that_was_killed_and_can_not_start_is_not_taken_from_its_labs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machine.lab("a"), machine.lab("b")
    found = find(Reporter(), first)
    first.touch()
    stop([found.process] if found.process else [], patience=0)
    dockerd = machine.folder / "bin" / "dockerd"
    dockerd.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(VelagenError, match=f"was killed and does not start again; in it: {first}"):
        find(Reporter(), second)
    assert (Path(str(found.folder)) / "data").is_dir()
    # Where nobody is in it any more it makes room, and the firewall is as it was before.
    first.unlink()
    monkeypatch.setattr(engine._User, "there", lambda self: Path(self.lab).exists())
    with pytest.raises(VelagenError, match="dockerd does not answer"):
        find(Reporter(), second)
    assert not Path(str(found.folder)).exists()
    assert machine.rules() == RULES


def test_an_engine_that_hangs_is_not_ended_with_what_is_in_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine.lab("a")
    found = find(Reporter(), first)
    first.touch()
    monkeypatch.setattr(engine, "_PATIENCE", 0.1)
    monkeypatch.setattr(engine, "_ANSWER", 0.5)
    assert found.process is not None
    assert found.process.pid is not None
    os.kill(found.process.pid, signal.SIGSTOP)
    for act in (lambda: find(Reporter(), machine.lab("b")), found.revive):
        with pytest.raises(VelagenError, match=f"pid {found.process.pid}.* runs and does not answer"):
            act()
    assert alive(found)
    os.kill(found.process.pid, signal.SIGCONT)
    found.release(first)
    assert not alive(found)


def test_a_docker_host_that_names_the_labs_own_engine_makes_it_nobody_elses(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machine.lab("a"), machine.lab("b")
    found = find(Reporter(), first)
    monkeypatch.setenv("DOCKER_HOST", str(found.host))  # as `lab up --kind` says to
    shared = find(Reporter(), second)
    assert shared.ours
    found.release(first)
    assert alive(found)
    shared.release(second)
    assert not alive(found)


def test_the_engine_takes_no_folder_that_holds_something_else(machine: Machine) -> None:
    # VELAGEN_CACHE=/var/lib would make it Docker's own.
    theirs = machine.folder / "cache" / "docker" / "data" / "volumes"
    theirs.mkdir(parents=True)
    (theirs / "v").write_text("kept")
    with pytest.raises(VelagenError, match=r"is not empty(.|\n)*VELAGEN_CACHE"):
        find(Reporter(), machine.lab("a"))
    assert (theirs / "v").read_text() == "kept"
    # So with one that somebody wrote down as the labs'.
    Engine("unix:///x", Engine.from_data({"process": {"name": "d", "argv": []}}).process, str(theirs.parents[1]))._end()
    assert (theirs / "v").read_text() == "kept"


def test_a_folder_that_is_mounted_as_a_volume_is_not_emptied(machine: Machine) -> None:
    state = machine.lab("a")
    found = find(Reporter(), state)
    theirs, volume = machine.folder / "my data", Path(str(found.folder)) / "data" / "volumes" / "my data"
    theirs.mkdir()
    (theirs / "x").write_text("kept")
    volume.mkdir(parents=True)
    if subprocess.run(["mount", "--bind", theirs, volume], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user can't mount")
    stop([found.process] if found.process else [], patience=0)
    found.release(state)
    assert not Path(str(found.folder)).exists()
    assert (theirs / "x").read_text() == "kept"


def test_a_daemon_that_does_not_come_up_leaves_nothing_and_says_why(machine: Machine) -> None:
    (machine.folder / "bin" / "dockerd").write_text("#!/bin/sh\niptables --wait -t filter -N DOCKER\necho no overlay\n")
    with pytest.raises(VelagenError, match="does not answer; its last words:\n    no overlay"):
        find(Reporter(), machine.lab("a"))
    assert not (machine.folder / "cache" / "docker").exists()
    assert not (machine.folder / "cache" / "docker.json").exists()
    assert machine.rules() == RULES


def test_a_record_from_before_users_were_listed_is_read(machine: Machine) -> None:
    state = machine.lab("a")
    found = find(Reporter(), state)
    (machine.folder / "cache" / "docker.json").write_text(json.dumps(found.as_data()))
    assert find(Reporter(), state) == found
    found.release(state)
    assert not alive(found)


def test_a_lab_that_can_not_start_leaves_the_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = machine.folder / "bin" / "kind"
    kind.write_text("#!/bin/sh\necho velagen-unit\n")
    kind.chmod(0o755)
    monkeypatch.setattr("velagen.lab.kind.cluster.tool", lambda name, *_: machine.folder / "bin" / name)
    lab = KindLab("unit", folder=machine.folder / "lab", options=KindOptions(layers=()))
    with pytest.raises(VelagenError, match="is there already"):
        lab.up()
    assert not (machine.folder / "cache" / "docker.json").exists(), "no other lab was in it: it ended"
    assert machine.rules() == RULES
