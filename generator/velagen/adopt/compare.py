"""Where two InferenceServices differ, beyond how they are written and what the component adds on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from velagen.adopt.defaults import MODE, defaulted
from velagen.adopt.table import ADDED, NAME_FLAGS, OTHER_TOOLS
from velagen.kserve.cut import PARTS
from velagen.kubernetes.quantity import amount

Path = tuple[str, ...]
#: Where one of the two has nothing.
ABSENT: Final = object()
#: Which autoscaler, and the one without it (KServe pkg/constants/constants.go, DefaultAutoscalerClass).
_CLASS: Final = "serving.kserve.io/autoscalerClass"
_USUAL_CLASS: Final = "hpa"


@dataclass(frozen=True)
class Difference:
    """One place where what comes back is not what was there."""

    path: Path
    #: `ABSENT` where there was nothing.
    wanted: Any
    #: `ABSENT` where nothing comes back.
    got: Any

    def __str__(self) -> str:
        """``spec.predictor.minReplicas: was 2, comes back as 1``."""
        where = ".".join(self.path)
        if self.got is ABSENT:
            return f"{where}: was {_short(self.wanted)}, and is missing"
        if self.wanted is ABSENT:
            return f"{where}: was not there, and comes back as {_short(self.got)}"
        return f"{where}: was {_short(self.wanted)}, comes back as {_short(self.got)}"


def differences(before: dict[str, Any], after: dict[str, Any], *, strict: bool = False) -> list[Difference]:
    """Where *after* differs from *before*, both as KServe's webhook keeps them.

    With *strict* what the component adds (`ADDED`), and what it says in other words, is a difference too: KServe copies
    annotations to the pods, and a flag that is there twice replaces them.
    """
    wanted, got = normal(before), normal(after)
    if not strict:
        _name_alike(wanted, got)
    found = list(compared(wanted, got))
    return [one for one in found if not _is_added(one, wanted, strict=strict)]


def normal(service: dict[str, Any]) -> dict[str, Any]:
    """What of an object is a person's: its spec, labels and annotations, without what is empty."""
    found = defaulted(service)
    metadata = found.get("metadata") or {}
    own = {
        kind: {key: value for key, value in (metadata.get(kind) or {}).items() if not key.startswith(OTHER_TOOLS)}
        for kind in ("labels", "annotations")
    }
    spec = {key: value for key, value in (found.get("spec") or {}).items() if value is not None}
    return {"metadata": {}, "spec": {}, **_without_nothing({"metadata": own, "spec": spec}, ())}


