"""Signing in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support import Api, Org, Psql


async def test_an_administrator_signs_in(api: Api, org: Org) -> None:
    body = {"email": org.admin.email.upper(), "password": org.admin.password}
    answer = await api.post("/auth/login", json=body)
    assert answer.data["token_type"] == "bearer"  # noqa: S105 - not a secret
    assert answer.data["user"]["email"] == org.admin.email
    assert "password_hash" not in answer.text
    assert "argon2" not in answer.text
    me = await api.get(
        "/auth/me", headers={"Authorization": f"Bearer {answer.data['access_token']}"}
    )
    assert (me.data["id"], me.data["role"]) == (org.admin.id, "ADMIN")


async def test_who_does_not_prove_who_they_are_does_not_get_in(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    good = {"email": cashier.email, "password": cashier.password}
    wrong = await api.post("/auth/login", json={**good, "password": "wrong"})
    assert wrong.refused == (401, "invalid_credentials")
    nobody = await api.post("/auth/login", json={**good, "email": "nobody@example.com"})
    assert nobody.error == wrong.error
    assert (await api.post("/auth/login", json={"email": "x@example.com"})).status == 422
    psql("update app_user set is_active = false where id = %s", [cashier.id], org=org)
    assert (await api.post("/auth/login", json=good)).error == wrong.error
    assert (await api.get("/auth/me")).refused == (401, "unauthorized")
    bad = {"Authorization": "Bearer abc"}
    assert (await api.get("/auth/me", headers=bad)).refused == (401, "unauthorized")
