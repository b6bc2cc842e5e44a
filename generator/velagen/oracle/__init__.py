"""What CUE itself says: a warm evaluator process that survives what kills or hangs an evaluator.

The other side is ``go/main.go``. Version 0.9.2 is linked with KubeVela 1.10, 0.14.1 with KubeVela 1.11: the conversion
to OpenAPI and the rewriting of older CUE are KubeVela's own code.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from velagen.errors import Place, Problem, VelagenError
from velagen.kubevela import RELEASES
from velagen.kubevela import CueVersion as Version
from velagen.tools import tool, without_go

VERSIONS: tuple[Version, ...] = tuple(release.cue for release in RELEASES)
#: The variable CUE reads experiments from; a version ends with an error where it names one that it doesn't know.
_EXPERIMENT = "CUE_EXPERIMENT"
#: A question may wait this many times its processor time for the processor.
_PATIENCE = 20
#: What KubeVela puts beside a template when it renders.
CONTEXT = 'context: {name: "app", appName: "app", namespace: "default"}'


@dataclass(frozen=True)
class Verdict:
    """The answer to one question."""

    ok: bool
    #: CUE's words, one error a line; empty where ok.
    error: str = ""
    #: ``crash`` or ``timeout`` where the process did not survive the question.
    fate: str = ""
    #: What was asked for, where the question asks for something.
    result: Any = None

    def __bool__(self) -> bool:
        return self.ok

    def answered(self, about: str, place: Place) -> Self:
        """This verdict. Raises VelagenError where there is none, since the question ended the evaluator."""
        if not self.fate:
            return self
        hint = (
            "a definition makes CUE run away, or the machine was too busy: try again" if self.fate == "timeout" else ""
        )
        raise VelagenError(Problem(f"{about} was not judged: {self.error}", place, hint))

    @classmethod
    def without_answer(cls, fate: str, version: str, seconds: float) -> Self:
        """That of a question which ended the evaluator: CUE has said nothing."""
        if fate == "timeout":
            return cls(False, f"CUE {version} gave no answer in {seconds:g} s of processor time", fate)
        return cls(False, f"CUE {version} crashed", fate)


def not_here(version: Version) -> Problem | None:
    """The warning where no evaluator of *version* is here and none can be built, since there is no Go; else None.

    It is velagen's own Go code, linked with KubeVela's: nobody publishes it.
    """
    if without_go([("cue-oracle", version)]):
        return None
    release = next(one for one in RELEASES if one.cue == version)
    return Problem(
        f"not judged by the code of {release}: velagen's evaluator is built with Go, which is not on PATH",
        hint="All else was checked. Install Go, then: velagen tools install cue-oracle",
        severity="warning",
    )


class Oracle:
    """One evaluator process; a context manager.

    *seconds* is the processor time a question may take; where a system does not tell that, and on a machine that gives
    the evaluator next to nothing, `_PATIENCE` times as long by the clock. A question that takes longer, or kills the
    process, gets a verdict that says so, and the next question a new process. It evaluates as vela-core does where the
    chart starts it; with *by_default*, as CUE does by itself: ``vela`` on a person's machine, or vela-core without the
    chart's environment.
    """

    def __init__(self, version: Version = "0.9.2", *, seconds: float = 10.0, by_default: bool = False) -> None:
        self.version = version
        self.seconds = seconds
        self._environment = {name: value for name, value in os.environ.items() if name != _EXPERIMENT}
        if not by_default:
            self._environment |= dict(next(one.environment for one in RELEASES if one.cue == version))
        self._binary = str(tool("cue-oracle", version))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a further question starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def processor_seconds(self) -> float:
        """What the evaluator process has used up to now.

        Raises VelagenError where no process runs, or the system does not tell (it has no /proc).
        """
        used = None if self._process is None else _processor_seconds(self._process.pid)
        if used is None:
            raise VelagenError(Problem("the evaluator's processor time can't be read"))
        return used

    # ------------------------------------------------------------ questions

    def vet(self, text: str, values: Sequence[Any], path: str = "parameter") -> list[Verdict]:
        """Each of *values* as ``cue vet -c`` judges it as the field *path* beside *text*."""
        return self._values("vet", text, values, path, "")

    def render(
        self, text: str, values: Sequence[Any], path: str = "parameter", context: str = CONTEXT
    ) -> list[Verdict]:
        """Each of *values* as KubeVela's rendering judges it: one text, compiled, validated without Concrete."""
        return self._values("render", text, values, path, context)

    def compile(self, text: str) -> Verdict:
        """*text* alone, as the admission webhook reads a template."""
        return self.ask("compile", text)

    def openapi(self, text: str) -> Verdict:
        """The OpenAPI schema that KubeVela derives from ``parameter`` in *text*, as the verdict's result."""
        return self.ask("openapi", text)

    def rewritten(self, text: str, about: str = "the text", place: Place | None = None) -> tuple[str, ...]:
        """The passes of KubeVela's rewriting of older CUE that change *text* before it is evaluated; none up to 1.10.

        Raises VelagenError where the evaluator does not survive it, which is said of *about* at *place*.
        """
        answer = self._exchange({"op": "rewrite", "text": text})
        if isinstance(answer, str):
            self._no_answer(answer).answered(about, place or Place())
            return ()
        return tuple(answer.get("fixes") or ())

    def eval(self, text: str, path: str = "", extra: str = "") -> Verdict:
        """*text* with *extra* behind it, evaluated; the value at *path* as the verdict's result."""
        return self.ask("eval", text, path=path, extra=extra)

    def imported(self, schema: Any, values: Sequence[Any]) -> list[Verdict]:
        """Each of *values* judged by what CUE's own JSON Schema importer makes of *schema*, as ``cue vet -c`` would."""
        return self._values("import", json.dumps(schema), values, "", "")

    def ask(self, op: str, text: str, **more: Any) -> Verdict:
        """Any question of go/main.go."""
        answer = self._exchange({"op": op, "text": text, **more})
        if isinstance(answer, str):
            return self._no_answer(answer)
        return Verdict(answer["ok"], answer.get("error", ""), "", answer.get("result", answer.get("text")))

    def _no_answer(self, fate: str) -> Verdict:
        return Verdict.without_answer(fate, self.version, self.seconds)

    def _values(self, op: str, text: str, values: Iterable[Any], path: str, extra: str) -> list[Verdict]:
        values = list(values)
        answer = self._exchange({"op": op, "text": text, "path": path, "values": values, "extra": extra})
        if isinstance(answer, str):
            if len(values) > 1:  # find out which one it was
                return [one for value in values for one in self._values(op, text, [value], path, extra)]
            return [self._no_answer(answer)] * len(values)
        if not answer["ok"]:
            return [Verdict(False, answer.get("error", ""))] * len(values)
        return [Verdict(one["ok"], one.get("error", "")) for one in answer.get("verdicts") or ()]

    # ------------------------------------------------------------ the process

    def _exchange(self, question: dict[str, Any]) -> dict[str, Any] | str:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [self._binary],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the evaluator has no pipes")
        # ASCII and one line: json.dumps escapes all else.
        line = json.dumps(question).encode() + b"\n"
        try:
            stdin.write(line)
            stdin.flush()
        except BrokenPipeError:
            self.close()
            return "crash"
        answer = _read_line(stdout, _Allowance(self._process.pid, self.seconds))
        if answer is None or not answer.endswith(b"\n"):
            self.close()
            return "timeout" if answer is None else "crash"
        decoded: dict[str, Any] = json.loads(answer)
        return decoded


class _Allowance:
    """The time that a process may still take for a question that begins now."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid, self._seconds = pid, seconds
        self._began = _processor_seconds(pid)
        self._last = time.monotonic() + seconds * _PATIENCE

    def left(self) -> float:
        """Seconds for which it makes sense to wait before asking again; 0 where the time is up."""
        used = _processor_seconds(self._pid)
        if used is None or self._began is None:
            return self._last - time.monotonic()
        return min(self._seconds - (used - self._began), self._last - time.monotonic())


def _processor_seconds(pid: int) -> float | None:
    """What a process has used up to now; None where the system has no /proc. Source: proc(5), utime and stime."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read_line(stream: IO[bytes], allowance: _Allowance) -> bytes | None:
    """A line; None when the time is up first, a line without end where the stream ends."""
    parts: list[bytes] = []
    descriptor = stream.fileno()
    while True:
        left = allowance.left()
        if left <= 0:
            return None
        if not select.select([descriptor], [], [], max(left, 0.05))[0]:
            continue
        part = os.read(descriptor, 1 << 20)
        parts.append(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)
