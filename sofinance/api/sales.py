"""Sales: posted whole, listed, summed up, taken back."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from sofinance import queries as q
from sofinance.infra import audit
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Exact, Id, LowerEmail, Money, PageQuery, Quantity, Timestamp
from sofinance.infra.http import Call, Routes, paged
from sofinance.rules import money
from sofinance.schemas import NewPayment, Payment

routes = Routes()

LINES_MAX = 500
PAYMENTS_MAX = 20
RANGE_DAYS_MAX = 365
TOP_PRODUCTS = 10
PAYMENT_TYPES = ["UNPAID", "PARTIAL", "FULL"]


class NewSaleLine(Schema):
    """What is sold; without a price, at the shelf price. Another one needs a permission."""

    product_id = Id(required=True)
    quantity = Quantity(required=True, sign="positive")
    unit_price = Money(load_default=None, allow_none=True, sign="not_negative")
    discount = Money(load_default=Decimal(0), sign="not_negative")


class NewSale(Schema):
    """A sale. What is not paid is owed by the customer: an id, or a name to create one by."""

    branch_id = Id(load_default=None, allow_none=True)
    till_id = Id(load_default=None, allow_none=True)
    client_sale_id = fields.UUID(load_default=None, allow_none=True)
    customer_id = Id(load_default=None, allow_none=True)
    customer_name = fields.Str(load_default=None, allow_none=True, validate=validate.Length(1, 200))
    customer_email = LowerEmail(
        load_default=None, allow_none=True, validate=validate.Length(max=254)
    )
    customer_phone = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(max=40)
    )
    items = fields.List(
        fields.Nested(NewSaleLine), required=True, validate=validate.Length(1, LINES_MAX)
    )
    discount = Money(load_default=Decimal(0), sign="not_negative")
    payments = fields.List(
        fields.Nested(NewPayment), load_default=list, validate=validate.Length(max=PAYMENTS_MAX)
    )
    sold_on = fields.Date(
        load_default=None,
        allow_none=True,
        metadata={"description": "Business date; another than today's needs sales:backdate."},
    )
    till_at = Timestamp(
        load_default=None, allow_none=True, metadata={"description": "The till's own clock."}
    )
    notes = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=1000))

    @validates_schema
    def one_customer(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse a customer by id and by name at once."""
        if data.get("customer_id") is not None and data.get("customer_name") is not None:
            raise ValidationError("Give customer_id or customer_name.", "customer_name")


class PostedSale(Schema):
    """A sale; amounts in its currency."""

    id = Id(required=True)
    receipt_number = fields.Str(required=True)
    receipt_no = fields.Int(required=True)
    branch_id = Id(required=True)
    branch_name = fields.Str(required=True)
    till_id = Id(required=True)
    till_name = fields.Str(required=True)
    client_sale_id = fields.UUID(required=True, allow_none=True)
    customer_id = Id(required=True, allow_none=True)
    customer_name = fields.Str(required=True, allow_none=True)
    cashier_id = Id(required=True)
    cashier_name = fields.Str(required=True)
    currency = fields.Str(required=True)
    prices_include_tax = fields.Bool(required=True)
    items_count = fields.Int(required=True)
    subtotal = Money(required=True)
    discount = Money(required=True)
    tax = Money(required=True)
    total = Money(required=True)
    paid_amount = Money(required=True)
    outstanding_amount = Money(required=True)
    payment_type = fields.Str(required=True, validate=validate.OneOf(PAYMENT_TYPES))
    status = fields.Str(required=True, validate=validate.OneOf(["COMPLETED", "VOIDED"]))
    sold_on = fields.Date(required=True)
    sold_at = Timestamp(required=True)
    till_at = Timestamp(required=True, allow_none=True)
    notes = fields.Str(required=True, allow_none=True)
    entry_id = Id(required=True, allow_none=True)


