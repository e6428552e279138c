"""Strangers check the books: hledger and beancount recompute an export, to the last unit."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import random
import re
import sys
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from beancount.core import data
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.strangers import (
    COUNTED_BY,
    beancount_balances,
    hledger,
    hledger_balances,
    load,
)
from sofinance import cli
from sofinance.infra.db import Database, Mode
from sofinance.rules import money
from sofinance.tools import export
from sofinance.tools.export import Account, Beancount, Entry, Hledger, Line
from tests.api.conftest import Shop, open_shop
from tests.support import today

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from chaos.strangers import Balances
    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

    MakeOrg = Callable[..., Awaitable[Org]]

TODAY_AND_BEFORE_DAYS = 20
SALES = 24
SEED = 20250101
# Each means something to one of the two programs, or did to an earlier version of the export.
NASTY = [
    'He said "no; never" | twice \\ and left',
    "two\nlines\r\nand\ta tab",
    "date:2001-01-01, date:2001-01-01",
    "see [2001-01-01] (x) * ! = 5 USD",
    "a  b    c ; comment, tag:value",
    "Ünïcödé — 現金 \U0001f4b0 \u200b\u00a0\u2028 नकद",
    ";", "|", "\\", '"', "#tag ^link @ 1 {2}", "1.000,00 € %s %(x)d ${y}",
]  # fmt: skip


# -- a busy organisation ---------------------------------------------------------------------------


@pytest.fixture
async def shop(api: Api, org: Org) -> Shop:
    """A shop with 100 of each product; tax is 10 % on top of prices."""
    return await open_shop(api, org)


async def open_books(api: Api, org: Org) -> Shop:
    """Make a shop in any currency: the usual prices without their decimal point, or with more."""
    if org.currency == "USD":
        return await open_shop(api, org, quantity="1000")
    branch = (await api.post("/branches", org, {"name": "Main Street"})).data
    product_ids = []
    for number, (price, cost) in enumerate([(1000, 617), (499, 251), (99999, 70001)], 1):
        product = {
            "sku": f"P{number}",
            "name": f"Product {number}",
            "price": units(price, org.currency),
            "cost": units(cost, org.currency),
        }
        product_ids.append((await api.post("/products", org, product)).data["id"])
    shop = Shop(api, org, branch["id"], branch["till_id"], product_ids)
    for days_ago, kind in ((TODAY_AND_BEFORE_DAYS, "OPENING"), (7, "PURCHASE")):
        receipt = {
            "branch_id": branch["id"],
            "kind": kind,
            "received_on": str(today() - timedelta(days_ago)),
            "lines": [
                {"product_id": id_, "quantity": "333.333", "unit_cost": units(377, org.currency)}
                for id_ in product_ids
            ],
        }
        assert (await api.post("/inventory/receipts", org, receipt)).status == 201
    return shop


def units(count: int, currency: str) -> str:
    """Return so many of the smallest units of a currency."""
    return money.text(Decimal(count).scaleb(-money.minor_units(currency)), currency)


async def trade(shop: Shop, chance: random.Random) -> None:
    """Sell with discounts, on credit and in parts, be paid later, and take some of it back."""
    api, org = shop.api, shop.org
    customer_id = await shop.customer(credit_limit=units(10**11, org.currency))
    for _ in range(SALES):
        items = [
            shop.item(product, f"{chance.randint(1, 3999) / 1000:.3f}",
                      discount=units(chance.randint(0, 1), org.currency))
            for product in chance.sample(range(3), chance.randint(1, 3))
        ]  # fmt: skip
        changes: dict[str, Any] = {
            "customer_id": customer_id,
            "sold_on": str(today() - timedelta(chance.randint(0, TODAY_AND_BEFORE_DAYS))),
            "notes": chance.choice(NASTY),
        }
        if chance.random() < 0.5:
            changes["discount"] = units(1, org.currency)
        sale = (await shop.sell(*items, **changes)).data
        total = Decimal(sale["total"])
        if chance.random() < 0.3:  # the same again, paid at once in two ways
            half = (total / 2).quantize(Decimal(units(1, org.currency)))
            payments = [
                {"amount": str(amount), "method": method, "reference": chance.choice(NASTY)}
                for amount, method in ((half, "CASH"), (total - half, "CARD"))
                if amount > 0
            ]
            again = await shop.sell(*items, **changes, payments=payments)
            assert again.data["outstanding_amount"].strip("0.") == ""
        for _ in range(chance.randint(0, 2)):
            part = units(chance.randint(1, 40), org.currency)
            if Decimal(part) * 2 <= total:
                body = {"amount": part, "method": chance.choice(["CASH", "BANK_TRANSFER"])}
                paid = await api.post(f"/sales/{sale['id']}/payments", org, body)
                assert paid.status == 201, paid.text
        if chance.random() < 0.2:
            void = {"reason": chance.choice(NASTY)}
            voided = await api.post(f"/sales/{sale['id']}/void", org, void)
            assert voided.status == 200, voided.text


async def make_account(shop: Shop, code: str, name: str, kind: str, currency: str) -> int:
    body = {"code": code, "name": name, "type": kind, "currency": currency}
    return int((await shop.api.post("/accounts", shop.org, body)).data["id"])


async def keep_foreign_accounts(shop: Shop, chance: random.Random) -> None:
    """Post manual entries of two currencies at once, and reverse some of them."""
    pairs = []
    for currency in ("JPY", "KWD", "EUR"):
        bank = await make_account(shop, f"11.{currency}", f"Bank in {currency}", "ASSET", currency)
        loan = await make_account(
            shop, f"21.{currency}", f"Loan in {currency}", "LIABILITY", currency
        )
        pairs.append((currency, bank, loan))
    for _ in range(SALES):
        lines = []
        for currency, bank, loan in chance.sample(pairs, 2):
            amounts = [chance.randint(1, 10**9) for _ in range(chance.randint(1, 3))]
            lines += [
                {"account_id": bank, "debit": units(amount, currency),
                 "description": chance.choice(NASTY)}
                for amount in amounts
            ]  # fmt: skip
            lines.append({"account_id": loan, "credit": units(sum(amounts), currency)})
        entry = {
            "date": str(today() - timedelta(chance.randint(0, TODAY_AND_BEFORE_DAYS))),
            "memo": chance.choice([*NASTY, None]),
            "reference_type": "loan",
            "reference_id": chance.choice(NASTY),
            "lines": lines,
        }
        posted = (await shop.api.post("/journal/entries", shop.org, entry)).data
        if chance.random() < 0.3:
            path = f"/journal/entries/{posted['id']}/reverse"
            assert (await shop.api.post(path, shop.org, {"memo": "typo"})).status == 201


# -- three ways to the same balances ---------------------------------------------------------------


async def sofinance(dsn: str, *words: str) -> int:
    """Run the command in this process, beside the loop that the tests run in."""
    return await asyncio.to_thread(cli.main, [*words, "--database-url", dsn])


async def exported(dsn: str, org: Org, made_for: str, as_of: date, path: Path) -> str:
    """Return the export up to a date."""
    code = await sofinance(
        dsn, "export", "ledger", "--format", made_for, "--as-of", str(as_of),
        "--org", str(org.id), "--output", str(path),
    )  # fmt: skip
    assert code == 0
    return path.read_text("utf-8")  # noqa: ASYNC240 - a small file


async def trial_balance(api: Api, org: Org, as_of: date) -> Balances:
    """Return currency and balance, as texts, of each account that has one."""
    report = (await api.get(f"/journal/trial-balance?as_of_date={as_of}", org)).data
    assert report["is_balanced"]
    balances = {}
    for line in report["lines"]:
        debit, credit = line["debit_balance"], line["credit_balance"]
        if Decimal(debit) or Decimal(credit):
            signed = debit if Decimal(debit) else f"-{credit}"
            balances[line["account_id"]] = (line["currency"], signed)
    return balances


# -- they agree ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "books",
    [
        {"base_currency": "USD"},
        {"base_currency": "JPY", "standard_tax_percent": Decimal(8)},
        {
            "base_currency": "KWD",
            "prices_include_tax": True,
            "standard_tax_percent": Decimal("7.5"),
        },
    ],
    ids=lambda books: books["base_currency"],
)
async def test_hledger_and_beancount_agree_with_the_trial_balance(
    books: dict[str, Any], api: Api, new_org: MakeOrg, dsn: str, tmp_path: Path
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - the same books every time
    org = await new_org(name='The "busy"; org | \\', **books)
    shop = await open_books(api, org)
    await trade(shop, chance)
    # Half of the books come from snapshots, half from lines.
    assert await sofinance(dsn, "balances", "roll-up", "--org", str(org.id)) == 0
    await keep_foreign_accounts(shop, chance)

    last = ""
    for days_ago in (TODAY_AND_BEFORE_DAYS + 1, TODAY_AND_BEFORE_DAYS, 11, 1, 0, -1):
        as_of = today() - timedelta(days_ago)
        expected = await trial_balance(api, org, as_of)
        for made_for, balances in COUNTED_BY.items():
            text = await exported(dsn, org, made_for, as_of, tmp_path / made_for)
            assert balances(text) == expected, (made_for, as_of)
            last = text if made_for == "hledger" else last
        assert (days_ago > TODAY_AND_BEFORE_DAYS) == (expected == {})
    # The whole ledger, ended by hledger itself, is the same as the part.
    for days_ago in (15, 3):
        as_of = today() - timedelta(days_ago)
        until = str(as_of + timedelta(1))
        assert hledger_balances(last, "-e", until) == await trial_balance(api, org, as_of)
    currencies = {currency for currency, _ in expected.values()}
    assert currencies == {org.currency, "JPY", "KWD", "EUR"}


async def test_a_ledger_that_is_wrong_by_one_cent_is_found(
    shop: Shop, dsn: str, tmp_path: Path
) -> None:
    assert (await shop.sell(paid="11.00")).status == 201
    org = shop.org
    expected = await trial_balance(shop.api, org, today())
    ledger = await exported(dsn, org, "hledger", today(), tmp_path / "a")
    beans = await exported(dsn, org, "beancount", today(), tmp_path / "b")
    assert hledger_balances(ledger) == beancount_balances(beans) == expected

    # One side: their own rules find it. 0.005 would be within beancount's usual tolerance.
    wrong = ledger.replace(" 11.00 USD", " 11.01 USD")
    assert wrong != ledger
    refusal = hledger("check", ledger=wrong)
    assert refusal.returncode != 0
    assert "0.01 USD" in refusal.stderr
    for amount, off in (("11.01", "0.01"), ("11.004", "0.004")):
        wrong = beans.replace(" 11.00 USD", f" {amount} USD")
        assert wrong != beans
        assert load(wrong)[1] == [f"Transaction does not balance: ({off} USD)"]

    # Both sides: it balances, but not as the trial balance does.
    def shifted(text: str) -> str:
        return text.replace(" 11.00 USD", " 11.01 USD").replace(" -10.00 USD", " -10.01 USD")

    assert hledger_balances(shifted(ledger)) != expected
    assert beancount_balances(shifted(beans)) != expected


@pytest.mark.empty_database
async def test_an_amount_that_its_currency_cannot_have_is_not_exported(
    api: Api, org: Org, psql: Psql, dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = await open_shop(api, org)
    assert (await shop.sell(paid="11.00")).status == 201
    psql(
        "alter table journal_line disable trigger user;"
        "alter table journal_line drop constraint journal_line_in_minor_units;"
        "update journal_line set debit = 11.0001 where debit = 11",
        role="superuser",
    )
    kept = tmp_path / "kept"
    kept.write_text("yesterday's")
    for made_for in COUNTED_BY:
        code = await sofinance(dsn, "export", "ledger", "--format", made_for, "--output", str(kept))
        assert code == 1
        assert "11.0001 USD, which is no whole number" in capsys.readouterr().err
    # Nothing is half written, nothing is left behind.
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]  # noqa: ASYNC240 - a small directory
    assert kept.read_text() == "yesterday's"


# -- what it says ----------------------------------------------------------------------------------


async def test_an_entry_says_what_it_is_and_links_to_its_document(
    shop: Shop, dsn: str, tmp_path: Path
) -> None:
    api, org = shop.api, shop.org
    sale = (await shop.sell(customer_id=await shop.customer(), paid="1.00")).data
    payment = await api.post(f"/sales/{sale['id']}/payments", org, {"amount": "2.00"})
    assert payment.status == 201
    void = {"reason": 'wrong "one"; sorry'}
    assert (await api.post(f"/sales/{sale['id']}/void", org, void)).status == 200
    accounts = {line["account_code"]: line["account_id"] for line in (
        await api.get("/journal/trial-balance", org)).data["lines"]}  # fmt: skip
    entry = {
        "memo": "rent, paid",
        "reference_type": "invoice",
        "reference_id": "F-7",
        "lines": [
            {"account_id": accounts["6000"], "debit": "5.00", "description": "March"},
            {"account_id": accounts["1000"], "credit": "5.00"},
        ],
    }
    posted = (await api.post("/journal/entries", org, entry)).data
    await api.post(f"/journal/entries/{posted['id']}/reverse", org, {})

    ledger = await exported(dsn, org, "hledger", today(), tmp_path / "a")
    manual_entry = (
        f"{today()} * ({posted['id']}) rent, paid\n    ; entry:{posted['id']}, kind:MANUAL, "
        "reference_type:invoice, reference:F-7\n"
        "    expenses:6000 Rent  5.00 USD  ; note:March\n"
        "    assets:1000 Cash on hand  -5.00 USD\n"
    )
    for expected in (
        manual_entry,
        f"kind:SALE, sale:{sale['id']}\n",
        f"kind:PAYMENT, payment:{payment.data['payment_id']}\n",
        f'wrong "one", sorry\n    ; entry:{posted["id"] - 1}, kind:VOID, sale:{sale["id"]}\n',
        f"Reversal\n    ; entry:{posted['id'] + 1}, kind:REVERSAL, reverses:{posted['id']}\n",
        "kind:GOODS_RECEIPT, goods_receipt:",
    ):
        assert expected in ledger
    tagged = hledger("bal", "-N", "-O", "csv", f"tag:sale={sale['id']}", "cash", ledger=ledger)
    assert '"-2.00 USD"' in tagged.stdout  # 1.00 in by the sale, 3.00 back by the void

    beans = await exported(dsn, org, "beancount", today(), tmp_path / "b")
    entries, errors = load(beans)
    assert errors == []
    by_id = {e.meta["entry"]: e for e in entries if isinstance(e, data.Transaction)}
    manual, reversal = by_id[posted["id"]], by_id[posted["id"] + 1]
    voided = by_id[posted["id"] - 1]
    assert (manual.narration, manual.meta["kind"]) == ("rent, paid", "MANUAL")
    assert (manual.meta["reference_type"], manual.meta["reference"]) == ("invoice", "F-7")
    assert [p.meta.get("note") for p in manual.postings] == ["March", None]
    assert reversal.links == {f"reverses-{posted['id']}"}
    assert (voided.links, voided.narration) == ({f"sale-{sale['id']}"}, 'wrong "one"; sorry')
    assert len([e for e in by_id.values() if f"sale-{sale['id']}" in e.links]) == 2


async def test_account_names_are_unique_and_stay_as_they_are(
    shop: Shop, dsn: str, tmp_path: Path
) -> None:
    twins = [("7.0", "Same"), ("7-0", "Same"), ("7", "0 Same"), ("7.0-Same", "::"), ("7a", ";;")]
    ids = [await make_account(shop, code, name, "EXPENSE", "USD") for code, name in twins]
    for number, name in enumerate(NASTY):
        if len(name.strip()) >= 2:
            ids.append(await make_account(shop, f"8.{number}", name, "EXPENSE", "USD"))
    counterpart = await make_account(shop, "9", "Counterpart", "EQUITY", "USD")
    lines = [{"account_id": id_, "debit": f"{n}.01"} for n, id_ in enumerate(ids, 1)]
    total = sum(Decimal(line["debit"]) for line in lines)  # type: ignore[arg-type]
    lines.append({"account_id": counterpart, "credit": str(total)})
    posted = await shop.api.post("/journal/entries", shop.org, {"lines": lines})
    assert posted.status == 201

    expected = await trial_balance(shop.api, shop.org, today())
    names = []
    for made_for, balances in COUNTED_BY.items():
        text = await exported(dsn, shop.org, made_for, today(), tmp_path / "x")
        assert balances(text) == expected
        names.append(text)
    assert "assets:1000 Cash on hand  ; type:A" in names[0]
    assert " open Assets:A1000-Cash-on-hand USD\n" in names[1]
    # Of those that would be the same, the oldest goes without its number.
    assert sorted(re.findall(r"open (Expenses:A7-0-Same.*) USD", names[1])) == sorted(
        ["Expenses:A7-0-Same", *(f"Expenses:A7-0-Same-{id_}" for id_ in ids[1:4])]
    )


ANY_CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
LOADED_CHARACTER = st.sampled_from(';|"\\:,[]()*!=@{}#^&~ \n\t-2001.dateUSD')
TEXTS = st.sampled_from(NASTY) | st.text(ANY_CHARACTER | LOADED_CHARACTER, max_size=40)


@settings(max_examples=25)
@given(texts=st.lists(TEXTS, min_size=1, max_size=20))
def test_no_text_changes_a_date_an_account_or_an_amount(texts: list[str]) -> None:
    on = date(2024, 2, 29)
    accounts = [
        Account(number, f"1.{number}", text, "ASSET", "KWD") for number, text in enumerate(texts)
    ]
    accounts.append(Account(len(texts), "9", "Rest", "EQUITY", "KWD"))
    entries = [
        Entry(
            number, on, "MANUAL", text, {"reference_type": text, "reference": text}, {"sale": 7},
            [Line(number, "1.005", "KWD", text), Line(len(texts), "-1.005", "KWD", text)],
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip
    expected = dict.fromkeys(range(len(texts)), ("KWD", "1.005"))
    expected[len(texts)] = ("KWD", str(Decimal("-1.005") * len(texts)))
    for made_for, balances in ((Hledger, hledger_balances), (Beancount, beancount_balances)):
        ledger = made_for(texts[0], "KWD", on, accounts)
        text = "".join(ledger.head(on)) + "".join(map(ledger.entry, entries))
        assert balances(text) == expected
        if made_for is Hledger:
            on_the_day = hledger_balances(text, "-b", "2024-02-29", "-e", "2024-03-01")
            assert on_the_day == expected
            listed = hledger("reg", "-O", "csv", "cur:KWD", "amt:>0", ledger=text).stdout
            assert [row["description"] for row in csv.DictReader(io.StringIO(listed))] == [
                (export.clean(t) or "Manual entry").replace(";", ",").replace("|", "/")
                for t in texts
            ]
        else:
            loaded = [e for e in load(text)[0] if isinstance(e, data.Transaction)]
            assert {e.date for e in loaded} == {on}
            assert {e.links for e in loaded} == {frozenset({"sale-7"})}
            plain = [t for t in texts if t.isprintable() and t]
            assert set(plain) <= {e.narration for e in loaded}


# -- how it is read --------------------------------------------------------------------------------


async def test_pages_do_not_show(
    shop: Shop, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trade(shop, random.Random(SEED))  # noqa: S311 - the same books every time
    whole = [await exported(dsn, shop.org, name, today(), tmp_path / "x") for name in COUNTED_BY]
    for size in (1, 7):
        monkeypatch.setattr(export, "ENTRIES_PER_PAGE", size)
        monkeypatch.setattr(export, "ACCOUNTS_PER_PAGE", size)
        again = [
            await exported(dsn, shop.org, name, today(), tmp_path / "x") for name in COUNTED_BY
        ]
        assert again == whole


async def test_all_pages_are_of_one_state(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ENTRIES_PER_PAGE", 1)
    for _ in range(3):
        assert (await shop.sell(paid="11.00")).status == 201
    database = Database(settings)
    await database.open()
    try:
        async with database.tenant(shop.org.id, mode=Mode.REPORT) as conn:
            pages = export.read_entries(conn, shop.org.id, today())
            first = await anext(pages)
            late = (await shop.sell(paid="11.00")).data["entry_id"]
            ids = [first.id] + [entry.id async for entry in pages]
    finally:
        await database.close()
    assert len(ids) == 4  # the opening stock and three sales
    assert late not in ids


async def test_it_goes_to_stdout_and_another_organisation_stays_out(
    shop: Shop, other_org: Org, dsn: str
) -> None:
    await shop.sell(paid="11.00")

    async def run(*words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sofinance", "export", "ledger", "--database-url", dsn, *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    code, mine, err = await run("--format", "hledger", "--org", str(shop.org.id))
    assert (code, err) == (0, "")
    assert "11.00 USD" in mine
    code, theirs, _ = await run("--format", "hledger", "--org", str(other_org.id))
    assert (code, hledger_balances(theirs)) == (0, {})
    code, out, err = await run("--format", "hledger", "--org", "999999999")
    assert (code, out) == (2, "")
    assert err.startswith("sofinance: There is no organisation 999999999; there are ")
    code, out, err = await run("--format", "hledger")
    assert (code, out) == (2, "")
    assert "Say which organisation with --org" in err
    code, _, err = await run("--format", "hledger", "--as-of", "yesterday")
    assert code == 2
    assert "invalid date value: 'yesterday'" in err
    code, _, err = await run("--format", "hledger", "--output", "/nowhere/at/all")
    assert (code, err) == (
        2, "sofinance: Cannot write /nowhere/at/all: No such file or directory.\n"
    )  # fmt: skip
