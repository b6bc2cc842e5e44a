# ruff: noqa: ARG002  # every keyword is asked in the same words
"""Every keyword as the conditions under which a value breaks it: the exact road, for what a CUE type can't say.

A violation is a row of comprehension clauses (``if``, ``for``) over a reference to a concrete value, and a sentence.
The row yields something exactly when the rule is broken. Rows compose: a schema holds where the list of all its rows
is empty, so ``not``, ``anyOf`` and the rest are arithmetic on lengths. No row unifies data with a struct, which keeps
the forms clear of closedness, defaults and disjunctions, and equal on CUE 0.9.2 and 0.14.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from typing import Any

from velagen.cue import (
    Binary,
    Call,
    Comprehension,
    Ellipsis,  # noqa: A004  # the grammar's own word
    Embed,
    Expr,
    For,
    Guard,
    Ident,
    Index,
    Interpolation,
    ListLit,
    Lit,
    Selector,
    Struct,
    Unary,
    absent,
    call,
    joined,
    negated,
    present,
)
from velagen.cue import (
    Node as Cue,
)
from velagen.schema.cel import NotCarriedError, parse_rule
from velagen.schema.checks import mistyped, parse_check
from velagen.schema.formats import FORMATS
from velagen.schema.model import (
    ALL_TYPES,
    MAX_NODES,
    InexactError,
    Node,
    Shape,
    TooLargeError,
    is_number,
    json_type,
    layers_of,
)
from velagen.schema.patterns import PatternError, to_re2
from velagen.schema.unions import Union, union_of
from velagen.schema.words import Words, sentence, told_with

Clauses = tuple[Cue, ...]

#: A string of JSON text (kept), or the zeros that end a number's fraction (what stands before them is kept).
_SPELLING = r'("(?:[^"\\]|\\.)*")|(\.\d*[1-9])0+|\.0+'

TYPE: dict[str, Expr] = {
    "null": Ident("null"),
    "boolean": Ident("bool"),
    "integer": Ident("int"),
    "number": Ident("number"),
    "string": Ident("string"),
    "array": ListLit((Ellipsis(),)),
    "object": Struct((Ellipsis(),)),
}

#: Keywords that can make a value invalid, by the type they speak of.
NUMBER_KEYWORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
STRING_KEYWORDS = ("minLength", "maxLength", "pattern", "format")
ARRAY_KEYWORDS = (
    "minItems", "maxItems", "uniqueItems", "prefixItems", "items", "contains", "unevaluatedItems",
    "x-kubernetes-list-map-keys",
)  # fmt: skip
OBJECT_KEYWORDS = (
    "required", "minProperties", "maxProperties", "propertyNames", "dependentRequired", "dependentSchemas",
    "properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "x-checks",
)  # fmt: skip
ANY_KEYWORDS = ("type", "enum", "const", "not", "anyOf", "oneOf", "if", "x-kubernetes-validations")
#: What compares properties, and comes after what judges each by itself.
COMPARING = frozenset(["x-checks", "x-kubernetes-validations"])
ASSERTIONS = frozenset((*NUMBER_KEYWORDS, *STRING_KEYWORDS, *ARRAY_KEYWORDS, *OBJECT_KEYWORDS, *ANY_KEYWORDS))


#: From here on constants stand in a list.
MANY = 50
#: Objects or lists in one enum: each is compared by a condition of its own.
MOST_OBJECTS = 500


@dataclass(frozen=True)
class Violation:
    """A broken rule: the clauses that find it, and what is said about it."""

    clauses: Clauses
    message: Words
    node: Node
    keyword: str


def length(of: Expr) -> Expr:
    """``len(of)``."""
    return Call(Ident("len"), (of,))


def number(value: int | float) -> Lit:
    """A number literal; an integral float as an integer, which CUE compares as equal."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return Lit(value)


def whole_number(value: int | float) -> Lit:
    """As `number`, of any size: CUE's OpenAPI conversion takes no 1e22 for a whole number."""
    return Lit(int(Fraction(repr(value)))) if float(value).is_integer() else Lit(value)


def exact_below(factor: int | float) -> int | float:
    """Up to where CUE tells the multiples of *factor*: its ``math.MultipleOf`` divides in 34 digits."""
    limit = min(Fraction(repr(factor)), Fraction(1)) * 10**33
    return int(limit) or float(limit)


