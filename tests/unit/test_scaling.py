"""Pods that follow a load: the record of it, its table and page, the load itself, and `velagen demo autoscale`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from velagen.cli import main
from velagen.errors import VelagenError
from velagen.lab.traffic import MOST, here, open_loop
from velagen.scaling import demo
from velagen.scaling.demo import PLATEAUS, Now, Scaled, _Pods, drawn, in_words, load_of, table
from velagen.scaling.load import Load
from velagen.scaling.page import page
from velagen.scaling.record import (
    HEAD,
    Plateau,
    Record,
    Row,
    Span,
    formula,
    number_at,
    numbers_in,
    rows,
    settled_milliseconds,
)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "autoscale-demo.yaml"
ARTICLE = Scaled.of(yaml.safe_load(EXAMPLE.read_text()), str(EXAMPLE)).trait
LAW = {"metric": "concurrency", "policy": "littles-law", "minReplicas": 1, "maxReplicas": 9}


def record(**changed: Any) -> Record:
    """Forty seconds of 8 requests a second, then of 28, to which pods are late."""
    made = Record(
        at=1_700_000_000.0,
        trait=ARTICLE,
        spans=(Span(8, 0, 40), Span(28, 40, 80)),
        sent=[8] * 40 + [28] * 40,
        failed=[0] * 50 + [1] * 2 + [0] * 28,
        milliseconds=[10.0] * 40 + [20.0] * 39 + [None],
        asked=((0.0, 2), (62.0, 3)),
        ready=((0.0, 2), (71.5, 3)),
        pod_seconds=(9.0,),
    )
    return replace(made, **changed)


# ---------------------------------------------------------------- the record


def test_the_example_asks_for_unlike_pods_at_the_demos_plateaus() -> None:
    assert [formula(ARTICLE, one.rate) for one in PLATEAUS] == [2, 3, 5, 2]
    assert all(one.rate <= MOST and one.least <= one.longest for one in PLATEAUS)
    # Within five minutes, whatever the pods do.
    assert sum(one.longest for one in PLATEAUS) < 300


@pytest.mark.parametrize(
    ("trait", "rate", "milliseconds", "pods"),
    [
        (ARTICLE, 0.0, None, 2),
        (ARTICLE, 20.0, None, 2),
        (ARTICLE, 21.0, None, 3),
        (ARTICLE, 900.0, None, 6),
        # 40 a second of 100 ms are 4 at once; 0.8 of a pod is planned with.
        (LAW, 40.0, 100.0, 5),
        (LAW, 40.0, None, None),
        ({**LAW, "concurrencyPerReplica": 4}, 40.0, 100.0, 2),
        ({**LAW, "policy": "slo", "targetLatencyMilliseconds": 50}, 40.0, 100.0, 9),
        ({**LAW, "policy": "target", "target": 3}, 40.0, 100.0, None),
    ],
)
def test_the_pods_by_the_formula(trait: dict[str, Any], rate: float, milliseconds: float | None, pods: int) -> None:
    assert formula(trait, rate, milliseconds) == pods


def test_a_number_holds_until_it_changes() -> None:
    changes = ((0.0, 2), (10.0, 3), (20.0, 5))
    assert [number_at(changes, at) for at in (-1, 0, 9.9, 10, 99)] == [2, 2, 2, 3, 5]
    assert numbers_in(changes, Span(1, 5, 15)) == [2, 3]
    assert numbers_in(changes, Span(1, 10, 15)) == [3]


def test_each_plateau_has_a_row() -> None:
    assert rows(record()) == [
        Row(8.0, 2, [2], 2, 0.0, 320, 0),
        Row(28.0, 3, [2, 3], 3, 31.5, 1120, 2),
    ]
    assert rows(record())[1].cells() == ["28.0", "3", "2, 3", "3", "32 s", "1120", "2"]


def test_pods_that_are_not_the_formulas_are_told() -> None:
    (_, late) = rows(record(ready=((0.0, 2),)))
    assert (late.ready, late.took) == (2, None)
    assert "not within it" in late.cells()


def test_what_kubernetes_tolerates_is_right() -> None:
    # 31 a second ask for 3.1, and 3 are within a tenth of it.
    (row,) = rows(record(spans=(Span(31, 40, 80),), sent=[31] * 80))
    assert (row.formula, row.ready, row.took) == (4, 3, 31.5)


def test_a_plateau_may_say_what_it_ends_with() -> None:
    clock = record(
        trait={"metric": "schedule", "maxReplicas": 6}, spans=(Span(8, 0, 40, 2), Span(28, 40, 80, 5, "noon"))
    )
    assert [(row.formula, row.ready, row.took) for row in rows(clock)] == [(2, 2, 0.0), (5, 3, None)]


def test_littles_law_takes_the_time_that_requests_took() -> None:
    law = {**LAW, "maxReplicas": 9}
    # 28 a second of 80 ms are 2.24 at once, which are 2.8 pods' worth; of 84 ms 2.94; three are within a tenth of 3.15.
    for milliseconds, wanted in ((80.0, 3), (84.0, 3), (90.0, 4)):
        row = rows(record(trait=law, milliseconds=[milliseconds] * 80))[1]
        assert (row.formula, row.ready, row.took) == (wanted, 3, 31.5)
    assert rows(record(trait=law, milliseconds=[200.0] * 80))[1].took is None


def test_the_time_of_one_request_is_of_the_quietest_plateau() -> None:
    assert settled_milliseconds(record()) == 10.0
    assert settled_milliseconds(record(milliseconds=[None] * 80)) is None


def test_a_record_is_read_as_it_was_written() -> None:
    made = record()
    text = made.text()
    again = Record.of(text)
    assert again.text() == text
    assert rows(again) == rows(made)
    assert len(text.splitlines()) == 14


# ---------------------------------------------------------------- as a table, a screen and a page


def test_the_table_has_the_plateaus() -> None:
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as said:
        console.print(table(rows(record())))
    lines = said.get().splitlines()
    assert all(head in lines[1] for head in HEAD)
    assert any("28.0" in one and "2, 3" in one and "32 s" in one for one in lines)


def test_how_things_stand_is_said_and_drawn() -> None:
    now = Now(1, 28, 27.6, 3, 3, 2, 800, 1, 62.4)
    assert in_words(now) == (
        "62 s: 28 requests a second, 3 pods by the formula, 3 asked for, 2 ready; 800 requests, 1 failed"
    )
    assert "formula" not in in_words(replace(now, formula=None))
    console = Console(width=100)
    with console.capture() as said:
        console.print(drawn(now, 4))
    text = said.get()
    assert "plateau 2 of 4" in text
    assert "■ ■ □" in text
    assert text.count("▪") == 28


def test_the_page_stands_alone_and_shows_load_and_pods() -> None:
    text = page(record(), "<autoscale>").html()
    assert "&lt;autoscale&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    for shown in ("by the formula", "asked for", "28 requests a second", "targetLatencyMilliseconds: 8", "2 failed"):
        assert shown in text
    drawings = [one.split("</svg>")[0] for one in text.split("<svg")[1:]]
    assert len([one for one in drawings if 'viewBox="0 0 640 220"' in one]) == 3
    for one in drawings:
        fromstring(f"<svg{one}</svg>")


# ---------------------------------------------------------------- the load


class Model(BaseHTTPRequestHandler):
    """Answers, but for each tenth request."""

    protocol_version = "HTTP/1.1"
    hosts: list[str] = []  # noqa: RUF012  # one server a test
    lock = threading.Lock()

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:  # http.server's name
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.hosts.append(str(self.headers["Host"]))
            fails = len(self.hosts) % 10 == 0
        time.sleep(0.01)
        self.send_response(500 if fails else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def model() -> Iterator[str]:
    Model.hosts.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_load_is_counted_by_the_second(model: str) -> None:
    load = Load(model, "m.example.com", "/infer", {"inputs": []})
    assert load.answers()
    load.rate = 20
    with load.coming_in(longest=30):
        time.sleep(1.2)
        load.rate = 60
        time.sleep(1.3)
        assert load.recent(1) > 30
    sent, failed, took = load.by_second()
    assert 12 <= sent[0] <= 22
    assert sent[1] > sent[0]
    assert sum(sent) <= load.sent == len(Model.hosts) - 1
    assert load.failed == len(Model.hosts) // 10
    assert sum(failed) <= load.failed
    assert load.why() == f"status 500 ({load.failed})"
    assert all(one is not None and one >= 10 for one in took[:2])
    each = load.milliseconds()
    assert each is not None
    assert 10 <= each < 1000
    assert set(Model.hosts) == {"m.example.com"}


def test_a_load_that_nobody_answers_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        load = Load(f"http://127.0.0.1:{free.getsockname()[1]}", "m", "/", {})
    assert not load.answers()
    load.rate = 50
    with load.coming_in(longest=5):
        time.sleep(0.3)
    assert load.failed == load.sent > 0
    assert load.milliseconds() is None
    assert load.why() == f"ConnectionError ({load.sent})"


def test_a_load_ends_by_itself_and_has_a_highest_rate() -> None:
    calls: list[float] = []
    with open_loop(lambda: calls.append(time.perf_counter()), lambda: 10_000.0, longest=0.5):
        time.sleep(1.0)
    assert 5 < len(calls) <= 0.5 * MOST + 1
    assert calls[-1] - calls[0] < 0.8


def test_a_load_of_nothing_sends_nothing_and_begins_again() -> None:
    calls: list[float] = []
    rate = 50.0
    begun = time.perf_counter()
    with open_loop(lambda: calls.append(time.perf_counter() - begun), lambda: rate, longest=10):
        time.sleep(0.3)
        rate = 0.0
        time.sleep(0.6)
        before = len(calls)
        rate = 50.0
        time.sleep(0.5)
    assert 10 <= before <= 17
    assert not [at for at in calls if 0.4 < at < 0.9]
    assert len(calls) - before >= 10


@pytest.mark.parametrize(
    "address", ["http://models.example.com", "http://10.0.0.1:80", "https://127.0.0.1.example.com"]
)
def test_requests_go_to_this_machine_alone(address: str) -> None:
    with pytest.raises(VelagenError, match="not on it"):
        Load(address, "m", "/", {})
    assert here("http://127.0.0.1:30080") == "http://127.0.0.1:30080"


# ---------------------------------------------------------------- the pods


class Answers:
    """An API server's answers of a Deployment and its pods."""

    def __init__(self) -> None:
        self.replicas, self.ready = 2, 1

    def get(self, *_: str) -> dict[str, Any]:
        return {"spec": {"replicas": self.replicas}, "status": {"readyReplicas": self.ready}}

    def list(self, *_: str, selector: str) -> list[dict[str, Any]]:
        assert selector == "serving.kserve.io/inferenceservice=m"
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:16Z"}
        made = {"creationTimestamp": "2026-01-02T03:04:05Z"}
        pods = [{"metadata": {"name": f"p{place}", **made}, "status": {"conditions": [ready]}} for place in range(3)]
        pods[2]["status"]["conditions"][0] = {**ready, "status": "False"}  # type: ignore[index]
        return pods


