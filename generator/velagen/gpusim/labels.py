"""The node labels that GPU feature discovery sets, computed from the inventory and the configuration.

Source: NVIDIA/k8s-device-plugin v0.20.0, internal/lm. A scheduler, a node selector or the trait gpu-share reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from velagen.gpusim.config import Config
from velagen.gpusim.inventory import Gpu, MigDevice

#: The driver a simulated node claims to have, and the newest CUDA it serves.
DRIVER: Final = "570.86.15"
CUDA: Final = "12.8"

_OURS = re.compile(
    r"nvidia\.com/(gpu\.(?!present$|deploy\.)|mig-|mig\.(capable|strategy)$|mps\.capable$|vgpu\.present$|cuda\.|gfd\.)"
)


def node_labels(gpus: Sequence[Gpu], config: Config, *, timestamp: int | None = None) -> dict[str, str]:
    """Labels of a node with ``gpus`` under ``config``; empty without GPUs.

    ``timestamp`` is when this is, in seconds since 1970.
    """
    if not gpus:
        return {}
    driver, cuda = DRIVER.split("."), CUDA.split(".")
    labels = {
        "nvidia.com/cuda.driver.major": driver[0],
        "nvidia.com/cuda.driver.minor": driver[1],
        "nvidia.com/cuda.driver.rev": driver[2],
        "nvidia.com/cuda.runtime.major": cuda[0],
        "nvidia.com/cuda.runtime.minor": cuda[1],
        "nvidia.com/cuda.driver-version.major": driver[0],
        "nvidia.com/cuda.driver-version.minor": driver[1],
        "nvidia.com/cuda.driver-version.revision": driver[2],
        "nvidia.com/cuda.driver-version.full": DRIVER,
        "nvidia.com/cuda.runtime-version.major": cuda[0],
        "nvidia.com/cuda.runtime-version.minor": cuda[1],
        "nvidia.com/cuda.runtime-version.full": CUDA,
        "nvidia.com/gpu.machine": "unknown",
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/mig.capable": _text(any(gpu.model.profiles for gpu in gpus)),
        "nvidia.com/mps.capable": _text(config.sharing.strategy == "mps" and not any(gpu.mig for gpu in gpus)),
        "nvidia.com/vgpu.present": "false",
    }
    if timestamp is not None:
        labels["nvidia.com/gfd.timestamp"] = str(timestamp)
    # As in the original: GPUs in MIG mode first and without sharing, so that whole GPUs of the same name win.
    for gpu in sorted(gpus, key=lambda gpu: not gpu.mig):
        count = sum(other.model.name == gpu.model.name for other in gpus)
        labels |= _base("nvidia.com/gpu", count, (gpu.model.name,), None if gpu.mig else config)
        labels |= {
            "nvidia.com/gpu.memory": str(gpu.model.memory_mib),
            "nvidia.com/gpu.family": gpu.model.family,
            "nvidia.com/gpu.compute.major": str(gpu.model.compute[0]),
            "nvidia.com/gpu.compute.minor": str(gpu.model.compute[1]),
        }
    if config.mig_strategy != "none":
        labels["nvidia.com/mig.strategy"] = config.mig_strategy
        labels |= _mig(gpus, config)
    return labels


def stale(present: Iterable[str], wanted: Mapping[str, str]) -> set[str]:
    """Labels of GPU feature discovery on a node that no longer hold.

    Labels of the GPU operator and of people are not among them.
    """
    return {key for key in present if _OURS.match(key) and key not in wanted}


def _mig(gpus: Sequence[Gpu], config: Config) -> dict[str, str]:
    by_profile: dict[str, list[MigDevice]] = {}
    for gpu in gpus:
        for device in gpu.mig:
            by_profile.setdefault(device.profile.name, []).append(device)
    if not by_profile:
        return {}
    single = config.mig_strategy == "single"
    if single and (len(by_profile) > 1 or any(not gpu.mig for gpu in gpus)):
        name = _clean(next(gpu for gpu in gpus if gpu.mig).model.name)
        return {
            "nvidia.com/gpu.product": f"{name}-MIG-INVALID",
            "nvidia.com/gpu.count": "0",
            "nvidia.com/gpu.replicas": "0",
            "nvidia.com/gpu.sharing-strategy": "",
            "nvidia.com/gpu.memory": "0",
        }
    labels: dict[str, str] = {}
    for profile_name, devices in by_profile.items():
        profile = devices[0].profile
        resource = "nvidia.com/gpu" if single else "nvidia.com/mig-" + profile_name
        parent = gpus[devices[0].gpu].model.name
        labels |= _base(resource, len(devices), (parent, "MIG", profile_name), config)
        labels |= {
            f"{resource}.memory": str(profile.memory_mib),
            f"{resource}.multiprocessors": str(profile.multiprocessors),
            f"{resource}.slices.gi": str(profile.compute_slices),
            f"{resource}.slices.ci": str(profile.compute_slices),
            f"{resource}.engines.copy": str(profile.copy_engines),
            f"{resource}.engines.decoder": str(profile.decoders),
            f"{resource}.engines.encoder": "0",
            f"{resource}.engines.jpeg": str(profile.jpeg),
            f"{resource}.engines.ofa": str(profile.ofa),
        }
    return labels


def _base(resource: str, count: int, parts: Sequence[str], config: Config | None) -> dict[str, str]:
    """Product, count, replicas and strategy.

    Without ``config`` the resource can't be shared, which reads as 0 replicas.
    """
    entry = config.sharing.of(resource) if config is not None else None
    product = "-".join(_clean(part) for part in parts)
    if entry is not None and not entry.rename:
        product += "-SHARED"
    unshared = 0 if config is None else 1
    replicas = unshared if entry is None else entry.replicas
    return {
        f"{resource}.product": product,
        f"{resource}.count": str(count),
        f"{resource}.replicas": str(replicas),
        f"{resource}.sharing-strategy": config.sharing.strategy if config is not None and entry is not None else "none",
    }


def _clean(name: str) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9\-_. ]", "", name).split())


def _text(value: bool) -> str:
    return "true" if value else "false"
