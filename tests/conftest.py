"""What the tests share: one embedded control plane a session, a namespace a test."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from tests import budget

from velagen.errors import VelagenError
from velagen.kubevela import VERSIONS
from velagen.lab import Api, Lab, LabOptions, condition, wait_until
from velagen.lab.state import LabState
from velagen.lab.vela import vela

T = TypeVar("T")

#: Seconds; a busy machine takes its time, and a test that waits in vain should still say what it waited for.
PATIENCE = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which KubeVela the embedded control plane runs: by default the one that labs run."""
    parser.addoption("--kubevela", choices=[*VERSIONS, "other"], help="release the lab runs; other: not the default")


#: Files whose tests leave the lab to the next one as they found it. Those of the others stay together, in their order.
APART = {
    "test_admission",
    "test_bad_input",
    "test_builtin_traits",
    "test_monitoring_objects",
    "test_rollout",
    "test_rollout_webhook",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the lab needs not say so; each process of pytest-xdist has a lab of its own."""
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.embedded)
            if item.path.stem not in APART:
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a part of the lab has died, the test that fails says which, with its last words."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections += [(f"{name} of the lab has ended; its last words", lab.logs(name, 20)) for name in dead(lab)]
    return report


def dead(lab: Lab) -> list[str]:
    """Name the components of a lab that have ended."""
    state = LabState.read(lab.folder / "state.json")
    return [process.name for process in state.processes if not process.alive] if state is not None else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where the run's time is bounded, what does not fit any more is left out."""
    if not item.get_closest_marker("kind"):
        budget.leave_out_if_late(item, 0.0)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Name what was left out in the very last line, behind pytest's own."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")  # a worker of pytest-xdist has none
    if terminal is not None and (line := budget.say_last(terminal.getreports("skipped"))):
        terminal.write_line(line, yellow=True)


class Cluster:
    """The lab as one test sees it: through a namespace of its own."""

    def __init__(self, lab: Lab, namespace: str) -> None:
        self.lab = lab
        self.namespace = namespace
        self.api: Api = lab.api
        self.kubeconfig: Path = lab.kubeconfig

    def vela(
        self, *arguments: str | Path, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run vela against the lab; VelagenError with its output where it fails and `check` is on."""
        return vela(self.kubeconfig, *arguments, check=check, timeout=timeout)

    def up(self, app: Path | str | dict[str, Any], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`vela up` of an application (file, YAML text or object) in the test's namespace."""
        text = app.read_text() if isinstance(app, Path) else app if isinstance(app, str) else yaml.safe_dump(app)
        file = self.lab.folder / "tmp" / f"{secrets.token_hex(6)}.yaml"
        things = [thing for thing in yaml.safe_load_all(text) if thing]
        for thing in things:
            thing["metadata"]["namespace"] = self.namespace
        file.write_text(yaml.safe_dump_all(things))
        try:
            return self.vela("up", "-f", file, "-n", self.namespace, check=check)
        except VelagenError as error:
            # The controller wrote at the same moment; a person would run it once more.
            if "the object has been modified" not in str(error):
                raise
            return self.vela("up", "-f", file, "-n", self.namespace, check=check)
        finally:
            file.unlink()

    def get(self, api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        """An object of the test's namespace, or None."""
        return self.api.get(api_version, kind, name, self.namespace)

    def list(self, api_version: str, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind in the test's namespace."""
        return self.api.list(api_version, kind, self.namespace)

    def application(self, name: str) -> dict[str, Any] | None:
        return self.get("core.oam.dev/v1beta1", "Application", name)

    def inference_service(self, name: str) -> dict[str, Any] | None:
        return self.get("serving.kserve.io/v1beta1", "InferenceService", name)

    def wait_for(self, look: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
        """Look until the answer is true, and give it."""
        return wait_until(look, what=what, timeout=timeout, every=0.2)

    def wait_running(self, name: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until an application runs; give it."""

        def look() -> dict[str, Any] | None:
            app = self.application(name)
            return app if app and app.get("status", {}).get("status") == "running" else None

        try:
            found = self.wait_for(look, f"application {name} running", timeout)
        except TimeoutError as error:
            app = self.application(name)
            raise AssertionError(f"{error}; its status: {yaml.safe_dump((app or {}).get('status'))}") from error
        assert found is not None
        return found

    def wait_ready(self, name: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until an InferenceService is Ready; give it."""

        def look() -> dict[str, Any] | None:
            service = self.inference_service(name)
            return service if condition(service, "Ready") == "True" else None

        try:
            found = self.wait_for(look, f"InferenceService {name} Ready", timeout)
        except TimeoutError as error:
            service = self.inference_service(name)
            raise AssertionError(f"{error}; its status: {yaml.safe_dump((service or {}).get('status'))}") from error
        assert found is not None
        return found


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running lab; with VELAGEN_TEST_LAB=NAME that one, which stays up: quicker while writing tests."""
    if name := os.environ.get("VELAGEN_TEST_LAB"):
        standing = Lab(name)
        standing.up()
        yield standing
        return
    given = pytestconfig.getoption("--kubevela")
    options = LabOptions()
    if given == "other":
        given = next(version for version in VERSIONS if version != options.kubevela)
    if given is not None:
        options = replace(options, kubevela=given)
    with Lab("tests", folder=tmp_path_factory.mktemp("lab") / "state", options=options) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def ingress_gateway(lab: Lab) -> None:
    """The Gateway that KServe's routes and ours name by default; nothing serves it here."""
    lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}})
    lab.api.apply(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "kserve-ingress-gateway", "namespace": "kserve"},
            "spec": {
                "gatewayClassName": "none",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        }
    )


@contextmanager
def namespace_of(api: Api, prefix: str) -> Iterator[str]:
    """A namespace of a test's own; applications in it are removed with it."""
    name = f"{prefix}-{secrets.token_hex(4)}"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        for app in api.list("core.oam.dev/v1beta1", "Application", name):
            api.delete("core.oam.dev/v1beta1", "Application", app["metadata"]["name"], name)
        api.delete("v1", "Namespace", name)


@pytest.fixture
def namespace(lab: Lab) -> Iterator[str]:
    """A namespace of the test's own, in a lab that is whole: a part that died fails one test, and not all after it."""
    if dead(lab):
        lab.up()
    with namespace_of(lab.api, "t") as name:
        yield name


@pytest.fixture
def cluster(lab: Lab, namespace: str) -> Cluster:
    """The lab through the test's own namespace."""
    return Cluster(lab, namespace)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).parent.parent
