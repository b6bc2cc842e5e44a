"""``velagen promote`` changes the line that is meant, and no other byte of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from velagen.cli import main
from velagen.documents import parse_documents
from velagen.errors import VelagenError
from velagen.model.push import s3_client
from velagen.promote.edit import chosen, place_of_model, with_properties
from velagen.promote.registry import SCHEMES

OLD, NEW = "s3://models/sentiment/1", "s3://models/sentiment/2"
HEAD = """\
# The team's own words.
kind:   Application
metadata: {name: shop,   labels: {"team": 'a'}}
spec:
  components:
    - name: s   # kept
      type: kfserving
"""


def edited(text: str, name: str | None = None, **values: str) -> str:
    return with_properties(text, chosen(parse_documents(text, "app.yaml"), "app.yaml", name), values)


def changed_lines(before: str, after: str) -> list[tuple[str, str]]:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    assert len(old) == len(new)
    return [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"modelUri: {OLD}   # as approved", f"modelUri: {NEW}   # as approved"),
        (f'"modelUri":   "{OLD}"', f'"modelUri":   "{NEW}"'),
        (f"modelUri: '{OLD}'", f"modelUri: '{NEW}'"),
        (f"modelUri: &uri {OLD}", f"modelUri: &uri {NEW}"),
        (f"modelUri: !!str {OLD}", f"modelUri: !!str {NEW}"),
        (f"modelUri: !!str &uri '{OLD}' # why", f"modelUri: !!str &uri '{NEW}' # why"),
        (f"modelUri: >-\n          {OLD}\n", f"modelUri: >-\n          {NEW}\n"),
        (f"modelUri: |-  # folded by a tool\n          {OLD}", f"modelUri: |-  # folded by a tool\n          {NEW}"),
        (f"modelUri:\n          {OLD}", f"modelUri:\n          {NEW}"),
        (f"? modelUri\n        : {OLD}", f"? modelUri\n        : {NEW}"),
        (f"{{modelUri: {OLD}, runtime: triton}}", f"{{modelUri: {NEW}, runtime: triton}}"),
        (f'{{"modelUri":"{OLD}","runtime":"triton"}}', f'{{"modelUri":"{NEW}","runtime":"triton"}}'),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(
    "before", ["", "\ufeff", "---\n# empty\n---\n", "# ä😀\n"], ids=["plain", "bom", "second", "wide"]
)
def test_one_line_changes_in_every_way_to_write_it(line: str, expected: str, ending: str, before: str) -> None:
    def file(shown: str) -> str:
        text = f"{before}{HEAD}      properties:\n        {shown}\n      traits: [  ]\n# the end"
        return text.replace("\n", ending)

    after = edited(file(line), modelUri=NEW)
    assert after == file(expected)
    assert len(changed_lines(file(line), after)) == 1
    assert edited(after, modelUri=NEW) == after


@given(
    uri=st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).filter(lambda t: t == t.strip())
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("line", [OLD, f'"{OLD}"', f"'{OLD}'"], ids=["plain", "double", "single"])
def test_any_text_arrives_as_it_is(line: str, uri: str) -> None:
    text = f"{HEAD}      properties: {{modelUri: {line}, env: [{{name: A, value: b}}]}}\n"
    (document,) = parse_documents(edited(text, modelUri=uri), "app.yaml")
    before = yaml.safe_load(text)
    before["spec"]["components"][0]["properties"]["modelUri"] = uri
    assert document.value == before


def test_an_alias_is_replaced_where_it_stands() -> None:
    text = f"base: &uri {OLD}\n{HEAD}      properties:\n        modelUri: *uri\n"
    assert changed_lines(text, edited(text, modelUri=NEW)) == [
        ("        modelUri: *uri\n", f"        modelUri: {NEW}\n")
    ]


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (f"x: &p {{modelUri: {OLD}}}\n{HEAD}      properties:\n        <<: *p\n", None, "would change too"),
        (
            f"kind: Application\nspec:\n  components:\n  - {{name: a, properties: &p {{modelUri: {OLD}}}}}\n"
            "  - {name: b, properties: *p}\n",
            "b",
            "app.yaml:4:",
        ),
        (f"{HEAD}      properties:\n        modelUri: |\n          {OLD}\n", None, "a line break around it"),
        (
            f'{HEAD}      properties:\n        modelUri: "s3://models/\\\n          1"\n',
            None,
            "can't be changed in one line",
        ),
        (
            f"{HEAD}      properties: {{runtime: triton}}\n",
            None,
            "no component of an Application in this file has a modelUri",
        ),
        (f"{HEAD}      properties: {{modelUri: {OLD}}}\n", "t", "there is no component t"),
        ("a: 1\n", None, "no component"),
        ("", None, "no component"),
        ("kind: Application\nspec: []\n", None, "no component"),
    ],
)
def test_what_would_change_more_is_refused(text: str, name: str | None, words: str) -> None:
    with pytest.raises(VelagenError) as caught:
        edited(text, name, modelUri=NEW)
    assert words in str(caught.value)


SEVERAL = f"""{HEAD}      properties:
        runtime: triton
        models:
          - {{ name: a, uri: {OLD} }}  # the first
          - name: b
            uri: "{OLD}"
