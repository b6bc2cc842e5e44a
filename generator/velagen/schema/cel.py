"""``x-kubernetes-validations``: the rules in CEL that CUE can say, as conditions and as verdicts in Python.

Of CEL (https://github.com/google/cel-spec/blob/master/doc/langdef.md) this reads comparisons, ``&& || !``, ``has``,
``in``, ``size``, ``startsWith``, ``endsWith``, ``contains``, ``matches``, ``+ - *`` and the conditional, over ``self``
and its fields; any other rule is not carried over, and the compiler says so. A rule holds where it is true: where it is
false, or reads a field that is not there, it is broken, as for the API server
(kubernetes apiextensions-apiserver pkg/apiserver/schema/cel/validation.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from velagen.cue import (
    BOTTOM,
    Binary,
    Call,
    Comprehension,
    Embed,
    Expr,
    Guard,
    Ident,
    ListLit,
    Lit,
    Selector,
    Struct,
    Unary,
    call,
    joined,
)
from velagen.cue import (
    Node as Cue,
)
from velagen.errors import Problem
from velagen.operators import OPERATORS
from velagen.schema.model import InexactError, Node, Schema, Shape, children, layers_of
from velagen.schema.patterns import PatternError, matches, to_re2
from velagen.schema.terms import Constant, Operation, Path

Clauses = tuple[Cue, ...]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.\d+|\d+)|(?P<string>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<op>\|\||&&|==|!=|<=|>=|[<>!()+\-*?:.,\[\]]))"
)
_STRENGTH = {"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3, "+": 4, "-": 4, "*": 5}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SCALARS = frozenset(["string", "number", "integer", "boolean"])
_DEEPEST = 40
_LONGEST = 4_000


class NotCarriedError(ValueError):
    """Raised for a rule beyond what is read here; the message says why."""


@dataclass(frozen=True)
class _Has:
    of: Path


@dataclass(frozen=True)
class _Call:
    function: str
    of: _Term
    argument: _Term | None = None


@dataclass(frozen=True)
class _In:
    of: _Term
    values: tuple[Any, ...]


@dataclass(frozen=True)
class _Not:
    of: _Term


@dataclass(frozen=True)
class _Conditional:
    condition: _Term
    then: _Term
    other: _Term


_Term: TypeAlias = "Path | Constant | _Has | _Call | _In | _Not | Operation[_Term] | _Conditional"


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise NotCarriedError("it is too long")
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found or found.lastgroup is None:
                raise NotCarriedError(f"{text[at:].strip()[:20]!r} is not read here")
            self.tokens.append((found.lastgroup, found.group(found.lastgroup)))
            at = found.end()
        self.at = self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> tuple[str, str]:
        if self.at >= len(self.tokens) or (wanted and self.peek() != wanted):
            raise NotCarriedError(f"{self.peek() or 'the end'!r} stands where {wanted or 'more'} is expected")
        self.at += 1
        return self.tokens[self.at - 1]

    def parse(self) -> _Term:
        term = self.conditional()
        if self.at < len(self.tokens):
            raise NotCarriedError(f"{self.peek()!r} is not read here")
        return term

    def conditional(self) -> _Term:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise NotCarriedError("it is nested too deeply")
        term = self.binary(0)
        if self.peek() == "?":
            self.take()
            then = self.conditional()
            self.take(":")
            term = _Conditional(term, then, self.conditional())
        self.depth -= 1
        return term

    def binary(self, strength: int) -> _Term:
        left = self.unary()
        while (own := _STRENGTH.get(self.peek(), 0)) > strength:
            op = self.take()[1]
            right = self.binary(own)
            if op == "in":
                if not isinstance(right, Constant) or not isinstance(right.value, tuple):
                    raise NotCarriedError("`in` is read with a list of constants after it")
                left = _In(left, right.value)
            else:
                left = Operation(op, left, right)
        return left

    def unary(self) -> _Term:
        if self.peek() == "!":
            self.take()
            return _Not(self.unary())
        if self.peek() == "-":
            self.take()
            kind, text = self.take()
            if kind != "number":
                raise NotCarriedError("a minus is read before a number only")
            return Constant(-_number(text))
        return self.member(self.primary())

    def primary(self) -> _Term:
        kind, text = self.take()
        match kind, text:
            case "number", _:
                return Constant(_number(text))
            case "string", _:
                return Constant(_text(text))
            case "name", "true" | "false" | "null":
                return Constant({"true": True, "false": False, "null": None}[text])
            case "name", "self":
                return Path(())
            case "name", "has" | "size":
                self.take("(")
                inside = self.conditional()
                self.take(")")
                if text == "size":
                    return _Call("size", inside)
                if not isinstance(inside, Path) or not inside.steps:
                    raise NotCarriedError("has() takes a field")
                return _Has(inside)
            case "op", "(":
                inside = self.conditional()
                self.take(")")
                return inside
            case "op", "[":
                values: list[Any] = []
                while self.peek() != "]":
                    item = self.unary()
                    if not isinstance(item, Constant):
                        raise NotCarriedError("a list is read with constants in it")
                    values.append(item.value)
                    if self.peek() != "]":
                        self.take(",")
                self.take("]")
                return Constant(tuple(values))
            case "name", "oldSelf":
                raise NotCarriedError("it compares with the object as it was, and a rendered parameter has no past")
        raise NotCarriedError(f"{text!r} is not read here")

    def member(self, term: _Term) -> _Term:
        while self.peek() == ".":
            self.take()
            kind, name = self.take()
            if kind != "name":
                raise NotCarriedError(f"{name!r} is not read here")
            if self.peek() == "(":
                self.take()
                argument = None if self.peek() == ")" else self.conditional()
                self.take(")")
                term = self.method(term, name, argument)
            elif isinstance(term, Path):
                term = Path((*term.steps, _unescaped(name)))
            else:
                raise NotCarriedError(f"{name!r} of something that is not a field")
        if self.peek() == "[":
            raise NotCarriedError("an index is not read here")
        return term

    @staticmethod
    def method(term: _Term, name: str, argument: _Term | None) -> _Term:
        if name == "size" and argument is None:
            return _Call("size", term)
        if name in ("startsWith", "endsWith", "contains", "matches") and argument is not None:
            if not isinstance(argument, Constant) or not isinstance(argument.value, str):
                raise NotCarriedError(f"{name}() is read with a text in quotes")
            if name == "matches":
                try:
                    same = to_re2(argument.value) == argument.value
                except PatternError as error:
                    raise NotCarriedError(f"its pattern: {error}") from error
                if not same:
                    raise NotCarriedError("its pattern means another thing in RE2 than in ECMA-262")
            return _Call(name, term, argument)
        raise NotCarriedError(f"{name}() is not read here")


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text[:400])


def _text(quoted: str) -> str:
    body = quoted[1:-1]
    if "\\" in body and re.search(r"\\[^\\\"'nrt]", body):
        raise NotCarriedError("an escape in it is not read here")
    found: str = json.loads('"' + re.sub(r"\\\'", "'", re.sub(r'(?<!\\)"', '\\"', body)) + '"')
    return found


def _unescaped(name: str) -> str:
    """Source: kubernetes apiextensions types.go, on ``rule``: names that CEL could not say are written with __."""
    if "__" not in name:
        return name
    for written, meant in (("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")):
        name = name.replace(written, meant)
    return name[2:-2] if name.startswith("__") and name.endswith("__") and len(name) > 4 else name


@dataclass(frozen=True)
class CelRule:
    """One rule that is carried over."""

    term: _Term
    message: str
    #: Whether the message is the schema's own sentence; else what is said of the value at the rule's place.
    speaks: bool
    shape: Shape

    # ------------------------------------------------------------ as CUE

    def broken(self, ref: Expr) -> list[Clauses]:
        """Rows of clauses over the value at *ref* that yield something exactly where the rule is broken."""
        return self._not(self.term, ref, wanted=True)

    def _not(self, term: _Term, ref: Expr, *, wanted: bool) -> list[Clauses]:
        """Rows that yield something where *term* is not *wanted*: where it is the opposite, or can't be told."""
        match term:
            case _Not(of=of):
                return self._not(of, ref, wanted=not wanted)
            case Operation(op=("&&" | "||") as op, left=left, right=right):
                sides = [self._not(left, ref, wanted=wanted), self._not(right, ref, wanted=wanted)]
                if (op == "&&") == wanted:
                    return [*sides[0], *sides[1]]
                # Either side suffices, whatever the other is, as CEL has it.
                return [tuple(Guard(Binary(">", _length(side), Lit(0))) for side in sides)]
            case _Conditional(condition=condition, then=then, other=other):
                yes = Guard(Binary("==", _length(self._not(condition, ref, wanted=True)), Lit(0)))
                no = Guard(Binary("==", _length(self._not(condition, ref, wanted=False)), Lit(0)))
                neither = tuple(
                    Guard(Binary(">", _length(self._not(condition, ref, wanted=way)), Lit(0))) for way in (True, False)
                )
                rows: list[Clauses] = [(yes, *row) for row in self._not(then, ref, wanted=wanted)]
                return [*rows, *((no, *row) for row in self._not(other, ref, wanted=wanted)), neither]
            case _Has(of=field):
                parents = list(_guards(ref, field.steps[:-1]))
                there = _at(ref, field.steps)
                failing = Binary("==" if wanted else "!=", there, BOTTOM)
                return [*_missing(parents), (*(Guard(one) for one in parents), Guard(failing))]
            case Constant(value=bool() as value):
                return [] if value == wanted else [()]
        parents = [one for path in _paths(term) for one in _guards(ref, path.steps)]
        parents = list(dict.fromkeys(parents))
        failed = self._condition(term, ref, wanted=not wanted)
        return [*_missing(parents), (*(Guard(one) for one in parents), Guard(failed))]

    def _condition(self, term: _Term, ref: Expr, *, wanted: bool) -> Expr:
        """A condition that is true where *term*, all of whose fields are there, is *wanted*."""
        match term:
            case Operation(op=op, left=left, right=right) if op in _OPPOSITE:
                return Binary(op if wanted else _OPPOSITE[op], self._value(left, ref), self._value(right, ref))
            case _In(of=of, values=values):
                operator, joint = ("==", "||") if wanted else ("!=", "&&")
                own = self._value(of, ref)
                options = [Binary(operator, own, Lit(value)) for value in values]
                return joined(joint, options) if options else Lit(not wanted)
            case _Call(function="matches", of=of, argument=Constant(value=str() as text)):
                return Binary("=~" if wanted else "!~", self._value(of, ref), Lit(text, raw=True))
            case _Call(function=name, of=of, argument=Constant(value=str() as text)):
                function = {"startsWith": "HasPrefix", "endsWith": "HasSuffix", "contains": "Contains"}[name]
                found = call("strings", function, self._value(of, ref), Lit(text))
                return found if wanted else Unary("!", found)
            case Path():
                return Binary("==", self._value(term, ref), Lit(wanted))
        raise NotCarriedError("a part of it is not a condition")

    def _value(self, term: _Term, ref: Expr) -> Expr:
        match term:
            case Path(steps=steps):
                return _at(ref, steps)
            case Constant(value=value):
                return Lit(value)
            case _Call(function="size", of=of):
                inner = self._value(of, ref)
                text = self._types(of) == {"string"}
                return Call(Ident("len"), (call("strings", "Runes", inner) if text else inner,))
            case Operation(op=("+" | "-" | "*") as op, left=left, right=right):
                return Binary(op, self._value(left, ref), self._value(right, ref))
        raise NotCarriedError("a part of it is not a value")

    # ------------------------------------------------------------ types

    def _types(self, term: _Term) -> frozenset[str]:
        match term:
            case Constant(value=value):
                names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
                return frozenset([names.get(type(value), "array")])
            case Path(steps=steps):
                shape: Shape | None = self.shape
                for step in steps:
                    found = shape.property(step) if shape is not None and shape.types == {"object"} else None
                    shape = found.shape if found else None
                if shape is None:
                    raise NotCarriedError(f"self.{'.'.join(steps)} is not a property of known type")
                return shape.types
            case _Call(function="size"):
                return frozenset(["integer"])
            case Operation(op=("+" | "-" | "*")):
                return self._types(term.left)
        return frozenset(["boolean"])

    def check(self, term: _Term | None = None) -> None:
        """Raises NotCarriedError where a part has not the one type that it needs."""
        term = self.term if term is None else term
        match term:
            case _Not(of=of):
                self.check(of)
            case _Has(of=of):
                self._types(of)
            case _Conditional(condition=condition, then=then, other=other):
                for one in (condition, then, other):
                    self.check(one)
            case Operation(op=("&&" | "||"), left=left, right=right):
                self.check(left)
                self.check(right)
            case Operation(op=op, left=left, right=right) if op in _OPPOSITE:
                types = [self._scalar(left), self._scalar(right)]
                if len({"number" if one == "integer" else one for one in types}) > 1:
                    raise NotCarriedError("it compares two types")
                if op not in ("==", "!=") and types[0] in ("boolean", "null"):
                    raise NotCarriedError(f"{op} of a {types[0]}")
                if types[0] == "string" and op not in ("==", "!="):
                    raise NotCarriedError("texts are read as equal or not, and not as greater")
            case _In(of=of, values=values):
                own = self._scalar(of)
                if any(self._scalar(Constant(value)) != own for value in values):
                    raise NotCarriedError("it compares two types")
            case _Call(function="size", of=of):
                raise NotCarriedError("a part of it is not a condition")
            case _Call(of=of):
                if self._types(of) != {"string"}:
                    raise NotCarriedError("of a text it reads beginnings, ends and patterns only")
            case Path() | Constant():
                if self._types(term) != {"boolean"}:
                    raise NotCarriedError("a part of it is not a condition")
            case _:
                raise NotCarriedError("a part of it is not a condition")

    def _scalar(self, term: _Term) -> str:
        match term:
            case _Call(function="size", of=of):
                if not self._types(of) <= {"string", "array", "object"} or len(self._types(of)) != 1:
                    raise NotCarriedError("size() of what has none")
            case Operation(op=("+" | "-" | "*"), left=left, right=right):
                if {self._scalar(left), self._scalar(right)} != {"integer"}:
                    raise NotCarriedError("it computes with other things than whole numbers")
            case Path() | Constant():
                pass
            case _:
                raise NotCarriedError("it compares conditions")
        types = self._types(term)
        if len(types) != 1 or not types <= _SCALARS:
            raise NotCarriedError("it compares what is not of one simple type")
        return next(iter(types))

    # ------------------------------------------------------------ in Python

    def holds(self, instance: Any) -> bool:
        """Whether *instance* keeps the rule; true for one of another type, which its type rules out."""
        try:
            return _evaluated(self.term, instance) is True
        except KeyError:
            return False
        except (TypeError, AttributeError):
            return True


