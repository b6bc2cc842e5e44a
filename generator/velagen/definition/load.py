"""Reads definitions/*.py: one module a definition, each with its schema beside it in schemas/."""

from __future__ import annotations

import ast
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
from typing import TypeVar

import yaml

from velagen.definition.form import check_form, check_name
from velagen.definition.model import AddonTemplate, Definition
from velagen.errors import Place, Problem, VelagenError
from velagen.project import Project
from velagen.schema import Schema, load_schema
from velagen.template.expression import readable
from velagen.template.places import Key, Spot, blamed, column_of, sentence

_Made = TypeVar("_Made", bound=ast.AST)

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
    from velagen.check.catalog import builtin_names

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

        vars(module)[_KEY] = key
        super().exec_module(module)


@lru_cache(maxsize=200)
def _compiled(source: bytes, file: str) -> CodeType:
    """A module's code; kept, since each definition that uses shared code loads it for itself."""
    tree = _Rewriter().visit(ast.parse(source, file))
    return compile(tree, file, "exec", dont_inherit=True)


_KEY = "__velagen_key__"


class _Rewriter(ast.NodeTransformer):
    """Says to the words of a template what Python does not.

    ``{"a": 1}`` becomes ``{key("a", line, column, last line): 1}``, ``x = let(v)`` becomes ``x = let(v, name="x")``,
    and ``choose(k, TABLE)`` becomes ``choose(k, TABLE, name="TABLE")``.
    """

    def visit_Dict(self, node: ast.Dict) -> ast.AST:  # named as the node is
        self.generic_visit(node)
        node.keys = [self._placed(key, value) for key, value in zip(node.keys, node.values, strict=True)]
        return node

    def _placed(self, key: ast.expr | None, value: ast.expr) -> ast.expr | None:
        is_text = isinstance(key, ast.JoinedStr | ast.Name | ast.Attribute) or (
            isinstance(key, ast.Constant) and isinstance(key.value, str)
        )
        if key is None or not is_text:
            return key
        until = value.end_lineno or value.lineno
        spot = [ast.Constant(number) for number in (key.lineno, key.col_offset, until)]
        return _put(ast.Call(ast.Name(_KEY, ast.Load()), [key, *spot], []), key)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        named = any(one.arg == "name" for one in node.keywords)
        if _called(node) == "choose" and len(node.args) > 1 and isinstance(node.args[1], ast.Name) and not named:
            node.keywords.append(_put(ast.keyword("name", ast.Constant(node.args[1].id)), node))
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        for target in node.targets:
            self._name(target, node.value)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None:
            self._name(node.target, node.value)
        return node

    def _name(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for one, its in zip(target.elts, value.elts, strict=True):
                self._name(one, its)
        elif isinstance(target, ast.Name) and isinstance(value, ast.Call) and _has_no_name(value):
            value.keywords.append(_put(ast.keyword("name", ast.Constant(target.id)), value))


def _put(made: _Made, at: ast.expr) -> _Made:
    """What was *made* at the place of another node; the rest of the tree has its places."""
    return ast.fix_missing_locations(ast.copy_location(made, at))


def _has_no_name(call: ast.Call) -> bool:
    """Whether it is an intermediate or a look-up that is called as the variable it is assigned to."""
    if any(one.arg in {"name", None} for one in call.keywords):
        return False
    return (_called(call) == "let" and len(call.args) == 1) or _called(call) == "choose"


def _called(call: ast.Call) -> str:
    called = call.func
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""


def _represented(dumper: yaml.representer.SafeRepresenter, key: Key) -> yaml.Node:
    return dumper.represent_str(str(key))


# A definition may dump a dict of its own, whose keys are texts to it.
yaml.representer.SafeRepresenter.add_representer(Key, _represented)
yaml.representer.Representer.add_representer(Key, _represented)
for _dumper in (yaml.SafeDumper, yaml.Dumper, yaml.CSafeDumper, yaml.CDumper):
    _dumper.add_representer(Key, _represented)
