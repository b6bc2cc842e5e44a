"""Expressions to CUE: each reference checked against what is known, and guarded where it may be absent."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, count
from typing import Final, Literal, TypeAlias

from velagen import cue
from velagen.errors import Place, Problem
from velagen.template import expression as e
from velagen.template.body import Each, Items, Marked, Optional, When
from velagen.template.library import LIBRARY, SORT, Takes
from velagen.template.places import MisuseError, Spot, blamed, sentence, start_of
from velagen.template.types import UNKNOWN, JsonType, Type, a, common, constant, has

#: Source: kubevela pkg/cue/process/keyword.go, and context.go of the health checks for ``status``.
CONTEXT = {
    "name": "string",
    "appName": "string",
    "namespace": "string",
    "appRevision": "string",
    "revision": "string",
    "cluster": "string",
    "publishVersion": "string",
    "workflowName": "string",
    "componentType": "string",
    "replicaKey": "string",
    "appRevisionNum": "integer",
    "components": "array",
    "appLabels": "",
    "appAnnotations": "",
    "clusterVersion": "",
    "output": "",
    "outputs": "",
    "status": "",
    "artifacts": "",
    "metadata": "",
    "installer": "",
    "stepName": "string",
    "stepSessionID": "string",
    "stepGroupName": "string",
}
#: Of a workflow step alone. Source: kubevela/workflow pkg/cue/model/keyword.go.
STEP_CONTEXT = frozenset({"stepName", "stepSessionID", "stepGroupName"})
#: Of a status message alone. Source: kubevela pkg/cue/definition/health/health.go, GetStatus.
MESSAGE_CONTEXT = frozenset({"status"})
_ALWAYS_IN_CONTEXT = MESSAGE_CONTEXT | frozenset(
    ["name", "appName", "namespace", "appRevision", "output", "outputs", "metadata", "stepName", "stepSessionID"]
)
_MAY_BE_ABSENT = " may be absent here"
_NUMBERS = frozenset({"integer", "number"})
_TEXT = frozenset({"string"})
_SCALARS = _TEXT | _NUMBERS | {"boolean"}
#: An intermediate of one of these names would hide what CUE or KubeVela means by it.
_TAKEN = frozenset(
    [
        *("parameter", "context", "output", "outputs", "patch", "patchOutputs", "errs", "template", "x", "y", "less"),
        *("true", "false", "null", "for", "in", "if", "let", "import", "package", "func", "len", "close", "and", "or"),
        *("div", "mod", "quo", "rem", "error", "bool", "string", "bytes", "number", "int", "float", "rune", "uint"),
        *("strings", "list", "math", "regexp", "strconv", "json", "yaml", "base64", "hex", "sha256", "struct", "time"),
        *("kube", "builtin", "http", "oam", "util", "query", "email", "metrics", "multicluster", "config", "terraform"),
    ]
)


@dataclass(frozen=True)
class Typed:
    """A compiled expression and what is known of its value."""

    cue: cue.Expr
    type: Type


@dataclass(frozen=True)
class RawUse:
    """A raw_cue where it stands: its CUE, the JSON types that its place takes (none: any), and the loops' variables."""

    raw: cue.Raw
    takes: frozenset[str]
    variables: tuple[str, ...]
    place: Place


LetsAs: TypeAlias = Literal["let", "field", "definition"]
#: How an intermediate can be written, and what its name then begins with:
#:
#: - ``let name``, which is read most easily;
#: - a field ``$name``, for status details, where KubeVela allows nothing else
#:   (kubevela pkg/definition/ast/transformer.go);
#: - a hidden definition ``_#name``, for workflow steps. Where an operation fails or waits, KubeVela writes it down with
#:   all that it depends on (kubevela/pkg cue/cuex/error.go), and CUE follows a let once for each way that leads to it,
#:   a field once (cuelang.org/go internal/core/dep, reportDependency): with a hundred intermediates that depend on each
#:   other it never ends, and one of the controller's workers with it. Of definitions the engine looks at none for an
#:   operation (kubevela/pkg cue/util/iterate.go).
LETS: Final[Mapping[LetsAs, str]] = {"let": "", "field": "$", "definition": "_#"}


