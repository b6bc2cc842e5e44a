"""Templates to CUE: every reference checked against the schema, every field against the object it goes to."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from velagen import cue
from velagen.errors import Place
from velagen.template import expression as e
from velagen.template.body import Each, Else, If, Items, Marked, Never, Optional, Refusal, When
from velagen.template.metadata import wrong_metadata
from velagen.template.operations import TRAPS, Operation, names_in, needed, operations, versions
from velagen.template.places import Key, MisuseError, Spot
from velagen.template.types import (
    ANY_OBJECT,
    UNKNOWN,
    UNKNOWN_MEMBER,
    Fields,
    JsonType,
    Member,
    ObjectType,
    SchemaType,
    Type,
    a,
    any_of,
    misfits,
    observed,
)
from velagen.template.values import (
    CONTEXT,
    MESSAGE_CONTEXT,
    STEP_CONTEXT,
    LetsAs,
    Typed,
    ValueCompiler,
    _all_references,
    _did_you_mean,
    _place_of,
    _spot_of,
    _yielded,
    describe,
    function_place,
    lines_of,
    parameters_of,
)

if TYPE_CHECKING:
    from velagen.schema import Shape

#: Finds the OpenAPI schema of an object; None where nobody knows the kind.
ObjectSchemas = Callable[[str, str], Mapping[str, object] | None]

#: What a rule of ``status`` is told. Source: kubevela pkg/cue/definition/template.go, GetBaseContextLabels and
#: getTemplateContext.
STATUS_CONTEXT = frozenset({"name", "appName", "appRevision", "output", "outputs"})


class TemplateCompiler(ValueCompiler):
    """Compiles the bodies of one definition; problems are collected in :attr:`problems`.

    *object_schemas* finds the schemas of the objects that bodies write; all else is as in :class:`ValueCompiler`.
    """

    def __init__(
        self,
        *,
        parameter: Type,
        output: Type = UNKNOWN,
        outputs: Type = UNKNOWN,
        status: Type = UNKNOWN,
        object_schemas: ObjectSchemas,
        lets_as: LetsAs = "let",
        context: Collection[str] = frozenset(CONTEXT) - STEP_CONTEXT - MESSAGE_CONTEXT,
        avoid: Collection[str] = frozenset(),
    ) -> None:
        super().__init__(
            parameter=parameter,
            output=output,
            outputs=outputs,
            status=status,
            lets_as=lets_as,
            context=context,
            avoid=avoid,
        )
        self._object_schemas = object_schemas
        self._is_patch = False
        #: The field that is being written, with those it lies in before it.
        self._writing: list[str] = []
        #: The key of the innermost merge_by(…) around what is compiled.
        self._merged_by = ""
        #: In a workflow step, what its fields are.
        self._steps: dict[str, Type] | None = None

    # ------------------------------------------------------------------ whole objects

    def manifest(self, body: e.Value, *, what: str, is_whole: bool = True) -> cue.Expr:
        """The body of a whole object, checked against the schema of its apiVersion and kind; *what* names it.

        Of an object that is not *is_whole* only a part need be written, as of one that a step reads.
        """
        leaf = body if isinstance(body, e.Expression) else None
        match leaf:
            case e.FirstOf(branches=branches):
                with self._at(leaf._place):
                    return self._first_of(branches, lambda value: self.manifest(value, what=what))
            case e.Literal(value=value):
                return self.manifest(value, what=what)
        # CUE of an author's own gives what it gives, but an object.
        kind_of: Type = ANY_OBJECT if isinstance(leaf, e.RawCue) else UNKNOWN
        if isinstance(body, Mapping):
            kind_of = self._kind_of(body, what)
        elif leaf is None:
            self._problem(f"{what}: an object is a dict with apiVersion and kind, not {type(body).__name__}")
            return cue.BOTTOM
        typed = self.typed(body, kind_of, what)
        if isinstance(body, Mapping):
            for sentence in wrong_metadata(typed.type):
                self._problem(f"{what}.{sentence}", next(map(_key_spot, body), None))
            if is_whole and not self._is_patch:
                self._complete(typed.type, kind_of, what, next(map(_key_spot, body), None))
        return typed.cue

    def _complete(self, kind: Type, place: Type, path: str, spot: Place | None) -> None:
        """A problem for each field that *place* requires and that no condition at all writes."""
        if isinstance(kind, Fields) and isinstance(place, ObjectType):
            for name in place.required:
                if kind.declared(name) is None and not kind.open:
                    self._problem(f"{path}.{name} is missing", spot)
            for name in kind.names:
                own, wanted = kind.declared(name), place.member(name)
                if own is not None and wanted is not None:
                    self._complete(own.type, wanted.type, f"{path}.{name}", spot)
        elif "array" in kind.types and isinstance(kind.items, Fields):
            self._complete(kind.items, place.items, f"{path}[]", spot)

    def _kind_of(self, body: Mapping[object, e.Value], what: str) -> Type:
        """What the schemas say of the object that *body* says it is."""
        head: list[str] = []
        places = {str(key): _spot_of(key) for key in body if isinstance(key, str)}
        if self._is_patch and not {"apiVersion", "kind"} & places.keys():
            for name, place in top_fields(body):
                if name != "metadata":
                    self._problem(
                        f"{what}.{name}: it isn't said what kind of object is patched, so its fields can't be checked",
                        place,
                        hint="write its apiVersion and kind too",
                    )
            return ANY_OBJECT
        for name in ("apiVersion", "kind"):
            value = body.get(name)
            if value is None:
                self._problem(
                    f"{what}: {name} is missing, so its fields can't be checked", next(iter(places.values()), None)
                )
            elif isinstance(value, str) and e.is_constant(value):
                head.append(value)
            else:
                self._problem(
                    f"{what}.{name} is not a constant text, so the object's fields can't be checked",
                    places[name],
                    hint="write one object for each kind, under when(…)",
                )
        if len(head) < 2:
            return UNKNOWN
        api_version, kind = head
        schema = self._object_schemas(api_version, kind)
        if schema is None:
            self._problem(
                f"{what}: nothing is known of {kind} in {api_version}, so its fields can't be checked",
                places["kind"],
                hint="put its CustomResourceDefinition into crds/ of the project, or correct the name",
            )
            return UNKNOWN
        return ObjectType(schema, is_root=True)

    def manifests(self, bodies: Mapping[object, e.Value], *, what: str) -> cue.Expr:
        """Named objects (``outputs``), each checked as :meth:`manifest` does; when(…) and each(…) may hold names."""
        return cue.Struct(tuple(self._named_manifests(bodies, what)))

    def _named_manifests(self, bodies: Mapping[object, e.Value], what: str) -> Iterator[cue.Decl]:
        above: list[If] = []
        for key, item in bodies.items():
            above = self._still_above(above, key)
            match key:
                case If() | Else():
                    if not isinstance(item, Mapping):
                        self._problem(f"{what}: when(…) is followed by named objects in a dict", key.place)
                        continue
                    with self._used(key.place), self._case(key, above, what) as clauses:
                        yield cue.Comprehension(clauses, cue.Struct(tuple(self._named_manifests(item, what))))
                case Each():
                    with self._used(key.place):
                        yield self._loop_of_fields(key, item, what, lambda body: self._named_manifests(body, what))
                case str():
                    with self._used(_key_spot(key)):
                        label = self._label(key, what)
                        if self._loops and isinstance(label, str):
                            self._problem(
                                f"{what}.{label}: each entry would make an object of this one name",
                                hint="put the key or the item's own name into it",
                            )
                        doc, made = _commented(item)
                        yield cue.Field(label, self.manifest(made, what=f"{what}.{e.readable(key)}"), doc=doc)
                case e.Expression():
                    with self._used(key._place):
                        yield cue.Field(cue.Dynamic(self.expression(key).cue), self.manifest(item, what=f"{what}.[…]"))
                case _:
                    self._problem(f"{what}: an object's name is text, not {type(key).__name__}")

    def patch(self, body: e.Value, targets: Sequence[Type], *, what: str) -> cue.Expr:
        """The body of a patch of an object that is of one of the types *targets*: it must fit each."""
        self._is_patch = True
        compiled: cue.Expr = cue.Struct()
        for target in targets:
            compiled = self.body(body, target, what)
        self._is_patch = False
        return compiled

    def patch_outputs(self, bodies: Mapping[object, e.Value]) -> cue.Expr:
        """Patches of named objects of other traits: each says what kind it is for, or changes the metadata alone."""
        self._is_patch = True
        compiled = self.manifests(bodies, what="patchOutputs")
        self._is_patch = False
        return compiled

    # ------------------------------------------------------------------ bodies

    def body(self, value: e.Value, place: Type, path: str) -> cue.Expr:
        """A value that goes to a *place* of the given type, at *path*."""
        return self.typed(value, place, path).cue

    def typed(self, value: e.Value, place: Type, path: str) -> Typed:
        """A value that goes to a *place* of the given type, at *path*, with its own type."""
        match value:
            case Mapping():
                return self._struct(value, place, path)
            case list() | tuple():
                return self._list(value, place, path)
            case Marked():
                if value.word != "comment":
                    self._problem(f"{path}: {value.word}(…) stands right after the name of a field", value.place)
                return self.typed(value.value, place, path)
            case If() | Else() | Each() | Items() | When() | Optional() | Never() | Refusal():
                self._problem(f"{path}: {_word(value)} can't stand here", value.place)
                return Typed(cue.BOTTOM, UNKNOWN)
        try:
            leaf = e.wrap(value)
        except MisuseError as error:
            self._problem(f"{path}: {error}")
            return Typed(cue.BOTTOM, UNKNOWN)
        if isinstance(leaf, e.Literal):
            return self.typed(leaf.value, place, path)
        with self._at(leaf._place):
            return self._leaf(leaf, place, path)

    def _leaf(self, leaf: e.Expression, place: Type, path: str) -> Typed:
        """An expression in a body; what branches is checked branch by branch."""
        types: list[Type] = []

        def branch(value: e.Value) -> cue.Expr:
            typed = self.typed(value, place, path)
            types.append(typed.type)
            return typed.cue

        match leaf:
            case e.FirstOf(branches=branches):
                return Typed(self._first_of(branches, branch), any_of(types))
            case e.FirstGiven():
                return Typed(self._first_given(leaf, branch), any_of(types))
            case e.RawCue():
                return Typed(self._raw(leaf, place), UNKNOWN)
        typed = self.expression(leaf)
        for sentence in misfits(typed.type, place):
            self._problem(f"{path}: {describe(leaf)} does not fit: {sentence}", self._use())
        return typed

    def _struct(self, value: Mapping[object, e.Value], place: Type, path: str) -> Typed:
        if place.known and "object" not in place.types:
            self._problem(f"{path}: an object is written where the field takes {' or '.join(sorted(place.types))}")
            place = UNKNOWN
        members: dict[str, Member] = {}
        decls = tuple(self._fields(value, place, path, members, sure=True))
        kind = Fields(members, is_open=_has_computed_names(value))
        kind.empty = not value
        return Typed(cue.Struct(decls), kind)

    def _fields(
        self,
        value: Mapping[object, e.Value],
        place: Type,
        path: str,
        members: dict[str, Member],
        *,
        sure: bool,
        under: dict[str, Member] | None = None,
    ) -> Iterator[cue.Decl]:
        """The fields of a dict.

        Args:
            members: what the whole object has so far; it is added to.
            sure: whether these are there in any case.
            under: what was written so far under the condition that these stand under; it is added to.
        """
        above: list[If] = []
        cases: dict[tuple[cue.Node, ...], dict[str, Member]] = {}
        for key, item in value.items():
            above = self._still_above(above, key)
            match key:
                case str() | e.Expression():
                    with self._used(_key_spot(key)):
                        yield from self._field(key, item, place, path, members, sure=sure, under=under)
                case If() | Else():
                    if not isinstance(item, Mapping):
                        self._problem(f"{path}: when(…) is followed by fields in a dict", key.place)
                        continue
                    with self._used(key.place), self._case(key, above, path) as clauses:
                        same = cases.setdefault(clauses, {})
                        fields = cue.Struct(tuple(self._fields(item, place, path, members, sure=False, under=same)))
                        yield cue.Comprehension(clauses, fields)
                case Each():
                    with self._used(key.place):
                        yield self._loop_of_fields(
                            key, item, path, lambda body: self._fields(body, place, path, members, sure=False)
                        )
                case When():
                    form = "otherwise(): {…}" if key.condition is None else "when(condition): {…}"
                    self._problem(f"{path}: as a key write {form}; with a value it is an item of a list", key.place)
                case _:
                    self._problem(f"{path}: a field name is text, not {type(key).__name__}: {key!r}")

    def _label(self, key: str, path: str) -> cue.Label:
        try:
            parts = e.split_text(key)
        except MisuseError as error:
            self._problem(f"{path}: a field's name: {error}")
            return "broken"
        if len(parts) == 1:
            (part,) = parts
            return str(part) if isinstance(part, str) else cue.Dynamic(self.expression(part).cue)
        return self._interpolation(parts)

    def _field(
        self,
        key: str | e.Expression,
        item: e.Value,
        place: Type,
        path: str,
        members: dict[str, Member],
        *,
        sure: bool,
        under: dict[str, Member] | None,
    ) -> Iterator[cue.Decl]:
        label = self._label(key, path) if isinstance(key, str) else cue.Dynamic(self.expression(key).cue)
        if isinstance(item, Never):
            if path.partition(".")[0] != "output":
                reason = f"{path}.{label}: never(…) has a meaning in a component's output only: no trait patches this"
                self._problem(reason, _spot_of(key))
            # A text, which no struct, list or number unifies with; KubeVela leaves optional fields out of the object.
            yield cue.Field(label, cue.literal(item.message), "?")
            return
        if isinstance(label, str):
            here, member = f"{path}.{label}", place.member(label)
        else:
            here, member = f"{path}.[…]", Member(place.values, present=False)
        if member is None:
            own = _place_of(item) if isinstance(item, e.Expression) else None
            self._problem(
                f"{here}: there is no such field{_did_you_mean(str(label), place.names)}", _spot_of(key) or own
            )
            member = Member(UNKNOWN, present=False)
        self._writing.append(label if isinstance(label, str) else "operation")
        doc: list[str] = []
        is_optional = is_merged = False
        outer = self._merged_by
        while isinstance(item, (Marked, Optional)):
            if isinstance(item, Marked):
                self._marked(item, member.type, here)
                is_merged = is_merged or item.word != "comment"
                self._merged_by = item.key or self._merged_by
                doc += lines_of(item.comment) if item.word == "comment" else [item.comment]
            is_optional = is_optional or isinstance(item, Optional)
            item = item.value
        if is_optional:
            with self._given(item, here) as clauses:
                typed = self.typed(item, member.type, here)
                field = cue.Field(label, self._own_list(typed), doc=tuple(doc))
                yield cue.Comprehension(clauses, cue.Struct((field,)))
        else:
            typed = self.typed(item, member.type, here)
            yield cue.Field(label, self._own_list(typed), doc=tuple(doc))
        self._writing.pop()
        self._merged_by = outer
        if self._is_patch and not is_merged and _is_laid_over(typed.type, outer):
            self._problem(
                f"{here}: a list in a patch fits the component's only where both are equal, item by item",
                _spot_of(key) if isinstance(key, str) else None,
                hint='write merge_by("name", […]) for items beside those of the component, or replace_list([…])',
            )
        if isinstance(label, str):
            before = members.get(label)
            beside = under.get(label) if under is not None else None
            if before is not None and (sure or before.present):
                self._written_twice(before.type, typed.type, here)
            elif beside is not None and beside.present:
                self._written_twice(beside.type, typed.type, here)
            if under is not None:
                under[label] = Member(typed.type, present=not is_optional)
            types = [typed.type] if before is None else [before.type, typed.type]
            present = (sure and not is_optional) or (before is not None and before.present)
            members[label] = Member(any_of(types), present)

    def _written_twice(self, before: Type, now: Type, path: str) -> None:
        """A problem where a field has a value in any case, and another one here: CUE takes no two."""
        scalars = before.known and now.known and not {"object", "array"} & (before.types | now.types)
        same = before.enum and before.enum == now.enum
        if scalars and not same:
            self._problem(
                f"{path} has a value already, and CUE takes no other beside it",
                hint="write cases(…) for the value, or when(…) and otherwise() around both",
            )

    def _marked(self, mark: Marked, place: Type, path: str) -> None:
        if mark.word == "comment":
            return
        if not self._is_patch:
            self._problem(f"{path}: {mark.word}(…) has a meaning in a patch only", mark.place)
        if mark.key and place.items.known and place.items.member(mark.key) is None:
            names = place.items.names
            self._problem(
                f"{path}: its items have no {mark.key!r} to merge by{_did_you_mean(mark.key, names)}", mark.place
            )
        if mark.word in {"merge_by", "replace_list"} and place.known and "array" not in place.types:
            self._problem(f"{path}: {mark.word}(…) is for a list, and the field takes {a(place.types)}", mark.place)

    def _loop_of_fields(
        self,
        key: Each,
        make: e.Value,
        path: str,
        compile_fields: Callable[[Mapping[object, e.Value]], Iterator[cue.Decl]],
    ) -> cue.Decl:
        if isinstance(make, e.Expression) or not callable(make):
            self._problem(f"{path}: each(…) is followed by a function of key and value", key.place)
            return cue.Comment("")
        with self._asked_for(key.source, path) as asked:
            source = self.expression(key.source)
            self._loops_over(source.type, key.source, path)
            with self._loop(source, make, always_two=True) as (names, variables):
                loop = cue.For(names[1], source.cue, names[0])
                with self._where(key.where, variables) as guards:
                    known = len(self._found)
                    body = self._made(make, variables, "each(…)")
                    if not isinstance(body, Mapping):
                        if body is not None or len(self._found) == known:
                            what = "None" if body is None else e.readable(repr(body)[:60])
                            reason = f"{path}: the function of each(…) gives a dict of fields, and this one {what}"
                            self._problem(reason, function_place(make) or key.place)
                        body = {}
                    return cue.Comprehension((*asked, loop, *guards), cue.Struct(tuple(compile_fields(body))))

    def _loops_over(self, of: Type, source: e.Expression, path: str) -> None:
        wrong = of.types - {"array", "object"}
        if wrong:
            self._problem(f"{path}: each(…) goes over a list or a map, and {describe(source)} may be {a(wrong)}")

    @contextmanager
    def _where(
        self, where: Callable[..., e.Value] | None, variables: Sequence[e.Reference]
    ) -> Iterator[tuple[cue.Node, ...]]:
        if where is None:
            yield ()
            return
        wanted = variables[-1:] if len(parameters_of(where)) == 1 else variables
        condition = self._made(where, wanted, "where=")
        with self._guarded(None if condition is None else self.wrapped(condition)) as guards:
            yield guards

    # ------------------------------------------------------------------ when and otherwise

    def _still_above(self, above: list[If], key: object) -> list[If]:
        """The when(…) keys right above *key*, itself among them."""
        if isinstance(key, If):
            return [*above, key]
        return above if isinstance(key, Else) else []

    @contextmanager
    def _case(self, key: If | Else, above: Sequence[If], path: str) -> Iterator[tuple[cue.Node, ...]]:
        if isinstance(key, If):
            with self._guarded(key.condition) as clauses:
                yield clauses
            return
        if not above:
            self._problem(f"{path}: otherwise() stands right behind a when(…)", key.place)
        with self._guarded(_none_of([one.condition for one in above])) as clauses:
            yield clauses

    # ------------------------------------------------------------------ lists

    def _list(self, value: Sequence[e.Value], place: Type, path: str) -> Typed:
        if place.known and "array" not in place.types:
            self._problem(f"{path}: a list is written where the field takes {' or '.join(sorted(place.types))}")
            place = UNKNOWN
        types: list[Type] = []
        items: list[cue.Node] = []
        above: list[e.Expression] = []
        for number, item in enumerate(value):
            if isinstance(item, When):
                negated = item.condition is None
                if negated and not above:
                    self._problem(f"{path}[{number}]: otherwise(…) stands right behind a when(…)", item.place)
                condition = _none_of(above) if item.condition is None else item.condition
                above = [] if item.condition is None else [*above, item.condition]
                with self._used(item.place), self._guarded(condition) as clauses:
                    inner = self.typed(item.value, place.items, f"{path}[{number}]")
                    types.append(inner.type)
                    items.append(cue.Comprehension(clauses, _yielded(inner.cue)))
                continue
            above = []
            items.append(self._item(item, place.items, f"{path}[{number}]", types))
        sure = sum(not isinstance(item, (When, Optional, Items)) for item in value)
        kind = JsonType("array", items=any_of(types), at_least=sure)
        kind.empty = not value
        return Typed(cue.ListLit(tuple(items)), kind)

    def _item(self, item: e.Value, place: Type, path: str, types: list[Type]) -> cue.Node:
        match item:
            case Optional():
                with self._used(item.place), self._given(item.value, path) as clauses:
                    typed = self.typed(item.value, place, path)
                    types.append(typed.type)
                    return cue.Comprehension(clauses, _yielded(typed.cue))
            case Items():
                with self._used(item.place), self._asked_for(item.source, path) as asked:
                    source = self.expression(item.source)
                    self._loops_over(source.type, item.source, path)
                    with self._loop(source, item.make) as (names, variables):
                        loop = cue.For(names[-1], source.cue, names[0] if len(names) == 2 else "")
                        with self._where(item.where, variables) as guards:
                            typed = self.typed(self._made(item.make, variables, "each(…)"), place, path)
                            types.append(typed.type)
                            return cue.Comprehension((*asked, loop, *guards), _yielded(typed.cue))
        typed = self.typed(item, place, path)
        types.append(typed.type)
        return typed.cue

    # ------------------------------------------------------------------ workflow steps

    def step(self, body: Mapping[object, e.Value]) -> cue.Expr:
        """The body of a workflow step: named operations, and what is made of their results."""
        self._steps = self._answers(body)
        for key, item in body.items():
            if isinstance(item, Mapping) and {"apiVersion", "kind"} <= item.keys():
                self._problem(
                    f"step.{key}: nothing is done with this object",
                    _spot_of(key) if isinstance(key, str) else None,
                    hint='write operation("vela/kube", "#Apply", {"value": {…}})',
                )
            if isinstance(key, (If, Each)) and _is_undecided(key.condition if isinstance(key, If) else key.source):
                # github.com/kubevela/pkg cue/cuex/compiler.go, Resolve, and cue/util/iterate.go, FieldValues.
                self._problem(
                    "what depends on a result can't stand at the top of a step: KubeVela finds no operation beside it "
                    "until it is decided, and so does none",
                    key.place,
                    hint='write it below a field: "then": {when(…): {…}}',
                )
        compiled = self.body(body, UNKNOWN, "step")
        if not self.problems and not any(map(_operates, compiled.decls if isinstance(compiled, cue.Struct) else ())):
            self._problem("the step holds no operation, so it does nothing", next(map(_key_spot, body), None))
        return _in_order(compiled)

    def _answers(self, body: Mapping[object, e.Value]) -> dict[str, Type]:
        """What the fields of a step answer, those of its blocks too."""
        found = {str(key): self._result(item) for key, item in body.items() if isinstance(key, str)}
        for key, item in body.items():
            if isinstance(key, (If, Else)) and isinstance(item, Mapping):
                found |= {name: kind for name, kind in self._answers(item).items() if name not in found}
        return found

    def _result(self, item: e.Value) -> Type:
        while isinstance(item, (Marked, Optional)):
            item = item.value
        if isinstance(item, Mapping):
            return self._results(item)
        if isinstance(item, e.Once):
            item = item.of
        if not isinstance(item, e.Provider):
            return UNKNOWN
        found = operations().get(item.package, {}).get(item.name)
        if found is None:
            return UNKNOWN
        about = None
        if isinstance(item.params, Mapping) and item.package == "vela/kube":
            about = item.params.get("value", item.params.get("resource"))
        return found.result(self._seen(about))

    def _results(self, group: Mapping[object, e.Value]) -> Type:
        """What a field with operations below it is: those under when(…) may be absent."""
        members: dict[str, Member] = {}
        for key, item in group.items():
            if isinstance(key, (If, Else)) and isinstance(item, Mapping):
                inner = self._results(item)
                found = {name: member for name in inner.names if (member := inner.declared(name)) is not None}
                members |= {name: Member(member.type, present=False) for name, member in found.items()}
            elif isinstance(key, str) and e.is_constant(key):
                members[str(key)] = Member(self._result(item), present=True)
        return Fields(members, is_open=_has_computed_names(group))

    def observed_outputs(self, bodies: Mapping[object, e.Value]) -> Type:
        """What ``context.outputs`` is where a status is computed: those of *bodies* that are there yet."""
        members: dict[str, Member] = {}
        for key, value in bodies.items():
            item = _commented(value)[1]
            if isinstance(key, (If, Else)) and isinstance(item, Mapping):
                inner = self.observed_outputs(item)
                members |= {name: found for name in inner.names if (found := inner.declared(name)) is not None}
            elif isinstance(key, str) and e.is_constant(key):
                members[str(key)] = Member(observed(self._seen(item)), present=False)
        return Fields(members, is_open=_has_computed_names(bodies))

    def _seen(self, value: e.Value) -> Type:
        """The kind of an object that a step reads or applies, where it is written out."""
        if not isinstance(value, Mapping):
            return UNKNOWN
        api_version, kind = value.get("apiVersion"), value.get("kind")
        if not (isinstance(api_version, str) and isinstance(kind, str) and e.is_constant(api_version + kind)):
            return UNKNOWN
        schema = self._object_schemas(api_version, kind)
        return UNKNOWN if schema is None else ObjectType(schema, is_root=True)

    def _step_reference(self, root: e.StepRoot, node: e.Reference) -> Typed:
        at = cue.Ident(root.name)
        if self._steps is None:
            self._problem(f"result_of({root.name!r}) belongs to the body of a workflow step")
            return Typed(at, UNKNOWN)
        kind = self._steps.get(root.name)
        if kind is None:
            self._problem(f"this step has no {root.name!r}{_did_you_mean(root.name, tuple(self._steps))}")
            return Typed(at, UNKNOWN)
        first = node._path[0] if node._path else None
        answer = kind.member("$returns")
        if kind.known and isinstance(first, str) and kind.member(first) is None and answer is not None:
            known = answer.type.member(first)
            hint = f'write result_of({root.name!r})["$returns"].{first}' if known is not None else ""
            self._problem(f"{root.name} has no {first!r}: an operation's answer is below $returns", hint=hint)
            return Typed(at, UNKNOWN)
        return self._follow(at, kind, node._path, has_to_exist=True)

    def _provider(self, node: e.Provider) -> Typed:
        package, name = node.package, node.name
        if self._steps is None or self._lets_open:
            return super()._provider(node)
        found = operations().get(package, {}).get(name)
        problem = self._why_not(package, name)
        if problem is not None:
            self._problem(*problem)
            return Typed(cue.BOTTOM, UNKNOWN)
        assert found is not None  # else there was a problem
        params = self._params(node, found)
        if (package, name) == ("vela/kube", "#List"):
            return Typed(_list_by_parts(params), UNKNOWN)
        provider = cue.Selector(cue.Package(package), cue.Definition(name.removeprefix("#")))
        given = cue.Struct((cue.Field("$params", params),))
        return Typed(cue.Binary("&", provider, given) if found.params is not None else provider, UNKNOWN)

    def _once(self, node: e.Provider) -> Typed:
        compiled = self._provider(node)
        names = self._writing[-1:] or ["operation"]
        return Typed(_done_once(compiled.cue, names[0]), UNKNOWN)

    def _why_not(self, package: str, name: str) -> tuple[str, Place | None] | None:
        """Why there is no such operation, if there is none that works."""
        known = operations()
        if package in {"vela/op", "vela/ql"}:
            return f"{package} is the old form of KubeVela's operations: write vela/kube, vela/http and the like", None
        if package not in known:
            return f"KubeVela has no package {package!r}{_did_you_mean(package, tuple(known))}", None
        if (package, name) in TRAPS:
            return f"{name} of {package} {TRAPS[package, name]}", None
        if name not in known[package]:
            return f"{package} has no {name!r}{_did_you_mean(name, tuple(known[package]))}", None
        lacking = [one for one in versions() if one not in known[package][name].versions]
        if lacking:
            return f"{name} of {package} is not in KubeVela {' and '.join(lacking)}", None
        return None

    def _params(self, node: e.Provider, found: Operation) -> cue.Expr:
        what = f"{node.name}.$params"
        if found.params is None:
            if node.params:
                self._problem(f"{node.name} takes no parameters")
            return cue.Struct()
        place = ObjectType(found.params)
        if not isinstance(node.params, Mapping):
            return self.body(node.params, place, what)
        params = node.params
        # A whole object is checked as objects are.
        whole = {"#Apply", "#Read", "#Delete"} if node.package == "vela/kube" else set()
        if node.name in whole and isinstance(params.get("value"), Mapping) and not _is_of_any_kind(params["value"]):
            self.manifest(params["value"], what=f"{what}.value", is_whole=False)
        typed = self._struct(params, place, what)
        self._written_out(found.params, typed.type, what)
        if isinstance(typed.type, Fields) and not typed.type.open:
            for name, reason in needed(node.package, node.name).items():
                if typed.type.declared(name) is None:
                    self._problem(f"{what}.{name} is missing: {reason}")
            if node.package == "vela/kube" and (value := typed.type.declared("value")) is not None:
                self._named(value.type, f"{what}.value")
        return typed.cue

    def _named(self, kind: Type, what: str) -> None:
        """A problem where an object that is written out has no name, by which the API server would find it."""
        metadata = kind.declared("metadata") if isinstance(kind, Fields) and not kind.open else UNKNOWN_MEMBER
        inside = metadata.type if metadata is not None else Fields({})
        if isinstance(inside, Fields) and not inside.open and not {"name", "generateName"} & set(inside.names):
            self._problem(f"{what}.metadata.name is missing")

    def _written_out(self, schema: Mapping[str, Any], kind: Type, what: str) -> None:
        """A problem for each field that the operation needs and that is not written."""
        if not isinstance(kind, Fields) or kind.open:
            return
        for name in names_in(schema):
            member = kind.declared(name)
            if member is None:
                self._problem(f"{what}.{name} is missing")
        for name, inner in schema.get("properties", {}).items():
            member = kind.declared(name)
            if member is not None:
                self._written_out(inner, member.type, f"{what}.{name}")

    # ------------------------------------------------------------------ refusals

    def errs(self, refusals: Sequence[Refusal]) -> cue.Expr:
        """``errs``: KubeVela refuses a trait, and from 1.11 a component, that holds any.

        Source: kubevela pkg/cue/definition/template.go.
        """
        items: list[cue.Node] = []
        for refusal in refusals:
            with self._used(refusal.place), self._guarded(refusal.condition) as clauses:
                items.append(cue.Comprehension(clauses, _yielded(self._sentence(refusal))))
        return cue.ListLit(tuple(items))

    def errs_as_conflicts(self) -> cue.Decl:
        """``_checks``: a conflict for each of ``errs``, which KubeVela 1.10 does not heed in a component."""
        name, message = cue.Ident("number"), cue.Ident("message")
        conflict = cue.Field(cue.Interpolation(("refused", name)), cue.Binary("&", message, cue.Lit(1)))
        each = cue.Comprehension((cue.For("message", cue.Ident("errs"), key="number"),), cue.Struct((conflict,)))
        doc = ("KubeVela 1.10 heeds errs in traits alone: of a component each is a conflict as well.",)
        return cue.Field(cue.Hidden("checks"), cue.Struct((each,)), doc=doc)

    def conflicts(self, refusals: Sequence[Refusal]) -> Iterator[cue.Decl]:
        """``_checks``: a conflict where a refusal holds, where KubeVela heeds no ``errs``: in policies and steps.

        They stand in a field of their own: at the top a condition on ``context`` has no path, and the webhook of
        definitions forgives an unknown ``context`` only where it has one (kubevela pkg/webhook/utils/utils.go).
        """
        checks: list[cue.Decl] = []
        for number, refusal in enumerate(refusals, 1):
            with self._used(refusal.place), self._guarded(refusal.condition) as clauses:
                conflict = cue.Field(
                    cue.Hidden(f"refused{number}"), cue.Binary("&", self._sentence(refusal), cue.Lit(1))
                )
                checks.append(cue.Comprehension(clauses, cue.Struct((conflict,))))
        if checks:
            yield cue.Field(cue.Hidden("checks"), cue.Struct(tuple(checks)))

    def _sentence(self, refusal: Refusal) -> cue.Expr:
        return self.body(refusal.message, JsonType("string"), "the sentence of refuse")


def _is_laid_over(of: Type, merged_by: str) -> bool:
    """Whether a value in a patch, which has no mark of its own, is a list that is unified item by item.

    Args:
        merged_by: the key by which a list is merged in which it lies; objects in lists below have it too.

    Source: kubevela/workflow pkg/cue/model/sets/operation.go, strategyPatchHandle.
    """
    if not of.known or of.types != {"array"}:
        return False
    return not (merged_by and (not of.items.known or "object" in of.items.types))


def _in_order(step: cue.Expr) -> cue.Expr:
    """The fields of *step* that hold operations, numbered as they stand where there are several.

    Without the number the engine's order is that of a sort which is not stable
    (github.com/kubevela/pkg cue/util/iterate.go, FieldValues).
    """
    if not isinstance(step, cue.Struct):
        return step
    numbers = count(1)
    several = sum(map(_operates, step.decls)) > 1

    def numbered(decl: cue.Decl) -> cue.Decl:
        match decl:
            case cue.Field(value=value) if _operates(decl):
                return replace(decl, value=_in_order(value), attribute=f"step({next(numbers)})" if several else "")
            case cue.Comprehension(body=cue.Struct(decls=decls)):
                return replace(decl, body=cue.Struct(tuple(map(numbered, decls))))
        return decl

    return cue.Struct(tuple(map(numbered, step.decls)))


def _operates(decl: cue.Decl) -> bool:
    """Whether an operation of the workflow engine lies in *decl*."""
    return any(
        (isinstance(node, cue.Package) and node.path.startswith("vela/"))
        or (isinstance(node, cue.Raw) and any(path.startswith("vela/") for path in node.imports))
        or (isinstance(node, cue.Field) and node.label == cue.Definition("do"))
        for node in decl.walk()
    )


def _is_of_any_kind(value: Mapping[object, e.Value]) -> bool:
    """Whether a step learns only when it runs what kind of object it is, as of one that it copies from another."""
    if isinstance(value.get("kind"), e.Expression):
        return True
    return "kind" not in value and any(isinstance(key, Each) for key in value)


def _commented(value: e.Value) -> tuple[tuple[str, ...], e.Value]:
    """The lines of the comments around *value*, and what is inside."""
    doc: tuple[str, ...] = ()
    while isinstance(value, Marked) and value.word == "comment":
        doc, value = (*doc, *lines_of(value.comment)), value.value
    return doc, value


def _done_once(operation: cue.Expr, name: str) -> cue.Expr:
    """*operation* where no ConfigMap keeps its answer yet, and the ConfigMap.

    What depends on an answer lies in a struct of its own: the engine finds no field beside a condition that it can't
    decide yet (github.com/kubevela/pkg cue/cuex/compiler.go, Resolve; cue/util/iterate.go).
    """

    def at(*path: str) -> cue.Expr:
        found: cue.Expr = cue.Ident(path[0])
        for part in path[1:]:
            found = cue.Selector(found, part)
        return found

    def call(name: str, value: cue.Expr) -> cue.Expr:
        params = cue.Struct((cue.Field("$params", cue.Struct((cue.Field("value", value),))),))
        return cue.Binary("&", cue.Selector(cue.Package("vela/kube"), cue.Definition(name)), params)

    marker = cue.Interpolation(("once-", at("context", "stepSessionID"), f"-{_as_name(name)}"))
    metadata = cue.Struct((cue.Field("name", marker), cue.Field("namespace", at("context", "namespace"))))
    head = (
        cue.Field("apiVersion", cue.Lit("v1")),
        cue.Field("kind", cue.Lit("ConfigMap")),
        cue.Field("metadata", metadata),
    )
    answer = cue.call("encoding/json", "Marshal", at("call", "$returns"))
    kept = cue.Struct((*head, cue.Field("data", cue.Struct((cue.Field("answer", answer),)))))
    error = at("before", "$returns", "err")
    first_time = (cue.Guard(cue.present(error)), cue.Guard(cue.Binary("=~", error, cue.Lit("not found"))))
    done = cue.Struct((cue.Field(cue.Name("call"), operation), cue.Field("keep", call("Apply", kept))))
    seen = at("before", "$returns", "value", "data", "answer")
    read = cue.Comprehension((cue.Guard(cue.present(seen)),), _yielded(cue.call("encoding/json", "Unmarshal", seen)))
    return cue.Struct(
        (
            cue.Field(cue.Name("before"), call("Read", cue.Struct(head))),
            cue.Field(cue.Name("now"), cue.Struct((cue.Comprehension(first_time, done),))),
            cue.Field("$returns", cue.Index(cue.ListLit((read, at("now", "call", "$returns"))), cue.Lit(0))),
        )
    )


def _as_name(name: str) -> str:
    """A field's name as part of a Kubernetes name."""
    return re.sub(r"[^a-z0-9-]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-") or "operation"


