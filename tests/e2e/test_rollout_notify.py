"""examples/rollout-notify.yaml: KubeVela's own step tells Slack how a rollout ended, here a server on loopback."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Cluster
from tests.e2e.loopback import Quiet, listening
from tests.e2e.test_rollout import BAD, QUICK, Metrics, addon, metrics

from velagen.lab import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(90)]
__all__ = ["addon", "metrics"]

ROOT = Path(__file__).parents[2]


# Not on KubeVela 1.10: its own notification names http.#Do, which its engine has not, and sends nothing.
def test_slack_is_told_how_it_ended(cluster: Cluster, metrics: Metrics) -> None:
    told: list[dict[str, Any]] = []

    class Slack(Quiet):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    app = yaml.safe_load((ROOT / "examples/rollout-notify.yaml").read_text(encoding="utf-8"))
    app["spec"]["workflow"]["steps"][0]["properties"] |= {**QUICK, "prometheus": metrics.url}
    with listening(Slack) as url:
        data = {"url": base64.b64encode(url.encode()).decode()}
        secret = {"name": "slack", "namespace": cluster.namespace}
        cluster.api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "data": data})
        cluster.up(app)
        wait_until(lambda: told, what="the first message", timeout=90, every=0.5)
        metrics.answer = BAD
        app["spec"]["components"][0]["properties"]["modelUri"] = "s3://models/sentiment/2"
        cluster.up(app)
        wait_until(lambda: len(told) > 1, what="the second message", timeout=120, every=0.5)
    assert told[0]["text"] == "sentiment-told is deployed"
    assert "rolled back: success ratio 0.93 < 0.99 in 2 checks at 20 %" in told[1]["text"]
    assert len(told) == 2, "each is told once"
