"""Folders that a lab owns: marked when they are taken, and cleared of what a lab makes there, of nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from velagen.errors import Problem, VelagenError

#: The file that says whose a folder is.
MARK_FILE = ".velagen"


def owner(folder: Path) -> str | None:
    """Give what a folder's mark says, such as ``kind lab``; None where there is no mark."""
    try:
        words = (folder / MARK_FILE).read_text(errors="replace").split()
    except OSError:
        return None
    return " ".join(words[1:]) if words[:1] == ["velagen"] else None


def claim(folder: Path, called: str) -> None:
    """Mark a folder, made where it is missing; its owner alone may look into it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / MARK_FILE).write_text(f"velagen {called}\n")


_HINT = "Name an empty folder, or one that does not exist yet."


def refuse_foreign(folder: Path, hint: str = _HINT) -> None:
    """Say no to a folder that holds anything; the caller knows that it is not its own.

    Args:
        hint: what to do instead.

    Raises:
        VelagenError: it holds something, or the path is not a folder.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise VelagenError(Problem(f"{folder} is not a folder", hint=hint))
    if known := owner(folder):
        flag = "add --kind" if known == "kind lab" else "leave out --kind" if known == "lab" else hint
        raise VelagenError(Problem(f"{folder} is the folder of a {known}", hint=flag[:1].upper() + flag[1:]))
    names = sorted(path.name for path in folder.iterdir())
    if names:
        raise VelagenError(Problem(f"{folder} is not empty, and not the folder of a lab: {_listed(names)}", hint=hint))


def clear(folder: Path, made: Iterable[str], *, forget: bool) -> list[str]:
    """Remove what a lab has made in its folder, and the folder itself where nothing else is in it.

    Links are removed and not followed.

    Args:
        made: paths in the folder. One that ends with ``/`` is a folder of the lab's own, removed with all that is in
            it; any other is a file, or a folder that is removed once it is empty, so what is in it comes before it.
        forget: remove the mark and the empty folder too.

    Returns:
        names of what stays in the folder, the mark not counted.
    """
    for entry in made:
        path = folder / entry
        if any((folder / parent).is_symlink() for parent in Path(entry).parents if parent.name):
            continue
        if path.is_symlink() or path.is_file() or path.is_socket():
            path.unlink(missing_ok=True)
        elif path.is_dir() and entry.endswith("/"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    stays = sorted(path.name for path in folder.iterdir() if path.name != MARK_FILE) if folder.is_dir() else []
    if forget and folder.is_dir():
        (folder / MARK_FILE).unlink(missing_ok=True)
        if not stays and not folder.is_symlink():
            folder.rmdir()
    return stays


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
