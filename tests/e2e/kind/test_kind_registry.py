"""A registry that asks for a password: what a user is told without a pull secret, and what runs with one."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import secrets
import subprocess
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.e2e.kind.serving import SMALL, Client, checked, down, pods, wait_for, wait_healthy, wait_ready

from velagen.lab import condition, wait_until
from velagen.lab.images import recipes
from velagen.lab.kind import KindLab
from velagen.lab.vela import vela

#: Any image with Python that the lab has; what is pulled is this one and a layer more.
BASE = recipes()["object-store"].references[0]
USER, SECRET = "reader", "hub"
NAME = "private"
PARTS = ("predictor", "transformer")

#: What a pull asks of a registry (OCI's distribution specification), for whoever knows the password (environment:
#: AUTHORIZATION).
#: Its argument: the manifest that all tags of an image mean, by the image's name. Listens on the node's loopback, where
#: containerd speaks HTTP without TLS, on a port that is free; writes that down, and then a line a request.
REGISTRY = """
import http.server, json, os, pathlib, re, sys
MANIFESTS = json.loads(sys.argv[1])
ASKED = re.compile("/v2/(?P<name>.+)/(?P<what>manifests|blobs)/(?:sha256:(?P<digest>[0-9a-f]{64})|[^/:]+)")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = ASKED.fullmatch(self.path)
        digest = asked and (asked["digest"] or MANIFESTS.get(asked["name"]))
        file = digest and pathlib.Path("/content", digest)
        body, status = b"", 404
        if self.headers.get("Authorization") != os.environ["AUTHORIZATION"]:
            status = 401
        elif file and file.is_file():
            body, status = file.read_bytes(), 200
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
        if status == 200 and asked["what"] == "manifests":
            self.send_header("Content-Type", json.loads(body)["mediaType"])
            self.send_header("Docker-Content-Digest", "sha256:" + digest)
        self.send_header("Content-Length", str(len(body)))
        # In one piece: two requests at once would else write into each other's lines.
        sys.stdout.write(json.dumps({**(asked.groupdict() if asked else {}), "status": status}) + "\\n")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

#: A model server and a transformer in one: the first doubles numbers, the second counts them first.
SERVE = """
import http.server, json, sys, urllib.request
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"{}")
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "--predictor_host" in given:
            body = json.dumps({"instances": [len(one) for one in asked["instances"]]}).encode()
            self.answer(urllib.request.urlopen("http://" + given["--predictor_host"] + self.path, body).read())
        else:
            self.answer(json.dumps({"predictions": [2 * one for one in asked["instances"]]}).encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Node:
    """A node's containerd, in the namespace in which the kubelet uses it."""

    lab: KindLab
    name: str

    def ctr(self, *arguments: str) -> str:
        return subprocess.run(
            ["docker", "exec", self.name, "ctr", "--namespace=k8s.io", *arguments],
            env=self.lab.environment(),
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def manifest(self, reference: str) -> dict[str, Any]:
        """Of an image that the node has; of several platforms the first, which Docker saves as its own."""
        (line,) = self.ctr("images", "list", f"name=={reference}").splitlines()[1:]
        found = json.loads(self.ctr("content", "get", line.split()[2]))
        if "manifests" in found:
            found = json.loads(self.ctr("content", "get", found["manifests"][0]["digest"]))
        return {"mediaType": "application/vnd.oci.image.manifest.v1+json", **found}

    def forget(self, *beginnings: str) -> None:
        """Remove images; what no other image needs of them goes with them."""
        if names := [name for name in self.ctr("images", "list", "--quiet").split() if name.startswith(beginnings)]:
            self.ctr("images", "remove", "--sync", *names)


@dataclass
class Image:
    """An image whose own layer, configuration and manifest no node has; the layers below, every node has unpacked."""

    manifest: str
    config: str
    #: By SHA-256, in hexadecimal digits.
    content: dict[str, bytes]


def image(node: Node) -> Image:
    """The base image with `SERVE` in a layer on top, which is what it runs."""
    manifest = node.manifest(BASE)
    config = json.loads(node.ctr("content", "get", manifest["config"]["digest"]))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        # No other image has this layer.
        text = f"# {secrets.token_hex(8)}\n{SERVE}".encode()
        entry = tarfile.TarInfo("serve.py")
        entry.size, entry.mode = len(text), 0o644
        archive.addfile(entry, io.BytesIO(text))
    layer = gzip.compress(file.getvalue())
    config["rootfs"]["diff_ids"].append(f"sha256:{digest(file.getvalue())}")
    config.pop("history", None)  # it has as many entries as there are layers
    config["config"] |= {"Entrypoint": ["python", "/serve.py"], "Cmd": None}
    configured = json.dumps(config).encode()
    manifest["config"] |= {"digest": f"sha256:{digest(configured)}", "size": len(configured)}
    family = "docker.image.rootfs.diff.tar.gzip" if "docker" in manifest["mediaType"] else "oci.image.layer.v1.tar+gzip"
    manifest["layers"].append(
        {"mediaType": f"application/vnd.{family}", "digest": f"sha256:{digest(layer)}", "size": len(layer)}
    )
    made = json.dumps(manifest).encode()
    return Image(digest(made), digest(configured), {digest(one): one for one in (layer, configured, made)})


@dataclass
class Registry:
    lab: KindLab
    space: str
    port: int
    password: str

    def image(self, part: str) -> str:
        return f"127.0.0.1:{self.port}/{NAME}/{part}:1"

    def answered(self, part: str, status: int) -> set[str]:
        """What of a part's image was asked for and answered so: ``manifests``, ``blobs``."""
        lines = map(json.loads, self.lab.kubectl("logs", "registry", "-n", self.space).splitlines()[1:])
        return {one["what"] for one in lines if (one.get("name"), one["status"]) == (f"{NAME}/{part}", status)}

    def pull_secret(self) -> dict[str, Any]:
        auths = {f"127.0.0.1:{self.port}": {"username": USER, "password": self.password}}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": self.space},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps({"auths": auths})},
        }


