"""An adopted Application as YAML, with comments where something is not as it was."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import yaml

from velagen.adopt.application import Adopted

_WIDTH = 110


def written(result: Adopted, origin: str) -> str:
    """The YAML document, with what its reader has to know before it and at the trait."""
    head = [f"From {origin}: InferenceService {result.name}.", *(f"- {note}." for note in result.notes)]
    text = yaml.safe_dump(result.application, sort_keys=False, width=_WIDTH, allow_unicode=True)
    lines = []
    for line in text.splitlines():
        if line.strip() == "- type: json-merge-patch":
            indent = line[: len(line) - len(line.lstrip())]
            lines += _comment([f"No property says these: {', '.join(result.patched)}."], indent)
        lines.append(line)
    return "".join(f"{line}\n" for line in (*_comment(head, ""), *lines))


def _comment(sentences: Iterable[str], indent: str) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            # A line break in somebody's text must not leave the comment.
            " ".join(sentence.split()),
            _WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# " + "  " * sentence.startswith("- "),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
