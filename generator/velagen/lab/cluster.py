"""The embedded control plane: real Kubernetes, KubeVela and KServe processes on loopback, kwok for the nodes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
import yaml
from filelock import FileLock

from velagen.errors import Problem, VelagenError
from velagen.lab import folder as folders
from velagen.lab import objects
from velagen.lab.api import Api, ApiError, condition, wait_until
from velagen.lab.certs import Authority, make_key
from velagen.lab.home import LabHome, write_state
from velagen.lab.process import MARK, Process, free_ports, marked, stop
from velagen.lab.vela import PROGRAM, put_program
from velagen.tools import cache_dir, install, table
from velagen.tools.report import Reporter

#: Tools a lab is made of, in the order of start.
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "vela-core",
    "kserve-manager",
)
_PORTS = (
    "etcd",
    "etcd-peer",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "vela-core",
    "vela-core-metrics",
    "vela-core-webhook",
    "kserve-manager",
    "kserve-manager-metrics",
    "kserve-manager-webhook",
)
_HEALTH = {
    "etcd": "https://127.0.0.1:{port}/health",
    "kube-apiserver": "https://127.0.0.1:{port}/readyz",
    "kube-controller-manager": "https://127.0.0.1:{port}/healthz",
    "kube-scheduler": "https://127.0.0.1:{port}/healthz",
    "kwok": "http://127.0.0.1:{port}/healthz",
    "vela-core": "http://127.0.0.1:{port}/readyz",
    "kserve-manager": "http://127.0.0.1:{port}/readyz",
}
#: The pairs below ``pki``, each a ``.crt`` and a ``.key``: what components serve with, what etcd serves with, and the
#: one by which etcd knows the API server. An etcd that asks for none gives every secret to every user of the machine.
_SERVER, _ETCD, _ETCD_CLIENT = "server", "etcd", "etcd-client"
#: Seconds a component may take until it answers, on a machine that has other things to do.
_PATIENCE = 90.0


@dataclass(frozen=True)
class LabOptions:
    """What a lab's cluster looks like."""

    nodes: int = 2
    gpus_per_node: int = 2
    #: A key of `velagen.lab.objects.GPUS`.
    gpu_model: str = "T4"
    #: Above 1 the GPUs are time-sliced: nodes offer nvidia.com/gpu.shared.
    gpu_replicas: int = 1
    #: KServe's default deployment mode: Standard or Knative.
    deployment_mode: str = "Standard"
    #: A version of vela-core in the table of tools.
    kubevela: str = field(default_factory=lambda: table().row("vela-core").version)
    #: Seconds after which KubeVela looks again at an application that has settled (KubeVela's own default is 300).
    resync_seconds: int = 15


