"""What may stand in a template beside plain dicts and lists: conditions, loops, patch marks, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from velagen.errors import Place
from velagen.template.expression import Expression, Value, _here


class If:
    """A dict key: the fields below it exist where *condition* holds. May stand several times in one dict."""

    def __init__(self, condition: Expression) -> None:
        self.condition = condition
        self.place = _here()


class Each:
    """A dict key: fields for each entry of a map or list; the value is a function of (key, value) giving a dict."""

    def __init__(self, source: Expression, *, where: Callable[..., Expression] | None = None) -> None:
        self.source, self.where = source, where
        self.place = _here()


@dataclass(frozen=True, eq=False)
class Items:
    """See :func:`each`."""

    source: Expression
    make: Callable[..., Value]
    where: Callable[..., Expression] | None
    place: Place = field(default_factory=_here)


@dataclass(frozen=True, eq=False)
class When:
    """See :func:`when`."""

    condition: Expression
    value: Value
    place: Place = field(default_factory=_here)


@dataclass(frozen=True, eq=False)
class Optional:
    """See :func:`optional`."""

    value: Value
    place: Place = field(default_factory=_here)


@dataclass(frozen=True, eq=False)
class Marked:
    """A value with a comment KubeVela reads, or one for the reader."""

    comment: str
    value: Value
    place: Place = field(default_factory=_here)


@dataclass(frozen=True, eq=False)
class Never:
    """See :func:`never`."""

    message: str
    place: Place = field(default_factory=_here)


@dataclass(frozen=True, eq=False)
class Refusal:
    """See :func:`refuse`."""

    condition: Expression
    message: str
    place: Place = field(default_factory=_here)


def each(source: Expression, make: Callable[..., Value], *, where: Callable[..., Expression] | None = None) -> Items:
    """In a list: ``make(item)`` for each item of *source* for which ``where(item)`` holds.

    A function of two arguments gets (index, item), or (key, value) of a map.
    """
    return Items(source, make, where)


def when(condition: Expression, value: Value) -> When:
    """In a list: *value*, where *condition* holds."""
    return When(condition, value)


def optional(value: Value) -> Optional:
    """The value of a field that is written only if all that *value* refers to was given."""
    return Optional(value)


def never(message: str) -> Never:
    """The value of a field of a component's output that is not written, and that no trait may write.

    A trait of somebody else's whose patch does is refused with *message*; it need not be a field that the output's kind
    has. Patches by JSON (labels, annotations, json-patch, json-merge-patch) unify nothing: they pass, and so does what
    comes after them; so does retainKeys on that very field. Source: kubevela/workflow pkg/cue/model/sets/operation.go.
    """
    return Never(message)


def comment(text: str, value: Value) -> Marked:
    """*value* with a comment above it in the CUE."""
    return Marked(text, value)


def retain_keys(value: Value) -> Marked:
    """In a patch: overwrite what the component set.

    Source: kubevela/workflow pkg/cue/model/sets/operation.go (patch strategies).
    """
    return Marked("+patchStrategy=retainKeys", value)


def replace_list(value: Value) -> Marked:
    """In a patch: put this list in the place of the component's."""
    return Marked("+patchStrategy=replace", value)


def merge_by(key: str, value: Value) -> Marked:
    """In a patch: merge this list into the component's, item by item, where the items' *key* is the same."""
    return Marked(f"+patchKey={key}", value)


def refuse(condition: Expression, message: str) -> Refusal:
    """Where *condition* holds the application is refused with *message* (a sentence, perhaps an f-string)."""
    return Refusal(condition, message)
