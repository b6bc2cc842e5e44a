"""What breaks on a real cluster: what ``vela status`` says of it, and what heals without help."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from tests.conftest import namespace_of
from tests.e2e.kind.serving import SMALL, Client, routed, steady
from tests.e2e.kind.test_kind_cluster import pod

from velagen.lab import condition, wait_until
from velagen.lab.kind import KindLab
from velagen.lab.kind.kubevela import RESYNC_SECONDS
from velagen.lab.kind.models import store_objects
from velagen.lab.vela import vela

APPLICATION = "core.oam.dev/v1beta1", "Application"
SERVICE = "serving.kserve.io/v1beta1", "InferenceService"
IMAGE = "kserve/sklearnserver:v0.20.0"
#: KServe writes where the model comes from into the pods' template.
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
#: Seconds until the cause stands in the status, and until all is well after the cause is gone: server, model and
#: KubeVela's next look, on a machine with two cores.
TOLD = 240
HEALED = 240

#: The second while its server tries once more.
NOT_LOADED = r"(?:The model can't be loaded \(see vela logs {}\)|The last failure was ModelLoadFailed): "
#: A model of Triton's Python backend: Y = 2 X.
CONFIG = """backend: "python"
max_batch_size: 8
input [{name: "X" data_type: TYPE_FP32 dims: [1]}]
output [{name: "Y" data_type: TYPE_FP32 dims: [1]}]
instance_group [{kind: KIND_CPU}]
"""
MODEL = """import triton_python_backend_utils as utils
class TritonPythonModel:
    def execute(self, requests):
        inputs = (utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests)
        return [utils.InferenceResponse([utils.Tensor("Y", x * 2)]) for x in inputs]
"""

# Trains in the image that serves. The second version answers otherwise, the third is cut off, as an upload that broke.
KEEPER = (
    f"""
CONFIG, MODEL = {CONFIG!r}, {MODEL!r}
"""
    + """
import json, os, time, joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
x, y = load_iris(return_X_y=True)
rows = x[::10]
answers = {}
for version, labels in (("1", y), ("2", 2 - y)):
    os.makedirs(f"/tmp/store/iris/{version}")
    model = LogisticRegression(max_iter=500).fit(x, labels)
    joblib.dump(model, f"/tmp/store/iris/{version}/model.joblib")
    answers[version] = model.predict(rows).tolist()
