"""The embedded control plane: real Kubernetes, KubeVela and KServe processes on loopback, kwok for the nodes."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
import yaml
from filelock import FileLock

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.lab import folder as folders
from velagen.lab import objects, settle
from velagen.lab.api import condition, wait_until
from velagen.lab.certs import Authority, make_key
from velagen.lab.components import COMPONENTS, ETCD, ETCD_CLIENT, HEALTH, PORTS, SERVER, pair, processes, tools_of
from velagen.lab.home import LabHome
from velagen.lab.process import Process, free_ports, marked, stop
from velagen.lab.state import LabOptions, LabState
from velagen.lab.vela import PROGRAM, put_program
from velagen.tools import cache_dir, install, table
from velagen.tools.report import Reporter


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

        Args:
            name: lower-case letters, digits and dashes.
            folder: where its state is; default: ``lab/<name>`` in velagen's cache folder.
            options: None = whatever it runs with, or the defaults.

        Raises VelagenError where the name has other characters.
        """
        super().__init__(name, folder, reporter)
        self.options = options

    # -- what others read

    def log_path(self, component: str) -> Path:
        """Give the file of a component's output.

        Raises VelagenError for an unknown component.
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
        state = LabState.read(self._state_file)
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

        Raises VelagenError where the lab is not up.
        """
        state = LabState.read(self._state_file)
        port = state.ports.get(f"{component}-metrics") if state is not None else None
        if port is None:
            raise VelagenError(
                Problem(f"{component} of {self._CALLED} {self.name} has no metrics", hint=self._how_up())
            )
        return f"http://127.0.0.1:{port}"

    @property
    def running(self) -> bool:
        """Whether the lab is up and each component answers."""
        state = LabState.read(self._state_file)
        return state is not None and state.ready and all(part.state == "ready" for part in self.status())

    def wanted(self) -> LabOptions:
        """Give the options that `up` starts it with: those given, else those it runs with, else the defaults."""
        state = LabState.read(self._state_file)
        return self.options or (state.options if state is not None and state.ready else LabOptions())

    # -- what changes it

    def up(self) -> None:
        """Start the lab; a running one is left as it is, and components that died are started again.

        Raises VelagenError where a tool is not available, a component doesn't come up, the lab runs with other options,
        or its folder is not a lab's.
        """
        self.check_folder()
        with self._locked():
            state = LabState.read(self._state_file)
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

    def add_node(self, node: KubernetesObject) -> None:
        """Add or change a node, such as one made by `velagen.lab.objects.gpu_node`."""
        settle.apply_node(self.api, node)

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
        state = LabState.read(self._state_file)
        if state is not None:
            stop(state.processes)
            stop(marked(state.mark), patience=0)

    def _remove(self) -> None:
        if self._owned():
            self._stop_all()
            folders.clear(self.folder, self._MADE, forget=False)

    def _written_down(self) -> bool:
        return LabState.read(self._state_file) is not None

    def _healthy(self, name: str, state: LabState) -> bool:
        url = HEALTH[name].format(port=state.ports[name])
        certificate, key = pair(self.folder, ETCD_CLIENT)
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

    def _wait_healthy(self, name: str, state: LabState) -> None:
        def look() -> bool:
            process = state.process(name)
            if process is None or not process.alive:
                raise self._died(name)
            return self._healthy(name, state)

        try:
            wait_until(look, what=name, timeout=settle.PATIENCE, every=0.05)
        except TimeoutError as error:
            raise VelagenError(
                Problem(
                    f"lab {self.name}: {name} did not become ready within {settle.PATIENCE:.0f} s; its last words:\n"
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

    def _revive(self, state: LabState) -> bool:
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

    def _spawn(self, state: LabState, process: Process) -> None:
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
        settle.wait_admin(api)
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
            settle.apply_node(api, node)
        for name in COMPONENTS[2:]:
            self._wait_healthy(name, state)
        api.apply_all(
            [
                *objects.vela_webhooks(state.ports["vela-core-webhook"], ca),
                *objects.kserve_webhooks(state.ports["kserve-manager-webhook"], ca),
            ]
        )
        settle.wait_nodes(api, options.nodes)
        settle.wait_denied(api, settle.WRONG_APPLICATION)
        settle.wait_denied(api, settle.WRONG_SERVICE)
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
            settle.wait_admin(api)
            self._begin(state, commands, "kube-controller-manager")
            api.apply_all(objects.namespaces())
            for part in crds:
                api.apply_all(part.result(), fresh=True)
                settle.wait_served(api, part.result())
            for part in rest:
                api.apply_all(part.result())
        self._begin(state, commands, "vela-core")
        kinds = ("ComponentDefinition", "TraitDefinition", "PolicyDefinition", "WorkflowStepDefinition")

        def settled() -> bool:
            made = [thing for kind in kinds for thing in api.list("core.oam.dev/v1beta1", kind)]
            return all(condition(thing, "Synced") for thing in made)

        try:
            wait_until(settled, what="KubeVela's own definitions settled", timeout=settle.PATIENCE, every=0.5)
        except TimeoutError as error:
            raise VelagenError(Problem(str(error), hint=f"Look into {self.log_path('vela-core')}")) from error
        # One after the other, so that etcd has everything and its files are whole.
        for process in reversed(state.processes):
            stop([process], patience=30)

    def _lay_out(self, options: LabOptions, binaries: dict[str, Path]) -> tuple[LabState, dict[str, Process]]:
        self._claim()
        for name in ("logs", "etcd", "pki", "tmp", "home", "webhook"):
            (self.folder / name).mkdir(exist_ok=True, mode=0o700)
        put_program(self.folder, binaries["vela"])
        state = LabState(mark=uuid.uuid4().hex, options=options, ports=free_ports(PORTS))
        state.write(self._state_file)
        return state, self._prepare(state, binaries)

    def _begin(self, state: LabState, commands: dict[str, Process], name: str) -> None:
        self._spawn(state, commands[name])
        self._wait_healthy(name, state)

    def _prepare(self, state: LabState, binaries: dict[str, Path]) -> dict[str, Process]:
        """Write keys, certificates, the kubeconfig and the stages; give the command of each component."""
        pki = self.folder / "pki"
        ports = state.ports
        authority = Authority(pki)
        authority.issue(*pair(self.folder, SERVER))
        authority.issue(*pair(self.folder, ETCD), also_client=True)
        authority.issue_client("kube-apiserver", *pair(self.folder, ETCD_CLIENT))
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
        return processes(self.folder, state, binaries)

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


def _plain() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def _indent(text: str) -> str:
    return "\n".join("    " + line[:400] for line in text.splitlines())