class SaleLine(Schema):
    """A line of a sale."""

    line_no = fields.Int(required=True)
    product_id = Id(required=True)
    product_sku = fields.Str(required=True)
    product_name = fields.Str(required=True)
    quantity = Quantity(required=True)
    list_price = Money(required=True)
    unit_price = Money(required=True)
    subtotal = Money(required=True)
    discount = Money(required=True)
    sale_discount = Money(required=True)
    tax_code = fields.Str(required=True)
    tax_rate_percent = Exact(required=True)
    tax = Money(required=True)
    total = Money(required=True)


class Sale(PostedSale):
    """A sale with its lines and payments."""

    items = fields.List(fields.Nested(SaleLine), required=True)
    payments = fields.List(fields.Nested(Payment), required=True)


class ListedSale(Schema):
    """A sale in a list."""

    id = Id(required=True)
    branch_id = Id(required=True)
    branch_name = fields.Str(required=True)
    till_id = Id(required=True)
    receipt_no = fields.Int(required=True)
    customer_id = Id(required=True, allow_none=True)
    cashier_id = Id(required=True)
    currency = fields.Str(required=True)
    items_count = fields.Int(required=True)
    discount = Money(required=True)
    tax = Money(required=True)
    total = Money(required=True)
    paid_amount = Money(required=True)
    outstanding_amount = Money(required=True)
    payment_type = fields.Str(required=True)
    status = fields.Str(required=True)
    sold_on = fields.Date(required=True)
    sold_at = Timestamp(required=True)


class SaleQuery(PageQuery):
    """Which sales; dates are business dates, both included."""

    branch_id = Id(load_default=None)
    customer_id = Id(load_default=None)
    start_date = fields.Date(load_default=None)
    end_date = fields.Date(load_default=None)
    payment_type = fields.Str(load_default=None, validate=validate.OneOf(PAYMENT_TYPES))
    include_voided = fields.Bool(load_default=False)


class NewVoid(Schema):
    """Why a sale is taken back."""

    reason = fields.Str(required=True, validate=validate.Length(1, 500))


class PostedVoid(Schema):
    """A sale that was taken back."""

    sale_id = Id(required=True)
    currency = fields.Str(required=True)
    total = Money(required=True)
    reason = fields.Str(required=True)
    voided_on = fields.Date(required=True)
    voided_by = Id(required=True)
    entry_id = Id(required=True, allow_none=True)


class Company(Schema):
    """Who sells, as printed on a receipt."""

    name = fields.Str(required=True)
    branch_name = fields.Str(required=True)
    address = fields.Str(required=True, allow_none=True)
    phone = fields.Str(required=True, allow_none=True)


class Receipt(Schema):
    """All that is printed on a receipt."""

    receipt_number = fields.Str(required=True)
    company_info = fields.Nested(Company, required=True)
    sale = fields.Nested(Sale, required=True)


class SummaryQuery(Schema):
    """Sales of which days and which branch."""

    range_days = fields.Int(load_default=30, validate=validate.Range(1, RANGE_DAYS_MAX))
    branch_id = Id(load_default=None)


class Summary(Schema):
    """Sales of some days, summed up, without voided ones."""

    range_days = fields.Int(required=True)
    period_start = fields.Date(required=True)
    period_end = fields.Date(required=True)
    currency = fields.Str(required=True)
    sales_count = fields.Int(required=True)
    gross_sales_total = Money(required=True)
    discount_total = Money(required=True)
    tax_total = Money(required=True)
    paid_total = Money(required=True)
    outstanding_total = Money(required=True)
    average_sale_value = Money(required=True)


class BranchQuery(Schema):
    """Which branch; without one, all."""

    branch_id = Id(load_default=None)


class TopProduct(Schema):
    """How much of a product was sold."""

    product_id = Id(required=True)
    product_sku = fields.Str(required=True)
    product_name = fields.Str(required=True)
    currency = fields.Str(required=True)
    quantity = Quantity(required=True)
    amount = Money(required=True)


class Today(Schema):
    """Today's sales, without voided ones."""

    date = fields.Date(required=True)
    currency = fields.Str(required=True)
    total_sales = fields.Int(required=True)
    total_revenue = Money(required=True)
    total_discount = Money(required=True)
    average_sale_value = Money(required=True)
    top_selling_products = fields.List(fields.Nested(TopProduct), required=True)


