"""Properties whose default is the addon's to give: ``"x-addon-default": "prometheus"`` in a definition's schema.

KubeVela applies the files of definitions/ as they are, while template.cue sees the parameters that the addon is enabled
with (kubevela pkg/addon/addon.go, RenderDefinitions; render.go, renderApp). So such a definition is made twice. Its
file holds the schema's own default: for ``vela show``, ``vela dry-run`` and velagen, and for KubeVela to see whose
definition it is before it changes any. What is applied is an object of template.cue with the addon's value in its
text; the file is bound to a component that the addon never has, so that it is not applied over that
(pkg/addon/utils.go, checkBondComponentExist).

KubeVela notes which definitions an addon brings, and refuses to disable it while they are in use. It notes none that
is bound, and of each kind it writes the list anew (passDefInAppAnnotation); so all definitions of a kind of which one
has such a property are made by template.cue, and the list of them with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from velagen import cue
from velagen.definition.model import DefinitionType
from velagen.errors import Place, Problem
from velagen.schema import Schema
from velagen.schema.model import pointer_token

#: In a schema: the name, in ``AddonTemplate(defaults=…)``, of what a property is where the user writes nothing.
ADDON_DEFAULT: Final = "x-addon-default"
#: The annotation that keeps KubeVela from applying a file of definitions/.
BOUND: Final = {"addon.oam.dev/bind-component": "template.cue"}
#: By type: the kind of object, and the annotation of the addon's Application that lists its names
#: (kubevela pkg/addon/utils.go).
KINDS: Final[Mapping[DefinitionType, tuple[str, str]]] = {
    "component": ("ComponentDefinition", "addon.oam.dev/componentDefinitions"),
    "trait": ("TraitDefinition", "addon.oam.dev/traitDefinitions"),
    "workflow-step": ("WorkflowStepDefinition", "addon.oam.dev/workflowStepDefinitions"),
    "policy": ("PolicyDefinition", "addon.oam.dev/policyDefinitions"),
}
_NAMESPACE: Final = "vela-system"
_DESCRIPTION: Final = "definition.oam.dev/description"
#: Before names of labels and annotations that are not KubeVela's own (pkg/definition/definition.go, FromCUE).
_USER_PREFIX: Final = "custom.definition.oam.dev/"
_HOLE: Final = "addonDefault_"
_NAME: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)


def addon_defaults(schema: Schema) -> tuple[dict[str, str], list[Problem]]:
    """The properties with an addon's default, by name, and what is wrong with the words."""
    found: dict[str, str] = {}
    problems = []
    document = schema.document if isinstance(schema.document, dict) else {}
    properties = document.get("properties", {})
    own = {f"/properties{pointer_token(name)}": name for name in properties}
    for where, value in marks(document, ADDON_DEFAULT):
        place = Place(schema.origin, pointer=f"{where}/{ADDON_DEFAULT}")
        if where not in own or not isinstance(value, str) or not _NAME.fullmatch(value):
            problems.append(
                Problem(
                    f"{ADDON_DEFAULT} is the name of a default that the addon gives, at one of the schema's own "
                    "properties",
                    place,
                )
            )
            continue
        held = properties[own[where]]
        if "default" not in held:
            problems.append(
                Problem(f"{ADDON_DEFAULT} needs a default: the addon's, where nobody sets its parameters", place)
            )
        elif "enum" in held or held.get("type") not in {"string", "boolean"}:
            problems.append(Problem(f"{ADDON_DEFAULT} stands at a text without enum, or a boolean", place))
        else:
            found[own[where]] = value
    return found, problems


