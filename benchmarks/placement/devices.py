"""The GPUs of each node as NVIDIA's device plugin gives them out, and what can be read off them.

The scheduler counts a node's parts; which GPU one comes from, the plugin says: the one with the fewest models (policy
``distributed``, the default), or the one with the most (``packed``, from v0.20.0 on). Source: NVIDIA/k8s-device-plugin
internal/rm/allocate.go, api/config/v1/flags.go (sharedDevicesAllocationPolicy). Whole GPUs are taken as they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.placement.fleet import Node
from benchmarks.placement.mix import SEVERAL, Ask

Policy = Literal["distributed", "packed"]


class OverCommittedError(Exception):
    """A model was put where no device is left for it, or of the wrong kind."""


@dataclass
class Devices:
    """Who holds what of a node's GPUs."""

    node: Node
    policy: Policy = "distributed"
    #: Models on each GPU.
    used: list[int] = field(default_factory=list)
    _held: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.used = [0] * self.node.gpus

    def give(self, name: str, ask: Ask) -> None:
        """Give a model its part of a GPU, or its GPUs.

        Raises:
            OverCommittedError: there is none.
        """
        if (ask.gpu, ask.parts) != (self.node.gpu, self.node.parts):
            raise OverCommittedError(f"{name} asks for {ask}, and {self.node} has none such")
        fullest = self.policy == "packed"
        room = [number for number, used in enumerate(self.used) if used < self.node.parts]
        room.sort(key=lambda number: (-self.used[number] if fullest else self.used[number], number))
        taken = tuple(room[: ask.count])
        if len(taken) < ask.count:
            raise OverCommittedError(f"{name} asks for {ask}, and of {self.node.name} {self.used} are in use")
        for number in taken:
            self.used[number] += 1
        self._held[name] = taken

    def take_back(self, name: str) -> None:
        """A model has gone."""
        for number in self._held.pop(name):
            self.used[number] -= 1

    @property
    def free(self) -> int:
        """Parts, or whole GPUs, that nobody has."""
        return self.node.shares - sum(self.used)


@dataclass(frozen=True)
class Measures:
    """What a fleet holds at a moment."""

    models: int
    #: GPUs with at least one model, and GPUs of the nodes with at least one.
    gpus: int
    gpus_of_nodes: int
    #: GPUs that the models were given, and that they need.
    given: float
    needed: float
    #: Of the whole GPUs that are free, the part that a model with several can't have: too few of its node are free.
    stranded: float

    @property
    def models_a_gpu(self) -> float:
        """Models on a GPU in use."""
        return self.models / self.gpus if self.gpus else 0.0

    @property
    def use(self) -> float:
        """Of the GPUs in use, the part that models need."""
        return self.needed / self.gpus if self.gpus else 0.0

    @property
    def empty(self) -> float:
        """Of the GPUs in use, the part that no model was given."""
        return 1 - self.given / self.gpus if self.gpus else 0.0


class Books:
    """All nodes' devices, and which model is where."""

    def __init__(self, nodes: Iterable[Node], policy: Policy = "distributed") -> None:
        self.devices = {node.name: Devices(node, policy) for node in nodes}
        self.where: dict[str, str] = {}
        self.asks: dict[str, Ask] = {}
        self.needs: dict[str, float] = {}

    def give(self, name: str, ask: Ask, need: float, node: str) -> None:
        """A model was put on a node. Raises OverCommittedError where it has no place there."""
        self.devices[node].give(name, ask)
        self.where[name], self.asks[name], self.needs[name] = node, ask, need

    def take_back(self, name: str) -> bool:
        """A model goes; give whether it was anywhere."""
        node = self.where.pop(name, None)
        if node is None:
            return False
        self.devices[node].take_back(name)
        del self.asks[name], self.needs[name]
        return True

    def measures(self) -> Measures:
        """What is there now."""
        every = self.devices.values()
        return Measures(
            models=len(self.where),
            gpus=sum(sum(1 for used in one.used if used) for one in every),
            gpus_of_nodes=sum(one.node.gpus for one in every if any(one.used)),
            given=sum(ask.gpus for ask in self.asks.values()),
            needed=sum(self.needs.values()),
            stranded=stranded([one.free for one in every if one.node.parts == 1]),
        )


def stranded(free: Sequence[int]) -> float:
    """Of whole GPUs that are free, by node, what models with 2, 4 and 8 can't have, on average.

    The form of the measure of Weng et al. (USENIX ATC 2023): what is free and of no use to the next task.
    """
    total = sum(free)
    counts = SEVERAL[1:]
    if not total:
        return 0.0
    return sum(1 - sum(one // count * count for one in free) / total for count in counts) / len(counts)


def audit(nodes: Iterable[Node], placed: Mapping[str, tuple[Ask, str]]) -> None:
    """Give out all devices anew for what a cluster says is where. Raises OverCommittedError where they are too few."""
    books = Books(nodes)
    for name, (ask, node) in sorted(placed.items()):
        books.give(name, ask, 0.0, node)
