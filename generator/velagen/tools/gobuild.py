"""The last road: the Go toolchain, from a pinned module with its go.sum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from velagen.errors import Problem, VelagenError
from velagen.tools.report import Reporter
from velagen.tools.table import HERE, Build, Row

if TYPE_CHECKING:
    from filelock import FileLock

#: The oldest Go that fetches a newer toolchain by itself where a module asks for one.
_OLDEST = (1, 21)
_INSTALL_GO = "Install Go 1.21 or later (https://go.dev/doc/install) and try again."


def key(row: Row) -> str:
    """Give the name of the folder in the cache a row's binary is in.

    The version, and for Go code of our own also what it is made of: a change to it is another tool.
    """
    if row.build is None or row.build.local is None:
        return row.version
    digest = hashlib.sha256()
    folder = _local(row.build)
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(f"{path.relative_to(folder)}\0".encode())
            digest.update(path.read_bytes())
    return f"{row.version}-{digest.hexdigest()[:12]}"


def go() -> str:
    """Give the path of a Go toolchain that can build the tools.

    Raises:
        VelagenError: there is none, or it is too old.
    """
    path = shutil.which("go")
    if path is None:
        raise VelagenError(Problem("go is not on PATH", hint=_INSTALL_GO))
    said = subprocess.run([path, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        raise VelagenError(Problem(f"{path} is Go {found[1]}.{found[2]}, too old to build the tools", hint=_INSTALL_GO))
    return path


@dataclass
class Workshop:
    """What the builds of one call share. Made by `workshop`."""

    go: str
    go_cache: Path
    reporter: Reporter
    logs: Path


@contextlib.contextmanager
def workshop(cache: Path, reporter: Reporter) -> Iterator[Workshop]:
    """Hold the one place tools are built in; other processes wait.

    The Go build cache lives for the builds of one call: it would grow to 20 GB. It stays after a failure or an
    interruption, so that the next try goes on from there; with VELAGEN_KEEP_GOCACHE=1; and where GOCACHE is set.

    Args:
        cache: velagen's cache folder.

    Raises:
        VelagenError: no usable Go toolchain was found.
    """
    toolchain = go()
    own = cache / "build" / "go"
    own.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock

    lock = FileLock(cache / "build" / "lock")
    if not _free(lock):
        reporter.say("another velagen is building tools; waiting for it")
    with lock:
        named = os.environ.get("GOCACHE")
        go_cache = Path(named) if named else own
        go_cache.mkdir(parents=True, exist_ok=True)
        yield Workshop(toolchain, go_cache, reporter, cache / "logs")
        if not named and os.environ.get("VELAGEN_KEEP_GOCACHE") != "1":
            clear_go_cache(own)


#: What Go's build cache is made of (Go's src/cmd/go/internal/cache/cache.go and default.go).
_GO_CACHE = re.compile("[0-9a-f]{2}|fuzz|README|trim\\.txt|testexpire\\.txt")


def clear_go_cache(folder: Path) -> int:
    """Remove a Go build cache, and its folder where nothing else is in it. The caller holds the lock of the builds.

    Returns:
        bytes freed.
    """
    freed = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_symlink() or not _GO_CACHE.fullmatch(path.name):
            continue
        freed += sum(found.lstat().st_size for found in (path, *path.rglob("*")))
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return freed


def _free(lock: FileLock) -> bool:
    try:
        with lock.acquire(timeout=0):
            return True
    except TimeoutError:
        return False


def build(row: Row, target: Path, shop: Workshop) -> None:
    """Build a tool.

    Args:
        target: where the binary is written.

    Raises:
        VelagenError: too little disk, or the build failed; the message ends with what the compiler said.
    """
    plan = row.build
    if plan is None:
        raise VelagenError(Problem(f"{row} has no build"))
    free = shutil.disk_usage(shop.go_cache).free / 1e9
    if free < plan.gigabytes + 1:
        raise VelagenError(
            Problem(
                f"building {row} needs about {plan.gigabytes:.0f} GB for Go's build cache; "
                f"{shop.go_cache} has {free:.1f} GB free",
                hint="Free some disk, or point GOCACHE (and VELAGEN_CACHE) to a bigger one.",
            )
        )
    shop.reporter.say(
        f"{row}: building with Go, about {_minutes(plan.minutes)} on two cores where nothing is built yet"
    )
    with tempfile.TemporaryDirectory(prefix="velagen-build-") as scratch:
        folder = Path(scratch) / "module"
        # A copy: Go writes beside go.mod, and the package may be installed read-only.
        shutil.copytree(_local(plan) if plan.local else HERE / "modules" / str(plan.module), folder)
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOCACHE": str(shop.go_cache),
            "GOWORK": "off",
        }
        flags = ["-mod=readonly"]
        if plan.modfile:
            flags.append(f"-modfile={plan.modfile}")
        if plan.tags:
            flags.append(f"-tags={','.join(plan.tags)}")
        count = _run(
            [shop.go, "list", *flags, "-deps", "-f", "{{.ImportPath}}", plan.package],
            folder,
            environment,
            row,
            shop,
            "loading",
            None,
        )
        command = [
            shop.go,
            "build",
            "-v",
            *flags,
            "-trimpath",
            "-buildvcs=false",
            f"-ldflags=-s -w {plan.ldflags}",
            "-o",
            str(target),
        ]
        _run([*command, plan.package], folder, environment, row, shop, "compiling", count)


def _run(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    row: Row,
    shop: Workshop,
    doing: str,
    total: int | None,
) -> int:
    """Run go, count its lines as progress, keep its words in a log. Returns the number of lines on stdout."""
    shop.logs.mkdir(parents=True, exist_ok=True)
    log_path = shop.logs / f"build-{row.name}-{row.version}.log"
    last: deque[str] = deque(maxlen=15)
    lines = 0
    started = time.monotonic()
    with log_path.open("a") as log, shop.reporter.bar(f"{row}: {doing}", total=total, unit="packages") as bar:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

        def listen() -> None:
            for line in process.stderr or ():
                log.write(line)
                last.append(line.rstrip())
                bar.advance()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            for _ in process.stdout or ():
                lines += 1
            code = process.wait()
            listener.join()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code != 0:
        raise VelagenError(
            Problem(
                f"{row}: {' '.join(command[:2])} failed after {time.monotonic() - started:.0f} s: "
                + "\n    ".join(last),
                hint=f"The whole output is in {log_path}.",
            )
        )
    return lines


def _local(plan: Build) -> Path:
    return HERE.parent / str(plan.local)


def _minutes(value: float) -> str:
    return f"{value:.0f} minutes" if value >= 1.5 else "one minute"
