"""What is known of each model server that the property runtime names: one row a runtime, and the tables made of them.

Sources: KServe v0.20.0 config/runtimes/*.yaml (names, ports, protocols), python/kserve/kserve/model_server.py (flags
and ports of KServe's own servers), KServe's samples of TorchServe (config.properties).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """One model server, as KServe runs it."""

    #: The ClusterServingRuntime that KServe ships.
    serving_runtime: str
    #: Whose flags and variables it takes: a key of _flags.OWNED.
    flags_of: str
    #: The protocol versions it speaks where none is asked for.
    rest: str = "v2"
    grpc: str = "v2"
    #: Whether the ServingRuntime lists gRPC's protocols; the server opens the port all the same.
    lists_grpc: bool = True
    grpc_port: int = 9000
    #: The flag that takes the name that clients call the model by.
    name_flag: str = ""
    #: Where the server itself counts requests, if that is not where it answers them.
    metrics_port: int | None = None
    #: What the ServingRuntime calls the model's format, if not as the property runtime does.
    model_format: str = ""


def _kserve(name: str) -> Runtime:
    """One of KServe's own servers."""
    return Runtime(name, "kserve", rest="v1", lists_grpc=False, grpc_port=8081, name_flag="--model_name")


_TRITON = Runtime("kserve-tritonserver", "triton", metrics_port=8002)

RUNTIMES = {
    "triton": _TRITON,
    "onnx": _TRITON,
    "sklearn": _kserve("kserve-sklearnserver"),
    "xgboost": _kserve("kserve-xgbserver"),
    "lightgbm": _kserve("kserve-lgbserver"),
    "mlflow": Runtime("kserve-mlserver", "mlflow", lists_grpc=False, metrics_port=8082),
    "pytorch": Runtime("kserve-torchserve", "pytorch", rest="v1", grpc_port=7070, metrics_port=8082),
    "tensorflow": Runtime("kserve-tensorflow-serving", "tensorflow", rest="v1", grpc="v1", name_flag="--model_name"),
    "huggingface": Runtime("kserve-huggingfaceserver", "huggingface", name_flag="--model_name"),
    "vllm": Runtime("kserve-vllmserver", "vllm", name_flag="--served-model-name", model_format="vLLM"),
}

# What a definition looks up, each without the rows that have what is usual --------------------------------------------

SERVING_RUNTIMES = {name: one.serving_runtime for name, one in RUNTIMES.items()}
MODEL_FORMATS = {name: one.model_format for name, one in RUNTIMES.items() if one.model_format}
REST_VERSIONS = {name: one.rest for name, one in RUNTIMES.items() if one.rest != "v2"}
GRPC_VERSIONS = {name: one.grpc for name, one in RUNTIMES.items() if one.grpc != "v2"}
GRPC_PREFIXES = {name: "" for name, one in RUNTIMES.items() if not one.lists_grpc}
GRPC_PORTS = {name: one.grpc_port for name, one in RUNTIMES.items() if one.grpc_port != 9000}
NAME_FLAGS = {name: one.name_flag for name, one in RUNTIMES.items() if one.name_flag}
METRICS_PORTS = {name: f"{one.metrics_port}" for name, one in RUNTIMES.items() if one.metrics_port}
#: Servers whose flags are those of another runtime.
FLAGS_OF = {name: one.flags_of for name, one in RUNTIMES.items() if one.flags_of != name}

#: All ServingRuntimes that KServe ships, those that no property names among them.
SHIPPED = (
    *dict.fromkeys(SERVING_RUNTIMES.values()),
    "kserve-autogluonserver",
    "kserve-huggingfaceserver-multinode",
    "kserve-openvino",
    "kserve-paddleserver",
    "kserve-pmmlserver",
    "kserve-predictiveserver",
)
