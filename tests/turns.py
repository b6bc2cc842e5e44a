"""Who uses a cluster when: two sessions of tests at most, and one that measures or breaks things alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

#: More than two would take each other's cores.
SEATS = 2
_EVERY = 0.2


class Turns:
    """The locks of one cluster, as files in a folder that all who use it share."""

    def __init__(self, folder: Path) -> None:
        """:param folder: it is made."""
        folder.mkdir(parents=True, exist_ok=True)
        self._seats = [FileLock(folder / f"seat-{number}.lock") for number in range(SEATS)]
        self._uses = [FileLock(folder / f"use-{number}.lock") for number in range(SEATS)]
        # Who waits for all uses holds it, so that nobody comes in between.
        self._gate = FileLock(folder / "gate.lock")
        self._seat: int | None = None

    def take_seat(self) -> None:
        """Wait for a seat, and keep it until the process ends."""
        while self._seat is None:
            for number, lock in enumerate(self._seats):
                with suppress(Timeout):
                    lock.acquire(timeout=0)
                    self._seat = number
                    return
            time.sleep(_EVERY)

    @contextmanager
    def use(self, *, alone: bool) -> Iterator[None]:
        """Use the cluster, beside the other seat or alone."""
        self.take_seat()
        assert self._seat is not None
        mine = self._uses if alone else [self._uses[self._seat]]
        with self._gate:
            for lock in mine:
                lock.acquire(poll_interval=_EVERY)
        try:
            yield
        finally:
            for lock in mine:
                lock.release()
