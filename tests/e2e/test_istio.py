"""The routes that the trait canary and the step rollout-model write for Istio, as Istio and Envoy take them.

Istio's control plane and two plain Envoys run beside the embedded lab (tests/e2e/istio.py says how): one as a client's
sidecar in the mesh, one as a gateway. `velagen tools install pilot-discovery` brings the control plane; it takes Go
about ten minutes, so no other command does, and without it these tests are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pytest
from tests.conftest import Cluster
from tests.e2e.istio import NETWORKING, Client, Load, Loop, Models, Pilot, absent, envoy, envoy_binary, pilot
from tests.e2e.test_rollout import BAD, GOOD, Metrics, Rollout, addon, metrics  # noqa: F401  # fixtures

from velagen.lab import Lab
from velagen.tools import tool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.embedded,
    pytest.mark.seconds(120),
    # A machine that does much else took five minutes for the rollout alone.
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(absent()), reason=absent()),
]

SERVICE = ("networking.istio.io/v1beta1", "VirtualService")
V1, V2, V3 = (f"s3://models/m/{number}" for number in (1, 2, 3))
HOST = "m.example.com"
#: Requests a second while shares move, at each of the two proxies.
RATE = 40
#: Of these the shares are measured, and so many points they may be off.
REQUESTS, POINTS = 2000, 2.0


@pytest.fixture(scope="module")
def istio(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pilot]:
    with pilot(lab, tmp_path_factory.mktemp("istio"), tool("pilot-discovery")) as found:
        yield found


@dataclass
class Mesh:
    """One namespace in the mesh: its models, a client behind a sidecar, and one who comes through the gateway."""

    cluster: Cluster
    istio: Pilot
    models: Models
    inside: Client
    outside: Client

    @property
    def clients(self) -> tuple[Client, Client]:
        return self.inside, self.outside

    def route(self, **more: Any) -> dict[str, Any]:
        """As a user writes it: for callers in the mesh, and for a name at the gateway."""
        gateway = {"namespace": self.cluster.namespace, "name": "gateway"}
        return {"provider": "istio", "hosts": [HOST], "gateway": gateway, **more}

    def wait_for_shares(self, look: Callable[[list[dict[str, int]]], bool], what: str, timeout: float = 60) -> None:
        """Wait until both proxies have it."""
        for client in self.clients:
            self.cluster.wait_for(lambda client=client: look(client.proxy.shares(client.host)), what, timeout)  # type: ignore[misc]

    def wait_for_weight(self, weight: int, timeout: float = 60) -> None:
        """Wait until both proxies give the candidate this share."""
        told = {"m-predictor": 100 - weight, "m-canary-predictor": weight}
        wanted = {name: share for name, share in told.items() if share}
        self.wait_for_shares(lambda shares: bool(shares) and shares[-1] == wanted, f"{weight} %", timeout)

    def measure(self, weight: int, version: str) -> None:
        """Both proxies send a version its share, within POINTS.

        Shares are drawn: at 50 % one measurement of fourteen is further off by chance. So as many requests again are
        added, up to four times, and chance is left less than one of a thousand.
        """
        for client in self.clients:
            load = Load()
            for _ in range(4):
                more = client.ask(REQUESTS if 0 < weight < 100 else 200)
                load.answers += more.answers
                load.failed += more.failed
                if abs(load.percent(version) - weight) <= POINTS:
                    break
            print(f"{client.host} {weight} %: {load.percent(version):.2f} % of {load.sent}, failed {load.failed}")
            assert not load.failed
            assert abs(load.percent(version) - weight) <= POINTS

    def who_was_answered_by_the_candidate_stays(self) -> None:
        """With the cookie that came with the answer."""
        for client in self.clients:
            (cookie,) = client.ask(1, {"x-tester": "yes"}).cookies
            assert "Max-Age=60" in cookie
            kept = client.ask(50, {"cookie": cookie.split(";")[0]})
            assert (kept.answers, kept.failed) == ({V2: 50}, {})

    def services(self) -> list[dict[str, Any]]:
        """The routes for Istio in the namespace; Istio takes each of them."""
        found = self.cluster.list(*SERVICE)
        assert [self.istio.says_to(one) for one in found] == [""] * len(found)
        return found


@pytest.fixture
def mesh(cluster: Cluster, istio: Pilot) -> Iterator[Mesh]:
    space = cluster.namespace
    binary = envoy_binary()
    assert binary is not None
    with ExitStack() as stack:
        loop = Loop()
        stack.callback(loop.close)
        sidecar = stack.enter_context(envoy(istio, "client", "sidecar", space, binary))
        gateway = stack.enter_context(envoy(istio, "gateway", "router", space, binary))
        models = stack.enter_context(Models(cluster.api, space, loop))
        inside = Client(loop, sidecar, f"m-predictor.{space}.svc.cluster.local")
        yield Mesh(cluster, istio, models, inside, Client(loop, gateway, HOST))


def canary(mesh: Mesh, weight: int) -> None:
    """Version 2 beside version 1 by the trait."""
    split = {"weight": weight, "modelUri": V2, "route": mesh.route()}
    model = {"runtime": "sklearn", "modelUri": V1}
    traits = [{"type": "canary", "properties": split}]
    component = {"name": "m", "type": "kfserving", "properties": model, "traits": traits}
    mesh.cluster.up(
        {
            "apiVersion": "core.oam.dev/v1beta1",
            "kind": "Application",
            "metadata": {"name": "app"},
            "spec": {"components": [component]},
        }
    )


def kserves_own(space: str) -> dict[str, Any]:
    """As KServe writes it for a model m in Knative mode, with the model's Service for Knative's gateway.

    Source: KServe v0.20.0 pkg/controller/v1beta1/inferenceservice/reconcilers/ingress/ingress_reconciler.go.
    """
    service = f"m-predictor.{space}.svc.cluster.local"
    return {
        "apiVersion": SERVICE[0],
        "kind": SERVICE[1],
        "metadata": {"name": "m", "namespace": space},
        "spec": {
            "hosts": [f"m-{space}.example.com"],
            "gateways": [f"{space}/gateway"],
            "http": [
                {
                    "match": [{"authority": {"regex": rf"^m-{space}\.example\.com(?::\d{{1,5}})?$"}}],
                    "route": [{"destination": {"host": service, "port": {"number": 80}}, "weight": 100}],
                }
            ],
        },
    }


def test_the_trait_splits_by_weight_and_loses_nothing_while_weights_change(mesh: Mesh, cluster: Cluster) -> None:
    own = cluster.api.apply(kserves_own(cluster.namespace))
    canary(mesh, 0)
    cluster.wait_ready("m-canary")
    mesh.wait_for_weight(0)
    cluster.wait_for(lambda: not mesh.inside.ask(20).failed and not mesh.outside.ask(20).failed, "answers")
    with mesh.inside.steady(RATE, 600) as inside, mesh.outside.steady(RATE, 600) as outside:
        for weight in (10, 50, 100, 0):
            canary(mesh, weight)
            mesh.wait_for_weight(weight)
            mesh.measure(weight, V2)
    for load in (inside, outside):
        print("steady", load)
        assert load.sent > RATE
        assert not load.failed
        assert {*load.answers} == {V1, V2}
    assert sorted(one["metadata"]["name"] for one in mesh.services()) == ["m", "m-canary-split", "m-canary-split-hosts"]
    # KServe's own has the name of the model: it is as it was, and its address is not split at the gateway.
    (found,) = [one for one in cluster.list(*SERVICE) if one["metadata"]["name"] == "m"]
    assert found["metadata"]["resourceVersion"] == own["metadata"]["resourceVersion"]
    # What Istio would refuse is refused here too.
    bad = next(one for one in mesh.services() if one["metadata"]["name"] == "m-canary-split")
    bad["spec"]["http"][0]["route"][0]["weight"] = -5
    assert "weight" in mesh.istio.says_to(bad)


class OfIstio(Rollout):
    """The step with a VirtualService."""

    @property
    def weight(self) -> int:
        """The candidate's share, as the route for the mesh has it."""
        found = self.cluster.get(*SERVICE, "m-rollout") or {"spec": {"http": [{"route": []}]}}
        shares = {one["destination"]["host"].split(".")[0]: one["weight"] for one in found["spec"]["http"][-1]["route"]}
        return int(shares.get("m-canary-predictor", 0))


