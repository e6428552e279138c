"""`sofinance import completejourney`: a real grocer's baskets, posted over HTTP as tills would."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from sofinance.infra.command import (
    EXIT_FAILED,
    EXIT_GOOD,
    database_options,
    settings_from,
)
from sofinance.tools import completejourney, grocer
from sofinance.tools.client import PATIENCE_S, Client

if TYPE_CHECKING:
    from datetime import date

    from sofinance.tools.completejourney import Selection
    from sofinance.tools.grocer import Outcome

URL = "http://127.0.0.1:8000"
# Enough to keep a server with two cores busy, and one for each of its pool's connections.
CONCURRENCY = 8
CONCURRENCY_MAX = 64
MARGIN_PERCENT = Decimal(30)
# A wrong URL shows at once; later on the service may be away for as long as --patience.
FIRST_PATIENCE_S = 3.0
REFUSALS_SHOWN_MAX = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("import", help="post what another system or data set holds")
    sources = parser.add_subparsers(title="sources", metavar="SOURCE", required=True)
    source = sources.add_parser(
        "completejourney",
        help="a year of a real grocer's tills",
        description="Post the baskets of The Complete Journey over HTTP as tills would, several "
        "at a time. Running it again posts nothing twice and completes what was cut short. Ends "
        "with 1 if what the ledger received is not what the data says. Needs sofinance[demo].",
    )
    add_selection(source)
    source.add_argument("--url", default=os.environ.get("SOFINANCE_URL", URL), help=f"({URL})")
    source.add_argument(
        "--email", default=os.environ.get("SOFINANCE_EMAIL", ""),
        help="of the administrator who posts (SOFINANCE_EMAIL)",
    )  # fmt: skip
    source.add_argument(
        "--password", default=os.environ.get("SOFINANCE_PASSWORD", ""),
        help="better given as SOFINANCE_PASSWORD: others can read a running program's arguments",
    )  # fmt: skip
    source.add_argument(
        "--token", default=os.environ.get("SOFINANCE_TOKEN", ""),
        help="an access token instead (SOFINANCE_TOKEN)",
    )  # fmt: skip
    source.add_argument(
        "--patience", type=float, default=PATIENCE_S, metavar="SECONDS",
        help=f"how long to try again while the service does not answer ({PATIENCE_S})",
    )  # fmt: skip
    database_options(source)
    source.set_defaults(run=run)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is imported, and how; `make demo` takes the same."""
    parser.add_argument(
        "--weeks", type=week_range, default=(1, 2), metavar="A-B",
        help="weeks of 2017, 1 to 53, both ends included (1-2)",
    )  # fmt: skip
    parser.add_argument(
        "--baskets", type=whole(1, 200_000), metavar="N", help="only the first N baskets of them"
    )
    parser.add_argument(
        "--margin", type=margin, default=MARGIN_PERCENT, metavar="PERCENT",
        help=f"the assumed margin: cost is the shelf price less this ({MARGIN_PERCENT})",
    )  # fmt: skip
    parser.add_argument(
        "--concurrency", type=whole(1, CONCURRENCY_MAX), default=CONCURRENCY, metavar="N",
        help=f"how many calls at a time ({CONCURRENCY})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def week_range(text: str) -> tuple[int, int]:
    """Return the first and the last week of "1-2" or "7"."""
    first, _, last = text.partition("-")
    low, high = completejourney.WEEK_MIN, completejourney.WEEK_MAX
    try:
        weeks = int(first), int(last or first)
    except ValueError:
        weeks = 0, 0
    if not low <= weeks[0] <= weeks[1] <= high:
        raise argparse.ArgumentTypeError(f"weeks are {low} to {high}, such as 1-2, not {text!r}")
    return weeks


def whole(low: int, high: int) -> Any:
    """Return a parser of whole numbers within bounds."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and low <= int(text[:20]) <= high):
            raise argparse.ArgumentTypeError(f"a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return parse


def margin(text: str) -> Decimal:
    """Return a percentage from 0 to below 100."""
    try:
        percent = Decimal(text)
    except InvalidOperation:
        percent = Decimal(-1)
    if not 0 <= percent < 100:
        raise argparse.ArgumentTypeError(f"a percentage from 0 to below 100, not {text!r}")
    return percent


def run(args: argparse.Namespace) -> int:
    """Read, post, and say whether the books hold what the data says."""
    began_s = time.monotonic()
    selection = completejourney.read(
        weeks=args.weeks, basket_count_max=args.baskets, margin_percent=args.margin
    )
    read_s = time.monotonic() - began_s
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(post(args, selection))
    result["seconds"]["reading"] = round(read_s, 1)
    result["verify"] = verify(args)
    if args.json:
        print(orjson.dumps(result, default=str).decode())
    else:
        print(told(result))
    return EXIT_GOOD if result["equal"] and result["verify"]["clean"] is not False else EXIT_FAILED


async def post(args: argparse.Namespace, selection: Selection) -> dict[str, Any]:
    """Post everything that is not there yet; return the result."""
    client = Client(
        args.url,
        email=args.email,
        password=args.password,
        token=args.token,
        connections=args.concurrency,
        patience_s=FIRST_PATIENCE_S,
    )
    async with client:
        await grocer.check_currency(client)
        client.patience_s = args.patience
        began_s = time.monotonic()
        shop = await grocer.set_up(client, selection, at_once=args.concurrency)
        set_up_s = time.monotonic() - began_s
        outcome = await grocer.post_sales(client, selection, shop, at_once=args.concurrency)
        ledger = await received_per_ledger(
            client, selection.first_on, selection.last_on, outcome.sale_ids
        )
        balance = await client.get("/journal/trial-balance")
    return {
        **compare(selection, outcome, ledger),
        "seconds": {"set_up": round(set_up_s, 1), "sales": round(outcome.seconds, 1)},
        "trial_balance": balance,
    }


async def received_per_ledger(
    client: Client, first_on: date, last_on: date, sale_ids: set[int]
) -> Decimal:
    """Return what the accounts that take payments received on these days, less others' sales."""
    accounts = await client.list_all("/accounts")
    takers = {account["id"] for account in accounts if account["takes_payments"]}

    async def money_on(day: date) -> Decimal:
        lines = (await client.get("/journal/trial-balance", as_of_date=day))["lines"]
        return sum(
            (
                Decimal(line["debit_balance"]) - Decimal(line["credit_balance"])
                for line in lines
                if line["account_id"] in takers and line["currency"] == grocer.CURRENCY
            ),
            Decimal(0),
        )

    received = await money_on(last_on) - await money_on(first_on - timedelta(days=1))
    days = {"start_date": first_on, "end_date": last_on, "include_voided": "true"}
    count = (await client.get("/sales", size=1, **days))["pagination"]["total"]
    if count != len(sale_ids):
        # The same days of a larger import, say: those are not ours to count.
        for sale in await client.list_all("/sales", **days):
            if sale["id"] not in sale_ids:
                received -= Decimal(sale["paid_amount"])
    return received


@dataclass(frozen=True)
class Figures:
    """A row of the result."""

    baskets: int
    lines: int
    received: Decimal


def compare(selection: Selection, outcome: Outcome, ledger: Decimal) -> dict[str, Any]:
    """Set what the data says beside what the ledger says."""
    refused_lines = {
        reason: {"lines": tally.count, "received": tally.received}
        for reason, tally in sorted(selection.refused.items())
    }
    in_data = Figures(selection.basket_count, selection.lines.count, selection.lines.received)
    in_sales = Figures(outcome.posted + outcome.already_there, outcome.line_count, outcome.received)
    refused = sum((tally.received for tally in selection.refused.values()), Decimal(0))
    return {
        "weeks": list(selection.weeks),
        "days": [selection.first_on.isoformat(), selection.last_on.isoformat()],
        "data": asdict(in_data),
        "sales": {**asdict(in_sales), "already_there": outcome.already_there},
        "baskets_without_a_sale_line": selection.empty_basket_count,
        "refused_lines": refused_lines,
        "refused_sales": {
            code: {"count": len(said), "first": said[:REFUSALS_SHOWN_MAX]}
            for code, said in sorted(outcome.refused.items())
        },
        "received_per_data": in_data.received,
        "received_on_refused_lines": refused,
        "received_per_ledger": ledger,
        "equal": not outcome.refused and in_data.received == ledger + refused,
        "sales_per_second": round(in_sales.baskets / outcome.seconds) if outcome.seconds else 0,
    }


def verify(args: argparse.Namespace) -> dict[str, Any]:
    """Run `sofinance verify` where we were told the database; it reads that, not the API."""
    given = args.database_url or args.owner_url or args.data or os.environ.get("DATABASE_URL")
    if not given:
        return {"clean": None, "said": "not run: DATABASE_URL=... sofinance verify"}
    settings = settings_from(args)
    environment = {**os.environ, "DATABASE_URL": settings.database_url}
    ran = subprocess.run(
        [sys.executable, "-m", "sofinance", "verify"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {"clean": ran.returncode == 0, "said": (ran.stdout + ran.stderr).strip()}


def told(result: dict[str, Any]) -> str:
    """Write the result for people."""
    data, sales, seconds = result["data"], result["sales"], result["seconds"]
    first, last = result["weeks"]

    def row(label: str, baskets: Any = "", lines: Any = "", received: Any = "") -> str:
        figures = "".join(
            f"{f'{value:,}' if value != '' else '':>{width}}"
            for value, width in ((baskets, 10), (lines, 12), (received, 18))
        )
        return f"{label:<36}{figures}".rstrip()

    out = [
        "",
        f"{'':<36}{'baskets':>10}{'lines':>12}{'received':>18}",
        row(f"data, weeks {first} to {last}", data["baskets"], data["lines"], data["received"]),
        row("sales", sales["baskets"], sales["lines"], sales["received"]),
    ]
    if sales["already_there"]:
        out.append(row("  of them there before", sales["already_there"]))
    if result["baskets_without_a_sale_line"]:
        out.append(row("baskets without a line to sell", result["baskets_without_a_sale_line"]))
    out += [
        row(f"lines refused: {reason}", "", tally["lines"], tally["received"])
        for reason, tally in result["refused_lines"].items()
    ]
    for code, refusal in result["refused_sales"].items():
        out.append(row(f"sales refused: {code}", refusal["count"]))
        out += [f"  {said}" for said in refusal["first"]]
    out.append(row("ledger, money received", "", "", result["received_per_ledger"]))
    equal = "Received per data and per ledger are equal."
    differ = "RECEIVED PER DATA AND PER LEDGER DIFFER."
    out += [equal if result["equal"] else differ, "", *told_balance(result["trial_balance"]), ""]
    out.append(
        f"reading {seconds['reading']} s, set-up {seconds['set_up']} s, sales {seconds['sales']} s"
        f" ({result['sales_per_second']:,} a second)"
    )
    clean = {True: "clean", False: "FOUND SOMETHING", None: ""}[result["verify"]["clean"]]
    out.append(f"verify: {clean}".rstrip() + f"\n{result['verify']['said']}".rstrip())
    return "\n".join(out)


def told_balance(balance: dict[str, Any]) -> list[str]:
    """Write the trial balance, without the accounts that have none."""
    out = [f"Trial balance at the end of {balance['as_of_date']}, {balance['currency']}"]
    for line in balance["lines"]:
        debit, credit = Decimal(line["debit_balance"]), Decimal(line["credit_balance"])
        if debit or credit:
            name = f"{line['account_code']}  {line['account_name']}"
            shown = [f"{amount:,}" if amount else "" for amount in (debit, credit)]
            out.append(f"  {name:<34}{shown[0]:>20}{shown[1]:>20}".rstrip())
    totals = [f"{Decimal(balance[side]):,}" for side in ("total_debits", "total_credits")]
    said = "" if balance["is_balanced"] else "  NOT BALANCED"
    out.append(f"  {'':<34}{totals[0]:>20}{totals[1]:>20}{said}")
    return out
