"""etcd, the API server and one scheduler of the embedded lab, alone, and models placed there.

A scheduler sees objects: nodes, and pods that are bound or not. Nobody plays kubelets here, so a pod that is placed
holds its place until it is deleted, and nothing else competes for the processors that the scheduler runs on.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
import yaml
from benchmarks.placement import pods
from benchmarks.placement.devices import Books, audit
from benchmarks.placement.fleet import Node
from benchmarks.placement.mix import Ask, Model

from velagen.lab import Api, LabOptions, wait_until
from velagen.lab.certs import Authority, make_key
from velagen.lab.components import ETCD, ETCD_CLIENT, HEALTH, PORTS, SERVER, flags, pair
from velagen.lab.process import MARK, Process, free_ports, stop
from velagen.lab.settle import wait_admin
from velagen.lab.state import LabState
from velagen.tools import tool

#: Seconds.
PATIENCE: Final = 120.0
#: Requests a second that a scheduler may send; its own default, 50, would be what is measured.
REQUESTS: Final = 500
_CONFIGURATION: Final = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}


def configuration_for(kubeconfig: Path, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A scheduler's configuration for a lab: how it reaches the API server is added, nothing else is changed.

    Args:
        own: of the scheduler; None: Kubernetes' defaults.
    """
    connection = {"kubeconfig": str(kubeconfig), "qps": REQUESTS, "burst": REQUESTS}
    return {**(own or {**_CONFIGURATION, "leaderElection": {"leaderElect": False}}), "clientConnection": connection}


@contextmanager
def scheduler(folder: Path, kubeconfig: Path, own: Mapping[str, Any] | None = None) -> Iterator[Process]:
    """Run a scheduler beside an API server meanwhile.

    Args:
        folder: its configuration and its log go there.
        own: its configuration; None: Kubernetes' defaults.
    """
    config = folder / "scheduler.yaml"
    config.write_text(yaml.safe_dump(configuration_for(kubeconfig, own)))
    (port,) = free_ports(["kube-scheduler"]).values()
    arguments = [f"--config={config}", f"--secure-port={port}", "--bind-address=127.0.0.1"]
    process = Process("kube-scheduler", [str(tool("kube-scheduler")), *arguments], _environment(folder))
    process.spawn(folder / "kube-scheduler.log", folder)
    try:
        yield process
    finally:
        stop([process])


