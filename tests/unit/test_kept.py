"""A check of files that were checked before asks nothing again; a file that changed is looked at."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from velagen import answers
from velagen.check.kept import Kept
from velagen.cli import main
from velagen.definition.catalog import Known
from velagen.errors import Place, Problem
from velagen.kubevela import VERSIONS
from velagen.project import Project

MINI = Path(__file__).parent / "fixtures/mini"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project of its own, and nothing kept of it."""
    monkeypatch.setattr(answers, "cache_dir", lambda: tmp_path / "cache")
    shutil.copytree(MINI, tmp_path / "mini")
    return Project.find(tmp_path / "mini")


def check(project: Project, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["check", "--no-render", "--project", str(project.root), *options])
    return done.exit_code, done.output


def test_definitions_are_built_once_for_the_same_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check(project)
    with monkeypatch.context() as patch:
        patch.setattr("velagen.definition.build.build_definitions", None)
        assert check(project) == first
    schema = sorted(project.schemas.glob("*.json"))[0]
    schema.write_text(schema.read_text().replace('"title"', '"titel"', 1) + "\n")
    with monkeypatch.context() as patch:
        patch.setattr("velagen.definition.build.build_definitions", None)
        code, said = check(project)
    assert (code, "failed where it should not" in said) == (1, True)


def test_what_is_kept_says_the_same(project: Project) -> None:
    from velagen.definition.build import build_definitions

    answers = Kept(project, VERSIONS)
    assert answers.definitions() is None
    own = [one.known() for one in build_definitions(project)]
    answers.keep_definitions(own)
    again = answers.definitions()
    assert again is not None

    def told(one: Known) -> object:
        document = one.schema.document if one.schema else None
        return (one.kind, one.name, document, one.workload, one.applies_to, one.conflicts_with, one.cue, one.own)

    assert [told(one) for one in again] == [told(one) for one in own]


def test_a_module_from_elsewhere_that_changes_is_another_question(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's own package lies outside of the project, and the definitions are made of it all the same."""
    (tmp_path / "lib").mkdir()
    team = tmp_path / "lib" / "velagen_test_team.py"
    team.write_text('NAME = "s"\n')
    monkeypatch.syspath_prepend(tmp_path / "lib")
    server = project.root / "definitions" / "server.py"
    server.write_text(f"import velagen_test_team\n{server.read_text()}")
    try:
        assert check(project)[0] == 0
        assert Kept(project, VERSIONS).definitions() is not None
        Kept(project, VERSIONS).keep_verdict([])
        assert Kept(project, VERSIONS).verdict() == []
        team.write_text('NAME = "other"\n')
        assert Kept(project, VERSIONS).definitions() is None
        assert Kept(project, VERSIONS).verdict() is None
    finally:
        sys.modules.pop("velagen_test_team", None)


def build(project: Project, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["build", "--project", str(project.root), *options])
    return done.exit_code, done.output


def test_an_addon_of_the_same_sources_is_built_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(project)[0] == 0
    files = {path: path.read_bytes() for path in project.addon.rglob("*") if path.is_file()}
    some = project.addon / "metadata.yaml"
    with monkeypatch.context() as patch:
        patch.setattr("velagen.addon.write.render_addon", None)
        assert "unchanged" in build(project)[1]
        # What was built is compared with the folder, whatever has become of that.
        some.write_text("other")
        assert build(project, "--check")[0] == 1
        assert "written" in build(project)[1]
    assert {path: path.read_bytes() for path in files} == files
    definition = project.definitions / "server.py"
    definition.write_text(definition.read_text() + "\nWRONG = parameter.no_such_thing +\n")
    assert build(project)[0] == 1


@pytest.mark.parametrize("folder", ["views", "resources"])
def test_a_file_that_an_addon_copies_is_one_of_its_sources(project: Project, folder: str) -> None:
    assert build(project)[0] == 0
    (project.root / folder).mkdir(exist_ok=True)
    (project.root / folder / "new.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\n")
    assert "written" in build(project)[1]
    assert (project.addon / folder / "new.yaml").is_file()


def test_warnings_of_a_build_are_told_each_time(project: Project) -> None:
    warning = Problem("odd", Place("a.json", 1, 2, "/x"), "write less", "warning")
    Kept(project, VERSIONS).keep_addon({"a": b"\x00"}, [warning], [])
    assert Kept(project, VERSIONS).addon() == ({"a": b"\x00"}, [warning])


def test_a_verdict_is_kept_by_content_and_an_error_is_not(project: Project, tmp_path: Path) -> None:
    warning = Problem("odd", Place("a.json", 1, 2, "/x"), "write less", "warning")
    Kept(project, VERSIONS).keep_verdict([warning])
    assert Kept(project, VERSIONS).verdict() == [warning]
    # Another KubeVela, or another file in the addon, is another question.
    assert Kept(project, VERSIONS[:1]).verdict() is None
    project.addon.mkdir(parents=True, exist_ok=True)
    (project.addon / "new.cue").write_text("x: 1")
    assert Kept(project, VERSIONS).verdict() is None
    Kept(project, VERSIONS).keep_verdict([Problem("wrong")])
    assert Kept(project, VERSIONS).verdict() is None
    for file in (tmp_path / "cache" / "checked").iterdir():
        file.write_text("{")
    assert Kept(project, VERSIONS).verdict() is None


def test_a_cache_that_takes_nothing_is_no_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "cache_dir", lambda: Path("/dev/null"))
    assert check(project) == check(project)


