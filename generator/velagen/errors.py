"""What went wrong, where, and what to write instead: collected first, raised once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, order=True)
class Place:
    """A spot in something a person wrote."""

    #: Path as the person gave it, or a name such as ``<schema>``.
    file: str | None = None
    #: 1-based line and column.
    line: int | None = None
    column: int | None = None
    #: JSON pointer (RFC 6901) inside the document.
    pointer: str | None = None

    def __str__(self) -> str:
        """``app.yaml:7:5 (/spec/components/0)``; empty where nothing is known."""
        spot = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        if self.pointer is None:
            return spot
        return f"{spot} ({self.pointer or '/'})" if spot else (self.pointer or "/")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in a sentence for the person who wrote it."""

    message: str
    place: Place = Place()
    #: What to write instead, or where to read on.
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """One line, or two where there is a hint."""
        spot = str(self.place)
        head = f"{spot}: {self.message}" if spot else self.message
        return f"{head}\n    {self.hint}" if self.hint else head


class VelagenError(Exception):
    """Raised once, with everything that was found wrong, before anything is written."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def pointer(path: Iterable[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a path of names and list positions."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``did you mean x?``, or nothing where nothing is near; *cutoff* says how near, 1 being the same."""
    word = word[:100]
    names = sorted(set(known))
    folded = {name.lower().replace("-", "").replace("_", ""): name for name in names}
    same = folded.get(word.lower().replace("-", "").replace("_", ""))
    near = [same] if same is not None and same != word else difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""
