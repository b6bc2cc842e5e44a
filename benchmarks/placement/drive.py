"""Plays a load on a fleet, whoever chooses the nodes, and measures as it goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.placement.bound import of_parts, of_pools
from benchmarks.placement.devices import Books, Measures
from benchmarks.placement.fleet import Node
from benchmarks.placement.mix import Ask, Load, Model

#: Models that are offered before their answers are asked for; where models come and go, how often is measured.
AT_ONCE = 200
MEASURED_EVERY = 100


class Placer(Protocol):
    """Chooses nodes for models."""

    def offer(self, model: Model, ask: Ask) -> None:
        """Ask for a place; the answer may come later."""

    def answer(self, name: str) -> str | None:
        """The node of a model that was offered, None where there is no place: it is gone then."""

    def remove(self, name: str) -> None:
        """Take a placed model away."""


@dataclass(frozen=True)
class Moment:
    """What was there, and how few GPUs could have held it."""

    measures: Measures
    #: GPUs in use where the device plugin fills one before it takes the next.
    packed_gpus: int
    #: Each GPU cut into equal parts; any part on any GPU, from below and as packed.
    pools: int
    parts: int
    packed: int

    @property
    def over_pools(self) -> float:
        """GPUs in use over the bound of the pools."""
        return self.measures.gpus / self.pools if self.pools else 1.0

    @property
    def packed_over_pools(self) -> float:
        """The same where the device plugin fills one GPU before it takes the next."""
        return self.packed_gpus / self.pools if self.pools else 1.0

    @property
    def over_parts(self) -> float:
        """GPUs in use over the bound where any part may lie anywhere."""
        return self.measures.gpus / self.parts if self.parts else 1.0


@dataclass
class Played:
    """What became of a load."""

    #: When all of the beginning are there; while others come and go; when the fleet is full.
    first: Moment
    churn: list[Moment] = field(default_factory=list)
    full: Moment | None = None
    #: Of the beginning, of the middle, of the end: models that found no place.
    turned_away: list[int] = field(default_factory=list)
    #: At the end, of models with four and eight GPUs: offered, placed.
    large: tuple[int, int] = (0, 0)

    def mean(self, what: Callable[[Moment], float]) -> float:
        """Of the moments while models come and go."""
        return statistics.fmean(map(what, self.churn))


def moment(books: Books, tight: Books) -> Moment:
    """What is there now, by both policies of the device plugin."""
    asks = list(books.asks.values())
    least, packed = of_parts(asks)
    return Moment(books.measures(), tight.measures().gpus, of_pools(asks), least, packed)


def play(
    nodes: Sequence[Node],
    load: Load,
    cuts: Sequence[int],
    placer: Placer,
    *,
    check: Callable[[Books], None] = lambda _: None,
    between: Callable[[str], None] = lambda _: None,
) -> Played:
    """Play a load.

    Args:
        cuts: parts that the fleet's GPUs are cut into; (1,) where all are whole.
        check: looks at the cluster itself after each part of the load.
        between: is told the part that begins: first, churn, rush.

    Raises:
        OverCommittedError: a model was put where there is no device for it.
    """
    books, tight = Books(nodes), Books(nodes, "packed")
    waiting: dict[str, Model] = {}

    def offer(model: Model) -> None:
        waiting[model.name] = model
        placer.offer(model, model.ask(cuts))

    def settle(names: Iterable[str]) -> int:
        """Take answers in; how many were no."""
        refused = 0
        for name in list(names):
            model = waiting.pop(name)
            node = placer.answer(name)
            if node is None:
                refused += 1
            else:
                for one in (books, tight):
                    one.give(name, model.ask(cuts), model.need, node)
        return refused

    def crowd(models: Sequence[Model], *, until_full: bool = False) -> int:
        refused = 0
        for start in range(0, len(models), AT_ONCE):
            some = models[start : start + AT_ONCE]
            for model in some:
                offer(model)
            no = settle(waiting)
            refused += no
            if until_full and no == len(some):
                # Two hundred of all sizes, and no place for any: so it is for the rest.
                refused += len(models) - start - len(some)
                break
        check(books)
        return refused

    between("first")
    refused = crowd(load.first)
    played = Played(moment(books, tight), turned_away=[refused])

    between("churn")
    refused = 0
    for number, (model, comes) in enumerate(load.events(), 1):
        if comes:
            offer(model)
        else:
            if model.name in waiting:
                refused += settle([model.name])
            if books.take_back(model.name):
                tight.take_back(model.name)
                placer.remove(model.name)
        if number % MEASURED_EVERY == 0:
            refused += settle(waiting)
            played.churn.append(moment(books, tight))
    refused += settle(waiting)
    check(books)
    played.churn.append(moment(books, tight))
    played.turned_away.append(refused)

    between("rush")
    large = [model for model in load.rush if model.ask(cuts).count >= 4]
    played.turned_away.append(crowd(load.rush, until_full=True))
    played.large = (len(large), sum(1 for model in large if model.name in books.where))
    played.full = moment(books, tight)
    return played
