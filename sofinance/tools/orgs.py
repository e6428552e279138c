"""`sofinance org`: the organisations of a server.

Also which organisation another command is about. A password is never an argument: the process
list and the shell's history would keep it.
"""

from __future__ import annotations

import contextlib
import difflib
import getpass
import sys
import zoneinfo
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from sofinance import queries as q
from sofinance.infra import errors
from sofinance.infra.command import (
    EXIT_CANNOT_RUN,
    EXIT_GOOD,
    EXIT_USAGE,
    STATEMENT_TIMEOUT_MS,
    SetupError,
    database_options,
    row_number,
    settings_from,
)
from sofinance.infra.db import ALL_BRANCHES, Database, Mode
from sofinance.infra.masking import mask
from sofinance.infra.passwords import generate_password, hash_password, password_problems
from sofinance.rules import money

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Sequence

    from sofinance.infra.sql import Connection

TAX_PERCENT_MAX = 100
TAX_DECIMALS_MAX = 4
CREDIT_LIMIT_MAX = Decimal(10) ** 16
ORGS_NAMED_MAX = 20
# What the audit log says where a request has its client's name.
USER_AGENT = b"sofinance command"

# Source: ISO 4217, list one, without funds, metals and test codes. CLF and UYW are left out as
# well: they have four decimals, the books have at most three.
CURRENCY_CODES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN "
    "BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL "
    "GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF "
    "KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN "
    "MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD "
    "SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH "
    "UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"
)
CURRENCIES = frozenset(CURRENCY_CODES.split())


# -- what every command about an organisation needs ----------------------------------------------


