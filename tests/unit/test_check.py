"""Application files and addons, checked without a cluster."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from velagen.addon.write import write_addon
from velagen.check.dryrun import _sentence
from velagen.check.releases import merged
from velagen.cli import main
from velagen.definition.build import build_definitions
from velagen.definition.catalog import Catalog, of_addon, of_kubevela
from velagen.documents import parse_documents, read_documents
from velagen.errors import Place, Problem, VelagenError
from velagen.kubevela import VERSIONS
from velagen.project import Project
from velagen.tools import in_cache, on_path, table

MINI = Path(__file__).parent / "fixtures/mini"


def _is_here(name: str, version: str | None = None) -> bool:
    row = table().row(name, version)
    return bool(in_cache(row) or on_path(row))


needs_vela = pytest.mark.skipif(
    not all(_is_here("vela", version) for version in VERSIONS),
    reason="vela is not here: velagen tools install " + " ".join(f"vela@{version}" for version in VERSIONS),
)
needs_oracle = pytest.mark.skipif(
    not all(_is_here("cue-oracle", version) for version in ("0.9.2", "0.14.1")),
    reason="the evaluator is not here: velagen tools install cue-oracle",
)

GOOD = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata:
  name: sample
spec:
  components:
    - name: sample
      type: server
      properties:
        modelUri: s3://models/one
        minReplicas: 2
      traits:
        - type: scale
          properties:
            max: 4
"""


@pytest.fixture
def app(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "app.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def check(*arguments: str | Path, project: Path = MINI) -> Result:
    return CliRunner().invoke(main, ["check", "--project", str(project), *map(str, arguments)])


def lines(result: Result, file: Path) -> list[str]:
    """The problems a command showed, the file's own name left out, hints behind a bar."""
    found: list[str] = []
    for line in result.stderr.splitlines():
        if line.startswith(str(file)):
            found.append(line.removeprefix(f"{file}:"))
        elif line.startswith("      ") and found and "|" not in line:
            found[-1] += f" | {line.strip()}"
    return found


# ---------------------------------------------------------------- places


def test_every_value_knows_its_place() -> None:
    first, second = parse_documents("a:\n  - b: 1\n    c/d: {e: 2}\n---\nx: 3\n", "f.yaml")
    assert first.place("/a/0/b") == Place("f.yaml", 2, 5, "/a/0/b")
    assert first.place("/a/0/c~1d/e") == Place("f.yaml", 3, 11, "/a/0/c~1d/e")
    assert first.place("/a/0/missing/deeper").line == 2
    assert second.place("/x").line == 5
    assert (first.value, second.value) == ({"a": [{"b": 1, "c/d": {"e": 2}}]}, {"x": 3})


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    (document,) = parse_documents("2020-01-01: 2020-01-01\n8080: x\ntrue: y\n", "f")
    assert document.value == {"2020-01-01": "2020-01-01", "8080": "x", "true": "y"}


def test_json_is_yaml() -> None:
    (document,) = parse_documents('{"a": {"b": 1}}', "f.json")
    assert document.place("/a/b").column == 8


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: [1\nb: 2\n", 2, 2, "invalid YAML: did not find expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, 1, "invalid YAML: "),
        ("a: 1\na: 2\n", 2, 1, "a stands twice here"),
        ("a: &x {b: *x}\n", 1, 4, "an alias stands inside what it names"),
        ("a: *x\n", 1, 4, "invalid YAML: "),
        ("a: !!python/object:os.system {}\n", 1, 4, "invalid YAML: "),
    ],
)
def test_bad_yaml_has_a_line_and_a_column(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(VelagenError) as caught:
        parse_documents(text, "f.yaml")
    (problem,) = caught.value.problems
    assert problem.message.startswith(message)
    assert (problem.place.file, problem.place.line) == ("f.yaml", line)
    assert problem.place.column is not None


def test_aliases_that_multiply_end_soon() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, two in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{two}: &{two} [{', '.join([f'*{one}'] * 9)}]\n"
    with pytest.raises(VelagenError, match="grows beyond reason"):
        parse_documents(text, "f")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VelagenError, match="can't be read: No such file or directory"):
        read_documents(tmp_path / "none.yaml")


# ---------------------------------------------------------------- what is known


