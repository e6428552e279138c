"""Two furnished organisations, everybody who may call, and what nobody of the one may ever see."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import asyncpg

from sofinance.app import find_endpoints
from sofinance.config import Settings
from sofinance.infra.http import PREFIX
from sofinance.infra.sql import Row
from tests.attacks.scene import attach, furnish
from tests.matrix.samples import SAMPLES, Sample
from tests.support import ROLES, Api, Org, Psql, User, found, role_url, sign_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.infra.http import Endpoint

# No row has this id, in whichever organisation.
NOWHERE = 8_999_999_999_999
MARK = "MARK"
NAME = re.compile(r":([a-z_][a-z_0-9]*)")
EVERY_ROLE = ("ADMIN", *ROLES)
KEY_PERMISSION = "products:read"
# Rows of the first branch, which whoever has the second one alone may not know of.
BRANCH_BOUND = frozenset({"branch", "till", "sale", "credit_sale", "spare_sale", "free_receipt"})
# What says whose a row is: the name that anybody can read of it.
MARKED = (
    ("organisation", "name"), ("branch", "name"), ("till", "name"), ("tax_code", "name"),
    ("category", "name"), ("product", "name"), ("customer", "name"), ("account", "name"),
    ("app_user", "last_name"), ("api_key", "name"),
)  # fmt: skip
# Members of an answer that name rows: a number there is a row's of this kind.
ID_OF = {
    "org_id": ("org",), "branch_id": ("branch", "branch2"), "till_id": ("till", "till2"),
    "product_id": ("product", "product2", "product3"), "customer_id": ("customer", "blacklisted"),
    "sale_id": ("sale", "credit_sale"), "user_id": ("user",), "cashier_id": ("user",),
    "account_id": ("rent", "wages", "cash", "revenue"), "entry_id": ("entry", "sale_entry"),
}  # fmt: skip
# What is about the server, not about an organisation.
OF_THE_SERVER = frozenset(
    {
        "/debug/database-stats",
        "/v1/admin/jobs/status",
        "/api/v1/admin/jobs/status",
        "/api/v1/admin/operator-actions",
        "/api/v1/system/info",
        "/api/v1/system/stats",
        "/api/v1/system/backups",
        "/api/v1/system/backups/stats",
        "/api/v1/system/backups/{id}",
        "/api/v1/system/restore-jobs",
        "/api/v1/system/restore-jobs/{id}",
        "/api/v1/system/drills",
    }
)
ROWS_OF_THE_SERVER = frozenset({"backup", "spare_backup", "restore_job", "spare_restore_job"})
# What differs between two answers to the same question.
VOLATILE = re.compile(
    r'"(timestamp|now|last_used_at|idle_until|correlation_id)":"[^"]*"'
    r'|"is_current":(true|false)|"uptime_s":[0-9.]+'
)


@dataclass
class World:
    """All that the matrix needs; `who` are callers by name, of the organisation under test."""

    api: Api
    psql: Psql
    settings: Settings
    org: Org
    other: Org
    ids: dict[str, Any]
    who: dict[str, User]
    unique: Any = field(default_factory=lambda: itertools.count(1))
    interference: list[str] = field(default_factory=list)

    async def everything(self) -> dict[str, Any]:
        """Return all that an administrator can read."""
        return await self.answers(endpoints())

    async def answers(self, asked: list[Endpoint]) -> dict[str, Any]:
        """Return what an administrator reads at some endpoints, filtered and not."""
        return {
            f"{name_of(endpoint)} {'all' if bare else 'filtered'}": (
                await self.ask(endpoint, "ADMIN", bare=bare)
            ).like()
            for endpoint in asked
            for bare in (False, True)
            if endpoint.method == "GET" and endpoint.path not in OF_THE_SERVER
        }

    async def ask(
        self,
        endpoint: Endpoint,
        who: str,
        *,
        swap: dict[str, Any] | None = None,
        bare: bool = False,
        **more: Any,
    ) -> Reply:
        """Send an endpoint's sample as somebody, with some of its rows swapped for others.

        A bare one asks for all rows, whatever their branch, customer or product.
        """
        sample = SAMPLES[name_of(endpoint)]
        word = f"U{next(self.unique)}"
        ids = {
            **self.ids,
            **(swap or {}),
            "unique": word,
            "unique_role": f"ROLE_{word}",
            "unique_email": f"{word}.{self.org.id}@example.com",
        }
        names = iter(sample.names)
        path = re.sub(r"\{\w+\}", lambda _: placed(next(names), ids), endpoint.path)
        query = filled(sample.query or {}, ids)
        if bare:
            query = {k: v for k, v in query.items() if not (sample.query or {})[k].startswith(":")}
        if query:
            path += "?" + "&".join(f"{name}={value}" for name, value in query.items())
        user = self.who[who]
        if sample.ends_session and who in self.org.members:
            # This one's session ends, or all of theirs: they come back with another one.
            user = replace(user, token=await self.new_token(user))
        if endpoint.idempotent == "required":
            more.setdefault("key", f"matrix-{word}-{who}")
        answer = await self.api.call(
            endpoint.method, path, user, filled(sample.body, ids), prefix="", **more
        )
        if sample.ends_session and who != "API_KEY":
            self.who[who] = replace(user, token=await self.new_token(user))
        asked = frozenset(ids.get(name) for name in names_in(sample))
        return Reply(answer.status, answer.text, asked)

    async def new_token(self, user: User) -> str:
        """Begin another session of somebody's."""
        conn: Any = await asyncpg.connect(self.settings.database_url, record_class=Row)
        try:
            async with conn.transaction():
                await conn.execute(
                    f"select set_config('app.org_id', '{user.org_id}', true),"
                    " set_config('app.branch_ids', 'all', true)"
                )
                return await sign_in(conn, self.settings, user.org_id, user.id)
        finally:
            await conn.close()


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    text: str
    asked: frozenset[Any]  # the rows that the request names: a refusal may repeat them

    @property
    def code(self) -> str | None:
        """The code of a refusal."""
        return None if self.status < 400 else str(json.loads(self.text)["error"]["code"])

    def like(self, *swapped: Any) -> tuple[int, str]:
        """Return what has to be the same for a row that is somebody else's and one that is not."""
        text = VOLATILE.sub("", self.text)
        for value in swapped:
            text = re.sub(rf"(?<![0-9]){value}(?![0-9])", "ID", text)
        return self.status, text

    def leaks(self, marks: tuple[str, ...], ids: dict[str, set[int]]) -> list[str]:
        """Return what it tells of rows that its reader may not know."""
        told = [mark for mark in marks if mark in self.text]
        if self.text.startswith("{"):
            told += [
                f"{name}={number}"
                for name, numbers in ids.items()
                for number in numbers - self.asked
                if re.search(rf'"{name}":{number}(?![0-9])', self.text)
            ]
        return told


