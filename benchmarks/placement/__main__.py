"""Places models on simulated GPU nodes by the real scheduler: ``python -m benchmarks.placement``; docs/placement.md."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from benchmarks import page
from benchmarks.placement import pods
from benchmarks.placement.drive import Played, play
from benchmarks.placement.fleet import Node, cut, fleet, gpus_by_kind, largest_by_kind
from benchmarks.placement.mix import FEW, MANY, MIXES, load
from benchmarks.placement.plane import Placing, add_nodes, plane
from benchmarks.serving.load import percentile

DOCS: Final = page.ROOT / "docs"
WHOLE, DEFAULT, PACKING = "whole GPUs", "shares, default scheduler", "shares, packing scheduler"
WAYS: Final = (WHOLE, DEFAULT, PACKING)
#: Pods a second while models come and go: less than any of them can place, so that what is measured is no queue.
PACE: Final = 10.0
#: The article: GPUs are shared for 40 % better use.
ARTICLE: Final = 1.4


@dataclass(frozen=True)
class Run:
    """One load on one fleet, placed one way."""

    nodes: int
    mix: str
    cuts: tuple[int, ...]
    seed: int
    way: str


@dataclass(frozen=True)
class Found:
    """What a run found. Means over the moments while models come and go, but for those of the full fleet."""

    fleet_gpus: int
    offered: int
    models: float
    gpus: float
    gpus_of_nodes: float
    models_a_gpu: float
    use: float
    empty: float
    stranded: float
    #: GPUs in use over the bound: of the pools; the same where the plugin fills GPUs; of any part on any GPU.
    over_pools: float
    packed_over_pools: float
    over_parts: float
    #: The best heuristic's packing of any part on any GPU, over its bound.
    heuristic: float
    #: Found no place: of the beginning and of those that came, together with how many these are.
    turned_away: int
    #: When the fleet is full.
    full_models: int
    full_use: float
    large_offered: int
    large_placed: int
    #: Milliseconds to place a model.
    p50: float
    p99: float

    @classmethod
    def of(cls, nodes: Sequence[Node], offered: int, played: Played, placing: Placing) -> Found:
        """Sum a run up."""
        whole, full = sum(node.gpus for node in nodes), played.full
        assert full is not None
        churn = [1000 * one for one in placing.seconds["churn"]]
        return cls(
            fleet_gpus=whole,
            offered=offered,
            models=played.mean(lambda one: one.measures.models),
            gpus=played.mean(lambda one: one.measures.gpus),
            gpus_of_nodes=played.mean(lambda one: one.measures.gpus_of_nodes),
            models_a_gpu=played.mean(lambda one: one.measures.models_a_gpu),
            use=played.mean(lambda one: one.measures.use),
            empty=played.mean(lambda one: one.measures.empty),
            stranded=played.mean(lambda one: one.measures.stranded),
            over_pools=played.mean(lambda one: one.over_pools),
            packed_over_pools=played.mean(lambda one: one.packed_over_pools),
            over_parts=played.mean(lambda one: one.over_parts),
            heuristic=played.mean(lambda one: one.packed / one.parts),
            turned_away=sum(played.turned_away[:2]),
            full_models=full.measures.models,
            full_use=full.measures.needed / whole,
            large_offered=played.large[0],
            large_placed=played.large[1],
            p50=percentile(churn, 0.5),
            p99=percentile(churn, 0.99),
        )


def measure(run: Run, *, pace: float | None, churn: float, told: Callable[[str], None]) -> Found:
    """Start a control plane, place the run's load there, and stop it."""
    whole = fleet(run.nodes)
    largest = largest_by_kind(whole)
    wanted = load(MIXES[run.mix], gpus_by_kind(whole), largest, seed=run.seed, cuts=run.cuts, churn=churn)
    cuts = (1,) if run.way == WHOLE else run.cuts
    nodes = whole if run.way == WHOLE else cut(whole, MIXES[run.mix], run.cuts)
    packing = run.way == PACKING
    asks = pods.rendered(wanted.asks(cuts), pods.PACKING if packing else None)
    told(f"{len(wanted.first)} models, then {len(wanted.then)} that come while others go")
    with (
        tempfile.TemporaryDirectory(prefix="velagen-placement-") as folder,
        plane(Path(folder) / "plane", pods.packing_configuration() if packing else None) as kubeconfig,
    ):
        add_nodes(kubeconfig, nodes)
        placing = Placing(kubeconfig, asks, pace=pace)
        with placing.watching():
            played = play(nodes, wanted, cuts, placing, check=placing.check, between=placing.between)
    return Found.of(nodes, len(wanted.first) + len(wanted.then), played, placing)


