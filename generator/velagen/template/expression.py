"""What may stand at a leaf of a template: references, constants and small expressions over them.

Python's own operators build the tree, as in SQLAlchemy or Polars: ``p.minReplicas > 2`` compares nothing, it *says* a
comparison, which :mod:`velagen.template.compiler` checks against the schemas and writes as CUE.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from velagen.errors import Place

_PACKAGE = str(Path(__file__).resolve().parents[1])

# An expression inside an f-string is written as its number between two private-use characters, and found again there.
_OPEN, _CLOSE = "\ue000", "\ue001"
_formatted: list[Expression] = []

#: Anything that may stand in a template: JSON data with expressions, markers and conditional keys in it.
Value: TypeAlias = Any


def _here() -> Place:
    """The line of the definition that is being written."""
    frame = sys._getframe(1)
    while frame is not None:
        # A data class builds its __init__ from a string.
        if not frame.f_code.co_filename.startswith((_PACKAGE, "<string>")):
            return Place(file=frame.f_code.co_filename, line=frame.f_lineno)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return Place()


class Expression:
    """The base of all that is computed when KubeVela renders, not when the definition is built."""

    # Private, as all names of a reference's own are: any other may be a property of the user's.
    __slots__ = ("_place",)

    def __init__(self) -> None:
        self._place = _here()

    # Comparison, arithmetic, logic -----------------------------------------------------------------

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return Operation("==", self, wrap(other))

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return Operation("!=", self, wrap(other))

    def __lt__(self, other: object) -> Expression:
        return Operation("<", self, wrap(other))

    def __le__(self, other: object) -> Expression:
        return Operation("<=", self, wrap(other))

    def __gt__(self, other: object) -> Expression:
        return Operation(">", self, wrap(other))

    def __ge__(self, other: object) -> Expression:
        return Operation(">=", self, wrap(other))

    def __add__(self, other: object) -> Expression:
        return Operation("+", self, wrap(other))

    def __radd__(self, other: object) -> Expression:
        return Operation("+", wrap(other), self)

    def __sub__(self, other: object) -> Expression:
        return Operation("-", self, wrap(other))

    def __rsub__(self, other: object) -> Expression:
        return Operation("-", wrap(other), self)

    def __mul__(self, other: object) -> Expression:
        return Operation("*", self, wrap(other))

    def __rmul__(self, other: object) -> Expression:
        return Operation("*", wrap(other), self)

    def __truediv__(self, other: object) -> Expression:
        return Operation("/", self, wrap(other))

    def __rtruediv__(self, other: object) -> Expression:
        return Operation("/", wrap(other), self)

    def __and__(self, other: object) -> Expression:
        return Operation("&&", self, wrap(other))

    def __or__(self, other: object) -> Expression:
        return Operation("||", self, wrap(other))

    def __invert__(self) -> Expression:
        return Not(self)

    __hash__ = object.__hash__

    # What Python would do silently and wrongly -----------------------------------------------------

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a template expression has no truth value while the definition is built: "
            "write & | ~ instead of and, or, not; If(…) or if_else(…) instead of if"
        )

    def __iter__(self) -> NoReturn:
        raise TypeError("a template expression can't be looped over in Python: use each(…) in lists, Each(…) in dicts")

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError("use contains(list, item) or matches(text, pattern) instead of Python's in")

    def __len__(self) -> NoReturn:
        raise TypeError("use length(…) instead of len(…)")

    def __format__(self, spec: str) -> str:
        if spec:
            raise TypeError(f"a format specification ({spec!r}) can't be used in a template")
        _formatted.append(self)
        return f"{_OPEN}{len(_formatted) - 1}{_CLOSE}"

    def __str__(self) -> str:
        return format(self)


class Reference(Expression):
    """A path below a root: ``parameter``, ``context``, a ``let``, a loop variable."""

    __slots__ = ("_path", "_root")

    def __init__(self, root: Root, path: tuple[str | Expression, ...] = ()) -> None:
        super().__init__()
        self._root = root
        self._path = path

    def __getattr__(self, name: str) -> Reference:
        # Python asks objects for names of its own (copy, inspect, IPython); those are never properties.
        if name.startswith("_"):
            raise AttributeError(name)
        return Reference(self._root, (*self._path, name))

    def __getitem__(self, key: object) -> Reference:
        return Reference(self._root, (*self._path, key if isinstance(key, str) else wrap(key)))

    def __repr__(self) -> str:
        return ".".join((self._root.name, *(part if isinstance(part, str) else "[…]" for part in self._path)))


@dataclass(frozen=True, eq=False)
class Root:
    """Where a reference starts; the name is what stands in CUE."""

    name: str


@dataclass(frozen=True, eq=False)
class LetRoot(Root):
    """A named intermediate: see :func:`let`."""

    value: Value = None
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, eq=False)
class LoopRoot(Root):
    """The key or the value of a loop; *type* is what is known of it (a :class:`velagen.template.types.Type`)."""

    type: Any = None


class Constant(Expression):
    """A JSON value."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


