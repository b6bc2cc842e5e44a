"""The table of a rollout: what must hold of every history, and that CUE and Python say the same of each step."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from velagen import cue
from velagen import parameter as p
from velagen.kubevela import CueVersion
from velagen.oracle import VERSIONS, Oracle
from velagen.rollout import transitions as t
from velagen.rollout import verdict
from velagen.template.compiler import TemplateCompiler
from velagen.template.evaluate import evaluate
from velagen.template.functions import let
from velagen.template.types import UNKNOWN, Fields, JsonType, Member, constant

#: A long history; every rollout must end by itself well before.
LONG = 3_000


def settings_of(pick: random.Random) -> dict[str, Any]:
    """What a user may write."""
    shadow = pick.choice([0, 0, 0, 50])
    steps = sorted(pick.sample(range(1, 101), pick.randint(1, 5)))
    if shadow or pick.random() < 0.2:
        steps = [0, *steps]
    interval = pick.choice([5, 30, 60])
    return {
        "steps": steps,
        "shadow": shadow,
        "pauseAt": pick.sample([*steps, 7], pick.randint(0, 1)),
        "interval": interval,
        "checks": pick.randint(1, 4),
        "failureLimit": pick.randint(1, 4),
        "inconclusiveLimit": pick.randint(1, 6),
        "onInconclusive": pick.choice(["hold", "rollback"]),
        "deadline": pick.choice([interval * 10, interval * 30]),
        "warmUp": pick.choice([0, 15]),
        "settle": pick.choice([0, 20]),
        "via": pick.choice(["route", "route", "kserve"]),
    }


def sight(pick: random.Random, state: dict[str, Any], how: dict[str, Any], luck: dict[str, float]) -> dict[str, Any]:
    """What a run of the step may see in this state."""
    seen = {
        **t.unseen(),
        "ready": pick.random() < luck["ready"],
        "live": pick.random() < luck["live"],
        "routed": pick.random() < luck["live"],
        "strayed": how["via"] == "kserve" and pick.random() < luck["aborted"],
        "resumed": state["phase"] == "pause",
        "waited": pick.choice([0, 1, 4, 10, how["interval"], 2 * how["interval"], how["deadline"]]),
        "trouble": pick.choice(["", ": ModelLoadFailed"]),
    }
    if not state["phase"] or (pick.random() < luck["changed"] and state["phase"] != "deploy"):
        return {**seen, "changed": True, "inPlace": pick.random() < 0.3}
    if pick.random() < luck["aborted"]:
        return {**seen, "aborted": True}
    if state["asked"]:
        kind = pick.choices(["none", "good", "bad", "inconclusive"], luck["checks"])[0]  # type: ignore[arg-type]
        if kind != "none":
            seen |= {"check": kind, "why": f"latency {pick.randint(100, 900)} ms > 300 ms"}
    return seen


#: A state, what is seen, the settings; the state after it and the row's name.
Move = tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], str]


def history(seed: int) -> Iterator[Move]:
    """The moves of a rollout until it ends."""
    pick = random.Random(seed)
    how = settings_of(pick)
    weights = [pick.random() for _ in range(4)]
    luck: dict[str, Any] = {
        "ready": pick.choice([0.02, 0.5, 1.0]),
        "live": pick.choice([0.02, 0.5, 1.0]),
        "changed": pick.choice([0.0, 0.03]),
        "aborted": pick.choice([0.0, 0.01]),
        "checks": weights if pick.random() < 0.7 else [0.02, 0.95, 0.02, 0.01],
    }
    state: dict[str, Any] = dict(t.BLANK)
    for _ in range(LONG):
        seen = sight(pick, state, how, luck)
        after, row = t.step(state, seen, how)
        yield state, seen, how, after, row
        state = after
        if state["phase"] in t.ENDS:
            return
        if t.is_due(state, {**seen, "waited": how["deadline"]}, how) and pick.random() < 0.8:
            state = t.mark(state, {**seen, "waited": how["interval"]}, how)
        if pick.random() < 0.02:  # the user changes the settings in mid-rollout
            how = settings_of(pick)
    raise AssertionError(f"history {seed} does not end: {state}")


@settings(max_examples=300, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.integers(min_value=0))
def test_every_history_ends_and_its_weights_are_right(seed: int) -> None:
    for before, seen, how, after, row in history(seed):
        weight = t.share(after, how)
        assert 0 <= weight <= 100
        if row in ("check failed", "failed", "no verdict", "no answer"):
            assert weight <= t.share(before, how), row
        if weight > t.share(before, how):
            # More traffic only by readiness, by passed checks enough, and never in the run in which one failed.
            assert row in ("warm", "step passed", "last step passed", "pause over", "last pause over"), row
            assert seen["check"] in ("good", "none")
            assert row == "warm" or seen["resumed"] or before["passed"] + 1 >= how["checks"]
            assert seen["ready"] or not seen["resumed"]
        if after["phase"] == "failed":
            assert weight == 0
            assert after["reason"], row
        assert after["errors"] <= len(t.BACK_OFF)  # below the engine's ten errors


@settings(max_examples=300, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.integers(min_value=0))
def test_after_a_failed_check_traffic_rises_by_as_many_passed_ones_as_a_step_needs(seed: int) -> None:
    passed: int | None = None  # since a check of this step failed; None where none did
    for before, seen, how, after, row in history(seed):
        weight = t.share(after, how)
        assert isinstance(weight, int)
        assert 0 <= 100 - weight <= 100  # the stable version's: both are all the traffic
        if row == "check failed":
            passed = 0
        elif passed is not None and seen["check"] == "good":
            passed += 1
        if before["phase"] != "step" or after["phase"] != "step" or after["step"] != before["step"]:
            if row in ("step passed", "last step passed") and passed is not None:
                assert passed >= how["checks"]
            passed = None


@settings(max_examples=150, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.integers(min_value=0))
def test_without_any_answer_nothing_is_promoted(seed: int) -> None:
    pick = random.Random(seed)
    how = settings_of(pick)
    how |= {"steps": [one for one in how["steps"] if one], "pauseAt": [], "shadow": 0}
    state: dict[str, Any] = dict(t.BLANK)
    state, _ = t.step(state, {**t.unseen(), "changed": True}, how)
    queries = 0
    for _ in range(LONG):
        seen = {
            **t.unseen(),
            "ready": True,
            "routed": True,
            "live": True,
            "waited": pick.choice([1, how["interval"], how["deadline"]]),
        }
        if t.is_due(state, seen, how):
            queries += 1
            state = t.mark(state, seen, how)
            seen = {**seen, "waited": 0, **pick.choice([{}, {"check": "inconclusive", "why": "too few requests"}])}
        state, _ = t.step(state, seen, how)
        assert t.share(state, how) <= how["steps"][0]
        if state["phase"] in t.ENDS:
            break
    assert state["phase"] == "failed"
    assert "no verdict" in state["reason"]


@pytest.mark.parametrize(
    ("state", "seen", "row"),
    [
        ({"phase": ""}, {"changed": True, "inPlace": True}, "deployed anew"),
        ({"phase": "done"}, {"changed": True}, "begun"),
        ({"phase": "step", "step": 2}, {"changed": True}, "begun"),
        ({"phase": "prepare"}, {"waited": 900}, "not ready in time"),
        ({"phase": "prepare"}, {"waited": 900, "ready": True}, "ready"),  # a person had suspended it for the night
        ({"phase": "step", "failed": 2}, {"check": "bad", "why": "P99 412 ms > 300 ms"}, "failed"),
        ({"phase": "step", "asked": 1}, {}, "no answer"),
        ({"phase": "step", "asked": 1, "held": 900}, {}, "no verdict in time"),
        ({"phase": "step", "step": 2, "passed": 1}, {"check": "good"}, "last step passed"),
        ({"phase": "step", "step": 9, "passed": 1}, {"check": "good"}, "last step passed"),  # steps became fewer
        ({"phase": "warm"}, {"ready": True, "waited": 60}, ""),  # the gateway does not know it yet
        ({"phase": "warm"}, {"ready": True, "routed": True, "waited": 60}, "warm"),
        ({"phase": "warm"}, {"ready": True, "waited": 900}, "not routed in time"),
        ({"phase": "return"}, {"waited": 30}, ""),  # the gateway still sends requests to the candidate
        ({"phase": "return"}, {"waited": 30, "routed": True}, "routed"),
        ({"phase": "return"}, {"waited": 600}, "routed"),  # one that says nothing
        ({"phase": "drain"}, {"waited": 4}, ""),
        ({"phase": "drain"}, {"waited": 5}, "returned"),
        # A person decides, whatever was measured; and what is not ready any more gets nothing by it.
        ({"phase": "step", "step": 1, "passed": 1}, {"check": "good"}, "paused"),
        ({"phase": "pause", "step": 1}, {"waited": 90_000, "ready": True}, ""),
        ({"phase": "pause", "step": 1}, {"resumed": True, "ready": True}, "pause over"),
        ({"phase": "pause", "step": 2}, {"resumed": True, "ready": True}, "last pause over"),
        ({"phase": "pause", "step": 1}, {"resumed": True}, ""),
        ({"phase": "pause", "step": 1}, {"resumed": True, "waited": 900}, "not ready in time"),
        ({"phase": "pause", "step": 1}, {"aborted": True}, "stopped"),
        ({"phase": "promote"}, {"aborted": True}, "stopped"),
        ({"phase": "failed"}, {"aborted": True}, ""),
        ({"phase": "revert"}, {"aborted": True}, ""),
        ({"phase": "revert"}, {"live": True}, "reverted"),
        ({"phase": "revert"}, {"waited": 900}, "not reverted in time"),
        ({"phase": "step", "step": 1}, {"strayed": True}, "strayed"),
        ({"phase": "halfway"}, {}, "not known"),  # of a later release
    ],
)
def test_rows(state: dict[str, Any], seen: dict[str, Any], row: str) -> None:
    how = {**settings_of(random.Random(1)), "steps": [10, 30, 60], "checks": 2, "failureLimit": 3, "deadline": 600}
    how |= {"pauseAt": [30], "shadow": 0, "onInconclusive": "hold", "via": "route"}
    after, name = t.step({**t.BLANK, **state}, {**t.unseen(), **seen}, how)
    assert name == row
    if name == "failed":
        assert after["reason"] == "P99 412 ms > 300 ms in 3 checks at 10 %"


@pytest.mark.parametrize(
    ("how", "row"),
    [
        ({"pauseAt": [0]}, "paused without traffic"),
        ({"pauseAt": []}, "never measured"),  # refused when it is written, and it may be changed in mid-rollout
        ({"pauseAt": [0], "shadow": 20}, ""),
    ],
)
def test_a_step_of_0_percent(how: dict[str, Any], row: str) -> None:
    how = {**settings_of(random.Random(1)), "steps": [0, 100], "shadow": 0, **how}
    state = {**t.BLANK, "phase": "step"}
    seen = {**t.unseen(), "ready": True, "waited": how["interval"]}
    assert t.is_due(state, seen, how) == (how["shadow"] > 0)
    after, name = t.step(state, seen, how)
    assert (name, t.share(after, how)) == (row, 0)


def test_the_graph_has_no_dead_end() -> None:
    left = {one for row in t.table(t.state, t.seen, t.rules) for one in row.phases}
    reached = {
        str(evaluate(row.then["phase"], {"rules": {"via": via}}))
        for row in t.table(t.state, t.seen, t.rules)
        if "phase" in row.then
        for via in ("route", "kserve")
    }
    assert reached <= {*t.PHASES}
    assert {*t.PHASES} - {*t.ENDS} <= left


def _typed(values: dict[str, Any]) -> Fields:
    kinds = {
        key: JsonType("array", items=JsonType("integer")) if isinstance(one, list) else JsonType(*constant(one).types)
        for key, one in values.items()
    }
    return Fields({key: Member(kind, present=True) for key, kind in kinds.items()})


def as_cue() -> str:
    """The table as velagen writes it, over a list of inputs."""
    how = settings_of(random.Random(1))
    of = Fields(
        {
            "state": Member(_typed(dict(t.BLANK)), present=True),
            "seen": Member(_typed(t.unseen()), present=True),
            "rules": Member(_typed(how), present=True),
        }
    )
    compiler = TemplateCompiler(parameter=of, object_schemas=lambda *_: None)
    row = let(t.happened(p.state, p.seen, p.rules))
    body = {
        "row": row,
        "next": t.following(row, p.state, p.seen, p.rules),
        "due": t.due(p.state, p.seen, p.rules),
        "mark": t.asking(p.state, p.seen, p.rules),
        "weight": t.weight(p.state, p.rules),
        "shadow": t.is_shadow(p.state, p.rules),
    }
    struct = compiler.body(body, UNKNOWN, "step")
    assert compiler.problems == []
    assert isinstance(struct, cue.Struct)
    each = cue.Struct((*compiler.intermediates(), *struct.decls))
    loop = cue.Comprehension((cue.For("parameter", cue.Ident("inputs")),), each)
    return cue.to_cue(cue.File((cue.Field(cue.Name("results"), cue.ListLit((loop,))),)))


Compared = tuple[dict[str, str], dict[str, Any]]


def comparison(seed: int) -> Compared:
    """Counts of two versions as Prometheus may write them, and what is asked of them."""
    pick = random.Random(seed)

    def count(most: int) -> str:
        number = pick.randint(0, most)
        return pick.choice([str(number)] * 8 + [f"{number:e}", "", "NaN", "+Inf"])

    every, stable = (pick.choice([0, 20, 300, 5_000, 400_000]) for _ in range(2))
    shares = [pick.choice([0.0, 0.002, 0.03, 1.0]) for _ in range(2)]
    names = ("bad", "stableBad", "all", "stableAll")
    most = (int(every * shares[0]), int(stable * shares[1]), every, stable)
    asked = {"looks": pick.randint(1, 4_000), "rate": pick.choice(verdict.FALSE_ALARMS)}
    return {name: count(one) for name, one in zip(names, most, strict=True)}, {
        **asked,
        "margin": pick.choice([0, 0.005, 0.1]),
    }


@pytest.mark.slow
@pytest.mark.seconds(20)
@pytest.mark.parametrize("version", VERSIONS)
def test_cue_compares_two_versions_as_python_does(version: CueVersion) -> None:
    pair, asked = comparison(1)
    of = Fields({"pair": Member(_typed(dict(pair)), present=True), "asked": Member(_typed(dict(asked)), present=True)})
    compiler = TemplateCompiler(parameter=of, object_schemas=lambda *_: None)
    evidence = let(verdict.enough_evidence(p.asked.looks, p.asked.rate))
    body = {
        "counted": verdict.is_counted(p.pair),
        "worse": verdict.is_worse(p.pair, evidence, p.asked.margin),
        "words": verdict.more_failures(p.pair, evidence, p.asked.margin),
    }
    struct = compiler.body(body, UNKNOWN, "step")
    assert compiler.problems == []
    assert isinstance(struct, cue.Struct)
    one = cue.Struct((*compiler.intermediates(), *struct.decls))
    loop = cue.Comprehension((cue.For("parameter", cue.Ident("inputs")),), one)
    text = cue.to_cue(cue.File((cue.Field(cue.Name("results"), cue.ListLit((loop,))),)))
    cases = [comparison(seed) for seed in range(2_000)]
    inputs = [{"pair": pair, "asked": asked} for pair, asked in cases]
    with Oracle(version, seconds=60) as oracle:
        answer = oracle.eval(text, "results", extra=f"\ninputs: {json.dumps(inputs)}")
    assert answer.ok, answer.error
    found = [one["worse"] for one in answer.result]
    assert 40 < sum(found) < 1_900
    for (pair, asked), got in zip(cases, answer.result, strict=True):
        enough = verdict.evidence_of(asked["looks"], asked["rate"])
        is_worse = verdict.worse(pair, enough, asked["margin"])
        assert (got["counted"], got["worse"], bool(got["words"])) == (verdict.counted(pair), is_worse, is_worse), pair


@pytest.mark.slow
@pytest.mark.seconds(60)
@pytest.mark.parametrize("version", VERSIONS)
def test_cue_says_the_same_over_thousands_of_histories(version: CueVersion) -> None:
    text = as_cue()
    moves: dict[str, Move] = {}
    first = 1_500 * VERSIONS.index(version)
    for seed in range(first, first + 1_500):
        for move in history(seed):
            moves[json.dumps(move[:3])] = move
    inputs = list(moves.values())
    with Oracle(version, seconds=60) as oracle:
        for start in range(0, len(inputs), 1_000):
            batch = inputs[start : start + 1_000]
            asked = [{"state": state, "seen": seen, "rules": how} for state, seen, how, _, _ in batch]
            answer = oracle.eval(text, "results", extra=f"\ninputs: {json.dumps(asked)}")
            assert answer.ok, answer.error
            for (state, seen, how, after, row), got in zip(batch, answer.result, strict=True):
                expected = {
                    "row": row,
                    "next": after,
                    "due": t.is_due(state, seen, how),
                    "mark": t.mark(state, seen, how),
                    "weight": t.share(state, how),
                    "shadow": t.mirrors(state, how),
                }
                assert got == expected, (state, seen, how)
