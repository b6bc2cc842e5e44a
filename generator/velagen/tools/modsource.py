"""A module's files without Go: out of the archive of its source, held against the content hash that go.sum pins.

The archive of a tag holds more than the module. What belongs to it, and how it is hashed, is Go's rule:
golang.org/x/mod zip/zip.go and sumdb/dirhash/hash.go.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from velagen.errors import Problem, VelagenError
from velagen.tools.fetch import RoadClosedError, receive
from velagen.tools.report import Reporter
from velagen.tools.table import Source

#: The release of Go that corrected which files of vendor folders belong to a module.
_CORRECTED = (1, 24)


def unpack(row: Source, folder: Path, pinned: str, reporter: Reporter) -> Path:
    """Bring the files of a module into a folder.

    Args:
        folder: a new folder in it is what is given.
        pinned: its content hash, ``h1:...``.

    Raises:
        VelagenError: the archive can't be downloaded, or holds another content.
    """
    target = folder / f"{row.name}-{row.version}"
    if target.is_dir():
        return target
    url = row.archive.format(version=row.version)
    reporter.say(f"{row.module} {row.version}: downloading {url}, since there is no Go here to bring it")
    part = folder / f"{target.name}.tar.gz.part"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        receive(url, part, reporter, label=row.name)
        with tarfile.open(part) as archive:
            files = dict(_files(archive))
            got = _written(archive, files, f"{row.module}@{row.version}", aside := folder / f".{target.name}")
    except RoadClosedError as error:
        hint = "Check the network, or install Go, which takes it from the module proxy."
        raise VelagenError(Problem(f"{row.module} {row.version} can't be downloaded: {error}", hint=hint)) from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        # The next try begins anew: with what is there it would end here again.
        part.unlink(missing_ok=True)
        raise VelagenError(Problem(f"{url} is not an archive that Python can read: {error}")) from error
    part.unlink()
    if got != pinned:
        shutil.rmtree(aside)
        hint = "Something between you and the publisher changed it; with Go installed it comes from the module proxy."
        raise VelagenError(Problem(f"{url}: its content hash is {got}, but {pinned} is pinned", hint=hint))
    aside.replace(target)
    return target


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The module's files by their path in it; the archive's one top folder is left out."""
    entries = {
        str(PurePosixPath(*path.parts[1:])): entry
        for entry in archive.getmembers()
        if entry.isfile() and len((path := PurePosixPath(entry.name)).parts) > 1 and ".." not in path.parts
    }
    modules = {str(PurePosixPath(name).parent) for name in entries if PurePosixPath(name).name == "go.mod"} - {"."}
    release = _go_release(archive, entries)
    for name, entry in entries.items():
        nested = any(str(parent) in modules for parent in PurePosixPath(name).parents)
        if not nested and not _vendored(name, release) and name != ".hg_archival.txt":
            yield name, entry


def _go_release(archive: tarfile.TarFile, entries: Mapping[str, tarfile.TarInfo]) -> tuple[int, int]:
    """The release of Go that the module names, by which the rule for vendor folders goes."""
    stream = archive.extractfile(entries["go.mod"]) if "go.mod" in entries else None
    found = re.search(rb"^go\s+(\d+)\.(\d+)", stream.read(), re.MULTILINE) if stream else None
    return (int(found[1]), int(found[2])) if found else (1, 16)


def _vendored(name: str, release: tuple[int, int]) -> bool:
    """Source: isVendoredPackage of golang.org/x/mod zip/zip.go, with what releases before 1.24 got wrong."""
    if release >= _CORRECTED and name == "vendor/modules.txt":
        return True
    if name.startswith("vendor/"):
        return "/" in name[len("vendor/") :]
    inside = name.find("/vendor/")
    if inside < 0:
        return False
    return "/" in name[(inside if release >= _CORRECTED else 0) + len("/vendor/") :]


def _written(archive: tarfile.TarFile, files: Mapping[str, tarfile.TarInfo], prefix: str, folder: Path) -> str:
    """Write the files, and give their hash. Source: Hash1 of golang.org/x/mod sumdb/dirhash/hash.go."""
    shutil.rmtree(folder, ignore_errors=True)
    sums = {}
    for name, entry in files.items():
        stream = archive.extractfile(entry)
        content = stream.read() if stream else b""
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sums[f"{prefix}/{name}"] = hashlib.sha256(content).hexdigest()
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(sums.items(), key=lambda one: one[0].encode()))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()
