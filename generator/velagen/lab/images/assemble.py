"""Makes images out of packages, on this machine, without a registry and without a container engine."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from velagen.errors import Problem, VelagenError
from velagen.lab.images import archive
from velagen.lab.images.lock import locked, wheels_for
from velagen.lab.images.recipe import HERE, PYTHON, SITE, SUITE, Part, Recipe, Recipes, recipes
from velagen.tools import cache_dir, source, table, this_platform, tool, wanted
from velagen.tools.gobuild import key as tool_key
from velagen.tools.report import Reporter

_GIGA = 1e9
#: What debootstrap checks Debian's signature by.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: Velagen's own code, as it runs here.
PACKAGE = HERE.parents[1]


def identify(part: Part) -> str:
    """Give what the content of a part is known by, without making it.

    A tool by its version, or for code of our own by its source; an upstream file by its module's version; a file
    beside the recipes or of velagen's own package by its hash.
    """
    if part.tool:
        return f"{part.tool} {tool_key(table().row(*wanted(part.tool)))}"
    if part.upstream:
        return f"{part.upstream} {table().source(part.upstream.partition(':')[0]).version}"
    if part.beside or part.package:
        digest = hashlib.sha256()
        top = HERE if part.beside else PACKAGE
        for path in _files(_origin(part)):
            digest.update(f"{path.relative_to(top)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()
    return ""


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # What Python compiled here is not part of a source, and changes by looking at it.
    return sorted(found for found in path.rglob("*") if found.is_file() and "__pycache__" not in found.parts)


@cache
def _ours() -> Recipes:
    return recipes()


def images_dir() -> Path:
    """Give the folder image archives are kept in."""
    return cache_dir() / "images"


def archive_path(name: str) -> Path:
    """Give where an image's archive is, or would be: its name holds the hash of all it is made of.

    Raises:
        VelagenError: no such image.
    """
    return images_dir() / f"{name}-{_ours().key(name, identify)}.tar"


def why_not() -> str:
    """Give why images with an operating system can't be assembled here; empty where they can."""
    if not this_platform().startswith("linux-"):
        return "images are assembled on Linux only"
    if os.geteuid() != 0:
        return "assembling an operating system needs root"
    if shutil.which("debootstrap") is None:
        return "debootstrap is not on PATH (Debian, Ubuntu: apt-get install debootstrap)"
    if not KEYRING.is_file():
        return f"{KEYRING} is missing, by which Debian's packages are checked (apt-get install debian-archive-keyring)"
    return ""


def image(name: str, reporter: Reporter | None = None) -> Path:
    """Give an image as a tar file, and make it first where it is missing.

    Returns:
        a file that `docker load` and `ctr images import` take.

    Raises:
        VelagenError: no such image; it can't be made here; the disk is too full; a step failed.
    """
    target = archive_path(name)
    if target.is_file():
        return target
    say = reporter or Reporter()
    recipe = _ours()[name]
    if recipe.packages is not None or recipe.run:
        reason = why_not()
        if reason:
            raise VelagenError(
                Problem(
                    f"image {name} can't be assembled here: {reason}", hint="Use a machine that can reach a registry."
                )
            )
    base = image(recipe.base, say) if recipe.base else None
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(images_dir() / f".{name}.lock"):
        if target.is_file():
            return target
        check_disk(images_dir(), recipe.gigabytes, f"image {name}")
        # Asked for before the work starts: a tool that is missing must not be noticed after ten minutes of pip.
        for part in recipe.parts:
            if part.tool:
                tool(*wanted(part.tool))
        say.say(f"image {name}: assembling")
        # Not under /tmp, which may be small or not allow device files and programs.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=images_dir()) as scratch:
            _assemble(recipe, base, Path(scratch), target, say)
    say.say(f"image {name}: {target} ({target.stat().st_size / 1e6:.0f} MB)")
    return target


def check_disk(folder: Path, gigabytes: float, what: str) -> None:
    """Refuse to start what would fill the disk.

    Raises:
        VelagenError: there is less than `gigabytes` and one more.
    """
    free = shutil.disk_usage(folder).free / _GIGA
    if free < gigabytes + 1:
        raise VelagenError(
            Problem(
                f"{what} needs about {gigabytes:.0f} GB; {folder} has {free:.1f} GB free",
                hint="`velagen lab prune` removes images and build leftovers; VELAGEN_CACHE names another folder.",
            )
        )


