"""A real kind cluster: made, reached over loopback, and removed with all it brought."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import yaml

from velagen.errors import Problem, VelagenError
from velagen.lab.api import condition, wait_until
from velagen.lab.home import LabHome, write_state
from velagen.lab.images import archive_path, identify, image, images_dir, recipes, why_not, write_context
from velagen.lab.kind import stack
from velagen.lab.kind.engine import Engine, find, registry_has
from velagen.lab.kind.gpus import WHOLE, advertised
from velagen.lab.process import free_ports
from velagen.lab.vela import PROGRAM, put_program
from velagen.tools import table, tool
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
#: Where nodes see the folder of this machine that assembled images are kept in.
ARCHIVES = "/kind/archives"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
NODE_PORTS = stack.NODE_PORTS
_PATIENCE = 180.0

Images = Literal["auto", "registry", "assembled"]


@dataclass(frozen=True)
class KindOptions:
    """What a kind cluster looks like."""

    #: In all; the first is the control plane, and runs pods too.
    nodes: int = 1
    #: Layers over bare Kubernetes, in this order; each needs those before it.
    layers: tuple[str, ...] = stack.LAYERS
    #: Where images come from: a registry where one answers, else assembled here; or one of the two.
    images: Images = "auto"
    #: Folder of the addon that the layer ``addon`` enables; None = none.
    addon: str | None = None
    #: What each node has; see `velagen.gpusim.inventory.node_gpus`. Empty: no GPUs.
    gpus: tuple[str, ...] = ("t4x2",)
    #: Text of NVIDIA's device-plugin configuration, which says how they are shared.
    gpu_config: str = WHOLE
    #: A version of vela-core in the table of tools.
    kubevela: str = field(default_factory=lambda: table().row("vela-core").version)


@dataclass
class _State:
    cluster: str
    options: KindOptions
    engine: Engine
    ports: dict[str, int]
    #: Whether images are assembled here.
    assembled: bool = True
    #: What was brought to an engine that is not ours, to be taken away again.
    brought: list[str] = field(default_factory=list)
    #: How long each layer took to come up.
    seconds: dict[str, float] = field(default_factory=dict)
    ready: bool = False

    def write(self, path: Path) -> None:
        write_state(path, {**asdict(self), "engine": self.engine.as_data()})

    @classmethod
    def read(cls, path: Path) -> _State | None:
        try:
            data = json.loads(path.read_text())
            options = data.pop("options")
            for key in {"layers", "gpus"} & set(options):
                options[key] = tuple(options[key])
            engine = Engine.from_data(data.pop("engine"))
            # Before there was a choice it was 1.10.9.
            return cls(options=KindOptions(**{"kubevela": "1.10.9", **options}), engine=engine, **data)
        except (OSError, ValueError, KeyError, TypeError):
            return None


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

        :param name: lower-case letters, digits and dashes.
        :param folder: where its state is; default: ``kind/<name>`` in velagen's cache folder.
        :param options: None = whatever it runs with, or the defaults.
        :raises VelagenError: the name has other characters, or the options ask for what there is not.
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

        :param what: a key of `NODE_PORTS`.
        :raises VelagenError: the lab is not up, or there is no such port.
        """
        state = self._need()
        if what not in state.ports:
            raise VelagenError(Problem(f"no port is called {what!r}", hint=f"Ports: {', '.join(state.ports)}."))
        return f"http://127.0.0.1:{state.ports[what]}"

    def ports(self) -> dict[str, int]:
        """Give the port on 127.0.0.1 of each key of `NODE_PORTS`.

        :raises VelagenError: the lab is not up.
        """
        return dict(self._need().ports)

    def environment(self) -> dict[str, str]:
        """Give the environment in which docker, kind, kubectl and vela work on this cluster.

        :raises VelagenError: the lab is not up.
        """
        return {**self._need().engine.environment(), "KUBECONFIG": str(self.kubeconfig)}

    @property
    def assembled(self) -> bool:
        """Whether the images were assembled on this machine.

        :raises VelagenError: the lab is not up.
        """
        return self._need().assembled

    @property
    def given(self) -> KindOptions:
        """The options it was started with.

        :raises VelagenError: the lab is not up.
        """
        return self._need().options

    # -- what changes it

    def up(self) -> None:
        """Start the cluster and what is asked to run in it; one that runs is left as it is.

        :raises VelagenError: no engine, no image, too little disk, something does not come up, or the folder is
            somebody else's.
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

        :param names: recipes.
        :raises VelagenError: an image can't be made, or kind refuses it.
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

        :param place: the folder's path on the nodes.
        :raises VelagenError: docker can't, or there is no cluster.
        """
        state = self._need()
        quoted = shlex.quote(place)
        for node in self._nodes(state):
            state.engine.run("exec", node, "/bin/sh", "-euc", f"rm -rf {quoted} && mkdir -p {quoted}")
            state.engine.run("cp", f"{folder}/.", f"{node}:{place}")
            state.engine.run("exec", node, "chmod", "-R", "a+rX", place)

    def _nodes(self, state: _State) -> list[str]:
        return self._kind(state, "get", "nodes", "--name", state.cluster).split()

    def _import(self, state: _State, archive: Path, reference: str) -> None:
        """Have every node import an archive from the mounted folder: kind would send it through the engine first."""
        script = import_script(archive.name, reference)
        for node in self._nodes(state):
            state.engine.run("exec", node, "/bin/sh", "-euc", script, timeout=900)

    def _built(self, state: _State, name: str) -> None:
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

        :param given: what it reads on stdin.
        :raises VelagenError: it failed.
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

    def _state(self) -> _State | None:
        return _State.read(self._state_file)

    def _need(self) -> _State:
        state = self._state()
        if state is None:
            raise VelagenError(Problem(f"kind lab {self.name} is not up", hint=self._how_up()))
        return state

    def _kind(self, state: _State, *arguments: str, timeout: float = 600.0) -> str:
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
        state = _State(self.cluster, options, engine, free_ports(tuple(NODE_PORTS)))
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
        self._admin()
        if state.assembled:
            self._network(state)
        self._wait_cluster(options.nodes)
        state.seconds = stack.install(self, options.layers, Path(options.addon) if options.addon else None)
        state.ready = True
        state.write(self._state_file)

    def _refuse_taken(self, state: _State) -> None:
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

    def _admin(self) -> None:
        """Write a kubeconfig with a token of an administrator: the form every client of the lab reads."""
        given = yaml.safe_load((self.folder / "kind.kubeconfig").read_text())
        cluster = given["clusters"][0]["cluster"]
        authority = self.folder / "ca.crt"
        authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        kubectl = [str(tool("kubectl")), f"--kubeconfig={self.folder / 'kind.kubeconfig'}"]
        things = "---\n".join(yaml.safe_dump(thing) for thing in ADMIN)
        for arguments, said in (
            (["apply", "-f", "-"], things),
            (["create", "token", "velagen-admin", "-n", "kube-system", "--duration=8760h"], None),
        ):
            done = subprocess.run(
                [*kubectl, *arguments], input=said, capture_output=True, text=True, check=False, timeout=60
            )
            if done.returncode != 0:
                raise VelagenError(Problem(f"kubectl {arguments[0]}: {done.stderr.strip()}"))
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": self.cluster,
                    "cluster": {"server": cluster["server"], "certificate-authority": str(authority)},
                }
            ],
            "users": [{"name": "admin", "user": {"token": done.stdout.strip()}}],
            "contexts": [{"name": self.cluster, "context": {"cluster": self.cluster, "user": "admin"}}],
            "current-context": self.cluster,
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def _network(self, state: _State) -> None:
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

        :param timeout: seconds.
        :raises VelagenError: it hasn't; the message says what its pods say.
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
        lines = []
        for pod in self.api.list("v1", "Pod", namespace):
            if condition(pod, "Ready") == "True":
                continue
            reasons = [
                f"{name}: {entry.get('reason', '')} {str(entry.get('message', ''))[:300]}".strip()
                for container in [
                    *pod["status"].get("initContainerStatuses", []),
                    *pod["status"].get("containerStatuses", []),
                ]
                for name, entry in container.get("state", {}).items()
                if name != "running"
            ]
            reasons += [
                str(entry.get("message", ""))[:300]
                for entry in pod["status"].get("conditions", [])
                if entry.get("reason") == "Unschedulable"
            ]
            named = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            lines.append(f"    {named}: {pod['status'].get('phase')} {'; '.join(reasons)}")
        return "\n".join(lines)

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


