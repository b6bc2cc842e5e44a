"""Which modes of the trait gpu-share a cluster's nodes offer, and which of them a model is to write.

A trait is rendered without sight of nodes, so that a person, or a pipeline, chooses once and writes it down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from velagen.gpu.parts import (
    GPU_MIB,
    ISOLATION,
    MIG_PROFILES,
    MOST_MPS,
    SHARED,
    WHOLE,
    Isolation,
    Mode,
    equal_parts,
    memory_mib,
    mig_part_with,
    parts_with,
)
from velagen.gpu.shares import Asked
from velagen.kubernetes.objects import KubernetesObject

#: What is taken first where several would do: what isolates more, and of what isolates as much the one that needs no
#: scheduler of its own.
ORDER: Final[tuple[Mode, ...]] = ("mig", "dra", "mps", "hami", "volcano", "time-slicing", "kai")
_LEVELS: Final[tuple[Isolation, ...]] = ("none", "memory", "fault")
_MIG: Final = "nvidia.com/mig-"
#: HAMi's device plugin writes it onto its nodes (Project-HAMi/HAMi docs/develop/protocol.md).
_HAMI: Final = "hami.io/node-nvidia-register"
#: Of KAI's queues (kai-scheduler docs/quickstart).
_QUEUES: Final = "scheduling.run.ai/"


@dataclass(frozen=True)
class Offer:
    """A mode that has a place for a share: what is written, and on which nodes that is."""

    mode: Mode
    #: The trait's properties beside the amount.
    properties: Mapping[str, Any]
    nodes: tuple[str, ...]

    @property
    def written(self) -> str:
        """As in an application: ``mode: mig, gpu: a100-40gb``."""
        return ", ".join(f"{key}: {'true' if value is True else value}" for key, value in self.properties.items())


@dataclass(frozen=True)
class Cluster:
    """What a cluster says of its GPUs: its nodes, the devices of DRA drivers, and KAI's queues."""

    nodes: tuple[KubernetesObject, ...] = ()
    slices: tuple[KubernetesObject, ...] = ()
    queues: tuple[str, ...] = ()

    @classmethod
    def of(cls, objects: Iterable[KubernetesObject]) -> Cluster:
        """From objects of any kinds, lists among them, as kubectl gives them."""
        flat = [
            one for thing in objects for one in (thing["items"] if isinstance(thing.get("items"), list) else [thing])
        ]
        return cls(
            tuple(sorted((one for one in flat if one.get("kind") == "Node"), key=_name)),
            tuple(one for one in flat if one.get("kind") == "ResourceSlice"),
            tuple(
                sorted(
                    _name(one)
                    for one in flat
                    if one.get("kind") == "Queue" and str(one.get("apiVersion", "")).startswith(_QUEUES)
                )
            ),
        )


def offers(cluster: Cluster, asked: Asked) -> list[Offer]:
    """The modes that have a place for a share, the one to write first."""
    mib = memory_mib(asked.memory) if asked.memory else None
    found = [
        *_by_label(cluster, asked, mib, "mps"),
        *_by_label(cluster, asked, mib, "time-slicing"),
        *_by_mig(cluster, asked, mib),
        *_by_dra(cluster, asked, mib),
        *_by_own_plugin(cluster, asked),
    ]
    least = _LEVELS.index(asked.isolation)
    # Without shared, which is not offered here, a device of DRA is the pod's alone.
    enough = [one for one in found if _LEVELS.index(ISOLATION[one.mode]) >= least]
    return sorted(enough, key=lambda one: (ORDER.index(one.mode), one.written))


def offered(cluster: Cluster) -> list[tuple[str, str]]:
    """What each node offers, as a name and a sentence; nodes without a GPU are left out."""
    found = []
    for node in cluster.nodes:
        parts = [*_shared_of(node), *(f"{count} by mig of {profile}" for profile, count in _profiles(node).items())]
        if _HAMI in _annotations(node):
            parts.append("parts by hami")
        if _count(node, "volcano.sh/vgpu-number"):
            parts.append("parts by volcano")
        if _count(node, WHOLE) and not parts:
            parts.append(f"{_count(node, WHOLE)} whole" + (", parts of them by kai" if cluster.queues else ""))
        devices = [one for own in cluster.slices if own["spec"].get("nodeName") == _name(node) for one in _devices(own)]
        if devices:
            parts.append(f"{len(devices)} device{'s' * (len(devices) != 1)} by dra")
        if parts:
            found.append((_name(node), "; ".join(parts)))
    return found


def _by_label(cluster: Cluster, asked: Asked, mib: int | None, mode: Mode) -> list[Offer]:
    """Equal parts that NVIDIA's device plugin makes."""
    found: dict[tuple[str, str], list[str]] = {}
    for node in cluster.nodes:
        labels = _labels(node)
        number = labels.get("nvidia.com/gpu.replicas", "")
        if labels.get("nvidia.com/gpu.sharing-strategy") != mode or not number.isdecimal() or int(number) < 2:
            continue
        if mode == "mps" and int(number) > MOST_MPS:
            continue
        resource = SHARED if _count(node, SHARED) else WHOLE
        if not _count(node, resource):
            continue
        gpu = ""
        if mib is None:
            if equal_parts(asked.fraction or 0.0) != int(number):
                continue
        else:
            memory = labels.get("nvidia.com/gpu.memory", "")
            gpu = _gpu_with(int(memory) if memory.isdecimal() else 0, int(number), mib)
            if not gpu:
                continue
        found.setdefault((resource, gpu), []).append(_name(node))
    return [
        Offer(
            mode,
            {"mode": mode} | ({"gpu": gpu} if gpu else {}) | ({} if resource == SHARED else {"resourceName": resource}),
            tuple(nodes),
        )
        for (resource, gpu), nodes in found.items()
    ]