def added(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The roots, as in `ADDED`, of what the component added."""
    seen = {_root(one.path) for one in differences(before, after, strict=True) if one.wanted is ABSENT}
    return [".".join(root) for root in ADDED if root in seen]


def _without_nothing(value: Any, path: Path) -> Any:
    """A copy without null and without empty maps and lists, which say nothing, but for `_SAYING_EMPTY`."""
    if isinstance(value, dict):
        items = {key: _without_nothing(one, (*path, key)) for key, one in value.items()}
        # KServe keeps a container's name as "" where it has none.
        return {
            key: one
            for key, one in items.items()
            if one is not None and (one not in ({}, []) or key in _SAYING_EMPTY) and (key, one) != ("name", "")
        }
    if isinstance(value, list):
        return [_without_nothing(one, path) for one in value]
    if len(path) > 1 and path[-2] in ("requests", "limits"):
        return _quantity(value)
    return value


#: Fields in which an empty map says something.
_SAYING_EMPTY: Final = frozenset(("emptyDir", "podSelector", "namespaceSelector", "labelSelector", "autoScaling"))


def _quantity(value: Any) -> Any:
    """An amount in one form: ``1``, ``"1"`` and ``1000m`` are the same."""
    text = str(value).strip()
    found = amount(text)
    return text if found is None else str(found.normalize())


def _name_alike(wanted: dict[str, Any], got: dict[str, Any]) -> None:
    """Take out what says the same in both in other words: the ServingRuntime, the name, the mode, the autoscaler.

    A ServingRuntime that was not named is the one that KServe takes (`velagen.adopt.convert`); a model that is not
    named has the InferenceService's name, which the runtimes' own flags say.
    """
    model, other = (one["spec"].get("predictor", {}).get("model", {}) for one in (wanted, got))
    if "runtime" not in model:
        other.pop("runtime", None)
    for one, beside in ((wanted, got), (got, wanted)):
        annotations = one.get("metadata", {}).get("annotations", {})
        if MODE not in beside.get("metadata", {}).get("annotations", {}):
            annotations.pop(MODE, None)
        if annotations.get(_CLASS) == _USUAL_CLASS:
            del annotations[_CLASS]
        if not annotations and "annotations" in one.get("metadata", {}):
            one["metadata"].pop("annotations")
    for part in PARTS:
        left, right = (one["spec"].get(part) for one in (wanted, got))
        if isinstance(left, dict) and isinstance(right, dict):
            pairs = [(left.get("model"), right.get("model"))]
            pairs += list(zip(left.get("containers", []), right.get("containers", []), strict=False))
            for ours, theirs in pairs:
                if isinstance(ours, dict) and isinstance(theirs, dict):
                    _flags_alike(ours, theirs)
                    _env_alike(ours, theirs)


def _flags_alike(wanted: dict[str, Any], got: dict[str, Any]) -> None:
    """Where the component names the model and the object does not, or in another place among the arguments."""
    for flag in dict.fromkeys(NAME_FLAGS.values()):
        name, rest = named(got.get("args"), flag)
        own, others = named(wanted.get("args"), flag)
        if name is not None and own in (name, None):
            for one, args in ((wanted, others), (got, rest)):
                if args:
                    one["args"] = args
                else:
                    one.pop("args", None)


def named(args: Any, flag: str) -> tuple[str | None, list[Any]]:
    """The name that a flag gives, None where it does not stand there, and the other arguments."""
    rest: list[Any] = []
    name: str | None = None
    listed = list(args) if isinstance(args, list) else []
    while listed:
        one = listed.pop(0)
        if one == flag and listed:
            name = str(listed.pop(0))
        elif isinstance(one, str) and one.startswith(f"{flag}="):
            name = one.partition("=")[2]
        else:
            rest.append(one)
    return name, rest


def _env_alike(wanted: dict[str, Any], got: dict[str, Any]) -> None:
    """MLServer's name of the model, which KServe's webhook sets where it is not there (SetMlServerDefaults)."""
    names = [one.get("name") for one in wanted.get("env", ())]
    if "MLSERVER_MODEL_NAME" not in names and "env" in got:
        got["env"] = [one for one in got["env"] if one.get("name") != "MLSERVER_MODEL_NAME"]
        if not got["env"]:
            del got["env"]


def compared(wanted: Any, got: Any, path: Path = ()) -> Iterator[Difference]:
    """Where two values differ: through maps by their keys, and through lists of things with names by these."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key in (*wanted, *(key for key in got if key not in wanted)):
            yield from compared(wanted.get(key, ABSENT), got.get(key, ABSENT), (*path, key))
    elif isinstance(wanted, dict) and got is ABSENT and wanted:
        for key, value in wanted.items():
            yield from compared(value, ABSENT, (*path, key))
    elif isinstance(got, dict) and wanted is ABSENT and got:
        for key, value in got.items():
            yield from compared(ABSENT, value, (*path, key))
    elif _is_named(wanted) and _is_named(got) and [one["name"] for one in wanted] == [one["name"] for one in got]:
        for one, other in zip(wanted, got, strict=True):
            yield from compared(one, other, (*path, one["name"]))
    elif wanted != got or isinstance(wanted, bool) != isinstance(got, bool):
        yield Difference(path, wanted, got)


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in value)


def _is_added(one: Difference, wanted: dict[str, Any], *, strict: bool) -> bool:
    """Whether the component put it where the object had nothing."""
    root = _root(one.path)
    return not strict and one.wanted is ABSENT and root is not None and not _has(wanted, one.path[: 1 + len(root)])


def _root(path: Path) -> Path | None:
    """Which of `ADDED` a path stands at or below."""
    below = path[1:]
    for root in ADDED:
        if len(below) >= len(root) and all(step in ("*", part) for step, part in zip(root, below, strict=False)):
            return root
    return None


def _has(value: Any, path: Path) -> bool:
    for part in path:
        if isinstance(value, list):
            value = next((one for one in value if isinstance(one, dict) and one.get("name") == part), ABSENT)
        else:
            value = value.get(part, ABSENT) if isinstance(value, dict) else ABSENT
        if value is ABSENT:
            return False
    return True


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