def test_pods_are_kept_where_they_change() -> None:
    answers = Answers()
    pods = _Pods(answers, "space", "m")  # type: ignore[arg-type]  # as much of it as is asked for
    assert pods.look(0)
    assert pods.look(1)
    answers.ready = 2
    assert pods.look(2)
    assert (pods.asked, pods.ready) == ([(0, 2)], [(0, 1), (2, 2)])
    assert pods.took == {"p0": 11.0, "p1": 11.0}


# ---------------------------------------------------------------- the command


def test_it_says_where_it_can_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("velagen.cli.lab.why_no_kind", lambda: ["the docker client is not on PATH"])
    monkeypatch.setattr("velagen.cli.lab.kind_up", lambda *_, **__: pytest.fail("a cluster was started"))
    monkeypatch.chdir(ROOT)
    page = tmp_path / "plot.html"
    said = CliRunner().invoke(main, ["demo", "autoscale", "--dir", str(tmp_path / "lab"), "-o", str(page)])
    assert said.exit_code == 1
    assert "no kind cluster can be started (the docker client is not on PATH)" in said.stderr
    assert "python -m benchmarks.autoscale" in said.stderr
    assert not page.exists()


def test_a_page_that_can_not_be_written_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("velagen.cli.lab.kind_lab", lambda *_: pytest.fail("a lab was looked for"))
    monkeypatch.chdir(ROOT)
    said = CliRunner().invoke(main, ["demo", "autoscale", "-o", str(tmp_path / "none" / "plot.html")])
    assert said.exit_code == 1
    assert "does not exist" in said.stderr


