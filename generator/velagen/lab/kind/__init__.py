"""Real kind clusters: real kubelets, real pods, real model servers."""

from velagen.lab.kind.cluster import KindLab
from velagen.lab.kind.options import LAYERS, NODE_PORTS, KindOptions

__all__ = ["LAYERS", "NODE_PORTS", "KindLab", "KindOptions"]
