"""The words of a template: each function takes the types that CUE takes, and gives what CUE gives."""
# a case a line

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import velagen
from velagen import context, cue, each, given, let
from velagen import parameter as p
from velagen.kubevela import CueVersion
from velagen.oracle import VERSIONS, Oracle
from velagen.schema import parse_schema
from velagen.template import functions
from velagen.template.compiler import TemplateCompiler, parameter_type
from velagen.template.evaluate import evaluate
from velagen.template.expression import Expression
from velagen.template.library import LIBRARY, Takes
from velagen.template.places import MisuseError

#: A property of each JSON type, and lists of each.
TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
PROPERTIES: dict[str, Any] = {
    **{name: {"type": name} for name in TYPES if name != "array"},
    "array": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    **{f"{name}s": {"type": "array", "items": {"type": name}, "minItems": 1} for name in TYPES},
    "few": {"type": "array", "items": {"type": "integer"}},
    "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    "mode": {"type": "array", "items": {"enum": ["a", "b"]}},
    "pattern": {"enum": ["^a", "(?=a)b"]},
    "people": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "object"}},
        },
    },
}
SCHEMA = {"type": "object", "properties": PROPERTIES, "required": list(PROPERTIES), "additionalProperties": False}
SHAPE = parameter_type(parse_schema(SCHEMA).shape)


def compiled(value: Any) -> tuple[str, list[str]]:
    compiler = TemplateCompiler(parameter=SHAPE, object_schemas=lambda *_: None)
    field = cue.Field("x", compiler.body(value, velagen.template.types.UNKNOWN, "x"))
    text = cue.to_cue(cue.File((*compiler.intermediates(), field)))
    return text, [problem.message for problem in compiler.problems]


def takes_of(word: str) -> list[Takes]:
    return list(LIBRARY[word].arguments)


def right(takes: Takes) -> Any:
    """A property that fits an argument."""
    if takes.items:
        return p[f"{next(iter(sorted(takes.items)))}s"]
    if takes.types:
        return p[min(takes.types)]
    return p.string


def called(word: str, *arguments: Any) -> Any:
    return getattr(velagen, word)(*arguments)


def wrong_types() -> Iterator[Any]:
    """A property of each JSON type that an argument does not take, and a list of each that it may not hold."""
    for word in LIBRARY:
        for number, takes in enumerate(takes_of(word)):
            for name in TYPES:
                # A whole number is a number.
                if takes.types and name not in takes.types and not (name == "integer" and "number" in takes.types):
                    yield pytest.param(word, number, p[name], name, id=f"{word}-{takes.name}-{name}")
            for name in TYPES:
                # concat makes a list of its arguments, so a list of anything fits.
                if (
                    word != "concat"
                    and takes.items
                    and name not in takes.items
                    and not (name == "integer" and "number" in takes.items)
                ):
                    yield pytest.param(word, number, p[f"{name}s"], name, id=f"{word}-{takes.name}-list-of-{name}")


def test_every_function_is_declared_and_exported() -> None:
    assert set(LIBRARY) <= set(velagen.__all__)
    made = {word for word in functions.__all__ if f'_call("{word}"' in inspect.getsource(getattr(functions, word))}
    assert made == set(LIBRARY)


@pytest.mark.parametrize("word", LIBRARY)
def test_a_function_takes_what_it_declares(word: str) -> None:
    text, problems = compiled(called(word, *map(right, takes_of(word))))
    assert problems == []
    assert "parameter." in text


@pytest.mark.parametrize(("word", "number", "wrong", "name"), list(wrong_types()))
def test_a_function_refuses_each_wrong_type(word: str, number: int, wrong: Expression, name: str) -> None:
    arguments = [right(takes) for takes in takes_of(word)]
    arguments[number] = wrong
    _, problems = compiled(called(word, *arguments))
    assert any(one.startswith(f"{word}: ") and name in one for one in problems), problems


