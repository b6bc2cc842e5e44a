"""Plays the metrics of many models' pods and of the gateway before them, on loopback, from pages of real servers.

A page under pages/ is what a server gave after a minute's traffic. Its counters go on growing at that pace.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent / "pages"
#: What serves the models, of ten in a row.
MIX = ("triton", "triton", "triton", "mlserver", "mlserver", "kserve", "kserve", "kserve", "vllm", "vllm")
GATEWAY, STATE = "envoy", "state"
SPACE = "team"
#: Seconds of traffic that a page holds.
_HELD = 60.0
#: Seconds between two questions that are answered alike.
_SAME = 1.0
_GROWS = ("counter", "histogram", "summary")


@dataclass(frozen=True)
class Page:
    """One page: its lines with what they say, and whether it grows."""

    lines: tuple[tuple[str, float, bool], ...]

    @classmethod
    def read(cls, name: str) -> Page:
        """Read a file of `PAGES`."""
        lines = []
        grows = False
        for line in (PAGES / f"{name}.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("# TYPE "):
                grows = line.split()[3] in _GROWS
            elif line and not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                lines.append((series, float(value), grows))
        return cls(tuple(lines))

    def text(self, seconds: float, of: str = "", **names: str) -> str:
        """Give it as it stands after so many seconds.

        Args:
            of: only the lines with this word in them.
            names: what the words of capitals in it stand for.
        """
        more = 1 + seconds / _HELD
        lines = (f"{series} {value * more if grows else value}" for series, value, grows in self.lines if of in series)
        text = "\n".join(lines)
        for word, name in names.items():
            text = text.replace(word, name)
        return text + "\n"


@dataclass(frozen=True)
class Model:
    """One model: what serves it, and its pods."""

    number: int
    pods: int

    @property
    def name(self) -> str:
        """Its name, and that of all that is its own."""
        return f"m{self.number}"

    @property
    def server(self) -> str:
        """What serves it: a page's name."""
        return MIX[self.number % len(MIX)]

    @property
    def labels(self) -> dict[str, str]:
        """What the scrape configuration puts on its targets."""
        return {
            "app": self.name,
            "component": self.name,
            "namespace": SPACE,
            "version": self.name,
            "part": "predictor",
        }


@dataclass
class Exporter:
    """All of it behind one port: ``/NAME/POD`` for a pod, ``/envoy`` for the gateway, ``/state`` for the cluster."""

    models: tuple[Model, ...]
    port: int = 0

    def __post_init__(self) -> None:
        self._start = time.monotonic()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._made: dict[str, tuple[float, bytes]] = {}

    @cached_property
    def _pages(self) -> dict[str, Page]:
        return {name: Page.read(name) for name in {*MIX, GATEWAY, STATE}}

    def body(self, path: str) -> bytes:
        """Give a path's page; several that ask at the same time get one, as the gateway's takes a second to make."""
        asked = time.monotonic()
        with self._locks[path]:
            made, body = self._made.get(path, (0.0, b""))
            if made < asked - _SAME:
                made = time.monotonic()
                body = self.answer(path, made - self._start).encode()
                self._made[path] = made, body
            return body

    def answer(self, path: str, since: float) -> str:
        """Give what stands at a path after so many seconds."""
        first, *_ = path.strip("/").split("/")
        if first in {GATEWAY, STATE}:
            page = self._pages[first]
            # The gateway knows a model, the cluster each of its pods too.
            return "".join(
                page.text(
                    since, "POD" if pod else "", MODEL=model.name, SPACE=SPACE, POD=f"{model.name}-predictor-{pod}"
                )
                for model in self.models
                for pod in range(model.pods if first == STATE else 1)
            )
        model = self.models[int(first.removeprefix("m"))]
        return self._pages[model.server].text(since, MODEL=model.name)

    def targets(self) -> list[dict[str, Any]]:
        """Give the entries of ``static_configs``, labelled as service discovery would have it."""
        address = [f"127.0.0.1:{self.port}"]
        found = [
            {
                "targets": address,
                "labels": {
                    **model.labels,
                    "pod": f"{model.name}-predictor-{pod}",
                    "instance": f"10.0.{model.number}.{pod}:8080",
                    "__metrics_path__": f"/{model.name}/{pod}",
                },
            }
            for model in self.models
            for pod in range(model.pods)
        ]
        gateway = {"namespace": "projectcontour", "pod": "envoy-1", "instance": "envoy-1"}
        return [*found, {"targets": address, "labels": {**gateway, "__metrics_path__": f"/{GATEWAY}"}}]

    @contextmanager
    def running(self) -> Iterator[Exporter]:
        """Serve while the block runs."""
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.body(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
