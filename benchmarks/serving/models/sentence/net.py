"""MiniLM-L6, a sentence encoder of six layers with weights of eight bits, in ONNX Runtime on one thread.

It is given tokens, not text, so that the model is measured and not a tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime


class Net:
    """The model."""

    INPUTS: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = {entry.name for entry in self.session.get_inputs()}

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give each sentence's vector: the mean over its tokens, of length one."""
        given = dict(inputs)
        if "token_type_ids" in self.names:
            given["token_type_ids"] = np.zeros_like(inputs["input_ids"])
        states = self.session.run(None, given)[0]
        mask = inputs["attention_mask"][:, :, None].astype(np.float32)
        mean = (states * mask).sum(axis=1) / mask.sum(axis=1)
        return {"embedding": mean / np.linalg.norm(mean, axis=1, keepdims=True)}