"""


def promoted(text: str, name: str | None, **more: str) -> str:
    component = chosen(parse_documents(text, "app.yaml"), "app.yaml", None)
    return with_properties(text, component, {place_of_model(component, name): NEW, **more})


def test_one_of_several_models_changes() -> None:
    assert changed_lines(SEVERAL, promoted(SEVERAL, "a")) == [
        (
            f"          - {{ name: a, uri: {OLD} }}  # the first\n",
            f"          - {{ name: a, uri: {NEW} }}  # the first\n",
        )
    ]
    assert changed_lines(SEVERAL, promoted(SEVERAL, "b")) == [
        (f'            uri: "{OLD}"\n', f'            uri: "{NEW}"\n')
    ]
    assert "        runtime: triton\n        runtimeVersion: " in promoted(SEVERAL, "b", runtimeVersion="24.08-py3")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (SEVERAL, None, "s has several models in one server: a, b"),
        (SEVERAL, "c", "s has no model named c"),
        (SEVERAL.replace("name: b", "name: a"), "a", "s has two models named a"),
        (f"{HEAD}      properties: {{modelUri: {OLD}}}\n", "a", "s has one model, without a name"),
        (f"{HEAD}      properties: {{models: 1}}\n", "a", "s has no model named a"),
    ],
)
def test_a_model_that_is_not_meant_is_left_alone(text: str, name: str | None, words: str) -> None:
    with pytest.raises(VelagenError) as caught:
        promoted(text, name)
    assert words in str(caught.value)


TWO = "".join(
    f"kind: Application\nmetadata: {{name: {app}}}\nspec:\n  components:\n"
    f"  - {{name: m, type: kfserving, properties: {{runtime: sklearn, modelUri: {OLD}}}}}\n---\n"
    for app in ("one", "two")
)


def test_a_component_is_named_where_several_have_a_model() -> None:
    with pytest.raises(VelagenError) as caught:
        edited(TWO, modelUri=NEW)
    assert "several components fit: one/m, two/m" in str(caught.value)
    after = edited(TWO, "two/m", modelUri=NEW)
    assert [
        document.value["spec"]["components"][0]["properties"]["modelUri"] for document in parse_documents(after, "")
    ] == [
        OLD,
        NEW,
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            f"        modelUri: {OLD} # why\n        runtime: triton\n",
            f'        modelUri: {NEW} # why\n        runtimeVersion: "24.08"\n        runtime: triton\n',
        ),
        (
            f"        modelUri: >-\n          {OLD}\n",
            f'        modelUri: >-\n          {NEW}\n        runtimeVersion: "24.08"\n',
        ),
        (f"        {{modelUri: {OLD}}}\n", f'        {{modelUri: {NEW}, runtimeVersion: "24.08"}}\n'),
        (
            f'        {{\n          "modelUri": "{OLD}"\n        }}\n',
            f'        {{\n          "modelUri": "{NEW}",\n          "runtimeVersion": "24.08"\n        }}\n',
        ),
        (
            f"        runtimeVersion: '23.05' # old\n        modelUri: {OLD}\n",
            f"        runtimeVersion: '24.08' # old\n        modelUri: {NEW}\n",
        ),
    ],
)
def test_a_runtime_version_gets_a_line_where_it_has_none(before: str, after: str) -> None:
    text = f"{HEAD}      properties:\n"
    assert edited(text + before, modelUri=NEW, runtimeVersion="24.08") == text + after


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{key}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = s3_client()
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key="sentiment/2/model.bst", Body=b"tree\n")
        client.put_object(Bucket="models", Key="sentiment/bad/model.bst", Body=b"")
        client.put_object(Bucket="models", Key="sentiment/bad/other.bst", Body=b"tree\n")
        yield client
    server.stop()


@pytest.fixture
def app(tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "app.yaml"
    file.write_text(f"{HEAD}      properties: {{runtime: lightgbm, modelUri: {OLD}}}  # here\n")
    return file


def promote(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["promote", "app.yaml", *arguments])


def test_it_writes_a_package_that_would_serve_and_then_has_nothing_to_do(app: Path) -> None:
    app.chmod(0o640)
    link = app.with_name("link.yaml")
    link.symlink_to(app)
    before = app.read_text()
    done = CliRunner().invoke(main, ["promote", "link.yaml", "--model", NEW])
    assert (done.exit_code, done.stdout) == (0, f"{NEW}\n"), done.output
    assert f"{NEW} will serve: lightgbm" in done.stderr
    assert app.read_text() == before.replace(OLD, NEW)
    assert link.is_symlink()
    assert app.stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in app.parent.iterdir()) == ["app.yaml", "link.yaml"]
    again = promote("--model", NEW, "--check")
    assert (again.exit_code, again.stdout) == (0, f"{NEW}\n")
    assert "nothing to do" in again.stderr


@pytest.mark.parametrize(("flag", "status"), [("--check", 1), ("--dry-run", 0), ("--diff", 0)])
def test_it_says_what_it_would_do_and_writes_nothing(app: Path, flag: str, status: int) -> None:
    before = app.read_bytes()
    done = promote("--model", NEW, flag)
    assert done.exit_code == status, done.output
    assert f"modelUri of s would be changed: {NEW}" in done.stderr
    assert (f"+      properties: {{runtime: lightgbm, modelUri: {NEW}}}  # here" in done.stdout) == (flag == "--diff")
    assert app.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "s3://models/sentiment/bad"), "s3://models/sentiment/bad would not serve"),
        (("--model", "s3://models/sentiment/3"), "there is nothing at this address"),
        (("--model", "s3://nowhere/sentiment/3"), "there is no bucket nowhere"),
        (("--model", "s4://models/sentiment/2"), "modelUri must be a location that KServe can fetch"),
        (("--model", NEW, "--runtime-version", "a b"), "runtimeVersion must be an image tag"),
        (("--model", NEW, "--component", "t"), "there is no component t"),
        (("--model", NEW, "--package", "nowhere"), "there is no such folder"),
    ],
)
def test_nothing_is_written_when_it_fails(app: Path, arguments: tuple[str, ...], words: str) -> None:
    before = app.read_bytes()
    done = promote(*arguments)
    assert done.exit_code == 1
    assert words in done.stderr
    assert app.read_bytes() == before
    assert [one.name for one in app.parent.iterdir()] == ["app.yaml"]


def test_what_cannot_be_read_here_is_said_and_a_copy_is_checked(app: Path, tmp_path: Path) -> None:
    done = promote("--model", "pvc://models/sentiment/2", "--dry-run")
    assert done.exit_code == 0
    assert "not checked: velagen can't read pvc:// from here" in done.stderr
    (tmp_path / "copy").mkdir()
    done = promote("--model", "pvc://models/sentiment/2", "--package", "copy")
    assert done.exit_code == 1
    assert "pvc://models/sentiment/2 would not serve" in done.stderr
    assert promote("--model", "pvc://models/sentiment/2", "--package", "copy", "--unchecked").exit_code == 0


def test_another_scheme_needs_a_storage_container(app: Path) -> None:
    text = (Path(__file__).parents[2] / "definitions" / "kfserving.py").read_text(encoding="utf-8")
    (pattern,) = re.findall('^SCHEMES = "(.+)"$', text, re.MULTILINE)
    assert all(re.match(pattern, f"{scheme}://") for scheme in SCHEMES)
    assert len(SCHEMES) == pattern.count("|") + 2, "https? is two of them"
    wanted = ("--model", "s4://models/sentiment/2", "--unchecked", "--dry-run")
    assert promote(*wanted).exit_code == 1
    app.write_text(app.read_text().replace("modelUri:", "storageContainer: own, modelUri:"))
    assert promote(*wanted).exit_code == 0


def test_a_model_of_several_is_named_and_held_against_the_schema(app: Path) -> None:
    app.write_text(f"{HEAD}      properties: {{runtime: triton, models: [{{name: a, uri: {OLD}}}]}}\n")
    before = app.read_text()
    result = promote("--model", NEW, "--unchecked")
    assert result.exit_code != 0
    assert "say which with --model-name" in result.output
    result = promote("--model", "pvc://models/a", "--model-name", "a", "--unchecked")
    assert result.exit_code != 0
    assert "each of models needs a uri that KServe fetches" in result.output
    assert app.read_text() == before
    result = promote("--model", NEW, "--model-name", "a", "--unchecked")
    assert result.exit_code == 0, result.output
    assert f"uri of the model a of s changed: {NEW}" in result.output
    assert app.read_text() == before.replace(OLD, NEW)


def test_a_file_of_json_stays_json(app: Path) -> None:
    value = yaml.safe_load(app.read_text())
    app.write_text(json.dumps(value, indent=2))
    assert promote("--model", NEW, "--runtime-version", "4").exit_code == 0
    value["spec"]["components"][0]["properties"].update(modelUri=NEW, runtimeVersion="4")
    assert json.loads(app.read_text()) == value


def test_a_full_disk_leaves_the_file(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = app.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("velagen.whole.os.fsync", full)
    done = promote("--model", NEW)
    assert done.exit_code == 1
    assert "the disk is full" in done.stderr
    assert app.read_bytes() == before
    assert [one.name for one in app.parent.iterdir()] == ["app.yaml"]
