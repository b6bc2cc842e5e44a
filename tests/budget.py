"""A bound on a test run's time: what no longer fits is left out, named and counted as skipped.

VELAGEN_TEST_UNTIL is the moment (seconds since 1970) at which the run must be over; without it nothing is left out.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from velagen.errors import VelagenError
from velagen.lab.images import archive_path, recipes
from velagen.lab.kind.engine import Engine, registry_has
from velagen.tools import in_cache, on_path, table, wanted

UNTIL = "VELAGEN_TEST_UNTIL"
#: Names a file to which each of several runs adds what it left out, one line a file of tests.
UNCHECKED = "VELAGEN_TEST_UNCHECKED"
#: Seconds kept for taking down what was started, and for pytest's own report.
RESERVE = 60.0
#: Seconds a test is expected to take where it does not say so by the marker ``seconds``.
USUAL, USUAL_KIND = 5.0, 60.0
#: Seconds: the cluster with all its layers, everything being there.
CLUSTER = 420.0

_LEFT_OUT = "left out: "


def seconds_left(now: float | None = None) -> float:
    """Give how long tests may still run; infinite where nobody set a bound."""
    until = os.environ.get(UNTIL)
    return float(until) - RESERVE - (time.time() if now is None else now) if until else float("inf")


def missing(names: list[str]) -> float:
    """Give the seconds that making the images of a cluster takes, with the tools in them, where they are not there.

    Args:
        names: recipes.
    """
    rows = [table().row(*wanted(part.tool)) for name in names for part in recipes()[name].parts if part.tool]
    rows += [table().row(name) for name in ("kind", "kubectl", "vela")]
    building = {row: row.build.minutes * 60 for row in rows if row.build and not (in_cache(row) or on_path(row))}
    assembling = 0.0
    for name in names:
        recipe = recipes()[name]
        if not archive_path(name).is_file():
            assembling += 10 + (150 if recipe.packages is not None else 0) + (150 if recipe.python else 0)
    return sum(building.values()) + assembling


@cache
def before_a_cluster() -> float:
    """Give the seconds until a kind cluster of this machine would be up."""
    try:
        engine = Engine()
        if engine.answers() and registry_has(engine, str(recipes()["node"].official).partition("@")[0]):
            return CLUSTER
    except VelagenError:
        pass  # no docker client: images are assembled
    return CLUSTER + missing(of_every_cluster())


def of_every_cluster() -> list[str]:
    """Name the recipes that the tests' clusters may need; those of a layer that is not always there are left out."""
    parts = {name: [part.tool for part in one.parts if part.tool] for name, one in recipes().images.items()}
    return [name for name, tools in parts.items() if not any(table().row(*wanted(tool)).layer for tool in tools)]


def leave_out_if_unbuilt(names: list[str]) -> None:
    """Skip a test in a run whose time is bounded where it would build tools first, however much time is left.

    Args:
        names: recipes; they are assembled here, no registry has them.
    """
    parts = [part for name in names if not archive_path(name).is_file() for part in recipes()[name].parts]
    absent = [row for part in parts if part.tool and not in_cache(row := table().row(*wanted(part.tool)))]
    if absent and seconds_left() != float("inf"):
        minutes = sum(row.build.minutes for row in absent if row.build)
        pytest.skip(f"{_LEFT_OUT}{' and '.join(map(str, absent))} would have to be built first, {minutes:.0f} minutes")


def leave_out_if_late(item: pytest.Item, before: float) -> None:
    """Skip a test that does not fit into what is left.

    Args:
        before: seconds of set-up that this test would be the first to need.
    """
    left = seconds_left()
    if left == float("inf"):
        return
    marker = item.get_closest_marker("seconds")
    usual = USUAL_KIND if item.get_closest_marker("kind") else USUAL
    needed = before + (float(marker.args[0]) if marker else usual)
    if needed > left:
        pytest.skip(f"{_LEFT_OUT}it needs about {needed:.0f} s, and {max(left, 0):.0f} s of the run's time are left")


def unchecked(skipped: Iterable[pytest.TestReport]) -> list[str]:
    """Name what the tests that were left out would have held, file by file, as their names say it.

    Returns:
        such as ``test_kind_x: it answers (3); it scales``; empty where nothing was left out.
    """
    promises: dict[str, Counter[str]] = {}
    for one in skipped:
        if isinstance(one.longrepr, tuple) and _LEFT_OUT in one.longrepr[2]:
            file, _, test = one.nodeid.partition("::")
            # The name of the function, without its class and the case: what it holds.
            name = test.partition("[")[0].rpartition("::")[2].removeprefix("test_").replace("_", " ")
            promises.setdefault(Path(file).stem, Counter())[name] += 1
    return [
        f"{file}: " + "; ".join(f"{name} ({count})" if count > 1 else name for name, count in names.items())
        for file, names in promises.items()
    ]


def say_last(skipped: Iterable[pytest.TestReport]) -> str:
    """Give the last line of a run that left something out, else nothing; the file of UNCHECKED gets its names too."""
    names = unchecked(skipped)
    if not names:
        return ""
    if file := os.environ.get(UNCHECKED):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.writelines(f"{name}\n" for name in names)
    return f"unchecked for want of time: {', '.join(names)}"
