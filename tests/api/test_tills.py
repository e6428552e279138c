"""Tills: paired once, signed in on with a PIN, and sold at only as what they are."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.api.conftest import Shop
    from tests.support import Answer, Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

RACERS = 20
PIN = "274916"
CODE = re.compile(r"[0-9]+-[0-9]+(-[0-9A-HJKMNP-TV-Z]{4}){3}")
NOT_PAIRED, WRONG = (401, "till_not_paired"), (401, "invalid_pin")


async def pair(shop: Shop, till_id: int | None = None) -> str:
    """Pair a till of the shop; returns its credential."""
    path = f"/tills/{till_id or shop.till_id}/pairing-code"
    code = (await shop.api.post(path, shop.org.admin)).data["pairing_code"]
    answer = await shop.api.post("/tills/pair", json={"code": code})
    return str(answer.data["till_credential"])


@dataclass(frozen=True)
class Till:
    """A paired till, and a cashier who has a PIN."""

    shop: Shop
    credential: str
    cashier: User

    async def sign_in(self, **changes: Any) -> Answer:
        """Sign the cashier in."""
        body = {
            "user": self.cashier.email, "pin": PIN, "till_credential": self.credential, **changes,
        }  # fmt: skip
        return await self.shop.api.post("/auth/till", json=body)

    async def session(self) -> User:
        """Return the cashier with the token of a session on the till."""
        return replace(self.cashier, token=(await self.sign_in()).data["access_token"])


async def set_pin(api: Api, who: User) -> None:
    answer = await api.post("/auth/pin", who, {"password": who.password, "pin": PIN})
    assert answer.status == 200, answer.text


@pytest.fixture
async def till(shop: Shop) -> Till:
    """The shop's till, paired, and its cashier."""
    cashier = shop.org.member("CASHIER")
    await set_pin(shop.api, cashier)
    return Till(shop, await pair(shop), cashier)


# -- pairing -----------------------------------------------------------------------------------


async def test_a_till_is_paired_with_a_code(shop: Shop, psql: Psql) -> None:
    path = f"/tills/{shop.till_id}/pairing-code"
    issued = await shop.api.post(path, shop.org.member("MANAGER"))
    assert issued.status == 201
    code = issued.data["pairing_code"]
    assert CODE.fullmatch(code)
    # As people type: small letters, no hyphens in the secret part, O for 0 and l for 1.
    place, secret = code[:-15], code[-14:]
    typed = f" {place}-{secret.lower().replace('0', 'o').replace('1', 'l').replace('-', '')} "
    paired = (await shop.api.post("/tills/pair", json={"code": typed})).data
    assert (paired["till_id"], paired["branch_id"]) == (shop.till_id, shop.branch_id)
    assert paired["till_credential"].startswith(f"sft_{shop.org.id}_")
    again = await shop.api.post("/tills/pair", json={"code": code})
    assert again.refused == (401, "invalid_pairing_code")
    # Who paired it is written down; what was shown is not.
    rows = psql(
        "select action, user_id, entity_id, coalesce(after::text, '') from audit_log"
        " where entity_type = 'tills'", org=shop.org,
    )  # fmt: skip
    manager_id = shop.org.member("MANAGER").id
    assert [row[:2] for row in rows] == [
        ("tills.issue_pairing_code", manager_id), ("tills.pair", manager_id),
    ]  # fmt: skip
    secrets = (code[-14:], paired["till_credential"].split("_", 3)[3])
    assert not any(secret in row[3] for row in rows for secret in secrets)


async def test_a_code_that_is_not_good_pairs_nothing(shop: Shop, psql: Psql) -> None:
    path = f"/tills/{shop.till_id}/pairing-code"
    old = (await shop.api.post(path, shop.org)).data["pairing_code"]
    code = (await shop.api.post(path, shop.org)).data["pairing_code"]
    other = f"{shop.org.id + 1}{code[len(str(shop.org.id)) :]}"
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    huge = f"{'9' * 30}-1-{code[-14:]}"
    for bad in (old, wrong, other, huge, "x", "1-1-1", "--", f"0-{shop.till_id}-{code[-14:]}"):
        answer = await shop.api.post("/tills/pair", json={"code": bad})
        assert answer.refused == (401, "invalid_pairing_code"), bad
    psql(
        "update till_pairing_code set issued_at = issued_at - interval '11 minutes',"
        " expires_at = expires_at - interval '11 minutes'", org=shop.org,
    )  # fmt: skip
    late = await shop.api.post("/tills/pair", json={"code": code})
    assert late.refused == (401, "invalid_pairing_code")
    assert psql("select count(*) from till_credential", org=shop.org) == [(0,)]


