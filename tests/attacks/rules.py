"""The attacks on each rule, by hand: what an intruder with the application's password would try.

Each is sent as plain SQL in one transaction that commits, with the organisation's own tenant set.
"""

from __future__ import annotations

from tests.attacks.access import ACCESS
from tests.attacks.access import VALID as VALID_ACCESS
from tests.attacks.archives import ARCHIVES
from tests.attacks.archives import VALID as VALID_ARCHIVES
from tests.attacks.attachments import ATTACHMENTS
from tests.attacks.billing import BILLING
from tests.attacks.deliveries import DELIVERIES
from tests.attacks.forgery import (
    ENTRY,
    NO_EFFECT,
    PAYMENT,
    PERIOD,
    RECEIPT,
    SALE,
    TODAY,
    Attack,
    credit_sale,
    entry,
    insert,
    payment,
    receipt,
    sale,
    unless,
    void,
)
from tests.attacks.mail import MAIL
from tests.attacks.master_data import MASTER_DATA
from tests.attacks.portal import PORTAL

RENT_FIVE = ((":rent", "5", "0"), (":cash", "0", "5"))
OLD_VIEW = (
    "commit;\nbegin isolation level repeatable read;\n"
    "select set_config('app.org_id', :org::text, true),"
    " set_config('app.branch_ids', 'all', true);\n"
)
SWITCH = "select set_config('app.org_id', :other_org::text, true);\n"
LATE_LINE = {
    "org_id": ":org",
    "entry_id": ":entry",
    "line_no": "3",
    "line_count": "2",
    "account_id": ":cash",
    "currency": "'USD'",
    "debit": "5",
    "credit": "0",
}

# What must be accepted: else a refusal below would prove nothing.
VALID = {
    "a manual entry": entry(*RENT_FIVE),
    "a cash sale": sale(),
    "a credit sale": credit_sale(),
    "a later payment": payment(),
    "a goods receipt": receipt(),
    **VALID_ACCESS,
    **VALID_ARCHIVES,
}

