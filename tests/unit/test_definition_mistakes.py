"""Mistakes in a definition: each is a sentence at the author's file, line and column, and never a traceback."""
# ruff: noqa: E501  # a case a line

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from velagen.check.dryrun import dry_run
from velagen.cli import main
from velagen.definition.build import build_definitions
from velagen.definition.catalog import Catalog
from velagen.documents import parse_documents
from velagen.errors import Problem, VelagenError
from velagen.kubevela import RELEASES
from velagen.project import Project

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "image": {"type": "string"},
        "replicas": {"type": "integer"},
        "debug": {"type": "boolean", "default": False},
        "cpu": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "size": {"enum": ["small", "big"]},
        "tier": {"const": "gold"},
        "store": {
            "oneOf": [
                {"type": "object", "required": ["kind", "bucket"], "additionalProperties": False,
                 "properties": {"kind": {"const": "s3"}, "bucket": {"type": "string"}}},
                {"type": "object", "required": ["kind", "claim"], "additionalProperties": False,
                 "properties": {"kind": {"const": "pvc"}, "claim": {"type": "string"}}},
            ],
        },
        "ports": {"type": "array", "items": {"type": "integer"}},
        "files": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}  # fmt: skip
HEAD = """\
from velagen import *
from velagen import parameter as p
from velagen.definition import *
"""
DEPLOYMENT = """\
    workload=Workload("apps/v1", "Deployment"),
    output={
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {
            "replicas": optional(p.replicas),
            "selector": {"matchLabels": {"app": context.name}},
            "template": {"spec": {"containers": [{"name": "web", "image": p.image}]}},
        },
    },
"""


def project(root: Path, text: str, schema: Any = SCHEMA, **helpers: str) -> Project:
    files = {
        "metadata.yaml": "name: mini\nversion: 0.1.0\ndescription: Mini.\n",
        "schemas/it.json": json.dumps(schema),
        "definitions/it.py": HEAD + text,
        **{f"definitions/{name}.py": HEAD + content for name, content in helpers.items()},
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return Project(root)


def component(more: str = "", body: str = DEPLOYMENT, before: str = "") -> str:
    return f'{before}\nit = Component(\n    name="it",\n    description="Serves.",\n{body}{more})\n'


def trait(more: str, before: str = "") -> str:
    return f'{before}\nit = Trait(\n    name="it",\n    description="Changes.",\n{more})\n'


def problems_of(root: Path, text: str, **more: Any) -> tuple[Problem, ...]:
    """The problems; each must say where in the author's files it is, and hold no mark of an f-string."""
    made = project(root, text, **more)
    with pytest.raises(VelagenError) as caught:
        build_definitions(made)
    for problem in caught.value.problems:
        assert problem.place.file is not None
        assert Path(problem.place.file).parent == root / "definitions", problem
        assert problem.place.line is not None, problem
        assert not any("\ue000" <= char <= "\ue0ff" for char in f"{problem.message}{problem.hint}"), problem
    return caught.value.problems


def cue_of(root: Path, text: str, **more: Any) -> str:
    (built,) = build_definitions(project(root, text, **more))
    return built.cue


def spot_of(root: Path, wanted: str, file: str = "it.py") -> tuple[int, int]:
    """Line and column of a text in a definition."""
    text = (root / "definitions" / file).read_text(encoding="utf-8")
    line, content = next((number, one) for number, one in enumerate(text.splitlines(), 1) if wanted in one)
    return line, content.index(wanted) + 1


def test_what_the_others_change_builds(tmp_path: Path) -> None:
    assert 'kind:       "Deployment"' in cue_of(tmp_path, component())


def test_the_command_ends_with_sentences(tmp_path: Path) -> None:
    made = project(tmp_path, component(body=DEPLOYMENT.replace("Workload(", "(")))
    ran = CliRunner().invoke(main, ["build", "--project", str(made.root)])
    assert isinstance(ran.exception, SystemExit)
    assert ran.exit_code == 1
    assert "Traceback" not in ran.output


# ---------------------------------------------------------------- the form of a definition


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (component(body=DEPLOYMENT.replace("Workload(", "(")), 'workload= of Component takes Workload("apps/v1", "Deployment"), not tuple'),
        (component().replace('"Serves."', 'f"Limits {p.cpu}"'), "description= of Component is the same for every application"),
        (component().replace('"Serves."', '""'), "description= of Component is empty"),
        (component().replace('name="it"', 'name=f"it-{context.name}"'), "name= of Component is the same for every application"),
        (component().replace('name="it"', "name=p.image"), "name= of Component takes a text, not Reference"),
        (component('labels={"a": f"{p.image}"},\n'), "labels= of Component ['a'] is the same for every application"),
        (component("status={'healthy': True},\n"), "status= of Component takes Status(…), not dict"),
        (component('status=Status(details={f"{p.image}": "x"}),\n'), "has a detail whose name is the same for every application"),
        (component("checks=refuse(p.debug, 'no'),\n"), "checks= of Component takes a list of refusals, not Refusal"),
        (component("checks=['no'],\n"), "checks= of Component [0] takes refuse(condition"),
        (component("outputs=[{}],\n"), "outputs= of Component takes a dict, not list"),
        (component("pod_spec_path=p.image,\n"), "pod_spec_path= of Component takes a text, not Reference"),
        (trait('applies_to="deployments.apps",\n'), "applies_to= of Trait takes a list of texts, not str"),
        (trait('patches=("apps/v1", "Deployment"),\n'), "patches= of Trait takes Workload"),
        (trait('stage="Before",\n'), "stage= of Trait takes one of PreDispatch, DefaultDispatch, PostDispatch"),
        (trait("pod_disruptive='no',\n"), "pod_disruptive= of Trait takes True or False, not str"),
        (component(body=DEPLOYMENT.replace('"Deployment"),', 'f"{p.image}"),')), "(kind of the Workload)"),
    ],
)  # fmt: skip
def test_the_form(tmp_path: Path, text: str, sentence: str) -> None:
    found = problems_of(tmp_path, text)
    assert any(sentence in problem.message for problem in found), found
    place = found[0].place
    word = "Trait(" if "Trait(" in text else "Component("
    assert (place.line, place.column) == spot_of(tmp_path, word)


