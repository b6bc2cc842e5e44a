"""X-definitions in CUE: metadata, attributes, status, template and parameter of each definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from velagen import cue
from velagen.definition.addon_default import ADDON_DEFAULT, BOUND, KINDS, addon_defaults, manifest, marks
from velagen.definition.catalog import Known
from velagen.definition.load import Source, load_definitions
from velagen.definition.model import (
    DEFINITION_TYPES,
    AddonTemplate,
    Component,
    Definition,
    DefinitionType,
    Policy,
    Status,
    Trait,
    WorkflowStep,
    Workload,
)
from velagen.definition.raw import wrong_raw
from velagen.errors import Place, Problem, VelagenError
from velagen.project import Project
from velagen.schema import CompiledSchema, Schema, compile_schema
from velagen.schema.model import pointer_token
from velagen.schema.opened import at_render, unsure
from velagen.template.blocks import placed
from velagen.template.compiler import STATUS_CONTEXT, ObjectSchemas, TemplateCompiler, parameter_type, top_fields
from velagen.template.functions import to_json
from velagen.template.places import Key
from velagen.template.types import ANY_OBJECT, UNKNOWN, Fields, JsonType, Member, ObjectType, Type, any_of
from velagen.template.values import CONTEXT, MESSAGE_CONTEXT, STEP_CONTEXT

#: Above a component's definition: the traits that are not for it, a line each, and what to write instead.
INSTEAD_OF = "Traits that do not work on this component, and what velagen check says to write instead:"
#: In a schema: what an application says of this property first, it says for good.
IMMUTABLE = "x-immutable"
#: Fields of a status as KubeVela calls them, and as an author wrote them.
_AS_WRITTEN = {
    "healthPolicy": ("status.healthPolicy.isHealth", "healthy="),
    "customStatus": ("status.customStatus.message", "message="),
}
#: Source: kubevela pkg/definition/ast/transformer.go.
_LONGEST_DETAIL = 31


@dataclass(frozen=True)
class BuiltDefinition:
    """A definition as the addon carries it."""

    name: str
    type: DefinitionType
    cue: str
    schema: Schema
    definition: Definition
    source: Path
    #: What its schema says without effect, or what only the API server will judge.
    warnings: tuple[Problem, ...] = ()

    def known(self) -> Known:
        """The definition as far as an application's author meets it."""
        definition = self.definition
        return Known(
            self.type,
            self.name,
            self.schema,
            definition.workload.type if isinstance(definition, Component) else "",
            tuple(definition.applies_to) if isinstance(definition, Trait) else (),
            tuple(definition.conflicts_with) if isinstance(definition, Trait) else (),
            definition.instead_of if isinstance(definition, Component) else {},
            self.cue,
            own=True,
        )


@dataclass(frozen=True)
class BuiltAddonTemplate:
    """The addon's own files."""

    template_cue: str
    parameter_cue: str
    notes_cue: str
    schema: Schema | None
    #: As those of a definition.
    warnings: tuple[Problem, ...] = ()


def build_definitions(project: Project) -> tuple[BuiltDefinition, ...]:
    """Every definition of *project* in CUE, by module name.

    Raises VelagenError with all problems of all definitions.
    """
    return build(project)[0]


def build_addon_template(project: Project) -> BuiltAddonTemplate:
    """The addon's Application, parameter and notes in CUE; an addon of definitions only where there is no addon.py.

    Raises VelagenError with all problems.
    """
    return build(project)[1]


