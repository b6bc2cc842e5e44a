"""How problems are shown: one form for every command."""

from __future__ import annotations

import functools
import linecache
import sys
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from velagen.errors import Problem, VelagenError

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: Past this many the rest is counted only: nobody reads on.
MOST_SHOWN = 50


def show_problems(problems: Iterable[Problem], console: Console | None = None) -> None:
    """Print problems in the order of their places, each with the line it is about, and a last line that counts them.

    In: any number of problems; where to print (standard error by default). A problem that occurs twice is shown once.
    """
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    unique = list(dict.fromkeys(problems))
    unique.sort(key=lambda one: (one.place.file or "", one.place.line or 0, one.place.column or 0))
    for problem in unique[:MOST_SHOWN]:
        console.print(_rendered(problem))
    if len(unique) > MOST_SHOWN:
        console.print(f"... and {len(unique) - MOST_SHOWN} more")
    counts = [
        f"{count} {word}{'s' * (count != 1)}"
        for word in ("error", "warning")
        if (count := sum(one.severity == word for one in unique))
    ]
    if counts:
        console.print(", ".join(counts))


def show_diff(diff: str, console: Console | None = None) -> None:
    """Print a unified diff: in colour on a terminal, as plain text elsewhere, so that ``patch`` can read it."""
    console = console or Console()
    if console.is_terminal:
        console.print(Syntax(diff, "diff", background_color="default"))
    else:
        console.file.write(diff)


def exits_with_problems(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """A click command whose VelagenError is shown, with exit status 1, and never as a traceback."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except VelagenError as error:
            show_problems(error.problems)
            sys.exit(1)

    return run


def _rendered(problem: Problem) -> Text:
    colour = "red" if problem.severity == "error" else "yellow"
    place = problem.place
    text = Text()
    spot = ":".join(str(part) for part in (place.file, place.line, place.column) if part is not None)
    if spot:
        text.append(spot, "bold").append(": ")
    text.append(problem.severity, f"bold {colour}").append(f": {problem.message}")
    if place.pointer:
        text.append(f"  ({place.pointer})", "dim")
    source = linecache.getline(place.file, place.line).rstrip("\n") if place.file and place.line else ""
    if source.strip():
        margin = f"{place.line:>5} | "
        text.append(f"\n{margin}", "dim").append(source)
        if place.column:
            text.append(f"\n{' ' * (len(margin) - 2)}| ", "dim").append(" " * (place.column - 1) + "^", colour)
    if problem.hint:
        text.append(f"\n      {problem.hint}", "cyan")
    return text
