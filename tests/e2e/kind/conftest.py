"""One kind cluster a session, with everything in it; pytest-kind's own fixture, pointed at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock
from pytest_kind.cluster import KindCluster
from tests import budget
from tests.conftest import namespace_of
from tests.turns import Turns

from velagen.errors import VelagenError
from velagen.lab.images import archive_path, why_not
from velagen.lab.kind import KindLab, KindOptions
from velagen.lab.kind.capability import lacking
from velagen.lab.kind.engine import Engine, _daemon, cannot_start
from velagen.tools import this_platform, tool

REPOSITORY = Path(__file__).parents[3]


#: In order of worth: where the time is bounded the last ones are left out first.
ORDER = (
    "test_kind_cluster",
    "test_kind_sentiment",
    "test_kind_models",
    "test_kind_predictions",
    "test_kind_gpu",
    "test_kind_batching",
    "test_kind_several",
    "test_kind_warmup",
    "test_kind_path",
    "test_kind_pod",
    "test_kind_adopt",
    "test_kind_rollout",
    "test_kind_canary",
    "test_kind_ready",
    "test_kind_faults",
    "test_kind_monitoring",
    "test_kind_registry",
    "test_kind_benchmark",
    "test_kind_teardown",
    "test_kind_pipeline",
    # Thirteen minutes, and a KEDA that takes a quarter of an hour to build.
    "test_kind_autoscale",
    # A Knative that takes ten minutes to build.
    "test_kind_knative",
)
#: A lab that is up already, and stays up.
STANDING = "VELAGEN_TEST_KIND"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.kind)
        if not item.get_closest_marker("timeout"):
            # The first test pays for the cluster, on a bare machine for its tools and images too.
            item.add_marker(pytest.mark.timeout(3600))
    ranks = {item: ORDER.index(item.path.stem) for item in ours}  # a new file finds its place there
    items[:] = [item for item in items if item not in ranks] + sorted(ours, key=ranks.__getitem__)


def _folder(config: pytest.Config) -> Path:
    """Give the lab's folder: workers of one run (pytest-xdist) share it."""
    if standing := os.environ.get(STANDING):
        return Path(standing)
    # pytest gives its folder to fixtures only, and hooks need it too.
    own: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kind" / "lab"


@cache
def _turns(folder: Path) -> Turns:
    return Turns(folder.with_name(f".{folder.name}-turns"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests marked alone have the cluster for themselves; of the others two may run at once."""
    if not item.get_closest_marker("kind"):
        return (yield)
    with _turns(_folder(item.config)).use(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where the run's time is bounded, what does not fit any more is left out."""
    # Tests of the engine start bare clusters of their own; everything is there by then.
    ready = item.get_closest_marker("engine") or _is_up(_folder(item.config))
    budget.leave_out_if_late(item, 0.0 if ready else budget.before_a_cluster())


def _is_up(folder: Path) -> bool:
    return STANDING in os.environ or _users(folder).is_dir()


def _users(folder: Path) -> Path:
    """Give the folder with a file for each worker that uses the run's lab; it is there once the lab is up."""
    return folder.with_name(f".{folder.name}-users")


@pytest.fixture(scope="session")
def engine_possible() -> None:
    """Skip, and say why, where no engine runs and none can be started."""
    try:
        if Engine().answers():
            return
    except VelagenError:
        pytest.skip("kind: the docker client is not on PATH")
    reasons = cannot_start(lacking(), uid=os.geteuid(), daemon=_daemon(), firewall=True, platform=this_platform())
    if reasons:
        pytest.skip(f"kind: no Docker engine answers, and none can be started: {'; '.join(reasons)}")
    if why_not() and not archive_path("node").exists():
        pytest.skip(f"kind: {why_not()}")


@pytest.fixture(scope="session")
def kind_lab(engine_possible: None, pytestconfig: pytest.Config) -> Iterator[KindLab]:
    """A running cluster: the first worker starts it, the last one removes it.

    With VELAGEN_TEST_KIND=FOLDER the lab of that folder is used and stays up.
    """
    folder = _folder(pytestconfig)
    if STANDING in os.environ:
        standing = KindLab("tests", folder=folder)
        assert standing.running, f"the lab of {folder} is not up"
        yield standing
        return
    addon = REPOSITORY / "addon" / "kfserving"
    options = KindOptions(addon=str(addon) if addon.is_dir() else None)
    lab = KindLab("tests", folder=folder, options=options)
    users = _users(folder)
    me = users / os.environ.get("PYTEST_XDIST_WORKER", "only")
    turn = FileLock(folder.with_name(f".{folder.name}-users.lock"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with turn:
        if not lab.running:
            lab.up()
        users.mkdir(exist_ok=True)
        me.touch()
    try:
        yield lab
    finally:
        with turn:
            me.unlink()
            if not any(users.iterdir()):
                users.rmdir()
                lab.down()


@pytest.fixture(scope="session")
def kind_cluster(kind_lab: KindLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """pytest-kind's cluster: its clients and port forwarding, on the cluster the lab made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("pytest-kind"))
        for name, value in kind_lab.environment().items():
            patch.setenv(name, value)
        cluster = KindCluster(
            kind_lab.cluster,
            kubeconfig=kind_lab.kubeconfig,
            kind_path=tool("kind"),
            kubectl_path=tool("kubectl"),
        )
        cluster.create()  # finds it, and makes its clients
        yield cluster


@pytest.fixture
def space(kind_lab: KindLab) -> Iterator[str]:
    """A namespace of the test's own."""
    with namespace_of(kind_lab.api, "k") as name:
        yield name
