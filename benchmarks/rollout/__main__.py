"""Thousands of simulated rollouts: what our rules, Argo Rollouts' and Flagger's make of the same traffic and faults.

``python -m benchmarks.rollout``; see docs/rollout.md. The same seeds give the same tables.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import click
from benchmarks import page
from benchmarks.rollout import argo_code, report
from benchmarks.rollout.report import BUSY, Result
from benchmarks.rollout.rules import Argo, Flagger, Ours, outcome_of, run_flagger, run_ours, trace_of
from benchmarks.rollout.traffic import FAULTS, SHAPES, run_of

from velagen.errors import VelagenError
from velagen.tools.report import Reporter

PAGE: Final = page.ROOT / "docs" / "rollout.md"
FIGURE: Final = "rollout.png"
OURS: Final = {"rollout-model": Ours(), "its bounds alone": Ours(falseAlarms=0)}
ARGO: Final = {"Argo Rollouts": Argo(), "Argo, failureLimit 0": Argo(failure_limit=0)}
FLAGGER: Final = {"Flagger": Flagger()}
#: What is tried beside the defaults, by how it is written.
SWEEP: Final[dict[str, dict[str, Any]]] = {
    "the defaults": {},
    "checks: 2": {"checks": 2},
    "checks: 10": {"checks": 10},
    "interval: 30": {"interval": 30},
    "failureLimit: 1": {"failureLimit": 1},
    "failureLimit: 5": {"failureLimit": 5},
    "minimumRequests: 20": {"minimumRequests": 20},
    "minimumRequests: 200": {"minimumRequests": 200},
    "falseAlarms: 0.001": {"falseAlarms": 0.001},
    "falseAlarms: 0.05": {"falseAlarms": 0.05},
    "successMargin: 0": {"successMargin": 0.0},
    "timesStable: 1.2": {"timesStable": 1.2},
    "timesStable: 2": {"timesStable": 2.0},
}

Case = tuple[str, str, int]


def compared(case: Case, argo: Path | None) -> list[Result]:
    """One run under all rules."""
    run = run_of(*case)
    found = {name: run_ours(run, how) for name, how in OURS.items()}
    if argo is not None:
        said = argo_code.outcomes(argo, [trace_of(run, how) for how in ARGO.values()])
        found |= {name: outcome_of(run, how, one) for (name, how), one in zip(ARGO.items(), said, strict=True)}
    found |= {name: run_flagger(run, how) for name, how in FLAGGER.items()}
    return [Result(name, *case, outcome) for name, outcome in found.items()]


def swept(case: Case) -> list[Result]:
    """One run under our rules with each of the settings."""
    run = run_of(*case)
    return [Result(name, *case, run_ours(run, replace(Ours(), **changes))) for name, changes in SWEEP.items()]


@click.command()
@click.option("--seeds", default=30, show_default=True, help="Runs of each traffic and fault.")
@click.option("--sweep-seeds", default=5, show_default=True, help="The same, for the settings; 0 leaves them out.")
@click.option("--processes", default=2, show_default=True)
@click.option("--argo/--no-argo", "with_argo", default=True, help="Build and run Argo Rollouts' own analysis.")
@click.option("--write", is_flag=True, help="Put the tables and the plot into docs/rollout.md.")
def main(seeds: int, sweep_seeds: int, processes: int, with_argo: bool, write: bool) -> None:
    """Simulate rollouts and print what came of them."""
    try:
        argo = argo_code.binary(Reporter()) if with_argo else None
    except VelagenError as error:
        raise click.ClickException(str(error)) from error
    os.nice(5)
    cases = list(product(SHAPES, FAULTS, range(seeds)))
    settings = list(product(BUSY, FAULTS, range(sweep_seeds)))
    with ProcessPoolExecutor(processes) as pool:
        results = [one for found in pool.map(partial(compared, argo=argo), cases, chunksize=20) for one in found]
        tried = [one for found in pool.map(swept, settings, chunksize=5) for one in found]
    said = report.text(results, tried, f"python -m benchmarks.rollout --seeds {seeds} --write", FIGURE)
    click.echo(said)
    if write:
        page.write("simulation", said, PAGE)
        report.plot(results, PAGE.with_name(FIGURE))


if __name__ == "__main__":
    main()
