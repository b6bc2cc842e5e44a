"""Input that is too large, too deep or no file at all: each ends soon, in a sentence, and never in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from velagen import cli
from velagen.cue import to_cue
from velagen.documents import parse_documents, read_documents
from velagen.errors import VelagenError
from velagen.oracle import CONTEXT, VERSIONS, Oracle
from velagen.report import explained
from velagen.schema import compile_schema, load_schema, parse_schema, validate

#: Seconds; on idle cores each takes two at most.
SOON = 20.0

NINE = ",".join(["*{0}"] * 9)
YAML = {
    "deep flow": "a: " + "[" * 900,
    "deeper than the reader's own stack": "a: " + "[" * 200_000,
    "deep block": "\n".join(" " * level + "a:" for level in range(900)),
    "long integer": "a: " + "9" * 5000,
    "long hexadecimal": "a: 0x" + "f" * 5000,
    "long base 60": "a: 1" + ":59" * 3000,
    "tagged integer": "a: !!int '" + "9" * 5000 + "'",
    "no boolean": "a: !!bool x",
    "no date": "a: !!timestamp 2001-99-01",
    "infinity": "a: .inf",
    "bytes": "a: !!binary aGk=",
    "set": "a: !!set {x}",
    "aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{NINE.format(f'a{i - 1}')}]\n" for i in range(1, 12)),
    "merges": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{NINE.format(f'a{i - 1}')}]}}\n" for i in range(1, 12)),
    "merges under one key": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}, <<: *a{i - 1}}}\n" for i in range(1, 40)),
    "long keys": '"' + "k" * 900 + '": [' + "{" + ",".join(f'"{"k" * 900}{i}": 1' for i in range(30_000)) + "}]",
    "many values": "a: [" + "1," * 300_000 + "]",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_yaml_that_multiplies_or_is_not_json(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(VelagenError) as caught:
        parse_documents(text, "app.yaml")
    assert time.monotonic() - start < SOON
    assert caught.value.problems[0].place.file == "app.yaml"
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "/nowhere", "a\0b"])
def test_what_is_no_file_is_not_read(path: str) -> None:
    with pytest.raises(VelagenError, match="can't be read: "):
        read_documents(Path(path))


def test_a_pipe_is_read_to_its_end_and_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("a: 1\n"))
    writer.start()
    (document,) = read_documents(pipe)
    writer.join()
    assert document.value == {"a": 1}
    monkeypatch.setattr("velagen.documents.PATIENCE", 0.2)
    with pytest.raises(VelagenError, match="nothing came out of this pipe"):
        read_documents(pipe)


def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(VelagenError, match="it has more than 32 MiB"):
        read_documents(file)


def parameter(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def doubled(make: Callable[[dict[str, str]], Any], leaf: Any) -> dict[str, Any]:
    """A schema of 25 steps, each of which refers twice to the one below."""
    steps = {f"d{level}": make({"$ref": f"#/$defs/d{level - 1}"}) for level in range(1, 26)}
    return {**parameter(a={"$ref": "#/$defs/d25"}), "$defs": {"d0": leaf, **steps}}


MANY, FEWER = range(20_000), range(8_000)
STRING = {"type": "string"}
LARGE: dict[str, tuple[Any, Any]] = {
    "enum of strings": (parameter(a={"enum": [f"v{i}" for i in MANY]}), {"a": "x"}),
    "enum of numbers": (parameter(a={"enum": [i / 2 for i in MANY]}), {"a": 0.3}),
    "enum with a default": (parameter(a={"enum": [f"v{i}" for i in MANY], "default": "v3"}), {"a": "x"}),
    "enum of objects": (parameter(a={"enum": [{"k": i} for i in FEWER]}), {"a": {"k": -1}}),
    "required": ({"type": "object", "required": [f"v{i}" for i in MANY]}, {}),
    "properties": (parameter(**{f"v{i}": {"type": "integer", "minimum": 1} for i in FEWER}), {"v1": 0}),
    "anyOf": (parameter(a={"anyOf": [{"const": f"v{i}"} for i in MANY]}), {"a": "x"}),
    "oneOf": (parameter(a={"oneOf": [parameter(k={"const": i}) for i in FEWER]}), {"a": {"k": -1}}),
    "patternProperties": ({"type": "object", "patternProperties": {f"^v{i}$": STRING for i in FEWER}}, {"v1": 1}),
    "dependentRequired": ({"type": "object", "dependentRequired": {f"v{i}": ["a"] for i in MANY}}, {"v1": 1}),
    "doubled allOf": (doubled(lambda ref: {"allOf": [ref, ref]}, STRING), {"a": 1}),
    "doubled anyOf": (doubled(lambda ref: {"anyOf": [ref, ref]}, STRING), {"a": 1}),
    "doubled oneOf": (doubled(lambda ref: {"oneOf": [ref, ref]}, STRING), {"a": 1}),
    "doubled properties": (doubled(lambda ref: parameter(x=ref, y=ref), STRING), {"a": {"x": 1}}),
    "doubled items": (doubled(lambda ref: {"items": ref, "contains": ref}, STRING), {"a": [[[[[1]]]]]}),
    "doubled if": (doubled(lambda ref: {"if": ref, "then": ref}, STRING), {"a": 1}),
    "doubled not": (doubled(lambda ref: {"not": {"allOf": [ref, {"not": ref}]}}, STRING), {"a": 1}),
    "doubled unevaluated": (
        {**doubled(lambda ref: {"allOf": [ref, ref], "unevaluatedProperties": False}, {})},
        {"a": {"x": 1}},
    ),
    "long pattern": (parameter(a={"pattern": "|".join(f"v{i}x" for i in MANY)}), {"a": "v1" * 1000}),
    "long value": (parameter(a={"pattern": "^(a|b|ab)*$"}), {"a": "ab" * 1_000_000 + "c"}),
    "unique objects": (parameter(a={"uniqueItems": True}), {"a": [{"k": i // 2} for i in MANY]}),
    "long number": (parameter(a={"maximum": 10**5000}), {"a": 1}),
    "long chain": ({**parameter(a={"$ref": "#/$defs/d0"}), "$defs": {
        f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} if i < 900 else STRING for i in range(901)
    }}, {"a": 1}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.seconds(60)
@pytest.mark.parametrize(("document", "value"), LARGE.values(), ids=LARGE)
def test_a_large_schema_is_compiled_or_refused_soon(document: Any, value: Any) -> None:
    start = time.monotonic()
    said = ""
    try:
        schema = parse_schema(document)
        # A schema that can't be compiled never judges a value; that it could do so in time is tested all the same.
        validate(schema, value)
        to_cue(compile_schema(schema).file())
        to_cue(compile_schema(schema, faces=True).file())
    except VelagenError as error:
        said = str(error)
    assert len(said) < 3000
    assert time.monotonic() - start < 3 * SOON


@pytest.mark.parametrize("integers", ["json", "kubevela"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_long_enum_means_what_it_says_and_converts_in_time(version: Any, integers: Any) -> None:
    """KubeVela's OpenAPI conversion of a disjunction of 2,000 values takes half a minute."""
    values = [*(f"v{number}" for number in range(2000)), 1, 2.5, None, True, *range(10, 100)]
    text = to_cue(
        compile_schema(parse_schema(parameter(a={"enum": values})), integers=integers, standalone=True).file()
    )
    good, bad = ["v0", "v1999", 1, 2.5, None, True, 99], ["v2000", 2, 2.6, False, [], {}, 100]
    with Oracle(version, seconds=20) as oracle:
        verdicts = oracle.render(text, [{"a": value} for value in (*good, *bad)])
        assert [verdict.ok for verdict in verdicts] == [True] * len(good) + [False] * len(bad)
        assert oracle.openapi(text).ok


