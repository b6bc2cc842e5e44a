"""What a schema becomes, what may be asked about it, and what is said of a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from velagen.cli import main
from velagen.cue import to_cue
from velagen.errors import VelagenError
from velagen.oracle import CONTEXT, VERSIONS, Oracle
from velagen.schema import compile_schema, load_schema, parse_schema, validate
from velagen.schema.patterns import PatternError, matches, to_re2

GOLDEN = sorted((Path(__file__).parent / "schema" / "golden").glob("*.json"))


def compiled(document: Any, **options: Any) -> str:
    return to_cue(compile_schema(parse_schema(document), **options).file())


def parameter(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


def said(document: Any, instance: Any) -> list[str]:
    return [problem.message for problem in validate(parse_schema(document), instance)]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden(file: Path) -> None:
    schema = load_schema(file)
    assert to_cue(compile_schema(schema).file()) == file.with_suffix(".cue").read_text()
    assert to_cue(compile_schema(schema, standalone=True).file()) == file.with_suffix(".vet.cue").read_text()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden_converts_and_compiles_alone(file: Path, version: Any) -> None:
    text = file.with_suffix(".cue").read_text()
    with Oracle(version) as oracle:
        assert oracle.openapi(text).ok
        assert oracle.compile(text + "\ncontext: {name: string, ...}\n").ok


@pytest.mark.parametrize(
    ("property_", "line"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "a?: int & >=1 & <=9"),
        (
            {"type": "integer", "minimum": 0, "maximum": 99, "default": 30},
            "a: *30 | int & >=0 & <=30 | int & >=31 & <=99",
        ),
        ({"type": "integer", "minimum": 1, "default": 1}, "a: *1 | int & >=1 & <=11 | int & >=12"),
        ({"enum": ["x", "y"], "default": "y"}, 'a: "x" | *"y"'),
        ({"enum": ["x"], "default": "x"}, 'a: "x"'),
        ({"type": "boolean", "default": True}, "a: *true | bool"),
        ({"type": ["string", "null"]}, "a?: null | string"),
        ({"type": "string", "default": "x", "minLength": 1}, 'a: *"x" | strings.MinRunes(1)'),
        ({"type": "array", "items": {"type": "string"}}, "a?: [...string]"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "a?: {[string]: string}"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "a?: int | string"),
        ({"type": "string", "format": "date-time"}, "a?: time.Time"),
    ],
)
def test_everyday_forms(property_: dict[str, Any], line: str) -> None:
    assert "\t" + line in compiled(parameter({"a": property_})).splitlines()


def test_a_missing_required_property_bites_at_render_and_not_before() -> None:
    text = compiled(parameter({"uri": {"type": "string"}}, required=["uri"]))
    for version in VERSIONS:
        with Oracle(version) as oracle:
            assert oracle.compile(text + "\ncontext: {name: string, ...}").ok
            missing, given = oracle.render(text, [{}, {"uri": "x"}], context=CONTEXT)
            assert "uri is required" in missing.error
            assert given.ok


def test_a_sentence_of_ones_own() -> None:
    document = parameter({"a": {"enum": ["x", "y"], "x-message": "a is x, or y on Sundays"}})
    text = compiled(document)
    for version in VERSIONS:
        with Oracle(version) as oracle:
            assert "a is x, or y on Sundays" in oracle.render(text, [{"a": "z"}])[0].error
            assert oracle.openapi(text).result["properties"]["a"]["enum"] == ["x", "y"]
    assert said(document, {"a": "z"}) == ["a is x, or y on Sundays"]


def test_a_rule_over_several_properties() -> None:
    check = {"check": "most == 0 || least <= most", "message": "least must be at most most"}
    document = parameter({"least": {"type": "integer"}, "most": {"type": "integer"}}, **{"x-checks": [check]})
    values = [{"least": 3, "most": 2}, {"least": 3, "most": 0}, {"least": 3}, {"least": 1, "most": 2}]
    assert [said(document, value) for value in values] == [["least must be at most most"], [], [], []]
    text = compiled(document)
    for version in VERSIONS:
        with Oracle(version) as oracle:
            verdicts = oracle.render(text, values)
            assert [verdict.ok for verdict in verdicts] == [False, True, True, True]
            assert "least must be at most most" in verdicts[0].error


def test_a_rule_reads_the_default_of_what_is_not_given() -> None:
    check = {"check": 'least >= 1 || log.mode == "off"', "message": "least: 0 needs log.mode: off"}
    log = parameter({"mode": {"enum": ["on", "off"], "default": "on"}})
    document = parameter({"least": {"type": "integer"}, "log": log}, **{"x-checks": [check]})
    values = [{"least": 0, "log": {}}, {"least": 0, "log": {"mode": "off"}}, {"least": 1, "log": {}}, {"least": 0}]
    wanted = [["least: 0 needs log.mode: off"], [], [], []]
    assert [said(document, value) for value in values] == wanted
    text = compiled(document)
    for version in VERSIONS:
        with Oracle(version) as oracle:
            assert [verdict.ok for verdict in oracle.render(text, values)] == [not one for one in wanted]


@pytest.mark.parametrize("check", ["1 <", "least <= ", "1 < 2", "least =~ most", "least; evil: true"])
def test_a_rule_that_is_none(check: str) -> None:
    document = parameter({"least": {"type": "integer"}}, **{"x-checks": [{"check": check, "message": "m"}]})
    with pytest.raises(VelagenError, match="x-checks"):
        compile_schema(parse_schema(document))


def test_what_is_wrong_with_a_value() -> None:
    document = parameter(
        {
            "env": {"type": "array", "items": parameter({"name": {"type": "string"}}, required=["name"])},
            "port": {"type": "integer", "maximum": 10},
        },
        required=["uri"],
        additionalProperties=False,
    )
    found = validate(parse_schema(document), {"env": [{}], "port": 11, "prot": 1})
    assert [(problem.place.pointer, problem.message) for problem in found] == [
        ("", "uri is required"),
        ("/env/0", "env[0].name is required"),
        ("/port", "port must be at most 10"),
        ("/prot", "prot is not a known property"),
    ]


def test_a_default_fills_in_for_a_required_property() -> None:
    document = parameter({"a": {"type": "integer", "default": 1}}, required=["a"])
    assert said(document, {}) == []


def test_a_default_that_breaks_its_own_schema_is_refused() -> None:
    with pytest.raises(VelagenError) as caught:
        compile_schema(parse_schema(parameter({"a": {"type": "integer", "minimum": 1, "default": 0}})))
    assert caught.value.problems[0].place.pointer == "/properties/a/default"


def test_the_shape_follows_references_and_all_of() -> None:
    shape = parse_schema(
        {
            "$defs": {"port": {"type": "integer", "default": 80, "description": "where"}},
            "allOf": [{"properties": {"port": {"$ref": "#/$defs/port"}}}, {"required": ["name"]}],
            "type": "object",
            "properties": {"name": {"type": "string"}, "labels": {"additionalProperties": {"type": "string"}}},
        }
    ).shape
    port, name, labels = (shape.property(one) for one in ("port", "name", "labels"))
    assert port
    assert name
    assert labels
    assert (port.shape.default, port.required, port.present) == (80, False, True)
    assert (name.required, name.shape.types) == (True, frozenset({"string"}))
    assert labels.shape.values is not None
    assert shape.property("other") is None
    assert shape.open


@pytest.mark.parametrize(
    ("pattern", "re2"),
    [
        (r"^s3://.+$", "^s3://.+$"),
        (r"^\d+\/x$", r"^\d+/x$"),
        (r"\s", r"[\s\v\p{Z}\x{FEFF}]"),
        (r"(?<name>a)", "(a)"),
        (r"\p{Letter}", r"\p{L}"),
        (r"[^]", r"[\x00-\x{10FFFF}]"),
    ],
)
def test_patterns(pattern: str, re2: str) -> None:
    assert to_re2(pattern) == re2


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [("^a+$", "aaa", True), ("^a+$", "aab", False), (r"\bcat\b", "a cat!", True), ("a$", "a\n", False),
     (r"^\d$", "٣", False),
     ("x{2,3}y", "xxxy", True), ("^(ab|c)*$", "abcab", True), ("", "", True), (r"^\W$", "é", True)],
)  # fmt: skip
def test_matching(pattern: str, text: str, found: bool) -> None:
    assert matches(pattern, text) is found


@pytest.mark.parametrize("pattern", ["(?!a)", r"(a)\1", "a{1001}", "*a", "[b-a]", "(", ")"])
def test_no_pattern_for_re2(pattern: str) -> None:
    with pytest.raises(PatternError):
        to_re2(pattern)


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(parameter({"a": {"type": "string", "description": "What it is."}})))
    done = CliRunner().invoke(main, ["cue", str(file)])
    assert done.exit_code == 0
    assert done.output == "parameter: {\n\t// +usage=What it is.\n\ta?: string\n}\n"
    file.write_text(json.dumps(parameter({"a": {"type": "string", "pattern": "(?=a)"}})))
    refused = CliRunner().invoke(main, ["cue", str(file)])
    assert refused.exit_code == 1
    assert "/properties/a/pattern" in refused.output
    assert CliRunner().invoke(main, ["cue", str(file), "--allow-unchecked"]).exit_code == 0