def test_only_so_many_answers_are_kept(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MOST", 2)
    folder = tmp_path / "cache" / "checked"
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text("not velagen's")
    for number in range(4):
        (project.root / "README.md").write_text(str(number))
        Kept(project, VERSIONS).keep_verdict([])
    assert len(list(folder.glob("verdict-*.json"))) == 2
    assert (folder / "mine.json").exists()


def test_what_a_killed_writer_left_goes_after_an_hour(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "checked"
    folder.mkdir(parents=True)
    for name, age in ((".writing-old", 3700), (".writing-now", 10), (".other", 9999)):
        (folder / name).write_text("{")
        os.utime(folder / name, (time.time() - age,) * 2)
    Kept(project, VERSIONS).keep_verdict([])
    assert {one.name for one in folder.iterdir() if one.name.startswith(".")} == {".writing-now", ".other"}


WRONG = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: a}
spec: {components: [{name: a, type: x}]}
"""


def test_outside_of_a_project_the_addon_that_comes_along_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    text = (repository / "examples" / "sentiment.yaml").read_text()
    (tmp_path / "app.yaml").write_text(text.replace("minReplicas", "minReplica"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["check", "--no-render", "app.yaml"])
    assert done.exit_code == 1
    assert "no project here: against the addon kfserving" in done.output
    # The words are those of the JSON Schema: KubeVela's rendering alone would not know what was meant.
    assert "did you mean minReplicas?" in done.output
    assert CliRunner().invoke(main, ["check", "--no-render"]).exit_code == 1


def test_watch_checks_again_after_a_save_and_ends_when_asked(tmp_path: Path, repository: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(WRONG)
    command = [sys.executable, "-m", "velagen.cli", "check", "--watch", "--no-render", "--apps-only", str(file)]
    # Where the tests run in the background of a shell, an interrupt would be ignored here too.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=heard) as watching:
        assert watching.stderr is not None
        said: list[str] = []
        for line in watching.stderr:
            said.append(line)
            if "waiting for a change" in line:
                if "1 file checked: no errors\n" in said:
                    watching.send_signal(signal.SIGINT)
                else:
                    file.write_text((repository / "examples" / "sentiment.yaml").read_text())
        assert watching.wait(timeout=60) == 0
    text = "".join(said)
    assert text.index("there is no component type x") < text.index("no errors")
    assert "Traceback" not in text
