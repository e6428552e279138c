"""The attacks that can be sent to the API: by somebody who has signed in, or by another's user."""

from __future__ import annotations

from typing import Any, NamedTuple


class Request(NamedTuple):
    """One attack over HTTP; `:names` in path and body stand for rows of the scene."""

    what: str
    refused: tuple[int, str]
    method: str
    path: str
    body: dict[str, Any] | None = None
    role: str = "ADMIN"


def lines(*each: tuple[str, str, str]) -> dict[str, Any]:
    """Return the body of an entry: (account, debit, credit) each."""
    return {"lines": [{"account_id": account, "debit": d, "credit": c} for account, d, c in each]}


def sale(*, paid: str | None = "11.00", item: dict[str, Any] | None = None, **more: Any) -> Any:
    """Return the body of a sale of one unit at 10.00 with 10 % tax."""
    return {
        "branch_id": ":branch",
        "items": [{"product_id": ":product", "quantity": "1", **(item or {})}],
        "payments": [] if paid is None else [{"amount": paid}],
        **more,
    }


RENT = ((":rent", "5.00", "0"), (":cash", "0", "5.00"))
ENTRIES, SALES = "/journal/entries", "/sales"
PAY = "/sales/:credit_sale/payments"

REQUESTS = (
    Request(
        "An entry that does not balance", (422, "journal_entry_balances"), "POST", ENTRIES,
        lines((":rent", "5.00", "0"), (":cash", "0", "4.99")),
    ),
    Request(
        "An entry of one line", (422, "invalid_request"), "POST", ENTRIES,
        lines((":rent", "5.00", "0")),
    ),
    Request(
        "A line with a debit and a credit", (422, "journal_line_one_sided"), "POST", ENTRIES,
        lines((":rent", "5.00", "5.00"), (":cash", "5.00", "5.00")),
    ),
    Request(
        "A line of nothing", (422, "journal_line_one_sided"), "POST", ENTRIES,
        lines((":rent", "0", "0"), (":cash", "0", "0")),
    ),
    Request(
        "Half a cent", (422, "journal_line_in_minor_units"), "POST", ENTRIES,
        lines((":rent", "0.005", "0"), (":cash", "0", "0.005")),
    ),
    Request(
        "An amount that is not a number", (422, "invalid_request"), "POST", ENTRIES,
        lines((":rent", "NaN", "0"), (":cash", "0", "NaN")),
    ),
    Request(
        "A closed account", (422, "journal_entry_accounts_open"), "POST", ENTRIES,
        lines((":closed_account", "5.00", "0"), (":cash", "0", "5.00")),
    ),
    Request(
        "A closed period", (422, "journal_entry_period_open"), "POST", ENTRIES,
        {**lines(*RENT), "date": "2020-01-15"},
    ),
    Request(
        "An account of another organisation", (409, "journal_line_account_known"), "POST",
        ENTRIES, lines((":other_rent", "5.00", "0"), (":cash", "0", "5.00")),
    ),
    Request(
        "The inventory account by hand", (422, "journal_entry_spares_control_accounts"), "POST",
        ENTRIES, lines((":inventory", "5.00", "0"), (":cash", "0", "5.00")),
    ),
    Request(
        "A second reversal", (409, "journal_entry_reversed_once"), "POST",
        "/journal/entries/:reversed_entry/reverse", {},
    ),
    Request(
        "A reversal of a sale's entry", (422, "journal_entry_spares_control_accounts"), "POST",
        "/journal/entries/:sale_entry/reverse", {},
    ),
    Request(
        "An entry changed", (409, "journal_entry_is_final"), "PUT", "/journal/entries/:entry",
        lines(*RENT),
    ),
    Request(
        "An entry deleted", (409, "journal_entry_is_final"), "DELETE", "/journal/entries/:entry",
    ),
    Request(
        "Another organisation's entry", (404, "not_found"), "GET",
        "/journal/entries/:other_entry",
    ),
    Request(
        "Another organisation's entry reversed", (404, "not_found"), "POST",
        "/journal/entries/:other_entry/reverse", {},
    ),
    Request(
        "An account closed that has a balance", (422, "account_closes_at_zero"), "POST",
        "/accounts/:rent/close",
    ),
    Request(
        "A journal entry by a cashier", (403, "forbidden"), "POST", ENTRIES, lines(*RENT),
        "CASHIER",
    ),
    Request(
        "A discount above the subtotal", (422, "sale_discount_within_subtotal"), "POST", SALES,
        sale(paid=None, discount="10.01"),
    ),
    Request(
        "Another price, by a cashier", (403, "sale_line_price_override_allowed"), "POST", SALES,
        sale(paid="1.10", item={"unit_price": "1.00"}), "CASHIER",
    ),
    Request(
        "A date of one's own, by a cashier", (403, "forbidden"), "POST", SALES,
        sale(sold_on="2026-01-01"), "CASHIER",
    ),
    Request(
        "Paid more than the total", (422, "payment_within_total"), "POST", SALES,
        sale(paid="11.01"),
    ),
    Request(
        "On credit, to nobody", (422, "sale_credit_has_customer"), "POST", SALES, sale(paid=None),
    ),
    Request(
        "On credit, to a blacklisted customer", (409, "customer_credit_limit"), "POST", SALES,
        sale(paid=None, customer_id=":blacklisted"),
    ),
    Request(
        "On credit, above the limit", (409, "customer_credit_limit"), "POST", SALES,
        sale(paid=None, customer_id=":customer", item={"quantity": "9"}),
    ),
    Request(
        "To another organisation's customer", (409, "sale_customer_known"), "POST", SALES,
        sale(customer_id=":other_customer"),
    ),
    Request(
        "Another organisation's product", (409, "sale_line_product_known"), "POST", SALES,
        sale(item={"product_id": ":other_product"}),
    ),
    Request(
        "At another organisation's branch", (409, "sale_till_known"), "POST", SALES,
        sale(branch_id=":other_branch"),
    ),
    Request(
        "At another branch's till", (409, "sale_till_known"), "POST", SALES,
        sale(till_id=":till2"),
    ),
    Request(
        "More than there is", (409, "stock_not_negative"), "POST", SALES,
        sale(paid=None, customer_id=":customer", item={"quantity": "9999"}),
    ),
    Request(
        "A negative quantity", (422, "invalid_request"), "POST", SALES,
        sale(item={"quantity": "-1"}),
    ),
    Request(
        "A sale dated in a closed period", (422, "journal_entry_period_open"), "POST", SALES,
        sale(sold_on="2020-01-15"),
    ),
    Request("Another organisation's sale", (404, "not_found"), "GET", "/sales/:other_sale"),
    Request(
        "A payment above what is owed", (422, "payment_within_total"), "POST", PAY,
        {"amount": "10.01"},
    ),
    Request(
        "A payment in another currency", (409, "payment_sale_known"), "POST", PAY,
        {"amount": "1.00", "currency": "EUR"},
    ),
    Request(
        "A payment to an account that takes no money", (409, "payment_account_known"), "POST",
        PAY, {"amount": "1.00", "account_id": ":revenue"},
    ),
    Request(
        "A payment to another organisation's cash", (409, "payment_account_known"), "POST", PAY,
        {"amount": "1.00", "account_id": ":other_cash"},
    ),
    Request(
        "A payment of nothing", (422, "invalid_request"), "POST", PAY, {"amount": "0"},
    ),
    Request(
        "A payment of a void sale", (422, "payment_sale_not_void"), "POST",
        "/sales/:void_sale/payments", {"amount": "1.00"},
    ),
    Request(
        "A payment of another organisation's sale", (404, "not_found"), "POST",
        "/sales/:other_credit_sale/payments", {"amount": "1.00"},
    ),
    Request(
        "A second void", (409, "sale_void_pk"), "POST", "/sales/:void_sale/void",
        {"reason": "again"},
    ),
    Request(
        "A void by a cashier", (403, "forbidden"), "POST", "/sales/:sale/void",
        {"reason": "mine"}, "CASHIER",
    ),
    Request(
        "A void of another organisation's sale", (404, "not_found"), "POST",
        "/sales/:other_sale/void", {"reason": "theirs"},
    ),
    Request(
        "Goods of another organisation received", (409, "stock_product_known"), "POST",
        "/inventory/receipts",
        {
            "branch_id": ":branch",
            "lines": [{"product_id": ":other_product", "quantity": "1", "unit_cost": "1"}],
        },
    ),
    Request(
        "Goods received by a cashier", (403, "forbidden"), "POST", "/inventory/receipts",
        {
            "branch_id": ":branch",
            "lines": [{"product_id": ":product", "quantity": "1", "unit_cost": "1"}],
        },
        "CASHIER",
    ),
)  # fmt: skip