def _assemble(recipe: Recipe, base: Path | None, scratch: Path, target: Path, say: Reporter) -> None:
    lower: list[archive.Layer] = archive.layers_of(base, scratch) if base else []
    root = scratch / "root"
    root.mkdir()
    if recipe.packages is not None:
        _debootstrap(recipe, root, say)
    if recipe.python or recipe.python_alone:
        _pip(recipe, root, say)
    for part in recipe.parts:
        put(part, root)
    if recipe.python or recipe.python_alone:
        _finish_python(recipe, root)
    if recipe.run:
        _in(recipe, root)
    layer = scratch / "layer.tar"
    _tar(root, layer)
    layers = [*lower, archive.Layer.of(layer)]
    env: dict[str, str] = {}
    inherited: dict[str, object] = {}
    for step in _ours().chain(recipe.name):
        env |= step.env
        for key in ("entrypoint", "cmd", "user", "workdir", "stop_signal"):
            value = getattr(step, key)
            if value:
                inherited[key] = value
    config = archive.configuration(
        layers,
        architecture=this_platform().partition("-")[2],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **env},
        **inherited,  # type: ignore[arg-type]  # each is of the type the recipe's field has
    )
    archive.write(target, config, layers, recipe.references)


def put(part: Part, root: Path) -> None:
    """Put one part into a file system.

    Args:
        root: the folder that stands for ``/``.

    Raises:
        VelagenError: an upstream file is not there, or the path leads out of the file system.
    """
    path = root / part.path.lstrip("/")
    _make_parent(path, root)
    if part.folder:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755 if part.mode is None else part.mode)
    elif part.link is not None:
        path.unlink(missing_ok=True)
        path.symlink_to(part.link)
    elif part.text is not None:
        path.unlink(missing_ok=True)
        path.write_text(part.text)
        path.chmod(0o644 if part.mode is None else part.mode)
    elif part.tool is not None:
        shutil.copyfile(tool(*wanted(part.tool)), path)
        path.chmod(0o755 if part.mode is None else part.mode)
    else:
        _copy(_origin(part), path, part, root)


def _make_parent(path: Path, root: Path) -> None:
    # Debian's /bin, /lib and /sbin are relative links into /usr and stay inside `root`; its /var/run is an absolute one
    # and would lead to this machine's.
    parent = root if path == root else path.parent
    if not parent.resolve().is_relative_to(root.resolve()):
        raise VelagenError(Problem(f"{path} leads to {parent.resolve()}, out of the image"))
    parent.mkdir(parents=True, exist_ok=True)


def _origin(part: Part) -> Path:
    if part.beside is not None:
        return HERE / part.beside
    if part.package is not None:
        return PACKAGE / part.package
    name, _, inside = str(part.upstream).partition(":")
    origin = source(name) / inside
    if not origin.exists():
        raise VelagenError(Problem(f"{inside} is not in the pinned source of {name}"))
    return origin


def _copy(origin: Path, path: Path, part: Part, root: Path) -> None:
    for found in _files(origin):
        inside = found.relative_to(origin) if origin.is_dir() else Path()
        if any(fnmatch.fnmatch(str(inside), pattern) for pattern in part.without):
            continue
        to = path / inside if origin.is_dir() else path
        _make_parent(to, root)
        to.unlink(missing_ok=True)
        shutil.copyfile(found, to)
        # Go's module cache is read-only and has no execute bits: a script is known by its first two bytes.
        script = found.read_bytes()[:2] == b"#!" or found.stat().st_mode & 0o111
        to.chmod(part.mode if part.mode is not None else 0o755 if script else 0o644)


def _debootstrap(recipe: Recipe, root: Path, say: Reporter) -> None:
    packages = images_dir() / "debs"
    packages.mkdir(exist_ok=True)
    say.say(f"image {recipe.name}: Debian {SUITE} with {len(recipe.packages or ())} packages, two or three minutes")
    # Without it a missing keyring is a warning, and everything is taken as it comes.
    command = ["debootstrap", "--force-check-gpg", "--variant=minbase", f"--cache-dir={packages}"]
    if recipe.packages:
        command.append(f"--include={','.join(recipe.packages)}")
    command += [SUITE, str(root)]
    mirror = os.environ.get("VELAGEN_DEBIAN_MIRROR")
    run_logged([*command, mirror] if mirror else command, f"image-{recipe.name}")
    for leftover in (
        "var/cache/apt/archives",
        "var/lib/apt/lists",
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
    ):
        shutil.rmtree(root / leftover, ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)


def _pip(recipe: Recipe, root: Path, say: Reporter) -> None:
    python = _python()
    site = root / SITE.lstrip("/")
    site.mkdir(parents=True, exist_ok=True)
    say.say(f"image {recipe.name}: Python packages, a few minutes")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as wanted:
        wanted.write(locked(recipe))
        wanted.flush()
        command = [*wheels_for(python, os.uname().machine), "--no-compile", "--no-warn-script-location"]
        exactly = ["--no-deps", "--require-hashes", f"--requirement={wanted.name}"]
        run_logged([*command, f"--target={site}", *exactly], f"image-{recipe.name}")