def _list_by_parts(params: cue.Expr) -> cue.Expr:
    """``kube.#List`` by what it is made of, in a form that works.

    The code behind it reads ``value`` and falls over its absence, while its $params take ``resource`` alone
    (kubevela/workflow pkg/providers/kube/{kube.cue,kube.go}, ResourceVars).
    """
    decls = params.decls if isinstance(params, cue.Struct) else ()
    renamed = tuple(
        cue.Field("value", one.value, one.constraint, one.doc)
        if isinstance(one, cue.Field) and one.label == "resource"
        else one
        for one in decls
    )
    return cue.Struct(
        (
            cue.Field(cue.Definition("do"), cue.Lit("list")),
            cue.Field(cue.Definition("provider"), cue.Lit("kube")),
            cue.Field("$params", cue.Struct((cue.Field("cluster", _ANY_CLUSTER), *renamed))),
            cue.Field("$returns", cue.Struct((cue.Ellipsis(),)), "?"),
        )
    )


#: As #List has it: the cluster that the workflow runs on, unless another is named.
_ANY_CLUSTER = cue.Binary("|", cue.Unary("*", cue.Lit("")), cue.Ident("string"))


def parameter_type(shape: Shape) -> Type:
    """The type of ``parameter`` for the shape of a schema."""
    return SchemaType(shape)