def name_of(endpoint: Endpoint) -> str:
    """Return the name under which an endpoint has its sample."""
    return f"{endpoint.method} {endpoint.path.removeprefix(PREFIX)}"


def endpoints() -> list[Endpoint]:
    """Return every endpoint that somebody has to sign in for."""
    return [endpoint for endpoint in find_endpoints() if not endpoint.public]


def filled(value: Any, ids: dict[str, Any]) -> Any:
    """Put the ids in the place of their `:names`."""
    if isinstance(value, dict):
        return {name: filled(inner, ids) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, ids) for inner in value]
    if isinstance(value, str) and (named := NAME.fullmatch(value)):
        return ids[named[1]]
    return value


def placed(name: str, ids: dict[str, Any]) -> str:
    """Return what stands in a path for a name."""
    return name[1:] if name.startswith("=") else str(ids[name])


def names_in(sample: Sample) -> list[str]:
    """Return the rows that a sample names, in path, query and body."""
    text = json.dumps([sample.query, sample.body])
    return list(dict.fromkeys([*sample.names, *NAME.findall(text.replace(": ", " "))]))


async def furnish_more(api: Api, org: Org, psql: Psql) -> dict[str, Any]:
    """Furnish an organisation for the matrix: what its requests use up, and names that tell."""
    ids: dict[str, Any] = await furnish(api, org, psql)

    async def made(path: str, body: dict[str, Any]) -> int:
        return int((await api.post(path, org, body)).data["id"])

    ids["spare_attachment"] = await attach(api, org, ids["customer"], "spare")
    ids["spare_endpoint"] = await made("/webhooks", {"url": "https://example.com/spare"})
    # Letters that stay dead when others are sent again, and somebody who wants no mail.
    ids["blocked_email"] = f"blocked.{org.id}@example.com"
    psql(
        f"select send_test_event({ids['spare_endpoint']}, '{{}}');"
        "update webhook_delivery set status = 'dead'"
        f" where endpoint_id = {ids['spare_endpoint']};"
        f"update webhook_lane set is_stopped = true where endpoint_id = {ids['spare_endpoint']};"
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body, status)"
        f" values ({org.id}, 'low-stock:9', 'low_stock', 'm@example.com', 'Low', 'Low.', 'dead');"
        "insert into mail_block (org_id, address, reason)"
        f" values ({org.id}, '{ids['blocked_email']}', 'unsubscribed')",
        role="superuser",
        org=org,
    )
    ids["done_event"] = f"evt_done_{org.id}"
    psql(
        "insert into stripe_event (org_id, event_id, type, payload_sha256, checkout_id)"
        f" values ({org.id}, '{ids['done_event']}', 'checkout.session.completed', sha256('d'),"
        f" {ids['checkout']});"
        "update stripe_event set status = 'ignored', processed_at = now()"
        f" where event_id = '{ids['done_event']}'",
        org=org,
    )
    ids["spare_category"] = await made("/categories", {"name": "Spare"})
    lines = [
        {"account_id": ids["rent"], "debit": "5.00"},
        {"account_id": ids["cash"], "credit": "5.00"},
    ]
    ids["spare_entry"] = await made("/journal/entries", {"lines": lines})
    sale = {"branch_id": ids["branch"], "items": [{"product_id": ids["product"], "quantity": "1"}]}
    ids["spare_sale"] = await made("/sales", {**sale, "payments": [{"amount": "11.00"}]})
    ids["break_glass"] = await made("/admin/break-glass", {"reason": "A good reason for it."})
    ids["spare_session"] = psql(
        "insert into user_session (org_id, user_id, kind, device, idle_until, expires_at)"
        f" values ({org.id}, {org.admin.id}, 'password', 'spare', now() + '1 day',"
        " now() + '1 day') returning id",
        org=org,
    )[0][0]
    ids["role"], ids["spare_role"] = f"ROLE_{org.id}_A", f"ROLE_{org.id}_B"
    for role in (ids["role"], ids["spare_role"]):
        await api.post("/roles", org, {"name": role})
    person = {"first_name": "Sam", "last_name": "Spare", "role": "CASHIER", "all_branches": True}
    ids["spare_user"] = await made("/users", {**person, "email": f"spare.{org.id}@example.com"})
    for name in ("own_key", "spare_key"):
        ids[name] = await made("/api-keys", {"name": name, "permissions": ["sales:read"]})
    flag = {"user_id": org.admin.id, "percent": 0}
    assert (await api.put("/flags/pause_jobs", org, flag)).status == 200
    ids["integrity_event"] = psql(
        "insert into integrity_event (org_id, check_name, severity, broken_count)"
        f" values ({org.id}, 'matrix_check', 'ERROR', 1) returning id",
        role="sofinance_owner",
    )[0][0]
    # Nobody's second factor is to stand in the way; the scene's is no real one.
    psql(
        f"delete from recovery_code where org_id = {org.id};"
        f"delete from user_totp where org_id = {org.id}",
        role="superuser",
        org=org,
    )
    for table, column in MARKED:
        psql(
            f"update {table} set {column} = '{MARK}-{table}-{org.id}-' ||"
            f" left({column}, 20) where org_id = {org.id}",
            role="superuser",
            org=org,
        )
    return ids


