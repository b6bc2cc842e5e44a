"""What may stand in a template beside plain dicts and lists: conditions, loops, patch marks, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

from velagen.template.expression import Expression, FirstGiven, Literal, Value, is_constant, wrap
from velagen.template.functions import matches
from velagen.template.places import MisuseError, Spot, here

_NOTHING: Any = object()


class If:
    """A key made by :func:`when`."""

    def __init__(self, condition: Value) -> None:
        self.condition = wrap(condition)
        self.place = here()


class Else:
    """A key made by :func:`otherwise`."""

    def __init__(self) -> None:
        self.place = here()


class Each:
    """A key made by :func:`each`."""

    def __init__(self, source: Value, *, where: Callable[..., Value] | None = None) -> None:
        self.source, self.where = wrap(source), _function(where, "where=")
        self.place = here()


@dataclass(frozen=True, eq=False)
class Items:
    """See :func:`each`."""

    source: Expression
    make: Callable[..., Value]
    where: Callable[..., Value] | None
    place: Spot = field(default_factory=here)


@dataclass(frozen=True, eq=False)
class When:
    """See :func:`when`; without a condition see :func:`otherwise`."""

    condition: Expression | None
    value: Value
    place: Spot = field(default_factory=here)


@dataclass(frozen=True, eq=False)
class Optional:
    """See :func:`optional`."""

    value: Value
    place: Spot = field(default_factory=here)


@dataclass(frozen=True, eq=False)
class Marked:
    """A value with a comment KubeVela reads, or one for the reader; *word* made it."""

    comment: str
    value: Value
    word: str
    place: Spot = field(default_factory=here)
    #: The field by which a patch tells the items of a list apart.
    key: str = ""


@dataclass(frozen=True, eq=False)
class Never:
    """See :func:`never`."""

    message: str
    place: Spot = field(default_factory=here)


@dataclass(frozen=True, eq=False)
class Refusal:
    """See :func:`refuse`."""

    condition: Expression
    message: Value
    place: Spot = field(default_factory=here)


@overload
def when(condition: Value) -> If: ...
@overload
def when(condition: Value, value: Value) -> When: ...


def when(condition: Value, value: Value = _NOTHING) -> If | When:
    """As a key, ``when(condition): {…}``: these fields where *condition* holds; a dict may have several such keys.

    In a list, ``when(condition, value)``: this item where *condition* holds.
    """
    return If(condition) if value is _NOTHING else When(wrap(condition), value)


@overload
def otherwise() -> Else: ...
@overload
def otherwise(value: Value) -> When: ...


def otherwise(value: Value = _NOTHING) -> Else | When:
    """Behind one or more ``when(…)``, as a key or in a list: where none of those right before it holds."""
    return Else() if value is _NOTHING else When(None, value)


@overload
def each(source: Value, *, where: Callable[..., Value] | None = None) -> Each: ...
@overload
def each(source: Value, make: Callable[..., Value], *, where: Callable[..., Value] | None = None) -> Items: ...


def each(
    source: Value, make: Callable[..., Value] = _NOTHING, *, where: Callable[..., Value] | None = None
) -> Each | Items:
    """In a list, ``each(source, make)``: ``make(item)`` for each item of *source* for which ``where(item)`` holds.

    A function of two arguments gets (index, item), or (key, value) of a map.
    As a key, ``each(source): make``: the fields of ``make(key, value)`` for each entry for which ``where(key, value)``
    holds.
    """
    if make is _NOTHING:
        return Each(source, where=where)
    checked = _function(make, "each(source, make)")
    assert checked is not None  # given, and so given back
    return Items(wrap(source), checked, _function(where, "where="))


def optional(value: Value) -> Optional:
    """The value of a field that is written only if all that *value* refers to was given."""
    return Optional(value)


def never(message: str) -> Never:
    """The value of a field of a component's output that is not written, and that no trait may write.

    A trait of somebody else's whose patch does is refused with *message*; it need not be a field that the output's kind
    has. Patches by JSON (labels, annotations, json-patch, json-merge-patch) unify nothing: they pass, and so does what
    comes after them; so does retainKeys on that very field. Source: kubevela/workflow pkg/cue/model/sets/operation.go.
    """
    if not isinstance(message, str) or not is_constant(message):
        raise MisuseError("never takes a constant text")
    return Never(message)


def comment(text: str, value: Value) -> Marked:
    """*value* with a comment above it in the CUE: above its field, or above the intermediate that it is."""
    return Marked(_constant(text, "comment"), value, "comment")


def retain_keys(value: Value) -> Marked:
    """In a patch: overwrite what the component set.

    Source: kubevela/workflow pkg/cue/model/sets/operation.go (patch strategies).
    """
    return Marked("+patchStrategy=retainKeys", value, "retain_keys")


def replace_list(value: Value) -> Marked:
    """In a patch: put this list in the place of the component's."""
    return Marked("+patchStrategy=replace", value, "replace_list")


def merge_by(key: str, value: Value) -> Marked:
    """In a patch: merge this list into the component's, item by item, where the items' *key* is the same."""
    return Marked(f"+patchKey={_constant(key, 'merge_by')}", value, "merge_by", key=key)


def refuse(condition: Value, message: Value) -> Refusal:
    """Where *condition* holds the application is refused with *message* (a sentence, perhaps an f-string)."""
    if isinstance(condition, bool):
        fate = "each application would be refused" if condition else "nothing would ever be refused"
        raise MisuseError(f"refuse({condition}, …): {fate}; the condition is one on parameter or context")
    return Refusal(wrap(condition), message)


def conditions(
    of: Expression,
    type: str = "",  # noqa: A002  # the field's own name
    status: str = "",
    *,
    reason: str = "",
    matching: str = "",
    give: Callable[[Any], Value] | None = None,
) -> Expression:
    """Of the list *of* of Kubernetes conditions, which may be missing, those of this *type*, *status* and *reason*.

    *matching* is a pattern of RE2 for the type. The result is a list of the conditions' types, or of what *give* makes
    of each.
    """

    def read(value: Expression) -> Expression:
        return FirstGiven((value, ""), lenient=True)

    def fits(condition: Any) -> Value:
        parts = [read(getattr(condition, name)) == wanted for name, wanted in asked.items() if wanted]
        if matching:
            parts.append(matches(read(condition.type), matching))
        found = parts[0]
        for part in parts[1:]:
            found = found & part
        return found

    asked: Mapping[str, str] = {"type": type, "status": status, "reason": reason}
    is_asked = any(asked.values()) or matching
    return Literal(
        [
            Items(
                FirstGiven((of, []), lenient=True),
                _function(give, "give=") or (lambda condition: read(condition.type)),
                fits if is_asked else None,
            )
        ]
    )


def _function(of: Callable[..., Value] | None, word: str) -> Callable[..., Value] | None:
    if of is not None and (isinstance(of, Expression) or not callable(of)):
        raise MisuseError(f"{word} takes a function, for instance lambda item: …, not {_kind(of)}")
    return of


def _constant(text: str, word: str) -> str:
    if not isinstance(text, str) or not is_constant(text):
        raise MisuseError(f"{word} takes a constant text here: it stands in a comment of the CUE")
    return text


def _kind(of: object) -> str:
    return "an expression" if isinstance(of, Expression) else type(of).__name__
