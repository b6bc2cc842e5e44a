"""The addon folder: what is in it, and that it is there whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.unit.addon_template import assert_is_that_of_the_file, rendered

from velagen.addon.package import chart_metadata, pack
from velagen.addon.uischema import ui_schema
from velagen.addon.write import read_folder, render_addon, stale_diff, write_addon
from velagen.cli import main
from velagen.errors import VelagenError
from velagen.kubevela import VERSIONS
from velagen.project import Project

MINI = Path(__file__).parent / "fixtures/mini"


@pytest.fixture
def mini(tmp_path: Path) -> Project:
    root = tmp_path / "mini"
    shutil.copytree(MINI, root, ignore=shutil.ignore_patterns("__pycache__"))
    # Freshly built: only the golden test is to fail where the engine's CUE changed.
    write_addon(Project(root), _built())
    return Project(root)


@cache
def _built() -> dict[str, bytes]:
    return render_addon(Project(MINI))


def build(project: Project, *options: str) -> Result:
    return CliRunner().invoke(main, ["build", "--project", str(project.root), *options])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# ---------------------------------------------------------------- what is written


def test_the_committed_addon_is_what_a_build_writes() -> None:
    """Where CUE's text changed on purpose: velagen build --project tests/unit/fixtures/mini."""
    assert stale_diff(Project(MINI)) == ""


def test_every_file_of_an_addon_is_there(mini: Project) -> None:
    assert sorted(render_addon(mini)) == [
        "README.md",
        "definitions/freeze.cue",
        "definitions/scale.cue",
        "definitions/server.cue",
        "metadata.yaml",
        "parameter.cue",
        "schemas/component-uischema-server.yaml",
        "schemas/trait-uischema-freeze.yaml",
        "schemas/trait-uischema-scale.yaml",
        "template.cue",
    ]


def test_the_same_project_gives_the_same_bytes(mini: Project) -> None:
    assert render_addon(mini) == _built()


def test_metadata_keeps_its_meaning(mini: Project) -> None:
    written = yaml.safe_load(render_addon(mini)["metadata.yaml"])
    assert written == yaml.safe_load((MINI / "metadata.yaml").read_text(encoding="utf-8"))


def test_the_readme_has_a_row_for_each_property(mini: Project) -> None:
    text = render_addon(mini)["README.md"].decode()
    assert "| `modelUri` | string | required | Where the model lies. |" in text
    assert "| `logger.url` | string | required | An address \\| of a sink. |" in text
    assert '| `runtime` | `triton` or `sklearn` | `"triton"` | What serves it. |' in text
    assert "Needs KubeVela >=1.10.0, Kubernetes >=1.28.0, <1.36.0." in text


def test_a_projects_own_resources_are_carried(mini: Project) -> None:
    (mini.root / "resources").mkdir()
    (mini.root / "resources/note.yaml").write_text("kind: ConfigMap\n", encoding="utf-8")
    assert render_addon(mini)["resources/note.yaml"] == b"kind: ConfigMap\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("note.yaml", "a: 1\n---\nb: 2\n", "KubeVela takes one YAML document of a file, there are 2"),
        ("note.yaml", "a: [", "invalid YAML: "),
        ("note.txt", "a", "KubeVela reads no such file in resources/"),
    ],
)
def test_resources_kubevela_would_misread_are_refused(mini: Project, name: str, text: str, message: str) -> None:
    (mini.root / "resources").mkdir()
    (mini.root / "resources" / name).write_text(text, encoding="utf-8")
    with pytest.raises(VelagenError) as caught:
        render_addon(mini)
    (problem,) = caught.value.problems
    assert problem.message.startswith(message)
    assert problem.place.file == str(mini.root / "resources" / name)


# ---------------------------------------------------------------- build


def test_a_second_build_touches_nothing(mini: Project) -> None:
    assert not write_addon(mini)
    file = mini.addon / "metadata.yaml"
    before = file.stat().st_mtime_ns
    assert build(mini).exit_code == 0
    assert file.stat().st_mtime_ns == before


