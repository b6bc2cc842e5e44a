"""The delivery of a model on a real cluster: from an alias of MLflow's registry to a version that is promoted, or not.

GitHub's command alone is a stand-in: registry, script, package check, pods, requests, gateway and Prometheus are real.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.kind import SMALL, Client, Load, down, steady
from benchmarks.rollout.live import BODY, MODEL, PATH, QUICK, answer_of, put_version
from tests.e2e.registry import registry
from tests.e2e.team import Team, with_workflow

from velagen.lab.kind import KindLab

APP = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {{name: shop}}
spec:
  components:
    - name: shop
      type: kfserving
      properties:
        runtime: triton
        modelName: {model}
        modelUri: {uri}  # the one line that changes
        minReplicas: 1
        resources: {resources}
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.seconds(300)
def test_a_moved_alias_becomes_the_version_that_serves_or_goes_back(
    kind_lab: KindLab, space: str, tmp_path: Path
) -> None:
    kind_lab.load(["tritonserver"])
    versions = [
        put_version(kind_lab, space, 1),
        put_version(kind_lab, space, 2),
        put_version(kind_lab, space, 3, "error"),
    ]
    client = Client(kind_lab, space, "shop")
    client.host = f"shop-{space}.example.org"
    step = {"component": "shop", "route": {"hosts": [client.host]}, **QUICK, "steps": [50], "deadline": 400}
    tidy = {"name": "tidy", "type": "rollout-model", "if": "always", "properties": {"component": "shop", "tidy": True}}
    app = with_workflow(
        APP.format(model=MODEL, uri=versions[0], resources=json.dumps(SMALL)),
        {"name": "rollout", "type": "rollout-model", "properties": step},
        tidy,
    )
    store = {
        "AWS_ENDPOINT_URL": kind_lab.url("models"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }
    with registry(tmp_path) as mlflow:
        mlflow.register("shop", *versions)
        team = Team(tmp_path, mlflow, app, **store)
        team.deploy(space, kind_lab.kubeconfig, timeout=500)

        def deliver(version: int) -> tuple[subprocess.CompletedProcess[str], Load, str]:
            mlflow.move("shop", "champion", version)
            said = team.propose("models:/shop@champion").stderr
            team.approve()
            with steady(client, PATH, BODY, 10, 600) as load:
                done = team.deploy(space, kind_lab.kubeconfig, timeout=500, check=False)
            answered = Counter(answer_of(one.text) for one in load.seen if one.status == 200)
            print(f"version {version}: status {done.returncode}, {answered}, {len(load.failed)} failed\n{said}")
            return done, load, said

        done, load, said = deliver(2)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not load.failed
        assert answer_of(client.send(PATH, BODY).text) == 2
        # The package was fetched and looked into before anybody was asked.
        assert f"{versions[1]} will serve" in said

        done, load, _ = deliver(3)
        assert done.returncode == 1, done.stdout
        assert "rolled back: success ratio" in done.stderr
        # It had half of the requests at most until two checks had failed, and none afterwards.
        assert load.failed
        assert {answer_of(client.send(PATH, BODY).text) for _ in range(20)} == {2}
    down(kind_lab, space, "shop")