os.makedirs("/tmp/store/broken")
whole = open("/tmp/store/iris/1/model.joblib", "rb").read()
open("/tmp/store/broken/model.joblib", "wb").write(whole[: len(whole) // 2])
for version, config in (("broken", CONFIG.replace("max_batch_size: 8", "max_batch_size: {")), ("whole", CONFIG)):
    os.makedirs(f"/tmp/store/triton/{version}/doubles/1")
    open(f"/tmp/store/triton/{version}/doubles/config.pbtxt", "w").write(config)
    open(f"/tmp/store/triton/{version}/doubles/1/model.py", "w").write(MODEL)
print(json.dumps({"rows": rows.tolist(), "answers": answers}), flush=True)
time.sleep(7200)
"""
)

STORE = """
import os, sys, boto3
client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="lab",
                      aws_secret_access_key="lab")
client.create_bucket(Bucket="models")
for folder, _, names in os.walk("/tmp/store"):
    for name in names:
        path = os.path.join(folder, name)
        client.upload_file(path, "models", os.path.relpath(path, "/tmp/store"))
"""


@dataclass
class Place:
    """A namespace with models in an S3 server of its own, and applications that serve them."""

    lab: KindLab
    space: str
    folder: Path
    rows: list[list[float]] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)
    #: What was asked for last: path in the bucket and replicas, by name.
    wanted: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return f"http://object-store.{self.space}:5000"

    # -- the store

    def fill(self) -> None:
        """Put the models into the store, which forgets them when it stops."""
        self.lab.kubectl("exec", "keeper", "-n", self.space, "--", "python", "-c", STORE, self.endpoint)

    def scale_store(self, replicas: int) -> None:
        self.lab.kubectl("scale", "deployment/object-store", f"--replicas={replicas}", "-n", self.space)
        if replicas:
            self.lab.wait_deployment(self.space, "object-store")
            return
        wait_until(
            lambda: not self.lab.api.list("v1", "Pod", self.space, selector="app=object-store"),
            what="the store gone",
            timeout=60,
            every=0.5,
        )

    # -- applications

    def up(self, name: str, uri: str, replicas: int = 1, **properties: Any) -> None:
        """`vela up` of an application with one model."""
        self.wanted[name] = uri.split("/", 3)[3], replicas
        given = {
            "runtime": "sklearn",
            "storageKey": "faults",
            "minReplicas": replicas,
            "readiness": {"periodSeconds": 2},
            "resources": SMALL,
        }
        application = {
            "apiVersion": APPLICATION[0],
            "kind": APPLICATION[1],
            "metadata": {"name": name, "namespace": self.space},
            "spec": {
                "components": [
                    {"name": name, "type": "kfserving", "properties": {**given, "modelUri": uri, **properties}}
                ]
            },
        }
        file = self.folder / f"{name}-{secrets.token_hex(3)}.yaml"
        file.write_text(yaml.safe_dump(application))

        def applied() -> bool:
            done = vela(self.lab.kubeconfig, "up", "-f", file, "-n", self.space, check=False)
            said = done.stdout + done.stderr
            # The controller may write the status between vela's reading and writing.
            assert done.returncode == 0 or "the object has been modified" in said, said
            return done.returncode == 0

        wait_until(applied, what=f"vela up of {name}", timeout=60, every=1)

    def down(self, *names: str) -> None:
        for name in names:
            self.lab.api.delete(*APPLICATION, name, self.space)

    def application(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = (self.lab.api.get(*APPLICATION, name, self.space) or {}).get("status", {})
        return found

    def component(self, name: str) -> dict[str, Any]:
        """What `vela status` shows of the model, from where it takes it: starting vela each time is dear."""
        services = self.application(name).get("services") or [{}]
        found: dict[str, Any] = services[0]
        return found

    def status(self, name: str, *more: str) -> str:
        return vela(self.lab.kubeconfig, "status", name, "-n", self.space, *more).stdout

    def told(self, name: str, words: str, timeout: float = TOLD) -> str:
        """Wait until the model's message matches; it is what `vela status` prints, beside a sign of ill health."""

        def look() -> str:
            one = self.component(name)
            return str(one["message"]) if re.search(words, str(one.get("message", ""))) else ""

        message = str(self._wait(name, look, f"{name} to say {words!r}", timeout))
        assert self.component(name)["healthy"] is False
        printed = self.status(name)
        assert re.search(f"Message: .*{words}", printed), printed
        return message

    def well(self, name: str, timeout: float = HEALED) -> float:
        """Wait until the application runs and its model is Ready, all replicas of this version; give the seconds."""
        started = time.monotonic()
        path, replicas = self.wanted[name]

        def look() -> bool:
            one = self.component(name)
            deployment = self.lab.api.get("apps/v1", "Deployment", f"{name}-predictor", self.space)
            if deployment is None:
                return False
            # The status may still be that of the version before: what runs is looked at too.
            source = deployment["spec"]["template"]["metadata"]["annotations"][SOURCE]
            has = deployment.get("status", {})
            return (
                self.application(name).get("status") == "running"
                and one.get("healthy") is True
                and str(one.get("message")).startswith("Ready at ")
                and condition(self.lab.api.get(*SERVICE, name, self.space), "Ready") == "True"
                and source.partition("://")[2] == path
                and has.get("replicas") == has.get("updatedReplicas") == has.get("readyReplicas") == replicas
                and has.get("observedGeneration") == deployment["metadata"]["generation"]
                and routed(self.lab, self.space, name)
            )

        self._wait(name, look, f"{name} to be well", timeout)
        return time.monotonic() - started

    def _wait(self, name: str, look: Callable[[], Any], what: str, timeout: float) -> Any:
        try:
            return wait_until(look, what=what, timeout=timeout, every=1)
        except TimeoutError as error:
            service = self.lab.api.get(*SERVICE, name, self.space) or {}
            raise AssertionError(
                f"{error}\n{self.status(name)}\n{yaml.safe_dump(service.get('status'))}\n{self.lab.pods(self.space)}"
            ) from error

    # -- pods and requests

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The model's pods that are not on their way out."""
        found = self.lab.api.list("v1", "Pod", self.space, selector=f"serving.kserve.io/inferenceservice={name}")
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def kill(self, thing: dict[str, Any]) -> None:
        """SIGKILL to a pod's model server, from its node: inside, the first process can't be killed."""
        (server,) = (one for one in thing["status"]["containerStatuses"] if one["name"] == "kserve-container")
        container = str(server["containerID"]).rpartition("/")[2]
        command = ["docker", "exec", thing["spec"]["nodeName"], "ctr", "--namespace=k8s.io", "tasks", "kill"]
        subprocess.run(
            [*command, "--signal=SIGKILL", container],
            env=self.lab.environment(),
            check=True,
            capture_output=True,
            timeout=60,
        )

    def client(self, name: str) -> Client:
        return Client(self.lab, self.space, name)

    def ask(self, name: str) -> list[int]:
        """The model's answers through the gateway."""
        found: list[int] = self.client(name).ask(f"/v1/models/{name}:predict", {"instances": self.rows})["predictions"]
        return found


@pytest.fixture(scope="module")
def place(kind_lab: KindLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = kind_lab.api.get("core.oam.dev/v1beta1", "ComponentDefinition", "kfserving", "vela-system")
    assert found is not None, "the addon is not enabled"
    kind_lab.load(["sklearnserver", "object-store"])
    with namespace_of(kind_lab.api, "faults") as space:
        here = Place(kind_lab, space, tmp_path_factory.mktemp("faults"))
        for thing in store_objects():
            thing["metadata"]["namespace"] = space
            if thing["kind"] == "Service":
                # The lab's own store has the port of the nodes.
                thing["spec"] = {"selector": thing["spec"]["selector"], "ports": [{"port": 5000, "targetPort": 5000}]}
            kind_lab.api.apply(thing)
        keys = {
            "type": "s3",
            "endpoint_url": here.endpoint,
            "access_key_id": "lab",
            "secret_access_key": "lab",
            "region": "us-east-1",
        }
        kind_lab.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "storage-config", "namespace": space},
                "stringData": {"faults": json.dumps(keys)},
            }
        )
        keeper = pod("keeper", space, "python", "-c", KEEPER)
        keeper["spec"]["containers"][0]["image"] = IMAGE
        kind_lab.api.apply(keeper)

        def trained() -> str:
            try:
                return kind_lab.kubectl("logs", "keeper", "-n", space).strip()
            except Exception:  # its container has not begun
                return ""

        model = json.loads(wait_until(trained, what="the models", timeout=HEALED, every=1).splitlines()[-1])
        here.rows, here.answers = model["rows"], model["answers"]
        kind_lab.wait_deployment(space, "object-store")
        here.fill()
        here.up("iris", "s3://models/iris/1")
        here.well("iris")
        yield here