TESTERS = {"headers": [{"name": "x-tester", "value": "yes"}], "cookie": {"name": "tester", "value": "1"}}


def test_a_rollout_loses_nothing_from_its_shadow_to_its_end(
    mesh: Mesh,
    cluster: Cluster,
    metrics: Metrics,  # noqa: F811  # a fixture's name
) -> None:
    own = cluster.api.apply(kserves_own(cluster.namespace))
    settings: dict[str, Any] = {"steps": [10, 50, 100], "shadow": {"percent": 30}, "settle": 2, "deadline": 600}
    rollout = OfIstio(cluster, metrics, route=mesh.route(match=TESTERS, affinity={"seconds": 60}), **settings)
    rollout.up(1)
    rollout.wait("done", "app-v1")
    mesh.wait_for_weight(0)
    cluster.wait_for(lambda: not mesh.inside.ask(20).failed and not mesh.outside.ask(20).failed, "answers")
    metrics.answer = {}
    rollout.up(2)
    with mesh.inside.steady(RATE, 600) as inside, mesh.outside.steady(RATE, 600) as outside:
        cluster.wait_for(lambda: "mirror" in str(mesh.services()), "copies", 90)
        mesh.wait_for_shares(lambda shares: len(shares) > 1, "testers' own rule")
        for client in mesh.clients:
            # Those of the steady load are among them; the answers are all the stable version's.
            before, copies = inside.sent + outside.sent, mesh.models.heard[V2]
            mine = client.ask(REQUESTS)
            sent, copies = mine.sent + inside.sent + outside.sent - before, mesh.models.heard[V2] - copies
            print(f"{client.host}: {copies} copies of {sent}, {100 * copies / sent:.2f} %")
            assert (mine.answers, mine.failed) == ({V1: REQUESTS}, {})
            # Four standard deviations of so many draws, and what is under way.
            assert abs(copies - 0.3 * sent) < 4 * sqrt(sent * 0.3 * 0.7) + 10
            for header in ({"x-tester": "yes"}, {"cookie": "a=b; tester=1"}):
                assert client.ask(50, header).answers == {V2: 50}
            assert client.ask(50, {"x-tester": "no", "cookie": "tester=12"}).answers == {V1: 50}
        for weight in (10, 50, 100):
            metrics.answer = GOOD
            cluster.wait_for(lambda weight=weight: rollout.weight == weight, f"{weight} %", 60)  # type: ignore[misc]  # bound now
            metrics.answer = {}
            mesh.wait_for_weight(weight)
            mesh.measure(weight, V2)
            assert {one["metadata"]["name"] for one in mesh.services()} == {"m", "m-rollout", "m-rollout-hosts"}
            if weight == 10:
                mesh.who_was_answered_by_the_candidate_stays()
        metrics.answer = GOOD
        rollout.wait("done", "app-v2")
        # The component itself is version 2; a bad version 3 takes a half, and goes back.
        rollout.up(3)
        cluster.wait_for(lambda: rollout.weight == 50, "50 % of version 3", 120)
        metrics.answer = BAD
        mesh.wait_for_weight(50)
        rollout.wait("failed", "app-v3")
        mesh.wait_for_weight(0)
        assert mesh.inside.ask(200).answers == mesh.outside.ask(200).answers == {V2: 200}
    for load in (inside, outside):
        print("steady", load)
        assert not load.failed
        assert {*load.answers} == {V1, V2, V3}
    found = cluster.api.get(NETWORKING, "VirtualService", "m", cluster.namespace)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == own["metadata"]["resourceVersion"]
