"""The demo of rollouts: a good version is promoted, a bad one goes back, under requests that are counted.

On a kind lab pods, gateway, requests and Prometheus are real. On the embedded lab nothing serves: the step, its
route's weights and its state are real, and the numbers of the checks are the demo's own, which it says.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

import requests
import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from velagen.errors import Place, Problem, VelagenError
from velagen.lab.api import Api, wait_until
from velagen.lab.traffic import here, local, open_loop, put_model_file, python_model_config, remove_application
from velagen.monitoring.cluster import Cluster, prometheus_address
from velagen.monitoring.models import Wanted
from velagen.monitoring.prometheus import Prometheus
from velagen.rollout.look import Seen, look, steps_of
from velagen.rollout.screen import Screen, line

NAMESPACE: Final = "rollout-demo"
#: Requests a second.
RATE: Final = 20.0
#: Seconds that one part of the demo may take: on a kind lab a model is loaded in it, twice.
_PATIENCE: Final = 420.0
#: Quicker than anybody would want it for a model that matters; the rules are the same.
QUICK: Final = {"steps": [10, 50], "interval": 10, "checks": 1, "failureLimit": 2, "settle": 5, "deadline": 300}
#: Two cores that do other things too make a good version slow for a while: latency is left out.
_ANALYSIS: Final = {"minimumRequests": 20, "latency": {"timesStable": 0}}
_MODEL: Final = "which"
_PROGRAM: Final = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        {fault}
        found = pb_utils.Tensor("Y", np.full((1, 1), {version}, np.float32))
        return [pb_utils.InferenceResponse([found]) for _ in requests]
"""
_PATH: Final = f"/v2/models/{_MODEL}/infer"
_BODY: Final = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [0]}]}


@dataclass
class Tally:
    """What became of the requests."""

    answered: Counter[int] = field(default_factory=Counter)
    failed: int = 0

    @property
    def sent(self) -> int:
        """All of them."""
        return sum(self.answered.values()) + self.failed

    def __str__(self) -> str:
        """In words."""
        versions = ", ".join(f"{count} by version {version}" for version, count in sorted(self.answered.items()))
        return f"{self.sent} requests, {self.failed} failed{': ' if versions else ''}{versions}"


class Stage(Protocol):
    """Where the demo plays."""

    api: Api
    kubeconfig: Path
    #: What is real there, in a sentence.
    about: str

    def properties(self, version: int, *, bad: bool) -> dict[str, Any]:
        """Of the component, for a version."""

    def settings(self) -> dict[str, Any]:
        """Of the step."""

    def prometheus(self, cluster: Cluster) -> Prometheus:
        """Whom the figures are asked of."""

    def traffic(self, host: str, tally: Tally) -> Any:
        """A context in which requests come in; they are counted."""


