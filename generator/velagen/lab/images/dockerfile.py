"""The same recipes for a Docker engine that can pull: images of our own, which no registry has, are built from them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from velagen.errors import Problem, VelagenError
from velagen.lab.images.assemble import put
from velagen.lab.images.lock import locked
from velagen.lab.images.recipe import SITE, SUITE, Part, Recipe, recipes

#: What debootstrap makes on the other road.
BASE = f"docker.io/library/debian:{SUITE}-slim"


def write_context(name: str, folder: Path) -> None:
    """Write what ``docker build`` takes: a Dockerfile and the files it copies.

    The result holds what the assembled image holds: the same packages, at the same paths, as the same user.

    Args:
        name: a recipe with an operating system at the bottom of its chain.
        folder: an empty folder.

    Raises:
        VelagenError: no such image, it has no operating system, or an upstream file is not there.
    """
    chain = recipes().chain(name)
    if chain[0].packages is None:
        raise VelagenError(Problem(f"image {name} has no operating system: a registry or the assembler gives it"))
    lines = [f"FROM {BASE}"]
    for recipe in chain:
        lines += _step(recipe, folder)
    config = {
        key: next((value for recipe in reversed(chain) if (value := getattr(recipe, key))), None) for key in _ONCE
    }
    if config["workdir"]:
        lines.append(f"WORKDIR {config['workdir']}")
    if config["user"]:
        lines.append(f"USER {config['user']}")
    if config["stop_signal"]:
        lines.append(f"STOPSIGNAL {config['stop_signal']}")
    if config["entrypoint"]:
        lines.append(f"ENTRYPOINT {json.dumps(config['entrypoint'])}")
    if config["cmd"]:
        lines.append(f"CMD {json.dumps(config['cmd'])}")
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")


_ONCE = ("workdir", "user", "stop_signal", "entrypoint", "cmd")


def _step(recipe: Recipe, folder: Path) -> list[str]:
    lines = [f"# {recipe.name}"]
    if recipe.packages is not None:
        packages = " ".join([*recipe.packages, "python3-pip"])
        lines.append(
            f"RUN apt-get update && apt-get install --yes --no-install-recommends {packages}"
            " && rm -rf /var/lib/apt/lists/*"
        )
    if recipe.python or recipe.python_alone:
        (folder / f"{recipe.name}.txt").write_text(locked(recipe), encoding="utf-8")
        lines.append(f"COPY {recipe.name}.txt /tmp/lock.txt")
        lines.append(
            f"RUN python3 -m pip install --no-cache-dir --no-compile --target={SITE} --upgrade"
            " --no-deps --only-binary=:all: --require-hashes --requirement=/tmp/lock.txt && rm /tmp/lock.txt"
        )
        # With --target the console scripts land in the site itself.
        lines.append(f"RUN if [ -d {SITE}/bin ]; then cp {SITE}/bin/* /usr/local/bin/ && rm -r {SITE}/bin; fi")
        unneeded = "".join(f" && rm -r {pattern}" for pattern in recipe.without)
        lines.append(f"RUN cd {SITE} && find . -type d -name tests -prune -exec rm -r {{}} +{unneeded}")
    for number, part in enumerate(recipe.parts):
        lines += _part(part, folder, f"{recipe.name}-{number}")
    lines += [f"RUN {shlex.join(['/bin/sh', '-euc', command])}" for command in recipe.run]
    lines += [f"ENV {key}={json.dumps(value)}" for key, value in recipe.env.items()]
    return lines


def _part(part: Part, folder: Path, name: str) -> list[str]:
    path = shlex.quote(part.path)
    if part.folder:
        return [f"RUN mkdir -p {path} && chmod {0o755 if part.mode is None else part.mode:o} {path}"]
    if part.link is not None:
        return [f"RUN mkdir -p {shlex.quote(str(Path(part.path).parent))} && ln -sfn {shlex.quote(part.link)} {path}"]
    # Under the part's own root, so that a file and a folder are copied alike, with their modes.
    root = folder / name
    put(part, root)
    return [f"COPY {name}/ /"]
