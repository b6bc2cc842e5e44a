"""``velagen check`` and ``velagen render``."""

from __future__ import annotations

import json
import linecache
import sys
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from velagen.check.releases import merged
from velagen.errors import Place, Problem, VelagenError
from velagen.kubevela import VERSIONS, tools_asked
from velagen.project import Project
from velagen.report import explained, show_problems, stderr
from velagen.tools import install, table, without_go

if TYPE_CHECKING:
    from velagen.check.dryrun import Rendered
    from velagen.definition.build import BuiltDefinition
    from velagen.definition.catalog import Catalog
    from velagen.documents import Document

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
    setting = _Setting.find(folder, addon, asked)
    checked_addon = setting.project is not None and not apps_only and not no_render
    if not no_render:
        # Brought once, before many ask for them; in one go, since they share most of what they are built from.
        install(without_go(tools_asked(asked, addon=checked_addon)))
    problems: list[Problem] = []
    documents = setting.documents(files, problems)
    # Rendering waits for vela, a process of its own.
    with ThreadPoolExecutor() as pool:
        each = partial(_check_document, verbose=verbose, render=not no_render)
        answers = [
            {version: pool.submit(each, document, version, catalog) for version, catalog in setting.catalogs.items()}
            for document in documents
        ]
        for one in answers:
            problems += merged({version: found.result() for version, found in one.items()})
    wrong = {problem.place.file for problem in problems if problem.severity == "error"}
    known = setting.catalogs[asked[-1]]
    problems += [one for one in _without_application(documents, known) if one.place.file not in wrong]
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

    version = version or table().row("vela").version
    addon = addon or _bundled(folder, files)
    setting = _Setting.find(folder, addon, (version,))
    problems: list[Problem] = []
    objects: list[Rendered] = []
    documents = setting.documents(files, problems)
    for document in documents:
        if is_application(document):
            catalog = setting.catalogs[version]
            problems += _check_document(document, version, catalog, verbose=verbose, render=True, into=objects)
    problems += [replace(one, severity="error") for one in _without_application(documents, setting.catalogs[version])]
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


@dataclass(frozen=True)
class _Setting:
    """What the files are checked against."""

    project: Project | None
    #: What the project builds; empty where it was known already.
    built: tuple[BuiltDefinition, ...]
    #: By the version of each KubeVela that is asked.
    catalogs: Mapping[str, Catalog]

    @classmethod
    def find(cls, folder: Path | None, addon: Path | None, versions: Collection[str]) -> _Setting:
        """Of a project or an addon folder. Raises VelagenError where neither is there, or the project fails."""
        from velagen.check.kept import Kept
        from velagen.definition.catalog import Catalog, of_addon, of_kubevela

        if addon is not None:
            own = list(of_addon(addon))
            return cls(None, (), {version: Catalog.of([*of_kubevela(version), *own]) for version in versions})
        try:
            project = Project.find(folder)
        except VelagenError as error:
            raise VelagenError(
                replace(one, hint="run this inside a project, or name an addon's folder with --addon")
                for one in error.problems
            ) from error
        kept = Kept(project, tuple(versions))
        known = kept.definitions()
        built: tuple[BuiltDefinition, ...] = ()
        if known is None:
            from velagen.definition.build import build_definitions

            before = set(sys.modules)
            built = build_definitions(project)
            known = [one.known() for one in built]
            files = [getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before]
            kept.keep_definitions(known, filter(None, files))
        catalogs = {version: Catalog.of([*of_kubevela(version), *known], project.crds) for version in versions}
        return cls(project, built, catalogs)

    def of_addon(self) -> list[Problem]:
        """What is wrong with the project's addon, looked at again only where a file of it has changed."""
        from velagen.check.addon import check_addon
        from velagen.check.kept import Kept
        from velagen.definition.build import build_definitions

        if self.project is None:
            return []
        kept = Kept(self.project, tuple(self.catalogs))
        found = kept.verdict()
        if found is None:
            found = check_addon(self.project, self.built or build_definitions(self.project), self.catalogs)
            kept.keep_verdict(found)
        return found

    @property
    def definitions(self) -> int:
        """How many definitions the project has."""
        return sum(one.own for one in next(iter(self.catalogs.values())).known.values())

    def documents(self, files: tuple[Path, ...], problems: list[Problem]) -> list[Document]:
        """The documents of the files given, or of the project's examples; what can't be read goes to *problems*."""
        from velagen.documents import read_documents

        wanted = list(files)
        if not wanted and self.project is not None:
            wanted = sorted((self.project.root / "examples").rglob("*.yaml"))
        found: list[Document] = []
        for file in wanted:
            try:
                documents = read_documents(file, _short(str(file)))
            except VelagenError as error:
                problems += error.problems
                continue
            if not documents:
                problems.append(Problem("there is nothing in this file", Place(_short(str(file)))))
            found += documents
        return found


