"""The transitions of a rollout: in this phase, when this holds, that follows; one table for cluster and Python.

The rows are expressions of the template language: velagen compiles them into the workflow step, and :func:`step` works
them out in Python, for simulations and tests. Nothing here reads a clock or a cluster: all that is known comes in.

::

    deploy ─ deployed ─────────────────────────────────────────────────────────┐
    prepare ─ ready → warm ─ warmed → step 0 ─ up → step 1 … ─ last → promote    │
                                       │        ↓  ↑ resumed    │ in place      │
                                       │        pause           │               │
                                       │                      settle ─ settled  │
                                       │                        │               v
                                       └─ failed ←── overdue   return → drain → done

Where KServe splits between two revisions of one object (rules.via), what fails is taken back first: revert → failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from velagen.template import expression as e
from velagen.template.evaluate import evaluate
from velagen.template.functions import cases, contains, first_given, if_else, length, let, minimum, one_of

#: Of the state as it is stored; a later table reads the states of this one.
VERSION: Final = 1
#: All fields of a state, as they are before a rollout. Whole numbers and texts alone: it is stored as JSON.
BLANK: Final[Mapping[str, int | str]] = {
    "version": VERSION,
    "phase": "",
    # The step by its number, from 0.
    "step": 0,
    # Checks of this step: passed since the last failure, failed in all, without a verdict in a row.
    "passed": 0,
    "failed": 0,
    "silent": 0,
    # 1 while a query is under way: written before it is sent, so that one that ends the run is known of.
    "asked": 0,
    # Queries that got no answer at all. The workflow engine gives up at ten such errors.
    "errors": 0,
    # Seconds without a verdict in this step.
    "held": 0,
    "reason": "",
}
PHASES: Final = (
    "deploy",
    "prepare",
    "warm",
    "step",
    "pause",
    "promote",
    "settle",
    "return",
    "drain",
    "revert",
    "done",
    "failed",
)
#: Any phase, known or not.
ANY: Final = ("",)
#: Those in which nothing happens any more.
ENDS: Final = ("done", "failed")
#: Seconds that requests under way get before the candidate is taken away; a gateway's controller may say that it has
#: accepted a route up to a second before its proxies have it.
DRAIN: Final = 5
#: How much longer than the interval is waited after so many queries without any answer; beyond the last none is sent.
#: The sum stays under the engine's ten errors, and a rollout can hold for an hour at an interval of a minute.
BACK_OFF: Final = (1, 1, 1, 2, 4, 8, 16, 32)

#: The state; what is seen (see :func:`unseen`); the settings of the step.
state = e.Reference(e.Root("state"))
seen = e.Reference(e.Root("seen"))
rules = e.Reference(e.Root("rules"))


def unseen() -> dict[str, Any]:
    """All that a run of the step may see, as it is where there is nothing to see."""
    return {
        # The component is another one than this rollout is for; it is to be deployed as it is.
        "changed": False,
        "inPlace": False,
        # Somebody ended the workflow, or an error did.
        "aborted": False,
        # The candidate is Ready with all its replicas; the component's own object is of this revision and is so.
        "ready": False,
        "live": False,
        # Whoever serves the route knows both versions as its backends, and that the candidate gets nothing.
        "routed": False,
        # What the candidate does not get goes to another version than the stable one.
        "strayed": False,
        # A person let a pause end.
        "resumed": False,
        # Seconds since the state was last written.
        "waited": 0,
        # What a check said: none, good, bad or inconclusive; and why.
        "check": "none",
        "why": "",
        # Why the candidate is not ready, where KServe or Kubernetes says so.
        "trouble": "",
        # Whom a check asks.
        "asks": "the endpoint of the metrics",
    }


@dataclass(frozen=True)
class Row:
    """In one of *phases*, *when* this holds, these fields change and the others stay; *name* says what happened.

    The phase ``""`` stands for any, known or not.
    """

    name: str
    phases: tuple[str, ...]
    when: e.Expression
    then: Mapping[str, e.Value]


def table(state: e.Reference, seen: e.Reference, rules: e.Reference) -> tuple[Row, ...]:
    """The rows in their order: the first that holds is taken; where none does, the state stays."""
    now = let(weight(state, rules), name="now")
    fresh = {name: value for name, value in BLANK.items() if name != "phase"}
    verdict = {"asked": 0, "silent": 0, "held": 0}
    new_step = {**verdict, "passed": 0, "failed": 0}
    good, bad = seen.check == "good", seen.check == "bad"
    # A query was sent and its run did not end: the endpoint gave no answer.
    unanswered = (state.asked == 1) & (seen.check == "none")
    no_verdict = (seen.check == "inconclusive") | unanswered
    gives_up = (rules.onInconclusive == "rollback") & (state.silent + 1 >= rules.inconclusiveLimit)
    next_step = state.step + 1
    another_silent = state.silent + 1
    enough = state.passed + 1 >= rules.checks
    is_last = next_step >= length(rules.steps)
    pauses = contains(rules.pauseAt, now)
    idle = (now == 0) & (rules.shadow == 0)
    overdue = seen.waited >= rules.deadline
    why = if_else(unanswered, f"{seen.asks} does not answer", seen.why)

    # The stable version has an object of its own, or it has to be written over the new one and to get ready.
    back = if_else(rules.via == "kserve", "revert", "failed")

    def fails(reason: e.Value) -> dict[str, e.Value]:
        return {"phase": back, "asked": 0, "reason": reason}

    moving = ("prepare", "warm", "step", "pause", "promote", "settle", "return", "drain")
    waiting = ("prepare", "warm", "pause")
    with_split = ("prepare", "warm", "step", "pause")
    return (
        Row("deployed anew", ANY, seen.changed & seen.inPlace, {**fresh, "phase": "deploy"}),
        Row("begun", ANY, seen.changed, {**fresh, "phase": "prepare"}),
        Row("stopped", moving, seen.aborted, fails(f"it was stopped by hand or by an error, at {now} %")),
        Row("deployed", ("deploy",), seen.live, {"phase": "done"}),
        Row(
            "strayed",
            with_split,
            seen.strayed,
            fails(f"KServe sent what it does not get to another version than the stable one, at {now} %"),
        ),
        Row("ready", ("prepare",), seen.ready, {"phase": "warm"}),
        Row(
            "warm",
            ("warm",),
            seen.ready & seen.routed & (seen.waited >= rules.warmUp),
            {**new_step, "phase": "step", "step": 0},
        ),
        Row(
            "not ready in time",
            waiting,
            overdue & ~seen.ready,
            fails(f"it was not ready within {rules.deadline} s{seen.trouble}"),
        ),
        Row(
            "not routed in time",
            ("warm",),
            overdue & ~seen.routed,
            fails(f"the gateway did not say within {rules.deadline} s that it knows the route to it"),
        ),
        # Nobody's requests go to it, so only a person can say that it is good.
        Row("paused without traffic", ("step",), idle & pauses, {**new_step, "phase": "pause"}),
        Row(
            "never measured",
            ("step",),
            idle,
            fails("a step of 0 % has nothing that could be measured, and nobody who lets it pass: see pauseAt"),
        ),
        Row("last pause over", ("pause",), seen.resumed & seen.ready & is_last, {**new_step, "phase": "promote"}),
        Row(
            "pause over",
            ("pause",),
            seen.resumed & seen.ready,
            {**new_step, "phase": "step", "step": next_step},
        ),
        # A failed check never leads to more traffic: from here up a step is only reached by passed ones in a row.
        Row(
            "failed",
            ("step",),
            bad & (state.failed + 1 >= rules.failureLimit),
            fails(f"{seen.why} in {state.failed + 1} checks at {now} %"),
        ),
        Row("check failed", ("step",), bad, {**verdict, "passed": 0, "failed": state.failed + 1}),
        Row("paused", ("step",), good & enough & pauses, {**new_step, "phase": "pause"}),
        Row("last step passed", ("step",), good & enough & is_last, {**new_step, "phase": "promote"}),
        Row("step passed", ("step",), good & enough, {**new_step, "step": next_step}),
        Row("check passed", ("step",), good, {**verdict, "passed": state.passed + 1}),
        Row(
            "no verdict in time",
            ("step",),
            no_verdict & (state.held >= rules.deadline),
            fails(f"no verdict for {state.held} s at {now} %: {why}"),
        ),
        Row(
            "too often no verdict",
            ("step",),
            no_verdict & gives_up,
            fails(f"no verdict in {state.silent + 1} checks at {now} %: {why}"),
        ),
        Row(
            "no answer",
            ("step",),
            unanswered,
            {"asked": 0, "silent": another_silent, "errors": state.errors + 1},
        ),
        Row("no verdict", ("step",), no_verdict, {"asked": 0, "silent": another_silent}),
        Row(
            "not asked any more",
            ("step",),
            (state.errors >= len(BACK_OFF)) & (state.held + seen.waited >= rules.deadline),
            fails(f"no verdict for {state.held + seen.waited} s at {now} %: {len(BACK_OFF)} queries got no answer"),
        ),
        Row("in place", ("promote",), seen.live, {"phase": "settle"}),
        Row("settled", ("settle",), seen.live & (seen.waited >= rules.settle), {"phase": "return"}),
        Row(
            "not in place in time",
            ("promote", "settle"),
            overdue & ~seen.live,
            fails(f"the component itself was not ready within {rules.deadline} s, after all checks were passed"),
        ),
        # A gateway that is slow still sends requests to the candidate. One that says nothing is waited for no longer.
        Row("routed", ("return",), seen.routed | overdue, {"phase": "drain"}),
        Row("returned", ("drain",), seen.waited >= DRAIN, {"phase": "done"}),
        Row("reverted", ("revert",), seen.live, {"phase": "failed"}),
        Row(
            "not reverted in time",
            ("revert",),
            overdue,
            {
                "phase": "failed",
                "reason": f"{state.reason}; the version of before was not ready again within {rules.deadline} s",
            },
        ),
        # A state of a later release, or one that was edited by hand.
        Row("not known", ANY, ~one_of(state.phase, *PHASES), fails(f"the phase {state.phase} is not known here")),
    )


def due(state: e.Reference, seen: e.Reference, rules: e.Reference) -> e.Expression:
    """Whether a check is to be made in this run."""
    return (
        (state.phase == "step")
        & ~_is_idle(state, rules)
        & (state.asked == 0)
        & (state.errors < len(BACK_OFF))
        & (seen.waited >= minimum(rules.interval * _patience(state), rules.deadline))
    )


def asking(state: e.Reference, seen: e.Reference, rules: e.Reference) -> dict[str, e.Value]:
    """The state as it is stored before a query is sent.

    Of the time since the last check as much counts as held as a check may take: a workflow that a person suspended
    did not hold meanwhile.
    """
    longest = 2 * rules.interval * _patience(state)
    return {
        **{name: state[name] for name in BLANK},
        "asked": 1,
        "held": state.held + minimum(seen.waited, longest),
    }


def happened(state: e.Reference, seen: e.Reference, rules: e.Reference) -> e.Expression:
    """The name of the first row that holds; empty where the state stays."""
    return cases(*((_holds(row, state), row.name) for row in table(state, seen, rules)), otherwise="")


def following(row: e.Expression, state: e.Reference, seen: e.Reference, rules: e.Reference) -> dict[str, e.Value]:
    """The state after what *row*, a name that :func:`happened` gave, says."""
    rows = table(state, seen, rules)

    def field(name: str) -> e.Value:
        # Most rows set a field to one of a few values: one question for all that set it to the same.
        changes: dict[object, tuple[e.Value, list[str]]] = {}
        for one in rows:
            if name in one.then:
                value = one.then[name]
                changes.setdefault(repr(value) if _is_constant(value) else id(value), (value, []))[1].append(one.name)
        return cases(
            *(
                (contains(names, row) if len(names) > 1 else row == names[0], value)
                for value, names in changes.values()
            ),
            otherwise=state[name],
        )

    return {**{name: field(name) for name in BLANK}, "version": VERSION}


def weight(state: e.Reference, rules: e.Reference) -> e.Expression:
    """The candidate's share of the traffic, in per cent, while this is the state."""
    # The list may have become shorter in mid-rollout.
    at = first_given(rules.steps[minimum(state.step, length(rules.steps) - 1)], 0)
    return cases(
        (one_of(state.phase, "step", "pause"), at), (one_of(state.phase, "promote", "settle"), 100), otherwise=0
    )


