"""The definitions, rendered by KubeVela itself without a cluster, and their status rules, evaluated by CUE itself."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from velagen.check.dryrun import Outcome, dry_run
from velagen.definition.build import build_definitions
from velagen.definition.catalog import Catalog, of_kubevela
from velagen.documents import parse_documents, read_documents
from velagen.errors import Problem
from velagen.kubevela import VERSIONS
from velagen.lab.objects import kserve_runtimes
from velagen.oracle import VERSIONS as CUE_VERSIONS
from velagen.oracle import Oracle
from velagen.project import Project
from velagen.schema import validate

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
TRITON = {"runtime": "triton", "modelUri": "s3://models/sentiment/1"}


@cache
def catalog(kubevela: str | None = None) -> Catalog:
    return Catalog.of([*of_kubevela(kubevela), *(one.known() for one in build_definitions(Project(ROOT)))])


def render(properties: dict[str, Any], *traits: dict[str, Any], name: str = "m") -> dict[str, dict[str, Any]]:
    """The objects of a component, by kind and name; the application must render."""
    return objects(outcome_of(properties, *traits, name=name))


def outcome_of(properties: dict[str, Any], *traits: dict[str, Any], name: str = "m") -> Outcome:
    """What KubeVela makes of a component, or says to it."""
    component = {"name": name, "type": "kfserving", "properties": properties, "traits": list(traits)}
    application = {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": name},
        "spec": {"components": [component]},
    }
    (document,) = parse_documents(yaml.safe_dump(application), "app.yaml")
    return dry_run(document, catalog())


def problems_of(definition: str, properties: dict[str, Any]) -> list[Problem]:
    """What the schema of a definition says of properties."""
    found = next(one.schema for one in catalog().known.values() if one.own and one.name == definition)
    assert found is not None
    return validate(found, properties)


def objects(outcome: Outcome) -> dict[str, dict[str, Any]]:
    assert not outcome.problems, outcome.raw
    return {f"{one.content['kind']}/{one.content['metadata']['name']}": one.content for one in outcome.objects}


def model(properties: dict[str, Any], *traits: dict[str, Any]) -> dict[str, Any]:
    """The predictor's model of a component called m."""
    found: dict[str, Any] = render(properties, *traits)["InferenceService/m"]["spec"]["predictor"]["model"]
    return found


def trait(type_: str, **properties: Any) -> dict[str, Any]:
    return {"type": type_, "properties": properties}


# ---------------------------------------------------------------- the examples


