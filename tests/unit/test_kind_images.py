from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filelock import FileLock

from velagen.cli.kind import lab_prune
from velagen.errors import VelagenError
from velagen.lab.images import archive, assemble, read_recipes, recipes
from velagen.lab.images.lock import locked
from velagen.lab.images.recipe import SITE, Part, Recipe, Recipes
from velagen.lab.images.relock import resolve
from velagen.tools.report import Reporter


def table(tmp_path: Path, text: str) -> Recipes:
    path = tmp_path / "recipes.toml"
    path.write_text(text)
    return read_recipes(path)


ONE = """
[one]
references = ["x/one:1"]
part = [{ path = "/a", text = "hello" }]
"""


def same(part: Part) -> str:
    return "same"


def test_the_shipped_recipes_hold_together() -> None:
    ours = recipes()
    for name in ours.images:
        assert len(assemble.archive_path(name).name) > len(name)
        assert ours[name].references


def test_every_reference_belongs_to_one_recipe() -> None:
    references = [reference for recipe in recipes().images.values() for reference in recipe.references]
    assert len(references) == len(set(references))


def test_a_key_depends_on_content_alone(tmp_path: Path) -> None:
    first = table(tmp_path, ONE)
    assert first.key("one", same) == table(tmp_path, ONE + 'about = "x"\n'.join(["", ""])).key("one", same)
    assert first.key("one", same) == table(tmp_path, ONE.replace("[one]", '[one]\nabout = "words"')).key("one", same)
    assert first.key("one", same) != table(tmp_path, ONE.replace("hello", "hallo")).key("one", same)
    assert first.key("one", same) != table(tmp_path, ONE.replace("[one]", '[one]\nuser = "1"')).key("one", same)
    assert first.key("one", same) != first.key("one", lambda part: "other")


def test_a_change_of_the_base_changes_the_key(tmp_path: Path) -> None:
    both = ONE + '\n[two]\nreferences = ["x/two:1"]\nbase = "one"\n'
    assert table(tmp_path, both).key("two", same) != table(tmp_path, both.replace("hello", "hallo")).key("two", same)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[one]\nreferences = []\nbase = "none"\n', "base none"),
        ('[one]\nreferences = []\nbase = "one"\n', "on itself"),
        ('[one]\nreferences = []\nrun = ["true"]\n', "operating system"),
        ("[one]\nreferences = []\nwrong = 1\n", "wrong"),
        ('[one]\nreferences = []\npart = [{ path = "/a" }]\n', "exactly one"),
        ('[one]\nreferences = []\npart = [{ path = "/a", text = "x", tool = "y" }]\n', "exactly one"),
        ('[one]\nreferences = []\npart = [{ path = "a", text = "x" }]\n', "absolute"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        table(tmp_path, text)


def test_an_unknown_image_names_the_known_ones() -> None:
    with pytest.raises(VelagenError, match="kube-proxy"):
        assemble.archive_path("nonesuch")


def test_an_image_is_assembled_once_and_holds_what_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = table(
        tmp_path,
        ONE
        + """
[two]
references = ["x/two:1", "x/two:latest"]
base = "one"
env = { A = "b" }
entrypoint = ["/run"]
stop_signal = "SIGRTMIN+3"
part = [
    { path = "/run", text = "#!/bin/sh", mode = "0755" },
    { path = "/tmp", folder = true, mode = "1777" },
    { path = "/link", link = "/a" },
]
""",
    )
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assemble, "_ours", lambda: ours)
    path = assemble.image("two")
    with tarfile.open(path) as tar:
        (manifest,) = json.load(_file(tar, "manifest.json"))
        config = json.load(_file(tar, manifest["Config"]))
        layers = [_file(tar, name).read() for name in manifest["Layers"]]
    assert manifest["RepoTags"] == ["x/two:1", "x/two:latest"]
    assert (
        manifest["Config"]
        == hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest() + ".json"
    )
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert config["config"]["Entrypoint"] == ["/run"]
    assert config["config"]["StopSignal"] == "SIGRTMIN+3"
    assert "A=b" in config["config"]["Env"]
    with tarfile.open(fileobj=io.BytesIO(layers[0])) as lower:
        assert _file(lower, "./a").read() == b"hello"
    with tarfile.open(fileobj=io.BytesIO(layers[1])) as upper:
        assert upper.getmember("./run").mode == 0o755
        assert upper.getmember("./tmp").mode == 0o1777
        assert upper.getmember("./link").linkname == "/a"
        assert {member.mtime for member in upper} == {0}
    made = path.stat().st_mtime_ns
    assert assemble.image("two") == path
    assert path.stat().st_mtime_ns == made
    assert not [left for left in path.parent.iterdir() if left.name.startswith(".two-")]


