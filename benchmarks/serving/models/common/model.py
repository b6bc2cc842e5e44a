"""Triton's side of a model: the waiting requests become one batch for the `Net` in the file beside this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # of Triton's Python backend, there and nowhere else

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from net import Net  # noqa: E402  # found by the line above


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, Any]) -> None:  # noqa: ARG002  # Triton gives them
        """Load the model."""
        self.net = Net(HERE)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests of a batch with one call of the model."""
        given = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in Net.INPUTS}
            for request in requests
        ]
        joined = {name: np.concatenate([one[name] for one in given]) for name in Net.INPUTS}
        answers = self.net.predict(joined)
        ends = np.cumsum([len(one[Net.INPUTS[0]]) for one in given])[:-1]
        parts = {name: np.split(answer, ends) for name, answer in answers.items()}
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, part[i]) for name, part in parts.items()])
            for i in range(len(requests))
        ]
