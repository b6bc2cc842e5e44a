"""The gRPC services of the kubelet, wired to the generated messages.

Method paths and message types are the wire contract. They are written out here, so that no generated service
code is needed: that asks for one exact gRPC release and carries no types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

import grpc

from velagen.gpusim.proto import deviceplugin_pb2 as dp
from velagen.gpusim.proto import podresources_pb2 as pr

API_VERSION: Final = "v1beta1"
HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"


class DevicePlugin(Protocol):
    """What a device plugin serves."""

    def options(self) -> dp.DevicePluginOptions:
        """What the kubelet may call."""

    def list_and_watch(self, context: grpc.ServicerContext) -> Iterator[dp.ListAndWatchResponse]:
        """The devices now, and again whenever one changes, until the kubelet hangs up."""

    def preferred(self, request: dp.PreferredAllocationRequest) -> dp.PreferredAllocationResponse:
        """Which of the free devices to take."""

    def allocate(self, request: dp.AllocateRequest) -> dp.AllocateResponse:
        """What a container with these devices gets; ValueError refuses the container."""


def device_plugin_handler(plugin: DevicePlugin) -> grpc.GenericRpcHandler:
    """The service v1beta1.DevicePlugin over ``plugin``."""

    def allocate(request: dp.AllocateRequest, context: grpc.ServicerContext) -> dp.AllocateResponse:
        try:
            return plugin.allocate(request)
        except ValueError as error:
            # The code a plain Go error gets; the kubelet shows the text in the pod's status (UnexpectedAdmissionError).
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise

    def preferred(
        request: dp.PreferredAllocationRequest, context: grpc.ServicerContext
    ) -> dp.PreferredAllocationResponse:
        try:
            return plugin.preferred(request)
        except ValueError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise

    return grpc.method_handlers_generic_handler(
        "v1beta1.DevicePlugin",
        {
            "GetDevicePluginOptions": _unary(lambda _request, _context: plugin.options(), dp.Empty),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                lambda _request, context: plugin.list_and_watch(context),
                request_deserializer=dp.Empty.FromString,
                response_serializer=dp.ListAndWatchResponse.SerializeToString,
            ),
            "GetPreferredAllocation": _unary(preferred, dp.PreferredAllocationRequest),
            "Allocate": _unary(allocate, dp.AllocateRequest),
            "PreStartContainer": _unary(
                lambda _request, _context: dp.PreStartContainerResponse(), dp.PreStartContainerRequest
            ),
        },
    )


def register(kubelet_socket: str, request: dp.RegisterRequest, *, timeout: float = 5.0) -> None:
    """Tell the kubelet listening on ``kubelet_socket`` of a plugin, within ``timeout`` seconds.

    grpc.RpcError when it refuses or is not there.
    """
    with grpc.insecure_channel(f"unix:{kubelet_socket}") as channel:
        call = channel.unary_unary(
            "/v1beta1.Registration/Register",
            request_serializer=dp.RegisterRequest.SerializeToString,
            response_deserializer=dp.Empty.FromString,
        )
        call(request, timeout=timeout, wait_for_ready=True)


def list_pod_resources(socket: str, *, timeout: float = 5.0) -> pr.ListPodResourcesResponse:
    """Which pod holds which device, from the kubelet's pod-resources socket, within ``timeout`` seconds.

    grpc.RpcError when it does not answer.
    """
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        call = channel.unary_unary(
            "/v1.PodResourcesLister/List",
            request_serializer=pr.ListPodResourcesRequest.SerializeToString,
            response_deserializer=pr.ListPodResourcesResponse.FromString,
        )
        return call(pr.ListPodResourcesRequest(), timeout=timeout)


class _Message(Protocol):
    @classmethod
    def FromString(cls, s: bytes) -> object:  # noqa: N802 - protobuf's name
        """Parse."""


def _unary(
    behaviour: Callable[..., object],
    request: type[_Message],
) -> grpc.RpcMethodHandler[object, object]:
    return grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
