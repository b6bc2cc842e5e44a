"""The words of a template that give an expression: conditions, choices, named intermediates, and CUE's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from velagen.template.expression import (
    Choice,
    Expression,
    FirstGiven,
    FirstOf,
    Function,
    Given,
    LetRoot,
    Literal,
    Not,
    Once,
    Operation,
    Provider,
    RawCue,
    Reference,
    Sorted,
    StepRoot,
    Text,
    Value,
    is_constant,
    split_text,
    wrap,
)
from velagen.template.library import LIBRARY
from velagen.template.places import MisuseError, here

_NOTHING: Any = object()

# ---------------------------------------------------------------- conditions and choices


def given(of: Expression) -> Expression:
    """True where the user wrote *of* (or it has a value for another reason)."""
    return Given(_expression(of, "given"))


def missing(of: Expression) -> Expression:
    """True where the user did not write *of*."""
    return Not(Given(_expression(of, "missing")))


def one_of(value: Expression, *allowed: Value) -> Expression:
    """True where *value* is one of *allowed*."""
    if not allowed:
        raise MisuseError("one_of(value, …) needs values to compare with")
    found: Expression = Operation("==", wrap(value), wrap(allowed[0]))
    for one in allowed[1:]:
        found = Operation("||", found, Operation("==", wrap(value), wrap(one)))
    return found


def first_given(*values: Value) -> Expression:
    """The first of *values* that exists; the last one must always exist, as a constant does."""
    if len(values) < 2:
        raise MisuseError("first_given needs at least two values: what to look at, and what to fall back on")
    return FirstGiven(values)


def cases(*branches: tuple[Expression, Value], otherwise: Value) -> Expression:
    """The value of the first pair ``(condition, value)`` whose condition holds, else *otherwise*.

    A condition is looked at only where those before it do not hold: after ``missing(p.x)`` p.x is there.
    """
    for branch in branches:
        if not isinstance(branch, tuple) or len(branch) != 2:
            raise MisuseError("cases takes pairs: cases((condition, value), (condition, value), otherwise=value)")
    if not branches:
        raise MisuseError("cases needs at least one pair (condition, value)")
    return FirstOf((*((wrap(condition), value) for condition, value in branches), (None, otherwise)))


def if_else(condition: Expression, then: Value, otherwise: Value) -> Expression:
    """*then* where *condition* holds, else *otherwise*; :func:`cases` for more than one condition."""
    return cases((condition, then), otherwise=otherwise)


def choose(
    key: Expression | str, table: Mapping[str, Value], default: Value = _NOTHING, *, name: str = ""
) -> Expression:
    """The entry of *table* under *key*; without *default* every value that *key* may have must be in the table.

    In CUE the table has the name of its Python variable, in camel case, or *name*.
    """
    if not isinstance(table, Mapping) or not all(isinstance(name, str) and is_constant(name) for name in table):
        raise MisuseError("choose(key, table) takes a dict whose keys are constant texts")
    has_default = default is not _NOTHING
    return Choice(wrap(key), table, default if has_default else None, has_default=has_default, name=name)


def let(value: Value, *, name: str = "") -> Reference:
    """A named intermediate: it is computed once, before the output, and what is never referred to is not written.

    In CUE it has the name of the Python variable that it is assigned to, in camel case, or *name*; ``let(comment("why",
    value))`` has a comment above it.
    """
    return Reference(LetRoot(name, value, here()))


def raw_cue(text: str, *, imports: tuple[str, ...] = ()) -> Expression:
    """CUE that is taken as it is, for what the template language can't say; *imports* are the packages it uses.

    An f-string brings references in: ``raw_cue(f"{p.items}[0]")``; they are checked as everywhere.
    """
    if not isinstance(text, str) or isinstance(imports, str):
        raise MisuseError('raw_cue takes a text and the packages it uses: raw_cue("…", imports=("strings",))')
    return RawCue(split_text(text), tuple(imports))


def as_string(value: Expression) -> Expression:
    """A number or boolean as text."""
    return Text((_expression(value, "as_string"),))


# ---------------------------------------------------------------- workflow steps


def operation(package: str, name: str, params: Value = _NOTHING) -> Expression:
    """A provider of KubeVela's workflow engine with its parameters: ``kube.#Apply & {$params: …}``.

    Source: kubevela/workflow pkg/providers/*/*.cue, kubevela pkg/workflow/providers/*/*.cue.
    """
    for word in (package, name):
        if not isinstance(word, str) or not is_constant(word):
            raise MisuseError('operation takes constant names: operation("vela/kube", "#Apply", {…})')
    return Provider(package, name, {} if params is _NOTHING else params)


def once(of: Expression) -> Expression:
    """An operation that a step does only once, though KubeVela does all of a waiting step again and again.

    Its answer is kept in a ConfigMap of the application's, named by the run of the step, and is read from there
    afterwards: ``result_of(…)["$returns"]`` is the same in each round. An operation that fails is tried again, and so
    is one whose answer could not be kept.
    """
    if not isinstance(of, Provider):
        raise MisuseError('once takes an operation: once(operation("vela/http", "#HTTPDo", {…}))')
    return Once(of)


def result_of(step: str) -> Reference:
    """The value of a field of the same workflow step: ``result_of("read")["$returns"].value``."""
    if not isinstance(step, str) or not is_constant(step):
        raise MisuseError("result_of takes the constant name of a field of this step")
    return Reference(StepRoot(step))


# ---------------------------------------------------------------- CUE's library


def _call(word: str, *args: Value) -> Expression:
    return Function(LIBRARY[word], tuple(wrap(arg) for arg in args))


def _expression(value: Value, word: str) -> Expression:
    if not isinstance(value, Expression):
        raise MisuseError(f"{word} takes an expression, not {type(value).__name__}")
    return value


def length(of: Value) -> Expression:
    """The number of items of a list, of fields of an object, of bytes of a text."""
    return _call("length", of)


def matches(text: Value, pattern: Value) -> Expression:
    """True where *text* matches the RE2 *pattern* somewhere."""
    return _call("matches", text, pattern)


def contains(items: Value, item: Value) -> Expression:
    """True where the list *items* has *item*; of a text see :func:`contains_text`."""
    return _call("contains", items, item)


def contains_text(text: Value, part: Value) -> Expression:
    """True where *text* has *part* in it."""
    return _call("contains_text", text, part)


def has_prefix(text: Value, prefix: Value) -> Expression:
    """True where *text* starts with *prefix*."""
    return _call("has_prefix", text, prefix)


def has_suffix(text: Value, suffix: Value) -> Expression:
    """True where *text* ends with *suffix*."""
    return _call("has_suffix", text, suffix)


def join(items: Value, separator: Value) -> Expression:
    """The texts of *items* in one, with *separator* between them."""
    return _call("join", items, separator)


def split(text: Value, separator: Value) -> Expression:
    """*text* cut at each *separator*: a list of at least one text."""
    return _call("split", text, separator)


def trim_prefix(text: Value, prefix: Value) -> Expression:
    """*text* without *prefix* at its start."""
    return _call("trim_prefix", text, prefix)


def trim_suffix(text: Value, suffix: Value) -> Expression:
    """*text* without *suffix* at its end."""
    return _call("trim_suffix", text, suffix)


def replace_text(text: Value, old: Value, new: Value) -> Expression:
    """*text* with each *old* replaced by *new*."""
    return _call("replace_text", text, old, new)


def replace_pattern(text: Value, pattern: Value, new: Value) -> Expression:
    """*text* with each match of the RE2 *pattern* replaced by *new*, where ``$1`` is the first group."""
    return _call("replace_pattern", text, pattern, new)


def lower(text: Value) -> Expression:
    """*text* in small letters."""
    return _call("lower", text)


def upper(text: Value) -> Expression:
    """*text* in capitals."""
    return _call("upper", text)


def to_json(value: Value) -> Expression:
    """*value* as JSON text."""
    return _call("to_json", value)


def from_json(text: Value) -> Expression:
    """The value that the JSON *text* says; nothing is known of its fields, so each is asked for."""
    return _call("from_json", text)


def is_json(text: Value) -> Expression:
    """True where *text* is JSON, which :func:`from_json` can read."""
    return _call("is_json", text)


def url_encode(text: Value) -> Expression:
    """*text* as it stands in the query of a URL."""
    return _call("url_encode", text)


def to_yaml(value: Value) -> Expression:
    """*value* as YAML text."""
    return _call("to_yaml", value)


def to_number(text: Value) -> Expression:
    """The number that *text* says; an application whose text says none is refused by CUE."""
    return _call("to_number", text)


def quantity(text: Value) -> Expression:
    """The number that a Kubernetes quantity says: ``500m`` is 0.5, ``1Gi`` is 1073741824."""
    return _call("quantity", text)


def to_base64(text: Value) -> Expression:
    """*text* in base64, as the data of a Secret is written."""
    return _call("to_base64", text)


def from_base64(text: Value) -> Expression:
    """The text that *text* is the base64 of."""
    return _call("from_base64", text)


def to_bytes(text: Value) -> Expression:
    """*text* as bytes, which some operations of a workflow step take."""
    return _call("to_bytes", text)


def sha256(text: Value) -> Expression:
    """The SHA-256 of *text* in hexadecimal, for instance to roll pods when a configuration changes."""
    return _call("sha256", text)


def concat(*lists: Value) -> Expression:
    """The items of all *lists* in one list (CUE 0.14 no longer adds lists with +)."""
    return _call("concat", Literal(list(lists)))


def flatten(lists: Value) -> Expression:
    """The items of the lists in the list *lists* in one list."""
    return _call("flatten", lists)


def unique(items: Value) -> Expression:
    """*items* without those that were there before; objects are equal if all their fields are."""
    return _call("unique", items)


def sort_by(items: Value, key: Callable[..., Value] | None = None, *, descending: bool = False) -> Expression:
    """*items* in order: by ``key(item)``, a number or a text; without *key* by themselves."""
    if key is not None and (isinstance(key, Expression) or not callable(key)):
        raise MisuseError("sort_by takes a function of an item: sort_by(p.items, lambda item: item.name)")
    return Sorted(wrap(items), key, descending=descending)


def ceil(number: Value) -> Expression:
    """The least whole number that is not below *number*."""
    return _call("ceil", number)


def floor(number: Value) -> Expression:
    """The greatest whole number that is not above *number*."""
    return _call("floor", number)


def div(number: Value, by: Value) -> Expression:
    """*number* divided by *by*, both whole, rounded down for positive numbers."""
    return _call("div", number, by)


def maximum(*numbers: Value) -> Expression:
    """The greatest of *numbers*, or of the list that is the only argument and must have an item."""
    return _call("maximum", _numbers(numbers, "maximum"))


def minimum(*numbers: Value) -> Expression:
    """The least of *numbers*, or of the list that is the only argument and must have an item."""
    return _call("minimum", _numbers(numbers, "minimum"))


def total(numbers: Value) -> Expression:
    """The sum of the list *numbers*; 0 for an empty one."""
    return _call("total", numbers)


def _numbers(numbers: tuple[Value, ...], word: str) -> Value:
    if not numbers:
        raise MisuseError(f"{word} needs numbers: {word}(a, b), or a list of them: {word}(p.sizes)")
    return numbers[0] if len(numbers) == 1 else list(numbers)


__all__ = [
    "as_string", "cases", "ceil", "choose", "concat", "contains", "contains_text", "div", "first_given", "flatten",
    "floor", "from_base64", "from_json", "given", "has_prefix", "has_suffix", "if_else", "is_json", "join", "length",
    "let", "lower", "matches", "maximum", "minimum", "missing", "once", "one_of", "operation", "quantity", "raw_cue",
    "replace_pattern", "replace_text", "result_of", "sha256", "sort_by", "split", "to_base64", "to_bytes", "to_json",
    "to_number", "to_yaml", "total", "trim_prefix", "trim_suffix", "unique", "upper", "url_encode",
]  # fmt: skip