@pytest.mark.parametrize(
    "word", [word for word in LIBRARY for takes in LIBRARY[word].arguments if takes.types == {"string"}]
)
def test_a_value_that_may_be_of_a_wrong_type_is_refused(word: str) -> None:
    arguments = [p.either if takes.types == {"string"} else right(takes) for takes in takes_of(word)]
    _, problems = compiled(called(word, *arguments))
    assert any("may be an integer, and" in one for one in problems), problems


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (velagen.contains(p.string, "s3"), "may be a string, and items takes an array"),
        (velagen.contains(p.mode, "c"), "'c' is never in the list"),
        (velagen.contains(p.array, 3), "3 is never in the list, whose items are strings"),
        (velagen.join(p.integers, ","), "may hold an integer, and items takes a list of strings"),
        (velagen.join([each(p.people, lambda one: one.age)], ","), "may be absent here"),
        (velagen.join([each(p.integers, lambda one: one)], ","), "may hold an integer"),
        (velagen.length(p.integer), "may be an integer"),
        (velagen.length([1, 2]) + "x", "is not a text (it may be an integer)"),
        (velagen.maximum(p.few), "may be an empty list, of which there is no maximum"),
        (velagen.matches(p.string, "(?=a)b"), "'(?=a)b' is not valid RE2, which CUE takes"),
        (velagen.matches(p.string, velagen.if_else(p.boolean, "[", "a")), "'[' is not valid RE2"),
        (velagen.matches(p.string, p.pattern), "'(?=a)b' is not valid RE2"),
        (velagen.replace_pattern(p.string, "a{2000}", ""), "is not valid RE2"),
        (let(velagen.replace_pattern(p.string, "(", "")), "is not valid RE2"),
        (velagen.sort_by(p.people), "sort_by orders numbers or texts, and the items may be an object"),
        (velagen.sort_by(p.people, lambda one: one.tags), "may be absent here"),
        (velagen.sort_by(p.people, lambda one: one.nmae), "has no 'nmae'"),
        (velagen.sort_by(p.string), "may be a string, and items takes an array"),
        (velagen.split(p.string, "/")[3], "may be absent here"),
        (velagen.split(p.string, "/")["a"], "it has no"),
        (p.few[0], "parameter.few[0] may be absent here"),
        (p.few[-1], "CUE counts from the start of a list"),
        (p.string[0], "parameter.string is a string: it has no parameter.string[0]"),
        (velagen.if_else(p.string, 1, 2), "parameter.string is not a condition (it may be a string)"),
        (velagen.one_of(p.mode[0], "c"), "is never 'c'"),
        (velagen.choose(p.integer, {"a": 1}, 2), "may be an integer, and a table is asked by text"),
        (velagen.choose(velagen.first_given(context.appLabels.x, "a"), {"a": 1}), "may be asked for any text"),
        (p.either + 1, "parameter.either is not a number"),
        (p.either < 3, "can't be ordered with <"),
        (f"{p.object}", "may be an object, so it can't stand inside a text"),
    ],
)
def test_what_cannot_be_is_refused(value: Any, sentence: str) -> None:
    _, problems = compiled(value)
    assert any(sentence in one for one in problems), problems


def test_an_argument_may_be_an_expression_wherever_cue_takes_one() -> None:
    text, problems = compiled(
        [
            velagen.matches(p.string, f"^{p.string}/"),
            velagen.split(p.string, p.string),
            velagen.replace_text(p.string, f"{p.string}-", f"+{p.string}"),
            velagen.join(p.array, p.string),
            velagen.replace_pattern(p.string, p.string, p.string),
        ]
    )
    assert problems == []
    assert 'parameter.string =~ "^\\(parameter.string)/"' in text
    assert "strings.Split(parameter.string, parameter.string)" in text
    assert 'strings.Replace(parameter.string, "\\(parameter.string)-", "+\\(parameter.string)", -1)' in text


# ---------------------------------------------------------------- marks


@pytest.mark.parametrize(
    "change",
    [
        str.upper, str.lower, str.title, str.swapcase, str.capitalize,
        lambda text: text.replace("/", "-"), lambda text: text.replace("a", ""), lambda text: text[:40],
        lambda text: text.split("/")[2], lambda text: text.partition(".")[0], lambda text: text.translate({45: "_"}),
        lambda text: json.dumps({"a": text}), repr, lambda text: text[10:], lambda text: ascii(text),
        lambda text: __import__("urllib.parse").parse.quote(text), lambda text: text.center(300, "x")[1:-1][120:],
    ],
)  # fmt: skip
def test_a_text_with_expressions_that_python_changed_is_refused(change: Callable[[str], str]) -> None:
    """What it would give is the change of the constant part alone."""
    text, problems = compiled(change(f"s3://{p.string}/a"))
    assert any("Python changed a text that has template expressions in it" in one for one in problems), (text, problems)


@pytest.mark.parametrize(
    "change",
    [
        str.strip,
        lambda text: text + "-x",
        lambda text: " ".join(["a", text]),
        lambda text: "%s!" % text,  # noqa: UP031  # that is the point
        lambda text: "{}!".format(text),  # noqa: UP032
        lambda text: text * 2,
    ],
)
def test_a_text_may_be_joined_with_others(change: Callable[[str], str]) -> None:
    text, problems = compiled(change(f"s3://{p.string}/a"))
    assert problems == []
    assert "s3://\\(parameter.string)/a" in text