@pytest.mark.parametrize("kubevela", VERSIONS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_renders_as_it_did(example: Path, kubevela: str) -> None:
    """Set VELAGEN_GOLDEN=write to take over what is rendered now; each release has to render the same."""
    (document,) = read_documents(example)
    outcome = dry_run(document, catalog(kubevela), kubevela=kubevela)
    assert not outcome.problems, outcome.raw
    rendered = [one.content for one in outcome.objects]
    golden = GOLDEN / example.name
    if os.environ.get("VELAGEN_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        golden.write_text(yaml.safe_dump_all(rendered, sort_keys=True, explicit_start=True, width=120))
    assert rendered == list(yaml.safe_load_all(golden.read_text()))


def test_every_golden_file_belongs_to_an_example() -> None:
    assert sorted(path.name for path in GOLDEN.glob("*.yaml")) == [path.name for path in EXAMPLES]


def test_the_articles_application_is_the_articles() -> None:
    text = (ROOT / "examples" / "sentiment.yaml").read_text()
    assert 'runtime: "triton"\n        minReplicas: 2\n        modelUri: "s3://models/sentiment/1"\n' in text
    spec = yaml.safe_load(text)["spec"]
    assert spec == {
        "components": [
            {
                "name": "sentiment",
                "type": "kfserving",
                "properties": {"runtime": "triton", "minReplicas": 2, "modelUri": "s3://models/sentiment/1"},
            }
        ]
    }


# ---------------------------------------------------------------- the component


def test_a_pod_that_ends_goes_on_answering_for_a_while() -> None:
    beside = {"image": "registry.example.com/text:1"}
    spec = render({**TRITON, "transformer": beside, "explainer": beside})["InferenceService/m"]["spec"]
    containers = [spec["predictor"]["model"], *(spec[one]["containers"][0] for one in ("transformer", "explainer"))]
    for container in containers:
        assert container["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "10"]}}}
    # Requests under way have Kubernetes' own thirty seconds after it.
    assert {spec[one]["terminationGracePeriodSeconds"] for one in ("predictor", "transformer", "explainer")} == {40}


def test_knative_ends_pods_by_its_own_rules() -> None:
    spec = render({**TRITON, "deploymentMode": "knative", "transformer": {"image": "x"}})["InferenceService/m"]["spec"]
    assert "lifecycle" not in spec["predictor"]["model"]
    assert "lifecycle" not in spec["transformer"]["containers"][0]
    assert not any("terminationGracePeriodSeconds" in spec[one] for one in ("predictor", "transformer"))


def test_nothing_is_written_that_a_trait_owns() -> None:
    predictor = render(TRITON)["InferenceService/m"]["spec"]["predictor"]
    assert set(predictor) == {"model", "annotations", "labels", "terminationGracePeriodSeconds", "securityContext"}
    assert set(predictor["model"]) == {
        "modelFormat",
        "runtime",
        "protocolVersion",
        "storageUri",
        "readinessProbe",
        "lifecycle",
        "terminationMessagePolicy",
    }


@pytest.mark.parametrize(("mode", "written"), [("standard", "Standard"), ("knative", "Knative")])
def test_the_mode_is_always_written(mode: str, written: str) -> None:
    service = render({**TRITON, "deploymentMode": mode})["InferenceService/m"]
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == written


# runtime, what else is given -> format, ServingRuntime, KServe's protocol, path of readiness
RUNTIMES: list[tuple[str, dict[str, Any], str, str, str | None, str | None]] = [
    ("triton", {}, "triton", "kserve-tritonserver", "v2", "/v2/health/ready"),
    ("triton", {"modelName": "x"}, "triton", "kserve-tritonserver", "v2", "/v2/models/x/ready"),
    ("triton", {"modelFormat": {"name": "onnx"}}, "onnx", "kserve-tritonserver", "v2", "/v2/health/ready"),
    ("triton", {"protocol": "grpc"}, "triton", "kserve-tritonserver", "grpc-v2", "/v2/health/ready"),
    ("triton", {"protocol": "both"}, "triton", "kserve-tritonserver", "v2", "/v2/health/ready"),
    ("onnx", {}, "onnx", "kserve-tritonserver", "v2", "/v2/health/ready"),
    ("sklearn", {}, "sklearn", "kserve-sklearnserver", "v1", "/v1/models/m"),
    ("sklearn", {"protocolVersion": "v2"}, "sklearn", "kserve-sklearnserver", "v2", "/v2/models/m/ready"),
    ("sklearn", {"protocol": "grpc"}, "sklearn", "kserve-sklearnserver", "v2", "/v2/models/m/ready"),
    ("sklearn", {"protocol": "both"}, "sklearn", "kserve-sklearnserver", "v1", "/v1/models/m"),
    ("xgboost", {}, "xgboost", "kserve-xgbserver", "v1", "/v1/models/m"),
    ("lightgbm", {}, "lightgbm", "kserve-lgbserver", "v1", "/v1/models/m"),
    ("mlflow", {}, "mlflow", "kserve-mlserver", "v2", "/v2/models/m/ready"),
    ("mlflow", {"protocol": "grpc"}, "mlflow", "kserve-mlserver", "v2", "/v2/models/m/ready"),
    ("pytorch", {"modelName": "x"}, "pytorch", "kserve-torchserve", "v1", "/v1/models/x"),
    (
        "pytorch",
        {"modelName": "x", "protocol": "grpc"},
        "pytorch",
        "kserve-torchserve",
        "grpc-v2",
        "/v2/models/x/ready",
    ),
    ("tensorflow", {}, "tensorflow", "kserve-tensorflow-serving", "v1", "/v1/models/m"),
    ("tensorflow", {"protocol": "grpc"}, "tensorflow", "kserve-tensorflow-serving", "grpc-v1", "/v1/models/m"),
    ("huggingface", {}, "huggingface", "kserve-huggingfaceserver", "v2", "/v2/models/m/ready"),
    ("vllm", {}, "vLLM", "kserve-vllmserver", None, None),
    ("triton", {"servingRuntime": "ours"}, "triton", "ours", "v2", "/v2/health/ready"),
]


@pytest.mark.parametrize(("runtime", "given", "format_", "server", "protocol", "path"), RUNTIMES)
def test_runtime(
    runtime: str, given: dict[str, Any], format_: str, server: str, protocol: str | None, path: str | None
) -> None:
    found = model({**TRITON, "runtime": runtime, **given})
    assert (found["modelFormat"]["name"], found["runtime"]) == (format_, server)
    assert found.get("protocolVersion") == protocol
    if path is None:
        assert "readinessProbe" not in found, "the runtime's own probe would be merged with ours"
    else:
        assert found["readinessProbe"]["httpGet"] == {"path": path, "port": 8080}


@pytest.mark.parametrize("runtime", sorted({row[0] for row in RUNTIMES}))
def test_runtime_protocol_and_format_are_what_kserve_lists(runtime: str) -> None:
    """What KServe 0.20 ships must have each ServingRuntime that is named, with its format and its protocol."""
    from velagen.tools import source

    shipped = {}
    for path in (source("kserve") / "config" / "runtimes").glob("kserve-*.yaml"):
        found = yaml.safe_load(path.read_text())
        shipped[found["metadata"]["name"]] = found["spec"]
    for _, given, format_, server, protocol, _ in (row for row in RUNTIMES if row[0] == runtime):
        if given.get("servingRuntime"):
            continue
        spec = shipped[server]
        assert format_ in {one["name"] for one in spec["supportedModelFormats"]}
        assert protocol is None or protocol in spec["protocolVersions"]


@pytest.mark.parametrize(
    ("runtime", "port"),
    [("triton", 9000), ("mlflow", 9000), ("tensorflow", 9000), ("pytorch", 7070), ("sklearn", 8081), ("xgboost", 8081)],
)
def test_grpc_opens_the_servers_port(runtime: str, port: int) -> None:
    found = model({**TRITON, "runtime": runtime, "protocol": "grpc", "modelName": "x"})
    assert found["ports"] == [{"name": "h2c", "containerPort": port, "protocol": "TCP"}]


@pytest.mark.parametrize(("runtime", "port"), [("triton", 9000), ("onnx", 9000), ("mlflow", 9000), ("lightgbm", 8081)])
def test_both_opens_two_ports_the_one_of_http_first(runtime: str, port: int) -> None:
    found = model({**TRITON, "runtime": runtime, "protocol": "both"})
    assert found["ports"] == [
        {"name": "http1", "containerPort": 8080, "protocol": "TCP"},
        {"name": "h2c", "containerPort": port, "protocol": "TCP"},
    ]
    assert found["readinessProbe"]["httpGet"]["port"] == 8080


def test_grpc_in_knative_mode_is_not_asked_over_http_by_the_proxy() -> None:
    grpc = {"protocol": "grpc", "deploymentMode": "knative"}
    probe = model({**TRITON, **grpc})["readinessProbe"]
    assert probe["exec"]["command"][-1] == "http://localhost:8080/v2/health/ready"
    assert model({**TRITON, "runtime": "tensorflow", **grpc})["readinessProbe"]["tcpSocket"] == {"port": 9000}


@pytest.mark.parametrize(
    ("runtime", "flag"),
    [
        ("sklearn", "--model_name=x"),
        ("xgboost", "--model_name=x"),
        ("lightgbm", "--model_name=x"),
        ("huggingface", "--model_name=x"),
        ("tensorflow", "--model_name=x"),
        ("vllm", "--served-model-name=x"),
    ],
)
def test_the_models_name_reaches_the_server(runtime: str, flag: str) -> None:
    assert model({**TRITON, "runtime": runtime, "modelName": "x", "args": ["--a"]})["args"] == [flag, "--a"]


def test_the_models_name_reaches_mlserver() -> None:
    found = model({**TRITON, "runtime": "mlflow", "env": [{"name": "A", "value": "b"}]})
    assert found["env"] == [{"name": "MLSERVER_MODEL_NAME", "value": "m"}, {"name": "A", "value": "b"}]


SEVERAL = [{"name": "a", "uri": "s3://m/a/1"}, {"name": "b_c", "uri": "s3://m/b/4"}]


@pytest.mark.parametrize("runtime", ["triton", "onnx", "mlflow"])
def test_several_models_are_a_repository_of_folders(runtime: str) -> None:
    predictor = render({"runtime": runtime, "models": SEVERAL})["InferenceService/m"]["spec"]["predictor"]
    assert predictor["storageUris"] == [
        {"uri": "s3://m/a/1", "mountPath": "/mnt/models/a"},
        {"uri": "s3://m/b/4", "mountPath": "/mnt/models/b_c"},
    ]
    found = predictor["model"]
    assert "storageUri" not in found, "KServe's webhook takes one of the two"
    assert found["storage"] == {}, "without it KServe's defaults start these servers without a model"
    assert found["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready", "all of them, and not one"
    assert ("command" in found) == (runtime == "mlflow")


def test_several_models_batch_alike() -> None:
    batching = {"preferredBatchSizes": [4, 8]}
    found = model({"runtime": "triton", "models": SEVERAL, "dynamicBatching": batching})
    assert '"/mnt/batching-models"' in found["command"][2]
    env = {
        one["name"]: one["value"]
        for one in model({"runtime": "mlflow", "models": SEVERAL, "dynamicBatching": batching})["env"]
    }
    assert env["MLSERVER_MODEL_MAX_BATCH_SIZE"] == "8"


def test_artifacts_leave_a_server_with_a_model_to_load() -> None:
    artifacts = [{"uri": "s3://m/x", "path": "/mnt/models/x"}]
    assert model({**TRITON, "artifacts": artifacts})["storage"] == {}
    assert "storage" not in model({**TRITON, "runtime": "sklearn", "artifacts": artifacts})


def test_a_storage_key_takes_the_place_of_the_location() -> None:
    found = model({**TRITON, "storageKey": "minio"})
    assert "storageUri" not in found
    assert found["storage"] == {
        "key": "minio",
        "path": "sentiment/1",
        "parameters": {"type": "s3", "bucket": "models"},
    }


def test_the_pods_own_fields() -> None:
    given = {
        "serviceAccount": "models",
        "nodeSelector": {"gpu": "t4"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "timeoutSeconds": 30,
        "minReplicas": 1,
        "maxReplicas": 3,
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi", "nvidia.com/gpu": 1}},
        "runtimeVersion": "24.08-py3",
    }
    predictor = render({**TRITON, **given})["InferenceService/m"]["spec"]["predictor"]
    assert predictor["serviceAccountName"] == "models"
    assert predictor["nodeSelector"] == {"gpu": "t4"}
    assert predictor["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert predictor["timeout"] == 30
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 3)
    # What is given for one of the two holds for the other, since KServe merges them into amounts of its own.
    assert predictor["model"]["resources"] == {
        "requests": {"cpu": "500m", "memory": "4Gi"},
        "limits": {"cpu": "500m", "memory": "4Gi", "nvidia.com/gpu": 1},
    }
    assert predictor["model"]["runtimeVersion"] == "24.08-py3"


def test_triton_batching_starts_the_runtimes_command_on_a_copy() -> None:
    batching = {"preferredBatchSizes": [4, 8], "maxBatchSize": 16}
    predictor = render({**TRITON, "dynamicBatching": batching})["InferenceService/m"]["spec"]["predictor"]
    found = predictor["model"]
    assert found["command"][:2] == ["python3", "-c"]
    assert yaml.safe_load(found["command"][3]) == {
        "preferred_batch_size": [4, 8],
        "max_queue_delay_microseconds": 100,
        "max_batch_size": 16,
    }
    assert "args" not in found, "KServe appends the runtime's own arguments, which are the command to start"
    (mount,) = found["volumeMounts"]
    assert predictor["volumes"] == [{"name": mount["name"], "emptyDir": {}}]
    assert f'"{mount["mountPath"]}"' in found["command"][2]


def test_mlserver_batching() -> None:
    found = model({**TRITON, "runtime": "mlflow", "dynamicBatching": {"preferredBatchSizes": [4, 8]}})
    env = {one["name"]: one["value"] for one in found["env"]}
    assert env["MLSERVER_MODEL_MAX_BATCH_SIZE"] == "8"
    assert float(env["MLSERVER_MODEL_MAX_BATCH_TIME"]) == 0.0001


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"runtime": "triton", "modelName": "x"}, "/v2/models/x/infer"),
        ({"runtime": "sklearn"}, "/v1/models/m:predict"),
        ({"runtime": "mlflow"}, "/v2/models/m/infer"),
    ],
)
def test_warm_up_is_the_startup_probe(given: dict[str, Any], path: str) -> None:
    sample = {"instances": [[1, 2.5]]}
    probe = model({**TRITON, **given, "warmup": {"sample": sample}})["startupProbe"]
    assert probe["exec"]["command"][4:6] == [f"http://localhost:8080{path}", "100"]
    assert yaml.safe_load(probe["exec"]["command"][6]) == sample
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800
    assert probe["timeoutSeconds"] == 300


def as_the_kubelet_runs(command: list[str]) -> list[str]:
    """A probe's command with variables and $$ read as Kubernetes' third_party/forked/golang/expansion does."""
    return [re.sub(r"\$\$|\$\(\w+\)", lambda found: "$" if found[0] == "$$" else "secret", word) for word in command]


def test_a_path_is_asked_and_not_run(tmp_path: Path) -> None:
    """The readiness probe of gRPC in knative mode is a program; its path is a text, whatever stands in it."""
    ran = tmp_path / "ran"
    path = f"/x',timeout=1)or(__import__('pathlib').Path('{ran}').touch())or('$(HOME)$$"
    grpc = {"protocol": "grpc", "deploymentMode": "knative", "readiness": {"path": path}}
    command = as_the_kubelet_runs(model({**TRITON, **grpc})["readinessProbe"]["exec"]["command"])
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_address[1]}"
        words = [sys.executable, *(word.replace("http://localhost:8080", here) for word in command[1:])]
        subprocess.run(words, check=True, timeout=60)
    assert asked == [path]
    assert not ran.exists()


def test_a_sample_reaches_the_program_as_it_is() -> None:
    sample = {"inputs": ["$(HOME) costs $$5, $x and 100 $", "'; id #"]}
    command = model({**TRITON, "runtime": "mlflow", "warmup": {"sample": sample}})["startupProbe"]["exec"]["command"]
    assert json.loads(as_the_kubelet_runs(command)[-1]) == sample