def test_what_the_last_build_wrote_and_this_one_does_not_goes(mini: Project) -> None:
    (mini.root / "resources").mkdir()
    for name in ("a.yaml", "b.yaml"):
        (mini.root / "resources" / name).write_text("a: 1\n", encoding="utf-8")
    assert write_addon(mini)
    assert {"resources/a.yaml", "resources/b.yaml"} < read_folder(mini.addon).keys()
    # A definition that has another name now, of which the last build's README tells, and files that are copied no more.
    readme = (mini.addon / "README.md").read_text(encoding="utf-8")
    (mini.addon / "README.md").write_text(readme.replace("## Components", "## Traits\n\n### old\n\n## Components"))
    for name in ("definitions/old.cue", "schemas/trait-uischema-old.yaml"):
        (mini.addon / name).write_text("x", encoding="utf-8")
    shutil.rmtree(mini.root / "resources")
    (mini.addon / "resources-old").mkdir()
    (mini.addon.parent / ".mini.velagen-crashed").mkdir()
    assert write_addon(mini)
    assert read_folder(mini.addon) == render_addon(mini)
    assert sorted(path.name for path in mini.addon.iterdir() if path.is_dir()) == ["definitions", "schemas"]
    assert [path.name for path in mini.addon.parent.iterdir()] == ["mini"]


@pytest.mark.parametrize(
    "names",
    [
        ["definitions/old.cue.bak", "Chart.yaml"],
        ["definitions/by-hand.cue"],
        ["schemas/component-uischema-by-hand.yaml", "notes/plan.md"],
        ["resources/by-hand.yaml"],
    ],
)
def test_a_file_that_no_build_wrote_is_refused_and_stays(mini: Project, names: list[str]) -> None:
    for name in names:
        (mini.addon / name).parent.mkdir(exist_ok=True)
        (mini.addon / name).write_text("by hand", encoding="utf-8")
    edit(mini.root / "metadata.yaml", "0.2.0", "0.3.0")
    before = read_folder(mini.addon)
    with pytest.raises(VelagenError) as caught:
        write_addon(Project(mini.root))
    assert {problem.place.file for problem in caught.value.problems} == {str(mini.addon / name) for name in names}
    assert read_folder(mini.addon) == before
    assert [path.name for path in mini.addon.parent.iterdir()] == ["mini"]


def test_an_addon_that_was_written_by_hand_is_not_taken_over(mini: Project) -> None:
    shutil.rmtree(mini.addon)
    (mini.addon / "definitions").mkdir(parents=True)
    for name in ("metadata.yaml", "definitions/mini.cue", "README.md"):
        (mini.addon / name).write_text("by hand", encoding="utf-8")
    before = read_folder(mini.addon)
    said = build(mini)
    assert said.exit_code == 1
    assert "no build wrote it" in said.output
    assert read_folder(mini.addon) == before


def test_a_folder_beside_the_addon_stays(mini: Project) -> None:
    for name in (".mini.old-backup", ".mini.new-ideas"):
        (mini.addon.parent / name).mkdir()
        (mini.addon.parent / name / "x").write_text("mine", encoding="utf-8")
    edit(mini.root / "metadata.yaml", "0.2.0", "0.3.0")
    assert write_addon(Project(mini.root))
    assert sorted(path.name for path in mini.addon.parent.iterdir()) == [".mini.new-ideas", ".mini.old-backup", "mini"]


def test_the_folder_is_readable_by_others(mini: Project) -> None:
    shutil.rmtree(mini.addon)
    write_addon(mini)
    assert mini.addon.stat().st_mode & 0o777 == 0o755


def test_a_failing_exchange_leaves_the_old_addon(mini: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_folder(mini.addon)
    edit(mini.root / "metadata.yaml", "0.2.0", "0.3.0")
    rename = Path.rename
    calls: list[Path] = []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OSError, match="disk full"):
        write_addon(Project(mini.root))
    assert read_folder(mini.addon) == before
    assert [path.name for path in mini.addon.parent.iterdir()] == ["mini"]


