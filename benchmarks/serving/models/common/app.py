"""Flask's side: the same `Net`, the same V2 body, as people deploy it (gunicorn before it)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from flask import Flask, Response, jsonify, request

HERE = Path(os.environ["MODEL_DIR"])
sys.path.insert(0, str(HERE))

from net import Net  # noqa: E402  # found by the line above

TYPES = {"FP32": np.float32, "INT64": np.int64}
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}

app = Flask(__name__)
net = Net(HERE)


@app.get("/v2/health/ready")
def ready() -> str:
    """Say that the model is loaded: it is before the first request is taken."""
    return ""


@app.post("/v2/models/<name>/infer")
def infer(name: str) -> Response:
    """Answer one request."""
    inputs = {
        tensor["name"]: np.array(tensor["data"], TYPES[tensor["datatype"]]).reshape(tensor["shape"])
        for tensor in request.get_json()["inputs"]
    }
    outputs = [
        {"name": key, "datatype": NAMES[value.dtype], "shape": value.shape, "data": value.ravel().tolist()}
        for key, value in net.predict(inputs).items()
    ]
    return jsonify({"model_name": name, "model_version": "1", "outputs": outputs})