class ValueCompiler:
    """Compiles the expressions of one definition; problems are collected in :attr:`problems`.

    *parameter* is what the user may write, *output* the object that ``context.output`` holds where it is known, and
    *outputs* those that ``context.outputs`` holds. *lets_as* says how an intermediate is written, see :data:`LETS`.
    *context* are the keys that KubeVela's context has there. *avoid* are names that no intermediate may have, since
    fields are called so.
    """

    def __init__(
        self,
        *,
        parameter: Type,
        output: Type = UNKNOWN,
        outputs: Type = UNKNOWN,
        status: Type = UNKNOWN,
        lets_as: LetsAs = "let",
        context: Collection[str] = frozenset(CONTEXT) - STEP_CONTEXT - MESSAGE_CONTEXT,
        avoid: Collection[str] = frozenset(),
    ) -> None:
        #: Problems found so far; set aside where something is compiled to see whether it can be.
        self._found: list[Problem] = []
        #: Problems of intermediates, which are compiled once, whoever asks.
        self._firm: list[Problem] = []
        self._lets_as = lets_as
        self._parameter = parameter
        self._objects = {"output": output, "outputs": outputs, "status": status}
        self._context = context
        self._avoid = frozenset(avoid) | _TAKEN
        #: References known to exist here.
        self._present: list[set[cue.Expr]] = [set()]
        #: Names of intermediates by what they are, and what is known of those that are compiled.
        self._names: dict[int, str] = {}
        self._lets: dict[int, tuple[e.LetRoot, cue.Decl, Type]] = {}
        self._lets_open: list[e.LetRoot] = []
        self._tables: dict[str, cue.Expr] = {}
        self._loops = 0
        self._loop_names: set[str] = set()
        #: Loop variables that are part of what the user or KubeVela gives.
        self._users_own: set[str] = set()
        #: The variables that are there here: an intermediate, which is computed before all loops, has none.
        self._variables: list[e.Root] = []
        #: Definition lines, innermost last: where a problem is reported if its node knows no line.
        self._places: list[Place] = [Place()]
        #: Each raw_cue with what its place takes; the last word on it counts.
        self._raws: dict[tuple[cue.Raw, Place], RawUse] = {}
        #: Where what is compiled is written to, innermost last.
        self._uses: list[Spot] = [Spot()]

    @property
    def problems(self) -> list[Problem]:
        """What was found wrong so far."""
        return list(dict.fromkeys([*self._firm, *self._found]))

    @property
    def raws(self) -> tuple[RawUse, ...]:
        """The raw CUE of what was compiled so far."""
        return tuple(self._raws.values())

    def typed(self, value: e.Value, place: Type, path: str) -> Typed:
        """A value that goes to a *place* of the given type, at *path*; bodies are the subclass's."""
        raise NotImplementedError

    # ------------------------------------------------------------------ expressions

    def expression(self, node: e.Expression) -> Typed:
        """An expression with its type."""
        with self._at(node._place):
            return self._expression(node)

    def wrapped(self, value: e.Value) -> e.Expression:
        """*value* as an expression; where it can't be one, a problem and a null."""
        try:
            return e.wrap(value)
        except MisuseError as error:
            self._problem(str(error))
            return e.Constant(None)

    def _expression(self, node: e.Expression) -> Typed:
        match node:
            case e.Reference():
                return self._reference(node)
            case e.Constant(value=value):
                return Typed(cue.literal(value), constant(value))
            case e.Text(parts=parts):
                return Typed(self._interpolation(parts), JsonType("string"))
            case e.Literal(value=value):
                return self.typed(value, UNKNOWN, "value")
            case e.Item(of=of, key=key):
                found = self.expression(of)
                return self._follow(found.cue, found.type, (_plain(key),), has_to_exist=True)
            case e.Given(of=of):
                with self._assumed(_references(of)):
                    return Typed(cue.present(self.expression(of).cue), JsonType("boolean"))
            case e.Not(of=e.Given(of=of)):
                with self._assumed(_references(of)):
                    return Typed(cue.absent(self.expression(of).cue), JsonType("boolean"))
            case e.Not(of=of):
                return Typed(cue.negated(self._boolean(of, "~")), JsonType("boolean"))
            case e.Operation():
                return self._operation(node)
            case e.Function():
                return self._call(node)
            case e.Sorted():
                return self._sorted(node)
            case e.FirstOf(branches=branches):
                types: list[Type] = []
                return Typed(self._first_of(branches, self._collecting(types)), common(types))
            case e.FirstGiven():
                types = []
                return Typed(self._first_given(node, self._collecting(types)), common(types))
            case e.Choice():
                return self._choice(node)
            case e.RawCue():
                return Typed(self._raw(node, UNKNOWN), UNKNOWN)
            case e.Provider():
                return self._provider(node)
            case e.Once(of=of):
                return self._once(of)
        raise TypeError(f"no expression: {type(node).__name__}")

    def _provider(self, node: e.Provider) -> Typed:
        self._problem(f"operation({node.package!r}, {node.name!r}, …) belongs to the body of a workflow step")
        return Typed(cue.BOTTOM, UNKNOWN)

    def _once(self, node: e.Provider) -> Typed:
        return self._provider(node)

    def _collecting(self, types: list[Type]) -> Callable[[e.Value], cue.Expr]:
        def compile_one(value: e.Value) -> cue.Expr:
            typed = self.expression(self.wrapped(value))
            types.append(typed.type)
            return typed.cue

        return compile_one

    def _raw(self, node: e.RawCue, place: Type) -> cue.Raw:
        """The CUE of *node*, which goes to a *place* of the given type."""
        texts: list[str] = []
        imports = set(node.imports)
        for part in node.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            compiled = self.expression(part).cue
            imports.update(one.path for one in compiled.walk() if isinstance(one, cue.Package))
            is_operand = isinstance(
                compiled, (cue.Ident, cue.Selector, cue.Index, cue.Call, cue.Lit, cue.Interpolation)
            )
            texts.append(cue.to_cue(compiled) if is_operand else f"({cue.to_cue(compiled)})")
        raw = cue.Raw("".join(texts), tuple(sorted(imports)))
        use = RawUse(raw, place.types, tuple(root.name for root in self._variables), node._place)
        self._raws[raw, node._place] = use
        return raw

    def _first_of(
        self, branches: Sequence[tuple[e.Expression | None, e.Value]], compile_one: Callable[[e.Value], cue.Expr]
    ) -> cue.Expr:
        """``[if a {x}, if b {y}, z][0]``; where a condition does not hold, what it says is missing is there."""
        items: list[cue.Node] = []
        denied: list[e.Expression] = []
        for condition, value in branches:
            with self._assumed(denied):
                if condition is None:
                    items.append(compile_one(value))
                    continue
                guards = self._guards(one for one in denied if _mentions(condition, one))
                with self._guarded(condition) as clauses:
                    items.append(cue.Comprehension((*guards, *clauses), _yielded(compile_one(value))))
            denied += _denied(condition)
        return _first(items)

    def _guards(self, nodes: Iterator[e.Expression]) -> list[cue.Node]:
        return [cue.Guard(cue.present(self._silently(node))) for node in nodes]

    def _first_given(self, node: e.FirstGiven, compile_one: Callable[[e.Value], cue.Expr]) -> cue.Expr:
        items: list[cue.Node] = []
        for value in node.values[:-1]:
            with self._asked_for(value, "first_given") as clauses:
                if not clauses and node.lenient:
                    return compile_one(value)
                if not clauses:
                    self._always_exists("first_given")
                items.append(cue.Comprehension(clauses or (cue.Guard(cue.Lit(True)),), _yielded(compile_one(value))))
        items.append(compile_one(node.values[-1]))
        return _first(items)

    def _choice(self, node: e.Choice) -> Typed:
        key = self.expression(node.key)
        if wrong := key.type.types - _TEXT:
            self._problem(f"choose: {describe(node.key)} may be {a(wrong)}, and a table is asked by text")
        table = dict(node.table)
        if not node.has_default:
            missing = [one for one in key.type.enum if one not in table]
            if missing or not key.type.enum:
                what = f"has no entry for {', '.join(map(repr, missing))}" if missing else "may be asked for any text"
                self._problem(f"the table of choose({describe(node.key)}) {what}", hint="add it, or give a default")
        for name in table:
            if key.type.enum and not has(key.type.enum, str(name)):
                names = tuple(map(str, key.type.enum))
                self._problem(
                    f"{describe(node.key)} is never {str(name)!r}{_did_you_mean(name, names)}", _spot_of(name)
                )
        types: list[Type] = []
        compile_one = self._collecting(types)
        struct = cue.Struct(tuple(cue.Field(str(name), compile_one(value)) for name, value in table.items()))
        name = self._table_name(node, struct)
        entry = cue.Index(cue.Ident(self._let_name(name)), key.cue)
        if not node.has_default:
            return Typed(entry, common(types))
        fallback = compile_one(node.default)
        found = cue.Comprehension((cue.Guard(cue.present(entry)),), _yielded(entry))
        return Typed(_first([found, fallback]), common(types))

    def _table_name(self, node: e.Choice, struct: cue.Expr) -> str:
        """What the author calls the table, else the intermediate it is for and what it is asked by."""
        same = next((known for known, table in self._tables.items() if table == struct), None)
        if same is not None and not node.name:
            return same
        key = node.key
        last = key._path[-1] if isinstance(key, e.Reference) and key._path else None
        if isinstance(key, e.Reference) and isinstance(key._root, e.LetRoot) and not key._path:
            last = self._name_of(key._root)
        by = f"By{last[:1].upper()}{last[1:]}" if isinstance(last, str) and last.isidentifier() else "ByValue"
        bases = [f"b{by[1:]}"]
        if node.name:
            bases = [_camel(node.name), f"{_camel(node.name)}{by}"]
        elif self._lets_open:
            bases = [f"{self._name_of(self._lets_open[-1])}{by}"]
        numbered = (f"{bases[-1]}{number}" for number in count(2))
        name = next(one for one in chain(bases, numbered) if self._is_free(one, struct))
        self._tables[name] = struct
        return name

    def _is_free(self, name: str, struct: cue.Expr) -> bool:
        taken = name in self._avoid | self._loop_names or name in self._names.values()
        return not taken and self._tables.get(name, struct) == struct

    def _boolean(self, node: e.Expression, operator: str) -> cue.Expr:
        typed = self.expression(node)
        if typed.type.known and typed.type.types != {"boolean"}:
            self._problem(
                f"{describe(node)} is not a condition ({_may_be(typed.type)}), which {operator} needs",
                _place_of(node),
            )
        return typed.cue

    # ------------------------------------------------------------------ operators

    def _operation(self, node: e.Operation) -> Typed:
        if node.op in {"&&", "||"}:
            return Typed(self._logical(node), JsonType("boolean"))
        left_typed, right_typed = self.expression(node.left), self.expression(node.right)
        result = self._result_of(node, left_typed.type, right_typed.type)
        return Typed(cue.Binary(node.op, left_typed.cue, right_typed.cue), result)

    def _logical(self, node: e.Operation) -> cue.Expr:
        """Both sides of CUE's ``&&`` and ``||`` are evaluated: a side that needs the other goes behind a guard."""
        symbol = "&" if node.op == "&&" else "|"
        left = self._boolean(node.left, symbol)
        sure = _asserted(node.left) if node.op == "&&" else _denied(node.left)
        with self._assumed(sure):
            right = self._boolean(node.right, symbol)
        if not any(_mentions(node.right, one) for one in sure):
            return cue.Binary(node.op, left, right)
        if node.op == "||":
            return cue.Index(
                cue.ListLit((cue.Comprehension((cue.Guard(left),), _yielded(cue.Lit(True))), right)), cue.Lit(0)
            )
        with self._guarded(node) as clauses:
            both = cue.Comprehension(clauses, _yielded(cue.Lit(True)))
        return cue.Index(cue.ListLit((both, cue.Lit(False))), cue.Lit(0))

    def _result_of(self, node: e.Operation, left: Type, right: Type) -> Type:
        if node.op in {"==", "!="}:
            self._comparable(node, left, right)
            return JsonType("boolean")
        if node.op in {"+", "-", "*", "/"}:
            texts = node.op == "+" and _TEXT in (left.types, right.types)
            for side, of in ((left, node.left), (right, node.right)):
                if side.types - (_TEXT if texts else _NUMBERS):
                    what = "text" if texts else "number"
                    self._problem(
                        f"{describe(of)} is not a {what} ({_may_be(side)}), which {node.op} needs",
                        _place_of(of),
                    )
            if texts:
                return JsonType("string")
            if node.op == "/" and right.enum and all(value == 0 for value in right.enum):
                self._problem("nothing can be divided by 0", _place_of(node))
            whole = left.types == right.types == {"integer"} and node.op != "/"
            return JsonType("integer") if whole else JsonType("number")
        if (
            left.known
            and right.known
            and not ((left.types <= _NUMBERS and right.types <= _NUMBERS) or left.types == right.types == _TEXT)
        ):
            self._problem(f"{describe(node.left)} and {describe(node.right)} can't be ordered with {node.op}")
        return JsonType("boolean")

    def _comparable(self, node: e.Operation, left: Type, right: Type) -> None:
        if left.known and right.known:
            both = left.types & right.types or (left.types & _NUMBERS and right.types & _NUMBERS)
            if not both and {"null"} not in (left.types, right.types):
                self._problem(f"{describe(node.left)} and {describe(node.right)} are never of the same type")
        for of, one, other in ((node.left, left, right), (node.right, right, left)):
            if one.enum and len(other.enum) == 1 and not has(one.enum, other.enum[0]):
                if isinstance(of, e.Constant):
                    continue
                names = tuple(map(str, one.enum))
                self._problem(f"{describe(of)} is never {other.enum[0]!r}{_did_you_mean(str(other.enum[0]), names)}")

    # ------------------------------------------------------------------ functions

    def _call(self, node: e.Function) -> Typed:
        args = [self.expression(arg) for arg in node.args]
        for number, (takes, arg, typed) in enumerate(zip(node.library.arguments, node.args, args, strict=True)):
            self._argument(node.library.word, takes, arg, typed, args[0].type)
            if takes.replaces:
                self._groups(node.library.word, args[number - 1].type, typed.type, _place_of(arg))
        return Typed(node.library.call([one.cue for one in args]), node.library.gives([one.type for one in args]))

    def _argument(self, word: str, takes: Takes, arg: e.Expression, typed: Typed, first: Type) -> None:
        place = _place_of(arg)
        what = f"{word}: {describe(arg)}"
        hint = ""
        if takes.types and typed.type.known:
            wrong = {one for one in typed.type.types if one not in takes.types}
            if wrong:
                if word == "contains" and wrong == _TEXT:
                    hint = "write contains_text(text, part)"
                elif takes.types == _TEXT and wrong <= _NUMBERS | {"boolean"}:
                    hint = 'write as_string(…), or f"{…}"'
                self._problem(f"{what} may be {a(wrong)}, and {takes.name} takes {a(takes.types)}", place, hint=hint)
                return
        inside = typed.type.items
        if takes.items and inside.known and (wrong := {one for one in inside.types if one not in takes.items}):
            self._problem(f"{what} may hold {a(wrong)}, and {takes.name} takes a list of {_plural(takes.items)}", place)
        if (
            takes.filled
            and typed.type.known
            and typed.type.at_least == 0
            and not self._is_present(cue.Index(typed.cue, cue.Lit(0)))
        ):
            self._problem(
                f"{what} may be an empty list, of which there is no {word}",
                place,
                hint=f"write cases((length(…) > 0, {word}(…)), otherwise=…), or minItems in the schema",
            )
        if takes.of_first and first.items.known and typed.type.known:
            self._never_in(what, first.items, typed.type, place)
        if takes.not_zero and typed.type.enum and not any(typed.type.enum):
            self._problem("nothing can be divided by 0", place)
        if takes.pattern:
            for pattern in typed.type.enum:
                self._compile_pattern(str(pattern), word, place)

    def _never_in(self, what: str, items: Type, item: Type, place: Place | None) -> None:
        if not (items.types & item.types or (items.types & _NUMBERS and item.types & _NUMBERS)):
            self._problem(f"{what} is never in the list, whose items are {_plural(items.types)}", place)
        elif items.enum and item.enum and not any(has(items.enum, one) for one in item.enum):
            names = tuple(map(str, items.enum))
            self._problem(f"{what} is never in the list{_did_you_mean(str(item.enum[0]), names)}", place)

    def _compile_pattern(self, pattern: str, word: str, place: Place | None) -> None:
        # A compiled library, which few definitions need.
        import re2

        options = re2.Options()
        options.log_errors = False
        try:
            re2.compile(pattern, options)
        except re2.error as error:
            reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
            self._problem(f"{word}: {pattern!r} is not valid RE2, which CUE takes: {reason}", place)

    def _groups(self, word: str, patterns: Type, texts: Type, place: Place | None) -> None:
        """A problem where a constant text names groups in another way than Go does, or a group that there is not."""
        if len(patterns.enum) != 1 or len(texts.enum) != 1:
            return
        text = str(texts.enum[0])
        if re.search(r"\\\d", text):
            self._problem(f"{word}: {text!r} names a group as Python does", place, hint="write ${1}")
        try:
            # What RE2 calls a group is one to Python too, in a pattern that is of both.
            groups = re.compile(str(patterns.enum[0]))
        except re.error:
            return
        known = {str(number) for number in range(groups.groups + 1)} | groups.groupindex.keys()
        for braced, bare in re.findall(r"\$(?:\$|\{(\w+)\}|(\w+))", text):
            name = braced or bare
            if name and name not in known:
                hint = "${1} ends the name: $1x is the group 1x" if bare and bare[0].isdigit() else ""
                self._problem(f"{word}: {str(patterns.enum[0])!r} has no group {name!r}", place, hint=hint)

    def _sorted(self, node: e.Sorted) -> Typed:
        items = self.expression(node.items)
        self._argument("sort_by", SORT.arguments[0], node.items, items, items.type)
        gives = SORT.gives([items.type])
        if node.key is None:
            self._orderable(items.type.items, "the items")
            order = cue.Selector(cue.Package("list"), "Descending" if node.descending else "Ascending")
            return Typed(cue.call("list", "Sort", items.cue, order), gives)
        sides: list[cue.Expr] = []
        for name in ("x", "y"):
            root = e.LoopRoot(name, items.type.items)
            self._variables.append(root)
            others, self._found = self._found, []
            key = self.expression(self.wrapped(self._made(node.key, [e.Reference(root)], "sort_by")))
            self._variables.pop()
            self._orderable(key.type, "what the function gives")
            # What is wrong with one side is wrong with the other.
            self._found = others if sides else [*others, *self._found]
            sides.append(key.cue)
        if node.descending:
            sides.reverse()
        fields = [cue.Field(cue.Name(name), cue.TOP) for name in ("x", "y")]
        less = cue.Field(cue.Name("less"), cue.Binary("<", sides[0], sides[1]))
        return Typed(cue.call("list", "Sort", items.cue, cue.Struct((*fields, less))), gives)

    def _orderable(self, of: Type, what: str) -> None:
        if of.known and not (of.types <= _NUMBERS or of.types == _TEXT):
            self._problem(f"sort_by orders numbers or texts, and {what} may be {a(of.types)}")

    def _interpolation(self, parts: Sequence[str | e.Expression]) -> cue.Interpolation:
        compiled: list[str | cue.Expr] = []
        for part in parts:
            if isinstance(part, str):
                compiled.append(part)
                continue
            typed = self.expression(part)
            wrong = typed.type.types - _SCALARS
            if wrong:
                self._problem(
                    f"{describe(part)} may be {a(wrong)}, so it can't stand inside a text, as a text or a number can",
                    _place_of(part),
                )
            compiled.append(typed.cue)
        return cue.Interpolation(tuple(compiled))

    # ------------------------------------------------------------------ references

    def _reference(self, node: e.Reference) -> Typed:
        match node._root:
            case e.LetRoot() as root:
                kind = self._let(root)
                at = cue.Ident(self._let_name(self._name_of(root)))
            case e.LoopRoot() as root:
                at, kind = cue.Ident(root.name), root.type
                if root not in self._variables:
                    self._problem(
                        f"{root.name} of an each(…) is not there: an intermediate is computed before all loops"
                        if self._lets_open
                        else f"{root.name} is used outside its each(…)"
                    )
            case e.StepRoot() as root:
                return self._step_reference(root, node)
            case _ if node._root.name == "parameter":
                at, kind = cue.Ident("parameter"), self._parameter
            case _:
                return self._context_reference(node)
        return self._follow(at, kind, node._path, has_to_exist=True)

    def _step_reference(self, root: e.StepRoot, node: e.Reference) -> Typed:
        return self._follow(cue.Ident(root.name), UNKNOWN, node._path, has_to_exist=True)

    def _context_reference(self, node: e.Reference) -> Typed:
        if not node._path:
            return Typed(cue.Ident("context"), UNKNOWN)
        first, *rest = node._path
        if not isinstance(first, str) or first not in CONTEXT:
            self._problem(f"context has no {first!r}{_did_you_mean(str(first), tuple(CONTEXT))}")
            return Typed(cue.Ident("context"), UNKNOWN)
        if first not in self._context:
            where = "not where KubeVela computes a status"
            if first in STEP_CONTEXT | MESSAGE_CONTEXT:
                where = "only in a workflow step" if first in STEP_CONTEXT else "only in the message of a status"
            self._problem(
                f"context.{first} is there {where}: here context has {', '.join(sorted(self._context))}",
                hint='write first_given(context.output.metadata.namespace, "")' if first == "namespace" else "",
            )
            return Typed(cue.Ident("context"), UNKNOWN)
        kind = self._objects.get(first, JsonType(CONTEXT[first]) if CONTEXT[first] else UNKNOWN)
        at = cue.Selector(cue.Ident("context"), first)
        # KubeVela writes outputs only where there are some.
        if first not in _ALWAYS_IN_CONTEXT or (first == "outputs" and not rest):
            self._demand(at)
        # Below metadata and the like nothing is declared, so nothing can be demanded.
        strict = first in {"output", "outputs", "status", "components"}
        return self._follow(at, kind, tuple(rest), has_to_exist=strict)

    def _follow(self, at: cue.Expr, kind: Type, path: Sequence[str | e.Expression], *, has_to_exist: bool) -> Typed:
        present = True
        for part in path:
            if not isinstance(part, str):
                at, kind, is_there = self._index(at, kind, part)
                present = present and (is_there or self._is_present(at))
                continue
            member = kind.member(part)
            if member is None:
                what = _short(at)
                if kind.known and "object" not in kind.types:
                    self._problem(f"{what} is {a(kind.types)}: it has no field {part!r}")
                else:
                    self._problem(f"{what} has no {part!r}{_did_you_mean(part, kind.names)}")
                return Typed(cue.Selector(at, part), UNKNOWN)
            at, kind = cue.Selector(at, part), member.type
            present = present and (member.present or self._is_present(at))
        if has_to_exist and not present:
            self._demand(at)
        return Typed(at, kind)

    def _index(self, at: cue.Expr, kind: Type, key: e.Expression) -> tuple[cue.Expr, Type, bool]:
        """``at[key]``, what it is, and whether it is there in any case: a list may be shorter than that."""
        index = self.expression(key)
        found = cue.Index(at, index.cue)
        numbers, texts = bool(index.type.types & _NUMBERS), "string" in index.type.types
        if index.type.known and not (index.type.types <= {"integer"} or index.type.types == _TEXT):
            self._problem(
                f"{describe(key)} may be {a(index.type.types)}, and a list is asked by number, an object by name"
            )
        elif kind.known and not (("array" in kind.types and not texts) or ("object" in kind.types and not numbers)):
            self._problem(f"{_short(at)} is {a(kind.types)}: it has no {_short(found)}")
            return found, UNKNOWN, True
        if numbers:
            number = index.type.enum[0] if len(index.type.enum) == 1 else None
            if isinstance(number, int) and number < 0:
                self._problem(f"CUE counts from the start of a list: there is no [{number}]")
            return found, kind.items, isinstance(number, int) and number < kind.at_least
        return found, kind.values, False

    def _demand(self, at: cue.Expr) -> None:
        if not self._is_present(at):
            item = at
            while (
                isinstance(item, cue.Selector) and not isinstance(item.of, cue.Ident) and not self._is_present(item.of)
            ):
                item = item.of
            self._problem(
                f"{_short(at)}{_MAY_BE_ABSENT}",
                self._use(),
                hint="write optional(…) for the field, when(given(…)) around it, or first_given(…, default)"
                if not isinstance(item, cue.Index)
                else "write when(length(…) > …) around it, or first_given(…, default)",
            )

    def _is_present(self, at: cue.Expr) -> bool:
        return any(at in known for known in self._present)

    # ------------------------------------------------------------------ intermediates

    def _let(self, root: e.LetRoot) -> Type:
        if root in self._lets_open:
            self._problem(f"let({self._name_of(root)}) refers to itself", root.place)
            return UNKNOWN
        known = self._lets.get(id(root))
        if known is not None:
            return known[2]
        name = self._name_of(root)
        self._lets_open.append(root)
        # An intermediate is computed before all conditions, so it can't rely on any.
        saved, self._present = self._present, [set()]
        loops, self._loops = self._loops, 0
        variables, self._variables = self._variables, []
        others, self._found = self._found, []
        value = root.value
        doc: tuple[str, ...] = ()
        if isinstance(value, Marked) and value.word == "comment":
            value, doc = value.value, lines_of(value.comment)
        with self._used(root.place):
            typed = self.expression(self.wrapped(value))
        self._firm += self._found
        self._found = others
        self._present, self._loops, self._variables = saved, loops, variables
        self._lets_open.pop()
        self._lets[id(root)] = (root, self._let_decl(name, self._own_list(typed), doc), typed.type)
        return typed.type

    def _own_list(self, typed: Typed) -> cue.Expr:
        """The value, embedded where it may be a list that lies inside an intermediate.

        CUE 0.14 (evalv3) lets two places share one value, and then can't say the path of what lies in a list of it:
        vela of KubeVela 1.11, which asks for every path (kubevela/pkg cue/util, Iterate), panics. What is embedded is
        not shared. vela-core runs without evalv3.
        """
        root = _root_of(typed.cue)
        inside = isinstance(typed.cue, (cue.Selector, cue.Index)) or root in self._loop_names
        if (
            self._lets_as != "let"
            or not root
            or root in {"parameter", "context", *self._users_own}
            or not inside
            or (typed.type.known and "array" not in typed.type.types)
        ):
            return typed.cue
        return cue.Struct((cue.Embed(typed.cue),))

    def _name_of(self, root: e.LetRoot) -> str:
        """The name in CUE: the variable's in camel case, with a number where another intermediate or a field has it."""
        known = self._names.get(id(root))
        if known is not None:
            return known
        if not isinstance(root.name, str) or not e.is_constant(root.name):
            self._problem("the name of an intermediate is a constant text", root.place)
            base = "value"
        else:
            base = _camel(root.name)
        name, number = base, 1
        while name in self._avoid | self._loop_names or name in self._names.values() or name in self._tables:
            number += 1
            name = f"{base}{number}"
        self._names[id(root)] = name
        return name

    def _let_name(self, name: str) -> str:
        return LETS[self._lets_as] + name

    def _let_decl(self, name: str, value: cue.Expr, doc: tuple[str, ...] = ()) -> cue.Decl:
        label = self._let_name(name)
        if self._lets_as == "let":
            return cue.LetDecl(label, value, doc)
        return cue.Field(cue.Name(label), value, doc=doc)

    def intermediates(self) -> tuple[cue.Decl, ...]:
        """The tables and lets that the bodies compiled so far use, in the order they need each other."""
        tables = tuple(self._let_decl(name, table) for name, table in self._tables.items())
        return (*tables, *(decl for _, decl, _ in self._lets.values()))

    def clashes(self, *nodes: cue.Node) -> frozenset[str]:
        """The fields of *nodes* that are called as an intermediate is: CUE takes no such pair."""
        if self._lets_as != "let":
            return frozenset()
        fields = {
            one.label if isinstance(one.label, str) else one.label.name
            for node in nodes
            for one in node.walk()
            if isinstance(one, cue.Field) and isinstance(one.label, (str, cue.Name))
        }
        return frozenset(fields & {*self._names.values(), *self._tables})

    # ------------------------------------------------------------------ guards, loops, places

    @contextmanager
    def _guarded(self, condition: e.Expression | None) -> Iterator[tuple[cue.Node, ...]]:
        """The clauses of *condition*; inside, what it asserts to be given is present."""
        clauses: list[cue.Node] = []
        with self._assumed([]):
            for part in chain.from_iterable(map(self._spelled_out, _conjunction(condition))):
                compiled = self._boolean(part, "when")
                clauses.append(cue.Guard(compiled))
                self._present[-1].update(self._ways(_asserted(part)))
            yield tuple(clauses)

    def _spelled_out(self, part: e.Expression) -> Iterator[e.Expression]:
        """``given(x)`` and ``x == "Ready"`` for ``first_given(x, "") == "Ready"``: the same in a row of guards."""
        match part:
            case e.Operation(
                op="==", left=e.FirstGiven(values=(e.Reference() as of, default)), right=e.Constant(value=wanted)
            ) if isinstance(default, str) and isinstance(wanted, str) and default != wanted and e.is_constant(default):
                others, self._found = self._found, []
                self.expression(of)
                may_be_absent, self._found = bool(self._found), others
                if may_be_absent:
                    yield e.Given(of)
                    yield e.Operation("==", of, part.right)
                    return
        yield part

    @contextmanager
    def _given(self, value: e.Value, path: str) -> Iterator[tuple[cue.Node, ...]]:
        """Clauses that ask for all that *value* refers to and that may be absent; there must be such a thing."""
        with self._asked_for(value, path) as clauses:
            if not clauses:
                self._always_exists(path)
            yield clauses or (cue.Guard(cue.Lit(True)),)

    def _always_exists(self, path: str) -> None:
        self._problem(
            f"{path}: all that this value refers to always exists", hint="leave out optional(…) or first_given(…)"
        )

    @contextmanager
    def _asked_for(self, value: e.Value, path: str) -> Iterator[tuple[cue.Node, ...]]:
        """Clauses that ask for what *value* refers to and that may be absent; inside it is present."""
        clauses: list[cue.Node] = []
        try:
            references = _references(value)
        except MisuseError as error:
            self._problem(f"{path}: {error}")
            references = []
        with self._assumed([]):
            for reference in references:
                others, self._found = self._found, []
                compiled = self.expression(reference)
                found, self._found = self._found, others
                # What is wrong in another way is told where it is used, and not that it always exists.
                if found:
                    clauses.append(cue.Guard(cue.present(compiled.cue)))
                    self._present[-1].update(self._ways([reference]))
            yield tuple(clauses)

    @contextmanager
    def _assumed(self, nodes: Sequence[e.Expression]) -> Iterator[None]:
        self._present.append(self._ways(nodes))
        try:
            yield
        finally:
            self._present.pop()

    def _silently(self, node: e.Expression) -> cue.Expr:
        others, self._found = self._found, []
        compiled = self.expression(node).cue
        self._found = others
        return compiled

    def _ways(self, nodes: Sequence[e.Expression]) -> set[cue.Expr]:
        """References and all that lies on their way."""
        found: set[cue.Expr] = set()
        for node in nodes:
            at: cue.Expr = self._silently(node)
            while isinstance(at, (cue.Selector, cue.Index)):
                found.add(at)
                at = at.of
        return found

    @contextmanager
    def _loop(
        self, source: Typed, make: Callable[..., e.Value], *, always_two: bool = False
    ) -> Iterator[tuple[list[str], list[e.Reference]]]:
        kind = source.type
        names = self._names_of(make, always_two=always_two)
        self._loops += 1
        if self._loops > 1:
            names = [f"{name}{self._loops}" for name in names]
        is_list = "array" in kind.types
        element = kind.items if is_list else kind.values
        types: list[Type] = [JsonType("integer" if is_list else "string"), element]
        roots = [e.LoopRoot(name, type_) for name, type_ in zip(names, types[-len(names) :], strict=True)]
        # What is looped over has an entry under each of its keys.
        entry: set[cue.Expr] = {cue.Index(source.cue, cue.Ident(names[0]))} if len(names) == 2 else set()
        self._present.append(entry)
        self._variables += roots
        if _root_of(source.cue) in {"parameter", "context", *self._users_own}:
            self._users_own.update(names)
        else:
            self._users_own.difference_update(names)
        try:
            yield names, [e.Reference(root) for root in roots]
        finally:
            del self._variables[-len(roots) :]
            self._present.pop()
            self._loops -= 1

    def _names_of(self, function: Callable[..., object], *, always_two: bool) -> list[str]:
        """The function's own argument names, in CUE's manner: that is what the reader of the CUE should see."""
        written = parameters_of(function)
        count = 2 if always_two or len(written) == 2 else 1
        if len(written) != count:
            written = ["key", "value"][-count:]
        names = [_camel(name.strip("_") or "item") for name in written]
        # sort_by calls what it compares x and y; an intermediate of the name would be hidden.
        names = [f"{name}1" if name in _TAKEN or name in self._names.values() else name for name in names]
        self._loop_names.update(names)
        return names

    def _made(self, function: Callable[..., e.Value], variables: Sequence[e.Reference], word: str) -> e.Value:
        """What an author's function gives; what goes wrong in it is a problem at its line."""
        wanted = len(parameters_of(function))
        if wanted not in {0, len(variables)} or (wanted == 0 and not _takes_any(function)):
            takes = "one argument" if len(variables) == 1 else f"{len(variables)} arguments"
            self._problem(f"the function of {word} takes {takes}, and this one {wanted}", function_place(function))
            return None
        try:
            return function(*variables)
        except Exception as error:  # an author's code may raise anything
            self._problem(e.readable(sentence(error)), blamed(error))
            return None

    @contextmanager
    def _at(self, place: Place) -> Iterator[None]:
        self._places.append(place if place.line is not None else self._places[-1])
        try:
            yield
        finally:
            self._places.pop()

    @contextmanager
    def _used(self, spot: Spot | None) -> Iterator[None]:
        """What is compiled inside is written to the field, item or condition at *spot*."""
        known = spot is not None and spot.line is not None
        self._uses.append(spot if spot is not None and known else self._uses[-1])
        self._places.append(spot if spot is not None and known else self._places[-1])
        try:
            yield
        finally:
            self._places.pop()
            self._uses.pop()

    def _use(self) -> Place:
        """Where a value is wrong for its use: its own line if it stands there, else the line that uses it."""
        use, own = self._uses[-1], self._places[-1]
        return own if use.line is None or use.holds(own) else use

    def _problem(self, message: str, place: Place | None = None, *, hint: str = "") -> None:
        where = place if place is not None and place.line is not None else self._places[-1]
        if isinstance(where, Spot):
            where = Place(where.file, where.line, where.column)
        problem = Problem(e.readable(message), where, e.readable(hint))
        if problem not in self._found:
            self._found.append(problem)


