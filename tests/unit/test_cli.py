"""Every command explains itself, with an example."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

import velagen
from velagen.cli import main


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("command", [(), *commands(main)], ids=" ".join)
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0
    assert "example" in done.output.lower()


def test_a_help_text_waits_for_nothing() -> None:
    """What takes the time is importing: Python and click alone take 0.1 s, everything took 0.7 s."""
    heavy = ["yaml", "jsonschema", "requests", "rich", "kubernetes", "grpc", "velagen.schema", "velagen.template"]
    text = f"import sys; from velagen.cli import main; main(['--help'], standalone_mode=False); \
print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert all(name in done.stdout for name in main.list_commands(click.Context(main)))


def test_the_words_of_a_definition_module_are_there() -> None:
    assert all(getattr(velagen, name) is not None for name in velagen.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(velagen, "nonsense")  # noqa: B009  # a type checker knows that it is not there