def numbered(sale: Any) -> dict[str, Any]:
    """Add the receipt number as it is printed: the till's name and its own number."""
    return {**sale, "receipt_number": f"{sale.till_name}-{sale.receipt_no:06}"}


async def whole_sale(call: Call) -> dict[str, Any]:
    """Get the sale of the path with its lines and all its payments."""
    sale = await q.sales.get_sale(call.conn, org_id=call.org_id, id=call.path["id"])
    lines = await q.sales.list_sale_lines(call.conn, org_id=call.org_id, sale_id=sale.id)
    payments = await q.payments.list_payments(
        call.conn, org_id=call.org_id, sale_id=sale.id, after_no=0, limit=LINES_MAX
    )
    return {**numbered(sale), "items": lines, "payments": payments}


async def base_currency(call: Call) -> str:
    """Return the organisation's own currency."""
    return str((await q.orgs.get_organisation(call.conn, org_id=call.org_id)).base_currency)


def average(total: Decimal, count: int, currency: str) -> Decimal:
    """Return the mean on the currency's smallest unit, or zero of nothing."""
    return money.quantize(total / count, currency) if count else Decimal(0)


@routes.endpoint(
    "POST", "/sales", permission="sales:write", body=NewSale(), returns=PostedSale(), status=201,
    location="/sales/{id}",
)  # fmt: skip
async def post_sale(call: Call) -> Any:
    """Post a sale whole: stock, tax, payments, receivable, cost of goods, books and receipt.

    Prices are the shelf prices; `unit_price` may differ with sales:override_price (403 otherwise).
    Refused by code: stock_not_negative (409, with what is available), payment_within_total,
    sale_credit_has_customer, customer_credit_limit (409), sale_discount_within_subtotal.
    """
    body = call.body
    branch_id = body["branch_id"] or call.branch_id
    if branch_id is None:
        raise ApiError(
            "branch_required", "Say which branch sells: branch_id or X-Branch-Id.", status=422,
        )  # fmt: skip
    if body["sold_on"] is not None and not call.allows("sales:backdate"):
        raise ApiError(
            "forbidden", "This needs the permission sales:backdate.", status=403,
            permission="sales:backdate",
        )  # fmt: skip
    customer_id = body["customer_id"]
    if customer_id is None and body["customer_name"] is not None:
        customer = await q.customers.create_customer(
            call.conn,
            org_id=call.org_id,
            name=body["customer_name"],
            email=body["customer_email"],
            phone=body["customer_phone"],
            address=None,
            customer_type="INDIVIDUAL",
            credit_limit=None,
            status="ACTIVE",
            notes=None,
        )
        customer_id = customer.id
        await audit.write(
            call, call.conn, org_id=call.org_id, user_id=call.user_id,
            session_id=call.principal.session_id, action="customers.create_customer",
            entity="customers", entity_id=customer_id, after={**customer},
        )  # fmt: skip
    items, payments = body["items"], body["payments"]
    sale = await q.sales.post_sale(
        call.conn,
        org_id=call.org_id,
        user_id=call.user_id,
        branch_id=branch_id,
        till_id=body["till_id"] or call.principal.till_id,
        customer_id=customer_id,
        client_sale_id=body["client_sale_id"],
        sold_on=body["sold_on"],
        till_at=body["till_at"],
        notes=body["notes"],
        discount=body["discount"],
        may_override=call.allows("sales:override_price"),
        product_ids=[item["product_id"] for item in items],
        quantities=[item["quantity"] for item in items],
        unit_prices=[item["unit_price"] for item in items],
        discounts=[item["discount"] for item in items],
        methods=[payment["method"] for payment in payments],
        currencies=[payment["currency"] for payment in payments],
        account_ids=[payment["account_id"] for payment in payments],
        amounts=[payment["amount"] for payment in payments],
        references=[payment["reference"] for payment in payments],
    )
    return numbered(sale)