@pytest.mark.parametrize("name", ["Web_Server", "-web", "web.server", "w" * 64, "Größe"])
def test_a_name_that_kubernetes_does_not_take(tmp_path: Path, name: str) -> None:
    (problem,) = problems_of(tmp_path, component().replace('name="it"', f'name="{name}"'))
    assert "is not a name that Kubernetes takes" in problem.message


def test_a_name_of_kubevelas_own_needs_to_be_meant(tmp_path: Path) -> None:
    text = component().replace('name="it"', 'name="webservice"')
    (problem,) = problems_of(tmp_path, text)
    assert "KubeVela has a component called 'webservice' of its own" in problem.message
    assert "replaces_builtin=True" in problem.hint
    (tmp_path / "schemas/webservice.json").write_text(json.dumps(SCHEMA))
    assert cue_of(tmp_path, text.replace('name="webservice"', 'name="webservice", replaces_builtin=True'))
    # A trait may be called as a component of KubeVela's is.
    (tmp_path / "schemas/webservice.json").write_text(json.dumps(SCHEMA))
    assert cue_of(tmp_path, trait("").replace('name="it"', 'name="webservice"'))


# ---------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("text", "wanted", "sentence"),
    [
        (component(body=DEPLOYMENT.replace('"spec": {\n', '"spec": {\n            "replcas": 1,\n')), '"replcas"', "there is no such field"),
        (component(body=DEPLOYMENT[: DEPLOYMENT.index('        "spec"')] + '        "spec": p,\n    },\n'), '"spec": p', "does not fit"),
        (component(body=DEPLOYMENT.replace("optional(p.replicas)", "'two'")), '"replicas"', "it may be a string, and the field takes an integer"),
        (component(body=DEPLOYMENT.replace("optional(p.replicas)", "p.replicas")), "p.replicas", "may be absent here"),
        (component(body=DEPLOYMENT.replace("optional(p.replicas)", "COUNT"), before="COUNT = p.replicas\n"), '"replicas": COUNT', "may be absent here"),
        (component(body=DEPLOYMENT.replace("optional(p.replicas)", "COUNT"), before="COUNT = p.image\n"), '"replicas": COUNT', "does not fit"),
        (component(body=DEPLOYMENT.replace("p.image}", "p.imgae}")), "p.imgae", "parameter has no 'imgae'"),
        (component(body=DEPLOYMENT.replace("p.image}", "one(p.image)}"), before="def one(x):\n    return x + p.imgae\n"), "p.imgae", "parameter has no 'imgae'"),
        (component(body=DEPLOYMENT.replace("context.name}", "'ä' + context.nmae}")), "context.nmae", "context has no 'nmae'"),
        (component('outputs={"x": {"apiVersion": "v1", "knd": "ConfigMap"}},\n'), '"apiVersion": "v1", "knd"', "kind is missing"),
    ],
)  # fmt: skip
def test_a_problem_is_at_its_line_and_column(tmp_path: Path, text: str, wanted: str, sentence: str) -> None:
    found = [one for one in problems_of(tmp_path, text) if sentence in one.message]
    assert found, problems_of(tmp_path, text)
    assert (found[0].place.line, found[0].place.column) == spot_of(tmp_path, wanted)


def test_a_problem_in_a_shared_module_is_there_and_says_who_uses_it(tmp_path: Path) -> None:
    text = component("outputs=objects(),\n", before="from _shared import objects\n")
    shared = 'def objects():\n    return {"c": {"apiVersion": "v1", "kind": "ConfigMap", "dta": {}}}\n'
    (problem,) = problems_of(tmp_path, text, _shared=shared)
    assert Path(problem.place.file or "").name == "_shared.py"
    assert (problem.place.line, problem.place.column) == spot_of(tmp_path, '"dta"', "_shared.py")
    assert problem.hint == "used by it.py"


def test_a_merged_dict_keeps_the_places_of_its_parts(tmp_path: Path) -> None:
    before = 'more = {\n    "replcas": 1,\n}\n'
    text = component(body=DEPLOYMENT.replace('"spec": {\n', '"spec": {\n            **more,\n'), before=before)
    (problem,) = problems_of(tmp_path, text)
    assert (problem.place.line, problem.place.column) == spot_of(tmp_path, '"replcas"')


# ---------------------------------------------------------------- author's code that fails

_EACH = '"ports": [each(p.ports, {})],'


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("lambda port: port.nmae.upper()", "a template expression has no methods"),
        ("lambda port: 1 / 0", "ZeroDivisionError: division by zero"),
        ("lambda port: {'containerPort': port} if port > 1 else {}", "has no truth value"),
        ("lambda port: {}['x']", "KeyError: 'x'"),
        ("lambda port: {}[f'{port}']", "KeyError"),
        ("lambda: {}", "the function of each(…) takes one argument, and this one 0"),
        ("lambda a, b, c: {}", "the function of each(…) takes one argument, and this one 3"),
        ("lambda port: {'containerPort': {1, 2}}", "set can't stand in a template"),
        ("lambda port: {'containerPort': float('nan')}", "nan is not a JSON number"),
        ("lambda port: {1: 2}", "a field name is text, not int"),
        ("{}", "takes a function, for instance lambda item: …, not dict"),
    ],
)
def test_a_mistake_inside_each(tmp_path: Path, function: str, sentence: str) -> None:
    body = DEPLOYMENT.replace('"image": p.image}', '"image": p.image, optional_ports(): {"ports": PORTS}}')
    body = body.replace("optional_ports()", "when(given(p.ports))")
    before = f"def ports():\n    return [each(p.ports, {function})]\n\n\nPORTS = ports()\n"
    found = problems_of(tmp_path, component(body=body, before=before))
    assert any(sentence in problem.message for problem in found), found
    assert {problem.place.line for problem in found} == {spot_of(tmp_path, "return [each")[0]}


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("if p.debug:\n    pass\n", "has no truth value"),
        ("x = missing_name\n", "NameError"),
        ("import sys\nsys.exit(3)\n", "the module ends the program"),
        ("x = {\n", "invalid Python"),
        ("TABLE = {}\nx = TABLE[f'{p.image}']\n", "KeyError: '{parameter.image}'"),
        ("x = first_given(p.cpu)\n", "first_given needs at least two values"),
        ("def f(): f()\nf()\n", "RecursionError"),
    ],
)
def test_a_module_that_fails(tmp_path: Path, before: str, sentence: str) -> None:
    (problem,) = problems_of(tmp_path, component(before=before))
    assert sentence in problem.message


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("10**5000", "is more than Kubernetes holds"),
        ("deep(900)", "a body is nested too deep, or holds itself"),
        ("cycle()", "a body is nested too deep, or holds itself"),
        ("'\\ud800'", "holds half a surrogate pair"),
        ("'\\ue001'", "or the text holds U+E000"),
        ("b'x'", "bytes can't stand in a template"),
    ],
)
def test_a_value_that_no_file_holds(tmp_path: Path, value: str, sentence: str) -> None:
    before = (
        "def deep(levels):\n    made = 1\n    for _ in range(levels):\n        made = {'a': made}\n    return made\n"
        "def cycle():\n    made = {}\n    made['a'] = made\n    return made\n"
    )
    body = DEPLOYMENT.replace('{"app": context.name}', f'{{"app": {value}}}')
    found = problems_of(tmp_path, component(body=body, before=before))
    assert any(sentence in problem.message for problem in found), found