def parse_rule(node: Node, entry: Any) -> CelRule:
    """One entry of ``x-kubernetes-validations`` at *node*.

    Raises NotCarriedError where it is beyond what can be carried over exactly.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("rule"), str):
        raise NotCarriedError("it has no rule")
    text = " ".join(entry["rule"].split())
    message = entry.get("message")
    own = isinstance(message, str) and bool(message.strip())
    said = str(message).strip() if own else f"must hold: {text if len(text) <= 120 else text[:117] + '...'}"
    rule = CelRule(_Parser(entry["rule"]).parse(), said, own, Shape(layers_of(node)))
    rule.check()
    if not list(_paths(rule.term)):
        raise NotCarriedError("it reads no property")
    return rule


def _paths(term: _Term) -> Iterator[Path]:
    match term:
        case Path():
            yield term
        case _Has(of=of) | _Not(of=of) | _In(of=of) | _Call(of=of):
            yield from _paths(of)
        case Operation(left=left, right=right):
            yield from _paths(left)
            yield from _paths(right)
        case _Conditional(condition=condition, then=then, other=other):
            for one in (condition, then, other):
                yield from _paths(one)


def _at(ref: Expr, steps: tuple[str, ...]) -> Expr:
    for step in steps:
        ref = Selector(ref, step)
    return ref


def _guards(ref: Expr, steps: tuple[str, ...]) -> Iterator[Expr]:
    for end in range(1, len(steps) + 1):
        yield Binary("!=", _at(ref, steps[:end]), BOTTOM)


def _missing(present: list[Expr]) -> list[Clauses]:
    """A row for each field that is not there though those before it are."""
    rows: list[Clauses] = []
    for number, one in enumerate(present):
        if isinstance(one, Binary):
            rows.append((*(Guard(before) for before in present[:number]), Guard(Binary("==", one.left, BOTTOM))))
    return rows


def _length(rows: list[Clauses]) -> Expr:
    items = tuple(Comprehension(row, Struct((Embed(Lit(1)),))) if row else Lit(1) for row in rows)
    return Call(Ident("len"), (ListLit(items),))


def _evaluated(term: _Term, instance: Any) -> Any:
    """CEL's value of *term*. Raises KeyError where a field is not there, TypeError where a type does not fit."""
    match term:
        case Path(steps=steps):
            for step in steps:
                instance = instance[step]
            return instance
        case Constant(value=value):
            return value
        case _Has(of=path):
            return path.steps[-1] in _evaluated(Path(path.steps[:-1]), instance)
        case _Not(of=of):
            return not _evaluated(of, instance)
        case _In(of=of, values=values):
            return _evaluated(of, instance) in values
        case _Call(function="size", of=of):
            return len(_evaluated(of, instance))
        case _Call(function=name, of=of, argument=Constant(value=str() as text)):
            own = _evaluated(of, instance)
            return matches(text, own) if name == "matches" else _TEXT[name](own, text)
        case _Conditional(condition=condition, then=then, other=other):
            return _evaluated(then if _evaluated(condition, instance) else other, instance)
        case Operation(op=("&&" | "||") as op, left=left, right=right):
            return _either(op, left, right, instance)
        case Operation(op=op, left=left, right=right):
            return OPERATORS[op](_evaluated(left, instance), _evaluated(right, instance))
    raise TypeError(term)


