"""Checksums that no row of the table pins: what the publisher said when it was first asked, kept in a lock file.

The file is a person's own, ``~/.config/velagen/tools.lock``, or the one that $VELAGEN_TOOLS_LOCK names, which a team
may commit. What is in it is a pin like those of the table: other bytes are refused from then on.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from velagen.errors import Place, Problem, VelagenError
from velagen.whole import write_whole

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def lock_file() -> Path:
    """Give the lock file: $VELAGEN_TOOLS_LOCK, else ``velagen/tools.lock`` in the folder of configurations."""
    named = os.environ.get("VELAGEN_TOOLS_LOCK")
    if named:
        return Path(named).expanduser().absolute()
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "velagen" / "tools.lock"


def locked() -> dict[str, str]:
    """Give what is kept: an address (of a file, or an image with its tag) -> ``sha256:...``.

    Raises:
        VelagenError: the file is there and can't be read as one.
    """
    path = lock_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise VelagenError(Problem(f"the lock file can't be read: {error}", Place(str(path)), _WAY_OUT)) from error
    if not isinstance(found, dict) or not all(_DIGEST.fullmatch(str(one)) for one in found.values()):
        raise VelagenError(Problem("the lock file holds something else than checksums", Place(str(path)), _WAY_OUT))
    return found


_WAY_OUT = "Correct it, or remove it: the publishers are asked again then."


def keep(address: str, digest: str) -> Path:
    """Keep a checksum, beside those that are kept already.

    Args:
        digest: ``sha256:`` and lower-case hex.

    Returns:
        the lock file.

    Raises:
        VelagenError: it can't be read, or can't be written.
    """
    path = lock_file()
    text = json.dumps({**locked(), address: digest}, indent=2, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        hint = "Name another place with VELAGEN_TOOLS_LOCK."
        raise VelagenError(Problem(f"the lock file can't be written: {error}", Place(str(path)), hint)) from error
    return path
