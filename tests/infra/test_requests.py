"""What happens around every handler: envelope, keys, audit, retries, and nothing half done."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import psycopg
import pytest

from sofinance import __version__
from sofinance import queries as q
from sofinance.app import MACHINE
from sofinance.infra import db, logs, parse, route
from sofinance.infra.envelope import ENVELOPE_KEYS
from sofinance.infra.errors import ApiError
from sofinance.infra.logs import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Answer, Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

FRUIT = {"name": "Fruit"}
PATH = "/categories"


def names(psql: Psql, org: Org) -> list[str]:
    return [row[0] for row in psql("select name from category order by name", org=org)]


def audit(psql: Psql, org: Org) -> list[Any]:
    columns = "user_id, action, entity_type, entity_id, before, after, request_id, user_agent"
    return psql(f"select {columns} from audit_log order by id", org=org)


def broken(monkeypatch: pytest.MonkeyPatch, *outcomes: Any) -> list[int]:
    """Let the query behind POST /categories raise each of these, then work as ever."""
    real, calls = q.catalog.create_category, list(outcomes)
    seen: list[int] = []

    async def create_category(conn: Any, **args: Any) -> Any:
        seen.append(1)
        row = await real(conn, **args)
        if calls:
            outcome = calls.pop(0)
            if isinstance(outcome, BaseException):
                raise outcome
        return row

    monkeypatch.setattr(q.catalog, "create_category", create_category)
    return seen


# --- the envelope ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "options", "refused"),
    [
        ("GET", "/nowhere", {}, (404, "not_found")),
        ("GET", "/categories/x", {}, (404, "not_found")),
        ("GET", "/categories/0", {}, (404, "not_found")),
        ("GET", "/categories/99999999999999999999", {}, (404, "not_found")),
        ("GET", "/categories/1?x=1", {}, (422, "invalid_request")),
        ("GET", "/categories?size=1000", {}, (422, "invalid_request")),
        ("GET", "/categories?search=%00", {}, (422, "invalid_request")),
        ("PATCH", "/categories", {}, (405, "method_not_allowed")),
        ("BREW", "/categories", {}, (400, "malformed_request")),
        ("POST", "/categories", {"content": b"{"}, (400, "malformed_json")),
        ("POST", "/categories", {"content": b'{"name":1,"name":2}'}, (400, "malformed_json")),
        ("POST", "/categories", {"content": b"[]"}, (422, "invalid_request")),
        ("POST", "/categories", {"content": b"null"}, (422, "invalid_request")),
        ("POST", "/categories", {}, (422, "invalid_request")),
        ("POST", "/categories", {"json": {"name": "a\0b"}}, (422, "invalid_request")),
        (
            "POST",
            "/categories",
            {"content": b"name=x", "headers": {"Content-Type": "text/plain"}},
            (415, "unsupported_media_type"),
        ),
        ("POST", "/categories", {"content": b"x" * 2_000}, (413, "payload_too_large")),
        (
            "POST",
            "/categories",
            {"content": b"no gzip", "headers": {"Content-Encoding": "gzip"}},
            (415, "unsupported_content_encoding"),
        ),
        ("GET", "/categories", {"headers": {"X-Branch-Id": "x"}}, (422, "invalid_request")),
    ],
)
async def test_every_refusal_is_the_envelope(
    api_with: MakeApi, org: Org, method: str, path: str, options: Any, refused: tuple[int, str]
) -> None:
    api = await api_with(max_body_bytes=1_024)
    answer = await api.call(method, path, org, **options)
    assert answer.refused == refused
    assert answer.body.keys() == ENVELOPE_KEYS
    assert answer.body["success"] is False
    assert answer.body["meta"] == {}
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_a_method_that_a_path_does_not_know_is_told_which_it_does(api: Api, org: Org) -> None:
    answer = await api.call("PATCH", PATH, org)
    assert answer.headers["Allow"] == "GET,HEAD,POST"
    head = await api.call("HEAD", PATH, org)
    assert (head.status, head.text) == (200, "")


async def test_an_error_is_problem_details_for_who_asks(api: Api, org: Org) -> None:
    headers = {"Accept": "application/problem+json", "X-Request-ID": "r-1"}
    answer = await api.post(PATH, org, {"name": ""}, headers=headers)
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.body
    assert (problem["status"], problem["code"], problem["instance"], problem["request_id"]) == (
        422, "invalid_request", "/api/v1/categories", "r-1",
    )  # fmt: skip
    assert list(problem["details"]["fields"]) == ["name"]
    nowhere = await api.get("/nowhere", headers=headers)
    assert (nowhere.status, nowhere.body["code"]) == (404, "not_found")
    fine = await api.post(PATH, org, FRUIT, headers=headers)
    assert fine.headers["Content-Type"] == "application/json; charset=utf-8"
    assert fine.body.keys() == ENVELOPE_KEYS


async def test_a_request_keeps_its_name_or_gets_one(api: Api) -> None:
    async def named(name: str | None) -> str:
        headers = {} if name is None else {"X-Request-ID": name}
        return (await api.get("/info", headers=headers)).headers["X-Request-ID"]

    assert await named("till-7:42/a_b.c") == "till-7:42/a_b.c"
    made = [await named(name) for name in (None, "", "x" * 129, "a b", 'a"b', "é", "a@b.example")]
    assert all(len(name) == 32 for name in made)
    assert len(set(made)) == len(made)


async def test_meta_says_more_when_asked_for(api_with: MakeApi) -> None:
    api = await api_with(enable_response_enrichment=True)
    answer = await api.get("/info", headers={"X-Request-ID": "r-1"})
    assert answer.body["meta"] == {"app_version": __version__, "correlation_id": "r-1"}
    answer = await api.get("/nowhere", headers={"X-Request-ID": "r-2"})
    assert answer.body["meta"]["correlation_id"] == "r-2"


async def test_a_bug_of_ours_is_told_to_the_log_and_not_to_the_client(
    api: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(JOURNAL, "stream", stream)
    broken(monkeypatch, RuntimeError("the secret recipe"))
    answer = await api.post(PATH, org, FRUIT, headers={"X-Request-ID": "r-500"})
    assert answer.refused == (500, "internal")
    assert "secret" not in answer.text
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["request_id"] for line in lines} == {"r-500"}
    assert "the secret recipe" in lines[0]["metadata"]["exception"]
    assert lines[-1]["metadata"]["error_code"] == "internal"
    assert names(psql, org) == []


async def test_each_request_is_logged_when_it_starts_and_when_it_is_done(
    api: Api, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(JOURNAL, "stream", stream)
    monkeypatch.setattr(JOURNAL, "level", logs.logging.INFO)
    key = "a-key-that-stays-private"
    await api.post(PATH + "?x=not-in-the-log", org, FRUIT, key=key)
    await api.post(PATH, org, FRUIT, key=key)
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["message"], line["metadata"].get("status")) for line in lines] == [
        ("request started", None), ("request completed", 422),
        ("request started", None), ("request completed", 201),
    ]  # fmt: skip
    done = lines[3]
    assert done["user_id"] == org.admin.id
    metadata = done["metadata"]
    assert (metadata["method"], metadata["route"]) == ("POST", "/api/v1/categories")
    assert metadata["duration_ms"] > 0
    assert (metadata["ip_address"], metadata["org_id"]) == ("127.0.0.1", org.id)
    assert lines[1]["metadata"]["error_code"] == "invalid_request"
    for private in (org.admin.token, key, "not-in-the-log", "Fruit"):
        assert private not in stream.getvalue()


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", parse.ONCE)
async def test_a_header_that_says_one_thing_comes_once(api: Api, org: Org, name: str) -> None:
    sent = [("Authorization", f"Bearer {org.admin.token}"), (name, "1"), (name, "2")]
    async with api.session.get(f"{api.base_url}/api/v1{PATH}", headers=sent) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert (error["code"], error["message"]) == ("repeated_header", f"Send {name} once.")


async def test_without_a_good_token_nobody_is_let_in(api: Api, org: Org) -> None:
    answer = await api.get(PATH)
    assert answer.refused == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    forged = {"Authorization": f"Bearer {org.admin.token}x"}
    assert (await api.get(PATH, headers=forged)).refused == (401, "unauthorized")
    answer = await api.post(PATH, org.member("CASHIER"), FRUIT)
    assert answer.refused == (403, "forbidden")
    assert answer.details == {"permission": "categories:write"}
    # Refused before anything is read of it.
    answer = await api.post(PATH, content=b"{")
    assert answer.refused == (401, "unauthorized")


async def test_who_has_some_branches_acts_in_them(api: Api, org: Org, psql: Psql) -> None:
    own, other = [
        (await api.post("/branches", org, {"name": name})).data["id"] for name in ("Ours", "Theirs")
    ]
    manager = org.member("MANAGER")

    async def get(branch_id: int | None) -> Answer:
        named = {} if branch_id is None else {"X-Branch-Id": str(branch_id)}
        return await api.get("/branches", manager, headers=named)

    for branch_id in (None, own, other):
        assert (await get(branch_id)).status == 200
    psql("update app_user set all_branches = false where id = %s", [manager.id], org=org)
    assert (await get(None)).data["items"] == []
    psql("insert into user_branch values (%s, %s, %s)", [org.id, manager.id, own], org=org,
         role="sofinance_owner")  # fmt: skip
    assert [row["id"] for row in (await get(None)).data["items"]] == [own]
    assert (await get(own)).status == 200
    # Whether such a branch exists makes no difference.
    for branch_id in (other, 999_999_999):
        assert (await get(branch_id)).refused == (403, "forbidden")
        answer = await api.get(f"/branches/{branch_id}", manager)
        assert answer.refused == (404, "not_found")


async def test_what_changes_for_the_caller_holds_from_the_next_request_on(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    assert (await api.post(PATH, cashier, FRUIT)).refused == (403, "forbidden")
    grant = "insert into user_permission values (%s, %s, 'categories:write', %s)"
    psql(grant, [org.id, cashier.id, "ALLOW"], org=org, role="sofinance_owner")
    assert (await api.post(PATH, cashier, FRUIT)).status == 201
    psql("update user_permission set effect = 'DENY' where user_id = %s", [cashier.id], org=org)
    assert (await api.get(PATH, cashier)).status == 200
    assert (await api.post(PATH, cashier, FRUIT)).refused == (403, "forbidden")
    psql("insert into role_grant values (%s, 'CASHIER', 'categories:read', 'DENY')", [org.id],
         org=org)  # fmt: skip
    assert (await api.get(PATH, cashier)).refused == (403, "forbidden")
    psql("delete from role_grant", org=org, role="sofinance_owner")
    assert (await api.get(PATH, cashier)).status == 200
    psql("update user_session set revoked_at = now(), revoked_why = 'sign_out' where user_id = %s",
         [cashier.id], org=org)  # fmt: skip
    assert (await api.get(PATH, cashier)).refused == (401, "unauthorized")
    manager = org.member("MANAGER")
    assert (await api.get(PATH, manager)).status == 200
    psql("update app_user set is_active = false where id = %s", [manager.id], org=org)
    assert (await api.get(PATH, manager)).refused == (401, "unauthorized")


async def test_a_denial_is_written_down(api: Api, org: Org, psql: Psql) -> None:
    cashier = org.member("CASHIER")
    await api.post(PATH, cashier, FRUIT)
    rows = psql(
        "select user_id, action, after ->> 'code', severity from audit_log"
        " where severity = 'WARNING'", org=org,
    )  # fmt: skip
    assert rows == [(cashier.id, "catalog.create_category", "forbidden", "WARNING")]


async def test_who_must_change_the_password_can_do_nothing_else(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    psql("update app_user set must_change_password = true where id = %s", [cashier.id], org=org)
    assert (await api.get(PATH, cashier)).refused == (403, "password_change_required")
    assert (await api.get("/auth/me", cashier)).status == 200


async def test_a_role_that_needs_a_second_factor_can_do_nothing_without(
    api_with: MakeApi, org: Org
) -> None:
    api = await api_with(mfa_required_roles="ADMIN, manager")
    assert (await api.get(PATH, org)).refused == (401, "mfa_required")
    assert (await api.get(PATH, org.member("MANAGER"))).refused == (401, "mfa_required")
    assert (await api.get(PATH, org.member("CASHIER"))).status == 200
    assert (await api.get("/auth/me", org)).status == 200


# --- idempotency ----------------------------------------------------------------------------------


async def test_the_same_request_is_done_once(api: Api, org: Org, psql: Psql) -> None:
    first = await api.post(PATH, org, FRUIT, key="k")
    again = await api.post(PATH, org, content=b'{ "name" : "Fruit" }', key='"k"')
    assert (first.status, again.status) == (201, 201)
    assert again.text == first.text
    assert again.headers["Location"] == first.headers["Location"]
    assert first.headers["Location"] == f"/api/v1/categories/{first.data['id']}"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert names(psql, org) == ["Fruit"]
    assert len(audit(psql, org)) == 1


async def test_twenty_at_once_are_done_once(api: Api, org: Org, psql: Psql) -> None:
    answers = await asyncio.gather(*(api.post(PATH, org, FRUIT, key="k") for _ in range(20)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    replayed = Counter(answer.headers.get("Idempotent-Replayed") for answer in answers)
    assert replayed == {None: 1, "true": 19}
    assert names(psql, org) == ["Fruit"]


async def test_an_answer_without_a_body_is_replayed_too(api: Api, org: Org) -> None:
    made = await api.post(PATH, org, FRUIT)
    path = f"{PATH}/{made.data['id']}"
    answers = [await api.delete(path, org, key="k") for _ in range(2)]
    assert [(answer.status, answer.text) for answer in answers] == [(204, ""), (204, "")]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert (await api.delete(path, org)).refused == (404, "not_found")


async def test_a_key_is_for_one_request(api: Api, org: Org, other_org: Org) -> None:
    made = await api.post(PATH, org, FRUIT, key="k")
    refused = (422, "idempotency_key_reused")
    assert (await api.post(PATH, org, {"name": "Meat"}, key="k")).refused == refused
    path = f"{PATH}/{made.data['id']}"
    assert (await api.put(path, org, FRUIT, key="k")).refused == refused
    in_branch = {"X-Branch-Id": "7"}
    assert (await api.post(PATH, org, FRUIT, key="k", headers=in_branch)).refused == refused
    # Another organisation's keys are its own.
    assert (await api.post(PATH, other_org, FRUIT, key="k")).status == 201


async def test_an_answer_is_for_who_asked(api: Api, org: Org) -> None:
    await api.post(PATH, org, FRUIT, key="k")
    answer = await api.post(PATH, org.member("MANAGER"), FRUIT, key="k")
    assert answer.refused == (422, "idempotency_key_reused")


async def test_a_key_says_how_long_it_is_kept(api_with: MakeApi, org: Org) -> None:
    api = await api_with(idempotency_ttl_hours=2)
    first = await api.post(PATH, org, FRUIT, key="k")
    expires_at = parsedate_to_datetime(first.headers["Idempotency-Key-Expires"])
    assert abs(expires_at - datetime.now(UTC) - timedelta(hours=2)) < timedelta(seconds=30)
    again = await api.post(PATH, org, FRUIT, key="k")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Idempotency-Key-Expires"] == first.headers["Idempotency-Key-Expires"]
    assert "Idempotency-Key-Expires" not in (await api.get(PATH, org)).headers


async def test_a_refusal_leaves_the_key_free(api: Api, org: Org) -> None:
    assert (await api.post(PATH, org, {"name": ""}, key="k")).status == 422
    await api.post(PATH, org, FRUIT)
    taken = await api.post(PATH, org, FRUIT, key="k")
    assert taken.refused == (409, "category_name_taken")
    fine = await api.post(PATH, org, {"name": "Meat"}, key="k")
    assert fine.status == 201
    assert "Idempotent-Replayed" not in fine.headers


async def test_a_key_that_has_expired_is_free(api: Api, org: Org, psql: Psql) -> None:
    first = await api.post(PATH, org, FRUIT, key="k")
    psql(
        "update idempotency_key set expires_at = now() where org_id = %s", [org.id],
        role="superuser",
    )  # fmt: skip
    again = await api.post(PATH, org, {"name": "Meat"}, key="k")
    assert (again.status, again.data["name"]) == (201, "Meat")
    assert again.data["id"] != first.data["id"]
    assert (await api.post(PATH, org, {"name": "Meat"}, key="k")).text == again.text
    assert names(psql, org) == ["Fruit", "Meat"]


async def test_a_key_in_use_is_told_so(
    api: Api, org: Org, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LOCK_TIMEOUT_MS", 50)
    reserve = q.request.reserve_key.literal(
        org_id=org.id, key_hash=sha256(b"k").digest(), fingerprint=b"x" * 32, expires_at_s=2**33
    )
    with psycopg.connect(dsn) as running:
        running.execute("select set_config('app.org_id', %s, true)", [str(org.id)])
        running.execute(reserve.encode())
        answer = await api.post(PATH, org, FRUIT, key="k")
        assert answer.refused == (409, "idempotency_key_in_use")
        assert answer.headers["Retry-After"] == "1"
        running.rollback()
    assert (await api.post(PATH, org, FRUIT, key="k")).status == 201


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "smile☺", "tab\t."])
async def test_a_key_is_short_and_plain(api: Api, org: Org, key: str) -> None:
    answer = await api.post(PATH, org, FRUIT, headers={"Idempotency-Key": key})
    assert answer.refused == (400, "idempotency_key_invalid")


async def test_a_key_can_be_made_a_duty(api_with: MakeApi, org: Org) -> None:
    api = await api_with(idempotency_required=True)
    refused = (400, "idempotency_key_required")
    assert (await api.post(PATH, org, FRUIT)).refused == refused
    made = await api.post(PATH, org, FRUIT, key="k")
    # Sent twice, these do no harm by their nature.
    assert (await api.put(f"{PATH}/{made.data['id']}", org, FRUIT)).status == 200
    assert (await api.get(PATH, org)).status == 200


# --- audit ----------------------------------------------------------------------------------------


async def test_each_change_is_on_record_with_before_and_after(
    api: Api, org: Org, psql: Psql
) -> None:
    agent = {"User-Agent": "till/1.0 é" + "x" * 600, "X-Request-ID": "r-1"}
    made = (await api.post(PATH, org, FRUIT, headers=agent)).data
    path = f"{PATH}/{made['id']}"
    changed = (await api.put(path, org, {"name": "Fruits"})).data
    assert (await api.get(path, org)).status == 200
    assert (await api.put(path, org, {"name": ""})).status == 422
    assert (await api.delete(path, org)).status == 204
    first, second, third = audit(psql, org)
    assert first[:6] == (
        org.admin.id, "catalog.create_category", "categories", made["id"], None, made,
    )  # fmt: skip
    assert first[6] == "r-1"
    assert first[7].startswith("till/1.0 ")
    assert len(first[7]) == 500
    assert second[1:6] == (
        "catalog.change_category", "categories", made["id"], made, changed,
    )  # fmt: skip
    assert third[1] == "catalog.delete_category"
    assert third[3] == made["id"]
    assert third[4]["name"] == "Fruits"
    assert third[5] is None


async def test_the_record_can_be_switched_off(api_with: MakeApi, org: Org, psql: Psql) -> None:
    api = await api_with(enable_audit_logging=False)
    assert (await api.post(PATH, org, FRUIT)).status == 201
    assert audit(psql, org) == []


# --- all or nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [asyncpg.SerializationError("40001"), asyncpg.DeadlockDetectedError("40P01")]
)
async def test_who_was_in_the_way_is_tried_again(
    api: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    seen = broken(monkeypatch, error, error)
    answer = await api.post(PATH, org, FRUIT, key="k")
    assert (answer.status, len(seen)) == (201, 3)
    assert names(psql, org) == ["Fruit"]
    assert len(audit(psql, org)) == 1


async def test_trying_again_has_an_end(
    api: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = broken(monkeypatch, *[asyncpg.SerializationError("40001")] * 9)
    answer = await api.post(PATH, org, FRUIT, key="k")
    assert answer.refused == (503, "try_again")
    assert answer.headers["Retry-After"] == "1"
    assert len(seen) == route.ATTEMPT_COUNT_MAX
    assert names(psql, org) == []
    monkeypatch.undo()
    assert (await api.post(PATH, org, FRUIT, key="k")).status == 201


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ApiError("too_ripe", "Too ripe.", status=409, days=3), (409, "too_ripe")),
        (asyncpg.QueryCanceledError("57014"), (503, "try_again")),
        (asyncpg.TooManyConnectionsError("53300"), (503, "unavailable")),
        (asyncpg.InsufficientPrivilegeError("42501"), (500, "internal")),
    ],
)
async def test_what_fails_leaves_nothing_behind(
    api: Api,
    org: Org,
    psql: Psql,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    refused: tuple[int, str],
) -> None:
    broken(monkeypatch, error)
    assert (await api.post(PATH, org, FRUIT, key="k")).refused == refused
    assert names(psql, org) == []
    assert audit(psql, org) == []


async def test_a_swallowed_error_cannot_pass_for_success(
    api: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = q.catalog.create_category

    async def create_category(conn: Any, **args: Any) -> Any:
        row = await real(conn, **args)
        try:
            await conn.execute("select 1 / 0")
        except asyncpg.DivisionByZeroError:
            return row

    monkeypatch.setattr(q.catalog, "create_category", create_category)
    assert (await api.post(PATH, org, FRUIT)).refused == (500, "internal")
    assert names(psql, org) == []


async def test_a_read_cannot_write(
    api: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count_categories(conn: Any, **args: Any) -> Any:
        columns = {"description": None, "is_active": True}
        await q.catalog.create_category(conn, org_id=args["org_id"], name="Sly", **columns)

    monkeypatch.setattr(q.catalog, "count_categories", count_categories)
    assert (await api.get(PATH, org)).refused == (500, "internal")
    assert names(psql, org) == []


async def test_each_organisation_sees_its_own(api: Api, org: Org, other_org: Org) -> None:
    made = await api.post(PATH, org, FRUIT)
    path = f"{PATH}/{made.data['id']}"
    assert (await api.get(path, other_org)).refused == (404, "not_found")
    assert (await api.put(path, other_org, {"name": "x"})).refused == (404, "not_found")
    assert (await api.get(PATH, other_org)).data["items"] == []


# --- the database is away -------------------------------------------------------------------------


async def test_a_database_that_is_away_is_a_503(
    api_with: MakeApi, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await api_with()
    pool = api.app[MACHINE].db.pool

    async def take(**_options: bool) -> Any:
        raise ConnectionRefusedError

    monkeypatch.setattr(pool, "take", take)
    answer = await api.get(PATH, org)
    assert answer.refused == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1"
    monkeypatch.undo()
    assert (await api.get(PATH, org)).status == 200


async def test_connections_that_died_idle_cost_no_request(api_with: MakeApi, org: Org) -> None:
    api = await api_with(database_pool_size=2)
    await asyncio.gather(*(api.get(PATH, org) for _ in range(4)))
    pool = api.app[MACHINE].db.pool
    for conn in [await pool.take() for _ in range(pool.open_count)]:
        # As when a server is restarted behind our back: only sending finds out.
        conn._transport.get_extra_info("socket").shutdown(2)  # noqa: SLF001
        pool.give_back(conn)
    answers = await asyncio.gather(*(api.get(PATH, org) for _ in range(4)))
    assert {answer.status for answer in answers} == {200}


async def test_a_full_pool_is_a_503_in_time(api_with: MakeApi, org: Org) -> None:
    api = await api_with(database_pool_size=1, database_acquire_timeout_s=1)
    pool = api.app[MACHINE].db.pool
    async with pool.lend():
        assert (await api.get(PATH, org)).refused == (503, "unavailable")
    assert (await api.get(PATH, org)).status == 200
