"""Where the intermediates of a workflow step stand.

KubeVela's engine evaluates a step anew after each of its operations, and intermediates there are fields, which CUE
evaluates whether they are asked for or not. What is needed inside a block of the step alone (``when(…)`` at its top)
therefore stands in it: as long as the block's condition does not hold, it costs nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from velagen import cue

_IN_RAW = re.compile(r"_#\w+")


def placed(intermediates: Sequence[cue.Decl], decls: Sequence[cue.Decl]) -> tuple[cue.Decl, ...]:
    """*decls* with each of the *intermediates* in the innermost block that all its uses lie in; the others first."""
    known = {_name(one): one for one in intermediates}
    needs = {name: _named(one.children(), known) for name, one in known.items()}
    used = _reached(_named(decls, known), needs)
    idle = [one for name, one in known.items() if name not in used]
    return (*idle, *_filled(decls, used, known, needs))


def _filled(
    decls: Sequence[cue.Decl], own: set[str], known: Mapping[str, cue.Decl], needs: Mapping[str, set[str]]
) -> tuple[cue.Decl, ...]:
    blocks = {number: one for number, one in enumerate(decls) if isinstance(one, cue.Comprehension)}
    others = [one for number, one in enumerate(decls) if number not in blocks]
    clauses = [clause for one in blocks.values() for clause in one.clauses]
    here = _reached(_named([*others, *clauses], known), needs) & own
    wanted = {number: (_reached(_named([one.body], known), needs) & own) - here for number, one in blocks.items()}
    in_blocks = Counter(name for some in wanted.values() for name in some)
    twice = {name for name, times in in_blocks.items() if times > 1}
    here |= twice
    made: list[cue.Decl] = [one for name, one in known.items() if name in here]
    for number, one in enumerate(decls):
        if isinstance(one, cue.Comprehension) and isinstance(one.body, cue.Struct):
            inside = _filled(one.body.decls, wanted[number] - twice, known, needs)
            made.append(replace(one, body=cue.Struct(inside)))
        else:
            made.append(one)
    return tuple(made)


def _name(decl: cue.Decl) -> str:
    assert isinstance(decl, cue.Field)
    assert isinstance(decl.label, cue.Name)
    return decl.label.name


def _named(nodes: Iterable[cue.Node], known: Mapping[str, cue.Decl]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        for one in node.walk():
            if isinstance(one, cue.Ident):
                found.add(one.name)
            elif isinstance(one, cue.Raw):
                found.update(_IN_RAW.findall(one.text))
    return found & known.keys()


def _reached(start: set[str], needs: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = set(start)
    while left:
        name = left.pop()
        found.add(name)
        left |= needs[name] - found
    return found
