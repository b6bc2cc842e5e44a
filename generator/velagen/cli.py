"""The velagen command: names, and where each one is implemented."""

from __future__ import annotations

import importlib
from typing import Final

import click

#: Command -> module and attribute; a module is imported only when its command (or the list of all) is asked for.
_COMMANDS: Final = {
    "build": "velagen.cli_addon:build_command",
    "check": "velagen.cli_check:check_command",
    "cue": "velagen.cli_schema:cue_command",
    "demo": "velagen.cli_lab:demo",
    "gpusim": "velagen.cli_gpusim:gpusim_group",
    "lab": "velagen.cli_lab:lab_group",
    "model": "velagen.cli_model:model_group",
    "package": "velagen.cli_addon:package_command",
    "render": "velagen.cli_check:render_command",
    "tools": "velagen.cli_lab:tools_group",
}


class _LazyGroup(click.Group):
    """A group that finds its commands by :data:`_COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_LazyGroup, epilog="Example: velagen check app.yaml")
@click.version_option(package_name="velagen")
def main() -> None:
    """KubeVela definitions from JSON Schemas and Python templates."""


if __name__ == "__main__":
    main()