# ---------------------------------------------------------------- what conditions say


def _conjunction(condition: e.Expression | None) -> list[e.Expression]:
    """The parts of ``a & b & c``: as clauses in a row, a later one is only evaluated where the earlier ones hold."""
    if condition is None:
        return []
    if isinstance(condition, e.Operation) and condition.op == "&&":
        return [*_conjunction(condition.left), *_conjunction(condition.right)]
    return [condition]


def _asserted(condition: e.Expression) -> list[e.Expression]:
    """What certainly exists where *condition* holds."""
    match condition:
        case e.Operation(op="&&", left=left, right=right):
            return [*_asserted(left), *_asserted(right)]
        case e.Operation():
            return _items_of(condition)
        case e.Given(of=of):
            return _references(of)
        case e.Not(of=of):
            return _denied(of)
        case e.Reference(_root=e.LetRoot(value=value), _path=()) if isinstance(value, e.Expression):
            return _asserted(value)
    return []


def _denied(condition: e.Expression) -> list[e.Expression]:
    """What certainly exists where *condition* does not hold."""
    match condition:
        case e.Operation(op="||", left=left, right=right):
            return [*_denied(left), *_denied(right)]
        case e.Operation(op=op) if op in _OPPOSITE:
            return _items_of(e.Operation(_OPPOSITE[op], condition.left, condition.right))
        case e.Not(of=of):
            return _asserted(of)
        case e.Reference(_root=e.LetRoot(value=value), _path=()) if isinstance(value, e.Expression):
            return _denied(value)
    return []


