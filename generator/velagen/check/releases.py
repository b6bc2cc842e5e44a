"""What two releases of KubeVela say, as one list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from velagen.errors import Problem


def merged(found: Mapping[str, Sequence[Problem]]) -> list[Problem]:
    """The problems of each release, every one said once.

    In: problems by the release they are found on, such as ``1.11.0``. What all of them find is said as it is; where
    they find fault with one part in words of their own, the words that name the property, else the first one's, are
    said. What only some find names the releases.
    """
    told: list[Problem] = []
    for problem in dict.fromkeys(problem for problems in found.values() for problem in problems):
        on = [version for version, problems in found.items() if problem in problems]
        elsewhere = [
            [other for other in problems if other not in found[on[0]] and _alike(problem, other)]
            for version, problems in found.items()
            if version not in on
        ]
        if not all(elsewhere):
            told.append(replace(problem, message=f"on KubeVela {' and '.join(on)}: {problem.message}"))
            continue
        others = [other for problems in elsewhere for other in problems]
        first = on[0] == next(iter(found))
        if all(_precision(problem) >= _precision(other) + (not first) for other in others):
            told.append(problem)
    return told


def _alike(one: Problem, other: Problem) -> bool:
    """Whether both find fault with the same part of a file, and equally much; a whole file is not a part."""
    return (
        bool(one.place.pointer and other.place.pointer)
        and one.place.file == other.place.file
        and one.severity == other.severity
        and _part(one) == _part(other)
    )


def _precision(problem: Problem) -> int:
    return (problem.place.pointer or "").count("/")


def _part(problem: Problem) -> str:
    """The pointer of the component, trait, policy or step, without what is inside its properties."""
    return (problem.place.pointer or "").partition("/properties")[0]
