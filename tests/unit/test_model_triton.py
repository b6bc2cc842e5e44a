"""Every refusal here was seen in Triton's sources or in the messages of tritonserver 2.51, and every acceptance too."""

from pathlib import Path
from types import ModuleType

import pytest

from velagen.errors import VelagenError
from velagen.model import ModelReport, check_model
from velagen.model.proto import regenerate
from velagen.model.triton_config import read_config

CONFIG = """
# the article's
name: "sentiment"
backend: "python"
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output { name: "LABEL", data_type: TYPE_INT64, dims: [ 1 ] }
dynamic_batching { max_queue_delay_microseconds: 100 preferred_batch_size: [ 4, 8 ] }
"""


def repository(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def said(report: ModelReport, severity: str) -> list[str]:
    return [problem.message for problem in report.problems if problem.severity == severity]


def check(folder: Path, config: str, **files: str) -> ModelReport:
    """One model, ``sentiment`` with a model.py, of this configuration."""
    return check_model(repository(folder, {"sentiment/config.pbtxt": config, "sentiment/1/model.py": "x = 1", **files}))


def test_repository(tmp_path: Path) -> None:
    report = check(tmp_path / "r", CONFIG)
    assert report.problems == ()
    assert report.layout == "triton"
    assert report.facts == ("model sentiment: backend python, versions 1",)


@pytest.mark.parametrize(("files", "error"), [
    ({"a/config.pbtxt": CONFIG, "a/1/model.py": ""}, "name is 'sentiment'"),
    ({"sentiment/config.pbtxt": CONFIG, "sentiment/1/model.onnx": ""}, "model.py is missing"),
    ({"sentiment/config.pbtxt": CONFIG}, "no version folder"),
    ({"a/1/model.pt": "x"}, "the pytorch backend needs a config.pbtxt"),
    ({"a/config.pbtxt": "max_batch_size: 0", "a/1/other": ""}, "no backend"),
    ({"a/config.pbtxt": 'platform: "onnx"', "a/1/model.onnx": ""}, "unknown platform 'onnx', and no backend"),
    ({"a/config.pbtxt": 'platform: "onnxruntime_onnx" backend: "tensorrt"', "a/1/model.plan": ""}, "does not go with"),
    ({"a/config.pbtxt": 'backend: "python" version_policy { specific { versions: 3 } }', "a/1/model.py": ""},
     "version_policy loads no version"),
    ({"a/config.pbtxt": 'backend: "python" version_policy { latest { } }', "a/1/model.py": ""}, "loads no version"),
    ({"a/config.pbtxt": 'backend: "python"', "a/1/model.py": "", "a/2/other": ""}, "model.py is missing"),
    ({"a/config.pbtxt": 'backend: "python"', "a/01/model.py": ""}, "no version folder"),
    ({"a.mine/1/x": "", "b/1/model.onnx": ""}, "'mine', which the folder's name says, is not in Triton's own image"),
    ({"docs/readme.txt": "", "b/1/model.onnx": ""}, "no backend"),
    ({"a/config.pbtxt": 'backend: "python" output { name: "A" data_type: TYPE_FP32 dims: 1 label_filename: "l.txt" }',
      "a/1/model.py": ""}, "l.txt is missing"),
    ({"a/config.pbtxt": 'backend: "python" parameters { key: "EXECUTION_ENV_PATH" value { string_value: '
                        '"$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }', "a/1/model.py": ""}, "env.tar.gz is missing"),
])  # fmt: skip
def test_repositories_that_are_refused(tmp_path: Path, files: dict[str, str], error: str) -> None:
    report = check_model(repository(tmp_path / "r", files))
    assert report.layout == "triton"
    assert any(error in message for message in said(report, "error")), report.problems


@pytest.mark.parametrize("files", [
    {"net/1/model.onnx": ""},
    {"net/1/model.onnx/weights": ""},
    {"net/1/model.savedmodel/saved_model.pb": ""},
    {"net/config.pbtxt": "", "net/1/model.plan": ""},
    {"net.identity/1/.keep": "", "other/1/model.py": ""},
    {"net.identity/config.pbtxt": "max_batch_size: 8", "net.identity/1/.keep": ""},
    {"net/config.pbtxt": 'backend: "python"', "net/0/model.py": ""},
    {"net/config.pbtxt": 'backend: "python" version_policy { all {} }', "net/1/model.py": "", "net/12/model.py": ""},
    # Only the latest version is loaded.
    {"net/config.pbtxt": 'backend: "python"', "net/1/old": "", "net/2/model.py": ""},
    {"net/config.pbtxt": 'backend: "python"', "net/1/model.py": "", "net/configs/a.pbtxt": "", "net/warmup/x": ""},
    {"net/config.pbtxt": 'backend: "onnxruntime" cc_model_filenames { key: "7.5" value: "t4" }', "net/1/t4": ""},
    {"net/config.pbtxt": 'backend: "vllm"', "net/1/model.json": "{}"},
    {"net/config.pbtxt": 'default_model_filename: "model.onnx"', "net/1/model.onnx": ""},
    {"net/config.pbtxt": 'platform: "tensorflow_savedmodel"', "net/1/model.savedmodel/saved_model.pb": ""},
])  # fmt: skip
def test_repositories_that_are_taken(tmp_path: Path, files: dict[str, str]) -> None:
    report = check_model(repository(tmp_path / "r", files))
    assert (report.layout, said(report, "error")) == ("triton", [])


def test_folders_beside_models_are_told_and_are_no_models(tmp_path: Path) -> None:
    package = repository(tmp_path / "r", {"sentiment/config.pbtxt": CONFIG, "sentiment/1/model.py": ""})
    for name in ("lost+found", "__pycache__", ".git"):
        (package / name).mkdir()
    report = check_model(package)
    assert report.serves
    # tritonserver 2.51: "Poll failed for model directory 'lost+found'", and it stops.
    assert said(report, "warning") == ["not a model, and Triton would take it for one and stop"] * 3


def test_one_model_of_a_repository(tmp_path: Path) -> None:
    report = check_model(repository(tmp_path / "sentiment", {"config.pbtxt": CONFIG, "1/model.py": "x = 1"}))
    assert report.serves
    assert report.root == ".."
    assert "the folder above it" in said(report, "warning")[0]


@pytest.mark.parametrize(("line", "error", "hint"), [
    ("max_batch_siz: 8", "unknown field max_batch_siz in ModelConfig", "did you mean max_batch_size?"),
    ('input { nam: "a" }', "unknown field nam in ModelInput", "did you mean name?"),
    ("input { data_type: TYPE_FLOAT }", "unknown value TYPE_FLOAT of DataType", "TYPE_FP32"),
    ("instance_group { kind: GPU }", "unknown value GPU of ModelInstanceGroup.Kind", "KIND_GPU"),
    ('input { dims: ["3"] }', "Couldn't parse integer", ""),
    ("input { dims: [3.5] }", "Couldn't parse integer", ""),
    ("max_batch_size: 4000000000", "out of range", ""),
    ("max_batch_size: 1_000", "1_000 is not a number", ""),
    ("max_batch_size: +1", "+1 is not a number", ""),
    ('platform "x"', 'Expected "', ""),
    ("max_batch_size: 1\nmax_batch_size: 2", "multiple", ""),
    ("max_batch_size: ${n}", "a ${...} that nothing filled in", ""),
    ("dynamic_batching {}\nsequence_batching {}", "oneof", ""),
    ("input [", "", ""),
    ("input {", "", ""),
    ("input: }", "", ""),
    ("name: 5", "", ""),
    ("{}", "", ""),
    ("optimization { graph { level: x } }", "", ""),
])  # fmt: skip
def test_text_that_is_no_configuration(tmp_path: Path, line: str, error: str, hint: str) -> None:
    report = check(tmp_path / "r", 'backend: "python"\n' + line)
    (problem,) = report.problems
    assert error in problem.message
    assert hint in problem.hint
    assert problem.place.file == "r/sentiment/config.pbtxt"
    assert problem.place.line in (2, 3)
    assert "velagen" not in problem.message


def test_text_is_read_as_protobuf_reads_it() -> None:
    config = read_config(
        "max_batch_size: 0x10, input < name: 'a' \"b\" dims: -1 dims: [2, 3] >; # end\noutput [ {} ]", "f"
    )
    assert (config.max_batch_size, config.input[0].name, list(config.input[0].dims)) == (16, "ab", [-1, 2, 3])
    assert len(config.output) == 1
    with pytest.raises(VelagenError):
        read_config("input {" * 100_000, "f")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    package = repository(tmp_path / "r", {"a/1/model.py": ""})
    for content, error in ((b"\xff\xfe", "invalid UTF-8"), (b"#" * 2_000_000, "larger than")):
        (package / "a" / "config.pbtxt").write_bytes(content)
        assert error in said(check_model(package), "error")[0]


TENSORS = 'input { name: "A" data_type: TYPE_FP32 dims: 1 } output { name: "B" data_type: TYPE_FP32 dims: 1 }'


@pytest.mark.parametrize(("config", "error"), [
    ("max_batch_size: -1", "max_batch_size is -1"),
    ("max_batch_size: 8 dynamic_batching { preferred_batch_size: [4, 16] }", "[16] is over max_batch_size 8"),
    ("dynamic_batching { preferred_batch_size: [4] }", "[4] is over max_batch_size 0"),
    ("max_batch_size: 8 dynamic_batching { preferred_batch_size: [0] }", "[0] is not positive"),
    ("dynamic_batching { priority_levels: 2 }", "default_priority_level is 0"),
    ("dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "default_priority_level is 3"),
    ("dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 5 value {} } }",
     "priority_queue_policy of level 5"),
    ("dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }",
     "does not go with more than one"),
    ("dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY "
     "default_timeout_microseconds: 1 } }", "timeout_action: DELAY"),
    ("input { name: 'A' dims: 1 }", "input 'A' has no data_type"),
    ("input { name: 'A' data_type: TYPE_FP32 }", "input 'A' has no dims"),
    ("output { data_type: TYPE_FP32 dims: 1 }", "output '' has no name"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: 0 }", "dims [0] must be 1 or more"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: -2 }", "dims [-2] must be 1 or more"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: [3, 4] format: FORMAT_NHWC }", "FORMAT_NHWC needs three dims"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: 1 is_shape_tensor: true }", "shape tensors are TensorRT's"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: 1 is_non_linear_format_io: true }", "is TensorRT's"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: [2, 3] reshape { shape: 5 } }", "reshape [5] has another size"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: [2, 3] reshape { shape: [6, 0] } }", "reshape [0] must be"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: [2, -1] reshape { shape: [-1, 2] } }", "has another size"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: [-1] reshape { shape: [-1, -1] } }", "has another size"),
    ("input { name: 'A' data_type: TYPE_FP32 dims: 1 reshape { } }", "an empty reshape"),
    ("max_batch_size: 1 input { name: 'A' data_type: TYPE_FP32 dims: 2 reshape { } }", "has another size"),
    ("batch_input { kind: BATCH_ELEMENT_COUNT data_type: TYPE_FP32 }", "has 0 source_input"),
    ("batch_input { data_type: TYPE_FP32 source_input: 'C' }", "source_input 'C' is not an input"),
    ("batch_input { data_type: TYPE_FP64 source_input: 'A' }", "data_type TYPE_FP64"),
    ("batch_input { kind: 99 data_type: TYPE_FP32 source_input: 'A' }", "unknown kind 99"),
    ("batch_output { source_input: ['A', 'A'] }", "has 2 source_input"),
    ("batch_output { source_input: 'A' target_name: 'C' }", "target_name 'C' is not an output"),
    ("batch_output { source_input: 'A' target_name: ['B', 'B'] }", "target_name 'B' twice"),
    ("instance_group { kind: KIND_CPU gpus: 0 }", "KIND_CPU takes no gpus"),
    ("instance_group { kind: KIND_MODEL gpus: 0 }", "KIND_MODEL takes no gpus"),
    ("instance_group { gpus: -1 }", "there is no GPU -1"),
    ("instance_group { profile: '0' }", "profiles are TensorRT's"),
    ("sequence_batching { control_input { } }", "without a name"),
    ("sequence_batching { control_input { name: 'S' } control_input { name: 'S' } }", "control_input 'S' twice"),
    ("sequence_batching { control_input { name: 'S' control { kind: CONTROL_SEQUENCE_START } } }", "exactly one of"),
    ("sequence_batching { control_input { name: 'S' control { int32_false_true: 0 } } }", "must have two values"),
    ("sequence_batching { control_input { name: 'S' control { int32_false_true: [0, 1] bool_false_true: [false, true] "
     "} } }", "exactly one of"),
    ("sequence_batching { control_input { name: 'S' control { int32_false_true: [0, 1] } } "
     "control_input { name: 'T' control { int32_false_true: [0, 1] } } }", "for more than one tensor"),
    ("sequence_batching { control_input { name: 'S' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32 } } }",
     "CORRID of data_type TYPE_FP32"),
    ("sequence_batching { control_input { name: 'S' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 "
     "int32_false_true: [0, 1] } } }", "takes no int32_false_true"),
    ("sequence_batching { oldest { preferred_batch_size: 4 } }", "[4] is over max_batch_size 0"),
    ("sequence_batching { direct { minimum_slot_utilization: 1.5 } }", "minimum_slot_utilization is 1.5"),
    ("sequence_batching { } response_cache { enable: true }", "does not go with sequence_batching"),
    ("model_transaction_policy { decoupled: true } response_cache { enable: true }", "decoupled"),
    ("model_metrics { metric_control { histogram_options { buckets: 1 } } }", "without the family"),
    ("model_metrics { metric_control { metric_identifier { family: 'f' } } }", "without buckets"),
    ("ensemble_scheduling { step { } }", "needs the platform of an ensemble"),
    ('runtime: "../x.so"', "is not a backend library"),
])  # fmt: skip
def test_configurations_that_are_refused(tmp_path: Path, config: str, error: str) -> None:
    tensors = "" if config.startswith(("input", "output", "max_batch_size: 1 input")) else TENSORS
    report = check(tmp_path / "r", f'backend: "python"\n{tensors}\n{config}')
    assert any(error in message for message in said(report, "error")), report.problems