_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
#: The items of a list that a condition on its length can name.
_MOST_ITEMS = 32


def _items_of(condition: e.Operation) -> list[e.Expression]:
    """The items that exist where ``length(list) > 1`` and the like hold."""
    match condition:
        case e.Operation(left=e.Function(library=library, args=(of,)), right=e.Constant(value=int(number))) if (
            library is LIBRARY["length"]
        ):
            least = {">": number + 1, ">=": number, "==": number}.get(condition.op, 0)
            if condition.op == "!=" and number == 0:
                least = 1
            return [of[index] for index in range(min(least, _MOST_ITEMS))]
    return []


def _mentions(value: object, node: e.Expression) -> bool:
    """Whether *value* refers to *node* or below it, in branches and conditions too."""
    return any(_is_below(one, node) for one in _all_references(value))


def _is_below(one: e.Expression, node: e.Expression) -> bool:
    if isinstance(one, e.Reference) and isinstance(node, e.Reference):
        above = node._path
        return (
            one._root is node._root
            and len(one._path) >= len(above)
            and all(_same(left, right) for left, right in zip(above, one._path, strict=False))
        )
    if isinstance(one, e.Item) and isinstance(node, e.Item):
        return one.of is node.of
    return False


def _same(left: str | e.Expression, right: str | e.Expression) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str) and left == right
    if isinstance(left, e.Constant) and isinstance(right, e.Constant):
        return left.value == right.value
    return left is right


