"""One number for velagen and the addon, in metadata.yaml alone."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from velagen.lab.images import recipes

ROOT = Path(__file__).parents[2]
VERSION = yaml.safe_load((ROOT / "metadata.yaml").read_text())["version"]


def test_a_tagged_commit_has_the_tags_version() -> None:
    listed = subprocess.run(
        ["git", "tag", "--points-at", "HEAD", "v*"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    # Not a repository, such as an unpacked sdist: no tags.
    assert set(listed.stdout.split()) <= {f"v{VERSION}"}


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]
    assert recipes()["gpusim"].references == (f"velagen.local/gpusim:{VERSION}",)


@pytest.mark.slow
@pytest.mark.seconds(15)
def test_an_sdist_builds_without_git_or_tags(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True, env={"PATH": ""})
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"velagen-{VERSION}-")
    with zipfile.ZipFile(wheel) as archive:
        assert f"version: {VERSION}" in archive.read("velagen/bundled/metadata.yaml").decode()
