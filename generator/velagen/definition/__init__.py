"""X-definitions: what a platform team writes, and the CUE it becomes."""

from velagen.definition.build import (
    BuiltAddonTemplate,
    BuiltDefinition,
    build,
    build_addon_template,
    build_definitions,
)
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
    "AddonTemplate", "BuiltAddonTemplate", "BuiltDefinition", "Component", "Definition", "DefinitionType", "Policy",
    "Status", "Trait", "WorkflowStep", "Workload", "build", "build_addon_template", "build_definitions",
]  # fmt: skip
