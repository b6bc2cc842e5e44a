"""A schema as the value of ``parameter``: types a reader would write by hand, and checks for what types can't say."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from velagen.cue import (
    BOTTOM,
    TOP,
    Binary,
    Call,
    Comment,
    Comprehension,
    Decl,
    Definition,
    Ellipsis,  # noqa: A004  # the grammar's own word
    Embed,
    Expr,
    Field,
    File,
    For,
    Guard,
    Hidden,
    Ident,
    Index,
    Interpolation,
    ListLit,
    Lit,
    Name,
    Pattern,
    Selector,
    Struct,
    Unary,
    absent,
    call,
    joined,
    literal,
    nested,
    present,
    repeated,
    shared,
)
from velagen.cue import (
    Node as Cue,
)
from velagen.errors import Problem, VelagenError
from velagen.schema.cel import rules_hold, uncarried_rules
from velagen.schema.doubts import doubtful_rules
from velagen.schema.formats import FORMATS
from velagen.schema.keywords import doubtful_keywords
from velagen.schema.model import (
    ALL_TYPES,
    MAX_DEPTH,
    MAX_NODES,
    TYPES,
    InexactError,
    Node,
    Property,
    Schema,
    Shape,
    TooLargeError,
    frozen,
    json_type,
    layers_of,
    types_of,
)
from velagen.schema.patterns import either
from velagen.schema.tabled import tabled
from velagen.schema.unions import Union, union_of
from velagen.schema.validate import validator_for
from velagen.schema.violations import (
    ANY_KEYWORDS,
    ASSERTIONS,
    COMPARING,
    STRING_KEYWORDS,
    TYPE,
    Violations,
    bounded,
    interpolation,
    is_type,
    length,
    number,
    whole_number,
)
from velagen.schema.words import Words, sentence

#: A reference to a schema whose name can be a definition's.
_REFERENCE = re.compile(r"#/(?:\$defs|definitions)/([A-Za-z][A-Za-z0-9]*)")
_PLAIN = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
#: Names that mean something in the text around a property, so that no property may be referred to by them.
_MEANT = frozenset(  # a list of words reads better as one
    [
        "true",
        "false",
        "null",
        "for",
        "in",
        "if",
        "let",
        "import",
        "package",
        "func",
        "bool",
        "string",
        "bytes",
        "number",
        "int",
        "float",
        "uint",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "uint128",
        "int128",
        "float32",
        "float64",
        "rune",
        "len",
        "close",
        "and",
        "or",
        "div",
        "mod",
        "quo",
        "rem",
        "error",
        "strings",
        "math",
        "list",
        "struct",
        "time",
        "net",
        "regexp",
        "json",
        "yaml",
        "parameter",
        "value",
        "context",
        "output",
        "outputs",
        "template",
    ]
)
#: What KubeVela's OpenAPI conversion may cost: about a second on an idle core (measured: 0.1 to 0.3 ms a unit).
#: Below the level where a schema goes beyond it, `parameter` says only object or list, and checks say the rest.
CONVERSION_BUDGET = 12_000
#: A schema of more places than this is not cut that way: the checks would be too many.
MAX_CUT = 1_500
#: With more checks than this inside `parameter`, they stand beside it.
MAX_INSIDE = 200
#: With more values than this an enum is a check: KubeVela's OpenAPI conversion of a disjunction takes time with the
#: cube of its length (measured: 500 values 1.2 s, 2,000 values 33 s, 5,000 no end in 60 s).
MAX_OPTIONS = 200
#: After so many refusals the compiler stops looking for more.
MAX_REFUSALS = 40
_OPEN = Struct((Ellipsis(),))


@dataclass(frozen=True)
class CompiledSchema:
    """A schema in CUE."""

    #: What stands after ``parameter:``.
    parameter: Expr
    #: What stands beside ``parameter``: checks that read it as a whole.
    declarations: tuple[Decl, ...]
    warnings: tuple[Problem, ...] = ()

    def file(self, doc: tuple[str, ...] = ()) -> File:
        """A file with ``parameter`` and all that belongs to it."""
        return File((Field(Name("parameter"), self.parameter), *self.declarations), doc=doc)


#: What `parameter` is compiled for: everything at once, the rendering of an application, or the form.
_Face = Literal["both", "render", "form"]


class _TooMany(Exception):  # noqa: N818  # it ends the search, and is not an error
    """Raised when so much is refused that more would help nobody; a recursive schema would find new ones for ever."""


@dataclass
class Rest:
    """What the type at a place leaves to checks."""

    #: The types that a value of the CUE type can have.
    types: frozenset[str] = ALL_TYPES
    own: list[tuple[Node, frozenset[str]]] = field(default_factory=list)
    required: list[tuple[Node, str]] = field(default_factory=list)
    #: Name, whether it is always present, and what its type leaves.
    properties: list[tuple[str, bool, Rest]] = field(default_factory=list)
    items: Rest | None = None
    #: Conditions on a name (made from a reference to it), and what the type of such a value leaves.
    values: list[tuple[tuple[tuple[str, Lit], ...], Rest]] = field(default_factory=list)
    #: The default of a value that may be of several types: a rule for another type must not be asked of it, and until
    #: somebody renders, a value with a default passes for every type it may have.
    default: Expr | None = None

    def __bool__(self) -> bool:
        return bool(self.own or self.required or self.properties or self.items or self.values)

    def key(self) -> Hashable:
        """Equal for two places that leave the same rules of the same schemas."""
        return (
            self.types,
            tuple(
                (node.identity, keywords & set(node.view)) for node, keywords in self.own if keywords & set(node.view)
            ),
            tuple((node.identity, name) for node, name in self.required),
            tuple((name, always, below.key()) for name, always, below in self.properties),
            self.items and self.items.key(),
            tuple((conditions, below.key()) for conditions, below in self.values),
            self.default,
        )


@dataclass(frozen=True)
class _Rule:
    clauses: tuple[Cue, ...]
    message: Expr
    label: str


def compile_schema(
    schema: Schema,
    *,
    allow_unchecked: bool = False,
    assert_formats: bool = True,
    integers: Literal["auto", "json", "kubevela"] = "auto",
    standalone: bool = False,
    context: str | None = "context.name",
    faces: bool = False,
) -> CompiledSchema:
    """*schema* as CUE, each keyword exactly or refused.

    A keyword that can't be exact is refused with its pointer, the reason and what to write instead; with
    *allow_unchecked* it becomes a comment and a warning. *assert_formats* makes ``format`` a rule. *integers* says how
    whole numbers arrive: ``kubevela`` as Go writes them (1.0 as 1, so ``int``), ``json`` as the instance spells them,
    ``auto`` the first for a schema whose root is an object. A rule that an empty parameter breaks waits for *context*,
    which KubeVela gives at render and not when it reads the definition alone; *standalone* text needs no KubeVela
    around it, for ``cue vet``.

    With *faces* a property that CUE itself would refuse in many words, or that has an ``x-message``, is two things: at
    render a value that a check refuses with one sentence, since KubeVela shows the first of CUE's errors only; and its
    full type where KubeVela reads the definition alone and derives the form from it. Only for an object.

    Raises VelagenError with every refusal of the schema.
    """
    if integers == "auto":
        contents = schema.document
        integers = "kubevela" if isinstance(contents, dict) and contents.get("type") == "object" else "json"

    def compiler_of(levels: int | None, face: _Face) -> _Compiler:
        return _Compiler(schema, allow_unchecked, assert_formats, integers, standalone, context, levels, face)

    cost = None
    faces = faces and context is not None and not standalone and schema.shape.types == {"object"}
    try:
        for levels in (None, 8, 6, 5, 4, 3, 2, 1):
            compiler = compiler_of(levels, "render" if faces else "both")
            try:
                compiled = compiler.compile()
                strict = compiler
                form = compiled.parameter
                if faces:
                    strict = compiler_of(levels, "form")
                    # The list is shared: what only the full types refuse is refused as well.
                    strict.problems = compiler.problems
                    form = strict.type()
                compiled = _with_definitions(compiled, compiler, form, strict)
            except _TooMany:
                break
            before, cost = cost, _conversion_cost(form)
            # What is wide and not deep doesn't get cheaper by cutting.
            if cost <= CONVERSION_BUDGET or cost == before:
                break
            if compiler.cost > MAX_CUT:
                place = schema.root.place(schema.origin)
                reason = (
                    "as a KubeVela parameter it is too deep: vela-core's OpenAPI conversion doubles its work by level"
                )
                severity: Literal["error", "warning"] = "warning" if standalone else "error"
                problem = Problem(reason, place, "make it flatter, or give its deep parts as plain objects", severity)
                compiler.problems.append(problem)
                compiled = dataclasses.replace(compiled, warnings=(*compiled.warnings, problem))
                break
    except TooLargeError as refusal:
        place = refusal.node.place(schema.origin)
        raise VelagenError(Problem(str(refusal), place, refusal.instead)) from refusal
    except RecursionError as error:
        raise VelagenError(Problem("nested too deeply", schema.root.place(schema.origin))) from error
    errors = [problem for problem in compiler.problems if problem.severity == "error"]
    if errors or len(compiler.problems) >= MAX_REFUSALS:
        raise VelagenError(dict.fromkeys(errors or compiler.problems))
    return dataclasses.replace(
        compiled,
        warnings=(
            *doubtful_keywords(schema),
            *doubtful_rules(schema),
            *uncarried_rules(schema),
            *compiled.warnings,
        ),
    )


def _with_definitions(compiled: CompiledSchema, loose: _Compiler, form: Expr, strict: _Compiler) -> CompiledSchema:
    """*compiled* with the schemas of ``$defs`` that it holds more than once as CUE's definitions, and with its form."""
    names = repeated(compiled.parameter, loose.called) & repeated(form, strict.called)
    parameter, meanings = shared(compiled.parameter, loose.called, names)
    form, forms = shared(form, strict.called, names)
    definitions = tuple(
        Field(Definition(name), loose.with_form(meaning, forms.get(name, meaning)))
        for name, meaning in meanings.items()
    )
    return dataclasses.replace(
        compiled,
        parameter=loose.with_form(parameter, form),
        declarations=(*definitions, *compiled.declarations),
    )