def test_check_writes_nothing_and_shows_a_diff(mini: Project) -> None:
    edit(mini.root / "schemas/scale.json", "The most pods.", "The most pods there may be.")
    (mini.addon / "Chart.yaml").write_text("x\n", encoding="utf-8")
    before = read_folder(mini.addon)
    result = build(mini, "--check")
    assert result.exit_code == 1
    assert "--- a/addon/mini/definitions/scale.cue\n+++ b/addon/mini/definitions/scale.cue\n" in result.output
    assert "+\t\t// +usage=The most pods there may be.\n" in result.output
    assert "--- a/addon/mini/Chart.yaml\n+++ /dev/null\n" in result.output
    assert read_folder(mini.addon) == before


def test_check_of_a_fresh_addon_is_silent_on_stdout(mini: Project) -> None:
    result = build(mini, "--check")
    assert (result.exit_code, result.stdout) == (0, "")


def test_check_where_there_is_no_addon_yet(mini: Project) -> None:
    shutil.rmtree(mini.root / "addon")
    result = build(mini, "--check")
    assert result.exit_code == 1
    assert "--- /dev/null\n+++ b/addon/mini/template.cue\n" in result.output
    assert not (mini.root / "addon").exists()


def _bad_json(root: Path) -> None:
    edit(root / "schemas/scale.json", '"title": "Scale",', '"title": "Scale"')


def _no_schema(root: Path) -> None:
    edit(root / "schemas/scale.json", '"type": "object"', '"type": "objekt"')


def _bad_yaml(root: Path) -> None:
    edit(root / "metadata.yaml", "tags: [test]", "tags: [test")


def _missing_parameter(root: Path) -> None:
    edit(root / "definitions/scale.py", "retain_keys(p.min)", "retain_keys(p.mini)")


def _missing_field(root: Path) -> None:
    edit(root / "definitions/server.py", '"storageUri"', '"storageUrl"')


def _not_in_a_status(root: Path) -> None:
    edit(root / "definitions/server.py", 'f"at {_ready}"', 'f"at {_ready} in {context.namespace}"')


def _unknown_metadata(root: Path) -> None:
    edit(root / "metadata.yaml", "tags:", "tag:")


def _mark_within(root: Path) -> None:
    edit(root / "schemas/server.json", '"An address | of a sink."', '"x", "x-immutable": true')


def _mark_of_no_kind(root: Path) -> None:
    edit(root / "schemas/server.json", '"What serves it."', '"x", "x-immutable": "yes"')


def _python_error(root: Path) -> None:
    edit(root / "definitions/scale.py", "scale = Trait(", "scale = Trat(")


@pytest.mark.parametrize(
    ("spoil", "file", "line", "words"),
    [
        (_bad_json, "schemas/scale.json", 4, ""),
        (_no_schema, "schemas/scale.json", None, "objekt"),
        (_bad_yaml, "metadata.yaml", 5, "invalid YAML"),
        (_missing_parameter, "definitions/scale.py", 13, "mini"),
        (_missing_field, "definitions/server.py", 22, "storageUrl"),
        (_not_in_a_status, "definitions/server.py", 29, "context.output.metadata.namespace"),
        (_unknown_metadata, "metadata.yaml", 4, "KubeVela knows no tag in an addon's metadata"),
        (_mark_within, "schemas/server.json", None, "/properties/logger/properties/url/x-immutable"),
        (_mark_of_no_kind, "schemas/server.json", None, "x-immutable is true or false"),
        (_python_error, "definitions/scale.py", 6, "Trat"),
    ],
)
def test_a_bad_project_fails_with_file_and_place_and_the_addon_stays(
    mini: Project, spoil: Callable[[Path], None], file: str, line: int | None, words: str
) -> None:
    before = read_folder(mini.addon)
    spoil(mini.root)
    result = build(Project(mini.root))
    assert result.exit_code == 1
    shown = str(mini.root / file) + (f":{line}:" if line else ":")
    assert shown in result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert read_folder(mini.addon) == before