@routes.endpoint(
    "GET", "/sales", permission="sales:read", query=SaleQuery(), returns=paged(ListedSale()),
    replica=True,
)  # fmt: skip
async def list_sales(call: Call) -> Any:
    """List sales, latest first; voided ones only with include_voided."""
    names = (
        "branch_id", "customer_id", "start_date", "end_date", "payment_type", "include_voided",
    )  # fmt: skip
    wanted = {name: call.query[name] for name in names}
    rows = await q.sales.list_sales(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset, **wanted
    )
    return rows, await q.sales.count_sales(call.conn, org_id=call.org_id, **wanted)


@routes.endpoint(
    "GET", "/sales/summary", permission="sales:read", query=SummaryQuery(), returns=Summary(),
    report=True, replica=True,
)  # fmt: skip
async def summarise_sales(call: Call) -> Any:
    """Sum up the sales of the last days, today included."""
    days, branch_id = call.query["range_days"], call.query["branch_id"]
    last = await q.branches.get_business_date(call.conn, org_id=call.org_id, branch_id=branch_id)
    first = last - timedelta(days=days - 1)
    sums = await q.sales.summarise_sales(
        call.conn, org_id=call.org_id, branch_id=branch_id, start_date=first, end_date=last
    )
    currency = await base_currency(call)
    return {
        **sums,
        "range_days": days,
        "period_start": first,
        "period_end": last,
        "currency": currency,
        "average_sale_value": average(sums.gross_sales_total, sums.sales_count, currency),
    }


@routes.endpoint(
    "GET", "/sales/today/summary", permission="sales:read", query=BranchQuery(), returns=Today(),
    report=True, replica=True,
)  # fmt: skip
async def summarise_today(call: Call) -> Any:
    """Sum up today's sales; today is the branch's, or without one the organisation's."""
    branch_id = call.query["branch_id"]
    date = await q.branches.get_business_date(call.conn, org_id=call.org_id, branch_id=branch_id)
    key = {"org_id": call.org_id, "branch_id": branch_id, "start_date": date, "end_date": date}
    sums = await q.sales.summarise_sales(call.conn, **key)
    currency = await base_currency(call)
    return {
        "date": date,
        "currency": currency,
        "total_sales": sums.sales_count,
        "total_revenue": sums.gross_sales_total,
        "total_discount": sums.discount_total,
        "average_sale_value": average(sums.gross_sales_total, sums.sales_count, currency),
        "top_selling_products": await q.sales.list_top_products(
            call.conn, **key, limit=TOP_PRODUCTS
        ),
    }


@routes.endpoint("GET", "/sales/{id}", permission="sales:read", returns=Sale(), report=True)
async def get_sale(call: Call) -> Any:
    """Get a sale with its lines and payments."""
    return await whole_sale(call)


@routes.endpoint(
    "GET", "/sales/{id}/receipt", permission="sales:read", returns=Receipt(), report=True
)
async def get_receipt(call: Call) -> Any:
    """Get all that is printed on the receipt of a sale; its number never changes."""
    sale = await whole_sale(call)
    org = await q.orgs.get_organisation(call.conn, org_id=call.org_id)
    branch = await q.branches.get_branch(call.conn, org_id=call.org_id, id=sale["branch_id"])
    return {
        "receipt_number": sale["receipt_number"],
        "company_info": {
            "name": org.name,
            "branch_name": branch.name,
            "address": branch.address,
            "phone": branch.phone,
        },
        "sale": sale,
    }


@routes.endpoint(
    "POST", "/sales/{id}/void", permission="sales:void", body=NewVoid(), returns=PostedVoid(),
)  # fmt: skip
async def void_sale(call: Call) -> Any:
    """Take a sale back whole, dated today: goods return, payments go back, the books reverse."""
    voided = await q.sales.void_sale(
        call.conn,
        org_id=call.org_id,
        user_id=call.user_id,
        sale_id=call.path["id"],
        reason=call.body["reason"],
    )
    call.audit(entity_id=voided.sale_id)
    return voided