# ---------------------------------------------------------------- objects


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('outputs={"a": {"apiVersion": "v1", "kind": f"{p.image}"}},\n', "outputs.a.kind is not a constant text"),
        ('outputs={"a": {"apiVersion": "v1", "kind": p.image}},\n', "outputs.a.kind is not a constant text"),
        ('outputs={"a": ["x"]},\n', "outputs.a: an object is a dict with apiVersion and kind, not list"),
        ('outputs={each(p.files): lambda name, text: {name: {"apiVersion": "v1", "kind": "ConfigMap", "dta": {}}}},\n', "outputs.[…].dta: there is no such field; did you mean 'data'?"),
        ('outputs={each(p.files): lambda name, text: {f"x-{name}": {"kind": "ConfigMap"}}},\n', "apiVersion is missing"),
        ('outputs={when(p.debug): {"a": {"apiVersion": "v1", "kind": "ConfigMap", "dta": {}}}},\n', "outputs.a.dta"),
        ('outputs={when(p.debug): {}, otherwise(): {"b": {"apiVersion": "v1", "kind": "ConfigMap", "dta": {}}}},\n', "outputs.b.dta"),
        ('outputs={otherwise(): {}},\n', "otherwise() stands right behind a when(…)"),
        ("status=Status(healthy=p.image),\n", "it may be a string, and the field takes a boolean"),
        ("status=Status(healthy=length(context.name)),\n", "it may be an integer, and the field takes a boolean"),
        ("status=Status(message=p.debug),\n", "it may be a boolean, and the field takes a string"),
        ('status=Status(details={"files": p.files}),\n', "may be absent here"),
        ('status=Status(details={"ports": first_given(p.ports, [])}),\n', "does not fit"),
    ],
)  # fmt: skip
def test_the_objects_of_a_component(tmp_path: Path, more: str, sentence: str) -> None:
    found = problems_of(tmp_path, component(more))
    assert any(sentence in problem.message for problem in found), found


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ('{when(p.debug): {"paused": True}, when(p.debug): {"paused": False}}', "paused has a value already"),
        # Two guards in a row, and a twin after another one.
        ('{when(p.debug & given(p.size)): {"revisionHistoryLimit": 1}, when(p.debug): {}, when(p.debug & given(p.size)): {"revisionHistoryLimit": 2}}', "revisionHistoryLimit has a value already"),
        ('{when(p.debug): {"paused": True}, otherwise(): {"paused": False}}', ""),
        ('{when(p.debug): {"paused": True}, when(given(p.size)): {"paused": True}}', ""),
        ('{when(p.debug): {"paused": True}, when(p.debug): {"revisionHistoryLimit": 2}}', ""),
    ],
)  # fmt: skip
def test_one_condition_twice_gives_a_field_one_value(tmp_path: Path, spec: str, sentence: str) -> None:
    text = component(body=DEPLOYMENT.replace('"spec": {\n', f'"spec": {{\n            **{spec},\n'))
    if not sentence:
        assert cue_of(tmp_path, text)
        return
    found = problems_of(tmp_path, text)
    assert any(sentence in problem.message for problem in found), found


@pytest.mark.parametrize("condition", ["True", "False", "1 > 2"])
def test_a_refusal_depends_on_something(tmp_path: Path, condition: str) -> None:
    found = problems_of(tmp_path, component(f'checks=[refuse({condition}, "no")],\n'))
    assert any("the condition is one on parameter or context" in problem.message for problem in found), found


POD = 'patches=Workload("apps/v1", "Deployment"),\npatch={"spec": {"template": {"spec": {%s}}}},\n'
CONTAINERS = '"containers": merge_by("name", [{"name": context.name, %s}])'


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [
        ('"imagePullSecrets": [{"name": p.image}]', True),
        ('"imagePullSecrets": comment("Why.", [{"name": p.image}])', True),
        ('"imagePullSecrets": merge_by("name", [{"name": p.image}])', False),
        ('"imagePullSecrets": replace_list([{"name": p.image}])', False),
        (CONTAINERS % '"command": ["x"]', True),
        # It has the key of the list in which it lies.
        (CONTAINERS % '"env": [{"name": "A", "value": "b"}]', False),
    ],
)
def test_a_list_in_a_patch_says_what_becomes_of_the_components(tmp_path: Path, fields: str, is_told: bool) -> None:
    text = trait(POD % fields)
    if not is_told:
        assert cue_of(tmp_path, text)
        return
    found = problems_of(tmp_path, text)
    assert any("item by item" in one.message and "replace_list" in one.hint for one in found), found


