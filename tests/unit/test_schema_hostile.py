"""Schemas that mean harm, or only look like it: valid CUE of the same meaning, or a clear refusal, and never a hang."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from velagen.cue import to_cue
from velagen.errors import VelagenError
from velagen.oracle import VERSIONS, Oracle
from velagen.schema import compile_schema, load_schema, parse_schema, validate

EVIL = [
    'x"\n\tevil: true\n\t// ',
    "*/ evil: true /*",
    '"""\nevil: true\n"""',
    '\\(evil)\\u0022"#',
    '"#\nevil: true\n#"',
    "a\u2028evil: true",
    "\u202eevil",
    "\x00\x1b[31m",
    "#def",
    "_hidden",
    "__x",
    "if",
    "let",
    "true",
    "null",
    "_|_",
    "",
    " ",
    "é\U0001f600",
    "a.b/c~d",
    "string",
    "strings",
    "parameter",
    "context",
    "len",
    "close",
]


@pytest.fixture(scope="module")
def oracles() -> Iterator[list[Oracle]]:
    opened = [Oracle(version) for version in VERSIONS]
    yield opened
    for oracle in opened:
        oracle.close()


def tried(oracles: list[Oracle], document: Any, good: list[Any], bad: list[Any]) -> None:
    """Both versions accept the good and refuse the bad, in both meanings, and the conversion works."""
    text = to_cue(compile_schema(parse_schema(document), standalone=True).file())
    for oracle in oracles:
        for verdicts in (oracle.vet(text, [*good, *bad]), oracle.render(text, [*good, *bad])):
            assert [verdict.ok for verdict in verdicts] == [True] * len(good) + [False] * len(bad), (text, verdicts)
        assert oracle.openapi(text).ok, text


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_names(oracles: list[Oracle], name: str) -> None:
    document = {
        "type": "object",
        "properties": {name: {"type": "string", "description": name, "minLength": 1}, "other": {"type": "integer"}},
        "required": [name],
        "dependentRequired": {"other": [name]},
        "additionalProperties": False,
    }
    tried(oracles, document, [{name: "v"}], [{"other": 1}, {name: ""}, {name: "v", "evil": True}])


@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_texts(oracles: list[Oracle], text: str) -> None:
    document = {
        "type": "object",
        "properties": {
            "a": {"enum": [text, "other"], "description": text, "title": text, "x-message": f"a: {text}"},
            "b": {"const": {text: [text]}},
            "c": {"type": "string", "default": text},
        },
    }
    tried(oracles, document, [{"a": text}, {"b": {text: [text]}}, {}], [{"a": "evil"}, {"b": {}}, {"c": 1}])


@pytest.mark.parametrize("pattern", ['"', '^"#$', "^\\\\$", "^`\\n$", "\\(x\\)", '^#"evil"#$'])
def test_patterns(oracles: list[Oracle], pattern: str) -> None:
    document = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    tried(oracles, document, [{}], [{"a": "evil"}])


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(VelagenError, match="surrogate"):
        parse_schema({"enum": ["\ud800"]})


def test_reference_loops_are_refused() -> None:
    loops: list[Any] = [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]}},
        },
        {"allOf": [{"$ref": "#"}]},
    ]
    for document in loops:
        with pytest.raises(VelagenError) as caught:
            compile_schema(parse_schema(document))
        assert "itself" in str(caught.value)


def test_a_reference_to_nowhere_is_told_with_its_place() -> None:
    with pytest.raises(VelagenError) as caught:
        parse_schema({"properties": {"a": {"$ref": "#/$defs/missing"}}})
    assert caught.value.problems[0].place.pointer == "/properties/a/$ref"


def test_deep_nesting_is_refused_or_cut(oracles: list[Oracle]) -> None:
    document: Any = {"type": "string"}
    for _ in range(20):
        document = {"type": "object", "properties": {"a": document}, "additionalProperties": False}
    good: Any = "x"
    bad: Any = 1
    for _ in range(20):
        good, bad = {"a": good}, {"a": bad}
    tried(oracles, document, [good], [bad])
    for _ in range(5000):
        document = {"items": document}
    with pytest.raises(VelagenError, match="deep"):
        parse_schema(document)


def test_ten_thousand_properties() -> None:
    document = {"type": "object", "properties": {f"p{index}": {"type": "integer"} for index in range(10_000)}}
    start = time.monotonic()
    assert len(to_cue(compile_schema(parse_schema(document), standalone=True).file())) > 100_000
    assert time.monotonic() - start < 60


def test_a_catastrophic_pattern_does_not_hang() -> None:
    schema = parse_schema({"type": "string", "pattern": "^(a+)+$"})
    assert validate(schema, "a" * 5000 + "b")


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "a{5000}", "((a{50}){50}){50}", "(", r"\Z", "[z-a]"])
def test_patterns_beyond_re2_are_refused(pattern: str) -> None:
    with pytest.raises(VelagenError) as caught:
        compile_schema(parse_schema({"properties": {"a": {"type": "string", "pattern": pattern}}}))
    problem = caught.value.problems[0]
    assert "pattern" in str(problem)


def test_numbers_that_the_converter_misprints(oracles: list[Oracle]) -> None:
    """CUE 0.9 writes -0.5 as -.5, which is not JSON."""
    document = {
        "type": "object",
        "properties": {"a": {"type": "number", "minimum": -0.5}, "b": {"enum": [-0.5, 1]}},
    }
    tried(oracles, document, [{"a": -0.5, "b": -0.5}], [{"a": -0.6}, {"b": 0.5}])
    with pytest.raises(VelagenError, match="default"):
        compile_schema(parse_schema({"type": "object", "properties": {"a": {"type": "number", "default": -0.5}}}))


def test_huge_numbers(oracles: list[Oracle]) -> None:
    document = {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 10**40}, "b": {"minimum": 1e-300, "type": "number"}},
    }
    tried(oracles, document, [{"a": 10**40, "b": 1}], [{"a": 10**40 + 1}, {"b": 0}])


@pytest.mark.parametrize(
    "text", ['{"maximum": 1e999}', '{"maximum": NaN}', "[" * 100_000, '{"a": 1, "a": 2}', "{", '"x"', "\ufeff{}"]
)
def test_files_that_are_no_schemas(tmp_path: Path, text: str) -> None:
    file = tmp_path / "schema.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(VelagenError) as caught:
        load_schema(file)
    assert caught.value.problems[0].place.file == str(file)


def test_all_refusals_at_once() -> None:
    document = {
        "properties": {
            "a": {"type": "string", "pattern": "(?=x)"},
            "b": {"type": "integer", "default": "text"},
            "c": {"type": "string", "pattern": r"(x)\1"},
        },
        "type": "object",
    }
    with pytest.raises(VelagenError) as caught:
        compile_schema(parse_schema(document))
    pointers = {problem.place.pointer for problem in caught.value.problems}
    assert pointers == {"/properties/a/pattern", "/properties/b/default", "/properties/c/pattern"}
    unchecked = compile_schema(parse_schema(document), allow_unchecked=True)
    assert len(unchecked.warnings) == 3
    assert to_cue(unchecked.file()).count("// Unchecked:") == 3


def test_no_instance_gets_past_json(oracles: list[Oracle]) -> None:
    """The text is the same whatever stands in a description."""
    plain = {"type": "object", "properties": {"a": {"type": "string", "description": "x"}}}
    evil = json.loads(json.dumps(plain).replace('"x"', json.dumps('x\n}\nevil: "y"\n//')))
    lines = [to_cue(compile_schema(parse_schema(one)).file()).splitlines() for one in (plain, evil)]
    assert len(lines[0]) == len(lines[1])


@pytest.mark.parametrize("document", [{"properties": {"e\u0301": True}}, {"required": ["e\u0301"]}])
def test_a_name_that_cue_would_change_is_refused(document: Any) -> None:
    with pytest.raises(VelagenError, match="normal form C"):
        parse_schema(document)