def test_kubevelas_own_definitions_are_known() -> None:
    catalog = Catalog.of(of_kubevela())
    assert {"webservice", "worker", "raw", "k8s-objects"} <= set(catalog.names("component"))
    assert {"scaler", "gateway", "hpa"} <= set(catalog.names("trait"))
    assert {"topology", "override", "garbage-collect"} <= set(catalog.names("policy"))
    assert {"suspend", "deploy", "apply-component", "step-group"} <= set(catalog.names("workflow-step"))
    webservice = catalog.find("component", "webservice")
    assert webservice is not None
    assert webservice.workload == "deployments.apps"
    assert not webservice.own


def test_an_addon_folder_tells_all_that_its_project_does(repository: Path) -> None:
    """So an application is judged in the same words where only the addon is."""
    project = Project(repository)
    built = {(one.kind, one.name): one for one in (built.known() for built in build_definitions(project))}
    alone = {(one.kind, one.name): one for one in of_addon(project.addon)}
    assert built.keys() == alone.keys()
    for key, one in built.items():
        there = alone[key]
        for field in ("workload", "applies_to", "conflicts_with", "own"):
            assert getattr(there, field) == getattr(one, field), (key, field)
        assert dict(there.instead_of) == dict(one.instead_of)
        assert there.schema is not None
        assert one.schema is not None
        assert there.schema.document == one.schema.document


def test_an_addon_folder_tells_what_it_defines() -> None:
    catalog = Catalog.of(of_addon(MINI / "addon/mini"))
    server, scale = catalog.find("component", "server"), catalog.find("trait", "scale")
    assert server is not None
    assert scale is not None
    assert server.workload == "inferenceservices.serving.kserve.io"
    assert (scale.applies_to, scale.conflicts_with) == (("inferenceservices.serving.kserve.io",), ("freeze",))
    assert catalog.find("trait", "freeze") is not None


def test_a_folder_without_definitions_is_no_addon(tmp_path: Path) -> None:
    with pytest.raises(VelagenError, match="there are no definitions"):
        list(of_addon(tmp_path))


# ---------------------------------------------------------------- without rendering


def test_a_good_application_passes(app: Callable[[str], Path]) -> None:
    result = check(app(GOOD), "--no-render")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "1 file checked: no errors" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "minReplicas: 2",
            "minReplica: 2",
            "11:9: error: minReplica is not a known property"
            "  (/spec/components/0/properties/minReplica) | did you mean minReplicas?",
        ),
        (
            "modelUri: s3://models/one",
            "runtime: triton",
            "9:7: error: modelUri is required  (/spec/components/0/properties)",
        ),
        (
            "s3://models/one",
            "ftp://models/one",
            "10:9: error: modelUri must begin with s3:// or gs://  (/spec/components/0/properties/modelUri)",
        ),
        (
            "type: server",
            "type: servr",
            "8:7: error: there is no component type servr  (/spec/components/0/type) | did you mean server?",
        ),
        (
            "type: scale",
            "type: scal",
            "13:11: error: there is no trait scal  (/spec/components/0/traits/0/type) | did you mean scale?",
        ),
        (
            "type: scale",
            "type: server",
            "13:11: error: there is no trait server  (/spec/components/0/traits/0/type) | server is a component",
        ),
        (
            "max: 4",
            "max: 4\n            min: 5",
            "14:11: error: min must be at most max  (/spec/components/0/traits/0/properties)",
        ),
        (
            "type: server\n      properties:\n        modelUri: s3://models/one\n        minReplicas: 2",
            "type: webservice\n      properties:\n        image: x\n        port: 2",
            "13:11: error: the trait scale does not apply to a webservice  (/spec/components/0/traits/0/type)"
            " | it applies to inferenceservices.serving.kserve.io; webservice makes deployments.apps",
        ),
        (
            "        - type: scale",
            "        - type: freeze\n        - type: scale",
            "14:11: error: the traits freeze and scale can't stand at the same component"
            "  (/spec/components/0/traits/1/type)",
        ),
        (
            "        - type: scale",
            "        - type: scale\n          properties: {max: 2}\n        - type: scale",
            "15:11: error: the trait scale stands twice at this component: write one scale"
            "  (/spec/components/0/traits/1/type)",
        ),
        (
            "    - name: sample",
            "    - name: Sample",
            '7:7: error: "Sample" is not a name Kubernetes takes  (/spec/components/0/name)'
            " | at most 63 lower case letters, digits and '-', beginning and ending with a letter or digit",
        ),
        (
            "name: sample\nspec",
            f"name: {'s' * 61}\nspec",
            "4:3: error: the application's name may have at most 60 characters, and has 61  (/metadata/name)"
            " | KubeVela labels every object with NAME-v1, and Kubernetes takes labels of 63 characters at most",
        ),
        (
            "  components:",
            "  policys: []\n  components:",
            "6:3: error: there is no field policys here  (/spec/policys) | did you mean policies?",
        ),
        (
            "  components:",
            "  policies: [{name: a, type: topolgy}]\n  components:",
            "6:24: error: there is no policy type topolgy  (/spec/policies/0/type) | did you mean topology?",
        ),
        (
            "  components:",
            "  workflow: {steps: [{name: a, type: suspend, dependsOn: [b]}]}\n  components:",
            "6:59: error: there is no step named b  (/spec/workflow/steps/0/dependsOn/0)",
        ),
        (
            "  components:",
            "  workflow: {steps: [{name: a, type: suspend}, {name: a, type: deploy}]}\n  components:",
            "6:49: error: two of the steps are named a  (/spec/workflow/steps/1/name) | the other: line 6",
        ),
        (
            "v1beta1",
            "v1beta2",
            "2:1: error: no schema is known for core.oam.dev/v1beta2 Application  (/kind)"
            " | Application is known as core.oam.dev/v1beta1",
        ),
    ],
)
def test_one_mistake_gives_one_error_at_its_line(app: Callable[[str], Path], old: str, new: str, told: str) -> None:
    assert old in GOOD
    file = app(GOOD.replace(old, new, 1))
    result = check(file, "--no-render")
    assert result.exit_code == 1
    assert lines(result, file) == [told]


