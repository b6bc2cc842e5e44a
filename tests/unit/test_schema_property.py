"""Three verdicts on generated pairs of schema and instance: Python's jsonschema, cue vet, KubeVela's render."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis_jsonschema import from_schema

from velagen.cue import to_cue
from velagen.errors import VelagenError
from velagen.oracle import VERSIONS, Oracle
from velagen.schema import compile_schema, parse_schema
from velagen.schema.validate import validator_for

#: Shrunk failures of the past, each ``{"schema": …, "instances": […]}``.
FIXTURES = Path(__file__).parent / "schema" / "pairs"

NAMES = ["a", "b", "in", "len", "x-y", "#d", "_h", "context", "string", "value", "é"]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 8),
    st.sampled_from([0.5, 1.0, 2.5, -1.0, 1e3, 0.1]),
    st.sampled_from(["", "a", "ab", "abc", "a1", "é", "2024-01-02", 'q"uo\\te', "x\ny"]),
)
names = st.sampled_from(NAMES)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=6
)
patterns = st.sampled_from(["^a", "b$", "^[a-z]+$", r"\d", "^.?$", "a|b", r"^\S*$"])
small = st.integers(0, 3)


def _sub(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    keywords = st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
            | st.lists(
                st.sampled_from(["null", "integer", "number", "string", "object"]), min_size=1, max_size=3, unique=True
            ),
            "enum": st.lists(values, min_size=1, max_size=3),
            "const": values,
            "minimum": st.integers(-2, 4) | st.just(0.5),
            "maximum": st.integers(0, 6),
            "exclusiveMinimum": st.integers(-2, 4),
            "multipleOf": st.sampled_from([1, 2, 0.5, 0.1]),
            "minLength": small,
            "maxLength": small,
            "pattern": patterns,
            "items": inner,
            "prefixItems": some,
            "minItems": small,
            "maxItems": small,
            "uniqueItems": st.booleans(),
            "contains": inner,
            "properties": st.dictionaries(names, inner, max_size=3),
            "required": st.lists(names, max_size=2, unique=True),
            "additionalProperties": inner,
            "patternProperties": st.dictionaries(patterns, inner, max_size=2),
            "propertyNames": st.fixed_dictionaries({}, optional={"pattern": patterns, "maxLength": small}),
            "minProperties": small,
            "maxProperties": small,
            "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=2),
            "dependentSchemas": st.dictionaries(names, inner, max_size=1),
            "allOf": some,
            "anyOf": some,
            "oneOf": some,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "unevaluatedProperties": inner,
            "unevaluatedItems": inner,
        },
    )

    # A schema with every keyword is nobody's: keep a few.
    @st.composite
    def few(draw: st.DrawFn) -> Any:
        whole = draw(keywords)
        keep = draw(st.lists(st.sampled_from(sorted(whole)), max_size=4, unique=True)) if whole else []
        return {keyword: whole[keyword] for keyword in keep}

    return few()


schemas = st.recursive(st.booleans() | _sub(st.booleans()), _sub, max_leaves=5)


@pytest.fixture(scope="module")
def oracles() -> Iterator[list[Oracle]]:
    opened = [Oracle(version) for version in VERSIONS]
    yield opened
    for oracle in opened:
        oracle.close()


def as_go_writes(value: Any) -> Any:
    """A value on its way through KubeVela, whose JSON has 1 where a user wrote 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [as_go_writes(item) for item in value]
    if isinstance(value, dict):
        return {name: as_go_writes(item) for name, item in value.items()}
    return value


def disagreements(oracles: list[Oracle], document: Any, instances: list[Any], integers: Any = "json") -> list[str]:
    """Where the verdicts differ; refused schemas have none."""
    schema = parse_schema(document)
    if integers == "kubevela":
        instances = [as_go_writes(instance) for instance in instances]
    try:
        compiled = compile_schema(schema, integers=integers, standalone=True)
    except VelagenError:
        return []
    text = to_cue(compiled.file())
    # What a definition carries; a schema whose root is not an object has no such form and is compiled as ever.
    definition = to_cue(compile_schema(schema, integers=integers, faces=True).file())
    expected = [validator_for(schema.root).is_valid(instance) for instance in instances]
    found = []
    for oracle in oracles:
        judged = [("vet", oracle.vet(text, instances)), ("render", oracle.render(text, instances))]
        if schema.shape.types == {"object"} and all(isinstance(instance, dict) for instance in instances):
            judged.append(("definition", oracle.render(definition, instances)))
        for semantics, verdicts in judged:
            for instance, valid, verdict in zip(instances, expected, verdicts, strict=True):
                if verdict.ok != valid:
                    found.append(
                        f"{oracle.version} {semantics}: {json.dumps(instance)} valid={valid}: {verdict.error}\n{text}"
                    )
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas, instances=st.lists(values, min_size=6, max_size=10))
def test_as_a_property(oracles: list[Oracle], schema: Any, instances: list[Any]) -> None:
    outer = {"type": "object", "properties": {"v": schema}}
    assert disagreements(oracles, outer, [{"v": instance} for instance in instances]) == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas, instances=st.lists(values, min_size=6, max_size=10))