def _conversion_cost(root: Expr) -> int:
    """How much work KubeVela's OpenAPI conversion has with *root*: CUE's converter doubles it with every level."""
    cost = 0
    stack: list[tuple[Cue, int]] = [(root, 0)]
    while stack and cost <= 10 * CONVERSION_BUDGET:
        node, level = stack.pop()
        match node:
            case Field(label=Hidden()) | Comprehension():
                continue
            case Field() | ListLit(items=(_, *_)):
                level = min(level + 1, 40)
                cost += 1 << level
        stack.extend((child, level) for child in node.children())
    return cost


class _Compiler:
    def __init__(
        self,
        schema: Schema,
        allow_unchecked: bool,
        assert_formats: bool,
        integers: str,
        standalone: bool,
        context: str | None,
        levels: int | None,
        face: _Face = "both",
    ) -> None:
        self.levels = levels
        self.face = face
        self._defaults: dict[str, Any] | None = None
        self._waits = False
        #: Whether the default that was marked last lets through more than the schema says.
        self._default_lets_more = False
        self.schema = schema
        self.allow_unchecked = allow_unchecked
        self.assert_formats = assert_formats
        self.integers = integers
        self.standalone = standalone
        self.context = context
        self.problems: list[Problem] = []
        #: What the schemas under ``$defs`` became.
        self.called: dict[Expr, str] = {}
        self.path: list[Any] = []
        self.cost = 0
        #: The properties that stand in `parameter`, so that what stands beside them can name them.
        self.declared: set[Any] = set()
        root = layers_or_none(schema.root)
        self.root_names = frozenset(name for node in root for name in node.get("properties", {}))
        self.violations = Violations(assert_formats, integers, self.root_names | _MEANT)

    # ------------------------------------------------------------ the whole

    def compile(self) -> CompiledSchema:
        expr, rest = self.typed(self.layers(self.schema.root))
        self.declared = {getattr(one.label, "name", one.label) for one in _decls_of(expr) if isinstance(one, Field)}
        is_object = rest.types == frozenset(["object"])
        # On CUE 0.14 close() evaluates what it is given by itself and keeps the errors that are found there: a check
        # must stand outside it to see the data.
        inside, outside = self.placed(rest, is_object, isinstance(expr, Struct))
        if inside:
            expr = _extended(expr, inside)
        declarations: list[Decl] = []
        if outside:
            # `cue vet -c` passes over hidden fields that are not concrete, so a rule that waits needs a field it sees.
            seen = self.standalone and self._waits
            doc = ("What is refused: the sentence of a broken rule meets 1, and the conflict is shown.",)
            label = Name("rules") if seen else Hidden("parameter")
            declarations.append(Field(label, Struct(tuple(outside)), doc=doc))
        if self.standalone and self._waits:
            root = Ident("parameter")
            any_given = Comprehension(
                (Guard(Binary(">", length(root), Lit(len(self.defaults())))),), Struct((Embed(Lit(1)),))
            )
            declarations += [
                Field(
                    Hidden("given"),
                    Index(ListLit((any_given, self.rendering())), Lit(0)),
                    doc=("A rule that an empty parameter breaks waits for a property, or for KubeVela to render.",),
                ),
                Field(Name(str(self.context).split(".")[0]), _OPEN, "?"),
            ]
        warnings = tuple(dict.fromkeys(problem for problem in self.problems if problem.severity == "warning"))
        comments = tuple(Comment(f"Unchecked: {problem.message} ({problem.place.pointer})") for problem in warnings)
        return CompiledSchema(expr, (*comments, *declarations), warnings)

    def type(self) -> Expr:
        """The type alone, without checks."""
        return self.typed(self.layers(self.schema.root))[0]

    def with_form(self, parameter: Expr, form: Expr) -> Expr:
        """*parameter* with what *form* says beyond it, for as long as nobody renders."""
        beyond = _beyond(form, parameter)
        if not isinstance(beyond, Struct):
            return parameter
        # `context.name` is any text where KubeVela reads the definition alone, and one without NUL at render.
        alone = Guard(present(Binary("&", self.rendering(), Lit("\0"))))
        note = Comment(
            "For the form and `vela show`, where context.name is open; at render the checks of _parameter say it."
        )
        bare, beyond = _named_once(parameter, beyond)
        return _extended(bare, [note, Comprehension((alone,), beyond)])

    def refuse(self, refusal: InexactError) -> None:
        what = f"{refusal.keyword}: " if refusal.keyword else ""
        self.problems.append(
            Problem(
                what + str(refusal),
                refusal.node.place(self.schema.origin, refusal.keyword),
                refusal.instead,
                "warning" if self.allow_unchecked else "error",
            )
        )
        if len(self.problems) >= MAX_REFUSALS:
            raise _TooMany

    def layers(self, *nodes: Node) -> tuple[Node, ...]:
        try:
            return layers_of(*nodes)
        except InexactError as refusal:
            self.refuse(refusal)
            return ()

    # ------------------------------------------------------------ types

    def typed(self, layers: tuple[Node, ...]) -> tuple[Expr, Rest]:
        """The CUE type of a value that satisfies *layers*, and what it leaves to checks."""
        key = tuple(node.identity for node in layers)
        self.cost += 1
        if key in self.path and layers:
            self.refuse(
                InexactError(
                    layers[0], "$ref", "the schema contains itself", "give the depth that is needed, level by level"
                )
            )
            return TOP, Rest()
        if self.cost > MAX_NODES:
            raise TooLargeError(layers[0] if layers else self.schema.root)
        if len(self.path) > MAX_DEPTH:
            reason = "written out, the schema is too deeply nested"
            self.refuse(InexactError(layers[0], "", reason, "split it, or make it flatter"))
            return TOP, Rest()
        self.path.append(key)
        try:
            expr, rest = self._typed(layers)
        finally:
            self.path.pop()
        self._call(expr, layers)
        return expr, rest

    def _call(self, expr: Expr, layers: tuple[Node, ...]) -> None:
        """Note the name of what a reference to ``$defs``, with nothing beside it, became; of a list, of its items."""
        first = layers[0].contents if layers else None
        reference = first.get("$ref") if isinstance(first, dict) and not ASSERTIONS & set(layers[0].view) else None
        found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
        match expr:
            case ListLit(items=(Ellipsis(of=Expr() as item),)):
                expr = item
        if found and _decls_of(expr):
            self.called.setdefault(expr, found[1][0].upper() + found[1][1:])

    def _cut(self, layers: tuple[Node, ...], types: frozenset[str]) -> tuple[Expr, Rest]:
        """The bare type; all the rest is left to checks."""
        rest = Rest(types=types, own=[(node, ASSERTIONS) for node in layers if node.contents is not True])
        if types == ALL_TYPES:
            return TOP, rest
        wide = {"integer": "number"} if self.integers == "json" else {}
        return joined("|", (TYPE[wide.get(name, name)] for name in TYPES if name in types)), rest

    def _everything(self, layers: tuple[Node, ...]) -> tuple[Expr, Rest]:
        return TOP, Rest(own=[(node, ASSERTIONS) for node in layers if node.contents is not True])

    def _typed(self, layers: tuple[Node, ...]) -> tuple[Expr, Rest]:
        expr, rest = self._silent(layers)
        message = next((node["x-message"] for node in layers if isinstance(node.get("x-message"), str)), None)
        if self.face == "form" or expr == TOP or "object" in rest.types:
            return expr, rest
        if self.face == "render":
            speaks = message is not None or (isinstance(expr, Binary) and expr.op == "|")
            return self._everything(layers) if speaks and not _has_default(expr) else (expr, rest)
        if message is None:
            return expr, rest
        # A last alternative that nothing satisfies: CUE tells it among the reasons when the others fail too, and
        # KubeVela's OpenAPI conversion leaves it out.
        return Binary("|", expr, _spoken(message)), rest

    def _silent(self, layers: tuple[Node, ...]) -> tuple[Expr, Rest]:
        types = types_of(layers)
        if not types or any(node.contents is False for node in layers):
            return self._everything(layers)
        if any("enum" in node or "const" in node for node in layers):
            return self._enumerated(layers)
        if self.levels is not None and len(self.path) > self.levels and types & {"array", "object"}:
            return self._cut(layers, types)
        union = self._union(layers)
        if union is not None:
            return union
        if types == ALL_TYPES and self.face == "form" and any(one.objects for one in self._unions(layers)):
            types = frozenset(["object"])
        if types == ALL_TYPES:
            return self._everything(layers) if any(ASSERTIONS & set(node.view) for node in layers) else (TOP, Rest())
        parts: list[Expr] = []
        rest = Rest(types=types)
        for name in TYPES:
            if name not in types:
                continue
            match name:
                case "null":
                    parts.append(Ident("null"))
                case "boolean":
                    parts.append(Ident("bool"))
                case "integer" | "number":
                    parts.append(self._number(layers, name, rest))
                case "string":
                    parts.append(self._string(layers))
                case "array":
                    parts.append(self._array(layers, rest))
                case "object":
                    parts.append(self._object(layers, rest))
        for node in layers:
            left = frozenset(ANY_KEYWORDS) - {"type", "enum", "const"} & set(node.view)
            left &= set(node.view)
            if left:
                rest.own.append((node, left))
        return joined("|", parts), rest

    def _leave(self, rest: Rest, layers: Iterable[Node], keywords: Iterable[str]) -> None:
        for node in layers:
            found = frozenset(keywords) & set(node.view)
            if found:
                rest.own.append((node, found))

    def _enumerated(self, layers: tuple[Node, ...]) -> tuple[Expr, Rest]:
        first = next(node for node in layers if "enum" in node or "const" in node)
        candidates = [first["const"]] if "const" in first else list(first["enum"])
        for node in layers:
            for values in ([node["const"]] if "const" in node else None, node.get("enum")):
                if values is not None:
                    allowed = {frozen(value) for value in values}
                    candidates = [value for value in candidates if frozen(value) in allowed]
        for rest in (_without(node, "enum", "const") for node in layers):
            if ASSERTIONS & set(rest.view):
                validator = validator_for(rest, assert_formats=self.assert_formats)
                candidates = [value for value in candidates if validator.is_valid(value)]
        if not candidates or any(isinstance(value, (dict, list)) or _misprinted(value) for value in candidates):
            return self._everything(layers)
        options = list(dict.fromkeys(self._constant(value) for value in candidates))
        types = frozenset(json_type(value) for value in candidates)
        if len(options) > MAX_OPTIONS:
            return self._cut(layers, types)
        return joined("|", options), Rest(types=types)

    def _constant(self, value: Any) -> Expr:
        if json_type(value) == "number" and self.integers == "json":
            return self.violations.scalar(value)
        return number(value) if json_type(value) == "number" else Lit(value)

    def _union(self, layers: tuple[Node, ...]) -> tuple[Expr, Rest] | None:
        """``anyOf`` or ``oneOf`` of scalar types as a disjunction, where that is exact; None where it is not."""
        unions = [(node, word) for node in layers for word in ("anyOf", "oneOf") if word in node]
        if len(unions) != 1:
            return None
        node, keyword = unions[0]
        inner = ("anyOf", "oneOf", "$ref", "allOf", "$dynamicRef", "$recursiveRef", "default", "x-message")
        bare = [_without(other, *inner) for other in layers]
        options: list[Expr] = []
        seen: list[frozenset[str]] = []
        for index in range(len(node[keyword])):
            own = self.layers(node.sub(keyword, index))
            branch = (*bare, *own)
            types = types_of(branch)
            if not types or types & {"array", "object"} or not own:
                return None
            if any(set(one.view) & {"if", "not", "anyOf", "oneOf", "default"} for one in branch):
                return None
            if keyword == "oneOf" and any(_overlap(types, other) for other in seen):
                return None
            seen.append(types)
            expr, rest = self.typed(branch)
            if rest:
                return None
            for option in _options(expr):
                if option not in options:
                    options.append(option)
            if len(options) > MAX_OPTIONS:
                return None
        return joined("|", options), Rest(types=frozenset().union(*seen))

    def _number(self, layers: tuple[Node, ...], name: str, rest: Rest) -> Expr:
        base: Expr = Ident("number")
        if name == "integer":
            whole = Binary("&", base, call("math", "MultipleOf", Lit(1)))
            base = Ident("int") if self.integers == "kubevela" else whole
        for node in layers:
            self._leave(rest, [node], [word for word in _BOUNDS if _misprinted(node.get(word))])
        bounds = self._bounds(layers)
        for op in (">", ">=", "<", "<="):
            if op in bounds:
                base = Binary("&", base, Unary(op, number(bounds[op])))
        factors = list(dict.fromkeys(node["multipleOf"] for node in layers if "multipleOf" in node))
        for factor in factors:
            # KubeVela's OpenAPI conversion fails on a fraction, and on what is beyond 64 bits.
            if float(factor).is_integer() and factor < 2**63:
                base = Binary("&", base, call("math", "MultipleOf", whole_number(factor)))
                # What Go writes as a whole number has 21 digits at most.
                if name == "number" or self.integers == "json":
                    unbounded = [node for node in layers if node.get("multipleOf") == factor]
                    self._leave(rest, [one for one in unbounded if not bounded(one, factor)], ["multipleOf"])
            else:
                self._leave(rest, [node for node in layers if node.get("multipleOf") == factor], ["multipleOf"])
        return base

    @staticmethod
    def _bounds(layers: tuple[Node, ...]) -> dict[str, Any]:
        """The tightest bounds, by CUE operator."""

        def found(*words: str) -> list[tuple[Any, bool]]:
            return [
                (node[word], word != words[0])
                for node in layers
                for word in words
                if word in node and not _misprinted(node[word])
            ]

        least, most = found("minimum", "exclusiveMinimum"), found("maximum", "exclusiveMaximum")
        out: dict[str, Any] = {}
        if least:
            value, exclusive = max(least)
            out[">" if exclusive else ">="] = value
        if most:
            value, exclusive = min(most, key=lambda one: (one[0], not one[1]))
            out["<" if exclusive else "<="] = value
        return out

    def _string(self, layers: tuple[Node, ...]) -> Expr:
        parts: list[Expr] = []
        least = max((int(node["minLength"]) for node in layers if "minLength" in node), default=0)
        most = min((int(node["maxLength"]) for node in layers if "maxLength" in node), default=None)
        if least:
            parts.append(call("strings", "MinRunes", Lit(least)))
        if most is not None:
            parts.append(call("strings", "MaxRunes", Lit(most)))
        for node in layers:
            if "pattern" in node:
                try:
                    parts.append(Unary("=~", self.violations.pattern(node, "pattern", node["pattern"])))
                except InexactError as refusal:
                    self.refuse(refusal)
            if self.assert_formats and node.get("format") in FORMATS:
                parts.append(FORMATS[node["format"]].cue)
        if not parts:
            parts.append(Ident("string"))
        return joined("&", dict.fromkeys(parts))

    def _array(self, layers: tuple[Node, ...], rest: Rest) -> Expr:
        self._leave(rest, layers, ("minItems", "contains", "x-kubernetes-list-map-keys"))
        if any("prefixItems" in node for node in layers) or any(node.get("items") is False for node in layers):
            self._leave(rest, layers, ("prefixItems", "items", "maxItems", "uniqueItems", "unevaluatedItems"))
            return TYPE["array"]
        nodes = [node.sub("items") for node in layers if "items" in node]
        item, below = self.typed(self.layers(*nodes)) if nodes else (None, Rest())
        if below:
            rest.items = below
        expr: Expr = ListLit((Ellipsis(item),))
        most = min((int(node["maxItems"]) for node in layers if "maxItems" in node), default=None)
        if most is not None:
            expr = Binary("&", expr, call("list", "MaxItems", Lit(most)))
        if any(node.get("uniqueItems") for node in layers):
            comparable = {"null", "boolean", "string", *(["integer"] if self.integers == "kubevela" else [])}
            if nodes and below.types <= comparable:
                expr = Binary("&", expr, call("list", "UniqueItems"))
            else:
                self._leave(rest, layers, ["uniqueItems"])
        if not nodes:
            self._leave(rest, layers, ["unevaluatedItems"])
        else:
            self._leave(rest, [node for node in layers if "items" not in node], ["unevaluatedItems"])
        return expr

    # ------------------------------------------------------------ objects

    def _object(self, layers: tuple[Node, ...], rest: Rest) -> Expr:
        named: dict[str, list[Node]] = {}
        patterns: dict[str, list[Node]] = {}
        for node in layers:
            for name in node.get("properties", {}):
                named.setdefault(name, []).append(node.sub("properties", name))
            for pattern in node.get("patternProperties", {}):
                patterns.setdefault(pattern, []).append(node.sub("patternProperties", pattern))
        others = self._closing(layers, set(named), set(patterns), rest)
        self._leave(
            rest,
            layers,
            ("minProperties", "maxProperties", "propertyNames", "dependentRequired", "dependentSchemas", "x-checks"),
        )
        closed = any(node.contents is False for node in others)
        required: dict[str, Node] = {}
        for node in layers:
            for name in node.get("required", ()):
                required.setdefault(name, node)
        decls: list[Decl] = []
        for name, nodes in named.items():
            decls.extend(self._property(name, nodes, required.pop(name, None), closed and not patterns, rest))
        if not closed:
            decls.extend(self._chosen_fields(layers, set(named)))
        for name, node in required.items():
            rest.required.append((node, name))
            decls.append(Field(label_of(name), TOP, "!"))
        literals: list[Lit] = []
        for pattern, nodes in patterns.items():
            try:
                matching = self.violations.pattern(nodes[0], "", pattern)
            except InexactError as refusal:
                self.refuse(refusal)
                continue
            literals.append(matching)
            expr, below = self.typed(self.layers(*nodes))
            decls.append(Field(Pattern(Unary("=~", matching)), expr))
            if below:
                rest.values.append(((("=~", matching),), below))
        if others and not closed:
            expr, below = self.typed(self.layers(*others))
            conditions: list[tuple[str, Lit]] = [("!~", one) for one in literals]
            unlike = [("!~", one) for one in literals]
            if named:
                conditions.append(("!~", Lit(either(named), raw=True)))
            # A named property of which the same is asked is checked with the others.
            alike = [one for one in rest.properties if one[0] in named and one[2].key() == below.key()]
            rest.properties = [one for one in rest.properties if one not in alike]
            apart = named.keys() - {name for name, _, _ in alike}
            if apart:
                unlike.append(("!~", Lit(either(name for name in named if name in apart), raw=True)))
            if expr != TOP:
                matching_all: Expr = (
                    joined("&", (Unary(op, one) for op, one in conditions)) if conditions else Ident("string")
                )
                decls.append(Field(Pattern(matching_all), expr))
            if below:
                rest.values.append((tuple(unlike), below))
        if closed:
            return Call(Ident("close"), (Struct(tuple(decls)),))
        return Struct(tuple(decls)) if decls else _OPEN

    @staticmethod
    def _unions(layers: tuple[Node, ...]) -> list[Union]:
        found = [union_of(node, keyword) for node in layers for keyword in ("oneOf", "anyOf")]
        return [one for one in found if one is not None]

    def _chosen_fields(self, layers: tuple[Node, ...], named: set[str]) -> Iterator[Decl]:
        """The discriminator of a union and the properties of its branches: what the form shows; checks judge them."""
        for union in self._unions(layers):
            variants: dict[str, list[Node]] = {union.name: []}
            for branch in union.branches:
                for node in self.layers(branch.node):
                    for name in node.get("properties", {}):
                        variants.setdefault(name, []).append(node.sub("properties", name))
            for name, nodes in variants.items():
                if name in named:
                    continue
                named.add(name)
                expr: Expr = TOP
                if self.face == "form":
                    types = [self.typed(self.layers(node))[0] for node in nodes]
                    options = [option for one in types for option in _options(one)]
                    plain_ones = all(isinstance(option, (Lit, Ident)) for option in options)
                    expr = types[0] if all(one == types[0] for one in types) else TOP
                    if plain_ones and len(options) <= MAX_OPTIONS:
                        expr = joined("|", dict.fromkeys(options))
                doc = next((text for node in nodes if (text := self._doc(Shape(self.layers(node))))), ())
                # At the root CUE 0.9 takes a required field for a value that is there, and the checks would bite.
                required = name == union.name and self.face == "form" and len(self.path) > 1
                constraint = "!" if required else "?"
                yield Field(label_of(name), expr, constraint, doc=doc)

    def _closing(self, layers: tuple[Node, ...], named: set[str], patterns: set[str], rest: Rest) -> list[Node]:
        """The schemas of the properties that nothing names, where a type can say them; the rest is left to checks."""
        others: list[Node] = []
        dynamic = any(set(node.view) & {"anyOf", "oneOf", "if", "dependentSchemas", "not"} for node in layers)
        for position, node in enumerate(layers):
            if "additionalProperties" in node:
                if named <= set(node.get("properties", {})) and patterns <= set(node.get("patternProperties", {})):
                    others.append(node.sub("additionalProperties"))
                else:
                    rest.own.append((node, frozenset(["additionalProperties"])))
            if "unevaluatedProperties" in node:
                if any("additionalProperties" in other for other in layers) or dynamic or position:
                    rest.own.append((node, frozenset(["unevaluatedProperties"])))
                else:
                    others.append(node.sub("unevaluatedProperties"))
        return [node for node in others if node.contents is not True]

    def _property(
        self, name: str, nodes: list[Node], required: Node | None, closed: bool, rest: Rest
    ) -> Iterator[Decl]:
        layers = self.layers(*nodes)
        shape = Shape(layers)
        if any(node.contents is False for node in layers):
            if not closed:
                yield Field(label_of(name), TOP, "?")
                below = Rest(own=[(node, ASSERTIONS) for node in layers])
                rest.properties.append((name, False, below))
            elif required is not None:
                rest.required.append((required, name))
            return
        expr, below = self.typed(layers)
        constraint = "!" if required is not None else "?"
        if shape.has_default:
            default = filled_in(shape, shape.default)
            if self.face == "render" and not isinstance(default, (dict, list)):
                expr, below = self._everything(layers)
            elif _lists_objects(default):
                expr, below = _without_patterns(expr), self._everything(layers)[1]
            self._default_lets_more = False
            filled = self._defaulted(layers, expr, below, default)
            if self._default_lets_more:
                below = self._everything(layers)[1]
            if filled is not None:
                expr, constraint = filled, ""
                kinds = {"number" if one == "integer" else one for one in types_of(layers)}
                if len(kinds) > 1 and not isinstance(default, dict):
                    below.default = literal(default)
        if constraint == "!" and required is not None:
            rest.required.append((required, name))
        if below:
            rest.properties.append((name, constraint == "", below))
        yield Field(label_of(name), expr, constraint, doc=self._doc(shape))

    @staticmethod
    def _doc(shape: Shape) -> tuple[str, ...]:
        text = shape.description or shape.title
        if not text:
            return ()
        # KubeVela reads one line.
        return ("+usage=" + " ".join(text.split()),)

    def _defaulted(self, layers: tuple[Node, ...], expr: Expr, rest: Rest, default: Any) -> Expr | None:
        """*expr* with *default* marked, in a form that KubeVela's OpenAPI conversion takes; None if refused."""
        place = next(node for node in layers if "default" in node)
        for node in layers:
            error = next(iter(validator_for(node, assert_formats=self.assert_formats).errors(default)), None)
            if error is not None:
                reason = f"the default {_short(default)} breaks the schema it stands in: {error.message[:200]}"
                self.refuse(InexactError(place, "default", reason, "give a default that is valid"))
                return None
        if _misprinted(default):
            reason = f"KubeVela's form conversion on CUE 0.9 can't write {default}"
            self.refuse(InexactError(place, "default", reason, "leave the default to the template"))
            return None
        if isinstance(default, dict):
            return self._object_default(expr, default, Shape(layers))
        if isinstance(default, list):
            return Binary("|", Unary("*", literal(default)), expr)
        mark = (
            self._constant(default)
            if not isinstance(default, (int, float)) or isinstance(default, bool)
            else number(default)
        )
        options = list(_options(expr))
        if mark in options or any(isinstance(option, Lit) for option in options):
            wanted = [Unary("*", option) if option == mark else option for option in options]
            if not any(isinstance(option, Unary) and option.op == "*" for option in wanted):
                wanted.insert(0, Unary("*", mark))
            # A mark needs an alternative beside it; where there is none, the one value stands by itself.
            return joined("|", wanted) if len(wanted) > 1 else mark
        out: list[Expr] = []
        for option in options:
            out.extend(self._beside_default(layers, option, rest, default))
        if not any(not _is_spoken(one) for one in out):
            return joined("|", [self._constant(default), *out])
        return joined("|", [Unary("*", mark), *out])

    def _beside_default(self, layers: tuple[Node, ...], option: Expr, rest: Rest, default: Any) -> list[Expr]:
        """*option* as it can stand beside a default: the conversion takes no ``&`` there unless ranges are split."""
        parts = list(_conjuncts(option))
        if len(parts) == 1 or _is_spoken(option):
            return [option]
        if _is_string(parts[0]):
            kept = next((part for part in parts if isinstance(part, Unary)), parts[0])
            word = _string_keyword(kept)
            for node in layers:
                self._leave(rest, [node], set(STRING_KEYWORDS) - ({word} if word else set()))
            return [kept]
        types = types_of(layers)
        bounds = self._bounds(layers)
        whole = "integer" in types
        base = [part for part in parts if not (isinstance(part, Unary) and part.op in (">", ">=", "<", "<="))]
        if not bounds or json_type(default) != "number":
            if len(base) > 1 and json_type(default) == "number":
                return [joined("&", base)]
            return [option]
        low, high = _split(bounds, default, whole)
        if low is None or high is None:
            return []  # the default is all there is
        return [joined("&", [*base, *(Unary(op, number(value)) for op, value in side)]) for side in (low, high)]

    def _object_default(self, expr: Expr, default: dict[str, Any], shape: Shape) -> Expr:
        if not default and not any(
            isinstance(decl, Field) and decl.constraint == "!" for decl in _struct_of(expr).decls
        ):
            return expr
        return Binary("|", Unary("*", self._marked(default, shape)), expr)

    def _marked(self, value: Any, shape: Shape | None) -> Expr:
        """*value*, inside the default of an object, in a form that KubeVela's OpenAPI conversion takes.

        Each object is closed, else the default would let through what the alternative beside it refuses. The
        conversion takes no list of a fixed length, unless the property is declared as a list in that alternative.
        """
        if isinstance(value, dict):
            inner = {name: shape.property(name) if shape else None for name in value}
            decls = tuple(Field(name, self._marked_in(item, shape, inner[name])) for name, item in value.items())
            return Call(Ident("close"), (Struct(decls),))
        return literal(value)

    def _marked_in(self, value: Any, around: Shape | None, found: Property | None) -> Expr:
        declared = around is not None and found is not None and found.name in around.properties
        if not isinstance(value, list) or (declared and found is not None and not found.shape.has_default):
            return self._marked(value, found.shape if found else None)
        items = found.shape.items if found else None
        before = self._default_lets_more
        whole = self.typed(items.layers)[0] if items else None
        element = _without_patterns(whole) if whole is not None else None
        # Such as a map of texts, which is any object there: the rules say what the type does not.
        self._default_lets_more = before or element != whole
        return Binary("|", Unary("*", literal(value)), ListLit((Ellipsis(element),)))

    # ------------------------------------------------------------ checks

    def placed(self, rest: Rest, is_object: bool, is_open: bool) -> tuple[list[Decl], list[Decl]]:
        """The checks that stand inside ``parameter``, and those that stand beside it."""
        root = Ident("parameter")
        inside: list[Decl] = []
        outside: list[Decl] = []
        # Taken out of a list, the value is read as a whole, where `cue vet` brings it in from another file too.
        loose = Ident("value")
        given = (For("value", ListLit((root,))), Guard(_is_given(loose)))
        found = list(self.rules(rest, root if is_object else loose, (), Words(()), waits=True))
        is_open = is_open and len(found) <= MAX_INSIDE
        for full, waits in found:
            message: Expr = full.message
            rule = dataclasses.replace(full, clauses=tuple(one for one in full.clauses if not self.always(one)))
            rewritten = (
                tuple(self.inward(clause) for clause in rule.clauses)
                if is_open and not (waits and self.standalone)
                else None
            )
            if rewritten is not None and None not in rewritten:
                verdict = Binary("&", message, self.waiting()) if waits and is_object else Binary("&", message, Lit(1))
                clauses = tuple(clause for clause in rewritten if clause is not None)
                inside.append(self.check(clauses, verdict, rule.label, hidden=True))
            elif is_object and waits:
                outside.append(self.check(rule.clauses, Binary("&", message, self.waiting()), rule.label))
            else:
                clauses = rule.clauses if is_object else (*given, *rule.clauses)
                outside.append(self.check(clauses, Binary("&", message, Lit(1)), rule.label))
        tables, others = tabled(outside)
        return list(nested(inside)), [*tables, *nested(others)]

    def always(self, clause: Cue) -> bool:
        """Whether *clause* asks for a property of the root that a default fills in."""
        match clause:
            case Guard(
                condition=Binary(op="!=", left=Selector(of=Ident(name="parameter"), name=str() as name), right=to)
            ):
                return to == BOTTOM and name in self.defaults()
        return False

    def waiting(self) -> Expr:
        """Something that conflicts with a sentence, but only once there is a parameter."""
        if self.context is None:
            return Lit(1)
        self._waits = True
        return Ident("_given") if self.standalone else self.rendering()

    def rendering(self) -> Expr:
        """A text that KubeVela gives when it renders, and nobody gives before."""
        if self.context is None:
            return Lit(1)
        first, *steps = self.context.split(".")
        expr: Expr = Ident(first)
        for step in steps:
            expr = Selector(expr, step)
        return expr

    def check(self, clauses: tuple[Cue, ...], verdict: Expr, label: str, *, hidden: bool = False) -> Decl:
        found = Field(Hidden(label) if hidden else label, verdict)
        return Comprehension(clauses, Struct((found,))) if clauses else found

    def rules(
        self, rest: Rest, ref: Expr, guards: tuple[Cue, ...], words: Words, *, waits: bool
    ) -> Iterator[tuple[_Rule, bool]]:
        """Every check that *rest* asks for, and whether an empty parameter could break it."""

        def rule(clauses: tuple[Cue, ...], message: Words, node: Node, keyword: str) -> tuple[_Rule, bool]:
            self.cost += 1
            if self.cost > MAX_NODES:
                raise TooLargeError(node)
            label = _label(words, message)
            reads = waits and not self._guarded(clauses) and not self._holds_empty(node, keyword)
            return _Rule((*guards, *clauses), interpolation(message), label), reads

        def own(select: Callable[[frozenset[str]], frozenset[str]]) -> Iterator[tuple[_Rule, bool]]:
            for node, keywords in rest.own:
                try:
                    found = self.violations.of(node, ref, words, rest.types, select(keywords))
                    for one in self.violations.merged(found, ref):
                        yield rule(one.clauses, one.message, one.node, one.keyword)
                except TooLargeError:
                    raise
                except InexactError as refusal:
                    self.refuse(refusal)

        # What compares properties comes after what judges each by itself: the first error is the one that is read.
        yield from own(lambda keywords: keywords - COMPARING)
        is_object = () if rest.types == {"object"} else (Guard(is_type(ref, "object")),)
        is_array = () if rest.types == {"array"} else (Guard(is_type(ref, "array")),)
        for node, name in rest.required:
            clauses = (*is_object, Guard(absent(Selector(ref, name))))
            yield rule(clauses, sentence(node, "required", name, words), node, "required")
        hoisted = self._said_twice(rest) if ref == Ident("parameter") else {}
        for names, always, whole in _alike(rest.properties):
            if len(names) == 1 and names[0] in hoisted:
                yield from self._for_each_owner(names[0], whole, hoisted[names[0]], ref)
                continue
            below = _leaving_out(whole, [name for name, owners in hoisted.items() if owners == names])
            shown: str | Expr = names[0]
            there: Expr = Selector(ref, names[0])
            guard: tuple[Cue, ...] = is_object
            if len(names) > 1:
                variable = self.violations.name("name")
                shown = Ident(variable)
                there = Index(ref, shown)
                guard = (*guard, For(variable, ListLit(tuple(Lit(one) for one in names))))
            if not always:
                guard = (*guard, Guard(present(there)))
            if below.default is not None:
                guard = (*guard, Guard(absent(Binary("&", there, below.default))))
            # A default was checked against its schema, so an empty parameter breaks nothing below.
            yield from self.rules(below, there, (*guards, *guard), words.name(shown), waits=False)
        if rest.items is not None:
            index, item = self.violations.name("i"), self.violations.name("x")
            found = list(self.rules(rest.items, Ident(item), (), words.item(Ident(index)), waits=False))
            used = any(
                isinstance(part, Ident) and part.name == index
                for inner, _ in found
                for part_of in (inner.message, *inner.clauses)
                for part in part_of.walk()
            )
            each = For(item, ref, key=index if used else "")
            for inner, _ in found:
                yield _Rule((*guards, *is_array, each, *inner.clauses), inner.message, inner.label), False
        for conditions, below in rest.values:
            key, item = self.violations.name("key"), self.violations.name("x")
            matching = tuple(Guard(Binary(op, Ident(key), one)) for op, one in conditions)
            guard = (*is_object, For(item, ref, key=key), *matching)
            yield from self.rules(below, Ident(item), (*guards, *guard), words.name(Ident(key)), waits=False)
        yield from own(lambda keywords: keywords & COMPARING)

    @staticmethod
    def _said_twice(rest: Rest) -> dict[str, list[str]]:
        """Properties of which the same is asked inside others: name, and the names of those others."""
        own = {name: below.key() for name, always, below in rest.properties if not always and _is_long(below)}
        found: dict[str, list[str]] = {}
        for names, always, below in _alike(rest.properties):
            for name, _, inner in below.properties:
                if not always and below.types == {"object"} and name not in names and own.get(name) == inner.key():
                    found.setdefault(name, names)
        return found

    def _for_each_owner(self, name: str, below: Rest, owners: list[str], ref: Expr) -> Iterator[tuple[_Rule, bool]]:
        """The checks of what the root and *owners* in it have under the same name: ``at`` is the way there."""
        at, owner, own = self.violations.name("at"), self.violations.name("owner"), self.violations.name("own")
        mine, theirs = Selector(ref, name), Selector(Index(ref, Ident(owner)), name)
        places = Struct(
            (
                Comprehension((Guard(present(mine)),), Struct((Field("", mine),))),
                Comprehension(
                    (For(owner, ListLit(tuple(Lit(one) for one in owners))), Guard(present(theirs))),
                    Struct((Field(Interpolation((Ident(owner), ".")), theirs),)),
                ),
            )
        )
        words = Words((Ident(at), name))
        yield from self.rules(below, Ident(own), (For(own, places, key=at),), words, waits=False)

    def _holds_empty(self, node: Node, keyword: str) -> bool:
        """Whether a parameter of which nothing but the defaults is given satisfies *keyword* of *node*."""
        if not isinstance(node.contents, dict) or keyword == "required":
            return False
        if keyword == "x-kubernetes-validations":
            return rules_hold(node, self.defaults())
        with_it = {"if": ("then", "else"), "contains": ("minContains", "maxContains")}.get(keyword, ())
        view = {name: value for name, value in node.view.items() if name == keyword or name in with_it}
        alone = dataclasses.replace(node, contents=view, dialect=2020)
        try:
            return validator_for(alone, assert_formats=self.assert_formats).is_valid(self.defaults())
        except InexactError:
            return False

    def defaults(self) -> dict[str, Any]:
        """What the root holds when the user gives nothing."""
        if self._defaults is None:
            properties = Shape(layers_or_none(self.schema.root)).properties
            self._defaults = {
                name: filled_in(one.shape, one.shape.default)
                for name, one in properties.items()
                if one.shape.has_default
            }
        return self._defaults

    def _guarded(self, clauses: tuple[Cue, ...]) -> bool:
        """Whether the clauses ask first for a property that only a user can give."""
        defaults = self.defaults()
        for clause in clauses:
            match clause:
                case Guard(
                    condition=Binary(
                        op="!=", left=Selector(of=Ident(name="parameter"), name=str() as name), right=right
                    )
                ):
                    if right == BOTTOM and name not in defaults:
                        return True
                case For():
                    return False
        return False

    # ------------------------------------------------------------ references from inside parameter

    def inward(self, node: Cue) -> Cue | None:
        """*node* with ``parameter.x`` as ``x``, for a place inside ``parameter``; None where it needs the whole."""
        try:
            return self._inside(node)
        except _NeedsTheWholeError:
            return None

    def _inside(self, node: Cue) -> Cue:
        match node:
            case Selector(of=Ident(name="parameter"), name=str() as name) if plain(name) and name in self.declared:
                return Ident(name)
            case Ident(name="parameter"):
                raise _NeedsTheWholeError
        return node.rebuilt(self._inside)


