"""`velagen demo rollout` on the embedded lab: the example's promotion, and a bad version that goes back."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from velagen.lab import Lab
from velagen.lab.vela import vela
from velagen.rollout.demo import NAMESPACE, Embedded, demo

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.seconds(110)
def test_a_promotion_and_a_rollback_are_shown_and_told_from_real_traffic(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")
    stage = Embedded(lab)
    said = io.StringIO()
    try:
        with stage.numbers():
            demo(ROOT / "examples" / "rollout.yaml", stage, Console(file=said, width=200))
    finally:
        lab.api.delete("core.oam.dev/v1beta1", "Application", "sentiment-rollout", NAMESPACE)
    text = said.getvalue()
    assert "no pod serves here" in text
    assert "the numbers that the checks read are the demo's own" in text
    good, bad = text.split("version 2, a good one")[1].split("version 3, whose answers are errors")[:2]
    assert good.index("10 % to sentiment-canary") < good.index("50 % to") < good.index("100 % to")
    assert "success ratio 0.93 < 0.99 in 2 checks at 10 %" in bad
    assert "velagen rollout report sentiment-rollout" in text
