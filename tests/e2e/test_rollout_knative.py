"""The step rollout-model where KServe splits between two of Knative's revisions, on the real API server and vela-core.

There is no Knative here. What KServe and Knative say of a model is played by a class below, again and again, since
KServe's controller writes what it knows in between; after KServe's pkg/controller/v1beta1/inferenceservice/
reconcilers/knative/ksvc_reconciler.go and pkg/apis/serving/v1beta1/inference_service_status.go. No request is served.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import Cluster
from tests.e2e.test_rollout import BAD, ROUTE, Metrics, Rollout, addon, metrics  # noqa: F401  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(120)]

MODEL = ("serving.kserve.io/v1beta1", "InferenceService", "m")


class Knative:
    """KServe and Knative for the model m: a revision for each change, and the shares that its object asks for."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        #: What each revision serves, by their order; which are ready.
        self.made: list[str] = []
        self.ready: list[str] = []
        self.rolled_out = ""
        #: All shares that there were: what is served -> per cent.
        self.shares: list[dict[str, int]] = []

    def name(self, uri_at: int) -> str:
        return f"m-predictor-{uri_at + 1:05}"

    def play(self) -> None:
        """What both would do by now."""
        model = self.cluster.get(*MODEL)
        if model is None:
            return
        predictor = model["spec"]["predictor"]
        uri = predictor["model"]["storageUri"]
        if not self.made or self.made[-1] != uri:
            self.made.append(uri)  # not ready in this round
        elif self.name(len(self.made) - 1) not in self.ready:
            self.ready.append(self.name(len(self.made) - 1))
        latest = self.ready[-1] if self.ready else ""
        percent = predictor.get("canaryTrafficPercent")
        if percent is None or not self.rolled_out:
            percent = 100
        traffic: list[dict[str, Any]] = [{"latestRevision": True, "revisionName": latest, "percent": percent}]
        if percent < 100:
            traffic.append({"revisionName": self.rolled_out, "percent": 100 - percent, "tag": "prev"})
        elif latest:
            self.rolled_out = latest
        self._tell(latest, traffic if latest else [])
        share: dict[str, int] = {}
        for one in traffic if latest else []:
            serves = self.made[int(str(one["revisionName"])[-5:]) - 1]
            share[serves] = share.get(serves, 0) + int(one["percent"])
        share = {serves: percent for serves, percent in share.items() if percent}
        if share and (not self.shares or self.shares[-1] != share):
            self.shares.append(share)

    def _tell(self, latest: str, traffic: list[dict[str, Any]]) -> None:
        newest = self.name(len(self.made) - 1)
        ready = "True" if latest == newest else "False"
        found = {
            "latestCreatedRevision": newest,
            "latestReadyRevision": latest,
            "latestRolledoutRevision": self.rolled_out,
            "traffic": traffic,
        }
        names = ("PredictorReady", "PredictorConfigurationReady", "IngressReady", "Ready")
        status = {
            "conditions": [{"type": one, "status": ready, "lastTransitionTime": None} for one in names],
            "components": {"predictor": {key: value for key, value in found.items() if value}},
            "modelStatus": {"transitionStatus": "UpToDate", "states": {}, "copies": {"failedCopies": 0}},
        }
        self.cluster.api.request(
            "PATCH",
            self.cluster.api.path(*MODEL, self.cluster.namespace) + "/status",
            json={"status": status},
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def until(self, done: Callable[[], Any], what: str, timeout: float = 300) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, f"not {what}: {self.made} {self.ready} {self.shares}"
            self.play()
            time.sleep(0.3)


class OfKnative(Rollout):
    """As a user writes it: the mode of the component says how it is split.

    KServe's controller writes what it sees over what is played, so a version may take a while to look ready.
    """

    def __init__(self, cluster: Cluster, metrics: Metrics, **settings: Any) -> None:  # noqa: F811  # a fixture's name
        super().__init__(cluster, metrics, **{"deadline": 180, **settings})
        if "route" not in settings:
            del self.settings["route"]
        self.knative = Knative(cluster)

    def up(self, version: int, *, traits: tuple[str, ...] = (), **properties: Any) -> None:
        super().up(version, traits=traits, **{"deploymentMode": "knative", **properties})

    def wait(self, phase: str, revision: str, timeout: float = 400) -> None:
        try:
            self.knative.until(self.ended(phase, revision=revision), f"{revision} {phase}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.state} {self.workflow}") from error


@pytest.fixture
def rollout(cluster: Cluster, metrics: Metrics) -> OfKnative:  # noqa: F811  # a fixture's name
    """Version 1 is stable, by the step's first deployment."""
    found = OfKnative(cluster, metrics)
    found.up(1)
    found.wait("done", "app-v1")
    assert found.knative.shares == [{"s3://models/m/1": 100}]
    return found


V1, V2, V3 = (f"s3://models/m/{number}" for number in (1, 2, 3))


@pytest.mark.both
def test_a_good_version_is_promoted(rollout: OfKnative, cluster: Cluster) -> None:
    rollout.up(2)
    rollout.wait("done", "app-v2")
    assert rollout.knative.shares[1:] == [{V2: 20, V1: 80}, {V2: 50, V1: 50}, {V2: 100}]
    assert rollout.knative.rolled_out == "m-predictor-00002"
    # One object, and no route of ours.
    assert [one["metadata"]["name"] for one in cluster.list(*MODEL[:2])] == ["m"]
    assert cluster.get(*ROUTE) is None
    # Which revisions are asked for is tests/unit/test_rollout_queries.py's: KServe's own writes come between here.
    assert "revision:requests:increase5m" in rollout.metrics.asked[0]
    told = [(one["row"], one["weight"]) for one in rollout.history if one["revision"] == "app-v2"]
    assert told[:4] == [("begun", 0), ("ready", 0), ("warm", 20), ("step passed", 50)]


def test_a_bad_version_goes_back(rollout: OfKnative, cluster: Cluster) -> None:
    rollout.metrics.answer = BAD
    rollout.up(2)
    rollout.wait("failed", "app-v2")
    # The version of before is a new revision, and nobody was sent to the bad one until that was ready.
    assert rollout.knative.shares[1:] == [{V2: 20, V1: 80}, {V1: 100}]
    assert rollout.knative.made == [V1, V2, V1]
    assert rollout.knative.rolled_out == "m-predictor-00003"
    assert "success ratio 0.93 < 0.99 in 2 checks at 20 %" in rollout.message
    assert rollout.served() == V1
    # The next one starts from it.
    rollout.metrics.answer = {"requests": "500", "success ratio": "1", "beside stable": "1.02"}
    rollout.up(3)
    rollout.wait("done", "app-v3")
    assert rollout.served() == V3
    assert rollout.knative.rolled_out == "m-predictor-00004"


def test_version_1_again_in_mid_rollout(rollout: OfKnative) -> None:
    rollout.metrics.answer = {}
    rollout.up(2)
    rollout.knative.until(lambda: rollout.knative.shares[-1].get(V2) == 20, "20 %")
    rollout.up(1)
    # The same text is the same revision of the application.
    rollout.wait("done", "app-v1")
    assert max(share.get(V2, 0) for share in rollout.knative.shares) == 20
    assert rollout.served() == V1
    assert rollout.knative.rolled_out == "m-predictor-00003"


def test_terminate_is_tidied_up(cluster: Cluster, metrics: Metrics) -> None:  # noqa: F811  # a fixture's name
    rollout = OfKnative(cluster, metrics, tidy=True)
    rollout.up(1)
    rollout.wait("done", "app-v1")
    metrics.answer = {}
    rollout.up(2)
    rollout.knative.until(lambda: rollout.knative.shares[-1].get(V2) == 20, "20 %")
    cluster.vela("workflow", "terminate", "app", "-n", cluster.namespace)
    rollout.knative.until(lambda: rollout.phase == "failed", "taken back")
    assert "stopped by hand" in rollout.state["reason"]
    assert rollout.served() == V1
    assert max(share.get(V2, 0) for share in rollout.knative.shares) == 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"via": "route"}, "m has deploymentMode: knative: drop via"),
        ({"route": {"hosts": ["m.example.com"]}}, "by their share alone: drop route"),
        ({"shadow": {}}, "Knative copies no requests: drop shadow"),
        ({"steps": [50, 100]}, "KServe forgets which revision was the stable one"),
        ({"analysis": {"alerts": [{"name": "ModelErrors"}]}}, "knows m and not its revisions: write a selector"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_what_knative_cannot_do_is_said_and_creates_nothing(
    cluster: Cluster,
    metrics: Metrics,  # noqa: F811  # a fixture's name
    settings: dict[str, Any],
    words: str,
) -> None:
    rollout = OfKnative(cluster, metrics, **settings)
    rollout.up(1)
    cluster.wait_for(lambda: words in rollout.message, words, 30)
    assert cluster.list(*MODEL[:2]) == []


def test_via_kserve_needs_knative_mode(cluster: Cluster, metrics: Metrics) -> None:  # noqa: F811  # a fixture's name
    rollout = OfKnative(cluster, metrics, via="kserve")
    rollout.up(1, deploymentMode="standard")
    cluster.wait_for(lambda: "via: kserve needs deploymentMode: knative" in rollout.message, "refused", 30)