async def callers(org: Org, psql: Psql, settings: Settings, branch_id: int) -> dict[str, User]:
    """Return one caller per role, one who has the second branch alone, and an API key."""
    who = dict(org.members)
    conn: Any = await asyncpg.connect(settings.database_url, record_class=Row)
    try:
        # A role that may everything, so that only the branch says no.
        psql(
            f"insert into org_role (org_id, name) values ({org.id}, 'FLOOR');"
            f"insert into role_grant select {org.id}, 'FLOOR', name, 'ALLOW' from permission",
            role="superuser",
            org=org,
        )
        user_id = psql(
            "insert into app_user (org_id, email, password_hash, first_name, last_name, role,"
            f" all_branches) values ({org.id}, 'one.branch.{org.id}@example.com', 'none', 'One',"
            " 'Branch', 'FLOOR', false) returning id",
            role="superuser",
            org=org,
        )[0][0]
        psql(
            f"insert into user_branch values ({org.id}, {user_id}, {branch_id})",
            role="superuser",
            org=org,
        )
        async with conn.transaction():
            await conn.execute(
                f"select set_config('app.org_id', '{org.id}', true),"
                " set_config('app.branch_ids', 'all', true)"
            )
            token = await sign_in(conn, settings, org.id, user_id)
    finally:
        await conn.close()
    who["ONE_BRANCH"] = User(org.id, user_id, "FLOOR", "", "", token)
    secret = "key-of-the-matrix"  # noqa: S105 - of a made-up organisation
    key_id = psql(
        "insert into api_key (org_id, user_id, name, secret_hash, permissions, expires_at)"
        f" values ({org.id}, {org.admin.id}, 'Matrix', %s, %s, now() + '1 day') returning id",
        [hashlib.sha256(secret.encode()).digest(), [KEY_PERMISSION]],
        role="superuser",
        org=org,
    )[0][0]
    who["API_KEY"] = User(org.id, org.admin.id, "", "", "", f"sfk_{org.id}_{key_id}_{secret}")
    return who


