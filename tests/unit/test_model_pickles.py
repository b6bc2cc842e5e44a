import contextlib
import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from velagen.model.pickles import is_pickle, scan

MODELS = Path(__file__).parent / "fixtures" / "models"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in MODELS.iterdir() if path.suffix in (".pkl", ".joblib")))
def test_real_models_are_read_to_their_end_and_are_not_unsafe(name: str) -> None:
    report = scan(MODELS / name)
    assert (report.unsafe, report.unread) == ((), "")
    assert {"sklearn", "numpy"} <= report.modules
    assert report.brings_code == (name == "lambda.pkl")
    assert is_pickle(MODELS / name)


def test_import_names_come_whole() -> None:
    assert ("sklearn.linear_model._logistic", "LogisticRegression") in scan(MODELS / "pipeline.joblib").imports


class Runs:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.made = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("call", "arguments", "said"), [
    (os.system, ("touch /tmp/never",), "system"),
    (eval, ("1",), "builtins.eval"),
    (getattr, ("", "join"), "builtins.getattr"),
])  # fmt: skip
def test_programs_and_code_are_unsafe(
    tmp_path: Path, protocol: int, call: Callable[..., object], arguments: tuple[object, ...], said: str
) -> None:
    report = scan(write(tmp_path / "model.pkl", pickle.dumps({"model": [Runs(call, *arguments)]}, protocol)))
    assert len(report.unsafe) == 1
    assert said in report.unsafe[0]
    assert report.unread == ""


@pytest.mark.parametrize(("data", "said"), [
    # An innocent pickle with another one behind it.
    (pickle.dumps([1]) + b"cposix\nsystem\n(S'x'\ntR.", "posix.system"),
    # A dotted name reaches through what a module has imported.
    (b"\x80\x04\x8c\x06joblib\x8c\tos.system\x93.", "joblib.os.system"),
    # A name put together, or looked up where no constant is.
    (b"\x80\x04Px\n\x8c\x06system\x93.", "computes the name"),
    (b"\x80\x04cbuiltins\nstr\n\x8c\x05posix\x85R\x8c\x06system\x93.", "computes the name"),
    (b"\x80\x04cbuiltins\nstr\n\x8c\x05posix\x85\x81\x8c\x06system\x93.", "computes the name"),
    # Calling what a call returned.
    (b"cnumpy\ncore\n(tR(tR.", "another call returned"),
    (b"(S'x'\niposix\nsystem\n.", "posix.system"),
    (b"\x80\x02\x82\x01.", "extension registry"),
    # Python 2's names of the same things.
    (b"ccPickle\nloads\n.", "pickle.loads"),
    (b"ccommands\ngetoutput\n.", "subprocess.getoutput"),
    # Names by way of the memo.
    (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93.", "posix.system"),
])  # fmt: skip
def test_ways_to_hide(tmp_path: Path, data: bytes, said: str) -> None:
    report = scan(write(tmp_path / "model.pkl", data))
    assert any(said in sentence for sentence in report.unsafe), report


def test_payload_behind_an_array_of_joblib_is_seen(tmp_path: Path) -> None:
    data = (MODELS / "pipeline.joblib").read_bytes()
    assert data.endswith(b".")
    report = scan(write(tmp_path / "m.joblib", data[:-1] + b"cposix\nsystem\n(S'x'\ntR0."))
    assert report.unsafe == ("it imports posix.system",)
    assert report.unread == ""


ARRAY = b"cnumpy\ndtype\n(S'V%d'\ntR"
STATE = b"(dS'dtype'\n" + ARRAY + b"sS'shape'\n(I1\nts"


@pytest.mark.parametrize("made", [
    b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n(tR",
    b"ccopyreg\n_reconstructor\n(cjoblib.numpy_pickle\nNumpyArrayWrapper\ncbuiltins\nobject\nNtR",
    b"cjoblib.numpy_pickle_utils\nNumpyArrayWrapper\n(tR",
])  # fmt: skip
def test_payload_where_only_one_of_two_loaders_looks(tmp_path: Path, made: bytes) -> None:
    """Behind the wrapper of an array joblib steps over bytes that pickle runs; each may hide something from the
    other.
    """
    payload = b"cposix\nsystem\n(S'x'\ntR."
    for_pickle = made + STATE % len(payload) + b"b" + payload + b"."
    # What pickle would take for the start of a long text, joblib skips.
    for_joblib = made + STATE % 5 + b"b" + b"X\xff\x00\x00\x00" + payload
    for data in (for_pickle, for_joblib):
        assert scan(write(tmp_path / "m.pkl", data)).unsafe == ("it imports posix.system",)


@pytest.mark.parametrize("cut", [1, 40, 300, 700])
def test_what_ends_early_is_said(tmp_path: Path, cut: int) -> None:
    data = (MODELS / "pipeline.joblib").read_bytes()
    report = scan(write(tmp_path / "m.joblib", data[:-cut]))
    assert report.unread


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is text",
        b"\x1f\x8b\x08garbage",
        b"\x80\x04}\x8c\x01x\x93.",
        b"\x96" + b"\xff" * 7 + b"\x0f.",
        b"\x78\x9cgarbage",
        b"\xfd7zXZ\x00x",
    ],
)
def test_what_is_no_pickle_is_said(tmp_path: Path, data: bytes) -> None:
    assert scan(write(tmp_path / "m.pkl", data)).unread


class Recorder(pickle._Unpickler):
    """The standard loader, which gets an inert class for everything it imports."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.seen: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> type:
        self.seen.add((module, name))
        return type(
            "Inert", (dict,), {"__init__": lambda self, *a, **k: None, "__setstate__": lambda self, state: None}
        )


def test_nothing_that_a_loader_imports_is_missed(tmp_path: Path) -> None:
    """Broken at random, a file is either not read to its end, and that is said, or all that a loader imports is
    seen.
    """
    chance = random.Random(7)
    sources = [(MODELS / name).read_bytes() for name in ("pipeline-p4.pkl", "lambda.pkl")]
    path = tmp_path / "m.pkl"
    whole = 0
    for _ in range(600):
        data = bytearray(chance.choice(sources))
        for _ in range(chance.randint(0, 2)):
            data[chance.randrange(len(data))] = chance.choice(b"c\x93R\x81b.(t}su]ae012\x94h\x8c\x88N\x00\xff")
        report = scan(write(path, bytes(data)))
        loader = Recorder(bytes(data))
        with contextlib.suppress(Exception):
            loader.load()
        missed = loader.seen - report.imports
        assert not missed or report.unread or report.unsafe, (missed, bytes(data))
        whole += not report.unread
    assert whole > 100, "too few whole files to say anything"


def test_archive_of_pytorch(tmp_path: Path) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Runs(os.system, "x")))
        archive.writestr("model/data/0", b"\0" * 64)
    assert any("system" in sentence for sentence in scan(write(tmp_path / "m.pt", held.getvalue())).unsafe)


def test_pickles_are_known_by_name_or_by_their_first_bytes(tmp_path: Path) -> None:
    assert is_pickle(write(tmp_path / "weights.bin", pickle.dumps(1)))
    assert not is_pickle(write(tmp_path / "notes.txt", b"plain"))
    assert not is_pickle(tmp_path / "none")