class _NeedsTheWholeError(Exception):
    """Raised at a reference to ``parameter`` that no name inside it can stand for."""


def _alike(properties: list[tuple[str, bool, Rest]]) -> Iterator[tuple[list[str], bool, Rest]]:
    """Properties that leave the same rules of the same schemas together, in the order of the first of each."""
    groups: dict[Hashable, list[tuple[str, bool, Rest]]] = {}
    for name, always, below in properties:
        groups.setdefault((always, below.key()), []).append((name, always, below))
    for group in groups.values():
        _, always, below = group[0]
        yield [name for name, _, _ in group], always, below


#: So many properties of one object are much to ask.
_MANY = 4


def _is_long(rest: Rest) -> bool:
    """Whether there is much to ask below a place: of parts of parts, or of many parts."""
    parts = [below for _, _, below in rest.properties]
    long = any(below.properties or below.values for below in parts) or len(parts) >= _MANY
    return rest.items is not None or bool(rest.values) or long


def _leaving_out(rest: Rest, names: list[str]) -> Rest:
    return dataclasses.replace(rest, properties=[one for one in rest.properties if one[0] not in names])


#: So many properties of which nothing is asked at render are worth a pattern.
_FEWEST_BY_PATTERN = 3


def _named_once(loose: Expr, shown: Struct) -> tuple[Expr, Struct]:
    """A closed object with patterns for properties that may be anything or are definitions; *shown* declares them.

    KubeVela walks through every field that a definition declares, given or not, whenever it renders (kubevela/pkg
    cue/util, Iterate), and not through patterns.
    """
    decls = _decls_of(loose) if isinstance(loose, Call) else ()
    fields = [one for one in decls if isinstance(one, Field) and one.constraint]
    names: dict[Expr, list[str]] = {}
    for one in fields:
        names.setdefault(one.value, []).append(str(getattr(one.label, "name", one.label)))
    worth = {
        value
        for value, found in names.items()
        if (value == TOP and len(found) >= _FEWEST_BY_PATTERN)
        or (isinstance(value, Ident) and value.name.startswith("#"))
    }
    moved = {repr(one.label): one for one in fields if one.value in worth}
    if not moved:
        return loose, shown
    note = "Any value passes here, and the checks of _parameter refuse a wrong one in words."
    patterns = [
        Field(Pattern(Unary("=~", Lit(either(names[value]), raw=True))), value, doc=(note,) if value == TOP else ())
        # Last the long one: cue fmt lines up what follows the widest label.
        for value in sorted(names, key=lambda one: one == TOP)
        if value in worth
    ]
    kept = [one for one in decls if one not in moved.values()]
    said = {repr(one.label) for one in shown.decls if isinstance(one, Field)}
    described = [
        dataclasses.replace(one, doc=moved[repr(one.label)].doc)
        if isinstance(one, Field) and repr(one.label) in moved
        else one
        for one in shown.decls
    ]
    others = [one for label, one in moved.items() if label not in said]
    return Call(Ident("close"), (Struct((*kept, *patterns)),)), Struct((*described, *others))


