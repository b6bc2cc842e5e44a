"""Every function of CUE's library that a template may call: its package and name, what it takes, what it gives.

Source: cuelang.org/go v0.9.2 and v0.14.1, pkg/*/*.go; all of these are in both and mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from velagen import cue
from velagen.template.types import UNKNOWN, JsonType, Type

Gives = Callable[[Sequence[Type]], Type]

_TEXT = frozenset({"string"})
_NUMBER = frozenset({"integer", "number"})
_LIST = frozenset({"array"})


@dataclass(frozen=True)
class Takes:
    """An argument: the JSON types it may have (none: any) and, of a list, those of its items."""

    name: str
    types: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    #: A pattern of RE2; each constant that it may be is compiled when the definition is built.
    pattern: bool = False
    #: An item of the list that the first argument is.
    of_first: bool = False
    #: The list must have an item.
    filled: bool = False
    #: What is put in the place of matches of the argument before it, ``$1`` for the first group.
    replaces: bool = False
    not_zero: bool = False


@dataclass(frozen=True)
class Library:
    """A function by velagen's word for it."""

    word: str
    #: ``strings.Split`` of a package, ``len`` of the language, ``=~`` between two operands.
    name: str
    arguments: tuple[Takes, ...]
    gives: Gives
    #: The import path, where it is more than the name's first part.
    package: str = ""
    #: The arguments in CUE's order: by their number here, or CUE of its own. None: as they are.
    passes: tuple[int | cue.Expr, ...] | None = None

    def call(self, args: Sequence[cue.Expr]) -> cue.Expr:
        """The call in CUE."""
        passed = args if self.passes is None else [args[one] if isinstance(one, int) else one for one in self.passes]
        if not self.name[0].isalpha():
            left, right = passed
            return cue.Binary(self.name, left, right)
        short, dot, function = self.name.rpartition(".")
        if not dot:
            return cue.Call(cue.Ident(function), tuple(passed))
        return cue.call(self.package or short, function, *passed)


@dataclass(frozen=True)
class Built(Library):
    """A function that CUE has not, built of what it has; *name* says how it reads to a person."""

    build: Callable[[Sequence[cue.Expr]], cue.Expr] = lambda args: args[0]

    def call(self, args: Sequence[cue.Expr]) -> cue.Expr:
        """The expression in CUE."""
        return self.build(args)


def _always(*types: str) -> Gives:
    return lambda _: JsonType(*types)


def _first(args: Sequence[Type]) -> Type:
    """The list again, which may have become empty or shorter only where it was longer than one."""
    return JsonType("array", items=args[0].items, at_least=min(args[0].at_least, 1))


def _number_of(args: Sequence[Type]) -> Type:
    """A whole number where all are."""
    inside = args[0].items.types
    return JsonType("integer" if inside == {"integer"} else "number")


def _joined(args: Sequence[Type]) -> Type:
    """All items of the lists in a list."""
    lists = args[0].items
    return JsonType("array", items=lists.items)


def _quantity(args: Sequence[cue.Expr]) -> cue.Expr:
    """Source: Kubernetes apimachinery pkg/api/resource/quantity.go."""
    factors = {"": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3}
    factors |= {name: 1000**power for power, name in enumerate("kMGTPE", 1)}
    factors |= {f"{name}i": 1024**power for power, name in enumerate("KMGTPE", 1)}
    parts = cue.Ident("$parts")
    found = cue.call("regexp", "FindSubmatch", cue.Lit(QUANTITY, raw=True), cue.Interpolation((args[0],)))

    def part(number: int) -> cue.Expr:
        return cue.Index(parts, cue.Lit(number))

    number = cue.call("strconv", "ParseFloat", cue.Interpolation((part(1), part(2))), cue.Lit(64))
    factor = cue.Index(cue.literal(factors), part(3))
    product = cue.Struct((cue.Embed(cue.Binary("*", number, factor)),))
    return cue.Index(
        cue.ListLit((cue.Comprehension((cue.For("$parts", cue.ListLit((found,))),), product),)), cue.Lit(0)
    )


#: A quantity: number, exponent, suffix.
QUANTITY = r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([eE][+-]?[0-9]+)?([numkMGTPE]|[KMGTPE]i)?$"


def _unique(args: Sequence[cue.Expr]) -> cue.Expr:
    (items,) = args
    item, index = cue.Ident("$item"), cue.Ident("$index")
    before = cue.call("list", "Slice", items, cue.Lit(0), index)
    is_new = cue.Guard(cue.Unary("!", cue.call("list", "Contains", before, item)))
    loop = cue.For("$item", items, "$index")
    return cue.ListLit((cue.Comprehension((loop, is_new), cue.Struct((cue.Embed(item),))),))


def _hash(args: Sequence[cue.Expr]) -> cue.Expr:
    return cue.call("encoding/hex", "Encode", cue.call("crypto/sha256", "Sum256", args[0]))