JOURNAL = (
    Attack(
        "An entry whose debits are not its credits",
        "journal_entry_balances",
        entry((":rent", "5", "0"), (":cash", "0", "4.99")),
    ),
    Attack(
        "An entry that balances over two currencies, not in each",
        "journal_entry_balances",
        entry(
            lines_sql=insert(
                "journal_line",
                *(
                    {
                        "org_id": ":org",
                        "entry_id": ENTRY,
                        "line_no": no,
                        "line_count": "2",
                        "account_id": account,
                        "currency": currency,
                        "debit": debit,
                        "credit": credit,
                    }
                    for no, account, currency, debit, credit in (
                        ("1", ":eur_bank", "'EUR'", "5", "0"),
                        ("2", ":cash", "'USD'", "0", "5"),
                    )
                ),
            ),
            line_count="2",
        ),
    ),
    Attack(
        "An entry without any line",
        "journal_entry_balances",
        entry(line_count="2"),
    ),
    Attack(
        "An entry of one line",
        "journal_entry_has_two_lines",
        entry((":cash", "5", "0")),
    ),
    Attack(
        "An entry that says three lines and has two: a slot left open for later",
        "journal_entry_balances",
        entry(*RENT_FIVE, line_count="3"),
    ),
    Attack(
        "Lines that say another number of lines than their entry",
        "journal_line_entry_known",
        entry(*RENT_FIVE, line={"line_count": "3"}),
    ),
    Attack(
        "A line with a debit and a credit",
        "journal_line_one_sided",
        entry((":rent", "5", "5"), (":cash", "5", "5")),
    ),
    Attack(
        "A line of nothing",
        "journal_line_one_sided",
        entry((":rent", "0", "0"), (":cash", "0", "0")),
    ),
    Attack(
        "A negative debit",
        "journal_line_one_sided",
        entry((":rent", "-5", "0"), (":cash", "0", "-5")),
    ),
    Attack(
        "An amount that is not a number: NaN equals NaN, so the entry would balance",
        "journal_line_amounts_are_numbers",
        entry((":rent", "'NaN'", "0"), (":cash", "0", "'NaN'")),
    ),
    Attack(
        "Half a cent",
        "journal_line_in_minor_units",
        entry((":rent", "0.005", "0"), (":cash", "0", "0.005")),
    ),
    Attack(
        "A line in another currency than its account's",
        "journal_line_account_known",
        entry(*RENT_FIVE, line={"currency": "'EUR'"}),
    ),
    Attack(
        "A line appended to an entry of an earlier transaction",
        "journal_line_in_its_slot",
        insert("journal_line", LATE_LINE),
    ),
    Attack(
        "A line appended, the number of lines forged",
        "journal_line_entry_known",
        insert("journal_line", LATE_LINE | {"line_count": "3"}),
    ),
    Attack(
        "A second line in a slot that is taken",
        "journal_line_pk",
        insert("journal_line", LATE_LINE | {"line_no": "2"}),
    ),
    Attack(
        "The rules fired early, then one more line",
        "journal_line_in_its_slot",
        entry(
            *RENT_FIVE,
        )
        + "set constraints all immediate;\n"
        + insert("journal_line", LATE_LINE | {"entry_id": ENTRY}),
    ),
    Attack(
        "An unbalanced entry, the tenant switched before COMMIT",
        "journal_entry_balances",
        entry((":rent", "5", "0"), (":cash", "0", "4.99")) + SWITCH,
    ),
    Attack(
        "An unbalanced entry, a temporary table in the place of its lines",
        "journal_entry_balances",
        "create temporary table journal_line (like public.journal_line) on commit drop;\n"
        + entry(line_count="2")
        + insert(
            "pg_temp.journal_line",
            LATE_LINE | {"entry_id": ENTRY, "line_no": "1"},
            LATE_LINE | {"entry_id": ENTRY, "line_no": "2", "debit": "0", "credit": "5"},
        ),
    ),
    Attack(
        "An entry on a closed account",
        "journal_entry_accounts_open",
        entry((":closed_account", "5", "0"), (":cash", "0", "5")),
    ),
    Attack(
        "An entry on a closed account, the tenant switched before COMMIT",
        "journal_entry_accounts_open",
        entry((":closed_account", "5", "0"), (":cash", "0", "5")) + SWITCH,
    ),
    Attack(
        "An entry dated in a closed period",
        "journal_entry_period_open",
        entry(*RENT_FIVE, period_id=":closed_period", posted_on="'2020-01-15'"),
    ),
    Attack(
        "An entry dated in a closed period, under the number of an open one",
        "journal_entry_period_open",
        entry(*RENT_FIVE, posted_on="'2020-01-15'"),
    ),
    Attack(
        "An entry of a period that does not exist",
        "journal_entry_period_known",
        entry(*RENT_FIVE, period_id="0"),
    ),
    Attack(
        "An entry of a user who does not exist",
        "journal_entry_user_known",
        entry(*RENT_FIVE, created_by="0"),
    ),
    Attack(
        "An entry of a kind that there is not",
        "journal_entry_has_its_document",
        entry(*RENT_FIVE, kind="'MAGIC'"),
    ),
    Attack(
        "A manual entry that names a sale",
        "journal_entry_has_its_document",
        entry(*RENT_FIVE, sale_id=":free_sale"),
    ),
    Attack(
        "A sale's entry that names no sale",
        "journal_entry_has_its_document",
        entry(*RENT_FIVE, kind="'SALE'"),
    ),
    Attack(
        "A second entry of one sale",
        "journal_entry_sale_once",
        entry(*RENT_FIVE, kind="'SALE'", sale_id=":sale"),
    ),
    Attack(
        "A second entry of one payment",
        "journal_entry_payment_once",
        entry(*RENT_FIVE, kind="'PAYMENT'", payment_id=":later_payment"),
    ),
    Attack(
        "A second entry of one void",
        "journal_entry_void_once",
        entry(*RENT_FIVE, kind="'VOID'", void_sale_id=":void_sale"),
    ),
    Attack(
        "A second entry of one goods receipt",
        "journal_entry_receipt_once",
        entry(*RENT_FIVE, kind="'GOODS_RECEIPT'", goods_receipt_id=":receipt"),
    ),
    Attack(
        "An entry of a sale that does not exist",
        "journal_entry_sale_known",
        entry(*RENT_FIVE, kind="'SALE'", sale_id="0"),
    ),
    Attack(
        "An entry of a payment that does not exist",
        "journal_entry_payment_known",
        entry(*RENT_FIVE, kind="'PAYMENT'", payment_id="0"),
    ),
    Attack(
        "An entry of a void that does not exist",
        "journal_entry_void_known",
        entry(*RENT_FIVE, kind="'VOID'", void_sale_id=":sale"),
    ),
    Attack(
        "An entry of a goods receipt that does not exist",
        "journal_entry_receipt_known",
        entry(*RENT_FIVE, kind="'GOODS_RECEIPT'", goods_receipt_id="0"),
    ),
    Attack(
        "An entry, later, of a payment whose entry is its sale's",
        "journal_entry_is_expected",
        entry(*RENT_FIVE, kind="'PAYMENT'", payment_id=":till_payment"),
    ),
    Attack(
        "An entry, later, of a sale that moved no money",
        "journal_entry_is_expected",
        entry(*RENT_FIVE, kind="'SALE'", sale_id=":free_sale"),
    ),
    Attack(
        "An entry, later, of a goods receipt that cost nothing",
        "journal_entry_is_expected",
        entry(*RENT_FIVE, kind="'GOODS_RECEIPT'", goods_receipt_id=":free_receipt"),
    ),
    Attack(
        "A reversal that takes back less than its entry",
        "journal_reversal_mirrors",
        entry((":rent", "0", "4"), (":cash", "4", "0"), kind="'REVERSAL'", reverses_id=":entry"),
    ),
    Attack(
        "A reversal that does not swap the sides",
        "journal_reversal_mirrors",
        entry(*RENT_FIVE, kind="'REVERSAL'", reverses_id=":entry"),
    ),
    Attack(
        "A reversal of a sale's entry, which only a void takes back",
        "journal_entry_spares_control_accounts",
        entry(
            (":cash", "0", "11"),
            (":revenue", "10", "0"),
            (":tax_payable", "1", "0"),
            (":cogs", "0", "6"),
            (":inventory", "6", "0"),
            kind="'REVERSAL'",
            reverses_id=":sale_entry",
        ),
    ),
    Attack(
        "A reversal of a reversal",
        "journal_reversal_mirrors",
        entry(*RENT_FIVE, kind="'REVERSAL'", reverses_id=":reversal"),
    ),
    Attack(
        "A second reversal of one entry",
        "journal_entry_reversed_once",
        entry(
            (":rent", "0", "5"),
            (":cash", "5", "0"),
            kind="'REVERSAL'",
            reverses_id=":reversed_entry",
        ),
    ),
    Attack(
        "A reversal of an entry that does not exist",
        "journal_entry_reversed_known",
        entry(*RENT_FIVE, kind="'REVERSAL'", reverses_id="0"),
    ),
    Attack(
        "A manual entry on the inventory account, which stock must equal",
        "journal_entry_spares_control_accounts",
        entry((":inventory", "5", "0"), (":cash", "0", "5")),
    ),
    Attack(
        "A manual entry on the receivables account, which customers' debts must equal",
        "journal_entry_spares_control_accounts",
        entry((":receivable", "5", "0"), (":cash", "0", "5")),
    ),
    Attack(
        "A memo of 501 characters",
        "journal_entry_text_not_long",
        entry(*RENT_FIVE, memo="repeat('x', 501)"),
    ),
    Attack(
        "A line's description of 501 characters",
        "journal_line_description_not_long",
        entry(*RENT_FIVE, line={"description": "repeat('x', 501)"}),
    ),
    Attack(
        "An entry that chooses its own number, below what the snapshots have passed",
        "privilege",
        "insert into journal_entry (org_id, id, period_id, posted_on, kind, line_count, created_by)"
        f" overriding system value values (:org, -1, {PERIOD}, {TODAY}, 'MANUAL', 2, :user);\n",
    ),
    Attack(
        "An entry that chooses the time it was posted at",
        "privilege",
        entry(*RENT_FIVE, created_at="'2001-01-01'"),
    ),
    Attack(
        "An entry in a transaction that does not see what others commit",
        "journal_entry_under_way",
        OLD_VIEW + entry(*RENT_FIVE),
    ),
)

