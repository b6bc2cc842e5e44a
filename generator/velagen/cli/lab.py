"""``velagen tools``, ``velagen lab`` and ``velagen demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from velagen.cli.kind import add_keda, kind_down, kind_lab, kind_status, kind_up, lab_prune, why_no_kind
from velagen.errors import Problem, VelagenError
from velagen.kubevela import VERSIONS

if TYPE_CHECKING:
    from velagen.lab import Cluster, Lab, LabOptions
    from velagen.tools import Row


@click.group("tools", epilog="Example: velagen tools install vela cue")
def tools_group() -> None:
    """List and install the pinned tools.

    A tool is looked for on PATH (in exactly the pinned version), in velagen's cache, in its official release (where a
    checksum is pinned), and is built with Go otherwise.
    """


@tools_group.command("list")
def tools_list() -> None:
    """Show each tool, its version, and where it is or would come from.

    Example: velagen tools list
    """
    from velagen.tools import cache_dir, table

    shown = Table("tool", "version", "where", "what it is")
    for row in table().tools:
        shown.add_row(row.name, row.version, _where(row), row.about)
    Console().print(shown)
    click.echo(f"cache: {cache_dir() / 'tools'}", err=True)


def _where(row: Row) -> str:
    from velagen.tools import in_cache, on_path, this_platform

    if path := on_path(row):
        return f"on PATH, {path}"
    if in_cache(row):
        return "in the cache"
    ways = []
    if row.release and (row.release.checksums or this_platform() in row.release.digests):
        ways.append(f"release, {row.release.megabytes:.0f} MB")
    if row.image and (row.image.tag or this_platform() in row.image.digests):
        ways.append("container image")
    if row.build:
        ways.append(f"Go build, {max(1, round(row.build.minutes))} min")
    return "not here yet: " + (" or ".join(ways) or "no road")


@tools_group.command("install")
@click.argument("names", nargs=-1, metavar="[NAME[@VERSION]]...")
@click.option("--kind", is_flag=True, help="Without NAME: also those that all kind clusters need.")
def tools_install(names: tuple[str, ...], *, kind: bool) -> None:
    """Bring tools; without NAME not those of kind clusters, KEDA, Knative and Istio. Interrupted, it goes on.

    Example: velagen tools install vela cue@0.14.1
    """
    from velagen.tools import install, table, wanted

    asked = [wanted(name) for name in names] or [
        (row.name, row.version) for row in table().tools if not row.layer and (kind or not row.kind)
    ]
    started = time.monotonic()
    paths = install(asked)
    for path in paths:
        click.echo(path)
    click.echo(f"{len(paths)} tools are here ({time.monotonic() - started:.0f} s)", err=True)


@tools_group.command("path")
@click.argument("name", metavar="NAME[@VERSION]")
def tools_path(name: str) -> None:
    """Print where a tool is, and bring it first where it is missing.

    Example: $(velagen tools path vela) version
    """
    from velagen.tools import tool, wanted

    click.echo(tool(*wanted(name)))


_name = click.option("--name", default="default", show_default=True, help="Which lab; several can live side by side.")
_dir = click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of its state, missing or empty at first; by default lab/NAME in velagen's cache.",
)
_kind = click.option(
    "--kind", "kind", is_flag=True, help="The kind cluster of that name: real nodes and pods, on Docker."
)


def _lab(name: str, folder: Path | None, options: LabOptions | None = None) -> Lab:
    from velagen.lab import Lab

    return Lab(name, folder=folder, options=options)


@click.group("lab", epilog="Example: velagen lab up --gpus-per-node 4")
def lab_group() -> None:
    """Run a control plane on this machine: Kubernetes, KubeVela, KServe, simulated GPU nodes. No Docker.

    Everything up to "InferenceService Ready" is real; nodes and pods are played by kwok. With --kind nodes and pods are
    real too, in a kind cluster on a Docker engine.
    """


lab_group.add_command(lab_prune)


@lab_group.command("up")
@_name
@_dir
@_kind
@click.option("--nodes", type=click.IntRange(0, 500), help="Nodes. [default: 2; with --kind 1]")
@click.option("--gpus-per-node", type=click.IntRange(0, 16), help="GPUs of each node. [default: 2]")
@click.option("--gpu-model", help="T4, V100, L4, A100-40GB, A100-80GB or H100-80GB. [default: T4]")
@click.option("--gpu-replicas", type=click.IntRange(1, 48), help="Time-slice each GPU so often. [default: 1]")
@click.option(
    "--gpu-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --kind: NVIDIA's device-plugin configuration, in the place of --gpu-replicas.",
)
@click.option("--keda", is_flag=True, help="With --kind: KEDA too, which the trait autoscale drives.")
@click.option("--metrics-server", is_flag=True, help="With --kind: metrics-server too, for scaling on the CPU.")
@click.option("--knative", is_flag=True, help="With --kind: Knative Serving too, for deploymentMode: knative.")
@click.option("--mode", "deployment_mode", type=click.Choice(["Standard", "Knative"]), help="KServe's default mode.")
@click.option("--kubevela", type=click.Choice(VERSIONS), help="Release of KubeVela.  [default: the pinned one]")
@click.option("--feature-gates", metavar="GATE=true,...", help="Kubernetes' own, such as DRAConsumableCapacity=true.")
def lab_up(
    name: str,
    folder: Path | None,
    *,
    kind: bool,
    gpu_config: Path | None,
    keda: bool,
    metrics_server: bool,
    knative: bool,
    **given: int | str | None,
) -> None:
    """Start a lab; a running one is left as it is, what has died in it is started again.

    Example: velagen lab up --nodes 4 --gpu-model A100-80GB
    """
    from velagen.lab import GPUS, LabOptions

    asked = (("keda", keda), ("metrics-server", metrics_server), ("knative", knative))
    extra = [layer for layer, wanted in asked if wanted]
    chosen = {key: value for key, value in given.items() if value is not None}
    if kind:
        if "deployment_mode" in chosen:
            raise VelagenError(Problem("a kind cluster has no --mode", hint="Leave it out, or leave out --kind."))
        if "feature_gates" in chosen:
            raise VelagenError(Problem("--feature-gates are for the embedded lab", hint="Leave them or --kind out."))
        kind_up(name, folder, gpu_config=gpu_config, extra=extra, **chosen)  # type: ignore[arg-type]  # click checked them
        return
    if gpu_config is not None:
        raise VelagenError(Problem("--gpu-config is for kind clusters", hint="Add --kind, or write --gpu-replicas."))
    for layer in extra:
        raise VelagenError(Problem(f"--{layer} is for kind clusters", hint=f"Add --kind, or leave out --{layer}."))
    model = chosen.get("gpu_model", "T4")
    if model not in GPUS:
        raise VelagenError(Problem(f"no GPU model is called {model!r}", hint=f"Known models: {', '.join(GPUS)}."))
    lab = _lab(name, folder, LabOptions(**chosen) if chosen else None)  # type: ignore[arg-type]  # click checked them
    started = time.monotonic()
    lab.up()
    click.echo(f"lab {name} is up ({time.monotonic() - started:.0f} s)", err=True)
    click.echo(f"export KUBECONFIG={lab.kubeconfig}")


@lab_group.command("status")
@_name
@_dir
@_kind
def lab_status(name: str, folder: Path | None, *, kind: bool) -> None:
    """Show the lab's processes. Exits 1 where one of them is not ready.

    Example: velagen lab status
    """
    if kind:
        kind_status(name, folder)
        return
    lab = _lab(name, folder)
    parts = lab.status()
    if not parts:
        click.echo(f"lab {name} is not up")
        raise SystemExit(1)
    shown = Table("component", "state", "pid", "port")
    for part in parts:
        shown.add_row(part.name, part.state, str(part.pid or ""), str(part.port or ""))
    Console().print(shown)
    click.echo(f"kubeconfig {lab.kubeconfig}\nlogs       {lab.folder / 'logs'}", err=True)
    if any(part.state != "ready" for part in parts):
        raise SystemExit(1)


@lab_group.command("down")
@_name
@_dir
@_kind
def lab_down(name: str, folder: Path | None, *, kind: bool) -> None:
    """Stop a lab's processes, and only those, and remove what it made in its folder.

    Example: velagen lab down
    """
    if kind:
        kind_down(name, folder)
        return
    there = _lab(name, folder).down()
    click.echo(f"lab {name} is down" if there else f"lab {name} was not up")


@lab_group.command("logs")
@click.argument("component", metavar="NAME")
@_name
@_dir
@click.option("-n", "--lines", type=click.IntRange(1), help="Only the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C.")
def lab_logs(component: str, name: str, folder: Path | None, lines: int | None, *, follow: bool) -> None:
    """Print what a component has written: etcd, kube-apiserver, kwok, vela-core, kserve-manager, ...

    Example: velagen lab logs vela-core -n 50
    """
    lab = _lab(name, folder)
    path = lab.log_path(component)
    if not path.is_file():
        raise VelagenError(
            Problem(f"{component} of lab {name} has written nothing", hint="Is it up? velagen lab status")
        )
    with path.open(errors="replace") as log:
        text = log.read()
        click.echo(text if lines is None else "".join(text.splitlines(keepends=True)[-lines:]), nl=False)
        while follow:
            click.echo(log.read(), nl=False)
            time.sleep(0.3)


@lab_group.command("kubeconfig")
@_name
@_dir
@_kind
def lab_kubeconfig(name: str, folder: Path | None, *, kind: bool) -> None:
    """Print the path of a lab's kubeconfig.

    Example: export KUBECONFIG=$(velagen lab kubeconfig)
    """
    lab: Cluster = kind_lab(name, folder) if kind else _lab(name, folder)
    if not lab.kubeconfig.is_file():
        raise VelagenError(Problem(f"lab {name} is not up", hint="Start it with: velagen lab up"))
    click.echo(lab.kubeconfig)


@click.group("demo", invoke_without_command=True, epilog="Example: velagen demo rollout")
@_name
@_dir
@click.option(
    "-f",
    "--file",
    "app",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The application; by default examples/sentiment.yaml of the project.",
)
@click.option(
    "--addon",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A finished addon, in the place of building the project's own.",
)
@click.pass_context
def demo(context: click.Context, name: str, folder: Path | None, app: Path | None, addon: Path | None) -> None:
    """Show the whole path: control plane, build, `vela addon enable`, `vela up`, InferenceService Ready.

    Example: velagen demo
    """
    if context.invoked_subcommand is not None:
        return
    from velagen.lab.demo import demo as run
    from velagen.project import Project

    project = Project.find() if addon is None or app is None else None
    file = app or (project.root / "examples" / "sentiment.yaml" if project else Path())
    made = addon or (project.addon if project else Path())
    run(
        project.root if project else Path.cwd(),
        made.absolute(),
        file.absolute(),
        _lab(name, folder),
        Console(),
        build=addon is None,
    )


@demo.command("rollout", epilog="Example: velagen demo rollout --embedded")
@_name
@_dir
@click.option(
    "--kind/--embedded",
    "kind",
    default=None,
    help="On real nodes and pods (Docker), or on the control plane alone.  [default: --kind where Docker runs]",
)
def demo_rollout(name: str, folder: Path | None, *, kind: bool | None) -> None:
    """Show a good version of a model being promoted and a bad one going back, by examples/rollout.yaml.

    It takes less than five minutes on a lab that is up; one that is not is started first. With --kind requests come
    in at a fixed rate and are counted; with --embedded nothing serves, and the numbers of checks are the demo's own.
    """
    from velagen.project import Project
    from velagen.rollout.demo import Embedded, OnKind
    from velagen.rollout.demo import demo as run

    example = Project.find().root / "examples" / "rollout.yaml"
    console = Console()
    if kind is None:
        reasons = why_no_kind()
        kind = not reasons
        if reasons:
            console.print(f"No kind cluster can be started ({'; '.join(reasons)}): this is the embedded lab.")
    if kind:
        if not kind_lab(name, folder).running:
            kind_up(name, folder)
        run(example, OnKind(kind_lab(name, folder)), console)
        return
    from velagen.lab.vela import vela

    control = _lab(name, folder)
    control.up()
    vela(control.kubeconfig, "addon", "enable", Project.find().addon, "-y", timeout=300)
    stage = Embedded(control)
    with stage.numbers():
        run(example, stage, console)


@demo.command("autoscale", epilog="Example: velagen demo autoscale -o plot.html")
@_name
@_dir
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="autoscale-demo.html",
    show_default=True,
    help="The page with the plot; one that is there is replaced.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also the load and the pods of each second as JSON; a file that is there is replaced.",
)
def demo_autoscale(name: str, folder: Path | None, *, output: Path, record: Path | None) -> None:
    """Show pods that follow a load by the trait autoscale (examples/autoscale-demo.yaml), and a plot at the end.

    It needs a kind cluster with KEDA: one that is not up is started first, and one without KEDA gets it. The load
    lasts less than five minutes. Requests, 48 a second at most, go to this machine's own lab and end by themselves.
    """
    from velagen.cli.seeing import check_output
    from velagen.project import Project
    from velagen.scaling.demo import demo as run

    example = Project.find().root / "examples" / "autoscale-demo.yaml"
    for file in (output, record):
        if file is not None:
            check_output(file, overwrite=True, example="plot.html")
    lab = kind_lab(name, folder)
    if not lab.running:
        if reasons := why_no_kind():
            raise VelagenError(
                Problem(
                    f"no kind cluster can be started ({'; '.join(reasons)})",
                    hint="In the embedded lab no pod runs that could follow a load; docs/kind.md says what a kind "
                    "cluster needs. Without one: python -m benchmarks.autoscale simulates the policies.",
                )
            )
        kind_up(name, folder, extra=["keda"])
        lab = kind_lab(name, folder)
    add_keda(lab)
    run(example, lab, Console(), output, record)
