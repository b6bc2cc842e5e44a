"""What KubeVela makes of an addon's template, without a cluster.

Source: kubevela pkg/addon/render.go: template.cue and parameter.cue are one package, with the metadata and what the
user wrote beside them.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from velagen.check.dryrun import offline_environment
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


def assert_is_that_of_the_file(made: dict[str, Any], addon: Path, folder: Path, kubevela: str) -> None:
    """A definition that the template makes is what KubeVela makes of the file of that name, but for how it is bound."""
    name = made["metadata"]["name"]
    file = (addon / "definitions" / f"{name}.cue").read_text(encoding="utf-8")
    theirs = as_kubevela_makes_it(name, file, folder, kubevela)
    assert theirs["metadata"]["annotations"].pop("addon.oam.dev/bind-component") == "template.cue"
    assert made["metadata"].pop("namespace") == "vela-system"
    again = as_a_file(made["spec"]["schematic"]["cue"]["template"], file)
    made["spec"]["schematic"] = as_kubevela_makes_it(name, again, folder, kubevela)["spec"]["schematic"]
    for one in (made, theirs):
        one["spec"]["schematic"]["cue"]["template"] = bare(one["spec"]["schematic"]["cue"]["template"])
    assert made == theirs


def as_kubevela_makes_it(name: str, text: str, folder: Path, kubevela: str) -> dict[str, Any]:
    (folder / f"{name}.cue").write_text(text, encoding="utf-8")
    subprocess.run(
        [str(tool("vela", kubevela)), "def", "render", f"{name}.cue", "-o", f"{name}.yaml"],
        cwd=folder,
        env=offline_environment(folder),
        capture_output=True,
        timeout=60,
        check=True,
    )
    found: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def as_a_file(template: str, like: str) -> str:
    """The template of an object in the file of its definition, for KubeVela to format both alike."""
    imports = re.match(r"import \(\n.*?\n\)\n", template, re.DOTALL)
    body = template[imports.end() :] if imports else template
    metadata = re.sub(r"^//.*\n|^import \(\n(?s:.*?)\n\)\n", "", like, flags=re.MULTILINE).partition("\ntemplate: {")[0]
    return f"{imports[0] if imports else ''}\n{metadata}\ntemplate: {{\n{body}\n}}\n"


def bare(template: str) -> str:
    """Without spaces, and braces around one field, which go by a line's length."""
    return re.sub(r"[\s{}]+", "", template)


def component(application: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a component of type k8s-objects; none where it is not there."""
    found = [one for one in application["spec"]["components"] if one["name"] == name]
    return list(found[0]["properties"]["objects"]) if found else []
