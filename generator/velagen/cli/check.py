"""``velagen check`` and ``velagen render``."""

from __future__ import annotations

import json
import linecache
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from velagen.check.releases import merged
from velagen.errors import Problem, VelagenError
from velagen.kubevela import VERSIONS, tools_asked
from velagen.project import Project
from velagen.report import explained, show_problems, stderr
from velagen.tools import install, table, without_go

if TYPE_CHECKING:
    from velagen.check.dryrun import Rendered

#: Seconds between two looks at the files that are watched.
_GLANCE = 0.2

_files = click.argument("files", nargs=-1, type=click.Path(path_type=Path))
_project = click.option(
    "--project",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project's folder; by default the one the current folder lies in.",
)
_addon = click.option(
    "--addon",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of an addon, in the place of a project.",
)
_kubevela = click.option(
    "--kubevela",
    "versions",
    multiple=True,
    type=click.Choice(VERSIONS),
    help="Ask this release of KubeVela only; may be given twice. By default all that are supported are asked.",
)
_verbose = click.option("--verbose", is_flag=True, help="Show KubeVela's own words where it refuses something.")


@click.command("check")
@_files
@_project
@_addon
@_kubevela
@_verbose
@click.option("--no-render", is_flag=True, help="Schemas only: don't ask vela to render.")
@click.option("--apps-only", is_flag=True, help="Only the files given: leave the addon's own checks out.")
@click.option("--watch", is_flag=True, help="Check again whenever a file is saved, until Ctrl-C.")
def check_command(
    files: tuple[Path, ...],
    folder: Path | None,
    addon: Path | None,
    versions: tuple[str, ...],
    *,
    verbose: bool,
    no_render: bool,
    apps_only: bool,
    watch: bool,
) -> None:
    """Check the addon and application FILES without a cluster.

    Without FILES, those in the project's examples/ are checked.
    """
    if addon is not None and not files:
        raise click.UsageError("name an application file: an addon's folder has no examples to check")
    asked = versions or VERSIONS
    addon = addon or _bundled(folder, files)

    def once() -> bool:
        return _check(files, folder, addon, asked, verbose=verbose, no_render=no_render, apps_only=apps_only)

    if watch:
        _watch(once, files, folder)
    elif not once():
        sys.exit(1)


def _watch(once: Callable[[], bool], files: tuple[Path, ...], folder: Path | None) -> None:
    """Check, and check again after each change, until somebody interrupts it."""
    try:
        while True:
            seen = _states(files, folder)
            linecache.checkcache()
            try:
                once()
            except VelagenError as error:
                show_problems(explained(error))
            click.echo("waiting for a change; Ctrl-C ends this", err=True)
            while _states(files, folder) == seen:
                time.sleep(_GLANCE)
    except KeyboardInterrupt:
        click.echo("", err=True)


def _states(files: tuple[Path, ...], folder: Path | None) -> dict[Path, tuple[int, int]]:
    """Size and time of every file whose change is of interest."""
    watched = list(files)
    with suppress(VelagenError):
        root = Project.find(folder).root
        for name in ("metadata.yaml", "definitions", "schemas", "crds", *([] if files else ["examples"])):
            watched += [root / name, *(root / name).rglob("*")]
    found = {}
    for file in watched:
        with suppress(OSError):
            if "__pycache__" not in file.parts:
                found[file] = (file.stat().st_size, file.stat().st_mtime_ns)
    return found