ACCOUNTS = (
    Attack(
        "Closing an account that has a balance",
        "account_closes_at_zero",
        "update account set is_active = false where id = :rent;\n",
    ),
    Attack(
        "Closing an account that has a balance, the tenant switched within the statement",
        "account_closes_at_zero",
        "update account set is_active = false where id = :rent"
        " returning set_config('app.org_id', :other_org::text, true);\n",
    ),
    Attack(
        "Closing an account that postings need",
        "account_closes_at_zero",
        "update account set is_active = false where role = 'shrinkage';\n",
    ),
    Attack(
        "Closing an account in a transaction that does not see what others commit",
        "account_closes_at_zero",
        OLD_VIEW + "update account set is_active = false where id = :wages;\n",
    ),
    Attack("Changing an account's currency", "privilege", "update account set currency = 'EUR';\n"),
    Attack("Changing an account's type", "privilege", "update account set type = 'EQUITY';\n"),
    Attack("Changing an account's role", "privilege", "update account set role = 'cash';\n"),
    Attack(
        "Moving a closed period away from its entries",
        "privilege",
        "update accounting_period set ends_on = '2019-12-31' where id = :closed_period;\n",
    ),
    Attack(
        "A period that overlaps another",
        "accounting_period_overlaps",
        insert(
            "accounting_period",
            {"org_id": ":org", "starts_on": "'2020-01-31'", "ends_on": "'2020-02-02'"},
        ),
    ),
    Attack(
        "A period that begins when another does",
        "accounting_period_start_taken",
        insert(
            "accounting_period",
            {"org_id": ":org", "starts_on": "'2020-01-01'", "ends_on": "'2020-01-01'"},
        ),
    ),
    Attack(
        "A period that ends before it begins",
        "accounting_period_not_empty",
        insert(
            "accounting_period",
            {"org_id": ":org", "starts_on": "'2019-01-31'", "ends_on": "'2019-01-01'"},
        ),
    ),
)

