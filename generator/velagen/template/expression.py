"""What may stand at a leaf of a template: references, constants and small expressions over them.

Python's own operators build the tree, as in SQLAlchemy or Polars: ``p.minReplicas > 2`` compares nothing, it *says* a
comparison, which :mod:`velagen.template.compiler` checks against the schemas and writes as CUE.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from velagen.template.places import MisuseError, Spot, here

if TYPE_CHECKING:
    from velagen.template.library import Library

#: Anything that may stand in a template: JSON data with expressions, markers and conditional keys in it.
Value: TypeAlias = Any


class Expression:
    """The base of all that is computed when KubeVela renders, not when the definition is built."""

    # Private, as all names of a reference's own are: any other may be a property of the user's.
    __slots__ = ("_place",)

    _place: Spot

    def __init__(self) -> None:
        self._place = here()

    # Comparison, arithmetic, logic -----------------------------------------------------------------

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # the point of the language
        return Operation("==", self, wrap(other))

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]  # the point of the language
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

    def __neg__(self) -> Expression:
        return Operation("-", Constant(0), self)

    def __getitem__(self, key: object) -> Expression:
        return Item(self, wrap(key))

    def __repr__(self) -> str:
        return "the expression"

    __hash__ = object.__hash__

    # What Python would do silently and wrongly -----------------------------------------------------

    def __bool__(self) -> NoReturn:
        raise MisuseError(
            "a template expression has no truth value while the definition is built: "
            "write & | ~ instead of and, or, not; when(…) or cases(…) instead of if"
        )

    def __iter__(self) -> NoReturn:
        raise MisuseError("a template expression can't be looped over in Python: use each(…)")

    def __contains__(self, item: object) -> NoReturn:
        raise MisuseError("use contains(list, item), contains_text(text, part) or one_of(…) instead of Python's in")

    def __len__(self) -> NoReturn:
        raise MisuseError("use length(…) instead of len(…)")

    def __call__(self, *_args: object, **_more: object) -> NoReturn:
        """No expression is a function."""
        raise MisuseError(
            f"a template expression has no methods, and {self!r} can't be called: write lower(x), not x.lower()"
        )

    def __format__(self, spec: str) -> str:
        if spec:
            raise MisuseError(f"a format specification ({spec!r}) can't be used in a template")
        return _mark(self)

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
        """The field *name* of it."""
        # Python asks objects for names of its own (copy, inspect, IPython); those are never properties.
        if name.startswith("_"):
            raise AttributeError(name)
        return Reference(self._root, (*self._path, name))

    def __getitem__(self, key: object) -> Reference:
        return Reference(self._root, (*self._path, key if isinstance(key, str) else wrap(key)))

    def __repr__(self) -> str:
        name = self._root.name or "the intermediate"
        return name + "".join(f".{part}" if isinstance(part, str) else "[…]" for part in self._path)


@dataclass(frozen=True, eq=False)
class Root:
    """Where a reference starts; the name is what stands in CUE."""

    name: str


@dataclass(frozen=True, eq=False)
class LetRoot(Root):
    """A named intermediate: see :func:`velagen.let`."""

    value: Value = None
    place: Spot = field(default_factory=Spot)


@dataclass(frozen=True, eq=False)
class StepRoot(Root):
    """An operation of the same workflow step: see :func:`velagen.result_of`."""


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


class Item(Expression):
    """``of[key]``: an item of a list or an entry of an object that an expression gives."""

    __slots__ = ("key", "of")

    def __init__(self, of: Expression, key: Expression) -> None:
        super().__init__()
        self.of, self.key = of, key


class Function(Expression):
    """A call of a function of CUE's library."""

    __slots__ = ("args", "library")

    def __init__(self, library: Library, args: tuple[Expression, ...]) -> None:
        super().__init__()
        self.library, self.args = library, args


class Sorted(Expression):
    """*items* in the order of what *key* gives for each; without a *key* in their own."""

    __slots__ = ("descending", "items", "key")

    def __init__(self, items: Expression, key: Callable[..., Value] | None, *, descending: bool) -> None:
        super().__init__()
        self.items, self.key, self.descending = items, key, descending


class FirstOf(Expression):
    """The value of the first branch whose condition holds; a branch without a condition always does."""

    __slots__ = ("branches",)

    def __init__(self, branches: tuple[tuple[Expression | None, Value], ...]) -> None:
        super().__init__()
        self.branches = branches


class FirstGiven(Expression):
    """The first of *values* that exists; the last must always exist.

    With *lenient* those before it may always exist too: for words that read what an object may or must have.
    """

    __slots__ = ("lenient", "values")

    def __init__(self, values: tuple[Value, ...], *, lenient: bool = False) -> None:
        super().__init__()
        self.values, self.lenient = values, lenient