SEEN = (
    'status=Status(details={"ready": first_given(context.output.status.readyReplicas, 0)}, healthy=%s, message=%s),\n'
)


@pytest.mark.parametrize(
    ("healthy", "message", "sentence"),
    [
        ("True", 'f"{context.status.details.redy}"', "has no 'redy'; did you mean 'ready'?"),
        ("True", "context.status.healthy", "it may be a boolean, and the field takes a string"),
        ("context.status.healthy", '"x"', "context.status is there only in the message of a status"),
    ],
)
def test_a_message_reads_what_was_computed_before_it(tmp_path: Path, healthy: str, message: str, sentence: str) -> None:
    text = cue_of(
        tmp_path,
        component(SEEN % ("True", "if_else(context.status.healthy, f'{context.status.details.ready} ready', '')")),
    )
    assert r'message: [if context.status.healthy {"\(context.status.details.ready) ready"}, ""][0]' in text
    found = problems_of(tmp_path, component(SEEN % (healthy, message)))
    assert any(sentence in problem.message for problem in found), found


@pytest.mark.parametrize(
    ("read", "sentence"),
    [
        ("context.outputs.ojb.status.succeeded", "context.outputs has no 'ojb'; did you mean 'job'?"),
        ("context.outputs.job.status.succeded", "has no 'succeded'; did you mean 'succeeded'?"),
        ("context.outputs.job.metadata.naem", "has no 'naem'"),
        ("context.output.spec.x", "context.output has no 'spec'"),
    ],
)
def test_a_status_reads_what_the_trait_makes(tmp_path: Path, read: str, sentence: str) -> None:
    job = '{"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": []}}}}'
    more = f'outputs={{when(p.debug): {{"job": {job}}}}},\nstatus=Status(healthy=first_given(%s, 0) == 0),\n'
    assert cue_of(tmp_path, trait(more % "context.outputs.job.status.succeeded"))
    found = problems_of(tmp_path, trait(more % read))
    assert any(sentence in problem.message for problem in found), found


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('patch={"spec": {"replicas": 2}},\n', "patch.spec: it isn't said what kind of object is patched"),
        ('patch={when(p.debug): {"spec": {"replicas": 2}}},\n', "patch.spec: it isn't said what kind"),
        ('patch=[{"metadata": {}}],\n', "patch= of Trait takes a dict, not list"),
        ('patch_outputs={"s": {"spec": {"type": "NodePort"}}},\n', "patchOutputs.s.spec: it isn't said what kind"),
        ('patch_outputs={"s": {"metadata": {"lables": {}}}},\n', "patchOutputs.s.metadata.lables: there is no such field"),
        ('patch_outputs={"s": {"apiVersion": "v1", "kind": "Service", "spec": {"tpye": "NodePort"}}},\n', "patchOutputs.s.spec.tpye"),
        ('patch_outputs={p.image: {p.image: 1}},\n', "patchOutputs.[…]"),
        ('patch={"metadata": {"lables": {"a": "b"}}},\n', "patch.metadata.lables: there is no such field"),
        ('patch={"metadata": {"labels": {"a": 1}}},\n', "it may be an integer, and the field takes a string"),
        ('patches=[Workload("apps/v1", "Deployment"), Workload("batch/v1", "Job")], patch={"spec": {"replicas": 2}},\n', "patch.spec.replicas: there is no such field"),
    ],
)  # fmt: skip
def test_what_a_trait_patches(tmp_path: Path, more: str, sentence: str) -> None:
    found = problems_of(tmp_path, trait(more))
    assert any(sentence in problem.message for problem in found), found


def test_a_patch_of_several_kinds_may_write_what_they_share(tmp_path: Path) -> None:
    both = 'patches=[Workload("apps/v1", "Deployment"), Workload("apps/v1", "StatefulSet")],\n'
    assert "replicas: 2" in cue_of(tmp_path, trait(both + 'patch={"spec": {"replicas": 2}},\n'))
    assert cue_of(tmp_path, trait('patch={"metadata": {"labels": {"a": p.image}}},\n'))
    of_a_service = '{"apiVersion": "v1", "kind": "Service", "spec": {"type": retain_keys("NodePort")}}'
    assert cue_of(tmp_path, trait(f'patch_outputs={{"s": {of_a_service}}},\n'))


# ---------------------------------------------------------------- types of a schema


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ('"name": "web", "resources": {"limits": {"cpu": %s}}', "optional(p.cpu)"),
        ('"name": %s', "first_given(p.size, 'x')"),
        ('"name": %s', "first_given(p.tier, 'x')"),
        ('"name": %s', "first_given(p.store.kind, 'x')"),
        ('"name": %s', "first_given(p.store.bucket, 'x')"),
    ],
)
def test_types_of_alternatives_and_constants_fit(tmp_path: Path, field: str, value: str) -> None:
    container = '{"name": "web", "image": p.image}'
    assert container in DEPLOYMENT
    body = DEPLOYMENT.replace(container, '{"image": p.image, ' + field % value + "}")
    assert cue_of(tmp_path, component(body=body))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("optional(p.cpu)", "it may be a string, and the field takes an integer"),
        ("first_given(p.size, 1)", "it may be a string, and the field takes an integer"),
        ("first_given(p.tier, 1)", "it may be a string, and the field takes an integer"),
        ("first_given(p.store.kind, 1)", "it may be a string, and the field takes an integer"),
        ("if_else(first_given(p.store.kind, 's3') == 'gcs', 1, 2)", "is never 'gcs'"),
        ("if_else(first_given(p.size, 'big') == 'huge', 1, 2)", "is never 'huge'"),
        ("optional(p.store.buket)", "parameter.store has no 'buket'; did you mean 'bucket'?"),
        ("choose(first_given(p.size, 'big'), {'big': 1})", "has no entry for 'small'"),
    ],
)
def test_types_of_alternatives_and_constants_are_checked(tmp_path: Path, value: str, sentence: str) -> None:
    body = DEPLOYMENT.replace("optional(p.replicas)", value)
    found = problems_of(tmp_path, component(body=body))
    assert any(sentence in problem.message for problem in found), found


