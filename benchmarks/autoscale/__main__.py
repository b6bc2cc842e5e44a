"""Simulates the autoscaling policies over loads: ``python -m benchmarks.autoscale --write`` fills docs/autoscale.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from benchmarks.autoscale.loads import LOADS
from benchmarks.autoscale.model import OBJECTIVE, Kpa, Outcome, Scaler, article, cpu, fixed, littles_law, run, slo
from benchmarks.page import write

DOCS = Path(__file__).resolve().parents[2] / "docs"
DEFAULT = "littles-law (default)"
#: The article's pod bears 1.25 requests a second for each millisecond; 25.6 ms is what a pod here bears at 80 %.
SCALERS: dict[str, Callable[[], Scaler]] = {
    DEFAULT: littles_law,
    "slo": slo,
    "article, the objective as target": lambda: article(OBJECTIVE),
    "article, fitted to the pod (25.6 ms)": lambda: article(25.6),
    "HPA on CPU at 70 %": cpu,
    "KPA's algorithm": Kpa,
    "13 pods": lambda: fixed(13),
}


@dataclass(frozen=True)
class Row:
    """All loads by one scaler."""

    name: str
    by_load: dict[str, Outcome]

    def total(self, what: str) -> float:
        """The sum of a measure over all loads."""
        return float(sum(getattr(one, what) for one in self.by_load.values()))


def simulate(seed: int) -> list[Row]:
    """Each scaler over each load."""
    loads = {name: make(seed) for name, make in LOADS.items()}
    return [
        Row(name, {load: run(requests, make()) for load, requests in loads.items()}) for name, make in SCALERS.items()
    ]


COSTS = ("seconds_over", "replica_hours")
ALL = (*COSTS, "flaps", "lost")


def on_front(row: Row, rows: Sequence[Row], measures: Sequence[str]) -> bool:
    """Whether no other is better in one of the measures and worse in none."""
    own = [row.total(what) for what in measures]
    others = ([other.total(what) for what in measures] for other in rows)
    return not any(
        other != own and all(theirs <= ours for theirs, ours in zip(other, own, strict=True)) for other in others
    )


def table(rows: Sequence[Row]) -> str:
    """The page's tables, in Markdown."""
    measures_named = "seconds over the objective | replica-hours | flaps | requests lost"
    head = f"| policy | {measures_named} | front of the first two | of all |"
    lines = ["All four loads together:", "", head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        over, hours, flaps, lost = (row.total(what) for what in ALL)
        fronts = " | ".join("yes" if on_front(row, rows, measures) else "no" for measures in (COSTS, ALL))
        lines.append(f"| {row.name} | {over:.0f} | {hours:.1f} | {flaps:.0f} | {lost:.0f} | {fronts} |")
    names = list(LOADS)
    lines += ["", "By load, seconds over the objective / replica-hours / flaps / requests lost:", ""]
    lines += ["| policy | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        cells = [
            f"{one.seconds_over} / {one.replica_hours:.1f} / {one.flaps} / {one.lost:.0f}"
            for one in (row.by_load[name] for name in names)
        ]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> str:
    """Each of the others beside the default, where the article's formula loses among them."""
    ours = next(row for row in rows if row.name == DEFAULT)
    lines = ["Beside the default:", ""]
    for row in rows:
        if row is not ours:
            more = [row.total(what) - ours.total(what) for what in ALL]
            lines.append(
                f"- {row.name}: {more[0]:+.0f} seconds over the objective, {more[1]:+.1f} replica-hours, "
                f"{more[2]:+.0f} flaps, {more[3]:+.0f} requests lost"
            )
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """The front, and the pods in the first hour and a half of the flash crowd.

    Raises ImportError where matplotlib is not installed.
    """
    import matplotlib as mpl  # needed here alone, and slow to load

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "velagen"
    from matplotlib import pyplot

    figure, (front, pods) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for row in rows:
        front.scatter(row.total("replica_hours"), row.total("seconds_over") + 1, label=row.name)
        pods.plot([second / 60 for second in range(5400)], row.by_load["flash crowd"].pods[:5400], label=row.name)
    front.set(xlabel="replica-hours", ylabel="seconds over the objective + 1", yscale="log", title="All loads")
    pods.set(xlabel="minutes", ylabel="pods", title="Flash crowd: 100 to 600 requests a second")
    front.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


@click.command()
@click.option("--seed", default=1, show_default=True, help="Of the loads.")
@click.option("--write/--no-write", "writes", default=False, help="Put table and plot into docs/.")
def main(seed: int, writes: bool) -> None:
    """Simulate the policies of the trait autoscale beside Kubernetes' and Knative's over four loads."""
    rows = simulate(seed)
    content = f"Seed {seed}.\n\n{table(rows)}\n\n{verdict(rows)}"
    click.echo(content)
    if writes:
        write("simulation", content, DOCS / "autoscale.md")
        try:
            draw(rows, DOCS / "autoscale.svg")
        except ImportError as error:
            raise click.ClickException(f"no plot: {error} (pip install matplotlib)") from error


if __name__ == "__main__":
    main()