class OnKind:
    """A kind lab: all of it is real."""

    about = "pods, gateway, requests and Prometheus are real"

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.api: Api = lab.api
        self.kubeconfig: Path = lab.kubeconfig

    def properties(self, version: int, *, bad: bool) -> dict[str, Any]:
        """A version for Triton that answers with its number, or with an error."""
        fault = 'raise RuntimeError("this version is broken")' if bad else "pass"
        program = _PROGRAM.format(version=version, fault=fault)
        for name, content in (("config.pbtxt", python_model_config(_MODEL)), ("1/model.py", program)):
            put_model_file(self.lab.url("models"), f"rollout-demo/{version}/{_MODEL}/{name}", content)
        return {
            "runtime": "triton",
            "modelName": _MODEL,
            "modelUri": f"s3://models/rollout-demo/{version}",
            "minReplicas": 1,
            "resources": {"requests": {"cpu": "20m", "memory": "192Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        }

    def settings(self) -> dict[str, Any]:
        """Nothing but what the demo has anyway."""
        return {}

    def prometheus(self, cluster: Cluster) -> Prometheus:
        """The lab's own."""
        return cluster.prometheus(prometheus_address(cluster))

    @contextmanager
    def traffic(self, host: str, tally: Tally) -> Iterator[None]:
        """Requests at a fixed rate whatever becomes of them, through the gateway."""
        mine, lock = threading.local(), threading.Lock()
        entry = here(self.lab.url("gateway"))

        def once() -> None:
            if not hasattr(mine, "session"):
                mine.session = local()
            try:
                answer = mine.session.post(f"{entry}{_PATH}", json=_BODY, headers={"Host": host}, timeout=30)
                version = int(answer.json()["outputs"][0]["data"][0]) if answer.ok else None
            except (requests.RequestException, ValueError, KeyError, IndexError):
                version = None
            with lock:
                if version is None:
                    tally.failed += 1
                else:
                    tally.answered[version] += 1

        wait_until(lambda: self._answers(entry, host), what="the first answer through the gateway", timeout=120)
        with open_loop(once, lambda: RATE, longest=3 * _PATIENCE):
            yield

    def _answers(self, entry: str, host: str) -> bool:
        try:
            return local().post(f"{entry}{_PATH}", json=_BODY, headers={"Host": host}, timeout=30).ok
        except requests.RequestException:
            return False


class Embedded:
    """The embedded lab: no pod runs, and nobody measures."""

    about = (
        "the step, its state and the route's weights are real; no pod serves here, so there are no requests, and the "
        "numbers that the checks read are the demo's own"
    )

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.api: Api = lab.api
        self.kubeconfig: Path = lab.kubeconfig
        self._address = ""
        self._bad = False
        # The Gateway that the route names; nobody serves it.
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}})
        self.api.apply(
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": "kserve-ingress-gateway", "namespace": "kserve"},
                "spec": {
                    "gatewayClassName": "none",
                    "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                },
            }
        )

    def properties(self, version: int, *, bad: bool) -> dict[str, Any]:
        """A version that nobody loads."""
        self._bad = bad
        return {"runtime": "sklearn", "modelUri": f"s3://models/sentiment/{version}"}

    def settings(self) -> dict[str, Any]:
        """The demo's own answers in Prometheus' place."""
        return {"prometheus": self._address}

    def prometheus(self, cluster: Cluster) -> Prometheus:  # noqa: ARG002  # as on kind
        """The demo's own answers, which know nothing of models."""
        return Prometheus(self._address)

    @contextmanager
    def numbers(self) -> Iterator[None]:
        """Answer the checks on a port of this machine."""
        stage = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:  # http.server's name
                query = (parse_qs(urlsplit(self.path).query).get("query") or [""])[0]
                ratio = "0.93" if stage._bad else "1"  # its own
                made = {"requests": "500", "success ratio": ratio} if '"rollout"' in query else {}
                result = [{"metric": {"rollout": name}, "value": [time.time(), value]} for name, value in made.items()]
                data = {"resultType": "vector", "result": result}
                body = json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._address = f"http://127.0.0.1:{server.server_address[1]}"
            try:
                yield
            finally:
                server.shutdown()

    @contextmanager
    def traffic(self, host: str, tally: Tally) -> Iterator[None]:  # noqa: ARG002  # as on kind
        """None: nothing serves."""
        yield


