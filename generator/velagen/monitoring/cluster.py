"""Reads a cluster's objects, and reaches its Prometheus through the API server. It changes nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.monitoring.prometheus import PATIENCE, Prometheus, Transport, checked_address, reason

#: Of KubeVela's own addon prometheus-server.
DEFAULT_PROMETHEUS: Final = "http://prometheus-server.o11y-system.svc:9090"
_PARAMETERS: Final = "/api/v1/namespaces/vela-system/secrets/addon-secret-kfserving"
_NOT_FOUND, _FORBIDDEN = 404, 403
#: As pods know a Service.
_SERVICE: Final = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\.[a-z0-9.-]+)?")
_PAGE: Final = 500


class ClusterError(VelagenError):
    """The API server refused, or did not answer; ``status`` and ``body`` are its answer's, where there was one."""

    def __init__(self, message: str, hint: str = "", status: int | None = None, body: bytes = b"") -> None:
        self.status = status
        self.body = body
        super().__init__(Problem(message, hint=hint))


class Cluster:
    """One API server, with a person's own rights."""

    def __init__(self, client: Any, namespace: str = "default") -> None:
        """Take an ApiClient of the kubernetes package, and the namespace that is meant where none is named."""
        self._client = client
        self.namespace = namespace
        self.server = str(client.configuration.host)

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """As kubectl would: by a kubeconfig (KUBECONFIG, else ~/.kube/config), or inside of a pod by its account.

        Raises VelagenError where there is neither, or no such context.
        """
        from kubernetes import client, config

        file = str(kubeconfig) if kubeconfig else None
        settings = client.Configuration()
        try:
            config.load_kube_config(file, context, client_configuration=settings)
            contexts, active = config.list_kube_config_contexts(file)
            chosen = next((one for one in contexts if one["name"] == context), active)
            namespace = chosen["context"].get("namespace") or "default"
        except config.ConfigException as error:
            if file or context:
                raise VelagenError(Problem(f"no cluster to ask: {error}")) from error
            try:
                config.load_incluster_config(settings)
            except config.ConfigException:
                raise VelagenError(
                    Problem(f"no cluster to ask: {error}", hint="KUBECONFIG or --kubeconfig says which")
                ) from error
            own = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
            namespace = own.read_text(encoding="utf-8").strip() if own.is_file() else "default"
        settings.retries = False
        return cls(client.ApiClient(settings), namespace)

    def get(self, path: str, **parameters: str) -> KubernetesObject | None:
        """What lies at a path from ``/api`` or ``/apis`` on; None where nothing does. Raises ClusterError."""
        try:
            found: KubernetesObject = json.loads(self._bytes(path, parameters))
        except ClusterError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return found

    def list(self, group: str, plural: str, namespace: str | None = None, **parameters: str) -> list[KubernetesObject]:
        """All objects of a kind, of one namespace or of all; none where the cluster does not know the kind.

        Args:
            group: with version, as apiVersion: ``v1``, ``apps/v1``.
            plural: the kind as paths have it: ``deployments``.
            namespace: None for all of them.
            parameters: of the API, such as labelSelector.

        Raises ClusterError.
        """
        path = f"/apis/{group}" if "/" in group else f"/api/{group}"
        path += f"/namespaces/{namespace}/{plural}" if namespace else f"/{plural}"
        things: list[KubernetesObject] = []
        parameters = {"limit": str(_PAGE), **parameters}
        while True:
            page = self.get(path, **parameters)
            if page is None:
                return things
            things += page.get("items") or []
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return things
            parameters["continue"] = following

    def prometheus(self, address: str) -> Prometheus:
        """A Prometheus by its address; one inside of the cluster is asked through the API server.

        Raises VelagenError where it is not an address.
        """
        parts = urlsplit(checked_address(address))
        service = _SERVICE.fullmatch(parts.hostname or "")
        if service is None:
            return Prometheus(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        scheme = "https:" if parts.scheme == "https" else ""
        base = f"/api/v1/namespaces/{service[2]}/services/{scheme}{service[1]}:{port}/proxy{parts.path.rstrip('/')}"
        return Prometheus(address, self._through(base, f"{service[2]}/{service[1]}"))

    def _through(self, base: str, service: str) -> Transport:
        """The API server's proxy to a Service: no port-forward, and a person's own rights."""

        def get(path: str, parameters: Mapping[str, str]) -> tuple[int, bytes]:
            try:
                return 200, self._bytes(f"{base}/{path}", parameters)
            except ClusterError as error:
                if error.status is None:
                    raise
                said = _message(error.body)
                if not said:  # The Service's own answer.
                    return error.status, error.body
                if error.status == _FORBIDDEN:
                    raise ClusterError(
                        f"Service {service} may not be asked through the API server: {said}",
                        "the right to get services/proxy allows it; or name an address that this machine reaches: "
                        "--prometheus URL",
                        error.status,
                    ) from error
                raise OSError(said) from error

        return get

    def _bytes(
        self, path: str, parameters: Mapping[str, str], method: str = "GET", body: KubernetesObject | None = None
    ) -> bytes:
        """What the API server answers. A PATCH is a merge patch (RFC 7396)."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = self._client.call_api(
                path,
                method,
                query_params=list(parameters.items()),
                header_params={"Content-Type": f"application/{'merge-patch+' if method == 'PATCH' else ''}json"},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=PATIENCE,
            )
            data: bytes = answer.data
        except ApiException as error:
            said = error.body.encode() if isinstance(error.body, str) else error.body or b""
            raise ClusterError(
                f"the API server refused ({error.status}): {_message(said) or error.reason}",
                status=error.status,
                body=said,
            ) from error
        except HTTPError as error:
            raise ClusterError(f"the cluster at {self.server} does not answer: {reason(error)}") from error
        return data


def prometheus_address(cluster: Cluster) -> str:
    """The address that the addon was enabled with (monitoring.prometheus), else KubeVela's own Prometheus.

    KubeVela keeps an addon's parameters in a Secret (pkg/addon/addon.go, RenderArgsSecret); who may not read it, as is
    usual, gets KubeVela's.
    """
    try:
        secret = cluster.get(_PARAMETERS) or {}
        given = json.loads(base64.b64decode((secret.get("data") or {}).get("addonParameterDataKey", "")) or "{}")
        address = given["monitoring"]["prometheus"]
    except (ClusterError, ValueError, KeyError, TypeError):
        return DEFAULT_PROMETHEUS
    return str(address or DEFAULT_PROMETHEUS)


def _message(body: bytes) -> str:
    """What the API server itself says; empty where the answer is of somebody behind it."""
    try:
        status = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return ""
    return str(status.get("message") or status.get("reason") or "no reason given")
