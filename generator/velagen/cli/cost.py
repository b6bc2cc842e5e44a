"""``velagen cost``: the GPU-hours of models, and what they cost by a table of prices."""

from __future__ import annotations

import json
from pathlib import Path

import click

from velagen.cli.seeing import Asked, cluster_options, connect


@click.command("cost", epilog="Example: velagen cost --since 7d --prices prices.yaml")
@click.argument("app", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("--since", default="24h", show_default=True, help="How long to look back: 30m, 1h, 7d.")
@click.option(
    "--prices", type=click.Path(path_type=Path, dir_okay=False), help="YAML with currency, gpuHour and namespaces."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="json: for scripts.")
@cluster_options
def cost_command(
    app: str | None,
    *,
    all_namespaces: bool,
    since: str,
    prices: Path | None,
    output: str,
    asked: Asked,
) -> None:
    """Show the GPU-hours of models, their share of all and what they cost, and those of idle GPUs.

    Of the application APP, or all of the namespace. A shared GPU is counted in equal parts.
    """
    from rich.console import Console
    from rich.table import Table

    from velagen.errors import Problem, VelagenError
    from velagen.monitoring.cost import as_json, bill, read_prices, rows
    from velagen.monitoring.history import period

    if all_namespaces and asked.namespace:
        raise VelagenError(Problem("-A is all namespaces, and -n one of them", hint="write one of both"))
    table, over = read_prices(prices) if prices else None, period(since)
    cluster, prometheus = connect(asked)
    where = None if all_namespaces else asked.namespace or cluster.namespace
    found = bill(prometheus, over, namespace=where, app=app, prices=table)
    if output == "json":
        click.echo(json.dumps(as_json(found), indent=2, ensure_ascii=False))
        return
    shown = Table("namespace", "application", "version", "GPU-hours", "share", "cost", box=None)
    for row in rows(found):
        shown.add_row(*row)
    Console(highlight=False).print(shown)
