"""What is wrong is refused by the real API server in the words of the definitions, and nothing is created."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.conftest import Cluster

from velagen.lab import Lab
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.both]

ROOT = Path(__file__).parents[2]
BAD_INPUT = sorted((ROOT / "tests" / "bad-input").glob("*.yaml"))
#: KubeVela looks at traits one by one, so some fights between two are seen by `velagen check` alone.
SEEN_BY_KUBEVELA = [path for path in BAD_INPUT if "# seen by velagen check only" not in path.read_text()]
#: The webhook of 1.10, unlike a dry run, compares the names of what traits write before it renders the second one.
WEBHOOK_SAYS = {
    "availability-twice": 'auxiliary "predictor-budget" already exits',
    "autoscale-keda-twice": 'auxiliary "scaledObject" already exits',
    "autoscale-part-twice": 'auxiliary "transformerScaledObject" already exits',
    "canary-twice": 'auxiliary "newVersion" already exits',
    "slo-twice": 'auxiliary "slo" already exits',
}


@pytest.fixture(scope="module", autouse=True)
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")


def uses_policy_of_ours(path: Path) -> bool:
    """A policy is rendered by the controller, not by the webhook: its refusal is in the application's status."""
    (app,) = (document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document)
    return any(policy["type"] == "model-scope" for policy in app["spec"].get("policies", ()))


@pytest.mark.parametrize("file", SEEN_BY_KUBEVELA, ids=lambda path: path.stem)
def test_it_is_refused_with_its_sentence_and_creates_nothing(cluster: Cluster, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    # Where KubeVela answers before a definition of ours is asked, the file says what it answers.
    says, up_says = (re.search(rf"^# {key}: (.+)$", text, re.MULTILINE) for key in ("says", "up says"))
    sentence = (up_says or says)[1]  # type: ignore[index]  # every file says it: tests/unit/test_bad_input.py
    if cluster.lab.wanted().kubevela == "1.10.9":
        sentence = WEBHOOK_SAYS.get(file.stem, sentence)
    (app,) = (document for document in yaml.safe_load_all(text) if document)
    name = app["metadata"]["name"]
    # The test's namespace takes the place of the one the file speaks of.
    placed = app["metadata"].get("namespace", "default")
    done = cluster.up(text.replace(f"namespace: {placed}", f"namespace: {cluster.namespace}"), check=False)
    said = done.stdout + done.stderr
    if uses_policy_of_ours(file):
        cluster.wait_for(lambda: sentence in str((cluster.application(name) or {}).get("status")), f"{sentence!r}")
    else:
        assert done.returncode != 0, said
        assert sentence in said
        assert cluster.application(name) is None
    assert cluster.list("serving.kserve.io/v1beta1", "InferenceService") == []
