"""One device plugin: one resource, one socket, as the kubelet sees NVIDIA's."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from velagen.gpusim import node, wire
from velagen.gpusim.config import PREFIX, Config
from velagen.gpusim.inventory import PluginDevice
from velagen.gpusim.proto import deviceplugin_pb2 as dp

log = logging.getLogger(__name__)

_VOLUME_ROOT: Final = "/var/run/nvidia-container-devices"
_MPS_IN_CONTAINER: Final = "/mps"
#: How long a stopped server may take to end its calls, in seconds.
_GRACE: Final = 1.0


class ResourcePlugin:
    """Advertises ``devices`` under ``resource`` on a socket in ``folder``.

    `start` serves and registers, `stop` ends both.

    Args:
        resource: full name, ``nvidia.com/gpu``.
        devices: what to advertise, all healthy at first.
        config: how containers get their devices.
        folder: the kubelet's device-plugin folder.
        kubelet_socket: path of the kubelet's registration socket.
        environment: more variables for every container, beside the plugin's own.
    """

    def __init__(
        self,
        resource: str,
        devices: Sequence[PluginDevice],
        config: Config,
        folder: Path,
        kubelet_socket: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.resource = resource
        self.devices = {device.id: device for device in devices}
        self.config = config
        self.socket = folder / f"nvidia-{resource.removeprefix(PREFIX)}.sock"
        self.kubelet_socket = kubelet_socket
        self.environment = dict(environment or {})
        self._unhealthy: frozenset[str] = frozenset()
        self._changed = threading.Condition()
        self._generation = 0
        self._stopping = False
        self._server: grpc.Server | None = None
        #: Device and inode of the socket: another plugin may put its own in the same place.
        self._bound: tuple[int, int] | None = None

    def start(self, *, timeout: float = 5.0) -> None:
        """Serve on the socket, then register.

        Raises grpc.RpcError or OSError where the kubelet is not there, or another plugin is; nothing is left running.
        """
        # A plugin that crashed leaves its socket behind.
        node.remove_dead(self.socket)
        self._stopping = False
        server = grpc.server(
            ThreadPoolExecutor(max_workers=8, thread_name_prefix=self.socket.stem),
            handlers=[wire.device_plugin_handler(self)],
        )
        # gRPC removes what is at a socket's path, when it binds and when it stops: it gets a path of its own, and the
        # kubelet's is a link, which never takes the place of another's.
        own = self.socket.with_name(f".{self.socket.stem}-{os.getpid()}.sock")
        if server.add_insecure_port(f"unix:{own}") == 0:
            raise OSError(f"can't listen on {own}")
        try:
            self.socket.hardlink_to(own)
            status = own.lstat()
        finally:
            own.unlink(missing_ok=True)
        self._bound = status.st_dev, status.st_ino
        server.start()
        self._server = server
        request = dp.RegisterRequest(
            version=wire.API_VERSION, endpoint=self.socket.name, resource_name=self.resource, options=self.options()
        )
        try:
            wire.register(str(self.kubelet_socket), request, timeout=timeout)
        except grpc.RpcError:
            self.stop()
            raise
        log.info("registered %s with %d devices", self.resource, len(self.devices))

    def stop(self) -> None:
        """End all calls and remove the socket; twice does no harm."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._server is not None:
            self._server.stop(_GRACE).wait()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                status = self.socket.lstat()
                if (status.st_dev, status.st_ino) == self._bound:
                    self.socket.unlink()

    def set_unhealthy(self, ids: Iterable[str]) -> None:
        """The devices that are unhealthy from now on; a watching kubelet hears of it at once when that is a change."""
        wanted = frozenset(ids) & frozenset(self.devices)
        with self._changed:
            if wanted == self._unhealthy:
                return
            self._unhealthy = wanted
            self._generation += 1
            self._changed.notify_all()

    @property
    def unhealthy(self) -> frozenset[str]:
        """Ids of the devices that are unhealthy now."""
        return self._unhealthy

    # What the kubelet calls.

    def options(self) -> dp.DevicePluginOptions:
        """As the real one: a preferred allocation, no call before a container starts."""
        return dp.DevicePluginOptions(get_preferred_allocation_available=True)

    def list_and_watch(self, context: grpc.ServicerContext) -> Iterator[dp.ListAndWatchResponse]:
        """All devices at once, and again after each change of health."""

        def hung_up() -> None:
            with self._changed:
                self._changed.notify_all()

        if not context.add_callback(hung_up):
            return
        seen = -1
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or self._generation != seen or not context.is_active()  # noqa: B023  # asked at once
                )
                if self._stopping or not context.is_active():
                    return
                seen = self._generation
                unhealthy = self._unhealthy
            yield dp.ListAndWatchResponse(
                devices=[
                    dp.Device(ID=device, health=wire.UNHEALTHY if device in unhealthy else wire.HEALTHY)
                    for device in self.devices
                ]
            )

    def preferred(self, request: dp.PreferredAllocationRequest) -> dp.PreferredAllocationResponse:
        """Shares spread over the GPUs (or packed on few, as configured); whole GPUs in order."""
        return dp.PreferredAllocationResponse(
            container_responses=[
                dp.ContainerPreferredAllocationResponse(
                    deviceIDs=self.choose(
                        list(one.available_deviceIDs), list(one.must_include_deviceIDs), one.allocation_size
                    )
                )
                for one in request.container_requests
            ]
        )

    def choose(self, available: Sequence[str], required: Sequence[str], size: int) -> list[str]:
        """``size`` ids, those of ``required`` first; ValueError when there are not enough."""
        free = [device for device in self.devices if device in set(available) - set(required)]
        if len(free) < size - len(required):
            raise ValueError("not enough available devices to satisfy allocation")
        totals = Counter(device.uuid for device in self.devices.values())
        left = Counter(self.devices[device].uuid for device in free)
        # A device that must be in was free too, and is taken by this very request.
        picked: Counter[str] = Counter()
        sign = 1 if self.config.allocation_policy == "distributed" else -1
        chosen = list(required)
        while len(chosen) < size:

            def rank(device: str) -> tuple[int, int]:
                behind = self.devices[device].uuid
                return sign * (totals[behind] - left[behind]), picked[behind]

            best = min(free, key=rank)
            free.remove(best)
            left[self.devices[best].uuid] -= 1
            picked[self.devices[best].uuid] += 1
            chosen.append(best)
        return chosen

    def allocate(self, request: dp.AllocateRequest) -> dp.AllocateResponse:
        """Environment and mounts of each container.

        Raises ValueError for an id that is not ours, or for more shares than one.
        """
        responses = []
        for container in request.container_requests:
            ids = list(container.devices_ids)
            for device in ids:
                if device not in self.devices:
                    raise ValueError(
                        f"invalid allocation request for {self.resource!r}: invalid request: unknown device: {device}"
                    )
            shares = any(self.devices[device].is_share for device in ids)
            if shares and len(ids) > 1 and self.config.sharing.fail_requests_greater_than_one:
                raise ValueError(
                    f"invalid allocation request for {self.resource!r}: invalid request: "
                    f"maximum request size for shared resources is 1; found {len(ids)}"
                )
            responses.append(self.container(ids))
        return dp.AllocateResponse(container_responses=responses)

    def container(self, ids: Sequence[str]) -> dp.ContainerAllocateResponse:
        """What one container with these devices gets."""
        by_index = self.config.device_id_strategy == "index"
        names = list(dict.fromkeys(self.devices[id_].index if by_index else self.devices[id_].uuid for id_ in ids))
        envs = dict(self.environment)
        mounts = []
        if self.config.sharing.strategy == "mps":
            pipe = f"{self.resource}/pipe"
            envs["CUDA_MPS_PIPE_DIRECTORY"] = f"{_MPS_IN_CONTAINER}/{pipe}"
            mounts += [
                dp.Mount(container_path=f"{_MPS_IN_CONTAINER}/{part}", host_path=f"{self.config.mps_root}/{part}")
                for part in (pipe, "shm")
            ]
        envs.update(dict.fromkeys(self.config.extra_env, "enabled"))
        if "envvar" in self.config.device_list_strategies:
            envs["NVIDIA_VISIBLE_DEVICES"] = ",".join(names)
        if "volume-mounts" in self.config.device_list_strategies:
            envs["NVIDIA_VISIBLE_DEVICES"] = _VOLUME_ROOT
            mounts += [dp.Mount(container_path=f"{_VOLUME_ROOT}/{name}", host_path="/dev/null") for name in names]
        return dp.ContainerAllocateResponse(envs=envs, mounts=mounts)
