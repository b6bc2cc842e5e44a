"""What an image is made of, as data, and the name its content gives it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from velagen.errors import Problem, VelagenError

HERE = Path(__file__).parent

#: Where images live that nobody publishes.
OURS = "velagen.local/"
#: Part of every hash: raised when the assembler itself makes other images from the same recipe.
FORMAT = 1


@dataclass(frozen=True)
class Part:
    """One thing that is put into the file system; exactly one of its sources is given."""

    #: Absolute path in the image.
    path: str
    #: A tool of the table: ``name``, or ``name@version`` where it is not the default.
    tool: str | None = None
    #: A file or folder of a pinned upstream module: ``kind:images/base/files``.
    upstream: str | None = None
    #: A file or folder beside the recipes.
    beside: str | None = None
    #: A file or folder of velagen's own package: ``gpusim``.
    package: str | None = None
    #: The content itself.
    text: str | None = None
    #: Where a symbolic link points.
    link: str | None = None
    #: A folder, with nothing in it.
    folder: bool = False
    #: Permission bits; None = 0755 for tools and folders, 0644 for text, kept for the rest.
    mode: int | None = None
    #: Glob patterns under an upstream folder that are left out.
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = [self.tool, self.upstream, self.beside, self.package, self.text, self.link, self.folder or None]
        if sum(value is not None for value in given) != 1:
            raise ValueError(f"{self.path}: give exactly one of tool, upstream, beside, package, text, link, folder")
        if not self.path.startswith("/"):
            raise ValueError(f"{self.path}: a path in an image is absolute")


@dataclass(frozen=True)
class Recipe:
    """One image."""

    name: str
    #: The references it answers to, such as ``registry.example/name:tag``; the first is its own.
    references: tuple[str, ...]
    about: str = ""
    #: What a registry has in its stead; None = the first reference.
    official: str | None = None
    #: Another recipe whose layers come first.
    base: str | None = None
    #: Debian packages of an operating system made from nothing; None = there is none (FROM scratch).
    packages: tuple[str, ...] | None = None
    parts: tuple[Part, ...] = ()
    #: Requirements for pip, installed to `site`.
    python: tuple[str, ...] = ()
    #: Requirements that are installed without what they depend on.
    python_alone: tuple[str, ...] = ()
    #: What locks/NAME.txt beside the recipes says of these packages: each with its version and hashes.
    lock: str = ""
    #: Glob patterns under `SITE` of what these packages bring in vain; folders named ``tests`` always go.
    without: tuple[str, ...] = ()
    #: Shell commands run inside the file system; only where it has an operating system.
    run: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    stop_signal: str = ""
    #: Disk that assembling it takes at most, in GB: file system, layer and tar file.
    gigabytes: float = 0.5

    @property
    def ours(self) -> bool:
        """Whether no registry has it."""
        return self.official is None and self.references[0].startswith(OURS)


#: Where pip puts packages in an image that has Python.
SITE = "/usr/local/lib/python3.11/dist-packages"
#: The Python of Debian bookworm.
PYTHON = (3, 11)
#: The Debian release every image with an operating system is made of.
SUITE = "bookworm"


@dataclass(frozen=True)
class Recipes:
    """All recipes, by name."""

    images: Mapping[str, Recipe]

    def __getitem__(self, name: str) -> Recipe:
        """Give a recipe.

        Raises:
            VelagenError: there is none of that name.
        """
        try:
            return self.images[name]
        except KeyError:
            raise VelagenError(
                Problem(f"no image is called {name!r}", hint=f"Known images: {', '.join(self.images)}.")
            ) from None

    def chain(self, name: str) -> list[Recipe]:
        """Give a recipe and those it stands on, the lowest first."""
        recipe = self[name]
        return [*(self.chain(recipe.base) if recipe.base else []), recipe]

    def key(self, name: str, identify: Callable[[Part], str]) -> str:
        """Give the twelve hex digits that name the content of one image.

        Args:
            identify: what a part's content is known by, such as a tool's version or a file's hash.
        """
        recipe = self[name]
        content = asdict(recipe)
        # What it is for, and what a registry has, does not change what is in it.
        for key in ("about", "official", "gigabytes"):
            del content[key]
        content["parts"] = [[_content(part), identify(part)] for part in recipe.parts]
        content["base"] = self.key(recipe.base, identify) if recipe.base else None
        content["format"] = FORMAT
        if recipe.python or recipe.python_alone:
            content["bytecode"] = True
            content["tests"] = False
        if not recipe.lock:
            del content["lock"]
        if not recipe.without:
            del content["without"]
        content["suite"] = SUITE if recipe.packages is not None else None
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _content(part: Part) -> dict[str, Any]:
    content = asdict(part)
    # Younger than the first images: without one the key is what it was.
    if part.package is None:
        del content["package"]
    return content


def read_recipes(path: Path) -> Recipes:
    """Read a table of recipes.

    Args:
        path: a TOML file of the form of recipes.toml; locks of Python packages are in the folder locks beside it.

    Raises:
        ValueError: a recipe has an unknown key, a part without exactly one source, or a base that is not there.
    """
    images: dict[str, Recipe] = {}
    for name, data in tomllib.loads(path.read_text()).items():
        lock = path.parent / "locks" / f"{name}.txt"
        images[name] = _recipe(name, data, lock.read_text(encoding="utf-8") if lock.is_file() else "")
    for recipe in images.values():
        seen = {recipe.name}
        at = recipe
        while at.base is not None:
            if at.base not in images:
                raise ValueError(f"{at.name}: its base {at.base} is not in the table")
            at = images[at.base]
            if at.name in seen:
                raise ValueError(f"{recipe.name}: it stands on itself")
            seen.add(at.name)
        if recipe.run and not any(step.packages is not None for step in _walk(images, recipe)):
            raise ValueError(f"{recipe.name}: commands need an operating system to run in")
    return Recipes(images)


def _walk(images: Mapping[str, Recipe], recipe: Recipe) -> list[Recipe]:
    return [*(_walk(images, images[recipe.base]) if recipe.base else []), recipe]


def _recipe(name: str, data: dict[str, Any], lock: str) -> Recipe:
    options = dict(data)
    parts = [_part(part) for part in options.pop("part", [])]
    for key, value in options.items():
        if isinstance(value, list):
            options[key] = tuple(value)
    try:
        return Recipe(name=name, parts=tuple(parts), lock=lock, **options)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _part(data: dict[str, Any]) -> Part:
    options = dict(data)
    if "without" in options:
        options["without"] = tuple(options["without"])
    if isinstance(options.get("mode"), str):
        options["mode"] = int(options["mode"], 8)
    return Part(**options)


@cache
def recipes() -> Recipes:
    """Give the recipes that ship with velagen, read once."""
    return read_recipes(HERE / "recipes.toml")
