"""A record as a page: the load, the pods that followed it, and how long requests took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from velagen.page import Chart, Moment, Note, Page, Section, Series, Table, Tile, Tiles, utc
from velagen.page.figures import seconds, span
from velagen.scaling.record import HEAD, Record, formula, number_at, rows

_PLAIN: Final = (
    "Requests come in at a set rate whatever becomes of them; a second is the one in which they were sent.",
    "Pods asked for are the Deployment's replicas as Kubernetes' autoscaler set them; ready are those that answer.",
    "Ready after: from a plateau's beginning until its last change of ready pods.",
)


def settings(trait: Mapping[str, Any]) -> str:
    """The trait in a line."""
    return ", ".join(f"{name}: {value}" for name, value in trait.items())


def page(record: Record, name: str) -> Page:
    """The page of a record.

    Args:
        name: of the application.
    """
    found = rows(record)
    failed, sent = sum(record.failed), sum(record.sent)
    most = max(number for _, number in record.ready)
    late = [one.took for one in found if one.took is not None]
    tiles = Tiles(
        [
            Tile("Requests", f"{sent:,}", f"{failed} failed", "critical" if failed else "good"),
            Tile("Pods", f"{min(number for _, number in record.ready)} to {most}", "ready"),
            Tile("Slowest to follow", seconds(max(late)) if late else "-", "from a plateau's beginning"),
        ]
    )
    table = Table("Plateaus", HEAD, [one.cells() for one in found])
    return Page(
        title=name,
        subtitle=f"{utc(record.at)} to {utc(record.at + record.seconds)} UTC ({span(record.seconds)})",
        sections=[
            Section("", [Note(f"autoscale: {settings(record.trait)}"), tiles, *_charts(record)]),
            Section("Each plateau", [table]),
        ],
        notes=_PLAIN,
        kind="Autoscaling",
    )


def _charts(record: Record) -> list[Chart]:
    # Up to the last whole second.
    places = range(record.seconds)
    times = [record.at + second for second in places]
    moments = [Moment(record.at + one.start, f"{one.rate:g} requests a second") for one in record.spans]
    wanted = [
        next((formula(record.trait, one.rate) for one in reversed(record.spans) if one.start <= second), None)
        for second in places
    ]
    pods = [
        Series("by the formula", wanted, 2, "dashed-step"),
        Series("asked for", [number_at(record.asked, second) for second in places], 1, "step"),
        Series("ready", [number_at(record.ready, second) for second in places], 0, "step"),
    ]
    rates = [Series("sent", [float(one) for one in record.sent], 0)]
    if sum(record.failed):
        rates.append(Series("failed", [float(one) for one in record.failed], 3))
    took = [None if one is None else one / 1000 for one in record.milliseconds]
    return [
        Chart("Requests a second", "rate", times, rates, moments=moments),
        Chart("Pods", "number", times, pods, moments=moments),
        Chart("Time until an answer, mean", "seconds", times, [Series("mean", took, 0)], moments=moments),
    ]