def spread(found: Sequence[Found], what: Callable[[Found], float], digits: int | None = None) -> str:
    """A measure of several seeds."""
    return page.Spread.of([what(one) for one in found]).text(digits)


def _while(own: Sequence[Found]) -> list[str]:
    """A row of the table on the time while models come and go."""
    return [
        spread(own, lambda one: one.models, 0),
        spread(own, lambda one: one.gpus, 0),
        spread(own, lambda one: one.models_a_gpu, 2),
        f"{spread(own, lambda one: 100 * one.use, 0)} %",
        f"{spread(own, lambda one: 100 * one.empty, 1)} %",
        f"{spread(own, lambda one: 100 * (one.over_pools - 1), 1)} %",
        f"{spread(own, lambda one: 100 * (one.packed_over_pools - 1), 1)} %",
        spread(own, lambda one: one.gpus_of_nodes, 0),
        f"{spread(own, lambda one: 100 * one.stranded, 0)} %",
        spread(own, lambda one: one.turned_away, 0),
    ]


def section(runs: Mapping[Run, Found], nodes: int, mix: str, cuts: tuple[int, ...]) -> str:
    """The tables of one fleet and mix."""
    ours = {
        way: [one for run, one in runs.items() if (run.nodes, run.mix, run.cuts, run.way) == (nodes, mix, cuts, way)]
        for way in WAYS
    }
    ours = {way: own for way, own in ours.items() if own}
    first = next(iter(ours.values()))
    title = f"### {nodes} nodes, {first[0].fleet_gpus} GPUs, mix {mix}, GPUs cut in {', '.join(map(str, cuts))}"
    seeds = f"{len(first)} seeds: median (least to greatest)." if len(first) > 1 else "One seed."
    head = f"{spread(first, lambda one: one.offered, 0)} models offered. {seeds}"
    coming = page.table(
        [
            "while models come and go",
            "models there",
            "GPUs in use",
            "models a GPU in use",
            "needed of these GPUs",
            "given to nobody",
            "over the bound",
            "with packed devices",
            "GPUs of nodes in use",
            "stranded",
            "turned away",
        ],
        [[way, *_while(own)] for way, own in ours.items()],
    )
    full = page.table(
        [
            "when the fleet is full",
            "models there",
            "models a GPU of the fleet",
            "needed of the fleet",
            "of models with 4 or 8 GPUs placed",
            "time to place, ms: P50",
            "P99",
        ],
        [
            [
                way,
                spread(own, lambda one: one.full_models, 0),
                spread(own, lambda one: one.full_models / one.fleet_gpus, 2),
                f"{spread(own, lambda one: 100 * one.full_use, 0)} %",
                f"{sum(one.large_placed for one in own)} of {sum(one.large_offered for one in own)}",
                spread(own, lambda one: one.p50, 0),
                spread(own, lambda one: one.p99, 0),
            ]
            for way, own in ours.items()
        ],
    )
    return "\n\n".join([title, head, coming, full, "\n".join(verdict(ours))])


def verdict(ours: Mapping[str, Sequence[Found]]) -> list[str]:
    """The goals, and the article's figure."""
    if WHOLE not in ours or PACKING not in ours:
        return []
    whole, packing = ours[WHOLE], ours[PACKING]
    models = page.ratios([one.models_a_gpu for one in packing], [one.models_a_gpu for one in whole])
    full = page.ratios([float(one.full_models) for one in packing], [float(one.full_models) for one in whole])
    use = page.ratios([one.use for one in packing], [one.use for one in whole])
    over = [one.over_pools - 1 for one in packing]
    tight = [one.packed_over_pools - 1 for one in packing]
    parts = [one.over_pools / one.over_parts for one in packing]
    heuristic = [one.heuristic - 1 for one in packing]

    def said(holds: bool) -> str:
        return "met" if holds else "not met"

    def percent(values: Sequence[float]) -> str:
        return f"{page.Spread.of([100 * one for one in values]).text(1)} %"

    spread_of = page.Spread.of
    words = {True: "beaten", False: "not reached"}[min(use) >= ARTICLE]
    return [
        f"- Goal, at least twice the models a GPU: {spread_of(models).text(2)} times on GPUs in use, "
        f"{spread_of(full).text(2)} times on the full fleet: {said(min(*models, *full) >= 2)}.",
        f"- Goal, within 5 % of the bound: {percent(over)} over it by the packing scheduler: "
        f"{said(max(over) <= 0.05)}; {percent(tight)} where the device plugin packs too: {said(max(tight) <= 0.05)}.",
        "- Without pools, any part on any GPU of its kind, the bound (L2) is "
        f"{percent([1 - one for one in parts])} lower; the best of first fit and best fit is {percent(heuristic)} over "
        "that.",
        "- Goal, no device over-committed: met; what the API server says is where was given out anew to each node's "
        "devices at three moments of each run, and each model as it came.",
        f"- The article's 40 % better use of GPUs: {percent([one - 1 for one in use])} better here, by what models "
        f"need of GPUs in use: {words}.",
    ]