SALES = (
    Attack(
        "A sale whose total is not that of its lines",
        "sale_total_matches_lines",
        sale(
            sale={"subtotal": "20", "tax": "2", "total": "22", "paid": "22"},
            entry_lines=(
                (":cash", "22", "0"),
                (":revenue", "0", "20"),
                (":tax_payable", "0", "2"),
                (":cogs", "6", "0"),
                (":inventory", "0", "6"),
            ),
        ),
    ),
    Attack(
        "A sale whose total is not subtotal less discount plus tax",
        "sale_total_right",
        sale(sale={"total": "10", "paid": "10"}),
    ),
    Attack(
        "A sale with less tax than its lines",
        "sale_total_matches_lines",
        sale(
            sale={"tax": "0", "total": "10", "paid": "10"},
            entry_lines=(
                (":cash", "10", "0"),
                (":revenue", "0", "10"),
                (":cogs", "6", "0"),
                (":inventory", "0", "6"),
            ),
        ),
    ),
    Attack(
        "A sale without lines, whose goods move all the same",
        "stock_movement_is_its_documents",
        sale(without=("line",)),
    ),
    Attack(
        "A sale without lines",
        "sale_total_matches_lines",
        sale(
            without=("line", "movement"),
            entry_lines=((":cash", "11", "0"), (":revenue", "0", "10"), (":tax_payable", "0", "1")),
        ),
    ),
    Attack(
        "A sale of no lines",
        "sale_has_lines",
        sale(sale={"line_count": "0"}, without=("line",)),
    ),
    Attack(
        "A sale that leaves a slot open for a later line",
        "sale_total_matches_lines",
        sale(sale={"line_count": "2"}),
    ),
    Attack(
        "A line appended to a sale of an earlier transaction",
        "sale_line_in_its_slot",
        sale(line={"sale_id": ":sale", "line_no": "2"}, without=("sale",)),
    ),
    Attack(
        "A line appended to a sale, the number of lines forged",
        "sale_line_sale_known",
        sale(
            sale={"line_count": "2"},
            line={"sale_id": ":sale", "line_no": "2"},
            without=("sale",),
        ),
    ),
    Attack(
        "A second line in a slot that is taken",
        "sale_line_pk",
        sale(line={"sale_id": ":sale"}, without=("sale",)),
    ),
    Attack(
        "A discount above the subtotal",
        "sale_discount_within_subtotal",
        sale(sale={"discount": "10.01", "total": "0.99", "paid": "0.99"}),
    ),
    Attack(
        "A line's discount above its subtotal",
        "sale_line_discount_within_subtotal",
        sale(line={"discount": "10.01", "tax": "0", "total": "-0.01"}),
    ),
    Attack(
        "A negative discount",
        "sale_line_discount_within_subtotal",
        sale(line={"discount": "-1", "tax": "1.10", "total": "12.10"}),
    ),
    Attack(
        "A line with another tax than its rate gives",
        "sale_line_tax_right",
        sale(line={"tax": "0.99", "total": "10.99"}),
    ),
    Attack(
        "A negative tax",
        "sale_tax_not_negative",
        sale(sale={"tax": "-1", "total": "9", "paid": "9"}),
    ),
    Attack(
        "A line whose subtotal is not quantity times price",
        "sale_line_subtotal_right",
        sale(line={"subtotal": "9", "tax": "0.90", "total": "9.90"}),
    ),
    Attack("A line whose total is forged", "sale_line_total_right", sale(line={"total": "10"})),
    Attack(
        "A quantity of zero",
        "sale_line_quantity_above_zero",
        sale(line={"quantity": "0", "subtotal": "0", "tax": "0", "total": "0"}),
    ),
    Attack(
        "A negative quantity",
        "sale_line_quantity_above_zero",
        sale(line={"quantity": "-1"}),
    ),
    Attack(
        "A negative price",
        "sale_line_price_not_negative",
        sale(line={"list_price": "-1", "unit_price": "-1"}),
    ),
    Attack(
        "A price of half a cent",
        "sale_line_in_minor_units",
        sale(
            line={
                "list_price": "0.005",
                "unit_price": "0.005",
                "quantity": "2",
                "subtotal": "0.01",
                "tax": "0",
                "total": "0.01",
            }
        ),
    ),
    Attack(
        "Paid with half a cent",
        "sale_in_minor_units",
        sale(sale={"paid": "10.995", "customer_id": ":customer"}),
    ),
    Attack(
        "Amounts that are not numbers",
        "sale_amounts_are_numbers",
        sale(sale=dict.fromkeys(("subtotal", "total", "paid"), "'NaN'")),
    ),
    Attack(
        "A line of amounts that are not numbers",
        "sale_line_amounts_are_numbers",
        sale(
            line=dict.fromkeys(
                ("list_price", "unit_price", "quantity", "subtotal", "tax", "total"), "'NaN'"
            )
        ),
    ),
    Attack(
        "A sale of a day that never ends",
        "sale_amounts_are_numbers",
        sale(sale={"sold_on": "'infinity'"}),
    ),
    Attack(
        "A sale in another currency than the organisation's",
        "sale_line_product_known",
        credit_sale(sale={"currency": "'EUR'"}),
    ),
    Attack(
        "A shelf price that the catalogue does not have",
        "sale_line_priced_from_catalogue",
        sale(
            sale={"subtotal": "1", "tax": "0.10", "total": "1.10", "paid": "1.10"},
            line={
                "list_price": "1",
                "unit_price": "1",
                "subtotal": "1",
                "tax": "0.10",
                "total": "1.10",
            },
        ),
    ),
    Attack(
        "A tax rate that the catalogue does not have",
        "sale_line_priced_from_catalogue",
        sale(
            sale={"tax": "0", "total": "10", "paid": "10"},
            line={"tax_rate_percent": "0", "tax": "0", "total": "10"},
        ),
    ),
    Attack(
        "A tax code that is not the product's",
        "sale_line_priced_from_catalogue",
        sale(line={"tax_code": "'ZERO'"}),
    ),
    Attack(
        "Another price, the tenant switched within the statement to hide the catalogue",
        "sale_line_priced_from_catalogue",
        sale(without=("line", "payment", "movement", "entry"))
        + insert(
            "sale_line",
            {
                "org_id": ":org",
                "sale_id": SALE,
                "line_no": "1",
                "line_count": "1",
                "currency": "'USD'",
                "prices_include_tax": "false",
                "product_id": ":product",
                "quantity": "1",
                "list_price": "1",
                "unit_price": "1",
                "subtotal": "1",
                "discount": "0",
                "sale_discount": "0",
                "tax_code": "'STD'",
                "tax_rate_percent": "10",
                "tax": "0.10",
                "total": "1.10",
            },
        ).replace(";", " returning set_config('app.org_id', :other_org::text, true);"),
    ),
    Attack(
        "A product that is not sold any more",
        "sale_line_priced_from_catalogue",
        "update product set is_active = false where id = :product;\n" + sale(),
    ),
    Attack(
        "A price override that nobody answers for",
        "sale_line_price_override_allowed",
        sale(
            line={
                "unit_price": "9",
                "subtotal": "9",
                "tax": "0.90",
                "total": "9.90",
            }
        ),
    ),
    Attack(
        "A price override by a user who does not exist",
        "sale_line_overrider_known",
        sale(
            sale={"subtotal": "9", "tax": "0.90", "total": "9.90", "paid": "9.90"},
            line={
                "unit_price": "9",
                "subtotal": "9",
                "tax": "0.90",
                "total": "9.90",
                "overridden_by": "0",
            },
        ),
    ),
    Attack(
        "A product that does not exist",
        "sale_line_product_known",
        sale(line={"product_id": "0"}),
    ),
    Attack(
        "A sale at another till than the one that its cashier signed in on",
        "sale_at_its_till",
        "select set_config('app.till_id', :till2::text, true);\n" + sale(),
    ),
    Attack(
        "A till of another branch",
        "sale_till_known",
        sale(sale={"branch_id": ":branch2"}),
    ),
    Attack("A cashier who does not exist", "sale_cashier_known", sale(sale={"cashier_id": "0"})),
    Attack(
        "A receipt number skipped",
        "sale_receipt_no_follows",
        sale(sale={"receipt_no": f"{1} + (select receipt_count + 1 from till where id = :till)"}),
    ),
    Attack(
        "A till's count raised, to leave a hole",
        "privilege",
        "update till set receipt_count = receipt_count + 1;\n",
    ),
    Attack(
        "A receipt number used again",
        "sale_receipt_no_taken",
        sale(sale={"receipt_no": "1"}),
    ),
    Attack(
        "A receipt number below one",
        "sale_receipt_no_from_one",
        sale(sale={"receipt_no": "0"}),
    ),
    Attack(
        "The same client_sale_id twice",
        "sale_client_sale_taken",
        sale(
            sale={"client_sale_id": "'00000000-0000-4000-8000-000000000001'"},
            then=insert(
                "sale",
                {
                    "org_id": ":org",
                    "branch_id": ":branch2",
                    "till_id": ":till2",
                    "receipt_no": "1",
                    "cashier_id": ":user",
                    "currency": "'USD'",
                    "prices_include_tax": "false",
                    "line_count": "1",
                    "subtotal": "0",
                    "discount": "0",
                    "tax": "0",
                    "total": "0",
                    "paid": "0",
                    "sold_on": TODAY,
                    "client_sale_id": "'00000000-0000-4000-8000-000000000001'",
                },
            ),
        ),
    ),
    Attack(
        "A sale that chooses the time it was posted at",
        "privilege",
        sale(sale={"sold_at": "'2001-01-01'"}),
    ),
    Attack(
        "Notes of 1001 characters",
        "sale_notes_not_long",
        sale(sale={"notes": "repeat('x', 1001)"}),
    ),
    # -- its money --
    Attack(
        "A sale that says paid, without a payment",
        "sale_entry_matches",
        sale(without=("payment",)),
    ),
    Attack(
        "A sale that says paid, the tenant switched before COMMIT",
        "sale_entry_matches",
        sale(without=("payment",), then=SWITCH),
    ),
    Attack(
        "Paid more than the total",
        "sale_paid_within_total",
        sale(sale={"paid": "12", "customer_id": ":customer"}),
    ),
    Attack(
        "A till payment dated on another day than its sale",
        "sale_payments_match",
        sale(payment={"received_on": f"{TODAY} - 1"}),
    ),
    Attack(
        "A till payment dated on another day, the tenant switched before COMMIT",
        "sale_payments_match",
        sale(payment={"received_on": f"{TODAY} - 1"}, then=SWITCH),
    ),
    Attack(
        "More paid at the till than the sale says",
        "sale_payments_match",
        credit_sale()
        + insert(
            "payment",
            {
                "org_id": ":org",
                "sale_id": SALE,
                "payment_no": "1",
                "currency": "'USD'",
                "sale_total": "11",
                "sale_paid": "0",
                "paid_before": "0",
                "amount": "1",
                "method": "'CASH'",
                "account_id": ":cash",
                "received_on": TODAY,
                "received_by": ":user",
            },
        ),
    ),
    Attack(
        "A sale on credit, to nobody",
        "sale_credit_has_customer",
        credit_sale(customer="null"),
    ),
    Attack(
        "A sale on credit to a customer who does not exist",
        "sale_customer_known",
        credit_sale(customer="0"),
    ),
    Attack(
        "A sale on credit to a blacklisted customer",
        "customer_credit_limit",
        credit_sale(customer=":blacklisted"),
    ),
    Attack(
        "A sale on credit above the customer's limit",
        "customer_credit_limit",
        credit_sale() * 4,
    ),
    Attack(
        "A sale on credit above the limit, the tenant switched before COMMIT",
        "customer_credit_limit",
        credit_sale() * 4 + SWITCH,
    ),
    # -- its stock --
    Attack(
        "A sale that takes nothing out",
        "sale_stock_matches",
        sale(
            without=("movement",),
            entry_lines=((":cash", "11", "0"), (":revenue", "0", "10"), (":tax_payable", "0", "1")),
        ),
    ),
    Attack(
        "A sale that takes another quantity out",
        "stock_movement_is_its_documents",
        sale(movement={"quantity": "-2", "value": "-12"}),
    ),
    Attack(
        "A sale that takes another product out",
        "stock_movement_is_its_documents",
        sale(movement={"product_id": ":product2", "value": "-2.5"}),
    ),
    Attack(
        "A sale that takes the stock of another branch",
        "stock_movement_is_its_documents",
        sale(movement={"branch_id": ":branch2"}),
    ),
    Attack(
        "A movement appended to a sale of an earlier transaction",
        "stock_movement_is_its_documents",
        insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product2",
                "currency": "'USD'",
                "quantity": "-1",
                "value": "-2.5",
                "sale_id": ":sale",
            },
        ),
    ),
    Attack(
        "A second movement of a product of a sale",
        "stock_movement_sale_once",
        insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "-1",
                "value": "-6",
                "sale_id": ":sale",
            },
        ),
    ),
    Attack(
        "Goods issued at another value than they cost",
        "stock_issue_at_cost",
        sale(
            movement={"value": "-1"},
            entry_lines=(
                (":cash", "11", "0"),
                (":revenue", "0", "10"),
                (":tax_payable", "0", "1"),
                (":cogs", "1", "0"),
                (":inventory", "0", "1"),
            ),
        ),
    ),
    Attack(
        "Goods issued at another value, hidden beside a receipt in one statement",
        "stock_issue_at_cost",
        receipt(without=("movement",))
        + sale(
            without=("movement",),
            entry_lines=(
                (":cash", "11", "0"),
                (":revenue", "0", "10"),
                (":tax_payable", "0", "1"),
                (":cogs", "1", "0"),
                (":inventory", "0", "1"),
            ),
        )
        + insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "10",
                "value": "60",
                "goods_receipt_id": RECEIPT,
                "sale_id": "null",
            },
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "-1",
                "value": "-1",
                "goods_receipt_id": "null",
                "sale_id": SALE,
            },
        ),
    ),
    Attack(
        "Goods moved, the tenant switched within the statement so that stock is not found",
        NO_EFFECT,
        sale(without=("movement",))
        + "select set_config('attack.stock', quantity::text, true) from stock"
        " where branch_id = :branch and product_id = :product;\n"
        + "insert into stock_movement (org_id, branch_id, product_id, currency, quantity, value,"
        f" sale_id) values (:org, :branch, :product, 'USD', -1, -6, {SALE})"
        " returning set_config('app.org_id', :other_org::text, true);\n"
        "select set_config('app.org_id', :org::text, true);\n"
        + unless(
            "(select quantity from stock where branch_id = :branch and product_id = :product)"
            " = current_setting('attack.stock')::numeric - 1"
        ),
    ),
    Attack(
        "More sold than there is",
        "stock_not_negative",
        sale(
            sale={"subtotal": "10000", "tax": "1000", "total": "11000", "paid": "11000"},
            line={"quantity": "1000", "subtotal": "10000", "tax": "1000", "total": "11000"},
            movement={"quantity": "-1000", "value": "-6000"},
        ),
    ),
    # -- its books --
    Attack("A sale without an entry", "sale_entry_matches", sale(without=("entry",))),
    Attack(
        "A sale without an entry, the tenant switched before COMMIT",
        "sale_entry_matches",
        sale(without=("entry",), then=SWITCH),
    ),
    Attack(
        "A sale whose entry has other amounts",
        "sale_entry_matches",
        sale(
            entry_lines=(
                (":cash", "10", "0"),
                (":revenue", "0", "9"),
                (":tax_payable", "0", "1"),
                (":cogs", "6", "0"),
                (":inventory", "0", "6"),
            )
        ),
    ),
    Attack(
        "A sale whose money is booked to another account than it was paid to",
        "sale_entry_matches",
        sale(
            entry_lines=(
                (":bank", "11", "0"),
                (":revenue", "0", "10"),
                (":tax_payable", "0", "1"),
                (":cogs", "6", "0"),
                (":inventory", "0", "6"),
            )
        ),
    ),
    Attack(
        "A sale whose tax is booked as revenue",
        "sale_entry_matches",
        sale(
            entry_lines=(
                (":cash", "11", "0"),
                (":revenue", "0", "11"),
                (":cogs", "6", "0"),
                (":inventory", "0", "6"),
            )
        ),
    ),
    Attack(
        "A sale without its cost of goods",
        "sale_entry_matches",
        sale(
            entry_lines=((":cash", "11", "0"), (":revenue", "0", "10"), (":tax_payable", "0", "1"))
        ),
    ),
    Attack(
        "A sale's entry blown up by lines that cancel each other out",
        "sale_entry_matches",
        sale(
            entry_lines=(
                (":cash", "11", "0"),
                (":revenue", "0", "10"),
                (":tax_payable", "0", "1"),
                (":cogs", "6", "0"),
                (":inventory", "0", "6"),
                (":rent", "900", "0"),
                (":rent", "0", "900"),
            )
        ),
    ),
    Attack(
        "A sale whose entry has another date",
        "sale_entry_matches",
        sale(
            entry_head={
                "posted_on": f"{TODAY} - 40",
                "period_id": f"open_period(:org, {TODAY} - 40)",
            }
        ),
    ),
    Attack(
        "A sale dated in a closed period",
        "journal_entry_period_open",
        sale(
            sale={"sold_on": "'2020-01-15'"},
            entry_head={"posted_on": "'2020-01-15'", "period_id": ":closed_period"},
        ),
    ),
)

