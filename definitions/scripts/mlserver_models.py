"""Starts MLServer on several models, each under the name of its folder.

Runs inside the model server's container, with nothing but Python's library; its arguments are the command to become,
where a user has given one. MLServer finds a model by a file
model-settings.json and takes the name from there. A package of MLflow has none, and /mnt/models is read-only; for lack
of a name or a place in the file the variables count that KServe sets for a server of one model.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

MODELS = "/mnt/models"
SETTINGS = "model-settings.json"


def link(models: Path, links: Path) -> None:
    """A folder of links for each model, with settings that name it."""
    for source in sorted(models.iterdir()):
        if source.name.startswith(".") or not source.is_dir():
            continue
        target = links / source.name
        target.mkdir()
        for entry in source.iterdir():
            if entry.name != SETTINGS:
                (target / entry.name).symlink_to(entry)
        given = source / SETTINGS
        settings = json.loads(given.read_text()) if given.exists() else {}
        settings["name"] = source.name
        settings["parameters"] = {"uri": ".", **(settings.get("parameters") or {})}
        (target / SETTINGS).write_text(json.dumps(settings))
        print(f"{source} is the model {source.name}", flush=True)


def main(*command: str) -> None:
    """Make the links, then become the command, which reads them in the place of the models."""
    links = tempfile.mkdtemp(prefix="models-")
    link(Path(MODELS), Path(links))
    words = [word.replace(MODELS, links) for word in command or ("mlserver", "start", MODELS)]
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(*sys.argv[1:])
