"""Models that want GPUs: how much of one, of which kind, when they come and go. The same again for a seed.

Two mixes. ``long tail``: most models are small and few are large, as where each team serves its own: what a model needs
is lognormal. ``trace``: the form of Alibaba's cluster-trace-gpu-v2023 (Weng et al., USENIX ATC 2023), where 44 % of the
tasks with GPUs take a part of one, about half of it, 55 % take one, and 1 % take 2 to 8; its form, none of its rows. In
both, lifetimes are lognormal and as wide as that trace's, whose 99th percentile is 200 times its median.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Parts that GPUs are cut into, 1 for whole ones: each is a pool of nodes, so a platform offers few.
FEW: Final = (1, 2, 4, 10)
#: All that gpu-share takes between 0.1 and 1.
MANY: Final = (1, 2, 3, 4, 5, 8, 10)
#: GPUs of a model that needs more than one: a tensor is split by powers of two.
SEVERAL: Final = (1, 2, 4, 8)
#: Of the logarithm of a lifetime.
SPREAD: Final = 2.3


@dataclass(frozen=True)
class Ask:
    """What a model's pod asks for: some whole GPUs, or one part of a GPU that is cut into so many."""

    #: A key of `velagen.lab.GPUS`.
    gpu: str
    parts: int = 1
    count: int = 1

    @property
    def gpus(self) -> float:
        """How much of GPUs it is given."""
        return self.count / self.parts


@dataclass(frozen=True)
class Model:
    """A model: what it needs, and when it comes and goes, in mean lifetimes."""

    name: str
    gpu: str
    #: In GPUs.
    need: float
    comes: float = 0.0
    goes: float = math.inf

    def ask(self, cuts: Sequence[int]) -> Ask:
        """The smallest part that holds it, or whole GPUs.

        Args:
            cuts: parts that GPUs are cut into; (1,) where only whole ones are given.
        """
        held = [parts for parts in cuts if self.need <= 1 / parts]
        if held:
            return Ask(self.gpu, max(held))
        return Ask(self.gpu, 1, next(count for count in SEVERAL if self.need <= count))


def long_tail(chance: random.Random) -> float:
    """Half of the models need less than 0.18 of a GPU, one in 23 more than one."""
    return min(8.0, chance.lognormvariate(math.log(0.18), 1.0))


def trace(chance: random.Random) -> float:
    """The form of Alibaba's trace."""
    kind = chance.random()
    if kind < 0.44:
        return min(1.0, max(0.02, chance.gauss(0.5, 0.2)))
    return 1.0 if kind < 0.99 else chance.choice((2.0, 4.0, 8.0))


Need = Callable[[random.Random], float]
MIXES: Final[Mapping[str, Need]] = {"long tail": long_tail, "trace": trace}


@dataclass(frozen=True)
class Load:
    """What happens on a fleet, in order."""

    #: They are there from the beginning.
    first: tuple[Model, ...]
    #: They come while others go.
    then: tuple[Model, ...]
    #: They come at the end, when nobody goes any more, until the fleet is full.
    rush: tuple[Model, ...]

    def asks(self, cuts: Sequence[int]) -> set[Ask]:
        """All that the models ask for."""
        return {model.ask(cuts) for model in (*self.first, *self.then, *self.rush)}

    def events(self) -> Iterator[tuple[Model, bool]]:
        """Models of the middle part as they come (True) and go (False); those of the beginning go too."""
        end = max((one.comes for one in self.then), default=0.0)
        found = [(one.comes, one, True) for one in self.then]
        found += [(one.goes, one, False) for one in (*self.first, *self.then) if one.goes <= end]
        for _, model, comes in sorted(found, key=lambda event: (event[0], event[1].name, event[2])):
            yield model, comes


def load(
    need: Need,
    gpus: Mapping[str, int],
    largest: Mapping[str, int],
    *,
    seed: int,
    cuts: Sequence[int] = FEW,
    level: float = 0.7,
    churn: float = 0.25,
    rush: float = 1.3,
) -> Load:
    """Make a load for a fleet.

    Args:
        need: how much of a GPU a model needs.
        gpus: GPUs of the fleet by kind.
        largest: GPUs of the largest node by kind: no model asks for more.
        cuts: what the load is measured by; the models are the same for others.
        level: of the fleet's GPUs, what the models of the beginning ask for together.
        churn: how many models come in the middle part, for each of the beginning.
        rush: what all ask for together at the end.
    """
    chance = random.Random(seed)
    whole = sum(gpus.values())
    names = iter(range(10**9))

    def model(comes: float, life: float) -> Model:
        (gpu,) = chance.choices(list(gpus), weights=list(gpus.values()))
        wants = need(chance)
        while wants > largest[gpu]:
            wants = need(chance)
        return Model(f"m{next(names)}", gpu, wants, comes, comes + life)

    def until(limit: float, asked: float, make: Callable[[], Model]) -> tuple[Model, ...]:
        found = []
        while asked < limit:
            found.append(make())
            asked += found[-1].ask(cuts).gpus
        return tuple(found)

    # The mean lifetime is 1. Who is there at a moment is more likely to be of those that stay long.
    middle = -SPREAD * SPREAD / 2
    first = until(
        level * whole,
        0.0,
        lambda: model(0.0, chance.random() * chance.lognormvariate(middle + SPREAD * SPREAD, SPREAD)),
    )
    moments = sorted(chance.uniform(0, churn) for _ in range(round(churn * len(first))))
    then = tuple(model(moment, chance.lognormvariate(middle, SPREAD)) for moment in moments)
    last = until(rush * whole, level * whole, lambda: model(churn, math.inf))
    return Load(first, then, last)