PAYMENTS = (
    Attack(
        "A payment above what is owed",
        "payment_within_total",
        payment(
            payment={"amount": "10.01"},
            entry_lines=((":cash", "10.01", "0"), (":receivable", "0", "10.01")),
        ),
    ),
    Attack(
        "A payment that begins where another one did",
        "payment_follows",
        payment(payment={"paid_before": "0"}),
    ),
    Attack(
        "A payment number used again",
        "payment_no_taken",
        payment(payment={"payment_no": "1", "paid_before": "0", "amount": "2"}),
    ),
    Attack(
        "A payment posted again as it was",
        "payment_chain_key",
        payment(payment={"payment_no": "1", "paid_before": "0"}),
    ),
    Attack("A payment number skipped", "payment_follows", payment(payment={"payment_no": "3"})),
    Attack(
        "A first payment that does not begin at zero",
        "payment_first_begins_at_zero",
        payment(payment={"payment_no": "1"}),
    ),
    Attack(
        "A payment that makes its sale's total larger",
        "payment_sale_known",
        payment(payment={"sale_total": "12"}),
    ),
    Attack(
        "A payment that calls itself one of the till, to need no entry",
        "payment_sale_known",
        payment(payment={"sale_paid": "11"}, without=("entry",)),
    ),
    Attack(
        "A payment in another currency",
        "payment_sale_known",
        payment(payment={"currency": "'EUR'", "account_id": ":eur_bank"}),
    ),
    Attack(
        "A payment to an account of another currency",
        "payment_account_known",
        payment(payment={"account_id": ":eur_bank"}),
    ),
    Attack(
        "A payment to an account that takes no money",
        "payment_account_known",
        payment(payment={"account_id": ":revenue"}),
    ),
    Attack(
        "A payment of nothing",
        "payment_amount_above_zero",
        payment(payment={"amount": "0"}, without=("entry",)),
    ),
    Attack(
        "A negative payment",
        "payment_amount_above_zero",
        payment(payment={"amount": "-1"}),
    ),
    Attack(
        "A payment that is not a number",
        "payment_within_total",
        payment(payment={"amount": "'NaN'"}),
    ),
    Attack(
        "A payment of half a cent",
        "payment_in_minor_units",
        payment(payment={"amount": "0.005"}),
    ),
    Attack(
        "A payment by a method that there is not",
        "payment_method_known",
        payment(payment={"method": "'GOLD'"}),
    ),
    Attack(
        "A reference of 101 characters",
        "payment_reference_not_long",
        payment(payment={"reference": "repeat('x', 101)"}),
    ),
    Attack(
        "A payment taken by a user who does not exist",
        "payment_user_known",
        payment(payment={"received_by": "0"}),
    ),
    Attack("A payment without its entry", "payment_entry_matches", payment(without=("entry",))),
    Attack(
        "A payment without its entry, the tenant switched before COMMIT",
        "payment_entry_matches",
        payment(without=("entry",), then=SWITCH),
    ),
    Attack(
        "A payment booked as revenue",
        "payment_entry_matches",
        payment(entry_lines=((":cash", "1", "0"), (":revenue", "0", "1"))),
    ),
    Attack(
        "A payment whose entry has another date",
        "payment_entry_matches",
        payment(
            entry_head={
                "posted_on": f"{TODAY} - 40",
                "period_id": f"open_period(:org, {TODAY} - 40)",
            }
        ),
    ),
    Attack(
        "A payment of a void sale by the posting function",
        "payment_sale_not_void",
        "select * from post_payment(:org, :user, :void_sale, 'CASH', null, 1, null, null);\n",
    ),
    Attack(
        "A payment of a void sale",
        "receivable_not_oversettled",
        payment(
            payment={
                "sale_id": ":void_sale",
                "payment_no": "1",
                "sale_paid": "0",
                "paid_before": "0",
            }
        ),
    ),
    Attack(
        "Two payments in one statement, the later one first, so that less is settled than paid",
        NO_EFFECT,
        "insert into payment (org_id, sale_id, payment_no, currency, sale_total, sale_paid,"
        " paid_before, amount, method, account_id, received_on, received_by) values\n"
        f"(:org, :credit_sale, 3, 'USD', 11, 1, 2, 1, 'CASH', :cash, {TODAY}, :user),\n"
        f"(:org, :credit_sale, 2, 'USD', 11, 1, 1, 1, 'CASH', :cash, {TODAY}, :user);\n"
        + unless("(select settled from receivable where sale_id = :credit_sale) = 2"),
    ),
    Attack(
        "A payment, the tenant switched within the statement so that no debt is settled",
        NO_EFFECT,
        "insert into payment (org_id, sale_id, payment_no, currency, sale_total, sale_paid,"
        " paid_before, amount, method, account_id, received_on, received_by) values\n"
        f"(:org, :credit_sale, 2, 'USD', 11, 1, 1, 1, 'CASH', :cash, {TODAY}, :user)"
        " returning set_config('app.org_id', :other_org::text, true);\n"
        "select set_config('app.org_id', :org::text, true);\n"
        + unless("(select settled from receivable where sale_id = :credit_sale) = 1"),
    ),
    Attack(
        "A debt written down directly",
        "privilege",
        "update receivable set settled = amount;\n",
    ),
    Attack(
        "A debt written without a sale",
        "privilege",
        insert(
            "receivable",
            {
                "org_id": ":org",
                "sale_id": ":sale",
                "customer_id": ":customer",
                "currency": "'USD'",
                "sold_on": TODAY,
                "amount": "1",
            },
        ),
    ),
    Attack("A debt deleted", "privilege", "delete from receivable;\n"),
)