def _decoded(args: Sequence[cue.Expr]) -> cue.Expr:
    return cue.Interpolation((cue.call("encoding/base64", "Decode", cue.Lit(None), args[0]),))


def _as_bytes(args: Sequence[cue.Expr]) -> cue.Expr:
    """There and back: CUE has no conversion of its own."""
    encoded = cue.call("encoding/base64", "Encode", cue.Lit(None), args[0])
    return cue.call("encoding/base64", "Decode", cue.Lit(None), encoded)


_text = Takes("text", _TEXT)
_list = Takes("items", _LIST)
_ALL = (
    Library("length", "len", (Takes("of", frozenset({"string", "array", "object"})),), _always("integer")),
    Library("matches", "=~", (_text, Takes("pattern", _TEXT, pattern=True)), _always("boolean")),
    Library("contains", "list.Contains", (_list, Takes("item", of_first=True)), _always("boolean")),
    Library("contains_text", "strings.Contains", (_text, Takes("part", _TEXT)), _always("boolean")),
    Library("has_prefix", "strings.HasPrefix", (_text, Takes("prefix", _TEXT)), _always("boolean")),
    Library("has_suffix", "strings.HasSuffix", (_text, Takes("suffix", _TEXT)), _always("boolean")),
    Library("trim_prefix", "strings.TrimPrefix", (_text, Takes("prefix", _TEXT)), _always("string")),
    Library("trim_suffix", "strings.TrimSuffix", (_text, Takes("suffix", _TEXT)), _always("string")),
    Library("lower", "strings.ToLower", (_text,), _always("string")),
    Library("upper", "strings.ToUpper", (_text,), _always("string")),
    Library("join", "strings.Join", (Takes("items", _LIST, items=_TEXT), Takes("separator", _TEXT)), _always("string")),
    Library(
        "split",
        "strings.Split",
        (_text, Takes("separator", _TEXT)),
        lambda _: JsonType("array", items=JsonType("string"), at_least=1),
    ),
    Library(
        "replace_text",
        "strings.Replace",
        (_text, Takes("old", _TEXT), Takes("new", _TEXT)),
        _always("string"),
        passes=(0, 1, 2, cue.Lit(-1)),
    ),
    Library(
        "replace_pattern",
        "regexp.ReplaceAll",
        (_text, Takes("pattern", _TEXT, pattern=True), Takes("new", _TEXT, replaces=True)),
        _always("string"),
        passes=(1, 0, 2),
    ),
    Library("to_json", "json.Marshal", (Takes("value"),), _always("string"), package="encoding/json"),
    Library("to_yaml", "yaml.Marshal", (Takes("value"),), _always("string"), package="encoding/yaml"),
    Library("from_json", "json.Unmarshal", (_text,), lambda _: UNKNOWN, package="encoding/json"),
    Library("is_json", "json.Valid", (_text,), _always("boolean"), package="encoding/json"),
    Library("url_encode", "net.QueryEscape", (_text,), _always("string")),
    Library("to_number", "strconv.ParseFloat", (_text,), _always("number"), passes=(0, cue.Lit(64))),
    Library("ceil", "math.Ceil", (Takes("number", _NUMBER),), _always("integer")),
    Library("floor", "math.Floor", (Takes("number", _NUMBER),), _always("integer")),
    Library(
        "div",
        "div",
        (Takes("number", frozenset({"integer"})), Takes("by", frozenset({"integer"}), not_zero=True)),
        _always("integer"),
    ),
    Library("maximum", "list.Max", (Takes("numbers", _LIST, items=_NUMBER, filled=True),), _number_of),
    Library("minimum", "list.Min", (Takes("numbers", _LIST, items=_NUMBER, filled=True),), _number_of),
    Library("total", "list.Sum", (Takes("numbers", _LIST, items=_NUMBER),), _number_of),
    Library("concat", "list.Concat", (Takes("lists", _LIST, items=_LIST),), _joined),
    Library("flatten", "list.FlattenN", (Takes("lists", _LIST, items=_LIST),), _joined, passes=(0, cue.Lit(1))),
    Library(
        "to_base64",
        "base64.Encode",
        (_text,),
        _always("string"),
        package="encoding/base64",
        passes=(cue.Lit(None), 0),
    ),
    Built("from_base64", "base64.Decode", (_text,), _always("string"), build=_decoded),
    Built("to_bytes", "base64.Decode", (_text,), _always("string"), build=_as_bytes),
    Built("sha256", "sha256.Sum256", (_text,), _always("string"), build=_hash),
    Built("unique", "the items without those that were there before", (_list,), _first, build=_unique),
    Built(
        "quantity",
        "the number that a Kubernetes quantity says",
        (Takes("text", _TEXT | _NUMBER),),
        _always("number"),
        build=_quantity,
    ),
)
#: By velagen's word.
LIBRARY = {one.word: one for one in _ALL}
#: sort_by takes what these say; it is not a call, since its order is an expression.
SORT = Library("sort_by", "list.Sort", (_list,), _first)
