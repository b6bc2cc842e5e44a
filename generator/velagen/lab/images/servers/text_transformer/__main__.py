"""A transformer: texts in, tensors to the predictor, its scores back as labels.

Copy it and change `vectorize` and `label`: the rest is what every transformer for KServe's Python SDK needs. The folder
that `artifactsUri` brings to /mnt/models holds

- ``vectorizer.joblib``: anything with scikit-learn's ``transform``, such as a fitted TfidfVectorizer;
- ``labels.json``: a list; the label of class 0 comes first.

It answers V1 and V2 whatever the predictor speaks (``--predictor_protocol v1`` or ``v2``).
"""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.errors import InvalidInput
from kserve.model import InferenceVerb


class TextTransformer(Model):  # type: ignore[misc]  # the SDK is not installed where this is checked
    """Texts to tensors, scores to labels."""

    def __init__(self, name: str, artifacts: Path, tensor: str, protocol: str) -> None:
        super().__init__(name)
        self.artifacts, self.tensor, self.protocol = artifacts, tensor, protocol

    def load(self) -> bool:
        """Read the artifacts; the pod is not ready before."""
        self.vectorizer = joblib.load(self.artifacts / "vectorizer.joblib")
        self.labels = json.loads((self.artifacts / "labels.json").read_text())
        self.ready = True
        return True

    def vectorize(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """Give a row of numbers for each text."""
        rows = self.vectorizer.transform(texts)
        return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float32)

    def label(self, scores: np.ndarray[Any, Any]) -> list[str]:
        """Give the label of the best score in each row; a single column holds the class itself."""
        scores = scores.reshape(len(scores), -1)
        best = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0].astype(int)
        return [self.labels[number] for number in best]

    async def __call__(
        self,
        body: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        verb: InferenceVerb = InferenceVerb.PREDICT,
    ) -> Any:
        """Answer in the protocol that was asked in; the steps between are those of every KServe model."""
        found, response_headers = await super().__call__(body, headers, verb)
        if not isinstance(body, InferRequest):
            return {"predictions": found}, response_headers
        output = InferOutput("label", [len(found)], "BYTES", data=found)
        return InferResponse(body.id or str(uuid.uuid4()), self.name, [output]), response_headers

    async def preprocess(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002  # KServe gives it
    ) -> dict[str, Any] | InferRequest:
        """Turn texts into what the predictor takes."""
        rows = self.vectorize(texts_of(payload))
        if self.protocol == "v1":
            return {"instances": rows.tolist()}
        tensor = InferInput(self.tensor, list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=False)
        # KServe's servers answer a V2 request that has no id with an error.
        return InferRequest(self.name, [tensor], request_id=str(uuid.uuid4()))

    async def postprocess(
        self,
        result: dict[str, Any] | InferResponse,
        headers: dict[str, str] | None = None,  # noqa: ARG002  # KServe gives it
        response_headers: dict[str, str] | None = None,  # noqa: ARG002  # so does it this
    ) -> list[str]:
        """Turn what the predictor says into labels."""
        if isinstance(result, InferResponse):
            return self.label(result.outputs[0].as_numpy())
        return self.label(np.asarray(result["predictions"]))


def texts_of(payload: dict[str, Any] | InferRequest) -> list[str]:
    """Give the texts of a request in V1 or V2.

    Raises:
        InvalidInput: there are none, or something else than texts.
    """
    if isinstance(payload, InferRequest):
        words = [word for tensor in payload.inputs for word in tensor.as_numpy().ravel()]
        texts = [word.decode() if isinstance(word, bytes) else word for word in words]
    else:
        texts = payload.get("instances", []) if isinstance(payload, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("give texts: a list of strings in instances (V1), or a BYTES tensor (V2)")
    return texts


def main() -> None:
    """Serve; KServe gives --model_name, --predictor_host and --http_port."""
    parser = argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("--artifacts", type=Path, default=Path("/mnt/models"), help="folder with the two files")
    parser.add_argument("--input_name", default="input-0", help="the predictor's tensor, with predictor protocol v2")
    options, _ = parser.parse_known_args()
    model = TextTransformer(options.model_name, options.artifacts, options.input_name, options.predictor_protocol)
    model.load()
    ModelServer().start([model])


if __name__ == "__main__":
    main()
