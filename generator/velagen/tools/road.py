"""The one road to a tool: PATH, velagen's cache, the official release, the container image, the Go toolchain."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from velagen.errors import Problem, VelagenError
from velagen.tools import gobuild, image
from velagen.tools.fetch import RoadClosedError, download, extract
from velagen.tools.report import Reporter
from velagen.tools.table import HERE, Row, Table, table, this_platform

ROADS = ("path", "cache", "release", "image", "build")


def cache_dir() -> Path:
    """Give velagen's cache folder: $VELAGEN_CACHE, else ~/.cache/velagen. It may not exist yet."""
    given = os.environ.get("VELAGEN_CACHE")
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "velagen"


def roads() -> frozenset[str]:
    """Give the roads that may be taken: all, or those named in $VELAGEN_ROADS (comma separated).

    Raises:
        VelagenError: a name in it is not a road.
    """
    given = os.environ.get("VELAGEN_ROADS")
    if not given:
        return frozenset(ROADS)
    chosen = frozenset(part.strip() for part in given.split(",") if part.strip())
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
        digest = row.release.digests.get(where)
        if digest is None:
            closed.append(f"no checksum is pinned for its release on {where}")
        else:
            system, _, arch = where.partition("-")
            url = row.release.url.format(version=row.version, os=system, arch=arch)
            reporter.say(f"{row}: downloading {url} (about {row.release.megabytes:.0f} MB)")
            try:
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
        if where not in row.image.digests:
            closed.append(f"no image digest is pinned for {where}")
        else:
            reporter.say(f"{row}: taking it out of {row.image.repository}")
            try:
                with _aside(row) as part:
                    image.take(row.image, where, part, downloads, reporter)
            except RoadClosedError as error:
                closed.append(f"the image can't be downloaded ({error})")
            else:
                return _place(row)
    return None


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
    """Give the read-only folder of a pinned upstream module, and bring it into Go's module cache where it is missing.

    Fast once known: the folder is remembered in velagen's cache.

    Args:
        name: kserve, kubevela, kubernetes or kwok.
        version: None = the pinned default.

    Raises:
        VelagenError: no such source; go is missing; the module can't be downloaded or is not the pinned one.
    """
    row = table().source(name, version)
    note = cache_dir() / "sources" / f"{row.name}-{row.version}"
    if note.is_file():
        folder = Path(note.read_text().strip())
        if folder.is_dir():
            return folder
    (reporter or Reporter()).say(
        f"{row.module} {row.version}: asking Go's module cache, downloading where it is missing"
    )
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
    _check_sum(row.module, row.version, row.pinned_in, str(answer.get("Sum", "")))
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_name(f".{note.name}.{os.getpid()}-{threading.get_ident()}")
    part.write_text(answer["Dir"] + "\n")
    part.replace(note)
    return Path(answer["Dir"])


def _check_sum(module: str, version: str, pinned_in: str, got: str) -> None:
    """Hold the content hash against our go.sum: `go mod download` of a named version does not look at it."""
    pinned = None
    for line in (HERE / "modules" / pinned_in / "go.sum").read_text().splitlines():
        fields = line.split()
        if fields[:2] == [module, version]:
            pinned = fields[2]
    if got != pinned:
        raise VelagenError(
            Problem(
                f"{module} {version}: its content hash is {got or 'unknown'}, but {pinned} is pinned",
                hint="`go clean -modcache` drops a damaged copy; otherwise the module proxy serves other content.",
            )
        )
