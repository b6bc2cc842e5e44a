"""Intermediates of a step stand in the block that needs them, and CUE gives the same for it."""

from __future__ import annotations

from typing import Any

import pytest

from velagen import cue, first_given, given, let, operation, result_of, when
from velagen import parameter as p
from velagen.definition.build import _step_body
from velagen.oracle import VERSIONS, Oracle
from velagen.template.blocks import placed
from velagen.template.compiler import TemplateCompiler
from velagen.template.expression import Value
from velagen.template.types import Fields, JsonType, Member

answer = result_of("first")["ask"]["$returns"].str
both = let(f"{p.a}!", name="both")
early = let(f"{both}{p.b}", name="early")
late = let(f"{both}{first_given(answer, '')}", name="late")
later = let(f"{late}?", name="later")
inner = let(f"{late}.", name="inner")


def echo(text: Value) -> Value:
    return operation("vela/util", "#ConvertString", {"bt": text})


STEP: dict[object, Value] = {
    "first": {"ask": echo(early)},
    when(given(answer)): {
        "second": {"ask": echo(later)},
        when(p.a == "x"): {"third": {"ask": echo(inner)}},
    },
}


def written() -> str:
    texts = Fields({name: Member(JsonType("string"), present=True) for name in ("a", "b")})
    compiler = TemplateCompiler(parameter=texts, object_schemas=lambda *_: None, lets_as="definition")
    decls = _step_body(compiler, STEP)
    assert compiler.problems == []
    return cue.to_cue(cue.File(placed(compiler.intermediates(), decls)))


def test_each_stands_where_all_its_uses_are() -> None:
    tabs = {
        line.strip().split(":")[0]: len(line) - len(line.lstrip("\t"))
        for line in written().splitlines()
        if line.strip().startswith("_#")
    }
    assert tabs == {"_#both": 0, "_#early": 0, "_#late": 1, "_#later": 1, "_#inner": 2}


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("given_answer", "wanted"), [(None, None), ("y", "x!y?")])
def test_the_block_is_there_once_it_is_answered(version: Any, given_answer: str | None, wanted: str | None) -> None:
    text = written().split(")\n", 1)[1].replace("util.#ConvertString", "{...}")
    said = f'\nfirst: ask: $returns: str: "{given_answer}"' if given_answer else ""
    with Oracle(version) as oracle:
        answer = oracle.eval(text, "second", extra=f'\nparameter: {{a: "x", b: "z"}}{said}')
    assert answer.ok == (wanted is not None)
    if wanted:
        assert answer.result["ask"]["$params"]["bt"] == wanted