def test_as_the_root(oracles: list[Oracle], schema: Any, instances: list[Any]) -> None:
    assert disagreements(oracles, schema, instances) == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    properties=st.dictionaries(names, schemas, min_size=1, max_size=4),
    more=schemas,
    closed=st.booleans(),
    instances=st.lists(st.dictionaries(names, values, max_size=4), min_size=6, max_size=10),
)
def test_as_a_parameter(oracles: list[Oracle], properties: Any, more: Any, closed: bool, instances: list[Any]) -> None:
    document = {"properties": properties, **(more if isinstance(more, dict) else {}), "type": "object"}
    if closed:
        document["additionalProperties"] = False
    assert disagreements(oracles, document, instances) == []


def test_valid_instances(oracles: list[Oracle]) -> None:
    """Instances that hypothesis-jsonschema makes valid on purpose, objects among them."""
    judged: Counter[type] = Counter()
    some: st.SearchStrategy[Any] = schemas.filter(lambda schema: isinstance(schema, dict))
    objects = some.map(lambda schema: {**schema, "type": "object"})

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), schema=some | objects)
    def judge(data: st.DataObject, schema: Any) -> None:
        # What hypothesis-jsonschema does not look at: an instance would be valid by chance alone.
        assume(not {"dependentSchemas", "unevaluatedProperties", "unevaluatedItems"} & set(schema))
        try:
            instance = data.draw(from_schema(schema))
        except (InvalidArgument, AssertionError):
            reject()  # how it says that bounds contradict each other, and that there is no such instance
        text = json.dumps(instance)
        assume(
            len(text) < 400
            and "\\ud" not in text
            and "Infinity" not in text
            and "e" not in text.lower().replace("true", "").replace("false", "")
        )
        assert disagreements(oracles, {"type": "object", "properties": {"v": schema}}, [{"v": instance}]) == []
        judged[type(instance)] += 1

    judge()
    assert judged.total() >= 20, "too few examples came as far as a verdict"
    assert judged[dict], judged


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*.json")), ids=lambda file: file.stem)
def test_shrunk_failures_of_the_past(oracles: list[Oracle], file: Path) -> None:
    pair = json.loads(file.read_text())
    assert disagreements(oracles, pair["schema"], pair["instances"]) == []


@st.composite
def defaulted(draw: st.DrawFn) -> Any:
    """A scalar, list or map schema with a default that is valid in it."""
    kind = draw(st.sampled_from(["integer", "number", "string", "enum", "null", "array", "object"]))
    if kind in ("integer", "number"):
        low = draw(st.none() | st.integers(-3, 3))
        high = draw(st.none() | st.integers(low if low is not None else -3, 14))
        least, most = low if low is not None else -5, high if high is not None else 20
        schema: Any = {"type": kind, "default": draw(st.integers(min(least, most), most))}
        if low is not None:
            schema["minimum"] = low
        if high is not None:
            schema["maximum"] = high
        if kind == "number" and draw(st.booleans()) and 0 <= schema["default"] < most:
            schema["default"] += 0.5
        return schema
    if kind == "string":
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": 4,
            "pattern": "^[a-z]+$",
            "default": draw(st.sampled_from(["a", "abc"])),
        }
    if kind == "enum":
        options = draw(st.lists(st.sampled_from(["a", "b", 1, True, None]), min_size=1, max_size=4, unique_by=repr))
        return {"enum": options, "default": draw(st.sampled_from(options))}
    if kind == "null":
        return {"type": ["integer", "null"], "minimum": 0, "maximum": 9, "default": draw(st.none() | st.integers(0, 9))}
    if kind == "array":
        return {
            "type": "array",
            "items": {"type": "string"},
            "maxItems": 3,
            "default": draw(st.lists(st.just("a"), max_size=3)),
        }
    return {
        "type": "object",
        "properties": {"p": {"type": "integer"}},
        "default": draw(st.sampled_from([{}, {"p": 1}])),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    properties=st.dictionaries(st.sampled_from(["a", "b", "in", "x-y"]), defaulted(), min_size=1, max_size=3),
    closed=st.booleans(),
    spoken=st.booleans(),
    instances=st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "in", "x-y"]), values, max_size=2), min_size=4, max_size=8
    ),
)
def test_defaults(oracles: list[Oracle], properties: Any, closed: bool, spoken: bool, instances: list[Any]) -> None:
    if spoken:
        properties = {name: {**one, "x-message": f"{name} is wrong"} for name, one in properties.items()}
    document = {"type": "object", "properties": properties}
    if closed:
        document["additionalProperties"] = False
    assert disagreements(oracles, document, [{}, *instances], "kubevela") == []
    text = to_cue(compile_schema(parse_schema(document)).file())
    for oracle in oracles:
        assert oracle.openapi(text).ok, (oracle.version, text)
        filled = oracle.eval(text, "parameter")
        assert filled.result == {name: one["default"] for name, one in properties.items()}, (filled, text)


