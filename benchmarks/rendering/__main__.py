"""``python -m benchmarks.rendering``."""

from __future__ import annotations

import click
from benchmarks import page
from benchmarks.rendering import Costs, block, rounds

from velagen.kubevela import RELEASES


@click.command(epilog="Example: python -m benchmarks.rendering --rounds 20")
@click.option("--rounds", "count", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--quick", is_flag=True, help="A trial: three rounds; the page is not written.")
def main(count: int, quick: bool) -> None:
    """Measure what a render costs; writes docs/benchmarks.md."""
    found: dict[str, Costs] = {}
    for kubevela in RELEASES:
        for number, costs in enumerate(rounds(kubevela), start=1):
            found[f"{kubevela.version} ({kubevela.cue})"] = costs
            if number == (3 if quick else count):
                break
    text = block(found)
    click.echo(text)
    if not quick:
        page.write("rendering", text)
        click.echo(f"written: {page.PAGE}", err=True)


if __name__ == "__main__":
    main()