@pytest.mark.parametrize("runtime", ["sklearn", "triton"])
def test_a_companions_texts_are_its_own(runtime: str) -> None:
    """KServe fills in the model server's container alone: see tests/e2e/test_limits.py."""
    own = {"image": "x", "args": ["--template={{ m }}"], "env": [{"name": "T", "value": "{{ m }}"}]}
    spec = render({**TRITON, "runtime": runtime, "transformer": own, "explainer": own})["InferenceService/m"]["spec"]
    for one in ("transformer", "explainer"):
        assert spec[one]["containers"][0]["args"][0] == "--template={{ m }}"


def test_transformer_and_explainer_answer_under_the_models_name() -> None:
    companion = {"image": "i:1", "args": ["-x"], "artifactsUri": "s3://m/t", "minReplicas": 1}
    found = render({**TRITON, "modelName": "x", "transformer": companion, "explainer": companion})
    spec = found["InferenceService/m"]["spec"]
    for one in (spec["transformer"], spec["explainer"]):
        (container,) = one["containers"]
        assert container["args"] == ["-x", "--model_name", "x"]
        assert container["env"] == [{"name": "STORAGE_URI", "value": "s3://m/t"}]
        assert one["minReplicas"] == 1


# ---------------------------------------------------------------- gpu-share


@pytest.mark.parametrize(
    ("properties", "limits"),
    [
        ({"fraction": 0.5}, {"nvidia.com/gpu.shared": 1}),
        ({"fraction": 0.25, "mode": "mps", "resourceName": "nvidia.com/gpu"}, {"nvidia.com/gpu": 1}),
        ({"fraction": 0.5, "mode": "mig", "gpu": "a100-40gb"}, {"nvidia.com/mig-3g.20gb": 1}),
        ({"fraction": 0.125, "mode": "mig", "gpu": "h100-80gb"}, {"nvidia.com/mig-1g.10gb": 1}),
        (
            {"fraction": 0.3, "mode": "hami"},
            {"nvidia.com/gpu": 1, "nvidia.com/gpumem-percentage": 30, "nvidia.com/gpucores": 30},
        ),
        (
            {"fraction": 0.29, "mode": "volcano"},
            {"volcano.sh/vgpu-number": 1, "volcano.sh/vgpu-memory-percentage": 29, "volcano.sh/vgpu-cores": 29},
        ),
        ({"memory": "8Gi", "mode": "hami"}, {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 8192}),
        ({"memory": "1G", "mode": "volcano"}, {"volcano.sh/vgpu-number": 1, "volcano.sh/vgpu-memory": 954}),
        ({"memory": "5Gi", "mode": "mig", "gpu": "a100-40gb"}, {"nvidia.com/mig-2g.10gb": 1}),
        ({"memory": "4Gi", "mode": "mps", "gpu": "t4", "isolation": "memory"}, {"nvidia.com/gpu.shared": 1}),
    ],
)
def test_gpu_share_asks_for_what_the_mode_has(properties: dict[str, Any], limits: dict[str, int]) -> None:
    given = {**TRITON, "resources": {"limits": {"memory": "4Gi"}}}
    assert model(given, trait("gpu-share", **properties))["resources"]["limits"] == {"memory": "4Gi", **limits}


@pytest.mark.parametrize(("fraction", "replicas"), [(0.5, "2"), (0.33, "3"), (0.25, "4"), (0.2, "5"), (0.1, "10")])
def test_gpu_share_selects_nodes_with_as_many_parts(fraction: float, replicas: str) -> None:
    found = render({**TRITON, "nodeSelector": {"zone": "a"}}, trait("gpu-share", fraction=fraction))
    assert found["InferenceService/m"]["spec"]["predictor"]["nodeSelector"] == {
        "zone": "a",
        "nvidia.com/gpu.sharing-strategy": "time-slicing",
        "nvidia.com/gpu.replicas": replicas,
    }


