"""What ``velagen lab`` does with ``--kind``, and ``velagen lab prune``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from velagen.errors import VelagenError

if TYPE_CHECKING:
    from velagen.lab.kind import KindLab


def kind_lab(name: str, folder: Path | None) -> KindLab:
    """Give the kind lab of a name, or of a folder."""
    from velagen.lab.kind import KindLab

    return KindLab(name, folder=folder)


def kind_up(
    name: str,
    folder: Path | None,
    *,
    nodes: int = 1,
    gpu_model: str = "T4",
    gpus_per_node: int = 2,
    gpu_replicas: int = 1,
    gpu_config: Path | None = None,
    kubevela: str | None = None,
    extra: Sequence[str] = (),
) -> None:
    """Start a kind lab, with the project's addon enabled where there is a project that has one built.

    Args:
        extra: layers that are there only where they are asked for.
    """
    from velagen.lab.kind import KindLab, KindOptions
    from velagen.lab.kind.gpus import shared
    from velagen.lab.kind.options import layers_with
    from velagen.project import Project

    options = KindOptions(
        nodes=nodes,
        gpus=(f"{gpu_model.lower()}x{gpus_per_node}",) if gpus_per_node else (),
        gpu_config=gpu_config.read_text() if gpu_config else shared(gpu_replicas),
        layers=layers_with(*extra),
    )
    if kubevela is not None:
        options = dataclasses.replace(options, kubevela=kubevela)
    try:
        addon = Project.find().addon
    except VelagenError:
        addon = None
    if addon is not None and addon.is_dir():
        options = dataclasses.replace(options, addon=str(addon.absolute()))
    lab = KindLab(name, folder=folder, options=options)
    started = time.monotonic()
    lab.up()
    click.echo(f"kind lab {name} is up ({time.monotonic() - started:.0f} s)", err=True)
    for what in lab.ports():
        click.echo(f"{what:<11} {lab.url(what)}", err=True)
    if host := lab.environment().get("DOCKER_HOST"):
        click.echo(f"export DOCKER_HOST={host}")
    click.echo(f"export KUBECONFIG={lab.kubeconfig}")
    click.echo(f"export GATEWAY={lab.url('gateway')}")


def add_keda(lab: KindLab) -> None:
    """Put KEDA into a kind lab that was started without it; it stays there."""
    from velagen.lab.kind import keda, stack

    if lab.api.get("v1", "Namespace", keda.NAMESPACE) is None:
        click.echo(
            "the lab has no KEDA: it gets it (where no registry answers it is built, a quarter of an hour)", err=True
        )
        stack.install(lab, ["keda"], None)


def why_no_kind() -> list[str]:
    """Why no kind cluster can be started here; nothing where one can."""
    import os

    from velagen.lab.images import archive_path, why_not
    from velagen.lab.kind.capability import lacking
    from velagen.lab.kind.engine import Engine, _daemon, cannot_start
    from velagen.tools import this_platform

    try:
        if Engine().answers():
            return []
    except VelagenError:
        return ["the docker client is not on PATH"]
    reasons = cannot_start(lacking(), uid=os.geteuid(), daemon=_daemon(), firewall=True, platform=this_platform())
    if not reasons and why_not() and not archive_path("node").exists():
        reasons = [str(why_not())]
    return list(reasons)


def kind_status(name: str, folder: Path | None) -> None:
    """Show a kind lab's nodes, its layers, and the pods that are not ready.

    Exits 1 where it is not up, or a node is not ready.
    """
    from velagen.lab.api import condition

    lab = kind_lab(name, folder)
    if not lab.running:
        click.echo(f"kind lab {name} is not up")
        raise SystemExit(1)
    shown = Table("node", "ready", "version")
    nodes = lab.api.list("v1", "Node")
    for node in nodes:
        shown.add_row(node["metadata"]["name"], condition(node, "Ready"), node["status"]["nodeInfo"]["kubeletVersion"])
    Console().print(shown)
    click.echo(f"layers: {', '.join(lab.started_with.layers)}")
    if waiting := lab.pods():
        click.echo(f"pods that are not ready:\n{waiting}")
    click.echo(f"kubeconfig {lab.kubeconfig}", err=True)
    if any(condition(node, "Ready") != "True" for node in nodes):
        raise SystemExit(1)


def kind_down(name: str, folder: Path | None) -> None:
    """Remove a kind lab, and the engine the lab started for it."""
    there = kind_lab(name, folder).down()
    click.echo(f"kind lab {name} is down" if there else f"kind lab {name} was not up")


@click.command("prune")
@click.option("--all", "everything", is_flag=True, help="Also the images this version uses: the next start makes them.")
def lab_prune(*, everything: bool) -> None:
    """Free disk: images of older versions, downloaded packages, what interrupted builds left.

    Tools, kubeconfigs and running labs stay.

    Example: velagen lab prune
    """
    from velagen.lab.images import current, prune
    from velagen.lab.models import sentiment
    from velagen.tools import cache_dir
    from velagen.tools.gobuild import clear_go_cache

    keep = set() if everything else current()
    freed = prune(lambda path: path in keep) + sentiment.prune(everything=everything)
    leftovers = cache_dir() / "build" / "go"
    if leftovers.is_dir():
        try:
            # The lock of the builds: what is being built keeps its cache.
            with FileLock(leftovers.with_name("lock"), timeout=0):
                freed += clear_go_cache(leftovers)
        except Timeout:
            click.echo("tools are being built: their cache stays", err=True)
    click.echo(f"{freed / 1e9:.1f} GB freed")