def _file(tar: tarfile.TarFile, name: str) -> Any:
    stream = tar.extractfile(name)
    assert stream is not None
    return stream


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = table(tmp_path, ONE)
    monkeypatch.setattr(assemble, "_ours", lambda: ours)
    digests = set()
    for cache in ("a", "b"):
        monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / cache))
        digests.add(hashlib.sha256(assemble.image("one").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_packages_lose_what_nobody_needs_and_parts_come_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = "usr/local/lib/python3.11/dist-packages"
    ours = table(
        tmp_path,
        f"""
[one]
references = ["x/one:1"]
python = ["thing"]
without = ["thing/stubs/3.1[23]", "thing.libs/big-*"]
part = [
    {{ path = "/{site}/thing/stub", link = "stubs/3.11/stub" }},
    {{ path = "/usr/local/bin/thing", text = "mine" }},
]
""",
    )

    def pip(recipe: Recipe, root: Path, say: object) -> None:
        # As pip does it with --target: an older folder of the package's name would stay, and the new one be left out.
        assert not (root / site / "thing").exists()
        for name in (
            "thing/a.py", "thing/tests/b.py", "thing/sub/tests/data/c", "thing/testing/d.py", "thing/stubs/3.11/stub",
            "thing/stubs/3.12/stub", "thing.libs/big-1.so", "thing.libs/small.so", "bin/thing", "bin/other",
        ):  # fmt: skip
            path = root / site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/home/me/python\nx = 1\n" if name.startswith("bin/") else "x = 1\n")

    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assemble, "_ours", lambda: ours)
    monkeypatch.setattr(assemble, "_pip", pip)
    monkeypatch.setattr(assemble, "_python", lambda: sys.executable)
    with tarfile.open(assemble.image("one")) as tar:
        (manifest,) = json.load(_file(tar, "manifest.json"))
        layer = io.BytesIO(_file(tar, manifest["Layers"][0]).read())
    with tarfile.open(fileobj=layer) as upper:
        files = {
            member.name.removeprefix(f"./{site}/").removeprefix("./"): member for member in upper if not member.isdir()
        }
        assert _file(upper, "./usr/local/bin/other").read() == b"#!/usr/bin/python3\nx = 1\n"
        assert _file(upper, "./usr/local/bin/thing").read() == b"mine"
    assert {name for name in files if "__pycache__" not in name} == {
        "thing/a.py",
        "thing/testing/d.py",
        "thing/stubs/3.11/stub",
        "thing/stub",
        "thing.libs/small.so",
        "usr/local/bin/thing",
        "usr/local/bin/other",
    }
    assert files["thing/stub"].linkname == "stubs/3.11/stub"
    assert any(name.startswith("thing/__pycache__/a.") for name in files)


def test_a_disk_that_is_too_full_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(VelagenError, match=r"image x needs about 1000000 GB"):
        assemble.check_disk(tmp_path, 1e6, "image x")


def test_an_operating_system_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recipes({"os": Recipe("os", ("x/os:1",), packages=("curl",))})
    monkeypatch.setattr(assemble, "_ours", lambda: ours)
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(assemble, "this_platform", lambda: "linux-amd64")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(VelagenError, match=r"needs root(.|\n)*registry"):
        assemble.image("os")


def test_a_failed_command_ends_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    with pytest.raises(VelagenError, match="no such luck"):
        assemble.run_logged(["sh", "-c", "echo no such luck; exit 3"], "x")


def test_an_upstream_folder_is_copied_without_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = tmp_path / "upstream"
    (upstream / "etc/keep").mkdir(parents=True)
    (upstream / "etc/keep/script").write_text("#!/bin/sh\n")
    (upstream / "etc/keep/data").write_text("x")
    (upstream / "etc/drop").write_text("x")
    monkeypatch.setattr(assemble, "source", lambda name: upstream)
    root = tmp_path / "root"
    assemble.put(Part(path="/", upstream="kind:", without=("etc/drop",)), root)
    assert (root / "etc/keep/script").stat().st_mode & 0o777 == 0o755
    assert (root / "etc/keep/data").stat().st_mode & 0o777 == 0o644
    assert not (root / "etc/drop").exists()


def test_prune_takes_archives_of_older_recipes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    ours = table(tmp_path, ONE)
    monkeypatch.setattr(assemble, "_ours", lambda: ours)
    kept = assemble.image("one")
    old = kept.with_name("one-000000000000.tar")
    old.write_bytes(b"12345")
    (kept.parent / "debs").mkdir()
    (kept.parent / "debs" / "x.deb").write_bytes(b"123")
    current = assemble.current()
    freed = assemble.prune(lambda path: path in current)
    assert freed >= 8
    assert kept.exists()
    assert not old.exists()
    assert assemble.prune() > 0
    assert not kept.exists()


def test_a_part_never_leaves_the_image(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "run"
    (root / "var").mkdir(parents=True)
    outside.mkdir()
    (outside / "x").write_text("this machine's")
    (root / "var" / "run").symlink_to(outside)
    for part in (Part("/var/run/x", text="new"), Part("/var/run/deep/x", text="new"), Part("/../run/x", link="y")):
        with pytest.raises(VelagenError, match="out of the image"):
            assemble.put(part, root)
    assert [path.name for path in outside.iterdir()] == ["x"]
    assert (outside / "x").read_text() == "this machine's"


def test_prune_leaves_what_is_not_an_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # VELAGEN_CACHE may be a folder that holds more.
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    theirs = {
        *("images/holidays/1.jpg", "images/backup.tar", "images/.git/config", "images/debs/notes.txt"),
        *("models/sentiment-mine/model.pkl", "build/go/main.go", "build/go/cmd/main.go"),
    }
    for name in theirs | {"images/node-0123456789ab.tar", "images/debs/x.deb", "build/go/0a/x-d", "build/go/trim.txt"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "images" / "elsewhere-0123456789ab.tar").symlink_to(tmp_path / "images" / "backup.tar")
    done = CliRunner().invoke(lab_prune, ["--all"])
    assert done.exit_code == 0, done.output
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()}
    # Where it looked whether tools are being built it has left its lock, which is not a file of theirs.
    assert left - {"build/lock"} == theirs


def test_layers_of_an_archive_come_back_as_they_went_in(tmp_path: Path) -> None:
    tar = tmp_path / "layer.tar"
    with tarfile.open(tar, "w") as out:
        entry = tarfile.TarInfo("a")
        entry.size = 1
        out.addfile(entry, io.BytesIO(b"x"))
    layer = archive.Layer.of(tar)
    config = archive.configuration([layer], architecture="amd64", env={})
    archive.write(tmp_path / "image.tar", config, [layer], ["x:1"])
    out_folder = tmp_path / "out"
    out_folder.mkdir()
    (back,) = archive.layers_of(tmp_path / "image.tar", out_folder)
    assert back.digest == layer.digest
    assert back.path.read_bytes() == tar.read_bytes()


def test_prune_leaves_what_is_being_assembled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    folder = tmp_path / "images"
    for name in (".node-abc123", ".kube-proxy-abc123"):
        (folder / name).mkdir(parents=True)
    with FileLock(folder / ".kube-proxy.lock"):
        assemble.prune()
    assert not (folder / ".node-abc123").exists()
    assert (folder / ".kube-proxy-abc123").exists()


# ---------------------------------------------------------------- what is locked, and what is signed


def test_every_package_of_every_image_is_locked_with_its_hashes() -> None:
    python = [recipe for recipe in recipes().images.values() if recipe.python or recipe.python_alone]
    assert len(python) > 8
    for recipe in python:
        lines = [line for line in locked(recipe).splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[a-z0-9-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)
        pins = {line.split()[0].lower() for line in lines}
        wanted = {re.sub(r"\[.*\]", "", pin).lower() for pin in (*recipe.python, *recipe.python_alone)}
        assert wanted <= pins, "what the recipe pins is what is locked"


THING = """
[thing]
references = ["x/thing:1"]
python = ["thing==1"]
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of a package index; it holds thing 1. What it gives is its wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("thing.py", "x = 1\n")
        made.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        made.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("thing-1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "cache"))
    return wheel


def lock(tmp_path: Path, text: str) -> None:
    (tmp_path / "locks").mkdir(exist_ok=True)
    (tmp_path / "locks" / "thing.txt").write_text(text)


def test_a_package_is_taken_as_it_was_locked_and_not_otherwise(index: Path, tmp_path: Path) -> None:
    lock(tmp_path, resolve(table(tmp_path, THING)["thing"]))
    recipe = table(tmp_path, THING)["thing"]
    assert hashlib.sha256(index.read_bytes()).hexdigest() in recipe.lock
    assemble._pip(recipe, tmp_path / "root", Reporter())
    assert (tmp_path / "root" / SITE.lstrip("/") / "thing.py").read_text() == "x = 1\n"
    with zipfile.ZipFile(index, "a") as changed:
        changed.writestr("more.py", "")
    with pytest.raises(VelagenError, match="DO NOT MATCH THE HASHES"):
        assemble._pip(recipe, tmp_path / "other", Reporter())


def test_a_lock_is_part_of_the_key_and_must_be_that_of_the_recipe(tmp_path: Path) -> None:
    before = table(tmp_path, THING)
    with pytest.raises(VelagenError, match="lock of image thing is missing"):
        locked(before["thing"])
    keys = {before.key("thing", same)}
    for digest in ("a" * 64, "b" * 64):
        lock(tmp_path, f"# thing==1\nthing==1 --hash=sha256:{digest}\n")
        keys.add(table(tmp_path, THING).key("thing", same))
    assert len(keys) == 3
    with pytest.raises(VelagenError, match=r"other requirements(.|\n)*velagen.lab.images.relock thing"):
        locked(table(tmp_path, THING.replace("thing==1", "thing==2"))["thing"])


def test_debian_packages_are_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """debootstrap warns where it has no keyring, and takes everything: it must refuse."""
    programs = tmp_path / "bin"
    programs.mkdir()
    asked = tmp_path / "asked"
    (programs / "debootstrap").write_text(f'#!/bin/sh\necho "$*" > {asked}\n')
    (programs / "debootstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "cache"))
    assemble.images_dir().mkdir(parents=True)
    assemble._debootstrap(Recipe("x", ("x/x:1",), packages=("jq",)), tmp_path / "root", Reporter())
    assert "--force-check-gpg" in asked.read_text().split()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(assemble, "KEYRING", tmp_path / "none.gpg")
    assert "apt-get install debian-archive-keyring" in assemble.why_not()