def _beyond(form: Expr, loose: Expr) -> Expr | None:
    """What *form* says that *loose* does not; None where they are the same."""
    if form == loose:
        return None
    wanted, had = _decls_of(form), _decls_of(loose)
    if wanted and had:
        there = {repr(decl.label): decl for decl in had if isinstance(decl, Field)}
        found: list[Decl] = []
        for decl in wanted:
            if not isinstance(decl, Field):
                continue
            other = there.get(repr(decl.label))
            value = decl.value if other is None else _beyond(decl.value, other.value)
            if value is not None:
                found.append(Field(decl.label, value, decl.constraint))
        return Struct(tuple(found)) if found else None
    match form, loose:
        case ListLit(items=(Ellipsis(of=Expr() as item),)), ListLit(items=(Ellipsis(of=Expr() as other_item),)):
            inner = _beyond(item, other_item)
            return None if inner is None else ListLit((Ellipsis(inner),))
        case Binary(op="&", left=left, right=right), Binary(op="&", left=other_left, right=other_right):
            if right == other_right:
                return _beyond(left, other_left)
    return form


def _decls_of(expr: Expr) -> tuple[Decl, ...]:
    match expr:
        case Struct(decls=decls) | Call(function=Ident(name="close"), args=(Struct(decls=decls),)):
            return decls
    return ()


