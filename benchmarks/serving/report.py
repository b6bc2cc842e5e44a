"""Figures of a run of the serving benchmark: ratios, the table and the plot of docs/benchmarks.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.page import Spread, number, ratios, table
from benchmarks.serving.sides import MODELS

Run = dict[str, Any]
SIDES = ("flask", "addon")


def cpu(run: Run) -> float:
    """Give the processor milliseconds of a side's pod for each answer."""
    return float(run["used"]["side"] / run["answered"] * 1000) if run["answered"] else math.inf


MEASURES: dict[str, Callable[[Run], float]] = {
    "qps": lambda run: float(run["qps"]),
    "p50": lambda run: float(run["p50"]),
    "p99": lambda run: float(run["p99"]),
    "cpu": cpu,
}


def values(runs: Sequence[Run], side: str, measure: str, share: float | None = None) -> list[float]:
    """Give one measure of one side, round by round.

    Args:
        share: of Flask's top rate, for the open loop; None = the closed loop.
    """
    chosen = [run for run in runs if run["side"] == side and run["share"] == share]
    return [MEASURES[measure](run) for run in sorted(chosen, key=lambda run: run["round"])]


def ratio(runs: Sequence[Run], measure: str, share: float | None = None) -> Spread | None:
    """Give addon over Flask, paired by round; None where a round of Flask's had no end."""
    ours, theirs = values(runs, "addon", measure, share), values(runs, "flask", measure, share)
    if not all(map(math.isfinite, (*ours, *theirs))):
        return None
    return Spread.of(ratios(ours, theirs))


def shares(runs: Sequence[Run]) -> list[float]:
    """Give the rates of the open loop, as shares of Flask's top rate."""
    return sorted({run["share"] for run in runs if run["share"] is not None})


def rows(model: Run) -> list[list[str]]:
    """Give the table's rows of one model."""
    runs = model["runs"]
    wanted: list[tuple[str, str, float | None]] = [
        ("closed loop: requests a second", "qps", None),
        ("closed loop: P50, ms", "p50", None),
        ("closed loop: P99, ms", "p99", None),
        ("closed loop: processor ms a request", "cpu", None),
    ]
    for part in shares(runs):
        rate = f"open loop at {part:.0%} of Flask's top rate ({model['top'] * part:.0f} a second)"
        wanted += [
            (f"{rate}: P50, ms", "p50", part),
            (f"{rate}: P99, ms", "p99", part),
            (f"{rate}: processor ms a request", "cpu", part),
        ]
    found = []
    for title, measure, share in wanted:
        over = ratio(runs, measure, share)
        cells = [Spread.of(values(runs, side, measure, share)).text() for side in SIDES]
        found.append([title, *cells, over.text(2) if over else "-"])
    return found


#: Goal: what is asked, measure, share of the top rate, and whether a ratio meets it.
GOALS: tuple[tuple[str, str, float | None, Callable[[float], bool]], ...] = (
    ("at least 1.75 times the requests", "qps", None, lambda ratio: ratio >= 1.75),
    ("a P99 no worse under full load", "p99", None, lambda ratio: ratio <= 1),
    ("at most 0.47 times the P99 at Flask's top rate", "p99", 1.0, lambda ratio: ratio <= 0.47),
    ("at most half the processor time a request", "cpu", None, lambda ratio: ratio <= 0.5),
)
#: Below this a model gains nothing that a user would notice.
GAIN = 1.1


def verdict(model: Run) -> str:
    """Say in words what came out for a model."""
    runs = model["runs"]
    met: list[str] = []
    missed: list[str] = []
    for title, measure, share, meets in GOALS:
        if share is not None and share not in shares(runs):
            continue
        over = ratio(runs, measure, share)
        if over is None:
            continue
        (met if meets(over.median) else missed).append(f"{title} ({over.median:.2f})")
    qps = ratio(runs, "qps")
    parts = []
    if qps is not None and qps.median < GAIN:
        parts.append(
            "**This model gains nothing from batches**: the server answers "
            f"{qps.median:.2f} times as many requests a second as Flask."
        )
    if met:
        parts.append(f"Met: {'; '.join(met)}.")
    if missed:
        parts.append(f"Not met: {'; '.join(missed)}.")
    return " ".join(parts)


def conditions(model: Run) -> str:
    """Say what else was going on, at its worst."""
    runs = model["runs"]

    def worst(name: str) -> float:
        return max(float(run["used"][name]) / float(run["seconds"]) for run in runs)

    others = max((run["used"]["core"] - run["used"]["side"]) / run["seconds"] for run in runs)
    failed = {side: sum(sum(run["failures"].values()) for run in runs if run["side"] == side) for side in SIDES}
    total = sum(run["requests"] for run in runs)
    late = max(run["late"] for run in runs)
    return (
        f"{total} requests measured, {failed['flask']} of Flask's and {failed['addon']} of the addon's failed. "
        f"At the worst of {len(runs)} runs: the client used "
        f"{worst('client'):.0%} of its core, all else but the side under test {max(0.0, others):.0%} of the server's "
        f"core, the idle side {worst('idle'):.1%}, the host took {worst('steal'):.1%}; the client sent "
        f"{late:.1f} ms late (P99)."
    )


