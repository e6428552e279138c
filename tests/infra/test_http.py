"""Declaring an endpoint: what is not said is an error when the module is imported."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import Schema, fields

from sofinance.infra.db import Mode
from sofinance.infra.fields import PageQuery
from sofinance.infra.http import Call, Endpoint, Routes, paged


class Toy(Schema):
    """What is answered."""

    id = fields.Integer()


class ToyQuery(Schema):
    """A query that is no page's."""

    colour = fields.String()


def declare(method: str, path: str, **options: Any) -> Endpoint:
    routes = Routes()

    @routes.endpoint(method, path, **options)
    async def get_toy(call: Call) -> Any:
        """Get a toy."""
        return call.body

    return routes[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give one of"),
        ({"public": True, "permission": "toys:read"}, "give one of"),
        ({"any_user": True, "credential": "portal"}, "a user's credential"),
        ({"permission": "toys:read", "returns": paged(Toy()), "query": ToyQuery()}, "PageQuery"),
        ({"permission": "toys:read", "status": 200}, "answers 204"),
    ],
)
def test_a_declaration_that_says_too_little_is_refused(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TypeError, match=f"GET /toys: .*{complaint}"):
        declare("GET", "/toys", **options)


@pytest.mark.parametrize(
    ("method", "options", "mode"),
    [
        ("GET", {}, Mode.READ),
        ("POST", {}, Mode.WRITE),
        ("DELETE", {}, Mode.WRITE),
        ("POST", {"read": True}, Mode.READ),
        ("GET", {"report": True}, Mode.REPORT),
    ],
)
def test_a_method_means_a_kind_of_transaction(
    method: str, options: dict[str, bool], mode: Mode
) -> None:
    assert declare(method, "/toys", permission="toys:read", **options).mode is mode


def test_the_rest_follows_from_what_is_said() -> None:
    read = declare("GET", "/toys/{id}", permission="toys:read", returns=Toy())
    assert (read.path, read.status, read.message) == ("/api/v1/toys/{id}", 200, "OK")
    assert (read.name, read.tag, read.entity) == ("test_http.get_toy", "test_http", "test_http")
    made = declare(
        "POST", "/toys", permission="toys:write", returns=Toy(), status=201,
        location="/toys/{id}", entity="toy",
    )  # fmt: skip
    assert (made.message, made.location, made.entity) == ("Created", "/api/v1/toys/{id}", "toy")
    assert declare("DELETE", "/toys/{id}", permission="toys:write").status == 204
    assert declare("GET", "/live", public=True, prefix=False, returns=Toy()).path == "/live"
    listed = declare("GET", "/toys", permission="toys:read", returns=paged(Toy()))
    assert isinstance(listed.query, PageQuery)
