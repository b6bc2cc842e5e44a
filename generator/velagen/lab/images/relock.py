"""Resolves the Python packages of images anew and writes their locks.

``python -m velagen.lab.images.relock [NAME ...]``, after a change of a recipe's ``python`` or ``python_alone``, or to
take newer versions. It asks the package index that pip is configured for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from velagen.errors import Problem, VelagenError
from velagen.lab.images.lock import wants, wheels_for
from velagen.lab.images.recipe import HERE, PYTHON, Recipe, recipes

#: Machines whose wheels a lock names, as `os.uname` calls them; versions are resolved for the first.
MACHINES = ("x86_64", "aarch64")


def resolve(recipe: Recipe) -> str:
    """Resolve a recipe's requirements and give its lock.

    Raises:
        VelagenError: pip finds no versions that fit together, or reaches no index.
    """
    first, *others = MACHINES
    found = _asked(first, recipe.python) if recipe.python else {}
    # Like pip, which installs these last and puts them in the place of what is there.
    found |= _asked(first, recipe.python_alone, "--no-deps") if recipe.python_alone else {}
    hashes = {name: {one.sha256} for name, one in found.items()}
    missing = []
    for machine in others:
        pins = {name: f"{name}=={one.version}" for name, one in found.items() if not one.everywhere}
        try:
            there = _asked(machine, pins.values(), "--no-deps") if pins else {}
        except VelagenError:
            # One by one, to name those that are missing.
            there = {}
            for pin in pins.values():
                try:
                    there |= _asked(machine, [pin], "--no-deps")
                except VelagenError:
                    missing.append(f"# {machine}: there is no wheel of {pin}")
        for name, one in there.items():
            hashes[name].add(one.sha256)
    lines = [wants(recipe), *missing]
    for name, one in sorted(found.items()):
        lines.append(
            " ".join([f"{name}=={one.version}", *(f"--hash=sha256:{digest}" for digest in sorted(hashes[name]))])
        )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Wheel:
    version: str
    sha256: str
    #: Whether it is the same file on every machine.
    everywhere: bool


def _asked(machine: str, requirements: Iterable[str], *options: str) -> dict[str, _Wheel]:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [*wheels_for(sys.executable, machine), "--dry-run", "--ignore-installed", f"--target={scratch}"]
        done = subprocess.run(
            [*command, f"--report={report}", *options, *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise VelagenError(Problem(f"pip finds no wheels: {done.stderr.strip()[-500:]}"))
        chosen: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    found: dict[str, _Wheel] = {}
    for one in chosen:
        info = one["download_info"]
        everywhere = str(info["url"]).endswith("-none-any.whl")
        wheel = _Wheel(str(one["metadata"]["version"]), str(info["archive_info"]["hashes"]["sha256"]), everywhere)
        found[canonicalize_name(one["metadata"]["name"])] = wheel
    return found


if __name__ == "__main__":
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"run it with Python {PYTHON[0]}.{PYTHON[1]}, whose markers are those of the images")
    wanted = sys.argv[1:] or [name for name, one in recipes().images.items() if one.python or one.python_alone]
    try:
        for image in wanted:
            target = HERE / "locks" / f"{image}.txt"
            target.write_text(resolve(recipes()[image]), encoding="utf-8")
            print(target)
    except VelagenError as error:
        sys.exit(str(error))
