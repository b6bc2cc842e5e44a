"""Reads definitions/*.py: one module a definition, each with its schema beside it in schemas/."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from velagen.definition.model import AddonTemplate, Definition
from velagen.errors import Place, Problem, VelagenError
from velagen.project import Project
from velagen.schema import Schema, load_schema

#: The module that holds the addon's own template.
ADDON_MODULE = "addon"


@dataclass(frozen=True)
class Source:
    """A definition as it was written: the Python object, its module and its schema."""

    definition: Definition | AddonTemplate
    module: Path
    schema: Schema


def load_definitions(project: Project) -> tuple[Source, ...]:
    """All definitions of *project*, by file name; a module whose name starts with ``_`` is shared code.

    Raises VelagenError with every module that fails, holds no definition or several, or has no valid schema.
    """
    problems: list[Problem] = []
    sources: list[Source] = []
    names: dict[tuple[type, str], Path] = {}
    modules = sorted(path for path in project.definitions.glob("*.py") if not path.name.startswith("_"))
    if not modules:
        problems.append(Problem("there is no definition", Place(str(project.definitions))))
    for path in modules:
        try:
            definition = _definition_in(path)
            name = ADDON_MODULE if isinstance(definition, AddonTemplate) else definition.name
            first = names.setdefault((type(definition), name), path)
            if first != path:
                problems.append(Problem(f"{name} is already defined in {first.name}", Place(str(path))))
            sources.append(Source(definition, path, load_schema(project.schemas / f"{name}.json")))
        except VelagenError as error:
            problems.extend(error.problems)
    if problems:
        raise VelagenError(problems)
    return tuple(sources)


def _definition_in(path: Path) -> Definition | AddonTemplate:
    spec = importlib.util.spec_from_file_location(f"velagen_definitions.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise VelagenError(Problem("this is no Python module", Place(str(path))))
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    # Shared code lies beside the definitions; another project's modules of the same name must not be taken for it.
    sys.path.insert(0, folder)
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise VelagenError(_failure(path, error)) from error
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(folder)
        for name, loaded in list(sys.modules.items()):
            file = getattr(loaded, "__file__", None)
            if file and Path(file).parent == path.parent:
                del sys.modules[name]
    kinds = Definition | AddonTemplate
    found = {id(value): value for value in vars(module).values() if isinstance(value, kinds)}
    if len(found) != 1:
        what = "no definition" if not found else f"{len(found)} definitions"
        raise VelagenError(
            Problem(
                f"the module holds {what}; it takes one Component, Trait, Policy, WorkflowStep or AddonTemplate",
                Place(str(path)),
            )
        )
    (definition,) = found.values()
    return definition


def _failure(path: Path, error: Exception) -> Problem:
    """Where in the definition it went wrong, not where in velagen."""
    if isinstance(error, SyntaxError):
        return Problem(f"no Python: {error.msg}", Place(str(path), error.lineno, error.offset))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = frames[-1].lineno if frames else None
    return Problem(f"{type(error).__name__}: {error}", Place(str(path), line))
