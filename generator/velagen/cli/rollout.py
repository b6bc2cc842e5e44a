"""``velagen rollout``: how a rollout by the step rollout-model goes, on a terminal and on a page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velagen.cli.seeing import (
    Asked,
    check_output,
    cluster_options,
    connect,
    look_again,
    page_options,
    route_option,
    write_page,
)

if TYPE_CHECKING:
    from velagen.rollout.look import Seen


@click.group("rollout", epilog="Example: velagen rollout status sentiment-rollout --watch")
def rollout_group() -> None:
    """See how a new version of a model comes in, and why it waits or went back (docs/rollout.md)."""


@rollout_group.command("status", epilog="Example: velagen rollout status sentiment-rollout --watch")
@click.argument("app")
@click.option(
    "--watch/--once",
    default=False,
    help="Look again and again until the rollout has ended; exits with 1 where it went back.  [default: once]",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="json: once, for scripts.")
@click.option("--every", type=click.FloatRange(1, 3600), default=3, show_default=True, help="Seconds between looks.")
@cluster_options
@route_option
def status_command(
    app: str,
    *,
    watch: bool,
    output: str,
    every: float,
    asked: Asked,
    route: Any,
) -> None:
    """Show the rollout of application APP: steps, weights, both versions' figures, checks, and why it waits.

    What it shows is on the cluster (the step's state) and in Prometheus; without a Prometheus the checks that were made
    are shown all the same.
    """
    from rich.console import Console

    from velagen.errors import Problem, VelagenError
    from velagen.monitoring.models import Wanted
    from velagen.rollout.look import look
    from velagen.rollout.screen import Screen, as_json

    if watch and output == "json":
        raise VelagenError(Problem("--watch draws on a terminal, and -o json is for scripts", hint="write one of both"))
    cluster, prometheus = connect(asked)
    wanted = Wanted(asked.namespace or cluster.namespace, app, route)
    if output == "json":
        click.echo(json.dumps(as_json(look(cluster, prometheus, wanted)), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if not watch:
        console.print(Screen(look(cluster, prometheus, wanted)))
        return
    seen = _watch(console, lambda: look(cluster, prometheus, wanted), every)
    if any(one.stored.phase == "failed" for one in seen.rollouts):
        raise SystemExit(1)


def _watch(console: Any, look: Callable[[], Seen], every: float) -> Seen:
    """Look until all rollouts have ended, or Ctrl-C; what was seen last stays on the terminal.

    Without a terminal, as in a pipeline, each event is printed on a line of its own.
    """
    from velagen.rollout.screen import Screen, line

    if not console.is_terminal:
        seen = look()
        told: dict[str, int] = {}
        while True:
            for one in seen.rollouts:
                # By what is kept in all: a line that is new stands at its end.
                new = one.stored.run[told.get(one.component, 0) :]
                for entry in new:
                    click.echo(line(one, entry))
                told[one.component] = len(one.stored.run)
            if seen.has_ended:
                break
            time.sleep(every)
            seen = look()
        console.print(Screen(seen))
        return seen
    return look_again(
        console,
        look,
        Screen,
        lambda seen, problems: replace(seen, view=replace(seen.view, problems=problems)),
        every=every,
        ended=lambda seen: seen.has_ended,
    )


@rollout_group.command("report", epilog="Example: velagen rollout report sentiment-rollout -o report.html")
@click.argument("app")
@page_options
@cluster_options
@route_option
def report_command(
    app: str,
    *,
    output: Path,
    overwrite: bool,
    asked: Asked,
    route: Any,
) -> None:
    """Write a page with the last rollout of application APP: one file, readable without a network.

    Shares over time, both versions' figures, each check with its numbers and verdict, reasons and events.
    """
    from velagen.monitoring.models import Wanted
    from velagen.rollout.look import look
    from velagen.rollout.page import gather, page

    check_output(output, overwrite=overwrite)
    cluster, prometheus = connect(asked)
    seen = look(cluster, prometheus, Wanted(asked.namespace or cluster.namespace, app, route))
    write_page(page(gather(cluster, prometheus, seen), seen).html(), output)
