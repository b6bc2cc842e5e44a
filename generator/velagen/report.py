"""How problems are shown: one form for every command."""

from __future__ import annotations

import errno
import linecache
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from velagen.errors import Problem, VelagenError
from velagen.extras import missing_extra

if TYPE_CHECKING:
    # rich takes its time to import, and most commands have nothing to say.
    from rich.console import Console
    from rich.text import Text

#: Past this many the rest is counted only: nobody reads on.
MOST_SHOWN = 50


def show_problems(problems: Iterable[Problem], console: Console | None = None) -> None:
    """Print problems in the order of their places, each with the line it is about, and a last line that counts them.

    In: any number of problems; where to print (standard error by default). A problem that occurs twice is shown once.
    """
    unique = list(dict.fromkeys(problems))
    if not unique:
        return
    console = console or stderr()
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


def stderr() -> Console:
    """Where problems are shown: standard error, with no line broken that a tool may read."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_diff(diff: str, console: Console | None = None) -> None:
    """Print a unified diff: in colour on a terminal, as plain text elsewhere, so that ``patch`` can read it."""
    from rich.console import Console
    from rich.syntax import Syntax

    console = console or Console()
    if console.is_terminal:
        console.print(Syntax(diff, "diff", background_color="default"))
    else:
        console.file.write(diff)


def explained(error: BaseException) -> tuple[Problem, ...]:
    """Any error as problems: what went wrong in a sentence, and what can be done where that is known."""
    match error:
        case VelagenError():
            return error.problems
        case ModuleNotFoundError() if problem := missing_extra(error):
            return (problem,)
        case MemoryError():
            return (Problem("there is not enough memory for this", hint="is the input as large as it should be?"),)
        case RecursionError():
            return (Problem("this input is nested too deeply"),)
        case subprocess.TimeoutExpired(cmd=command, timeout=seconds):
            return (Problem(f"{_program(command)} did not end within {seconds:.0f} seconds"),)
        case subprocess.CalledProcessError(cmd=command, returncode=status, stderr=said):
            text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
            return (Problem(f"{_program(command)} ended with status {status}{': ' * bool(last)}{last}"),)
        case UnicodeEncodeError():
            reason = f"the output's encoding {error.encoding} has no character {error.object[error.start]!a}"
            return (Problem(reason, hint="set PYTHONUTF8=1, or a locale with UTF-8"),)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return (Problem(f"the disk is full{_of(error)}", hint="velagen lab prune frees what labs have left"),)
        case OSError(strerror=str() as reason):
            return (Problem(f"{reason[:1].lower()}{reason[1:]}{_of(error)}"),)
    words = " ".join(str(error).split())
    words = words if len(words) <= 300 else words[:297] + "..."
    if type(error).__name__ in {"ApiError", "ApiException"}:
        # Those of velagen.lab.api and of the kubernetes client, which not every command imports.
        reason = getattr(error, "reason", None) or words
        return (Problem(f"the API server refused ({getattr(error, 'status', '?')}): {reason}"),)
    if isinstance(error, OSError):
        # The errors of the network come as such, with no number: those of requests, timeouts of sockets.
        return (Problem(words or type(error).__name__),)
    return (
        Problem(
            f"velagen failed where it should not: {type(error).__name__}: {words}",
            hint="this is a fault in velagen; with VELAGEN_DEBUG=1 it shows where",
        ),
    )


def _program(command: object) -> str:
    first = command[0] if isinstance(command, list | tuple) and command else command
    return Path(str(first)).name


def _of(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


def _rendered(problem: Problem) -> Text:
    from rich.text import Text

    colour = "red" if problem.severity == "error" else "yellow"
    place = problem.place
    text = Text()
    spot = ":".join(str(part) for part in (place.file, place.line, place.column) if part is not None)
    if spot:
        text.append(spot, "bold").append(": ")
    text.append(problem.severity, f"bold {colour}").append(f": {problem.message}")
    if place.pointer:
        text.append(f"  ({place.pointer})", "dim")
    # A pipe has been read already; of what is not a file nothing is shown.
    there = bool(place.file and place.line) and Path(str(place.file)).is_file()
    source = linecache.getline(str(place.file), place.line or 0).rstrip("\n") if there else ""
    if source.strip():
        margin = f"{place.line:>5} | "
        text.append(f"\n{margin}", "dim").append(source)
        if place.column:
            text.append(f"\n{' ' * (len(margin) - 2)}| ", "dim").append(" " * (place.column - 1) + "^", colour)
    if problem.hint:
        text.append(f"\n      {problem.hint}", "cyan")
    return text