def _has_default(expr: Expr) -> bool:
    return any(isinstance(one, Unary) and one.op == "*" for one in expr.walk())


def _lists_objects(default: Any) -> bool:
    """Whether an object stands in a list of *default*: it is open there, since the form's conversion takes no other.

    So as a default it lets through any other object, and types alone can't say what the schema does.
    """
    if isinstance(default, list):
        return any(isinstance(one, dict) or _lists_objects(one) for one in default)
    return isinstance(default, dict) and any(map(_lists_objects, default.values()))


def _without_patterns(expr: Expr) -> Expr:
    """*expr* whose maps are open objects: beside a list of objects the form's conversion takes no map of a type."""

    def opened(node: Cue) -> Cue:
        decls = _decls_of(node) if isinstance(node, Expr) else ()
        if any(isinstance(one, Field) and isinstance(one.label, Pattern) for one in decls):
            kept = [one for one in decls if not (isinstance(one, Field) and isinstance(one.label, Pattern))]
            others = [one for one in kept if not isinstance(one, Ellipsis)]
            return Struct((*(one.rebuilt(opened) for one in others), Ellipsis()))
        return node.rebuilt(opened)

    found = opened(expr)
    assert isinstance(found, Expr)  # of an expression is made an expression
    return found


def filled_in(shape: Shape, default: Any) -> Any:
    """A default with those of the properties in it, which hold where it leaves them out."""
    if isinstance(default, list) and shape.items is not None:
        return [filled_in(shape.items, one) for one in default]
    if not isinstance(default, dict):
        return default
    found = dict(default)
    for name, one in shape.properties.items():
        if name in found or one.shape.has_default:
            found[name] = filled_in(one.shape, found.get(name, one.shape.default if one.shape.has_default else None))
    return found


