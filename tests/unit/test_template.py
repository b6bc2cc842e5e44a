"""Templates: what they compile to, and what is refused before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from velagen import (
    as_string,
    choose,
    comment,
    context,
    cue,
    each,
    first_given,
    given,
    if_else,
    join,
    length,
    let,
    matches,
    merge_by,
    missing,
    never,
    optional,
    raw_cue,
    refuse,
    retain_keys,
    when,
)
from velagen import (
    parameter as p,
)
from velagen.errors import Problem
from velagen.schema import parse_schema
from velagen.template.compiler import TemplateCompiler, parameter_type
from velagen.template.types import ObjectType

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["modelUri", "runtime"],
    "properties": {
        "modelUri": {"type": "string"},
        "runtime": {"type": "string", "enum": ["triton", "sklearn"]},
        "port": {"type": "integer", "default": 8080},
        "replicas": {"type": "integer"},
        "verbose": {"type": "boolean", "default": False},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "odd-name": {"type": "string"},
        "env": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
            },
        },
        "logger": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"url": {"type": "string"}, "mode": {"type": "string", "default": "all"}},
        },
    },
}

WIDGET = {
    "type": "object",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "properties": {
                "uri": {"type": "string"},
                "replicas": {"type": "integer"},
                "ratio": {"type": "number"},
                "mode": {"type": "string", "enum": ["all", "some"]},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "port": {"x-kubernetes-int-or-string": True},
                "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "env": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                    },
                },
            },
        },
        "status": {"type": "object", "properties": {"url": {"type": "string"}}},
    },
}


def compiler() -> TemplateCompiler:
    return TemplateCompiler(
        parameter=parameter_type(parse_schema(SCHEMA).shape),
        output=ObjectType(WIDGET, is_root=True),
        object_schemas=lambda _, kind: WIDGET if kind == "Widget" else None,
    )


def widget(spec: dict[Any, Any]) -> dict[str, Any]:
    return {"apiVersion": "example.org/v1", "kind": "Widget", "spec": spec}


def spec_of(spec: dict[Any, Any]) -> str:
    """The CUE of a widget's spec, one line a field, indentation removed; there must be no problem."""
    build = compiler()
    body = build.manifest(widget(spec), what="output")
    assert build.problems == []
    assert isinstance(body, cue.Struct)
    (inside,) = [decl.value for decl in body.decls if isinstance(decl, cue.Field) and decl.label == "spec"]
    assert isinstance(inside, cue.Struct)
    text = cue.to_cue(cue.File((*build.intermediates(), *inside.decls)))
    return "\n".join(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("import"))


def problems_of(body: object) -> list[Problem]:
    build = compiler()
    build.manifest(body, what="output")
    return build.problems


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"uri": p.modelUri}, "uri: parameter.modelUri"),
        ({"replicas": optional(p.replicas)}, "if parameter.replicas != _|_ {replicas: parameter.replicas}"),
        ({"uri": f"{context.name}-x"}, 'uri: "\\(context.name)-x"'),
        ({"uri": as_string(p.port)}, 'uri: "\\(parameter.port)"'),
        ({"ratio": p.port * 0.8}, "ratio: (parameter.port) * 0.8"),
        (
            {"uri": first_given(p.logger.url, "none")},
            'uri: [if parameter.logger.url != _|_ {parameter.logger.url}, "none"][0]',
        ),
        ({"uri": if_else(p.port > 80, "a", "b")}, 'uri: [if parameter.port > 80 {"a"}, "b"][0]'),
        (
            {"uri": choose(p.runtime, {"triton": "x", "sklearn": "y"})},
            'let byRuntime = {triton: "x", sklearn: "y"}\nuri: byRuntime[parameter.runtime]',
        ),
        (
            {"uri": choose(p.modelUri, {"a": "x"}, default="z")},
            'let byModelUri = {\na: "x"\n}\n'
            'uri: [if byModelUri[parameter.modelUri] != _|_ {byModelUri[parameter.modelUri]}, "z"][0]',
        ),
        (
            {"labels": {each(p.labels): lambda key, value: {key: value}}},
            "labels: {\nif parameter.labels != _|_ for key, value in parameter.labels {(key): value}\n}",
        ),
        (
            {"env": [each(p.env, lambda item: {"name": item.name, "value": optional(item.value)})]},
            "env: [if parameter.env != _|_ for item in parameter.env {\nname: item.name\n"
            "if item.value != _|_ {value: item.value}\n}]",
        ),
        (
            {"env": [each(p.env, lambda item: {"name": item.name}, where=lambda item: matches(item.name, "^A"))]},
            'env: [if parameter.env != _|_ for item in parameter.env if item.name =~ "^A" {name: item.name}]',
        ),
        ({"env": [when(p.verbose, {"name": "V"})]}, 'env: [if parameter.verbose {name: "V"}]'),
        (
            {when(given(p.replicas) & (p.replicas > 2)): {"mode": "all"}},
            'if parameter.replicas != _|_ if parameter.replicas > 2 {mode: "all"}',
        ),
        # No field that the kind has: what a trait writes there is dropped by the API server.
        ({"template": never("no pods here")}, 'template?: "no pods here"'),
        ({"port": 80}, "port: 80"),
        ({"port": "http"}, 'port: "http"'),
        ({"replicas": length(p.modelUri)}, "replicas: len(parameter.modelUri)"),
    ],
)
def test_compiles_to(spec: dict[Any, Any], text: str) -> None:
    assert spec_of(spec) == text


