"""Files that are written whole or not at all, beside files of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from velagen.whole import WRITING, write_whole


def test_a_new_file_and_one_that_is_there_whose_rights_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_whole(file, "one\r\ntwo\n")
    assert file.read_bytes() == b"one\r\ntwo\n"
    file.chmod(0o640)
    write_whole(file, "three", settled=True)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("three", 0o640)
    assert os.listdir(tmp_path) == ["page.html"]  # noqa: PTH208


def test_what_others_have_in_the_folder_stays(tmp_path: Path) -> None:
    others = {".page.html.part": "mine", f"{WRITING}0123": "another writer's"}
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    write_whole(tmp_path / "page.html", "x")
    assert {name: (tmp_path / name).read_text() for name in others} == others


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.html"
    write_whole(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("velagen.whole.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new", settled=True)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert file.read_text() == "old"
    with pytest.raises(OSError, match="No such file or directory"):
        write_whole(tmp_path / "no/such/page.html", "x")
