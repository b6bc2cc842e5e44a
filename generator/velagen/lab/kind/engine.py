"""The Docker engine: the one that runs, else Debian's, started by the lab on a socket of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from velagen.errors import Problem, VelagenError
from velagen.lab import folder as folders
from velagen.lab.home import write_state
from velagen.lab.images import check_disk
from velagen.lab.kind import machine
from velagen.lab.kind.capability import NEEDED, lacking
from velagen.lab.process import MARK, Process, identity, marked, stop
from velagen.tools import cache_dir, this_platform, tool
from velagen.tools.report import Reporter

#: What a fresh engine with one node image, one node and its pods takes, in GB.
GIGABYTES = 6.0
#: Seconds until a daemon must answer, and that one question may take.
_PATIENCE = 60.0
_ANSWER = 10.0
#: What its folder's mark says, and what a daemon makes there.
_CALLED = "Docker engine"
_MADE = ("daemon.json", "docker.pid", "docker.sock", "dockerd.log", "data/", "run/")


@dataclass
class Engine:
    """A Docker engine that answers."""

    #: Value for DOCKER_HOST; None = what the docker client uses by itself.
    host: str | None = None
    #: The daemon, where the lab started it.
    process: Process | None = None
    folder: str | None = None
    #: Set in the environment of the daemon and all it starts.
    mark: str = ""
    #: What the daemon changes on the machine, as it was before: restored when it is stopped.
    before: dict[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether the lab started it, and ends it."""
        return self.process is not None

    def environment(self) -> dict[str, str]:
        """Give the environment in which docker and kind talk to this engine."""
        environment = dict(os.environ)
        if self.host:
            environment["DOCKER_HOST"] = self.host
            environment.pop("DOCKER_CONTEXT", None)
        return environment

    def run(
        self, *arguments: str, given: str = "", check: bool = True, timeout: float | None = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker client.

        Args:
            given: what it reads on stdin.

        Raises VelagenError where it failed and `check` is set, or took longer than `timeout` seconds.
        """
        command = [docker(), *arguments]
        try:
            done = subprocess.run(
                command,
                env=self.environment(),
                capture_output=True,
                text=True,
                check=False,
                input=given,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise VelagenError(Problem(f"docker {arguments[0]} did not end within {timeout:.0f} s")) from error
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-1500:]
            raise VelagenError(Problem(f"docker {' '.join(arguments[:3])} failed: {said}"))
        return done

    def answers(self) -> bool:
        """Whether the engine answers now."""
        try:
            return self.run("version", "--format", "{{.Server.Version}}", check=False, timeout=_ANSWER).returncode == 0
        except VelagenError:
            return False

    def same(self, other: Engine) -> bool:
        """Whether both lead to one daemon, by whatever name."""
        return self._id() == other._id() != ""

    def _id(self) -> str:
        try:
            return self.run("info", "--format", "{{.ID}}", check=False, timeout=_ANSWER).stdout.strip()
        except VelagenError:
            return ""

    def release(self, user: Path) -> None:
        """Leave an engine that a lab started. Who leaves last ends it, unless a container is left in it.

        Args:
            user: what the lab gave `find`.
        """
        if self.process is None:
            return
        with _turn():
            shared = _read()
            if shared is not None and shared.engine.mark != self.mark:
                return  # ended long ago, and another one runs in its place
            if shared is not None:
                shared.users = [one for one in shared.users if one.lab != str(user) and one.there()]
                shared.write()
                if shared.users:
                    return
            (shared.engine if shared else self)._end_if_empty()

    def revive(self) -> None:
        """Start an engine of the lab's own again after it was killed; nothing where that does not work.

        Raises VelagenError where it runs and does not answer.
        """
        if self.process is None:
            return
        with _turn():
            shared = _read()
            latest = shared.engine if shared is not None and shared.engine.mark == self.mark else self
            latest._wake()
            self.process = latest.process

    # The caller of these has the turn.

    def _wake(self) -> bool:
        """Whether it answers, after it was started again where it was killed.

        Raises VelagenError where it runs and does not answer: what is in it needs it.
        """
        if self.process is None or self.folder is None:
            return False
        folder = Path(self.folder)
        if self.process.alive:
            if not self._comes():
                raise VelagenError(
                    Problem(
                        f"the labs' Docker engine (pid {self.process.pid}) runs and does not answer",
                        hint=f"See {folder / 'dockerd.log'}; where it hangs for good, end it (kill -KILL "
                        f"{self.process.pid}) and try again.",
                    )
                )
            folders.claim(folder, _CALLED)
            return True
        # containerd of the killed engine would hold the socket and the locks.
        stop(marked(self.mark), patience=3)
        # A second daemon would clear the chains of the one that runs.
        if not folder.is_dir() or machine.daemons():
            return False
        # Where nobody reaps orphans, a killed containerd stays as a zombie, and its pid file makes dockerd wait for it.
        for pid_file in ("docker.pid", "run/containerd/containerd.pid"):
            (folder / pid_file).unlink(missing_ok=True)
        self._spawn()
        shared = _read()
        if shared is not None and shared.engine.mark == self.mark:
            _Shared(self, shared.users).write()
        return self._comes()

    def _spawn(self) -> None:
        if self.process is not None and self.folder is not None:
            self.process.env = {**os.environ, MARK: self.mark, "PATH": machine.search_path()}
            self.process.spawn(Path(self.folder) / "dockerd.log", Path(self.folder))
            # Not to be written down: it may hold what others must not read.
            self.process.env = {}

    def _comes(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while self.process is not None and self.process.alive:
            if self.answers():
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return False

    def _end_if_empty(self) -> None:
        if self.process is not None and self.process.alive and self.folder is not None:
            folders.claim(Path(self.folder), _CALLED)
            left = self.run("ps", "--all", "--quiet", check=False)
            if left.returncode != 0 or left.stdout.strip():
                return
            # The daemon takes its bridges and firewall rules away with the network.
            self.run("network", "rm", "kind", check=False)
        self._end()

    def _end(self) -> None:
        """Stop it and all it started, remove what it kept, and put the machine's network back."""
        if self.process is None or self.folder is None:
            return
        folder = Path(self.folder)
        # It waits ten seconds for containers; there are none.
        stop([self.process], patience=20)
        stop(marked(self.mark), patience=1)
        if folders.owner(folder) == _CALLED:
            machine.kill_containers(folder)
            # A volume may be a folder of somebody's that is mounted there.
            if machine.unmount_below(folder):
                folders.clear(folder, _MADE, forget=True)
        if not machine.daemons():
            machine.restore(self.before)
        _record().unlink(missing_ok=True)

    def as_data(self) -> dict[str, object]:
        """Give what the lab writes down."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, object]) -> Engine:
        """Give an engine from what was written down.

        Raises TypeError where something else was written down.
        """
        options = dict(data)
        process = options.pop("process", None)
        if process is not None and not isinstance(process, Mapping):
            raise TypeError("process")
        return cls(process=Process(**process) if process else None, **options)  # type: ignore[arg-type]  # TypeError is documented


def docker() -> str:
    """Give the docker client.

    Raises VelagenError where there is none.
    """
    path = shutil.which("docker")
    if path is None:
        raise VelagenError(Problem("docker is not on PATH", hint=_INSTALL))
    return path


_INSTALL = "Install Docker; on Debian, as root: apt-get install docker.io iptables iproute2."


def _daemon() -> str | None:
    return shutil.which("dockerd") or shutil.which("dockerd", path=machine.SBIN)


def cannot_start(missing: Sequence[str], *, uid: int, daemon: str | None, firewall: bool, platform: str) -> list[str]:
    """Give the reasons why a daemon can't be started here; none = it can.

    Args:
        missing: capabilities, as `lacking` gives them.
        daemon: path of dockerd.
        firewall: whether iptables is there.
    """
    reasons = []
    if not platform.startswith("linux-"):
        reasons.append("the lab starts an engine on Linux only")
    if uid != 0:
        reasons.append("starting one needs root")
    if daemon is None:
        reasons.append("dockerd is not installed")
    elif not firewall:
        reasons.append("iptables is not installed")
    if never := sorted(NEEDED & set(missing)):
        reasons.append(f"this machine withholds {', '.join(f'CAP_{name}' for name in never)}")
    return reasons


@dataclass(frozen=True)
class _User:
    """A lab that is in the engine, or about to be."""

    #: Its state file.
    lab: str
    #: The process that starts it: until that has written the state.
    pid: int
    identity: str | None

    def there(self) -> bool:
        return Path(self.lab).exists() or (self.identity is not None and identity(self.pid) == self.identity)


@dataclass
class _Shared:
    """What is written down of the engine that labs share. Read and written by whoever has the turn."""

    engine: Engine
    users: list[_User] = field(default_factory=list)

    def join(self, user: Path) -> None:
        self.users = [one for one in self.users if one.lab != str(user) and one.there()]
        self.users.append(_User(str(user), os.getpid(), identity(os.getpid())))
        self.write()

    def write(self) -> None:
        write_state(_record(), {"engine": self.engine.as_data(), "users": [asdict(one) for one in self.users]})


def find(reporter: Reporter, user: Path) -> Engine:
    """Give the engine that runs, or that of another lab, or start one.

    Labs share one: a second daemon would clear the firewall chains of the first, and close its ports. Each one that is
    in it is written down before anybody else can end it, and leaves by `Engine.release`.

    Args:
        user: the state file of the lab that asks.

    Raises VelagenError where none runs and none can be started; says each reason.
    """
    # By its address: when the lab is taken down, DOCKER_HOST may be set otherwise.
    running = Engine(os.environ.get("DOCKER_HOST") or None)
    client = shutil.which("docker") is not None
    if client and not _record().exists() and running.answers():
        return running
    with _turn():
        shared = _read()
        # DOCKER_HOST, as `velagen lab up --kind` says to set it, leads to the labs' own.
        if client and running.answers() and (shared is None or not running.same(shared.engine)):
            return running
        if client and shared is not None:
            if shared.engine._wake():
                shared.join(user)
                return shared.engine
            if others := [one.lab for one in shared.users if one.lab != str(user) and one.there()]:
                raise VelagenError(
                    Problem(
                        f"the labs' Docker engine was killed and does not start again; in it: {', '.join(others)}",
                        hint="Take these labs down (velagen lab down --kind, with --name or --dir).",
                    )
                )
            shared.engine._end()
        daemon = _daemon()
        firewall = shutil.which("iptables", path=machine.search_path()) is not None
        missing = lacking()
        reasons = cannot_start(missing, uid=os.geteuid(), daemon=daemon, firewall=firewall, platform=this_platform())
        if not client:
            reasons.append("the docker client is not on PATH")
        if others_ := machine.daemons():
            reasons.append(f"dockerd runs already (pid {others_[0]}) on a socket that DOCKER_HOST does not name")
        if reasons or daemon is None:
            raise VelagenError(
                Problem(f"no Docker engine answers, and the lab can't start one: {'; '.join(reasons)}", hint=_INSTALL)
            )
        return _start(daemon, missing, reporter, user)


def _folder() -> Path:
    # A socket's path has at most 107 bytes, and the engine adds /run/containerd/containerd.sock.ttrpc.
    folder = cache_dir() / "docker"
    return folder if len(str(folder)) <= 60 else Path(tempfile.mkdtemp(prefix="velagen-docker-"))


def _record() -> Path:
    return cache_dir() / "docker.json"


def _turn() -> FileLock:
    cache_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_dir() / ".docker.lock")


def _read() -> _Shared | None:
    try:
        data = json.loads(_record().read_text())
        # Before users were written down the engine alone was.
        engine = Engine.from_data(data.get("engine", data))
        return _Shared(engine, [_User(**one) for one in data.get("users", [])])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def command(daemon: str, folder: Path, wrapper: Path | None) -> list[str]:
    """Give the command line of an engine of the lab's own.

    Args:
        wrapper: runc-wrap, where capabilities are missing.
    """
    line = [
        daemon,
        # No file of this machine's own engine is read.
        f"--config-file={folder / 'daemon.json'}",
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'run'}",
        f"--pidfile={folder / 'docker.pid'}",
        f"--host=unix://{folder / 'docker.sock'}",
        # kind makes a network of its own; docker0 would only stay behind.
        "--bridge=none",
        "--log-level=warn",
    ]
    if wrapper:
        line += [f"--add-runtime=velagen={wrapper}", "--default-runtime=velagen"]
    return line


def _start(daemon: str, missing: Sequence[str], reporter: Reporter, user: Path) -> Engine:
    folder = _folder()
    if folders.owner(folder) != _CALLED:
        folders.refuse_foreign(folder, "Move it away, or name another cache folder: VELAGEN_CACHE.")
    check_disk(folder.parent, GIGABYTES, "a kind cluster")
    wrapper = None
    if missing:
        reporter.say(f"this machine lacks {', '.join(f'CAP_{name}' for name in missing)}: containers run without it")
        wrapper = tool("runc-wrap")
    folders.claim(folder, _CALLED)
    (folder / "daemon.json").write_text("{}\n")
    mark = f"engine-{uuid.uuid4().hex}"
    engine = Engine(
        f"unix://{folder / 'docker.sock'}",
        Process("dockerd", command(daemon, folder, wrapper)),
        str(folder),
        mark,
        machine.present(),
    )
    try:
        engine._spawn()
        _Shared(engine).join(user)
        reporter.say(f"started a Docker engine on {engine.host}")
        comes = engine._comes()
    except BaseException:
        engine._end()
        raise
    if not comes:
        last = "\n    ".join((folder / "dockerd.log").read_text(errors="replace").strip().splitlines()[-15:])
        engine._end()
        raise VelagenError(Problem(f"dockerd does not answer; its last words:\n    {last}"))
    return engine


def registry_has(engine: Engine, reference: str, timeout: float = 20.0) -> bool:
    """Whether a registry has an image: the docker client asks it for the manifest, nothing is pulled."""
    try:
        done = engine.run("manifest", "inspect", reference, check=False, timeout=timeout)
    except VelagenError:
        return False
    try:
        return done.returncode == 0 and isinstance(json.loads(done.stdout), dict)
    except ValueError:
        return False
