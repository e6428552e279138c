"""What tests hold in their hands: a caller, an answer, a way to PostgreSQL."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
import psycopg

from sofinance import queries as q
from sofinance.infra.db import ALL_BRANCHES, Database
from sofinance.infra.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiohttp
    from aiohttp import web

    from sofinance.config import Settings

PREFIX = "/api/v1"
# The roles beside ADMIN that every organisation has.
ROLES = ("MANAGER", "CASHIER", "INVENTORY_CLERK", "ACCOUNTANT")
ROLE_PASSWORD = "only-for-tests"  # noqa: S105 - of a server that lives as long as the run


@dataclass(frozen=True)
class User:
    """Somebody who calls the API, with an access token in hand."""

    org_id: int
    id: int
    role: str
    email: str
    password: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Org:
    """An organisation of the test's own, and one person in each role, all in all branches."""

    id: int
    name: str
    currency: str
    members: Mapping[str, User] = field(repr=False)

    @property
    def admin(self) -> User:
        """The administrator, who created it."""
        return self.members["ADMIN"]

    def member(self, role: str) -> User:
        """Return somebody in a role: CASHIER, MANAGER, ACCOUNTANT, INVENTORY_CLERK, ADMIN."""
        return self.members[role]


async def found(
    conn: Any, settings: Settings, password_hash: str, password: str, **changes: Any
) -> Org:
    """Make an organisation with somebody in each role, each in a session of their own."""
    asked = {
        "name": "Test",
        "base_currency": "USD",
        "time_zone": "UTC",
        "prices_include_tax": False,
        "standard_tax_percent": Decimal(10),
        "default_credit_limit": Decimal(1000),
        "admin_email": f"{uuid.uuid4().hex}@example.com",
        "admin_first_name": "Ada",
        "admin_last_name": "Admin",
        **changes,
    }
    members = {}
    # In one transaction: who founds an organisation may give what nobody has yet.
    async with conn.transaction():
        made = await q.orgs.create_organisation(conn, admin_password_hash=password_hash, **asked)
        org_id = made.org_id
        people = {"ADMIN": (made.admin_id, asked["admin_email"])}
        await q.request.set_tenant(
            conn, org_id=org_id, user_id=None, branch_ids=ALL_BRANCHES,
            statement_timeout_ms=60_000, lock_timeout_ms=60_000,
        )  # fmt: skip
        for role in ROLES:
            email = f"{role.lower()}.{uuid.uuid4().hex}@example.com"
            user = await q.users.create_user(
                conn, org_id=org_id, email=email, password_hash=password_hash, first_name="Max",
                last_name=role.title(), role=role, all_branches=True, must_change_password=False,
            )  # fmt: skip
            people[role] = user.id, email
        for role, (user_id, email) in people.items():
            token = await sign_in(conn, settings, org_id, user_id)
            members[role] = User(org_id, user_id, role, email, password, token)
    return Org(org_id, asked["name"], asked["base_currency"], members)


async def sign_in(conn: Any, settings: Settings, org_id: int, user_id: int, **changes: Any) -> str:
    """Return an access token of a new session, in a transaction of the organisation."""
    asked = {
        "kind": "password", "till_id": None, "has_second_factor": False, "device": "test",
        "ip": None, "idle_minutes": 600, "life_minutes": 600, "token_hash": os.urandom(32),
        **changes,
    }  # fmt: skip
    session = await q.auth.begin_session(conn, org_id=org_id, user_id=user_id, **asked)
    return Guard(settings, Database(settings)).issue_token(
        org_id=org_id, user_id=user_id, session_id=session.id, now=datetime.now(UTC)
    )[0]


@dataclass(frozen=True)
class Answer:
    """One answer of the API; ``refused`` is what a test compares with."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        """The whole JSON body, or None if it is empty or is not JSON."""
        if not self.text or "json" not in self.headers.get("Content-Type", ""):
            return None
        return orjson.loads(self.text)

    @property
    def data(self) -> Any:
        """The envelope's data; a failed call fails the test here, with what was answered."""
        assert 200 <= self.status < 300, f"{self.status}: {self.text}"
        return self.body["data"]

    @property
    def error(self) -> Any:
        """The envelope's error: code, message, details."""
        assert self.status >= 400, f"{self.status}: {self.text}"
        return self.body["error"]

    @property
    def code(self) -> str:
        """The error's code: the name of the broken constraint, or an application code."""
        return str(self.error["code"])

    @property
    def details(self) -> Any:
        """The error's details."""
        return self.error["details"]

    @property
    def refused(self) -> tuple[int, str]:
        """Status and code of a refusal."""
        return self.status, self.code


