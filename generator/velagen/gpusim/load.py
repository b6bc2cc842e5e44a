"""How busy pods say they are: reports over HTTP, annotations, or the metrics a model server has anyway."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import requests
from prometheus_client.parser import text_string_to_metric_families

from velagen.gpusim.names import BUSY

UTILIZATION: Final = "velagen.dev/gpu-utilization"
MEMORY: Final = "velagen.dev/gpu-memory-mib"
#: A report holds for this long unless it says otherwise, in seconds: a dead pod must not keep its GPU busy.
REPORT_SECONDS: Final = 15.0
#: Pods whose reports are kept at once; a node runs a few hundred at most.
MOST_REPORTS: Final = 1024
#: Characters of a name and of a namespace (Kubernetes' limits), and bytes of a page of metrics that are read.
_LONGEST_NAME: Final = 253
_LARGEST_PAGE: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class Load:
    """What one pod does to each of its GPUs."""

    #: Per cent of the time the GPU computes, 0 to 100.
    utilization: float = 0.0
    memory_mib: float = 0.0


@dataclass(frozen=True)
class Pod:
    """What the API server says of a pod on this node."""

    namespace: str
    name: str
    ip: str = ""
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def metrics_url(self) -> str | None:
        """Where its metrics are, by the annotations KServe's runtimes and Prometheus use; None without them."""
        table = dict(self.annotations)
        for prefix in ("prometheus.kserve.io", "prometheus.io"):
            port, path = table.get(f"{prefix}/port", ""), table.get(f"{prefix}/path", "/metrics")
            # A path that begins otherwise could make the address another one.
            if port.isdecimal() and port.isascii() and self.ip and path.startswith("/"):
                return f"http://{self.ip}:{port}{path}"
        return None


def parse_report(document: object) -> tuple[tuple[str, str], Load, float]:
    """Read ``{"namespace", "pod", "utilization", "memoryMiB", "seconds"}``; ValueError says what is wrong.

    Returns the pod's (namespace, name), its load and for how many seconds that holds.
    """
    if not isinstance(document, dict):
        raise ValueError("a report is a JSON object")  # noqa: TRY004 - the caller answers 400 for any ValueError
    names = []
    for key, unnamed in (("namespace", "default"), ("pod", "")):
        name = document.get(key, unnamed)
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            raise ValueError("a report names its pod: namespace and pod are texts")
        names.append(name)
    numbers = []
    for key, default, top in (
        ("utilization", 0.0, 100.0),
        ("memoryMiB", 0.0, 1e9),
        ("seconds", REPORT_SECONDS, 3600.0),
    ):
        value = document.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= top:
            raise ValueError(f"{key} must be a number from 0 to {top:g}")
        numbers.append(float(value))
    return (names[0], names[1]), Load(numbers[0], numbers[1]), numbers[2]


def annotated(annotations: Mapping[str, str]) -> Load | None:
    """The load that annotations set, or None; what is not a number counts as not set."""
    values: list[float | None] = []
    for key in (UTILIZATION, MEMORY):
        try:
            values.append(max(0.0, float(annotations[key])))
        except (KeyError, ValueError):
            values.append(None)
    if values == [None, None]:
        return None
    return Load(min(100.0, values[0] or 0.0), values[1] or 0.0)


def busy_seconds(text: str) -> float | None:
    """Seconds of computing in a page of metrics, over all models; None when it has no counter we know."""
    total: float | None = None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name if sample.name in BUSY else sample.name.removesuffix("_total")
            if name in BUSY:
                total = (total or 0.0) + sample.value * BUSY[name]
    return total


def fetch_page(url: str) -> str:
    """The page of metrics at ``url``; requests.RequestException when it does not come within two seconds.

    ValueError when it is longer than any server's.
    """
    # A pod chooses what it answers: it must not send us elsewhere, or fill our memory.
    with requests.get(url, timeout=2, stream=True, allow_redirects=False) as answer:
        answer.raise_for_status()
        page = answer.raw.read(_LARGEST_PAGE + 1, decode_content=True)
    if len(page) > _LARGEST_PAGE:
        raise ValueError(f"{url} has more than {_LARGEST_PAGE} bytes")
    return str(page, "utf-8", "replace")


class LoadBook:
    """Who is how busy now. A report wins over an annotation, an annotation over what was scraped."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, fetch: Callable[[str], str] = fetch_page
    ) -> None:
        self._clock = clock
        self._fetch = fetch
        self._lock = threading.Lock()
        self._reports: dict[tuple[str, str], tuple[Load, float]] = {}
        self._annotated: dict[tuple[str, str], Load] = {}
        self._scraped: dict[tuple[str, str], float] = {}
        self._counters: dict[tuple[str, str], tuple[float, float]] = {}

    def report(self, pod: tuple[str, str], load: Load, seconds: float) -> None:
        """Note what the pod says, for ``seconds``; ValueError where too many others have said something."""
        with self._lock:
            self._drop_old()
            if pod not in self._reports and len(self._reports) >= MOST_REPORTS:
                raise ValueError(f"{MOST_REPORTS} pods have reported: no more are taken until their reports are old")
            self._reports[pod] = (load, self._clock() + seconds)

    def _drop_old(self) -> None:
        now = self._clock()
        self._reports = {pod: entry for pod, entry in self._reports.items() if entry[1] > now}

    def look(self, pods: Iterable[Pod]) -> None:
        """Read annotations and metrics of these pods, which are all there are.

        A page that can't be read counts as idle.
        """
        annotations: dict[tuple[str, str], Load] = {}
        scraped: dict[tuple[str, str], float] = {}
        counters: dict[tuple[str, str], tuple[float, float]] = {}
        for pod in pods:
            key = (pod.namespace, pod.name)
            load = annotated(dict(pod.annotations))
            if load is not None:
                annotations[key] = load
            url = pod.metrics_url
            if url is None:
                continue
            try:
                busy = busy_seconds(self._fetch(url))
            except (requests.RequestException, ValueError):
                continue
            if busy is None:
                continue
            now = self._clock()
            before, then = self._counters.get(key, (busy, now))
            counters[key] = (busy, now)
            # A counter that fell is a server that started anew.
            if now > then and busy >= before:
                scraped[key] = min(100.0, 100.0 * (busy - before) / (now - then))
        with self._lock:
            self._annotated, self._scraped, self._counters = annotations, scraped, counters

    def of(self, namespace: str, name: str) -> Load:
        """The load of one pod now; idle when nothing is known of it."""
        key = (namespace, name)
        with self._lock:
            self._drop_old()
            if key in self._reports:
                return self._reports[key][0]
            if key in self._annotated:
                return self._annotated[key]
            return Load(self._scraped.get(key, 0.0))