def test_gpu_share_by_memory_selects_nodes_whose_parts_have_it() -> None:
    """Beside what the component says of its nodes."""
    preferred = [{"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}]
    given = {
        **TRITON,
        "pod": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}},
    }
    found = render(given, trait("gpu-share", memory="4Gi", mode="mps", gpu="t4"))["InferenceService/m"]
    predictor = found["spec"]["predictor"]
    assert predictor["nodeSelector"] == {"nvidia.com/gpu.sharing-strategy": "mps", "nvidia.com/gpu.replicas": "3"}
    memory = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["12287"]}
    assert predictor["affinity"]["nodeAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [memory]}]},
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
    free = render(TRITON, trait("gpu-share", memory="4Gi", mode="mps", gpu="t4", selectNodes=False))
    assert not {"nodeSelector", "affinity"} & free["InferenceService/m"]["spec"]["predictor"].keys()


MIG_DEVICE = '"profile" in device.attributes[device.driver] && device.attributes[device.driver].profile == "3g.20gb"'
MEMORY = (
    '"memory" in device.capacity[device.driver] && '
    'device.capacity[device.driver].memory.compareTo(quantity("8192Mi")) >= 0'
)
SHARES = (
    '"shares" in device.capacity[device.driver] && device.capacity[device.driver].shares.compareTo(quantity("2")) == 0'
)


@pytest.mark.parametrize(
    ("properties", "device_class", "expression", "capacity"),
    [
        ({"memory": "8Gi", "isolation": "fault"}, "mig.nvidia.com", MEMORY, None),
        ({"memory": "8Gi", "deviceClass": "gpu.example.com"}, "gpu.example.com", MEMORY, None),
        ({"fraction": 0.5, "gpu": "a100-40gb"}, "mig.nvidia.com", MIG_DEVICE, None),
        ({"memory": "10Gi", "gpu": "a100-40gb"}, "mig.nvidia.com", MIG_DEVICE, None),
        (
            {"memory": "8Gi", "shared": True},
            "gpu.nvidia.com",
            f"device.allowMultipleAllocations && {MEMORY}",
            {"requests": {"memory": "8192Mi"}},
        ),
        (
            {"fraction": 0.5, "shared": True},
            "gpu.nvidia.com",
            f"device.allowMultipleAllocations && {SHARES}",
            {"requests": {"shares": "1"}},
        ),
    ],
)
def test_gpu_share_by_dra_makes_a_claim_for_each_pod(
    properties: dict[str, Any], device_class: str, expression: str, capacity: dict[str, Any] | None
) -> None:
    own = {"pod": {"resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "nic"}]}}
    found = render({**TRITON, **own}, trait("gpu-share", mode="dra", **properties))
    (template,) = (one for one in found.values() if one["kind"] == "ResourceClaimTemplate")
    assert template["apiVersion"] == "resource.k8s.io/v1"
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["name"] == "gpu"
    exactly = {"deviceClassName": device_class, "selectors": [{"cel": {"expression": expression}}]}
    assert request["exactly"] == exactly | ({"capacity": capacity} if capacity else {})
    predictor = found["InferenceService/m"]["spec"]["predictor"]
    name = template["metadata"]["name"]
    assert re.fullmatch("m-gpu-[0-9a-f]{8}", name)
    assert predictor["resourceClaims"] == [
        {"name": "nic", "resourceClaimTemplateName": "nic"},
        {"name": "gpu-share", "resourceClaimTemplateName": name},
    ]
    assert predictor["model"]["resources"] == {"claims": [{"name": "gpu-share"}]}


def test_another_request_is_another_template_for_its_spec_cant_be_changed() -> None:
    def name(memory: str) -> str:
        found = render(TRITON, trait("gpu-share", mode="dra", memory=memory))
        (template,) = (key for key in found if key.startswith("ResourceClaimTemplate/"))
        return template

    assert name("8Gi") == name("8192Mi") != name("16Gi")


def test_the_new_version_of_a_canary_has_a_claim_too() -> None:
    shared = trait("gpu-share", mode="dra", memory="8Gi")
    found = render(TRITON, shared, trait("canary", **CANARY, route=HOSTS))
    stable, new = (found[f"InferenceService/{name}"]["spec"]["predictor"] for name in ("m", "m-canary"))
    assert new["resourceClaims"] == stable["resourceClaims"]
    assert new["model"]["resources"]["claims"] == [{"name": "gpu-share"}]


def test_gpu_share_by_kai_takes_memory_in_mebibytes() -> None:
    found = render(TRITON, trait("gpu-share", memory="2000Mi", mode="kai", queue="q"))["InferenceService/m"]
    annotations = found["spec"]["predictor"]["annotations"]
    assert annotations["gpu-memory"] == "2000"
    assert "gpu-fraction" not in annotations


def test_gpu_share_by_kai_asks_for_no_gpu() -> None:
    found = render(TRITON, trait("gpu-share", fraction=0.3, mode="kai", queue="q"))["InferenceService/m"]
    predictor = found["spec"]["predictor"]
    assert predictor["schedulerName"] == "kai-scheduler"
    assert predictor["annotations"]["gpu-fraction"] == "0.3"
    assert predictor["labels"]["kai.scheduler/queue"] == "q"
    assert "resources" not in predictor["model"]


# ---------------------------------------------------------------- autoscale


def scaled(properties: dict[str, Any], **autoscale: Any) -> dict[str, Any]:
    found = render(properties, trait("autoscale", maxReplicas=9, **autoscale))
    assert found["InferenceService/m"]["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    spec: dict[str, Any] = found["ScaledObject/m-autoscale"]["spec"]
    return spec


def test_the_articles_formula() -> None:
    spec = scaled(TRITON, metric="qps", policy="article", targetLatencyMilliseconds=20, minReplicas=2)
    (trigger,) = spec["triggers"]
    query = trigger["metadata"]["query"]
    rate = 'sum(rate(istio_requests_total{reporter="destination",destination_workload="m-predictor",'
    assert query.startswith(rate + 'destination_workload_namespace="default"}[1m])) * 0.8 / 20 and count(')
    # Kubernetes takes ceil(metric / threshold) pods, and never fewer than the least: max(2, ceil(qps * 0.8 / 20)).
    assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 9)


@pytest.mark.parametrize(
    ("source", "series"),
    [
        ("istio", "istio_request_duration_milliseconds_sum"),
        ("envoy", "envoy_cluster_upstream_rq_time_sum"),
        ("triton", "nv_inference_request_duration_us"),
        ("mlserver", "model_infer_request_duration_sum"),
    ],
)
def test_littles_law_counts_the_requests_in_the_system(source: str, series: str) -> None:
    law = {"metric": "concurrency", "policy": "littles-law", "concurrencyPerReplica": 4, "utilization": 0.5}
    runtime = "mlflow" if source == "mlserver" else "triton"
    (trigger,) = scaled({**TRITON, "runtime": runtime}, **law, source=source)["triggers"]
    assert trigger["metadata"]["query"].startswith(f"sum(rate({series}{{")
    assert float(trigger["metadata"]["threshold"]) == 2


def test_no_answer_never_counts_as_no_load() -> None:
    for metric in ("qps", "latency", "concurrency"):
        (trigger,) = scaled(TRITON, metric=metric, target=5)["triggers"]
        assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_latency_is_not_divided_among_the_pods() -> None:
    (trigger,) = scaled(TRITON, metric="latency", target=200, percentile=0.99)["triggers"]
    assert trigger["metricType"] == "Value"
    assert trigger["metadata"]["query"].startswith("histogram_quantile(0.99, ")
    assert trigger["metadata"]["query"].endswith(" >= 0"), "0/0 is dropped"


def test_the_components_replicas_hold_where_the_trait_gives_none() -> None:
    assert scaled({**TRITON, "minReplicas": 3}, metric="qps", target=5)["minReplicaCount"] == 3
    assert scaled(TRITON, metric="qps", target=5)["minReplicaCount"] == 1


@pytest.mark.parametrize(
    ("engine", "metric", "mode", "scale_metric"),
    [
        ("hpa", "cpu", "standard", "cpu"),
        ("kpa", "concurrency", "knative", "concurrency"),
        ("kpa", "qps", "knative", "rps"),
    ],
)
def test_engines_of_kserve_itself(engine: str, metric: str, mode: str, scale_metric: str) -> None:
    found = render(
        {**TRITON, "deploymentMode": mode},
        trait("autoscale", engine=engine, metric=metric, target=70, minReplicas=1, maxReplicas=4),
    )
    assert list(found) == ["InferenceService/m"]
    predictor = found["InferenceService/m"]["spec"]["predictor"]
    assert predictor["scaleMetric"] == scale_metric
    assert (predictor["scaleTarget"], predictor["minReplicas"], predictor["maxReplicas"]) == (70, 1, 4)
    annotation = found["InferenceService/m"]["metadata"]["annotations"].get("serving.kserve.io/autoscalerClass")
    assert annotation == ("hpa" if engine == "hpa" else None), "KServe refuses kpa there"


@pytest.mark.parametrize(
    ("properties", "source", "taken"),
    [
        ({"runtime": "triton"}, "triton", True),
        ({"runtime": "onnx"}, "triton", True),
        ({"runtime": "mlflow"}, "mlserver", True),
        # A runtime of the user's own may export what it will.
        ({"runtime": "sklearn", "servingRuntime": "ours"}, "mlserver", True),
        # The server counts, not the format.
        ({"runtime": "sklearn", "servingRuntime": "kserve-mlserver"}, "mlserver", True),
        ({"runtime": "sklearn", "servingRuntime": "kserve-mlserver"}, "triton", False),
        ({"servingRuntime": "kserve-openvino", "modelFormat": {"name": "onnx"}}, "triton", False),
        ({"runtime": "triton"}, "mlserver", False),
        ({"runtime": "mlflow"}, "triton", False),
        *(
            ({"runtime": runtime, "modelName": "x"}, source, False)
            for runtime in ("sklearn", "xgboost", "lightgbm", "pytorch", "tensorflow", "huggingface", "vllm")
            for source in ("triton", "mlserver")
        ),
    ],
)
def test_a_source_is_one_that_the_server_exports(properties: dict[str, Any], source: str, taken: bool) -> None:
    given = {"modelUri": "s3://models/a/1", **properties}
    outcome = outcome_of(given, trait("autoscale", metric="qps", target=5, maxReplicas=3, source=source))
    assert taken == (not outcome.problems), outcome.raw
    assert taken or f"source: {source} has no metrics of this model" in outcome.problems[0].message


def test_the_servers_known_are_those_that_kserve_ships() -> None:
    from velagen.tools import source

    shipped = {
        yaml.safe_load(path.read_text())["metadata"]["name"]
        for path in (source("kserve") / "config" / "runtimes").glob("kserve-*.yaml")
    }
    assert shipped == set(re.findall(r'"(kserve-[\w-]+)": +true', cue_of("autoscale")))


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("http://prometheus.monitoring.svc:9090", True),
        ("https://thanos.example.com/team-a/prometheus/", True),
        ("http://10.0.0.5:9090", True),
        ("http://169.254.169.254", False),
        ("http://169.254.169.254:80/latest/meta-data", False),
        ("http://127.0.0.1:2379", False),
        ("http://0.0.0.0:8080", False),
        ("http://localhost:8080", False),
        ("http://a.localhost", False),
        ("http://metadata.google.internal/computeMetadata", False),
        ("http://instance-data/latest", False),
        ("http://100.100.100.200", False),
        ("https://kubernetes.default.svc", False),
        ("https://kubernetes.default.svc.cluster.local:443/api", False),
        # The same addresses in other letters: one number, octal, hexadecimal, IPv6, behind a name.
        ("http://2852039166", False),
        ("http://0251.0376.0251.0376", False),
        ("http://169.254.43518", False),
        ("http://0xa9fea9fe", False),
        ("http://0xa9.0xfe.0xa9.0xfe", False),
        ("http://[::ffff:169.254.169.254]", False),
        ("http://prometheus@169.254.169.254", False),
        ("http://LOCALHOST", False),
        ("http://localhost.", False),
        # KEDA appends the path of a query: what is left of it would be the user's.
        ("http://a.example.com/delete?all=", False),
        ("http://a.example.com/delete#", False),
        ("http://a.example.com/a b", False),
        ("file:///etc/passwd", False),
    ],
)
def test_the_address_of_prometheus_is_one(address: str, taken: bool) -> None:
    properties = {"metric": "qps", "target": 5, "maxReplicas": 3, "prometheusAddress": address}
    assert taken == (not problems_of("autoscale", properties))


# ---------------------------------------------------------------- model-scope


SYSTEM_NAMESPACES = (
    *("default", "kube-system", "kube-public", "kube-node-lease", "openshift-monitoring", "vela-system", "flux-system"),
    *("istio-system", "istio-ingress", "knative-serving", "linkerd", "linkerd-viz", "o11y-system"),
    *("kserve", "keda", "cert-manager", "projectcontour"),
)


@pytest.mark.parametrize(
    ("namespace", "taken"),
    [
        ("sentiment-prod", True),
        ("systems", True),
        ("kubernetes-models", True),
        *((name, False) for name in SYSTEM_NAMESPACES),
    ],
)
def test_a_scope_never_takes_a_namespace_of_the_system(namespace: str, taken: bool) -> None:
    assert taken == (not problems_of("model-scope", {"namespace": namespace}))


# ---------------------------------------------------------------- canary

CANARY = {"weight": 10, "modelUri": "s3://models/sentiment/2"}
HOSTS = {"provider": "gateway-api", "hosts": ["a.example.com"]}


def test_canary_is_a_copy_with_another_model() -> None:
    given = {**TRITON, "minReplicas": 4, "maxReplicas": 8, "serviceAccount": "sa", "transformer": {"image": "t:1"}}
    found = render(given, trait("gpu-share", fraction=0.5), trait("canary", **CANARY, route=HOSTS))
    stable, new = found["InferenceService/m"], found["InferenceService/m-canary"]
    assert stable["spec"]["predictor"]["model"]["storageUri"] == "s3://models/sentiment/1"
    assert new["spec"]["predictor"]["model"]["storageUri"] == "s3://models/sentiment/2"
    assert new["spec"]["predictor"]["minReplicas"] == 1
    assert "maxReplicas" not in new["spec"]["predictor"]
    assert new["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    for service in (stable, new):
        service["spec"]["predictor"]["model"].pop("storageUri")
        for name in ("minReplicas", "maxReplicas"):
            service["spec"]["predictor"].pop(name, None)
    assert stable["spec"] == new["spec"]


@pytest.mark.parametrize("weight", [0, 1, 50, 100])
@pytest.mark.parametrize("provider", ["istio", "gateway-api"])
def test_the_weights_make_a_hundred(weight: int, provider: str) -> None:
    found = render(TRITON, trait("canary", **{**CANARY, "weight": weight}, route={**HOSTS, "provider": provider}))
    if provider == "istio":
        (rule,) = found["VirtualService/m-canary-split"]["spec"]["http"]
        split = {one["destination"]["host"].split(".")[0]: one["weight"] for one in rule["route"]}
    else:
        (rule,) = found["HTTPRoute/m-canary-split"]["spec"]["rules"]
        split = {one["name"]: one["weight"] for one in rule["backendRefs"]}
    assert split == {"m-predictor": 100 - weight, "m-canary-predictor": weight}


def test_canary_splits_grpc_on_its_own_port() -> None:
    both = {**TRITON, "protocol": "both"}
    found = render(both, trait("canary", **CANARY, route=HOSTS))
    grpc, rest = found["HTTPRoute/m-canary-split"]["spec"]["rules"]
    assert grpc["matches"][0]["headers"][0]["name"] == "content-type"
    ports = [[(one["name"], one["port"]) for one in rule["backendRefs"]] for rule in (grpc, rest)]
    assert ports == [[("m-predictor", port), ("m-canary-predictor", port)] for port in (9000, 80)]
    assert "matches" not in rest
    found = render(both, trait("canary", **CANARY, route={"provider": "istio"}))
    grpc, rest = found["VirtualService/m-canary-split"]["spec"]["http"]
    assert grpc["match"] == [{"headers": {"content-type": {"prefix": "application/grpc"}}}]
    assert [one["destination"]["port"]["number"] for one in (*grpc["route"], *rest["route"])] == [9000, 9000, 80, 80]
    # gRPC alone has the one port of the Service.
    (rule,) = render({**TRITON, "protocol": "grpc"}, trait("canary", **CANARY, route=HOSTS))[
        "HTTPRoute/m-canary-split"
    ]["spec"]["rules"]
    assert {one["port"] for one in rule["backendRefs"]} == {80}


def test_requests_come_in_at_the_transformer() -> None:
    given = {**TRITON, "transformer": {"image": "t:1"}}
    found = render(given, trait("canary", **CANARY, route={"provider": "istio"}))
    virtual = found["VirtualService/m-canary-split"]["spec"]
    assert virtual["hosts"] == ["m-transformer.default.svc.cluster.local"]
    assert virtual["gateways"] == ["mesh"]


@pytest.mark.parametrize(
    ("gateway", "at", "seen_by"),
    [({}, ["mesh"], ["."]), ({"gateway": {"name": "g", "namespace": "edge"}}, ["edge/g"], None)],
)
def test_a_host_of_the_users_never_holds_in_the_whole_mesh(
    gateway: dict[str, Any], at: list[str], seen_by: list[str] | None
) -> None:
    route = {"provider": "istio", "hosts": ["a.example.com"], **gateway}
    found = render(TRITON, trait("canary", **CANARY, route=route))
    mesh, hosts = (found[f"VirtualService/{name}"]["spec"] for name in ("m-canary-split", "m-canary-split-hosts"))
    assert (mesh["hosts"], mesh["gateways"]) == (["m-predictor.default.svc.cluster.local"], ["mesh"])
    assert (hosts["hosts"], hosts["gateways"], hosts.get("exportTo")) == (["a.example.com"], at, seen_by)
    assert mesh["http"] == hosts["http"]


OWN = "m-predictor.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("route", "sentence"),
    [
        ({"hosts": [OWN]}, None),
        ({"provider": "istio", "hosts": [OWN], "gateway": {"name": "g", "namespace": "edge"}}, None),
        ({"provider": "istio", "hosts": [OWN]}, "is split in the mesh by itself"),
        (
            {"hosts": ["a.example.com", "m-predictor.billing.svc.cluster.local"]},
            "route.hosts holds m-predictor.billing",
        ),
        ({"hosts": ["payments.default.svc.cluster.local"]}, "route.hosts holds payments.default"),
        ({"hosts": ["payments.billing.svc.corp.example"]}, "route.hosts holds payments.billing"),
        ({"hosts": ["db-0.db.billing.svc.cluster.local"]}, "route.hosts holds db-0.db.billing"),
        ({"hosts": ["10-1-2-3.billing.pod.cluster.local"]}, "route.hosts holds 10-1-2-3.billing"),
    ],
)
def test_names_inside_the_cluster_are_the_components_own(route: dict[str, Any], sentence: str | None) -> None:
    outcome = outcome_of(TRITON, trait("canary", **CANARY, route=route))
    assert bool(outcome.problems) == bool(sentence), outcome.raw
    assert sentence is None or sentence in outcome.problems[0].message


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("sentiment.example.com", True),
        ("a-1.b.internal", True),
        (f"{'a' * 63}.example.com", True),
        (f"{'a' * 64}.example.com", False),
        (".".join(["a" * 60] * 5), False),
        ("*.example.com", False),
        ("*", False),
        ("localhost", False),
        ("sentiment.example.com.", False),
        ("sentiment..example.com", False),
        ("-a.example.com", False),
        ("A.example.com", False),
        ("10.0.0.1", False),
        ("a.example.com:80", False),
        ("a b.example.com", False),
        ("", False),
    ],
)
def test_a_host_is_one_whole_name(host: str, taken: bool) -> None:
    assert taken == (not problems_of("canary", {**CANARY, "route": {"hosts": [host]}}))