class Api:
    """The application over HTTP; paths are below /api/v1 unless ``prefix`` says otherwise."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, app: web.Application) -> None:
        self.session, self.base_url, self.app = session, base_url, app

    async def get(self, path: str, who: Org | User | None = None, **options: Any) -> Answer:
        """GET, as somebody."""
        return await self.call("GET", path, who, **options)

    async def post(
        self, path: str, who: Org | User | None = None, json: Any = None, **options: Any
    ) -> Answer:
        """POST a body, as somebody."""
        return await self.call("POST", path, who, json, **options)

    async def put(
        self, path: str, who: Org | User | None = None, json: Any = None, **options: Any
    ) -> Answer:
        """PUT a body, as somebody."""
        return await self.call("PUT", path, who, json, **options)

    async def patch(
        self, path: str, who: Org | User | None = None, json: Any = None, **options: Any
    ) -> Answer:
        """PATCH with a body, as somebody."""
        return await self.call("PATCH", path, who, json, **options)

    async def delete(self, path: str, who: Org | User | None = None, **options: Any) -> Answer:
        """DELETE, as somebody."""
        return await self.call("DELETE", path, who, **options)

    async def call(  # noqa: PLR0913 - everything a request can be
        self,
        method: str,
        path: str,
        who: Org | User | None = None,
        json: Any = None,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        prefix: str = PREFIX,
        **options: Any,
    ) -> Answer:
        """Send a request; ``json`` or the very bytes as ``content``, ``key`` for idempotency."""
        sent = dict(headers or {})
        user = who.admin if isinstance(who, Org) else who
        if user is not None:
            sent.setdefault("Authorization", f"Bearer {user.token}")
        if key is not None:
            sent["Idempotency-Key"] = key
        if json is not None:
            content = orjson.dumps(json, default=str)  # Decimal and date as the API writes them
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        url = self.base_url + prefix + path
        async with self.session.request(
            method, url, data=content, headers=sent, allow_redirects=False, **options
        ) as response:
            return Answer(response.status, response.headers, await response.text())


class Psql:
    """SQL as one of the database's roles, on a session of that role; every call commits."""

    def __init__(self, superuser_url: str) -> None:
        self.superuser_url = superuser_url
        self._sessions: dict[str, psycopg.Connection[Any]] = {}

    def __call__(
        self,
        statement: str,
        values: Sequence[Any] | None = None,
        *,
        role: str = "sofinance_app",
        org: Org | int | None = None,
        branches: str = "all",
    ) -> list[Any]:
        """Run one or more statements in one transaction and commit; return the last one's rows.

        ``org`` sets app.org_id and ``branches`` app.branch_ids; without the former there is no
        tenant at all. Raises psycopg.Error, whose
        ``sqlstate`` and ``diag.constraint_name`` say what refused it, deferred rules included.
        """
        session = self._session(role)
        with session.transaction():
            if org is not None:
                org_id = org.id if isinstance(org, Org) else org
                session.execute(
                    "select set_config('app.org_id', %s, true),"
                    " set_config('app.branch_ids', %s, true)",
                    [str(org_id), branches],
                )
            # In text, as libpq's psql sends it: any number of statements, if there are no values.
            cursor = session.execute(statement, values)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def refusal(
        self,
        statement: str,
        values: Sequence[Any] | None = None,
        *,
        role: str = "sofinance_app",
        org: Org | int | None = None,
    ) -> str:
        """Return who refused: the constraint's name, else the SQLSTATE; "" if nobody did."""
        try:
            self(statement, values, role=role, org=org)
        except psycopg.Error as error:
            return error.diag.constraint_name or error.sqlstate or str(error)
        return ""

    def close(self) -> None:
        """End every session."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _session(self, role: str) -> psycopg.Connection[Any]:
        session = self._sessions.get(role)
        if session is None or session.closed:
            url = role_url(self.superuser_url, role)
            session = psycopg.connect(url, autocommit=True, connect_timeout=10)
            self._sessions[role] = session
        return session


def today() -> date:
    """Return the day that it is in UTC, when it is asked for: a run may go past midnight."""
    return datetime.now(UTC).date()


def role_url(superuser_url: str, role: str, database: str | None = None) -> str:
    """Return the URL of the same server for one of the four roles, or for the superuser."""
    parts = urlsplit(superuser_url)
    who = parts.netloc.rpartition("@")[0]
    if role != "superuser":
        who = f"{role}:{ROLE_PASSWORD}"
    where = parts.netloc.rpartition("@")[2]
    path = parts.path if database is None else f"/{database}"
    return parts._replace(netloc=f"{who}@{where}", path=path).geturl()


def direct(url: str) -> str:
    """Return the URL of the same database of the run's server, past a PgBouncer on the way."""
    parts = urlsplit(url)
    who = parts.netloc.rpartition("@")[0]
    server = urlsplit(os.environ["TEST_SERVER"]).netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{who}@{server}").geturl()
