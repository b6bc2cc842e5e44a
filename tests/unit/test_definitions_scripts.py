"""The programs that run inside a model server's container."""

from __future__ import annotations

import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "definitions" / "scripts"
SETTINGS = {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 100}
BATCHING = "dynamic_batching { preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 }\n"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace(".", "_"), SCRIPTS / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


triton = load("triton_batching.py")
mlserver = load("mlserver_models.py")
warmup = load("warmup.py")


# ---------------------------------------------------------------- Triton's configurations


def test_a_model_without_configuration_gets_one() -> None:
    assert triton.merged("", SETTINGS) == "max_batch_size: 8\n" + BATCHING


def test_the_configuration_given_is_kept_with_its_batch_size() -> None:
    given = 'name: "bert"\nbackend: "python"\nmax_batch_size: 16\n'
    assert triton.merged(given, SETTINGS) == given + BATCHING


def test_a_batching_that_was_there_is_replaced() -> None:
    given = (
        'backend: "onnxruntime" # dynamic_batching { not this }\n'
        "dynamic_batching: {\n  preferred_batch_size: [ 2 ]\n  default_queue_policy { max_queue_size: 5 }\n}\n"
        "max_batch_size: 4\n"
        'parameters { key: "note" value: { string_value: "a } in a text, dynamic_batching {" } }\n'
    )
    result = triton.merged(given, {**SETTINGS, "max_batch_size": 32})
    assert "preferred_batch_size: [ 2 ]" not in result
    assert "max_batch_size: 4" not in result
    assert 'string_value: "a } in a text, dynamic_batching {"' in result
    assert "# dynamic_batching { not this }" in result
    assert result.endswith("max_batch_size: 32\n" + BATCHING)


@pytest.mark.parametrize("scheduler", ["ensemble_scheduling { step [ ] }", "sequence_batching { direct { } }"])
def test_what_has_another_scheduler_is_left_alone(scheduler: str) -> None:
    given = f'name: "all"\n{scheduler}\n'
    assert triton.merged(given, SETTINGS) == given


def test_fields_are_found_whatever_their_form() -> None:
    text = "a: 1, b <c: 2>; d [1, 2] e: 'x:y' f { g { } } # h: 1\n i: KIND_CPU"
    assert [name for name, _, _ in triton.fields(text)] == ["a", "b", "d", "e", "f", "i"]


def test_a_repository_is_linked_and_the_command_started_on_it(tmp_path: Path) -> None:
    models, links = tmp_path / "models", tmp_path / "links"
    (models / "bert" / "1").mkdir(parents=True)
    (models / "bert" / "1" / "model.onnx").write_bytes(b"weights")
    (models / "bert" / "config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: 8\n')
    (models / "plain" / "1").mkdir(parents=True)
    (models / ".cache").mkdir()
    (models / "readme.txt").write_text("no model")
    links.mkdir()
    # The folders are the container's own: the test names others.
    text = (SCRIPTS / "triton_batching.py").read_text().replace(triton.LINKS, str(links))
    text = text.replace('"/mnt/models"', json.dumps(str(models)))
    command = [sys.executable, "-c", "import sys; print(sys.argv[1:])", f"--model-store={models}", "--http-port=8080"]
    ran = [sys.executable, "-c", text, json.dumps(SETTINGS), *command]
    done = subprocess.run(ran, capture_output=True, text=True, check=True, timeout=60)
    assert f"['--model-store={links}', '--http-port=8080']" in done.stdout
    assert sorted(path.name for path in links.iterdir()) == ["bert", "plain"]
    assert (links / "bert" / "1").is_symlink()
    assert (links / "bert" / "1" / "model.onnx").read_bytes() == b"weights"
    assert (links / "bert" / "config.pbtxt").read_text().endswith("max_batch_size: 8\n" + BATCHING)
    assert (links / "plain" / "config.pbtxt").read_text() == "max_batch_size: 8\n" + BATCHING
    assert (models / "bert" / "config.pbtxt").read_text() == 'backend: "onnxruntime"\nmax_batch_size: 8\n'
    # A container that restarts finds its links there already.
    subprocess.run(ran, capture_output=True, check=True, timeout=60)


# ---------------------------------------------------------------- MLServer's models


def test_each_model_of_mlserver_has_the_name_of_its_folder(tmp_path: Path) -> None:
    models, links = tmp_path / "models", tmp_path / "links"
    (models / "churn" / "data").mkdir(parents=True)
    (models / "churn" / "MLmodel").write_text("flavors: {}")
    (models / "fraud").mkdir()
    own = {"name": "another", "max_batch_size": 4, "parameters": {"uri": "./model.joblib", "version": "3"}}
    (models / "fraud" / "model-settings.json").write_text(json.dumps(own))
    (models / ".cache").mkdir()
    links.mkdir()
    mlserver.link(models, links)
    assert sorted(path.name for path in links.iterdir()) == ["churn", "fraud"]
    assert (links / "churn" / "data").is_symlink()
    assert (links / "churn" / "MLmodel").read_text() == "flavors: {}"
    found = {name: json.loads((links / name / "model-settings.json").read_text()) for name in ("churn", "fraud")}
    # Without a place KServe's variable would count, which is the folder of all models.
    assert found["churn"] == {"name": "churn", "parameters": {"uri": "."}}
    assert found["fraud"] == {**own, "name": "fraud"}
    assert json.loads((models / "fraud" / "model-settings.json").read_text()) == own


@pytest.mark.parametrize("name", ["mlserver_models.py", "triton_batching.py", "warmup.py"])
def test_nothing_in_a_script_is_taken_for_a_template(name: str) -> None:
    text = (SCRIPTS / name).read_text()
    assert "{{" not in text, "KServe parses the container as a Go template"
    assert "$(" not in text, "Kubernetes expands $(…) in commands"
    assert "$$" not in text, "and reads $$ as $"


# ---------------------------------------------------------------- warm-up


class Server:
    """A model server that counts what it is asked."""

    def __init__(self) -> None:
        self.ready = True
        self.answers: list[int] = []
        self.bodies: list[Any] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200 if outer.ready else 503, b"{}")

            def do_POST(self) -> None:
                outer.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                code = outer.answers.pop(0) if outer.answers else 200
                self.answer(code, b'{"error": "no input TEXT"}' if code != 200 else b"{}")

            def answer(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever)
    thread.start()
    yield found
    found.http.shutdown()
    thread.join()
    found.http.server_close()


def test_the_sample_is_sent_as_often_as_asked(server: Server) -> None:
    sample = {"instances": [[1.5, 2]]}
    assert warmup.main(f"{server.url}/ready", f"{server.url}/infer", "100", json.dumps(sample)) is None
    assert server.bodies == [sample] * 100


def test_nothing_is_sent_before_the_model_is_loaded(server: Server) -> None:
    server.ready = False
    said = warmup.main(f"{server.url}/ready", f"{server.url}/infer", "3", "{}")
    assert "the model is not loaded yet" in said
    assert "503" in said
    assert server.bodies == []


def test_a_sample_that_is_refused_is_told(server: Server) -> None:
    server.answers = [200, 400]
    said = warmup.main(f"{server.url}/ready", f"{server.url}/infer", "3", "{}")
    assert said == 'warm-up request 2 of 3 was answered 400: {"error": "no input TEXT"}'


def test_a_server_that_is_not_there_ends_the_probe_with_1() -> None:
    arguments = ["http://127.0.0.1:1/ready", "http://127.0.0.1:1/infer", "1", "{}"]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "warmup.py"), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "the model is not loaded yet" in done.stderr