CANDIDATES = [
    {"name": "b", "modelUri": "s3://models/sentiment/2", "weight": 10, "minReplicas": 2},
    {
        "name": "c",
        "modelUri": "s3://models/sentiment/3",
        "weight": 20,
        "match": {
            "headers": [{"name": "x-model", "value": "c"}, {"name": "x-team", "value": "a b"}],
            "cookie": {"name": "tester", "value": "1"},
        },
    },
]
OF_C = "m-canary-c-predictor"


def rules_of(*, provider: str, protocol: str = "rest", **route: Any) -> list[dict[str, Any]]:
    """What a route of several candidates holds, as (what is asked for, versions with their shares)."""
    wanted = {**HOSTS, **route, "provider": provider}
    found = render({**TRITON, "protocol": protocol}, trait("canary", candidates=CANDIDATES, route=wanted))
    kind = "VirtualService" if provider == "istio" else "HTTPRoute"
    spec: dict[str, list[dict[str, Any]]] = found[f"{kind}/m-canary-split"]["spec"]
    return spec["http"] if provider == "istio" else spec["rules"]


def split_of(rule: dict[str, Any]) -> dict[str, int]:
    if "route" in rule:
        return {one["destination"]["host"].split(".")[0]: one["weight"] for one in rule["route"]}
    return {one["name"]: one["weight"] for one in rule["backendRefs"]}


def test_each_candidate_is_a_copy_of_its_own() -> None:
    found = render(TRITON, trait("canary", candidates=CANDIDATES, minReplicas=3, route=HOSTS))
    assert {name for name in found if name.startswith("InferenceService/")} == {
        f"InferenceService/{name}" for name in ("m", "m-canary-b", "m-canary-c")
    }
    predictors = {name: found[f"InferenceService/m-canary-{name}"]["spec"]["predictor"] for name in "bc"}
    assert {name: one["model"]["storageUri"] for name, one in predictors.items()} == {
        "b": "s3://models/sentiment/2",
        "c": "s3://models/sentiment/3",
    }
    assert {name: one["minReplicas"] for name, one in predictors.items()} == {"b": 2, "c": 3}


def test_one_candidate_is_what_one_new_version_is() -> None:
    (one,) = [{"name": "b", **CANARY}]
    several, alone = (
        render({**TRITON, "protocol": "both"}, trait("canary", **given, route=HOSTS))
        for given in ({"candidates": [one]}, CANARY)
    )
    named = json.loads(json.dumps(several).replace("m-canary-b", "m-canary").replace("newVersion-b", "newVersion"))
    assert named == alone


@pytest.mark.parametrize("provider", ["istio", "gateway-api"])
@pytest.mark.parametrize("protocol", ["rest", "both"])
def test_candidates_share_the_traffic_and_testers_choose(provider: str, protocol: str) -> None:
    rules = rules_of(provider=provider, protocol=protocol)
    ports = [9000, 80] if protocol == "both" else [80]
    assert len(rules) == 2 * len(ports)
    for testers, split, port in zip(rules[::2], rules[1::2], ports, strict=True):
        assert split_of(testers) == {OF_C: 100}
        assert split_of(split) == {"m-predictor": 70, "m-canary-b-predictor": 10, OF_C: 20}
        assert {
            one["destination"]["port"]["number"] if provider == "istio" else one["port"]
            for rule in (testers, split)
            for one in rule.get("route") or rule["backendRefs"]
        } == {port}
        also = "content-type" if port == 9000 else None
        if provider == "istio":
            asked = [one["headers"] for one in testers["match"]]
            assert all(bool(also) == ("content-type" in one) for one in asked)
            by_headers, by_cookie = asked
            assert by_headers["x-model"] == {"exact": "c"}
            assert by_headers["x-team"] == {"exact": "a b"}
            assert re.fullmatch(by_cookie["cookie"]["regex"], "a=2; tester=1; b=3")
            assert not re.fullmatch(by_cookie["cookie"]["regex"], "a=2; tester=12")
        else:
            asked = [{header["name"]: header for header in one["headers"]} for one in testers["matches"]]
            assert all(bool(also) == ("content-type" in one) for one in asked)
            assert {"x-model", "x-team"} <= set(asked[0])
            assert asked[1]["cookie"]["value"] == "(.*; ?)?tester=1(;.*)?"
    assert ("match" in rules[-1], "matches" in rules[-1]) == (False, False)