NUMBERS = [
    *("1e308", "1.7976931348623157e308", "-1e308", "7e200", "1e40", "1e34", "1e33", "5e-324", "0", "-0.123456789"),
    *("0.123456789", "12.3456789", "123456789", "21", "0.3", "9007199254740993", "100000000000000000001"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("factor", [0.123456789, 7, 3, 0.3, 0.1, 1e-9, 5e-324, 1e22, 1.7e300])
def test_multiples_of_any_size_are_told_exactly(version: Any, factor: float) -> None:
    """CUE's math.MultipleOf divides in 34 digits, and calls 1e308 a multiple of 0.123456789."""
    schema = parse_schema(parameter(a={"type": "number", "multipleOf": factor}))
    texts = [to_cue(compile_schema(schema, faces=faces).file()) for faces in (False, True)]
    with Oracle(version) as oracle:
        for number in NUMBERS:
            multiple = Fraction(number) % Fraction(repr(factor)) == 0
            assert (validate(schema, {"a": json.loads(number)}) == []) == multiple, number
            for text in texts:
                assert oracle.eval(text, "parameter", f"parameter: a: {number}\n{CONTEXT}").ok == multiple, number
        assert all(oracle.openapi(text).ok for text in texts)


@pytest.mark.parametrize("text", ['{"maximum": ' + "9" * 5000 + "}", "[" * 100_000, '{"a":' * 500 + "1" + "}" * 500])
def test_json_that_is_too_long_or_too_deep(tmp_path: Path, text: str) -> None:
    file = tmp_path / "schema.json"
    file.write_text(text)
    with pytest.raises(VelagenError) as caught:
        load_schema(file)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (RecursionError(), "nested too deeply"),
        (OSError(28, "No space left on device", "/x/y"), "the disk is full: /x/y"),
        (PermissionError(13, "Permission denied", "/x"), "permission denied: /x"),
        (TimeoutError("timed out"), "timed out"),
        (subprocess.TimeoutExpired(["/bin/vela", "up"], 60), "vela did not end within 60 seconds"),
        (subprocess.CalledProcessError(3, ["vela"], stderr="a\nno room\n"), "vela ended with status 3: no room"),
        (KeyError("x"), "velagen failed where it should not: KeyError: 'x'"),
    ],
)
def test_any_error_is_a_sentence_and_status_1(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("VELAGEN_DEBUG", raising=False)
    monkeypatch.setattr("velagen.cli.schema.load_schema", fail)
    file = tmp_path / "schema.json"
    file.write_text("{}")
    done = CliRunner().invoke(cli.main, ["cue", str(file)])
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output


def test_the_api_server_and_the_network_are_told_as_such() -> None:
    from kubernetes.client import ApiException

    from velagen.lab import ApiError

    assert "refused (403)" in explained(ApiError(403, "pods is forbidden"))[0].message
    assert explained(ApiException(status=404, reason="Not Found"))[0].message == (
        "the API server refused (404): Not Found"
    )


def run(command: str) -> subprocess.CompletedProcess[str]:
    shell = f'set -o pipefail; velagen() {{ {sys.executable} -m velagen.cli "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("velagen --help > /dev/full", 1),
        ("velagen cue {schema} > /dev/full", 1),
        ("velagen cue {schema} > /dev/full 2>&1", 1),
        ("velagen cue {schema} | true", None),
        ("velagen cue {schema} >&-", 0),
        ("velagen cue /dev/zero", 1),
        ("velagen check --apps-only --no-render /dev/zero", 1),
        ('velagen cue <(echo \'{{"type": "object"}}\')', 0),
    ],
)
def test_outputs_that_take_nothing_and_inputs_that_never_end(
    command: str, status: int | None, repository: Path
) -> None:
    done = run(command.format(schema=repository / "schemas" / "kfserving.json"))
    assert status is None or done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if status == 1 and "2>&1" not in command:
        assert "error: " in done.stderr
