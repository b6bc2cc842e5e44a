"""What a pickled model may import, for each runtime: imports.yaml, and what a table of runtimes adds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

_CLASSES: Final = "<classes>"
#: SciPy names the class of each distribution so.
_DISTRIBUTIONS: Final = "*_gen"
_CLASS: Final = re.compile(r"_?[A-Z]\w*")
#: Classes that many modules hand on and that are not models: one runs functions in processes, one makes classes.
_NO_MODELS: Final = frozenset(("Parallel", "ABCMeta"))


@dataclass(frozen=True)
class Imports:
    """The names that may be imported, and the modules that may be named as a whole."""

    exact: Mapping[str, frozenset[str]]
    #: Packages with all below them.
    below: Mapping[str, frozenset[str]]
    modules: frozenset[str]

    def allow(self, module: str, name: str) -> bool:
        """Whether ``name`` of ``module`` is listed. A name with dots must be listed with them."""
        if _match(self.exact.get(module, frozenset()), name):
            return True
        parts = module.split(".")
        if "tests" in parts:
            return False
        return any(_match(self.below.get(".".join(parts[:end]), frozenset()), name) for end in range(1, len(parts) + 1))

    def allow_module(self, name: str) -> bool:
        """Whether the module may be named as a whole."""
        return name in self.modules

    def with_more(self, names: Mapping[str, Iterable[str]]) -> Imports:
        """These and more: module (or ``package.*``) -> names."""
        return _read([{module: [*own] for module, own in names.items()}], self.modules, self)


def imports_for(runtime: str) -> Imports:
    """What a pickle for this runtime of the component may import; of an unknown one, what Python's own types need."""
    table = _table()
    groups = table["runtimes"].get(runtime, ["python"])
    return _read([table["groups"][group] for group in groups], frozenset(table["modules"]))


def _match(listed: frozenset[str], name: str) -> bool:
    if name in listed or "*" in listed:
        return True
    if _DISTRIBUTIONS in listed and re.fullmatch(r"\w+_gen", name):
        return True
    return _CLASSES in listed and name not in _NO_MODELS and _CLASS.fullmatch(name) is not None


def _read(tables: list[Mapping[str, list[str]]], modules: frozenset[str], onto: Imports | None = None) -> Imports:
    exact: dict[str, frozenset[str]] = dict(onto.exact) if onto else {}
    below: dict[str, frozenset[str]] = dict(onto.below) if onto else {}
    for table in tables:
        for module, names in table.items():
            kind, key = (below, module[:-2]) if module.endswith(".*") else (exact, module)
            kind[key] = kind.get(key, frozenset()) | frozenset(names)
    return Imports(exact, below, modules)


@cache
def _table() -> dict[str, Any]:
    text = (files("velagen.model") / "imports.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return table