@pytest.mark.parametrize("provider", ["istio", "gateway-api"])
def test_with_affinity_a_client_stays_with_the_version_that_answered(provider: str) -> None:
    testers, *kept, split = rules_of(provider=provider, affinity={"seconds": 60})
    assert [split_of(one) for one in kept] == [{"m-predictor": 100}, {"m-canary-b-predictor": 100}, {OF_C: 100}]
    versions = [one for rule in (testers, *kept, split) for one in rule.get("route") or rule["backendRefs"]]
    for one in versions:
        name = (one.get("name") or one["destination"]["host"]).split("-predictor")[0].removeprefix("m-canary-")
        cookie = f"m-canary={'stable' if name == 'm' else name}; Max-Age=60; Path=/; HttpOnly"
        assert cookie in str(one.get("filters") or one["headers"])
    for rule, name in zip(kept, ("stable", "b", "c"), strict=True):
        assert f"m-canary={name}(;.*)?" in str(rule.get("match") or rule["matches"])


def test_kserves_own_canary_is_entries_of_the_component() -> None:
    given = {**TRITON, "minReplicas": 3}
    several = trait("canary", candidates=CANDIDATES[:1], route={"provider": "kserve"})
    alone = trait("canary", **CANARY, route={"provider": "kserve"})
    for one, name, replicas in ((several, "canary-b", 2), (alone, "canary", 1)):
        (service,) = render(given, one).values()
        (entry,) = service["spec"]["canary"]
        stable = service["spec"]["predictor"]["model"]
        assert (entry["trafficPercent"], entry["predictor"]["name"]) == (10, name)
        assert entry["predictor"]["minReplicas"] == replicas
        location = {"storageUri": "s3://models/sentiment/2", "name": "kserve-container"}
        assert entry["predictor"]["model"] == {**stable, **location}


def test_a_version_without_a_share_keeps_nobody() -> None:
    weights = [{**one, "weight": weight} for one, weight in zip(CANDIDATES, (100, 0), strict=True)]
    found = render(TRITON, trait("canary", candidates=weights, route={**HOSTS, "affinity": {}}))
    _, *kept, split = found["HTTPRoute/m-canary-split"]["spec"]["rules"]
    assert [split_of(one) for one in kept] == [{"m-canary-b-predictor": 100}]
    assert split_of(split) == {"m-predictor": 0, "m-canary-b-predictor": 100, OF_C: 0}


@pytest.mark.parametrize("after", ["gpu-share", "accelerator", "canary"])
def test_nothing_changes_the_component_behind_several_candidates(after: str) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "gpu-share": {"fraction": 0.5},
        "accelerator": {"type": "t4"},
        "canary": {**CANARY, "route": HOSTS},
    }
    outcome = outcome_of(TRITON, trait("canary", candidates=CANDIDATES, route=HOSTS), trait(after, **wanted[after]))
    said = "another canary" if after == "canary" else f"write {after} before canary"
    assert said in str(outcome.raw)


def test_knative_splits_by_itself() -> None:
    found = render({**TRITON, "deploymentMode": "knative"}, trait("canary", **CANARY))
    assert list(found) == ["InferenceService/m"]
    predictor = found["InferenceService/m"]["spec"]["predictor"]
    assert predictor["canaryTrafficPercent"] == 10
    assert predictor["model"]["storageUri"] == "s3://models/sentiment/2"


# ---------------------------------------------------------------- status


@pytest.fixture(scope="module", params=CUE_VERSIONS)
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    with Oracle(request.param) as found:
        yield found


Context = dict[str, Any]


def status_of(oracle: Oracle, name: str, what: str, field: str, context: Context, **more: Any) -> Any:
    """What KubeVela's health check computes: the rule's text with context and parameter behind it."""
    # Without the imports, which are the template's: CUE 0.14 refuses those that are not used.
    head = cue_of(name).partition("\ntemplate:")[0].partition(f"\n{name}: ")[2]
    rule = oracle.eval(f"definition: {head}", f"definition.attributes.status.{what}")
    assert rule.ok, rule.error
    parameter = {"maxReplicas": 3, "weight": 10, "modelUri": "s3://m/2", **more}
    if what == "customStatus":
        # KubeVela computes the details first, then whether all is well, and puts both into the context.
        healthy = status_of(oracle, name, "healthPolicy", "isHealth", context, **more)
        details = status_of(oracle, name, "details", "", context) if "details: #" in head else {}
        context = {**context, "status": {"details": details, "healthy": healthy}}
    verdict = oracle.eval(rule.result, field, f"context: {json.dumps(context)}\nparameter: {json.dumps(parameter)}")
    assert verdict.ok, verdict.error
    return verdict.result


@cache
def cue_of(name: str) -> str:
    return next(one.cue for one in build_definitions(Project(ROOT)) if one.name == name)


def service(status: dict[str, Any] | None) -> Context:
    output = {"kind": "InferenceService", "metadata": {"name": "m", "namespace": "test"}}
    return {"name": "m", "appName": "app", "output": output | ({} if status is None else {"status": status})}


READY = {"type": "Ready", "status": "True"}
NOT_READY = {"type": "PredictorReady", "status": "False", "reason": "MinimumReplicasUnavailable"}
LOADED = {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"}}
AT_ZERO = {
    "transitionStatus": "InProgress",
    "states": {"activeModelState": "Loaded", "targetModelState": "Pending"},
    "copies": {"failedCopies": 0, "totalCopies": 0},
}
#: As a kind cluster with Knative's own controllers had it for three seconds in which a model without pods woke.
WAKING: dict[str, Any] = {
    "components": {
        "predictor": {
            "latestCreatedRevision": "m-predictor-00001",
            "latestReadyRevision": "m-predictor-00001",
            "latestRolledoutRevision": "m-predictor-00001",
            "traffic": [{"latestRevision": True, "percent": 100, "revisionName": "m-predictor-00001"}],
            "url": "http://m-predictor-n.knative.example.com",
        }
    },
    "conditions": [
        {"type": "IngressReady", "status": "True"},
        {"type": "LatestDeploymentReady", "status": "True", "severity": "Info"},
        {"type": "PredictorConfigurationReady", "status": "True", "severity": "Info"},
        {"type": "PredictorReady", "status": "True"},
        {"type": "PredictorRouteReady", "status": "True", "severity": "Info"},
        {"type": "Ready", "status": "True"},
        {"type": "RoutesReady", "status": "True", "severity": "Info"},
        {"type": "Stopped", "status": "False", "severity": "Info"},
    ],
    "deploymentMode": "Knative",
    "modelStatus": {
        "copies": {"failedCopies": 0},
        "states": {"activeModelState": "Loaded", "targetModelState": "Loading"},
        "transitionStatus": "InProgress",
    },
    "observedGeneration": 1,
    "url": "http://m-predictor-n.knative.example.com",
}
FAILED = {
    "transitionStatus": "BlockedByFailedLoad",
    "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
    "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such bucket"},
}
NO_REPLICA = {
    "type": "PredictorReady",
    "status": "False",
    "reason": "MinimumReplicasUnavailable",
    "message": "Deployment does not have minimum availability.",
}
WAITING = (
    "Replicas wait for a node or an image, or load the model; for the reason: "
    "kubectl describe pod -n test -l serving.kserve.io/inferenceservice=m"
)
#: The old replicas answer while the new ones come.
ROLLING = {"type": "PredictorReady", "status": "True", "reason": "MinimumReplicasAvailable"}
ROLLED_OUT = {**ROLLING, "reason": "NewReplicaSetAvailable"}
#: As seen on a cluster, like the sentences below.
INITIALIZER = "2026-11-26 20:35:45.323 1 storage.initializer ERROR [initializer-entrypoint:<module>():28] "
FETCH_FAILED = f"{INITIALIZER}Storage initialization failed: "
FETCH_BROKE = f"{INITIALIZER}Unexpected error during storage initialization: "


def failed(message: str, exit_code: int = 1) -> dict[str, Any]:
    """The model status of KServe where a container of the pod ended."""
    info = {"reason": "ModelLoadFailed", "message": message, "exitCode": exit_code}
    return {**FAILED, "lastFailureInfo": info, "copies": {"failedCopies": 0, "totalCopies": 0}}


REVISIONS = {"predictor": {"latestCreatedRevision": "m-2", "latestReadyRevision": "m-1"}}


