"""`sofinance routes`: the list is whole, and a public route that nobody listed is found."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from sofinance.app import create_app, find_endpoints
from sofinance.cli import main
from sofinance.config import Settings
from sofinance.public_routes import PUBLIC_ROUTES
from sofinance.tools import routes

if TYPE_CHECKING:
    import pytest


def test_the_public_routes_are_those_that_are_listed() -> None:
    rows = routes.routes(find_endpoints())
    assert routes.unlisted(rows) == []
    assert {row.name for row in rows if row.who == routes.PUBLIC} == set(PUBLIC_ROUTES)


def test_a_route_that_loses_its_permission_is_found() -> None:
    endpoints = find_endpoints()
    at = next(n for n, each in enumerate(endpoints) if each.permission == "sales:write")
    endpoints[at] = replace(endpoints[at], permission=None, public=True)
    strange = routes.unlisted(routes.routes(endpoints))
    assert strange == [f"{endpoints[at].method} {endpoints[at].path}"]


def test_the_command_fails_for_a_public_route_that_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["routes", "--unprotected"]) == 0
    assert "POST    /api/v1/auth/login" in capsys.readouterr().out
    monkeypatch.delitem(PUBLIC_ROUTES, "POST /api/v1/auth/login")
    assert main(["routes", "--unprotected"]) == 1
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "not in sofinance/public_routes.py: POST /api/v1/auth/login"


def test_nothing_that_the_service_serves_is_left_out() -> None:
    app = create_app(Settings.for_tests(database_url="postgresql://nowhere/none"))
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    rows = routes.routes(find_endpoints())
    assert {(row.method, row.path) for row in rows} == served
    assert len(rows) == len(served)


def test_every_route_says_who_may_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "--json"]) == 0
    rows = {f"{row['method']} {row['path']}": row for row in json.loads(capsys.readouterr().out)}
    assert rows["POST /api/v1/sales"]["who"] == "sales:write"
    assert rows["GET /api/v1/auth/me"]["who"] == "any user"
    assert rows["POST /api/v1/auth/login"]["limit"] == "sign_in"
    assert rows["GET /api/v1/audit/logs"] == {
        "method": "GET", "path": "/api/v1/audit/logs", "who": "audit:read", "org_wide": True,
        "admin": True, "limit": "report",
    }  # fmt: skip


def test_the_columns_of_the_table_stand_below_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["routes"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["METHOD", "PATH", "WHO", "BRANCHES", "ADMIN", "LIMIT"]
    for column in ("PATH", "WHO", "ADMIN"):
        at = head.index(column)
        assert all(line[at - 1] == " " and line[at] != " " for line in lines)