def test_a_property_that_stays_has_kubevelas_mark_where_it_looks_for_it(mini: Project) -> None:
    edit(mini.root / "schemas/server.json", '"What serves it."', '"What serves it.", "x-immutable": true')
    assert build(mini).exit_code == 0
    text = (mini.addon / "definitions/server.cue").read_text()
    assert text.count("+immutable") == 1
    # A plain struct, and before the closed one: kubevela pkg/schema/immutable.go, getParameterStruct.
    assert text.index("\tparameter: {\n\t\t// +immutable\n\t\truntime?: _\n\t}\n") < text.index("\tparameter: close({")


def addon_of(root: Path, defaults: str) -> None:
    """An addon with the parameter reason, which gives *defaults*, and a definition that asks for why and often."""
    (root / "definitions/addon.py").write_text(
        "from velagen import AddonTemplate\nfrom velagen import parameter as p\n\n"
        'application = {"apiVersion": "core.oam.dev/v1beta1", "kind": "Application", "spec": {"components": []}}\n'
        f"addon = AddonTemplate(output=application, defaults={{{defaults}}})\n",
        encoding="utf-8",
    )
    own = {"reason": {"type": "string", "default": "the addon's"}, "often": {"type": "boolean", "default": False}}
    (root / "schemas/addon.json").write_text(json.dumps({"type": "object", "properties": own}), encoding="utf-8")
    asked = {
        "reason": {"type": "string", "default": "none", "x-addon-default": "why"},
        "often": {"type": "boolean", "default": True, "x-addon-default": "often"},
    }
    (root / "schemas/freeze.json").write_text(
        json.dumps({"type": "object", "additionalProperties": False, "properties": asked}), encoding="utf-8"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_property_takes_its_default_from_the_addon(mini: Project, tmp_path: Path, version: str) -> None:
    addon_of(mini.root, '"why": p.reason, "often": p.often')
    assert build(mini).exit_code == 0
    hostile = '"\\(parameter)" | _\n"""# \\#(x)'
    application, outputs = rendered(mini.addon, tmp_path / "cue", {"reason": hostile, "often": True}, kubevela=version)
    text = outputs["trait-freeze"]["spec"]["schematic"]["cue"]["template"]
    assert text.count(f"reason: *{json.dumps(hostile)} | ") == 2, "at render and in the form"
    assert text.count("often:  *true | ") == 2
    # All traits, for KubeVela notes those of a kind together.
    assert sorted(outputs) == ["trait-freeze", "trait-scale"]
    assert application["metadata"]["annotations"] == {"addon.oam.dev/traitDefinitions": "freeze,scale"}
    files = {path.stem: path.read_text(encoding="utf-8") for path in (mini.addon / "definitions").glob("*.cue")}
    assert [name for name, file in sorted(files.items()) if "bind-component" in file] == ["freeze", "scale"]
    assert 'reason: *"none" | ' in files["freeze"]
    form = yaml.safe_load((mini.addon / "schemas/trait-uischema-freeze.yaml").read_text(encoding="utf-8"))
    assert all("defaultValue" not in one["validate"] for one in form)


@pytest.mark.parametrize(
    ("defaults", "old", "new", "words"),
    [
        ('"why": p.reason', "", "", "the addon gives no default 'often'"),
        ('"why": p.often, "often": p.often', "", "", "defaults.why: parameter.often does not fit"),
        ('"why": p.reason, "often": p.often', '"default": "none", ', "", "x-addon-default needs a default"),
        ('"why": p.reason, "often": p.often', '"why"', "[1]", "x-addon-default is the name of a default"),
        ('"why": p.reason, "often": p.often', '"why"', '"the-why"', "x-addon-default is the name of a default"),
        (
            '"why": p.reason, "often": p.often',
            '"default": "none"',
            '"enum": ["none"], "default": "none"',
            "x-addon-default stands at a text without enum, or a boolean",
        ),
    ],
)
def test_a_default_the_addon_cannot_give_is_refused(
    mini: Project, defaults: str, old: str, new: str, words: str
) -> None:
    addon_of(mini.root, defaults)
    if old:
        edit(mini.root / "schemas/freeze.json", old, new)
    result = build(mini)
    assert result.exit_code == 1
    assert words in result.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_a_step_and_a_policy_take_theirs_too(mini: Project, tmp_path: Path, version: str) -> None:
    addon_of(mini.root, '"why": p.reason, "often": p.often')
    asked = (mini.root / "schemas/freeze.json").read_text(encoding="utf-8")
    for name, kind, more in (
        ("ask", "WorkflowStep", 'body={"wait": operation("vela/builtin", "#Suspend", {"message": p.reason})}'),
        ("bound", "Policy", 'outputs={"note": {**note, "data": {"reason": p.reason}}}, labels={"own": "1"}'),
    ):
        (mini.root / f"schemas/{name}.json").write_text(asked, encoding="utf-8")
        (mini.root / f"definitions/{name}.py").write_text(
            f"from velagen import {kind}, operation\nfrom velagen import parameter as p\n\n"
            'note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}}\n'
            f'{name} = {kind}(name="{name}", description="Of a test.", {more})\n',
            encoding="utf-8",
        )
    done = build(mini)
    assert done.exit_code == 0, done.stderr
    _, outputs = rendered(mini.addon, tmp_path / "cue", {"reason": "none", "often": True}, kubevela=version)
    for name in ("workflow-step-ask", "policy-bound"):
        assert_is_that_of_the_file(outputs[name], mini.addon, tmp_path, version)


def test_a_default_of_no_addon_is_refused(mini: Project) -> None:
    addon_of(mini.root, "")
    (mini.root / "definitions/addon.py").unlink()
    result = build(mini)
    assert "x-addon-default, and no definitions/addon.py that gives it" in result.stderr


def test_all_problems_are_told_at_once(mini: Project) -> None:
    _missing_parameter(mini.root)
    _missing_field(mini.root)
    _unknown_metadata(mini.root)
    result = build(Project(mini.root))
    assert "mini" in result.stderr
    assert "storageUrl" in result.stderr
    assert "did you mean tags?" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: mini", "name: Mini_1", '"Mini_1" is not a valid addon name'),
        ("version: 0.2.0", 'version: "1.2"', '"1.2" is not a semantic version'),
        ('vela: ">=1.10.0"', "vela: new", "new is not a version range"),
        ("vela:", "velo:", "there is no requirement velo"),
        ("tags: [test]", "tags: test", "tags has to be a list"),
        ("tags: [test]", "dependencies: [fluxcd]", "a dependency has a name and, if you like, a version"),
    ],
)
def test_metadata_kubevela_would_misread_is_refused(mini: Project, old: str, new: str, message: str) -> None:
    edit(mini.root / "metadata.yaml", old, new)
    with pytest.raises(VelagenError) as caught:
        render_addon(Project(mini.root))
    (problem,) = caught.value.problems
    assert problem.message == message
    assert problem.place.line is not None