def test_an_example_without_its_parts_is_refused() -> None:
    with pytest.raises(VelagenError, match=r"app.yaml: .*not an Application of one model"):
        Scaled.of({"spec": {"components": []}}, "app.yaml")


# ---------------------------------------------------------------- the whole of it, on a lab that is played


class Lab:
    """A lab whose pods follow at once: what the demo asks of it, and no more."""

    kubeconfig = Path("/nowhere/kubeconfig")

    def __init__(self, entry: str, *, follows: bool = True) -> None:
        self.entry = entry
        self.follows = follows
        self.api = self
        self.load: Load | None = None
        self.did: list[str] = []

    def url(self, what: str) -> str:
        self.did.append(what)
        return self.entry

    def apply(self, thing: dict[str, Any]) -> None:
        self.did.append(f"{thing['kind']} {thing['metadata']['name']}")

    def pods(self, _: str) -> str:
        return "pod x waits"

    def list(self, *_: str, selector: str) -> list[dict[str, Any]]:  # as the API server's client
        return []

    def get(self, _: str, kind: str, name: str, space: str) -> dict[str, Any] | None:
        assert space == "autoscale-demo"
        if kind == "InferenceService":
            ready = {"type": "Ready", "status": "True"}
            return {"status": {"conditions": [ready], "url": f"http://{name}-{space}.example.com"}}
        if kind == "Application":
            return None
        assert (kind, name) == ("Deployment", "autoscale-demo-predictor")
        rate = self.load.rate if self.load else 0
        pods = formula(ARTICLE, rate) if self.follows else 2
        return {"spec": {"replicas": pods}, "status": {"readyReplicas": pods}}


