"""Expressions worked out in Python."""

from __future__ import annotations

from velagen import each, let
from velagen.template.evaluate import evaluate
from velagen.template.expression import Reference, Root


def test_an_intermediate_of_a_loop_is_that_of_its_round() -> None:
    """Each round makes a new one, at the address of one that is gone."""
    items = Reference(Root("items"))
    wanted = [2 * number for number in range(50)]
    assert evaluate([each(items, lambda one: let(one * 2) + 0)], {"items": list(range(50))}) == wanted
