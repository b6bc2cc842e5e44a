"""A real Prometheus that holds series which a test writes down, up to now."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from tests.unit.promtool import promtool, selector

from velagen.lab.process import free_ports
from velagen.tools import in_cache, table, tool

#: A series: name and labels; its value at so many seconds before now, None where it has none.
Series = tuple[str, Mapping[str, str], Callable[[float], float | None]]


def binary() -> str:
    """Prometheus of PATH, else our own. Building it takes minutes and is left to those who set up a kind cluster."""
    found = shutil.which("prometheus")
    if found is None and not in_cache(table().row("prometheus")):
        pytest.skip("no Prometheus here: velagen tools install prometheus (built in 8 min)")
    return found or str(tool("prometheus"))


#: Seconds after now for which values are written, too, with ages below 0: what is asked a while later is still there.
AHEAD = 900


def openmetrics(series: list[Series], now: float, back: float, every: float) -> str:
    """All values from *back* seconds before now on, and some after it."""
    by_name: dict[str, list[str]] = {}
    for name, labels, value in series:
        lines = by_name.setdefault(name, [])
        ago = back
        while ago >= -AHEAD:
            if (found := value(ago)) is not None:
                lines.append(f"{name}{selector(dict(labels))} {found} {now - ago:.3f}")
            ago -= every
    text = "".join(f"# TYPE {name} unknown\n" + "\n".join(lines) + "\n" for name, lines in by_name.items())
    return text + "# EOF\n"


@contextmanager
def holding(
    folder: Path,
    series: list[Series],
    *,
    back: float = 3600,
    every: float = 15,
    now: float | None = None,
    host: str = "127.0.0.1",
) -> Iterator[str]:
    """Run a Prometheus that holds these series; gives its address."""
    now = time.time() if now is None else now
    (folder / "series.txt").write_text(openmetrics(series, now, back, every), encoding="utf-8")
    data = folder / "data"
    blocks = [promtool(), "tsdb", "create-blocks-from", "openmetrics", str(folder / "series.txt"), str(data)]
    made = subprocess.run(blocks, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (folder / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
    port = free_ports(["prometheus"])["prometheus"]
    address = f"http://{host}:{port}"
    arguments = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}"]
    arguments += [f"--web.listen-address={host}:{port}", "--storage.tsdb.retention.time=10y"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([binary(), *arguments], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    if requests.get(f"{address}/-/ready", timeout=5).ok:
                        break
                except requests.RequestException:
                    pass
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.wait(20)