def _check(
    files: tuple[Path, ...],
    folder: Path | None,
    addon: Path | None,
    asked: tuple[str, ...],
    *,
    verbose: bool,
    no_render: bool,
    apps_only: bool,
) -> bool:
    """Check everything once and show what is wrong. Whether there was no error."""
    from velagen.check.files import check_document, without_application
    from velagen.check.setting import Setting

    setting = Setting.find(folder, addon, asked)
    checked_addon = setting.project is not None and not apps_only and not no_render
    if not no_render:
        # Brought once, before many ask for them; in one go, since they share most of what they are built from.
        install(without_go(tools_asked(asked, addon=checked_addon)))
    problems: list[Problem] = []
    documents = setting.documents(files, problems)
    # Rendering waits for vela, a process of its own.
    with ThreadPoolExecutor() as pool:
        each = partial(check_document, render=not no_render, tell=_say if verbose else None)
        answers = [
            {version: pool.submit(each, document, version, catalog) for version, catalog in setting.catalogs.items()}
            for document in documents
        ]
        for one in answers:
            problems += merged({version: found.result() for version, found in one.items()})
    wrong = {problem.place.file for problem in problems if problem.severity == "error"}
    known = setting.catalogs[asked[-1]]
    problems += [one for one in without_application(documents, known) if one.place.file not in wrong]
    if checked_addon:
        problems += [_shown(one) for one in setting.of_addon()]
    show_problems(problems)
    if any(problem.severity == "error" for problem in problems):
        return False
    what = [f"{setting.definitions} definitions"] if checked_addon else []
    count = len({document.file for document in documents})
    what += [f"{count} file{'s' * (count != 1)}"] if count else []
    click.echo(f"{' and '.join(what) or 'nothing'} checked: no errors", err=True)
    return True


@click.command("render", epilog="Example: velagen render app.yaml -o json")
@_files
@_project
@_addon
@click.option("--kubevela", "version", type=click.Choice(VERSIONS), help="By default the release that a lab runs.")
@_verbose
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def render_command(
    files: tuple[Path, ...], folder: Path | None, addon: Path | None, version: str | None, output: str, *, verbose: bool
) -> None:
    """Print the objects that KubeVela makes of application FILES."""
    if not files:
        raise click.UsageError("name an application file")
    objects = rendered_objects(files, folder, addon, version, verbose=verbose)
    contents = [one.content for one in objects]
    if output == "json":
        click.echo(json.dumps(contents, indent=2))
    else:
        click.echo(yaml.safe_dump_all(contents, sort_keys=False, explicit_start=True), nl=False)


def rendered_objects(
    files: tuple[Path, ...],
    folder: Path | None = None,
    addon: Path | None = None,
    version: str | None = None,
    *,
    verbose: bool = False,
) -> list[Rendered]:
    """What KubeVela makes of application files; what is wrong in them is shown, and an error ends the program."""
    from velagen.check.apps import is_application
    from velagen.check.files import check_document, without_application
    from velagen.check.setting import Setting

    tell = _say if verbose else None
    version = version or table().row("vela").version
    addon = addon or _bundled(folder, files)
    setting = Setting.find(folder, addon, (version,))
    problems: list[Problem] = []
    objects: list[Rendered] = []
    documents = setting.documents(files, problems)
    for document in documents:
        if is_application(document):
            catalog = setting.catalogs[version]
            problems += check_document(document, version, catalog, render=True, tell=tell, into=objects)
    problems += [replace(one, severity="error") for one in without_application(documents, setting.catalogs[version])]
    if problems:
        show_problems(problems)
    if any(problem.severity == "error" for problem in problems):
        sys.exit(1)
    return objects


def _bundled(folder: Path | None, files: tuple[Path, ...]) -> Path | None:
    """Outside of any project the addon that comes with velagen, for files that are named; else None."""
    if folder is not None or not files:
        return None
    try:
        Project.find()
    except VelagenError:
        project = Project.bundled()
        if project is None:
            return None
        version = project.metadata["version"]
        click.echo(f"no project here: against the addon {project.name} {version} that comes with velagen", err=True)
        return project.addon
    return None


def _say(text: str) -> None:
    """KubeVela's own words."""
    stderr().print(text, style="dim", markup=False)


def _shown(problem: Problem) -> Problem:
    from velagen.check.setting import short

    file = problem.place.file
    return replace(problem, place=replace(problem.place, file=short(file))) if file else problem
