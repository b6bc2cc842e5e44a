"""What the step rollout-model has written down of a rollout: its state, its settings, and what happened, line by line.

It is the ConfigMap NAME-rollout (definitions/_rollout_next.py). A later release may write more, and a person may have
edited it: what can't be read is left out, and said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from velagen.rollout import transitions

Verdict = Literal["good", "bad", "inconclusive", "none"]
_VERDICTS: Final[tuple[Verdict, ...]] = ("good", "bad", "inconclusive")
#: The rows of velagen.rollout.transitions, as a person says them.
IN_WORDS: Final[Mapping[str, str]] = {
    "deployed anew": "the component is deployed as it is",
    "begun": "a new version is brought in",
    "stopped": "stopped",
    "deployed": "deployed",
    "ready": "the new version is ready",
    "warm": "it gets its first requests",
    "not ready in time": "not ready in time",
    "not routed in time": "the gateway did not know it in time",
    "failed": "too many failed checks",
    "check failed": "a check failed",
    "last step passed": "the last step is passed",
    "step passed": "a step is passed",
    "check passed": "a check is passed",
    "no verdict in time": "no verdict in time",
    "too often no verdict": "too often no verdict",
    "no answer": "the metrics gave no answer",
    "no verdict": "a check without a verdict",
    "not asked any more": "the metrics are not asked any more",
    "in place": "the component itself is the new version",
    "settled": "the component takes the traffic over",
    "not in place in time": "the component itself was not ready in time",
    "routed": "the gateway sends all requests to the component",
    "returned": "done",
    "strayed": "KServe sent requests to another version",
    "reverted": "the component is the version of before again",
    "not reverted in time": "the version of before was not ready in time",
    "paused without traffic": "a person lets it go on, by vela workflow resume",
    "never measured": "a step that nothing could measure",
    "paused": "a step is passed; a person lets it go on, by vela workflow resume",
    "pause over": "a person let it go on",
    "last pause over": "a person let it go on, behind the last step",
    "not known": "the state is not known here",
}


@dataclass(frozen=True)
class Bound:
    """A number that a check looked at."""

    name: str
    #: As Prometheus said it; empty where it said nothing.
    value: str
    unit: str
    limit: float
    at_most: bool

    def __str__(self) -> str:
        """``success ratio 0.93 (at least 0.99)``."""
        value = f"{self.value}{self.unit}" if self.value else "without a value"
        return f"{self.name} {value} (at {'most' if self.at_most else 'least'} {self.limit:g}{self.unit})"


@dataclass(frozen=True)
class Entry:
    """One thing that happened, and how things stood after it."""

    #: Seconds since 1970, late by 10 s at most (the step's clock); None where it can't be read.
    at: float | None
    row: str
    revision: str
    phase: str
    step: int
    #: Per cent for the new version.
    weight: int
    verdict: Verdict
    why: str
    #: That the new version answered in five minutes, as text; empty where nobody asked.
    requests: str = ""
    bounds: tuple[Bound, ...] = ()

    @property
    def is_check(self) -> bool:
        """Whether it came of a check."""
        return self.verdict != "none" or self.row == "no answer"

    @property
    def checked_step(self) -> int:
        """The step, from 0, in which a check was made; a passed one may have led to the next."""
        return self.step - (self.row == "step passed")

    @property
    def words(self) -> str:
        """What happened, in words."""
        return IN_WORDS.get(self.row, self.row)


@dataclass(frozen=True)
class Stored:
    """All that the ConfigMap of a component says."""

    component: str
    state: Mapping[str, Any]
    settings: Mapping[str, Any]
    revision: str = ""
    #: Whether a version is known to go back to.
    has_stable: bool = False
    history: tuple[Entry, ...] = ()
    #: What could not be read.
    unreadable: tuple[str, ...] = ()

    @property
    def phase(self) -> str:
        """One of velagen.rollout.transitions.PHASES; empty where there is none yet."""
        return str(self.state["phase"])

    @property
    def steps(self) -> tuple[int, ...]:
        """Percentages, step by step."""
        found = self.settings.get("steps")
        return tuple(int(one) for one in found if _is_number(one)) if isinstance(found, list) else ()

    def share_checked(self, check: Entry) -> str:
        """The share at which a check was made, in words."""
        steps = self.steps
        return f"{steps[check.checked_step]} %" if 0 <= check.checked_step < len(steps) else "-"

    @property
    def weight(self) -> int:
        """Per cent that the new version is to get."""
        return transitions.share(self.state, {"steps": list(self.steps)})

    @property
    def has_ended(self) -> bool:
        """Whether nothing happens any more."""
        return self.phase in transitions.ENDS

    @property
    def run(self) -> tuple[Entry, ...]:
        """What happened in the last rollout, from its beginning on, as far as it is kept."""
        starts = [place for place, one in enumerate(self.history) if one.row in ("begun", "deployed anew")]
        return self.history[starts[-1] :] if starts else self.history

    @property
    def checks(self) -> tuple[Entry, ...]:
        """Those of the last rollout that came of a check."""
        return tuple(one for one in self.run if one.is_check)


def read(component: str, config_map: Mapping[str, Any]) -> Stored:
    """What a ConfigMap says; what it does not say is as before a rollout."""
    data: Mapping[str, Any] = config_map.get("data") or {}
    unreadable: list[str] = []

    def parsed(name: str) -> Mapping[str, Any]:
        text = data.get(name) or "{}"
        try:
            found = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            unreadable.append(name)
            return {}
        return found

    found = parsed("state")
    state = {name: _like(found.get(name), blank) for name, blank in transitions.BLANK.items()}
    entries = []
    for line in str(data.get("history") or "").splitlines():
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            if "history" not in unreadable:
                unreadable.append("history")
    return Stored(
        component,
        state,
        parsed("settings"),
        str(data.get("revision") or ""),
        bool(data.get("stableComponent")),
        tuple(entries),
        tuple(unreadable),
    )


def _entry(line: Mapping[str, Any]) -> Entry:
    verdict: Verdict = next((one for one in _VERDICTS if one == line.get("check")), "none")
    return Entry(
        _time(line.get("at")),
        str(line["row"]),
        str(line.get("revision", "")),
        str(line["phase"]),
        int(line.get("step", 0)),
        int(line.get("weight", 0)),
        verdict,
        str(line.get("why", "")),
        str(line.get("requests", "")),
        tuple(_bound(one) for one in line.get("bounds") or ()),
    )


def _bound(one: Mapping[str, Any]) -> Bound:
    return Bound(
        str(one["name"]), str(one.get("value", "")), str(one.get("unit", "")), float(one["limit"]), bool(one["atMost"])
    )


def _like(value: Any, blank: int | str) -> int | str:
    if isinstance(blank, str):
        return value if isinstance(value, str) else blank
    return int(value) if _is_number(value) else blank


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _time(text: Any) -> float | None:
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
