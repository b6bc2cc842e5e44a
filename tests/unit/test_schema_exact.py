"""Words of Kubernetes and OpenAPI, files that are not schemas, schemas in several files: carried, refused, warned."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from velagen.addon.uischema import ui_schema
from velagen.cli import main
from velagen.cue import to_cue
from velagen.errors import VelagenError
from velagen.oracle import CONTEXT, VERSIONS, Oracle
from velagen.schema import compile_schema, load_schema, parse_schema, validate
from velagen.schema.patterns import PatternError, matches, to_re2

STRING, INTEGER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def parameter(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


def agree(document: Any, good: list[Any], bad: list[Any]) -> None:
    """Python, rendering as velagen cue and as a definition has it: one verdict, on both versions; and a form."""
    schema = parse_schema(document)
    instances, expected = [*good, *bad], [True] * len(good) + [False] * len(bad)
    assert [validate(schema, one) == [] for one in instances] == expected
    for faces in (False, True):
        text = to_cue(compile_schema(schema, faces=faces).file())
        for version in VERSIONS:
            with Oracle(version) as oracle:
                verdicts = oracle.render(text, instances)
                assert [one.ok for one in verdicts] == expected, (version, faces, verdicts, text)
                converted = oracle.openapi(text + "\ncontext: {name: string}")
                assert converted.ok, (version, faces, converted.error)


# ---------------------------------------------------------------- words of Kubernetes and OpenAPI


def test_nullable_allows_null() -> None:
    document = parameter({"a": {"type": "string", "nullable": True}, "b": {"type": "string", "nullable": False}})
    agree(document, [{"a": None}, {"a": "x"}, {"b": "x"}], [{"b": None}, {"a": 1}])


def test_words_of_structural_schemas() -> None:
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    document = parameter(
        {
            "port": {"x-kubernetes-int-or-string": True},
            "set": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
            "map": {"type": "array", "items": parameter({"name": STRING, "v": INTEGER}), **keys},
            "object": {"type": "object", "x-kubernetes-embedded-resource": True},
        }
    )
    good = [{"port": 1}, {"port": "http"}, {"set": ["a", "b"]}, {"map": [{"name": "a"}, {"name": "b"}]}]
    bad = [{"port": True}, {"set": ["a", "a"]}, {"map": [{"name": "a", "v": 1}, {"name": "a", "v": 2}]}, {"object": {}}]
    agree(document, [*good, {"object": {"apiVersion": "v1", "kind": "Pod"}}], bad)


FIELDS = {
    "a": INTEGER, "b": INTEGER, "s": STRING, "f": FLAG, "l": {"type": "array", "items": STRING},
    "o": parameter({"x": INTEGER, "y": STRING}),
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "a": [1, 5], "b": [1], "s": ["xyz", "é", "a"], "f": [True, False], "l": [[], ["a", "b"]],
    "o": [{}, {"x": 5, "y": "q"}],
}  # fmt: skip
RULES = [
    "self.a <= self.b",
    "has(self.a) || has(self.b)",
    "!has(self.a) || self.a > 3",
    "!(has(self.a) && has(self.b))",
    "self.s.startsWith('x') && size(self.s) > 2",
    "self.s.size() == 1",
    "self.s in ['a', 'xyz']",
    "has(self.o) ? self.o.x > 1 : self.a == 1",
    "self.f || self.a > 1",
    "!self.f",
    "size(self.l) <= 1",
    "self.s.matches('^[a-z]+$')",
    "self.a + self.b * 2 < 4",
    "has(self.o.x) && self.o.y.contains('q')",
]


@pytest.mark.parametrize("rule", RULES)
def test_rules_in_cel_are_carried_over(rule: str) -> None:
    """A field that is not there breaks a rule that reads it, unless the other side of && or || decides."""
    single = [{name: value} for name, values in VALUES.items() for value in values]
    instances = [{}, *single, *({**one, **other} for one, other in itertools.combinations(single, 2))]
    for document, given in (
        (parameter({"p": parameter(FIELDS, **{"x-kubernetes-validations": [{"rule": rule}]})}), "p"),
        (parameter(FIELDS, **{"x-kubernetes-validations": [{"rule": rule, "message": "not so"}]}), ""),
    ):
        schema = parse_schema(document)
        assert compile_schema(schema).warnings == ()
        shaped = [{given: one} if given else one for one in instances]
        good = [one for one in shaped if validate(schema, one) == []]
        bad = [one for one in shaped if one not in good]
        assert good
        assert bad
        agree(document, good, bad)


def test_what_a_rule_says() -> None:
    rules = [{"rule": "self.a < self.b", "message": "a comes before b"}, {"rule": "self.a > 0"}]
    schema = parse_schema(parameter({"a": INTEGER, "b": INTEGER}, **{"x-kubernetes-validations": rules}))
    said = [one.message for one in validate(schema, {"a": 0, "b": 0})]
    assert said == ["a comes before b", "the value must hold: self.a > 0"]
    text = to_cue(compile_schema(schema).file())
    with Oracle() as oracle:
        assert "a comes before b" in oracle.render(text, [{"a": 5, "b": 2}])[0].error


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("self.a == oldSelf.a", "no past"),
        ("self.l.all(x, x == 'a')", "'x' is not read here"),
        ("self.s.matches('[[:alpha:]]')", "another thing in RE2"),
        ("self.gone > 1", "not a property of known type"),
        ("self.a == self.s", "two types"),
        ("self.s < 'x'", "not as greater"),
        ("1 == 1", "reads no property"),
        ("(" * 200 + "self.f" + ")" * 200, "too deeply"),
        (5, "no rule"),
    ],
)
def test_a_rule_that_is_not_carried_over_is_warned_of(rule: Any, why: str) -> None:
    document = parameter(FIELDS, **{"x-kubernetes-validations": [{"rule": "self.a > 0"}, {"rule": rule}]})
    (warning,) = compile_schema(parse_schema(document)).warnings
    assert why in warning.message
    assert warning.severity == "warning"
    assert warning.place.pointer == "/x-kubernetes-validations/1"


# ---------------------------------------------------------------- files that are not schemas, and schemas in them

OPENAPI = """
openapi: 3.0.1
components:
  schemas:
    Pet:
      type: object
      required: [name]
      properties:
        name: {$ref: "#/components/schemas/Name"}
        friend: {$ref: "#/components/schemas/Name"}
        age: {type: integer, minimum: 0, exclusiveMinimum: true}
    Name: {type: string, nullable: true, minLength: 1}