class Text(Expression):
    """An f-string: text and expressions in turn."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[str | Expression, ...]) -> None:
        super().__init__()
        self.parts = parts


class Operation(Expression):
    """``left op right``, with CUE's operators."""

    __slots__ = ("left", "op", "right")

    def __init__(self, op: str, left: Expression, right: Expression) -> None:
        super().__init__()
        self.op, self.left, self.right = op, left, right


class Not(Expression):
    """Logical negation."""

    __slots__ = ("of",)

    def __init__(self, of: Expression) -> None:
        super().__init__()
        self.of = of


class Given(Expression):
    """True where *of* exists."""

    __slots__ = ("of",)

    def __init__(self, of: Expression) -> None:
        super().__init__()
        self.of = of


class Function(Expression):
    """A call of a function of CUE's library; *result* is the JSON type it gives (empty: unknown)."""

    __slots__ = ("args", "name", "package", "result")

    def __init__(self, package: str, name: str, args: tuple[Expression, ...], result: str = "") -> None:
        super().__init__()
        self.package, self.name, self.args, self.result = package, name, args, result


class FirstOf(Expression):
    """The value of the first branch whose condition holds; a branch without a condition always does."""

    __slots__ = ("branches",)

    def __init__(self, branches: tuple[tuple[Expression | None, Value], ...]) -> None:
        super().__init__()
        self.branches = branches


class FirstGiven(Expression):
    """The first of *values* that exists; the last must always exist."""

    __slots__ = ("values",)

    def __init__(self, values: tuple[Value, ...]) -> None:
        super().__init__()
        self.values = values


class Choice(Expression):
    """The entry of *table* under *key*, or *default*."""

    __slots__ = ("default", "has_default", "key", "table")

    def __init__(self, key: Expression, table: Mapping[str, Value], default: Value, *, has_default: bool) -> None:
        super().__init__()
        self.key, self.table, self.default, self.has_default = key, dict(table), default, has_default


class Literal(Expression):
    """A dict or list of a template used as an expression."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class RawCue(Expression):
    """CUE text that is taken as it is."""

    __slots__ = ("imports", "text")

    def __init__(self, text: str, imports: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.text, self.imports = text, imports


class Provider(Expression):
    """See :func:`operation`."""

    __slots__ = ("name", "package", "params")

    def __init__(self, package: str, name: str, params: Value) -> None:
        super().__init__()
        self.package, self.name, self.params = package, name, params


def wrap(value: object) -> Expression:
    """*value* as an expression: f-strings become texts, JSON values constants, dicts and lists bodies.

    Raises TypeError for what is none of these.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, str):
        parts = split_text(value)
        return Text(parts) if any(isinstance(part, Expression) for part in parts) else Constant(value)
    if value is None or isinstance(value, (bool, int, float)):
        return Constant(value)
    if isinstance(value, (dict, list, tuple)):
        return Literal(value)
    raise TypeError(f"{type(value).__name__} can't stand in a template: {value!r}")


def split_text(text: str) -> tuple[str | Expression, ...]:
    """An f-string's text and expressions in turn; a plain string is its only part."""
    parts: list[str | Expression] = []
    rest = text
    while _OPEN in rest:
        before, _, rest = rest.partition(_OPEN)
        number, _, rest = rest.partition(_CLOSE)
        if before:
            parts.append(before)
        parts.append(_formatted[int(number)])
    if rest or not parts:
        parts.append(rest)
    return tuple(parts)


#: The properties the user wrote, with the defaults of the schema.
parameter = Reference(Root("parameter"))
#: What KubeVela tells a template: name, namespace, appName, and for traits the component's output.
context = Reference(Root("context"))


def given(of: Expression) -> Expression:
    """True where the user wrote *of* (or it has a value for another reason)."""
    return Given(of)


def first_given(*values: Value) -> Expression:
    """The first of *values* that exists; the last one must always exist, as a constant does."""
    if len(values) < 2:
        raise TypeError("first_given needs at least two values: what to look at, and what to fall back on")
    return FirstGiven(values)


def if_else(condition: Expression, then: Value, otherwise: Value) -> Expression:
    """*then* where *condition* holds, else *otherwise*."""
    return FirstOf(((condition, then), (None, otherwise)))


_NOTHING = object()


def choose(key: Expression | str, table: Mapping[str, Value], default: Value = _NOTHING) -> Expression:
    """The entry of *table* under *key*; without *default* every value that *key* may have must be in the table."""
    has_default = default is not _NOTHING
    return Choice(wrap(key), table, default if has_default else None, has_default=has_default)


def let(name: str, value: Value) -> Reference:
    """A named intermediate: it is computed once, before the output, and reads under its name in the CUE.

    The result refers to it; what is never referred to is not written.
    """
    return Reference(LetRoot(name, value, _here()))