VOIDS = (
    Attack(
        "A void that does not bring the goods back",
        "sale_void_stock_matches",
        void(without=("movement",)),
    ),
    Attack(
        "A void that brings back more than was sold",
        "stock_movement_is_its_documents",
        void(movement={"quantity": "2", "value": "12"}),
    ),
    Attack(
        "A void that brings the goods back at another value",
        "stock_movement_is_its_documents",
        void(movement={"value": "9"}),
    ),
    Attack(
        "A void that brings the goods back to another branch",
        "stock_movement_is_its_documents",
        void(movement={"branch_id": ":branch2"}),
    ),
    Attack(
        "A movement appended to a void of an earlier transaction",
        "stock_movement_is_its_documents",
        insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product2",
                "currency": "'USD'",
                "quantity": "1",
                "value": "2.5",
                "void_sale_id": ":void_sale",
            },
        ),
    ),
    Attack(
        "A second movement of a product of a void",
        "stock_movement_void_once",
        insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "1",
                "value": "6",
                "void_sale_id": ":void_sale",
            },
        ),
    ),
    Attack("A void without an entry", "sale_void_entry_matches", void(without=("entry",))),
    Attack(
        "A void without an entry, the tenant switched before COMMIT",
        "sale_void_entry_matches",
        void(without=("entry",)) + SWITCH,
    ),
    Attack(
        "A void that takes back half of the money",
        "sale_void_entry_matches",
        void(
            entry_lines=(
                (":cash", "0", "5"),
                (":revenue", "4", "0"),
                (":tax_payable", "1", "0"),
                (":cogs", "0", "6"),
                (":inventory", "6", "0"),
            )
        ),
    ),
    Attack(
        "A void whose entry is blown up by lines that cancel each other out",
        "sale_void_entry_matches",
        void(
            entry_lines=(
                (":cash", "0", "11"),
                (":revenue", "10", "0"),
                (":tax_payable", "1", "0"),
                (":cogs", "0", "6"),
                (":inventory", "6", "0"),
                (":rent", "900", "0"),
                (":rent", "0", "900"),
            )
        ),
    ),
    Attack(
        "A void whose entry has another date",
        "sale_void_entry_matches",
        void(
            entry_head={
                "posted_on": f"{TODAY} - 40",
                "period_id": f"open_period(:org, {TODAY} - 40)",
            }
        ),
    ),
    Attack("A second void of one sale", "sale_void_pk", void(void={"sale_id": ":void_sale"})),
    Attack(
        "A void of a sale that does not exist",
        "sale_void_sale_known",
        void(void={"sale_id": "0"}, without=("movement", "entry")),
    ),
    Attack(
        "A void of a day that never ends",
        "sale_void_date_is_finite",
        void(void={"voided_on": "'infinity'"}),
    ),
    Attack("A void without a reason", "sale_void_has_reason", void(void={"reason": "' '"})),
    Attack(
        "A void by a user who does not exist",
        "sale_void_user_known",
        void(void={"voided_by": "0"}),
    ),
)

