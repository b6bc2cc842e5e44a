"""What benchmarks and tests on a kind lab share: files into its store, pods, and requests at a set rate."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import requests

from velagen.lab import wait_until
from velagen.lab.images import recipes
from velagen.lab.kind import KindLab
from velagen.lab.kind.stack import local

#: Seconds: storage initializer, server and model on a machine with two cores.
PATIENCE = 300
#: Next to nothing is reserved, so that a test's few pods, and those that replace them, fit beside everything else.
SMALL = {"requests": {"cpu": "20m", "memory": "192Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
ISVC = ("serving.kserve.io/v1beta1", "InferenceService")


@contextmanager
def namespace(lab: KindLab, prefix: str) -> Iterator[str]:
    """A namespace of a benchmark's own; what is in it goes with it."""
    name = f"{prefix}-{secrets.token_hex(2)}"
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        for app in lab.api.list("core.oam.dev/v1beta1", "Application", name):
            lab.api.delete("core.oam.dev/v1beta1", "Application", app["metadata"]["name"], name)
        lab.api.delete("v1", "Namespace", name)


def put_model(lab: KindLab, prefix: str, files: Mapping[str, bytes | str]) -> str:
    """Put files into the bucket models, under a prefix that holds nothing else; give the address for `modelUri`."""
    # pytest may have a proxy in its environment; the store is on this machine.
    store = boto3.client(
        "s3",
        endpoint_url=lab.url("models"),
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=boto3.session.Config(proxies={}, s3={"addressing_style": "path"}),
    )
    for old in store.list_objects_v2(Bucket="models", Prefix=f"{prefix}/").get("Contents", []):
        store.delete_object(Bucket="models", Key=old["Key"])
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        store.put_object(Bucket="models", Key=f"{prefix}/{name}", Body=data)
    return f"s3://models/{prefix}"


def triton_config(name: str, inputs: str, outputs: str, more: str = "") -> str:
    """A python model's config.pbtxt.

    Args:
        inputs: ``NAME TYPE DIMS``, such as ``X TYPE_FP32 [4]``; outputs the same.
    """

    def tensor(text: str) -> str:
        called, kind, dims = text.split(" ", 2)
        return f'[{{ name: "{called}" data_type: {kind} dims: {dims} }}]'

    return (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 8\ninput {tensor(inputs)}\noutput {tensor(outputs)}\n'
        f"instance_group [{{ kind: KIND_CPU count: 1 }}]\n{more}"
    )


def python_server(name: str, program: str, namespace: str, port: int) -> list[dict[str, Any]]:
    """A pod and its Service, for a Python program that listens on a port; the image object-store has to be loaded."""
    labels = {"app": name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    container = {
        "name": "main",
        # Any image with Python that the lab has.
        "image": recipes()["object-store"].references[0],
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-u", "-c", program],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    service = {"selector": labels, "ports": [{"port": port}]}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]


def down(lab: KindLab, space: str, name: str) -> None:
    """Remove an application, and wait until its pods are gone: the next test needs their room."""
    lab.api.delete("core.oam.dev/v1beta1", "Application", name, space)
    wait_until(lambda: not pods(lab, space, name), what=f"the end of {name}'s pods", timeout=120, every=0.5)


def pods(lab: KindLab, space: str, name: str) -> list[dict[str, Any]]:
    """Give all pods of a model, those that end too."""
    return lab.api.list("v1", "Pod", space, selector=f"serving.kserve.io/inferenceservice={name}")


def wait_for(
    lab: KindLab, space: str, name: str, look: Callable[[], Any], what: str, timeout: float = PATIENCE
) -> None:
    """Wait for something of a model; where it does not come, the error says how things stand."""
    try:
        wait_until(look, what=what, timeout=timeout, every=0.25)
    except TimeoutError as error:
        service = lab.api.get(*ISVC, name, space) or {}
        raise AssertionError(f"{error}\n{lab.pods(space)}\n{service.get('status')}") from error


class Client:
    """A user of one model, who comes through the gateway."""

    def __init__(self, lab: KindLab, space: str, name: str) -> None:
        self.entry = lab.url("gateway")
        self.host = f"{name}-{space}.example.com"
        #: Seconds in which it is answered, or goes.
        self.timeout = 30.0
        self._here = threading.local()

    def send(self, path: str, body: Mapping[str, Any] | None = None) -> requests.Response:
        """Send one request, on a connection that stays open: POST with a body, else GET."""
        if not hasattr(self._here, "session"):
            self._here.session = local()
        session: requests.Session = self._here.session
        return session.request(
            "GET" if body is None else "POST",
            f"{self.entry}{path}",
            json=body,
            headers={"Host": self.host},
            timeout=self.timeout,
        )

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Give an answer's JSON; anything but 200 fails the test."""
        answer = self.send(path, body)
        assert answer.status_code == requests.codes.ok, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()


@dataclass
class Seen:
    """One request of a load."""

    #: Seconds since the load's first.
    at: float
    #: Seconds until its answer.
    took: float
    #: HTTP status; 0 where there was no answer.
    status: int
    text: str


@dataclass
class Load:
    """What became of a load's requests, in the order they were sent."""

    seen: list[Seen] = field(default_factory=list)
    #: When it began, by time.perf_counter().
    start: float = 0.0

    @property
    def failed(self) -> list[Seen]:
        """Those without an answer, or with another status than 200."""
        return [one for one in self.seen if one.status != requests.codes.ok]

    def answers(self) -> list[Any]:
        """Give the JSON of those that were answered."""
        return [json.loads(one.text) for one in self.seen if one.status == requests.codes.ok]


def once(client: Client, path: str, body: Mapping[str, Any], start: float) -> Seen:
    """Send one request of a load that began at *start*."""
    sent = time.perf_counter()
    try:
        answer = client.send(path, body)
        status, text = answer.status_code, answer.text
    except requests.RequestException as error:
        status, text = 0, repr(error)
    return Seen(sent - start, time.perf_counter() - sent, status, text)


def crowd(client: Client, path: str, body: Callable[[int], Mapping[str, Any]], count: int, users: int) -> Load:
    """Send so many requests, each user the next as soon as the last is answered.

    Args:
        body: makes the body of a request from its number.
    """
    start = time.perf_counter()
    with ThreadPoolExecutor(users) as pool:
        return Load(list(pool.map(lambda number: once(client, path, body(number), start), range(count))))


@contextmanager
def steady(
    client: Client, path: str, body: Mapping[str, Any], rate: float, longest: float, at_once: int = 32
) -> Iterator[Load]:
    """Send requests at a constant rate while the block runs, whatever becomes of them.

    Args:
        rate: a second.
        longest: seconds after which it ends by itself.
        at_once: how many may be under way; the rate is held while there are fewer.
    """
    load = Load(start=time.perf_counter())
    stop = threading.Event()

    def clock(pool: ThreadPoolExecutor) -> None:
        start = load.start
        sent = []
        for number in range(int(rate * longest)):
            if stop.wait(max(0.0, start + number / rate - time.perf_counter())):
                break
            sent.append(pool.submit(once, client, path, body, start))
        load.seen += [one.result() for one in sent]

    with ThreadPoolExecutor(at_once) as pool:
        thread = threading.Thread(target=clock, args=(pool,))
        thread.start()
        try:
            yield load
        finally:
            stop.set()
            thread.join()
