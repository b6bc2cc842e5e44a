"""A GPU simulator: real kubelets see GPUs that are not there.

A device plugin as NVIDIA's, without the hardware: the same configuration file, the same resources, device ids,
environment
and behaviour in faults, the node labels that GPU feature discovery would set, and metrics in the names of DCGM.
Behaviour was
taken from NVIDIA/k8s-device-plugin v0.20.0; docs/gpusim.md says where the two differ.
"""

from velagen.gpusim.config import Config, ReplicatedResource, Sharing, load_config, parse_config
from velagen.gpusim.inventory import Gpu, MigDevice, Model, node_gpus
from velagen.gpusim.labels import node_labels
from velagen.gpusim.plugin import ResourcePlugin
from velagen.gpusim.simulator import Paths, Simulator

__all__ = [
    "Config",
    "Gpu",
    "MigDevice",
    "Model",
    "Paths",
    "ReplicatedResource",
    "ResourcePlugin",
    "Sharing",
    "Simulator",
    "load_config",
    "node_gpus",
    "node_labels",
    "parse_config",
]