STOCK = (
    Attack("Stock written directly", "privilege", "update stock set quantity = quantity + 1;\n"),
    Attack("Stock revalued directly", "privilege", "update stock set value = 0;\n"),
    Attack(
        "A new stock row that is not empty",
        "privilege",
        insert(
            "stock",
            {
                "org_id": ":org",
                "branch_id": ":branch2",
                "product_id": ":product2",
                "currency": "'USD'",
                "quantity": "5",
            },
        ),
    ),
    Attack("A stock row deleted", "privilege", "delete from stock;\n"),
    Attack(
        "A movement without a document",
        "stock_movement_has_one_document",
        insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "1",
                "value": "6",
            },
        ),
    ),
    Attack(
        "A movement appended to a goods receipt of an earlier transaction",
        "stock_movement_is_its_documents",
        insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch",
                "product_id": ":product2",
                "currency": "'USD'",
                "quantity": "1",
                "value": "2.5",
                "goods_receipt_id": ":receipt",
            },
        ),
    ),
    Attack(
        "A second movement of a product of a goods receipt",
        "stock_movement_receipt_once",
        insert(
            "stock_movement",
            {
                "org_id": ":org",
                "branch_id": ":branch2",
                "product_id": ":product",
                "currency": "'USD'",
                "quantity": "10",
                "value": "60",
                "goods_receipt_id": ":receipt",
            },
        ),
    ),
    Attack(
        "A goods receipt that brings in another quantity",
        "stock_movement_is_its_documents",
        receipt(movement={"quantity": "11"}),
    ),
    Attack(
        "A goods receipt that brings in another value",
        "stock_movement_is_its_documents",
        receipt(movement={"value": "61"}),
    ),
    Attack(
        "A goods receipt that brings its goods into another branch",
        "stock_movement_is_its_documents",
        receipt(movement={"branch_id": ":branch2"}),
    ),
    Attack(
        "A goods receipt that brings nothing in",
        "goods_receipt_stock_matches",
        receipt(without=("movement",)),
    ),
    Attack(
        "A goods receipt that takes goods out",
        "stock_movement_direction",
        receipt(movement={"quantity": "-10", "value": "-60"}),
    ),
    Attack(
        "A movement of goods in whose value goes out",
        "stock_movement_one_way",
        receipt(movement={"value": "-60"}),
    ),
    Attack(
        "A movement of nothing",
        "stock_movement_moves",
        sale(movement={"quantity": "0", "value": "0"}),
    ),
    Attack(
        "A movement of half a cent",
        "stock_movement_in_minor_units",
        receipt(movement={"value": "60.005"}),
    ),
    Attack(
        "A movement in another currency than its stock",
        "stock_movement_stock_known",
        receipt(movement={"currency": "'EUR'"}),
    ),
    Attack(
        "A movement that is not a number",
        "stock_movement_amounts_are_numbers",
        receipt(movement={"quantity": "'NaN'", "value": "'NaN'"}),
    ),
    Attack(
        "A movement of stock that the branch has not",
        "stock_movement_stock_known",
        receipt(movement={"product_id": "0"}),
    ),
    Attack(
        "A goods receipt whose total is not that of its lines",
        "goods_receipt_total_matches_lines",
        receipt(
            receipt={"total": "61"},
            entry_lines=((":inventory", "61", "0"), (":payables", "0", "61")),
        ),
    ),
    Attack(
        "A goods receipt that leaves a slot open for a later line",
        "goods_receipt_total_matches_lines",
        receipt(receipt={"line_count": "2"}),
    ),
    Attack(
        "A line appended to a goods receipt of an earlier transaction",
        "goods_receipt_line_in_its_slot",
        receipt(line={"receipt_id": ":receipt", "line_no": "2"}),
    ),
    Attack(
        "A line appended to a goods receipt, the number of lines forged",
        "goods_receipt_line_receipt_known",
        receipt(receipt={"line_count": "2"}, line={"receipt_id": ":receipt", "line_no": "2"}),
    ),
    Attack(
        "A second line in a slot that is taken",
        "goods_receipt_line_pk",
        receipt(line={"receipt_id": ":receipt"}),
    ),
    Attack(
        "A line whose value is not quantity times cost",
        "goods_receipt_line_value_right",
        receipt(line={"value": "59"}),
    ),
    Attack(
        "A line of a negative quantity",
        "goods_receipt_line_quantity_above_zero",
        receipt(line={"quantity": "-10", "value": "-60"}),
    ),
    Attack(
        "A line of a negative cost",
        "goods_receipt_line_cost_not_negative",
        receipt(line={"unit_cost": "-6", "value": "-60"}),
    ),
    Attack(
        "A line that is not a number",
        "goods_receipt_line_amounts_are_numbers",
        receipt(line={"unit_cost": "'NaN'", "value": "'NaN'"}),
    ),
    Attack(
        "A goods receipt that is not a number",
        "goods_receipt_amounts_are_numbers",
        receipt(receipt={"total": "'NaN'"}),
    ),
    Attack(
        "A line of a product that does not exist",
        "goods_receipt_line_product_known",
        receipt(line={"product_id": "0"}),
    ),
    Attack(
        "A goods receipt of no lines",
        "goods_receipt_has_lines",
        receipt(receipt={"line_count": "0"}, without=("line",)),
    ),
    Attack(
        "A goods receipt of a kind that there is not",
        "goods_receipt_kind_known",
        receipt(receipt={"kind": "'GIFT'"}),
    ),
    Attack(
        "A goods receipt of a negative total",
        "goods_receipt_total_not_negative",
        receipt(receipt={"total": "-60"}),
    ),
    Attack(
        "A goods receipt of half a cent",
        "goods_receipt_total_in_minor_units",
        receipt(receipt={"total": "60.005"}),
    ),
    Attack(
        "A goods receipt in another currency than the organisation's",
        "goods_receipt_currency_is_base",
        receipt(receipt={"currency": "'EUR'"}),
    ),
    Attack(
        "A goods receipt of a branch that does not exist",
        "goods_receipt_branch_known",
        receipt(receipt={"branch_id": "0"}),
    ),
    Attack(
        "A goods receipt by a user who does not exist",
        "goods_receipt_user_known",
        receipt(receipt={"received_by": "0"}),
    ),
    Attack(
        "A reference of 101 characters",
        "goods_receipt_text_not_long",
        receipt(receipt={"reference": "repeat('x', 101)"}),
    ),
    Attack(
        "A goods receipt without an entry",
        "goods_receipt_entry_matches",
        receipt(without=("entry",)),
    ),
    Attack(
        "A goods receipt without an entry, the tenant switched before COMMIT",
        "goods_receipt_entry_matches",
        receipt(without=("entry",), then=SWITCH),
    ),
    Attack(
        "A goods receipt booked against revenue",
        "goods_receipt_entry_matches",
        receipt(entry_lines=((":inventory", "60", "0"), (":revenue", "0", "60"))),
    ),
    Attack(
        "A goods receipt whose entry moves rent to wages on the side",
        "goods_receipt_entry_matches",
        receipt(
            entry_lines=(
                (":inventory", "60", "0"),
                (":payables", "0", "60"),
                (":rent", "5", "0"),
                (":wages", "0", "5"),
            )
        ),
    ),
)

BY_SLICE = {
    "The journal": JOURNAL,
    "Accounts and periods": ACCOUNTS,
    "Sales": SALES,
    "Payments and debts": PAYMENTS,
    "Voids": VOIDS,
    "Stock and goods receipts": STOCK,
    "Access": ACCESS,
    "Files": ATTACHMENTS,
    "Archives of the audit log": ARCHIVES,
    "Card payments": BILLING,
    "Mail": MAIL,
    "The portal": PORTAL,
    "Single rows": MASTER_DATA,
    "Events and deliveries": DELIVERIES,
}
__all__ = ["BY_SLICE", "PAYMENT", "VALID"]