def _all_references(value: object) -> Iterator[e.Expression]:
    match value:
        case e.Reference():
            yield value
            for part in value._path:
                yield from _all_references(part)
        case e.Item(of=of, key=key):
            yield value
            yield from _all_references(of)
            yield from _all_references(key)
        case e.Given(of=of) | e.Not(of=of):
            yield from _all_references(of)
        case e.FirstOf(branches=branches):
            for condition, one in branches:
                yield from _all_references(condition)
                yield from _all_references(one)
        case e.FirstGiven(values=values):
            for one in values:
                yield from _all_references(one)
        case e.Choice(key=key, table=table, default=default):
            yield from _all_references(key)
            yield from _all_references(table)
            yield from _all_references(default)
        case e.Sorted(items=items):
            yield from _all_references(items)
        case e.RawCue(parts=parts):
            for part in parts:
                yield from _all_references(part)
        case _:
            yield from _references(value)


def _references(value: object) -> list[e.Expression]:
    """All references in *value*, and items of results, without those that only a branch uses."""
    match value:
        case e.Reference():
            below = [found for part in value._path if isinstance(part, e.Expression) for found in _references(part)]
            return [*below, value]
        case e.Item(of=of, key=key):
            return [*_references(of), *_references(key), value]
        case e.Text(parts=parts) | e.RawCue(parts=parts):
            return [found for part in parts if isinstance(part, e.Expression) for found in _references(part)]
        case e.Operation(left=left, right=right):
            return [*_references(left), *_references(right)]
        case e.Not(of=of):
            return _references(of)
        case e.Function(args=args):
            return [found for arg in args for found in _references(arg)]
        case e.Sorted(items=items):
            return _references(items)
        case e.Choice(key=key):
            return _references(key)
        case e.Provider(params=params) | e.Once(of=e.Provider(params=params)):
            return _references(params)
        case e.Literal(value=inner) | Marked(value=inner) | Optional(value=inner):
            # What is optional asks for itself.
            return [] if isinstance(value, Optional) else _references(inner)
        case When():
            return []
        case Items(source=source) | Each(source=source):
            return _references(source)
        case str():
            parts = e.split_text(value)
            return [found for part in parts if isinstance(part, e.Expression) for found in _references(part)]
        case Mapping():
            return [
                found
                for key, item in value.items()
                for found in (*_references(key), *(_references(item) if isinstance(key, (str, e.Expression)) else ()))
            ]
        case list() | tuple():
            return [found for item in value for found in _references(item)]
    return []


