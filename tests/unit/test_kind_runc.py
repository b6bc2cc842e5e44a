"""runc-wrap: the real program, before a runc that writes down what it was given."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from velagen.lab.kind.capability import lacking
from velagen.tools import tool

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")

SPEC = {
    "ociVersion": "1.0.2",
    "process": {
        "args": ["sleep"],
        "capabilities": {
            "bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_SYS_TIME"],
            "effective": ["CAP_SYS_RESOURCE"],
            "ambient": [],
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1048576}],
        "oomScoreAdj": -998,
    },
    "linux": {"resources": {"memory": {"limit": 9223372036854771712}}},
}


@pytest.fixture(scope="module")
def wrapper() -> Path:
    return tool("runc-wrap")


@pytest.fixture
def run(wrapper: Path, tmp_path: Path) -> Any:
    fake = tmp_path / "bin" / "runc"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nfor a in "$@"; do echo "$a"; done > {tmp_path}/given\n')
    fake.chmod(0o755)

    def run(*arguments: str) -> list[str]:
        environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
        subprocess.run([wrapper, *arguments], env=environment, check=True, cwd=tmp_path)
        return (tmp_path / "given").read_text().split("\n")[:-1]

    return run


def bundle(folder: Path, process: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SPEC if process is None else {**SPEC, "process": process}))
    return folder


def expected() -> dict[str, Any]:
    """What the specification must be after a wrapper on this machine."""
    gone = {f"CAP_{name}" for name in lacking()}
    spec = json.loads(json.dumps(SPEC))
    process = spec["process"]
    for key, value in process["capabilities"].items():
        process["capabilities"][key] = [name for name in value if name not in gone]
    if "CAP_SYS_RESOURCE" in gone:
        del process["rlimits"]
        process["oomScoreAdj"] = int(Path("/proc/self/oom_score_adj").read_text())
    return dict(spec)


def test_create_rewrites_the_bundle_and_passes_every_argument_on(run: Any, tmp_path: Path) -> None:
    place = bundle(tmp_path / "bundle")
    arguments = ["--root", "/x", "--log", "create", "create", "--bundle", str(place), "--pid-file", "/p", "id"]
    assert run(*arguments) == arguments
    assert json.loads((place / "config.json").read_text()) == expected()


def test_a_number_beyond_a_float_survives(run: Any, tmp_path: Path) -> None:
    place = bundle(tmp_path / "bundle")
    run("run", f"--bundle={place}", "id")
    assert "9223372036854771712" in (place / "config.json").read_text()


def test_the_bundle_is_the_working_folder_where_none_is_named(run: Any, tmp_path: Path) -> None:
    bundle(tmp_path)
    run("create", "id")
    assert json.loads((tmp_path / "config.json").read_text()) == expected()


def test_exec_rewrites_the_process_file(run: Any, tmp_path: Path) -> None:
    process = tmp_path / "process.json"
    process.write_text(json.dumps(SPEC["process"]))
    run("exec", "--process", str(process), "id")
    assert json.loads(process.read_text()) == expected()["process"]


def test_other_commands_touch_nothing(run: Any, tmp_path: Path) -> None:
    place = bundle(tmp_path / "bundle")
    before = (place / "config.json").read_text()
    assert run("delete", "--force", "--bundle", str(place)) == ["delete", "--force", "--bundle", str(place)]
    assert (place / "config.json").read_text() == before


def test_a_bundle_without_a_specification_is_said_so(wrapper: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [wrapper, "create", "--bundle", str(tmp_path), "id"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    if lacking():
        assert "config.json" in done.stderr
