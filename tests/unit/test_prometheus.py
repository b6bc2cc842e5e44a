"""Asking Prometheus: a real one for what it answers, a small server for what stands in its place."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from tests.unit.prometheus_server import Series, holding

from velagen.errors import VelagenError
from velagen.monitoring import prometheus as module
from velagen.monitoring.prometheus import Prometheus, PrometheusError, quoted, without_password

#: Odd names: what encodings trip over.
ODD = 'a"b\\c é{}+&%'
NOW = float(int(time.time()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    series: list[Series] = [
        ("steady", {"version": "m"}, lambda ago: 4.0),
        ("steady", {"version": "m-canary"}, lambda ago: ago),
        ("odd", {"version": "a+b"}, lambda ago: 1.0),
        ("nothing", {}, lambda ago: math.nan if ago % 30 else 2.0),
        ("gone", {}, lambda ago: 1.0 if ago >= 600 else None),
    ]
    with holding(tmp_path_factory.mktemp("prometheus"), series, back=1800, now=NOW) as address:
        yield address


def test_instant(server: str) -> None:
    asked = Prometheus(server + "/")
    found = {one.labels["version"]: (one.value, one.at) for one in asked.instant("steady", NOW)}
    assert found == {"m": (4.0, NOW), "m-canary": (0.0, NOW)}
    assert {one.labels["version"]: one.value for one in asked.instant("steady", NOW - 60)}["m-canary"] == 60
    (scalar,) = asked.instant("1 + 1")
    assert (scalar.labels, scalar.value) == ({}, 2)
    assert abs(scalar.at - time.time()) < 30
    # A plus and a quote arrive as they are.
    assert [one.value for one in asked.instant('odd{version="a+b"}', NOW)] == [1]
    assert asked.instant(f"odd{{version={quoted(ODD)}}}", NOW) == []


def test_no_number_is_no_answer(server: str) -> None:
    asked = Prometheus(server)
    assert asked.instant("0 / 0") == []
    assert asked.instant("1 / 0") == []
    assert asked.instant("nothing", NOW - 15) == []
    assert [one.value for one in asked.instant("nothing", NOW - 30)] == [2]
    # What ended ten minutes ago is not there, and what never was neither.
    assert asked.instant("gone", NOW) == []
    assert asked.instant("never", NOW) == []


def test_range_has_a_value_or_a_gap_at_each_time(server: str) -> None:
    asked = Prometheus(server)
    lines = asked.range("nothing", NOW - 60, NOW, 15)
    assert lines.times == (NOW - 60, NOW - 45, NOW - 30, NOW - 15, NOW)
    assert [one.values for one in lines.lines] == [(2, None, 2, None, 2)]
    (line,) = asked.range('steady{version="m-canary"}', NOW - 2100, NOW - 1500, 300).lines
    assert line.values == (None, 1800, 1500)
    assert asked.range("never", NOW - 60, NOW, 15).lines == ()
    (gone,) = asked.range("gone", NOW - 1200, NOW, 300).lines
    assert gone.values[0] == 1
    assert gone.values[-1] is None


def test_what_prometheus_refuses_is_said_in_its_words(server: str) -> None:
    asked = Prometheus(server)
    with pytest.raises(PrometheusError, match=r"refused the query: .*parse error") as caught:
        asked.instant("sum(")
    assert caught.value.kind == "query"
    assert caught.value.problems[0].hint == "sum("
    with pytest.raises(PrometheusError, match="gives a matrix, where numbers are wanted"):
        asked.instant("steady[1m]")
    with pytest.raises(PrometheusError, match=r"refused the query: .*(duplicate|same labelset)"):
        asked.instant('label_replace(steady, "version", "x", "", "")', NOW)


@pytest.mark.parametrize(("start", "end", "step"), [(0, 60, 0), (60, 0, 15), (0, 60, -1), (0, 11_000, 1)])
def test_no_stretch_of_time(start: float, end: float, step: float) -> None:
    with pytest.raises(ValueError, match=r"no stretch of time|take a longer step"):
        Prometheus("http://127.0.0.1:1").range("up", start, end, step)


@contextmanager
def answering(status: int, body: str, wait: float = 0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            time.sleep(wait)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (503, '{"status":"error","errorType":"unavailable","error":"TSDB not ready"}', "unavailable", "TSDB not ready"),
        (503, "Service Unavailable", "unavailable", r"can't answer \(503\): Service Unavailable"),
        (502, "<html><h1>502 Bad Gateway</h1></html>", "unavailable", r"can't answer \(502\): 502 Bad Gateway"),
        (401, "Unauthorized", "unreachable", r"asks for credentials \(401\)"),
        (404, "404 page not found", "unreachable", r"not as a Prometheus \(404\): 404 page not found"),
        (200, "<html>Grafana: log in</html>", "unreachable", r"not as a Prometheus \(200\): Grafana: log in"),
        (200, "[]", "unreachable", "not as a Prometheus"),
        (422, '{"status":"error","errorType":"execution","error":"too many samples"}', "query", "too many samples"),
        (200, "", "unreachable", "not as a Prometheus"),
    ],
)
def test_what_stands_in_its_place(status: int, body: str, kind: str, said: str) -> None:
    with answering(status, body) as address, pytest.raises(PrometheusError, match=said) as caught:
        Prometheus(address).instant("up")
    assert caught.value.kind == kind


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrometheusError, match=r"127.0.0.1:1/x does not answer: connection refused") as caught:
        Prometheus("http://me:secret@127.0.0.1:1/x").instant("up")
    assert caught.value.kind == "unreachable"
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with answering(200, "", wait=1) as address, pytest.raises(PrometheusError, match="did not answer within"):
        Prometheus(address).instant("up")


def test_a_part_of_an_answer_is_told() -> None:
    part = '{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["one store is down"]}'
    with answering(200, part) as address:
        asked = Prometheus(address)
        assert asked.instant("up") == []
    assert list(asked.warnings) == ["one store is down"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:9090", "write http://localhost:9090"),
        ("prometheus", "write http://prometheus"),
        ("", "write http://HOST:PORT"),
        ("ftp://host", "write http://HOST:PORT"),
        ("http://", "write http://HOST:PORT"),
        ("http://host:port", "write http://HOST:PORT"),
        ("http://[::1", "write http://HOST:PORT"),
        ("http://host/graph?g0.expr=up", "write http://HOST:PORT"),
        ("http://ho st", "write http://HOST:PORT"),
    ],
)
def test_what_is_no_address(address: str, said: str) -> None:
    with pytest.raises(VelagenError, match=said):
        Prometheus(address)


def test_a_password_is_not_shown() -> None:
    assert without_password("https://me:p@ss@host:9/x") == "https://host:9/x"
    assert without_password("https://host") == "https://host"
