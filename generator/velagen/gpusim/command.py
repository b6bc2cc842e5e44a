"""``velagen gpusim``: GPUs for nodes that have none."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import click
import yaml

from velagen.gpusim.config import Config, load_config
from velagen.gpusim.errors import Complaint, GpusimError
from velagen.gpusim.inventory import node_gpus, plugin_devices
from velagen.gpusim.labels import node_labels
from velagen.gpusim.manifest import manifest
from velagen.gpusim.node import live_plugins, real_gpus
from velagen.gpusim.paths import KUBELET_FOLDER, POD_RESOURCES, STATE, Paths, plug, unplug

_STATE = click.option(
    "--state-dir", type=click.Path(path_type=Path), default=STATE, show_default=True, help="What must outlive a crash."
)
_CONFIG = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="NVIDIA's device-plugin configuration (v1)."
)
_GPUS = click.option(
    "--gpu",
    "gpus",
    multiple=True,
    default=("t4x2",),
    show_default=True,
    help="MODEL[xCOUNT][:MIG PROFILE,...], e.g. t4x2 or a100-40gb:3g.20gb,3g.20gb; may be repeated.",
)
_NODE = click.option(
    "--node", default=lambda: os.environ.get("NODE_NAME") or socket.gethostname(), help="The node's name. [NODE_NAME]"
)
_BESIDE = click.option(
    "--beside-real-gpu",
    is_flag=True,
    help="Also where a real GPU is seen, as kind's nodes see that of their machine. Never beside a running plugin.",
)
#: Kubernetes' rule for labels (apimachinery, pkg/util/validation), lengths apart.
_LABEL = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?=([A-Za-z0-9]([-\w.]*[A-Za-z0-9])?)?", re.ASCII
)


@click.group("gpusim", epilog="Example: velagen gpusim show --config sharing.yaml")
def gpusim_group() -> None:
    """Simulated GPUs on real nodes."""


@gpusim_group.command("run", epilog="Example: velagen gpusim run --config sharing.yaml")
@_CONFIG
@_GPUS
@_NODE
@_STATE
@click.option("--plugin-dir", type=click.Path(path_type=Path), default=KUBELET_FOLDER, show_default=True)
@click.option("--pod-resources", type=click.Path(path_type=Path), default=POD_RESOURCES, show_default=True)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address of metrics and load reports.")
@click.option("--metrics-port", type=int, default=9400, show_default=True, help="0 takes a free port.")
@click.option("--report-url", default="", help="Tell containers where to report load (VELAGEN_GPUSIM_URL).")
@click.option(
    "--kubeconfig", default=None, help="Set node labels and read pods with this; without: the service account."
)
@click.option("--no-cluster", is_flag=True, help="Don't talk to the API server: no labels, load by report only.")
@click.option(
    "--recover", is_flag=True, help="A GPU plugged back in is healthy at once (a real one only at a restart)."
)
@_BESIDE
@click.option("--poll-seconds", type=float, default=1.0, show_default=True)
@click.option("--retry-seconds", type=float, default=30.0, show_default=True)
def run(
    config_file: Path | None,
    gpus: tuple[str, ...],
    node: str,
    state_dir: Path,
    plugin_dir: Path,
    pod_resources: Path,
    metrics_host: str,
    metrics_port: int,
    report_url: str,
    kubeconfig: str | None,
    no_cluster: bool,
    recover: bool,
    beside_real_gpu: bool,
    poll_seconds: float,
    retry_seconds: float,
) -> None:
    """Advertise GPUs to this node's kubelet until stopped; SIGHUP starts the plugins anew.

    Refused on a node that has a GPU, NVIDIA's driver or a running device plugin, whose resource it would take over.
    """
    # Here, since the other commands need none of what these import.
    from velagen.gpusim.cluster import connect
    from velagen.gpusim.metrics import MetricsServer
    from velagen.gpusim.simulator import Simulator

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        _refuse_real(plugin_dir, beside_real_gpu=beside_real_gpu)
        config = _config(config_file)
        inventory = node_gpus(node, gpus)
        client = None if no_cluster else connect(node, kubeconfig)
        simulator = Simulator(
            node,
            inventory,
            config,
            Paths(plugin_dir, pod_resources, state_dir),
            environment={"VELAGEN_GPUSIM_URL": report_url} if report_url else None,
            recover=recover,
            set_labels=(lambda: _ignore(client.set_labels(inventory, config))) if client else None,
            pods=client.pods if client else None,
            poll_seconds=poll_seconds,
            retry_seconds=retry_seconds,
        )
    except GpusimError as error:
        raise click.ClickException(str(error)) from error
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: simulator.restart())
    server = MetricsServer(
        simulator.collector(), simulator.book, simulator.may_report, host=metrics_host, port=metrics_port
    )
    server.start()
    click.echo(f"metrics on http://{metrics_host}:{server.port}/metrics")
    try:
        simulator.run(stop)
    finally:
        server.stop()


@gpusim_group.command("show", epilog="Example: velagen gpusim show --config sharing.yaml")
@_CONFIG
@_GPUS
@_NODE
def show(config_file: Path | None, gpus: tuple[str, ...], node: str) -> None:
    """Print what a node with this configuration would advertise, as JSON: resources, devices and labels."""
    try:
        config = _config(config_file)
        inventory = node_gpus(node, gpus)
        advertised = plugin_devices(inventory, config)
    except GpusimError as error:
        raise click.ClickException(str(error)) from error
    document = {
        "resources": {name: [device.id for device in devices] for name, devices in advertised.items()},
        "labels": dict(sorted(node_labels(inventory, config).items())),
    }
    click.echo(json.dumps(document, indent=2))


@gpusim_group.command(
    "manifest",
    epilog="Example: velagen gpusim manifest --image registry.example.com/velagen:0.1.0 --node-selector pool=sim",
)
@click.option("--image", required=True, help="An image with velagen in it.")
@_CONFIG
@_GPUS
@click.option("--namespace", "-n", default="kube-system", show_default=True)
@click.option(
    "--node-selector", "selectors", multiple=True, required=True, help="KEY=VALUE: label of the nodes that get GPUs."
)
@click.option("--recover", is_flag=True, help="See run.")
@_BESIDE
def manifest_command(
    image: str,
    config_file: Path | None,
    gpus: tuple[str, ...],
    namespace: str,
    selectors: tuple[str, ...],
    recover: bool,
    beside_real_gpu: bool,
) -> None:
    """Print the objects that run the simulator on the nodes with these labels, for kubectl apply -f -.

    No node with a real GPU may be among them: there it ends, and says why.
    """
    try:
        # Refused here rather than on every node.
        plugin_devices(node_gpus("node", gpus), _config(config_file))
        wanted = _labels(selectors)
    except GpusimError as error:
        raise click.ClickException(str(error)) from error
    text = "version: v1\n" if config_file is None else config_file.read_text(encoding="utf-8")
    objects = manifest(
        image,
        namespace=namespace,
        config=text,
        gpus=gpus,
        node_selector=wanted,
        recover=recover,
        beside_real_gpu=beside_real_gpu,
    )
    click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)


@gpusim_group.command("unplug", epilog="Example: velagen gpusim unplug 0")
@click.argument("gpu", type=click.IntRange(min=0))
@_STATE
def unplug_command(gpu: int, state_dir: Path) -> None:
    """Take a GPU out: its devices turn unhealthy, as with an XID error."""
    unplug(state_dir, gpu)


@gpusim_group.command("plug", epilog="Example: velagen gpusim plug 0")
@click.argument("gpu", type=click.IntRange(min=0))
@_STATE
def plug_command(gpu: int, state_dir: Path) -> None:
    """Put a GPU back; healthy after the next start (SIGHUP), or at once with run --recover."""
    plug(state_dir, gpu)


def _refuse_real(plugins: Path, *, beside_real_gpu: bool) -> None:
    """Raise GpusimError where a real GPU, its driver or a running device plugin is on the node."""
    problems = [
        Complaint(f"a device plugin listens on {path}", hint="End it first, or leave this node out.")
        for path in live_plugins(plugins)
    ]
    if not beside_real_gpu and (found := real_gpus()):
        hint = "Leave this node out (--node-selector of `velagen gpusim manifest`). A kind node: --beside-real-gpu."
        problems.append(Complaint(f"this node has a real GPU or its driver: {', '.join(found)}", hint=hint))
    if problems:
        raise GpusimError(problems)


def _labels(selectors: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE; GpusimError for each that is something else."""
    wrong = [
        Complaint(f"{selector!r} is not a label", hint="Write KEY=VALUE, such as velagen.dev/gpusim=true.")
        for selector in selectors
        if not _LABEL.fullmatch(selector)
    ]
    if wrong:
        raise GpusimError(wrong)
    return dict(selector.partition("=")[::2] for selector in selectors)


def _config(path: Path | None) -> Config:
    config = load_config(path) if path is not None else Config()
    for problem in config.warnings:
        click.echo(f"warning: {problem}", err=True)
    return config


def _ignore(_result: object) -> None:
    """The labels that were sent are of interest to tests only."""
