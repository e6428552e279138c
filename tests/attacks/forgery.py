"""What an attacker types into psql: plain inserts that make a document, each value open to change.

`:names` stand for rows of the scene, as psql's own variables would. Left as it is, a forged
document is a valid one, so what refuses a changed one is what watches over that change.
"""

from __future__ import annotations

from dataclasses import dataclass

SALE = "current_setting('attack.sale')::bigint"
ENTRY = "current_setting('attack.entry')::bigint"
PAYMENT = "current_setting('attack.payment')::bigint"
RECEIPT = "current_setting('attack.receipt')::bigint"
TODAY = "(now() at time zone 'UTC')::date"
PERIOD = (
    "(select id from accounting_period"
    f" where org_id = :org and {TODAY} between starts_on and ends_on)"
)
# What a sealed secret of an authenticator looks like.
SEALED = r"'\x01'::bytea || decode(repeat('00', 52), 'hex')"
NEXT_RECEIPT = "(select receipt_count + 1 from till where id = :till)"

# Statements that run, but do not do what the attacker hoped for.
NO_EFFECT = "no effect"

Columns = dict[str, str]
Line = tuple[str, str, str]


@dataclass(frozen=True)
class Attack:
    """One attack: what it tries, as whom, in which statements, and what refuses it."""

    what: str
    refused_by: str
    sql: str
    role: str = "sofinance_app"


def unless(right: str) -> str:
    """Return the end of an attack that is let through: it looks whether its aim is right still."""
    return (
        f"do $$ begin if {right} then raise '{NO_EFFECT}'; end if;"
        " raise 'the attack succeeded'; end $$;\n"
    )


def insert(table: str, *rows: Columns, remember: str = "") -> str:
    """Return an insert; ``remember`` keeps the new id for later statements of the transaction."""
    columns = ", ".join(rows[0])
    values = ", ".join(f"({', '.join(row.values())})" for row in rows)
    statement = f"insert into {table} ({columns}) values {values}"
    if not remember:
        return f"{statement};\n"
    return (
        f"with made as ({statement} returning id)\n"
        f"select set_config('attack.{remember}', id::text, true) from made;\n"
    )


def entry(
    *lines: Line,
    line: Columns | None = None,
    lines_sql: str | None = None,
    **changes: str,
) -> str:
    """Return an entry and its lines: (account, debit, credit) each; a manual one by default."""
    head = {
        "org_id": ":org",
        "period_id": PERIOD,
        "posted_on": TODAY,
        "kind": "'MANUAL'",
        "line_count": str(len(lines)),
        "created_by": ":user",
        **changes,
    }
    rows = [
        {
            "org_id": ":org",
            "entry_id": ENTRY,
            "line_no": str(number),
            "line_count": head["line_count"],
            "account_id": account,
            "currency": "'USD'",
            "debit": debit,
            "credit": credit,
            **(line or {}),
        }
        for number, (account, debit, credit) in enumerate(lines, 1)
    ]
    text = insert("journal_entry", head, remember="entry")
    if lines_sql is not None:
        return text + lines_sql
    return text + (insert("journal_line", *rows) if rows else "")


def sale(  # noqa: PLR0913 - every part of a sale can be forged
    *,
    sale: Columns | None = None,
    line: Columns | None = None,
    payment: Columns | None = None,
    movement: Columns | None = None,
    entry_lines: tuple[Line, ...] | None = None,
    entry_head: Columns | None = None,
    without: tuple[str, ...] = (),
    then: str = "",
) -> str:
    """Return a cash sale of one unit at 10.00 with 10 % tax that cost 6.00, whole and valid."""
    head = {
        "org_id": ":org",
        "branch_id": ":branch",
        "till_id": ":till",
        "receipt_no": NEXT_RECEIPT,
        "customer_id": "null",
        "cashier_id": ":user",
        "currency": "'USD'",
        "prices_include_tax": "false",
        "line_count": "1",
        "subtotal": "10",
        "discount": "0",
        "tax": "1",
        "total": "11",
        "paid": "11",
        "sold_on": TODAY,
        **(sale or {}),
    }
    parts = {
        "sale": insert("sale", head, remember="sale"),
        "line": insert(
            "sale_line",
            {
                "org_id": ":org",
                "sale_id": SALE,
                "line_no": "1",
                "line_count": head["line_count"],
                "currency": head["currency"],
                "prices_include_tax": head["prices_include_tax"],
                "product_id": ":product",
                "quantity": "1",
                "list_price": "10",
                "unit_price": "10",
                "subtotal": "10",
                "discount": "0",
                "sale_discount": "0",
                "tax_code": "'STD'",
                "tax_rate_percent": "10",
                "tax": "1",
                "total": "11",
                **(line or {}),
            },
        ),
        "payment": insert(
            "payment",
            {
                "org_id": ":org",
                "sale_id": SALE,
                "payment_no": "1",
                "currency": head["currency"],
                "sale_total": head["total"],
                "sale_paid": head["paid"],
                "paid_before": "0",
                "amount": head["paid"],
                "method": "'CASH'",
                "account_id": ":cash",
                "received_on": head["sold_on"],
                "received_by": ":user",
                **(payment or {}),
            },
        ),
        "movement": insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "-1",
                "value": "-6",
                "sale_id": SALE,
                **(movement or {}),
            },
        ),
        "entry": entry(
            *(
                entry_lines
                or (
                    (":cash", "11", "0"),
                    (":revenue", "0", "10"),
                    (":tax_payable", "0", "1"),
                    (":cogs", "6", "0"),
                    (":inventory", "0", "6"),
                )
            ),
            **{"kind": "'SALE'", "sale_id": SALE, **(entry_head or {})},
        ),
        "then": then,
    }
    return "".join(text for part, text in parts.items() if part not in without)