def _finish_python(recipe: Recipe, root: Path) -> None:
    site = root / SITE.lstrip("/")
    unneeded = [path for path in site.rglob("tests") if path.is_dir()]
    for pattern in recipe.without:
        unneeded += site.glob(pattern)
    for path in unneeded:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    # A server that compiles its packages at every start takes twice as long. By hash and unchecked: the dates are gone
    # in the image, and nobody changes the sources there.
    compiled = ["-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", f"-s{root}", "-p/", str(site)]
    run_logged(["sh", "-c", '"$@" || test $? -eq 1', "sh", _python(), *compiled], f"image-{recipe.name}")
    # With --target pip writes the console scripts into the site itself, with this machine's Python in their first line.
    scripts = site / "bin"
    if scripts.is_dir():
        out = root / "usr/local/bin"
        out.mkdir(parents=True, exist_ok=True)
        for script in scripts.iterdir():
            if script.is_file() and not (out / script.name).exists():
                content = script.read_bytes()
                head, newline, rest = content.partition(b"\n")
                if head.startswith(b"#!") and b"python" in head:
                    content = b"#!/usr/bin/python3" + newline + rest
                (out / script.name).write_bytes(content)
                (out / script.name).chmod(0o755)
        shutil.rmtree(scripts)


def _python() -> str:
    """Give a Python whose markers are those of the image's Python."""
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    name = f"python{PYTHON[0]}.{PYTHON[1]}"
    found = shutil.which(name)
    if found is None:
        raise VelagenError(
            Problem(
                f"the Python packages of an image are chosen by {name}, which is not on PATH", hint=f"Install {name}."
            )
        )
    return found


def _in(recipe: Recipe, root: Path) -> None:
    for command in recipe.run:
        run_logged(["chroot", str(root), "/bin/sh", "-euc", command], f"image-{recipe.name}", env=_INSIDE)


_INSIDE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}


def _tar(root: Path, target: Path) -> None:
    # Same content, same bytes: sorted, without dates and without the names of this machine's users.
    run_logged(
        [
            "tar",
            "--create",
            f"--file={target}",
            f"--directory={root}",
            "--sort=name",
            "--mtime=@0",
            "--numeric-owner",
            "--one-file-system",
            "--exclude=./dev/*",
            "--exclude=./proc/*",
            "--exclude=./sys/*",
            *([] if os.geteuid() == 0 else ["--owner=0", "--group=0"]),
            ".",
        ],
        "image-tar",
    )


def run_logged(command: Iterable[str], log: str, env: dict[str, str] | None = None) -> None:
    """Run a command with its output in a log file.

    Args:
        log: name of the file under the cache's ``logs``, without its ending.

    Raises:
        VelagenError: it failed; the message ends with its last lines.
    """
    arguments = list(command)
    path = cache_dir() / "logs" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as out:
        start = out.tell()
        code = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False, env=env
        ).returncode
    if code != 0:
        with path.open("rb") as stream:
            stream.seek(start)
            last = stream.read().decode(errors="replace").strip().splitlines()[-12:]
        raise VelagenError(
            Problem(
                f"{Path(arguments[0]).name} failed ({code}):\n    " + "\n    ".join(last), hint=f"All of it: {path}"
            )
        )


def prune(keep: Callable[[Path], bool] = lambda _: False) -> int:
    """Remove image archives and what was downloaded for them; files with names of another form stay.

    Args:
        keep: says of an archive that it stays.

    Returns:
        bytes freed.
    """
    freed = 0
    folder = images_dir()
    if not folder.is_dir():
        return 0
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_file() and _ARCHIVE.fullmatch(path.name) and not keep(path):
            freed += path.stat().st_size
            path.unlink()
        elif path.is_dir() and _SCRATCH.fullmatch(path.name) and not _in_use(path):
            freed += sum(found.lstat().st_size for found in path.rglob("*"))
            shutil.rmtree(path)
    for package in sorted((folder / "debs").glob("*.deb")):
        freed += package.lstat().st_size
        package.unlink()
    return freed


#: What `archive_path` names, and the folders that `image` works in (with the letters that `tempfile` takes).
_ARCHIVE = re.compile(r"[a-z0-9-]+-[0-9a-f]{12}\.tar")
_SCRATCH = re.compile(r"\.[a-z0-9-]+-[a-z0-9_]{6,8}")


def _in_use(path: Path) -> bool:
    """Whether somebody assembles an image in this folder now: its name is that of the image's lock."""
    lock = FileLock(path.with_name(f"{path.name.rpartition('-')[0]}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def current() -> set[Path]:
    """Give the archives that the recipes of this version name, whether they are there or not."""
    return {archive_path(name) for name in _ours().images}
