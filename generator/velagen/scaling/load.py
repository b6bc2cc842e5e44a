"""The load of the demo: requests through a lab's gateway at a rate that changes, counted by the second."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import requests

from velagen.lab.traffic import here, local, open_loop

#: Requests that may be under way: five seconds of them, at rates that a laptop bears.
_AT_ONCE: Final = 256


class Load:
    """Requests to one model, and what became of them."""

    def __init__(self, entry: str, host: str, path: str, body: Mapping[str, Any]) -> None:
        """Name the gateway, the model's host, and the request. Raises VelagenError where *entry* is elsewhere."""
        self.address = f"{here(entry)}{path}"
        self.host = host
        self.body = body
        self.rate = 1.0
        self._begun = time.perf_counter()
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._sent: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()
        self._why: Counter[str] = Counter()
        #: Of each second, how long its requests took that were answered.
        self._took: defaultdict[int, list[float]] = defaultdict(list)

    @contextmanager
    def coming_in(self, longest: float) -> Iterator[None]:
        """Send at `rate`, which may change, while the block runs; after *longest* seconds it ends by itself."""
        self._begun = time.perf_counter()
        with open_loop(self._once, lambda: self.rate, longest=longest, workers=_AT_ONCE):
            yield

    @property
    def seconds(self) -> float:
        """Since the first request."""
        return time.perf_counter() - self._begun

    @property
    def sent(self) -> int:
        """All requests so far."""
        with self._lock:
            return sum(self._sent.values())

    @property
    def failed(self) -> int:
        """Those of them that had no answer, or one that says so."""
        with self._lock:
            return sum(self._failed.values())

    def why(self) -> str:
        """What became of those that failed, the most frequent first: ``status 503 (40), ConnectionError (2)``."""
        with self._lock:
            return ", ".join(f"{one} ({count})" for one, count in self._why.most_common(4))

    def answers(self) -> bool:
        """Whether the model answers one request, which is not counted."""
        return not self._ask()

    def by_second(self) -> tuple[list[int], list[int], list[float | None]]:
        """Of each whole second: requests sent in it, those that failed, and the mean milliseconds of the others."""
        with self._lock:
            seconds = range(int(self.seconds))
            took = [self._took.get(second) for second in seconds]
            return (
                [self._sent[second] for second in seconds],
                [self._failed[second] for second in seconds],
                [round(1000 * statistics.fmean(one), 1) if one else None for one in took],
            )

    def recent(self, over: int = 5) -> float:
        """Requests a second as they were sent in the last seconds."""
        now = int(self.seconds)
        with self._lock:
            return sum(self._sent[second] for second in range(max(0, now - over), now)) / max(1, min(over, now))

    def milliseconds(self, over: int = 30) -> float | None:
        """How long requests took that were sent in the last seconds, their mean; None where none was answered."""
        now = int(self.seconds)
        with self._lock:
            took = [one for second in range(max(0, now - over), now) for one in self._took.get(second, ())]
        return 1000 * statistics.fmean(took) if took else None

    def _ask(self) -> str:
        """Send one; why there was no good answer, or nothing."""
        if not hasattr(self._mine, "session"):
            self._mine.session = local()
        session: requests.Session = self._mine.session
        try:
            answer = session.post(self.address, json=self.body, headers={"Host": self.host}, timeout=30)
        except requests.RequestException as error:
            return type(error).__name__
        return "" if answer.ok else f"status {answer.status_code}"

    def _once(self) -> None:
        begun = time.perf_counter()
        second = int(begun - self._begun)
        with self._lock:
            self._sent[second] += 1
        why = self._ask()
        with self._lock:
            if why:
                self._failed[second] += 1
                self._why[why] += 1
            else:
                self._took[second].append(time.perf_counter() - begun)
