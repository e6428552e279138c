"""The demo organisation of `sofinance dev`: a small retailer, its stock, and a day of sales.

Only what the API has no call for yet, the organisation and its users, is written past it. Each
step looks first for what is there, so that a demo that was cut short is completed.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import uuid
from collections import defaultdict
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra.db import ALL_BRANCHES, Database, Mode
from sofinance.infra.passwords import hash_password
from sofinance.tools.client import Client, RefusedError, ensure, for_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sofinance.config import Settings

NAME = "Harbour Market"
CURRENCY, TIME_ZONE = "USD", "UTC"
TAX_PERCENT = Decimal(15)
CREDIT_LIMIT = Decimal(500)
ADMIN_EMAIL = "admin@harbour-market.example"
CASHIER_EMAIL = "cashier@harbour-market.example"
PASSWORD_LENGTH = 16
NAMESPACE = uuid.UUID("5c0e7d0a-3d8b-5c1f-8f43-2b1f6a9d7e55")
# The same day of sales for everybody.
SEED = 20_260_105
SALES_PER_TILL = 12
STOCK_QUANTITY = 60
AT_ONCE = 6

BRANCHES = {
    "Main Street": ("1 Main Street", ["Till 2"]),
    "Riverside": ("28 Quay Road", ["Till 2"]),
    "Station": ("Platform 1, Central Station", []),
}
# Category, then name, price; the cost is two thirds of the price.
PRODUCTS = """
Bakery | White bread 800 g 2.20 | Rye bread 500 g 3.40 | Butter croissant 1.60 | Cinnamon roll 1.90
Bakery | Baguette 1.80 | Apple pie 6.50
Dairy | Whole milk 1 l 1.25 | Oat drink 1 l 2.10 | Salted butter 250 g 3.20 | Cheddar 400 g 5.40
Dairy | Plain yoghurt 500 g 1.95 | Free range eggs, 12 4.30
Fruit and vegetables | Bananas 1 kg 1.70 | Apples 1 kg 2.90 | Tomatoes 500 g 2.40
Fruit and vegetables | Potatoes 2 kg 3.10 | Onions 1 kg 1.30 | Avocado 1.45 | Lemons, 4 2.00
Drinks | Still water 1.5 l 0.95 | Orange juice 1 l 3.30 | Cola 330 ml 1.10
Drinks | Ground coffee 250 g 6.90 | Green tea, 20 bags 2.80
Drinks | Lager 500 ml 2.30 | Red wine 750 ml 11.50
Pantry | Spaghetti 500 g 1.60 | Basmati rice 1 kg 3.70 | Olive oil 500 ml 8.90 | Sea salt 1 kg 1.05
Pantry | Honey 350 g 5.80 | Strawberry jam 340 g 3.25 | Dark chocolate 100 g 2.60
Household | Dish soap 500 ml 2.35 | Laundry powder 2 kg 12.40 | Toilet paper, 8 5.95
Household | Kitchen towels, 4 4.20 | Light bulb 9 W 3.99 | AA batteries, 4 5.49
Frozen | Garden peas 750 g 2.75 | Fish fingers, 10 4.85 | Vanilla ice cream 1 l 5.25
"""
CUSTOMERS = {
    "amara.okafor@example.com": ("Amara Okafor", "INDIVIDUAL"),
    "jonas.lind@example.com": ("Jonas Lind", "INDIVIDUAL"),
    "mei.tanaka@example.com": ("Mei Tanaka", "INDIVIDUAL"),
    "diego.ramos@example.com": ("Diego Ramos", "INDIVIDUAL"),
    "orders@quayside-cafe.example": ("Quayside Café", "COMPANY"),
    "office@northwind-school.example": ("Northwind School", "COMPANY"),
}


@dataclass(frozen=True)
class SignIn:
    """An address and its password."""

    email: str
    password: str


@dataclass(frozen=True)
class Person:
    """Somebody who signs in, and what they may do."""

    sign_in: SignIn
    first_name: str
    last_name: str
    role: str


@dataclass(frozen=True)
class DemoAccounts:
    """The organisation's name, and who may sign in to it."""

    organisation: str
    admin: SignIn
    cashier: SignIn


@dataclass(frozen=True)
class Plan:
    """A sale of the demo's day: what is sold, how it is paid, and what happens to it later."""

    number: int
    till: tuple[str, int]
    items: tuple[tuple[str, int], ...]
    customer: str | None = None
    payments: tuple[tuple[str, Decimal], ...] = ()
    paid_later: Decimal = Decimal(0)
    void_reason: str = ""