def build(project: Project, version: str = "") -> tuple[tuple[BuiltDefinition, ...], BuiltAddonTemplate]:
    """The definitions and the addon's own template, everything read once.

    In: the project; the *version* that each definition says of itself, empty for none.
    Raises VelagenError with all problems.
    """
    # The store reads and caches upstream's CRDs, which nothing else here needs.
    from velagen.kubernetes.crds import crd_store

    schemas = crd_store(project.crds).schema
    problems: list[Problem] = []
    built: list[tuple[BuiltDefinition, _Builder]] = []
    addon = BuiltAddonTemplate(_EMPTY_TEMPLATE, _EMPTY_PARAMETER, "", None)
    sources = load_definitions(project)
    asked, wrong = _addon_defaults(sources)
    problems += wrong
    bound = frozenset(DEFINITION_TYPES[type(definition)] for definition in asked)

    def part(source: Source, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except VelagenError as error:
            problems.extend(error.problems)
        except RecursionError:
            place = _plain(source.definition.place)
            problems.append(Problem("a body is nested too deep, or holds itself", place))

    for source in sources:
        if not isinstance(definition := source.definition, AddonTemplate):
            made = part(source, lambda: _definition(source, definition, schemas, version, bound))  # noqa: B023  # now
            built += [made] if made else []
    of_template = [_Bound(one, builder, asked.get(one.definition, {})) for one, builder in built if one.type in bound]
    own = next((source for source in sources if isinstance(source.definition, AddonTemplate)), None)
    if own is not None:
        template = own.definition
        assert isinstance(template, AddonTemplate)
        addon = part(own, lambda: _addon_template(own, template, schemas, of_template))
    elif asked:
        problems += [
            Problem(f"{ADDON_DEFAULT}, and no definitions/addon.py that gives it", _plain(definition.place))
            for definition in asked
        ]
    if problems:
        raise VelagenError(
            sorted(set(problems), key=lambda problem: (problem.place.file or "", problem.place.line or 0))
        )
    return tuple(one for one, _ in built), addon


def _addon_defaults(sources: Iterable[Source]) -> tuple[dict[Definition, dict[str, str]], list[Problem]]:
    """By definition its properties whose default is the addon's, with what it calls them; and what is wrong there."""
    asked: dict[Definition, dict[str, str]] = {}
    problems = []
    for source in sources:
        found, wrong = addon_defaults(source.schema)
        problems += wrong
        if found and isinstance(source.definition, AddonTemplate):
            problems.append(Problem(f"{ADDON_DEFAULT} in the addon's own parameters", Place(source.schema.origin)))
        elif found and not isinstance(source.definition, AddonTemplate):
            asked[source.definition] = found
    return asked, problems


# ---------------------------------------------------------------- definitions


def _definition(
    source: Source, definition: Definition, schemas: ObjectSchemas, version: str, bound: frozenset[DefinitionType]
) -> tuple[BuiltDefinition, _Builder]:
    compiled = compile_schema(at_render(source.schema), faces=True)
    kind = DEFINITION_TYPES[type(definition)]
    builder = _Builder(source, definition, compiled, schemas, version, is_bound=kind in bound)
    built = BuiltDefinition(
        name=definition.name,
        type=kind,
        cue=builder.text(),
        schema=source.schema,
        definition=definition,
        source=source.module,
        warnings=compiled.warnings,
    )
    return built, builder


class _Builder:
    """One definition on its way to CUE."""

    def __init__(
        self,
        source: Source,
        definition: Definition,
        compiled: CompiledSchema,
        schemas: ObjectSchemas,
        version: str,
        *,
        is_bound: bool,
    ) -> None:
        self._source, self._definition, self._compiled, self._schemas = source, definition, compiled, schemas
        self._version, self._is_bound = version, is_bound
        self._parameter = parameter_type(unsure(source.schema).shape)
        self._problems: list[Problem] = []
        #: Names that no intermediate may have.
        self._avoid: frozenset[str] = frozenset()

    def text(self) -> str:
        """The file. Raises VelagenError with all problems."""
        #: What the definition says of itself, and what it renders.
        self.template = self._template()
        self.metadata = self._metadata()
        if self._problems:
            raise VelagenError(_placed(self._problems, self._definition, self._source))
        metadata = cue.Field(self._definition.name, self.metadata)
        template = cue.Field(cue.Name("template"), self.template)
        return cue.to_cue(cue.File((metadata, template), doc=self._instead_of()))

    def _instead_of(self) -> tuple[str, ...]:
        """What a component says of others' traits, as comments, which the catalog of an addon's folder reads."""
        told = self._definition.instead_of if isinstance(self._definition, Component) else {}
        return (INSTEAD_OF, *(f"  {name}: {' '.join(words.split())}" for name, words in told.items())) if told else ()

    def _compiler(
        self, output: Type = UNKNOWN, *, context: frozenset[str] = frozenset(CONTEXT) - STEP_CONTEXT - MESSAGE_CONTEXT
    ) -> TemplateCompiler:
        return TemplateCompiler(
            parameter=self._parameter,
            output=output,
            object_schemas=self._schemas,
            avoid=self._avoid,
            context=context,
            lets_as="definition" if isinstance(self._definition, WorkflowStep) else "let",
        )

    def _workload_type(self, workload: Workload | None) -> Type:
        if workload is None:
            return UNKNOWN
        schema = self._schemas(workload.api_version, workload.kind)
        if schema is None:
            self._problems.append(
                Problem(
                    f"nothing is known of {workload.kind} in {workload.api_version}",
                    self._definition.place,
                    "put its CustomResourceDefinition into crds/ of the project, or correct the name",
                )
            )
            return UNKNOWN
        return ObjectType(schema, is_root=True)

    # ------------------------------------------------------------ metadata

    def _metadata(self) -> cue.Struct:
        definition = self._definition
        annotations = {**definition.annotations, **(BOUND if self._is_bound else {})}
        labels = dict(definition.labels)
        if isinstance(definition, WorkflowStep):
            # Source: vela-templates/definitions/internal/workflowstep/*.cue, which all carry these two.
            if definition.category:
                annotations["category"] = definition.category
            labels.setdefault("scope", "Application")
        return cue.Struct(
            (
                cue.Field("type", cue.Lit(DEFINITION_TYPES[type(definition)])),
                cue.Field("annotations", cue.literal(annotations)),
                cue.Field("labels", cue.literal(labels)),
                cue.Field("description", cue.Lit(definition.description)),
                cue.Field("attributes", cue.Struct(tuple(self._attributes()))),
            )
        )

    def _attributes(self) -> list[cue.Decl]:
        found: list[cue.Decl] = []

        def put(name: str, value: object) -> None:
            if value:
                found.append(cue.Field(name, cue.literal(value)))

        put("version", self._version)
        match self._definition:
            case Component() as component:
                workload = component.workload
                put(
                    "workload",
                    {
                        "definition": {"apiVersion": workload.api_version, "kind": workload.kind},
                        "type": workload.type,
                    },
                )
                put("childResourceKinds", [dict(kind) for kind in component.child_resource_kinds])
                put("podSpecPath", component.pod_spec_path)
                self._status(found, component.status, self._workload_type(workload), component.outputs)
            case Trait() as trait:
                put("appliesToWorkloads", list(trait.applies_to))
                put("conflictsWith", list(trait.conflicts_with))
                found.append(cue.Field("podDisruptive", cue.Lit(trait.pod_disruptive)))
                put("manageWorkload", trait.manage_workload)
                put("workloadRefPath", trait.workload_ref_path)
                put("stage", trait.stage)
                # Its status sees its own outputs only: kubevela pkg/cue/definition/template.go, getTemplateContext.
                self._status(found, trait.status, _NO_OUTPUT, trait.outputs)
            case Policy() as policy:
                put("manageHealthCheck", policy.manage_health_check)
        return found

    def _status(
        self, attributes: list[cue.Decl], status: Status | None, output: Type, bodies: Mapping[object, Any]
    ) -> None:
        if status is None:
            return
        outputs = self._compiler().observed_outputs(bodies)
        fields: list[cue.Decl] = []
        details: Type = Fields({})
        if status.details:
            for name in status.details:
                if len(name) > _LONGEST_DETAIL:
                    self._problems.append(
                        Problem(f"status detail {name!r} has over {_LONGEST_DETAIL} characters", self._definition.place)
                    )
            field, details = self._status_field("details", dict(status.details), output, outputs)
            fields.append(field)
        # KubeVela computes the details first, then whether all is well, and the message of both.
        known = {"details": Member(details, present=True), "healthy": Member(JsonType("boolean"), present=True)}
        if status.message is not None:
            message = {"message": status.message}
            fields.append(self._status_field("customStatus", message, output, outputs, Fields(known))[0])
        if status.healthy is not None:
            fields.append(self._status_field("healthPolicy", {"isHealth": status.healthy}, output, outputs)[0])
        if fields:
            attributes.append(cue.Field("status", cue.Struct(tuple(fields))))

    def _status_field(
        self, name: str, values: Mapping[str, Any], output: Type, outputs: Type, known: Type | None = None
    ) -> tuple[cue.Field, Type]:
        """The rule *name* of the status, and what it gives; *known* is what is computed before it."""
        avoid: frozenset[str] = frozenset()
        while True:
            compiler = TemplateCompiler(
                parameter=self._parameter,
                output=output,
                outputs=outputs,
                object_schemas=self._schemas,
                status=known or UNKNOWN,
                lets_as="field" if name == "details" else "let",
                context=STATUS_CONTEXT if known is None else STATUS_CONTEXT | MESSAGE_CONTEXT,
                avoid=avoid,
            )
            body = compiler.typed(values, _STATUS[name], f"status.{name}")
            decls = (*compiler.intermediates(), *(body.cue.decls if isinstance(body.cue, cue.Struct) else ()))
            clashes = compiler.clashes(*decls)
            if not clashes - avoid:
                break
            avoid |= clashes
        self._problems += [
            replace(one, message=one.message.replace(*_AS_WRITTEN.get(name, ("", "")))) for one in compiler.problems
        ]
        if not compiler.problems:
            self._problems += wrong_raw(compiler.raws, (*decls, *_BESIDE))
        text = _text(cue.File(decls)).rstrip("\n") + "\n"
        return cue.Field(name, cue.Lit(text, raw=True)), body.type

    # ------------------------------------------------------------ template

    def _template(self) -> cue.Struct:
        """The template; compiled again where an intermediate is called as a field is, with another name for it."""
        while True:
            earlier = list(self._problems)
            compiler, checks, decls = self._compiled_template()
            clashes = compiler.clashes(*checks, *decls, *compiler.intermediates())
            if not clashes - self._avoid:
                break
            self._avoid |= clashes
            self._problems = earlier
        self._problems += compiler.problems
        immutable = tuple(self._immutable())
        parameter = cue.Field(cue.Name("parameter"), self._compiled.parameter)
        # KubeVela shows the first of CUE's errors only, so what the user wrote is judged before what is made of it.
        judged = (*immutable, parameter, *self._compiled.declarations, *checks)
        made = (*judged, *compiler.intermediates(), *decls)
        if not compiler.problems:
            self._problems += wrong_raw(compiler.raws, (*made, *_BESIDE))
        # `parameter` stays as it is: the form is derived from it.
        # An operation of a step is found where it stands.
        if isinstance(self._definition, WorkflowStep):
            return cue.with_defaults(cue.Struct((*judged, *placed(compiler.intermediates(), decls))))
        return cue.Struct(
            tuple(
                one if one in (*immutable, parameter) else _short(one)
                for one in cue.with_defaults(cue.Struct(made)).decls
            )
        )

    def _compiled_template(self) -> tuple[TemplateCompiler, list[cue.Decl], list[cue.Decl]]:
        """The compiler with its problems, the checks, and what is made."""
        checks: list[cue.Decl] = []
        decls: list[cue.Decl] = []
        match self._definition:
            case Component() as component:
                compiler = self._compiler(self._workload_type(component.workload))
                if component.checks:
                    checks.append(cue.Field(cue.Name("errs"), compiler.errs(component.checks), doc=_ERRS))
                    checks.append(compiler.errs_as_conflicts())
                decls.append(self._output(compiler, component))
                decls += _outputs(compiler, component.outputs)
            case Trait() as trait:
                targets = self._targets(trait)
                compiler = self._compiler(any_of(targets))
                if trait.checks:
                    checks.append(cue.Field(cue.Name("errs"), compiler.errs(trait.checks), doc=_ERRS))
                if trait.patch is not None:
                    self._patches_what(trait)
                    decls.append(cue.Field(cue.Name("patch"), compiler.patch(trait.patch, targets, what="patch")))
                if trait.patch_outputs is not None:
                    patched = compiler.patch_outputs(trait.patch_outputs)
                    decls.append(cue.Field(cue.Name("patchOutputs"), patched))
                decls += _outputs(compiler, trait.outputs)
            case Policy() as policy:
                compiler = self._compiler()
                checks += compiler.conflicts(policy.checks)
                if policy.output is not None:
                    decls.append(cue.Field(cue.Name("output"), compiler.manifest(policy.output, what="output")))
                decls += _outputs(compiler, policy.outputs)
            case WorkflowStep() as step:
                compiler = self._compiler(context=frozenset(CONTEXT) - MESSAGE_CONTEXT)
                checks += compiler.conflicts(step.checks)
                decls += _step_body(compiler, step.body)
        return compiler, checks, decls

    def _targets(self, trait: Trait) -> list[Type]:
        """What the output that a trait patches may be."""
        match trait.patches:
            case None:
                return [ANY_OBJECT]
            case Workload() as workload:
                return [self._workload_type(workload)]
        return [self._workload_type(workload) for workload in trait.patches]

    def _patches_what(self, trait: Trait) -> None:
        """Without ``patches=`` nothing is known of the output but its metadata, so nothing else may be written."""
        if trait.patches is not None or not isinstance(trait.patch, Mapping):
            return
        for name, place in top_fields(trait.patch):
            if name not in {"metadata", "apiVersion", "kind"}:
                self._problems.append(
                    Problem(
                        f"patch.{name}: it isn't said what kind of object is patched, so its fields can't be checked",
                        _plain(place or trait.place),
                        'write patches=Workload("apps/v1", "Deployment"), or a list of workloads',
                    )
                )

    def _immutable(self) -> Iterator[cue.Field]:
        """A second ``parameter`` with the properties that KubeVela, from 1.11, refuses to change in an application.

        It looks for the mark in a plain struct: ``close({...})`` is not one (kubevela pkg/schema/immutable.go).
        """
        schema = self._source.schema
        properties = schema.document.get("properties", {}) if isinstance(schema.document, dict) else {}
        own = {f"/properties{pointer_token(name)}": name for name in properties}
        marked = []
        for where, value in marks(schema.document, IMMUTABLE):
            if where in own and value is True:
                marked.append(own[where])
            elif value is not False:
                self._problems.append(
                    Problem(
                        f"{IMMUTABLE} is true or false, at one of the schema's own properties",
                        Place(schema.origin, pointer=f"{where}/{IMMUTABLE}"),
                        "KubeVela keeps whole properties from changing: write it there, or drop it",
                    )
                )
        if marked:
            fields = tuple(cue.Field(name, cue.TOP, "?", ("+immutable",)) for name in marked)
            yield cue.Field(cue.Name("parameter"), cue.Struct(fields), doc=("What may not change later.",))

    def _output(self, compiler: TemplateCompiler, component: Component) -> cue.Decl:
        output = component.output
        if isinstance(output, Mapping):
            written = (output.get("apiVersion"), output.get("kind"))
            declared = (component.workload.api_version, component.workload.kind)
            if written != declared:
                self._problems.append(
                    Problem(
                        f"the output is {written[1]} in {written[0]}, the workload {declared[1]} in {declared[0]}",
                        _plain(_key_place(output, "kind") or component.place),
                    )
                )
        return cue.Field(cue.Name("output"), compiler.manifest(output, what="output"))


def _text(file: cue.File) -> str:
    """The text of a status, of the addon's own template or of its notes."""
    return cue.to_cue(cue.with_defaults(file))


def _short(decl: cue.Decl) -> cue.Decl:
    """*decl* with what is alike in it as loops; definitions are part of the form."""
    if isinstance(decl, cue.Field) and isinstance(decl.label, cue.Definition):
        return decl
    shorter = cue.looped(decl)
    return shorter if isinstance(shorter, cue.Decl) else decl


def _placed(problems: Iterable[Problem], definition: Definition | AddonTemplate, source: Source) -> list[Problem]:
    """Each with a place of the author's; where that is a shared module, with the definition that uses it."""
    found = []
    for one in problems:
        place = one.place if one.place.file else _plain(definition.place)
        hint = one.hint
        if place.file and Path(place.file) != source.module:
            used = f"used by {source.module.name}"
            hint = f"{hint}; {used}" if hint else used
        found.append(Problem(one.message, place, hint, one.severity))
    return found


def _key_place(body: Mapping[object, Any], name: str) -> Place | None:
    """Where *name* stands as a key of *body*, if it stands in a definition's text."""
    return next((key.place for key in body if isinstance(key, Key) and key == name), None)


def _plain(place: Place) -> Place:
    return Place(place.file, place.line, place.column)


#: What KubeVela puts beside a text, and the form beside an addon's.
_BESIDE = tuple(cue.Field(cue.Name(one), cue.TOP) for one in ("context", "parameter"))
#: Above ``errs``.
_ERRS = ("What does not go together. KubeVela shows the sentences, and makes nothing.",)
_SCALAR = JsonType("string", "integer", "number", "boolean")


class _Details(Type):
    """Names and scalars."""

    types = frozenset({"object"})

    def member(self, name: str) -> Member | None:  # noqa: ARG002  # any name may be one
        return Member(_SCALAR, present=True)


#: What KubeVela reads of each rule. Source: kubevela pkg/cue/definition/health/health.go.
_STATUS: dict[str, Type] = {
    "details": _Details(),
    "customStatus": Fields({"message": Member(JsonType("string"), present=True)}),
    "healthPolicy": Fields({"isHealth": Member(JsonType("boolean"), present=True)}),
}


class _NoOutput(Type):
    """``context.output`` where KubeVela does not fill it."""

    types = frozenset({"object"})
    open = False


_NO_OUTPUT = _NoOutput()


def _outputs(compiler: TemplateCompiler, outputs: Mapping[object, Any]) -> list[cue.Decl]:
    """``outputs``: each entry an object of its own, checked against its own schema."""
    if not outputs:
        return []
    body = compiler.manifests(outputs, what="outputs")
    return [cue.Field(cue.Name("outputs"), body)]


def _step_body(compiler: TemplateCompiler, body: Mapping[object, Any]) -> list[cue.Decl]:
    """The fields of a step; each is a name that the others may refer to."""
    struct = compiler.step(body)
    decls = struct.decls if isinstance(struct, cue.Struct) else ()
    return [_referable(decl) for decl in decls]


def _referable(decl: cue.Decl) -> cue.Decl:
    match decl:
        case cue.Field(label=str(name)) if name.isidentifier():
            return replace(decl, label=cue.Name(name))
        case cue.Comprehension(clauses=clauses, body=cue.Struct(decls=decls)):
            return cue.Comprehension(clauses, cue.Struct(tuple(_referable(one) for one in decls)))
    return decl


# ---------------------------------------------------------------- the addon's own files

_EMPTY_PARAMETER = "parameter: {}\n"
_EMPTY_TEMPLATE = cue.to_cue(
    cue.File(
        (
            cue.Field(
                cue.Name("output"),
                cue.literal({"apiVersion": "core.oam.dev/v1beta1", "kind": "Application", "spec": {"components": []}}),
            ),
        ),
        package="main",
    )
)


@dataclass(frozen=True)
class _Bound:
    """A definition that the addon's template makes, and by property what it asks the addon for."""

    built: BuiltDefinition
    builder: _Builder
    asks: Mapping[str, str]


def _addon_template(
    source: Source, template: AddonTemplate, schemas: ObjectSchemas, bound: Sequence[_Bound]
) -> BuiltAddonTemplate:
    # An addon's context holds its metadata.yaml, and the form is made without (kubevela pkg/addon/render.go).
    compiled = compile_schema(source.schema, context="context.metadata.name", faces=True)
    parameter = parameter_type(source.schema.shape)
    avoid: frozenset[str] = frozenset()
    while True:
        compiler = TemplateCompiler(parameter=parameter, object_schemas=schemas, avoid=avoid)
        decls: list[cue.Decl] = [
            cue.Field(cue.Name("output"), compiler.manifest(template.output, what="output")),
            *_outputs(compiler, template.outputs),
        ]
        problems: list[Problem] = []
        decls += _definitions(compiler, template, bound, problems)
        clashes = compiler.clashes(*decls, *compiler.intermediates())
        if not clashes - avoid:
            break
        avoid |= clashes
    notes = TemplateCompiler(parameter=parameter, object_schemas=schemas)
    text = "" if template.notes is None else _notes(notes, template.notes)
    wrong = [*compiler.problems, *notes.problems]
    if not wrong:
        wrong += wrong_raw(compiler.raws, (*compiler.intermediates(), *decls, *_BESIDE))
    found = [*_placed(wrong, template, source), *problems]
    if found:
        raise VelagenError(found)
    # KubeVela shows the first of CUE's errors only, by the names of the files, where template.cue is main.cue: so what
    # the user wrote is judged there. The form is made of parameter.cue alone, and of definitions that it refers to.
    judged = [one for one in compiled.declarations if isinstance(one, cue.Field) and isinstance(one.label, cue.Hidden)]
    beside = [one for one in compiled.declarations if one not in judged]
    parameter_file = cue.File((*beside, cue.Field(cue.Name("parameter"), compiled.parameter)))
    return BuiltAddonTemplate(
        template_cue=_text(cue.File((*judged, *compiler.intermediates(), *decls), package="main")),
        parameter_cue=cue.to_cue(parameter_file),
        notes_cue=text,
        schema=source.schema,
        warnings=compiled.warnings,
    )


def _definitions(
    compiler: TemplateCompiler, template: AddonTemplate, bound: Sequence[_Bound], problems: list[Problem]
) -> Iterator[cue.Decl]:
    """The definitions that hold what the addon gives, and the list of them that KubeVela keeps with the addon."""
    objects: list[cue.Decl] = []
    names: dict[str, list[str]] = {}
    for one in bound:
        built = one.built
        values: dict[str, tuple[str, cue.Expr]] = {}
        for name, asked in one.asks.items():
            place = Place(built.schema.origin, pointer=f"/properties{pointer_token(name)}/{ADDON_DEFAULT}")
            if asked not in template.defaults:
                known = ", ".join(template.defaults) or "none"
                problems.append(
                    Problem(f"the addon gives no default {asked!r}", place, f"definitions/addon.py: {known}")
                )
                continue
            value = template.defaults[asked]
            shape = parameter_type(built.schema.shape).member(name)
            compiler.body(value, shape.type if shape else UNKNOWN, f"defaults.{asked}")
            values[name] = asked, compiler.expression(to_json(value)).cue
        key = f"{built.type}-{built.name}"
        if key in template.outputs:
            problems.append(Problem(f"outputs.{key} is where the definition {built.name} goes", _plain(template.place)))
        try:
            made = manifest(built.type, built.name, one.builder.metadata, one.builder.template, values)
        except LookupError as error:
            problems.append(Problem(f"the default of {error} is not found in the template", Place(built.schema.origin)))
            continue
        objects.append(cue.Field(key, made))
        names.setdefault(KINDS[built.type][1], []).append(built.name)
    if objects:
        noted = {"metadata": {"annotations": {key: ",".join(sorted(found)) for key, found in names.items()}}}
        yield cue.Field(cue.Name("output"), cue.literal(noted))
        yield cue.Field(cue.Name("outputs"), cue.Struct(tuple(objects)))


def _notes(compiler: TemplateCompiler, notes: object) -> str:
    body = compiler.body(notes, JsonType("string"), "notes")
    return _text(cue.File((*compiler.intermediates(), cue.Field(cue.Name("notes"), body))))
