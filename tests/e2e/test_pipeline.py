"""From a moved alias of a real MLflow registry to a pull request of one line, and on to a rollout."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.conftest import Cluster
from tests.e2e.loopback import Quiet, listening
from tests.e2e.registry import Registry, registry
from tests.e2e.team import ROOT, SCRIPT, Team, with_workflow
from tests.e2e.test_rollout import BAD, GOOD, QUICK, Metrics, serving

from velagen.errors import VelagenError
from velagen.lab import Lab
from velagen.lab.vela import vela
from velagen.promote.registry import resolve

pytestmark = [pytest.mark.slow, pytest.mark.seconds(60)]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("mlflow")) as found:
        found.register("sentiment", "s3://models/sentiment/1", "s3://models/sentiment/2/", "s3://models/sentiment/3")
        yield found


# The registry --------------------------------------------------------------------------------------------------------


def test_an_alias_leads_to_where_its_version_lies(mlflow: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.move("sentiment", "champion", 1)
    assert resolve("models:/sentiment@champion", mlflow.url).uri == "s3://models/sentiment/1"
    mlflow.move("sentiment", "champion", 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.url)
    found = resolve("models:/sentiment@champion")
    assert (found.version, found.uri) == ("2", "s3://models/sentiment/2")
    assert resolve("models:/sentiment/3").uri == "s3://models/sentiment/3"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("models:/sentiment@nobody", "the model sentiment has no alias nobody in the registry\n    there is: champion"),
        ("models:/sentiment/99", "the model sentiment has no version 99 in the registry"),
        ("models:/nothing@champion", "the registry has no model nothing"),
        ("models:/nothing/1", "the registry has no model nothing"),
        ("models:/sentiment/Production", "Production is a stage"),
        ("models:/sentiment/latest", "approved by nobody"),
        ("models:/sentiment", "names no version of a registered model"),
        ("models:/a b@c", "names no version of a registered model"),
    ],
)
def test_what_the_registry_does_not_have_is_said(mlflow: Registry, model: str, words: str) -> None:
    mlflow.move("sentiment", "champion", 1)
    with pytest.raises(VelagenError) as caught:
        resolve(model, mlflow.url)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sources", "words"),
    [
        ("shared", ("s3://models/shared", "s3://models/shared/"), "version 2 lies there too"),
        ("moving", ("s3://models/moving/latest",), "latest is a name that moves"),
        ("tagged", ("oci://registry.example.com/model:1",), "a tag of an image moves"),
        ("hub", ("hf://org/model",), "a repository of Hugging Face moves"),
        ("azure", ("wasbs://models@account.blob.core.windows.net/1",), "https://ACCOUNT.blob.core.windows.net"),
    ],
)
def test_what_does_not_stay_or_cannot_be_fetched_is_refused(
    mlflow: Registry, name: str, sources: tuple[str, ...], words: str
) -> None:
    mlflow.register(name, *sources)
    with pytest.raises(VelagenError) as caught:
        resolve(f"models:/{name}/1", mlflow.url)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mlflow-artifacts:/1/abc/artifacts/model", "only MLflow can read that"),
        ("file:///mlruns/1", "a folder of the machine MLflow runs on"),
        ("/mlruns/1", "a folder of the machine MLflow runs on"),
        ("ftp://example.com/model", "KServe can't fetch from there"),
        ("", "no address"),
        ("https://account.blob.core.windows.net/models/1", ""),
    ],
)
def test_addresses_that_a_server_gives_and_ours_would_not_take(uri: str, words: str) -> None:
    """MLflow refuses most of them at registration today; older servers did not, and others speak its API."""

    class Answering(Quiet):
        def do_GET(self) -> None:  # noqa: N802  # http.server's name
            version = {"name": "m", "version": "1", "status": "READY", "source": uri}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"model_version": version, "artifact_uri": uri}).encode())

    with listening(Answering) as url:
        if not words:
            assert resolve("models:/m/1", url).uri == uri
            return
        with pytest.raises(VelagenError) as caught:
            resolve("models:/m/1", url)
    assert words in str(caught.value)


def test_a_logged_model_of_mlflow_3_leads_to_its_files(mlflow: Registry) -> None:
    logged = mlflow.call("logged-models", experiment_id="0", name="m")["model"]["info"]
    mlflow.call("registered-models/create", name="logged")
    source = {"source": f"models:/{logged['model_id']}", "model_id": logged["model_id"]}
    mlflow.call("model-versions/create", name="logged", **source)
    assert resolve("models:/logged/1", mlflow.url).uri == logged["artifact_uri"].rstrip("/")
    assert logged["artifact_uri"].startswith("s3://models/0/models/")


@pytest.mark.parametrize(
    "source",
    [
        "oci://registry.example.com/model@sha256:" + "0" * 64,
        "hf://org/model:" + "0" * 40,
        "gs://models/1",
    ],
)
def test_what_stays_is_taken(mlflow: Registry, source: str) -> None:
    name = source.partition(":")[0]
    mlflow.register(name, source)
    assert resolve(f"models:/{name}/1", mlflow.url).uri == source


def test_a_server_that_does_not_help_is_said(mlflow: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    class Refusing(Quiet):
        def do_GET(self) -> None:  # noqa: N802  # http.server's name
            asked.append(self.headers.get("Authorization"))
            self.send_response(401 if "registered-models" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"<html>")

    def said(model: str, address: str | None) -> str:
        with pytest.raises(VelagenError) as caught:
            resolve(model, address)
        return str(caught.value)

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "the address of the MLflow server is missing" in said("models:/a@b", None)
    assert "is not the address of an MLflow server" in said("models:/a@b", "sqlite:///mlflow.db")
    with listening(Refusing) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
        text = said("models:/a@b", url)
        assert "does not let you read this (401)" in text
        assert "MLFLOW_TRACKING_TOKEN" in text
        assert "is not an MLflow server (status 200)" in said("models:/a/1", url)
    assert asked == ["Bearer t", "Bearer t"]
    text = said("models:/a@b", url.replace("//", "//user:secret@"))
    assert "is not there: connection refused" in text
    assert "secret" not in text


# The script ----------------------------------------------------------------------------------------------------------

APP = """\
# The shop's own words.
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: shop}
spec:
  components:
    - name: m   # kept
      type: kfserving
      properties: {runtime: sklearn, modelUri: s3://models/sentiment/1}  # here
"""


def test_a_moved_alias_becomes_a_pull_request_of_one_line(mlflow: Registry, tmp_path: Path) -> None:
    team = Team(tmp_path, mlflow, APP)
    mlflow.move("sentiment", "champion", 1)
    team.propose("models:/sentiment@champion")
    assert not team.log.exists()
    mlflow.move("sentiment", "champion", 2)
    team.propose("models:/sentiment@champion")
    changed = team.run("git", "diff", "-U0", "main..HEAD").stdout.splitlines()
    line = "      properties: {runtime: sklearn, modelUri: s3://models/sentiment/%d}  # here"
    assert [one for one in changed if one[:1] in "+-" and one[:3] not in ("+++", "---")] == [
        "-" + line % 1,
        "+" + line % 2,
    ]
    asked = team.log.read_text().splitlines()
    assert asked[:4] == ["pr", "create", "--base", "main"]
    assert f"refs/heads/{asked[asked.index('--head') + 1]}" in team.branches()
    body = team.log.with_name("gh.log.body").read_text()
    assert "`models:/sentiment@champion` is `s3://models/sentiment/2`" in body
    assert "+      storageUri: s3://models/sentiment/2" in body
    # The alias is looked at again before anybody has approved.
    team.run("git", "switch", "-q", "main")
    assert "is there already" in team.propose("models:/sentiment@champion").stderr
    assert not team.log.exists()
    assert team.file.read_text() == APP
    # What fails leaves no branch and asks for nothing.
    before = team.branches()
    assert "has no alias nobody" in team.propose("models:/sentiment@nobody", check=False).stderr
    assert (team.branches(), team.log.exists(), team.file.read_text()) == (before, False, APP)


def test_the_workflow_runs_the_script_and_takes_no_text_from_outside_into_it() -> None:
    jobs = yaml.safe_load((SCRIPT.parent / "pipeline.yml").read_text())["jobs"]
    steps = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert any('./pipeline.sh propose "$FILE" "$MODEL"' in one for one in steps)
    assert any('./pipeline.sh deploy "$FILE" "$NAMESPACE"' in one for one in steps)
    assert [one for one in steps if "${{" in one] == []
    assert jobs["deploy"]["environment"] == "production"


# On the cluster ------------------------------------------------------------------------------------------------------


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with serving() as found:
        yield found


@pytest.mark.embedded
@pytest.mark.seconds(120)
def test_from_the_alias_to_the_rollout(
    mlflow: Registry, tmp_path: Path, lab: Lab, ingress_gateway: None, cluster: Cluster, metrics: Metrics
) -> None:
    vela(lab.kubeconfig, "addon", "enable", ROOT / "addon" / "kfserving")
    settings = {"component": "m", "prometheus": metrics.url, "route": {"hosts": ["m.example.com"]}, **QUICK}
    step = {"name": "rollout", "type": "rollout-model", "properties": settings}
    team = Team(tmp_path, mlflow, with_workflow(APP, step))

    def deploy(*, check: bool = True) -> subprocess.CompletedProcess[str]:
        return team.deploy(cluster.namespace, lab.kubeconfig, timeout=200, check=check)

    def served() -> str:
        found = cluster.inference_service("m") or {}
        return str(found["spec"]["predictor"]["model"]["storageUri"])

    deploy()
    assert served() == "s3://models/sentiment/1"
    for version, answer in ((2, GOOD), (3, BAD)):
        mlflow.move("sentiment", "champion", version)
        team.propose("models:/sentiment@champion")
        team.approve()
        metrics.answer = answer
        done = deploy(check=False)
        assert metrics.asked
        assert served() == "s3://models/sentiment/2"
        if answer is GOOD:
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            assert done.returncode == 1
            assert "rolled back: success ratio 0.93 < 0.99" in done.stderr