def credit_sale(
    *, sale: Columns | None = None, customer: str = ":customer", without: tuple[str, ...] = ()
) -> str:
    """Return the same sale, nothing of it paid: the customer owes 11.00."""
    return globals()["sale"](
        sale={"paid": "0", "customer_id": customer, **(sale or {})},
        entry_lines=(
            (":receivable", "11", "0"),
            (":revenue", "0", "10"),
            (":tax_payable", "0", "1"),
            (":cogs", "6", "0"),
            (":inventory", "0", "6"),
        ),
        without=("payment", *without),
    )


def payment(
    *,
    payment: Columns | None = None,
    entry_lines: tuple[Line, ...] | None = None,
    entry_head: Columns | None = None,
    first: str = "",
    without: tuple[str, ...] = (),
    then: str = "",
) -> str:
    """Return a later payment of 1.00, in cash, of the credit sale of 11.00 with 1.00 paid."""
    values = {
        "org_id": ":org",
        "sale_id": ":credit_sale",
        "payment_no": "2",
        "currency": "'USD'",
        "sale_total": "11",
        "sale_paid": "1",
        "paid_before": "1",
        "amount": "1",
        "method": "'CASH'",
        "account_id": ":cash",
        "received_on": TODAY,
        "received_by": ":user",
        **(payment or {}),
    }
    parts = {
        "first": first,
        "payment": insert("payment", values, remember="payment"),
        "entry": entry(
            *(entry_lines or ((":cash", "1", "0"), (":receivable", "0", "1"))),
            **{"kind": "'PAYMENT'", "payment_id": PAYMENT, **(entry_head or {})},
        ),
        "then": then,
    }
    return "".join(text for part, text in parts.items() if part not in without)


def void(
    *,
    void: Columns | None = None,
    movement: Columns | None = None,
    entry_lines: tuple[Line, ...] | None = None,
    entry_head: Columns | None = None,
    without: tuple[str, ...] = (),
) -> str:
    """Return the void of the cash sale of the scene."""
    values = {
        "org_id": ":org",
        "sale_id": ":sale",
        "reason": "'forged'",
        "voided_on": TODAY,
        "voided_by": ":user",
        **(void or {}),
    }
    parts = {
        "void": insert("sale_void", values),
        "movement": insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "1",
                "value": "6",
                "void_sale_id": values["sale_id"],
                **(movement or {}),
            },
        ),
        "entry": entry(
            *(
                entry_lines
                or (
                    (":cash", "0", "11"),
                    (":revenue", "10", "0"),
                    (":tax_payable", "1", "0"),
                    (":cogs", "0", "6"),
                    (":inventory", "6", "0"),
                )
            ),
            **{"kind": "'VOID'", "void_sale_id": values["sale_id"], **(entry_head or {})},
        ),
    }
    return "".join(text for part, text in parts.items() if part not in without)


def receipt(  # noqa: PLR0913 - every part of a goods receipt can be forged
    *,
    receipt: Columns | None = None,
    line: Columns | None = None,
    movement: Columns | None = None,
    entry_lines: tuple[Line, ...] | None = None,
    entry_head: Columns | None = None,
    without: tuple[str, ...] = (),
    then: str = "",
) -> str:
    """Return a goods receipt of ten units at 6.00, whole and valid."""
    head = {
        "org_id": ":org",
        "branch_id": ":branch",
        "kind": "'PURCHASE'",
        "currency": "'USD'",
        "line_count": "1",
        "total": "60",
        "received_on": TODAY,
        "received_by": ":user",
        **(receipt or {}),
    }
    parts = {
        "receipt": insert("goods_receipt", head, remember="receipt"),
        "line": insert(
            "goods_receipt_line",
            {
                "org_id": ":org",
                "receipt_id": RECEIPT,
                "line_no": "1",
                "line_count": head["line_count"],
                "currency": head["currency"],
                "product_id": ":product",
                "quantity": "10",
                "unit_cost": "6",
                "value": "60",
                **(line or {}),
            },
        ),
        "movement": insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "10",
                "value": "60",
                "goods_receipt_id": RECEIPT,
                **(movement or {}),
            },
        ),
        "entry": entry(
            *(entry_lines or ((":inventory", "60", "0"), (":payables", "0", "60"))),
            **{"kind": "'GOODS_RECEIPT'", "goods_receipt_id": RECEIPT, **(entry_head or {})},
        ),
        "then": then,
    }
    return "".join(text for part, text in parts.items() if part not in without)