@contextmanager
def plane(folder: Path, own: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Run all three meanwhile; gives the kubeconfig.

    Args:
        folder: what they write goes there; removed at the end.
        own: the scheduler's configuration; None: Kubernetes' defaults.
    """
    pki = folder / "pki"
    for path in (folder, pki):
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
    state = LabState(mark=uuid.uuid4().hex, options=LabOptions(nodes=0), ports=free_ports(PORTS))
    authority = Authority(pki)
    authority.issue(*pair(folder, SERVER))
    authority.issue(*pair(folder, ETCD), also_client=True)
    authority.issue_client("kube-apiserver", *pair(folder, ETCD_CLIENT))
    make_key(pki / "service-account.key")
    token = uuid.uuid4().hex
    (pki / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    server = f"https://127.0.0.1:{state.ports['kube-apiserver']}"
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(server, token, authority.certificate_file)))
    arguments = flags(folder, state)
    # A new node is tainted until something says that it is ready, and nothing does here.
    arguments["kube-apiserver"] = [
        f"{one},TaintNodesByCondition" if one.startswith("--disable-admission-plugins=") else one
        for one in arguments["kube-apiserver"]
    ]
    started: list[Process] = []
    try:
        for name in ("etcd", "kube-apiserver"):
            process = Process(name, [str(tool(name)), *arguments[name]], _environment(folder) | {MARK: state.mark})
            started.append(process)
            process.spawn(folder / f"{name}.log", folder)
            _wait_healthy(process, folder, HEALTH[name].format(port=state.ports[name]))
        wait_admin(Api.from_kubeconfig(kubeconfig))
        with scheduler(folder, kubeconfig, own):
            yield kubeconfig
    finally:
        stop(started)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Little of the person's: a proxy or a kubeconfig of theirs must not change what is measured."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder), "GOGC": "200"}


def _kubeconfig(server: str, token: str, ca: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin", "namespace": "default"}}],
        "current-context": "lab",
    }


def _wait_healthy(process: Process, folder: Path, url: str) -> None:
    certificate, key = pair(folder, ETCD_CLIENT)

    def look() -> bool:
        if not process.alive:
            words = (folder / f"{process.name}.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.name} has ended: {words}")
        try:
            answer = requests.get(
                url,
                timeout=3,
                verify=str(folder / "pki" / "ca.crt"),
                cert=(str(certificate), str(key)) if process.name == "etcd" else None,
            )
        except OSError:
            return False
        return answer.status_code in (requests.codes.ok, requests.codes.unauthorized)

    wait_until(look, what=process.name, timeout=PATIENCE, every=0.05)


def add_nodes(kubeconfig: Path, nodes: Sequence[Node], labels: Mapping[str, str] | None = None) -> None:
    """Make the nodes."""
    Api.from_kubeconfig(kubeconfig).apply_all((node.manifest(labels) for node in nodes), workers=4, fresh=True)


@dataclass
class Placing:
    """Models as pods of an API server; whoever is their scheduler chooses.

    Its `answer` of None takes the pod away: a model that finds no place goes elsewhere, and does not wait for one.
    """

    kubeconfig: Path
    #: What the pods of each ask ask for, as `pods.rendered` gives it.
    asks: Mapping[Ask, Mapping[str, Any]]
    namespace: str = "default"
    #: Labels that its nodes have, where the cluster has others.
    selector: Mapping[str, str] = field(default_factory=dict)
    #: Pods a second where models come and go; None: as fast as they can be made.
    pace: float | None = None
    #: Seconds from the request to the news that the pod is placed, by part of the load.
    seconds: dict[str, list[float]] = field(default_factory=dict)
    _part: str = ""
    _next: float = 0.0
    _offered: dict[str, float] = field(default_factory=dict)
    #: Of pods that the watch has told of: the node, or none, and when.
    _told: dict[str, tuple[str | None, float]] = field(default_factory=dict)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _over: threading.Event = field(default_factory=threading.Event)
    _broken: BaseException | None = None
    #: Where the watch goes on.
    _version: str = ""

    def __post_init__(self) -> None:
        self.api = Api.from_kubeconfig(self.kubeconfig)

    @contextmanager
    def watching(self) -> Iterator[Placing]:
        """Hear of placed pods meanwhile."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join(timeout=0.1)

    def between(self, part: str) -> None:
        """A part of the load begins."""
        self._part, self._next = part, time.monotonic()
        self.seconds[part] = []

    def offer(self, model: Model, ask: Ask) -> None:
        """Make the pod."""
        if self.pace is not None and self._part == "churn":
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = max(self._next + 1 / self.pace, time.monotonic() - 1)
        made = pods.pod(model.name, self.asks[ask])
        made["spec"]["nodeSelector"] |= self.selector
        self._offered[model.name] = time.monotonic()
        self.api.request("POST", f"/api/v1/namespaces/{self.namespace}/pods", json=made)

    def answer(self, name: str) -> str | None:
        """Wait until the scheduler has said where, or that there is no place."""
        with self._news:
            if not self._news.wait_for(lambda: name in self._told or self._broken is not None, timeout=PATIENCE):
                raise TimeoutError(f"{name} was neither placed nor refused within {PATIENCE:.0f} s")
            if self._broken is not None:
                raise self._broken
            node, when = self._told[name]
        if node is None:
            self.remove(name)
            return None
        self.seconds[self._part].append(when - self._offered[name])
        return node

    def remove(self, name: str) -> None:
        """Take a pod away at once: no kubelet has to end it."""
        self.api.request(
            "DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{name}", params={"gracePeriodSeconds": "0"}
        )

    def check(self, books: Books) -> None:
        """Hold what the API server says is where against the nodes' devices, and against the books.

        Raises:
            OverCommittedError: a node has more models than devices.
        """
        found = self.api.request("GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        placed = {
            one["metadata"]["name"]: (pods.ask_of(one), one["spec"]["nodeName"])
            for one in found
            if one["spec"].get("nodeName")
        }
        audit([one.node for one in books.devices.values()], placed)
        where = {name: node for name, (_, node) in placed.items()}
        if where != books.where:
            other = sorted(set(where.items()) ^ set(books.where.items()))[:5]
            raise AssertionError(f"the API server and the books differ: {other}")

    def _watch(self) -> None:
        try:
            while not self._over.is_set():
                with suppress(requests.ConnectionError, requests.Timeout):
                    self._hear()
        except BaseException as error:
            with self._news:
                self._broken = error
                self._news.notify_all()

    def _hear(self) -> None:
        """Take in what a watch tells, until it ends."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        with requests.Session() as session:
            session.trust_env = False
            session.verify = config["clusters"][0]["cluster"]["certificate-authority"]
            session.headers["Authorization"] = f"Bearer {config['users'][0]['user']['token']}"
            with session.get(
                f"{self.api.server}/api/v1/namespaces/{self.namespace}/pods",
                params={"watch": "true", "resourceVersion": self._version},
                stream=True,
                timeout=20,
            ) as answer:
                for line in answer.iter_lines(chunk_size=None):
                    if self._over.is_set():
                        return
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # too long ago: from all that is there on
                        self._version = ""
                        return
                    self._version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "DELETED":
                        self._take(event["object"])

    def _take(self, thing: Mapping[str, Any]) -> None:
        name, node = thing["metadata"]["name"], thing["spec"].get("nodeName")
        refused = any(
            one["type"] == "PodScheduled" and one["status"] == "False" and one.get("reason") == "Unschedulable"
            for one in thing.get("status", {}).get("conditions", ())
        )
        if node is None and not refused:
            return
        with self._news:
            self._told.setdefault(name, (node, time.monotonic()))
            self._news.notify_all()
