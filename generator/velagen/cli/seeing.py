"""What commands that show a cluster have in common: which cluster, a page in a file, a screen that is drawn again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from velagen.whole import write_whole

if TYPE_CHECKING:
    from rich.console import Console

    from velagen.errors import Problem
    from velagen.monitoring.cluster import Cluster
    from velagen.monitoring.prometheus import Prometheus

_Seen = TypeVar("_Seen")
_ROUTES: Final = ("envoy", "istio", "knative", "server")


#: Whose count is shown, for commands that show requests.
route_option = click.option(
    "--route", type=click.Choice(_ROUTES), help="Whose count.  [default: nearest to the client]"
)


@dataclass(frozen=True)
class Asked:
    """Which cluster, namespace and Prometheus a command was asked to look at; None: the default."""

    namespace: str | None
    kubeconfig: Path | None
    context: str | None
    #: Of Prometheus.
    address: str | None


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which cluster, namespace and Prometheus: the command is given them as *asked*."""

    @wraps(command)
    def with_asked(
        *arguments: Any,
        namespace: str | None,
        kubeconfig: Path | None,
        context: str | None,
        address: str | None,
        **options: Any,
    ) -> Any:
        return command(*arguments, asked=Asked(namespace, kubeconfig, context, address), **options)

    for option in (
        click.option("--prometheus", "address", metavar="URL", help="Prometheus.  [default: the addon's]"),
        click.option("--context", help="A context of the kubeconfig."),
        click.option(
            "--kubeconfig",
            type=click.Path(dir_okay=False, path_type=Path),
            help="By default KUBECONFIG, then ~/.kube/config.",
        ),
        click.option("-n", "--namespace", help="By default the context's."),
    ):
        with_asked = option(with_asked)
    return with_asked


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where a page goes."""
    for option in (
        click.option("--overwrite", is_flag=True, help="Replace the file that is there."),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path, allow_dash=True),
            required=True,
            help="The page; - prints it.",
        ),
    ):
        command = option(command)
    return command


def look_again(
    console: Console,
    look: Callable[[], _Seen],
    draw: Callable[[_Seen], Any],
    stale: Callable[[_Seen, tuple[Problem, ...]], _Seen],
    *,
    every: float,
    ended: Callable[[_Seen], bool] = lambda _: False,
) -> _Seen:
    """Draw what is seen again and again, until it has *ended* or Ctrl-C; what was seen last stays on the terminal.

    Args:
        stale: what was seen last, with the reasons why there is nothing newer.
        every: seconds between looks.
    """
    from rich.live import Live

    from velagen.errors import VelagenError

    seen = look()
    try:
        with Live(draw(seen), console=console, screen=True, auto_refresh=False) as live:
            while not ended(seen):
                live.update(draw(seen), refresh=True)
                time.sleep(every)
                try:
                    seen = look()
                except VelagenError as error:
                    seen = stale(seen, error.problems)
    except KeyboardInterrupt:
        pass
    console.print(draw(seen))
    return seen


def connect(asked: Asked) -> tuple[Cluster, Prometheus]:
    """The cluster, and the Prometheus that is named or the addon's. Raises VelagenError."""
    from velagen.monitoring.cluster import Cluster, prometheus_address

    cluster = Cluster.connect(asked.kubeconfig, asked.context)
    return cluster, cluster.prometheus(asked.address or prometheus_address(cluster))


def write_page(text: str, output: Path) -> None:
    """A page into a file, whole or not at all; ``-`` prints it."""
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    write_whole(output, text)
    click.echo(f"{output} ({len(text.encode()) / 1000:.0f} kB)", err=True)


def check_output(output: Path, *, overwrite: bool, example: str = "report.html") -> None:
    """Refuse what can't be written to, or is there already. Raises VelagenError.

    Args:
        example: a name for the file, where a folder is given.
    """
    from velagen.errors import Problem, VelagenError

    if str(output) == "-":
        return
    if output.is_dir():
        raise VelagenError(Problem(f"{output} is a folder", hint=f"write -o {output / example}"))
    if output.exists() and not overwrite:
        raise VelagenError(Problem(f"{output} is there already", hint="--overwrite replaces it"))
    if not output.parent.is_dir():
        raise VelagenError(
            Problem(f"the folder {output.parent} does not exist", hint="make it first, or write another -o")
        )