# ---------------------------------------------------------------- intermediates


def test_an_intermediate_is_called_as_its_variable(tmp_path: Path) -> None:
    before = 'FULL_IMAGE = let(f"{p.image}:1")\n\n\ndef name():\n    pod_name = let(f"{context.name}-pod")\n    return pod_name\n'
    body = DEPLOYMENT.replace('"web", "image": p.image', 'name(), "image": FULL_IMAGE')
    text = cue_of(tmp_path, component(body=body, before=before))
    assert 'let fullImage = "\\(parameter.image):1"' in text
    assert 'let podName = "\\(context.name)-pod"' in text


def test_an_intermediate_that_is_called_as_a_field_gets_another_name(tmp_path: Path) -> None:
    body = DEPLOYMENT.replace("optional(p.replicas)", "replicas")
    text = cue_of(tmp_path, component(body=body, before="replicas = let(first_given(p.replicas, 1))\n"))
    assert "let replicas2 = " in text
    assert re.search(r"replicas: +replicas2", text)


def test_a_table_is_called_as_its_variable(tmp_path: Path) -> None:
    before = """
TIERS = {"small": 1, "big": 3}
tier = let(choose(first_given(p.size, "small"), TIERS))
image = let(choose(p.image, TIERS, 0))
other = let(choose(p.image, {"x": 1}, 0))
"""
    body = DEPLOYMENT.replace("optional(p.replicas)", "tier + image + other")
    text = cue_of(tmp_path, component(body=body, before=before))
    assert text.count("let tiers = {") == 1
    assert "let otherByImage = {" in text
    # A field is called image.
    assert "let image2 = *tiers[parameter.image] | 0" in text


def test_two_intermediates_of_one_name_are_told_apart(tmp_path: Path) -> None:
    before = "def one(x):\n    made = let(x)\n    return made\n"
    body = DEPLOYMENT.replace('"web", "image": p.image', 'one(context.name), "image": one(p.image)')
    text = cue_of(tmp_path, component(body=body, before=before))
    assert "let made = context.name" in text
    assert "let made2 = parameter.image" in text


def test_an_intermediate_has_no_part_in_a_loop(tmp_path: Path) -> None:
    before = "def one(port):\n    made = let(port + 1)\n    return {'containerPort': made}\n"
    image = '"image": p.image'
    body = DEPLOYMENT.replace(image, image + ', when(given(p.ports)): {"ports": [each(p.ports, one)]}')
    (problem,) = problems_of(tmp_path, component(body=body, before=before))
    assert problem.message == "port of an each(…) is not there: an intermediate is computed before all loops"


def test_a_problem_of_an_intermediate_is_told_however_it_is_used(tmp_path: Path) -> None:
    body = DEPLOYMENT.replace("optional(p.replicas)", "first_given(config.count, 1)")
    found = problems_of(tmp_path, component(body=body, before='config = let({"count": p.replcas})\n'))
    assert any("parameter has no 'replcas'" in problem.message for problem in found), found


# ---------------------------------------------------------------- workflow steps


def step(body: str) -> str:
    return f'it = WorkflowStep(\n    name="it",\n    description="Does.",\n    body={{{body}}},\n)\n'


_READ = '"read": operation("vela/kube", "#Read", {"value": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}}),'


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('"w": operation("vela/builtin", "#ConditonalWait", {"continue": p.debug})', "vela/builtin has no '#ConditonalWait'; did you mean '#ConditionalWait'?"),
        ('"w": operation("vela/bultin", "#Fail", {})', "KubeVela has no package 'vela/bultin'; did you mean 'vela/builtin'?"),
        ('"w": operation("vela/op", "#Apply", {})', "vela/op is the old form"),
        ('"w": operation("vela/builtin", "#ConditionalWait", {"contnue": p.debug})', "#ConditionalWait.$params.contnue: there is no such field; did you mean 'continue'?"),
        ('"w": operation("vela/builtin", "#ConditionalWait", {"continue": p.image})', "#ConditionalWait.$params.continue: parameter.image does not fit"),
        ('"w": operation("vela/kube", "#Read", {})', "#Read.$params.value is missing"),
        ('"w": operation("vela/metrics", "#PromCheck", {"query": "up"})', "#PromCheck.$params.condition is missing"),
        ('"w": operation("vela/http", "#HTTPPost", {"url": p.image})', "#HTTPPost of vela/http sends GET"),
        ('"w": operation("vela/http", "#HTTPDo", {"url": p.image, "method": "PATCH"})', "it may be 'PATCH', and the field takes one of"),
        ('"w": operation("vela/multicluster", "#GetPlacementsFromTopologyPolicies", {"policies": []})', "is not in KubeVela 1.10.9"),
        ('"w": operation("vela/kube", "#Apply", {"value": {"apiVersion": "v1", "kind": "ConfigMap", "dta": {}}})', "#Apply.$params.value.dta: there is no such field"),
        (_READ + '"m": first_given(result_of("raed")["$returns"].value.data.x, "")', "this step has no 'raed'; did you mean 'read'?"),
        (_READ + '"m": first_given(result_of("read").value.data.x, "")', "read has no 'value': an operation's answer is below $returns"),
        (_READ + '"m": first_given(result_of("read")["$returns"].vlue, "")', "has no 'vlue'"),
        (_READ + '"m": first_given(result_of("read")["$returns"].value.dta, "")', "has no 'dta'; did you mean 'data'?"),
        (_READ + '"m": result_of("read")["$returns"].value.data.x', "may be absent here"),
        ('"f": operation("vela/builtin", "#Fail", {}), "m": first_given(result_of("f")["$returns"].x, "")', "has no '$returns'"),
    ],
)  # fmt: skip
def test_a_step_is_checked_like_an_object(tmp_path: Path, body: str, sentence: str) -> None:
    found = problems_of(tmp_path, step(body))
    assert any(sentence in problem.message for problem in found), found


