"""Into which parts a GPU can be divided, by mode: the rules and tables of the trait gpu-share.

definitions/gpu_share.py is written with these tables, and tests hold its refusals against these functions.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final, Literal

Mode = Literal["time-slicing", "mps", "mig", "hami", "volcano", "kai"]

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
