"""The velagen command."""

import click


@click.group()
def main() -> None:
    """KubeVela definitions from JSON Schemas and Python templates."""
