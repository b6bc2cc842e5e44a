"""``velagen top`` and ``velagen report``: what models do, on a terminal and on a page."""

from __future__ import annotations

import json
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
    pass


@click.command("top", epilog="Example: velagen top sentiment")
@click.argument("app", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("--once", is_flag=True, help="Show it once, as is done where standard output is not a terminal.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="json: once, for scripts.")
@click.option("--every", type=click.FloatRange(1, 3600), default=5, show_default=True, help="Seconds between looks.")
@cluster_options
@route_option
def top_command(
    app: str | None,
    *,
    all_namespaces: bool,
    once: bool,
    output: str,
    every: float,
    asked: Asked,
    route: Any,
) -> None:
    """Show models as they are now: versions, weights, replicas, requests, errors, latency, budget, alerts.

    Of the application APP, or all of the namespace. Works without a Prometheus too, and says then what is missing.
    """
    from rich.console import Console

    from velagen.errors import Problem, VelagenError
    from velagen.monitoring.models import Wanted, look
    from velagen.monitoring.table import Screen, as_json

    if all_namespaces and asked.namespace:
        raise VelagenError(Problem("-A is all namespaces, and -n one of them", hint="write one of both"))
    cluster, prometheus = connect(asked)
    wanted = Wanted(None if all_namespaces else asked.namespace or cluster.namespace, app, route)
    if output == "json":
        click.echo(json.dumps(as_json(look(cluster, prometheus, wanted)), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(Screen(look(cluster, prometheus, wanted), wanted))
        return
    look_again(
        console,
        lambda: look(cluster, prometheus, wanted),
        lambda view: Screen(view, wanted),
        lambda view, problems: replace(view, problems=problems),
        every=every,
    )


@click.command("report", epilog="Example: velagen report sentiment --since 1h -o report.html")
@click.argument("app")
@click.option("--since", default="1h", show_default=True, help="How long to look back: 30m, 1h, 2d.")
@page_options
@cluster_options
@route_option
def report_command(
    app: str,
    *,
    since: str,
    output: Path,
    overwrite: bool,
    asked: Asked,
    route: Any,
) -> None:
    """Write a page with what the models of application APP did: one file, readable without a network.

    Requests, failures, latency, replicas, shares, alerts and events over time, versions side by side.
    """
    from velagen.monitoring.history import gather, period
    from velagen.monitoring.history_page import page
    from velagen.monitoring.models import Wanted

    when = period(since)
    check_output(output, overwrite=overwrite)
    cluster, prometheus = connect(asked)
    wanted = Wanted(asked.namespace or cluster.namespace, app, route)
    text = page(gather(cluster, prometheus, wanted, when)).html()
    write_page(text, output)