_DO = '"do": operation("vela/http", "#HTTPDo", {"url": p.image}),'
_POD = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}'
_ENDPOINTS = '"do": operation("vela/query", "#CollectServiceEndpoints", {"app": {"name": "a", "namespace": "b", "withTree": True}}),'
_LOGS = '"do": operation("vela/query", "#CollectLogsInPod", {"cluster": "", "namespace": "x", "pod": "y", "options": {"container": "c"}}),'
_LIST = '"do": operation("vela/kube", "#List", {"resource": {"apiVersion": "v1", "kind": "Pod"}}),'
_PATCH = f'"do": operation("vela/kube", "#Patch", {{"value": {_POD}, "patch": {{}}}}),'


@pytest.mark.parametrize(
    ("before", "right", "wrong", "sentence"),
    [
        (_DO, ".statusCode", ".statuscode", "do.$returns has no 'statuscode'; did you mean 'statusCode'?"),
        (_DO, '.header["x"][0]', '["boddy"]', "do.$returns has no 'boddy'; did you mean 'body'?"),
        (_DO.replace("operation", "once(operation").replace("}),", "})),"), ".body", ".bdy", "do.$returns has no 'bdy'"),
        (_LOGS, ".outputs.logs", ".outputs.log", "do.$returns.outputs has no 'log'; did you mean 'logs'?"),
        (_ENDPOINTS, ".list[0].endpoint.host", ".list[0].endpont.host", "do.$returns.list[0] has no 'endpont'"),
        (_ENDPOINTS, ".list[0].ref.name", ".list[0].endpoint.hst", "do.$returns.list[0].endpoint has no 'hst'"),
        (_LIST, ".values.items[0].status.phase", ".values.itms", "do.$returns.values has no 'itms'; did you mean 'items'?"),
        (_LIST, ".values.metadata.resourceVersion", ".values.items[0].staus.phase", "do.$returns.values.items[0] has no 'staus'"),
        (_PATCH, ".result.status.phase", ".result.staus.phase", "do.$returns.result has no 'staus'"),
        ('"do": operation("vela/multicluster", "#Deploy", {"policies": [], "inlinePolicies": [], "parallelism": 1, "ignoreTerraformComponent": True}),', ".anything", "", ""),
        ('"do": operation("vela/oam", "#LoadComponets", {}),', ".value.web.properties.image", ".valu", "has no 'valu'"),
    ],
)  # fmt: skip
def test_an_answer_has_what_the_engine_fills_in(
    tmp_path: Path, before: str, right: str, wrong: str, sentence: str
) -> None:
    body = before + '"m": first_given(result_of("do")["$returns"]%s, "")'
    assert cue_of(tmp_path, step(body % right))
    if wrong:
        found = problems_of(tmp_path, step(body % wrong))
        assert any(sentence in problem.message for problem in found), found


def test_a_condition_on_a_result_is_not_at_the_top(tmp_path: Path) -> None:
    before = 'seen = let(first_given(result_of("read")["$returns"].err, ""))\n'
    fail = 'when(seen != ""): {"fail": operation("vela/builtin", "#Fail", {})}'
    found = problems_of(tmp_path, before + step(_READ + fail))
    assert any("can't stand at the top of a step" in problem.message for problem in found), found
    assert cue_of(tmp_path, before + step(f'{_READ} "then": {{{fail}}}'))
    # That an answer is there is decided at any time.
    whether = 'when(given(result_of("read")["$returns"].err)): {"fail": operation("vela/builtin", "#Fail", {})}'
    assert cue_of(tmp_path, step(_READ + whether))


def test_an_operation_that_is_done_once_answers_as_the_operation_does(tmp_path: Path) -> None:
    body = '"sendMail": once(operation("vela/http", "#HTTPDo", {"url": p.image})), "m": first_given(SENT.%s, 0)'
    before = 'SENT = result_of("sendMail")\n'
    text = cue_of(tmp_path, before + step(body % '["$returns"].statusCode').replace("SENT.[", "SENT["))
    assert 'name: "once-\\(context.stepSessionID)-send-mail"' in text
    (problem,) = problems_of(tmp_path, before + step(body % "statusCode"))
    assert problem.hint == "write result_of('sendMail')[\"$returns\"].statusCode"


def test_the_session_of_a_step_is_known_in_a_step_only(tmp_path: Path) -> None:
    found = problems_of(tmp_path, component(before="").replace("context.name", "context.stepSessionID"))
    assert any("context.stepSessionID is there only in a workflow step" in problem.message for problem in found), found


def test_an_operation_outside_a_step_is_refused(tmp_path: Path) -> None:
    body = DEPLOYMENT.replace("optional(p.replicas)", 'operation("vela/kube", "#Apply", {})')
    found = problems_of(tmp_path, component(body=body))
    assert any("belongs to the body of a workflow step" in problem.message for problem in found), found


def test_a_list_is_written_in_the_form_that_works(tmp_path: Path) -> None:
    body = '"pods": operation("vela/kube", "#List", {"resource": {"apiVersion": "v1", "kind": "Pod"}}),'
    text = cue_of(tmp_path, step(body))
    assert '#do:       "list"' in text
    assert "value: {" in text
    assert "resource:" not in text


# ---------------------------------------------------------------- what is in the wrong place, or makes nothing

CONFIG = '"apiVersion": "v1", "kind": "ConfigMap"'


def config(data: str) -> str:
    """A trait that makes a ConfigMap with this data."""
    head = '"apiVersion": "v1",\n        "kind": "ConfigMap",\n        "metadata": {"name": context.name},'
    return trait(f'    outputs={{"config": {{\n        {head}\n        "data": {data},\n    }}}},\n')