"""


def written(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem.replace('__', '/')}.{suffix}").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "text", "what", "hint"),
    [
        ("api.yaml", OPENAPI, "an OpenAPI document", "--at /components/schemas/Pet or /components/schemas/Name"),
        ("crd.yaml", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
         "spec: {versions: [{name: v1, schema: {openAPIV3Schema: {type: object}}}]}\n",
         "of kind CustomResourceDefinition", "--at /spec/versions/0/schema/openAPIV3Schema"),
        ("app.json", '{"apiVersion": "v1", "kind": "Pod"}', "of kind Pod", ""),
        ("values.yaml", "replicas: 2\nimage: x\n", "none of its keywords", "is it a values file?"),
        ("values.json", '{"name": "x", "version": "1", "options": []}', "none of its keywords", "values file"),
        ("almost.json", '{"propertes": {}, "requird": []}', "none of its keywords", "did you mean properties?"),
        ("defs.json", '{"definitions": {"a": {"type": "string"}}}', "whose root says nothing", "--at /definitions/a"),
        ("two.yaml", "type: object\n---\ntype: string\n", "these are 2", ""),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_told_as_what_it_is(tmp_path: Path, name: str, text: str, what: str, hint: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    done = CliRunner().invoke(main, ["cue", str(file)])
    assert done.exit_code == 1
    assert what in done.output
    assert hint in done.output


def test_a_schema_inside_a_larger_file(tmp_path: Path) -> None:
    file = tmp_path / "api.yaml"
    file.write_text(OPENAPI)
    schema = load_schema(file, at="/components/schemas/Pet")
    assert validate(schema, {"name": None, "friend": "x", "age": 1}) == []
    assert len(validate(schema, {"friend": "", "age": 0})) == 3
    done = CliRunner().invoke(main, ["cue", str(file), "--at", "/components/schemas/Pte"])
    assert done.exit_code == 1
    assert "did you mean Pet?" in done.output


def test_a_schema_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    written(
        tmp_path,
        main_json={
            "$id": "https://example.org/main.json",
            **parameter(
                {
                    "m": {"$ref": "more.json#/$defs/m"},
                    "n": {"$ref": "sub/deep.yaml"},
                    "o": {"$ref": "https://example.org/other"},
                    "own": {"$ref": "#/$defs/own"},
                }
            ),
            "$defs": {"own": {"type": "boolean"}},
        },
        more_json={"$defs": {"m": parameter({"x": {"$ref": "#/$defs/y"}}), "y": {"type": "integer"}}},
        sub__deep_yaml="type: string\nminLength: 2\n",
        named_json={"$id": "https://example.org/other", "enum": ["x"]},
    )
    schema = load_schema(tmp_path / "main.json")
    assert validate(schema, {"m": {"x": 1}, "n": "ab", "o": "x", "own": True}) == []
    assert len(validate(schema, {"m": {"x": "1"}, "n": "a", "o": "y", "own": 1})) == 4
    # What is read becomes one document: a form shows what lies in other files, too.
    assert [one["jsonKey"] for one in ui_schema(schema.document)[0]["subParameters"]] == ["x"]


def test_files_elsewhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    written(tmp_path, a__main_json=parameter({"x": {"$ref": "../b/x.json"}}), b__x_json=STRING)
    refused = CliRunner().invoke(main, ["cue", str(tmp_path / "a/main.json")])
    assert refused.exit_code == 1
    assert "lies outside the schema's folder" in refused.output
    assert "--refs" in refused.output
    taken = CliRunner().invoke(main, ["cue", str(tmp_path / "a/main.json"), "--refs", str(tmp_path / "b")])
    assert taken.exit_code == 0
    assert "x?: string" in taken.output


def test_files_that_refer_to_each_other_are_a_schema_that_contains_itself(tmp_path: Path) -> None:
    one, two = parameter({"b": {"$ref": "two.json"}}), parameter({"a": {"$ref": "one.json"}})
    written(tmp_path, one_json=one, two_json=two, gone_json={"$ref": "nowhere.json"})
    with pytest.raises(VelagenError, match="the schema contains itself"):
        compile_schema(load_schema(tmp_path / "one.json"))
    with pytest.raises(VelagenError, match=r"there is no file nowhere\.json"):
        load_schema(tmp_path / "gone.json")


@pytest.mark.parametrize("uri", ["http://json-schema.org/schema#", "https://json-schema.org/draft-07/schema", "HTTP"])
def test_names_of_drafts(uri: str) -> None:
    document = {"$schema": uri, **parameter({"a": {"const": 1}})}
    if uri == "HTTP":
        with pytest.raises(VelagenError, match="unknown draft"):
            parse_schema(document)
    else:
        assert len(validate(parse_schema(document), {"a": 2})) == 1


# ---------------------------------------------------------------- words without effect


@pytest.mark.parametrize(
    ("document", "said", "hint"),
    [
        ({"minLenght": 1}, "minLenght is not a keyword of JSON Schema", "did you mean minLength?"),
        ({"additionalproperties": False}, "is not a keyword", "did you mean additionalProperties?"),
        ({"dependencies": {"a": ["b"]}}, "draft 2020-12 does not have this keyword", "write dependentRequired"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "const": 1}, "draft 4 does not have", "draft 6"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a", "maxLength": 3,
          "definitions": {"a": STRING}}, "maxLength beside $ref has no effect", "allOf"),
    ],
)  # fmt: skip
def test_a_word_without_effect_is_warned_of(document: Any, said: str, hint: str) -> None:
    warnings = compile_schema(
        parse_schema({**document, "type": "string"} if "$ref" not in document else document)
    ).warnings
    assert [said in one.message and hint in one.hint for one in warnings if "type" not in one.message] == [True]


def test_words_that_are_meant_are_not_warned_of() -> None:
    names = {"x-order": 1, "markdownDescription": "", "example": 1, "discriminator": {}, "$comment": "", "kind": "x"}
    document = parameter({"minLenght": {**names, "type": "string"}}, default={"minLenght": "x"})
    assert compile_schema(parse_schema(document)).warnings == ()


def test_warnings_reach_the_command_line(tmp_path: Path) -> None:
    written(tmp_path, a_json={**parameter({}), "requierd": ["a"]})
    done = CliRunner().invoke(main, ["cue", str(tmp_path / "a.json")])
    assert done.exit_code == 0
    assert "did you mean required?" in done.output


# ---------------------------------------------------------------- defaults, patterns, unions

LIST = {"type": "array", "items": STRING}


@pytest.mark.parametrize(
    ("property_", "filled"),
    [
        ({"type": "object", "default": {"l": ["x"]}}, {"l": ["x"]}),
        ({"type": "object", "additionalProperties": LIST, "default": {"l": ["x"]}}, {"l": ["x"]}),
        (parameter({"l": {**LIST, "default": ["y"]}}, default={"l": ["x"]}), {"l": ["x"]}),
        (parameter({"l": LIST, "n": {**INTEGER, "default": 3}}, default={"l": ["x"]}), {"l": ["x"], "n": 3}),
        (parameter({"b": {"type": "object"}}, default={"b": {"l": [{"c": ["x"]}]}}), {"b": {"l": [{"c": ["x"]}]}}),
    ],
)
@pytest.mark.parametrize("faces", [False, True])
def test_an_objects_default_with_a_list_keeps_the_form(property_: Any, filled: Any, faces: bool) -> None:
    text = to_cue(compile_schema(parse_schema(parameter({"a": property_})), faces=faces).file())
    for version in VERSIONS:
        with Oracle(version) as oracle:
            converted = oracle.openapi(text + "\ncontext: {name: string}")
            assert converted.ok, (version, converted.error)
            assert oracle.eval(text, "parameter", CONTEXT).result == {"a": filled}


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^(?i)abc-k$", ["abc-k", "ABC-K", "aBc-\u212a"], ["abd-k"]),
        ("^(?i:s3)://x$", ["s3://x", "S3://x"], ["s3://X"]),
        ("^((?i)a)b$", ["ab", "Ab"], ["aB"]),
        ("^(?i)[^k]$", ["a"], ["k", "K", "\u212a"]),
        ("^(?s).$", ["\n", "a"], ["", "ab"]),
        ("(?i)^stra\u00dfe$", ["stra\u00dfe", "STRA\u1e9eE"], ["strasse"]),
    ],
)
def test_flags_in_patterns(pattern: str, good: list[str], bad: list[str]) -> None:
    assert [matches(pattern, one) for one in (*good, *bad)] == [True] * len(good) + [False] * len(bad)
    agree(parameter({"a": {**STRING, "pattern": pattern}}), [{"a": one} for one in good], [{"a": one} for one in bad])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?x)a", "of flags i and s are read"),
        ("(?P<n>a)", "(?<name>...)"),
        ("(?i)*", "can't be repeated"),
        ("(?i", "?i"),
    ],
)
def test_groups_that_are_refused_say_what_to_write(pattern: str, said: str) -> None:
    with pytest.raises(PatternError) as caught:
        to_re2(pattern)
    assert said in str(caught.value)


def branch(value: Any, required: list[str], properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    kind = {"enum": value} if isinstance(value, list) else {"const": value}
    return {**parameter({"type": kind, **properties}, **more), "required": ["type", *required]}


BRANCHES = [
    branch("s3", ["bucket"], {"bucket": {**STRING, "minLength": 1}, "n": INTEGER}, additionalProperties=False),
    branch("pvc", ["claim"], {"claim": STRING, "n": STRING}),
    branch(["none", "off"], [], {}),
]
SAID = [
    ({}, "type is required"),
    ({"type": "x"}, "type must be s3, pvc, none or off"),
    ({"type": 1}, "type must be s3, pvc, none or off"),
    ({"type": "s3"}, "bucket is required when type is s3"),
    ({"type": "s3", "bucket": ""}, "bucket must not be empty when type is s3"),
    ({"type": "pvc", "claim": 1}, "claim must be a string when type is pvc"),
]
VALID = [{"type": "s3", "bucket": "b", "n": 1}, {"type": "pvc", "claim": "c", "n": "1", "more": 1}, {"type": "off"}]


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_union_is_told_by_the_branch_that_was_chosen(keyword: str, nested: bool) -> None:
    union = {keyword: BRANCHES}
    document = parameter({"storage": union}) if nested else {"type": "object", **union}
    schema = parse_schema(document)

    def placed(value: Any) -> Any:
        return {"storage": value} if nested else value

    text = to_cue(compile_schema(schema, faces=True).file())
    with Oracle() as oracle:
        for value, message in SAID:
            wanted = f"storage.{message}" if nested else message
            assert [one.message for one in validate(schema, placed(value))] == [wanted]
            assert wanted in oracle.render(text, [placed(value)])[0].error
    bad = [*(value for value, _ in SAID), {"type": "s3", "bucket": "b", "claim": "c"}]
    agree(document, [placed(one) for one in VALID], [placed(one) for one in bad])


def test_the_form_shows_a_unions_fields_and_when_they_count() -> None:
    fields = {one["jsonKey"]: one for one in ui_schema(parameter({"storage": {"oneOf": BRANCHES}}))[0]["subParameters"]}
    assert list(fields) == ["type", "bucket", "n", "claim"]
    assert [one["value"] for one in fields["type"]["validate"]["options"]] == ["s3", "pvc", "none", "off"]
    assert fields["type"]["validate"]["required"]
    # Source: kubevela pkg/utils/schema/ui_schema.go (Condition).
    assert fields["claim"]["conditions"] == [{"jsonKey": "type", "op": "in", "value": ["pvc"], "action": "enable"}]
    assert fields["n"]["conditions"][0]["value"] == ["s3", "pvc"]
    text = to_cue(compile_schema(parse_schema(parameter({"storage": {"oneOf": BRANCHES}})), faces=True).file())
    with Oracle() as oracle:
        found = oracle.openapi(text + "\ncontext: {name: string}").result
    shown = json.dumps(found)
    assert all(f'"{name}"' in shown for name in ("type", "bucket", "claim", "pvc", "off"))


def test_properties_that_may_be_anything_at_render_stand_once_and_the_form_has_them() -> None:
    """KubeVela walks through each field that is declared at every render, and not through a pattern."""
    spoken = {"type": "integer", "minimum": 1, "x-message": "not a whole number of 1 or more"}
    fields = {name: {**spoken, "description": f"How many {name}."} for name in ("a", "b-c", "d")}
    part = {"type": "object", "additionalProperties": False, "properties": fields}
    document = {
        **parameter({**fields, "left": {"$ref": "#/$defs/Part"}, "right": {"$ref": "#/$defs/Part"}}),
        "additionalProperties": False,
        "$defs": {"Part": part},
    }
    text = to_cue(compile_schema(parse_schema(document), faces=True).file())
    assert text.count('[=~"^(a|b-c|d)$"]:') == text.count("+usage=How many a.") == 2
    assert '[=~"^(left|right)$"]: #Part' in text
    good = [{}, {"a": 1}, {"b-c": 2, "left": {"d": 1}}]
    agree(document, good, [{"e": 1}, {"left": {"e": 1}}, {"a": 0}, {"right": {"b-c": "x"}}, {"lef": {}}, {"a-d": 1}])
    for version in VERSIONS:
        with Oracle(version) as oracle:
            shown = json.dumps(oracle.openapi(text + "\ncontext: {name: string}").result)
        assert "How many b-c." in shown, version
        assert '"left"' in shown, version


def test_a_crd_of_kserve_compiles_by_its_pointer(tmp_path: Path) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": parameter(FIELDS)}}]},
    }
    file = tmp_path / "crd.yaml"
    file.write_text(yaml.safe_dump(crd))
    schema = load_schema(file, at="/spec/versions/0/schema/openAPIV3Schema")
    assert len(validate(schema, {"a": "x"})) == 1