def _check_document(
    document: Document,
    version: str,
    catalog: Catalog,
    *,
    verbose: bool,
    render: bool,
    into: list[Rendered] | None = None,
) -> list[Problem]:
    """The problems of one document on one KubeVela; with *into*, the objects of it go there."""
    from velagen.check.apps import check_application, check_other, is_application, misplaced_traits
    from velagen.check.dryrun import dry_run
    from velagen.check.steps import check_steps

    if not is_application(document):
        return check_other(document, catalog)
    problems = check_application(document, catalog)
    misplaced = misplaced_traits(document, catalog)
    if not render or _malformed(document):
        return [*problems, *misplaced.values()]
    # A part that is known to be wrong would only be refused once more, in worse words.
    wrong = {_part_of(one.place.pointer or "") for one in problems if one.severity == "error"}
    outcome = dry_run(document, catalog, wrong - {""}, version)
    problems += [one for pointer, one in misplaced.items() if pointer not in outcome.failed]
    if verbose:
        for text in outcome.raw:
            stderr().print(text, style="dim", markup=False)
    problems += outcome.problems
    problems += check_steps(document, catalog, version)
    problems += _of_objects(outcome.objects, document, catalog)
    if into is not None:
        into += outcome.objects
    return problems


def _without_application(documents: list[Document], catalog: Catalog) -> list[Problem]:
    """A warning for each file that holds objects and no Application: it was not rendered, and made nothing."""
    from velagen.check.apps import is_application

    files: dict[str, list[Document]] = {}
    for document in documents:
        files.setdefault(document.file, []).append(document)
    found = []
    for own in files.values():
        if any(is_application(document) for document in own):
            continue
        kinds = [str(one.value["kind"]) for one in own if isinstance(one.value, dict) and one.value.get("kind")]
        what = f", only {' and '.join(dict.fromkeys(kinds))}" if kinds else ""
        found.append(
            Problem(
                f"there is no Application in this file{what}: KubeVela makes nothing of it",
                own[0].place(),
                " or ".join(dict.fromkeys(filter(None, (catalog.maker_of(kind) for kind in kinds)))),
                severity="warning",
            )
        )
    return found


def _malformed(document: Document) -> bool:
    """Whether vela would stumble over the application's outline and say nothing of its parts."""
    spec = document.value.get("spec")
    return not isinstance(spec, dict) or not isinstance(spec.get("components"), list) or not spec["components"]


def _part_of(pointer: str) -> str:
    """The pointer of the component, trait, policy or step that a place lies in; empty for the application itself."""
    steps = pointer.split("/")
    part = ""
    for number, step in enumerate(steps[:-1]):
        if step in {"components", "traits", "policies", "steps", "subSteps"} and steps[number + 1].isdecimal():
            part = "/".join(steps[: number + 2])
        elif step == "properties":
            break
    return part


def _of_objects(objects: tuple[Rendered, ...], document: Document, catalog: Catalog) -> list[Problem]:
    from velagen.check.apps import parts
    from velagen.errors import pointer

    places = {part.name: pointer(part.path) for part in parts(document.value, "component")}
    found = []
    for one in objects:
        own = any(known.name == one.definition and known.own for known in catalog.known.values())
        for problem in catalog.objects.check(one.content):
            if problem.place.pointer == "/kind" and not own:
                # KubeVela's own definitions choose an API version by the cluster's, and here there is no cluster.
                continue
            name = one.content.get("metadata", {}).get("name", "")
            found.append(
                replace(
                    problem,
                    message=f"{problem.message}: {problem.place.pointer} of the rendered {one.content['kind']} {name}",
                    place=document.place(places.get(one.component, "")),
                )
            )
    return found


def _shown(problem: Problem) -> Problem:
    file = problem.place.file
    return replace(problem, place=replace(problem.place, file=_short(file))) if file else problem


def _short(file: str) -> str:
    """A path as a person in the current folder would write it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else file
