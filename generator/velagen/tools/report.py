"""What a person who waits is told: bars on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # rich takes its time to import, and where the tools are there nobody has to be told anything.
    from rich.console import Console
    from rich.progress import Progress

#: A line at most this often where stderr is not a terminal, in seconds.
QUIET_SECONDS = 20.0


class Bar:
    """Progress of one thing. Made by `Reporter.bar`."""

    def __init__(self, show: Progress | None, say: Reporter, label: str, total: float | None, unit: str) -> None:
        self._show = show
        self._say = say
        self._label = label
        self._total = total
        self._unit = unit
        self._done = 0.0
        self._last = time.monotonic()
        self._task = show.add_task(label, total=total) if show else None

    def set(self, done: float, total: float | None = None) -> None:
        """Set how much is done, in the unit of the bar."""
        self._done = done
        self._total = total if total is not None else self._total
        if self._show is not None and self._task is not None:
            self._show.update(self._task, completed=done, total=self._total)
        elif time.monotonic() - self._last > QUIET_SECONDS:
            self._last = time.monotonic()
            self._say.say(
                f"{self._label}: {self._amount(done)}" + (f" of {self._amount(self._total)}" if self._total else "")
            )

    def advance(self, step: float = 1.0) -> None:
        """Add to what is done."""
        self.set(self._done + step)

    def _amount(self, value: float) -> str:
        return f"{value / 1e6:.0f} MB" if self._unit == "bytes" else f"{value:.0f} {self._unit}"


class Reporter:
    """Says what is going on."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console

    @cached_property
    def console(self) -> Console:
        """Where it is said: the console given, else standard error."""
        from rich.console import Console

        return self._console or Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """Print one line; on a terminal it goes above the running bar."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, *, total: float | None, unit: str) -> Iterator[Bar]:
        """Show the progress of one thing.

        Args:
            total: in `unit`; None = not known yet.
            unit: ``bytes``, or a plural noun.
        """
        if not self.console.is_terminal:
            yield Bar(None, self, label, total, unit)
            return
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            amount,
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        ) as show:
            yield Bar(show, self, label, total, unit)