# ---------------------------------------------------------------- forms


def test_a_form_of_every_type() -> None:
    document: dict[str, Any] = {
        "type": "object",
        "required": ["last"],
        "$defs": {"tree": {"type": "object", "properties": {"child": {"$ref": "#/$defs/tree"}}}},
        "properties": {
            "flag": {"type": "boolean", "default": False},
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "kind": {"oneOf": [{"const": "a"}, {"const": "b"}]},
            "both": {"type": ["integer", "string"]},
            "numbers": {"type": "array", "items": {"type": "number"}},
            "objects": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "secret": {"type": "string", "writeOnly": True},
            "tree": {"$ref": "#/$defs/tree"},
            "maxURLLength": {"type": "integer"},
            "last": {"type": "string", "title": "The last"},
        },
    }
    form = {field["jsonKey"]: field for field in ui_schema(document)}
    assert next(iter(form)) == "last"
    assert form["last"]["validate"] == {"required": True, "immutable": False}
    assert {name: field["uiType"] for name, field in form.items()} == {
        "last": "Input",
        "flag": "Switch",
        "size": "Number",
        "kind": "Select",
        "both": "Input",
        "numbers": "Numbers",
        "objects": "Structs",
        "map": "KV",
        "secret": "Password",
        "tree": "Group",
        "maxURLLength": "Number",
    }
    assert form["flag"]["validate"]["defaultValue"] is False
    assert (form["size"]["validate"]["min"], form["size"]["validate"]["max"]) == (1, 9)
    assert [one["value"] for one in form["kind"]["validate"]["options"]] == ["a", "b"]
    assert form["objects"]["subParameters"][0]["jsonKey"] == "x"
    assert (form["maxURLLength"]["label"], form["last"]["label"]) == ("Max URL length", "The last")
    # Recursion ends; what is written is finite.
    assert len(json.dumps(form["tree"])) < 10_000


