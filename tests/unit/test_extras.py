"""What an installation without extras can do, and what it says where it can't."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from velagen.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "generator/velagen"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Run elsewhere, or by maintainers, who have the extra dev: paths below the package.
ELSEWHERE = (
    "lab/images/servers/",
    "lab/kind/store.py",
    "lab/models/sentiment/model.py",
    "lab/models/sentiment/train.py",
    "monitoring/dashboards/parts.py",
    "gpusim/proto/regenerate.py",
    "model/proto/regenerate.py",
)
#: Of the extras, none of which may be met on the way from a schema to a packed addon.
HEAVY = ("grpc", "google.protobuf", "kubernetes", "cryptography", "prometheus_client", "boto3", "backports")


def _named(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


#: Module -> the requirement that brings it, where the names differ, or where it comes with another package.
BROUGHT_BY = {
    "backports": "backports-zstd",
    "botocore": "boto3",
    "google": "protobuf",
    "grpc": "grpcio",
    "jsonschema_specifications": "jsonschema",
    "re2": "google-re2",
    "urllib3": "requests",
    "websocket": "kubernetes",
    "yaml": "pyyaml",
}


def test_each_import_is_a_dependency_or_in_the_extra_of_its_package() -> None:
    core = _named(PROJECT["dependencies"])
    extras = {name: _named(packages) for name, packages in PROJECT["optional-dependencies"].items()}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        shown = path.relative_to(PACKAGE).as_posix()
        if shown.startswith(ELSEWHERE):
            continue
        allowed = set(core)
        if extra := EXTRAS.get(shown.partition("/")[0]):
            allowed |= extras[extra]
        if shown == "model/push.py":
            allowed |= extras["s3"]
        for module in _imports(path):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top == "velagen":
                continue
            if canonicalize_name(BROUGHT_BY.get(top, top)) not in allowed:
                wrong.append(f"{shown}: {module}")
    assert not wrong


def test_the_extra_all_has_every_other() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    assert Requirement(everything).extras == set(extras) - {"all", "dev"}


def test_the_lock_has_the_markers_of_extras() -> None:
    """pip-compile leaves them out: with such a lock nothing could be installed on another Python."""
    lock = (ROOT / "requirements-dev.lock").read_text()
    asked = [Requirement(one) for packages in PROJECT["optional-dependencies"].values() for one in packages]
    for one in asked:
        if one.marker:
            pinned = rf"{re.escape(canonicalize_name(one.name))}==\S+ ; {re.escape(str(one.marker))} "
            assert re.search(f"^{pinned}", lock, re.MULTILINE)


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """An environment in which no package of an extra can be imported."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
""")
    return {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT / 'generator'}"}


def _velagen(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "velagen.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["lab", "up", "--name", "absent"], "lab"),
        (["gpusim", "run", "--no-cluster", "--beside-real-gpu"], "gpusim"),
        (["top"], "metrics"),
        (["report", "app", "-o", "-"], "metrics"),
        (["model", "push", "--unchecked", "folder", "s3://models/1"], "s3"),
        (["model", "push", "--unchecked", "folder", "pvc://claim/1"], "model"),
        (["model", "check", "triton"], "model"),
    ],
)
def test_a_command_says_which_extra_it_needs(
    without: dict[str, str], tmp_path: Path, arguments: list[str], extra: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/model.json").write_text("{}")
    (tmp_path / "triton/m/1").mkdir(parents=True)
    (tmp_path / "triton/m/config.pbtxt").write_text('backend: "python"')
    without["VELAGEN_CACHE"] = str(tmp_path / "cache")
    ended = _velagen(without, *arguments, cwd=tmp_path)
    assert ended.returncode == 1
    assert "which is not installed" in ended.stderr
    assert f"pip install 'velagen[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["lab", "--help"],
        ["gpu", "config", "--fraction", "0.5"],
        ["gpusim", "show"],
        ["model", "check", "mlflow"],
        ["metrics", "rules"],
    ],
)
def test_what_needs_no_extra_does_without(without: dict[str, str], tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / "model.json").write_text('{"learner": {"objective": {"name": "reg:squarederror"}}, "version": [2, 1, 4]}')
    ended = _velagen(without, *arguments, cwd=tmp_path)
    assert "not installed" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout


def test_an_addon_is_packed_without_any_extra(without: dict[str, str], tmp_path: Path) -> None:
    ended = _velagen(without, "package", "--project", str(ROOT), "--out", str(tmp_path / "dist"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "dist").glob("kfserving-*.tgz"))


def _python(version: str) -> str:
    """An interpreter of a version, or the test is skipped: this one, one on PATH, one that pyenv has."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    kept = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}"))
    for found in (shutil.which(f"python{version}"), *map(str, kept)):
        if found and subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return found
    pytest.skip(f"Python {version} is not installed")


@pytest.mark.slow
@pytest.mark.seconds(60)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_clean_environment_builds_checks_and_packs(tmp_path: Path, version: str) -> None:
    """From the wheel, with what it asks for and nothing else, on each Python that is supported."""
    python = _python(version)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("velagen-*.whl")
    subprocess.run([python, "-m", "venv", tmp_path / "env"], check=True, timeout=120)
    binaries = tmp_path / "env/bin"
    # By the lock, as everything else here is installed.
    subprocess.run(
        [binaries / "pip", "install", "--quiet", "--constraint", _constraints(tmp_path), str(wheel)],
        check=True,
        timeout=300,
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    listed = subprocess.run([binaries / "pip", "list", "--format=freeze"], text=True, capture_output=True, check=True)
    there = {canonicalize_name(line.partition("==")[0]) for line in listed.stdout.splitlines()}
    assert not there & _named(
        [
            one
            for name, packages in PROJECT["optional-dependencies"].items()
            if name not in {"all", "dev"}
            for one in packages
        ]
    )
    project = tmp_path / "project"
    shutil.copytree(ROOT / "tests/unit/fixtures/mini", project)
    for arguments in (["build"], ["check"], ["package"]):
        command = [str(binaries / "velagen"), *arguments]
        ended = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True, timeout=300)
        assert ended.returncode == 0, (arguments, ended.stderr)


def _constraints(folder: Path) -> Path:
    """The lock's versions, without the hashes, which would be asked of the wheel too."""
    lock = (ROOT / "requirements-dev.lock").read_text()
    lines = [line.rstrip("\\ ") for line in lock.splitlines() if line[:1].isalnum()]
    path = folder / "constraints.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