def layers_or_none(node: Node) -> tuple[Node, ...]:
    """The layers, or none where a reference is broken; the compiler refuses that later."""
    try:
        return layers_of(node)
    except InexactError:
        return ()


def plain(name: str) -> bool:
    """Whether *name* can be a bare label that expressions refer to."""
    return bool(_PLAIN.match(name)) and name not in _MEANT


def label_of(name: str) -> Any:
    """*name* as a label: bare where that is safe, quoted elsewhere."""
    return Name(name) if plain(name) else name


def _label(words: Words, message: Words) -> str:
    """The label of a check: the property that it is about."""
    text = "".join(part for part in words.parts if isinstance(part, str))
    if not text:
        first = message.parts[0] if message.parts and isinstance(message.parts[0], str) else ""
        text = first.split(" ")[0]
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:60] or "check"


def _is_given(root: Expr) -> Expr:
    """False for a parameter that nobody gave, which unifies with anything: with null and with true."""
    return Binary("||", absent(Binary("&", root, Lit(None))), absent(Binary("&", root, Lit(True))))


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def _misprinted(value: Any) -> bool:
    """Whether CUE 0.9's OpenAPI converter writes the number as no JSON: -0.5 as ``-.5``."""
    return isinstance(value, float) and -1 < value < 0