class Choice(Expression):
    """The entry of *table* under *key*, or *default*; *name* is what the table is called, if it has a name."""

    __slots__ = ("default", "has_default", "key", "name", "table")

    def __init__(
        self, key: Expression, table: Mapping[str, Value], default: Value, *, has_default: bool, name: str = ""
    ) -> None:
        super().__init__()
        self.key, self.table, self.default, self.has_default = key, dict(table), default, has_default
        self.name = name


class Literal(Expression):
    """A dict or list of a template used as an expression."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class RawCue(Expression):
    """CUE text that is taken as it is, with expressions in it."""

    __slots__ = ("imports", "parts")

    def __init__(self, parts: tuple[str | Expression, ...], imports: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.parts, self.imports = parts, imports


class Provider(Expression):
    """See :func:`operation`."""

    __slots__ = ("name", "package", "params")

    def __init__(self, package: str, name: str, params: Value) -> None:
        super().__init__()
        self.package, self.name, self.params = package, name, params


class Once(Expression):
    """See :func:`velagen.once`."""

    __slots__ = ("of",)

    def __init__(self, of: Provider) -> None:
        super().__init__()
        self.of = of


def wrap(value: object) -> Expression:
    """*value* as an expression: f-strings become texts, JSON values constants, dicts and lists bodies.

    Raises MisuseError for anything else.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, str):
        parts = split_text(value)
        return Text(parts) if any(isinstance(part, Expression) for part in parts) else Constant(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise MisuseError(f"{value} is not a JSON number")
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        raise MisuseError(f"a whole number of {value.bit_length()} bits is more than Kubernetes holds")
    if value is None or isinstance(value, (bool, int, float)):
        return Constant(value)
    if isinstance(value, (dict, list, tuple)):
        return Literal(value)
    raise MisuseError(f"{type(value).__name__} can't stand in a template")


_LONGEST_INTEGER = 64

# ---------------------------------------------------------------- f-strings

# Python makes a plain text of an f-string. So an expression inside one is written as its number between private-use
# characters and found again there. Behind the number stand all the characters that a method of str could change: what
# .upper(), .replace(), .split() or a slice does to a text with an expression in it shows in them.
_OPEN, _NUMBERED, _CLOSE = "\ue000", "\ue001", "\ue002"
_TELLTALE = "".join(map(chr, range(0x20, 0x7F)))
_MARK = re.compile(f"{_OPEN}([0-9]+){_NUMBERED}{re.escape(_TELLTALE)}{_CLOSE}")
#: The marks, as they are and as JSON, Python and URLs escape them.
_TRACE = re.compile(f"[{_OPEN}{_NUMBERED}{_CLOSE}]|\\\\ue00[012]|%EE%80%8[012]", re.IGNORECASE)
_LOOSE = re.compile(f"{_OPEN}([0-9]+){_NUMBERED}[^{_CLOSE}]*{_CLOSE}")
_TORN = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}?|[{_NUMBERED}{_CLOSE}]")
_marked: list[Expression] = []


def _mark(expression: Expression) -> str:
    _marked.append(expression)
    return f"{_OPEN}{len(_marked) - 1}{_NUMBERED}{_TELLTALE}{_CLOSE}"


def split_text(text: str) -> tuple[str | Expression, ...]:
    """An f-string's text and expressions in turn; a plain string is its only part.

    Raises MisuseError where Python changed a text with expressions in it, or where no file can hold it.
    """
    parts: list[str | Expression] = []
    for number, part in enumerate(_MARK.split(text)):
        if number % 2 == 0:
            _plain(part)
        if part:
            parts.append(_marked[int(part)] if number % 2 else part)
    return tuple(parts) or ("",)


def _plain(part: str) -> None:
    if _TRACE.search(part):
        raise MisuseError(
            "Python changed a text that has template expressions in it, whose values it can't know: "
            "use upper, lower, replace_text, split, to_json and the like instead of Python's own "
            "(or the text holds U+E000, U+E001 or U+E002, which stand for expressions)"
        )
    try:
        part.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MisuseError(f"{part!r} holds half a surrogate pair, which is not text") from error


def is_constant(text: str) -> bool:
    """Whether *text* is free of expressions."""
    return not _TRACE.search(text)


def readable(text: str) -> str:
    """*text* for a message: each expression in it in braces."""
    # What Python quotes, as a KeyError does its key.
    text = re.sub(r"\\ue00([012])", lambda escaped: chr(0xE000 + int(escaped[1])), text)
    return _TORN.sub("{…}", _LOOSE.sub(lambda mark: "{" + repr(_marked[int(mark[1])]) + "}", text))


#: The properties the user wrote, with the defaults of the schema.
parameter = Reference(Root("parameter"))
#: What KubeVela tells a template: name, namespace, appName, and for traits the component's output.
context = Reference(Root("context"))
