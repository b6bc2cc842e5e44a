"""``velagen gpu``: what nodes need so that models can share GPUs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from velagen.cli.seeing import check_output
from velagen.gpu.parts import GPU_MIB, Mode
from velagen.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velagen.errors import Problem
    from velagen.gpu.pools import Configuration

_MODES: Final = ("time-slicing", "mps", "mig", "hami", "volcano", "kai", "dra")
#: Kubernetes' rules for the name of a ConfigMap and of a label (apimachinery, pkg/util/validation).
_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAMESPACE: Final = re.compile(r"(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_WORD: Final = r"[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?"
_LABEL: Final = re.compile(rf"((?:[a-z0-9][-a-z0-9.]*/)?{_WORD})=((?:{_WORD})?)", re.ASCII)
_WITHOUT: Final = "such parts are those of the trait gpu-share with mode time-slicing, mps or mig"


@click.group("gpu", epilog="Example: velagen gpu config app.yaml")
def gpu_group() -> None:
    """What nodes need so that models can share GPUs."""


@gpu_group.command("config", epilog="Example: velagen gpu config app.yaml -o gpu-shares.yaml")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--fraction", "fractions", multiple=True, type=float, help="A part of a GPU; may be repeated.")
@click.option("--memory", "memories", multiple=True, help="A part with so much memory, such as 4Gi; needs --gpu.")
@click.option("--mode", type=click.Choice(_MODES), help="Of these parts.  [default: time-slicing]")
@click.option("--gpu", type=click.Choice(list(GPU_MIB)), help="Of these parts: mig and --memory need it.")
@click.option("--pool", metavar="KEY=VALUE", help="All are for the nodes with this label, with one configuration.")
@click.option("--gpus-per-node", type=click.IntRange(1, 64), default=1, show_default=True, help="For what nodes offer.")
@click.option("--plain", is_flag=True, help="One configuration alone, as `velagen lab up --gpu-config` reads it.")
@click.option("--name", default="gpu-shares", show_default=True, help="Of the ConfigMap.")
@click.option("-n", "--namespace", default="gpu-operator", show_default=True, help="Where the device plugin runs.")
@click.option("-o", "--output", type=click.Path(path_type=Path, allow_dash=True), help="By default standard output.")
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
def config_command(
    files: tuple[Path, ...],
    fractions: tuple[float, ...],
    memories: tuple[str, ...],
    mode: Mode | None,
    gpu: str | None,
    pool: str | None,
    gpus_per_node: int,
    name: str,
    namespace: str,
    output: Path | None,
    *,
    plain: bool,
    overwrite: bool,
) -> None:
    """Write the configuration of NVIDIA's device plugin for the shares of GPUs that applications ask for.

    FILES are applications with the trait gpu-share. What comes of it is a ConfigMap with a configuration for each mode
    and number of parts; comments say which nodes take it, by which command, and what they then offer.
    """
    if not (files or fractions or memories):
        raise click.UsageError("name an application file, or a --fraction or --memory")
    if (mode or gpu) and not (fractions or memories):
        raise click.UsageError("--mode and --gpu belong to --fraction and --memory: applications say their own")
    from velagen.errors import Place, Problem, VelagenError
    from velagen.gpu.manifest import manifest
    from velagen.gpu.manifest import plain as alone
    from velagen.gpu.pools import configurations
    from velagen.gpu.shares import shares_by_name, shares_of_files
    from velagen.report import show_problems

    shares, problems = shares_of_files(files)
    named, wrong = shares_by_name(fractions, memories, mode or "time-slicing", gpu)
    problems += [*wrong, *_of_options(pool, name, namespace)]
    shares += named
    made: Sequence[Configuration] = ()
    try:
        made = configurations(shares, together=pool is not None)
    except VelagenError as error:
        problems += error.problems
    if not made and all(one.severity == "warning" for one in problems):
        reason = "nothing here asks for a part of a GPU that NVIDIA's device plugin offers"
        problems.append(Problem(reason, Place(), _WITHOUT))
    if plain and len(made) > 1:
        names = " and ".join(one.name for one in made)
        problems.append(Problem(f"--plain writes one configuration, and these shares need {names}", Place("--plain")))
    if output is not None:
        try:
            check_output(output, overwrite=overwrite, example="gpu-shares.yaml")
        except VelagenError as error:
            problems += error.problems
    if any(one.severity == "error" for one in problems):
        raise VelagenError(problems)
    show_problems(problems)
    label = _LABEL.fullmatch(pool) if pool is not None else None
    selected = ((label[1], label[2]),) if label else ()
    if plain:
        text = alone(made[0], gpus=gpus_per_node)
    else:
        text = manifest(made, name=name, namespace=namespace, gpus=gpus_per_node, pool=selected)
    if output is None or str(output) == "-":
        click.echo(text, nl=False)
        return
    write_whole(output, text)
    click.echo(f"{output}: {', '.join(one.name for one in made)}", err=True)


def _of_options(pool: str | None, name: str, namespace: str) -> list[Problem]:
    """What the API server would refuse of names and labels."""
    from velagen.errors import Place, Problem

    found = []
    if pool is not None and not _LABEL.fullmatch(pool):
        found.append(Problem(f"{pool!r} is not a label", Place("--pool"), "write KEY=VALUE, such as pool=t4"))
    for option, text, rule in (("--name", name, _NAME), ("--namespace", namespace, _NAMESPACE)):
        if not rule.fullmatch(text):
            reason = f"{text!r} is not a name Kubernetes takes"
            found.append(Problem(reason, Place(option), "lower case letters, digits and '-', such as gpu-shares"))
    return found


@gpu_group.command("modes", epilog="Example: velagen gpu modes app.yaml")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--from",
    "objects",
    type=click.Path(path_type=Path),
    help="Objects in a file, such as of `kubectl get nodes,resourceslices -o yaml`, in the place of a cluster.",
)
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="The cluster.  [default: as kubectl]")
@click.option("--context", help="A context of the kubeconfig.")
def modes_command(files: tuple[Path, ...], objects: Path | None, kubeconfig: Path | None, context: str | None) -> None:
    """Show which parts of GPUs the nodes offer, and which mode the models in application FILES are to write.

    Of several modes the first is the one that isolates most. Exit status 1 where a model has none.
    """
    from velagen.errors import Problem, VelagenError
    from velagen.gpu.modes import Cluster, offered, offers
    from velagen.gpu.shares import asked_of_files
    from velagen.report import show_problems

    asked, problems = asked_of_files(files)
    if files and not asked and not problems:
        problems.append(Problem("no model here asks for a part of a GPU", hint="the trait gpu-share does"))
    if any(one.severity == "error" for one in problems):
        raise VelagenError(problems)
    show_problems(problems)
    cluster = Cluster.of(_objects_in(objects) if objects else _objects_of(kubeconfig, context))
    if not files:
        found = offered(cluster)
        for name, line in found:
            click.echo(f"{name}: {line}")
        if not found:
            raise VelagenError(Problem("no node has a GPU that Kubernetes knows of", hint="kubectl get nodes"))
        return
    without = []
    for one in asked:
        wanted = f"memory: {one.memory}" if one.memory else f"fraction: {one.fraction:g}"
        if one.isolation != "none":
            wanted += f", isolation: {one.isolation}"
        possible = offers(cluster, one)
        if not possible:
            reason = f"{one.who}no node offers {wanted}"
            without.append(Problem(reason, one.place, "velagen gpu config writes what nodes need for it"))
            continue
        first, *others = possible
        click.echo(f"{one.component}: {wanted}: write {first.written} ({_nodes(first.nodes)})")
        for other in others:
            click.echo(f"  or {other.written} ({_nodes(other.nodes)})")
    if without:
        raise VelagenError(without)


def _nodes(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _objects_in(file: Path) -> list[dict[str, Any]]:
    from velagen.documents import read_documents

    return [one.value for one in read_documents(file) if isinstance(one.value, dict)]


def _objects_of(kubeconfig: Path | None, context: str | None) -> list[dict[str, Any]]:
    """Nodes, devices of DRA drivers and KAI's queues; of the last two none where the cluster does not know them."""
    from velagen.monitoring.cluster import Cluster

    cluster = Cluster.connect(kubeconfig, context)
    kinds = [("v1", "nodes", "Node"), ("resource.k8s.io/v1", "resourceslices", "ResourceSlice")]
    kinds.append(("scheduling.run.ai/v2", "queues", "Queue"))
    return [
        {**one, "apiVersion": group, "kind": kind}
        for group, plural, kind in kinds
        for one in cluster.list(group, plural)
    ]
