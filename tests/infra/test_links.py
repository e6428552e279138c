"""Pages are walked by following their links."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from sofinance.infra.envelope import ENVELOPE_KEYS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Answer, Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

PATH = "/categories"


def links(answer: Answer) -> dict[str, str]:
    return {rel: to for to, rel in re.findall(r'<([^>]*)>; rel="(\w+)"', answer.headers["Link"])}


async def follow(api: Api, org: Org, answer: Answer, rel: str) -> Answer:
    return await api.get(urljoin(f"/api/v1{PATH}", links(answer)[rel]), org, prefix="")


async def test_numbered_pages_lead_to_each_other(api: Api, org: Org) -> None:
    for number in range(5):
        await api.post(PATH, org, {"name": f"Tea & cake {number}"})
    first = await api.get(f"{PATH}?size=2&search=tea%20%26%20c", org)
    assert set(links(first)) == {"first", "next", "last"}
    second = await follow(api, org, first, "next")
    assert [item["name"][-1] for item in second.data["items"]] == ["2", "3"]
    assert set(links(second)) == {"first", "prev", "next", "last"}
    last = await follow(api, org, second, "last")
    assert [item["name"][-1] for item in last.data["items"]] == ["4"]
    assert set(links(last)) == {"first", "prev", "last"}
    assert (await follow(api, org, last, "first")).data == first.data
    # Beyond the end there is a way back.
    beyond = await api.get(f"{PATH}?size=2&page=9", org)
    assert links(beyond)["prev"].endswith("?size=2&page=3")


async def test_an_empty_list_is_one_page(api: Api, org: Org) -> None:
    assert set(links(await api.get(PATH, org))) == {"first", "last"}


async def test_a_list_by_cursor_leads_on_to_its_end(api: Api, org: Org) -> None:
    accounts = (await api.get("/accounts?search=1000", org)).data["items"]
    equity = (await api.get("/accounts?search=3000", org)).data["items"]
    for number in range(1, 4):
        entry = {
            "date": "2026-01-15",
            "lines": [
                {"account_id": accounts[0]["id"], "debit": str(number)},
                {"account_id": equity[0]["id"], "credit": str(number)},
            ],
        }
        assert (await api.post("/journal/entries", org, entry)).status == 201
    answer = await api.get(f"/accounts/{accounts[0]['id']}/entries?limit=1", org)
    seen = 1
    while "Link" in answer.headers:
        assert set(links(answer)) == {"next"}
        answer = await follow(api, org, answer, "next")
        seen += 1
    assert seen == 3


# --- the shape of before --------------------------------------------------------------------------


async def test_the_legacy_shape_can_be_switched_on(api_with: MakeApi, org: Org) -> None:
    mirrors = await api_with(enable_key_mirroring=True)
    made = await mirrors.post(PATH, org, {"name": "Fruit"})
    assert made.body["name"] == made.data["name"] == "Fruit"
    assert (await mirrors.get(PATH, org)).body.keys() == ENVELOPE_KEYS
    pages = await api_with(enable_key_mirroring=True, mirror_pagination_keys=True)
    body = (await pages.get(PATH, org)).body
    assert body.keys() == ENVELOPE_KEYS | {"items", "page", "size", "total"}
    assert (body["items"], body["total"]) == (body["data"]["items"], 1)
    alone = await api_with(mirror_pagination_keys=True)
    assert (await alone.get(PATH, org)).body.keys() == ENVELOPE_KEYS


async def test_answers_can_be_enriched(api_with: MakeApi, org: Org) -> None:
    async def meta(**changes: bool) -> dict[str, object]:
        api = await api_with(enable_response_enrichment=True, **changes)
        good = await api.get(PATH, org, headers={"X-Request-ID": "r-1"})
        bad = await api.get("/nowhere", org, headers={"X-Request-ID": "r-1"})
        assert good.body["meta"] == bad.body["meta"]
        return dict(good.body["meta"])

    assert set(await meta()) == {"app_version", "correlation_id"}
    assert await meta(include_app_version_meta=False) == {"correlation_id": "r-1"}
    assert set(await meta(include_correlation_id=False)) == {"app_version"}
    apart = await meta(include_app_version_meta=False, response_enrichment_add_to_meta=True)
    assert apart == {"_ctx": {"correlation_id": "r-1"}}
