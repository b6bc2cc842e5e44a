"""The committed classifier is what its script learns from the committed sentences, and answers as the fixture says."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest

from velagen.lab.models import sentiment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_training_again_gives_the_committed_classifier(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Is there an index at all? Asked with a package that we don't pin: a pin that can't be installed fails the test.
    asked = subprocess.run(
        [*pip, "download", "--no-deps", "--dest", tmp_path, "wheel"], capture_output=True, text=True, check=False
    )
    if asked.returncode != 0:
        pytest.skip(f"no package index answers: {asked.stderr[-500:]}")
    repository = sentiment.repository()
    wanted = ["--requirement", str(sentiment.HERE / "requirements.txt")]
    done = subprocess.run([*pip, "install", *wanted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    classifier, golden = tmp_path / "classifier.json", tmp_path / "golden.json"
    script: list[str | Path] = [sentiment.HERE / "train.py", repository, "--out", classifier, "--golden", golden]
    subprocess.run([python, *script], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found, committed = (json.loads(path.read_text()) for path in (classifier, sentiment.HERE / "classifier.json"))
    assert found["bias"] == pytest.approx(committed["bias"], abs=1e-3)
    assert found["weights"] == pytest.approx(committed["weights"], abs=1e-3)
    # Weights that mean something: two thousandths of the largest would not be noise.
    assert max(map(abs, committed["weights"])) > 1
    fixture = json.loads((ROOT / "tests/e2e/fixtures/sentiment.json").read_text())
    assert [entry["text"] for entry in json.loads(golden.read_text())] == [entry["text"] for entry in fixture]
    for one, other in zip(json.loads(golden.read_text()), fixture, strict=True):
        assert one["positive"] == pytest.approx(other["positive"], abs=1e-3), other["text"]