def test_the_line_itself_is_shown(app: Callable[[str], Path]) -> None:
    file = app(GOOD.replace("type: scale", "type: scal"))
    shown = check(file, "--no-render").stderr
    assert "   13 |         - type: scal\n      |           ^\n" in shown


def test_all_documents_and_files_are_checked_and_all_problems_told(app: Callable[[str], Path], tmp_path: Path) -> None:
    file = app(GOOD + "---\n" + GOOD.replace("max: 4", "max: 0").replace("server", "servr"))
    other = tmp_path / "other.yaml"
    other.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndate: {}\n", encoding="utf-8")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: b: c\n", encoding="utf-8")
    result = check(file, other, broken, tmp_path / "none.yaml", "--no-render")
    assert result.exit_code == 1
    assert [line.partition("  (")[0] for line in lines(result, file)] == [
        "24:7: error: there is no component type servr",
        "31:13: error: max must be at least 1",
    ]
    assert lines(result, other) == ["4:1: error: there is no field date here  (/date) | did you mean data?"]
    assert f"{broken}:1" in result.stderr
    assert "can't be read: No such file or directory" in result.stderr
    assert result.stderr.endswith("5 errors\n")


def test_an_empty_file_is_no_application(app: Callable[[str], Path]) -> None:
    result = check(app("---\n"), "--no-render")
    assert result.exit_code == 1
    assert "there is nothing in this file" in result.stderr


