"""A multi-layer perceptron, 64 x 4096 x 4096 x 4096 x 4096 x 4096 x 8, in ONNX Runtime on one thread.

268 MB of weights go through the processor for each call, whatever the batch: waiting for memory is what a batch saves.
The weights are drawn from a seed, so that no file of that size is moved.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime

WIDTH, LAYERS, FEATURES, CLASSES = 4096, 4, 64, 8


def layers() -> list[np.ndarray]:
    """Give the weights; each layer keeps the size of what passes through it."""
    draw = np.random.default_rng(0)
    sizes = [FEATURES, *([WIDTH] * (LAYERS + 1)), CLASSES]
    return [
        draw.standard_normal((rows, columns), dtype=np.float32) * np.float32((2 / rows) ** 0.5)
        for rows, columns in itertools.pairwise(sizes)
    ]


class Net:
    """The model."""

    INPUTS: ClassVar[list[str]] = ["x"]

    def __init__(self, folder: Path) -> None:  # noqa: ARG002  # as for the other model
        weights = {f"w{i}": weight for i, weight in enumerate(layers())}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
        options.add_external_initializers(list(weights), values)
        graph = onnx({name: weight.shape for name, weight in weights.items()})
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give the classes' scores for each row."""
        (scores,) = self.session.run(None, inputs)
        return {"scores": scores}


# -- ONNX, as its protobuf schema (onnx.proto3) numbers the fields: the package that writes it is not in a model server


def number(field: int, value: int) -> bytes:
    """Give an integer field."""
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes | str) -> bytes:
    """Give a field of bytes: a string, or a message inside."""
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """Give an integer in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def onnx(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """Give a model of ReLU layers, the last one without ReLU.

    Args:
        shapes: of the weights, which are not in it: the session is given them.
    """
    outside = number(14, 1) + block(13, block(1, "location") + block(2, "outside"))
    graph, last = [block(2, "matrix")], "x"
    for i, (name, shape) in enumerate(shapes.items()):
        sizes = b"".join(number(1, size) for size in shape)
        graph.append(block(5, sizes + number(2, 1) + block(8, name) + outside))
        out = "scores" if i == len(shapes) - 1 else f"sum{i}"
        graph.append(block(1, block(1, last) + block(1, name) + block(2, out) + block(4, "MatMul")))
        last = out
        if out != "scores":
            graph.append(block(1, block(1, out) + block(2, f"relu{i}") + block(4, "Relu")))
            last = f"relu{i}"
    ends = list(shapes.values())
    for field, name, size in ((11, "x", ends[0][0]), (12, "scores", ends[-1][1])):
        rows = block(1, block(2, "n")) + block(1, number(1, size))
        graph.append(block(field, block(1, name) + block(2, block(1, number(1, 1) + block(2, rows)))))
    return number(1, 8) + block(7, b"".join(graph)) + block(8, block(1, "") + number(2, 17))