def _asks_for_a_result(value: object) -> bool:
    """Whether *value* depends on what an operation of the step answers, through intermediates too."""
    for one in _all_references(value):
        root = one._root if isinstance(one, e.Reference) else None
        if isinstance(root, e.StepRoot) or (isinstance(root, e.LetRoot) and _asks_for_a_result(root.value)):
            return True
    return False


def _is_undecided(condition: object) -> bool:
    """Whether *condition* may be open before an operation has answered; that an answer is there never is."""
    if isinstance(condition, e.Given):
        return False
    return _asks_for_a_result(condition)


def _none_of(conditions: Sequence[e.Expression]) -> e.Expression:
    """Holds where none of *conditions* does, what they say is given or not."""
    found: e.Expression | None = None
    for condition in conditions:
        other: e.Expression = condition.of if isinstance(condition, e.Not) else e.Not(condition)
        found = other if found is None else e.Operation("&&", found, other)
    return found if found is not None else e.Constant(False)


def top_fields(body: Mapping[object, e.Value]) -> Iterator[tuple[str, Place | None]]:
    """The fields of *body*, those under when(…) too, with their places; what is computed is called ``[…]``."""
    for key, value in body.items():
        if isinstance(key, (If, Else)) and isinstance(value, Mapping):
            yield from top_fields(value)
        else:
            yield str(key) if isinstance(key, str) and e.is_constant(key) else "[…]", _key_spot(key)


def _has_computed_names(value: Mapping[object, e.Value]) -> bool:
    """Whether fields come whose names are known only when KubeVela renders."""
    return any(
        isinstance(key, (Each, e.Expression))
        or (isinstance(key, str) and not e.is_constant(key))
        or (isinstance(key, (If, Else)) and isinstance(item, Mapping) and _has_computed_names(item))
        for key, item in value.items()
    )


def _key_spot(key: object) -> Spot | None:
    return key.place if isinstance(key, Key) else key._place if isinstance(key, e.Expression) else None


_WORDS: dict[type, str] = {
    If: "when(…) without a value",
    Else: "otherwise()",
    Each: "each(…) without a function",
    Items: "each(…)",
    When: "when(…)",
    Optional: "optional(…)",
    Never: "never(…)",
    Refusal: "refuse(…)",
}


def _word(value: object) -> str:
    return _WORDS[type(value)]
