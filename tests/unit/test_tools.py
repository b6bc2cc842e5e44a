"""The road to a tool: what is taken, what is refused, what happens when two want the same thing."""

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from velagen.errors import VelagenError
from velagen.tools import cache_dir, in_cache, install, modsource, on_path, source, table, this_platform, tool
from velagen.tools.fetch import RoadClosedError, download, extract
from velagen.tools.gobuild import key, workshop
from velagen.tools.report import Reporter
from velagen.tools.table import HERE, Digest, read_table

SCRIPT = b'#!/bin/sh\necho "toy version v1.2.3"\n'


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by path, with ranges; counts what it was asked; can break off, be slow, or ask for a token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.break_after: int | None = None
        self.ranges = True
        self.pause = 0.0
        self.token: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        owner = self.server
        path = self.path.partition("?")[0]
        owner.asked.append((path, self.headers.get("Range")))
        time.sleep(owner.pause)
        if path == "/token":
            return self._send(200, json.dumps({"token": owner.token}).encode(), 0)
        if owner.token and self.headers.get("Authorization") != f"Bearer {owner.token}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Bearer realm="{owner.url}/token",service="s",scope="pull"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if path not in owner.files:
            return self._send(404, b"no such file", 0)
        body = owner.files[path]
        start = 0
        if owner.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return self._send(416, b"", 0)
        return self._send(206 if start else 200, body, start)

    def _send(self, code: int, body: bytes, start: int) -> None:
        rest = body[start:]
        self.send_response(code)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.break_after is not None and code in (200, 206):
            self.wfile.write(rest[: self.server.break_after])
            self.server.break_after = None
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("VELAGEN_CACHE", str(cache))
    monkeypatch.setenv("VELAGEN_TOOLS_LOCK", str(tmp_path / "tools.lock"))
    monkeypatch.delenv("VELAGEN_ROADS", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return cache


@pytest.fixture
def words() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def reporter(words: io.StringIO) -> Reporter:
    return Reporter(Console(file=words, force_terminal=False, width=200))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as bundle:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            bundle.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def row_text(server: Server, archive: bytes, **more: str) -> str:
    where = this_platform()
    lines = {
        "name": '"toy"',
        "version": '"1.2.3"',
        "default": "true",
        "ask": '["--version"]',
        "answer": "'toy version v(\\S+)'",
        "release.url": f'"{server.url}/toy-{{version}}-{{os}}-{{arch}}.tar.gz"',
        "release.member": '"toy"',
        "release.megabytes": "1",
        f"release.sha256.{where}": f'"{sha(archive)}"',
        **more,
    }
    server.files[f"/toy-1.2.3-{where}.tar.gz"] = archive
    return "[[tool]]\n" + "\n".join(f"{name} = {value}" for name, value in lines.items()) + "\n"


def table_file(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "table.toml"
    path.write_text("\n".join(rows))
    return path


# -- the table that ships


def test_each_row_can_be_had_and_has_one_default() -> None:
    rows = table().tools
    for row in rows:
        assert row.build is not None or row.release is not None or row.image is not None, row
        assert sum(other.default for other in rows if other.name == row.name) == 1, row.name


def test_each_build_is_pinned_by_a_go_sum() -> None:
    for row in table().tools:
        assert row.build is not None
        folder = HERE.parent / row.build.local if row.build.local else HERE / "modules" / str(row.build.module)
        name = row.build.modfile or "go.mod"
        assert (folder / name).is_file(), row
        if "require" not in (folder / name).read_text():
            continue  # of our own, on the standard library alone: there is nothing to pin
        assert (folder / name).with_suffix(".sum").stat().st_size > 1000, row


def test_each_source_has_its_content_hash() -> None:
    for row in table().sources:
        lines = (HERE / "modules" / row.pinned_in / "go.sum").read_text().splitlines()
        assert any(line.startswith(f"{row.module} {row.version} h1:") for line in lines), row


def test_an_unknown_tool_is_told_the_known_ones() -> None:
    with pytest.raises(VelagenError, match="kube-apiserver"):
        tool("kubelett")
    with pytest.raises(VelagenError, match=r"Pinned versions: 0\.9\.2, 0\.14\.1"):
        tool("cue", "0.1.0")
    with pytest.raises(VelagenError, match="Known sources: kserve"):
        source("nonesuch")
    with pytest.raises(VelagenError, match=r"Pinned versions: 1\.11\.0, 1\.10\.9"):
        source("kubevela", "1.9.0")


def test_a_checksum_that_is_none_is_refused(tmp_path: Path, server: Server) -> None:
    text = row_text(server, b"x").replace(sha(b"x"), "0" * 63 + "Z")
    with pytest.raises(ValueError, match="not a sha256"):
        read_table(table_file(tmp_path, text))


# -- PATH and cache


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return path


def test_the_right_version_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_on_path(tmp_path / "bin", monkeypatch, "etcd", "#!/bin/sh\necho 'etcd Version: 3.6.5'\n")
    assert tool("etcd") == path


@pytest.mark.parametrize("says", ["etcd Version: 3.5.21", "", "etcd Version: 3.6.50"])
def test_another_version_on_path_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    put_on_path(tmp_path / "bin", monkeypatch, "etcd", f"#!/bin/sh\necho '{says}'\n")
    assert on_path(table().row("etcd")) is None


def test_a_tool_that_cannot_say_its_version_is_not_taken_from_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(tmp_path / "bin", monkeypatch, "kserve-manager", "#!/bin/sh\n")
    assert on_path(table().row("kserve-manager")) is None


def test_the_cache_is_taken_without_a_look_at_the_network(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_ROADS", "cache")
    row = table().row("kwok")
    place = cache_dir() / "tools" / "kwok" / row.version / "kwok"
    place.parent.mkdir(parents=True)
    place.write_text("#!/bin/sh\n")
    assert in_cache(row) is None, "not runnable"
    place.chmod(0o755)
    assert tool("kwok") == place


def test_no_road_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_ROADS", "cache")
    with pytest.raises(VelagenError, match=r"no road leads to kserve-manager 0\.20\.0.*(\n.*)*allowed now: cache"):
        tool("kserve-manager")
    monkeypatch.setenv("VELAGEN_ROADS", "cache,plane")
    with pytest.raises(VelagenError, match="names no road: plane"):
        tool("kserve-manager")


# -- releases


def test_a_release_is_downloaded_checked_and_kept(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    archive = tar({"toy-1.2.3/README": b"hello", "toy-1.2.3/toy": SCRIPT})
    rows = read_table(table_file(tmp_path, row_text(server, archive)))
    (path,) = install([("toy", None)], reporter=reporter, rows=rows)
    assert subprocess.run([path], capture_output=True, text=True, check=True).stdout == "toy version v1.2.3\n"
    assert install([("toy", None)], reporter=reporter, rows=rows) == [path]
    assert len(server.asked) == 1
    assert not list((cache_dir() / "downloads").iterdir()), "the archive is not kept"


def test_a_broken_download_goes_on_where_it_broke(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    data = os.urandom(300_000)
    server.files["/blob"] = data
    server.break_after = 100_000
    path = download(f"{server.url}/blob", tmp_path, Digest("sha256", sha(data)), reporter, label="blob")
    assert path.read_bytes() == data
    assert server.asked == [("/blob", None), ("/blob", "bytes=100000-")]


def test_a_download_of_an_earlier_run_is_gone_on_with(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    data = os.urandom(50_000)
    server.files["/blob"] = data
    (tmp_path / f"{sha(data)}.part").write_bytes(data[:20_000])
    assert (
        download(f"{server.url}/blob", tmp_path, Digest("sha256", sha(data)), reporter, label="blob").read_bytes()
        == data
    )
    assert server.asked == [("/blob", "bytes=20000-")]


@pytest.mark.parametrize("have", [10, 50_000])
def test_a_server_without_ranges_and_a_complete_part(
    tmp_path: Path, server: Server, reporter: Reporter, have: int
) -> None:
    data = os.urandom(50_000)
    server.files["/blob"] = data
    server.ranges = have == len(data)
    (tmp_path / f"{sha(data)}.part").write_bytes(data[:have])
    path = download(f"{server.url}/blob", tmp_path, Digest("sha256", sha(data)), reporter, label="blob")
    assert path.read_bytes() == data


def test_a_wrong_checksum_stops_and_leaves_nothing(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    archive = tar({"toy": SCRIPT})
    rows = read_table(table_file(tmp_path, row_text(server, archive)))
    server.files[f"/toy-1.2.3-{this_platform()}.tar.gz"] = tar({"toy": b"#!/bin/sh\necho evil\n"})
    with pytest.raises(VelagenError, match=f"but {sha(archive)} is pinned; the file was removed"):
        install([("toy", None)], reporter=reporter, rows=rows)
    assert not list((cache_dir() / "downloads").iterdir())
    assert in_cache(rows.row("toy")) is None


def test_a_missing_release_is_said_and_the_next_road_tried(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    rows = read_table(table_file(tmp_path, row_text(server, tar({"toy": SCRIPT}))))
    server.files.clear()
    with pytest.raises(VelagenError, match=r"the release can't be downloaded .*404"):
        install([("toy", None)], reporter=reporter, rows=rows)


def test_without_a_checksum_nothing_is_downloaded(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    text = row_text(server, tar({"toy": SCRIPT})).replace(f"sha256.{this_platform()}", "sha256.plan9-mips")
    with pytest.raises(VelagenError, match="no checksum is pinned for its release"):
        install([("toy", None)], reporter=reporter, rows=read_table(table_file(tmp_path, text)))
    assert server.asked == []


def unpinned(server: Server, archive: bytes) -> str:
    """A row whose release has a list of checksums, and no checksum in the table."""
    where = this_platform()
    text = row_text(server, archive, **{"release.checksums": f'"{server.url}/{{version}}/checksums.txt"'})
    server.files["/1.2.3/checksums.txt"] = f"{'0' * 64}  other\n{sha(archive)} *toy-1.2.3-{where}.tar.gz\n".encode()
    return text.replace(f"sha256.{where}", "sha256.plan9-mips")


def test_a_checksum_of_the_publishers_list_is_shown_and_kept(
    tmp_path: Path, server: Server, reporter: Reporter, words: io.StringIO
) -> None:
    archive = tar({"toy": SCRIPT})
    rows = read_table(table_file(tmp_path, unpinned(server, archive)))
    (path,) = install([("toy", None)], reporter=reporter, rows=rows)
    address = f"{server.url}/toy-1.2.3-{this_platform()}.tar.gz"
    assert f"{address} is sha256:{sha(archive)} by {server.url}/1.2.3/checksums.txt" in words.getvalue()
    assert json.loads((tmp_path / "tools.lock").read_text()) == {address: f"sha256:{sha(archive)}"}
    # From then on it is a pin: the list is not asked again, and other bytes are refused.
    path.unlink()
    evil = tar({"toy": b"#!/bin/sh\necho evil\n"})
    server.files[f"/toy-1.2.3-{this_platform()}.tar.gz"] = evil
    server.files["/1.2.3/checksums.txt"] = f"{sha(evil)}  toy-1.2.3-{this_platform()}.tar.gz\n".encode()
    with pytest.raises(VelagenError, match=f"but {sha(archive)} is pinned; the file was removed"):
        install([("toy", None)], reporter=reporter, rows=rows)
    assert [asked for asked, _ in server.asked].count("/1.2.3/checksums.txt") == 1


@pytest.mark.parametrize("listed", ["", "not a list", f"{'0' * 63}Z  toy", f"{'0' * 64}  toy-1.2.3-plan9-mips.tar.gz"])
def test_a_list_without_the_file_closes_the_road(
    tmp_path: Path, server: Server, reporter: Reporter, listed: str
) -> None:
    rows = read_table(table_file(tmp_path, unpinned(server, tar({"toy": SCRIPT}))))
    server.files["/1.2.3/checksums.txt"] = listed.encode()
    with pytest.raises(VelagenError, match=r"checksums\.txt has no sha256 of toy-1\.2\.3"):
        install([("toy", None)], reporter=reporter, rows=rows)
    assert not (tmp_path / "tools.lock").exists()


@pytest.mark.parametrize("text", ["[", "[]", '{"a": "md5:1"}', '{"a": 1}'])
def test_a_lock_file_that_is_broken_is_named_and_left_alone(
    tmp_path: Path, server: Server, reporter: Reporter, text: str
) -> None:
    (tmp_path / "tools.lock").write_text(text)
    rows = read_table(table_file(tmp_path, unpinned(server, tar({"toy": SCRIPT}))))
    with pytest.raises(VelagenError, match=r"tools\.lock: the lock file"):
        install([("toy", None)], reporter=reporter, rows=rows)
    assert (tmp_path / "tools.lock").read_text() == text


def test_tools_of_one_archive_come_together(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    archive = tar({"x/toy": SCRIPT, "x/toy-two": SCRIPT})
    other = row_text(server, archive, name='"toy-two"', **{"release.member": '"x/toy-two"'})
    rows = read_table(table_file(tmp_path, row_text(server, archive), other))
    install([("toy", None)], reporter=reporter, rows=rows)
    assert in_cache(rows.row("toy-two")) is not None
    install([("toy-two", None)], reporter=reporter, rows=rows)
    assert len(server.asked) == 1


def test_zip_and_bare_files_are_read(tmp_path: Path) -> None:
    packed = tmp_path / "a"
    with zipfile.ZipFile(packed, "w") as bundle:
        bundle.writestr("d/toy", SCRIPT)
    extract(packed, "toy", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == SCRIPT
    extract(tmp_path / "out", None, tmp_path / "out2")
    assert (tmp_path / "out2").read_bytes() == SCRIPT
    with pytest.raises(RoadClosedError, match="toys is not in a"):
        extract(packed, "toys", tmp_path / "out")


def test_two_processes_download_once(tmp_path: Path, server: Server) -> None:
    server.pause = 0.5
    path = table_file(tmp_path, row_text(server, tar({"toy": SCRIPT})))
    code = f"""
        from pathlib import Path
        from velagen.tools import install
        from velagen.tools.table import read_table
        print(install([("toy", None)], rows=read_table(Path({str(path)!r})))[0])
    """
    started = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = {process.communicate(timeout=60)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert answers == {str(cache_dir() / "tools" / "toy" / "1.2.3" / "toy")}
    assert len(server.asked) == 1


# -- images


def registry(server: Server, layers: list[bytes], *, platforms: dict[str, str] | None = None) -> str:
    """Put an image into the server. Gives the digest of its index."""
    entries = []
    for layer in layers:
        server.files[f"/v2/org/app/blobs/sha256:{sha(layer)}"] = layer
        entries.append({"digest": f"sha256:{sha(layer)}", "size": len(layer)})
    manifest = json.dumps({"schemaVersion": 2, "layers": entries}).encode()
    server.files[f"/v2/org/app/manifests/sha256:{sha(manifest)}"] = manifest
    system, _, arch = this_platform().partition("-")
    index = json.dumps(
        {
            "manifests": [
                {"digest": "sha256:" + "0" * 64, "platform": {"os": "plan9", "architecture": "mips"}},
                {"digest": f"sha256:{sha(manifest)}", "platform": platforms or {"os": system, "architecture": arch}},
            ]
        }
    ).encode()
    server.files[f"/v2/org/app/manifests/sha256:{sha(index)}"] = index
    return f"sha256:{sha(index)}"


def image_of(server: Server, digest: str) -> Any:
    from velagen.tools.table import Image

    return Image(f"127.0.0.1:{server.server_port}/org/app", "/usr/bin/toy", {this_platform(): digest})


def take(server: Server, digest: str, tmp_path: Path, reporter: Reporter) -> bytes:
    from velagen.tools.image import take as take_image

    target = tmp_path / "out"
    take_image(image_of(server, digest), this_platform(), target, tmp_path / "layers", reporter, scheme="http")
    return target.read_bytes()


@pytest.mark.parametrize("token", [None, "abc"])
def test_the_binary_comes_out_of_the_last_layer_that_has_it(
    tmp_path: Path, server: Server, reporter: Reporter, token: str | None
) -> None:
    layers = [tar({"usr/bin/toy": b"old"}), tar({"./usr/bin/toy": b"new"}), tar({"etc/x": b"y"})]
    digest = registry(server, layers)
    server.token = token
    assert take(server, digest, tmp_path, reporter) == b"new"
    assert not any(sha(layers[0]) in path for path, _ in server.asked), "deeper layers are not needed"


def test_a_layer_that_was_changed_is_refused(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    layer = tar({"usr/bin/toy": b"good"})
    digest = registry(server, [layer])
    server.files[f"/v2/org/app/blobs/sha256:{sha(layer)}"] = tar({"usr/bin/toy": b"evil"})
    with pytest.raises(VelagenError, match="is pinned"):
        take(server, digest, tmp_path, reporter)


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    digest = registry(server, [tar({"usr/bin/toy": b"good"})])
    server.files[f"/v2/org/app/manifests/{digest}"] += b" "
    with pytest.raises(RoadClosedError, match="the manifest's digest is"):
        take(server, digest, tmp_path, reporter)


def test_an_image_without_the_binary_or_the_platform(tmp_path: Path, server: Server, reporter: Reporter) -> None:
    with pytest.raises(RoadClosedError, match="in no layer"):
        take(server, registry(server, [tar({"usr/bin/other": b"x"})]), tmp_path, reporter)
    other = registry(server, [tar({"usr/bin/toy": b"x"})], platforms={"os": "windows", "architecture": "386"})
    with pytest.raises(RoadClosedError, match="not published for"):
        take(server, other, tmp_path, reporter)


def image_row(server: Server) -> str:
    return f"""[[tool]]
        name = "toy"
        version = "1.0"
        default = true
        image.repository = "127.0.0.1:{server.server_port}/org/app"
        image.tag = "v{{version}}"
        image.member = "/usr/bin/toy"
    """


def test_a_tag_is_resolved_shown_and_kept(
    tmp_path: Path, server: Server, reporter: Reporter, words: io.StringIO
) -> None:
    digest = registry(server, [tar({"usr/bin/toy": b"good"})])
    server.files["/v2/org/app/manifests/v1.0"] = server.files[f"/v2/org/app/manifests/{digest}"]
    rows = read_table(table_file(tmp_path, image_row(server)))
    (path,) = install([("toy", None)], reporter=reporter, rows=rows)
    assert path.read_bytes() == b"good"
    address = f"127.0.0.1:{server.server_port}/org/app:v1.0"
    assert f"{address} is {digest} by its registry; kept in {tmp_path / 'tools.lock'}" in words.getvalue()
    # The tag moves: what was kept is taken, and nobody asks for the tag.
    other = registry(server, [tar({"usr/bin/toy": b"other"})])
    server.files["/v2/org/app/manifests/v1.0"] = server.files[f"/v2/org/app/manifests/{other}"]
    path.unlink()
    assert install([("toy", None)], reporter=reporter, rows=rows) == [path]
    assert path.read_bytes() == b"good"
    assert [asked for asked, _ in server.asked].count("/v2/org/app/manifests/v1.0") == 1


def test_a_registry_that_does_not_know_the_tag_closes_the_road(
    tmp_path: Path, server: Server, reporter: Reporter
) -> None:
    with pytest.raises(VelagenError, match=r"the image can't be downloaded \(.*/manifests/v1\.0 answered 404"):
        install([("toy", None)], reporter=reporter, rows=read_table(table_file(tmp_path, image_row(server))))


def test_what_needs_no_go_on_a_machine_with_the_internet() -> None:
    """All that a lab and a check run, but velagen's own evaluator; each row of another has a release or an image.

    promtool and Istio are tests' own.
    """
    where = "linux-amd64"
    built = {
        row.name
        for row in table().tools
        if not row.kind
        and not (row.release and (row.release.checksums or where in row.release.digests))
        and not (row.image and (row.image.tag or where in row.image.digests))
    }
    assert built <= {"cue-oracle", "promtool", "pilot-discovery"}


# -- Go builds


def local_module(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "toymod"
    folder.mkdir(exist_ok=True)
    (folder / "go.mod").write_text("module toy\n\ngo 1.21\n")
    (folder / "main.go").write_text(text)
    return folder


def local_row(folder: Path) -> str:
    return f"""[[tool]]
        name = "toy"
        version = "1.0"
        default = true
        build.local = "{folder}"
        build.package = "."
        build.minutes = 0.1
        build.gigabytes = 0.1
    """


GOOD = 'package main\n\nfunc main() { println("toy 1.0") }\n'


@pytest.mark.slow
def test_own_go_code_is_built_and_its_cache_dropped(
    tmp_path: Path, reporter: Reporter, words: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOCACHE", raising=False)
    folder = local_module(tmp_path, GOOD)
    rows = read_table(table_file(tmp_path, local_row(folder)))
    (path,) = install([("toy", None)], reporter=reporter, rows=rows)
    assert subprocess.run([path], capture_output=True, text=True, check=True).stderr == "toy 1.0\n"
    assert not (cache_dir() / "build" / "go").exists()
    assert "building with Go, about one minute" in words.getvalue()


@pytest.mark.slow
def test_go_code_that_does_not_compile_says_so_and_leaves_nothing(tmp_path: Path, reporter: Reporter) -> None:
    folder = local_module(tmp_path, "package main\n\nfunc main() { nonsense }\n")
    rows = read_table(table_file(tmp_path, local_row(folder)))
    with pytest.raises(VelagenError, match=r"undefined: nonsense(\n.*)*The whole output is in"):
        install([("toy", None)], reporter=reporter, rows=rows)
    assert not list((cache_dir() / "tools" / "toy").rglob("*toy*part"))


def test_a_change_of_own_go_code_is_another_tool(tmp_path: Path) -> None:
    folder = local_module(tmp_path, GOOD)
    row = read_table(table_file(tmp_path, local_row(folder))).row("toy")
    before = key(row)
    assert key(row) == before
    (folder / "notes.md").write_text("of no account")
    assert key(row) == before
    (folder / "main.go").write_text(GOOD.replace("1.0", "1.1"))
    assert key(row) != before


def test_too_little_disk_is_said_before_the_build(
    tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local_module(tmp_path, GOOD)
    text = local_row(folder).replace("gigabytes = 0.1", "gigabytes = 900000")
    with pytest.raises(VelagenError, match="needs about 900000 GB"):
        install([("toy", None)], reporter=reporter, rows=read_table(table_file(tmp_path, text)))


def test_without_go_the_way_out_is_said(tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_table(table_file(tmp_path, local_row(local_module(tmp_path, GOOD))))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VelagenError, match=r"go is not on PATH(\n.*)*Install Go"):
        install([("toy", None)], reporter=reporter, rows=rows)


# -- sources


@pytest.mark.slow
def test_a_source_is_found_and_then_remembered() -> None:
    folder = source("kwok")
    assert (folder / "kustomize" / "stage").is_dir()
    started = time.perf_counter()
    assert source("kwok") == folder
    assert time.perf_counter() - started < 0.05


def test_a_remembered_source_that_is_gone_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = cache_dir() / "sources" / "kwok-v0.8.0"
    note.parent.mkdir(parents=True)
    note.write_text(str(tmp_path / "gone"))
    put_on_path(tmp_path / "bin", monkeypatch, "go", "#!/bin/sh\necho the network is down >&2; exit 1\n")
    with pytest.raises(VelagenError, match="the network is down"):
        source("kwok")


def archive_of(folder: Path, more: dict[str, bytes]) -> bytes:
    """A tar.gz as a tag's archive is: one top folder, and beside the module what does not belong to it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as bundle:
        bundle.add(folder, "toy-1.0")
        for name, data in more.items():
            entry = tarfile.TarInfo(f"toy-1.0/{name}")
            entry.size = len(data)
            bundle.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("toy-1.0/link")
        link.type, link.linkname = tarfile.SYMTYPE, "go.mod"
        bundle.addfile(link)
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="compares with what Go downloads, and Go is not installed")
def test_without_go_a_source_comes_from_its_archive_and_is_the_same(
    tmp_path: Path, server: Server, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go's own copy of a module, packed with what is beside a module in a repository, gives the hash of go.sum."""
    by_go = source("workflow", "0.7.2")
    beside = {
        "tool/go.mod": b"module tool\n",
        "tool/deep/main.go": b"package main\n",
        "vendor/a.example/b/c.go": b"package b\n",
        "pkg/vendor/x/y.go": b"package x\n",
        ".hg_archival.txt": b"x",
    }
    server.files["/workflow.tar.gz"] = archive_of(by_go, beside)
    row = replace(table().source("workflow", "0.7.2"), archive=f"{server.url}/workflow.tar.gz")
    monkeypatch.setattr("velagen.tools.road.table", lambda: replace(table(), sources=(row,)))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path / "other"))
    found = source("workflow", reporter=reporter)
    assert found == tmp_path / "other/modules/workflow-v0.7.2"
    theirs = {path.relative_to(by_go) for path in by_go.rglob("*") if path.is_file()}
    assert {path.relative_to(found) for path in found.rglob("*") if path.is_file()} == theirs
    assert source("workflow") == found
    assert len(server.asked) == 1


CUT = tar({f"a/{number}": os.urandom(2000) for number in range(20)})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "answered 404"),
        (b"x", "not an archive"),
        (b"", "not an archive"),
        (CUT[: len(CUT) // 2], "not an archive"),
        (CUT[:100] + bytes(200) + CUT[300:], "not an archive"),
        (tar({"a/b": b"x"}), "its content hash is h1:"),
    ],
    ids=["nothing", "text", "empty", "cut off", "damaged", "other content"],
)
def test_an_archive_that_is_not_the_module_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, body: bytes | None, said: str
) -> None:
    if body is not None:
        server.files["/kwok.tar.gz"] = body
    row = replace(table().source("kwok"), archive=f"{server.url}/kwok.tar.gz")
    monkeypatch.setattr("velagen.tools.road.table", lambda: replace(table(), sources=(row,)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VelagenError, match=said):
        source("kwok")
    assert not list((cache_dir() / "modules").glob("*"))


@pytest.mark.parametrize(
    ("name", "release", "vendored"),
    [
        ("vendor/modules.txt", (1, 24), True),
        ("vendor/modules.txt", (1, 23), False),
        ("vendor/a/b.go", (1, 16), True),
        ("pkg/vendor/vendor.go", (1, 24), False),
        # A fault of Go's that hashes of older modules depend on.
        ("pkg/long/vendor/vendor.go", (1, 23), True),
        ("vendored/a.go", (1, 24), False),
    ],
)
def test_what_of_vendor_folders_belongs_to_a_module(name: str, release: tuple[int, int], vendored: bool) -> None:
    assert modsource._vendored(name, release) is vendored


def test_a_source_of_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"Dir": str(tmp_path), "Sum": "h1:AAAA"})
    put_on_path(
        tmp_path / "bin",
        monkeypatch,
        "go",
        f"#!/bin/sh\ncase $1 in version) echo go version go1.26.0;; *) echo '{answer}';; esac\n",
    )
    with pytest.raises(VelagenError, match="its content hash is h1:AAAA, but h1:"):
        source("kwok")


@pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go here")
def test_a_build_cache_that_is_named_is_made_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "not" / "there"
    monkeypatch.setenv("GOCACHE", str(named))
    with workshop(tmp_path / "cache", Reporter()) as shop:
        assert shop.go_cache == named
        assert named.is_dir()
    assert named.is_dir()


@pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go here")
def test_a_source_may_be_asked_for_by_many_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELAGEN_CACHE", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: source("kwok"), range(8)))
    assert len(set(found)) == 1
    assert found[0].is_dir()