async def test_of_many_devices_with_one_code_one_is_the_till(shop: Shop, psql: Psql) -> None:
    path = f"/tills/{shop.till_id}/pairing-code"
    code = (await shop.api.post(path, shop.org)).data["pairing_code"]
    answers = await asyncio.gather(
        *(shop.api.post("/tills/pair", json={"code": code}) for _ in range(RACERS))
    )
    assert Counter(answer.status for answer in answers) == {201: 1, 401: RACERS - 1}
    assert psql("select count(*) from till_credential", org=shop.org) == [(1,)]


async def test_guesses_at_codes_are_few(api_with: MakeApi, org: Org) -> None:
    api = await api_with(rate_limit_enabled=True)
    guesses = [
        await api.post("/tills/pair", json={"code": f"{org.id}-{n}-0000-0000-0000"})
        for n in range(11)
    ]
    assert [guess.status for guess in guesses] == [401] * 10 + [429]


async def test_who_may_not_pair_does_not(shop: Shop, other_org: Org) -> None:
    path = f"/tills/{shop.till_id}/pairing-code"
    assert (await shop.api.post(path, shop.org.member("CASHIER"))).refused == (403, "forbidden")
    assert (await shop.api.post(path, other_org)).refused == (404, "not_found")
    gone = f"/tills/{shop.till_id}/pairing"
    assert (await shop.api.delete(gone, shop.org)).refused == (404, "not_found")
    await pair(shop)
    assert (await shop.api.delete(gone, other_org)).refused == (404, "not_found")
    assert (await shop.api.delete(gone, shop.org.member("CASHIER"))).status == 403


async def test_another_branch_s_till_is_not_there(shop: Shop, psql: Psql) -> None:
    manager = shop.org.member("MANAGER")
    other = (await shop.api.post("/branches", shop.org, {"name": "Elsewhere"})).data
    await pair(shop)
    await shop.api.post(f"/tills/{shop.till_id}/pairing-code", shop.org)
    psql(
        f"update app_user set all_branches = false where id = {manager.id};"
        f"insert into user_branch values ({shop.org.id}, {manager.id}, {other['id']})",
        org=shop.org,
        role="sofinance_owner",
    )
    for method, what in (("POST", "pairing-code"), ("DELETE", "pairing")):
        answer = await shop.api.call(method, f"/tills/{shop.till_id}/{what}", manager)
        assert answer.refused == (404, "not_found")
    assert psql("select count(*) from till_credential where revoked_at is null", org=shop.org) == [
        (1,)
    ]
    own = await shop.api.post(f"/tills/{other['till_id']}/pairing-code", manager)
    assert own.status == 201


# -- signing in --------------------------------------------------------------------------------


async def test_a_cashier_signs_in_on_a_till(till: Till, psql: Psql) -> None:
    shop = till.shop
    for body in (
        {"user": str(till.cashier.id)},
        {"user": till.cashier.email.upper()},
    ):
        assert (await till.sign_in(**body)).status == 200
    by_header = await shop.api.post(
        "/auth/till", json={"user": till.cashier.email, "pin": PIN},
        headers={"Authorization": f"Bearer {till.credential}"},
    )  # fmt: skip
    assert by_header.data["till_id"] == shop.till_id
    who = replace(till.cashier, token=by_header.data["access_token"])
    sold = await shop.api.post("/sales", who, {"items": [shop.item()], "payments": []})
    assert sold.refused == (422, "sale_credit_has_customer")
    body = {"items": [shop.item()], "payments": [{"amount": "11.00"}]}
    sale = (await shop.api.post("/sales", who, body)).data
    assert (sale["till_id"], sale["cashier_id"]) == (shop.till_id, till.cashier.id)
    log = psql("select user_id, after->>'till' from audit_log where action = 'auth.till'",
               org=shop.org)  # fmt: skip
    assert log == [(till.cashier.id, "Till 1")] * 3


async def test_who_does_not_prove_who_they_are_does_not_get_in(till: Till, psql: Psql) -> None:
    org = till.shop.org
    assert (await till.sign_in(pin="274917")).refused == WRONG
    assert (await till.sign_in(user="nobody@example.com")).refused == WRONG
    assert (await till.sign_in(user=org.admin.email)).refused == WRONG  # has no PIN
    assert (await till.sign_in(user="9" * 40)).refused == WRONG
    for bad in (None, "sft", f"sft_{org.id}_1_x", till.credential[:-1], till.cashier.token):
        assert (await till.sign_in(till_credential=bad)).refused == NOT_PAIRED
    psql(f"update app_user set is_active = false where id = {till.cashier.id}", org=org)
    assert (await till.sign_in()).refused == WRONG
    failed = psql(
        "select count(*) from audit_log where action = 'auth.till' and severity = 'WARNING'",
        org=org,
    )
    assert failed == [(5,)]


