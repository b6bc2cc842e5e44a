"""What two releases of KubeVela say, as one list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from velagen.errors import Problem


def merged(found: Mapping[str, Sequence[Problem]]) -> list[Problem]:
    """The problems of each release, every one said once.

    In: problems by the release they are found on, such as ``1.11.0``. What all of them find is said as it is, in the
    first one's words where the words differ at a place; what only some find names the releases.
    """
    everywhere: list[Problem] = []
    for problem in dict.fromkeys(problem for problems in found.values() for problem in problems):
        on = [version for version, problems in found.items() if problem in problems]
        elsewhere = [version for version in found if version not in on]
        if all(any(_alike(problem, other) for other in found[version]) for version in elsewhere):
            if on[0] == next(iter(found)):
                everywhere.append(problem)
            continue
        everywhere.append(replace(problem, message=f"on KubeVela {' and '.join(on)}: {problem.message}"))
    return everywhere


def _alike(one: Problem, other: Problem) -> bool:
    """Whether both are about one place of a file, and equally bad; a whole file is no place."""
    return bool(one.place.pointer) and one.place == other.place and one.severity == other.severity