@pytest.mark.parametrize(
    "spec",
    [
        {"uri": optional(p["odd-name"])},
        {when(missing(p.replicas) & ~p.verbose): {"mode": "all"}},
        {"anything": {"goes": {"here": [1, "a", None]}}},
        {"uri": raw_cue('strings.ToLower("X")', imports=("strings",))},
        {"labels": optional(p.labels)},
        {"env": optional(p.env)},
        {"env": [each(first_given(p.env, []), lambda item: {"name": item.name})]},
    ],
)
def test_is_accepted(spec: dict[Any, Any]) -> None:
    assert problems_of(widget(spec)) == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (widget({"urri": "x"}), "output.spec.urri: there is no such field; did you mean 'uri'?"),
        (widget({"uri": p.modelUrl}), "parameter has no 'modelUrl'; did you mean 'modelUri'?"),
        (widget({"uri": p.logger.mode}), "parameter.logger.mode may be absent here"),
        (widget({"replicas": p.replicas}), "parameter.replicas may be absent here"),
        (widget({"replicas": p.modelUri}), "output.spec.replicas: parameter.modelUri does not fit: it may be a string"),
        (widget({"uri": p.port}), "output.spec.uri: parameter.port does not fit: it may be an integer"),
        (widget({"mode": "none"}), "it may be 'none', and the field takes one of 'all', 'some'"),
        (widget({"uri": {"a": 1}}), "output.spec.uri: an object is written where the field takes string"),
        (widget({"uri": ["a"]}), "output.spec.uri: a list is written where the field takes string"),
        (widget({"labels": optional(p.env)}), "output.spec.labels: parameter.env does not fit"),
        (widget({"env": optional(p.labels)}), "output.spec.env: parameter.labels does not fit"),
        (widget({"uri": optional(p.modelUri)}), "all that this value refers to always exists"),
        (widget({"uri": choose(p.runtime, {"triton": "x"})}), "has no entry for 'sklearn'"),
        (widget({"uri": choose(p.modelUri, {"a": "x"})}), "may be asked for any text"),
        (
            widget({"uri": if_else(p.runtime == "tritn", "a", "b")}),
            "parameter.runtime is never 'tritn'; did you mean 'triton'",
        ),
        (widget({"uri": if_else(p.modelUri == 1, "a", "b")}), "parameter.modelUri and 1 are never of the same type"),
        (widget({"uri": if_else(p.port, "a", "b")}), "parameter.port is not a condition"),
        (widget({"ratio": p.modelUri * 2}), "parameter.modelUri is not a number"),
        (widget({"uri": f"x-{p.labels}"}), "parameter.labels may be absent here"),
        (widget({"uri": context.nme}), "context has no 'nme'; did you mean 'name'?"),
        (widget({"uri": context.output.spec.urri}), "context.output.spec has no 'urri'; did you mean 'uri'?"),
        (widget({"uri": object()}), "output.spec.uri: object can't stand in a template"),
        (widget({"uri": when(p.verbose, "x")}), "output.spec.uri: when(…) can't stand here"),
        ({"apiVersion": "example.org/v1", "kind": "Gadget"}, "nothing is known of Gadget in example.org/v1"),
    ],
)
def test_is_refused_with_a_sentence_and_a_line(body: object, sentence: str) -> None:
    found = problems_of(body)
    assert any(sentence in problem.message for problem in found), found


def test_a_problem_knows_the_line_of_the_definition() -> None:
    wrong = p.modelUrl
    (problem,) = problems_of(widget({"uri": wrong}))
    assert (problem.place.file, problem.place.column) == (__file__, 13)
    assert "wrong = p.modelUrl" in open(__file__, encoding="utf-8").read().splitlines()[problem.place.line - 1]  # type: ignore[operator]  # noqa: SIM115, PTH123


def test_an_intermediate_is_written_once_and_only_if_used() -> None:
    name = let(f"{context.name}-predictor", name="service")
    let("x", name="unused")
    text = spec_of({"uri": name, "labels": {"a": f"{name}-1"}})
    assert text.count("let ") == 1
    assert text.startswith('let service = "\\(context.name)-predictor"')
    assert 'a: "\\(service)-1"' in text


def test_an_intermediate_has_a_comment_in_lines_that_can_be_read() -> None:
    name = let(comment("why " * 40, f"{context.name}-predictor"), name="service")
    text = spec_of({"uri": comment("where " * 40, name)})
    first, second, rest = text.split("\n", 2)
    assert first.startswith("// why why")
    assert second.startswith("// why why")
    assert rest.startswith('let service = "\\(context.name)-predictor"')
    assert all(len(line) < 140 for line in text.splitlines())