# ---------------------------------------------------------------- small things


def _yielded(value: cue.Expr) -> cue.Expr:
    """What a comprehension yields: a struct as it is, anything else embedded."""
    return value if isinstance(value, cue.Struct) else cue.Struct((cue.Embed(value),))


def _first(items: Sequence[cue.Node]) -> cue.Expr:
    """``[…][0]``; where the last item is such a list of what may be absent, its items stand in its place."""
    *before, last = items
    match last:
        case cue.Index(of=cue.ListLit(items=(*inner, fallback)), index=cue.Lit(value=0)) if all(
            isinstance(one, cue.Comprehension) and all(map(_asks_for_presence, one.clauses)) for one in inner
        ) and not isinstance(fallback, cue.Comprehension):
            return cue.Index(cue.ListLit((*before, *inner, fallback)), cue.Lit(0))
    return cue.Index(cue.ListLit(tuple(items)), cue.Lit(0))


def _asks_for_presence(clause: cue.Node) -> bool:
    """Whether it is a guard that never fails, whatever else holds."""
    return isinstance(clause, cue.Guard) and (
        clause.condition == cue.present(clause.condition.left) if isinstance(clause.condition, cue.Binary) else False
    )


def _plain(key: e.Expression) -> str | e.Expression:
    return key.value if isinstance(key, e.Constant) and isinstance(key.value, str) else key


