"""``velagen top`` and ``velagen report``: what models do, on a terminal and on a page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from velagen.monitoring.cluster import Cluster
    from velagen.monitoring.models import View, Wanted
    from velagen.monitoring.prometheus import Prometheus

_ROUTES: Final = ("envoy", "istio", "knative", "server")


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which cluster, namespace, Prometheus and count."""
    for option in (
        click.option("--route", type=click.Choice(_ROUTES), help="Whose count.  [default: nearest to the client]"),
        click.option("--prometheus", "address", metavar="URL", help="Prometheus.  [default: the addon's]"),
        click.option("--context", help="A context of the kubeconfig."),
        click.option(
            "--kubeconfig",
            type=click.Path(dir_okay=False, path_type=Path),
            help="By default KUBECONFIG, then ~/.kube/config.",
        ),
        click.option("-n", "--namespace", help="By default the context's."),
    ):
        command = option(command)
    return command


@click.command("top", epilog="Example: velagen top sentiment")
@click.argument("app", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("--once", is_flag=True, help="Show it once, as is done where standard output is not a terminal.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="json: once, for scripts.")
@click.option("--every", type=click.FloatRange(1, 3600), default=5, show_default=True, help="Seconds between looks.")
@cluster_options
def top_command(
    app: str | None,
    *,
    all_namespaces: bool,
    once: bool,
    output: str,
    every: float,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    address: str | None,
    route: Any,
) -> None:
    """Show models as they are now: versions, weights, replicas, requests, errors, latency, budget, alerts.

    Of the application APP, or all of the namespace. Works without a Prometheus too, and says then what is missing.
    """
    from rich.console import Console

    from velagen.errors import Problem, VelagenError
    from velagen.monitoring.models import Wanted, look
    from velagen.monitoring.table import Screen, as_json

    if all_namespaces and namespace:
        raise VelagenError(Problem("-A is all namespaces, and -n one of them", hint="write one of both"))
    cluster, prometheus = connect(kubeconfig, context, address)
    wanted = Wanted(None if all_namespaces else namespace or cluster.namespace, app, route)
    if output == "json":
        click.echo(json.dumps(as_json(look(cluster, prometheus, wanted)), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(Screen(look(cluster, prometheus, wanted), wanted))
        return
    _live(console, lambda: look(cluster, prometheus, wanted), wanted, every)


def _live(console: Any, look: Callable[[], View], wanted: Wanted, every: float) -> None:
    """Look again and again, until Ctrl-C; what was seen last stays on the terminal."""
    from rich.live import Live

    from velagen.errors import VelagenError
    from velagen.monitoring.table import Screen

    view = look()
    try:
        with Live(Screen(view, wanted), console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(Screen(view, wanted), refresh=True)
                time.sleep(every)
                try:
                    view = look()
                except VelagenError as error:
                    # What was seen last is shown with its time, and why there is nothing newer.
                    view = replace(view, problems=error.problems)
    except KeyboardInterrupt:
        pass
    console.print(Screen(view, wanted))


def connect(kubeconfig: Path | None, context: str | None, address: str | None) -> tuple[Cluster, Prometheus]:
    """The cluster, and the Prometheus that is named or the addon's. Raises VelagenError."""
    from velagen.monitoring.cluster import Cluster, prometheus_address

    cluster = Cluster.connect(kubeconfig, context)
    return cluster, cluster.prometheus(address or prometheus_address(cluster))


@click.command("report", epilog="Example: velagen report sentiment --since 1h -o report.html")
@click.argument("app")
@click.option("--since", default="1h", show_default=True, help="How long to look back: 30m, 1h, 2d.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, allow_dash=True), required=True, help="The page; - prints it."
)
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@cluster_options
def report_command(
    app: str,
    *,
    since: str,
    output: Path,
    overwrite: bool,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    address: str | None,
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
    cluster, prometheus = connect(kubeconfig, context, address)
    wanted = Wanted(namespace or cluster.namespace, app, route)
    text = page(gather(cluster, prometheus, wanted, when)).html()
    write_page(text, output)


def write_page(text: str, output: Path) -> None:
    """A page into a file, whole or not at all; ``-`` prints it."""
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    part = output.with_name(f".{output.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{output} ({len(text.encode()) / 1000:.0f} kB)", err=True)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse what can't be written to, or is there already. Raises VelagenError."""
    from velagen.errors import Problem, VelagenError

    if str(output) == "-":
        return
    if output.is_dir():
        raise VelagenError(Problem(f"{output} is a folder", hint=f"write -o {output / 'report.html'}"))
    if output.exists() and not overwrite:
        raise VelagenError(Problem(f"{output} is there already", hint="--overwrite replaces it"))
    if not output.parent.is_dir():
        raise VelagenError(Problem(f"there is no folder {output.parent}", hint="make it first, or write another -o"))