def test_raw_cue_takes_references() -> None:
    text, problems = compiled(velagen.raw_cue(f'strings.SplitN({p.string}, "/", 2)[0]', imports=("strings",)))
    assert problems == []
    assert 'x: strings.SplitN(parameter.string, "/", 2)[0]' in text
    _, problems = compiled(velagen.raw_cue(f"{p.strnig}"))
    assert problems == ["parameter has no 'strnig'; did you mean 'string'?"]


def test_raw_cue_takes_expressions_with_their_imports() -> None:
    text, problems = compiled(velagen.raw_cue(f"[{velagen.lower(p.string)}, {p.integer + 1}]"))
    assert problems == []
    assert "[strings.ToLower(parameter.string), ((parameter.integer) + 1)]" in text
    assert '"strings"' in text


@pytest.mark.parametrize(
    "call",
    [
        lambda: velagen.comment(f"{p.string}", 1),
        lambda: velagen.merge_by(f"{p.string}", []),
        lambda: velagen.operation(f"vela/{p.string}", "#Apply", {}),
        lambda: velagen.result_of(f"{p.string}"),
        lambda: velagen.choose(p.string, {f"{p.string}": 1}, 2),
        lambda: velagen.each(p.array, {"name": "x"}),  # type: ignore[call-overload]  # that is the mistake
        lambda: velagen.each(p.array, p.string),
        lambda: velagen.cases(p.boolean, otherwise=1),  # type: ignore[arg-type]
        lambda: velagen.given("x"),  # type: ignore[arg-type]
        lambda: velagen.maximum(),
        lambda: p.string.upper(),
        lambda: velagen.sort_by(p.people, "name"),  # type: ignore[arg-type]
    ],
)
def test_a_word_that_needs_a_constant_or_a_function_says_so(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"constant|function|pairs|takes|needs|no methods") as caught:
        call()
    assert "\ue000" not in str(caught.value)


# ---------------------------------------------------------------- what CUE makes of it

GIVEN = {
    "string": "s3://models/a/b", "integer": 3, "number": 2.5, "boolean": True, "array": ["b", "a", "b"],
    "integers": [3, 1, 2], "few": [], "arrays": [["x"], ["y", "z"]], "numbers": [0.5, 2],
    "people": [{"name": "Zoe", "age": 1}, {"name": "Al", "age": 2}], "strings": ["x", "Y"],
}  # fmt: skip


def evaluations() -> list[tuple[Any, Any]]:
    return [
        (velagen.total(p.integers), 6),
        (velagen.total(p.few), 0),
        (velagen.maximum(p.integers), 3),
        (velagen.maximum(p.integer, 7), 7),
        (velagen.minimum(p.numbers), 0.5),
        (velagen.cases((velagen.length(p.few) > 0, velagen.maximum(p.few)), otherwise=-1), -1),
        (velagen.flatten(p.arrays), ["x", "y", "z"]),
        (velagen.concat(p.array, ["c"]), ["b", "a", "b", "c"]),
        (velagen.unique(p.array), ["b", "a"]),
        (velagen.unique(p.people), GIVEN["people"]),
        (velagen.sort_by(p.array), ["a", "b", "b"]),
        (velagen.sort_by(p.integers, descending=True), [3, 2, 1]),
        ([each(velagen.sort_by(p.people, lambda one: one.name), lambda one: one.name)], ["Al", "Zoe"]),
        (velagen.sort_by(p.people, lambda x: velagen.lower(x.name), descending=True)[0]["name"], "Zoe"),
        (velagen.to_number("0.5") * 4, 2),
        (velagen.quantity("500m"), 0.5),
        (velagen.quantity("1Gi"), 1073741824),
        (velagen.quantity("1.5Mi") + velagen.quantity(2), 1572866),
        (velagen.quantity("2e3"), 2000),
        (velagen.quantity("1E"), 1e18),
        (velagen.to_base64("abc"), "YWJj"),
        (velagen.from_base64("YWJj"), "abc"),
        (velagen.sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (velagen.first_given(velagen.from_json('{"a": [1, 2]}')["a"], []), [1, 2]),
        (velagen.is_json('{"a": [1, 2]}'), True),
        (velagen.is_json("<html>"), False),
        (velagen.url_encode('a b="c"&+'), "a+b%3D%22c%22%26%2B"),
        (velagen.from_base64(velagen.to_base64("ä")), "ä"),
        (velagen.split(p.string, "/")[0], "s3:"),
        (velagen.first_given(velagen.split(p.string, "/")[9], "none"), "none"),
        (velagen.first_given(velagen.split(p.string, "/")[3], "none"), "a"),
        (velagen.one_of(p.integer, 1, 3), True),
        (velagen.div(7, 2), 3),
        (-p.integer, -3),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_cue_gives_what_the_words_say(version: CueVersion) -> None:
    with Oracle(version) as oracle:
        for value, wanted in evaluations():
            text, problems = compiled(value)
            assert problems == [], (problems, text)
            found = oracle.eval(text, "x", f"parameter: {json.dumps(GIVEN)}")
            assert found.ok, (found.error, text)
            assert found.result == wanted, text


def test_python_gives_what_cue_gives() -> None:
    """Of the words that are worked out in Python, the same values; any other is refused."""
    done = 0
    for value, wanted in evaluations():
        try:
            found = evaluate(value, {"parameter": GIVEN})
        except MisuseError as error:
            assert "not worked out in Python" in str(error)  # noqa: PT017  # both outcomes are right
            continue
        assert found == wanted
        done += 1
    assert done >= 10
    with pytest.raises(LookupError):
        evaluate(p.missing, {"parameter": GIVEN})


OPTIONAL = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "list": {"type": "array", "items": {"type": "integer"}}},
}


