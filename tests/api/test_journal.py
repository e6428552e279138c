"""Manual entries, reversals, periods, and the trial balance."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org


async def chart(api: Api, org: Org) -> dict[str, int]:
    """Return the organisation's accounts, id by code."""
    accounts = (await api.get("/accounts?size=100", org)).data["items"]
    return {account["code"]: account["id"] for account in accounts}


def entry(accounts: dict[str, int], debit: str, credit: str, **changes: Any) -> dict[str, Any]:
    """Return the body of an entry: Dr rent, Cr bank."""
    lines = [
        {"account_id": accounts["6000"], "debit": debit},
        {"account_id": accounts["1010"], "credit": credit},
    ]
    return {"date": "2026-03-15", "memo": "Rent", "lines": lines, **changes}


async def post(
    api: Api, org: Org, debit: str = "5.00", credit: str = "5.00", **body: Any
) -> Answer:
    """Post an entry, Dr rent, Cr bank."""
    return await api.post(
        "/journal/entries", org, entry(await chart(api, org), debit, credit, **body)
    )


async def test_a_new_organisation_has_a_chart_of_accounts(api: Api, org: Org) -> None:
    accounts = await chart(api, org)
    assert {"1000", "1100", "1200", "2100", "4000", "5000"} <= accounts.keys()
    balance = (await api.get("/journal/trial-balance", org)).data
    assert len(balance["lines"]) == len(accounts)
    assert (balance["total_debits"], balance["is_balanced"]) == ("0.00", True)


async def test_an_entry_is_posted_and_read_back(api: Api, org: Org) -> None:
    posted = await post(api, org, reference_type="invoice", reference_id="R-3")
    assert posted.status == 201
    found = (await api.get(f"/journal/entries/{posted.data['id']}", org)).data
    assert (found["date"], found["kind"], found["reference_id"]) == ("2026-03-15", "MANUAL", "R-3")
    lines = [(line["account_code"], line["debit"], line["credit"]) for line in found["lines"]]
    assert lines == [("6000", "5.00", "0.00"), ("1010", "0.00", "5.00")]


async def test_an_entry_that_does_not_balance_is_refused(api: Api, org: Org) -> None:
    answer = await post(api, org, debit="5.00", credit="4.99")
    assert answer.refused == (422, "journal_entry_balances")
    assert answer.details["off"]["USD"] == {
        "debits": "5.0000", "credits": "4.9900", "difference": "0.0100",
    }  # fmt: skip


async def test_an_entry_balances_in_each_currency(api: Api, org: Org) -> None:
    euro = {"code": "1011", "name": "Bank EUR", "type": "ASSET", "currency": "EUR"}
    bank = (await api.post("/accounts", org, euro)).data["id"]
    lines = [
        {"account_id": bank, "debit": "5.00"},
        {"account_id": (await chart(api, org))["1010"], "credit": "5.00"},
    ]
    answer = await api.post("/journal/entries", org, {"lines": lines})
    assert answer.refused == (422, "journal_entry_balances")
    assert set(answer.details["off"]) == {"EUR", "USD"}


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ([("6000", "5", "0")], (422, "invalid_request")),
        ([("6000", "5", "0"), ("1010", "0", "0")], (422, "journal_line_one_sided")),
        ([("6000", "5", "5"), ("1010", "0", "5")], (422, "journal_line_one_sided")),
        ([("6000", "-5", "0"), ("1010", "0", "-5")], (422, "invalid_request")),
        ([("6000", "0.001", "0"), ("1010", "0", "0.001")], (422, "journal_line_in_minor_units")),
        ([("none", "5", "0"), ("1010", "0", "5")], (409, "journal_line_account_known")),
    ],
)
async def test_lines_that_break_a_rule_are_refused(
    api: Api, org: Org, lines: list[tuple[str, str, str]], refused: tuple[int, str]
) -> None:
    accounts = {**await chart(api, org), "none": 10**15}
    body = {
        "lines": [
            {"account_id": accounts[code], "debit": debit, "credit": credit}
            for code, debit, credit in lines
        ]
    }
    assert (await api.post("/journal/entries", org, body)).refused == refused
    assert (await api.get("/journal/entries", org)).data["items"] == []


async def test_an_entry_is_corrected_by_its_reversal_once(api: Api, org: Org) -> None:
    posted = (await post(api, org)).data
    path = f"/journal/entries/{posted['id']}"
    assert (await api.put(path, org, {})).refused == (409, "journal_entry_is_final")
    assert (await api.delete(path, org)).refused == (409, "journal_entry_is_final")

    answers = await asyncio.gather(
        *(api.post(f"{path}/reverse", org, {"date": "2026-04-01"}) for _ in range(20))
    )
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 19}
    assert {a.code for a in answers if a.status == 409} == {"journal_entry_reversed_once"}
    reversal = next(answer.data for answer in answers if answer.status == 201)
    assert (reversal["kind"], reversal["reverses_id"]) == ("REVERSAL", posted["id"])
    balance = (await api.get("/journal/trial-balance", org)).data
    assert balance["total_debits"] == "0.00"
    march = (await api.get("/journal/trial-balance?as_of_date=2026-03-31", org)).data
    assert march["total_debits"] == "5.00"


