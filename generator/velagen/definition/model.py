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
    """A kind of object: what a component writes or a trait patches.

    *plural* is the resource's name in its API group; where it is not given it is the kind in small letters with an s.
    """

    api_version: str
    kind: str
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

    *healthy* is a condition (KubeVela waits for it), *message* a text, *details* names (at most 31 characters) and
    scalars.
    All of it is computed from ``context.output.status`` (a trait: from its own ``context.outputs``) and ``parameter``.
    """

    healthy: Expression | None = None
    message: Value = None
    details: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Definition:
    """*replaces_builtin* says that the definition of KubeVela's own of this name is to be replaced."""

    name: str
    description: str
    replaces_builtin: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    place: Spot = field(default_factory=here)


@dataclass(frozen=True, eq=False, kw_only=True)
class Component(_Definition):
    """A ComponentDefinition: *output* is the workload's object, *outputs* what comes with it.

    *checks* refuse an application whatever the schema says. *child_resource_kinds* and *pod_spec_path* as in KubeVela.
    *instead_of* says, of others' traits that do not do on it what they do elsewhere, by their names, what to write
    instead: KubeVela takes many of them without a word, and ``velagen check`` tells it.
    """

    workload: Workload
    output: Value
    outputs: Mapping[object, Value] = field(default_factory=dict)
    checks: Sequence[Refusal] = ()
    status: Status | None = None
    child_resource_kinds: Sequence[Mapping[str, str]] = ()
    pod_spec_path: str = ""
    instead_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trait(_Definition):
    """A TraitDefinition: *patch* changes the component's output, *outputs* are objects of its own.

    *patches* says what the component's output is, one kind or several, so that the patch and ``context.output`` can be
    checked; without it a patch may change the output's metadata only.
    """

    patches: Workload | Sequence[Workload] | None = None
    patch: Value = None
    patch_outputs: Value = None
    outputs: Mapping[object, Value] = field(default_factory=dict)
    checks: Sequence[Refusal] = ()
    status: Status | None = None
    applies_to: Sequence[str] = ()
    conflicts_with: Sequence[str] = ()
    pod_disruptive: bool = False
    manage_workload: bool = False
    workload_ref_path: str = ""
    stage: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Policy(_Definition):
    """A PolicyDefinition: *output* and *outputs* are the objects it renders."""

    output: Value = None
    outputs: Mapping[object, Value] = field(default_factory=dict)
    checks: Sequence[Refusal] = ()
    manage_health_check: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class WorkflowStep(_Definition):
    """A WorkflowStepDefinition: *body* holds the step's operations in order; see :func:`velagen.operation`."""

    body: Mapping[object, Value]
    category: str = ""
    checks: Sequence[Refusal] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class AddonTemplate:
    """The addon's own Application (*output*), the objects beside it (*outputs*), and what is said after enabling it.

    *defaults* are what properties of its definitions are where the user writes nothing, by the names that their schemas
    call them (``"x-addon-default": "prometheus"``).
    """

    output: Value
    outputs: Mapping[object, Value] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
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