@pytest.fixture
def registry(kind_lab: KindLab, space: str) -> Iterator[Registry]:
    """A registry on the lab's node, and its images gone from there afterwards."""
    kind_lab.load(["object-store"])
    (name,) = (one["metadata"]["name"] for one in kind_lab.api.list("v1", "Node"))
    node = Node(kind_lab, name)
    served = {part: image(node) for part in PARTS}
    manifests = {f"{NAME}/{part}": one.manifest for part, one in served.items()}
    password = secrets.token_hex(8)
    authorization = "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()
    metadata = {"name": "registry", "namespace": space}
    content = {
        called: base64.b64encode(data).decode() for one in served.values() for called, data in one.content.items()
    }
    container = {
        "name": "main",
        "image": BASE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-u", "-c", REGISTRY, json.dumps(manifests)],
        "env": [{"name": "AUTHORIZATION", "value": authorization}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "content", "mountPath": "/content"}],
    }
    kind_lab.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": content})
    kind_lab.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "hostNetwork": True,
                "terminationGracePeriodSeconds": 1,
                "volumes": [{"name": "content", "configMap": {"name": "registry"}}],
                "containers": [container],
            },
        }
    )

    def listens() -> str:
        pod = kind_lab.api.get("v1", "Pod", "registry", space) or {}
        started = pod.get("status", {}).get("phase") == "Running"
        return kind_lab.kubectl("logs", "registry", "-n", space).partition("\n")[0] if started else ""

    port = int(wait_until(listens, what="the registry", timeout=60, every=0.5))
    try:
        yield Registry(kind_lab, space, port, password)
    finally:
        down(kind_lab, space, NAME)
        node.forget(f"127.0.0.1:{port}/", *(f"sha256:{one.config}" for one in served.values()))


def application(registry: Registry, *secured: str) -> dict[str, Any]:
    """A server of one's own and its transformer, with the pull secret in these parts."""

    def part(name: str) -> dict[str, Any]:
        # Nobody sends requests while a pod ends.
        pod: dict[str, Any] = {"terminationGracePeriodSeconds": 1}
        if name in secured:
            pod["imagePullSecrets"] = [{"name": SECRET}]
        return {"image": registry.image(name), "minReplicas": 1, "runAsUser": 1000, "resources": SMALL, "pod": pod}

    properties = {**part("predictor"), "transformer": {**part("transformer"), "readinessPath": "/"}}
    return checked({"name": NAME, "type": "kfserving", "properties": properties}, registry.space)


def told(registry: Registry, words: Collection[str], gone: Collection[str] = ()) -> str:
    """Wait until `vela status` has these words, and no longer those; give all it says."""
    shown = ""

    def look() -> bool:
        nonlocal shown
        shown = vela(registry.lab.kubeconfig, "status", NAME, "-n", registry.space).stdout
        return all(word in shown for word in words) and not any(word in shown for word in gone)

    try:
        wait_until(look, what="vela status", timeout=60, every=1)
    except TimeoutError as error:
        raise AssertionError(f"{words} are not all in:\n{shown}") from error
    return shown


@pytest.mark.seconds(45)
def test_each_part_is_pulled_with_its_own_secret(kind_lab: KindLab, space: str, registry: Registry) -> None:
    ways_out = {"predictor": "pod.imagePullSecrets", "transformer": "transformer.pod.imagePullSecrets"}
    # The component knows what it asked for alone, and the workflow step sees the pods.
    asks = {
        part: f"if the registry of {registry.image(part)} asks for a password, name its secret in {way_out}"
        for part, way_out in ways_out.items()
    }
    refused = {part: f"({way_out} must name a secret that the registry accepts)" for part, way_out in ways_out.items()}

    kind_lab.api.apply(application(registry))
    shown = told(registry, [*asks.values(), *refused.values()])
    for part in PARTS:
        assert re.search(f'{part}: [^;]*"{registry.image(part)}"[^;]*: 401 Unauthorized', shown)
        assert registry.answered(part, 401) == {"manifests"}
        assert registry.answered(part, 200) == set()

    # A secret is of one part's pods: the transformer waits on, though the registry would let it in now.
    kind_lab.api.apply(registry.pull_secret())
    kind_lab.api.apply(application(registry, "predictor"))

    def predictor_runs() -> bool:
        found = [pod for pod in pods(kind_lab, space, NAME) if pod["metadata"]["labels"]["component"] == "predictor"]
        return len(found) == 1 and condition(found[0], "Ready") == "True"

    wait_for(kind_lab, space, NAME, predictor_runs, "the predictor", timeout=60)
    assert registry.answered("predictor", 200) == {"manifests", "blobs"}
    assert registry.answered("transformer", 200) == set()
    told(registry, [asks["transformer"], refused["transformer"]], gone=[asks["predictor"]])

    kind_lab.api.apply(application(registry, *PARTS))
    wait_ready(kind_lab, space, NAME)
    assert registry.answered("transformer", 200) == {"manifests", "blobs"}
    wait_healthy(kind_lab, space, NAME)
    answer = Client(kind_lab, space, NAME).ask(f"/v1/models/{NAME}:predict", {"instances": ["one", "three"]})
    assert answer == {"predictions": [6, 10]}
