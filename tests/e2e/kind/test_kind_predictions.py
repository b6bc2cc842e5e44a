"""Six kinds of models, trained here, packed, checked, pushed, deployed with vela, asked by REST and by gRPC.

Every answer is compared with that of the model itself, on rows it was not trained on.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from tests.conftest import namespace_of
from tests.e2e.kind.measured import apart, counted, holds, number, percentile, window
from tests.e2e.kind.serving import SMALL, Client, Seen, once, run_in_image, wait_ready

from velagen.lab import wait_until
from velagen.lab.kind import KindLab
from velagen.lab.vela import vela
from velagen.model import check_model
from velagen.model.push import open_target, push

TRAINER = "velagen.local/trainer:1"

#: The model's folder in a Triton repository is its name, so all of them are called after their application.
ONNX, PYTHON = "wine-onnx", "wine-triton"

# Runs with the versions that the servers have. Files come back in the last line, since this image has no S3 client.
TRAIN = """
import base64, json, os, warnings
os.environ |= {"MPLCONFIGDIR": "/tmp", "MLFLOW_TRACKING_URI": "file:/tmp/runs", "GIT_PYTHON_REFRESH": "quiet"}
warnings.simplefilter("ignore")
import joblib, lightgbm, mlflow, numpy, skl2onnx, sklearn, xgboost
from mlflow.models import infer_signature
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

x, y = load_wine(return_X_y=True)
x = x.astype("float32")
x, rows, y, truth = train_test_split(x, y, test_size=40, random_state=0)
answers, classes = {}, {}
def folder(name):
    os.makedirs(f"/tmp/packages/{name}")
    return f"/tmp/packages/{name}"

line = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
joblib.dump(line, folder("sklearn") + "/model.joblib")
answers["sklearn"] = classes["sklearn"] = line.predict(rows)

boost = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, xgboost.DMatrix(x, y), 20)
boost.save_model(folder("xgboost") + "/model.ubj")
answers["xgboost"] = boost.predict(xgboost.DMatrix(rows))

light = lightgbm.train({"objective": "multiclass", "num_class": 3, "num_threads": 1, "verbose": -1},
                       lightgbm.Dataset(x, y), 20)
light.save_model(folder("lightgbm") + "/model.bst")
answers["lightgbm"] = light.predict(rows)

forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(x, y)
mlflow.sklearn.save_model(forest, "/tmp/packages/mlflow", signature=infer_signature(x, forest.predict(x)),
                          pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"numpy=={numpy.__version__}"])
answers["mlflow"] = classes["mlflow"] = forest.predict(rows)

exported = skl2onnx.to_onnx(line, x[:1], options={"zipmap": False})
with open(folder("onnx/wine-onnx/1") + "/model.onnx", "wb") as file:
    file.write(exported.SerializeToString())
answers["onnx"] = line.predict_proba(rows)

scale, last = line[0], line[-1]
numpy.savez(folder("triton/wine-triton/1") + "/weights.npz", mean=scale.mean_, scale=scale.scale_,
            coef=last.coef_, intercept=last.intercept_)
answers["triton"] = line.predict_proba(rows)

files = {}
for where, _, names in os.walk("/tmp/packages"):
    for name in names:
        path = f"{where}/{name}"
        files[path.removeprefix("/tmp/packages/")] = base64.b64encode(open(path, "rb").read()).decode()
print(json.dumps({"rows": rows.tolist(), "truth": truth.tolist(), "files": files,
                  "answers": {name: numpy.asarray(found).tolist() for name, found in answers.items()}}))
"""

# Triton's own image has numpy and no scikit-learn.
MODEL_PY = """
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.weights = np.load(Path(pb_utils.get_model_dir()) / "weights.npz")

    def execute(self, requests):
        w = self.weights
        answers = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            scores = (rows - w["mean"]) / w["scale"] @ w["coef"].T + w["intercept"]
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            found = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", found)]))
        return answers