@pytest.mark.parametrize(
    ("status", "healthy", "message"),
    [
        (None, False, "Waiting for KServe, model Unknown"),
        ({}, False, "Waiting for KServe, model Unknown"),
        ({"conditions": []}, False, "Waiting for KServe, model Unknown"),
        ({"conditions": [READY], "url": "http://m.example.com"}, True, "Ready at http://m.example.com"),
        ({"conditions": [READY], "modelStatus": LOADED, "address": {"url": "http://m"}}, True, "Ready at http://m"),
        # No pod runs, and none is wanted: KServe counts it as one that is not loaded yet.
        ({"conditions": [READY], "modelStatus": AT_ZERO, "url": "http://m"}, True, "Ready at http://m"),
        ({"conditions": [], "modelStatus": AT_ZERO}, False, "Waiting for KServe, model Pending"),
        (WAKING, True, f"Starts a pod; ready at {WAKING['url']}"),
        # A new version is being fetched, or the first one.
        ({**WAKING, "components": REVISIONS}, False, "The model is being fetched from s3://m/2"),
        (
            {**WAKING, "modelStatus": {**WAKING["modelStatus"], "states": {"targetModelState": "Loading"}}},
            False,
            "The model is being fetched from s3://m/2",
        ),
        # Its pod can't be started.
        (
            {**WAKING, "modelStatus": FAILED},
            False,
            "The model can't be loaded (see vela logs app): no such bucket",
        ),
        (
            {"conditions": [{**READY, "status": "Unknown"}], "modelStatus": LOADED},
            False,
            "Waiting for KServe, model Loaded",
        ),
        # The old revision still serves: Ready is not yet about what was asked for.
        (
            {"conditions": [READY], "modelStatus": FAILED},
            False,
            "The model can't be loaded (see vela logs app): no such bucket",
        ),
        ({"conditions": [READY], "components": REVISIONS}, False, "Waiting for KServe, model Unknown"),
        (
            {"conditions": [NOT_READY]},
            False,
            f"{WAITING} (PredictorReady: MinimumReplicasUnavailable)",
        ),
        ({"conditions": [{**NOT_READY, "reason": "FailedCreate"}]}, False, "PredictorReady: FailedCreate"),
        (
            {"conditions": [{"type": "IngressReady", "status": "False", "reason": "Predictor HttpRouteNotReady"}]},
            False,
            "The model's way through the gateway is not open yet (IngressReady: Predictor HttpRouteNotReady)",
        ),
        # What is behind it comes before what follows from it.
        (
            {"conditions": [{"type": "IngressReady", "status": "False", "message": "later"}, NO_REPLICA]},
            False,
            f"{WAITING} (PredictorReady: Deployment does not have minimum availability.)",
        ),
        (
            {"conditions": [NO_REPLICA], "modelStatus": {**LOADED, "copies": {"failedCopies": 0, "totalCopies": 1}}},
            False,
            f"{WAITING} (PredictorReady: Deployment does not have minimum availability.)",
        ),
        (
            {
                "conditions": [NO_REPLICA],
                "modelStatus": {"transitionStatus": "InProgress", "states": {"targetModelState": "Loading"}},
            },
            False,
            "The model is being fetched from s3://m/2",
        ),
        # Seen where the first of two replicas waits for a node: KServe looks at it alone, and leaves all as it was.
        (
            {
                "conditions": [NO_REPLICA],
                "modelStatus": {**failed("GET /metrics\n", 137), "copies": {"totalCopies": 1}},
            },
            False,
            f"The last failure was the server's end (exit code 137); now: {WAITING} "
            "(PredictorReady: Deployment does not have minimum availability.)",
        ),
        ({"conditions": [READY, ROLLED_OUT], "modelStatus": LOADED, "url": "http://m"}, True, "Ready at http://m"),
        (
            {"conditions": [READY, ROLLING], "modelStatus": LOADED, "url": "http://m"},
            False,
            "Rolling out: replicas of the version before answer until the new ones are ready; if it lasts, see vela "
            "logs app, or write rollout: in-place where no node has room for a pod more",
        ),
        # KServe looks at one pod, which may be an old one, and keeps the failure for good.
        (
            {"conditions": [READY, ROLLING], "modelStatus": {**failed("a\nEOFError\n"), **LOADED}},
            False,
            "The last failure was ModelLoadFailed: EOFError; now: Rolling out: replicas of the version before answer "
            "until the new ones are ready; if it lasts, see vela logs app, or write rollout: in-place where no node "
            "has room for a pod more",
        ),
        (
            {"conditions": [READY, ROLLED_OUT], "modelStatus": {**failed("EOFError"), **LOADED}, "url": "http://m"},
            True,
            "Ready at http://m",
        ),
        ({"conditions": [{"type": "Stopped", "status": "False"}]}, False, "Waiting for KServe, model Unknown"),
        # KServe copies observedGeneration from the Deployment: it says nothing here.
        ({"conditions": [READY], "observedGeneration": 1, "url": "http://m"}, True, "Ready at http://m"),
    ],
)
def test_component_status(oracle: Oracle, status: dict[str, Any] | None, healthy: bool, message: str) -> None:
    context = service(status)
    assert status_of(oracle, "kfserving", "healthPolicy", "isHealth", context) is healthy
    assert status_of(oracle, "kfserving", "customStatus", "message", context) == message


@pytest.mark.parametrize(
    ("least", "answering", "why"),
    [
        (0, 0, " because a request came, which waits until the model is there"),
        # Seen where one pod answered, and KServe looked at the second.
        (0, 1, ""),
        # The only pod was ended by somebody.
        (1, 0, ""),
    ],
)
def test_a_model_that_may_have_no_pod_wakes(oracle: Oracle, least: int, answering: int, why: str) -> None:
    copies = {"failedCopies": 0, **({"totalCopies": answering} if answering else {})}
    context = service({**WAKING, "modelStatus": {**WAKING["modelStatus"], "copies": copies}})
    context["output"]["spec"] = {"predictor": {"minReplicas": least}}
    said = status_of(oracle, "kfserving", "customStatus", "message", context)
    assert said == f"Starts a pod{why}; ready at {WAKING['url']}"


def test_component_details(oracle: Oracle) -> None:
    context = service(
        {"conditions": [READY], "modelStatus": FAILED, "clusterServingRuntimeName": "kserve-tritonserver"}
    )
    details = {
        name: status_of(oracle, "kfserving", "details", name, context)
        for name in ("url", "modelState", "transition", "runtime", "failure")
    }
    assert details == {
        "url": "",
        "modelState": "FailedToLoad",
        "transition": "BlockedByFailedLoad",
        "runtime": "kserve-tritonserver",
        "failure": "ModelLoadFailed: no such bucket",
    }


@pytest.mark.parametrize(
    ("model_status", "message"),
    [
        (
            failed(
                f"{INITIALIZER}Copying contents of s3://m/2 to local\n"
                f"{FETCH_FAILED}Failed to fetch model. No model found in m/2.\n"
            ),
            "There is no model at s3://m/2 (check modelUri, or put it there; KServe keeps looking): "
            "Failed to fetch model. No model found in m/2.",
        ),
        # A pod of the version before, which is still there after modelUri is corrected.
        (
            failed(f"{INITIALIZER}Copying contents of s3://m/1 to local\n{FETCH_FAILED}S3 resource 'm' not found.\n"),
            f"The last failure was ModelLoadFailed: S3 resource 'm' not found.; now: {WAITING} "
            "(PredictorReady: Deployment does not have minimum availability.)",
        ),
        (
            failed(f"{FETCH_FAILED}S3 resource 'm' not found.\n"),
            "There is no model at s3://m/2 (check modelUri, or put it there; KServe keeps looking): "
            "S3 resource 'm' not found.",
        ),
        (
            failed(f'{FETCH_BROKE}Could not connect to the endpoint URL: "http://store:5000/m"'),
            "The model's storage can't be reached, which is tried again by itself: "
            'Could not connect to the endpoint URL: "http://store:5000/m"',
        ),
        (
            failed(f'{FETCH_BROKE}Connect timeout on endpoint URL: "http://store:5000/m"'),
            "The model's storage can't be reached, which is tried again by itself: "
            'Connect timeout on endpoint URL: "http://store:5000/m"',
        ),
        (
            failed(f"{FETCH_FAILED}S3 authentication failed. Set AWS_ACCESS_KEY_ID/AWS_SECRET_ACCESS_KEY."),
            "The model's storage refuses access (check serviceAccount or storageKey): "
            "S3 authentication failed. Set AWS_ACCESS_KEY_ID/AWS_SECRET_ACCESS_KEY.",
        ),
        (
            failed(f"{FETCH_FAILED}S3 error [403]: Forbidden"),
            "The model's storage refuses access (check serviceAccount or storageKey): S3 error [403]: Forbidden",
        ),
        (
            failed(f"{FETCH_BROKE}[Errno 28] No space left on device"),
            "The model can't be fetched from s3://m/2: [Errno 28] No space left on device",
        ),
        (
            failed("Traceback (most recent call last):\n  File x\nEOFError\n"),
            "The model can't be loaded (see vela logs app): EOFError",
        ),
        (failed("", 1), "The model can't be loaded (see vela logs app)"),
        (
            failed("", 137),
            "The model server was killed, and is started again by itself (exit code 137; if it happens again, raise "
            "resources.limits.memory)",
        ),
        (
            # The last line is of the request before.
            failed("GET /metrics\n", 143),
            "The model server was killed, and is started again by itself (exit code 143)",
        ),
        (
            failed("Segmentation fault\n", 139),
            "The model server crashed, and is started again by itself (exit code 139): Segmentation fault",
        ),
        (
            {
                "transitionStatus": "InvalidSpec",
                "lastFailureInfo": {"reason": "RuntimeNotRecognized", "message": "Waiting for runtime"},
            },
            "KServe can't make it: RuntimeNotRecognized: Waiting for runtime",
        ),
    ],
)
def test_a_failure_is_said_in_a_users_words(oracle: Oracle, model_status: dict[str, Any], message: str) -> None:
    context = service({"conditions": [NO_REPLICA], "modelStatus": model_status})
    assert status_of(oracle, "kfserving", "healthPolicy", "isHealth", context) is False
    assert status_of(oracle, "kfserving", "customStatus", "message", context) == message
    # KubeVela prints a detail as it is: eighty lines of a log would be no detail.
    assert "\n" not in status_of(oracle, "kfserving", "details", "failure", context)


