"""The Docker engine: the one that runs, else Debian's, started by the lab on a socket of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from velagen.errors import Problem, VelagenError
from velagen.lab.images import check_disk
from velagen.lab.kind.capability import NEEDED, lacking
from velagen.lab.process import MARK, Process, identity, marked, stop
from velagen.tools import cache_dir, this_platform, tool
from velagen.tools.report import Reporter

#: What a fresh engine with one node image, one node and its pods takes, in GB.
GIGABYTES = 6.0
_PATIENCE = 60.0
#: Where Debian keeps daemons, which is not always on a user's PATH.
_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")


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

        :param given: what it reads on stdin.
        :raises VelagenError: it failed, and `check` is set; or it took longer than `timeout` seconds.
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
            return self.run("version", "--format", "{{.Server.Version}}", check=False, timeout=10).returncode == 0
        except VelagenError:
            return False

    def release(self) -> None:
        """End the engine and remove all it kept, if a lab started it and no container is left in it."""
        if self.process is None or self.folder is None:
            return
        with _turn():
            if self.process.alive:
                if self.run("ps", "--all", "--quiet", check=False).stdout.strip():
                    return  # another lab's
                # The daemon takes its bridges and firewall rules away with the network.
                self.run("network", "rm", "kind", check=False)
            # It waits ten seconds for containers; there are none.
            stop([self.process], patience=20)
            stop(marked(self.mark), patience=1)
            folder = Path(self.folder)
            _kill_containers(folder)
            _unmount_below(folder)
            shutil.rmtree(folder, ignore_errors=True)
            if not _others():
                restore(self.before)
            _record().unlink(missing_ok=True)

    def revive(self) -> None:
        """Start an engine of the lab's own again after it was killed; nothing where that does not work."""
        if self.process is None or self.folder is None or not Path(self.folder).is_dir():
            return
        # containerd of the killed engine would hold the socket and the locks.
        stop(marked(self.mark), patience=3)
        # Where nobody reaps orphans, a killed containerd stays as a zombie, and its pid file makes dockerd wait for it.
        for pid_file in ("docker.pid", "run/containerd/containerd.pid"):
            (Path(self.folder) / pid_file).unlink(missing_ok=True)
        self.process.env = _environment(self.mark)
        self.process.spawn(Path(self.folder).with_name("dockerd.log"), Path(self.folder))
        self.process.env = {}
        deadline = time.monotonic() + _PATIENCE
        while self.process.alive and time.monotonic() < deadline and not self.answers():
            time.sleep(0.2)
        _write(self)

    def as_data(self) -> dict[str, object]:
        """Give what the lab writes down."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, object]) -> Engine:
        """Give an engine from what was written down.

        :raises TypeError: something else was written down.
        """
        options = dict(data)
        process = options.pop("process", None)
        if process is not None and not isinstance(process, Mapping):
            raise TypeError("process")
        return cls(process=Process(**process) if process else None, **options)  # type: ignore[arg-type]  # TypeError is documented


def docker() -> str:
    """Give the docker client.

    :raises VelagenError: there is none.
    """
    path = shutil.which("docker")
    if path is None:
        raise VelagenError(Problem("docker is not on PATH", hint=_INSTALL))
    return path


_INSTALL = "Install Docker; on Debian, as root: apt-get install docker.io iptables iproute2."


def _daemon() -> str | None:
    return shutil.which("dockerd") or shutil.which("dockerd", path=os.pathsep.join(_SBIN))


def cannot_start(missing: Sequence[str], *, uid: int, daemon: str | None, firewall: bool, platform: str) -> list[str]:
    """Give the reasons why a daemon can't be started here; none = it can.

    :param missing: capabilities, as `lacking` gives them.
    :param daemon: path of dockerd.
    :param firewall: whether iptables is there.
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


def find(reporter: Reporter) -> Engine:
    """Give the engine that runs, or that of another lab, or start one.

    Labs share one: a second daemon would clear the firewall chains of the first, and close its ports.

    :raises VelagenError: none runs and none can be started; says each reason.
    """
    running = Engine()
    if shutil.which("docker") and running.answers():
        return running
    with _turn():
        shared = _read()
        if shared is not None and shared.answers():
            return shared
        daemon = _daemon()
        firewall = shutil.which("iptables", path=os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])) is not None
        missing = lacking()
        reasons = cannot_start(missing, uid=os.geteuid(), daemon=daemon, firewall=firewall, platform=this_platform())
        if shutil.which("docker") is None:
            reasons.append("the docker client is not on PATH")
        if others := _others():
            reasons.append(f"dockerd runs already (pid {others[0]}) on a socket that DOCKER_HOST does not name")
        if reasons or daemon is None:
            raise VelagenError(
                Problem(f"no Docker engine answers, and the lab can't start one: {'; '.join(reasons)}", hint=_INSTALL)
            )
        return _start(daemon, missing, reporter)


def _folder() -> Path:
    # A socket's path has at most 107 bytes, and the engine adds /run/containerd/containerd.sock.ttrpc.
    folder = cache_dir() / "docker"
    return folder if len(str(folder)) <= 60 else Path(tempfile.mkdtemp(prefix="velagen-docker-"))


def _record() -> Path:
    return cache_dir() / "docker.json"


def _turn() -> FileLock:
    cache_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_dir() / ".docker.lock")


def _write(engine: Engine) -> None:
    part = _record().with_suffix(".part")
    part.write_text(json.dumps(engine.as_data()))
    part.replace(_record())


def _read() -> Engine | None:
    try:
        return Engine.from_data(json.loads(_record().read_text()))
    except (OSError, ValueError, TypeError):
        return None


