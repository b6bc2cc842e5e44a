"""``x-checks``: rules over several properties, which JSON Schema can't say.

The language is small on purpose: property paths (``logger.url``, ``["odd-name"]``), numbers, strings, true, false,
null, ``len(…)``, ``! && || == != < <= > >= =~ !~ + - *`` and parentheses, with CUE's meaning and precedence. One
tree is printed as CUE and evaluated here, so a rendered definition and ``velagen check`` agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

from velagen.cue import Binary, Call, Expr, Ident, Lit, Selector, Unary, negated
from velagen.operators import OPERATORS
from velagen.schema.model import ALL_TYPES, InexactError, Node, Shape, json_type
from velagen.schema.patterns import PatternError, matches, to_re2
from velagen.schema.terms import Constant, Operation, Path

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<string>\"(?:[^\"\\]|\\.)*\")|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<op>\|\||&&|==|!=|<=|>=|=~|!~|[<>!()+\-*.\[\]]))"
)
_STRENGTH = {
    "||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "=~": 3, "!~": 3, "+": 4, "-": 4, "*": 5,
}  # fmt: skip


@dataclass(frozen=True)
class _Length:
    of: _Term


@dataclass(frozen=True)
class _Not:
    op: str
    of: _Term


_Term: TypeAlias = "Path | Constant | _Length | _Not | Operation[_Term]"


class _Bad(Exception):  # noqa: N818  # caught in this file
    """Raised inside the parser with what is wrong."""


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found or found.lastgroup is None:
                raise _Bad(f"{text[at:].strip()[:20]!r} can't stand here")
            self.tokens.append((found.lastgroup, found.group(found.lastgroup)))
            at = found.end()
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "the end")

    def take(self, *wanted: str) -> tuple[str, str]:
        token = self.peek()
        if wanted and token[1] not in wanted:
            raise _Bad(f"{token[1]!r} stands where {' or '.join(wanted)} is expected")
        self.at += 1
        return token

    def parse(self) -> _Term:
        term = self.binary(0)
        if self.peek()[0] != "end":
            raise _Bad(f"{self.peek()[1]!r} can't stand here")
        return term

    def binary(self, strength: int) -> _Term:
        left = self.unary()
        while _STRENGTH.get(self.peek()[1], 0) > strength and self.peek()[0] == "op":
            op = self.take()[1]
            left = Operation(op, left, self.binary(_STRENGTH[op]))
        return left

    def unary(self) -> _Term:
        if self.peek() in (("op", "!"), ("op", "-")):
            return _Not(self.take()[1], self.unary())
        kind, text = self.take()
        match kind:
            case "number":
                return Constant(float(text) if "." in text else int(text))
            case "string":
                return Constant(json.loads(text))
            case "name" if text in ("true", "false", "null"):
                return Constant({"true": True, "false": False, "null": None}[text])
            case "name" if text == "len" and self.peek() == ("op", "("):
                self.take("(")
                inside = self.binary(0)
                self.take(")")
                return _Length(inside)
            case "name":
                return self.path((text,))
            case "op" if text == "(":
                inside = self.binary(0)
                self.take(")")
                return inside
            case "op" if text == "[":
                self.at -= 1
                return self.path(())
        raise _Bad(f"{text!r} can't stand here")

    def path(self, steps: tuple[str, ...]) -> _Term:
        while self.peek() in (("op", "."), ("op", "[")):
            if self.take()[1] == ".":
                kind, text = self.take()
                if kind != "name":
                    raise _Bad("a name must follow the dot")
            else:
                kind, text = self.take()
                if kind != "string":
                    raise _Bad("a quoted name must stand in the brackets")
                text = json.loads(text)
                self.take("]")
            steps = (*steps, text)
        return Path(steps)


@dataclass(frozen=True)
class Check:
    """One rule of ``x-checks``."""

    term: _Term
    message: str

    def paths(self) -> Iterator[tuple[str, ...]]:
        """The properties that it reads, each once."""
        stack: list[_Term] = [self.term]
        seen: set[tuple[str, ...]] = set()
        while stack:
            match stack.pop():
                case Path(steps=steps):
                    if steps not in seen:
                        seen.add(steps)
                        yield steps
                case _Length(of=of) | _Not(of=of):
                    stack.append(of)
                case Operation(left=left, right=right):
                    stack += [right, left]

    def guards(self) -> Iterator[tuple[str, ...]]:
        """The paths that must be given for the rule to be read: those of paths() with all that lies above them."""
        seen: set[tuple[str, ...]] = set()
        for path in self.paths():
            for end in range(1, len(path) + 1):
                if path[:end] not in seen:
                    seen.add(path[:end])
                    yield path[:end]

    @staticmethod
    def reference(ref: Expr, path: tuple[str, ...]) -> Expr:
        """The CUE reference to *path* below *ref*."""
        return reduce(Selector, path, ref)

    def cue(self, ref: Expr) -> Expr:
        """The rule as a CUE expression over the object at *ref*; true where it holds."""

        def build(term: _Term) -> Expr:
            match term:
                case Path(steps=steps):
                    return self.reference(ref, steps)
                case Constant(value=value):
                    return Lit(value)
                case _Length(of=of):
                    return Call(Ident("len"), (build(of),))
                case _Not(op=op, of=of):
                    return Unary(op, build(of))
                case Operation(op=op, left=left, right=Constant(value=str() as text)) if op in ("=~", "!~"):
                    return Binary(op, build(left), Lit(to_re2(text), raw=True))
                case Operation(op=op, left=left, right=right):
                    return Binary(op, build(left), build(right))
            raise TypeError(term)

        return build(self.term)

    def broken(self, ref: Expr) -> Expr:
        """The opposite of cue(): true where the rule is broken, written as a person would."""
        return negated(self.cue(ref))

    def holds(self, instance: Any) -> bool:
        """Whether *instance* satisfies the rule; true where a property it reads is absent or of another type."""

        def read(path: tuple[str, ...]) -> Any:
            value = instance
            for step in path:
                value = value[step]
            return value

        def value_of(term: _Term) -> Any:
            match term:
                case Path(steps=steps):
                    return read(steps)
                case Constant(value=value):
                    return value
                case _Length(of=of):
                    inner = value_of(of)
                    return len(inner.encode()) if isinstance(inner, str) else len(inner)
                case _Not(op="!", of=of):
                    return not value_of(of)
                case _Not(of=of):
                    return -value_of(of)
                case Operation(op="||", left=left, right=right):
                    return value_of(left) or value_of(right)
                case Operation(op="&&", left=left, right=right):
                    return value_of(left) and value_of(right)
                case Operation(op=op, left=left, right=right):
                    return _apply(op, value_of(left), value_of(right))
            raise TypeError(term)

        try:
            return bool(value_of(self.term))
        except (KeyError, TypeError, IndexError):
            return True


def _apply(op: str, left: Any, right: Any) -> Any:
    if op in ("=~", "!~"):
        return matches(right, left) is (op == "=~")
    return OPERATORS[op](left, right)


def parse_check(node: Node, index: int, entry: Any) -> Check:
    """The rule at *index* of ``x-checks`` in *node*.

    Raises InexactError where it is not a rule, or reads no property.
    """
    instead = '{"check": "minReplicas <= maxReplicas", "message": "minReplicas must be at most maxReplicas"}'
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("check"), str)
        or not isinstance(entry.get("message"), str)
    ):
        raise InexactError(node, "x-checks", f"entry {index} has no check and message", instead)
    try:
        term = _Parser(entry["check"]).parse()
    except (_Bad, RecursionError) as error:
        raise InexactError(node, "x-checks", f"{entry['check'][:80]!r} can't be read: {error}", instead) from error
    check = Check(term, entry["message"])
    if not list(check.paths()):
        raise InexactError(node, "x-checks", f"{entry['check'][:80]!r} reads no property", instead)
    stack: list[_Term] = [term]
    while stack:
        match stack.pop():
            case Operation(op=("=~" | "!~") as op, right=right) as operation:
                if not isinstance(right, Constant) or not isinstance(right.value, str):
                    raise InexactError(node, "x-checks", f"a pattern in quotes must follow {op}", instead)
                try:
                    to_re2(right.value)
                except PatternError as error:
                    raise InexactError(
                        node, "x-checks", f"{right.value[:80]!r} is not a pattern that CUE takes: {error}"
                    ) from error
                stack.append(operation.left)
            case Operation(left=left, right=right):
                stack += [left, right]
            case _Length(of=of) | _Not(of=of):
                stack.append(of)
    return check


def mistyped(check: Check, shape: Shape) -> str:
    """Why CUE can't work *check* out of an object of this *shape*: a sentence, empty where it can.

    What is not known of a property is taken to fit.
    """

    def types(term: _Term) -> frozenset[str]:
        match term:
            case Path(steps=steps):
                at: Shape | None = shape
                for step in steps:
                    found = at.property(step) if at is not None else None
                    at = found.shape if found is not None else None
                return at.types if at is not None else ALL_TYPES
            case Constant(value=value):
                return frozenset({json_type(value)})
            case _Not(op="-") | _Length() | Operation(op="+" | "-" | "*"):
                return frozenset({"number", "string"}) if getattr(term, "op", "") == "+" else frozenset({"number"})
        return frozenset({"boolean"})

    def met(*sides: frozenset[str]) -> frozenset[str]:
        wide = [frozenset("number" if one == "integer" else one for one in side) for side in sides]
        return frozenset.intersection(*wide)

    stack: list[_Term] = [check.term]
    while stack:
        match stack.pop():
            case Operation(op=("<" | "<=" | ">" | ">="), left=left, right=right):
                if not met(types(left), types(right), frozenset({"number", "string"})):
                    return "it orders values that have no order, or are of two types"
                stack += [left, right]
            case Operation(op=("==" | "!="), left=left, right=right):
                if not met(types(left), types(right)):
                    return "it compares values that are never of the same type"
                stack += [left, right]
            case Operation(op=("=~" | "!~"), left=left):
                if not met(types(left), frozenset({"string"})):
                    return "it asks for a pattern in something that is not a string"
            case Operation(op=("-" | "*"), left=left, right=right):
                if not met(types(left), types(right), frozenset({"number"})):
                    return "it computes with something that is not a number"
                stack += [left, right]
            case Operation(op=("&&" | "||"), left=left, right=right):
                if not (met(types(left), frozenset({"boolean"})) and met(types(right), frozenset({"boolean"}))):
                    return "a side of && or || is not a condition"
                stack += [left, right]
            case Operation(left=left, right=right):
                stack += [left, right]
            case _Length(of=of):
                if not met(types(of), frozenset({"string", "array", "object"})):
                    return "len() of what has no length"
            case _Not(of=of):
                stack.append(of)
    return "" if met(types(check.term), frozenset({"boolean"})) else "it is not a condition"