async def create_demo(settings: Settings, base_url: str, *, empty: bool) -> DemoAccounts:
    """Make the demo organisation, or complete it; ``empty`` leaves out all but its users."""
    accounts = DemoAccounts(
        NAME,
        SignIn(ADMIN_EMAIL, password_of(settings, "admin")),
        SignIn(CASHIER_EMAIL, password_of(settings, "cashier")),
    )
    await found(
        settings,
        name=NAME,
        time_zone=TIME_ZONE,
        tax_percent=TAX_PERCENT,
        people=[
            Person(accounts.admin, "Ada", "Marin", "ADMIN"),
            Person(accounts.cashier, "Sam", "Adeyemi", "CASHIER"),
        ],
    )
    if empty:
        return accounts
    products = catalogue()
    async with (
        Client(base_url, email=ADMIN_EMAIL, password=accounts.admin.password) as admin,
        Client(base_url, email=CASHIER_EMAIL, password=accounts.cashier.password) as cashier,
    ):
        ids = await stock_shelves(admin, products)
        await sell(admin, cashier, plan_day(products), ids)
    return accounts


def password_of(settings: Settings, who: str) -> str:
    """Return a password that is the same in every run on this data, and no other's."""
    secret = settings.jwt_secret.encode()
    return hmac.digest(secret, f"demo {who}".encode(), hashlib.sha256).hex()[:PASSWORD_LENGTH]


async def found(
    settings: Settings,
    *,
    name: str,
    time_zone: str,
    tax_percent: Decimal,
    people: Sequence[Person],
) -> None:
    """Create an organisation and its users, past the API; the first is its administrator."""
    database = Database(settings)
    await database.open()
    try:
        admin, *others = people
        async with database.untenanted() as conn:
            if await q.auth.find_sign_in(conn, email=admin.sign_in.email) is not None:
                return
        hashes = [await hash_password(person.sign_in.password) for person in people]
        # In one transaction: who founds an organisation may give what nobody has yet.
        async with database.untenanted(mode=Mode.WRITE) as conn:
            made = await q.orgs.create_organisation(
                conn,
                name=name,
                base_currency=CURRENCY,
                time_zone=time_zone,
                prices_include_tax=False,
                standard_tax_percent=tax_percent,
                default_credit_limit=CREDIT_LIMIT,
                admin_email=admin.sign_in.email,
                admin_password_hash=hashes[0],
                admin_first_name=admin.first_name,
                admin_last_name=admin.last_name,
            )
            await q.request.set_tenant(
                conn,
                org_id=made.org_id,
                user_id=None,
                branch_ids=ALL_BRANCHES,
                statement_timeout_ms=database.statement_timeout_ms,
                lock_timeout_ms=database.statement_timeout_ms,
            )
            for person, password_hash in zip(others, hashes[1:], strict=True):
                await q.users.create_user(
                    conn,
                    org_id=made.org_id,
                    email=person.sign_in.email,
                    password_hash=password_hash,
                    first_name=person.first_name,
                    last_name=person.last_name,
                    role=person.role,
                    all_branches=True,
                    must_change_password=False,
                )
    finally:
        await database.close()


# -- the shop ------------------------------------------------------------------------------------


def catalogue() -> dict[str, dict[str, str]]:
    """Return the products by SKU, as the API takes them; `category` is still a name."""
    found: dict[str, dict[str, str]] = {}
    counts: dict[str, int] = defaultdict(int)
    for line in PRODUCTS.strip().splitlines():
        category, *wares = (part.strip() for part in line.split("|"))
        for ware in wares:
            name, _, price = ware.rpartition(" ")
            counts[category] += 1
            sku = f"{category[:3].upper()}-{counts[category]:03}"
            cost = half_up(Decimal(price) * 2 / 3)
            found[sku] = {
                "sku": sku, "name": name, "category": category, "price": price, "cost": str(cost)
            }  # fmt: skip
    return found


async def stock_shelves(admin: Client, products: dict[str, dict[str, str]]) -> dict[Any, int]:
    """Make branches, tills, catalogue, customers and opening stock; return ids by name or key."""
    codes = {row["code"]: row["id"] for row in await admin.list_all("/tax-codes")}
    branches = await ensure(
        admin, "/branches", "name",
        {name: {"name": name, "address": address} for name, (address, _) in BRANCHES.items()},
        at_once=AT_ONCE, quiet=True,
    )  # fmt: skip
    categories = await ensure(
        admin, "/categories", "name",
        {product["category"]: {"name": product["category"]} for product in products.values()},
        at_once=AT_ONCE, quiet=True,
    )  # fmt: skip
    wanted = {
        sku: {
            "tax_code_id": codes["STD"],
            "category_id": categories[product["category"]],
            **{name: product[name] for name in ("sku", "name", "price", "cost")},
        }
        for sku, product in products.items()
    }
    ids: dict[Any, int] = {**branches}
    ids |= await ensure(admin, "/products", "sku", wanted, at_once=AT_ONCE, quiet=True)
    ids |= await ensure(
        admin, "/customers", "email",
        {
            email: {"name": name, "email": email, "customer_type": kind}
            for email, (name, kind) in CUSTOMERS.items()
        },
        at_once=AT_ONCE, quiet=True,
    )  # fmt: skip
    entries = await admin.list_all("/journal/entries", entry_type="GOODS_RECEIPT")
    received = {entry["memo"] for entry in entries}
    for branch, (_, more_tills) in BRANCHES.items():
        path = f"/branches/{branches[branch]}/tills"
        for name in more_tills:
            if name not in {till["name"] for till in (await admin.get(path))["items"]}:
                await admin.post(path, {"name": name})
        tills = sorted((await admin.get(path))["items"], key=lambda till: str(till["name"]))
        ids |= {(branch, number): till["id"] for number, till in enumerate(tills)}
        reference = f"Opening stock, {branch}"
        if reference not in received:
            lines = [
                {"product_id": ids[sku], "quantity": STOCK_QUANTITY, "unit_cost": product["cost"]}
                for sku, product in products.items()
            ]
            receipt = {
                "branch_id": ids[branch], "kind": "OPENING", "reference": reference,
                "supplier_name": None, "lines": lines,
            }  # fmt: skip
            await admin.post("/inventory/receipts", receipt, key=f"demo {reference}")
    return ids


