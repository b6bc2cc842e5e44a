"""A kubelet as a device plugin knows it: Registration on kubelet.sock, then calls on the plugin's own socket."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from velagen.gpusim.proto import deviceplugin_pb2 as dp
from velagen.gpusim.proto import podresources_pb2 as pr

Answer = TypeVar("Answer", bound=Message)


class FakeKubelet:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registrations: queue.Queue[dp.RegisterRequest] = queue.Queue()
        #: resource -> id -> health, from each message of ListAndWatch.
        self.updates: queue.Queue[tuple[str, dict[str, str]]] = queue.Queue()
        self.refuse = ""
        self.pods = pr.ListPodResourcesResponse()
        self._server: grpc.Server | None = None
        self._channels: dict[str, grpc.Channel] = {}

    def start(self) -> None:
        """As a starting kubelet: everything in the folder is removed, then the socket is there."""
        for entry in self.folder.iterdir():
            if entry.is_socket():
                entry.unlink()
        server = grpc.server(ThreadPoolExecutor(max_workers=4))
        unary = grpc.unary_unary_rpc_method_handler
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "v1beta1.Registration",
                    {
                        "Register": unary(
                            self._register,
                            request_deserializer=dp.RegisterRequest.FromString,
                            response_serializer=dp.Empty.SerializeToString,
                        )
                    },
                ),
                grpc.method_handlers_generic_handler(
                    "v1.PodResourcesLister",
                    {
                        "List": unary(
                            lambda _request, _context: self.pods,
                            request_deserializer=pr.ListPodResourcesRequest.FromString,
                            response_serializer=pr.ListPodResourcesResponse.SerializeToString,
                        )
                    },
                ),
            )
        )
        server.add_insecure_port(f"unix:{self.folder}/kubelet.sock")
        server.start()
        self._server = server

    def stop(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        if self._server is not None:
            self._server.stop(0.5).wait()
            self._server = None
            (self.folder / "kubelet.sock").unlink(missing_ok=True)

    def registered(self, timeout: float = 10) -> dp.RegisterRequest:
        return self.registrations.get(timeout=timeout)

    def devices(self, timeout: float = 10) -> tuple[str, dict[str, str]]:
        return self.updates.get(timeout=timeout)

    def call(self, resource: str, method: str, request: Message, answer: type[Answer]) -> Answer:
        ask: grpc.UnaryUnaryMultiCallable[Message, Answer] = self._channels[resource].unary_unary(
            f"/v1beta1.DevicePlugin/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return ask(request, timeout=5)

    def allocate(self, resource: str, *ids: str) -> dp.ContainerAllocateResponse:
        request = dp.AllocateRequest(container_requests=[dp.ContainerAllocateRequest(devices_ids=ids)])
        response = self.call(resource, "Allocate", request, dp.AllocateResponse)
        return response.container_responses[0]

    def preferred(self, resource: str, available: list[str], required: list[str], size: int) -> list[str]:
        one = dp.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=required, allocation_size=size
        )
        request = dp.PreferredAllocationRequest(container_requests=[one])
        response = self.call(resource, "GetPreferredAllocation", request, dp.PreferredAllocationResponse)
        return list(response.container_responses[0].deviceIDs)

    def _register(self, request: dp.RegisterRequest, context: grpc.ServicerContext) -> dp.Empty:
        if self.refuse:
            context.abort(grpc.StatusCode.UNKNOWN, self.refuse)
        # A kubelet dials the plugin back at once.
        channel = grpc.insecure_channel(f"unix:{self.folder}/{request.endpoint}")
        self._channels[request.resource_name] = channel
        threading.Thread(target=self._watch, args=(request.resource_name, channel), daemon=True).start()
        self.registrations.put(request)
        return dp.Empty()

    def _watch(self, resource: str, channel: grpc.Channel) -> None:
        stream = channel.unary_stream(
            "/v1beta1.DevicePlugin/ListAndWatch",
            request_serializer=dp.Empty.SerializeToString,
            response_deserializer=dp.ListAndWatchResponse.FromString,
        )
        try:
            for message in stream(dp.Empty(), wait_for_ready=True):
                self.updates.put((resource, {device.ID: device.health for device in message.devices}))
        except (grpc.RpcError, ValueError):
            # The plugin went away, or the channel was closed under us.
            return
