"""What the simulator asks of the API server: the node's labels and its pods."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from velagen.gpusim.config import Config
from velagen.gpusim.inventory import Gpu
from velagen.gpusim.labels import node_labels, stale
from velagen.gpusim.load import Pod

#: Seconds the API server may take: pods wait meanwhile.
_PATIENCE = 5


class NodeClient:
    """One node through ``core``, a ``kubernetes.client.CoreV1Api``; every method raises its ApiException."""

    def __init__(self, core: Any, node: str) -> None:
        self._core = core
        self._node = node

    def set_labels(self, gpus: Sequence[Gpu], config: Config) -> dict[str, str | None]:
        """Make the node's labels those of ``gpus`` and return what was sent; None means removed."""
        wanted = node_labels(gpus, config, timestamp=int(time.time()))
        present = self._core.read_node(self._node).metadata.labels or {}
        changes: dict[str, str | None] = {**wanted, **dict.fromkeys(stale(present, wanted))}
        if changes:
            self._core.patch_node(self._node, {"metadata": {"labels": changes}})
        return changes

    def pods(self) -> list[Pod]:
        """The running pods of this node."""
        answer = self._core.list_pod_for_all_namespaces(
            field_selector=f"spec.nodeName={self._node},status.phase=Running", _request_timeout=_PATIENCE
        )
        return [
            Pod(
                pod.metadata.namespace,
                pod.metadata.name,
                pod.status.pod_ip or "",
                tuple(sorted((pod.metadata.annotations or {}).items())),
            )
            for pod in answer.items
        ]


def connect(node: str, kubeconfig: str | None = None) -> NodeClient:
    """A client from ``kubeconfig``, or from the pod's own service account.

    Raises the client's ConfigException where there is neither.
    """
    from kubernetes import client, config

    if kubeconfig:
        config.load_kube_config(kubeconfig)
    else:
        config.load_incluster_config()
    return NodeClient(client.CoreV1Api(), node)