def batch(model: Run) -> str:
    """Say how many requests the addon's server joined to a batch."""
    runs = model["runs"]
    parts = []
    for share in (None, *shares(runs)):
        sizes = [run["batch"] for run in runs if run["side"] == "addon" and run["share"] == share]
        parts.append(f"{Spread.of(sizes).text(1)} {'in the closed loop' if share is None else f'at {share:.0%}'}")
    return f"Requests that the addon's server joined to a batch, on average: {', '.join(parts)}."


def batches(model: Run) -> str:
    """Give the table of what a batch costs."""
    found = model["batches"]
    sizes = list(next(iter(found.values())))
    return table(["", *sizes], [[kind, *(number(costs[size], 1) for size in sizes)] for kind, costs in found.items()])


def tunings(results: Run) -> str:
    """Give the part of docs/benchmarks.md about settings of the addon."""
    settings = results["settings"]
    lines = [f"{results['machine']}. {results['versions']}. One run of {settings['seconds']:.0f} s each."]
    for name, model in results["models"].items():
        found = []
        for count, tuning in enumerate(model["tunings"]):
            full, half = (
                next(run for run in model["runs"] if run["round"] == count and run["share"] == share)
                for share in (None, 0.5)
            )
            batching = ", ".join(f"{key} {value}" for key, value in tuning["batching"].items())
            cells = [full["qps"], full["p99"], cpu(full), half["p50"], half["p99"], cpu(half)]
            found.append([f"{batching}; instances {tuning['instances']}", *(number(cell, 1) for cell in cells)])
        head = ["", "requests a second", "P99, ms", "processor ms a request"]
        half_head = [f"at {model['top'] / 2:.0f} a second: P50, ms", "P99, ms", "processor ms a request"]
        lines += ["", f"### {MODELS[name].title}", "", table([*head, *half_head], found)]
    return "\n".join(lines)


def tried(model: Run) -> str:
    """Say what other ways to deploy Flask were tried."""
    found = [f"`{flags}` {number(qps, 1)}" for flags, qps in model["tried"].items()]
    return f", the best of those tried ({', '.join(found)} requests a second)" if found else ""


def block(results: Run) -> str:
    """Give the part of docs/benchmarks.md."""
    settings, machine, versions = results["settings"], results["machine"], results["versions"]
    lines = [
        "![Requests a second, processor time and P99 of both sides](benchmarks.png)",
        "",
        f"{settings['rounds']} rounds of {settings['seconds']:.0f} s, alternated; median (least to greatest); "
        "ratios are addon over Flask, round by round. "
        f"Closed loop with {settings['concurrency']} requests under way; open loop with Poisson arrivals.",
        "",
        f"{machine}. {versions}.",
    ]
    for name, model in results["models"].items():
        batching = ", ".join(f"{key} {value}" for key, value in model["batching"].items())
        lines += [
            "",
            f"### {MODELS[name].title}",
            "",
            f"Flask: gunicorn `{' '.join(model['gunicorn'])}`{tried(model)}. Addon: dynamicBatching {batching}.",
            "",
            table(["", "Flask", "addon", "ratio"], rows(model)),
            "",
            verdict(model),
            "",
            "The model alone, without a server: processor ms a request by the size of the batch.",
            "",
            batches(model),
            "",
            batch(model),
            "",
            conditions(model),
        ]
    return "\n".join(lines)


def plot(results: Run, path: Path) -> None:
    """Draw the figures.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl  # needed here alone, and slow to load

    mpl.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, str, float | None]] = [
        ("requests a second", "qps", None),
        ("processor ms a request", "cpu", None),
    ]
    colours = {"flask": "#9aa5b1", "addon": "#1f6f8b"}
    models = results["models"]
    every = sorted({share for model in models.values() for share in shares(model["runs"])})
    panels += [(f"P99 in ms, at {share:.0%}\nof Flask's top rate", "p99", share) for share in every]
    figure, axes = pyplot.subplots(
        len(models), len(panels), figsize=(2.6 * len(panels), 2.5 * len(models)), squeeze=False, layout="constrained"
    )
    for line, (name, model) in zip(axes, models.items(), strict=True):
        for axis, (title, measure, share) in zip(line, panels, strict=True):
            for place, side in enumerate(SIDES):
                found = values(model["runs"], side, measure, share)
                finite = [value for value in found if math.isfinite(value)]
                if not finite or not math.isfinite(Spread.of(found).median):
                    continue
                # The table's median; what never came has no height, so the bar ends at the slowest that did.
                spread = Spread(Spread.of(found).median, min(finite), max(finite))
                error = [[spread.median - spread.low], [spread.high - spread.median]]
                axis.bar(place, spread.median, 0.65, color=colours[side], yerr=error, ecolor="#333333", capsize=3)
                axis.annotate(
                    number(spread.median, 0 if spread.median >= 100 else 1),  # three digits
                    (place, spread.high),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
            axis.set_xticks(range(len(SIDES)), ["Flask", "addon"])
            axis.set_title(title, fontsize=9)
            axis.margins(y=0.18)
            axis.set_ylim(bottom=0)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(MODELS[name].title.partition(":")[0], fontsize=9)
    # Without the versions and dates that matplotlib writes by itself: same figures, same file.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