"""
CONFIG = """
backend: "python"
max_batch_size: 64
input [{ name: "X" data_type: TYPE_FP32 dims: [13] }]
output [{ name: "probabilities" data_type: TYPE_FP32 dims: [3] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""


@dataclass(frozen=True)
class Case:
    """One runtime, and how its server is asked."""

    runtime: str
    #: REST: V1 where it is the runtime's default.
    v1: bool
    #: The input's name; servers that take one tensor don't look at it.
    tensor: str = "X"
    datatype: str = "FP32"
    #: The output to compare; None = the only one.
    output: str | None = None

    @property
    def name(self) -> str:
        return f"wine-{self.runtime}"


CASES = [
    Case("triton", v1=False, output="probabilities"),
    Case("onnx", v1=False, output="probabilities"),
    # MLServer takes the tensor's kind from the signature, by this name.
    Case("mlflow", v1=False, tensor="input-0"),
    Case("sklearn", v1=True),
    Case("xgboost", v1=True),
    Case("lightgbm", v1=True),
]
BY_RUNTIME = {case.runtime: case for case in CASES}
#: One of each of two ways: KServe has a protocol for it, or the server opens the port unasked.
GRPC_ALONE = {"onnx": "onnx-grpc", "sklearn": "sklearn-grpc"}


@dataclass(frozen=True)
class World:
    """What the tests of this file share: models that are up, and what they must answer."""

    lab: KindLab
    space: str
    rows: np.ndarray
    truth: np.ndarray
    answers: dict[str, np.ndarray]


def application(name: str, space: str, properties: dict[str, Any]) -> dict[str, Any]:
    """An application of one model."""
    component: dict[str, Any] = {"name": name, "type": "kfserving", "properties": properties}
    return {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": space},
        "spec": {"components": [component]},
    }


@pytest.fixture(scope="module")
def world(kind_lab: KindLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    lab = kind_lab
    assert lab.api.get("core.oam.dev/v1beta1", "ComponentDefinition", "kfserving", "vela-system"), "no addon"
    # The servers are there since the lab came up.
    lab.load(["trainer"])
    folder = tmp_path_factory.mktemp("packages")
    # Of another name at each try: one that goes takes nothing in.
    with namespace_of(lab.api, "predictions") as space:
        trained = run_in_image(lab, space, TRAINER, TRAIN)
        for name, content in trained["files"].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        (folder / "triton" / PYTHON / "1" / "model.py").write_text(MODEL_PY)
        (folder / "triton" / PYTHON / "config.pbtxt").write_text(CONFIG)
        # All the rest Triton reads from the graph.
        (folder / "onnx" / ONNX / "config.pbtxt").write_text("max_batch_size: 64\n")
        for case in CASES:
            uri = pushed(lab, folder / case.runtime, case)
            properties = {"runtime": case.runtime, "modelUri": uri, "minReplicas": 1}
            up(lab, folder, application(case.name, space, {**properties, "protocol": "both"}))
            if case.runtime in GRPC_ALONE:
                alone = {**properties, "protocol": "grpc", "resources": SMALL}
                up(lab, folder, application(GRPC_ALONE[case.runtime], space, alone))
        for name in (*(case.name for case in CASES), *GRPC_ALONE.values()):
            wait_ready(lab, space, name)
        yield World(
            lab,
            space,
            np.array(trained["rows"], dtype=np.float32),
            np.array(trained["truth"]),
            {name: np.array(found) for name, found in trained["answers"].items()},
        )
        for thing in lab.api.list("core.oam.dev/v1beta1", "Application", space):
            lab.api.delete("core.oam.dev/v1beta1", "Application", thing["metadata"]["name"], space)
        wait_until(lambda: not lab.api.list("v1", "Pod", space), what="the end of all pods", timeout=180, every=1)


def pushed(lab: KindLab, package: Path, case: Case) -> str:
    """Check a package and push it, as `velagen model` does; give its address."""
    runtime = "triton" if case.runtime == "onnx" else case.runtime
    report = check_model(package)
    assert report.serves, [str(problem) for problem in report.problems]
    assert report.layout == runtime
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{key}", value)
        patch.setenv("NO_PROXY", "127.0.0.1")
        with open_target(f"s3://models/wine/{case.runtime}", endpoint_url=lab.url("models")) as target:
            done = push(package, target, overwrite=True, delete=True)
    assert {*done.sent, *done.equal} == {
        path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()
    }
    return done.uri


def up(lab: KindLab, folder: Path, thing: dict[str, Any]) -> None:
    file = folder / f"{thing['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump(thing))
    vela(lab.kubeconfig, "up", "-f", file)


def asks(case: Case, rows: np.ndarray) -> tuple[str, dict[str, Any]]:
    """Path and body of a request for these rows."""
    if case.v1:
        return f"/v1/models/{case.name}:predict", {"instances": rows.tolist()}
    tensor = {"name": case.tensor, "shape": list(rows.shape), "datatype": case.datatype, "data": rows.ravel().tolist()}
    return f"/v2/models/{case.name}/infer", {"id": "1", "inputs": [tensor]}


def rest(world: World, case: Case) -> np.ndarray:
    """What the model answers over REST, through the gateway."""
    client = Client(world.lab, world.space, case.name)
    answer = client.ask(*asks(case, world.rows))
    if case.v1:
        return np.array(answer["predictions"])
    (output,) = [found for found in answer["outputs"] if case.output in (None, found["name"])]
    return np.array(output["data"]).reshape(output["shape"])


def grpc(world: World, name: str, model: str, case: Case) -> np.ndarray:
    """What the model answers over gRPC, through the gateway: there the name of the authority chooses it.

    Args:
        name: of the application.
        model: its name inside the server.
    """
    address = world.lab.url("gateway").removeprefix("http://")
    authority = f"{name}-{world.space}.example.com"
    options = [("grpc.default_authority", authority), ("grpc.enable_http_proxy", 0)]
    with triton.InferenceServerClient(address, channel_args=options) as client:
        assert client.is_model_ready(model, client_timeout=30)
        tensor = triton.InferInput(case.tensor, list(world.rows.shape), case.datatype)
        tensor.set_data_from_numpy(world.rows)
        result = client.infer(model, [tensor], request_id="1", client_timeout=30)
    response = result.get_response()
    (output,) = [found for found in response.outputs if case.output in (None, found.name)]
    if response.raw_output_contents:
        found = result.as_numpy(output.name)
    else:
        # MLServer and KServe may answer with typed contents, which this client gives as they are.
        (values,) = [list(values) for _, values in output.contents.ListFields()]
        found = np.array(values).reshape(list(output.shape))
    assert found is not None
    return np.asarray(found)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Labels are equal; probabilities as far as single precision goes."""
    if np.issubdtype(expected.dtype, np.integer):
        assert found.ravel().tolist() == expected.tolist()
        return
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.runtime)
def test_a_model_answers_by_rest_as_it_does_at_home(world: World, case: Case) -> None:
    same(rest(world, case), world.answers[case.runtime])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.runtime)
def test_the_same_pod_answers_by_grpc_as_it_does_at_home(world: World, case: Case) -> None:
    same(grpc(world, case.name, case.name, case), world.answers[case.runtime])


@pytest.mark.parametrize("runtime", GRPC_ALONE)
def test_protocol_grpc_answers_through_the_gateway(world: World, runtime: str) -> None:
    name = GRPC_ALONE[runtime]
    # Triton's model has the name of its folder, the others that of the component.
    model = ONNX if runtime == "onnx" else name
    same(grpc(world, name, model, BY_RUNTIME[runtime]), world.answers[runtime])


def test_the_models_know_something(world: World) -> None:
    """Equal answers of models that guess would prove little."""
    for name, answers in world.answers.items():
        chosen = answers if answers.ndim == 1 else answers.argmax(axis=1)
        assert (chosen == world.truth).mean() > 0.85, name


def test_v2_answers_as_v1_where_a_server_has_both(world: World) -> None:
    case = BY_RUNTIME["sklearn"]
    same(rest(world, replace(case, v1=False)), world.answers["sklearn"])


def test_triton_completed_the_configuration_that_the_package_left_out(world: World) -> None:
    config = Client(world.lab, world.space, "wine-onnx").ask(f"/v2/models/{ONNX}/config")
    assert config["backend"] == "onnxruntime"
    assert [(tensor["name"], tensor["dims"]) for tensor in config["input"]] == [("X", [13])]
    assert {tensor["name"] for tensor in config["output"]} == {"label", "probabilities"}
    assert config["max_batch_size"] == 64
    assert "dynamic_batching" in config


#: What a server answers with 500: Triton can't read it, and does not count it; MLServer and KServe's servers fail in
#: the model.
REFUSED: dict[str, dict[str, Any]] = {
    "triton": {"nothing": 1},
    "onnx": {"nothing": 1},
    "mlflow": {"id": "1", "inputs": [{"name": "input-0", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]},
    "sklearn": {"instances": [[1.0, 2.0]]},
    "xgboost": {"nothing": 1},
    "lightgbm": {"instances": [[1.0, 2.0]]},
}
#: Who tells failed requests apart, and who counts those that are not read.
TELLS_ERRORS, READS_FIRST = {"mlflow"}, {"triton", "onnx"}
GOOD, BAD = 120, 30


@pytest.mark.seconds(60)
def test_what_was_asked_is_what_is_counted(world: World) -> None:
    """All six, by server and gateway: requests and errors exactly, the share of errors and the median as they are."""
    lab, space = world.lab, world.space
    seen: dict[str, list[Seen]] = {case.name: [] for case in CASES}
    senders = [(case, Client(lab, space, case.name), *asks(case, world.rows[:1])) for case in CASES]
    with window(lab, space, "server", "envoy") as grown:
        # All at once, and failures spread over the time: a slow machine's window may hold a part of it.
        for turn in range(GOOD + BAD):
            fails = turn % (GOOD // BAD + 1) == GOOD // BAD
            for case, client, path, body in senders:
                seen[case.name].append(once(client, path, REFUSED[case.runtime] if fails else body, 0))
    ever = {what: counted(lab, what, "envoy", space) for what in ("requests", "errors")}
    for case in CASES:
        answers = [one.status for one in seen[case.name]]
        assert answers.count(200) == GOOD, case
        assert answers.count(500) == BAD, case
        assert grown["envoy", "requests"][case.name] == GOOD + BAD
        assert grown["envoy", "errors"][case.name] == BAD
        assert grown["server", "requests"][case.name] == GOOD + (BAD if case.runtime not in READS_FIRST else 0)
        if case.runtime in TELLS_ERRORS:
            assert grown["server", "errors"][case.name] == BAD
        mine = f'namespace="{space}",version="{case.name}"'
        # The rules are looked at a moment after the counters.
        # What was asked before counts too as far as the window reaches back: what other tests asked did not fail, and
        # what met the gateway before the new model's pod was known there did.
        before = ever["errors"][case.name] - BAD
        least, most = BAD / ever["requests"][case.name] - 0.01, (BAD + before) / (GOOD + BAD + before) + 0.01
        holds(
            lab,
            f'model:errors:ratio5m{{{mine},route="envoy"}}',
            lambda share, least=least, most=most: least < share < most,
            f"a share of errors from {least:.3f} to {most:.3f}",
        )
        median = holds(lab, f'model:latency_seconds:p50{{{mine},route="envoy"}}', bool, "P50")
        own = percentile(seen[case.name], 0.5)
        print(f"{case.runtime}: P50 {median * 1000:.1f} ms by Envoy, {own * 1000:.1f} ms by the client")
        # On a busy machine a client needs longer for itself than such a model does; what it sees is never less.
        assert median <= own or apart(median, own) <= 1
        assert holds(lab, f'model:latency_seconds:mean{{{mine},route="server"}}', bool, "the mean")
        of_server = f'model:latency_seconds:p99{{{mine},route="server"}}'
        if case.runtime in READS_FIRST:
            assert number(lab, of_server) is None, "Triton has a mean alone"
        else:
            assert holds(lab, of_server, bool, "P99")
