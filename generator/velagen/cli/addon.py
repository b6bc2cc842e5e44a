"""``velagen build`` and ``velagen package``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from velagen.errors import Problem
from velagen.kubevela import VERSIONS
from velagen.project import Project
from velagen.report import show_diff, show_problems

project_option = click.option(
    "--project",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project's folder; by default the one the current folder lies in.",
)


@click.command("build", epilog="Example: velagen build --check")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 and a diff where the addon is stale.")
@project_option
def build_command(folder: Path | None, *, check: bool) -> None:
    """Write addon/NAME/ from metadata.yaml, schemas/ and definitions/."""
    # Imported here, so that --help and the other commands don't wait for it.
    from velagen.addon.write import stale_diff, write_addon

    project = Project.find(folder)
    files, warnings = _built(project)
    show_problems(warnings)
    name = project.addon.relative_to(project.root)
    if not check:
        changed = write_addon(project, files)
        click.echo(f"{name}: {len(files)} files {'written' if changed else 'unchanged'}", err=True)
        return
    diff = stale_diff(project, files)
    if diff:
        show_diff(diff)
        click.echo(f"{name} is stale: run velagen build and commit what it writes", err=True)
        sys.exit(1)
    click.echo(f"{name} is what a build would write", err=True)


def _built(project: Project) -> tuple[dict[str, bytes], list[Problem]]:
    """The addon's files and the warnings of its schemas; what was built of the same sources before is kept."""
    from velagen.check.kept import Kept

    kept = Kept(project, VERSIONS)
    found = kept.addon()
    if found is None:
        from velagen.addon.write import render_addon

        before = set(sys.modules)
        warnings: list[Problem] = []
        files = render_addon(project, tell=warnings.extend)
        loaded = [getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before]
        kept.keep_addon(files, warnings, filter(None, loaded))
        found = files, warnings
    return found


@click.command("package", epilog="Example: velagen package --out dist --url https://addons.example.org")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("dist"), show_default=True)
@click.option("--url", default="", help="Where the folder will be served; without it the index is relative.")
@project_option
def package_command(out: Path, url: str, folder: Path | None) -> None:
    """Pack the addon for a registry: NAME-VERSION.tgz and index.yaml.

    Serve the folder with any HTTP server, then: vela addon registry add mine --type=helm --endpoint=URL

    In the package each definition carries the addon's version, which an application may name (type: NAME@vVERSION).
    """
    from velagen.addon.package import pack
    from velagen.addon.write import render_addon

    project = Project.find(folder)
    package = pack(project.metadata, render_addon(project, released=True, tell=show_problems), out, url)
    click.echo(f"{package.archive}  sha256:{package.digest}")
    click.echo(f"{package.index}")
