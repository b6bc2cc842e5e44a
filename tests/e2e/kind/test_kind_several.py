"""Several models in one server: each answers by its name, and one leaves the list while the others go on answering."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from tests.e2e.kind.serving import (
    SMALL,
    Client,
    pods,
    put_model,
    run_in_image,
    steady,
    triton_config,
    up,
    wait_ready,
    wait_rolled,
)

from velagen.lab import wait_until
from velagen.lab.kind import KindLab

NUMBERS = [1.0, 2.0, 3.0, 4.0]
BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": NUMBERS}]}
#: What each model multiplies a number with.
FACTORS = {"doubled": 2.0, "times_ten": 10.0}

MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", one * FACTOR)]) for one in given]
"""

# Runs in the image that serves. A package without model-settings.json, as MLflow writes it.
TRAIN = """
import base64, json, os, warnings
os.environ |= {"MPLCONFIGDIR": "/tmp", "MLFLOW_TRACKING_URI": "file:/tmp/runs", "GIT_PYTHON_REFRESH": "quiet"}
warnings.simplefilter("ignore")
import mlflow, numpy
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
x = numpy.arange(40, dtype="float64").reshape(10, 4) % 7
files = {}
for name, factor in (("doubled", 2.0), ("times_ten", 10.0)):
    model = LinearRegression().fit(x, x[:, 0] * factor)
    where = f"/tmp/packages/{name}"
    mlflow.sklearn.save_model(model, where, signature=infer_signature(x, model.predict(x)), pip_requirements=[])
    files[name] = {}
    for folder, _, names in os.walk(where):
        for one in names:
            path = f"{folder}/{one}"
            files[name][os.path.relpath(path, where)] = base64.b64encode(open(path, "rb").read()).decode()
print(json.dumps(files))
"""


def listed(addresses: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "uri": uri} for name, uri in addresses.items()]


def by_grpc(lab: KindLab, space: str, name: str) -> triton.InferenceServerClient:
    """A client of one model service, by the name of the authority."""
    options = [("grpc.default_authority", f"{name}-{space}.example.com"), ("grpc.enable_http_proxy", 0)]
    return triton.InferenceServerClient(lab.url("gateway").removeprefix("http://"), channel_args=options)


def test_two_models_in_one_triton_and_one_of_them_leaves(kind_lab: KindLab, space: str) -> None:
    addresses = {
        name: put_model(
            kind_lab,
            f"several/{name}",
            {
                "config.pbtxt": triton_config(name, "X TYPE_FP32 [4]", "Y TYPE_FP32 [4]"),
                "1/model.py": MODEL.replace("FACTOR", str(factor)),
            },
        )
        for name, factor in FACTORS.items()
    }
    properties = {
        "runtime": "triton",
        "protocol": "both",
        "minReplicas": 1,
        "rollout": "surge",
        "models": listed(addresses),
        "resources": SMALL,
    }
    up(kind_lab, space, "pair", properties)
    wait_ready(kind_lab, space, "pair")
    client = Client(kind_lab, space, "pair")
    for name, factor in FACTORS.items():
        answer = client.ask(f"/v2/models/{name}/infer", BODY)
        assert answer["outputs"][0]["data"] == [number * factor for number in NUMBERS]
        assert client.send(f"/v2/models/{name}/ready").status_code == requests.codes.ok
    with by_grpc(kind_lab, space, "pair") as grpc:
        for name, factor in FACTORS.items():
            assert grpc.is_model_ready(name, client_timeout=30)
            tensor = triton.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.array([NUMBERS], dtype=np.float32))
            found = grpc.infer(name, [tensor], client_timeout=30).as_numpy("Y")
            assert found.ravel().tolist() == [number * factor for number in NUMBERS]
    (pod,) = pods(kind_lab, space, "pair")
    (server,) = (one for one in pod["spec"]["containers"] if one["name"] == "kserve-container")
    assert not [one for one in server["args"] if "model-control-mode" in one], "ready, and nothing loaded"

    # One leaves the list. The other answers all the while; the one that leaves answers until its pod has gone.
    del addresses["times_ten"]
    with steady(client, "/v2/models/doubled/infer", BODY, rate=10, longest=120) as load:
        up(kind_lab, space, "pair", {**properties, "models": listed(addresses)})
        wait_until(
            lambda: [
                one for one in pods(kind_lab, space, "pair") if one["metadata"]["name"] != pod["metadata"]["name"]
            ],
            what="a new pod",
            timeout=60,
            every=0.2,
        )
        assert client.send("/v2/models/times_ten/ready").status_code == requests.codes.ok
        wait_rolled(kind_lab, space, "pair", 1, "/mnt/models/doubled")
        wait_until(
            lambda: len(pods(kind_lab, space, "pair")) == 1, what="the end of the old pod", timeout=60, every=0.5
        )
        time.sleep(1)
    assert not load.failed, load.failed[:3]
    gone = client.send("/v2/models/times_ten/infer", BODY)
    assert gone.status_code in (requests.codes.bad_request, requests.codes.not_found), gone.text
    assert "times_ten" in gone.text


def test_two_packages_of_mlflow_in_one_mlserver(kind_lab: KindLab, space: str) -> None:
    packages = run_in_image(kind_lab, space, "docker.io/seldonio/mlserver:1.7.1", TRAIN)
    addresses = {
        name: put_model(
            kind_lab, f"several-mlflow/{name}", {path: base64.b64decode(data) for path, data in files.items()}
        )
        for name, files in packages.items()
    }
    up(
        kind_lab,
        space,
        "flows",
        {"runtime": "mlflow", "protocol": "both", "minReplicas": 1, "models": listed(addresses), "resources": SMALL},
    )
    wait_ready(kind_lab, space, "flows")
    client = Client(kind_lab, space, "flows")
    body: dict[str, Any] = {
        "inputs": [{"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": NUMBERS}],
    }
    for name, factor in FACTORS.items():
        answer = client.ask(f"/v2/models/{name}/infer", body)
        assert answer["model_name"] == name
        assert answer["outputs"][0]["data"] == pytest.approx([factor], abs=1e-6)
        assert client.send(f"/v2/models/{name}/ready").status_code == requests.codes.ok
    with by_grpc(kind_lab, space, "flows") as grpc:
        assert all(grpc.is_model_ready(name, client_timeout=30) for name in FACTORS)
