"""The table of tools (table.toml) as data classes, checked when it is read."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from velagen.errors import Problem, VelagenError

#: The folder table.toml and modules/ are in.
HERE = Path(__file__).parent

_ARCH = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}


@dataclass(frozen=True)
class Digest:
    """A pinned checksum."""

    algorithm: Literal["sha256", "sha512"]
    #: Lower-case hex.
    value: str


@dataclass(frozen=True)
class Release:
    """An official download."""

    #: Template; {version}, {os} and {arch} are filled in.
    url: str
    #: Path of the binary inside the archive; without one the download is the binary. A leading folder may be left out.
    member: str | None
    #: Rough size of the download, for the person who waits.
    megabytes: float
    #: Checksum per platform ("linux-amd64").
    digests: Mapping[str, Digest] = field(default_factory=dict)
    #: Template of the address of the release's own list of sha256 checksums, for a platform that is not in *digests*:
    #: what it says is kept in the lock file. A platform with neither has no release road.
    checksums: str = ""


@dataclass(frozen=True)
class Image:
    """A container image that holds the binary: taken by digest."""

    #: ``host/repository``.
    repository: str
    #: Absolute path of the binary inside the image.
    member: str
    #: ``sha256:...`` of the manifest or of the index, per platform.
    digests: Mapping[str, str] = field(default_factory=dict)
    #: Template of the tag, for a platform that is not in *digests*: its digest is kept in the lock file.
    tag: str = ""


@dataclass(frozen=True)
class Build:
    """How the Go toolchain makes it."""

    package: str
    #: Folder under tools/modules/, or None for Go code of our own.
    module: str | None = None
    #: Folder inside the velagen package that holds Go code of our own.
    local: str | None = None
    modfile: str | None = None
    tags: tuple[str, ...] = ()
    ldflags: str = ""
    #: Cold build on two cores.
    minutes: float = 1.0
    #: What the build cache may take.
    gigabytes: float = 1.0


@dataclass(frozen=True)
class Row:
    """One tool in one version."""

    name: str
    version: str
    default: bool
    about: str
    #: Arguments that make it print its version; empty where it can't say, and then PATH is not looked at.
    ask: tuple[str, ...]
    #: Regular expression whose first group is the version.
    answer: str
    release: Release | None = field(compare=False)
    image: Image | None = field(compare=False)
    build: Build | None = field(compare=False)
    #: Needed for kind clusters only: brought when one starts, not with the others.
    kind: bool = field(default=False, compare=False)
    #: Needed for this alone (keda, knative: layers of a kind cluster; istio: tests of its routes): brought where it
    #: is asked for, not with the others.
    layer: str = field(default="", compare=False)

    def __str__(self) -> str:
        """``etcd 3.6.5``."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Source:
    """One upstream module that is read, not built."""

    name: str
    module: str
    version: str
    #: The folder under modules/ whose go.sum pins the content.
    pinned_in: str
    #: Template of the address of its source as a tar.gz, for a machine without Go; {version} is filled in.
    archive: str


@dataclass(frozen=True)
class Table:
    """All rows."""

    tools: tuple[Row, ...]
    sources: tuple[Source, ...]

    def row(self, name: str, version: str | None = None) -> Row:
        """Give the row of a tool.

        Args:
            version: None = the one marked as default.

        Raises:
            VelagenError: there is no such row; the message lists what there is.
        """
        rows = [row for row in self.tools if row.name == name]
        if not rows:
            names = ", ".join(dict.fromkeys(row.name for row in self.tools))
            raise VelagenError(Problem(f"no tool is called {name!r}", hint=f"Known tools: {names}."))
        for row in rows:
            if row.version == version or (version is None and row.default):
                return row
        versions = ", ".join(row.version for row in rows)
        raise VelagenError(
            Problem(f"{name} {version} is not in the table of tools", hint=f"Pinned versions: {versions}.")
        )

    def source(self, name: str, version: str | None = None) -> Source:
        """Give the row of a source module.

        Args:
            version: without its ``v``; None = the first row of that name.

        Raises:
            VelagenError: there is no such row.
        """
        rows = [row for row in self.sources if row.name == name]
        if not rows:
            names = ", ".join(dict.fromkeys(row.name for row in self.sources))
            raise VelagenError(Problem(f"no source is called {name!r}", hint=f"Known sources: {names}."))
        for row in rows:
            if version is None or row.version == f"v{version}":
                return row
        versions = ", ".join(row.version.removeprefix("v") for row in rows)
        raise VelagenError(
            Problem(f"{name} {version} is not in the table of sources", hint=f"Pinned versions: {versions}.")
        )


def wanted(text: str) -> tuple[str, str | None]:
    """Give name and version of a tool written ``name`` or ``name@version``; the version is None where it says none."""
    name, _, version = text.partition("@")
    return name, version or None


def this_platform() -> str:
    """Give this machine's platform in Go's words, such as ``linux-amd64``."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{_ARCH.get(machine, machine)}"


def _digests(data: Mapping[str, Any]) -> dict[str, Digest]:
    found: dict[str, Digest] = {}
    for algorithm, length in (("sha256", 64), ("sha512", 128)):
        for where, value in data.get(algorithm, {}).items():
            if len(value) != length or set(value) - set("0123456789abcdef"):
                raise ValueError(f"{where}: not a {algorithm} in lower-case hex: {value}")
            found[where] = Digest("sha256" if algorithm == "sha256" else "sha512", value)
    return found


def _row(data: Mapping[str, Any], archives: Mapping[str, Mapping[str, Any]]) -> Row:
    release: Release | None = None
    if "release" in data:
        what = data["release"]
        where = archives[what["archive"]] if "archive" in what else what
        release = Release(
            where["url"], what.get("member"), float(where["megabytes"]), _digests(where), where.get("checksums", "")
        )
    image: Image | None = None
    if "image" in data:
        what = data["image"]
        image = Image(what["repository"], what["member"], what.get("digest", {}), what.get("tag", ""))
    build: Build | None = None
    if "build" in data:
        options = dict(data["build"])
        options["tags"] = tuple(options.get("tags", ()))
        build = Build(**options)
    return Row(
        name=data["name"],
        version=data["version"],
        default=data.get("default", False),
        about=data.get("about", ""),
        ask=tuple(data.get("ask", ())),
        answer=data.get("answer", ""),
        release=release,
        image=image,
        build=build,
        kind=data.get("kind", False),
        layer=data.get("layer", ""),
    )


def read_table(path: Path) -> Table:
    """Read a table of tools.

    Args:
        path: a TOML file of the form of table.toml.

    Raises:
        ValueError: a checksum is malformed.
    """
    data = tomllib.loads(path.read_text())
    archives = {archive["name"]: archive for archive in data.get("archive", ())}
    return Table(
        tools=tuple(_row(row, archives) for row in data.get("tool", ())),
        sources=tuple(Source(**row) for row in data.get("source", ())),
    )


@cache
def table() -> Table:
    """Give the table that ships with velagen, read once."""
    return read_table(HERE / "table.toml")