def command(daemon: str, folder: Path, wrapper: Path | None) -> list[str]:
    """Give the command line of an engine of the lab's own.

    :param wrapper: runc-wrap, where capabilities are missing.
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


def _start(daemon: str, missing: Sequence[str], reporter: Reporter) -> Engine:
    folder = _folder()
    mark = f"engine-{uuid.uuid4().hex}"
    folder.mkdir(parents=True, exist_ok=True)
    check_disk(folder, GIGABYTES, "a kind cluster")
    wrapper = None
    if missing:
        reporter.say(f"this machine lacks {', '.join(f'CAP_{name}' for name in missing)}: containers run without it")
        wrapper = tool("runc-wrap")
    (folder / "daemon.json").write_text("{}\n")
    before = present()
    process = Process("dockerd", command(daemon, folder, wrapper), _environment(mark))
    log = folder.with_name("dockerd.log")
    process.spawn(log, folder)
    process.env = {}
    engine = Engine(f"unix://{folder / 'docker.sock'}", process, str(folder), mark, before)
    _write(engine)
    reporter.say(f"started a Docker engine on {engine.host}")
    deadline = time.monotonic() + _PATIENCE
    while not engine.answers():
        if not process.alive or time.monotonic() > deadline:
            last = "\n    ".join(log.read_text(errors="replace").strip().splitlines()[-8:])
            stop([process, *marked(mark)])
            _unmount_below(folder)
            shutil.rmtree(folder, ignore_errors=True)
            _record().unlink(missing_ok=True)
            raise VelagenError(Problem(f"dockerd does not answer:\n    {last}", hint=f"All of it: {log}"))
        time.sleep(0.2)
    return engine


def _environment(mark: str) -> dict[str, str]:
    return {**os.environ, MARK: mark, "PATH": os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])}


_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def present() -> dict[str, str]:
    """Note what a daemon changes on the machine: forwarding, its policy, and the firewall's chains."""
    noted = {}
    if _FORWARD.exists():
        noted["ip_forward"] = _FORWARD.read_text().strip()
    for table_name in ("filter", "nat"):
        noted[table_name] = _iptables("-t", table_name, "-S")
    noted["links"] = " ".join(sorted(_links()))
    return noted


_LINKS = Path("/sys/class/net")


def _links() -> set[str]:
    return {path.name for path in _LINKS.iterdir()} if _LINKS.is_dir() else set()


def left_behind(before: set[str], now: set[str]) -> list[str]:
    """Give the interfaces that an engine left: new ones with the names Docker gives, and no other program."""
    return sorted(name for name in now - before if re.fullmatch(r"veth[0-9a-f]{7}|br-[0-9a-f]{12}", name))


def restore(before: Mapping[str, str]) -> None:
    """Put back what `present` noted: rules and chains that were not there go, policies and forwarding return."""
    for table_name in ("filter", "nat"):
        if table_name not in before:
            continue
        for rule in undo(before[table_name], _iptables("-t", table_name, "-S")):
            _iptables("-t", table_name, *rule)
    if "links" in before and (ip := shutil.which("ip", path=os.pathsep.join([os.environ.get("PATH", ""), *_SBIN]))):
        # An engine that was killed forgets the outer ends of its containers' cables.
        for name in left_behind(set(before["links"].split()), _links()):
            if not (_LINKS / name / "master").exists():
                subprocess.run([ip, "link", "delete", name], check=False, capture_output=True)
    if "ip_forward" in before and _FORWARD.read_text().strip() != before["ip_forward"]:
        _FORWARD.write_text(before["ip_forward"] + "\n")


def undo(before: str, after: str) -> list[list[str]]:
    """Give the iptables arguments that lead from one listing (``iptables -S``) back to an earlier one.

    Only what Docker makes is taken away: chains that begin with DOCKER, and rules that name one.
    """
    old = before.splitlines()
    steps: list[list[str]] = []
    chains = [line.split()[1] for line in after.splitlines() if line.startswith("-N DOCKER") and line not in old]
    for line in after.splitlines():
        fields = line.split()
        if fields[:1] == ["-A"] and fields[1] not in chains and line not in old and any("DOCKER" in f for f in fields):
            steps.append(["-D", *fields[1:]])
    steps += [["-F", chain] for chain in chains]
    steps += [["-X", chain] for chain in chains]
    for line in old:
        if line.startswith("-P") and line not in after.splitlines():
            steps.append(line.split())
    return steps


def _others() -> list[int]:
    """Give the pids of engines that run on this machine."""
    found = []
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            # One that ended and that nobody asked for is still listed, and runs no more.
            if name.read_text().strip() == "dockerd" and identity(int(name.parent.name)):
                found.append(int(name.parent.name))
        except OSError:
            continue
    return found


def _iptables(*arguments: str) -> str:
    path = shutil.which("iptables", path=os.pathsep.join([os.environ.get("PATH", ""), *_SBIN]))
    if path is None:
        return ""
    done = subprocess.run([path, "--wait", *arguments], capture_output=True, text=True, check=False)
    return done.stdout


def _kill_containers(folder: Path) -> None:
    """End containers whose engine is gone for good: of each, containerd notes the process all others end with."""
    for note in folder.glob("run/containerd/daemon/io.containerd.runtime.v2.task/moby/*/init.pid"):
        try:
            pid = int(note.read_text())
            # The pid may be another process's by now: a container's own is in a control group of its name.
            if note.parent.name in (Path("/proc") / str(pid) / "cgroup").read_text():
                os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            continue


def _unmount_below(folder: Path) -> None:
    """Take away mounts a daemon that was killed left: its files could not be removed under them."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return
    points = [line.split()[1] for line in mounts.read_text().splitlines()]
    for point in sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


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
