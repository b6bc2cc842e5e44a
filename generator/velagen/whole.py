"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

#: How the name of a file begins that is being written; one that stays belongs to a writer that was killed.
WRITING = ".writing-"


def write_whole(file: Path, content: str, *, settled: bool = False) -> None:
    """Write a file beside, and move it into place in one step: a reader finds the old one or the new one.

    A file that is there is replaced and its rights are kept. Whatever happens, nothing else of the folder is touched,
    and what was half written is removed, unless the process is killed.

    Args:
        settled: wait until the disk has it, as for a file that somebody wrote by hand.

    Raises OSError.
    """
    part = file.with_name(f"{WRITING}{secrets.token_hex(8)}")
    try:
        with part.open("x", encoding="utf-8", newline="") as stream:
            stream.write(content)
            if settled:
                stream.flush()
                os.fsync(stream.fileno())
        with suppress(FileNotFoundError):
            part.chmod(file.stat().st_mode & 0o7777)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
