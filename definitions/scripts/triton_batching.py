"""Starts Triton on a copy of the model repository (links, no data) whose models batch dynamically.

Runs inside the model server's container, with nothing but Python's library: settings in JSON first, then the command
that the ServingRuntime gives. Triton has no flag that overrides a model's configuration when it loads the model.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODELS, LINKS = "/mnt/models", "/mnt/batching-models"
ENTRYPOINT = Path("/opt/nvidia/nvidia_entrypoint.sh")
TOKEN = re.compile(r"""\s+|#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[-+.\w]+|.""", re.DOTALL)


def fields(text: str) -> Iterator[tuple[str, int, int]]:
    """Each field at the top of a protobuf text: its name, where it starts, where it ends."""
    name, start, depth = "", 0, 0
    for match in TOKEN.finditer(text):
        word = match.group()
        if word.isspace() or word[0] == "#" or (not name and word[0] in ",;\"'") or (depth == 0 and word == ":"):
            continue
        if not name:
            name, start = word, match.start()
            continue
        depth += (word in "{[<") - (word in ">]}")
        if depth == 0:
            yield name, start, match.end()
            name = ""


def merged(text: str, settings: dict[str, Any]) -> str:
    """A model's configuration with the settings in it; ensembles and sequence models don't batch: left alone."""
    found = list(fields(text))
    names = {name for name, _, _ in found}
    if names & {"ensemble_scheduling", "sequence_batching"}:
        return text
    size = settings.get("max_batch_size")
    if size is None and "max_batch_size" not in names:
        size = max(settings["preferred_batch_size"])
    dropped = {"dynamic_batching"} | ({"max_batch_size"} if size else set())
    for name, start, end in reversed(found):
        if name in dropped:
            text = text[:start] + text[end:]
    lines = [text.rstrip(), f"max_batch_size: {size}" if size else ""]
    wanted = ("preferred_batch_size", "max_queue_delay_microseconds")
    lines.append("dynamic_batching { " + " ".join(f"{name}: {settings[name]}" for name in wanted) + " }")
    return "\n".join(filter(None, lines)) + "\n"


def link(models: Path, links: Path, settings: dict[str, Any]) -> None:
    """A folder of links for each model of the repository, with a configuration of its own."""
    for source in sorted(models.iterdir()):
        if source.name.startswith(".") or not source.is_dir():
            continue
        target = links / source.name
        target.mkdir(parents=True, exist_ok=True)
        for entry in source.iterdir():
            place = target / entry.name
            if entry.name != "config.pbtxt" and not place.is_symlink():
                place.symlink_to(entry)
        given = source / "config.pbtxt"
        text = given.read_text() if given.exists() else ""
        (target / "config.pbtxt").write_text(merged(text, settings))
        print(f"{target}/config.pbtxt asks for dynamic batching", flush=True)


def main(settings: str, *command: str) -> None:
    """Make the links, then become the command, which reads them in the place of the models."""
    link(Path(MODELS), Path(LINKS), json.loads(settings))
    words = [word.replace(MODELS, LINKS) for word in command]
    if ENTRYPOINT.exists():
        words.insert(0, str(ENTRYPOINT))
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(*sys.argv[1:])