def _without(node: Node, *keywords: str) -> Node:
    """*node* as if it did not have *keywords*."""
    if isinstance(node.contents, bool):
        return node
    kept = {name: value for name, value in node.view.items() if name not in keywords}
    return dataclasses.replace(node, contents=kept, dialect=2020)


def _spoken(message: str) -> Expr:
    return Binary("&", Lit(message), Lit(1))


def _is_spoken(expr: Expr) -> bool:
    match expr:
        case Binary(op="&", left=Lit(value=str()), right=Lit(value=1)):
            return True
    return False


def _overlap(left: frozenset[str], right: frozenset[str]) -> bool:
    wide = {"integer": "number"}
    return bool({wide.get(one, one) for one in left} & {wide.get(one, one) for one in right})


def _options(expr: Expr) -> Iterator[Expr]:
    """The alternatives of a disjunction."""
    rights: list[Expr] = []
    while isinstance(expr, Binary) and expr.op == "|":
        rights.append(expr.right)
        expr = expr.left
    yield expr
    for right in reversed(rights):
        yield from _options(right)


def _conjuncts(expr: Expr) -> Iterator[Expr]:
    if isinstance(expr, Binary) and expr.op == "&":
        yield from _conjuncts(expr.left)
        yield from _conjuncts(expr.right)
    else:
        yield expr


