"""The two ways to choose a node without a cluster: for tests, and to see a choice of pools before a run."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal

from benchmarks.placement.fleet import Node
from benchmarks.placement.mix import Ask, Model

Way = Literal["spread", "pack"]


class Rules:
    """Takes the node with the smallest part of its GPUs in use, or with the greatest; chance decides among equals.

    Kubernetes' default looks at processors and memory, which a model takes here in proportion to its GPUs.
    """

    def __init__(self, nodes: Iterable[Node], way: Way, seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self._way = way
        self._used = dict.fromkeys(nodes, 0)
        self._where: dict[str, tuple[Node, int]] = {}
        self._answers: dict[str, str | None] = {}

    def offer(self, model: Model, ask: Ask) -> None:
        """Place a model."""
        fits = [
            (used / node.shares, self._chance.random(), node)
            for node, used in self._used.items()
            if (node.gpu, node.parts) == (ask.gpu, ask.parts) and node.shares - used >= ask.count
        ]
        if not fits:
            self._answers[model.name] = None
            return
        least = min(fits, key=lambda one: one[:2])
        most = max(fits, key=lambda one: one[:2])
        node = (most if self._way == "pack" else least)[2]
        self._used[node] += ask.count
        self._where[model.name] = node, ask.count
        self._answers[model.name] = node.name

    def answer(self, name: str) -> str | None:
        """The node of a model that was offered, None where there is no place."""
        return self._answers.pop(name)

    def remove(self, name: str) -> None:
        """Take a placed model away."""
        node, count = self._where.pop(name)
        self._used[node] -= count