OWN_IMAGE: dict[str, Any] = {"image": "hub/own:1"}
HAS_SECRET: dict[str, Any] = {"pod": {"imagePullSecrets": [{"name": "hub"}]}}


@pytest.mark.parametrize(
    ("parts", "given", "named"),
    [
        ("Predictor", {}, ""),
        ("Predictor", OWN_IMAGE, "pod"),
        ("Predictor", {**OWN_IMAGE, "pod": {"nodeSelector": {}}}, "pod"),
        ("Predictor", {**OWN_IMAGE, **HAS_SECRET}, ""),
        # Each part has pods of its own, and those that are ready have their image.
        ("Predictor", {"transformer": OWN_IMAGE}, ""),
        ("Transformer", {"transformer": OWN_IMAGE, **HAS_SECRET}, "transformer.pod"),
        ("Transformer", {"transformer": {**OWN_IMAGE, **HAS_SECRET}}, ""),
        ("Explainer", {"explainer": OWN_IMAGE, "transformer": OWN_IMAGE}, "explainer.pod"),
        ("Predictor Transformer", {**OWN_IMAGE, "transformer": OWN_IMAGE}, "pod transformer.pod"),
        # But where it stands in the predictor's.
        ("Predictor", {"transformer": {**OWN_IMAGE, "collocated": True}}, "pod"),
        ("Predictor", {"transformer": {**OWN_IMAGE, "collocated": True}, **HAS_SECRET}, ""),
    ],
)
def test_who_waits_for_an_image_is_told_where_a_pull_secret_goes(
    oracle: Oracle, parts: str, given: dict[str, Any], named: str
) -> None:
    context = service({"conditions": [{**NO_REPLICA, "type": f"{part}Ready"} for part in parts.split()]})
    message = status_of(oracle, "kfserving", "customStatus", "message", context, **given)
    assert message.partition(".)")[2] == "".join(
        f"; if the registry of hub/own:1 asks for a password, name its secret in {one}.imagePullSecrets"
        for one in named.split()
    )


@pytest.mark.parametrize(
    ("trait_", "outputs", "healthy"),
    [
        ("autoscale", {}, True),
        ("autoscale", {"scaledObject": {"kind": "ScaledObject"}}, True),
        ("autoscale", {"scaledObject": {"kind": "ScaledObject", "status": {"conditions": [READY]}}}, True),
        (
            "autoscale",
            {"scaledObject": {"kind": "ScaledObject", "status": {"conditions": [{**READY, "status": "False"}]}}},
            False,
        ),
        ("canary", {}, True),
        ("canary", {"newVersion": {"kind": "InferenceService"}}, False),
        ("canary", {"newVersion": {"kind": "InferenceService", "status": {"conditions": [READY]}}}, True),
    ],
)
def test_trait_status(oracle: Oracle, trait_: str, outputs: dict[str, Any], healthy: bool) -> None:
    context = {"name": "m", "outputs": outputs}
    assert status_of(oracle, trait_, "healthPolicy", "isHealth", context) is healthy
    assert isinstance(status_of(oracle, trait_, "customStatus", "message", context), str)


@pytest.mark.parametrize(
    ("ready", "healthy", "message"),
    [
        ("bc", True, "10 % to b, 20 % to c"),
        ("b", False, "c (s3://models/sentiment/3) is not ready yet"),
        (
            "",
            False,
            "b (s3://models/sentiment/2) is not ready yet, c (s3://models/sentiment/3) is not ready yet",
        ),
    ],
)
def test_which_candidate_is_not_ready(oracle: Oracle, ready: str, healthy: bool, message: str) -> None:
    outputs = {
        f"newVersion-{name}": {
            "kind": "InferenceService",
            "status": {"conditions": [{**READY, "status": "True" if name in ready else "False"}]},
        }
        for name in "bc"
    }
    context = {"name": "m", "outputs": outputs}
    given = {"candidates": CANDIDATES, "weight": None, "modelUri": None}
    assert status_of(oracle, "canary", "healthPolicy", "isHealth", context, **given) is healthy
    assert status_of(oracle, "canary", "customStatus", "message", context, **given) == message


NO_ANSWER = {"type": "Ready", "status": "False", "reason": "TriggerError", "message": "Triggers defined in ..."}
UNFED = {
    "type": "HPAActive",
    "status": "False",
    "reason": "FailedGetExternalMetric",
    "message": "HPA is not actively scaling: the HPA was unable to compute the replica count",
}


@pytest.mark.parametrize(
    ("seen", "healthy", "message"),
    [
        ([NO_ANSWER, UNFED], True, "KEDA gets no answer to its queries and leaves the pods as they are"),
        (
            [{**READY, "status": "Unknown", "reason": "PartialTriggerError"}],
            True,
            "KEDA gets no answer to some of its queries: pods are added, and none is taken away",
        ),
        ([READY, UNFED], True, f"The pods stay as they are: {UNFED['message']}"),
        (
            [READY, {"type": "Fallback", "status": "True"}, UNFED],
            True,
            "KEDA gets no answer to a query and runs the fall",
        ),
        (
            [{**NO_ANSWER, "reason": "ScaledObjectCheckFailed", "message": "no such Deployment"}],
            False,
            "KEDA can't scale: no such Deployment",
        ),
        # Before its first look.
        ([{"type": "Ready", "status": "Unknown"}], True, "at most 3 pods"),
        ([READY, {**UNFED, "status": "True"}], True, "at most 3 pods"),
    ],
)
def test_what_holds_the_pods_is_said_and_a_model_is_ill_where_its_autoscaler_is_wrong(
    oracle: Oracle, seen: list[dict[str, str]], healthy: bool, message: str
) -> None:
    """A model that nobody asked yet has no series: an application must not wait for its first request to be healthy."""
    context = {"name": "m", "outputs": {"scaledObject": {"kind": "ScaledObject", "status": {"conditions": seen}}}}
    assert status_of(oracle, "autoscale", "healthPolicy", "isHealth", context) is healthy
    assert status_of(oracle, "autoscale", "customStatus", "message", context).startswith(message)


# ---------------------------------------------------------------- whom containers run as


RESTRICTED = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({}, RESTRICTED),
        ({"runAsUser": 1000}, {**RESTRICTED, "runAsUser": 1000}),
        ({"runAsUser": 0}, {"runAsUser": 0, "runAsNonRoot": False}),
    ],
)
@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_a_container_is_restricted_unless_root_is_asked_for(given: dict[str, int], own: Any, mode: str) -> None:
    companion = {"image": "x", **given}
    spec = render({**TRITON, **given, "deploymentMode": mode, "transformer": companion, "explainer": companion})[
        "InferenceService/m"
    ]["spec"]
    # Knative takes no seccompProfile of a pod; in a pod it holds for the containers that KServe adds, too.
    pods = {name: spec[name].get("securityContext") for name in ("predictor", "transformer", "explainer")}
    assert pods == dict.fromkeys(pods, SECCOMP if mode == "standard" else None)
    wanted = own if mode == "standard" else {**own, **SECCOMP}
    assert spec["transformer"]["containers"][0]["securityContext"] == wanted
    assert spec["explainer"]["containers"][0]["securityContext"] == wanted
    # Without runAsUser the runtime's own stands, which has the rest.
    found = spec["predictor"]["model"].get("securityContext", {})
    assert found == (wanted if given else {} if mode == "standard" else SECCOMP)


def test_the_runtimes_that_are_named_have_the_rest_but_for_vllms_user() -> None:
    """The component leaves to KServe's runtimes all but seccompProfile: what they have is looked at here."""
    runtimes = {thing["metadata"]["name"]: thing for thing in kserve_runtimes()}
    schema = json.loads((ROOT / "schemas" / "kfserving.json").read_text())
    for runtime in schema["properties"]["runtime"]["enum"]:
        name = model({"runtime": runtime, "modelUri": "s3://models/m/1", "modelName": "m"})["runtime"]
        (container,) = runtimes[name]["spec"]["containers"]
        lacking = {key for key, value in RESTRICTED.items() if container["securityContext"].get(key) != value}
        assert lacking == ({"runAsNonRoot"} if runtime == "vllm" else set()), runtime


# ---------------------------------------------------------------- the addon's notes


@pytest.mark.parametrize(
    ("parameter", "is_told"),
    [
        ({"install": False, "kserve": "0.20"}, False),
        ({"install": False, "kserve": "0.20.1"}, False),
        ({"install": False, "kserve": "0.21"}, True),
        ({"install": True, "version": "v0.20.0"}, False),
        ({"install": True, "version": "v0.21.0-rc1"}, True),
        ({"install": True, "version": "v0.200.0"}, True),
    ],
)
def test_the_notes_claim_no_kserve_on_which_nothing_was_run(parameter: dict[str, Any], is_told: bool) -> None:
    every = {"namespace": "kserve", "version": "v0.20.0", "kserve": "0.20", **parameter}
    with Oracle(CUE_VERSIONS[0], seconds=20) as oracle:
        notes = oracle.eval(
            (ROOT / "addon/kfserving/NOTES.cue").read_text(), "notes", extra=f"\nparameter: {json.dumps(every)}"
        )
    assert notes.error == ""
    assert ("try a model before you rely on them" in notes.result) == is_told
