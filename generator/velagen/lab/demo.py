"""The demo: from the folders of a project to a running application, with the times."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from rich.console import Console
from rich.table import Table

from velagen.errors import Place, Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.kubevela import VERSIONS, tools_asked
from velagen.lab.api import Api, condition, wait_until
from velagen.lab.cluster import Lab
from velagen.lab.components import tools_of
from velagen.lab.vela import PROGRAM, vela
from velagen.tools import in_cache, install, on_path, table

_T = TypeVar("_T")
#: Seconds an application may take until it runs.
_PATIENCE = 120.0


@dataclass(frozen=True)
class Line:
    """One line of the table: an object, what became of it, and how long after ``vela up`` that was."""

    thing: str
    state: str
    seconds: float


def _name(thing: KubernetesObject) -> str:
    return f"{thing['kind']} {thing['metadata']['name']}"


def wait_for_application(api: Api, app: KubernetesObject, *, timeout: float = _PATIENCE) -> list[Line]:
    """Wait until an application runs and its InferenceServices are Ready.

    Args:
        app: the Application as written, with its namespace.
        timeout: seconds.

    Returns:
        one line for each object, in the order of the path from the application to the pods.

    Raises:
        VelagenError: it didn't become so; says in which state it is.
    """
    started = time.monotonic()
    namespace = app["metadata"]["namespace"]
    name = app["metadata"]["name"]
    selector = f"app.oam.dev/name={name}"
    reached: dict[str, Line] = {}

    def services() -> list[KubernetesObject]:
        return api.list("serving.kserve.io/v1beta1", "InferenceService", namespace, selector=selector)

    def note(thing: KubernetesObject, state: str) -> None:
        reached.setdefault(_name(thing), Line(_name(thing), state, time.monotonic() - started))

    def deployments(service: KubernetesObject) -> list[KubernetesObject]:
        owned = f"serving.kserve.io/inferenceservice={service['metadata']['name']}"
        return api.list("apps/v1", "Deployment", namespace, selector=owned)

    def whole(service: KubernetesObject) -> bool:
        """Whether each part has the pods asked for: KServe starts with one, an autoscaler brings the others."""
        mode = (service["metadata"].get("annotations") or {}).get("serving.kserve.io/deploymentMode")
        made = deployments(service)
        for deployment in made:
            part = service["spec"].get(deployment["metadata"]["name"].rpartition("-")[2]) or {}
            least = max(1, part.get("minReplicas", 1))
            if min(deployment["spec"].get("replicas", 0), deployment["status"].get("availableReplicas", 0)) < least:
                return False
        return bool(made) or mode == "Knative"

    def look() -> bool:
        current = api.get("core.oam.dev/v1beta1", "Application", name, namespace)
        status = (current or {}).get("status") or {}
        # After an update the status is the old one's until the controller has seen the new generation.
        seen = current is not None and status.get("observedGeneration", 0) >= current["metadata"]["generation"]
        running = seen and status.get("status") == "running"
        if current and running:
            note(current, "running")
        made = services()
        for service in made:
            if condition(service, "Ready") == "True":
                note(service, "Ready")
        return running and all(condition(service, "Ready") == "True" and whole(service) for service in made)

    try:
        wait_until(look, what=f"application {name}", timeout=timeout, every=0.2)
    except TimeoutError as error:
        raise VelagenError(Problem(f"{error}\n{_state_of(api, name, namespace, services())}")) from error
    lines = sorted(reached.values(), key=lambda line: not line.thing.startswith("Application"))
    seconds = time.monotonic() - started
    for service in services():
        owned = f"serving.kserve.io/inferenceservice={service['metadata']['name']}"
        for deployment in deployments(service):
            status = deployment.get("status", {})
            state = f"{status.get('availableReplicas', 0)} of {deployment['spec']['replicas']} available"
            lines.append(Line(_name(deployment), state, seconds))
        for pod in api.list("v1", "Pod", namespace, selector=owned):
            if not pod["metadata"].get("deletionTimestamp"):
                where = pod["spec"].get("nodeName", "no node")
                lines.append(Line(_name(pod), f"{pod['status']['phase']} on {where}", seconds))
    return lines


def _state_of(api: Api, name: str, namespace: str, services: list[KubernetesObject]) -> str:
    current = api.get("core.oam.dev/v1beta1", "Application", name, namespace) or {}
    status = current.get("status") or {}
    said = [f"Application {name}: {status.get('status', 'no status yet')}"]
    said += [
        f"  {part['name']}: {part.get('message', '')}" for part in status.get("services", ()) if not part["healthy"]
    ]
    for service in services:
        for entry in (service.get("status") or {}).get("conditions", ()):
            if entry["status"] != "True":
                said.append(
                    f"{_name(service)}: {entry['type']} is {entry['status']} "
                    f"{entry.get('reason', '')} {entry.get('message', '')}".rstrip()
                )
    return "\n".join(said)


def demo(root: Path, addon: Path, app_file: Path, lab: Lab, console: Console, *, build: bool = True) -> list[Line]:
    """Run the whole path and print it. Doing it twice is safe: everything is applied, nothing is created blindly.

    Args:
        root: the project's folder.
        addon: the addon's folder, which bears its name.
        app_file: the application.
        lab: where it runs; it stays up.
        console: where to print.
        build: write the addon first, by ``velagen build``.

    Raises:
        VelagenError: a step failed.
    """
    started = time.monotonic()

    def step(label: str, do: Callable[[], _T]) -> _T:
        begun = time.monotonic()
        with console.status(label) if console.is_terminal else _Nothing():
            done = do()
        console.print(f"  {label:<44} {time.monotonic() - begun:6.1f} s", highlight=False)
        return done

    app = yaml.safe_load(app_file.read_text())
    if not isinstance(app, dict) or app.get("kind") != "Application":
        raise VelagenError(Problem("not an Application", Place(file=str(app_file))))
    app["metadata"].setdefault("namespace", "default")
    console.print(f"[bold]{app_file.name}[/bold]: from a JSON Schema to a running model service\n")
    # Before tools are brought, which may take long.
    lab.check_folder()
    # Not in a step: it has bars of its own where something is missing.
    install([*tools_of(lab.wanted().kubevela).items(), ("cue", None)], reporter=lab.reporter)
    step("control plane up", lab.up)
    if build:
        step("velagen build", lambda: _build(root))
    if not (addon / "metadata.yaml").is_file():
        raise VelagenError(Problem(f"{addon} holds no addon", hint="Write it with: velagen build"))
    step(f"vela addon enable {_short(addon)}", lambda: vela(lab.kubeconfig, "addon", "enable", addon, "-y"))
    step(f"vela up -f {_short(app_file)}", lambda: vela(lab.kubeconfig, "up", "-f", app_file))
    lines = step("running and Ready", lambda: wait_for_application(lab.api, app))
    shown = Table("object", "state", "seconds after vela up")
    for line in lines:
        shown.add_row(line.thing, line.state, f"{line.seconds:.1f}")
    console.print()
    console.print(shown)
    console.print(f"{time.monotonic() - started:.0f} s in all. Next:\n", highlight=False)
    name = app["metadata"]["name"]
    console.print(f"  export KUBECONFIG={lab.kubeconfig}", highlight=False, soft_wrap=True)
    if on_path(table().row("vela", lab.wanted().kubevela)) is None:
        console.print(f'  export PATH="{(lab.folder / PROGRAM).parent}:$PATH"', highlight=False, soft_wrap=True)
    for command, what in (
        (f"vela status {name} --tree", "what became of the application"),
        (f"velagen render {_short(app_file)}", "the objects it is rendered to"),
        ("vela up -f examples/canary-istio.yaml", "another example; there is one per capability"),
        (f"vela delete {name} -y", "remove it again"),
        ("velagen lab down", "stop the control plane"),
    ):
        console.print(f"  {command:<44} # {what}", highlight=False, soft_wrap=True)
    _bring_checkers(lab, console)
    return lines


def _bring_checkers(lab: Lab, console: Console) -> None:
    """What ``velagen check`` asks and the lab does not, so that the first check need not wait for it."""
    asked = tools_asked(VERSIONS)
    if all(in_cache(table().row(*one)) or on_path(table().row(*one)) for one in asked):
        return
    console.print("\nThe demo is done. Now what velagen check asks is brought; Ctrl-C leaves it to the first check.")
    try:
        install(asked, reporter=lab.reporter)
    except VelagenError as error:
        # No fault of the demo: the check says it again where it matters.
        for problem in error.problems:
            console.print(f"  not here yet: {problem.message}", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("  left to the first check", highlight=False)


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _build(root: Path) -> None:
    """Write the addon by the command a person would type: what the demo shows is what they get."""
    done = subprocess.run(
        [sys.executable, "-c", "from velagen.cli import main; main()", "build"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise VelagenError(Problem(f"`velagen build` failed:\n{done.stdout}{done.stderr}".rstrip()))


def _short(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
