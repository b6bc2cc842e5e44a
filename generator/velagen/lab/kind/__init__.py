"""Real kind clusters: real kubelets, real pods, real model servers."""

from velagen.lab.kind.cluster import KindLab, KindOptions
from velagen.lab.kind.stack import LAYERS, NODE_PORTS

__all__ = ["LAYERS", "NODE_PORTS", "KindLab", "KindOptions"]