def _either(op: str, left: _Term, right: _Term, instance: Any) -> bool:
    """One side that decides is enough, even where the other can't be told."""
    decides = op == "||"
    failures: list[KeyError] = []
    for side in (left, right):
        try:
            found = _evaluated(side, instance)
            if found is decides:
                return bool(found)
        except KeyError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return not decides


_TEXT: dict[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
}


def rules_hold(node: Node, instance: Any) -> bool:
    """Whether *instance* keeps the rules at *node* that are carried over."""
    for entry in node.get("x-kubernetes-validations", ()):
        try:
            if not parse_rule(node, entry).holds(instance):
                return False
        except NotCarriedError:
            continue
    return True


def uncarried_rules(schema: Schema) -> Iterator[Problem]:
    """Warnings of the rules that are not carried over: only the API server that has the schema will judge them."""
    stack = [schema.root]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node.contents) in seen:
            continue
        seen.add(id(node.contents))
        entries = node.get("x-kubernetes-validations")
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            try:
                parse_rule(node, entry)
            except (NotCarriedError, InexactError) as error:
                rule = entry.get("rule") if isinstance(entry, dict) else entry
                reason = f"the rule {' '.join(str(rule).split())[:120]!r} is not checked: {error}"
                place = node.place(schema.origin, "x-kubernetes-validations")
                place = replace(place, pointer=f"{place.pointer}/{number}")
                yield Problem(reason, place, "say it by keywords, or by x-checks", "warning")
        stack.extend(reversed(list(children(node))))