@pytest.mark.parametrize("follows", [True, False])
def test_the_demo_shows_whether_the_pods_follow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str, *, follows: bool
) -> None:
    lab = Lab(model, follows=follows)
    commands: list[tuple[str, ...]] = []
    stored: dict[str, str] = {}

    def loaded(*arguments: Any) -> Load:
        lab.load = load_of(*arguments)
        return lab.load

    monkeypatch.setattr(demo, "vela", lambda _, *arguments: commands.append(tuple(map(str, arguments))))
    monkeypatch.setattr(demo, "put_model_file", lambda _, name, content: stored.update({name: content}))
    monkeypatch.setattr(demo, "load_of", loaded)
    monkeypatch.setattr(demo, "PLATEAUS", (Plateau(8, 0.5, 3), Plateau(28, 1, 3)))
    monkeypatch.setattr(demo, "_HOLD", 0.3)
    console, plot = Console(width=160), tmp_path / "plot.html"
    with console.capture() as captured:
        if follows:
            demo.demo(EXAMPLE, lab, console, plot, tmp_path / "kept.json")
            assert [one.ready for one in rows(Record.of((tmp_path / "kept.json").read_text()))] == [2, 3]
        else:
            with pytest.raises(VelagenError, match=r"did not follow in time: 2 pods at \d+ a second, and 3 wanted"):
                demo.demo(EXAMPLE, lab, console, plot)
    said = captured.get()
    assert list(stored) == ["autoscale-demo/1/waits/config.pbtxt", "autoscale-demo/1/waits/1/model.py"]
    assert "time.sleep(0.005)" in stored["autoscale-demo/1/waits/1/model.py"]
    assert lab.did == ["models", "models", "Namespace autoscale-demo", "gateway"]
    ((up, _, file, *where),) = commands
    assert (up, Path(file).name, where) == ("up", "app.yaml", ["-n", "autoscale-demo", "-y"])
    # A line for each change, the table, the page.
    assert "s: 8 requests a second, 2 pods by the formula, 2 asked for, 2 ready" in said
    assert ("28 requests a second, 3 pods by the formula, 3 asked for, 3 ready" in said) == follows
    assert ("not within it" in said) != follows
    assert "vela delete autoscale-demo -n autoscale-demo -y" in said
    assert "28 requests a second" in plot.read_text()
    assert set(Model.hosts) == {"autoscale-demo-autoscale-demo.example.com"}


def test_a_model_that_does_not_come_up_is_told_with_its_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_PATIENCE", 0.2)
    lab = Lab("http://127.0.0.1:1")
    monkeypatch.setattr(lab, "get", lambda *_: None)
    scaled = Scaled.of(yaml.safe_load(EXAMPLE.read_text()), "app.yaml")
    with pytest.raises(VelagenError, match=r"model autoscale-demo ready: not within 0 s\npod x waits"):
        load_of(lab, scaled, "autoscale-demo")
