"""Templates to CUE: every reference checked against the schema, every field against the object it goes to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from velagen import cue
from velagen.errors import Place, Problem
from velagen.template import expression as e
from velagen.template.body import Each, If, Items, Marked, Never, Optional, Refusal, When
from velagen.template.types import UNKNOWN, JsonType, Member, ObjectType, SchemaType, Type, misfits

if TYPE_CHECKING:
    from velagen.schema import Shape

#: Finds the OpenAPI schema of an object; None where nobody knows the kind.
ObjectSchemas = Callable[[str, str], Mapping[str, object] | None]

#: Source: kubevela pkg/cue/process/keyword.go, and context.go of the health checks for ``status``.
_CONTEXT = {
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
    "artifacts": "",
    "metadata": "",
    "installer": "",
}
_MAY_BE_ABSENT = " may be absent here"
#: What a rule of ``status`` is told. Source: kubevela pkg/cue/definition/template.go, GetBaseContextLabels and
#: getTemplateContext.
STATUS_CONTEXT = frozenset({"name", "appName", "appRevision", "output", "outputs"})
_ALWAYS_IN_CONTEXT = frozenset({"name", "appName", "namespace", "appRevision", "output", "outputs", "metadata"})


@dataclass(frozen=True)
class Typed:
    """A compiled expression and what is known of its value."""

    cue: cue.Expr
    type: Type


class TemplateCompiler:
    """Compiles the bodies of one definition; problems are collected in :attr:`problems`.

    *parameter* is what the user may write, *output* the object that ``context.output`` holds where it is known,
    *object_schemas* finds the schemas of the objects that bodies write. With *lets_are_fields* an intermediate is
    written as a field ``$name``, for status details, where KubeVela allows nothing else (kubevela
    pkg/definition/ast/transformer.go). *context* are the keys that KubeVela's context has there.
    """

    def __init__(
        self,
        *,
        parameter: Type,
        output: Type = UNKNOWN,
        object_schemas: ObjectSchemas,
        lets_are_fields: bool = False,
        context: Collection[str] = frozenset(_CONTEXT),
    ) -> None:
        self.problems: list[Problem] = []
        self._lets_are_fields = lets_are_fields
        self._parameter = parameter
        self._output = output
        self._object_schemas = object_schemas
        self._context = context
        #: CUE text of references known to exist here.
        self._present: list[set[str]] = [set()]
        self._lets: dict[str, tuple[e.LetRoot, cue.Decl, Type]] = {}
        self._lets_open: list[str] = []
        self._tables: dict[str, cue.Expr] = {}
        self._loops = 0
        #: Definition lines, innermost last: where a problem is reported if its node knows no line.
        self._places: list[Place] = [Place()]

    # ------------------------------------------------------------------ bodies

    def manifest(self, body: e.Value, *, what: str) -> cue.Expr:
        """The body of a whole object, checked against the schema of its apiVersion and kind; *what* names it."""
        kind_of = Type()
        if isinstance(body, Mapping):
            api_version, kind = body.get("apiVersion"), body.get("kind")
            if isinstance(api_version, str) and isinstance(kind, str):
                schema = self._object_schemas(api_version, kind)
                if schema is None:
                    self._problem(
                        f"{what}: nothing is known of {kind} in {api_version}, so its fields can't be checked",
                        hint="put its CustomResourceDefinition into crds/ of the project, or mend the name",
                    )
                else:
                    kind_of = ObjectType(schema, is_root=True)
        return self.body(body, kind_of, what)

    def manifests(self, bodies: Mapping[object, e.Value], *, what: str) -> cue.Expr:
        """Named objects (``outputs``), each checked as :meth:`manifest` does; If(…) and Each(…) may hold names."""
        return cue.Struct(tuple(self._named_manifests(bodies, what)))

    def _named_manifests(self, bodies: Mapping[object, e.Value], what: str) -> Iterator[cue.Decl]:
        for key, item in bodies.items():
            match key:
                case If():
                    with self._at(key.place), self._guarded(key.condition) as clauses:
                        yield cue.Comprehension(clauses, cue.Struct(tuple(self._named_manifests(item, what))))
                case Each():
                    yield from self._fields({key: item}, UNKNOWN, what)
                case str():
                    yield cue.Field(self._output_label(key), self.manifest(item, what=f"{what}.{key}"))
                case _:
                    self._problem(f"{what}: an object's name is text, not {type(key).__name__}")

    def _output_label(self, key: str) -> cue.Label:
        parts = e.split_text(key)
        return key if all(isinstance(part, str) for part in parts) else self._interpolation(parts)

    def patch(self, body: e.Value, target: Type, *, what: str) -> cue.Expr:
        """The body of a patch of an object of type *target*."""
        return self.body(body, target, what)

    def body(self, value: e.Value, place: Type, path: str) -> cue.Expr:
        """A value that goes to a *place* of the given type, at *path*."""
        match value:
            case Mapping():
                return self._struct(value, place, path)
            case list() | tuple():
                return self._list(value, place, path)
            case Marked():
                return self.body(value.value, place, path)
            case If() | Each() | Items() | When() | Optional() | Never() | Refusal():
                self._problem(f"{path}: {type(value).__name__} can't stand here", getattr(value, "place", None))
                return cue.BOTTOM
        try:
            leaf = e.wrap(value)
        except TypeError as error:
            self._problem(f"{path}: {error}")
            return cue.BOTTOM
        if isinstance(leaf, e.Literal):
            return self.body(leaf.value, place, path)
        with self._at(leaf._place):
            return self._leaf(leaf, place, path)

    def _leaf(self, leaf: e.Expression, place: Type, path: str) -> cue.Expr:
        """An expression in a body; what branches is checked branch by branch."""
        match leaf:
            case e.FirstOf(branches=branches):
                return self._first_of(branches, lambda value: self.body(value, place, path))
            case e.FirstGiven(values=values):
                return self._first_given(values, lambda value: self.body(value, place, path))
        typed = self.expression(leaf)
        for sentence in misfits(typed.type, place):
            self._problem(f"{path}: {_describe(leaf)} does not fit: {sentence}")
        return typed.cue

    def _struct(self, value: Mapping[object, e.Value], place: Type, path: str) -> cue.Expr:
        if place.known and "object" not in place.types:
            self._problem(f"{path}: an object is written where the field takes {' or '.join(sorted(place.types))}")
            place = UNKNOWN
        return cue.Struct(tuple(self._fields(value, place, path)))

    def _fields(self, value: Mapping[object, e.Value], place: Type, path: str) -> Iterator[cue.Decl]:
        for key, item in value.items():
            match key:
                case str():
                    yield from self._field(key, item, place, path)
                case If():
                    if not isinstance(item, Mapping):
                        self._problem(f"{path}: If(…) is followed by fields in a dict", key.place)
                        continue
                    with self._at(key.place), self._guarded(key.condition) as clauses:
                        yield cue.Comprehension(clauses, cue.Struct(tuple(self._fields(item, place, path))))
                case Each():
                    with self._at(key.place):
                        yield self._loop_of_fields(key, item, place, path)
                case e.Expression():
                    yield from self._field(format(key), item, place, path)
                case _:
                    self._problem(f"{path}: a field name is text, not {type(key).__name__}: {key!r}")

    def _field(self, key: str, item: e.Value, place: Type, path: str) -> Iterator[cue.Decl]:
        if isinstance(item, Never):
            # A text, which no struct, list or number unifies with; KubeVela leaves optional fields out of the object.
            yield cue.Field(key, cue.literal(item.message), "?")
            return
        parts = e.split_text(key)
        label: cue.Label
        if len(parts) == 1 and isinstance(parts[0], str):
            label, here = key, f"{path}.{key}"
            member = place.member(key)
        else:
            expressions = [part for part in parts if isinstance(part, e.Expression)]
            here, member = f"{path}.[…]", Member(place.values, present=False)
            computed = self.expression(expressions[0]).cue if len(parts) == 1 else None
            label = self._interpolation(parts) if computed is None else cue.Dynamic(computed)
        if member is None:
            self._problem(f"{here}: there is no such field{_did_you_mean(key, place.names)}", _place_of(item))
            member = Member(UNKNOWN, present=False)
        doc: tuple[str, ...] = ()
        while isinstance(item, Marked):
            doc, item = (*doc, item.comment), item.value
        if isinstance(item, Optional):
            with self._at(item.place), self._given(item.value, here) as clauses:
                yield cue.Comprehension(
                    clauses, cue.Struct((cue.Field(label, self.body(item.value, member.type, here), doc=doc),))
                )
            return
        yield cue.Field(label, self.body(item, member.type, here), doc=doc)

    def _loop_of_fields(self, key: Each, make: e.Value, place: Type, path: str) -> cue.Decl:
        if not callable(make):
            self._problem(f"{path}: Each(…) is followed by a function of key and value", key.place)
            return cue.Comment("")
        with self._asked_for(key.source, path) as asked:
            source = self.expression(key.source)
            with self._loop(source.type, make, always_two=True) as (names, variables):
                loop = cue.For(names[1], source.cue, names[0])
                with self._guarded(key.where(*variables) if key.where else None) as guards:
                    body = make(*variables)
                    if not isinstance(body, Mapping):
                        self._problem(f"{path}: the function of Each(…) gives a dict of fields", key.place)
                        body = {}
                    fields = cue.Struct(tuple(self._fields(body, place, path)))
                    return cue.Comprehension((*asked, loop, *guards), fields)

    def _list(self, value: Sequence[e.Value], place: Type, path: str) -> cue.Expr:
        if place.known and "array" not in place.types:
            self._problem(f"{path}: a list is written where the field takes {' or '.join(sorted(place.types))}")
            place = UNKNOWN
        return cue.ListLit(tuple(self._item(item, place.items, f"{path}[{n}]") for n, item in enumerate(value)))

    def _item(self, item: e.Value, place: Type, path: str) -> cue.Node:
        match item:
            case When():
                with self._at(item.place), self._guarded(item.condition) as clauses:
                    return cue.Comprehension(clauses, _yielded(self.body(item.value, place, path)))
            case Optional():
                with self._at(item.place), self._given(item.value, path) as clauses:
                    return cue.Comprehension(clauses, _yielded(self.body(item.value, place, path)))
            case Items():
                with self._at(item.place), self._asked_for(item.source, path) as asked:
                    source = self.expression(item.source)
                    with self._loop(source.type, item.make) as (names, variables):
                        loop = cue.For(names[-1], source.cue, names[0] if len(names) == 2 else "")
                        where = item.where(*variables[-_arity(item.where) :]) if item.where else None
                        with self._guarded(where) as guards:
                            body = self.body(item.make(*variables), place, path)
                            return cue.Comprehension((*asked, loop, *guards), _yielded(body))
        return self.body(item, place, path)

    # ------------------------------------------------------------------ refusals

    def errs(self, refusals: Sequence[Refusal]) -> cue.Expr:
        """``errs``: KubeVela stops rendering a trait at the first (kubevela pkg/cue/definition/template.go)."""
        items: list[cue.Node] = []
        for refusal in refusals:
            with self._at(refusal.place), self._guarded(refusal.condition) as clauses:
                items.append(cue.Comprehension(clauses, _yielded(self.expression(e.wrap(refusal.message)).cue)))
        return cue.ListLit(tuple(items))

    def conflicts(self, refusals: Sequence[Refusal]) -> Iterator[cue.Decl]:
        """``_checks``: a conflict where a refusal holds, since KubeVela 1.10 heeds no ``errs`` in a component.

        They stand in a field of their own: at the top a condition on ``context`` has no path, and the webhook of
        definitions forgives an unknown ``context`` only where it has one (kubevela pkg/webhook/utils/utils.go).
        """
        checks: list[cue.Decl] = []
        for number, refusal in enumerate(refusals, 1):
            with self._at(refusal.place), self._guarded(refusal.condition) as clauses:
                message = self.expression(e.wrap(refusal.message)).cue
                conflict = cue.Field(cue.Hidden(f"refused{number}"), cue.Binary("&", message, cue.Lit(1)))
                checks.append(cue.Comprehension(clauses, cue.Struct((conflict,))))
        if checks:
            yield cue.Field(cue.Hidden("checks"), cue.Struct(tuple(checks)))

    # ------------------------------------------------------------------ expressions

    def expression(self, node: e.Expression) -> Typed:
        """An expression with its type."""
        with self._at(node._place):
            return self._expression(node)

    def _expression(self, node: e.Expression) -> Typed:
        match node:
            case e.Reference():
                return self._reference(node)
            case e.Constant(value=value):
                return Typed(cue.literal(value), _constant_type(value))
            case e.Text(parts=parts):
                return Typed(self._interpolation(parts), JsonType("string"))
            case e.Literal(value=value):
                kind = JsonType("object" if isinstance(value, Mapping) else "array")
                kind.empty = not value
                return Typed(self.body(value, UNKNOWN, "value"), kind)
            case e.Given(of=of):
                with self._assumed(_references(of)):
                    return Typed(cue.present(self.expression(of).cue), JsonType("boolean"))
            case e.Not(of=e.Given(of=of)):
                with self._assumed(_references(of)):
                    return Typed(cue.absent(self.expression(of).cue), JsonType("boolean"))
            case e.Not(of=of):
                return Typed(cue.Unary("!", self._boolean(of, "~")), JsonType("boolean"))
            case e.Operation():
                return self._operation(node)
            case e.Function():
                return self._call(node)
            case e.FirstOf(branches=branches):
                types: list[Type] = []
                return Typed(self._first_of(branches, self._collecting(types)), _common(types))
            case e.FirstGiven(values=values):
                types = []
                return Typed(self._first_given(values, self._collecting(types)), _common(types))
            case e.Choice():
                return self._choice(node)
            case e.Provider(package=package, name=name, params=params):
                provider = cue.Selector(cue.Package(package), cue.Definition(name.removeprefix("#")))
                given = cue.Struct((cue.Field("$params", self.body(params, UNKNOWN, f"{name}.$params")),))
                return Typed(cue.Binary("&", provider, given), UNKNOWN)
            case e.RawCue(text=text, imports=imports):
                return Typed(cue.Raw(text, imports), UNKNOWN)
        raise TypeError(f"no expression: {type(node).__name__}")

    def _collecting(self, types: list[Type]) -> Callable[[e.Value], cue.Expr]:
        def compile_one(value: e.Value) -> cue.Expr:
            typed = self.expression(e.wrap(value))
            types.append(typed.type)
            return typed.cue

        return compile_one

    def _first_of(
        self, branches: Sequence[tuple[e.Expression | None, e.Value]], compile_one: Callable[[e.Value], cue.Expr]
    ) -> cue.Expr:
        items: list[cue.Node] = []
        for condition, value in branches:
            if condition is None:
                items.append(compile_one(value))
                continue
            with self._guarded(condition) as clauses:
                items.append(cue.Comprehension(clauses, _yielded(compile_one(value))))
        return cue.Index(cue.ListLit(tuple(items)), cue.Lit(0))

    def _first_given(self, values: Sequence[e.Value], compile_one: Callable[[e.Value], cue.Expr]) -> cue.Expr:
        items: list[cue.Node] = []
        for value in values[:-1]:
            with self._given(value, "first_given") as clauses:
                items.append(cue.Comprehension(clauses, _yielded(compile_one(value))))
        items.append(compile_one(values[-1]))
        return cue.Index(cue.ListLit(tuple(items)), cue.Lit(0))

    def _choice(self, node: e.Choice) -> Typed:
        key = self.expression(node.key)
        table = dict(node.table)
        if not node.has_default:
            missing = [one for one in key.type.enum if one not in table]
            if missing or not key.type.enum:
                what = f"has no entry for {', '.join(map(repr, missing))}" if missing else "may be asked for any text"
                self._problem(f"the table of choose({_describe(node.key)}) {what}", hint="add it, or give a default")
        types: list[Type] = []
        compile_one = self._collecting(types)
        struct = cue.Struct(tuple(cue.Field(name, compile_one(value)) for name, value in table.items()))
        name = self._table_name(node.key, struct)
        entry = cue.Index(cue.Ident(self._let_name(name)), key.cue)
        if not node.has_default:
            return Typed(entry, _common(types))
        fallback = compile_one(node.default)
        found = cue.Comprehension((cue.Guard(cue.present(entry)),), _yielded(entry))
        return Typed(cue.Index(cue.ListLit((found, fallback)), cue.Lit(0)), _common(types))

    def _table_name(self, key: e.Expression, struct: cue.Expr) -> str:
        last = key._path[-1] if isinstance(key, e.Reference) and key._path else "value"
        base = f"by{last[:1].upper()}{last[1:]}" if isinstance(last, str) and last.isidentifier() else "table"
        name, number = base, 1
        while self._tables.get(name, struct) != struct:
            number += 1
            name = f"{base}{number}"
        self._tables[name] = struct
        return name

    def _boolean(self, node: e.Expression, operator: str) -> cue.Expr:
        typed = self.expression(node)
        if typed.type.known and "boolean" not in typed.type.types:
            self._problem(f"{_describe(node)} is no condition, so {operator} can't be applied to it")
        return typed.cue

    def _operation(self, node: e.Operation) -> Typed:
        if node.op in {"&&", "||"}:
            symbol = "&" if node.op == "&&" else "|"
            left = self._boolean(node.left, symbol)
            with self._assumed(_asserted(node.left) if node.op == "&&" else []):
                right = self._boolean(node.right, symbol)
            return Typed(cue.Binary(node.op, left, right), JsonType("boolean"))
        left_typed, right_typed = self.expression(node.left), self.expression(node.right)
        result = self._result_of(node, left_typed.type, right_typed.type)
        return Typed(cue.Binary(node.op, left_typed.cue, right_typed.cue), result)

    def _result_of(self, node: e.Operation, left: Type, right: Type) -> Type:
        if node.op in {"==", "!="}:
            self._comparable(node, left, right)
            return JsonType("boolean")
        numbers = frozenset({"integer", "number"})
        if node.op in {"+", "-", "*", "/"}:
            texts = node.op == "+" and "string" in left.types and "string" in right.types
            for side, of in ((left, node.left), (right, node.right)):
                if side.known and not (texts or side.types & numbers):
                    self._problem(f"{_describe(of)} is no number, so {node.op} can't be applied to it")
            if texts:
                return JsonType("string")
            whole = left.types == right.types == frozenset({"integer"}) and node.op != "/"
            return JsonType("integer") if whole else JsonType("number")
        if node.op == "=~":
            if left.known and "string" not in left.types:
                self._problem(f"{_describe(node.left)} is no text, so it can't be matched with a pattern")
            return JsonType("boolean")
        ordered = (left.types & numbers and right.types & numbers) or ("string" in left.types & right.types)
        if left.known and right.known and not ordered:
            self._problem(f"{_describe(node.left)} and {_describe(node.right)} can't be ordered with {node.op}")
        return JsonType("boolean")

    def _comparable(self, node: e.Operation, left: Type, right: Type) -> None:
        if left.known and right.known:
            numbers = frozenset({"integer", "number"})
            if not (left.types & right.types or (left.types & numbers and right.types & numbers)):
                self._problem(f"{_describe(node.left)} and {_describe(node.right)} are never of the same type")
        for of, constant in ((left, right), (right, left)):
            if of.enum and len(constant.enum) == 1 and constant.enum[0] not in of.enum:
                self._problem(
                    f"{_describe(node.left)} is never {constant.enum[0]!r}"
                    f"{_did_you_mean(str(constant.enum[0]), tuple(map(str, of.enum)))}"
                )

    def _call(self, node: e.Function) -> Typed:
        args = tuple(self.expression(arg).cue for arg in node.args)
        function = cue.Selector(cue.Package(node.package), node.name) if node.package else cue.Ident(node.name)
        return Typed(cue.Call(function, args), JsonType(node.result) if node.result else UNKNOWN)

    def _interpolation(self, parts: Sequence[str | e.Expression]) -> cue.Interpolation:
        compiled: list[str | cue.Expr] = []
        for part in parts:
            if isinstance(part, str):
                compiled.append(part)
                continue
            typed = self.expression(part)
            if typed.type.known and not typed.type.types & {"string", "integer", "number", "boolean"}:
                self._problem(f"{_describe(part)} is no text and no number, so it can't stand inside a text")
            compiled.append(typed.cue)
        return cue.Interpolation(tuple(compiled))

    # ------------------------------------------------------------------ references

    def _reference(self, node: e.Reference) -> Typed:
        match node._root:
            case e.LetRoot() as root:
                at, kind = cue.Ident(self._let_name(root.name)), self._let(root)
            case e.LoopRoot() as root:
                at, kind = cue.Ident(root.name), root.type
            case _ if node._root.name == "parameter":
                at, kind = cue.Ident("parameter"), self._parameter
            case _ if node._root.name == "context":
                return self._context_reference(node)
            case _:
                return self._follow(cue.Ident(node._root.name), UNKNOWN, node._path, has_to_exist=True)
        return self._follow(at, kind, node._path, has_to_exist=True)

    def _context_reference(self, node: e.Reference) -> Typed:
        if not node._path:
            return Typed(cue.Ident("context"), UNKNOWN)
        first, *rest = node._path
        if not isinstance(first, str) or first not in _CONTEXT:
            self._problem(f"context has no {first!r}{_did_you_mean(str(first), tuple(_CONTEXT))}")
            return Typed(cue.Ident("context"), UNKNOWN)
        if first not in self._context:
            self._problem(
                f"context.{first} is not there where KubeVela computes a status: it has "
                f"{', '.join(sorted(self._context))}",
                hint='write first_given(context.output.metadata.namespace, "")' if first == "namespace" else "",
            )
            return Typed(cue.Ident("context"), UNKNOWN)
        kind = self._output if first == "output" else JsonType(_CONTEXT[first]) if _CONTEXT[first] else UNKNOWN
        at = cue.Selector(cue.Ident("context"), first)
        if first not in _ALWAYS_IN_CONTEXT:
            self._demand(at)
        # Below metadata and the like nothing is declared, so nothing can be demanded.
        strict = first in {"output", "outputs"}
        return self._follow(at, kind, tuple(rest), has_to_exist=strict)

    def _follow(self, at: cue.Expr, kind: Type, path: Sequence[str | e.Expression], *, has_to_exist: bool) -> Typed:
        present = True
        for part in path:
            if not isinstance(part, str):
                index = self.expression(part)
                at = cue.Index(at, index.cue)
                kind = kind.items if "integer" in index.type.types else kind.values
                continue
            member = kind.member(part)
            if member is None:
                what = cue.to_cue(at)
                if kind.known and "object" not in kind.types:
                    self._problem(f"{what} is {' or '.join(sorted(kind.types))}: it has no {part!r}")
                else:
                    self._problem(f"{what} has no {part!r}{_did_you_mean(part, kind.names)}")
                return Typed(cue.Selector(at, part), UNKNOWN)
            at, kind = cue.Selector(at, part), member.type
            present = present and (member.present or self._is_present(at))
        if has_to_exist and not present:
            self._demand(at)
        return Typed(at, kind)

    def _demand(self, at: cue.Expr) -> None:
        if not self._is_present(at):
            self._problem(
                f"{cue.to_cue(at)}{_MAY_BE_ABSENT}",
                hint="write optional(…) for the field, If(given(…)) around it, or first_given(…, default)",
            )

    def _is_present(self, at: cue.Expr) -> bool:
        text = cue.to_cue(at)
        return any(text in known for known in self._present)

    def _let(self, root: e.LetRoot) -> Type:
        if not re.fullmatch(r"[a-z][A-Za-z0-9]*", root.name):
            self._problem(f"let({root.name!r}): the name is one word in camel case", root.place)
        if root.name in self._lets_open:
            self._problem(f"let({root.name!r}) refers to itself", root.place)
            return UNKNOWN
        known = self._lets.get(root.name)
        if known is not None:
            if known[0] is not root:
                self._problem(f"two different intermediates are called {root.name!r}", root.place)
            return known[2]
        self._lets_open.append(root.name)
        # An intermediate is computed before all conditions, so it can't rely on any.
        saved, self._present = self._present, [set()]
        with self._at(root.place):
            typed = self.expression(e.wrap(root.value))
        self._present = saved
        self._lets_open.pop()
        self._lets[root.name] = (root, self._let_decl(root.name, typed.cue), typed.type)
        return typed.type

    def _let_name(self, name: str) -> str:
        return f"${name}" if self._lets_are_fields else name

    def _let_decl(self, name: str, value: cue.Expr) -> cue.Decl:
        label = self._let_name(name)
        return cue.Field(cue.Name(label), value) if self._lets_are_fields else cue.LetDecl(label, value)

    def intermediates(self) -> tuple[cue.Decl, ...]:
        """The tables and lets that the bodies compiled so far use, in the order they need each other."""
        tables = tuple(self._let_decl(name, table) for name, table in self._tables.items())
        return (*tables, *(decl for _, decl, _ in self._lets.values()))

    def check_names(self, node: cue.Node) -> None:
        """Collect a problem for each intermediate that is called as a field of *node* is: CUE takes no such pair."""
        fields = {one.label for one in node.walk() if isinstance(one, cue.Field) and isinstance(one.label, str)}
        for name, (root, _, _) in self._lets.items():
            if name in fields and not self._lets_are_fields:
                self._problem(f"let({name!r}): a field is called {name} too", root.place, hint="choose another name")

    # ------------------------------------------------------------------ guards, loops, places

    @contextmanager
    def _guarded(self, condition: e.Expression | None) -> Iterator[tuple[cue.Node, ...]]:
        """The clauses of *condition*; inside, what it asserts to be given is present."""
        clauses: list[cue.Node] = []
        with self._assumed([]):
            for part in _conjunction(condition):
                compiled = self._boolean(part, "If")
                clauses.append(cue.Guard(compiled))
                self._present[-1].update(self._texts(_asserted(part)))
            yield tuple(clauses)

    @contextmanager
    def _given(self, value: e.Value, path: str) -> Iterator[tuple[cue.Node, ...]]:
        """Clauses that ask for all that *value* refers to and that may be absent; there must be such a thing."""
        with self._asked_for(value, path) as clauses:
            if not clauses:
                self._problem(
                    f"{path}: all that this value refers to always exists",
                    hint="leave out optional(…) or first_given(…)",
                )
            yield clauses or (cue.Guard(cue.Lit(True)),)

    @contextmanager
    def _asked_for(self, value: e.Value, path: str) -> Iterator[tuple[cue.Node, ...]]:
        """Clauses that ask for what *value* refers to and that may be absent; inside it is present."""
        clauses: list[cue.Node] = []
        try:
            references = _references(e.wrap(value) if not isinstance(value, Marked) else value)
        except TypeError as error:
            self._problem(f"{path}: {error}")
            references = []
        with self._assumed([]):
            for reference in references:
                others, self.problems = self.problems, []
                compiled = self.expression(reference)
                found, self.problems = self.problems, others
                if any(problem.message.endswith(_MAY_BE_ABSENT) for problem in found):
                    clauses.append(cue.Guard(cue.present(compiled.cue)))
                    self._present[-1].update(self._texts([reference]))
            yield tuple(clauses)

    @contextmanager
    def _assumed(self, references: Sequence[e.Reference]) -> Iterator[None]:
        self._present.append(self._texts(references))
        try:
            yield
        finally:
            self._present.pop()

    def _texts(self, references: Sequence[e.Reference]) -> set[str]:
        """The references and all that lies on their way, as CUE text."""
        texts: set[str] = set()
        for reference in references:
            at: cue.Expr = cue.Ident(reference._root.name)
            for part in reference._path:
                if isinstance(part, str):
                    at = cue.Selector(at, part)
                else:
                    silent, self.problems = self.problems, []
                    at = cue.Index(at, self.expression(part).cue)
                    self.problems = silent
                texts.add(cue.to_cue(at))
        return texts

    @contextmanager
    def _loop(
        self, kind: Type, make: Callable[..., e.Value], *, always_two: bool = False
    ) -> Iterator[tuple[list[str], list[e.Reference]]]:
        names = _names_of(make, 2 if always_two else _arity(make))
        self._loops += 1
        if self._loops > 1:
            names = [f"{name}{self._loops}" for name in names]
        is_list = "array" in kind.types
        element = kind.items if is_list else kind.values
        types: list[Type] = [JsonType("integer" if is_list else "string"), element]
        roots = [e.LoopRoot(name, type_) for name, type_ in zip(names, types[-len(names) :], strict=True)]
        try:
            yield names, [e.Reference(root) for root in roots]
        finally:
            self._loops -= 1

    @contextmanager
    def _at(self, place: Place) -> Iterator[None]:
        self._places.append(place if place.line is not None else self._places[-1])
        try:
            yield
        finally:
            self._places.pop()

    def _problem(self, message: str, place: Place | None = None, *, hint: str = "") -> None:
        where = place if place is not None and place.line is not None else self._places[-1]
        problem = Problem(message, where, hint)
        if problem not in self.problems:
            self.problems.append(problem)


def parameter_type(shape: Shape) -> Type:
    """The type of ``parameter`` for the shape of a schema."""
    return SchemaType(shape)


def _yielded(value: cue.Expr) -> cue.Expr:
    """What a comprehension yields: a struct as it is, anything else embedded."""
    return value if isinstance(value, cue.Struct) else cue.Struct((cue.Embed(value),))


def _conjunction(condition: e.Expression | None) -> list[e.Expression]:
    """The parts of ``a & b & c``: as clauses in a row, a later one is only evaluated where the earlier ones hold."""
    if condition is None:
        return []
    if isinstance(condition, e.Operation) and condition.op == "&&":
        return [*_conjunction(condition.left), *_conjunction(condition.right)]
    return [condition]


def _asserted(condition: e.Expression) -> list[e.Reference]:
    """What certainly exists where *condition* holds."""
    return [
        reference for part in _conjunction(condition) if isinstance(part, e.Given) for reference in _references(part.of)
    ]


def _references(value: object) -> list[e.Reference]:
    """All references in *value*, without those that only a branch uses."""
    match value:
        case e.Reference():
            below = [found for part in value._path if isinstance(part, e.Expression) for found in _references(part)]
            return [*below, value]
        case e.Text(parts=parts):
            return [found for part in parts for found in _references(part)]
        case e.Operation(left=left, right=right):
            return [*_references(left), *_references(right)]
        case e.Not(of=of):
            return _references(of)
        case e.Function(args=args):
            return [found for arg in args for found in _references(arg)]
        case e.Choice(key=key):
            return _references(key)
        case e.Literal(value=inner):
            return _references(inner)
        case Marked(value=inner):
            return _references(inner)
        case Items(source=source):
            return _references(source)
        case str():
            parts = e.split_text(value)
            return [found for part in parts if isinstance(part, e.Expression) for found in _references(part)]
        case Mapping():
            return [found for key, item in value.items() for found in (*_references(key), *_references(item))]
        case list() | tuple():
            return [found for item in value for found in _references(item)]
        case Each(source=source):
            return _references(source)
    return []


def _place_of(value: object) -> Place | None:
    for reference in _references(value):
        return reference._place
    return getattr(value, "place", None)


def _arity(function: Callable[..., object] | None) -> int:
    return 0 if function is None else len(inspect.signature(function).parameters)


def _names_of(function: Callable[..., object], count: int) -> list[str]:
    """The function's own argument names, in CUE's manner: that is what the reader of the CUE should see."""
    names = list(inspect.signature(function).parameters)
    if len(names) != count:
        names = ["key", "value"][-count:]
    return [re.sub(r"_(\w)", lambda match: match[1].upper(), name.strip("_")) or "item" for name in names]


def _constant_type(value: object) -> Type:
    kind = JsonType({bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}[type(value)])
    kind.enum = (value,)
    return kind


def _common(types: Sequence[Type]) -> Type:
    # An empty list or object is a fallback that says nothing of what the other values hold.
    types = [one for one in types if not one.empty] or types
    if not types or any(not one.known for one in types):
        return UNKNOWN
    if len(types) == 1:
        return types[0]
    merged = JsonType(*(name for one in types for name in one.types))
    if all(one.enum for one in types):
        merged.enum = tuple(dict.fromkeys(item for one in types for item in one.enum))
    return merged


def _describe(node: e.Expression) -> str:
    match node:
        case e.Reference():
            return repr(node)
        case e.Constant(value=value):
            return repr(value)
        case e.Text():
            return "the text"
    return "the expression"


def _did_you_mean(word: str, names: Sequence[str]) -> str:
    close = get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(names)[:12])}" if 0 < len(names) <= 12 else ""