# -- the day -------------------------------------------------------------------------------------


def plan_day(products: dict[str, dict[str, str]]) -> list[Plan]:
    """Return the sales of the day: mostly cash and card, some owed, one a mistake."""
    chance = random.Random(SEED)  # noqa: S311 - the same for everybody, that is the point
    tills = [(branch, n) for branch, (_, more) in BRANCHES.items() for n in range(1 + len(more))]
    plans: list[Plan] = []
    for number in range(SALES_PER_TILL * len(tills)):
        skus = chance.sample(sorted(products), chance.randint(1, 6))
        items = tuple((sku, chance.choice((1, 1, 1, 2, 3))) for sku in skus)
        total = total_of(items, products)
        customer = chance.choice(sorted(CUSTOMERS))
        plan: dict[str, Any] = {
            "number": number,
            "till": tills[number % len(tills)],
            "items": items,
        }
        match number % 10:
            case 3:  # on account, and paid later by bank
                plan |= {"customer": customer, "paid_later": total}
            case 6:  # half now, a quarter later, the rest is still owed
                now = half_up(total / 2)
                plan |= {
                    "customer": customer,
                    "payments": (("CASH", now),),
                    "paid_later": half_up(total / 4),
                }
            case 8:  # on account
                plan |= {"customer": customer}
            case 5:  # two ways of paying
                cash = half_up(total / 3)
                plan |= {"payments": (("CASH", cash), ("CARD", total - cash))}
            case 1 | 4 | 9:
                plan |= {"payments": (("CARD", total),)}
            case _:
                plan |= {"payments": (("CASH", total),)}
        if number == 2:
            plan |= {"void_reason": "Rung up twice."}
        plans.append(Plan(**plan))
    return plans


def total_of(items: tuple[tuple[str, int], ...], products: dict[str, dict[str, str]]) -> Decimal:
    """Return what the items come to with tax, which is rounded for each line."""
    net = [quantity * Decimal(products[sku]["price"]) for sku, quantity in items]
    return sum((amount + half_up(amount * TAX_PERCENT / 100) for amount in net), Decimal(0))


async def sell(admin: Client, cashier: Client, plans: list[Plan], ids: dict[Any, int]) -> None:
    """Post the day's sales as the cashier, till by till, then what happens to them later."""
    by_till: dict[tuple[str, int], list[Plan]] = defaultdict(list)
    for plan in plans:
        by_till[plan.till].append(plan)

    async def run_till(queue: list[Plan]) -> None:
        for plan in queue:
            sale_id = await post_sale(cashier, plan, ids)
            await follow_up(admin, cashier, plan, sale_id)

    await for_each(by_till.values(), run_till, at_once=AT_ONCE)


async def post_sale(cashier: Client, plan: Plan, ids: dict[Any, int]) -> int:
    """Post one sale, or find that it is posted; return its id."""
    client_sale_id = str(uuid.uuid5(NAMESPACE, str(plan.number)))
    body = {
        "branch_id": ids[plan.till[0]],
        "till_id": ids[plan.till],
        "client_sale_id": client_sale_id,
        "customer_id": None if plan.customer is None else ids[plan.customer],
        "items": [{"product_id": ids[sku], "quantity": quantity} for sku, quantity in plan.items],
        "payments": [{"method": method, "amount": str(paid)} for method, paid in plan.payments],
    }
    try:
        return int((await cashier.post("/sales", body, key=f"demo {client_sale_id}")).data["id"])
    except RefusedError as refused:
        if refused.code != "sale_client_sale_taken":
            raise
        return int(refused.details["sale_id"])


async def follow_up(admin: Client, cashier: Client, plan: Plan, sale_id: int) -> None:
    """Post the later payment or the void, unless the sale shows that it is done."""
    path = f"/sales/{sale_id}"
    if plan.paid_later:
        sale = await cashier.get(path)
        paid_now = sum((amount for _, amount in plan.payments), Decimal(0))
        if Decimal(sale["paid_amount"]) == paid_now:
            body = {"method": "BANK_TRANSFER", "amount": str(plan.paid_later)}
            await cashier.post(f"{path}/payments", body, key=f"demo payment {plan.number}")
    if plan.void_reason and (await admin.get(path))["status"] != "VOIDED":
        await admin.post(f"{path}/void", {"reason": plan.void_reason}, key=f"demo {plan.number}")


def half_up(amount: Decimal) -> Decimal:
    """Round half up to the cent."""
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)