@pytest.mark.parametrize(
    ("text", "at", "sentence"),
    [
        (config("{each(p.files): lambda key, value, more: {key: value}}"), "lambda key", "the function of each(…) takes 2 arguments, and this one 3"),
        (config("{each(p.files): lambda: {}}"), "lambda:", "the function of each(…) takes 2 arguments, and this one 0"),
        (config("{each(p.files): lambda key, value: None}"), "lambda key", "the function of each(…) gives a dict of fields, and this one None"),
        (config("{each(p.files): lambda key, value: [value]}"), "lambda key", "gives a dict of fields, and this one [value]"),
        (config('{when(p.debug, "x"): {"a": "b"}}'), "when(p.debug", "as a key write when(condition): {…}; with a value it is an item of a list"),
        (config('{"a": never("no")}'), '"a": never', "never(…) has a meaning in a component's output only"),
        (config('{"a": f"{p.ports[0] / 0}"}'), "p.ports[0] / 0", "nothing can be divided by 0"),
        (trait('    outputs={each(p.files): lambda key, value: {"same": {' + CONFIG + "}}},\n"), '"same"', "outputs.same: each entry would make an object of this one name"),
        (step('        "make": {' + CONFIG + '},\n'), '"make"', "step.make: nothing is done with this object"),
        (component("    status=Status(healthy=first_given(context.output.status.replicas, 0)),\n"), "first_given", "healthy=: context.output.status.replicas does not fit"),
        (component() + "more = Trait(name='more', description='Another.')\n", "Trait(", "the module holds 2 definitions"),
        (component().replace('name="it"', 'name="other"'), "Component(", "other has no schema"),
    ],
)  # fmt: skip
def test_what_does_nothing_where_it_stands_is_told_there(tmp_path: Path, text: str, at: str, sentence: str) -> None:
    found = {one.message: (one.place.line, one.place.column) for one in problems_of(tmp_path, text)}
    said = next((message for message in found if sentence in message), None)
    assert said is not None, list(found)
    line, column = spot_of(tmp_path, at)
    assert found[said][0] == line
    if at not in {"first_given", '"same"', "p.ports[0] / 0"}:
        assert found[said][1] == column


def test_the_hint_for_an_item_of_a_list_asks_for_its_length(tmp_path: Path) -> None:
    row = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    schema = {**SCHEMA, "required": [], "properties": {"rows": {"type": "array", "minItems": 1, "items": row}}}
    (problem,) = problems_of(tmp_path, config('{when(given(p.rows)): {"a": p.rows[1].name}}'), schema=schema)
    assert problem.message.startswith("parameter.rows[1].name may be absent here")
    assert problem.hint.startswith("write when(length(…) > …) around it")


def test_what_is_wrong_in_sort_by_is_told_once(tmp_path: Path) -> None:
    row = {"type": "object", "additionalProperties": False, "properties": {"name": {"type": "string"}}}
    schema = {**SCHEMA, "required": ["rows"], "properties": {"rows": {"type": "array", "items": row}}}
    text = config('{"a": to_json(sort_by(p.rows, lambda row: row.nam))}')
    (problem,) = problems_of(tmp_path, text, schema=schema)
    assert "has no 'nam'; did you mean 'name'?" in problem.message


# ---------------------------------------------------------------- CUE of an author's own


def _with(value: str) -> str:
    return component(body=DEPLOYMENT.replace("optional(p.replicas)", value))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (_with('raw_cue("1 +")'), "raw_cue: missing ',' in struct literal"),
        (_with('raw_cue("1}, x: {1")'), "expected ')'"),
        (_with('raw_cue("1 // one")'), "expected ')'"),
        (_with('raw_cue("nope")'), 'raw_cue: reference "nope" not found'),
        (_with('if_else(p.debug, raw_cue("nope"), 1)'), 'reference "nope" not found'),
        (_with('raw_cue("parameter.imgae")'), "undefined field: imgae"),
        (_with('raw_cue("parameter.image")'), "conflicting values string and int"),
        (_with("""raw_cue('"text"')"""), 'conflicting values "text" and int'),
        (_with('raw_cue("len(strings.Split(parameter.image))")'), 'reference "strings" not found'),
        (_with('raw_cue("1", imports=("strings",))'), 'imported and not used: "strings"'),
        (_with('if_else(raw_cue("1"), 2, 1)'), "cannot use 1 (type int) as type bool"),
        (config('{each(p.files): lambda key, value: {key: raw_cue(f"nope + {value}")}}'), 'reference "nope" not found'),
        (config('{each(p.files): lambda key, value: {key: raw_cue("1")}}'), "conflicting values 1 and string"),
        (component('    status=Status(healthy=raw_cue("nope")),\n'), 'reference "nope" not found'),
        (component('    checks=[refuse(raw_cue("nope"), "no")],\n'), 'reference "nope" not found'),
        (component('    outputs={"a": raw_cue("1")},\n'), "conflicting values 1 and {...}"),
        (step('"do": operation("vela/http", "#HTTPDo", {"url": raw_cue("nope")})'), 'reference "nope" not found'),
    ],
)  # fmt: skip
def test_raw_cue_is_judged_at_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    found = problems_of(tmp_path, text)
    assert [sentence in problem.message for problem in found] == [True], found
    assert (found[0].place.line, found[0].place.column) == spot_of(tmp_path, "raw_cue(")


@pytest.mark.parametrize(
    "text",
    [
        _with('raw_cue("parameter.replicas")'),
        _with('cases((given(p.ports), raw_cue(f"{length(p.ports)} + 1")), otherwise=raw_cue("1"))'),
        _with("""first_given(raw_cue("context.output.status.replicas"), raw_cue("div(7, 2)"))""").replace("first_given(", "if_else(p.debug, "),
        config('{each(p.files): lambda key, value: {key: raw_cue(f"{value} + {key}")}}'),
        component('    status=Status(message=raw_cue("context.output.status.url"), healthy=raw_cue("context.output.status.ok")),\n'),
        step('"do": operation("vela/http", "#HTTPDo", {"url": p.image}), "m": raw_cue("do.$returns.body")'),
    ],
)  # fmt: skip
def test_right_raw_cue_builds(tmp_path: Path, text: str) -> None:
    assert cue_of(tmp_path, text)