def _is_string(expr: Expr) -> bool:
    match expr:
        case Ident(name="string") | Unary(op="=~"):
            return True
        case Call(function=Selector(of=of)) | Selector(of=of):
            return getattr(of, "path", "") in ("strings", "time", "net", "regexp")
    return False


def _string_keyword(expr: Expr) -> str | None:
    """The keyword that alone *expr* stands for, or None."""
    match expr:
        case Call(function=Selector(name="MinRunes")):
            return "minLength"
        case Call(function=Selector(name="MaxRunes")):
            return "maxLength"
    return None


_Side = list[tuple[str, Any]]


def _split(bounds: dict[str, Any], default: Any, whole: bool) -> tuple[_Side | None, _Side | None]:
    """Two ranges that together are the one of *bounds*; both None where it holds one number alone."""
    low = next(((op, bounds[op]) for op in (">", ">=") if op in bounds), None)
    high = next(((op, bounds[op]) for op in ("<", "<=") if op in bounds), None)
    if low and high and low[1] == high[1]:
        return None, None
    step = 1 if whole else 0
    middle = default
    if low and (middle <= low[1] or (whole and middle < low[1] + 1)):
        middle = low[1] + 10 if high is None else (low[1] + high[1]) / 2
    if high and middle + step >= high[1]:
        middle = high[1] - 10 if low is None else (low[1] + high[1]) / 2
    if whole:
        middle = int(middle // 1)
        above: tuple[str, Any] = (">=", middle + 1)
    else:
        above = (">", middle)
    first = [*([low] if low else []), ("<=", middle)]
    second = [above, *([high] if high else [])]
    return first, second


def _struct_of(expr: Expr) -> Struct:
    match expr:
        case Struct():
            return expr
        case Call(function=Ident(name="close"), args=(Struct() as inner,)):
            return inner
    return Struct((Field("", TOP, "!"),))


def _extended(expr: Expr, decls: list[Decl]) -> Expr:
    """The struct *expr* with *decls* at its end."""
    match expr:
        case Struct(decls=own):
            return Struct((*own, *decls))
        case Call(function=Ident(name="close"), args=(Struct(decls=own),)):
            return Call(Ident("close"), (Struct((*own, *decls)),))
    raise TypeError(type(expr).__name__)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