def demo(example: Path, stage: Stage, console: Console) -> None:
    """Play it: version 1, a good version 2, a bad version 3.

    Args:
        example: examples/rollout.yaml: its names, its component and its steps are the demo's.

    Raises:
        VelagenError: a part of it took too long, or ended in another way than it should.
    """
    app = yaml.safe_load(example.read_text(encoding="utf-8"))
    if not isinstance(app, dict) or app.get("kind") != "Application" or not list(steps_of(app)):
        raise VelagenError(Problem("not an Application with a step rollout-model", Place(file=str(example))))
    app["metadata"]["namespace"] = NAMESPACE
    name = app["metadata"]["name"]
    console.print(f"[bold]{example.name}[/bold]: a good version comes in, a bad one goes back", highlight=False)
    console.print(f"Here {stage.about}. The step is quicker than its defaults: {json.dumps(QUICK)}", highlight=False)
    stage.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    remove_application(stage.api, name, NAMESPACE)
    cluster = Cluster.connect(stage.kubeconfig)
    wanted, prometheus = Wanted(NAMESPACE, name), stage.prometheus(cluster)

    def up(version: int, *, bad: bool = False) -> None:
        """Change the component's modelUri, and what else the place needs; apply."""
        app["spec"]["components"][0]["properties"] = stage.properties(version, bad=bad)
        next(steps_of(app))["properties"].update({**QUICK, "analysis": _ANALYSIS, **stage.settings()})
        stage.api.apply(json.loads(json.dumps(app)))

    started = time.monotonic()
    tally = Tally()
    rows: list[tuple[str, str, str]] = []

    def part(title: str, version: int, ends: str, *, bad: bool = False) -> None:
        console.print(f"\n[bold]{title}[/bold]", highlight=False)
        begun, sent, failed = time.monotonic(), tally.sent, tally.failed
        before = _revision(look(cluster, prometheus, wanted)) if version > 1 else ""
        up(version, bad=bad)
        seen = _watch(console, lambda: look(cluster, prometheus, wanted), before, tally)
        phase = seen.rollouts[0].stored.phase
        if phase != ends:
            said = seen.rollouts[0].stored.state["reason"] or seen.rollouts[0].workflow.said
            raise VelagenError(
                Problem(f"version {version} should end as {ends}, and is {phase or 'not begun'}: {said}")
            )
        how = seen.rollouts[0].stored.state["reason"] or phase
        counted = f"{tally.sent - sent}, {tally.failed - failed} failed"
        rows.append((title, f"{time.monotonic() - begun:.0f} s, {how}", counted))

    part("version 1 is deployed: nothing to compare it with", 1, "done")
    with stage.traffic(_host(stage.api, app), tally):
        part("version 2, a good one: modelUri is changed", 2, "done")
        part("version 3, whose answers are errors", 3, "failed", bad=True)
    shown = Table("part", "how it ended", "requests meanwhile")
    for row in rows:
        shown.add_row(*row)
    console.print()
    console.print(shown)
    if tally.sent:
        console.print(str(tally), highlight=False)
    console.print(f"{time.monotonic() - started:.0f} s in all. Next:\n", highlight=False)
    space = f"-n {NAMESPACE}"
    console.print(f"  export KUBECONFIG={stage.kubeconfig}", highlight=False, soft_wrap=True)
    for command, what in (
        (f"velagen rollout status {name} {space}", "why version 3 went back"),
        (f"velagen rollout report {name} {space} -o report.html", "the same as a page"),
        (f"vela delete {name} {space} -y", "remove it again"),
    ):
        console.print(f"  {command:<70} # {what}", highlight=False, soft_wrap=True)


def _host(api: Api, app: Mapping[str, Any]) -> str:
    """What clients call the model by: the first host that the step names, else KServe's own."""
    properties = next(steps_of(app))["properties"]
    hosts = properties.get("route", {}).get("hosts") or []
    if hosts:
        return str(hosts[0])
    model = api.get("serving.kserve.io/v1beta1", "InferenceService", properties["component"], NAMESPACE) or {}
    return str(urlsplit(model.get("status", {}).get("url", "")).hostname or "")


def _revision(seen: Seen) -> str:
    return seen.rollouts[0].stored.revision


def _watch(console: Console, look: Any, before: str, tally: Tally) -> Seen:
    """Draw it until the rollout of a revision other than *before* has ended."""
    until = time.monotonic() + _PATIENCE
    told = 0
    seen: Seen = look()

    def ended() -> bool:
        return _revision(seen) not in ("", before) and seen.has_ended

    with Live(console=console, auto_refresh=False, transient=False) as live:
        while not ended():
            if time.monotonic() > until:
                said = seen.rollouts[0].workflow.said or seen.rollouts[0].stored.phase
                raise VelagenError(Problem(f"after {_PATIENCE:.0f} s it has not ended: {said}"))
            if console.is_terminal:
                live.update(Group(Screen(seen), Text(str(tally) if tally.sent else "", "cyan")), refresh=True)
            elif _revision(seen) != before:
                for entry in seen.rollouts[0].stored.run[told:]:
                    console.print(f"  {line(seen.rollouts[0], entry)}", highlight=False, soft_wrap=True)
                told = max(told, len(seen.rollouts[0].stored.run))
            time.sleep(1)
            seen = look()
        if console.is_terminal:
            live.update(Group(Screen(seen), Text(str(tally) if tally.sent else "", "cyan")), refresh=True)
    if not console.is_terminal:
        for entry in seen.rollouts[0].stored.run[told:]:
            console.print(f"  {line(seen.rollouts[0], entry)}", highlight=False, soft_wrap=True)
    return seen
