"""What application files are checked against: a project as its files are now, or an addon's folder."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from velagen.check.kept import Kept
from velagen.definition.catalog import Catalog, of_addon, of_kubevela
from velagen.documents import Document, read_documents
from velagen.errors import Place, Problem, VelagenError
from velagen.project import Project

if TYPE_CHECKING:
    from velagen.definition.build import BuiltDefinition


@dataclass(frozen=True)
class Setting:
    """What the files are checked against."""

    project: Project | None
    #: What the project builds; empty where it was known already.
    built: tuple[BuiltDefinition, ...]
    #: By the version of each KubeVela that is asked.
    catalogs: Mapping[str, Catalog]

    @classmethod
    def find(cls, folder: Path | None, addon: Path | None, versions: Collection[str]) -> Setting:
        """Of a project or an addon folder. Raises VelagenError where neither is there, or the project fails."""
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
        wanted = list(files)
        if not wanted and self.project is not None:
            wanted = sorted((self.project.root / "examples").rglob("*.yaml"))
        found: list[Document] = []
        for file in wanted:
            try:
                documents = read_documents(file, short(str(file)))
            except VelagenError as error:
                problems += error.problems
                continue
            if not documents:
                problems.append(Problem("there is nothing in this file", Place(short(str(file)))))
            found += documents
        return found


def short(file: str) -> str:
    """A path as a person in the current folder would write it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else file