def conditions_of_absence() -> list[tuple[Any, dict[str, Any], Any]]:
    """What a condition gives where the property it first asks for is not there, and where it is."""
    both = given(p.a) & (p.a > 2)
    return [
        (velagen.as_string(~both), {}, "true"),
        (velagen.as_string(both | (velagen.length(context.name) > 9)), {}, "false"),
        (velagen.as_string(both | (velagen.length(context.name) > 9)), {"a": 3}, "true"),
        (velagen.as_string(velagen.missing(p.a) | (p.a > 2)), {}, "true"),
        (velagen.as_string(velagen.missing(p.a) | (p.a > 2)), {"a": 1}, "false"),
        (velagen.cases((velagen.missing(p.a), "none"), (p.a > 2, "big"), otherwise=f"{p.a}"), {}, "none"),
        (velagen.cases((velagen.missing(p.a), "none"), (p.a > 2, "big"), otherwise=f"{p.a}"), {"a": 3}, "big"),
        (velagen.cases((velagen.missing(p.a), "none"), (p.a > 2, "big"), otherwise=f"{p.a}"), {"a": 1}, "1"),
        ({velagen.when(both): {"x": 1}, velagen.otherwise(): {"y": 1}}, {}, {"y": 1}),
        ({velagen.when(both): {"x": 1}, velagen.otherwise(): {"y": 1}}, {"a": 3}, {"x": 1}),
        ([velagen.when(both, 1), velagen.otherwise(2)], {}, [2]),
        ([velagen.when(both, 1), velagen.otherwise(2)], {"a": 5}, [1]),
        ({velagen.when(velagen.missing(p.a)): {"x": 1}, velagen.otherwise(): {"y": p.a}}, {"a": 5}, {"y": 5}),
        (
            {velagen.when(velagen.missing(p.list)): {"x": 1}, velagen.when(velagen.missing(p.a)): {"z": 1},
             velagen.otherwise(): {"y": p.a}},
            {"a": 1, "list": [7]},
            {"y": 1},
        ),
        ({velagen.when(given(p.list) & (velagen.length(p.list) > 1)): {"x": p.list[1]}}, {"list": [7]}, {}),
        ({velagen.when(given(p.list) & (velagen.length(p.list) > 1)): {"x": p.list[1]}}, {"list": [7, 8]}, {"x": 8}),
        (velagen.first_given(p.list[0], 0), {"list": []}, 0),
        ({"x": velagen.optional(p.list[0])}, {"list": []}, {}),
    ]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_a_condition_holds_though_what_it_asks_for_is_absent(version: CueVersion) -> None:
    """CUE evaluates both sides of && and ||, and an absent property makes neither true nor false of them."""
    shape = parameter_type(parse_schema(OPTIONAL).shape)
    with Oracle(version) as oracle:
        for value, parameter, wanted in conditions_of_absence():
            compiler = TemplateCompiler(parameter=shape, object_schemas=lambda *_: None)
            body = compiler.body(value, velagen.template.types.UNKNOWN, "x")
            assert compiler.problems == []
            text = cue.to_cue(cue.File((*compiler.intermediates(), cue.Field("x", body))))
            extra = f'parameter: {{a?: int, list?: [...int]}}\nparameter: {json.dumps(parameter)}\ncontext: name: "m"'
            found = oracle.eval(text, "x", extra)
            assert found.ok, (found.error, text)
            assert found.result == wanted, (text, parameter)
