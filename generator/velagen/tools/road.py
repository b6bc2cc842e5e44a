"""The one road to a tool: PATH, velagen's cache, the official release, the container image, the Go toolchain."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from velagen.errors import Problem, VelagenError
from velagen.tools import gobuild, image, lock, modsource
from velagen.tools.fetch import RoadClosedError, download, extract, published_checksum
from velagen.tools.report import Reporter
from velagen.tools.table import HERE, Digest, Image, Release, Row, Source, Table, table, this_platform

ROADS = ("path", "cache", "release", "image", "build")


def cache_dir() -> Path:
    """Give velagen's cache folder: $VELAGEN_CACHE, else ~/.cache/velagen. It may not exist yet."""
    named = os.environ.get("VELAGEN_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "velagen"


def roads() -> frozenset[str]:
    """Give the roads that may be taken: all, or those named in $VELAGEN_ROADS (comma separated).

    Raises:
        VelagenError: a name in it is not a road.
    """
    named = os.environ.get("VELAGEN_ROADS")
    if not named:
        return frozenset(ROADS)
    chosen = frozenset(part.strip() for part in named.split(",") if part.strip())
    if unknown := sorted(chosen - set(ROADS)):
        raise VelagenError(
            Problem(f"VELAGEN_ROADS names no road: {', '.join(unknown)}", hint=f"Roads: {', '.join(ROADS)}.")
        )
    return chosen


def tool(name: str, version: str | None = None) -> Path:
    """Give the path of a runnable tool, and bring it first where it is missing.

    Args:
        version: None = the pinned default.

    Raises:
        VelagenError: no such tool, or no road leads to it here; says what to do.
    """
    return install([(name, version)])[0]


def install(
    wanted: Iterable[tuple[str, str | None]], *, reporter: Reporter | None = None, rows: Table | None = None
) -> list[Path]:
    """Give the paths of several tools, and bring those that are missing; their builds share one build cache.

    Args:
        wanted: (name, version or None) pairs.
        rows: another table than the one that ships, for a test.

    Returns:
        paths in the same order.

    Raises:
        VelagenError: as `tool`; what was brought before the failure stays.
    """
    known = rows or table()
    asked = [known.row(name, version) for name, version in wanted]
    allowed = roads()
    found: dict[Row, Path] = {}
    for row in asked:
        path = on_path(row) if "path" in allowed else None
        if path is None and "cache" in allowed:
            path = in_cache(row)
        if path is not None:
            found[row] = path
    missing = [row for row in dict.fromkeys(asked) if row not in found]
    if missing:
        found.update(_bring(missing, allowed, reporter or Reporter(), known))
    return [found[row] for row in asked]


def without_go(wanted: Iterable[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Those of the (name, version or None) pairs to which some road leads here, be it without Go: all where Go is."""
    pairs = list(wanted)
    if shutil.which("go"):
        return pairs
    rows = [table().row(name, version) for name, version in pairs]
    return [
        pair
        for pair, row in zip(pairs, rows, strict=True)
        if row.release is not None or row.image is not None or in_cache(row) or on_path(row)
    ]


def on_path(row: Row) -> Path | None:
    """Give the tool on PATH, if it is exactly the pinned version."""
    path = shutil.which(row.name)
    if path is None or not row.ask:
        return None
    status = Path(path).stat()
    return (
        Path(path) if _version(path, status.st_mtime_ns, status.st_size, row.ask, row.answer) == row.version else None
    )


@lru_cache(maxsize=64)
def _version(path: str, mtime: int, size: int, ask: tuple[str, ...], answer: str) -> str | None:  # noqa: ARG001 - part of the key
    """Ask a binary for its version; None where it doesn't say."""
    # vela asks the cluster for its version too: it is shown none.
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    try:
        done = subprocess.run(
            [path, *ask],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(answer, done.stdout + done.stderr)
    return found[1] if found else None


def _place(row: Row) -> Path:
    return cache_dir() / "tools" / row.name / gobuild.key(row) / row.name


def in_cache(row: Row) -> Path | None:
    """Give the tool in velagen's cache, if it is there."""
    path = _place(row)
    return path if path.is_file() and os.access(path, os.X_OK) else None


def _bring(rows: list[Row], allowed: frozenset[str], reporter: Reporter, known: Table) -> dict[Row, Path]:
    found: dict[Row, Path] = {}
    to_build: list[Row] = []
    closed: dict[Row, list[str]] = {}
    for row in rows:
        closed[row] = []
        with _locked(row, reporter):
            path = in_cache(row) or _ready_made(row, allowed, reporter, known, closed[row])
        if path is not None:
            found[row] = path
        elif row.build is not None and "build" in allowed:
            for reason in closed[row]:
                reporter.say(f"{row}: {reason}")
            to_build.append(row)
        else:
            tried = "; ".join(closed[row]) or "no other road is in the table"
            raise VelagenError(
                Problem(
                    f"no road leads to {row} on {this_platform()}: {tried}",
                    hint=f"Put {row.name} {row.version} on PATH, or allow more roads; "
                    f"allowed now: {', '.join(road for road in ROADS if road in allowed)}.",
                )
            )
    if to_build:
        with gobuild.workshop(cache_dir(), reporter) as shop:
            if len(to_build) > 1:
                minutes = sum(row.build.minutes for row in to_build if row.build)
                reporter.say(f"{len(to_build)} tools to build, {minutes:.0f} minutes at most on two cores")
            for row in to_build:
                with _locked(row, reporter):
                    path = in_cache(row)
                    if path is None:
                        with _aside(row) as part:
                            gobuild.build(row, part, shop)
                        path = _place(row)
                        reporter.say(f"{row}: built, {path}")
                found[row] = path
    return found


def _ready_made(row: Row, allowed: frozenset[str], reporter: Reporter, known: Table, closed: list[str]) -> Path | None:
    """Try the release, then the image; say in `closed` why each was not available."""
    where = this_platform()
    downloads = cache_dir() / "downloads"
    if row.release is not None and "release" in allowed:
        system, _, arch = where.partition("-")
        url = row.release.url.format(version=row.version, os=system, arch=arch)
        try:
            digest = row.release.digests.get(where) or _published(row, row.release, url, reporter)
            reporter.say(f"{row}: downloading {url} (about {row.release.megabytes:.0f} MB)")
            # Tools that share an archive wait for each other instead of writing one .part twice.
            from filelock import FileLock

            with FileLock(_lock_folder() / digest.value[:32]):
                archive = download(url, downloads, digest, reporter, label=str(row))
                _unpack(row, archive, known)
                archive.unlink()
        except RoadClosedError as error:
            closed.append(f"the release can't be downloaded ({error})")
        else:
            return _place(row)
    if row.image is not None and "image" in allowed:
        try:
            found = row.image if where in row.image.digests else _resolved(row, row.image, where, reporter)
            reporter.say(f"{row}: taking it out of {found.repository}")
            with _aside(row) as part:
                image.take(found, where, part, downloads, reporter, scheme=_scheme(found.repository))
        except RoadClosedError as error:
            closed.append(f"the image can't be downloaded ({error})")
        else:
            return _place(row)
    return None


def _published(row: Row, release: Release, url: str, reporter: Reporter) -> Digest:
    """The checksum that the publisher's list says, or said when it was first asked."""
    if not release.checksums:
        raise RoadClosedError(f"no checksum is pinned for its release on {this_platform()}")
    listed = release.checksums.format(version=row.version)
    digest = _kept(row, url, lambda: published_checksum(listed, url.rpartition("/")[2]), listed, reporter)
    return Digest("sha256", digest.removeprefix("sha256:"))


def _resolved(row: Row, image_of: Image, where: str, reporter: Reporter) -> Image:
    """The image by the digest that its tag stands for, or stood for when it was first asked."""
    if not image_of.tag:
        raise RoadClosedError(f"no image digest is pinned for {where}")
    tag = image_of.tag.format(version=row.version)
    address = f"{image_of.repository}:{tag}"
    scheme = _scheme(image_of.repository)
    digest = _kept(row, address, lambda: image.digest_of_tag(image_of, tag, scheme=scheme), "its registry", reporter)
    return replace(image_of, digests={where: digest})


def _kept(row: Row, address: str, ask: Callable[[], str], source_of_it: str, reporter: Reporter) -> str:
    """A checksum of the lock file; where it has none the publisher is asked, and what he says is shown and kept."""
    digest = lock.locked().get(address)
    if digest is None:
        digest = ask()
        from filelock import FileLock

        # Two processes may each have something to add.
        with FileLock(_lock_folder() / "tools.lock"):
            path = lock.keep(address, digest)
        reporter.say(f"{row}: {address} is {digest} by {source_of_it}; kept in {path}")
    return digest


def _scheme(repository: str) -> str:
    """TLS, but to this machine itself, as container engines have it."""
    host = repository.partition("/")[0].partition(":")[0]
    return "http" if host in ("127.0.0.1", "localhost") else "https"


def _unpack(row: Row, archive: Path, known: Table) -> None:
    """Install a tool from its archive, and with it the other tools of the same archive."""
    if row.release is None:
        return
    for other in known.tools:
        shares = other.release is not None and other.release.url == row.release.url and other.version == row.version
        if other == row or (shares and in_cache(other) is None):
            with _aside(other) as part:
                extract(archive, other.release.member if other.release else None, part)


@contextlib.contextmanager
def _aside(row: Row) -> Iterator[Path]:
    """Give a path to write to; a whole file is then moved to its place in one step."""
    place = _place(row)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{row.name}.{os.getpid()}.part")
    try:
        yield part
        part.chmod(0o755)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def _lock_folder() -> Path:
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _locked(row: Row, reporter: Reporter) -> Iterator[None]:
    from filelock import FileLock

    lock = FileLock(_lock_folder() / f"{row.name}-{row.version}")
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        reporter.say(f"{row}: another velagen is bringing it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def source(name: str, version: str | None = None, *, reporter: Reporter | None = None) -> Path:
    """Give the read-only folder of a pinned upstream module, and bring it where it is missing.

    Go brings it into its module cache; without Go it comes out of the archive of its source, with the same hash.

    Fast once known: the folder is remembered in velagen's cache.

    Args:
        name: kserve, kubevela, kubernetes or kwok.
        version: None = the pinned default.

    Raises:
        VelagenError: no such source; the module can't be downloaded, or is not the pinned one.
    """
    row = table().source(name, version)
    note = cache_dir() / "sources" / f"{row.name}-{row.version}"
    if note.is_file():
        folder = Path(note.read_text().strip())
        if folder.is_dir():
            return folder
    reporter = reporter or Reporter()
    folder = _by_go(row, reporter) if shutil.which("go") else _without_go(row, reporter)
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_name(f".{note.name}.{os.getpid()}-{threading.get_ident()}")
    part.write_text(f"{folder}\n")
    part.replace(note)
    return folder


def _without_go(row: Source, reporter: Reporter) -> Path:
    from filelock import FileLock

    with FileLock(_lock_folder() / f"source-{row.name}-{row.version}"):
        return modsource.unpack(row, cache_dir() / "modules", _pinned_sum(row) or "", reporter)


def _by_go(row: Source, reporter: Reporter) -> Path:
    """The folder in Go's module cache, downloaded where it is missing."""
    reporter.say(f"{row.module} {row.version}: asking Go's module cache, downloading where it is missing")
    # In the folder of the tools module, where go.sum pins the content.
    done = subprocess.run(
        [gobuild.go(), "mod", "download", "-json", f"{row.module}@{row.version}"],
        cwd=HERE / "modules" / row.pinned_in,
        env={**os.environ, "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    answer = json.loads(done.stdout) if done.stdout.strip() else {}
    if done.returncode != 0 or "Dir" not in answer:
        reason = answer.get("Error") or done.stderr.strip() or f"go exited with {done.returncode}"
        raise VelagenError(
            Problem(
                f"{row.module} {row.version}: {reason}",
                hint="Check the network and `go env GOPROXY`; the Go client downloads it as it is configured.",
            )
        )
    got, pinned = str(answer.get("Sum", "")), _pinned_sum(row)
    # `go mod download` of a named version does not look at our go.sum.
    if got != pinned:
        raise VelagenError(
            Problem(
                f"{row.module} {row.version}: its content hash is {got or 'unknown'}, but {pinned} is pinned",
                hint="`go clean -modcache` drops a damaged copy; otherwise the module proxy serves other content.",
            )
        )
    return Path(answer["Dir"])


def _pinned_sum(row: Source) -> str | None:
    """The content hash of a module by our go.sum."""
    for line in (HERE / "modules" / row.pinned_in / "go.sum").read_text().splitlines():
        fields = line.split()
        if fields[:2] == [row.module, row.version]:
            return fields[2]
    return None
