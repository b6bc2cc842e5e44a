"""A repository that velagen builds: metadata.yaml, schemas/, definitions/, addon/."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from velagen.errors import Place, Problem, VelagenError


@dataclass(frozen=True)
class Project:
    """The folder that holds metadata.yaml."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project that *start* (default: the current folder) lies in.

        Raises VelagenError where no folder up to the root has a metadata.yaml beside a definitions folder.
        """
        origin = (start or Path.cwd()).resolve()
        for folder in (origin, *origin.parents):
            if (folder / "metadata.yaml").is_file() and (folder / "definitions").is_dir():
                return cls(folder)
        raise VelagenError(
            Problem(
                f"no metadata.yaml beside a definitions folder in {origin} or above it",
                hint="run this inside a project, or name it with --project",
            )
        )

    @classmethod
    def bundled(cls) -> Project | None:
        """The project that comes with velagen: in its package, or in the repository it runs from; None in neither."""
        package = Path(__file__).resolve().parent
        for root in (package / "bundled", package.parents[1]):
            if (root / "metadata.yaml").is_file() and (root / "addon").is_dir():
                return cls(root)
        return None

    @property
    def schemas(self) -> Path:
        """Where the JSON Schemas are, one a definition."""
        return self.root / "schemas"

    @property
    def crds(self) -> Path:
        """Where the CustomResourceDefinitions are that the definitions write objects of; there may be none."""
        return self.root / "crds"

    @property
    def definitions(self) -> Path:
        """Where the definitions are, one Python module each."""
        return self.root / "definitions"

    @property
    def addon(self) -> Path:
        """Where the addon is generated: the folder must bear the addon's name (kubevela references/cli/addon.go)."""
        return self.root / "addon" / self.name

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """metadata.yaml: what KubeVela's addon metadata holds.

        Raises VelagenError where it is not a YAML map, or has no name or version.
        """
        path = self.root / "metadata.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
            raise VelagenError(Problem(f"invalid YAML: {error.problem}", Place(str(path), line, column))) from error
        if not isinstance(content, dict):
            raise VelagenError(Problem("a map with name, version and description is needed", Place(str(path))))
        missing = [key for key in ("name", "version", "description") if not isinstance(content.get(key), str)]
        if missing:
            raise VelagenError(
                Problem(f"{key} is missing, or no text", Place(str(path), pointer=f"/{key}")) for key in missing
            )
        return content

    @property
    def name(self) -> str:
        """The addon's name."""
        return str(self.metadata["name"])