def _place_of(node: e.Expression) -> Place | None:
    return node._place if node._place.line is not None else None


def _spot_of(key: object) -> Place | None:
    place = getattr(key, "place", None)
    return place if isinstance(place, Place) else None


def parameters_of(function: Callable[..., object]) -> list[str]:
    """The names of the arguments that must be given by position; none for what Python can't look into."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        one.name
        for one in signature.parameters.values()
        if one.kind in kinds and one.default is inspect.Parameter.empty
    ]


def _takes_any(function: Callable[..., object]) -> bool:
    try:
        kinds = {one.kind for one in inspect.signature(function).parameters.values()}
    except (ValueError, TypeError):
        return True
    return inspect.Parameter.VAR_POSITIONAL in kinds


def function_place(function: Callable[..., object]) -> Place | None:
    """Where a Python function begins, where it is an author's."""
    code = getattr(function, "__code__", None)
    return start_of(code) if code is not None else None


def lines_of(comment: str) -> tuple[str, ...]:
    """A comment in lines that can be read."""
    return tuple(textwrap.wrap(comment, _COMMENT_WIDTH))


_COMMENT_WIDTH = 110


def _root_of(expr: cue.Expr) -> str:
    """The name that a reference begins with; empty for anything else."""
    while isinstance(expr, (cue.Selector, cue.Index)):
        expr = expr.of
    return expr.name if isinstance(expr, cue.Ident) else ""


