"""Where a registry answers: which images are built, from what, and that the engine is asked to."""

from __future__ import annotations

from pathlib import Path

import pytest

from velagen.errors import VelagenError
from velagen.lab.images import identify, recipes, write_context
from velagen.lab.kind import KindLab, KindOptions
from velagen.lab.kind.engine import Engine
from velagen.lab.kind.state import KindState


def written(name: str, folder: Path) -> list[str]:
    write_context(name, folder)
    return (folder / "Dockerfile").read_text().splitlines()


def test_a_recipe_becomes_the_same_image_by_the_engines_own_means(tmp_path: Path) -> None:
    lines = written("object-store", tmp_path)
    assert lines[0] == "FROM docker.io/library/debian:bookworm-slim"
    assert any(line.startswith("RUN apt-get update") and " libpython3.11 " in line for line in lines)
    (pip,) = [line for line in lines if " pip install " in line]
    assert "--target=/usr/local/lib/python3.11/dist-packages" in pip
    assert "--require-hashes" in pip
    assert "moto==5.2.5 --hash=sha256:" in (tmp_path / "object-store.txt").read_text()
    assert lines[-2:] == ["USER 1000", 'ENTRYPOINT ["python", "-m", "moto.server", "-H", "0.0.0.0", "-p", "5000"]']
    # The user is set after everything that only root may do.
    assert not any(line.startswith("RUN") for line in lines[lines.index("USER 1000") :])


def test_every_image_of_our_own_can_be_built(tmp_path: Path) -> None:
    ours = [recipe.name for recipe in recipes().images.values() if recipe.ours]
    assert {"python", "object-store"} <= set(ours)
    for name in ours:
        folder = tmp_path / name
        folder.mkdir()
        for line in written(name, folder):
            if line.startswith("COPY"):
                assert (folder / line.split()[1]).exists()


def test_an_image_without_an_operating_system_is_not_for_the_engine(tmp_path: Path) -> None:
    with pytest.raises(VelagenError, match="no operating system"):
        write_context("pause", tmp_path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What a docker and a kind that know nothing yet are called with."""
    log = tmp_path / "calls"
    programs = tmp_path / "bin"
    programs.mkdir()
    answers = 'case "$1 $2" in "image inspect") cat "$HAS";; "manifest inspect") echo "$MANIFEST";; esac'
    for name, said in (("docker", answers), ("kind", "")):
        path = programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{said}\n')
        path.chmod(0o755)
    (tmp_path / "has").write_text("\n")
    log.touch()
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("HAS", str(tmp_path / "has"))
    monkeypatch.setattr("velagen.lab.kind.cluster.tool", lambda name: programs / name)
    lab = KindLab("x", folder=tmp_path / "lab")
    lab.folder.mkdir()
    KindState("velagen-x", KindOptions(), Engine(), {}, assembled=False).write(lab.folder / "state.json")
    return [str(log), str(tmp_path / "has"), str(lab.folder)]


@pytest.mark.parametrize(("manifest", "assembled"), [('{"schemaVersion": 2}', False), ("denied", True)])
def test_a_registry_that_answers_is_the_first_road(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, manifest: str, assembled: bool
) -> None:
    log, _, folder = calls
    monkeypatch.setenv("MANIFEST", manifest)
    monkeypatch.setattr("velagen.lab.kind.cluster.why_not", lambda: "")
    assert KindLab("x", folder=Path(folder))._assemble(Engine(), KindOptions()) is assembled
    assert Path(log).read_text() == "docker manifest inspect kindest/node:v1.34.0\n"


def test_nodes_pull_upstreams_images_and_get_ours_built(calls: list[str]) -> None:
    log, _, folder = calls
    KindLab("x", folder=Path(folder)).load(["contour", "object-store"])
    said = Path(log).read_text().splitlines()
    assert not any("contour" in line for line in said)
    (build,) = [line for line in said if line.startswith("docker build")]
    key = recipes().key("object-store", identify)
    assert f"--label=velagen.recipe={key} --tag=velagen.local/object-store:5" in build
    assert said[-1] == "kind load docker-image velagen.local/object-store:5 --name velagen-x"


def test_an_image_of_the_same_recipe_is_not_built_again(calls: list[str]) -> None:
    log, has, folder = calls
    Path(has).write_text(recipes().key("object-store", identify) + "\n")
    KindLab("x", folder=Path(folder)).load(["object-store"])
    said = Path(log).read_text()
    assert "docker build" not in said
    assert "kind load docker-image" in said
