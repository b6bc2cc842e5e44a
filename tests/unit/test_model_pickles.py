import bz2
import contextlib
import gzip
import io
import lzma
import os
import pickle
import random
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from velagen.model.imports import imports_for
from velagen.model.pickles import is_pickle, scan

MODELS = Path(__file__).parent / "fixtures" / "models"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in MODELS.iterdir() if path.suffix in (".pkl", ".joblib")))
def test_real_models_are_read_to_their_end_and_are_not_unsafe(name: str) -> None:
    report = scan(MODELS / name)
    assert (report.unsafe, report.unread) == ((), "")
    assert report.modules & {"sklearn", "cloudpickle"}
    assert report.brings_code == (name in ("lambda.pkl", "python_model.pkl"))
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


def call(module: str, name: str, *arguments: str) -> bytes:
    """A pickle that calls what it imports."""
    texts = b"".join(b"S'%s'\n" % argument.encode() for argument in arguments)
    return b"c%s\n%s\n(%stR." % (module.encode(), name.encode(), texts)


#: Some run programs or open what they are told to, some are only not what a model is made of.
NOT_FOR_MODELS = """
    uuid._get_command_stdout _osx_support._read_output joblib.numpy_pickle.load sklearn.utils._joblib.load
    joblib.load logging.config.listen logging.config.dictConfig types.FunctionType types.CodeType
    numpy.ctypeslib.load_library numpy.distutils.exec_command numpy.distutils.exec_command.exec_command numpy.load
    numpy.memmap numpy.fromfile numpy.lib.npyio.load numpy.testing.rundocs numpy.f2py.capi_maps.load_f2cmap_file
    scipy._lib._testutils.run pandas.read_pickle pandas.io.common.get_handle pandas.eval pandas.HDFStore
    pandas.core.computation.eval.eval sklearn.datasets.fetch_openml sklearn.datasets._base.fetch_file
    sklearn.utils._testing.run sklearn.utils.parallel.Parallel sklearn.ensemble._forest.Parallel
    sklearn.svm._base.os.system sklearn.tests.random_seed.Pwn joblib.Parallel
    joblib.numpy_pickle_compat.ZNDArrayWrapper joblib.memory.Memory torch.load torch.hub.load
    torch.PyTorchFileWriter torch.utils.cpp_extension.load torch.serialization.load transformers.pipeline
    transformers.AutoModel.from_pretrained mlflow.pyfunc.load_model mlflow.projects.run xgboost.dask.run
    lightgbm.basic._load_lib cloudpickle.load cloudpickle.cloudpickle.exec functools.reduce builtins.map
    builtins.filter builtins.apply builtins.delattr builtins.print operator.methodcaller operator.attrgetter
    pydoc.locate pkgutil.resolve_name importlib.import_module runpy._run_code timeit.timeit bdb.Bdb
    asyncio.unix_events._UnixSubprocessTransport._start multiprocessing.util.spawnv_passfds webbrowser.open
    ensurepip._run_pip venv.create pip.main idlelib.pyshell.ModifiedInterpreter lib2to3.pgen2.grammar.Grammar.loads
    trace.Trace.run ctypes.CDLL _io.open io.FileIO tempfile.mktemp shutil.rmtree pathlib.Path.write_text
    pathlib.Path.unlink urllib.request.urlopen code.InteractiveInterpreter codeop.compile_command
    typing.get_type_hints enum._test dataclasses.make_dataclass re._parser.parse collections.namedtuple
    random._urandom decimal.os.system zoneinfo._common.load_data array.array.fromfile
"""


@pytest.mark.parametrize("runtime", ["mlflow", "sklearn", "huggingface", "pytorch", "triton"])
def test_what_no_list_names_is_unsafe_whether_or_not_harm_is_known(tmp_path: Path, runtime: str) -> None:
    for name in NOT_FOR_MODELS.split():
        module, _, attribute = name.rpartition(".")
        report = scan(write(tmp_path / "m.pkl", call(module, attribute, "id")), imports_for(runtime))
        assert report.unsafe == (f"it imports {module}.{attribute}",)


HIDDEN = call("posix", "system", "id")