def bounded(node: Node, factor: int | float) -> bool:
    """Whether the bounds beside ``multipleOf`` keep numbers where CUE tells its multiples."""
    limit = exact_below(factor)
    above = [node[word] for word in ("maximum", "exclusiveMaximum") if is_number(node.get(word))]
    below = [node[word] for word in ("minimum", "exclusiveMinimum") if is_number(node.get(word))]
    return any(value < limit for value in above) and any(value > -limit for value in below)


def is_type(ref: Expr, name: str) -> Expr:
    """``(ref & T) != _|_`` for a concrete value."""
    return present(Binary("&", ref, TYPE[name]))


def _yield_one(clauses: Clauses) -> Cue:
    return Comprehension(clauses, Struct((Embed(Lit(1)),))) if clauses else Lit(1)


def listing(rows: Iterable[Clauses]) -> Expr:
    """A list that is as long as the rows yield."""
    return ListLit(tuple(_yield_one(row) for row in rows))


@dataclass
class Violations:
    """Makes violations; holds what all of them share."""

    assert_formats: bool = True
    #: ``kubevela``: numbers arrive as Go's JSON writes them (1.0 as 1); ``json``: as the instance has them.
    integers: str = "json"
    #: Names that no loop variable may take.
    taken: frozenset[str] = frozenset()
    _count: int = 0
    _cost: int = 0
    _path: list[Any] = field(default_factory=list)

    def name(self, stem: str) -> str:
        """A new loop variable."""
        while True:
            self._count += 1
            candidate = f"{stem}{self._count}"
            if candidate not in self.taken:
                return candidate

    # ------------------------------------------------------------ putting together

    def all_of(self, node: Node, ref: Expr, words: Words, known: frozenset[str] = ALL_TYPES) -> Iterator[Violation]:
        """The violations of *node* with everything it refers to in place."""
        key = (node.identity, ref)
        same = node.identity
        if key in self._path or sum(1 for one, _ in self._path if one == same) > 0:
            raise InexactError(
                node, "$ref", "the schema contains itself", "give the depth that is needed, level by level"
            )
        self._path.append(key)
        try:
            found = [one for layer in layers_of(node) for one in self.of(layer, ref, words, known)]
        finally:
            self._path.pop()
        yield from found

    def rows(self, node: Node, ref: Expr, known: frozenset[str]) -> list[Clauses]:
        """Rows that yield nothing exactly when the value at *ref* satisfies *node*."""
        return [one.clauses for one in self.all_of(node, ref, Words(()), known)]

    def fails(self, node: Node, ref: Expr, known: frozenset[str] = ALL_TYPES) -> Expr:
        """True when the value does not satisfy *node*."""
        rows = self.rows(node, ref, known)
        match rows:
            case [[Guard(condition=condition)]]:
                return condition
        return Binary(">", length(listing(rows)), Lit(0))

    def holds(self, node: Node, ref: Expr, known: frozenset[str] = ALL_TYPES) -> Expr:
        """True when the value satisfies *node*."""
        rows = self.rows(node, ref, known)
        match rows:
            case [[Guard(condition=condition)]]:
                return negated(condition)
        return Binary("==", length(listing(rows)), Lit(0))

    def of(
        self,
        node: Node,
        ref: Expr,
        words: Words,
        known: frozenset[str] = ALL_TYPES,
        keywords: Iterable[str] = ASSERTIONS,
    ) -> Iterator[Violation]:
        """The violations of *keywords* as they stand in *node* itself, for a value whose type is among *known*."""
        self._cost += 1
        if self._cost > MAX_NODES // 2:
            raise TooLargeError(node)
        if node.contents is False:
            yield Violation((), sentence(node, "false", None, words), node, "false")
            return
        wanted = set(keywords)
        for group, of_type in (
            (ANY_KEYWORDS, None),
            (NUMBER_KEYWORDS, "number"),
            (STRING_KEYWORDS, "string"),
            (ARRAY_KEYWORDS, "array"),
            (OBJECT_KEYWORDS, "object"),
        ):
            guard: Clauses = ()
            if of_type is not None:
                names = {of_type, "integer"} if of_type == "number" else {of_type}
                if not known & names:
                    continue
                if not known <= names:
                    guard = (Guard(is_type(ref, of_type)),)
            for keyword in group:
                if keyword in wanted and keyword in node:
                    if keyword == "type" and "enum" in wanted and _names_texts(node):
                        continue  # what is none of these texts is said to be none, whatever it is
                    value = node[keyword]
                    for clauses, message in getattr(self, "_" + keyword.replace("-", "_"))(
                        node, value, ref, words, known
                    ):
                        yield Violation(guard + clauses, message, node, keyword)

    def merged(self, found: Iterable[Violation], ref: Expr) -> Iterator[Violation]:
        """The same violations, those of one scalar that are told in the same words as one: it does not fit a type.

        ``x-message`` makes them alike. Asking once is shorter to read and quicker to render.
        """
        for _, run in groupby(found, key=lambda one: (one.node.identity, one.message)):
            alike = list(run)
            type_ = _fitting(alike)
            if type_ is None:
                yield from alike
            else:
                first = alike[0]
                misfit = Guard(absent(Binary("&", ref, type_)))
                yield Violation((misfit,), first.message, first.node, first.keyword)

    def _say(self, node: Node, keyword: str, value: Any, words: Words) -> Words:
        return sentence(node, keyword, value, words)

    def _below(
        self, node: Node, ref: Expr, words: Words, guard: Clauses, known: frozenset[str] = ALL_TYPES
    ) -> Iterator[tuple[Clauses, Words]]:
        for one in self.merged(self.all_of(node, ref, words, known), ref):
            yield guard + one.clauses, one.message

    # ------------------------------------------------------------ any type

    def _type(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        allowed = [value] if isinstance(value, str) else list(value)
        if "number" in allowed and "integer" in allowed:
            allowed.remove("integer")
        if known <= set(allowed) or ("number" in allowed and known <= {*allowed, "integer"}):
            return
        message = self._say(node, "type", value, words)
        clauses: list[Cue] = []
        if allowed:
            clauses.append(Guard(joined("&&", (absent(Binary("&", ref, TYPE[name])) for name in allowed))))
        if "integer" in allowed and self.integers == "json":
            whole = listing([(Guard(is_type(ref, "number")), Guard(call("math", "MultipleOf", ref, Lit(1))))])
            clauses.append(Guard(Binary("==", length(whole), Lit(0))))
        yield tuple(clauses), message

    def _enum(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        scalars = [item for item in value if not isinstance(item, (dict, list))]
        clauses: list[Cue] = []
        if len(scalars) > MANY:
            # A list and one question to it; a condition for each value would nest as deep as there are values.
            clauses += self._none_of(scalars, ref)
        elif 1 < len(scalars) <= _LONGEST_DISJUNCTION and all(isinstance(item, str) for item in scalars):
            clauses.append(Guard(absent(Binary("&", ref, joined("|", (self.scalar(item) for item in scalars))))))
        elif scalars:
            clauses.append(Guard(joined("&&", (absent(Binary("&", ref, self.scalar(item))) for item in scalars))))
        others = [item for item in value if isinstance(item, (dict, list))]
        if len(others) > MOST_OBJECTS:
            reason = f"of objects and lists at most {MOST_OBJECTS} can be listed, these are {len(others)}"
            raise InexactError(node, "enum", reason, "say by properties what they have in common")
        for item in others:
            clauses.append(Guard(Binary(">", length(listing(self.differs(item, ref))), Lit(0))))
        yield tuple(clauses), self._say(node, "enum", value, words)

    def _none_of(self, scalars: list[Any], ref: Expr) -> Iterator[Guard]:
        """The value at *ref* is not one of many constants; numbers are compared, since 1.0 is 1 for JSON Schema."""
        numbers = [item for item in scalars if json_type(item) == "number"]
        words = [item for item in scalars if json_type(item) != "number"]
        if words:
            known = ListLit(tuple(Lit(item) for item in dict.fromkeys(words)))
            yield Guard(Unary("!", call("list", "Contains", known, ref)))
        if numbers:
            each = self.name("x")
            clauses = (
                Guard(is_type(ref, "number")),
                For(each, ListLit(tuple(number(item) for item in numbers))),
                Guard(Binary("==", Ident(each), ref)),
            )
            yield Guard(Binary("==", length(listing([clauses])), Lit(0)))

    def _const(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        message = self._say(node, "const", value, words)
        for clauses in self.differs(value, ref):
            yield clauses, message

    def scalar(self, value: Any) -> Expr:
        """A constant that a value is unified with; a number also takes its other spelling (1 and 1.0)."""
        if json_type(value) == "number":
            literal = number(value)
            return Binary("&", Unary(">=", literal), Unary("<=", literal))
        return Lit(value)

    def differs(self, value: Any, ref: Expr) -> Iterator[Clauses]:
        """The ways in which the value at *ref* is not the JSON value *value*."""
        match value:
            case dict():
                yield (Guard(absent(Binary("&", ref, TYPE["object"]))),)
                is_object = Guard(is_type(ref, "object"))
                yield (is_object, Guard(Binary("!=", length(ref), Lit(len(value)))))
                for name, item in value.items():
                    yield (is_object, Guard(absent(Selector(ref, name))))
                    for clauses in self.differs(item, Selector(ref, name)):
                        yield (is_object, Guard(present(Selector(ref, name))), *clauses)
            case list():
                yield (Guard(absent(Binary("&", ref, TYPE["array"]))),)
                is_array = Guard(is_type(ref, "array"))
                yield (is_array, Guard(Binary("!=", length(ref), Lit(len(value)))))
                for index, item in enumerate(value):
                    for clauses in self.differs(item, Index(ref, Lit(index))):
                        yield (is_array, Guard(Binary(">", length(ref), Lit(index))), *clauses)
            case _:
                yield (Guard(absent(Binary("&", ref, self.scalar(value)))),)

    def _not(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        yield (Guard(self.holds(node.sub("not"), ref, known)),), self._say(node, "not", value, words)

    def _anyOf(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        union = union_of(node, "anyOf")
        if union is not None and (union.objects or known == {"object"}):
            yield from self._chosen(node, "anyOf", union, ref, words, known)
            return
        branches = (node.sub("anyOf", index) for index in range(len(value)))
        yield (
            tuple(Guard(self.fails(branch, ref, known)) for branch in branches),
            self._say(node, "anyOf", value, words),
        )

    def _oneOf(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        union = union_of(node, "oneOf")
        if union is not None and (union.objects or known == {"object"}):
            yield from self._chosen(node, "oneOf", union, ref, words, known)
            return
        rows = [(Guard(self.holds(node.sub("oneOf", index), ref, known)),) for index in range(len(value))]
        yield (Guard(Binary("!=", length(listing(rows)), Lit(1))),), self._say(node, "oneOf", value, words)

    def _chosen(
        self, node: Node, keyword: str, union: Union, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        """What breaks the branch that the discriminator chooses, or the discriminator itself."""
        own = node.get("x-message")

        def say(message: Words) -> Words:
            return Words((own,)) if isinstance(own, str) else message

        guard: Clauses = ()
        if known != {"object"}:
            yield (Guard(absent(Binary("&", ref, TYPE["object"]))),), say(sentence(node, "type", "object", words))
            guard = (Guard(is_type(ref, "object")),)
        there = Selector(ref, union.name)
        yield (*guard, Guard(absent(there))), say(sentence(node, "required", union.name, words))
        clauses = [Guard(absent(Binary("&", there, self.scalar(value)))) for value in union.values]
        below = words.name(union.name)
        yield (*guard, Guard(present(there)), *clauses), say(sentence(node, "enum", union.values, below))
        for branch in union.branches:
            options = [present(Binary("&", there, self.scalar(value))) for value in branch.values]
            chosen: Clauses = (*guard, Guard(present(there)), Guard(joined("||", options)))
            for one in self.all_of(branch.node, ref, words, frozenset(["object"])):
                if one.message.parts[: len(below.parts)] == below.parts and not _goes_on(one.message, below):
                    continue  # the discriminator's own rules hold once it has chosen
                yield chosen + one.clauses, say(told_with(one.message, words, branch.chosen(union.name)))

    def _if(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        condition = node.sub("if")
        if "then" in node:
            yield from self._below(node.sub("then"), ref, words, (Guard(self.holds(condition, ref, known)),), known)
        if "else" in node:
            yield from self._below(node.sub("else"), ref, words, (Guard(self.fails(condition, ref, known)),), known)

    # ------------------------------------------------------------ numbers

    def _bound(self, op: str, keyword: str, node: Node, value: Any, ref: Expr, words: Words) -> tuple[Clauses, Words]:
        return (Guard(Binary(op, ref, number(value))),), self._say(node, keyword, value, words)

    def _minimum(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        yield self._bound("<", "minimum", node, value, ref, words)

    def _maximum(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        yield self._bound(">", "maximum", node, value, ref, words)

    def _exclusiveMinimum(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        yield self._bound("<=", "exclusiveMinimum", node, value, ref, words)

    def _exclusiveMaximum(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        yield self._bound(">=", "exclusiveMaximum", node, value, ref, words)

    def _multipleOf(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        message = self._say(node, "multipleOf", value, words)
        holds = call("math", "MultipleOf", ref, whole_number(value))
        yield (Guard(Unary("!", holds)),), message
        if bounded(node, value):
            return
        # Source: cue pkg/math/manual.go and internal.BaseContext. It divides in 34 digits, so that each quotient of
        # more counts as whole. There both are made integers, of which remainders are exact.
        digits, exponent = Decimal(repr(value)).as_tuple()[1:]
        factor = int("".join(str(digit) for digit in digits)) * 10 ** max(int(exponent), 0)
        shift = 10 ** max(-int(exponent), 0)
        if shift % factor == 0:
            return  # so large a number is whole, and each whole number a multiple: of 0.01, 0.5
        most = number(exact_below(value))
        beyond = Binary("||", Binary(">=", ref, most), Binary("<=", ref, Lit(-most.value)))  # type: ignore[operator]  # a number
        whole = call("math", "Trunc", ref if shift == 1 else Binary("*", ref, Lit(shift)))
        remainder = Call(Ident("rem"), (whole, Lit(factor)))
        yield (Guard(beyond), Guard(Binary("!=", remainder, Lit(0)))), message

    # ------------------------------------------------------------ strings

    def _minLength(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        if value > 0:
            holds = call("strings", "MinRunes", ref, Lit(int(value)))
            yield (Guard(Unary("!", holds)),), self._say(node, "minLength", value, words)

    def _maxLength(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        holds = call("strings", "MaxRunes", ref, Lit(int(value)))
        yield (Guard(Unary("!", holds)),), self._say(node, "maxLength", value, words)

    def pattern(self, node: Node, keyword: str, pattern: str) -> Lit:
        """*pattern* as RE2; raises InexactError where that can't be."""
        try:
            return Lit(to_re2(pattern), raw=True)
        except PatternError as error:
            raise InexactError(
                node, keyword, f"the pattern {pattern[:80]!r} can't be carried over: {error}",
                "patterns are those of ECMA-262 without lookaround and back-references",
            ) from error  # fmt: skip

    def _pattern(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        matching = self.pattern(node, "pattern", value)
        yield (Guard(Binary("!~", ref, matching)),), self._say(node, "pattern", value, words)

    def _format(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        if self.assert_formats and value in FORMATS:
            yield (Guard(FORMATS[value].fails(ref)),), self._say(node, "format", value, words)

    # ------------------------------------------------------------ arrays

    def _minItems(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        if value > 0:
            yield (Guard(Binary("<", length(ref), Lit(int(value)))),), self._say(node, "minItems", value, words)

    def _maxItems(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        yield (Guard(Binary(">", length(ref), Lit(int(value)))),), self._say(node, "maxItems", value, words)

    def _uniqueItems(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        if value is not True:
            return
        first, second = self.name("i"), self.name("j")
        left, right = self.name("x"), self.name("y")
        items: Expr = ref
        if self.integers == "json":
            # The same number in two spellings, at any depth: each element is written as JSON text, trailing zeros of
            # fractions are taken away (strings are passed over), and the text is read again.
            each = self.name("x")
            text = call(
                "regexp",
                "ReplaceAll",
                Lit(_SPELLING, raw=True),
                call("encoding/json", "Marshal", Ident(each)),
                Lit("$1$2"),
            )
            body = Struct((Embed(call("encoding/json", "Unmarshal", text)),))
            items = ListLit((Comprehension((For(each, ref),), body),))
        # Two values are equal when they unify and neither has anything that the other lacks: then all three texts are
        # of one length, whatever the order of their keys.
        both = Binary("&", Ident(left), Ident(right))
        size = length(call("encoding/json", "Marshal", both))
        yield (
            (
                For(left, items, key=first),
                For(right, items, key=second),
                Guard(Binary("<", Ident(first), Ident(second))),
                Guard(present(both)),
                Guard(Binary("==", size, length(call("encoding/json", "Marshal", Ident(left))))),
                Guard(Binary("==", size, length(call("encoding/json", "Marshal", Ident(right))))),
            ),
            self._say(node, "uniqueItems", value, words),
        )

    def _x_kubernetes_list_map_keys(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        if not isinstance(value, list) or not value:
            return
        first, second, left, right = self.name("i"), self.name("j"), self.name("x"), self.name("y")
        clauses: list[Cue] = [
            For(left, ref, key=first),
            For(right, ref, key=second),
            Guard(Binary("<", Ident(first), Ident(second))),
        ]
        for key in value:
            one, other = Selector(Ident(left), str(key)), Selector(Ident(right), str(key))
            both: Clauses = (Guard(present(one)), Guard(present(other)), Guard(Binary("==", one, other)))
            none: Clauses = (Guard(absent(one)), Guard(absent(other)))
            clauses.append(Guard(Binary(">", length(listing([both, none])), Lit(0))))
        yield tuple(clauses), self._say(node, "x-kubernetes-list-map-keys", value, words)

    def _prefixItems(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for index in range(len(value)):
            guard = (Guard(Binary(">", length(ref), Lit(index))),)
            yield from self._below(node.sub("prefixItems", index), Index(ref, Lit(index)), words.item(index), guard)

    def _items(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        index, item = self.name("i"), self.name("x")
        clauses: Clauses = (For(item, ref, key=index),)
        prefix = len(node.get("prefixItems", ()))
        if prefix:
            clauses = (*clauses, Guard(Binary(">=", Ident(index), Lit(prefix))))
        yield from self._below(node.sub("items"), Ident(item), words.item(Ident(index)), clauses)

    def _contains(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        item = self.name("x")
        matching = listing([(For(item, ref), Guard(self.holds(node.sub("contains"), Ident(item))))])
        least, most = node.get("minContains", 1), node.get("maxContains")
        if least > 0:
            clauses: Clauses = (Guard(Binary("<", length(matching), Lit(int(least)))),)
            yield clauses, self._say(node, "contains", value, words)
        if most is not None:
            clauses = (Guard(Binary(">", length(matching), Lit(int(most)))),)
            yield clauses, self._say(node, "maxContains", most, words)

    def _unevaluatedItems(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        index, item = self.name("i"), self.name("x")
        evaluated = list(self._evaluated(node, ref, Ident(index), Ident(item), items=True, top=True))
        if () in evaluated:
            return
        clauses: Clauses = (For(item, ref, key=index),)
        if evaluated:
            clauses = (*clauses, Guard(Binary("==", length(listing(evaluated)), Lit(0))))
        yield from self._below(node.sub("unevaluatedItems"), Ident(item), words.item(Ident(index)), clauses)

    # ------------------------------------------------------------ objects

    def _required(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for name in value:
            yield (Guard(absent(Selector(ref, name))),), self._say(node, "required", name, words)

    def _minProperties(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        if value > 0:
            yield (Guard(Binary("<", length(ref), Lit(int(value)))),), self._say(node, "minProperties", value, words)

    def _maxProperties(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        yield (Guard(Binary(">", length(ref), Lit(int(value)))),), self._say(node, "maxProperties", value, words)

    def _propertyNames(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        key = self.name("key")
        loop = (For("_", ref, key=key),)
        for one in self.all_of(node.sub("propertyNames"), Ident(key), words.key(Ident(key)), frozenset(["string"])):
            yield loop + one.clauses, one.message

    def _dependentRequired(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for name, needed in value.items():
            for other in needed:
                if other != name:
                    guards = (Guard(present(Selector(ref, name))), Guard(absent(Selector(ref, other))))
                    yield guards, self._say(node, "dependentRequired", (name, other), words)

    def _dependentSchemas(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for name in value:
            guard = (Guard(present(Selector(ref, name))),)
            yield from self._below(node.sub("dependentSchemas", name), ref, words, guard, frozenset(["object"]))

    def _properties(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for name in value:
            below = Selector(ref, name)
            yield from self._below(node.sub("properties", name), below, words.name(name), (Guard(present(below)),))

    def _patternProperties(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for pattern in value:
            key, item = self.name("key"), self.name("x")
            matching = self.pattern(node, "patternProperties", pattern)
            clauses = (For(item, ref, key=key), Guard(Binary("=~", Ident(key), matching)))
            below = node.sub("patternProperties", pattern)
            yield from self._below(below, Ident(item), words.name(Ident(key)), clauses)

    def _additionalProperties(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        key, item = self.name("key"), self.name("x")
        conditions = [Binary("!=", Ident(key), Lit(name)) for name in node.get("properties", {})]
        conditions += [
            Binary("!~", Ident(key), self.pattern(node, "patternProperties", pattern))
            for pattern in node.get("patternProperties", {})
        ]
        clauses: Clauses = (For(item, ref, key=key),)
        if conditions:
            clauses = (*clauses, Guard(joined("&&", conditions)))
        yield from self._below(node.sub("additionalProperties"), Ident(item), words.name(Ident(key)), clauses)

    def _unevaluatedProperties(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        key, item = self.name("key"), self.name("x")
        evaluated = list(self._evaluated(node, ref, Ident(key), Ident(item), items=False, top=True))
        if () in evaluated:
            return
        clauses: Clauses = (For(item, ref, key=key),)
        if evaluated:
            clauses = (*clauses, Guard(Binary("==", length(listing(evaluated)), Lit(0))))
        yield from self._below(node.sub("unevaluatedProperties"), Ident(item), words.name(Ident(key)), clauses)

    def _evaluated(
        self,
        node: Node,
        ref: Expr,
        key: Expr,
        item: Expr,
        *,
        items: bool,
        top: bool = False,
        depth: int = 0,
        done: set[Any] | None = None,
    ) -> Iterator[Clauses]:
        """The ways in which a key (or index) of the value at *ref* counts as evaluated by *node*.

        Source: JSON Schema core 2020-12, sections 11.2 and 11.3.
        """
        if depth > 40:
            raise InexactError(
                node, "$ref", "the schema contains itself", "give the depth that is needed, level by level"
            )
        # Of what holds anyhow one telling is enough.
        done = set() if done is None else done
        if isinstance(node.contents, bool) or node.identity in done:
            return
        done.add(node.identity)
        self._cost += 1
        if self._cost > MAX_NODES // 2:
            raise TooLargeError(node)
        yield from self._evaluated_items(node, key, item, top) if items else self._evaluated_names(node, key, top)

        def below(other: Node, *guards: Cue) -> Iterator[Clauses]:
            again = None if guards else done
            for clauses in self._evaluated(other, ref, key, item, items=items, depth=depth + 1, done=again):
                yield (*guards, *clauses)

        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword in node:
                yield from below(node.follow(keyword))
        for index in range(len(node.get("allOf", ()))):
            yield from below(node.sub("allOf", index))
        for keyword in ("anyOf", "oneOf"):
            for index in range(len(node.get(keyword, ()))):
                branch = node.sub(keyword, index)
                rows = list(below(branch))
                if rows:
                    yield from ((Guard(self.holds(branch, ref)), *row) for row in rows)
        if "if" in node:
            condition = node.sub("if")
            yield from below(condition, Guard(self.holds(condition, ref)))
            if "then" in node:
                yield from below(node.sub("then"), Guard(self.holds(condition, ref)))
            if "else" in node:
                yield from below(node.sub("else"), Guard(self.fails(condition, ref)))
        if not items:
            for name in node.get("dependentSchemas", {}):
                yield from below(node.sub("dependentSchemas", name), Guard(present(Selector(ref, name))))

    def _evaluated_names(self, node: Node, key: Expr, top: bool) -> Iterator[Clauses]:
        if "additionalProperties" in node or ("unevaluatedProperties" in node and not top):
            yield ()
            return
        for name in node.get("properties", {}):
            yield (Guard(Binary("==", key, Lit(name))),)
        for pattern in node.get("patternProperties", {}):
            yield (Guard(Binary("=~", key, self.pattern(node, "patternProperties", pattern))),)

    def _evaluated_items(self, node: Node, index: Expr, item: Expr, top: bool) -> Iterator[Clauses]:
        if "items" in node or ("unevaluatedItems" in node and not top):
            yield ()
            return
        if "prefixItems" in node:
            yield (Guard(Binary("<", index, Lit(len(node["prefixItems"])))),)
        if "contains" in node and node.dialect >= 2020:
            yield (Guard(self.holds(node.sub("contains"), item)),)

    def _x_kubernetes_validations(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for entry in value if isinstance(value, list) else ():
            try:
                rule = parse_rule(node, entry)
            except NotCarriedError:
                continue  # the compiler warns of it
            message = Words((rule.message,)) if rule.speaks else words.say(rule.message)
            for row in rule.broken(ref):
                yield row, message

    def _x_checks(
        self, node: Node, value: Any, ref: Expr, words: Words, known: frozenset[str]
    ) -> Iterator[tuple[Clauses, Words]]:
        for index, entry in enumerate(value):
            check = parse_check(node, index, entry)
            wrong = mistyped(check, Shape(layers_of(node)))
            if wrong:
                raise InexactError(node, "x-checks", f"{entry['check'][:80]!r} can't be worked out: {wrong}")
            guards = tuple(Guard(present(check.reference(ref, path))) for path in check.guards())
            yield (*guards, Guard(check.broken(ref))), Words((check.message,))


#: An enumeration of more values is asked by itself: as a disjunction it would be slow.
_LONGEST_DISJUNCTION = 40


def _names_texts(node: Node) -> bool:
    """Whether ``enum`` lists texts alone, and ``type`` asks for a text."""
    values = node.get("enum")
    return (
        node.get("type") == "string"
        and isinstance(values, list)
        and bool(values)
        and all(isinstance(item, str) for item in values)
    )


def _fitting(alike: list[Violation]) -> Expr | None:
    """The CUE type of those values that none of *alike*, violations of one node, finds; None where no type is it."""
    first, *others = alike
    given = first.node.get("type")
    scalars = [given] if isinstance(given, str) else list(given or ())
    if first.keyword != "type" or not others or {*scalars} - {"string", "integer", "number"} or not scalars:
        return None
    if len([one for one in scalars if one != "string"]) > 1:
        return None
    if scalars != ["string"] and len(first.clauses) > 1:  # 1.0 counts as a whole number here, which no type says
        return None
    types = [_fitting_one(others, scalar, [one for one in scalars if one != scalar]) for scalar in scalars]
    return None if None in types else joined("|", (one for one in types if one is not None))


def _fitting_one(others: list[Violation], scalar: str, beside: list[str]) -> Expr | None:
    """The type of those of *scalar*; what is said of the types *beside* it says nothing of them."""
    constraints = []
    for one in others:
        constraint = _constraint(one.node, one.keyword, scalar)
        if constraint is not None:
            constraints.append(constraint)
        elif not any(_constraint(one.node, one.keyword, other) is not None for other in beside):
            return None
    # What holds for strings only says by itself that it is one.
    base = () if scalar == "string" and constraints else (TYPE[scalar],)
    return joined("&", (*base, *constraints))


def _constraint(node: Node, keyword: str, scalar: str) -> Expr | None:
    value = node[keyword]
    match keyword:
        case "enum" if scalar == "string" and len(value) <= _LONGEST_DISJUNCTION:
            if all(isinstance(item, str) for item in value):
                return joined("|", (Lit(item) for item in value))
        case "pattern" if scalar == "string":
            return Unary("=~", Lit(to_re2(value), raw=True))
        case "minLength" if scalar == "string":
            return call("strings", "MinRunes", Lit(int(value)))
        case "maxLength" if scalar == "string":
            return call("strings", "MaxRunes", Lit(int(value)))
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if scalar != "string":
            operator = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}[keyword]
            return Unary(operator, number(value))
    return None


def _goes_on(message: Words, path: Words) -> bool:
    """Whether *message* is about something below *path*, and not about what stands there itself."""
    after = message.parts[len(path.parts) :]
    return bool(after) and after[0] in (".", "[")


def interpolation(words: Words) -> Expr:
    """The sentence as a CUE string."""
    parts: list[str | Expr] = []
    for part in words.parts:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    if all(isinstance(part, str) for part in parts):
        return Lit("".join(part for part in parts if isinstance(part, str)))
    return Interpolation(tuple(parts))