PLAIN = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: plain}
spec: {predictor: {model: {modelFormat: {name: sklearn}, storageUri: "s3://models/one"}}}
"""


def test_a_file_without_an_application_passes_and_says_so(app: Callable[[str], Path]) -> None:
    file = app(PLAIN)
    result = check(file, "--no-render")
    assert result.exit_code == 0
    assert lines(result, file) == [
        "1:1: warning: there is no Application in this file, only InferenceService: KubeVela makes nothing of it"
        " | write an Application: its component type server makes the InferenceService"
    ]


def test_other_objects_beside_an_application_are_nothing_to_speak_of(app: Callable[[str], Path]) -> None:
    result = check(app(GOOD + "---\n" + PLAIN), "--no-render")
    assert (result.exit_code, result.stderr) == (0, "1 file checked: no errors\n")


def test_there_is_nothing_to_render_without_an_application(app: Callable[[str], Path]) -> None:
    file = app(PLAIN)
    result = CliRunner().invoke(main, ["render", "--project", str(MINI), str(file)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert lines(result, file)[0].startswith("1:1: error: there is no Application in this file, only InferenceService")


@pytest.mark.parametrize("spec", ["null", "[]", "{components: {}}", "{components: [1]}", "{components: []}"])
def test_a_malformed_outline_is_an_error_and_no_traceback(app: Callable[[str], Path], spec: str) -> None:
    text = f"apiVersion: core.oam.dev/v1beta1\nkind: Application\nmetadata: {{name: x}}\nspec: {spec}\n"
    result = check(app(text), "--apps-only")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


def test_outside_a_project_the_way_out_is_said(app: Callable[[str], Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", "--project", str(tmp_path), str(app(GOOD))])
    assert result.exit_code == 1
    assert "name an addon's folder with --addon" in result.stderr


# ---------------------------------------------------------------- vela's words


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "Error: cannot generate manifests from components and traits: evaluate template trait=scale app=web: "
            "scale needs an InferenceService",
            "scale needs an InferenceService",
        ),
        (
            "Error: cannot generate manifests from components and traits: evaluate base template app=a in "
            "namespace=default: invalid cue template of workload b after merge parameter and context: "
            '_checks._refused1: conflicting values "the name is \\"kept\\"" and 1 (mismatched types string and int) '
            "(and 2 more errors)",
            'the name is "kept"',
        ),
        (
            "Error: x after merge parameter and context: parameter._modelUri: conflicting values "
            '"a" and "modelUri is required"',
            "modelUri is required",
        ),
        (
            "Error: x after merge parameter and context: _parameter.minReplicas: conflicting values "
            '"minReplicas: 0 needs deploymentMode: knative" and 1 (mismatched types string and int)',
            "minReplicas: 0 needs deploymentMode: knative",
        ),
        (
            "Error: x after merge with parameter and context: parameter.mix: field not allowed",
            "parameter.mix: there is no such field",
        ),
        (
            "Error: evaluate template trait=tr app=a: cue: marshal error: output.spec.model.storageUri: cannot convert "
            'incomplete value "=~\\"^s3://\\"" to JSON',
            "output.spec.model.storageUri has no value: a property it is made of is missing",
        ),
        (
            "Error: x after merge with parameter and context: patch.spec.maxReplicas: invalid value 0 "
            "(out of bound >=1) (and 2 more errors)",
            "patch.spec.maxReplicas is 0, it has to be >=1",
        ),
        (
            "Error: x after merge parameter and context: output.spec.name: 2 errors in empty disjunction: "
            "(and 6 more errors)",
            "output.spec.name: the value is not one of those allowed",
        ),
        (
            "Error: x after merge parameter and context: output.spec.cpu: conflicting values string and 3 "
            "(mismatched types string and int) (and 2 more errors)",
            "output.spec.cpu can't be string and 3 at once",
        ),
        ("Error: something new " + "x" * 400, "something new " + "x" * 283 + "..."),
    ],
)
def test_velas_error_becomes_one_sentence(text: str, sentence: str) -> None:
    assert _sentence(text, Place()).message == sentence


# ---------------------------------------------------------------- rendering


@needs_vela
def test_a_good_application_renders_and_passes(app: Callable[[str], Path]) -> None:
    result = check(app(GOOD), "--apps-only")
    assert (result.exit_code, result.stderr) == (0, "1 file checked: no errors\n")


@needs_vela
def test_every_part_is_heard_in_one_run(app: Callable[[str], Path]) -> None:
    file = app(
        GOOD
        + """\
    - name: forbidden
      type: server
      properties: {modelUri: s3://x}
    - name: web
      type: webservice
      properties: {image: nginx}
      traits:
        - type: scale
          properties: {max: 1}
    - name: typo
      type: webservice
      properties: {image: nginx, cpu: 3}
    - name: bad
      type: server
      properties: {modelUri: http://x}
"""
    )
    assert lines(check(file, "--apps-only"), file) == [
        "16:7: error: the name forbidden is kept for the tests  (/spec/components/1)",
        "23:11: error: scale needs an InferenceService  (/spec/components/2/traits/0)",
        "27:34: error: parameter.cpu can't be string and 3 at once"
        "  (/spec/components/3/properties/cpu) | velagen check --verbose shows KubeVela's own words",
        "30:20: error: modelUri must begin with s3:// or gs://  (/spec/components/4/properties/modelUri)",
    ]


@needs_vela
def test_velas_own_words_are_shown_to_those_who_ask(app: Callable[[str], Path]) -> None:
    file = app(GOOD.replace("- name: sample", "- name: forbidden"))
    words = "Error: cannot generate manifests from components and traits"
    assert words not in check(file, "--apps-only").stderr
    assert words in check(file, "--apps-only", "--verbose").stderr


@needs_vela
def test_an_object_the_api_server_would_refuse_is_told(app: Callable[[str], Path]) -> None:
    file = app(GOOD.replace("        minReplicas: 2", "        labels: {a: 's3://x'}"))
    (line,) = lines(check(file, "--apps-only"), file)
    assert line.startswith(
        '7:7: error: "s3://x" is not a label\'s value: /metadata/labels/a of the rendered InferenceService sample'
    )


@needs_vela
def test_an_installed_addon_stands_for_a_project(app: Callable[[str], Path], tmp_path: Path) -> None:
    file = app(GOOD.replace("minReplicas", "minReplica").replace("max: 4", "max: 0"))
    # In the project that it was built in the schemas lie beside it.
    result = CliRunner().invoke(main, ["check", "--addon", str(MINI / "addon/mini"), str(file)])
    assert result.exit_code == 1
    unknown, low = lines(result, file)
    assert unknown.startswith("11:9: error: minReplica is not a known property")
    assert low.startswith("15:13: error: max must be at least 1")
    alone = shutil.copytree(MINI / "addon/mini", tmp_path / "elsewhere" / "mini")
    result = CliRunner().invoke(main, ["check", "--addon", str(alone), str(file)])
    assert result.exit_code == 1
    (line,) = lines(result, file)
    assert line.startswith("11:9: error: parameter.minReplica: there is no such field")


@needs_vela
def test_render_prints_what_kubevela_makes() -> None:
    arguments = ["--project", str(MINI), str(MINI / "examples/app.yaml")]
    as_yaml = CliRunner().invoke(main, ["render", *arguments])
    as_json = CliRunner().invoke(main, ["render", *arguments, "-o", "json"])
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(as_yaml.stdout))
    assert (as_yaml.exit_code, as_json.exit_code) == (0, 0)
    assert objects == json.loads(as_json.stdout)
    (service,) = objects
    assert service["kind"] == "InferenceService"
    assert service["spec"]["predictor"] == {
        "minReplicas": 1,
        "maxReplicas": 4,
        "model": {"modelFormat": {"name": "triton"}, "storageUri": "s3://models/one"},
    }


@needs_vela
def test_render_of_a_bad_application_prints_no_object(app: Callable[[str], Path]) -> None:
    result = CliRunner().invoke(main, ["render", "--project", str(MINI), str(app(GOOD.replace("s3:", "x:")))])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "modelUri must begin with s3:// or gs://" in result.stderr


# ---------------------------------------------------------------- the addon


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    root = tmp_path / "mini"
    shutil.copytree(MINI, root, ignore=shutil.ignore_patterns("__pycache__"))
    write_addon(Project(root))
    return root


def _spoil(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@needs_vela
@needs_oracle
def test_a_good_addon_passes(mini: Path) -> None:
    result = check(project=mini)
    assert (result.exit_code, result.stderr) == (0, "3 definitions and 1 file checked: no errors\n")


@needs_vela
def test_without_go_an_addon_is_checked_by_all_that_is_there(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluator is Go code of velagen's own; what it alone could say is said not to be judged."""
    monkeypatch.setattr("velagen.oracle.without_go", lambda _: [])
    monkeypatch.setattr("velagen.cli.check.without_go", lambda pairs: [one for one in pairs if one[0] != "cue-oracle"])
    monkeypatch.setattr("velagen.oracle.Oracle.__init__", lambda *_, **__: pytest.fail("nobody can start it"))
    (mini / "README.md").write_text("Another content: nothing is kept of it.\n", encoding="utf-8")
    result = check(project=mini)
    assert result.exit_code == 0, result.stderr
    assert "not judged by the code of KubeVela 1.11.0" in result.stderr
    assert "Install Go, then: velagen tools install cue-oracle" in result.stderr
    assert "no errors" in result.stderr


@needs_vela
@needs_oracle
def test_what_is_wrong_with_an_addon_is_found_without_a_cluster(mini: Path) -> None:
    server = mini / "definitions/server.py"
    _spoil(server, 'message=f"at {_ready}"', 'message=raw_cue("context.output.status.url")')
    _spoil(server, "given, optional, refuse", "given, optional, raw_cue, refuse")
    _spoil(mini / "schemas/scale.json", '[{"max": 3}]', '[{"max": 0}]')
    result = check(project=mini)
    assert result.exit_code == 1
    assert "customStatus of component server fails over an object without a status" in result.stderr
    assert "guard what is observed with first_given(..., default)" in result.stderr
    assert "example of trait scale: max must be at least 1" in result.stderr


@needs_vela
@needs_oracle
def test_what_a_kubevela_rewrites_before_it_renders_is_told(mini: Path) -> None:
    scale = mini / "definitions/scale.py"
    _spoil(scale, '"maxReplicas": p.max', '"maxReplicas": raw_cue("parameter.max * 2")')
    _spoil(scale, "refuse, retain_keys", "raw_cue, refuse, retain_keys")
    write_addon(Project(mini))
    result = check(project=mini)
    assert result.exit_code == 1
    said = "on KubeVela 1.11.0: the template of trait scale is not evaluated as it stands, since KubeVela rewrites it"
    assert said in result.stderr
    assert "on KubeVela 1.10.9" not in result.stderr
    one = check("--kubevela", "1.10.9", project=mini)
    assert (one.exit_code, one.stderr) == (0, "3 definitions and 1 file checked: no errors\n")


def test_what_releases_say_is_said_once() -> None:
    at, elsewhere = Place("a.yaml", 3, 1, "/spec"), Place("a.yaml", 9, 1, "/kind")
    same, older, newer = Problem("wrong", at), Problem("bad", elsewhere), Problem("no good", elsewhere)
    vague, exact = (
        Problem("bad", Place("a.yaml", 1, 1, "/c")),
        Problem("x is bad", Place("a.yaml", 2, 1, "/c/properties/x")),
    )
    alone, of_the_file = Problem("not known", Place("a.yaml", 5, 1, "/x")), Problem("stale", Place("a.yaml"))
    told = merged({"1.10.9": [same, older, alone], "1.11.0": [same, newer, of_the_file]})
    assert [one.message for one in told] == [
        "wrong",
        "bad",
        "on KubeVela 1.10.9: not known",
        "on KubeVela 1.11.0: stale",
    ]
    assert merged({"1.11.0": [alone]}) == [alone]
    assert merged({"1.10.9": [vague], "1.11.0": [exact]}) == [exact]
    assert merged({"1.10.9": [exact], "1.11.0": [vague]}) == [exact]
    # What both say of one part does not hide what one says of it besides.
    assert [one.message for one in merged({"1.10.9": [vague, exact], "1.11.0": [exact]})] == [
        "on KubeVela 1.10.9: bad",
        "x is bad",
    ]


@needs_vela
@needs_oracle
def test_a_status_rule_sees_no_defaults(mini: Path) -> None:
    server = mini / "definitions/server.py"
    _spoil(server, 'message=f"at {_ready}"', 'message=raw_cue("parameter.runtime")')
    _spoil(server, "given, optional, refuse", "given, optional, raw_cue, refuse")
    write_addon(Project(mini))
    result = check(project=mini)
    assert result.exit_code == 1
    assert "customStatus of component server fails over an object" in result.stderr
    assert "undefined field: runtime" in result.stderr


@needs_vela
@needs_oracle
def test_a_stale_addon_is_told(mini: Path) -> None:
    (mini / "addon/mini/definitions/old.cue").write_text("x", encoding="utf-8")
    result = check(project=mini)
    assert result.exit_code == 1
    assert "the addon is stale: addon/mini/definitions/old.cue" in result.stderr


@needs_vela
@needs_oracle
def test_healthy_without_a_status_is_a_warning(mini: Path) -> None:
    _spoil(mini / "definitions/server.py", '_ready != ""', '_ready != "x"')
    write_addon(Project(mini))
    result = check(project=mini)
    assert result.exit_code == 0
    assert "warning: component server counts as healthy without a status" in result.stderr
