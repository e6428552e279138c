"""What the owner of the tables can do, who can switch every guard off, and which check finds it.

The honest claim about an owner is detection, not refusal. What no recomputation can see is a
change that leaves everything as right as before: both lines of a manual entry raised by the same
amount, before a snapshot of the balances remembers them. Backups elsewhere are for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.attacks.forgery import TODAY, entry, insert

# No trigger fires and no foreign key is looked at, and the catalogue does not show it afterwards.
ROLL_UP = "select mark_roll_up();\nselect roll_up_balances();\n"
HUSH = "set local session_replication_role = replica;\n"
GUARDS = "guards_stand"
LINKS = "links_lead_to_rows_of_the_same_organisation"


@dataclass(frozen=True)
class Corruption:
    """One corruption: what was done, every check that finds it, and what the first one names."""

    what: str
    found_by: tuple[str, ...]
    sql: str
    names: dict[str, str] = field(default_factory=dict)
    role: str = "superuser"


def weaken(table: str, *constraints: str) -> str:
    """Return the statements that drop constraints."""
    return "".join(f"alter table {table} drop constraint {name};\n" for name in constraints)


ROWS = (
    Corruption(
        "A debit raised by one unit",
        ("entries_balance",),
        HUSH + "update journal_line set debit = debit + 1 where entry_id = :entry and line_no = 1;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "A debit raised by the owner, who puts the trigger back afterwards",
        ("entries_balance",),
        "alter table journal_line disable trigger journal_line_is_final;\n"
        "update journal_line set debit = debit + 1 where entry_id = :entry and line_no = 1;\n"
        "alter table journal_line enable trigger journal_line_is_final;",
        {"entry_id": "entry"},
        role="sofinance_owner",
    ),
    Corruption(
        "A line deleted",
        ("entries_balance",),
        HUSH + "delete from journal_line where entry_id = :entry and line_no = 2;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "All lines of an entry deleted",
        ("entries_balance",),
        HUSH + "delete from journal_line where entry_id = :entry;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "An entry deleted under its lines",
        ("entries_balance", "lines_are_sound", LINKS),
        HUSH + "delete from journal_entry where id = :entry;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "A balanced pair of lines added to an entry",
        ("entries_balance", "lines_are_sound", LINKS),
        HUSH
        + insert(
            "journal_line",
            *(
                {
                    "org_id": ":org",
                    "entry_id": ":entry",
                    "line_no": no,
                    "line_count": "4",
                    "account_id": account,
                    "currency": "'USD'",
                    "debit": debit,
                    "credit": credit,
                }
                for no, account, debit, credit in (
                    ("3", ":wages", "7", "0"),
                    ("4", ":cash", "0", "7"),
                )
            ),
        ),
        {"entry_id": "entry"},
    ),
    Corruption(
        "Amounts made NaN on both sides",
        ("entries_balance", "lines_are_sound", GUARDS),
        weaken("journal_line", "journal_line_amounts_are_numbers")
        + HUSH
        + "update journal_line set debit = case when debit > 0 then 'NaN'::numeric else 0 end,"
        " credit = case when credit > 0 then 'NaN'::numeric else 0 end where entry_id = :entry;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "Both lines changed to half a cent",
        ("lines_are_sound", GUARDS),
        weaken("journal_line", "journal_line_in_minor_units")
        + HUSH
        + "update journal_line set debit = debit / 1000, credit = credit / 1000"
        " where entry_id = :entry;",
        {"entry_id": "entry", "line_no": "=1"},
    ),
    Corruption(
        "Both lines changed to another currency than their accounts'",
        ("lines_are_sound", LINKS),
        HUSH + "update journal_line set currency = 'EUR' where entry_id = :entry;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "An entry dated back into another period",
        ("entries_are_dated_in_their_period",),
        HUSH + "update journal_entry set posted_on = '2020-01-15' where id = :entry;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "A sale's entry passed off as a manual one",
        (
            "entries_have_their_document",
            "manual_entries_spare_control_accounts",
            "sales_match_their_entries",
            GUARDS,
        ),
        weaken("journal_entry", "journal_entry_has_its_document")
        + HUSH
        + "update journal_entry set kind = 'MANUAL' where id = :sale_entry;\n"
        "update journal_entry set sale_id = null where id = :sale_entry;\n"
        "update journal_entry set kind = 'SALE' where id = :entry;",
        {"entry_id": "entry"},
    ),
    Corruption(
        "A second entry of one sale",
        ("entries_have_their_document", "sales_match_their_entries", GUARDS),
        "drop index journal_entry_sale_once;\n"
        + HUSH
        + entry((":rent", "5", "0"), (":cash", "0", "5"), kind="'SALE'", sale_id=":sale"),
        {"document_id": "sale"},
    ),
    Corruption(
        "A reversal changed on both sides",
        ("reversals_mirror",),
        HUSH + "update journal_line set debit = debit * 2, credit = credit * 2"
        " where entry_id = :reversal;",
        {"entry_id": "reversal", "reverses_id": "reversed_entry"},
    ),
    Corruption(
        "A manual entry on the inventory account",
        ("manual_entries_spare_control_accounts", "stock_equals_its_account"),
        HUSH + entry((":inventory", "5", "0"), (":cash", "0", "5")),
        {"role": "=inventory"},
    ),
    Corruption(
        "A sale's entry changed, in balance",
        ("sales_match_their_entries",),
        HUSH + "update journal_line set debit = debit + 1"
        " where entry_id = :sale_entry and account_id = :cash;\n"
        "update journal_line set credit = credit + 1"
        " where entry_id = :sale_entry and account_id = :revenue;",
        {"sale_id": "sale"},
    ),
    Corruption(
        "A sale's entry deleted whole",
        ("sales_match_their_entries", "stock_equals_its_account"),
        HUSH + "delete from journal_line where entry_id = :sale_entry;\n"
        "delete from journal_entry where id = :sale_entry;",
        {"sale_id": "sale"},
    ),
    Corruption(
        "A sale dated on another day than its entry",
        ("payments_are_a_chain", "sales_match_their_entries"),
        HUSH + "update sale set sold_on = sold_on - 1 where id = :sale;",
        {"sale_id": "sale"},
    ),
    Corruption(
        "A sale's total raised",
        (
            "sales_are_the_sum_of_their_lines",
            "payments_are_a_chain",
            "receivables_follow_sales",
            "sales_match_their_entries",
            LINKS,
        ),
        HUSH + "update sale set subtotal = subtotal + 1, total = total + 1"
        " where id = :credit_sale;",
        {"sale_id": "credit_sale"},
    ),
    Corruption(
        "A sale's line deleted",
        ("sales_are_the_sum_of_their_lines", "movements_are_their_documents"),
        HUSH + "delete from sale_line where sale_id = :sale;",
        {"sale_id": "sale"},
    ),
    Corruption(
        "A line's tax forged, and its sale's with it",
        ("sale_lines_add_up", "payments_are_a_chain", "sales_match_their_entries", LINKS, GUARDS),
        weaken("sale_line", "sale_line_tax_right")
        + HUSH
        + "update sale_line set tax = 0, total = total - tax where sale_id = :sale;\n"
        "update sale set tax = 0, total = total - tax, paid = paid - tax where id = :sale;",
        {"sale_id": "sale"},
    ),
    Corruption(
        "A till payment deleted",
        ("payments_are_a_chain", "sales_match_their_entries"),
        HUSH + "delete from payment where id = :till_payment;",
        {"sale_id": "sale"},
    ),
    Corruption(
        "A later payment lowered",
        ("receivables_follow_sales", "payments_match_their_entries"),
        HUSH + "update payment set amount = amount - 1 where id = :later_payment;",
        {"sale_id": "settled_sale"},
    ),
    Corruption(
        "A payment that begins elsewhere",
        ("payments_are_a_chain", "receivables_follow_sales", "payments_match_their_entries", LINKS),
        HUSH + "update payment set paid_before = paid_before - 1, amount = amount + 1"
        " where id = :later_payment;",
        {"sale_id": "settled_sale", "payment_no": "=2"},
    ),
    Corruption(
        "A payment sent to an account that takes no money",
        ("payments_are_a_chain", "payments_match_their_entries", LINKS),
        HUSH + "update payment set account_id = :rent where id = :later_payment;",
        {"sale_id": "settled_sale"},
    ),
    Corruption(
        "A debt written off quietly",
        ("receivables_follow_sales", "receivables_equal_their_account"),
        HUSH + "update receivable set cancelled = cancelled + 1 where sale_id = :credit_sale;",
        {"sale_id": "credit_sale"},
    ),
    Corruption(
        "A debt deleted",
        ("receivables_follow_sales", "receivables_equal_their_account"),
        HUSH + "delete from receivable where sale_id = :credit_sale;",
        {"sale_id": "credit_sale"},
    ),
    Corruption(
        "A receivables account moved by a document's entry",
        ("receivables_equal_their_account", "payments_match_their_entries"),
        HUSH + "update journal_line set debit = debit * 2, credit = credit * 2 where entry_id ="
        " (select id from journal_entry where payment_id = :later_payment);",
    ),
    Corruption(
        "Stock changed in quantity",
        ("stock_is_its_movements",),
        HUSH + "update stock set quantity = quantity + 5"
        " where branch_id = :branch and product_id = :product;",
        {"branch_id": "branch", "product_id": "product"},
    ),
    Corruption(
        "Stock revalued",
        ("stock_is_its_movements", "stock_equals_its_account"),
        HUSH + "update stock set value = value + 5"
        " where branch_id = :branch and product_id = :product;",
        {"branch_id": "branch", "product_id": "product"},
    ),
    Corruption(
        "Stock below zero",
        ("stock_is_its_movements", GUARDS),
        weaken("stock", "stock_not_negative", "stock_value_has_quantity")
        + HUSH
        + "update stock set quantity = -1 where branch_id = :branch and product_id = :product;",
        {"branch_id": "branch", "product_id": "product"},
    ),
    Corruption(
        "A sale's movement changed, and the stock with it",
        ("movements_are_their_documents", "stock_was_issued_at_cost"),
        HUSH + "update stock_movement set quantity = quantity - 1 where sale_id = :sale;\n"
        "update stock set quantity = quantity - 1"
        " where branch_id = :branch and product_id = :product;",
        {"document_id": "sale", "product_id": "product"},
    ),
    Corruption(
        "A movement deleted, and the stock with it",
        ("movements_are_their_documents", "stock_equals_its_account", "sales_match_their_entries"),
        HUSH + "delete from stock_movement where sale_id = :sale;\n"
        "update stock set quantity = quantity + 1, value = value + 6"
        " where branch_id = :branch and product_id = :product;",
        {"document_id": "sale", "product_id": "product"},
    ),
    Corruption(
        "An issue, its stock and its entry changed to another cost, in agreement",
        ("stock_was_issued_at_cost",),
        HUSH + "update stock_movement set value = value + 1 where sale_id = :credit_sale;\n"
        "update stock set value = value + 1 where branch_id = :branch and product_id = :product;\n"
        "update journal_line set debit = greatest(debit - 1, 0), credit = greatest(credit - 1, 0)"
        " where account_id in (:cogs, :inventory) and entry_id ="
        " (select id from journal_entry where sale_id = :credit_sale);",
        {"branch_id": "branch", "product_id": "product"},
    ),
    Corruption(
        "A goods receipt's line changed",
        ("receipts_are_the_sum_of_their_lines", "movements_are_their_documents"),
        HUSH + "update goods_receipt_line set quantity = 11, value = 66"
        " where receipt_id = :receipt;",
        {"goods_receipt_id": "receipt"},
    ),
    Corruption(
        "A goods receipt's entry deleted",
        ("stock_equals_its_account", "receipts_match_their_entries"),
        HUSH + "delete from journal_line where entry_id ="
        " (select id from journal_entry where goods_receipt_id = :receipt);\n"
        "delete from journal_entry where goods_receipt_id = :receipt;",
    ),
    Corruption(
        "A goods receipt's entry booked to another account, in balance",
        ("receipts_match_their_entries",),
        HUSH + "update journal_line set account_id = :opening_equity"
        " where account_id = :payables and entry_id ="
        " (select id from journal_entry where goods_receipt_id = :receipt);",
        {"goods_receipt_id": "receipt"},
    ),
    Corruption(
        "A sale called void, and nothing taken back",
        ("movements_are_their_documents", "voids_match_their_entries"),
        HUSH
        + insert(
            "sale_void",
            {
                "org_id": ":org",
                "sale_id": ":sale",
                "reason": "'x'",
                "voided_on": TODAY,
                "voided_by": ":user",
            },
        ),
        {"document_id": "sale"},
    ),
    Corruption(
        "A void forgotten",
        (
            "receivables_follow_sales",
            "movements_are_their_documents",
            "voids_match_their_entries",
            LINKS,
        ),
        HUSH + "delete from sale_void where sale_id = :void_sale;",
        {"sale_id": "void_sale"},
    ),
    Corruption(
        "A void's entry changed, in balance",
        ("voids_match_their_entries", "stock_equals_its_account"),
        HUSH + "update journal_line set debit = debit + 1 where account_id = :revenue"
        " and entry_id = (select id from journal_entry where void_sale_id = :void_sale);\n"
        "update journal_line set debit = debit - 1 where account_id = :inventory"
        " and entry_id = (select id from journal_entry where void_sale_id = :void_sale);",
        {"sale_id": "void_sale"},
    ),
    Corruption(
        "A receipt number changed",
        ("receipt_numbers_have_no_holes", LINKS),
        HUSH + "update sale set receipt_no = receipt_no + 10 where id = :free_sale;",
        {"till_id": "till"},
    ),
    Corruption(
        "The last sale of a till made to vanish, books, stock and all",
        ("receipt_numbers_have_no_holes",),
        HUSH + "delete from stock_movement where sale_id = :free_sale;\n"
        "update stock set quantity = quantity + 1"
        " where branch_id = :branch and product_id = :sample;\n"
        "delete from sale_line where sale_id = :free_sale;\n"
        "delete from sale where id = :free_sale;",
        {"till_id": "till"},
    ),
    Corruption(
        "A till's count raised",
        ("receipt_numbers_have_no_holes",),
        "update till set receipt_count = receipt_count + 1 where id = :till2;",
        {"till_id": "till2"},
    ),
    Corruption(
        "A balance's snapshot changed",
        ("snapshots_are_the_journal",),
        ROLL_UP + "update account_day set debit = debit + 1 where account_id = :cash;",
        {"account_id": "cash"},
    ),
    Corruption(
        "A balance's snapshot deleted",
        ("snapshots_are_the_journal",),
        ROLL_UP + "delete from account_day where account_id = :cash;",
        {"account_id": "cash"},
    ),
    Corruption(
        "Both lines of a manual entry raised alike, which only a snapshot remembers",
        ("snapshots_are_the_journal",),
        ROLL_UP + HUSH + "update journal_line set debit = debit * 2, credit = credit * 2"
        " where entry_id = :entry;",
        {"account_id": "cash"},
    ),
    Corruption(
        "A user's address led to another user",
        ("users_sign_in_where_they_belong",),
        HUSH + "update sign_in_address set org_id = :other_org, user_id = 0 where user_id = :user;",
        {"user_id": "user"},
    ),
    Corruption(
        "A sale linked to a customer of another organisation",
        (LINKS,),
        HUSH + "update sale set customer_id = :other_customer where id = :sale;",
        {"link": "=sale.sale_customer_known", "customer_id": "other_customer"},
    ),
    Corruption(
        "A product deleted that was sold",
        (LINKS,),
        HUSH + "delete from product where id = :product3;",
        {"product_id": "product3"},
    ),
    Corruption(
        "An audit row given to a user of another organisation, the foreign key dropped",
        (LINKS, GUARDS),
        weaken("audit_log", "audit_log_user_known")
        + HUSH
        + "update audit_log set user_id = :other_user;",
        {"link": "=audit_log.audit_log_user_known", "user_id": "other_user"},
    ),
)

GUARD_NAMES = (
    Corruption(
        "A constraint dropped",
        (GUARDS,),
        weaken("journal_line", "journal_line_one_sided"),
        {"name": "=journal_line.journal_line_one_sided", "is": "=missing"},
        role="sofinance_owner",
    ),
    Corruption(
        "A constraint put back without looking at the rows",
        (GUARDS,),
        weaken("stock", "stock_not_negative")
        + "alter table stock add constraint stock_not_negative check (quantity >= 0) not valid;",
        {"name": "=stock.stock_not_negative"},
        role="sofinance_owner",
    ),
    Corruption(
        "A constraint put back weaker",
        (GUARDS,),
        weaken("payment", "payment_within_total")
        + "alter table payment add constraint payment_within_total check (true);",
        {"name": "=payment.payment_within_total"},
        role="sofinance_owner",
    ),
    Corruption(
        "A unique index dropped",
        (GUARDS,),
        "drop index journal_entry_sale_once;",
        {"name": "=journal_entry.journal_entry_sale_once"},
        role="sofinance_owner",
    ),
    Corruption(
        "A column that may be empty now",
        (GUARDS,),
        "alter table journal_line alter column account_id drop not null;",
        {"name": "=journal_line.account_id"},
        role="sofinance_owner",
    ),
    Corruption(
        "A trigger dropped",
        (GUARDS,),
        "drop trigger journal_line_is_final on journal_line;",
        {"name": "=journal_line.journal_line_is_final", "is": "=missing"},
        role="sofinance_owner",
    ),
    Corruption(
        "A trigger disabled",
        (GUARDS,),
        "alter table journal_entry disable trigger journal_entry_balances;",
        {"name": "=journal_entry.journal_entry_balances"},
        role="sofinance_owner",
    ),
    Corruption(
        "All triggers disabled, those of foreign keys too",
        (GUARDS,),
        "alter table category disable trigger all;",
        {"guard": "=trigger"},
    ),
    Corruption(
        "A trigger added",
        (GUARDS,),
        "create trigger cover before insert on journal_line for each row execute function"
        " suppress_redundant_updates_trigger();",
        {"name": "=journal_line.cover", "should_be": "=absent"},
        role="sofinance_owner",
    ),
    Corruption(
        "A rule's function that refuses nothing any more",
        (GUARDS,),
        "create or replace function journal_entry_balances() returns trigger language plpgsql"
        " security definer set search_path = pg_catalog, public as 'begin return null; end';",
        {"name": "=journal_entry_balances()"},
        role="sofinance_owner",
    ),
    Corruption(
        "A rule's function that looks in the caller's schemas",
        (GUARDS,),
        "alter function sale_entry_matches() reset search_path;",
        {"name": "=sale_entry_matches()"},
        role="sofinance_owner",
    ),
    Corruption(
        "A function with the owner's rights, for everybody",
        (GUARDS,),
        "create function open_sesame() returns void language sql security definer as 'select';\n"
        "grant execute on function open_sesame() to public;",
        {"name": "=open_sesame()", "should_be": "=absent"},
        role="sofinance_owner",
    ),
    Corruption(
        "Row security switched off",
        (GUARDS,),
        "alter table sale disable row level security;",
        {"guard": "=row security", "name": "=sale", "is": "=OFF"},
        role="sofinance_owner",
    ),
    Corruption(
        "Row security that spares the owner",
        (GUARDS,),
        "alter table sale no force row level security;",
        {"guard": "=row security", "name": "=sale"},
        role="sofinance_owner",
    ),
    Corruption(
        "A policy that lets everybody in",
        (GUARDS,),
        "create policy open on customer using (true);",
        {"guard": "=policy", "name": "=customer.open"},
        role="sofinance_owner",
    ),
    Corruption(
        "A policy that fails open",
        (GUARDS,),
        "drop policy org on customer;\n"
        "create policy org on customer using (org_id ="
        " coalesce(current_setting('app.org_id', true)::bigint, org_id));",
        {"guard": "=policy", "name": "=customer.org"},
        role="sofinance_owner",
    ),
    Corruption(
        "A right given to the application",
        (GUARDS,),
        "grant update (debit) on journal_line to sofinance_app;",
        {"guard": "=right", "name": "=journal_line (columns) sofinance_app"},
        role="sofinance_owner",
    ),
    Corruption(
        "A right given to everybody",
        (GUARDS,),
        "grant select on sign_in_address to public;",
        {"guard": "=right", "name": "=sign_in_address public"},
        role="sofinance_owner",
    ),
    Corruption(
        "A table given to the application",
        (GUARDS,),
        "alter table receivable owner to sofinance_app;",
        {"guard": "=owner", "name": "=receivable"},
    ),
)
