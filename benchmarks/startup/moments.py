"""What happens when, from an InferenceService's objects as they change; and the phases between the moments."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.api import condition

#: Moments in their order, and what a phase that ends with each is called.
PHASES = {
    "admitted": "read, validate, admit the application",
    "created": "render it, admit the InferenceService",
    "pod": "KServe: Deployment, pod",
    "scheduled": "schedule",
    "loaded": "load: storage initializer",
    "started": "start the container",
    "ready": "warm: the server loads the model, Ready",
    "answered": "route: first right answer through the gateway",
}


def moments_of(thing: KubernetesObject) -> set[str]:
    """Give the moments that an object shows to be past.

    Args:
        thing: an Application, an InferenceService or a pod, as a watch gives it.
    """
    if thing["kind"] == "Application":
        return {"admitted"}
    if thing["kind"] == "InferenceService":
        return {"created"}
    found = {"pod"}
    status = thing.get("status", {})
    if condition(thing, "PodScheduled") == "True":
        found.add("scheduled")
    if condition(thing, "Initialized") == "True":
        found.add("loaded")
    containers = status.get("containerStatuses", [])
    if containers and all("running" in entry.get("state", {}) for entry in containers):
        found.add("started")
    if condition(thing, "Ready") == "True":
        found.add("ready")
    return found


def phases(moments: Mapping[str, float]) -> dict[str, float]:
    """Give how long each phase took, in seconds; a phase whose moment did not come is left out.

    Args:
        moments: seconds from the start.

    Raises:
        ValueError: a moment is before the one it follows; a watch that lags by less than a tenth is forgiven.
    """
    found = {}
    before = 0.0
    for name in PHASES:
        if name not in moments:
            continue
        took = moments[name] - before
        if took < -0.1:
            raise ValueError(f"{name} came {-took:.1f} s before what it follows")
        found[name] = max(0.0, took)
        before = max(before, moments[name])
    return found


class Watch:
    """Watches some kinds of a namespace, each in a thread, and notes when each moment was first seen."""

    KINDS = (
        "/apis/core.oam.dev/v1beta1/namespaces/{}/applications",
        "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices",
        "/api/v1/namespaces/{}/pods",
    )

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self.server = urlsplit(cluster["server"])
        self.context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self.token = config["users"][0]["user"]["token"]
        self.namespace = namespace
        self.seen: dict[str, float] = {}
        self._lock = threading.Lock()
        self._connections: list[http.client.HTTPSConnection] = []
        self._start = 0.0

    def note(self, name: str) -> None:
        """Note a moment, if it is the first time."""
        with self._lock:
            self.seen.setdefault(name, time.perf_counter() - self._start)

    def start(self) -> None:
        """Begin to watch; the clock starts when all watches are open.

        Raises:
            OSError: the API server does not answer.
            http.client.HTTPException: it refuses.
        """
        for kind in self.KINDS:
            connection = http.client.HTTPSConnection(self.server.netloc, context=self.context, timeout=600)
            path = kind.format(self.namespace) + "?watch=true&timeoutSeconds=600"
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise http.client.HTTPException(f"{path}: {answer.status} {answer.reason}")
            self._connections.append(connection)
            threading.Thread(target=self._read, args=(answer,), daemon=True).start()
        self._start = time.perf_counter()

    def _read(self, answer: http.client.HTTPResponse) -> None:
        try:
            for line in answer:
                event = json.loads(line)
                if event["type"] in {"ADDED", "MODIFIED"}:
                    for name in moments_of(event["object"]):
                        self.note(name)
        except (OSError, ValueError, http.client.HTTPException):
            return  # ended, maybe in the middle of a line

    def stop(self) -> None:
        """End the watches."""
        for connection in self._connections:
            # The reader may be in the middle of it: what is shut down wakes it, what is closed would wait for it.
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def wait(self, look: Callable[[], bool], patience: float, every: float = 0.05) -> bool:
        """Ask until the answer is right; whether that came in time."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if look():
                return True
            time.sleep(every)
        return False
