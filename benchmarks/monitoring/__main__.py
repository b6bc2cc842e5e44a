"""What scraping and the rules cost a Prometheus: series, samples, seconds of rules, processor time and memory.

``python -m benchmarks.monitoring``; see docs/monitoring.md. A Prometheus of its own scrapes an exporter on loopback
that plays the pods of so many models, once with the rules and alerts and once without, both at the same time: what
else the machine does is the same for both. With ``--against FILE`` a third has the rules of another version.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import requests
import yaml
from benchmarks import page
from benchmarks.monitoring.exporter import STATE, Exporter, Model

from velagen.errors import Problem, VelagenError
from velagen.lab import wait_until
from velagen.lab.kind.stack import local
from velagen.monitoring.objects import all_groups
from velagen.monitoring.rules import rules_file
from velagen.tools import tool
from velagen.tools.report import Reporter

PAGE = page.ROOT / "docs" / "monitoring.md"
#: The scrape interval that users are told to take, in seconds.
USUAL = 15.0
#: What a window of five minutes holds at that interval; fewer, and the rules would have less to read than a user's.
_LOOKS = 21
WITH, WITHOUT, AGAINST = "with", "without", "against"


@dataclass(frozen=True)
class Cost:
    """What one Prometheus needed."""

    models: int
    #: Which rules it had, in a word; :data:`WITHOUT` for none.
    rules: str
    #: In its head, those that the rules made included, and these alone.
    series: float
    recorded: float
    #: Samples, and milliseconds of processor time, of one scrape of everything and one evaluation of all rules.
    samples: float
    milliseconds: float
    megabytes: float
    #: Seconds on a clock that each group of rules takes, median.
    groups: dict[str, float] = field(default_factory=dict)


class Prometheus:
    """A running one, asked over HTTP."""

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid
        self._client = local()

    def ask(self, query: str) -> float:
        """One number; 0 where there is none."""
        answer = self._client.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=30).json()
        found = answer["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def scrapes(self, targets: int) -> bool:
        """Whether so many targets answer."""
        return self.ask("count(up == 1)") == targets

    def own(self, name: str) -> float:
        """One of its own metrics, all its series added up."""
        text = self._client.get(f"{self.url}/metrics", timeout=30).text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(float(one) for one in found)

    def groups(self) -> dict[str, float]:
        """Seconds that each group's last evaluation took."""
        answer = self._client.get(f"{self.url}/api/v1/rules", timeout=30).json()
        return {group["name"]: float(group["evaluationTime"]) for group in answer["data"]["groups"]}

    def milliseconds(self) -> float:
        """Processor time so far, its own and the kernel's for it. Source: proc(5), /proc/PID/stat."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return bool(self._client.get(f"{self.url}/-/ready", timeout=2).ok)
        except requests.RequestException:
            return False


def configuration(exporter: Exporter, interval: float, rules: Path | None) -> dict[str, Any]:
    """Give its configuration: as the lab's, with targets that stand still."""
    state = {
        "targets": [f"127.0.0.1:{exporter.port}"],
        "labels": {"instance": STATE, "__metrics_path__": f"/{STATE}"},
    }
    return {
        "global": {"scrape_interval": f"{interval:g}s", "evaluation_interval": f"{interval:g}s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [
            {"job_name": "pods", "static_configs": exporter.targets()},
            {"job_name": STATE, "honor_labels": True, "static_configs": [state]},
        ],
    }


