"""Into which parts a GPU can be divided, by mode: the rules and tables of the trait gpu-share.

definitions/gpu_share.py is written with these tables, and tests hold its refusals against these functions.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final, Literal

Mode = Literal["time-slicing", "mps", "mig", "hami", "volcano", "kai", "dra"]
Isolation = Literal["none", "memory", "fault"]

WHOLE: Final = "nvidia.com/gpu"
SHARED: Final = "nvidia.com/gpu.shared"

#: Most parts of a GPU with MPS: its control daemon refuses more; 16 on GPUs before compute capability 7.5. Source:
#: NVIDIA/k8s-device-plugin cmd/mps-control-daemon/mps/device.go (maxClients).
MOST_MPS: Final = 48
#: By the GPU's model, where it is fewer.
FEWER_MPS: Final = {"v100": 16}

#: Memory of a GPU in MiB, as its driver reports it.
GPU_MIB: Final = {
    "t4": 15360,
    "v100": 16384,
    "l4": 23034,
    "l40s": 46068,
    "a30": 24576,
    "a100-40gb": 40960,
    "a100-80gb": 81920,
    "h100-80gb": 81559,
    "h200-141gb": 143771,
}

#: GPU -> the part of its memory -> the MIG profile: 1g an eighth (A30: a quarter), 2g a quarter (a half), 3g a half.
#: Source: NVIDIA MIG user guide, supported profiles.
MIG_PROFILES: Final = {
    "a30": {"0.25": "1g.6gb", "0.5": "2g.12gb"},
    "a100-40gb": {"0.125": "1g.5gb", "0.25": "2g.10gb", "0.5": "3g.20gb"},
    "a100-80gb": {"0.125": "1g.10gb", "0.25": "2g.20gb", "0.5": "3g.40gb"},
    "h100-80gb": {"0.125": "1g.10gb", "0.25": "2g.20gb", "0.5": "3g.40gb"},
    "h200-141gb": {"0.125": "1g.18gb", "0.25": "2g.35gb", "0.5": "3g.71gb"},
}

#: Memory of a MIG device in MiB, as nvidia-smi mig -lgip lists it; of h200-141gb what it has at least. A profile's name
#: rounds up: 1g.5gb has 4.75 GiB.
MIG_MIB: Final = {
    "a30": {"0.25": 5952, "0.5": 11968},
    "a100-40gb": {"0.125": 4864, "0.25": 9984, "0.5": 20096},
    "a100-80gb": {"0.125": 9728, "0.25": 19968, "0.5": 40448},
    "h100-80gb": {"0.125": 9984, "0.25": 20096, "0.5": 40448},
    "h200-141gb": {"0.125": 16384, "0.25": 32768, "0.5": 66560},
}

#: What a mode keeps the pods on one GPU from: nothing, using memory of each other, and also ending by a fault of
#: another. Sources: docs/gpu.md.
ISOLATION: Final[dict[Mode, Isolation]] = {
    "time-slicing": "none",
    "mps": "memory",
    "mig": "fault",
    "hami": "memory",
    "volcano": "memory",
    "kai": "none",
    # A device of its own, whole or by MIG; not where devices are shared.
    "dra": "fault",
}

#: An amount of GPU memory; a bare number could mean bytes, MiB or GiB, so the unit is a must.
MEMORY: Final = re.compile(r"([1-9][0-9]*(?:\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)(M|G|T|Mi|Gi|Ti)")
_UNITS: Final = {name: 1000**power for power, name in enumerate("MGT", 2)} | {
    f"{name}i": 1024**power for power, name in enumerate("MGT", 2)
}


def memory_mib(memory: str) -> int | None:
    """How many MiB an amount of memory is, rounded up; None where it is not an amount with a unit.

    In: ``8Gi``. Out: ``8192``.
    """
    found = MEMORY.fullmatch(memory)
    return math.ceil(Fraction(found[1]) * _UNITS[found[2]] / (1 << 20)) if found else None


def parts_with(gpu: str, mib: int) -> int:
    """Into how many equal parts a GPU can be divided so that each has so much memory; below 2 none."""
    return GPU_MIB[gpu] // mib


def mig_part_with(gpu: str, mib: int) -> str | None:
    """The smallest part of a GPU's memory whose MIG device has so much, as `MIG_PROFILES` names it."""
    return next((part for part, own in MIG_MIB[gpu].items() if own >= mib), None)


def equal_parts(fraction: float) -> int | None:
    """How many equal parts of a GPU make *fraction* one of them; None where no number does.

    0.33 is meant as a third: the parts may miss the whole by one percent.
    """
    exact = Fraction(str(fraction))
    parts = math.floor(1 / exact + Fraction(1, 2)) if exact > 0 else 0
    return parts if parts > 1 and abs(parts * exact - 1) <= Fraction(1, 100) else None


def fraction_of(parts: int) -> float:
    """The shortest fraction for which `equal_parts` gives *parts*: 0.5, 0.33, 0.25."""
    return next(short for digits in range(1, 17) if equal_parts(short := round(1 / parts, digits)) == parts)


def mig_layout(gpu: str, profiles: frozenset[str]) -> tuple[str, dict[str, int]]:
    """A configuration of the MIG manager that has all *profiles* of a GPU, and how many of each it makes of one.

    A single profile has a configuration of its own; ``all-balanced`` has some of each. Source: NVIDIA/mig-parted
    deployments/systemd/config-default.yaml.
    """
    own = MIG_PROFILES[gpu]
    is_quartered = "0.125" not in own
    if len(profiles) == 1:
        (profile,) = profiles
        most = {"0.25": 4, "0.5": 2} if is_quartered else {"0.125": 7, "0.25": 3, "0.5": 2}
        return f"all-{profile}", {name: most[part] for part, name in own.items() if name == profile}
    counts = {"0.25": 2, "0.5": 1} if is_quartered else {"0.125": 2, "0.25": 1, "0.5": 1}
    return "all-balanced", {name: counts[part] for part, name in own.items()}
