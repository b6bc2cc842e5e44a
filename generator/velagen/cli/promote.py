"""``velagen promote``: another version of a model, as one line of an application's file."""

from __future__ import annotations

import copy
import difflib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velagen.documents import parse_documents, read_bytes
from velagen.errors import Place, Problem, VelagenError
from velagen.project import Project
from velagen.promote.edit import MODEL_URI, Component, chosen, place_of_model, with_properties
from velagen.report import show_diff, show_problems
from velagen.whole import write_whole

if TYPE_CHECKING:
    from velagen.model.check import ModelReport

#: Runtimes whose packages `velagen model check` knows by another name than their own.
_LAYOUTS = frozenset(
    ("mlflow", "triton", "tensorflow", "pytorch", "huggingface", "vllm", "onnx", "sklearn", "xgboost", "lightgbm")
)


@click.command(
    "promote",
    epilog="Example: velagen promote app.yaml --model models:/sentiment@champion --tracking-uri http://mlflow:5000",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model", required=True, help="s3://bucket/path or another modelUri; models:/NAME@ALIAS or models:/NAME/VERSION."
)
@click.option("--component", default=None, help="NAME or APPLICATION/NAME, where the file has several with a model.")
@click.option("--model-name", default=None, help="Which model, where the component has several (models).")
@click.option("--runtime-version", default=None, help="Set the component's runtimeVersion too.")
@click.option("--tracking-uri", default=None, help="The MLflow server for models:/; else MLFLOW_TRACKING_URI.")
@click.option(
    "--package",
    type=click.Path(path_type=Path),
    default=None,
    help="The package's folder on this machine, to be checked in the place of what the address holds.",
)
@click.option("--unchecked", is_flag=True, help="Don't look into the package.")
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit status 1 where the file would change.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would change.")
@click.option("--diff", is_flag=True, help="Write nothing; print the change as a unified diff.")
def promote_command(
    file: Path,
    model: str,
    component: str | None,
    model_name: str | None,
    runtime_version: str | None,
    tracking_uri: str | None,
    package: Path | None,
    *,
    unchecked: bool,
    only_check: bool,
    dry_run: bool,
    diff: bool,
) -> None:
    """Change the modelUri of a component in FILE, or the uri of one of its models, and not a byte more.

    The package is looked into first, where it can be read from here: s3:// and folders. FILE is written whole or not
    at all, and stays as it is when anything is wrong. The modelUri is printed, or with --diff the change.
    """
    shown = str(file)
    text = _text(file, shown)
    documents = parse_documents(text, shown)
    target = chosen(documents, shown, component)
    at = place_of_model(target, model_name)
    uri = _location(model, tracking_uri)
    wanted = {at: uri, **({"runtimeVersion": runtime_version} if runtime_version else {})}
    _refuse_unfit(wanted, target)
    changed = with_properties(text, target, wanted)
    if changed != text and not unchecked:
        _look_into(package, uri, target)
    if changed == text:
        click.echo(f"{shown}: {target.name} has {uri} already; nothing to do", err=True)
    if diff:
        show_diff(_diff(text, changed, shown))
    else:
        click.echo(uri)
    if changed == text:
        return
    if not (only_check or dry_run or diff):
        # Through a link, at the file that it leads to.
        write_whole(file.resolve(), changed, settled=True)
    would = "" if not (only_check or dry_run or diff) else "would be "
    for key, value in wanted.items():
        before = _at(target.properties, key)
        if before != value:
            what = key if model_name is None or key != at else f"uri of the model {model_name}"
            click.echo(
                f"{shown}: {what} of {target.name} {would}{'set' if before is None else 'changed'}: {value}", err=True
            )
    if only_check:
        sys.exit(1)


def _text(file: Path, shown: str) -> str:
    """With its line ends as they are."""
    try:
        return read_bytes(file, shown).decode("utf-8")
    except UnicodeDecodeError as error:
        raise VelagenError(Problem("can't be read: it is not UTF-8 text", Place(shown))) from error


def _location(model: str, tracking_uri: str | None) -> str:
    from velagen.promote.registry import is_registered, resolve

    if not is_registered(model):
        return model
    found = resolve(model, tracking_uri)
    click.echo(f"{model} is {found}: {found.uri}", err=True)
    return found.uri


def _refuse_unfit(wanted: dict[str, str], target: Component) -> None:
    """By the schema of the component: a scheme that KServe doesn't fetch, a tag that is none."""
    from velagen.promote.registry import SCHEMES
    from velagen.schema import load_schema, validate

    folders = [project.schemas for project in (_own_project(), Project.bundled()) if project is not None]
    file = next((file for folder in folders if (file := folder / f"{_type(target)}.json").is_file()), None)
    if file is None:
        return
    changed = copy.deepcopy(dict(target.properties))
    for key, value in wanted.items():
        above, _, last = key.rpartition("/")
        _at(changed, above)[last] = value
    found = validate(load_schema(file), changed)
    own = [one for one in found if (one.place.pointer or "").lstrip("/") in wanted]
    scheme = wanted.get(MODEL_URI, "").partition("://")[0]
    # A storage container of the cluster's own may fetch from anywhere. The definition says the same at render.
    if not own and MODEL_URI in wanted and "storageContainer" not in target.properties and scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        own = [Problem(f"modelUri must be a location that KServe can fetch: {known}", Place(pointer=f"/{MODEL_URI}"))]
    if own:
        places = {key: target.document.place(f"{target.at}/{key}") for key in wanted}
        raise VelagenError(replace(one, place=places[(one.place.pointer or "").lstrip("/")]) for one in own)


def _at(value: Any, path: str) -> Any:
    """What stands at a path of names and numbers, None where nothing does."""
    for part in path.split("/") if path else ():
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return value


def _own_project() -> Project | None:
    try:
        return Project.find()
    except VelagenError:
        return None


def _type(target: Component) -> str:
    value: Any = target.document.value
    for part in target.at.split("/")[1:-1]:
        value = value[int(part) if isinstance(value, list) else part]
    return str(value.get("type", ""))


def _look_into(package: Path | None, uri: str, target: Component) -> None:
    """Raise VelagenError where the package would not serve; say so where it can't be read from here."""
    from velagen.promote.reading import NotReadError, check_at

    runtime = target.properties.get("runtime")
    layout = runtime if isinstance(runtime, str) and runtime in _LAYOUTS else None
    try:
        report: ModelReport = check_at(str(package) if package is not None else uri, runtime=layout)
    except NotReadError as error:
        if package is not None:
            raise VelagenError(error.problems) from error
        problem = error.problems[0]
        hint = problem.hint or "--package DIR checks a copy on this machine"
        show_problems([replace(problem, message=f"not checked: {problem.message}", hint=hint, severity="warning")])
        return
    problems = [_at_address(one, report.directory, uri) for one in report.problems]
    if not report.serves:
        last = Problem(f"{uri} would not serve; the file stays as it is", hint="--unchecked writes it all the same")
        raise VelagenError([*problems, last])
    show_problems(problems)
    click.echo(f"{uri} will serve: {report.layout}", err=True)


def _at_address(problem: Problem, folder: Path, uri: str) -> Problem:
    """Its place in the address's words, not in those of the folder it was brought to."""
    file = problem.place.file
    if file is None or not file.startswith(str(folder)):
        return problem
    return replace(problem, place=replace(problem.place, file=uri + file[len(str(folder)) :]))


def _diff(old: str, new: str, name: str) -> str:
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
