"""The loop that keeps the plugins registered: as NVIDIA's, it starts all of them anew when the kubelet does."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import grpc

from velagen.gpusim import wire
from velagen.gpusim.config import Config
from velagen.gpusim.inventory import Gpu, PluginDevice, plugin_devices
from velagen.gpusim.load import LoadBook, Pod
from velagen.gpusim.metrics import GpuCollector, Holder, holders
from velagen.gpusim.paths import Paths, unplugged
from velagen.gpusim.plugin import ResourcePlugin

log = logging.getLogger(__name__)

#: Seconds until the API server is asked again whose an address is: anybody on the node can make us ask.
_ASK_AGAIN: Final = 1.0


class Simulator:
    """Plugins for all resources of a node, kept alive until `run` is told to stop.

    Args:
        node: the node's name; ids follow from it.
        gpus: the inventory.
        config: the plugin's configuration.
        paths: where the kubelet is.
        environment: more variables for every container with a GPU.
        recover: say that a GPU is healthy again as soon as it is plugged back in. The real plugin never does, until
            it starts anew.
        set_labels: called with nothing at each start and every ``label_seconds``; its errors are logged.
        pods: lists the node's pods for their load, every ``look_seconds``; None: reports only.
        poll_seconds, retry_seconds: how often to look at the kubelet's socket, and when to try again after a failure.

    Raises VelagenError when the configuration does not fit the inventory.
    """

    def __init__(
        self,
        node: str,
        gpus: Sequence[Gpu],
        config: Config,
        paths: Paths | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        recover: bool = False,
        set_labels: Callable[[], None] | None = None,
        pods: Callable[[], Sequence[Pod]] | None = None,
        poll_seconds: float = 1.0,
        retry_seconds: float = 30.0,
        label_seconds: float = 60.0,
        look_seconds: float = 5.0,
        stranger_seconds: float = 3.0,
    ) -> None:
        self.node = node
        self.gpus = tuple(gpus)
        self.config = config
        self.paths = paths or Paths()
        self.advertised: dict[str, tuple[PluginDevice, ...]] = plugin_devices(self.gpus, config)
        self.environment = dict(environment or {})
        self.recover = recover
        self.book = LoadBook()
        self._set_labels = set_labels
        self._pods = pods
        self._poll, self._retry = poll_seconds, retry_seconds
        self._label_every, self._look_every = label_seconds, look_seconds
        #: How long a report waits for the API server to say whose its address is.
        self._stranger = stranger_seconds
        #: Address of each pod of the node, and when that was asked last.
        self._addresses: dict[tuple[str, str], str] = {}
        self._asked = float("-inf")
        self._asking = threading.Lock()
        self._restart = threading.Event()
        self._plugins: list[ResourcePlugin] = []
        #: GPUs found out since the plugins started; without ``recover`` it only grows.
        self._out: frozenset[int] = frozenset()

    def collector(self) -> GpuCollector:
        """Metrics of this node's GPUs."""
        share = max((entry.replicas for entry in self.config.sharing.resources), default=1)
        return GpuCollector(
            self.node,
            self.gpus,
            self.holders,
            self.book,
            lambda: unplugged(self.paths.state),
            memory_share=share if self.config.sharing.strategy == "mps" else 1,
        )

    def holders(self) -> dict[str, list[Holder]]:
        """Which container holds which device now; nothing when the kubelet does not say."""
        try:
            return holders(wire.list_pod_resources(str(self.paths.pod_resources)), self.advertised)
        except grpc.RpcError as error:
            log.warning("no pod resources from the kubelet: %s", _reason(error))
            return {}

    def may_report(self, address: str, pod: tuple[str, str]) -> bool:
        """Whether a report on a pod (namespace, name) may come from an address: from the pod's own.

        Pods in the node's network share its address, and can't be told apart. Where no API server says whose an address
        is, this machine alone may report. A container runs a moment before its pod's address is known there: a report
        from an address that is not anybody's yet waits for it, `stranger_seconds` at most.
        """
        if self._pods is None:
            return ipaddress.ip_address(address).is_loopback
        until = time.monotonic() + self._stranger
        while True:
            with self._asking:
                if self._addresses.get(pod) != address and time.monotonic() - self._asked > _ASK_AGAIN:
                    self._asked = time.monotonic()
                    try:
                        self._know(self._pods())
                    except Exception:
                        # Any: the API server may be away for a while, and the report is refused then.
                        log.exception("the node's pods can't be listed")
                known = self._addresses.get(pod)
                is_of_another = address in self._addresses.values()
            if known is not None or is_of_another or time.monotonic() >= until:
                return known == address
            time.sleep(0.2)

    def _know(self, pods: Sequence[Pod]) -> None:
        self._addresses = {(pod.namespace, pod.name): pod.ip for pod in pods if pod.ip}

    def restart(self) -> None:
        """Start all plugins anew soon (SIGHUP)."""
        self._restart.set()

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set; a kubelet that is away, back or new is taken as it comes."""
        clock = time.monotonic
        threads = [
            threading.Thread(target=self._repeat, args=(stop, action, seconds), name=name, daemon=True)
            for action, seconds, name in (
                (self._set_labels, self._label_every, "labels"),
                (self._look if self._pods else None, self._look_every, "load"),
            )
            if action is not None
        ]
        for thread in threads:
            thread.start()
        try:
            while not stop.is_set():
                self._restart.clear()
                # Taken before the start: a kubelet that comes up in between must not be missed.
                seen = self._identity()
                retry_at = None if self._start() else clock() + self._retry
                while not stop.wait(self._poll) and not self._restart.is_set():
                    now = self._identity()
                    if now != seen and now is not None:
                        log.info("the kubelet's socket is new: registering again")
                        break
                    seen = now
                    if retry_at is not None and clock() >= retry_at:
                        break
                    self._check_health()
                self._stop()
        finally:
            self._stop()
            for thread in threads:
                thread.join(timeout=self._poll)

    def _start(self) -> bool:
        self._out = unplugged(self.paths.state)
        for resource, devices in self.advertised.items():
            plugin = ResourcePlugin(
                resource, devices, self.config, self.paths.plugins, self.paths.kubelet, self.environment
            )
            plugin.set_unhealthy(device.id for device in devices if device.gpu in self._out)
            try:
                plugin.start()
            except (grpc.RpcError, OSError) as error:
                log.warning(
                    "%s could not be registered: %s; trying again in %g s", resource, _reason(error), self._retry
                )
                return False
            self._plugins.append(plugin)
        return True

    def _stop(self) -> None:
        for plugin in self._plugins:
            plugin.stop()
        self._plugins = []

    def _check_health(self) -> None:
        now = unplugged(self.paths.state)
        out = now if self.recover else self._out | now
        if out != self._out:
            log.info("GPUs that are out: %s", ", ".join(map(str, sorted(out))) or "none")
            self._out = out
            for plugin in self._plugins:
                plugin.set_unhealthy(device.id for device in plugin.devices.values() if device.gpu in out)

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self.paths.kubelet.stat()
        except OSError:
            return None
        # The inode alone does not do: a file system may give the same number again at once.
        return found.st_dev, found.st_ino, found.st_ctime_ns

    def _look(self) -> None:
        if self._pods is not None:
            pods = self._pods()
            self._know(pods)
            self.book.look(pods)

    @staticmethod
    def _repeat(stop: threading.Event, action: Callable[[], None], seconds: float) -> None:
        while True:
            try:
                action()
            except Exception:
                # Labels and load must not end the plugin: the API server may be away for a while.
                log.exception("will try again in %g s", seconds)
            if stop.wait(seconds):
                return


def _reason(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)
