"""The ONNX backend of the Triton image, with stand-ins for Triton and ONNX Runtime, which run in the image alone."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from velagen.lab.images.recipe import HERE

np = pytest.importorskip("numpy")


class Refused(Exception):  # noqa: N818  # in the place of Triton's own
    pass


class Tensor:
    def __init__(self, name: str, data: Any) -> None:
        self._name, self._data = name, data

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._data


class Response:
    def __init__(self, tensors: list[Tensor] | None = None, error: str | None = None) -> None:
        self.found = {tensor.name(): tensor.as_numpy() for tensor in tensors or []}
        self.error = error


class Request:
    def __init__(self, *names: str, **tensors: Any) -> None:
        self._names, self._tensors = names, tensors

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, data) for name, data in self._tensors.items()]

    def requested_output_names(self) -> tuple[str, ...]:
        return self._names


class Config:
    """What Triton hands to auto_complete_config."""

    def __init__(self, **given: Any) -> None:
        self.config = {"name": "m", "max_batch_size": 0, "input": [], "output": [], "default_model_filename": ""}
        self.config |= given

    def as_dict(self) -> dict[str, Any]:
        return self.config

    def set_max_batch_size(self, size: int) -> None:
        self.config["max_batch_size"] = size

    def set_dynamic_batching(self) -> None:
        self.config["dynamic_batching"] = {}


def node(name: str, kind: str, *shape: Any) -> Any:
    return SimpleNamespace(name=name, type=kind, shape=list(shape))


class Session:
    """A model that doubles x, and says of each row what text it came with."""

    inputs = (node("x", "tensor(float)", "n", 2), node("t", "tensor(string)", "n"))
    outputs = (node("y", "tensor(float)", "n", 2), node("label", "tensor(string)", "n"))

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []

    def get_inputs(self) -> list[Any]:
        return list(self.inputs)

    def get_outputs(self) -> list[Any]:
        return list(self.outputs)

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        self.runs.append(feed)
        if feed["x"].shape[-1] != 2:
            raise RuntimeError("invalid dimensions")
        found = {"y": feed["x"] * 2, "label": np.array([f"<{text}>" for text in feed["t"]], dtype=object)}
        return [found[name] for name in names]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    runtime, utils = ModuleType("onnxruntime"), ModuleType("triton_python_backend_utils")
    levels = ("ORT_ENABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_DISABLE_ALL")
    runtime.GraphOptimizationLevel = SimpleNamespace(**{name: name for name in levels})  # type: ignore[attr-defined]
    runtime.ExecutionMode = int  # type: ignore[attr-defined]
    runtime.SessionOptions = SimpleNamespace  # type: ignore[attr-defined]
    runtime.session = Session()  # type: ignore[attr-defined]
    runtime.InferenceSession = lambda path, options, providers: runtime.session  # type: ignore[attr-defined]
    for name, thing in {
        "TritonModelException": Refused,
        "Tensor": Tensor,
        "InferenceResponse": Response,
        "TritonError": str,
        "get_model_dir": lambda: str(tmp_path),
    }.items():
        setattr(utils, name, thing)
    (tmp_path / "model.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    specification = importlib.util.spec_from_file_location("onnx_backend", HERE / "servers/onnxruntime/model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


Start = Callable[..., Any]


@pytest.fixture
def start(backend: Any) -> Start:
    """A model that is loaded, with a configuration that was completed."""

    def started(**given: Any) -> Any:
        config = backend.TritonPythonModel.auto_complete_config(Config(**given)).as_dict()
        model = backend.TritonPythonModel()
        model.initialize({"model_config": json.dumps(config)})
        return model

    return started


def rows(*values: float) -> Any:
    return np.array(values, dtype=np.float32).reshape(-1, 2)


def texts(*values: bytes) -> Any:
    return np.array(values, dtype=object)


def test_a_configuration_is_completed_from_the_graph(backend: Any) -> None:
    config = backend.TritonPythonModel.auto_complete_config(Config()).as_dict()
    assert config["max_batch_size"] == 4
    assert config["dynamic_batching"] == {}
    assert config["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [2]},
        {"name": "t", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
    ]
    assert [tensor["name"] for tensor in config["output"]] == ["y", "label"]


def test_what_is_configured_stays(backend: Any) -> None:
    given = Config(max_batch_size=64, dynamic_batching={"preferred_batch_size": [8]}, input=[{"name": "x"}])
    given.set_dynamic_batching = lambda: given.config.setdefault("dynamic_batching", {})  # type: ignore[method-assign, assignment]
    config = backend.TritonPythonModel.auto_complete_config(given).as_dict()
    assert (config["max_batch_size"], config["input"]) == (64, [{"name": "x"}])
    assert config["dynamic_batching"] == {"preferred_batch_size": [8]}


def test_a_graph_of_fixed_size_takes_no_batches(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "inputs", (node("x", "tensor(float)", 1, 2),))
    config = backend.TritonPythonModel.auto_complete_config(Config()).as_dict()
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [1, 2]}]
    with pytest.raises(Refused, match="can't take batches"):
        backend.TritonPythonModel.auto_complete_config(Config(max_batch_size=8))


def test_requests_of_one_shape_are_one_run_and_each_gets_its_rows(start: Start) -> None:
    model = start()
    answers = model.execute(
        [
            Request("y", "label", x=rows(1, 2), t=texts(b"a")),
            Request("y", "label", x=rows(3, 4, 5, 6), t=texts(b"b", "ü".encode())),
            Request("label", x=rows(7, 8), t=texts(b"d")),
        ]
    )
    (feed,) = model.session.runs
    assert feed["x"].shape == (4, 2)
    assert [answer.error for answer in answers] == [None] * 3
    assert answers[0].found["y"].tolist() == [[2, 4]]
    assert answers[1].found["y"].tolist() == [[6, 8], [10, 12]]
    assert answers[1].found["label"].tolist() == [b"<b>", "<ü>".encode()]
    assert set(answers[2].found) == {"label"}


def test_a_request_that_fails_leaves_those_of_another_shape_alone(start: Start) -> None:
    model = start()
    wide = np.zeros((1, 3), dtype=np.float32)
    answers = model.execute(
        [
            Request("y", x=wide, t=texts(b"a")),
            Request("y", x=rows(1, 2), t=texts(b"b")),
            Request("y", x=rows(1, 2), t=texts(b"\xff")),
        ]
    )
    assert "invalid dimensions" in answers[0].error
    assert answers[1].found["y"].tolist() == [[2, 4]]
    assert "not UTF-8" in answers[2].error


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [2]}]}, "unexpected input z; it has x, t"),
        ({"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]}, "lacks the input t"),
        ({"output": [{"name": "y", "data_type": "TYPE_INT8", "dims": [2]}]}, "the model's type is TYPE_FP32"),
        ({"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [3]}]}, r"the model's shape is \[-1, 2\], not"),
        ({"parameters": {"intra_op_thread_count": {"string_value": "two"}}}, "'two' is not a number"),
        ({"parameters": {"execution_mode": {"string_value": "2"}}}, "execution_mode is 0 or 1"),
        (
            {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}},
            "openvino",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(start: Start, config: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        start(**config)


def test_threads_and_levels_come_from_the_configuration(backend: Any) -> None:
    plain = backend.options({})
    assert (plain.intra_op_num_threads, plain.graph_optimization_level) == (1, "ORT_ENABLE_ALL")
    parameters = {"intra_op_thread_count": {"string_value": "3"}, "enable_mem_arena": {"string_value": "false"}}
    asked = backend.options({"parameters": parameters, "optimization": {"graph": {"level": -1}}})
    assert (asked.intra_op_num_threads, asked.graph_optimization_level) == (3, "ORT_ENABLE_BASIC")
    assert asked.enable_cpu_mem_arena is False


def test_a_missing_file_is_named(start: Start) -> None:
    with pytest.raises(Refused, match=r"unable to find .*other\.onnx"):
        start(default_model_filename="other.onnx")
