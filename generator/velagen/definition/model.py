"""The things a platform team writes: components, traits, policies, workflow steps and the addon's own template.

Source of the attributes: kubevela apis/core.oam.dev/v1beta1/*_types.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from velagen.template.body import Refusal
from velagen.template.expression import Expression, Value
from velagen.template.places import Spot, here

DefinitionType = Literal["component", "trait", "policy", "workflow-step"]


@dataclass(frozen=True)
class Workload:
    """A kind of object: what a component writes or a trait patches."""

    #: Such as ``apps/v1``.
    api_version: str
    #: Such as ``Deployment``.
    kind: str
    #: The resource's name in its API group, where it is not the kind in small letters with an s.
    plural: str = ""

    @property
    def type(self) -> str:
        """The name KubeVela knows the workload by: ``inferenceservices.serving.kserve.io``."""
        group = self.api_version.rpartition("/")[0]
        resource = self.plural or self.kind.lower() + "s"
        return f"{resource}.{group}" if group else resource


@dataclass(frozen=True, eq=False)
class Status:
    """What ``vela status`` shows.

    All of it is computed from ``context.output.status`` (a trait: from its own ``context.outputs``) and ``parameter``.
    """

    #: A condition that KubeVela waits for; without it an object is healthy once it is there.
    healthy: Expression | None = None
    #: A sentence.
    message: Value = None
    #: Names (at most 31 characters) and scalars.
    details: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Definition:
    """What definitions of every kind have."""

    #: What an application calls it, and the name of its schema: ``schemas/NAME.json``.
    name: str
    #: A sentence for ``vela show`` and the addon's README.
    description: str
    #: The definition of KubeVela's own of this name is to be replaced.
    replaces_builtin: bool = False
    #: Labels of the definition's own object.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Annotations of the definition's own object.
    annotations: Mapping[str, str] = field(default_factory=dict)
    place: Spot = field(default_factory=here)


@dataclass(frozen=True, eq=False, kw_only=True)
class Component(_Definition):
    """A ComponentDefinition: a workload that an application's author asks for."""

    #: The kind of *output*.
    workload: Workload
    #: The workload's object.
    output: Value
    #: Objects beside it, by a name each.
    outputs: Mapping[object, Value] = field(default_factory=dict)
    #: ``refuse(...)``: what no application may write, whatever the schema says.
    checks: Sequence[Refusal] = ()
    #: What ``vela status`` shows.
    status: Status | None = None
    #: ``{"apiVersion": ..., "kind": ...}`` of what the workload makes: KubeVela's childResourceKinds.
    child_resource_kinds: Sequence[Mapping[str, str]] = ()
    #: Where the pod's spec is in *output*, such as ``spec.template.spec``: KubeVela's podSpecPath.
    pod_spec_path: str = ""
    #: What to write instead of others' traits that do not work on it, by their names. KubeVela takes many of them
    #: without a word; ``velagen check`` says it.
    instead_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trait(_Definition):
    """A TraitDefinition: it changes a component's output, and may have objects of its own."""

    #: The kinds that the component's output may be, so that *patch* and ``context.output`` can be checked. Without it
    #: only the output's metadata may be patched.
    patches: Workload | Sequence[Workload] | None = None
    #: What is merged into the component's output.
    patch: Value = None
    #: What is merged into objects of the component or of traits before it, by their names in *outputs*.
    patch_outputs: Value = None
    #: Objects of its own, by a name each.
    outputs: Mapping[object, Value] = field(default_factory=dict)
    #: ``refuse(...)``: what no application may write, whatever the schema says.
    checks: Sequence[Refusal] = ()
    #: What ``vela status`` shows.
    status: Status | None = None
    #: The workloads or component types it is for, such as ``inferenceservices.serving.kserve.io``; empty: all.
    applies_to: Sequence[str] = ()
    #: Traits that can't stand beside it.
    conflicts_with: Sequence[str] = ()
    #: A change of it makes new pods: KubeVela's podDisruptive.
    pod_disruptive: bool = False
    #: KubeVela's manageWorkload.
    manage_workload: bool = False
    #: Where in an object of its own the workload's reference is to be written: KubeVela's workloadRefPath.
    workload_ref_path: str = ""
    #: ``PreDispatch`` or ``PostDispatch``: before the workload, or once it is healthy; empty: with it.
    stage: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Policy(_Definition):
    """A PolicyDefinition: the objects that it renders stand beside an application's components."""

    #: An object.
    output: Value = None
    #: More objects, by a name each.
    outputs: Mapping[object, Value] = field(default_factory=dict)
    #: ``refuse(...)``: what no application may write, whatever the schema says.
    checks: Sequence[Refusal] = ()
    #: KubeVela's manageHealthCheck.
    manage_health_check: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class WorkflowStep(_Definition):
    """A WorkflowStepDefinition: operations that the workflow engine does in order."""

    #: Its fields in order, ``operation(...)`` and values among them.
    body: Mapping[object, Value]
    #: Where VelaUX lists it: the definition's annotation ``category``.
    category: str = ""
    #: ``refuse(...)``: what no application may write, whatever the schema says.
    checks: Sequence[Refusal] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class AddonTemplate:
    """The addon's own Application, and what is said after enabling it."""

    #: The Application, which KubeVela creates when the addon is enabled.
    output: Value
    #: Objects beside it, by a name each.
    outputs: Mapping[object, Value] = field(default_factory=dict)
    #: What properties of its definitions are where the user writes nothing, by the names that their schemas call them
    #: (``"x-addon-default": "prometheus"``).
    defaults: Mapping[str, Value] = field(default_factory=dict)
    #: A text for whoever has enabled it.
    notes: Value = None
    place: Spot = field(default_factory=here)


#: A definition of any kind.
Definition = Component | Trait | Policy | WorkflowStep
DEFINITION_TYPES: dict[type[_Definition], DefinitionType] = {
    Component: "component",
    Trait: "trait",
    Policy: "policy",
    WorkflowStep: "workflow-step",
}
