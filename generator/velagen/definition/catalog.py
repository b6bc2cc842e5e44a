"""The definitions an application may name: the project's, those of an addon folder, KubeVela's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from velagen.documents import read_text
from velagen.errors import Place, Problem, VelagenError
from velagen.kubernetes.crds import CrdStore, crd_store
from velagen.schema import load_schema
from velagen.schema.model import Schema

Kind = Literal["component", "trait", "policy", "workflow-step"]

#: The words for a kind in a sentence.
WORDS: dict[Kind, str] = {
    "component": "component type",
    "trait": "trait",
    "policy": "policy type",
    "workflow-step": "workflow step type",
}

_SYSTEM_FOLDER = "charts/vela-core/templates/defwithtemplate"
_SOURCE_FOLDER = "vela-templates/definitions"
_KINDS: dict[str, Kind] = {
    "ComponentDefinition": "component",
    "TraitDefinition": "trait",
    "PolicyDefinition": "policy",
    "WorkflowStepDefinition": "workflow-step",
}
#: Built into the controller, without a definition. Source: kubevela pkg/appfile/parser.go, pkg/workflow/step.
_WITHOUT_DEFINITION: tuple[tuple[Kind, str], ...] = (
    ("policy", "debug"),
    ("policy", "topology"),
    ("policy", "override"),
    ("workflow-step", "suspend"),
    ("workflow-step", "step-group"),
    ("workflow-step", "apply-component"),
    ("workflow-step", "builtin-apply-component"),
)


@dataclass(frozen=True)
class Known:
    """One definition as far as an application's author meets it."""

    kind: Kind
    name: str
    #: What its properties may be; None where no JSON Schema is at hand: then KubeVela's rendering alone judges them.
    schema: Schema | None = None
    #: ``inferenceservices.serving.kserve.io``; empty where it isn't known.
    workload: str = ""
    applies_to: tuple[str, ...] = ()
    conflicts_with: tuple[str, ...] = ()
    #: Of a component: what to write instead of traits that are not for it, by the traits' names.
    instead_of: Mapping[str, str] = field(default_factory=dict)
    #: Its CUE text; None for what vela carries itself.
    cue: str | None = None
    #: Of the project or the addon that is being checked.
    own: bool = False


@dataclass(frozen=True)
class Catalog:
    """Definitions by kind and name, and the objects they may write."""

    known: dict[tuple[Kind, str], Known] = field(default_factory=dict)
    #: A project's folder of CustomResourceDefinitions, beside those that velagen knows.
    crds: Path | None = None

    @classmethod
    def of(cls, definitions: Iterable[Known], crds: Path | None = None) -> Catalog:
        """Of definitions in the order of their weight: a later one of the same name wins."""
        return cls({(one.kind, one.name): one for one in definitions}, crds)

    @property
    def objects(self) -> CrdStore:
        """The schemas of the objects that its definitions may write."""
        return crd_store(self.crds)

    def find(self, kind: Kind, name: str) -> Known | None:
        """The definition of a kind with a name."""
        return self.known.get((kind, name))

    def names(self, kind: Kind) -> list[str]:
        """Every name of a kind."""
        return sorted(name for one, name in self.known if one == kind)

    def elsewhere(self, kind: Kind, name: str) -> list[Kind]:
        """The other kinds that have this name."""
        return [one for one in WORDS if one != kind and (one, name) in self.known]

    def maker_of(self, kind: str) -> str:
        """For an object's kind, the sentence that says which component of the project or addon makes it; or empty."""
        start = f"{kind.lower()}s."
        names = [one.name for one in self.known.values() if one.own and one.workload.startswith(start)]
        return f"write an Application: its component type {' or '.join(names)} makes the {kind}" if names else ""


def of_addon(folder: Path) -> Iterator[Known]:
    """The definitions of an addon folder, with the JSON Schemas that lie beside it, in the project it was built in.

    Raises VelagenError where it has no definitions.
    """
    files = sorted((folder / "definitions").rglob("*.cue"))
    if not files:
        raise VelagenError(
            Problem("there are no definitions/*.cue in this addon", Place(str(folder)), "name the addon's own folder")
        )
    for file in files:
        found = _of_cue(read_text(file), own=True)
        if found is not None:
            schema = folder.resolve().parents[1] / "schemas" / f"{found.name}.json"
            yield replace(found, schema=load_schema(schema)) if schema.is_file() else found


@lru_cache(maxsize=4)
def of_kubevela(version: str | None = None) -> tuple[Known, ...]:
    """What a KubeVela brings along, from the pinned source; by default the one that a lab runs."""
    from velagen.tools import source

    root = source("kubevela", version)
    found = {(kind, name): Known(kind, name) for kind, name in _WITHOUT_DEFINITION}
    for kind, name in _names_in(root):
        found.setdefault((kind, name), Known(kind, name))
    for file in sorted((root / _SOURCE_FOLDER).rglob("*.cue")):
        one = _of_cue(file.read_text(encoding="utf-8"), own=False)
        if one is not None and (one.kind, one.name) in found:
            found[one.kind, one.name] = one
    return tuple(found.values())


@lru_cache(maxsize=1)
def builtin_names() -> frozenset[tuple[str, str]]:
    """Kind and name of each definition that a supported KubeVela brings along."""
    from velagen.tools import source, table

    versions = [row.version.removeprefix("v") for row in table().sources if row.name == "kubevela"]
    theirs = [one for version in versions for one in _names_in(source("kubevela", version))]
    return frozenset([*_WITHOUT_DEFINITION, *theirs])


def _names_in(root: Path) -> Iterator[tuple[Kind, str]]:
    for file in sorted((root / _SYSTEM_FOLDER).glob("*.yaml")):
        # Helm templates, and so no YAML yet; kind and name stand at the same place in each.
        text = file.read_text(encoding="utf-8")
        kind = re.search(r"^kind: (\w+)", text, re.MULTILINE)
        name = re.search(r"^  name: ([\w-]+)", text, re.MULTILINE)
        if kind and name and kind[1] in _KINDS:
            yield _KINDS[kind[1]], name[1]


_HEAD = re.compile(
    r'^"?(?P<name>[\w-]+)"?:\s*\{\s*(?:[^{}]*?\n)?\s*type:\s*"(?P<kind>component|trait|policy|workflow-step)"',
    re.MULTILINE,
)


def _of_cue(text: str, *, own: bool) -> Known | None:
    """What the head of a definition file says: KubeVela's own files and those of the catalog are laid out alike."""
    head = _HEAD.search(text)
    if head is None:
        return None
    metadata = text[: text.find("\ntemplate:")]
    workload = re.search(r'workload:\s*(?:\{.*?\n\s*)?type:\s*"([^"]+)"', metadata, re.DOTALL)
    applies_to = re.search(r"appliesToWorkloads:\s*\[([^\]]*)\]", metadata)
    conflicts = re.search(r"conflictsWith:\s*\[([^\]]*)\]", metadata)
    return Known(
        head["kind"],  # type: ignore[arg-type]  # the pattern allows nothing else
        head["name"],
        workload=workload[1] if workload else "",
        applies_to=tuple(re.findall(r'"([^"]+)"', applies_to[1])) if applies_to else (),
        conflicts_with=tuple(re.findall(r'"([^"]+)"', conflicts[1])) if conflicts else (),
        instead_of=dict(re.findall(r"^//   ([\w.-]+): (.+)$", text[: head.start()], re.MULTILINE)) if own else {},
        cue=text,
        own=own,
    )