@pytest.mark.parametrize(
    ("condition", "written"),
    [
        (~(p.runtime == "triton"), 'if parameter.runtime != "triton" {'),
        (~((p.runtime == "triton") & (p.port > 80)), 'if parameter.runtime != "triton" || (parameter.port) <= 80 {'),
        (~matches(p.modelUri, "^s3:"), 'if parameter.modelUri !~ "^s3:" {'),
        (~p.verbose, "if !parameter.verbose {"),
        # What is compared may be absent; a default that is not among the texts asked for says no more.
        (
            first_given(p["odd-name"], "") == "x",
            'if parameter."odd-name" != _|_ if parameter."odd-name" == "x" {',
        ),
        (first_given(p["odd-name"], "x") == "x", '][0] == "x" {'),
    ],
)
def test_a_condition_reads_as_one_says_it(condition: Any, written: str) -> None:
    assert written.replace("(parameter.port)", "parameter.port") in spec_of({when(condition): {"mode": "all"}})


def test_what_falls_back_on_what_may_be_absent_is_one_list() -> None:
    fallback = choose(p.runtime, {"triton": "v2"}, first_given(p.logger.url, "none"))
    text = spec_of({"uri": first_given(p["odd-name"], fallback)})
    assert text.count("][0]") == 1


def test_an_intermediate_cannot_rely_on_a_condition() -> None:
    double = let(p.replicas * 2, name="double")
    found = problems_of(widget({when(given(p.replicas)): {"replicas": double}}))
    assert [problem.message for problem in found] == ["parameter.replicas may be absent here"]


@pytest.mark.parametrize("use", ["if p.verbose: pass", "p.verbose and p.port", "not p.verbose", "[x for x in p.env]",
                                 "'a' in p.env", "len(p.env)", "f'{p.port:>3}'"])  # fmt: skip
def test_what_python_would_do_silently_is_an_error(use: str) -> None:
    with pytest.raises(TypeError, match=r"template|^use "):
        exec(use, {"p": p})


def patch_of(spec: dict[Any, Any]) -> tuple[str, list[Problem]]:
    build = compiler()
    body = build.patch({"spec": spec}, [ObjectType(WIDGET, is_root=True)], what="patch")
    return cue.to_cue(body), build.problems


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"mode": retain_keys("all")}, '// +patchStrategy=retainKeys\n\t\tmode: "all"'),
        ({"env": merge_by("name", [{"name": "x"}])}, '// +patchKey=name\n\t\tenv: [{\n\t\t\tname: "x"\n\t\t}]'),
        ({"replicas": optional(retain_keys(p.replicas))}, "// +patchStrategy=retainKeys\n\t\t\treplicas: parameter."),
        ({"replicas": retain_keys(optional(p.replicas))}, "// +patchStrategy=retainKeys\n\t\t\treplicas: parameter."),
    ],
)
def test_a_patch_keeps_its_marks(spec: dict[Any, Any], text: str) -> None:
    compiled, problems = patch_of(spec)
    assert problems == []
    assert text in compiled


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"env": merge_by("nmae", [{"name": "x"}])}, "its items have no 'nmae' to merge by; did you mean 'name'?"),
        ({"mode": merge_by("name", "all")}, "merge_by(…) is for a list, and the field takes a string"),
        ({"env": [retain_keys({"name": "x"})]}, "retain_keys(…) stands right after the name of a field"),
        ({"mode": if_else(p.verbose, retain_keys("all"), "some")}, "retain_keys(…) stands right after the name of"),
    ],
)
def test_a_mark_that_would_be_lost_is_refused(spec: dict[Any, Any], sentence: str) -> None:
    _, problems = patch_of(spec)
    assert any(sentence in problem.message for problem in problems), problems


def test_a_mark_outside_a_patch_is_refused() -> None:
    (problem,) = problems_of(widget({"mode": retain_keys("all")}))
    assert problem.message == "output.spec.mode: retain_keys(…) has a meaning in a patch only"


def test_refusals_of_a_trait_are_errs() -> None:
    build = compiler()
    errs = build.errs([refuse(context.output.kind != "Widget", f"{context.name} is no Widget")])
    assert cue.to_cue(errs) == '[if context.output.kind != "Widget" {"\\(context.name) is no Widget"}]'
    assert build.problems == []


def test_refusals_of_a_component_are_conflicts() -> None:
    build = compiler()
    (decl,) = build.conflicts([refuse(p.port > 9, "too high")])
    assert cue.to_cue(decl) == '_checks: {\n\tif parameter.port > 9 {_refused1: "too high" & 1}\n}'


def test_nested_loops_do_not_share_variables() -> None:
    text = spec_of(
        {
            "env": [
                each(
                    p.env,
                    lambda item: {
                        "name": item.name,
                        "value": join([each(p.env, lambda item: f"{item.name}")], ","),
                    },
                )
            ]
        }
    )
    assert "for item in parameter.env" in text
    assert "for item2 in parameter.env" in text
    assert '"\\(item2.name)"' in text
