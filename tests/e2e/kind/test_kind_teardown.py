"""Several nodes, and nothing left behind: labs of their own, without the layers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.kind.test_kind_cluster import finished, pod

from velagen.errors import VelagenError
from velagen.lab import wait_until
from velagen.lab.kind import KindLab, KindOptions, engine
from velagen.lab.kind.engine import Engine
from velagen.lab.process import marked
from velagen.tools.report import Reporter

pytestmark = [pytest.mark.usefixtures("engine_possible"), pytest.mark.slow, pytest.mark.engine]


@pytest.fixture(autouse=True)
def no_named_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of the session's cluster is the lab's own, and not one that the environment names."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)


def machine() -> dict[str, Any]:
    """What a cluster could leave on this machine."""
    found: dict[str, Any] = {"interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir())}
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    found["mounts"] = sorted(set(mounts))
    if iptables := shutil.which("iptables", path="/usr/sbin:/sbin:/usr/bin"):
        for table in ("filter", "nat"):
            said = subprocess.run([iptables, "-w", "-t", table, "-S"], capture_output=True, text=True, check=False)
            found[table] = sorted(said.stdout.splitlines())
    found["forward"] = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    return found


def on(node: str, thing: dict[str, Any]) -> dict[str, Any]:
    return {**thing, "spec": {**thing["spec"], "nodeName": node}}


def test_pods_reach_each_other_across_nodes_and_nothing_stays_behind(tmp_path: Path) -> None:
    before = machine()
    lab = KindLab("pair", folder=tmp_path / "lab", options=KindOptions(nodes=2, layers=()))
    try:
        lab.up()
        state = lab._need()
        # Of the same name, from another folder: refused, and the first one stays.
        with pytest.raises(VelagenError, match="is there already"):
            KindLab("pair", folder=tmp_path / "other", options=KindOptions(layers=())).up()
        assert lab.running
        lab.load(["python"])
        first, second = sorted(node["metadata"]["name"] for node in lab.api.list("v1", "Node"))
        server = pod("server", "default", "sh", "-c", "cd /tmp && echo across > x && exec python -m http.server 8000")
        lab.api.apply(on(first, server))

        def running() -> str:
            status = (lab.api.get("v1", "Pod", "server", "default") or {}).get("status", {})
            return str(status.get("podIP", "")) if status.get("phase") == "Running" else ""

        address = wait_until(running, what="the server", timeout=60, every=0.5)
        code = (
            "import time, urllib.request\n"
            "for _ in range(50):\n"
            f"    try: print(urllib.request.urlopen('http://{address}:8000/x', timeout=2).read().decode()); break\n"
            "    except OSError: time.sleep(0.3)\n"
        )
        lab.api.apply(on(second, pod("client", "default", "python", "-c", code)))
        assert finished(lab, "default", "client").strip() == "across"
    finally:
        assert lab.down()
    assert not lab.folder.exists()
    process = state.engine.process
    # Where another lab is in the same engine, the engine and its network stay.
    if process is not None and not process.alive:
        assert not marked(state.engine.mark)
        assert not Path(str(state.engine.folder)).exists()
        assert machine() == before
    assert not lab.down()


@pytest.mark.seconds(30)
def test_an_engine_that_was_killed_goes_on_for_the_next_lab_and_is_cleared_up_after(tmp_path: Path) -> None:
    """The engine alone, without a cluster: what it has changed on the machine is put back by whoever leaves last."""
    if Engine().answers() or engine._read() is not None:
        pytest.skip("an engine runs already")
    before = machine()
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    found = engine.find(Reporter(), first)
    try:
        first.touch()
        process = found.process
        assert process is not None
        assert process.pid is not None
        changed = machine()
        assert changed["filter"] != before["filter"]
        found.run("network", "create", "kind")  # a bridge and its rules, as kind makes them
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not process.alive, what="the engine's end", timeout=10)
        again = engine.find(Reporter(), second)
        second.touch()
        assert again.mark == found.mark
        assert again.run("network", "inspect", "kind").returncode == 0
        found.release(first)
        assert again.answers()
        again.release(second)
    finally:
        for path in (first, second):
            path.unlink(missing_ok=True)
            found.release(path)
    assert not marked(found.mark)
    assert not Path(str(found.folder)).exists()
    assert machine() == before


def test_a_lab_whose_engine_was_killed_goes_away_all_the_same(tmp_path: Path) -> None:
    lab = KindLab("killed", folder=tmp_path / "lab", options=KindOptions(layers=()))
    before = machine()
    try:
        lab.up()
        state = lab._need()
        process = state.engine.process
        if process is None:
            pytest.skip("the engine is not ours to kill")
        if len(state.engine.run("ps", "--quiet").stdout.split()) > 1:
            pytest.skip("another lab is in the engine")
        assert process.pid is not None
        subprocess.run(["kill", "-KILL", str(process.pid)], check=True)
        wait_until(lambda: not process.alive, what="the engine's end", timeout=10)
        assert not lab.running
    finally:
        assert lab.down()
    assert not marked(state.engine.mark)
    assert machine() == before