@dataclass
class _State:
    """What is written down: enough to find, revive and remove a lab."""

    mark: str
    options: LabOptions
    ports: dict[str, int]
    processes: list[Process] = field(default_factory=list)
    #: Whether everything was applied; before that a lab is not worth reviving.
    ready: bool = False

    def process(self, name: str) -> Process | None:
        return next((process for process in self.processes if process.name == name), None)

    def write(self, path: Path) -> None:
        write_state(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> _State | None:
        """Give what was written down; None where there is nothing, or something no version of ours wrote."""
        try:
            data = json.loads(path.read_text())
            return cls(
                mark=data["mark"],
                # Before there was a choice it was 1.10.9.
                options=LabOptions(**{"kubevela": "1.10.9", **data["options"]}),
                ports=data["ports"],
                processes=[Process(**process) for process in data["processes"]],
                ready=data["ready"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class ComponentStatus:
    """One line of ``velagen lab status``."""

    name: str
    #: ``ready``, ``running`` (but not ready), or ``dead``.
    state: str
    pid: int | None
    port: int | None


class _PortTakenError(Exception):
    """A component found its port taken: somebody was faster. Others are chosen."""


class Lab(LabHome):
    """One embedded cluster, known by its folder. Safe to use from several processes: they take turns."""

    _UNDER = "lab"
    _LONGEST = 42
    _CALLED = "lab"
    _MADE = (
        "state.json",
        "state.part",
        "kubeconfig",
        "stages.yaml",
        *(f"logs/{name}.log" for name in COMPONENTS),
        "logs",
        "etcd/",
        "pki/",
        "tmp/",
        "home/",
        "webhook/",
        PROGRAM,
        "bin",
    )

    def __init__(
        self,
        name: str = "default",
        *,
        folder: Path | None = None,
        options: LabOptions | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """Name a lab; nothing starts yet.

        :param name: lower-case letters, digits and dashes.
        :param folder: where its state is; default: ``lab/<name>`` in velagen's cache folder.
        :param options: None = whatever it runs with, or the defaults.
        :raises VelagenError: the name has other characters.
        """
        super().__init__(name, folder, reporter)
        self.options = options

    # -- what others read

    def log_path(self, component: str) -> Path:
        """Give the file of a component's output.

        :raises VelagenError: no such component.
        """
        if component not in COMPONENTS:
            raise VelagenError(
                Problem(f"a lab has no component {component!r}", hint=f"Components: {', '.join(COMPONENTS)}.")
            )
        return self.folder / "logs" / f"{component}.log"

    def logs(self, component: str, lines: int | None = None) -> str:
        """Give a component's output, or its last lines; empty where it never started."""
        path = self.log_path(component)
        if not path.is_file():
            return ""
        text = path.read_text(errors="replace")
        return text if lines is None else "\n".join(text.splitlines()[-lines:]) + "\n"

    def status(self) -> list[ComponentStatus]:
        """Give the state of each component; empty where the lab is not up."""
        state = _State.read(self._state_file)
        if state is None:
            return []
        found = []
        for process in state.processes:
            port = state.ports.get(process.name)
            condition_ = "dead"
            if process.alive:
                condition_ = "ready" if self._healthy(process.name, state) else "running"
            found.append(ComponentStatus(process.name, condition_, process.pid if process.alive else None, port))
        return found

    def metrics_url(self, component: str) -> str:
        """Give where the Prometheus metrics of vela-core or kserve-manager are.

        :raises VelagenError: the lab is not up.
        """
        state = _State.read(self._state_file)
        port = state.ports.get(f"{component}-metrics") if state is not None else None
        if port is None:
            raise VelagenError(
                Problem(f"{component} of {self._CALLED} {self.name} has no metrics", hint=self._how_up())
            )
        return f"http://127.0.0.1:{port}"

    @property
    def running(self) -> bool:
        """Whether the lab is up and each component answers."""
        state = _State.read(self._state_file)
        return state is not None and state.ready and all(part.state == "ready" for part in self.status())

    def wanted(self) -> LabOptions:
        """Give the options that `up` starts it with: those given, else those it runs with, else the defaults."""
        state = _State.read(self._state_file)
        return self.options or (state.options if state is not None and state.ready else LabOptions())

    # -- what changes it

    def up(self) -> None:
        """Start the lab; a running one is left as it is, and components that died are started again.

        :raises VelagenError: a tool can't be had, a component doesn't come up, the lab runs with other options, or its
            folder is not a lab's.
        """
        self.check_folder()
        with self._locked():
            state = _State.read(self._state_file)
            options = self.wanted()
            wanted = tools_of(options.kubevela)
            paths = install(wanted.items(), reporter=self.reporter)
            binaries = dict(zip(wanted, paths, strict=True))
            if state is not None and state.ready:
                kept = (self.folder / "etcd").is_dir() or any(process.alive for process in state.processes)
                if kept and self.options is not None and self.options != state.options:
                    raise self._refused(state.options, self.options)
                etcd = state.process("etcd")
                if kept and etcd is not None and any("=http://" in option for option in etcd.argv):
                    raise VelagenError(
                        Problem(
                            f"lab {self.name} was started by an older velagen, and its etcd answers every local user",
                            hint=f"Take it down first, what is in it is lost: {self._command('down')}",
                        )
                    )
                if self.options in (None, state.options) and self._revive(state):
                    return
            for attempt in range(3):
                self._remove()
                try:
                    self._start(options, binaries)
                except _PortTakenError as error:
                    if attempt == 2:
                        raise VelagenError(Problem(f"lab {self.name}: {error}", hint=self._how_up())) from error
                    self.reporter.say(f"{error}; trying others")
                except BaseException:
                    # Nothing half-started stays behind, but the logs do.
                    self._stop_all()
                    raise
                else:
                    return

    def add_node(self, node: objects.Thing) -> None:
        """Add or change a node, such as one made by `velagen.lab.objects.gpu_node`."""
        _apply_node(self.api, node)

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

    def _stop_all(self) -> None:
        state = _State.read(self._state_file)
        if state is not None:
            stop(state.processes)
            stop(marked(state.mark), patience=0)

    def _remove(self) -> None:
        if self._owned():
            self._stop_all()
            folders.clear(self.folder, self._MADE, forget=False)

    def _written_down(self) -> bool:
        return _State.read(self._state_file) is not None

    def _pair(self, name: str) -> tuple[Path, Path]:
        """Give the files of a certificate and its key."""
        return self.folder / "pki" / f"{name}.crt", self.folder / "pki" / f"{name}.key"

    def _healthy(self, name: str, state: _State) -> bool:
        url = _HEALTH[name].format(port=state.ports[name])
        certificate, key = self._pair(_ETCD_CLIENT)
        try:
            answer = _plain().get(
                url,
                timeout=3,
                verify=str(self.folder / "pki" / "ca.crt"),
                cert=(str(certificate), str(key)) if name == "etcd" else None,
            )
        except OSError:  # requests' own errors among them; and no certificate yet, after a crash
            return False
        # 401: up, but it tells its health to nobody it does not know.
        return answer.status_code in (requests.codes.ok, requests.codes.unauthorized)

    def _wait_healthy(self, name: str, state: _State) -> None:
        def look() -> bool:
            process = state.process(name)
            if process is None or not process.alive:
                raise self._died(name)
            return self._healthy(name, state)

        try:
            wait_until(look, what=name, timeout=_PATIENCE, every=0.05)
        except TimeoutError as error:
            raise VelagenError(
                Problem(
                    f"lab {self.name}: {name} did not become ready within {_PATIENCE:.0f} s; its last words:\n"
                    + _indent(self.logs(name, 8)),
                    hint=f"All of them: {self.log_path(name)}",
                )
            ) from error

    def _died(self, name: str) -> Exception:
        words = self.logs(name, 8)
        if "address already in use" in words:
            return _PortTakenError(f"{name}: its port was taken in between")
        return VelagenError(
            Problem(
                f"lab {self.name}: {name} ended right after its start; its last words:\n" + _indent(words),
                hint=f"All of them: {self.log_path(name)}",
            )
        )

    def _revive(self, state: _State) -> bool:
        """Start again what died of a lab that was whole. False = not worth it, start afresh."""
        dead = [process for process in state.processes if not process.alive]
        if not dead and all(self._healthy(process.name, state) for process in state.processes):
            return True
        if not (self.folder / "etcd").is_dir():
            return False
        self.reporter.say(
            f"lab {self.name}: starting again what has died: {', '.join(process.name for process in dead)}"
        )
        try:
            # In the order of start: the later ones need the earlier ones.
            for process in dead:
                self._spawn(state, process)
                self._wait_healthy(process.name, state)
            for process in state.processes:
                self._wait_healthy(process.name, state)
        except (VelagenError, _PortTakenError) as error:
            self.reporter.say(f"{error}\nlab {self.name}: starting afresh; what was in it is lost")
            return False
        return True

    def _spawn(self, state: _State, process: Process) -> None:
        process.spawn(self.log_path(process.name), self.folder)
        if process not in state.processes:
            state.processes.append(process)
        state.write(self._state_file)

    def _start(self, options: LabOptions, binaries: dict[str, Path]) -> None:
        """Start everything in an empty folder, on a copy of the prepared data."""
        state, commands = self._lay_out(options, binaries)
        self._copy_prepared(options.kubevela, binaries, self.folder / "etcd")
        ca = (self.folder / "pki" / "ca.crt").read_bytes()
        self._begin(state, commands, "etcd")
        self._begin(state, commands, "kube-apiserver")
        api = self.api
        self._wait_admin(api)
        # kserve-manager reads its configuration once, at its start.
        api.apply_all(objects.kserve_config(options.deployment_mode))
        for name in COMPONENTS[2:]:
            self._spawn(state, commands[name])
        for number in range(options.nodes):
            node = objects.gpu_node(
                f"gpu-node-{number}",
                model=options.gpu_model,
                gpus=options.gpus_per_node,
                replicas=options.gpu_replicas,
            )
            _apply_node(api, node)
        for name in COMPONENTS[2:]:
            self._wait_healthy(name, state)
        api.apply_all(
            [
                *objects.vela_webhooks(state.ports["vela-core-webhook"], ca),
                *objects.kserve_webhooks(state.ports["kserve-manager-webhook"], ca),
            ]
        )
        self._wait_nodes(api, options.nodes)
        self._wait_denied(api, _WRONG_APPLICATION)
        self._wait_denied(api, _WRONG_SERVICE)
        state.ready = True
        state.write(self._state_file)

    def _copy_prepared(self, kubevela: str, binaries: dict[str, Path], target: Path) -> None:
        """Copy etcd's data of a cluster that holds all CRDs, definitions and runtimes, settled; made where missing.

        Taking CRDs in is most of the work of a start: it is done once for these versions.
        """
        key = hashlib.sha256(objects.fingerprint())
        key.update(repr([str(table().row(*wanted)) for wanted in tools_of(kubevela).items()]).encode())
        folder = cache_dir() / "lab-prepared"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        done = folder / f"{kubevela}-{key.hexdigest()[:16]}"
        with FileLock(folder / "lock"):
            if not done.is_dir():
                self.reporter.say("first lab with these versions: preparing its contents, about a minute, once")
                for old in folder.iterdir():
                    # Of the other KubeVela what is prepared stays: tests run on both.
                    if re.fullmatch(rf"({re.escape(kubevela)}-)?[0-9a-f]{{16}}", old.name):
                        shutil.rmtree(old)
                maker = Lab("prepare", folder=folder / "making", reporter=self.reporter)
                try:
                    maker._remove()
                    maker._fill(kubevela, binaries)
                    (maker.folder / "etcd").replace(done)
                finally:
                    maker.down()
            shutil.copytree(done, target, dirs_exist_ok=True)

    def _fill(self, kubevela: str, binaries: dict[str, Path]) -> None:
        """Start what takes objects in, put them in, wait until all is settled, and stop in good order."""
        state, commands = self._lay_out(LabOptions(nodes=0, kubevela=kubevela), binaries)
        vela_crds = partial(objects.vela_crds, kubevela)
        vela_definitions = partial(objects.vela_definitions, kubevela)
        with ThreadPoolExecutor(8) as pool:
            # Reading and parsing goes on while etcd and the API server start.
            crds = [pool.submit(read) for read in (vela_crds, objects.kserve_crds, objects.route_crds)]
            rest = [pool.submit(read) for read in (vela_definitions, objects.kserve_runtimes)]
            self._begin(state, commands, "etcd")
            self._begin(state, commands, "kube-apiserver")
            api = self.api
            self._wait_admin(api)
            self._begin(state, commands, "kube-controller-manager")
            api.apply_all(objects.namespaces())
            for part in crds:
                api.apply_all(part.result(), fresh=True)
                _wait_served(api, part.result())
            for part in rest:
                api.apply_all(part.result())
        self._begin(state, commands, "vela-core")
        kinds = ("ComponentDefinition", "TraitDefinition", "PolicyDefinition", "WorkflowStepDefinition")

        def settled() -> bool:
            made = [thing for kind in kinds for thing in api.list("core.oam.dev/v1beta1", kind)]
            return all(condition(thing, "Synced") for thing in made)

        try:
            wait_until(settled, what="KubeVela's own definitions settled", timeout=_PATIENCE, every=0.5)
        except TimeoutError as error:
            raise VelagenError(Problem(str(error), hint=f"Look into {self.log_path('vela-core')}")) from error
        # One after the other, so that etcd has everything and its files are whole.
        for process in reversed(state.processes):
            stop([process], patience=30)

    def _lay_out(self, options: LabOptions, binaries: dict[str, Path]) -> tuple[_State, dict[str, Process]]:
        self._claim()
        for name in ("logs", "etcd", "pki", "tmp", "home", "webhook"):
            (self.folder / name).mkdir(exist_ok=True, mode=0o700)
        put_program(self.folder, binaries["vela"])
        state = _State(mark=uuid.uuid4().hex, options=options, ports=free_ports(_PORTS))
        state.write(self._state_file)
        return state, self._prepare(state, binaries)

    def _begin(self, state: _State, commands: dict[str, Process], name: str) -> None:
        self._spawn(state, commands[name])
        self._wait_healthy(name, state)

    def _prepare(self, state: _State, binaries: dict[str, Path]) -> dict[str, Process]:
        """Write keys, certificates, the kubeconfig and the stages; give the command of each component."""
        pki = self.folder / "pki"
        ports = state.ports
        authority = Authority(pki)
        authority.issue(*self._pair(_SERVER))
        authority.issue(*self._pair(_ETCD), also_client=True)
        authority.issue_client("kube-apiserver", *self._pair(_ETCD_CLIENT))
        make_key(pki / "service-account.key")
        token = secrets.token_urlsafe(24)
        tokens = pki / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f'{token},admin,admin,"system:masters"\n')
        self._write_kubeconfig(f"https://127.0.0.1:{ports['kube-apiserver']}", token, authority.certificate_file)
        # controller-runtime looks for tls.crt and tls.key in a fixed place below TMPDIR; vela-core is told where.
        for folder in (self.folder / "webhook", self.folder / "tmp" / "k8s-webhook-server" / "serving-certs"):
            folder.mkdir(parents=True, exist_ok=True)
            authority.issue(folder / "tls.crt", folder / "tls.key")
        (self.folder / "stages.yaml").write_text(objects.stages())
        kubeconfig = str(self.kubeconfig)
        client = [f"--kubeconfig={kubeconfig}"]
        etcd = f"https://127.0.0.1:{ports['etcd']}"
        peer = f"https://127.0.0.1:{ports['etcd-peer']}"
        certificate, key = self._pair(_SERVER)
        serving = [f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"]
        certificate, key = self._pair(_ETCD)
        closed = [
            option
            for prefix in ("", "peer-")
            for option in (
                f"--{prefix}cert-file={certificate}",
                f"--{prefix}key-file={key}",
                f"--{prefix}trusted-ca-file={authority.certificate_file}",
                f"--{prefix}client-cert-auth",
            )
        ]
        certificate, key = self._pair(_ETCD_CLIENT)
        core = objects.vela_core(state.options.kubevela)
        secure = {name: f"--secure-port={ports[name]}" for name in COMPONENTS}
        flags: dict[str, list[str]] = {
            "etcd": [
                "--name=lab",
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=lab={peer}",
                *closed,
                # A lab's data is worth nothing after a power cut, and fsync is most of etcd's time.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            "kube-apiserver": [
                f"--etcd-servers={etcd}",
                f"--etcd-cafile={authority.certificate_file}",
                f"--etcd-certfile={certificate}",
                f"--etcd-keyfile={key}",
                secure["kube-apiserver"],
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                # Nobody dials the API server through a Service here, and loopback is no valid endpoint.
                "--endpoint-reconciler-type=none",
                *serving,
                f"--cert-dir={pki}",
                f"--service-account-key-file={pki / 'service-account.key.pub'}",
                f"--service-account-signing-key-file={pki / 'service-account.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
                f"--token-auth-file={tokens}",
                "--allow-privileged=true",
                "--disable-admission-plugins=ServiceAccount",
                "--enable-priority-and-fairness=false",
                "--profiling=false",
            ],
            "kube-controller-manager": [
                *client,
                secure["kube-controller-manager"],
                "--bind-address=127.0.0.1",
                *serving,
                "--leader-elect=false",
                f"--service-account-private-key-file={pki / 'service-account.key'}",
                f"--root-ca-file={pki / 'ca.crt'}",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
                # KServe leaves the number of replicas to an autoscaler, which looks every 15 s otherwise.
                "--horizontal-pod-autoscaler-sync-period=2s",
            ],
            "kube-scheduler": [
                *client,
                secure["kube-scheduler"],
                "--bind-address=127.0.0.1",
                *serving,
                "--leader-elect=false",
            ],
            "kwok": [
                *client,
                "--manage-all-nodes=true",
                "--cidr=10.244.0.0/16",
                "--node-ip=10.0.0.1",
                # Without leases nodes turn NotReady after 40 s, and pods lose Ready for good.
                "--node-lease-duration-seconds=40",
                f"--config={self.folder / 'stages.yaml'}",
                f"--server-address=127.0.0.1:{ports['kwok']}",
                "-v=WARN",
            ],
            "vela-core": core.arguments(
                metrics_addr=f"127.0.0.1:{ports['vela-core-metrics']}",
                health_addr=f"127.0.0.1:{ports['vela-core']}",
                enable_leader_election=False,
                use_webhook=True,
                webhook_port=ports["vela-core-webhook"],
                webhook_cert_dir=str(self.folder / "webhook"),
                application_re_sync_period=f"{state.options.resync_seconds}s",
                max_workflow_wait_backoff_time=5,
                max_workflow_failed_backoff_time=10,
            ),
            "kserve-manager": [
                f"-kubeconfig={kubeconfig}",
                f"-health-probe-addr=127.0.0.1:{ports['kserve-manager']}",
                f"-metrics-addr=127.0.0.1:{ports['kserve-manager-metrics']}",
                f"-webhook-port={ports['kserve-manager-webhook']}",
            ],
        }
        # Little of the person's environment: a proxy, a kubeconfig or a ~/.kwok of theirs must not change the lab.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            # vela-core has no flag for it.
            "KUBECONFIG": kubeconfig,
            # A start allocates much and frees all of it: collecting garbage less often halves its time.
            "GOGC": "400",
            "POD_NAMESPACE": objects.KSERVE_NAMESPACE,
            MARK: state.mark,
        }
        more = {"vela-core": core.environment}
        return {
            name: Process(name=name, argv=[str(binaries[name]), *arguments], env=environment | more.get(name, {}))
            for name, arguments in flags.items()
        }

    def _write_kubeconfig(self, server: str, token: str, ca: Path) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": str(ca)}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin", "namespace": "default"}}],
            "current-context": "lab",
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def _wait_admin(self, api: Api) -> None:
        """Wait until the admin's rights and the namespace ``default`` are there: hooks after the start make both."""

        def look() -> bool:
            try:
                return api.get("v1", "Namespace", "default") is not None
            except (ApiError, requests.RequestException):
                return False

        wait_until(look, what="the API server's own objects", timeout=_PATIENCE)

    def _wait_nodes(self, api: Api, count: int) -> None:
        def look() -> bool:
            nodes = api.list("v1", "Node")
            return sum(condition(node, "Ready") == "True" for node in nodes) >= count

        wait_until(look, what=f"{count} nodes Ready", timeout=_PATIENCE)

    def _wait_denied(self, api: Api, wrong: objects.Thing) -> None:
        """Wait until a webhook refuses what is wrong: registered webhooks take effect a moment later."""

        def look() -> bool:
            try:
                api.apply(wrong, dry_run=True, patience=0)
            except ApiError as error:
                return "denied the request" in str(error)
            except (LookupError, requests.RequestException):
                return False
            return False

        wait_until(look, what=f"the webhook of {wrong['kind']}", timeout=_PATIENCE)


