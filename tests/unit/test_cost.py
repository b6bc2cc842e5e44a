"""velagen cost: GPU-hours that a real Prometheus adds up, prices of a file, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.prometheus_server import Series, holding
from tests.unit.promtool import OWNER

from velagen.cli import main
from velagen.errors import VelagenError
from velagen.monitoring.cost import Prices, as_json, bill, read_prices, rows
from velagen.monitoring.history import period
from velagen.monitoring.prometheus import Prometheus


def constant(name: str, labels: dict[str, str], value: float) -> Series:
    return name, labels, lambda _ago: value


PRICES = "currency: EUR\ngpuHour: 2\nnamespaces: {team: 3}\n"


def test_hours_shares_and_costs_of_models_and_of_idle_gpus(tmp_path: Path) -> None:
    other = {**OWNER, "namespace": "other", "app": "eyes", "version": "v"}
    series = [
        # Half a GPU, a whole one, and of four GPUs all the rest.
        constant("model:gpus", OWNER, 0.5),
        constant("model:gpus", other, 1),
        constant("cluster:gpus:free", {}, 2.5),
        constant("cluster:gpus:total", {}, 4),
    ]
    with holding(tmp_path, series, back=4 * 3600) as address:
        prometheus, over = Prometheus(address), period("2h")
        found = bill(prometheus, over, namespace=None, app=None, prices=Prices("EUR", 2, {"team": 3}))
        own = bill(prometheus, over, namespace="team", app="shop")
    told = as_json(found)
    hours = [(one["version"], one["gpuHours"], one["share"], one["cost"]) for one in told["models"]]
    assert hours[0][0] == "v"
    assert hours[0][1:] == pytest.approx((2, 0.25, 4), rel=0.01)
    assert hours[1][1:] == pytest.approx((1, 0.125, 3), rel=0.01)
    idle = told["idle"]
    assert (idle["gpuHours"], idle["share"], idle["cost"]) == pytest.approx((5, 0.625, 10), rel=0.01)
    assert [use.version for use in own.uses] == [OWNER["version"]]
    assert as_json(own)["models"][0]["cost"] is None
    assert rows(found)[-1][2] == "idle"


def test_without_records_it_says_what_they_need(tmp_path: Path) -> None:
    with (
        holding(tmp_path, [constant("up", {"job": "pods"}, 1)], back=60) as address,
        pytest.raises(VelagenError, match="no records of GPUs"),
    ):
        bill(Prometheus(address), period("1h"), namespace=None, app=None)


def test_prices_are_read(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES)
    prices = read_prices(file)
    assert (prices.currency, prices.of("team"), prices.of("x"), prices.of(None)) == ("EUR", 3, 2, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a table of prices is one map"),
        ("- 1\n", "a table of prices is one map"),
        ("a: [", "invalid YAML"),
        ("currency: EUR\n", "gpuHour is missing"),
        ("gpuHour: 2\n", "currency is missing"),
        ("currency: EUR\ngpuHour: -1\n", "gpuHour must be a number, 0 or more"),
        ("currency: EUR\ngpuHour: two\n", "gpuHour must be a number, 0 or more"),
        ("currency: EUR\ngpuHour: true\n", "gpuHour must be a number, 0 or more"),
        ("currency: 3\ngpuHour: 2\n", "currency must be a short text"),
        ("currency: EUR\ngpuhour: 2\n", "unknown key gpuhour"),
        ("currency: EUR\ngpuHour: 2\nnamespaces: 3\n", "namespaces must be a map"),
        ("currency: EUR\ngpuHour: 2\nnamespaces: {a: x}\n", "the price of namespace a must be a number"),
    ],
)
def test_a_bad_table_of_prices_is_refused_before_anything_is_asked(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    done = CliRunner().invoke(main, ["cost", "--prices", str(file)])
    assert done.exit_code == 1
    assert says in done.output
    assert str(file) in done.output


def test_a_while_is_a_duration() -> None:
    done = CliRunner().invoke(main, ["cost", "--since", "soon"])
    assert done.exit_code == 1
    assert "is not a duration" in done.output
