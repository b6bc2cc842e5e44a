"""Webhooks as a verdict: what they are told, and that nothing but their word lets a version on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Cluster
from tests.e2e.loopback import Quiet, listening
from tests.e2e.test_rollout import Metrics, Rollout, addon, fresh, metrics

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.seconds(60)]
__all__ = ["addon", "metrics"]

ROOT = Path(__file__).parents[2]
PASS = (200, b'{"verdict": "pass"}')


class Judge:
    """A webhook: what it answers (None: it closes the connection), and what it was told."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] | None = PASS
        self.told: list[dict[str, Any]] = []
        self.url = ""


@contextmanager
def judging() -> Iterator[Judge]:
    judge = Judge()

    class Handler(Quiet):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            judge.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if judge.answer is None:
                self.connection.close()
                return
            status, body = judge.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as judge.url:
        yield judge


@pytest.fixture
def judge() -> Iterator[Judge]:
    with judging() as found:
        yield found


def judged(cluster: Cluster, metrics: Metrics, *judges: Judge, **settings: Any) -> Rollout:
    """Version 1 is stable, and these are asked of the next; the example's webhook is the first."""
    app = yaml.safe_load((ROOT / "examples/rollout-webhook.yaml").read_text(encoding="utf-8"))
    (first,) = app["spec"]["workflow"]["steps"][0]["properties"]["analysis"]["webhooks"]
    hooks = [{**first, "url": judges[0].url}]
    hooks += [{"name": f"judge-{number}", "url": one.url} for number, one in enumerate(judges[1:], 2)]
    return fresh(cluster, metrics, analysis={"webhooks": hooks}, **settings)


@pytest.mark.both
def test_a_version_that_a_webhook_passes_is_promoted(cluster: Cluster, metrics: Metrics, judge: Judge) -> None:
    rollout = judged(cluster, metrics, judge)
    assert judge.told == []
    rollout.up(2)
    rollout.wait("done", "app-v2")
    assert rollout.served() == "s3://models/m/2"
    assert [one["weight"] for one in judge.told] == [20, 50]
    assert judge.told[0] == {
        "application": "app",
        "namespace": cluster.namespace,
        "component": "m",
        "candidate": "m-canary",
        "revision": "app-v2",
        "modelUri": "s3://models/m/2",
        "weight": 20,
        "step": 1,
        "steps": 2,
        "data": {"set": "golden-200"},
    }


@pytest.mark.both
def test_one_of_two_webhooks_is_enough_to_take_it_back(cluster: Cluster, metrics: Metrics, judge: Judge) -> None:
    with judging() as other:
        rollout = judged(cluster, metrics, judge, other)
        other.answer = (200, b'{"reason": "17 of 200\\n answers differ", "verdict": "fail"}')
        rollout.up(2)
        rollout.wait("failed", "app-v2")
    words = "webhook judge-2: 17 of 200 answers differ in 2 checks at 20 %"
    assert words in rollout.message
    assert rollout.weight == 0
    assert rollout.served() == "s3://models/m/1"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, b""), "webhook golden-answers answered 200, and not with a verdict"),
        ((200, b"<html>pass</html>"), "webhook golden-answers answered 200, and not with a verdict"),
        ((200, b'{"verdict": true}'), "webhook golden-answers answered 200, and not with a verdict"),
        ((200, b'["pass"]'), "webhook golden-answers answered 200, and not with a verdict"),
        ((503, PASS[1]), "webhook golden-answers answered 503, and not with a verdict"),
        (
            (200, b'{"verdict": "inconclusive", "reason": "no \\\\n set yet"}'),
            "webhook golden-answers has no verdict: no \\n set yet",
        ),
        ((200, b'{"verdict": "inconclusive", "reason": 5}'), "webhook golden-answers has no verdict: no reason given"),
        (None, "the endpoint of the metrics or a webhook does not answer"),
    ],
    ids=["empty", "page", "no-text", "list", "status", "inconclusive", "no-reason", "no-answer"],
)
def test_what_is_no_verdict_passes_nothing(
    cluster: Cluster, metrics: Metrics, judge: Judge, answer: tuple[int, bytes] | None, words: str
) -> None:
    rollout = judged(cluster, metrics, judge, onInconclusive="rollback", inconclusiveLimit=2)
    judge.answer = answer
    rollout.up(2)
    rollout.wait("failed", "app-v2", 120)
    assert f"no verdict in 2 checks at 20 %: {words}" in rollout.message
    assert rollout.weight == 0
    assert rollout.served() == "s3://models/m/1"
    assert len(judge.told) == 2, "each attempt was written down before it was sent"