def text(runs: Mapping[Run, Found]) -> str:
    """All tables."""
    kinds = dict.fromkeys((run.nodes, run.mix, run.cuts) for run in runs)
    return "\n\n".join(section(runs, *kind) for kind in kinds)


def draw(runs: Mapping[Run, Found], path: Path) -> None:
    """Models a GPU, and GPUs over the bound, for each fleet and mix.

    Raises ImportError where matplotlib is not installed.
    """
    import matplotlib as mpl  # needed here alone, and slow to load

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "velagen"
    from matplotlib import pyplot

    kinds = list(dict.fromkeys((run.nodes, run.mix, run.cuts) for run in runs))
    named = [f"{nodes} nodes\n{mix}\n{len(cuts)} cuts" for nodes, mix, cuts in kinds]
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    measures: list[tuple[str, Callable[[Found], float]]] = [
        ("models a GPU in use", lambda one: one.models_a_gpu),
        ("needed of GPUs in use, %", lambda one: 100 * one.use),
        ("GPUs of nodes in use, % of the fleet", lambda one: 100 * one.gpus_of_nodes / one.fleet_gpus),
    ]
    for axis, (title, what) in zip(axes, measures, strict=True):
        for number, way in enumerate(WAYS):
            heights = []
            for kind in kinds:
                own = [
                    what(one) for run, one in runs.items() if (run.nodes, run.mix, run.cuts, run.way) == (*kind, way)
                ]
                heights.append(page.Spread.of(own).median if own else 0.0)
            axis.bar([place + 0.27 * (number - 1) for place in range(len(kinds))], heights, 0.25, label=way)
        axis.set(title=title, xticks=range(len(kinds)))
        axis.set_xticklabels(named, fontsize=7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(WAYS))
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def plan(*, quick: bool) -> list[Run]:
    """The runs, the ways of one load after each other."""
    if quick:
        return [Run(100, "long tail", FEW, 1, way) for way in WAYS]
    return [
        Run(nodes, mix, cuts, 1, way)
        for nodes, mix, cuts in (
            (1000, "long tail", FEW),
            (100, "long tail", FEW),
            (100, "long tail", MANY),
            (100, "trace", FEW),
        )
        for way in WAYS
    ]


def kept(path: Path | None) -> dict[Run, Found]:
    """Runs that were made before."""
    if path is None or not path.exists():
        return {}
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return {Run(**{**one["run"], "cuts": tuple(one["run"]["cuts"])}): Found(**one["found"]) for one in lines}


@click.command(epilog="Example: python -m benchmarks.placement --quick")
@click.option("--quick", is_flag=True, help="100 nodes, one seed; the page is not written.")
@click.option("--keep", type=click.Path(path_type=Path), help="A file of runs: those in it are not made again.")
@click.option("--pace", default=PACE, show_default=True, help="Models a second while they come and go.")
def main(*, quick: bool, keep: Path | None, pace: float) -> None:
    """Place models on simulated nodes of unlike GPUs: whole GPUs, shares by the default scheduler, shares packed.

    Starts etcd, the API server and the scheduler by itself for each run. Writes docs/placement.md and its plot.
    """
    # So that what was started is stopped where this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    known = kept(keep)
    found: dict[Run, Found] = {}
    for run in plan(quick=quick):
        if run not in known:
            began = time.monotonic()
            click.echo(f"{run.nodes} nodes, {run.mix}, cuts {run.cuts}, seed {run.seed}, {run.way}", err=True)
            known[run] = measure(run, pace=pace, churn=0.25, told=lambda words: click.echo(f"  {words}", err=True))
            click.echo(f"  {time.monotonic() - began:.0f} s", err=True)
            if keep is not None:
                with keep.open("a") as lines:
                    lines.write(json.dumps({"run": asdict(run), "found": asdict(known[run])}) + "\n")
        found[run] = known[run]
    content = text(found)
    click.echo(content)
    if quick:
        return
    page.write("placement", content, DOCS / "placement.md")
    try:
        draw(found, DOCS / "placement.svg")
    except ImportError as error:
        raise click.ClickException(f"no plot: {error} (pip install matplotlib)") from error


if __name__ == "__main__":
    main()
