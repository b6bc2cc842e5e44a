"""How problems are shown."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from velagen.errors import Place, Problem
from velagen.report import MOST_SHOWN, show_diff, show_problems


def shown(*problems: Problem, terminal: bool = False) -> str:
    out = io.StringIO()
    show_problems(problems, Console(file=out, force_terminal=terminal, highlight=False, soft_wrap=True, width=40))
    return out.getvalue()


def test_problems_stand_in_the_order_of_their_places_and_once() -> None:
    second = Problem("second", Place("a.yaml", 9, 1))
    first = Problem("first", Place("a.yaml", 2, 1), severity="warning")
    assert shown(second, first, second).splitlines() == [
        "a.yaml:2:1: warning: first",
        "a.yaml:9:1: error: second",
        "1 error, 1 warning",
    ]


def test_the_line_and_the_hint_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("one: 1\n  two: [2]\n", encoding="utf-8")
    text = shown(Problem("not so", Place(str(file), 2, 8, "/two"), "but so"))
    assert text == (f"{file}:2:8: error: not so  (/two)\n    2 |   two: [2]\n      |        ^\n      but so\n1 error\n")


def test_words_in_brackets_are_no_markup() -> None:
    assert "[bold] and a " + "long " * 30 in shown(Problem("[bold] and a " + "long " * 30))


def test_after_fifty_the_rest_is_counted() -> None:
    text = shown(*[Problem(f"number {number}") for number in range(MOST_SHOWN + 7)])
    assert "... and 7 more\n57 errors\n" in text


def test_nothing_wrong_is_nothing_said() -> None:
    assert shown() == ""


def test_a_diff_is_plain_where_it_is_not_a_terminal() -> None:
    out = io.StringIO()
    diff = "--- a/[x]\n+++ b/[x]\n@@ -1 +1 @@\n-" + "a" * 200 + "\n"
    show_diff(diff, Console(file=out, force_terminal=False, width=40))
    assert out.getvalue() == diff
