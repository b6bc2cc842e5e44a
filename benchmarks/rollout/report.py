"""What the rollouts of a simulation come to: rates with intervals, tables and a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import page
from benchmarks.rollout.rules import Outcome
from benchmarks.rollout.traffic import FAULTS, HEALTHY, SHAPES

#: The traffic in which a rule gets enough requests to say anything.
BUSY: Final = tuple(shape for shape in SHAPES if shape != "low")
COLOURS: Final = ("#1f6f8b", "#7fb7c9", "#e07b39", "#f2c14e", "#9aa5b1")


@dataclass(frozen=True)
class Result:
    """How one run ended under one rule."""

    rule: str
    shape: str
    fault: str
    seed: int
    outcome: Outcome


@dataclass(frozen=True)
class Rate:
    """A share of so many, with Wilson's interval of 95 %."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """0 to 1; of none it is none."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson, Probable inference, the law of succession, and statistical inference, 1927."""
        if not self.of:
            return 0.0, 1.0
        z = 1.959964
        middle = (self.share + z * z / (2 * self.of)) / (1 + z * z / self.of)
        half = z / (1 + z * z / self.of)
        half *= math.sqrt(self.share * (1 - self.share) / self.of + z * z / (4 * self.of * self.of))
        return max(0.0, middle - half), min(1.0, middle + half)

    def text(self) -> str:
        """``1.5 % (0.8 to 2.9)``."""
        low, high = self.interval
        return f"{100 * self.share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def false_rollbacks(results: Iterable[Result]) -> Rate:
    """Of the good versions those that were taken back for a fault."""
    good = [one for one in results if one.fault in HEALTHY]
    return Rate(sum(one.outcome.end == "rolled back" for one in good), len(good))


def missed(results: Iterable[Result]) -> Rate:
    """Of the bad versions those that were promoted."""
    bad = [one for one in results if one.fault not in HEALTHY]
    return Rate(sum(one.outcome.end == "promoted" for one in bad), len(bad))


def inconclusive(results: Iterable[Result]) -> Rate:
    """Of all versions those that were taken back at the deadline, for want of a verdict."""
    every = list(results)
    return Rate(sum(one.outcome.end == "no verdict" for one in every), len(every))


def _caught(results: Iterable[Result]) -> list[Outcome]:
    return [one.outcome for one in results if one.fault not in HEALTHY and one.outcome.end != "promoted"]


def _promoted(results: Iterable[Result]) -> list[Outcome]:
    return [one.outcome for one in results if one.fault in HEALTHY and one.outcome.end == "promoted"]


def _minutes(outcomes: Sequence[Outcome]) -> str:
    return f"{statistics.median(one.seconds for one in outcomes) / 60:.1f}" if outcomes else "none"


def summary(results: Sequence[Result], title: str = "rule") -> str:
    """A row for each rule."""
    lines = []
    for rule in dict.fromkeys(one.rule for one in results):
        mine = [one for one in results if one.rule == rule]
        bad = [one.outcome.served_badly for one in mine if one.fault not in HEALTHY]
        lines.append(
            [
                rule,
                false_rollbacks(mine).text(),
                missed(mine).text(),
                inconclusive(mine).text(),
                _minutes(_caught(mine)),
                f"{statistics.mean(bad):.0f}" if bad else "none",
                _minutes(_promoted(mine)),
            ]
        )
    head = [
        title,
        "good ones rolled back",
        "bad ones promoted",
        "no verdict by the deadline",
        "minutes to detect",
        "served badly until then",
        "minutes of a good rollout",
    ]
    return page.table(head, lines)


def by_fault(results: Sequence[Result]) -> str:
    """The share that was promoted, a row for each fault: high for the first two, low for the others."""
    rules = list(dict.fromkeys(one.rule for one in results))
    lines = []
    for fault in FAULTS:
        cells = []
        if not any(one.fault == fault for one in results):
            continue
        for rule in rules:
            mine = [one.outcome for one in results if (one.rule, one.fault) == (rule, fault)]
            promoted, silent = (sum(one.end == end for one in mine) for end in ("promoted", "no verdict"))
            said = f"{100 * promoted / len(mine):.0f} %"
            cells.append(said + (f", {100 * silent / len(mine):.0f} % no verdict" if silent else ""))
        lines.append([fault, *cells])
    return page.table(["promoted", *rules], lines)


def text(results: Sequence[Result], swept: Sequence[Result], command: str, figure: str) -> str:
    """The part of docs/design/rollout-analysis.md."""
    busy = [one for one in results if one.shape in BUSY]
    low = [one for one in results if one.shape not in BUSY]
    runs = len({(one.shape, one.fault, one.seed) for one in results})
    return "\n".join(
        [
            f"{runs:,} runs, each under every rule, by `{command}`. In brackets Wilson's interval of 95 %.",
            "",
            summary(busy),
            "",
            f"![Good versions rolled back, and bad ones promoted]({figure})",
            "",
            by_fault(busy),
            "",
            "With half a request a second, all together:",
            "",
            summary(low),
            "",
            "One setting changed at a time, the others as they are by default:",
            "",
            summary(swept, "setting"),
        ]
    )


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the two rates of each rule and fault.

    Raises ImportError where matplotlib is not installed.
    """
    import matplotlib as mpl  # needed here alone, and slow to load

    mpl.use("Agg")
    from matplotlib import pyplot

    busy = [one for one in results if one.shape in BUSY]
    rules = list(dict.fromkeys(one.rule for one in busy))
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10, 3), layout="constrained", gridspec_kw={"width_ratios": [1, 3.2]}
    )
    parts: list[tuple[Any, Sequence[str], str]] = [
        (left, HEALTHY, "rolled back"),
        (right, [fault for fault in FAULTS if fault not in HEALTHY], "promoted"),
    ]
    for axis, faults, end in parts:
        _bars(axis, busy, rules, faults, end)
    left.set_title("good versions rolled back, %", fontsize=9)
    right.set_title("bad versions promoted, %", fontsize=9)
    right.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _bars(axis: Any, results: Sequence[Result], rules: Sequence[str], faults: Sequence[str], end: str) -> None:
    width = 0.8 / len(rules)
    for number, rule in enumerate(rules):
        rates = [_rate(results, rule, fault, end) for fault in faults]
        at = [place + (number - (len(rules) - 1) / 2) * width for place in range(len(faults))]
        heights = [100 * rate.share for rate in rates]
        lows = [100 * (rate.share - rate.interval[0]) for rate in rates]
        highs = [100 * (rate.interval[1] - rate.share) for rate in rates]
        axis.bar(
            at, heights, width, yerr=[lows, highs], color=COLOURS[number], ecolor="#555555", capsize=1.5, label=rule
        )
    axis.set_xticks(range(len(faults)), [fault.replace(" ", "\n", 1) for fault in faults])
    axis.tick_params(labelsize=8)
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)


def _rate(results: Iterable[Result], rule: str, fault: str, end: str) -> Rate:
    ends = [one.outcome.end == end for one in results if (one.rule, one.fault) == (rule, fault)]
    return Rate(sum(ends), len(ends))
