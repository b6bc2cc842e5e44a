"""What differs in constants alone is a loop over a table: the same meaning, with less to read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from velagen import cue
from velagen.oracle import VERSIONS, Oracle
from velagen.schema import compile_schema, parse_schema


@pytest.fixture(scope="module", params=VERSIONS)
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    with Oracle(request.param) as found:
        yield found


def at(*names: str) -> cue.Expr:
    found: cue.Expr = cue.Ident("parameter")
    for name in names:
        found = cue.Selector(found, name)
    return found


def copied(name: str, label: str) -> cue.Comprehension:
    """``if parameter.name != _|_ {label: parameter.name}``."""
    return cue.Comprehension((cue.Guard(cue.present(at(name))),), cue.Struct((cue.Field(label, at(name)),)))


def text(*decls: cue.Decl) -> str:
    looped = cue.looped(cue.Struct(decls))
    assert isinstance(looped, cue.Struct)
    return cue.to_cue(cue.File(looped.decls))


def test_what_differs_in_one_name_is_a_loop_over_names() -> None:
    assert text(*(copied(name, name) for name in ("a", "b", "c", "d"))) == (
        'for part in ["a", "b", "c", "d"] if parameter[part] != _|_ {(part): parameter[part]}\n'
    )


def test_a_second_difference_is_the_other_column() -> None:
    names = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier"}
    assert text(*(copied(name, label) for name, label in names.items())) == (
        'for part, pair in {one: "eins", two: "zwei", three: "drei", four: "vier"} if parameter[part] != _|_ {\n'
        "\t(pair): parameter[part]\n}\n"
    )


def test_few_and_unlike_ones_and_plain_data_stay() -> None:
    few = (copied("a", "a"), copied("b", "b"))
    data = tuple(cue.Field(name, cue.Lit(1)) for name in "abcdefgh")
    for decls in (few, data):
        assert "for" not in text(*decls)
    guarded = cue.Comprehension((cue.Guard(at("x")), *copied("e", "e").clauses), copied("e", "e").body)
    assert text(copied("a", "a"), guarded, copied("b", "b"), guarded).count("if") == 6


def test_a_variable_does_not_hide_what_is_meant_outside() -> None:
    decls = [
        cue.Comprehension(one.clauses, cue.Struct((*one.body.decls, cue.Field("x", cue.Ident("part")))))
        for one in (copied(name, name) for name in "abcd")
        if isinstance(one.body, cue.Struct)
    ]
    assert "for part2 in" in text(*decls)


def test_a_loop_means_what_stood_there(oracle: Oracle) -> None:
    decls = tuple(copied(name, f"{name}-x") for name in "abcd")
    for parameter in ("{}", "{a: 1}", "{d: 4, b: {c: 2}}"):
        before, after = (
            oracle.eval(cue.to_cue(cue.File(one)), extra=f"parameter: {parameter}")
            for one in (decls, cue.looped(cue.Struct(decls)).decls)  # type: ignore[attr-defined]  # a struct stays one
        )
        assert before.ok
        assert before.result == after.result


def whole(least: int) -> dict[str, object]:
    return {"type": "integer", "minimum": least, "x-message": f"a whole number, {least} or more"}


PART = {"type": "object", "properties": {"least": whole(0), "most": whole(1), "ports": {"$ref": "#/$defs/Ports"}}}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{name: whole(number) for number, name in enumerate(("a", "b", "c"))},
        "wait": {**whole(1), "default": 5},
        "ports": {"$ref": "#/$defs/Ports"},
        "left": {"$ref": "#/$defs/Part"},
        "right": {"$ref": "#/$defs/Part"},
        "only": {"type": "object", "properties": {"least": whole(3)}},
        "other": {"type": "object", "properties": {"most": whole(4), "least": whole(5)}},
    },
    "$defs": {
        "Part": PART,
        "Ports": {
            "type": "array",
            "items": {"type": "object", "required": ["port"], "properties": {"port": whole(1)}},
        },
    },
}


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ({}, ""),
        ({"a": 0, "b": 1, "c": 2, "left": {"least": 0}, "ports": [{"port": 1}]}, ""),
        ({"a": -1}, "a whole number, 0 or more"),
        ({"b": 0}, "a whole number, 1 or more"),
        ({"c": "x"}, "a whole number, 2 or more"),
        ({"wait": 0}, "a whole number, 1 or more"),
        ({"only": {"least": 2}}, "a whole number, 3 or more"),
        ({"other": {"most": 3}}, "a whole number, 4 or more"),
        ({"right": {"most": 0}}, "a whole number, 1 or more"),
        ({"ports": [{}]}, "ports[0].port is required"),
        ({"left": {"ports": [{"port": 1}, {}]}}, "left.ports[1].port is required"),
        ({"right": {"ports": [{"port": 0}]}}, "a whole number, 1 or more"),
    ],
)
def test_a_table_refuses_what_each_check_would(oracle: Oracle, parameter: dict[str, object], says: str) -> None:
    compiled = cue.to_cue(compile_schema(parse_schema(SCHEMA), faces=True).file())
    assert "for property, rule in {" in compiled
    assert "for object, rules in {" in compiled
    assert compiled.count("port is required") == 1
    (verdict,) = oracle.render(compiled, [parameter])
    assert says in verdict.error
    assert verdict.ok == (not says)


def test_a_text_is_made_of_the_name_and_what_is_around_it() -> None:
    def said(name: str) -> cue.Comprehension:
        parts = (f"{name}.args has ", at(name, "args"), f" and its {name}.env")
        return cue.Comprehension(copied(name, name).clauses, cue.Struct((cue.Field(name, cue.Interpolation(parts)),)))

    assert r'(part): "\(part).args has \(parameter[part].args) and its \(part).env"' in text(
        *map(said, ("ab", "cd", "ef"))
    )
    assert r'" and its' not in text(*map(said, ("ab", "cd", "ef")))