def _gpu_with(memory: int, number: int, mib: int) -> str:
    """The name of a GPU by which the trait finds so many parts; empty where none does, or the node's has too little."""
    if memory < number * mib:
        return ""
    fitting = [gpu for gpu in GPU_MIB if parts_with(gpu, mib) == number]
    return min(fitting, key=lambda gpu: abs(GPU_MIB[gpu] - memory), default="")


def _by_mig(cluster: Cluster, asked: Asked, mib: int | None) -> list[Offer]:
    """MIG devices that nodes offer as resources; of several GPUs' the smallest."""
    by_gpu: dict[str, list[str]] = {}
    for node in cluster.nodes:
        gpu = next((gpu for gpu in _fitting_gpus(asked, mib) if _profile(gpu, asked, mib) in _profiles(node)), "")
        if gpu:
            by_gpu.setdefault(gpu, []).append(_name(node))
    return [Offer("mig", {"mode": "mig", "gpu": gpu}, tuple(nodes)) for gpu, nodes in by_gpu.items()]


def _fitting_gpus(asked: Asked, mib: int | None) -> list[str]:
    """GPUs that have a MIG device for it: one that is asked for first, else from the least memory on."""
    fitting = [gpu for gpu in MIG_PROFILES if _profile(gpu, asked, mib)]
    return sorted(fitting, key=lambda gpu: (gpu != asked.gpu, GPU_MIB[gpu]))


def _profile(gpu: str, asked: Asked, mib: int | None) -> str:
    part = str(float(asked.fraction or 0.0)) if mib is None else mig_part_with(gpu, mib) or ""
    return MIG_PROFILES[gpu].get(part, "")


def _by_dra(cluster: Cluster, asked: Asked, mib: int | None) -> list[Offer]:
    """The MIG devices that a DRA driver announces; whole GPUs are left out, since a part is asked for."""
    found: dict[str, list[str]] = {}
    for one in cluster.slices:
        profiles = {
            str(device.get("attributes", {}).get("profile", {}).get("string", "")) for device in _devices(one)
        } - {""}
        gpu = next((gpu for gpu in _fitting_gpus(asked, mib) if _profile(gpu, asked, mib) in profiles), "")
        if gpu:
            found.setdefault(gpu, []).append(str(one["spec"].get("nodeName", "any node")))
    return [Offer("dra", {"mode": "dra", "gpu": gpu}, tuple(dict.fromkeys(nodes))) for gpu, nodes in found.items()]


def _by_own_plugin(cluster: Cluster, asked: Asked) -> list[Offer]:
    """Software that takes any amount, as far as nodes tell that it is there."""
    whole_percent = asked.fraction is None or float(asked.fraction * 100).is_integer()
    hami = tuple(_name(node) for node in cluster.nodes if _HAMI in _annotations(node))
    volcano = tuple(_name(node) for node in cluster.nodes if _count(node, "volcano.sh/vgpu-number"))
    whole = tuple(
        _name(node)
        for node in cluster.nodes
        if _count(node, WHOLE) and _name(node) not in hami and not _shared_of(node) and not _profiles(node)
    )
    found: list[Offer] = []
    if hami and whole_percent:
        found.append(Offer("hami", {"mode": "hami"}, hami))
    if volcano and whole_percent:
        found.append(Offer("volcano", {"mode": "volcano"}, volcano))
    if cluster.queues and whole:
        found.append(Offer("kai", {"mode": "kai", "queue": cluster.queues[0]}, whole))
    return found


def _shared_of(node: KubernetesObject) -> list[str]:
    labels = _labels(node)
    mode, number = labels.get("nvidia.com/gpu.sharing-strategy", "none"), labels.get("nvidia.com/gpu.replicas", "")
    count = _count(node, SHARED) or _count(node, WHOLE)
    if mode not in ("mps", "time-slicing") or not count or not number.isdecimal() or int(number) < 2:
        return []
    memory = labels.get("nvidia.com/gpu.memory", "")
    each = f", {int(memory) // int(number)} MiB each" if memory.isdecimal() else ""
    return [f"{count} by {mode}, {number} of a GPU{each}"]


def _profiles(node: KubernetesObject) -> dict[str, int]:
    allocatable = node.get("status", {}).get("allocatable", {})
    return {name.removeprefix(_MIG): _count(node, name) for name in allocatable if name.startswith(_MIG)}


def _count(node: KubernetesObject, resource: str) -> int:
    said = str(node.get("status", {}).get("allocatable", {}).get(resource, "0"))
    return int(said) if said.isdecimal() else 0


def _devices(one: KubernetesObject) -> Sequence[Mapping[str, Any]]:
    devices: Sequence[Mapping[str, Any]] = one["spec"].get("devices") or ()
    return devices


def _name(node: KubernetesObject) -> str:
    return str(node["metadata"]["name"])


def _labels(node: KubernetesObject) -> Mapping[str, str]:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    return labels


def _annotations(node: KubernetesObject) -> Mapping[str, str]:
    annotations: Mapping[str, str] = node["metadata"].get("annotations") or {}
    return annotations


__all__ = ["ORDER", "Cluster", "Offer", "offered", "offers"]
