"""Local clusters: the embedded control plane."""

from velagen.lab.api import Api, ApiError, condition, wait_until
from velagen.lab.cluster import COMPONENTS, ComponentStatus, Lab, LabOptions
from velagen.lab.objects import GPUS, gpu_node

__all__ = [
    "COMPONENTS",
    "GPUS",
    "Api",
    "ApiError",
    "ComponentStatus",
    "Lab",
    "LabOptions",
    "condition",
    "gpu_node",
    "wait_until",
]
