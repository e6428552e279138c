"""Organisations and users from the command line: sentences, and passwords that leave no trace."""

from __future__ import annotations

import asyncio
import getpass
import io
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from sofinance import cli
from sofinance.rules import money
from sofinance.tools import orgs
from tests.support import role_url

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org, Psql

PASSWORD = "Correct horse, 7 staples"  # noqa: S105 - of made-up people
NO_ZONE = "is not an IANA time zone, such as Europe/Vienna."
NO_TAX = "--tax-percent is a number of zero or more with at most 4 decimals."
NO_CURRENCY = "is not a currency of ISO 4217 that books can be kept in."
NO_EMAIL = "An e-mail address has the form name@host, in lower case, of at most 254 characters."


class Terminal(io.StringIO):
    """A stdin that a person sits at."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def new_email() -> str:
    return f"{uuid.uuid4().hex}@example.com"


def org_words(email: str, **changes: str) -> list[str]:
    options = {
        "name": "Corner Shop", "currency": "EUR", "admin-email": email,
        "admin-first-name": "Ada", "admin-last-name": "Admin", **changes,
    }  # fmt: skip
    return ["org", "create", *(f"--{name}={text}" for name, text in options.items())]


def user_words(email: str, org_id: int, **changes: str) -> list[str]:
    options = {
        "org": str(org_id), "role": "CASHIER", "email": email,
        "first-name": "Tim", "last-name": "Till", **changes,
    }  # fmt: skip
    words = ["user", "create", *(f"--{name}={text}" for name, text in options.items())]
    return words if "branch" in options else [*words, "--all-branches"]


async def run(dsn: str, *words: str) -> int:
    """Run the command in this process, beside the loop that the tests run in."""
    urls = ["--database-url", dsn, "--owner-url", role_url(dsn, "sofinance_owner")]
    return await asyncio.to_thread(cli.main, [*words, *urls])


async def sign_in(api: Api, email: str, password: str) -> Answer:
    return await api.post("/auth/login", None, {"email": email, "password": password})


async def test_an_organisation_is_made_with_its_administrator(
    api: Api, psql: Psql, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    email = new_email()
    words = org_words(
        email.upper(), currency="jpy", **{
            "name": "角 の 店", "time-zone": "Asia/Tokyo", "tax-percent": "8.25",
            "credit-limit": "50000",
        },
    )  # fmt: skip
    assert await run(dsn, *words, "--prices-include-tax", "--generate-password") == 0
    printed = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(printed) == ["organisation", "administrator", "password"]
    org_id = int(printed["organisation"])
    assert printed["administrator"].endswith(f" {email}")
    user = (await sign_in(api, email, printed["password"])).data["user"]
    assert (user["org_id"], user["role"], user["first_name"]) == (org_id, "ADMIN", "Ada")
    assert psql(
        "select name, base_currency, time_zone, prices_include_tax, default_credit_limit,"
        " (select rate_percent from tax_code where code = 'STD') from organisation",
        org=org_id,
    ) == [("角 の 店", "JPY", "Asia/Tokyo", True, Decimal(50000), Decimal("8.25"))]
    told = "select action, after ->> 'name' from audit_log where user_agent = 'sofinance command'"
    assert psql(told, org=org_id) == [("orgs.create_organisation", "角 の 店")]

    assert await run(dsn, "org", "list") == 0
    assert f"{org_id}\t角 の 店\tJPY\tAsia/Tokyo\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"currency": "EURO"}, f"EURO {NO_CURRENCY}"),
        ({"currency": "XXX"}, f"XXX {NO_CURRENCY}"),
        ({"currency": "CLF"}, f"CLF {NO_CURRENCY}"),
        (
            {"time-zone": "europe/vienna"},
            f"europe/vienna {NO_ZONE} Did you mean Europe/Vienna?",
        ),
        (
            {"time-zone": "Europe/Wienna"},
            f"Europe/Wienna {NO_ZONE} Did you mean Europe/Vienna?",
        ),
        ({"time-zone": "../../etc/passwd"}, f"../../etc/passwd {NO_ZONE}"),
        ({"tax-percent": "8.12345"}, NO_TAX),
        ({"tax-percent": "-1"}, NO_TAX),
        ({"tax-percent": "nan"}, NO_TAX),
        ({"tax-percent": "inf"}, NO_TAX),
        ({"tax-percent": "100.01"}, "--tax-percent is between 0 and 100."),
        (
            {"credit-limit": "0.001"},
            "--credit-limit is a number of zero or more with at most 2 decimals.",
        ),
        (
            {"credit-limit": "0.5", "currency": "JPY"},
            "--credit-limit is a number of zero or more with at most 0 decimals.",
        ),
        ({"credit-limit": "1e16"}, "--credit-limit is below 10000000000000000."),
        ({"name": " "}, "A name has 1 to 200 characters. (organisation_name_not_empty)"),
        ({"admin-email": "ada"}, f"{NO_EMAIL} (app_user_email_is_lower_case)"),
        (
            {"admin-first-name": ""},
            "First and last name have 1 to 100 characters each. (app_user_name_not_empty)",
        ),
    ],
    ids=lambda value: " ".join(map("=".join, value.items())) if isinstance(value, dict) else "",
)
async def test_what_does_not_fit_is_told_in_a_sentence(
    dsn: str, psql: Psql, capsys: pytest.CaptureFixture[str], changes: dict[str, str], sentence: str
) -> None:
    email = new_email()
    assert await run(dsn, *org_words(email, **changes), "--generate-password") == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"sofinance: {sentence}\n")
    assert psql("select org_id from find_sign_in(%s)", [email]) == []


async def test_an_address_is_taken_once_on_the_whole_server(
    org: Org, other_org: Org, dsn: str, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    (before,) = psql("select count(*) from list_organisation_ids()")
    for words in (org_words(org.admin.email), user_words(org.admin.email, other_org.id)):
        assert await run(dsn, *words, "--generate-password") == 2
        assert capsys.readouterr().err == (
            "sofinance: This e-mail address is in use already. (sign_in_address_taken)\n"
        )
    assert psql("select count(*) from list_organisation_ids()") == [before]


async def test_a_user_is_made_in_one_organisation(
    api: Api, org: Org, psql: Psql, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    email = new_email()
    assert await run(dsn, *user_words(email, org.id, role="cashier"), "--generate-password") == 0
    told, password = capsys.readouterr().out.splitlines()
    user = (await sign_in(api, email, password.removeprefix("password "))).data["user"]
    assert told == f"user {user['id']} {email} CASHIER of organisation {org.id}"
    assert (user["org_id"], user["role"]) == (org.id, "CASHIER")
    told = "select action, entity_id, after ->> 'role' from audit_log where user_id is null"
    assert psql(told, org=org) == [("users.create_user", user["id"], "CASHIER")]

    words = user_words(new_email(), org.id, role="BOSS")
    assert await run(dsn, *words, "--generate-password") == 2
    assert "A role is ADMIN, MANAGER, CASHIER," in capsys.readouterr().err
    assert await run(dsn, *user_words(new_email(), 999_999_999), "--generate-password") == 2
    assert "There is no organisation 999999999; there " in capsys.readouterr().err


async def test_a_user_is_made_in_branches(
    api: Api, org: Org, other_org: Org, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    branches = [
        (await api.post("/branches", who, {"name": "Main Street"})).data["id"]
        for who in (org, other_org)
    ]
    email = new_email()
    words = user_words(email, org.id, branch=str(branches[0]))
    assert await run(dsn, *words, "--generate-password", "--temporary") == 0
    password = capsys.readouterr().out.splitlines()[1].removeprefix("password ")
    signed_in = (await sign_in(api, email, password)).data
    assert signed_in["must_change_password"]
    user = (await api.get(f"/users/{signed_in['user']['id']}", org)).data
    assert (user["all_branches"], user["branch_ids"]) == (False, [branches[0]])

    words = user_words(new_email(), org.id, branch=str(branches[-1]))
    assert await run(dsn, *words, "--generate-password") == 2
    told = "sofinance: There is no such branch. (user_branch_branch_known)\n"
    assert capsys.readouterr().err == told
    nowhere = [word for word in user_words(email, org.id) if word != "--all-branches"]
    assert await run(dsn, *nowhere, "--generate-password") == 2
    assert "--branch ID for each branch, or --all-branches." in capsys.readouterr().err
    words = user_words(new_email(), org.id, role="admin", branch=str(branches[0]))
    assert await run(dsn, *words, "--generate-password") == 2
    assert "An ADMIN has all branches" in capsys.readouterr().err
    words = user_words(new_email(), org.id, role="admin")
    assert await run(dsn, *words, "--generate-password") == 0


async def test_users_are_made_by_the_owner_alone(
    org: Org, dsn: str, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    email = new_email()
    words = [*user_words(email, org.id), "--generate-password"]
    app = ["--database-url", dsn, "--owner-url", dsn]
    assert await asyncio.to_thread(cli.main, [*words, *app]) == 2
    assert "(app_user_within_own_access)" in capsys.readouterr().err
    assert await asyncio.to_thread(cli.main, [*words, "--database-url", dsn]) == 2
    assert "OWNER_URL" in capsys.readouterr().err
    assert psql("select org_id from find_sign_in(%s)", [email]) == []


@pytest.mark.empty_database
async def test_the_only_organisation_need_not_be_named(
    api: Api, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in user_words(new_email(), 0) if not word.startswith("--org")]
    assert await run(dsn, *words, "--generate-password") == 2
    assert "there are none yet: make one with `sofinance org create`" in capsys.readouterr().err
    assert await run(dsn, *org_words(new_email()), "--generate-password") == 0
    assert await run(dsn, *words, "--generate-password") == 0
    assert await run(dsn, *org_words(new_email()), "--generate-password") == 0
    assert await run(dsn, *words, "--generate-password") == 2
    assert capsys.readouterr().err.startswith("sofinance: Say which organisation with --org; ")


async def test_a_password_comes_from_stdin_or_from_the_terminal(
    api: Api, org: Org, dsn: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    piped, typed = new_email(), new_email()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD} \r\nnot this\n"))
    assert await run(dsn, *user_words(piped, org.id), "--password-stdin") == 0
    assert (await sign_in(api, piped, f"{PASSWORD} ")).status == 200  # a space is a character

    monkeypatch.setattr("sys.stdin", Terminal())
    asked: list[str] = []
    answers = [PASSWORD, PASSWORD, PASSWORD, PASSWORD.upper()]

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return answers[len(asked) - 1]

    monkeypatch.setattr(getpass, "getpass", ask)
    assert await run(dsn, *user_words(typed, org.id)) == 0
    assert asked == [f"Password for {typed}: ", "The same again: "]
    assert (await sign_in(api, typed, PASSWORD)).status == 200
    assert PASSWORD not in capsys.readouterr().out
    assert await run(dsn, *user_words(new_email(), org.id)) == 2
    assert capsys.readouterr().err == "sofinance: The two passwords differ.\n"


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("", "A password has 8 characters or more."),
        ("x" * 129, "A password has at most 128 characters."),
        ("Welcome-2026", "It is one of the first that anybody would try."),
    ],
)
async def test_a_password_keeps_the_rules(
    org: Org, dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    password: str,
    problem: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    assert await run(dsn, *user_words(new_email(), org.id), "--password-stdin") == 2
    told = capsys.readouterr().err
    assert told.startswith("sofinance: This password will not do. ")
    assert problem in told


async def test_without_a_terminal_nothing_waits_for_a_password(
    org: Org, dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert await run(dsn, *user_words(new_email(), org.id)) == 2
    assert "use --password-stdin or --generate-password." in capsys.readouterr().err
    with pytest.raises(SystemExit):  # no option takes a password as its value
        await run(dsn, *user_words(new_email(), org.id), "--password", PASSWORD)


async def test_a_zone_that_postgresql_does_not_know_undoes_everything(
    dsn: str, psql: Psql, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zone = "Europe/Atlantis"
    monkeypatch.setattr(orgs.zoneinfo, "available_timezones", lambda: {zone})
    email = new_email()
    words = org_words(email, **{"time-zone": zone})
    assert await run(dsn, *words, "--generate-password") == 3
    assert capsys.readouterr().err == (
        f"sofinance: This PostgreSQL does not know the time zone {zone}.\n"
    )
    assert psql("select org_id from find_sign_in(%s)", [email]) == []


async def test_a_database_without_our_schema_is_told_in_a_sentence(
    dsn: str, superuser_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server, _, _ = dsn.rpartition("/")
    name = f"empty_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(superuser_dsn, autocommit=True) as admin:
        admin.execute(f"create database {name}")
        try:
            assert await run(f"{server}/{name}", "org", "list") == 3
        finally:
            admin.execute(f"drop database {name} with (force)")
    error = capsys.readouterr().err
    assert error.startswith("sofinance: The database has not the schema of this release (")
    assert error.endswith("): run `sofinance migrate`.\n")


async def test_another_role_than_the_applications_is_told_in_a_sentence(
    superuser_dsn: str, capsys: pytest.CaptureFixture[str], owner_dsn: str, org: Org
) -> None:
    del org
    assert await run(superuser_dsn.replace("/sofinance_test", "/no_such"), "org", "list") == 3
    assert capsys.readouterr().err.startswith("sofinance: The database does not answer: ")
    readonly = owner_dsn.replace("sofinance_owner:", "sofinance_readonly:")
    assert await run(readonly, *org_words(new_email()), "--generate-password") == 3
    assert capsys.readouterr().err.startswith("sofinance: This needs the role sofinance_app: ")


def test_every_currency_that_can_be_chosen_has_decimals_that_the_books_know() -> None:
    assert set(money.MINOR_UNITS) - {"UYI"} <= orgs.CURRENCIES  # a unit of account, no money
    assert all(len(code) == 3 and code.isupper() for code in orgs.CURRENCIES)
    assert len(orgs.CURRENCIES) == len(orgs.CURRENCY_CODES.split())


async def test_the_superuser_who_migrates_may_let_a_user_in(
    dsn: str, superuser_dsn: str, org: Org, capsys: pytest.CaptureFixture[str]
) -> None:
    """OWNER_URL may be a superuser's, as .env.example has it; DATABASE_URL may not."""
    words = [*user_words(new_email(), org.id), "--generate-password", "--owner-url", superuser_dsn]
    made = [*words, "--database-url", dsn]
    assert await asyncio.to_thread(cli.main, made) == 0, capsys.readouterr().err
    assert await asyncio.to_thread(cli.main, ["org", "list", "--database-url", superuser_dsn]) == 3
    assert "is a superuser" in capsys.readouterr().err
