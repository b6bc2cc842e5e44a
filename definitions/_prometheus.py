"""What Prometheus answers a step: samples, or nothing where something else answers at its address.

Each part is asked for before it is used. What is not there would be an error of CUE, and a step that ends in one says
nothing that a user understands.

Source: Prometheus docs/querying/api.md (instant vectors).
"""

from __future__ import annotations

from velagen import Reference, each, first_given, if_else, length, let, matches, raw_cue
from velagen.template.expression import Expression, Literal, Value

#: A number as Prometheus writes it; NaN and +Inf are none.
NUMBER = r"^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$"
_JSON = ("encoding/json",)


def vector(status: Value, body: Value) -> tuple[Reference, Reference]:
    """Of an HTTP answer: whether it is a vector, with or without samples in it, and its samples; else none."""
    said = let(raw_cue(f"[if json.Valid({body}) {{json.Unmarshal({body})}}, {{}}][0]", imports=_JSON))
    result = let(first_given(said.data.result, 0))
    listed = let(raw_cue(f"[if ({result} & [...]) != _|_ {{{result}}}, [0]][0]"))
    sample = '{"metric": {...}, "value": [_, string]}'
    odd = [each(listed, lambda one: one, where=lambda one: raw_cue(f"({one} & {sample}) == _|_"))]
    is_vector = let(
        (status == 200)
        & (first_given(said.status, "") == "success")
        & (first_given(said.data.resultType, "") == "vector")
        & (length(odd) == 0)
    )
    samples = let(if_else(is_vector, listed, Literal([])))
    return is_vector, samples


def is_number(text: Expression) -> Expression:
    """Whether Prometheus' text is one with which can be computed."""
    return matches(text, NUMBER)
