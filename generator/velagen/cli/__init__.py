"""The velagen command: names, and where each one is implemented."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

#: Command -> module and attribute, and the line about it: a module is imported only when its command runs.
_COMMANDS: Final = {
    "adopt": ("velagen.cli.adopt:adopt_command", "Write Applications for InferenceServices that are there already."),
    "build": ("velagen.cli.addon:build_command", "Write addon/NAME/ from metadata.yaml, schemas/ and definitions/."),
    "check": ("velagen.cli.check:check_command", "Check the addon and application FILES without a cluster."),
    "cost": ("velagen.cli.cost:cost_command", "Show GPU-hours of models, idle ones, and what they cost."),
    "cue": ("velagen.cli.schema:cue_command", "Print SCHEMA as CUE, compiled under `parameter`."),
    "demo": ("velagen.cli.lab:demo", "Show the whole path, from the control plane to a ready model."),
    "gpu": ("velagen.cli.gpu:gpu_group", "What nodes need so that models can share GPUs."),
    "gpusim": ("velagen.gpusim.command:gpusim_group", "Simulated GPUs on real nodes."),
    "lab": ("velagen.cli.lab:lab_group", "Run a control plane on this machine."),
    "metrics": ("velagen.cli.metrics:metrics_group", "Rules and scrape configuration for Prometheus."),
    "model": ("velagen.cli.model:model_group", "Model packages: check them, push them."),
    "package": ("velagen.cli.addon:package_command", "Pack the addon for a registry: NAME-VERSION.tgz and index.yaml."),
    "promote": ("velagen.cli.promote:promote_command", "Put another version of a model into an application's FILE."),
    "render": ("velagen.cli.check:render_command", "Print the objects that KubeVela makes of application FILES."),
    "take-over": (
        "velagen.cli.takeover:take_over_command",
        "Put running InferenceServices into Applications, and keep their pods.",
    ),
    "top": ("velagen.cli.top:top_command", "Show what models do now: requests, errors, latency, replicas, weights."),
    "report": ("velagen.cli.top:report_command", "Write a page with what an application's models did over a while."),
    "rollout": ("velagen.cli.rollout:rollout_group", "Show how a new version of a model comes in; write a page of it."),
    "tools": ("velagen.cli.lab:tools_group", "List and install the pinned tools."),
}


class _LazyGroup(click.Group):
    """A group that finds its commands by :data:`_COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """The list of all commands, written without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in sorted(_COMMANDS.items())])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; whatever it meets, it ends with a sentence and a status, never with a traceback."""
        # A build makes many small objects that live until it ends: looking through them for cycles is work for nothing.
        gc.set_threshold(100_000, 20, 20)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by whoever called
                setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # for as long as the process lives
        try:
            try:
                return super().main(*args, **kwargs)
            finally:
                # What is still held back is written here, where a full disk can be told, and not at Python's own end.
                sys.stdout.flush()
        except Exception as error:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if os.environ.get("VELAGEN_DEBUG"):
                raise
            from velagen.report import explained, show_problems

            # Standard error may be what is full or closed.
            with suppress(OSError):
                show_problems(explained(error))
            sys.exit(1)


@click.group(cls=_LazyGroup, epilog="Example: velagen check app.yaml")
@click.version_option(package_name="velagen")
def main() -> None:
    """KubeVela definitions from JSON Schemas and Python templates."""