@st.composite
def nested(draw: st.DrawFn, depth: int = 2) -> tuple[Any, Any]:
    """An object, map or list whose parts have defaults of their own, with its default; and one that is nearly valid."""
    kind = draw(st.sampled_from(["map", "object", "array"] if depth else ["map", "scalar"]))
    if kind == "scalar":
        return {"type": "integer", "default": draw(st.integers(0, 3))}, draw(st.integers(0, 3) | st.just("x"))
    if kind == "map":
        wrong = {"type": "object", "additionalProperties": {"type": "string"}}
        default = draw(st.sampled_from([{}, {}, {"k": "v"}]))
        return {**wrong, "default": default}, draw(
            st.dictionaries(st.sampled_from(["k", "l"]), st.just("v") | st.just(3))
        )
    if kind == "array":
        inner, near = draw(nested(depth - 1))
        items = [inner["default"]] * draw(st.integers(0, 1))
        return {"type": "array", "items": inner, "default": items}, [near] * draw(st.integers(0, 2))
    parts = {name: draw(nested(depth - 1)) for name in draw(st.sampled_from(["a", "ab"]))}
    default = {name: one["default"] for name, (one, _) in parts.items() if draw(st.booleans())}
    schema: Any = {"type": "object", "properties": {name: one for name, (one, _) in parts.items()}, "default": default}
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    value = {name: near for name, (_, near) in parts.items() if draw(st.booleans())}
    return schema, {**value, **draw(st.sampled_from([{}, {}, {"other": 1}]))}


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs=st.lists(nested(), min_size=3, max_size=5))
def test_defaults_inside_defaults(oracles: list[Oracle], pairs: list[tuple[Any, Any]]) -> None:
    properties = {f"p{number}": schema for number, (schema, _) in enumerate(pairs)}
    document = {"type": "object", "properties": properties}
    instances = [{f"p{number}": near} for number, (_, near) in enumerate(pairs)]
    assert disagreements(oracles, document, [{}, *instances], "kubevela") == []
    text = to_cue(compile_schema(parse_schema(document)).file())
    for oracle in oracles:
        assert oracle.openapi(text).ok, (oracle.version, text)


TEXTS = {"type": "object", "additionalProperties": {"type": "string"}, "default": {}}
INTEGERS = {"type": "array", "items": {"type": "integer", "default": 1}, "default": []}


@pytest.mark.parametrize("beside", [{}, {"c": INTEGERS}, {"c": {"type": "array", "items": TEXTS, "default": []}}])
def test_a_map_in_a_list_that_has_a_default_is_judged_inside_an_objects_default(
    oracles: list[Oracle], beside: dict[str, Any]
) -> None:
    """The type says less there than the schema, as the form's conversion takes no map of a type beside a default."""
    parts = {"a": TEXTS, "b": {"type": "array", "items": TEXTS, "default": []}, **beside}
    document = {"type": "object", "properties": {"p": {"type": "object", "properties": parts, "default": {}}}}
    instances: list[Any] = [{}, *({"p": {"b": [one]}} for one in ({}, {"k": "v"}, {"k": 3}, {"k": "v", "l": 3}))]
    instances += [{"p": {"b": [], "a": {"k": 3}}}, {"p": {"b": ["x"]}}, {"p": {"c": [{"k": 1}]}}, {"p": {"c": ["x"]}}]
    assert disagreements(oracles, document, instances, "kubevela") == []
    text = to_cue(compile_schema(parse_schema(document)).file())
    assert all(oracle.openapi(text).ok for oracle in oracles), text


UNIONS = [
    {"type": ["string", "integer"], "minimum": 0, "default": "x", "x-message": "no"},
    {"type": ["string", "array"], "minItems": 2, "items": {"type": "object"}, "default": ""},
    {"type": ["string", "array"], "minLength": 2, "default": ["a"], "x-message": "no"},
    {"type": ["boolean", "object"], "required": ["a"], "default": True},
    {"type": ["string", "null"], "pattern": "^a", "default": None},
    {"default": "x", "minItems": 1, "minProperties": 1, "minimum": 3, "x-message": "no"},
]


@pytest.mark.parametrize("schema", UNIONS)
def test_the_default_of_a_union_is_not_judged_as_another_type(oracles: list[Oracle], schema: Any) -> None:
    document = {"type": "object", "properties": {"p": schema}}
    given: list[Any] = ["x", "abc", "", -1, 5, 0.25, True, None, [], [{}], ["q", "r"], {}, {"a": 1}]
    assert disagreements(oracles, document, [{"p": one} for one in given]) == []
    # A definition is read before anyone renders it: then the default is all there is.
    definition = to_cue(compile_schema(parse_schema(document), faces=True).file())
    for oracle in oracles:
        alone = oracle.openapi(f"{definition}\ncontext: {{name: string}}\n")
        assert alone.ok, alone.error
        verdict = oracle.compile(f"{definition}\ncontext: {{name: string}}\n")
        assert verdict.ok, verdict.error


def test_a_whole_number_that_was_written_with_a_point(oracles: list[Oracle]) -> None:
    document = {"type": "object", "properties": {"a": {"type": "integer", "default": 0}}}
    assert disagreements(oracles, document, [{"a": 1.0}, {"a": 1.5}], "kubevela") == []