def _camel(name: str) -> str:
    """A Python name in CUE's manner; ``value`` where CUE has no such name."""
    words = [word for word in name.strip("_").split("_") if word]
    if len(words) > 1 or name.isupper():
        words = [word.lower() if word.isupper() else word for word in words]
    found = "".join([*words[:1], *(word[:1].upper() + word[1:] for word in words[1:])])
    found = found[:1].lower() + found[1:]
    return found if re.fullmatch(r"[a-z][A-Za-z0-9]*", found) else "value"


def describe(node: e.Expression) -> str:
    """A leaf in a message."""
    match node:
        case e.Reference():
            return repr(node)
        case e.Constant(value=value):
            return repr(value)
        case e.Text():
            return "the text"
        case e.Literal(value=value):
            return "the object" if isinstance(value, Mapping) else "the list"
    return "the expression"


def _short(at: cue.Expr) -> str:
    """CUE in a message, where it can be read in one."""
    text = cue.to_cue(at)
    return text if len(text) <= 80 and "\n" not in text else "the expression"


def _may_be(of: Type) -> str:
    return f"it may be {a(of.types)}"


def _plural(types: Collection[str]) -> str:
    words = {"array": "lists", "boolean": "booleans", "null": "nulls"}
    return " or ".join(sorted(words.get(one, f"{one}s") for one in types))


def _did_you_mean(word: str, names: Sequence[str]) -> str:
    close = get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(names)[:12])}" if 0 < len(names) <= 12 else ""