@pytest.mark.parametrize("config", [
    "max_batch_size: 8 dynamic_batching { preferred_batch_size: [8] preserve_ordering: true }",
    "dynamic_batching { priority_levels: 2 default_priority_level: 2 priority_queue_policy { key: 1 value { } } }",
    "dynamic_batching { }",
    "instance_group [ { count: 2 kind: KIND_GPU gpus: [0, 1] }, { kind: KIND_CPU } ]",
    "sequence_batching { direct { } control_input { name: 'S' control { fp32_false_true: [0, 1] } } "
    "control_input { name: 'I' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } } }",
    "batch_input { data_type: TYPE_INT32 source_input: 'A' target_name: 'X' } "
    "batch_output { source_input: 'A' target_name: 'B' }",
    "model_warmup { name: 'w' inputs { key: 'A' value { data_type: TYPE_FP32 dims: 1 zero_data: true } } }",
    "response_cache { enable: true } optimization { execution_accelerators { cpu_execution_accelerator { } } }",
    "input { name: 'C' data_type: TYPE_FP32 dims: [2, 4, -1, 6] reshape { shape: [8, -1, 1, 6] } }",
    "max_batch_size: 1 input { name: 'C' data_type: TYPE_FP32 dims: 1 reshape { } }",
])  # fmt: skip
def test_configurations_that_are_taken(tmp_path: Path, config: str) -> None:
    assert said(check(tmp_path / "r", f'backend: "python"\n{TENSORS}\n{config}'), "error") == []