async def test_a_pin_is_good_on_a_till_only(till: Till) -> None:
    api, org = till.shop.api, till.shop.org
    for body in ({"email": till.cashier.email, "password": PIN},):
        assert (await api.post("/auth/login", json=body)).refused == (401, "invalid_credentials")
    as_password = {"password": PIN, "pin": "385027"}
    refused = (401, "invalid_credentials")
    assert (await api.post("/auth/pin", till.cashier, as_password)).refused == refused
    assert (await till.sign_in(till_credential=None)).refused == NOT_PAIRED
    # Nor is the till's credential a token.
    bearer = {"Authorization": f"Bearer {till.credential}"}
    assert (await api.get("/categories", headers=bearer)).refused == (401, "unauthorized")
    # Another organisation's cashier is nobody here.
    assert (await till.sign_in(user=str(org.admin.id))).refused == WRONG


async def test_another_organisation_s_user_is_nobody_on_a_till(till: Till, other_org: Org) -> None:
    await set_pin(till.shop.api, other_org.member("CASHIER"))
    for user in (other_org.member("CASHIER").email, str(other_org.member("CASHIER").id)):
        assert (await till.sign_in(user=user)).refused == WRONG


async def test_a_cashier_signs_in_on_tills_of_their_branches(till: Till, psql: Psql) -> None:
    shop, cashier = till.shop, till.cashier
    other = (await shop.api.post("/branches", shop.org, {"name": "Elsewhere"})).data
    here = await till.session()
    psql(
        f"update app_user set all_branches = false where id = {cashier.id};"
        f"insert into user_branch values ({shop.org.id}, {cashier.id}, {other['id']})",
        org=shop.org,
        role="sofinance_owner",
    )
    assert (await till.sign_in()).refused == WRONG
    # What began before sees nothing any more.
    assert (await shop.api.get("/branches", here)).data["items"] == []
    there = replace(till, credential=await pair(shop, other["till_id"]))
    assert (await there.sign_in()).data["branch_id"] == other["id"]


@pytest.mark.parametrize("pin", ["1234", "0000", "123", "12a4", "123456789", "1990"])
async def test_a_weak_pin_is_refused(api: Api, org: Org, pin: str) -> None:
    who = org.member("CASHIER")
    answer = await api.post("/auth/pin", who, {"password": who.password, "pin": pin})
    assert answer.refused == (422, "invalid_request")
    assert answer.details["fields"].keys() == {"pin"}


async def test_a_new_pin_ends_the_old_one_and_its_sessions(till: Till, psql: Psql) -> None:
    api, here = till.shop.api, await till.session()
    body = {"password": till.cashier.password, "pin": "385027"}
    assert (await api.post("/auth/pin", here, body)).refused == (403, "forbidden")
    assert (await api.post("/auth/pin", till.cashier, body)).status == 200
    assert (await api.get("/products", here)).refused == (401, "unauthorized")
    assert (await till.sign_in()).refused == WRONG
    assert (await till.sign_in(pin="385027")).status == 200
    (stored,) = psql("select pin_hash from user_pin", org=till.shop.org)
    assert stored[0].startswith("$argon2id$")


async def test_twenty_wrong_pins_in_a_row_end_a_pin(till: Till) -> None:
    api = till.shop.api
    wrong = await asyncio.gather(*(till.sign_in(pin="385027") for _ in range(RACERS + 5)))
    assert {answer.refused for answer in wrong} == {WRONG}
    assert (await till.sign_in()).refused == WRONG
    await set_pin(api, till.cashier)
    assert (await till.sign_in()).status == 200


async def test_guesses_at_pins_are_throttled(till: Till, api_with: MakeApi) -> None:
    api = await api_with(rate_limit_enabled=True)
    limited = replace(till, shop=replace(till.shop, api=api))
    guesses = [await limited.sign_in(pin="385027") for _ in range(11)]
    assert [guess.status for guess in guesses] == [401] * 10 + [429]
    assert (await limited.sign_in()).refused == (429, "rate_limited")


async def test_a_number_has_one_spelling_to_guess_at(till: Till, api_with: MakeApi) -> None:
    api = await api_with(rate_limit_enabled=True)
    limited = replace(till, shop=replace(till.shop, api=api))
    number = till.cashier.id
    spelled = [f"{'0' * zeros}{number}" for zeros in range(11)]
    guesses = [await limited.sign_in(user=user, pin="385027") for user in spelled]
    assert [guess.status for guess in guesses] == [401] * 10 + [429]


# -- what a session on a till may do -----------------------------------------------------------


async def test_a_session_on_a_till_sells_there_only(till: Till) -> None:
    shop, here = till.shop, await till.session()
    second = (
        await shop.api.post(f"/branches/{shop.branch_id}/tills", shop.org, {"name": "Till 2"})
    ).data["id"]
    sale = shop.sale(paid="11.00")
    assert (await shop.api.post("/sales", here, {**sale, "till_id": second})).refused == (
        403, "sale_at_its_till",
    )  # fmt: skip
    sold = await shop.api.post("/sales", here, {**sale, "till_id": shop.till_id})
    assert sold.data["till_id"] == shop.till_id
    # Whoever signed in with a password sells at any.
    free = await shop.api.post("/sales", shop.org.admin, {**sale, "till_id": second})
    assert free.data["till_id"] == second


