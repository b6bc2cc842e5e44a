"""The ConfigMap that NVIDIA's device plugin takes its configurations from, with what to do with it in comments."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import yaml

from velagen.gpu.parts import WHOLE
from velagen.gpu.pools import DEFAULT, Configuration
from velagen.gpu.shares import PRODUCT, SAME_NAME

#: The node label by which the device plugin's config-manager chooses.
LABEL: Final = "nvidia.com/device-plugin.config"
MIG_LABEL: Final = "nvidia.com/mig.config"
_HEAD: Final = """\
# Configurations of NVIDIA's device plugin, written by `velagen gpu config`: one for each pool of nodes.
#   kubectl apply -f FILE
# The device plugin is told of it once, by its chart or by the GPU operator's:
#   --set config.name={name},config.default={default}
#   --set devicePlugin.config.name={name},devicePlugin.config.default={default}{mig}
# A node has the configuration that its label {label} names, and without the label whole GPUs.
"""
#: The operator gives the plugin its own strategy in the environment, which comes before the file's.
_MIG: Final = ",mig.strategy=mixed"


def manifest(
    configurations: Sequence[Configuration],
    *,
    name: str,
    namespace: str,
    gpus: int = 1,
    pool: tuple[tuple[str, str], ...] = (),
) -> str:
    """A ConfigMap with each configuration under its name, as YAML.

    Args:
        name: of the ConfigMap.
        namespace: where the device plugin runs.
        gpus: how many a node has, for what it offers.
        pool: labels of the nodes that are meant, whatever the components say.
    """
    has_mig = any(one.mig for one in configurations)
    head = _HEAD.format(name=name, default=DEFAULT, label=LABEL, mig=_MIG if has_mig else "")
    metadata = {"name": name, "namespace": namespace}
    above = _dumped({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    parts = [head, above, "data:\n", _entry(DEFAULT, ["Whole GPUs."], {"version": "v1"})]
    parts += [
        _entry(one.name, [*_about(one, gpus), *_commands(one, configurations, pool)], one.document)
        for one in configurations
    ]
    return "".join(parts)


def plain(one: Configuration, *, gpus: int = 1) -> str:
    """A configuration as the device plugin, or the simulator, reads it from a file."""
    return "".join(f"# {_printable(comment)}\n" for comment in _about(one, gpus)) + _dumped(one.document)


def _entry(name: str, comments: Iterable[str], document: object) -> str:
    lines = [f"  # {_printable(comment)}" for comment in comments]
    lines.append(f"  {name}: |")
    lines += [f"    {line}" for line in _dumped(document).splitlines()]
    return "\n".join(lines) + "\n"


def _dumped(document: object) -> str:
    return str(yaml.safe_dump(document, sort_keys=False))


def _about(one: Configuration, gpus: int) -> Iterator[str]:
    """For whom it is, and what a node offers with it."""
    first = one.shares[0]
    if first.mode == "mig":
        parts = sorted({f"{share.fraction:g} is {share.profile}" for share in one.shares}, reverse=True)
        yield f"MIG devices of {first.gpu}: fraction {', '.join(parts)}."
    else:
        limit = "memory is not limited" if first.mode == "time-slicing" else f"each has 1/{first.parts} of the memory"
        named = ", ".join(f"{fraction:g}" for fraction in sorted({share.fraction for share in one.shares}))
        yield f"{first.parts} equal parts by {first.mode}, {limit}: fraction {named}."
    for share in one.shares:
        if share.component:
            yield f"for {share.component} ({share.place.file}:{share.place.line})"
    offered = ", ".join(f"{name}: {count}" for name, count in one.offers(gpus).items())
    gone = ", and pods that want a whole GPU get a part" if WHOLE in one.offers(gpus) else f", and no {WHOLE}"
    yield f"A node with {gpus} GPU{'s' * (gpus != 1)} offers {offered}{gone}."


def _commands(
    one: Configuration, configurations: Sequence[Configuration], pool: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    """The commands that give nodes this configuration."""
    for selector in sorted({pool or share.selector for share in one.shares}):
        also = [
            other.name
            for other in configurations
            if other is not one and any(_meet(selector, pool or share.selector) for share in other.shares)
        ]
        labels = f"{LABEL}={one.name}" + (f" {MIG_LABEL}={one.mig}" if one.mig else "")
        if selector and not also:
            nodes = f"-l {shlex.quote(_written(selector))}"
        elif selector:
            # By the selector alone the command of one would undo that of the other.
            yield f"some of the nodes with {_written(selector)} ({' and '.join(also)}: others of them)"
            nodes = "NODE"
        else:
            nodes = "NODE"
        yield f"  kubectl label nodes {nodes} --overwrite {labels}"


def _meet(one: tuple[tuple[str, str], ...], other: tuple[tuple[str, str], ...]) -> bool:
    """Whether a node may have the labels of both, where both name some."""
    labels = dict(one)
    return bool(one and other) and all(labels.get(key, value) == value for key, value in other)


def _written(selector: tuple[tuple[str, str], ...]) -> str:
    """As nodes have it before they share their GPUs."""
    before = {key: value.removesuffix(SAME_NAME) if key == PRODUCT else value for key, value in selector}
    return ",".join(f"{key}={value}" for key, value in before.items())


def _printable(text: str) -> str:
    """On one line: names of components and files come from elsewhere, and would else end the comment."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
