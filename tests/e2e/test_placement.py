"""Models placed by the real scheduler: as the whole chain makes them, by default, and by the scheduler that packs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from benchmarks.placement import pods
from benchmarks.placement.drive import Played, play
from benchmarks.placement.fleet import Node, cut, gpus_by_kind, largest_by_kind
from benchmarks.placement.mix import FEW, MIXES, Ask, load
from benchmarks.placement.plane import Placing, add_nodes, scheduler
from tests.conftest import Cluster, namespace_of

from velagen.lab import Lab, condition, wait_until
from velagen.lab.vela import vela

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(60)]

#: The nodes of this file, among the lab's own.
LABELS = {"velagen.dev/placement": "test"}
NEED = MIXES["long tail"]
#: Two kinds of GPUs: with more of them, so few nodes make pools of one node each.
SIZES = [("T4", 1)] * 4 + [("T4", 2)] * 8 + [("T4", 4)] * 6 + [("A100-80GB", 4)] * 4 + [("A100-80GB", 8)] * 3
FLEET = [Node(f"placement-{number}", *size) for number, size in enumerate(SIZES)]
LARGEST = largest_by_kind(FLEET)
LOAD = load(NEED, gpus_by_kind(FLEET), LARGEST, seed=1, level=0.5, churn=0.2, rush=1.3)


@pytest.fixture(scope="module")
def addon(lab: Lab) -> None:
    vela(lab.kubeconfig, "addon", "enable", pods.ADDON, timeout=300)


@pytest.mark.usefixtures("addon")
@pytest.mark.parametrize(
    ("ask", "scheduler_name"),
    [(Ask("T4", 4), None), (Ask("A100-80GB", 10), pods.PACKING), (Ask("H100-80GB", 1, 8), pods.PACKING)],
)
def test_the_whole_chain_makes_the_pods_of_the_mass(cluster: Cluster, ask: Ask, scheduler_name: str | None) -> None:
    cluster.up(pods.application({"m": ask}, scheduler_name))
    (made,) = cluster.wait_for(lambda: cluster.list("v1", "Pod"), "the pod of m")
    assert pods.asked_by_pod(made) == pods.rendered([ask], scheduler_name)[ask]


def test_the_api_server_takes_the_objects_of_the_packing_scheduler(lab: Lab) -> None:
    for one in pods.packing_objects():
        lab.api.apply(one, dry_run=True)


def placed(lab: Lab, nodes: list[Node], cuts: tuple[int, ...], name: str | None = None) -> Played:
    """What becomes of the load on these nodes, which are gone afterwards."""
    add_nodes(lab.kubeconfig, nodes, LABELS)
    try:
        own = {node.name for node in nodes}
        wait_until(
            lambda: all(
                condition(one, "Ready") == "True" and not one["spec"].get("taints")
                for one in lab.api.list("v1", "Node")
                if one["metadata"]["name"] in own
            ),
            what="the nodes Ready",
            timeout=60,
        )
        with namespace_of(lab.api, "placement") as namespace:
            asks = pods.rendered(LOAD.asks(cuts), name)
            placing = Placing(lab.kubeconfig, asks, namespace, LABELS)
            with placing.watching():
                found = play(nodes, LOAD, cuts, placing, check=placing.check, between=placing.between)
            lab.api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods", params={"gracePeriodSeconds": "0"})
    finally:
        for node in nodes:
            lab.api.delete("v1", "Node", node.name)
    return found


@pytest.fixture(scope="module")
def played(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Played]:
    """One load three ways; a model without a device of its own fails here."""
    shares = cut(FLEET, NEED)
    found = {"whole": placed(lab, FLEET, (1,)), "default": placed(lab, shares, FEW)}
    folder: Path = tmp_path_factory.mktemp("scheduler")
    # As it stands in the addon's ConfigMap, its leader election too.
    with scheduler(folder, lab.kubeconfig, pods.packing_configuration()) as process:
        found["packing"] = placed(lab, shares, FEW, pods.PACKING)
        assert process.alive, (folder / "kube-scheduler.log").read_text()
    return found


def test_shares_hold_twice_the_models(played: Mapping[str, Played]) -> None:
    whole, packing = played["whole"].full, played["packing"].full
    assert whole is not None
    assert packing is not None
    assert packing.measures.models >= 2 * whole.measures.models


def test_the_packing_scheduler_uses_no_more_gpus_and_fewer_nodes(played: Mapping[str, Played]) -> None:
    default, packing = played["default"], played["packing"]
    assert packing.mean(lambda one: one.measures.gpus) <= default.mean(lambda one: one.measures.gpus)
    assert packing.mean(lambda one: one.measures.gpus_of_nodes) < default.mean(lambda one: one.measures.gpus_of_nodes)


def test_it_has_a_lease_of_its_own(lab: Lab, played: Mapping[str, Played]) -> None:
    assert lab.api.get("coordination.k8s.io/v1", "Lease", "kfserving-gpu-binpack", "kube-system") is not None