def marks(document: object, keyword: str, pointer: str = "") -> Iterator[tuple[str, object]]:
    """Where a schema holds *keyword*, and what it says there."""
    if isinstance(document, Mapping):
        if keyword in document and not pointer.endswith("/properties"):
            yield pointer, document[keyword]
        for key, value in document.items():
            yield from marks(value, keyword, pointer + pointer_token(key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from marks(value, keyword, pointer + pointer_token(index))


def manifest(
    kind: DefinitionType,
    name: str,
    metadata: cue.Struct,
    template: cue.Struct,
    values: Mapping[str, tuple[str, cue.Expr]],
) -> cue.Expr:
    """The definition as an object, as KubeVela makes one of the file (pkg/definition/definition.go, FromCUE).

    In: what the file says of it, its template, and by property the name and the JSON text of what the addon gives.
    Raises LookupError with the properties whose default the template does not hold as expected.
    """
    fields = {field.label: field.value for field in metadata.decls if isinstance(field, cue.Field)}
    annotations = [*_prefixed(fields["annotations"]), cue.Field(_DESCRIPTION, fields["description"])]
    labels = list(_prefixed(fields["labels"]))
    attributes = fields["attributes"]
    about = [
        cue.Field("name", cue.Lit(name)),
        cue.Field("namespace", cue.Lit(_NAMESPACE)),
        cue.Field("annotations", cue.Struct(tuple(annotations))),
    ]
    if labels:
        about.append(cue.Field("labels", cue.Struct(tuple(labels))))
    text = cue.Struct((cue.Field("template", _text(template, values)),))
    spec = (
        *(attributes.decls if isinstance(attributes, cue.Struct) else ()),
        cue.Field("schematic", cue.Struct((cue.Field("cue", text),))),
    )
    return cue.Struct(
        (
            cue.Field("apiVersion", cue.Lit("core.oam.dev/v1beta1")),
            cue.Field("kind", cue.Lit(KINDS[kind][0])),
            cue.Field("metadata", cue.Struct(tuple(about))),
            cue.Field("spec", cue.Struct(spec)),
        )
    )


def _prefixed(struct: cue.Expr) -> Iterator[cue.Field]:
    for field in struct.decls if isinstance(struct, cue.Struct) else ():
        assert isinstance(field, cue.Field)
        name = str(field.label)
        if name not in BOUND:
            yield replace(field, label=name if "oam.dev" in name else f"{_USER_PREFIX}{name}")


def _text(template: cue.Struct, values: Mapping[str, tuple[str, cue.Expr]]) -> cue.Expr:
    """The template's text, with what the addon gives in the place of the defaults."""
    missing = set(values)
    decls = [
        replace(decl, value=_open(decl.value, values, missing))
        if isinstance(decl, cue.Field) and decl.label == cue.Name("parameter")
        else decl
        for decl in template.decls
    ]
    if missing:
        raise LookupError(", ".join(sorted(missing)))
    # Text and names in turn.
    parts = re.split(rf"\b{_HOLE}([A-Za-z]\w*)\b", _as_in_the_file(decls))
    given = dict(values.values())
    texts = tuple(given[part] if number % 2 else part for number, part in enumerate(parts))
    return cue.Interpolation(texts) if len(parts) > 1 else cue.Lit(parts[0])


def _as_in_the_file(decls: Sequence[cue.Decl]) -> str:
    """The text of *decls*, in the lines that they have in the definition's file, where they stand a tab further in."""
    whole = cue.to_cue(cue.File((cue.Field(cue.Name("template"), cue.Struct(tuple(decls))),)))
    before, _, inside = whole.partition("template: {\n")
    lines = inside.removesuffix("}\n").split("\n")
    return before + "\n".join(line.removeprefix("\t") for line in lines)


def _open(parameter: cue.Expr, values: Mapping[str, tuple[str, cue.Expr]], missing: set[str]) -> cue.Expr:
    """*parameter* with holes for the defaults of its own properties."""
    match parameter:
        case cue.Call(args=(inner,)):
            return replace(parameter, args=(_open(inner, values, missing),))
        case cue.Struct(decls=decls):
            return cue.Struct(tuple(_open_decl(decl, values, missing) for decl in decls))
    return parameter


def _open_decl(decl: cue.Decl, values: Mapping[str, tuple[str, cue.Expr]], missing: set[str]) -> cue.Decl:
    match decl:
        case cue.Comprehension(body=body) if isinstance(body, cue.Struct):
            opened = _open(body, values, missing)
            return replace(decl, body=opened)
        case cue.Field(label=label) if (name := label.name if isinstance(label, cue.Name) else label) in values:
            value = _with_hole(decl.value, cue.Ident(f"{_HOLE}{values[str(name)][0]}"))
            if value != decl.value:
                missing.discard(str(name))
            return replace(decl, value=value)
    return decl


def _with_hole(expr: cue.Expr, hole: cue.Expr) -> cue.Expr:
    """*expr* with *hole* for what it marks as the default."""
    match expr:
        case cue.Unary(op="*", of=cue.Lit()):
            return replace(expr, of=hole)
        case cue.Binary(op="|", left=left, right=right):
            return replace(expr, left=_with_hole(left, hole), right=_with_hole(right, hole))
    return expr
