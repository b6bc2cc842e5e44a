"""Tells whether a sentence praises or complains: Triton's python backend loads this as the model ``sentiment``.

TEXT goes in, LABEL and SCORE come out. A sentence is cut into tokens, the model ``sentiment-encoder`` beside this one
gives a vector for each token, the mean of the vectors is the sentence's, and a logistic regression judges that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

#: This version's folder: the tokenizer, its library and the classifier lie beside this file.
HERE = Path(__file__).resolve().parent
ENCODER = "sentiment-encoder"
#: Tokens the encoder was trained with; what is longer loses its end.
LONGEST = 128


class Sentiment:
    """All but the encoder."""

    def __init__(self, folder: Path) -> None:
        """Read what lies in ``folder``: lib/tokenizers, tokenizer.json and classifier.json."""
        sys.path.insert(0, str(folder / "lib"))
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(LONGEST)
        # As long as the longest sentence of the batch: the file asks for 128 always, which takes several times longer.
        self._tokenizer.enable_padding()
        classifier = json.loads((folder / "classifier.json").read_text())
        self._weights = np.array(classifier["weights"], dtype=np.float32)
        self._bias = np.float32(classifier["bias"])

    def tokens(self, texts: Sequence[str]) -> dict[str, Any]:
        """Give the encoder's inputs: integers, one row a text."""
        found = self._tokenizer.encode_batch(list(texts))
        return {
            "input_ids": np.array([entry.ids for entry in found], dtype=np.int64),
            "attention_mask": np.array([entry.attention_mask for entry in found], dtype=np.int64),
            "token_type_ids": np.array([entry.type_ids for entry in found], dtype=np.int64),
        }

    def vectors(self, hidden: Any, attention_mask: Any) -> Any:
        """Give one vector of length 1 a text: the mean over its tokens, padding left out."""
        mask = attention_mask[:, :, np.newaxis].astype(np.float32)
        means = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def positive(self, vectors: Any) -> Any:
        """Give the probability that a text is positive, one a vector."""
        return 1 / (1 + np.exp(-(vectors @ self._weights + self._bias)))


def answer(positive: Any) -> tuple[Any, Any]:
    """Give LABEL and SCORE, the label's own probability: from 0.5, a guess, to 1."""
    labels = np.where(positive >= 0.5, "positive", "negative").astype(object)
    scores = np.maximum(positive, 1 - positive).astype(np.float32)
    return labels.reshape(-1, 1), scores.reshape(-1, 1)


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - Triton gives the configuration
        """Load once, before the model is ready."""
        self._sentiment = Sentiment(HERE)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests Triton has joined; the encoder sees them as one batch."""
        given = [pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1) for request in requests]
        texts = [text.decode(errors="replace") for rows in given for text in rows]
        inputs = self._sentiment.tokens(texts)
        encoded = pb_utils.InferenceRequest(
            model_name=ENCODER,
            requested_output_names=["last_hidden_state"],
            inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
        ).exec()
        if encoded.has_error():
            error = pb_utils.TritonError(f"{ENCODER}: {encoded.error().message()}")
            return [pb_utils.InferenceResponse(error=error) for _ in requests]
        hidden = pb_utils.get_output_tensor_by_name(encoded, "last_hidden_state").as_numpy()
        vectors = self._sentiment.vectors(hidden, inputs["attention_mask"])
        labels, scores = answer(self._sentiment.positive(vectors))
        responses, start = [], 0
        for rows in given:
            end = start + len(rows)
            tensors = [pb_utils.Tensor("LABEL", labels[start:end]), pb_utils.Tensor("SCORE", scores[start:end])]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            start = end
        return responses
