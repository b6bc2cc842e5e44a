"""Local clusters: the embedded control plane, and what it has in common with kind's."""

from velagen.lab.api import Api, ApiError, condition, wait_until
from velagen.lab.cluster import ComponentStatus, Lab
from velagen.lab.components import COMPONENTS
from velagen.lab.interface import Cluster
from velagen.lab.objects import GPUS, gpu_node
from velagen.lab.state import LabOptions

__all__ = [
    "COMPONENTS",
    "GPUS",
    "Api",
    "ApiError",
    "Cluster",
    "ComponentStatus",
    "Lab",
    "LabOptions",
    "condition",
    "gpu_node",
    "wait_until",
]
