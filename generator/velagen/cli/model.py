"""``velagen model``: will a package serve, and bring it to where it is served from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from velagen.errors import VelagenError
from velagen.model.check import SINGLE_FILE, ModelReport, check_model
from velagen.model.push import open_target, package_files, push, total_size
from velagen.model.runtimes import load_runtimes

#: How many files a line names.
_SHOWN = 8
_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))
_RUNTIMES = click.option(
    "--runtimes",
    "runtimes_file",
    type=click.Path(path_type=Path),
    help="What your model servers hold, as in velagen/model/runtimes.yaml; by default KServe's own.",
)
_RUNTIME = click.option(
    "--runtime",
    type=click.Choice(["mlflow", "triton", "tensorflow", "pytorch", "huggingface", "vllm", "onnx", *SINGLE_FILE]),
    help="Take the directory for a package of this runtime.",
)


@click.group("model", epilog="Example: velagen model check ./my-model")
def model_group() -> None:
    """Model packages: check them, push them."""


@model_group.command("check", epilog="Example: velagen model check ./my-model --runtime mlflow")
@_DIRECTORY
@_RUNTIME
@_RUNTIMES
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check_command(directory: Path, runtime: str | None, runtimes_file: Path | None, as_json: bool) -> None:
    """Say whether DIRECTORY is a package that will serve; exit status 1 when it is not."""
    report = _check(directory, runtime, runtimes_file)
    if as_json:
        click.echo(json.dumps(_document(report), indent=2))
    else:
        _show(report)
        if report.serves:
            name = report.directory.resolve().name
            click.echo("It will serve. In the application:")
            click.echo(_snippet(report, f"s3://BUCKET/{name}"))
    sys.exit(0 if report.serves else 1)


@model_group.command("push", epilog="Example: velagen model push ./my-model s3://models/mine/1")
@_DIRECTORY
@click.argument("target")
@_RUNTIME
@_RUNTIMES
@click.option("--unchecked", is_flag=True, help="Push although the check finds errors.")
@click.option("--overwrite", is_flag=True, help="Replace what differs at a target that holds another model.")
@click.option("--delete", is_flag=True, help="Remove files at the target that the package does not have.")
@click.option("--no-verify", is_flag=True, help="Don't read back what was sent.")
@click.option("--namespace", "-n", default="default", show_default=True, help="Where the claim of pvc:// lives.")
@click.option("--image", default="busybox:1.36", show_default=True, help="Image of the pod that mounts the claim.")
@click.option("--endpoint-url", default=None, help="An S3 server other than Amazon's; else AWS_ENDPOINT_URL.")
def push_command(
    directory: Path,
    target: str,
    runtime: str | None,
    runtimes_file: Path | None,
    unchecked: bool,
    overwrite: bool,
    delete: bool,
    no_verify: bool,
    namespace: str,
    image: str,
    endpoint_url: str | None,
) -> None:
    """Bring DIRECTORY to TARGET: s3://bucket/path, pvc://claim/path or a folder. Equal files are not sent again."""
    report = _check(directory, runtime, runtimes_file)
    _show(report)
    if not report.serves and not unchecked:
        raise click.ClickException("nothing was pushed: the package would not serve (--unchecked pushes it anyway)")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    try:
        files = package_files(directory)
        with open_target(target, namespace=namespace, image=image, endpoint_url=endpoint_url) as place, bar:
            task = bar.add_task("pushing", total=total_size(files))

            def step(name: str, count: int) -> None:
                bar.update(task, description=name, advance=count)

            done = push(directory, place, overwrite=overwrite, delete=delete, verify=not no_verify, progress=step)
    except (VelagenError, OSError) as error:
        raise click.ClickException(str(error)) from error
    read = "" if no_verify else ", read back and equal"
    click.echo(
        f"{len(done.sent)} files sent ({done.size} bytes{read if done.sent else ''}), {len(done.equal)} were there"
    )
    if done.removed:
        click.echo(f"removed: {', '.join(done.removed)}")
    if done.extra:
        click.echo(f"warning: at the target, but not in the package: {', '.join(done.extra)} (--delete)", err=True)
    if done.uri and report.layout:
        click.echo("In the application:")
        click.echo(_snippet(report, done.uri))


def _check(directory: Path, runtime: str | None, runtimes_file: Path | None) -> ModelReport:
    try:
        return check_model(directory, runtimes=load_runtimes(runtimes_file), runtime=runtime)
    except VelagenError as error:
        raise click.ClickException(str(error)) from error


def _show(report: ModelReport) -> None:
    click.echo(_printable(f"{report.directory}: {report.layout or 'no package'}"))
    for fact in report.facts:
        click.echo(_printable(f"  {fact}"))
    if report.unread:
        more = f" and {len(report.unread) - _SHOWN} more" if len(report.unread) > _SHOWN else ""
        names = ", ".join(report.unread[:_SHOWN])
        click.echo(_printable(f"  not read (programs, archives, graphs): {names}{more}"))
    for problem in report.problems:
        click.echo(_printable(f"{problem.severity}: {problem}"), err=True)


def _printable(text: str) -> str:
    """Names of files are any bytes: what a terminal can't show, or would obey, is shown by its number."""
    escaped = (part if part.isprintable() or part == "\n" else ascii(part)[1:-1] for part in text)
    return "".join(escaped)


def _snippet(report: ModelReport, uri: str) -> str:
    if report.root == "..":
        uri = uri.rpartition("/")[0]
    document = {"type": "kfserving", "properties": report.properties(uri)}
    return "\n".join("  " + line for line in yaml.safe_dump(document, sort_keys=False).splitlines())


def _document(report: ModelReport) -> dict[str, object]:
    return {
        "directory": str(report.directory),
        "runtime": report.layout,
        "serves": report.serves,
        "facts": list(report.facts),
        "unread": list(report.unread),
        "problems": [
            {
                "severity": problem.severity,
                "message": problem.message,
                "file": problem.place.file,
                "line": problem.place.line,
                "hint": problem.hint,
            }
            for problem in report.problems
        ],
    }
