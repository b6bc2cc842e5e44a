"""An evaluator that gives no answer is told apart from one that refuses, and a busy machine from CUE that runs away."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from velagen.errors import Place, VelagenError
from velagen.oracle import Oracle

#: Four million items: many seconds of processor time.
RUNS_AWAY = 'import "list"\nx: [for a in list.Range(0, 2000, 1) for b in list.Range(0, 2000, 1) {a * b}]'


def test_what_takes_too_long_is_a_time_out_and_no_error_of_the_definition() -> None:
    with Oracle("0.14.1", seconds=1) as oracle:
        answer = oracle.eval(RUNS_AWAY)
        assert (bool(answer), answer.fate) == (False, "timeout")
        with pytest.raises(VelagenError) as caught:
            answer.answered("the template of trait web", Place("web.py", 3))
        (problem,) = caught.value.problems
        assert problem.message == (
            "the template of trait web was not judged: CUE 0.14.1 gave no answer in 1 s of processor time"
        )
        assert (problem.place.line, problem.hint.endswith("the machine was too busy: try again")) == (3, True)
        # The next question has a new process.
        assert oracle.eval("x: 1", "x").answered("x", Place()).result == 1


def test_an_evaluator_that_is_given_no_processor_is_waited_for() -> None:
    with Oracle("0.14.1", seconds=0.4) as oracle:
        assert oracle.compile("x: 1")
        assert oracle._process is not None
        pid = oracle._process.pid
        os.kill(pid, signal.SIGSTOP)
        later = threading.Timer(1.2, os.kill, (pid, signal.SIGCONT))
        later.start()
        try:
            assert oracle.eval("x: 2", "x").result == 2
        finally:
            later.cancel()
            os.kill(pid, signal.SIGCONT)
