"""Grafana's dashboards: files that it can provision, over what is exported."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sofinance.app import find_endpoints
from tests.ops import promql

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of files that are shipped, and of no Python and no PostgreSQL.
pytestmark = pytest.mark.once

DASHBOARDS = promql.dashboards()
GRID_WIDTH = 24
ROUTE = re.compile(r'\broute="([^"]+)"')


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels that ask something."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def expressions() -> list[tuple[str, str, str]]:
    """Return every expression with its dashboard and panel."""
    return [
        (name, panel["title"], target["expr"])
        for name, board in sorted(DASHBOARDS.items())
        for panel in panels(board)
        for target in panel["targets"]
    ]


def test_there_are_three():
    assert sorted(DASHBOARDS) == ["database.json", "money-and-jobs.json", "service.json"]
    assert len({board["uid"] for board in DASHBOARDS.values()}) == 3
    assert len({board["title"] for board in DASHBOARDS.values()}) == 3


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_dashboard_can_be_provisioned(name: str):
    board = DASHBOARDS[name]
    assert board["id"] is None  # Grafana gives it
    assert board["schemaVersion"] >= 30
    assert "__inputs" not in board  # only a person who imports it is asked for those
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert variables == {"datasource", "instance"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(board):
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= variables | {"__rate_interval"}


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_panels_lie_side_by_side(name: str):
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    assert all(place["x"] + place["w"] <= GRID_WIDTH for place in places)
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y


@pytest.mark.parametrize(
    ("board", "title", "expression"),
    expressions(),
    ids=lambda value: re.sub(r"\W+", "-", value)[:40],
)
def test_a_panel_reads_what_is_exported(board: str, title: str, expression: str):
    assert promql.complaints(expression) == [], f"{board}: {title}"
    there = {endpoint.path for endpoint in find_endpoints()}
    assert set(ROUTE.findall(expression)) <= there


def test_legends_name_labels_that_the_expression_keeps():
    for name, board in DASHBOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                kept = {
                    label.strip()
                    for _, labels in promql.GROUPING.findall(target["expr"])
                    for label in labels.split(",")
                } or promql.TARGET_LABELS
                named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                assert named <= kept, f"{name}: {panel['title']}"


def test_grafana_is_told_where_they_are():
    folder = promql.DASHBOARDS / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards/sofinance.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")