#: Refused by KubeVela's webhook: there is no such component type.
_WRONG_APPLICATION: objects.Thing = {
    "apiVersion": "core.oam.dev/v1beta1",
    "kind": "Application",
    "metadata": {"name": "lab-probe", "namespace": "default"},
    "spec": {"components": [{"name": "probe", "type": "no-such-type", "properties": {}}]},
}
#: Refused by KServe's webhook: fewer than no replicas.
_WRONG_SERVICE: objects.Thing = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "lab-probe", "namespace": "default"},
    "spec": {"predictor": {"minReplicas": -1, "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://a/b"}}},
}


def _plain() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def _apply_node(api: Api, node: objects.Thing) -> None:
    """Apply a node and then its status, which an apply of the object leaves out."""
    api.apply({key: value for key, value in node.items() if key != "status"})
    path = api.path("v1", "Node", node["metadata"]["name"]) + "/status"
    api.request(
        "PATCH",
        path,
        headers={"Content-Type": "application/merge-patch+json"},
        data=json.dumps({"status": node["status"]}).encode(),
    )


def _wait_served(api: Api, crds: list[objects.Thing]) -> None:
    for crd in crds:
        spec = crd["spec"]
        kind = spec["names"]["kind"]
        version = next(entry["name"] for entry in spec["versions"] if entry["served"])
        api_version = f"{spec['group']}/{version}"
        wait_until(
            partial(api.serves, api_version, kind),
            what=f"CRD {kind}",
            timeout=_PATIENCE,
            every=0.05,
        )


def _indent(text: str) -> str:
    return "\n".join("    " + line[:400] for line in text.splitlines())


def tools_of(kubevela: str) -> dict[str, str | None]:
    """Give the tools a lab needs, by name: the version, or None for the pinned default.

    :param kubevela: the version of KubeVela.
    """
    return {**dict.fromkeys((*COMPONENTS, "vela")), "vela-core": kubevela, "vela": kubevela}