ADMIN: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "velagen-admin", "namespace": "kube-system"},
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "velagen-admin"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "velagen-admin", "namespace": "kube-system"}],
    },
)


def kind_config(
    options: KindOptions, ports: Mapping[str, int], mounts: Iterable[Path], *, assembled: bool
) -> dict[str, Any]:
    """Give kind's configuration of a cluster.

    :param ports: port on 127.0.0.1 for each key of `NODE_PORTS`.
    :param mounts: image archives that every node imports as it boots.
    """
    patches = []
    if options.nodes > 1:
        # The control plane runs pods too; where it is alone kind sees to that, and stumbles if it is done already.
        patches.append(yaml.safe_dump({"kind": "InitConfiguration", "nodeRegistration": {"taints": []}}))
    if assembled:
        tag = recipes()["coredns"].references[0].rpartition(":")[2]
        patches.append(
            yaml.safe_dump(
                {
                    "kind": "ClusterConfiguration",
                    "dns": {"imageRepository": "registry.k8s.io/coredns", "imageTag": tag},
                }
            )
        )
    first: dict[str, Any] = {
        "role": "control-plane",
        "kubeadmConfigPatches": patches,
        "extraPortMappings": [
            {"containerPort": NODE_PORTS[name], "hostPort": port, "listenAddress": "127.0.0.1"}
            for name, port in ports.items()
        ],
    }
    nodes = [first, *({"role": "worker"} for _ in range(options.nodes - 1))]
    shared = [
        {"hostPath": str(path), "containerPath": f"/kind/images/{path.name}", "readOnly": True} for path in mounts
    ]
    if assembled:
        shared.append({"hostPath": str(images_dir()), "containerPath": ARCHIVES, "readOnly": True})
        for node in nodes:
            node["extraMounts"] = shared
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {
            "apiServerAddress": "127.0.0.1",
            "podSubnet": POD_RANGE,
            "serviceSubnet": SERVICE_RANGE,
            # Ours has no pod for it: one file and a few routes do.
            "disableDefaultCNI": assembled,
        },
        "nodes": nodes,
    }