def test_a_wrong_model_is_said_so_and_the_right_one_mends_it(place: Place) -> None:
    wrong = {
        "bucket": (
            "s3://nowhere/iris/1",
            r"There is no model at s3://nowhere/iris/1 \(check modelUri.*S3 resource 'nowhere' not found",
        ),
        "key": (
            "s3://models/iris/9",
            r"There is no model at s3://models/iris/9 \(check modelUri.*No model found in iris/9",
        ),
        "corrupt": ("s3://models/broken", rf"{NOT_LOADED.format('corrupt')}\S*Error"),
    }
    try:
        for name, (uri, _) in wrong.items():
            place.up(name, uri)
        for name, (_, words) in wrong.items():
            place.told(name, words)
        for name in wrong:
            # One after the other: a new version stands beside the old one, and a small machine has room for few.
            place.up(name, "s3://models/iris/1")
            place.well(name)
            assert place.ask(name) == place.answers["1"]
    finally:
        place.down(*wrong)


def test_a_triton_model_with_a_broken_configuration(place: Place) -> None:
    place.lab.load(["tritonserver"])
    try:
        place.up("doubles", "s3://models/triton/broken", runtime="triton")
        place.told("doubles", f"{NOT_LOADED.format('doubles')}.*failed to load all models")
        place.up("doubles", "s3://models/triton/whole", runtime="triton")
        place.well("doubles")
        body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [21]}]}
        assert place.client("doubles").ask("/v2/models/doubles/infer", body)["outputs"][0]["data"] == [42]
    finally:
        place.down("doubles")


