"""The gates in front of the tests in .ci/run and in pre-commit, each made to fail in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.seconds(30)]

ROOT = Path(__file__).parents[2]
#: All that stands before the tests, as make prints it.
GATES = (
    "ruff check",
    "ruff format --check",
    "mypy",
    "lint-imports --no-cache",
    "velagen build --check",
    "velagen check",
)
REACHED = "reached: make"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it stands, with this environment's programs."""
    folder = tmp_path_factory.mktemp("gates") / "copy"
    # mypy's cache comes along: it holds for files that have not changed.
    left = shutil.ignore_patterns(".git", ".venv", "build", "dist", "__pycache__", ".pytest_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=left, symlinks=True)
    # The gate is what is tried here; that each example passes it, make check and other tests say.
    for example in (folder / "examples").glob("*.yaml"):
        if example.name != "sentiment.yaml":
            example.unlink()
    venv = folder / ".venv"
    venv.mkdir()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    (venv / ".ready").touch()  # newer than the lock: make installs nothing
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, copy: Path) -> dict[str, str]:
    """That of a run of CI in which the tests have no time, and all that Debian has to bring is there."""
    programs = tmp_path_factory.mktemp("programs")
    make = shutil.which("make")
    assert make is not None
    for name, script in (
        (
            "make",
            f'case "$1" in test | kind) echo "{REACHED} $1"; echo "test_$1: it holds" >> "$VELAGEN_TEST_UNCHECKED" ;;'
            f' *) exec {make} "$@" ;; esac',
        ),
        ("dpkg-query", 'echo "install ok installed"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    # A hook of git that runs the tests names its own repository to every git below it.
    mine = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**mine, "PATH": f"{programs}:{mine['PATH']}", "PYTHONPATH": str(copy / "generator")}


def ci(copy: Path, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        ["./.ci/run"],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    before = path.read_text(encoding="utf-8")
    assert old in before
    path.write_text(before.replace(old, new, 1), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


def test_all_gates_are_passed_in_order_before_the_tests(copy: Path, environment: dict[str, str]) -> None:
    status, output = ci(copy, environment)
    assert status == 0, output
    wanted = [f".venv/bin/{gate}" for gate in GATES] + [f"{REACHED} test", f"{REACHED} kind"]
    printed = [line for line in output.splitlines() if line.startswith((".venv/bin/", REACHED))]
    assert printed == wanted
    # All tests say that they had no time: the last line is about all of them.
    assert output.splitlines()[-1] == "unchecked for want of time: test_test: it holds, test_kind: it holds"


@pytest.mark.parametrize(
    ("file", "old", "new", "gate", "said"),
    [
        ("tests/turns.py", "import time\n", "import math\nimport time\n", "ruff check", "F401"),
        ("tests/turns.py", "SEATS = 2", "SEATS  = 2", "ruff format --check", "File would be reformatted"),
        ("tests/turns.py", "SEATS = 2", "SEATS: str = 2", "mypy", "tests/turns.py:13: error"),
        ("benchmarks/standing.py", "\n\n\n", '\n\nWRONG: int = ""\n\n\n', "mypy", "benchmarks/standing.py"),
        (
            "generator/velagen/lab/vela.py",
            "from velagen.errors",
            "from velagen.cue import syntax as syntax\nfrom velagen.errors",
            "lint-imports --no-cache",
            "velagen.lab.vela -> velagen.cue.syntax",
        ),
        ("addon/kfserving/definitions/canary.cue", "canary", "canari", "velagen build --check", "is stale"),
        ("examples/sentiment.yaml", "modelUri", "modelUrl", "velagen check", "modelUrl"),
    ],
)
def test_each_gate_fails(
    copy: Path, environment: dict[str, str], file: str, old: str, new: str, gate: str, said: str
) -> None:
    with edited(copy / file, old, new):
        status, output = ci(copy, environment)
    assert status != 0
    assert said in output
    assert REACHED not in output, "the tests are not reached"
    assert [line for line in output.splitlines() if line.startswith(".venv/bin/")][-1] == f".venv/bin/{gate}"


def test_pre_commit_has_the_same_gates(copy: Path, environment: dict[str, str], tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert hooks == re.findall(r"^(?:\w+=\S+ )?(make (?!test|kind).*)$", run, re.MULTILINE)
    environment = {**environment, "PRE_COMMIT_HOME": str(tmp_path)}
    subprocess.run(["git", "init", "--quiet"], cwd=copy, env=environment, check=True)
    subprocess.run(["git", "add", "--all"], cwd=copy, env=environment, check=True)
    pre_commit = [str(Path(sys.executable).with_name("pre-commit")), "run", "--all-files"]
    with edited(copy / "tests/turns.py", "import time\n", "import math\nimport time\n"):
        done = subprocess.run(pre_commit, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "F401" in done.stdout