# ---------------------------------------------------------------- what Python would decide by itself, and wrongly


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("1 if p.replicas is None else 2", "parameter.replicas is an expression, and never None: write missing(…)"),
        ("1 if p.replicas is not None else 2", "never None"),
        ("1 if p.image in {'a': 1} else 2", "Python can't know whether parameter.image is in it: write one_of(…)"),
        ("1 if p.image not in {'a'} else 2", "Python can't know whether parameter.image is in it"),
        ("{'a': 1}.get(p.image, 2)", "Python finds no parameter.image in a dict: write choose(key, table, default)"),
        ("1 if f'{p.image}' == 'a' else 2", "Python can't answer == of a text with expressions in it"),
        ("1 if 'a' in f'{p.image}' else 2", "Python can't answer in of a text with expressions in it"),
        ("1 if f'{p.image}'.startswith('a') else 2", "write has_prefix(text, …)"),
        ("len(f'{p.image}')", "use length(…) instead of len(…)"),
        ("f'{p.image!r}'", "!r would write parameter.image itself into the text"),
        ("repr(p.image)", "repr would write parameter.image itself into the text"),
    ],
)
def test_python_does_not_answer_for_a_user(tmp_path: Path, value: str, sentence: str) -> None:
    (problem,) = problems_of(tmp_path, _with(value))
    assert sentence in problem.message
    assert problem.place.line == spot_of(tmp_path, '"replicas"')[0]


def test_a_helper_asks_its_own_arguments(tmp_path: Path) -> None:
    before = (
        "def one(value=None, table={'a': 1}):\n    if value is None or 'b' in table:\n        return table.get('a')\n"
        "    return first_given(value, len('x'))\n"
    )
    text = cue_of(tmp_path, component(before=before, body=DEPLOYMENT.replace("optional(p.replicas)", "one()")))
    assert "replicas: 1" in text
    assert cue_of(
        tmp_path, component(before=before, body=DEPLOYMENT.replace("optional(p.replicas)", "one(p.replicas)"))
    )


@pytest.mark.parametrize(
    ("text", "at", "sentence"),
    [
        (_with("1, 'replicas': 2").replace("'replicas'", '"replicas"'), '"replicas": 2', "'replicas' stands twice in this dict"),
        (_with("1, when(p.debug): {'replicas': 2}"), "'replicas': 2", "output.spec.replicas has a value already"),
        (component(body=DEPLOYMENT.replace('            "selector": {"matchLabels": {"app": context.name}},\n', "")), '"apiVersion"', "output.spec.selector is missing"),
        (component(body=DEPLOYMENT.replace('"name": "web", ', "")), '"apiVersion"', "output.spec.template.spec.containers[].name is missing"),
        (component(body=DEPLOYMENT.replace("context.name", '"no label!"')), '"apiVersion"', "output.spec.selector.matchLabels: 'no label!' is not a valid label value"),
        (component('    outputs={"a": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "No_Name"}}},\n'), '"apiVersion": "v1"', "outputs.a.metadata.name: 'No_Name' is not a valid object name"),
        (component('    outputs={"a": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {"a b": "c"}}}},\n'), '"apiVersion": "v1"', "outputs.a.metadata.labels: 'a b' is not a valid key"),
        (_with("div(4, 0)"), "div(4", "nothing can be divided by 0"),
        (config('{"a": replace_pattern(p.image, "(a)", "$2")}'), "replace_pattern", "'(a)' has no group '2'"),
        (config('{"a": replace_pattern(p.image, "(a)", "$1x")}'), "replace_pattern", "has no group '1x'"),
        (config('{"a": replace_pattern(p.image, "(a)", r"\\1")}'), "replace_pattern", "names a group as Python does"),
        (step('"w": operation("vela/builtin", "#ConditionalWait", {"message": "x"})'), "operation", "#ConditionalWait.$params.continue is missing: without it the step waits for ever"),
        (step('"w": operation("vela/kube", "#Apply", {"value": {"apiVersion": "v1", "kind": "ConfigMap"}})'), "operation", "#Apply.$params.value.metadata.name is missing"),
        (step('"a": "b"'), '"a"', "the step holds no operation, so it does nothing"),
        (step(""), "WorkflowStep", "the step holds no operation"),
    ],
)  # fmt: skip
def test_what_would_fail_on_the_cluster_alone(tmp_path: Path, text: str, at: str, sentence: str) -> None:
    found = [one for one in problems_of(tmp_path, text) if sentence in one.message]
    assert found, problems_of(tmp_path, text)
    assert found[0].place.line == spot_of(tmp_path, at)[0]


@pytest.mark.parametrize("new", ["${1}x", "$1-x", "$$", "$0", "plain"])
def test_groups_that_a_pattern_has(tmp_path: Path, new: str) -> None:
    assert cue_of(tmp_path, config(f'{{"a": replace_pattern(p.image, "(a)", "{new}")}}'))


#: Each has a list that lies inside an intermediate, and is written as it is.
LISTS = [
    "let({'a': {'args': ['x', 'y']}}, name='made').a.args",
    "let(let({'a': {'args': ['x', 'y']}}, name='made').a.args, name='again')",
    "let([{'args': ['x', 'y']}], name='made')[0].args",
]


@pytest.mark.slow
@pytest.mark.parametrize("kubevela", [one.version for one in RELEASES])
@pytest.mark.parametrize("value", LISTS)
def test_a_list_inside_an_intermediate_renders(tmp_path: Path, value: str, kubevela: str) -> None:
    """CUE 0.14 shares it with the field, and vela of KubeVela 1.11, which asks for the path of each value, panics."""
    body = DEPLOYMENT.replace(
        '"kind": "Deployment",', f'"kind": "Deployment",\n        "metadata": {{"finalizers": {value}}},'
    )
    made = [one.known() for one in build_definitions(project(tmp_path, component(body=body)))]
    text = """{"apiVersion": "core.oam.dev/v1beta1", "kind": "Application", "metadata": {"name": "m"}, "spec":
        {"components": [{"name": "m", "type": "it", "properties": {"image": "web:1"}}]}}"""
    (document,) = parse_documents(text, "app.yaml")
    outcome = dry_run(document, Catalog.of(made), kubevela=kubevela)
    assert not outcome.problems, outcome.raw
    assert outcome.objects[0].content["metadata"]["finalizers"] == ["x", "y"]
