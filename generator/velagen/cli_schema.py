"""``velagen cue``: a JSON Schema as CUE."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from velagen.cue import to_cue
from velagen.report import exits_with_problems, show_problems
from velagen.schema import compile_schema, load_schema


@click.command("cue", epilog="Example: velagen cue schemas/kfserving.json > parameter.cue")
@click.argument("schema", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--allow-unchecked", is_flag=True, help="Turn what can't be exact into comments and warnings.")
@click.option("--no-formats", is_flag=True, help="Take `format` as an annotation, not as a rule.")
@click.option(
    "--integers",
    type=click.Choice(["auto", "json", "kubevela"]),
    default="auto",
    show_default=True,
    help="Whether 1.0 is a whole number (json), or never arrives as such (kubevela); auto: kubevela for an object.",
)
@exits_with_problems
def cue_command(schema: Path, allow_unchecked: bool, no_formats: bool, integers: str) -> None:
    """Print SCHEMA as CUE, compiled under `parameter`: exactly, or not at all.

    A keyword that CUE can't say exactly is refused with its place, the reason and what to write instead.
    """
    chosen = {"json": "json", "kubevela": "kubevela"}.get(integers, "auto")
    compiled = compile_schema(
        load_schema(schema),
        allow_unchecked=allow_unchecked,
        assert_formats=not no_formats,
        integers=chosen,  # type: ignore[arg-type]  # the three literals
        standalone=True,
    )
    if compiled.warnings:
        show_problems(compiled.warnings)
    sys.stdout.write(to_cue(compiled.file()))
