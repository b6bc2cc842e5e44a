"""Discriminated unions: ``oneOf`` or ``anyOf`` whose branches each fix one property to values of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from velagen.schema.model import InexactError, Node, Shape, frozen, layers_of

#: What may stand at a discriminator beside its values: words that can't make one of them invalid.
_HARMLESS = frozenset(
    ["const", "enum", "type", "title", "description", "default", "examples", "deprecated", "$comment"]
)


@dataclass(frozen=True)
class Branch:
    """One alternative."""

    node: Node
    #: What the discriminator holds where it is chosen.
    values: tuple[Any, ...]

    def chosen(self, name: str) -> str:
        """How the choice is told: ``type is s3``."""
        shown = [value if isinstance(value, str) else json.dumps(value) for value in self.values]
        return f"{name} is {' or '.join(shown)}"


@dataclass(frozen=True)
class Union:
    """The alternatives and the property that tells them apart."""

    #: The discriminator's name.
    name: str
    branches: tuple[Branch, ...]
    #: Whether every branch asks for an object; where not, whoever asks must know that the value is one.
    objects: bool

    @cached_property
    def values(self) -> list[Any]:
        """All values that choose a branch, in their order."""
        return [value for branch in self.branches for value in branch.values]

    def branch_of(self, value: Any) -> Branch | None:
        """The branch that a discriminator's value chooses."""
        return next((one for one in self.branches if frozen(value) in map(frozen, one.values)), None)


def union_of(node: Node, keyword: str) -> Union | None:
    """The discriminated union that *keyword* (``oneOf`` or ``anyOf``) of *node* is; None where it is not one.

    It is one where some property has a const (or an enum) in every branch, is required in each, and no value occurs
    twice: then at most one branch can hold, and its own rules say all there is to say.
    """
    count = len(node.get(keyword, ()))
    if count < 2:
        return None
    found: list[tuple[Node, Shape, dict[str, tuple[Any, ...]]]] = []
    for index in range(count):
        branch = node.sub(keyword, index)
        try:
            shape = Shape(layers_of(branch))
        except InexactError:
            return None
        fixed = _fixed(shape)
        if not fixed or (found and not set(fixed) & set(found[0][2])):
            return None
        found.append((branch, shape, fixed))
    for name in found[0][2]:
        if all(name in fixed for _, _, fixed in found):
            values = [frozen(value) for _, _, fixed in found for value in fixed[name]]
            if len(set(values)) == len(values):
                branches = tuple(Branch(branch, fixed[name]) for branch, _, fixed in found)
                return Union(name, branches, all(shape.types == {"object"} for _, shape, _ in found))
    return None


def _fixed(shape: Shape) -> dict[str, tuple[Any, ...]]:
    """The required properties that may hold certain scalars only."""
    found = {}
    for name, one in shape.properties.items():
        values = one.shape.enum
        words = {word for node in one.shape.layers for word in node.view}
        if one.required and values and words <= _HARMLESS and len(one.shape.layers) == 1:
            node = one.shape.layers[0]
            scalars = not any(isinstance(value, (dict, list)) for value in values)
            if scalars and not ("const" in node and "enum" in node) and len(values) <= 50:
                found[name] = values
    return found