def import_script(archive: str, reference: str) -> str:
    """Give what a node does to have an image: nothing where it has imported this very archive, and kept it.

    :param archive: name of a file in `ARCHIVES`, which holds the hash of its content.
    :param reference: one of its references; the kubelet removes images when the disk is full.
    """
    ctr = "ctr --namespace=k8s.io images"
    full = reference if "." in reference.partition("/")[0] else f"docker.io/{reference}"
    mark = f"/kind/imported/{archive}"
    return (
        f"if test -e {mark} && {ctr} list --quiet name=={full} | grep --quiet .; then exit 0; fi\n"
        f"{ctr} import --snapshotter=overlayfs {ARCHIVES}/{archive}\n"
        f"mkdir -p /kind/imported\ntouch {mark}\n"
    )


def conflist(pods: str) -> dict[str, Any]:
    """Give the CNI configuration of one node.

    :param pods: the node's pod range.
    """
    return {
        "cniVersion": "0.3.1",
        "name": "velagen",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam-state",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": pods}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def routes(others: Iterable[tuple[str, str]]) -> str:
    """Give the script that joins a node to the others: routes to their pods, and an address for what leaves.

    :param others: (pod range, node address) of each other node.
    """
    rule = f"POSTROUTING -s {POD_RANGE} ! -d {POD_RANGE} -m addrtype ! --dst-type LOCAL -j MASQUERADE"
    lines = [f"ip route replace {pods} via {via}" for pods, via in others]
    lines.append(f"iptables -w -t nat -C {rule} 2>/dev/null || iptables -w -t nat -A {rule}")
    return "set -eu\n" + "\n".join(lines) + "\n"


def address(node: Mapping[str, Any]) -> str:
    """Give a node's internal IPv4 address.

    :raises VelagenError: it has none.
    """
    for entry in node["status"]["addresses"]:
        if entry["type"] == "InternalIP" and ":" not in entry["address"]:
            return str(entry["address"])
    raise VelagenError(Problem(f"node {node['metadata']['name']} has no IPv4 address"))