def org_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the option that says which organisation a command is about."""
    parser.add_argument(
        "--org",
        type=row_number,
        metavar="N",
        help=f"the organisation's number; without it, {default}",
    )


@contextlib.asynccontextmanager
async def connected(
    args: argparse.Namespace, *, as_owner: bool = False
) -> AsyncGenerator[Database]:
    """Open the database of a command; what it refuses becomes one sentence."""
    settings = settings_from(args, "owner_url" if as_owner else "database_url")
    settings = replace(
        settings,
        database_url=settings.owner_url if as_owner else settings.database_url,
        database_pool_size=1,
        database_statement_timeout_ms=STATEMENT_TIMEOUT_MS,
    )
    database = Database(settings, as_owner=as_owner)
    await database.open()
    try:
        yield database
    except (asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError) as error:
        raise SetupError(
            f"The database has not the schema of this release ({error}): run `sofinance migrate`."
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise SetupError(f"This needs the role sofinance_app: {error}.") from error
    except asyncpg.LockNotAvailableError as error:
        raise SetupError("Somebody else is at work on the same rows. Try again later.") from error
    except asyncpg.PostgresError as error:
        refusal = await _refusal(database, error)
        if refusal is None:
            raise
        raise refusal from error
    finally:
        await database.close()


async def _refusal(database: Database, error: asyncpg.PostgresError) -> SetupError | None:
    """Return the sentence of the rule that was broken; None if it was none."""
    if (error.sqlstate or "") not in errors.RULE_STATUS:
        return None
    async with database.untenanted() as conn:
        rules = await q.request.list_vocabulary(conn)
    refusal = errors.from_postgres(error, {rule.code: rule.message for rule in rules})
    if refusal is None:
        return None
    return SetupError(f"{refusal.message} ({refusal.code})", exit_code=EXIT_USAGE)


async def all_organisations(database: Database, wanted: int | None) -> list[int]:
    """Return the organisation that was asked for, or all of them."""
    async with database.untenanted() as conn:
        known = [row.org_id for row in await q.orgs.list_organisation_ids(conn)]
    if wanted is None:
        return known
    if wanted not in known:
        raise SetupError(
            f"There is no organisation {wanted}; there {_numbers(known)}.", exit_code=EXIT_USAGE
        )
    return [wanted]


async def one_organisation(database: Database, wanted: int | None) -> int:
    """Return the organisation that was asked for, or the only one there is."""
    known = await all_organisations(database, wanted)
    if len(known) != 1:
        raise SetupError(
            f"Say which organisation with --org; there {_numbers(known)}.", exit_code=EXIT_USAGE
        )
    return known[0]


def _numbers(known: Sequence[int]) -> str:
    if not known:
        return "are none yet: make one with `sofinance org create`"
    listed = ", ".join(map(str, known[:ORGS_NAMED_MAX]))
    more = ", ..." if len(known) > ORGS_NAMED_MAX else ""
    return f"is {listed}" if len(known) == 1 else f"are {listed}{more}"


# -- the commands --------------------------------------------------------------------------------


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    org = subparsers.add_parser("org", help="create or list organisations")
    actions = org.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser(
        "create",
        help="make an organisation with its chart of accounts, tax codes and administrator",
        description="Make an organisation with its chart of accounts, tax codes and "
        "administrator. Its currency is fixed for life. The password is asked for on the "
        "terminal unless one of the options says otherwise.",
    )
    database_options(create)
    create.add_argument("--name", required=True, help="the name printed on receipts")
    create.add_argument("--currency", required=True, help="ISO 4217 code, such as EUR")
    create.add_argument(
        "--time-zone", default="UTC", metavar="ZONE", help="IANA name, such as Africa/Nairobi (UTC)"
    )
    create.add_argument(
        "--prices-include-tax", action="store_true", help="shelf prices contain tax (VAT)"
    )
    create.add_argument(
        "--tax-percent", default="0", metavar="RATE", help="the standard rate of tax (0)"
    )
    create.add_argument(
        "--credit-limit", default="0", metavar="AMOUNT",
        help="of a customer who is created without one, in the currency (0)",
    )  # fmt: skip
    person_options(create, "admin-")
    create.set_defaults(run=create_organisation)

    listing = actions.add_parser("list", help="list the organisations of this server")
    database_options(listing)
    listing.set_defaults(run=list_organisations)


def person_options(parser: argparse.ArgumentParser, prefix: str) -> None:
    """Add the options that say who somebody is and where the password comes from."""
    parser.add_argument(
        f"--{prefix}email", dest="email", required=True, help="the address to sign in with"
    )
    parser.add_argument(f"--{prefix}first-name", dest="first_name", required=True)
    parser.add_argument(f"--{prefix}last-name", dest="last_name", required=True)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--password-stdin", action="store_true", help="read the password from stdin, one line"
    )
    where.add_argument(
        "--generate-password", action="store_true", help="make a password up and print it, once"
    )


async def create_organisation(args: argparse.Namespace) -> int:
    """Make an organisation and its administrator in one transaction."""
    currency = _currency(args.currency)
    _time_zone(args.time_zone)
    tax_percent = _number("--tax-percent", args.tax_percent, TAX_DECIMALS_MAX)
    if tax_percent > TAX_PERCENT_MAX:
        raise SetupError("--tax-percent is between 0 and 100.", exit_code=EXIT_USAGE)
    credit_limit = _number("--credit-limit", args.credit_limit, money.minor_units(currency))
    if credit_limit >= CREDIT_LIMIT_MAX:
        raise SetupError(f"--credit-limit is below {CREDIT_LIMIT_MAX}.", exit_code=EXIT_USAGE)
    password = read_password(args)
    async with connected(args) as database:
        password_hash = await hash_password(password)
        async with database.untenanted(mode=Mode.WRITE) as conn:
            made = await q.orgs.create_organisation(
                conn,
                name=args.name.strip(),
                base_currency=currency,
                time_zone=args.time_zone,
                prices_include_tax=args.prices_include_tax,
                standard_tax_percent=tax_percent,
                default_credit_limit=credit_limit,
                admin_email=args.email.strip().lower(),
                admin_password_hash=password_hash,
                admin_first_name=args.first_name.strip(),
                admin_last_name=args.last_name.strip(),
            )
            await q.request.set_tenant(
                conn,
                org_id=made.org_id,
                user_id=None,
                branch_ids=ALL_BRANCHES,
                statement_timeout_ms=STATEMENT_TIMEOUT_MS,
                lock_timeout_ms=STATEMENT_TIMEOUT_MS,
            )
            await _postgres_knows_the_time_zone(conn, made.org_id, args.time_zone)
            await write_audit(
                conn, made.org_id, b"orgs.create_organisation", b"orgs", made.org_id,
                {"name": args.name.strip(), "base_currency": currency, "admin_id": made.admin_id},
            )  # fmt: skip
    print(f"organisation {made.org_id}")
    print(f"administrator {made.admin_id} {args.email.strip().lower()}")
    tell_password(args, password)
    return EXIT_GOOD


async def list_organisations(args: argparse.Namespace) -> int:
    """Print number, name, currency and time zone, with tabs between, for people and for cut."""
    async with connected(args) as database:
        for org_id in await all_organisations(database, None):
            async with database.tenant(org_id, mode=Mode.READ) as conn:
                org = await q.orgs.get_organisation(conn, org_id=org_id)
            name = " ".join(org.name.split())
            print(f"{org_id}\t{name}\t{org.base_currency}\t{org.time_zone}")
    return EXIT_GOOD


async def write_audit(
    conn: Connection, org_id: int, action: bytes, entity: bytes, entity_id: int | None, after: Any
) -> None:
    """Write down what a command did."""
    await q.request.write_audit(
        conn,
        org_id=org_id,
        user_id=None,
        session_id=None,
        api_key_id=None,
        action=action,
        entity_type=entity,
        entity_id=entity_id,
        before=None,
        after=orjson.dumps(mask(after, kind=entity.decode())),
        request_id=None,
        ip=None,
        user_agent=USER_AGENT,
        severity=b"INFO",
    )


# -- what was given ------------------------------------------------------------------------------


def _currency(text: str) -> str:
    code = text.upper()
    if code not in CURRENCIES:
        raise SetupError(
            f"{text} is not a currency of ISO 4217 that books can be kept in.",
            exit_code=EXIT_USAGE,
        )
    return code


def _time_zone(text: str) -> None:
    known = zoneinfo.available_timezones() - {"localtime"}
    if text in known:
        return
    same = [name for name in known if name.lower() == text.lower()]
    near = same or difflib.get_close_matches(text, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SetupError(
        f"{text} is not an IANA time zone, such as Europe/Vienna.{hint}", exit_code=EXIT_USAGE
    )


async def _postgres_knows_the_time_zone(conn: Connection, org_id: int, time_zone: str) -> None:
    """Refuse a zone that is too new for this PostgreSQL: every sale would fail on its date."""
    try:
        await q.branches.get_business_date(conn, org_id=org_id, branch_id=None)
    except asyncpg.InvalidParameterValueError as error:
        raise SetupError(
            f"This PostgreSQL does not know the time zone {time_zone}.", exit_code=EXIT_CANNOT_RUN
        ) from error


def _number(option: str, text: str, decimals_max: int) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or number < 0 or -exponent > decimals_max:
        raise SetupError(
            f"{option} is a number of zero or more with at most {decimals_max} decimals.",
            exit_code=EXIT_USAGE,
        )
    return number


def read_password(args: argparse.Namespace) -> str:
    """Return the password from where the options say, or from the terminal."""
    if args.generate_password:
        return generate_password()
    if args.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password for {args.email}: ")
        if getpass.getpass("The same again: ") != password:
            raise SetupError("The two passwords differ.", exit_code=EXIT_USAGE)
    else:
        raise SetupError(
            "There is no terminal to ask for a password on: use --password-stdin or "
            "--generate-password.",
            exit_code=EXIT_USAGE,
        )
    problems = password_problems(password, about=(args.email, args.first_name, args.last_name))
    if problems:
        raise SetupError(
            f"This password will not do. {' '.join(problems.values())}", exit_code=EXIT_USAGE
        )
    return password


def tell_password(args: argparse.Namespace, password: str) -> None:
    """Print a password that was made up."""
    if args.generate_password:
        print(f"password {password}")
