"""A GPU simulator: real kubelets see GPUs that are not there.

A device plugin as NVIDIA's, without the hardware: the same configuration file, the same resources, device ids,
environment and behaviour in faults, the node labels that GPU feature discovery would set, and metrics in the names of
DCGM. Behaviour was taken from NVIDIA/k8s-device-plugin v0.20.0; docs/gpusim.md says where the two differ.

`config`, `inventory`, `labels`, `manifest` and `paths` need PyYAML alone; what runs on a node needs the extra
``gpusim``.
"""
