"""An explainer: SHAP values of the model's margin, beside what the deployed predictor answers.

The folder that `artifactsUri` brings to /mnt/models holds

- ``model.joblib``: the model itself, linear or made of trees: what SHAP explains exactly, in the space of the margin
  (log-odds); with another model the server does not start;
- ``background.npy``: rows that stand for an input of which nothing is known;
- ``vectorizer.joblib``, if the requests hold texts: what turns them into rows, the same as the transformer's.

KServe routes ``:explain`` past the transformer to here, in V1 alone. For each row the values and the base value sum to
the margin.
"""

from __future__ import annotations

import argparse
import asyncio
import uuid
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import shap
from kserve import InferInput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.errors import InvalidInput


class ShapExplainer(Model):  # type: ignore[misc]  # the SDK is not installed where this is checked
    """Explains a model that it holds a copy of."""

    def __init__(self, name: str, artifacts: Path, tensor: str, protocol: str) -> None:
        super().__init__(name)
        self.artifacts, self.tensor, self.protocol = artifacts, tensor, protocol

    def load(self) -> bool:
        """Read the artifacts and explain one row: SHAP compiles on the way, and no user waits for that."""
        model = joblib.load(self.artifacts / "model.joblib")
        background = np.load(self.artifacts / "background.npy")
        words = self.artifacts / "vectorizer.joblib"
        self.vectorizer = joblib.load(words) if words.exists() else None
        # All rows: SHAP takes a hundred of them at random by itself, and two explainers would differ.
        masker = shap.maskers.Independent(background, max_samples=len(background))
        self.explainer = shap.Explainer(model, masker)
        self.explainer(background[:1])
        self.ready = True
        return True

    def rows(self, payload: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Give the rows of a request, made from texts where there is a vectorizer.

        Raises:
            InvalidInput: there are none, or something else.
        """
        instances = payload.get("instances") or [] if isinstance(payload, dict) else []
        texts = bool(instances) and all(isinstance(one, str) for one in instances)
        if not instances or texts != (self.vectorizer is not None):
            raise InvalidInput(f"give instances: a list of {'rows' if self.vectorizer is None else 'texts'}")
        found = self.vectorizer.transform(instances) if self.vectorizer is not None else instances
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float32)

    async def explain(self, payload: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer :explain."""
        rows = self.rows(payload)
        # In a thread: other requests, and the kubelet's question whether we are ready, don't wait for it.
        explanation, predictions = await asyncio.gather(
            asyncio.to_thread(self.explainer, rows), self.predictions(rows, headers)
        )
        answer = {
            "predictions": predictions,
            "values": explanation.values.tolist(),
            "base_values": np.broadcast_to(
                explanation.base_values, (len(rows), *explanation.values.shape[2:])
            ).tolist(),
        }
        if self.vectorizer is not None and hasattr(self.vectorizer, "get_feature_names_out"):
            answer["features"] = self.vectorizer.get_feature_names_out().tolist()
        return answer

    async def predictions(self, rows: np.ndarray[Any, Any], headers: dict[str, str] | None) -> Any:
        """Ask the predictor: what is explained is what it answers."""
        if self.protocol == "v1":
            return (await self.predict({"instances": rows.tolist()}, headers))["predictions"]
        tensor = InferInput(self.tensor, list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=False)
        # KServe's servers answer a V2 request that has no id with an error.
        answer: InferResponse = await self.predict(
            InferRequest(self.name, [tensor], request_id=str(uuid.uuid4())), headers
        )
        return answer.outputs[0].as_numpy().tolist()


def main() -> None:
    """Serve; KServe gives --model_name, --predictor_host and --http_port."""
    parser = argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("--artifacts", type=Path, default=Path("/mnt/models"), help="folder with the files")
    parser.add_argument("--input_name", default="input-0", help="the predictor's tensor, with predictor protocol v2")
    options, _ = parser.parse_known_args()
    model = ShapExplainer(options.model_name, options.artifacts, options.input_name, options.predictor_protocol)
    model.load()
    ModelServer().start([model])


if __name__ == "__main__":
    main()
