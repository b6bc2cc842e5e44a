"""What is in the model servers' images, from runtimes.yaml or a file of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import yaml
from packaging.version import Version

from velagen.errors import Place, Problem, VelagenError

#: Import name -> distribution, where they differ.
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow", "cv2": "opencv-python"}


@dataclass(frozen=True)
class Runtime:
    """One model server: name to show, Python, and the versions of its packages."""

    name: str
    python: Version
    packages: Mapping[str, Version]
    others: frozenset[str]
    #: What its pickles may import beside imports.yaml: module (or ``package.*``) -> names.
    imports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def has(self, distribution: str) -> bool:
        """Whether the image holds the distribution (normalised name)."""
        return distribution in self.packages or distribution in self.others


def distribution_of(module: str) -> str:
    """The distribution that gives import name ``module``: ``sklearn.svm`` -> ``scikit-learn``."""
    top = module.partition(".")[0]
    return _DISTRIBUTIONS.get(top, top.lower().replace("_", "-"))


def load_runtimes(path: Path | None = None) -> dict[str, Runtime]:
    """Runtime of the component -> what it holds; VelagenError when the file at ``path`` is not of that form."""
    resource = files("velagen.model") / "runtimes.yaml" if path is None else path
    try:
        document = yaml.safe_load(resource.read_text(encoding="utf-8"))
        return {
            str(key): Runtime(
                str(entry["name"]),
                Version(str(entry["python"])),
                {str(name): Version(str(version)) for name, version in (entry.get("packages") or {}).items()},
                frozenset(map(str, entry.get("others") or ())),
                {str(module): tuple(map(str, names)) for module, names in (entry.get("imports") or {}).items()},
            )
            for key, entry in document.items()
        }
    except (OSError, yaml.YAMLError, AttributeError, TypeError, KeyError, ValueError, RecursionError) as error:
        message = f"not a table of runtimes: {type(error).__name__}: {error}"
        raise VelagenError(Problem(message, Place(str(resource)), "see velagen/model/runtimes.yaml")) from error
