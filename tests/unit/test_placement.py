"""The pure parts of benchmarks/placement: its loads, its pools, its bounds, the devices of a node."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from benchmarks.placement import __main__ as of_placement
from benchmarks.placement import pods
from benchmarks.placement.bound import UNITS, best_fit, first_fit, l2, of_parts, of_pools
from benchmarks.placement.devices import Books, Devices, OverCommittedError, audit, stranded
from benchmarks.placement.drive import Played, play
from benchmarks.placement.fleet import Node, cut, fleet, gpus_by_kind, largest_by_kind
from benchmarks.placement.mix import FEW, MANY, MIXES, SEVERAL, Ask, Load, Model, load
from benchmarks.placement.rules import Rules

from velagen.gpu.parts import equal_parts, fraction_of


def load_of(nodes: int = 100, mix: str = "long tail", seed: int = 1) -> Load:
    whole = fleet(nodes)
    return load(MIXES[mix], gpus_by_kind(whole), largest_by_kind(whole), seed=seed)


# -- models


@pytest.mark.parametrize(
    ("need", "cuts", "ask"),
    [
        (0.05, FEW, Ask("T4", 10)),
        (0.1, FEW, Ask("T4", 10)),
        (0.11, FEW, Ask("T4", 4)),
        (0.11, MANY, Ask("T4", 8)),
        (0.3, MANY, Ask("T4", 3)),
        (0.5, FEW, Ask("T4", 2)),
        (0.51, FEW, Ask("T4", 1)),
        (1.0, FEW, Ask("T4", 1)),
        (1.01, FEW, Ask("T4", 1, 2)),
        (5.0, MANY, Ask("T4", 1, 8)),
        (0.05, (1,), Ask("T4", 1)),
    ],
)
def test_a_model_asks_for_the_smallest_part_that_holds_it(need: float, cuts: tuple[int, ...], ask: Ask) -> None:
    made = Model("m", "T4", need).ask(cuts)
    assert made == ask
    assert made.gpus >= need


def test_the_trait_takes_each_part_that_gpus_are_cut_into() -> None:
    assert [equal_parts(fraction_of(parts)) for parts in MANY[1:]] == list(MANY[1:])


def test_a_load_is_the_same_for_a_seed() -> None:
    assert load_of(seed=1) == load_of(seed=1)
    assert load_of(seed=1) != load_of(seed=2)


@pytest.mark.parametrize("mix", MIXES)
def test_a_load_fills_the_fleet_as_far_as_it_says(mix: str) -> None:
    gpus = sum(gpus_by_kind(fleet(100)).values())
    made = load_of(mix=mix)
    asked = sum(model.ask(FEW).gpus for model in made.first)
    assert 0.7 <= asked / gpus < 0.7 + 8 / gpus
    assert len(made.then) == round(0.25 * len(made.first))
    assert math.isclose(asked + sum(model.ask(FEW).gpus for model in made.rush), 1.3 * gpus, abs_tol=17)
    largest = largest_by_kind(fleet(100))
    assert all(model.ask(FEW).count <= largest[model.gpu] for model in (*made.first, *made.then, *made.rush))


def test_models_come_before_they_go_and_about_as_many_come_as_go() -> None:
    made = load_of(1000)
    came = {model.name for model in made.first}
    gone: set[str] = set()
    for model, comes in made.events():
        if comes:
            came.add(model.name)
        else:
            assert model.name in came
            assert model.name not in gone
            gone.add(model.name)
    # The beginning is a moment of a long run: as many models as come in a mean lifetime. Heavy tails leave some room.
    assert 0.8 < len(gone) / len(made.then) < 1.2


def test_the_mixes_have_the_form_that_is_said_of_them() -> None:
    chance = random.Random(3)
    tail = sorted(MIXES["long tail"](chance) for _ in range(20_000))
    assert tail[10_000] == pytest.approx(0.18, rel=0.05)
    assert sum(need > 1 for need in tail) / 20_000 == pytest.approx(1 / 23, rel=0.1)
    trace = [MIXES["trace"](chance) for _ in range(20_000)]
    assert sum(need < 1 for need in trace) / 20_000 == pytest.approx(0.44, abs=0.02)
    assert sum(need > 1 for need in trace) / 20_000 == pytest.approx(0.01, abs=0.005)


# -- nodes


def test_a_fleet_is_in_proportion() -> None:
    small, large = gpus_by_kind(fleet(100)), gpus_by_kind(fleet(1000))
    assert len(fleet(1000)) == 1000
    assert large == {kind: 10 * count for kind, count in small.items()}
    assert sum(small.values()) == 405
    with pytest.raises(ValueError, match="multiple of 20"):
        fleet(110)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("cuts", [FEW, MANY])
def test_pools_have_what_the_mix_asks(mix: str, cuts: tuple[int, ...]) -> None:
    whole = fleet(1000)
    nodes = cut(whole, MIXES[mix], cuts)
    assert [(node.name, node.gpu, node.gpus) for node in nodes] == [(one.name, one.gpu, one.gpus) for one in whole]
    wanted = load(MIXES[mix], gpus_by_kind(whole), largest_by_kind(whole), seed=5, cuts=cuts)
    asked: Counter[tuple[str, int]] = Counter()
    for model in wanted.first:
        ask = model.ask(cuts)
        asked[ask.gpu, ask.parts] += ask.count
    shares: Counter[tuple[str, int]] = Counter()
    for node in nodes:
        shares[node.gpu, node.parts] += node.shares
    short = sum(max(0, count - shares[pool]) / pool[1] for pool, count in asked.items())
    # Of 4050 GPUs, of which the models ask seven tenths.
    assert short < 0.01 * 4050
    # Models with several GPUs have nodes that can hold them.
    largest = largest_by_kind(whole)
    assert all(any(n.gpus == most and n.parts == 1 for n in nodes if n.gpu == gpu) for gpu, most in largest.items())


def test_a_nodes_object_offers_its_shares_under_the_labels_of_feature_discovery() -> None:
    made = Node("n1", "A100-80GB", 8, 4).manifest({"pool": "a"})
    assert made["status"]["allocatable"]["nvidia.com/gpu.shared"] == "32"
    assert made["status"]["allocatable"]["cpu"] == "128"
    labels = made["metadata"]["labels"]
    assert (labels["nvidia.com/gpu.replicas"], labels["nvidia.com/gpu.sharing-strategy"]) == ("4", "time-slicing")
    assert labels["pool"] == "a"
    assert Node("n2", "T4", 2).manifest()["status"]["allocatable"]["nvidia.com/gpu"] == "2"


# -- bounds


def test_the_bound_of_pools_is_the_quotient_rounded_up() -> None:
    asks = [Ask("T4", 4)] * 5 + [Ask("L4", 4)] + [Ask("T4", 2)] * 2 + [Ask("T4", 1, 8), Ask("T4")]
    assert of_pools(asks) == 2 + 1 + 1 + 8 + 1
    assert of_pools([]) == 0


def fewest(sizes: list[int]) -> int:
    """Bins by trying everything."""
    for count in itertools.count():
        for where in itertools.product(range(count), repeat=len(sizes)):
            rooms = [UNITS] * count
            for size, place in zip(sizes, where, strict=True):
                rooms[place] -= size
            if all(room >= 0 for room in rooms):
                return count
    raise AssertionError


@pytest.mark.parametrize("seed", range(15))
def test_the_bound_is_none_too_high_and_the_heuristics_none_too_low(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [UNITS // chance.choice(MANY[1:]) for _ in range(chance.randint(1, 6))]
    least = fewest(sizes)
    assert l2(sizes) <= least <= min(first_fit(sizes), best_fit(sizes))


def test_the_bound_sees_what_the_sum_does_not() -> None:
    # Three of two thirds fit on three GPUs only, though they sum up to two.
    assert l2([80, 80, 80]) == 3
    assert l2([]) == first_fit([]) == best_fit([]) == 0


def test_parts_lie_on_gpus_of_their_kind_only() -> None:
    assert of_parts([Ask("T4", 2), Ask("L4", 2), Ask("T4", 4), Ask("T4", 4), Ask("L4", 1, 4)]) == (6, 6)


# -- devices


def test_the_plugin_takes_the_gpu_with_the_fewest_models_or_with_the_most() -> None:
    apart, together = Devices(Node("n", "T4", 4, 4)), Devices(Node("n", "T4", 4, 4), "packed")
    for number in range(5):
        for one in (apart, together):
            one.give(f"m{number}", Ask("T4", 4))
    assert (apart.used, together.used) == ([2, 1, 1, 1], [4, 1, 0, 0])
    apart.take_back("m0")
    assert (apart.used, apart.free) == ([1, 1, 1, 1], 12)


@pytest.mark.parametrize("ask", [Ask("L4", 4), Ask("T4", 2), Ask("T4"), Ask("T4", 4, 3)])
def test_no_device_is_given_twice_or_to_one_that_asked_for_another(ask: Ask) -> None:
    devices = Devices(Node("n", "T4", 2, 4))
    with pytest.raises(OverCommittedError):
        devices.give("m", ask)
    for number in range(8):
        devices.give(f"m{number}", Ask("T4", 4))
    with pytest.raises(OverCommittedError, match="are in use"):
        devices.give("m8", Ask("T4", 4))


def test_the_audit_finds_one_model_too_many() -> None:
    nodes = [Node("a", "T4", 1, 2), Node("b", "T4", 2)]
    fits = {"m1": (Ask("T4", 2), "a"), "m2": (Ask("T4", 2), "a"), "m3": (Ask("T4", 1, 2), "b")}
    audit(nodes, fits)
    with pytest.raises(OverCommittedError):
        audit(nodes, {**fits, "m4": (Ask("T4", 2), "a")})
    with pytest.raises(OverCommittedError):
        audit(nodes, {**fits, "m4": (Ask("T4"), "b")})


def test_what_is_stranded() -> None:
    assert stranded([8, 0, 8]) == 0
    # One free on each of eight nodes: none of it is of use to a model with several.
    assert stranded([1] * 8) == 1
    # Of 6: models with 2 can have all, with 4 four, with 8 none.
    assert stranded([6]) == pytest.approx((0 + 2 / 6 + 1) / 3)
    assert stranded([]) == 0


def test_what_is_measured_of_a_fleet() -> None:
    books = Books([Node("a", "T4", 2, 4), Node("b", "T4", 4), Node("c", "T4", 4, 2)])
    books.give("m1", Ask("T4", 4), 0.2, "a")
    books.give("m2", Ask("T4", 4), 0.1, "a")
    books.give("m3", Ask("T4", 1, 2), 1.7, "b")
    found = books.measures()
    assert (found.models, found.gpus, found.gpus_of_nodes) == (3, 4, 6)
    assert found.given == 2.5
    assert found.use == pytest.approx(2.0 / 4)
    assert found.empty == pytest.approx(1 - 2.5 / 4)
    assert books.take_back("m3")
    assert not books.take_back("m3")
    assert books.measures().gpus == 2


# -- a load, placed by the two rules


@pytest.fixture(scope="module")
def played() -> Mapping[str, Played]:
    whole, made = fleet(100), load_of()
    nodes = cut(whole, MIXES["long tail"])
    return {
        "whole": play(whole, made, (1,), Rules(whole, "spread")),
        "spread": play(nodes, made, FEW, Rules(nodes, "spread")),
        "pack": play(nodes, made, FEW, Rules(nodes, "pack")),
    }


def test_shares_hold_twice_the_models(played: Mapping[str, Played]) -> None:
    whole, pack = played["whole"].full, played["pack"].full
    assert whole is not None
    assert pack is not None
    assert pack.measures.models > 2 * whole.measures.models


def test_packing_needs_fewer_gpus_and_nodes_and_leaves_more_whole(played: Mapping[str, Played]) -> None:
    spread, pack = played["spread"], played["pack"]
    assert pack.mean(lambda one: one.measures.gpus) < spread.mean(lambda one: one.measures.gpus)
    assert pack.mean(lambda one: one.measures.gpus_of_nodes) < 0.9 * spread.mean(lambda one: one.measures.gpus_of_nodes)
    assert pack.mean(lambda one: one.measures.stranded) < spread.mean(lambda one: one.measures.stranded)
    assert pack.mean(lambda one: one.packed_over_pools) < 1.05


def test_each_model_of_the_rush_is_placed_or_turned_away(played: Mapping[str, Played]) -> None:
    for one in played.values():
        assert one.full is not None
        placed = one.full.measures.models - one.churn[-1].measures.models
        assert placed + one.turned_away[2] == len(load_of().rush)


def test_nothing_is_below_its_bound(played: Mapping[str, Played]) -> None:
    for one in played.values():
        for moment in (one.first, *one.churn, one.full):
            assert moment is not None
            assert moment.parts <= moment.pools <= moment.packed_gpus <= moment.measures.gpus
            assert moment.parts <= moment.packed


# -- pods


@pytest.fixture(scope="module")
def asks() -> list[Ask]:
    return [Ask("T4", 1), Ask("A100-80GB", 1, 4), Ask("T4", 2), Ask("L4", 10)]


def test_pods_ask_for_what_the_addon_makes_of_an_application(asks: list[Ask]) -> None:
    made = pods.rendered(asks, pods.PACKING)
    for ask in asks:
        pod = pods.pod("m", made[ask])
        assert pods.ask_of(pod) == ask
        assert pod["spec"]["schedulerName"] == "gpu-binpack"
    assert made[Ask("T4", 2)]["nodeSelector"] == {
        "nvidia.com/gpu.product": "Tesla-T4",
        "nvidia.com/gpu.replicas": "2",
        "nvidia.com/gpu.sharing-strategy": "time-slicing",
    }
    assert made[Ask("A100-80GB", 1, 4)]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert "schedulerName" not in pods.rendered(asks[:1])[asks[0]]


def test_the_packing_scheduler_is_told_what_the_addon_says() -> None:
    (profile,) = pods.packing_configuration()["profiles"]
    assert profile["schedulerName"] == pods.PACKING


# -- the page


FOUND = of_placement.Found(
    fleet_gpus=405,
    offered=842,
    models=390.0,
    gpus=400.0,
    gpus_of_nodes=405.0,
    models_a_gpu=0.97,
    use=0.27,
    empty=0.0,
    stranded=0.98,
    over_pools=1.0,
    packed_over_pools=1.0,
    over_parts=1.0,
    heuristic=1.0,
    turned_away=358,
    full_models=390,
    full_use=0.27,
    large_offered=7,
    large_placed=0,
    p50=5.0,
    p99=50.0,
)


def test_the_page_says_which_goals_are_met() -> None:
    packed = replace(FOUND, models_a_gpu=2.2, full_models=890, use=0.64, over_pools=1.08, packed_over_pools=1.01)
    runs = {
        of_placement.Run(100, "long tail", FEW, 1, of_placement.WHOLE): FOUND,
        of_placement.Run(100, "long tail", FEW, 1, of_placement.PACKING): packed,
    }
    text = of_placement.text(runs)
    assert "### 100 nodes, 405 GPUs, mix long tail, GPUs cut in 1, 2, 4, 10" in text
    assert "2.27 times on GPUs in use, 2.28 times on the full fleet: met." in text
    assert "8.0 % over it by the packing scheduler: not met; 1.0 % where the device plugin packs too: met." in text
    assert "40 % better use of GPUs: 137.0 % better here" in text
    assert "beaten" in text


def test_a_full_run_has_both_sizes_and_all_ways_and_a_quick_one_a_hundred_nodes() -> None:
    full, quick = of_placement.plan(quick=False), of_placement.plan(quick=True)
    assert {run.nodes for run in full} == {100, 1000}
    assert {run.way for run in full} == set(of_placement.WAYS)
    assert {(run.nodes, run.seed) for run in quick} == {(100, 1)}
    assert {count for run in full for count in run.cuts} <= set(MANY)
    assert set(SEVERAL) == {1, 2, 4, 8}