# ---------------------------------------------------------------- package


def package(project: Project, out: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["package", "--project", str(project.root), "--out", str(out), *options])


def test_a_package_holds_the_addon_and_a_chart(mini: Project, tmp_path: Path) -> None:
    before = read_folder(mini.root)
    assert package(mini, tmp_path / "dist").exit_code == 0
    with tarfile.open(tmp_path / "dist/mini-0.2.0.tgz") as tar:
        members = tar.getmembers()
        files = {one.name: (tar.extractfile(one) or pytest.fail(one.name)).read() for one in members}
    assert members[0].name == "mini/Chart.yaml"
    assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in members} == {(0, 0, 0, "", 0o644)}
    chart = yaml.safe_load(files.pop("mini/Chart.yaml"))
    assert files == {f"mini/{path}": content for path, content in render_addon(mini, released=True).items()}
    assert chart == {
        "annotations": {
            "addon.name": "mini",
            "system.kubernetes": ">=1.28.0, <1.36.0",
            "system.vela": ">=1.10.0",
        },
        "apiVersion": "v2",
        "appVersion": "0.2.0",
        "description": "A small addon for the tests of the engine.",
        "keywords": ["test"],
        "name": "mini",
        "type": "library",
        "version": "0.2.0",
    }
    assert {path: one for path, one in read_folder(mini.root).items() if "__pycache__" not in path} == before


@pytest.mark.parametrize(("version", "said"), [("0.2.0", "0.2.0"), ("v1.10.0", "1.10.0"), ("0.3.0-rc.1", None)])
def test_a_definition_has_the_addons_version_in_a_package_alone(mini: Project, version: str, said: str | None) -> None:
    edit(mini.root / "metadata.yaml", "version: 0.2.0", f"version: {version}")
    found = {}
    for released in (False, True):
        files = render_addon(Project(mini.root), released=released)
        found[released] = [
            re.findall(r'\bversion: +"([^"]*)"', files[f"definitions/{name}.cue"].decode().partition("\ntemplate:")[0])
            for name in ("freeze", "scale", "server")
        ]
    assert found == {False: [[], [], []], True: [[said] if said else []] * 3}


def test_words_without_effect_are_told_by_a_build(mini: Project, tmp_path: Path) -> None:
    """Of a definition's schema and of the addon's parameters; the build succeeds."""
    edit(mini.root / "schemas/server.json", '"title"', '"minLenght": 1, "title"')
    (mini.root / "schemas/addon.json").write_text('{"type": "object", "additionalProperty": false}')
    (mini.root / "definitions/addon.py").write_text(
        "from velagen import AddonTemplate\naddon = AddonTemplate(output={'apiVersion': 'core.oam.dev/v1beta1',"
        " 'kind': 'Application', 'spec': {'components': []}})\n"
    )
    for said in (build(mini), package(mini, tmp_path / "dist")):
        assert said.exit_code == 0
        assert "warning: minLenght is not a keyword of JSON Schema, and has no effect" in said.stderr
        assert "warning: additionalProperty is not a keyword of JSON Schema" in said.stderr
        assert "2 warnings" in said.stderr