def raw_cue(text: str, *, imports: tuple[str, ...] = ()) -> Expression:
    """CUE text that is taken as it is, for what the template language can't say; *imports* are the packages it uses."""
    return RawCue(text, imports)


def length(of: Expression) -> Expression:
    """The number of items of a list, of fields of an object, of bytes of a text."""
    return Function("", "len", (of,), "integer")


def matches(text: Expression, pattern: str) -> Expression:
    """True where *text* matches the RE2 *pattern* somewhere."""
    return Operation("=~", wrap(text), Constant(pattern))


def contains(items: Value, item: Value) -> Expression:
    """True where the list *items* has *item*, or the text *items* the text *item*."""
    package = "strings" if isinstance(items, str) else "list"
    return Function(package, "Contains", (wrap(items), wrap(item)), "boolean")


def has_prefix(text: Value, prefix: Value) -> Expression:
    """True where *text* starts with *prefix*."""
    return Function("strings", "HasPrefix", (wrap(text), wrap(prefix)), "boolean")


def has_suffix(text: Value, suffix: Value) -> Expression:
    """True where *text* ends with *suffix*."""
    return Function("strings", "HasSuffix", (wrap(text), wrap(suffix)), "boolean")


def contains_text(text: Value, part: Value) -> Expression:
    """True where *text* has *part* in it."""
    return Function("strings", "Contains", (wrap(text), wrap(part)), "boolean")


def join(items: Value, separator: str) -> Expression:
    """The texts of *items* in one, with *separator* between them."""
    return Function("strings", "Join", (wrap(items), Constant(separator)), "string")


def split(text: Value, separator: str) -> Expression:
    """*text* cut at each *separator*: a list of texts."""
    return Function("strings", "Split", (wrap(text), Constant(separator)), "array")


def trim_prefix(text: Value, prefix: Value) -> Expression:
    """*text* without *prefix* at its start."""
    return Function("strings", "TrimPrefix", (wrap(text), wrap(prefix)), "string")


def trim_suffix(text: Value, suffix: Value) -> Expression:
    """*text* without *suffix* at its end."""
    return Function("strings", "TrimSuffix", (wrap(text), wrap(suffix)), "string")


def replace_text(text: Value, old: str, new: str) -> Expression:
    """*text* with each *old* replaced by *new*."""
    return Function("strings", "Replace", (wrap(text), Constant(old), Constant(new), Constant(-1)), "string")


def replace_pattern(text: Value, pattern: str, new: str) -> Expression:
    """*text* with each match of the RE2 *pattern* replaced by *new*, where ``$1`` is the first group."""
    return Function("regexp", "ReplaceAll", (Constant(pattern), wrap(text), Constant(new)), "string")


def lower(text: Value) -> Expression:
    """*text* in small letters."""
    return Function("strings", "ToLower", (wrap(text),), "string")


def upper(text: Value) -> Expression:
    """*text* in capitals."""
    return Function("strings", "ToUpper", (wrap(text),), "string")


def to_json(value: Value) -> Expression:
    """*value* as JSON text."""
    return Function("encoding/json", "Marshal", (wrap(value),), "string")


def to_yaml(value: Value) -> Expression:
    """*value* as YAML text."""
    return Function("encoding/yaml", "Marshal", (wrap(value),), "string")


def concat(*lists: Value) -> Expression:
    """The items of all *lists* in one list (CUE 0.14 no longer adds lists with +)."""
    return Function("list", "Concat", (Literal(list(lists)),), "array")


def operation(package: str, name: str, params: Value) -> Expression:
    """A provider of KubeVela's workflow engine with its parameters: ``kube.#Apply & {$params: …}``.

    Source: kubevela/workflow pkg/providers/*/*.cue.
    """
    return Provider(package, name, params)


def result_of(step: str) -> Reference:
    """The value of a field of the same workflow step: ``result_of("read")["$returns"].value``."""
    return Reference(Root(step))


def as_string(value: Expression) -> Expression:
    """A number or boolean as text."""
    return Text((value,))


def ceil(number: Value) -> Expression:
    """The least whole number that is not below *number*."""
    return Function("math", "Ceil", (wrap(number),), "integer")


def floor(number: Value) -> Expression:
    """The greatest whole number that is not above *number*."""
    return Function("math", "Floor", (wrap(number),), "integer")


def div(number: Value, by: Value) -> Expression:
    """*number* divided by *by*, both whole, rounded down for positive numbers."""
    return Function("", "div", (wrap(number), wrap(by)), "integer")


def maximum(*numbers: Value) -> Expression:
    """The greatest of *numbers*."""
    return Function("list", "Max", (Literal(list(numbers)),), "number")


def minimum(*numbers: Value) -> Expression:
    """The least of *numbers*."""
    return Function("list", "Min", (Literal(list(numbers)),), "number")
