"""``velagen metrics``: what Prometheus and Grafana are to be told of models."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("metrics", epilog="Example: velagen metrics rules > models.rules.yaml")
def metrics_group() -> None:
    """Rules and scrape configuration for Prometheus, dashboards for Grafana."""


@metrics_group.command("rules", epilog="Example: velagen metrics rules > models.rules.yaml")
@click.option(
    "--app",
    "apps",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Print what the trait slo makes of this application file instead; may be given several times.",
)
def rules_command(apps: tuple[Path, ...]) -> None:
    """Print the recording rules and the alerts for all models, as a rule file of Prometheus."""
    from velagen.monitoring.objects import all_groups
    from velagen.monitoring.rules import rules_file

    if not apps:
        click.echo(rules_file(all_groups()), nl=False)
        return
    import yaml

    from velagen.cli.check import rendered_objects
    from velagen.errors import Place, Problem, VelagenError
    from velagen.monitoring.objects import groups_of

    objects = rendered_objects(apps)
    groups = [group for one in objects if one.definition == "slo" for group in groups_of(one.content)]
    if not groups:
        raise VelagenError(
            Problem("no component here has the trait slo, so there are no rules of its own", Place(str(app)))
            for app in apps
        )
    click.echo(yaml.safe_dump({"groups": groups}, sort_keys=False, width=10_000), nl=False)


@metrics_group.command("scrape-config", epilog="Example: velagen metrics scrape-config --interval 10s")
@click.option("--interval", default="15s", show_default=True, help="How often pods are asked; 15s at most.")
@click.option("--exporters", is_flag=True, help="Also DCGM's exporter and kube-state-metrics, where nothing asks them.")
def scrape_config_command(interval: str, exporters: bool) -> None:
    """Print the entries of scrape_configs that find models and gateways by their pods' annotations."""
    import yaml

    from velagen.monitoring.scrape import scrape_config

    entries = scrape_config(interval, with_exporters=exporters)
    click.echo(yaml.safe_dump({"scrape_configs": entries}, sort_keys=False, width=120), nl=False)


@metrics_group.command("dashboards", epilog="Example: velagen metrics dashboards /var/lib/grafana/dashboards")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace dashboards of these names that differ.")
def dashboards_command(directory: Path, overwrite: bool) -> None:
    """Write the dashboards' JSON into DIRECTORY, for a Grafana that provisions them from files."""
    from velagen.errors import Place, Problem, VelagenError
    from velagen.monitoring.dashboards import UIDS, dashboard

    wanted = {directory / f"{uid}.json": dashboard(name).encode() for name, uid in UIDS.items()}
    differing = [path for path, content in wanted.items() if path.exists() and path.read_bytes() != content]
    if differing and not overwrite:
        raise VelagenError(
            Problem("another dashboard of this name is there", Place(str(path)), "--overwrite replaces it")
            for path in differing
        )
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in wanted.items():
        path.write_bytes(content)
        click.echo(path)