def test_a_package_twice_is_the_same_bytes(mini: Project, tmp_path: Path) -> None:
    package(mini, tmp_path / "one")
    package(mini, tmp_path / "two")
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")
    package(mini, tmp_path / "one")
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")


def test_the_index_is_one_of_a_helm_repository(mini: Project, tmp_path: Path) -> None:
    package(mini, tmp_path, "--url", "https://addons.team.example/stable/")
    index = yaml.safe_load((tmp_path / "index.yaml").read_text(encoding="utf-8"))
    (entry,) = index["entries"]["mini"]
    assert index["apiVersion"] == "v1"
    assert entry["urls"] == ["https://addons.team.example/stable/mini-0.2.0.tgz"]
    assert entry["annotations"]["system.vela"] == ">=1.10.0"
    assert len(entry["digest"]) == 64
    assert "created" not in entry


def test_the_index_keeps_what_is_still_there(mini: Project, tmp_path: Path) -> None:
    out = tmp_path / "dist"
    package(mini, out)
    edit(mini.root / "metadata.yaml", "0.2.0", "0.3.0")
    package(mini, out)
    versions = [one["version"] for one in yaml.safe_load((out / "index.yaml").read_text())["entries"]["mini"]]
    assert versions == ["0.3.0", "0.2.0"]
    (out / "mini-0.2.0.tgz").unlink()
    package(mini, out)
    versions = [one["version"] for one in yaml.safe_load((out / "index.yaml").read_text())["entries"]["mini"]]
    assert versions == ["0.3.0"]


def test_a_foreign_index_is_not_overwritten(mini: Project, tmp_path: Path) -> None:
    (tmp_path / "index.yaml").write_text("- 1\n", encoding="utf-8")
    result = package(mini, tmp_path)
    assert result.exit_code == 1
    assert "this is not the index of a Helm repository" in result.stderr
    assert (tmp_path / "index.yaml").read_text(encoding="utf-8") == "- 1\n"


def test_the_time_is_the_one_that_is_given(mini: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    index = pack(mini.metadata, render_addon(mini), tmp_path).index
    assert yaml.safe_load(index.read_text(encoding="utf-8"))["generated"] == "1970-01-02T00:00:00+00:00"


def test_the_archive_equals_velas_own_but_for_its_form(mini: Project, tmp_path: Path) -> None:
    """``vela addon package`` of the same folder holds the same files with the same Chart.yaml."""
    from velagen.check.dryrun import offline_environment
    from velagen.tools import in_cache, on_path, table

    row = table().row("vela")
    vela = in_cache(row) or on_path(row)
    if vela is None:
        pytest.skip("vela is not here yet: velagen tools install vela")
    # The version in the definitions is ours alone, and stands in packages alone.
    pack(mini.metadata, render_addon(mini), tmp_path / "ours")
    source = tmp_path / "mini"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    env = offline_environment(tmp_path)
    subprocess.run([str(vela), "addon", "package", str(source / "addon/mini")], cwd=theirs, env=env, check=True)

    def content(archive: Path) -> dict[str, Any]:
        with tarfile.open(archive) as tar:
            found = {one.name: (tar.extractfile(one) or pytest.fail(one.name)).read() for one in tar if one.isfile()}
        return {name: yaml.safe_load(text) if name.endswith("Chart.yaml") else text for name, text in found.items()}

    assert content(theirs / "mini-0.2.0.tgz") == content(tmp_path / "ours/mini-0.2.0.tgz")
    (source / "addon/mini/Chart.yaml").unlink()
    assert read_folder(source / "addon/mini") == render_addon(mini)


def test_a_chart_of_a_bare_addon_has_no_empty_fields() -> None:
    chart = chart_metadata({"name": "a", "version": "1.0.0", "description": "b"})
    assert sorted(chart) == ["annotations", "apiVersion", "appVersion", "description", "name", "type", "version"]
