"""Thousands of simulated rollouts: what our rules, Argo Rollouts' and Flagger's make of the same traffic and faults.

``python -m benchmarks.rollout``; see docs/design/rollout-analysis.md. The same seeds give the same tables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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
from benchmarks.rollout.rules import Argo, Flagger, Ours, Outcome, outcome_of, run_flagger, run_ours, trace_of
from benchmarks.rollout.traffic import FAULTS, SHAPES, Run, run_of

from velagen.errors import VelagenError
from velagen.tools.report import Reporter

PAGE: Final = page.ROOT / "docs" / "design" / "rollout-analysis.md"
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


def compared(cases: Sequence[Case], argo: Path | None) -> list[Result]:
    """These runs under all rules; Argo's program is started once for them."""
    found = []
    runs = [run_of(*case) for case in cases]
    for run in runs:
        ours = {name: run_ours(run, how) for name, how in OURS.items()}
        flagger = {name: run_flagger(run, how) for name, how in FLAGGER.items()}
        found += [_result(name, run, outcome) for name, outcome in (ours | flagger).items()]
    if argo is not None:
        asked = list(product(runs, ARGO.items()))
        said = argo_code.outcomes(argo, (trace_of(run, how) for run, (_, how) in asked))
        found += [
            _result(name, run, outcome_of(run, how, one)) for (run, (name, how)), one in zip(asked, said, strict=True)
        ]
    return found


def _result(rule: str, run: Run, outcome: Outcome) -> Result:
    return Result(rule, run.shape, run.fault, run.seed, outcome)


def swept(case: Case) -> list[Result]:
    """One run under our rules with each of the settings."""
    run = run_of(*case)
    return [Result(name, *case, run_ours(run, replace(Ours(), **changes))) for name, changes in SWEEP.items()]


@click.command()
@click.option("--seeds", default=30, show_default=True, help="Runs of each traffic and fault.")
@click.option("--sweep-seeds", default=5, show_default=True, help="The same, for the settings; 0 leaves them out.")
@click.option("--processes", default=2, show_default=True)
@click.option("--nice", default=10, show_default=True, help="How far behind other work of the machine it stands.")
@click.option("--argo/--no-argo", "with_argo", default=True, help="Build and run Argo Rollouts' own analysis.")
@click.option("--write", is_flag=True, help="Put the tables and the plot into docs/design/rollout-analysis.md.")
def main(seeds: int, sweep_seeds: int, processes: int, nice: int, with_argo: bool, write: bool) -> None:
    """Simulate rollouts and print what came of them."""
    try:
        argo = argo_code.binary(Reporter()) if with_argo else None
    except VelagenError as error:
        raise click.ClickException(str(error)) from error
    os.nice(nice)
    cases = list(product(SHAPES, FAULTS, range(seeds)))
    settings = list(product(BUSY, FAULTS, range(sweep_seeds)))
    with ProcessPoolExecutor(processes) as pool:
        parts = [cases[at : at + 20] for at in range(0, len(cases), 20)]
        results = [one for found in pool.map(partial(compared, argo=argo), parts) for one in found]
        tried = [one for found in pool.map(swept, settings, chunksize=5) for one in found]
    command = f"python -m benchmarks.rollout --seeds {seeds} --sweep-seeds {sweep_seeds}"
    said = report.text(results, tried, command + ("" if with_argo else " --no-argo"), FIGURE)
    click.echo(said)
    if write:
        page.write("simulation", said, PAGE)
        report.plot(results, PAGE.with_name(FIGURE))


if __name__ == "__main__":
    main()
