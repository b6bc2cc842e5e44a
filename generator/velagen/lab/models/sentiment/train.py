"""Trains the classifier of the model ``sentiment`` on sentences.txt and writes classifier.json beside it.

    python train.py REPOSITORY [--golden FILE]

REPOSITORY is a folder that velagen.lab.models.sentiment has built: encoder and tokenizer come from it, and the code
around them is that of its model.py, so that what is learnt is what is served. Needs what requirements.txt lists, which
velagen itself does not: a virtual environment of its own is the place to run it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
#: Of these the one that is right most often on pairs left out wins.
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 10
#: Asked by the tests of the server; none of them is in sentences.txt.
GOLDEN = (
    "a fine film",
    "The support team fixed my problem within an hour.",
    "Two weeks in and the hinge is already broken.",
    "Not a single scene I would want to miss.",
    "I asked for my money back.",
    "The noodles were cold and nobody seemed to care.",
    "Light, quiet and quick: I am delighted.",
    "Ein schöner Abend! 🎬",
    "",
    "word " * 300,
)


class Pipeline:
    """The model without Triton: model.py of a repository, and its encoder in onnxruntime."""

    def __init__(self, repository: Path) -> None:
        """Load both.

        Args:
            repository: see the top of this file.
        """
        import onnxruntime

        version = repository / "sentiment" / "1"
        # model.py imports what only Triton has; here nothing of it is called.
        sys.modules.setdefault("triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
        spec = importlib.util.spec_from_file_location("sentiment_model", version / "model.py")
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.sentiment = self.module.Sentiment(version)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(repository / "sentiment-encoder" / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def vectors(self, texts: Sequence[str], batch: int = 8) -> Any:
        """Give a vector for each text."""
        found = []
        for start in range(0, len(texts), batch):
            inputs = self.sentiment.tokens(texts[start : start + batch])
            (hidden,) = self.session.run(["last_hidden_state"], inputs)
            found.append(self.sentiment.vectors(hidden, inputs["attention_mask"]))
        return np.concatenate(found)

    def positive(self, texts: Sequence[str]) -> Any:
        """Give the probability that a text is positive, for each, by the repository's classifier."""
        return self.sentiment.positive(self.vectors(texts))


def sentences(path: Path = HERE / "sentences.txt") -> tuple[list[str], list[int], list[int]]:
    """Give the texts, whether each is positive (1 or 0), and the number of the pair each belongs to."""
    texts, labels = [], []
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            texts.append(line[2:])
            labels.append({"+ ": 1, "- ": 0}[line[:2]])
    return texts, labels, [index // 2 for index in range(len(texts))]


def train(vectors: Any, labels: Sequence[int], pairs: Sequence[int]) -> tuple[dict[str, Any], str]:
    """Give the classifier as data, and a sentence on how right it was on pairs it had not seen."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score

    def scores(strength: float) -> Any:
        return cross_val_score(
            LogisticRegression(C=strength, max_iter=2000), vectors, labels, groups=pairs, cv=GroupKFold(FOLDS)
        )

    right = {strength: float(scores(strength).mean()) for strength in STRENGTHS}
    best = max(STRENGTHS, key=lambda strength: right[strength])
    fitted = LogisticRegression(C=best, max_iter=2000).fit(vectors, labels)
    # Six digits: the last ones differ between releases and processors.
    weights = [float(f"{value:.6g}") for value in fitted.coef_[0]]
    said = ", ".join(f"C={strength:g} {right[strength]:.3f}" for strength in STRENGTHS)
    return {"bias": float(f"{fitted.intercept_[0]:.6g}"), "weights": weights}, f"pairs left out: {said}; taken {best:g}"


def main() -> None:
    """Train, and write what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--golden", type=Path, help="write the answers to a few other sentences there, for tests")
    parser.add_argument("--out", type=Path, default=HERE / "classifier.json")
    options = parser.parse_args()
    pipeline = Pipeline(options.repository)
    texts, labels, pairs = sentences()
    classifier, said = train(pipeline.vectors(texts), labels, pairs)
    options.out.write_text(json.dumps(classifier) + "\n")
    print(f"{len(texts)} sentences; {said}")
    if options.golden:
        positive = 1 / (1 + np.exp(-(pipeline.vectors(GOLDEN, batch=1) @ classifier["weights"] + classifier["bias"])))
        answers = [
            {"text": text, "positive": round(float(value), 5)} for text, value in zip(GOLDEN, positive, strict=True)
        ]
        options.golden.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