async def test_a_pin_gives_no_more_than_a_till_needs(till: Till) -> None:
    api, admin = till.shop.api, till.shop.org.admin
    await set_pin(api, admin)
    on_till = await replace(till, cashier=admin).session()
    assert (await api.get("/products", on_till)).status == 200
    for path in ("/journal/trial-balance", "/accounts", "/periods"):
        assert (await api.get(path, admin)).status == 200
        assert (await api.get(path, on_till)).refused == (403, "forbidden")
    assert (await api.post("/branches", on_till, {"name": "Mine"})).refused == (403, "forbidden")
    enrol = {"password": admin.password}
    change = {"current_password": admin.password, "new_password": "Better-Horse-10"}
    names = {"first_name": "Not", "last_name": "Me"}
    for method, path, body in (
        ("POST", "/auth/2fa/enroll", enrol), ("POST", "/auth/change-password", change),
        ("PUT", "/users/profile", names), ("GET", "/auth/sessions", None),
        ("DELETE", "/auth/sessions/1", None), ("POST", "/auth/logout-all", None),
    ):  # fmt: skip
        answer = await api.call(method, path, on_till, body)
        assert answer.refused == (403, "forbidden"), path
    assert (await api.post("/auth/logout", on_till)).status == 204


async def test_a_till_is_a_second_factor_of_its_own(till: Till, api_with: MakeApi) -> None:
    api = await api_with(mfa_required_roles="CASHIER")
    here = await till.session()
    assert (await api.get("/products", till.cashier)).refused == (401, "mfa_required")
    assert (await api.get("/products", here)).status == 200


# -- taking a till back ------------------------------------------------------------------------


async def test_what_is_taken_back_ends_at_once(till: Till) -> None:
    api, org, here = till.shop.api, till.shop.org, await till.session()
    assert (await api.get("/products", here)).status == 200
    other = (await till.sign_in()).data["refresh_token"]
    code = (await api.post(f"/tills/{till.shop.till_id}/pairing-code", org)).data["pairing_code"]
    assert (await api.delete(f"/tills/{till.shop.till_id}/pairing", org)).status == 204
    assert (await api.get("/products", here)).refused == (401, "unauthorized")
    assert (await till.sign_in()).refused == NOT_PAIRED
    renewed = await api.post("/auth/refresh", json={"refresh_token": other})
    assert renewed.refused == (401, "invalid_refresh_token")
    late = await api.post("/tills/pair", json={"code": code})
    assert late.refused == (401, "invalid_pairing_code")
    # The cashier's other sessions are none of the till's business.
    assert (await api.get("/products", till.cashier)).status == 200


async def test_pairing_again_ends_the_device_before(till: Till) -> None:
    here = await till.session()
    again = replace(till, credential=await pair(till.shop))
    assert (await till.shop.api.get("/products", here)).refused == (401, "unauthorized")
    assert (await till.sign_in()).refused == NOT_PAIRED
    assert (await again.sign_in()).status == 200


async def test_no_session_outlives_a_pairing_that_ends_meanwhile(till: Till) -> None:
    api, org = till.shop.api, till.shop.org
    *signed_in, ended = await asyncio.gather(
        *(till.sign_in() for _ in range(RACERS)),
        api.delete(f"/tills/{till.shop.till_id}/pairing", org),
    )
    assert ended.status == 204
    assert {answer.status for answer in signed_in} <= {200, 401, 409}
    for answer in signed_in:
        if answer.status == 200:
            who = replace(till.cashier, token=answer.data["access_token"])
            assert (await api.get("/products", who)).refused == (401, "unauthorized")
        else:
            assert answer.refused in {NOT_PAIRED, (409, "user_session_till_paired")}


async def test_a_till_that_is_closed_signs_nobody_in(till: Till, psql: Psql) -> None:
    psql("update till set is_active = false", org=till.shop.org)
    assert (await till.sign_in()).refused == NOT_PAIRED
    path = f"/tills/{till.shop.till_id}/pairing-code"
    assert (await till.shop.api.post(path, till.shop.org)).refused == (404, "not_found")


async def test_shops_of_two_organisations_have_tills_of_their_own(
    till: Till, other_org: Org
) -> None:
    theirs = await open_shop(till.shop.api, other_org)
    elsewhere = replace(till, shop=theirs, credential=await pair(theirs))
    assert (await elsewhere.sign_in()).refused == WRONG
    assert (await till.sign_in()).status == 200
