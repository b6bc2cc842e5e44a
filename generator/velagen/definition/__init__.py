"""X-definitions: what a platform team writes; :mod:`velagen.definition.build` makes CUE of it.

The builder is not imported here: every command loads this package, and few of them build.
"""

from velagen.definition.model import (
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

__all__ = [
    "AddonTemplate", "Component", "Definition", "DefinitionType", "Policy", "Status", "Trait", "WorkflowStep",
    "Workload",
]  # fmt: skip