@contextmanager
def prometheus(exporter: Exporter, interval: float, rules: str) -> Iterator[Prometheus]:
    """Run one over an exporter.

    Args:
        rules: a rule file's text; empty for none.

    Raises:
        VelagenError: it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="velagen-monitoring-") as scratch, socket.socket() as taken:
        folder = Path(scratch)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        file = folder / "rules.yml" if rules else None
        if file:
            file.write_text(rules, encoding="utf-8")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(exporter, interval, file)))
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            running = Prometheus(port, process.pid)
            try:
                wait_until(running.answers, what="Prometheus", timeout=60, every=0.2)
            except TimeoutError as error:
                said = (folder / "log").read_text()[-800:]
                raise VelagenError(Problem(f"prometheus does not come up: {said}")) from error
            yield running
        finally:
            process.terminate()
            process.wait(timeout=30)


def measure(count: int, rules: dict[str, str], *, pods: int, interval: float, rounds: int) -> list[Cost]:
    """Run one for each set of rules, all at once, for so many models.

    Args:
        rules: rule files' texts by what they are called; empty for none.
        rounds: scrapes of everything that are measured, after as many as fill the rules' windows.
    """
    models = tuple(Model(number, pods) for number in range(count))
    with Exporter(models).running() as exporter, ExitStack() as stack:
        targets = len(exporter.targets()) + 1
        running = {name: stack.enter_context(prometheus(exporter, interval, text)) for name, text in rules.items()}
        for one in running.values():
            wait_until(partial(one.scrapes, targets), what="all targets", timeout=90, every=0.5)
        time.sleep(max(0, _LOOKS - rounds) * interval)
        samples = "prometheus_tsdb_head_samples_appended_total"
        before = {name: (one.milliseconds(), one.own(samples), time.monotonic()) for name, one in running.items()}
        seen: dict[str, dict[str, list[float]]] = {name: {} for name in running}
        for _ in range(rounds):
            time.sleep(interval)
            for name, one in running.items():
                for group, seconds in one.groups().items():
                    seen[name].setdefault(group, []).append(seconds)
        found = []
        for name, one in running.items():
            spent, had, started = before[name]
            turns = (time.monotonic() - started) / interval
            found.append(
                Cost(
                    models=count,
                    rules=name,
                    milliseconds=(one.milliseconds() - spent) / turns,
                    samples=(one.own(samples) - had) / turns,
                    series=one.own("prometheus_tsdb_head_series"),
                    recorded=one.ask('count({__name__=~"model:.+|slo:.+|cluster:.+|ALERTS.*"})'),
                    megabytes=one.own("process_resident_memory_bytes") / 1e6,
                    groups={group: statistics.median(values) for group, values in seen[name].items()},
                )
            )
        return found


def report(found: list[Cost], pods: int) -> str:
    """Give the section of the page."""
    rows = [
        [
            f"{cost.models}",
            cost.rules,
            f"{cost.series:.0f}",
            f"{cost.series / cost.models:.0f}",
            f"{cost.recorded / cost.models:.1f}",
            f"{cost.samples / USUAL:.0f}",
            f"{cost.milliseconds:.0f}",
            f"{cost.milliseconds / USUAL / 10:.1f} %",
            f"{cost.megabytes:.0f}",
        ]
        for cost in found
    ]
    head = [
        "models",
        "rules",
        "series",
        "a model",
        "of these by rules",
        "samples a second",
        "processor ms a round",
        "of a core",
        "memory, MB",
    ]
    text = (
        f"{pods} pods a model, every {USUAL:g} s; of ten models three on Triton, two on MLServer, three on KServe's"
        " servers, two on vLLM, all behind one Envoy.\n\n" + page.table(head, rows, right=0)
    )
    last = max((cost for cost in found if cost.rules == WITH), key=lambda cost: cost.models, default=None)
    if last:
        each = ", ".join(
            f"{name} {seconds * 1000:.0f}"
            for name, seconds in sorted(last.groups.items(), key=lambda pair: -pair[1])
            if seconds >= 0.0005
        )
        text += f"\n\nMilliseconds on a clock that a group takes, with {last.models} models: {each}."
    return text


@click.command()
@click.option("--models", default="50,100,200", show_default=True, help="How many, separated by commas.")
@click.option("--pods", default=2, show_default=True, help="Of each model.")
@click.option("--interval", default=5.0, show_default=True, help="Seconds between scrapes; figures are for 15.")
@click.option("--rounds", default=12, show_default=True, help="Scrapes that are measured.")
@click.option(
    "--against", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Rules to be measured beside."
)
@click.option("--write/--no-write", default=False, help="Put the figures into docs/monitoring.md.")
def main(models: str, pods: int, interval: float, rounds: int, against: Path | None, write: bool) -> None:
    """Measure what monitoring costs."""
    say = Reporter()
    found: list[Cost] = []
    rules = {WITHOUT: "", WITH: rules_file(all_groups())}
    if against:
        rules[AGAINST] = against.read_text(encoding="utf-8")
    for count in map(int, models.split(",")):
        found += measure(count, rules, pods=pods, interval=interval, rounds=rounds)
        for cost in found[-len(rules) :]:
            say.say(f"{cost}")
    text = report(found, pods)
    click.echo(text)
    if write:
        page.write("cost", text, PAGE)


if __name__ == "__main__":
    main()