def test_what_a_backend_fills_in_may_be_left_out(tmp_path: Path) -> None:
    config = 'input { name: "A" } output { dims: 1 }'
    fills = "class TritonPythonModel:\n    def auto_complete_config(config): ..."
    files = {"a/config.pbtxt": config, "a/1/model.plan": "", "b/config.pbtxt": config, "b/1/model.py": fills}
    assert said(check_model(repository(tmp_path / "r", files)), "error") == []


PART = 'backend: "python" max_batch_size: 4 input {{ name: "{}" data_type: TYPE_FP32 dims: 2 }} output {{ name: "{}" data_type: TYPE_FP32 dims: 2 }}'  # noqa: E501
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 4
input { name: "RAW" data_type: TYPE_FP32 dims: 2 }
output { name: "OUT" data_type: TYPE_FP32 dims: 2 }
ensemble_scheduling { step [
  { model_name: "first" model_version: -1 input_map { key: "A" value: "RAW" } output_map { key: "B" value: "MID" } },
  { model_name: "second" model_version: 1 input_map { key: "C" value: "MID" } output_map { key: "D" value: "OUT" } }
] }
"""


def ensemble(folder: Path, config: str, **changed: str) -> ModelReport:
    parts = {"first": PART.format("A", "B"), "second": PART.format("C", "D")} | changed
    files = {f"{name}/config.pbtxt": text for name, text in parts.items()}
    files |= {f"{name}/1/model.py": "" for name in parts}
    return check_model(repository(folder, {"both/config.pbtxt": config, "both/1/.keep": "", **files}))


def test_ensemble_that_is_right(tmp_path: Path) -> None:
    report = ensemble(tmp_path / "r", ENSEMBLE)
    assert report.problems == ()
    assert "model both: backend ensemble, versions 1" in report.facts
    (tmp_path / "r" / "both" / "1" / ".keep").unlink()
    assert said(check_model(tmp_path / "r"), "warning") == ["an empty folder does not reach an object store"]


MORE = 'input { name: "MORE" data_type: TYPE_FP32 dims: 2 } '


@pytest.mark.parametrize(("old", "new", "error"), [
    ('platform: "ensemble"', 'platform: "ensemble" backend: "python"', "takes no backend"),
    ('platform: "ensemble"', 'platform: "ensemble" instance_group { }', "takes no instance_group"),
    ('platform: "ensemble"', 'platform: "ensemble" optimization { }', "takes no optimization"),
    ('platform: "ensemble"', 'platform: "ensemble" model_warmup { }', "takes no model_warmup"),
    ('model_name: "second"', 'model_name: "third"', "there is no such model in the repository"),
    ('model_name: "second"', "", "step 1 has no model_name"),
    ('model_name: "second"', 'model_name: "both"', "the ensemble calls itself"),
    ("model_version: 1", "model_version: 2", "version 2 is not loaded (loaded: 1)"),
    ('input_map { key: "C" value: "MID" }', "", "step 1 has no input_map"),
    ('output_map { key: "D" value: "OUT" }', "", "step 1 has no output_map"),
    ("max_batch_size: 4", "max_batch_size: 8", "is over the model's, 4"),
    ('key: "C"', 'key: "X"', "the model has no input 'X'"),
    ('key: "C"', 'key: "X"', "the model's input 'C' is not in input_map"),
    ('key: "D"', 'key: "X"', "the model has no output 'X'"),
    ('value: "RAW"', 'value: "OTHER"', "the input 'RAW' is not used"),
    ('value: "OUT"', 'value: "OTHER"', "the output 'OUT' is not written"),
    ('value: "OUT"', 'value: "MID"', "written by more than one output"),
    ('key: "A" value: "RAW"', 'key: "A" value: "OUT"', "the output 'OUT' is never written"),
    ('"MID" }, ', '"MID" }, ', ""),
    ('input { name: "RAW"', MORE + 'input { name: "RAW"', "the input 'MORE' is not used"),
    ("TYPE_FP32 dims: 2 }\noutput", "TYPE_INT64 dims: 2 }\noutput", "is TYPE_INT64 for both and TYPE_FP32 for first"),
    ("dims: 2 }\noutput", "dims: 3 }\noutput", "is [-1, 3] for both and [-1, 2] for first"),
    ("ensemble_scheduling", "# ensemble_scheduling", None),
])  # fmt: skip
def test_ensembles_that_are_refused(tmp_path: Path, old: str, new: str, error: str | None) -> None:
    config = ENSEMBLE.replace(old, new, 1)
    if error is None:
        config, error = ENSEMBLE[: ENSEMBLE.index("ensemble_scheduling")], "needs ensemble_scheduling"
    report = ensemble(tmp_path / "r", config)
    assert bool(said(report, "error")) == bool(error)
    assert any(error in message for message in said(report, "error")) == bool(error), report.problems


def test_ensembles_beside_what_can_t_be_read(tmp_path: Path) -> None:
    report = ensemble(tmp_path / "r", ENSEMBLE.replace('key: "D"', 'key: "X"'), first="max_batch_siz: 4", other="x")
    assert len(said(report, "error")) == 3
    assert "step 1 (second): the model has no output 'X'" in said(report, "error")


def test_steps_that_wait_for_each_other(tmp_path: Path) -> None:
    waiting = ENSEMBLE.replace('key: "C" value: "MID"', 'key: "C" value: "BACK"').replace(
        "] }", ', { model_name: "first" model_version: -1 input_map { key: "A" value: "OUT" } '
        'output_map { key: "B" value: "BACK" } } ] }'
    )  # fmt: skip
    assert any(
        "the output 'OUT' is never written" in message for message in said(ensemble(tmp_path / "r", waiting), "error")
    )
    unwritten = ENSEMBLE.replace("] }", ', { model_name: "first" model_version: -1 input_map { key: "A" value: "Y" } '
                                 'output_map { key: "B" value: "Z" } } ] }')  # fmt: skip
    messages = said(ensemble(tmp_path / "s", unwritten), "error")
    assert any("the tensor 'Y' is never written" in message for message in messages)


def test_ensembles_that_call_each_other(tmp_path: Path) -> None:
    other = ENSEMBLE.replace('model_name: "first"', 'model_name: "both"').replace('key: "A"', 'key: "RAW"')
    other = other.replace('key: "B"', 'key: "OUT"')
    report = ensemble(tmp_path / "r", ENSEMBLE.replace('model_name: "second"', 'model_name: "zoo"'), zoo=other)
    assert "ensembles that call each other in a circle: both -> zoo -> both" in said(report, "error")


def test_shapes_that_meet(tmp_path: Path) -> None:
    # A model without batches takes the batch as its first dimension, and -1 takes any size.
    for number, second in enumerate((
        PART.format("C", "D").replace("max_batch_size: 4", "").replace("dims: 2", "dims: [-1, 2]"),
        PART.format("C", "D").replace("dims: 2", "dims: -1"),
        PART.format("C", "D") + ' input { name: "E" data_type: TYPE_FP32 dims: 1 optional: true }',
        'backend: "onnxruntime"',
    )):  # fmt: skip
        report = ensemble(tmp_path / str(number), ENSEMBLE, second=second)
        assert [message for message in said(report, "error") if "model.onnx is missing" not in message] == []


def test_answers_of_different_decoupled_models_do_not_meet(tmp_path: Path) -> None:
    decoupled = "model_transaction_policy { decoupled: true } " + PART.format("A", "B")
    joined = PART.format("C", "D") + ' input { name: "E" data_type: TYPE_FP32 dims: 2 }'
    config = ENSEMBLE.replace('key: "C" value: "MID" }', 'key: "C" value: "MID" } input_map { key: "E" value: "RAW" }')
    assert ensemble(tmp_path / "r", config, second=joined).problems == ()
    report = ensemble(tmp_path / "s", config, first=decoupled, second=joined)
    assert "step 1 (second) reads from different decoupled models" in said(report, "error")
    assert ensemble(tmp_path / "t", ENSEMBLE, first=decoupled).problems == ()


def test_newer_fields_and_useless_batching_are_told(tmp_path: Path) -> None:
    report = check(tmp_path / "r", f'backend: "python" {TENSORS} dynamic_batching {{ }} runtime: "model.py"')
    assert report.serves
    assert [message[:30] for message in said(report, "warning")] == [
        "dynamic_batching needs max_bat",
        "runtime is newer than Triton 2",
    ]


FOLDER = Path(regenerate.__file__).parent


def test_generated_files_are_those_of_the_proto_file(tmp_path: Path) -> None:
    regenerate.regenerate(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_text() == (FOLDER / path.name).read_text(), f"{path.name}: run regenerate.py"


def test_fields_are_those_that_triton_s_own_client_knows() -> None:
    from tritonclient.grpc import model_config_pb2 as theirs

    from velagen.model.proto import triton_config_pb2 as ours

    def fields(module: ModuleType) -> set[tuple[object, ...]]:
        found: set[tuple[object, ...]] = set()
        waiting = list(module.DESCRIPTOR.message_types_by_name.values())
        while waiting:
            message = waiting.pop()
            waiting += message.nested_types
            name = message.full_name.removeprefix(module.DESCRIPTOR.package)
            found |= {(name, field.name, field.number, field.type, field.is_repeated) for field in message.fields}
            for enum in message.enum_types:
                found |= {(name, enum.name, value.name, value.number) for value in enum.values}
        return found

    assert not fields(theirs) - fields(ours)