def is_shadow(state: e.Reference, rules: e.Reference) -> e.Expression:
    """Whether the candidate gets copies of the requests, and no request of its own."""
    return one_of(state.phase, "step", "pause") & (weight(state, rules) == 0) & (rules.shadow > 0)


def _is_constant(value: e.Value) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and e.is_constant(value))


def _is_idle(state: e.Reference, rules: e.Reference) -> e.Expression:
    """Whether nothing that reaches the candidate could be measured."""
    return (weight(state, rules) == 0) & (rules.shadow == 0)


def _patience(state: e.Reference) -> e.Expression:
    """How many intervals are waited until the next query."""
    return first_given(e.Literal(list(BACK_OFF))[minimum(state.errors, len(BACK_OFF) - 1)], 1)


def _holds(row: Row, state: e.Reference) -> e.Expression:
    if row.phases == ANY:
        return row.when
    return one_of(state.phase, *row.phases) & row.when


# ---------------------------------------------------------------- in Python


#: What need not be written.
_WITHOUT: Final[Mapping[str, Any]] = {"pauseAt": [], "shadow": 0, "via": "route"}
_ROWS = table(state, seen, rules)
_MARK, _WEIGHT, _DUE = asking(state, seen, rules), weight(state, rules), due(state, seen, rules)
_SHADOW = is_shadow(state, rules)


