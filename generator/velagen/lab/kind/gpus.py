"""The GPU simulator as a part of a cluster: one pod a node, and another configuration while the cluster runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from velagen.errors import Place, Problem, VelagenError
from velagen.lab.api import condition, wait_until
from velagen.lab.images import identify, recipes
from velagen.lab.kind.layer import Site
from velagen.lab.kind.options import WHOLE

NAMESPACE: Final = "kube-system"
_IMAGE: Final = "gpusim"
_CONTENT: Final = "velagen.dev/image"
_PATIENCE: Final = 300.0
#: What every node of the lab is labelled with, for the simulator goes to the nodes it is told only.
NODES: Final = {"velagen.dev/gpusim": "true"}


def shared(replicas: int) -> str:
    """Give NVIDIA's configuration that time-slices each GPU, in the way the trait gpu-share expects it.

    Args:
        replicas: how often; 1 = whole GPUs.
    """
    if replicas == 1:
        return WHOLE
    resources = [{"name": "nvidia.com/gpu", "replicas": replicas}]
    sharing = {"timeSlicing": {"renameByDefault": True, "resources": resources}}
    return str(yaml.safe_dump({"version": "v1", "sharing": sharing}, sort_keys=False))


def advertised(node: str, gpus: Sequence[str], config: str) -> dict[str, int]:
    """Give the resources that a node's kubelet will offer.

    Args:
        gpus: see `velagen.gpusim.inventory.node_gpus`.
        config: text of NVIDIA's configuration.

    Raises:
        VelagenError: the plugin would refuse it, or the GPU model is unknown.
    """
    from velagen.gpusim.config import parse_config
    from velagen.gpusim.errors import GpusimError
    from velagen.gpusim.inventory import node_gpus, plugin_devices

    try:
        document = yaml.safe_load(config)
    except yaml.YAMLError as error:
        raise VelagenError(
            Problem(f"the configuration of the GPUs is invalid YAML: {error}", Place("gpu_config"))
        ) from error
    try:
        devices = plugin_devices(node_gpus(node, gpus), parse_config(document, origin="gpu_config"))
    except GpusimError as error:
        raise VelagenError(
            Problem(one.message, Place(one.where or None), one.hint) for one in error.complaints
        ) from error
    return {resource: len(found) for resource, found in devices.items()}


def install(lab: Site, gpus: Sequence[str] = ("t4x2",), config: str = WHOLE) -> None:
    """Give every node of a running cluster these GPUs; what they had before is replaced.

    Pods keep the devices they were given, as with the real plugin, until they end.

    Args:
        gpus: what each node has; see `velagen.gpusim.inventory.node_gpus`.
        config: text of NVIDIA's device-plugin configuration.

    Raises:
        VelagenError: the plugin would refuse it; the image can't be made; or the nodes don't offer the GPUs within five
            minutes.
    """
    from velagen.gpusim.manifest import NAME, manifest

    # Refused here rather than on every node.
    advertised("node", gpus, config)
    things = manifest(
        recipes()[_IMAGE].references[0],
        namespace=NAMESPACE,
        config=config,
        gpus=gpus,
        node_selector=NODES,
        # kind's nodes see the kernel of this machine, and with it a GPU that is not theirs.
        beside_real_gpu=True,
    )
    # The image's tag is velagen's version; what is in it follows the code. Beside the hash of the configuration, which
    # is there already, this has the DaemonSet roll its pods where anything changed.
    content = recipes().key(_IMAGE, identify)
    things[-1]["spec"]["template"]["metadata"]["annotations"][_CONTENT] = content
    runs = lab.api.get("apps/v1", "DaemonSet", NAME, NAMESPACE) or {"spec": {"template": {"metadata": {}}}}
    if runs["spec"]["template"]["metadata"].get("annotations", {}).get(_CONTENT) != content:
        lab.load([_IMAGE])
    for node in lab.api.list("v1", "Node"):
        lab.api.apply(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node["metadata"]["name"], "labels": NODES}}
        )
    lab.api.apply_all(things[:-1])
    lab.api.apply(things[-1])

    def rolled() -> bool:
        thing = lab.api.get("apps/v1", "DaemonSet", NAME, NAMESPACE) or {}
        status = thing.get("status", {})
        counts = {status.get(key) for key in ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")}
        # One number for all three, and not 0 or missing.
        fresh = bool(status.get("observedGeneration", 0) >= thing.get("metadata", {}).get("generation", 1))
        return fresh and len(counts) == 1 and all(counts)

    def offered() -> bool:
        return rolled() and all(
            offers(node, advertised(node["metadata"]["name"], gpus, config)) for node in lab.api.list("v1", "Node")
        )

    try:
        wait_until(offered, what="the GPUs of all nodes", timeout=_PATIENCE, every=0.5)
    except TimeoutError as error:
        raise VelagenError(Problem(f"{error}\n{lab.pods(NAMESPACE)}")) from error


def offers(node: Mapping[str, Any], wanted: Mapping[str, int]) -> bool:
    """Say whether a ready node offers these of NVIDIA's resources and no others.

    A resource that was advertised once stays in the list with 0 (Kubernetes pkg/kubelet/nodestatus/setters.go).
    """
    allocatable = node.get("status", {}).get("allocatable", {})
    found = {name: int(count) for name, count in allocatable.items() if name.startswith("nvidia.com/") and int(count)}
    return condition(node, "Ready") == "True" and found == dict(wanted)