def zipped(**members: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def array_of_objects(content: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize("data", [
    HIDDEN + zipped(notes=b"nothing"),
    zipped(weights=HIDDEN),
    zipped(inner=zipped(weights=HIDDEN)),
    zipped(arrays=array_of_objects(HIDDEN)),
    tarred("pickle", HIDDEN),
    array_of_objects(HIDDEN),
    gzip.compress(HIDDEN), bz2.compress(HIDDEN), lzma.compress(HIDDEN), zlib.compress(HIDDEN),
    lzma.compress(HIDDEN, lzma.FORMAT_ALONE),
    # What comes after the call can't be read, and a loader has made it by then.
    HIDDEN[:-1] + b"\xff\xff",
], ids=range(12))  # fmt: skip
@pytest.mark.parametrize("name", ["model.pt", "python_model.bin", "weights.dat", "model"])
def test_program_is_found_whatever_else_the_file_is_and_whatever_its_name(
    tmp_path: Path, data: bytes, name: str
) -> None:
    assert scan(write(tmp_path / name, data)).unsafe == ("it imports posix.system",)


@pytest.mark.parametrize(("data", "said"), [
    # A class whose constructor runs a program, made by a helper that is listed.
    (b"ccopyreg\n_reconstructor\n(csubprocess\nPopen\ncsubprocess\nPopen\nS'id'\ntR.", "subprocess.Popen"),
    # SciPy runs the text of a distribution's state when it is filled.
    (b"cscipy.stats._continuous_distns\nexpon_gen\n)\x81}(S'_parse_arg_template'\nS'import os'\nub.", "text that runs"),
    (b"cscipy.stats._continuous_distns\nexpon_gen\n)\x81(ccollections\nOrderedDict\n)Rtb.", "text that runs"),
    (b"csklearn.svm._classes\nSVC\n}(S'x'\nI1\nub.", "changes what it imports"),
    (b"csklearn.utils._bunch\nBunch\n(S'a'\nI1\nu.", "changes what it imports"),
    (b"ccloudpickle.cloudpickle\n_class_setstate\n(csklearn.svm._classes\nSVC\n)tR.", "changes what it imports"),
    (b"ccloudpickle.cloudpickle\nsubimport\n(S'os'\ntR}(S'system'\nI1\nub.", "changes what it imports"),
    (b"ccloudpickle.cloudpickle\nsubimport\n(S'antigravity'\ntR.", "imports the module antigravity"),
    (b"ccloudpickle.cloudpickle\nsubimport\n(cbuiltins\nstr\n)RtR.", "computes the name of a module"),
    (b"cnumpy.random._pickle\n__generator_ctor\n(S'this'\nccloudpickle.cloudpickle\nsubimport\ntR.", "hands on"),
    (b"cnumpy.core\n_ufunc_reconstruct\n(S'os'\nS'system'\ntR.", "os.system"),
    (b"cbuiltins\ngetattr\n(cpathlib\nPath\nS'unlink'\ntR.", "builtins.getattr"),
    (b"ctorch.storage\n_load_from_bytes\n(B" + len(HIDDEN).to_bytes(4, "little") + HIDDEN + b"tR.", "posix.system"),
    (b"ctorch.storage\n_load_from_bytes\n(ccollections\nOrderedDict\n)RtR.", "a pickle within"),
    (b"ccloudpickle.cloudpickle\n_make_function\n)R)R.", "another call returned"),
    (b"cjoblib\nos.system\n.", "joblib.os.system"),
])  # fmt: skip
def test_listed_names_that_lead_to_others(tmp_path: Path, data: bytes, said: str) -> None:
    assert any(said in sentence for sentence in scan(write(tmp_path / "m.pkl", data)).unsafe)


def test_files_that_only_look_like_pickles_are_no_fault(tmp_path: Path) -> None:
    for data in (
        b"cat\ndog\n",
        b"channels:\n- defaults\n",
        b"].",
        b"(" * 50,
        zipped(readme=b"cat\ndog\n"),
        gzip.compress(b"x"),
    ):
        report = scan(write(tmp_path / "file", data))
        assert (report.unsafe, report.unread) == ((), ""), data
    # What should be a pickle and is not counts as one.
    assert scan(write(tmp_path / "file", b"nothing"), expected=True).unread


def test_weights_as_pytorch_wrote_them_before_archives(tmp_path: Path) -> None:
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"w": 1}, ["0"]]
    data = b"".join(pickle.dumps(part, 2) for part in parts) + b"\xff raw bytes of a storage"
    assert scan(write(tmp_path / "pytorch_model.bin", data)).unread == ""
    assert scan(write(tmp_path / "pytorch_model.bin", data.replace(b"\x01", b"\x02", 1))).unsafe == ()


def test_versions_of_scikit_learn_are_read(tmp_path: Path) -> None:
    assert scan(MODELS / "pipeline-1.5.joblib").sklearn_versions == {"1.5.2"}
    assert scan(MODELS / "pipeline-zlib.joblib").sklearn_versions == {"1.9.1"}


@pytest.mark.parametrize("data", [
    # Zeros that unpack to a thousand times their size; and a constant that says it is longer than the file.
    pytest.param(zlib.compress(b"\x80\x04\x8e" + (2**31).to_bytes(8, "little") + bytes(400_000_000)), id="bomb"),
    pytest.param(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little"), id="long constant"),
    pytest.param(b"\x80\x02I" + b"9" * 5000 + b"\n.", id="long number"),
    pytest.param(b"\x80\x02S'" + b"a" * 3_000_000, id="long line"),
    pytest.param(b"\x80\x04\x8b" + (2**31 - 1).to_bytes(4, "little"), id="long integer"),
    pytest.param(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_001, id="deep"),
])  # fmt: skip
def test_time_and_memory_are_bounded(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "m.pkl", data)
    tracemalloc.start()
    assert scan(path).unread
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 64 * 2**20
