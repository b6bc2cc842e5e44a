"""``velagen metrics``: what Prometheus is to be told of models."""

from __future__ import annotations

import click

from velagen.report import exits_with_problems


@click.group("metrics", epilog="Example: velagen metrics rules > models.rules.yaml")
def metrics_group() -> None:
    """Rules and scrape configuration for Prometheus."""


@metrics_group.command("rules", epilog="Example: velagen metrics rules > models.rules.yaml")
@exits_with_problems
def rules_command() -> None:
    """Print the recording rules and the alerts, as a rule file of Prometheus."""
    from velagen.monitoring.alerts import alerts
    from velagen.monitoring.rules import recording_rules, rules_file

    click.echo(rules_file((*recording_rules(), alerts())), nl=False)


@metrics_group.command("scrape-config", epilog="Example: velagen metrics scrape-config --interval 10s")
@click.option("--interval", default="15s", show_default=True, help="How often pods are asked; 15s at most.")
@exits_with_problems
def scrape_config_command(interval: str) -> None:
    """Print the entry of scrape_configs that finds models by their pods' annotations."""
    import yaml

    from velagen.monitoring.scrape import scrape_config

    click.echo(yaml.safe_dump({"scrape_configs": scrape_config(interval)}, sort_keys=False, width=120), nl=False)