@asynccontextmanager
async def make_world(api: Api, superuser_url: str) -> AsyncIterator[World]:
    """Furnish both organisations and yield the world; the first one is under test."""
    psql = Psql(superuser_url)
    settings = Settings.for_tests(database_url=role_url(superuser_url, "sofinance_app"))
    try:
        conn: Any = await asyncpg.connect(settings.database_url, record_class=Row)
        # The other one is the first: where nothing says which, its rows come first.
        other, org = [await found(conn, settings, "none", "", name=n) for n in ("Theirs", "Ours")]
        await conn.close()
        ids = await furnish_more(api, org, psql)
        who = await callers(org, psql, settings, ids["branch2"])
        made = World(api, psql, settings, org, other, ids, who)
        alone = await made.everything()
        other_ids = await furnish_more(api, other, psql)
        made.interference = [
            f"{name}: {before} became {after}"
            for (name, before), after in zip(
                alone.items(), (await made.everything()).values(), strict=True
            )
            if before != after
        ]
        # The last row that was written comes last where nothing says which: ours.
        psql(
            f"update organisation set name = name where org_id = {org.id}",
            role="superuser",
            org=org,
        )
        made.ids = ids | {f"other_{name}": value for name, value in other_ids.items()}
        yield made
    finally:
        psql.close()