def test_storage_that_is_away_and_comes_back(place: Place) -> None:
    try:
        place.scale_store(0)
        place.up("away", "s3://models/iris/1")
        message = place.told("away", "The model's storage can't be reached, which is tried again by itself: ")
        assert f"{place.endpoint}/models" in message
        assert place.ask("iris") == place.answers["1"], "a model that is loaded needs no storage"
        place.scale_store(1)
        place.fill()
        place.well("away")
        assert place.ask("away") == place.answers["1"]
    finally:
        place.scale_store(1)
        place.fill()
        place.down("away")


def test_a_new_version_that_cannot_be_loaded_leaves_the_old_one_answering(place: Place) -> None:
    place.up("iris", "s3://models/iris/1")
    place.well("iris")
    try:
        place.up("iris", "s3://models/broken")
        place.told("iris", "Rolling out: replicas of the version before answer")
        wait_until(
            lambda: any(
                one.get("restartCount", 0) > 0
                for thing in place.pods("iris")
                for one in thing["status"].get("containerStatuses", ())
            ),
            what="the broken version's server to end",
            timeout=TOLD,
            every=1,
        )
        assert place.ask("iris") == place.answers["1"]
        assert place.component("iris")["healthy"] is False
    finally:
        place.up("iris", "s3://models/iris/1")
        place.well("iris")
    assert place.ask("iris") == place.answers["1"]


def test_pods_stay_when_only_their_number_may_change(place: Place) -> None:
    """KubeVela's own labels and annotations change with every revision, and with every time it applies an object."""
    place.up("iris", "s3://models/iris/1")
    place.well("iris")
    (before,) = place.pods("iris")
    place.up("iris", "s3://models/iris/1", maxReplicas=3)

    def scaled() -> bool:
        spec = (
            place.lab.api.get("autoscaling/v2", "HorizontalPodAutoscaler", "iris-predictor", place.space) or {}
        ).get("spec", {})
        return bool(spec.get("maxReplicas") == 3)

    wait_until(scaled, what="KServe to take over maxReplicas", timeout=60, every=1)
    time.sleep(2 * RESYNC_SECONDS)  # KubeVela has applied it again
    (after,) = place.pods("iris")
    assert after["metadata"]["name"] == before["metadata"]["name"]


def test_a_model_server_that_is_killed_starts_again(place: Place) -> None:
    place.up("iris", "s3://models/iris/1")
    place.well("iris")
    said = ""
    for _ in range(6):  # the kubelet waits longer each time, so that KubeVela's next look meets it
        (thing,) = place.pods("iris")
        place.kill(thing)
        try:
            said = place.told("iris", "The model server was killed, and is started again by itself", timeout=25)
            break
        except AssertionError:
            continue
    assert "exit code 137" in said
    place.well("iris")
    assert place.ask("iris") == place.answers["1"]


