"""Reads definitions/*.py: one module a definition, each with its schema beside it in schemas/."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

import yaml

from velagen.definition.form import check_form, check_name
from velagen.definition.model import AddonTemplate, Definition
from velagen.definition.rewrite import GUARDS, KEY, rewritten
from velagen.errors import Place, Problem, VelagenError
from velagen.project import Project
from velagen.schema import Schema, load_schema
from velagen.template.expression import readable
from velagen.template.places import Key, Spot, blamed, column_of, sentence

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
    # The catalogue is of the checks, which few of the modules here need.
    from velagen.definition.catalog import builtin_names

    problems: list[Problem] = []
    sources: list[Source] = []
    names: dict[tuple[type, str], Path] = {}
    modules = sorted(path for path in project.definitions.glob("*.py") if not path.name.startswith("_"))
    if not modules:
        problems.append(Problem("there is no definition", Place(str(project.definitions))))
    for path in modules:
        try:
            definition = _definition_in(path)
            wrong = check_form(definition)
            if not wrong and not isinstance(definition, AddonTemplate):
                wrong = check_name(definition, builtin_names)
            problems += wrong
            if wrong:
                continue
            name = ADDON_MODULE if isinstance(definition, AddonTemplate) else definition.name
            first = names.setdefault((type(definition), name), path)
            if first != path:
                problems.append(Problem(f"{name} is already defined in {first.name}", Place(str(path))))
            schema = project.schemas / f"{name}.json"
            if not schema.is_file():
                place = Place(definition.place.file, definition.place.line, definition.place.column)
                hint = f"write schemas/{schema.name}: a JSON Schema of what a user may write"
                problems.append(Problem(f"{name} has no schema", place, hint))
                continue
            sources.append(Source(definition, path, load_schema(schema)))
        except VelagenError as error:
            problems.extend(error.problems)
    if problems:
        raise VelagenError(problems)
    return tuple(sources)


def _definition_in(path: Path) -> Definition | AddonTemplate:
    name = f"velagen_definitions.{path.stem}"
    spec = importlib.util.spec_from_loader(name, _Loader(name, path), origin=str(path))
    if spec is None:
        raise VelagenError(Problem("this is not a Python module", Place(str(path))))
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    with _importing_from(path.parent):
        try:
            _execute(spec, module)
        except VelagenError:
            raise
        except (Exception, SystemExit) as error:
            raise VelagenError(_failure(path, error)) from error
    kinds = Definition | AddonTemplate
    found = {id(value): value for value in vars(module).values() if isinstance(value, kinds)}
    if len(found) != 1:
        what = "no definition" if not found else f"{len(found)} definitions"
        second = list(found.values())[1].place if found else Place(str(path))
        raise VelagenError(
            Problem(
                f"the module holds {what}; it takes one Component, Trait, Policy, WorkflowStep or AddonTemplate",
                Place(second.file, second.line, second.column),
                "a module for each; shared code goes into a module whose name starts with _",
            )
        )
    (definition,) = found.values()
    return definition


def _execute(spec: ModuleSpec, module: ModuleType) -> None:
    if spec.loader is not None:
        spec.loader.exec_module(module)


def _failure(path: Path, error: BaseException) -> Problem:
    """Where in the definition it went wrong, not where in velagen."""
    if isinstance(error, SyntaxError):
        return Problem(f"invalid Python: {error.msg}", Place(error.filename or str(path), error.lineno, error.offset))
    spot = blamed(error, path.parent)
    what = "the module ends the program" if isinstance(error, SystemExit) else readable(sentence(error))
    hint = ""
    if spot.file and Path(spot.file) != path:
        hint = f"used by {path.name}"
    return Problem(what, Place(spot.file or str(path), spot.line, spot.column), hint)


# ---------------------------------------------------------------- modules whose dicts know where they stand


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Shared code lies beside the definitions; another project's modules of the same name must not be taken for it."""
    finder = _Finder(folder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, loaded in list(sys.modules.items()):
            file = getattr(loaded, "__file__", None)
            if file and os.path.dirname(file) == str(folder):  # noqa: PTH120  # for every module there is
                del sys.modules[name]


class _Finder(MetaPathFinder):
    """Finds the modules of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002  # importlib's signature
    ) -> ModuleSpec | None:
        file = self._folder / f"{fullname}.py"
        if path is not None or not file.is_file():
            return None
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, file))


class _Loader(SourceLoader):
    """Compiles a module so that the keys of its dicts know their places, and intermediates their variables' names."""

    def __init__(self, fullname: str, path: Path) -> None:
        self._fullname, self._path = fullname, path

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002  # a loader a module
        return str(self._path)

    def get_data(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # importlib's signature
        # Neither written to __pycache__ nor read from there.
        return _compiled(self._path.read_bytes(), str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        file = str(self._path)

        def key(text: object, line: int, column: int, until: int) -> object:
            spot = Spot(file, line, column_of(file, line, column), until=until)
            return Key(text, spot) if isinstance(text, str) else text

        vars(module).update({KEY: key, **GUARDS})
        super().exec_module(module)


@lru_cache(maxsize=200)
def _compiled(source: bytes, file: str) -> CodeType:
    """A module's code; kept, since each definition that uses shared code loads it for itself."""
    return compile(rewritten(source, file), file, "exec", dont_inherit=True)


def _represented(dumper: yaml.representer.SafeRepresenter, key: Key) -> yaml.Node:
    return dumper.represent_str(str(key))


# A definition may dump a dict of its own, whose keys are texts to it.
yaml.representer.SafeRepresenter.add_representer(Key, _represented)
yaml.representer.Representer.add_representer(Key, _represented)
for _dumper in (yaml.SafeDumper, yaml.Dumper, yaml.CSafeDumper, yaml.CDumper):
    _dumper.add_representer(Key, _represented)
