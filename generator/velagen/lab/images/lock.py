"""The Python packages of each image, to the byte: locks/NAME.txt beside the recipes, read by pip.

``python -m velagen.lab.images.lock [NAME ...]`` resolves anew and writes them, after a change of a recipe's ``python``
or ``python_alone``, or to take newer versions. It asks the package index that pip is configured for.
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
from velagen.lab.images.recipe import HERE, PYTHON, Recipe, recipes

#: Machines whose wheels a lock names, as `os.uname` calls them; versions are resolved for the first.
MACHINES = ("x86_64", "aarch64")
#: glibc 2.36 (bookworm) runs the wheels of all before it.
_GLIBC = [(2, minor) for minor in range(36, 4, -1)]


def wheels_for(python: str, machine: str) -> list[str]:
    """Give the command that chooses an image's packages, wheels only, up to the requirements.

    :param python: one whose markers are those of the image's Python.
    :param machine: ``x86_64``, ``aarch64``.
    """
    tags = [f"manylinux_{major}_{minor}_{machine}" for major, minor in _GLIBC]
    tags += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}", f"linux_{machine}"]
    return [
        *(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *(f"--python-version={PYTHON[0]}.{PYTHON[1]}", "--implementation=cp", "--only-binary=:all:"),
        *(f"--platform={tag}" for tag in tags),
    ]


def wants(recipe: Recipe) -> str:
    """Give the first line of a recipe's lock: what it was resolved for."""
    alone = ["alone:", *recipe.python_alone] if recipe.python_alone else []
    return " ".join(["#", *recipe.python, *alone])


def locked(recipe: Recipe) -> str:
    """Give the lock of a recipe with Python packages: requirements that pip takes with ``--require-hashes``.

    :raises VelagenError: it is missing, or was made for other requirements.
    """
    if recipe.lock.partition("\n")[0] == wants(recipe):
        return recipe.lock
    what = "is missing" if not recipe.lock else "was made for other requirements than the recipe's"
    raise VelagenError(
        Problem(
            f"the lock of image {recipe.name} {what}", hint=f"Write it: python -m velagen.lab.images.lock {recipe.name}"
        )
    )


def resolve(recipe: Recipe) -> str:
    """Resolve a recipe's requirements and give its lock.

    :raises VelagenError: pip finds no versions that fit together, or reaches no index.
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
    for image in wanted:
        target = HERE / "locks" / f"{image}.txt"
        target.parent.mkdir(exist_ok=True)
        target.write_text(resolve(recipes()[image]), encoding="utf-8")
        print(target)