def step(before: Mapping[str, Any], what: Mapping[str, Any], how: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The state after one run of the step, and the name of the row that was taken (empty: none)."""
    given = {"state": before, "seen": what, "rules": {**_WITHOUT, **how}}
    for row in _ROWS:
        if ("" in row.phases or before["phase"] in row.phases) and evaluate(row.when, given):
            changes = {key: evaluate(value, given) for key, value in row.then.items()}
            return {**before, **changes, "version": VERSION}, row.name
    return {**before, "version": VERSION}, ""


def is_due(before: Mapping[str, Any], what: Mapping[str, Any], how: Mapping[str, Any]) -> bool:
    """Whether this run makes a check."""
    return bool(evaluate(_DUE, {"state": before, "seen": what, "rules": {**_WITHOUT, **how}}))


def mark(before: Mapping[str, Any], what: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """The state that is stored before a check's query is sent."""
    found: dict[str, Any] = evaluate(_MARK, {"state": before, "seen": what, "rules": {**_WITHOUT, **how}})
    return found


def share(of: Mapping[str, Any], how: Mapping[str, Any]) -> int:
    """The candidate's weight in per cent."""
    return int(evaluate(_WEIGHT, {"state": of, "rules": {**_WITHOUT, **how}}))


def mirrors(of: Mapping[str, Any], how: Mapping[str, Any]) -> bool:
    """Whether the candidate gets copies of the requests."""
    return bool(evaluate(_SHADOW, {"state": of, "rules": {**_WITHOUT, **how}}))
