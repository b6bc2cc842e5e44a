"""What a kind cluster looks like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from velagen.tools import table

#: All layers over bare Kubernetes, in the order they stand on each other.
LAYERS = ("kubevela", "gateway", "kserve", "gpu", "models", "prometheus", "alerts", "servers", "addon")
#: Layers that are there only where they are asked for: without a registry their images take long to make.
EXTRA = ("keda", "metrics-server", "knative")
#: What can be reached from this machine on 127.0.0.1, and the NodePort behind it.
NODE_PORTS = {"gateway": 30080, "models": 30086, "prometheus": 30090, "alertmanager": 30093, "open": 30085}
#: NVIDIA's configuration of a device plugin that shares nothing.
WHOLE = "version: v1\n"

Images = Literal["auto", "registry", "assembled"]


def layers_with(*extra: str) -> tuple[str, ...]:
    """Give all layers, and these of `EXTRA` where they belong: over Prometheus, under what uses them."""
    at = LAYERS.index("servers")
    return (*LAYERS[:at], *extra, *LAYERS[at:])


@dataclass(frozen=True)
class KindOptions:
    """What a kind cluster looks like."""

    #: In all; the first is the control plane, and runs pods too.
    nodes: int = 1
    #: Layers over bare Kubernetes, in this order; each needs those before it.
    layers: tuple[str, ...] = LAYERS
    #: Where images come from: a registry where one answers, else assembled here; or one of the two.
    images: Images = "auto"
    #: Folder of the addon that the layer ``addon`` enables; None = none.
    addon: str | None = None
    #: What each node has; see `velagen.gpusim.inventory.node_gpus`. Empty: no GPUs.
    gpus: tuple[str, ...] = ("t4x2",)
    #: Text of NVIDIA's device-plugin configuration, which says how they are shared.
    gpu_config: str = WHOLE
    #: A version of vela-core in the table of tools.
    kubevela: str = field(default_factory=lambda: table().row("vela-core").version)
