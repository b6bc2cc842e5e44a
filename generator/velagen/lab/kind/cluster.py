"""A real kind cluster: made, reached over loopback, and removed with all it brought."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from velagen.errors import Problem, VelagenError
from velagen.lab.api import condition, wait_until
from velagen.lab.home import LabHome
from velagen.lab.images import archive_path, identify, image, recipes, why_not, write_context
from velagen.lab.kind import stack
from velagen.lab.kind.admin import write_admin
from velagen.lab.kind.engine import Engine, find, registry_has
from velagen.lab.kind.gpus import advertised
from velagen.lab.kind.nodes import address, conflist, import_script, kind_config, routes
from velagen.lab.kind.options import NODE_PORTS, KindOptions
from velagen.lab.kind.pods import not_ready
from velagen.lab.kind.state import KindState
from velagen.lab.process import free_ports
from velagen.lab.vela import PROGRAM, put_program
from velagen.tools import tool
from velagen.tools.report import Reporter

#: Images the node must have before the kubelet starts.
NODE_IMAGES = (
    "pause",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "coredns",
)
_PATIENCE = 180.0


class KindLab(LabHome):
    """One kind cluster, known by its folder. Safe to use from several processes: they take turns."""

    _UNDER = "kind"
    _LONGEST = 32
    _CALLED = "kind lab"
    _FLAGS = " --kind"
    _MADE = (
        "state.json",
        "state.part",
        "kubeconfig",
        "kind.kubeconfig",
        "kind.kubeconfig.lock",
        "kind.yaml",
        "ca.crt",
        "home/",
        "logs/",
        PROGRAM,
        "bin",
    )

    def __init__(
        self,
        name: str = "default",
        *,
        folder: Path | None = None,
        options: KindOptions | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """Name a lab; nothing starts yet.

        Args:
            name: lower-case letters, digits and dashes.
            folder: where its state is; default: ``kind/<name>`` in velagen's cache folder.
            options: None = whatever it runs with, or the defaults.

        Raises VelagenError where the name has other characters, or the options ask for what there is not.
        """
        super().__init__(name, folder, reporter)
        if options is not None and options.nodes < 1:
            raise VelagenError(Problem(f"a cluster of {options.nodes} nodes can't be made"))
        if options is not None:
            advertised("node", options.gpus, options.gpu_config)
        self.options = options

    # -- what others read

    @property
    def running(self) -> bool:
        """Whether the cluster is up and its API server answers."""
        state = self._state()
        if state is None or not state.ready or not state.engine.answers():
            return False
        try:
            return bool(self.api.request("GET", "/readyz") == "ok")
        except Exception:  # any failure means: not running
            return False

    @property
    def cluster(self) -> str:
        """The name kind knows the cluster by."""
        state = self._state()
        return state.cluster if state else f"velagen-{self.name}"

    def url(self, what: str) -> str:
        """Give the address on this machine's loopback of a NodePort.

        *what*: a key of `NODE_PORTS`. Raises VelagenError if the lab is not up, or for an unknown port.
        """
        state = self._need()
        if what not in state.ports:
            raise VelagenError(Problem(f"no port is called {what!r}", hint=f"Ports: {', '.join(state.ports)}."))
        return f"http://127.0.0.1:{state.ports[what]}"

    def ports(self) -> dict[str, int]:
        """Give the port on 127.0.0.1 of each key of `NODE_PORTS`.

        Raises VelagenError where the lab is not up.
        """
        return dict(self._need().ports)

    def environment(self) -> dict[str, str]:
        """Give the environment in which docker, kind, kubectl and vela work on this cluster.

        Raises VelagenError where the lab is not up.
        """
        return {**self._need().engine.environment(), "KUBECONFIG": str(self.kubeconfig)}

    @property
    def assembled(self) -> bool:
        """Whether the images were assembled on this machine.

        Raises VelagenError where the lab is not up.
        """
        return self._need().assembled

    @property
    def started_with(self) -> KindOptions:
        """The options it was started with.

        Raises VelagenError where the lab is not up.
        """
        return self._need().options

    # -- what changes it

    def up(self) -> None:
        """Start the cluster and what is asked to run in it; one that runs is left as it is.

        Raises:
            VelagenError: no engine, no image, too little disk, something does not come up, or the folder is somebody
                else's.
        """
        self.check_folder()
        with self._locked():
            state = self._state()
            if state is not None and self.running:
                if self.options is not None and self.options != state.options:
                    raise self._refused(state.options, self.options)
                return
            if state is not None and state.ready:
                self.reporter.say(f"kind lab {self.name} does not answer: it is made anew, what was in it is lost")
            self._remove()
            try:
                self._start(self.options or KindOptions())
            except BaseException:
                self._save_logs()
                self._remove()
                raise

    def load(self, names: Iterable[str]) -> None:
        """Bring images into every node.

        Where a registry answers, nodes pull upstream's by themselves, and only those nobody publishes are built, by
        the engine.

        *names*: recipes. Raises VelagenError where an image can't be made, or kind refuses it.
        """
        state = self._need()
        for name in names:
            recipe = recipes()[name]
            if state.assembled:
                self._import(state, image(name, self.reporter), recipe.references[0])
            elif recipe.ours:
                self._built(state, name)
                self._kind(state, "load", "docker-image", recipe.references[0], "--name", state.cluster)

    def put(self, folder: Path, place: str) -> None:
        """Copy a folder of this machine onto every node, where it replaces what is there; all may read it.

        *place*: the folder's path on the nodes. Raises VelagenError if docker fails or the cluster does not exist.
        """
        state = self._need()
        quoted = shlex.quote(place)
        for node in self._nodes(state):
            state.engine.run("exec", node, "/bin/sh", "-euc", f"rm -rf {quoted} && mkdir -p {quoted}")
            state.engine.run("cp", f"{folder}/.", f"{node}:{place}")
            state.engine.run("exec", node, "chmod", "-R", "a+rX", place)

    def _nodes(self, state: KindState) -> list[str]:
        return self._kind(state, "get", "nodes", "--name", state.cluster).split()

    def _import(self, state: KindState, archive: Path, reference: str) -> None:
        """Have every node import an archive from the mounted folder: kind would send it through the engine first."""
        script = import_script(archive.name, reference)
        for node in self._nodes(state):
            state.engine.run("exec", node, "/bin/sh", "-euc", script, timeout=900)

    def _built(self, state: KindState, name: str) -> None:
        """Have the engine build an image, unless it has the one of this recipe."""
        reference = recipes()[name].references[0]
        key = recipes().key(name, identify)
        wanted = f"velagen.recipe={key}"
        label = '{{index .Config.Labels "velagen.recipe"}}'
        if state.engine.run("image", "inspect", f"--format={label}", reference, check=False).stdout.strip() == key:
            return
        self.reporter.say(f"image {name}: building, a few minutes")
        with tempfile.TemporaryDirectory(prefix="velagen-image-") as folder:
            write_context(name, Path(folder))
            state.engine.run("build", f"--label={wanted}", f"--tag={reference}", folder, timeout=1800)

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl on the cluster and give what it prints.

        *given*: what it reads on stdin. Raises VelagenError where it failed.
        """
        done = subprocess.run(
            [str(tool("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if done.returncode != 0:
            raise VelagenError(Problem(f"kubectl {' '.join(arguments[:3])}: {done.stderr.strip()[-1000:]}"))
        return done.stdout

    def __enter__(self) -> Self:
        """Bring it up."""
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it down."""
        self.down()

    # -- inside

    def _state(self) -> KindState | None:
        return KindState.read(self._state_file)

    def _need(self) -> KindState:
        state = self._state()
        if state is None:
            raise VelagenError(Problem(f"kind lab {self.name} is not up", hint=self._how_up()))
        return state

    def _kind(self, state: KindState, *arguments: str, timeout: float = 600.0) -> str:
        done = subprocess.run(
            [str(tool("kind")), *arguments],
            env=state.engine.environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
        if done.returncode != 0:
            said = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-15:])
            raise VelagenError(Problem(f"kind {' '.join(arguments[:2])} failed:\n    {said}"))
        return done.stdout

    def _written_down(self) -> bool:
        return self._state() is not None

    def _start(self, options: KindOptions) -> None:
        self._claim()
        tool("kind"), tool("kubectl")
        put_program(self.folder, tool("vela", options.kubevela))
        engine = find(self.reporter, self._state_file)
        state = KindState(self.cluster, options, engine, free_ports(tuple(NODE_PORTS)))
        try:
            self._refuse_taken(state)
        except BaseException:
            # Nothing says yet that the lab is in the engine.
            engine.release(self._state_file)
            raise
        state.write(self._state_file)
        state.assembled = self._assemble(engine, options)
        mounts: list[Path] = []
        command = ["create", "cluster", "--name", state.cluster, "--kubeconfig", str(self.folder / "kind.kubeconfig")]
        if state.assembled:
            mounts = [image(name, self.reporter) for name in NODE_IMAGES]
            node = recipes()["node"].references[0]
            had = engine.run("image", "inspect", node, check=False).returncode == 0
            engine.run("load", "--input", str(image("node", self.reporter)), timeout=600)
            if not had:
                state.brought.append(node)
            command += ["--image", node]
        if engine.run("network", "inspect", "kind", check=False).returncode != 0:
            state.brought.append("network")
        state.write(self._state_file)
        config = self.folder / "kind.yaml"
        config.write_text(yaml.safe_dump(kind_config(options, state.ports, mounts, assembled=state.assembled)))
        self.reporter.say(f"kind cluster {state.cluster}: starting {options.nodes} node(s)")
        self._kind(state, *command, "--config", str(config), "--retain")
        write_admin(self.folder / "kind.kubeconfig", self.cluster, self.kubeconfig)
        if state.assembled:
            self._network(state)
        self._wait_cluster(options.nodes)
        state.seconds = stack.install(self, options.layers, Path(options.addon) if options.addon else None)
        state.ready = True
        state.write(self._state_file)

    def _refuse_taken(self, state: KindState) -> None:
        """Refuse a cluster's name that is taken, before anything says that it is this lab's, and may be removed."""
        if state.cluster in self._kind(state, "get", "clusters").split():
            where = f"DOCKER_HOST={state.engine.host} " if state.engine.host else ""
            raise VelagenError(
                Problem(
                    f"a kind cluster {state.cluster} is there already, and it is not the lab's of {self.folder}",
                    hint="Choose another --name, or remove it: "
                    f"{where}{tool('kind')} delete cluster --name {state.cluster}",
                )
            )

    def _assemble(self, engine: Engine, options: KindOptions) -> bool:
        if options.images != "auto":
            return options.images == "assembled"
        official = recipes()["node"].official or ""
        if registry_has(engine, official.partition("@")[0]):
            return False
        reason = why_not()
        if reason and not archive_path("node").is_file():
            raise VelagenError(Problem(f"no registry has {official.partition('@')[0]} for this machine, and {reason}"))
        self.reporter.say("no registry answers: images are assembled here")
        return True

    def _network(self, state: KindState) -> None:
        """Give every node its pods' network, and the routes to the others' pods."""
        api = self.api

        def known() -> list[dict[str, Any]]:
            nodes = api.list("v1", "Node")
            ready = [node for node in nodes if node.get("spec", {}).get("podCIDR")]
            return ready if len(ready) == state.options.nodes else []

        nodes = wait_until(known, what="pod ranges of the nodes", timeout=60)
        ranges = {node["metadata"]["name"]: (str(node["spec"]["podCIDR"]), address(node)) for node in nodes}
        for name, (own, _) in ranges.items():
            others = [(pods, via) for other, (pods, via) in ranges.items() if other != name]
            for path, text in (
                ("/etc/cni/net.d/10-velagen.conflist", json.dumps(conflist(own))),
                ("/kind/routes.sh", routes(others)),
            ):
                state.engine.run("exec", "--interactive", name, "/bin/sh", "-c", f"cat > {path}", given=text)
            state.engine.run("exec", name, "/bin/sh", "/kind/routes.sh")

    def _wait_cluster(self, nodes: int) -> None:
        api = self.api

        def ready() -> bool:
            found = api.list("v1", "Node")
            return len([node for node in found if condition(node, "Ready") == "True"]) == nodes

        self._wait(ready, "nodes Ready")
        self.wait_deployment("kube-system", "coredns")

    def wait_deployment(self, namespace: str, name: str, timeout: float = _PATIENCE) -> None:
        """Wait until a Deployment has all its pods available.

        *timeout*: seconds. Raises VelagenError where it hasn't; the message says what its pods say.
        """
        api = self.api

        def there() -> bool:
            thing = api.get("apps/v1", "Deployment", name, namespace) or {}
            status = thing.get("status", {})
            return (
                status.get("observedGeneration", 0) >= thing.get("metadata", {}).get("generation", 1)
                and condition(thing, "Available") == "True"
                and status.get("updatedReplicas", 0) == status.get("replicas", -1)
                and not status.get("unavailableReplicas")
            )

        try:
            wait_until(there, what=f"Deployment {namespace}/{name}", timeout=timeout, every=0.5)
        except TimeoutError as error:
            raise VelagenError(Problem(f"{error}\n{self.pods(namespace)}")) from error

    def _wait(self, look: Any, what: str) -> None:
        try:
            wait_until(look, what=what, timeout=_PATIENCE, every=0.5)
        except TimeoutError as error:
            raise VelagenError(Problem(f"{error}\n{self.pods()}")) from error

    def pods(self, namespace: str | None = None) -> str:
        """Give a line for each pod that is not ready, with the reason its containers give."""
        return not_ready(self.api, namespace)

    def _save_logs(self) -> None:
        """Keep what the nodes say, for the person who asks why."""
        state = self._state()
        if state is None or not state.engine.answers():
            return
        target = self.folder / "logs"
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(VelagenError, subprocess.TimeoutExpired):
            self._kind(state, "export", "logs", str(target), "--name", state.cluster, timeout=60)
            self.reporter.say(f"what the nodes said is in {target}")

    def _remove(self) -> None:
        state = self._state()
        if state is None:
            return
        engine = state.engine
        # Killed from outside: its containers still run. Started again, it finds them, and can remove them.
        engine.revive()
        if not engine.ours and not engine.answers():
            where = f" at {engine.host}" if engine.host else ""
            raise VelagenError(
                Problem(
                    f"the Docker engine{where} does not answer, and kind cluster {state.cluster} is in it",
                    hint=f"Start the engine and try again; if it is gone for good, remove {self.folder}.",
                )
            )
        if engine.answers():
            self._kind(state, "delete", "cluster", "--name", state.cluster)
            if not engine.ours:
                for what in state.brought:
                    if what == "network":
                        engine.run("network", "rm", "kind", check=False)
                    else:
                        engine.run("image", "rm", what, check=False)
        engine.release(self._state_file)
        self._state_file.unlink(missing_ok=True)