def test_with_two_replicas_a_killed_server_costs_a_moment_of_its_own_requests(place: Place) -> None:
    place.up("iris", "s3://models/iris/1", replicas=2)
    place.well("iris")
    try:
        victim = place.pods("iris")[0]
        began = time.perf_counter()
        with steady(place.client("iris"), "/v1/models/iris:predict", {"instances": place.rows}, 8, 120) as load:
            time.sleep(3)
            killed = time.perf_counter() - began
            place.kill(victim)
            time.sleep(5)
            place.well("iris")
            time.sleep(5)
    finally:
        place.up("iris", "s3://models/iris/1")
    assert len(load.seen) > 80
    # Until its node has seen that it is gone, requests still go to it.
    wrong = [(round(one.at - killed, 1), one.status, one.text[:200]) for one in load.failed]
    print(f"\nkilled with two replicas: {len(load.seen)} requests, {len(wrong)} failed: {wrong}")
    assert all(-one.took <= one.at - killed <= 3 for one in load.failed), wrong
    place.well("iris")


@pytest.mark.alone
def test_vela_core_may_restart_in_a_rollout(place: Place) -> None:
    place.up("iris", "s3://models/iris/1")
    place.well("iris")
    try:
        place.up("iris", "s3://models/iris/2")
        wait_until(lambda: len(place.pods("iris")) == 2, what="a pod of the new version", timeout=60, every=0.5)
        controller = place.lab.api.list(
            "v1", "Pod", "vela-system", selector="app.kubernetes.io/name=vela-core,app.kubernetes.io/instance=kubevela"
        )
        assert place.application("iris")["status"] != "running", "the rollout is over before the fault"
        for one in controller:
            place.lab.api.request(
                "DELETE",
                place.lab.api.path("v1", "Pod", one["metadata"]["name"], "vela-system"),
                params={"gracePeriodSeconds": "0"},
            )
        place.well("iris")
        assert place.ask("iris") == place.answers["2"]
        status = place.application("iris")
        assert status["workflow"]["finished"] is True
        assert status["workflow"]["appRevision"] == status["latestRevision"]["name"]
        place.lab.wait_deployment("vela-system", "kubevela-vela-core")
    finally:
        place.up("iris", "s3://models/iris/1")
    place.well("iris")


@pytest.mark.alone
def test_a_drained_node(place: Place) -> None:
    place.up("iris", "s3://models/iris/1")
    place.well("iris")
    (thing,) = place.pods("iris")
    name, node = thing["metadata"]["name"], thing["spec"]["nodeName"]
    api = place.lab.api
    try:
        place.lab.kubectl("cordon", node)
        api.request(
            "POST",
            f"{api.path('v1', 'Pod', name, place.space)}/eviction",
            json={
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": place.space},
            },
        )
        if len(api.list("v1", "Node")) == 1:
            # Others may want the node: no longer than needed.
            place.told("iris", "Replicas wait for a node", timeout=60)
            assert re.search(r"iris-predictor-\S+\s+\S+\s+Pending", place.status("iris", "--pod"))
            refused = place.client("iris").send("/v1/models/iris:predict", {"instances": place.rows})
            assert refused.status_code == requests.codes.service_unavailable
            place.lab.kubectl("uncordon", node)

        # What stands in any status may be from before the eviction.
        def replaced() -> dict[str, Any] | None:
            (*_, one) = place.pods("iris") or [{}]
            return one if condition(one, "Ready") == "True" and one["metadata"]["name"] != name else None

        moved = wait_until(replaced, what="the pod that takes its place", timeout=HEALED, every=0.5)
        assert moved is not None
        place.well("iris")
        assert len(api.list("v1", "Node")) == 1 or moved["spec"]["nodeName"] != node
        assert place.ask("iris") == place.answers["1"]
    finally:
        place.lab.kubectl("uncordon", node)
