"""``velagen adopt``: InferenceServices that are there already, as Applications."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from velagen.adopt.application import Adopted, Renderer, adopted, check
from velagen.adopt.compare import Difference
from velagen.adopt.convert import Mode
from velagen.adopt.sources import Found, Sources, nothing_there, of_cluster, of_files
from velagen.adopt.text import written
from velagen.errors import Problem, VelagenError
from velagen.project import Project
from velagen.tools import install, table


@click.command(
    "adopt", epilog="Example: velagen adopt models/*.yaml > apps.yaml && velagen adopt --check models/*.yaml"
)
@click.argument("files", nargs=-1)
@click.option("--cluster", is_flag=True, help="Read the cluster that the kubeconfig names; FILES are names then.")
@click.option("--namespace", "-n", default="default", show_default=True, help="Which namespace of the cluster.")
@click.option("--check", "only_check", is_flag=True, help="Render back and compare; exit status 1 where it differs.")
@click.option("--exact", is_flag=True, help="Take away what the component adds, too: the object stays what it is.")
@click.option(
    "--keep-pods",
    is_flag=True,
    help="Take away what would replace pods that run; `velagen take-over` applies such an Application.",
)
@click.option(
    "--default-mode",
    type=click.Choice(["standard", "knative"]),
    default="standard",
    show_default=True,
    help="KServe's defaultDeploymentMode, for objects that don't say their mode.",
)
@click.option(
    "--addon",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of an addon with the component; by default the project's, or the one that comes with velagen.",
)
def adopt_command(
    files: tuple[str, ...],
    namespace: str,
    default_mode: Mode,
    addon: Path | None,
    *,
    cluster: bool,
    only_check: bool,
    exact: bool,
    keep_pods: bool,
) -> None:
    """Write Applications for the InferenceServices in FILES (YAML or JSON) to standard output.

    What has no property goes into a trait json-merge-patch; nothing is left out without a comment. KubeVela renders
    each one: what comes back is what was there, and what the component adds to it (a readiness probe, Pod Security, a
    clean end of pods), which is told.
    """
    sources = _read(files, namespace, cluster=cluster)
    install([("vela", table().row("vela").version)])
    render, known = _renderer(addon)

    def one(found: Found) -> tuple[Adopted, list[Difference] | list[Problem]]:
        result = adopted(
            found.service,
            render,
            known,
            beside=found.beside,
            default_mode=default_mode,
            exact=exact,
            keep_pods=keep_pods,
        )
        return result, check(result, render) if only_check else []

    # Rendering waits for vela, a process of its own.
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, sources.found))
    failed = False
    documents = []
    for found, (result, differing) in zip(sources.found, results, strict=True):
        documents.append(written(result, found.origin))
        if only_check:
            failed |= bool(differing)
            click.echo(f"{result.name}: {'differs' if differing else 'equal'}")
            for line in differing:
                click.echo(f"  {line}")
    if not only_check:
        click.echo("---\n".join(documents), nl=False)
    if sources.others:
        click.echo(f"not read, apply them as before: {', '.join(sources.others)}", err=True)
    added = sorted({root for result, _ in results for root in result.added})
    if added:
        click.echo(
            f"the component adds what was not there (docs/adopt.md; --exact leaves it out): {', '.join(added)}",
            err=True,
        )
    sys.exit(1 if failed else 0)


def _read(files: tuple[str, ...], namespace: str, *, cluster: bool) -> Sources:
    if not cluster and not files:
        raise click.UsageError("name a file, or --cluster")
    sources = of_cluster(namespace, files) if cluster else of_files([Path(one) for one in files])
    if not sources.found:
        raise VelagenError(
            Problem(f"there is no InferenceService in the namespace {namespace}")
            if cluster
            else nothing_there([Path(one) for one in files])
        )
    return sources


def _renderer(addon: Path | None) -> tuple[Renderer, frozenset[str]]:
    """What renders an Application, and the properties of the component."""
    from velagen.check.apps import check_application
    from velagen.check.dryrun import dry_run
    from velagen.definition.catalog import Catalog, of_addon, of_kubevela
    from velagen.documents import Document

    version = table().row("vela").version
    folder = addon or _project().addon
    catalog = Catalog.of([*of_kubevela(version), *of_addon(folder)])
    component = catalog.find("component", "kfserving")
    if component is None or component.schema is None:
        raise VelagenError(Problem(f"there is no component kfserving with a schema in {folder}"))

    def render(application: dict[str, Any]) -> list[dict[str, Any]] | list[Problem]:
        document = Document("the Application", application, {})
        problems = [one for one in check_application(document, catalog) if one.severity == "error"]
        if problems:
            return problems
        outcome = dry_run(document, catalog, (), version)
        problems = [one for one in outcome.problems if one.severity == "error"]
        return problems or [one.content for one in outcome.objects]

    return render, frozenset(_properties(component.schema.document))


def _project() -> Project:
    try:
        return Project.find()
    except VelagenError:
        bundled = Project.bundled()
        if bundled is None:
            raise
        return bundled


def _properties(schema: Mapping[str, Any], at: str = "", whole: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The properties of a schema, dotted, objects' own among them."""
    whole = whole or schema
    for name, one in (schema.get("properties") or {}).items():
        yield f"{at}{name}"
        reference = str(one.get("$ref", ""))
        if reference.startswith("#/$defs/"):
            one = whole["$defs"].get(reference.removeprefix("#/$defs/"), {})  # noqa: PLW2901  # the same property
        yield from _properties(one, f"{at}{name}.", whole)
