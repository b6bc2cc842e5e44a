"""Metrics in the names and labels of DCGM's exporter, and the small web server that gives them out."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from velagen.gpusim import names
from velagen.gpusim.inventory import Gpu, MigDevice, PluginDevice
from velagen.gpusim.load import LoadBook, parse_report
from velagen.gpusim.proto import podresources_pb2 as pr

log = logging.getLogger(__name__)

_LABELS: Final = (
    "gpu",
    "UUID",
    "pci_bus_id",
    "device",
    "modelName",
    "Hostname",
    "GPU_I_PROFILE",
    "GPU_I_ID",
    "vgpu",
    "container",
    "namespace",
    "pod",
)
_HELP: Final = {
    names.UTILIZATION: "GPU utilization (in %).",
    names.MEMORY_USED: "Framebuffer memory used (in MiB).",
    names.MEMORY_FREE: "Framebuffer memory free (in MiB).",
    names.ENGINE: "Ratio of time the graphics engine is active.",
    names.XID: "Value of the last XID error encountered.",
}
#: XID of a GPU that has fallen off the bus: what an unplugged one shows.
_FALLEN_OFF: Final = 79
#: Bytes of a report, and seconds that one may take to arrive.
_MAX_BODY: Final = 4096
_ARRIVES: Final = 5.0


@dataclass(frozen=True)
class Holder:
    """A container that holds a device."""

    namespace: str
    pod: str
    container: str
    #: Number of its share where the device is shared, else "".
    share: str = ""


def holders(
    resources: pr.ListPodResourcesResponse, advertised: Mapping[str, Sequence[PluginDevice]]
) -> dict[str, list[Holder]]:
    """UUID of a GPU or MIG device -> the containers that hold it, from the kubelet's answer."""
    known = {device.id: device for devices in advertised.values() for device in devices}
    found: dict[str, list[Holder]] = {}
    for pod in resources.pod_resources:
        for container in pod.containers:
            for entry in container.devices:
                if entry.resource_name not in advertised:
                    continue
                for id_ in entry.device_ids:
                    if id_ in known:
                        share = id_.partition("::")[2]
                        found.setdefault(known[id_].uuid, []).append(
                            Holder(pod.namespace, pod.name, container.name, share)
                        )
    return found


class GpuCollector(Collector):
    """Computes all series when asked; a device has the load of the pods that hold it, capped at what it has.

    Args:
        node: the node's name, label Hostname.
        gpus: the inventory.
        who: gives the holders of each device (UUID) now.
        book: gives each pod's load.
        unplugged: numbers of the GPUs that are unplugged now.
        memory_share: for MPS, into how many equal parts memory is cut (a client can't have more than its part).
    """

    def __init__(
        self,
        node: str,
        gpus: Sequence[Gpu],
        who: Callable[[], Mapping[str, Sequence[Holder]]],
        book: LoadBook,
        unplugged: Callable[[], Iterable[int]] = tuple,
        *,
        memory_share: int = 1,
    ) -> None:
        self.node = node
        self.gpus = gpus
        self.who = who
        self.book = book
        self.unplugged = unplugged
        self.memory_share = memory_share

    def collect(self) -> Iterable[Metric]:
        """The families, in the order of the table above."""
        families = {name: GaugeMetricFamily(name, text, labels=_LABELS) for name, text in _HELP.items()}
        who = self.who()
        broken = set(self.unplugged())
        for gpu in self.gpus:
            parts: tuple[Gpu | MigDevice, ...] = (gpu, *gpu.mig)
            for part in parts:
                memory = part.profile.memory_mib if isinstance(part, MigDevice) else gpu.model.memory_mib
                held = list(who.get(part.uuid, ()))
                util, used = self._load(held, memory)
                if isinstance(part, Gpu) and gpu.mig:
                    # The whole GPU shows what its instances use together.
                    inside = [self._load(list(who.get(mig.uuid, ())), mig.profile.memory_mib) for mig in gpu.mig]
                    used = min(float(memory), sum(entry[1] for entry in inside))
                values = {
                    names.MEMORY_USED: used,
                    names.MEMORY_FREE: memory - used,
                    names.ENGINE: util / 100,
                    names.XID: float(_FALLEN_OFF if gpu.position in broken else 0),
                }
                if not gpu.mig:
                    # DCGM gives no GPU_UTIL in MIG mode: there the engine's ratio is what to read.
                    values[names.UTILIZATION] = util
                for holder in held or [Holder("", "", "")]:
                    for name, value in values.items():
                        families[name].add_metric(self._labels(gpu, part, holder), value)
        return families.values()

    def _load(self, held: Sequence[Holder], memory: int) -> tuple[float, float]:
        """Utilisation (%) and memory (MiB) of a device; a pod counts once, with however many shares it holds."""
        loads = [self.book.of(namespace, pod) for namespace, pod in dict.fromkeys((h.namespace, h.pod) for h in held)]
        most = memory / self.memory_share
        return (
            min(100.0, sum(load.utilization for load in loads)),
            min(float(memory), sum(min(load.memory_mib, most) for load in loads)),
        )

    def _labels(self, gpu: Gpu, part: Gpu | MigDevice, holder: Holder) -> list[str]:
        mig = part if isinstance(part, MigDevice) else None
        return [
            gpu.index,
            gpu.uuid,
            f"00000000:{gpu.position + 1:02X}:00.0",
            f"nvidia{gpu.index}",
            gpu.model.name,
            self.node,
            mig.profile.name if mig else "",
            str(mig.position + 1) if mig else "",
            holder.share,
            holder.container,
            holder.namespace,
            holder.pod,
        ]


class MetricsServer:
    """``GET /metrics``, ``GET /healthz`` and ``POST /load`` (a pod's report); port 0 takes a free one.

    Args:
        collector: what ``/metrics`` shows.
        book: takes the reports.
        may_report: says whether a report on a pod (namespace, name) may come from an address.
        host, port: where to listen.
    """

    def __init__(
        self,
        collector: Collector,
        book: LoadBook,
        may_report: Callable[[str, tuple[str, str]], bool],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        registry = CollectorRegistry()
        registry.register(collector)

        class Handler(BaseHTTPRequestHandler):
            timeout = _ARRIVES

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path == "/healthz":
                    self._answer(200, b"ok\n")
                else:
                    self._answer(404, b"not found\n")

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if self.path != "/load":
                    self._answer(404, b"not found\n")
                elif not re.fullmatch("[0-9]{1,9}", length):
                    self._answer(400, b"a report has a Content-Length\n")
                elif int(length) > _MAX_BODY:
                    self._answer(413, f"a report has at most {_MAX_BODY} bytes\n".encode())
                else:
                    self._answer(*self._reported(self.rfile.read(int(length))))

            def _reported(self, body: bytes) -> tuple[int, bytes]:
                try:
                    pod, load, seconds = parse_report(json.loads(body))
                    address = str(self.client_address[0])
                    if not may_report(address, pod):
                        said = f"a pod reports for itself: {address} is not the address of {pod[0]}/{pod[1]}\n"
                        return 403, said.encode(errors="replace")
                    book.report(pod, load, seconds)
                except RecursionError:
                    return 400, b"the report is nested too deeply\n"
                except ValueError as error:
                    return 400, f"{error}\n".encode(errors="replace")
                return 204, b""

            def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                log.debug(format, *args)

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End serving and close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
