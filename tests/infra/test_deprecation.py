"""What is going to be retired says so on every answer, and is counted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from marshmallow import Schema, fields

from sofinance.infra import metrics
from sofinance.infra.deprecation import Deprecation
from sofinance.infra.errors import ApiError
from sofinance.infra.http import Call, Routes, paged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

SINCE, SUNSET = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
WHY = "https://example.com/toys"


class Toy(Schema):
    """What is answered."""

    id = fields.Integer()


async def test_a_deprecated_endpoint_says_so(
    api_with: MakeApi, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = Routes()
    permission = "categories:read"

    @routes.endpoint(
        "GET", "/toys", permission=permission, returns=paged(Toy()),
        deprecated=Deprecation(since=SINCE, sunset=SUNSET, link=WHY),
    )  # fmt: skip
    async def list_toys(_call: Call) -> Any:
        """List toys."""
        return [{"id": 1}], 1

    @routes.endpoint(
        "GET", "/toys/{id}", permission=permission, returns=Toy(),
        deprecated=Deprecation(since=SINCE),
    )  # fmt: skip
    async def get_toy(_call: Call) -> Any:
        """Get a toy."""
        raise ApiError("broken_toy", "Broken.", status=409)

    monkeypatch.setattr("sofinance.api.catalog.routes", [*routes])
    api = await api_with()
    calls = metrics.DEPRECATED_CALLS.labels("GET", "/api/v1/toys")._value.get  # noqa: SLF001
    before = calls()
    listed = await api.get("/toys", org)
    assert listed.headers["Deprecation"] == "@1767225600"
    assert listed.headers["Sunset"] == "Thu, 31 Dec 2026 23:59:59 GMT"
    links = ", ".join(listed.headers.getall("Link"))  # type: ignore[attr-defined]
    assert f'<{WHY}>; rel="deprecation"; type="text/html"' in links
    assert f'<{WHY}>; rel="sunset"; type="text/html"' in links
    assert 'rel="first"' in links
    assert calls() == before + 1
    refused = await api.get("/toys/1", org)
    assert refused.refused == (409, "broken_toy")
    assert refused.headers["Deprecation"] == "@1767225600"
    assert "Sunset" not in refused.headers
    assert (await api.get("/toys")).headers["Deprecation"] == "@1767225600"
    document = (await api.get("/openapi.json", prefix="")).body
    assert document["paths"]["/api/v1/toys"]["get"]["deprecated"] is True
    text = (await api.get("/metrics", prefix="")).text
    assert 'deprecated_requests_total{method="GET",route="/api/v1/toys"}' in text


async def test_what_is_not_deprecated_says_nothing(api: Api) -> None:
    headers = (await api.get("/info")).headers
    assert not {"Deprecation", "Sunset", "Link"} & set(headers)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"since": SUNSET, "sunset": SINCE}, "before it is deprecated"),
        ({"since": datetime(2026, 1, 1)}, "offset"),  # noqa: DTZ001 - that is what is wrong
    ],
)
def test_dates_make_sense(options: dict[str, datetime], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Deprecation(**options)  # type: ignore[arg-type]
