"""What Triton refuses in ensembles: the graph of one, and how its steps fit the models they name.

The rules are those of triton-inference-server/core, main of 2026-06: src/model_config_utils.cc
(ValidateEnsembleSchedulingConfig), src/ensemble_scheduler/ensemble_utils.cc, and the versions that steps require, of
src/model_repository_manager.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from velagen.model.proto import triton_config_pb2 as pb
from velagen.model.triton_rules import Fault

_LATEST: Final = -1
_ANY: Final = -1


class StepModel(Protocol):
    """A model of the repository, as a step sees it."""

    @property
    def config(self) -> pb.ModelConfig:
        """Its configuration."""

    @property
    def loaded(self) -> Collection[int]:
        """Versions that its policy loads."""

    @property
    def inputs_known(self) -> bool:
        """Whether its configuration lists all inputs, so that the backend adds none."""

    @property
    def outputs_known(self) -> bool:
        """The same of its outputs."""


def graph_faults(config: pb.ModelConfig) -> Iterator[Fault]:
    """All that is wrong with an ensemble by itself: fields that it can't have, steps, where its tensors come from."""
    if not config.HasField("ensemble_scheduling"):
        if config.platform == "ensemble":
            yield "an ensemble needs ensemble_scheduling", "ensemble_scheduling { step [ ... ] }"
        return
    if config.platform != "ensemble":
        yield "ensemble_scheduling needs the platform of an ensemble", 'platform: "ensemble"'
    for name in ("instance_group", "model_warmup"):
        if getattr(config, name):
            yield f"an ensemble takes no {name}", "its models have their own"
    if config.HasField("optimization"):
        yield "an ensemble takes no optimization", "its models have their own"
    steps = config.ensemble_scheduling.step
    if not steps:
        yield "an ensemble needs a step", "ensemble_scheduling { step [ ... ] }"
        return
    whole = True
    for number, step in enumerate(steps):
        for name in ("model_name", "input_map", "output_map"):
            if not getattr(step, name):
                whole = False
                yield f"step {number} has no {name}", ""
    if whole:
        yield from _flow(config)


def _flow(config: pb.ModelConfig) -> Iterator[Fault]:
    """Whether each tensor is written once, and used, and can be reached from the inputs."""
    needs: dict[str, set[str]] = {}
    used: set[str] = set()
    for step in config.ensemble_scheduling.step:
        sources = set(step.input_map.values())
        used |= sources
        targets = list(step.output_map.values())
        for name in targets:
            if name in needs or targets.count(name) > 1:
                yield f"the tensor {name!r} is written by more than one output", "one output_map may name it"
                return
        needs |= dict.fromkeys(targets, sources)
    ready = {tensor.name for tensor in config.input}
    outputs = {tensor.name for tensor in config.output}
    for name in sorted(ready - used - set(needs)):
        yield f"the input {name!r} is not used by a step", "an input_map must name it"
    changed = True
    while changed:
        news = {name for name, sources in needs.items() if name not in ready and sources <= ready}
        ready |= news
        changed = bool(news)
    broken = False
    for name in sorted(outputs):
        if name not in needs and name not in used:
            yield f"the output {name!r} is not written by a step", "an output_map must name it"
        elif name not in ready:
            broken = True
            lacking = sorted(_lacking(name, needs, ready))
            yield f"the output {name!r} is never written: {', '.join(map(repr, lacking))} is not connected", ""
    for name in sorted((used | set(needs)) - outputs):
        if name not in ready and not broken:
            yield f"the tensor {name!r} is never written", "an input, or a step's output_map, must name it"
        elif name in ready and name not in used:
            yield f"the tensor {name!r} is written and not used", "an output, or drop it from the output_map"


