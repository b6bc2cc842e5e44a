"""What Triton refuses in one model's configuration before it loads anything.

The rules are those of triton-inference-server/core, main of 2026-06: src/model_config_utils.cc (ValidateModelConfig,
ValidateModelIOConfig, ValidateInstanceGroup). All that is wrong is told, where Triton tells the first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from velagen.model.proto import triton_config_pb2 as pb

#: A sentence, and what to write instead.
Fault = tuple[str, str]

#: Backend -> the platforms that go with it; other backends take any.
_PLATFORMS: Final = {
    "tensorflow": ("tensorflow_savedmodel", "tensorflow_graphdef"),
    "tensorrt": ("tensorrt_plan",),
    "onnxruntime": ("onnxruntime_onnx",),
    "pytorch": ("pytorch_libtorch", "torch_aoti"),
}
_TENSORRT: Final = "tensorrt_plan"
_ANY: Final = -1
_FORMAT_DIMS: Final = 3
_Tensor = pb.ModelInput | pb.ModelOutput
_Thing = TypeVar("_Thing", bound=Hashable)


def config_faults(config: pb.ModelConfig, *, completed: bool) -> Iterator[Fault]:
    """All that is wrong with a configuration whose backend and platform are filled in.

    Args:
        config: the configuration.
        completed: the backend may fill in what tensors lack.
    """
    pair = _PLATFORMS.get(config.backend)
    if pair is not None and config.platform not in pair:
        yield f"platform {config.platform!r} does not go with backend {config.backend!r}", f"write {' or '.join(pair)}"
    runtime = config.runtime
    if runtime and runtime != "model.py" and not re.fullmatch(r"[\w.-]*libtriton_[\w.-]+\.so", runtime):
        yield f"runtime {runtime!r} is not a backend library", "libtriton_NAME.so, model.py, or drop the line"
    if config.backend == "pytorch" and not (config.input and config.output):
        yield "the pytorch backend needs inputs and outputs: a model in TorchScript does not name them", ""
    if config.max_batch_size < 0:
        yield f"max_batch_size is {config.max_batch_size}", "0 (no batches) or more"
    yield from _dynamic_batching(config)
    yield from _sequence_batching(config)
    yield from _tensors(config, completed)
    yield from _batch_tensors(config)
    yield from _instances(config)
    cached = config.response_cache.enable
    if cached and config.HasField("sequence_batching"):
        yield "response_cache does not go with sequence_batching", "drop one"
    if cached and config.model_transaction_policy.decoupled:
        yield "response_cache does not go with a decoupled model", "drop one"
    for control in config.model_metrics.metric_control:
        if not control.metric_identifier.family:
            yield "a metric_control without the family of its metric_identifier", ""
        if not control.histogram_options.buckets:
            yield "a metric_control without buckets in its histogram_options", ""


def _dynamic_batching(config: pb.ModelConfig) -> Iterator[Fault]:
    if not config.HasField("dynamic_batching"):
        return
    batching = config.dynamic_batching
    yield from _preferred(batching.preferred_batch_size, config.max_batch_size)
    levels = batching.priority_levels
    if levels:
        if not 1 <= batching.default_priority_level <= levels:
            yield f"default_priority_level is {batching.default_priority_level}", f"1 to priority_levels, {levels}"
        for level in batching.priority_queue_policy:
            if not 1 <= level <= levels:
                yield f"priority_queue_policy of level {level}", f"1 to priority_levels, {levels}"
    if batching.preserve_ordering:
        if levels > 1:
            yield "preserve_ordering does not go with more than one priority level", "drop one"
        policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
        delay = pb.ModelQueuePolicy.DELAY
        if any(policy.default_timeout_microseconds and policy.timeout_action == delay for policy in policies):
            yield "preserve_ordering does not go with timeout_action: DELAY", "REJECT"


def _preferred(sizes: Iterable[int], most: int) -> Iterator[Fault]:
    wrong = [size for size in sizes if size <= 0]
    if wrong:
        yield f"preferred_batch_size {wrong} is not positive", ""
    large = [size for size in sizes if size > most]
    if large:
        yield f"preferred_batch_size {large} is over max_batch_size {most}", ""


def _sequence_batching(config: pb.ModelConfig) -> Iterator[Fault]:
    if not config.HasField("sequence_batching"):
        return
    batching = config.sequence_batching
    names = [control.name for control in batching.control_input]
    if "" in names:
        yield "a control_input of sequence_batching without a name", ""
    for name in _repeated(names):
        yield f"control_input {name!r} twice: a tensor has one control_input with all its controls", ""
    control_type = pb.ModelSequenceBatching.Control
    kinds = [control.kind for tensor in batching.control_input for control in tensor.control]
    for kind in _repeated(kinds):
        yield f"{control_type.Kind.Name(kind)} for more than one tensor", ""
    for tensor in batching.control_input:
        for control in tensor.control:
            yield from _control(control)
    if batching.HasField("oldest"):
        yield from _preferred(batching.oldest.preferred_batch_size, config.max_batch_size)
    if batching.HasField("direct") and not 0 <= batching.direct.minimum_slot_utilization <= 1:
        yield f"minimum_slot_utilization is {batching.direct.minimum_slot_utilization:g}", "0 to 1"


def _control(control: pb.ModelSequenceBatching.Control) -> Iterator[Fault]:
    kind = pb.ModelSequenceBatching.Control.Kind.Name(control.kind)
    pairs: dict[str, Sequence[object]] = {
        "int32_false_true": control.int32_false_true,
        "fp32_false_true": control.fp32_false_true,
        "bool_false_true": control.bool_false_true,
    }
    given = {name: values for name, values in pairs.items() if values}
    if kind == "CONTROL_SEQUENCE_CORRID":
        if given:
            yield f"{kind} takes no {' and no '.join(given)}", ""
        allowed = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
        if pb.DataType.Name(control.data_type) not in allowed:
            yield f"{kind} of data_type {pb.DataType.Name(control.data_type)}", f"one of {', '.join(allowed)}"
    elif len(given) != 1:
        yield f"{kind} must have exactly one of {', '.join(pairs)}", ""
    else:
        for name, values in given.items():
            if len(values) != 2:
                yield f"{name} of {kind} must have two values", "for false and for true"


def _repeated(things: Sequence[_Thing]) -> list[_Thing]:
    return [thing for thing, count in Counter(things).items() if count > 1]


def _tensors(config: pb.ModelConfig, completed: bool) -> Iterator[Fault]:
    for tensor in config.input:
        shown = f"input {tensor.name!r}"
        yield from _tensor(tensor, shown, config, completed)
        if tensor.format and len(tensor.dims) != _FORMAT_DIMS:
            yield f"{shown}: {pb.ModelInput.Format.Name(tensor.format)} needs three dims", ""
    for output in config.output:
        yield from _tensor(output, f"output {output.name!r}", config, completed)


def _tensor(tensor: _Tensor, shown: str, config: pb.ModelConfig, completed: bool) -> Iterator[Fault]:
    lacks = [
        key
        for key, there in (("name", tensor.name), ("data_type", tensor.data_type), ("dims", tensor.dims))
        if not there
    ]
    if lacks and not completed:
        yield f"{shown} has no {' and no '.join(lacks)}", ""
    if config.platform != _TENSORRT:
        if tensor.is_shape_tensor:
            yield f"{shown}: shape tensors are TensorRT's", ""
        if tensor.is_non_linear_format_io:
            yield f"{shown}: is_non_linear_format_io is TensorRT's", ""
    elif tensor.is_non_linear_format_io and len(tensor.dims) != _FORMAT_DIMS:
        yield f"{shown}: is_non_linear_format_io needs three dims", ""
    if wrong := [dim for dim in tensor.dims if dim < 1 and dim != _ANY]:
        yield f"{shown}: dims {wrong} must be 1 or more, or -1 for any", ""
        return
    if tensor.HasField("reshape") and (tensor.dims or not completed):
        yield from _reshape(tensor, shown, config.max_batch_size)


def _reshape(tensor: _Tensor, shown: str, max_batch_size: int) -> Iterator[Fault]:
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if wrong := [dim for dim in shape if dim < 1 and dim != _ANY]:
        yield f"{shown}: reshape {wrong} must be 1 or more, or -1 for any", ""
        return
    if not shape and max_batch_size == 0:
        yield f"{shown}: an empty reshape needs max_batch_size of 1 or more", ""
        return
    # Between the dimensions of any size the elements are counted: [2, 4, -1, 6] is [8, -1, 1, 6].
    if _counts(dims) != _counts(shape):
        yield f"{shown}: reshape {shape} has another size than dims {dims}", ""


def _counts(dims: Sequence[int]) -> list[int]:
    counts = [1]
    for dim in dims:
        if dim == _ANY:
            counts.append(1)
        else:
            counts[-1] = math.prod((counts[-1], dim))
    return counts


def _batch_tensors(config: pb.ModelConfig) -> Iterator[Fault]:
    inputs = {tensor.name for tensor in config.input}
    outputs = {tensor.name for tensor in config.output}
    for given in config.batch_input:
        yield from _sources("batch_input", given.source_input, inputs)
        if given.kind not in pb.BatchInput.Kind.values():
            yield f"batch_input of unknown kind {given.kind}", f"one of {', '.join(pb.BatchInput.Kind.keys())}"
        if given.data_type not in (pb.TYPE_INT32, pb.TYPE_FP32):
            yield f"batch_input of data_type {pb.DataType.Name(given.data_type)}", "TYPE_INT32 or TYPE_FP32"
    for made in config.batch_output:
        yield from _sources("batch_output", made.source_input, inputs)
        if made.kind not in pb.BatchOutput.Kind.values():
            yield f"batch_output of unknown kind {made.kind}", f"one of {', '.join(pb.BatchOutput.Kind.keys())}"
        for name in made.target_name:
            if name not in outputs:
                yield f"batch_output: target_name {name!r} is not an output", ""
        for name in _repeated(list(made.target_name)):
            yield f"batch_output: target_name {name!r} twice", ""


def _sources(side: str, names: Sequence[str], inputs: Container[str]) -> Iterator[Fault]:
    if len(names) != 1:
        yield f"{side} has {len(names)} source_input", "one"
    for name in names:
        if name not in inputs:
            yield f"{side}: source_input {name!r} is not an input", ""


def _instances(config: pb.ModelConfig) -> Iterator[Fault]:
    kinds = pb.ModelInstanceGroup
    for number, group in enumerate(config.instance_group):
        shown = f"instance_group {group.name or number!r}"
        if group.kind in (kinds.KIND_CPU, kinds.KIND_MODEL) and group.gpus:
            yield f"{shown}: {kinds.Kind.Name(group.kind)} takes no gpus", "KIND_GPU"
        if wrong := [gpu for gpu in group.gpus if gpu < 0]:
            yield f"{shown}: there is no GPU {wrong[0]}", "0 or more"
        if group.profile and config.platform != _TENSORRT:
            yield f"{shown}: profiles are TensorRT's", ""
        for profile in group.profile:
            if not profile.isdecimal():
                yield f"{shown}: profile {profile!r} is not a number", "0 or more"