async def test_only_a_manual_entry_is_reversed(api: Api, org: Org) -> None:
    posted = (await post(api, org)).data
    reversal = (await api.post(f"/journal/entries/{posted['id']}/reverse", org, {})).data
    again = await api.post(f"/journal/entries/{reversal['id']}/reverse", org, {})
    assert again.refused == (422, "journal_reversal_mirrors")
    nothing = await api.post(f"/journal/entries/{10**15}/reverse", org, {})
    assert nothing.refused == (404, "not_found")


async def test_a_closed_period_takes_nothing_until_it_is_reopened(api: Api, org: Org) -> None:
    await post(api, org)
    (march,) = (await api.get("/periods", org)).data["items"]
    assert (march["starts_on"], march["ends_on"]) == ("2026-03-01", "2026-03-31")
    closed = (await api.post(f"/periods/{march['id']}/close", org)).data
    assert (closed["is_closed"], closed["closed_by"]) == (True, org.admin.id)
    assert (await post(api, org)).refused == (422, "journal_entry_period_open")
    before = await post(api, org, date="2026-02-28")
    assert before.refused == (409, "journal_entry_period_known")
    assert (await post(api, org, date="2026-04-01")).status == 201
    assert (await api.post(f"/periods/{march['id']}/reopen", org)).status == 200
    assert (await post(api, org)).status == 201


async def test_periods_do_not_overlap(api: Api, org: Org) -> None:
    year = {"starts_on": "2025-01-01", "ends_on": "2025-12-31"}
    assert (await api.post("/periods", org, year)).status == 201
    half = {"starts_on": "2025-07-01", "ends_on": "2026-06-30"}
    assert (await api.post("/periods", org, half)).refused == (409, "accounting_period_overlaps")
    back = {"starts_on": "2024-07-01", "ends_on": "2024-06-30"}
    assert (await api.post("/periods", org, back)).refused == (422, "accounting_period_not_empty")


async def test_postings_and_a_close_at_once_end_on_one_side(api: Api, org: Org) -> None:
    await post(api, org)
    (march,) = (await api.get("/periods", org)).data["items"]
    body = entry(await chart(api, org), "1.00", "1.00")
    answers = await asyncio.gather(
        *(api.post("/journal/entries", org, body) for _ in range(20)),
        api.post(f"/periods/{march['id']}/close", org),
        *(api.post("/journal/entries", org, body) for _ in range(20)),
    )
    posted = sum(answer.status == 201 for answer in answers)
    refused = {a.refused for a in answers if a.status not in {200, 201}}
    assert refused <= {(422, "journal_entry_period_open")}
    balance = (await api.get("/journal/trial-balance", org)).data
    assert balance["total_debits"] == f"{5 + posted}.00"


async def test_an_account_closes_at_zero_and_then_takes_nothing(api: Api, org: Org) -> None:
    accounts = await chart(api, org)
    posted = (await post(api, org)).data
    path = f"/accounts/{accounts['6000']}"
    assert (await api.post(f"{path}/close", org)).refused == (422, "account_closes_at_zero")
    reverse = {"date": "2026-03-16"}
    assert (await api.post(f"/journal/entries/{posted['id']}/reverse", org, reverse)).status == 201
    assert (await api.post(f"{path}/close", org)).data["active"] is False
    assert (await api.post(f"{path}/close", org)).status == 200
    refused = await post(api, org)
    assert refused.refused == (422, "journal_entry_accounts_open")
    assert "inactive" in refused.error["message"]
    role = f"/accounts/{accounts['1100']}/close"
    assert (await api.post(role, org)).refused == (422, "account_closes_at_zero")


async def test_an_account_shows_its_balance_and_lines(api: Api, org: Org) -> None:
    accounts = await chart(api, org)
    for amount in ("1.00", "2.00", "3.00"):
        assert (await post(api, org, amount, amount)).status == 201
    path = f"/accounts/{accounts['6000']}"
    assert (await api.get(path, org)).data["balance"] == "6.00"
    first = (await api.get(f"{path}/entries?limit=2", org)).data
    assert [line["debit"] for line in first["items"]] == ["3.00", "2.00"]
    rest = (await api.get(f"{path}/entries?limit=2&cursor={first['next_cursor']}", org)).data
    assert [line["debit"] for line in rest["items"]] == ["1.00"]
    assert rest["next_cursor"] is None


async def test_the_journal_filters_by_date_and_kind(api: Api, org: Org) -> None:
    await post(api, org)
    await post(api, org, date="2026-05-01")
    listed = (await api.get("/journal/entries?start_date=2026-04-01", org)).data["items"]
    assert [entry["date"] for entry in listed] == ["2026-05-01"]
    assert (await api.get("/journal/entries?entry_type=SALE", org)).data["items"] == []


async def test_who_may_not_write_the_journal_may_not(api: Api, org: Org) -> None:
    body = entry(await chart(api, org), "1", "1")
    cashier = await api.post("/journal/entries", org.member("CASHIER"), body)
    assert cashier.refused == (403, "forbidden")
    assert (await api.get("/journal/trial-balance", org.member("CASHIER"))).status == 403
    assert (await api.post("/journal/entries", org.member("ACCOUNTANT"), body)).status == 201