def _lacking(name: str, needs: Mapping[str, set[str]], ready: Collection[str]) -> set[str]:
    """Tensors that nothing writes, or that wait for each other, on which ``name`` waits."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in seen and one not in ready:
            seen.add(one)
            waiting += needs.get(one, ())
    return {one for one in seen if one not in needs} or seen


@dataclass
class _Node:
    """A tensor of an ensemble, as the first that named it has it."""

    owner: str
    data_type: int
    dims: Sequence[int]
    full: Sequence[int]
    #: Tensors that the step which writes it reads, and that step's number.
    sources: list[str] = field(default_factory=list)
    step: int | None = None


def fit_faults(
    name: str, config: pb.ModelConfig, models: Mapping[str, StepModel], unread: Collection[str] = ()
) -> Iterator[Fault]:
    """All that is wrong between the ensemble ``name`` and the models that its steps name.

    The models *unread* are there, but their configurations can't be read.
    """
    nodes: dict[str, _Node] = {}
    tensors: list[pb.ModelInput | pb.ModelOutput] = [*config.input, *config.output]
    for tensor in tensors:
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        nodes.setdefault(tensor.name, _node(name, tensor.data_type, list(dims), config.max_batch_size))
    all_known = True
    for number, step in enumerate(config.ensemble_scheduling.step):
        shown = f"step {number} ({step.model_name})"
        model = models.get(step.model_name)
        if step.model_name == name:
            yield f"{shown}: the ensemble calls itself", ""
            return
        if model is None:
            all_known = False
            if step.model_name not in unread:
                yield f"{shown}: there is no such model in the repository", f"it has {', '.join(sorted(models))}"
            continue
        if step.model_version != _LATEST and step.model_version not in model.loaded:
            versions = ", ".join(map(str, sorted(model.loaded))) or "none"
            yield (
                f"{shown}: version {step.model_version} is not loaded (loaded: {versions})",
                "model_version: -1 takes the latest",
            )
        most = model.config.max_batch_size
        if most and most < config.max_batch_size:
            yield f"{shown}: max_batch_size {config.max_batch_size} of the ensemble is over the model's, {most}", ""
        all_known = all_known and model.inputs_known and model.outputs_known
        yield from _mapped(step, model, shown, nodes)
        for target in step.output_map.values():
            if target in nodes:
                nodes[target].sources = list(step.input_map.values())
                nodes[target].step = number
    if all_known:
        yield from _decoupled(config, models, nodes)


def _node(owner: str, data_type: int, dims: list[int], max_batch_size: int) -> _Node:
    return _Node(owner, data_type, dims, [_ANY, *dims] if max_batch_size > 0 else dims)


def _mapped(step: pb.ModelEnsembling.Step, model: StepModel, shown: str, nodes: dict[str, _Node]) -> Iterator[Fault]:
    sides = (
        ("input", step.input_map, model.config.input, model.inputs_known),
        ("output", step.output_map, model.config.output, model.outputs_known),
    )
    for side, mapping, tensors, known in sides:
        if not known:
            continue
        by_name = {tensor.name: tensor for tensor in tensors}
        for key, target in sorted(mapping.items()):
            tensor = by_name.get(key)
            if tensor is None:
                yield f"{shown}: the model has no {side} {key!r}", f"it has {', '.join(sorted(by_name)) or 'none'}"
                continue
            node = _node(step.model_name, tensor.data_type, list(tensor.dims), model.config.max_batch_size)
            yield from _consistent(target, nodes.setdefault(target, node), node)
        for tensor in tensors:
            optional = isinstance(tensor, pb.ModelOutput) or tensor.optional
            if tensor.name not in mapping and not optional:
                yield f"{shown}: the model's input {tensor.name!r} is not in input_map", ""


def _consistent(name: str, one: _Node, other: _Node) -> Iterator[Fault]:
    if one.data_type != other.data_type:
        types = pb.DataType.Name
        yield (
            f"the tensor {name!r} is {types(one.data_type)} for {one.owner} and {types(other.data_type)} for "
            f"{other.owner}",
            "",
        )
    elif not _alike(one.dims, other.dims) and not _alike(one.full, other.full):
        yield (
            f"the tensor {name!r} is {list(one.full)} for {one.owner} and {list(other.full)} for {other.owner}"
            " (-1 is any size)",
            "",
        )


def _alike(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(_ANY in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _decoupled(config: pb.ModelConfig, models: Mapping[str, StepModel], nodes: Mapping[str, _Node]) -> Iterator[Fault]:
    """A decoupled model answers as often as it likes: what comes from two of them does not meet again."""
    steps = config.ensemble_scheduling.step
    origin: dict[str, int] = {tensor.name: 0 for tensor in config.input}
    by_step: dict[int, int] = {}
    changed = True
    while changed:
        changed = False
        for name, node in nodes.items():
            if name in origin or node.step is None or not all(source in origin for source in node.sources):
                continue
            labels = {origin[source] for source in node.sources} or {0}
            model = models[steps[node.step].model_name]
            if len(labels) > 1:
                yield f"step {node.step} ({steps[node.step].model_name}) reads from different decoupled models", ""
                return
            if node.step not in by_step:
                decoupled = is_decoupled(model.config, models)
                by_step[node.step] = 1 + node.step if decoupled else labels.pop()
            origin[name] = by_step[node.step]
            changed = True
    labels = {origin[tensor.name] for tensor in config.output if tensor.name in origin}
    if len(labels) > 1:
        yield "the ensemble's outputs come from different decoupled models", ""


def is_decoupled(config: pb.ModelConfig, models: Mapping[str, StepModel], depth: int = 0) -> bool:
    """Whether the model answers a request any number of times: it says so, or it is an ensemble with such a step."""
    if not config.HasField("ensemble_scheduling"):
        return config.model_transaction_policy.decoupled
    if depth > len(models):
        return False
    steps = [models[step.model_name] for step in config.ensemble_scheduling.step if step.model_name in models]
    return any(is_decoupled(model.config, models, depth + 1) for model in steps)


def cycles(models: Mapping[str, StepModel]) -> list[list[str]]:
    """Ensembles that call each other, each circle once, its smallest name first."""
    calls: dict[str, list[str]] = defaultdict(list)
    for name, model in models.items():
        calls[name] = sorted(
            {step.model_name for step in model.config.ensemble_scheduling.step if step.model_name in models} - {name}
        )
    found: list[list[str]] = []
    done: set[str] = set()
    for start in sorted(models):
        path: list[str] = []
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            name, depth = stack.pop()
            del path[depth:]
            if name in path:
                circle = path[path.index(name) :]
                turn = circle.index(min(circle))
                if (turned := circle[turn:] + circle[:turn]) not in found:
                    found.append(turned)
                continue
            if name in done:
                continue
            path.append(name)
            stack += [(one, depth + 1) for one in calls[name]]
        done |= {start}
    return found
