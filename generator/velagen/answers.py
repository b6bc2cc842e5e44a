"""Answers that cost seconds, kept in the cache by the content they are about."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from velagen.tools import cache_dir
from velagen.whole import WRITING, write_whole

#: Raise it where what is kept changes its form.
_FORM = 2
#: Answers of a kind that are kept; beyond, the oldest go.
_MOST = 60
_OURS = re.compile(r"(addon|definitions|verdict|cue)-[0-9a-f]{32}\.json")
#: Seconds after which nobody writes a file any more that is still being written.
_ABANDONED = 3600.0


def answer_file(what: str, key: str) -> Path:
    """Where the answer of a kind is kept for a key, such as a digest of what was asked about."""
    return cache_dir() / "checked" / f"{what}-{key}.json"


def digest(parts: Iterable[str]) -> str:
    """The key of what consists of these parts, in this order."""
    return hashlib.sha256("\n".join([str(_FORM), *parts]).encode()).hexdigest()[:32]


def read(file: Path) -> Any:
    """The value kept in a file; None if the file is missing or can't be read."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_bytes())
    return None


def write(file: Path, value: object) -> None:
    """Keep a value, and drop the oldest of those that were kept here. A cache that can't be written is ignored."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(value))
        there = list(file.parent.iterdir())
        for part in there:
            if part.name.startswith(WRITING) and part.stat().st_mtime < time.time() - _ABANDONED:
                part.unlink(missing_ok=True)  # its writer was killed
        what = file.name.partition("-")[0]
        kept = [one for one in there if (ours := _OURS.fullmatch(one.name)) and ours[1] == what]
        for old in sorted(kept, key=lambda one: one.stat().st_mtime_ns)[:-_MOST]:
            old.unlink(missing_ok=True)
