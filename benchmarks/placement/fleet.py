"""Nodes of unlike GPUs, and which of them are cut into how many parts: a choice that the scheduler can't make."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.placement.mix import FEW, Model, Need

from velagen.lab import gpu_node

#: Of a hundred nodes: the GPU, how many a node has, how many such nodes.
HUNDRED: Final = (
    ("T4", 1, 10),
    ("T4", 2, 15),
    ("T4", 4, 15),
    ("L4", 1, 5),
    ("L4", 2, 10),
    ("L4", 4, 10),
    ("A100-80GB", 4, 10),
    ("A100-80GB", 8, 10),
    ("H100-80GB", 8, 15),
)
#: For each GPU of a node.
PROCESSORS, MEMORY_GIB = 16, 128


@dataclass(frozen=True)
class Node:
    """A node with GPUs of one kind, each cut into so many parts."""

    name: str
    gpu: str
    gpus: int
    parts: int = 1

    @property
    def shares(self) -> int:
        """How many parts it offers, or whole GPUs."""
        return self.gpus * self.parts

    def manifest(self, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The object, labelled as GPU feature discovery labels a real one, with processors for its GPUs."""
        made = gpu_node(self.name, model=self.gpu, gpus=self.gpus, replicas=self.parts)
        made["metadata"]["labels"] |= labels or {}
        for amounts in (made["status"]["capacity"], made["status"]["allocatable"]):
            amounts |= {"cpu": str(PROCESSORS * self.gpus), "memory": f"{MEMORY_GIB * self.gpus}Gi"}
        return made


def fleet(count: int) -> list[Node]:
    """So many nodes, with whole GPUs.

    Raises:
        ValueError: it is not a multiple of 20, so the kinds would not be in proportion.
    """
    if count <= 0 or count % 20:
        raise ValueError(f"{count} nodes: write a multiple of 20")
    kinds = [(gpu, gpus, share * count // 100) for gpu, gpus, share in HUNDRED]
    sizes = [(gpu, gpus) for gpu, gpus, number in kinds for _ in range(number)]
    return [Node(f"n{number}", gpu, gpus) for number, (gpu, gpus) in enumerate(sizes)]


def gpus_by_kind(nodes: Sequence[Node]) -> dict[str, int]:
    """How many GPUs of each kind there are."""
    found: Counter[str] = Counter()
    for node in nodes:
        found[node.gpu] += node.gpus
    return dict(found)


def largest_by_kind(nodes: Sequence[Node]) -> dict[str, int]:
    """How many GPUs the largest node of each kind has."""
    found: dict[str, int] = {}
    for node in nodes:
        found[node.gpu] = max(node.gpus, found.get(node.gpu, 0))
    return found


def cut(nodes: Sequence[Node], need: Need, cuts: Sequence[int] = FEW, draws: int = 20_000) -> list[Node]:
    """Cut the GPUs of nodes into the parts that a mix of models is expected to ask for.

    Each kind of GPU has a pool for each number of parts. A pool has what the mix asks on average, and a reserve that
    grows with the square root of it: the number of models that are there at a moment varies so. The largest nodes stay
    whole, since models with several GPUs fit on no others.
    """
    found = []
    for kind, total in gpus_by_kind(nodes).items():
        own = sorted((node for node in nodes if node.gpu == kind), key=lambda node: -node.gpus)
        targets = _targets(kind, total, own[0].gpus, need, cuts, draws)
        for node in own:
            parts = _next(node, targets)
            targets[parts] -= node.gpus
            found.append(replace(node, parts=parts))
    order = {node.name: number for number, node in enumerate(nodes)}
    return sorted(found, key=lambda node: order[node.name])


def _next(node: Node, targets: Mapping[int, float]) -> int:
    """The pool that a node goes to: whole ones first, then where most is missing."""
    if 1 in targets and targets[1] >= node.gpus / 2:
        return 1
    return max(targets, key=lambda parts: (targets[parts], -parts))


def _targets(kind: str, total: int, largest: int, need: Need, cuts: Sequence[int], draws: int) -> dict[int, float]:
    """How many GPUs of a kind each pool is to have."""
    chance = random.Random(0)
    mean: dict[int, float] = dict.fromkeys(cuts, 0.0)
    square: dict[int, float] = dict.fromkeys(cuts, 0.0)
    for _ in range(draws):
        wants = need(chance)
        if wants <= largest:
            ask = Model("", kind, wants).ask(cuts)
            mean[ask.parts] += ask.gpus / draws
            square[ask.parts] += ask.gpus**2 / draws
    # So many models fill the kind's GPUs by nine tenths; what is left is the reserve.
    models = 0.9 * total / sum(mean.values())
    deviations = {parts: math.sqrt(models * square[parts]) for parts in cuts}
    reserve = (total - models * sum(mean.values())) / sum(deviations.values())
    return {parts: models * mean[parts] + reserve * deviations[parts] for parts in cuts}
