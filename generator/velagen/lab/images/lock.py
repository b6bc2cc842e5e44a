"""The Python packages of each image, to the byte: locks/NAME.txt beside the recipes, read by pip."""

from __future__ import annotations

from velagen.errors import Problem, VelagenError
from velagen.lab.images.recipe import PYTHON, Recipe

#: glibc 2.36 (bookworm) runs the wheels of all before it.
_GLIBC = [(2, minor) for minor in range(36, 4, -1)]


def wheels_for(python: str, machine: str) -> list[str]:
    """Give the command that chooses an image's packages, wheels only, up to the requirements.

    Args:
        python: one whose markers are those of the image's Python.
        machine: ``x86_64``, ``aarch64``.
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

    Raises:
        VelagenError: it is missing, or was made for other requirements.
    """
    if recipe.lock.partition("\n")[0] == wants(recipe):
        return recipe.lock
    what = "is missing" if not recipe.lock else "was made for other requirements than the recipe's"
    raise VelagenError(
        Problem(
            f"the lock of image {recipe.name} {what}",
            hint=f"Write it: python -m velagen.lab.images.relock {recipe.name}",
        )
    )
