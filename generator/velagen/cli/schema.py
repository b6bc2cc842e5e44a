"""``velagen cue``: a JSON Schema as CUE."""

from __future__ import annotations

from pathlib import Path

import click

from velagen.cue import to_cue
from velagen.report import show_problems
from velagen.schema import compile_schema, load_schema


@click.command("cue", epilog="Example: velagen cue schemas/kfserving.json > parameter.cue")
@click.argument("schema", type=click.Path(path_type=Path))
@click.option("--at", default="", metavar="POINTER", help="The schema inside a larger file: /components/schemas/Pet.")
@click.option(
    "--refs",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A file or folder of schemas that it refers to; those beside it are found. May be given several times.",
)
@click.option("--allow-unchecked", is_flag=True, help="Turn what can't be exact into comments and warnings.")
@click.option("--no-formats", is_flag=True, help="Take `format` as an annotation, not as a rule.")
@click.option(
    "--integers",
    type=click.Choice(["auto", "json", "kubevela"]),
    default="auto",
    show_default=True,
    help="Whether 1.0 is a whole number (json), or never arrives as such (kubevela); auto: kubevela for an object.",
)
def cue_command(
    schema: Path, at: str, refs: tuple[Path, ...], allow_unchecked: bool, no_formats: bool, integers: str
) -> None:
    """Print SCHEMA as CUE, compiled under `parameter`: exactly, or not at all.

    A keyword that CUE can't say exactly is refused with its place, the reason and what to write instead.
    """
    chosen = {"json": "json", "kubevela": "kubevela"}.get(integers, "auto")
    compiled = compile_schema(
        load_schema(schema, others=refs, at=at),
        allow_unchecked=allow_unchecked,
        assert_formats=not no_formats,
        integers=chosen,  # type: ignore[arg-type]  # the three literals
        standalone=True,
    )
    if compiled.warnings:
        show_problems(compiled.warnings)
    click.echo(to_cue(compiled.file()), nl=False)
