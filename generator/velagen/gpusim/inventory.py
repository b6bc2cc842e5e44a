"""The GPUs a simulated node has, their parts, and the devices a kubelet is told of."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from velagen.gpusim.config import PREFIX, Config
from velagen.gpusim.errors import Complaint, GpusimError

#: Ids must be the same after a crash, or the kubelet loses the devices of running pods: they follow from node and
#: place.
_NAMESPACE: Final = uuid.UUID("9d0c0a52-7a0e-4c5f-9a53-6a3a8f0b7f11")
_COMPUTE_SLICES: Final = 7
_MEMORY_SLICES: Final = 8


@dataclass(frozen=True)
class MigProfile:
    """What one MIG instance of this profile has; figures as ``nvidia-smi mig -lgip`` prints them."""

    name: str
    memory_mib: int
    multiprocessors: int
    compute_slices: int
    memory_slices: int
    copy_engines: int
    decoders: int
    jpeg: int = 0
    ofa: int = 0


@dataclass(frozen=True)
class Model:
    """A GPU model as the driver reports it."""

    key: str
    name: str
    memory_mib: int
    compute: tuple[int, int]
    family: str
    profiles: tuple[MigProfile, ...] = ()

    @property
    def most_mps(self) -> int:
        """How many shares MPS makes of it at most (cmd/mps-control-daemon/mps/device.go, maxClients)."""
        return 48 if self.compute >= (7, 5) else 16


MODELS: Final = {
    model.key: model
    for model in (
        Model("t4", "Tesla T4", 15360, (7, 5), "turing"),
        Model("v100", "Tesla V100-SXM2-16GB", 16384, (7, 0), "volta"),
        Model("l4", "NVIDIA L4", 23034, (8, 9), "ada-lovelace"),
        Model("l40s", "NVIDIA L40S", 46068, (8, 9), "ada-lovelace"),
        Model(
            "a100-40gb",
            "NVIDIA A100-SXM4-40GB",
            40960,
            (8, 0),
            "ampere",
            (
                MigProfile("1g.5gb", 4864, 14, 1, 1, 1, 0),
                MigProfile("2g.10gb", 9984, 28, 2, 2, 2, 1),
                MigProfile("3g.20gb", 20096, 42, 3, 4, 3, 2),
                MigProfile("4g.20gb", 20096, 56, 4, 4, 4, 2),
                MigProfile("7g.40gb", 40448, 98, 7, 8, 7, 5, 1, 1),
            ),
        ),
        Model(
            "a100-80gb",
            "NVIDIA A100-SXM4-80GB",
            81920,
            (8, 0),
            "ampere",
            (
                MigProfile("1g.10gb", 9728, 14, 1, 1, 1, 0),
                MigProfile("2g.20gb", 19968, 28, 2, 2, 2, 1),
                MigProfile("3g.40gb", 40448, 42, 3, 4, 3, 2),
                MigProfile("4g.40gb", 40448, 56, 4, 4, 4, 2),
                MigProfile("7g.80gb", 81152, 98, 7, 8, 7, 5, 1, 1),
            ),
        ),
        Model(
            "h100-80gb",
            "NVIDIA H100 80GB HBM3",
            81559,
            (9, 0),
            "hopper",
            (
                MigProfile("1g.10gb", 9984, 16, 1, 1, 1, 1, 1),
                MigProfile("1g.20gb", 20096, 26, 1, 2, 1, 1, 1),
                MigProfile("2g.20gb", 20096, 32, 2, 2, 2, 2, 2),
                MigProfile("3g.40gb", 40448, 60, 3, 4, 3, 3, 3),
                MigProfile("4g.40gb", 40448, 64, 4, 4, 4, 4, 4),
                MigProfile("7g.80gb", 81022, 132, 7, 8, 8, 7, 7, 1),
            ),
        ),
    )
}


@dataclass(frozen=True)
class MigDevice:
    """One MIG instance of a GPU."""

    gpu: int
    position: int
    uuid: str
    profile: MigProfile

    @property
    def index(self) -> str:
        """``0:1``: the second instance on the first GPU."""
        return f"{self.gpu}:{self.position}"


@dataclass(frozen=True)
class Gpu:
    """One simulated GPU; with ``mig`` it is in MIG mode."""

    position: int
    uuid: str
    model: Model
    mig: tuple[MigDevice, ...] = ()

    @property
    def index(self) -> str:
        """Its number on the node, as text: that is how NVIDIA_VISIBLE_DEVICES names it."""
        return str(self.position)


@dataclass(frozen=True)
class PluginDevice:
    """What the kubelet sees: a GPU, a MIG instance or one share of either."""

    id: str
    #: UUID of the GPU or MIG instance behind it: what a container gets.
    uuid: str
    index: str
    gpu: int

    @property
    def is_share(self) -> bool:
        """Whether this is one of several shares of a device."""
        return "::" in self.id


def node_gpus(node: str, specs: Sequence[str] = ("t4x2",)) -> tuple[Gpu, ...]:
    """The GPUs of node ``node``, from specs ``MODEL[xCOUNT][:PROFILE,...]``.

    Such as ``t4x2`` or ``a100-40gb:3g.20gb,3g.20gb``. The profiles apply to each GPU of the spec. Raises GpusimError
    with every spec that names no GPU.
    """
    gpus: list[Gpu] = []
    problems: list[Complaint] = []
    for spec in specs:
        head, _, tail = spec.partition(":")
        match = re.fullmatch(r"(.+?)(?:x(\d+))?", head)
        model = MODELS.get(match[1]) if match else None
        count = int(match[2] or 1) if match else 0
        if model is None or not count:
            known = ", ".join(sorted(MODELS))
            problems.append(Complaint(f"{spec!r} names no GPU", "--gpu", f"MODEL[xCOUNT][:PROFILE,...] of {known}"))
            continue
        names = [name for name in tail.split(",") if name]
        profiles = [profile for name in names for profile in model.profiles if profile.name == name]
        if len(profiles) != len(names):
            offered = ", ".join(profile.name for profile in model.profiles) or "none: this model has no MIG"
            problems.append(Complaint(f"{spec!r} asks for a MIG profile that {model.name} lacks", "--gpu", offered))
            continue
        if (
            sum(profile.compute_slices for profile in profiles) > _COMPUTE_SLICES
            or sum(profile.memory_slices for profile in profiles) > _MEMORY_SLICES
        ):
            problems.append(Complaint(f"{spec!r} asks for more slices than one GPU has", "--gpu"))
            continue
        for _ in range(count):
            position = len(gpus)
            mig = tuple(
                MigDevice(position, number, f"MIG-{uuid.uuid5(_NAMESPACE, f'{node}/{position}/{number}')}", profile)
                for number, profile in enumerate(profiles)
            )
            gpus.append(Gpu(position, f"GPU-{uuid.uuid5(_NAMESPACE, f'{node}/{position}')}", model, mig))
    if problems:
        raise GpusimError(problems)
    return tuple(gpus)


def plugin_devices(gpus: Sequence[Gpu], config: Config) -> dict[str, tuple[PluginDevice, ...]]:
    """Resource name -> devices, as the plugin builds it: MIG strategy first, then sharing.

    Raises GpusimError where the plugin would refuse to start (mixed profiles under ``single``, MPS with MIG), or its
    MPS daemon (too many shares).
    """
    whole: dict[str, list[PluginDevice]] = {}
    in_mig_mode = [gpu for gpu in gpus if gpu.mig]
    if config.mig_strategy == "single" and in_mig_mode:
        if len(in_mig_mode) < len(gpus):
            raise GpusimError(Complaint("migStrategy single: all GPUs of a node must be in MIG mode, or none"))
        if len({device.profile.name for gpu in gpus for device in gpu.mig}) > 1:
            raise GpusimError(Complaint("migStrategy single: all MIG devices of a node must have one profile"))
    for gpu in gpus:
        if not gpu.mig or config.mig_strategy == "none":
            whole.setdefault(PREFIX + "gpu", []).append(PluginDevice(gpu.uuid, gpu.uuid, gpu.index, gpu.position))
            continue
        for mig in gpu.mig:
            single = config.mig_strategy == "single"
            name = PREFIX + ("gpu" if single else "mig-" + mig.profile.name.replace("+", "."))
            whole.setdefault(name, []).append(PluginDevice(mig.uuid, mig.uuid, mig.index, gpu.position))
    if config.sharing.strategy == "mps" and config.mig_strategy != "none" and in_mig_mode:
        raise GpusimError(Complaint("MPS can't share MIG devices"))
    result: dict[str, tuple[PluginDevice, ...]] = {}
    for name, devices in whole.items():
        entry = config.sharing.of(name)
        if entry is not None and config.sharing.strategy == "mps":
            _refuse_crowds(entry.replicas, gpus)
        if entry is None:
            result[name] = tuple(devices)
            continue
        result[entry.rename or name] = tuple(
            PluginDevice(f"{device.id}::{number}", device.uuid, device.index, device.gpu)
            for device in devices
            for number in range(entry.replicas)
        )
    return result


def _refuse_crowds(replicas: int, gpus: Sequence[Gpu]) -> None:
    models = {gpu.model.name: gpu.model.most_mps for gpu in gpus if replicas > gpu.model.most_mps}
    if models:
        raise GpusimError(
            Complaint(f"MPS makes {most} shares of {name} at most, not {replicas}") for name, most in models.items()
        )
