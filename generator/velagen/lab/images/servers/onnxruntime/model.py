"""Triton's backend for ONNX models, as a backend in Python: the package that carries Triton has no other.

Triton takes it for ``backend: "onnxruntime"`` and ``platform: "onnxruntime_onnx"``, so that a repository made for
Triton's own image runs unchanged. What is completed in a model's configuration, and which parameters are read, is that
of the official backend (triton-inference-server/onnxruntime_backend, src/onnxruntime.cc and README.md); it differs in
that one thread per run is the default, and that there is no GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

#: What Triton's server sets where neither the model nor ``--backend-config`` says it.
DEFAULT_MAX_BATCH_SIZE = 4

TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}

#: Keys of optimization.graph.level; without one everything is optimised.
LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Give the session's options that a model's configuration asks for.

    Raises:
        TritonModelException: a parameter has a value it can't have, or an accelerator is asked for.
    """
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        raise pb_utils.TritonModelException(f"the execution accelerator {accelerator['name']!r} is not in this image")
    found = onnxruntime.SessionOptions()
    given = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}

    def number(key: str, default: int) -> int:
        try:
            return int(given.get(key, default))
        except ValueError:
            raise pb_utils.TritonModelException(f"parameter {key}: {given[key]!r} is not a number") from None

    def switch(key: str) -> bool:
        return given.get(key, "1").lower() in {"1", "true"}

    # 0 is ONNX Runtime's own choice: the cores of the machine, whatever the container may use of them.
    found.intra_op_num_threads = number("intra_op_thread_count", 1)
    found.inter_op_num_threads = number("inter_op_thread_count", 1)
    mode = number("execution_mode", 0)
    if mode not in {0, 1}:
        raise pb_utils.TritonModelException(f"parameter execution_mode is 0 or 1, not {mode}")
    found.execution_mode = onnxruntime.ExecutionMode(mode)
    found.enable_cpu_mem_arena = switch("enable_mem_arena")
    found.enable_mem_pattern = switch("enable_mem_pattern")
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    found.graph_optimization_level = LEVELS.get(level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        found.register_custom_ops_library(library)
    return found


def load(config: dict[str, Any]) -> onnxruntime.InferenceSession:
    """Load the model that a configuration is about.

    Raises:
        TritonModelException: the file is not there, or ONNX Runtime refuses it.
    """
    path = Path(pb_utils.get_model_dir()) / (config.get("default_model_filename") or "model.onnx")
    if path.is_dir():
        path /= "model.onnx"
    if not path.exists():
        raise pb_utils.TritonModelException(f"unable to find {path} for model {config['name']}")
    try:
        return onnxruntime.InferenceSession(str(path), options(config), providers=["CPUExecutionProvider"])
    except pb_utils.TritonModelException:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise pb_utils.TritonModelException(f"ONNX Runtime can't load {path}: {error}") from error


def shape(node: onnxruntime.NodeArg) -> list[int]:
    """Give a tensor's dimensions in the model, -1 for each that is free."""
    return [size if isinstance(size, int) else -1 for size in node.shape or []]


def batches(session: onnxruntime.InferenceSession) -> bool:
    """Say whether the first dimension of every tensor is free, and so may be the batch."""
    return all(shape(node)[:1] == [-1] for node in [*session.get_inputs(), *session.get_outputs()])


def described(nodes: Iterable[onnxruntime.NodeArg], *, batched: bool) -> list[dict[str, Any]]:
    """Give the tensors as a model's configuration lists them.

    Args:
        batched: the first dimension is the batch, and is not listed.
    """
    found = []
    for node in nodes:
        if node.type not in TYPES:
            raise pb_utils.TritonModelException(f"tensor {node.name} is of type {node.type}, which Triton has not")
        tensor: dict[str, Any] = {"name": node.name, "data_type": TYPES[node.type], "dims": shape(node)[batched:]}
        if not tensor["dims"]:
            # A configuration can't say "no dimension"; Triton takes the 1 away on the way to the model and back.
            tensor["dims"] = [1]
            if batched:
                tensor["reshape"] = {"shape": []}
        found.append(tensor)
    return found


def check(config: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Compare a configuration with the model it is for.

    Raises:
        TritonModelException: a tensor is missing in one of them, or has another type or shape.
    """
    batched = config["max_batch_size"] > 0
    for key, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
        there = {node.name: node for node in nodes}
        configured = {tensor["name"]: tensor for tensor in config[key]}
        missing = set(there) - set(configured) if key == "input" else set()
        if unknown := set(configured) - set(there):
            raise pb_utils.TritonModelException(
                f"model {config['name']}: unexpected {key} {', '.join(sorted(unknown))}; it has {', '.join(there)}"
            )
        if missing:
            raise pb_utils.TritonModelException(
                f"model {config['name']}: the configuration lacks the {key} {', '.join(sorted(missing))}"
            )
        for name, tensor in configured.items():
            node = there[name]
            if tensor["data_type"] != TYPES.get(node.type):
                raise pb_utils.TritonModelException(
                    f"model {config['name']}, tensor {name}: the model's type is {TYPES.get(node.type, node.type)}, "
                    f"the configuration says {tensor['data_type']}"
                )
            sizes = [int(size) for size in (tensor.get("reshape") or {}).get("shape", tensor["dims"])]
            wanted, has = [*([-1] if batched else []), *sizes], shape(node)
            # A tensor without any dimension is [1] in a configuration.
            if has and (len(wanted) != len(has) or any(b not in (-1, a) for a, b in zip(wanted, has, strict=True))):
                raise pb_utils.TritonModelException(
                    f"model {config['name']}, tensor {name}: the model's shape is {has}, not {wanted}"
                    + (" (the first is the batch)" if batched else "")
                )


class TritonPythonModel:
    """One instance of a model; Triton knows the class by this name."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what a model's configuration leaves out: tensors, batch size, dynamic batching."""
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        session = load(config)
        if batches(session):
            if config["max_batch_size"] == 0:
                auto_complete_model_config.set_max_batch_size(DEFAULT_MAX_BATCH_SIZE)
            if config["max_batch_size"] > 1 and "sequence_batching" not in config:
                auto_complete_model_config.set_dynamic_batching()
        elif config["max_batch_size"]:
            raise pb_utils.TritonModelException(
                f"model {config['name']} can't take batches: max_batch_size must be 0 in its configuration"
            )
        batched = config["max_batch_size"] > 0
        # Not by add_input and add_output, which know no reshape.
        config["input"] = config["input"] or described(session.get_inputs(), batched=batched)
        config["output"] = config["output"] or described(session.get_outputs(), batched=batched)
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        config = json.loads(args["model_config"])
        if config.get("sequence_batching", {}).get("state"):
            raise pb_utils.TritonModelException(f"model {config['name']}: states of sequences are not kept here")
        self.session = load(config)
        check(config, self.session)
        self.batched = config["max_batch_size"] > 0
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.scalars = {node.name for node in self.session.get_outputs() if not shape(node)}
        self.scalar_inputs = {node.name for node in self.session.get_inputs() if not shape(node)}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests; those of one shape in one run."""
        answers: list[Any] = [None] * len(requests)
        groups: dict[Any, list[int]] = {}
        given: list[dict[str, np.ndarray]] = [{} for _ in requests]
        for index, request in enumerate(requests):
            try:
                tensors = {tensor.name(): array(tensor) for tensor in request.inputs()}
            except UnicodeDecodeError as error:
                answers[index] = refusal(f"a text is not UTF-8: {error}")
                continue
            given[index] = tensors
            alike = tuple((name, data.shape[1:]) for name, data in sorted(tensors.items())) if self.batched else index
            groups.setdefault(alike, []).append(index)
        for members in groups.values():
            try:
                results = self.run([given[index] for index in members])
            except Exception as error:  # ONNX Runtime's exceptions have no common base
                for index in members:
                    answers[index] = refusal(f"ONNX Runtime: {error}")
                continue
            for index, result in zip(members, results, strict=True):
                wanted = requests[index].requested_output_names()
                found = [pb_utils.Tensor(name, result[name]) for name in self.outputs if name in wanted]
                answers[index] = pb_utils.InferenceResponse(found)
        return answers

    def run(self, members: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """Run the model once for several requests, along the first dimension.

        Raises:
            ValueError: the model gave another number of rows than it was asked.
        """
        first = members[0]
        if len(members) == 1:
            feed = first
        else:
            feed = {name: np.concatenate([tensors[name] for tensors in members]) for name in first}
        feed = {name: data.reshape(()) if name in self.scalar_inputs else data for name, data in feed.items()}
        found = {
            name: encoded(data.reshape(1) if name in self.scalars else data)
            for name, data in zip(self.outputs, self.session.run(self.outputs, feed), strict=True)
        }
        if len(members) == 1:
            return [found]
        rows = [len(next(iter(tensors.values()))) for tensors in members]
        for name, data in found.items():
            if len(data) != sum(rows):
                raise ValueError(f"{name} has {len(data)} rows for a batch of {sum(rows)}")
        cuts = np.cumsum(rows)[:-1]
        parts = {name: np.split(data, cuts) for name, data in found.items()}
        return [{name: parts[name][index] for name in found} for index in range(len(members))]


def refusal(why: str) -> Any:
    """Give the answer to a request that can't be answered."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(why))


def array(tensor: Any) -> np.ndarray:
    """Give a request's tensor as ONNX Runtime takes it: text as str."""
    data: np.ndarray = tensor.as_numpy()
    if data.dtype != np.object_:
        return data
    return np.array([item.decode() for item in data.flat], dtype=np.object_).reshape(data.shape)


def encoded(data: Any) -> np.ndarray:
    """Give a model's tensor as Triton takes it: text as bytes.

    Raises:
        TypeError: it is a map or a list, which Triton has no type for.
    """
    if not isinstance(data, np.ndarray):
        raise TypeError(f"an output is a {type(data).__name__} and no tensor; export the model without ZipMap")
    if data.dtype != np.object_:
        return np.ascontiguousarray(data)
    return np.array([str(item).encode() for item in data.flat], dtype=np.object_).reshape(data.shape)
