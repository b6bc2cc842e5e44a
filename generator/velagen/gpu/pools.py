"""Which configurations of NVIDIA's device plugin make shares true: one for each pool of nodes.

A node has one mode and one number of parts for all its GPUs. Source: NVIDIA/k8s-device-plugin README (shared access to
GPUs; configuration by the node label), api/config/v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from velagen.errors import Problem, VelagenError
from velagen.gpu.parts import SHARED, WHOLE, mig_layout
from velagen.gpu.shares import Share

#: The configuration of a node whose label names none, by its name (cmd/config-manager): without it a file with one
#: configuration would be taken for all nodes.
DEFAULT: Final = "default"
_KEYS: Final = {"time-slicing": "timeSlicing", "mps": "mps"}


@dataclass(frozen=True)
class Configuration:
    """What one pool of nodes is to be configured as."""

    name: str
    shares: tuple[Share, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The device plugin's file, version v1."""
        first = self.shares[0]
        if first.mode == "mig":
            return {"version": "v1", "flags": {"migStrategy": "mixed"}}
        sharing = {
            "renameByDefault": first.resource == SHARED,
            # Two shares may be of one GPU, and are never twice the part.
            "failRequestsGreaterThanOne": True,
            "resources": [{"name": WHOLE, "replicas": first.parts}],
        }
        return {"version": "v1", "sharing": {_KEYS[first.mode]: sharing}}

    @property
    def mig(self) -> str:
        """The MIG manager's configuration that goes with it; empty in the other modes."""
        return self._layout[0]

    def offers(self, gpus: int) -> Mapping[str, int]:
        """The resources of a node with so many GPUs."""
        return {name: count * gpus for name, count in self._layout[1].items()}

    @property
    def _layout(self) -> tuple[str, dict[str, int]]:
        first = self.shares[0]
        if first.mode != "mig":
            return "", {first.resource: first.parts}
        layout, counts = mig_layout(first.gpu, frozenset(one.profile for one in self.shares))
        return layout, {f"nvidia.com/mig-{profile}": count for profile, count in counts.items()}


def configurations(shares: Iterable[Share], *, together: bool = False) -> tuple[Configuration, ...]:
    """The configurations that these shares need, by name.

    Args:
        together: all of them are for the same nodes. Raises VelagenError where one configuration doesn't do for them.
    """
    by_name: dict[str, list[Share]] = {}
    for share in shares:
        by_name.setdefault(_name(share), []).append(share)
    if together and len(by_name) > 1:
        raise VelagenError(_apart(name, own[0], by_name) for name, own in by_name.items())
    return tuple(Configuration(name, tuple(by_name[name])) for name in sorted(by_name))


def _name(share: Share) -> str:
    if share.mode == "mig":
        return f"mig-{share.gpu}"
    return f"{share.mode}-{share.parts}" + ("-as-gpu" if share.resource == WHOLE else "")


def _needs(share: Share) -> str:
    if share.mode == "mig":
        return f"fraction {share.fraction:g} needs MIG devices of {share.gpu}"
    name = ", offered as nvidia.com/gpu" if share.resource == WHOLE else ""
    return f"fraction {share.fraction:g} needs {share.parts} parts by {share.mode}{name}"


def _apart(name: str, share: Share, names: Iterable[str]) -> Problem:
    """What is said of a share that can't be had on the nodes of the others."""
    who = f"{share.component}: " if share.component else ""
    others = " or ".join(one for one in names if one != name)
    reason = f"{who}{_needs(share)}, and a node has one mode and one number of parts for all its GPUs"
    return Problem(reason, share.place, f"leave --pool out, and label some of the nodes {name}, others {others}")
