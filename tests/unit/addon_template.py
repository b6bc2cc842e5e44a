"""What KubeVela makes of an addon's template, without a cluster.

Source: kubevela pkg/addon/render.go: template.cue and parameter.cue are one package, with the metadata and what the
user wrote beside them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from velagen.kubevela import release
from velagen.tools import tool


def rendered(
    addon: Path, folder: Path, parameter: dict[str, Any], *, kubevela: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The addon's Application, and the objects beside it by name. In: a folder to write to.

    Raises AssertionError with CUE's words where it does not render.
    """
    metadata = yaml.safe_load((addon / "metadata.yaml").read_text(encoding="utf-8"))
    context = f"context: metadata: {json.dumps(metadata)}\nparameter: {json.dumps(parameter)}\n"
    folder.mkdir(exist_ok=True)
    (folder / "main.cue").write_text((addon / "template.cue").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "parameter.cue").write_text(
        f"package main\n{(addon / 'parameter.cue').read_text(encoding='utf-8')}\n{context}", encoding="utf-8"
    )
    found = []
    for what in ("output", "outputs"):
        done = subprocess.run(
            [str(tool("cue", release(kubevela).cue)), "export", "-e", what, "main.cue", "parameter.cue"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return found[0], found[1]


def component(application: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a component of type k8s-objects; none where it is not there."""
    found = [one for one in application["spec"]["components"] if one["name"] == name]
    return list(found[0]["properties"]["objects"]) if found else []
