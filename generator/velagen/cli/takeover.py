"""``velagen take-over``: Applications of models that serve already, whose pods stay."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from velagen.documents import read_documents
from velagen.errors import Place, Problem, VelagenError


@click.command(
    "take-over",
    epilog="Example: velagen adopt --cluster -n prod --keep-pods iris > iris.yaml && velagen take-over iris.yaml",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--namespace", "-n", help="For Applications that name none.  [default: the kubeconfig's]")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="The cluster.  [default: as kubectl]")
@click.option("--context", help="A context of the kubeconfig.")
def take_over_command(file: Path, namespace: str | None, kubeconfig: Path | None, context: str | None) -> None:
    """Create the Applications in FILE over InferenceServices that serve, and keep their pods.

    KubeVela labels what it applies, and KServe hands labels on to pods, which a Deployment then replaces. This gives
    the pods that serve, and their ReplicaSet, the new labels first. Exit status 1 where pods are replaced all the same,
    because more than labels and annotations changes: each such field is named.
    """
    from velagen.adopt.takeover import Writer, services_of, take_over

    applications = [one.value for one in read_documents(file) if one.value is not None]
    problems = [problem for one in applications if (problem := _unreadable(one, file))]
    if problems or not applications:
        raise VelagenError(problems or [Problem("there is no Application here", Place(str(file)))])
    for one in applications:
        services_of(one)  # says what is wrong before anything is changed
    cluster = Writer.connect(kubeconfig, context)
    failed = False
    for one in applications:
        one["metadata"].setdefault("namespace", namespace or cluster.namespace)
        for result in take_over(cluster, one, lambda line: click.echo(line, err=True)):
            if result.replaced:
                failed = True
                click.echo(f"{result.name}: pods are replaced, since more than labels and annotations changes")
                for line in result.replaced:
                    click.echo(f"  {line}")
            else:
                click.echo(f"{result.name}: taken over; still serving: {', '.join(result.kept) or 'no pods'}")
    sys.exit(1 if failed else 0)


def _unreadable(thing: Any, file: Path) -> Problem | None:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    if not isinstance(metadata, dict) or thing.get("kind") != "Application" or not metadata.get("name"):
        return Problem("this is not an Application", Place(str(file)), hint="velagen adopt --cluster writes one")
    return None
